"""`neve edge`, `neve_edge.announce`, and how the agent's parts are kept running."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from typer.testing import CliRunner, Result

import neve_edge
from neve.errors import NeveError, SettingInvalid
from neve_cli import clock, edge_import
from neve_cli.edge_run import stopped_by_signals
from neve_cli.main import app
from neve_edge.agent import Agent, Stopped, keep_running
from neve_edge.announcements import Announcements
from neve_edge.journal import Journal
from neve_edge.settings import load
from neve_edge.stack import Deployed


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, with settings that the environment names."""
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "edge.toml").write_text(f'journal = "{tmp_path}/edge.db"\n[[folder]]\npath = "{folder}"\n')
    monkeypatch.setenv("NEVE_EDGE_CONFIG", str(tmp_path / "edge.toml"))
    level = logging.getLogger("neve.edge").level
    yield folder
    logging.getLogger("neve.edge").setLevel(level)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["edge", *map(str, words)])


def waiting(site: Path) -> int:
    with_journal = Journal(site.parent / "edge.db", host="web1", clock=clock.now, read_only=True)
    try:
        return with_journal.summary().waiting
    finally:
        with_journal.close()


def test_files_are_announced_and_those_that_cannot_be_are_named(site: Path) -> None:
    (site / "a").write_bytes(b"x")
    (site / "link").symlink_to("a")
    assert run("announce", site / "a", "--dry-run").output == "1 file would be announced\n"
    assert not (site.parent / "edge.db").exists()
    done = run("announce", site / "a", site / "link", site / "gone", "/etc/passwd")
    assert done.exit_code == 1
    assert done.stdout == "1 file announced\n"
    for why in ("symbolic link", "not there", "none of the folders"):
        assert why in done.stderr
    assert run("announce", site / "a").stdout == "0 files announced, 1 were known already\n"
    assert waiting(site) == 1


def test_settings_that_cannot_be_used_end_every_command_with_2(site: Path) -> None:
    (site.parent / "edge.toml").write_text("parallel = 0\n")
    for words in (("run",), ("status",), ("announce", site / "a"), ("import", site), ("relay",)):
        ended = run(*words)
        assert ended.exit_code == 2, words
        assert "parallel: is a whole number from 1 to 256" in ended.stderr


def test_a_folder_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edge.toml").write_text(f'journal = "{tmp_path}/edge.db"\n')
    monkeypatch.setenv("NEVE_EDGE_CONFIG", str(tmp_path / "edge.toml"))
    ended = run("run")
    assert ended.exit_code == 2
    assert "neve edge run DIR" in ended.stderr


def test_status_tells_what_waits_and_what_needs_a_person(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing was announced" in run("status").stdout
    (site / "a").write_bytes(b"12345")
    run("announce", site / "a")
    told = run("status")
    assert told.exit_code == 0
    assert "waiting      1 file, 5 B" in told.stdout
    later = clock.now().replace(year=clock.now().year + 1)
    monkeypatch.setattr(clock, "now", lambda: later)
    (site.parent / "spool" / "refused").mkdir(parents=True)
    (site.parent / "spool" / "refused" / "one.jsonl").touch()
    read = json.loads(run("status", "--json").stdout)
    assert (read["ok"], read["waiting"], read["waiting_bytes"], read["unsent"]) == (False, 1, 5, [])
    assert len(read["problems"]) == 2
    assert run("status").exit_code == 1


def test_status_tells_what_this_host_knows_also_while_it_is_cut_off(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: Agent) -> Any:
        raise EndpointConnectionError(endpoint_url="https://sqs")

    (site / "a").write_bytes(b"12345")
    run("announce", site / "a")
    file = site.parent / "edge.toml"
    file.write_text("queue = true\n" + file.read_text())
    monkeypatch.setattr(Agent, "deployed", property(cut_off))
    told = run("status")
    assert told.exit_code == 1
    assert "waiting      1 file, 5 B" in told.stdout
    assert "the shared queue cannot be asked" in told.stdout


def test_units_are_printed(site: Path) -> None:
    names = [line.split()[0] for line in run("units").stdout.splitlines()]
    assert "neve-edge.service" in names
    for name in names:
        unit = run("units", name).stdout
        for line in ("Restart=always", "KillSignal=SIGTERM", "ExecStart=/usr/local/bin/neve edge "):
            assert line in unit
        assert ("CAP_DAC_OVERRIDE CAP_FOWNER CAP_LEASE" in unit) == (
            name in {"neve-edge.service", "neve-edge-work.service"}
        )
    assert run("units", "nonsense").exit_code == 2


# -- Import


@dataclass
class Workers:
    """Stands in for the work: everything announced is done at once, but for the paths that fail."""

    announcements: Announcements
    fails: frozenset[str]
    counts: Counter[Any] = field(default_factory=Counter)

    def run(self, stopped: Callable[[], bool]) -> None:
        while not stopped():
            for each in self.announcements.take(100, wait_s=0.02):
                if each.announcement.found.path in self.fails:
                    self.announcements.later([each], after_s=0, why="denied")
                else:
                    self.announcements.done([each])

    def close(self) -> None:
        pass


def import_with(monkeypatch: pytest.MonkeyPatch, *words: object, fails: frozenset[str] = frozenset()) -> Result:
    monkeypatch.setattr(Agent, "worker", lambda self: Workers(self.announcements, fails))
    return run("import", *words)


def test_a_tree_is_imported_and_what_was_left_alone_is_told(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (site / f"{number % 3}").mkdir(exist_ok=True)
        (site / f"{number % 3}" / f"{number}").write_bytes(b"1234")
    (site / "link").symlink_to("0")
    counted = json.loads(import_with(monkeypatch, site, "--dry-run", "--json").stdout)
    assert counted == {"files": 30, "size_bytes": 120, "left_alone": {"symbolic link": 1}}
    ended = import_with(monkeypatch, site / "1", "--json")
    assert ended.exit_code == 0
    read = json.loads(ended.stdout)
    assert (read["files"], read["done"], read["left"], read["being_written"]) == (10, 10, 0, 0)
    whole = import_with(monkeypatch, site)
    assert "done         30 files" in whole.stdout
    assert "left alone   1 entry: symbolic link" in whole.stdout


def test_files_kept_in_place_are_imported_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "a").write_bytes(b"1234")
    done = [json.loads(import_with(monkeypatch, site, "--keep", "--json").stdout)["done"] for _ in range(2)]
    assert done == [1, 0]


def test_an_import_ends_with_what_cannot_be_moved(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_import, "STUCK_S", 0.5)
    for name in ("a", "b"):
        (site / name).write_bytes(b"1234")
    ended = import_with(monkeypatch, site, fails=frozenset({"b"}))
    assert ended.exit_code == 1
    assert "done         1 file" in ended.stdout
    assert "! 1 file could not be moved so far" in ended.stdout
    assert "site: b: denied" in ended.stderr


def test_an_import_waits_for_what_is_being_written_but_not_for_ever(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_import, "BEING_WRITTEN_S", 0.2)
    (site.parent / "edge.toml").write_text(
        f'journal = "{site.parent}/edge.db"\nquiet_s = 0\n[[folder]]\npath = "{site}"\n'
    )
    (site / "a").write_bytes(b"1234")
    with (site / "b").open("wb"):
        ended = import_with(monkeypatch, site)
    assert ended.exit_code == 1
    assert "! 1 file being written" in ended.stdout


def test_an_import_that_is_interrupted_says_how_to_go_on(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "a").write_bytes(b"1234")
    fails = frozenset({"a"})
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    ended = import_with(monkeypatch, site, fails=fails)
    assert ended.exit_code == edge_import.INTERRUPTED
    assert "it goes on where it was" in ended.stderr
    assert import_with(monkeypatch, site).exit_code == 0


# -- Running


def test_a_part_that_dies_stops_the_agent_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stopped: list[str] = []

    def sound(stop: threading.Event) -> None:
        stop.wait()
        stopped.append("sound")

    def unsound(_stop: threading.Event) -> None:
        raise ValueError("no such luck")

    with pytest.raises(Stopped, match="unsound: ValueError: no such luck"):
        keep_running({"sound": sound, "unsound": unsound}, threading.Event())
    assert stopped == ["sound"]
    assert "no such luck" in caplog.text
    with pytest.raises(Stopped, match="short has ended by itself"):
        keep_running({"sound": sound, "short": lambda _stop: None}, threading.Event())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopped_by_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    assert signal.getsignal(number) is before


# -- From an application


def test_an_application_announces_what_is_then_kept_for_good(site: Path) -> None:
    (site / "a").write_bytes(b"x")
    (site / "b").write_bytes(b"x")
    assert neve_edge.announce(site / "a") == 1
    assert neve_edge.announce(str(site / "a")) == 0
    with pytest.raises(ValueError, match="not there"):
        neve_edge.announce(site / "gone", site / "b")
    assert waiting(site) == 2


def test_an_application_that_announces_takes_no_lease_and_gets_no_signal(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any) -> None:
        raise AssertionError("a lease, or a signal, in an application")

    (site / "a").write_bytes(b"x")
    monkeypatch.setattr("fcntl.fcntl", asked)
    monkeypatch.setattr(signal, "signal", asked)
    assert neve_edge.announce(site / "a") == 1


@pytest.mark.parametrize(
    "why",
    [sqlite3.OperationalError("unable to open"), PermissionError(13, "no"), EndpointConnectionError(endpoint_url="")],
)
def test_an_application_has_one_error_to_catch_and_does_not_wait_for_minutes(
    site: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def fail(_: Agent) -> Any:
        raise why

    (site / "a").write_bytes(b"x")
    monkeypatch.setattr(Agent, "announcements", property(fail))
    with pytest.raises(NeveError, match="not announced"):
        neve_edge.announce(site / "a")
    brief = Deployed(load(site.parent / "edge.toml")).brief
    assert brief.connect_timeout * brief.retries["total_max_attempts"] <= 5


def test_an_application_without_settings_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEVE_EDGE_CONFIG", raising=False)
    monkeypatch.setattr("neve_edge.settings.SYSTEM_FILE", tmp_path / "none")
    with pytest.raises(SettingInvalid, match="no folder is known"):
        neve_edge.announce(tmp_path)


def test_each_process_of_an_application_has_a_journal_of_its_own(site: Path) -> None:
    (site / "a").write_bytes(b"x")
    (site / "b").write_bytes(b"x")
    code = (
        "import os, sys, neve_edge\n"
        "assert neve_edge.announce(sys.argv[1]) == 1\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if neve_edge.announce(sys.argv[2]) == 1 else 9)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, site / "a", site / "b"], check=False)
    assert ended.returncode == 0
    assert waiting(site) == 2


def test_importing_the_package_brings_nothing_heavy() -> None:
    code = "import sys, neve_edge; sys.exit(any(m in sys.modules for m in ('boto3', 'sqlite3', 'watchfiles')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
