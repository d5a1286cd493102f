"""Thaws, in the table `restores` (see restores_table.py for all of its rows)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    archive_partition,
    expiry,
    instant,
    integer,
    moment,
    need_fields,
    number,
    primary_key,
    seconds,
    string,
    text,
)
from neve.domain.prices import MILLION
from neve.domain.restore import KEEP
from neve.domain.thaw import Need, Thaw, ThawState, Tier
from neve.errors import OverCap

KEEP_THAW = timedelta(days=7)
"""How long a thaw is kept after its copy has expired."""


def _thaw_key(archive: int) -> Row:
    return primary_key(archive_partition(archive), "thaw")


def _spend_key(now: datetime) -> Row:
    return primary_key("spend", now.astimezone(UTC).date().isoformat())


def _thaw_row(thaw: Thaw) -> Row:
    row: Row = {
        **_thaw_key(thaw.archive),
        "serial": number(thaw.archive),
        "state": text(thaw.state),
        **need_fields(Need(tier=thaw.tier, days=thaw.days)),
        "wanted_days": number(thaw.wanted_days),
        "ready_at": text(thaw.ready_at.isoformat()),
        "fell_back": {"BOOL": thaw.fell_back},
        "settled": {"BOOL": thaw.settled},
        "revision": number(thaw.revision),
    }
    if thaw.due_at:
        row |= {"unfinished": text("1"), "due_at": seconds(thaw.due_at)}
    elif thaw.warm_until:
        row["expires_at"] = expiry(thaw.warm_until + KEEP_THAW)
    if thaw.warm_until:
        row["warm_until"] = text(thaw.warm_until.isoformat())
    if thaw.claimed_by:
        row["claimed_by"] = text(thaw.claimed_by)
    if thaw.claimed_until:
        row["claimed_until"] = text(thaw.claimed_until.isoformat())
    if thaw.upgraded_from:
        row["upgraded_from"] = text(thaw.upgraded_from)
    return row


def _to_thaw(row: Mapping[str, Any]) -> Thaw:
    return Thaw(
        archive=integer(row, "serial"),
        state=ThawState(row["state"]["S"]),
        tier=Tier(row["tier"]["S"]),
        days=integer(row, "days"),
        wanted_days=integer(row, "wanted_days"),
        ready_at=instant(row, "ready_at"),
        due_at=moment(row, "due_at"),
        warm_until=moment(row, "warm_until"),
        claimed_by=string(row, "claimed_by"),
        claimed_until=moment(row, "claimed_until"),
        upgraded_from=Tier(row["upgraded_from"]["S"]) if "upgraded_from" in row else None,
        fell_back=row["fell_back"]["BOOL"],
        settled=row["settled"]["BOOL"],
        revision=integer(row, "revision"),
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
            ":revision": number(seen.revision),
            ":ready": text(seen.ready_at.isoformat()),
        },
    }


def _next(seen: Thaw | None, to: Thaw) -> Thaw:
    return replace(to, revision=seen.revision + 1 if seen else 1)


@dataclass(frozen=True)
class DynamoThaws(Table):
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
            "ExpressionAttributeValues": {":price": number(micro_usd), ":expires": expiry(now + KEEP)},
        }
        if cap_micro_usd:
            room = cap_micro_usd - micro_usd
            first = "attribute_not_exists(micro_usd) OR " if room >= 0 else ""
            spend["ConditionExpression"] = f"{first}micro_usd <= :room"
            spend["ExpressionAttributeValues"][":room"] = number(room)
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
        return integer(self._get(_spend_key(now)) or {}, "micro_usd")
