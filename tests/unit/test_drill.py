"""What a drill is: its draw, its requests, its comparison, its words and messages."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from neve.domain.digest import Digest
from neve.domain.drill import (
    FILES,
    SOURCE,
    TOLD_FAULTS,
    Comparison,
    Drawn,
    Drill,
    DrillState,
    JobEnded,
    Outcome,
    Start,
    Sweep,
    compare,
    draw,
    hours,
    is_drill_id,
    not_restored,
    parse_drill,
    render_start,
    requests,
    scheduled_id,
    told,
    told_late,
)
from neve.domain.restore import CHUNK_ITEMS, Ending, Item, Result, parse_plan, render_request
from neve.domain.thaw import Tier
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid
from tests.memory import START

ID = "20260901T120000-0a1b2c"
HOUR = timedelta(hours=1)
PLACE = f"s3://one/.neve/drill/{ID}/1"


def drawn(number: int = 0, key: str = "secret/key", archive: int = 17) -> Drawn:
    version = ObjectVersion(
        key=key, version_id=f"v{number}", size_bytes=5, etag="e", sequencer="", event_at=START - HOUR
    )
    return Drawn(version=version, archive=archive, number=number, digest=Digest(size_bytes=5, sha256="aa" * 32))


def drill(files: int = 2, **changes: object) -> Drill:
    made = Drill(
        id=ID,
        started_at=START,
        buckets=("one", "two"),
        files=tuple(drawn(number) for number in range(files)),
        collection=1_000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # as the tests name them


def compared(*found: Comparison, files: int = 2, **changes: object) -> Drill:
    """A drill whose first file has `found`; the others are as they should be."""
    same = Comparison(place=SOURCE, outcome=Outcome.SAME)
    every: dict[int, tuple[Comparison, ...]] = dict.fromkeys(range(1, files + 1), (same,))
    standing = {
        "state": DrillState.COMPARED,
        "compared": every | {1: found or (same,)},
        "restored_at": START + 4 * HOUR,
        "compared_at": START + 4 * HOUR,
    }
    return drill(files, **(standing | changes))


# -- Drawing ---------------------------------------------------------------------------------------------------------


def test_every_file_of_every_archive_is_drawn_equally_often() -> None:
    """Chi-square over 20,000 picks of 20 files: 19 degrees of freedom pass 43.8 once in a thousand seeds."""
    archives = [(1, 3), (2, 1), (5, 7), (6, 0), (9, 9)]
    rng = random.Random(1)
    picked = Counter(pick for _ in range(2_000) for pick in draw(archives, 10, rng).picks)
    files = [(serial, number) for serial, count in archives for number in range(count)]
    assert set(picked) == set(files)
    expected = 20_000 / len(files)
    assert sum((picked[file] - expected) ** 2 / expected for file in files) < 43.8


def test_two_slots_know_nothing_of_each_other() -> None:
    """Chi-square over 5,000 pairs of 4 files: 15 degrees of freedom pass 37.7 once in a thousand seeds."""
    rng = random.Random(2)
    pairs = Counter(draw([(1, 1), (2, 3)], 2, rng).picks for _ in range(5_000))
    expected = 5_000 / 16
    assert len(pairs) == 16
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 37.7


def test_no_archives_no_picks() -> None:
    assert draw([], 10, random.Random(1)).picks == ()
    assert draw([(1, 0), (2, 0)], 10, random.Random(1)).picks == ()
    assert draw([(1, 0), (2, 1)], 2, random.Random(1)).picks == ((2, 0), (2, 0))


# -- Restoring and comparing -----------------------------------------------------------------------------------------


def test_each_file_is_asked_for_at_each_place_by_numbers_only() -> None:
    [request] = requests(drill())
    assert (request.job, request.need.tier, request.need.days) == (ID, Tier.STANDARD, 1)
    assert [(each.key, each.pin, each.destination) for each in request.items] == [
        ("secret/key", "v0", f"s3://one/.neve/drill/{ID}/1"),
        ("secret/key", "v0", f"s3://two/.neve/drill/{ID}/1"),
        ("secret/key", "v1", f"s3://one/.neve/drill/{ID}/2"),
        ("secret/key", "v1", f"s3://two/.neve/drill/{ID}/2"),
    ]
    assert parse_plan(render_request(request)) == request


def test_a_drill_has_to_be_through_in_a_day() -> None:
    assert drill().deadline == START + timedelta(days=1)


def test_many_files_go_in_chunks_that_plan_restore_takes() -> None:
    files = tuple(drawn(number, key="ü" * 500) for number in range(100))
    asked = requests(replace(drill(), files=files, buckets=("one", "two", "three", "four", "five", "six")))
    assert sum(len(request.items) for request in asked) == 600
    assert all(len(request.items) <= CHUNK_ITEMS for request in asked)
    assert [request.chunk for request in asked] == list(range(1, len(asked) + 1))
    assert {request.chunks for request in asked} == {len(asked)} != {1}
    assert [parse_plan(render_request(request)) for request in asked] == asked


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.RESTORED])
def test_every_other_ending_of_a_copy_is_a_fault(ending: Ending) -> None:
    item = Item(key="k", pin="v", number=0, size_bytes=5, destination=PLACE)
    found = not_restored(PLACE, Result(item=item, ending=ending, detail="why"))
    assert found == Comparison(place=PLACE, outcome=Outcome.NOT_RESTORED, detail=f"{ending}: why")
    bare = not_restored(PLACE, Result(item=item, ending=ending))
    assert bare is not None
    assert bare.detail == ending


def test_a_restored_copy_is_no_fault_yet_and_one_without_an_ending_is() -> None:
    item = Item(key="k", pin="v", number=0, size_bytes=5, destination=PLACE)
    assert not_restored(PLACE, Result(item=item, ending=Ending.RESTORED)) is None
    found = not_restored(PLACE, None)
    assert found is not None
    assert found.outcome is Outcome.NOT_RESTORED


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (Digest(size_bytes=5, sha256="aa" * 32), Outcome.SAME),
        (Digest(size_bytes=5, sha256="bb" * 32), Outcome.DIFFERENT),
        (Digest(size_bytes=6, sha256="aa" * 32), Outcome.DIFFERENT),
        (Digest(size_bytes=6), Outcome.DIFFERENT),
        (Digest(size_bytes=5, crc64nvme="x"), Outcome.UNPROVEN),
    ],
)
def test_what_is_found_is_held_against_the_index(found: Digest, outcome: Outcome) -> None:
    judged = compare(PLACE, drawn(), found)
    assert (judged.place, judged.outcome, bool(judged.detail)) == (PLACE, outcome, outcome is Outcome.DIFFERENT)


# -- What came of it -------------------------------------------------------------------------------------------------


def test_a_drill_is_neither_good_nor_bad_before_it_was_compared() -> None:
    running = drill()
    assert (running.good, running.took, running.late, running.faults) == (None, None, False, [])


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_what_is_same_gone_or_unproven_is_good(outcome: Outcome) -> None:
    made = compared(Comparison(place=PLACE, outcome=outcome))
    assert made.good is (outcome in {Outcome.SAME, Outcome.GONE, Outcome.UNPROVEN})
    assert [(file.id, each.outcome) for file, each in made.faults] == ([] if made.good else [("17.0", outcome)])


def test_late_or_nameless_is_not_good() -> None:
    assert compared(restored_at=START + 24 * HOUR).good is True
    assert compared(restored_at=START + 24 * HOUR + timedelta(seconds=1)).good is False
    assert compared(nameless=("file 3.1: its archive's manifest is gone",)).good is False


# -- Telling ---------------------------------------------------------------------------------------------------------


def test_a_good_drill_is_told_with_what_it_took() -> None:
    subject, text = told(compared(Comparison(place=SOURCE, outcome=Outcome.GONE)))
    assert subject == "neve drill: 2 files came back in 4.0 hours"
    assert len(told(compared(files=100))[0]) < 100, "SNS takes no longer subjects"
    for word in ("of 1,000", "All 4 copies", "content bucket: 1.", "24.0 hours", f"neve drill show {ID}"):
        assert word in text


def test_a_failed_drill_is_told_with_its_files_by_id_and_what_to_do() -> None:
    subject, text = told(
        compared(
            Comparison(place=PLACE, outcome=Outcome.DIFFERENT, detail="found others"),
            Comparison(place=SOURCE, outcome=Outcome.UNREAD, detail="'secret/key' is denied"),
            nameless=("file 3.1: its archive's manifest is gone",),
        )
    )
    assert subject == "neve drill FAILED: 2 of 3 files"
    for word in (
        f"- file 17.0, {PLACE}: different: found others\n",
        "- file 17.0, source: unread\n",
        "- file 3.1: its archive's manifest is gone\n",
        f"neve drill show {ID}",
        f"neve jobs {ID} --all",
        "neve audit run --archive 17\n",
    ):
        assert word in text
    assert "secret" not in text


def test_a_late_drill_is_told_as_late_and_not_as_damaged() -> None:
    subject, text = told(compared(restored_at=START + 30 * HOUR))
    assert subject == "neve drill LATE: it took 30.0 hours"
    assert "24.0 hours are allowed" in text
    assert "audit" not in text


def test_a_hundred_faults_make_a_mail_that_can_be_read() -> None:
    bad = (Comparison(place=PLACE, outcome=Outcome.MISSING),)
    made = compared(files=100, compared=dict.fromkeys(range(1, 101), bad))
    subject, text = told(made)
    assert subject == "neve drill FAILED: 100 of 100 files"
    assert text.count("missing") == TOLD_FAULTS
    assert f"- and {100 - TOLD_FAULTS} more" in text


def test_nothing_to_drill_is_told_as_such() -> None:
    subject, text = told(compared(files=0, compared={}))
    assert subject == "neve drill: nothing to drill"
    assert "neve status" in text


def test_being_late_is_told_with_how_far_it_got() -> None:
    subject, text = told_late(drill(), 3)
    assert "LATE" in subject
    assert "3 of 4 copies" in text
    assert f"neve jobs {ID}" in text


def test_times_are_told_in_minutes_and_hours() -> None:
    assert (hours(timedelta(minutes=40)), hours(3.9 * HOUR), hours(None)) == ("40 minutes", "3.9 hours", "0 minutes")


# -- Messages --------------------------------------------------------------------------------------------------------


def test_messages_are_understood() -> None:
    assert parse_drill('{"message": "start"}') == Start(drill="", files=FILES)
    assert parse_drill('{"message": "sweep"}') == Sweep()
    assert parse_drill(render_start(Start(drill=ID, files=3))) == Start(drill=ID, files=3)
    assert parse_drill(json.dumps({"format": "neve-restored", "version": 1, "job": "j", "files": 3})) == JobEnded(
        job="j"
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "list"),
        ("{}", "None"),
        ('{"message": "stop"}', "'stop'"),
        ('{"message": ["start"]}', "start"),
        ('{"message": "start", "drill": "../../x"}', "no drill's id"),
        ('{"message": "start", "drill": 7}', "no drill's id"),
        ('{"message": "start", "drill": "20260901T120000-0a1b2c\\n"}', "no drill's id"),
        ('{"message": "start", "files": 0}', "1 to 100"),
        ('{"message": "start", "files": 101}', "1 to 100"),
        ('{"message": "start", "files": true}', "1 to 100"),
        ('{"message": "start", "files": "3"}', "1 to 100"),
        ('{"format": "neve-restored", "version": 2, "job": "j"}', "version 2"),
        ('{"format": "neve-restored", "version": 1, "job": 3}', "job's id"),
        ('{"format": "neve-restored", "version": 1}', "job's id"),
    ],
)
def test_what_is_no_message_says_what_is_wrong(body: str, why: str) -> None:
    with pytest.raises(EventInvalid, match=why.replace("[", r"\[")):
        parse_drill(body)


def test_a_message_of_the_schedule_makes_one_drill_however_often_it_comes() -> None:
    first = scheduled_id("5fea7756-0ea4-451a-a703-a558b933e274", START)
    assert first == scheduled_id("5fea7756-0ea4-451a-a703-a558b933e274", START)
    assert first != scheduled_id("another", START)
    assert first.startswith("20260901T120000-")
    assert is_drill_id(first)
