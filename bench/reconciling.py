"""(k) How fast a shard of reconcile goes over a content bucket and its index, and whether its memory stays the same.

A fresh process for each size. Clients that make up S3's and DynamoDB's answers stand behind the adapters, page by page,
and answer at once: what is measured is the processor's part, from the parsed answer to the count.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from bench.archives import MODIFIED, archive_row
from bench.memory import MIB, resident
from bench.report import Machine, Section, paragraphs, table
from bench.server import run_alone
from neve.aws.content_listing import S3ContentListing
from neve.aws.files_table import PAGE_ROWS, DynamoFiles
from neve.domain.index import SHARDS, ArchiveRow, shard, sort_key
from neve.domain.reconcile import Outcome, Pass, Place, shards
from neve.flows.compare import Comparer

COUNTS = (100_000, 1_000_000)
FLAT_MIB = 10
"""By so much the peaks may differ; 4 bytes a version are the bench's own."""
PAGE = 1_000
MEMBERS = 250
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


# -- In the process that is measured ---------------------------------------------------------------------------------


def main() -> None:
    """Go over as many versions as the first word says; print what it took as JSON."""
    json.dump(gone_over(int(sys.argv[1])), sys.stdout)


def gone_over(count: int) -> dict[str, Any]:
    """What it took to go over a bucket of so many versions, all of them archived."""
    made = Generated(count)
    nothing = cast("Any", None)
    comparer = Comparer(
        listing=S3ContentListing(cast("Any", made), "bench"),
        inventory=nothing,
        content=nothing,
        files=DynamoFiles(cast("Any", made), "files"),
        archives=cast("Any", made),
        store=nothing,
        archive_listing=nothing,
        parking_lot=nothing,
        collect_queue=nothing,
        bucket="bench",
        grace=timedelta(days=1),
        threads=16,
        clock=lambda: LONG_AGO,
    )
    this = Pass(id="bench", begun_at=LONG_AGO)
    idle, began = resident("VmRSS"), time.perf_counter()
    progress = comparer.advance(this, shards(this)[0], Place(), until=LONG_AGO + timedelta(days=1))
    seconds = time.perf_counter() - began
    if not progress.done or progress.counts != {Outcome.RECONCILED: count}:
        raise RuntimeError(f"{count} versions were to be found well: {progress}")
    return {"seconds": seconds, "idle": idle, "peak": resident("VmHWM")}


def _key(file: int) -> str:
    return f"media/2026/10/{file:07}.jpg"


def _digest(key: str) -> str:
    return hashlib.md5(key.encode()).hexdigest()


@dataclass
class Generated:
    """S3's and DynamoDB's client, and the rows of archives, made up as they are asked for."""

    count: int
    _of_shard: list[array[int]] = field(default_factory=lambda: [array("I") for _ in range(SHARDS)])

    def __post_init__(self) -> None:
        for file in range(self.count):
            self._of_shard[shard(_key(file))].append(file)

    def list_object_versions(self, *, Bucket: str, KeyMarker: str = "", VersionIdMarker: str = "") -> Any:  # noqa: ARG002, N803  # boto3's names
        first = int(KeyMarker[-11:-4]) + 1 if KeyMarker else 0
        last = min(first + PAGE, self.count)
        listed = []
        for file in range(first, last):
            digest = _digest(_key(file))
            listed.append(
                {"Key": _key(file), "VersionId": digest, "Size": 300, "ETag": f'"{digest}"', "LastModified": MODIFIED}
            )
        markers = {"NextKeyMarker": listed[-1]["Key"], "NextVersionIdMarker": listed[-1]["VersionId"]}
        return {"Versions": listed, "IsTruncated": last < self.count, **markers}

    def get_paginator(self, _: str) -> Generated:
        return self

    def paginate(self, *, ExpressionAttributeValues: Mapping[str, Any], **_: Any) -> Iterator[Any]:  # noqa: N803
        of_shard = self._of_shard[int(ExpressionAttributeValues[":shard"]["N"])]
        for start in range(0, len(of_shard), PAGE_ROWS):
            yield {"Items": [_item(file) for file in of_shard[start : start + PAGE_ROWS]]}

    def all(self, *, first: int = 1, newest_first: bool = False) -> Iterator[ArchiveRow]:  # noqa: ARG002  # oldest first
        for serial in range(first, self.count // MEMBERS + 2):
            yield archive_row(serial, version_id="1", size_bytes=1, source_bytes=1, files=MEMBERS)


def _item(file: int) -> dict[str, Any]:
    key = _key(file)
    digest = _digest(key)
    return {
        "shard": {"N": str(shard(key))},
        "sort": {"B": sort_key(key, digest)},
        "archive": {"N": str(file // MEMBERS + 1)},
        "number": {"N": str(file % MEMBERS)},
        "offset": {"N": "1536"},
        "size": {"N": "300"},
        "modified": {"N": str(int(MODIFIED.timestamp()))},
        "sha256": {"B": bytes.fromhex(2 * digest)},
        "md5": {"B": bytes.fromhex(digest)},
    }


# -- In the process that runs the bench ------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found = [run_alone("reconciling", str(count)) for count in COUNTS]
    growth = (found[-1]["peak"] - found[0]["peak"]) / MIB
    verdict = "flat" if growth <= FLAT_MIB else "not flat"
    rows = [
        (
            f"{count:,}",
            f"{each['seconds']:.1f} s",
            f"**{count / each['seconds']:,.0f}**",
            f"{each['idle'] / MIB:.1f} MiB",
            f"**{each['peak'] / MIB:.1f} MiB**",
        )
        for count, each in zip(COUNTS, found, strict=True)
    ]
    return Section(
        letter="k",
        machine=machine,
        text=paragraphs(
            table(("versions", "in all", "versions a second", "idle", "peak"), rows),
            f"Ten times the versions take **{growth:.1f} MiB** more memory; up to {FLAT_MIB} MiB pass as flat "
            f"({verdict}).",
        ),
    )


if __name__ == "__main__":
    main()
