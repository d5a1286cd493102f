"""Whether a file is finished."""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from neve_edge.announcement import Seen
from neve_edge.mounts import shared_kind
from neve_edge.ready import FIRST_LOOK_S, LONGEST_S, Sight, Waiting, Writer, look
from tests.edge_folders import as_somebody_else, only_folder, open_to_all, settings_for

leases = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has leases")
SEEN = Seen(size_bytes=5, mtime_ns=10, inode=7, device=1)
FAR_FUTURE_NS = 4_000_000_000 * 10**9


@leases
def test_a_file_is_finished_once_its_writer_has_closed_it(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path))
    with (folder.path / "a").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert look(folder, "a").writer is Writer.SOME
    assert look(folder, "a").writer is Writer.NONE


@leases
def test_a_writer_that_mapped_the_file_counts_after_it_closed_it(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path))
    descriptor = os.open(folder.path / "a", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x" * 100)
    mapped = mmap.mmap(descriptor, 100)
    os.close(descriptor)
    assert look(folder, "a").writer is Writer.SOME
    mapped.close()
    assert look(folder, "a").writer is Writer.NONE


@leases
def test_readers_hinder_nobody_and_looking_leaves_no_lease(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path))
    (folder.path / "a").write_bytes(b"x")
    with (folder.path / "a").open("rb"):
        assert look(folder, "a").writer is Writer.NONE
        # A lease that was left would have this open wait for 45 s.
        os.close(os.open(folder.path / "a", os.O_WRONLY | os.O_NONBLOCK))


@leases
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_somebody_else_tells_nothing_of_its_writers() -> None:
    with open_to_all() as path:
        folder = only_folder(settings_for(path))
        (folder.path / "a").write_bytes(b"x")
        with as_somebody_else():
            assert look(folder, "a").writer is Writer.UNKNOWN


def test_a_moved_in_file_without_a_writer_is_finished_at_once_whatever_its_times(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path))
    for mtime_ns in (0, FAR_FUTURE_NS):
        sight = Sight(seen=replace(SEEN, mtime_ns=mtime_ns), writer=Writer.NONE)
        assert Waiting().judge(folder, "a", sight, now=0)


def test_where_writers_cannot_be_told_a_file_has_to_stay_as_it_is(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path, quiet_s=10))
    waiting = Waiting()
    sight = Sight(seen=SEEN, writer=Writer.UNKNOWN)
    assert not waiting.judge(folder, "a", sight, now=100)
    assert list(waiting.due(109.9)) == []
    assert list(waiting.due(110)) == [(folder, "a")]
    grown = replace(sight, seen=replace(SEEN, size_bytes=6))
    assert not waiting.judge(folder, "a", grown, now=110)  # it begins anew
    assert list(waiting.due(119)) == []
    assert list(waiting.due(120)) == [(folder, "a")]
    assert waiting.judge(folder, "a", grown, now=120)
    assert len(waiting) == 0
    assert list(waiting.due(1000)) == []


@pytest.mark.parametrize("change", [{"inode": 8}, {"mtime_ns": 9}, {"mtime_ns": FAR_FUTURE_NS}, {"device": 2}])
def test_a_file_that_was_replaced_or_touched_while_it_waited_waits_anew(tmp_path: Path, change: dict[str, int]) -> None:
    folder = only_folder(settings_for(tmp_path, quiet_s=10))
    waiting = Waiting()
    assert not waiting.judge(folder, "a", Sight(seen=SEEN, writer=Writer.UNKNOWN), now=0)
    changed = Sight(seen=replace(SEEN, **change), writer=Writer.UNKNOWN)
    assert not waiting.judge(folder, "a", changed, now=10)
    assert waiting.judge(folder, "a", changed, now=20)


def test_a_file_with_a_writer_is_looked_at_less_and_less_often(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path))
    waiting = Waiting()
    now, pauses = 0.0, []
    for _ in range(10):
        assert not waiting.judge(folder, "a", Sight(seen=SEEN, writer=Writer.SOME), now)
        due = waiting.next_at()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert list(waiting.due(now)) == [(folder, "a")]
    assert pauses[:3] == [FIRST_LOOK_S, 2 * FIRST_LOOK_S, 4 * FIRST_LOOK_S]
    assert pauses[-1] == LONGEST_S
    assert waiting.judge(folder, "a", Sight(seen=SEEN, writer=Writer.NONE), now)


def test_a_file_that_went_and_came_again_is_looked_at_once_each_time(tmp_path: Path) -> None:
    folder = only_folder(settings_for(tmp_path, quiet_s=10))
    waiting = Waiting()
    for now in range(5):
        waiting.judge(folder, "a", Sight(seen=SEEN, writer=Writer.UNKNOWN), now)
        if now < 4:
            waiting.forget(folder, "a")
    assert list(waiting.due(100)) == [(folder, "a")]
    assert waiting.next_at() is None


def test_file_systems_that_other_hosts_write_to_are_told_from_private_ones(tmp_path: Path) -> None:
    assert shared_kind(tmp_path.stat().st_dev) == ""
    assert shared_kind(os.makedev(4095, 77)) == ""
