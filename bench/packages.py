"""Packages that only the bench compares with, in folders of their own: the virtual environment stays as it is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from neve_local.cloud import PROJECT

CLIENTS = "requirements"
AWS_CLI = "awscli"
"""Files of bench/ that name packages: S3 clients, and the AWS command line with all it needs."""


def installed(name: str = CLIENTS) -> Path:
    """The folder with the packages of `bench/<name>.txt`, installed if they are not there for this Python.

    Raises subprocess.CalledProcessError if pip fails.
    """
    requirements = PROJECT / "bench" / f"{name}.txt"
    folder = PROJECT / ".neve" / f"bench-{'packages' if name == CLIENTS else name}"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / "made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder), "-r", str(requirements)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return folder
