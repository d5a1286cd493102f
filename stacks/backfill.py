"""The state machine of backfills: it has function Backfill called for each shard until none is left.

    Plan ──> Shards: a Distributed Map, one execution for each shard ──> End ──> Plan, if shards are left
                Advance ──> Wait ──> Advance ... until its shard is over

Step Functions is this function's queue: it keeps what is to be done, calls again what failed, and says so when that
does not help. A Distributed Map takes 100 million items at the most, so an item is a range of keys or some files of an
inventory, never a version. An execution keeps 25,000 events: after some rounds that of a shard ends, done or not. Then
End finds shards left, and the map begins anew with those.

Events of a shard's execution: 9 a round, which are 5 for the call, 2 for the choice and 2 for the wait, and 3 for each
failed call; with 12 failures in each of its ROUNDS (neve.domain.backfill), 200, that makes 9,000. Of the execution
itself: 18 each time that the map begins anew, which is so after 200 rounds of 20 s and more: it lasts for over two
months at the least. A round takes minutes as a rule, since queues are full or a rate is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

# 12 tries after 10, 20, 40 ... 600 s outlast an outage of over an hour, as deliveries from queues do.
_TRIES = 12
_FIRST_PAUSE, _LONGEST_PAUSE = cdk.Duration.seconds(10), cdk.Duration.minutes(10)


def backfill_machine(scope: Construct, made: lambda_.Function, *, shards_at_once: int) -> sfn.StateMachine:
    """State machine `BackfillStateMachine`, which works off a backfill by calling `made`.

    An execution is started with {"backfill": id}. It succeeds once the backfill is finished, or was stopped by a
    person; it fails if the backfill was stopped by a problem, which is its cause then.
    """
    plan = _call(scope, "Plan", made, {"step": "plan", "backfill.$": "$.backfill"})
    shards = sfn.DistributedMap(
        scope,
        "Shards",
        items_path="$.shards",
        item_selector={
            "step": "advance",
            "backfill": sfn.JsonPath.string_at("$.backfill"),
            "shard": sfn.JsonPath.number_at("$$.Map.Item.Value"),
        },
        max_concurrency=shards_at_once,
        map_execution_type=sfn.StateMachineType.STANDARD,
        # A shard that fails does not end its neighbours.
        tolerated_failure_percentage=100,
        result_selector={"problems": sfn.JsonPath.list_at("$[*].problem")},
        result_path="$.failed",
    ).item_processor(_shard(scope, made))
    ending = {"step": "end", "backfill.$": "$.backfill", "execution.$": "$$.Execution.Name"}
    end = _call(scope, "End", made, ending)
    end_with_problem = _call(
        scope,
        "EndWithProblem",
        made,
        {**ending, "problem.$": "$.failed.problems[0]"},
    )
    left = (
        sfn.Choice(scope, "Left")
        .when(sfn.Condition.string_equals("$.state", "running"), plan)
        .when(
            sfn.Condition.is_present("$.problem"),
            sfn.Fail(scope, "Stopped", error="Stopped", cause_path="$.problem"),
        )
        .otherwise(sfn.Succeed(scope, "Ended"))
    )
    plan.next(shards).next(
        sfn.Choice(scope, "Failed")
        .when(sfn.Condition.is_present("$.failed.problems[0]"), end_with_problem)
        .otherwise(end)
    )
    end.next(left)
    end_with_problem.next(left)
    machine = sfn.StateMachine(
        scope,
        "BackfillStateMachine",
        definition_body=sfn.DefinitionBody.from_chainable(plan),
        comment="Backfills: what was in the content bucket before",
    )
    machine.add_to_role_policy(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[made.function_arn]))
    _acknowledge(machine)
    return machine


def _shard(scope: Construct, made: lambda_.Function) -> sfn.IChainable:
    """One shard: the function's answer is what it is called with again, until it says that this is over.

    What a shard's execution answers is empty, or the name of the error that no try helped against: together the answers
    of 10,000 shards have to stay below 256 KB.
    """
    advance = _call(scope, "Advance", made)
    wait = sfn.Wait(scope, "Wait", time=sfn.WaitTime.seconds_path("$.wait_s"))
    over = sfn.Succeed(scope, "Over", output_path=sfn.JsonPath.DISCARD)
    given_up = sfn.Pass(
        scope,
        "GivenUp",
        parameters={
            "problem": sfn.JsonPath.format(
                "shard {}: {}, see the log of Backfill",
                sfn.JsonPath.string_at("$.shard"),
                sfn.JsonPath.string_at("$.failed.Error"),
            ),
        },
    )
    advance.add_catch(given_up, errors=[sfn.Errors.ALL], result_path="$.failed")
    return advance.next(
        sfn.Choice(scope, "IsOver")
        .when(sfn.Condition.boolean_equals("$.over", True), over)
        .otherwise(wait.next(advance))
    )


def _call(
    scope: Construct, name: str, made: lambda_.Function, parameters: Mapping[str, str] | None = None
) -> sfn.CustomState:
    """A state that calls the function with `parameters`, or with what it is handed itself; its output is the answer."""
    call = sfn.CustomState(
        scope,
        name,
        state_json={
            "Type": "Task",
            "Resource": made.function_arn,
            **({"Parameters": dict(parameters)} if parameters else {}),
        },
    )
    # What is no request for a backfill that is there, no try makes one.
    call.add_retry(errors=["EventInvalid"], max_attempts=0)
    call.add_retry(
        errors=[sfn.Errors.ALL],
        interval=_FIRST_PAUSE,
        backoff_rate=2,
        max_delay=_LONGEST_PAUSE,
        max_attempts=_TRIES,
    )
    return call


def _acknowledge(machine: sfn.StateMachine) -> None:
    """Tell cdk-nag why there is neither a log nor a trace, and what the wildcards of the machine's policies are."""
    reasons = {
        "AwsSolutions-SF1": "Step Functions keeps the events of every execution for 90 days; what became of each shard "
        "is in the table, and in the log of Backfill.",
        "AwsSolutions-SF2": "It calls one function, step by step, which logs each of them.",
    }
    stack, resource = cdk.Stack.of(machine), machine.node.default_child
    assert isinstance(resource, sfn.CfnStateMachine)
    name = json.dumps(
        {"Fn::Select": [6, {"Fn::Split": [":", {"Ref": stack.resolve(resource.logical_id)}]}]}, separators=(",", ":")
    )
    executions = f"arn:<AWS::Partition>:states:<AWS::Region>:<AWS::AccountId>:execution:{name}"
    own = "A Distributed Map looks at, stops and redrives executions of its own machine, which have any name."
    reasons |= {f"AwsSolutions-IAM5[Resource::{executions}{names}]": own for names in (":*", "/*:*")}
    for rule, reason in reasons.items():
        cdk.Validations.of(machine).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))
