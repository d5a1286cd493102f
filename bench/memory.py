"""(b) Peak memory of a WriteArchive process above what it holds when warm and idle.

A fresh process writes a small archive, so that all modules, clients, connections and threads exist; what is resident
then is its idle size. Then it writes the archive that is measured; the kernel keeps the highest mark (VmHWM).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import write_archive
from bench import place
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws import clients
from neve.aws.archives_table import DynamoBundles
from neve.domain.manifest import archive_key
from neve.domain.outcome import Outcome

AIM = 3.0
WARM = "warm"
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A bundle: `count` members of `size_bytes`, then those of `tail_bytes`."""

    name: str
    count: int
    size_bytes: int
    tail_bytes: tuple[int, ...] = ()


SHAPES = (
    Shape(name="full bundle", count=263, size_bytes=100_000),
    Shape(name="largest bundle, equal members", count=524, size_bytes=100_000),
    Shape(name="largest bundle, one half of it one member", count=262, size_bytes=100_000, tail_bytes=(25 * MIB,)),
    Shape(name="most members", count=2_000, size_bytes=10_000),
)
"""No bundle holds more than twice the target, 50 MiB, nor more than 2,000 members."""


# -- In the processes that upload, and that are measured -----------------------------------------------------------


def store(shapes: tuple[Shape, ...]) -> None:
    """Upload the members of all bundles and note the bundles, as Collect does."""
    place.prepare()
    bundles = DynamoBundles(clients.dynamodb(), place.ARCHIVES)
    for shape in shapes:
        versions = place.upload(shape.name, count=shape.count, size_bytes=shape.size_bytes)
        for number, size_bytes in enumerate(shape.tail_bytes):
            versions += place.upload(f"{shape.name}/tail{number}", count=1, size_bytes=size_bytes)
        bundles.put_part(shape.name, "0", versions, place.now())
        bundles.create(place.sealed(shape.name, versions))
    for shape in shapes:
        # One for each process that is measured.
        warm = f"{WARM} {shape.name}"
        versions = place.upload(warm, count=40, size_bytes=4_000)
        bundles.put_part(warm, "0", versions, place.now())
        bundles.create(place.sealed(warm, versions))


def write(name: str) -> dict[str, int]:
    """Write the small archive, then the one that is measured."""
    place.configure()
    _write(f"{WARM} {name}")
    idle = resident("VmRSS")
    serial = _write(name)
    found = clients.s3().head_object(Bucket=place.ARCHIVE, Key=archive_key(serial, "tar"))
    return {
        "idle": idle,
        "peak": resident("VmHWM"),
        "afterwards": resident("VmRSS"),
        "archive_bytes": found["ContentLength"],
    }


def _write(bundle_id: str) -> int:
    written = place.write(write_archive.writer(), bundle_id)
    if written.outcome is not Outcome.ARCHIVED:
        raise RuntimeError(f"nothing to measure: {written}")
    return written.serial


def resident(line: str) -> int:
    """A figure of this process, in bytes."""
    found = re.search(rf"^{line}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"this system does not tell a process's {line}")
    return int(found[1]) * 1024


def main() -> None:
    """Store what is to be written, or write what the first word names; print what came of it as JSON."""
    if len(sys.argv) == 1:
        store(SHAPES)
        json.dump(None, sys.stdout)
    else:
        json.dump(write(sys.argv[1]), sys.stdout)


# -- In the process that runs the bench ----------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        run(cloud, "memory")
        found = {shape.name: run(cloud, "memory", shape.name) for shape in SHAPES}
    worst = max(_factor(each) for each in found.values())
    verdict = "reached" if worst <= AIM else "missed"
    return Section(
        letter="b",
        machine=machine,
        text=paragraphs(
            table(
                ("bundle", "members", "archive", "idle", "peak", "idle afterwards", "(peak - idle) / archive"),
                [_row(shape, found[shape.name]) for shape in SHAPES],
            ),
            f"At most {worst:.2f} times the archive; the aim is {AIM:.0f} ({verdict}).",
        ),
    )


def _factor(found: Mapping[str, Any]) -> float:
    return float((found["peak"] - found["idle"]) / found["archive_bytes"])


def _row(shape: Shape, found: Mapping[str, Any]) -> tuple[str, ...]:
    def mib(name: str) -> str:
        return f"{found[name] / MIB:.1f} MiB"

    return (
        shape.name,
        f"{shape.count + len(shape.tail_bytes):,}",
        mib("archive_bytes"),
        mib("idle"),
        mib("peak"),
        mib("afterwards"),
        f"**{_factor(found):.2f}**",
    )


if __name__ == "__main__":
    main()
