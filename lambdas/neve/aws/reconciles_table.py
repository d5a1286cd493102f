"""Passes of reconcile and their shards, in the table `audits`.

pk                  sk              what
reconciles          <pass>          a pass and, once it has finished, its counts, for ever
reconcile#<pass>    shard#<n>       a shard: its place, counts, first findings, lease; expires after reconcile.KEEP
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    expiry,
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
from neve.domain.reconcile import KEEP, Finding, Outcome, Pass, PassState, Place, ShardRow
from neve.errors import NeveError, Transient

GLANCE = timedelta(minutes=15)
"""How soon the sweep looks at a pass that was begun, or has ended and is not announced."""

_PASSES = "reconciles"


def _pass_key(pass_id: str) -> Row:
    return primary_key(_PASSES, pass_id)


def _shard_key(pass_id: str, shard: int) -> Row:
    return primary_key(f"reconcile#{pass_id}", f"shard#{shard:06d}")


def _counts(counts: Mapping[Outcome, int]) -> Row:
    return pack([[outcome, count] for outcome, count in counts.items()])


def _to_counts(row: Mapping[str, Any]) -> dict[Outcome, int]:
    return {Outcome(outcome): count for outcome, count in unpack(row, "counts")} if "counts" in row else {}


def _to_pass(row: Mapping[str, Any]) -> Pass:
    return Pass(
        id=row["sk"]["S"],
        begun_at=instant(row, "begun_at"),
        boundaries=tuple(boundary for (boundary,) in unpack(row, "boundaries")),
        inventory=string(row, "inventory"),
        inventory_files=integer(row, "inventory_files"),
        serials=integer(row, "serials"),
        refused=string(row, "refused"),
        state=PassState(row["state"]["S"]),
        done_shards=integer(row, "done_shards"),
        counts=_to_counts(row),
        finished_at=moment(row, "finished_at"),
    )


def _shard_row(shard: ShardRow) -> Row:
    place = shard.place
    row: Row = {
        **_shard_key(shard.of, shard.number),
        "place": pack([[place.key, place.version_id, place.number]]),
        "done": {"BOOL": shard.done},
        "counts": _counts(shard.counts),
        "findings": pack([[each.outcome, each.archive, each.key, each.pin, each.detail] for each in shard.findings]),
        "revision": number(shard.revision),
    }
    if shard.lease_owner:
        row["lease_owner"] = text(shard.lease_owner)
    if shard.leased_until:
        row["leased_until"] = seconds(shard.leased_until)
    if shard.changed_at:
        row |= {"changed_at": seconds(shard.changed_at), "expires_at": expiry(shard.changed_at + KEEP)}
    return row


def _to_shard(pass_id: str, row: Mapping[str, Any]) -> ShardRow:
    key, version_id, reached = unpack(row, "place")[0]
    return ShardRow(
        of=pass_id,
        number=int(row["sk"]["S"].removeprefix("shard#")),
        place=Place(key=key, version_id=version_id, number=reached),
        done=row["done"]["BOOL"],
        counts=_to_counts(row),
        findings=tuple(
            Finding(outcome=Outcome(outcome), archive=archive, key=key, pin=pin, detail=detail)
            for outcome, archive, key, pin, detail in unpack(row, "findings")
        ),
        lease_owner=string(row, "lease_owner"),
        leased_until=moment(row, "leased_until"),
        changed_at=moment(row, "changed_at"),
        revision=integer(row, "revision"),
    )


@dataclass(frozen=True)
class DynamoReconciles(Table):
    """The port Reconciles on the table `audits`."""

    def open(self, new: Pass) -> Pass:
        """See neve.ports.Reconciles."""
        row: Row = {
            **_pass_key(new.id),
            "begun_at": text(new.begun_at.isoformat()),
            "boundaries": pack([[boundary] for boundary in new.boundaries]),
            "inventory": text(new.inventory),
            "inventory_files": number(new.inventory_files),
            "serials": number(new.serials),
            "refused": text(new.refused),
            "state": text(new.state),
            "done_shards": number(0),
            "unfinished": text("1"),
            "due_at": seconds(new.begun_at + GLANCE),
        }
        opened = self._write(self.client.put_item, Item=row, ConditionExpression="attribute_not_exists(pk)")
        standing = new if opened is not None else self.get(new.id)
        if standing is None:
            raise Transient(f"pass {new.id} stands and cannot be read")
        return standing

    def get(self, pass_id: str) -> Pass | None:
        """See neve.ports.Reconciles."""
        row = self._get(_pass_key(pass_id))
        return _to_pass(row) if row else None

    def passes(self, *, newest_first: bool = True) -> Iterator[Pass]:
        """See neve.ports.Reconciles."""
        return map(_to_pass, self._query(_PASSES, ScanIndexForward=not newest_first))

    def shard(self, pass_id: str, number: int) -> ShardRow:
        """See neve.ports.Reconciles."""
        row = self._get(_shard_key(pass_id, number))
        return _to_shard(pass_id, row) if row else ShardRow(of=pass_id, number=number)

    def shards(self, pass_id: str) -> Iterator[ShardRow]:
        """See neve.ports.Reconciles."""
        for row in self._query(f"reconcile#{pass_id}", "shard#"):
            yield _to_shard(pass_id, row)

    def swap(self, seen: ShardRow, to: ShardRow) -> ShardRow | None:
        """See neve.ports.Reconciles."""
        shard = replace(to, revision=seen.revision + 1)
        as_seen: Row = {"ConditionExpression": "attribute_not_exists(pk)"}
        if seen.revision:
            as_seen = {
                "ConditionExpression": "revision = :seen",
                "ExpressionAttributeValues": {":seen": number(seen.revision)},
            }
        if seen.done or not shard.done:
            swapped = self._write(self.client.put_item, Item=_shard_row(shard), **as_seen)
            return None if swapped is None else shard
        counted = {
            "Key": _pass_key(shard.of),
            "UpdateExpression": "ADD done_shards :one",
            "ConditionExpression": "attribute_exists(pk)",
            "ExpressionAttributeValues": {":one": number(1)},
        }
        refused = self._transact({"Put": {"Item": _shard_row(shard), **as_seen}}, {"Update": counted})
        if refused == [1]:
            raise NeveError(f"there is no pass {shard.of} to count to")
        return None if refused else shard

    def end(self, pass_id: str, counts: Mapping[Outcome, int], now: datetime) -> bool:
        """See neve.ports.Reconciles."""
        return self._change(
            pass_id,
            "SET #state = :finished, finished_at = :now, #counts = :counts, due_at = :due",
            "#state = :running",
            {
                ":finished": text(PassState.FINISHED),
                ":running": text(PassState.RUNNING),
                ":now": text(now.isoformat()),
                ":counts": _counts(counts),
                ":due": seconds(now + GLANCE),
            },
        )

    def announced(self, pass_id: str) -> None:
        """See neve.ports.Reconciles."""
        finished = {":finished": text(PassState.FINISHED)}
        self._change(pass_id, "REMOVE unfinished, due_at", "#state = :finished", finished)

    def due(self, now: datetime) -> Iterator[Pass]:
        """See neve.ports.Reconciles."""
        return map(_to_pass, self._due(_PASSES, now))

    def postpone(self, pass_id: str, due_at: datetime) -> None:
        """See neve.ports.Reconciles."""
        self._change(pass_id, "SET due_at = :due", "attribute_exists(unfinished)", {":due": seconds(due_at)})

    def _change(self, pass_id: str, change: str, condition: str, values: Row) -> bool:
        """One conditional update of a pass; False if the condition did not hold."""
        names = {name: name[1:] for name in ("#state", "#counts") if name in change + condition}  # reserved words
        changed = self._write(
            self.client.update_item,
            Key=_pass_key(pass_id),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
            **({"ExpressionAttributeNames": names} if names else {}),  # an empty map is refused
        )
        return changed is not None
