"""The list of an archive's members: what it holds, how it is written down, and how it is read back (docs/format.md)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, NoReturn, cast

from neve.domain.names import FOLDER, MAX_KEY_BYTES, is_safe
from neve.domain.version import pin_of
from neve.errors import ManifestInvalid

CONTENTS_FORMAT = "neve-archive"
"""The document inside the tar, MANIFEST.json. It cannot hold the hash of the tar that holds it."""

MANIFEST_FORMAT = "neve-manifest"
"""The object beside the archive, manifests/<serial>.json."""

VERSION = 1
"""Of both documents. It changes when a reader of the old version would be misled, not when a field is added."""

BLOCK_BYTES = 512

Kind = Literal["tar", "object"]
"""`tar`: a bundle of members. `object`: one large object as it is."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


def archive_key(archive: int, kind: Kind) -> str:
    """The object key of an archive: archives/0000000017.tar or archives/0000000018.object."""
    return f"archives/{archive:010d}.{kind}"


def manifest_key(archive: int) -> str:
    """The object key of an archive's manifest: manifests/0000000017.json."""
    return f"manifests/{archive:010d}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One fetched object version, before it has a place in an archive.

    sha256 and md5 are lower-case hexadecimal, of the bytes as they were read; empty only for a large object that is
    archived as it is and whose bytes never passed through neve. etag is without quotes. checksums are what S3 states
    of the source, by algorithm, in S3's own base64: {"CRC64NVME": "..."}; a composite one ends in "-<parts>".

    The other fields are the response headers of GetObject that a restore sets again, as S3 returned them; empty means
    that S3 returned none, and storage_class empty means STANDARD. expires is the text S3 returned.

    Raises ManifestInvalid, naming field and key, if a field cannot be written down.
    """

    key: str
    version_id: str
    size_bytes: int
    etag: str
    last_modified: datetime
    sha256: str = ""
    md5: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    expires: str = ""
    website_redirect: str = ""
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = ""
    encryption: str = ""
    kms_key_id: str = ""

    def __post_init__(self) -> None:
        where = f"member {self.key!r}"
        for name in _TEXTS:
            _require_text(getattr(self, name), name, where)
        for name in _MAPPINGS:
            for label, value in getattr(self, name).items():
                _require_text(label, name, where)
                _require_text(value, name, where)
        if not 0 < len(self.key.encode()) <= MAX_KEY_BYTES:
            _refuse("key", f"must have 1 to {MAX_KEY_BYTES} bytes", where)
        for name in ("version_id", "etag"):
            if not getattr(self, name):
                _refuse(name, "must not be empty", where)
        if self.size_bytes < 0:
            _refuse("size_bytes", "must not be negative", where)
        if self.last_modified.tzinfo is None or not _EARLIEST <= self.last_modified < _LATEST:
            _refuse("last_modified", "must name its time zone and lie between the years 1970 and 9998", where)
        _require_hash(self.sha256, _SHA256, "sha256", where)
        _require_hash(self.md5, _MD5, "md5", where)

    @property
    def pin(self) -> str:
        """What names these bytes among all versions of the key; as ObjectVersion.pin."""
        return pin_of(self.version_id, self.etag)

    @property
    def identity(self) -> tuple[str, str]:
        """(key, pin)."""
        return (self.key, self.pin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A source and its place: the number in the archive from 0, the path in the tar, and where its first byte is.

    For kind `object` number and offset are 0 and the name is empty.
    """

    source: Source
    number: int
    name: str
    offset_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a tar says of itself in MANIFEST.json.

    `supersedes` is the serial of a damaged archive that this one stands for. Raises ManifestInvalid if the members are
    not those of a tar: sorted by (key, pin), each once, numbered from 0, one after the other, each with its hashes.
    """

    archive: int
    bucket: str
    members: tuple[Member, ...]
    supersedes: int | None = None

    def __post_init__(self) -> None:
        _require_head(self.archive, self.bucket, self.members, self.supersedes)
        names: set[str] = set()
        free = 2 * BLOCK_BYTES  # MANIFEST.json comes first: its header, and at least one block of it
        for number, member in enumerate(self.members):
            where = f"member {member.source.key!r}"
            if member.number != number:
                _refuse("number", f"must be {number}, not {member.number}", where)
            if not is_safe(member.name) or member.name in names:
                _refuse("name", f"must be a safe path of its own under {FOLDER}/, not {member.name!r}", where)
            names.add(member.name)
            if not member.source.sha256 or not member.source.md5:
                _refuse("sha256, md5", "must not be empty in a tar", where)
            if member.offset_bytes % BLOCK_BYTES or member.offset_bytes < free + BLOCK_BYTES:
                _refuse("offset_bytes", f"{member.offset_bytes} is no block behind the member before", where)
            free = member.offset_bytes + padded(member.source.size_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An archive: the object that holds it, the proof of that object's bytes, and its members.

    Exactly one of object_sha256 (hexadecimal) and object_crc64nvme (base64, as S3 states it) is set; the latter only
    for kind `object`, where S3 has no SHA-256 of the whole above 5 GB. Raises ManifestInvalid.
    """

    archive: int
    bucket: str
    kind: Kind
    object_key: str
    object_size_bytes: int
    object_sha256: str = ""
    object_crc64nvme: str = ""
    members: tuple[Member, ...]
    supersedes: int | None = None

    def __post_init__(self) -> None:
        where = f"archive {self.archive}"
        _require_text(self.object_key, "object_key", where)
        if not 0 < len(self.object_key.encode()) <= MAX_KEY_BYTES:
            _refuse("object_key", f"must have 1 to {MAX_KEY_BYTES} bytes", where)
        _require_hash(self.object_sha256, _SHA256, "object_sha256", where)
        if self.object_crc64nvme and not _is_crc64(self.object_crc64nvme):
            _refuse("object_crc64nvme", "must be base64 of 8 bytes", where)
        if bool(self.object_sha256) == bool(self.object_crc64nvme):
            _refuse("object_sha256, object_crc64nvme", "exactly one must be given", where)
        if self.kind == "tar":
            self._require_tar(where)
        elif self.kind == "object":
            self._require_single(where)
        else:
            _refuse("kind", f"must be tar or object, not {self.kind!r}", where)

    @property
    def contents(self) -> Contents:
        """What this archive, a tar, says of itself. Raises ManifestInvalid for kind `object`."""
        return Contents(archive=self.archive, bucket=self.bucket, members=self.members, supersedes=self.supersedes)

    def _require_tar(self, where: str) -> None:
        if not self.object_sha256:
            _refuse("object_sha256", "must be given for a tar", where)
        last = self.contents.members[-1]
        end = last.offset_bytes + padded(last.source.size_bytes) + 2 * BLOCK_BYTES
        if self.object_size_bytes != end:
            _refuse("object_size_bytes", f"is {self.object_size_bytes}, but its last member implies {end}", where)

    def _require_single(self, where: str) -> None:
        _require_head(self.archive, self.bucket, self.members, self.supersedes)
        member = self.members[0]
        if len(self.members) != 1 or member.number != 0 or member.name or member.offset_bytes != 0:
            _refuse("members", "must be one, number 0 at offset 0 without a name, for kind object", where)
        if member.source.size_bytes != self.object_size_bytes:
            _refuse("size_bytes", "must be the size of the archive's object", f"member {member.source.key!r}")
        if member.source.sha256 and self.object_sha256 and member.source.sha256 != self.object_sha256:
            _refuse("sha256", "must be that of the archive's object", f"member {member.source.key!r}")


def single(*, archive: int, bucket: str, object_key: str, source: Source, supersedes: int | None = None) -> Manifest:
    """The manifest of one large object archived as it is.

    Its proof is source.sha256 if there is one, else S3's full-object CRC64NVME in source.checksums. Raises
    ManifestInvalid if there is neither.
    """
    return Manifest(
        archive=archive,
        bucket=bucket,
        kind="object",
        object_key=object_key,
        object_size_bytes=source.size_bytes,
        object_sha256=source.sha256,
        object_crc64nvme="" if source.sha256 else source.checksums.get("CRC64NVME", ""),
        members=(Member(source=source, number=0, name="", offset_bytes=0),),
        supersedes=supersedes,
    )


def padded(size_bytes: int) -> int:
    """`size_bytes` rounded up to whole tar blocks."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


# Writing. ASCII only: no editor, terminal or locale can change what a key says, and keys that differ in their Unicode
# normalization alone stay visibly different. Keys of each object are sorted, and each member has a line of its own.

_encode = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(", ", ": "), allow_nan=False).encode


def render_contents(*, archive: int, bucket: str, members: Iterable[Member], supersedes: int | None = None) -> bytes:
    """MANIFEST.json, ASCII, without the padding and the newline that end it in the tar."""
    head = {"archive": archive, "bucket": bucket, "format": CONTENTS_FORMAT, "version": VERSION}
    return _document(head, members, supersedes)


def render_manifest(manifest: Manifest) -> bytes:
    """The manifest object, ASCII. Inverse: parse_manifest."""
    head: dict[str, Any] = {
        "archive": manifest.archive,
        "bucket": manifest.bucket,
        "format": MANIFEST_FORMAT,
        "kind": manifest.kind,
        "object_key": manifest.object_key,
        "object_size_bytes": manifest.object_size_bytes,
        "version": VERSION,
    }
    if manifest.object_sha256:
        head["object_sha256"] = manifest.object_sha256
    else:
        head["object_crc64nvme"] = manifest.object_crc64nvme
    return _document(head, manifest.members, manifest.supersedes) + b"\n"


def render_source(source: Source) -> str:
    """One source as JSON, with the names it has in a manifest. Inverse: parse_source."""
    return _encode(_source_fields(source))


def _document(head: dict[str, Any], members: Iterable[Member], supersedes: int | None) -> bytes:
    if supersedes is not None:
        head["supersedes"] = supersedes
    scalars = "".join(f"{_encode(name)}: {_encode(head[name])},\n" for name in sorted(head))
    lines = ",\n".join(_encode(_member_fields(member)) for member in members)
    return f'{{\n{scalars}"members": [\n{lines}\n]}}'.encode("ascii")


def _member_fields(member: Member) -> dict[str, Any]:
    place = {"name": member.name, "number": member.number, "offset_bytes": member.offset_bytes}
    return place | _source_fields(member.source)


def _source_fields(source: Source) -> dict[str, Any]:
    written: dict[str, Any] = {
        "etag": source.etag,
        "key": source.key,
        "last_modified": _time_text(source.last_modified),
        "size_bytes": source.size_bytes,
        "version_id": source.version_id,
    }
    for name in _OPTIONAL_TEXTS:
        value = getattr(source, name)
        if value:
            written[name] = value
    for name in _MAPPINGS:
        value = getattr(source, name)
        if value:
            written[name] = dict(value)
    return written


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Reading.


def parse_contents(data: bytes) -> Contents:
    """The Contents in the bytes of a MANIFEST.json. Raises ManifestInvalid."""
    document = _load(data, CONTENTS_FORMAT)
    return Contents(
        archive=_number(document, "archive", "the document"),
        bucket=_text(document, "bucket", "the document"),
        members=_members(document),
        supersedes=_supersedes(document),
    )


def parse_manifest(data: bytes) -> Manifest:
    """The Manifest in the bytes of a manifest object. Raises ManifestInvalid.

    Fields that this version does not know are ignored; a document of a newer version is refused.
    """
    document = _load(data, MANIFEST_FORMAT)
    where = "the document"
    return Manifest(
        archive=_number(document, "archive", where),
        bucket=_text(document, "bucket", where),
        kind=cast("Kind", _text(document, "kind", where)),
        object_key=_text(document, "object_key", where),
        object_size_bytes=_number(document, "object_size_bytes", where),
        object_sha256=_optional_text(document, "object_sha256", where),
        object_crc64nvme=_optional_text(document, "object_crc64nvme", where),
        members=_members(document),
        supersedes=_supersedes(document),
    )


def parse_source(text: str) -> Source:
    """The source that render_source wrote. Raises ManifestInvalid."""
    entry = _json(text.encode())
    if not isinstance(entry, dict):
        _refuse("the document", "must be an object", "it")
    return _source(entry, f"source {entry.get('key')!r}")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"the document is not JSON in UTF-8: {error}") from error


def _load(data: bytes, expected: str) -> dict[str, Any]:
    document = _json(data)
    if not isinstance(document, dict):
        _refuse("the document", "must be an object", "it")
    if document.get("format") != expected:
        _refuse("format", f"must be {expected!r}, not {document.get('format')!r}", "the document")
    version = _number(document, "version", "the document")
    if version > VERSION:
        _refuse("version", f"{version} is newer than {VERSION}, which this neve reads: use a newer one", "the document")
    if version < 1:
        _refuse("version", f"must be 1 or more, not {version}", "the document")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return built


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _members(document: Mapping[str, Any]) -> tuple[Member, ...]:
    listed = document.get("members")
    if not isinstance(listed, list):
        _refuse("members", "must be a list", "the document")
    return tuple(_member(entry, position) for position, entry in enumerate(listed))


def _member(entry: object, position: int) -> Member:
    if not isinstance(entry, dict):
        _refuse("members", "must hold objects only", f"member {position}")
    where = f"member {entry.get('key', position)!r}"
    return Member(
        source=_source(entry, where),
        number=_number(entry, "number", where),
        name=_text(entry, "name", where),
        offset_bytes=_number(entry, "offset_bytes", where),
    )


def _source(entry: Mapping[str, Any], where: str) -> Source:
    optional: dict[str, Any] = {name: _optional_text(entry, name, where) for name in _OPTIONAL_TEXTS}
    optional |= {name: _mapping(entry, name, where) for name in _MAPPINGS}
    return Source(
        key=_text(entry, "key", where),
        version_id=_text(entry, "version_id", where),
        size_bytes=_number(entry, "size_bytes", where),
        etag=_text(entry, "etag", where),
        last_modified=_moment(entry, where),
        **optional,
    )


def _number(entry: Mapping[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if type(value) is not int:
        _refuse(name, f"must be an integer, not {value!r}", where)
    return value


def _supersedes(document: Mapping[str, Any]) -> int | None:
    return _number(document, "supersedes", "the document") if "supersedes" in document else None


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        _refuse(name, f"must be a string, not {value!r}", where)
    return value


def _optional_text(entry: Mapping[str, Any], name: str, where: str) -> str:
    return _text(entry, name, where) if name in entry else ""


def _mapping(entry: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    value = entry.get(name, {})
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        _refuse(name, f"must be an object of strings, not {value!r}", where)
    return value


def _moment(entry: Mapping[str, Any], where: str) -> datetime:
    text = _text(entry, "last_modified", where)
    try:
        moment = datetime.fromisoformat(text)
        canonical = moment.tzinfo is not None and _time_text(moment) == text
    except (ValueError, OverflowError):
        canonical = False
    if not canonical:
        _refuse("last_modified", f"must be as 2026-11-22T10:00:00Z, not {text!r}", where)
    return moment


# What both sides require.


def _require_head(archive: int, bucket: str, members: Sequence[Member], supersedes: int | None) -> None:
    where = f"archive {archive}"
    if archive < 1:
        _refuse("archive", "must be 1 or more", where)
    if supersedes is not None and not 1 <= supersedes < archive:
        _refuse("supersedes", "must be the serial of an earlier archive", where)
    _require_text(bucket, "bucket", where)
    if not bucket:
        _refuse("bucket", "must not be empty", where)
    if not members:
        _refuse("members", "must not be empty", where)
    for earlier, later in pairwise(members):
        if earlier.source.identity >= later.source.identity:
            _refuse("members", "must be sorted by (key, pin), each once", f"member {later.source.key!r}")


def _require_text(value: str, name: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ManifestInvalid(f"{where}: {name} holds half a surrogate pair, which no UTF-8 can hold") from error


def _require_hash(value: str, shape: re.Pattern[str], name: str, where: str) -> None:
    if value and not shape.fullmatch(value):
        _refuse(name, f"must be lower-case hexadecimal of its length, not {value!r}", where)


def _is_crc64(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 8
    except (binascii.Error, ValueError):
        return False


def _refuse(name: str, problem: str, where: str) -> NoReturn:
    raise ManifestInvalid(f"{where}: {name} {problem}")


_MAPPINGS = ("checksums", "tags", "user_metadata")
_OPTIONAL_TEXTS = tuple(
    each.name
    for each in fields(Source)
    if each.name not in {*_MAPPINGS, "key", "version_id", "size_bytes", "etag", "last_modified"}
)
_TEXTS = ("key", "version_id", "etag", *_OPTIONAL_TEXTS)
