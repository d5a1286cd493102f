"""How AWS meters: what of a size, a time or a number is charged, rounded as AWS rounds it. Each rule has its source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from neve.domain.prices import GB, Charge, Use

KIB = 1024


class Class(StrEnum):
    """The storage classes of S3 that files are compared in."""

    STANDARD = "STANDARD"
    STANDARD_IA = "STANDARD_IA"
    INTELLIGENT_TIERING = "INTELLIGENT_TIERING"
    GLACIER_IR = "GLACIER_IR"
    GLACIER = "GLACIER"
    DEEP_ARCHIVE = "DEEP_ARCHIVE"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a class charges an object for. `month` is the charge of a GB-month, `put` that of a PUT.

    `transition` is that of a lifecycle transition into it, None where neve compares none. Objects count with at least
    `least_bytes`, and for at least `least_days`; `own_bytes` are added at the class's rate and `standard_bytes` at that
    of STANDARD. Source: S3 pricing page, footnotes of "Storage"; S3 user guide, "Comparing the storage classes".
    """

    month: Charge
    put: Charge
    transition: Charge | None = None
    least_bytes: int = 0
    least_days: int = 0
    own_bytes: int = 0
    standard_bytes: int = 0


TERMS: dict[Class, Terms] = {
    Class.STANDARD: Terms(month=Charge.S3_STANDARD_GB_MONTH, put=Charge.S3_PUT),
    Class.STANDARD_IA: Terms(
        month=Charge.S3_STANDARD_IA_GB_MONTH, put=Charge.S3_PUT_STANDARD_IA, least_bytes=128 * KIB, least_days=30
    ),
    Class.INTELLIGENT_TIERING: Terms(month=Charge.TIERING_ARCHIVE_GB_MONTH, put=Charge.S3_PUT),
    Class.GLACIER_IR: Terms(
        month=Charge.GLACIER_IR_GB_MONTH,
        put=Charge.S3_PUT_GLACIER_IR,
        transition=Charge.S3_TO_GLACIER_IR,
        least_bytes=128 * KIB,
        least_days=90,
    ),
    Class.GLACIER: Terms(
        month=Charge.GLACIER_GB_MONTH,
        put=Charge.S3_PUT_GLACIER,
        transition=Charge.S3_TO_GLACIER,
        least_days=90,
        own_bytes=32 * KIB,
        standard_bytes=8 * KIB,
    ),
    Class.DEEP_ARCHIVE: Terms(
        month=Charge.DEEP_ARCHIVE_GB_MONTH,
        put=Charge.S3_PUT_DEEP_ARCHIVE,
        transition=Charge.S3_TO_DEEP_ARCHIVE,
        least_days=180,
        own_bytes=32 * KIB,
        standard_bytes=8 * KIB,
    ),
}

MONITORED_BYTES = 128 * KIB
"""Intelligent-Tiering neither monitors nor moves smaller objects: they stay at the rate of STANDARD. Lifecycle leaves
them where they are, too, unless told otherwise. Source: S3 user guide, "Considerations" of both."""


def stored(purpose: str, storage_class: Class, *, objects: float, object_bytes: float, months: float = 1) -> list[Use]:
    """What keeping so many objects of a size for some months takes."""
    if storage_class is Class.INTELLIGENT_TIERING:
        return _tiered(purpose, objects=objects, object_bytes=object_bytes, months=months)
    terms = TERMS[storage_class]
    billed = max(object_bytes, terms.least_bytes) + terms.own_bytes
    rules = [
        f"at least {terms.least_bytes // KIB} KB each" if object_bytes < terms.least_bytes else "",
        f"with {terms.own_bytes // KIB} KB of S3's index each" if terms.own_bytes else "",
    ]
    uses = [Use(purpose=purpose, charge=terms.month, quantity=objects * billed / GB * months, rule="".join(rules))]
    if terms.standard_bytes:
        names = Use(
            purpose=f"{purpose}: names",
            charge=Charge.S3_STANDARD_GB_MONTH,
            quantity=objects * terms.standard_bytes / GB * months,
            rule=f"{terms.standard_bytes // KIB} KB each at the rate of STANDARD",
        )
        uses.append(names)
    return uses


def _tiered(purpose: str, *, objects: float, object_bytes: float, months: float) -> list[Use]:
    """As it settles after 90 days without a read, which is what a second copy is: the tier Archive Instant Access."""
    gb_months = objects * object_bytes / GB * months
    if object_bytes < MONITORED_BYTES:
        return [
            Use(
                purpose=purpose,
                charge=Charge.S3_STANDARD_GB_MONTH,
                quantity=gb_months,
                rule="objects below 128 KB stay at the rate of STANDARD",
            )
        ]
    return [
        Use(
            purpose=purpose,
            charge=Charge.TIERING_ARCHIVE_GB_MONTH,
            quantity=gb_months,
            rule="once they were not read for 90 days",
        ),
        Use(purpose="monitoring", charge=Charge.TIERING_OBJECT_MONTH, quantity=objects * months),
    ]


def write_units(size_bytes: int, *, transactional: bool = False) -> int:
    """DynamoDB's units for writing an item: one for each KB begun, twice that in a transaction.

    Source: DynamoDB developer guide, "On-demand capacity mode".
    """
    return max(1, math.ceil(size_bytes / KIB)) * (2 if transactional else 1)


def read_units(size_bytes: int, *, consistent: bool = True) -> float:
    """DynamoDB's units for reading an item: one for each 4 KB begun, half if eventually consistent.

    Source: as of write_units.
    """
    return max(1, math.ceil(size_bytes / (4 * KIB))) * (1 if consistent else 0.5)


def sqs_requests(payload_bytes: int) -> int:
    """What a request with such a payload counts for: one for each 64 KB begun. Source: SQS pricing page."""
    return max(1, math.ceil(payload_bytes / (64 * KIB)))


def gb_seconds(memory_mib: int, duration_ms: float) -> float:
    """What an invocation is charged for, its duration rounded up to the millisecond. Source: Lambda pricing page."""
    return memory_mib / 1024 * math.ceil(duration_ms) / 1000


def early_days(storage_class: Class, kept_days: float) -> float:
    """For how many days after it was deleted an object is still charged for."""
    return max(0.0, TERMS[storage_class].least_days - kept_days)
