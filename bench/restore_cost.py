"""(j) Requests, units and dollars per million files restored, beside what S3 alone charges.

PlanRestore and Extract are called in this process, on one full chunk at a time, as they are composed when deployed; the
ledger counts what they ask of AWS.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import extract
import plan_restore
from bench import place
from bench.archives import files, shelf
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws.ledger import LEDGER
from neve.domain.cost import WHOLE_GB, WRITE_BYTES_PER_S, WRITE_GB, Workload, archiving
from neve.domain.manifest import Manifest
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge, Use
from neve.domain.restore import CHUNK_ITEMS, Ending, Request, Thawed, Wanted, render_request
from neve.domain.tally import Tally, from_line
from neve.domain.thaw import RETRIEVAL, Need, Tier, read_uses, thaw_uses

WORK = Workload()
NEED = Need(tier=Tier.STANDARD, days=1)
PLAN_GB = 512 / 1024
EXTRACT_GB = WRITE_GB
"""Memory as in stacks/restore.py."""
ROUND_TRIPS_S = 0.3
"""For each share a dozen requests wait for each other, some 25 ms each in a Region; here they take next to nothing."""
PUT_S = 0.05
"""What a PUT waits for S3, as a rule; place.EXTRACT_THREADS of them at once."""
PLANNERS = 2
"""As in stacks/restore.py: each asks S3 at its share of the pace, and is paid while it waits."""
MESSAGE_BYTES = 64 * 1024
"""SQS charges each begun 64 KB of a message."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One chunk: `wanted` of the `members` in each of so many archives.

    Where only a few files of an archive are wanted, those that nobody wants need not be there: an archive has
    WORK.members at the price list all the same.
    """

    name: str
    archives: int
    members: int
    wanted: int
    bucket: str

    @property
    def files(self) -> int:
        """In all."""
        return self.archives * self.wanted


BATCHES = (
    Batch(name="100 of 263", archives=5, members=WORK.members, wanted=100, bucket=place.ELSEWHERE),
    Batch(
        name="100 of 263, into the content bucket", archives=5, members=WORK.members, wanted=100, bucket=place.CONTENT
    ),
    Batch(name="3 of 263 (1 %)", archives=CHUNK_ITEMS // 3, members=6, wanted=3, bucket=place.ELSEWHERE),
)


@dataclass
class Took:
    """What one function took, over all of its invocations."""

    invocations: int = 0
    cpu_seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def invoke(self, work: Callable[[], Any]) -> Any:
        """Run one invocation."""
        LEDGER.settle()  # what the bench itself did
        began = time.process_time()
        answer = work()
        self.cpu_seconds += time.process_time() - began
        self.invocations += 1
        self.tally += LEDGER.settle()
        return answer

    def as_json(self) -> dict[str, Any]:
        """What _took reads."""
        return {"invocations": self.invocations, "cpu_seconds": self.cpu_seconds, "ledger": self.tally.line()}


def _took(found: Mapping[str, Any]) -> Took:
    return Took(invocations=found["invocations"], cpu_seconds=found["cpu_seconds"], tally=from_line(found["ledger"]))


# -- In the process that is measured ---------------------------------------------------------------------------------


def main() -> None:
    """Restore every batch; print what it took as JSON."""
    place.prepare()
    chance = random.Random("restore")
    found = []
    for number, batch in enumerate(BATCHES):
        serials = range(1_000 * number + 1, 1_000 * number + 1 + batch.archives)
        sizes = [WORK.file_bytes] * batch.members
        manifests = [shelf().put(serial, files(serial, sizes, chance)) for serial in serials]
        found.append(restored(batch, manifests, chance))
    json.dump(found, sys.stdout)


def restored(batch: Batch, manifests: Sequence[Manifest], chance: random.Random) -> dict[str, Any]:
    """What it took to restore a batch."""
    members = [
        member
        for manifest in manifests
        for number in sorted(_chosen(batch, chance))
        for member in [manifest.members[number]]
    ]
    wanted = [
        Wanted(
            key=member.source.key,
            pin=member.source.pin,
            destination=f"s3://{batch.bucket}/{member.source.key}",
        )
        for member in members
    ]
    request = Request(
        job=f"job-{manifests[0].archive}",
        chunk=1,
        chunks=1,
        created_at=place.now(),
        need=NEED,
        overwrite=False,
        estimate_usd=0.0,
        items=tuple(wanted),
    )
    planning, extracting = Took(), Took()
    planning.invoke(lambda: plan_restore.planner().plan(request, owner="plan"))
    reads = read_bytes = 0
    endings: Counter[Ending] = Counter()
    for manifest in manifests:
        thawed = Thawed(archive=manifest.archive, until=_thawed_until(manifest))
        until = place.now() + timedelta(minutes=5)
        done = extracting.invoke(
            lambda thawed=thawed, until=until: extract.extractor().thawed(thawed, owner="extract", until=until)  # type: ignore[misc]  # mypy infers no lambda with a default
        )
        reads += done.reads
        read_bytes += done.read_bytes
        endings.update(done.endings)
    if endings != {Ending.RESTORED: batch.files}:
        raise RuntimeError(f"{batch.files} files were to be restored: {endings}")
    return {
        "message_bytes": len(render_request(request)),
        "reads": reads,
        "read_bytes": read_bytes,
        "archive_bytes": batch.archives * WORK.members * (WORK.file_bytes + 1_000),
        "planning": planning.as_json(),
        "extracting": extracting.as_json(),
    }


def _chosen(batch: Batch, chance: random.Random) -> Iterable[int]:
    """The numbers of the wanted members; few of many are hardly ever neighbours."""
    if batch.members == WORK.members:
        return chance.sample(range(batch.members), batch.wanted)
    return range(0, batch.members, batch.members // batch.wanted)


def _thawed_until(manifest: Manifest) -> Any:
    """When the copy expires, once it is there."""
    glacier, row = plan_restore.planner().thawer.glacier, plan_restore.planner().archives.get(manifest.archive)
    assert row is not None, "it was stored above"
    while (until := glacier.status(row).warm_until) is None:
        time.sleep(0.1)
    return until


# -- In the process that runs the bench ------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        found = run(cloud, "restore_cost")
    bills = [bill(batch, each) for batch, each in zip(BATCHES, found, strict=True)]
    least = [floor(batch, each) for batch, each in zip(BATCHES, found, strict=True)]
    return Section(
        letter="j",
        machine=machine,
        text=paragraphs(
            table(("asked of AWS, per 1,000 files", *(batch.name for batch in BATCHES)), _requests(found)),
            table(
                ("dollars per million files", *(text for batch in BATCHES for text in (batch.name, "S3 alone"))),
                _dollars(bills, least),
            ),
            "Files of 100 KB, of full archives in GLACIER, thawed by Standard for a day; a job for each chunk of "
            f"{CHUNK_ITEMS}. With Bulk what is retrieved is free. Imputed, since it cannot be counted here:",
            "\n".join(
                f"- {use.purpose}: ${bills[0].usd_of(use):.3f}; {use.rule}" for use in bills[0].uses if use.unseen
            ),
        ),
    )


def bill(batch: Batch, found: Mapping[str, Any]) -> Bill:
    """What a million files cost, restored in such batches."""
    planning, extracting = _took(found["planning"]), _took(found["extracting"])
    asked = (planning.tally + extracting.tally).uses()
    uses = [
        *(use for use in asked if use.charge not in _RETRIEVAL),
        *_thaws(batch, found),
        *_unseen(batch, found, planning, extracting),
    ]
    return Bill(prices=US_EAST_1, uses=tuple(uses)).scaled(MILLION / batch.files)


_RETRIEVAL = frozenset(charge for charges in RETRIEVAL[WORK.storage_class].values() for charge in charges)
"""Here archives hold less than full ones would: what it costs to thaw full ones is reckoned."""


def _thaws(batch: Batch, found: Mapping[str, Any]) -> list[Use]:
    return thaw_uses(
        WORK.storage_class,
        NEED.tier,
        days=NEED.days,
        archives=batch.archives,
        size_bytes=found["archive_bytes"],
    )


def floor(batch: Batch, found: Mapping[str, Any]) -> Bill:
    """What S3 charges at the least: the thaws, one PUT a file, and the GETs that neighbours share."""
    uses = [
        *_thaws(batch, found),
        *read_uses(WORK.storage_class, reads=found["reads"], writes=batch.files, size_bytes=found["read_bytes"]),
    ]
    return Bill(prices=US_EAST_1, uses=tuple(uses)).scaled(MILLION / batch.files)


def _unseen(batch: Batch, found: Mapping[str, Any], planning: Took, extracting: Took) -> Iterable[Use]:
    """What no SDK sees, by named rules."""
    pieces = -(-found["message_bytes"] // MESSAGE_BYTES)
    yield Use(
        purpose="messages of the command",
        charge=Charge.SQS_REQUEST,
        quantity=2 * pieces + 1,
        rule="a chunk is sent, received and deleted; each begun 64 KB of it is a request",
        unseen=True,
    )
    yield Use(
        purpose="messages that an archive is thawed",
        charge=Charge.SQS_REQUEST,
        quantity=2 * batch.archives,
        rule="received and deleted one at a time; SNS delivers to SQS without charge",
        unseen=True,
    )
    yield Use(
        purpose="invocations",
        charge=Charge.LAMBDA_REQUEST,
        quantity=planning.invocations + extracting.invocations,
        rule="one for each message",
        unseen=True,
    )
    # Neither has a whole processor.
    plan_s = planning.cpu_seconds * WHOLE_GB / PLAN_GB
    plan_s += ROUND_TRIPS_S + batch.archives * PLANNERS / place.DEFAULTS.restore_requests_per_s
    extract_s = extracting.cpu_seconds * WHOLE_GB / EXTRACT_GB + batch.archives * ROUND_TRIPS_S
    extract_s += batch.files * (PUT_S / place.EXTRACT_THREADS + 2 * WORK.file_bytes / WRITE_BYTES_PER_S)
    yield Use(
        purpose="time of the functions",
        charge=Charge.LAMBDA_GB_SECOND,
        quantity=plan_s * PLAN_GB + extract_s * EXTRACT_GB,
        rule=f"the CPU time of this run ({planning.cpu_seconds / batch.files * 1000:.2f} and "
        f"{extracting.cpu_seconds / batch.files * 1000:.2f} ms a file) as if by the share of a processor that each "
        f"has; PlanRestore waits for its pace; for Extract {ROUND_TRIPS_S} s an archive, {PUT_S} s a PUT, "
        f"{place.EXTRACT_THREADS} at once, and the bytes in and out at {WRITE_BYTES_PER_S / 1e6:.0f} MB/s",
        unseen=True,
    )
    if batch.bucket == place.CONTENT:
        yield from _noticed(batch.files)


def _noticed(count: int) -> Iterable[Use]:
    """What follows a file that is restored into the content bucket: its event, and what becomes of that."""
    for use in archiving(WORK, count):
        if use.purpose in NOTICED:
            yield use


NOTICED = (
    "S3's events to the collect queue",
    "receiving and deleting events",
    "parts of the open bundle",
    "parts of whole bundles",
    "look-up of rows that stand",
)
"""Of what archiving takes. WriteArchive finds the row that Extract has written, and leaves the file out."""


def _requests(found: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    functions = {"PlanRestore": "planning", "Extract": "extracting"}
    for title, function in functions.items():
        tallies = [_took(each[function]).tally for each in found]
        for name in sorted({name for tally in tallies for name in tally.requests}):
            yield _per_thousand(f"{title}: {name}", [tally.requests.get(name, 0) for tally in tallies])
        for charge in (Charge.DYNAMODB_WRITE_UNIT, Charge.DYNAMODB_READ_UNIT):
            yield _per_thousand(f"{title}: {charge}", [tally.units(charge) for tally in tallies])


def _per_thousand(title: str, quantities: Sequence[float]) -> tuple[str, ...]:
    rates = (quantity / batch.files * 1_000 for batch, quantity in zip(BATCHES, quantities, strict=True))
    return (title, *(f"{rate:,.1f}" for rate in rates))


def _dollars(bills: Sequence[Bill], least: Sequence[Bill]) -> Iterable[tuple[str, ...]]:
    pairs = [bill for pair in zip(bills, least, strict=True) for bill in pair]
    for charge in Charge:
        sums = [sum(bill.usd_of(use) for use in bill.uses if use.charge is charge) for bill in pairs]
        if any(sums):
            yield (charge.value, *(f"{usd:,.3f}" if usd else "" for usd in sums))
    yield ("all", *(f"**{bill.usd:,.2f}**" for bill in pairs))


if __name__ == "__main__":
    main()
