"""Settings travel from the stack to the Lambda as environment variables."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from neve.config import AnyConfig, CollectConfig, environment, read
from neve.errors import SettingInvalid

KINDS: tuple[Any, ...] = get_args(AnyConfig)


def made(kind: Any) -> Any:
    return kind(**{field.name: 7 if field.type == "int" else f"the {field.name}" for field in fields(kind)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_reads_what_the_stack_wrote(kind: Any) -> None:
    assert read(kind, environment(made(kind)) | {"HOME": "/", "NEVE_OTHER": "x"}) == made(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_missing_is_named_at_once_with_the_remedy(kind: Any) -> None:
    with pytest.raises(SettingInvalid) as caught:
        read(kind, {})
    for field in fields(kind):
        assert f"NEVE_{field.name.upper()} is not set" in str(caught.value)
    assert "cdk deploy" in str(caught.value)


@pytest.mark.parametrize("text", ["", "25 MiB", "-1", "1.5", "1e3"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingInvalid, match=r"NEVE_TARGET_BYTES is .*, not a whole number"):
        read(CollectConfig, environment(made(CollectConfig)) | {"NEVE_TARGET_BYTES": text})
