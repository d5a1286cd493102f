"""Rows of the tables `restores`, `audits` and `backfills`: their values, and reading and writing them.

All have the keys pk and sk; the first two a sparse index of what is unfinished, in the order of due_at.

Several rows change together by TransactWriteItems, which gives way to whoever else is at one of them: that is tried
again here, a few times.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from neve.aws.faults import code, passing, transient
from neve.domain.restore import DETAIL_CHARACTERS
from neve.domain.thaw import Need, Tier
from neve.errors import Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

INDEX = "unfinished"
DETAIL_BYTES = 2 * DETAIL_CHARACTERS
"""500 details of 4-byte characters that nothing compresses would not fit into an item of 400 KB."""
TRIES = 9
"""Pauses between them grow to 1.6 seconds, and come to 3 on average: twenty Extracts may be at one job's counters."""
LONGEST_PAUSE_S = 1.6

Row = dict[str, Any]
Answer = TypeVar("Answer")


def primary_key(pk: str, sk: str) -> Row:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def archive_partition(serial: int) -> str:
    return f"archive#{serial:010d}"


def text(value: str) -> Row:
    return {"S": value}


def number(value: int) -> Row:
    return {"N": str(value)}


def seconds(moment: datetime) -> Row:
    """To the microsecond, for what is compared or indexed."""
    return {"N": f"{moment.timestamp():.6f}"}


def expiry(moment: datetime) -> Row:
    """DynamoDB's TTL knows whole seconds."""
    return number(int(moment.timestamp()))


def moment(row: Mapping[str, Any], name: str) -> datetime | None:
    """The moment in an attribute, written by seconds or as text; None if it is missing."""
    if name not in row:
        return None
    value = row[name]
    return datetime.fromtimestamp(float(value["N"]), UTC) if "N" in value else datetime.fromisoformat(value["S"])


def instant(row: Mapping[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(row[name]["S"])


def string(row: Mapping[str, Any], name: str) -> str:
    return str(row[name]["S"]) if name in row else ""


def integer(row: Mapping[str, Any], name: str) -> int:
    return int(row[name]["N"]) if name in row else 0


def pack(values: Sequence[Sequence[Any]]) -> Row:
    return {"B": zlib.compress(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode())}


def unpack(row: Mapping[str, Any], name: str = "packed") -> list[list[Any]]:
    values: list[list[Any]] = json.loads(zlib.decompress(row[name]["B"]))
    return values


def brief(detail: str) -> str:
    """As much of a detail as is kept."""
    return detail[:DETAIL_CHARACTERS].encode(errors="replace")[:DETAIL_BYTES].decode(errors="ignore")


def need_of(row: Mapping[str, Any]) -> Need:
    return Need(tier=Tier(row["tier"]["S"]), days=integer(row, "days"))


def need_fields(need: Need) -> Row:
    return {"tier": text(need.tier), "days": number(need.days)}


def _conflicts(error: ClientError) -> bool:
    """Whether the write gave way to another that is under way, or to the table's load."""
    if code(error) in ("TransactionConflictException", "TransactionInProgressException"):
        return True
    return any(passing(reason) for reason in _reasons(error))


def _reasons(error: ClientError) -> list[str]:
    """Why each write of a cancelled transaction was refused, "None" for those that were not."""
    reasons: Any = error.response.get("CancellationReasons", [])
    return [reason.get("Code", "None") for reason in reasons]


def _settled(write: Callable[[], Answer]) -> Answer:
    """What `write` answers, tried again while others are at the same rows. Raises Transient if they do not let up."""
    for attempt in range(TRIES):
        time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.05 * 2**attempt)) if attempt else 0)  # noqa: S311  # jitter is no secret
        with transient():
            try:
                return write()
            except ClientError as error:
                if not _conflicts(error):
                    raise
    raise Transient(f"others were at the same rows of the table in {TRIES} tries")


@dataclass(frozen=True)
class Table:
    """Reading and writing rows of the table."""

    client: DynamoDBClient
    table: str

    def _get(self, key: Row) -> Mapping[str, Any] | None:
        with transient():
            answer = self.client.get_item(
                TableName=self.table, Key=key, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        return answer.get("Item")

    def _query(self, pk: str, begins: str = "", **more: Any) -> Iterator[Mapping[str, Any]]:
        """The rows of a partition whose sort keys begin with `begins`, read as they are asked for."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :pk" + (" AND begins_with(sk, :begins)" if begins else ""),
            ExpressionAttributeValues={":pk": text(pk)} | ({":begins": text(begins)} if begins else {}),
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
            **more,
        )
        with transient():
            for page in pages:
                yield from page["Items"]

    def _due(self, prefix: str, now: datetime) -> Iterator[Mapping[str, Any]]:
        """The rows in partitions named so that the sweep should look at. The index lags: each is read again."""
        for key in self._in_index("1", before=now):
            if not key["pk"]["S"].startswith(prefix):
                continue
            row = self._get({"pk": key["pk"], "sk": key["sk"]})
            due_at = moment(row, "due_at") if row else None
            if row and due_at and due_at < now:
                yield row

    def _in_index(self, unfinished: str, *, before: datetime | None = None) -> Iterator[Mapping[str, Any]]:
        """The keys of rows in the index, those first that were due first. Eventually consistent."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            IndexName=INDEX,
            KeyConditionExpression="unfinished = :which" + (" AND due_at < :before" if before else ""),
            ExpressionAttributeValues={":which": text(unfinished)} | ({":before": seconds(before)} if before else {}),
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            for page in pages:
                yield from page["Items"]

    def _write(self, operation: Callable[..., Any], **request: Any) -> Mapping[str, Any] | None:
        """One conditional write: its answer, None if the condition did not hold."""
        try:
            answer: Mapping[str, Any] = _settled(
                lambda: operation(TableName=self.table, ReturnConsumedCapacity="TOTAL", **request)
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            return None
        return answer

    def _transact(self, *writes: Mapping[str, Row]) -> list[int]:
        """All writes, or none: the positions, from 0, of those whose conditions did not hold."""
        items: Any = [{kind: {"TableName": self.table, **write} for kind, write in each.items()} for each in writes]
        try:
            _settled(lambda: self.client.transact_write_items(TransactItems=items, ReturnConsumedCapacity="TOTAL"))
        except self.client.exceptions.TransactionCanceledException as error:
            reasons = _reasons(error)
            if set(reasons) - {"None", "ConditionalCheckFailed"}:
                raise
            return [position for position, reason in enumerate(reasons) if reason != "None"]
        return []
