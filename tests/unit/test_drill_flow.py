"""Drill over ports in memory, beside the restore thread: from the draw to the clean-up, whatever happens between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.digest import Digest
from neve.domain.drill import SOURCE, Comparison, DrillState, Outcome, Start, render_start
from neve.domain.events import DRILL_PREFIX
from neve.domain.restore import Ending
from neve.errors import ManifestInvalid, NeveError, SourceChanged, SourceDenied, SourceUnfit, Transient
from neve.flows import drill as flow
from tests.memory import CONTENT
from tests.memory_drill import DRILL, DRILLS, DrillCloud
from tests.restore_cloud import DAY, HOUR, MINUTE, Stored, object_of, source_of, tar_of, tar_with

BOTH = (DRILLS, CONTENT)
TWO = (tar_with(1, ["a1", "a2", "a3"]), tar_with(2, ["b1", "b2"]))


def places(drill_id: str = DRILL, files: int = 3) -> list[str]:
    folder = f"{DRILL_PREFIX}{drill_id}/"
    return [f"s3://{bucket}/{folder}{number}" for number in range(1, files + 1) for bucket in BOTH]


def outcomes(cloud: DrillCloud) -> dict[int, list[Outcome]]:
    return {number: [each.outcome for each in found] for number, found in sorted(cloud.drill.compared.items())}


def state(cloud: DrillCloud) -> DrillState:
    return cloud.drill.state


def subjects(cloud: DrillCloud) -> list[str]:
    return [subject for subject, _ in cloud.mails]


def verify_good(cloud: DrillCloud, files: int = 3) -> None:
    drill = cloud.drill
    assert (drill.state, drill.good, drill.due_at) == (DrillState.DONE, True, None)
    assert outcomes(cloud) == {number: [Outcome.SAME] * 3 for number in range(1, files + 1)}
    assert cloud.test_objects == []
    assert "came back" in subjects(cloud)[-1]


# -- It goes well ----------------------------------------------------------------------------------------------------


def test_files_come_back_are_compared_and_deleted_and_people_are_told_once() -> None:
    cloud = DrillCloud(TWO)
    cloud.start()
    assert [(len(request.files), request.state) for request in [cloud.drill]] == [(3, DrillState.RUNNING)]
    cloud.restore.deliver()
    [job] = cloud.restore.jobs
    assert (job.id, job.files) == (DRILL, 6)
    cloud.restore.wait(5 * HOUR, sweep=False)
    cloud.restore.deliver()
    assert sorted(cloud.test_objects) == sorted(places())
    cloud.inbox += cloud.restore.topic.published
    cloud.deliver()
    verify_good(cloud)
    assert cloud.drill.took == 5 * HOUR
    assert subjects(cloud) == ["neve drill: 3 files came back in 5.0 hours"]
    assert cloud.copies.cleared == [(bucket, f"{DRILL_PREFIX}{DRILL}/") for bucket in BOTH]


def test_what_a_drill_restores_is_no_row_of_the_index() -> None:
    cloud = DrillCloud(TWO)
    before = dict(cloud.restore.files.rows)
    cloud.start()
    cloud.run()
    verify_good(cloud)
    assert cloud.restore.files.rows == before


def test_a_collection_of_fewer_files_is_drilled_whole() -> None:
    cloud = DrillCloud(TWO)
    cloud.start(files=10)
    cloud.run()
    verify_good(cloud, files=5)


def test_an_empty_collection_is_told_and_is_no_failure() -> None:
    cloud = DrillCloud(())
    done = cloud.hear(render_start(Start(drill=DRILL, files=3)))
    assert (done.files, done.failed) == (0, 0)
    assert subjects(cloud) == ["neve drill: nothing to drill"]
    assert (cloud.drill.state, cloud.drill.good) == (DrillState.DONE, True)
    assert cloud.restore.requests_queue.sent == []


def test_files_are_drawn_uniformly_and_not_archives() -> None:
    """Chi-square over 3,000 drills of a file: 4 degrees of freedom pass 18.5 once in a thousand seeds."""
    cloud = DrillCloud((tar_with(1, ["a"]), tar_with(2, ["b1", "b2", "b3", "b4"])))
    cloud.rng = random.Random(3)
    drawn = [cloud.driller._drawn(DRILL, 1).files[0].id for _ in range(3_000)]
    counts = [drawn.count(file) for file in ("1.0", "2.0", "2.1", "2.2", "2.3")]
    assert sum(counts) == 3_000
    assert sum((count - 600) ** 2 / 600 for count in counts) < 18.5


def test_an_archive_that_a_repair_stands_for_is_not_drawn_from() -> None:
    cloud = DrillCloud(TWO)
    rows = cloud.restore.archives.rows
    first = min(rows)
    left = sum(row.files for row in rows.values() if row.serial != first)
    rows[first] = replace(rows[first], superseded_by=9)
    drill = cloud.driller._drawn(DRILL, 10)
    assert {file.archive for file in drill.files} == rows.keys() - {first}
    assert drill.collection == left


def test_no_file_is_drawn_twice() -> None:
    cloud = DrillCloud(TWO)
    for _ in range(50):
        files = cloud.driller._drawn(DRILL, 4).files
        assert len({file.id for file in files}) == len(files) == 4


def test_a_member_whose_row_names_another_archive_is_not_drawn() -> None:
    body = b"one of two"
    doubled = [tar_of(serial, [(source_of("same", body), body)]) for serial in (1, 2)]
    cloud = DrillCloud((*doubled, tar_with(3, ["c"])))
    cloud.start(files=10)
    assert sorted(file.id for file in cloud.drill.files) == ["1.0", "3.0"]
    assert cloud.drill.collection == 3


def test_a_large_object_is_compared_by_what_s3_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "READ_BYTES", 100)
    film = object_of(1, "film", b"frames " * 300)
    cloud = DrillCloud((film,))
    digest = Digest(size_bytes=2_100, sha256=film.manifest.members[0].source.sha256)
    for place in places(files=1):
        cloud.copies.stated[place] = digest
    cloud.start()
    cloud.run()
    assert outcomes(cloud) == {1: [Outcome.SAME, Outcome.SAME, Outcome.UNPROVEN]}
    assert cloud.drill.good


def test_a_large_object_of_which_s3_states_nothing_is_unproven_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "READ_BYTES", 100)
    cloud = DrillCloud((object_of(1, "film", b"frames " * 300),))
    cloud.start()
    cloud.run()
    assert outcomes(cloud) == {1: [Outcome.UNPROVEN] * 3}
    assert cloud.drill.good
    [(_, text)] = cloud.mails
    assert "Of 1 file there is no more proof than its size" in text


# -- Something is wrong ----------------------------------------------------------------------------------------------


def restored(stored: tuple[Stored, ...] = TWO, **changes: Any) -> DrillCloud:
    """A cloud in which a drill's job has ended, and nothing is compared yet."""
    cloud = DrillCloud(stored, **changes)
    cloud.start()
    cloud.restore.deliver()
    cloud.restore.wait(5 * HOUR, sweep=False)
    cloud.restore.deliver()
    cloud.inbox += cloud.restore.topic.published
    return cloud


def test_wrong_bytes_in_one_copy_fail_the_drill() -> None:
    cloud = restored()
    body = cloud.restore.place(places()[3])
    assert body is not None
    cloud.restore.destination.store(places()[3], b"X" + body[1:])
    cloud.deliver()
    assert outcomes(cloud)[2] == [Outcome.SAME, Outcome.DIFFERENT, Outcome.SAME]
    assert (cloud.drill.good, cloud.drill.state) == (False, DrillState.DONE)
    assert subjects(cloud) == ["neve drill FAILED: 1 of 3 files"]
    assert places()[3] in cloud.mails[0][1]


def test_a_copy_of_another_size_is_different_without_being_read() -> None:
    cloud = restored()
    cloud.restore.destination.store(places()[0], b"")
    cloud.deliver()
    assert outcomes(cloud)[1] == [Outcome.DIFFERENT, Outcome.SAME, Outcome.SAME]


def test_a_transfer_that_went_wrong_once_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = restored()
    stream, bad = cloud.copies.stream, [b"not what was put there"]
    monkeypatch.setattr(cloud.copies, "stream", lambda place: iter([bad.pop()]) if bad else stream(place))
    cloud.deliver()
    verify_good(cloud)
    assert bad == []


def test_a_copy_that_is_missing_fails_the_drill() -> None:
    cloud = restored()
    del cloud.restore.destination.objects[places()[1]]
    cloud.deliver()
    assert outcomes(cloud)[1] == [Outcome.SAME, Outcome.MISSING, Outcome.SAME]
    assert subjects(cloud) == ["neve drill FAILED: 1 of 3 files"]


def test_a_damaged_archive_fails_the_drill_with_the_restore_s_own_words() -> None:
    cloud = DrillCloud(TWO[:1])
    at = TWO[0].manifest.members[0].offset_bytes
    body = cloud.restore.store.objects[TWO[0].row.object_key]
    cloud.restore.store.objects[TWO[0].row.object_key] = body[:at] + b"?" * (len(body) - at)
    cloud.start()
    cloud.run()
    assert cloud.drill.good is False
    found = cloud.drill.compared[1]
    assert found[0].outcome is Outcome.NOT_RESTORED
    assert found[0].detail.startswith(Ending.DAMAGED)
    assert found[2] == Comparison(place=SOURCE, outcome=Outcome.SAME)
    assert "neve audit run --archive 1" in cloud.mails[0][1]


def test_a_restore_over_the_spend_cap_fails_the_drill() -> None:
    cloud = DrillCloud(TWO)
    cloud.restore.cap_micro_usd = 1
    cloud.start()
    cloud.run(HOUR)
    assert {each.detail.partition(":")[0] for _, each in cloud.drill.faults} == {Ending.OVER_CAP}
    assert subjects(cloud) == ["neve drill FAILED: 3 of 3 files"]


def test_a_bucket_that_takes_nothing_fails_the_drill() -> None:
    cloud = DrillCloud(TWO)
    cloud.restore.destination.denied[DRILLS] = "403"
    cloud.start()
    cloud.run()
    assert outcomes(cloud) == {number: [Outcome.NOT_RESTORED, Outcome.SAME, Outcome.SAME] for number in (1, 2, 3)}


@pytest.mark.parametrize("broken", ["gone", "invalid", "short"])
def test_a_manifest_that_cannot_be_read_fails_the_drill(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = DrillCloud(TWO[:1])
    if broken == "gone":
        cloud.restore.store.manifests.clear()
    elif broken == "short":
        cloud.restore.archives.rows[1] = replace(TWO[0].row, files=1_000_000)
    else:

        def invalid(_: int) -> None:
            raise ManifestInvalid("not JSON")

        monkeypatch.setattr(cloud.restore.store, "manifest", invalid)
    cloud.start()
    assert cloud.drill.good is False
    assert len(cloud.drill.nameless) == 3
    assert subjects(cloud) == ["neve drill FAILED: 3 of 3 files"]


# -- Sources ---------------------------------------------------------------------------------------------------------


def test_a_source_that_was_deleted_is_no_fault() -> None:
    cloud = restored()
    cloud.content.objects.clear()
    cloud.deliver()
    assert outcomes(cloud)[1] == [Outcome.SAME, Outcome.SAME, Outcome.GONE]
    assert cloud.drill.good


def test_a_source_that_differs_fails_the_drill() -> None:
    cloud = restored()
    for identity, (source, _) in list(cloud.content.objects.items()):
        cloud.content.objects[identity] = (source, b"other bytes")
    cloud.deliver()
    assert outcomes(cloud)[1] == [Outcome.SAME, Outcome.SAME, Outcome.DIFFERENT]


@pytest.mark.parametrize(("version_id", "outcome"), [("null", Outcome.GONE), ("v1", Outcome.DIFFERENT)])
def test_only_a_null_version_may_be_overwritten(version_id: str, outcome: Outcome) -> None:
    cloud = restored((tar_of(1, [(source_of("k", b"bytes", version_id), b"bytes")]),))
    cloud.content.failures["k"] = SourceChanged("other bytes stand there")
    cloud.deliver()
    assert outcomes(cloud) == {1: [Outcome.SAME, Outcome.SAME, outcome]}


# -- What cannot be read ---------------------------------------------------------------------------------------------


def test_what_cannot_be_read_for_a_while_is_read_later_and_is_no_fault() -> None:
    cloud = restored()
    cloud.copies.failures[places()[2]] = [Transient("slow down")] * 2
    cloud.deliver()
    assert sorted(cloud.drill.compared) == [1, 3]
    assert (cloud.drill.state, cloud.mails) == (DrillState.RUNNING, [])
    cloud.run(HOUR)
    verify_good(cloud)


@pytest.mark.parametrize("refused", [SourceDenied, SourceUnfit])
def test_what_can_never_be_read_is_unread_at_the_deadline_and_not_called_different(refused: type[NeveError]) -> None:
    cloud = restored()
    cloud.content.failures["a1"] = cloud.content.failures["b1"] = refused("'a1' version v1: 403 AccessDenied")
    cloud.run(17 * HOUR)
    assert state(cloud) is DrillState.RUNNING
    cloud.run(3 * HOUR)
    faults = cloud.drill.faults
    assert faults
    assert {each.outcome for _, each in faults} == {Outcome.UNREAD}
    assert all("'a1'" not in text for _, text in cloud.mails)
    assert state(cloud) is DrillState.DONE


def test_an_invocation_that_ends_soon_compares_one_file_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = restored(lasts=timedelta(seconds=5))
    for files in (1, 2):
        cloud.deliver()
        assert len(cloud.drill.compared) == files
        cloud.inbox.append('{"message": "sweep"}')
        cloud.restore.now += 16 * MINUTE
    cloud.deliver()
    verify_good(cloud)


# -- Late, lost and doubled ------------------------------------------------------------------------------------------


def test_who_dies_over_a_file_has_recorded_those_before_it() -> None:
    cloud = restored(deaths=(Killed,))
    read: list[str] = []
    stream = cloud.copies.stream

    def dying(place: str) -> Any:
        read.append(place)
        if place == places()[4] and read.count(place) < 3:
            raise Killed
        return stream(place)

    cloud.copies.stream = dying
    cloud.run()
    verify_good(cloud)
    assert [read.count(place) for place in places()] == [1, 1, 1, 1, 3, 1]


def test_a_late_drill_is_told_once_and_again_when_it_is_through() -> None:
    cloud = DrillCloud(TWO)
    cloud.restore.thaw_takes = 30 * HOUR
    cloud.start()
    cloud.run(29 * HOUR)
    assert subjects(cloud) == ["neve drill LATE: not through after 24.0 hours"]
    assert cloud.drill.good is None
    cloud.run(3 * HOUR)
    assert subjects(cloud)[1:] == ["neve drill LATE: it took 30.1 hours"]
    assert (cloud.drill.good is False, state(cloud), cloud.test_objects) == (True, DrillState.DONE, [])
    assert {outcome for found in outcomes(cloud).values() for outcome in found} == {Outcome.SAME}


def test_a_message_that_comes_twice_makes_one_drill_and_one_job() -> None:
    cloud = DrillCloud(TWO)
    cloud.start()
    drawn = cloud.drill.files
    cloud.start()
    assert cloud.drill.files == drawn
    cloud.run()
    verify_good(cloud)
    cloud.start()
    cloud.run(HOUR)
    assert len(cloud.restore.jobs) == 1
    assert len(cloud.mails) == 1


def test_the_word_that_the_job_has_ended_may_come_twice() -> None:
    cloud = restored()
    cloud.inbox *= 3
    cloud.deliver()
    verify_good(cloud)
    assert len(cloud.mails) == 1


def test_the_word_that_the_job_has_ended_may_be_lost() -> None:
    cloud = DrillCloud(TWO, words_lost=True)
    cloud.start()
    cloud.run()
    verify_good(cloud)
    assert len(cloud.mails) == 1


def test_requests_that_were_lost_are_sent_again_by_the_sweep() -> None:
    cloud = DrillCloud(TWO)
    cloud.start()
    cloud.restore.requests_queue.take()
    cloud.run(7 * HOUR)
    verify_good(cloud)


def test_words_of_other_jobs_are_passed_over() -> None:
    cloud = DrillCloud(TWO)
    cloud.start()
    done = cloud.hear('{"format": "neve-restored", "version": 1, "job": "job-1"}')
    assert set(vars(done).values()) == {0}
    assert state(cloud) is DrillState.RUNNING


def test_a_word_that_comes_before_the_job_has_ended_changes_nothing() -> None:
    cloud = DrillCloud(TWO)
    cloud.start()
    word = f'{{"format": "neve-restored", "version": 1, "job": "{DRILL}"}}'
    cloud.hear(word)
    cloud.restore.deliver()
    cloud.hear(word)
    assert state(cloud) is DrillState.RUNNING


def test_one_drill_that_fails_to_go_on_holds_back_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = DrillCloud(TWO)
    first, second = "20260901T120000-aaaaaa", "20260901T120001-bbbbbb"
    for drill_id in (first, second):
        cloud.start(files=1, drill_id=drill_id)
    job = cloud.restore.restores.job

    def failing(job_id: str) -> Any:
        if job_id == first:
            raise Transient("slow down")
        return job(job_id)

    cloud.restore.deliver()
    cloud.restore.wait(5 * HOUR)
    cloud.restore.deliver()
    monkeypatch.setattr(cloud.restore.restores, "job", failing)
    with pytest.raises(Transient):
        cloud.sweep()
    assert [cloud.drills.rows[each].state for each in (first, second)] == [DrillState.RUNNING, DrillState.DONE]


def test_a_clean_up_that_failed_is_done_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = restored()
    clear, failures = cloud.copies.clear, [Transient("slow down")] * 2

    def failing(bucket: str, folder: str) -> int:
        if failures and bucket == CONTENT:
            raise failures.pop()
        return int(clear(bucket, folder))

    monkeypatch.setattr(cloud.copies, "clear", failing)
    cloud.deliver()
    assert state(cloud) is DrillState.TOLD
    cloud.run(HOUR)
    verify_good(cloud)
    assert len(cloud.mails) == 1


def test_who_loses_the_record_of_a_comparison_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = restored()
    describe = cloud.copies.describe

    def overtaken(place: str) -> Any:
        monkeypatch.setattr(cloud.copies, "describe", describe)
        cloud.hear(cloud.restore.topic.published[0])
        return describe(place)

    monkeypatch.setattr(cloud.copies, "describe", overtaken)
    cloud.deliver()
    verify_good(cloud)
    assert len(cloud.mails) == 1


# -- How long ago ----------------------------------------------------------------------------------------------------


def test_the_time_without_a_drill_is_counted_from_the_last_one_or_from_the_first_look() -> None:
    cloud = DrillCloud(TWO)
    assert cloud.driller.idle() == timedelta()
    cloud.restore.now += 3 * DAY
    assert cloud.driller.idle() == 3 * DAY
    cloud.start()
    cloud.run()
    compared_at = cloud.drill.compared_at
    assert compared_at is not None
    cloud.restore.now += 40 * DAY
    cloud.start(drill_id="20261101T120000-0a1b2c")
    assert cloud.driller.idle() == cloud.restore.now - compared_at


# -- It dies ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies here; no handler of errors sees it."""


@dataclass
class Killer:
    """Counts the calls that Drill makes, and dies once, before or after one of them."""

    at: int = 0
    after: bool = False
    calls: int = 0
    armed: bool = False

    def watch(self, port: Any) -> Any:
        return _Watched(port, self)


class _Watched:
    def __init__(self, port: Any, killer: Killer) -> None:
        self.__dict__.update(port=port, killer=killer)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.port, name)
        if not callable(found) or not self.killer.armed:
            return found
        return lambda *args, **kwargs: self._call(found, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.port, name, value)

    def _call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.killer.calls += 1
        mine = self.killer.calls
        if mine == self.killer.at and not self.killer.after:
            raise Killed
        answer = call(*args, **kwargs)
        if mine == self.killer.at:
            raise Killed
        return answer


class MortalCloud(DrillCloud):
    """A cloud in which Drill dies as its killer says."""

    killer: Killer

    def hear(self, body: str) -> Any:
        self.killer.armed = True
        try:
            return super().hear(body)
        finally:
            self.killer.armed = False


def lived(killer: Killer) -> MortalCloud:
    cloud = MortalCloud(TWO, watch=killer.watch, deaths=(Killed,))
    cloud.killer = killer
    cloud.start()
    cloud.run(7 * HOUR)
    return cloud


@pytest.mark.parametrize("after", [False, True])
def test_it_may_die_at_every_call(after: bool) -> None:
    whole = Killer()
    verify_good(lived(whole))
    assert whole.calls > 40
    for at in range(1, whole.calls + 1):
        cloud = lived(Killer(at=at, after=after))
        verify_good(cloud)
        assert len(cloud.restore.jobs) == 1
        assert len(cloud.mails) <= 2
