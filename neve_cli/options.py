"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

StackName = Annotated[
    str, typer.Option("--stack", envvar="NEVE_STACK", metavar="NAME", help="The name the stacks were deployed under.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with every character of keys as it is.")]

DEFAULT_STACK = "neve"
