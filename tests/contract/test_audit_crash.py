"""StartAudit and VerifyAudit die between any two of their calls to AWS, and run again.

Every call that writes is tried: a first life finds them. Two runs audit one archive. Afterwards each audit has ended
once, with the right verdict, the archive was thawed once, and whoever has to know was told of both runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from moto.s3.models import s3_backends

import start_audit
import verify_audit
from neve.aws import clients
from neve.domain.audit import DRAW, SWEEP, AuditRequest, Cause, RunRequest, render_audit_request, render_run_request
from neve.domain.index import ArchiveRow
from neve.domain.restore import render_thawed
from neve.domain.verdict import Verdict
from tests.moto_cloud import ARCHIVE, CONTENT, Killed, MotoCloud, moto_cloud
from tests.moto_state import MotoState

TARGET = 4_000
BODIES = {"deleted": b"d" * 800, "flipped": b"f" * 900}
ASKED = "20261122-120000-aaaaaaaa"
QUEUES = ("audits", "verify")


@dataclass(frozen=True)
class World:
    """A cloud with one archive, in which a bit of one member is not as it was; the source of the other is gone."""

    cloud: MotoCloud
    archive: ArchiveRow
    state: MotoState


@contextmanager
def archived_world() -> Iterator[World]:
    with moto_cloud(target_bytes=TARGET) as cloud, patch.object(start_audit, "SystemRandom", lambda: random.Random(1)):
        versions = {key: cloud.upload(key, body) for key, body in BODIES.items()}
        cloud.announce(*versions.values())
        cloud.run()
        clients.s3().delete_object(Bucket=CONTENT, Key="deleted", VersionId=versions["deleted"].version_id)
        [row] = cloud.archives.all()
        [region] = s3_backends["123456789012"].values()
        stored = region.get_object(ARCHIVE, row.object_key, version_id=row.object_version_id)
        assert stored
        stored.value = stored.value.replace(BODIES["flipped"], b"g" + BODIES["flipped"][1:])  # type: ignore[misc]  # it has a setter
        yield World(cloud, row, cloud.state())


def run(cloud: MotoCloud) -> int:
    """Deliver until nothing is left, thaws ending meanwhile; how often the process died."""
    deaths = 0
    while True:
        try:
            cloud.run(*QUEUES)
        except Killed:
            deaths += 1
            continue
        if not cloud.complete_thaws("verify"):
            return deaths


def sweep(cloud: MotoCloud) -> int:
    """What the sweep does once every lease and claim is long over; how often the process died."""

    def later() -> datetime:
        return datetime.now(UTC) + timedelta(hours=7)

    with patch.object(start_audit, "now", later), patch.object(verify_audit, "now", later):
        start_audit.starter.cache_clear()
        verify_audit.verifier.cache_clear()
        cloud.queue("audits").send(SWEEP)
        deaths = run(cloud)
    verify_audit.verifier.cache_clear()
    return deaths


def verify(cloud: MotoCloud, archive: ArchiveRow) -> None:
    asked, drawn = cloud.audits.run(ASKED), next(run for run in cloud.audits.runs() if run.id != ASKED)
    assert asked
    assert asked.drawn == {Cause.ASKED: (archive.serial,)}
    assert drawn.drawn == {Cause.RANDOM: (archive.serial,), Cause.ROLLING: ()}
    assert cloud.audits.rolling().revision == 1
    told = [body.split(":")[0] for body in cloud.bodies("alerts")]
    assert set(told) == {f"Audit run {asked.id}", f"Audit run {drawn.id}"}
    for run in (asked, drawn):
        [report] = cloud.audits.reports(run.id)
        assert report.verdict is Verdict.ARCHIVE_DAMAGED
        assert report.counts == {Verdict.SOURCE_GONE: 1, Verdict.ARCHIVE_DAMAGED: 1}
        assert [finding.key for finding in report.findings] == ["flipped"]
        assert (run.ended, run.verdicts, run.told) == (1, {Verdict.ARCHIVE_DAMAGED: 1}, True)
        assert (run.members, run.size_bytes) == (2, archive.size_bytes)
    assert len(list(cloud.audits.runs())) == len(list(cloud.audits.reports())) == 2
    assert cloud.audits.last([archive.serial])[archive.serial].verdict is Verdict.ARCHIVE_DAMAGED
    assert [(key, status) for key, _, _, status in cloud.glacier.asked if status == 202] == [(archive.object_key, 202)]
    far = datetime.now(UTC) + timedelta(days=9)
    assert not list(cloud.audits.due(far))
    assert not list(cloud.audits.untold(far))
    assert not list(cloud.parking_lot.all())


def live_through(world: World, *, kill_at: int, kill_after: bool) -> int:
    """One life with a death in it: how often the process died."""
    cloud = world.cloud
    cloud.begin_again(world.state)
    cloud.queue("audits").send(DRAW)
    cloud.queue("audits").send(render_run_request(RunRequest(id=ASKED, archives=(1,))))
    cloud.kill_at, cloud.kill_after = kill_at, kill_after
    deaths = run(cloud)
    for each in cloud.audits.runs():  # messages come twice, and late
        cloud.queue("audits").send(render_audit_request(AuditRequest(run=each.id, archive=world.archive.serial)))
    cloud.queue("verify").send(render_thawed(world.archive.serial))
    deaths += run(cloud) + sweep(cloud)
    verify(cloud, world.archive)
    return deaths


HALVES = 2
"""The deaths are dealt out to so many tests, which run side by side."""


@pytest.mark.parametrize("half", range(HALVES))
def test_dying_after_any_call_to_aws_loses_and_doubles_nothing(half: int) -> None:
    """Dying before a call, or after one that reads, is dying after the last that wrote: AWS cannot tell them apart."""
    with archived_world() as world:
        assert live_through(world, kill_at=0, kill_after=False) == 0
        writes = world.cloud.writes
        assert len(writes) > 20
        for number in [0, *writes][half::HALVES]:  # 0: before the first call
            deaths = live_through(world, kill_at=max(number, 1), kill_after=number > 0)
            assert deaths == 1, f"call {number}"
