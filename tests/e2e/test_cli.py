"""The `neve` command against the deployed stacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from neve_cli.main import app
from neve_local.cloud import PROJECT, LocalCloud

KEY = "cli/a b+c/é\nnew line\x1b[2J"
TRUST = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}


def neve(cloud: LocalCloud, *words: str, **variables: str) -> Result:
    return CliRunner().invoke(app, list(words), env={**cloud.environment(), **variables})


@pytest.fixture(scope="module")
def archived(cloud: LocalCloud) -> dict[str, Any]:
    """What `neve find --json` says of an upload, once it is archived."""
    cloud.session().client("s3").put_object(Bucket=cloud.outputs()["ContentBucket"], Key=KEY, Body=b"bytes")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = neve(cloud, "find", KEY, "--json")
        if found.exit_code == 0:
            told: dict[str, Any] = json.loads(found.stdout)
            return told
        time.sleep(0.5)
    raise AssertionError("it is not archived within a minute")


def test_a_file_is_found_in_its_archive_by_its_exact_key(cloud: LocalCloud, archived: dict[str, Any]) -> None:
    assert archived["key"] == KEY
    (version,) = archived["versions"]
    assert version["size_bytes"] == 5
    shown = json.loads(neve(cloud, "archives", str(version["archive"]), "--json").stdout)
    assert {"key": KEY, "offset_bytes": version["offset_bytes"]}.items() <= shown["members"][version["number"]].items()
    listed = neve(cloud, "ls", "cli/a b+c/").stdout
    assert listed.count("\n") == 1
    assert "\\nnew line\\x1b[2J" in listed


def test_status_reads_every_queue_and_table(cloud: LocalCloud, archived: dict[str, Any]) -> None:
    told = json.loads(neve(cloud, "status", "--json").stdout)
    assert told["totals"]["files"] >= 1
    assert told["last_serial"] >= archived["versions"][0]["archive"]
    assert len(told["queues"]) == 18
    assert json.loads(neve(cloud, "parked", "--json").stdout) is not None


def test_whoever_stops_reading_early_sees_no_error(cloud: LocalCloud, archived: dict[str, Any]) -> None:
    variables = {**os.environ, **cloud.environment(), "PYTHONPATH": f"{PROJECT}:{PROJECT / 'lambdas'}"}
    command = f"{sys.executable} -c 'from neve_cli.main import main; main()' ls --json | head -c 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=variables)
    assert (ended.stdout, ended.stderr) == ("{", "")


def test_credentials_without_rights_are_told_with_a_remedy(cloud: LocalCloud) -> None:
    session = cloud.session()
    policy = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
    session.client("iam").create_role(RoleName="Nobody", AssumeRolePolicyDocument=policy)
    role = "arn:aws:iam::000000000000:role/Nobody"
    given = session.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    refused = neve(
        cloud,
        "status",
        AWS_ACCESS_KEY_ID=given["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=given["SecretAccessKey"],
        AWS_SESSION_TOKEN=given["SessionToken"],
    )
    assert refused.exit_code == 3
    assert "have the action granted" in refused.stderr
