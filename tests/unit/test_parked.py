"""Parked failures: each once, each with a remedy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from neve.domain.parked import REMEDIES, Parked, Reason, reason_for
from neve.domain.version import ObjectVersion
from neve.errors import (
    Busy,
    NeveError,
    SourceChanged,
    SourceDamaged,
    SourceDenied,
    SourceGone,
    SourceUnfit,
    Transient,
)

NOW = datetime(2026, 9, 1, tzinfo=UTC)
VERSION = ObjectVersion(key="a", version_id="v", size_bytes=1, etag="e", sequencer="", event_at=NOW)
PARKED = Parked(reason=Reason.SOURCE_GONE, detail="404", parked_at=NOW, version=VERSION, bundle="b")


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Reason)


def test_the_same_failure_of_the_same_version_is_parked_once() -> None:
    assert PARKED.id == replace(PARKED, detail="gone", bundle="c", parked_at=datetime.now(UTC)).id


def test_different_failures_are_parked_apart() -> None:
    others = [
        replace(PARKED, reason=Reason.SOURCE_DENIED),
        replace(PARKED, version=replace(VERSION, key="b")),
        replace(PARKED, version=replace(VERSION, version_id="w")),
        replace(PARKED, version=None),
        replace(PARKED, version=None, bundle="c"),
        replace(PARKED, version=None, evidence="message"),
    ]
    assert len({PARKED.id, *(other.id for other in others)}) == len(others) + 1


def test_each_damaged_member_of_an_archive_is_parked_once_however_many_want_it() -> None:
    damaged = replace(
        PARKED, reason=Reason.ARCHIVE_DAMAGED, version=None, bundle="", evidence="archive 17, member 3", detail="hash"
    )
    assert damaged.id == replace(damaged, parked_at=datetime.now(UTC)).id
    assert damaged.id != replace(damaged, evidence="archive 17, member 4").id
    assert damaged.id != replace(damaged, reason=Reason.ARCHIVE_CONFLICT).id


def test_evidence_that_no_utf8_can_hold_has_an_id() -> None:
    assert replace(PARKED, version=None, evidence="\ud800").id


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceGone("x"), Reason.SOURCE_GONE),
        (SourceChanged("x"), Reason.SOURCE_CHANGED),
        (SourceDenied("x"), Reason.SOURCE_DENIED),
        (SourceUnfit("x"), Reason.SOURCE_UNFIT),
        (SourceDamaged("x"), Reason.SOURCE_DAMAGED),
        (Transient("x"), Reason.SOURCE_UNREADABLE),
        (Busy("x", retry_after_s=1), Reason.SOURCE_UNREADABLE),
    ],
)
def test_every_way_that_reading_fails_has_its_reason(error: NeveError, reason: Reason) -> None:
    assert reason_for(error) is reason
