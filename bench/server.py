"""One server without functions for each measurement, and a process of its own with an environment made for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neve_local.cloud import PROJECT, LocalCloud


@contextmanager
def served(server: str = "neve_local.server") -> Iterator[LocalCloud]:
    """A server of its own for one measurement, on a free port, gone with all it held when the measurement ends.

    `server` is the module that serves.
    """
    with tempfile.TemporaryDirectory(prefix="neve-bench-") as folder:
        cloud = LocalCloud(Path(folder) / "cloud", port=0, tied=True, server=server)
        with cloud:
            yield cloud


def run(cloud: LocalCloud, module: str, *words: str, packages: Path | None = None, stdin: str = "") -> Any:
    """What `python -m bench.<module> <words>` prints as JSON, run against `cloud`. `packages` are importable there.

    Raises subprocess.CalledProcessError if it fails; what it has to say goes to this process's standard error.
    """
    variables = cloud.environment() | ({"PYTHONPATH": str(packages)} if packages else {})
    return _run(module, words, variables, home=cloud.layout.folder, stdin=stdin)


def run_alone(module: str, *words: str) -> Any:
    """As run, for what needs no cloud."""
    with tempfile.TemporaryDirectory(prefix="neve-bench-") as folder:
        return _run(module, words, {}, home=Path(folder))


def _run(module: str, words: Sequence[str], variables: Mapping[str, str], *, home: Path, stdin: str = "") -> Any:
    environment = {
        **variables,
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "LANG": "C.UTF-8",
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *words],
        cwd=PROJECT,
        env=environment,
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
