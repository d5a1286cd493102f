"""Runs a command, and says on standard output what it took, as JSON. `python -S timed.py OUTPUT COMMAND...`.

A process of its own, because the kernel counts what the starting process has resident as a peak of the command's. What
the command says goes to the file OUTPUT.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Run it."""
    output, *command = sys.argv[1:]
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    began = time.monotonic()
    process = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, 1), (os.POSIX_SPAWN_DUP2, descriptor, 2)],
    )
    _, status, used = os.wait4(process, 0)
    took = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
        "status": os.waitstatus_to_exitcode(status),
    }
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main()
