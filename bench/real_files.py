"""A tree of real files: names, sizes and contents as they lie about on this machine."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neve_local.demo_files import choose

SOURCE = Path("/usr")
LARGEST_BYTES = 5 * 1024 * 1024
"""Larger ones would become archives of their own, or uploads in parts: other things than what is compared."""
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
"""Names that mean nothing to a shell, in patterns, or in lists of files."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files below `folder`, by their paths from there. `copies` of them are there a second time, or oftener."""

    folder: Path
    sizes: dict[str, int]
    copies: int

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(self.sizes.values())

    def drawn(self, count: int, seed: int) -> list[str]:
        """So many files, by chance."""
        return sorted(random.Random(seed).sample(sorted(self.sizes), count))

    def has(self, folder: Path, names: Sequence[str]) -> bool:
        """Whether `folder` has these files with the same bytes, each below it by the end of its path, and no others."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return sorted(_digest(path) for path in found) == sorted(_digest(self.folder / name) for name in names)

    def __str__(self) -> str:
        sizes = sorted(self.sizes.values())
        again = f" {self.copies:,} of them are copies under other names, for want of more." if self.copies else ""
        return (
            f"{len(sizes):,} files, {self.size_bytes / 1e6:,.0f} MB: every n-th file of {SOURCE} with 1 byte to "
            f"{LARGEST_BYTES // 2**20} MiB; the median has {sizes[len(sizes) // 2]:,} bytes.{again}"
        )


def make(folder: Path, count: int) -> Tree:
    """Copy so many files to `folder`. Raises FileNotFoundError if there is none at all."""
    found = [
        file
        for file in choose(SOURCE, prefix="", at_most=None).files
        if 0 < file.size_bytes <= LARGEST_BYTES and _PLAIN.fullmatch(file.key)
    ]
    if not found:
        raise FileNotFoundError(f"{SOURCE} has no files of 1 byte to {LARGEST_BYTES} bytes")
    taken = min(count, len(found))
    chosen = [found[number * len(found) // taken] for number in range(taken)]
    sizes: dict[str, int] = {}
    for number in range(count):
        round_, place = divmod(number, taken)
        key = chosen[place].key if not round_ else f"again-{round_}/{chosen[place].key}"
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chosen[place].path, path)
        sizes[key] = path.stat().st_size
    return Tree(folder=folder, sizes=sizes, copies=count - taken)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
