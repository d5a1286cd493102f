"""A bucket that was there before neve keeps everything that it has, whatever neve adds and takes away."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from neve.domain.attachment import (
    Bucket,
    Plan,
    attaching_content,
    attaching_uploads,
    detaching_content,
    detaching_uploads,
    same_lifecycle,
    same_notifications,
)

QUEUE = "arn:aws:sqs:us-east-1:111122223333:neve-uploads"
OURS = {"Id": "neve-uploads", "QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}
THUMBNAILS = {
    "Id": "thumbnails",
    "LambdaFunctionArn": "arn:aws:lambda:us-east-1:111122223333:function:thumbnails",
    "Events": ["s3:ObjectCreated:Put"],
    "Filter": {"Key": {"FilterRules": [{"Name": "Prefix", "Value": "images/"}]}},
}
REMOVALS = {
    "Id": "removals",
    "TopicArn": "arn:aws:sns:us-east-1:111122223333:removed",
    "Events": ["s3:ObjectRemoved:*"],
}
LOST = {
    "Id": "lost",
    "QueueArn": "arn:aws:sqs:us-east-1:111122223333:lost",
    "Events": ["s3:ReducedRedundancyLostObject"],
}
THEIRS = {"TopicConfigurations": [REMOVALS], "QueueConfigurations": [LOST], "EventBridgeConfiguration": {}}
ATTIC = {
    "ID": "neve-attic",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    "Expiration": {"ExpiredObjectDeleteMarker": True},
}
ABORTING = {
    "ID": "abort",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}


def bucket(versioning: str = "Enabled", notifications: Any = None, rules: Any = None, **lifecycle: Any) -> Bucket:
    kept = {"Rules": rules, **lifecycle} if rules is not None else {}
    return Bucket(name="b", versioning=versioning, notifications=notifications or {}, lifecycle=kept)


def attached(before: Bucket, days: int = 30, content_versioning: str = "Enabled") -> Plan:
    return attaching_uploads(
        before,
        name="neve",
        queue_arn=QUEUE,
        attic_days=days,
        content_bucket="c",
        content_versioning=content_versioning,
    )


def after(before: Bucket, plan: Plan) -> Bucket:
    return replace(
        before,
        notifications=before.notifications if plan.notifications is None else plan.notifications,
        lifecycle=before.lifecycle if plan.lifecycle is None else plan.lifecycle,
    )


def test_a_bucket_without_anything_gets_two_rules() -> None:
    plan = attached(bucket())
    assert plan.notifications == {"QueueConfigurations": [OURS]}
    assert plan.lifecycle == {"Rules": [ATTIC]}
    assert len(plan.changes) == 2
    assert "that are there today" in plan.cautions[0]


def test_what_is_there_stays_and_is_what_is_left_in_the_end() -> None:
    """PITFALLS 22."""
    before = bucket(
        notifications=THEIRS, rules=[ABORTING], TransitionDefaultMinimumObjectSize="all_storage_classes_128K"
    )
    plan = attached(before)
    assert plan.notifications == THEIRS | {"QueueConfigurations": [LOST, OURS]}
    assert plan.lifecycle == {**before.lifecycle, "Rules": [ABORTING, ATTIC]}
    there = after(before, plan)
    back = detaching_uploads(there, name="neve")
    assert after(there, back) == before
    assert len(back.changes) == 2


def test_attaching_again_changes_nothing_and_detaching_what_is_not_attached_neither() -> None:
    before = bucket(notifications=THEIRS, rules=[ABORTING])
    assert attached(after(before, attached(before))) == Plan()
    assert detaching_uploads(before, name="neve") == Plan()
    assert detaching_uploads(bucket(), name="neve") == Plan()


def test_another_rule_that_tells_the_queue_of_everything_is_as_good() -> None:
    by_hand = {"QueueConfigurations": [OURS | {"Id": "by hand"}]}
    plan = attached(bucket(notifications=by_hand, rules=[ATTIC]))
    assert plan == Plan()
    assert detaching_uploads(bucket(notifications=by_hand), name="neve").notifications is None


def test_a_queue_that_was_deployed_anew_takes_the_place_of_the_former() -> None:
    plan = attached(bucket(notifications={"QueueConfigurations": [OURS | {"QueueArn": "arn:former"}, LOST]}))
    assert plan.notifications == {"QueueConfigurations": [LOST, OURS]}


def test_other_days_take_the_place_of_the_former() -> None:
    plan = attached(bucket(notifications={"QueueConfigurations": [OURS]}, rules=[ATTIC, ABORTING]), days=60)
    assert plan.notifications is None
    assert plan.lifecycle is not None
    assert plan.lifecycle["Rules"] == [ABORTING, ATTIC | {"NoncurrentVersionExpiration": {"NoncurrentDays": 60}}]


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("LambdaFunctionConfigurations", THUMBNAILS),
        ("TopicConfigurations", REMOVALS | {"Events": ["s3:ObjectRemoved:*", "s3:ObjectCreated:*"]}),
        ("QueueConfigurations", LOST | {"Events": ["s3:ObjectCreated:CompleteMultipartUpload"]}),
        ("QueueConfigurations", OURS | {"Id": "a part", "Filter": THUMBNAILS["Filter"]}),
        ("QueueConfigurations", OURS | {"Id": "a part", "Events": ["s3:ObjectCreated:Put"]}),
    ],
)
def test_a_rule_that_s3_would_call_overlapping_is_named_with_the_remedy(kind: str, rule: Any) -> None:
    plan = attached(bucket(notifications={kind: [rule]}))
    assert (plan.notifications, plan.lifecycle, plan.changes) == (None, None, ())
    [refusal] = plan.refusals
    assert repr(rule["Id"]) in refusal
    assert "EventBridge" in refusal


@pytest.mark.parametrize("versioning", ["", "Suspended"])
def test_without_versions_nothing_is_attached(versioning: str) -> None:
    [refusal] = attached(bucket(versioning)).refusals
    assert "put-bucket-versioning --bucket b " in refusal
    [refusal] = attached(bucket(), content_versioning=versioning).refusals
    assert "put-bucket-versioning --bucket c " in refusal


def test_a_rule_that_ends_the_attic_sooner_is_named() -> None:
    sooner = ATTIC | {"ID": "tidy", "NoncurrentVersionExpiration": {"NoncurrentDays": 7}}
    [refusal] = attached(bucket(rules=[sooner])).refusals
    assert "'tidy'" in refusal
    assert attached(bucket(rules=[sooner | {"Status": "Disabled"}])).refusals == ()
    assert attached(bucket(rules=[sooner | {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}])).refusals == ()


def test_a_rule_that_hides_uploads_is_something_to_mind() -> None:
    hiding = {"ID": "hide", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    assert "'hide'" in attached(bucket(rules=[hiding])).cautions[0]


def test_configurations_are_the_same_in_whatever_order_s3_has_them() -> None:
    written = {"LambdaFunctionConfigurations": [THUMBNAILS], "QueueConfigurations": [LOST, OURS]}
    lower = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "images/"}]}}
    read = {"QueueConfigurations": [OURS, LOST], "LambdaFunctionConfigurations": [THUMBNAILS | {"Filter": lower}]}
    assert same_notifications(written, read)
    assert not same_notifications(written, read | {"EventBridgeConfiguration": {}})
    assert not same_notifications(written, {"QueueConfigurations": [OURS, LOST]})
    assert same_lifecycle({"Rules": [ATTIC, ABORTING]}, {"Rules": [ABORTING, ATTIC | {"Filter": {}}]})
    assert not same_lifecycle({"Rules": [ATTIC]}, {"Rules": [ATTIC | {"Filter": {"Prefix": "a"}}]})


@pytest.mark.parametrize("prefix", ["", "logs/"])
def test_rules_of_the_time_before_filters_get_one_since_s3_takes_no_mixture(prefix: str) -> None:
    """InvalidRequest: "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter"."""
    old = {"ID": "old", "Status": "Enabled", "Prefix": prefix, "NoncurrentVersionExpiration": {"NoncurrentDays": 99}}
    filtered = {key: value for key, value in old.items() if key != "Prefix"} | {"Filter": {"Prefix": prefix}}
    for attach, own in ((attached, ATTIC), (content, DRILLS)):
        plan = attach(bucket(rules=[old]))
        assert plan.lifecycle == {"Rules": [filtered, own]}
        assert attach(after(bucket(rules=[old]), plan)).lifecycle is None
    assert same_lifecycle({"Rules": [old]}, {"Rules": [filtered]})
    assert not same_lifecycle({"Rules": [old]}, {"Rules": [filtered | {"Filter": {"Prefix": "other"}}]})


# The content bucket


COLLECT = OURS | {"Id": "neve-content"}
DRILLS = {
    "ID": "neve-drills",
    "Status": "Enabled",
    "Filter": {"Prefix": ".neve/drill/"},
    "Expiration": {"Days": 7},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
}
NAMES = ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a")
READS = {
    "Sid": "Reads",
    "Effect": "Allow",
    "Principal": {"Service": "cloudfront.amazonaws.com"},
    "Action": "s3:GetObject",
    "Resource": [*NAMES],
    "Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}},
}
LISTS = READS | {"Sid": "Lists", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b"}


def content(before: Bucket) -> Plan:
    return attaching_content(
        before, name="neve", queue_arn=QUEUE, bucket_statements=[READS, LISTS], key_statements=[{"Sid": "Key"}]
    )


def test_the_content_bucket_gets_two_rules_and_gives_them_back() -> None:
    before = bucket(notifications=THEIRS, rules=[ABORTING])
    plan = content(before)
    assert plan.notifications == THEIRS | {"QueueConfigurations": [LOST, COLLECT]}
    assert plan.lifecycle == {"Rules": [ABORTING, DRILLS]}
    assert (len(plan.changes), plan.cautions) == (2, ())
    there = after(before, plan)
    assert replace(content(there), by_hand=()) == Plan()
    back = detaching_content(there, name="neve")
    assert after(there, back) == before
    assert "reconciliation" in back.changes[0]


def test_a_bucket_of_uploads_and_one_of_content_do_not_take_away_each_others_rules() -> None:
    there = bucket(notifications={"QueueConfigurations": [OURS]}, rules=[ATTIC])
    assert detaching_content(there, name="neve") == Plan()


def test_who_is_told_of_some_new_files_already_leaves_no_room() -> None:
    [refusal] = content(bucket(notifications={"LambdaFunctionConfigurations": [THUMBNAILS]})).refusals
    assert "'thumbnails'" in refusal
    assert "EventBridge" in refusal


@pytest.mark.parametrize("versioning", ["", "Suspended"])
def test_a_content_bucket_without_versions_is_taken_by_who_has_read_what_is_lost(versioning: str) -> None:
    plan = content(bucket(versioning))
    assert len(plan.changes) == 2
    [caution] = plan.cautions
    assert "put-bucket-versioning --bucket b " in caution


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"Expiration": {"Days": 3}}, ["ends files"]),
        ({"Expiration": {"Date": "2027-01-01"}}, ["ends files"]),
        ({"NoncurrentVersionExpiration": {"NoncurrentDays": 90}}, ["no longer current"]),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, ["to GLACIER:"]),
        (
            {
                "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}, {"Days": 90, "StorageClass": "DEEP_ARCHIVE"}],
                "Expiration": {"Days": 1000},
            },
            ["ends files", "to GLACIER:", "to DEEP_ARCHIVE:"],
        ),
        ({"NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "GLACIER"}]}, ["to GLACIER:"]),
        ({"Transitions": [{"Days": 1, "StorageClass": "STANDARD_IA"}, {"StorageClass": "GLACIER_IR"}]}, []),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}}, []),
    ],
)
def test_rules_that_end_or_freeze_files_are_something_to_mind(rule: dict[str, Any], told: list[str]) -> None:
    theirs = {"ID": "theirs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled"} | rule
    cautions = content(bucket(rules=[theirs, DRILLS])).cautions
    assert len(cautions) == len(told)
    for caution, words in zip(cautions, told, strict=True):
        assert words in caution
        assert "'theirs'" in caution
    assert content(bucket(rules=[theirs | {"Status": "Disabled"}])).cautions == ()


def test_what_only_the_owner_can_say_is_named_as_far_as_it_is_not_said() -> None:
    [reading] = content(bucket()).by_hand
    assert "put-bucket-policy --bucket b " in reading
    assert json.loads(reading.partition("): ")[2]) == [READS, LISTS]
    said: list[dict[str, Any]] = [
        {**READS, "Sid": "theirs", "Action": ["s3:GetObject"], "Resource": [*reversed(NAMES)]},
        {"Effect": "Deny"},
    ]
    [listing] = content(replace(bucket(), statements=said)).by_hand
    assert json.loads(listing.partition("): ")[2]) == [LISTS]
    [key] = content(replace(bucket(), statements=[READS, LISTS], key="arn:key")).by_hand
    assert "arn:key" in key
    assert key.endswith('[{"Sid": "Key"}]')
