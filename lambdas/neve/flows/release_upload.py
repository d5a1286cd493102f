"""ReleaseUpload: an upload whose file is served from the content bucket is let go.

The last step of an upload's way, and the only one that takes something away: it comes minutes after the pointer has
flipped, when no redirect to the upload is remembered anywhere, and looks at everything again. What is let go is hidden
behind a delete marker, on the condition that it still has the upload's ETag, and stays in the attic. A re-upload of
other bytes is never hidden; one of the same bytes may be, and is copied by its version id as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from neve.domain.pointer import InContent, covers, names
from neve.domain.upload import version_named_by
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import SourceUnavailable
from neve.ports import Pointers, Uploads


class Ending(StrEnum):
    """What became of an upload that was to be let go."""

    RELEASED = "released"
    GONE = "gone"
    """It is not current any more: let go before, replaced or deleted."""
    KEPT = "kept"
    """Letting it go would not be safe."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What became of an upload that was to be let go; `detail` says why it was kept."""

    ending: Ending
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class UploadReleaser:
    """ReleaseUpload's rules over its ports."""

    uploads: Uploads
    pointers: Pointers
    content_bucket: str

    def release(self, upload: ObjectVersion) -> Released:
        """Let the upload go if the pointer names it, and its copy is there. Raises Transient."""
        if upload.version_id == NULL_VERSION:
            return _kept("its bucket keeps no versions: deleted it would be gone for ever")
        pointer = self.pointers.get(upload.key)
        if isinstance(pointer, InContent) and names(
            pointer, upload_version=upload.version_id, sequencer=upload.sequencer
        ):
            reason = self._unserved(pointer)
            if reason:
                return _kept(reason)
            return Released(ending=Ending.RELEASED if self.uploads.release(upload) else Ending.GONE)
        if covers(pointer, upload_version=upload.version_id, sequencer=upload.sequencer):
            return Released(ending=Ending.GONE)  # a later upload has replaced it, and is let go by its own message
        return _kept("no pointer names it, or a later upload")

    def _unserved(self, pointer: InContent) -> str:
        """Why the content bucket cannot do without the upload; "" if it can.

        Another version may be current there, put by a restore: then the copy still has to be among the others.
        """
        if pointer.content_version == NULL_VERSION:
            return "its copy has the version id `null`: the next copy would overwrite it"
        standing = self.uploads.current(self.content_bucket, pointer.content_key)
        if standing is None:
            return f"nothing is current at {pointer.content_key!r}"
        if standing.version_id != pointer.content_version:
            try:
                self.uploads.describe(self.content_bucket, version_named_by(pointer))
            except SourceUnavailable as error:
                return f"the copy that the pointer names cannot be had: {error}"
        return ""


def _kept(detail: str) -> Released:
    return Released(ending=Ending.KEPT, detail=detail)
