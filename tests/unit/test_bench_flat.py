"""Whether a file costs the same however many there are."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.flat import AIM, Counted, archived, spread
from neve.domain.cost import archiving, arriving
from neve.domain.prices import US_EAST_1, Bill, Charge

RATE = 1_000.0


def test_a_file_costs_as_much_among_ten_thousand_as_among_a_thousand_and_what_the_model_says() -> None:
    each = [archived(files, RATE).usd / files for files in (1_000, 10_000)]

    assert spread(each) < AIM
    model = Bill(prices=US_EAST_1, uses=tuple(archiving(arriving(RATE), 10_000))).usd / 10_000
    assert each[1] == pytest.approx(model, rel=0.03)


def test_a_file_that_trickles_in_costs_as_much_whenever_it_comes() -> None:
    assert spread([archived(files, 12).usd / files for files in (500, 1_500)]) < AIM


def test_a_call_that_nothing_says_the_price_of_is_not_made() -> None:
    ledger: Counter[Charge] = Counter()
    port = Counted(["a"], {"append": lambda _: {Charge.SQS_REQUEST: 1}}, ledger)

    port.append("b")

    assert ledger == {Charge.SQS_REQUEST: 1}
    with pytest.raises(AttributeError, match="clear"):
        port.clear()
