"""What the bench says of live uploads beside a backfill."""

from __future__ import annotations

from bench.backfilling import Beside, Shard, text


def test_live_uploads_are_told_beside_those_that_had_nothing_beside_them() -> None:
    alone = Beside(what="nothing", latencies=[1.0] * 99 + [4.0], history=0, seconds=50, running=False)
    beside = Beside(what="a backfill", latencies=[2.0] * 98 + [6.0] * 2, history=1_000, seconds=50, running=True)
    said = text([alone, beside], [Shard(what="announced", versions=10_000, seconds=4)])
    first, second, shard = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if "**" in line
    )
    assert first == ["nothing", "100", "1.0 s", "**1.0 s**", "1.00", "-", "-"]
    assert second == ["a backfill", "100", "2.0 s", "**6.0 s**", "6.00", "20/s", "yes"]
    assert shard == ["announced", "10,000", "4.0 s", "**2,500**"]
