"""The function Drill on moto: from the schedule's message to the mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from neve.aws import clients
from neve.aws.drills_table import DynamoDrills
from neve.domain.drill import Drill, DrillState, Outcome, Start, is_drill_id, render_start
from neve.domain.events import DRILL_PREFIX
from tests.moto_cloud import AUDITS, CONTENT, ELSEWHERE, MotoCloud, moto_cloud

ID = "20260901T120000-0a1b2c"
FOLDER = f"{DRILL_PREFIX}{ID}/"


@dataclass(frozen=True)
class World:
    """A cloud in which some files are archived."""

    cloud: MotoCloud

    def say(self, body: str) -> None:
        self.cloud.queue("drills").send(body)
        assert self.cloud.deliver("drills") == 1

    def restore(self) -> None:
        self.cloud.run()
        self.cloud.complete_thaws()
        self.cloud.run()

    def end(self) -> None:
        """Have the words of finished jobs come to Drill, as its subscription does."""
        for body in self.cloud.bodies("restored"):
            self.say(body)

    @property
    def drill(self) -> Drill:
        [found] = DynamoDrills(clients.dynamodb(), AUDITS).all()
        return found

    @property
    def test_objects(self) -> list[tuple[str, str]]:
        listed = (
            (bucket, clients.s3().list_object_versions(Bucket=bucket, Prefix=DRILL_PREFIX))
            for bucket in (CONTENT, ELSEWHERE)
        )
        return [(bucket, each["Key"]) for bucket, answer in listed for each in answer.get("Versions", [])]


@pytest.fixture
def world() -> Iterator[World]:
    with moto_cloud(target_bytes=4_000) as cloud:
        bodies = {"photos/a.jpg": b"a" * 700, "b\nc": b"b" * 800, "empty": b"", "film.mp4": b"f" * 4_001}
        cloud.announce(*(cloud.upload(key, body) for key, body in bodies.items()))
        cloud.run()
        assert len(cloud.all_files()) == 4
        yield World(cloud)


def test_a_scheduled_drill_goes_from_its_message_to_its_mail(world: World) -> None:
    world.say('{"message": "start"}')
    assert is_drill_id(world.drill.id)
    assert len(world.drill.files) == 4
    world.restore()
    assert len(world.test_objects) == 8
    world.end()
    drill = world.drill
    assert (drill.state, drill.good) == (DrillState.DONE, True)
    assert {each.outcome for found in drill.compared.values() for each in found} == {Outcome.SAME}
    assert world.test_objects == []
    [mail] = world.cloud.bodies("alerts")
    assert f"Drill {drill.id} is good. 4 files of 4" in mail
    assert len(world.cloud.all_files()) == 4, "what a drill restores is not indexed"
    world.say('{"message": "sweep"}')
    assert len(world.cloud.bodies("alerts")) == 1


def test_a_copy_with_other_bytes_is_found_and_told(world: World) -> None:
    world.say(render_start(Start(drill=ID, files=2)))
    world.restore()
    size = world.drill.files[1].digest.size_bytes
    clients.s3().put_object(Bucket=CONTENT, Key=f"{FOLDER}2", Body=b"?" * size or b"?")
    world.end()
    assert [each.place for _, each in world.drill.faults] == [f"s3://{CONTENT}/{FOLDER}2"]
    assert (world.drill.faults[0][1].outcome, world.drill.good) == (Outcome.DIFFERENT, False)
    assert world.test_objects == []
    [mail] = world.cloud.bodies("alerts")
    assert "has failed" in mail


def test_what_is_no_message_is_parked(world: World) -> None:
    world.say(json.dumps({"message": "start", "drill": "../x"}))
    [(_, parked)] = world.cloud.parking_lot.all()
    assert "no drill's id" in parked.detail
    assert world.cloud.bodies("drills") == []
