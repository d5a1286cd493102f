"""Promises of the application as a whole: cdk-nag's checks, outputs, names, and synthesis without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import aws_cdk as cdk
import pytest

from app import PROJECT, build, synthesize
from neve_cli.stack import STACKS
from tests.infra.templates import BAIT, Templates
from tests.infra.test_functions import DESTINATIONS, PROOF_SETTINGS, RESTORE_SETTINGS, SERVE_SETTINGS
from tests.infra.test_operations import SECOND_DEPLOYMENT

# Put before everything else on the path of the child process: who asks for a connection is refused.
NO_NETWORK = """
import socket

def refuse(*_arguments, **_options):
    raise OSError("this test has no network")

socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
"""


@pytest.mark.parametrize(
    "settings",
    [{}, RESTORE_SETTINGS, PROOF_SETTINGS, SERVE_SETTINGS],
    ids=["defaults", "destinations", "proof", "serving"],
)
def test_cdk_nag_finds_nothing_that_is_not_acknowledged(
    synthesized: Callable[..., Templates], settings: dict[str, str]
) -> None:
    templates = synthesized(**settings)
    assert any("AwsSolutions-SQS4" in found for found in templates.violations), "the checks did not run"
    assert [found for found in templates.violations if f" at {BAIT}/" not in found] == []


def test_the_outputs_are_called_as_the_command_expects_them(templates: Templates) -> None:
    def behind(name: str) -> dict[str, str]:
        return {f"{name}Queue": f"{name}Queue", f"{name}DeadLetterQueue": f"{name}DeadLetterQueue"}

    assert templates.outputs("neve-storage") == {
        **{
            name: name
            for name in (
                "ContentBucket",
                "UploadsBucket",
                "ArchiveBucket",
                "FilesTable",
                "ArchivesTable",
                "ParkedTable",
                "RestoresTable",
                "AuditsTable",
                "PointersTable",
                "OutboxTable",
                "BackfillsTable",
                "DrillBucket",
                "ThawedTopic",
            )
        },
        **behind("Uploads"),
        "AlertsTopic": "Alerts",
        **behind("Collect"),
    }
    assert templates.outputs("neve-archive") == {
        **behind("Bundles"),
        **behind("Large"),
        **behind("Sweep"),
        **behind("Backfill"),
        **behind("BackfillBundles"),
        **behind("BackfillLarge"),
        "BackfillFunction": "Backfill",
        "BackfillStateMachine": "BackfillStateMachine",
        "CollectBackfillFunction": "CollectBackfill",
        "WriteBackfillFunction": "WriteBackfill",
        "CopyBackfillFunction": "CopyBackfill",
        "CollectFunction": "Collect",
        "WriteArchiveFunction": "WriteArchive",
        "CopyLargeFunction": "CopyLarge",
        "SweepFunction": "Sweep",
        "StorageClass": "GLACIER",
        "TargetBytes": "26214400",
        "MaxAgeSeconds": "20",
        "BackfillWriteConcurrency": "10",
    }
    assert templates.outputs("neve-restore") == {
        **behind("RestoreRequests"),
        **behind("Extract"),
        **behind("SweepRestores"),
        "PlanRestoreFunction": "PlanRestore",
        "ExtractFunction": "Extract",
        "SweepRestoresFunction": "SweepRestores",
        "RestoredTopic": "RestoredTopic",
        "DestinationBuckets": "ContentBucket UploadsBucket",
        "SiteUrls": "-",
        "UsdPerDay": "100",
    }
    assert templates.outputs("neve-audit") == {
        **behind("Audits"),
        **behind("VerifyAudits"),
        **behind("Drills"),
        **behind("Reconciles"),
        "StartAuditFunction": "StartAudit",
        "VerifyAuditFunction": "VerifyAudit",
        "DrillFunction": "Drill",
        "ReconcileFunction": "Reconcile",
        "AuditEveryHours": "1",
        "AuditHorizonDays": "365",
        "AuditBudgetPercent": "10",
        "AuditBudgetUsd": "100",
        "AuditTier": "bulk",
    }
    assert templates.outputs("neve-offload") == {
        **behind("Release"),
        **behind("Announcements"),
        **behind("Relay"),
        "CopyUploadFunction": "CopyUpload",
        "ReleaseUploadFunction": "ReleaseUpload",
        "RelayFunction": "Relay",
        "KeyLayout": "as-is",
        "AtticDays": "30",
    }
    assert templates.outputs("neve-serve") == {
        "ResolveFunction": "Resolve",
        "ResolverUrl": "Resolve/FunctionUrl",
        "ContentCdn": "https://Content",
        "ContentDistribution": "Content",
        "SiteCdn": "https://Site",
    }
    assert templates.outputs("neve-operations") == {
        "NeveObserverPolicy": "NeveObserver",
        "NeveOperatorPolicy": "NeveOperator",
        "NeveRecoveryPolicy": "NeveRecovery",
        "NeveEdgePolicy": "NeveEdge",
    }


def test_the_command_is_told_where_restores_may_go_and_what_urls_mean(synthesized: Callable[..., Templates]) -> None:
    templates = synthesized(**RESTORE_SETTINGS)
    outputs = templates.outputs("neve-restore") | templates.outputs("neve-storage")
    names = ("DestinationBuckets", "ContentBucket", "UploadsBucket", "SiteUrls", "UsdPerDay")
    assert {name: outputs[name] for name in names} == {
        "DestinationBuckets": DESTINATIONS,
        "ContentBucket": "photos",
        "UploadsBucket": "uploads",
        "SiteUrls": "https://www.example.org/media/=files/,https://example.org/",
        "UsdPerDay": "0",
    }


def test_the_command_is_told_how_much_is_audited(synthesized: Callable[..., Templates]) -> None:
    outputs = synthesized(**PROOF_SETTINGS).outputs("neve-audit")
    assert {name: value for name, value in outputs.items() if name.startswith("Audit") and "Queue" not in name} == {
        "AuditEveryHours": "2",
        "AuditHorizonDays": "90",
        "AuditBudgetPercent": "40",
        "AuditBudgetUsd": "7",
        "AuditTier": "standard",
    }


def test_a_second_deployment_in_one_account_has_a_name_of_its_own(synthesized: Callable[..., Templates]) -> None:
    stacks = set(synthesized(**SECOND_DEPLOYMENT).documents)
    assert stacks == {f"press-2-{part}" for part in (*STACKS, "operations")}


def test_the_command_is_told_where_files_are_served(synthesized: Callable[..., Templates]) -> None:
    templates = synthesized(**SERVE_SETTINGS)
    outputs = templates.outputs("neve-offload") | templates.outputs("neve-serve")
    told = {name: outputs[name] for name in ("KeyLayout", "AtticDays", "ContentCdn")}
    assert told == {
        "KeyLayout": "hashed",
        "AtticDays": "365",
        "ContentCdn": "https://img1.example.com https://img2.example.com",
    }


@pytest.mark.parametrize(
    "kind", ["AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::Lambda::Function"]
)
def test_cdk_names_things(templates: Templates, kind: str) -> None:
    for name, resource in templates.of_kind(kind).items():
        assert not {"BucketName", "TableName", "QueueName", "TopicName", "FunctionName"} & set(resource.properties), (
            name
        )


def test_synthesis_needs_no_network_no_credentials_and_no_git_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home, commands, blocked = (tmp_path / name for name in ("home", "commands", "blocked"))
    for folder in (home, commands, blocked):
        folder.mkdir()
    node = shutil.which("node")
    assert node, "CDK needs node"
    (commands / "node").symlink_to(node)
    (blocked / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {
        "HOME": str(home),
        "PATH": str(commands),
        "PYTHONPATH": str(blocked),
        "TMPDIR": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
        # Where jsii unpacks CDK, which takes half a minute on a slow machine: in HOME unless it is told otherwise.
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache"),
    }
    finished = subprocess.run(
        [sys.executable, "-B", str(PROJECT / "app.py")],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert list(home.iterdir()) == []


def test_settings_that_cannot_be_used_end_the_synthesis_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    def compose(app: cdk.App) -> None:
        for key, value in {"target_mib": "0", "max_age_s": "1000", "storage_class": "GLACIR"}.items():
            app.node.set_context(key, value)
        build(app)

    assert synthesize(compose) == 1
    told = capsys.readouterr()
    assert told.out == ""
    for part in ("3 settings", "target_mib=0", "max_age_s=1000", "1 to 900", "storage_class=GLACIR", "DEEP_ARCHIVE"):
        assert part in told.err


def test_mypy_reads_every_service_of_the_cdk_that_the_stacks_use() -> None:
    """It skips the others, and would take what it skips for anything."""
    overrides = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    read = {name for override in overrides if override.get("follow_imports") == "normal" for name in override["module"]}
    sources = [PROJECT / "app.py", *(PROJECT / "stacks").glob("*.py"), *(PROJECT / "tests").rglob("*.py")]
    imports = re.compile(r"^from aws_cdk(?:\.(\w+))? import (\w+)", re.MULTILINE)
    used = {module or name for source in sources for module, name in imports.findall(source.read_text())}
    assert "aws_s3" in used
    assert {f"aws_cdk.{name}" for name in used} <= read
