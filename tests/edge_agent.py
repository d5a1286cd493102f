"""A host of the site: a folder that real web servers serve, the edge agent as a process, and a visitor of its URLs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote


class _AsAsked(urllib.request.HTTPRedirectHandler):
    """Follows a redirect with the same method, as browsers do; urllib would follow HEAD with GET."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        following = super().redirect_request(req, *args)
        if following is not None:
            following.method = req.get_method()
        return following


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AsAsked)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a visitor got. `redirected` says that it was not the web server itself that sent the bytes."""

    name: str
    server: str
    status: int
    redirected: bool
    right: bool
    at: float

    @property
    def well(self) -> bool:
        return self.status == 200 and self.right


def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, str]:
    """Status, body, and the URL in the end, redirects followed."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(url, headers=fields, method=method)
    try:
        with _OPENER.open(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.url
    except HTTPError as error:
        with error:
            return error.code, error.read(), error.url


@dataclass
class Visitor:
    """Fetches the URLs of `bodies` from each of `servers`, round after round, and checks every byte.

    `bodies` may grow meanwhile.
    """

    servers: Mapping[str, str]
    bodies: dict[str, bytes]
    fetched: list[Fetched] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def visiting(self) -> Iterator[Visitor]:
        """Fetch in one thread for each server until the end of the context."""
        threads = [threading.Thread(target=self._visit, args=each) for each in self.servers.items()]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _visit(self, server: str, base: str) -> None:
        while not self._over.wait(0.01):
            for name, body in list(self.bodies.items()):
                try:
                    status, got, url = fetch(base + quote(name))
                except OSError as error:  # no answer is the worst of all
                    status, got, url = 0, repr(error).encode(), base
                self.fetched.append(
                    Fetched(
                        name=name,
                        server=server,
                        status=status,
                        redirected=not url.startswith(base),
                        right=got == body,
                        at=time.monotonic(),
                    )
                )
                time.sleep(0.004)  # the rest of the machine has something to do as well
            self.rounds[server] = self.rounds.get(server, 0) + 1

    def go_round(self) -> None:
        """Wait until every URL has been fetched once more from each server."""
        wanted = {server: self.rounds.get(server, 0) + 2 for server in self.servers}
        deadline = time.monotonic() + 60
        while any(self.rounds.get(server, 0) < rounds for server, rounds in wanted.items()):
            assert time.monotonic() < deadline, "the visitors are stuck"
            time.sleep(0.02)

    def seen(self, name: str, server: str) -> list[Fetched]:
        """What came of one URL, in order."""
        return [each for each in self.fetched if (each.name, each.server) == (name, server)]


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host with the folder `files`, whose keys begin with `key_prefix`, and what its agent needs."""

    files: Path
    state: Path
    environment: Mapping[str, str]
    key_prefix: str

    @classmethod
    def make(
        cls, files: Path, state: Path, *, environment: Mapping[str, str], key_prefix: str, queue: bool = False
    ) -> Host:
        """A host that finds files quickly; with `queue` it shares them with others."""
        state.mkdir()
        host = cls(files=files, state=state, environment=environment, key_prefix=key_prefix)
        host.settings.write_text(
            f'journal = "{host.journal}"\nqueue = {str(queue).lower()}\nscan_every_s = 2\nquiet_s = 1\n'
            f'[[folder]]\npath = "{files}"\nkey_prefix = "{key_prefix}"\n'
        )
        return host

    @property
    def settings(self) -> Path:
        return self.state / "edge.toml"

    @property
    def journal(self) -> Path:
        return self.state / "edge.db"

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """`neve edge ...` as a process."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-c", "from neve_cli.main import main; main()", "edge", *words],
                env={"PATH": os.environ["PATH"], "HOME": str(self.state), "NEVE_EDGE_CONFIG": str(self.settings)}
                | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @contextlib.contextmanager
    def agent(self, *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The agent until the end of the context, then stopped as systemd would stop it. It must end well."""
        process = self.start(*words, log=log)
        try:
            yield process
            assert process.poll() is None, log.read_text()[-3000:]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()[-3000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def move_in(self, name: str, body: bytes) -> None:
        """Put a finished file into the folder at once, as rsync and most programs do that replace files."""
        file = self.files / name
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.parent / f".{file.name[:60]}.a1b2C3"
        written.write_bytes(body)
        written.rename(file)

    def left(self, names: Sequence[str]) -> list[str]:
        """Which of these are in the folder still."""
        return [name for name in names if (self.files / name).exists()]


@contextlib.contextmanager
def watch_departures(host: Host, names: Iterable[str], gone: Callable[[str], None]) -> Iterator[None]:
    """Call `gone` with the name of each file as soon as it has left the folder; what it raises is raised at the end."""
    over, failed = threading.Event(), list[BaseException]()

    def look() -> None:
        known = set[str]()
        while not over.is_set():
            there = {name for name in names if (host.files / name).exists()}
            for name in known - there:
                try:
                    gone(name)
                except BaseException as error:  # noqa: BLE001  # it is raised in the test's own thread
                    failed.append(error)
            known = there
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]
