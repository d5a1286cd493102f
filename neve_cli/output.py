"""Prints for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer


def document(value: Any) -> None:
    """One JSON document. Non-ASCII is escaped, so that no terminal or locale can change a key."""
    typer.echo(json.dumps(value, indent=2))


def line(value: Any) -> None:
    """One JSON document on one line."""
    typer.echo(json.dumps(value))


def array(values: Iterable[Any]) -> None:
    """One JSON array, written as its elements come."""
    typer.echo("[", nl=False)
    separator = "\n  "
    for value in values:
        typer.echo(separator + json.dumps(value), nl=False)
        separator = ",\n  "
    typer.echo("\n]")


def document_with(fields: Mapping[str, Any], name: str, values: Iterable[Any]) -> None:
    """One JSON document of `fields`, and of an array `name` that is written as its elements come."""
    typer.echo("{")
    for field, value in fields.items():
        typer.echo(f"  {json.dumps(field)}: {json.dumps(value)},")
    typer.echo(f"  {json.dumps(name)}: ", nl=False)
    array(values)
    typer.echo("}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Aligned columns, written as the rows come; each hundred rows share their widths. `right`: columns of numbers."""
    for number, page in enumerate(_pages(rows, 100)):
        lines = [head, *page] if number == 0 else page
        widths = [max(len(each[column]) for each in [head, *page]) for column in range(len(head))]
        for each in lines:
            cells = [
                text.rjust(width) if column in right else text.ljust(width)
                for column, (text, width) in enumerate(zip(each, widths, strict=True))
            ]
            typer.echo("  ".join(cells).rstrip())


def _pages(rows: Iterable[Sequence[str]], size: int) -> Iterator[list[Sequence[str]]]:
    page: list[Sequence[str]] = []
    for row in rows:
        page.append(row)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
