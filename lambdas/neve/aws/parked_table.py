"""The table `parked`: permanent failures that wait for a person."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.parked import Parked, Reason
from neve.domain.version import ObjectVersion, from_fields, to_fields
from neve.errors import Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

DETAIL_CHARACTERS = 5_000
EVIDENCE_CHARACTERS = 60_000
"""An item holds 400 KB, and a character has up to 4 bytes. The detail may quote from the evidence."""
READ_BATCH = 100
"""DynamoDB: BatchGetItem takes 100 keys."""
TRIES = 6


def _to_parked(item: Mapping[str, Any]) -> Parked:
    return Parked(
        reason=Reason(item["reason"]["S"]),
        detail=item["detail"]["S"],
        parked_at=datetime.fromisoformat(item["parked_at"]["S"]),
        version=from_fields(json.loads(item["version"]["S"])) if "version" in item else None,
        bundle=item["bundle"]["S"],
        evidence=item["evidence"]["S"],
        bucket=item["bucket"]["S"] if "bucket" in item else "",
    )


@dataclass(frozen=True)
class DynamoParkingLot:
    """The port ParkingLot on the table `parked`."""

    client: DynamoDBClient
    table: str

    def park(self, item: Parked) -> None:
        """See neve.ports.ParkingLot."""
        row: dict[str, Any] = {
            "id": {"S": item.id},
            "reason": {"S": item.reason},
            "detail": {"S": item.detail[:DETAIL_CHARACTERS]},
            "parked_at": {"S": item.parked_at.isoformat()},
            "bundle": {"S": item.bundle},
            "evidence": {"S": item.evidence[:EVIDENCE_CHARACTERS]},
        }
        if item.bucket:
            row["bucket"] = {"S": item.bucket}
        if item.version:
            row["version"] = {"S": json.dumps(to_fields(item.version))}
        with transient():
            self.client.put_item(TableName=self.table, Item=row, ReturnConsumedCapacity="TOTAL")

    def parked(self, versions: Sequence[ObjectVersion]) -> set[tuple[str, str]]:
        """See neve.ports.ParkingLot. A version has one id for each reason there is."""
        now = datetime.now(UTC)
        ids = {
            Parked(reason=reason, detail="", parked_at=now, version=version).id: version.identity
            for version in versions
            for reason in Reason
        }
        listed = list(ids)
        found: set[tuple[str, str]] = set()
        for start in range(0, len(listed), READ_BATCH):
            found |= {ids[each] for each in self._those_that_stand(listed[start : start + READ_BATCH])}
        return found

    def _those_that_stand(self, ids: Sequence[str]) -> list[str]:
        request: Any = {self.table: {"Keys": [{"id": {"S": each}} for each in ids], "ProjectionExpression": "id"}}
        found: list[str] = []
        for attempt in range(TRIES):
            time.sleep(0.05 * 2**attempt if attempt else 0)
            with transient():
                answer = self.client.batch_get_item(RequestItems=request, ReturnConsumedCapacity="TOTAL")
            found += [item["id"]["S"] for item in answer["Responses"].get(self.table, [])]
            request = answer.get("UnprocessedKeys")
            if not request:
                return found
        raise Transient(f"what is parked could not be read in {TRIES} tries")

    def all(self) -> Iterator[tuple[str, Parked]]:
        """(id, what is parked), in no order."""
        pages = self.client.get_paginator("scan").paginate(TableName=self.table, ReturnConsumedCapacity="TOTAL")
        with transient():
            for page in pages:
                for item in page["Items"]:
                    yield item["id"]["S"], _to_parked(item)

    def remove(self, parked_id: str, parked_at: datetime) -> None:
        """Forget what was parked under this id at `parked_at`. What was parked anew since then stays."""
        with transient(), suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.delete_item(
                TableName=self.table,
                Key={"id": {"S": parked_id}},
                ConditionExpression="parked_at = :seen",
                ExpressionAttributeValues={":seen": {"S": parked_at.isoformat()}},
                ReturnConsumedCapacity="TOTAL",
            )
