"""(e) Requests, units and dollars per file for full bundles of 100 KB files.

Collect and WriteArchive are called in this process, on the events of a batch at a time, and every message that they
send is delivered, the late timers too. The ledger counts what they ask of AWS.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import collect
import write_archive
from bench import place
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws import clients
from neve.aws.ledger import LEDGER
from neve.domain.bundle import requested_bundle
from neve.domain.cost import COLLECT_GB, WHOLE_GB, WRITE_BYTES_PER_S, WRITE_GB, Workload, archiving, floor, unseen
from neve.domain.outcome import Outcome
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge, Use
from neve.domain.tally import Tally, from_line
from neve.domain.version import ObjectVersion

AIM_USD = 2.00
BATCH = 1_000
WORK = Workload(batch_files=BATCH)
COUNT = 1_841
"""Seven bundles of 263, in a batch of 1,000 and one of 841: six are full by themselves, one is filled by what both
batches have left over. Nothing is left open."""

ROUND_TRIPS_S = 0.3
"""A dozen requests of WriteArchive wait for each other, some 25 ms each in a Region; here they take next to nothing."""


# -- In the process that is measured -------------------------------------------------------------------------------


def main() -> None:
    """Archive the files; print what it took as JSON."""
    place.prepare()
    took = archived(place.upload("cost", count=COUNT, size_bytes=WORK.file_bytes))
    if took["archives"] * WORK.members != COUNT:
        raise RuntimeError(f"{took['archives']} archives of {WORK.members} files were expected to hold {COUNT}")
    json.dump(took, sys.stdout)


def archived(versions: Sequence[ObjectVersion]) -> dict[str, Any]:
    """Have the versions collected, in whole batches, and written; what that took, by function.

    Late timers, of bundles that were full, are in it. "ended" is when the last file was archived (time.monotonic()).
    """
    invocations: Counter[str] = Counter()
    cpu_seconds: dict[str, float] = defaultdict(float)
    tallies: dict[str, Tally] = defaultdict(Tally)

    def invoke(name: str, work: Callable[[], Any]) -> Any:
        LEDGER.settle()  # what the bench does itself, or for the mapping, which is imputed
        began = time.process_time()
        done = work()
        cpu_seconds[name] += time.process_time() - began
        invocations[name] += 1
        tallies[name] += LEDGER.settle()
        return done

    for start in range(0, len(versions), BATCH):
        batch = versions[start : start + BATCH]
        invoke("Collect", lambda batch=batch: collect.collector().collect(batch, place.now()))  # type: ignore[misc]  # mypy infers no lambda with a default
    due = time.monotonic() + collect.config().max_age_s + 1
    archives = requests_to_write = 0
    ended = 0.0
    late = False
    while not late:
        late = time.monotonic() > due  # what is asked for by now is in the queue
        for bundle_id in _requested(write_archive.config().bundles_queue_url):
            written = invoke("WriteArchive", lambda bundle_id=bundle_id: place.write(write_archive.writer(), bundle_id))  # type: ignore[misc]  # as above
            requests_to_write += 1
            if written.outcome is Outcome.ARCHIVED:
                archives += 1
                ended = time.monotonic()
    return {
        "files": len(versions),
        "archives": archives,
        "requests_to_write": requests_to_write,
        "ended": ended,
        "invocations": invocations,
        "cpu_seconds": cpu_seconds,
        "ledger": {name: tally.line() for name, tally in tallies.items()},
    }


def _requested(queue_url: str) -> Iterable[str]:
    """The bundles that messages ask for, until none has come for a second; each message is deleted."""
    while True:
        answer = clients.sqs().receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        if not answer.get("Messages"):
            return
        for message in answer["Messages"]:
            clients.sqs().delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            yield requested_bundle(message["Body"])


# -- In the process that runs the bench ----------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        took = run(cloud, "cost")
    measured = Bill(prices=US_EAST_1, uses=tuple(uses(took, WORK))).scaled(MILLION / COUNT)
    model = Bill(prices=US_EAST_1, uses=tuple(archiving(WORK)))
    least = Bill(prices=US_EAST_1, uses=tuple(floor(WORK)))
    imputed = [use for use in measured.uses if use.unseen]
    verdict = "reached" if max(measured.usd, model.usd) <= AIM_USD else "missed"
    return Section(
        letter="e",
        machine=machine,
        text=paragraphs(
            f"{COUNT:,} files of {WORK.file_bytes // 1000} KB in batches of {BATCH:,} events, "
            f"{took['archives']} full bundles of {WORK.members}; prices of {US_EAST_1.region}, "
            f"{US_EAST_1.checked}, without free tiers.",
            table(("asked of AWS", "Collect", "WriteArchive", "per file"), _requests(took)),
            table(
                ("per million files", "measured", "model", "measured", "model", "floor"),
                _dollars(measured, model, least),
            ),
            f"**${measured.usd:.2f}** per million files measured, ${model.usd:.2f} by the model of the demo and of "
            f"`neve.domain.cost`; the aim is ${AIM_USD:.2f} "
            f"({verdict}). The floor, ${least.usd:.2f}, "
            "is what S3, SQS and DynamoDB charge at the least for this design: an event, a GET and a row for each "
            "file, two PUTs for each archive. Imputed, since it cannot be counted here:",
            "\n".join(
                f"- {use.purpose}: {use.quantity:,.0f} ({use.charge}), ${measured.usd_of(use):.3f}; {use.rule}"
                for use in imputed
            ),
        ),
    )


def uses(took: Mapping[str, Any], work: Workload) -> Iterable[Use]:
    """What a run of `archived` came to: the ledgers, and by named rules what no SDK sees."""
    yield from sum(_tallies(took), Tally()).uses()
    files = took["files"]
    cpu_s = took["cpu_seconds"]
    network_s = 2 * files * work.file_bytes / WRITE_BYTES_PER_S
    # Neither has a whole processor.
    collect_s = cpu_s["Collect"] * WHOLE_GB / COLLECT_GB
    write_s = cpu_s["WriteArchive"] * WHOLE_GB / WRITE_GB + network_s + took["archives"] * ROUND_TRIPS_S
    yield from unseen(
        events=files,
        batch_files=work.batch_files,
        requests_to_write=took["requests_to_write"],
        invocations=sum(took["invocations"].values()),
        gb_seconds=collect_s * COLLECT_GB + write_s * WRITE_GB,
        gb_seconds_rule=f"the CPU time of this run ({cpu_s['Collect'] / files * 1000:.2f} and "
        f"{cpu_s['WriteArchive'] / files * 1000:.2f} ms a file) as if by the share of a processor that each has; for "
        f"WriteArchive {ROUND_TRIPS_S} s an archive and the bytes in and out at {WRITE_BYTES_PER_S / 1e6:.0f} MB/s",
    )


def _tallies(took: Mapping[str, Any]) -> list[Tally]:
    return [from_line(took["ledger"][name]) for name in ("Collect", "WriteArchive")]


def _requests(took: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    tallies = _tallies(took)
    for name in sorted({name for tally in tallies for name in tally.requests}):
        counts = [tally.requests.get(name, 0) for tally in tallies]
        yield (name, *(f"{each:,}" for each in counts), f"{sum(counts) / COUNT:.4f}")
    for charge in (Charge.DYNAMODB_WRITE_UNIT, Charge.DYNAMODB_READ_UNIT):
        units = [tally.units(charge) for tally in tallies]
        yield (charge.value, *(f"{each:,.1f}" for each in units), f"{sum(units) / COUNT:.4f}")


def _dollars(measured: Bill, model: Bill, least: Bill) -> Iterable[tuple[str, ...]]:
    for charge in Charge:
        quantities = [_sum(bill, charge) for bill in (measured, model)]
        if not any(quantities):
            continue
        dollars = [bill.prices.usd(charge, _sum(bill, charge)) for bill in (measured, model, least)]
        yield (charge.value, *(f"{each:,.0f}" for each in quantities), *(f"${each:.3f}" for each in dollars))
    yield ("all", "", "", *(f"**${bill.usd:.2f}**" for bill in (measured, model, least)))


def _sum(bill: Bill, charge: Charge) -> float:
    return sum(use.quantity for use in bill.uses if use.charge is charge)


if __name__ == "__main__":
    main()
