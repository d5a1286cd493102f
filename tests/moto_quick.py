"""moto, made to remember what it works out anew for each request and what is the same each time.

Half of the time of the contract tests went into that. Its answers stay the same: tests/contract/test_moto_quick.py.
"""

from __future__ import annotations

import functools
import string
from typing import Any

import moto.core.responses
import moto.sqs.models
from botocore import useragent
from moto.core.model import Shape
from moto.core.serialize import (
    DEFAULT_ALIAS_PROVIDERS,
    AttributePickerContext,
    ResponseSerializer,
    XFormedAttributePicker,
)
from moto.dynamodb.parsing import ast_nodes, expressions
from moto.moto_api._internal.moto_random import MotoRandom

DepthFirstTraverser: Any = vars(ast_nodes)["DepthFirstTraverser"]  # the modules have no types
UpdateExpressionParser: Any = vars(expressions)["UpdateExpressionParser"]

REMEMBERED: tuple[tuple[Any, str], ...] = (
    (moto.core.responses, "camelcase_to_underscores"),
    (moto.core.responses, "method_names_from_class"),
    (moto.sqs.models, "camelcase_to_underscores"),
    (useragent, "sanitize_user_agent_string_component"),
    (UpdateExpressionParser, "make"),  # who changes the tree that it makes, copies it first
)
"""Functions whose results follow from their arguments, and are not changed by who gets them."""

pick = ResponseSerializer.get_value
_random_string = MotoRandom.get_random_string
_kinds_of_nodes = DepthFirstTraverser.nodes_to_be_processed


@functools.cache
def make_quick() -> None:
    """Have moto remember, from now on, in the whole process."""
    for owner, name in REMEMBERED:
        setattr(owner, name, functools.cache(getattr(owner, name)))
    for owner, name, quick in (
        (ResponseSerializer, "get_value", pick_quickly),
        (MotoRandom, "get_random_string", _draw_at_once),
        (DepthFirstTraverser, "nodes_to_be_processed", _kinds_for_life),
    ):
        setattr(owner, name, quick)


def pick_quickly(serializer: ResponseSerializer, value: Any, key: str, shape: Shape) -> Any:
    """What `value` has for a member of a structure. In a dictionary that is what stands under one of its names."""
    picker = serializer._value_picker
    if (
        type(value) is not dict
        or type(picker) is not XFormedAttributePicker
        or picker.alias_providers is not DEFAULT_ALIAS_PROVIDERS
        or picker.response_transformers
    ):
        return pick(serializer, value, key, shape)
    for name in _names(key, shape, getattr(shape, "parent", None)):
        if name in value:
            return value[name]
    return None


@functools.cache
def _names(key: str, shape: Shape, parent: Shape | None) -> tuple[str, ...]:
    """What a member may be called in a dictionary, which depends on the structure that it is a member of as well."""
    return tuple(XFormedAttributePicker().get_possible_keys(AttributePickerContext(obj={}, key=key, shape=shape)))


def _draw_at_once(random: MotoRandom, length: int = 20, include_digits: bool = True, lower_case: bool = False) -> str:
    if lower_case or not include_digits:
        return _random_string(random, length, include_digits, lower_case)
    return "".join(random.choices(string.ascii_letters + string.digits, k=length))


def _kinds_for_life(traverser: Any) -> Any:
    """The kinds of nodes that a traverser processes."""
    if "kinds" not in vars(traverser):
        vars(traverser)["kinds"] = _kinds_of_nodes(traverser)
    return vars(traverser)["kinds"]
