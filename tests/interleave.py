"""Runs tasks side by side, one step at a time, in every order that a bounded number of preemptions allows.

A step ends where a task calls a port: what happens between two calls touches nothing that tasks share. Most races need
no more than two preemptions to show (Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Task = Callable[[], None]

DEEPER = int(os.environ.get("NEVE_MORE_PREEMPTIONS", "0"))
"""For a search that may take its time: each one more multiplies the orders by about ten."""


def _taken() -> threading.Lock:
    """A lock to wait for until another thread gives it back; an order makes thousands of such hand-overs."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class Steps:
    """Hands the one turn there is to one task after the other. Each run takes new Steps.

    `turns` names the task to go on with before step n, where it is not the one that took step n - 1.
    """

    turns: Mapping[int, int] = field(default_factory=dict)
    taken: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    _mine: threading.local = field(default_factory=threading.local)
    _go: list[threading.Lock] = field(default_factory=list)
    _back: threading.Lock = field(default_factory=_taken)

    def watch(self, port: Any) -> Any:
        """`port`, with a step before each of its calls."""
        return _Watched(port, self._pause)

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all tasks to their ends; what one raises comes out of here once all have ended."""
        self._go = [_taken() for _ in tasks]
        errors: list[BaseException] = []
        running = set(range(len(tasks)))

        def live(number: int, task: Task) -> None:
            self._mine.number = number
            self._go[number].acquire()
            try:
                task()
            except BaseException as error:  # noqa: BLE001  # handed on below
                errors.append(error)
            finally:
                running.discard(number)
                self._back.release()

        threads = [threading.Thread(target=live, args=pair, daemon=True) for pair in enumerate(tasks)]
        for thread in threads:
            thread.start()
        current = 0
        while running:
            current = self.turns.get(len(self.taken), current if current in running else min(running))
            self.taken.append((current, frozenset(running)))
            self._go[current].release()
            self._back.acquire()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _pause(self) -> None:
        number = getattr(self._mine, "number", None)
        if number is None:
            return  # a thread that a task started, or the test itself
        self._back.release()
        self._go[number].acquire()


class _Watched:
    def __init__(self, port: Any, pause: Callable[[], None]) -> None:
        self._port, self._pause = port, pause

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._pause()
            return found(*args, **kwargs)

        return call


def explored(live: Callable[[Steps], None], *, preemptions: int) -> int:
    """Call `live`, which runs the same tasks each time, once for every order; how many there were.

    Which of the others follows a task that has ended is no preemption, and tried as well.
    """
    return _explore(live, {}, preemptions + DEEPER)


def _explore(live: Callable[[Steps], None], turns: dict[int, int], left: int) -> int:
    steps = Steps(turns=turns)
    try:
        live(steps)
    except BaseException as error:
        error.add_note(f"in this order of steps: {[task for task, _ in steps.taken]}")
        raise
    orders = 1
    for number in range(max(turns, default=-1) + 1, len(steps.taken)):
        chosen, running = steps.taken[number]
        cost = int(number > 0 and steps.taken[number - 1][0] in running)
        if cost <= left:
            for other in sorted(running - {chosen}):
                orders += _explore(live, {**turns, number: other}, left - cost)
    return orders
