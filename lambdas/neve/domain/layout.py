"""The layout of the content bucket: under which key a file lies there that the application calls by its own."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from neve.domain.version import KEY_LIMIT

_LEVELS = 2
_DIGITS = 2
_ADDED = _LEVELS * (_DIGITS + 1)


class Layout(StrEnum):
    """`as-is`: the application's key. `hashed`: two levels of two hex digits of its SHA-256, then the whole key.

    Both are one to one. `hashed` spreads a site's files over 65,536 prefixes, whatever the application calls them.
    """

    AS_IS = "as-is"
    HASHED = "hashed"


def content_key(key: str, layout: Layout) -> str:
    """Where the file that the application calls `key` lies in the content bucket.

    Raises ValueError if S3 holds no such key: `hashed` adds 6 bytes to at most 1,024.
    """
    if layout is Layout.AS_IS:
        return key
    if len(key.encode()) + _ADDED > KEY_LIMIT:
        raise ValueError(f"with the layout hashed a key has at most {KEY_LIMIT - _ADDED} bytes: {key!r}")
    digits = hashlib.sha256(key.encode()).hexdigest()
    return f"{digits[:2]}/{digits[2:4]}/{key}"


def keys_at(stored: str) -> set[str]:
    """What the application may call the file at `stored`, by one layout or the other: its keys can meet."""
    return {key for layout in Layout if (key := application_key(stored, layout))}


def application_key(stored: str, layout: Layout) -> str | None:
    """What the application calls the file at `stored`; None if no file of the application can lie there."""
    if layout is Layout.AS_IS:
        return stored
    key = stored[_ADDED:]
    return key if key and content_key(key, layout) == stored else None
