"""The agent's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from neve.errors import SettingInvalid
from neve_edge import settings as reading
from neve_edge.settings import default_file, load


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "site").mkdir(exist_ok=True)
    file = tmp_path / "edge.toml"
    file.write_text(f'journal = "{tmp_path}/state/edge.db"\n{text}', "utf-8")
    return file


def problems_of(file: Path, folders: list[Path] | None = None) -> list[str]:
    with pytest.raises(SettingInvalid) as refused:
        load(file, folders or ())
    first, *problems = str(refused.value).splitlines()
    assert first.startswith(str(file))
    return [problem.strip() for problem in problems]


def test_a_folder_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SYSTEM_STATE", tmp_path / "lib")
    (tmp_path / "lib").mkdir()
    settings = load(None, [tmp_path])
    (folder,) = settings.folders
    assert folder.path == tmp_path.resolve()
    assert folder.key_of("a/ö.jpg") == "a/ö.jpg"
    assert folder.attic == folder.path / ".neve-attic"
    assert folder.keep_days == 30
    assert settings.journal == tmp_path / "lib" / "edge.db"
    assert settings.spool == tmp_path / "lib" / "spool"
    assert settings.watched == settings.folders
    assert (settings.stack, settings.queue) == ("neve", False)


def test_who_is_not_root_has_its_journal_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SYSTEM_STATE", tmp_path / "none")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert load(None, [tmp_path]).journal == tmp_path / "home" / "neve" / "edge.db"


def test_a_file_says_all_and_folders_inherit_from_its_top(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    file = written(
        tmp_path,
        f"""
        stack = "photos"
        host = "web-1"
        queue = true
        bandwidth_mb_s = 12.5
        keep_days = 7
        [[folder]]
        path = "{tmp_path}/site"
        key_prefix = "uploads/"
        host_url = "https://web1.example.com/uploads"
        [[folder]]
        path = "{tmp_path}/b"
        name = "others"
        key_prefix = "b/"
        keep_days = 0
        ignore = ["*.part"]
        attic = "{tmp_path}/attic"
        """,
    )
    settings = load(file, given={"stack": "other"})
    assert (settings.stack, settings.host, settings.queue, settings.bandwidth_mb_s) == ("other", "web-1", True, 12.5)
    site, others = settings.folders
    assert (site.name, site.keep_days, site.key_of("a")) == ("site", 7, "uploads/a")
    assert site.host_url == "https://web1.example.com/uploads/"
    assert (others.name, others.keep_days, others.ignore) == ("others", 0, ("*.part",))
    assert settings.folder("others") is others
    assert settings.folder("none") is None


def test_every_problem_is_told_at_once_with_its_key_and_remedy(tmp_path: Path) -> None:
    told = problems_of(
        written(
            tmp_path,
            f"""
            queu = true
            parallel = 0
            scan_every_s = "often"
            host = "web 1"
            spool = "relative"
            [[folder]]
            path = "{tmp_path}/none"
            key_prefix = "/uploads"
            quiet_s = -1
            keep_days = 1.5
            [[folder]]
            key_prefix = ".neve/"
            host_url = "web1"
            ignore = "*.tmp"
            colour = "red"
            """,
        )
    )
    expected = {
        "queu": "did you mean queue",
        "parallel": "from 1 to 256",
        "scan_every_s": "not 'often'",
        "host": "letters",
        "spool": "absolute path",
        "folder[1].path": "not a folder here",
        "folder[1].key_prefix": "begins with a slash",
        "folder[1].quiet_s": "from 0",
        "folder[1].keep_days": "whole number",
        "folder[2].path": "name the folder",
        "folder[2].key_prefix": "neve's own",
        "folder[2].host_url": "no http(s) URL",
        "folder[2].ignore": "list of patterns",
        "folder[2].colour": "there are",
    }
    for key, remedy in expected.items():
        assert any(each.startswith(f"{key}: ") and remedy in each for each in told), (key, told)


@pytest.mark.parametrize("key", ["key_prefix", "name", "attic"])
def test_folders_whose_files_would_take_each_others_place_are_refused(tmp_path: Path, key: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tables = ""
    for name in ("a", "b"):
        values = {"path": f"{tmp_path}/{name}", "key_prefix": f"{name}/"}
        values[key] = {"key_prefix": "same/", "name": "same", "attic": f"{tmp_path}/attic"}[key]
        tables += "[[folder]]\n" + "".join(f'{each} = "{value}"\n' for each, value in values.items())
    (told,) = problems_of(written(tmp_path, tables))
    assert told.startswith(f"{key}: {tmp_path}/a and {tmp_path}/b have the same")


def test_no_file_of_one_folder_has_a_key_of_another(tmp_path: Path) -> None:
    tables = ""
    for name, prefix in (("site", ""), ("media", "media/"), ("old", "media/old/")):
        (tmp_path / name).mkdir()
        tables += f'[[folder]]\npath = "{tmp_path}/{name}"\nkey_prefix = "{prefix}"\n'
    site, media, old = load(written(tmp_path, tables)).folders
    assert (site.key_of("a"), media.key_of("older"), old.key_of("a")) == ("a", "media/older", "media/old/a")
    for folder, path in ((site, "media/a"), (site, "media/old/a"), (media, "old/a")):
        with pytest.raises(ValueError, match="belongs to another"):
            folder.key_of(path)


def test_a_folder_in_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site" / "b").mkdir(parents=True)
    file = written(tmp_path, f'[[folder]]\npath = "{tmp_path}/site"\n')
    (told,) = problems_of(file, [tmp_path / "site" / "b"])
    assert "name that one" in told
    told_of_both = problems_of(
        written(
            tmp_path,
            f'[[folder]]\npath = "{tmp_path}/site"\n[[folder]]\npath = "{tmp_path}/site/b"\nkey_prefix = "b/"\n',
        )
    )
    assert any("would go twice" in each for each in told_of_both)


def test_only_the_folders_that_are_named_are_watched_but_all_are_worked_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    file = written(
        tmp_path,
        "".join(f'[[folder]]\npath = "{tmp_path}/{name}"\nkey_prefix = "{name}/"\n' for name in ("a", "b")),
    )
    settings = load(file, [tmp_path / "b"])
    assert [folder.name for folder in settings.watched] == ["b"]
    assert [folder.name for folder in settings.folders] == ["a", "b"]


def test_an_attic_on_another_file_system_or_around_its_folder_is_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    for attic, why in ((elsewhere / "attic", "another file system"), (tmp_path, "holds the folder itself")):
        (told,) = problems_of(written(tmp_path, f'[[folder]]\npath = "{tmp_path}/site"\nattic = "{attic}"\n'))
        assert told.startswith("folder[1].attic: ")
        assert why in told


def test_a_journal_on_a_shared_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "shared_kind", lambda _device: "nfs4")
    (told,) = problems_of(written(tmp_path, f'[[folder]]\npath = "{tmp_path}/site"\n'))
    assert told.startswith("journal: ")
    assert "nfs4" in told


@pytest.mark.parametrize(("text", "why"), [("a = ", "is not TOML"), (None, "is not there")])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "edge.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingInvalid, match=why):
        load(file)


def test_the_file_is_the_one_the_environment_names_or_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SYSTEM_FILE", tmp_path / "edge.toml")
    assert default_file({}) is None
    (tmp_path / "edge.toml").touch()
    assert default_file({}) == tmp_path / "edge.toml"
    assert default_file({"NEVE_EDGE_CONFIG": "/x"}) == Path("/x")


def test_a_path_is_placed_by_where_it_really_is_but_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "site" / "d").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "site")
    (tmp_path / "site" / "link").symlink_to("/etc/passwd")
    settings = load(None, [tmp_path / "alias"], given={"journal": f"{tmp_path}/state/edge.db"})
    (folder,) = settings.folders
    assert settings.place(tmp_path / "alias" / "d" / "a") == (folder, "d/a")
    assert settings.place(tmp_path / "site" / "link") == (folder, "link")
    assert settings.place(tmp_path / "site" / ".." / "elsewhere") is None
    assert settings.place(tmp_path / "site") is None
    assert settings.tree(folder.path) == (folder, "")
    assert settings.tree(folder.path / "d") == (folder, "d")
