"""What lay in the content bucket before anybody told of it, on the deployed stacks, by somebody who is no root."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.deployed import Stacks, neve

PREFIX = "history/"
FILES = 120
RATE = 3
"""Versions a second: a batch of 30 every 10 seconds, so that there is a middle to stop in."""
PROMISE_S = 20
"""From an upload to its row: the age of a bundle (tests/conftest.py), and 15 seconds for all else."""


def test_history_is_archived_where_it_lies_and_no_upload_waits_for_it(stacks: Stacks, operator: dict[str, str]) -> None:
    bodies = {f"{PREFIX}{'abc'[number % 3]}/{number:04}": bytes([number]) * 2_000 for number in range(FILES)}
    with unannounced(stacks):
        old = stacks.upload(bodies) | stacks.upload({f"{PREFIX}a/0000": b"a second version"})
        old |= stacks.upload({f"{PREFIX}large": bytes(5 << 20)})
    before = listed(stacks)

    counted = told(operator, "--prefix", PREFIX, "--dry-run")
    assert (counted["state"], counted["versions"]) == ("finished", len(old))
    assert counted["size_bytes"] == sum(map(len, old.values()))
    assert counted["offer"]["larger_than_target"] == 1
    assert not stacks.rows(list(old)), "a dry run announces nothing"

    with nobody_collecting(stacks):
        begun = told(operator, "--prefix", PREFIX, "--rate", str(RATE), "--yes")["backfill"]
        stacks.wait_for("the first announcement", lambda: waiting(stacks) > 0)
        live, uploaded = stacks.upload({"while history waits": b"live"}), time.monotonic()
        stacks.wait_for("the upload in the index", lambda: bool(stacks.rows(list(live))), PROMISE_S)
        assert waiting(stacks) > 0, f"an upload took {time.monotonic() - uploaded:.0f} s, and history still waits"
        told(operator, "stop", begun)
        stacks.wait_for("its shards have ended", lambda: standing(operator, begun)["execution"]["status"] != "RUNNING")
    stopped = standing(operator, begun)
    assert (stopped["standing"], stopped["execution"]["status"]) == ("stopped", "SUCCEEDED")
    assert 0 < stopped["versions"] < len(old)

    assert told(operator, "resume", begun, "--rate", "0", "--wait")["versions"] == len(old)
    rows = stacks.wait_until_archived(list(old))
    members = [
        (member.source.key, member.source.version_id)
        for serial in {row.archive for row in rows.values()}
        for manifest in [stacks.store.manifest(serial)]
        if manifest is not None
        for member in manifest.members
    ]
    assert sorted(members) == sorted(old), "each version is in one archive, and nothing else is"
    assert listed(stacks) == before, "nothing was copied"


def told(operator: dict[str, str], *words: str) -> Any:
    answer = neve(operator, "backfill", *words, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def standing(operator: dict[str, str], backfill_id: str) -> Any:
    return told(operator, "status", backfill_id)


def waiting(stacks: Stacks) -> int:
    name = "ApproximateNumberOfMessages"
    url = stacks.outputs["BackfillQueue"]
    answer = stacks.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def listed(stacks: Stacks) -> list[tuple[str, str, str]]:
    pages = stacks.s3.get_paginator("list_object_versions")
    found = pages.paginate(Bucket=stacks.outputs["ContentBucket"], Prefix=PREFIX)
    return [
        (each["Key"], each["VersionId"], str(each["LastModified"]))
        for page in found
        for each in page.get("Versions", ())
    ]


@contextmanager
def unannounced(stacks: Stacks) -> Iterator[None]:
    """What is put there meanwhile, nobody is told of."""
    bucket = stacks.outputs["ContentBucket"]
    rules = stacks.s3.get_bucket_notification_configuration(Bucket=bucket)
    del rules["ResponseMetadata"]
    stacks.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    try:
        yield
    finally:
        stacks.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=rules)


@contextmanager
def nobody_collecting(stacks: Stacks) -> Iterator[None]:
    """CollectBackfill takes nothing from its queue meanwhile: what is announced waits there."""
    functions = stacks.cloud.session().client("lambda")
    [mapping] = functions.list_event_source_mappings(FunctionName=stacks.outputs["CollectBackfillFunction"])[
        "EventSourceMappings"
    ]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        yield
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
