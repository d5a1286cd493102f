"""Promises of the policies for people: who has them can run every command, and do nothing else."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from neve_cli.stack import STACKS
from tests.infra.templates import Templates, statements

READ_ARCHIVES = {"s3:GetObject", "s3:GetObjectVersion"}
READ_ROWS = {"dynamodb:GetItem", "dynamodb:Query"}
LOOK = {"sqs:GetQueueAttributes"}
SEND = {"sqs:SendMessage"}
DESCRIBE = {"cloudformation:DescribeStacks"}
WHERE = "arn:aws:cloudformation:us-east-1:123456789012:stack"

# The beginnings of the names of all queues: CloudFormation takes a stack's name for that of whatever it names.
QUEUES = [
    f"arn:aws:sqs:us-east-1:123456789012:neve-{part}-*"
    for part in ("storage", "archive", "restore", "audit", "offload")
]

GRANTS: dict[str, dict[str, set[str]]] = {
    "NeveObserver": {
        **{f"{WHERE}/neve-{part}/*": DESCRIBE for part in STACKS},
        **dict.fromkeys(QUEUES, LOOK),
        "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:Query"},
        "ArchivesTable": READ_ROWS,
        "ArchivesTable/index/unfinished": {"dynamodb:Query"},
        "RestoresTable": READ_ROWS,
        "AuditsTable": READ_ROWS,
        "BackfillsTable": READ_ROWS,
        "arn:aws:states:us-east-1:123456789012:execution:BackfillStateMachine:*": {"states:DescribeExecution"},
        "ParkedTable": {"dynamodb:Scan"},
        "ArchiveBucket": {"s3:ListBucket"},
        "ArchiveBucket/manifests/*": {"s3:GetObject"},
        "PointersTable": {"dynamodb:GetItem"},
        "OutboxTable": {"dynamodb:Query"},
        "UploadsBucket": {"s3:ListBucketVersions"},
        "ContentBucket": {"s3:ListBucketVersions"},
        "*": {"cloudwatch:GetMetricData"},
    },
    "NeveOperator": {
        "RestoreRequestsQueue": SEND,
        "CollectQueue": SEND,
        "AuditsQueue": SEND,
        "DrillsQueue": SEND,
        "ReconcilesQueue": SEND,
        "UploadsQueue": SEND,
        "ParkedTable": {"dynamodb:PutItem", "dynamodb:DeleteItem"},
        "RestoresTable": {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
        "BackfillsTable": {"dynamodb:PutItem", "dynamodb:UpdateItem"},
        "BackfillStateMachine": {"states:StartExecution"},
        "RestoredTopic": {"sns:Publish"},
        "ArchiveBucket/archives/*": READ_ARCHIVES,
        "ContentBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
        "ContentBucket/*": {"s3:GetObjectVersion"},
        "UploadsBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
        "UploadsBucket/*": {"s3:GetObjectVersion"},
    },
    "NeveRecovery": {
        "FilesTable": {"dynamodb:PutItem", "dynamodb:PartiQLInsert"},
        "ArchivesTable": {"dynamodb:PutItem", "dynamodb:UpdateItem"},
        "PointersTable": {"dynamodb:BatchGetItem", "dynamodb:PutItem"},
        "ArchiveBucket/archives/*": READ_ARCHIVES | {"s3:RestoreObject"},
        "ArchiveBucket/manifests/*": {"s3:PutObject"},
    },
    "NeveEdge": {
        f"{WHERE}/neve-storage/*": DESCRIBE,
        f"{WHERE}/neve-offload/*": DESCRIBE,
        "UploadsBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
        "UploadsBucket/*": {
            *("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
            *("s3:GetObject", "s3:GetObjectVersion"),
        },
        "PointersTable": {"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem"},
        "AnnouncementsQueue": {
            *("sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
            "sqs:GetQueueAttributes",
        },
    },
}

# The quota of IAM for a managed policy, in characters without white space.
LARGEST_POLICY = 6_144


@pytest.mark.parametrize("policy", GRANTS)
def test_a_policy_lets_its_holder_run_the_commands_that_it_is_for_and_do_nothing_else(
    templates: Templates, policy: str
) -> None:
    found = templates.of_kind("AWS::IAM::ManagedPolicy")
    assert set(found) == set(GRANTS)
    granted: dict[str, set[str]] = defaultdict(set)
    for statement in statements(templates.rendered(found[policy])["PolicyDocument"]):
        assert statement["Effect"] == "Allow"
        for resource in statement["Resource"]:
            granted[resource] |= set(statement["Action"])
    assert granted == GRANTS[policy]


def test_an_observer_may_look_at_every_queue_there_is(templates: Templates) -> None:
    looked_at = {pattern.split(":neve-")[1].removesuffix("-*") for pattern in QUEUES}
    assert {queue.stack.removeprefix("neve-") for queue in templates.of_kind("AWS::SQS::Queue").values()} == looked_at
    assert not any("QueueName" in queue.properties for queue in templates.of_kind("AWS::SQS::Queue").values())


def actions(policy: str) -> set[str]:
    return {action for granted in GRANTS[policy].values() for action in granted}


def test_an_observer_changes_nothing_and_reads_no_file() -> None:
    assert all(
        action.split(":")[1].startswith(("Get", "List", "Query", "Scan", "BatchGet", "Describe"))
        for action in actions("NeveObserver")
    )
    assert "ArchiveBucket/archives/*" not in GRANTS["NeveObserver"]
    assert "ContentBucket/*" not in GRANTS["NeveObserver"]


def test_an_operator_can_neither_write_to_a_bucket_nor_delete_from_one_nor_thaw() -> None:
    to_buckets = {action for action in actions("NeveObserver") | actions("NeveOperator") if action.startswith("s3:")}
    assert to_buckets == READ_ARCHIVES | {"s3:ListBucket", "s3:ListBucketVersions"}


def test_a_host_writes_no_pointer_into_a_bucket(templates: Templates) -> None:
    document = templates.rendered(templates.of_kind("AWS::IAM::ManagedPolicy")["NeveEdge"])["PolicyDocument"]
    [writing] = [each for each in statements(document) if "dynamodb:PutItem" in each["Action"]]
    assert writing["Action"] == ["dynamodb:PutItem"]
    # All that a pointer to a host consists of; one into a bucket names a version.
    assert writing["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["key", "place", "since", "url"]}
    }


def test_a_host_can_delete_nothing() -> None:
    assert {action for action in actions("NeveEdge") if "Delete" in action} == {"sqs:DeleteMessage"}


def test_who_rebuilds_the_index_can_delete_nothing() -> None:
    assert not any("Delete" in action for action in actions("NeveRecovery"))


@pytest.mark.parametrize("policy", GRANTS)
def test_a_policy_is_given_to_nobody_yet_and_fits_into_iams_quota(templates: Templates, policy: str) -> None:
    properties = templates.rendered(templates.of_kind("AWS::IAM::ManagedPolicy")[policy])
    assert not {"Groups", "Roles", "Users"} & set(properties)
    text = json.dumps(properties["PolicyDocument"]).replace(" ", "")
    # Names in a template stand for ARNs, of which a queue's with its 80 letters is the longest.
    named = [resource for statement in statements(properties["PolicyDocument"]) for resource in statement["Resource"]]
    assert len(text) + sum(130 - len(resource) for resource in named) <= LARGEST_POLICY
