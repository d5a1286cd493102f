"""How a stack tells its names to the command and the local cloud."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct


def output(stack: cdk.Stack, name: str, value: str) -> None:
    """Make `value` the stack's output `name`, exactly so called.

    Each has a scope of its own, since the bucket of output ContentBucket is called ContentBucket too.
    """
    cdk.CfnOutput(Construct(stack, f"Output{name}"), name, value=value).override_logical_id(name)
