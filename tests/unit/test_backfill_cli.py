"""`neve backfill`, over ports in memory: what it shows, asks, begins, waits for, and exits with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve.aws.executions import Execution
from neve.domain.backfill import Backfill, BackfillState
from neve.errors import Transient
from neve_cli import clock
from neve_cli.main import app
from tests.memory_backfill import BackfillWorld, MemoryBackfills, stored

SECOND = timedelta(seconds=1)
NASTY = "a\nb\x1b[31m/"


@dataclass
class Machine:
    """Executions by name, which do nothing by themselves."""

    given: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    standing: dict[str, Execution] = field(default_factory=dict)
    fails: BaseException | None = None

    def start(self, name: str, given: Mapping[str, Any]) -> None:
        if self.fails:
            raise self.fails
        self.given[name] = given
        self.standing.setdefault(name, Execution(status="RUNNING"))

    def look(self, name: str) -> Execution | None:
        return self.standing.get(name)


@dataclass
class Operator:
    """Types commands; while one waits, every execution takes a step."""

    world: BackfillWorld
    backfill_machine: Machine = field(default_factory=Machine)
    waiting: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(
        default_factory=lambda: {
            "BackfillStateMachine": "arn",
            "StorageClass": "GLACIER",
            "TargetBytes": "26214400",
            "MaxAgeSeconds": "20",
            "BackfillWriteConcurrency": "10",
            **{
                f"Backfill{name}{kind}Queue": f"{name}{kind}"
                for name in ("", "Bundles", "Large")
                for kind in ("", "DeadLetter")
            },
        }
    )
    pauses: Callable[[], None] = lambda: None

    @property
    def backfills(self) -> MemoryBackfills:
        return self.world.backfills

    @property
    def sqs(self) -> Any:
        return self

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: N803  # boto3's names
        first, *others = AttributeNames
        return {"Attributes": {first: str(self.waiting.get(QueueUrl, 0)), **dict.fromkeys(others, "0")}}

    def a_while(self) -> None:
        self.world.now += SECOND
        self.pauses()
        for name, execution in list(self.backfill_machine.standing.items()):
            if execution.alive:
                self._goes_on(name)

    def _goes_on(self, name: str) -> None:
        backfill_id, flow = self.backfill_machine.given[name]["backfill"], self.world.backfiller
        for number in flow.plan(backfill_id).shards[:1]:
            flow.advance(backfill_id, number, owner=name, until=self.world.now + timedelta(minutes=15))
        flow.end(backfill_id, execution=name)
        if self.backfills.rows[backfill_id].state is not BackfillState.RUNNING:
            self.backfill_machine.standing[name] = Execution(status="SUCCEEDED")

    def run(self, *words: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(app, ["backfill", *words], input=typed)

    def read(self, *words: str) -> Any:
        told = self.run(*words, "--json")
        return json.loads(told.stdout)

    @property
    def newest(self) -> Backfill:
        return next(self.backfills.all())

    def dies(self) -> None:
        self.backfill_machine.standing[self.newest.execution] = Execution(status="ABORTED", cause="by hand")


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    world = BackfillWorld()
    world.add(*(stored(f"{folder}/{number}", size_bytes=1_000) for folder in "abc" for number in range(4)))
    world.add(stored("a/large", size_bytes=30_000_000), stored("a/frozen", storage_class="DEEP_ARCHIVE"))
    made = Operator(world)
    monkeypatch.setattr("neve_cli.stack.find", lambda _: made)
    monkeypatch.setattr(clock, "now", lambda: world.now)
    monkeypatch.setattr(clock, "pause", lambda _: made.a_while())
    return made


# -- Beginning -------------------------------------------------------------------------------------------------------


def test_what_it_takes_is_shown_and_it_begins_when_the_operator_says_so(operator: Operator) -> None:
    told = operator.run("--prefix", "a/", "--rate", "50", typed="y\n")
    assert told.exit_code == 0, told.output
    this = operator.newest
    assert (this.prefix, this.rate, this.dry_run, this.attempt) == ("a/", 50, False, 1)
    assert operator.backfill_machine.given == {f"{this.id}-1": {"backfill": this.id}}
    for word in ("keys that begin with 'a/', by its listing, at most 50 versions a second",
                 "unknown: `neve backfill --dry-run` counts them", "for a million of 100.0 KB",
                 f"neve backfill stop {this.id}"):  # fmt: skip
        assert word in told.output


def test_nothing_begins_when_the_operator_says_no(operator: Operator) -> None:
    assert operator.run(typed="n\n").exit_code == 1
    assert not operator.backfills.rows


def test_waiting_ends_well_when_everything_is_announced(operator: Operator) -> None:
    told = operator.run("run", "--yes", "--wait")
    assert told.exit_code == 0, told.output
    assert "13 versions announced" in told.output
    assert ": finished" in told.output
    assert "1 frozen ones left out" in told.output
    assert len(operator.world.announced()) == 13


def test_as_json_it_tells_what_was_begun_and_what_is_not_known(operator: Operator) -> None:
    told = operator.read("--yes")
    assert (told["backfill"], told["state"], told["dry_run"]) == (operator.newest.id, "running", False)
    assert (told["offer"]["counted"], told["offer"]["usd"]) == (None, None)
    assert 1 < told["offer"]["per_million_usd"] < 10


@pytest.mark.parametrize(
    "words",
    [("--rate", "fast"), ("--rate", "0"), ("--inventory", "reports/"), ("--inventory", "s3://"),
     ("--inventory", "s3://UPPER/x/"), ("--prefix", "x" * 2000)],
)  # fmt: skip
def test_what_cannot_be_is_a_wrong_command_line(operator: Operator, words: tuple[str, ...]) -> None:
    assert operator.run(*words, "--yes").exit_code == 2
    assert not operator.backfills.rows


def test_stacks_of_an_older_neve_are_named_with_the_remedy(operator: Operator) -> None:
    del operator.outputs["BackfillStateMachine"]
    told = operator.run("--yes")
    assert told.exit_code == 3
    assert "older neve" in told.stderr
    assert "cdk deploy --all" in told.stderr


def test_a_second_one_over_the_same_keys_is_refused_unless_it_is_insisted_on(operator: Operator) -> None:
    assert operator.run("--dry-run", "--no-wait").exit_code == 0
    operator.world.now += SECOND
    assert operator.run("--prefix", "a/", typed="y\n").exit_code == 0, "a dry run announces nothing"
    first = operator.newest
    for prefix in ("", "a/1", "a/"):
        told = operator.run("--prefix", prefix, typed="y\n")
        assert told.exit_code == 1
        assert f"backfill {first.id} is running over the same keys" in told.stderr
    assert operator.run("--prefix", "b/", typed="y\n").exit_code == 0
    operator.world.now += SECOND
    assert operator.run("--prefix", "a/", "--yes").exit_code == 0
    assert operator.run("--prefix", "a/", "--dry-run", "--no-wait").exit_code == 0, "a dry run announces nothing"


# -- Dry runs --------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_prices_and_announces_nothing(operator: Operator) -> None:
    told = operator.run("--dry-run", "--rate", "100")
    assert told.exit_code == 0, told.output
    for word in ("13, 30.0 MB, 2.3 MB on average", "1 of them larger than 26.2 MB",
                 "besides, 1 version (100 B) in GLACIER or DEEP_ARCHIVE",
                 "a million, by the list prices of us-east-1", "archived already",
                 "at least, at 100 versions a second"):  # fmt: skip
        assert word in told.output
    assert not operator.world.announced()


def test_a_backfill_shows_what_the_dry_run_of_the_same_prefix_has_counted(operator: Operator) -> None:
    operator.run("--dry-run", "--prefix", "a/")
    counted = operator.newest
    operator.world.now += SECOND
    operator.run("--dry-run")
    told = operator.run("--prefix", "a/", typed="n\n")
    assert "5, 30.0 MB, 6.0 MB on average; counted 2026-09-01 12:00:" in told.output
    assert f"by {counted.id}" in told.output
    document = operator.read("--prefix", "a/", "--yes")
    assert document["offer"]["counted"] == {"versions": 5, "size_bytes": 30_004_000, "frozen": 1, "frozen_bytes": 100}
    assert document["offer"]["counted_by"] == counted.id
    items = document["offer"]["items"]
    assert document["offer"]["usd"] == pytest.approx(sum(item["usd"] for item in items), abs=1e-6)
    assert operator.read("status", counted.id)["offer"]["usd"] == document["offer"]["usd"]


def test_a_dry_run_that_finds_nothing_says_so(operator: Operator) -> None:
    told = operator.run("--dry-run", "--prefix", "z")
    assert told.exit_code == 0, told.output
    assert "versions  0, 0 B" in told.output
    assert "price" not in told.output


# -- Looking ---------------------------------------------------------------------------------------------------------


def test_status_shows_the_newest_with_its_shards_queues_and_what_is_left(operator: Operator) -> None:
    operator.run("--dry-run")
    operator.world.now += SECOND
    operator.run("--yes")
    assert "not split yet" in operator.run("status").output
    operator.waiting = {"": 3, "Bundles": 12, "LargeDeadLetter": 1}
    operator.a_while()
    told = operator.run("status")
    assert told.exit_code == 0, told.output
    for word in (": running", "1 of 14 done", "3 announcements, 12 bundles, 0 large files waiting",
                 "if there are 13 as a dry run counted", "1 message for backfill large failed"):  # fmt: skip
        assert word in told.output
    fields = operator.read("status", operator.newest.id)
    assert (fields["standing"], fields["execution"]["status"], fields["shards_done"]) == ("running", "RUNNING", 1)
    assert fields["left_s"] > 0


def test_an_execution_that_died_is_told_and_resumed(operator: Operator) -> None:
    operator.run("--yes")
    operator.a_while()
    operator.dies()
    told = operator.run("status")
    assert told.exit_code == 1
    this = operator.newest
    assert "its execution has ended (ABORTED): by hand" in told.output
    assert f"neve backfill resume {this.id}" in told.output
    assert operator.run("resume", this.id, "--wait").exit_code == 0
    assert operator.newest.attempt == 2
    assert sorted(operator.world.announced()) == sorted(set(operator.world.announced()))


def test_one_that_dies_while_somebody_waits_ends_the_waiting(operator: Operator) -> None:
    operator.pauses = operator.dies
    told = operator.run("--yes", "--wait")
    assert told.exit_code == 1
    assert "stands still" in told.output


def test_one_that_was_never_started_is_told_and_resumed(operator: Operator) -> None:
    operator.backfill_machine.fails = Transient("the network")
    told = operator.run("--yes")
    this = operator.newest
    assert told.exit_code == 3
    assert f"backfill {this.id} is noted, and perhaps not started" in told.stderr
    assert operator.run("status").exit_code == 0, "Step Functions may take a moment to show it"
    operator.world.now += timedelta(minutes=2)
    told = operator.run("status")
    assert told.exit_code == 1
    assert "it was never started" in told.output
    operator.backfill_machine.fails = None
    assert operator.run("resume", this.id, "--wait").exit_code == 0
    assert operator.newest.state is BackfillState.FINISHED


def test_one_that_comes_to_its_end_between_two_looks_has_not_died(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.run("--yes")
    this = operator.newest

    def look(_: str) -> Execution:
        operator.backfills.end(this.id, operator.world.now)
        return Execution(status="SUCCEEDED")

    monkeypatch.setattr(operator.backfill_machine, "look", look)
    told = operator.run("status")
    assert told.exit_code == 0
    assert ": finished" in told.output


def test_what_keeps_it_from_going_on_is_told(operator: Operator) -> None:
    operator.world.inventory.refused = "it lacks StorageClass"
    told = operator.run("--inventory", "s3://reports/inventory/", "--yes", "--wait")
    assert told.exit_code == 1
    assert "it lacks StorageClass" in told.output
    assert ": stopped" in told.output


def test_problems_of_shards_are_told_by_their_numbers(operator: Operator) -> None:
    operator.run("--yes")
    for number in range(7):
        shard = operator.backfills.shard(operator.newest.id, number)
        operator.backfills.swap(shard, replace(shard, problem=f"file {number} {NASTY}"))
    told = operator.run("status")
    assert r"shard 0: file 0 a\nb\x1b[31m/" in told.output
    assert "and 2 more shards with problems" in told.output
    assert len(operator.read("status")["shard_problems"]) == 7


def test_whoever_waits_is_told_of_problems_while_they_are_tried_again(operator: Operator) -> None:
    def deny() -> None:
        operator.pauses = lambda: None
        operator.world.backfiller.plan(operator.newest.id)
        shard = operator.backfills.shard(operator.newest.id, 1)
        operator.backfills.swap(shard, replace(shard, problem=f"denied {NASTY}"))

    operator.pauses = deny
    told = operator.run("--dry-run")
    assert r"done, 2 versions counted, 2.0 KB; ! shard 1: denied a\nb" in told.output


def test_list_shows_all_and_the_newest_only(operator: Operator) -> None:
    operator.run("--dry-run", "--prefix", "a/")
    operator.world.now += SECOND
    operator.run("--yes", "--prefix", NASTY)
    told = operator.run("list")
    assert "finished, dry run" in told.output
    assert r"a\nb\x1b[31m/" in told.output
    assert [each["backfill"] for each in operator.read("list", "--last", "1")] == [operator.newest.id]
    assert [each["versions"] for each in operator.read("list")] == [5, 0]


@pytest.mark.parametrize("words", [("status", "nothing"), ("stop", "nothing"), ("resume", "nothing"), ("status",)])
def test_what_is_not_there_is_a_problem(operator: Operator, words: tuple[str, ...]) -> None:
    told = operator.run(*words)
    assert told.exit_code == 1
    assert "there is no backfill" in told.stderr


# -- Stopping and going on -------------------------------------------------------------------------------------------


def test_one_that_is_stopped_goes_on_where_it_stood_at_another_rate(operator: Operator) -> None:
    operator.run("--yes", "--rate", "5")
    operator.a_while()
    this = operator.newest
    assert operator.run("stop", this.id, "--dry-run").exit_code == 0
    assert operator.newest.state is BackfillState.RUNNING
    told = operator.run("stop", this.id)
    assert told.exit_code == 0
    assert f"neve backfill resume {this.id}" in told.output
    operator.a_while()
    told = operator.run("status")
    assert told.exit_code == 0, "somebody has stopped it, that is no problem"
    assert ": stopped" in told.output
    assert operator.run("resume", this.id, "--dry-run").exit_code == 0
    assert operator.backfills.rows[this.id].state is BackfillState.STOPPED
    assert operator.run("resume", this.id, "--rate", "0", "--wait").exit_code == 0
    assert (operator.newest.rate, operator.newest.state) == (0, BackfillState.FINISHED)
    assert len(operator.world.announced()) == len(set(operator.world.announced())) == 13


def test_one_that_is_stopped_while_somebody_waits_has_not_come_to_its_end(operator: Operator) -> None:
    def stop() -> None:
        operator.backfills.stop(operator.newest.id, operator.world.now)

    operator.pauses = stop
    told = operator.run("--yes", "--wait")
    assert told.exit_code == 1
    assert ": stopped" in told.output


def test_what_runs_is_not_resumed_and_what_has_ended_neither_stopped_nor_resumed(operator: Operator) -> None:
    operator.run("--yes")
    this = operator.newest
    assert "is running" in operator.run("resume", this.id).stderr
    operator.backfills.end(this.id, operator.world.now)
    for command in ("stop", "resume"):
        told = operator.run(command, this.id)
        assert told.exit_code == 1
        assert f"is finished: there is nothing to {command}" in told.stderr
    assert operator.newest.attempt == 1


def test_as_json_stop_and_resume_tell_what_stands_now(operator: Operator) -> None:
    operator.run("--yes")
    this = operator.newest.id
    assert operator.read("stop", this)["state"] == "stopped"
    assert operator.read("resume", this)["attempt"] == 2
    operator.dies()
    assert operator.read("resume", this, "--wait")["standing"] == "finished"


def test_whoever_stops_waiting_is_told_how_to_look_and_how_to_stop_it(operator: Operator) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    operator.pauses = interrupt
    told = operator.run("--yes", "--wait")
    assert told.exit_code == 130
    this = operator.newest
    assert f"backfill {this.id} goes on without this command: `neve backfill status {this.id}`" in told.stderr
    assert f"`neve backfill stop {this.id}` stops it" in told.stderr
    assert this.state is BackfillState.RUNNING


def test_looks_that_fail_now_and_then_are_made_again(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    look, failures = operator.backfill_machine.look, iter([Transient("throttled")] * 3)

    def sometimes(name: str) -> Execution | None:
        for failure in failures:
            raise failure
        return look(name)

    monkeypatch.setattr(operator.backfill_machine, "look", sometimes)
    assert operator.run("--yes", "--wait").exit_code == 0
