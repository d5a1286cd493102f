"""What is refused before a web server's configuration is made, and what the command prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from neve.domain.layout import Layout
from neve.errors import SettingInvalid
from neve_cli import edge_webserver
from neve_cli.main import app
from neve_edge.webserver import SERVERS, lighttpd, webserver_config
from neve_edge.webserver.site import Site, site

TO = "https://files.example.com"


def made(**changed: object) -> Site:
    return site(**({"root": "/srv/files", "url": "/files/", "to": TO} | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        *(({"root": root}, "absolute path") for root in ("files", "", "/a$b", '/a"b', "/a\nb", "/a{b", "/a*", "/a\\b")),
        *(
            ({"url": url}, "begin with a path")
            for url in ("files", "/fi les/", "/a//b/", "/ü/", "/%20/", '/"/', "/{x}/")
        ),
        *(
            ({"to": to}, "no base URL")
            for to in ("", "files", "ftp://x", "https://x/?q", "https://x y", 'https://x"', "https://")
        ),
        *(({"key_prefix": prefix}, "key prefix") for prefix in ("a", "/a/", "/")),
        *(({"index": index}, "index file") for index in ("a/b", "a b", 'a"b', "a\nb")),
        ({"layout": Layout.HASHED, "straight_to_cdn": True}, "to the resolver instead"),
    ],
)
def test_what_cannot_be_served_so_is_refused_with_the_remedy(changed: dict[str, object], said: str) -> None:
    with pytest.raises(SettingInvalid, match=said):
        made(**changed)


def test_a_hashed_layout_is_for_the_resolver_to_know() -> None:
    assert made(layout=Layout.HASHED).to == f"{TO}/"
    assert made(straight_to_cdn=True).to == f"{TO}/"


def test_slashes_at_the_ends_make_no_difference() -> None:
    assert made() == made(root="/srv/files/", url="/files", to=f"{TO}/")
    assert made(url="/").name == "all"
    assert made(url="/a/b.c").name == "a_b_c"


@pytest.mark.parametrize("server", SERVERS)
def test_two_sites_do_not_meet_in_one_server_and_no_line_is_too_long_to_be_read(server: str) -> None:
    one, other = (webserver_config(server, made(url=url)) for url in ("/files/", "/pages/"))
    assert "files" in one
    assert "/files/" not in other.replace("/srv/files/", "")
    texts = [one, other, lighttpd.script(made(index="index.html"))]
    assert all(len(line) <= 120 for text in texts for line in text.expandtabs(4).splitlines())


def neve(*words: str) -> Result:
    return CliRunner().invoke(app, ["edge", "webserver", *words])


@pytest.mark.parametrize("server", SERVERS)
def test_the_command_prints_the_configuration(server: str) -> None:
    answer = neve(server, "--root", "/srv/files", "--to", TO, "--key-prefix", "ü/", "--url", "/u", "--index", "i.html")
    assert answer.stdout == webserver_config(server, made(key_prefix="ü/", url="/u/", index="i.html"))
    assert answer.exit_code == 0


def test_lighttpds_script_is_printed_apart() -> None:
    answer = neve("lighttpd", "--root", "/srv/files", "--to", TO, "--script")
    assert answer.stdout == lighttpd.script(made())
    refused = neve("nginx", "--root", "/srv/files", "--to", TO, "--script")
    assert (refused.exit_code, "for lighttpd" in refused.stderr) == (2, True)


def test_folder_and_key_prefix_come_from_the_agents_settings(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    settings = tmp_path / "edge.toml"
    settings.write_text(f'[[folder]]\npath = "{files}"\nkey_prefix = "web/"\n')
    words = ("nginx", "--to", TO, "--config", str(settings))
    assert neve(*words).stdout == webserver_config("nginx", made(root=str(files), key_prefix="web/"))
    below = webserver_config("nginx", made(root=str(files / "sub"), key_prefix="web/sub/"))
    assert neve(*words, "--root", str(files / "sub")).stdout == below
    settings.write_text("")
    refused = neve(*words)
    assert (refused.exit_code, "--root DIR" in refused.stderr) == (2, True)


def test_without_a_target_the_stacks_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        outputs = {"KeyLayout": "as-is", "SiteCdn": "https://site.x", "ContentCdn": "https://a.x https://b.x"}  # noqa: RUF012

    monkeypatch.setattr(edge_webserver, "find", lambda _: Found)
    words = ("caddy", "--root", "/srv/files")
    assert neve(*words).stdout == webserver_config("caddy", made(to="https://site.x"))
    assert neve(*words, "--cdn").stdout == webserver_config("caddy", made(to="https://a.x"))
    Found.outputs["KeyLayout"] = "hashed"
    assert neve(*words).exit_code == 0
    refused = neve(*words, "--cdn")
    assert (refused.exit_code, "to the resolver instead" in refused.stderr) == (2, True)
