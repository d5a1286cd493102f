"""What the bench says of offloading: imports against other clients, and the way from a folder to a pointer."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.importing import AWS, NEVE, RCLONE, Took, make_tree, ratios_to, verdict
from bench.importing import text as text_of_import
from bench.offloading import AGENT, SERVER, Run, function_of
from bench.offloading import text as text_of_way


def took(seconds: float) -> Took:
    return Took(files=1_000, seconds=seconds, cpu_seconds=1.5, peak_bytes=70 * 2**20, server_cpu_seconds=2.5)


FOUND = {NEVE: [took(2), took(4)], AWS: [took(8), took(6)], RCLONE: [took(4), took(2)]}


def test_clients_are_compared_round_by_round() -> None:
    assert ratios_to(FOUND[NEVE], FOUND[RCLONE]) == [2.0, 0.5]
    assert verdict(FOUND) == (
        f"neve makes 2.75 times {AWS} (faster in 2 of 2 pairs) and 1.25 times {RCLONE} (faster in 1 of 2 pairs)."
    )


def test_an_import_is_told_with_what_each_client_verifies_and_what_the_server_took() -> None:
    said = text_of_import(FOUND, {NEVE: "this one", AWS: "1.2", RCLONE: "v3"}, 1_000)
    neve, aws, rclone = (line for line in said.splitlines() if line.startswith("| ") and "MiB" in line)
    assert [cell.strip() for cell in neve.split("|")[2:8]] == [
        "**375**",
        "250 to 500",
        "",
        "1.50 s",
        "70 MiB",
        "2.50 s",
    ]
    assert "**2.75** (1.50 to 4.00)" in aws
    assert "**1.25** (0.50 to 2.00)" in rclone
    assert f"- {RCLONE} (v3): S3 compares the MD5 of each PUT" in said


def test_a_tree_is_known_by_its_names_sizes_and_bytes(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, 3)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    lines = [
        f"{path.relative_to(tmp_path)} {path.stat().st_size} {hashlib.md5(path.read_bytes()).hexdigest()}\n"
        for path in files
    ]
    assert len(files) == tree.count == 3
    assert tree.digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_way_to_a_pointer_is_told_by_its_stages_and_by_who_took_the_processor() -> None:
    points = ("dropped", "announced", "uploaded", "copied", "flipped", "let go")
    times = [{point: 100 + file + step / 2 for step, point in enumerate(points)} for file in range(4)]
    said = text_of_way([Run(rate=1, times=times, cpu_s={AGENT: 0.02, SERVER: 0.06, "CopyUpload": 0.04})])
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in said.splitlines() if line.startswith("| ")]
    figures = dict(cells)
    assert figures["taken, hashed, PUT"] == "0.50 / 0.50"
    assert figures["**announce to pointer: all of these**"] == "2.00 / 2.00"
    assert (figures["the agent"], figures["CopyUpload"], figures["**all**"]) == ("5.0", "10.0", "**30.0**")
    assert "4 files at 1/s had their pointers after 5.0 s (0.8/s)." in said


def test_a_function_is_known_by_its_deployed_name() -> None:
    assert function_of("neve-restore-Extract9BA700EA-E78768CD0E5A7") == "Extract"
    assert function_of("neve-offload-CopyUploadDEADBEEF-0") == "CopyUpload"
    assert function_of(SERVER) == SERVER
