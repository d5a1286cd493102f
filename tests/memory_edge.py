"""The uploads bucket in memory, and a host with a folder, a journal and a worker over it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from neve.domain.pointer import InContent, covers
from neve.domain.version import padded_sequencer
from neve_edge import work
from neve_edge.announcement import Found, seen
from neve_edge.announcements import Announcements
from neve_edge.journal import Journal, Upload
from neve_edge.reading import Reading
from neve_edge.settings import Folder
from neve_edge.uploading import Proof, Stored
from tests.memory_offload import MemoryPointers

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Killed(BaseException):
    """The process dies here; no handler of errors sees it."""


@dataclass
class MemoryUploads:
    """Versions in a list, the newest last. `before_put` is called with each key before its version is there."""

    versions: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(key, version id, bytes)"""
    before_put: Callable[[str], None] = lambda _: None
    damaged: set[str] = field(default_factory=set)

    def put(self, key: str, reading: Reading) -> Stored:
        body = reading.body
        if body is None:
            body = os.pread(reading.descriptor, reading.size_bytes + 1, 0)
        self.before_put(key)
        version_id = f"v{len(self.versions) + 1:04d}"
        self.versions.append((key, version_id, body))
        return Stored(version_id=version_id, etag=hashlib.md5(body).hexdigest())

    def proofs(self, uploads: Sequence[Upload]) -> Sequence[Proof]:
        return [self._proof(each) for each in uploads]

    def order(self, key: str) -> Sequence[str]:
        return [version_id for at, version_id, _ in reversed(self.versions) if at == key]

    def give_up(self) -> None:
        pass

    def bodies(self, key: str) -> list[bytes]:
        """What was uploaded under a key, the newest last."""
        return [body for at, _, body in self.versions if at == key]

    def _proof(self, upload: Upload) -> Proof:
        for _, version_id, body in self.versions:
            if version_id == upload.version_id:
                same = hashlib.sha256(body).hexdigest() == upload.sha256 and version_id not in self.damaged
                return Proof.INTACT if same else Proof.DIFFERENT
        return Proof.MISSING


class AtOnce(Executor):
    """Runs what it is given before it returns, so that a test knows the order of things."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # as a pool does
            future.set_exception(error)
        return future


@dataclass
class Host:
    """A host that works on one folder. Its clocks go on when a test says so, and with each step of `drain`."""

    root: Path
    name: str = "web1"
    keep_days: int = 30
    host_url: str = ""
    site: Path | None = None
    """The folder, if hosts share it."""
    uploads: Any = field(default_factory=MemoryUploads)
    pointers: Any = field(default_factory=MemoryPointers)
    announcements: Announcements | None = None
    now: datetime = NOW
    monotonic: float = 1000.0
    watch: Callable[[Any], Any] = lambda port: port

    def __post_init__(self) -> None:
        self.site = self.site or self.root / "site"
        self.site.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def folder(self) -> Folder:
        assert self.site
        return Folder(
            name="site",
            path=self.site,
            key_prefix="",
            ignore=(),
            quiet_s=10,
            attic=self.site / ".neve-attic",
            keep_days=self.keep_days,
            host_url=self.host_url,
        )

    def start(self) -> None:
        """A new process: all it knows is in the journal."""
        self.journal = Journal(self.root / f"{self.name}.db", host=self.name, clock=lambda: self.now)
        watched = self.watch(self.journal)
        self.worker = work.Worker(
            work.Ports(
                announcements=self.announcements or watched,
                journal=watched,
                uploads=self.watch(self.uploads),
                pointers=self.pointers and self.watch(self.pointers),
                clock=lambda: self.now,
                monotonic=lambda: self.monotonic,
                chance=lambda: 0.5,
            ),
            [self.folder],
            parallel=1,
        )
        self.worker.close()
        self.worker._senders = self.worker._movers = AtOnce()  # type: ignore[assignment]
        self.worker.prepare()

    def die(self) -> None:
        """kill -9: nothing is put in order; the kernel takes the lock, SQLite the open transaction."""
        self.journal._database.close()
        if self.journal._held >= 0:
            os.close(self.journal._held)
            self.journal._held = -1

    def write(self, path: str, body: bytes) -> Path:
        """A finished file, as an application writes it: whole, under its name."""
        assert self.site
        place = self.site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.tmp")
        beside.write_bytes(body)
        beside.replace(place)
        return place

    def found(self, path: str, *, keep: bool = False) -> Found:
        assert self.site
        return Found(folder="site", path=path, key=path, seen=seen((self.site / path).stat()), keep=keep)

    def announce(self, path: str, *, keep: bool = False) -> int:
        return (self.announcements or self.journal).put([self.found(path, keep=keep)])

    def copy_uploads(self) -> None:
        """What CopyUpload does with all that was uploaded so far."""
        for number, (key, version_id, body) in enumerate(self.uploads.versions, 1):
            to = InContent(
                key=key,
                content_key=key,
                content_version=f"c-{version_id}",
                upload_version=version_id,
                sequencer=padded_sequencer(f"{number:X}"),
                size_bytes=len(body),
                etag=hashlib.md5(body).hexdigest(),
                since=self.now,
            )
            standing = self.pointers.get(key)
            if not covers(standing, upload_version=version_id, sequencer=to.sequencer):
                self.pointers.move(standing, to)

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def step(self) -> None:
        self.worker.step()
        self.pass_s(1)

    def drain(self, *, steps: int = 200, copy: bool = True) -> None:
        """Work until nothing is in hand or waits, with CopyUpload at work beside it."""
        for _ in range(steps):
            self.step()
            if copy:
                self.copy_uploads()
            if not self.worker.in_hand and not self.journal.unfinished("site"):
                return
            if not self.worker.in_hand:
                self.pass_s(30)
        raise AssertionError(f"not done after {steps} steps: {self.journal.troubles(3)}")

    def attic(self) -> dict[str, bytes]:
        """What lies in the attic, by its place."""
        attic = self.folder.attic
        return {str(path.relative_to(attic)): path.read_bytes() for path in sorted(attic.rglob("*")) if path.is_file()}

    def everywhere(self, path: str) -> set[bytes]:
        """All bytes of a file that this host still has, wherever they lie."""
        bodies = set(self.attic().values())
        with suppress(FileNotFoundError, IsADirectoryError):
            assert self.site
            bodies.add((self.site / path).read_bytes())
        return bodies
