"""A group of commands that does something of itself."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class RunsByDefault(TyperGroup):
    """`neve reconcile`, with or without options, is `neve reconcile run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before options that name no command."""
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["run", *args]
        return super().parse_args(ctx, args)
