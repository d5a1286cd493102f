"""Functions at work side by side: every order of their calls that two or three preemptions allow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from neve.domain.bundle import BundleState, Lane, Limits, requested_bundle
from neve.domain.index import FileRow
from neve.domain.outcome import Outcome
from neve.domain.version import ObjectVersion
from neve.errors import SourceDamaged, Transient
from tests.interleave import Steps, Task, explored
from tests.memory import (
    MemoryArchives,
    MemoryArchiveStore,
    MemoryBundles,
    MemoryCloud,
    MemoryContent,
    MemoryFiles,
    MemoryQueue,
)

LIMITS = Limits(target_bytes=1_000, max_members=4, max_age_s=20)


def watched(steps: Steps, limits: Limits = LIMITS) -> MemoryCloud:
    """A cloud whose ports hand the turn on before each call."""
    content = MemoryContent()
    return MemoryCloud(
        limits=limits,
        bundles=steps.watch(MemoryBundles()),
        archives=steps.watch(MemoryArchives()),
        files=steps.watch(MemoryFiles()),
        content=content,
        store=steps.watch(MemoryArchiveStore(content=content)),
        bundles_queue=steps.watch(MemoryQueue()),
        large_queue=steps.watch(MemoryQueue()),
        collect_queue=steps.watch(MemoryQueue()),
    )


def collecting(cloud: MemoryCloud, versions: Sequence[ObjectVersion]) -> Task:
    return lambda: (cloud.collect(versions), None)[1]


def timers(cloud: MemoryCloud, *, lease_s: int = 300) -> Task:
    """WriteArchive: takes whatever waits, timers too, before their time and before their bundle."""

    def work() -> None:
        sent = cloud.bundles_queue.sent
        for _ in range(3):
            if not sent:
                return
            body, _ = sent.pop(0)
            try:
                cloud.write(requested_bundle(body), lease_s=lease_s)
            except Transient:
                sent.append((body, 0))

    return work


def open_bundles(cloud: MemoryCloud) -> int:
    """How many bundles wait to be filled; one that is full only waits for its message."""
    return sum(
        bundle.state is BundleState.OPEN and not LIMITS.full(size_bytes=bundle.size_bytes, count=bundle.count)
        for bundle in cloud.bundles.rows.values()
    )


def noted(cloud: MemoryCloud, version: ObjectVersion) -> bool:
    """Whether the version is in the parts of a bundle that will be written, or was."""
    return version.identity in cloud.files.rows or any(
        bundle.count and bundle.state is not BundleState.VOID
        for bundle in cloud.bundles.rows.values()
        if any(version.identity == part.identity for part in cloud.bundles.parts(bundle.id))
    )


@pytest.mark.parametrize(
    ("sizes", "preemptions"),
    [([[100], [200]], 3), ([[100, 100], [600, 500]], 3), ([[100], [100], [100]], 1), ([[900], [900], [900]], 1)],
    ids=["two batches", "two that fill a bundle", "three batches", "three of which two fit"],
)
def test_collects_that_race_note_every_version_and_leave_one_open_bundle(
    sizes: list[list[int]], preemptions: int
) -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps)
        batches = [
            [cloud.version(f"{number}-{place}", size) for place, size in enumerate(batch)]
            for number, batch in enumerate(sizes)
        ]
        steps.run([collecting(cloud, batch) for batch in batches])
        versions = [version for batch in batches for version in batch]
        assert all(noted(cloud, version) for version in versions)
        assert open_bundles(cloud) <= 1
        for bundle in cloud.bundles.rows.values():
            assert bundle.state is not BundleState.VOID or not bundle.count
            assert bundle.size_bytes <= LIMITS.ceiling_bytes
            assert bundle.count == len(cloud.bundles.parts(bundle.id)) or bundle.state is BundleState.VOID
        cloud.drain()
        cloud.verify(versions)
        assert not cloud.parking_lot.items
        assert sorted(cloud.archives.rows) == list(range(1, cloud.bundles.drawn + 1)), "serials are dense"

    assert explored(live, preemptions=preemptions) > 50


@pytest.mark.parametrize(
    ("lease_s", "preemptions"), [(300, 1), (-1, 2)], ids=["under a lease", "after the lease has ended"]
)
def test_timers_that_come_at_any_moment_lose_nothing_and_write_no_empty_archive(lease_s: int, preemptions: int) -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps)
        versions = [cloud.version("a", 300), cloud.version("b", 300), cloud.version("c", 600)]
        steps.run([collecting(cloud, versions[:2]), collecting(cloud, versions[2:]), timers(cloud, lease_s=lease_s)])
        assert all(noted(cloud, version) for version in versions)
        assert open_bundles(cloud) <= 1
        cloud.drain()
        cloud.verify(versions)
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=preemptions) > 90


def test_the_same_batch_collected_twice_at_once_is_archived_once() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps)
        versions = cloud.versions(2)
        steps.run([collecting(cloud, versions), collecting(cloud, versions), timers(cloud)])
        cloud.drain()
        cloud.verify(versions)
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=1) > 90


def write_twice(steps: Steps, *, then: Callable[[MemoryCloud, list[ObjectVersion]], Task] | None = None) -> MemoryCloud:
    """Two writers of one bundle who both believe that the other's lease has ended."""
    cloud = watched(steps)
    versions = cloud.versions(3)
    cloud.collect(versions)
    [bundle_id] = cloud.bundles.rows
    cloud.bundles_queue.take()
    outcomes: list[Outcome] = []

    def write() -> None:
        try:
            outcomes.append(cloud.write(bundle_id, lease_s=-1).outcome)
        except Transient:
            cloud.bundles_queue.sent.append((f'{{"bundle": "{bundle_id}"}}', 0))

    steps.run([write, write, *([then(cloud, versions)] if then else [])])
    return cloud


def test_two_writers_of_one_bundle_make_one_archive_and_each_row_once() -> None:
    def live(steps: Steps) -> None:
        cloud = write_twice(steps)
        cloud.drain()
        cloud.verify(cloud.versions(3))
        assert len(cloud.archives.rows) == len(cloud.store.stated) == 1
        assert not cloud.parking_lot.items
        [archive] = cloud.archives.rows.values()
        assert archive.duplicates == 0

    assert explored(live, preemptions=2) > 100


@pytest.mark.parametrize(("how", "preemptions"), [("gone", 2), ("damaged", 1)])
def test_a_member_that_vanishes_under_two_writers_is_archived_or_parked_and_its_neighbours_are_archived(
    how: str, preemptions: int
) -> None:
    def live(steps: Steps) -> None:
        def vanish(cloud: MemoryCloud, versions: list[ObjectVersion]) -> Task:
            def act() -> None:
                if how == "gone":
                    del cloud.content.objects[versions[1].identity]
                else:
                    cloud.content.failures[versions[1].key] = SourceDamaged(versions[1].key)

            return act

        cloud = write_twice(steps, then=vanish)
        cloud.drain()
        versions = [cloud.version(f"file-{number:03}") for number in range(3)]
        cloud.verify(versions, without=versions[1:2])
        orphans = set(cloud.store.stated) - {row.object_key for row in cloud.archives.rows.values()}
        voided = {bundle.serial for bundle in cloud.bundles.rows.values() if bundle.state is BundleState.VOID}
        assert {int(key[9:19]) for key in orphans} <= voided, "an orphan's bundle is void"

    assert explored(live, preemptions=preemptions) > 90


def test_a_member_that_fails_once_under_two_writers_is_archived() -> None:
    def live(steps: Steps) -> None:
        def flicker(cloud: MemoryCloud, versions: list[ObjectVersion]) -> Task:
            def act() -> None:
                cloud.content.failures[versions[1].key] = Transient("503")
                cloud.bundles_queue.send('{"bundle": "nobody"}')  # a step, during which it fails
                del cloud.content.failures[versions[1].key]

            return act

        cloud = write_twice(steps, then=flicker)
        cloud.drain()
        cloud.verify(cloud.versions(3))
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=1) > 50


def test_members_that_are_deleted_once_their_tar_stands_are_archived_whoever_finds_them_gone() -> None:
    """A reads the parts; B freezes, writes the tar and some rows, and dies; the members are deleted; A goes on."""

    class Half(MemoryFiles):
        died = False

        def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
            if not self.died:
                self.died = True
                super().record(rows[:1])
                raise Transient("503")
            return super().record(rows)

    completed = 0

    def live(steps: Steps) -> None:
        stood: list[bool] = []

        def delete(cloud: MemoryCloud, versions: list[ObjectVersion]) -> Task:
            cloud.files = steps.watch(Half())

            def act() -> None:
                stood.append(bool(cloud.store.stated))
                cloud.content.objects.clear()

            return act

        cloud = write_twice(steps, then=delete)
        cloud.drain()
        versions = cloud.versions(3)
        if stood == [True]:
            nonlocal completed
            completed += 1
            cloud.verify(versions)  # the tar is all that is left of them
        parked = {item.version.identity for item in cloud.parking_lot.items.values() if item.version}
        assert parked | set(cloud.files.rows) == {version.identity for version in versions}

    assert explored(live, preemptions=1) > 50
    assert completed > 10


def test_two_writers_who_find_the_manifest_of_another_bundle_draw_one_new_serial() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps)
        old, *versions = cloud.versions(3)
        cloud.collect([old])
        cloud.write(requested_bundle(cloud.bundles_queue.take()[0]))
        cloud.bundles.move_lane(Lane.LIVE, previous=cloud.bundles.lane(Lane.LIVE), to="")
        cloud.collect(versions)
        bundle_id = requested_bundle(cloud.bundles_queue.take()[0])
        row = cloud.bundles.get(bundle_id)
        cloud.bundles.rows[bundle_id] = replace(row, state=BundleState.SEALED, serial=1)

        def write() -> None:
            with contextlib.suppress(Transient):
                cloud.write(bundle_id, lease_s=-1)

        steps.run([write, write, write])
        cloud.drain()
        cloud.verify([old, *versions])
        assert sorted(cloud.store.manifests) == sorted(cloud.archives.rows)
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=1) > 50


def test_a_source_that_is_deleted_once_its_copy_stands_is_archived_whoever_finds_it_gone() -> None:
    completed = 0

    def live(steps: Steps) -> None:
        cloud = watched(steps)
        version = cloud.version("film", 2_000)
        cloud.collect([version])
        [bundle_id] = cloud.bundles.rows
        stood: list[bool] = []

        def copy() -> None:
            with contextlib.suppress(Transient):
                cloud.copy(bundle_id, lease_s=-1)

        def delete() -> None:
            stood.append(bool(cloud.store.stated))
            cloud.content.objects.clear()

        steps.run([copy, copy, delete])
        cloud.drain()
        cloud.verify([version], without=[version])
        if stood == [True]:
            nonlocal completed
            completed += 1
            assert version.identity in cloud.files.rows

    assert explored(live, preemptions=1) > 50
    assert completed > 10


def test_two_copiers_of_one_large_object_make_one_archive() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps)
        version = cloud.version("film", 2_000)
        cloud.collect([version])
        [bundle_id] = cloud.bundles.rows

        def copy() -> None:
            with contextlib.suppress(Transient):
                cloud.copy(bundle_id, lease_s=-1)

        steps.run([copy, copy])
        cloud.drain()
        cloud.verify([version])
        assert len(cloud.store.stated) == 1
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=2) > 100
