"""A file goes from the host only after its bytes are in S3 for certain, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from neve.domain.pointer import InContent, OnHost
from neve.errors import Transient
from neve_edge import journal, reading, work
from neve_edge.announcement import Found, Seen
from neve_edge.attic import Attic, AtticUnfit
from neve_edge.journal import Move
from neve_edge.ready import Writer
from neve_edge.webserver.site import HERE
from neve_edge.work import Count
from tests.interleave import Steps, explored
from tests.memory_edge import Host, Killed, MemoryUploads

OLD, NEW = b"what was uploaded", b"what came after it"
PLACE = "2026-11-22/a/b.jpg"


@pytest.fixture(autouse=True)
def _no_disk_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SYNCHRONOUS", "OFF")
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path)


def test_a_file_goes_to_the_attic_once_its_pointer_names_its_upload(host: Host) -> None:
    place = host.write("a/b.jpg", OLD)
    host.announce("a/b.jpg")
    for _ in range(5):
        host.step()
    assert place.read_bytes() == OLD, "no pointer names it yet"
    assert host.journal.summary().for_pointers == 1
    host.drain()
    assert not place.exists()
    assert host.attic() == {PLACE: OLD}
    assert host.uploads.bodies("a/b.jpg") == [OLD]
    assert host.journal.summary().attic_bytes == len(OLD)
    assert host.journal.standing("site", "a/b.jpg").attic[0].place == PLACE


def test_a_file_to_be_kept_stays_and_is_no_news_until_it_changes(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg", keep=True)
    host.drain()
    assert place.read_bytes() == OLD
    assert host.announce("a.jpg", keep=True) == 0
    assert host.announce("a.jpg") == 1, "it is not to be kept any more"
    host.drain()
    assert not place.exists()


def test_without_an_attic_a_file_is_deleted_by_the_same_steps(tmp_path: Path) -> None:
    host = Host(root=tmp_path, keep_days=0)
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.drain()
    assert not place.exists()
    assert host.attic() == {}
    assert host.worker.counts[Count.DELETED] == 1


def test_an_older_pointer_lets_nothing_go_and_a_later_upload_does(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.step()
    host.copy_uploads()
    host.write("a.jpg", NEW)
    host.announce("a.jpg")
    host.drain(copy=True)
    assert host.uploads.bodies("a.jpg") == [OLD, NEW]
    assert host.attic() == {"2026-11-22/a.jpg": NEW}
    assert not place.exists()

    host.write("c.jpg", OLD)
    host.announce("c.jpg")
    host.step()
    host.uploads.versions.append(("c.jpg", "of-another-host", NEW))
    host.drain()
    assert host.attic()["2026-11-22/c.jpg"] == OLD


def test_a_file_without_a_pointer_stays_is_told_of_and_holds_up_no_other(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    for _ in range(120):
        host.step()
    [trouble] = host.journal.troubles(5)
    assert trouble.why == "no pointer names its upload yet"
    assert place.exists()
    assert len(host.uploads.versions) == 1, "what was verified is not sent again"


def test_a_host_that_serves_its_files_says_so_before_it_uploads_them(tmp_path: Path) -> None:
    host = Host(root=tmp_path, host_url="https://web1.example.com/site/")
    host.write("a b.jpg", OLD)
    host.announce("a b.jpg")
    said: list[Any] = []
    host.uploads.before_put = lambda key: said.append(host.pointers.get(key))
    host.drain()
    assert isinstance(said[0], OnHost)
    assert said[0].url == f"https://web1.example.com/site/a%20b.jpg?{HERE}"
    assert isinstance(host.pointers.get("a b.jpg"), InContent)
    gone = host.write("gone.jpg", OLD)
    host.announce("gone.jpg")
    gone.unlink()
    host.drain()
    assert host.pointers.get("gone.jpg") is None, "nobody is sent to what was gone before"


def test_large_files_are_never_in_memory_as_a_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "read", lambda folder, path: reading.read(folder, path, large_bytes=8))
    host.write("large.mov", OLD * 10)
    host.announce("large.mov")
    host.step()
    upload = host.journal.standing("site", "large.mov").upload
    assert upload is not None
    assert upload.crc64nvme
    assert not upload.md5
    host.drain()
    assert host.attic() == {"2026-11-22/large.mov": OLD * 10}


# -- What happens to the file meanwhile


def replaced(place: Path) -> None:
    beside = place.with_name("beside")
    beside.write_bytes(NEW)
    beside.replace(place)


def appended(place: Path) -> None:
    with place.open("ab") as file:
        file.write(b", and more")


def truncated(place: Path) -> None:
    os.truncate(place, 3)


def overwritten_with_its_times_kept(place: Path) -> None:
    times = place.stat()
    place.write_bytes(OLD[::-1])
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))


def before(do: Callable[[], None]) -> Callable[[Attic, Move], Any]:
    """Attic.move, with something that happens just before it."""
    move = Attic.move

    def moved(self: Attic, planned: Move) -> Any:
        do()
        return move(self, planned)

    return moved


CHANGES = [replaced, appended, truncated, overwritten_with_its_times_kept]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["during the upload", "before the pointer", "at the move"])
def test_what_changes_meanwhile_is_uploaded_as_well_and_never_lost(
    host: Host, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], when: str
) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    changes = [change]

    def once(*_: Any) -> None:
        if changes:
            changes.pop()(place)

    if when == "during the upload":
        host.uploads.before_put = once
    elif when == "at the move":
        monkeypatch.setattr(Attic, "move", before(once))
    host.step()
    if when == "before the pointer":
        once()
    host.drain()
    assert not changes
    now = host.uploads.bodies("a.jpg")[-1]
    assert now != OLD
    assert host.attic() == {"2026-11-22/a.jpg": now}
    assert not place.exists()
    assert host.journal.summary().moving == 0


def test_a_changed_file_whose_name_is_taken_by_then_stays_in_the_attic(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written to between the last look and the move, and a new file came under its name after the move."""
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    move = Attic.move
    changes = [b"third"]

    def moved(self: Attic, planned: Any) -> Any:
        if not changes:
            return move(self, planned)
        appended(place)
        fate = move(self, planned)
        place.write_bytes(changes.pop())
        return fate

    monkeypatch.setattr(Attic, "move", moved)
    host.drain()
    assert sorted(host.attic().values()) == sorted([OLD + b", and more", b"third"])
    assert host.uploads.bodies("a.jpg") == [OLD, b"third"]
    assert host.journal.summary().held_in_attic == 1
    host.pass_s(40 * 86_400)
    host.step()
    assert list(host.attic().values()) == [OLD + b", and more"], "it was never uploaded, so nothing deletes it"


def test_a_file_that_somebody_writes_to_waits(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    with place.open("ab") as file:
        host.announce("a.jpg")
        host.step()
        assert host.journal.troubles(1)[0].why == "somebody has it open for writing"
        file.write(NEW)
    host.drain()
    assert host.uploads.bodies("a.jpg") == [OLD + NEW]


def test_a_writer_that_comes_before_the_move_keeps_the_file_where_it_is(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.step()
    host.copy_uploads()
    with place.open("ab"):
        for _ in range(10):
            host.step()
        assert place.exists()
        assert host.attic() == {}
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


def test_where_the_kernel_knows_no_writers_a_file_has_to_be_as_it_was_found_or_quiet() -> None:
    def is_settled(changed: bool, age_s: float, tries: int) -> bool:
        seen = Seen(size_bytes=1, mtime_ns=10**18, inode=1, device=1)
        found = Found(folder="f", path="p", key="k", seen=seen)
        now_ns = 10**18 + int(age_s * 1e9)
        read = reading.Reading(
            name="p", seen=Seen(size_bytes=2, mtime_ns=10**18, inode=1, device=1) if changed else seen, ctime_ns=0,
            sha256="", md5="", crc64nvme="", body=b"", descriptor=0, writer=Writer.UNKNOWN,
        )  # fmt: skip
        now = journal._time(now_ns / 1e9)
        return work.is_settled(found, read, quiet_s=10, tries=tries, now=now)

    assert is_settled(changed=False, age_s=0, tries=1)
    assert not is_settled(changed=True, age_s=5, tries=9)
    assert is_settled(changed=True, age_s=11, tries=1)
    assert not is_settled(changed=True, age_s=-500, tries=1), "the clock was put back, and the file is new to us"
    assert is_settled(changed=True, age_s=-500, tries=2)


def test_what_vanishes_is_done_with(host: Host) -> None:
    gone, moved_away = host.write("a.jpg", OLD), host.write("b.jpg", OLD)
    host.announce("a.jpg")
    host.announce("b.jpg")
    gone.unlink()
    host.step()
    moved_away.unlink()
    host.drain()
    assert host.worker.counts[Count.GONE] == 2
    assert host.uploads.bodies("b.jpg") == [OLD], "S3 has it for longer than the application wanted it"
    assert host.journal.summary().for_pointers == 0


@pytest.mark.parametrize("when", ["before the upload", "before the pointer", "at the move"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_is_neither_read_nor_moved(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    secret = host.root / "secret"
    secret.write_bytes(b"root's own")
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")

    def swap() -> None:
        place.unlink()
        if kind == "link":
            place.symlink_to(secret)
        elif kind == "fifo":
            os.mkfifo(place)
        else:
            place.mkdir()
            (place / "inside").write_bytes(NEW)

    if when == "before the upload":
        swap()
    elif when == "before the pointer":
        host.step()
        swap()
    else:
        monkeypatch.setattr(Attic, "move", before(swap))
    host.drain()
    assert place.is_symlink() or place.is_fifo() or (place / "inside").read_bytes() == NEW
    assert {body for _, _, body in host.uploads.versions} <= {OLD}
    assert host.attic() == {}
    assert secret.read_bytes() == b"root's own"


def test_no_link_in_the_middle_of_a_path_leads_out_of_the_folder(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.jpg").write_bytes(b"somebody else's")
    place = host.write("a/b.jpg", OLD)
    host.announce("a/b.jpg")
    host.step()
    place.parent.rename(host.root / "away")
    place.parent.symlink_to(elsewhere)
    host.drain()
    assert (elsewhere / "b.jpg").read_bytes() == b"somebody else's"
    assert host.attic() == {}


def test_another_name_of_a_file_stays_where_it_is(host: Host) -> None:
    place = host.write("a.jpg", OLD)
    other = place.with_name("other.jpg")
    host.announce("a.jpg")
    host.step()
    other.hardlink_to(place)  # the inode's time changes, its bytes do not
    host.drain()
    assert not place.exists()
    assert other.read_bytes() == OLD
    assert len(host.uploads.versions) == 1


def test_files_of_one_name_on_one_day_all_have_their_place(host: Host) -> None:
    for body in (OLD, NEW):
        host.write("a/b.jpg", body)
        host.announce("a/b.jpg")
        host.drain()
    assert host.site
    (host.site / "a").rmdir()
    host.write("a", b"a file where a folder was")
    host.announce("a")
    host.drain()
    assert host.attic() == {
        PLACE: OLD,
        "2026-11-22.~2~/a/b.jpg": NEW,
        "2026-11-22.~3~/a": b"a file where a folder was",
    }


# -- Refusals


@pytest.mark.parametrize("call", ["mkdir", "rename", "link"])
def test_a_full_disk_leaves_the_file_where_it_was_and_it_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    place = host.write("a/b.jpg", OLD)
    host.announce("a/b.jpg")
    host.step()
    host.copy_uploads()
    real = getattr(os, call)

    def full(*args: Any, **kwargs: Any) -> Any:
        if call == "link" and args[1] == "b.jpg" and kwargs["dst_dir_fd"] and not going_back(kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")
        if call == "link":
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    def going_back(kwargs: Any) -> bool:
        return os.path.samestat(os.fstat(kwargs["dst_dir_fd"]), place.parent.stat())

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        for _ in range(5):
            host.step()
        assert place.read_bytes() == OLD
        assert "No space left" in host.journal.troubles(1)[0].why
    host.pass_s(60)
    host.drain()
    assert host.attic() == {PLACE: OLD}
    assert len(host.uploads.versions) == 1


def test_an_attic_on_another_file_system_is_refused_with_the_remedy(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")  # another file system wherever it is there
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    host = Host(root=tmp_path)
    folder = replace(host.folder, attic=elsewhere / f"neve-{os.getpid()}")
    try:
        with pytest.raises(AtticUnfit, match="Name an attic on the same one"):
            Attic(folder).prepare(moving_files=0)
    finally:
        (folder.attic / "moving").rmdir()
        folder.attic.rmdir()


def test_an_attic_that_was_removed_with_its_folder_is_made_again(host: Host) -> None:
    shutil.rmtree(host.folder.path)
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


def test_while_a_file_lies_in_an_attic_that_is_not_mounted_no_other_is_made(host: Host) -> None:
    host.write("a.jpg", OLD)
    move = Move(
        token="t", folder="site", path="b.jpg", key="b.jpg", size_bytes=3, sha256="00", version_id="v", since=host.now
    )
    host.journal.begin_moves([move])
    away = host.root / "unmounted"
    host.folder.attic.rename(away)
    host.announce("a.jpg")
    for _ in range(70):
        host.step()
        host.copy_uploads()
    assert host.journal.moving("site") == 1, "nobody knows what became of it"
    assert "mount its file system" in host.journal.troubles(1)[0].why
    with pytest.raises(AtticUnfit, match="1 files were being moved into it"):
        host.start()
    away.rename(host.folder.attic)
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


def test_a_disk_that_does_not_say_that_it_keeps_a_move_has_it_ended_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")

    def settle(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Attic, "settle", settle)
        for _ in range(5):
            host.step()
            host.copy_uploads()
        assert host.journal.moving("site") == 1
    host.drain()
    host.pass_s(60)
    host.step()
    assert host.journal.moving("site") == 0
    assert host.journal.summary().attic_files == 1
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


def test_a_file_that_cannot_be_read_is_put_off_with_the_reason(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")

    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(reading, "open_file", refuse)
        host.step()
    [trouble] = host.journal.troubles(1)
    assert trouble.why == "it cannot be read: Permission denied"
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


@pytest.mark.parametrize("port", ["put", "proofs", "get_many"])
def test_while_aws_refuses_everything_stays_and_goes_on_later(
    host: Host, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    place = host.write("a.jpg", OLD)
    host.announce("a.jpg")

    def refuse(*_: Any, **__: Any) -> Any:
        raise Transient("RequestTimeTooSkewed")

    with monkeypatch.context() as patched:
        patched.setattr(host.pointers if port == "get_many" else host.uploads, port, refuse)
        for _ in range(150):
            host.step()
            host.copy_uploads()
        assert place.read_bytes() == OLD
        assert host.journal.troubles(1)[0].why == "RequestTimeTooSkewed"
    host.pass_s(900)
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}
    assert len(host.uploads.versions) == 1


def test_what_another_hosts_settings_gave_another_key_is_refused_with_the_reason(host: Host) -> None:
    place, good = host.write("a.jpg", OLD), host.write("b.jpg", OLD)
    strange = [replace(host.found("a.jpg"), key="else/a.jpg"), replace(host.found("a.jpg"), folder="nowhere")]
    host.journal.put([*strange, host.found("b.jpg")])
    for _ in range(5):
        host.step()
        host.copy_uploads()
    assert place.exists()
    assert not good.exists(), "it holds up no other"
    assert {key for key, *_ in host.uploads.versions} == {"b.jpg"}
    first, second = sorted(each.why for each in host.journal.troubles(5))
    assert first.startswith("it was announced as else/a.jpg and would be a.jpg here: give the folder site")
    assert second == "this host has no folder nowhere: add it to edge.toml"


def test_while_announcements_cannot_be_taken_or_ended_it_neither_spins_nor_fills_the_log(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    waits: list[float] = []
    monkeypatch.setattr("neve_edge.work.time.sleep", waits.append)

    def refuse(*_: Any, **__: Any) -> Any:
        raise Transient("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(host.journal, "take", refuse)
        for _ in range(100):
            host.worker.step(wait_s=1.0)
            host.pass_s(waits[-1] if waits else 0)
    assert len(waits) >= 79
    assert set(waits) <= {1.0}
    assert caplog.text.count("cannot take announcements") <= 21
    with monkeypatch.context() as patched:
        patched.setattr(host.journal, "done", refuse)
        for _ in range(50):
            host.step()
            host.copy_uploads()
    assert caplog.text.count("cannot end announcements") <= 12
    assert host.worker.in_hand == 1
    host.drain()


def test_an_upload_that_was_verified_and_is_not_in_the_bucket_any_more_is_made_again(host: Host) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    for _ in range(70):
        host.step()
    host.uploads.versions.clear()  # the deployment has another bucket by now
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}


def test_an_upload_that_s3_does_not_hold_as_it_was_read_is_made_again(host: Host) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.uploads.damaged = {"v0001"}
    host.drain()
    assert host.attic() == {"2026-11-22/a.jpg": OLD}
    assert len(host.uploads.versions) == 2


def test_pauses_grow_are_spread_and_end_at_a_quarter_of_an_hour() -> None:
    assert [work.pause_s(tries, 1.0) for tries in (0, 1, 2, 5, 10, 10_000)] == [1, 2, 4, 32, 900, 900]
    assert work.pause_s(5, 0.0) == 16


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_keeps_no_file_waiting(host: Host, days: int) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.uploads.damaged = {"v0001"}
    host.step()
    host.now += timedelta(days=days)
    host.drain()
    assert list(host.attic().values()) == [OLD]


def test_who_stops_does_not_wait_for_what_is_being_uploaded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    begun, given_up = threading.Event(), threading.Event()

    def put(*_: Any) -> Any:
        begun.set()
        assert given_up.wait(10), "it would go on for hours"
        raise Transient("the agent stops")

    monkeypatch.setattr(host.uploads, "put", put)
    monkeypatch.setattr(host.uploads, "give_up", given_up.set)
    worker = work.Worker(host.worker.ports, [host.folder], parallel=1)
    worker.step()
    assert begun.wait(10)
    worker.close()
    host.journal.close()
    host.start()
    monkeypatch.undo()
    host.drain()


# -- The attic


def test_the_attic_is_purged_after_its_days_of_what_is_as_it_was_uploaded(host: Host) -> None:
    for name in ("a/b.jpg", "a/changed.jpg", "a/taken-back.jpg"):
        host.write(name, OLD)
        host.announce(name)
    host.drain()
    (host.folder.attic / "2026-11-22/a/changed.jpg").write_bytes(NEW)
    (host.folder.attic / "2026-11-22/a/taken-back.jpg").unlink()
    host.pass_s(29 * 86_400)
    host.step()
    assert len(host.attic()) == 2
    host.pass_s(2 * 86_400)
    host.step()
    assert host.attic() == {"2026-11-22/a/changed.jpg": NEW}
    summary = host.journal.summary()
    assert (summary.attic_files, summary.held_in_attic) == (1, 1)
    (host.folder.attic / "2026-11-22/a/changed.jpg").unlink()
    host.pass_s(2 * 86_400)
    host.step()
    assert host.journal.summary().attic_files == 0


def test_folders_of_the_attic_go_with_their_last_file(host: Host) -> None:
    host.write("a/b/c.jpg", OLD)
    host.announce("a/b/c.jpg")
    host.drain()
    host.pass_s(31 * 86_400)
    host.step()
    assert [path.name for path in host.folder.attic.iterdir()] == ["moving"]


def test_the_attic_outlives_a_clock_that_jumps_and_pointers_that_are_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write("a.jpg", OLD)
    host.announce("a.jpg")
    host.drain()
    host.pass_s(400 * 86_400)

    def refuse(*_: Any, **__: Any) -> Any:
        raise Transient("RequestTimeTooSkewed")

    with monkeypatch.context() as patched:
        patched.setattr(host.pointers, "get_many", refuse)
        host.step()
    assert len(host.attic()) == 1
    host.pointers.rows.clear()
    host.pass_s(3600)
    host.step()
    assert len(host.attic()) == 1
    assert host.journal.summary().held_in_attic == 1


# -- Deaths


class Mortal:
    """Counts what has effects, and has the process die before or after number `at`."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def watch(self, port: Any) -> Any:
        return _Mortal(port, self)


class _Mortal:
    def __init__(self, port: Any, mortal: Mortal) -> None:
        self._port, self._mortal = port, mortal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found) or name in ("clock", "hold", "summary"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._mortal.step()
            result = found(*args, **kwargs)
            self._mortal.step()
            return result

        return call


EFFECTS = ("rename", "link", "unlink", "mkdir", "rmdir")


def mortal_os(monkeypatch: pytest.MonkeyPatch, mortal: Mortal) -> None:
    for name in EFFECTS:
        monkeypatch.setattr(os, name, getattr(_Mortal(os, mortal), name))


def all_deaths(live: Callable[[Mortal], None]) -> Iterator[int]:
    """Call `live` with a death at each of its steps, until there is none left."""
    for at in range(1, 1000):
        mortal = Mortal(at)
        live(mortal)
        if mortal.left > 0:
            return
        yield at


@pytest.mark.parametrize(
    ("keep_days", "meanwhile"), [(30, None), (0, None), (30, replaced), (0, appended), (30, Path.unlink)]
)
def test_who_dies_anywhere_has_lost_nothing_and_the_next_one_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_days: int, meanwhile: Callable[[Path], None] | None
) -> None:
    monkeypatch.setattr(work, "PURGE_EVERY_S", 1e9)

    def live(mortal: Mortal) -> None:
        host = Host(root=tmp_path / str(mortal.left), keep_days=keep_days)
        place = host.write("a/b.jpg", OLD)
        host.announce("a/b.jpg")
        host.die()
        host.watch = mortal.watch
        with monkeypatch.context() as patched:
            mortal_os(patched, mortal)
            try:
                host.start()
                host.drain()
            except Killed:
                pass
        assert OLD in host.everywhere("a/b.jpg") or (keep_days == 0 and host.pointers.get("a/b.jpg"))
        if not place.exists():
            assert isinstance(host.pointers.get("a/b.jpg"), InContent) or host.attic(), "no proof, no copy in its place"
        elif meanwhile and place.parent.exists():
            meanwhile(place)
        changed = place.read_bytes() if meanwhile in (replaced, appended) and place.exists() else None
        host.die()
        host.watch = lambda port: port
        host.pass_s(5)
        host.start()
        if changed:
            host.announce("a/b.jpg")  # a scan finds it
        host.drain()
        assert not place.exists()
        summary = host.journal.summary()
        assert (summary.moving, summary.for_pointers, summary.waiting) == (0, 0, 0)
        assert not list((host.folder.attic / "moving").iterdir())
        bodies = host.uploads.bodies("a/b.jpg")
        assert set(bodies) <= {OLD, changed}
        if changed:
            assert bodies[-1] == changed
        if keep_days:
            journaled = [each.place for each in host.journal.standing("site", "a/b.jpg").attic]
            assert sorted(journaled) == sorted(host.attic())
            assert (changed or OLD) in host.attic().values() or meanwhile is Path.unlink
        host.journal.close()

    deaths = list(all_deaths(live))
    assert len(deaths) > 25


def test_who_dies_while_a_changed_file_goes_back_has_not_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def live(mortal: Mortal) -> None:
        host = Host(root=tmp_path / str(mortal.left))
        place = host.write("a/b.jpg", OLD)
        host.announce("a/b.jpg")
        host.die()
        host.watch = mortal.watch
        move, changes = Attic.move, [appended]

        def changed(self: Attic, planned: Any) -> Any:
            if changes:
                changes.pop()(place)
            return move(self, planned)

        with monkeypatch.context() as patched:
            mortal_os(patched, mortal)
            patched.setattr(Attic, "move", changed)
            try:
                host.start()
                host.drain()
            except Killed:
                pass
        assert host.everywhere("a/b.jpg") & {OLD, OLD + b", and more"}
        if not changes:
            assert OLD + b", and more" in host.everywhere("a/b.jpg")
        host.die()
        host.watch = lambda port: port
        host.pass_s(5)
        host.start()
        host.drain()
        assert not place.exists()
        assert host.uploads.bodies("a/b.jpg")[-1] == (OLD if changes else OLD + b", and more")
        assert list(host.attic()) == [PLACE]
        host.journal.close()

    assert len(list(all_deaths(live))) > 40


def test_who_dies_while_purging_is_followed_by_who_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def live(mortal: Mortal) -> None:
        host = Host(root=tmp_path / str(mortal.left))
        host.write("a/b.jpg", OLD)
        host.announce("a/b.jpg")
        host.drain()
        host.die()
        host.pass_s(31 * 86_400)
        host.watch = mortal.watch
        with monkeypatch.context() as patched:
            mortal_os(patched, mortal)
            try:
                host.start()
                host.step()
            except Killed:
                pass
        host.die()
        host.watch = lambda port: port
        host.start()
        host.step()
        assert host.attic() == {}
        assert host.journal.summary().attic_files == 0
        host.journal.close()

    assert len(list(all_deaths(live))) > 5


# -- Two hosts on one folder


def test_two_hosts_that_work_on_one_file_do_it_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every order of their calls to ports and to the file system: it is uploaded, and ends in the attic once."""
    runs = iter(range(10_000))

    def live(steps: Steps) -> None:
        root = tmp_path / str(next(runs))
        uploads = MemoryUploads()
        first = Host(root=root / "1", site=root / "site", uploads=uploads)
        second = Host(root=root / "2", site=root / "site", uploads=uploads, pointers=first.pointers)
        hosts = [first, second]
        first.write("a.jpg", OLD)
        for host in hosts:
            host.announce("a.jpg")
            host.die()
            host.watch = steps.watch
            host.start()
            host.worker.ports = replace(host.worker.ports, journal=host.journal, announcements=host.journal)
        with monkeypatch.context() as patched:
            for name in EFFECTS[:3]:
                patched.setattr(os, name, getattr(steps.watch(os), name))
            steps.run([first.drain, second.drain])
        assert set(uploads.bodies("a.jpg")) == {OLD}
        assert list(first.attic().values()) == [OLD]
        assert not list((first.folder.attic / "moving").iterdir())
        for host in hosts:
            host.journal.close()

    assert explored(live, preemptions=1) > 10
