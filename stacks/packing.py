"""How the one asset of all functions is packed: lambdas/ and its requirements, by pip, without Docker."""

from __future__ import annotations

import hashlib
import os
import platform as machine
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aws_cdk as cdk
import jsii

PROJECT = Path(__file__).resolve().parent.parent
SOURCE = PROJECT / "lambdas"
CACHE = PROJECT / ".neve" / "asset-cache"

# The functions' runtime in an account. `host` is packed for the interpreter that runs this, for the local cloud.
PYTHON_VERSION = "3.13"

# Lambda's own limit for code and layers together, unzipped: 250 MiB.
LARGEST_ASSET_BYTES = 250 * 1024 * 1024

# Python 3.13 runs on Amazon Linux 2023, whose glibc is 2.34: wheels for any older glibc run there.
# pip takes the tags as they are written and does not conclude from a newer one to an older one.
_GLIBC_TAGS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}

# Raise this when the way of packing changes what comes out, so that the asset gets another hash.
_PACKING_VERSION = "1"

_PIP_PATIENCE_S = 900


class PackingFailed(Exception):
    """The asset could not be packed; the message says what to do."""


def lambda_architecture(platform: str) -> str:
    """`arm64` or `x86_64`: the processor of functions that are packed for `platform`."""
    if platform != "host":
        return platform
    return "arm64" if machine.machine().lower() in {"arm64", "aarch64"} else "x86_64"


def asset_hash(platform: str, *, source: Path = SOURCE) -> str:
    """The asset's name: the same for the same source, requirements and platform, whatever was compiled or touched."""
    digest = hashlib.sha256(f"{_PACKING_VERSION}\0{_platform_tag(platform)}\0".encode())
    for path in sorted(_files(source)):
        content = hashlib.sha256((source / path).read_bytes()).hexdigest()
        digest.update(f"{path.as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


def pack(output: Path, platform: str, *, source: Path = SOURCE, cache: Path = CACHE) -> int:
    """Write the asset for `platform` into the folder `output` and return its size in bytes, unzipped.

    Raises PackingFailed if pip fails or the asset is larger than Lambda takes.
    """
    packages = _packages(source / "requirements.txt", platform, cache)
    shutil.copytree(packages, output, dirs_exist_ok=True)
    for path in _files(source):
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target)
    _open_to_readers(output)
    size_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    if size_bytes > LARGEST_ASSET_BYTES:
        raise PackingFailed(
            f"The asset for {platform} is {_mebibytes(size_bytes)} unzipped; Lambda takes "
            f"{_mebibytes(LARGEST_ASSET_BYTES)}. Take something out of lambdas/requirements.txt."
        )
    return size_bytes


@jsii.implements(cdk.ILocalBundling)
class LocalPacking:
    """Packs when CDK asks for it, which it does only for an asset hash that the output folder does not hold yet."""

    def __init__(self, platform: str) -> None:
        self._platform = platform

    def try_bundle(self, output_dir: str, *_options: object, **_named_options: object) -> bool:
        """Pack into `output_dir`. Never answers False, after which CDK would try Docker."""
        try:
            size_bytes = pack(Path(output_dir), self._platform)
        except PackingFailed as failed:
            # Any other exception would come back from CDK as a JavaScript error, its message buried in two traces.
            raise SystemExit(f"neve: {failed}") from failed
        print(f"Packed lambdas/ for {self._platform}: {_mebibytes(size_bytes)} unzipped", file=sys.stderr)  # noqa: T201
        return True


def _files(source: Path) -> Iterator[Path]:
    """The files of `source` that are deployed, relative to it: nothing compiled, nothing hidden."""
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        folders[:] = [name for name in folders if not name.endswith(".egg-info")]
        for name in names:
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")):
                yield (Path(folder) / name).relative_to(source)


def _platform_tag(platform: str) -> str:
    """What the installed packages depend on: processor and Python version."""
    if platform == "host":
        return f"host-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    return f"{platform}-python{PYTHON_VERSION}"


def _packages(requirements: Path, platform: str, cache: Path) -> Path:
    """A folder with the installed `requirements`, from the cache if they were installed before."""
    wanted = hashlib.sha256(f"{_PACKING_VERSION}\0{_platform_tag(platform)}\0".encode() + requirements.read_bytes())
    packages = cache / f"{platform}-{wanted.hexdigest()[:16]}"
    if packages.is_dir():
        return packages
    cache.mkdir(parents=True, exist_ok=True)
    # Renamed into place when complete: who is interrupted leaves no half-filled cache, and two at once do no harm.
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=cache))
    try:
        _install(requirements, platform, unfinished)
        _tidy(unfinished)
        try:
            unfinished.rename(packages)
        except OSError:
            if not packages.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return packages


def _install(requirements: Path, platform: str, target: Path) -> None:
    # --no-deps: requirements.txt names every package and its version, so the same file always gives the same asset.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-color",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--no-compile", "--only-binary=:all:", "--target", str(target)]
    command += ["--requirement", str(requirements)]
    if platform != "host":
        command += ["--implementation", "cp", "--python-version", PYTHON_VERSION]
        for tag in _GLIBC_TAGS:
            command += ["--platform", f"{tag}_{_MACHINES[platform]}"]
    try:
        finished = subprocess.run(  # noqa: S603  # fixed words and the project's own paths
            command, capture_output=True, text=True, timeout=_PIP_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise PackingFailed(f"pip did not finish within {_PIP_PATIENCE_S} s. Check the package index.") from late
    if finished.returncode != 0:
        raise PackingFailed(
            f"pip could not install lambdas/requirements.txt for {platform}:\n{finished.stderr.strip()}\n"
            "The package index is needed once for each change of the requirements; afterwards the cache in "
            ".neve/asset-cache is enough."
        )


def _tidy(packages: Path) -> None:
    """Take out what no function reads: commands, compiled files, pip's own notes. Licences stay."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for compiled in list(packages.rglob("__pycache__")):
        shutil.rmtree(compiled)
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        for note in packages.glob(f"*.dist-info/{name}"):
            note.unlink()


def _open_to_readers(asset: Path) -> None:
    """Give every file the usual permissions: Lambda keeps them as packed and reads the code as another user."""
    for path in (asset, *asset.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1024 * 1024):.1f} MiB"
