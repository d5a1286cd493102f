"""Pace: requests at a steady rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from neve.domain.pace import Pace


@dataclass
class Clock:
    """A clock that only sleep, and who asks for it, moves on."""

    time: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(per_s=10, monotonic=lambda: clock.time, sleep=clock.sleep)


def test_the_first_request_is_sent_at_once_and_each_further_one_has_its_turn(pace: Pace, clock: Clock) -> None:
    turns = []
    for _ in range(4):
        pace()
        turns.append(clock.time)
    assert turns == pytest.approx([1_000, 1_000.1, 1_000.2, 1_000.3])


def test_requests_that_take_their_time_do_not_wait_for_more(pace: Pace, clock: Clock) -> None:
    for _ in range(3):
        pace()
        clock.time += 0.2
    assert clock.slept == []


def test_a_pause_saves_up_no_burst(pace: Pace, clock: Clock) -> None:
    pace()
    clock.time += 60
    turns = []
    for _ in range(3):
        pace()
        turns.append(clock.time)
    assert turns == pytest.approx([1_060, 1_060.1, 1_060.2])


def test_a_request_that_takes_part_of_its_turn_waits_for_the_rest(pace: Pace, clock: Clock) -> None:
    pace()
    clock.time += 0.04
    pace()
    assert clock.slept == pytest.approx([0.06])
