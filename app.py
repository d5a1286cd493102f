"""Composes the stacks of neve. Synthesizing them needs no network, credentials or git."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import aws_cdk as cdk

# The functions' settings are read by the functions themselves: their package lies in the asset.
sys.path.insert(0, str(Path(__file__).resolve().parent / "lambdas"))

from stacks.archive import ArchiveStack
from stacks.audit import AuditStack
from stacks.offload import OffloadStack
from stacks.operations import OperationsStack
from stacks.restore import RestoreStack
from stacks.serve import ServeStack
from stacks.settings import SettingsInvalid, read_settings
from stacks.storage import StorageStack

PROJECT = Path(__file__).resolve().parent


def build(app: cdk.App) -> None:
    """Put the stacks into `app`, as its context has the settings. Raises SettingsInvalid."""
    settings = read_settings(app.node.get_all_context())
    storage = StorageStack(app, f"{settings.name}-storage", settings=settings)
    archive = ArchiveStack(app, f"{settings.name}-archive", settings=settings, storage=storage)
    restore = RestoreStack(app, f"{settings.name}-restore", settings=settings, storage=storage)
    audit = AuditStack(
        app, f"{settings.name}-audit", settings=settings, storage=storage, archive=archive, restore=restore
    )
    offload = OffloadStack(
        app,
        f"{settings.name}-offload",
        settings=settings,
        storage=storage,
        archive=archive,
        restore=restore,
        audit=audit,
    )
    serve = ServeStack(app, f"{settings.name}-serve", settings=settings, storage=storage, restore=restore)
    OperationsStack(
        app,
        f"{settings.name}-operations",
        settings=settings,
        storage=storage,
        archive=archive,
        restore=restore,
        audit=audit,
        offload=offload,
        serve=serve,
    )


def context_for_templates() -> dict[str, object]:
    """The context for synthesizing without the `cdk` command: cdk.json's own, and nothing is packed.

    Without the command, which says where an assembly goes, the templates are only looked at, by a person or a test;
    for the asset pip might need the package index.
    """
    return {**json.loads((PROJECT / "cdk.json").read_text())["context"], "aws:cdk:bundling-stacks": []}


def synthesize(compose: Callable[[cdk.App], None]) -> int:
    """Synthesize what `compose` puts into an app; the exit status. Settings that cannot be used are told on stderr."""
    app = cdk.App(context=None if "CDK_OUTDIR" in os.environ else context_for_templates())
    try:
        compose(app)
    except SettingsInvalid as invalid:
        print(invalid, file=sys.stderr)  # noqa: T201  # what the person at the terminal has to read
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(synthesize(build))
