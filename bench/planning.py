"""(h) What `neve restore --batch` takes before it sends anything: a million lines, looked up, sorted, priced, cut up.

A fresh process for each size of batch; the kernel tells its highest mark of memory. The index answers at once: what is
measured is the command itself, and whether its memory stays the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.archives import MODIFIED, archive_row
from bench.memory import MIB, resident
from bench.report import Machine, Section, paragraphs, table
from bench.server import run_alone
from neve.domain.cost import Workload
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.manifest import Manifest
from neve.domain.restore import Request, render_request
from neve.domain.selection import Places
from neve.domain.thaw import Need, Tier
from neve_cli.batch import read_lines
from neve_cli.restore_plan import Plan, Problem
from tests.memory import MemoryArchives
from tests.memory_restore import MemoryThaws

COUNTS = (100_000, 1_000_000)
FLAT_MIB = 10
"""By so much the peaks may differ."""
WORK = Workload()
WANTED = 100
"""Files of each archive."""
STRIDE = 611_953
"""A prime: stepping by it visits every file once, in no order that anything could profit from."""
CONTENT, ELSEWHERE = "bench-content", "bench-elsewhere"
NEED = Need(tier=Tier.BULK, days=1)


# -- In the process that is measured ---------------------------------------------------------------------------------


def main() -> None:
    """Plan as many lines as the first word says; print what it took as JSON."""
    count = int(sys.argv[1])
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as batch:
        for number in range(count):
            batch.write(f"{_key(number * STRIDE % count)}\ts3://{ELSEWHERE}/restored/\n")
        batch.flush()
        json.dump(planned(Path(batch.name), count), sys.stdout)


def planned(batch: Path, count: int) -> dict[str, Any]:
    """What it took to plan the lines of a file."""
    places = Places(
        content_bucket=CONTENT, destination_buckets=frozenset({CONTENT, ELSEWHERE}), uploads_bucket="uploads"
    )
    now = datetime.now(UTC)
    seconds: dict[str, float] = {}
    idle, began = resident("VmRSS"), time.perf_counter()
    plan = Plan(index=Generated(), manifest=_no_manifest, places=places, report=_refuse)
    with batch.open("rb") as stream:
        plan.add(read_lines(stream, _refuse))
    plan.settle()
    seconds["looked up and sorted"] = time.perf_counter() - began
    summary = plan.summary(NEED, archives=GeneratedArchives(), thaws=MemoryThaws(), owner="bench", now=now)
    seconds["priced"] = time.perf_counter() - began - sum(seconds.values())
    sent = message_bytes = 0
    for number, chunk in enumerate(plan.chunks(), start=1):
        request = Request(
            job="bench",
            chunk=number,
            chunks=summary.chunks,
            created_at=now,
            need=NEED,
            overwrite=False,
            estimate_usd=summary.estimate.usd,
            items=tuple(chunk),
        )
        message_bytes += len(render_request(request))
        sent += 1
    seconds["cut up"] = time.perf_counter() - began - sum(seconds.values())
    plan.close()
    if (summary.files, summary.archives, summary.problems, sent) != (count, count // WANTED, 0, summary.chunks):
        raise RuntimeError(f"{count} lines were to be planned: {summary}")
    return {
        "archives": summary.archives,
        "chunks": summary.chunks,
        "message_bytes": message_bytes,
        "seconds": seconds,
        "idle": idle,
        "peak": resident("VmHWM"),
    }


def _key(file: int) -> str:
    return f"media/2026/10/{file:07}.jpg"


@dataclass(frozen=True)
class Generated:
    """The index of files and archives, made up as it is asked for."""

    def get(self, identities: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], FileRow]:  # noqa: ARG002  # no line names a version
        return {}

    def versions(self, key: str) -> list[FileRow]:
        file = int(key[-11:-4])
        archive, number = file // WANTED + 1, file % WANTED
        digest = hashlib.md5(key.encode()).hexdigest()
        return [
            FileRow(
                key=key,
                version_id=digest,
                pin=digest,
                size_bytes=WORK.file_bytes,
                sha256=2 * digest,
                md5=digest,
                last_modified=MODIFIED,
                archive=archive,
                number=2 * number,
                offset_bytes=(2 * number + 1) * WORK.file_bytes,
            )
        ]

    def under(self, prefix: str = "") -> Iterator[FileRow]:  # noqa: ARG002  # no line names a prefix
        return iter(())


class GeneratedArchives(MemoryArchives):
    """The rows of full archives, made up as they are asked for."""

    def get(self, serial: int) -> ArchiveRow:
        return archive_row(
            serial,
            version_id="1",
            size_bytes=WORK.members * WORK.file_bytes,
            source_bytes=WORK.members * WORK.file_bytes,
            files=WORK.members,
        )


def _no_manifest(serial: int) -> Manifest:
    raise RuntimeError(f"nobody asks for archive {serial} by its number")


def _refuse(problem: Problem) -> None:
    raise RuntimeError(f"line {problem.line}, {problem.source!r}: {problem.reason}")


# -- In the process that runs the bench ------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found = [run_alone("planning", str(count)) for count in COUNTS]
    growth = (found[-1]["peak"] - found[0]["peak"]) / MIB
    verdict = "flat" if growth <= FLAT_MIB else "not flat"
    return Section(
        letter="h",
        machine=machine,
        text=paragraphs(
            table(
                (
                    "lines",
                    "archives",
                    "chunks",
                    "to send",
                    *found[0]["seconds"],
                    "in all",
                    "lines a second",
                    "idle",
                    "peak",
                ),
                [_row(count, each) for count, each in zip(COUNTS, found, strict=True)],
            ),
            f"Ten times the lines take **{growth:.1f} MiB** more memory; up to {FLAT_MIB} MiB pass as flat "
            f"({verdict}).",
        ),
    )


def _row(count: int, found: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = sum(found["seconds"].values())
    return (
        f"{count:,}",
        f"{found['archives']:,}",
        f"{found['chunks']:,}",
        f"{found['message_bytes'] / 1e6:,.0f} MB",
        *(f"{each:.1f} s" for each in found["seconds"].values()),
        f"**{seconds:.1f} s**",
        f"{count / seconds:,.0f}",
        f"{found['idle'] / MIB:.1f} MiB",
        f"**{found['peak'] / MIB:.1f} MiB**",
    )


if __name__ == "__main__":
    main()
