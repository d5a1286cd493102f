"""Verdicts: an archive, its manifest and its sources held against each other.

Three witnesses state the hash of each member: the bytes in the thawed archive (A), the manifest (M), and the source in
the content bucket (S), hashed before the thaw and kept away from the archive. Two that agree name the third as the
culprit. What could not be read is never called different.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from neve.domain.digest import ArchiveDigest, Digest, agree, stated
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.manifest import Manifest, Member, Source
from neve.domain.version import NULL_VERSION

EVIDENCE_CHARACTERS = 300


class Verdict(StrEnum):
    """What an audit found of a member, or of a whole archive; from good to bad."""

    INTACT = "intact"
    SOURCE_GONE = "source gone"
    """The source was deleted; the archive holds what its manifest states."""
    SOURCE_CHANGED = "source changed"
    """As source gone: the version `null` was overwritten in place, as it may be."""
    UNREAD = "unread"
    """Archive or source could not be read, however often it was tried."""
    INDEX_WRONG = "index wrong"
    """The row of a file, or of the archive, contradicts what archive and manifest state, or is missing."""
    SOURCE_DAMAGED = "source damaged"
    MANIFEST_WRONG = "manifest wrong"
    CONTAINER_DAMAGED = "container damaged"
    """Every member is as it should be, but the object as a whole is not."""
    UNDECIDED = "undecided"
    """No two witnesses agree."""
    ARCHIVE_DAMAGED = "archive damaged"
    LOST = "lost"
    """The archive is damaged, and the source is gone."""


QUIET = frozenset({Verdict.INTACT, Verdict.SOURCE_GONE, Verdict.SOURCE_CHANGED})
"""Nobody needs to be told of these."""
DISCREPANCIES = frozenset(Verdict) - QUIET - {Verdict.UNREAD}
"""These are mailed. Unread has an alarm of its own: it is no difference."""
REPAIRABLE = DISCREPANCIES - {Verdict.SOURCE_DAMAGED}
"""What `neve audit repair` puts right, as far as intact bytes are left. A damaged source is restored, not archived."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`; intact if there is none."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.INTACT)


class Sight(StrEnum):
    """What became of the attempt to read a source."""

    READ = "read"
    GONE = "gone"
    CHANGED = "changed"
    UNREAD = "unread"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What was seen of a member's source; `digest` is there if it was read, `detail` says why if it was not."""

    sight: Sight
    digest: Digest | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A verdict that is not quiet: of the member `number` with this key and pin, or of the archive (key "")."""

    verdict: Verdict
    evidence: str
    key: str = ""
    pin: str = ""
    number: int = 0


# -- Judging ---------------------------------------------------------------------------------------------------------


NO_MANIFEST = "there is no manifest that can be read"
OTHER_KIND = "their hashes are of different kinds"


def judge(
    *, archive: Digest | None, manifest: Digest | None, source: Sighting, row: Digest | None = None
) -> tuple[Verdict, str]:
    """The verdict on one member, and the evidence: its bytes in the archive, in the manifest, at the source.

    None is a witness that is missing: the archive ends before the member, or the manifest does not list it. Where the
    source cannot speak, `row`, what the index states, decides which of the other two is wrong; it is never asked else.
    Hashes of different kinds are never called different: what cannot be compared with anything is unread.
    """
    source = _comparable(source, archive, manifest)
    same_am = _same(archive, manifest)
    if source.sight is not Sight.READ:
        return _without_source(archive, manifest, source, row, same_am=same_am)
    seen = source.digest
    same_ms, same_as = _same(manifest, seen), _same(archive, seen)
    evidence = f"archive {_short(archive)}, manifest {_short(manifest)}, source {_short(seen)}"
    pairs = (same_as, same_am, same_ms)
    if False not in pairs:  # two pairs that agree imply the third
        return (Verdict.INTACT, "") if pairs.count(True) >= 2 else (Verdict.UNREAD, f"{evidence}: {OTHER_KIND}")
    odd_one = (Verdict.MANIFEST_WRONG, Verdict.SOURCE_DAMAGED, Verdict.ARCHIVE_DAMAGED)
    agreeing = (verdict for verdict, same in zip(odd_one, pairs, strict=True) if same)
    return next(agreeing, Verdict.UNDECIDED), evidence


def _comparable(source: Sighting, archive: Digest | None, manifest: Digest | None) -> Sighting:
    """The sighting; an unread one instead if its hash can be held against neither archive nor manifest."""
    if source.digest is None:
        return source
    told = [agree(witness, source.digest) for witness in (archive, manifest) if witness is not None]
    return source if any(same is not None for same in told) else Sighting(sight=Sight.UNREAD, detail=OTHER_KIND)


def _without_source(
    archive: Digest | None, manifest: Digest | None, source: Sighting, row: Digest | None, *, same_am: bool | None
) -> tuple[Verdict, str]:
    evidence = f"archive {_short(archive)}, manifest {_short(manifest)}, source {source.sight}: {source.detail}"
    if same_am:
        quiet = {Sight.GONE: Verdict.SOURCE_GONE, Sight.CHANGED: Verdict.SOURCE_CHANGED, Sight.UNREAD: Verdict.UNREAD}
        return quiet[source.sight], evidence
    if same_am is None:
        return Verdict.UNREAD, f"{evidence}; {OTHER_KIND}"
    evidence += f", index {_short(row)}"
    if _same(archive, row):
        return Verdict.MANIFEST_WRONG, evidence
    if source.sight is not Sight.UNREAD:
        return Verdict.LOST, evidence
    return (Verdict.ARCHIVE_DAMAGED if _same(manifest, row) else Verdict.UNDECIDED), evidence


def judge_row(row: FileRow | None, member: Member, archive: int, supersedes: int | None = None) -> str:
    """What is wrong with the row of a member; "" if nothing is.

    A row that names another archive belongs to another copy of the same version: a duplicate, or a repair. But none may
    name the damaged archive that this one stands for.
    """
    if row is None:
        return "there is no row"
    if row.archive == supersedes:
        return f"the row names archive {row.archive}, which is damaged, and which this one stands for"
    if row.archive != archive:
        return ""
    pairs = {
        "number": (row.number, member.number),
        "offset": (row.offset_bytes, member.offset_bytes),
        "size": (row.size_bytes, member.source.size_bytes),
        "SHA-256": (row.sha256, member.source.sha256),
        "MD5": (row.md5, member.source.md5),
        "time": (int(row.last_modified.timestamp()), int(member.source.last_modified.timestamp())),
    }
    wrong = [f"{name} {said}, the manifest {meant}" for name, (said, meant) in pairs.items() if said != meant]
    return f"the row says {'; '.join(wrong)}" if wrong else ""


def judge_container(found: ArchiveDigest, manifest: Manifest | None, row: ArchiveRow) -> tuple[Verdict, str]:
    """The verdict on a tar as a whole, without regard to its members.

    The manifest, the archive's row, and the list inside the tar each state something of the whole.
    """
    whole = found.whole
    by_row = whole.size_bytes == row.size_bytes and whole.sha256 == row.sha256
    seen = f"the object has {whole.size_bytes} bytes and SHA-256 {whole.sha256}"
    if manifest is None:
        if by_row:
            return Verdict.MANIFEST_WRONG, NO_MANIFEST
        return Verdict.UNDECIDED, f"{seen}, the archive's row says {row.sha256}, and {NO_MANIFEST}"
    by_manifest = whole.size_bytes == manifest.object_size_bytes and whole.sha256 == manifest.object_sha256
    if not by_row and not by_manifest:
        return Verdict.CONTAINER_DAMAGED, f"{seen}, manifest and index say {row.sha256}. {found.problem}".rstrip()
    if not by_manifest:
        return Verdict.MANIFEST_WRONG, f"{seen}, the manifest says {manifest.object_sha256}"
    if found.contents != manifest.contents:
        return Verdict.MANIFEST_WRONG, "the manifest lists other members than the archive itself, which is unchanged"
    return (Verdict.INTACT, "") if by_row else (Verdict.INDEX_WRONG, f"{seen}, the archive's row says {row.sha256}")


def judge_tar(
    *,
    row: ArchiveRow,
    manifest: Manifest | None,
    found: ArchiveDigest,
    sources: Mapping[tuple[str, str], Sighting],
    rows: Mapping[tuple[str, str], FileRow],
) -> tuple[dict[tuple[str, str], Verdict], list[Finding]]:
    """The verdict on each member of a tar, and a finding for all that is not quiet, the archive as a whole included.

    `sources` has a sighting of every member that manifest or archive list.
    """
    own = {member.source.identity: member for member in found.contents.members} if found.contents else {}
    listed = {member.source.identity: member for member in manifest.members} if manifest else {}
    supersedes = manifest.supersedes if manifest else None
    container, problem = judge_container(found, manifest, row)
    if container is Verdict.CONTAINER_DAMAGED:  # so may its own list be
        right, digests = listed, found.listed
    else:
        right, digests = own or listed, found.members
    verdicts: dict[tuple[str, str], Verdict] = {}
    findings: list[Finding] = []
    for identity in sorted(right.keys() | listed.keys()):
        standing = rows.get(identity)
        if identity in right:
            member = right[identity]
            verdict, evidence = judge(
                archive=digests.get(identity),
                manifest=stated(listed[identity].source) if identity in listed else None,
                source=sources[identity],
                row=_row_digest(standing),
            )
        else:
            member = listed[identity]
            verdict, evidence = Verdict.MANIFEST_WRONG, "the archive, which is unchanged, does not have this member"
        if verdict in QUIET:
            wrong = judge_row(standing, member, row.serial, supersedes)
            verdict, evidence = (Verdict.INDEX_WRONG, wrong) if wrong else (verdict, evidence)
        verdicts[identity] = verdict
        if verdict not in QUIET:
            findings.append(_finding(verdict, evidence, member))
    explained = any(verdict in {Verdict.ARCHIVE_DAMAGED, Verdict.LOST} for verdict in verdicts.values())
    if container not in QUIET and not (container is Verdict.CONTAINER_DAMAGED and explained):
        findings.append(Finding(verdict=container, evidence=problem[:EVIDENCE_CHARACTERS]))
    return verdicts, findings


def judge_object(
    *,
    row: ArchiveRow,
    manifest: Manifest | None,
    found: Digest | None,
    source: Sighting,
    described: Source | None,
    standing: FileRow | None,
) -> tuple[Verdict, list[Finding]]:
    """The verdict on an archive that is one large object. `described` is what S3 says of the source, if it stands."""
    if manifest is None:
        unchanged = _same(found, Digest(size_bytes=row.size_bytes, sha256=row.sha256)) is not False
        verdict = Verdict.MANIFEST_WRONG if unchanged else Verdict.UNDECIDED
        return verdict, [Finding(verdict=verdict, evidence=NO_MANIFEST)]
    member = manifest.members[0]
    verdict, evidence = judge(
        archive=found, manifest=_object_digest(manifest), source=source, row=_row_digest(standing)
    )
    if verdict in QUIET:
        other = _described_otherwise(member.source, described)
        disputed = _row_otherwise(row, manifest)
        wrong = judge_row(standing, member, row.serial, manifest.supersedes)
        if other:
            verdict, evidence = Verdict.MANIFEST_WRONG, other
        elif disputed:  # the archive's own row: no file's
            return Verdict.INDEX_WRONG, [Finding(verdict=Verdict.INDEX_WRONG, evidence=disputed)]
        elif wrong:
            verdict, evidence = Verdict.INDEX_WRONG, wrong
    return verdict, [] if verdict in QUIET else [_finding(verdict, evidence, member)]


def _object_digest(manifest: Manifest) -> Digest:
    member = stated(manifest.members[0].source)
    return replace(
        member,
        sha256=manifest.object_sha256 or member.sha256,
        crc64nvme=manifest.object_crc64nvme or member.crc64nvme,
    )


def _row_otherwise(row: ArchiveRow, manifest: Manifest) -> str:
    said, meant = (row.size_bytes, row.sha256), (manifest.object_size_bytes, manifest.object_sha256)
    return f"the archive's row says {said}, the manifest {meant}" if said != meant else ""


_MUTABLE = frozenset({"sha256", "md5", "checksums", "tags", "storage_class", "encryption", "kms_key_id"})
"""What may be known of one copy only, or change without a new version; checksums are compared where both have one."""


def _described_otherwise(stated_source: Source, described: Source | None) -> str:
    """What the manifest of a large object says of it and S3 does not; tars have a second list of their own.

    The version `null` may be put again with the same bytes, at another time and with other headers.
    """
    if described is None or described.version_id == NULL_VERSION:
        return ""
    names = [name for name in Source.__slots__ if name not in _MUTABLE]
    wrong = [name for name in names if getattr(stated_source, name) != getattr(described, name)]
    here, there = stated_source.checksums, described.checksums
    wrong += [algorithm for algorithm in here if there.get(algorithm, here[algorithm]) != here[algorithm]]
    return f"the manifest states another {', '.join(wrong)} than S3 does of the source" if wrong else ""


def _finding(verdict: Verdict, evidence: str, member: Member) -> Finding:
    return Finding(
        verdict=verdict,
        evidence=evidence[:EVIDENCE_CHARACTERS],
        key=member.source.key,
        pin=member.source.pin,
        number=member.number,
    )


def _row_digest(row: FileRow | None) -> Digest | None:
    return Digest(size_bytes=row.size_bytes, sha256=row.sha256, md5=row.md5) if row else None


def _same(one: Digest | None, other: Digest | None) -> bool | None:
    """As agree; a witness that is missing agrees with none."""
    return agree(one, other) if one is not None and other is not None else False


def _short(digest: Digest | None) -> str:
    if digest is None:
        return "missing"
    named = digest.sha256[:16] or digest.crc64nvme or digest.md5[:16]
    return f"{named} of {digest.size_bytes} bytes"
