"""Batches: a line for each source, with its destination behind a tab, or as a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from neve_cli.restore_plan import Line, Problem

LINE_BYTES = 64 * 1024
"""Key, destination and version have some 8 KB at most, escaped six times as long. A longer line is a mistake."""

_FIELDS = {"source", "destination", "version", "at"}
_BOM = b"\xef\xbb\xbf"


def read_lines(stream: BinaryIO, fail: Callable[[Problem], None]) -> Iterator[Line]:
    """The lines of a batch, read as they are asked for; `fail` is told of each that is not understood.

    Blank lines and those that begin with # are left out. Lines end in a line feed, with a carriage return before it or
    not; everything else in a line counts.
    """
    for number, raw in enumerate(_raw_lines(stream), start=1):
        text = ""
        try:
            text = _text(raw.removeprefix(_BOM) if number == 1 else raw)
            line = _line(number, text)
        except ValueError as error:
            fail(Problem(line=number, source=text or repr(raw[:60]), reason=str(error)))
        else:
            if line:
                yield line


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; of one that is too long, its first LINE_BYTES."""
    while raw := stream.readline(LINE_BYTES):
        piece = raw
        while not piece.endswith(b"\n") and (piece := stream.readline(LINE_BYTES)):
            pass
        too_long = len(raw) == LINE_BYTES and not raw.endswith(b"\n")
        yield raw if too_long else raw.removesuffix(b"\n").removesuffix(b"\r")


def _text(raw: bytes) -> str:
    if len(raw) == LINE_BYTES:
        raise ValueError(f"the line is longer than {LINE_BYTES:,} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError("the line is not UTF-8; a JSON line can escape what is") from error


def _line(number: int, text: str) -> Line | None:
    if not text.strip() or text.startswith("#"):
        return None
    if text.startswith("{"):
        return _from_json(number, text)
    source, tab, destination = text.partition("\t")
    if "\t" in destination:
        raise ValueError("more than one tab: a key that has tabs is written as JSON")
    return Line(number=number, source=source, **({"destination": destination} if tab and destination else {}))


def _from_json(number: int, text: str) -> Line:
    try:
        fields: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON object: {error}; a key that begins with a brace is written as key:{{...") from error
    unknown = set(fields) - _FIELDS
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}: there are {', '.join(sorted(_FIELDS))}")
    if "source" not in fields:
        raise ValueError("the field source is missing")
    for name, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"the field {name} must be text")
    return Line(number=number, **{name: value for name, value in fields.items() if value or name == "source"})
