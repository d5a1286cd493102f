"""`neve drill`, over ports in memory: what it sends, shows, waits for, and exits with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve.domain.drill import DrillState, Start, parse_drill
from neve.errors import Transient
from neve_cli import clock
from neve_cli.main import app
from tests.memory import CONTENT, MemoryQueue
from tests.memory_drill import DRILL, DRILLS, DrillCloud
from tests.restore_cloud import HOUR, tar_with

NASTY = "a\nb\x1b[31m"


@dataclass
class MemoryStack:
    """What neve_cli.stack finds."""

    cloud: DrillCloud
    drills_queue: MemoryQueue = field(default_factory=MemoryQueue)

    @property
    def drills(self) -> Any:
        return self.cloud.drills

    @property
    def restores(self) -> Any:
        return self.cloud.restore.restores


class Operator:
    """Types commands; while one waits, hours pass."""

    def __init__(self, cloud: DrillCloud) -> None:
        self.cloud = cloud
        self.deployed = MemoryStack(cloud)

    def an_hour(self) -> None:
        self.cloud.inbox += self.deployed.drills_queue.take()
        self.cloud.deliver()
        self.cloud.run(HOUR)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["drill", *words])

    def read(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    made = Operator(DrillCloud((tar_with(1, ["a1", NASTY]), tar_with(2, ["b1"]))))
    monkeypatch.setattr("neve_cli.stack.find", lambda _: made.deployed)
    monkeypatch.setattr(clock, "now", lambda: made.cloud.restore.now)
    monkeypatch.setattr(clock, "pause", lambda _: made.an_hour())
    return made


def test_a_drill_is_asked_for_under_an_id_of_its_own(operator: Operator) -> None:
    told = operator.run("run", "--files", "2")
    assert told.exit_code == 0
    [(body, _)] = operator.deployed.drills_queue.sent
    start = parse_drill(body)
    assert isinstance(start, Start)
    assert start.files == 2
    assert re.fullmatch(r"20260901T120000-[0-9a-f]{6}", start.drill)
    assert f"neve drill show {start.drill}" in told.stdout


def test_a_dry_run_sends_nothing(operator: Operator) -> None:
    told = operator.run("run", "--dry-run")
    assert (told.exit_code, operator.deployed.drills_queue.sent) == (0, [])
    assert "10 files" in told.stdout
    assert operator.read("run", "--dry-run") == {"drill": None, "dry_run": True, "files": 10}


@pytest.mark.parametrize("files", ["0", "101", "many"])
def test_a_number_of_files_that_no_drill_has_is_wrong(operator: Operator, files: str) -> None:
    assert operator.run("run", "--files", files).exit_code == 2


def test_waiting_shows_how_it_goes_and_how_it_went(operator: Operator) -> None:
    told = operator.run("run", "--wait")
    assert told.exit_code == 0
    for word in (
        "not drawn yet",
        "3 files drawn of 3; 0 of 6 copies are there",
        "good",
        f"s3://{DRILLS}/.neve/drill/20260901T",
        "2.0  40 B  b1  same, same, same",
        "a\\nb\\x1b[31m",
    ):
        assert word in told.stdout
    assert "\x1b" not in told.stdout


def test_waiting_for_a_drill_that_fails_exits_with_1(operator: Operator) -> None:
    operator.cloud.restore.destination.denied[DRILLS] = "403 AccessDenied"
    told = operator.run("run", "--wait")
    assert told.exit_code == 1
    assert "failed: 3 files" in told.stdout
    assert "403 AccessDenied" in told.stdout


def test_waiting_bears_with_a_few_failures_and_not_with_many(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, failures = operator.cloud.drills.get, [Transient("slow down")] * 3

    def failing(drill_id: str) -> Any:
        if failures:
            raise failures.pop()
        return get(drill_id)

    monkeypatch.setattr(operator.cloud.drills, "get", failing)
    monkeypatch.setattr(clock, "pause", lambda _: None if failures else operator.an_hour())
    assert operator.run("run", "--wait").exit_code == 0
    failures += [Transient("slow down")] * 100
    assert operator.run("run", "--wait").exit_code == 3


def test_interrupted_it_says_that_the_drill_goes_on(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "pause", interrupt)
    told = operator.run("run", "--wait")
    assert told.exit_code == 130
    assert "goes on" in told.stderr


def test_json_of_a_drill_has_its_files_with_their_keys(operator: Operator) -> None:
    asked = operator.read("run")
    assert asked["files"] == 10
    operator.an_hour()
    running = operator.read("show", asked["drill"])
    assert (running["good"], running["took_s"], running["faults"]) == (None, None, [])
    for _ in range(5):
        operator.an_hour()
    told = operator.read("show", asked["drill"])
    assert (told["state"], told["good"], told["late"], told["drawn"]) == ("done", True, False, 3)
    assert told["buckets"] == [DRILLS, CONTENT]
    assert {each["key"] for each in told["files"]} == {"a1", NASTY, "b1"}
    assert {found["outcome"] for each in told["files"] for found in each["found"]} == {"same"}
    assert [each["drill"] for each in operator.read("list")] == [asked["drill"]]


def test_all_drills_are_listed_or_the_newest(operator: Operator) -> None:
    operator.cloud.start(drill_id=DRILL)
    operator.cloud.run()
    operator.cloud.start(drill_id="20260902T120000-0a1b2c")
    told = operator.run("list").stdout.splitlines()
    assert len(told) == 3
    assert told[1].startswith(DRILL)
    assert told[1].endswith("good")
    assert told[2].endswith("-")
    assert [each["drill"] for each in operator.read("list", "--last", "1")] == ["20260902T120000-0a1b2c"]


def test_how_a_drill_went_is_one_word_in_the_list(operator: Operator) -> None:
    operator.cloud.restore.thaw_takes = 30 * HOUR
    operator.cloud.start()
    operator.cloud.run(25 * HOUR)
    assert operator.run("list").stdout.rstrip().endswith("late")
    operator.cloud.run(7 * HOUR)
    assert operator.run("list").stdout.rstrip().endswith("failed: late")
    empty = Operator(DrillCloud(()))
    empty.cloud.start()
    operator.cloud.drills.rows.clear()
    operator.cloud.drills.rows.update(empty.cloud.drills.rows)
    assert operator.run("list").stdout.rstrip().endswith("nothing to drill")


def test_a_manifest_that_is_gone_is_shown(operator: Operator) -> None:
    operator.cloud.restore.store.manifests.clear()
    operator.cloud.start()
    assert operator.cloud.drill.state is DrillState.DONE
    told = operator.run("show", DRILL)
    assert told.exit_code == 1
    assert "! file 1." in told.stdout
    assert "manifest is gone" in told.stdout


def test_a_drill_that_does_not_exist_is_told_from_one_that_was_just_asked_for(operator: Operator) -> None:
    told = operator.run("show", "20260801T120000-0a1b2c")
    assert told.exit_code == 1
    assert "there is no drill" in told.stderr
    young = operator.run("show", DRILL)
    assert (young.exit_code, "not drawn yet" in young.stdout) == (0, True)
    assert operator.read("show", DRILL) == {"drill": DRILL, "state": "not drawn yet"}
