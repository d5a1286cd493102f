"""Runs a command, or several as a pipe, and says on standard output what they took, as JSON.

`python -S timed.py OUTPUT COMMAND... [--- COMMAND...]`: a process of its own, because the kernel counts what the
starting process has resident as a peak of the command's. What the last command says, and what all have to complain of,
goes to the file OUTPUT. `peak_bytes` is the sum of their peaks; `status` is that of the last one, as in a shell.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence

PIPE = "---"


def main() -> None:
    """Run them."""
    output, *words = sys.argv[1:]
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    began = time.monotonic()
    processes = list(_started(_commands(words), said))
    ended = [os.wait4(process, 0) for process in processes]
    took = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": sum(used.ru_utime + used.ru_stime for _, _, used in ended),
        "peak_bytes": sum(used.ru_maxrss * 1024 for _, _, used in ended),
        "status": os.waitstatus_to_exitcode(ended[-1][1]),
    }
    json.dump(took, sys.stdout)


def _commands(words: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word == PIPE:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def _started(commands: Sequence[list[str]], said: int) -> Iterator[int]:
    """The processes, each reading what the one before it writes. No end of a pipe stays open here."""
    source = os.open(os.devnull, os.O_RDONLY)
    for number, command in enumerate(commands):
        following, target = (0, said) if number == len(commands) - 1 else os.pipe()
        yield os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, target, 1),
                (os.POSIX_SPAWN_DUP2, said, 2),
            ],
        )
        os.close(source)
        os.close(target)
        source = following


if __name__ == "__main__":
    main()
