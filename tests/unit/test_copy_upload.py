"""Uploads on their way into the content bucket, and let go afterwards: in every order, whoever dies where."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neve.domain.events import parse
from neve.domain.layout import Layout
from neve.domain.parked import Reason
from neve.domain.pointer import InContent, OnHost
from neve.domain.upload import LOOK_BYTES, parse_release
from neve.domain.version import NULL_VERSION, ObjectVersion, padded_sequencer
from neve.errors import SourceDenied, Transient
from neve.flows import release_upload
from neve.flows.copy_upload import Copied, Ending, UploadCopier
from neve.flows.release_upload import Released, UploadReleaser
from tests.interleave import Steps, Task, explored
from tests.memory import CONTENT, START, MemoryParkingLot, MemoryQueue
from tests.memory_offload import MemoryPointers
from tests.memory_uploads import UPLOADS, MemoryUploads

KEY = "photos/a.jpg"
NOW = START + timedelta(seconds=100)


def as_it_is(port: Any) -> Any:
    return port


@dataclass
class Cloud:
    """Both functions over memory. `watch` wraps what they call."""

    watch: Callable[[Any], Any] = as_it_is
    layout: Layout = Layout.AS_IS
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    pointers: MemoryPointers = field(default_factory=MemoryPointers)
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    uploads_queue: MemoryQueue = field(default_factory=MemoryQueue)
    release_queue: MemoryQueue = field(default_factory=MemoryQueue)

    def put(self, body: bytes, key: str = KEY, **described: Any) -> ObjectVersion:
        return self.uploads.put(UPLOADS, key, body, **described)

    def copy(self, upload: ObjectVersion) -> Copied:
        return UploadCopier(
            uploads=self.watch(self.uploads),
            pointers=self.watch(self.pointers),
            parking_lot=self.watch(self.parking_lot),
            uploads_queue=self.watch(self.uploads_queue),
            release_queue=self.watch(self.release_queue),
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

    def pointer(self, key: str = KEY) -> InContent:
        pointer = self.pointers.rows[key]
        assert isinstance(pointer, InContent)
        return pointer

    def due(self) -> list[ObjectVersion]:
        """The uploads that messages ask to let go; the messages are gone afterwards."""
        return [parse_release(body, UPLOADS) for body in self.release_queue.take()]

    @property
    def reasons(self) -> list[Reason]:
        return [item.reason for item in self.parking_lot.items.values()]


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def settled(cloud: Cloud, uploads: Sequence[ObjectVersion], bodies: Sequence[bytes]) -> None:
    """What has to hold once nothing is under way: of the last upload, pointer, bytes served and what is let go."""
    last = max(uploads, key=lambda upload: upload.sequencer)
    pointer = cloud.pointer()
    assert (pointer.upload_version, pointer.sequencer) == (last.version_id, last.sequencer)
    assert cloud.uploads.served(CONTENT, pointer.content_key) == bodies[uploads.index(last)]
    current = cloud.uploads.current(CONTENT, pointer.content_key)
    assert current
    assert current.version_id == pointer.content_version
    assert not cloud.parking_lot.items


# One upload


def test_an_upload_is_copied_and_pointed_to_and_let_go_later(cloud: Cloud) -> None:
    upload = cloud.put(b"one", content_type="image/jpeg", user_metadata={"by": "me"}, tags={"a": "b"})
    copied = cloud.copy(upload)
    assert copied == Copied(ending=Ending.COPIED, content_version=cloud.pointer().content_version, lag_s=99.0)
    settled(cloud, [upload], [b"one"])
    standing = cloud.uploads.current(CONTENT, KEY)
    assert standing
    assert (standing.content_type, standing.user_metadata, standing.tags) == ("image/jpeg", {"by": "me"}, {"a": "b"})
    assert cloud.uploads.served(UPLOADS, KEY) == b"one"
    [(body, delay_s)] = cloud.release_queue.sent
    assert delay_s == 900
    assert cloud.release(parse_release(body, UPLOADS)).ending is release_upload.Ending.RELEASED
    assert cloud.uploads.served(UPLOADS, KEY) is None
    assert cloud.release(upload).ending is release_upload.Ending.GONE
    assert cloud.uploads.describe(UPLOADS, upload).size_bytes == 3, "it is in the attic"
