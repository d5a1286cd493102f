"""The table `archives`: bundles with their parts, the lanes, the counter of serials, and the archives themselves.

pk              sk              what
lane            0               which bundle is being filled by new uploads
lane            backfill        which bundle is being filled by a backfill
counter         serial          the last serial number drawn
bundle#<id>     bundle          an archive that is not written yet; expires 30 days after it is finished
bundle#<id>     part#<id>#<n>   references to versions; expires after 30 days
archive         <serial>        an archive, for ever
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.bundle import Bundle, BundleState, Lane, Limits
from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.version import ObjectVersion, from_fields, to_fields
from neve.errors import Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

KEEP = timedelta(days=30)
"""How long parts, and bundles that are finished, are kept. Longer than a message can live in a DLQ (14 days)."""

PART_BYTES = 300_000
"""An item holds 400 KB; what is counted here is the text before compression."""

INDEX = "unfinished"

Item = dict[str, Any]


def _key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _bundle_key(bundle_id: str) -> Item:
    return _key(f"bundle#{bundle_id}", "bundle")


def _part_key(bundle_id: str, part_id: str, number: int) -> Item:
    return _key(f"bundle#{bundle_id}", f"part#{part_id}#{number}")


def _archive_key(serial: int) -> Item:
    return _key("archive", f"{serial:010d}")


def _lane_key(lane: Lane) -> Item:
    return _key("lane", "0" if lane is Lane.LIVE else lane)


def _waits_in(lane: Lane) -> Item:
    """The index has a partition for each lane."""
    return {"unfinished": {"S": "1" if lane is Lane.LIVE else lane}}


_COUNTER = _key("counter", "serial")


def _seconds(moment: datetime) -> Item:
    return {"N": str(int(moment.timestamp()))}


def _moment(value: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(value["N"]), UTC)


def _chunks(versions: Sequence[ObjectVersion]) -> list[bytes]:
    """The references, packed into as many items as they need."""
    chunks: list[list[list[Any]]] = [[]]
    size = 0
    for version in versions:
        fields = to_fields(version)
        length = len(json.dumps(fields))
        if chunks[-1] and size + length > PART_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(fields)
        size += length
    return [zlib.compress(json.dumps(chunk, separators=(",", ":")).encode()) for chunk in chunks]


def _to_bundle(item: Mapping[str, Any]) -> Bundle:
    return Bundle(
        id=item["pk"]["S"].removeprefix("bundle#"),
        kind=item["kind"]["S"],
        state=BundleState(item["state"]["S"]),
        size_bytes=int(item["size_bytes"]["N"]),
        count=int(item["members"]["N"]),
        due_at=_moment(item["due_at"]),
        serial=int(item["serial"]["N"]) if "serial" in item else 0,
        upload_id=item["upload_id"]["S"] if "upload_id" in item else "",
        lease_owner=item["lease_owner"]["S"] if "lease_owner" in item else "",
        leased_until=_moment(item["leased_until"]) if "leased_until" in item else None,
        tries=int(item["tries"]["N"]) if "tries" in item else 0,
        source=item["source"]["S"] if "source" in item else "",
        supersedes=int(item["supersedes"]["N"]) if "supersedes" in item else 0,
        lane=Lane(item["lane"]["S"]) if "lane" in item else Lane.LIVE,
    )


@dataclass(frozen=True)
class DynamoBundles:
    """The port Bundles on the table `archives`."""

    client: DynamoDBClient
    table: str

    def lane(self, lane: Lane) -> str:
        """See neve.ports.Bundles."""
        item = self._get(_lane_key(lane))
        return str(item["bundle"]["S"]) if item else ""

    def move_lane(self, lane: Lane, *, previous: str, to: str) -> bool:
        """See neve.ports.Bundles."""
        return self._update(
            _lane_key(lane),
            "SET bundle = :to",
            "bundle = :previous" if previous else "attribute_not_exists(pk)",
            {":to": {"S": to}} | ({":previous": {"S": previous}} if previous else {}),
        )

    def create(self, bundle: Bundle) -> bool:
        """See neve.ports.Bundles."""
        item = {
            **_bundle_key(bundle.id),
            "kind": {"S": bundle.kind},
            "state": {"S": bundle.state},
            "size_bytes": {"N": str(bundle.size_bytes)},
            "members": {"N": str(bundle.count)},
            "due_at": _seconds(bundle.due_at),
        }
        item |= {"supersedes": {"N": str(bundle.supersedes)}} if bundle.supersedes else {}
        item |= {"lane": {"S": bundle.lane}} if bundle.lane is not Lane.LIVE else {}
        item |= {"expires_at": _seconds(bundle.due_at + KEEP)} if bundle.finished else _waits_in(bundle.lane)
        with transient():
            try:
                self.client.put_item(
                    TableName=self.table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def get(self, bundle_id: str) -> Bundle | None:
        """See neve.ports.Bundles."""
        item = self._get(_bundle_key(bundle_id))
        return _to_bundle(item) if item else None

    def put_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion], now: datetime) -> None:
        """See neve.ports.Bundles."""
        for number, packed in enumerate(_chunks(versions)):
            item = {
                **_part_key(bundle_id, part_id, number),
                "versions": {"B": packed},
                "expires_at": _seconds(now + KEEP),
            }
            with transient():
                self.client.put_item(TableName=self.table, Item=item, ReturnConsumedCapacity="TOTAL")

    def delete_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion]) -> None:
        """See neve.ports.Bundles."""
        for number in range(len(_chunks(versions))):
            with transient():
                self.client.delete_item(
                    TableName=self.table,
                    Key=_part_key(bundle_id, part_id, number),
                    ReturnConsumedCapacity="TOTAL",
                )

    def parts(self, bundle_id: str) -> list[ObjectVersion]:
        """See neve.ports.Bundles."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :part)",
            ExpressionAttributeValues={":pk": {"S": f"bundle#{bundle_id}"}, ":part": {"S": "part#"}},
            ProjectionExpression="versions",
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            return [
                from_fields(fields)
                for page in pages
                for item in page["Items"]
                for fields in json.loads(zlib.decompress(item["versions"]["B"]))
            ]

    def grow(self, bundle_id: str, *, size_bytes: int, count: int, limits: Limits) -> Bundle | None:
        """See neve.ports.Bundles."""
        with transient():
            try:
                answer = self.client.update_item(
                    TableName=self.table,
                    Key=_bundle_key(bundle_id),
                    UpdateExpression="ADD size_bytes :bytes, members :count",
                    ConditionExpression=(
                        "#state = :open AND size_bytes < :target AND size_bytes <= :room AND members <= :places"
                    ),
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues={
                        ":bytes": {"N": str(size_bytes)},
                        ":count": {"N": str(count)},
                        ":open": {"S": BundleState.OPEN},
                        ":target": {"N": str(limits.target_bytes)},
                        ":room": {"N": str(limits.ceiling_bytes - size_bytes)},
                        ":places": {"N": str(limits.max_members - count)},
                    },
                    ReturnValues="ALL_NEW",
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return None
        return _to_bundle(answer["Attributes"])

    def claim(self, bundle_id: str, *, owner: str, now: datetime, until: datetime) -> Bundle | None:
        """See neve.ports.Bundles."""
        with transient():
            try:
                answer = self.client.update_item(
                    TableName=self.table,
                    Key=_bundle_key(bundle_id),
                    UpdateExpression="SET #state = :sealed, lease_owner = :owner, leased_until = :until ADD tries :one",
                    ConditionExpression=(
                        "#state IN (:open, :sealed) AND "
                        "(attribute_not_exists(lease_owner) OR lease_owner = :owner OR leased_until < :now)"
                    ),
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues={
                        ":open": {"S": BundleState.OPEN},
                        ":sealed": {"S": BundleState.SEALED},
                        ":owner": {"S": owner},
                        ":now": _seconds(now),
                        ":until": _seconds(until + timedelta(seconds=1)),
                        ":one": {"N": "1"},
                    },
                    ReturnValues="ALL_NEW",
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return self.get(bundle_id)
        return _to_bundle(answer["Attributes"])

    def release(self, bundle_id: str, *, owner: str) -> None:
        """See neve.ports.Bundles."""
        self._update(
            _bundle_key(bundle_id),
            "REMOVE lease_owner, leased_until",
            "lease_owner = :owner",
            {":owner": {"S": owner}},
        )

    def assign_serial(self, bundle_id: str, *, source: str = "") -> int:
        """See neve.ports.Bundles."""
        with transient():
            answer = self.client.update_item(
                TableName=self.table,
                Key=_COUNTER,
                UpdateExpression="ADD drawn :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
                ReturnValues="UPDATED_NEW",
                ReturnConsumedCapacity="TOTAL",
            )
        serial = int(answer["Attributes"]["drawn"]["N"])
        recorded = self._update(
            _bundle_key(bundle_id),
            "SET serial = :serial" + (", #source = :source" if source else ""),
            "attribute_not_exists(serial) AND #state = :sealed",
            {":serial": {"N": str(serial)}, ":sealed": {"S": BundleState.SEALED}}
            | ({":source": {"S": source}} if source else {}),
        )
        if recorded:
            return serial
        bundle = self.get(bundle_id)
        if bundle is None or not bundle.serial:
            raise Transient(f"bundle {bundle_id} was finished by another while its serial was drawn")
        return bundle.serial

    def raise_serials(self, least: int) -> int:
        """See neve.ports.Bundles."""
        self._update(
            _COUNTER,
            "SET drawn = :least",
            "attribute_not_exists(drawn) OR drawn < :least",
            {":least": {"N": str(least)}},
        )
        item = self._get(_COUNTER)
        return int(item["drawn"]["N"]) if item else 0

    def drop_serial(self, bundle_id: str, serial: int) -> None:
        """See neve.ports.Bundles."""
        self._update(
            _bundle_key(bundle_id),
            "REMOVE serial, #source, upload_id",
            "serial = :serial AND #state = :sealed",
            {":serial": {"N": str(serial)}, ":sealed": {"S": BundleState.SEALED}},
        )

    def record_upload(self, bundle_id: str, *, previous: str, upload_id: str) -> str:
        """See neve.ports.Bundles."""
        recorded = self._update(
            _bundle_key(bundle_id),
            "SET upload_id = :upload",
            "upload_id = :previous" if previous else "attribute_not_exists(upload_id)",
            {":upload": {"S": upload_id}} | ({":previous": {"S": previous}} if previous else {}),
        )
        if recorded:
            return upload_id
        bundle = self.get(bundle_id)
        return bundle.upload_id if bundle else upload_id

    def void(self, bundle: Bundle, now: datetime) -> bool:
        """See neve.ports.Bundles."""
        return self._update(
            _bundle_key(bundle.id),
            "SET #state = :void, expires_at = :expires REMOVE unfinished",
            "#state = :state AND members = :count AND "
            + ("serial = :serial" if bundle.serial else "attribute_not_exists(serial)"),
            ({":serial": {"N": str(bundle.serial)}} if bundle.serial else {})
            | {
                ":void": {"S": BundleState.VOID},
                ":expires": _seconds(now + KEEP),
                ":state": {"S": bundle.state},
                ":count": {"N": str(bundle.count)},
            },
        )

    def finish(self, bundle_id: str, now: datetime) -> bool:
        """See neve.ports.Bundles."""
        return self._update(
            _bundle_key(bundle_id),
            "SET #state = :archived, expires_at = :expires REMOVE unfinished",
            "#state = :sealed",
            {
                ":archived": {"S": BundleState.ARCHIVED},
                ":sealed": {"S": BundleState.SEALED},
                ":expires": _seconds(now + KEEP),
            },
        )

    def overdue(self, lane: Lane, now: datetime) -> Iterator[Bundle]:
        """See neve.ports.Bundles."""
        return self._unfinished(lane, "AND due_at < :now", {":now": _seconds(now)})

    def unfinished(self) -> list[Bundle]:
        """All open and sealed bundles: what waits. Eventually consistent."""
        return [bundle for lane in Lane for bundle in self._unfinished(lane, "", {})]

    def _unfinished(self, lane: Lane, condition: str, values: Item) -> Iterator[Bundle]:
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            IndexName=INDEX,
            KeyConditionExpression=f"unfinished = :lane {condition}",
            ExpressionAttributeValues={":lane": _waits_in(lane)["unfinished"], **values},
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            for page in pages:
                for item in page["Items"]:
                    bundle = self.get(item["pk"]["S"].removeprefix("bundle#"))
                    if bundle and not bundle.finished:
                        yield bundle

    def _get(self, key: Item) -> Mapping[str, Any] | None:
        with transient():
            answer = self.client.get_item(
                TableName=self.table, Key=key, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        return answer.get("Item")

    def _update(self, key: Item, change: str, condition: str, values: Item) -> bool:
        """One conditional update; False if the condition did not hold."""
        names = {name: name[1:] for name in ("#state", "#source") if name in change + condition}  # reserved words
        with transient():
            try:
                self.client.update_item(
                    TableName=self.table,
                    Key=key,
                    UpdateExpression=change,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    **({"ExpressionAttributeNames": names} if names else {}),  # type: ignore[arg-type]  # an empty map is refused
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True


def _to_archive(item: Mapping[str, Any]) -> ArchiveRow:
    return ArchiveRow(
        serial=int(item["sk"]["S"]),
        kind=item["kind"]["S"],
        bundle=item["bundle"]["S"],
        object_key=item["object_key"]["S"],
        object_version_id=item["object_version_id"]["S"],
        storage_class=item["storage_class"]["S"],
        size_bytes=int(item["size_bytes"]["N"]),
        sha256=item["sha256"]["S"],
        source_bytes=int(item["source_bytes"]["N"]),
        files=int(item["files"]["N"]),
        duplicates=int(item["duplicates"]["N"]),
        state=ArchiveState(item["state"]["S"]),
        written_at=datetime.fromisoformat(item["written_at"]["S"]),
        archived_at=datetime.fromisoformat(item["archived_at"]["S"]) if "archived_at" in item else None,
        superseded_by=int(item["superseded_by"]["N"]) if "superseded_by" in item else 0,
    )


@dataclass(frozen=True)
class DynamoArchives:
    """The port Archives on the table `archives`."""

    client: DynamoDBClient
    table: str

    def put(self, row: ArchiveRow) -> ArchiveRow:
        """See neve.ports.Archives."""
        item: Item = {
            **_archive_key(row.serial),
            "kind": {"S": row.kind},
            "bundle": {"S": row.bundle},
            "object_key": {"S": row.object_key},
            "object_version_id": {"S": row.object_version_id},
            "storage_class": {"S": row.storage_class},
            "size_bytes": {"N": str(row.size_bytes)},
            "sha256": {"S": row.sha256},
            "source_bytes": {"N": str(row.source_bytes)},
            "files": {"N": str(row.files)},
            "duplicates": {"N": str(row.duplicates)},
            "state": {"S": row.state},
            "written_at": {"S": row.written_at.isoformat()},
        }
        item |= {"superseded_by": {"N": str(row.superseded_by)}} if row.superseded_by else {}
        with transient():
            try:
                self.client.put_item(
                    TableName=self.table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                standing = self.get(row.serial)
                if standing is None:
                    raise Transient(f"archive {row.serial} stands and cannot be read") from None
                return standing
        return row

    def finish(self, serial: int, *, duplicates: int, now: datetime) -> None:
        """See neve.ports.Archives."""
        with transient():
            try:
                self.client.update_item(
                    TableName=self.table,
                    Key=_archive_key(serial),
                    UpdateExpression="SET #state = :archived, archived_at = :now, duplicates = :duplicates",
                    ConditionExpression="#state = :written",
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues={
                        ":archived": {"S": ArchiveState.ARCHIVED},
                        ":written": {"S": ArchiveState.WRITTEN},
                        ":now": {"S": now.isoformat()},
                        ":duplicates": {"N": str(duplicates)},
                    },
                    ReturnConsumedCapacity="TOTAL",
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return

    def supersede(self, serial: int, *, by: int) -> None:
        """See neve.ports.Archives."""
        with transient(), suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self.table,
                Key=_archive_key(serial),
                UpdateExpression="SET superseded_by = :by",
                ConditionExpression=(
                    "attribute_exists(pk) AND (attribute_not_exists(superseded_by) OR superseded_by < :by)"
                ),
                ExpressionAttributeValues={":by": {"N": str(by)}},
                ReturnConsumedCapacity="TOTAL",
            )

    def get(self, serial: int) -> ArchiveRow | None:
        """See neve.ports.Archives."""
        with transient():
            answer = self.client.get_item(
                TableName=self.table, Key=_archive_key(serial), ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        return _to_archive(answer["Item"]) if "Item" in answer else None

    def all(self, *, first: int = 1, newest_first: bool = False) -> Iterator[ArchiveRow]:
        """See neve.ports.Archives."""
        start = _archive_key(first)
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :archive AND sk >= :first",
            ExpressionAttributeValues={":archive": start["pk"], ":first": start["sk"]},
            ScanIndexForward=not newest_first,
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            for page in pages:
                for item in page["Items"]:
                    yield _to_archive(item)

    def stored_bytes(self) -> int:
        """See neve.ports.Archives. One read unit for 8 KB of rows: $0.006 for a million archives."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :archive",
            ExpressionAttributeValues={":archive": {"S": "archive"}},
            ProjectionExpression="size_bytes",
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            return sum(int(item["size_bytes"]["N"]) for page in pages for item in page["Items"])

    def drawn(self) -> int:
        """See neve.ports.Archives."""
        with transient():
            answer = self.client.get_item(
                TableName=self.table, Key=_COUNTER, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        return int(answer["Item"]["drawn"]["N"]) if "Item" in answer else 0
