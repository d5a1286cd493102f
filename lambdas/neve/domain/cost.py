"""What archiving costs: a dated price list, the bill of what was counted, and an estimate for full bundles.

In scope is what varies with the number of files, from the content bucket's event to `archived`: requests and Lambda
time. Storage, logs, and what a month costs without any file are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

MILLION = 1_000_000


class Charge(StrEnum):
    """What AWS meters, in its own unit."""

    S3_PUT = "S3 PUT, COPY, POST, LIST"
    S3_PUT_GLACIER = "S3 PUT into GLACIER"
    S3_PUT_DEEP_ARCHIVE = "S3 PUT into DEEP_ARCHIVE"
    S3_PUT_GLACIER_IR = "S3 PUT into GLACIER_IR"
    S3_GET = "S3 GET, HEAD"
    SQS_REQUEST = "SQS request"
    DYNAMODB_WRITE_UNIT = "DynamoDB write unit"
    DYNAMODB_READ_UNIT = "DynamoDB read unit"
    LAMBDA_REQUEST = "Lambda request"
    LAMBDA_GB_SECOND = "Lambda GB-second, arm64"
    S3_STANDARD_GB_MONTH = "S3 STANDARD GB-month"
    GLACIER_EXPEDITED_GB = "GLACIER GB retrieved, Expedited"
    GLACIER_EXPEDITED_REQUEST = "GLACIER retrieval request, Expedited"
    GLACIER_STANDARD_GB = "GLACIER GB retrieved, Standard"
    GLACIER_STANDARD_REQUEST = "GLACIER retrieval request, Standard"
    GLACIER_BULK_GB = "GLACIER GB retrieved, Bulk"
    GLACIER_BULK_REQUEST = "GLACIER retrieval request, Bulk"
    DEEP_ARCHIVE_STANDARD_GB = "DEEP_ARCHIVE GB retrieved, Standard"
    DEEP_ARCHIVE_STANDARD_REQUEST = "DEEP_ARCHIVE retrieval request, Standard"
    DEEP_ARCHIVE_BULK_GB = "DEEP_ARCHIVE GB retrieved, Bulk"
    DEEP_ARCHIVE_BULK_REQUEST = "DEEP_ARCHIVE retrieval request, Bulk"
    GLACIER_IR_GB = "GLACIER_IR GB retrieved"
    GLACIER_IR_GET = "GLACIER_IR GET"


@dataclass(frozen=True, kw_only=True)
class Price:
    """`usd` for `per` units."""

    usd: float
    per: int
    source: str


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """List prices of a region. `checked` is when they were, such as "2026-10" for October 2026."""

    region: str
    checked: str
    prices: Mapping[Charge, Price]

    def usd(self, charge: Charge, quantity: float) -> float:
        """What `quantity` units of `charge` cost."""
        price = self.prices[charge]
        return quantity * price.usd / price.per


_S3 = "https://aws.amazon.com/s3/pricing/"
_SQS = "https://aws.amazon.com/sqs/pricing/"
_DYNAMODB = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_LAMBDA = "https://aws.amazon.com/lambda/pricing/"

US_EAST_1 = PriceList(
    region="us-east-1",
    checked="autumn 2026",
    prices={
        Charge.S3_PUT: Price(usd=0.005, per=1_000, source=_S3),
        Charge.S3_PUT_GLACIER: Price(usd=0.03, per=1_000, source=_S3),
        Charge.S3_PUT_DEEP_ARCHIVE: Price(usd=0.05, per=1_000, source=_S3),
        Charge.S3_PUT_GLACIER_IR: Price(usd=0.02, per=1_000, source=_S3),
        Charge.S3_GET: Price(usd=0.0004, per=1_000, source=_S3),
        Charge.SQS_REQUEST: Price(usd=0.40, per=MILLION, source=_SQS),
        Charge.DYNAMODB_WRITE_UNIT: Price(usd=0.625, per=MILLION, source=_DYNAMODB),
        Charge.DYNAMODB_READ_UNIT: Price(usd=0.125, per=MILLION, source=_DYNAMODB),
        Charge.LAMBDA_REQUEST: Price(usd=0.20, per=MILLION, source=_LAMBDA),
        Charge.LAMBDA_GB_SECOND: Price(usd=0.0000133334, per=1, source=_LAMBDA),
        Charge.S3_STANDARD_GB_MONTH: Price(usd=0.023, per=1, source=_S3),
        Charge.GLACIER_EXPEDITED_GB: Price(usd=0.03, per=1, source=_S3),
        Charge.GLACIER_EXPEDITED_REQUEST: Price(usd=10.0, per=1_000, source=_S3),
        Charge.GLACIER_STANDARD_GB: Price(usd=0.01, per=1, source=_S3),
        Charge.GLACIER_STANDARD_REQUEST: Price(usd=0.05, per=1_000, source=_S3),
        Charge.GLACIER_BULK_GB: Price(usd=0.0, per=1, source=_S3),
        Charge.GLACIER_BULK_REQUEST: Price(usd=0.0, per=1_000, source=_S3),
        Charge.DEEP_ARCHIVE_STANDARD_GB: Price(usd=0.02, per=1, source=_S3),
        Charge.DEEP_ARCHIVE_STANDARD_REQUEST: Price(usd=0.10, per=1_000, source=_S3),
        Charge.DEEP_ARCHIVE_BULK_GB: Price(usd=0.0025, per=1, source=_S3),
        Charge.DEEP_ARCHIVE_BULK_REQUEST: Price(usd=0.025, per=1_000, source=_S3),
        Charge.GLACIER_IR_GB: Price(usd=0.03, per=1, source=_S3),
        Charge.GLACIER_IR_GET: Price(usd=0.01, per=1_000, source=_S3),
    },
)
"""Without free tiers and volume discounts."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """`quantity` units of `charge`, for `purpose`.

    `rule` says how the quantity was arrived at where it was not counted. `unseen` is what no SDK sees, so that it can
    never be counted by who pays for it: S3's own sends, a mapping's receives, Lambda's time.
    """

    purpose: str
    charge: Charge
    quantity: float
    rule: str = ""
    unseen: bool = False


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Uses at the prices of one list."""

    prices: PriceList
    uses: tuple[Use, ...]

    @property
    def usd(self) -> float:
        """The sum."""
        return sum(self.usd_of(use) for use in self.uses)

    def usd_of(self, use: Use) -> float:
        """What one use costs."""
        return self.prices.usd(use.charge, use.quantity)

    def scaled(self, factor: float) -> Bill:
        """The bill for `factor` times as much of everything."""
        return replace(self, uses=tuple(replace(use, quantity=use.quantity * factor) for use in self.uses))


def archive_put(storage_class: str) -> Charge:
    """What one PUT into the archive's storage class is metered as. Raises KeyError for a class neve does not use."""
    return {
        "GLACIER": Charge.S3_PUT_GLACIER,
        "DEEP_ARCHIVE": Charge.S3_PUT_DEEP_ARCHIVE,
        "GLACIER_IR": Charge.S3_PUT_GLACIER_IR,
    }[storage_class]


# -- What was counted ----------------------------------------------------------------------------------------------

_GETS = frozenset({"GetObject", "HeadObject", "GetObjectTagging"})
_FREE = frozenset({"AbortMultipartUpload", "DeleteObject"})
_LARGE_WRITES = frozenset({"CopyObject", "CreateMultipartUpload", "UploadPartCopy", "CompleteMultipartUpload"})
"""Requests that put a large object into the archive's class. Whether S3 charges parts at the rate of STANDARD is not
certain, so they count at the class's own."""


def counted(
    requests: Mapping[str, int], *, write_units: float, read_units: float, tars: int, storage_class: str
) -> list[Use]:
    """What the functions' ledgers say, as uses. `requests` counts by "service:Operation".

    `tars` of the PutObject requests went into the archive's storage class, the others (manifests) into STANDARD.
    DynamoDB charges units, not requests. Raises ValueError for a request that this price list has no line for: it must
    not pass as free.
    """
    uses: list[Use] = []
    for name, quantity in sorted(requests.items()):
        service, _, operation = name.partition(":")
        if service == "sqs":
            uses.append(Use(purpose=name, charge=Charge.SQS_REQUEST, quantity=quantity))
        elif service == "s3" and operation not in _FREE:
            uses += _s3(operation, quantity, tars, archive_put(storage_class))
        elif service not in ("s3", "dynamodb"):
            raise ValueError(f"no price is known for {name}")
    uses.append(Use(purpose="dynamodb writes", charge=Charge.DYNAMODB_WRITE_UNIT, quantity=write_units))
    uses.append(Use(purpose="dynamodb reads", charge=Charge.DYNAMODB_READ_UNIT, quantity=read_units))
    return uses


def _s3(operation: str, quantity: int, tars: int, into_class: Charge) -> list[Use]:
    name = f"s3:{operation}"
    if operation in _GETS:
        return [Use(purpose=name, charge=Charge.S3_GET, quantity=quantity)]
    if operation in _LARGE_WRITES:
        return [Use(purpose=name, charge=into_class, quantity=quantity)]
    if operation == "PutObject":
        archives = min(tars, quantity)
        return [
            Use(purpose=f"{name} of archives", charge=into_class, quantity=archives),
            Use(purpose=f"{name} of manifests", charge=Charge.S3_PUT, quantity=quantity - archives),
        ]
    if operation == "ListParts":
        return [Use(purpose=name, charge=Charge.S3_PUT, quantity=quantity)]
    raise ValueError(f"no price is known for {name}")


MESSAGES_A_REQUEST = 10
"""SQS hands out and deletes up to ten messages in a request; a mapping with larger batches gathers several."""


def unseen(
    *, events: float, requests_to_write: float, invocations: float, gb_seconds: float, gb_seconds_rule: str
) -> list[Use]:
    """What no SDK sees. `events` are S3's, `requests_to_write` the messages that have a bundle written."""
    return [
        *_events(events),
        _hidden(
            "receiving and deleting requests to write",
            Charge.SQS_REQUEST,
            2 * requests_to_write,
            "those mappings hand over one message at a time",
        ),
        _hidden("invocations", Charge.LAMBDA_REQUEST, invocations, "one for each batch of messages"),
        _hidden("time of the functions", Charge.LAMBDA_GB_SECOND, gb_seconds, gb_seconds_rule),
    ]


def _events(events: float) -> list[Use]:
    return [
        _hidden("S3's events to the collect queue", Charge.SQS_REQUEST, events, "S3 sends one message for each upload"),
        _hidden(
            "receiving and deleting events",
            Charge.SQS_REQUEST,
            2 * events / MESSAGES_A_REQUEST,
            "the mapping receives and deletes ten messages in a request",
        ),
    ]


def _hidden(purpose: str, charge: Charge, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=charge, quantity=quantity, rule=rule, unseen=True)


# -- What full bundles take ----------------------------------------------------------------------------------------

REFERENCE_BYTES = 90
"""A reference in a part, compressed: half of it is the version id and the ETag, which are random."""
PART_ITEM_BYTES = 120
"""What a part's item has besides: its keys and its time to live."""

COLLECT_GB = 512 / 1024
COLLECT_S = 0.1
COLLECT_EVENT_S = 0.0003
WRITE_GB = 1769 / 1024
WRITE_S = 0.3
WRITE_MEMBER_S = 0.004
WRITE_BYTES_PER_S = 75_000_000
LATE_TIMER_S = 0.03
"""Memory as the stack sets it. WriteArchive: a dozen requests one after the other; per member a GET, hashes and a row
at one whole processor; and the bytes, in and out, at the network of one environment (about 75 MB/s)."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Files of one size that come fast enough to fill their bundles before the timer runs out.

    `batch_files` is how many events one Collect is handed: it grows with the rate of arrival, up to 1,000 as deployed.
    """

    file_bytes: int = 100_000
    batch_files: int = 1_000
    target_bytes: int = 25 * 1024 * 1024
    max_members: int = 2_000
    storage_class: str = "GLACIER"

    @property
    def members(self) -> int:
        """In a full bundle: the file that fills it still goes in."""
        return min(math.ceil(self.target_bytes / self.file_bytes), self.max_members)


def full_bundles(work: Workload, files: float = MILLION) -> list[Use]:
    """What archiving `files` of `work` takes: named amounts per file, per Collect batch, per archive.

    A batch fills as many bundles as it can by itself; its rest goes to the open bundle that the lane names. Retries,
    races between Collects, and duplicates are not in it.
    """
    archives = files / work.members
    batches = files / work.batch_files
    whole = batches * (work.batch_files // work.members)
    rest = work.batch_files % work.members
    opened = archives - whole if rest else 0.0
    adds = batches + opened if rest else 0.0
    part = _part_units(rest * batches / adds) if rest else 0

    collect_s = batches * COLLECT_S + files * COLLECT_EVENT_S
    write_s = archives * (WRITE_S + work.members * (WRITE_MEMBER_S + 2 * work.file_bytes / WRITE_BYTES_PER_S))
    late_s = opened * LATE_TIMER_S
    return [
        *unseen(
            events=files,
            requests_to_write=archives + opened,
            invocations=batches + archives + opened,
            gb_seconds=collect_s * COLLECT_GB + (write_s + late_s) * WRITE_GB,
            gb_seconds_rule=f"Collect {COLLECT_S} s and {COLLECT_EVENT_S} s an event; WriteArchive {WRITE_S} s, "
            f"{WRITE_MEMBER_S} s a member, and its bytes in and out at {WRITE_BYTES_PER_S / MILLION:.0f} MB/s",
        ),
        *_objects(work, files),
        Use(
            purpose="requests to write",
            charge=Charge.SQS_REQUEST,
            quantity=archives + opened,
            rule="one when a bundle is full, and one, delayed, that is its timer",
        ),
        _writes("parts of the open bundle", adds * part, f"{part} units for the references of a batch"),
        _writes("parts of whole bundles", whole * _part_units(work.members), "the references of a whole bundle"),
        _writes("counters of the open bundle", adds, "one update for each part"),
        _writes("opened bundles", opened * 3, "row, its entry in the index of unfinished ones, lane"),
        _writes("sealed bundles", whole * 2, "row, its entry in the index of unfinished ones"),
        _writes("claims", archives + opened, "one for each request to write; a timer that comes late is refused"),
        _writes("serial numbers", archives * 2, "counter, bundle"),
        _writes("rows of archives", archives * 2, "written, archived"),
        _writes("finished bundles", archives * 2, "row, its entry in the index of unfinished ones"),
        _reads("look-up of rows that stand", files * 0.5, "half a unit a row, found or not: eventually consistent"),
        _reads("lane and open bundle", adds * 2 + opened, "two consistent reads for each part, one for a late timer"),
        _reads("parts", archives * math.ceil(work.members * REFERENCE_BYTES / 4096), "consistent, 4 KB a unit"),
    ]


def floor(work: Workload, files: float = MILLION) -> list[Use]:
    """What S3, SQS and DynamoDB charge at the least, however the functions are written."""
    return [*_events(files), *_objects(work, files)]


def _objects(work: Workload, files: float) -> list[Use]:
    """Each file read once and given a row; each archive and its manifest written once."""
    archives = files / work.members
    return [
        Use(purpose="reading files", charge=Charge.S3_GET, quantity=files, rule="one GET a file"),
        _writes("rows of files", files, "one unit a row"),
        Use(
            purpose="archives",
            charge=archive_put(work.storage_class),
            quantity=archives,
            rule=f"one PUT for {work.members} files",
        ),
        Use(purpose="manifests", charge=Charge.S3_PUT, quantity=archives, rule="one PUT for each archive"),
    ]


def _part_units(references: float) -> int:
    return math.ceil((references * REFERENCE_BYTES + PART_ITEM_BYTES) / 1024)


def _writes(purpose: str, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=Charge.DYNAMODB_WRITE_UNIT, quantity=quantity, rule=rule)


def _reads(purpose: str, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=Charge.DYNAMODB_READ_UNIT, quantity=quantity, rule=rule)
