"""`neve local`: the local cloud."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from neve_local.cloud import DEFAULT_FOLDER, LocalCloud, LocalCloudError

app = typer.Typer(
    help="The local cloud: the same stacks, deployed by the same `cdk deploy` into a server on this machine.",
    no_args_is_help=True,
)

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

Folder = Annotated[
    Path, typer.Option("--folder", help="Where the local cloud keeps its state.", show_default=".neve/cloud")
]


def _say(message: str) -> None:
    _err.print(f"[local cloud] {message}", markup=False)


def _fail(problem: LocalCloudError) -> typer.Exit:
    _err.print(f"neve local: {problem}", markup=False)
    return typer.Exit(1)


def settings(pairs: list[str]) -> dict[str, str]:
    """`key=value` words as a mapping. Raises BadParameter for a word that is none."""
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not key=value, such as target_mib=4")
    return dict(pair.split("=", 1) for pair in pairs)


@app.command()
def up(
    context: Annotated[
        list[str] | None,
        typer.Option("-c", "--context", metavar="KEY=VALUE", help="A setting of the stacks; repeat for more."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Listen here instead of on 4566 or, if taken, any free port.")
    ] = None,
    deploy: Annotated[bool, typer.Option(help="Deploy the stacks after starting.")] = True,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Start the local cloud and deploy the stacks into it.

    What it held when it was stopped is there again. After a crash what is left is set aside, and it starts empty.
    """
    cloud = LocalCloud(folder, port=port, say=_say)
    stack_settings = settings(context or [])
    try:
        started = cloud.start()
        _say(f"{'already runs' if started.already_running else 'started'} at {started.endpoint_url}")
        if deploy:
            cloud.deploy(stack_settings)
    except LocalCloudError as problem:
        raise _fail(problem) from problem
    _say('to use it from this shell: eval "$(neve local env)"')


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also remove all that it holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Stop the local cloud. What it holds stays for the next start, unless --wipe."""
    cloud = LocalCloud(folder, say=_say)
    if dry_run:
        _say(f"would stop: {'yes' if cloud.running else 'it is not running'}")
        if wipe:
            _say(f"would remove {cloud.layout.folder}")
        return
    try:
        stopped = cloud.stop()
        if not stopped.was_running:
            _say("was not running")
        elif stopped.state_saved:
            _say("stopped; its state is on disk")
        else:
            _say(f"stopped, but its state could not be written; see {cloud.layout.server_log}")
        if wipe:
            cloud.wipe()
            _say(f"removed {cloud.layout.folder}")
    except LocalCloudError as problem:
        raise _fail(problem) from problem
    if stopped.was_running and not stopped.state_saved and not wipe:
        raise typer.Exit(1)


@app.command()
def env(folder: Folder = DEFAULT_FOLDER) -> None:
    """Print shell commands that make `aws`, boto3 and `neve` talk to the local cloud.

    Use it as: eval "$(neve local env)"
    """
    try:
        variables = LocalCloud(folder).environment()
    except LocalCloudError as problem:
        raise _fail(problem) from problem
    typer.echo("unset AWS_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_CA_BUNDLE")
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, folder: Folder = DEFAULT_FOLDER
) -> None:
    """Tell whether the local cloud runs, where, and what is deployed. Exit status 0 if it runs, else 3."""
    cloud = LocalCloud(folder)
    running = cloud.running
    told = {
        "running": running,
        "crashed": cloud.crashed,
        "folder": str(cloud.layout.folder),
        "endpoint_url": cloud.endpoint_url if running else None,
        "pid": cloud.pid if running else None,
        "workers": cloud.worker_pids(),
        "outputs": cloud.outputs() if running else {},
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif running:
        _out.print(f"runs at {told['endpoint_url']} (process {told['pid']}), state in {told['folder']}", markup=False)
        for name, value in cloud.outputs().items():
            _out.print(f"  {name:<24} {value}", markup=False)
        if not told["outputs"]:
            _out.print("  nothing is deployed: `neve local up`", markup=False)
    elif cloud.crashed:
        _out.print("does not run, and was not stopped properly: `neve local up` sets its state aside and starts empty")
    else:
        _out.print("does not run: `neve local up` starts it", markup=False)
    if not running:
        raise typer.Exit(3)
