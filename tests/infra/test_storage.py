"""Promises of what holds data: kept, encrypted, closed to the public, reached by TLS only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from neve.domain.events import DRILL_PREFIX
from stacks.functions import ROLE_TAG, ROLE_TAG_VALUE
from tests.infra.templates import Resource, Templates, statements
from tests.infra.test_functions import RESTORE_SETTINGS

HOLDS_DATA = ("AWS::S3::Bucket", "AWS::DynamoDB::Table")


def bucket_policy(templates: Templates, bucket: str) -> list[dict[str, object]]:
    policies = [templates.rendered(policy) for policy in templates.of_kind("AWS::S3::BucketPolicy").values()]
    [policy] = [policy for policy in policies if policy["Bucket"] == bucket]
    return statements(policy["PolicyDocument"])


def test_everything_that_holds_data_outlives_its_stack(templates: Templates) -> None:
    for kind in HOLDS_DATA:
        for name, resource in templates.of_kind(kind).items():
            assert resource.body["DeletionPolicy"] == "Retain", name
            assert resource.body["UpdateReplacePolicy"] == "Retain", name


# By stack, since whatever moves to another one is another thing.
STANDING = {
    "neve-storage": {
        "AWS::S3::Bucket": {"ArchiveBucket", "ContentBucket", "DrillBucket", "UploadsBucket"},
        "AWS::DynamoDB::Table": {
            f"{name}Table" for name in ("Archives", "Audits", "Files", "Outbox", "Parked", "Pointers", "Restores")
        },
        "AWS::SQS::Queue": {"Collect", "Uploads"},
        "AWS::SNS::Topic": {"Alerts", "ThawedTopic"},
    },
    "neve-archive": {"AWS::SQS::Queue": {"Bundles", "Large", "Sweep"}},
    "neve-restore": {
        "AWS::SQS::Queue": {"Extract", "RestoreRequests", "SweepRestores"},
        "AWS::SNS::Topic": {"RestoredTopic"},
    },
    "neve-audit": {"AWS::SQS::Queue": {"Audits", "Drills", "Reconciles", "VerifyAudits"}},
    "neve-offload": {"AWS::SQS::Queue": {"Announcements", "Relay", "Release"}},
}


def test_an_update_replaces_nothing_that_holds_data_or_messages_in_deployments_that_stand(templates: Templates) -> None:
    """CDK makes the logical id from these names: under another name a queue would be a new, empty one.

    What was new in a release is added here by the next one.
    """
    for stack, kinds in STANDING.items():
        for kind, names in kinds.items():
            found = {name for name, resource in templates.of_kind(kind).items() if resource.stack == stack}
            wanted = {f"{name}{end}" for name in names for end in ("Queue", "DeadLetterQueue")}
            assert found >= (wanted if kind == "AWS::SQS::Queue" else names), (stack, kind)


def test_uploads_content_and_archives_are_versioned_and_copies_of_drills_are_not(templates: Templates) -> None:
    buckets = templates.of_kind("AWS::S3::Bucket")
    versioning = {name: bucket.properties.get("VersioningConfiguration") for name, bucket in buckets.items()}
    enabled = {"Status": "Enabled"}
    assert versioning == {
        "UploadsBucket": enabled,
        "ContentBucket": enabled,
        "ArchiveBucket": enabled,
        "DrillBucket": None,
    }


def test_every_bucket_is_encrypted_and_closed_to_the_public(templates: Templates) -> None:
    for name, bucket in templates.of_kind("AWS::S3::Bucket").items():
        properties = bucket.properties
        [rule] = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}, name
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert len(properties["PublicAccessBlockConfiguration"]) == 4, name
        # No ACLs at all: a bucket that took them could still be opened object by object.
        assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}], name
        assert "AccessControl" not in properties, name


def test_every_bucket_refuses_requests_without_tls(templates: Templates) -> None:
    for name in templates.of_kind("AWS::S3::Bucket"):
        assert any(
            statement["Effect"] == "Deny"
            and statement["Principal"] == {"AWS": "*"}
            and statement["Action"] == ["s3:*"]
            and statement["Resource"] == [name, f"{name}/*"]
            and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            for statement in bucket_policy(templates, name)
        ), name


def test_nothing_in_a_bucket_expires_but_what_was_left_unfinished_the_attic_and_copies_of_drills(
    templates: Templates,
) -> None:
    aborted = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}, "Status": "Enabled"}
    copies = {
        "Prefix": DRILL_PREFIX,
        "ExpirationInDays": 7,
        "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
        "Status": "Enabled",
    }
    # S3 takes away the marker of an upload that was let go once nothing is left behind it.
    attic = {
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "ExpiredObjectDeleteMarker": True,
        "Status": "Enabled",
    }
    buckets = templates.of_kind("AWS::S3::Bucket")
    assert {name: bucket.properties["LifecycleConfiguration"]["Rules"] for name, bucket in buckets.items()} == {
        "UploadsBucket": [aborted, attic],
        "ContentBucket": [aborted, copies],
        "ArchiveBucket": [aborted],
        "DrillBucket": [aborted, copies],
    }


def test_nothing_empties_a_bucket_with_its_stack(templates: Templates) -> None:
    kinds = {body["Type"] for document in templates.documents.values() for body in document["Resources"].values()}
    assert not any(kind.startswith("Custom::") for kind in kinds)


def test_every_table_has_backups_protection_and_pays_by_request(templates: Templates) -> None:
    for name, table in templates.of_kind("AWS::DynamoDB::Table").items():
        properties = table.properties
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}, name
        assert properties["DeletionProtectionEnabled"] is True, name
        assert properties["BillingMode"] == "PAY_PER_REQUEST", name
        # DynamoDB encrypts every table; without a specification by its own key, at no charge per request.
        assert "SSESpecification" not in properties, name


def test_the_tables_have_the_keys_that_the_functions_use(templates: Templates) -> None:
    tables = templates.of_kind("AWS::DynamoDB::Table")

    def keys(name: str) -> list[tuple[str, str]]:
        properties = tables[name].properties
        types = {a["AttributeName"]: a["AttributeType"] for a in properties["AttributeDefinitions"]}
        return [(key["AttributeName"], types[key["AttributeName"]]) for key in properties["KeySchema"]]

    assert keys("FilesTable") == [("shard", "N"), ("sort", "B")]
    assert keys("ArchivesTable") == [("pk", "S"), ("sk", "S")]
    assert keys("RestoresTable") == [("pk", "S"), ("sk", "S")]
    assert keys("AuditsTable") == [("pk", "S"), ("sk", "S")]
    assert keys("ParkedTable") == [("id", "S")]
    assert keys("PointersTable") == [("key", "S")]
    assert keys("OutboxTable") == [("pk", "S"), ("sk", "S")]

    for name in ("ArchivesTable", "RestoresTable", "AuditsTable"):
        [unfinished] = tables[name].properties["GlobalSecondaryIndexes"]
        assert unfinished["IndexName"] == "unfinished"
        assert [key["AttributeName"] for key in unfinished["KeySchema"]] == ["unfinished", "due_at"]
        assert unfinished["Projection"] == {"ProjectionType": "KEYS_ONLY"}


def test_only_archives_restores_and_audits_let_items_expire(templates: Templates) -> None:
    tables = templates.of_kind("AWS::DynamoDB::Table")
    expiring = {name: table.properties.get("TimeToLiveSpecification") for name, table in tables.items()}
    assert expiring == {
        "FilesTable": None,
        "ArchivesTable": {"AttributeName": "expires_at", "Enabled": True},
        "RestoresTable": {"AttributeName": "expires_at", "Enabled": True},
        "AuditsTable": {"AttributeName": "expires_at", "Enabled": True},
        "ParkedTable": None,
        "PointersTable": None,
        "OutboxTable": None,
        "BackfillsTable": None,
    }


@pytest.mark.parametrize(("name", "told"), [("ContentBucket", "CollectQueue"), ("UploadsBucket", "UploadsQueue")])
def test_created_objects_reach_the_queue_of_their_bucket(templates: Templates, name: str, told: str) -> None:
    bucket = templates.of_kind("AWS::S3::Bucket")[name]
    assert templates.rendered(bucket)["NotificationConfiguration"] == {
        "QueueConfigurations": [{"Event": "s3:ObjectCreated:*", "Queue": told}]
    }

    # S3 tries the queue when the bucket is made: its permission has to be there first.
    [sending] = [
        statement
        for statement in statements_before(templates, bucket, "AWS::SQS::QueuePolicy")
        if statement["Effect"] == "Allow"
    ]
    assert sending["Principal"] == {"Service": "s3.amazonaws.com"}
    assert (sending["Action"], sending["Resource"]) == (["sqs:SendMessage"], [told])
    assert sending["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}


@pytest.mark.parametrize(("name", "told"), [("photos", "CollectQueue"), ("uploads", "UploadsQueue")])
def test_a_bucket_that_is_there_already_may_tell_the_queue_and_is_left_as_it_is(
    synthesized: Callable[..., Templates], name: str, told: str
) -> None:
    templates = synthesized(**RESTORE_SETTINGS)
    assert set(templates.of_kind("AWS::S3::Bucket")) == {"ArchiveBucket", "DrillBucket"}
    policies = map(templates.rendered, templates.of_kind("AWS::S3::BucketPolicy").values())
    assert {policy["Bucket"] for policy in policies} == {"ArchiveBucket", "DrillBucket"}
    [sending] = [
        statement
        for policy in map(templates.rendered, templates.of_kind("AWS::SQS::QueuePolicy").values())
        if policy["Queues"] == [told]
        for statement in statements(policy["PolicyDocument"])
        if statement["Effect"] == "Allow"
    ]
    assert sending["Principal"] == {"Service": "s3.amazonaws.com"}
    assert sending["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{name}"},
    }


def test_the_command_is_told_what_the_policy_of_an_existing_content_bucket_has_to_say(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    """The statements that the stack gives a bucket of its own, since nobody else can give them to another's."""
    told = json.loads(synthesized(**RESTORE_SETTINGS).outputs("neve-storage")["ContentBucketStatements"])
    own = json.loads(
        json.dumps(bucket_policy(templates, "ContentBucket")).replace("ContentBucket", "arn:aws:s3:::photos")
    )
    assert statements({"Statement": told}) == [each for each in own if "CloudFront" in each.get("Sid", "")]


def test_a_key_of_kms_is_to_be_used_by_the_functions_and_only_through_s3(
    synthesized: Callable[..., Templates],
) -> None:
    [told] = json.loads(synthesized(**RESTORE_SETTINGS).outputs("neve-storage")["ContentKeyStatements"])
    assert told["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert told["Condition"] == {
        "StringEquals": {
            "kms:CallerAccount": "123456789012",
            "kms:ViaService": "s3.us-east-1.amazonaws.com",
            f"aws:PrincipalTag/{ROLE_TAG}": ROLE_TAG_VALUE,
        }
    }


def test_s3_tells_the_topic_of_thaws_that_an_archive_can_be_read(templates: Templates) -> None:
    archive = templates.of_kind("AWS::S3::Bucket")["ArchiveBucket"]
    assert templates.rendered(archive)["NotificationConfiguration"] == {
        "TopicConfigurations": [
            {
                "Event": "s3:ObjectRestore:Completed",
                "Topic": "ThawedTopic",
                "Filter": {"S3Key": {"Rules": [{"Name": "prefix", "Value": "archives/"}]}},
            }
        ]
    }
    [publishing] = [
        statement
        for statement in statements_before(templates, archive, "AWS::SNS::TopicPolicy")
        if statement["Effect"] == "Allow"
    ]
    assert publishing["Principal"] == {"Service": "s3.amazonaws.com"}
    assert (publishing["Action"], publishing["Resource"]) == (["sns:Publish"], ["ThawedTopic"])
    assert publishing["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def statements_before(templates: Templates, resource: Resource, kind: str) -> list[dict[str, Any]]:
    """The statements of all policies of this kind that have to stand before `resource` is made."""
    resources = templates.documents[resource.stack]["Resources"]
    return [
        statement
        for policy in templates.of_kind(kind).values()
        if any(resources.get(name) is policy.body for name in resource.body["DependsOn"])
        for statement in statements(templates.rendered(policy)["PolicyDocument"])
    ]


def test_nobody_overwrites_an_archive(templates: Templates) -> None:
    [statement] = [s for s in bucket_policy(templates, "ArchiveBucket") if s.get("Sid") == "DenyPutWithoutIfNoneMatch"]
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == {"AWS": "*"}
    assert statement["Action"] == ["s3:PutObject"]
    assert statement["Resource"] == ["ArchiveBucket/*"]
    # Opening an upload and sending its parts create no object; they take no such header and stay allowed.
    assert statement["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }


def test_the_pipeline_can_neither_delete_from_the_archive_bucket_nor_loosen_it(templates: Templates) -> None:
    [statement] = [
        s for s in bucket_policy(templates, "ArchiveBucket") if s.get("Sid") == "DenyPipelineToDeleteOrLoosen"
    ]
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == {"AWS": "*"}
    assert statement["Resource"] == ["ArchiveBucket", "ArchiveBucket/*"]
    assert statement["Condition"] == {"StringEquals": {f"aws:PrincipalTag/{ROLE_TAG}": ROLE_TAG_VALUE}}
    refused = statement["Action"]
    assert isinstance(refused, list)
    assert set(refused) >= {
        "s3:BypassGovernanceRetention",
        "s3:DeleteBucket",
        "s3:DeleteBucketPolicy",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:PutBucketObjectLockConfiguration",
        "s3:PutBucketPolicy",
        "s3:PutBucketVersioning",
        "s3:PutLifecycleConfiguration",
        "s3:PutObjectLegalHold",
        "s3:PutObjectRetention",
    }
