"""Tallies: what was asked of AWS in some time, by what it charges; as metrics, as a log line, as uses for a bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neve.domain.metering import COUNTABLE
from neve.domain.prices import Charge, Use

NAMESPACE, DIMENSION, SERVICE = "neve", "service", "Ledger"
"""Where the metrics of the ledger are: one for each charge, of all functions together. A metric costs $0.30 a month, so
that one for each function as well would cost more than many a deployment."""

IMPUTED = "imputed_"
UNPRICED = "unpriced"

RULES: Mapping[Charge, str] = {
    Charge.SQS_REQUEST: "a send for each event of S3; what mappings received and deleted, up to ten messages a request",
    Charge.LAMBDA_REQUEST: "one for each invocation",
    Charge.LAMBDA_GB_SECOND: "the handler's time, rounded up to the millisecond, times the function's memory",
    Charge.LAMBDA_X86_GB_SECOND: "the handler's time, rounded up to the millisecond, times the function's memory",
    Charge.DYNAMODB_WRITE_UNIT: "writes whose condition did not hold: the answer states no units",
    Charge.DYNAMODB_READ_UNIT: "reads of which the answer states no units: by the bytes that came",
    Charge.STATE_TRANSITION: "three for each step of a backfill: a call, a choice and a wait",
    Charge.SNS_PUBLISH: "S3 tells of the end of each thaw",
    Charge.KMS_REQUEST: "each parameter that is read encrypted is decrypted once",
}
"""How the quantities that no answer states are arrived at, by what they are charged as."""

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Attempts at requests by "service:Operation", retries among them, and what AWS charges for them.

    `imputed` is what no answer states (RULES); `unpriced` are attempts that no rule of neve.domain.metering knows.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[Charge, float] = field(default_factory=dict)
    imputed: Mapping[Charge, float] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            requests=_sum(self.requests, other.requests),
            counted=_sum(self.counted, other.counted),
            imputed=_sum(self.imputed, other.imputed),
            unpriced=_sum(self.unpriced, other.unpriced),
            retries=self.retries + other.retries,
            sent_bytes=self.sent_bytes + other.sent_bytes,
            received_bytes=self.received_bytes + other.received_bytes,
        )

    def units(self, charge: Charge) -> float:
        """How much of it there was, counted or imputed."""
        return self.counted.get(charge, 0.0) + self.imputed.get(charge, 0.0)

    def uses(self) -> list[Use]:
        """What to bill, counted first; what is unpriced cannot be among it and has to be named beside it."""
        return [
            *(Use(purpose="requests", charge=charge, quantity=units) for charge, units in self.counted.items()),
            *(
                Use(purpose="by rule", charge=charge, quantity=units, rule=RULES.get(charge, ""), unseen=True)
                for charge, units in self.imputed.items()
            ),
        ]

    def metrics(self) -> dict[str, float]:
        """Quantities by the names of their metrics; none is zero."""
        named = {charge.name: units for charge, units in self.counted.items()}
        named |= {f"{IMPUTED}{charge.name}": units for charge, units in self.imputed.items()}
        named[UNPRICED] = float(sum(self.unpriced.values()))
        return {name: quantity for name, quantity in named.items() if quantity}

    def details(self) -> dict[str, Any]:
        """What else the log line of an invocation says, by field."""
        fields: dict[str, Any] = {"requests": dict(sorted(self.requests.items()))}
        if self.unpriced:
            fields["unpriced_requests"] = dict(self.unpriced)
        if self.retries:
            fields["retries"] = self.retries
        return {**fields, "sent_bytes": self.sent_bytes, "received_bytes": self.received_bytes}

    def line(self) -> dict[str, Any]:
        """The log line of an invocation, as far as from_line reads it."""
        return self.details() | {name: [quantity] for name, quantity in self.metrics().items()}


def from_metrics(quantities: Mapping[str, float]) -> Tally:
    """The tally of which these are the metrics; attempts by operation are not among them.

    What has another name than a charge is left out: it is of another version, or of no ledger.
    """
    counted = {Charge[name]: units for name, units in quantities.items() if name in Charge.__members__}
    imputed = {
        Charge[name.removeprefix(IMPUTED)]: units
        for name, units in quantities.items()
        if name.startswith(IMPUTED) and name.removeprefix(IMPUTED) in Charge.__members__
    }
    unpriced = round(quantities.get(UNPRICED, 0))
    return Tally(counted=counted, imputed=imputed, unpriced={UNPRICED: unpriced} if unpriced else {})


def from_line(line: Mapping[str, Any]) -> Tally:
    """The tally of which this is the log line; {} is none."""
    quantities = {name: float(sum(value)) for name, value in line.items() if isinstance(value, list)}
    found = from_metrics(quantities)
    return Tally(
        requests=line.get("requests", {}),
        counted=found.counted,
        imputed=found.imputed,
        unpriced=line.get("unpriced_requests", {}),
        retries=line.get("retries", 0),
        sent_bytes=line.get("sent_bytes", 0),
        received_bytes=line.get("received_bytes", 0),
    )


def metric_names() -> list[str]:
    """Every name that a metric of the ledger may have."""
    counted = sorted(charge.name for charge in COUNTABLE)
    return [*counted, *(f"{IMPUTED}{charge.name}" for charge in RULES), UNPRICED]


def _sum(some: Mapping[Name, Any], others: Mapping[Name, Any]) -> dict[Name, Any]:
    together: Counter[Name] = Counter(some)
    together.update(others)
    return dict(together)
