"""The table `pointers`: where each file is now.

    key (S)                 attributes
    the application's key   place `content`: content_key (where it differs), content_version, upload_version, sequencer,
                            size, etag, since
                            place `host`: url, since

Not a kind of item in `files`: that table is streamed in the order of keys by reconciliation, which would pay for
reading the pointers with it. An item fits into one write unit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.pointer import InContent, OnHost, Pointer
from neve.errors import Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

READ_BATCH = 100
"""DynamoDB: BatchGetItem takes 100 keys."""
TRIES = 6

Item = dict[str, Any]

_CONTENT, _HOST = "content", "host"


def to_pointer(item: Mapping[str, Any]) -> Pointer:
    """The pointer that an item of the table holds."""
    key = item["key"]["S"]
    since = datetime.fromtimestamp(float(item["since"]["N"]), UTC)
    if item["place"]["S"] == _HOST:
        return OnHost(key=key, url=item["url"]["S"], since=since)
    return InContent(
        key=key,
        content_key=item["content_key"]["S"] if "content_key" in item else key,
        content_version=item["content_version"]["S"],
        upload_version=item["upload_version"]["S"],
        sequencer=item["sequencer"]["S"],
        size_bytes=int(item["size"]["N"]),
        etag=item["etag"]["S"],
        since=since,
    )


def _to_item(pointer: Pointer) -> Item:
    item: Item = {"key": {"S": pointer.key}, "since": {"N": f"{pointer.since.timestamp():.6f}"}}
    if isinstance(pointer, OnHost):
        return item | {"place": {"S": _HOST}, "url": {"S": pointer.url}}
    return (
        item
        | {
            "place": {"S": _CONTENT},
            "content_version": {"S": pointer.content_version},
            "upload_version": {"S": pointer.upload_version},
            "sequencer": {"S": pointer.sequencer},
            "size": {"N": str(pointer.size_bytes)},
            "etag": {"S": pointer.etag},
        }
        | ({} if pointer.content_key == pointer.key else {"content_key": {"S": pointer.content_key}})
    )


@dataclass(frozen=True)
class DynamoPointers:
    """The port Pointers on the table `pointers`."""

    client: DynamoDBClient
    table: str

    def get(self, key: str) -> Pointer | None:
        """See neve.ports.Pointers. One read unit for each 4 KB, which is one."""
        with transient():
            answer = self.client.get_item(
                TableName=self.table, Key={"key": {"S": key}}, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        return to_pointer(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        """See neve.ports.Pointers."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Pointer] = {}
        for start in range(0, len(wanted), READ_BATCH):
            for item in self._read(wanted[start : start + READ_BATCH]):
                pointer = to_pointer(item)
                found[pointer.key] = pointer
        return found

    def move(self, seen: Pointer | None, to: InContent) -> bool:
        """See neve.ports.Pointers."""
        if not isinstance(seen, InContent):
            return self._put_where_none_is_in_content(to)
        return self._put(
            to,
            "#content = :content AND #upload = :upload AND #sequencer = :sequencer",
            {"#content": "content_version", "#upload": "upload_version", "#sequencer": "sequencer"},
            {
                ":content": {"S": seen.content_version},
                ":upload": {"S": seen.upload_version},
                ":sequencer": {"S": seen.sequencer},
            },
        )

    def claim_host(self, to: OnHost) -> bool:
        """See neve.ports.Pointers."""
        return self._put_where_none_is_in_content(to)

    def _put_where_none_is_in_content(self, to: Pointer) -> bool:
        return self._put(
            to,
            "attribute_not_exists(#key) OR #place = :host",
            {"#key": "key", "#place": "place"},
            {":host": {"S": _HOST}},
        )

    def _put(self, pointer: Pointer, condition: str, names: Mapping[str, str], values: Mapping[str, Any]) -> bool:
        with transient():
            try:
                self.client.put_item(
                    TableName=self.table,
                    Item=_to_item(pointer),
                    ConditionExpression=condition,
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def _read(self, keys: Sequence[str]) -> list[Mapping[str, Any]]:
        request: Any = {self.table: {"Keys": [{"key": {"S": key}} for key in keys], "ConsistentRead": True}}
        found: list[Mapping[str, Any]] = []
        for attempt in range(TRIES):
            if attempt:
                time.sleep(0.05 * 2**attempt)
            with transient():
                answer = self.client.batch_get_item(RequestItems=request, ReturnConsumedCapacity="TOTAL")
            found += answer["Responses"].get(self.table, [])
            request = answer.get("UnprocessedKeys")
            if not request:
                return found
        raise Transient(f"pointers could not be read in {TRIES} tries")
