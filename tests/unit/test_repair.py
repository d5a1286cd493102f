"""Repairs on ports in memory: a superseding bundle takes each member from wherever it is intact, and its row along."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neve.domain.bundle import BundleState, requested_bundle
from neve.domain.index import ArchiveRow
from neve.flows.repair import Repairer
from neve.flows.sweep import Sweeper
from tests.memory import MemoryCloud

RUN = "20260901-120000-abcd"


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud()


def repairer(cloud: MemoryCloud) -> Repairer:
    return Repairer(bundles=cloud.bundles, bundles_queue=cloud.bundles_queue, large_queue=cloud.large_queue)


def archived(cloud: MemoryCloud, *sizes: int) -> ArchiveRow:
    """The one archive of files of these sizes."""
    cloud.collect([cloud.version(f"file-{number}", size) for number, size in enumerate(sizes)])
    cloud.drain()
    [archive] = cloud.archives.rows.values()
    assert isinstance(archive, ArchiveRow)
    return archive


# Ordering


@pytest.mark.parametrize(("size", "queue"), [(100, "bundles_queue"), (2_000, "large_queue")])
def test_a_repair_is_a_sealed_bundle_and_its_message(cloud: MemoryCloud, size: int, queue: str) -> None:
    archive = archived(cloud, size)
    version = cloud.version("file-0", size)
    ordered = repairer(cloud).order(archive, [version], run=RUN, now=cloud.now)
    assert (ordered.id, ordered.state, ordered.supersedes) == (f"repair-{RUN}-1", BundleState.SEALED, 1)
    assert (ordered.kind, ordered.count, ordered.size_bytes) == (archive.kind, 1, size)
    assert cloud.bundles.rows[ordered.id] == ordered
    assert cloud.bundles.parts(ordered.id) == [version]
    assert [requested_bundle(body) for body in getattr(cloud, queue).take()] == [ordered.id]
    assert not cloud.bundles_queue.sent + cloud.large_queue.sent


def test_a_repair_that_is_ordered_again_keeps_its_versions_and_is_sent_its_message_until_it_is_finished(
    cloud: MemoryCloud,
) -> None:
    archive = archived(cloud, 100, 100)
    versions = [cloud.version("file-0"), cloud.version("file-1")]
    first = repairer(cloud).order(archive, versions, run=RUN, now=cloud.now)
    assert repairer(cloud).order(archive, versions[:1], run=RUN, now=cloud.now) == first
    assert cloud.bundles.parts(first.id) == versions
    assert len(cloud.bundles_queue.take()) == 2
    for state in (BundleState.ARCHIVED, BundleState.VOID):
        cloud.bundles.rows[first.id] = replace(first, state=state)
        assert repairer(cloud).order(archive, versions, run=RUN, now=cloud.now).state is state
        assert not cloud.bundles_queue.sent


def test_another_run_orders_a_repair_of_its_own(cloud: MemoryCloud) -> None:
    archive = archived(cloud, 100)
    for run in ("a", "b"):
        repairer(cloud).order(archive, [cloud.version("file-0")], run=run, now=cloud.now)
    assert {requested_bundle(body) for body in cloud.bundles_queue.take()} == {"repair-a-1", "repair-b-1"}


@pytest.mark.parametrize(("size", "queue"), [(100, "bundles_queue"), (2_000, "large_queue")])
def test_the_sweep_reminds_of_a_repair_whose_message_was_lost(cloud: MemoryCloud, size: int, queue: str) -> None:
    archive = archived(cloud, size)
    ordered = repairer(cloud).order(archive, [cloud.version("file-0", size)], run=RUN, now=cloud.now)
    getattr(cloud, queue).take()
    sweeper = Sweeper(bundles=cloud.bundles, bundles_queue=cloud.bundles_queue, large_queue=cloud.large_queue)
    assert sweeper.sweep(cloud.now) == 0
    assert sweeper.sweep(ordered.due_at.replace(year=2027)) == 1
    assert [requested_bundle(body) for body in getattr(cloud, queue).take()] == [ordered.id]
