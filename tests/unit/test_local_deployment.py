"""What a deployment into the local cloud is made of, and what it tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer

from neve_cli.local import settings
from neve_local import deployment
from neve_local.cloud import LocalCloud, LocalCloudError, server_environment
from neve_local.deployment import DeploymentFailed, cdk_environment, progress_of, run_logged, source_digest
from neve_local.layout import Layout
from neve_local.processes import processes_of

SOURCES = ("app.py", "cdk.json", "constraints.txt", "neve_local/app.py", "stacks/storage.py", "lambdas/collect.py")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        "app.py",
        "cdk.json",
        "constraints.txt",
        "neve_local/app.py",
        "stacks/storage.py",
        "lambdas/collect.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_the_digest_is_the_same_for_the_same_sources_whatever_was_compiled(project: Path) -> None:
    first = source_digest(project, {"name": "neve"})
    (project / "stacks" / "__pycache__").mkdir()
    (project / "stacks" / "__pycache__" / "storage.cpython-311.pyc").write_bytes(b"compiled")
    assert source_digest(project, {"name": "neve"}) == first


@pytest.mark.parametrize(
    "changed", ["app.py", "cdk.json", "constraints.txt", "stacks/storage.py", "lambdas/collect.py"]
)
def test_the_digest_changes_with_each_source(project: Path, changed: str) -> None:
    first = source_digest(project, {})
    (project / changed).write_text("other")
    assert source_digest(project, {}) != first


def test_the_digest_changes_with_a_setting_but_not_with_their_order(project: Path) -> None:
    first = source_digest(project, {"a": 1, "b": 2})
    assert source_digest(project, {"b": 2, "a": 1}) == first
    assert source_digest(project, {"a": 1, "b": 3}) != first


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("neve-archive: deploying... [2/3]\n", "neve-archive ..."),
        (" ✅  neve-archive\n", "neve-archive: deployed"),
        (" ✅  neve-archive (no changes)\n", "neve-archive: unchanged"),
        ("neve-archive | 3/20 | CREATE_COMPLETE | AWS::SQS::Queue\n", None),
        ("✨  Deployment time: 1.2s\n", None),
        ("", None),
    ],
)
def test_progress_is_one_line_when_a_stack_begins_and_one_when_it_ends(line: str, told: str | None) -> None:
    assert progress_of(line) == told


def test_cdk_sees_the_local_cloud_and_nothing_of_the_hosts_aws_settings() -> None:
    host = {
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "t",
        "CDK_DEFAULT_ACCOUNT": "1",
        "PIP_CERT": "/c",
        "PATH": "/b",
    }
    given = cdk_environment({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, host, folder=Path("/state"))
    assert given["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert given["PIP_CERT"] == "/c"
    assert given["PATH"].endswith(":/b")
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "CDK_DEFAULT_ACCOUNT"} & given.keys()
    assert given["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


def test_the_local_cloud_is_added_to_what_the_host_exempts_from_its_proxy() -> None:
    assert cdk_environment({}, {"NO_PROXY": "inside"}, folder=Path("/s"))["no_proxy"] == "inside,127.0.0.1,localhost"
    assert cdk_environment({}, {}, folder=Path("/s"))["NO_PROXY"] == "127.0.0.1,localhost"


def test_a_failed_command_shows_its_last_lines_and_names_the_log(tmp_path: Path) -> None:
    script = "for i in $(seq 1 100); do echo line $i; done; exit 1"
    with pytest.raises(DeploymentFailed) as failed:
        run_logged(["sh", "-c", script], tmp_path, {}, tmp_path / "log", tell=lambda _: None, say=print)
    assert "line 100" in str(failed.value)
    assert "line 70" not in str(failed.value)
    assert str(tmp_path / "log") in str(failed.value)
    assert (tmp_path / "log").read_text().startswith("line 1\n")


def test_without_the_cdk_command_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFailed, match="make setup"):
        deployment.deploy(
            project=tmp_path,
            layout=Layout(tmp_path),
            environment={},
            place="aws://000000000000/us-east-1",
            context={},
            bootstrapped=False,
            say=print,
        )


def test_the_server_gets_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    variables = server_environment(Layout(Path("/state")), port=4566, tied=False)
    assert not {"AWS_PROFILE", "PYTHONPATH", "NEVE_LOCAL_TIED"} & variables.keys()
    assert variables["AUTH"] == "true"
    assert variables["BIND_HOST"] == "127.0.0.1"
    assert variables["TMPDIR"] == "/state/tmp"


def test_a_cloud_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud")
    assert not cloud.running
    assert not cloud.crashed
    assert not cloud.stop().was_running
    with pytest.raises(LocalCloudError, match="neve local up"):
        _ = cloud.endpoint_url
    with pytest.raises(LocalCloudError, match="neve local up"):
        cloud.environment()


def test_processes_are_known_by_the_folder_in_their_environment(tmp_path: Path) -> None:
    def process(pid: str, *variables: str) -> None:
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "environ").write_bytes(b"".join(variable.encode() + b"\0" for variable in variables))

    process("12", "NEVE_LOCAL_CLOUD=/state")
    process("13", "NEVE_LOCAL_CLOUD=/state", "AWS_LAMBDA_FUNCTION_NAME=neve-Collect")
    process("14", "NEVE_LOCAL_CLOUD=/state2")
    process("15", "OTHER=NEVE_LOCAL_CLOUD=/state")
    process("self", "NEVE_LOCAL_CLOUD=/state")
    process(str(os.getpid()), "NEVE_LOCAL_CLOUD=/state")
    (tmp_path / "16").mkdir()
    found = processes_of(Path("/state"), proc=tmp_path)
    assert [(process.pid, process.function_name) for process in found] == [(12, ""), (13, "neve-Collect")]


def test_settings_are_read_as_key_and_value() -> None:
    assert settings(["target_mib=4", "alert_email=a=b"]) == {"target_mib": "4", "alert_email": "a=b"}
    for wrong in ("target_mib", "=4", ""):
        with pytest.raises(typer.BadParameter):
            settings([wrong])
