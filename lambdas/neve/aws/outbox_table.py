"""The table `outbox`: messages that wait to be sent to SQS.

pk (S)        sk (S)          attributes
a queue's URL an entry's id   body, or packed (B: zlib) where it would not fit; due_at, put_at; cause; failures
`queues`      a queue's URL   lease_owner, leased_until while a relay is at the queue

An entry's id begins with its time, so a query of a queue's partition has the oldest first. A queue is listed before its
first entry is put, and stays listed: which queues something waits for is a query of a dozen items and one for each of
them, however many entries there are or were. Nothing expires: what waits is sent, or a person sees to it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.outbox import LONGEST_LEASE, Backlog, Cause, Entry

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

BODY_BYTES = 350_000
"""An item holds 400 KB. A message may have 1 MiB; neve's own have 200 KB at most."""

COUNTED_PAGES = 50
"""A backlog is counted in so many pages of 1 MB, which takes about two seconds: whoever counts has to tell in time."""

_QUEUES = "queues"

Item = dict[str, Any]


def _seconds(moment: datetime) -> Item:
    return {"N": f"{moment.timestamp():.6f}"}


def _moment(value: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(float(value["N"]), UTC)


def _to_item(entry: Entry) -> Item:
    body = entry.body.encode(errors="surrogatepass")
    kept = {"body": {"S": entry.body}} if len(body) <= BODY_BYTES else {"packed": {"B": zlib.compress(body)}}
    return {
        "pk": {"S": entry.queue},
        "sk": {"S": entry.id},
        **kept,
        "due_at": _seconds(entry.due_at),
        "put_at": _seconds(entry.put_at),
        "cause": {"S": entry.cause},
        "failures": {"N": str(entry.failures)},
    }


def _to_entry(item: Mapping[str, Any]) -> Entry:
    body = item["body"]["S"] if "body" in item else zlib.decompress(item["packed"]["B"]).decode()
    return Entry(
        queue=item["pk"]["S"],
        id=item["sk"]["S"],
        body=body,
        due_at=_moment(item["due_at"]),
        put_at=_moment(item["put_at"]),
        cause=Cause(item["cause"]["S"]),
        failures=int(item["failures"]["N"]),
    )


@dataclass(frozen=True)
class DynamoOutbox:
    """The port Outbox on the table `outbox`."""

    client: DynamoDBClient
    table: str
    _listed: set[str] = field(default_factory=set)

    def put(self, entry: Entry) -> None:
        """See neve.ports.Outbox. A message that does not fit into an item even when it is packed is refused."""
        if entry.queue not in self._listed:
            self._list(entry.queue)
        with transient():
            self.client.put_item(TableName=self.table, Item=_to_item(entry), ReturnConsumedCapacity="TOTAL")

    def holds(self, queue: str) -> bool:
        """See neve.ports.Outbox. It reads one entry."""
        return bool(self._first(queue, 1, Select="COUNT")["Count"])

    def queues(self) -> Sequence[str]:
        """See neve.ports.Outbox."""
        return [queue for item in self._pages(_QUEUES) if self.holds(queue := item["sk"]["S"])]

    def lease(self, queue: str, *, owner: str, now: datetime, until: datetime) -> bool:
        """See neve.ports.Outbox."""
        with transient():
            try:
                self.client.update_item(
                    TableName=self.table,
                    Key={"pk": {"S": _QUEUES}, "sk": {"S": queue}},
                    UpdateExpression="SET lease_owner = :owner, leased_until = :until",
                    ConditionExpression="attribute_not_exists(lease_owner) OR lease_owner = :owner "
                    "OR leased_until <= :now OR leased_until > :longest",
                    ExpressionAttributeValues={
                        ":owner": {"S": owner},
                        ":until": _seconds(until),
                        ":now": _seconds(now),
                        ":longest": _seconds(now + LONGEST_LEASE),
                    },
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def release(self, queue: str, *, owner: str) -> None:
        """See neve.ports.Outbox."""
        with transient(), suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self.table,
                Key={"pk": {"S": _QUEUES}, "sk": {"S": queue}},
                UpdateExpression="REMOVE lease_owner, leased_until",
                ConditionExpression="lease_owner = :owner",
                ExpressionAttributeValues={":owner": {"S": owner}},
                ReturnConsumedCapacity="TOTAL",
            )

    def oldest(self, queue: str, limit: int) -> Sequence[Entry]:
        """See neve.ports.Outbox. A query's answer ends at 1 MB, so there may be fewer."""
        return [_to_entry(item) for item in self._first(queue, limit)["Items"]]

    def sent(self, entry: Entry) -> None:
        """See neve.ports.Outbox."""
        with transient():
            self.client.delete_item(TableName=self.table, Key=_key(entry), ReturnConsumedCapacity="TOTAL")

    def failed(self, entry: Entry) -> None:
        """See neve.ports.Outbox."""
        with transient(), suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self.table,
                Key=_key(entry),
                UpdateExpression="ADD failures :one",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeValues={":one": {"N": "1"}},
                ReturnConsumedCapacity="TOTAL",
            )

    def backlog(self, queue: str) -> Backlog:
        """See neve.ports.Outbox. Beyond COUNTED_PAGES there are more than it says."""
        first = self.oldest(queue, 1)
        if not first:
            return Backlog(entries=0, oldest_at=None)
        pages = self.client.get_paginator("query").paginate(**self._of(queue), Select="COUNT")
        with transient():
            entries = sum(page["Count"] for page in islice(pages, COUNTED_PAGES))
        return Backlog(entries=max(1, entries), oldest_at=first[0].put_at)

    def _list(self, queue: str) -> None:
        """Have the queue be among those that relays look after."""
        with transient(), suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.put_item(
                TableName=self.table,
                Item={"pk": {"S": _QUEUES}, "sk": {"S": queue}},
                ConditionExpression="attribute_not_exists(pk)",
                ReturnConsumedCapacity="TOTAL",
            )
        self._listed.add(queue)

    def _first(self, pk: str, limit: int, **more: Any) -> Mapping[str, Any]:
        with transient():
            return self.client.query(**self._of(pk), ConsistentRead=True, Limit=limit, **more)

    def _pages(self, pk: str) -> list[Mapping[str, Any]]:
        pages = self.client.get_paginator("query").paginate(**self._of(pk), ConsistentRead=True)
        with transient():
            return [item for page in pages for item in page["Items"]]

    def _of(self, pk: str) -> dict[str, Any]:
        """What every query of a partition says."""
        return {
            "TableName": self.table,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": pk}},
            "ReturnConsumedCapacity": "TOTAL",
        }


def _key(entry: Entry) -> Item:
    return {"pk": {"S": entry.queue}, "sk": {"S": entry.id}}
