"""What an operator types to say which files are wanted and where they go, read into data; nothing is looked up here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import translate
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

from neve.domain.index import FileRow, newest
from neve.domain.layout import Layout, application_key, content_key
from neve.domain.names import FOLDER, natural_path
from neve.domain.version import KEY_LIMIT

CONTENT = "content"
UPLOADS = "uploads"
LOCAL = "file:"
S3 = "s3://"

PATH_BYTES = 4_095
"""Linux: a path has at most 4,096 bytes with the NUL that ends it."""

_VERSION = "?versionId="
_URL = re.compile(r"https?://", re.IGNORECASE)
_SERIAL = re.compile(r"[1-9][0-9]{0,11}")
_MEMBER = re.compile(r"([1-9][0-9]{0,11})\.(0|[1-9][0-9]{0,5})")
_GLOB = re.compile(r"[*?]|\[!?+.[^\]]*\]", re.DOTALL)
"""As fnmatch has it: a bracket that nothing closes is a bracket."""


class SelectionInvalid(ValueError):
    """What was typed names no source or no destination; the message says why, and what would."""


# -- Sources ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class OneKey:
    """One version of a key: that with `version_id`, or the newest archived, or the newest that is as old as `at`."""

    key: str
    version_id: str = ""
    at: datetime | None = None

    def chosen(self, versions: Iterable[FileRow]) -> FileRow | None:
        """Which of the key's archived versions is meant; None if none is."""
        if self.version_id:
            return newest(row for row in versions if row.version_id == self.version_id)
        return current(versions, self.at)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyKeys:
    """Every key that begins with `prefix` and matches `pattern` ("" for all): of each the newest version, as OneKey."""

    prefix: str
    pattern: str = ""
    at: datetime | None = None

    def matches(self, key: str) -> bool:
        """Whether `key`, which begins with the prefix, is meant."""
        return not self.pattern or _compiled(self.pattern).match(key) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeArchive:
    """Every member of an archive."""

    archive: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OneMember:
    """The member `number` of an archive: a file's id."""

    archive: int
    number: int


Source = OneKey | ManyKeys | WholeArchive | OneMember


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A source that was read. If what it is was guessed from its look, `guessed` says so in explicit form, and `text`
    is the key that would make it ambiguous; else `guessed` is "".
    """

    source: Source
    text: str
    guessed: str = ""


def current(versions: Iterable[FileRow], at: datetime | None) -> FileRow | None:
    """The newest of a key's archived versions; `at` a time: the newest of those last modified by then."""
    return newest(row for row in versions if at is None or row.last_modified <= at)


def parse_time(text: str) -> datetime:
    """The moment that an ISO 8601 text names; without a zone it is UTC, and a date alone is its first moment."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SelectionInvalid(
            f"{text!r} is no time: write it as 2026-11-22T14:30:00 (UTC), 2026-11-22T14:30:00+01:00 or 2026-11-22"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_source(text: str, places: Places, *, version_id: str = "", at: datetime | None = None) -> Selection:
    """The source that `text` names. Raises SelectionInvalid.

    `version_id` and `at` are what was said about it besides; a source that names its versions itself takes neither.
    """
    selection = _parse_source(text, places, pinned=bool(version_id))
    source = selection.source
    if not version_id and not at:
        return selection
    if isinstance(source, OneKey):
        if version_id and source.version_id not in ("", version_id):
            raise SelectionInvalid(f"two versions are named: {source.version_id} and {version_id}")
        version_id = version_id or source.version_id
        if version_id and at:
            raise SelectionInvalid("either a version or a time: a version is the same at all times")
        return replace(selection, source=replace(source, version_id=version_id, at=at))
    if version_id:
        raise SelectionInvalid(f"a version belongs to one key: write key:{text} if that is one")
    if isinstance(source, ManyKeys):
        return replace(selection, source=replace(source, at=at))
    raise SelectionInvalid("an archive's members are versions: the time makes no difference, leave it out")


def as_of(selection: Selection, at: datetime) -> Selection:
    """The same as it was at a time, unless it says itself which versions are meant."""
    source = selection.source
    if isinstance(source, ManyKeys) or (isinstance(source, OneKey) and not source.version_id):
        return replace(selection, source=replace(source, at=source.at or at))
    return selection


def _parse_source(text: str, places: Places, *, pinned: bool) -> Selection:
    _require_text(text, "source")
    form, colon, rest = text.partition(":")
    if colon and form in _EXPLICIT:
        return Selection(source=_EXPLICIT[form](rest), text=rest)
    if text.startswith(S3):
        return _s3_source(text, places, pinned=pinned)
    if _URL.match(text):
        key = _stored(_key_of_url(text, places.site_urls), places.layout)
        return Selection(source=_key(key), text=key)
    if not pinned and _SERIAL.fullmatch(text):
        return Selection(source=_archive(text), text=text, guessed=f"archive:{text}")
    if not pinned and _MEMBER.fullmatch(text):
        return Selection(source=_member(text), text=text, guessed=f"id:{text}")
    return _by_look(text, pinned=pinned)


def _s3_source(text: str, places: Places, *, pinned: bool) -> Selection:
    bucket, _, rest = text.removeprefix(S3).partition("/")
    if bucket != places.content_bucket:
        raise SelectionInvalid(f"files come from the content bucket, s3://{places.content_bucket}/, not {bucket!r}")
    if not rest:
        raise SelectionInvalid(f"no key is named; s3://{bucket}/* are all")
    if _VERSION not in rest:
        return _by_look(rest, pinned=pinned)
    key, _, version_id = rest.rpartition(_VERSION)
    return Selection(source=_key(key, version_id), text=key)


def _by_look(text: str, *, pinned: bool) -> Selection:
    """A glob, a prefix or a key, by its look. One with a version is a key, whatever it looks like."""
    if not pinned and _GLOB.search(text):
        return Selection(source=_glob(text), text=text, guessed=f"glob:{text}")
    if not pinned and text.endswith("/"):
        return Selection(source=_prefix(text), text=text, guessed=f"prefix:{text}")
    return Selection(source=_key(text), text=text)


def _key(key: str, version_id: str = "") -> OneKey:
    if not 0 < len(key.encode()) <= KEY_LIMIT:
        raise SelectionInvalid(f"a key has 1 to {KEY_LIMIT:,} bytes, this one has {len(key.encode()):,}")
    return OneKey(key=key, version_id=version_id)


def _prefix(text: str) -> ManyKeys:
    return ManyKeys(prefix=text)


def _glob(text: str) -> ManyKeys:
    wild = _GLOB.search(text)
    return ManyKeys(prefix=text[: wild.start()] if wild else text, pattern=text)


def _archive(text: str) -> WholeArchive:
    if not _SERIAL.fullmatch(text):
        raise SelectionInvalid(f"{text!r} is no archive's number, such as 17")
    return WholeArchive(archive=int(text))


def _member(text: str) -> OneMember:
    found = _MEMBER.fullmatch(text)
    if not found:
        raise SelectionInvalid(f"{text!r} is no file's id: an archive and a number in it, such as 17.3")
    return OneMember(archive=int(found[1]), number=int(found[2]))


_EXPLICIT: dict[str, Callable[[str], Source]] = {
    "key": _key,
    "prefix": _prefix,
    "glob": _glob,
    "archive": _archive,
    "id": _member,
}


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


# -- The site's URLs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteUrl:
    """URLs that begin with `scheme`://`host``path` name keys: `key_prefix` and what follows. `path` ends in a slash."""

    scheme: str
    host: str
    path: str
    key_prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


def parse_site_urls(text: str) -> tuple[SiteUrl, ...]:
    """The prefixes of URLs in the setting site_urls: separated by commas, each with =key-prefix or without."""
    return tuple(_site_url(each.strip()) for each in text.split(",") if each.strip() not in ("", "-"))


def _site_url(text: str) -> SiteUrl:
    url, _, key_prefix = text.partition("=")
    scheme, host, path = _url(url)
    return SiteUrl(scheme=scheme, host=host, path=path if path.endswith("/") else path + "/", key_prefix=key_prefix)


def _key_of_url(url: str, site_urls: Iterable[SiteUrl]) -> str:
    """The key that a URL of the site names; query and fragment do not count."""
    scheme, host, path = _url(url)
    fitting = [each for each in site_urls if (each.scheme, each.host) == (scheme, host) and path.startswith(each.path)]
    if not fitting:
        known = ", ".join(map(str, site_urls)) or "none"
        raise SelectionInvalid(f"no prefix of the setting site_urls fits; there are: {known}")
    site = max(fitting, key=lambda each: len(each.path))
    return site.key_prefix + path.removeprefix(site.path)


def _stored(key: str, layout: Layout) -> str:
    """Where the file lies that a URL names by `key`: the application's, or, on a name of the CDN, that of its place."""
    if not key or application_key(key, layout) is not None:
        return key
    try:
        return content_key(key, layout)
    except ValueError as error:
        raise SelectionInvalid(str(error)) from error


def _url(text: str) -> tuple[str, str, str]:
    """(scheme, host, path) of a URL, scheme and host in lower case, the path percent-decoded."""
    try:
        parts = urlsplit(text)
        return parts.scheme, parts.netloc.lower(), unquote_to_bytes(parts.path).decode()
    except ValueError as error:
        raise SelectionInvalid(f"{text!r} is no URL that can be read: {error}") from error


# -- Destinations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """What the deployed stack says of sources and destinations.

    `destination_buckets` are those that restores may write to, `uploads_bucket` among them. `layout` tells where in the
    content bucket the files lie that `site_urls` name, and what they are called in the uploads bucket.
    """

    content_bucket: str
    destination_buckets: frozenset[str]
    uploads_bucket: str
    site_urls: tuple[SiteUrl, ...] = ()
    layout: Layout = Layout.AS_IS


@dataclass(frozen=True, kw_only=True, slots=True)
class InBucket:
    """A bucket. `key` is that of one file if `exact`, else what stands before each file's own key.

    Its own is the application's where `layout` is that of the content bucket: for what is uploaded anew.
    """

    bucket: str
    key: str = ""
    exact: bool = False
    layout: Layout = Layout.AS_IS

    def place(self, key: str) -> str:
        """Where the file with `key` goes, as s3://bucket/key. Raises SelectionInvalid if S3 has no such key.

        A file from before the layout was set lies under the application's key as it is.
        """
        whole = self.key if self.exact else self.key + (application_key(key, self.layout) or key)
        if len(whole.encode()) > KEY_LIMIT:
            raise SelectionInvalid(f"the key would have more than {KEY_LIMIT:,} bytes: {whole[:60]}...")
        return f"{S3}{self.bucket}/{whole}"


@dataclass(frozen=True, kw_only=True, slots=True)
class InFolder:
    """A local folder, or one file if `exact`. `path` is as it was typed, without a form."""

    path: str
    exact: bool = False


Destination = InBucket | InFolder


def parse_destination(text: str, places: Places, is_folder: Callable[[str], bool]) -> Destination:
    """The destination that `text` names; `is_folder` says whether a local path is an existing folder.

    Raises SelectionInvalid, also if the stack may not write there.
    """
    _require_text(text, "destination")
    if text == CONTENT:
        return _allowed(InBucket(bucket=places.content_bucket), places)
    if text == UPLOADS:
        return _allowed(InBucket(bucket=places.uploads_bucket, layout=places.layout), places)
    if text.startswith(S3):
        bucket, _, key = text.removeprefix(S3).partition("/")
        if _VERSION in key:
            raise SelectionInvalid("a destination has no version: S3 gives it one")
        layout = places.layout if bucket == places.uploads_bucket else Layout.AS_IS
        exact = bool(key) and not key.endswith("/")
        return _allowed(InBucket(bucket=bucket, key=key, exact=exact, layout=layout), places)
    path = text.removeprefix(LOCAL)
    if path == text and not text.startswith((".", "/", "~")) and not text.endswith("/") and not is_folder(text):
        raise SelectionInvalid(
            f"{text!r} is no destination: content, uploads, s3://bucket/prefix/, or a local path (./{text})"
        )
    if not path or "\0" in path:
        raise SelectionInvalid("file: is followed by the path of a folder or a file")
    return InFolder(path=path, exact=not path.endswith("/") and not is_folder(path))


def _allowed(destination: InBucket, places: Places) -> InBucket:
    if destination.bucket not in places.destination_buckets:
        raise SelectionInvalid(
            f"the stack may not write to the bucket {destination.bucket!r}: add it to the setting restore_buckets "
            "and deploy again"
        )
    return destination


def folder_path(key: str) -> str:
    """The path below a local folder that a key gets if no other file is in its way; as inside an archive."""
    return natural_path(key).removeprefix(f"{FOLDER}/")


def _require_text(text: str, what: str) -> None:
    if not text:
        raise SelectionInvalid(f"the {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SelectionInvalid(f"the {what} is not UTF-8") from error
