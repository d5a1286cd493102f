"""The set-up of the project's folder: what is skipped, what is told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from neve_local import prepare
from neve_local.prepare import PreparationFailed


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prepare, "STAMPS", tmp_path / "prepared.json")
    return tmp_path / "prepared.json"


def test_a_step_is_done_once_for_what_it_is_made_from(stamps: Path) -> None:
    done: list[str] = []
    for made_from in ("first", "first", "second", "second"):
        prepare.once("packages", made_from, "packages", partial(done.append, made_from))
    assert done == ["first", "second"]


def test_a_step_that_failed_is_done_again(stamps: Path) -> None:
    def fail() -> None:
        raise PreparationFailed("no network")

    with pytest.raises(PreparationFailed):
        prepare.once("packages", "same", "packages", fail)
    done: list[str] = []
    prepare.once("packages", "same", "packages", lambda: done.append("again"))
    assert done == ["again"]


@pytest.mark.parametrize("content", ["", "[]", "not JSON", "null"])
def test_stamps_that_are_not_ours_count_as_none(stamps: Path, content: str) -> None:
    stamps.write_text(content)
    assert prepare.read_stamps(stamps) == {}


def test_other_steps_stamps_are_kept(stamps: Path) -> None:
    stamps.write_text(json.dumps({"cdk": "as it was"}))
    prepare.once("packages", "new", "packages", lambda: None)
    assert prepare.read_stamps(stamps) == {"cdk": "as it was", "packages": "new"}


def test_the_digest_changes_with_a_files_bytes_and_with_the_words(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1\n")
    first = prepare.digest(tmp_path, ["requirements.txt"], "3.11")
    assert prepare.digest(tmp_path, ["requirements.txt"], "3.11") == first
    assert prepare.digest(tmp_path, ["requirements.txt"], "3.12") != first
    (tmp_path / "requirements.txt").write_text("a==2\n")
    assert prepare.digest(tmp_path, ["requirements.txt"], "3.11") != first


@pytest.mark.parametrize(("printed", "major"), [("v20.11.1\n", 20), ("v8.0.0", 8), ("", 0), ("node: not found", 0)])
def test_the_major_number_of_node_is_read(printed: str, major: int) -> None:
    assert prepare.node_major(printed) == major


def test_a_failed_command_shows_its_last_words_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PreparationFailed, match=r"(?s)what went wrong.*try this"):
        prepare.run(["sh", "-c", "echo what went wrong; exit 3"], remedy="try this", folder=tmp_path)


def test_a_command_that_is_missing_shows_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PreparationFailed, match="try this"):
        prepare.run([tmp_path / "absent"], remedy="try this", folder=tmp_path)


def test_every_requirement_is_pinned_and_agrees_with_the_constraints() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = [line.partition("#")[0].strip() for line in (prepare.ROOT / name).read_text().splitlines()]
        named = [line.partition("==") for line in lines if line and not line.startswith("-")]
        return {package.partition("[")[0].lower().replace("_", "-"): version for package, _, version in named}

    constraints = pins("constraints.txt")
    for name in ("requirements.txt", "requirements-dev.txt", "lambdas/requirements.txt"):
        for package, version in pins(name).items():
            assert version, f"{package} in {name} is not pinned"
            assert constraints[package] == version, f"{package} in {name}"


def test_the_lock_of_the_cdk_command_names_no_host() -> None:
    locked = json.loads((prepare.ROOT / "package-lock.json").read_text())
    assert locked["packages"]["node_modules/aws-cdk"]["integrity"]
    assert not [package for package in locked["packages"].values() if "resolved" in package]
