"""What a bucket that is there already needs to be the uploads bucket: put beside what it has, and taken away again.

S3 replaces a bucket's whole notification configuration, and its whole lifecycle, by what it is given (S3 API reference,
"PutBucketNotificationConfiguration", "PutBucketLifecycleConfiguration"). So both are worked out here from what was
read, in the form of S3's API; two rules are neve's own and known by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Configuration = Mapping[str, Any]
"""A notification configuration or a lifecycle as S3's API has it."""
Rule = Mapping[str, Any]

TOLD_BY = {
    "TopicConfigurations": "TopicArn",
    "QueueConfigurations": "QueueArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}
"""The lists of rules in a notification configuration, and what each calls the one that is told."""
CREATED = "s3:ObjectCreated:"
EVERY_UPLOAD = f"{CREATED}*"

_FOR_EVERY_KEY: tuple[tuple[str, Any], ...] = (("Filter", {}), ("Filter", {"Prefix": ""}), ("Prefix", ""))
"""What a rule of a lifecycle may say, and what is the same unsaid."""

_UNVERSIONED = (
    "it keeps no versions, so an upload that is let go would be gone for ever: turn versioning on first "
    "(`aws s3api put-bucket-versioning --bucket NAME --versioning-configuration Status=Enabled`)"
)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """How a bucket is configured. `versioning` is Enabled, Suspended or ""; without a lifecycle there are no rules."""

    versioning: str
    notifications: Configuration
    lifecycle: Configuration


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be put into the bucket, None where it stays as it is; `changes` say so for people.

    With `refusals` nothing may be put. `cautions` are what a person has to agree to first.
    """

    notifications: Configuration | None = None
    lifecycle: Configuration | None = None
    changes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


def attaching(bucket: Bucket, *, name: str, queue_arn: str, attic_days: int) -> Plan:
    """What makes the bucket tell the queue of every upload, and keep for `attic_days` what is no longer current.

    `name` is the stacks'. Doing it twice changes nothing.
    """
    notifications, told, overlaps = _telling(bucket.notifications, name, queue_arn)
    lifecycle, kept, shorter = _keeping(bucket.lifecycle, name, attic_days)
    refusals = (*(() if bucket.versioning == "Enabled" else (_UNVERSIONED,)), *overlaps, *shorter)
    if refusals:
        return Plan(refusals=refusals)
    cautions = [
        f"rule {_id(rule)} of its lifecycle hides what lies there for {rule['Expiration']['Days']} days, copied or not"
        for rule in _enabled(bucket.lifecycle)
        if "Days" in rule.get("Expiration", {})
    ]
    if kept:
        cautions.append(
            f"S3 will delete every version in the bucket that has not been current for {attic_days} days, whoever made "
            "it, and those that are there today as well"
        )
    return Plan(
        notifications=notifications,
        lifecycle=lifecycle,
        changes=(*told, *kept),
        cautions=tuple(cautions),
    )


def detaching(bucket: Bucket, *, name: str) -> Plan:
    """What takes away what `attaching` has put there, and nothing else."""
    notifications = _without(bucket.notifications, "QueueConfigurations", lambda rule: rule.get("Id") == told_id(name))
    lifecycle = _without(bucket.lifecycle, "Rules", lambda rule: rule.get("ID") == kept_id(name))
    changes = []
    if notifications is not None:
        changes.append(f"no queue is told of uploads any more (rule {told_id(name)}): new ones stay where they are")
    if lifecycle is not None:
        changes.append(f"versions that are no longer current stay for ever (rule {kept_id(name)})")
    return Plan(notifications=notifications, lifecycle=lifecycle, changes=tuple(changes))


def told_id(name: str) -> str:
    """The id of the rule that tells the queue."""
    return f"{name}-uploads"


def kept_id(name: str) -> str:
    """The id of the rule that ends the attic."""
    return f"{name}-attic"


def same_notifications(one: Configuration, other: Configuration) -> bool:
    """Whether two configurations tell the same: S3 keeps no order, and writes the names of filters in its own way."""
    return _canonical_notifications(one) == _canonical_notifications(other)


def same_lifecycle(one: Configuration, other: Configuration) -> bool:
    """Whether two lifecycles are the same, in whatever order."""

    def plain(rule: Rule) -> Any:
        return {key: value for key, value in rule.items() if (key, value) not in _FOR_EVERY_KEY}

    return _canonical(map(plain, one.get("Rules", ()))) == _canonical(map(plain, other.get("Rules", ())))


def _telling(
    standing: Configuration, name: str, queue_arn: str
) -> tuple[Configuration | None, list[str], tuple[str, ...]]:
    """The configuration with neve's rule, what it changes, and which rules leave no room for it.

    Two rules may not share an event and a key, whoever is told, but for EventBridge (S3 user guide, "Configuring
    notifications with overlapping filters").
    """
    rule = {"Id": told_id(name), "QueueArn": queue_arn, "Events": [EVERY_UPLOAD]}
    rules = [(kind, each) for kind in TOLD_BY for each in standing.get(kind, ())]
    if any(_tells_all(each, queue_arn) for _, each in rules):
        return None, [], ()
    others = [(kind, each) for kind, each in rules if each.get("Id") != rule["Id"]]
    overlaps = tuple(
        f"rule {_id(each)} tells {each[TOLD_BY[kind]]} of uploads already, and S3 lets no two rules tell of the same "
        "one: have EventBridge tell that target (it may be told beside others), take the rule away, and attach again"
        for kind, each in others
        if any(event.startswith(CREATED) for event in each["Events"])
    )
    kept = {kind: [each for of, each in others if of == kind] for kind in TOLD_BY}
    kept["QueueConfigurations"].append(rule)
    rest = {key: value for key, value in standing.items() if key not in TOLD_BY}
    return (
        rest | {kind: each for kind, each in kept.items() if each},
        [f"{queue_arn} is told of every new upload (rule {rule['Id']})"],
        overlaps,
    )


def _tells_all(rule: Rule, queue_arn: str) -> bool:
    filters = rule.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    return bool(rule.get("QueueArn") == queue_arn and rule["Events"] == [EVERY_UPLOAD] and not filters)


def _keeping(
    standing: Configuration, name: str, attic_days: int
) -> tuple[Configuration | None, list[str], tuple[str, ...]]:
    """The lifecycle with neve's rule, what it changes, and which rules end the attic sooner."""
    rule = {
        "ID": kept_id(name),
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": attic_days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    others = [each for each in standing.get("Rules", ()) if each.get("ID") != rule["ID"]]
    shorter = tuple(
        f"rule {_id(each)} of its lifecycle deletes versions {each['NoncurrentVersionExpiration']['NoncurrentDays']} "
        f"days after they were current, and the setting attic_days says {attic_days}: change one of the two"
        for each in _enabled({"Rules": others})
        if each.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays", attic_days) < attic_days
    )
    wanted = {**standing, "Rules": [*others, rule]}
    if same_lifecycle(standing, wanted):
        return None, [], shorter
    return (
        wanted,
        [f"versions that are no longer current are deleted after {attic_days} days (rule {rule['ID']})"],
        shorter,
    )


def _without(standing: Configuration, kind: str, is_own: Callable[[Rule], bool]) -> Configuration | None:
    """The configuration without neve's rule; None if it has none."""
    rules = standing.get(kind, ())
    kept = [rule for rule in rules if not is_own(rule)]
    return None if len(kept) == len(rules) else {**standing, kind: kept}


def _enabled(lifecycle: Configuration) -> Iterable[Rule]:
    return (rule for rule in lifecycle.get("Rules", ()) if rule["Status"] == "Enabled")


def _id(rule: Rule) -> str:
    return repr(rule.get("ID") or rule.get("Id") or "")


def _canonical(rules: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(rule, sort_keys=True, default=str) for rule in rules)


def _canonical_notifications(configuration: Configuration) -> dict[str, Any]:
    def plain(rule: Rule) -> Any:
        filters = rule.get("Filter", {}).get("Key", {}).get("FilterRules", ())
        return {
            **{key: value for key, value in rule.items() if key != "Filter"},
            "Events": sorted(rule["Events"]),
            "Filter": sorted((each["Name"].lower(), each["Value"]) for each in filters),
        }

    told = {kind: _canonical(plain(rule) for rule in configuration.get(kind, ())) for kind in TOLD_BY}
    return told | {key: value for key, value in configuration.items() if key not in TOLD_BY}
