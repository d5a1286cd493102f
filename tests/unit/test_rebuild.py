"""Rebuilding on ports in memory: the tables come back as they were, in any order, however often, beside anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neve.flows.rebuild as flow
from neve.domain.bundle import BundleState
from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.manifest import Manifest, Source, archive_key, single
from neve.domain.rebuild import MARGIN, REBUILT, precedes, stands_for, unproven
from neve.domain.tar import build
from neve.domain.version import ObjectVersion
from neve.errors import ManifestInvalid, Transient
from neve.flows.rebuild import NO_ARCHIVE, PAUSES_S, Rebuilder, Rebuilt, largest_serial
from neve.flows.repair import Repairer
from tests.memory import (
    CONTENT,
    START,
    MemoryArchives,
    MemoryArchiveStore,
    MemoryBundles,
    MemoryCloud,
    MemoryContent,
    MemoryFiles,
)
from tests.memory_listing import MemoryListing
from tests.memory_s3 import MemoryGlacier, MemoryReader


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Blind(MemoryFiles):
    """An index whose quick look finds nothing, as if every row were a moment old."""

    def holders(self, versions: Sequence[ObjectVersion]) -> dict[tuple[str, str], int]:
        return {}


class Damaged(MemoryArchiveStore):
    """A bucket in which some manifests cannot be read."""

    broken: tuple[int, ...] = ()

    def manifest(self, serial: int) -> Manifest | None:
        if serial in self.broken:
            raise ManifestInvalid("the document is not JSON")
        return super().manifest(serial)


@dataclass
class Watched:
    """A port, with something that happens before each of its calls."""

    port: Any
    before: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.port, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.before()
            return found(*args, **kwargs)

        return call


@dataclass
class Site:
    """A bucket with archives, and tables that may be lost. `paused` has the pauses that were made."""

    store: MemoryArchiveStore = field(default_factory=lambda: MemoryArchiveStore(content=MemoryContent()))
    files: MemoryFiles = field(default_factory=MemoryFiles)
    archives: MemoryArchives = field(default_factory=MemoryArchives)
    bundles: MemoryBundles = field(default_factory=MemoryBundles)
    paused: list[float] = field(default_factory=list)

    def rebuilder(self, before: Callable[[], None] | None = None, **changed: Any) -> Rebuilder:
        def port(each: Any) -> Any:
            return Watched(each, before) if before else each

        return Rebuilder(
            store=port(self.store),
            listing=MemoryListing(self.store, modified=START),
            files=port(self.files),
            archives=port(self.archives),
            bundles=port(self.bundles),
            threads=1,
            pause=self.paused.append,
            **changed,
        )

    def rebuild(self, first: int = 1, last: int | None = None, **changed: Any) -> Rebuilt:
        """Rebuild it, the counter too; the sum of all windows."""
        rebuilder = self.rebuilder(**changed)
        rebuilder.mend_counter(largest_serial(rebuilder.listing))
        total = Rebuilt(through=0)
        for each in rebuilder.rebuild(first, last):
            total = Rebuilt(
                through=each.through,
                archives=total.archives + each.archives,
                files=total.files + each.files,
                duplicates=total.duplicates + each.duplicates,
                rows=total.rows + each.rows,
                left_out=total.left_out + each.left_out,
            )
        return total

    def lose_tables(self) -> None:
        self.files, self.archives, self.bundles = MemoryFiles(), MemoryArchives(), MemoryBundles()

    def archive(self, serial: int, keys: Iterable[str], *, supersedes: int | None = None) -> Manifest:
        """An archive that stands with its manifest, and has no rows."""
        members = [(source_of(key), key.encode()) for key in sorted(keys)]
        manifest, rope = build(serial, CONTENT, archive_key(serial, "tar"), members, supersedes=supersedes)
        self.store.put_manifest(manifest)
        self.store.put(manifest.object_key, rope, manifest.object_sha256)
        return manifest


def source_of(key: str) -> Source:
    cloud = MemoryCloud()
    source, _ = cloud.content.fetch(cloud.version(key, len(key.encode())))
    return source


def known(archives: MemoryArchives) -> dict[int, ArchiveRow]:
    """The rows of archives, but for what no manifest tells."""
    return {
        serial: replace(row, bundle=REBUILT, written_at=START, archived_at=START)
        for serial, row in archives.rows.items()
    }


def winners(site: Site) -> dict[str, int]:
    return {key: row.archive for (key, _), row in site.files.rows.items()}


def refused(total: Rebuilt) -> dict[str, str]:
    return {each.object_key: each.reason for each in total.left_out}


# The tables come back


def lived() -> tuple[MemoryCloud, Site]:
    """A life: duplicates, a large object, a bundle that was given up, and a repair that was repaired again."""
    content = MemoryContent()
    store = MemoryArchiveStore(content=content)
    glacier = MemoryGlacier(clock=lambda: START)
    cloud = MemoryCloud(content=content, store=store, files=Blind(), reader=MemoryReader(store=store, glacier=glacier))
    repairer = Repairer(bundles=cloud.bundles, bundles_queue=cloud.bundles_queue, large_queue=cloud.large_queue)

    def archived(*versions: ObjectVersion) -> None:
        cloud.collect(versions)
        cloud.drain()

    def repaired(serial: int) -> None:
        archive = cloud.archives.rows[serial]
        versions = [cloud.version(key) for (key, _), row in cloud.files.rows.items() if row.archive == serial]
        repairer.order(archive, versions, run=f"run-{serial}", now=cloud.now)
        cloud.drain()

    archived(*(cloud.version(key) for key in "abcd"))
    archived(*(cloud.version(key) for key in "cde"))  # 2: c and d are duplicates
    given_up, _ = build(3, CONTENT, archive_key(3, "tar"), [(source_of("gone"), b"gone")])
    store.put_manifest(given_up)
    cloud.bundles.drawn = 3
    sha256 = base64.b64encode(hashlib.sha256(b"large" * 400).digest()).decode()
    archived(cloud.version("large", 2_000, checksums={"SHA256": sha256}))  # 4
    repaired(1)  # 5
    archived(cloud.version("a"), cloud.version("f"))  # 6: a is a duplicate
    repaired(5)  # 7
    site = Site(store=store, files=cloud.files, archives=cloud.archives, bundles=cloud.bundles)
    return cloud, site


def test_a_life_is_what_the_test_takes_it_for() -> None:
    _, site = lived()
    assert winners(site) == {"a": 7, "b": 7, "c": 7, "d": 7, "e": 2, "f": 6, "large": 4}
    assert {serial: (row.duplicates, row.superseded_by) for serial, row in site.archives.rows.items()} == {
        1: (0, 5), 2: (2, 0), 4: (0, 0), 5: (0, 7), 6: (1, 0), 7: (0, 0)
    }  # fmt: skip


@pytest.mark.parametrize("window", [1, 2, 999])
def test_tables_that_were_lost_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(flow, "WINDOW", window)
    _, site = lived()
    files, archives = dict(site.files.rows), known(site.archives)
    site.lose_tables()
    total = site.rebuild()
    assert site.files.rows == files
    assert site.archives.rows == archives
    assert refused(total) == {archive_key(3, "tar"): NO_ARCHIVE}
    assert (total.through, total.archives, total.files, total.duplicates) == (7, 6, 18, 3)
    assert site.bundles.drawn == 7 + MARGIN


def test_a_rebuild_that_is_repeated_changes_nothing() -> None:
    _, site = lived()
    files, archives = dict(site.files.rows), dict(site.archives.rows)
    assert site.rebuild().rows == 0
    assert site.files.rows == files
    assert site.archives.rows == archives


def test_the_pipeline_goes_on_above_the_margin_after_a_rebuild() -> None:
    cloud, site = lived()
    site.lose_tables()
    site.rebuild()
    cloud.files, cloud.archives, cloud.bundles = site.files, site.archives, site.bundles
    cloud.collect([cloud.version("a"), cloud.version("new")])
    cloud.drain()
    assert winners(site)["new"] == 7 + MARGIN + 1
    assert winners(site)["a"] == 7


def test_a_rebuild_that_dies_anywhere_is_finished_by_the_next() -> None:
    _, site = lived()
    files, archives = dict(site.files.rows), known(site.archives)
    deaths = 0
    while True:
        deaths += 1
        site.lose_tables()
        left = deaths

        def die() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        rebuilder = site.rebuilder(before=die)
        try:
            rebuilder.mend_counter(7)
            list(rebuilder.rebuild())
        except Killed:
            site.rebuild()
        assert site.files.rows == files
        assert site.archives.rows == archives
        assert site.bundles.drawn == 7 + MARGIN
        if left > 0:
            break
    assert deaths > 50


def test_a_rebuild_can_begin_and_end_at_any_archive() -> None:
    _, site = lived()
    files, archives = dict(site.files.rows), known(site.archives)
    site.lose_tables()
    assert site.rebuild(2, 4).through == 4
    assert set(site.archives.rows) == {2, 4}
    site.rebuild(5)
    total = site.rebuild(1, 1)
    assert total.rows == 0, "all rows name the repair already"
    assert site.files.rows == files
    missing = "archive 1, for which it stands, has no row that could say so"
    site.lose_tables()
    assert refused(site.rebuild(5, 5)) == {archive_key(5, "tar"): missing}
    site.rebuild()
    assert site.archives.rows == archives


def test_a_dry_run_writes_nothing_and_says_what_it_would() -> None:
    _, site = lived()
    site.lose_tables()
    rebuilder = site.rebuilder(dry_run=True)
    assert rebuilder.mend_counter(7) == 7 + MARGIN
    [told] = list(rebuilder.rebuild())
    assert (told.archives, told.files, told.rows, len(told.left_out)) == (6, 18, 0, 1)
    assert (site.files.rows, site.archives.rows, site.bundles.drawn) == ({}, {}, 0)


# Whose row counts


def live(made: Sequence[tuple[frozenset[str], int]]) -> tuple[dict[str, int], dict[int, int]]:
    """Which archive each key's row names after the pipeline has written these archives, and their duplicates.

    The first row stands, and a repair takes over only what still names the archive that it repairs.
    """
    names: dict[str, int] = {}
    duplicates: dict[int, int] = {}
    for serial, (keys, supersedes) in enumerate(made, start=1):
        for key in keys:
            if names.setdefault(key, serial) == supersedes != 0:
                names[key] = serial
        duplicates[serial] = sum(names[key] != serial for key in keys)
    return names, duplicates


@st.composite
def collections(draw: st.DrawFn) -> list[tuple[frozenset[str], int]]:
    """Keys of each archive, and the one it repairs, if any: then of that one's keys."""
    made: list[tuple[frozenset[str], int]] = []
    for serial in range(1, draw(st.integers(2, 7)) + 1):
        supersedes = draw(st.integers(0, serial - 1))
        keys = sorted(made[supersedes - 1][0]) if supersedes else list("abcd")
        made.append((draw(st.frozensets(st.sampled_from(keys), min_size=1)), supersedes))
    return made


@settings(max_examples=60, deadline=None)
@given(collections(), st.data())
def test_the_same_row_wins_as_in_life_in_whatever_order_archives_are_met(
    made: list[tuple[frozenset[str], int]], data: st.DataObject
) -> None:
    site = Site()
    for serial, (keys, supersedes) in enumerate(made, start=1):
        site.archive(serial, keys, supersedes=supersedes or None)
    names, duplicates = live(made)
    site.rebuild()
    assert winners(site) == names
    assert {serial: row.duplicates for serial, row in site.archives.rows.items()} == duplicates
    site.lose_tables()
    serials = list(range(1, len(made) + 1))
    for serial in data.draw(st.permutations(serials + serials[:2])):
        site.rebuild(serial, serial)
    assert winners(site) == names


def test_of_two_archives_the_repair_counts_then_the_latest_of_a_chain_then_the_lowest_serial() -> None:
    order = [(3,), (5, 9, 12), (5, 9), (5, 11), (5,), (7,)]
    assert all(precedes(earlier, later) and not precedes(later, earlier) for earlier, later in pairwise(order))
    assert not precedes((5,), (5,))
    assert stands_for((5, 9, 12), (5,))
    assert stands_for((5,), (5,))
    assert not stands_for((5, 9), (5, 11))
    assert not stands_for((5,), (5, 9))


def test_members_that_a_later_repair_takes_over_are_duplicates_of_who_had_them_in_the_same_window() -> None:
    site = Site()
    site.archive(1, "a")
    site.archive(2, "ab")
    site.archive(3, "a", supersedes=1)
    del site.store.stated[archive_key(1, "tar")]
    site.rebuild()
    assert winners(site) == {"a": 3, "b": 2}
    assert {serial: row.duplicates for serial, row in site.archives.rows.items()} == {2: 1, 3: 0}


class Raced(MemoryFiles):
    """An index in which another is faster: each call is answered as if the next one had been made before it."""

    looks: int = 0
    swaps: int = 0

    def get(self, identities: Sequence[tuple[str, str]], *, consistent: bool = True) -> Any:
        self.looks += 1
        return super().get(identities) if self.looks > 1 else {}

    def replace(self, seen: FileRow, to: FileRow) -> bool:
        self.swaps += 1
        return super().replace(seen, to) if self.swaps > 1 else False


def test_rows_that_change_under_one_s_eyes_are_looked_at_again() -> None:
    site = Site()
    for serial in (1, 2):
        site.archive(serial, "a")
    site.rebuild(2, 2)
    site.files = Raced(rows=site.files.rows)
    assert site.rebuild(1, 1).rows == 1
    assert winners(site) == {"a": 1}
    assert (site.files.looks, site.files.swaps) == (3, 2)


def test_a_row_that_contradicts_its_own_manifest_is_put_right() -> None:
    site = Site()
    manifest = site.archive(1, "ab")
    site.rebuild()
    right = dict(site.files.rows)
    identity = manifest.members[1].source.identity
    site.files.rows[identity] = replace(right[identity], offset_bytes=0)
    assert site.rebuild().rows == 1
    assert site.files.rows == right


def test_a_row_that_differs_in_fractions_of_a_second_is_left() -> None:
    site = Site()
    site.archive(1, "a")
    site.rebuild()
    [(identity, row)] = site.files.rows.items()
    site.files.rows[identity] = replace(row, last_modified=row.last_modified + timedelta(microseconds=9))
    assert site.rebuild().rows == 0


@pytest.mark.parametrize("broken", [(), (2,)])
def test_a_row_stays_that_names_an_archive_of_which_nothing_can_be_known(broken: tuple[int, ...]) -> None:
    site = Site(store=Damaged(content=MemoryContent()))
    for serial in (1, 2):
        site.archive(serial, "a")
    site.rebuild(2, 2)
    site.store.broken = broken  # type: ignore[attr-defined]  # it is Damaged
    if not broken:
        del site.store.manifests[2]
    site.rebuild(1, 1)
    assert winners(site) == {"a": 2}


def test_a_chain_is_followed_as_far_as_manifests_can_be_read() -> None:
    site = Site()
    site.archive(1, "a")
    site.archive(2, "a", supersedes=1)
    site.archive(3, "a", supersedes=2)
    del site.store.manifests[2]
    site.rebuild()
    assert winners(site) == {"a": 1}, "nothing tells that 3 stands for 1"


# What is left out


def test_what_s3_and_the_manifest_do_not_agree_on_is_left_out_and_named() -> None:
    site = Site(store=Damaged(content=MemoryContent()))
    for serial in range(1, 9):
        site.archive(serial, [f"key-{serial}"])
    stated, manifests = site.store.stated, site.store.manifests
    keys = {serial: archive_key(serial, "tar") for serial in range(1, 9)}
    stated[keys[1]] = replace(stated[keys[1]], checksums=stated[keys[8]].checksums)
    stated[keys[2]] = replace(stated[keys[2]], size_bytes=1)
    stated[keys[3]] = replace(stated[keys[3]], checksums={"CRC64NVME": "AAAAAAAAAAA="})
    del stated[keys[4]]
    site.store.broken = (5,)  # type: ignore[attr-defined]  # it is Damaged
    manifests[6] = manifests[8]
    del manifests[7]
    stated[archive_key(8, "object")] = stated[keys[8]]
    told = refused(site.rebuild())
    assert set(told) == {
        *(keys[serial] for serial in (1, 2, 3, 4, 7)), archive_key(8, "object"),
        "manifests/0000000005.json", "manifests/0000000006.json",
    }  # fmt: skip
    assert told[keys[1]].startswith("its SHA256 is")
    assert told[keys[2]].startswith("it has 1 bytes, its manifest says 3,")
    assert told[keys[3]] == "S3 states no SHA256 over the whole of it"
    assert told[keys[4]] == NO_ARCHIVE
    assert told[keys[7]].startswith("it has no manifest")
    assert told[archive_key(8, "object")] == f"its manifest names {keys[8]}"
    assert told["manifests/0000000005.json"].startswith("it cannot be read: the document")
    assert told["manifests/0000000006.json"] == f"it is the manifest of {keys[8]}"
    assert winners(site) == {"key-8": 8}
    assert set(site.archives.rows) == {8}


def test_a_large_object_is_proved_by_the_checksum_that_its_manifest_states() -> None:
    source = replace(source_of("large"), sha256="", md5="", checksums={"CRC64NVME": "AAAAAAAAAAA="})
    manifest = single(archive=1, bucket=CONTENT, object_key=archive_key(1, "object"), source=source)
    size = source.size_bytes
    assert unproven(manifest, size_bytes=size, checksums={"CRC64NVME": "AAAAAAAAAAA=", "SHA256": "x"}) == ""
    assert unproven(manifest, size_bytes=size, checksums={"CRC64NVME": "AAAAAAAAAAE="}).startswith("its CRC64NVME is")
    assert unproven(manifest, size_bytes=size, checksums={}) == "S3 states no CRC64NVME over the whole of it"


def test_a_manifest_that_vanishes_after_it_was_listed_is_left_out() -> None:
    site = Site()
    site.archive(1, "a")
    rebuilder = site.rebuilder()
    rebuilder.store = Watched(site.store, site.store.manifests.clear)
    [told] = rebuilder.rebuild()
    assert refused(told) == {"manifests/0000000001.json": "it was listed, and is not there"}


def test_archives_without_manifests_are_told_of_once() -> None:
    site = Site()
    site.archive(1, "a")
    del site.store.manifests[1]
    assert not site.rebuild(missing_told=True).left_out


def test_an_archive_s_row_that_states_another_object_is_left_and_named() -> None:
    site = Site()
    manifest = site.archive(1, "a")
    site.rebuild()
    site.archives.rows[1] = replace(site.archives.rows[1], object_version_id="another")
    assert "the row was left as it is" in refused(site.rebuild())[manifest.object_key]
    assert site.archives.rows[1].object_version_id == "another"


def test_an_archive_that_was_written_and_whose_writer_died_is_finished() -> None:
    site = Site()
    site.archive(1, "a")
    site.rebuild()
    whole = site.archives.rows[1]
    site.archives.rows[1] = replace(whole, state=ArchiveState.WRITTEN, archived_at=None)
    site.rebuild()
    assert site.archives.rows[1] == whole


def test_an_archive_that_was_written_after_it_was_listed_has_its_manifest_s_time() -> None:
    site = Site()
    site.archive(1, "a")
    listing = MemoryListing(MemoryArchiveStore(content=MemoryContent(), manifests=site.store.manifests))
    rebuilder = site.rebuilder()
    rebuilder.listing = listing
    assert [each.archives for each in rebuilder.rebuild()] == [1]
    assert site.archives.rows[1].written_at == START


# The counter, and the largest serial


def test_a_counter_that_is_ahead_stays() -> None:
    _, site = lived()
    site.bundles.drawn = 1_000_000
    site.rebuild()
    assert site.bundles.drawn == 1_000_000


def test_the_counter_of_an_empty_bucket_stays_at_the_beginning() -> None:
    site = Site()
    site.rebuild()
    assert site.bundles.drawn == 0


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1, 5_000), max_size=8), st.sets(st.integers(1, 9_999_999_999), max_size=4))
def test_the_largest_serial_is_found_among_gaps_and_foreign_keys(archives: set[int], manifests: set[int]) -> None:
    site = Site()
    site.archive(1, "a")
    stated, manifest = site.store.stated.popitem()[1], site.store.manifests.pop(1)
    site.store.stated |= {archive_key(serial, "object"): stated for serial in archives}
    site.store.manifests |= dict.fromkeys(manifests, manifest)
    listing = MemoryListing(site.store, foreign=["archives/notes.txt", "archives/-", "manifests/old/1.json"])
    assert largest_serial(listing) == max([0, *archives, *manifests])


# Failures that pass


class Failing(MemoryFiles):
    """An index that is throttled so many times."""

    failures: int = 0

    def get(self, identities: Sequence[tuple[str, str]], *, consistent: bool = True) -> Any:
        if self.failures:
            self.failures -= 1
            raise Transient("throttled")
        return super().get(identities)


def test_what_fails_for_the_moment_is_tried_again_after_growing_pauses() -> None:
    site = Site(files=Failing())
    site.archive(1, "a")
    site.files.failures = 3  # type: ignore[attr-defined]  # it is Failing
    site.rebuild()
    assert site.paused == list(PAUSES_S[:3])
    assert winners(site) == {"a": 1}


def test_what_fails_for_good_ends_the_rebuild() -> None:
    site = Site(files=Failing())
    site.archive(1, "a")
    site.files.failures = len(PAUSES_S) + 1  # type: ignore[attr-defined]  # it is Failing
    with pytest.raises(Transient):
        site.rebuild()
    assert site.paused == list(PAUSES_S)
    assert not site.archives.rows


# Beside the pipeline


def at_call(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Something that acts before the call with this number."""
    calls = 0

    def before() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            act()

    return before


@pytest.mark.parametrize("number", range(1, 14))
def test_a_rebuild_between_any_two_steps_of_a_writer_leaves_its_archive_as_it_would_be(number: int) -> None:
    cloud = MemoryCloud()
    versions = cloud.versions(3)
    cloud.collect(versions)
    site = Site(store=cloud.store, files=cloud.files, archives=cloud.archives, bundles=cloud.bundles)
    before = at_call(number, site.rebuild)
    for port in ("store", "files", "archives", "bundles"):
        setattr(cloud, port, Watched(getattr(cloud, port), before))
    cloud.drain()
    site.rebuild()
    cloud.store, cloud.files, cloud.archives, cloud.bundles = site.store, site.files, site.archives, site.bundles
    cloud.verify(versions)
    assert set(site.archives.rows) == {1}
    assert [bundle.state for bundle in site.bundles.rows.values()] == [BundleState.ARCHIVED]


def test_whatever_the_pipeline_does_between_two_steps_of_a_rebuild_stays() -> None:
    for number in range(1, 40):
        cloud, site = lived()
        site.lose_tables()
        cloud.files, cloud.archives, cloud.bundles = site.files, site.archives, site.bundles
        repairer = Repairer(bundles=cloud.bundles, bundles_queue=cloud.bundles_queue, large_queue=cloud.large_queue)

        def archive_and_repair(cloud: MemoryCloud = cloud, repairer: Repairer = repairer) -> None:
            cloud.collect([cloud.version("a"), cloud.version("new")])
            cloud.drain()
            if 6 in cloud.archives.rows:
                repairer.order(cloud.archives.rows[6], [cloud.version("f")], run="run", now=cloud.now)
                cloud.drain()

        rebuilder = site.rebuilder(before=at_call(number, archive_and_repair))
        rebuilder.mend_counter(7)
        list(rebuilder.rebuild())
        names = winners(site)
        repaired = site.archives.rows[6].superseded_by if 6 in site.archives.rows else 0
        assert names.pop("new") > 7, number
        assert names == {"a": 7, "b": 7, "c": 7, "d": 7, "e": 2, "f": repaired or 6, "large": 4}, number
        assert not [bundle for bundle in site.bundles.rows.values() if not bundle.finished]
        assert all(row.state is ArchiveState.ARCHIVED for row in site.archives.rows.values())
