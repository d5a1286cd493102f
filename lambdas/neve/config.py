"""One settings dataclass per function: built by the stack, read by the Lambda.

A stack calls `environment(CollectConfig(...))` and hands the result to the function; the function calls
`read(CollectConfig, os.environ)`. Field `target_bytes` travels as NEVE_TARGET_BYTES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from neve.domain.events import DRILL_DAYS, DRILL_PREFIX
from neve.domain.sampling import percent_needed
from neve.errors import SettingInvalid

DRILLS = DRILL_PREFIX
"""Below this key lies what drills restore, in each of their buckets."""
DRILLS_DAYS = DRILL_DAYS
"""After so many days the lifecycle of those buckets ends what a drill has left there."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Settings of Collect. The queues are those of its `lane`, `live` or `backfill`."""

    lane: str
    content_bucket: str
    archives_table: str
    parked_table: str
    outbox_table: str
    collect_queue_url: str
    bundles_queue_url: str
    large_queue_url: str
    target_bytes: int
    max_members: int
    max_age_s: int


@dataclass(frozen=True, kw_only=True)
class WriteArchiveConfig:
    """Settings of WriteArchive."""

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    parked_table: str
    outbox_table: str
    bundles_queue_url: str
    collect_queue_url: str
    storage_class: str
    fetch_threads: int


@dataclass(frozen=True, kw_only=True)
class CopyLargeConfig:
    """Settings of CopyLarge."""

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    parked_table: str
    outbox_table: str
    collect_queue_url: str
    large_queue_url: str
    storage_class: str


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Settings of Sweep."""

    archives_table: str
    outbox_table: str
    sweep_queue_url: str
    bundles_queue_url: str
    large_queue_url: str
    backfill_bundles_queue_url: str
    backfill_large_queue_url: str


@dataclass(frozen=True, kw_only=True)
class PlanRestoreConfig:
    """Settings of PlanRestore. `destination_buckets` are those that Extract may write to, separated by spaces.

    `requests_per_s` is how fast one invocation asks S3 for thaws; `usd_per_day` caps what they cost, 0 is no cap.
    """

    archive_bucket: str
    files_table: str
    archives_table: str
    restores_table: str
    parked_table: str
    outbox_table: str
    requests_queue_url: str
    extract_queue_url: str
    restored_topic: str
    destination_buckets: str
    requests_per_s: int
    usd_per_day: int


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Settings of Extract."""

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    restores_table: str
    parked_table: str
    outbox_table: str
    requests_queue_url: str
    extract_queue_url: str
    restored_topic: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class SweepRestoresConfig:
    """Settings of SweepRestores."""

    archive_bucket: str
    archives_table: str
    restores_table: str
    outbox_table: str
    requests_queue_url: str
    extract_queue_url: str
    sweep_queue_url: str
    restored_topic: str


@dataclass(frozen=True, kw_only=True)
class StartAuditConfig:
    """Settings of StartAudit.

    `tier` is how fast archives are thawed; `source` is `read`, or `stated` where S3's own checksums of the sources are
    enough. A horizon of 0 days turns the rolling pass off; its budget is for a month.
    """

    content_bucket: str
    archive_bucket: str
    archives_table: str
    restores_table: str
    audits_table: str
    parked_table: str
    outbox_table: str
    audits_queue_url: str
    verify_queue_url: str
    alerts_topic: str
    tier: str
    source: str
    horizon_days: int
    budget_percent: int
    budget_usd: int
    requests_per_s: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class VerifyAuditConfig:
    """Settings of VerifyAudit. `repair` is `by-hand` or `automatic`."""

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    restores_table: str
    audits_table: str
    parked_table: str
    outbox_table: str
    requests_queue_url: str
    audits_queue_url: str
    verify_queue_url: str
    bundles_queue_url: str
    large_queue_url: str
    alerts_topic: str
    repair: str
    requests_per_s: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class ReconcileConfig:
    """Settings of Reconcile.

    Versions younger than `grace_h` hours may be without a row. `inventory` is where S3 Inventory puts its reports on
    the content bucket, `s3://bucket/prefix/`; "" has the bucket listed.
    """

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    audits_table: str
    parked_table: str
    outbox_table: str
    collect_queue_url: str
    reconciles_queue_url: str
    alerts_topic: str
    inventory: str
    grace_h: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class BackfillConfig:
    """Settings of Backfill. `inventory` is the only place, s3://bucket/prefix/, whose reports it may read; "" is none.

    It sends to the first queue, and looks how full all three are. It needs no outbox: who cannot send tries again.
    """

    content_bucket: str
    backfills_table: str
    inventory: str
    backfill_queue_url: str
    backfill_bundles_queue_url: str
    backfill_large_queue_url: str


@dataclass(frozen=True, kw_only=True)
class DrillConfig:
    """Settings of Drill. `drill_buckets` are those that every file goes to, separated by spaces."""

    content_bucket: str
    archive_bucket: str
    files_table: str
    archives_table: str
    restores_table: str
    audits_table: str
    parked_table: str
    outbox_table: str
    requests_queue_url: str
    drills_queue_url: str
    alerts_topic: str
    drill_buckets: str


@dataclass(frozen=True, kw_only=True)
class CopyUploadConfig:
    """Settings of CopyUpload. `key_layout` is `as-is` or `hashed`."""

    uploads_bucket: str
    content_bucket: str
    pointers_table: str
    files_table: str
    archives_table: str
    parked_table: str
    outbox_table: str
    uploads_queue_url: str
    release_queue_url: str
    key_layout: str
    release_after_s: int


@dataclass(frozen=True, kw_only=True)
class ReleaseUploadConfig:
    """Settings of ReleaseUpload."""

    uploads_bucket: str
    content_bucket: str
    pointers_table: str
    parked_table: str
    release_queue_url: str


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """Settings of Relay."""

    outbox_table: str
    parked_table: str
    relay_queue_url: str


@dataclass(frozen=True, kw_only=True)
class ResolveConfig:
    """Settings of Resolve.

    `cdn_urls` are base URLs without a slash at the end, separated by spaces; `private_prefixes` are beginnings of the
    application's keys, separated by commas. `cdn_choice` is `by-key` or `random`; `signing` is `s3` or `cloudfront`,
    which alone needs `cdn_key_id` and `cdn_key_parameter`; `archived_answer` is `not-found` or `restore`, which alone
    needs the tables `files`, `archives` and `restores`, and the queue.
    """

    uploads_bucket: str
    content_bucket: str
    pointers_table: str
    files_table: str
    archives_table: str
    restores_table: str
    outbox_table: str
    requests_queue_url: str
    key_layout: str
    cdn_urls: str
    cdn_choice: str
    private_prefixes: str
    signing: str
    cdn_key_id: str
    cdn_key_parameter: str
    archived_answer: str
    redirect_max_age_s: int
    upload_url_s: int
    signed_url_s: int


AnyConfig = (
    CollectConfig
    | WriteArchiveConfig
    | CopyLargeConfig
    | SweepConfig
    | PlanRestoreConfig
    | ExtractConfig
    | SweepRestoresConfig
    | StartAuditConfig
    | VerifyAuditConfig
    | ReconcileConfig
    | BackfillConfig
    | DrillConfig
    | CopyUploadConfig
    | ReleaseUploadConfig
    | RelayConfig
    | ResolveConfig
)

Config = TypeVar(
    "Config",
    CollectConfig,
    WriteArchiveConfig,
    CopyLargeConfig,
    SweepConfig,
    PlanRestoreConfig,
    ExtractConfig,
    SweepRestoresConfig,
    StartAuditConfig,
    VerifyAuditConfig,
    ReconcileConfig,
    BackfillConfig,
    DrillConfig,
    CopyUploadConfig,
    ReleaseUploadConfig,
    RelayConfig,
    ResolveConfig,
)


def audit_percent_needed(horizon_days: int) -> float:
    """Which share of the stored bytes a rolling pass with this horizon thaws in a month, in percent."""
    return percent_needed(horizon_days)


def _variable(field_name: str) -> str:
    return f"NEVE_{field_name.upper()}"


def environment(config: AnyConfig) -> dict[str, str]:
    """The environment variables that carry `config` to its function."""
    return {_variable(field.name): str(getattr(config, field.name)) for field in fields(config)}


def read(kind: type[Config], variables: Mapping[str, str]) -> Config:
    """The settings in `variables`.

    Raises SettingInvalid, naming every variable that is missing or not a whole number.
    """
    problems: list[str] = []
    values: dict[str, str | int] = {}
    for field in fields(kind):
        name = _variable(field.name)
        text = variables.get(name)
        if text is None:
            problems.append(f"{name} is not set")
        elif field.type != "int":
            values[field.name] = text
        elif text.isdecimal():
            values[field.name] = int(text)
        else:
            problems.append(f"{name} is {text!r}, not a whole number")
    if problems:
        raise SettingInvalid(f"{kind.__name__}: {'; '.join(problems)}. Deploy the stack again with `cdk deploy`.")
    return kind(**values)  # type: ignore[arg-type]  # each value was converted by its field's type above
