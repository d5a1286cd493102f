"""Verdicts: archive, manifest, source and index held against each other, in every combination."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.audit import FINDINGS_KEPT, Audit, Cause, need, report_of
from neve.domain.digest import ArchiveDigest, Digest, TarHasher, hashed
from neve.domain.index import FileRow
from neve.domain.index import rows as index_rows
from neve.domain.manifest import Manifest, Source, archive_key, single
from neve.domain.thaw import Need, Tier
from neve.domain.verdict import (
    DISCREPANCIES,
    EVIDENCE_CHARACTERS,
    QUIET,
    REPAIRABLE,
    Finding,
    Sight,
    Sighting,
    Verdict,
    judge,
    judge_container,
    judge_object,
    judge_row,
    judge_tar,
    worst,
)
from tests.memory import CONTENT, START
from tests.restore_cloud import Stored, object_of, source_of, tar_of

# -- One member --------------------------------------------------------------------------------------------------------

TABLE = {
    # archive, manifest, source: equal letters are equal bytes, "-" is missing
    "xxx": Verdict.INTACT,
    "xyy": Verdict.ARCHIVE_DAMAGED,
    "-xx": Verdict.ARCHIVE_DAMAGED,
    "xxy": Verdict.SOURCE_DAMAGED,
    "xyx": Verdict.MANIFEST_WRONG,
    "x-x": Verdict.MANIFEST_WRONG,
    "xyz": Verdict.UNDECIDED,
    "-xy": Verdict.UNDECIDED,
    "x-y": Verdict.UNDECIDED,
    # the source was Deleted, or Overwritten in place
    "xxD": Verdict.SOURCE_GONE,
    "xxO": Verdict.SOURCE_CHANGED,
    # then the index is the third witness
    "xyDx": Verdict.MANIFEST_WRONG,
    "xyDy": Verdict.LOST,
    "xyDz": Verdict.LOST,
    "xyD-": Verdict.LOST,
    "-xDx": Verdict.LOST,
    "-xDy": Verdict.LOST,
    "-xD-": Verdict.LOST,
    "x-Dx": Verdict.MANIFEST_WRONG,
    "x-Dy": Verdict.LOST,
    "x-D-": Verdict.LOST,
    "xyOx": Verdict.MANIFEST_WRONG,
    "xyOy": Verdict.LOST,
    "xyOz": Verdict.LOST,
    "xyO-": Verdict.LOST,
    "-xOx": Verdict.LOST,
    "-xOy": Verdict.LOST,
    "-xO-": Verdict.LOST,
    "x-Ox": Verdict.MANIFEST_WRONG,
    "x-Oy": Verdict.LOST,
    "x-O-": Verdict.LOST,
    # the source is Unread
    "xxU": Verdict.UNREAD,
    "xyUx": Verdict.MANIFEST_WRONG,
    "xyUy": Verdict.ARCHIVE_DAMAGED,
    "xyUz": Verdict.UNDECIDED,
    "xyU-": Verdict.UNDECIDED,
    "-xUx": Verdict.ARCHIVE_DAMAGED,
    "-xUy": Verdict.UNDECIDED,
    "-xU-": Verdict.UNDECIDED,
    "x-Ux": Verdict.MANIFEST_WRONG,
    "x-Uy": Verdict.UNDECIDED,
    "x-U-": Verdict.UNDECIDED,
}
"""PROTOCOLS.md, section 5, line by line. A fourth letter is the index, where it is asked."""

SIGHTS = {"D": Sight.GONE, "O": Sight.CHANGED, "U": Sight.UNREAD}
COMBINATIONS = [
    "".join(letters)
    for letters in itertools.product("pqr-", "pqr-", "pqrDOU", "pqr-")
    if letters[:2] != ("-", "-")  # a member is known because one of the two has it
]


def renamed(combination: str) -> str:
    """The same combination with its letters x, y, z in the order in which they come."""
    names: dict[str, str] = {}
    for letter in combination:
        if letter in "pqr" and letter not in names:
            names[letter] = "xyz"[len(names)]
    return "".join(names.get(letter, letter) for letter in combination)


def expected(combination: str) -> Verdict:
    name = renamed(combination)
    return TABLE[name] if name in TABLE else TABLE[name[:3]]


BY_ALL = {letter: Digest(size_bytes=7, sha256=letter * 64, md5=letter * 32, crc64nvme=letter * 8) for letter in "pqr"}
WAYS = {
    "all": BY_ALL,
    "size": {letter: replace(BY_ALL["p"], size_bytes=size) for size, letter in enumerate("pqr")},
    "SHA-256": {letter: replace(BY_ALL["p"], sha256=letter * 64) for letter in "pqr"},
    "MD5": {letter: replace(BY_ALL["p"], md5=letter * 32) for letter in "pqr"},
    "CRC only": {letter: Digest(size_bytes=7, crc64nvme=letter) for letter in "pqr"},
}
"""In what the bytes p, q and r differ."""


@pytest.mark.parametrize("way", WAYS)
def test_every_combination_of_archive_manifest_source_and_index_has_its_verdict(way: str) -> None:
    bytes_of = WAYS[way]
    for combination in COMBINATIONS:
        archive, manifest, source, row = list(combination)
        sighting = (
            Sighting(sight=SIGHTS[source], detail="why")
            if source in SIGHTS
            else Sighting(sight=Sight.READ, digest=bytes_of[source])
        )
        verdict, evidence = judge(
            archive=bytes_of.get(archive), manifest=bytes_of.get(manifest), source=sighting, row=bytes_of.get(row)
        )
        assert verdict is expected(combination), combination
        assert bool(evidence) is (verdict is not Verdict.INTACT), combination
    assert len(COMBINATIONS) == 4 * 4 * 6 * 4 - 24


def test_the_table_has_no_line_that_is_never_reached() -> None:
    reached = {name if name in TABLE else name[:3] for name in map(renamed, COMBINATIONS)}
    assert reached == set(TABLE)


ALL = Digest(size_bytes=7, sha256="a" * 64, md5="b" * 32, crc64nvme="CRC")
SHA = replace(ALL, crc64nvme="")
CRC = replace(ALL, sha256="", md5="")
OTHER_SHA = replace(SHA, sha256="f" * 64, md5="e" * 32)
OTHER_CRC = replace(CRC, crc64nvme="OTHER")
NOTHING = Digest(size_bytes=7)


@pytest.mark.parametrize(
    ("archive", "manifest", "source", "row", "verdict"),
    [
        # the source's CRC as S3 keeps it, which only the manifest states as well
        (SHA, ALL, CRC, None, Verdict.INTACT),
        (SHA, ALL, OTHER_CRC, None, Verdict.SOURCE_DAMAGED),
        (OTHER_SHA, ALL, CRC, None, Verdict.ARCHIVE_DAMAGED),
        (OTHER_SHA, ALL, OTHER_CRC, None, Verdict.UNDECIDED),
        # a large object, of which all three have the CRC only
        (CRC, CRC, CRC, SHA, Verdict.INTACT),
        (OTHER_CRC, CRC, CRC, SHA, Verdict.ARCHIVE_DAMAGED),
        # two that agree with the third agree with each other
        (CRC, ALL, SHA, None, Verdict.INTACT),
        (ALL, CRC, SHA, None, Verdict.INTACT),
        # nobody can tell whether the source is intact
        (SHA, SHA, CRC, SHA, Verdict.UNREAD),
        (SHA, SHA, NOTHING, SHA, Verdict.UNREAD),
        # so the index is asked where archive and manifest differ
        (SHA, OTHER_SHA, CRC, SHA, Verdict.MANIFEST_WRONG),
        (OTHER_SHA, SHA, CRC, SHA, Verdict.ARCHIVE_DAMAGED),
        (OTHER_SHA, SHA, CRC, None, Verdict.UNDECIDED),
        (None, SHA, CRC, SHA, Verdict.ARCHIVE_DAMAGED),
        (SHA, None, CRC, SHA, Verdict.MANIFEST_WRONG),
        # one witness has nothing in common with two that agree: it is not known to differ
        (CRC, SHA, SHA, SHA, Verdict.UNREAD),
        (CRC, SHA, CRC, SHA, Verdict.UNREAD),
        (SHA, CRC, SHA, SHA, Verdict.UNREAD),
        # what the manifest states of itself does not fit together: the archive's bytes are the source's
        (SHA, replace(ALL, crc64nvme="OTHER"), ALL, None, Verdict.MANIFEST_WRONG),
        (ALL, replace(ALL, md5="e" * 32), CRC, None, Verdict.MANIFEST_WRONG),
    ],
)
def test_hashes_of_different_kinds_are_never_called_different(
    archive: Digest | None, manifest: Digest | None, source: Digest, row: Digest | None, verdict: Verdict
) -> None:
    seen = Sighting(sight=Sight.READ, digest=source)
    assert judge(archive=archive, manifest=manifest, source=seen, row=row)[0] is verdict


@pytest.mark.parametrize("sight", [Sight.GONE, Sight.CHANGED, Sight.UNREAD])
def test_nothing_is_lost_because_two_hashes_are_of_different_kinds(sight: Sight) -> None:
    assert judge(archive=CRC, manifest=SHA, source=Sighting(sight=sight), row=SHA)[0] is Verdict.UNREAD


def test_evidence_names_what_each_witness_says() -> None:
    _, evidence = judge(archive=OTHER_SHA, manifest=SHA, source=Sighting(sight=Sight.READ, digest=SHA))
    assert evidence == f"archive {'f' * 16} of 7 bytes, manifest {'a' * 16} of 7 bytes, source {'a' * 16} of 7 bytes"
    _, evidence = judge(archive=None, manifest=CRC, source=Sighting(sight=Sight.GONE, detail="404"), row=None)
    assert evidence == "archive missing, manifest CRC of 7 bytes, source gone: 404, index missing"
    _, evidence = judge(
        archive=replace(SHA, sha256=""), manifest=SHA, source=Sighting(sight=Sight.READ, digest=OTHER_SHA)
    )
    assert f"archive {'b' * 16} of 7 bytes" in evidence


# -- Kinds of verdicts -------------------------------------------------------------------------------------------------


def test_what_was_not_read_is_neither_quiet_nor_a_discrepancy() -> None:
    """A read error recorded as a mismatch is how an audit loses its credit."""
    assert frozenset({Verdict.UNREAD}) == set(Verdict) - QUIET - DISCREPANCIES
    assert not QUIET & DISCREPANCIES
    assert DISCREPANCIES - {Verdict.SOURCE_DAMAGED} == REPAIRABLE


def test_the_worst_verdict_of_an_archive_is_the_one_that_loses_most() -> None:
    assert worst([]) is Verdict.INTACT
    assert worst([Verdict.INTACT, Verdict.LOST, Verdict.ARCHIVE_DAMAGED]) is Verdict.LOST
    order = list(Verdict)
    assert {*order[:3]} == QUIET
    assert order[3] is Verdict.UNREAD
    assert all(worst([one, other]) is other for one, other in itertools.combinations(order, 2))


# -- The row of a file -------------------------------------------------------------------------------------------------

BODIES = {"a": b"first " * 50, "b": b"", "c": b"third " * 300, "d": b"fourth" * 10}


def sources_of(bodies: Mapping[str, bytes]) -> list[tuple[Source, bytes]]:
    return [(replace(source_of(key, body), checksums={"CRC32": "AAAAAA=="}), body) for key, body in bodies.items()]


TAR = tar_of(17, sources_of(BODIES))
KEYS = [("a", "v1"), ("b", "v1"), ("c", "v1"), ("d", "v1")]
MEMBER = TAR.manifest.members[2]
ROW = index_rows(TAR.manifest)[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 3},
        {"offset_bytes": ROW.offset_bytes + 512},
        {"size_bytes": 1},
        {"sha256": "0" * 64},
        {"md5": "0" * 32},
        {"last_modified": START + timedelta(seconds=1)},
    ],
)
def test_a_row_that_contradicts_its_manifest_is_wrong_in_any_field(changes: Mapping[str, Any]) -> None:
    told = judge_row(replace(ROW, **changes), MEMBER, 17)
    assert told.startswith("the row says ")
    assert told.count(", the manifest ") == 1


def test_a_row_that_says_what_its_manifest_says_is_right() -> None:
    assert not judge_row(ROW, MEMBER, 17)
    fraction = replace(ROW, last_modified=ROW.last_modified + timedelta(milliseconds=300))
    assert not judge_row(fraction, MEMBER, 17), "the table has whole seconds"


def test_a_missing_row_is_said_so() -> None:
    assert judge_row(None, MEMBER, 17) == "there is no row"


def test_a_row_that_names_another_archive_is_a_duplicate_and_no_error() -> None:
    assert not judge_row(replace(ROW, archive=3, number=0, offset_bytes=99), MEMBER, 17)


def test_a_row_that_names_the_damaged_archive_that_this_one_stands_for_is_wrong() -> None:
    assert "archive 3, which is damaged" in judge_row(replace(ROW, archive=3), MEMBER, 17, supersedes=3)


# -- A tar -------------------------------------------------------------------------------------------------------------


def found_in(body: bytes, manifest: Manifest | None = TAR.manifest) -> ArchiveDigest:
    hasher = TarHasher(manifest=manifest)
    hasher.feed(body)
    return hasher.digest()


def flipped(body: bytes, at: int, bits: int = 1) -> bytes:
    return body[:at] + bytes([body[at] ^ bits]) + body[at + 1 :]


def flipped_in(what: bytes, place: int = 0, bits: int = 1, body: bytes = TAR.body) -> bytes:
    return flipped(body, body.index(what) + place, bits)


SEEN = {identity: Sighting(sight=Sight.READ, digest=hashed([BODIES[identity[0]]])) for identity in KEYS}
GONE = Sighting(sight=Sight.GONE, detail="404")


def judged(
    body: bytes = TAR.body,
    *,
    manifest: Manifest | None = TAR.manifest,
    sources: Mapping[tuple[str, str], Sighting] = SEEN,
    without_rows: bool = False,
    **changed: Any,
) -> tuple[dict[str, Verdict], dict[str, Verdict]]:
    """The verdicts that are not intact, by key, and the findings' by key; "" is the whole. `changed` are fields of the
    archive's row, or `rows`, which stand in the place of those that the manifest implies.
    """
    found = found_in(body, manifest)
    known = {(row.key, row.pin): row for row in index_rows(TAR.manifest)}
    rows = {} if without_rows else known | {(row.key, row.pin): row for row in changed.pop("rows", ())}
    names = {each.source.identity for each in (*(found.contents.members if found.contents else ()),)}
    names |= {each.source.identity for each in (manifest.members if manifest else ())}
    verdicts, findings = judge_tar(
        row=replace(TAR.row, **changed),
        manifest=manifest,
        found=found,
        sources={identity: sources.get(identity, GONE) for identity in names},
        rows=rows,
    )
    by_key = {finding.key: finding.verdict for finding in findings}
    assert len(by_key) == len(findings)
    assert all(len(finding.evidence) <= EVIDENCE_CHARACTERS and finding.evidence for finding in findings)
    return {key: verdict for (key, _), verdict in verdicts.items() if verdict is not Verdict.INTACT}, by_key


def changed_manifest(number: int = 2, *, manifest: Manifest = TAR.manifest, **changes: Any) -> Manifest:
    """The manifest with another `number`-th member."""
    members = list(manifest.members)
    members[number] = replace(members[number], source=replace(members[number].source, **changes))
    return replace(manifest, members=tuple(members))


def test_an_archive_that_is_as_it_should_be_has_nothing_to_tell() -> None:
    assert judged() == ({}, {})


@pytest.mark.parametrize("key", ["a", "c", "d"])
def test_a_flipped_bit_in_a_member_is_found_in_that_member_alone(key: str) -> None:
    [member] = [each for each in TAR.manifest.members if each.source.key == key]
    body = flipped(TAR.body, member.offset_bytes + member.source.size_bytes - 1)
    assert judged(body) == ({key: Verdict.ARCHIVE_DAMAGED}, {key: Verdict.ARCHIVE_DAMAGED})


def test_a_damaged_member_whose_source_is_gone_is_lost() -> None:
    body = flipped(TAR.body, MEMBER.offset_bytes)
    assert judged(body, sources=SEEN | {("c", "v1"): GONE}) == ({"c": Verdict.LOST}, {"c": Verdict.LOST})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (flipped_in(b"ustar"), "the header of the list"),
        (flipped_in(b'"archive"', 1), "a name in the list"),
        (flipped_in(b'"number": 1', 10), "a number in the list"),
        (flipped_in(b'"key": "d"', 8), "a key in the list, which stays readable"),
        (flipped_in(b'"sha256": "', 11), "a hash in the list"),
        (flipped_in(b'"size_bytes": 1800', 14, 4), "a size in the list"),
        (flipped_in(b'"content_type": "text/plain"', 20), "metadata in the list"),
        (flipped(TAR.body, MEMBER.offset_bytes - 512), "the name in a member's header"),
        (flipped(TAR.body, MEMBER.offset_bytes + MEMBER.source.size_bytes), "padding"),
        (flipped(TAR.body, len(TAR.body) - 1), "the end"),
        (TAR.body[:-512], "the end, cut off"),
        (TAR.body + bytes(512), "a block more"),
    ],
)
def test_damage_outside_of_the_members_is_the_containers_and_blames_no_file(body: bytes, where: str) -> None:
    assert judged(body) == ({}, {"": Verdict.CONTAINER_DAMAGED}), where
    quiet = judged(body, sources={})
    assert quiet == (
        dict.fromkeys("abcd", Verdict.SOURCE_GONE),
        {"": Verdict.CONTAINER_DAMAGED},
    ), f"{where}, after the sources were deleted"


def test_an_archive_cut_short_names_the_members_that_it_lacks() -> None:
    body = TAR.body[: MEMBER.offset_bytes + 10]
    assert judged(body)[1] == {"c": Verdict.ARCHIVE_DAMAGED, "d": Verdict.ARCHIVE_DAMAGED}
    assert judged(b"")[1] == dict.fromkeys("abcd", Verdict.ARCHIVE_DAMAGED)
    assert judged(b"", sources={})[1] == dict.fromkeys("abcd", Verdict.LOST)


def test_an_object_that_is_gone_is_damage_of_every_member() -> None:
    gone = ArchiveDigest(whole=Digest(size_bytes=0), contents=None, problem="404", members={})
    verdicts, findings = judge_tar(row=TAR.row, manifest=TAR.manifest, found=gone, sources=SEEN, rows={})
    assert set(verdicts.values()) == {Verdict.ARCHIVE_DAMAGED}
    assert {finding.key for finding in findings} == set("abcd")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 64},
        {"md5": "0" * 32},
        {"size_bytes": 1801},
    ],
)
@pytest.mark.parametrize("source", ["read", "gone", "unread"])
def test_a_manifest_that_states_other_bytes_of_a_member_is_wrong(changes: Mapping[str, Any], source: str) -> None:
    sources = {
        "read": SEEN,
        "gone": SEEN | {("c", "v1"): GONE},
        "unread": SEEN | {("c", "v1"): Sighting(sight=Sight.UNREAD)},
    }[source]
    verdicts, findings = judged(manifest=changed_manifest(**changes), sources=sources)
    assert verdicts == {"c": Verdict.MANIFEST_WRONG}
    assert findings == {"c": Verdict.MANIFEST_WRONG, "": Verdict.MANIFEST_WRONG}


@pytest.mark.parametrize(
    "changes",
    [
        {"etag": "other"},
        {"content_type": "text/plaio"},
        {"user_metadata": {"a": "b"}},
        {"tags": {"a": "b"}},
        {"last_modified": START + timedelta(hours=1)},
        {"checksums": {"CRC32": "BAAAAA=="}},
    ],
)
def test_a_manifest_that_states_other_metadata_is_wrong_as_a_whole(changes: Mapping[str, Any]) -> None:
    assert judged(manifest=changed_manifest(**changes)) == ({}, {"": Verdict.MANIFEST_WRONG})


@pytest.mark.parametrize(
    "changes",
    [
        {"object_sha256": "0" * 64},
        {"archive": 16},
        {"bucket": "another"},
        {"supersedes": 3},
    ],
)
def test_a_manifest_that_states_another_object_is_wrong_as_a_whole(changes: Mapping[str, Any]) -> None:
    assert judged(manifest=replace(TAR.manifest, **changes)) == ({}, {"": Verdict.MANIFEST_WRONG})


def test_a_member_that_only_the_manifest_has_is_never_lost() -> None:
    """A flipped bit in a key of the manifest invents a file, whose source nobody can find."""
    verdicts, findings = judged(manifest=changed_manifest(3, key="e"))
    assert verdicts == {"d": Verdict.MANIFEST_WRONG, "e": Verdict.MANIFEST_WRONG}
    assert findings == {**verdicts, "": Verdict.MANIFEST_WRONG}
    verdicts, _ = judged(manifest=changed_manifest(3, key="e"), sources={})
    assert set(verdicts.values()) == {Verdict.SOURCE_GONE, Verdict.MANIFEST_WRONG}


def test_without_a_manifest_the_archive_itself_says_what_it_holds() -> None:
    verdicts, findings = judged(manifest=None)
    assert verdicts == dict.fromkeys("abcd", Verdict.MANIFEST_WRONG)
    assert findings[""] is Verdict.MANIFEST_WRONG


def test_without_a_manifest_it_is_undecided_who_is_right_about_the_whole() -> None:
    verdicts, findings = judged(flipped(TAR.body, len(TAR.body) - 1), manifest=None)
    assert verdicts == dict.fromkeys("abcd", Verdict.MANIFEST_WRONG)
    assert findings[""] is Verdict.UNDECIDED
    verdicts, findings = judged(flipped_in(b"ustar"), manifest=None)
    assert (verdicts, findings) == ({}, {"": Verdict.UNDECIDED})


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size_bytes": 1}])
def test_an_archives_row_that_contradicts_object_and_manifest_is_wrong(changes: Mapping[str, Any]) -> None:
    assert judged(**changes) == ({}, {"": Verdict.INDEX_WRONG})


def test_a_missing_row_makes_the_index_wrong_and_not_the_archive() -> None:
    verdicts, findings = judged(without_rows=True)
    assert verdicts == findings == dict.fromkeys("abcd", Verdict.INDEX_WRONG)


@pytest.mark.parametrize("changes", [{"number": 1}, {"offset_bytes": 512}, {"size_bytes": 3}, {"sha256": "0" * 64}])
@pytest.mark.parametrize("sources", [SEEN, {}])
def test_a_wrong_row_is_told_of_whether_the_source_stands_or_not(
    changes: Mapping[str, Any], sources: Mapping[tuple[str, str], Sighting]
) -> None:
    assert judged(rows=[replace(ROW, **changes)], sources=sources)[1] == {"c": Verdict.INDEX_WRONG}


def test_a_wrong_row_is_found_beside_a_wrong_manifest() -> None:
    verdicts, _ = judged(manifest=changed_manifest(1, content_type="x"), rows=[replace(ROW, number=1)])
    assert verdicts == {"c": Verdict.INDEX_WRONG}


def test_a_wrong_row_does_not_hide_worse_things() -> None:
    body = flipped(TAR.body, MEMBER.offset_bytes)
    assert judged(body, rows=[replace(ROW, number=1)])[0] == {"c": Verdict.ARCHIVE_DAMAGED}


def test_duplicates_and_superseded_archives_are_intact() -> None:
    """Another archive's rows stand for its members; its bytes are compared all the same."""
    elsewhere: list[FileRow] = [replace(row, archive=99, number=7) for row in index_rows(TAR.manifest)]
    assert judged(rows=elsewhere) == ({}, {})
    assert judged(rows=elsewhere, superseded_by=99) == ({}, {})
    assert judged(flipped(TAR.body, MEMBER.offset_bytes), rows=elsewhere)[0] == {"c": Verdict.ARCHIVE_DAMAGED}


def test_damage_of_a_source_is_not_the_archives() -> None:
    sources = SEEN | {("a", "v1"): Sighting(sight=Sight.READ, digest=hashed([b"other"]))}
    assert judged(sources=sources) == ({"a": Verdict.SOURCE_DAMAGED}, {"a": Verdict.SOURCE_DAMAGED})


def test_two_faults_in_one_archive_are_both_told() -> None:
    sources = SEEN | {("a", "v1"): Sighting(sight=Sight.READ, digest=hashed([b"other"]))}
    verdicts, findings = judged(flipped(TAR.body, MEMBER.offset_bytes), sources=sources)
    assert verdicts == findings == {"a": Verdict.SOURCE_DAMAGED, "c": Verdict.ARCHIVE_DAMAGED}


def test_a_container_is_judged_by_the_hash_that_index_and_manifest_state() -> None:
    found = found_in(TAR.body)
    assert judge_container(found, TAR.manifest, TAR.row) == (Verdict.INTACT, "")
    verdict, told = judge_container(found_in(TAR.body[:700]), TAR.manifest, TAR.row)
    assert verdict is Verdict.CONTAINER_DAMAGED
    assert "the object has 700 bytes" in told
    assert "within its own list" in told


# -- One large object --------------------------------------------------------------------------------------------------

FILM = object_of(6, "film", b"frames " * 300)
FILM_DIGEST = hashed([FILM.body])
FILM_SOURCE = FILM.manifest.members[0].source
[FILM_ROW] = index_rows(FILM.manifest)


def judged_object(stored: Stored = FILM, **changes: Any) -> tuple[Verdict, str]:
    """The verdict, and the evidence of its finding."""
    given: dict[str, Any] = {
        "row": stored.row,
        "manifest": stored.manifest,
        "found": hashed([stored.body]),
        "source": Sighting(sight=Sight.READ, digest=hashed([stored.body])),
        "described": replace(stored.manifest.members[0].source, sha256="", md5=""),
        "standing": index_rows(stored.manifest)[0],
    }
    verdict, findings = judge_object(**(given | changes))
    assert [finding.verdict for finding in findings] == ([] if verdict in QUIET else [verdict])
    return verdict, findings[0].evidence if findings else ""


def test_a_large_object_that_is_as_it_should_be_is_intact() -> None:
    assert judged_object() == (Verdict.INTACT, "")
    assert judged_object(described=None) == (Verdict.INTACT, "")
    assert judged_object(source=GONE, described=None) == (Verdict.SOURCE_GONE, "")


def test_a_large_object_is_judged_by_the_crc_where_s3_has_nothing_else() -> None:
    source = replace(source_of("film", FILM.body), sha256="", md5="", checksums={"CRC64NVME": "AAAAAAAAAAA="})
    manifest = single(archive=6, bucket=CONTENT, object_key=archive_key(6, "object"), source=source)
    row = replace(FILM.row, sha256="")
    digest = Digest(size_bytes=len(FILM.body), crc64nvme="AAAAAAAAAAA=")
    other = replace(digest, crc64nvme="AQAAAAAAAAA=")
    seen = Sighting(sight=Sight.READ, digest=digest)
    given: dict[str, Any] = {
        "manifest": manifest,
        "row": row,
        "described": source,
        "standing": index_rows(manifest)[0],
    }
    assert judged_object(found=digest, source=seen, **given)[0] is Verdict.INTACT
    assert judged_object(found=other, source=seen, **given)[0] is Verdict.ARCHIVE_DAMAGED
    assert judged_object(found=digest, source=replace(seen, digest=other), **given)[0] is Verdict.SOURCE_DAMAGED
    assert judged_object(found=None, source=seen, **given)[0] is Verdict.ARCHIVE_DAMAGED


def test_a_large_object_that_is_gone_or_damaged_is_named() -> None:
    assert judged_object(found=None)[0] is Verdict.ARCHIVE_DAMAGED
    assert judged_object(found=None, source=GONE, described=None)[0] is Verdict.LOST
    assert judged_object(found=hashed([flipped(FILM.body, 5)]))[0] is Verdict.ARCHIVE_DAMAGED
    other = Sighting(sight=Sight.READ, digest=hashed([flipped(FILM.body, 5)]))
    assert judged_object(source=other)[0] is Verdict.SOURCE_DAMAGED


def test_a_large_object_without_a_manifest_is_said_so() -> None:
    assert judged_object(manifest=None) == (Verdict.MANIFEST_WRONG, "there is no manifest that can be read")
    assert judged_object(manifest=None, found=hashed([b"other"]))[0] is Verdict.UNDECIDED
    assert judged_object(manifest=None, found=None)[0] is Verdict.UNDECIDED


@pytest.mark.parametrize(
    "changes",
    [
        {"etag": "other"},
        {"content_type": "text/plaio"},
        {"user_metadata": {"a": "b"}},
        {"last_modified": START + timedelta(hours=1)},
    ],
)
def test_a_manifest_of_a_large_object_is_held_against_what_s3_says_of_the_source(changes: Mapping[str, Any]) -> None:
    described = replace(FILM_SOURCE, sha256="", md5="", **changes)
    verdict, told = judged_object(described=described)
    assert verdict is Verdict.MANIFEST_WRONG
    assert next(iter(changes)) in told


@pytest.mark.parametrize(
    "changes",
    [{"tags": {"a": "b"}}, {"storage_class": "STANDARD_IA"}, {"encryption": "aws:kms"}, {"checksums": {"CRC32": "x"}}],
)
def test_what_may_change_without_a_new_version_is_no_contradiction(changes: Mapping[str, Any]) -> None:
    assert judged_object(described=replace(FILM_SOURCE, sha256="", md5="", **changes))[0] is Verdict.INTACT


def test_a_checksum_that_both_state_has_to_be_the_same() -> None:
    stated = replace(FILM_SOURCE, checksums={"CRC32": "AAAAAA==", "SHA1": "x"})
    manifest = replace(FILM.manifest, members=(replace(FILM.manifest.members[0], source=stated),))
    described = replace(stated, sha256="", md5="", checksums={"CRC32": "AAAAAA=="})
    assert judged_object(manifest=manifest, described=described)[0] is Verdict.INTACT
    described = replace(described, checksums={"CRC32": "BAAAAA=="})
    assert judged_object(manifest=manifest, described=described)[0] is Verdict.MANIFEST_WRONG


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size_bytes": 1}])
def test_the_row_of_a_large_archive_that_contradicts_its_manifest_is_wrong(changes: Mapping[str, Any]) -> None:
    assert judged_object(row=replace(FILM.row, **changes))[0] is Verdict.INDEX_WRONG


def test_the_row_of_a_large_objects_file_is_looked_at() -> None:
    assert judged_object(standing=None)[0] is Verdict.INDEX_WRONG
    assert judged_object(standing=replace(FILM_ROW, offset_bytes=1))[0] is Verdict.INDEX_WRONG
    assert judged_object(standing=replace(FILM_ROW, archive=99))[0] is Verdict.INTACT
    assert judged_object(standing=None, source=GONE, described=None)[0] is Verdict.INDEX_WRONG


# -- Reports -----------------------------------------------------------------------------------------------------------

AUDIT = Audit(run="r", archive=17, cause=Cause.RANDOM, need=Need(tier=Tier.BULK, days=1), repair=False, begun_at=START)


def test_a_report_counts_every_member_and_keeps_the_worst_findings() -> None:
    verdicts = [Verdict.INTACT] * 3 + [Verdict.SOURCE_DAMAGED] * 100 + [Verdict.LOST]
    findings = [
        Finding(verdict=verdict, evidence="e", key=f"k{number}", number=number)
        for number, verdict in enumerate(verdicts)
        if verdict is not Verdict.INTACT
    ]
    report = report_of(AUDIT, now=START, verdicts=iter(verdicts), findings=findings, size_bytes=9)
    assert report.verdict is Verdict.LOST
    assert report.counts == {Verdict.INTACT: 3, Verdict.SOURCE_DAMAGED: 100, Verdict.LOST: 1}
    assert report.found == 101
    assert len(report.findings) == FINDINGS_KEPT
    assert report.findings[0].key == "k103"
    assert [finding.number for finding in report.findings[1:]] == list(range(3, 3 + FINDINGS_KEPT - 1))
    assert report.id == AUDIT.id == "r#0000000017"


def test_a_report_is_as_bad_as_the_archive_as_a_whole() -> None:
    findings = [Finding(verdict=Verdict.CONTAINER_DAMAGED, evidence="e")]
    report = report_of(AUDIT, now=START, verdicts=[Verdict.INTACT], findings=findings, size_bytes=9)
    assert report.verdict is Verdict.CONTAINER_DAMAGED
    assert report.counts == {Verdict.INTACT: 1}


def test_a_repair_has_the_copy_stay_for_longer() -> None:
    assert need(Tier.BULK, repair=False) == Need(tier=Tier.BULK, days=1)
    assert need(Tier.BULK, repair=True) == Need(tier=Tier.STANDARD, days=3)


def test_the_archives_hash_is_of_the_bytes_that_lie_there() -> None:
    assert hashlib.sha256(TAR.body).hexdigest() == TAR.row.sha256
