"""What is reckoned for docs/scale.md: limits in order, settings that suffice, and that the page is up to date."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from neve.domain.prices import US_EAST_1
from scale import __main__ as command
from scale.capacity import HEADROOM, Limit, Model, partitions
from scale.figures import BENCHMARKS, Figure, FigureMissing, local_run, measured, region, slowed
from scale.quotas import QUOTAS
from scale.report import count, hours, paper, size
from stacks.settings import Settings


def figure(value: float) -> Figure:
    return Figure(what="", value=value, unit="", letter="a", date="2026-01-01")


FIGURES = {
    "collect_event": figure(0.1),
    "write_member": figure(4.0),
    "plan_file": figure(0.3),
    "extract_file": figure(5.0),
    "reconciled": figure(25_000),
    "copy_upload": figure(10.0),
    "local_4_kb": figure(200),
    "local_100_kb": figure(100),
}


def model(file_bytes: int = 100_000, **settings: object) -> Model:
    return Model(settings=Settings(**settings), figures=FIGURES, file_bytes=file_bytes)  # type: ignore[arg-type]


def limit(of: Model, begins: str) -> Limit:
    return next(each for each in of.limits if each.what.startswith(begins))


def test_concurrency_is_how_many_come_in_a_second_times_how_long_each_takes() -> None:
    write_s = 0.3 + 263 * (0.004 * 1769 / 1024 + 2 * 100_000 / 75_000_000)
    assert model().writes(1_000) == pytest.approx(1_000 / 263 * write_s)


def test_a_limit_binds_where_it_is_used_up_and_not_before() -> None:
    for each in model().limits:
        if math.isfinite(each.binds_at):
            assert each.used(each.binds_at * 0.98) <= each.most < each.used(each.binds_at * 1.02), each.what


def test_the_setting_that_is_named_suffices_with_room_and_not_much_more() -> None:
    for rate in (1_000, 10_000, 30_000):
        for each in model().met(rate):
            if each.setting and each.ends_at > rate * HEADROOM:
                raised = model(**{each.setting: each.needed(rate)})
                again = next(one for one in raised.limits if one.setting == each.setting)
                assert rate < again.binds_at < 2 * rate, each.setting


def test_a_setting_is_never_named_beyond_what_a_mapping_takes() -> None:
    assert model().offloading.needed(10_000) == 1_000


def test_limits_come_in_the_order_in_which_they_bind_and_the_next_lies_ahead() -> None:
    one = model()
    binding = [each.binds_at for each in one.met(10_000)]
    assert binding == sorted(binding)
    assert binding[-1] < 10_000 <= one.next(10_000).binds_at
    assert one.met(10) == []


def test_a_longer_window_takes_the_load_off_the_open_bundle_and_off_no_poller() -> None:
    short, long = model(collect_window_s=1), model(collect_window_s=5)
    assert limit(short, "the lane's open bundle, filled").binds_at < 5_000
    assert limit(long, "the lane's open bundle, filled").binds_at > limit(short, "the lane's open bundle, f").binds_at
    assert long.open_bundle_writes(10_000) < short.open_bundle_writes(10_000)


def test_what_events_have_waited_in_the_window_they_do_not_wait_in_the_bundle() -> None:
    at_once, gathered = model(max_age_s=40, collect_window_s=1), model(max_age_s=40, collect_window_s=20)
    assert at_once.archives_per_s(2) == pytest.approx(2 / (1 + 2 * 39))
    assert gathered.archives_per_s(2) == pytest.approx(2 / (1 + 2 * 20))
    assert gathered.plan(1e6, 2).archives[0][2] == pytest.approx(1 + 2 * 20)


def test_small_archives_meet_the_counter_of_serials_first_of_all_items() -> None:
    assert limit(model(), "counter of serials").binds_at == pytest.approx(263_000, rel=0.01)
    assert limit(model(target_mib=1), "counter of serials").binds_at == pytest.approx(11_000, rel=0.01)


def test_more_partitions_than_a_thousand_units_each_are_not_needed() -> None:
    assert [partitions(units) for units in (0.5, 1_000, 1_001, 10_000)] == [1, 1, 2, 10]


def test_dollars_are_those_of_the_forecast() -> None:
    once_usd, month_usd = model().usd(1e9, US_EAST_1)
    assert once_usd == pytest.approx(1_000 * model().usd(1e6, US_EAST_1)[0])
    assert model().usd_per_million(1e4, US_EAST_1) == pytest.approx(once_usd / 1_000, rel=0.05)
    assert month_usd < 1_000 * model().usd(1e6, US_EAST_1)[1]


def test_a_backfill_goes_as_fast_as_its_slowest_part() -> None:
    one = model()
    assert one.backfill() == (min(one.backfill_rates.values()), "backfill_write_concurrency")
    raised = model(
        backfill_write_concurrency=one.backfill_writers,
        backfill_collect_concurrency=one.backfill_collects,
        backfill_shards_at_once=1000,
    )
    assert raised.backfill()[0] == pytest.approx(one.backfill(raised=True)[0], rel=0.05)


def test_what_ends_with_size_ends_sooner_with_smaller_archives() -> None:
    files = {each.what: each.files for each in model().growing}
    small = {each.what: each.files for each in model(target_mib=5).growing}
    reading = next(what for what in files if what.startswith("reading the rows"))
    assert small[reading] == pytest.approx(files[reading] / 5, rel=0.05)
    assert [each.files for each in model().growing] == sorted(files.values())


def test_reconciling_goes_over_versions_and_archives() -> None:
    version_s = 1 / 25_000 + 0.15 / 1_000 + 0.010 / 200
    assert model().reconcile_h(1e9) == pytest.approx(1e9 * (version_s + 0.05 / 263) / 5 / 3600)


def test_a_deployment_without_a_rolling_pass_audits_nothing() -> None:
    without = model(audit_horizon_days=0)
    assert without.audits_per_day(1e9) == 0
    assert all("audit" not in each.what for each in without.growing if math.isfinite(each.files))


def test_a_restore_of_more_archives_takes_longer_in_each_part() -> None:
    few, many = model().restore(100, 26_300), model().restore(1_000, 263_000)
    assert all(many[part] == pytest.approx(10 * few[part]) for part in few)


def test_files_over_the_target_are_not_reckoned() -> None:
    with pytest.raises(ValueError, match="S3 copies each"):
        model(file_bytes=200_000_000)


def test_processor_time_takes_longer_where_a_function_has_less_of_a_processor() -> None:
    assert slowed(10, 1769 / 1024) == pytest.approx(0.010)
    assert slowed(10, 1769 / 2048) == pytest.approx(0.020)
    assert slowed(10, 4.0) == pytest.approx(0.010)
    assert region(FIGURES).write_member_s == pytest.approx(0.004 * 1769 / 1024)


def test_the_bench_has_printed_every_figure_that_is_needed() -> None:
    found = measured()
    assert set(found) == set(FIGURES)
    assert all(each.value > 0 and each.date for each in found.values())
    assert local_run().files > 0


def test_a_figure_that_is_missing_is_an_error_and_names_the_command(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(BENCHMARKS.read_text().replace("<!-- measured: k -->", ""))
    with pytest.raises(FigureMissing, match="--only k"):
        measured(document)
    document.write_text(BENCHMARKS.read_text().replace("| CopyUpload ", "| Copying "))
    with pytest.raises(FigureMissing, match=r"part \(m\)"):
        measured(document)


def test_every_quota_has_a_source_and_a_remedy() -> None:
    assert all(each.source and each.remedy and each.value > 0 for each in QUOTAS)


def test_the_committed_page_is_what_the_code_prints() -> None:
    """Run `make scale` if not; the simulation's part is not compared, since it takes longer."""
    page = paper(Model(settings=Settings(), figures=measured()), US_EAST_1)
    assert command.DOCUMENT.read_text().startswith(page + "\n\n## Simulated\n")


def test_the_command_prints_other_sizes_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = command.DOCUMENT.read_bytes()
    assert command.main(["--file-bytes", "20000", "--no-simulation"]) == 0
    assert "Files of 20 KB" in capsys.readouterr().out
    assert command.main(["-c", "target_mib=0", "--no-simulation"]) == 2
    assert "target_mib=0" in capsys.readouterr().err
    assert command.main(["--file-bytes", "0", "--no-simulation"]) == 2
    assert command.DOCUMENT.read_bytes() == before


def test_numbers_are_said_as_people_read_them() -> None:
    assert [count(value) for value in (0.38, 12, 1_234, 3.8e6, 1e10)] == [
        "0.38",
        "12",
        "1,234",
        "3.8 million",
        "10 billion",
    ]
    assert [size(value) for value in (20_000, 26.6e6, 1e15)] == ["20 KB", "26.6 MB", "1 PB"]
    assert [hours(value) for value in (0.2, 2.34, 240)] == ["12 min", "2.3 h", "10 days"]


def test_limits_that_settings_raise_are_those_of_the_deployment() -> None:
    assert limit(replace(model(), settings=Settings(write_concurrency=40)), "WriteArchive").most == 40
