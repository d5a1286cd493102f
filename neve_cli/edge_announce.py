"""`neve edge announce`: files that somebody says are finished."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import typer

from neve_cli.failures import PROBLEM
from neve_cli.text import counted, safe
from neve_edge.agent import Agent
from neve_edge.announcement import Found
from neve_edge.settings import Settings
from neve_edge.tell import found


def announce(settings: Settings, paths: list[Path], *, dry_run: bool) -> None:
    """Announce files, and say which of them cannot be."""
    files: list[Found] = []
    refused = 0
    for path in paths:
        try:
            files.append(found(settings, path.absolute()))
        except ValueError as error:
            refused += 1
            typer.echo(f"neve: {safe(str(path))}: {error}", err=True)
    news = 0
    if files and not dry_run:
        with closing(Agent(settings)) as agent:
            news = agent.announcements.put(files)
    if dry_run:
        typer.echo(f"{counted(len(files), 'file')} would be announced")
    else:
        known = f", {len(files) - news:,} were known already" if news < len(files) else ""
        typer.echo(f"{counted(news, 'file')} announced{known}")
    if refused:
        raise typer.Exit(PROBLEM)
