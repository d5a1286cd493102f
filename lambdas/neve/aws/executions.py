"""Executions of a Step Functions state machine: begun, and looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neve.aws.faults import code, transient

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient

ALIVE = frozenset({"RUNNING", "PENDING_REDRIVE"})
"""States of an execution that goes on by itself, or may."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution. `status` is in Step Functions' words, `cause` why it failed, "" if it did not."""

    status: str
    cause: str = ""

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.status in ALIVE


@dataclass(frozen=True)
class StateMachine:
    """A standard state machine, by its ARN."""

    client: SFNClient
    arn: str

    def start(self, name: str, given: Mapping[str, Any]) -> None:
        """Start an execution, unless there is one of this name already. Raises Transient.

        Source: API reference, StartExecution: a name is taken for as long as its execution runs and 90 days longer; the
        same name and input as those of a running one is answered as if it had just been started.
        """
        try:
            with transient():
                self.client.start_execution(stateMachineArn=self.arn, name=name, input=json.dumps(given))
        except ClientError as error:
            if code(error) != "ExecutionAlreadyExists":
                raise

    def look(self, name: str) -> Execution | None:
        """The execution of this name; None if there is none, or it ended more than 90 days ago. Raises Transient.

        An execution that was started a moment ago may not be seen yet: the answer is eventually consistent.
        """
        try:
            with transient():
                answer = self.client.describe_execution(executionArn=self._arn_of(name))
        except ClientError as error:
            if code(error) == "ExecutionDoesNotExist":
                return None
            raise
        told = [answer.get("error", ""), answer.get("cause", "")]
        return Execution(status=answer["status"], cause=": ".join(part for part in told if part))

    def _arn_of(self, name: str) -> str:
        return f"{self.arn.replace(':stateMachine:', ':execution:', 1)}:{name}"
