"""The `neve` command, on moto: what it prints, its exit statuses, and what it says when AWS cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner, Result

from neve.aws import clients
from neve.aws.archives_table import DynamoArchives
from neve.domain.bundle import Bundle, BundleState
from neve.domain.outbox import Cause, Entry
from neve.domain.parked import Parked, Reason
from neve.domain.version import ObjectVersion
from neve_cli.failures import remedy
from neve_cli.main import app
from neve_cli.text import safe, span, usd
from tests.moto_cloud import (
    ARCHIVE,
    ARCHIVES,
    CONTENT,
    FILES,
    OUTBOX,
    PARKED,
    POINTERS,
    RESTORES,
    UPLOADS,
    MotoCloud,
    moto_cloud,
)
from tests.moto_state import MotoState

RESTORE_QUEUES = {"RestoreRequests": "requests", "Extract": "extract", "SweepRestores": "sweep_restores"}
AUDIT_QUEUES = {"Audits": "audits", "VerifyAudits": "verify", "Drills": "drills", "Reconciles": "reconciles"}
BACKFILL_QUEUES = {
    "Backfill": "backfill",
    "BackfillBundles": "backfill_bundles",
    "BackfillLarge": "backfill_large",
}
OFFLOAD_QUEUES = {"Release": "release", "Announcements": "announcements", "Relay": "relay"}
NASTY = "a\nb\x1b[31m\u202e\\é"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def read(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


class Deployed:
    """CloudFormation as far as the command asks it: moto's would bring some twenty packages more."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}

    def describe_stacks(self, *, StackName: str) -> Any:  # noqa: N803  # boto3's name
        if StackName not in self.outputs:
            message = f"Stack with id {StackName} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in self.outputs[StackName].items()]
        return {"Stacks": [{"StackStatus": "CREATE_IN_PROGRESS", "Outputs": outputs}]}


def deploy(cloud: MotoCloud, deployed: Deployed) -> None:
    """Stacks that are nothing but their outputs."""
    announcements = clients.sqs().create_queue(QueueName="announcements")["QueueUrl"]  # only hosts read it
    queues = {**cloud.urls, "announcements": announcements}
    dead = {queue: clients.sqs().create_queue(QueueName=f"{queue}-dead")["QueueUrl"] for queue in queues}
    outputs = {
        "storage": {
            "ContentBucket": CONTENT,
            "ArchiveBucket": ARCHIVE,
            "FilesTable": FILES,
            "ArchivesTable": ARCHIVES,
            "ParkedTable": PARKED,
            "RestoresTable": RESTORES,
            "CollectQueue": cloud.urls["collect"],
            "CollectDeadLetterQueue": dead["collect"],
            "UploadsBucket": UPLOADS,
            "OutboxTable": OUTBOX,
            "PointersTable": POINTERS,
            "UploadsQueue": cloud.urls["uploads"],
            "UploadsDeadLetterQueue": dead["uploads"],
        },
        "archive": {
            **{f"{queue.title()}Queue": cloud.urls[queue] for queue in ("bundles", "large", "sweep")},
            **{f"{queue.title()}DeadLetterQueue": dead[queue] for queue in ("bundles", "large", "sweep")},
            **{f"{output}Queue": cloud.urls[queue] for output, queue in BACKFILL_QUEUES.items()},
            **{f"{output}DeadLetterQueue": dead[queue] for output, queue in BACKFILL_QUEUES.items()},
            "StorageClass": "GLACIER",
        },
        "restore": {
            **{f"{output}Queue": cloud.urls[queue] for output, queue in RESTORE_QUEUES.items()},
            **{f"{output}DeadLetterQueue": dead[queue] for output, queue in RESTORE_QUEUES.items()},
            "RestoredTopic": cloud.topic_arn,
            "DestinationBuckets": CONTENT,
            "SiteUrls": "-",
            "UsdPerDay": "100",
        },
        "audit": {
            **{f"{output}Queue": cloud.urls[queue] for output, queue in AUDIT_QUEUES.items()},
            **{f"{output}DeadLetterQueue": dead[queue] for output, queue in AUDIT_QUEUES.items()},
        },
        "offload": {
            **{f"{output}Queue": queues[queue] for output, queue in OFFLOAD_QUEUES.items()},
            **{f"{output}DeadLetterQueue": dead[queue] for output, queue in OFFLOAD_QUEUES.items()},
        },
        "serve": {"ContentCdn": "https://cdn.example.com"},
    }
    deployed.outputs |= {f"neve-{part}": values for part, values in outputs.items()}


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Deployed:
    """The stacks that the command finds."""
    stacks = Deployed()
    client = boto3.Session.client

    def client_or_double(session: boto3.Session, service: Any, **options: Any) -> Any:
        return stacks if service == "cloudformation" else client(session, service, **options)

    monkeypatch.setattr(boto3.Session, "client", client_or_double)
    return stacks


@pytest.fixture(scope="module")
def filled() -> list[tuple[MotoState, dict[str, dict[str, str]]]]:
    """What the first test's cloud has held, and the outputs of its stacks: the others begin with a copy."""
    return []


@pytest.fixture
def cloud(
    monkeypatch: pytest.MonkeyPatch, deployed: Deployed, filled: list[tuple[MotoState, dict[str, dict[str, str]]]]
) -> Iterator[MotoCloud]:
    """A cloud with three archived files: two of them in a tar, one as a large object."""
    monkeypatch.delenv("NEVE_STACK", raising=False)
    with moto_cloud(target_bytes=1_000) as made:
        if not filled:
            made.announce(made.upload("a/1", b"one"), made.upload(NASTY, b"two"), made.upload("large", b"x" * 1_001))
            made.run()
            deploy(made, deployed)
            filled.append((MotoState.now(), deployed.outputs))
        [(state, deployed.outputs)] = filled
        made.begin_again(state)
        yield made


def park(cloud: MotoCloud, version: ObjectVersion, reason: Reason = Reason.SOURCE_DENIED) -> str:
    item = Parked(reason=reason, detail="403 AccessDenied", parked_at=datetime.now(UTC), version=version)
    cloud.parking_lot.park(item)
    return item.id


# -- ls, find, archives ----------------------------------------------------------------------------------------------


def test_ls_shows_keys_on_one_line_each_with_nothing_that_a_terminal_acts_on(cloud: MotoCloud) -> None:
    lines = run("ls").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["a\\nb\\x1b[31m\\u202e\\\\é", "a/1", "large"]


def test_ls_json_has_a_document_on_each_line_and_keys_exactly(cloud: MotoCloud) -> None:
    found = [json.loads(line) for line in run("ls", "--json").stdout.splitlines()]
    assert [each["key"] for each in found] == [NASTY, "a/1", "large"]
    assert set(found[0]) == {
        "key", "version_id", "size_bytes", "last_modified", "id", "archive", "number", "offset_bytes", "sha256", "md5"
    }  # fmt: skip


def test_ls_takes_a_prefix_and_a_limit(cloud: MotoCloud) -> None:
    assert len(run("ls", "a").stdout.splitlines()) == 2
    assert len(run("ls", "--limit", "1").stdout.splitlines()) == 1
    assert run("ls", "nothing").exit_code == 0


def test_find_names_the_archive_of_every_version(cloud: MotoCloud) -> None:
    found = read("find", NASTY)
    assert found["key"] == NASTY
    (version,) = found["versions"]
    assert version["object_key"] == f"archives/{version['archive']:010d}.tar"
    assert version["state"] == "archived"
    shown = run("find", NASTY)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout


def test_find_says_what_to_do_when_a_key_is_not_archived(cloud: MotoCloud) -> None:
    missing = run("find", "A/1")
    assert missing.exit_code == 1
    assert "neve status" in missing.stderr
    assert json.loads(run("find", "A/1", "--json").stdout) == {"key": "A/1", "versions": []}


def test_archives_lists_all_and_shows_one_with_the_offsets_of_its_members(cloud: MotoCloud) -> None:
    listed = read("archives")
    assert [each["kind"] for each in listed] == ["object", "tar"] or [each["kind"] for each in listed] == [
        "tar",
        "object",
    ]
    tar = next(each["archive"] for each in listed if each["kind"] == "tar")
    shown = read("archives", str(tar))
    assert [member["key"] for member in shown["members"]] == [NASTY, "a/1"]
    assert all(member["offset_bytes"] % 512 == 0 for member in shown["members"])
    assert "a\\nb" in run("archives", str(tar)).stdout
    assert run("archives").stdout.splitlines()[0].split()[:2] == ["ID", "FILES"]
    assert read("archives", "--last", "1") == listed[-1:]


def test_archives_says_so_if_there_is_none_of_that_number(cloud: MotoCloud) -> None:
    missing = run("archives", "99")
    assert missing.exit_code == 1
    assert "last number drawn is 2" in missing.stderr
    assert run("archives", "--last", "1", "1").exit_code == 2


def test_an_archive_that_was_given_up_still_shows_its_manifest(cloud: MotoCloud) -> None:
    clients.dynamodb().delete_item(TableName=ARCHIVES, Key={"pk": {"S": "archive"}, "sk": {"S": f"{1:010d}"}})
    shown = run("archives", "1")
    assert shown.exit_code == 1
    assert "has a manifest and no row" in shown.stderr


# -- restore ---------------------------------------------------------------------------------------------------------


def test_files_come_back_from_the_command_to_their_place_and_to_a_folder(cloud: MotoCloud, tmp_path: Path) -> None:
    clients.s3().delete_object(Bucket=CONTENT, Key="a/1")
    nasty = json.dumps({"source": f"key:{NASTY}", "destination": f"{tmp_path}/"})
    (tmp_path / "batch").write_text(f"a/1\nlarge\t{tmp_path}/\nnothing\n{nasty}\n")
    told = read("restore", "--batch", str(tmp_path / "batch"), "--days", "2")
    assert (told["files"], told["archives"], told["thaws"]["to_ask_for"], told["problems"]) == (3, 2, 2, 1)
    cloud.run()
    assert "thawing, standard" in run("jobs", told["job"]).stdout
    cloud.complete_thaws()
    cloud.run()
    assert read("jobs", told["job"])["endings"] == {"restored": 1}
    fetched = run("restore", "--resume")
    assert (fetched.exit_code, fetched.stderr) == (0, "")
    assert "2 files fetched: 2 restored" in fetched.stdout
    assert clients.s3().get_object(Bucket=CONTENT, Key="a/1")["Body"].read() == b"one"
    assert (tmp_path / "large").read_bytes() == b"x" * 1_001
    assert [path.read_bytes() for path in tmp_path.glob("a%0Ab*")] == [b"two"]
    (job,) = read("jobs")
    assert (job["job"], job["state"], job["endings"]) == (told["job"], "finished", {"restored": 3})
    assert run("cancel", job["job"]).exit_code == 1


# -- status ----------------------------------------------------------------------------------------------------------


def test_status_adds_up_what_is_archived_and_is_content(cloud: MotoCloud) -> None:
    told = read("status")
    assert (told["ok"], told["last_serial"], told["parked"]) == (True, 2, 0)
    assert (told["totals"]["archives"], told["totals"]["files"]) == (2, 3)
    assert told["totals"]["source_bytes"] == 1_007
    assert [each["queue"] for each in told["queues"]] == [
        "collect", "bundles", "large", "sweep", "backfill", "backfill bundles", "backfill large",
        "restore requests", "extract", "sweep restores",
        "audits", "verify audits", "drills", "reconciles",
        "uploads", "release", "announcements", "relay"
    ]  # fmt: skip
    assert run("status").exit_code == 0
    archives = DynamoArchives(clients.dynamodb(), ARCHIVES)
    archives.supersede(1, by=2)
    counted = read("status")["totals"]
    assert (counted["archives"], counted["files"]) == (1, 1), "what another archive stands for is counted there"
    assert read("status", "--no-totals")["totals"] is None


def test_status_counts_what_waits(cloud: MotoCloud) -> None:
    cloud.announce(cloud.upload("b", b"waits"))
    assert read("status")["queues"][0]["waiting"] == 1
    cloud.deliver("collect")
    told = read("status")
    assert (told["unfinished"]["open"], told["unfinished"]["files"], told["unfinished"]["overdue"]) == (1, 1, 0)
    assert "should be written by" in run("status").stdout


@pytest.mark.parametrize("trouble", ["dead letter", "parked", "overdue", "outbox"])
def test_status_fails_while_something_needs_a_person(cloud: MotoCloud, trouble: str) -> None:
    if trouble == "dead letter":
        url = clients.sqs().get_queue_url(QueueName="bundles-dead")["QueueUrl"]
        clients.sqs().send_message(QueueUrl=url, MessageBody="{}")
    elif trouble == "parked":
        park(cloud, cloud.upload("b", b"denied"))
    elif trouble == "outbox":
        keep(cloud, datetime.now(UTC) - timedelta(minutes=11))
    else:
        due = datetime.now(UTC) - timedelta(minutes=1)
        cloud.bundles.create(Bundle(id="old", kind="tar", state=BundleState.SEALED, size_bytes=1, count=1, due_at=due))
    told = run("status")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[-1].startswith("! ")
    assert len(read("status")["problems"]) == 1


def test_what_waits_in_the_outbox_is_told_and_no_trouble_for_as_long_as_relays_take(cloud: MotoCloud) -> None:
    put_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=9)
    keep(cloud, put_at)
    told = read("status")
    assert (told["ok"], told["outbox"]) == (True, {"waiting": 1, "oldest_at": put_at.isoformat()})
    assert "1 messages wait for SQS" in run("status").stdout


def keep(cloud: MotoCloud, put_at: datetime) -> None:
    """Put a message into the outbox."""
    entry = Entry(queue=cloud.urls["collect"], id="1", body="{}", due_at=put_at, put_at=put_at, cause=Cause.FAILED)
    cloud.outbox.put(entry)


# -- parked ----------------------------------------------------------------------------------------------------------


def test_parked_lists_reasons_with_their_remedy(cloud: MotoCloud) -> None:
    assert run("parked").stdout == "Nothing is parked.\n"
    parked_id = park(cloud, cloud.upload(NASTY, b"denied"))
    cloud.parking_lot.park(
        Parked(reason=Reason.EVENT_INVALID, detail="not JSON", parked_at=datetime.now(UTC), evidence="\x1b]0;x\x07")
    )
    (first, second) = read("parked")
    assert (first["id"], first["key"], first["reason"]) == (parked_id, NASTY, "source denied")
    assert second["evidence"] == "\x1b]0;x\x07"
    shown = run("parked")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "s3:GetObjectVersion" in shown.stdout
    assert len(read("parked", parked_id)) == 1


def test_retrying_announces_the_version_and_takes_it_off_the_list(cloud: MotoCloud) -> None:
    parked_id = park(cloud, cloud.upload("b", b"readable again"))
    rehearsed = run("parked", "--retry", parked_id, "--dry-run")
    assert (rehearsed.exit_code, cloud.bodies("collect")) == (0, [])
    assert "would be retried" in rehearsed.stdout
    assert read("parked", "--retry", "--all")["outcomes"][0]["outcome"] == "retried"
    assert read("parked") == []
    cloud.run()
    assert run("find", "b").exit_code == 0


def test_retrying_takes_size_and_etag_as_they_are_now(cloud: MotoCloud) -> None:
    version = cloud.upload("b", b"longer than announced")
    wrong = ObjectVersion(
        key="b",
        version_id=version.version_id,
        size_bytes=3,
        etag="0" * 32,
        sequencer=version.sequencer,
        event_at=version.event_at,
    )
    park(cloud, wrong, Reason.SOURCE_CHANGED)
    assert run("parked", "--retry", "--all").exit_code == 0
    cloud.run()
    assert read("find", "b")["versions"][0]["size_bytes"] == 21


def test_an_upload_is_announced_to_the_queue_of_its_own_bucket(cloud: MotoCloud) -> None:
    made = clients.s3().put_object(Bucket=UPLOADS, Key="up", Body=b"denied before")
    version = ObjectVersion(
        key="up",
        version_id=made["VersionId"],
        size_bytes=13,
        etag=made["ETag"].strip('"'),
        sequencer="0" * 32,
        event_at=datetime.now(UTC),
    )
    cloud.parking_lot.park(
        Parked(reason=Reason.SOURCE_DENIED, detail="403", parked_at=datetime.now(UTC), version=version, bucket=UPLOADS)
    )
    assert run("parked", "--retry", "--all").exit_code == 0
    assert (len(cloud.bodies("uploads")), cloud.bodies("collect")) == (1, [])
    cloud.deliver("uploads")
    assert clients.s3().get_object(Bucket=CONTENT, Key="up")["Body"].read() == b"denied before"


def test_what_is_gone_stays_parked_until_it_is_forgotten(cloud: MotoCloud) -> None:
    version = cloud.upload("b", b"deleted")
    clients.s3().delete_object(Bucket=CONTENT, Key="b", VersionId=version.version_id)
    parked_id = park(cloud, version, Reason.SOURCE_GONE)
    cloud.parking_lot.park(Parked(reason=Reason.PARTS_MISSING, detail="", parked_at=datetime.now(UTC), bundle="x"))
    retried = run("parked", "--retry", "--all")
    assert retried.exit_code == 1
    assert retried.stdout.count("stays") == 2
    assert cloud.bodies("collect") == []
    assert run("parked", "--forget", parked_id, "--dry-run").exit_code == 0
    assert len(read("parked")) == 2
    assert run("parked", "--forget", parked_id).exit_code == 0
    assert [each["reason"] for each in read("parked")] == ["parts missing"]


@pytest.mark.parametrize("reason", list(Reason))
def test_only_what_is_parked_for_its_source_can_be_announced_again(cloud: MotoCloud, reason: Reason) -> None:
    parked_id = park(cloud, cloud.upload("b", b"readable"), reason)
    retried = run("parked", "--retry", parked_id)
    of_a_source = reason.value.startswith("source ")
    assert retried.exit_code == (0 if of_a_source else 1)
    assert len(cloud.bodies("collect")) == int(of_a_source)
    assert len(read("parked")) == int(not of_a_source)


def test_an_archive_that_a_restore_found_damaged_stays_with_what_to_do(cloud: MotoCloud) -> None:
    damaged = Parked(
        reason=Reason.ARCHIVE_DAMAGED,
        detail="'a/1' version v: other bytes",
        parked_at=datetime.now(UTC),
        evidence="archive 1, member 0",
    )
    cloud.parking_lot.park(damaged)
    retried = run("parked", "--retry", damaged.id)
    assert retried.exit_code == 1
    assert "stays: archive damaged cannot be tried again" in retried.stdout
    assert "look at the archive's versions" in retried.stdout


def test_what_was_parked_anew_meanwhile_is_not_taken_off_the_list(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = cloud.upload("b", b"denied twice")
    park(cloud, version)
    announced = clients.sqs().send_message
    monkeypatch.setattr(
        "neve_cli.stack.Stack.sqs",
        type("Sender", (), {"send_message": staticmethod(lambda **words: (announced(**words), park(cloud, version)))}),
    )
    assert run("parked", "--retry", "--all").exit_code == 0
    assert len(read("parked")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--retry",),
        ("--retry", "--all", "x"),
        ("--retry", "--forget", "--all"),
        ("--all",),
        ("--dry-run",),
    ],
)
def test_parked_wants_to_know_exactly_what_to_change(words: tuple[str, ...]) -> None:
    assert run("parked", *words).exit_code == 2


def test_parked_says_which_id_is_not_there(cloud: MotoCloud) -> None:
    unknown = run("parked", "--retry", "nothing")
    assert unknown.exit_code == 1
    assert "nothing is parked as nothing" in unknown.stderr


# -- what can be wrong on the way to AWS -----------------------------------------------------------------------------


def test_no_stack_names_stack_region_and_ways_out(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run("status", "--stack", "other")
    assert missing.exit_code == 3
    for word in ("other-storage", "us-east-1", "AWS_REGION", "cdk deploy", "neve local up", "--stack"):
        assert word in missing.stderr
    monkeypatch.setenv("NEVE_STACK", "another")
    assert "another-storage" in run("ls").stderr


def test_the_stack_is_found_by_another_name(cloud: MotoCloud, deployed: Deployed) -> None:
    deployed.outputs["busy-storage"] = {}
    assert "no outputs yet" in run("ls", "--stack", "busy").stderr


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without anything about AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "NEVE_STACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_no_region_is_told_with_its_remedy(nothing_set: pytest.MonkeyPatch) -> None:
    told = run("ls")
    assert told.exit_code == 3
    assert "AWS_REGION=" in told.stderr


def test_no_credentials_are_told_with_their_remedy(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("AWS_REGION", "us-east-1")
    told = run("ls")
    assert told.exit_code == 3
    assert "credentials" in told.stderr
    assert "neve local env" in told.stderr


def test_an_unknown_profile_is_told_with_its_remedy(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("AWS_PROFILE", "nobody")
    told = run("ls")
    assert told.exit_code == 3
    assert "nobody" in told.stderr
    assert "list-profiles" in told.stderr


def test_a_local_cloud_that_does_not_run_is_told_with_its_remedy(nothing_set: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        nothing_set.setenv(name, "test")
    nothing_set.setenv("AWS_REGION", "us-east-1")
    nothing_set.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    told = run("ls")
    assert told.exit_code == 3
    assert "neve local up" in told.stderr


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("AccessDenied", "have the action granted"),
        ("ExpiredToken", "aws sso login"),
        ("ResourceNotFoundException", "Deploy it again"),
        ("AWS.SimpleQueueService.NonExistentQueue", "Deploy it again"),
        ("InternalError", "Try again later"),
    ],
)
def test_refusals_of_aws_are_told_with_their_remedy(code: str, word: str) -> None:
    told = remedy(ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeStacks"))
    assert told is not None
    assert word in told
    assert "DescribeStacks" in told or "credentials" in told


def test_a_mistake_of_our_own_is_not_explained_away() -> None:
    assert remedy(KeyError("x")) is None


# -- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain/key é 日本 🙂", "plain/key é 日本 🙂"),
        ("back\\slash", "back\\\\slash"),
        ("\r\n\t\x00\x7f\x9b", "\\r\\n\\t\\x00\\x7f\\x9b"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_text_is_shown_so_that_it_can_be_told_apart(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "$0.0000"), (0.0000614, "$0.000061"), (0.01, "$0.0100"), (99.5, "$99.5000"), (1234.5, "$1,234.50")],
)
def test_small_prices_are_shown_to_where_they_begin(value: float, shown: str) -> None:
    assert usd(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 minutes"),
        (1, "1 minute"),
        (300, "5 minutes"),
        (5_340, "89 minutes"),
        (5_400, "1.5 hours"),
        (18_000, "5.0 hours"),
        (43_201, "12.1 hours"),
        (172_800, "2.0 days"),
    ],
)
def test_a_time_to_wait_is_never_told_shorter_than_it_is(seconds: int, shown: str) -> None:
    assert span(timedelta(seconds=seconds)) == shown


def test_help_names_every_command() -> None:
    told = run("--help")
    for name in ("status", "ls", "find", "archives", "restore", "jobs", "cancel", "parked", "local"):
        assert name in told.stdout
    assert run("local", "--help").exit_code == 0
    assert run("nothing").exit_code == 2


# -- where -------------------------------------------------------------------------------------------------------------


def offload(cloud: MotoCloud, key: str, body: bytes) -> None:
    cloud.arrive(cloud.upload(key, body, bucket=UPLOADS))
    cloud.run("uploads")


def seen(document: Any) -> list[str]:
    return [f"{each['place']}: {each['what'].partition(' in ')[0].partition(':')[0]}" for each in document["places"]]


def test_where_finds_a_file_everywhere_on_its_way(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEVE_EDGE_CONFIG", raising=False)
    assert seen(read("where", "a/1")) == ["content: the current version", "archives: 1.1"]
    offload(cloud, "photo", b"first")
    offload(cloud, "photo", b"second")
    found = read("where", "photo")
    assert [each.partition(":")[0] for each in seen(found)] == [
        "pointer", "uploads", "uploads", "content", "content"
    ]  # fmt: skip
    assert all(each["since"] for each in found["places"])
    assert "the current version" in run("where", "photo").stdout


def test_where_knows_what_the_agent_of_this_host_has(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/new.jpg").write_bytes(b"new")
    settings = tmp_path / "edge.toml"
    settings.write_text(
        f'journal = "{tmp_path}/edge.db"\n[[folder]]\npath = "{tmp_path}/files"\nkey_prefix = "photos/"\n'
    )
    monkeypatch.setenv("NEVE_EDGE_CONFIG", str(settings))
    (only,) = read("where", "photos/new.jpg")["places"]
    assert (only["place"], only["what"], only["size_bytes"]) == ("this host", f"{tmp_path}/files/new.jpg", 3)
    assert run("where", "other/new.jpg").exit_code == 1


def test_where_says_nowhere_only_if_every_place_was_looked_at(
    cloud: MotoCloud, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEVE_EDGE_CONFIG", raising=False)
    nowhere = run("where", "none")
    assert nowhere.exit_code == 1
    assert "'none' is nowhere" in nowhere.stderr
    deployed.outputs["neve-storage"]["UploadsBucket"] = "no-such-bucket-of-ours"
    unknown = run("where", "none")
    assert unknown.exit_code == 1
    assert "uploads: not known" in unknown.stderr
    assert "nowhere" not in unknown.stderr
    (told,) = read("where", "none")["unknown"]
    assert told["place"] == "uploads"
