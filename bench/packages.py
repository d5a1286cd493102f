"""Packages that only the bench compares with, in a folder of their own: the virtual environment stays as it is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from neve_local.cloud import PROJECT

REQUIREMENTS = PROJECT / "bench" / "requirements.txt"
FOLDER = PROJECT / ".neve" / "bench-packages"


def installed() -> Path:
    """The folder with the packages, installed if they are not there in these versions for this Python.

    Raises subprocess.CalledProcessError if pip fails.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = FOLDER / "made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return FOLDER
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(FOLDER), "-r", str(REQUIREMENTS)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return FOLDER
