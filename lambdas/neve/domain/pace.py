"""Pace: requests at a steady rate, for limits that an account shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Pace:
    """Called before each request, it returns when that may be sent: at most `per_s` a second, and none in a burst.

    `monotonic` and `sleep` are those of the module time. One thread only.
    """

    per_s: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    _next: float = 0.0

    def __call__(self) -> None:
        """Wait for the next request's turn."""
        now = self.monotonic()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(self._next, now) + 1 / self.per_s
