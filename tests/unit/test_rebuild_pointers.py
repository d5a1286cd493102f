"""Pointers that were lost come back, and never stand in the way of what is uploaded meanwhile, or was before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from neve.domain.layout import Layout, content_key
from neve.domain.pointer import InContent, OnHost, covers, found
from neve.domain.version import ObjectVersion
from neve.flows import rebuild_pointers
from neve.flows.copy_upload import Ending
from neve.flows.rebuild_pointers import PointerRebuilder, PointersRebuilt
from tests.interleave import Steps, explored
from tests.memory import CONTENT, START
from tests.memory_offload import MemoryPointers
from tests.memory_uploads import UPLOADS, MemoryUploads
from tests.unit.test_copy_upload import KEY, Cloud


def standing(key: str) -> ObjectVersion:
    return ObjectVersion(key=key, version_id="v", size_bytes=3, etag="e", sequencer="", event_at=START)


def rebuilt(
    pointers: MemoryPointers, current: Iterable[ObjectVersion], prefix: str = "", **given: Any
) -> PointersRebuilt:
    settings: dict[str, Any] = {"layout": Layout.AS_IS, "threads": 2} | given
    [*_, last] = PointerRebuilder(pointers=pointers, **settings).rebuild(current, prefix=prefix)
    return last


def test_each_file_of_the_application_gets_a_pointer_to_what_is_current() -> None:
    pointers = MemoryPointers()
    told = rebuilt(pointers, [standing("a"), standing("b/c"), standing(".neve/drill/x")])
    assert told == PointersRebuilt(place=".neve/drill/x", written=2, foreign=1)
    assert pointers.rows == {key: found(key, standing(key)) for key in ("a", "b/c")}
    assert rebuilt(pointers, [standing("a"), standing("b/c")]) == PointersRebuilt(place="b/c", stood=2)


def test_a_dry_run_counts_and_a_prefix_leaves_out() -> None:
    pointers = MemoryPointers()
    assert rebuilt(pointers, [standing("a"), standing("b/c")], "b/", dry_run=True).written == 1
    assert not pointers.rows
    assert rebuilt(pointers, [standing("a"), standing("b/c")], "b/").written == 1
    assert set(pointers.rows) == {"b/c"}


def test_files_lie_by_the_layout_of_their_time() -> None:
    hashed = content_key("a", Layout.HASHED)
    current = [standing("old"), standing(hashed)]
    pointers = MemoryPointers()
    assert rebuilt(pointers, current, layout=Layout.HASHED) == PointersRebuilt(place=hashed, written=1, foreign=1)
    assert rebuilt(pointers, current, unhashed=True) == PointersRebuilt(place=hashed, written=1, foreign=1)
    assert pointers.rows == {"a": found("a", standing(hashed)), "old": found("old", standing("old"))}


def test_what_stands_into_the_content_bucket_stays_and_a_host_s_goes() -> None:
    stood = InContent(
        key="a",
        content_key="a",
        content_version="newer",
        upload_version="u",
        sequencer="5",
        size_bytes=1,
        etag="f",
        since=START,
    )
    pointers = MemoryPointers({"a": stood, "b": OnHost(key="b", url="https://host/b", since=START)})
    assert rebuilt(pointers, [standing("a"), standing("b")]) == PointersRebuilt(place="b", written=1, stood=1)
    assert pointers.rows == {"a": stood, "b": found("b", standing("b"))}


def test_many_are_told_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_pointers, "WINDOW", 2)
    rebuilder = PointerRebuilder(pointers=MemoryPointers(), layout=Layout.AS_IS, threads=2)
    assert [told.written for told in rebuilder.rebuild(standing(f"{number}") for number in range(5))] == [2, 4, 5]


def lost(cloud: Cloud) -> None:
    """The table is lost, and made again from the content bucket."""
    cloud.pointers.rows.clear()
    rebuilt(cloud.pointers, current(cloud.uploads))


def current(uploads: MemoryUploads) -> Iterator[ObjectVersion]:
    for bucket, key in sorted(uploads.versions):
        version = uploads.current(bucket, key) if bucket == CONTENT else None
        if version:
            yield version


def test_a_rebuilt_pointer_covers_no_upload_so_nothing_is_let_go_by_it() -> None:
    pointer = found("a", standing("a"))
    assert not covers(pointer, upload_version="u", sequencer="0")
    cloud = Cloud()
    upload = cloud.put(b"one")
    cloud.deliver(upload)
    lost(cloud)
    cloud.let_go()
    assert cloud.uploads.current(UPLOADS, KEY), "nobody knows whether it was copied"


def test_an_upload_that_lies_there_is_found_to_be_copied_and_is_let_go() -> None:
    cloud = Cloud()
    upload = cloud.put(b"one")
    cloud.deliver(upload)
    lost(cloud)
    cloud.release_queue.sent.clear()
    announced = cloud.uploads.current(UPLOADS, KEY)
    assert announced is not None
    assert announced.sequencer == ""
    assert cloud.copy(announced).ending is Ending.ADOPTED
    cloud.let_go()
    assert cloud.uploads.current(UPLOADS, KEY) is None
    assert len(cloud.uploads.versions[CONTENT, KEY]) == 1


def test_an_event_of_an_earlier_upload_that_comes_again_does_not_bring_it_back() -> None:
    cloud = Cloud()
    first, second = cloud.put(b"one"), cloud.put(b"two")
    cloud.deliver(first)
    cloud.deliver(second)
    cloud.let_go()
    lost(cloud)
    assert cloud.copy(first).ending is Ending.SUPERSEDED
    assert cloud.body_of(cloud.pointer()) == b"two"


def test_a_later_upload_takes_the_place_of_a_rebuilt_pointer() -> None:
    cloud = Cloud()
    cloud.deliver(cloud.put(b"one"))
    lost(cloud)
    cloud.deliver(cloud.put(b"two"))
    cloud.require_settled()


class AtOnce:
    """An executor that works in the caller's thread, so that each call is a step."""

    def __init__(self, _: int) -> None:
        self.map: Callable[..., Any] = map


@pytest.mark.parametrize("first_bytes", [b"one", b"two"], ids=["other bytes", "the same bytes"])
def test_an_upload_at_any_moment_of_rebuilding_is_what_is_served_in_the_end(
    monkeypatch: pytest.MonkeyPatch, first_bytes: bytes
) -> None:
    monkeypatch.setattr(rebuild_pointers, "ThreadPoolExecutor", lambda threads: nullcontext(AtOnce(threads)))

    def live(steps: Steps) -> None:
        cloud = Cloud(watch=steps.watch)
        before = Cloud(uploads=cloud.uploads, pointers=cloud.pointers, bodies=cloud.bodies)
        before.deliver(before.put(first_bytes))
        before.let_go()
        cloud.pointers.rows.clear()
        rebuilder = PointerRebuilder(pointers=steps.watch(cloud.pointers), layout=Layout.AS_IS, threads=1)

        def rebuilding() -> None:
            seen: Sequence[ObjectVersion] = list(current(cloud.uploads))
            steps.watch(SimpleNamespace(page=lambda: None)).page()
            list(rebuilder.rebuild(seen))

        steps.run([rebuilding, lambda: cloud.deliver(cloud.put(b"two"))])
        cloud.require_settled()
        cloud.let_go()
        cloud.require_settled()

    assert explored(live, preemptions=2) > 20
