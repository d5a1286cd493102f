"""What is damaged where it is stored is found, named and repaired; what was changed by right is left alone."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neve.aws.audits_table import DynamoAudits
from neve.domain.audit import Report, RunRequest, render_run_request
from neve.domain.events import DRILL_PREFIX
from neve.domain.index import FileRow, shard, sort_key
from neve.domain.manifest import Manifest, manifest_key
from neve.domain.verdict import Verdict
from neve_local.damage import StoredVersion
from tests.deployed import Stacks, neve, policy

FILES = [f"proof/{number:02} é+&.bin" for number in range(42)]
MEMBER_BYTES = 1_100_000
"""Four of them fill a bundle."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What was archived: bytes by key, and the archives' manifests by serial."""

    bodies: dict[str, bytes]
    rows: dict[str, FileRow]
    manifests: dict[int, Manifest]


@pytest.fixture(scope="module")
def audits(stacks: Stacks) -> DynamoAudits:
    return DynamoAudits(stacks.cloud.session().client("dynamodb"), stacks.outputs["AuditsTable"])


@pytest.fixture(scope="module")
def collection(stacks: Stacks) -> Collection:
    draw = random.Random(4)
    stored = stacks.upload({key: draw.randbytes(MEMBER_BYTES) for key in FILES})
    rows = {key: row for (key, _), row in stacks.wait_until_archived(list(stored)).items()}
    serials = sorted({row.archive for row in rows.values()})
    manifests = {serial: manifest for serial in serials if (manifest := stacks.store.manifest(serial))}
    return Collection(bodies={key: body for (key, _), body in stored.items()}, rows=rows, manifests=manifests)


def archive_object(stacks: Stacks, serial: int) -> StoredVersion:
    archive = stacks.archives.get(serial)
    assert archive is not None
    return StoredVersion(
        layout=stacks.cloud.layout,
        bucket=stacks.outputs["ArchiveBucket"],
        key=archive.object_key,
        version_id=archive.object_version_id,
    )


def truncate(stacks: Stacks, serial: int, size_bytes: int) -> None:
    """As if S3 had kept only the beginning: to S3 a body that ends too soon is a broken connection."""
    stored, archive = stacks.outputs["ArchiveBucket"], stacks.archives.get(serial)
    assert archive is not None
    place = {"Bucket": stored, "Key": archive.object_key}
    body = archive_object(stacks, serial).path.read_bytes()[:size_bytes]
    version = stacks.s3.put_object(**place, Body=body, StorageClass="GLACIER")["VersionId"]
    stacks.cloud.session().client("dynamodb").update_item(
        TableName=stacks.outputs["ArchivesTable"],
        Key={"pk": {"S": "archive"}, "sk": {"S": f"{serial:010d}"}},
        UpdateExpression="SET object_version_id = :version",
        ExpressionAttributeValues={":version": {"S": version}},
    )


def flip_a_digit(stacks: Stacks, serial: int) -> None:
    """One bit of the first SHA-256 in a manifest, such that it still reads as one."""
    bucket, key = stacks.outputs["ArchiveBucket"], manifest_key(serial)
    answer = stacks.s3.get_object(Bucket=bucket, Key=key)
    found = re.search(rb'"sha256": "[a-f]*([0-9])', answer["Body"].read())
    assert found is not None
    StoredVersion(layout=stacks.cloud.layout, bucket=bucket, key=key, version_id=answer["VersionId"]).flip(
        found.start(1)
    )


def source(stacks: Stacks, row: FileRow) -> StoredVersion:
    return StoredVersion(
        layout=stacks.cloud.layout,
        bucket=stacks.outputs["ContentBucket"],
        key=row.key,
        version_id=row.version_id,
    )


def told(operator: dict[str, str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit status of `neve audit ... --json`, and what it says."""
    ended = neve(operator, "audit", *words, "--json")
    assert ended.exit_code in (0, 1), (ended.exit_code, ended.stderr, ended.exception)
    return ended.exit_code, json.loads(ended.stdout)


def report_on(audits: DynamoAudits, run: str, serial: int) -> Report:
    (report,) = [report for report in audits.reports(run) if report.archive == serial]
    return report


def test_a_drill_rehearses_files_and_leaves_nothing_behind(
    stacks: Stacks, collection: Collection, operator: dict[str, str]
) -> None:
    ended = neve(operator, "drill", "run", "--files", "3", "--wait", "--json")
    assert ended.exit_code == 0, (ended.stdout, ended.stderr)
    for bucket in (stacks.outputs["ContentBucket"], stacks.outputs["DrillBucket"]):
        left = stacks.s3.list_object_versions(Bucket=bucket, Prefix=DRILL_PREFIX)
        assert not left.get("Versions")
        assert not left.get("DeleteMarkers")


def test_a_reconciliation_puts_a_missing_row_back(
    stacks: Stacks, collection: Collection, operator: dict[str, str]
) -> None:
    row = collection.rows[FILES[0]]
    stacks.cloud.session().client("dynamodb").delete_item(
        TableName=stacks.outputs["FilesTable"],
        Key={"shard": {"N": str(shard(row.key))}, "sort": {"B": sort_key(row.key, row.pin)}},
    )
    ended = neve(operator, "reconcile", "--wait", "--json")
    assert ended.exit_code in (0, 1), (ended.stdout, ended.stderr)
    (back,) = stacks.rows([(row.key, row.version_id)]).values()
    assert back == row


def test_each_damage_is_named_and_repaired_and_what_was_changed_by_right_is_not(
    stacks: Stacks, collection: Collection, audits: DynamoAudits, operator: dict[str, str]
) -> None:
    whole = [serial for serial, manifest in collection.manifests.items() if len(manifest.members) > 2]
    flipped, manifest_flipped, source_flipped, truncated, gone, intact = whole[:6]
    members = {serial: collection.manifests[serial].members for serial in whole}
    content = stacks.outputs["ContentBucket"]
    archive_object(stacks, flipped).flip(members[flipped][1].offset_bytes + 5, bit=3)
    flip_a_digit(stacks, manifest_flipped)
    source(stacks, collection.rows[members[source_flipped][0].source.key]).flip(77)
    truncate(stacks, truncated, members[truncated][-1].offset_bytes + 10)
    deleted = members[gone][0].source
    stacks.s3.delete_object(Bucket=content, Key=deleted.key, VersionId=deleted.version_id)
    overwritten = members[intact][0].source.key
    stacks.upload({overwritten: b"newer"})

    wanted = (flipped, manifest_flipped, source_flipped, truncated, gone, intact)
    status, said = told(operator, "run", *(f"--archive={serial}" for serial in wanted), "--wait")
    run = said["run"]["run"] if isinstance(said["run"], dict) else said["run"]
    assert status == 1
    assert {serial: report_on(audits, run, serial).verdict for serial in wanted} == {
        flipped: Verdict.ARCHIVE_DAMAGED,
        manifest_flipped: Verdict.MANIFEST_WRONG,
        source_flipped: Verdict.SOURCE_DAMAGED,
        truncated: Verdict.ARCHIVE_DAMAGED,
        gone: Verdict.SOURCE_GONE,
        intact: Verdict.INTACT,
    }
    (finding, *others) = report_on(audits, run, flipped).findings
    assert (finding.key, finding.number) == (members[flipped][1].source.key, 1)
    assert not others

    damaged = {identity: row for identity, row in collection.rows.items() if row.archive == flipped}
    status, said = told(operator, "repair", str(flipped), "--wait")
    assert status == 0, said
    archive = stacks.archives.get(flipped)
    assert archive is not None
    assert archive.superseded_by > flipped
    rows = stacks.rows([(row.key, row.version_id) for row in damaged.values()])
    assert {row.archive for row in rows.values()} == {archive.superseded_by}
    stacks.verify({identity: collection.bodies[identity[0]] for identity in rows})
    manifest = stacks.store.manifest(archive.superseded_by)
    assert manifest is not None
    assert manifest.supersedes == flipped


def test_a_source_that_cannot_be_read_is_no_difference_and_is_read_again(
    stacks: Stacks, collection: Collection, audits: DynamoAudits
) -> None:
    serial, manifest = next(each for each in reversed(collection.manifests.items()) if len(each[1].members) > 2)
    content = stacks.outputs["ContentBucket"]
    before = stacks.s3.get_bucket_policy(Bucket=content)["Policy"]
    refusal = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObjectVersion",
        "Resource": f"arn:aws:s3:::{content}/{manifest.members[0].source.key}",
    }
    began = time.time()
    stacks.s3.put_bucket_policy(Bucket=content, Policy=policy(*json.loads(before)["Statement"], refusal))
    try:
        run = ask(stacks, serial)
        stacks.wait_for(
            "a try that failed",
            lambda: bool(
                stacks.cloud.function_logs(
                    stacks.outputs["VerifyAuditFunction"], containing="sources cannot be read now", since=began
                )
            ),
        )
    finally:
        stacks.s3.put_bucket_policy(Bucket=content, Policy=before)
    assert ended(stacks, audits, run, serial).verdict is Verdict.INTACT


def test_an_audit_whose_event_is_lost_is_ended_by_the_sweeps(
    stacks: Stacks, collection: Collection, audits: DynamoAudits
) -> None:
    stored = stacks.outputs["ArchiveBucket"]
    serial = next(serial for serial in reversed(collection.manifests) if stacks.thaws.get(serial) is None)
    archive = stacks.archives.get(serial)
    assert archive is not None
    notified = stacks.s3.get_bucket_notification_configuration(Bucket=stored)
    del notified["ResponseMetadata"]
    stacks.s3.put_bucket_notification_configuration(Bucket=stored, NotificationConfiguration={})
    try:
        run = ask(stacks, serial)
        place = {"Bucket": stored, "Key": archive.object_key}
        stacks.wait_for(
            "the archive thawed", lambda: 'ongoing-request="false"' in stacks.s3.head_object(**place).get("Restore", "")
        )
        time.sleep(0.5)  # longer than an event takes
    finally:
        stacks.s3.put_bucket_notification_configuration(Bucket=stored, NotificationConfiguration=notified)
    (waiting,) = audits.waiting(serial)
    thaw = stacks.thaws.get(serial)
    assert thaw is not None
    assert stacks.thaws.swap(thaw, replace(thaw, due_at=datetime.now(UTC)))  # as if hours had passed
    stacks.sqs.send_message(QueueUrl=stacks.outputs["SweepRestoresQueue"], MessageBody="{}")

    def warm() -> bool:
        standing = stacks.thaws.get(serial)
        return standing is not None and standing.is_warm(datetime.now(UTC))

    stacks.wait_for("the sweep to find the copy", warm)
    now = datetime.now(UTC)
    leased = audits.lease(waiting, owner="test", now=now, until=now + timedelta(minutes=1))
    assert leased is not None
    audits.release(leased, owner="test", due_at=now)
    stacks.sqs.send_message(QueueUrl=stacks.outputs["AuditsQueue"], MessageBody='{"message": "sweep"}')
    assert ended(stacks, audits, run, serial).verdict is Verdict.INTACT


def test_the_schedule_fires_and_an_archive_is_drawn_at_random(
    stacks: Stacks, collection: Collection, audits: DynamoAudits
) -> None:
    scheduler = stacks.cloud.session().client("scheduler")
    named = [scheduler.get_schedule(Name=each["Name"]) for each in scheduler.list_schedules()["Schedules"]]
    asked = {(each["Target"]["Arn"].rpartition(":")[2], each["Target"]["Input"]): each for each in named}
    queues = {name: stacks.outputs[f"{name}Queue"].rpartition("/")[2] for name in ("Audits", "Drills", "Reconciles")}
    assert {(queue, json.dumps({"message": "sweep"})) for queue in queues.values()} <= asked.keys()
    assert (queues["Drills"], json.dumps({"message": "start"})) in asked
    assert (queues["Reconciles"], json.dumps({"message": "reconcile"})) in asked
    hourly = asked[queues["Audits"], json.dumps({"message": "audit"})]
    schedule = {name: hourly[name] for name in ("Name", "FlexibleTimeWindow", "Target", "State")}
    before = {run.id for run in audits.runs()}
    scheduler.update_schedule(**schedule, ScheduleExpression="rate(1 minute)")  # since its creation: it is due at once
    try:
        stacks.wait_for("a run that is drawn", lambda: bool({run.id for run in audits.runs()} - before))
    finally:
        scheduler.update_schedule(**schedule, ScheduleExpression=hourly["ScheduleExpression"])
    drawn = min({run.id for run in audits.runs()} - before)

    def over() -> bool:
        run = audits.run(drawn)
        return run is not None and run.finished_at is not None

    stacks.wait_for("the run ended", over)
    run = audits.run(drawn)
    assert run is not None
    assert run.ended == run.audits >= 1, collection.manifests.keys()


def ask(stacks: Stacks, serial: int) -> str:
    """Have an archive audited; the id of the run."""
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{serial:08}"
    request = RunRequest(id=run, archives=(serial,))
    stacks.sqs.send_message(QueueUrl=stacks.outputs["AuditsQueue"], MessageBody=render_run_request(request))
    return run


def ended(stacks: Stacks, audits: DynamoAudits, run: str, serial: int) -> Report:
    stacks.wait_for(f"the audit of archive {serial}", lambda: any(audits.reports(run)))
    return report_on(audits, run, serial)
