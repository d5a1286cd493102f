"""PlanRestore and Extract die between any two of their calls to AWS, and run again.

Every call is tried: a first run counts them. Afterwards every file is where it was wanted, counted once as restored,
each archive was thawed once, nothing waits, and both jobs have ended and were told of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from neve.aws import clients
from neve.domain.restore import Ending, JobState, Request, Wanted, render_request
from neve.domain.thaw import Need, Tier
from neve.domain.version import ObjectVersion
from neve.flows.jobs import JobEnder
from neve.flows.sweep_restores import RestoreSweeper
from tests.moto_cloud import CONTENT, ELSEWHERE, Killed, MotoCloud, moto_cloud
from tests.moto_state import MotoState

TARGET = 4_000
BODIES = {
    "photos/a.jpg": b"a" * 700,
    "photos/b\nc.jpg": b"b" * 800,
    "empty": b"",
    "film.mp4": b"f" * (TARGET + 1),
}
DELETED = ("photos/a.jpg", "film.mp4")
NEED = Need(tier=Tier.STANDARD, days=1)
FIRST, SECOND = "20260901T120000-aaaaaa", "20260901T120001-bbbbbb"


@dataclass(frozen=True)
class World:
    """A cloud in which everything is archived, and some of it deleted."""

    cloud: MotoCloud
    versions: list[ObjectVersion]
    state: MotoState


@contextmanager
def archived_world() -> Iterator[World]:
    with moto_cloud(target_bytes=TARGET) as cloud:
        versions = [cloud.upload(key, body, ContentType="image/jpeg") for key, body in BODIES.items()]
        cloud.announce(*versions)
        cloud.run()
        for key in DELETED:
            clients.s3().delete_object(Bucket=CONTENT, Key=key)
        yield World(cloud, versions, cloud.state())


def request(job: str, chunk: int, chunks: int, *items: tuple[str, str]) -> str:
    return render_request(
        Request(
            job=job,
            chunk=chunk,
            chunks=chunks,
            created_at=datetime.now(UTC),
            need=NEED,
            overwrite=False,
            estimate_usd=0.01,
            items=tuple(Wanted(key=key, pin="", destination=destination) for key, destination in items),
        )
    )


def requests() -> list[str]:
    """Two jobs that want one file, and a chunk of a job that wants the archives of another chunk."""
    home = f"s3://{CONTENT}"
    return [
        request(
            FIRST,
            1,
            2,
            ("photos/a.jpg", f"{home}/photos/a.jpg"),
            ("photos/b\nc.jpg", f"s3://{ELSEWHERE}/x/b\nc.jpg"),
            ("never/there", f"{home}/never/there"),
        ),
        request(FIRST, 2, 2, ("empty", f"s3://{ELSEWHERE}/x/empty"), ("film.mp4", f"{home}/film.mp4")),
        request(SECOND, 1, 1, ("photos/a.jpg", f"s3://{ELSEWHERE}/y/a.jpg")),
    ]


def run(cloud: MotoCloud) -> int:
    """Deliver until nothing is left, thaws ending meanwhile; how often the process died."""
    deaths = 0
    while True:
        try:
            cloud.run()
        except Killed:
            deaths += 1
            continue
        if not cloud.complete_thaws():
            return deaths


def sweep(cloud: MotoCloud) -> None:
    """What the sweep does once every lease, claim and promise is long over."""

    def later() -> datetime:
        return datetime.now(UTC) + timedelta(hours=7)

    sweeper = RestoreSweeper(
        archives=cloud.archives,
        restores=cloud.restores,
        thaws=cloud.thaws,
        glacier=cloud.s3_glacier,
        requests_queue=cloud.queue("requests"),
        extract_queue=cloud.queue("extract"),
        ender=JobEnder(restores=cloud.restores, topic=cloud.topic, clock=later),
        clock=later,
    )
    sweeper.sweep(owner="sweep")
    run(cloud)


def verify(cloud: MotoCloud, versions: list[ObjectVersion]) -> None:
    first, second = cloud.restores.job(FIRST), cloud.restores.job(SECOND)
    assert first is not None
    assert second is not None
    assert first.ended == {Ending.RESTORED: 4, Ending.NOT_FOUND: 1}
    assert second.ended == {Ending.RESTORED: 1}
    assert (first.state, second.state) == (JobState.FINISHED, JobState.FINISHED)
    assert (first.files, first.size_bytes) == (5, sum(len(body) for body in BODIES.values()))
    assert first.restored_bytes == first.size_bytes
    told = [json.loads(body)["job"] for body in cloud.bodies("restored")]
    assert set(told) == {FIRST, SECOND}

    places = {
        (CONTENT, "photos/a.jpg"): "photos/a.jpg",
        (CONTENT, "film.mp4"): "film.mp4",
        (ELSEWHERE, "x/b\nc.jpg"): "photos/b\nc.jpg",
        (ELSEWHERE, "x/empty"): "empty",
        (ELSEWHERE, "y/a.jpg"): "photos/a.jpg",
    }
    stored = {bucket: clients.s3().list_object_versions(Bucket=bucket)["Versions"] for bucket in (CONTENT, ELSEWHERE)}
    for (bucket, key), source in places.items():
        answer = clients.s3().get_object(Bucket=bucket, Key=key)
        assert answer["Body"].read() == BODIES[source]
        assert answer["ContentType"] == "image/jpeg"
        listed = [each for each in stored[bucket] if each["Key"] == key]
        assert len(listed) == (2 if (bucket, key) in {(CONTENT, each) for each in DELETED} else 1)

    thawed = [key for key, _, _, status in cloud.glacier.asked if status == 202]
    assert len(thawed) == len(set(thawed)) == len(list(cloud.archives.all()))
    rows = {(row.key, row.pin): row for row in cloud.all_files()}
    assert len(rows) == len(versions) + len(DELETED), "each restored version has a row, and nothing else has"
    for key in DELETED:
        restored, archived = sorted(
            (row for row in rows.values() if row.key == key), key=lambda row: row.pin in {v.pin for v in versions}
        )
        assert (restored.archive, restored.number) == (archived.archive, archived.number)
    for row in cloud.archives.all():
        assert not cloud.restores.waiting(row.serial)
    assert not list(cloud.restores.due(datetime.now(UTC) + timedelta(days=9)))
    assert not list(cloud.parking_lot.all())


def live_through(world: World, *, kill_at: int, kill_after: bool) -> int:
    """One life with a death in it: how often the process died."""
    cloud = world.cloud
    cloud.begin_again(world.state)
    for body in requests():
        cloud.queue("requests").send(body)
    cloud.kill_at, cloud.kill_after = kill_at, kill_after
    deaths = run(cloud)
    sweep(cloud)
    verify(cloud, world.versions)
    return deaths


HALVES = 2
"""The deaths are dealt out to so many tests, which run side by side."""


@pytest.mark.parametrize("half", range(HALVES))
def test_dying_after_any_call_to_aws_loses_and_doubles_nothing(half: int) -> None:
    """Dying before a call, or after one that reads, is dying after the last that wrote: AWS cannot tell them apart."""
    with archived_world() as world:
        assert live_through(world, kill_at=0, kill_after=False) == 0
        writes = world.cloud.writes
        assert len(writes) > 30
        for number in [0, *writes][half::HALVES]:  # 0: before the first call
            deaths = live_through(world, kill_at=max(number, 1), kill_after=number > 0)
            assert deaths == 1, f"call {number}"
