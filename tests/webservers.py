"""Real web servers on loopback, with configurations as `neve edge webserver` prints them."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neve_edge.webserver import lighttpd, webserver_config
from neve_edge.webserver.site import Site

PROGRAMS = {"nginx": "nginx", "lighttpd": "lighttpd", "apache": "apache2", "caddy": "caddy"}
DENIED = "/files/denied/"
"""Where the server's own configuration lets nobody in."""
MAGNET = "mod_magnet.so"
_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
_MODULES = {
    "lighttpd": ("/usr/lib/lighttpd", "/usr/lib64/lighttpd"),
    "apache": ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"),
}


def missing(server: str) -> str:
    """Why `server` cannot be started here; "" if it can."""
    if shutil.which(PROGRAMS[server], path=_SBIN) is None:
        return f"{PROGRAMS[server]} is not installed (on Debian: apt-get install {PROGRAMS[server]})"
    if server == "lighttpd" and not any(Path(folder, MAGNET).exists() for folder in _MODULES[server]):
        return "lighttpd has no mod_magnet (on Debian: apt-get install lighttpd-modules-lua)"
    return ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def location(self) -> str:
        return str(self.headers["Location"])


@dataclass(frozen=True, kw_only=True)
class WebServer:
    """A running web server. What is in `pages` it serves at /."""

    name: str
    port: int
    pages: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request, its path as it is, a redirect not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            body = b"" if method in ("POST", "PUT") else None
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=answer.headers, body=answer.read())


@contextlib.contextmanager
def running(server: str, folder: Path, sites: Sequence[Site]) -> Iterator[WebServer]:
    """`server` with these sites. Its own files are in `folder`; /plain.txt has nothing to do with them."""
    (folder / "pages").mkdir(parents=True)
    (folder / "pages/plain.txt").write_text("plain")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file, words = _CONFIGURE[server](folder, port, sites), _COMMANDS[server]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [shutil.which(PROGRAMS[server], path=_SBIN) or "", *words, str(file)],
            cwd=folder,
            env={"PATH": _SBIN, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process, port, folder / "log")
            yield WebServer(name=server, port=port, pages=folder / "pages")
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise AssertionError(f"{process.args!r} does not listen on {port}:\n{log.read_text(errors='replace')[-2000:]}")


def _nginx(folder: Path, port: int, sites: Sequence[Site]) -> Path:
    file = folder / "nginx.conf"
    temporary = "".join(
        f"{each}_temp_path {folder}/{each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1;\n"
        f"pid {folder}/pid; error_log stderr;\nevents {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {temporary}server {{ listen 127.0.0.1:{port}; root {folder}/pages;\n"
        f"location ^~ {DENIED} {{ deny all; alias /; }}\n"
        f"{''.join(webserver_config('nginx', site) for site in sites)}\n}} }}\n"
    )
    return file


def _lighttpd(folder: Path, port: int, sites: Sequence[Site]) -> Path:
    file = folder / "lighttpd.conf"
    parts = []
    for site in sites:
        script = folder / f"{site.name}.lua"
        script.write_text(lighttpd.script(site))
        parts.append(lighttpd.configuration(site, str(script)))
    file.write_text(
        'server.modules = ("mod_access", "mod_alias", "mod_magnet", "mod_indexfile", "mod_staticfile")\n'
        f'server.document-root = "{folder}/pages"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
        f'server.errorlog = "{folder}/error.log"\nmimetype.assign = ( "" => "application/octet-stream" )\n'
        f'{"".join(parts)}$HTTP["url"] =~ "{DENIED}" {{ url.access-deny = ( "" ) }}\n'
    )
    return file


def _apache(folder: Path, port: int, sites: Sequence[Site]) -> Path:
    modules = next(path for path in map(Path, _MODULES["apache"]) if path.is_dir())
    loaded = "".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "alias", "dir", "mime", "rewrite", "headers")
    )
    file = folder / "apache.conf"
    file.write_text(
        f"ServerRoot {folder}\nListen 127.0.0.1:{port}\nServerName localhost\nPidFile {folder}/pid\n"
        f"DefaultRuntimeDir {folder}\nErrorLog {folder}/error.log\n{loaded}TypesConfig /etc/mime.types\n"
        "<IfModule unixd_module>\nUser www-data\nGroup www-data\n</IfModule>\n"
        f"<Directory />\nRequire all denied\n</Directory>\nDocumentRoot {folder}/pages\n"
        f"<Directory {folder}/pages>\nRequire all granted\n</Directory>\n"
        f"{''.join(webserver_config('apache', site) for site in sites)}"
        f"<Location {DENIED}>\nRequire all denied\n</Location>\n"
    )
    return file


def _caddy(folder: Path, port: int, sites: Sequence[Site]) -> Path:
    file = folder / "Caddyfile"
    file.write_text(
        f"{{\nadmin off\nauto_https off\nstorage file_system {folder}\n}}\nhttp://127.0.0.1:{port} {{\n"
        f"bind 127.0.0.1\nhandle {DENIED}* {{\nrespond 403\n}}\n"
        f"{''.join(webserver_config('caddy', site) for site in sites)}\n"
        f"handle {{\nroot * {folder}/pages\nfile_server\n}}\n}}\n"
    )
    return file


_CONFIGURE = {"nginx": _nginx, "lighttpd": _lighttpd, "apache": _apache, "caddy": _caddy}
_COMMANDS = {
    "nginx": ("-p", ".", "-c"),
    "lighttpd": ("-D", "-f"),
    "apache": ("-X", "-f"),
    "caddy": ("run", "--adapter", "caddyfile", "--config"),
}
