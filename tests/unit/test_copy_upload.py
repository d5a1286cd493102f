"""Uploads on their way into the content bucket, and let go afterwards: in every order, whoever dies where."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.events import parse
from neve.domain.layout import Layout, content_key
from neve.domain.parked import Reason
from neve.domain.pointer import InContent, OnHost
from neve.domain.upload import LOOK_BYTES, parse_release
from neve.domain.version import ObjectVersion
from neve.errors import SourceDenied, Transient
from neve.flows.copy_upload import Copied, Ending, UploadCopier
from neve.flows.release_upload import Ending as Letting
from neve.flows.release_upload import Released, UploadReleaser
from neve.ports import NotCopied
from tests.interleave import Steps, Task, explored
from tests.memory import CONTENT, START, MemoryArchives, MemoryFiles, MemoryParkingLot, MemoryQueue
from tests.memory_offload import MemoryPointers
from tests.memory_uploads import UPLOADS, MemoryUploads, rows_of

KEY = "photos/a.jpg"
NOW = START + timedelta(seconds=100)
FIVE_GB = 5 * 1024**3


class Killed(BaseException):
    """The process dies here."""


def as_it_is(port: Any) -> Any:
    return port


@dataclass
class Cloud:
    """Both functions over memory. `watch` wraps what they call; it may count calls, hand on the turn, or kill."""

    watch: Callable[[Any], Any] = as_it_is
    layout: Layout = Layout.AS_IS
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    pointers: MemoryPointers = field(default_factory=MemoryPointers)
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    uploads_queue: MemoryQueue = field(default_factory=MemoryQueue)
    release_queue: MemoryQueue = field(default_factory=MemoryQueue)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    archives: MemoryArchives = field(default_factory=MemoryArchives)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def put(self, body: bytes, key: str = KEY, **described: Any) -> ObjectVersion:
        upload = self.watch(self.uploads).put(UPLOADS, key, body, **described)
        assert isinstance(upload, ObjectVersion)
        self.bodies[upload.sequencer] = body
        return upload

    def copy(self, upload: ObjectVersion) -> Copied:
        return UploadCopier(
            uploads=self.watch(self.uploads),
            pointers=self.watch(self.pointers),
            parking_lot=self.watch(self.parking_lot),
            uploads_queue=self.watch(self.uploads_queue),
            release_queue=self.watch(self.release_queue),
            files=self.watch(self.files),
            archives=self.watch(self.archives),
            uploads_bucket=UPLOADS,
            content_bucket=CONTENT,
            layout=self.layout,
            release_after_s=900,
            clock=lambda: NOW,
        ).copy(upload, until=NOW + timedelta(minutes=5))

    def release(self, upload: ObjectVersion) -> Released:
        return UploadReleaser(
            uploads=self.watch(self.uploads), pointers=self.watch(self.pointers), content_bucket=CONTENT
        ).release(upload)

    def deliver(self, upload: ObjectVersion) -> None:
        """As SQS does: again and again, until it is done."""
        for _ in range(20):
            try:
                self.copy(upload)
            except (Transient, Killed):
                continue
            return
        raise AssertionError("it never ends")

    def let_go(self) -> None:
        """Have everything released that messages ask for now."""
        while self.release_queue.sent:
            body, _ = self.release_queue.sent[0]
            try:
                self.release(parse_release(body, UPLOADS))
            except Killed:
                continue
            self.release_queue.sent.remove((body, 900))

    def pointer(self, key: str = KEY) -> InContent:
        pointer = self.pointers.rows[key]
        assert isinstance(pointer, InContent)
        return pointer

    @property
    def reasons(self) -> list[Reason]:
        return [item.reason for item in self.parking_lot.items.values()]

    def require_safe(self) -> None:
        """What holds at every moment: a file is served from somewhere, and what is hidden has the pointer's bytes."""
        versions = self.uploads.versions.get((UPLOADS, KEY), [])
        if versions and versions[-1] is None:
            pointer = self.pointer()
            assert self.uploads.served(CONTENT, pointer.content_key) is not None
            hidden = next(each for each in reversed(versions) if each)
            assert hidden.body == self.bodies[pointer.sequencer]
            assert self.body_of(pointer) == hidden.body

    def require_settled(self) -> None:
        """What holds once nothing is under way: the last upload is what the pointer names and what is served."""
        self.require_safe()
        last = max(self.bodies)
        pointer = self.pointer()
        assert pointer.sequencer == last
        assert self.body_of(pointer) == self.bodies[last]
        current = self.uploads.current(CONTENT, pointer.content_key)
        assert current
        assert current.version_id == pointer.content_version
        assert not self.parking_lot.items

    def body_of(self, pointer: InContent) -> bytes:
        versions = self.uploads.versions[CONTENT, pointer.content_key]
        [body] = [each.body for each in versions if each and each.source.version_id == pointer.content_version]
        return body


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


# One upload


@pytest.mark.parametrize(("layout", "stored"), [(Layout.AS_IS, KEY), (Layout.HASHED, "58/d4/photos/a.jpg")])
def test_an_upload_is_copied_and_pointed_to_and_let_go_later(layout: Layout, stored: str) -> None:
    cloud = Cloud(layout=layout)
    upload = cloud.put(b"one", content_type="image/jpeg", user_metadata={"by": "me"}, tags={"a": "b"})
    copied = cloud.copy(upload)
    assert copied == Copied(ending=Ending.COPIED, content_version=cloud.pointer().content_version, lag_s=99.0)
    cloud.require_settled()
    standing = cloud.uploads.current(CONTENT, stored)
    assert standing
    source = cloud.uploads.describe(CONTENT, standing)
    assert (source.content_type, source.user_metadata, source.tags) == ("image/jpeg", {"by": "me"}, {"a": "b"})
    assert cloud.uploads.served(UPLOADS, KEY) == b"one"
    [(body, delay_s)] = cloud.release_queue.sent
    assert delay_s == 900
    assert cloud.release(parse_release(body, UPLOADS)).ending is Letting.RELEASED
    assert cloud.uploads.served(UPLOADS, KEY) is None
    assert cloud.release(upload).ending is Letting.GONE
    assert cloud.uploads.describe(UPLOADS, upload).size_bytes == 3, "it is in the attic"


@dataclass
class Calls:
    """Names what is called; dies at a call, before or after it, and checks after each what always has to hold."""

    die_at: int = 0
    after: bool = False
    check: Callable[[], None] = lambda: None
    names: list[str] = field(default_factory=list)

    def watch(self, port: Any) -> Any:
        return _Called(port, self)


@dataclass
class _Called:
    port: Any
    calls: Calls

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.names.append(name)
            dying = len(self.calls.names) == self.calls.die_at
            if dying and not self.calls.after:
                raise Killed
            try:
                return getattr(self.port, name)(*args, **kwargs)
            finally:
                self.calls.check()
                if dying and self.calls.after:
                    raise Killed

        return call


def test_a_first_upload_costs_a_read_a_copy_a_write_and_a_message() -> None:
    calls = Calls()
    cloud = Cloud(watch=calls.watch)
    upload = cloud.put(b"one")
    cloud.copy(upload)
    assert calls.names == ["put", "get", "copy", "move", "send"]
    calls.names.clear()
    cloud.release(upload)
    assert calls.names == ["get", "current", "release"]
    calls.names.clear()
    cloud.copy(cloud.put(b"three"))
    assert calls.names == ["put", "get", "current", "copy", "move", "send"], "a refused copy would cost as much as one"


def test_a_duplicate_changes_nothing_and_asks_for_the_release_again(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    pointer = cloud.pointer()
    assert cloud.copy(upload) == Copied(ending=Ending.STANDS)
    assert cloud.pointer() == pointer
    assert len(cloud.release_queue.sent) == 2
    assert cloud.uploads.copied == [(UPLOADS, upload.version_id)]


def test_a_copy_that_was_there_before_is_adopted(cloud: Cloud) -> None:
    standing = cloud.uploads.put(CONTENT, KEY, b"one")
    upload = cloud.put(b"one")
    assert cloud.copy(upload).ending is Ending.ADOPTED
    assert cloud.pointer().content_version == standing.version_id
    cloud.require_settled()


@pytest.mark.parametrize(
    ("body", "described"),
    [(b"one", {"content_type": "image/png"}), (b"one", {"tags": {"a": "b"}}), (b"two", {}), (b"three", {})],
)
def test_what_stands_there_and_is_something_else_is_replaced(
    cloud: Cloud, body: bytes, described: dict[str, Any]
) -> None:
    cloud.uploads.put(CONTENT, KEY, body, **described)
    assert cloud.copy(cloud.put(b"one")).ending is Ending.COPIED
    cloud.require_settled()


def test_what_stands_there_and_cannot_be_looked_at_is_replaced(cloud: Cloud) -> None:
    cloud.uploads.put(CONTENT, KEY, b"two")
    cloud.uploads.failures[CONTENT, KEY] = SourceDenied(KEY)
    assert cloud.copy(cloud.put(b"one")).ending is Ending.COPIED
    cloud.require_settled()


def test_a_pointer_to_a_host_gives_way(cloud: Cloud) -> None:
    cloud.pointers.claim_host(OnHost(key=KEY, url="https://host/a.jpg", since=START))
    assert cloud.copy(cloud.put(b"one")).ending is Ending.COPIED
    cloud.require_settled()


@pytest.mark.parametrize("key", [".neve/drill/x", ".neve/", "k" * 1020])
def test_what_may_not_or_cannot_go_there_is_parked(key: str) -> None:
    cloud = Cloud(layout=Layout.HASHED)
    upload = cloud.put(b"one", key=key)
    assert cloud.copy(upload).ending is Ending.PARKED
    assert cloud.reasons == [Reason.SOURCE_UNFIT]
    [item] = cloud.parking_lot.items.values()
    assert (item.version, item.bucket) == (upload, UPLOADS)
    assert not cloud.pointers.rows
    assert not cloud.release_queue.sent


def test_an_upload_that_is_gone_is_parked_unless_a_later_one_has_come(cloud: Cloud) -> None:
    first, second = cloud.put(b"one"), cloud.put(b"two")
    cloud.uploads.delete(UPLOADS, KEY, first.version_id)
    assert cloud.copy(first).ending is Ending.PARKED
    assert cloud.reasons == [Reason.SOURCE_GONE]
    cloud.parking_lot.items.clear()
    assert cloud.copy(second).ending is Ending.COPIED
    assert cloud.copy(first).ending is Ending.SUPERSEDED
    cloud.require_settled()
    third = cloud.put(b"three")
    cloud.uploads.delete(UPLOADS, KEY, third.version_id)
    assert cloud.copy(third).ending is Ending.PARKED, "that something stood there does not hide it"
    assert cloud.uploads.served(CONTENT, KEY) == b"two"


def test_an_upload_that_is_gone_by_the_time_it_is_copied_is_nobodys_loss_if_a_later_one_was_quicker(
    cloud: Cloud,
) -> None:
    first, second = cloud.put(b"one"), cloud.put(b"two")
    copy = cloud.uploads.copy

    def after_the_other(*args: Any, **kwargs: Any) -> Any:
        cloud.uploads.copy = copy  # type: ignore[method-assign]
        cloud.copy(second)
        cloud.uploads.delete(UPLOADS, KEY, first.version_id)
        return copy(*args, **kwargs)

    cloud.uploads.copy = after_the_other  # type: ignore[method-assign]
    assert cloud.copy(first).ending is Ending.SUPERSEDED
    cloud.require_settled()


@pytest.mark.parametrize("body", [b"mine", b"theirs"])
@pytest.mark.parametrize("now", Layout)
def test_a_file_is_never_put_in_the_place_of_one_that_came_by_another_layout(now: Layout, body: bytes) -> None:
    """The keys of the two layouts can meet; whoever may choose a name must not take another file's place by it."""
    stored = content_key(KEY, Layout.HASHED)
    before, theirs, mine = (Layout.HASHED, KEY, stored) if now is Layout.AS_IS else (Layout.AS_IS, stored, KEY)
    cloud = Cloud(layout=before)
    cloud.copy(cloud.put(b"theirs", key=theirs))
    cloud.layout = now
    upload = cloud.put(body, key=mine)
    assert cloud.copy(upload).ending is Ending.PARKED
    assert cloud.reasons == [Reason.SOURCE_UNFIT]
    assert cloud.uploads.served(CONTENT, stored) == b"theirs"
    assert cloud.copy(cloud.put(b"theirs again", key=theirs)).ending is Ending.COPIED
    assert cloud.copy(upload).ending is not Ending.PARKED, "it has moved to where the layout puts it"
    assert cloud.uploads.served(CONTENT, stored) == body


# Proof


def test_bytes_are_read_only_where_s3_states_nothing_that_proves_a_copy(cloud: Cloud) -> None:
    cloud.copy(cloud.put(b"one"))
    assert not cloud.uploads.hashed
    cloud.uploads.silent = True
    upload = cloud.put(b"two")
    cloud.uploads.silent = False
    assert cloud.copy(upload).ending is Ending.COPIED
    assert cloud.uploads.hashed == [KEY]
    cloud.require_settled()


def test_a_copy_of_which_nothing_is_stated_is_never_pointed_to(cloud: Cloud) -> None:
    cloud.uploads.silent = True
    assert cloud.copy(cloud.put(b"one")).ending is Ending.PARKED
    assert cloud.reasons == [Reason.UNPROVEN]
    assert not cloud.pointers.rows


def test_an_equal_etag_proves_a_copy_of_the_same_parts(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    stored = cloud.uploads.versions[UPLOADS, KEY][0]
    assert stored
    cloud.uploads.versions[UPLOADS, KEY][0] = replace(stored, source=replace(stored.source, etag="e-2", checksums={}))
    copy: Callable[..., Any] = cloud.uploads.copy

    def of_the_same_parts(*args: Any, **kwargs: Any) -> Any:
        return replace(copy(*args, **kwargs), etag="e-2", checksums={})

    cloud.uploads.copy = of_the_same_parts  # type: ignore[method-assign]
    assert cloud.copy(replace(upload, etag="e-2")).ending is Ending.COPIED
    assert not cloud.uploads.hashed


@pytest.mark.parametrize("before", [False, True])
def test_a_copy_that_differs_is_never_pointed_to_and_what_was_served_is_put_back(cloud: Cloud, before: bool) -> None:
    if before:
        cloud.copy(cloud.put(b"one"))
    put = cloud.uploads.copy

    def damaging_once(*args: Any, **kwargs: Any) -> Any:
        cloud.uploads.damaging = args[0] == UPLOADS
        return put(*args, **kwargs)

    cloud.uploads.copy = damaging_once  # type: ignore[method-assign]
    copied = cloud.copy(cloud.put(b"two"))
    assert (copied.ending, copied.mended) == (Ending.PARKED, before)
    assert cloud.reasons == [Reason.SOURCE_DAMAGED]
    if before:
        assert cloud.uploads.served(CONTENT, KEY) == b"one"
        assert cloud.pointer().content_version == f"{CONTENT}#5"


def test_a_large_upload_goes_on_by_messages_until_it_is_whole(cloud: Cloud) -> None:
    cloud.uploads.single_copy_bytes, cloud.uploads.calls = LOOK_BYTES, 3
    upload = cloud.put(bytes(LOOK_BYTES + 1))
    for _ in range(2):
        assert cloud.copy(upload).ending is Ending.CONTINUED
        [body] = cloud.uploads_queue.take()
        assert parse(body, UPLOADS).versions == (upload,)
        assert not cloud.pointers.rows
    assert cloud.copy(upload).ending is Ending.COPIED
    cloud.require_settled()


def test_an_upload_too_large_to_be_read_is_parked_before_it_is_copied_if_nothing_would_prove_it(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    stored = cloud.uploads.versions[UPLOADS, KEY][0]
    assert stored
    source = replace(stored.source, size_bytes=FIVE_GB + 1)
    cloud.uploads.versions[UPLOADS, KEY][0] = replace(stored, source=source)
    assert cloud.copy(replace(upload, size_bytes=FIVE_GB + 1)).ending is Ending.PARKED
    assert cloud.reasons == [Reason.UNPROVEN]
    assert not cloud.uploads.copied


# Buckets without versions, and sequencers that nobody knows


def test_without_versions_every_upload_is_copied_and_none_is_let_go(cloud: Cloud) -> None:
    cloud.uploads.unversioned.add(UPLOADS)
    for body in (b"one", b"two"):
        upload = cloud.put(body)
        assert cloud.copy(upload).ending is Ending.COPIED
        assert cloud.copy(upload).ending is Ending.STANDS
        cloud.require_settled()
    assert not cloud.release_queue.sent
    assert cloud.release(upload).ending is Letting.KEPT
    assert cloud.uploads.served(UPLOADS, KEY) == b"two"


def test_without_versions_an_upload_that_was_overwritten_is_parked_and_the_next_one_copied(cloud: Cloud) -> None:
    cloud.uploads.unversioned.add(UPLOADS)
    first, second = cloud.put(b"one"), cloud.put(b"two")
    assert cloud.copy(first).ending is Ending.PARKED
    assert cloud.reasons == [Reason.SOURCE_CHANGED]
    cloud.parking_lot.items.clear()
    assert cloud.copy(second).ending is Ending.COPIED
    cloud.require_settled()


@pytest.mark.parametrize("versions_once", [False, True], ids=["never versioned", "suspended"])
def test_a_copy_that_the_content_bucket_may_lose_counts_for_nothing(cloud: Cloud, versions_once: bool) -> None:
    """Where a copy has the version id `null`, that of an earlier upload would overwrite it for ever."""
    first = cloud.put(b"one")
    if versions_once:
        cloud.deliver(first)
    cloud.uploads.unversioned.add(CONTENT)
    second = cloud.put(b"two")
    assert cloud.copy(second).ending is Ending.PARKED
    assert cloud.reasons.count(Reason.SOURCE_UNFIT) == len(cloud.reasons) == 1 + versions_once
    assert all("parked --retry" in item.detail for item in cloud.parking_lot.items.values())
    assert cloud.release(second).ending is Letting.KEPT
    assert cloud.uploads.served(UPLOADS, KEY) == b"two", "it is served from where it was uploaded to"

    cloud.uploads.unversioned.clear()
    cloud.parking_lot.items.clear()
    assert cloud.copy(second).ending is Ending.COPIED, "one that stands as `null` is not adopted"
    cloud.require_settled()
    cloud.let_go()
    cloud.require_safe()


def test_an_upload_whose_copy_would_be_overwritten_is_kept(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.deliver(upload)
    cloud.pointers.rows[KEY] = replace(cloud.pointer(), content_version="null")
    assert "`null`" in cloud.release(upload).detail


def test_an_upload_without_a_sequencer_counts_if_it_is_the_last_of_its_key(cloud: Cloud) -> None:
    first, second, third = (cloud.put(body) for body in (b"one", b"two", b"three"))
    cloud.copy(first)
    nameless = [replace(upload, sequencer="") for upload in (second, third)]
    assert cloud.copy(nameless[0]).ending is Ending.SUPERSEDED
    assert cloud.uploads.served(CONTENT, KEY) == b"one"
    assert cloud.copy(nameless[1]).ending is Ending.COPIED
    assert cloud.uploads.served(CONTENT, KEY) == b"three"
    assert cloud.copy(nameless[1]).ending is Ending.STANDS
    assert cloud.copy(first).ending is Ending.SUPERSEDED, "it takes over the sequencer that it has passed"
    assert cloud.uploads.served(CONTENT, KEY) == b"three"


def test_an_upload_that_comes_late_does_not_pass_a_pointer_without_a_sequencer(cloud: Cloud) -> None:
    first, second = cloud.put(b"one"), cloud.put(b"two")
    assert cloud.copy(replace(second, sequencer="")).ending is Ending.COPIED
    assert cloud.copy(first).ending is Ending.SUPERSEDED
    assert cloud.copy(second).ending is Ending.STANDS
    assert cloud.uploads.served(CONTENT, KEY) == b"two"
    cloud.let_go()
    third = cloud.put(b"three")
    assert cloud.copy(third).ending is Ending.COPIED
    cloud.require_settled()


# Settling


def test_what_the_pointer_names_is_put_back_on_top_by_whoever_has_nothing_to_copy(cloud: Cloud) -> None:
    upload = cloud.put(b"one", tags={"a": "b"})
    cloud.copy(upload)
    cloud.uploads.put(CONTENT, KEY, b"a late copy")
    assert cloud.copy(upload) == Copied(ending=Ending.STANDS, mended=True)
    cloud.require_settled()
    standing = cloud.uploads.current(CONTENT, KEY)
    assert standing
    assert cloud.uploads.describe(CONTENT, standing).tags == {"a": "b"}


def archived(cloud: Cloud, version: ObjectVersion, *, after: timedelta) -> None:
    """Have an archive hold a version of the content bucket, written so long after the version was made."""
    row, archive = rows_of(version, written_at=version.event_at + after)
    cloud.files.record([row])
    cloud.archives.rows[1] = archive


def test_what_a_restore_has_put_in_its_place_stays_whatever_event_comes_late(cloud: Cloud) -> None:
    first, second = cloud.put(b"one"), cloud.put(b"two")
    for upload in (first, second):
        cloud.copy(upload)
    archived(cloud, cloud.uploads.put(CONTENT, KEY, b"one"), after=timedelta(hours=-1))
    assert cloud.copy(second) == Copied(ending=Ending.STANDS)
    assert cloud.copy(first) == Copied(ending=Ending.SUPERSEDED)
    assert cloud.uploads.served(CONTENT, KEY) == b"one"
    assert cloud.copy(cloud.put(b"three")).ending is Ending.COPIED
    cloud.require_settled()


def test_a_late_copy_does_not_stay_because_it_was_archived_meanwhile(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    archived(cloud, cloud.uploads.put(CONTENT, KEY, b"a late copy"), after=timedelta(seconds=30))
    assert cloud.copy(upload).mended
    archived(cloud, cloud.uploads.put(CONTENT, KEY, b"another"), after=timedelta(hours=-1))
    del cloud.archives.rows[1]
    assert cloud.copy(upload).mended
    cloud.require_settled()


def test_a_file_that_somebody_has_deleted_in_the_content_bucket_stays_deleted(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    cloud.uploads.delete(CONTENT, KEY)
    assert cloud.copy(upload) == Copied(ending=Ending.STANDS)
    assert cloud.uploads.served(CONTENT, KEY) is None
    assert cloud.release(upload).ending is Letting.KEPT
    assert cloud.copy(cloud.put(b"two")).ending is Ending.COPIED
    cloud.require_settled()


def test_a_pointer_whose_version_is_gone_is_parked_and_the_next_upload_takes_over(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    gone = cloud.pointer().content_version
    cloud.uploads.put(CONTENT, KEY, b"other")
    cloud.uploads.delete(CONTENT, KEY, gone)
    assert cloud.copy(upload).ending is Ending.STANDS
    [item] = cloud.parking_lot.items.values()
    assert (item.reason, item.bucket) == (Reason.SOURCE_GONE, "")
    assert item.version
    assert item.version.version_id == gone
    assert cloud.release(upload).ending is Letting.KEPT
    cloud.parking_lot.items.clear()
    assert cloud.copy(cloud.put(b"two")).ending is Ending.COPIED
    cloud.require_settled()


def test_a_large_version_is_put_back_in_more_than_one_go(cloud: Cloud) -> None:
    upload = cloud.put(bytes(LOOK_BYTES + 1))
    cloud.copy(upload)
    cloud.uploads.put(CONTENT, KEY, b"other")
    cloud.uploads.single_copy_bytes, cloud.uploads.calls = LOOK_BYTES, 2
    with pytest.raises(Transient):
        cloud.copy(upload)
    assert cloud.copy(upload).mended
    cloud.require_settled()


def test_a_place_that_others_never_leave_alone_is_tried_again_later(cloud: Cloud) -> None:
    numbers = itertools.count()
    copy = cloud.uploads.copy

    def others_first(*args: Any, **kwargs: Any) -> Any:
        cloud.uploads.put(CONTENT, KEY, b"other %d" % next(numbers))
        return copy(*args, **kwargs)

    upload = cloud.put(b"one")
    cloud.uploads.copy = others_first  # type: ignore[method-assign]
    with pytest.raises(Transient, match="being written by others"):
        cloud.copy(upload)
    cloud.uploads.copy = copy  # type: ignore[method-assign]
    cloud.deliver(upload)
    cloud.require_settled()


def test_what_others_put_on_top_again_and_again_is_settled_later(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    copy = cloud.uploads.copy
    cloud.uploads.put(CONTENT, KEY, b"other")
    cloud.uploads.copy = lambda *_, **__: NotCopied.TAKEN  # type: ignore[method-assign]
    with pytest.raises(Transient, match="keep writing"):
        cloud.copy(upload)
    cloud.uploads.copy = copy  # type: ignore[method-assign]
    cloud.deliver(upload)
    cloud.require_settled()


def test_a_pointer_that_never_stands_still_is_tried_again_later(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.pointers.move = lambda seen, to: False  # type: ignore[method-assign]  # noqa: ARG005
    with pytest.raises(Transient, match="the pointer"):
        cloud.copy(upload)


# Letting go


def test_an_upload_without_a_pointer_is_kept(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    assert cloud.release(upload).ending is Letting.KEPT
    cloud.copy(upload)
    later = cloud.put(b"two")
    assert cloud.release(later).ending is Letting.KEPT, "the pointer names an earlier one"
    assert cloud.uploads.served(UPLOADS, KEY) == b"two"


def test_an_upload_is_let_go_although_a_restore_has_put_another_version_in_its_place(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    cloud.uploads.put(CONTENT, KEY, b"restored")
    assert cloud.release(upload).ending is Letting.RELEASED


def test_a_re_upload_is_not_hidden_by_the_release_of_the_upload_before(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    cloud.put(b"two")
    assert cloud.release(upload).ending is Letting.GONE
    assert cloud.uploads.served(UPLOADS, KEY) == b"two"


def test_a_re_upload_of_the_same_bytes_is_copied_even_if_it_was_hidden(cloud: Cloud) -> None:
    upload = cloud.put(b"one")
    cloud.copy(upload)
    again = cloud.put(b"one", content_type="image/jpeg")
    assert cloud.release(upload).ending is Letting.RELEASED
    cloud.require_safe()
    assert cloud.copy(again).ending is Ending.COPIED
    cloud.require_settled()


def test_the_same_bytes_of_an_upload_two_before_are_not_hidden_while_they_wait(cloud: Cloud) -> None:
    first, second, _ = cloud.put(b"one"), cloud.put(b"two"), cloud.put(b"one")
    cloud.copy(first)
    cloud.copy(second)
    cloud.let_go()
    assert cloud.uploads.served(UPLOADS, KEY) == b"one"


# Every order


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("twice", [False, True])
def test_whatever_order_events_come_in_the_last_upload_wins(order: Sequence[int], twice: bool) -> None:
    cloud = Cloud()
    uploads = [cloud.put(body) for body in (b"one", b"two", b"three")]
    for number in [*order, *(reversed(order) if twice else ())]:
        cloud.copy(uploads[number])
        cloud.require_safe()
    cloud.let_go()
    cloud.require_settled()
    assert cloud.uploads.served(UPLOADS, KEY) is None


@pytest.mark.parametrize(
    ("bodies", "deliveries", "preemptions"),
    [
        ((b"one", b"two"), (0, 1), 3),
        ((b"one", b"two"), (1, 0), 3),
        ((b"one", b"one"), (0, 1), 3),
        ((b"one", b"two"), (0, 1, 1), 1),
        ((b"one", b"two"), (0, 0, 1), 1),
        ((b"one", b"two", b"three"), (0, 1, 2), 1),
        ((b"one", b"two", b"one"), (2, 1, 0), 1),
    ],
    ids=["two", "the later first", "the same bytes", "the later twice", "the earlier twice", "three", "back again"],
)
def test_uploads_of_a_key_that_race_end_with_the_last_one_served(
    bodies: Sequence[bytes], deliveries: Sequence[int], preemptions: int
) -> None:
    def live(steps: Steps) -> None:
        cloud = Cloud(watch=steps.watch)
        uploads = [cloud.put(body) for body in bodies]
        tasks: list[Task] = [lambda upload=uploads[number]: cloud.deliver(upload) for number in deliveries]  # type: ignore[misc]
        steps.run(tasks)
        cloud.require_settled()
        cloud.let_go()
        cloud.require_settled()

    assert explored(live, preemptions=preemptions) > 50


def test_a_re_upload_at_any_moment_of_copying_and_letting_go_is_served_in_the_end() -> None:
    def live(steps: Steps) -> None:
        cloud = Cloud(watch=steps.watch)
        first = cloud.put(b"one")

        def application() -> None:
            cloud.deliver(cloud.put(b"two"))

        def releases() -> None:
            cloud.let_go()
            cloud.require_safe()

        def copies() -> None:
            cloud.deliver(first)
            cloud.require_safe()

        steps.run([copies, application, releases])
        cloud.require_safe()
        cloud.let_go()
        cloud.require_settled()

    assert explored(live, preemptions=2) > 100


def test_dying_at_any_call_loses_nothing() -> None:
    for after in (False, True):
        for die_at in itertools.count(1):
            calls = Calls()
            cloud = Cloud(watch=calls.watch)
            calls.check = cloud.require_safe
            uploads = [cloud.put(body) for body in (b"one", b"two", b"three")]
            calls.names.clear()
            calls.die_at, calls.after = die_at, after
            for number in (1, 0, 2):
                cloud.deliver(uploads[number])
                cloud.let_go()
            cloud.require_settled()
            assert cloud.uploads.served(UPLOADS, KEY) is None
            if len(calls.names) < die_at:
                break
        assert die_at > 15


@pytest.mark.parametrize("bodies", [(b"one", b"two"), (b"one", b"one")], ids=["other bytes", "the same bytes"])
def test_who_dies_while_another_copies_leaves_nothing_that_its_own_redelivery_does_not_mend(
    bodies: Sequence[bytes],
) -> None:
    """One of two dies at a call, and its message comes back once the other has ended."""

    def live(steps: Steps, die_at: int, dies: int) -> None:
        calls = Calls(die_at=die_at, after=True)
        cloud = Cloud()
        uploads = [cloud.put(body) for body in bodies]
        mortal = replace(cloud, watch=lambda port: steps.watch(calls.watch(port)))
        other = replace(cloud, watch=steps.watch)

        def lives_once() -> None:
            with suppress(Transient, Killed):
                mortal.copy(uploads[dies])

        steps.run([lives_once, lambda: other.deliver(uploads[1 - dies])])
        cloud.deliver(uploads[dies])
        cloud.require_settled()

    orders = 0
    for dies, die_at in itertools.product((0, 1), range(1, 9)):
        orders += explored(lambda steps, die_at=die_at, dies=dies: live(steps, die_at, dies), preemptions=2)  # type: ignore[misc]
    assert orders > 300
