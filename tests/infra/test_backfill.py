"""Promises of the state machine of backfills: one shard ends no other, what fails is tried again, and then told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from neve.domain.backfill import MOST_SHARDS, ROUNDS
from tests.infra.templates import Templates
from tests.infra.test_functions import role_statements
from tests.infra.test_queues import OTHER_FIGURES

MOST_EVENTS = 25_000
"""Of an execution's history, as the developer guide of Step Functions has it, "Service quotas"."""
LARGEST_PAYLOAD = 256 * 1024
"""What one state hands to the next, there as well."""

MACHINE = "BackfillStateMachine"


def definition(templates: Templates) -> dict[str, Any]:
    machine = templates.rendered(templates.of_kind("AWS::StepFunctions::StateMachine")[MACHINE])
    read: dict[str, Any] = json.loads(machine["DefinitionString"])
    return read


def shard(templates: Templates) -> dict[str, Any]:
    """The states of one shard's execution."""
    states: dict[str, Any] = definition(templates)["States"]["Shards"]["ItemProcessor"]["States"]
    return states


def tasks(templates: Templates) -> Iterator[dict[str, Any]]:
    for states in (definition(templates)["States"], shard(templates)):
        yield from (state for state in states.values() if state["Type"] == "Task")


def waits(state: dict[str, Any]) -> list[float]:
    """How long a state waits before each of its tries after the first."""
    [_, retry] = state["Retry"]
    pauses = [retry["IntervalSeconds"] * retry["BackoffRate"] ** number for number in range(retry["MaxAttempts"])]
    return [min(pause, retry["MaxDelaySeconds"]) for pause in pauses]


def test_every_step_calls_backfill_and_outlasts_an_outage_of_an_hour(templates: Templates) -> None:
    called = list(tasks(templates))
    assert [state["Resource"] for state in called] == ["Backfill"] * 4
    for state in called:
        assert [retry["ErrorEquals"] for retry in state["Retry"]] == [["EventInvalid"], ["States.ALL"]]
        assert state["Retry"][0]["MaxAttempts"] == 0, "what is no request now will be none later"
        assert sum(waits(state)) > 3_600


def test_a_shard_that_fails_ends_no_other_and_is_told_at_the_end(templates: Templates) -> None:
    states = definition(templates)["States"]
    assert states["Shards"]["ToleratedFailurePercentage"] == 100
    assert states["Shards"]["ResultSelector"] == {"problems.$": "$[*].problem"}
    [caught] = shard(templates)["Advance"]["Catch"]
    assert (caught["ErrorEquals"], list(shard(templates)["GivenUp"]["Parameters"])) == (["States.ALL"], ["problem.$"])
    assert states["EndWithProblem"]["Parameters"]["problem.$"] == "$.failed.problems[0]"
    for name in ("End", "EndWithProblem"):
        assert states[name]["Parameters"]["execution.$"] == "$$.Execution.Name"


def test_an_execution_fails_if_a_problem_stopped_the_backfill_and_goes_on_while_shards_are_left(
    templates: Templates,
) -> None:
    states = definition(templates)["States"]
    assert states["Left"]["Choices"] == [
        {"Variable": "$.state", "StringEquals": "running", "Next": "Plan"},
        {"Variable": "$.problem", "IsPresent": True, "Next": "Stopped"},
    ]
    assert states["Stopped"] == {"Type": "Fail", "Error": "Stopped", "CausePath": "$.problem"}
    assert states[states["Left"]["Default"]] == {"Type": "Succeed"}


def test_the_answers_of_all_shards_fit_into_what_a_state_hands_on(templates: Templates) -> None:
    assert shard(templates)["Over"] == {"Type": "Succeed", "OutputPath": None}
    assert MOST_SHARDS * len("{},") < LARGEST_PAYLOAD
    assert len(json.dumps(list(range(MOST_SHARDS)))) < LARGEST_PAYLOAD


def test_the_rounds_of_a_shard_fit_into_a_history_even_if_every_call_fails_until_its_last_try(
    templates: Templates,
) -> None:
    """Each call is entered, scheduled, started, ended and left; a failed one is scheduled, started and failed."""
    tries = len(waits(shard(templates)["Advance"]))
    assert (5 + 3 * tries + len(("choice", "wait")) * 2) * ROUNDS < MOST_EVENTS


def test_the_setting_says_how_many_shards_are_worked_off_at_once(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    assert definition(templates)["States"]["Shards"]["MaxConcurrency"] == 10
    assert definition(synthesized(**OTHER_FIGURES))["States"]["Shards"]["MaxConcurrency"] == 9
    assert synthesized(**OTHER_FIGURES).of_kind("AWS::Lambda::Function")["Backfill"].properties["Timeout"] == 22


def test_the_machine_may_call_backfill_and_run_itself_and_nothing_else(templates: Templates) -> None:
    """The local cloud asks for none of these."""
    found = {
        (action, resource.split(":")[2] if resource.startswith("arn:") else resource)
        for statement in role_statements(templates, f"{MACHINE}/Role")
        for action in statement["Action"]
        for resource in statement["Resource"]
    }
    assert found == {
        ("lambda:InvokeFunction", "Backfill"),
        ("states:StartExecution", MACHINE),
        *((f"states:{action}Execution", "states") for action in ("Describe", "Stop", "Redrive")),
    }
    executions = [
        resource
        for statement in role_statements(templates, f"{MACHINE}/Role")
        for resource in statement["Resource"]
        if resource.startswith("arn:")
    ]
    assert all(MACHINE in resource for resource in executions)
