"""How many files of which sizes: from a number and a mean, a file of sizes, a folder, or an S3 Inventory."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from neve.domain.forecast import Sizes, gathered

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B)?", re.IGNORECASE)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def size_bytes(text: str) -> int:
    """The bytes that `100KB` (thousands), `25MiB` (1,024s) or `512` stand for. Raises typer.BadParameter."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no size; give bytes, or a number with KB, MB, GB, KiB, MiB or GiB")
    return round(float(found[1]) * _UNITS[(found[2] or "").upper()])


def count(text: str) -> float:
    """The number that `1000000`, `1_000_000`, `10M` or `2.5k` stands for, above 0. Raises typer.BadParameter."""
    found = _COUNT.fullmatch(text.strip().replace("_", "").replace(",", ""))
    number = float(found[1]) * _THOUSANDS[found[2].lower()] if found else 0.0
    if not number:
        raise typer.BadParameter(f"{text!r} is no number of files; give for example 1000000, 10M or 2.5k")
    return number


def sizes(files: float | None, mean: int | None, listed: Path | None, sample: Path | None) -> Sizes:
    """The sizes that the options tell; `files` says how many there are if it is more than were seen.

    Raises typer.BadParameter if they tell none, or more than one way.
    """
    if sum(given is not None for given in (mean, listed, sample)) != 1:
        raise typer.BadParameter("say how large the files are by one of --mean-size, --sizes and --sample")
    if mean is not None:
        if files is None:
            raise typer.BadParameter("--mean-size needs --files beside it")
        return Sizes(counts=((mean, files),))
    try:
        seen = gathered(_listed(listed) if listed else _sampled(str(sample)))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"{listed or sample}: {error}") from error
    return seen.of(files) if files else seen


def _listed(path: Path) -> Iterator[int]:
    """One size in bytes on each line, gzipped or not; of a line of several columns the last is the size."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            text = line.replace(",", " ").split()[-1].strip('"')
            if not text.isdecimal():
                raise ValueError(f"line {number}: {text!r} is no size in bytes")
            yield int(text)


def _sampled(folder: str) -> Iterator[int]:
    """The sizes of all files below the folder; links are not followed, what cannot be read is left out."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False).st_size
