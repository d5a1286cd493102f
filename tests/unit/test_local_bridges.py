"""The bridges over the local cloud's differences from AWS: what they compute, and that they notice a new version."""

from __future__ import annotations

import json
import types
import zipfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from hypothesis import given
from hypothesis import strategies as st

from neve_local import bridges
from neve_local.app import UNEVALUATED, PutWithoutCondition, without_statement
from neve_local.bridges import (
    BRIDGES,
    ENVELOPE_BYTES,
    LARGEST_PAYLOAD_BYTES,
    BridgeBroken,
    SharedCode,
    is_gathering,
    payload_count,
)


def message(body_bytes: int, visible_at: float = 0) -> dict[str, Any]:
    return {"body": "x" * body_bytes, "visible_at": visible_at}


def test_a_function_that_is_gone_breaks_the_bridge() -> None:
    with pytest.raises(BridgeBroken, match=r"emulator\.receive is gone"):
        bridges.existing(types.ModuleType("emulator"), "receive", ("queue_url",))


def test_a_function_with_other_parameters_breaks_the_bridge() -> None:
    module = types.ModuleType("emulator")
    module.receive = lambda queue, number: (queue, number)  # type: ignore[attr-defined]
    with pytest.raises(BridgeBroken, match="takes"):
        bridges.existing(module, "receive", ("queue_url", "max_number"))


def test_every_bridge_says_why() -> None:
    assert len({bridge.name for bridge in BRIDGES}) == len(BRIDGES)
    assert all(bridge.why for bridge in BRIDGES)


def test_code_is_extracted_once_and_every_worker_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as packed:
        packed.writestr("collect.py", "import neve")
        packed.writestr("neve/__init__.py", "")
    for worker in (tmp_path / "first", tmp_path / "second"):
        worker.mkdir()
        with SharedCode(tmp_path / "code.zip") as code:
            code.extractall(worker)
        assert (worker / "collect.py").read_text() == "import neve"
    first, second = ((tmp_path / worker / "neve" / "__init__.py").resolve() for worker in ("first", "second"))
    assert first == second


def test_a_batch_is_as_large_as_asked_for_if_there_is_enough() -> None:
    assert payload_count([message(100)] * 250, at_most=200, now=1) == 200
    assert payload_count([message(100)] * 250, at_most=1000, now=1) == 250


def test_a_batch_is_gathered_until_it_is_full_or_its_first_message_has_waited_for_the_window() -> None:
    waiting = [message(1, visible_at=10.0), message(1, visible_at=10.8), message(1, visible_at=99)]
    assert is_gathering(waiting, at_most=100, window_s=1, now=10.9)
    assert not is_gathering(waiting, at_most=100, window_s=1, now=11)
    assert not is_gathering(waiting, at_most=2, window_s=1, now=10.9)
    assert not is_gathering(waiting, at_most=100, window_s=0, now=10.9)
    assert not is_gathering([], at_most=100, window_s=1, now=10.9)


def test_a_batch_skips_what_is_not_visible_yet() -> None:
    assert payload_count([message(1, visible_at=5), message(1), message(1)], at_most=10, now=1) == 2


def test_a_message_larger_than_the_payload_still_comes_alone() -> None:
    assert payload_count([message(LARGEST_PAYLOAD_BYTES)] * 2, at_most=10, now=1) == 1


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=60), st.integers(1, 80))
def test_a_batch_never_exceeds_the_payload_and_could_not_be_larger(sizes: list[int], at_most: int) -> None:
    count = payload_count([message(size) for size in sizes], at_most=at_most, now=1)
    taken = sum(size + ENVELOPE_BYTES for size in sizes[:count])
    assert 1 <= count <= min(at_most, len(sizes))
    assert taken <= LARGEST_PAYLOAD_BYTES
    if count < min(at_most, len(sizes)):
        assert taken + sizes[count] + ENVELOPE_BYTES > LARGEST_PAYLOAD_BYTES


def test_only_the_named_statement_is_taken_out() -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Sid": "Kept"}, {"Sid": UNEVALUATED}, {"Effect": "Deny"}]}
    assert without_statement(document, UNEVALUATED) == {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Kept"}, {"Effect": "Deny"}],
    }


def test_the_statement_is_taken_out_of_a_synthesized_bucket_policy_and_the_rest_stays() -> None:
    stack = cdk.Stack(cdk.App(), "stack")
    bucket = s3.Bucket(stack, "Bucket", enforce_ssl=True)
    for sid in (UNEVALUATED, "Another"):
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects("*")],
            )
        )
    bridge = PutWithoutCondition()
    cdk.Aspects.of(stack).add(bridge)
    (policy,) = Template.from_stack(stack).find_resources("AWS::S3::BucketPolicy").values()
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    assert bridge.removed == 1
    assert [statement.get("Sid") for statement in statements] == [None, "Another"]
    assert statements[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_each_statement_of_a_batch_is_checked_as_what_it_does() -> None:
    body = json.dumps(
        {
            "Statements": [
                {"Statement": "INSERT INTO \"files\" VALUE {'shard': ?}"},
                {"Statement": "INSERT INTO \"files\" VALUE {'shard': ?}"},
                {"Statement": "delete from other where pk = ?"},
                {"Statement": 'UPDATE "third-table" SET x = 1'},
            ]
        }
    ).encode()
    assert bridges.statement_actions(body) == [
        ("dynamodb:PartiQLDelete", "other"),
        ("dynamodb:PartiQLInsert", "files"),
        ("dynamodb:PartiQLUpdate", "third-table"),
    ]
