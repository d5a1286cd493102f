"""The table `restores`: thaws, jobs, and the shares that wait for archives.

pk                  sk                          what
archive#<serial>    thaw                        the archive's thaw; expires after the copy, once nobody waits for it
archive#<serial>    wait#<kind>#<job>#<share>   a share that waits, its items, its lease
jobs                <job>                       a job and its counters, for ever
job#<job>           chunk#<n>                   a counted chunk: its shares, and the results of items without an archive
job#<job>           wait#<share>                which share waits where
job#<job>           done#<share>                the results of a share that has ended
spend               <YYYY-MM-DD>                what that day's thaws cost, in millionths of a dollar
recall#<key>        recall                      which job brings a file back that visitors have asked for

Chunks, results, spend and recalls expire after restore.KEEP. The rows of thaws and of spending are those of
thaws_table.py, recalls those of recalls_table.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    archive_partition,
    brief,
    expiry,
    instant,
    integer,
    moment,
    need_fields,
    need_of,
    number,
    pack,
    primary_key,
    seconds,
    string,
    text,
    unpack,
)
from neve.domain.restore import KEEP, Ending, Item, Job, JobState, Kind, Result, Share
from neve.domain.thaw import Need, Tier
from neve.errors import NeveError, Transient

GLANCE = timedelta(minutes=15)
"""How soon the sweep looks at a job that was opened, or has ended and is not announced."""
THREADS = 16

_JOBS = "jobs"


def _waiting_key(share: Share) -> Row:
    return primary_key(archive_partition(share.archive), f"wait#{share.kind}#{share.job}#{share.id}")


def _pointer_key(share: Share) -> Row:
    return primary_key(f"job#{share.job}", f"wait#{share.id}")


def _done_key(share: Share) -> Row:
    return primary_key(f"job#{share.job}", f"done#{share.id}")


def _chunk_key(job_id: str, chunk: int) -> Row:
    return primary_key(f"job#{job_id}", f"chunk#{chunk:06d}")


def _job_key(job_id: str) -> Row:
    return primary_key(_JOBS, job_id)


def _item_fields(item: Item) -> list[Any]:
    return [item.key, item.pin, item.number, item.size_bytes, item.destination, item.sha256_head]


def _item(fields: Sequence[Any]) -> Item:
    key, pin, number, size_bytes, destination, sha256_head = fields
    return Item(
        key=key, pin=pin, number=number, size_bytes=size_bytes, destination=destination, sha256_head=sha256_head
    )


def _result_fields(result: Result) -> list[Any]:
    return [*_item_fields(result.item), result.ending, brief(result.detail)]


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
        "job": text(share.job),
        "chunk": number(share.chunk),
        "serial": number(share.archive),
        "kind": text(share.kind),
        **need_fields(share.need),
        "overwrite": {"BOOL": share.overwrite},
        "files": number(share.files),
        "size_bytes": number(share.size_bytes),
    }


def _to_share(row: Mapping[str, Any]) -> Share:
    return Share(
        job=row["job"]["S"],
        chunk=integer(row, "chunk"),
        archive=integer(row, "serial"),
        kind=Kind(row["kind"]["S"]),
        need=need_of(row),
        overwrite=row["overwrite"]["BOOL"],
        items=tuple(_item(fields) for fields in unpack(row)) if "packed" in row else (),
        files=integer(row, "files"),
        size_bytes=integer(row, "size_bytes"),
        lease_owner=string(row, "lease_owner"),
        leased_until=moment(row, "leased_until"),
        first_leased_at=moment(row, "first_leased_at"),
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
        created_at=instant(row, "created_at"),
        need=need_of(row),
        overwrite=row["overwrite"]["BOOL"],
        chunks=integer(row, "chunks"),
        estimate_usd=float(row["estimate_usd"]["S"]),
        state=JobState(row["state"]["S"]),
        planned_chunks=integer(row, "planned_chunks"),
        files=integer(row, "files"),
        size_bytes=integer(row, "size_bytes"),
        shares=integer(row, "shares"),
        ended_shares=integer(row, "ended_shares"),
        ended={ending: integer(row, _counter(ending)) for ending in Ending if _counter(ending) in row},
        restored_bytes=integer(row, "restored_bytes"),
        cancelled_at=moment(row, "cancelled_at"),
        given_up_at=moment(row, "given_up_at"),
        finished_at=moment(row, "finished_at"),
    )


@dataclass(frozen=True)
class DynamoRestores(Table):
    """The port Restores on the table `restores`."""

    def open(self, job: Job) -> Job:
        """See neve.ports.Restores."""
        row = {
            **_job_key(job.id),
            "created_at": text(job.created_at.isoformat()),
            **need_fields(job.need),
            "overwrite": {"BOOL": job.overwrite},
            "chunks": number(job.chunks),
            "estimate_usd": text(repr(job.estimate_usd)),
            "state": text(job.state),
            "planned_chunks": number(0),
            "unfinished": text("1"),
            "due_at": seconds(job.created_at + GLANCE),
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
            "packed": pack([_result_fields(result) for result in results]),
            "shares": pack([_share_values(share) for share in shares]),
            "expires_at": expiry(now + KEEP),
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
        return [_planned_share(job_id, chunk, values) for values in unpack(standing, "shares")]

    def add(self, shares: Sequence[Share]) -> list[Share]:
        """See neve.ports.Restores."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [share for share, waits in zip(shares, pool.map(self._add, shares), strict=True) if waits]

    def _add(self, share: Share) -> bool:
        """Whether the share waits afterwards."""
        fields = _share_fields(share)
        packed = pack([_item_fields(item) for item in share.items])
        unless_there = {"ConditionExpression": "attribute_not_exists(pk)"}
        refused = self._transact(
            {"Put": {"Item": {**_waiting_key(share), **fields, "packed": packed}, **unless_there}},
            {"Put": {"Item": {**_pointer_key(share), **fields}, **unless_there}},
            {"ConditionCheck": {"Key": _done_key(share), **unless_there}},
        )
        return 2 not in refused

    def waiting(self, archive: int) -> list[Share]:
        """See neve.ports.Restores."""
        rows = self._query(archive_partition(archive), "wait#", ProjectionExpression=", ".join(_SHARE))
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
            ExpressionAttributeValues={":owner": text(owner), ":now": seconds(now), ":until": seconds(until)},
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
            ExpressionAttributeValues={":owner": text(owner)},
        )

    def finish(self, share: Share, results: Sequence[Result], *, owner: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        row = {
            **_done_key(share),
            "packed": pack([_result_fields(result) for result in results]),
            "expires_at": expiry(now + KEEP),
        }
        held = {"ConditionExpression": "lease_owner = :owner", "ExpressionAttributeValues": {":owner": text(owner)}}
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
                yield from map(_result, unpack(row))

    def cancel(self, job_id: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        return self._change(
            job_id,
            "SET cancelled_at = :now",
            "#state = :running AND attribute_not_exists(cancelled_at)",
            {":now": text(now.isoformat()), ":running": text(JobState.RUNNING)},
        )

    def give_up(self, job_id: str, now: datetime) -> None:
        """See neve.ports.Restores."""
        self._change(
            job_id,
            "SET given_up_at = if_not_exists(given_up_at, :now)",
            "#state = :running",
            {":now": text(now.isoformat()), ":running": text(JobState.RUNNING)},
        )

    def end(self, job_id: str, now: datetime) -> bool:
        """See neve.ports.Restores."""
        return self._change(
            job_id,
            "SET #state = :finished, finished_at = :now, due_at = :due",
            "#state = :running",
            {
                ":finished": text(JobState.FINISHED),
                ":running": text(JobState.RUNNING),
                ":now": text(now.isoformat()),
                ":due": seconds(now + GLANCE),
            },
        )

    def announced(self, job_id: str) -> None:
        """See neve.ports.Restores."""
        self._change(job_id, "REMOVE unfinished, due_at", "#state = :finished", {":finished": text(JobState.FINISHED)})

    def due(self, now: datetime) -> Iterator[Job]:
        """See neve.ports.Restores."""
        return map(_to_job, self._due(_JOBS, now))

    def postpone(self, job_id: str, due_at: datetime) -> None:
        """See neve.ports.Restores."""
        self._change(job_id, "SET due_at = :due", "attribute_exists(unfinished)", {":due": seconds(due_at)})

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
            "ExpressionAttributeValues": {f":{name}": number(count) for name, count in counted.items()},
        }
        refused = self._transact(*writes, {"Update": update})
        if refused == [len(writes)] and self.job(job_id) is None:
            raise NeveError(f"there is no job {job_id} to count to")
        return not refused
