"""The `neve` command."""

from __future__ import annotations

import typer

from neve_cli import local

app = typer.Typer(help="User uploads into S3 Glacier archives, and back.", no_args_is_help=True)
app.add_typer(local.app, name="local")


@app.callback()
def options() -> None:
    """User uploads into S3 Glacier archives, and back."""


def main() -> None:
    """Run the command."""
    app()
