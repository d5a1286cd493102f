"""The request ledger: what this process asked of AWS, counted where botocore sends it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from botocore.client import BaseClient

_READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})


@dataclass
class Ledger:
    """Requests by "service:Operation", retries included, and the DynamoDB units that the answers stated."""

    _requests: Counter[str] = field(default_factory=Counter)
    _read_units: float = 0.0
    _write_units: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def watch(self, client: BaseClient) -> None:
        """Count what `client` sends from now on."""
        client.meta.events.register("before-send", self._count)
        client.meta.events.register("after-call.dynamodb", self._count_units)

    def settle(self) -> dict[str, Any]:
        """What was counted since the last settlement, as fields of a log line; counting starts anew."""
        with self._lock:
            entry: dict[str, Any] = {
                "requests": dict(sorted(self._requests.items())),
                "read_units": self._read_units,
                "write_units": self._write_units,
            }
            self._requests.clear()
            self._read_units = self._write_units = 0.0
        return entry

    def _count(self, *, event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:3]
        with self._lock:
            self._requests[f"{service}:{operation}"] += 1

    def _count_units(self, *, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        stated = parsed.get("ConsumedCapacity") or []
        units = sum(float(part["CapacityUnits"]) for part in (stated if isinstance(stated, list) else [stated]))
        with self._lock:
            if model.name in _READS:
                self._read_units += units
            else:
                self._write_units += units


LEDGER = Ledger()
"""The ledger of this process."""
