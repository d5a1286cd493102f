"""Which processes belong to a local cloud: all inherit a variable that names its folder."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "NEVE_LOCAL_CLOUD"


@dataclass(frozen=True, kw_only=True)
class CloudProcess:
    """A process of a local cloud; `function_name` is empty for the server itself."""

    pid: int
    function_name: str


def processes_of(folder: Path, *, proc: Path = Path("/proc")) -> list[CloudProcess]:
    """The living processes of the local cloud in `folder`, by process id. Other users' processes are not seen."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if mark in variables:
            name = next((v.partition(b"=")[2] for v in variables if v.startswith(b"AWS_LAMBDA_FUNCTION_NAME=")), b"")
            found.append(CloudProcess(pid=int(entry.name), function_name=name.decode()))
    return sorted(found, key=lambda process: process.pid)


def end(processes: list[CloudProcess]) -> None:
    """Kill `processes` at once: a function may be stopped at any moment, on AWS as here."""
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end_all(folder: Path, *, within_s: float = 5) -> None:
    """Kill the processes of the cloud in `folder`, this one excepted, and wait until they are gone."""
    deadline = time.monotonic() + within_s
    while left := processes_of(folder):
        end(left)
        if time.monotonic() > deadline:
            raise TimeoutError(f"Processes {[process.pid for process in left]} of the local cloud do not end.")
        time.sleep(0.02)
