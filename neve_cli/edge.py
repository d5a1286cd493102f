"""`neve edge`: move files from this host's folders to S3, behind the application's back."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neve_cli.options import AsJson

if TYPE_CHECKING:
    from neve_edge.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="The edge agent: moves files from folders of this host to S3 and, once they are proved there, lets them go.",
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="NEVE_EDGE_CONFIG",
        metavar="FILE",
        help="The settings.",
        show_default="/etc/neve/edge.toml, if it is there",
    ),
]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="DIR...", help="Only these folders; without a file of settings, these by the defaults."),
]
StackName = Annotated[
    str | None,
    typer.Option("--stack", envvar="NEVE_STACK", metavar="NAME", help="The stacks' name.", show_default="neve"),
]


class Server(StrEnum):
    """The web servers that there are configurations for."""

    NGINX = "nginx"
    LIGHTTPD = "lighttpd"
    APACHE = "apache"
    CADDY = "caddy"


@app.command()
def run(folders: Folders = None, config: Config = None, stack_name: StackName = None) -> None:
    """All in one process, until it is stopped: watch, work, relay.

    It ends with status 1 if one of them ends by itself; the log on stderr says why. SIGTERM and SIGINT have it finish,
    or hand back, what it has in hand.
    """
    _run(("watch", "work", "relay"), folders, config, stack_name)


@app.command()
def watch(folders: Folders = None, config: Config = None, stack_name: StackName = None) -> None:
    """Find finished files and announce them, until it is stopped; take the lists in the spool, too.

    A file is finished if it was moved in or closed, as the kernel says; where the kernel cannot tell (NFS), if it has
    not changed for quiet_s seconds.
    """
    _run(("watch",), folders, config, stack_name)


@app.command()
def work(folders: Folders = None, config: Config = None, stack_name: StackName = None) -> None:
    """Upload what was announced, verify it, wait for its pointer, and let the files go, until it is stopped.

    Files go to the attic of their folder for keep_days days, or are deleted if that is 0. One that has changed
    meanwhile stays, and is done again.
    """
    _run(("work",), folders, config, stack_name)


@app.command()
def relay(config: Config = None, stack_name: StackName = None) -> None:
    """Send announcements that could not be sent, as soon as they can be, until it is stopped."""
    from neve_cli.edge_run import run_parts  # noqa: PLC0415

    run_parts(("relay",), _settings(config, None, stack_name))


@app.command()
def announce(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Finished files, in folders of the settings.")],
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look whether they can be announced.")] = False,
    stack_name: StackName = None,
) -> None:
    """Announce files, whoever says that they are finished. They are announced for good when this ends.

    Exit status 1 if any of them cannot be announced; the others are.
    """
    from neve_cli.edge_announce import announce as announce_now  # noqa: PLC0415

    announce_now(_settings(config, None, stack_name), paths, dry_run=dry_run)


@app.command("import")
def import_folder(  # noqa: PLR0917  # typer calls it by name
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of the settings, or one in it.")],
    config: Config = None,
    keep: Annotated[bool, typer.Option("--keep", help="Copy the files and leave them where they are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what there is.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = None,
) -> None:
    """Move, or with --keep copy, a whole tree, and stay until that is done.

    It can be interrupted at any time and asked for again: what is done is done. It may run beside `neve edge run`.

    Exit status 1 if files are left that could not be moved.
    """
    from neve_cli.edge_import import Order, run_import  # noqa: PLC0415
    from neve_edge.settings import default_file  # noqa: PLC0415

    file = config or default_file(os.environ)
    settings = _settings(config, None if file else [folder], stack_name)
    place = settings.tree(folder.resolve())
    if place is None:
        raise _refused(f"{folder} is in none of the folders of {file}: add a [[folder]] there")
    run_import(settings, *place, Order(keep=keep, dry_run=dry_run, as_json=as_json))


@app.command()
def status(config: Config = None, as_json: AsJson = False, stack_name: StackName = None) -> None:
    """What waits on this host, what could not be moved and why, what lies in the attic.

    Exit status 1 if anything needs a person.
    """
    from neve_cli.edge_status import show_status  # noqa: PLC0415

    show_status(_settings(config, None, stack_name), as_json=as_json)


@app.command()
def webserver(  # noqa: PLR0917  # typer calls it by name
    server: Annotated[Server, typer.Argument(help="For which web server.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="The folder it serves.", show_default="the one of the settings"),
    ] = None,
    url: Annotated[str, typer.Option("--url", metavar="PATH", help="The URLs that the folder has.")] = "/files/",
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="Redirect to here.", show_default="the stacks' distribution Site"),
    ] = None,
    cdn: Annotated[
        bool,
        typer.Option("--cdn", help="Redirect straight to the files' own distribution, not by way of their pointers."),
    ] = False,
    key_prefix: Annotated[
        str | None,
        typer.Option("--key-prefix", help="What the files' keys begin with.", show_default="as the settings say"),
    ] = None,
    index: Annotated[
        str, typer.Option("--index", metavar="NAME", help="The file that a URL with a slash at its end stands for.")
    ] = "",
    script: Annotated[
        bool, typer.Option("--script", help="Print the Lua script that lighttpd needs beside it.")
    ] = False,
    config: Config = None,
    stack_name: StackName = None,
) -> None:
    """Print a configuration that serves what is in the folder, and redirects to where the rest has moved.

    It changes nothing outside of those URLs. Its comments say where to put it, and why each line is there.
    """
    from neve.errors import SettingInvalid  # noqa: PLC0415
    from neve_cli.edge_webserver import Wanted, print_configuration  # noqa: PLC0415

    wanted = Wanted(root=root, url=url, to=to, cdn=cdn, key_prefix=key_prefix, index=index, script=script)
    try:
        print_configuration(server.value, _settings(config, None, stack_name), wanted)
    except SettingInvalid as error:
        raise _refused(str(error)) from error


@app.command()
def units(
    name: Annotated[str | None, typer.Argument(help="Print this one.", show_default="the names of all")] = None,
) -> None:
    """Print systemd units: `neve edge units neve-edge.service > /etc/systemd/system/neve-edge.service`."""
    from importlib.resources import files  # noqa: PLC0415

    there = {
        each.name: each for each in files("neve_edge").joinpath("units").iterdir() if each.name.endswith(".service")
    }
    if name is None:
        for each in sorted(there):
            typer.echo(f"{each:<28}{there[each].read_text('utf-8').splitlines()[0].lstrip('# ')}")
    elif name in there:
        typer.echo(there[name].read_text("utf-8"), nl=False)
    else:
        raise typer.BadParameter(f"there are {', '.join(sorted(there))}")


def _run(parts: tuple[str, ...], folders: list[Path] | None, config: Path | None, stack_name: str | None) -> None:
    from neve_cli.edge_run import run_parts  # noqa: PLC0415

    settings = _settings(config, folders, stack_name)
    if not settings.folders:
        raise _refused("no folder is named: `neve edge run DIR`, or a [[folder]] in /etc/neve/edge.toml")
    run_parts(parts, settings)


def _settings(config: Path | None, folders: list[Path] | None, stack_name: str | None) -> Settings:
    """The settings of the file, or the defaults for `folders`; None: the command needs none."""
    from neve.errors import SettingInvalid  # noqa: PLC0415
    from neve_edge.settings import default_file, load  # noqa: PLC0415

    file = config or default_file(os.environ)
    try:
        return load(file, folders or (), given={"stack": stack_name} if stack_name else None)
    except SettingInvalid as error:
        raise _refused(str(error)) from error


def _refused(why: str) -> typer.Exit:
    typer.echo(f"neve: {why}", err=True)
    return typer.Exit(2)
