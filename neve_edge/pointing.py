"""Waiting for pointers: a file may go once the pointer names its upload, or one of its key that came later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from neve.domain.pointer import InContent, OnHost, Pointer
from neve.domain.version import NULL_VERSION
from neve_edge.journal import Upload
from neve_edge.uploading import keeping

FIRST_LOOK_S, LONGEST_S = 1.0, 30.0
"""Pauses between two looks for a pointer: they double."""


class HostPointers(Protocol):
    """What of neve.ports.Pointers a host needs. Every call may raise Transient, whatever the reason: see Uploads."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        """See neve.ports.Pointers."""

    def claim_host(self, to: OnHost) -> bool:
        """See neve.ports.Pointers."""


@dataclass(frozen=True)
class PatientPointers:
    """The pointers, for an agent: that it may not read them now is no reason to give a file up."""

    pointers: HostPointers

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        """See HostPointers."""
        with keeping():
            return self.pointers.get_many(keys)

    def claim_host(self, to: OnHost) -> bool:
        """See HostPointers."""
        with keeping():
            return self.pointers.claim_host(to)


def covers(pointer: Pointer | None, upload: Upload, order: Callable[[], Sequence[str]]) -> bool:
    """Whether `pointer` shows that a file's bytes, or those that replaced them, are in the content bucket.

    The agent does not know the sequencer of its upload: if the pointer names another one, the `order` of the key's
    versions tells which came later, the newest first. What it does not list is not known to be later. Versions `null`
    are overwritten in place, so there the pointer has to state the ETag of the upload.
    """
    if not isinstance(pointer, InContent):
        return False
    if NULL_VERSION in (upload.version_id, pointer.upload_version):
        return upload.version_id == pointer.upload_version and upload.etag == pointer.etag
    if pointer.upload_version == upload.version_id:
        return True
    versions = order()
    if pointer.upload_version not in versions or upload.version_id not in versions:
        return False
    return versions.index(pointer.upload_version) < versions.index(upload.version_id)


@dataclass
class Looks:
    """When to look for a file's pointer next, in seconds of a monotonic clock. A pointer is judged once."""

    since: float
    next_at: float
    pause_s: float = FIRST_LOOK_S
    _earlier: set[str] = field(default_factory=set)

    def covered(self, pointer: Pointer | None, upload: Upload, order: Callable[[], Sequence[str]]) -> bool:
        """As covers; without asking again for the order where it is known."""
        if isinstance(pointer, InContent) and pointer.upload_version in self._earlier:
            return False
        covered = covers(pointer, upload, order)
        if isinstance(pointer, InContent) and not covered:
            self._earlier.add(pointer.upload_version)
        return covered

    def put_off(self, now: float) -> None:
        """The next look comes after twice the pause."""
        self.next_at = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, LONGEST_S)


def first_look(now: float) -> Looks:
    """The looks for a file that was uploaded just now."""
    return Looks(since=now, next_at=now + FIRST_LOOK_S)
