"""The entry point: measures, prints, and writes the results into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from bench import (
    backfilling,
    cost,
    deployed,
    flat,
    importing,
    memory,
    offloading,
    planning,
    power,
    read_bytes,
    reconciling,
    report,
    resolving,
    restore_cost,
    s3_clients,
    thawed,
    thaws,
    throughput,
)
from bench.report import Section
from neve.errors import NeveError

MEASUREMENTS: Mapping[str, tuple[str, Callable[..., Section]]] = {
    "a": ("throughput of WriteArchive against a bare loop", throughput.measure),
    "b": ("peak memory of WriteArchive", memory.measure),
    "c": ("files through the deployed thread", deployed.measure),
    "d": ("CPU time by S3 client", s3_clients.measure),
    "e": ("requests, units and dollars per file", cost.measure),
    "f": ("bytes read from archives", read_bytes.measure),
    "g": ("thaws for a batch of 100,000 lines", thaws.measure),
    "h": ("time and memory of the command for a million lines", planning.measure),
    "i": ("from a thawed archive to the file in its place", thawed.measure),
    "j": ("requests, units and dollars per file restored", restore_cost.measure),
    "k": ("versions that a shard of reconcile goes over", reconciling.measure),
    "l": ("what Resolve takes for each request", resolving.measure),
    "m": ("from a host's folder to a pointer", offloading.measure),
    "n": ("files imported a second, against aws and rclone", importing.measure),
    "o": ("live uploads beside a backfill", backfilling.measure),
    "p": ("the memory that each function costs least with", power.measure),
    "q": ("what a file costs among a thousand and among a million", flat.measure),
}


def letters(text: str) -> list[str]:
    """`a,d` as a list."""
    chosen = [letter.strip() for letter in text.split(",")]
    if unknown := [letter for letter in chosen if letter not in MEASUREMENTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(MEASUREMENTS)}")
    return chosen


def main(words: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 1 if something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures neve on servers of its own, prints the results and writes them into docs/benchmarks.md.",
        epilog="; ".join(f"{letter}: {title}" for letter, (title, _) in MEASUREMENTS.items()),
    )
    parser.add_argument("--only", type=letters, default=list(MEASUREMENTS), metavar="LETTERS", help="such as a,d")
    parser.add_argument("--dry-run", action="store_true", help="print, and leave docs/benchmarks.md as it is")
    parser.add_argument("--files", type=int, default=importing.FILES, metavar="N", help="so many files for (n)")
    parser.add_argument("--rounds", type=int, default=importing.ROUNDS, metavar="N", help="so many rounds of (n)")
    options = parser.parse_args(words)
    given = {"n": {"files": options.files, "rounds": options.rounds}}
    # An interrupted bench takes its servers with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for letter in options.only:
            title, measure = MEASUREMENTS[letter]
            began = time.monotonic()
            print(f"[bench] ({letter}) {title} ...", flush=True)
            section = measure(report.this_machine(), **given.get(letter, {}))
            print(f"\n{section}\n\n[bench] ({letter}) took {time.monotonic() - began:.0f} s\n", flush=True)
            if not options.dry_run:
                report.write(section)
    except KeyboardInterrupt:
        print("[bench] interrupted", flush=True)
        return 130
    except (NeveError, subprocess.CalledProcessError, TimeoutError) as error:
        print(f"[bench] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
