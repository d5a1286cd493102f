"""Prices: what AWS charges for each unit that it meters, as dated lists, and bills made with them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

from neve.errors import PriceMissing, PricesInvalid

MILLION = 1_000_000
GB = 1024**3
"""AWS's GB is of 2^30 bytes (S3 pricing page, "Storage": a GB is 1,073,741,824 bytes)."""
HOURS_A_MONTH = 730


class Charge(StrEnum):
    """What AWS meters, in its own unit."""

    S3_PUT = "S3 PUT, COPY, POST, LIST"
    S3_PUT_GLACIER = "S3 PUT into GLACIER"
    S3_PUT_DEEP_ARCHIVE = "S3 PUT into DEEP_ARCHIVE"
    S3_PUT_GLACIER_IR = "S3 PUT into GLACIER_IR"
    S3_PUT_STANDARD_IA = "S3 PUT into STANDARD_IA"
    S3_GET = "S3 GET, HEAD"
    S3_TO_GLACIER = "S3 transition into GLACIER"
    S3_TO_DEEP_ARCHIVE = "S3 transition into DEEP_ARCHIVE"
    S3_TO_GLACIER_IR = "S3 transition into GLACIER_IR"
    S3_STANDARD_GB_MONTH = "S3 STANDARD GB-month"
    S3_STANDARD_IA_GB_MONTH = "S3 STANDARD_IA GB-month"
    GLACIER_GB_MONTH = "S3 GLACIER GB-month"
    DEEP_ARCHIVE_GB_MONTH = "S3 DEEP_ARCHIVE GB-month"
    GLACIER_IR_GB_MONTH = "S3 GLACIER_IR GB-month"
    TIERING_INFREQUENT_GB_MONTH = "S3 INTELLIGENT_TIERING GB-month, infrequent access"
    TIERING_ARCHIVE_GB_MONTH = "S3 INTELLIGENT_TIERING GB-month, archive instant access"
    TIERING_OBJECT_MONTH = "S3 INTELLIGENT_TIERING object monitored for a month"
    S3_INVENTORY_OBJECT = "S3 Inventory object listed"
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
    SQS_REQUEST = "SQS request"
    SNS_PUBLISH = "SNS publish"
    DYNAMODB_WRITE_UNIT = "DynamoDB write unit"
    DYNAMODB_READ_UNIT = "DynamoDB read unit"
    DYNAMODB_GB_MONTH = "DynamoDB GB-month"
    DYNAMODB_PITR_GB_MONTH = "DynamoDB GB-month kept for point-in-time recovery"
    LAMBDA_REQUEST = "Lambda request"
    LAMBDA_GB_SECOND = "Lambda GB-second, arm64"
    LAMBDA_X86_GB_SECOND = "Lambda GB-second, x86_64"
    SCHEDULE = "EventBridge Scheduler invocation"
    STATE_TRANSITION = "Step Functions state transition"
    EXPRESS_REQUEST = "Step Functions Express request"
    EXPRESS_GB_SECOND = "Step Functions Express GB-second"
    KMS_KEY_MONTH = "KMS key for a month"
    KMS_REQUEST = "KMS request"
    LOG_GB = "CloudWatch Logs GB taken in"
    LOG_GB_MONTH = "CloudWatch Logs GB-month"
    ALARM_MONTH = "CloudWatch alarm for a month"
    METRIC_MONTH = "CloudWatch metric for a month"
    METRIC_READ = "CloudWatch metric read"
    OTHER_REGION_GB = "GB to another region"
    INTERNET_GB = "GB to the internet"


@dataclass(frozen=True, kw_only=True)
class Price:
    """`usd` for `per` units. `beyond` has (quantity in a month, usd): what each `per` units past that quantity cost.

    `checked` is when that was, and where, if not as the list that it stands in says.
    """

    usd: float
    per: int
    source: str
    beyond: tuple[tuple[float, float], ...] = ()
    checked: str = ""

    def of(self, quantity: float) -> float:
        """What `quantity` units in a month cost."""
        steps = [(0.0, self.usd), *self.beyond, (math.inf, 0.0)]
        return sum(
            (min(quantity, end) - begin) * usd / self.per
            for (begin, usd), (end, _) in pairwise(steps)
            if quantity > begin
        )


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """List prices of a region. `checked` is when they were, such as "2026-10" for October 2026."""

    region: str
    checked: str
    prices: Mapping[Charge, Price]

    def usd(self, charge: Charge, quantity: float) -> float:
        """What `quantity` units of `charge` in a month cost. Raises PriceMissing: what has no price is not free."""
        if charge not in self.prices:
            raise PriceMissing(
                f"the prices of {self.region} ({self.checked}) have none for {charge.name} ({charge}). "
                "Add it to the file of prices, or name another one."
            )
        return self.prices[charge].of(quantity)


_S3 = "https://aws.amazon.com/s3/pricing/"
_SQS = "https://aws.amazon.com/sqs/pricing/"
_SNS = "https://aws.amazon.com/sns/pricing/"
_DYNAMODB = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_EVENTBRIDGE = "https://aws.amazon.com/eventbridge/pricing/"
_STEP_FUNCTIONS = "https://aws.amazon.com/step-functions/pricing/"
_KMS = "https://aws.amazon.com/kms/pricing/"
_CLOUDWATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_EC2 = "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer"

_TB = 1024

US_EAST_1 = PriceList(
    region="us-east-1",
    checked="autumn 2026",
    prices={
        Charge.S3_PUT: Price(usd=0.005, per=1_000, source=_S3),
        Charge.S3_PUT_GLACIER: Price(usd=0.03, per=1_000, source=_S3),
        Charge.S3_PUT_DEEP_ARCHIVE: Price(usd=0.05, per=1_000, source=_S3),
        Charge.S3_PUT_GLACIER_IR: Price(usd=0.02, per=1_000, source=_S3),
        Charge.S3_PUT_STANDARD_IA: Price(usd=0.01, per=1_000, source=_S3),
        Charge.S3_GET: Price(usd=0.0004, per=1_000, source=_S3),
        Charge.S3_TO_GLACIER: Price(usd=0.03, per=1_000, source=_S3),
        Charge.S3_TO_DEEP_ARCHIVE: Price(usd=0.05, per=1_000, source=_S3),
        Charge.S3_TO_GLACIER_IR: Price(usd=0.02, per=1_000, source=_S3),
        Charge.S3_STANDARD_GB_MONTH: Price(
            usd=0.023, per=1, source=_S3, beyond=((50 * _TB, 0.022), (500 * _TB, 0.021))
        ),
        Charge.S3_STANDARD_IA_GB_MONTH: Price(usd=0.0125, per=1, source=_S3),
        Charge.GLACIER_GB_MONTH: Price(usd=0.0036, per=1, source=_S3),
        Charge.DEEP_ARCHIVE_GB_MONTH: Price(usd=0.00099, per=1, source=_S3),
        Charge.GLACIER_IR_GB_MONTH: Price(usd=0.004, per=1, source=_S3),
        Charge.TIERING_INFREQUENT_GB_MONTH: Price(usd=0.0125, per=1, source=_S3),
        Charge.TIERING_ARCHIVE_GB_MONTH: Price(usd=0.004, per=1, source=_S3),
        Charge.TIERING_OBJECT_MONTH: Price(usd=0.0025, per=1_000, source=_S3),
        Charge.S3_INVENTORY_OBJECT: Price(usd=0.0025, per=MILLION, source=_S3),
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
        Charge.SQS_REQUEST: Price(usd=0.40, per=MILLION, source=_SQS),
        Charge.SNS_PUBLISH: Price(usd=0.50, per=MILLION, source=_SNS),
        Charge.DYNAMODB_WRITE_UNIT: Price(usd=0.625, per=MILLION, source=_DYNAMODB),
        Charge.DYNAMODB_READ_UNIT: Price(usd=0.125, per=MILLION, source=_DYNAMODB),
        Charge.DYNAMODB_GB_MONTH: Price(usd=0.25, per=1, source=_DYNAMODB),
        Charge.DYNAMODB_PITR_GB_MONTH: Price(usd=0.20, per=1, source=_DYNAMODB),
        Charge.LAMBDA_REQUEST: Price(usd=0.20, per=MILLION, source=_LAMBDA),
        Charge.LAMBDA_GB_SECOND: Price(usd=0.0000133334, per=1, source=_LAMBDA),
        Charge.LAMBDA_X86_GB_SECOND: Price(usd=0.0000166667, per=1, source=_LAMBDA),
        Charge.SCHEDULE: Price(usd=1.00, per=MILLION, source=_EVENTBRIDGE),
        Charge.STATE_TRANSITION: Price(usd=0.025, per=1_000, source=_STEP_FUNCTIONS),
        Charge.EXPRESS_REQUEST: Price(usd=1.00, per=MILLION, source=_STEP_FUNCTIONS),
        Charge.EXPRESS_GB_SECOND: Price(usd=0.060012 / 3600, per=1, source=_STEP_FUNCTIONS),
        Charge.KMS_KEY_MONTH: Price(usd=1.00, per=1, source=_KMS),
        Charge.KMS_REQUEST: Price(usd=0.03, per=10_000, source=_KMS),
        Charge.LOG_GB: Price(usd=0.50, per=1, source=_CLOUDWATCH),
        Charge.LOG_GB_MONTH: Price(usd=0.03, per=1, source=_CLOUDWATCH),
        Charge.ALARM_MONTH: Price(usd=0.10, per=1, source=_CLOUDWATCH),
        Charge.METRIC_MONTH: Price(usd=0.30, per=1, source=_CLOUDWATCH),
        Charge.METRIC_READ: Price(usd=0.01, per=1_000, source=_CLOUDWATCH),
        Charge.OTHER_REGION_GB: Price(usd=0.02, per=1, source=_EC2),
        Charge.INTERNET_GB: Price(usd=0.09, per=1, source=_EC2),
    },
)
"""Without free tiers. Of the discounts for volume only that of S3 STANDARD, where a large collection lies."""


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
        """What one use costs: its share of what all that is charged alike comes to."""
        together = self._quantities[use.charge]
        return self.prices.usd(use.charge, together) * use.quantity / together if together else 0.0

    @cached_property
    def _quantities(self) -> Mapping[Charge, float]:
        sums: Counter[Charge] = Counter()
        for use in self.uses:
            sums[use.charge] += use.quantity  # type: ignore[assignment]  # typeshed has counters of whole numbers only
        return sums

    def scaled(self, factor: float) -> Bill:
        """The bill for `factor` times as much of everything."""
        return replace(self, uses=tuple(replace(use, quantity=use.quantity * factor) for use in self.uses))


# -- As a file -----------------------------------------------------------------------------------------------------

FORMAT, VERSION = "neve-prices", 1


def render_prices(prices: PriceList) -> str:
    """The list as a JSON file that parse_prices reads."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "region": prices.region,
            "checked": prices.checked,
            "prices": {
                charge.name: {"usd": price.usd, "per": price.per, "source": price.source}
                | ({"beyond": [list(step) for step in price.beyond]} if price.beyond else {})
                | ({"checked": price.checked} if price.checked else {})
                for charge, price in prices.prices.items()
            },
        },
        indent=2,
    )


def parse_prices(text: str) -> PriceList:
    """The list in a JSON file. It may have fewer prices than there are charges. Raises PricesInvalid."""
    try:
        document = json.loads(text)
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise PricesInvalid(f'a file of prices has "format": "{FORMAT}" and "version": {VERSION}')
        return PriceList(
            region=str(document["region"]),
            checked=str(document["checked"]),
            prices={_charge(name): _price(name, price) for name, price in document["prices"].items()},
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise PricesInvalid(f"not a file of prices: {error!r}") from error


def _charge(name: str) -> Charge:
    if name not in Charge.__members__:
        raise PricesInvalid(f"{name} is nothing that neve knows to be charged")
    return Charge[name]


def _price(name: str, given: Mapping[str, Any]) -> Price:
    beyond = tuple((float(quantity), float(usd)) for quantity, usd in given.get("beyond", ()))
    price = Price(
        usd=float(given["usd"]),
        per=int(given["per"]),
        source=str(given["source"]),
        beyond=beyond,
        checked=str(given.get("checked", "")),
    )
    amounts = [price.usd, *(usd for _, usd in beyond)]
    quantities = [0.0, *(quantity for quantity, _ in beyond)]
    if price.per < 1 or not all(math.isfinite(usd) and usd >= 0 for usd in amounts):
        raise PricesInvalid(f"{name}: a price is 0 or more US dollars for 1 or more units")
    if quantities != sorted(set(quantities)) or not all(math.isfinite(quantity) for quantity in quantities):
        raise PricesInvalid(f"{name}: the quantities beyond which it is cheaper have to rise from above 0")
    return price
