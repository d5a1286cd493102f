"""How AWS's Price List names what neve reckons with, and how a price is read out of its answers.

AWS charges by *usage type*, such as `USW2-Requests-Tier1`: a prefix for the region (none in us-east-1), then what is
metered. One usage type may have several prices, which the operation tells apart. Names that are `sure` stand in AWS's
own guides, or in price lists that others have printed; the rest is from memory. Either way nothing is taken on trust: a
price is looked at by its unit, its description and its size, and what does not fit is not taken.

Sources: AWS Billing user guide, "Finding services and products using AWS Price List Query API" and "Reading the service
price list files"; S3 user guide, "Understanding your AWS billing and usage reports for Amazon S3".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from neve.domain.prices import Charge, Price

FAR_OFF = 10
"""A price that differs from the standing one by more than this factor is taken for another product's."""
AS_STATED = 0.02
"""Descriptions round: `$0.00001667` for a price of 0.0000166667."""

S3, DEEP_ARCHIVE, TRANSFER = "AmazonS3", "AmazonS3GlacierDeepArchive", "AWSDataTransfer"

STORED = frozenset({"GB-Mo", "GB-Month"})
DATA = frozenset({"GB"})
TIME = frozenset({"Lambda-GB-Second", "GB-Seconds", "GB-Second", "GB-s"})
COUNTED = frozenset[str]()
"""Units by kind. What is counted has many names (Requests, Objects, Alarms, Keys ...), none of which says GB."""


@dataclass(frozen=True)
class Place:
    """Where the Price List has a price: service code, usage type without prefix, and operation.

    No operation stands for any, "" for none; `others` are attributes that have to be as well.
    """

    service: str
    usage_type: str
    operation: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a charge is looked up. All places that answer have to agree, unless the `dearest` of them is meant."""

    places: tuple[Place, ...]
    units: frozenset[str] = COUNTED
    sure: bool = True
    dearest: bool = False


def _at(service: str, usage_type: str, operation: str | None = None) -> tuple[Place, ...]:
    return (Place(service, usage_type, operation),)


def _deep(usage_type: str, operation: str | None = None) -> tuple[Place, ...]:
    """What DEEP_ARCHIVE charges has a service code of its own; parts of it are listed under S3's, too."""
    return (Place(DEEP_ARCHIVE, usage_type, operation), Place(S3, usage_type, operation))


RULES: dict[Charge, Rule] = {
    Charge.S3_PUT: Rule(places=_at(S3, "Requests-Tier1", "")),
    Charge.S3_PUT_GLACIER: Rule(places=_at(S3, "Requests-GLACIER-Tier1", "PutObject")),
    Charge.S3_PUT_DEEP_ARCHIVE: Rule(places=_deep("Requests-GDA-Tier1", "PutObject")),
    Charge.S3_PUT_GLACIER_IR: Rule(places=_at(S3, "Requests-GIR-Tier1", "")),
    Charge.S3_PUT_STANDARD_IA: Rule(places=_at(S3, "Requests-SIA-Tier1", "")),
    Charge.S3_GET: Rule(places=_at(S3, "Requests-Tier2", "")),
    Charge.S3_TO_GLACIER: Rule(places=_at(S3, "Requests-Tier3", "S3-GlacierTransition")),
    Charge.S3_TO_DEEP_ARCHIVE: Rule(places=_at(S3, "Requests-Tier3", "S3-GDATransition")),
    Charge.S3_TO_GLACIER_IR: Rule(places=_at(S3, "Requests-Tier4", "S3-GIRTransition")),
    Charge.S3_STANDARD_GB_MONTH: Rule(
        places=(Place(S3, "TimedStorage-ByteHrs", "", {"volumeType": "Standard"}),), units=STORED
    ),
    Charge.S3_STANDARD_IA_GB_MONTH: Rule(places=_at(S3, "TimedStorage-SIA-ByteHrs", ""), units=STORED),
    Charge.GLACIER_GB_MONTH: Rule(places=_at(S3, "TimedStorage-GlacierByteHrs", ""), units=STORED),
    Charge.DEEP_ARCHIVE_GB_MONTH: Rule(places=_at(DEEP_ARCHIVE, "TimedStorage-GDA-ByteHrs", ""), units=STORED),
    Charge.GLACIER_IR_GB_MONTH: Rule(places=_at(S3, "TimedStorage-GIR-ByteHrs", ""), units=STORED),
    Charge.TIERING_INFREQUENT_GB_MONTH: Rule(places=_at(S3, "TimedStorage-INT-IA-ByteHrs", ""), units=STORED),
    Charge.TIERING_ARCHIVE_GB_MONTH: Rule(places=_at(S3, "TimedStorage-INT-AIA-ByteHrs", ""), units=STORED),
    Charge.TIERING_OBJECT_MONTH: Rule(places=_at(S3, "Monitoring-Automation-INT")),
    Charge.S3_INVENTORY_OBJECT: Rule(places=_at(S3, "Inventory-ObjectsListed")),
    Charge.GLACIER_EXPEDITED_GB: Rule(places=_at(S3, "Expedited-Retrieval-Bytes"), units=DATA),
    Charge.GLACIER_EXPEDITED_REQUEST: Rule(places=_at(S3, "Requests-Tier6")),
    Charge.GLACIER_STANDARD_GB: Rule(places=_at(S3, "Standard-Retrieval-Bytes", "RestoreObject"), units=DATA),
    Charge.GLACIER_STANDARD_REQUEST: Rule(places=_at(S3, "Requests-Tier3", "RestoreObject")),
    Charge.GLACIER_BULK_GB: Rule(places=_at(S3, "Bulk-Retrieval-Bytes", "RestoreObject"), units=DATA),
    Charge.GLACIER_BULK_REQUEST: Rule(places=_at(S3, "Requests-Tier5")),
    Charge.DEEP_ARCHIVE_STANDARD_GB: Rule(
        places=_deep("Standard-Retrieval-Bytes", "DeepArchiveRestoreObject"), units=DATA
    ),
    Charge.DEEP_ARCHIVE_STANDARD_REQUEST: Rule(places=_deep("Requests-GDA-Tier3", "DeepArchiveRestoreObject")),
    Charge.DEEP_ARCHIVE_BULK_GB: Rule(places=_deep("Bulk-Retrieval-Bytes", "DeepArchiveRestoreObject"), units=DATA),
    Charge.DEEP_ARCHIVE_BULK_REQUEST: Rule(places=_deep("Requests-GDA-Tier5"), sure=False),
    Charge.GLACIER_IR_GB: Rule(places=_at(S3, "Retrieval-GIR"), units=DATA),
    Charge.GLACIER_IR_GET: Rule(places=_at(S3, "Requests-GIR-Tier2", "")),
    Charge.SQS_REQUEST: Rule(
        places=(*_at("AWSQueueService", "Requests-RBP"), *_at("AWSQueueService", "Requests-Tier1"))
    ),
    Charge.SNS_PUBLISH: Rule(places=_at("AmazonSNS", "Requests-Tier1")),
    Charge.DYNAMODB_WRITE_UNIT: Rule(places=_at("AmazonDynamoDB", "WriteRequestUnits")),
    Charge.DYNAMODB_READ_UNIT: Rule(places=_at("AmazonDynamoDB", "ReadRequestUnits")),
    Charge.DYNAMODB_GB_MONTH: Rule(places=_at("AmazonDynamoDB", "TimedStorage-ByteHrs"), units=STORED),
    Charge.DYNAMODB_PITR_GB_MONTH: Rule(places=_at("AmazonDynamoDB", "TimedPITRStorage-ByteHrs"), units=STORED),
    Charge.LAMBDA_REQUEST: Rule(places=_at("AWSLambda", "Request")),
    Charge.LAMBDA_GB_SECOND: Rule(places=_at("AWSLambda", "Lambda-GB-Second-ARM"), units=TIME),
    Charge.LAMBDA_X86_GB_SECOND: Rule(places=_at("AWSLambda", "Lambda-GB-Second"), units=TIME),
    Charge.SCHEDULE: Rule(places=_at("AWSEvents", "ScheduledInvocation"), sure=False),
    Charge.STATE_TRANSITION: Rule(places=_at("AmazonStates", "StateTransition")),
    Charge.EXPRESS_REQUEST: Rule(places=_at("AmazonStates", "StepFunctions-Request")),
    Charge.EXPRESS_GB_SECOND: Rule(places=_at("AmazonStates", "StepFunctions-GB-Second"), units=TIME, sure=False),
    Charge.KMS_KEY_MONTH: Rule(places=_at("awskms", "KMS-Keys"), sure=False),
    Charge.KMS_REQUEST: Rule(places=_at("awskms", "KMS-Requests")),
    Charge.LOG_GB: Rule(places=_at("AmazonCloudWatch", "DataProcessing-Bytes"), units=DATA),
    Charge.LOG_GB_MONTH: Rule(places=_at("AmazonCloudWatch", "TimedStorage-ByteHrs"), units=STORED),
    Charge.ALARM_MONTH: Rule(places=_at("AmazonCloudWatch", "CW:AlarmMonitorUsage")),
    Charge.METRIC_MONTH: Rule(places=_at("AmazonCloudWatch", "CW:MetricMonitorUsage")),
    Charge.METRIC_READ: Rule(places=_at("AmazonCloudWatch", "CW:GMD-Metrics")),
    Charge.OTHER_REGION_GB: Rule(
        places=(Place(TRANSFER, "", None, {"transferType": "InterRegion Outbound", "toLocationType": "AWS Region"}),),
        units=DATA,
        dearest=True,
    ),
    Charge.INTERNET_GB: Rule(
        places=(Place(TRANSFER, "", None, {"transferType": "AWS Outbound", "toLocation": "External"}),),
        units=DATA,
        dearest=True,
    ),
}
SERVICES = tuple(dict.fromkeys(place.service for rule in RULES.values() for place in rule.places))


# -- The Price List's answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    """A price from a quantity on, to another; `end` is None for the last one."""

    begin: Decimal
    end: Decimal | None
    usd: Decimal
    unit: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product with what it costs on demand, by rising quantity; `flaw` is why that cannot be used."""

    attributes: Mapping[str, str]
    steps: tuple[Step, ...] = ()
    flaw: str = ""

    @property
    def charged(self) -> tuple[Step, ...]:
        """The steps behind what is free every month: neve's prices are without free tiers."""
        steps = self.steps
        while len(steps) > 1 and not steps[0].usd:
            steps = steps[1:]
        return steps


def product(text: str) -> Product:
    """What one item of a GetProducts answer says. Raises ValueError if it is no such item."""
    try:
        document = json.loads(text)
        attributes = {str(name): str(value) for name, value in document["product"]["attributes"].items()}
        terms = document["terms"].get("OnDemand", {})
        found = [each for term in terms.values() for each in term["priceDimensions"].values()]
        steps = sorted((_step(each) for each in found), key=lambda step: step.begin)
    except (AttributeError, InvalidOperation, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no product of the Price List: {error!r}") from error
    return Product(attributes=attributes, steps=tuple(steps), flaw=_flaw(steps))


def _step(dimension: Mapping[str, Any]) -> Step:
    end = str(dimension.get("endRange") or "Inf")
    return Step(
        begin=Decimal(str(dimension.get("beginRange") or "0")),
        end=None if end == "Inf" else Decimal(end),
        usd=Decimal(str(dimension["pricePerUnit"]["USD"])),
        unit=str(dimension["unit"]),
        description=str(dimension.get("description", "")),
    )


def _flaw(steps: Sequence[Step]) -> str:
    if not steps:
        return "it has no price on demand"
    if steps[0].begin or steps[-1].end is not None or any(one.end != two.begin for one, two in pairwise(steps)):
        return "its steps do not follow each other"
    return ""


def standard_storage(products: Iterable[Product]) -> tuple[str, str] | None:
    """The region's prefix of usage types, and its name, as S3's own storage has them; None if S3 is not there."""
    usage_type = RULES[Charge.S3_STANDARD_GB_MONTH].places[0].usage_type
    found = {
        (each.attributes["usagetype"].removesuffix(usage_type), each.attributes.get("location", ""))
        for each in products
        if each.attributes.get("volumeType") == "Standard"
        and re.fullmatch(rf"([A-Z0-9]+-)?{re.escape(usage_type)}", each.attributes.get("usagetype", ""))
        and not each.attributes.get("operation")
    }
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What looking a charge up came to: its price, or why there is none to take."""

    charge: Charge
    price: Price | None = None
    problem: str = ""
    description: str = ""


def look_up(
    charge: Charge, standing: Price, products: Mapping[str, Sequence[Product]], *, region: str, prefix: str
) -> Looked:
    """The price of `charge` among the products of each service, for as many units as the standing one is for."""
    rule = RULES[charge]
    matching = [
        (place, each) for place in rule.places for each in products[place.service] if _is(place, each, region, prefix)
    ]
    if not matching:
        return Looked(charge=charge, problem="the Price List has no such product")
    usable = [(place, each) for place, each in matching if not each.flaw]
    if not usable:
        return Looked(charge=charge, problem=matching[0][1].flaw)
    by_price = {tuple((step.begin, step.usd) for step in each.charged): (place, each) for place, each in usable}
    if rule.dearest:
        dearest = max(by_price, key=lambda steps: steps[0][1])
        by_price = {dearest: by_price[dearest]}
    if len(by_price) > 1:
        several = ", ".join(sorted({f"{float(steps[0][1]):.10g}" for steps in by_price}))
        return Looked(charge=charge, problem=f"several products match, at {several}")
    [(place, chosen)] = by_price.values()
    return _checked(charge, rule, standing, place, chosen)


def _is(place: Place, found: Product, region: str, prefix: str) -> bool:
    """Whether this is the place's product. KMS names the region in full; some services in us-east-1 say USE1."""
    attributes = found.attributes
    names = {f"{prefix}{place.usage_type}", f"{region}-{place.usage_type}"}
    if not prefix:
        names.add(f"USE1-{place.usage_type}")
    return (
        (not place.usage_type or attributes.get("usagetype") in names)
        and (place.operation is None or attributes.get("operation", "") == place.operation)
        and all(attributes.get(name) == value for name, value in place.others.items())
    )


def _checked(charge: Charge, rule: Rule, standing: Price, place: Place, chosen: Product) -> Looked:
    first, *others = chosen.charged
    price = Price(
        usd=float(first.usd * standing.per),
        per=standing.per,
        source=f"AWS Price List: {place.service} {chosen.attributes.get('usagetype', '')}".rstrip(),
        beyond=tuple((float(step.begin), float(step.usd * standing.per)) for step in others),
    )
    problem = _unit_problem(rule, first) or _description_problem(first) or _size_problem(price, standing)
    if problem:
        return Looked(charge=charge, problem=problem, description=first.description)
    return Looked(charge=charge, price=price, description=first.description)


def _unit_problem(rule: Rule, step: Step) -> str:
    fits = step.unit in rule.units if rule.units else "GB" not in step.unit
    return "" if fits else f"its unit is {step.unit!r}"


_STATED = re.compile(
    r"\$([\d.]*\d)\s*(?:per|/)\s*(?:(?P<number>\d[\d,]*)\s*)?(?P<times>million|thousand|[MK]\b)?", re.IGNORECASE
)
_TIMES = {"": 1, "million": 10**6, "m": 10**6, "thousand": 10**3, "k": 10**3}


def _description_problem(step: Step) -> str:
    """Descriptions mostly say the price in words, `$0.005 per 1,000 PUT requests`: then it has to be the same one."""
    found = _STATED.search(step.description)
    if not found:
        return ""
    units = int((found["number"] or "1").replace(",", "")) * _TIMES[(found["times"] or "").lower()]
    stated, usd = float(found[1]) / max(units, 1), float(step.usd)
    if abs(stated - usd) <= AS_STATED * max(stated, usd):
        return ""
    return f"it says {float(step.usd):.10g} for one, and {step.description!r}"


def _size_problem(price: Price, standing: Price) -> str:
    low, high = sorted((price.usd, standing.usd))
    if high <= low * FAR_OFF:
        return ""
    return f"{price.usd:.10g} is far off {standing.usd:.10g}, which stood before"
