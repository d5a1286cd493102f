"""(a) WriteArchive against a bare loop of the same requests.

The first archive is written with every request recorded. The bare loop sends the same GETs, PUTs and conditional writes
of rows again, by the same clients and as many threads, with bodies and rows that lie ready. It reads no parts, looks up
no rows, hashes nothing, lays nothing out and checks nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Lock
from typing import Any

import write_archive
from bench import place
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws import clients
from neve.aws.archives_table import DynamoBundles
from neve.aws.files_table import THREADS as INSERT_THREADS
from neve.aws.files_table import DynamoFiles
from neve.domain.manifest import archive_key, manifest_key
from neve.domain.outcome import Outcome
from neve.domain.version import ObjectVersion
from neve.flows.write_archive import ArchiveWriter

AIM = 0.9
SPREAD = 1.4
"""Pairs whose ratios differ by more than this factor were disturbed, and prove nothing."""

PLAN = ((4_000, 500, 5), (100_000, 263, 11), (1_000_000, 27, 7))
"""Bytes of a member, members of an archive, pairs of runs. The last two fill a bundle of 25 MiB."""


_BARE_SERIALS = count(9_000_000)
"""No archive that WriteArchive writes here comes so far."""


# -- In the process that is measured -------------------------------------------------------------------------------


@dataclass
class Recording:
    """What was asked of S3 and DynamoDB, by operation, with bodies read out."""

    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    on: bool = False
    lock: Lock = field(default_factory=Lock)

    def listen(self) -> None:
        """Record from now on what both clients send while `on` is set."""
        for client in (clients.s3(), clients.dynamodb()):
            client.meta.events.register("provide-client-params", self._note)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if not self.on:
            return
        noted = dict(params)
        if hasattr(noted.get("Body"), "read"):
            body = noted["Body"]
            noted["Body"] = body.read()
            body.seek(0)
        with self.lock:
            self.requests.setdefault(model.name, []).append(noted)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one archive took."""

    seconds: float
    cpu_seconds: float


@dataclass
class Pair:
    """Writes the same members again and again, into a new table of rows each time: by WriteArchive and by hand."""

    versions: Sequence[ObjectVersion]
    recording: Recording
    runs: int = 0

    def write(self) -> Run:
        """One archive by WriteArchive."""
        writer, bundle_id = self._writer(), self._bundle()
        return _timed(lambda: self._write(writer, bundle_id))

    def record(self) -> None:
        """As `write`, and keep its requests for the bare loop."""
        writer, bundle_id = self._writer(), self._bundle()
        self.recording.requests.clear()
        self.recording.on = True
        self._write(writer, bundle_id)
        self.recording.on = False

    def bare(self) -> Run:
        """The requests that were recorded, without anything else."""
        name, serial = self._new_table(), next(_BARE_SERIALS)
        keys = (manifest_key(serial), archive_key(serial, "tar"))
        puts = zip(self.recording.requests["PutObject"], keys, strict=True)
        bundle_id = self._bundle()
        replay = Replay(
            gets=self.recording.requests["GetObject"],
            puts=[put | {"Key": key} for put, key in puts],
            inserts=[_into(name, insert) for insert in self.recording.requests["BatchExecuteStatement"]],
            updates=[_of(bundle_id, serial, update, "Key") for update in self.recording.requests["UpdateItem"]],
            rows=[_of(bundle_id, serial, row, "Item") for row in self.recording.requests["PutItem"]],
        )
        return _timed(replay.send)

    def _write(self, writer: ArchiveWriter, bundle_id: str) -> None:
        written = place.write(writer, bundle_id)
        if (written.outcome, written.files) != (Outcome.ARCHIVED, len(self.versions)):
            raise RuntimeError(f"nothing to compare with: {written}")

    def _writer(self) -> ArchiveWriter:
        """WriteArchive as it is deployed, on an empty table of rows."""
        deployed = write_archive.writer()
        files = DynamoFiles(clients.dynamodb(), self._new_table())
        return replace(deployed, files=files, committer=replace(deployed.committer, files=files))

    def _new_table(self) -> str:
        self.runs += 1
        name = f"{place.FILES}-{self.versions[0].size_bytes}-{self.runs}"
        place.make_files_table(name)
        return name

    def _bundle(self) -> str:
        bundle_id = f"{self.versions[0].size_bytes}-{self.runs}"
        bundles = DynamoBundles(clients.dynamodb(), place.ARCHIVES)
        bundles.put_part(bundle_id, "0", self.versions, place.now())
        bundles.create(place.sealed(bundle_id, self.versions))
        return bundle_id


def _timed(work: Callable[[], None]) -> Run:
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    return Run(seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu_began)


def _into(name: str, insert: dict[str, Any]) -> dict[str, Any]:
    """The batch of inserts, into the table `name`."""
    statements = [
        {**each, "Statement": f'INSERT INTO "{name}" VALUE {each["Statement"].partition(" VALUE ")[2]}'}
        for each in insert["Statements"]
    ]
    return insert | {"Statements": statements}


def _of(bundle_id: str, serial: int, request: dict[str, Any], where: str) -> dict[str, Any]:
    """The write of a row in the table `archives`, for another bundle and archive."""
    key = dict(request[where])
    if key["pk"]["S"].startswith("bundle#"):
        key["pk"] = {"S": f"bundle#{bundle_id}"}
    elif key["pk"]["S"] == "archive":
        key["sk"] = {"S": f"{serial:010d}"}
    return request | {where: key}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Recorded requests, made fit to be sent once more. `updates`: a claim, those that number, two that finish."""

    gets: Sequence[dict[str, Any]]
    puts: Sequence[dict[str, Any]]
    inserts: Sequence[dict[str, Any]]
    updates: Sequence[dict[str, Any]]
    rows: Sequence[dict[str, Any]]

    def send(self) -> None:
        """Send them all, in the order of WriteArchive."""
        dynamodb = clients.dynamodb()
        claim, *numbering, archived, finished = self.updates
        dynamodb.update_item(**claim)
        with ThreadPoolExecutor(place.DEFAULTS.fetch_threads) as pool:
            list(pool.map(self._get, self.gets))
        for update in numbering:
            dynamodb.update_item(**update)
        for put in self.puts:
            clients.s3().put_object(**put)
        for row in self.rows:
            dynamodb.put_item(**row)
        with ThreadPoolExecutor(INSERT_THREADS) as pool:
            list(pool.map(self._insert, self.inserts))
        dynamodb.update_item(**archived)
        dynamodb.update_item(**finished)

    def _get(self, params: dict[str, Any]) -> bytes:
        return clients.s3().get_object(**params)["Body"].read()

    def _insert(self, params: dict[str, Any]) -> None:
        for response in clients.dynamodb().batch_execute_statement(**params)["Responses"]:
            if "Error" in response:
                raise RuntimeError(f"a row was refused: {response['Error']}")


def main() -> None:
    """Measure, and print the runs as JSON."""
    place.prepare()
    recording = Recording()
    recording.listen()
    found = []
    for size_bytes, members, pairs in PLAN:
        pair = Pair(place.upload(f"{size_bytes}", count=members, size_bytes=size_bytes), recording)
        pair.record()
        pair.bare()
        written: list[Run] = []
        bare: list[Run] = []
        for number in range(pairs):
            # Whoever comes second finds the server warm: take turns.
            if number % 2:
                bare.append(pair.bare())
                written.append(pair.write())
            else:
                written.append(pair.write())
                bare.append(pair.bare())
        found.append(
            {
                "size_bytes": size_bytes,
                "members": members,
                "requests": {name: len(each) for name, each in recording.requests.items()},
                "written": [vars(each) for each in written],
                "bare": [vars(each) for each in bare],
            }
        )
    json.dump(found, sys.stdout)


# -- In the process that runs the bench ----------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        found = run(cloud, "throughput")
    rows = [_row(each) for each in found]
    aimed = next(each for each in found if each["size_bytes"] == 100_000)
    return Section(
        letter="a",
        machine=machine,
        text=paragraphs(
            table(
                (
                    "member",
                    "members",
                    "WriteArchive",
                    "bare loop",
                    "ratio (in each pair)",
                    "of the fastest",
                    "CPU of WriteArchive",
                    "CPU of bare loop",
                    "pairs",
                ),
                rows,
            ),
            f"100 KB: {verdict(_ratios(aimed, 'seconds'))}. CPU is user and system time of the client process for "
            "1,000 members; the fastest run of each is what a disturbed machine changes least.",
        ),
    )


def verdict(ratios: Sequence[float]) -> str:
    """Whether the aim is reached, as far as these pairs can tell."""
    ratio, spread = statistics.median(ratios), max(ratios) / min(ratios)
    if spread > SPREAD:
        return f"not settled, the machine was disturbed: the ratios of the pairs differ by a factor of {spread:.1f}"
    return f"{ratio:.2f} of the bare loop's throughput; the aim is {AIM} ({'reached' if ratio >= AIM else 'missed'})"


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    members, size_bytes = found["members"], found["size_bytes"]

    def rate(runs: Sequence[Mapping[str, float]]) -> str:
        seconds = statistics.median(each["seconds"] for each in runs)
        return f"{members / seconds:,.0f}/s, {members * size_bytes / seconds / 1e6:,.1f} MB/s"

    def cpu(runs: Sequence[Mapping[str, float]]) -> str:
        return f"{statistics.median(each['cpu_seconds'] for each in runs) / members * 1000:.2f} s"

    def fastest(runs: Sequence[Mapping[str, float]]) -> float:
        return min(each["seconds"] for each in runs)

    ratios = _ratios(found, "seconds")
    return (
        f"{size_bytes // 1000:,} KB",
        f"{members:,}",
        rate(found["written"]),
        rate(found["bare"]),
        f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{fastest(found['bare']) / fastest(found['written']):.2f}",
        cpu(found["written"]),
        cpu(found["bare"]),
        f"{len(ratios)}",
    )


def _ratios(found: Mapping[str, Any], what: str) -> list[float]:
    return [bare[what] / written[what] for bare, written in zip(found["bare"], found["written"], strict=True)]


if __name__ == "__main__":
    main()
