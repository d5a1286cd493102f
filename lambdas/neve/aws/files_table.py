"""The table `files`: where each archived version is.

    shard (N)   sort (B)                 attributes
    0 to 63     key, terminator, pin     archive, number, offset, size, sha256, md5, modified; key where it was cut

A row fits into one write unit, or into two where its key was cut. It is written once, and changes only if a repair has
it name another archive. Rows are written by PartiQL INSERT, 25 to a request: INSERT refuses a row that stands, so each
of the 25 is conditional by itself, at the price of 25 conditional puts and in one round trip.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from neve.aws.faults import passing, transient
from neve.domain.index import SHARDS, FileRow, is_cut, key_bound, key_prefix, prefix_bound, shard, sort_key, split
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import NeveError, Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

READ_BATCH = 100
WRITE_BATCH = 25
"""DynamoDB: BatchGetItem takes 100 keys, BatchExecuteStatement 25 statements."""
SORT_BYTES = 1_024
"""DynamoDB: a sort key has no more."""
PAGE_ROWS = 200
"""64 shards are read side by side, and a page of each is some thousand rows of DynamoDB's 1 MB without a limit."""
THREADS = 8
TRIES = 6

Item = dict[str, Any]
Piece = TypeVar("Piece")


def _cut_up(pieces: Sequence[Piece], size: int) -> list[Sequence[Piece]]:
    return [pieces[start : start + size] for start in range(0, len(pieces), size)]


def _key(key: str, pin: str) -> Item:
    return {"shard": {"N": str(shard(key))}, "sort": {"B": sort_key(key, pin)}}


def _to_item(row: FileRow) -> Item:
    item: Item = {
        **_key(row.key, row.pin),
        "archive": {"N": str(row.archive)},
        "number": {"N": str(row.number)},
        "offset": {"N": str(row.offset_bytes)},
        "size": {"N": str(row.size_bytes)},
        "modified": {"N": str(int(row.last_modified.timestamp()))},
    }
    if row.sha256:
        item["sha256"] = {"B": bytes.fromhex(row.sha256)}
    if row.md5:
        item["md5"] = {"B": bytes.fromhex(row.md5)}
    if is_cut(row.key):
        item["key"] = {"S": row.key}
    return item


def to_row(item: Mapping[str, Any]) -> FileRow:
    """The row that an item of the table holds."""
    key, pin = split(bytes(item["sort"]["B"]))
    return FileRow(
        key=key or item["key"]["S"],
        version_id=NULL_VERSION if pin.startswith(f"{NULL_VERSION}-") else pin,
        pin=pin,
        size_bytes=int(item["size"]["N"]),
        sha256=bytes(item["sha256"]["B"]).hex() if "sha256" in item else "",
        md5=bytes(item["md5"]["B"]).hex() if "md5" in item else "",
        last_modified=datetime.fromtimestamp(int(item["modified"]["N"]), UTC),
        archive=int(item["archive"]["N"]),
        number=int(item["number"]["N"]),
        offset_bytes=int(item["offset"]["N"]),
    )


def _statement(table: str, item: Item) -> Any:
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(item.values())}


@dataclass(frozen=True)
class DynamoFiles:
    """The port Files on the table `files`."""

    client: DynamoDBClient
    table: str

    def holders(self, versions: Sequence[ObjectVersion]) -> Mapping[tuple[str, str], int]:
        """See neve.ports.Files.

        Half a read unit a row. What a read misses that was written a moment ago is archived twice, and the condition on
        its row settles which archive counts.
        """
        rows = self._read([version.identity for version in versions], consistent=False)
        return {(row.key, row.pin): row.archive for row in rows}

    def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """See neve.ports.Files."""
        with ThreadPoolExecutor(THREADS) as pool:
            refused = [row for batch in pool.map(self._insert, _cut_up(rows, WRITE_BATCH)) for row in batch]
        if not refused:
            return []
        standing = self._read([(row.key, row.pin) for row in refused], consistent=True)
        archives = {(row.key, row.pin): row.archive for row in standing}
        return [row for row in refused if archives.get((row.key, row.pin)) != row.archive]

    def get(
        self, identities: Sequence[tuple[str, str]], *, consistent: bool = True
    ) -> Mapping[tuple[str, str], FileRow]:
        """See neve.ports.Files.

        One read unit a row, or half of one. DynamoDB refuses a batch with a key twice, or with one that is longer than
        any row's.
        """
        possible = [identity for identity in dict.fromkeys(identities) if len(sort_key(*identity)) <= SORT_BYTES]
        return {(row.key, row.pin): row for row in self._read(possible, consistent=consistent)}

    def versions(self, key: str) -> list[FileRow]:
        """See neve.ports.Files."""
        return list(self._query(shard(key), key_prefix(key), consistent=True))

    def replace(self, seen: FileRow, to: FileRow) -> bool:
        """See neve.ports.Files."""
        with transient():
            try:
                self.client.put_item(
                    TableName=self.table,
                    Item=_to_item(to),
                    ConditionExpression="#archive = :archive AND #number = :number",
                    ExpressionAttributeNames={"#archive": "archive", "#number": "number"},  # reserved words
                    ExpressionAttributeValues={
                        ":archive": {"N": str(seen.archive)},
                        ":number": {"N": str(seen.number)},
                    },
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def under(self, prefix: str = "") -> Iterator[FileRow]:
        """All archived versions of keys that begin with `prefix`, in the order of keys, shard by shard merged.

        One page of each shard is in memory at a time.
        """
        bound = prefix_bound(prefix)
        streams = [
            ((sort_key(row.key, row.pin), row) for row in self._query(number, bound, consistent=False))
            for number in range(SHARDS)
        ]
        for _, row in heapq.merge(*streams, key=lambda pair: pair[0]):
            if row.key.startswith(prefix):
                yield row

    def between(self, after: str, until: str) -> Iterator[FileRow]:
        """See neve.ports.Files. One page of each shard is in memory at a time."""
        condition, values = "#shard = :shard", {}
        if after:
            values[":after"] = {"B": key_bound(after)}
        if until:
            values[":until"] = {"B": key_bound(until)}
        if after and until:
            if values[":after"]["B"] > values[":until"]["B"]:
                return  # which DynamoDB would refuse
            condition += " AND #sort BETWEEN :after AND :until"
        elif values:
            condition += " AND #sort > :after" if after else " AND #sort < :until"
        streams = [
            ((sort_key(row.key, row.pin), row) for row in self._pages(number, condition, values, consistent=False))
            for number in range(SHARDS)
        ]
        for _, row in heapq.merge(*streams, key=lambda pair: pair[0]):
            if not is_cut(row.key):
                yield row

    def _insert(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """Insert up to 25 rows; those are returned where a row stood already."""
        refused: list[FileRow] = []
        left = list(rows)
        for attempt in range(TRIES):
            if attempt:
                time.sleep(0.05 * 2**attempt)
            with transient():
                answer = self.client.batch_execute_statement(
                    Statements=[_statement(self.table, _to_item(row)) for row in left],
                    ReturnConsumedCapacity="TOTAL",
                )
            again: list[FileRow] = []
            for row, response in zip(left, answer["Responses"], strict=True):
                error = response.get("Error", {})
                code = error.get("Code", "")
                if code in ("DuplicateItem", "ConditionalCheckFailed"):
                    refused.append(row)
                elif passing(code):
                    again.append(row)
                elif code:
                    raise NeveError(f"the row of {row.key!r} was refused: {code}: {error.get('Message')}")
            if not again:
                return refused
            left = again
        raise Transient(f"{len(left)} rows could not be written in {TRIES} tries")

    def _read(self, identities: Sequence[tuple[str, str]], *, consistent: bool) -> list[FileRow]:
        with ThreadPoolExecutor(THREADS) as pool:
            batches = pool.map(lambda batch: self._read_batch(batch, consistent), _cut_up(identities, READ_BATCH))
            return [row for batch in batches for row in batch]

    def _read_batch(self, identities: Sequence[tuple[str, str]], consistent: bool) -> list[FileRow]:
        request: Any = {
            self.table: {"Keys": [_key(*identity) for identity in identities], "ConsistentRead": consistent}
        }
        found: list[FileRow] = []
        for attempt in range(TRIES):
            if attempt:
                time.sleep(0.05 * 2**attempt)
            with transient():
                answer = self.client.batch_get_item(RequestItems=request, ReturnConsumedCapacity="TOTAL")
            found += [to_row(item) for item in answer["Responses"].get(self.table, [])]
            request = answer.get("UnprocessedKeys")
            if not request:
                return found
        raise Transient(f"rows could not be read in {TRIES} tries")

    def _query(self, number: int, begins: bytes, *, consistent: bool) -> Iterator[FileRow]:
        if not begins:
            return self._pages(number, "#shard = :shard", {}, consistent=consistent)
        condition = "#shard = :shard AND begins_with(#sort, :begins)"
        return self._pages(number, condition, {":begins": {"B": begins}}, consistent=consistent)

    def _pages(self, number: int, condition: str, values: Item, *, consistent: bool) -> Iterator[FileRow]:
        """The rows of one shard that a condition on #sort picks, read page by page as they are asked for."""
        names = {"#shard": "shard"} | ({"#sort": "sort"} if values else {})  # a reserved word, and its like
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={":shard": {"N": str(number)}, **values},
            ConsistentRead=consistent,
            PaginationConfig={"PageSize": PAGE_ROWS},
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            for page in pages:
                for item in page["Items"]:
                    yield to_row(item)
