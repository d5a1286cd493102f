"""Who uses the deployed stacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from neve_cli.main import app
from tests.deployed import Stacks, policy

TRUST = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}


@pytest.fixture(scope="session")
def operator(stacks: Stacks) -> dict[str, str]:
    """The environment of somebody who has the policies NeveObserver and NeveOperator, and nothing else."""
    session = stacks.cloud.session()
    iam = session.client("iam")
    role = iam.create_role(RoleName="Operator", AssumeRolePolicyDocument=policy(TRUST))["Role"]["Arn"]
    for name in ("NeveObserverPolicy", "NeveOperatorPolicy"):
        iam.attach_role_policy(RoleName="Operator", PolicyArn=stacks.outputs[name])
    given = session.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return {
        **stacks.cloud.environment(),
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


@pytest.fixture(scope="module")
def attached(stacks: Stacks) -> Iterator[None]:
    """The uploads bucket tells CopyUpload what comes; other tests put there what no function is to touch."""
    bucket = stacks.outputs["UploadsBucket"]
    stacks.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    neve(stacks, "uploads", "attach", "--yes")
    yield
    neve(stacks, "uploads", "detach")


def neve(stacks: Stacks, *words: str) -> None:
    """Run a command that has to end well."""
    told = CliRunner().invoke(app, list(words), env=stacks.cloud.environment())
    assert told.exit_code == 0, told.output
