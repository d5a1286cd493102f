"""Which memory a function is said to cost least with."""

from __future__ import annotations

import pytest

from bench.power import Job, Took, cheapest

JOB = Job(name="any", handler=lambda *_: {}, messages=list, files=10, mib=512, within_s=3)


def took(mib: int, seconds: float) -> Took:
    return Took(mib=mib, seconds=seconds, cpu_seconds=0, log_bytes=0, peak_bytes=0)


def test_what_only_waits_costs_least_with_the_least_memory_and_what_computes_costs_alike_until_it_waits() -> None:
    assert cheapest(JOB, [took(256, 1.0), took(512, 1.0)]).mib == 256
    assert cheapest(JOB, [took(256, 2.0), took(512, 0.9), took(1_024, 0.6)]).mib == 512


def test_what_is_too_slow_is_not_chosen_however_cheap_it_is() -> None:
    assert cheapest(JOB, [took(256, 3.1), took(512, 3.0), took(1_024, 2.9)]).mib == 512
    assert cheapest(JOB, [took(256, 9.0), took(1_024, 4.0)]).mib == 1_024


def test_dollars_are_those_of_a_million_files() -> None:
    a_second_of_a_gb = took(1_024, 1.0).usd(JOB)
    assert a_second_of_a_gb == pytest.approx((0.0000133334 + 0.0000002) * 100_000)
