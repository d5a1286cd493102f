"""A small sample of the fault campaign (`make chaos`): what is injected is found, what is no fault is not."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from neve.domain.verdict import Verdict
from tests.chaos import campaign


def test_a_sample_of_faults_is_found_and_named_and_no_change_is_an_alarm() -> None:
    result = campaign.run(flips=60, changes=200, seed=1, largest=20_000)
    assert result.missed == []
    assert result.false_alarms == 0
    assert result.changes.total() == 200
    assert sum(line.injected for line in result.faults.values()) == 60 + 12 + 12 + 6
    assert all(line.injected == line.named + line.harmless for line in result.faults.values())
    assert {*result.faults} > {"archive: bytes of a member", "archive: cut short", "manifest", "source"}
    assert "| **all** | 90 |" in "\n".join(campaign.table(result))


def test_the_campaign_says_so_if_faults_are_missed(capsys: pytest.CaptureFixture[str]) -> None:
    def blind(*, sources: Any, **_: Any) -> Any:
        return dict.fromkeys(sources, Verdict.INTACT), []

    with patch("neve.flows.verify_audit.judge_tar", blind):
        result = campaign.run(flips=10, changes=0, seed=1, largest=5_000)
    with patch.object(campaign, "run", return_value=result):
        assert campaign.main([]) == 1
    assert "MISSED: " in capsys.readouterr().err
