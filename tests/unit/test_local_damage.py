"""Damage on the local cloud: one bit, or the end, of exactly the version that is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from neve_local.cloud import ACCOUNT
from neve_local.damage import NotStored, StoredVersion
from neve_local.layout import Layout


@pytest.fixture
def stored(tmp_path: Path) -> StoredVersion:
    return StoredVersion(layout=Layout(tmp_path), bucket="archive", key="archives/0000000001.tar", version_id="v1")


def put(stored: StoredVersion, body: bytes, *, older: bool = False) -> Path:
    objects = stored.layout.objects
    folder = objects / ".versions" / ACCOUNT / "archive" / "v1" if older else objects / ACCOUNT / "archive"
    path = folder / stored.key
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    return path


def test_one_bit_is_turned_over_and_back(stored: StoredVersion) -> None:
    path = put(stored, b"abc")
    stored.flip(1, bit=2)
    assert path.read_bytes() == b"afc"
    stored.flip(1, bit=2)
    assert path.read_bytes() == b"abc"


def test_a_version_that_was_overwritten_is_damaged_and_the_current_one_is_not(stored: StoredVersion) -> None:
    current, older = put(stored, b"new"), put(stored, b"old", older=True)
    stored.truncate(1)
    assert (older.read_bytes(), current.read_bytes()) == (b"o", b"new")


def test_a_version_that_is_stored_nowhere_is_named(stored: StoredVersion) -> None:
    with pytest.raises(NotStored, match=r"archives/0000000001\.tar' version v1 is neither at"):
        stored.flip(0)
