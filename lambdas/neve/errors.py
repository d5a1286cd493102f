"""Everything neve raises on purpose.

NeveError
├── SettingInvalid       a setting or an environment variable is missing or out of range
├── EventInvalid         a message is not what its queue carries; it is parked
├── ManifestInvalid      a stored manifest does not say what docs/format.md demands
├── PricesInvalid        a file of prices cannot be used; the message says why
├── PriceMissing         the prices at hand have none for something that is charged
├── InventoryInvalid     an S3 Inventory cannot be used; the message says why
├── ArchiveInvalid       a laid-out archive does not agree with its own manifest; nothing was sent
├── SourceUnavailable    a source version can never be read as announced; it is parked
│   ├── SourceGone       deleted, or never there
│   ├── SourceChanged    other bytes stand where the announced ones stood
│   ├── SourceDenied     the permission is missing, or the object itself is in a Glacier class
│   ├── SourceUnfit      what S3 says of it cannot be written into a manifest or an index
│   ├── SourceUnproven   S3 states nothing that proves a copy of it, and it is too large to be read
│   └── SourceLost       a repair finds no intact copy of it, wherever one might be
├── Asleep               an archive is in a Glacier class and not thawed
├── ArchiveUnreadable    an archive's object is gone, or shorter than its manifest says
├── OverCap              a thaw would cost more than the stack may spend in a day
├── MessageRefused       a queue takes this message at no time: it is too long, or holds what no message may
├── QueueDenied          a queue takes no message from here: the permission is missing, or the queue is not there
├── SourceDamaged        the bytes read do not have the checksum that S3 states for them
└── Transient            try again later: throttled, timed out, or a 5xx
    └── Busy             somebody else is at it, and has a lease
"""

from __future__ import annotations


class NeveError(Exception):
    """Base of all errors that neve raises on purpose."""


class SettingInvalid(NeveError):
    """A setting is missing or out of range; the message names it and the remedy."""


class EventInvalid(NeveError):
    """A message is not what its queue carries."""


class ManifestInvalid(NeveError):
    """A stored manifest does not follow docs/format.md."""


class PricesInvalid(NeveError):
    """A file of prices is not one, or has a price that cannot be."""


class PriceMissing(NeveError):
    """The price list has no price for something that is charged; the message names it."""


class InventoryInvalid(NeveError):
    """An S3 Inventory is not there, not complete, or lacks what reconciling needs."""


class ArchiveInvalid(NeveError):
    """A laid-out archive does not agree with its own manifest."""


class Asleep(NeveError):
    """The archive's object lies in a Glacier class and is not thawed (any more)."""


class ArchiveUnreadable(NeveError):
    """The archive's object is gone, or shorter than its manifest says."""


class OverCap(NeveError):
    """A thaw would cost more than the stack may spend in a day; the message has the figures."""


class MessageRefused(NeveError):
    """The queue refuses this message for its own sake: sent again it is refused again."""


class QueueDenied(NeveError):
    """Nothing can be sent to the queue from here until a person has seen to permissions, credentials or the queue."""


class SourceUnavailable(NeveError):
    """A source version can never be read as announced."""


class SourceGone(SourceUnavailable):
    """The version was deleted, or was never there."""


class SourceChanged(SourceUnavailable):
    """Other bytes stand where the announced ones stood."""


class SourceDenied(SourceUnavailable):
    """The permission is missing."""


class SourceFrozen(SourceDenied):
    """The object itself lies in a Glacier class, and is not thawed: no permission helps."""


class SourceUnfit(SourceUnavailable):
    """What S3 says of the version cannot be written into a manifest or an index."""


class SourceUnproven(SourceUnavailable):
    """S3 states no checksum that source and copy share, and the source is too large to be read and hashed."""


class SourceLost(SourceUnavailable):
    """A repair finds no copy that has the hash which the index states, or else the damaged archive's own list."""


class SourceDamaged(NeveError):
    """The bytes read do not have the checksum that S3 states for them."""


class Transient(NeveError):
    """Throttled, timed out, or a 5xx: the same call may succeed later."""


class Busy(Transient):
    """Somebody else is at it; their lease ends in `retry_after_s` seconds at the latest."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
