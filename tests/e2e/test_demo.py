"""The demo itself: its figures are right, and it does not call a run good that was not."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neve_local.cloud import LocalCloud
from neve_local.demo import arguments, main, run
from neve_local.demo_view import View

Settings = dict[str, str | int | float]
Demo = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def demo(cloud: LocalCloud, settings: Settings, tmp_path: Path) -> Demo:
    """Runs the demo on the running cloud with the settings that it was deployed with; status and report."""

    def start(*words: str) -> tuple[int, dict[str, Any]]:
        report = tmp_path / "report" / "demo.json"
        options = arguments([*words, "--cloud", str(cloud.layout.folder), "--report", str(report)])
        options.context = list(settings.items())
        status = run(options, View(Console(highlight=False, soft_wrap=True)))
        return status, json.loads(report.read_text())

    return start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few files, among them one over the target size, an empty one, odd names, and what cannot be uploaded."""
    made = tmp_path / "files"
    (made / "sub folder").mkdir(parents=True)
    for name in ("plain", "sub folder/ü+%20&.txt", "line\nbreak", "x" * 200, "💾"):
        (made / name).write_bytes(name.encode() * 100)
    (made / "empty").touch()
    (made / "large.bin").write_bytes(os.urandom(4 * 1024 * 1024 + 1))
    (made / "link").symlink_to(made / "plain")
    Path(os.fsdecode(os.fsencode(made) + b"/not-utf-8-\xff")).write_bytes(b"bytes")
    return made


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
def sabotage(cloud: LocalCloud) -> Iterator[Callable[[Callable[[dict[str, Any]], object]], None]]:
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


def test_every_file_comes_back_and_the_report_says_so(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = demo("--count", "150")
    assert status == 0, report["problems"]
    assert report["ok"]
    assert report["files"] == report["archived"] == report["verified"] == 150
    assert (report["parked"], report["lost"], report["problems"]) == (0, 0, [])
    assert report["archives"] >= 1
    assert 0 < report["latency_p50_s"] <= report["latency_p99_s"] <= report["latency_max_s"]
    assert report["requests"]["s3"]["GetObject"] >= 150
    assert report["requests_by_service"].keys() == {"dynamodb", "s3", "sqs"}
    assert report["write_units"] >= 150
    # Bundles of 4 MiB have more PUTs to the file than those of 25 MiB.
    assert 2.0 < report["usd_per_million_files_floor"] < report["usd_per_million_files"] < 3.5
    assert report["usd_per_million_files_as_they_came"] > 0
    assert report["prices"]["checked"]
    assert any(line["imputed"] for line in report["bill_as_they_came"])
    assert "each read back byte for byte" in capsys.readouterr().out


def test_any_folder_will_do_and_what_cannot_be_uploaded_is_named(demo: Demo, folder: Path) -> None:
    status, report = demo("--files", str(folder))
    assert status == 0, report["problems"]
    assert report["files"] == report["verified"] == 7
    assert report["requests"]["s3"]["CopyObject"] == 1
    assert len(report["skipped"]) == 2
    assert any("symbolic link" in each for each in report["skipped"])
    assert any("not UTF-8" in each for each in report["skipped"])


def test_a_file_that_is_parked_makes_it_fail(
    demo: Demo, folder: Path, cloud: LocalCloud, sabotage: Callable[[Callable[[dict[str, Any]], object]], None]
) -> None:
    (folder / "large.bin").unlink()  # a copy would be quicker than its deletion
    sabotage(lambda version: cloud.session().client("s3").delete_object(**version))
    status, report = demo("--files", str(folder))
    assert status == 1
    assert not report["ok"]
    assert (report["parked"], report["lost"], report["verified"]) == (1, 0, 5)
    assert report["problems"][0].startswith("parked: source gone")


def test_a_dead_letter_makes_it_fail(
    demo: Demo, folder: Path, cloud: LocalCloud, sabotage: Callable[[Callable[[dict[str, Any]], object]], None]
) -> None:
    sqs, url = cloud.session().client("sqs"), cloud.outputs()["SweepDeadLetterQueue"]
    sabotage(lambda _: sqs.send_message(QueueUrl=url, MessageBody="{}"))
    try:
        status, report = demo("--files", str(folder))
    finally:
        sqs.purge_queue(QueueUrl=url)
    assert status == 1
    assert (report["verified"], report["lost"]) == (7, 0)
    assert "SweepDeadLetterQueue" in report["problems"][0]


def test_a_folder_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--files", str(tmp_path), "--report", str(tmp_path / "none.json")]) == 1
    assert "FILES=" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["--files", str(tmp_path / "nothing")])
    assert refused.value.code == 2
