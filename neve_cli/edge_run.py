"""`neve edge run`, `watch`, `work`, `relay`: until they are stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

import typer

from neve_cli.failures import PROBLEM
from neve_edge.agent import Agent, Stopped, keep_running
from neve_edge.settings import Settings

_LOG = logging.getLogger("neve.edge")

Part = Callable[[threading.Event], None]


def run_parts(names: tuple[str, ...], settings: Settings) -> None:
    """Run these parts of the agent until a signal, or until one of them ends by itself."""
    log_to_stderr()
    with stopped_by_signals() as stop, closing(Agent(settings)) as agent:
        made: dict[str, Callable[[], Part]] = {
            "watch": lambda: agent.watch().run,
            "work": lambda: agent.work,
            "relay": lambda: agent.relaying().run,
        }
        parts = {name: made[name]() for name in names}
        _LOG.info("started parts=%s folders=%s", "+".join(names), [str(folder.path) for folder in settings.folders])
        try:
            keep_running(parts, stop)
        except Stopped as stopped:
            typer.echo(f"neve: {stopped}", err=True)
            raise typer.Exit(PROBLEM) from stopped
        _LOG.info("stopped")


def log_to_stderr(level: int = logging.INFO) -> None:
    """One line for each outcome; the time is left out where the journal of systemd adds it."""
    moment = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"{moment}%(levelname)s %(message)s")
    logging.getLogger("neve.edge").setLevel(level)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once, which loses nothing either."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
