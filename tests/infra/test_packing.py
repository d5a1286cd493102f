"""Promises of the asset: its name depends on what is in it, and both platforms' assets are complete."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stacks import packing
from stacks.packing import LARGEST_ASSET_BYTES, PackingFailed, asset_hash, lambda_architecture, pack

# Field e_machine of an ELF file.
AARCH64 = (183).to_bytes(2, "little")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small asset's source: a handler, a package and requirements that name nothing."""
    folder = tmp_path / "lambdas"
    (folder / "neve").mkdir(parents=True)
    (folder / "handler.py").write_text("import neve\n")
    (folder / "neve" / "__init__.py").write_text("")
    (folder / "requirements.txt").write_text("# nothing\n")
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_name_of_an_asset_does_not_depend_on_times_or_on_what_python_left_behind(source: Path) -> None:
    before = asset_hash("arm64", source=source)
    os.utime(source / "handler.py", (0, 0))
    for left_behind in ("__pycache__/handler.cpython-311.pyc", "neve/__pycache__/x.pyc", ".cache/x", "neve.egg-info/x"):
        path = source / left_behind
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left behind")
    assert asset_hash("arm64", source=source) == before


@pytest.mark.parametrize("changed", ["handler.py", "neve/__init__.py", "requirements.txt", "neve/new.py"])
def test_the_name_of_an_asset_changes_with_its_source_and_requirements(source: Path, changed: str) -> None:
    before = asset_hash("arm64", source=source)
    (source / changed).write_text("# changed\n")
    assert asset_hash("arm64", source=source) != before


def test_each_platform_has_an_asset_of_its_own(source: Path) -> None:
    assert len({asset_hash(platform, source=source) for platform in ("arm64", "x86_64", "host")}) == 3


def test_functions_of_the_host_have_the_hosts_architecture() -> None:
    assert lambda_architecture("arm64") == "arm64"
    assert lambda_architecture("x86_64") == "x86_64"
    assert lambda_architecture("host") in {"arm64", "x86_64"}


def test_an_asset_holds_the_source_and_nothing_compiled_or_hidden(source: Path, tmp_path: Path) -> None:
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "handler.cpython-311.pyc").write_bytes(b"compiled")
    (source / ".env").write_text("SECRET=1")
    pack(tmp_path / "asset", "host", source=source, cache=tmp_path / "cache")
    assert files(tmp_path / "asset") == {"handler.py", "neve/__init__.py", "requirements.txt"}


def test_a_function_may_read_its_files_whatever_the_umask_was(source: Path, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        pack(tmp_path / "asset", "host", source=source, cache=tmp_path / "cache")
    finally:
        os.umask(umask)
    assert (tmp_path / "asset" / "neve").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "asset" / "handler.py").stat().st_mode & 0o777 == 0o644


def test_packages_are_installed_once_for_the_same_requirements(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "first", "host", source=source, cache=tmp_path / "cache")
    monkeypatch.setattr(packing, "_install", None)  # a second installation would fail
    (source / "handler.py").write_text("# changed\n")
    pack(tmp_path / "second", "host", source=source, cache=tmp_path / "cache")


def test_a_failed_installation_says_so_and_leaves_no_half_filled_cache(source: Path, tmp_path: Path) -> None:
    (source / "requirements.txt").write_text("./no-such-folder\n")
    with pytest.raises(PackingFailed, match=r"pip could not install lambdas/requirements\.txt for host"):
        pack(tmp_path / "asset", "host", source=source, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_asset_that_lambda_would_refuse_is_refused_here(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "LARGEST_ASSET_BYTES", 10)
    with pytest.raises(PackingFailed, match="unzipped; Lambda takes"):
        pack(tmp_path / "asset", "host", source=source, cache=tmp_path / "cache")


@pytest.mark.package_index
@pytest.mark.parametrize("platform", ["arm64", "x86_64", "host"])
def test_an_asset_is_complete_licensed_and_small_enough(tmp_path: Path, platform: str) -> None:
    asset = tmp_path / "asset"
    assert pack(asset, platform) <= LARGEST_ASSET_BYTES

    packed = files(asset)
    assert {"neve/config.py", "boto3/__init__.py", "aws_lambda_powertools/__init__.py", "awscrt/__init__.py"} <= packed
    assert not any("__pycache__" in path or path.endswith(".pyc") for path in packed)

    distributions = list(importlib.metadata.distributions(path=[str(asset)]))
    names = {re.sub(r"[-_.]+", "-", distribution.name).lower() for distribution in distributions}
    for distribution in distributions:
        metadata = distribution.metadata
        assert {"License", "License-Expression"} & set(metadata), distribution.name
        for requirement in distribution.requires or []:
            if ";" not in requirement:  # what an extra or another platform would need is not asked for
                wanted = re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()
                assert wanted in names, f"{distribution.name} needs {requirement}"


@pytest.mark.package_index
def test_what_is_compiled_in_the_arm64_asset_is_for_arm64(tmp_path: Path) -> None:
    pack(tmp_path / "asset", "arm64")
    compiled = list((tmp_path / "asset").rglob("*.so"))
    assert compiled, "awscrt has a compiled part"
    for library in compiled:
        with library.open("rb") as file:
            assert file.read(20)[18:] == AARCH64, library.name


@pytest.mark.package_index
def test_the_hosts_asset_can_be_imported_by_itself(tmp_path: Path) -> None:
    asset = tmp_path / "asset"
    pack(asset, "host")
    # -S and -I: nothing of this interpreter's own packages, and no environment.
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import boto3, awscrt.checksums, aws_lambda_powertools, neve.config\n"
        "from cryptography.hazmat.primitives.asymmetric import rsa\n"
        "assert boto3.__file__.startswith(sys.argv[1])\n"
        "boto3.client('s3', region_name='us-east-1')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(asset)], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
