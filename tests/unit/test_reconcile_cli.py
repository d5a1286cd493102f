"""`neve reconcile`, over ports in memory: what it sends, shows, waits for, and exits with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve.domain.reconcile import Outcome, PassState, StartRequest, parse
from neve.errors import Transient
from neve_cli import clock
from neve_cli.main import app
from tests.memory_reconcile import MemoryInventory, ReconcileWorld

NASTY = "a\nb\x1b[31m"


@dataclass
class Operator:
    """Types commands; while one waits, a message is delivered."""

    world: ReconcileWorld

    @property
    def reconciles(self) -> Any:
        return self.world.passes

    @property
    def archives(self) -> Any:
        return self.world.archives

    @property
    def reconciles_queue(self) -> Any:
        return self.world.queue

    def a_while(self) -> None:
        self.world.now += timedelta(minutes=1)
        if self.world.queue.sent:
            self.world.handle(self.world.queue.sent.pop(0)[0])

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["reconcile", *words])

    def read(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    world = ReconcileWorld()
    world.archive(1, [world.upload(key, key.encode()) for key in ("a", "b", "c")])
    made = Operator(world)
    monkeypatch.setattr("neve_cli.stack.find", lambda _: made)
    monkeypatch.setattr(clock, "now", lambda: world.now)
    monkeypatch.setattr(clock, "pause", lambda _: made.a_while())
    return made


@pytest.mark.parametrize("words", [[], ["run"], ["--boundary", "b", "--boundary", "a"]])
def test_a_pass_is_asked_for_under_an_id_of_its_own(operator: Operator, words: list[str]) -> None:
    told = operator.run(*words)
    assert told.exit_code == 0, told.output
    [(body, _)] = operator.world.queue.sent
    start = parse(body, scheduled="")
    assert isinstance(start, StartRequest)
    assert start.boundaries == (("a", "b") if len(words) > 1 else ())
    assert start.id.startswith("20260901T1200")
    assert f"neve reconcile show {start.id}" in told.output
    assert "not begun yet" in operator.run("show", start.id).output
    assert operator.read("show", start.id)["state"] == "not begun yet"


def test_a_dry_run_sends_nothing(operator: Operator) -> None:
    assert "3 shards" in operator.run("--dry-run", "--boundary", "b").output
    assert operator.read("run", "--dry-run") == {"pass": None, "dry_run": True, "shards": 2}
    assert not operator.world.queue.sent


def test_a_boundary_that_is_no_key_is_a_mistake_on_the_command_line(operator: Operator) -> None:
    assert operator.run("--boundary", "x" * 2000).exit_code == 2


def test_waiting_for_a_clean_pass_ends_well(operator: Operator) -> None:
    told = operator.run("--wait")
    assert told.exit_code == 0, told.output
    assert "1 of 2 shards done, 1 versions, rows and archives seen, 0 problems" in told.output
    assert ": clean" in told.output
    listed = operator.run("list").output
    assert "2/2" in listed
    assert listed.rstrip().endswith("clean")


def test_waiting_for_a_pass_with_problems_shows_them_with_their_remedies(operator: Operator) -> None:
    for number in range(25):
        operator.world.upload(f"{NASTY}{number:02}")
    del operator.world.store.manifests[1]
    told = operator.run("run", "--wait")
    assert told.exit_code == 1
    assert "missing: 25" in told.output
    assert r"a\nb\x1b[31m00 version v1: made at" in told.output
    assert "and 5 more" in told.output
    assert "archive 1\n  Next: neve rebuild-index --from-archives" in told.output
    shown = next(operator.world.passes.passes())
    assert operator.run("show", shown.id).exit_code == 1
    fields = operator.read("show", shown.id)
    assert fields["counts"] == {"reconciled": 3, "missing": 25, "manifest missing": 1}
    assert fields["findings"][0]["key"] == f"{NASTY}00"
    assert [each["pass"] for each in operator.read("list", "--last", "1")] == [shown.id]
    assert "25 missing, 1 manifest missing" in operator.run("list").output


def test_the_counts_of_a_finished_pass_outlive_its_shards(operator: Operator) -> None:
    operator.run("--wait")
    operator.world.passes.parts.clear()
    shown = next(operator.world.passes.passes())
    assert operator.read("show", shown.id)["counts"] == {"reconciled": 3, "archive reconciled": 1}


def test_a_running_pass_is_shown_as_far_as_it_is(operator: Operator) -> None:
    operator.run()
    operator.a_while()
    operator.a_while()
    shown = next(operator.world.passes.passes())
    assert operator.read("show", shown.id)["counts"] == {"archive reconciled": 1}
    told = operator.run("show", shown.id)
    assert told.exit_code == 0
    assert ": running" in told.output


@pytest.mark.parametrize(
    ("changed", "said"), [({"refused": "it lacks VersionId"}, "could not begin"), ({"done_shards": 1}, "did not end")]
)
def test_a_pass_that_saw_not_everything_is_no_good(operator: Operator, changed: dict[str, Any], said: str) -> None:
    operator.run("--wait")
    shown = next(operator.world.passes.passes())
    operator.world.passes.rows[shown.id] = replace(shown, **changed)
    told = operator.run("show", shown.id)
    assert told.exit_code == 1
    assert said in told.output


def test_where_the_inventory_was_used_it_is_named(operator: Operator) -> None:
    operator.world.inventory = MemoryInventory(files=[list(operator.world.listing.listed)])
    assert "reports/manifest.json" in operator.run("--wait").output


def test_a_pass_that_there_is_not_is_said_so(operator: Operator) -> None:
    told = operator.run("show", "20200101T000000-aaaaaa")
    assert told.exit_code == 1
    assert "neve reconcile list" in told.output


def test_interrupted_it_says_that_the_pass_goes_on(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "pause", interrupt)
    told = operator.run("--wait")
    assert told.exit_code == 130
    assert "goes on without this command" in told.output


def test_looking_is_tried_again_and_not_for_ever(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    get = operator.world.passes.get
    failures = [Transient("throttled")] * 9

    def failing(pass_id: str) -> Any:
        if failures:
            raise failures.pop()
        return get(pass_id)

    monkeypatch.setattr(operator.world.passes, "get", failing)
    monkeypatch.setattr(clock, "pause", lambda _: None if failures else operator.a_while())
    assert operator.run("--wait").exit_code == 0
    failures += [Transient("throttled")] * 10
    assert operator.run("--wait").exit_code == 3
    assert all(this.state is PassState.FINISHED for this in operator.world.passes.rows.values())
    assert Outcome.RECONCILED in next(operator.world.passes.passes()).counts
