"""`neve edge webserver`: a configuration that serves what is there, and redirects for what has moved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import typer

from neve.domain.layout import Layout
from neve.errors import SettingInvalid
from neve_cli.stack import find
from neve_edge.settings import Settings
from neve_edge.webserver import lighttpd, webserver_config
from neve_edge.webserver.site import Site, site


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says. What it does not say is None: the settings say it, or the stacks."""

    root: Path | None
    url: str
    to: str | None
    cdn: bool
    key_prefix: str | None
    index: str
    script: bool


def print_configuration(server: str, settings: Settings, wanted: Wanted) -> None:
    """Print it. Raises SettingInvalid with the remedy, and StackNotFound."""
    if wanted.script and server != "lighttpd":
        raise SettingInvalid(f"{server} needs no script; --script is for lighttpd.")
    made = _site(settings, wanted)
    typer.echo(lighttpd.script(made) if wanted.script else webserver_config(server, made), nl=False)


def _site(settings: Settings, wanted: Wanted) -> Site:
    root = wanted.root
    if root is None:
        if len(settings.folders) != 1:
            raise SettingInvalid(
                f"The settings have {len(settings.folders)} folders: say which one is served, --root DIR, and at which "
                "URLs, --url /files/."
            )
        root = settings.folders[0].path
    to, layout = wanted.to, Layout.AS_IS
    if to is None:
        outputs = find(settings.stack).outputs
        layout = Layout(outputs["KeyLayout"])
        to = outputs["ContentCdn"].split()[0] if wanted.cdn else outputs["SiteCdn"]
    return site(
        root=os.path.abspath(root),  # noqa: PTH100  # links in it are the host's own matter
        url=wanted.url,
        to=to,
        key_prefix=_key_prefix(settings, root) if wanted.key_prefix is None else wanted.key_prefix,
        layout=layout,
        straight_to_cdn=wanted.cdn,
        index=wanted.index,
    )


def _key_prefix(settings: Settings, root: Path) -> str:
    """What the agent puts before the paths of the files in `root`."""
    place = settings.tree(root.resolve())
    if place is None:
        return ""
    folder, path = place
    return folder.key_prefix + (f"{path}/" if path else "")
