"""What a request for a file is answered with, given what is known about it, and what to look up if that is too little.

The order of the look-ups is what keeps a file that is being moved from being called unknown. A file is uploaded, then
copied, then its pointer flips, and only then the upload goes. So whoever finds no pointer looks for the upload; if that
has gone in between, the pointer was there before, and is found when it is read once more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

from neve.domain.layout import Layout, content_key
from neve.domain.pointer import InContent, OnHost, Pointer
from neve.domain.upload import RESERVED
from neve.domain.version import KEY_LIMIT

RETRY_AFTER_S = 5
"""After a look-up that failed: throttling and short outages of AWS last about as long."""

METHODS = ("GET", "HEAD")

_NEVER_STORED = "no-store"
_NEVER_SHARED = "private, no-store"

_LEVELS = "../../"

_HOST_URL = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+(?:/[!-~]*)?")
"""Nothing but a host and a path: no name of a user that could pass for a host, no blank, nothing that ends a header."""
_QUERY_SAFE = "!$&'()*+,;=:@/?%[]|"
"""What stays as it is in a query string, beside letters, digits and -._~."""


# -- What is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for the file that the application calls `key`; `query` is the query string as it came."""

    key: str
    query: str = ""
    head: bool = False


class PathRefused(ValueError):
    """The path of a request names no file; the message says why."""


class PathAmbiguous(PathRefused):
    """Browsers, caches and S3 do not agree on which file the path names."""


def key_of(path: str) -> str:
    """The key that the path of a URL names: percent-decoded exactly once, without its first slash.

    `path` is as the client sent it. Raises PathAmbiguous if it has dot segments: what lies behind `a/../b` is `b` for
    a browser and for the rules of a CDN, and another key for S3, so that a signature asked for the one could be
    avoided by asking for the other. Raises PathRefused for what no key of S3 can be, and for neve's own.
    """
    try:
        key = unquote_to_bytes(path.removeprefix("/")).decode()
    except UnicodeError:  # a surrogate in `path`, or bytes that are not UTF-8
        raise PathRefused("the path is not UTF-8") from None
    if not 0 < len(key.encode()) <= KEY_LIMIT:
        raise PathRefused(f"a path names a file by 1 to {KEY_LIMIT} bytes")
    if key.startswith(RESERVED):
        raise PathRefused(f"what begins with {RESERVED} is no file of the site")
    if has_dot_segments(key):
        raise PathAmbiguous("a path with . or .. between slashes names no file here")
    return key


def has_dot_segments(key: str) -> bool:
    """Whether a URL with this key would be another one for who removes dot segments (RFC 3986, 5.2.4)."""
    return not {".", ".."}.isdisjoint(key.split("/"))


def path_of(key: str) -> str:
    """The path of a URL that names `key`. Inverse of key_of where that does not refuse it, as what is not UTF-8."""
    return "/" + quote(key, errors="surrogatepass")


# -- How the site serves ---------------------------------------------------------------------------------------------


def by_key(bases: Sequence[str], key: str) -> str:
    """The same of `bases` for a key each time; with one more, only the files that move to it change their place.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998 (rendezvous hashing).
    """
    return max(bases, key=lambda base: hashlib.sha256(f"{base}\n{key}".encode()).digest())


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a site serves its files.

    `cdn_bases` are URLs without a slash at the end; with none of them, all that lies in the content bucket is signed,
    as are files whose keys begin with one of `private_prefixes`. `choose` takes one of the bases for a key. `restores`
    says that a file which only the archive has is brought back for who asks for it.
    """

    layout: Layout
    cdn_bases: Sequence[str]
    private_prefixes: Sequence[str] = ()
    choose: Callable[[Sequence[str], str], str] = by_key
    restores: bool = False
    redirect_max_age_s: int
    upload_url_s: int
    signed_url_s: int

    def is_private(self, key: str) -> bool:
        """Whether the file is handed out by signed URLs only.

        So is what the CDN refuses because it looks like a private file: slashes that stand together count as one, and
        none at the beginning, as for who cleans up URLs; and two levels of two characters may stand before a prefix, as
        the layout `hashed` puts them.
        """
        spellings = [key, re.sub("/+", "/", key).removeprefix("/")]
        spellings += [each[len(_LEVELS) :] for each in spellings if re.match(_LEVELS, each, re.DOTALL)]
        return any(each.startswith(tuple(self.private_prefixes)) for each in spellings)

    def is_signed(self, key: str) -> bool:
        """Whether a file in the content bucket is reached by a signed URL."""
        return not self.cdn_bases or self.is_private(key)

    def cdn_url(self, stored: str) -> str:
        """The URL, on one of the CDN's names, of the file that lies at `stored` in the content bucket."""
        return self.choose(self.cdn_bases, stored) + path_of(stored)


# -- What is answered ------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What an answer is, as the log and the metrics call it."""

    CDN = "to_cdn"
    HOST = "to_host"
    UPLOAD = "to_upload"
    SIGNED = "to_signed"
    RESTORING = "restoring"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    NOT_ALLOWED = "not_allowed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer. `to_sign`, a key of the bucket that `kind` means, is what a location is still to be made of."""

    kind: Kind
    status: int
    cache_control: str
    location: str = ""
    to_sign: str = ""
    lifetime_s: int = 0
    retry_after_s: int = 0
    text: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of the answer."""
        fields = {"Cache-Control": self.cache_control, "Content-Type": "text/plain; charset=utf-8", **self.more}
        if self.location:
            fields["Location"] = self.location
        if self.retry_after_s:
            fields["Retry-After"] = str(self.retry_after_s)
        return fields


def unknown(why: str = "there is no such file") -> Answer:
    """404. It is kept nowhere: the file may be about to arrive."""
    return Answer(kind=Kind.UNKNOWN, status=404, cache_control=_NEVER_STORED, text=why)


def refused(why: str) -> Answer:
    """400: the request names no file, or more than one."""
    return Answer(kind=Kind.REFUSED, status=400, cache_control=_NEVER_STORED, text=why)


def not_allowed() -> Answer:
    """405: files are only read here."""
    return Answer(
        kind=Kind.NOT_ALLOWED,
        status=405,
        cache_control=_NEVER_STORED,
        text="only GET and HEAD",
        more={"Allow": ", ".join(METHODS)},
    )


def failed(*, retry_after_s: int = RETRY_AFTER_S, text: str = "the file could not be looked up; try again") -> Answer:
    """503: nothing is known of the file, or it cannot be had now."""
    return Answer(kind=Kind.FAILED, status=503, cache_control=_NEVER_STORED, retry_after_s=retry_after_s, text=text)


def restoring(*, retry_after_s: int, text: str) -> Answer:
    """202: the file is being brought back from the archive."""
    return Answer(kind=Kind.RESTORING, status=202, cache_control=_NEVER_STORED, retry_after_s=retry_after_s, text=text)


# -- From what is known to what is answered --------------------------------------------------------------------------


class Look(StrEnum):
    """What to look up next."""

    POINTER = "pointer"
    UPLOAD = "upload"
    POINTER_AGAIN = "pointer again"
    CONTENT = "content"
    ARCHIVE = "archive"
    """In which archive it lies; if in one, it is brought back, and the answer is for the one to say who does that."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was found of a file so far. `looked` has the look-ups that were made; the others' results mean nothing."""

    looked: frozenset[Look] = frozenset()
    pointer: Pointer | None = None
    in_uploads: bool = False
    in_content: bool = False


def stored_at(key: str, pointer: Pointer | None, layout: Layout) -> str:
    """The key in the content bucket at which the file is looked for; "" if it can lie at none."""
    if isinstance(pointer, InContent):
        return pointer.content_key
    try:
        return content_key(key, layout)
    except ValueError:
        return ""


def pointed(key: str, pointer: Pointer | None, rules: Rules, *, query: str = "") -> Answer | None:
    """Where the pointer alone sends who asks for the file; None if it sends nowhere.

    A pointer to a host whose URL is no plain http or https URL sends nowhere.
    """
    if isinstance(pointer, InContent):
        return to_content(key, pointer.content_key, rules, query=query)
    if isinstance(pointer, OnHost) and _HOST_URL.fullmatch(pointer.url):
        cache = _NEVER_SHARED if rules.is_private(key) else _NEVER_STORED
        return Answer(kind=Kind.HOST, status=302, cache_control=cache, location=pointer.url)
    return None


def to_content(key: str, stored: str, rules: Rules, *, query: str = "") -> Answer:
    """302 to the file at `stored` in the content bucket. The query string goes to the CDN, and into no signed URL."""
    if rules.is_signed(key):
        return Answer(
            kind=Kind.SIGNED,
            status=302,
            cache_control=_NEVER_SHARED,
            to_sign=stored,
            lifetime_s=rules.signed_url_s,
        )
    asked = "?" + quote(query, safe=_QUERY_SAFE) if query else ""
    return Answer(
        kind=Kind.CDN,
        status=302,
        cache_control=f"public, max-age={rules.redirect_max_age_s}",
        location=rules.cdn_url(stored) + asked,
    )


def next_step(asked: Asked, known: Known, rules: Rules) -> Look | Answer:
    """The answer to a request, or what has to be looked up before there is one."""
    if Look.POINTER not in known.looked:
        return Look.POINTER
    pointer = known.pointer
    if rules.restores and isinstance(pointer, InContent):
        return _perhaps_archived(asked, known, rules)
    return pointed(asked.key, pointer, rules, query=asked.query) or _unpointed(asked, known, rules)


def _perhaps_archived(asked: Asked, known: Known, rules: Rules) -> Look | Answer:
    """The pointer names the content bucket, where somebody may have deleted the file since, to leave it to the archive.

    If so it may still be among the uploads.
    """
    if Look.CONTENT not in known.looked:
        return Look.CONTENT
    if known.in_content:
        return to_content(asked.key, stored_at(asked.key, known.pointer, rules.layout), rules, query=asked.query)
    if Look.UPLOAD not in known.looked:
        return Look.UPLOAD
    return _to_upload(asked.key, rules) if known.in_uploads else Look.ARCHIVE


def _unpointed(asked: Asked, known: Known, rules: Rules) -> Look | Answer:
    """No pointer sends anywhere: see the head of this module for the order."""
    if Look.UPLOAD not in known.looked:
        return Look.UPLOAD
    if known.in_uploads:
        return _to_upload(asked.key, rules)
    if Look.POINTER_AGAIN not in known.looked:
        return Look.POINTER_AGAIN
    return _unmoved(asked, known, rules)


def _unmoved(asked: Asked, known: Known, rules: Rules) -> Look | Answer:
    """Neither pointed to nor uploaded: it has lain in the content bucket without neve, or only in the archive."""
    stored = stored_at(asked.key, known.pointer, rules.layout)
    if stored and Look.CONTENT not in known.looked:
        return Look.CONTENT
    if known.in_content:
        return to_content(asked.key, stored, rules, query=asked.query)
    if known.pointer:  # some host has it, and nobody can say where
        return failed(text="the file lies on a host that cannot be reached by a URL")
    return Look.ARCHIVE if stored and rules.restores else unknown()


def _to_upload(key: str, rules: Rules) -> Answer:
    """302 to the upload, by a signed URL that ends before the upload can be let go."""
    return Answer(kind=Kind.UPLOAD, status=302, cache_control=_NEVER_SHARED, to_sign=key, lifetime_s=rules.upload_url_s)
