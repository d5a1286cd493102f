"""The same stacks as app.py, without what the local cloud cannot evaluate, and on the scale of a laptop.

Run by `cdk` as `python -m neve_local.app` from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import IConstruct

from app import build, synthesize
from neve_local.bridges import BridgeBroken

UNEVALUATED = "DenyPutWithoutIfNoneMatch"


def without_statement(document: dict[str, Any], sid: str) -> dict[str, Any]:
    """The policy `document` without its statement `sid`."""
    return {**document, "Statement": [each for each in document["Statement"] if each.get("Sid") != sid]}


@jsii.implements(cdk.IAspect)
class PutWithoutCondition:
    """Bridge: takes DenyPutWithoutIfNoneMatch out of bucket policies.

    The local cloud does not know the condition key s3:if-none-match, so it takes it as absent and refuses every PUT.
    The writers still send If-None-Match, and that the statement is there is asserted on the real template.
    """

    def __init__(self) -> None:
        self.removed = 0

    def visit(self, node: IConstruct) -> None:
        """Take the statement out of `node`, if it is a bucket policy that has it."""
        if not isinstance(node, s3.CfnBucketPolicy):
            return
        document = cdk.Stack.of(node).resolve(node.policy_document)
        remaining = without_statement(document, UNEVALUATED)
        if remaining != document:
            self.removed += 1
            node.policy_document = remaining


@jsii.implements(cdk.IAspect)
class AlarmOnFirstMetric:
    """Bridge: has an alarm on an expression look at the first of its metrics alone.

    The local cloud refuses to make an alarm on an expression, and evaluates no alarm at all. The expression is asserted
    on the real template.
    """

    def visit(self, node: IConstruct) -> None:
        """Take the expression out of `node`, if it is an alarm on one."""
        if not isinstance(node, cloudwatch.CfnAlarm) or node.metrics is None:
            return
        queries = cdk.Stack.of(node).resolve(node.metrics)
        counted = next(query["metricStat"] for query in queries if "metricStat" in query)
        node.metrics = None
        node.metric_name = counted["metric"]["metricName"]
        node.namespace = counted["metric"]["namespace"]
        node.period, node.statistic = counted["period"], counted["stat"]


MOST_ENVIRONMENTS = 4
"""Of one function. On a laptop each is a process of 60 MB whose start takes a second of a processor: twenty of them
beside each other get less done than four."""


@jsii.implements(cdk.IAspect)
class FewEnvironments:
    """Bridge: has no queue start more of a function's environments than a laptop can use."""

    def visit(self, node: IConstruct) -> None:
        """Lower the limit of `node`, if it is a mapping with a higher one."""
        if not isinstance(node, lambda_.CfnEventSourceMapping) or node.scaling_config is None:
            return
        given = cdk.Stack.of(node).resolve(node.scaling_config)["maximumConcurrency"]
        node.scaling_config = lambda_.CfnEventSourceMapping.ScalingConfigProperty(
            maximum_concurrency=min(int(given), MOST_ENVIRONMENTS)
        )


def build_local(app: cdk.App) -> PutWithoutCondition:
    """Put the stacks into `app` with the bridges over them; the one that has to find something to take out.

    They act when `app` is synthesized.
    """
    build(app)
    bridge = PutWithoutCondition()
    cdk.Aspects.of(app).add(bridge)
    cdk.Aspects.of(app).add(AlarmOnFirstMetric())
    cdk.Aspects.of(app).add(FewEnvironments())
    return bridge


def main() -> int:
    """Synthesize. Raises BridgeBroken if there was nothing to take out: then this module is out of date."""
    bridges: list[PutWithoutCondition] = []
    status = synthesize(lambda app: bridges.append(build_local(app)))
    if status == 0 and not any(bridge.removed for bridge in bridges):
        raise BridgeBroken(f"No bucket policy has a statement {UNEVALUATED}; neve_local/app.py bridges over it.")
    return status


if __name__ == "__main__":
    sys.exit(main())
