"""The local cloud's function processes are killed at random while files flow: nothing is lost, nothing doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from threading import Event, Thread

from neve_local.cloud import LocalCloud
from tests.deployed import Stacks

WAVES = 6
FILES = 25
"""In each wave. A dead function's messages are hidden for a minute, so each wave gives the killer something to kill."""
PATIENCE_S = 10.0


def kill_at_random(cloud: LocalCloud, stop: Event, killed: list[int]) -> None:
    """Kill one process of a function after the other, with no warning to it."""
    draw = random.Random(7)
    while not stop.wait(draw.uniform(0.1, 0.6)):
        workers = cloud.worker_pids()
        if workers:
            victim = draw.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)


def test_killing_functions_at_random_loses_and_doubles_nothing(cloud: LocalCloud, stacks: Stacks) -> None:
    draw = random.Random(11)
    stop = Event()
    killed: list[int] = []
    killer = Thread(target=kill_at_random, args=(cloud, stop, killed))
    killer.start()
    stored: dict[tuple[str, str], bytes] = {}
    try:
        for wave in range(WAVES):
            deaths = len(killed)
            stored |= stacks.upload({f"chaos/{wave}/{number:02}": draw.randbytes(40_000) for number in range(FILES)})
            deadline = time.monotonic() + PATIENCE_S
            while len(killed) == deaths and time.monotonic() < deadline:
                stop.wait(0.2)
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= WAVES // 2, "too few deaths to mean anything"
    stacks.verify(stored)
    holders = [row for key, _ in stored for row in stacks.files.versions(key)]
    assert len(holders) == WAVES * FILES, "each version is in the index once"
