"""When the bench may say that WriteArchive is fast enough."""

from __future__ import annotations

import pytest

from bench.throughput import verdict


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([0.91, 0.92, 0.89], "0.91 of the bare loop's throughput; the aim is 0.9 (reached)"),
        ([0.81, 0.80, 0.85], "0.81 of the bare loop's throughput; the aim is 0.9 (missed)"),
    ],
)
def test_the_median_of_the_pairs_decides(ratios: list[float], said: str) -> None:
    assert verdict(ratios) == said


def test_disturbed_pairs_settle_nothing_however_good_they_look() -> None:
    assert verdict([0.89, 1.20, 2.02]).startswith("not settled")
