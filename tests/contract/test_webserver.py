"""Each web server with the configuration that neve prints for it: what is there is served, what has moved redirected.

Real programs, about two seconds each. One that is not installed is skipped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from neve_edge.webserver import SERVERS
from neve_edge.webserver.site import HERE, site
from tests.webservers import DENIED, WebServer, missing, running

TO, PREFIX = "http://files.example:8443/at", "the site's/ü %/"
NAMES = (
    "plain.jpg",
    "with space.jpg",
    "a+b ++.jpg",
    "100%.jpg",
    "%41%2e%2e%2fx.jpg",
    "what?.jpg",
    "a?b=c&d=e;f.jpg",
    "#1.jpg",
    "Übergröße é 雪.jpg",
    "quote'\"back\\slash.jpg",
    "$uri %{reqenv:PATH} {http.request.uri} ${neve_escape:x}.jpg",
    "<script>|^`[]~!*(),=@:.jpg",
    ".hidden",
    "...dots",
    "deep/er/and deeper/x.jpg",
    "-" * 200,
)
LINE_END = "line\nend\r\nSet-Cookie: x=y.jpg"
QUERY = "v=1&w=a%20b+c%2F"


@dataclass(frozen=True, kw_only=True)
class Host:
    """A web server, the folder that it serves at /files/, and the one that it serves at /my.pages/ with index files."""

    server: WebServer
    files: Path
    pages: Path

    def put(self, name: str, body: bytes) -> Path:
        file = self.files / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return file


@pytest.fixture(scope="module", params=SERVERS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Each of the web servers that is installed."""
    if why := missing(request.param):
        pytest.skip(why)
    # Not in pytest's folder, which is for its user alone: Apache does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="neve-web-"))
    try:
        folder.chmod(0o755)
        files, pages = folder / "the files", folder / "pages of mine"
        for each in (files, pages):
            each.mkdir()
        sites = (
            site(root=str(files), url="/files/", to=TO, key_prefix=PREFIX),
            site(root=str(pages), url="/my.pages", to=TO, index="index.html"),
        )
        with running(request.param, folder / "server", sites) as server:
            yield Host(server=server, files=files, pages=pages)
    finally:
        shutil.rmtree(folder)


def key_of(location: str) -> str:
    """The key that a redirect names, read as S3 reads it."""
    assert location.isascii()
    assert location.startswith(f"{TO}/")
    assert "+" not in urlsplit(location).path  # S3 would read it as a space
    return unquote(urlsplit(location).path.removeprefix("/at/"), errors="strict")


def test_a_file_is_served_while_it_is_there_and_redirected_by_its_key_once_it_has_moved(host: Host) -> None:
    # lighttpd refuses line ends in names, whatever it is told to do with them.
    for name in (*NAMES, *(() if host.server.name == "lighttpd" else (LINE_END,))):
        body = os.urandom(3000)
        file, path = host.put(name, body), "/files/" + quote(name)
        there = host.server.ask(f"{path}?{QUERY}")
        assert (there.status, there.body) == (200, body), name
        file.unlink()
        for method in ("GET", "HEAD"):
            gone = host.server.ask(f"{path}?{QUERY}", method)
            assert (gone.status, key_of(gone.location)) == (302, PREFIX + name), name
            assert urlsplit(gone.location).query == QUERY
            assert gone.headers["Cache-Control"] == "no-store"
            assert gone.headers["Set-Cookie"] is None
        plain = host.server.ask(path)
        assert (key_of(plain.location), "?" in plain.location) == (PREFIX + name, False)


def test_a_plus_in_a_url_is_a_plus(host: Host) -> None:
    host.put("1+1.txt", b"2")
    assert host.server.ask("/files/1+1.txt").body == b"2"
    assert key_of(host.server.ask("/files/2+2+2.txt").location) == PREFIX + "2+2+2.txt"


def test_a_file_that_moves_away_and_back_is_served_or_redirected_at_every_moment(host: Host) -> None:
    body = os.urandom(100_000)
    file = host.put("moving.bin", body)
    elsewhere, over = file.with_name(".moved"), threading.Event()

    def move() -> None:
        while not over.is_set():
            file.rename(elsewhere)
            time.sleep(0.0003)
            elsewhere.rename(file)
            time.sleep(0.0003)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        answers = [host.server.ask("/files/moving.bin") for _ in range(400)]
    finally:
        over.set()
        mover.join()
    assert {answer.status for answer in answers} == {200, 302}
    assert all(answer.body == body for answer in answers if answer.status == 200)
    assert {answer.location for answer in answers if answer.status == 302} == {f"{TO}/{quote(PREFIX)}moving.bin"}


def test_a_file_that_has_just_come_is_served_at_once_also_in_the_place_of_another(host: Host) -> None:
    assert host.server.ask("/files/new.txt").status == 302
    host.put("new.txt", b"first")
    assert host.server.ask("/files/new.txt").body == b"first"
    host.put(".new", b"another, longer").rename(host.files / "new.txt")
    if host.server.name != "lighttpd":  # which remembers a file for a second, as its configuration says
        assert host.server.ask("/files/new.txt").body == b"another, longer"


def test_only_get_and_head_are_redirected(host: Host) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = host.server.ask("/files/not here.txt".replace(" ", "%20"), method)
        assert answer.headers["Location"] is None, method
        assert answer.status != 302


def test_ranges_and_conditions_are_answered_for_what_is_there(host: Host) -> None:
    host.put("range.txt", b"0123456789")
    part = host.server.ask("/files/range.txt", Range="bytes=2-4")
    assert (part.status, part.body) == (206, b"234")
    whole = host.server.ask("/files/range.txt", "HEAD")
    assert (whole.status, whole.headers["Content-Length"], whole.body) == (200, "10", b"")
    same = host.server.ask("/files/range.txt", If_None_Match=whole.headers["ETag"])
    assert (same.status, same.body) == (304, b"")
    moved = host.server.ask("/files/gone.txt", Range="bytes=2-4", If_None_Match=whole.headers["ETag"])
    assert moved.status == 302


def test_who_was_sent_here_by_the_resolver_is_not_sent_back(host: Host) -> None:
    host.put("only-here.txt", b"x")
    assert host.server.ask(f"/files/only-here.txt?{HERE}").body == b"x"
    answer = host.server.ask(f"/files/gone-since.txt?{HERE}")
    assert (answer.status, answer.headers["Location"]) == (404, None)


def test_nothing_outside_the_folder_is_served_or_named(host: Host) -> None:
    secret = host.files.parent / "secret.txt"
    secret.write_text("for nobody")
    host.put("sub/x", b"x")
    (host.files / "link").symlink_to(secret)
    (host.files / "linked").symlink_to(host.files.parent)
    for path in (
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "sub/../../secret.txt",
        "sub/%2e%2e/%2e%2e/secret.txt",
        "sub/.%2e/.%2e/secret.txt",
        "..%5csecret.txt",
        "%00/../../secret.txt",
        "/../secret.txt",
        *(() if host.server.name == "caddy" else ("link", "linked/secret.txt")),  # it follows links, and says so
    ):
        answer = host.server.ask(f"/files/{path}")
        assert b"for nobody" not in answer.body, path
        if answer.status == 302:
            assert key_of(answer.location).startswith(PREFIX), path
            assert not {".", ".."} & set(key_of(answer.location).split("/")), path
    assert key_of(host.server.ask("/files/sub/../gone.txt").location) == PREFIX + "gone.txt"


def test_what_is_neves_own_is_neither_served_nor_redirected(host: Host) -> None:
    host.put(".neve-attic/2026/x", b"attic")
    host.put("sub/.neve-attic/x", b"attic")
    for path in (".neve-attic/2026/x", "sub/.neve-attic/x", "%2eneve-attic/2026/x", ".neve-attic/", ".neve/gone"):
        answer = host.server.ask(f"/files/{path}")
        assert (answer.status in (403, 404), answer.headers["Location"]) == (True, None), path
        assert b"attic" not in answer.body.replace(path.encode(), b"")


def test_what_the_server_denies_stays_denied_wherever_the_file_is(host: Host) -> None:
    host.put("denied/here.txt", b"for nobody")
    for name in ("here.txt", "moved.txt"):
        answer = host.server.ask(DENIED + name)
        # Apache redirects it, but to no key.
        assert answer.status == 403 or answer.location == f"{TO}/{quote(PREFIX)}"
        assert b"for nobody" not in answer.body


def test_folders_are_neither_listed_nor_redirected(host: Host) -> None:
    host.put("folder/inside.txt", b"x")
    for path in ("", "folder/", "missing/", "missing/deeper/"):
        answer = host.server.ask(f"/files/{path}")
        assert answer.status in (403, 404), path
        assert b"inside" not in answer.body


def test_a_folder_stands_for_its_index_file_where_that_is_wished(host: Host) -> None:
    (host.pages / "album").mkdir(exist_ok=True)
    index = host.pages / "album/index.html"
    index.write_bytes(b"<p>album</p>")
    assert host.server.ask("/my.pages/album/").body == b"<p>album</p>"
    assert host.server.ask("/my.pages/album/index.html").body == b"<p>album</p>"
    index.unlink()
    for path, key in (
        ("album/", "album/index.html"),
        ("album/index.html", "album/index.html"),
        ("", "index.html"),
        ("not/here/?q=1", "not/here/index.html"),
        ("x.txt", "x.txt"),
    ):
        answer = host.server.ask(f"/my.pages/{path}")
        assert (answer.status, key_of(answer.location)) == (302, key), path
        assert urlsplit(answer.location).query == ("q=1" if "?" in path else "")


def test_other_urls_are_as_they_were(host: Host) -> None:
    assert host.server.ask("/plain.txt").body == b"plain"
    for path in ("/missing.txt", "/filesystem/x", "/my_pages/x", "/other/files/x"):
        answer = host.server.ask(path)
        assert (answer.status, answer.headers["Location"]) == (404, None), path
