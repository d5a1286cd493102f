"""So much of a processor as Lambda gives a function with its memory, by a control group of Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PERIOD_US = 20_000
"""A process that has used up its share waits for the next period. Lambda's own is not published."""
WHOLE_MIB = 1_769
"""Lambda developer guide, "Configure Lambda function memory": with 1,769 MB a function has one processor."""

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/cpu")


def share(memory_mib: int) -> float:
    """Processors that come with so much memory."""
    return memory_mib / WHOLE_MIB


@contextmanager
def group(memory_mib: int) -> Iterator[Path | None]:
    """A group with the share of so much memory, gone in the end; None where this user may make none."""
    quota_us = round(share(memory_mib) * PERIOD_US)
    name = f"neve-bench-{os.getpid()}"
    path = (_V2 if (_V2 / "cgroup.controllers").exists() else _V1) / name
    try:
        path.mkdir()
    except OSError:
        yield None
        return
    try:
        yield path if _limited(path, quota_us) else None
    finally:
        path.rmdir()  # which fails as long as a process is in it


def _limited(path: Path, quota_us: int) -> bool:
    """Set the quota in the words of either version; whether that went well."""
    try:
        if (path / "cpu.max").exists():
            (path / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (path / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
            (path / "cpu.cfs_quota_us").write_text(f"{quota_us}")
    except OSError:
        return False
    return True


@contextmanager
def limited(path: Path | None) -> Iterator[None]:
    """Have this process, with all its threads, in a group meanwhile; with None it stays where it is."""
    if path is None:
        yield
        return
    before = path.parent / _own_group().lstrip("/")
    (path / "cgroup.procs").write_text(f"{os.getpid()}")
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(f"{os.getpid()}")


def _own_group() -> str:
    """Where this process is, in the hierarchy that shares processors out: version 1 names it, of 2 there is but one."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    by_controller = {controller: path for _, controllers, path in lines for controller in controllers.split(",")}
    return by_controller.get("cpu", by_controller.get("", "/"))
