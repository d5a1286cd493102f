"""Executions of a state machine, against moto and against answers as AWS gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from neve.aws.executions import Execution, StateMachine
from neve.errors import Transient
from tests.moto_cloud import CREDENTIALS, REGION

DEFINITION = json.dumps({"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 1, "End": True}}})
ROLE = "arn:aws:iam::123456789012:role/neve"
NOW = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[StateMachine]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        client = boto3.client("stepfunctions", region_name=REGION)
        made = client.create_state_machine(name="Backfill", definition=DEFINITION, roleArn=ROLE)
        yield StateMachine(client, made["stateMachineArn"])


def test_an_execution_is_started_once_by_its_name_and_found_by_it(machine: StateMachine) -> None:
    assert machine.look("b1-1") is None
    for _ in range(2):
        machine.start("b1-1", {"backfill": "b1"})
    assert machine.look("b1-1") == Execution(status="RUNNING")
    [listed] = machine.client.list_executions(stateMachineArn=machine.arn)["executions"]
    told = machine.client.describe_execution(executionArn=listed["executionArn"])
    assert (told["name"], json.loads(told["input"])) == ("b1-1", {"backfill": "b1"})
    machine.client.stop_execution(executionArn=listed["executionArn"])
    machine.start("b1-1", {"backfill": "b1"})
    found = machine.look("b1-1")
    assert found is not None
    assert (found.status, found.alive) == ("ABORTED", False), "a name that was used is used up"


def test_why_an_execution_failed_is_told(machine: StateMachine) -> None:
    arn = f"{machine.arn.replace(':stateMachine:', ':execution:')}:b1-1"
    answer = {"executionArn": arn, "stateMachineArn": machine.arn, "status": "FAILED", "startDate": NOW}
    with Stubber(machine.client) as stub:
        stub.add_response("describe_execution", {**answer, "error": "States.Timeout", "cause": "too slow"})
        assert machine.look("b1-1") == Execution(status="FAILED", cause="States.Timeout: too slow")


def test_no_answer_is_no_word_on_what_there_is(machine: StateMachine) -> None:
    with Stubber(machine.client) as stub:
        for operation in ("describe_execution", "start_execution"):
            stub.add_client_error(operation, "ThrottlingException", http_status_code=400)
            stub.add_client_error(operation, "AccessDeniedException", http_status_code=400)
        attempts: list[Callable[[], object]] = [lambda: machine.look("b1-1"), lambda: machine.start("b1-1", {})]
        for attempt in attempts:
            with pytest.raises(Transient):
                attempt()
            with pytest.raises(ClientError, match="AccessDenied"):
                attempt()
