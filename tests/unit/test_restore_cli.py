"""`neve restore`, `jobs` and `cancel`, over ports in memory: what they show, send, wait for, and exit with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve.domain.restore import (
    Ending,
    JobState,
    Request,
    parse_plan,
)
from neve.domain.restore import (
    Result as FileResult,
)
from neve.domain.selection import Places, parse_site_urls
from neve.domain.thaw import Need, ThawState, Tier
from neve.errors import Transient
from neve_cli import asking, clock, watching
from neve_cli.main import app
from neve_cli.watching import is_young
from tests.memory import CONTENT, START
from tests.restore_cloud import DAY, HOUR, MINUTE, OTHER, RestoreCloud, object_of, tar_with, wanted
from tests.unit.test_restore_plan import MemoryIndex

NASTY = "a\nb\x1b[31m"
ALL = (
    tar_with(1, ["a1", "a2", "photos/a.jpg", "photos/b.jpg"]),
    tar_with(2, [NASTY, "b2"]),
    tar_with(3, ["deep"], "DEEP_ARCHIVE"),
    tar_with(4, ["i1", "i2"], "GLACIER_IR"),
    object_of(5, "film", b"frames " * 300),
)
JOB = re.compile(r"^job (\d{8}T\d{6}-[0-9a-f]{6})$", re.MULTILINE)


@dataclass
class MemoryStack:
    """What neve_cli.stack finds, over a cloud in memory."""

    cloud: RestoreCloud
    usd_per_day: float = 0.0
    name: str = "neve"
    region: str = "us-east-1"
    outputs: dict[str, str] = field(default_factory=lambda: {"ContentBucket": CONTENT, "ArchiveBucket": "archives"})

    def __post_init__(self) -> None:
        self.files = MemoryIndex(rows=self.cloud.files.rows)
        self.cloud.files = self.files

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cloud, {"restored_topic": "topic"}.get(name, name))

    @property
    def places(self) -> Places:
        return Places(
            content_bucket=CONTENT,
            destination_buckets=self.cloud.buckets,
            uploads_bucket="up",
            site_urls=parse_site_urls("https://cdn.example.org/"),
        )


class Operator:
    """Types commands. `passes` is what happens while a command waits."""

    def __init__(self, cloud: RestoreCloud, deployed: MemoryStack) -> None:
        self.cloud = cloud
        self.deployed = deployed
        self.passes: Callable[[], None] = self.an_hour

    def an_hour(self) -> None:
        self.cloud.deliver()
        self.cloud.wait(HOUR)
        self.cloud.deliver()

    def run(self, *words: str, given: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=given)

    def read(self, *words: str, given: str | bytes | None = None) -> Any:
        return json.loads(self.run(*words, "--json", given=given).stdout)

    @property
    def sent(self) -> list[Request]:
        """The chunks that wait for PlanRestore."""
        return [
            request for body, _ in self.cloud.requests_queue.sent if isinstance(request := parse_plan(body), Request)
        ]

    def job(self, *words: str) -> str:
        """Send a job, have it planned; its id."""
        told = self.run("restore", *words)
        found = JOB.search(told.stdout)
        assert found, told.output
        self.cloud.deliver()
        return found[1]

    def results(self, job: str) -> list[FileResult]:
        return list(self.cloud.restores.results(job))


@pytest.fixture
def cloud() -> RestoreCloud:
    return RestoreCloud(ALL)


@pytest.fixture
def operator(cloud: RestoreCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Operator:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    monkeypatch.chdir(tmp_path)
    deployed = MemoryStack(cloud)
    found = Operator(cloud, deployed)
    monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)
    monkeypatch.setattr(clock, "now", lambda: cloud.now)
    monkeypatch.setattr(clock, "pause", lambda _: found.passes())
    return found


# -- What is shown and sent ------------------------------------------------------------------------------------------


def test_what_it_takes_is_shown_and_then_it_is_sent(operator: Operator) -> None:
    told = operator.run("restore", "a1")
    assert told.exit_code == 0
    for word in ("1 file", "in 1 archive", "1 to ask for", "us-east-1, autumn 2026", "retrieval requests",
                 "temporary copies", "within 5.0 hours", "2026-09-01 17:00:00", "neve jobs "):  # fmt: skip
        assert word in told.stdout
    (request,) = operator.sent
    assert (request.need, request.overwrite) == (Need(tier=Tier.STANDARD, days=1), False)
    assert [(each.key, each.destination) for each in request.items] == [("a1", f"s3://{CONTENT}/a1")]
    assert f"job {request.job}\n" in told.stdout
    assert re.fullmatch(r"20260901T120000-[0-9a-f]{6}", request.job)
    assert request.estimate_usd > 0


def test_options_are_part_of_what_is_sent(operator: Operator) -> None:
    operator.run("restore", "photos/", f"s3://{OTHER}/back/", "--tier", "bulk", "--days", "7", "--overwrite")
    (request,) = operator.sent
    assert (request.need, request.overwrite) == (Need(tier=Tier.BULK, days=7), True)
    assert [each.destination for each in request.items] == [f"s3://{OTHER}/back/photos/{x}.jpg" for x in "ab"]


def test_a_dry_run_shows_the_files_and_sends_nothing(operator: Operator, tmp_path: Path) -> None:
    told = operator.run("restore", "*", "./new/", "--dry-run")
    assert told.exit_code == 0
    assert f"{tmp_path}/new/photos/a.jpg" in told.stdout
    assert "\x1b" not in told.stdout
    assert "copies stay 3 days" in told.stdout
    assert operator.sent == []
    assert not (tmp_path / "new").exists()
    assert operator.read("restore", "*", "--dry-run")["job"] is None


def test_json_tells_all_of_it_in_one_document(operator: Operator) -> None:
    told = operator.read("restore", "a?", "--tier", "bulk")
    assert told["job"] == operator.sent[0].job
    assert (told["files"], told["archives"], told["local_files"], told["problems"]) == (2, 1, 0, 0)
    assert told["thaws"] == {"to_ask_for": 1, "running": 0, "not_needed": 0, "size_bytes": ALL[0].row.size_bytes}
    assert told["usd"] == pytest.approx(sum(told["usd_by_part"].values()), abs=1e-5)
    assert told["prices"] == {"region": "us-east-1", "checked": "autumn 2026"}
    assert told["ready_at"] == (START + timedelta(hours=12)).isoformat()
    assert (told["result"], told["not_well"]) == (None, [])


def test_thaws_that_run_or_are_not_needed_are_told_apart(operator: Operator) -> None:
    operator.job("a1")
    operator.passes()
    told = operator.read("restore", "--batch", "-", "--dry-run", given="a2\ni1\nb2\n")
    assert told["thaws"] | {"size_bytes": 0} == {"to_ask_for": 1, "running": 1, "not_needed": 1, "size_bytes": 0}
    shown = operator.run("restore", "i1", "--dry-run").stdout
    assert "at once" in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nothing",), "not found"),
        (("a1", "s3://stranger/"), "restore_buckets"),
        (("s3://stranger/a1",), f"s3://{CONTENT}/"),
        (("a1", "--max-price", "0"), "--max-price is $0.0000"),
        (("deep", "--tier", "expedited"), "DEEP_ARCHIVE has no tier expedited"),
    ],
)
def test_what_is_refused_is_told_and_sends_nothing(operator: Operator, words: tuple[str, ...], why: str) -> None:
    told = operator.run("restore", *words)
    assert told.exit_code == 1
    assert why in told.stderr
    assert operator.sent == []
    document = operator.read("restore", *words)
    assert (document["job"], bool(document["refused"])) == (None, True)


def test_over_the_day_s_cap_both_figures_are_told(operator: Operator) -> None:
    operator.deployed.usd_per_day = 0.00006
    operator.cloud.thaws.spent[START.date()] = 20
    told = operator.run("restore", "a1")
    assert told.exit_code == 1
    for word in ("$0.000060 a day", "$0.000040 are left", "restore_usd_per_day"):
        assert word in told.stderr
    assert operator.sent == []
    operator.deployed.usd_per_day = 0.01
    told = operator.run("restore", "a1")
    assert told.exit_code == 0
    assert "$0.000020 of $0.0100 a day" in told.stdout


def test_what_is_within_the_price_goes_through(operator: Operator) -> None:
    assert operator.run("restore", "a1", "--max-price", "0.01").exit_code == 0
    assert len(operator.sent) == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a1", "--batch", "-"),
        ("a1", "--at", "yesterday"),
        ("a1", "--days", "366"),
        ("a1", "--tier", "instant"),
        ("job", "content", "--resume"),
        ("--resume", "--batch", "-"),
        ("--batch", "missing-file"),
    ],
)
def test_a_command_line_that_contradicts_itself_is_wrong(operator: Operator, words: tuple[str, ...]) -> None:
    assert operator.run("restore", *words, given="").exit_code == 2


def test_a_folder_that_cannot_be_made_stops_it_before_anything_is_sent(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    told = operator.run("restore", "a1", "file/out/")
    assert told.exit_code == 1
    assert operator.sent == []


def test_a_queue_that_fails_half_way_says_what_was_sent(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neve.domain.restore.CHUNK_ITEMS", 1)
    monkeypatch.setattr(asking, "SENDERS", 1)
    send = operator.cloud.requests_queue.send
    bodies: list[str] = []

    def failing(body: str, *, delay_s: int = 0) -> None:
        if bodies:
            raise Transient("SendMessage: slow down")
        bodies.append(body)
        send(body, delay_s=delay_s)

    monkeypatch.setattr(operator.cloud.requests_queue, "send", failing)
    told = operator.run("restore", "photos/")
    assert told.exit_code == 3
    assert "only 1 of 2 parts" in told.stderr
    assert "neve cancel " in told.stderr


# -- Batches ---------------------------------------------------------------------------------------------------------

BATCH = f"""\ufeff# source, tab, destination
a1
a2\ts3://{OTHER}/x

  \t
photos/a.jpg\tcontent\r
{{"source": "b2", "destination": "s3://{OTHER}/"}}
{{"source": "key:{json.dumps(NASTY)[1:-1]}", "version": "v1"}}
"""


def test_a_batch_has_lines_with_tabs_and_lines_of_json(operator: Operator, tmp_path: Path) -> None:
    for given, words in ((BATCH.encode(), ("-",)), (None, (str(tmp_path / "batch"),))):
        (tmp_path / "batch").write_bytes(BATCH.encode())
        told = operator.run("restore", "--batch", *words, given=given)
        assert (told.exit_code, told.stderr) == (0, "")
        (request,) = operator.sent
        assert {(each.key, each.destination) for each in request.items} == {
            ("a1", f"s3://{CONTENT}/a1"),
            ("a2", f"s3://{OTHER}/x"),
            ("photos/a.jpg", f"s3://{CONTENT}/photos/a.jpg"),
            ("b2", f"s3://{OTHER}/b2"),
            (NASTY, f"s3://{CONTENT}/{NASTY}"),
        }
        operator.cloud.requests_queue.take()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nothing", "not found"),
        (b"a2\tcontent\tmore", "more than one tab"),
        (b"a2\tnowhere", "no destination"),
        (b"\tcontent", "source is empty"),
        (b"\xff", "not UTF-8"),
        (b'{"source": "a2"', "no JSON object"),
        (b'{"destination": "content"}', "source is missing"),
        (b'{"source": "a2", "tier": "bulk"}', "unknown field 'tier'"),
        (b'{"source": 17}', "must be text"),
        (b'{"source": "prefix:p", "version": "v"}', "belongs to one key"),
        (b'{"source": "a2", "at": "noon"}', "no time"),
        (b"x" * 70_000, "longer than 65,536"),
        (b"x" * 65_535 + b"\r\n", "longer than 65,536"),
        (b"x" * 65_534 + b"\r\n", "1,024 bytes"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_the_rest_goes_on(operator: Operator, line: bytes, why: str) -> None:
    batch = b"# comment\na1\n" + line + b"\nb2"
    told = operator.run("restore", "--batch", "-", given=batch)
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert told.stderr.startswith("neve: line 3: ")
    assert len(told.stderr) < 500
    assert why in told.stderr
    assert [each.key for each in operator.sent[0].items] == ["a1", "b2"]
    operator.cloud.requests_queue.take()
    strict = operator.run("restore", "--batch", "-", "--strict", given=batch)
    assert strict.exit_code == 1
    assert operator.sent == []


def test_problems_are_in_the_document_as_well(operator: Operator) -> None:
    told = operator.read("restore", "--batch", "-", given="a1\nnothing\n")
    assert told["problems"] == 1
    assert told["first_problems"][0] | {"reason": ""} == {"line": 2, "source": "nothing", "reason": ""}
    assert told["job"]


def test_a_batch_at_a_time_leaves_alone_what_names_its_version(operator: Operator) -> None:
    told = operator.run("restore", "--batch", "-", "--at", "2020-01-01", given="a1\n1.1\n")
    assert told.exit_code == 1
    assert "line 1: a1: not found" in told.stderr
    assert [each.key for each in operator.sent[0].items] == ["a2"]


# -- Waiting ---------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_last_file_and_tells_each_change_on_a_line(operator: Operator) -> None:
    told = operator.run("restore", "photos/", "--wait")
    assert told.exit_code == 0
    lines = [line for line in told.stdout.splitlines() if line.startswith("2026-09-01 ")]
    assert "not planned yet" in lines[0]
    assert "0 of 1 archive can be read, the others by 2026-09-01 17:00:00; 0 of 2 files done" in lines[1]
    assert "every archive can be read; 2 of 2 files done" in lines[-1]
    assert len(lines) == len(set(lines)) == 3
    assert told.stdout.endswith("2 files: 2 restored; 80 B restored\n")
    assert operator.cloud.place(f"s3://{CONTENT}/photos/a.jpg")


def test_waiting_fails_if_a_file_ends_otherwise_and_says_which(operator: Operator) -> None:
    operator.cloud.destination.store(f"s3://{CONTENT}/a1", b"something else")
    told = operator.run("restore", "a?", "--wait")
    assert told.exit_code == 1
    assert "2 files: 1 restored, 1 conflict" in told.stdout
    assert f"conflict  a1  ->  s3://{CONTENT}/a1: " in told.stdout


def test_waiting_with_json_is_one_document_at_the_end(operator: Operator) -> None:
    operator.cloud.destination.store(f"s3://{CONTENT}/a1", b"something else")
    told = operator.read("restore", "a?", "--wait")
    assert told["result"]["endings"] == {"restored": 1, "conflict": 1}
    assert told["result"]["state"] == "finished"
    assert [(each["key"], each["ending"]) for each in told["not_well"]] == [("a1", "conflict")]


def test_expedited_that_was_not_to_be_had_is_told(operator: Operator) -> None:
    operator.cloud.ice.expedited = False
    told = operator.run("restore", "a1", "--tier", "expedited", "--wait")
    assert told.exit_code == 0
    assert "(expedited was not to be had)" in told.stdout


def test_an_interrupt_lets_the_job_go_on(operator: Operator) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    operator.passes = interrupt
    told = operator.run("restore", "a1", "--wait")
    assert told.exit_code == 130
    assert f"neve jobs {operator.sent[0].job}" in told.stderr


def test_looks_that_fail_now_and_then_do_not_end_the_watching(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = operator.cloud.restores.job
    failures = [Transient("GetItem: slow down")] * (watching.PATIENCE - 1)

    def failing(job_id: str) -> Any:
        if failures:
            raise failures.pop()
        return job(job_id)

    monkeypatch.setattr(operator.cloud.restores, "job", failing)
    operator.passes = lambda: None if failures else operator.an_hour()
    assert operator.run("restore", "a1", "--wait").exit_code == 0
    failures += [Transient("GetItem: slow down")] * watching.PATIENCE
    operator.passes = lambda: None
    told = operator.run("restore", "a1", f"s3://{OTHER}/", "--wait")
    assert told.exit_code == 3
    assert "goes on without this command" in told.stderr


def test_pauses_grow_while_nothing_happens(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        operator.an_hour()

    monkeypatch.setattr(clock, "pause", pause)
    assert operator.run("restore", "a1", "--wait").exit_code == 0
    assert pauses[0] == watching.SHORTEST_S
    assert pauses[-1] == watching.LONGEST_S


def test_a_terminal_sees_bars(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    sights = watching.Watcher(operator.deployed, "")  # type: ignore[arg-type]  # a stack in memory
    job = operator.job("photos/", "--tier", "bulk")
    sights.job_id = job
    leader, follower = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        """Until the other end is closed; nothing waits for room meanwhile."""
        with contextlib.suppress(OSError):
            while some := os.read(leader, 4096):
                written.append(some)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal)
        with watching.shown(files=2, archives=1, quiet=False) as show:
            show(replace(sights.look(), job=None))
            show(sights.look())
            for _ in range(14):
                operator.an_hour()
            show(sights.look())
    reader.join()
    os.close(leader)
    seen = b"".join(written).decode()
    assert "archives thawed" in seen
    assert "2/2" in seen
    assert "80 B restored" in seen


# -- Local folders ---------------------------------------------------------------------------------------------------


def test_waiting_brings_local_files_home(operator: Operator, tmp_path: Path) -> None:
    told = operator.run("restore", "--batch", "-", "--wait", given="photos/\tout/\nfilm\t./film\ni1\tout/\nb2\n")
    assert (told.exit_code, told.stderr) == (0, "")
    assert (tmp_path / "out/photos/a.jpg").read_bytes() == operator.cloud.body_of("photos/a.jpg", "v1")
    assert (tmp_path / "film").read_bytes() == b"frames " * 300
    assert (tmp_path / "out/i1").read_bytes() == operator.cloud.body_of("i1", "v1")
    assert operator.cloud.place(f"s3://{CONTENT}/b2")
    assert "leaves its region" in told.stdout
    assert operator.cloud.topic.published


def test_without_waiting_local_files_are_fetched_once_they_are_thawed(operator: Operator, tmp_path: Path) -> None:
    told = operator.run("restore", "photos/", "out/")
    job = operator.sent[0].job
    assert f"neve restore --resume {job}" in told.stdout
    assert operator.sent[0].need.days == 3
    early = operator.run("restore", "--resume")
    assert early.exit_code == 1
    operator.cloud.deliver()
    early = operator.run("restore", "--resume")
    assert early.exit_code == 0
    assert "2 local files still to be fetched, thawed by 2026-09-01 17:00:00" in early.stdout
    for _ in range(5):
        operator.an_hour()
    rehearsed = operator.run("restore", "--resume", "--dry-run")
    assert "2 local files still to be fetched" in rehearsed.stdout
    assert not list(tmp_path.rglob("*.jpg"))
    late = operator.run("restore", "--resume")
    assert late.exit_code == 0
    assert "2 files fetched: 2 restored" in late.stdout
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    assert operator.cloud.restores.rows[job].state is JobState.FINISHED
    assert operator.run("restore", "--resume").exit_code == 1, "nothing is left of any job"
    assert operator.run("restore", "--resume", job).exit_code == 0, "nothing is left of this one"


def test_resuming_may_wait_for_the_rest(operator: Operator, tmp_path: Path) -> None:
    job = operator.job("photos/", "out/")
    told = operator.run("restore", "--resume", job, "--wait")
    assert told.exit_code == 0
    assert "2 files: 2 restored" in told.stdout
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


def test_resuming_fetches_the_files_of_its_job_only(operator: Operator, tmp_path: Path) -> None:
    mine = operator.job("a1", "mine/")
    operator.job("a2", "theirs/")
    for _ in range(5):
        operator.an_hour()
    assert operator.run("restore", "--resume", mine).exit_code == 0
    assert [path.name for path in tmp_path.rglob("a?")] == ["a1"]


def test_what_expired_is_asked_for_again_for_the_same_places(operator: Operator, tmp_path: Path) -> None:
    job = operator.job("photos/", "out/", "--tier", "bulk")
    for _ in range(14):
        operator.an_hour()
    (tmp_path / "out/photos").mkdir()
    (tmp_path / "out/photos/a.jpg").write_bytes(operator.cloud.body_of("photos/a.jpg", "v1"))
    operator.cloud.wait(5 * DAY)
    operator.cloud.sweep()
    assert operator.cloud.restores.rows[job].ended == {Ending.EXPIRED: 2}
    told = operator.run("restore", "--resume")
    assert told.exit_code == 0
    assert "1 file stand in their local places already" in told.stdout
    (request,) = operator.sent
    assert request.job != job
    assert request.need == Need(tier=Tier.BULK, days=3)
    assert [each.key for each in request.items] == ["photos/b.jpg"]
    document = operator.read("restore", "--resume", job, "--dry-run", "--tier", "standard")
    assert (document["files"], document["tier"], document["resumed"]["job"]) == (1, "standard", job)


def test_a_file_in_the_way_is_told_and_the_others_come(operator: Operator, tmp_path: Path) -> None:
    job = operator.job("photos/", "out/")
    (tmp_path / "out/photos").mkdir()
    (tmp_path / "out/photos/a.jpg").write_bytes(b"mine")
    for _ in range(5):
        operator.an_hour()
    told = operator.run("restore", "--resume", job)
    assert told.exit_code == 1
    assert "1 restored, 1 conflict" in told.stdout
    assert f"conflict  photos/a.jpg  ->  {tmp_path}/out/photos/a.jpg: another file is there" in told.stdout
    assert (tmp_path / "out/photos/a.jpg").read_bytes() == b"mine"


def test_a_folder_of_another_machine_is_not_made_up(operator: Operator, tmp_path: Path) -> None:
    job = operator.job("photos/", "out/")
    (tmp_path / "out").rmdir()
    for _ in range(5):
        operator.an_hour()
    told = operator.run("restore", "--resume", job)
    assert told.exit_code == 1
    assert "another machine" in told.stderr
    (tmp_path / "out").mkdir()
    assert operator.run("restore", "--resume", job).exit_code == 0, "its lease was given back"


def test_files_that_another_process_fetches_are_left_to_it(operator: Operator) -> None:
    job = operator.job("photos/", "out/")
    for _ in range(5):
        operator.an_hour()
    (share,) = operator.cloud.restores.waiting_of(job)
    until = operator.cloud.now + 10 * MINUTE
    operator.cloud.restores.lease(share, owner="another", now=operator.cloud.now, until=until)
    told = operator.run("restore", "--resume", job)
    assert told.exit_code == 0
    assert f"fetched by another process, until {until:%Y-%m-%d %H:%M:%S}" in told.stdout


def test_an_interrupt_while_fetching_gives_the_lease_back(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    job = operator.job("photos/", "out/")
    for _ in range(5):
        operator.an_hour()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("neve_cli.local_files.LocalFiles.put", interrupt)
        assert operator.run("restore", "--resume", job).exit_code == 130
    assert operator.run("restore", "--resume", job).exit_code == 0
    assert operator.cloud.restores.rows[job].ended == {Ending.RESTORED: 2}


def test_nothing_is_asked_for_that_is_there_already(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "a1").write_bytes(operator.cloud.body_of("a1", "v1"))
    told = operator.run("restore", "a1", f"{tmp_path}/")
    assert told.exit_code == 0
    assert "already" in told.stdout
    assert operator.sent == []


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_with_how_they_stand(operator: Operator) -> None:
    assert operator.read("jobs") == []
    first = operator.job("a1")
    operator.cloud.now += MINUTE
    second = operator.job("photos/", "--tier", "bulk")
    lines = operator.run("jobs").stdout.splitlines()
    assert lines[0].split()[:2] == ["ID", "CREATED"]
    assert [line.split()[0] for line in lines[1:]] == [first, second]
    assert lines[2].split()[3:6] == ["running", "bulk", "2"]
    assert [each["job"] for each in operator.read("jobs", "--last", "1")] == [second]


def test_a_job_tells_what_it_waits_for_and_until_when(operator: Operator) -> None:
    job = operator.job("a1")
    told = operator.run("jobs", job)
    assert told.exit_code == 0
    assert f"job {job}, running, standard" in told.stdout
    row = next(line for line in told.stdout.splitlines() if line.split()[:2] == ["1", "1"])
    assert "2026-09-01 17:00:00" in row
    assert "thawing, standard" in row
    (waiting,) = operator.read("jobs", job)["waiting"]
    assert (waiting["archive"], waiting["files"], waiting["readable"]) == (1, 1, False)
    assert waiting["ready_at"] == (START + timedelta(hours=5)).isoformat()


def test_the_ways_a_thaw_can_stand_are_told(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.cloud.ice.expedited = False
    job = operator.job("a1", "--tier", "expedited")
    told = operator.run("jobs", job).stdout
    assert "1 thaw fell back to standard" in told
    assert "thawing, standard, as expedited was not to be had" in told
    operator.cloud.now += 6 * HOUR
    assert "overdue" in operator.run("jobs", job).stdout
    thaw = operator.cloud.thaws.rows.pop(1)
    assert "not asked for yet" in operator.run("jobs", job).stdout
    operator.cloud.thaws.rows[1] = replace(thaw, state=ThawState.CLAIMED, claimed_by="x")
    assert "being asked for" in operator.run("jobs", job).stdout
    local = operator.job("i1", "out/")
    assert "needs none" in operator.run("jobs", local).stdout
    assert f"neve restore --resume {local}" in operator.run("jobs", local).stdout


def test_a_local_job_tells_whether_its_copy_is_there(operator: Operator) -> None:
    job = operator.job("a1", "out/")
    for _ in range(5):
        operator.an_hour()
    assert "thawed until 2026-09-05 00:00:00" in operator.run("jobs", job).stdout
    operator.cloud.now += 4 * DAY
    assert "expired: thawed until" in operator.run("jobs", job).stdout


def test_a_finished_job_lists_what_did_not_end_well_or_all(operator: Operator) -> None:
    operator.cloud.destination.store(f"s3://{CONTENT}/a1", b"something else")
    job = operator.job("a?")
    for _ in range(5):
        operator.an_hour()
    told = operator.run("jobs", job)
    assert told.exit_code == 1
    assert "done       2: 1 restored, 1 conflict" in told.stdout
    assert told.stdout.count("->") == 1
    assert operator.run("jobs", job, "--all").stdout.count("->") == 2
    assert [each["key"] for each in operator.read("jobs", job)["not_well"]] == ["a1"]
    assert len(operator.read("jobs", job, "--all")["items"]) == 2


def test_many_archives_are_not_all_shown_unasked(operator: Operator) -> None:
    for serial in range(100, 125):
        operator.cloud.archive(tar_with(serial, [f"many/{serial}"]))
    job = operator.job("many/")
    told = operator.run("jobs", job).stdout
    assert "and 5 archives more" in told
    assert "more" not in operator.run("jobs", job, "--all").stdout
    assert len(operator.read("jobs", job)["waiting"]) == 25


def test_a_job_sent_a_moment_ago_is_not_planned_yet(operator: Operator) -> None:
    operator.run("restore", "a1")
    job = operator.sent[0].job
    told = operator.run("jobs", job)
    assert told.exit_code == 0
    assert "not planned yet" in told.stdout
    assert operator.read("jobs", job)["state"] == "not planned yet"
    assert operator.run("restore", "--resume", job).exit_code == 1
    assert operator.run("cancel", job).exit_code == 1
    operator.cloud.now += HOUR
    told = operator.run("jobs", job)
    assert told.exit_code == 1
    assert "there is no job" in told.stderr


@pytest.mark.parametrize(
    ("job_id", "young"),
    [
        ("20260901T120000-abcdef", True),
        ("20260901T115000-abcdef", True),
        ("20260901T114000-abcdef", False),
        ("20260901T130000-abcdef", False),
        ("nonsense", False),
    ],
)
def test_an_id_tells_when_the_job_was_sent(job_id: str, young: bool) -> None:
    assert is_young(job_id, START) is young


def test_a_job_of_which_a_part_is_missing_says_so(operator: Operator) -> None:
    request = replace(request_of(operator), chunks=3)
    operator.cloud.restores.open(request.opened())
    operator.cloud.restores.planned(request.job, 1, shares=[], results=[], now=operator.cloud.now)
    assert "planned    1 of 3 parts" in operator.run("jobs", request.job).stdout
    operator.cloud.restores.give_up(request.job, operator.cloud.now)
    operator.cloud.restores.end(request.job, operator.cloud.now)
    told = operator.run("jobs", request.job)
    assert told.exit_code == 1
    assert "2 parts of it never came" in told.stdout


def test_a_job_whose_files_never_got_their_turn_says_so(operator: Operator) -> None:
    job = operator.job("photos/")
    operator.cloud.restores.end(job, operator.cloud.now)
    told = operator.run("jobs", job)
    assert told.exit_code == 1
    assert "2 files of it never got their turn" in told.stdout


def test_more_files_than_a_person_reads_are_listed_only_if_asked_for(operator: Operator) -> None:
    operator.cloud.archive(tar_with(200, [f"many/{number:03}" for number in range(60)]))
    job = operator.job("many/")
    told = operator.run("cancel", job)
    shown = operator.run("jobs", job).stdout
    assert shown.count("->") == 50
    assert f"and more: `neve jobs {job} --all`" in shown
    assert operator.run("jobs", job, "--all").stdout.count("->") == 60
    assert told.exit_code == 0


def request_of(operator: Operator) -> Request:
    operator.run("restore", "a1")
    return operator.sent[0]


@pytest.mark.parametrize("words", [("jobs", "x", "--last", "1"), ("jobs", "--all")])
def test_jobs_wants_to_know_which(operator: Operator, words: tuple[str, ...]) -> None:
    assert operator.run(*words).exit_code == 2


# -- cancel ----------------------------------------------------------------------------------------------------------


def test_cancelling_ends_what_waits_and_says_what_is_paid_for(operator: Operator) -> None:
    job = operator.job("photos/")
    rehearsed = operator.run("cancel", job, "--dry-run")
    assert "2 files would be cancelled" in rehearsed.stdout
    assert operator.cloud.restores.rows[job].cancelled_at is None
    told = operator.run("cancel", job)
    assert told.exit_code == 0
    assert "2 files cancelled" in told.stdout
    assert "paid for" in told.stdout
    ended = operator.cloud.restores.rows[job]
    assert (ended.state, ended.ended) == (JobState.FINISHED, {Ending.CANCELLED: 2})
    assert len(operator.cloud.topic.published) == 1
    for _ in range(5):
        operator.an_hour()
    assert operator.cloud.place(f"s3://{CONTENT}/photos/a.jpg") is None
    again = operator.run("cancel", job)
    assert again.exit_code == 1
    assert "nothing to cancel" in again.stderr
    assert "cancelled" in operator.run("jobs").stdout


def test_what_is_being_extracted_ends_by_itself(operator: Operator) -> None:
    job = operator.job("*2")
    shares = list(operator.cloud.restores.waiting_of(job))
    now = operator.cloud.now
    operator.cloud.restores.lease(shares[0], owner="extract", now=now, until=now + MINUTE)
    told = operator.read("cancel", job)
    assert (told["cancelled_files"], told["being_extracted"]) == (sum(s.files for s in shares[1:]), shares[0].files)
    assert operator.cloud.restores.rows[job].state is JobState.RUNNING
    assert "cancelling" in operator.run("jobs").stdout


def test_parts_that_are_not_planned_keep_no_cancelled_job_waiting(operator: Operator) -> None:
    operator.cloud.chunk_items = 1
    first, second = operator.cloud.job([wanted("a1"), wanted("b2")], job="20260901T120000-abcdef")
    operator.cloud.requests_queue.take()
    operator.cloud.plan(first)
    told = operator.run("cancel", "20260901T120000-abcdef")
    assert "not planned yet will not be" in told.stdout
    operator.cloud.plan(second)
    job = operator.cloud.restores.rows["20260901T120000-abcdef"]
    assert (job.state, job.ended) == (JobState.FINISHED, {Ending.CANCELLED: 1})
    assert "never came" not in operator.run("jobs", job.id).stdout


def test_there_is_no_other_job_to_cancel(operator: Operator) -> None:
    told = operator.run("cancel", "nonsense")
    assert told.exit_code == 1
    assert "there is no job nonsense" in told.stderr


# -- What can be wrong on this machine -------------------------------------------------------------------------------


def test_a_full_disk_for_the_plan_is_told_with_its_remedy(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("neve_cli.spool.Spool.add", full)
    told = operator.run("restore", "a1")
    assert told.exit_code == 1
    assert "SQLITE_TMPDIR" in told.stderr
    assert operator.sent == []


def test_whoever_looks_at_a_terminal_sees_how_many_files_were_found(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal)
        with asking.counting() as found:
            found(12_000)
            time.sleep(0.2)  # it is drawn from another thread, some ten times a second
            found(0)
        terminal.flush()
        seen = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "12,000 files" in seen
