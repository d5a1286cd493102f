"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

import typer

StackName = Annotated[
    str, typer.Option("--stack", envvar="NEVE_STACK", metavar="NAME", help="The name the stacks were deployed under.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with every character of keys as it is.")]

DEFAULT_STACK = "neve"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command of which a parameter may be a dataclass: its fields are options of the command.

    So options that several commands share, and what becomes of them, are said once.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    options: list[Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            options.append(parameter.replace(annotation=hints[name]))
            continue
        groups[name] = hints[name]
        of_group = get_type_hints(hints[name], include_extras=True)
        options += [
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=of_group[each.name])
            for each in fields(hints[name])
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # how inspect is told of another one
    run.__annotations__ = {each.name: each.annotation for each in options}
    return run
