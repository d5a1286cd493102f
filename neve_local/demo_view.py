"""What the demo shows: progress while files flow, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_EVERY_S = 3


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Where the files are: of `total`, so many are uploaded, and of those so many archived or parked."""

    total: int
    uploaded: int
    archived: int
    parked: int
    archives: int

    @property
    def waiting(self) -> int:
        """Uploaded, and neither archived nor parked."""
        return max(0, self.uploaded - self.archived - self.parked)


class View:
    """Tells a person what happens: a live view on a terminal, plain lines otherwise."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._last_line = (0.0, "")
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def say(self, message: str) -> None:
        """One line."""
        self.console.print(Text.assemble((f"{self._elapsed_s:5.0f} s  ", "dim"), message))

    def printed(self, line: str) -> None:
        """One line that a command has printed."""
        self.console.print(Text(f"           {line}".rstrip(), style="dim"))

    @contextmanager
    def flowing(self, total: int) -> Iterator[None]:
        """While files flow; `flow` may be called within."""
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("         {task.description:<10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as self._progress:
            for name in ("uploaded", "archived"):
                self._tasks[name] = self._progress.add_task(name, total=total, note="")
            yield
        self._progress = None

    def flow(self, flow: Flow, *, last: bool = False) -> None:
        """Show where the files are."""
        line = (
            f"uploaded {flow.uploaded:,}  waiting {flow.waiting:,}  archived {flow.archived:,} "
            f"in {flow.archives:,} archives  parked {flow.parked:,}"
        )
        if self._progress is not None:
            note = f"waiting {flow.waiting:,}, parked {flow.parked:,}, archives {flow.archives:,}"
            self._progress.update(self._tasks["uploaded"], completed=flow.uploaded)
            self._progress.update(self._tasks["archived"], completed=flow.archived, note=note)
        if last:
            self.say(line)
        elif self._progress is None:
            said_at, said = self._last_line
            if line != said and time.monotonic() - said_at >= PLAIN_EVERY_S:
                self._last_line = (time.monotonic(), line)
                self.say(line)

    def problems(self, problems: Sequence[str], *, at_most: int = 20) -> None:
        """What went wrong, the first of it."""
        for problem in problems[:at_most]:
            self.console.print(Text(f"  ! {problem}", style="bold red"))
        if len(problems) > at_most:
            self.console.print(f"  ! and {len(problems) - at_most:,} more; all of them are in the report")

    def skipped(self, sentences: Sequence[str], *, at_most: int = 5) -> None:
        """Files that were left out, the first of them by name."""
        for sentence in sentences[:at_most]:
            self.say(f"left out {sentence}")
        if len(sentences) > at_most:
            self.say(f"left out {len(sentences) - at_most:,} more; all of them are in the report")

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began


def size(size_bytes: float) -> str:
    """Bytes for people: 24.3 MB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def rows(lines: Mapping[str, str]) -> Text:
    """Names and what is to be said of them, aligned."""
    width = max(map(len, lines))
    shown = Text()
    for name, text in lines.items():
        shown.append(f"  {name:<{width}}   ", style="dim")
        shown.append(f"{text}\n")
    return shown
