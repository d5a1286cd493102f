"""The demo itself: its figures are right, and it does not call a run good that was not."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from neve_cli.main import app
from neve_local.cloud import LocalCloud
from neve_local.demo import arguments, main, run
from neve_local.demo_view import View

Settings = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A finished demo: its exit status, its report, and what it showed."""

    status: int
    report: dict[str, Any]
    shown: str


def demo(cloud: LocalCloud, settings: Settings, folder: Path, report: Path) -> Ran:
    """Run the demo with the files of `folder` on the running cloud, with the settings that it was deployed with."""
    words = ["--files", str(folder), "--cloud", str(cloud.layout.folder), "--report", str(report)]
    options = arguments(words)
    options.context = list(settings.items())
    shown = io.StringIO()
    status = run(options, View(Console(file=shown, highlight=False, soft_wrap=True)))
    return Ran(status=status, report=json.loads(report.read_text()), shown=shown.getvalue())


def made(folder: Path) -> Path:
    """A few files, among them an empty one, odd names, and what cannot be uploaded."""
    (folder / "sub folder").mkdir(parents=True)
    for name in ("plain", "sub folder/ü+%20&.txt", "line\nbreak", "[a]*?.html", "x" * 200, "💾"):
        (folder / name).write_bytes(name.encode() * 100)
    (folder / "empty").touch()
    (folder / "link").symlink_to(folder / "plain")
    Path(os.fsdecode(os.fsencode(folder) + b"/not-utf-8-\xff")).write_bytes(b"bytes")
    return folder


@pytest.fixture(scope="module")
def good(cloud: LocalCloud, settings: Settings, attached: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of 38 files, one of them over the target size, that nothing disturbs."""
    folder = made(tmp_path_factory.mktemp("demo") / "files")
    (folder / "large.bin").write_bytes(os.urandom(4 * 1024 * 1024 + 1))
    for number in range(30):
        (folder / f"{number}.txt").write_bytes(os.urandom(number * 1000))
    return demo(cloud, settings, folder, folder.parent / "report" / "demo.json")


def first_upload(cloud: LocalCloud) -> dict[str, Any]:
    """The first version that a demo uploads from now on."""
    s3, bucket = cloud.session().client("s3"), cloud.outputs()["ContentBucket"]
    known = {each["VersionId"] for each in s3.list_object_versions(Bucket=bucket, Prefix="demo/").get("Versions", [])}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for each in s3.list_object_versions(Bucket=bucket, Prefix="demo/").get("Versions", []):
            if each["VersionId"] not in known:
                return {"Bucket": bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
        time.sleep(0.05)
    raise AssertionError("the demo uploads nothing")


@pytest.fixture
def sabotage(cloud: LocalCloud, attached: None) -> Iterator[Callable[[Callable[[dict[str, Any]], object]], None]]:
    """Does something with the first version that is uploaded, as soon as it is there."""
    started: list[threading.Thread] = []
    failed: list[BaseException] = []

    def start(do: Callable[[dict[str, Any]], object]) -> None:
        def work() -> None:
            try:
                do(first_upload(cloud))
            except BaseException as error:  # noqa: BLE001  # it would be lost with the thread
                failed.append(error)

        started.append(threading.Thread(target=work))
        started[-1].start()

    yield start
    for each in started:
        each.join()
    assert not failed


def test_every_file_comes_back_and_the_report_says_so(good: Ran) -> None:
    report = good.report
    assert good.status == 0, report["problems"]
    assert report["ok"]
    assert report["files"] == report["archived"] == report["verified"] == 38
    assert (report["parked"], report["lost"], report["problems"]) == (0, 0, [])
    assert report["archives"] >= 2
    assert 0 < report["latency_p50_s"] <= report["latency_p99_s"] <= report["latency_max_s"]
    assert "each read back byte for byte" in good.shown


def test_its_price_of_archiving_is_that_of_archiving_alone(good: Ran) -> None:
    report = good.report
    requests = report["requests"]
    assert requests.keys() == report["requests_by_service"].keys() == {"dynamodb", "s3", "sqs"}
    assert 37 <= requests["s3"]["GetObject"] < 38 + report["archives"] * 2, "restored files are not counted"
    assert requests["s3"]["CopyObject"] == 1
    assert "RestoreObject" not in requests["s3"]
    assert report["invocations"].keys() == {"Collect", "WriteArchive", "CopyLarge"}
    assert report["write_units"] >= 38
    # Bundles of 4 MiB have more PUTs to the file than those of 25 MiB.
    assert 2.0 < report["usd_per_million_files_floor"] < report["usd_per_million_files"] < 3.5
    assert report["usd_per_million_files_as_they_came"] > 0
    assert report["prices"]["checked"]
    assert any(line["imputed"] for line in report["bill_as_they_came"])


def test_the_model_and_the_ledger_say_the_same_of_what_it_cost(good: Ran) -> None:
    cost = good.report["cost"]
    assert cost["ledger_usd_per_million"] > 1.5, "events, reads and rows alone are as much"
    assert abs(cost["difference_percent"]) <= 5


def test_what_it_cost_can_be_asked_for(good: Ran, cloud: LocalCloud) -> None:
    told = CliRunner().invoke(app, ["cost", "actual", "--since", "1d", "--json"], env=cloud.environment())
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["files"] >= good.report["files"]
    assert found["unpriced_requests"] == 0
    asked = {item["charge"]: item["quantity"] for item in found["items"] if item["when"] == "asked"}
    assert asked["S3_GET"] >= good.report["requests"]["s3"]["GetObject"]
    assert {"LAMBDA_REQUEST", "SQS_REQUEST", "GLACIER_STANDARD_REQUEST", "S3_PUT_GLACIER"} <= asked.keys()


def test_files_leave_their_folder_and_no_url_ever_fails(good: Ran) -> None:
    offload = good.report["offload"]
    assert offload["files"] == offload["released"] == good.report["files"]
    assert offload["urls_checked"] >= offload["files"]
    assert offload["redirected"] >= offload["files"]
    assert offload["url_failures"] == 0
    assert f"Moved out of a folder, with their URLs served all along (`neve edge run`, {offload['web_server']}" in (
        good.shown
    )


def test_what_it_deleted_is_restored_with_one_thaw_for_each_archive(good: Ran) -> None:
    report, restore = good.report, good.report["restore"]
    assert (report["restored"], report["restore_mismatches"]) == (38, 0)
    assert (restore["wanted"], restore["in_batch"]) == (38, 37)
    assert restore["to_folder"] > 0
    assert restore["to_content"] + restore["to_folder"] == 38
    assert report["thaws"] == restore["archives"] == report["archives"]
    assert (restore["archived_again"], restore["passed_over"]) == (0, restore["to_content"])
    assert [each["status"] for each in restore["commands"]] == [0, 0]
    assert all(0 < each["seconds"] < 120 for each in restore["commands"])
    assert restore["requests"]["s3"]["RestoreObject"] == report["thaws"] + restore["extended"]
    assert restore["usd"] > 0
    assert "$ neve restore --batch" in good.shown
    assert "38 were deleted and are restored" in good.shown


def test_a_bit_that_is_turned_over_is_found_and_repaired(good: Ran) -> None:
    audit = good.report["audit"]
    assert (audit["damaged_injected"], audit["damaged_found"], audit["repaired"]) == (1, 1, 1)
    assert audit["audited"] == 2
    assert audit["verdicts"].keys() == {"intact", "archive damaged"}
    assert audit["verdicts"]["archive damaged"] == 1
    # The files were deleted and restored: the index has two versions of most of them, and both are moved.
    assert audit["files_moved"] > audit["verdicts"]["intact"] // 2
    assert audit["repaired_by"] > audit["damaged"]
    assert audit["drill"]["files"] == 3
    assert "$ neve audit repair" in good.shown
    assert "Audited, damaged on purpose, found, repaired" in good.shown


def test_what_cannot_be_uploaded_is_named(good: Ran) -> None:
    skipped = good.report["skipped"]
    assert len(skipped) == 2
    assert any("symbolic link" in each for each in skipped)
    assert any("not UTF-8" in each for each in skipped)


def test_a_file_that_is_parked_and_a_dead_letter_make_it_fail(
    cloud: LocalCloud,
    settings: Settings,
    tmp_path: Path,
    sabotage: Callable[[Callable[[dict[str, Any]], object]], None],
) -> None:
    folder = made(tmp_path / "files")
    s3, sqs, url = cloud.session().client("s3"), cloud.session().client("sqs"), cloud.outputs()["SweepDeadLetterQueue"]

    def do(version: dict[str, Any]) -> None:
        s3.delete_object(**version)
        sqs.send_message(QueueUrl=url, MessageBody="{}")

    sabotage(do)
    try:
        ran = demo(cloud, settings, folder, tmp_path / "demo.json")
    finally:
        sqs.purge_queue(QueueUrl=url)
    assert ran.status == 1
    assert not ran.report["ok"]
    assert (ran.report["parked"], ran.report["lost"], ran.report["verified"]) == (1, 0, 6)
    assert (ran.report["restored"], ran.report["restore_mismatches"]) == (6, 0)
    assert ran.report["problems"][0].startswith("parked: source gone")
    assert "SweepDeadLetterQueue" in ran.report["problems"][1]
    assert ran.report["audit"]["damaged_injected"] == 0, "where something is wrong already, nothing is damaged"


def test_a_folder_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--files", str(tmp_path), "--report", str(tmp_path / "none.json")]) == 1
    assert "FILES=" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["--files", str(tmp_path / "nothing")])
    assert refused.value.code == 2
