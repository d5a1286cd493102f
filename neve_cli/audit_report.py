"""Tells what all audits together say: as text, JSON, or a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from neve.domain.audit import Cause
from neve_cli import audit_words as words
from neve_cli import clock, output
from neve_cli.audit_page import page
from neve_cli.audit_statement import Oldest, Statement, read_statement
from neve_cli.failures import PROBLEM
from neve_cli.stack import Stack
from neve_cli.text import counted, moment

SHOWN = 20
"""So many findings that stand are listed."""


def tell(deployed: Stack, html: Path | None, *, as_json: bool) -> None:
    """Read all of it and tell it. Raises typer.Exit if a finding stands, or the page cannot be written."""
    with _counting() as noted:
        statement = read_statement(deployed, clock.now(), noted)
    if html is not None:
        _write(html, page(statement))
    if as_json:
        output.document(words.statement_fields(statement))
    else:
        _show(statement)
        if html is not None:
            typer.echo(f"page         {html}")
    if statement.standing:
        raise typer.Exit(PROBLEM)


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading what audits found") as status:
        yield lambda number: status.update(f"reading what audits found: {number:,} rows")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        typer.echo(f"neve: the page cannot be written: {error}", err=True)
        raise typer.Exit(PROBLEM) from error


def _show(statement: Statement) -> None:
    whole = statement.collection
    within = words.window(statement)
    superseded = f"; {statement.superseded:,} more were repaired" if statement.superseded else ""
    typer.echo(f"{statement.stack} in {statement.region}, {moment(statement.now)} UTC")
    typer.echo("")
    typer.echo(f"collection   {words.covered(whole, whole)}{superseded}")
    typer.echo(f"audited      {words.covered(statement.of_late, whole)}, {within}")
    for cause in Cause:
        typer.echo(f"  {words.NAMES[cause]:<12} {words.covered(statement.by_cause_of_late[cause], whole)}")
    typer.echo(f"ever         {words.covered(statement.ever, whole)}, in {counted(statement.runs, 'run')}")
    for cause in Cause:
        typer.echo(f"  {words.NAMES[cause]:<12} {words.covered(statement.by_cause[cause], whole)}")
    begun = f"; {statement.under_way:,} of them begun or unread" if statement.under_way else ""
    typer.echo(f"never        {words.covered(statement.never, whole)}{begun}")
    _show_oldest(statement, "the oldest has waited", statement.oldest_never)
    _show_oldest(statement, "last audited the longest ago:", statement.longest_ago)
    typer.echo(f"rolling      {words.rolling(statement)}")
    typer.echo(f"budget       {words.budget(statement)}")
    typer.echo("")
    typer.echo(words.damaged(statement.trials_of_late, within, statement))
    if statement.trials.audits != statement.trials_of_late.audits:
        typer.echo(words.damaged(statement.trials, "ever", statement))
    typer.echo("What this rests on:")
    for each in words.assumptions(statement):
        typer.echo(f"  - {each}")
    typer.echo("")
    typer.echo(
        f"findings     {counted(statement.standing, 'archive')} with one that stands; {statement.found:,} audits ever "
        f"found something, {statement.unread:,} could not be read"
    )
    standing = [found for found in statement.findings if found.stands]
    for found in standing[:SHOWN]:
        typer.echo(f"! archive {found.report.archive}: {found.report.verdict}; {found.next}")
    if len(standing) > SHOWN:
        typer.echo(f"! and {len(standing) - SHOWN:,} more: `neve audit report --json`")


def _show_oldest(statement: Statement, words_for_it: str, oldest: Oldest | None) -> None:
    if oldest is not None:
        typer.echo(f"             {words_for_it} {words.age(statement, oldest)}, archive {oldest.archive}")
