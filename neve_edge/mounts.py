"""What kind of file system a path lies on."""

from __future__ import annotations

import os
from pathlib import Path

_SHARED = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "gfs2", "ocfs2", "beegfs", "fuse")
_MOUNTS = Path("/proc/self/mountinfo")


def shared_kind(device: int) -> str:
    """The type of a mounted file system that other hosts may write to as well, such as nfs4; "" for a private one.

    `device` is stat's. What cannot be told counts as private: outside Linux nothing is asked of the kernel anyway.
    Source: proc_pid_mountinfo(5).
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with _MOUNTS.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                if before.split()[2] == number:
                    kind = after.split()[0]
                    return kind if kind.startswith(_SHARED) else ""
    except OSError:
        pass
    return ""


def nearest(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
