"""The table `restores`: thaws, jobs, and the shares that wait for archives.

pk                  sk                          what
archive#<serial>    thaw                        the archive's thaw; expires after the copy, once nobody waits for it
archive#<serial>    wait#<kind>#<job>#<share>   a share that waits, its items, its lease
jobs                <job>                       a job and its counters, for ever
job#<job>           chunk#<n>                   a counted chunk: its shares, and the results of items without an archive
job#<job>           wait#<share>                which share waits where
job#<job>           done#<share>                the results of a share that has ended
spend               <YYYY-MM-DD>                what that day's thaws cost, in millionths of a dollar

Chunks, results and spend expire after restore.KEEP. Several rows change together by TransactWriteItems, which
gives way to whoever else is at one of them: that is tried again here, a few times.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from neve.aws.faults import code, passing, transient
from neve.domain.cost import MILLION
from neve.domain.restore import DETAIL_CHARACTERS, KEEP, Ending, Item, Job, JobState, Kind, Result, Share
from neve.domain.thaw import Need, Thaw, ThawState, Tier
from neve.errors import NeveError, OverCap, Transient

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

INDEX = "unfinished"
GLANCE = timedelta(minutes=15)
"""How soon the sweep looks at a job that was opened, or has ended and is not announced."""
KEEP_THAW = timedelta(days=7)
"""How long a thaw is kept after its copy has expired."""
DETAIL_BYTES = 2 * DETAIL_CHARACTERS
"""500 details of 4-byte characters that nothing compresses would not fit into an item of 400 KB."""
THREADS = 16
TRIES = 9
"""Pauses between them grow to 1.6 seconds, and come to 3 on average: twenty Extracts may be at one job's counters."""
LONGEST_PAUSE_S = 1.6

_JOBS = "jobs"

Row = dict[str, Any]
Answer = TypeVar("Answer")


def _key(pk: str, sk: str) -> Row:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _archive(serial: int) -> str:
    return f"archive#{serial:010d}"


def _thaw_key(archive: int) -> Row:
    return _key(_archive(archive), "thaw")


def _waiting_key(share: Share) -> Row:
    return _key(_archive(share.archive), f"wait#{share.kind}#{share.job}#{share.id}")


def _pointer_key(share: Share) -> Row:
    return _key(f"job#{share.job}", f"wait#{share.id}")


def _done_key(share: Share) -> Row:
    return _key(f"job#{share.job}", f"done#{share.id}")


def _chunk_key(job_id: str, chunk: int) -> Row:
    return _key(f"job#{job_id}", f"chunk#{chunk:06d}")


def _job_key(job_id: str) -> Row:
    return _key(_JOBS, job_id)


def _spend_key(now: datetime) -> Row:
    return _key("spend", now.astimezone(UTC).date().isoformat())


def _text(value: str) -> Row:
    return {"S": value}


def _number(value: int) -> Row:
    return {"N": str(value)}


def _seconds(moment: datetime) -> Row:
    """To the microsecond, for what is compared or indexed."""
    return {"N": f"{moment.timestamp():.6f}"}


def _expiry(moment: datetime) -> Row:
    """DynamoDB's TTL knows whole seconds."""
    return _number(int(moment.timestamp()))


def _moment(row: Mapping[str, Any], name: str) -> datetime | None:
    """The moment in an attribute, written by _seconds or as text; None if it is missing."""
    if name not in row:
        return None
    value = row[name]
    return datetime.fromtimestamp(float(value["N"]), UTC) if "N" in value else datetime.fromisoformat(value["S"])


def _at(row: Mapping[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(row[name]["S"])


def _string(row: Mapping[str, Any], name: str) -> str:
    return str(row[name]["S"]) if name in row else ""


def _int(row: Mapping[str, Any], name: str) -> int:
    return int(row[name]["N"]) if name in row else 0


def _pack(values: Sequence[Sequence[Any]]) -> Row:
    return {"B": zlib.compress(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode())}


def _unpack(row: Mapping[str, Any], name: str = "packed") -> list[list[Any]]:
    values: list[list[Any]] = json.loads(zlib.decompress(row[name]["B"]))
    return values


def _item_fields(item: Item) -> list[Any]:
    return [item.key, item.pin, item.number, item.size_bytes, item.destination, item.sha256_head]


def _item(fields: Sequence[Any]) -> Item:
    key, pin, number, size_bytes, destination, sha256_head = fields
    return Item(
        key=key, pin=pin, number=number, size_bytes=size_bytes, destination=destination, sha256_head=sha256_head
    )


def _result_fields(result: Result) -> list[Any]:
    detail = result.detail[:DETAIL_CHARACTERS].encode(errors="replace")[:DETAIL_BYTES].decode(errors="ignore")
    return [*_item_fields(result.item), result.ending, detail]


def _result(fields: Sequence[Any]) -> Result:
    *item, ending, detail = fields
    return Result(item=_item(item), ending=Ending(ending), detail=detail)


def _counter(ending: Ending) -> str:
    return f"ended_{ending.name.lower()}"


def _counts(results: Sequence[Result]) -> dict[str, int]:
    """What `results` add to the counters of their job."""
    restored = sum(result.item.size_bytes for result in results if result.ending is Ending.RESTORED)
    endings = Counter(result.ending for result in results)
    return {_counter(ending): count for ending, count in endings.items()} | {"restored_bytes": restored}


def _need(row: Mapping[str, Any]) -> Need:
    return Need(tier=Tier(row["tier"]["S"]), days=_int(row, "days"))


def _need_fields(need: Need) -> Row:
    return {"tier": _text(need.tier), "days": _number(need.days)}


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
class _Table:
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
            ExpressionAttributeValues={":pk": _text(pk)} | ({":begins": _text(begins)} if begins else {}),
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
            **more,
        )
        with transient():
            for page in pages:
                yield from page["Items"]

    def _due(self, prefix: str, now: datetime) -> Iterator[Mapping[str, Any]]:
        """The rows in partitions named so that the sweep should look at. The index lags: each is read again."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            IndexName=INDEX,
            KeyConditionExpression="unfinished = :yes AND due_at < :now",
            ExpressionAttributeValues={":yes": _text("1"), ":now": _seconds(now)},
            ReturnConsumedCapacity="TOTAL",
        )
        with transient():
            for page in pages:
                for found in page["Items"]:
                    if not found["pk"]["S"].startswith(prefix):
                        continue
                    row = self._get({"pk": found["pk"], "sk": found["sk"]})
                    due_at = _moment(row, "due_at") if row else None
                    if row and due_at and due_at < now:
                        yield row

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


# -- Thaws -----------------------------------------------------------------------------------------------------------


def _thaw_row(thaw: Thaw) -> Row:
    row: Row = {
        **_thaw_key(thaw.archive),
        "serial": _number(thaw.archive),
        "state": _text(thaw.state),
        **_need_fields(Need(tier=thaw.tier, days=thaw.days)),
        "wanted_days": _number(thaw.wanted_days),
        "ready_at": _text(thaw.ready_at.isoformat()),
        "fell_back": {"BOOL": thaw.fell_back},
        "settled": {"BOOL": thaw.settled},
        "revision": _number(thaw.revision),
    }
    if thaw.due_at:
        row |= {"unfinished": _text("1"), "due_at": _seconds(thaw.due_at)}
    elif thaw.warm_until:
        row["expires_at"] = _expiry(thaw.warm_until + KEEP_THAW)
    if thaw.warm_until:
        row["warm_until"] = _text(thaw.warm_until.isoformat())
    if thaw.claimed_by:
        row["claimed_by"] = _text(thaw.claimed_by)
    if thaw.claimed_until:
        row["claimed_until"] = _text(thaw.claimed_until.isoformat())
    if thaw.upgraded_from:
        row["upgraded_from"] = _text(thaw.upgraded_from)
    return row


def _to_thaw(row: Mapping[str, Any]) -> Thaw:
    return Thaw(
        archive=_int(row, "serial"),
        state=ThawState(row["state"]["S"]),
        tier=Tier(row["tier"]["S"]),
        days=_int(row, "days"),
        wanted_days=_int(row, "wanted_days"),
        ready_at=_at(row, "ready_at"),
        due_at=_moment(row, "due_at"),
        warm_until=_moment(row, "warm_until"),
        claimed_by=_string(row, "claimed_by"),
        claimed_until=_moment(row, "claimed_until"),
        upgraded_from=Tier(row["upgraded_from"]["S"]) if "upgraded_from" in row else None,
        fell_back=row["fell_back"]["BOOL"],
        settled=row["settled"]["BOOL"],
        revision=_int(row, "revision"),
    )


def _as_seen(seen: Thaw | None) -> Row:
    """The condition that a thaw's row is what it was.

    Revisions count anew after a thaw was forgotten. When the copy was promised tells the new thaw from the old.
    """
    if seen is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "revision = :revision AND ready_at = :ready",
        "ExpressionAttributeValues": {
            ":revision": _number(seen.revision),
            ":ready": _text(seen.ready_at.isoformat()),
        },
    }


def _next(seen: Thaw | None, to: Thaw) -> Thaw:
    return replace(to, revision=seen.revision + 1 if seen else 1)


@dataclass(frozen=True)
class DynamoThaws(_Table):
    """The port Thaws on the table `restores`."""

    def get(self, archive: int) -> Thaw | None:
        """See neve.ports.Thaws."""
        row = self._get(_thaw_key(archive))
        return _to_thaw(row) if row else None

    def swap(self, seen: Thaw | None, to: Thaw) -> Thaw | None:
        """See neve.ports.Thaws."""
        thaw = _next(seen, to)
        swapped = self._write(self.client.put_item, Item=_thaw_row(thaw), **_as_seen(seen))
        return None if swapped is None else thaw

    def claim(self, seen: Thaw | None, to: Thaw, *, micro_usd: int, cap_micro_usd: int, now: datetime) -> Thaw | None:
        """See neve.ports.Thaws."""
        thaw = _next(seen, to)
        spend: Row = {
            "Key": _spend_key(now),
            "UpdateExpression": "ADD micro_usd :price SET expires_at = :expires",
            "ExpressionAttributeValues": {":price": _number(micro_usd), ":expires": _expiry(now + KEEP)},
        }
        if cap_micro_usd:
            room = cap_micro_usd - micro_usd
            first = "attribute_not_exists(micro_usd) OR " if room >= 0 else ""
            spend["ConditionExpression"] = f"{first}micro_usd <= :room"
            spend["ExpressionAttributeValues"][":room"] = _number(room)
        refused = self._transact({"Put": {"Item": _thaw_row(thaw), **_as_seen(seen)}}, {"Update": spend})
        if 0 in refused:
            return None
        if refused:
            price, spent, cap = (each / MILLION for each in (micro_usd, self.spent_micro_usd(now), cap_micro_usd))
            raise OverCap(
                f"its thaw costs {price:.4f} USD, and {spent:,.2f} of {cap:,.2f} USD a day are spent: "
                "raise the setting restore_usd_per_day, or ask again tomorrow (UTC)"
            )
        return thaw

    def drop(self, seen: Thaw) -> bool:
        """See neve.ports.Thaws."""
        return self._write(self.client.delete_item, Key=_thaw_key(seen.archive), **_as_seen(seen)) is not None

    def due(self, now: datetime) -> Iterator[Thaw]:
        """See neve.ports.Thaws."""
        return map(_to_thaw, self._due("archive#", now))

    def spent_micro_usd(self, now: datetime) -> int:
        """See neve.ports.Thaws."""
        return _int(self._get(_spend_key(now)) or {}, "micro_usd")


# -- Restores --------------------------------------------------------------------------------------------------------

_SHARE = (
    "job",
    "chunk",
    "serial",
    "kind",
    "tier",
    "days",
    "overwrite",
    "files",
    "size_bytes",
    "lease_owner",
    "leased_until",
    "first_leased_at",
)
"""The attributes of a waiting share, but for its items."""


def _share_fields(share: Share) -> Row:
    return {
        "job": _text(share.job),
        "chunk": _number(share.chunk),
        "serial": _number(share.archive),
        "kind": _text(share.kind),
        **_need_fields(share.need),
        "overwrite": {"BOOL": share.overwrite},
        "files": _number(share.files),
        "size_bytes": _number(share.size_bytes),
    }


def _to_share(row: Mapping[str, Any]) -> Share:
    return Share(
        job=row["job"]["S"],
        chunk=_int(row, "chunk"),
        archive=_int(row, "serial"),
        kind=Kind(row["kind"]["S"]),
        need=_need(row),
        overwrite=row["overwrite"]["BOOL"],
        items=tuple(_item(fields) for fields in _unpack(row)) if "packed" in row else (),
        files=_int(row, "files"),
        size_bytes=_int(row, "size_bytes"),
        lease_owner=_string(row, "lease_owner"),
        leased_until=_moment(row, "leased_until"),
        first_leased_at=_moment(row, "first_leased_at"),
    )


def _share_values(share: Share) -> list[Any]:
    items = [_item_fields(item) for item in share.items]
    return [share.archive, share.kind, share.need.tier, share.need.days, share.overwrite, items]


def _planned_share(job_id: str, chunk: int, values: Sequence[Any]) -> Share:
    archive, kind, tier, days, overwrite, fields = values
    items = tuple(map(_item, fields))
    return Share(
        job=job_id,
        chunk=chunk,
        archive=archive,
        kind=Kind(kind),
        need=Need(tier=Tier(tier), days=days),
        overwrite=overwrite,
        items=items,
        files=len(items),
        size_bytes=sum(item.size_bytes for item in items),
    )


def _to_job(row: Mapping[str, Any]) -> Job:
    return Job(
        id=row["sk"]["S"],
        created_at=_at(row, "created_at"),
        need=_need(row),
        overwrite=row["overwrite"]["BOOL"],
        chunks=_int(row, "chunks"),
        estimate_usd=float(row["estimate_usd"]["S"]),
        state=JobState(row["state"]["S"]),
        planned_chunks=_int(row, "planned_chunks"),
        files=_int(row, "files"),
        size_bytes=_int(row, "size_bytes"),
        shares=_int(row, "shares"),
        ended_shares=_int(row, "ended_shares"),
        ended={ending: _int(row, _counter(ending)) for ending in Ending if _counter(ending) in row},
        restored_bytes=_int(row, "restored_bytes"),
        cancelled_at=_moment(row, "cancelled_at"),
        given_up_at=_moment(row, "given_up_at"),
        finished_at=_moment(row, "finished_at"),
    )


@dataclass(frozen=True)
class DynamoRestores(_Table):
    """The port Restores on the table `restores`."""

    def open(self, job: Job) -> Job:
        """See neve.ports.Restores."""
        row = {
            **_job_key(job.id),
            "created_at": _text(job.created_at.isoformat()),
            **_need_fields(job.need),
            "overwrite": {"BOOL": job.overwrite},
            "chunks": _number(job.chunks),
            "estimate_usd": _text(repr(job.estimate_usd)),
            "state": _text(job.state),
            "planned_chunks": _number(0),
            "unfinished": _text("1"),
            "due_at": _seconds(job.created_at + GLANCE),
        }
        opened = self._write(self.client.put_item, Item=row, ConditionExpression="attribute_not_exists(pk)")
        standing = job if opened is not None else self.job(job.id)
        if standing is None:
            raise Transient(f"job {job.id} stands and cannot be read")
        return standing

    def job(self, job_id: str) -> Job | None:
        """See neve.ports.Restores."""
        row = self._get(_job_key(job_id))
        return _to_job(row) if row else None

    def jobs(self, *, newest_first: bool = True) -> Iterator[Job]:
        """See neve.ports.Restores."""
        return map(_to_job, self._query(_JOBS, ScanIndexForward=not newest_first))

    def planned(
        self, job_id: str, chunk: int, *, shares: Sequence[Share], results: Sequence[Result], now: datetime
    ) -> list[Share] | None:
        """See neve.ports.Restores."""
        key = _chunk_key(job_id, chunk)
        row = {
            **key,
            "packed": _pack([_result_fields(result) for result in results]),
            "shares": _pack([_share_values(share) for share in shares]),
            "expires_at": _expiry(now + KEEP),
        }
        counted = {
            "planned_chunks": 1,
            "files": sum(share.files for share in shares) + len(results),
            "size_bytes": sum(share.size_bytes for share in shares) + sum(each.item.size_bytes for each in results),
            "shares": len(shares),
            **_counts(results),
        }
        put = {"Put": {"Item": row, "ConditionExpression": "attribute_not_exists(pk)"}}
        if self._count(job_id, counted, put, unless="attribute_not_exists(given_up_at)"):
            return list(shares)
        standing = self._get(key)
        if standing is None:
            return None
        return [_planned_share(job_id, chunk, values) for values in _unpack(standing, "shares")]

    def add(self, shares: Sequence[Share]) -> list[Share]:
        """See neve.ports.Restores."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [share for share, waits in zip(shares, pool.map(self._add, shares), strict=True) if waits]

    def _add(self, share: Share) -> bool:
        """Whether the share waits afterwards."""
        fields = _share_fields(share)
        packed = _pack([_item_fields(item) for item in share.items])
        unless_there = {"ConditionExpression": "attribute_not_exists(pk)"}
        refused = self._transact(
            {"Put": {"Item": {**_waiting_key(share), **fields, "packed": packed}, **unless_there}},
            {"Put": {"Item": {**_pointer_key(share), **fields}, **unless_there}},
            {"ConditionCheck": {"Key": _done_key(share), **unless_there}},
        )
        return 2 not in refused

    def waiting(self, archive: int) -> list[Share]:
        """See neve.ports.Restores."""
        rows = self._query(_archive(archive), "wait#", ProjectionExpression=", ".join(_SHARE))
        return [_to_share(row) for row in rows]

    def waiting_of(self, job_id: str) -> Iterator[Share]:
        """See neve.ports.Restores."""
        return map(_to_share, self._query(f"job#{job_id}", "wait#"))

    def lease(self, share: Share, *, owner: str, now: datetime, until: datetime) -> Share | None:
        """See neve.ports.Restores."""
        answer = self._write(
            self.client.update_item,
            Key=_waiting_key(share),
            UpdateExpression=(
                "SET lease_owner = :owner, leased_until = :until, "
                "first_leased_at = if_not_exists(first_leased_at, :now)"
            ),
            ConditionExpression=(
                "attribute_exists(pk) AND "
                "(attribute_not_exists(lease_owner) OR lease_owner = :owner OR leased_until < :now)"
            ),
            ExpressionAttributeValues={":owner": _text(owner), ":now": _seconds(now), ":until": _seconds(until)},
            ReturnValues="ALL_NEW",
        )
        return None if answer is None else _to_share(answer["Attributes"])

    def release(self, share: Share, *, owner: str) -> None:
        """See neve.ports.Restores."""
        self._write(
            self.client.update_item,
            Key=_waiting_key(share),
            UpdateExpression="REMOVE lease_owner, leased_until",
            ConditionExpression="lease_owner = :owner",
            ExpressionAttributeValues={":owner": _text(owner)},
        )

    def finish(self, share: Share, results: Sequence[Result], *, owner: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        row = {
            **_done_key(share),
            "packed": _pack([_result_fields(result) for result in results]),
            "expires_at": _expiry(now + KEEP),
        }
        held = {"ConditionExpression": "lease_owner = :owner", "ExpressionAttributeValues": {":owner": _text(owner)}}
        return self._count(
            share.job,
            {"ended_shares": 1, **_counts(results)},
            {"Delete": {"Key": _waiting_key(share), **held}},
            {"Delete": {"Key": _pointer_key(share)}},
            {"Put": {"Item": row}},
        )

    def results(self, job_id: str) -> Iterator[Result]:
        """See neve.ports.Restores."""
        for begins in ("chunk#", "done#"):
            for row in self._query(f"job#{job_id}", begins):
                yield from map(_result, _unpack(row))

    def cancel(self, job_id: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        return self._change(
            job_id,
            "SET cancelled_at = :now",
            "#state = :running AND attribute_not_exists(cancelled_at)",
            {":now": _text(now.isoformat()), ":running": _text(JobState.RUNNING)},
        )

    def give_up(self, job_id: str, now: datetime) -> None:
        """See neve.ports.Restores."""
        self._change(
            job_id,
            "SET given_up_at = if_not_exists(given_up_at, :now)",
            "#state = :running",
            {":now": _text(now.isoformat()), ":running": _text(JobState.RUNNING)},
        )

    def end(self, job_id: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        return self._change(
            job_id,
            "SET #state = :finished, finished_at = :now, due_at = :due",
            "#state = :running",
            {
                ":finished": _text(JobState.FINISHED),
                ":running": _text(JobState.RUNNING),
                ":now": _text(now.isoformat()),
                ":due": _seconds(now + GLANCE),
            },
        )

    def announced(self, job_id: str) -> None:
        """See neve.ports.Restores."""
        self._change(job_id, "REMOVE unfinished, due_at", "#state = :finished", {":finished": _text(JobState.FINISHED)})

    def due(self, now: datetime) -> Iterator[Job]:
        """See neve.ports.Restores."""
        return map(_to_job, self._due(_JOBS, now))

    def postpone(self, job_id: str, due_at: datetime) -> None:
        """See neve.ports.Restores."""
        self._change(job_id, "SET due_at = :due", "attribute_exists(unfinished)", {":due": _seconds(due_at)})

    def _change(self, job_id: str, change: str, condition: str, values: Row) -> bool:
        """One conditional update of a job's row; False if the condition did not hold."""
        names = {"#state": "state"} if "#state" in change + condition else {}  # a reserved word
        changed = self._write(
            self.client.update_item,
            Key=_job_key(job_id),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
            **({"ExpressionAttributeNames": names} if names else {}),  # an empty map is refused
        )
        return changed is not None

    def _count(self, job_id: str, counted: Mapping[str, int], *writes: Mapping[str, Row], unless: str = "") -> bool:
        """Make `writes` and add to the job's counters; False, and nothing changes, if one of them was refused, or the
        job by the condition `unless`.
        """
        update = {
            "Key": _job_key(job_id),
            "UpdateExpression": "ADD " + ", ".join(f"{name} :{name}" for name in counted),
            "ConditionExpression": "attribute_exists(pk)" + (f" AND {unless}" if unless else ""),
            "ExpressionAttributeValues": {f":{name}": _number(count) for name, count in counted.items()},
        }
        refused = self._transact(*writes, {"Update": update})
        if refused == [len(writes)] and self.job(job_id) is None:
            raise NeveError(f"there is no job {job_id} to count to")
        return not refused
