"""Promises of functions: what each may do, to the action, and that it can read the settings it is given."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from neve.config import (
    BackfillConfig,
    CollectConfig,
    CopyLargeConfig,
    CopyUploadConfig,
    DrillConfig,
    ExtractConfig,
    PlanRestoreConfig,
    ReconcileConfig,
    RelayConfig,
    ReleaseUploadConfig,
    ResolveConfig,
    StartAuditConfig,
    SweepConfig,
    SweepRestoresConfig,
    VerifyAuditConfig,
    WriteArchiveConfig,
    read,
)
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
    "FilesTable": READ_ROWS | {"dynamodb:BatchGetItem", "dynamodb:PartiQLInsert", "dynamodb:PutItem"},
    "ArchivesTable": READ_ROWS | CHANGE_ROWS,
    "ParkedTable": {"dynamodb:PutItem"},
}

READ_ARCHIVES = {"s3:GetObject", "s3:GetObjectVersion"}
PLACE_OBJECTS = {"s3:PutObject", "s3:PutObjectTagging", "s3:GetObject"} | UPLOAD_IN_PARTS
FIND_PLACE = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}

RESTORING = {
    "ArchivesTable": {"dynamodb:GetItem"},
    "RestoresTable": READ_ROWS | CHANGE_ROWS,
    "ArchiveBucket": {"s3:ListBucket"},
    "ArchiveBucket/archives/*": READ_ARCHIVES,
    "RestoredTopic": {"sns:Publish"},
}

SEE_SOURCES = {"s3:GetObjectVersion", "s3:GetObjectVersionTagging"}
LIST_VERSIONS = {"s3:ListBucket", "s3:ListBucketVersions"}

PROVING = {
    "ContentBucket": LIST_VERSIONS,
    "ContentBucket/*": SEE_SOURCES,
    "ArchiveBucket": {"s3:ListBucket"},
    "ParkedTable": {"dynamodb:PutItem"},
    "Alerts": {"sns:Publish"},
}

AUDITING = PROVING | {
    "ArchiveBucket/archives/*": READ_ARCHIVES | {"s3:RestoreObject"},
    "ArchiveBucket/manifests/*": READ_ARCHIVES,
    "RestoresTable": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
}

CLEAN_UP = {"s3:GetObject", "s3:DeleteObjectVersion"}

# Who sends keeps in the outbox what SQS does not take, and asks whether something is there.
SENDING = {"OutboxTable": {"dynamodb:PutItem", "dynamodb:Query"}}

GRANTS: dict[str, dict[str, set[str]]] = {
    "Collect": SENDING
    | {
        "CollectLog": LOG,
        "CollectQueue": CONSUME,
        "ArchivesTable": {"dynamodb:GetItem"} | CHANGE_ROWS,
        "ParkedTable": {"dynamodb:PutItem"},
        "BundlesQueue": {"sqs:SendMessage"},
        "LargeQueue": {"sqs:SendMessage"},
    },
    "WriteArchive": ARCHIVING
    | SENDING
    | {
        "WriteArchiveLog": LOG,
        "BundlesQueue": CONSUME | {"sqs:SendMessage"},
        "CollectQueue": {"sqs:SendMessage"},
    },
    "CopyLarge": ARCHIVING
    | SENDING
    | {
        "CopyLargeLog": LOG,
        "LargeQueue": CONSUME | {"sqs:SendMessage"},
        "CollectQueue": {"sqs:SendMessage"},
        "ArchiveBucket/archives/*": KEEP_ARCHIVES | UPLOAD_IN_PARTS,
    },
    "Sweep": SENDING
    | {
        "SweepLog": LOG,
        "SweepQueue": CONSUME,
        "ArchivesTable/index/unfinished": {"dynamodb:Query"},
        "ArchivesTable": {"dynamodb:GetItem"},
        **{
            queue: {"sqs:SendMessage"}
            for queue in ("BundlesQueue", "LargeQueue", "BackfillBundlesQueue", "BackfillLargeQueue")
        },
    },
    "PlanRestore": RESTORING
    | SENDING
    | {
        "PlanRestoreLog": LOG,
        "RestoreRequestsQueue": CONSUME,
        "ExtractQueue": {"sqs:SendMessage"},
        "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:Query"},
        "ParkedTable": {"dynamodb:PutItem"},
        "RestoresTable": READ_ROWS | CHANGE_ROWS | {"dynamodb:ConditionCheckItem"},
        "ArchiveBucket/archives/*": READ_ARCHIVES | {"s3:RestoreObject"},
    },
    "Extract": RESTORING
    | SENDING
    | {
        "ExtractLog": LOG,
        "ExtractQueue": CONSUME | {"sqs:SendMessage"},
        "RestoreRequestsQueue": {"sqs:SendMessage"},
        "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:PartiQLInsert"},
        "ParkedTable": {"dynamodb:PutItem"},
        "ArchiveBucket/manifests/*": READ_ARCHIVES,
        "ContentBucket": FIND_PLACE,
        "ContentBucket/*": PLACE_OBJECTS,
        "UploadsBucket": FIND_PLACE,
        "UploadsBucket/*": PLACE_OBJECTS,
        "DrillBucket": FIND_PLACE,
        "DrillBucket/.neve/drill/*": PLACE_OBJECTS,
    },
    "SweepRestores": RESTORING
    | SENDING
    | {
        "SweepRestoresLog": LOG,
        "SweepRestoresQueue": CONSUME,
        "RestoreRequestsQueue": {"sqs:SendMessage"},
        "ExtractQueue": {"sqs:SendMessage"},
        "RestoresTable/index/unfinished": {"dynamodb:Query"},
    },
    "StartAudit": AUDITING
    | SENDING
    | {
        "StartAuditLog": LOG,
        "AuditsQueue": CONSUME | {"sqs:SendMessage"},
        "VerifyAuditsQueue": {"sqs:SendMessage"},
        "ArchivesTable": READ_ROWS,
        "AuditsTable": READ_ROWS | CHANGE_ROWS | {"dynamodb:ConditionCheckItem"},
        "AuditsTable/index/unfinished": {"dynamodb:Query"},
    },
    "VerifyAudit": AUDITING
    | SENDING
    | {
        "VerifyAuditLog": LOG,
        "VerifyAuditsQueue": CONSUME | {"sqs:SendMessage"},
        "AuditsQueue": {"sqs:SendMessage"},
        "RestoreRequestsQueue": {"sqs:SendMessage"},
        "BundlesQueue": {"sqs:SendMessage"},
        "LargeQueue": {"sqs:SendMessage"},
        "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:PartiQLInsert"},
        "ArchivesTable": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
        "RestoresTable": {"dynamodb:GetItem", *CHANGE_ROWS},
        "AuditsTable": READ_ROWS | CHANGE_ROWS,
    },
    "Drill": PROVING
    | SENDING
    | {
        "DrillLog": LOG,
        "DrillsQueue": CONSUME,
        "RestoreRequestsQueue": {"sqs:SendMessage"},
        "ArchiveBucket/manifests/*": {"s3:GetObject"},
        "ContentBucket/.neve/drill/*": CLEAN_UP,
        "DrillBucket": LIST_VERSIONS,
        "DrillBucket/.neve/drill/*": CLEAN_UP,
        "FilesTable": {"dynamodb:BatchGetItem"},
        "ArchivesTable": {"dynamodb:Query"},
        "RestoresTable": READ_ROWS,
        "AuditsTable": READ_ROWS | {"dynamodb:PutItem"},
        "AuditsTable/index/unfinished": {"dynamodb:Query"},
    },
    "Reconcile": PROVING
    | SENDING
    | {
        "ReconcileLog": LOG,
        "ReconcilesQueue": CONSUME | {"sqs:SendMessage"},
        "BackfillQueue": {"sqs:SendMessage"},
        "ArchiveBucket/archives/*": READ_ARCHIVES,
        "ArchiveBucket/manifests/*": READ_ARCHIVES,
        "FilesTable": {"dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PartiQLInsert", "dynamodb:PutItem"},
        "ArchivesTable": READ_ROWS,
        "ParkedTable": {"dynamodb:BatchGetItem", "dynamodb:PutItem"},
        "AuditsTable": READ_ROWS | {"dynamodb:PutItem", "dynamodb:UpdateItem"},
        "AuditsTable/index/unfinished": {"dynamodb:Query"},
    },
    "Backfill": {
        "BackfillLog": LOG,
        "ContentBucket": {"s3:ListBucketVersions"},
        "BackfillsTable": READ_ROWS | {"dynamodb:PutItem", "dynamodb:UpdateItem"},
        "BackfillQueue": {"sqs:SendMessage", "sqs:GetQueueAttributes"},
        "BackfillBundlesQueue": {"sqs:GetQueueAttributes"},
        "BackfillLargeQueue": {"sqs:GetQueueAttributes"},
    },
    "CopyUpload": SENDING
    | {
        "CopyUploadLog": LOG,
        "UploadsQueue": CONSUME | {"sqs:SendMessage"},
        "ReleaseQueue": {"sqs:SendMessage"},
        "UploadsBucket": LIST_VERSIONS,
        "UploadsBucket/*": READ_OBJECTS,
        "ContentBucket": LIST_VERSIONS | {"s3:ListBucketMultipartUploads"},
        "ContentBucket/*": READ_OBJECTS | {"s3:PutObject", "s3:PutObjectTagging"} | UPLOAD_IN_PARTS,
        "PointersTable": {"dynamodb:GetItem", "dynamodb:PutItem"},
        "FilesTable": {"dynamodb:BatchGetItem"},
        "ArchivesTable": {"dynamodb:GetItem"},
        "ParkedTable": {"dynamodb:PutItem"},
    },
    "ReleaseUpload": {
        "ReleaseUploadLog": LOG,
        "ReleaseQueue": CONSUME,
        "UploadsBucket": {"s3:ListBucket"},
        "UploadsBucket/*": {"s3:GetObject", "s3:DeleteObject"},
        "ContentBucket": LIST_VERSIONS,
        "ContentBucket/*": {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectVersionTagging"},
        "PointersTable": {"dynamodb:GetItem"},
        "ParkedTable": {"dynamodb:PutItem"},
    },
    "Relay": {
        "RelayLog": LOG,
        "RelayQueue": CONSUME,
        "OutboxTable": {"dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
        "ParkedTable": {"dynamodb:PutItem"},
        **{
            f"{queue}Queue": {"sqs:SendMessage"}
            for queue in (
                *("Uploads", "Release", "Collect", "Bundles", "Large"),
                *("Backfill", "BackfillBundles", "BackfillLarge"),
                *("RestoreRequests", "Extract", "Audits", "VerifyAudits", "Reconciles"),
            )
        },
    },
    "Resolve": {
        "ResolveLog": LOG,
        "UploadsBucket": {"s3:ListBucket"},
        "UploadsBucket/*": {"s3:GetObject"},
        "ContentBucket": {"s3:ListBucket"},
        "ContentBucket/*": {"s3:GetObject"},
        "PointersTable": {"dynamodb:GetItem"},
    },
}

# The functions that a backfill has of its own, which are live ones with other queues.
SAME_CODE = {"CollectBackfill": "Collect", "WriteBackfill": "WriteArchive", "CopyBackfill": "CopyLarge"}
SAME_PLACE = {
    "CollectQueue": "BackfillQueue",
    "BundlesQueue": "BackfillBundlesQueue",
    "LargeQueue": "BackfillLargeQueue",
    **{f"{live}Log": f"{own}Log" for own, live in SAME_CODE.items()},
}
GRANTS |= {
    own: {SAME_PLACE.get(resource, resource): actions for resource, actions in GRANTS[live].items()}
    for own, live in SAME_CODE.items()
}

# As many buckets as there may be, with the longest names.
OTHER_BUCKETS = [f"{'a-very-long-name-of-a-bucket-' * 2}{number:05}" for number in range(19)]
RESTORE_SETTINGS = {
    "content_bucket": "photos",
    "uploads_bucket": "uploads",
    "restore_buckets": ",".join([*OTHER_BUCKETS, "uploads"]),
    "site_urls": "https://www.example.org/media/=files/,https://example.org/",
    "restore_requests_per_s": "7",
    "restore_usd_per_day": "0",
}
DESTINATIONS = " ".join(["photos", "uploads", *OTHER_BUCKETS])

SERVE_SETTINGS = {
    "key_layout": "hashed",
    "release_after_s": "600",
    "upload_url_s": "599",
    "attic_days": "365",
    "private_prefixes": "invoices/,users/secret-",
    "signing": "cloudfront",
    "signed_url_s": "43200",
    "redirect_max_age_s": "0",
    "cdn_urls": "https://img1.example.com,https://img2.example.com",
    "cdn_choice": "random",
    "cdn_certificate": "arn:aws:acm:us-east-1:123456789012:certificate/11111111-2222-3333-4444-555555555555",
    "cdn_key_group": "11111111-2222-3333-4444-555555555555",
    "cdn_key_id": "K2JCJMDEHXQW5F",
    "cdn_key_parameter": "/neve/cdn-key",
    "archived_answer": "restore",
}

PROOF_SETTINGS = {
    "audit_every_h": "2",
    "audit_horizon_days": "90",
    "audit_budget_percent": "40",
    "audit_budget_usd": "7",
    "audit_tier": "standard",
    "audit_source": "stated",
    "audit_repair": "automatic",
    "audit_silent_h": "168",
    "drill_bucket": "rehearsals",
    "reconcile_grace_h": "48",
    "inventory": "s3://reports/neve/daily/",
    "restore_requests_per_s": "7",
}


def functions(templates: Templates) -> dict[str, dict[str, Any]]:
    return {name: templates.rendered(made) for name, made in templates.of_kind("AWS::Lambda::Function").items()}


def role_statements(templates: Templates, role: str) -> list[dict[str, Any]]:
    properties = templates.rendered(templates.of_kind("AWS::IAM::Role")[role])
    assert "ManagedPolicyArns" not in properties, f"{role} has a policy that the stack does not show"
    assert "Policies" not in properties
    # CDK puts into a managed policy what does not fit into the role's own.
    kinds = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
    policies = [templates.rendered(policy) for kind in kinds for policy in templates.of_kind(kind).values()]
    return [s for policy in policies if role in policy.get("Roles", ()) for s in statements(policy["PolicyDocument"])]


def granted(templates: Templates, function: str, effect: str = "Allow") -> dict[str, set[str]]:
    """The actions that a function's role is allowed, or denied, on each resource."""
    found: dict[str, set[str]] = defaultdict(set)
    for statement in role_statements(templates, functions(templates)[function]["Role"]):
        for resource in statement["Resource"] if statement["Effect"] == effect else ():
            found[resource] |= set(statement["Action"])
    return found


@pytest.mark.parametrize("function", GRANTS)
def test_a_function_may_do_what_it_needs_and_nothing_else(templates: Templates, function: str) -> None:
    assert granted(templates, function) == GRANTS[function]


def test_relay_may_send_to_every_queue_that_any_function_may_send_to(templates: Templates) -> None:
    def sends_to(name: str) -> set[str]:
        return {each for each, actions in granted(templates, name).items() if "sqs:SendMessage" in actions}

    assert set().union(*(sends_to(name) for name in functions(templates))) == sends_to("Relay")


def test_extract_may_write_where_the_settings_allow_and_never_to_the_archive_bucket(
    synthesized: Callable[..., Templates],
) -> None:
    templates = synthesized(**RESTORE_SETTINGS)
    others = {name: granted(templates, name) for name in GRANTS if name != "Extract"}
    assert others == {name: on_existing_buckets(grants) for name, grants in GRANTS.items() if name != "Extract"}
    assert granted(templates, "Extract") == on_existing_buckets(GRANTS["Extract"]) | {
        **{f"arn:aws:s3:::{name}": FIND_PLACE for name in OTHER_BUCKETS},
        **{f"arn:aws:s3:::{name}/*": PLACE_OBJECTS for name in OTHER_BUCKETS},
    }
    # The settings may name it by mistake.
    assert granted(templates, "Extract", "Deny") == {
        "ArchiveBucket/*": {"s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"}
    }


def on_existing_buckets(grants: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same with the buckets of RESTORE_SETTINGS instead of the stack's own."""

    def existing(name: str) -> str:
        name = name.replace("UploadsBucket", "arn:aws:s3:::uploads")
        return name.replace("ContentBucket", "arn:aws:s3:::photos")

    return {existing(name): actions for name, actions in grants.items()}


def test_a_second_bucket_of_drills_takes_the_place_of_the_content_bucket(synthesized: Callable[..., Templates]) -> None:
    templates = synthesized(**PROOF_SETTINGS)
    rehearsals = "arn:aws:s3:::rehearsals"
    assert granted(templates, "Extract") == GRANTS["Extract"] | {
        rehearsals: FIND_PLACE,
        f"{rehearsals}/.neve/drill/*": PLACE_OBJECTS,
    }
    own = {name: actions for name, actions in GRANTS["Drill"].items() if name != "ContentBucket/.neve/drill/*"}
    assert granted(templates, "Drill") == own | {
        rehearsals: LIST_VERSIONS,
        f"{rehearsals}/.neve/drill/*": CLEAN_UP,
    }
    made = functions(templates)
    drilling = read(DrillConfig, made["Drill"]["Environment"]["Variables"])
    assert drilling.drill_buckets == "DrillBucket rehearsals"
    planning = read(PlanRestoreConfig, made["PlanRestore"]["Environment"]["Variables"])
    assert planning.destination_buckets == "ContentBucket UploadsBucket DrillBucket rehearsals"


def test_reports_of_s3_inventory_are_read_where_the_setting_says(synthesized: Callable[..., Templates]) -> None:
    templates = synthesized(**PROOF_SETTINGS)
    for name in ("Reconcile", "Backfill"):
        assert granted(templates, name) == GRANTS[name] | {
            "arn:aws:s3:::reports": {"s3:ListBucket"},
            "arn:aws:s3:::reports/neve/daily/*": {"s3:GetObject"},
        }
        assert functions(templates)[name]["Environment"]["Variables"]["NEVE_INVENTORY"] == PROOF_SETTINGS["inventory"]


def test_every_function_has_a_role_of_its_own_that_carries_the_pipelines_tag(templates: Templates) -> None:
    roles = {name: made["Role"] for name, made in functions(templates).items()}
    assert set(roles) == set(GRANTS)
    assert len(set(roles.values())) == len(roles)
    for role in roles.values():
        tags = templates.of_kind("AWS::IAM::Role")[role].properties["Tags"]
        assert {"Key": "neve-role", "Value": "pipeline"} in tags, role


def test_no_role_may_delete_but_copies_of_drills_and_hide_but_uploads_and_no_action_is_a_wildcard(
    templates: Templates,
) -> None:
    deleting: set[tuple[str, str, str]] = set()
    for role in templates.of_kind("AWS::IAM::Role"):
        for statement in role_statements(templates, role):
            for action in statement["Action"]:
                assert "*" not in action, role
                assert not action.startswith(("s3:PutLifecycle", "s3:PutBucket")), role
                if action.startswith("s3:Delete"):
                    deleting |= {(role, action, resource) for resource in statement["Resource"]}
            assert "*" not in statement["Resource"], role
    assert deleting == {
        ("DrillRole", "s3:DeleteObjectVersion", f"{bucket}/.neve/drill/*")
        for bucket in ("ContentBucket", "DrillBucket")
    } | {
        # Without a version id it leaves a marker, and the upload as a noncurrent version.
        ("ReleaseUploadRole", "s3:DeleteObject", "UploadsBucket/*")
    }


@pytest.mark.parametrize("settings", [{}, RESTORE_SETTINGS], ids=["own bucket", "existing bucket"])
def test_no_role_may_take_a_version_of_an_upload_or_a_file_away(
    synthesized: Callable[..., Templates], settings: dict[str, str]
) -> None:
    """What the pipeline hides or replaces stays as a noncurrent version, whatever its code does."""
    templates = synthesized(**settings)
    for role in templates.of_kind("AWS::IAM::Role"):
        for statement in role_statements(templates, role):
            if "s3:DeleteObjectVersion" in statement["Action"]:
                assert all("/.neve/drill/" in resource for resource in statement["Resource"]), role


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

    collecting = CollectConfig(
        lane="live",
        content_bucket="ContentBucket",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        collect_queue_url="CollectQueue",
        bundles_queue_url="BundlesQueue",
        large_queue_url="LargeQueue",
        target_bytes=2_621_440,
        max_members=7,
        max_age_s=30,
    )
    writing = WriteArchiveConfig(
        content_bucket="ContentBucket",
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        bundles_queue_url="BundlesQueue",
        collect_queue_url="CollectQueue",
        storage_class="DEEP_ARCHIVE",
        fetch_threads=32,
    )
    copying = CopyLargeConfig(
        content_bucket="ContentBucket",
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        collect_queue_url="CollectQueue",
        large_queue_url="LargeQueue",
        storage_class="DEEP_ARCHIVE",
    )
    assert read(BackfillConfig, variables("Backfill")) == BackfillConfig(
        content_bucket="ContentBucket",
        backfills_table="BackfillsTable",
        inventory="",
        backfill_queue_url="BackfillQueue",
        backfill_bundles_queue_url="BackfillBundlesQueue",
        backfill_large_queue_url="BackfillLargeQueue",
    )
    assert read(CollectConfig, variables("Collect")) == collecting
    assert read(WriteArchiveConfig, variables("WriteArchive")) == writing
    assert read(CopyLargeConfig, variables("CopyLarge")) == copying
    collect, bundles, large = "BackfillQueue", "BackfillBundlesQueue", "BackfillLargeQueue"
    assert read(CollectConfig, variables("CollectBackfill")) == replace(
        collecting, lane="backfill", collect_queue_url=collect, bundles_queue_url=bundles, large_queue_url=large
    )
    assert read(WriteArchiveConfig, variables("WriteBackfill")) == replace(
        writing, collect_queue_url=collect, bundles_queue_url=bundles
    )
    assert read(CopyLargeConfig, variables("CopyBackfill")) == replace(
        copying, collect_queue_url=collect, large_queue_url=large
    )
    assert read(SweepConfig, variables("Sweep")) == SweepConfig(
        outbox_table="OutboxTable",
        archives_table="ArchivesTable",
        bundles_queue_url="BundlesQueue",
        large_queue_url="LargeQueue",
        backfill_bundles_queue_url=bundles,
        backfill_large_queue_url=large,
        sweep_queue_url="SweepQueue",
    )
    assert read(PlanRestoreConfig, variables("PlanRestore")) == plan_restore_config(
        destination_buckets="ContentBucket UploadsBucket DrillBucket", requests_per_s=50, usd_per_day=100
    )
    assert read(ExtractConfig, variables("Extract")) == ExtractConfig(
        content_bucket="ContentBucket",
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        restores_table="RestoresTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        requests_queue_url="RestoreRequestsQueue",
        extract_queue_url="ExtractQueue",
        restored_topic="RestoredTopic",
        threads=16,
    )
    assert read(SweepRestoresConfig, variables("SweepRestores")) == SweepRestoresConfig(
        archive_bucket="ArchiveBucket",
        archives_table="ArchivesTable",
        restores_table="RestoresTable",
        outbox_table="OutboxTable",
        requests_queue_url="RestoreRequestsQueue",
        extract_queue_url="ExtractQueue",
        sweep_queue_url="SweepRestoresQueue",
        restored_topic="RestoredTopic",
    )


def test_the_functions_of_proof_can_read_the_settings_that_they_are_given(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    def variables(of: Templates, name: str) -> dict[str, str]:
        values: dict[str, str] = functions(of)[name]["Environment"]["Variables"]
        return values

    common = {
        "content_bucket": "ContentBucket",
        "archive_bucket": "ArchiveBucket",
        "archives_table": "ArchivesTable",
        "audits_table": "AuditsTable",
        "parked_table": "ParkedTable",
        "outbox_table": "OutboxTable",
        "alerts_topic": "Alerts",
    }
    started = StartAuditConfig(
        **common,
        restores_table="RestoresTable",
        audits_queue_url="AuditsQueue",
        verify_queue_url="VerifyAuditsQueue",
        tier="bulk",
        source="read",
        horizon_days=365,
        budget_percent=10,
        budget_usd=100,
        requests_per_s=20,
        threads=16,
    )
    verified = VerifyAuditConfig(
        **common,
        files_table="FilesTable",
        restores_table="RestoresTable",
        requests_queue_url="RestoreRequestsQueue",
        audits_queue_url="AuditsQueue",
        verify_queue_url="VerifyAuditsQueue",
        bundles_queue_url="BundlesQueue",
        large_queue_url="LargeQueue",
        repair="by-hand",
        requests_per_s=10,
        threads=16,
    )
    assert read(StartAuditConfig, variables(templates, "StartAudit")) == started
    assert read(VerifyAuditConfig, variables(templates, "VerifyAudit")) == verified
    assert read(DrillConfig, variables(templates, "Drill")) == DrillConfig(
        **common,
        files_table="FilesTable",
        restores_table="RestoresTable",
        requests_queue_url="RestoreRequestsQueue",
        drills_queue_url="DrillsQueue",
        drill_buckets="DrillBucket ContentBucket",
    )
    reconciled = ReconcileConfig(
        **common,
        files_table="FilesTable",
        collect_queue_url="BackfillQueue",
        reconciles_queue_url="ReconcilesQueue",
        inventory="",
        grace_h=24,
        threads=16,
    )
    assert read(ReconcileConfig, variables(templates, "Reconcile")) == reconciled

    other = synthesized(**PROOF_SETTINGS)
    assert read(StartAuditConfig, variables(other, "StartAudit")) == replace(
        started,
        tier="standard",
        source="stated",
        horizon_days=90,
        budget_percent=40,
        budget_usd=7,
        requests_per_s=1,
    )
    assert read(VerifyAuditConfig, variables(other, "VerifyAudit")) == replace(
        verified, repair="automatic", requests_per_s=1
    )
    assert read(ReconcileConfig, variables(other, "Reconcile")) == replace(
        reconciled, inventory="s3://reports/neve/daily/", grace_h=48
    )


def test_the_functions_of_offloading_and_serving_can_read_the_settings_that_they_are_given(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    def variables(of: Templates, name: str) -> dict[str, str]:
        values: dict[str, str] = functions(of)[name]["Environment"]["Variables"]
        return values

    common = {
        "uploads_bucket": "UploadsBucket",
        "content_bucket": "ContentBucket",
        "pointers_table": "PointersTable",
    }
    copying = CopyUploadConfig(
        **common,
        files_table="FilesTable",
        archives_table="ArchivesTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        uploads_queue_url="UploadsQueue",
        release_queue_url="ReleaseQueue",
        key_layout="as-is",
        release_after_s=900,
    )
    resolving = ResolveConfig(
        **common,
        files_table="FilesTable",
        archives_table="ArchivesTable",
        restores_table="RestoresTable",
        outbox_table="OutboxTable",
        requests_queue_url="RestoreRequestsQueue",
        key_layout="as-is",
        cdn_urls="https://Content",
        cdn_choice="by-key",
        private_prefixes="",
        signing="s3",
        cdn_key_id="",
        cdn_key_parameter="",
        archived_answer="not-found",
        redirect_max_age_s=300,
        upload_url_s=60,
        signed_url_s=300,
    )
    assert read(CopyUploadConfig, variables(templates, "CopyUpload")) == copying
    assert read(ReleaseUploadConfig, variables(templates, "ReleaseUpload")) == ReleaseUploadConfig(
        **common, parked_table="ParkedTable", release_queue_url="ReleaseQueue"
    )
    assert read(RelayConfig, variables(templates, "Relay")) == RelayConfig(
        outbox_table="OutboxTable", parked_table="ParkedTable", relay_queue_url="RelayQueue"
    )
    assert read(ResolveConfig, variables(templates, "Resolve")) == resolving

    other = synthesized(**SERVE_SETTINGS)
    assert read(CopyUploadConfig, variables(other, "CopyUpload")) == replace(
        copying, key_layout="hashed", release_after_s=600
    )
    assert read(ResolveConfig, variables(other, "Resolve")) == replace(
        resolving,
        key_layout="hashed",
        cdn_urls="https://img1.example.com https://img2.example.com",
        cdn_choice="random",
        private_prefixes="invoices/,users/secret-",
        signing="cloudfront",
        cdn_key_id="K2JCJMDEHXQW5F",
        cdn_key_parameter="/neve/cdn-key",
        archived_answer="restore",
        redirect_max_age_s=0,
        upload_url_s=599,
        signed_url_s=43_200,
    )


def test_resolve_may_look_into_the_archive_and_sign_only_where_the_settings_say_so(
    synthesized: Callable[..., Templates],
) -> None:
    other = granted(synthesized(**SERVE_SETTINGS), "Resolve")
    assert other == GRANTS["Resolve"] | SENDING | {
        "FilesTable": {"dynamodb:Query"},
        "ArchivesTable": {"dynamodb:GetItem"},
        "RestoresTable": {"dynamodb:GetItem", "dynamodb:PutItem"},
        "RestoreRequestsQueue": {"sqs:SendMessage"},
        "arn:aws:ssm:us-east-1:123456789012:parameter/neve/cdn-key": {"ssm:GetParameter"},
    }


def plan_restore_config(*, destination_buckets: str, requests_per_s: int, usd_per_day: int) -> PlanRestoreConfig:
    return PlanRestoreConfig(
        archive_bucket="ArchiveBucket",
        files_table="FilesTable",
        archives_table="ArchivesTable",
        restores_table="RestoresTable",
        parked_table="ParkedTable",
        outbox_table="OutboxTable",
        requests_queue_url="RestoreRequestsQueue",
        extract_queue_url="ExtractQueue",
        restored_topic="RestoredTopic",
        destination_buckets=destination_buckets,
        requests_per_s=requests_per_s,
        usd_per_day=usd_per_day,
    )


def test_planning_knows_the_destinations_the_cap_and_its_share_of_the_pace(
    synthesized: Callable[..., Templates],
) -> None:
    templates = synthesized(**RESTORE_SETTINGS)
    [planning] = [m for m in templates.of_kind("AWS::Lambda::EventSourceMapping").values() if "PlanRestore" in m.name]
    assert planning.properties["ScalingConfig"]["MaximumConcurrency"] == 2
    variables = functions(templates)["PlanRestore"]["Environment"]["Variables"]
    assert read(PlanRestoreConfig, variables) == plan_restore_config(
        destination_buckets=f"{DESTINATIONS} DrillBucket", requests_per_s=3, usd_per_day=0
    )


def test_as_many_destinations_as_may_be_fit_into_the_quotas_of_iam_and_lambda(
    synthesized: Callable[..., Templates],
) -> None:
    templates = synthesized(**RESTORE_SETTINGS)
    # Names in a template stand for names, ARNs and URLs of this length at most.
    longest = 150
    variables = functions(templates)["PlanRestore"]["Environment"]["Variables"]
    assert sum(len(name) + len(value) + longest for name, value in variables.items()) <= 4_096
    found = role_statements(templates, functions(templates)["Extract"]["Role"])
    references = sum(not resource.startswith("arn:") for each in found for resource in each["Resource"])
    assert len(json.dumps(found).replace(" ", "")) + longest * references <= 10_240


def test_metrics_and_log_lines_carry_the_functions_name(templates: Templates) -> None:
    for name, made in functions(templates).items():
        variables = made["Environment"]["Variables"]
        # What archives a backfill's files counts as what archives new ones: the same metrics, the same alarms.
        assert variables["POWERTOOLS_SERVICE_NAME"] == SAME_CODE.get(name, name)
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "neve"


def test_every_function_logs_into_a_group_that_forgets(templates: Templates) -> None:
    groups = templates.of_kind("AWS::Logs::LogGroup")
    for name, made in functions(templates).items():
        assert groups[made["LoggingConfig"]["LogGroup"]].properties["RetentionInDays"] == 90, name


def test_what_is_sent_again_on_purpose_is_not_stopped_as_a_loop(templates: Templates) -> None:
    """CopyLarge, CopyUpload, Extract, StartAudit and Reconcile send themselves their next message; WriteArchive and
    CopyLarge send files to Collect again; PlanRestore and Extract, StartAudit and VerifyAudit send archives to each
    other."""
    assert {name: made.get("RecursiveLoop") for name, made in functions(templates).items()} == {
        "Collect": "Allow",
        "WriteArchive": "Allow",
        "CopyLarge": "Allow",
        "Sweep": None,
        "PlanRestore": "Allow",
        "Extract": "Allow",
        "SweepRestores": None,
        "StartAudit": "Allow",
        "VerifyAudit": "Allow",
        "Drill": None,
        "Reconcile": "Allow",
        "CopyUpload": "Allow",
        "ReleaseUpload": None,
        "Relay": None,
        "Resolve": None,
        "Backfill": None,
        "CollectBackfill": "Allow",
        "WriteBackfill": "Allow",
        "CopyBackfill": "Allow",
    }
