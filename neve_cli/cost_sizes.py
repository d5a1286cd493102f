"""How many files of which sizes: from a number and a mean, a file of sizes, a folder, or an S3 Inventory."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from neve.domain.forecast import Sizes, gathered
from neve_cli.text import counted, safe

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


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the options tell of the files: how many, and by one way how large they are."""

    files: float | None = None
    mean: int | None = None
    listed: Path | None = None
    sample: Path | None = None
    inventory: str | None = None


def sizes(told: Told) -> Sizes:
    """The sizes that the options tell; `files` says how many there are if it is more than were seen.

    Raises typer.BadParameter if they tell none, or more than one way; InventoryInvalid and what botocore raises.
    """
    ways = (told.mean, told.listed, told.sample, told.inventory)
    if sum(given is not None for given in ways) != 1:
        raise typer.BadParameter("say how large the files are by one of --mean-size, --sizes, --sample and --inventory")
    if told.mean is not None:
        if told.files is None:
            raise typer.BadParameter("--mean-size needs --files beside it")
        return Sizes(counts=((told.mean, told.files),))
    try:
        seen = gathered(_seen(told))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"{told.listed or told.sample or told.inventory}: {error}") from error
    return seen.of(told.files) if told.files else seen


def _seen(told: Told) -> Iterator[int]:
    if told.listed:
        return _listed(told.listed)
    return _inventoried(str(told.inventory)) if told.inventory else _sampled(str(told.sample))


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


def _inventoried(place: str) -> Iterator[int]:
    """The sizes of all versions in the newest report under `place`, one data file after the other.

    Delete markers are left out, and what drills have put there, as Collect leaves it out. How far it is goes to stderr:
    a report of a billion versions is read for hours.
    """
    from neve.aws.inventory import S3Inventory  # noqa: PLC0415  # --help must not wait for botocore
    from neve.domain.events import DRILL_PREFIX  # noqa: PLC0415
    from neve_cli.stack import watched_session  # noqa: PLC0415

    inventory = S3Inventory(watched_session().client("s3"), place, _source(place))
    report = inventory.newest()
    typer.echo(f"{safe(report.manifest)}: {counted(report.files, 'data file')}", err=True)
    versions = 0
    for file in range(report.files):
        for _, version in inventory.versions(report.manifest, file, 0):
            if version is not None and not version.key.startswith(DRILL_PREFIX):
                versions += 1
                yield version.size_bytes
        typer.echo(f"data file {file + 1} of {report.files}: {counted(versions, 'version')}", err=True)


def _source(place: str) -> str:
    """The bucket that the reports in `place` are about: S3 puts them into <prefix>/<bucket>/<inventory's name>/."""
    scheme, _, rest = place.partition("://")
    folders = rest.strip("/").split("/")
    if scheme != "s3" or len(folders) < 3:
        raise typer.BadParameter(
            f"{place}: give the place of one inventory's reports, s3://BUCKET/PREFIX/SOURCE-BUCKET/NAME/",
            param_hint="--inventory",
        )
    return folders[-2]
