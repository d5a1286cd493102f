"""Backfills and their shards, in the table `backfills`.

pk               sk           what
backfills        <id>         a backfill, and when its next batch may be announced (next_at): kept small, since with a
                              rate every batch changes it
backfill#<id>    split        how it is split, written once
backfill#<id>    shard#<n>    a shard: its place, what it counted, its lease
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    instant,
    integer,
    moment,
    number,
    pack,
    primary_key,
    seconds,
    string,
    text,
    unpack,
)
from neve.domain.backfill import Backfill, BackfillShard, BackfillState, Counted, Place, Split
from neve.errors import Transient
from neve.ports import Slot

TRIES = 20
"""So often a reservation starts over because others have just made theirs."""

_BACKFILLS = "backfills"
_NAMES = {"#state": "state"}
"""A reserved word."""


def _backfill_key(backfill_id: str) -> Row:
    return primary_key(_BACKFILLS, backfill_id)


def _of(backfill_id: str) -> str:
    return f"backfill#{backfill_id}"


def _split_key(backfill_id: str) -> Row:
    return primary_key(_of(backfill_id), "split")


def _shard_key(backfill_id: str, shard: int) -> Row:
    return primary_key(_of(backfill_id), f"shard#{shard:06d}")


def _to_backfill(row: Mapping[str, Any]) -> Backfill:
    return Backfill(
        id=row["sk"]["S"],
        begun_at=instant(row, "begun_at"),
        prefix=string(row, "prefix"),
        inventory=string(row, "inventory"),
        rate=integer(row, "rate"),
        dry_run=row["dry_run"]["BOOL"],
        state=BackfillState(row["state"]["S"]),
        attempt=integer(row, "attempt"),
        problem=string(row, "problem"),
        ended_at=moment(row, "ended_at"),
    )


def _to_split(row: Mapping[str, Any]) -> Split:
    return Split(
        boundaries=tuple(boundary for (boundary,) in unpack(row, "boundaries")),
        manifest=string(row, "manifest"),
        files=integer(row, "files"),
    )


def _shard_row(shard: BackfillShard) -> Row:
    place, counted = shard.place, shard.counted
    row: Row = {
        **_shard_key(shard.of, shard.number),
        "place": pack([[place.key, place.version_id, place.file, place.line]]),
        "done": {"BOOL": shard.done},
        "sizes": pack([[each, size, count] for each, (size, count) in counted.by_size.items()]),
        "frozen": number(counted.frozen),
        "frozen_bytes": number(counted.frozen_bytes),
        "revision": number(shard.revision),
    }
    row |= {name: text(value) for name in ("problem", "lease_owner") if (value := getattr(shard, name))}
    return row | {name: seconds(at) for name in ("leased_until", "changed_at") if (at := getattr(shard, name))}


def _to_shard(backfill_id: str, row: Mapping[str, Any]) -> BackfillShard:
    key, version_id, file, line = unpack(row, "place")[0]
    return BackfillShard(
        of=backfill_id,
        number=int(row["sk"]["S"].removeprefix("shard#")),
        place=Place(key=key, version_id=version_id, file=file, line=line),
        done=row["done"]["BOOL"],
        counted=Counted(
            by_size={each: (size, count) for each, size, count in unpack(row, "sizes")},
            frozen=integer(row, "frozen"),
            frozen_bytes=integer(row, "frozen_bytes"),
        ),
        problem=string(row, "problem"),
        lease_owner=string(row, "lease_owner"),
        leased_until=moment(row, "leased_until"),
        changed_at=moment(row, "changed_at"),
        revision=integer(row, "revision"),
    )


@dataclass(frozen=True)
class DynamoBackfills(Table):
    """The port Backfills on the table `backfills`."""

    def open(self, new: Backfill) -> Backfill:
        """See neve.ports.Backfills."""
        row: Row = {
            **_backfill_key(new.id),
            "begun_at": text(new.begun_at.isoformat()),
            "prefix": text(new.prefix),
            "inventory": text(new.inventory),
            "rate": number(new.rate),
            "dry_run": {"BOOL": new.dry_run},
            "state": text(new.state),
            "attempt": number(new.attempt),
            "next_at": seconds(new.begun_at),
        }
        self._write(self.client.put_item, Item=row, ConditionExpression="attribute_not_exists(pk)")
        return self._standing(new.id)

    def get(self, backfill_id: str) -> Backfill | None:
        """See neve.ports.Backfills."""
        row = self._get(_backfill_key(backfill_id))
        return _to_backfill(row) if row else None

    def all(self, *, newest_first: bool = True) -> Iterator[Backfill]:
        """See neve.ports.Backfills."""
        return map(_to_backfill, self._query(_BACKFILLS, ScanIndexForward=not newest_first))

    def split(self, backfill_id: str) -> Split | None:
        """See neve.ports.Backfills."""
        row = self._get(_split_key(backfill_id))
        return _to_split(row) if row else None

    def freeze(self, backfill_id: str, split: Split) -> Split:
        """See neve.ports.Backfills."""
        row: Row = {
            **_split_key(backfill_id),
            "boundaries": pack([[boundary] for boundary in split.boundaries]),
            "manifest": text(split.manifest),
            "files": number(split.files),
        }
        frozen = self._write(self.client.put_item, Item=row, ConditionExpression="attribute_not_exists(pk)")
        standing = split if frozen is not None else self.split(backfill_id)
        if standing is None:
            raise Transient(f"the split of backfill {backfill_id} stands and cannot be read")
        return standing

    def shard(self, backfill_id: str, number: int) -> BackfillShard:
        """See neve.ports.Backfills."""
        row = self._get(_shard_key(backfill_id, number))
        return _to_shard(backfill_id, row) if row else BackfillShard(of=backfill_id, number=number)

    def shards(self, backfill_id: str) -> Iterator[BackfillShard]:
        """See neve.ports.Backfills."""
        for row in self._query(_of(backfill_id), "shard#"):
            yield _to_shard(backfill_id, row)

    def swap(self, seen: BackfillShard, to: BackfillShard) -> BackfillShard | None:
        """See neve.ports.Backfills."""
        shard = replace(to, revision=seen.revision + 1)
        as_seen: Row = {"ConditionExpression": "attribute_not_exists(pk)"}
        if seen.revision:
            as_seen = {
                "ConditionExpression": "revision = :seen",
                "ExpressionAttributeValues": {":seen": number(seen.revision)},
            }
        swapped = self._write(self.client.put_item, Item=_shard_row(shard), **as_seen)
        return None if swapped is None else shard

    def reserve(self, backfill_id: str, *, takes: timedelta, now: datetime, until: datetime) -> Slot | None:
        """See neve.ports.Backfills. Where the next free time has gone by, it is now: what was left unused is lost."""
        for _ in range(TRIES):
            row = self._get(_backfill_key(backfill_id))
            if row is None or row["state"]["S"] != BackfillState.RUNNING:
                return None
            if not takes:
                return Slot(at=now, taken=True)
            free = moment(row, "next_at")
            assert free is not None, "it is written when the backfill is opened"
            at = max(now, free)
            if at > until:
                return Slot(at=at, taken=False)
            reserved = self._change(
                backfill_id,
                "SET next_at = :next",
                "#state = :running AND next_at = :free",
                {":next": seconds(at + takes), ":free": row["next_at"], ":running": text(BackfillState.RUNNING)},
            )
            if reserved:
                return Slot(at=at, taken=True)
        raise Transient(f"others reserved times of backfill {backfill_id} in {TRIES} tries")

    def stop(self, backfill_id: str, now: datetime, *, problem: str = "") -> bool:
        """See neve.ports.Backfills."""
        return self._change(
            backfill_id,
            "SET #state = :stopped, problem = :problem, ended_at = :now",
            "#state = :running",
            {
                ":stopped": text(BackfillState.STOPPED),
                ":running": text(BackfillState.RUNNING),
                ":problem": text(problem),
                ":now": text(now.isoformat()),
            },
        )

    def resume(self, backfill_id: str, now: datetime, *, rate: int | None = None) -> Backfill | None:
        """See neve.ports.Backfills."""
        resumed = self._change(
            backfill_id,
            "SET #state = :running, attempt = attempt + :one, next_at = :now"
            + (", rate = :rate" if rate is not None else "")
            + " REMOVE problem, ended_at",
            "#state IN (:running, :stopped)",
            {
                ":running": text(BackfillState.RUNNING),
                ":stopped": text(BackfillState.STOPPED),
                ":one": number(1),
                ":now": seconds(now),
            }
            | ({":rate": number(rate)} if rate is not None else {}),
        )
        return self._standing(backfill_id) if resumed else None

    def end(self, backfill_id: str, now: datetime) -> bool:
        """See neve.ports.Backfills."""
        return self._change(
            backfill_id,
            "SET #state = :finished, ended_at = :now REMOVE problem",
            "#state IN (:running, :stopped)",
            {
                ":finished": text(BackfillState.FINISHED),
                ":running": text(BackfillState.RUNNING),
                ":stopped": text(BackfillState.STOPPED),
                ":now": text(now.isoformat()),
            },
        )

    def _standing(self, backfill_id: str) -> Backfill:
        standing = self.get(backfill_id)
        if standing is None:
            raise Transient(f"backfill {backfill_id} stands and cannot be read")
        return standing

    def _change(self, backfill_id: str, change: str, condition: str, values: Row) -> bool:
        """One conditional update of a backfill; False if the condition did not hold."""
        changed = self._write(
            self.client.update_item,
            Key=_backfill_key(backfill_id),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
            ExpressionAttributeNames=_NAMES,
        )
        return changed is not None
