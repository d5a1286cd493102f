"""What the functions have done in a run of the demo, by their own logs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neve.domain.thaw import Step
from neve_local.cloud import LocalCloud

ARCHIVING = ("CollectFunction", "WriteArchiveFunction", "CopyLargeFunction", "SweepFunction")
RESTORING = ("PlanRestoreFunction", "ExtractFunction", "SweepRestoresFunction")
"""The functions of each thread, by the names of their outputs."""

_REPORTED = re.compile(r"Duration: (?P<ms>[\d.]+) ms.*Memory Size: (?P<mib>\d+) MB")


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The functions' ledgers and times, summed. `invocations` counts by function."""

    counts: Mapping[str, int]
    write_units: float
    read_units: float
    invocations: Mapping[str, int]
    gb_seconds: float
    seconds: Mapping[str, float]

    def by_service(self) -> dict[str, dict[str, int]]:
        """{"s3": {"GetObject": 2000}}."""
        nested: dict[str, dict[str, int]] = {}
        for name, quantity in self.counts.items():
            service, _, operation = name.partition(":")
            nested.setdefault(service, {})[operation] = quantity
        return nested


def read_requests(cloud: LocalCloud, outputs: Mapping[str, str], functions: Iterable[str], *, since: float) -> Requests:
    """Sum the lines "requests" that each invocation logged since then, and the times that the local cloud reported."""
    counts: Counter[str] = Counter()
    invocations: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    write_units = read_units = gb_seconds = 0.0
    for name in functions:
        function = name.removesuffix("Function")
        for line in cloud.function_logs(outputs[name], since=since):
            if reported := _REPORTED.search(line):
                duration_s = float(reported["ms"]) / 1000
                seconds[function] = seconds.get(function, 0.0) + duration_s
                gb_seconds += duration_s * int(reported["mib"]) / 1024
            elif entry := _entry(line, "requests"):
                counts.update(entry["requests"])
                write_units += entry["write_units"]
                read_units += entry["read_units"]
                invocations[function] += 1
    return Requests(
        counts=dict(sorted(counts.items())),
        write_units=write_units,
        read_units=read_units,
        invocations=dict(invocations),
        gb_seconds=gb_seconds,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Thaws:
    """What PlanRestore has asked S3 for: thaws, and that copies stay longer, which thaws nothing."""

    asked: int = 0
    extended: int = 0


def read_thaws(cloud: LocalCloud, outputs: Mapping[str, str], *, since: float) -> Thaws:
    """Sum what PlanRestore has logged since then. Both are the same request; the steps planned tell them apart."""
    requests = extended = 0
    for line in cloud.function_logs(outputs["PlanRestoreFunction"], since=since):
        if entry := _entry(line, "requests"):
            requests += entry["requests"].get("s3:RestoreObject", 0)
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
