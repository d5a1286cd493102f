"""Reconcile dies after any of its calls to AWS that writes, and runs again.

A first life finds the calls. Afterwards the pass has ended once with the same counts, what was missing was announced, a
lost row is back, and whoever has to know was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import reconcile
from neve.aws import clients, invocation
from neve.aws.reconciles_table import DynamoReconciles
from neve.domain.events import parse
from neve.domain.reconcile import Outcome, PassState, StartRequest, render_start
from neve.domain.version import ObjectVersion
from tests.moto_cloud import AUDITS, CONTENT, FILES, Killed, MotoCloud, moto_cloud
from tests.moto_state import MotoState

PASS = "20260901T120000-aaaaaa"


@dataclass(frozen=True)
class World:
    """A cloud with an archive of two files, a version that no event told of, and a row that is lost."""

    cloud: MotoCloud
    archived: list[ObjectVersion]
    missing: ObjectVersion
    state: MotoState


@contextmanager
def world() -> Iterator[World]:
    with moto_cloud() as cloud:
        archived = [cloud.upload(key, key.encode()) for key in ("gone", "kept")]
        cloud.announce(*archived)
        cloud.run()
        clients.s3().delete_object(Bucket=CONTENT, Key="gone", VersionId=archived[0].version_id)
        missing = cloud.upload("never announced", b"x")
        [gone] = [
            item for item in clients.dynamodb().scan(TableName=FILES)["Items"] if item["sort"]["B"][:5] == b"gone\0"
        ]
        clients.dynamodb().delete_item(TableName=FILES, Key={name: gone[name] for name in ("shard", "sort")})
        yield World(cloud, archived, missing, cloud.state())


def run(cloud: MotoCloud, *messages: str, after: timedelta) -> int:
    """Deliver until nothing is left, so much later than now; how often the process died."""
    for message in messages:
        cloud.queue("reconciles").send(message)
    now = datetime.now(UTC) + after
    deaths = 0
    with patch.object(reconcile, "now", lambda: now), patch.object(invocation, "now", lambda: now):
        reconcile.reconciler.cache_clear()
        while True:
            try:
                cloud.run("reconciles")
            except Killed:
                deaths += 1
                continue
            return deaths


def live_through(made: World, *, kill_at: int, kill_after: bool) -> int:
    """One pass with a death in it, and the sweep once every lease is long over; how often the process died."""
    cloud = made.cloud
    cloud.begin_again(made.state)
    cloud.kill_at, cloud.kill_after = kill_at, kill_after
    deaths = run(cloud, render_start(StartRequest(id=PASS)), after=timedelta(days=2))
    deaths += run(cloud, json.dumps({"message": "sweep"}), after=timedelta(days=3))
    verify(made)
    return deaths


def verify(made: World) -> None:
    passes = DynamoReconciles(clients.dynamodb(), AUDITS)
    [this] = passes.passes()
    restored = this.counts.get(Outcome.ROW_RESTORED, 0)  # 0 if it died before that was recorded
    assert (this.state, this.complete, restored) in {(PassState.FINISHED, True, 1), (PassState.FINISHED, True, 0)}
    expected: dict[Any, int] = {Outcome.RECONCILED: 1, Outcome.MISSING: 1}
    expected |= {Outcome.ROW_RESTORED: 1} if restored else {Outcome.ARCHIVE_RECONCILED: 1}
    assert {outcome: count for outcome, count in this.counts.items() if outcome is not Outcome.SOURCE_GONE} == expected
    assert {version.identity for version in made.archived} == {(row.key, row.pin) for row in made.cloud.all_files()}
    announced = [version for body in made.cloud.bodies("collect") for version in parse(body, CONTENT).versions]
    assert {version.identity for version in announced} == {made.missing.identity}
    told = made.cloud.bodies("alerts")
    assert 1 <= len(told) <= 2, "twice only if it died between telling and noting that"
    assert all(f"Reconcile pass {PASS}" in each for each in told)
    assert not list(passes.due(datetime.now(UTC) + timedelta(days=9)))
    assert not list(made.cloud.parking_lot.all())


def test_dying_after_any_call_that_writes_counts_nothing_twice_and_leaves_nothing_out() -> None:
    with world() as made:
        assert live_through(made, kill_at=0, kill_after=False) == 0
        writes = made.cloud.writes
        assert len(writes) > 10
        for number in [0, *writes]:  # 0: before the first call
            deaths = live_through(made, kill_at=max(number, 1), kill_after=number > 0)
            assert deaths == 1, f"call {number}"
