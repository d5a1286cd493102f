"""Runs tasks side by side, one step at a time, in every order that a bounded number of preemptions allows.

A step ends where a task calls a port: what happens between two calls touches nothing that tasks share. Most races need
no more than two preemptions to show (Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import greenlet

Task = Callable[[], None]

DEEPER = int(os.environ.get("NEVE_MORE_PREEMPTIONS", "0"))
"""For a search that may take its time: each one more multiplies the orders by about ten."""


@dataclass
class Steps:
    """Hands the one turn there is to one task after the other. Each run takes new Steps.

    `turns` names the task to go on with before step n, where it is not the one that took step n - 1.
    """

    turns: Mapping[int, int] = field(default_factory=dict)
    taken: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    _tasks: Sequence[greenlet.greenlet] = ()

    def watch(self, port: Any) -> Any:
        """`port`, with a step before each of its calls."""
        return _Watched(port, self._pause)

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all tasks to their ends; what one raises comes out of here once all have ended."""
        errors: list[BaseException] = []
        running = set(range(len(tasks)))

        def life(number: int, task: Task) -> Callable[[], None]:
            def live() -> None:
                try:
                    task()
                except BaseException as error:  # noqa: BLE001  # handed on below
                    errors.append(error)
                finally:
                    running.discard(number)

            return live

        # Greenlets and not threads: an order makes thousands of hand-overs, and the kernel takes its time for each.
        self._tasks = [greenlet.greenlet(life(*pair)) for pair in enumerate(tasks)]
        current = 0
        tracer = sys.gettrace()  # of coverage, which would take one greenlet's calls for another's
        sys.settrace(None)
        while running:
            current = self.turns.get(len(self.taken), current if current in running else min(running))
            self.taken.append((current, frozenset(running)))
            self._tasks[current].switch()
        sys.settrace(tracer)
        if errors:
            raise errors[0]

    def _pause(self) -> None:
        task = greenlet.getcurrent()
        if task in self._tasks:  # else it is a thread that a task started, or the test itself
            assert task.parent is not None
            task.parent.switch()


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
