"""(f) Bytes read from archives for each byte asked for, beside downloading whole archives.

Archives are laid out by neve.domain.tar; PlanRestore's and Extract's rules bring the files home, over ports in memory:
what is counted are bytes, which no emulator changes. One archive is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import place
from bench.archives import files
from bench.report import Machine, Section, paragraphs, table
from bench.server import run_alone
from neve.domain.bundle import Limits
from neve.domain.manifest import Member, render_manifest
from neve.domain.restore import Ending, Wanted
from neve.domain.tar import Rope
from tests.restore_cloud import OTHER, RestoreCloud, Stored, tar_of

AIM = 1.05
KB = 1_000
SIZES = (KB, 10 * KB, 100 * KB, 1_000 * KB)
SHARE = 0.01
SINGLES = 20
"""Files that are restored one by one, each by a job of its own."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Files of these sizes, each as likely, in so many full archives."""

    name: str
    sizes_bytes: tuple[int, ...]
    archives: int


SHAPES = (
    Shape(name="1 KB", sizes_bytes=SIZES[:1], archives=10),
    Shape(name="10 KB", sizes_bytes=SIZES[1:2], archives=10),
    Shape(name="100 KB", sizes_bytes=SIZES[2:3], archives=20),
    Shape(name="1 MB", sizes_bytes=SIZES[3:], archives=40),
    Shape(name="all four mixed", sizes_bytes=SIZES, archives=20),
)


@dataclass
class Tally:
    """What was asked for, and what was read for it. `whole_bytes` is what the peer read."""

    files: int = 0
    archives: int = 0
    wanted_bytes: int = 0
    reads: int = 0
    read_bytes: int = 0
    manifest_bytes: int = 0
    whole_bytes: int = 0


# -- In the process that measures ------------------------------------------------------------------------------------


def main() -> None:
    """Measure every shape; print what was read as JSON."""
    json.dump([measured(shape) for shape in SHAPES], sys.stdout)


def measured(shape: Shape) -> dict[str, Any]:
    """Single files, a random hundredth of all files, and a hundredth that lies side by side."""
    chance = random.Random(shape.name)
    archives = list(full(shape.sizes_bytes, shape.archives, chance))
    places = [(archive, number) for archive, sizes in enumerate(archives) for number in range(len(sizes))]
    count = round(len(places) * SHARE)
    batch = set(chance.sample(places, count))
    touched = {archive for archive, _ in batch}
    singles = chance.sample([each for each in places if each[0] in touched], SINGLES)
    first = chance.randrange(len(places) - count)
    together = set(places[first : first + count])
    tallies = {"single": Tally(), "random": Tally(), "together": Tally()}
    for archive in sorted(touched | {archive for archive, _ in together}):
        stored = tar_of(archive + 1, files(archive, archives[archive], chance))
        cloud = RestoreCloud(stored=[stored])
        jobs = [
            (name, [n for of, n in chosen if of == archive])
            for name, chosen in (("random", batch), ("together", together))
        ]
        jobs += [("single", [number]) for of, number in singles if of == archive]
        for job, (name, numbers) in enumerate(jobs):
            if numbers:
                restore(
                    f"{name}-{job}", cloud, stored, [stored.manifest.members[n] for n in sorted(numbers)], tallies[name]
                )
    return {
        "name": shape.name,
        "files": len(places),
        "tallies": {name: vars(tally) for name, tally in tallies.items()},
    }


def full(sizes_bytes: Sequence[int], archives: int, chance: random.Random) -> Iterator[list[int]]:
    """The sizes of the members of `archives` full bundles, as Collect fills them by default."""
    limits = Limits(target_bytes=place.DEFAULTS.target_bytes, max_members=place.DEFAULTS.max_members, max_age_s=1)
    for _ in range(archives):
        sizes: list[int] = []
        while not limits.full(size_bytes=sum(sizes), count=len(sizes)):
            sizes.append(chance.choice(sizes_bytes))
        yield sizes


def restore(job: str, cloud: RestoreCloud, stored: Stored, members: Sequence[Member], tally: Tally) -> None:
    """Have `members` restored, then by downloading the archive, and add to `tally` what each read."""
    cloud.reader.reads.clear()
    items = [
        Wanted(key=member.source.key, pin=member.source.pin, destination=f"s3://{OTHER}/{job}/{member.source.key}")
        for member in members
    ]
    cloud.job(items, job=job)
    cloud.settle()
    if cloud.endings(job) != {Ending.RESTORED: len(items)}:
        raise RuntimeError(f"nothing to measure: {cloud.endings(job)}")
    tally.files += len(members)
    tally.archives += 1
    tally.wanted_bytes += sum(member.source.size_bytes for member in members)
    tally.reads += len(cloud.reader.reads)
    tally.read_bytes += _read_bytes(cloud)
    tally.manifest_bytes += len(render_manifest(stored.manifest))
    cloud.reader.reads.clear()
    download(cloud, stored, members)
    tally.whole_bytes += _read_bytes(cloud)


def download(cloud: RestoreCloud, stored: Stored, members: Iterable[Member]) -> None:
    """The peer: read all of the archive by the same port, and take out of it what is wanted."""
    body = cloud.reader.read(stored.row, 0, stored.row.size_bytes - 1)
    with tarfile.open(fileobj=Rope([body]), mode="r:") as reader:
        for member in members:
            found = reader.extractfile(member.name)
            if found is None or hashlib.sha256(found.read()).hexdigest() != member.source.sha256:
                raise RuntimeError(f"{member.name} is not in the archive as it should be")


def _read_bytes(cloud: RestoreCloud) -> int:
    return sum(last - first + 1 for _, first, last in cloud.reader.reads)


# -- In the process that runs the bench ------------------------------------------------------------------------------

ASKED = {"single": f"{SINGLES} files, one by one", "random": "1 %, at random", "together": "1 %, side by side"}


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found = run_alone("read_bytes")
    aimed = [Tally(**each["tallies"][name]) for each in found for name in ("single", "random")]
    worst = max(tally.read_bytes / tally.wanted_bytes for tally in aimed)
    verdict = "reached" if worst <= AIM else "missed"
    return Section(
        letter="f",
        machine=machine,
        text=paragraphs(
            table(
                (
                    "files, archived",
                    "asked for",
                    "files",
                    "bytes",
                    "archives",
                    "read / asked for",
                    "GETs per file",
                    "whole archives / asked for",
                    "manifests read beside",
                ),
                [_row(each, name) for each in found for name in ASKED],
            ),
            f"Single files and random batches: at most **{worst:.3f}** bytes read from the archive for each byte asked "
            f"for; the aim is {AIM} ({verdict}).",
        ),
    )


def _row(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    tally = Tally(**found["tallies"][name])
    return (
        f"{found['files']:,} of {found['name']}" if name == "single" else "",
        ASKED[name],
        f"{tally.files:,}",
        f"{tally.wanted_bytes / 1e6:,.2f} MB",
        f"{tally.archives:,}",
        f"**{tally.read_bytes / tally.wanted_bytes:.3f}**",
        f"{tally.reads / tally.files:.2f}",
        f"{tally.whole_bytes / tally.wanted_bytes:,.0f}",
        f"{tally.manifest_bytes / 1e6:,.2f} MB",
    )


if __name__ == "__main__":
    main()
