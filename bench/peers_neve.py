"""What is run of neve when it is compared with other tools: functions as they are deployed, commands as they are typed.

`python -m bench.peers_neve STEP ...`, each step in a process of its own. A server without functions or stacks: so what
would call a function calls it here, and what the commands read from stacks' outputs is given to them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import boto3

import extract
import plan_restore
from bench import place
from bench.cost import archived
from neve.aws import clients
from neve.domain.restore import Request, Thawed, parse_plan
from neve.domain.version import ObjectVersion, padded_sequencer
from neve_cli import asking, resuming
from neve_cli.offers import Order
from neve_cli.restore_plan import Line, Plan
from neve_cli.stack import Stack

RECEIVED_AT_ONCE = 10


def stack() -> Stack:
    """What bench.place made, as if it had been deployed."""
    return Stack(
        name="bench",
        region=boto3.Session().region_name or "",
        session=boto3.Session(),
        outputs={
            "ContentBucket": place.CONTENT,
            "ArchiveBucket": place.ARCHIVE,
            "UploadsBucket": "",
            "FilesTable": place.FILES,
            "ArchivesTable": place.ARCHIVES,
            "RestoresTable": place.RESTORES,
            "ParkedTable": place.PARKED,
            "OutboxTable": place.OUTBOX,
            "StorageClass": place.DEFAULTS.storage_class,
            "RestoreRequestsQueue": plan_restore.config().requests_queue_url,
            "RestoredTopic": plan_restore.config().restored_topic,
            "DestinationBuckets": plan_restore.config().destination_buckets,
            "SiteUrls": "",
            "UsdPerDay": str(place.DEFAULTS.restore_usd_per_day),
        },
    )


def archive(listing: Path) -> dict[str, Any]:
    """Collect and WriteArchive, for the versions of a listing."""
    versions = [
        ObjectVersion(
            key=key,
            version_id=version_id,
            size_bytes=size_bytes,
            etag=etag,
            sequencer=padded_sequencer(f"{number:018X}"),
            event_at=place.now(),
        )
        for number, (key, version_id, size_bytes, etag) in enumerate(json.loads(listing.read_text()))
    ]
    return archived(versions)


def ask(names: Path, folder: Path) -> None:
    """`neve restore --batch NAMES --json`, each file to its path below `folder`."""

    def fill(wanted: Plan) -> None:
        lines = enumerate(names.read_text().splitlines(), start=1)
        wanted.add(Line(number=number, source=f"key:{name}", destination=f"{folder}/") for number, name in lines)

    asking.request(stack(), Order(as_json=True), fill)


def plan() -> None:
    """PlanRestore, for what was asked."""
    queue = plan_restore.config().requests_queue_url
    while True:
        answer = clients.sqs().receive_message(QueueUrl=queue, MaxNumberOfMessages=RECEIVED_AT_ONCE)
        if not answer.get("Messages"):
            return
        for message in answer["Messages"]:
            request = parse_plan(message["Body"])
            assert isinstance(request, Request), "nothing else is asked for here"
            plan_restore.planner().plan(request, owner="bench")
            clients.sqs().delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def warm(job: str) -> None:
    """Wait until what the job waits for is thawed; then Extract marks it, as S3's events would have it do."""
    for serial in sorted({share.archive for share in stack().restores.waiting_of(job)}):
        row = stack().archives.get(serial)
        assert row is not None, "something waits for it"
        while (until := stack().glacier.status(row).warm_until) is None:
            time.sleep(0.1)
        extract.extractor().thawed(Thawed(archive=serial, until=until), owner="bench", until=until)


def fetch(job: str) -> None:
    """`neve restore --resume JOB --json`: its files come home."""
    resuming.resume(stack(), Order(as_json=True), job)


def main() -> None:
    """One step; what it has to say is JSON."""
    step, *words = sys.argv[1:]
    if step == "prepare":
        place.prepare()
        json.dump(None, sys.stdout)
        return
    place.configure()
    match step:
        case "archive":
            json.dump(archive(Path(words[0])), sys.stdout)
        case "ask":
            ask(Path(words[0]), Path(words[1]))
        case "plan":
            plan()
        case "warm":
            warm(words[0])
        case "fetch":
            fetch(words[0])


if __name__ == "__main__":
    main()
