"""Folders for the tests of the edge agent, and announcements in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from neve.errors import Transient
from neve_edge.announcement import Found
from neve_edge.announcements import Announcements, Taken
from neve_edge.settings import Folder, Settings, load


def settings_for(tmp_path: Path, **given: object) -> Settings:
    """Settings for the folder `site` in `tmp_path`, which is made."""
    (tmp_path / "site").mkdir(exist_ok=True)
    state = {"journal": str(tmp_path / "state" / "edge.db"), "host": "web1"}
    return load(None, [tmp_path / "site"], given={**state, **given})


def only_folder(settings: Settings) -> Folder:
    """The one folder."""
    (folder,) = settings.folders
    return folder


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user can get to, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Be somebody who may not read everything, if the tests are run by root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@dataclass
class MemoryAnnouncements(Announcements):
    """What was put; `refusing` has it fail."""

    found: list[Found] = field(default_factory=list)
    puts: int = 0
    refusing: bool = False

    def put(self, found: Sequence[Found]) -> int:
        if self.refusing:
            raise Transient("no disk")
        self.puts += 1
        self.found += found
        return len(found)

    def take(self, limit: int, *, wait_s: float = 0) -> Sequence[Taken]:
        raise NotImplementedError

    def hold(self, taken: Sequence[Taken]) -> None:
        raise NotImplementedError

    def done(self, taken: Sequence[Taken]) -> None:
        raise NotImplementedError

    def later(self, taken: Sequence[Taken], *, after_s: int, why: str, refused: bool = False) -> None:
        raise NotImplementedError

    @property
    def paths(self) -> list[str]:
        return sorted(each.path for each in self.found)
