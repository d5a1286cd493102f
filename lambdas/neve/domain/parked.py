"""Parked: permanent failures that wait for a person."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from neve.domain.version import ObjectVersion
from neve.errors import (
    NeveError,
    SourceChanged,
    SourceDamaged,
    SourceDenied,
    SourceGone,
    SourceLost,
    SourceUnfit,
    SourceUnproven,
    Transient,
)


class Reason(StrEnum):
    """Why something was parked."""

    EVENT_INVALID = "event invalid"
    SOURCE_GONE = "source gone"
    SOURCE_CHANGED = "source changed"
    SOURCE_DENIED = "source denied"
    SOURCE_UNFIT = "source unfit"
    SOURCE_DAMAGED = "source damaged"
    SOURCE_UNREADABLE = "source unreadable"
    ARCHIVE_CONFLICT = "archive conflict"
    PARTS_MISSING = "parts missing"
    ARCHIVE_DAMAGED = "archive damaged"
    LOST = "lost"
    UNREPAIRED = "unrepaired"
    UNPROVEN = "unproven"
    MESSAGE_REFUSED = "message refused"


REMEDIES: dict[Reason, str] = {
    Reason.EVENT_INVALID: "Find out who sends this; files that an upload's event meant are found by a listing.",
    Reason.SOURCE_GONE: "Deleted before it could be archived. If that was not meant, put the file again.",
    Reason.SOURCE_CHANGED: "Overwritten before it could be archived; the newer version has its own event.",
    Reason.SOURCE_DENIED: (
        "Grant the function's role s3:GetObjectVersion (kms:Decrypt); if the object lies in a Glacier class, thaw it. "
        "Then `neve parked --retry`."
    ),
    Reason.SOURCE_UNFIT: "Its key, version id or metadata cannot be written down; put the file again without them.",
    Reason.SOURCE_DAMAGED: "S3's checksum does not fit the bytes: put the file again from where it came.",
    Reason.SOURCE_UNREADABLE: "S3 kept failing for this version only; `neve parked --retry` once S3 is well.",
    Reason.ARCHIVE_CONFLICT: (
        "An archive's object contradicts its manifest. Its files are collected again, or repaired once more; see both."
    ),
    Reason.PARTS_MISSING: "A bundle's parts expired before it was written; its files are found by a listing.",
    Reason.ARCHIVE_DAMAGED: (
        "What was read from the archive is not what its manifest states, so nothing was handed over. "
        "If the source still stands in the content bucket, it can be archived again; look at the archive's versions."
    ),
    Reason.LOST: "No intact copy is left in the content bucket or in an archive; put the file again if you have it.",
    Reason.UNREPAIRED: (
        "An intact copy may be left, but could not be read: it is denied, or lies in an archive that is not thawed. "
        "See to that, then repair the archive again."
    ),
    Reason.UNPROVEN: (
        "S3 states no checksum that would prove a copy, so the upload stays where it is. Put the file again with a "
        "CRC64NVME checksum over the whole object."
    ),
    Reason.MESSAGE_REFUSED: (
        "SQS never takes this message; whoever sent it has a fault. What it was about is found by a sweep or a listing."
    ),
}
"""What an operator does about it, one sentence each, as `neve parked` shows it."""


@dataclass(frozen=True, kw_only=True)
class Parked:
    """A permanent failure: of one version, of a bundle, or of a message (whose body is the evidence).

    `bucket` is where the version lies, "" for the content bucket.
    """

    reason: Reason
    detail: str
    parked_at: datetime
    version: ObjectVersion | None = None
    bundle: str = ""
    evidence: str = ""
    bucket: str = ""

    @property
    def id(self) -> str:
        """The same failure of the same thing has the same id, however often it is met."""
        named = self.version.identity if self.version else (self.evidence or self.bundle, self.detail)
        subject = (self.bucket, *named) if self.bucket else named
        return hashlib.sha256("\0".join((self.reason, *subject)).encode(errors="surrogatepass")).hexdigest()[:20]


def reason_for(error: NeveError) -> Reason:
    """Why a version is parked whose reading failed with `error`."""
    return next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))


_REASONS: dict[type[NeveError], Reason] = {
    SourceGone: Reason.SOURCE_GONE,
    SourceChanged: Reason.SOURCE_CHANGED,
    SourceDenied: Reason.SOURCE_DENIED,
    SourceUnfit: Reason.SOURCE_UNFIT,
    SourceUnproven: Reason.UNPROVEN,
    SourceLost: Reason.LOST,
    SourceDamaged: Reason.SOURCE_DAMAGED,
    Transient: Reason.SOURCE_UNREADABLE,
}
