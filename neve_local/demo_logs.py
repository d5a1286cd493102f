"""What the functions have done in a run of the demo, by their own logs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neve.domain.tally import DIMENSION, SERVICE, Tally, from_line
from neve.domain.thaw import Step
from neve_local.cloud import LocalCloud

ARCHIVING = ("CollectFunction", "WriteArchiveFunction", "CopyLargeFunction", "SweepFunction")
RESTORING = ("PlanRestoreFunction", "ExtractFunction", "SweepRestoresFunction")
"""The functions of each thread, by the names of their outputs."""

_REPORTED = re.compile(r"Duration: (?P<ms>[\d.]+) ms")
_LEDGER = f'"{DIMENSION}":"{SERVICE}"'


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The functions' ledgers, summed; `invocations`, and `seconds` as the local cloud measured them, by function."""

    tally: Tally
    invocations: Mapping[str, int]
    seconds: Mapping[str, float]

    def by_service(self) -> dict[str, dict[str, int]]:
        """{"s3": {"GetObject": 2000}}."""
        nested: dict[str, dict[str, int]] = {}
        for name, quantity in sorted(self.tally.requests.items()):
            service, _, operation = name.partition(":")
            nested.setdefault(service, {})[operation] = quantity
        return nested


def read_requests(cloud: LocalCloud, outputs: Mapping[str, str], functions: Iterable[str], *, since: float) -> Requests:
    """Sum the ledger's lines that each invocation logged since then, and the times that the local cloud reported."""
    tally = Tally()
    invocations: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for name in functions:
        function = name.removesuffix("Function")
        for line in cloud.function_logs(outputs[name], since=since):
            if reported := _REPORTED.search(line):
                seconds[function] = seconds.get(function, 0.0) + float(reported["ms"]) / 1000
            elif _LEDGER in line:
                tally += from_line(json.loads(line))
                invocations[function] += 1
    return Requests(tally=tally, invocations=dict(invocations), seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Thaws:
    """What PlanRestore has asked S3 for: thaws, and that copies stay longer, which thaws nothing."""

    asked: int = 0
    extended: int = 0


def read_thaws(cloud: LocalCloud, outputs: Mapping[str, str], *, since: float) -> Thaws:
    """Sum what PlanRestore has logged since then. Both are the same request; the steps planned tell them apart."""
    requests = extended = 0
    for line in cloud.function_logs(outputs["PlanRestoreFunction"], since=since):
        if _LEDGER in line:
            requests += from_line(json.loads(line)).requests.get("s3:RestoreObject", 0)
        elif entry := _entry(line, "planned"):
            extended += entry["steps"].get(Step.EXTEND, 0)
    return Thaws(asked=requests - extended, extended=extended)


def read_passed_over(cloud: LocalCloud, outputs: Mapping[str, str], *, since: float) -> int:
    """How many versions the archiving functions have passed over since then, because the index had them."""
    return sum(
        json.loads(line)["duplicates"]
        for name in ("WriteArchiveFunction", "CopyLargeFunction")
        for line in cloud.function_logs(outputs[name], containing='"duplicates"', since=since)
    )


def _entry(line: str, message: str) -> dict[str, Any]:
    """The fields of a line that a function logged with this message; {} if it is another."""
    if f'"message":"{message}"' not in line.replace(" ", ""):
        return {}
    entry: dict[str, Any] = json.loads(line)
    return entry
