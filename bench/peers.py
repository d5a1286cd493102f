"""neve against the tools that people would use instead: `make bench-peers`.

The same real files go into the same local S3 server by each tool, and one of them, then a hundredth, comes back. Every
run has a server of its own, which counts what is asked of it; the tools take turns. What neve's functions do is done by
one process, as part (e) has it; what its commands do, by the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bench import place, real_files, report
from bench.cost import uses
from bench.counting import Counts, counts
from bench.peers_tools import AT_ONCE, NEVE_DOES, TOOLS, Site, Tool, available
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.domain.cost import Workload
from neve.domain.forecast import ARCHIVE_ROW_BYTES, FILE_ROW_BYTES
from neve.domain.metering import Attempt, Class, metered, stored
from neve.domain.prices import GB, MILLION, US_EAST_1, Bill, Charge, Use
from neve.errors import NeveError
from neve_local.cloud import PROJECT, LocalCloud

FILES = 10_000
ROUNDS = 3
SHARE = 0.01
WRITTEN_UP = (10_000, 100_000)
"""So many files have a place in docs/benchmarks.md; results for others are only printed."""

ARCHIVED, IMPORTED = "neve, from the content bucket", "neve, from a folder"
BUCKET = "bench-peer"
NOTHING: Mapping[str, str] = {}

Measured = TypeVar("Measured")


class PeerFailed(NeveError):
    """A tool did not do what is measured; the message has what it said last."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """What something took: of the clock, of its processes, of the server."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    counts: Counts

    def __add__(self, other: Took) -> Took:
        """One after the other."""
        return Took(
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            counts=self.counts + other.counts,
        )


@dataclass(frozen=True, kw_only=True)
class Left:
    """What lies in S3 afterwards: sizes of objects by storage class."""

    sizes: Mapping[Class, Sequence[int]]

    @property
    def objects(self) -> int:
        """How many there are."""
        return sum(len(sizes) for sizes in self.sizes.values())

    @property
    def size_bytes(self) -> int:
        """What they have together."""
        return sum(sum(sizes) for sizes in self.sizes.values())

    def month(self) -> list[Use]:
        """What keeping them for a month takes."""
        return [
            use
            for storage_class, sizes in self.sizes.items()
            for use in stored("objects", storage_class, objects=len(sizes), object_bytes=sum(sizes) / len(sizes))
        ]

    def in_class(self, storage_class: Class) -> Left:
        """The same in one class."""
        return Left(sizes={storage_class: [size for sizes in self.sizes.values() for size in sizes]})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One tool in one round: what storing took and left, for how many dollars, and what came back for what.

    `usd` and `usd_month` are by the storage class of what is stored, for all files. `one` and `some` are the restores
    of one file and of a hundredth; None where another row has them, or the tool is not asked for so many.
    """

    store: Took
    left: Left
    usd: Mapping[Class, float]
    usd_month: Mapping[Class, float]
    one: Took | None
    some: Took | None


# -- One run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every tool is to do: store the tree, and bring back one file, then some. `work` is for what they write."""

    tree: real_files.Tree
    one: Sequence[str]
    some: Sequence[str]
    work: Path


def run_tool(tool: Tool, task: Task) -> Run:
    """One tool, on a server of its own. Raises PeerFailed."""
    with served("bench.counting") as cloud, tempfile.TemporaryDirectory(dir=task.work) as home:
        cloud.session().client("s3").create_bucket(Bucket=BUCKET)
        site = Site(files=task.tree.folder, home=Path(home), bucket=BUCKET, endpoint_url=cloud.endpoint_url)
        if tool.prepare:
            timed(cloud, site.home, tool.prepare(site), site.variables)
        store = timed(cloud, site.home, tool.store(site), site.variables)
        left = left_in(cloud, BUCKET)
        classes = (Class.STANDARD, Class.GLACIER) if tool.glacier else (Class.STANDARD,)

        def restore(names: Sequence[str]) -> Took:
            with tempfile.TemporaryDirectory(dir=task.work) as folder:
                afresh, target = replace(site, home=Path(folder) / "home"), Path(folder) / "target"
                afresh.home.mkdir()
                target.mkdir()
                commands = tool.restore(afresh, names, target)
                took = together(timed(cloud, afresh.home, words, afresh.variables) for words in commands)
                return whole(task, names, target, took)

        return Run(
            store=store,
            left=left,
            usd={each: _usd(requests_of(store.counts, each)) for each in classes},
            usd_month={each: _usd(left.in_class(each).month()) for each in classes},
            one=restore(task.one),
            some=restore(task.some) if len(task.some) <= tool.most_names else None,
        )


def run_neve(task: Task) -> dict[str, Run]:
    """neve, on a server of its own: files from a folder into the content bucket, into archives, and back."""
    with served("bench.counting") as cloud, tempfile.TemporaryDirectory(dir=task.work) as folder:
        home = Path(folder)
        run(cloud, "peers_neve", "prepare")
        imported = _import(cloud, home, task.tree.folder)
        source = left_in(cloud, place.CONTENT)
        archive, took = _archive(cloud, home)
        left = left_in(cloud, place.ARCHIVE)
        mean = Workload(file_bytes=round(task.tree.size_bytes / len(task.tree.sizes)))
        usd = _usd(uses(took, mean))
        puts = _usd(requests_of(imported.counts, Class.STANDARD))
        rows = len(task.tree.sizes) * FILE_ROW_BYTES + took["archives"] * ARCHIVE_ROW_BYTES
        index = [
            Use(purpose="index", charge=charge, quantity=rows / GB)
            for charge in (Charge.DYNAMODB_GB_MONTH, Charge.DYNAMODB_PITR_GB_MONTH)
        ]
        month = _usd([*left.month(), *index])
        only = Run(
            store=archive,
            left=left,
            usd={Class.GLACIER: usd},
            usd_month={Class.GLACIER: month},
            one=_restored(cloud, task, task.one),
            some=_restored(cloud, task, task.some),
        )
        both = {each: [*left.sizes.get(each, ()), *source.sizes.get(each, ())] for each in {*left.sizes, *source.sizes}}
        return {
            ARCHIVED: only,
            IMPORTED: Run(
                store=imported + archive,
                left=Left(sizes=both),
                usd={Class.GLACIER: usd + puts},
                usd_month={Class.GLACIER: month + _usd(source.month())},
                one=None,
                some=None,
            ),
        }


def _import(cloud: LocalCloud, home: Path, folder: Path) -> Took:
    """`neve edge import --keep`, as part (n) runs it."""
    config = home / "edge.toml"
    config.write_text(
        f'journal = "{home}/edge.db"\nparallel = {AT_ONCE}\n[[folder]]\npath = "{folder}"\nattic = "{home}/attic"\n'
    )
    words = [sys.executable, "-m", "bench.importing", str(folder), str(config)]
    return timed(cloud, home, words, {"BENCH_BUCKET": place.CONTENT})


def _archive(cloud: LocalCloud, home: Path) -> tuple[Took, dict[str, Any]]:
    """Collect and WriteArchive. What S3's events would say is listed before the clock starts.

    The clock ends with the last row of the last archive, not with the process, which waits for late timers.
    """
    listing = home / "versions.json"
    pages = cloud.session().client("s3").get_paginator("list_object_versions").paginate(Bucket=place.CONTENT)
    listing.write_text(
        json.dumps(
            [
                (each["Key"], each["VersionId"], each["Size"], each["ETag"].strip('"'))
                for page in pages
                for each in page.get("Versions", [])
            ]
        )
    )
    began = time.monotonic()
    took = timed(cloud, home, _neve("archive", str(listing)))
    said: dict[str, Any] = json.loads((home / "said").read_text())
    return replace(took, seconds=said["ended"] - began), said


def _restored(cloud: LocalCloud, task: Task, names: Sequence[str]) -> Took:
    """`neve restore --batch`, PlanRestore, and, once it has thawed, `neve restore --resume`. The thaw is left out."""
    with tempfile.TemporaryDirectory(dir=task.work) as folder:
        home, target = Path(folder) / "home", Path(folder) / "target"
        home.mkdir()
        target.mkdir()
        (home / "names").write_text("".join(f"{name}\n" for name in names))
        asked = timed(cloud, home, _neve("ask", str(home / "names"), str(target)))
        job = str(json.loads((home / "said").read_text())["job"])
        planned = timed(cloud, home, _neve("plan"))
        timed(cloud, home, _neve("warm", job))
        fetched = timed(cloud, home, _neve("fetch", job))
        return whole(task, names, target, asked + planned + fetched)


def _neve(*words: str) -> list[str]:
    return [sys.executable, "-m", "bench.peers_neve", *words]


def timed(cloud: LocalCloud, home: Path, words: Sequence[str], variables: Mapping[str, str] = NOTHING) -> Took:
    """Run a command to its end; what it says is in `home`/said. Raises PeerFailed if it fails."""
    counts(cloud.endpoint_url)
    environment = {
        **cloud.environment(),
        **variables,
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "LANG": "C.UTF-8",
        "NO_PROXY": "*",
    }
    said = home / "said"
    command = [sys.executable, "-S", str(Path(__file__).with_name("timed.py")), str(said), *words]
    done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    took = json.loads(done.stdout)
    if took.pop("status"):
        raise PeerFailed(f"{' '.join(words)[:200]} failed: {said.read_text(errors='replace')[-2000:]}")
    return Took(**took, counts=counts(cloud.endpoint_url))


def together(steps: Iterable[Took]) -> Took:
    """Several, one after the other."""
    first, *others = steps
    for each in others:
        first += each
    return first


def whole(task: Task, names: Sequence[str], target: Path, took: Took) -> Took:
    """`took`, if the folder has these files and no others. Raises PeerFailed."""
    if not task.tree.has(target, names):
        raise PeerFailed(f"{target} does not have the {len(names)} files that were to be restored")
    return took


def left_in(cloud: LocalCloud, bucket: str) -> Left:
    """What is in a bucket, noncurrent versions as well."""
    sizes: dict[Class, list[int]] = {}
    for page in cloud.session().client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in page.get("Versions", []):
            sizes.setdefault(Class(each.get("StorageClass", "STANDARD")), []).append(each["Size"])
    return Left(sizes=sizes)


def requests_of(counted: Counts, storage_class: Class) -> list[Use]:
    """What requests to S3 are charged if what they write goes into a class. Raises PeerFailed if one has no price."""
    found: list[Use] = []
    for name, number in counted.requests.items():
        service, _, operation = name.partition(":")
        charged = metered(Attempt(service=service, operation=operation, storage_class=storage_class.value))
        if charged.unpriced:
            raise PeerFailed(f"no price is known for {name}")
        found += [Use(purpose=name, charge=charge, quantity=number * each) for charge, each in charged.counted.items()]
    return found


def _usd(found: Iterable[Use]) -> float:
    return Bill(prices=US_EAST_1, uses=tuple(found)).usd


# -- All of them -------------------------------------------------------------------------------------------------------


def measure(machine: Machine, *, files: int, rounds: int, seed: int) -> Section:
    """The section for docs/benchmarks.md."""
    versions, missing = available(TOOLS)
    tools = [tool for tool in TOOLS if tool.name in versions]
    found: dict[str, list[Run]] = {name: [] for name in (IMPORTED, ARCHIVED, *versions)}
    with tempfile.TemporaryDirectory(prefix="neve-bench-") as work:
        tree = real_files.make(Path(work) / "files", files)
        some = tree.drawn(max(2, round(files * SHARE)), seed)
        task = Task(tree=tree, one=[random.Random(seed).choice(some)], some=some, work=Path(work))
        turns: list[Callable[[], Mapping[str, Run]]] = [lambda: run_neve(task)]
        turns += [lambda tool=tool: {tool.name: run_tool(tool, task)} for tool in tools]  # type: ignore[misc]  # mypy infers no lambda with a default
        for number in range(rounds):
            first = number % len(turns)
            for turn in turns[first:] + turns[:first]:
                for name, done in turn().items():
                    print(f"[bench] {name}: {done.store.seconds:,.1f} s", file=sys.stderr, flush=True)
                    found[name].append(done)
        described = str(tree)
    return Section(
        letter=f"peers-{files}",
        machine=machine,
        text=paragraphs(
            f"{described} {rounds} {'round' if rounds == 1 else 'rounds'}, the order of the tools rotated: medians, "
            "and ratios of times within each round.",
            *(f"Left out: {each}." for each in missing),
            stored_table(found, files),
            dollars_table(found, files),
            restored_table(found, len(some), sum(tree.sizes[name] for name in some)),
            f"The files that came back were drawn by chance, seed {seed}, and compared with the originals.",
            "\n".join(
                [f"- neve: {NEVE_DOES}.", *(f"- {tool.name} ({versions[tool.name]}): {tool.does}." for tool in tools)]
            ),
        ),
    )


def stored_table(found: Mapping[str, Sequence[Run]], files: int) -> str:
    """What storing took, and what it left."""
    return table(
        (
            f"storing {files:,} files",
            "time",
            "its time / neve's",
            "CPU",
            "peak memory",
            "requests per file",
            "to the server",
            "from it",
            "objects left",
            "bytes left",
        ),
        [
            (
                name,
                f"**{_median(runs, lambda run: run.store.seconds):,.1f} s**",
                _ratio(runs, found[IMPORTED], lambda run: run.store.seconds)
                if name not in (IMPORTED, ARCHIVED)
                else "",
                f"{_median(runs, lambda run: run.store.cpu_seconds):,.1f} s",
                _mib(max(run.store.peak_bytes for run in runs)),
                f"{_median(runs, lambda run: run.store.counts.requests.total()) / files:,.3f}",
                _mb(_median(runs, lambda run: run.store.counts.sent_bytes)),
                _mb(_median(runs, lambda run: run.store.counts.read_bytes)),
                f"{_median(runs, lambda run: run.left.objects):,.0f}",
                _mb(_median(runs, lambda run: run.left.size_bytes)),
            )
            for name, runs in found.items()
        ],
    )


def dollars_table(found: Mapping[str, Sequence[Run]], files: int) -> str:
    """What it comes to for a million such files."""

    def usd(runs: Sequence[Run], of: Callable[[Run], Mapping[Class, float]], storage_class: Class) -> str:
        if storage_class not in of(runs[0]):
            return "-"
        return f"${_median(runs, lambda run: of(run)[storage_class]) * MILLION / files:,.2f}"

    return table(
        ("dollars per million files", "once, STANDARD", "once, GLACIER", "a month, STANDARD", "a month, GLACIER"),
        [
            (
                name,
                usd(runs, lambda run: run.usd, Class.STANDARD),
                usd(runs, lambda run: run.usd, Class.GLACIER),
                usd(runs, lambda run: run.usd_month, Class.STANDARD),
                usd(runs, lambda run: run.usd_month, Class.GLACIER),
            )
            for name, runs in found.items()
        ],
    )


def restored_table(found: Mapping[str, Sequence[Run]], some: int, some_bytes: int) -> str:
    """What came back, and for what."""
    of: Mapping[str, Callable[[Run], Took | None]] = {
        "1 file": lambda run: run.one,
        f"{some:,} files, {_mb(some_bytes)}": lambda run: run.some,
    }
    rows = []
    for wanted, restored in of.items():
        for name, runs in found.items():
            took = [each for each in map(restored, runs) if each]
            if not took:
                continue
            neve = [each for each in map(restored, found[ARCHIVED]) if each]
            rows.append(
                (
                    f"{wanted}: {name.partition(',')[0]}",
                    f"**{_median(took, lambda each: each.seconds):,.2f} s**",
                    _ratio(took, neve, lambda each: each.seconds) if name != ARCHIVED else "",
                    f"{_median(took, lambda each: each.cpu_seconds):,.1f} s",
                    _mib(max(each.peak_bytes for each in took)),
                    _mb(_median(took, lambda each: each.counts.s3_read_bytes)),
                    f"{_median(took, lambda each: each.counts.requests.total()):,.0f}",
                )
            )
    return table(("restoring", "time", "its time / neve's", "CPU", "peak memory", "read from S3", "requests"), rows)


def _ratio(its: Sequence[Measured], neve: Sequence[Measured], of: Callable[[Measured], float]) -> str:
    ratios = [of(other) / of(mine) for other, mine in zip(its, neve, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _median(runs: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(map(of, runs))


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.2f} MB" if size_bytes < 1e7 else f"{size_bytes / 1e6:,.0f} MB"


def main(words: Sequence[str] | None = None) -> int:
    """Measure; 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, metavar="N", help="so many files (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="so many rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is restored (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print, and leave docs/benchmarks.md as it is")
    options = parser.parse_args(words)
    # An interrupted bench takes its servers with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        section = measure(report.this_machine(), files=options.files, rounds=options.rounds, seed=options.seed)
    except KeyboardInterrupt:
        print("[bench] interrupted", flush=True)
        return 130
    except (NeveError, subprocess.CalledProcessError, TimeoutError) as error:
        print(f"[bench] {error}", file=sys.stderr)
        return 1
    print(f"\n{section}\n\n[bench] took {time.monotonic() - began:.0f} s", flush=True)
    if options.files in WRITTEN_UP and not options.dry_run:
        report.write(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
