"""What a bucket that is there already needs to be neve's: put beside what it has, and taken away again.

S3 replaces a bucket's whole notification configuration, and its whole lifecycle, by what it is given (S3 API reference,
"PutBucketNotificationConfiguration", "PutBucketLifecycleConfiguration"). So both are worked out here from what was
read, in the form of S3's API; two rules are neve's own and known by their ids. A bucket's policy is left to its owner:
what it lacks is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neve.domain.events import DRILL_DAYS, DRILL_PREFIX

Configuration = Mapping[str, Any]
"""A notification configuration or a lifecycle as S3's API has it."""
Rule = Mapping[str, Any]
Statement = Mapping[str, Any]
"""A statement of a policy."""

TOLD_BY = {
    "TopicConfigurations": "TopicArn",
    "QueueConfigurations": "QueueArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}
"""The lists of rules in a notification configuration, and what each calls the one that is told."""
CREATED = "s3:ObjectCreated:"
EVERY_OBJECT = f"{CREATED}*"

_FOR_EVERY_KEY: tuple[tuple[str, Any], ...] = (("Filter", {}), ("Filter", {"Prefix": ""}))
"""What a rule of a lifecycle may say, and what is the same unsaid."""
_UNREADABLE = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects have to be thawed before they can be read."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """How the bucket `name` is configured.

    `versioning` is Enabled, Suspended or ""; without a lifecycle there are no rules, and without a policy no
    `statements`. `key` is the key of KMS that it encrypts by unless told otherwise; "" if that is S3's own business.
    """

    name: str
    versioning: str
    notifications: Configuration
    lifecycle: Configuration
    statements: Sequence[Statement] = ()
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be put into the bucket, None where it stays as it is; `changes` say so for people.

    With `refusals` nothing may be put. `cautions` are what a person has to agree to first, and `by_hand` is what only
    the bucket's owner can do.
    """

    notifications: Configuration | None = None
    lifecycle: Configuration | None = None
    changes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


def attaching_uploads(
    bucket: Bucket, *, name: str, queue_arn: str, attic_days: int, content_bucket: str, content_versioning: str
) -> Plan:
    """What makes the bucket tell the queue of every upload, and keep for `attic_days` what is no longer current.

    `name` is the stacks'. Doing it twice changes nothing.
    """
    rule = {"Id": told_id(name, UPLOADS), "QueueArn": queue_arn, "Events": [EVERY_OBJECT]}
    notifications, told, overlaps = _telling(bucket.notifications, rule)
    attic = {
        "ID": attic_id(name),
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": attic_days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    lifecycle, kept = _keeping(
        bucket.lifecycle, attic, f"versions that are no longer current are deleted after {attic_days} days"
    )
    unversioned = []
    if bucket.versioning != "Enabled":
        unversioned.append(
            "it keeps no versions, so an upload that is let go would be gone for ever: turn versioning on first "
            f"({_turn_on(bucket.name)})"
        )
    if content_versioning != "Enabled":
        unversioned.append(
            f"the content bucket {content_bucket} keeps no versions, so the copy of an upload could be overwritten for "
            f"ever: turn versioning on first ({_turn_on(content_bucket)})"
        )
    refusals = (*unversioned, *overlaps, *_shorter(bucket.lifecycle, attic_id(name), attic_days))
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


def attaching_content(
    bucket: Bucket,
    *,
    name: str,
    queue_arn: str,
    bucket_statements: Sequence[Statement],
    key_statements: Sequence[Statement],
) -> Plan:
    """What makes the bucket tell the queue of every new file, and end what drills have left there.

    `name` is the stacks', as are the statements that its policy and that of its key should have. Doing it twice changes
    nothing. A bucket without versions is taken, and so is one whose own lifecycle ends or freezes files: what is
    archived is safe from both. Whoever says yes has read what is not.
    """
    rule = {"Id": told_id(name, CONTENT), "QueueArn": queue_arn, "Events": [EVERY_OBJECT]}
    notifications, told, overlaps = _telling(bucket.notifications, rule)
    if overlaps:
        return Plan(refusals=overlaps)
    drills = {
        "ID": drills_id(name),
        "Status": "Enabled",
        "Filter": {"Prefix": DRILL_PREFIX},
        "Expiration": {"Days": DRILL_DAYS},
        "NoncurrentVersionExpiration": {"NoncurrentDays": DRILL_DAYS},
    }
    lifecycle, kept = _keeping(
        bucket.lifecycle, drills, f"what drills leave below {DRILL_PREFIX} is deleted after {DRILL_DAYS} days"
    )
    others = [rule for rule in _enabled(bucket.lifecycle) if rule.get("ID") != drills["ID"]]
    unversioned = () if bucket.versioning == "Enabled" else (_without_versions(bucket),)
    return Plan(
        notifications=notifications,
        lifecycle=lifecycle,
        changes=(*told, *kept),
        cautions=(*unversioned, *(caution for rule in others for caution in _ending(rule))),
        by_hand=tuple(_lacking(bucket, bucket_statements, key_statements)),
    )


def detaching_uploads(bucket: Bucket, *, name: str) -> Plan:
    """What takes away what `attaching_uploads` has put there, and nothing else."""
    return _taking_away(
        bucket,
        told=(told_id(name, UPLOADS), "no queue is told of uploads any more", "new ones stay where they are"),
        kept=(attic_id(name), "versions that are no longer current stay for ever"),
    )


def detaching_content(bucket: Bucket, *, name: str) -> Plan:
    """What takes away what `attaching_content` has put there, and nothing else."""
    return _taking_away(
        bucket,
        told=(
            told_id(name, CONTENT),
            "no queue is told of new files any more",
            "they are archived only when a reconciliation finds them (setting reconcile_every_week)",
        ),
        kept=(drills_id(name), f"what drills leave below {DRILL_PREFIX} stays for ever"),
    )


UPLOADS, CONTENT = "uploads", "content"
"""What a bucket is to neve."""


def told_id(name: str, what: str) -> str:
    """The id of the rule that tells the queue of new objects in the bucket of uploads or content."""
    return f"{name}-{what}"


def attic_id(name: str) -> str:
    """The id of the rule that ends the attic."""
    return f"{name}-attic"


def drills_id(name: str) -> str:
    """The id of the rule that ends copies of drills."""
    return f"{name}-drills"


def same_notifications(one: Configuration, other: Configuration) -> bool:
    """Whether two configurations tell the same: S3 keeps no order, and writes the names of filters in its own way."""
    return _canonical_notifications(one) == _canonical_notifications(other)


def same_lifecycle(one: Configuration, other: Configuration) -> bool:
    """Whether two lifecycles are the same, in whatever order."""

    def plain(rule: Rule) -> Any:
        return {key: value for key, value in _filtered(rule).items() if (key, value) not in _FOR_EVERY_KEY}

    return _canonical(map(plain, one.get("Rules", ()))) == _canonical(map(plain, other.get("Rules", ())))


def _telling(standing: Configuration, rule: Rule) -> tuple[Configuration | None, list[str], tuple[str, ...]]:
    """The configuration with neve's rule, what it changes, and which rules leave no room for it.

    Two rules may not share an event and a key, whoever is told, but for EventBridge (S3 user guide, "Configuring
    notifications with overlapping filters").
    """
    rules = [(kind, each) for kind in TOLD_BY for each in standing.get(kind, ())]
    if any(_tells_all(each, rule["QueueArn"]) for _, each in rules):
        return None, [], ()
    others = [(kind, each) for kind, each in rules if each.get("Id") != rule["Id"]]
    overlaps = tuple(
        f"rule {_id(each)} tells {each[TOLD_BY[kind]]} of new objects already, and S3 lets no two rules tell of the "
        "same one: have EventBridge tell that target (it may be told beside others), take the rule away, and attach "
        "again"
        for kind, each in others
        if any(event.startswith(CREATED) for event in each["Events"])
    )
    kept = {kind: [each for of, each in others if of == kind] for kind in TOLD_BY}
    kept["QueueConfigurations"].append(rule)
    rest = {key: value for key, value in standing.items() if key not in TOLD_BY}
    return (
        rest | {kind: each for kind, each in kept.items() if each},
        [f"{rule['QueueArn']} is told of every new object (rule {rule['Id']})"],
        overlaps,
    )


def _tells_all(rule: Rule, queue_arn: str) -> bool:
    filters = rule.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    return bool(rule.get("QueueArn") == queue_arn and rule["Events"] == [EVERY_OBJECT] and not filters)


def _keeping(standing: Configuration, rule: Rule, does: str) -> tuple[Configuration | None, list[str]]:
    """The lifecycle with neve's rule, and what it changes."""
    others = [_filtered(each) for each in standing.get("Rules", ()) if each.get("ID") != rule["ID"]]
    wanted = {**standing, "Rules": [*others, rule]}
    if same_lifecycle(standing, wanted):
        return None, []
    return wanted, [f"{does} (rule {rule['ID']})"]


def _filtered(rule: Rule) -> Rule:
    """The rule with its prefix in a filter. S3 still knows rules that have it beside, and takes them only if no other
    rule has a filter.
    """
    if "Prefix" not in rule:
        return rule
    rest = {key: value for key, value in rule.items() if key != "Prefix"}
    return rest | {"Filter": {"Prefix": rule["Prefix"]}}


def _shorter(lifecycle: Configuration, own_id: str, attic_days: int) -> tuple[str, ...]:
    """Which rules end the attic sooner."""
    return tuple(
        f"rule {_id(each)} of its lifecycle deletes versions {each['NoncurrentVersionExpiration']['NoncurrentDays']} "
        f"days after they were current, and the setting attic_days says {attic_days}: change one of the two"
        for each in _enabled(lifecycle)
        if each.get("ID") != own_id
        and each.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays", attic_days) < attic_days
    )


def _without_versions(bucket: Bucket) -> str:
    return (
        "it keeps no versions: a file that is overwritten or deleted before it is archived is lost, audits have "
        "nothing to compare with once it is, a restore with --overwrite leaves nothing of what was there, and uploads "
        f"cannot be offloaded to it; to turn versioning on: {_turn_on(bucket.name)}"
    )


def _turn_on(bucket: str) -> str:
    return f"`aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled`"


def _ending(rule: Rule) -> Iterator[str]:
    """What a rule of the owner's lifecycle means for archiving, and for audits, which read the files again."""
    where = f"rule {_id(rule)} of its lifecycle"
    if {"Days", "Date"} & rule.get("Expiration", {}).keys():
        yield (
            f"{where} ends files: one that is not archived by then never will be, and audits of the others have "
            "nothing to compare with"
        )
    if "NoncurrentVersionExpiration" in rule:
        yield (
            f"{where} ends versions that are no longer current: one that is not archived by then never will be, and "
            "audits of the others have nothing to compare with"
        )
    moves = [*rule.get("Transitions", ()), *rule.get("NoncurrentVersionTransitions", ())]
    for storage_class in _UNREADABLE:
        if any(move.get("StorageClass") == storage_class for move in moves):
            yield (
                f"{where} moves files to {storage_class}: one that is not archived by then cannot be read, by `neve "
                "backfill` neither, and audits of the others are unread"
            )


def _lacking(
    bucket: Bucket, bucket_statements: Sequence[Statement], key_statements: Sequence[Statement]
) -> Iterator[str]:
    """What the owner has to say in policies: S3 and KMS replace them as a whole, and a slip locks people out."""
    standing = set(_canonical(map(_meaning, bucket.statements)))
    lacking = [each for each in bucket_statements if not standing.issuperset(_canonical([_meaning(each)]))]
    if lacking:
        yield (
            "its policy does not let CloudFront read what is to be served, and nothing else. Add to its statements "
            f"(`aws s3api get-bucket-policy --bucket {bucket.name} --query Policy --output text > policy.json`, then "
            f"`aws s3api put-bucket-policy --bucket {bucket.name} --policy file://policy.json`): {json.dumps(lacking)}"
        )
    if bucket.key:
        yield (
            f"it encrypts by the key {bucket.key}. Unless that key's policy allows this already, add it, or every file "
            f"is parked as denied: {json.dumps(key_statements)}"
        )


def _meaning(statement: Statement) -> Any:
    """A statement without its name, and with lists wherever one word may stand for a list of one."""

    def listed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: listed(each) for key, each in value.items()}
        return sorted(value) if isinstance(value, list) else [value]

    return {key: listed(value) for key, value in statement.items() if key != "Sid"}


def _taking_away(bucket: Bucket, *, told: tuple[str, str, str], kept: tuple[str, str]) -> Plan:
    """The plan without neve's two rules, known by their ids; what their end means is said for people."""
    told_by, untold, then = told
    kept_by, unkept = kept
    notifications = _without(bucket.notifications, "QueueConfigurations", lambda rule: rule.get("Id") == told_by)
    lifecycle = _without(bucket.lifecycle, "Rules", lambda rule: rule.get("ID") == kept_by)
    changes = []
    if notifications is not None:
        changes.append(f"{untold} (rule {told_by}): {then}")
    if lifecycle is not None:
        changes.append(f"{unkept} (rule {kept_by})")
    return Plan(notifications=notifications, lifecycle=lifecycle, changes=tuple(changes))


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
