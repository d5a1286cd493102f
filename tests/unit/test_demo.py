"""The demo's own rules: what it deletes, and that it calls nothing restored that is not as it was."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from neve.domain.audit import Cause, Report
from neve.domain.digest import Digest
from neve.domain.drill import Comparison, Drawn, Drill, DrillState, Outcome
from neve.domain.index import ArchiveRow, ArchiveState, FileRow, pointing, rows
from neve.domain.manifest import Source
from neve.domain.restore import Ending, Job, JobState
from neve.domain.selection import CONTENT, OneKey, Places, folder_path, parse_source
from neve.domain.thaw import Need, Tier
from neve.domain.verdict import Finding, worst
from neve.domain.verdict import Verdict as AuditVerdict
from neve.domain.version import ObjectVersion
from neve_cli.batch import read_lines
from neve_local.cloud import LocalCloud
from neve_local.demo_audit import Audited, Auditing, Trial, choose_trial
from neve_local.demo_files import Choice, Chosen, choose
from neve_local.demo_logs import Thaws, read_passed_over, read_thaws
from neve_local.demo_proof import Identity, Uploaded, Verdict
from neve_local.demo_restore import BATCH_FILES, Deletion, Restoration, Restored, choose_deletion, run_command
from tests.memory import MemoryFiles

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LARGE = 2
"""The number of the archive that is one large object."""


def chosen(path: Path, key: str) -> Chosen:
    found = path.stat()
    return Chosen(path=path, key=key, size_bytes=found.st_size, modified_ns=found.st_mtime_ns)


def row(key: str, archive: int = 1, number: int = 0, version_id: str = "v1") -> FileRow:
    return FileRow(
        key=key,
        version_id=version_id,
        pin=version_id,
        size_bytes=1,
        sha256="",
        md5="",
        last_modified=NOW,
        archive=archive,
        number=number,
        offset_bytes=0,
    )


def archive_row(serial: int) -> ArchiveRow:
    return ArchiveRow(
        serial=serial,
        kind="object" if serial == LARGE else "tar",
        bundle="",
        object_key=f"archives/{serial:010d}.tar",
        object_version_id="v1",
        storage_class="GLACIER",
        size_bytes=1024**3,
        sha256="",
        source_bytes=0,
        files=1,
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=NOW,
    )


def archived(paths: Sequence[Path], folder: Path) -> tuple[list[Uploaded], dict[Identity, FileRow]]:
    """Files as if they were uploaded and archived, the last of them as a large object."""
    files = [chosen(path, f"demo/{path.relative_to(folder).as_posix()}") for path in paths]
    uploaded = [Uploaded(file=file, version_id="v1", at=0.0) for file in files]
    found = {each.identity: row(each.file.key, number=number) for number, each in enumerate(uploaded)}
    last = uploaded[-1].identity
    found[last] = replace(found[last], archive=LARGE, number=0)
    return uploaded, found


def made(folder: Path, names: Sequence[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [folder / name for name in names]


def test_of_many_files_every_nth_is_deleted_and_a_large_one(tmp_path: Path) -> None:
    (path,) = made(tmp_path, ["one"])
    files = [replace(chosen(path, "key"), key=f"demo/{number:04}") for number in range(2_000)]
    uploaded = [Uploaded(file=file, version_id="v1", at=0.0) for file in files]
    found = {each.identity: row(each.file.key) for each in uploaded}
    found["demo/1999", "v1"] = replace(found["demo/1999", "v1"], archive=LARGE)
    deletion = choose_deletion(uploaded, found, frozenset({LARGE}))
    assert deletion is not None
    keys = [each.file.key for each in deletion.all]
    assert len(set(keys)) == len(keys)
    assert BATCH_FILES <= len(deletion.batch) < 2 * BATCH_FILES
    assert [each.file.key for each in deletion.batch if each.row.archive == LARGE] == ["demo/1999"]
    assert 0 < sum(each.local for each in deletion.batch) < len(deletion.batch) / 4
    assert not deletion.single.local


def test_of_few_files_all_are_deleted_and_of_none_none(tmp_path: Path) -> None:
    uploaded, found = archived(made(tmp_path, ["a", "b", "c"]), tmp_path)
    deletion = choose_deletion(uploaded, found, frozenset())
    assert deletion is not None
    assert {each.file.key for each in deletion.all} == {"demo/a", "demo/b", "demo/c"}
    del found["demo/b", "v1"]  # parked, say
    without = choose_deletion(uploaded, found, frozenset())
    assert without is not None
    assert {each.file.key for each in without.all} == {"demo/a", "demo/c"}
    assert choose_deletion(uploaded, {}, frozenset()) is None


def test_the_batch_names_every_key_and_its_destination_to_the_command(tmp_path: Path) -> None:
    names = ["plain", "tab\tand\nline", "[a]*?", "ü+%20&.txt", "{brace", "💾"]
    uploaded, found = archived(made(tmp_path, names), tmp_path)
    deletion = choose_deletion(uploaded, found, frozenset())
    assert deletion is not None

    def fail(problem: object) -> None:
        raise AssertionError(problem)

    lines = list(read_lines(io.BytesIO(deletion.lines(tmp_path / "to").encode()), fail))
    places = Places(content_bucket="content", destination_buckets=frozenset({"content"}), uploads_bucket="up")
    for line, each in zip(lines, deletion.batch, strict=True):
        assert parse_source(line.source, places).source == OneKey(key=each.file.key)
        assert line.destination == (f"{tmp_path}/to/" if each.local else CONTENT)
    local = [each.file.key for each in deletion.batch if each.local]
    assert local
    assert local == [folder_path(key) for key in local]


def test_a_file_has_its_bytes_however_they_come_and_no_others(tmp_path: Path) -> None:
    file = chosen(made(tmp_path, ["abcdef"])[0], "key")
    assert file.has([b"abc", b"def"])
    assert file.has([b"abcdef", b""])
    for other in ([b"abc"], [b"abc", b"deX"], [b"abcdef", b"g"], []):
        assert not file.has(other)
    file.path.unlink()
    assert not file.has([b"abcdef"])


@dataclass
class Cloud:
    """As much of a deployment as restores touch. The command that it has puts `bodies` in place, as `spoil` makes them.

    Objects are (body, content type, version id) by key.
    """

    objects: dict[str, tuple[bytes, str, str]] = field(default_factory=dict)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    jobs: dict[str, Job] = field(default_factory=dict)
    deletion: Deletion | None = None
    ran: list[Sequence[str]] = field(default_factory=list)
    status: int = 0

    def delete_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803  # boto3's names
        del self.objects[Key]

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        body, content_type, version_id = self.objects[Key]
        stream = StreamingBody(io.BytesIO(body), len(body))
        return {"Body": stream, "ContentType": content_type, "VersionId": version_id}

    def job(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)

    def neve(self, words: Sequence[str], printed: Callable[[str], None]) -> int:
        """`neve restore` as it should be."""
        assert self.deletion is not None
        self.ran.append(words)
        batch = words[2] == "--batch"
        wanted = self.deletion.batch if batch else (self.deletion.single,)
        for each in wanted:
            self.put(each.file.path.read_bytes(), each.file, each.row, Path(words[3]).parent if each.local else None)
        job = str(len(self.ran))
        self.jobs[job] = Job(
            id=job,
            created_at=NOW,
            need=Need(tier=Tier.BULK, days=1),
            overwrite=False,
            chunks=1,
            state=JobState.FINISHED,
            files=len(wanted),
            ended={Ending.RESTORED: len(wanted)},
            finished_at=NOW.replace(minute=1),
        )
        printed(f"job {job}")
        return self.status

    def put(self, body: bytes, file: Chosen, was: FileRow, folder: Path | None) -> None:
        if folder:
            path = folder / "restored" / folder_path(file.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            return
        self.objects[file.key] = (body, file.content_type, "v2")
        self.files.record([replace(was, version_id="v2", pin="v2")])


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A few files, deleted. `restore` restores them and says what became of them."""

    cloud: Cloud
    folder: Path
    restoration: Restoration
    deletion: Deletion

    def restore(self) -> Restored:
        self.folder.mkdir()
        return self.restoration.restore(
            self.deletion, [archive_row(1), archive_row(LARGE), archive_row(3)], self.folder
        )


@pytest.fixture
def demo(cloud: Cloud, tmp_path: Path) -> Demo:
    names = ["a.html", "b", "c", "d"]
    uploaded, found = archived(made(tmp_path / "files", names), tmp_path / "files")
    deletion = choose_deletion(uploaded, found, frozenset({LARGE}))
    assert deletion is not None
    assert [each.file.key for each in deletion.batch] == ["demo/a.html", "demo/b", "demo/d"]
    cloud.objects = {each.file.key: (b"", "", "v1") for each in uploaded}
    cloud.deletion = deletion
    stand_in = cast("Any", cloud)
    restoration = Restoration(
        command=cloud.neve,
        s3=stand_in,
        bucket="content",
        files=stand_in.files,
        store=stand_in,
        restores=stand_in,
        tell=lambda _: None,
        printed=lambda _: None,
    )
    restoration.delete(deletion)
    return Demo(cloud=cloud, folder=tmp_path / "restored", restoration=restoration, deletion=deletion)


def test_files_that_are_back_as_they_were_are_restored(demo: Demo) -> None:
    assert demo.cloud.objects == {}
    restored = demo.restore()
    assert restored.problems == ()
    assert (restored.in_place, restored.mismatches) == (4, 0)
    assert [each.file.key for each in restored.local] == ["demo/a.html"]
    assert {key for key, _ in restored.versions} == {"demo/b", "demo/c", "demo/d"}
    assert [each.serial for each in restored.thawed] == [1, LARGE]
    assert [each.seconds for each in restored.commands] == [60, 60]
    assert [each[:3] for each in demo.cloud.ran] == [
        ("neve", "restore", "demo/c"),
        ("neve", "restore", "--batch"),
    ]
    # Two archives of a GB each: requests, retrieval, and the copy for two days.
    assert restored.bill(Tier.STANDARD, reads=0).usd == pytest.approx(2 * (0.00005 + 0.01 + 0.023 / 15) + 3 * 0.000005)


def after_restoring(demo: Demo, do: Callable[[], object]) -> Restored:
    """What the demo says if something happens after the batch is restored, before it looks."""

    def command(words: Sequence[str], printed: Callable[[str], None]) -> int:
        status = demo.cloud.neve(words, printed)
        if words[2] == "--batch":
            do()
        return status

    return replace(demo, restoration=replace(demo.restoration, command=command)).restore()


def test_a_file_with_other_bytes_or_another_type_or_none_is_no_restored_file(demo: Demo) -> None:
    def spoil() -> None:
        objects = demo.cloud.objects
        objects["demo/b"] = (b"X", *objects["demo/b"][1:])
        objects["demo/c"] = (objects["demo/c"][0], "text/html", "v2")
        del objects["demo/d"]
        next((demo.folder / "restored").rglob("a.html")).write_bytes(b"other")

    restored = after_restoring(demo, spoil)
    assert (restored.in_place, restored.mismatches) == (0, 4)
    for key, problem in zip(["demo/c", "demo/a.html", "demo/b", "demo/d"], restored.problems, strict=True):
        assert repr(key) in problem


def test_a_local_file_that_is_missing_is_no_restored_file(demo: Demo) -> None:
    restored = after_restoring(demo, lambda: next((demo.folder / "restored").rglob("a.html")).unlink())
    assert restored.mismatches == 1
    assert "'demo/a.html' is not where it was to be restored to" in restored.problems[0]


def test_a_restored_version_has_a_row_that_names_the_member_it_came_from(demo: Demo) -> None:
    def spoil() -> None:
        rows = demo.cloud.files.rows
        rows["demo/b", "v2"] = replace(rows["demo/b", "v2"], archive=3)
        del rows["demo/d", "v2"]

    restored = after_restoring(demo, spoil)
    assert restored.mismatches == 0
    assert [("'demo/b'" in each, "'demo/d'" in each) for each in restored.problems] == [(True, False), (False, True)]


def test_a_restored_version_in_a_new_archive_was_archived_again(demo: Demo) -> None:
    restored = demo.restore()

    def manifest(serial: int) -> Any:
        versions = {1: ("demo/b", "v1"), 3: ("demo/b", "v2")}
        if serial not in versions:
            return None
        key, version_id = versions[serial]
        source = SimpleNamespace(key=key, version_id=version_id)
        return SimpleNamespace(members=[SimpleNamespace(source=source)])

    restoration = replace(demo.restoration, store=cast("Any", SimpleNamespace(manifest=manifest)))
    problems = restoration.archived_again(restored, [archive_row(1), archive_row(LARGE), archive_row(3)])
    assert problems == ["the restored 'demo/b' was archived again, in archive 3"]


def test_a_command_that_fails_or_a_job_that_ends_otherwise_is_a_problem(demo: Demo) -> None:
    demo.cloud.status = 1

    def spoil() -> None:
        jobs = demo.cloud.jobs
        jobs["1"] = replace(jobs["1"], ended={Ending.RESTORED: 1})
        jobs["2"] = replace(jobs["2"], ended={Ending.RESTORED: 2, Ending.SKIPPED: 1})

    restored = after_restoring(demo, spoil)
    assert restored.mismatches == 0
    assert [each.rpartition("` ")[2].rpartition("`: ")[2] for each in restored.problems] == [
        "ended with status 1",
        "ended with status 1",
        "3 files were to be restored, the job says {'restored': 2, 'skipped': 1}",
    ]


def test_a_command_is_told_its_words_and_tells_its_lines_and_status() -> None:
    printed: list[str] = []
    words = (
        "python",
        "-c",
        "import sys, os; print(sys.argv[1:]); print(os.environ['A'], file=sys.stderr); sys.exit(3)",
    )
    assert run_command({"A": "é"}, (*words, "a b", "*"), printed.append) == 3
    assert sorted(printed) == ["['a b', '*']", "é"]


class Logs:
    """A cloud of which there is nothing but logs."""

    def __init__(self, lines: Sequence[dict[str, Any] | str]) -> None:
        self.lines = [line if isinstance(line, str) else json.dumps(line, separators=(",", ":")) for line in lines]

    def function_logs(self, name: str, *, containing: str = "", since: float = 0) -> Iterator[str]:
        return (line for line in self.lines if containing in line) if name == "function" else iter(())


def test_extensions_of_warm_copies_are_no_thaws() -> None:
    logs = Logs(
        [
            "START RequestId: 1",
            {"message": "planned", "steps": {"request": 1}},
            {"service": "Ledger", "requests": {"s3:RestoreObject": 1, "s3:HeadObject": 3}},
            {"message": "planned", "steps": {"request": 2, "extend": 1, "join": 3}},
            {"service": "Ledger", "requests": {"s3:RestoreObject": 3}},
            {"service": "Ledger", "requests": {}},
            {"message": "failed", "exception": 'KeyError: "requests"'},
        ]
    )
    thaws = read_thaws(cast("LocalCloud", logs), {"PlanRestoreFunction": "function"}, since=0)
    assert thaws == Thaws(asked=3, extended=1)


def test_versions_passed_over_are_counted_where_bundles_end() -> None:
    logs = Logs([{"message": "void", "duplicates": 5}, {"message": "archived", "duplicates": 1}, {"message": "other"}])
    outputs = {"WriteArchiveFunction": "function", "CopyLargeFunction": "another"}
    assert read_passed_over(cast("LocalCloud", logs), outputs, since=0) == 6


def test_a_choice_of_some_covers_the_whole_folder_and_is_the_same_each_time(tmp_path: Path) -> None:
    made(tmp_path, [f"{number:03}" for number in range(100)])
    choice: Choice = choose(tmp_path, prefix="demo/", at_most=10)
    assert [each.key for each in choice.files] == [f"demo/{number:03}" for number in range(0, 100, 10)]
    assert choose(tmp_path, prefix="demo/", at_most=10) == choice


# -- Audits ----------------------------------------------------------------------------------------------------------


def test_the_tar_with_the_fewest_files_is_damaged_in_one_that_has_bytes_and_a_source() -> None:
    tars = [replace(archive_row(1), files=9), replace(archive_row(3), files=5), replace(archive_row(4), files=4)]
    archives = [*tars, replace(archive_row(LARGE), files=1)]
    rows = [replace(row(f"demo/{number}", 4, number), size_bytes=number % 2) for number in range(4)]
    found = {(each.key, each.version_id): each for each in [*rows, row("demo/5", 3), row("demo/6", LARGE)]}

    def trial(stands: Callable[[FileRow], bool], of: Sequence[ArchiveRow] = archives) -> Trial | None:
        return choose_trial(of, found, stands)

    assert trial(lambda _: True) == Trial(intact=tars[1], damaged=tars[2], file=rows[3])
    assert trial(lambda each: each is not rows[3]) == Trial(intact=tars[1], damaged=tars[2], file=rows[1])
    assert trial(lambda each: each.archive == 3) == Trial(intact=tars[2], damaged=tars[1], file=found["demo/5", "v1"])
    assert trial(lambda _: True, tars[2:]) == Trial(intact=tars[2], damaged=tars[2], file=rows[3])
    assert trial(lambda _: False) is None
    assert trial(lambda _: True, [archive_row(LARGE)]) is None


KEYS = ["demo/a", "demo/b", "demo/c"]


@dataclass
class Proving:
    """As much of a deployment as audits touch, with archive 1 of three files, and archive 3.

    Its commands audit as they should; `spoil` may change what they leave behind.
    """

    ran: list[Sequence[str]] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    index: MemoryFiles = field(default_factory=MemoryFiles)
    rows: dict[int, ArchiveRow] = field(default_factory=dict)
    manifests: dict[int, Any] = field(default_factory=dict)
    found: dict[str, list[Report]] = field(default_factory=dict)
    drilled: dict[str, Drill] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    spoil: Callable[[str], object] = lambda _: None
    differ: int = 0

    # the command

    def neve(self, words: Sequence[str], printed: Callable[[str], None]) -> int:
        self.ran.append(words)
        what, run = words[2] if words[1] == "audit" else "drill", f"2026-{len(self.ran)}"
        status = {"run": self._run, "repair": self._repair, "drill": self._drill}[what](run, words)
        printed(f"drill {run}" if what == "drill" else f"run {run}")
        printed(f"run {run}, complete")
        self.spoil(what)
        return self.statuses.get(what, status)

    def _run(self, run: str, words: Sequence[str]) -> int:
        serials = [int(word.removeprefix("--archive=")) for word in words if word.startswith("--archive")]
        damaged = {serial for serial, _ in self.damaged}
        self.found[run] = [report(run, serial, [finding()] if serial in damaged else []) for serial in serials]
        return int(bool(damaged & set(serials)))

    def _repair(self, run: str, words: Sequence[str]) -> int:
        damaged = int(words[3])
        self.rows[damaged] = replace(self.rows[damaged], superseded_by=5)
        self.manifests[5] = listing(5, [row for row in self.index.rows.values() if row.pin == "v1"], supersedes=damaged)
        for implied in rows(self.manifests[5]):
            for seen in self.index.versions(implied.key):
                self.index.replace(seen, pointing(seen, implied))
        return 0

    def _drill(self, run: str, words: Sequence[str]) -> int:
        self.drilled[run] = drill(run)
        return 0

    # what it looks at

    def damage(self, archive: ArchiveRow, offset_bytes: int) -> None:
        self.damaged.append((archive.serial, offset_bytes))

    def under(self, prefix: str) -> Iterator[FileRow]:
        return (row for row in list(self.index.rows.values()) if row.key.startswith(prefix))

    def manifest(self, serial: int) -> Any:
        return self.manifests.get(serial)

    def reports(self, run: str) -> Iterator[Report]:
        return iter(self.found[run])

    def compare(self, uploaded: Sequence[Uploaded], found: Mapping[Identity, FileRow]) -> Verdict:
        assert {each.identity for each in uploaded} == found.keys()
        return Verdict(verified=len(found) - self.differ, problems=())


def listing(archive: int, members: Sequence[FileRow], supersedes: int | None = None) -> Any:
    """A manifest, as far as it is looked at, of members one after the other."""
    return SimpleNamespace(
        archive=archive,
        supersedes=supersedes,
        members=[
            SimpleNamespace(
                number=number,
                offset_bytes=100 * archive + 10 * number,
                source=Source(
                    key=row.key, version_id=row.version_id, size_bytes=9, etag="e", last_modified=NOW, sha256="0" * 64
                ),
            )
            for number, row in enumerate(members)
        ],
    )


def finding(key: str = KEYS[1], number: int = 1, verdict: AuditVerdict = AuditVerdict.ARCHIVE_DAMAGED) -> Finding:
    return Finding(verdict=verdict, evidence="", key=key, pin="v1", number=number)


def report(run: str, archive: int, findings: Sequence[Finding], quiet: AuditVerdict = AuditVerdict.INTACT) -> Report:
    counts = {finding.verdict: 1 for finding in findings} | {quiet: 3 - len(findings)}
    return Report(
        run=run,
        archive=archive,
        cause=Cause.ASKED,
        begun_at=NOW,
        finished_at=NOW,
        verdict=worst(counts),
        counts=counts,
        size_bytes=1,
        findings=tuple(findings),
        found=len(findings),
    )


def drill(drill_id: str, *, of: int = 5, outcome: Outcome = Outcome.SAME) -> Drill:
    version = ObjectVersion(key="k", version_id="v1", size_bytes=1, etag="e", sequencer="", event_at=NOW)
    return Drill(
        id=drill_id,
        started_at=NOW,
        buckets=("one", "two"),
        files=(Drawn(version=version, archive=of, number=0, digest=Digest(size_bytes=1)),),
        collection=1,
        state=DrillState.DONE,
        compared={1: (Comparison(place="s3://one/1", outcome=outcome),)},
    )


@dataclass(frozen=True, kw_only=True)
class Audits:
    """The stand-ins, and what is audited of them."""

    proving: Proving
    auditing: Auditing
    trial: Trial
    originals: Mapping[str, Chosen]

    def audit(self) -> Audited:
        return self.auditing.audit(self.trial, self.originals, frozenset({1, 3}))


@pytest.fixture
def audits(tmp_path: Path) -> Audits:
    """Archive 1 has three files and a restored version of one of them; it is to be damaged in the second."""
    proving = Proving(rows={1: archive_row(1), 3: archive_row(3)})
    proving.manifests[1] = listing(1, [row(key) for key in [*KEYS, "others/x"]])
    members = rows(proving.manifests[1])
    proving.index.record([*members, replace(members[0], version_id="v2", pin="v2")])
    stand_in = cast("Any", proving)
    (path,) = made(tmp_path, ["file"])
    return Audits(
        proving=proving,
        auditing=Auditing(
            command=proving.neve,
            prefix="demo/",
            archives=cast("Any", proving.rows),
            files=cast("Any", SimpleNamespace(under=proving.under, get=proving.index.get)),
            audits=stand_in,
            drills=cast("Any", proving.drilled),
            store=stand_in,
            damage=proving.damage,
            compare=cast("Any", proving.compare),
            tell=lambda _: None,
            printed=lambda _: None,
        ),
        trial=Trial(intact=proving.rows[3], damaged=proving.rows[1], file=members[1]),
        originals={key: chosen(path, key) for key in KEYS},
    )


def test_a_damaged_file_that_is_named_and_repaired_is_told_in_figures(audits: Audits) -> None:
    audited = audits.audit()
    assert audited.problems == ()
    assert audits.proving.damaged == [(1, 114)]
    assert [" ".join(words[1:]) for words in audits.proving.ran] == [
        "audit run --archive=3 --archive=1 --wait",
        "audit repair 1 --wait",
        "drill run --files 3 --wait",
    ]
    assert audited.damage_found
    assert audited.verdicts == {AuditVerdict.INTACT: 5, AuditVerdict.ARCHIVE_DAMAGED: 1}
    assert (audited.repaired.good, audited.repaired.by, audited.repaired.moved) == (True, 5, 4)
    assert audited.drilled is not None
    assert audited.drilled.good


def test_the_only_archive_is_audited_before_it_is_damaged_and_after(audits: Audits) -> None:
    only = replace(audits, trial=replace(audits.trial, intact=audits.trial.damaged))
    audited = only.audit()
    assert audited.problems == ()
    assert [report.verdict.value for report in audited.reports] == ["intact", "archive damaged"]


@pytest.mark.parametrize(
    "findings",
    [
        [],
        [finding(KEYS[0], 0)],
        [finding(), finding(KEYS[0], 0)],
        [finding(verdict=AuditVerdict.SOURCE_DAMAGED)],
    ],
)
def test_damage_that_is_not_named_or_not_alone_is_not_found(audits: Audits, findings: list[Finding]) -> None:
    found = audits.proving.found
    audits.proving.spoil = lambda _: found.update({"2026-1": [report("", 3, []), report("", 1, findings)]})
    audited = audits.audit()
    assert not audited.damage_found
    assert audited.problems == ("no audit named 'demo/b', and nothing else, in archive 1",)


def test_an_intact_archive_that_is_called_damaged_or_not_audited_is_a_problem(audits: Audits) -> None:
    found = audits.proving.found
    damaged = report("", 1, [finding()])
    audits.proving.spoil = lambda _: found.update({"2026-1": [damaged, report("", 3, [finding()])]})
    (problem,) = audits.audit().problems
    assert "calls archive 3, which nobody damaged, archive damaged" in problem
    audits.proving.spoil = lambda _: found.update({"2026-4": [damaged]})
    (problem,) = audits.audit().problems[:1]
    assert "compared [1]" in problem


def test_a_deleted_source_of_an_intact_archive_is_no_problem(audits: Audits) -> None:
    reports = [report("", 3, [], quiet=AuditVerdict.SOURCE_GONE), report("", 1, [finding()])]
    audits.proving.spoil = lambda _: audits.proving.found.update({"2026-1": reports})
    assert audits.audit().problems == ()


def test_a_repair_that_leaves_a_file_behind_is_none(audits: Audits) -> None:
    proving = audits.proving

    def leave_one_and_lose_one(what: str) -> None:
        if what == "repair":
            standing = proving.index.rows
            standing["demo/a", "v2"] = replace(standing["demo/a", "v2"], archive=1)
            standing["demo/b", "v1"] = replace(standing["demo/b", "v1"], archive=2)  # a duplicate's: as good
            del standing["demo/c", "v1"]

    proving.spoil = leave_one_and_lose_one
    audited = audits.audit()
    assert (audited.repaired.good, audited.repaired.moved) == (False, 1)
    lost, left = audited.problems
    assert "no 'demo/c'" in lost
    assert "still names the damaged archive 1 for 'demo/a' version v2" in left


def test_a_repair_with_other_bytes_or_without_an_archive_is_none(audits: Audits) -> None:
    audits.proving.differ = 1
    audited = audits.audit()
    assert (audited.repaired.good, audited.problems) == (
        False,
        ("2 of 3 files of archive 5 are as on disk",),
    )
    audits.proving.spoil = lambda what: what == "repair" and audits.proving.manifests.pop(5)
    audits.proving.statuses["repair"] = 1
    audited = audits.audit()
    assert (audited.repaired.good, audited.repaired.by) == (False, 0)
    assert [each.rpartition("` ")[2] for each in audited.problems] == [
        "ended with status 1",
        "archive 1 was to be repaired, and no archive stands for it",
    ]


def test_a_restored_version_has_to_name_a_member_with_its_key(audits: Audits) -> None:
    standing = audits.proving.index.rows
    audits.proving.spoil = lambda what: (
        what == "repair" and standing.update({("demo/a", "v2"): replace(standing["demo/a", "v2"], number=1)})
    )
    audited = audits.audit()
    assert (audited.repaired.good, audited.repaired.moved) == (False, 3)
    assert audited.problems == ("the index names 5.1 for 'demo/a' version v2, which is not there",)


@pytest.mark.parametrize(("of", "problems"), [(5, 1), (3, 1), (7, 0)])
def test_a_drill_answers_for_the_archives_of_this_run_alone(audits: Audits, of: int, problems: int) -> None:
    drilled = audits.proving.drilled
    audits.proving.spoil = lambda _: drilled.update({"2026-3": drill("", of=of, outcome=Outcome.DIFFERENT)})
    audits.proving.statuses["drill"] = 1
    audited = audits.audit()
    assert len(audited.problems) == problems
    assert audited.drilled is not None
    assert "different" in audited.drilled.sentence


def test_a_drill_that_does_not_end_is_a_problem(audits: Audits) -> None:
    audits.proving.spoil = lambda what: what == "drill" and audits.proving.drilled.popitem()
    audited = audits.audit()
    assert audited.drilled is None
    assert "and no drill" in audited.problems[0]
