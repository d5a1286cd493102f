"""CopyUpload: an upload is copied into the content bucket, and the pointer of its file flips to the copy.

What keeps the pointer and the bytes being served together: whoever has written to the content bucket does not end
before the pointer names what is current there. A copy counts once the pointer was swapped from what was read before the
copy was seen to be current. Were another copy put on top meanwhile, its writer cannot have ended, because that would
have changed the pointer; and it goes on until what it reads agrees. So a swap that took effect needs no second look,
and a refused one starts over. Who has nothing to copy may be somebody who died over his own copy: he looks as well, and
puts the version that the pointer names back on top if another one is. A death anywhere brings the message back.

What a restore has put on top stays there, since a person has asked for it.

All this takes a content bucket that keeps versions. A copy with the version id `null` may be overwritten by the copy of
an earlier upload that comes late, and could not be put back: it counts for nothing, and the upload is parked.

The upload itself is let go later, by a message (flows/release_upload.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from neve.domain.events import announcements
from neve.domain.large import SINGLE_COPY_BYTES, proven
from neve.domain.layout import Layout, keys_at
from neve.domain.manifest import Source
from neve.domain.parked import Parked, reason_for
from neve.domain.pointer import InContent, Pointer, covers, names
from neve.domain.upload import (
    destination,
    is_copy,
    needs_look,
    pointer_to,
    render_release,
    require_provable,
    version_named_by,
)
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import NeveError, SourceDamaged, SourceUnavailable, SourceUnfit, SourceUnproven, Transient
from neve.ports import Archives, ContentCopy, Files, NotCopied, ParkingLot, Pointers, Queue, Uploads

TRIES = 5
"""So often is a place looked at again that others keep writing to; then the message comes back later."""

_UNVERSIONED = (
    "the content bucket keeps no versions, so the next copy would overwrite it: turn versioning on, then `neve parked "
    "--retry`"
)


class Ending(StrEnum):
    """What became of an upload."""

    COPIED = "copied"
    ADOPTED = "adopted"
    """Its copy stood already; the pointer names it now."""
    STANDS = "stands"
    """The pointer named it before."""
    SUPERSEDED = "superseded"
    """The pointer names a later upload of the key."""
    CONTINUED = "continued"
    """The time did not suffice for all parts; a message has asked for the others."""
    PARKED = "parked"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of an upload; `lag_s` is from its event to the flip, None if there was none.

    `mended`: what the pointer names was put back on top of what was current in the content bucket.
    """

    ending: Ending
    content_version: str = ""
    lag_s: float | None = None
    mended: bool = False
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class UploadCopier:
    """CopyUpload's rules over its ports. `clock` tells the time in UTC."""

    uploads: Uploads
    pointers: Pointers
    parking_lot: ParkingLot
    uploads_queue: Queue
    release_queue: Queue
    files: Files
    archives: Archives
    uploads_bucket: str
    content_bucket: str
    layout: Layout
    release_after_s: int
    clock: Callable[[], datetime]

    def copy(self, upload: ObjectVersion, *, until: datetime) -> Copied:
        """Bring the upload into the content bucket and have the pointer name it, unless a later one is there.

        Raises Transient if it is worth trying again.
        """
        try:
            return self._copy(upload, destination(upload.key, self.layout), until)
        except (SourceUnavailable, SourceDamaged) as error:
            return self._give_up(upload, error, until)

    def _copy(self, upload: ObjectVersion, content_key: str, until: datetime) -> Copied:
        for _ in range(TRIES):
            pointer = self.pointers.get(upload.key)
            if covers(pointer, upload_version=upload.version_id, sequencer=upload.sequencer):
                return self._settled(upload, until)
            if isinstance(pointer, InContent) and not self._is_later(upload, pointer):
                return self._settled(upload, until)
            placed = self._place(upload, content_key, pointer, until)
            if placed is None:
                for message in announcements(self.uploads_bucket, [upload]):
                    self.uploads_queue.send(message)
                return Copied(ending=Ending.CONTINUED)
            ending, version_id = placed
            now = self.clock()
            to = pointer_to(upload, content_key=content_key, content_version=version_id, after=pointer, now=now)
            if self.pointers.move(pointer, to):
                self._have_released(upload)
                lag_s = (now - upload.event_at).total_seconds()
                return Copied(ending=ending, content_version=version_id, lag_s=lag_s)
        raise Transient(f"the pointer of {upload.key!r} has changed {TRIES} times while it was copied")

    def _is_later(self, upload: ObjectVersion, pointer: InContent) -> bool:
        """Whether an upload that the pointer does not cover came after the one that it names.

        Where a sequencer is unknown, the upload has to be what is current in its bucket: then it is the last one.
        """
        if upload.sequencer and pointer.sequencer:
            return True
        last = self.uploads.current(self.uploads_bucket, upload.key)
        return last is not None and (last.version_id, last.etag) == (upload.version_id, upload.etag)

    def _place(
        self, upload: ObjectVersion, content_key: str, pointer: Pointer | None, until: datetime
    ) -> tuple[Ending, str] | None:
        """Have a proved copy of the upload be current; its version id. None if the time did not suffice.

        What stands there is looked at first only where the pointer says that something does: a copy that S3 refuses
        costs as much as one that it makes.
        """
        source = self._describe(upload) if needs_look(upload) else None
        onto = self.uploads.current(self.content_bucket, content_key) if isinstance(pointer, InContent) else None
        for _ in range(TRIES):
            if onto and (not isinstance(pointer, InContent) or pointer.content_key != content_key):
                self._require_own(upload.key, content_key)
            if onto and onto.size_bytes == upload.size_bytes and onto.version_id != NULL_VERSION:
                source = source or self._describe(upload)
                if self._stands(source, onto):
                    return Ending.ADOPTED, onto.version_id
            made = self.uploads.copy(self.uploads_bucket, upload, content_key, source=source, onto=onto, until=until)
            if made is NotCopied.UNFINISHED:
                return None
            if isinstance(made, ContentCopy):
                self._prove(self.uploads_bucket, upload, source, made)
                return Ending.COPIED, made.version_id
            source = self._describe(upload)  # raises if it is the source that is gone
            onto = self.uploads.current(self.content_bucket, content_key)
        raise Transient(f"{content_key!r} is being written by others")

    def _require_own(self, key: str, content_key: str) -> None:
        """Raises SourceUnfit if what stands there is another file, which came by a layout that was set before."""
        for other in keys_at(content_key) - {key}:
            pointer = self.pointers.get(other)
            if isinstance(pointer, InContent) and pointer.content_key == content_key:
                raise SourceUnfit(f"{content_key!r} is where the file {other!r} lies since key_layout was changed")

    def _stands(self, source: Source, standing: ObjectVersion) -> bool:
        try:
            return is_copy(source, self.uploads.describe(self.content_bucket, standing))
        except SourceUnavailable:
            return False

    def _describe(self, upload: ObjectVersion) -> Source:
        source = self.uploads.describe(self.uploads_bucket, upload)
        require_provable(source)
        return source

    def _prove(self, bucket: str, version: ObjectVersion, source: Source | None, made: ContentCopy) -> None:
        """Raises SourceDamaged if the copy is not the version, SourceUnproven if that cannot be told, and SourceUnfit
        if the content bucket may lose it.

        What S3 states is asked for only if the ETags do not prove it, and the bytes are read only if nothing does.
        """
        if made.version_id == NULL_VERSION:
            raise SourceUnfit(f"no copy of {version.key!r} would last: {_UNVERSIONED}")
        same = proven(source.checksums if source else {}, version.etag, made.checksums, made.etag)
        if same is None:
            stated = source or self.uploads.describe(bucket, version)
            same = proven(stated.checksums, version.etag, made.checksums, made.etag)
        if same is None and made.etag == version.etag:
            same = True  # of the same parts, each by its MD5
        if same is None and version.size_bytes <= SINGLE_COPY_BYTES:
            same = proven(self.uploads.hashes(bucket, version), "", made.checksums, made.etag)
        where = f"the copy {made.version_id} of {version.key!r} version {version.version_id}"
        if same is None:
            raise SourceUnproven(f"{where} has no checksum to compare")
        if not same:
            raise SourceDamaged(f"{where} has other checksums: {dict(made.checksums)}")

    def _settled(self, upload: ObjectVersion, until: datetime) -> Copied:
        """There is nothing to copy; but an earlier try may have copied, or flipped, and have died then."""
        pointer, mended = self._settle(upload.key, until)
        if not names(pointer, upload_version=upload.version_id, sequencer=upload.sequencer):
            return Copied(ending=Ending.SUPERSEDED, mended=mended)
        self._have_released(upload)
        return Copied(ending=Ending.STANDS, mended=mended)

    def _settle(self, key: str, until: datetime) -> tuple[Pointer | None, bool]:
        """Have what the pointer names be current in the content bucket; the pointer, and whether it had to be put back.

        Where nothing is current somebody has deleted the file there, which neve never does: that is left alone. So is
        what a restore has put in its place.
        """
        for _ in range(TRIES):
            pointer = self.pointers.get(key)
            if not isinstance(pointer, InContent):
                return pointer, False
            standing = self.uploads.current(self.content_bucket, pointer.content_key)
            if standing is None or standing.version_id == pointer.content_version:
                return pointer, False
            if self._is_restored(standing):
                return pointer, False
            version = version_named_by(pointer)
            try:
                made = self._put_back(version, standing, until)
            except (SourceUnavailable, SourceDamaged) as error:
                self._park(version, error, bucket="")
                return pointer, False
            if made is NotCopied.UNFINISHED:
                raise Transient(f"the time did not suffice to put {key!r} back")
            if isinstance(made, ContentCopy):
                to = replace(pointer, content_version=made.version_id)
                if self.pointers.move(pointer, to):
                    return to, True
        raise Transient(f"others keep writing to {key!r}")

    def _is_restored(self, standing: ObjectVersion) -> bool:
        """Whether a version in the content bucket came from the archive: it is younger than the archive it lies in.

        Extract gives it the row of the member that it was made of; all others get theirs from an archive written later.
        """
        row = self.files.get([standing.identity]).get(standing.identity)
        archive = self.archives.get(row.archive) if row else None
        return archive is not None and archive.written_at < standing.event_at

    def _put_back(self, version: ObjectVersion, onto: ObjectVersion, until: datetime) -> ContentCopy | NotCopied:
        """Copy an earlier version in the content bucket on top of what is current there."""
        source = self.uploads.describe(self.content_bucket, version) if needs_look(version) else None
        made = self.uploads.copy(self.content_bucket, version, version.key, source=source, onto=onto, until=until)
        if isinstance(made, ContentCopy):
            self._prove(self.content_bucket, version, source, made)
        elif made is NotCopied.TAKEN:
            self.uploads.describe(self.content_bucket, version)  # raises if it is the source that is gone
        return made

    def _have_released(self, upload: ObjectVersion) -> None:
        """Ask for the upload to be let go later. Without a version id that would be for ever: it stays."""
        if upload.version_id != NULL_VERSION:
            self.release_queue.send(render_release(self.uploads_bucket, upload), delay_s=self.release_after_s)

    def _give_up(self, upload: ObjectVersion, error: NeveError, until: datetime) -> Copied:
        """The upload can never be copied. That is nobody's loss if a later one has taken its place."""
        pointer, mended = self._settle(upload.key, until)
        if covers(pointer, upload_version=upload.version_id, sequencer=upload.sequencer):
            return Copied(ending=Ending.SUPERSEDED, mended=mended)
        self._park(upload, error, bucket=self.uploads_bucket)
        return Copied(ending=Ending.PARKED, mended=mended, detail=str(error))

    def _park(self, version: ObjectVersion, error: NeveError, *, bucket: str) -> None:
        self.parking_lot.park(
            Parked(reason=reason_for(error), detail=str(error), version=version, bucket=bucket, parked_at=self.clock())
        )
