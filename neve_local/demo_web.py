"""The demo's web server: nginx where it is installed, else a stand-in that follows the same rule."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from neve.errors import NeveError
from neve_edge.webserver import webserver_config
from neve_edge.webserver.site import Site

PATHS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
STARTS_WITHIN_S = 20
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class WebServerFailed(NeveError):
    """The web server did not start; the message has its log."""


@dataclass(frozen=True, kw_only=True)
class WebServer:
    """A web server on 127.0.0.1. `url` is where the folder's files are, with a slash at its end."""

    name: str
    url: str

    def url_of(self, path: str) -> str:
        """The URL of the file at a relative path."""
        return self.url + quote(path)


@contextmanager
def serving(site: Site, folder: Path) -> Iterator[WebServer]:
    """A web server for `site`; its own files are in `folder`."""
    nginx = shutil.which("nginx", path=PATHS)
    with _nginx(nginx, site, folder) if nginx else _stand_in(site) as server:
        yield server


@contextmanager
def _nginx(program: str, site: Site, folder: Path) -> Iterator[WebServer]:
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    configuration, log = folder / "nginx.conf", folder / "nginx.log"
    temporary = "".join(f"{each}_temp_path {folder}/{each};\n" for each in TEMPORARY)
    configuration.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1;\n"
        f"pid {folder}/nginx.pid; error_log stderr;\nevents {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {temporary}server {{ listen 127.0.0.1:{port};\n"
        f"{webserver_config('nginx', site)}\n}} }}\n"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [program, "-e", "stderr", "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise WebServerFailed(f"nginx does not start: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.02)
        yield WebServer(name="nginx", url=f"http://127.0.0.1:{port}{site.url}")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _stand_in(site: Site) -> Iterator[WebServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Request", (_Request,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield WebServer(name="a stand-in for nginx", url=f"http://127.0.0.1:{server.server_address[1]}{site.url}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Request(BaseHTTPRequestHandler):
    """Sends the file if it can be opened, else redirects: one step, so that none can vanish between two."""

    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        name = unquote(self.path.partition("?")[0], errors="surrogateescape").removeprefix(self.site.url)
        try:
            body = Path(self.site.root, name).read_bytes()
        except OSError:
            self.send_response(302)
            self.send_header("Location", self.site.to + quote(name, errors="surrogateescape"))
            body = b""
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        """Say nothing."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
