"""Object versions: what names them, and how they travel in parts and messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.version import ObjectVersion, from_fields, padded_sequencer, to_fields

MOMENT = datetime(2026, 9, 1, 12, 0, 0, 123456, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "key": "a",
    "version_id": "v",
    "size_bytes": 0,
    "etag": "e",
    "sequencer": "",
    "event_at": MOMENT,
}
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(
    st.builds(
        ObjectVersion,
        key=TEXT,
        version_id=TEXT | st.just("null"),
        size_bytes=st.integers(0, 48 * 2**40),
        etag=TEXT,
        sequencer=st.integers(1, 16**20).map(lambda number: padded_sequencer(f"{number:X}")) | st.just(""),
        event_at=st.datetimes(timezones=st.just(UTC)),
    )
)
def test_a_version_comes_back_from_its_fields_as_it_was(version: ObjectVersion) -> None:
    assert from_fields(to_fields(version)) == version


@given(st.integers(0, 16**32 - 1), st.integers(0, 16**32 - 1))
def test_padded_sequencers_compare_as_the_numbers_they_are(one: int, other: int) -> None:
    """Seen elsewhere: sequencers come in different lengths."""
    assert (padded_sequencer(f"{one:X}") < padded_sequencer(f"{other:X}")) == (one < other)


def test_no_sequencer_is_older_than_any() -> None:
    assert padded_sequencer("") == "" < padded_sequencer("0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ""},
        {"key": "k" * 1025},
        {"key": "\u00fc" * 513},
        {"key": "\ud800"},
        {"version_id": ""},
        {"version_id": "v" * 129},
        {"version_id": "\ud800"},
        {"version_id": "v\0w"},
        {"etag": ""},
        {"etag": "e" * 129},
        {"etag": "\ud800"},
        {"version_id": "null", "etag": "e" * 124},
        {"sequencer": "1" * 33},
        {"size_bytes": -1},
        {"size_bytes": 10**40},
        {"event_at": datetime(2026, 9, 1)},  # noqa: DTZ001  # on purpose
    ],
    ids=str,
)
def test_what_s3_cannot_have_said_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bytes|version id|size|surrogates|zone|sequencer of 33 digits"):
        ObjectVersion(**GOOD | wrong)


@pytest.mark.parametrize(
    "right", [{"key": "k" * 1024}, {"key": "\0"}, {"version_id": "v" * 128}, {"sequencer": "F" * 32}], ids=str
)
def test_what_s3_allows_is_taken(right: dict[str, Any]) -> None:
    assert ObjectVersion(**GOOD | right).identity


def test_a_null_version_is_pinned_by_its_etag_as_well() -> None:
    assert ObjectVersion(**GOOD | {"version_id": "null", "etag": "abc"}).pin == "null-abc"
    assert ObjectVersion(**GOOD | {"version_id": "v1", "etag": "abc"}).pin == "v1"


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["a"],
        ["a", "v", 1, "e", "", None],
        ["a", "v", "x", "e", "", MOMENT.isoformat()],
        ["a", "v", float("inf"), "e", "", MOMENT.isoformat()],
        ["a", "v", float("nan"), "e", "", MOMENT.isoformat()],
        ["a", "v", None, "e", "", MOMENT.isoformat()],
        ["a", "v", 1, "e", "", "yesterday"],
        ["a", "v", 1, "e", "1" * 33, MOMENT.isoformat()],
        ["a", "v", 1, "e", "", "2026-09-01T12:00:00"],
        None,
        7,
    ],
    ids=str,
)
def test_fields_that_no_version_has_are_refused(fields: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_fields(fields)
