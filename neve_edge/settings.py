"""The agent's settings: edge.toml, or defaults that are good for one folder."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from neve.errors import SettingInvalid
from neve_edge.announcement import RESERVED, refuse_key
from neve_edge.mounts import nearest, shared_kind

SYSTEM_FILE = Path("/etc/neve/edge.toml")
SYSTEM_STATE = Path("/var/lib/neve")
IGNORED = (
    *("*.tmp", "*.temp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*.swp", "*~"),
    *(".nfs*", ".fuse_hidden*", ".*.??????", ".#*"),  # removed while open; rsync's and editors' own
)
"""Names of what is not finished, or never will be a file of the site."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder whose files are moved. `path` and `attic` are absolute and free of symbolic links.

    `ignore` has patterns of names, or of whole relative paths if they have a slash. A file that nobody is known to
    write to is finished when it has not changed for `quiet_s`. Its remains are kept for `keep_days`, 0 for not at all.
    `host_url` is where this host serves the folder, with a slash at its end, or "". `inner_prefixes` are those of other
    folders that begin with this one's `key_prefix`: keys that begin with them are those folders' own.
    """

    name: str
    path: Path
    key_prefix: str
    ignore: tuple[str, ...]
    quiet_s: float
    attic: Path
    keep_days: int
    host_url: str
    inner_prefixes: tuple[str, ...] = ()

    def key_of(self, path: str) -> str:
        """The key of the file at a relative path. Raises ValueError, with the reason, if it can have none."""
        key = self.key_prefix + path
        refuse_key(key)
        if key.startswith(self.inner_prefixes):
            raise ValueError(
                f"its key would be {key}, which by its key_prefix belongs to another [[folder]]: rename what it is in"
            )
        return key


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the agent goes by. `region` "" is the environment's. A `queue` is shared with other hosts.

    `folders` are those whose files are worked on, `watched` those among them in which files are looked for.
    `bandwidth_mb_s` is in 10^6 bytes a second, 0 for no limit; `parallel` is how many files are worked on at once.
    """

    stack: str
    region: str
    host: str
    journal: Path
    spool: Path
    queue: bool
    parallel: int
    bandwidth_mb_s: float
    scan_every_s: float
    folders: tuple[Folder, ...]
    watched: tuple[Folder, ...]

    @cached_property
    def _private(self) -> tuple[str, tuple[str, ...]]:
        inside = (self.spool, *(folder.attic for folder in self.folders))
        return os.fspath(self.journal), tuple(f"{path}/" for path in inside)

    def is_private(self, path: str) -> bool:
        """Whether an absolute path is, or is in, an attic or the spool, or is the journal's or lies beside it."""
        journal, inside = self._private
        return path.startswith(journal) or f"{path}/".startswith(inside)

    def folder(self, name: str) -> Folder | None:
        """The folder of that name; None if this host has none."""
        return next((folder for folder in self.folders if folder.name == name), None)

    def tree(self, path: Path) -> tuple[Folder, str] | None:
        """As place, for the absolute path of a folder; with "" for one of the settings' own."""
        folder = next((each for each in self.folders if each.path == path), None)
        return (folder, "") if folder else self.place(path)

    def place(self, path: Path) -> tuple[Folder, str] | None:
        """The folder that an absolute path is in, and the rest of the path; None if it is in none of them.

        The path's own last part is not resolved: a symbolic link is not what it points to.
        """
        real = path.parent.resolve() / path.name
        for folder in self.folders:
            if real.is_relative_to(folder.path) and real != folder.path:
                return folder, os.fspath(real.relative_to(folder.path))
        return None


def default_file(environ: Mapping[str, str]) -> Path | None:
    """The settings' file: NEVE_EDGE_CONFIG, or /etc/neve/edge.toml if it is there."""
    named = environ.get("NEVE_EDGE_CONFIG")
    return Path(named) if named else SYSTEM_FILE if SYSTEM_FILE.exists() else None


def load(file: Path | None, folders: Sequence[Path] = (), *, given: Mapping[str, Any] | None = None) -> Settings:
    """The settings of `file`, without it the defaults; `given` (keys as in the file) goes before it.

    With `folders` only these are watched: those of the file by their path, others by the defaults. Raises
    SettingInvalid, which tells every problem at once, each with its key and remedy.
    """
    document: dict[str, Any] = {}
    if file is not None:
        try:
            document = tomllib.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            raise SettingInvalid(f"{file} is not there: write it (docs/offload.md), or name the right one") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingInvalid(f"{file} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingInvalid(f"{file} is not TOML: {error}") from error
    reader = _Reader()
    settings = _settings(reader, document | dict(given or {}), folders)
    if reader.problems:
        source = f"{file}: " if file is not None else ""
        raise SettingInvalid(source + "\n  ".join(["the edge agent's settings cannot be used:", *reader.problems]))
    return settings


def _settings(reader: _Reader, document: dict[str, Any], chosen: Sequence[Path]) -> Settings:
    top = reader.table("", document, {*_TOP, "folder"})
    state = SYSTEM_STATE if SYSTEM_STATE.exists() or os.geteuid() == 0 else _home_state()
    journal = top.path("journal", state / "edge.db")
    settings = Settings(
        stack=top.text("stack", os.environ.get("NEVE_STACK", "neve")),
        region=top.text("region", ""),
        host=top.text("host", socket.gethostname()),
        journal=journal,
        spool=top.path("spool", journal.parent / "spool"),
        queue=top.flag("queue", False),
        parallel=int(top.number("parallel", 8, 1, 256, whole=True)),
        bandwidth_mb_s=top.number("bandwidth_mb_s", 0, 0, 100_000),
        scan_every_s=top.number("scan_every_s", 300, 1, 86_400),
        folders=(),
        watched=(),
    )
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", settings.host):
        reader.problem("host", f"{settings.host!r} has to be 1 to 64 letters, digits, dots or dashes")
    kind = _kind_of(journal.parent)
    if kind:
        reader.problem(
            "journal", f"{journal} is on {kind}: SQLite's log needs a disk of this host's own, name a path there"
        )
    tables = document.get("folder", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        reader.problem("folder", "write each folder as a table of its own: [[folder]]")
        tables = []
    folders = [_folder(reader, f"folder[{number}].", each, top) for number, each in enumerate(tables, 1)]
    watched = _chosen(reader, folders, chosen, top) if chosen else folders
    folders += [folder for folder in watched if folder not in folders]
    _together(reader, folders)
    apart = {folder.path: _apart(folder, folders) for folder in folders}
    return replace(settings, folders=tuple(apart.values()), watched=tuple(apart[folder.path] for folder in watched))


def _apart(folder: Folder, folders: Sequence[Folder]) -> Folder:
    """With what tells its keys from those of the others: a file of one must never take the place of another's."""
    prefixes = {each.key_prefix for each in folders if each.key_prefix.startswith(folder.key_prefix)}
    return replace(folder, inner_prefixes=tuple(sorted(prefixes - {folder.key_prefix})))


def _home_state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "neve"


_FOLDER_DEFAULTS = ("ignore", "quiet_s", "keep_days")
_FOLDER = {*_FOLDER_DEFAULTS, "path", "name", "key_prefix", "attic", "host_url"}
_TOP = {
    *_FOLDER_DEFAULTS,
    *("stack", "region", "host", "journal", "spool", "queue", "parallel", "bandwidth_mb_s", "scan_every_s"),
}


def _folder(reader: _Reader, where: str, values: dict[str, Any], top: _Table) -> Folder:
    """One folder; what it does not say is as at the top of the file, or as by default."""
    inherited = {key: top.values[key] for key in _FOLDER_DEFAULTS if key in top.values}
    table = reader.table(where, values, _FOLDER, inherited)
    path = table.path("path", Path("/"))
    if "path" not in values:
        table.problem("path", 'name the folder: path = "/srv/www/uploads"')
    elif not path.is_dir():
        table.problem("path", f"{path} is not a folder here: make it, mount it, or correct the path")
    name = table.text("name", path.name or "root")
    prefix = table.text("key_prefix", "")
    if prefix.startswith("/"):
        table.problem("key_prefix", f"{prefix!r} begins with a slash, and keys do not: remove it")
    if prefix.startswith(RESERVED + "/"):
        table.problem("key_prefix", f"keys below {RESERVED}/ are neve's own: choose another")
    if prefix and not prefix.endswith("/"):
        table.problem("key_prefix", f"end it with a slash: {prefix}/")
    host_url = table.text("host_url", "")
    if host_url and not (urlsplit(host_url).scheme in ("http", "https") and urlsplit(host_url).netloc):
        table.problem("host_url", f"{host_url!r} is no http(s) URL, such as https://web1.example.com/uploads/")
    folder = Folder(
        name=name,
        path=path,
        key_prefix=prefix,
        ignore=table.texts("ignore", IGNORED),
        quiet_s=table.number("quiet_s", 10, 0, 86_400),
        attic=table.path("attic", path / f"{RESERVED}-attic"),
        keep_days=int(table.number("keep_days", 30, 0, 3650, whole=True)),
        host_url=host_url if not host_url or host_url.endswith("/") else host_url + "/",
    )
    _refuse_attic(table, folder)
    return folder


def _refuse_attic(table: _Table, folder: Folder) -> None:
    if folder.path.is_relative_to(folder.attic):
        table.problem("attic", f"{folder.attic} holds the folder itself: name one beside it or in it")
    elif folder.path.is_dir() and nearest(folder.attic).stat().st_dev != folder.path.stat().st_dev:
        table.problem(
            "attic",
            f"{folder.attic} is on another file system than {folder.path}: files are moved there "
            "by renaming them; name a path on the same one",
        )


def _chosen(reader: _Reader, folders: Iterable[Folder], chosen: Sequence[Path], top: _Table) -> list[Folder]:
    known = {folder.path: folder for folder in folders}
    picked: list[Folder] = []
    for path in dict.fromkeys(each.resolve() for each in chosen):
        outer = next((each for each in known if path.is_relative_to(each)), None)
        if path in known:
            picked.append(known[path])
        elif outer:
            reader.problem("folder", f"{path} is in the folder {outer}: name that one")
        else:
            picked.append(_folder(reader, f"{path}: ", {"path": os.fspath(path)}, top))
    return picked


def _together(reader: _Reader, folders: Sequence[Folder]) -> None:
    """What no two folders may share, since their files would take each other's place."""
    kinds: tuple[tuple[str, Callable[[Folder], object]], ...] = (
        ("name", lambda each: each.name),
        ("key_prefix", lambda each: each.key_prefix),
        ("attic", lambda each: each.attic),
    )
    for key, of in kinds:
        first: dict[object, Folder] = {}
        for folder in folders:
            other = first.setdefault(of(folder), folder)
            if other is not folder:
                reader.problem(
                    key,
                    f"{other.path} and {folder.path} have the same, {str(of(folder))!r}: "
                    f"give each [[folder]] in edge.toml its own {key}",
                )
    for folder in folders:
        for other in folders:
            if other is not folder and other.path.is_relative_to(folder.path):
                reader.problem("path", f"{other.path} is in {folder.path}: its files would go twice; name one of them")


def _kind_of(path: Path) -> str:
    try:
        return shared_kind(nearest(path).stat().st_dev)
    except OSError:
        return ""


@dataclass
class _Reader:
    """Reads tables, and collects all that is wrong with them."""

    problems: list[str] = field(default_factory=list)

    def problem(self, key: str, what: str) -> None:
        self.problems.append(f"{key}: {what}")

    def table(
        self, where: str, values: Mapping[str, Any], known: Iterable[str], inherited: Mapping[str, Any] | None = None
    ) -> _Table:
        for key in sorted(set(values) - set(known)):
            near = get_close_matches(key, known, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            self.problem(where + key, f"no such setting; {meant}")
        return _Table(self, where, {**(inherited or {}), **values})


@dataclass(frozen=True)
class _Table:
    reader: _Reader
    where: str
    values: Mapping[str, Any]

    def problem(self, key: str, what: str) -> None:
        self.reader.problem(self.where + key, what)

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        if isinstance(value, str):
            return value
        self.problem(key, f"is text: {key} = {str(value)!r}")
        return default

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.values.get(key, default)
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.problem(key, f'is a list of patterns: {key} = ["*.tmp"]')
        return default

    def path(self, key: str, default: Path) -> Path:
        """A path, absolute and without symbolic links."""
        value = self.values.get(key, os.fspath(default))
        if isinstance(value, str) and Path(value).expanduser().is_absolute():
            return Path(value).expanduser().resolve()
        self.problem(key, f"is an absolute path, not {value!r}")
        return default

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if isinstance(value, bool):
            return value
        self.problem(key, f"is true or false, not {value!r}")
        return default

    def number(self, key: str, default: float, least: float, most: float, *, whole: bool = False) -> float:
        value = self.values.get(key, default)
        kinds = int if whole else int | float
        if isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.problem(key, f"is a {'whole ' if whole else ''}number from {least:,} to {most:,}, not {value!r}")
        return default
