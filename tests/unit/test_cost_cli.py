"""`neve cost`: arithmetic that needs no stack."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve.domain.events import DRILL_PREFIX
from neve.domain.forecast import Plan, Sizes
from neve.domain.prices import US_EAST_1, render_prices
from neve.domain.version import ObjectVersion
from neve.ports import InventoryReport
from neve_cli.cost_options import Collection, Keeping
from neve_cli.main import app
from stacks.settings import Settings

MILLION = ("--files", "1000000", "--mean-size", "100KB")


def neve(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["cost", *arguments])
    assert result.exit_code == status, result.output
    return result


def flowing(result: Result) -> str:
    """What was told, without the frame around it."""
    return " ".join(result.output.replace("│", " ").split())


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(neve(*arguments, "--json").stdout)
    return found


def test_an_estimate_has_its_items_and_what_a_million_files_cost() -> None:
    found = document("estimate", *MILLION)
    assert found["per_million_files_usd"] == pytest.approx(1.98, abs=0.01)
    for when in ("once", "monthly"):
        items = [item["usd"] for item in found["items"] if item["when"] == when]
        assert sum(items) == pytest.approx(found[f"{when}_usd"])
    assert all(item["rule"] for item in found["items"] if item["imputed"])
    assert found["ways"][0]["total_usd"] == pytest.approx(found["once_usd"] + 12 * found["monthly_usd"])
    assert found["prices"] == {"region": "us-east-1", "checked": "autumn 2026"}


def test_a_forecast_is_of_the_settings_as_they_are_by_default() -> None:
    settings, keeping, collection = Settings(), Keeping(), Collection()
    said = (keeping.max_age, keeping.collect_window, keeping.attic_days, keeping.audits, collection.storage_class)
    assert said == (
        settings.max_age_s,
        settings.collect_window_s,
        settings.attic_days,
        settings.audit_horizon_days,
        settings.storage_class,
    )
    plan = Plan(sizes=Sizes(counts=((1, 1),)))
    assert keeping.of(plan) == plan
    assert collection.plan.__defaults__ == (f"{settings.target_mib}MiB",)
    assert (plan.target_bytes, plan.max_members) == (settings.target_bytes, settings.max_members)


def test_an_estimate_for_people_shows_the_date_of_the_prices_and_names_the_cheapest_age() -> None:
    told = neve("estimate", *MILLION, "--new-per-day", "864k").stdout
    assert "Prices of us-east-1, autumn 2026" in told
    assert "max_age_s=35; here it is 20" in told
    assert "files below 128 KB stay in STANDARD" in told
    assert "each file by itself, GLACIER" in told


def test_sizes_come_from_a_list_a_gzipped_list_and_a_folder(tmp_path: Path) -> None:
    plain, packed, folder = tmp_path / "sizes.txt", tmp_path / "sizes.csv.gz", tmp_path / "photos"
    plain.write_text("1000\n\n3000\n")
    packed.write_bytes(gzip.compress(b'"a.jpg","1000"\n"b.jpg","3000"\n'))
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(bytes(1000))
    (folder / "below" / "b").write_bytes(bytes(3000))
    (folder / "link").symlink_to(plain)
    for option, path in (("--sizes", plain), ("--sizes", packed), ("--sample", folder)):
        found = document("estimate", option, str(path))
        assert (found["files"], found["size_bytes"]) == (2, 4000)
    assert document("estimate", "--sample", str(folder), "--files", "10M")["files"] == pytest.approx(10_000_000)


class Reports:
    """Stands in for S3Inventory: a report of two data files, with a delete marker and a drill's copy among them."""

    def __init__(self, client: object, place: str, source: str) -> None:
        assert (place, source) == ("s3://reports/inventory/content/all/", "content")

    def newest(self) -> InventoryReport:
        return InventoryReport(manifest="inventory/content/all/2026-11-22T01-00Z/manifest.json", files=2)

    def versions(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, ObjectVersion | None]]:
        assert after == 0
        began = datetime(2026, 11, 22, tzinfo=UTC)
        for number, key in enumerate(("photo", "photo", f"{DRILL_PREFIX}photo"), start=1):
            version = ObjectVersion(
                key=key, version_id=f"{file}-{number}", size_bytes=1000, etag="e", sequencer="", event_at=began
            )
            yield number, version
        yield 4, None


def test_sizes_come_from_the_newest_inventory_of_all_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neve.aws.inventory.S3Inventory", Reports)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    result = neve("bundle-size", "--inventory", "s3://reports/inventory/content/all/", "--json")
    assert json.loads(result.stdout)["targets"][0]["files_in_archive"] == 4
    assert "data file 2 of 2: 4 versions" in result.stderr
    elsewhere = neve("estimate", "--inventory", "s3://reports", status=2)
    assert "SOURCE-BUCKET/NAME" in flowing(elsewhere)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--files", "many", "--mean-size", "1KB"), "no number of files"),
        (("--files", "0", "--mean-size", "1KB"), "no number of files"),
        (("--files", "1M", "--mean-size", "1XB"), "is no size"),
        (("--files", "1M"), "one of"),
        (("--mean-size", "1KB"), "--files beside it"),
        ((*MILLION, "--storage-class", "COLD"), "is no class of archives"),
        ((*MILLION, "--rate", "1", "--new-per-day", "1"), "not both"),
        ((*MILLION, "--target-size", "1GB"), "at most 100MiB"),
        ((*MILLION, "--audits", "3"), "4 days or more"),
        (("--sizes", "/nowhere"), "No such file"),
        ((*MILLION, "--prices", "/nowhere"), "No such file"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(arguments: tuple[str, ...], told: str) -> None:
    assert told in flowing(neve("estimate", *arguments, status=2))


def test_a_line_that_is_no_size_is_named(tmp_path: Path) -> None:
    (tmp_path / "sizes").write_text("12\nlarge\n")
    assert "line 2: 'large'" in flowing(neve("estimate", "--sizes", str(tmp_path / "sizes"), status=2))


def test_a_middle_size_of_archives_is_the_best_and_is_drawn(tmp_path: Path) -> None:
    options = ("--files", "10M", "--mean-size", "100KB", "--restores", "1000")
    for ending, begins in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        plot = tmp_path / f"sizes{ending}"
        found = document("bundle-size", *options, "--plot", str(plot))
        assert plot.read_bytes().startswith(begins)
        assert 10 * 1024**2 <= found["best_target_bytes"] <= 25 * 1024**2
    told = neve("bundle-size", *options).stdout
    assert told.count(" best\n") == 1
    assert "thawed for one" in told
    assert "ends in" in neve("bundle-size", *options, "--plot", "plot.pdf", status=2).output
    assert neve("bundle-size", *options, "--plot", str(tmp_path / "none" / "p.svg"), status=2)


def test_offloading_is_a_bill_of_its_own_and_what_else_is_asked_for_is_in_the_others() -> None:
    plain = document("estimate", *MILLION)
    assert plain["offload_usd"] == 0
    more = ("--offload", "--redirects", "1M", "--replicate", "--restores", "1000", "--download")
    found = document("estimate", *MILLION, *more)
    moved = [item for item in found["items"] if item["when"] == "offload"]
    assert sum(item["usd"] for item in moved) == pytest.approx(found["offload_usd"])
    assert {item["purpose"].split(":")[0] for item in moved} == {"offload"}
    purposes = {item["purpose"] for item in found["items"]}
    assert {"other region: transfer", "redirects", "restores: download", "metrics of offloading"} <= purposes
    assert "for a million uploads" in neve("estimate", *MILLION, "--offload").stdout
    thawed = document("restore", "1000", *MILLION, "--download")["tiers"]["bulk"]["items"]
    assert [item for item in thawed if item["charge"] == "INTERNET_GB"]


def test_without_reconciliation_a_month_costs_less() -> None:
    with_it, without = (
        {item["purpose"] for item in document("estimate", *MILLION, *more)["items"]}
        for more in ((), ("--no-reconcile",))
    )
    assert {purpose.partition(":")[0] for purpose in with_it - without} == {"reconciling"}


def test_a_restore_is_shown_at_every_tier_that_the_class_has() -> None:
    found = document("restore", "10k", *MILLION)
    assert set(found["tiers"]) == {"bulk", "standard", "expedited"}
    assert found["tiers"]["standard"]["usd"] < found["tiers"]["expedited"]["usd"]
    assert set(document("restore", "1", *MILLION, "--storage-class", "DEEP_ARCHIVE")["tiers"]) == {"bulk", "standard"}
    assert "lie in about" in neve("restore", "10k", *MILLION).stdout


def test_deleting_early_names_the_fee_and_sends_daily_dumps_elsewhere() -> None:
    assert document("delete", "--kept-days", "100", *MILLION)["fee_usd"] == 0
    found = document("delete", "--kept-days", "7", *MILLION)
    assert found["fee_usd"] > 0
    assert found["dump_of_1_gb_usd"]["STANDARD"] < found["dump_of_1_gb_usd"]["GLACIER"]
    assert "keep such in STANDARD" in neve("delete", "--kept-days", "7", *MILLION).stdout


def test_prices_are_shown_and_taken_from_a_file(tmp_path: Path) -> None:
    assert "S3 PUT into GLACIER" in neve("prices").stdout
    printed = tmp_path / "prices.json"
    printed.write_text(neve("prices", "--json").stdout.replace("us-east-1", "eu-west-1"))
    assert document("estimate", *MILLION, "--prices", str(printed))["prices"]["region"] == "eu-west-1"
    few = json.loads(render_prices(US_EAST_1))
    del few["prices"]["SQS_REQUEST"]
    printed.write_text(json.dumps(few))
    result = neve("estimate", *MILLION, "--prices", str(printed), status=3)
    assert "SQS_REQUEST" in result.output
