"""One local cloud with the stacks deployed, for all tests that need one."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import typer.testing
from botocore.loaders import JSONFileLoader
from xdist.scheduler import LoadScopeScheduling

from neve_local.cdn import ContentCdn
from neve_local.cloud import LocalCloud
from tests.deployed import OTHER_BUCKET, UPLOADS_BUCKET, Stacks, look_at

# Small bundles, so that a few files fill several, and short timeouts, so that a killed function's messages come back
# within a test's patience: visibility follows the timeout (6 x 10 s).
SETTINGS: dict[str, str | int | float] = {
    "target_mib": 4,
    "max_age_s": 5,
    "collect_window_s": 1,
    "collect_timeout_s": 10,
    "write_timeout_s": 10,
    "copy_timeout_s": 10,
    "sweep_timeout_s": 10,
    "plan_timeout_s": 10,
    "extract_timeout_s": 10,
    "audit_timeout_s": 15,  # its first start on a busy machine takes 8
    "drill_timeout_s": 60,  # Drill begins another file only if 30 s are left
    "reconcile_timeout_s": 20,
    "uploads_timeout_s": 20,  # ten copies, the first by a function that just starts, on a busy machine
    "release_timeout_s": 10,
    "relay_timeout_s": 10,
    "release_after_s": 5,
    "upload_url_s": 4,
    "restore_buckets": OTHER_BUCKET,
    "uploads_bucket": UPLOADS_BUCKET,
}


ON_THE_CLOUD = ("tests/e2e/", "tests/chaos/")
TOGETHER = ("tests/e2e/test_local_cloud.py", *ON_THE_CLOUD, "tests/infra/")
"""What shares something that takes long to make."""

FIRST = "gw0"
"""The worker that gets the first tests: the chaos tests, and with them all that are on the cloud."""

UNMEASURED = re.compile(r"test_(races|repair|cli|demo|recover_manifests|(bench|local)_\w+|\w+_(cli|flows?|mended))\.py")
"""Unit tests that run whole flows, in thousands of orders, or commands: the domain has to be covered by the others."""


class CloudTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Keeps what needs the local cloud on one worker, in its order: a second cloud would only cost time.

    What needs one with nothing deployed, or its own, is kept on another, and so is what looks at synthesized templates.
    `--dist loadgroup` is meant for this, but pytest-xdist 3.8 does not group under pytest 9.2.
    """

    @property
    def nodes(self) -> list[Any]:
        """The workers: work is handed out in this order."""
        return sorted(super().nodes, key=lambda node: node.gateway.id)

    def _split_scope(self, nodeid: str) -> str:
        together = next((each for each in TOGETHER if nodeid.startswith(each)), nodeid)
        return "cloud" if together in ON_THE_CLOUD else together


def pytest_configure(config: pytest.Config) -> None:
    """Have the worker with the local cloud go first; read once what each client and each command is made from."""
    if getattr(config, "workerinput", {}).get("workerid", FIRST) != FIRST:
        os.nice(10)  # a function of the cloud that starts has seconds, all else has time
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")  # how long an example takes says who else is at work
    anew = JSONFileLoader.load_file
    once = functools.cache(JSONFileLoader().load_file)

    def load_file(self: JSONFileLoader, file_path: str) -> Any:
        # S3's clients change the paths in their model; moto, which reads the same model, would find no operation by it.
        return anew(self, file_path) if "/s3/" in file_path else once(file_path)

    setattr(JSONFileLoader, "load_file", load_file)  # noqa: B010  # mypy knows the method as final
    typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> CloudTogether:
    """How pytest-xdist hands out the tests: in their order, in which those on the cloud come first."""
    config.option.loadscopereorder = False
    return CloudTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the local cloud, and what need not be measured."""
    for item in items:
        if item.nodeid.startswith(ON_THE_CLOUD):
            item.add_marker(pytest.mark.cloud)
        if not item.nodeid.startswith("tests/unit/") or UNMEASURED.match(item.path.name):
            item.add_marker(pytest.mark.no_cover)  # the tracer of pytest-cov makes all of them take twice as long


@pytest.fixture(scope="session")
def cdn() -> Iterator[ContentCdn]:
    """The double of the distribution Content, to which Resolve redirects. Nothing is deployed yet when it starts."""
    with ContentCdn().running() as running:
        yield running


@pytest.fixture(scope="session")
def settings(cdn: ContentCdn) -> dict[str, str | int | float]:
    """What the stacks are deployed with; who deploys them again with the same changes nothing."""
    return {**SETTINGS, "cdn_urls": cdn.url}


@pytest.fixture(scope="session")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, cdn: ContentCdn, settings: dict[str, str | int | float]
) -> Iterator[LocalCloud]:
    """The running local cloud, the stacks deployed with `settings`, and the buckets that these name."""
    with LocalCloud(tmp_path_factory.mktemp("local") / "cloud", port=0, tied=True) as running:
        s3 = running.session().client("s3")
        for bucket in (OTHER_BUCKET, UPLOADS_BUCKET):
            s3.create_bucket(Bucket=bucket)
        outputs = running.deploy(settings)
        cdn.serve(s3, [outputs["ContentBucket"], outputs["UploadsBucket"]])
        yield running
    running.wipe()


@pytest.fixture(scope="session")
def stacks(cloud: LocalCloud) -> Stacks:
    """What is deployed there."""
    return look_at(cloud)
