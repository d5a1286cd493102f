"""How AWS meters: what of a size, a time or a number is charged, rounded as AWS rounds it. Each rule has its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from neve.domain.prices import GB, Charge, Use
from neve.domain.thaw import RETRIEVAL, Tier

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


# -- Requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a request, with what the charge for it depends on.

    `service` and `operation` are named as botocore does. `status` is that of the answer, 0 if there was none, `error`
    its code. `storage_class` is what an object is written into or lies in, "" if that is not known; `tier` that of a
    thaw. `payload_bytes` are those of messages, of what is read, thawed or written; `items` is what they belong to.
    `units` is what DynamoDB states, None if it states nothing. `decrypts`: the answer is decrypted.
    """

    service: str
    operation: str
    status: int = 200
    error: str = ""
    storage_class: str = Class.STANDARD.value
    tier: Tier | None = None
    payload_bytes: int = 0
    items: int = 1
    units: float | None = None
    decrypts: bool = False

    @property
    def name(self) -> str:
        """Such as "s3:GetObject"."""
        return f"{self.service}:{self.operation}"


@dataclass(frozen=True, kw_only=True)
class Metered:
    """What AWS charges for an attempt, in units of each charge.

    `imputed` is what no answer states, so that a rule has to say it. `unpriced` names the attempt if no rule knows it.
    """

    counted: Mapping[Charge, float] = field(default_factory=dict)
    imputed: Mapping[Charge, float] = field(default_factory=dict)
    unpriced: str = ""


FREE = Metered()

_S3_GETS = frozenset(
    {
        "GetBucketLifecycleConfiguration",
        "GetBucketLocation",
        "GetBucketNotificationConfiguration",
        "GetBucketVersioning",
        "GetObjectTagging",
        "HeadBucket",
    }
)
_S3_PUTS = frozenset(
    {
        "ListMultipartUploads",
        "ListObjectVersions",
        "ListObjectsV2",
        "ListParts",
        "PutBucketLifecycleConfiguration",
        "PutBucketNotificationConfiguration",
        "PutObjectTagging",
    }
)
_S3_FREE = frozenset({"AbortMultipartUpload", "DeleteObject", "DeleteObjects"})
"""DELETE and CANCEL are free; a listing is charged as a PUT, all else as a GET. Source: S3 pricing page, "Requests"."""

_READ_AS_STANDARD = frozenset({"STANDARD", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE"})

_DYNAMODB_READS = frozenset({"BatchGetItem", "GetItem", "Query", "Scan"})
_DYNAMODB_WRITES = frozenset(
    {"BatchExecuteStatement", "BatchWriteItem", "DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"}
)
_REFUSALS = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})
"""A write whose condition does not hold is charged, but its answer states no units. Source: DynamoDB developer guide,
"Working with items", "Condition expressions"; and "Transactions: capacity management". What was throttled, denied or
not understood takes none."""

_WITHOUT_CHARGE = frozenset(
    {
        "cloudformation:DescribeStacks",
        "dynamodb:DescribeTable",
        "pricing:GetProducts",
        "sfn:DescribeExecution",
        "sfn:DescribeMapRun",
        "sfn:ListExecutions",
        "sfn:ListMapRuns",
        "sfn:StartExecution",
        "sfn:StopExecution",
        "ssm:GetParameter",
        "sts:GetCallerIdentity",
    }
)
"""Step Functions charges transitions, not these requests; Systems Manager nothing for standard parameters. Source: the
pricing page of each."""


def metered(attempt: Attempt) -> Metered:
    """What AWS charges for the attempt. Each service's rule names its source."""
    if attempt.name in _WITHOUT_CHARGE:
        # A SecureString is decrypted by KMS, at its price. Source: Systems Manager user guide, "SecureString".
        return Metered(imputed={Charge.KMS_REQUEST: 1}) if attempt.decrypts else FREE
    rule = _RULES.get(attempt.service)
    return rule(attempt) if rule else Metered(unpriced=attempt.name)


def _sqs(attempt: Attempt) -> Metered:
    """Every action is a request, or several if its payload is large. Source: SQS pricing page."""
    return Metered(counted={Charge.SQS_REQUEST: sqs_requests(attempt.payload_bytes)})


def _sns(attempt: Attempt) -> Metered:
    """64 KB each, as SQS. Source: SNS pricing page, "Standard topics"."""
    if attempt.operation not in ("Publish", "PublishBatch"):
        return Metered(unpriced=attempt.name)
    return Metered(counted={Charge.SNS_PUBLISH: sqs_requests(attempt.payload_bytes)})


def _kms(_: Attempt) -> Metered:
    """Every request alike, of what a symmetric key does. Source: KMS pricing page."""
    return Metered(counted={Charge.KMS_REQUEST: 1})


def _cloudwatch(attempt: Attempt) -> Metered:
    """By the metrics that are asked for. Source: CloudWatch pricing page, "API requests"."""
    if attempt.operation != "GetMetricData":
        return Metered(unpriced=attempt.name)
    return Metered(counted={Charge.METRIC_READ: attempt.items})


def _s3(attempt: Attempt) -> Metered:
    """5xx are not billed, other errors are. Source: S3 user guide, "Billing for Amazon S3 error responses"."""
    operation = attempt.operation
    if attempt.status >= 500 or operation in _S3_FREE:
        return FREE
    if operation in _S3_GETS:
        return Metered(counted={Charge.S3_GET: 1})
    if operation in _S3_PUTS:
        return Metered(counted={Charge.S3_PUT: 1})
    rule = _S3_RULES.get(operation)
    return rule(attempt) if rule else Metered(unpriced=attempt.name)


def _write(attempt: Attempt) -> Metered:
    """At the rate of the class that it is written into."""
    if attempt.storage_class not in Class.__members__:
        return Metered(unpriced=f"{attempt.name} into {attempt.storage_class or 'an unknown class'}")
    return Metered(counted={TERMS[Class(attempt.storage_class)].put: 1})


def _write_part(attempt: Attempt) -> Metered:
    """Parts on their way into GLACIER and DEEP_ARCHIVE are charged as STANDARD, only what completes them as the class.

    Source: S3 user guide, "Multipart upload and pricing".
    """
    return Metered(counted={Charge.S3_PUT: 1}) if attempt.storage_class in RETRIEVAL else _write(attempt)


def _read(attempt: Attempt) -> Metered:
    """GLACIER_IR has a rate of its own, and charges for the bytes; what is thawed is read at the usual one.

    Source: S3 pricing page, "Requests & data retrievals".
    """
    if attempt.storage_class in _READ_AS_STANDARD:
        return Metered(counted={Charge.S3_GET: 1})
    if attempt.storage_class != Class.GLACIER_IR:
        return Metered(unpriced=f"{attempt.name} from {attempt.storage_class}")
    retrieved = {Charge.GLACIER_IR_GB: attempt.payload_bytes / GB} if attempt.operation == "GetObject" else {}
    return Metered(counted={Charge.GLACIER_IR_GET: 1, **retrieved})


def _thaw(attempt: Attempt) -> Metered:
    """202: S3 retrieves, and tells the topic when it is done. Who asks for what is warm or thawing pays the request.

    Source: S3 user guide, "Restoring an archived object".
    """
    by_tier = RETRIEVAL.get(attempt.storage_class, {})
    if attempt.tier is None or attempt.tier not in by_tier:
        return Metered(unpriced=attempt.name)
    by_gb, by_request = by_tier[attempt.tier]
    if attempt.status != 202:
        return Metered(counted={by_request: 1})
    return Metered(
        counted={by_request: 1, by_gb: attempt.payload_bytes / GB},
        imputed={Charge.SNS_PUBLISH: 1},
    )


def _dynamodb(attempt: Attempt) -> Metered:
    """What the answer states; where it states nothing, what the bytes sent or received come to."""
    reads = attempt.operation in _DYNAMODB_READS
    if not reads and attempt.operation not in _DYNAMODB_WRITES:
        return Metered(unpriced=attempt.name)
    charge = Charge.DYNAMODB_READ_UNIT if reads else Charge.DYNAMODB_WRITE_UNIT
    if attempt.units is not None:
        return Metered(counted={charge: attempt.units})
    if attempt.status not in (0, 200) and attempt.error not in _REFUSALS:
        return FREE
    transactional = attempt.operation == "TransactWriteItems"
    each = math.ceil(attempt.payload_bytes / attempt.items)
    units = read_units(each) if reads else write_units(each, transactional=transactional)
    return Metered(imputed={charge: attempt.items * units})


_RULES: Mapping[str, Callable[[Attempt], Metered]] = {
    "cloudwatch": _cloudwatch,
    "dynamodb": _dynamodb,
    "kms": _kms,
    "s3": _s3,
    "sns": _sns,
    "sqs": _sqs,
}
_S3_RULES: Mapping[str, Callable[[Attempt], Metered]] = {
    "CompleteMultipartUpload": _write,
    "CopyObject": _write,
    "CreateMultipartUpload": _write_part,
    "GetObject": _read,
    "HeadObject": _read,
    "PutObject": _write,
    "RestoreObject": _thaw,
    "UploadPart": _write_part,
    "UploadPartCopy": _write_part,
}

COUNTABLE = frozenset(
    {
        Charge.DYNAMODB_READ_UNIT,
        Charge.DYNAMODB_WRITE_UNIT,
        Charge.GLACIER_IR_GB,
        Charge.GLACIER_IR_GET,
        Charge.KMS_REQUEST,
        Charge.METRIC_READ,
        Charge.S3_GET,
        Charge.SNS_PUBLISH,
        Charge.SQS_REQUEST,
        *(terms.put for terms in TERMS.values()),
        *(charge for by_tier in RETRIEVAL.values() for charges in by_tier.values() for charge in charges),
    }
)
"""All that a rule may count."""


# -- What no SDK sees ------------------------------------------------------------------------------------------------


MESSAGES_A_REQUEST = 10
"""SQS hands out and deletes up to ten messages in a request; a mapping with larger batches gathers several. Source: SQS
developer guide, "Batch actions"."""


def delivered(sizes_bytes: Sequence[int], *, deleted: int) -> float:
    """The requests by which a mapping has received messages of these sizes, and deleted so many of them."""
    received = max(math.ceil(len(sizes_bytes) / MESSAGES_A_REQUEST), math.ceil(sum(sizes_bytes) / (64 * KIB)))
    return received + math.ceil(deleted / MESSAGES_A_REQUEST)


def invoked(*, memory_mib: int, duration_ms: float, machine: str) -> Mapping[Charge, float]:
    """What an invocation is charged for, on a processor of this kind, such as "aarch64"."""
    by_time = Charge.LAMBDA_GB_SECOND if machine in ("aarch64", "arm64") else Charge.LAMBDA_X86_GB_SECOND
    return {Charge.LAMBDA_REQUEST: 1, by_time: gb_seconds(memory_mib, duration_ms)}
