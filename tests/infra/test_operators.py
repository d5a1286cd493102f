"""Promises of NeveOperator: who has it can run every command, and do nothing else."""

from __future__ import annotations

import json
from collections import defaultdict

from tests.infra.templates import Templates, statements

READ_ARCHIVES = {"s3:GetObject", "s3:GetObjectVersion"}
LOOK = {"sqs:GetQueueAttributes"}
DESCRIBE = {"cloudformation:DescribeStacks"}
STACKS = "arn:aws:cloudformation:us-east-1:123456789012:stack"

QUEUES = ("Collect", "Bundles", "Large", "Sweep", "RestoreRequests", "Extract", "SweepRestores")

GRANTS: dict[str, set[str]] = {
    **{f"{STACKS}/neve-{part}/*": DESCRIBE for part in ("storage", "archive", "restore")},
    **{f"{queue}Queue": LOOK for queue in QUEUES},
    **{f"{queue}DeadLetterQueue": LOOK for queue in QUEUES},
    "RestoreRequestsQueue": LOOK | {"sqs:SendMessage"},
    "CollectQueue": LOOK | {"sqs:SendMessage"},
    "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:Query"},
    "ArchivesTable": {"dynamodb:GetItem", "dynamodb:Query"},
    "ArchivesTable/index/unfinished": {"dynamodb:Query"},
    "ParkedTable": {"dynamodb:Scan", "dynamodb:PutItem", "dynamodb:DeleteItem"},
    "RestoresTable": {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
    },
    "RestoredTopic": {"sns:Publish"},
    "ArchiveBucket": {"s3:ListBucket"},
    "ArchiveBucket/archives/*": READ_ARCHIVES,
    "ArchiveBucket/manifests/*": READ_ARCHIVES,
    "ContentBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
    "ContentBucket/*": {"s3:GetObjectVersion"},
}

# The quota of IAM for a managed policy, in characters without white space.
LARGEST_POLICY = 6_144


def test_an_operator_may_run_every_command_and_do_nothing_else(templates: Templates) -> None:
    found = templates.of_kind("AWS::IAM::ManagedPolicy")
    assert set(found) == {"NeveOperator"}
    granted: dict[str, set[str]] = defaultdict(set)
    for statement in statements(templates.rendered(found["NeveOperator"])["PolicyDocument"]):
        assert statement["Effect"] == "Allow"
        for resource in statement["Resource"]:
            granted[resource] |= set(statement["Action"])
    assert granted == GRANTS


def test_an_operator_can_neither_write_to_a_bucket_nor_delete_from_one_nor_thaw() -> None:
    to_buckets = {action for actions in GRANTS.values() for action in actions if action.startswith("s3:")}
    assert to_buckets == READ_ARCHIVES | {"s3:ListBucket", "s3:ListBucketVersions"}


def test_the_policy_is_given_to_nobody_yet_and_fits_into_iams_quota(templates: Templates) -> None:
    properties = templates.rendered(templates.of_kind("AWS::IAM::ManagedPolicy")["NeveOperator"])
    assert not {"Groups", "Roles", "Users"} & set(properties)
    text = json.dumps(properties["PolicyDocument"]).replace(" ", "")
    # Names in a template stand for ARNs, of which a queue's with its 80 letters is the longest.
    named = [resource for statement in statements(properties["PolicyDocument"]) for resource in statement["Resource"]]
    assert len(text) + sum(130 - len(resource) for resource in named) <= LARGEST_POLICY
