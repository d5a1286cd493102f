"""Arithmetic of capacity: what a rate or a number of files takes, and which limit it meets first.

Concurrency is Little's law: how many come in a second, times how long each takes. How long is reckoned from measured
processor time and from rules (scale.figures); dollars, bundles and units are those of neve.domain.forecast and cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from neve.domain.cost import (
    ANNOUNCED_A_MESSAGE,
    COLLECT_GB,
    COPY_GB,
    PART_ITEM_BYTES,
    REFERENCE_BYTES,
    WRITE_BYTES_PER_S,
    WRITE_GB,
    Workload,
    archiving,
    arriving,
)
from neve.domain.forecast import (
    ARCHIVE_BYTES,
    DEPLOYED,
    LISTED_A_PAGE,
    MEMBER_BYTES,
    RECONCILE_ARCHIVE_S,
    Plan,
    Sizes,
    monthly,
    once,
)
from neve.domain.index import SHARDS
from neve.domain.metering import Class, write_units
from neve.domain.prices import MILLION, Bill, Charge, PriceList
from neve.domain.sampling import MONTH_DAYS, pass_days
from neve.domain.thaw import Tier, audit_micro_usd, offered_tier
from scale import figures as rules
from scale import quotas
from scale.figures import Figure, slowed
from stacks.settings import Settings

FIXED_AT_ONCE: Mapping[str, int] = {
    "StartAudit": 5,
    "VerifyAudit": 10,
    "Reconcile": 5,
}
"""Batches of a function at once, where no setting says how many; a test holds them against the templates."""

THREADS = 16
"""Of StartAudit and Extract."""
BACKFILL_BATCH = 1
"""Messages that CollectBackfill is handed at once."""
INDEX_PAGE = 200
"""Rows in a page of the index as reconciliation reads it."""
ONE_ITEM_UNITS = 2
"""Of a transaction that counts up an item: a claim of a thaw the day's spending, an ended share its job's counters."""
WEEK_H = 168.0
MOST_OVERTAKEN = 0.5
LONGER_WINDOW = "a longer `collect_window_s`: batches that fill bundles pass it by"
MORE_PREFIXES = "keys below more prefixes"
HEADROOM = 1.25
"""A setting is named with so much room above what is needed on average."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit that a rate meets: `used` says how much of it at so many files a second, `most` is all there is.

    `setting` is what changes it in this project, up to `ceiling`; without one it is a Quota's, and `remedy` says what
    to do.
    """

    what: str
    unit: str
    used: Callable[[float], float]
    most: float
    remedy: str
    setting: str = ""
    ceiling: float = 0.0

    @cached_property
    def binds_at(self) -> float:
        """Files a second at which it is used up; inf if never."""
        return _rate_at(self.used, self.most)

    @cached_property
    def ends_at(self) -> float:
        """The same with the setting as high as it goes."""
        return _rate_at(self.used, self.ceiling) if self.setting else self.binds_at

    def needed(self, files_per_s: float) -> int:
        """What to set for this rate, as far as it goes."""
        return min(math.ceil(self.used(files_per_s) * HEADROOM), round(self.ceiling))


HIGHEST = 1e8


def _rate_at(used: Callable[[float], float], most: float) -> float:
    """The highest rate at which no more than `most` is used: it never falls with the rate."""
    low, high = 1e-3, HIGHEST
    if used(high) <= most:
        return math.inf
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if used(middle) <= most else (low, middle)
    return low


@dataclass(frozen=True, kw_only=True)
class Model:
    """Files of one size, kept by a deployment with `settings`; `figures` are those that scale.figures reads.

    Raises ValueError for files over the target: S3 copies each into an archive of its own, which is not reckoned here.
    """

    settings: Settings
    figures: Mapping[str, Figure]
    file_bytes: int = 100_000

    def __post_init__(self) -> None:
        if not 0 < self.file_bytes <= self.settings.target_bytes:
            raise ValueError(f"files have 1 to {self.settings.target_bytes:,} bytes, or S3 copies each by itself")

    # -- Archives and dollars -----------------------------------------------------------------------------------------

    def work(self, files_per_s: float) -> Workload:
        """The files as bundling sees them, in the batches that pollers gather."""
        return replace(self._arriving(files_per_s), batch_files=self.batch(files_per_s))

    def _arriving(self, files_per_s: float) -> Workload:
        return arriving(
            files_per_s,
            window_s=self.settings.collect_window_s,
            file_bytes=self.file_bytes,
            target_bytes=self.settings.target_bytes,
            max_members=self.settings.max_members,
            storage_class=self.settings.storage_class,
            max_age_s=self.settings.max_age_s,
        )

    def plan(self, files: float, files_per_s: float = math.inf) -> Plan:
        """So many files as neve.domain.forecast sees them."""
        return Plan(
            sizes=Sizes(counts=((self.file_bytes, files),)),
            files_per_s=files_per_s,
            storage_class=Class(self.settings.storage_class),
            target_bytes=self.settings.target_bytes,
            max_age_s=self.settings.max_age_s,
            max_members=self.settings.max_members,
            audit_horizon_days=self.settings.audit_horizon_days,
            audit_tier=Tier(self.settings.audit_tier),
            reconciled=self.settings.reconcile_every_week == "yes",
            collect_window_s=self.settings.collect_window_s,
        )

    def usd(self, files: float, prices: PriceList) -> tuple[float, float]:
        """(once, every month), in dollars; bundles are full, as in a backfill."""
        plan = self.plan(files)
        first = Bill(prices=prices, uses=tuple(once(plan)))
        return first.usd, Bill(prices=prices, uses=tuple(monthly(plan, DEPLOYED))).usd

    def usd_per_million(self, files_per_s: float, prices: PriceList) -> float:
        """What archiving a million files takes that arrive at this rate."""
        return Bill(prices=prices, uses=tuple(archiving(self.work(files_per_s)))).usd

    @cached_property
    def members(self) -> int:
        """Files in a full archive."""
        return self._arriving(1.0).members

    @property
    def archive_bytes(self) -> float:
        """Of a full archive."""
        return self.members * (self.file_bytes + MEMBER_BYTES) + ARCHIVE_BYTES

    def archives(self, files: float) -> float:
        """In how many full archives so many files lie."""
        return files / self.members

    def archives_per_s(self, files_per_s: float) -> float:
        """Archives that so many files a second come to."""
        return files_per_s / self._arriving(files_per_s).bundled

    # -- How long things take, in seconds -----------------------------------------------------------------------------

    def collect_s(self, events: float) -> float:
        """An invocation of Collect for so many events: lane, open bundle, a part and counters; and whole bundles."""
        whole = events // self.members
        requests = 4 + 3 * whole
        event_s = slowed(self.figures["collect_event"].value, COLLECT_GB)
        return rules.COLLECT_S + events * event_s + requests * rules.REQUEST.value

    def write_s(self, members: float) -> float:
        """An invocation of WriteArchive."""
        each = slowed(self.figures["write_member"].value, WRITE_GB) + 2 * self.file_bytes / WRITE_BYTES_PER_S
        return rules.WRITE.value + members * each

    @property
    def copy_upload_s(self) -> float:
        """CopyUpload for one upload: pointer read and moved, message sent, copy made and looked at; one by one."""
        cpu_s = slowed(self.figures["copy_upload"].value, COLLECT_GB)
        return cpu_s + 3 * rules.REQUEST.value + rules.S3_REQUEST.value + rules.S3_COPY.value

    @property
    def extract_s(self) -> float:
        """Extract for a whole archive: its files' PUTs, 16 at once, and its bytes, in and out."""
        file_s = max(slowed(self.figures["extract_file"].value, WRITE_GB), rules.S3_REQUEST.value / THREADS)
        return rules.WRITE.value + self.members * file_s + 2 * self.archive_bytes / WRITE_BYTES_PER_S

    @property
    def plan_archive_s(self) -> float:
        """PlanRestore for an archive: its thaw read, claimed, asked for, noted, one archive after the other."""
        return 3 * rules.REQUEST.value + rules.S3_REQUEST.value

    @property
    def plan_file_s(self) -> float:
        """PlanRestore for a file."""
        return slowed(self.figures["plan_file"].value, COPY_GB)

    @property
    def start_audit_s(self) -> float:
        """StartAudit for an archive: its sources read and hashed, as WriteArchive does it."""
        return self.write_s(self.members)

    @property
    def verify_s(self) -> float:
        """VerifyAudit for an archive: read once and hashed."""
        return 1.0 + self.archive_bytes / WRITE_BYTES_PER_S

    # -- Collect's batches --------------------------------------------------------------------------------------------

    @property
    def largest_batch(self) -> float:
        """Events that one poller brings together in its window."""
        gathered = max(1.0, self.settings.collect_window_s) * rules.POLLS.value * 10
        return min(self.settings.collect_batch, gathered)

    @property
    def events_per_poller(self) -> float:
        """Events a second that one poller hands over and waits for, at the most."""
        events = self.largest_batch
        gathering_s = max(self.settings.collect_window_s, events / (rules.POLLS.value * 10))
        return events / (gathering_s + self.collect_s(events))

    def collects(self, files_per_s: float) -> float:
        """Batches of Collect at once: no less than there have to be pollers."""
        return files_per_s / self.events_per_poller

    def batch(self, files_per_s: float) -> int:
        """Events in a batch: what comes in a window to one of the pollers, of which there are five at least."""
        pollers = max(5.0, min(self.collects(files_per_s), self.settings.collect_concurrency))
        pollers = min(pollers, self.settings.collect_concurrency)
        return round(min(self.largest_batch, max(1.0, files_per_s * self.settings.collect_window_s / pollers)))

    # -- Units of DynamoDB --------------------------------------------------------------------------------------------

    def archives_table_writes(self, files_per_s: float) -> float:
        """Units a second: all but the rows of files."""
        uses = archiving(self.work(files_per_s))
        units = sum(
            use.quantity for use in uses if use.charge is Charge.DYNAMODB_WRITE_UNIT and use.purpose != "rows of files"
        )
        return units / MILLION * files_per_s

    def open_bundle_writes(self, files_per_s: float) -> float:
        """Units a second to the open bundle's partition: the parts that pass it, and its counters."""
        batch = self.batch(files_per_s)
        rest = batch % self.members if self._arriving(files_per_s).full else batch
        part = _part_units(rest) if rest else 0
        return files_per_s / batch * (part + 1)

    def overtaken(self, files_per_s: float) -> float:
        """How many bundles the others fill while one Collect notes a part: from its look at the lane to the counters.

        Where that is half a bundle, every other part is refused, deleted, and noted anew.
        """
        batch = self.batch(files_per_s)
        passing = (batch % self.members) / batch if batch >= self.members else 1.0
        return files_per_s * passing * 4 * rules.REQUEST.value / self.members

    def files_table_reads(self, files_per_s: float) -> float:
        """Units a second: half a unit for each row looked up."""
        return files_per_s / 2

    # -- Limits of a rate ---------------------------------------------------------------------------------------------

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """Those of the way from an event to the archive, and of CopyUpload where uploads are offloaded."""
        settings = self.settings
        return (
            _set("Collect", self.collects, settings.collect_concurrency, "collect_concurrency"),
            _set("WriteArchive", self.writes, settings.write_concurrency, "write_concurrency"),
            _quota("all functions of archiving", self.executions, quotas.CONCURRENCY),
            _quota("rows of `files`, table new or long quiet", _same, quotas.NEW_TABLE_WRITES),
            _quota("rows of `files`", _same, quotas.TABLE_WRITES),
            _quota(f"rows of `files`, spread over {SHARDS} keys", lambda rate: rate / SHARDS, quotas.PARTITION_WRITES),
            _quota("look-up in `files`, table new or long quiet", self.files_table_reads, quotas.NEW_TABLE_READS),
            _quota("look-up in `files`", self.files_table_reads, quotas.TABLE_READS),
            _quota("table `archives`, new or long quiet", self.archives_table_writes, quotas.NEW_TABLE_WRITES),
            Limit(
                what="the lane's open bundle, filled while others note a part",
                unit="bundles",
                used=self.overtaken,
                most=MOST_OVERTAKEN,
                remedy=LONGER_WINDOW,
            ),
            _quota(
                "the lane's open bundle, one partition",
                self.open_bundle_writes,
                quotas.PARTITION_WRITES,
                LONGER_WINDOW,
            ),
            _quota(
                "index of unfinished bundles, one partition",
                lambda rate: 2 * self.archives_per_s(rate),
                quotas.PARTITION_WRITES,
                "a larger `target_mib`",
            ),
            _quota(
                "rows of archives, one partition",
                lambda rate: 2 * self.archives_per_s(rate),
                quotas.PARTITION_WRITES,
                "a larger `target_mib`",
            ),
            _quota(
                "counter of serials, one item",
                self.archives_per_s,
                quotas.PARTITION_WRITES,
                "a larger `target_mib`",
            ),
            _quota("uploads into one prefix of the content bucket", _same, quotas.PREFIX_WRITES, MORE_PREFIXES),
            _quota("reading from one prefix of the content bucket", _same, quotas.PREFIX_READS, MORE_PREFIXES),
            _quota(
                "PUTs below archives/, the same below manifests/",
                self.archives_per_s,
                quotas.PREFIX_WRITES,
                "AWS Support",
            ),
            _quota("events received and not deleted", self.in_flight, quotas.IN_FLIGHT),
        )

    @cached_property
    def offloading(self) -> Limit:
        """Where uploads are offloaded: CopyUpload comes before all of it."""
        return _set(
            "CopyUpload (if uploads are offloaded)",
            lambda rate: rate * self.copy_upload_s,
            self.settings.uploads_concurrency,
            "uploads_concurrency",
        )

    def writes(self, files_per_s: float) -> float:
        """Invocations of WriteArchive at once."""
        members = self._arriving(files_per_s).bundled
        return files_per_s / members * self.write_s(members)

    def executions(self, files_per_s: float) -> float:
        """Collect and WriteArchive at once."""
        return self.collects(files_per_s) + self.writes(files_per_s)

    def in_flight(self, files_per_s: float) -> float:
        """Events between their receipt and their deletion."""
        return files_per_s * (self.settings.collect_window_s + self.collect_s(self.batch(files_per_s)))

    def met(self, files_per_s: float) -> list[Limit]:
        """The limits that this rate is beyond, the lowest first."""
        beyond = [limit for limit in self.limits if limit.binds_at < files_per_s]
        return sorted(beyond, key=lambda limit: limit.binds_at)

    def next(self, files_per_s: float) -> Limit:
        """What binds next above this rate, once what binds below it is out of the way."""
        return min((limit for limit in self.limits if limit.binds_at >= files_per_s), key=lambda limit: limit.binds_at)

    # -- Times of a number of files, in hours -------------------------------------------------------------------------

    @cached_property
    def backfill_rates(self) -> dict[str, float]:
        """Files a second that each of the parts of a backfill gets done, with what limits it."""
        one_writer = self.members / self.write_s(self.members)
        listed = LISTED_A_PAGE / (rules.PAGE.value + LISTED_A_PAGE / self.figures["reconciled"].value)
        return {
            "backfill_write_concurrency": self.settings.backfill_write_concurrency * one_writer,
            "backfill_collect_concurrency": self.settings.backfill_collect_concurrency * self._one_backfill_collect,
            "backfill_shards_at_once": self.settings.backfill_shards_at_once * listed,
            "rows of `files`, a table's quota": quotas.TABLE_WRITES.value,
        }

    @property
    def _one_backfill_collect(self) -> float:
        """Files a second that one CollectBackfill notes."""
        events = BACKFILL_BATCH * ANNOUNCED_A_MESSAGE
        return events / self.collect_s(events)

    def backfill(self, *, raised: bool = False) -> tuple[float, str]:
        """(files a second, what limits them); `raised`: with the settings as high as is of use."""
        rates = {
            name: rate for name, rate in self.backfill_rates.items() if not (raised and name in _SETTINGS_OF_BACKFILL)
        }
        slowest = min(rates, key=lambda name: rates[name])
        return rates[slowest], slowest

    @property
    def backfill_writers(self) -> int:
        """What to set backfill_write_concurrency to, for a backfill as fast as the rest of it goes."""
        rate, _ = self.backfill(raised=True)
        return math.ceil(rate / self.members * self.write_s(self.members))

    @property
    def backfill_collects(self) -> int:
        """The same of backfill_collect_concurrency."""
        return math.ceil(self.backfill(raised=True)[0] / self._one_backfill_collect)

    def reconcile_h(self, files: float) -> float:
        """A pass of Reconcile: the listing, the index page after page, the processor's part; each archive with its
        manifest and its members' rows. Five shards at once.
        """
        version_s = 1 / self.figures["reconciled"].value + rules.PAGE.value / 1000 + rules.REQUEST.value / INDEX_PAGE
        archives_s = self.archives(files) * RECONCILE_ARCHIVE_S
        return (files * version_s + archives_s) / FIXED_AT_ONCE["Reconcile"] / 3600

    def audits_per_day(self, files: float) -> float:
        """Archives that the rolling pass thaws in a day."""
        horizon_days = self.settings.audit_horizon_days
        return self.archives(files) / pass_days(horizon_days) if horizon_days else 0.0

    def audits_at_once(self, files: float) -> tuple[float, float]:
        """(StartAudit, VerifyAudit) at once, on average."""
        per_s = self.audits_per_day(files) / 86_400
        return per_s * self.start_audit_s, per_s * self.verify_s

    def audit_usd(self, files: float) -> float:
        """What the rolling pass thaws and reads in a month, as its budget counts it."""
        tier = offered_tier(self.settings.storage_class, Tier(self.settings.audit_tier))
        each = audit_micro_usd(self.settings.storage_class, tier, size_bytes=round(self.archive_bytes)) / MILLION
        return self.audits_per_day(files) * MONTH_DAYS * each

    def rows_s(self, files: float) -> float:
        """Reading the rows of all archives in one go, as the first audit of a month and each drill do."""
        return self.archives(files) / MILLION * rules.ARCHIVE_ROWS.value

    def restore(self, archives: float, files: float) -> dict[str, float]:
        """Hours that each part of a restore of `files` takes, which lie in `archives`, without S3's time to thaw."""
        planning_s = archives * self.plan_archive_s + files * self.plan_file_s
        share = files / (archives * self.members)
        extract_s = rules.WRITE.value + share * (self.extract_s - rules.WRITE.value)
        return {
            "plan_concurrency": planning_s / self.settings.plan_concurrency / 3600,
            "restore_requests_per_s": archives / self.settings.restore_requests_per_s / 3600,
            "the day's spending and the job's counters, one item each": archives
            * ONE_ITEM_UNITS
            / quotas.PARTITION_WRITES.value
            / 3600,
            "RestoreObject, 1,000 a second": archives / quotas.RESTORES.value / 3600,
            "1 PB a day": archives * self.archive_bytes / quotas.RESTORED_BYTES.value * 24,
            "extract_concurrency": archives * extract_s / self.settings.extract_concurrency / 3600,
        }

    @cached_property
    def growing(self) -> tuple[Ending, ...]:
        """What ends with a number of files, the lowest first."""
        return tuple(
            sorted(
                (
                    Ending(
                        what="the audits' budget in dollars",
                        files=_files_at(self.audit_usd, self.settings.audit_budget_usd),
                        remedy="`audit_budget_usd`",
                    ),
                    Ending(
                        what="reading the rows of all archives, in Drill and in a month's first StartAudit",
                        files=_files_at(self.rows_s, quotas.TIMEOUT.value),
                        remedy="a larger `target_mib`; beyond that these two have to read in pieces, which they do not",
                    ),
                    Ending(
                        what="a pass of Reconcile within its week",
                        files=_files_at(self.reconcile_h, WEEK_H),
                        remedy="S3 Inventory (`inventory`), or `reconcile_every_week=no` and passes by hand",
                    ),
                    Ending(
                        what="StartAudit, 5 at once",
                        files=_files_at(lambda files: self.audits_at_once(files)[0], FIXED_AT_ONCE["StartAudit"]),
                        remedy="a longer `audit_horizon_days`, or `audit_source=stated`",
                    ),
                ),
                key=lambda ending: ending.files,
            )
        )


_SETTINGS_OF_BACKFILL = ("backfill_collect_concurrency", "backfill_write_concurrency", "backfill_shards_at_once")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """With so many files something no longer keeps up; `remedy` says what to do."""

    what: str
    files: float
    remedy: str


def _files_at(used: Callable[[float], float], most: float) -> float:
    """The number of files at which `used`, which is proportional to it, comes to `most`."""
    used_up = used(1e9)
    return most / used_up * 1e9 if used_up else math.inf


def _same(files_per_s: float) -> float:
    return files_per_s


def _part_units(references: float) -> int:
    return write_units(round(references * REFERENCE_BYTES + PART_ITEM_BYTES))


def _set(what: str, used: Callable[[float], float], most: float, setting: str) -> Limit:
    return Limit(
        what=f"{what} at once",
        unit="at once",
        used=used,
        most=most,
        setting=setting,
        ceiling=quotas.MAPPING.value,
        remedy=f"`{setting}`",
    )


def _quota(what: str, used: Callable[[float], float], quota: quotas.Quota, remedy: str = "") -> Limit:
    return Limit(what=what, unit=quota.unit, used=used, most=quota.value, remedy=remedy or quota.remedy)


def partitions(units_per_s: float) -> int:
    """How many partitions a table has to have for so many write units a second."""
    return max(1, math.ceil(units_per_s / quotas.PARTITION_WRITES.value))
