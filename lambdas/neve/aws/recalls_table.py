"""Recalls, in the table `restores` (see restores_table.py for all of its rows): they end with their jobs' results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neve.aws.rows import Row, Table, expiry, instant, primary_key, text
from neve.domain.recall import Recall
from neve.domain.restore import KEEP


def _key(stored: str) -> Row:
    return primary_key(f"recall#{stored}", "recall")


def _to_recall(row: Mapping[str, Any]) -> Recall:
    return Recall(
        stored=row["pk"]["S"].removeprefix("recall#"),
        pin=row["pin"]["S"],
        job=row["job"]["S"],
        asked_at=instant(row, "asked_at"),
        sent_at=instant(row, "sent_at"),
    )


@dataclass(frozen=True)
class DynamoRecalls(Table):
    """The port Recalls on the table `restores`."""

    def get(self, stored: str) -> Recall | None:
        """See neve.ports.Recalls."""
        row = self._get(_key(stored))
        return _to_recall(row) if row else None

    def swap(self, seen: Recall | None, to: Recall) -> bool:
        """See neve.ports.Recalls."""
        row = {
            **_key(to.stored),
            "pin": text(to.pin),
            "job": text(to.job),
            "asked_at": text(to.asked_at.isoformat()),
            "sent_at": text(to.sent_at.isoformat()),
            "expires_at": expiry(to.sent_at + KEEP),
        }
        condition: Row = {"ConditionExpression": "attribute_not_exists(pk)"}
        if seen is not None:
            condition = {
                "ConditionExpression": "job = :job AND sent_at = :sent",
                "ExpressionAttributeValues": {":job": text(seen.job), ":sent": text(seen.sent_at.isoformat())},
            }
        return self._write(self.client.put_item, Item=row, **condition) is not None
