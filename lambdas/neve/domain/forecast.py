"""What a collection of files will cost with neve, once and every month, and what it would cost kept in other ways.

All of it is arithmetic over a price list: nothing is asked of AWS. The files themselves lie in the content bucket with
or without neve; what is forecast is the second copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from neve.domain import cost
from neve.domain.cost import (
    ANNOUNCED_A_MESSAGE,
    COLLECT_WINDOW_S,
    REFERENCE_BYTES,
    WHOLE_GB,
    WRITE_BYTES_PER_S,
    Workload,
    archiving,
    arriving,
    copying,
    logged,
)
from neve.domain.large import SINGLE_COPY_BYTES, ranges
from neve.domain.metering import MONITORED_BYTES, TERMS, Class, early_days, stored
from neve.domain.prices import GB, HOURS_A_MONTH, MILLION, Bill, Charge, PriceList, Use
from neve.domain.sampling import percent_needed, sample_size
from neve.domain.thaw import DAYS_A_MONTH, Tier, needs_thaw, offered_tier, read_uses, thaw_uses

MONTH_S = HOURS_A_MONTH * 3600

MEMBER_BYTES = 1_310
ARCHIVE_BYTES = 2_000
"""What a tar has besides the bytes of its members: for each its header and what rounds it up to 512, and its line in
MANIFEST.json; for itself the rest. Measured on tars of 1 to 263 members with keys of 45 characters."""
MANIFEST_MEMBER_BYTES = 535
MANIFEST_BYTES = 250
FILE_ROW_BYTES = 320
ARCHIVE_ROW_BYTES = 600
POINTER_ROW_BYTES = 400
"""Rows as DynamoDB counts them for storage: names, values, and 100 bytes for the item."""

AUDIT_WRITE_UNITS = 12
AUDIT_S = 1.0
AUDIT_GB = WHOLE_GB
"""Of one archive's audit: hashes of the sources, the thaw's claim and row, the verdict; a start and an end for each of
its two invocations. The bytes come on top, at the network of one environment."""

WEEKS_A_MONTH = HOURS_A_MONTH / (7 * 24)
RECONCILE_VERSION_S = 0.00024
RECONCILE_ARCHIVE_S = 0.05
EVENTUAL_BYTES = 8 * 1024
"""A pass of Reconcile: a version listed, read in the index and compared (docs/benchmarks.md, (k), pages on top); an
archive with its manifest and its members' rows. Rows that are read page by page take one unit for so many bytes."""

RESTORE_ARCHIVE_WRITE_UNITS = 25
RESTORE_ARCHIVE_READ_UNITS = 7
RESTORE_ARCHIVE_SQS_REQUESTS = 2
RESTORE_ARCHIVE_GB_S = 0.6
RESTORE_FILE_WRITE_UNITS = 0.4
RESTORE_FILE_READ_UNITS = 1
RESTORE_FILE_GB_S = 0.019
"""What neve itself takes for each archive and each file of a restore. Measured: docs/benchmarks.md, (j)."""
RETURNED_SQS_REQUESTS = 1.2
RETURNED_READ_UNITS = 0.5
RETURNED_GB_S = 0.004
"""What comes on top for a file that comes back into the content bucket: S3's event, received and deleted by tens, and
the look by which Collect's writer finds that it is archived. Measured: as before."""

SCHEDULED_SQS_REQUESTS = 3
SCHEDULED_READ_UNITS = 2
SCHEDULED_GB_S = 0.2 * 0.5
"""What a function takes that a schedule asks for and that finds nothing to do; its message is sent, received, deleted.
"""

RESOLVE_GB = 1
RESOLVE_GB_S = 0.03 * RESOLVE_GB
RESOLVE_LINE_BYTES = 600
"""Resolve: one read of the pointer, and its metric; most visitors are answered by the CDN and do not come so far."""

POLLERS = 5
POLL_S = 20
"""An idle mapping polls its queue with five pollers, each of which waits 20 seconds. Source: Lambda developer guide,
"Using Lambda with Amazon SQS"."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What a deployment costs whether or not there are files: mappings that poll, alarms, metrics, schedules.

    CloudWatch charges an alarm for each metric that it looks at: `alarms` counts those. It charges a custom metric by
    the hours in which it is reported: `idle_metrics` always are, `metrics` while files come and audits run.
    """

    mappings: int
    alarms: int
    scheduled_per_month: float
    metrics: int
    idle_metrics: int


IDLE_METRICS: dict[str, tuple[str, ...]] = {
    "Ledger": (
        "DYNAMODB_READ_UNIT",
        "DYNAMODB_WRITE_UNIT",
        "imputed_LAMBDA_GB_SECOND",
        "imputed_LAMBDA_REQUEST",
        "imputed_SQS_REQUEST",
    ),
    "StartAudit": ("nothing_to_audit",),
}
METRICS: dict[str, tuple[str, ...]] = {
    "Collect": ("collected",),
    "WriteArchive": ("archived", "archived_bytes", "lag_s"),
    "StartAudit": ("drawn", "source_bytes"),
    "VerifyAudit": ("audited", "audited_bytes"),
    "Ledger": (
        *IDLE_METRICS["Ledger"],
        "GLACIER_BULK_GB",
        "GLACIER_BULK_REQUEST",
        "S3_GET",
        "S3_PUT",
        "S3_PUT_GLACIER",
        "SQS_REQUEST",
        "imputed_DYNAMODB_WRITE_UNIT",
        "imputed_SNS_PUBLISH",
    ),
}
OFFLOAD_METRICS: dict[str, tuple[str, ...]] = {
    "CopyUpload": ("copied", "copied_bytes", "lag_s"),
    "ReleaseUpload": ("released",),
}
"""Custom metrics by the function that reports them every hour: without any file, while files come and audits run, and
what offloading adds. What is reported once a day or less, or only if something is wrong, costs next to nothing."""


def _many(metrics: dict[str, tuple[str, ...]]) -> int:
    return sum(len(names) for names in metrics.values())


DEPLOYED = Deployed(
    mappings=17, alarms=92, scheduled_per_month=60_000, metrics=_many(METRICS), idle_metrics=_many(IDLE_METRICS)
)
"""The stacks as they are by default; tests hold them against the templates and the functions."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large files are: so many of each size. Raises ValueError if there is none."""

    counts: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not self.files > 0 or any(size < 0 or count < 0 for size, count in self.counts):
            raise ValueError("sizes are of 0 or more bytes, and of at least one file")

    @property
    def files(self) -> float:
        """All of them."""
        return sum(count for _, count in self.counts)

    @property
    def size_bytes(self) -> float:
        """What they have together."""
        return sum(size * count for size, count in self.counts)

    def of(self, files: float) -> Sizes:
        """So many files, of these sizes in the same shares."""
        return Sizes(counts=tuple((size, count * files / self.files) for size, count in self.counts))


CLASSES_PER_DOUBLING = 8
"""Sizes are put together by eighths of a doubling: within 5 % of what they are, on average within 1 %."""


def size_class(size_bytes: int) -> int:
    """Which of these eighths a size belongs to; nothing at all is in one of its own."""
    return -1 if size_bytes <= 0 else int(math.log2(size_bytes) * CLASSES_PER_DOUBLING)


def averaged(by_size: Mapping[int, tuple[int, int]]) -> Sizes:
    """Sizes of files that are known as bytes and number of each size_class. Raises ValueError if there is none."""
    means = sorted((round(total / count), float(count)) for total, count in by_size.values())
    return Sizes(counts=tuple(means))


def gathered(sizes: Iterable[int]) -> Sizes:
    """The sizes of any number of files, each as the mean of those near it. Raises ValueError if there is none."""
    sums: dict[int, tuple[int, int]] = {}
    for size in sizes:
        place = size_class(size)
        total, count = sums.get(place, (0, 0))
        sums[place] = (total + size, count + 1)
    return averaged(sums)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A collection, and how neve is set to keep it.

    `files_per_s` is how fast files arrive while the collection is archived; `restored_per_month` files are restored one
    by one, each from an archive of its own, and leave AWS if `downloaded`; a horizon of 0 days is no rolling audit, but
    for the sample of every hour.
    `announced`: files come by a backfill, so that S3 sends no event. `offloaded`: they come by the uploads bucket.
    `redirects_per_month` are requests that Resolve answers. `other_region`: each archive is written there as well.
    `reconciled`: each week buckets and index are held against each other.
    """

    sizes: Sizes
    files_per_s: float = math.inf
    storage_class: Class = Class.GLACIER
    target_bytes: int = 25 * 1024 * 1024
    max_age_s: int = 20
    max_members: int = 2_000
    restored_per_month: float = 0
    restore_tier: Tier = Tier.STANDARD
    audit_horizon_days: int = 365
    audit_tier: Tier = Tier.BULK
    reconciled: bool = True
    announced: bool = False
    collect_window_s: int = COLLECT_WINDOW_S
    downloaded: bool = False
    offloaded: bool = False
    attic_days: int = 30
    redirects_per_month: float = 0
    other_region: bool = False

    @property
    def small(self) -> tuple[tuple[int, float], ...]:
        """What is bundled, by size."""
        return tuple(pair for pair in self.sizes.counts if pair[0] <= self.target_bytes)

    @property
    def large(self) -> tuple[tuple[int, float], ...]:
        """What becomes archives of their own, by size."""
        return tuple(pair for pair in self.sizes.counts if pair[0] > self.target_bytes)

    @property
    def bundled(self) -> Workload | None:
        """The small files as bundling sees them; None if there is none."""
        files = sum(count for _, count in self.small)
        if not files:
            return None
        return arriving(
            self.files_per_s * files / self.sizes.files,
            announced=self.announced,
            window_s=self.collect_window_s,
            file_bytes=max(1, round(sum(size * count for size, count in self.small) / files)),
            target_bytes=self.target_bytes,
            max_members=min(self.max_members, math.ceil(files)),
            storage_class=self.storage_class.value,
            max_age_s=self.max_age_s,
        )

    @property
    def archives(self) -> tuple[tuple[float, float, float], ...]:
        """Archives by kind: how many, the bytes of each, and the files in each."""
        found: list[tuple[float, float, float]] = []
        if work := self.bundled:
            files = sum(count for _, count in self.small)
            source_bytes = sum(size * count for size, count in self.small)
            archives = files / work.bundled
            each = source_bytes / archives + work.bundled * MEMBER_BYTES + ARCHIVE_BYTES
            found.append((archives, each, work.bundled))
        return (*found, *((count, float(size), 1.0) for size, count in self.large))


# -- neve ----------------------------------------------------------------------------------------------------------


def once(plan: Plan) -> list[Use]:
    """What archiving the collection takes: variable requests, Lambda time, logs; parts, which are kept for 30 days."""
    uses: list[Use] = []
    if work := plan.bundled:
        files = sum(count for _, count in plan.small)
        uses += archiving(work, files)
        uses += _rows("parts, for a month", files * REFERENCE_BYTES)
    for size, count in plan.large:
        parts = 1 if size <= SINGLE_COPY_BYTES else len(ranges(size))
        uses += copying(count, parts=parts, storage_class=plan.storage_class.value, announced=plan.announced)
    invocations = sum(use.quantity for use in uses if use.charge is Charge.LAMBDA_REQUEST)
    uses += logged(invocations)
    if plan.other_region:
        uses += _elsewhere(plan)
    return _added(uses)


def _elsewhere(plan: Plan) -> list[Use]:
    """Writing each archive and its manifest in another region as well. Storage there is at the prices of this one.

    S3's own replication takes nothing out of GLACIER and DEEP_ARCHIVE: what writes there pays for it as here. Source:
    S3 user guide, "What does Amazon S3 replicate?".
    """
    uses: list[Use] = []
    for archives, each, files in plan.archives:
        size_bytes = archives * (each + files * MANIFEST_MEMBER_BYTES + MANIFEST_BYTES)
        uses += [
            Use(purpose="other region: transfer", charge=Charge.OTHER_REGION_GB, quantity=size_bytes / GB),
            Use(purpose="other region: archives", charge=TERMS[plan.storage_class].put, quantity=archives),
            Use(purpose="other region: manifests", charge=Charge.S3_PUT, quantity=archives),
        ]
    return uses


def offloading(plan: Plan) -> list[Use]:
    """What moving the collection out of the uploads bucket takes, before it is archived; nothing unless `offloaded`."""
    if not plan.offloaded:
        return []
    uses: list[Use] = []
    for size, count in plan.sizes.counts:
        uses += cost.offloading(count, size, attic_days=plan.attic_days)
    return _added(replace(use, purpose=f"offload: {use.purpose}") for use in uses)


BACKFILL_WRITERS = 10
"""The setting backfill_write_concurrency: so many archives of a backfill are written at once."""
BACKFILL_SHARDS = 100
BACKFILL_FEW = 10_000
BACKFILL_AT_ONCE = 10
BACKFILL_STEP_S = 840
BACKFILL_GB = 512 / 1024
"""A backfill's shards, of which fewer versions than that have one; how many are worked on at once
(backfill_shards_at_once), how long an invocation does so of the 900 s that it may last (backfill_timeout_s), and its
memory."""
BACKFILL_HOLD_S = 20
BACKFILL_AWAY_S = 60
"""So long a shard waits within an invocation, until its rate allows a batch or queues are less full; then about so long
in Step Functions, which charges nothing for it."""
LISTED_A_PAGE = 1_000
LOOKS_FOR_SHARDS = 1_000
BACKFILL_WRITE_UNITS = 3
BACKFILL_SQS_REQUESTS = 3
"""For each announcement: the time reserved, the place recorded, the lease; and a look at the depth of the queues."""


def backfill_s(plan: Plan, versions_per_s: float = math.inf, *, writers: int = BACKFILL_WRITERS) -> float:
    """How long archiving the collection by a backfill takes: by its rate, or by what its writers manage."""
    work = replace(plan, announced=True, files_per_s=versions_per_s).bundled
    if work is None:
        return plan.sizes.files / versions_per_s
    small = sum(count for _, count in plan.small)
    return max(plan.sizes.files / versions_per_s, small / (writers * work.bundled / work.write_s))


def backfilling(
    plan: Plan, versions_per_s: float = math.inf, *, inventory: bool = False, writers: int = BACKFILL_WRITERS
) -> list[Use]:
    """What archiving `plan.sizes`, which lie in the content bucket already, takes by `neve backfill`.

    `versions_per_s` is the rate that it is held to, if to any; `inventory` says that the versions are read from a
    report of S3 Inventory, else they are listed. Versions that are archived already cost less (they are announced,
    looked up and dropped), so for a bucket that neve has archived in part this is the most that it comes to.

        Bill(prices=US_EAST_1, uses=tuple(backfilling(Plan(sizes=sizes), versions_per_s=500))).usd
    """
    archived = once(replace(plan, announced=True, files_per_s=versions_per_s))
    files, seconds = plan.sizes.files, backfill_s(plan, versions_per_s, writers=writers)
    shards = BACKFILL_SHARDS if files >= BACKFILL_FEW else 1
    at_once = min(BACKFILL_AT_ONCE, shards)
    looks = LOOKS_FOR_SHARDS if files >= BACKFILL_FEW else math.ceil(files / LISTED_A_PAGE)
    messages = files / ANNOUNCED_A_MESSAGE
    at_work = min(at_once, _shards_at_work(plan, versions_per_s, seconds))
    worked_s = at_work * seconds
    waited_s = (at_once - at_work) * seconds
    steps = shards + worked_s / BACKFILL_STEP_S + waited_s / (BACKFILL_HOLD_S + BACKFILL_AWAY_S)
    found = (
        Use(purpose="backfill: inventory", charge=Charge.S3_INVENTORY_OBJECT, quantity=files, rule="one report")
        if inventory
        else Use(
            purpose="backfill: listing versions",
            charge=Charge.S3_PUT,
            quantity=files / LISTED_A_PAGE + looks,
            rule=f"{LISTED_A_PAGE:,} a page; and {looks:,} to find where shards begin",
        )
    )
    return [
        *archived,
        found,
        Use(
            purpose="backfill: rows",
            charge=Charge.DYNAMODB_WRITE_UNIT,
            quantity=messages * BACKFILL_WRITE_UNITS,
            rule=f"{BACKFILL_WRITE_UNITS} for each announcement: its time, its place, the lease",
        ),
        Use(
            purpose="backfill: looking at queues",
            charge=Charge.SQS_REQUEST,
            quantity=messages * BACKFILL_SQS_REQUESTS,
            rule="the depth of its queues, for each announcement",
        ),
        Use(
            purpose="backfill: states",
            charge=Charge.STATE_TRANSITION,
            quantity=3 * steps + shards,
            rule=f"{shards} shards, and for each step a call, a choice and a wait",
            unseen=True,
        ),
        Use(purpose="backfill: steps", charge=Charge.LAMBDA_REQUEST, quantity=steps, rule="one for each", unseen=True),
        Use(
            purpose="backfill: time of the function",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=worked_s * BACKFILL_GB,
            rule=f"{at_work:.1f} of {at_once} shards at work or waiting within, for {seconds:,.0f} s",
            unseen=True,
        ),
        *(replace(use, purpose=f"backfill: {use.purpose}") for use in logged(steps)),
    ]


def _shards_at_work(plan: Plan, versions_per_s: float, seconds: float) -> float:
    """How many shards are in an invocation at a time: those whose turn comes soon enough to wait for it there.

    If it is the queues that hold them back, each waits inside for so long, and outside, in turn.
    """
    if plan.sizes.files / versions_per_s < seconds:
        return BACKFILL_AT_ONCE * BACKFILL_HOLD_S / (BACKFILL_HOLD_S + BACKFILL_AWAY_S)
    return min(BACKFILL_AT_ONCE, 1 + BACKFILL_HOLD_S * versions_per_s / ANNOUNCED_A_MESSAGE)


def monthly(plan: Plan, deployed: Deployed) -> list[Use]:
    """What keeping the collection takes in a month, audits and restores included; its first copy is not in it."""
    uses: list[Use] = []
    for archives, each, files in plan.archives:
        manifest_bytes = files * MANIFEST_MEMBER_BYTES + MANIFEST_BYTES
        uses += stored("archives", plan.storage_class, objects=archives, object_bytes=each)
        uses += stored("manifests", Class.STANDARD, objects=archives, object_bytes=manifest_bytes)
        uses += _rows("index", archives * (files * FILE_ROW_BYTES + ARCHIVE_ROW_BYTES))
        uses += _audits(plan, archives, each, files)
        if plan.other_region:
            uses += stored("other region: archives", plan.storage_class, objects=archives, object_bytes=each)
            uses += stored("other region: manifests", Class.STANDARD, objects=archives, object_bytes=manifest_bytes)
    if plan.offloaded:
        uses += _rows("pointers", plan.sizes.files * POINTER_ROW_BYTES)
        uses.append(_metrics("metrics of offloading", _many(OFFLOAD_METRICS), "while files come"))
    if plan.reconciled:
        uses += _reconciling(plan)
    return _added([*uses, *_restores(plan), *_redirects(plan), *_alike(deployed)])


def _alike(deployed: Deployed) -> list[Use]:
    """What a month costs in which files come, whatever their number and the size of their archives."""
    in_use = _metrics("metrics in use", deployed.metrics - deployed.idle_metrics, "while files come and audits run")
    return [in_use, *standing(deployed)]


def _rows(what: str, size_bytes: float) -> list[Use]:
    return [
        Use(purpose=f"rows of the {what}", charge=Charge.DYNAMODB_GB_MONTH, quantity=size_bytes / GB),
        Use(
            purpose=f"rows of the {what}, for recovery", charge=Charge.DYNAMODB_PITR_GB_MONTH, quantity=size_bytes / GB
        ),
    ]


def _redirects(plan: Plan) -> list[Use]:
    """What Resolve takes. CloudFront before it is charged by where visitors are, and is not in neve's prices."""
    redirects = plan.redirects_per_month
    gb = redirects * RESOLVE_LINE_BYTES / GB
    return [
        Use(purpose="redirects", charge=Charge.LAMBDA_REQUEST, quantity=redirects, rule="one each", unseen=True),
        Use(
            purpose="redirects: time of Resolve",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=redirects * RESOLVE_GB_S,
            rule="30 ms each, with 1 GB",
            unseen=True,
        ),
        Use(purpose="redirects: pointers", charge=Charge.DYNAMODB_READ_UNIT, quantity=redirects, rule="consistent"),
        Use(purpose="redirects: logs", charge=Charge.LOG_GB, quantity=gb, rule="a metric each", unseen=True),
    ]


def _metrics(purpose: str, number: int, when: str) -> Use:
    return Use(purpose=purpose, charge=Charge.METRIC_MONTH, quantity=number, rule=f"reported every hour {when}")


def _audits(plan: Plan, archives: float, each: float, files: float) -> list[Use]:
    """The rolling pass, and the sample of every hour, which comes on top: this kind's share of it."""
    share = percent_needed(plan.audit_horizon_days) / 100 if plan.audit_horizon_days else 0.0
    every = sum(number for number, _, _ in plan.archives)
    sampled = HOURS_A_MONTH * sample_size(math.ceil(every)) * archives / every
    audited = archives * share + sampled
    size_bytes = audited * each
    tier = offered_tier(plan.storage_class.value, plan.audit_tier)
    seconds = audited * 2 * AUDIT_S + 2 * size_bytes / WRITE_BYTES_PER_S
    return [
        *(
            replace(use, purpose=f"audits: {use.purpose}")
            for use in (
                *thaw_uses(plan.storage_class.value, tier, days=1, archives=audited, size_bytes=size_bytes),
                *read_uses(plan.storage_class.value, reads=audited, writes=0, size_bytes=size_bytes),
            )
        ),
        Use(purpose="audits: reading sources", charge=Charge.S3_GET, quantity=audited * files, rule="one GET a file"),
        Use(purpose="audits: rows", charge=Charge.DYNAMODB_WRITE_UNIT, quantity=audited * AUDIT_WRITE_UNITS),
        Use(
            purpose="audits: rows of members",
            charge=Charge.DYNAMODB_READ_UNIT,
            quantity=audited * files,
            rule="one unit a row, consistent",
        ),
        Use(
            purpose="audits: time of the functions",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=seconds * AUDIT_GB,
            rule=f"{AUDIT_S:.0f} s for each of two invocations, and the bytes of source and archive at 75 MB/s",
            unseen=True,
        ),
    ]


def _reconciling(plan: Plan) -> list[Use]:
    """A pass each week: bucket and index side by side by keys, and each archive with its manifest and members."""
    files = plan.sizes.files * WEEKS_A_MONTH
    archives = sum(number for number, _, _ in plan.archives) * WEEKS_A_MONTH
    looking = Charge.GLACIER_IR_GET if plan.storage_class is Class.GLACIER_IR else Charge.S3_GET
    paged = (files * FILE_ROW_BYTES + 2 * archives * ARCHIVE_ROW_BYTES) / EVENTUAL_BYTES
    return [
        Use(
            purpose="reconciling: listing",
            charge=Charge.S3_PUT,
            quantity=(files + 2 * archives) / LISTED_A_PAGE,
            rule=f"versions, archives and manifests, {LISTED_A_PAGE:,} a page",
        ),
        Use(purpose="reconciling: looking at archives", charge=looking, quantity=archives, rule="a HEAD of each"),
        Use(purpose="reconciling: manifests", charge=Charge.S3_GET, quantity=archives, rule="each read once"),
        Use(
            purpose="reconciling: rows of members",
            charge=Charge.DYNAMODB_READ_UNIT,
            quantity=files / 2,
            rule="half a unit a row, eventually consistent",
        ),
        Use(purpose="reconciling: rows by key", charge=Charge.DYNAMODB_READ_UNIT, quantity=paged, rule="8 KB a unit"),
        Use(
            purpose="reconciling: time of the function",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=(files * RECONCILE_VERSION_S + archives * RECONCILE_ARCHIVE_S) * AUDIT_GB,
            rule=f"{RECONCILE_VERSION_S} s a version, {RECONCILE_ARCHIVE_S} s an archive",
            unseen=True,
        ),
    ]


def _restores(plan: Plan) -> list[Use]:
    """Files restored one by one. Where archives differ in size, files are met by how many there are."""
    uses: list[Use] = []
    for archives, each, files in plan.archives:
        wanted = plan.restored_per_month * archives * files / plan.sizes.files
        uses += restoring(plan, archives=wanted, archive_bytes=each, files=wanted, file_bytes=each / files)
    return uses


def restoring(plan: Plan, *, archives: float, archive_bytes: float, files: float, file_bytes: float) -> list[Use]:
    """What restoring `files` takes that lie in so many archives, thawed for a day.

    Files that are downloaded are not put anywhere, and leave AWS; others come back into the content bucket.
    """
    tier = offered_tier(plan.storage_class.value, plan.restore_tier)
    thawed, wanted = archives * archive_bytes, files * file_bytes
    writes = 0 if plan.downloaded else files
    uses = [
        *thaw_uses(plan.storage_class.value, tier, days=1, archives=archives, size_bytes=thawed),
        *read_uses(plan.storage_class.value, reads=files, writes=writes, size_bytes=wanted),
        *_restored_by_neve(archives, files),
    ]
    if needs_thaw(plan.storage_class.value):
        told = Use(purpose="word of thaws", charge=Charge.SNS_PUBLISH, quantity=archives, rule="S3 tells", unseen=True)
        uses.append(told)
    if plan.downloaded:
        uses.append(Use(purpose="download", charge=Charge.INTERNET_GB, quantity=wanted / GB, rule="to the internet"))
    else:
        uses += _returned(files)
    return [replace(use, purpose=f"restores: {use.purpose}") for use in uses]


def _restored_by_neve(archives: float, files: float) -> list[Use]:
    """What neve's own part in a restore takes, besides what S3 charges."""
    by = "for each archive, and each file"
    return [
        Use(
            purpose="rows",
            charge=Charge.DYNAMODB_WRITE_UNIT,
            quantity=archives * RESTORE_ARCHIVE_WRITE_UNITS + files * RESTORE_FILE_WRITE_UNITS,
            rule=f"{RESTORE_ARCHIVE_WRITE_UNITS} units and {RESTORE_FILE_WRITE_UNITS} {by}",
        ),
        Use(
            purpose="look-ups",
            charge=Charge.DYNAMODB_READ_UNIT,
            quantity=archives * RESTORE_ARCHIVE_READ_UNITS + files * RESTORE_FILE_READ_UNITS,
            rule=f"{RESTORE_ARCHIVE_READ_UNITS} units and {RESTORE_FILE_READ_UNITS} {by}",
        ),
        Use(
            purpose="messages",
            charge=Charge.SQS_REQUEST,
            quantity=archives * RESTORE_ARCHIVE_SQS_REQUESTS,
            rule="that an archive is thawed",
            unseen=True,
        ),
        Use(
            purpose="time of the functions",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=archives * RESTORE_ARCHIVE_GB_S + files * RESTORE_FILE_GB_S,
            rule=f"{RESTORE_ARCHIVE_GB_S} GB-s and {RESTORE_FILE_GB_S} {by}",
            unseen=True,
        ),
    ]


def _returned(files: float) -> list[Use]:
    """What neve takes for files that come back into the content bucket: each gets a row, and is not archived again."""
    return [
        Use(purpose="files come back: rows", charge=Charge.DYNAMODB_WRITE_UNIT, quantity=files, rule="one unit a row"),
        Use(
            purpose="files come back: look-up",
            charge=Charge.DYNAMODB_READ_UNIT,
            quantity=files * RETURNED_READ_UNITS,
            rule="eventually consistent",
        ),
        Use(
            purpose="files come back: S3's events",
            charge=Charge.SQS_REQUEST,
            quantity=files * RETURNED_SQS_REQUESTS,
            rule="sent, and received and deleted by tens",
            unseen=True,
        ),
        Use(
            purpose="files come back: time of the functions",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=files * RETURNED_GB_S,
            rule=f"{RETURNED_GB_S} GB-s a file",
            unseen=True,
        ),
    ]


def met(plan: Plan, files: float) -> float:
    """In how many archives so many files lie, on average, that are picked by chance."""
    return math.fsum(_met(archives, inside, _share(plan, files)) for archives, _, inside in plan.archives)


def _share(plan: Plan, files: float) -> float:
    return min(1.0, files / plan.sizes.files)


def _met(archives: float, inside: float, share: float) -> float:
    """How many of these archives have at least one of the files that are picked."""
    return archives * (1 - math.pow(1 - share, inside))


def restoring_at_random(plan: Plan, files: float) -> list[Use]:
    """What restoring so many files takes that are picked by chance, each archive thawed once."""
    share = _share(plan, files)
    uses: list[Use] = []
    for archives, each, inside in plan.archives:
        thawed = _met(archives, inside, share)
        wanted = archives * inside * share
        uses += restoring(plan, archives=thawed, archive_bytes=each, files=wanted, file_bytes=each / inside)
    return _added(uses)


def standing(deployed: Deployed) -> list[Use]:
    """What a deployment takes in a month, files or none."""
    return [
        *idle(deployed),
        *_scheduled(deployed.scheduled_per_month),
        _metrics("metrics", deployed.idle_metrics, "in any case"),
    ]


def idle(deployed: Deployed) -> list[Use]:
    """What of it no function is invoked for: no ledger tells of that."""
    polls = deployed.mappings * POLLERS * MONTH_S / POLL_S
    return [
        Use(
            purpose="polling of queues",
            charge=Charge.SQS_REQUEST,
            quantity=polls,
            rule=f"{deployed.mappings} mappings, {POLLERS} pollers each, every {POLL_S} s",
            unseen=True,
        ),
        Use(purpose="alarms", charge=Charge.ALARM_MONTH, quantity=deployed.alarms),
        Use(
            purpose="schedules",
            charge=Charge.SCHEDULE,
            quantity=deployed.scheduled_per_month,
            rule="each sends a message",
            unseen=True,
        ),
    ]


def _scheduled(times: float) -> list[Use]:
    """What the functions take that schedules ask for, if they find nothing to do."""
    return [
        Use(
            purpose="scheduled: messages",
            charge=Charge.SQS_REQUEST,
            quantity=times * SCHEDULED_SQS_REQUESTS,
            rule="each sent, received and deleted",
            unseen=True,
        ),
        Use(
            purpose="scheduled: invocations",
            charge=Charge.LAMBDA_REQUEST,
            quantity=times,
            rule="one for each message",
            unseen=True,
        ),
        Use(
            purpose="scheduled: time of the functions",
            charge=Charge.LAMBDA_GB_SECOND,
            quantity=times * SCHEDULED_GB_S,
            rule="0.2 s each, with 512 MB",
            unseen=True,
        ),
        Use(
            purpose="scheduled: look-ups",
            charge=Charge.DYNAMODB_READ_UNIT,
            quantity=times * SCHEDULED_READ_UNITS,
            rule=f"{SCHEDULED_READ_UNITS} units each",
        ),
        *(replace(use, purpose=f"scheduled: {use.purpose}") for use in logged(times)),
    ]


# -- What a person would do without it -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to keep the second copy: what it takes once, and every month."""

    name: str
    once: tuple[Use, ...]
    monthly: tuple[Use, ...]
    note: str = ""

    def usd(self, prices: PriceList, months: float) -> float:
        """What it comes to by the end of so many months."""
        return Bill(prices=prices, uses=self.once).usd + months * Bill(prices=prices, uses=self.monthly).usd


def ways(plan: Plan, deployed: Deployed) -> list[Way]:
    """neve first, then what a person would pick instead, each for the same files: a second copy and nothing besides."""
    plan = replace(plan, offloaded=False, redirects_per_month=0, other_region=False)
    return [
        Way(name=f"neve, {plan.storage_class}", once=tuple(once(plan)), monthly=tuple(monthly(plan, deployed))),
        _one_by_one(plan.sizes, plan.storage_class, f"each file by itself, {plan.storage_class}"),
        _by_lifecycle(plan.sizes, plan.storage_class),
        _one_by_one(plan.sizes, Class.STANDARD, "a copy in STANDARD"),
        _one_by_one(plan.sizes, Class.STANDARD_IA, "a copy in STANDARD_IA"),
        _one_by_one(plan.sizes, Class.INTELLIGENT_TIERING, "a copy in INTELLIGENT_TIERING"),
    ]


def _one_by_one(sizes: Sizes, storage_class: Class, name: str) -> Way:
    """Each file read and put by itself: by CopyObject, which is charged as a PUT into the class and reads for free."""
    return Way(
        name=name,
        once=(Use(purpose="putting files", charge=TERMS[storage_class].put, quantity=sizes.files),),
        monthly=tuple(_kept(sizes, storage_class)),
    )


def _by_lifecycle(sizes: Sizes, storage_class: Class) -> Way:
    """A copy in STANDARD that a rule moves into the class the next day; small ones stay, which is S3's default."""
    moving = tuple(pair for pair in sizes.counts if pair[0] >= MONITORED_BYTES)
    staying = tuple(pair for pair in sizes.counts if pair[0] < MONITORED_BYTES)
    moved = sum(count for _, count in moving)
    transition = TERMS[storage_class].transition
    assert transition is not None, "archives lie in classes that objects can move into"
    kept = [
        *(_kept(Sizes(counts=moving), storage_class) if moving else ()),
        *(_kept(Sizes(counts=staying), Class.STANDARD) if staying else ()),
    ]
    return Way(
        name=f"lifecycle from STANDARD to {storage_class}",
        once=(
            Use(purpose="putting files", charge=Charge.S3_PUT, quantity=sizes.files),
            Use(purpose="transitions", charge=transition, quantity=moved),
        ),
        monthly=tuple(_added(kept)),
        note="files below 128 KB stay in STANDARD, as they do unless a rule says otherwise" if staying else "",
    )


def _kept(sizes: Sizes, storage_class: Class) -> list[Use]:
    uses: list[Use] = []
    for size, count in sizes.counts:
        uses += stored("files", storage_class, objects=count, object_bytes=size)
    return _added(uses)


# -- What to choose ------------------------------------------------------------------------------------------------

AGES_S = (1, 2, 5, 10, 20, 35, 60, 120, 300, 600, 900)
NEAR_ENOUGH = 1.01


def cheapest_age_s(plan: Plan, prices: PriceList) -> int:
    """The shortest maximum age of a bundle, in seconds, by which archiving costs at most 1 % more than by any other."""

    def usd(age_s: int) -> float:
        return Bill(prices=prices, uses=tuple(once(replace(plan, max_age_s=age_s)))).usd

    by_age = {age_s: usd(age_s) for age_s in AGES_S}
    best = min(by_age.values())
    return next(age_s for age_s, cost in by_age.items() if cost <= best * NEAR_ENOUGH)


MIB = 1024 * 1024
TARGETS = tuple(MIB * mib for mib in (1, 2, 5, 10, 15, 20, 25, 35, 50, 75, 100))


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a target size comes to: by the end of the term in all, and for the restore of a single file.

    `alike_usd` of it are the same for every size. `thawed_bytes` is what S3 thaws for one file: the granularity of
    restores.
    """

    target_bytes: int
    usd: float
    alike_usd: float
    once_usd: float
    monthly_usd: float
    files_in_archive: float
    thawed_bytes: float
    restore_usd: float


def targets(
    plan: Plan, deployed: Deployed, prices: PriceList, *, months: float, sizes: Iterable[int] = TARGETS
) -> list[Target]:
    """What each target size comes to."""
    return [_target(replace(plan, target_bytes=size), deployed, prices, months) for size in sizes]


def best(several: Sequence[Target]) -> Target:
    """The smallest target size that costs at most 1 % more than the cheapest: smaller archives restore sooner.

    What all sizes cost alike does not count.
    """
    least = min(each.usd - each.alike_usd for each in several)
    return next(each for each in several if each.usd - each.alike_usd <= least * NEAR_ENOUGH)


def _target(plan: Plan, deployed: Deployed, prices: PriceList, months: float) -> Target:
    begun = Bill(prices=prices, uses=tuple(once(plan))).usd
    kept = Bill(prices=prices, uses=tuple(monthly(plan, deployed))).usd
    _, each, files = plan.archives[0]
    single = restoring(plan, archives=1, archive_bytes=each, files=1, file_bytes=each / files)
    return Target(
        target_bytes=plan.target_bytes,
        usd=begun + months * kept,
        alike_usd=months * Bill(prices=prices, uses=tuple(_alike(deployed))).usd,
        once_usd=begun,
        monthly_usd=kept,
        files_in_archive=files,
        thawed_bytes=each,
        restore_usd=Bill(prices=prices, uses=tuple(single)).usd,
    )


def deleting(plan: Plan, *, kept_days: float) -> list[Use]:
    """What S3 charges on top for archives that are deleted so soon: their class's rate until its minimum is over."""
    days = early_days(plan.storage_class, kept_days)
    uses: list[Use] = []
    for archives, each, _ in plan.archives:
        left = stored("early deletion", plan.storage_class, objects=archives, object_bytes=each)
        uses += [replace(use, quantity=use.quantity * days / DAYS_A_MONTH) for use in left]
    return _added(uses)


def _added(uses: Iterable[Use]) -> list[Use]:
    """Uses of the same purpose and charge as one."""
    together: dict[tuple[str, Charge], Use] = {}
    for use in uses:
        place = (use.purpose, use.charge)
        before = together.get(place)
        together[place] = replace(use, quantity=use.quantity + before.quantity) if before else use
    return [use for use in together.values() if use.quantity]


def per_million(uses: Sequence[Use], prices: PriceList, files: float) -> float:
    """What `uses`, which are for so many files, come to for a million."""
    return Bill(prices=prices, uses=tuple(uses)).usd * MILLION / files
