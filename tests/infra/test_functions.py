"""Promises of functions: what each may do, to the action, and that it can read the settings it is given."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from neve.config import CollectConfig, CopyLargeConfig, SweepConfig, WriteArchiveConfig, read
from stacks.packing import SOURCE
from tests.infra.templates import Templates, statements

LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}
# What an event source mapping needs of its queue. The local cloud reads queues without asking for any of it.
CONSUME = {
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueUrl",
}
READ_OBJECTS = {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:GetObjectVersionTagging"}
READ_ROWS = {"dynamodb:GetItem", "dynamodb:Query"}
CHANGE_ROWS = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"}
KEEP_ARCHIVES = {"s3:PutObject", "s3:GetObject", "s3:GetObjectVersion"}
UPLOAD_IN_PARTS = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}

ARCHIVING = {
    "ContentBucket/*": READ_OBJECTS,
    "ContentBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
    "ArchiveBucket": {"s3:ListBucket"},
    "ArchiveBucket/archives/*": KEEP_ARCHIVES,
    "ArchiveBucket/manifests/*": KEEP_ARCHIVES,
    "FilesTable": READ_ROWS | {"dynamodb:BatchGetItem", "dynamodb:PartiQLInsert"},
    "ArchivesTable": READ_ROWS | CHANGE_ROWS,
    "ParkedTable": {"dynamodb:PutItem"},
}

GRANTS: dict[str, dict[str, set[str]]] = {
    "Collect": {
        "CollectLog": LOG,
        "CollectQueue": CONSUME,
        "ArchivesTable": {"dynamodb:GetItem"} | CHANGE_ROWS,
        "ParkedTable": {"dynamodb:PutItem"},
        "BundlesQueue": {"sqs:SendMessage"},
        "LargeQueue": {"sqs:SendMessage"},
    },
    "WriteArchive": ARCHIVING
    | {
        "WriteArchiveLog": LOG,
        "BundlesQueue": CONSUME | {"sqs:SendMessage"},
        "CollectQueue": {"sqs:SendMessage"},
    },
    "CopyLarge": ARCHIVING
    | {
        "CopyLargeLog": LOG,
        "LargeQueue": CONSUME | {"sqs:SendMessage"},
        "CollectQueue": {"sqs:SendMessage"},
        "ArchiveBucket/archives/*": KEEP_ARCHIVES | UPLOAD_IN_PARTS,
    },
    "Sweep": {
        "SweepLog": LOG,
        "SweepQueue": CONSUME,
        "ArchivesTable/index/unfinished": {"dynamodb:Query"},
        "ArchivesTable": {"dynamodb:GetItem"},
        "BundlesQueue": {"sqs:SendMessage"},
        "LargeQueue": {"sqs:SendMessage"},
    },
}


def functions(templates: Templates) -> dict[str, dict[str, Any]]:
    return {name: templates.rendered(made) for name, made in templates.of_kind("AWS::Lambda::Function").items()}


def role_statements(templates: Templates, role: str) -> list[dict[str, Any]]:
    properties = templates.rendered(templates.of_kind("AWS::IAM::Role")[role])
    assert "ManagedPolicyArns" not in properties, f"{role} has a policy that the stack does not show"
    assert "Policies" not in properties
    policies = map(templates.rendered, templates.of_kind("AWS::IAM::Policy").values())
    return [s for policy in policies if role in policy["Roles"] for s in statements(policy["PolicyDocument"])]


@pytest.mark.parametrize("function", GRANTS)
def test_a_function_may_do_what_it_needs_and_nothing_else(templates: Templates, function: str) -> None:
    granted: dict[str, set[str]] = defaultdict(set)
    for statement in role_statements(templates, functions(templates)[function]["Role"]):
        assert statement["Effect"] == "Allow"
        for resource in statement["Resource"]:
            granted[resource] |= set(statement["Action"])
    assert granted == GRANTS[function]


def test_every_function_has_a_role_of_its_own_that_carries_the_pipelines_tag(templates: Templates) -> None:
    roles = {name: made["Role"] for name, made in functions(templates).items()}
    assert set(roles) == set(GRANTS)
    assert len(set(roles.values())) == len(roles)
    for role in roles.values():
        tags = templates.of_kind("AWS::IAM::Role")[role].properties["Tags"]
        assert {"Key": "neve-role", "Value": "pipeline"} in tags, role


def test_no_role_may_delete_objects_and_no_action_is_a_wildcard(templates: Templates) -> None:
    for role in templates.of_kind("AWS::IAM::Role"):
        for statement in role_statements(templates, role):
            for action in statement["Action"]:
                assert "*" not in action, role
                assert not action.startswith(("s3:Delete", "s3:PutLifecycle", "s3:PutBucket")), role
            assert "*" not in statement["Resource"], role


def test_functions_run_on_python_3_13_and_arm64(templates: Templates) -> None:
    for name, made in functions(templates).items():
        assert (made["Runtime"], made["Architectures"]) == ("python3.13", ["arm64"]), name


def test_all_functions_share_one_asset(templates: Templates) -> None:
    assert len({made["Code"]["S3Key"] for made in functions(templates).values()}) == 1


def test_the_handler_that_a_stack_names_exists(templates: Templates) -> None:
    for name, made in functions(templates).items():
        module, function = made["Handler"].split(".")
        tree = ast.parse((SOURCE / f"{module}.py").read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in defined, f"{name} has no {made['Handler']}"


def test_a_function_can_read_the_settings_that_it_is_given(synthesized: Callable[..., Templates]) -> None:
    made = functions(synthesized(target_mib="2.5", storage_class="DEEP_ARCHIVE", max_age_s="30", max_members="7"))

    def variables(name: str) -> dict[str, str]:
        values: dict[str, str] = made[name]["Environment"]["Variables"]
        return values

    assert read(CollectConfig, variables("Collect")) == CollectConfig(
        content_bucket="ContentBucket",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        collect_queue_url="CollectQueue",
        bundles_queue_url="BundlesQueue",
        large_queue_url="LargeQueue",
        target_bytes=2_621_440,
        max_members=7,
        max_age_s=30,
    )
    assert read(WriteArchiveConfig, variables("WriteArchive")) == WriteArchiveConfig(
        content_bucket="ContentBucket",
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        bundles_queue_url="BundlesQueue",
        collect_queue_url="CollectQueue",
        storage_class="DEEP_ARCHIVE",
        fetch_threads=32,
    )
    assert read(CopyLargeConfig, variables("CopyLarge")) == CopyLargeConfig(
        content_bucket="ContentBucket",
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        collect_queue_url="CollectQueue",
        large_queue_url="LargeQueue",
        storage_class="DEEP_ARCHIVE",
    )
    assert read(SweepConfig, variables("Sweep")) == SweepConfig(
        archives_table="ArchivesTable",
        bundles_queue_url="BundlesQueue",
        large_queue_url="LargeQueue",
        sweep_queue_url="SweepQueue",
    )


def test_metrics_and_log_lines_carry_the_functions_name(templates: Templates) -> None:
    for name, made in functions(templates).items():
        variables = made["Environment"]["Variables"]
        assert variables["POWERTOOLS_SERVICE_NAME"] == name
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "neve"


def test_every_function_logs_into_a_group_that_forgets(templates: Templates) -> None:
    groups = templates.of_kind("AWS::Logs::LogGroup")
    for name, made in functions(templates).items():
        assert groups[made["LoggingConfig"]["LogGroup"]].properties["RetentionInDays"] == 90, name


def test_what_is_copied_on_or_collected_again_is_not_stopped_as_a_loop(templates: Templates) -> None:
    """CopyLarge sends itself its next message; WriteArchive and CopyLarge send files to Collect again."""
    assert {name: made.get("RecursiveLoop") for name, made in functions(templates).items()} == {
        "Collect": "Allow",
        "WriteArchive": "Allow",
        "CopyLarge": "Allow",
        "Sweep": None,
    }
