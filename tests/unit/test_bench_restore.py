"""What the bench says of restores: what it counts, and what it adds up."""

from __future__ import annotations

from typing import Any

import pytest

from bench.read_bytes import AIM, Shape, Tally, measured
from bench.restore_cost import BATCHES, Batch, bill, floor
from neve.domain.prices import MILLION, Charge
from neve.domain.tally import Tally as LedgerTally


@pytest.fixture(scope="module")
def tallies() -> dict[str, Tally]:
    """One full archive with files of 100 KB, and three of them asked for in a batch."""
    found = measured(Shape(name="100 KB", sizes_bytes=(100_000,), archives=1))
    return {name: Tally(**counts) for name, counts in found["tallies"].items()}


def test_single_files_are_read_to_the_byte(tallies: dict[str, Tally]) -> None:
    assert tallies["single"].read_bytes == tallies["single"].wanted_bytes
    assert tallies["single"].reads == tallies["single"].files


def test_a_random_batch_reads_hardly_more_than_its_files_and_the_peer_whole_archives(tallies: dict[str, Tally]) -> None:
    batch = tallies["random"]
    assert batch.wanted_bytes == 300_000
    assert batch.wanted_bytes <= batch.read_bytes <= AIM * batch.wanted_bytes
    assert batch.whole_bytes > 263 * 100_000


def test_files_side_by_side_are_read_at_once_with_the_headers_between_them(tallies: dict[str, Tally]) -> None:
    assert tallies["together"].reads == 1
    assert tallies["together"].read_bytes > tallies["together"].wanted_bytes


def took(**charges: float) -> dict[str, Any]:
    counted = {Charge.DYNAMODB_WRITE_UNIT: 10.0, **{Charge[name]: units for name, units in charges.items()}}
    return {"invocations": 1, "cpu_seconds": 1.0, "ledger": LedgerTally(counted=counted).line()}


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)
def test_a_restore_costs_what_s3_charges_and_what_neve_adds(batch: Batch) -> None:
    found = {
        "message_bytes": 100_000,
        "reads": batch.files,
        "read_bytes": batch.files * 100_000,
        "archive_bytes": batch.archives * 26_000_000,
        "planning": took(GLACIER_BULK_REQUEST=batch.archives, DYNAMODB_READ_UNIT=5),
        "extracting": took(S3_GET=batch.files + batch.archives, S3_PUT=batch.files, SNS_PUBLISH=1),
    }
    whole, least = bill(batch, found), floor(batch, found)
    assert least.usd > MILLION * 0.000_005, "a PUT for each file is in it"
    assert whole.usd > least.usd
    by_s3 = sum(whole.usd_of(use) for use in whole.uses if use.charge.startswith(("S3", "GLACIER")))
    assert by_s3 == pytest.approx(least.usd + batch.archives * 0.4 / batch.files), "and a GET for each manifest"
