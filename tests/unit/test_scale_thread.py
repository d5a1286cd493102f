"""The simulated thread: what it must do whatever its figures are, with few files."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import simpy

from neve.domain.cost import Workload, archiving
from neve.domain.prices import US_EAST_1, Bill
from scale.queues import LONG_POLL_S, Function, LocalMapping, Mapping, Queue
from scale.thread import Arrivals, History, Settings, Times, simulate, usd_per_million

TIMES = Times(
    delivery_s=0.5,
    late_s=2.0,
    answer_s=0.015,
    request_s=0.008,
    start_s=1.0,
    collect_s=0.02,
    collect_event_s=0.0003,
    write_s=0.3,
    write_member_s=0.004,
    write_bytes_per_s=75_000_000,
)


def test_every_file_is_in_one_archive() -> None:
    outcome = simulate(Arrivals(files=700, files_per_s=200), Settings(), TIMES)
    assert len(outcome.latencies) == 700
    assert outcome.ledger["s3:GetObject"] == 700
    assert outcome.ledger["s3:PutObject"] == 2 * len(outcome.archives)


def test_no_archive_is_larger_than_collect_allows() -> None:
    settings = Settings(target_bytes=1_000_000, max_members=15)
    outcome = simulate(Arrivals(files=2_000, files_per_s=1_000), settings, TIMES)
    assert max(len(archive.uploaded) for archive in outcome.archives) <= 15
    by_size = simulate(Arrivals(files=2_000, files_per_s=1_000), replace(settings, max_members=2_000), TIMES)
    assert max(len(archive.uploaded) for archive in by_size.archives) <= 20


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    arrivals = Arrivals(files=200, files_per_s=20)
    first = simulate(arrivals, Settings(), TIMES, seed=3)
    assert simulate(arrivals, Settings(), TIMES, seed=3).latencies == first.latencies
    assert simulate(arrivals, Settings(), TIMES, seed=4).latencies != first.latencies


def test_a_single_file_waits_for_the_timer_of_its_bundle() -> None:
    outcome = simulate(Arrivals(files=1, files_per_s=1), Settings(window_s=0), TIMES)
    least = 20 + TIMES.start_s + TIMES.write_s
    assert least < outcome.latency(1) < least + 1


def test_what_a_poll_holds_back_on_a_quiet_queue_waits_less_in_its_bundle_but_half_of_the_age() -> None:
    quiet = Arrivals(files=1, files_per_s=1)
    held = simulate(quiet, Settings(window_s=1), TIMES).latency(1)
    cut_short = simulate(quiet, Settings(window_s=1), replace(TIMES, held_s=0)).latency(1)
    assert held - cut_short == pytest.approx(LONG_POLL_S + 20 / 2 - 20, abs=2)


def test_files_that_come_faster_than_target_by_age_fill_their_archives() -> None:
    fast = simulate(Arrivals(files=1_500, files_per_s=500), Settings(target_bytes=10_000_000), TIMES)
    assert fast.members == pytest.approx(100, rel=0.1)
    slow = simulate(Arrivals(files=300, files_per_s=2), Settings(window_s=0), TIMES)
    assert slow.members == pytest.approx(1 + 2 * 20, rel=0.25)


def test_the_last_files_of_a_burst_wait_for_a_poll_and_then_for_their_timer() -> None:
    burst = simulate(Arrivals(files=300, files_per_s=50), Settings(), TIMES)
    assert 35 < burst.latency(1) < 45


def test_more_writers_are_needed_where_archives_come_faster_than_few_can_write_them() -> None:
    arrivals = Arrivals(files=2_000, files_per_s=1_000)
    settings = Settings(target_bytes=2_000_000)
    few = simulate(arrivals, replace(settings, write_concurrency=2), TIMES)
    many = simulate(arrivals, replace(settings, write_concurrency=50), TIMES)
    assert few.writes_at_once == 2
    assert few.latency(0.5) > 2 * many.latency(0.5)


def test_fewer_pollers_make_larger_batches() -> None:
    arrivals = Arrivals(files=400, files_per_s=20)
    two = simulate(arrivals, Settings(collect_concurrency=2), TIMES)
    five = simulate(arrivals, Settings(collect_concurrency=5), TIMES)
    assert two.batch > 1.5 * five.batch


def test_a_backfill_in_its_own_lane_holds_up_no_upload_and_in_the_same_it_does() -> None:
    arrivals, settings = Arrivals(files=300, files_per_s=50), Settings()
    times = replace(TIMES, held_s=0)
    alone = simulate(arrivals, settings, times).latency(0.99)
    fast = History(files=200_000, files_per_s=20_000)
    beside = simulate(arrivals, settings, times, history=replace(fast, settings=Settings(window_s=0)))
    shared = simulate(arrivals, settings, times, history=fast)
    assert len(beside.latencies) == len(shared.latencies) == 300
    assert beside.latency(0.99) == pytest.approx(alone, rel=0.1)
    assert shared.latency(0.99) > 2 * alone


def test_a_run_costs_what_the_model_says_of_batches_and_archives_of_its_size() -> None:
    arrivals = Arrivals(files=5_260, files_per_s=1_000)
    outcome = simulate(arrivals, Settings(), TIMES)
    model = Workload(batch_files=round(outcome.batch), files_per_s=1_000)
    polls = outcome.ledger["sqs polls of events"] / arrivals.files
    expected = Bill(prices=US_EAST_1, uses=tuple(archiving(model))).usd + 0.4 * (polls - 0.2)
    assert usd_per_million(outcome, US_EAST_1) == pytest.approx(expected, rel=0.05)


def test_on_the_local_cloud_writers_share_the_machine() -> None:
    arrivals = Arrivals(files=2_000, files_per_s=1_000)
    settings = Settings(target_bytes=10_000_000)
    apart = simulate(arrivals, settings, TIMES)
    together = simulate(arrivals, settings, replace(TIMES, local=True))
    assert len(together.latencies) == 2_000
    assert max(archive.at for archive in together.archives) > 2_000 * TIMES.write_member_s
    assert together.latency(0.5) > 1.5 * apart.latency(0.5)


class Noted:
    """A function of `takes_s` that notes when it was handed what."""

    def __init__(self, env: simpy.Environment, takes_s: float = 0.0) -> None:
        self.env, self.takes_s = env, takes_s
        self.batches: list[tuple[float, list[Any]]] = []
        self.function = Function(env, self._work, cold_start_s=0.0)

    def _work(self, batch: Any) -> Any:
        self.batches.append((self.env.now, list(batch)))
        yield self.env.timeout(self.takes_s)


def queue_in(env: simpy.Environment) -> Queue:
    return Queue(env, random.Random(1), answer_s=0.01)


def test_a_batch_goes_when_it_is_full() -> None:
    env = simpy.Environment()
    queue, noted = queue_in(env), Noted(env)
    queue.fill([(0.0, number) for number in range(25)])
    Mapping(env=env, queue=queue, function=noted.function, batch=20, at_once=1, window_s=30, first=1).run()
    env.run(until=5)
    assert [batch for _, batch in noted.batches] == [list(range(20))]


def test_a_delayed_message_is_seen_when_its_time_has_come_and_not_before() -> None:
    env = simpy.Environment()
    queue, noted = queue_in(env), Noted(env)
    Mapping(env=env, queue=queue, function=noted.function, batch=1, at_once=1).run()
    queue.send("timer", delay_s=7)
    queue.send("now")
    env.run(until=30)
    assert [(math.floor(at), batch) for at, batch in noted.batches] == [(0, ["now"]), (7, ["timer"])]


def test_no_more_batches_are_handled_at_once_than_the_mapping_allows_and_pollers_are_added_step_by_step() -> None:
    env = simpy.Environment()
    queue, noted = queue_in(env), Noted(env, takes_s=1_000)
    queue.fill([(0.0, number) for number in range(100)])
    Mapping(env=env, queue=queue, function=noted.function, batch=1, at_once=30).run()
    env.run(until=1)
    assert 5 <= noted.function.most_at_once <= 10
    env.run(until=900)
    assert noted.function.most_at_once == 30


def test_an_environment_that_is_idle_is_used_again() -> None:
    env = simpy.Environment()
    queue, noted = queue_in(env), Noted(env, takes_s=0.1)
    queue.fill([(0.0, number) for number in range(40)])
    Mapping(env=env, queue=queue, function=noted.function, batch=1, at_once=2).run()
    env.run(until=60)
    assert (noted.function.invocations, noted.function.environments) == (40, 2)


def test_a_poll_of_an_empty_queue_ends_after_its_time_and_is_counted() -> None:
    env = simpy.Environment()
    queue = queue_in(env)
    Mapping(env=env, queue=queue, function=Noted(env).function, batch=1, at_once=2).run()
    env.run(until=100)
    assert queue.requests == 2 * 5


def test_the_local_cloud_gathers_for_its_window_and_hands_over_all_that_is_there() -> None:
    env = simpy.Environment()
    queue, noted = queue_in(env), Noted(env, takes_s=100)
    queue.fill([(0.5, 1), (1.2, 2), (1.4, 3), (9.0, 4)])
    LocalMapping(env=env, queue=queue, function=noted.function, batch=10, at_once=2, window_s=1, look_s=0.0).run()
    env.run(until=50)
    assert noted.batches == [(1.5, [1, 2, 3]), (10.0, [4])]
