"""Drills, in the table `audits`.

pk       sk          what
drills   <drill>     a drill for ever: its files and what was found of them packed, in the index until it is done
state    drills      since when drills are looked after
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    brief,
    instant,
    integer,
    moment,
    number,
    pack,
    primary_key,
    seconds,
    text,
    unpack,
)
from neve.domain.digest import Digest
from neve.domain.drill import Comparison, Drawn, Drill, DrillState, Outcome
from neve.domain.version import from_fields, to_fields
from neve.errors import Transient

_DRILLS = "drills"
_WATCHED = primary_key("state", _DRILLS)
_UNLESS_THERE = "attribute_not_exists(pk)"


def _key(drill_id: str) -> Row:
    return primary_key(_DRILLS, drill_id)


def _drawn_fields(file: Drawn) -> list[Any]:
    digest = file.digest
    return [
        to_fields(file.version),
        file.archive,
        file.number,
        [digest.size_bytes, digest.sha256, digest.md5, digest.crc64nvme],
    ]


def _drawn(fields: list[Any]) -> Drawn:
    version, archive, number_in_it, (size_bytes, sha256, md5, crc64nvme) = fields
    return Drawn(
        version=from_fields(version),
        archive=archive,
        number=number_in_it,
        digest=Digest(size_bytes=size_bytes, sha256=sha256, md5=md5, crc64nvme=crc64nvme),
    )


def _row(drill: Drill) -> Row:
    compared = [
        [file, [[each.place, each.outcome, brief(each.detail)] for each in found]]
        for file, found in drill.compared.items()
    ]
    row: Row = {
        **_key(drill.id),
        "started_at": text(drill.started_at.isoformat()),
        "buckets": {"L": [text(bucket) for bucket in drill.buckets]},
        "packed": pack([_drawn_fields(file) for file in drill.files]),
        "collection": number(drill.collection),
        "nameless": {"L": [text(each) for each in drill.nameless]},
        "state": text(drill.state),
        "compared": pack(compared),
        "revision": number(drill.revision),
    }
    for name in ("restored_at", "compared_at", "late_told_at"):
        at: datetime | None = getattr(drill, name)
        if at:
            row[name] = text(at.isoformat())
    if drill.due_at:
        row |= {"unfinished": text("1"), "due_at": seconds(drill.due_at)}
    return row


def _to_drill(row: Mapping[str, Any]) -> Drill:
    return Drill(
        id=row["sk"]["S"],
        started_at=instant(row, "started_at"),
        buckets=tuple(each["S"] for each in row["buckets"]["L"]),
        files=tuple(_drawn(fields) for fields in unpack(row)),
        collection=integer(row, "collection"),
        nameless=tuple(each["S"] for each in row["nameless"]["L"]),
        state=DrillState(row["state"]["S"]),
        compared={
            file: tuple(
                Comparison(place=place, outcome=Outcome(outcome), detail=detail) for place, outcome, detail in found
            )
            for file, found in unpack(row, "compared")
        },
        restored_at=moment(row, "restored_at"),
        compared_at=moment(row, "compared_at"),
        late_told_at=moment(row, "late_told_at"),
        due_at=moment(row, "due_at"),
        revision=integer(row, "revision"),
    )


@dataclass(frozen=True)
class DynamoDrills(Table):
    """The port Drills on the table `audits`."""

    def create(self, drill: Drill) -> Drill:
        """See neve.ports.Drills."""
        first = replace(drill, revision=1)
        if self._write(self.client.put_item, Item=_row(first), ConditionExpression=_UNLESS_THERE) is not None:
            return first
        standing = self.get(drill.id)
        if standing is None:
            raise Transient(f"drill {drill.id} stands and cannot be read")
        return standing

    def get(self, drill_id: str) -> Drill | None:
        """See neve.ports.Drills."""
        row = self._get(_key(drill_id))
        return _to_drill(row) if row else None

    def swap(self, seen: Drill, to: Drill) -> Drill | None:
        """See neve.ports.Drills."""
        after = replace(to, revision=seen.revision + 1)
        swapped = self._write(
            self.client.put_item,
            Item=_row(after),
            ConditionExpression="revision = :seen",
            ExpressionAttributeValues={":seen": number(seen.revision)},
        )
        return None if swapped is None else after

    def all(self, *, newest_first: bool = True) -> Iterator[Drill]:
        """See neve.ports.Drills."""
        return map(_to_drill, self._query(_DRILLS, ScanIndexForward=not newest_first))

    def due(self, now: datetime) -> Iterator[Drill]:
        """See neve.ports.Drills."""
        return map(_to_drill, self._due(_DRILLS, now))

    def watched_since(self, now: datetime) -> datetime:
        """See neve.ports.Drills."""
        row = self._get(_WATCHED)
        if row is None:
            noted = {**_WATCHED, "since": text(now.isoformat())}
            self._write(self.client.put_item, Item=noted, ConditionExpression=_UNLESS_THERE)
            row = self._get(_WATCHED) or noted
        return instant(row, "since")
