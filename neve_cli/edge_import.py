"""`neve edge import`: a whole tree, with progress, until it is done."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import typer

from neve_cli import output
from neve_cli.edge_run import log_to_stderr, stopped_by_signals
from neve_cli.failures import PROBLEM
from neve_cli.text import counted, safe, size, span
from neve_edge.agent import Agent, Stopped, keep_running
from neve_edge.find import Finder
from neve_edge.ready import Sight, Writer, look
from neve_edge.settings import Folder, Settings
from neve_edge.work import Count, Worker

INTERRUPTED = 130
WINDOW = 120
"""So many looks make the rate that the time left is told by."""
STUCK_S = 300.0
"""So long without any progress, after the tree has been gone through: what is left has failed again and again."""
TOLD_EVERY_S = 10.0
"""How often a line is printed where no terminal is."""
BEING_WRITTEN_S = 30.0
"""How long files that are being written are waited for, beyond the folder's quiet_s."""
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    keep: bool
    dry_run: bool
    as_json: bool


def run_import(settings: Settings, folder: Folder, below: str, order: Order) -> None:
    """Import the files of `folder`, or of its folder `below`; tell how that went, and exit accordingly."""
    log_to_stderr(logging.WARNING)
    if order.dry_run:
        finder = Finder(settings, len, time.monotonic, see=_as_finished)
        finder.scan(folder, below)
        while finder.scanning:
            finder.step()
        _tell(order, {"files": finder.files, "size_bytes": finder.size_bytes, "left_alone": _left(finder)})
        return
    import_by(Agent(settings), folder, below, order)


def import_by(agent: Agent, folder: Folder, below: str, order: Order) -> None:
    """As run_import, by `agent`, which is closed in the end."""
    with stopped_by_signals() as stop, closing(agent):
        importing = _Import(agent, folder, below, order)
        try:
            keep_running(importing.parts(), stop)
        except Stopped as stopped:
            typer.echo(f"neve: {stopped}", err=True)
            raise typer.Exit(PROBLEM) from stopped
        fields = importing.fields()
        if not importing.ended:
            typer.echo("interrupted: run it again, and it goes on where it was", err=True)
            raise typer.Exit(INTERRUPTED)
        troubles = [] if agent.settings.queue else agent.journal.troubles(SHOWN)
    _tell(order, fields)
    for trouble in troubles:
        typer.echo(f"  {safe(trouble.folder)}: {safe(trouble.path)}: {safe(trouble.why)}", err=True)
    if fields["left"] or fields["being_written"]:
        raise typer.Exit(PROBLEM)


def _as_finished(folder: Folder, path: str) -> Sight:
    """For counting, nothing has to be waited for."""
    return replace(look(folder, path), writer=Writer.NONE)


def _left(finder: Finder) -> dict[str, int]:
    return {reason.value: count for reason, count in finder.left.counts.items()}


def _tell(order: Order, fields: dict[str, Any]) -> None:
    if order.as_json:
        output.document(fields)
        return
    typer.echo(f"{counted(fields['files'], 'file')}, {size(fields['size_bytes'])}")
    for reason, count in fields["left_alone"].items():
        typer.echo(f"left alone   {counted(count, 'entry' if count == 1 else 'entrie')}: {reason}")
    if order.dry_run:
        return
    if "queued" in fields:
        typer.echo(f"announced    {counted(fields['queued'], 'file')} to all hosts that share the queue")
        return
    rate = f"{fields['files_per_s']:,.0f} a second"
    typer.echo(f"done         {counted(fields['done'], 'file')} in {fields['seconds']:,.1f} s, {rate}")
    if fields["being_written"]:
        typer.echo(f"! {counted(fields['being_written'], 'file')} being written: import again when that has ended")
    if fields["left"]:
        typer.echo(f"! {counted(fields['left'], 'file')} could not be moved so far; `neve edge run` goes on trying")


@dataclass
class _Import:
    agent: Agent
    folder: Folder
    below: str
    order: Order
    ended: bool = False
    finder: Finder = field(init=False)
    worker: Worker | None = field(init=False)
    left: int = 0
    before: int = 0
    begun: float = field(default_factory=time.monotonic)
    took_s: float = 0.0
    _found_at: float | None = None
    _looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _told_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.finder = Finder(self.agent.settings, self.agent.announcements.put, time.monotonic, keep=self.order.keep)
        self.worker = None if self.agent.settings.queue else self.agent.worker()

    def parts(self) -> dict[str, Any]:
        """What runs side by side. With a queue, its hosts do the work."""
        if self.worker is None:
            return {"find": self.find, "watch the progress": self.end_when_found}
        self.left = self.before = self.agent.journal.unfinished(self.folder.name)
        return {"find": self.find, "work": self.work, "watch the progress": self.show_until_done}

    @property
    def done(self) -> int:
        """Files of the folder that were done since it began, whoever did them."""
        return self.before + self.finder.new_files - self.left

    def find(self, stop: threading.Event) -> None:
        """Go through the tree and announce what is finished; wait for what is being written, but not for ever."""
        finder = self.finder
        finder.scan(self.folder, self.below)
        give_up_at: float | None = None
        while not stop.is_set() and (finder.scanning or len(finder.waiting)):
            pause_s = finder.step()
            if not finder.scanning and give_up_at is None:
                give_up_at = time.monotonic() + self.folder.quiet_s + BEING_WRITTEN_S
            if give_up_at is not None and time.monotonic() > give_up_at:
                break
            stop.wait(min(pause_s or 0.0, 1.0))
        finder.close()
        self._found_at = time.monotonic()
        stop.wait()

    def work(self, stop: threading.Event) -> None:
        """Work on what is announced, whoever announced it."""
        assert self.worker, "with a queue there is no such part"
        with closing(self.worker):
            self.worker.run(stop.is_set)

    def end_when_found(self, stop: threading.Event) -> None:
        """With a queue the end is that everything is announced."""
        while not stop.wait(0.1):
            if self._found_at is not None:
                self._end(stop)

    def show_until_done(self, stop: threading.Event) -> None:
        """Look at the journal every second, say how it goes, and stop when nothing is left that can be done now."""
        progress, progress_at, pause_s = (-1, -1), time.monotonic(), 0.2
        while not stop.wait(pause_s):
            begun = time.monotonic()
            found = self._found_at is not None
            self.left = self.agent.journal.unfinished(self.folder.name)
            # Counting reads a row for each file that is left: it is to take little of the time.
            pause_s = max(0.2, min(10.0, 20 * (time.monotonic() - begun)))
            self._looks.append((time.monotonic(), self.done))
            self._show(found=found)
            last, progress = progress, (self.left, self._steps())
            if last != progress or not found:
                progress_at = time.monotonic()
            if found and (self.left == 0 or time.monotonic() - progress_at > STUCK_S):
                self._end(stop)

    def _steps(self) -> int:
        """Grows with whatever brings this process's files forward; putting them off does not."""
        counts = self.worker.counts if self.worker else {}
        return sum(counts.get(each, 0) for each in (Count.UPLOADED_BYTES, Count.VERIFIED, Count.POINTED))

    def _end(self, stop: threading.Event) -> None:
        self.took_s = time.monotonic() - self.begun
        self.ended = True
        stop.set()

    def _rate(self) -> float:
        (first_at, first), (last_at, last) = self._looks[0], self._looks[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0

    def _show(self, *, found: bool) -> None:
        rate = self._rate()
        total = f"{self.before + self.finder.new_files:,}{'' if found else '+'}"
        left = f", {span(timedelta(seconds=self.left / rate))} left" if found and rate > 0 and self.left else ""
        line = f"{self.done:,} of {total} files, {rate:,.0f} a second{left}"
        if sys.stderr.isatty():
            typer.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif time.monotonic() - self._told_at >= TOLD_EVERY_S:
            self._told_at = time.monotonic()
            typer.echo(line, err=True)

    def fields(self) -> dict[str, Any]:
        """How it went, for JSON. `left` and `done` count all files of the folder that were announced."""
        if self._looks and sys.stderr.isatty():
            typer.echo("", err=True)
        finder = self.finder
        common = {
            "files": finder.files,
            "size_bytes": finder.size_bytes,
            "left_alone": _left(finder),
            "being_written": len(finder.waiting),
            "seconds": round(self.took_s, 3),
        }
        if self.agent.settings.queue:
            return common | {"queued": finder.new_files, "left": 0}
        rate = self.done / self.took_s if self.took_s else 0.0
        return common | {"done": self.done, "left": self.left, "files_per_s": round(rate, 1)}
