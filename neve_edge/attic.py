"""The attic: where a host's files go once S3 has them for certain, and are kept for some days.

    <attic>/moving/<token>              a file whose move has been journaled, and is not ended
    <attic>/<date>/<path in the folder> one that was moved on that day (UTC), verified after the move

A file is renamed into `moving` first and hashed there, where no application looks for it: what is verified is what was
moved, whoever wrote to it in between. If it is not what was uploaded, it goes back by link(), which replaces nothing.
A move is journaled before it is made, so that whoever comes after a death finds the file and ends the move: see
`end`, which starts at whatever it finds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import signal
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from neve.errors import NeveError
from neve_edge.announcement import seen
from neve_edge.journal import Move, Remains, Upload
from neve_edge.opening import NotRegular, open_file, open_folder, open_inner
from neve_edge.reading import sha256_of
from neve_edge.ready import Writer, writer
from neve_edge.settings import Folder

MOVING = "moving"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_FOLDERS_A_DAY = 100
"""More versions of one file a day have folders of their own."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class AtticUnfit(NeveError):
    """Files cannot be moved into this attic; the message says why, and what to do."""


class Fate(Enum):
    """What became of a file that was to be let go."""

    ATTIC = "it is in the attic"
    DELETED = "it is deleted"
    CHANGED = "it is not the one that was uploaded, and is where it was"
    GONE = "it was not there any more"
    BUSY = "somebody has it open for writing"
    STRAYED = "it is not the one that was uploaded, and cannot go back: it stays in the attic"
    FAILED = "the file system refused"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the move of a file ended. `remains` is what lies in the attic because of it; `why` is for people.

    An `unended` one was made, and has to be ended again.
    """

    move: Move
    fate: Fate
    remains: Remains | None = None
    why: str = ""
    unended: bool = False


def token() -> str:
    """A name for a move that no other has."""
    return secrets.token_hex(16)


def unchanged(folder: Folder, upload: Upload) -> Fate | None:
    """Why a file cannot be let go as it stands; None if nothing speaks against it.

    A file whose inode changed and whose times did not (a link was made, its owner or mode changed) is hashed again.
    """
    try:
        descriptor = open_file(folder.path, upload.path)
    except OSError as error:
        if error.errno in _GONE:
            return Fate.GONE
        if isinstance(error, NotRegular | IsADirectoryError) or error.errno in (errno.ELOOP, errno.ENXIO):
            return Fate.CHANGED
        raise
    try:
        now = os.fstat(descriptor)
        same = seen(now).same_bytes_as(upload.seen)
        if same and now.st_ctime_ns != upload.ctime_ns:
            same = sha256_of(descriptor)[1] == upload.sha256
        if same and writer(descriptor) is Writer.SOME:
            return Fate.BUSY
    finally:
        os.close(descriptor)
    return None if same else Fate.CHANGED


@dataclass
class Attic:
    """The attic of one folder. Raises OSError from whatever the file system refuses; nothing is lost by that."""

    folder: Folder
    _reserved: set[str] = field(default_factory=set)

    @property
    def is_there(self) -> bool:
        """Whether files can be moved into it, for all that is seen at a glance."""
        return (self.folder.attic / MOVING).is_dir()

    def prepare(self, *, moving_files: int) -> None:
        """Make the attic. Raises AtticUnfit if no file can be moved into it.

        While moves have not been ended, of `moving_files`, none is made: those files lie in the one that there was, on
        a file system that may not be mounted now, and a new one would seem to say that they are nowhere.
        """
        moving = self.folder.attic / MOVING
        if moving_files and not self.is_there:
            raise AtticUnfit(
                f"{moving} is not there, and {moving_files} files were being moved into it: mount its file system. If "
                "somebody has removed it, make it (`mkdir -p`)."
            )
        moving.mkdir(parents=True, exist_ok=True, mode=0o700)
        here, there = self.folder.path.stat().st_dev, moving.stat().st_dev
        if here != there:
            raise AtticUnfit(
                f"{self.folder.attic} is on another file system than {self.folder.path}: files are moved there by "
                "renaming them. Name an attic on the same one in edge.toml."
            )

    def move(self, move: Move) -> Fate | None:
        """Rename a file to its token; None if that was done."""
        with _parent(self.folder, move.path) as (parent, name):
            if parent < 0:
                return Fate.GONE
            with self._opened(MOVING) as moving:
                try:
                    if not _may_link(name, parent):
                        raise PermissionError(errno.EPERM, "run the agent as the file's owner", move.path)
                    os.rename(name, move.token, src_dir_fd=parent, dst_dir_fd=moving)
                except OSError as error:
                    if error.errno in _GONE:
                        return Fate.GONE
                    raise
        return None

    def end(self, move: Move) -> Outcome:
        """End a move, however far it came: the file goes to its place in the attic, or back to where it was.

        GONE if it was never made, or was ended and only its record is missing. Raises OSError, and then the file is
        where it was, or can be ended later.
        """
        with self._opened(MOVING) as moving:
            try:
                descriptor = os.open(move.token, _FILE, dir_fd=moving)
            except OSError as error:
                if error.errno in _GONE:
                    return self._ended_before(move)
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket took its place at the last moment
                    return self._back(move, moving)
                raise
            try:
                if not _is_sound(descriptor, move):
                    return self._back(move, moving)
                if self.folder.keep_days == 0:
                    os.unlink(move.token, dir_fd=moving)
                    return Outcome(move=move, fate=Fate.DELETED)
                try:
                    remains = self._placed(move, moving)
                except OSError:
                    self._back(move, moving)
                    raise
                return Outcome(move=move, fate=Fate.ATTIC, remains=remains)
            finally:
                os.close(descriptor)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Have the disk keep what was renamed, before it is noted as done."""
        touched = {self.folder.attic / MOVING} if outcomes else set()
        for outcome in outcomes:
            touched.add((self.folder.path / outcome.move.path).parent)
            if outcome.remains:
                touched.add((self.folder.attic / outcome.remains.place).parent)
        for path in touched:
            with suppress(FileNotFoundError, NotADirectoryError):
                _sync(path)

    def purge(self, remains: Remains) -> bool:
        """Delete a file of the attic if it has the bytes that were uploaded, or is not there any more; if so, True."""
        above, _, name = remains.place.rpartition("/")
        try:
            parent = open_folder(self.folder.attic, above)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise
        try:
            descriptor = os.open(name, _FILE, dir_fd=parent)
            try:
                if sha256_of(descriptor) != (remains.size_bytes, remains.sha256):
                    return False
                os.unlink(name, dir_fd=parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno == errno.ELOOP:
                return False
            raise
        finally:
            os.close(parent)
        return True

    def clear(self, remains: Iterable[Remains]) -> None:
        """Remove the folders of purged files that are empty now."""
        folders = {self.folder.attic / parent for each in remains for parent in Path(each.place).parents}
        for path in sorted(folders - {self.folder.attic}, reverse=True):  # inner ones first
            with suppress(OSError):
                path.rmdir()

    def _back(self, move: Move, moving: int) -> Outcome:
        """Give a file its name again, unless another has it by now: then it stays in the attic."""
        with _parent(self.folder, move.path) as (parent, name):
            reason = "its folder has gone"
            if parent >= 0:
                try:
                    _give_back(move.token, moving, name, parent)
                except FileExistsError:
                    reason = "another file has its name by now"
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    reason = f"link: {error.strerror}"
                else:
                    os.fsync(parent)
                    return Outcome(move=move, fate=Fate.CHANGED)
        why = f"not what was uploaded, and {reason}"
        return Outcome(move=move, fate=Fate.STRAYED, remains=self._placed(move, moving, why=why), why=why)

    def _placed(self, move: Move, moving: int, *, why: str = "") -> Remains:
        """Give a moved file its place. What would replace another of the day goes to a second folder of the day, ..."""
        for place in _places(move):
            above, _, name = place.rpartition("/")
            try:
                with self._made(above) as parent:
                    _give(move.token, moving, name, parent)
            except (FileExistsError, NotADirectoryError):
                continue
            return self._remains(move, place, why)
        raise FileExistsError(errno.EEXIST, "no place in the attic", move.path)

    def _ended_before(self, move: Move) -> Outcome:
        """Of a file that is not under its token: whether it was given its place before the process died."""
        for place in _places(move):
            try:
                descriptor = open_file(self.folder.attic, place)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                continue
            try:
                if sha256_of(descriptor) == (move.size_bytes, move.sha256):
                    return Outcome(move=move, fate=Fate.ATTIC, remains=self._remains(move, place))
            finally:
                os.close(descriptor)
        return Outcome(move=move, fate=Fate.GONE)

    def _remains(self, move: Move, place: str, why: str = "") -> Remains:
        return Remains(
            folder=self.folder.name, place=place, path=move.path, key=move.key, size_bytes=move.size_bytes,
            sha256=move.sha256, version_id=move.version_id, moved_at=move.since, why=why,
        )  # fmt: skip

    def reserve(self, move: Move) -> None:
        """Make the folders that a move needs, before it is made: if the disk is full, the file stays where it is."""
        if self.folder.keep_days:
            above = next(_places(move)).rpartition("/")[0]
            if above not in self._reserved:
                with suppress(NotADirectoryError), self._made(above):
                    pass
                self._reserved = {above}

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        descriptor = open_folder(self.folder.attic, path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _made(self, path: str) -> Iterator[int]:
        """A descriptor of a folder in the attic, made if need be."""
        descriptor = open_folder(self.folder.attic)
        try:
            for part in path.split("/"):
                try:
                    inner = open_inner(part, descriptor)
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        os.mkdir(part, mode=0o700, dir_fd=descriptor)
                    os.fsync(descriptor)
                    inner = open_inner(part, descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _places(move: Move) -> Iterator[str]:
    """Where in the attic a file may go, in the order in which it is tried."""
    day = f"{move.since:%Y-%m-%d}"
    yield f"{day}/{move.path}"
    for number in range(2, _FOLDERS_A_DAY + 1):
        yield f"{day}.~{number}~/{move.path}"
    yield f"{day}.~{move.token}~/{move.path}"


@contextmanager
def _parent(folder: Folder, path: str) -> Iterator[tuple[int, str]]:
    """(a descriptor of the folder that a file is in, the file's name); -1 if that folder has gone."""
    above, _, name = path.rpartition("/")
    try:
        descriptor = open_folder(folder.path, above)
    except OSError as error:
        if error.errno not in (*_GONE, errno.ELOOP):
            raise
        yield -1, name
        return
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


def _is_sound(descriptor: int, move: Move) -> bool:
    """Whether a moved file is what was uploaded. A lease, where there is one, tells of who opened it for writing since.

    Source: fcntl(2), "Leases": while a read lease is held, who opens the file for writing waits for its end.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or writer(descriptor) is Writer.SOME:
        return False
    leased = False
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # see neve_edge.ready.writer
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        leased = True
    sound = sha256_of(descriptor) == (move.size_bytes, move.sha256)
    return sound and not (leased and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK)


def _give(token: str, moving: int, name: str, parent: int) -> None:
    """Rename without replacing. Raises FileExistsError. Repeated after a death it ends what was begun."""
    try:
        os.link(token, name, src_dir_fd=moving, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        if not _same(token, moving, name, parent):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here. Only agents write to an attic, and two that move files of one name in this very moment
        # would have to meet: then one of two verified, uploaded files goes before its time.
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "it is there", name) from None
        os.rename(token, name, src_dir_fd=moving, dst_dir_fd=parent)
        return
    os.unlink(token, dir_fd=moving)


def _give_back(token: str, moving: int, name: str, parent: int) -> None:
    """Rename without replacing what an application may have put there. Raises FileExistsError, OSError."""
    if stat.S_ISDIR(os.stat(token, dir_fd=moving, follow_symlinks=False).st_mode):
        os.rename(token, name, src_dir_fd=moving, dst_dir_fd=parent)  # replaces an empty folder at most
        return
    try:
        os.link(token, name, src_dir_fd=moving, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        if not _same(token, moving, name, parent):  # else it was given back, and then the process died
            raise
    os.unlink(token, dir_fd=moving)


def _same(one: str, one_parent: int, other: str, other_parent: int) -> bool:
    try:
        first = os.stat(one, dir_fd=one_parent, follow_symlinks=False)
        second = os.stat(other, dir_fd=other_parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _may_link(name: str, parent: int) -> bool:
    """Whether this user may give a file another name, which bringing it back would take.

    Source: proc_sys_fs(5), protected_hardlinks: its owner may, root, and who may read and write it.
    """
    owner = os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid
    return os.geteuid() in (0, owner) or os.access(name, os.R_OK | os.W_OK, dir_fd=parent, effective_ids=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
