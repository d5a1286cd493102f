"""One local cloud with the stacks deployed, for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neve_local.cloud import LocalCloud
from tests.deployed import OTHER_BUCKET, UPLOADS_BUCKET, Stacks, look_at

# Small bundles, so that a few files fill several, and short timeouts, so that a killed function's messages come back
# within a test's patience: visibility follows the timeout (6 x 10 s).
SETTINGS: dict[str, str | int | float] = {
    "target_mib": 4,
    "max_age_s": 5,
    "collect_timeout_s": 10,
    "write_timeout_s": 10,
    "copy_timeout_s": 10,
    "sweep_timeout_s": 10,
    "plan_timeout_s": 10,
    "extract_timeout_s": 10,
    "restore_buckets": OTHER_BUCKET,
    "uploads_bucket": UPLOADS_BUCKET,
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what needs the local cloud on one worker of pytest-xdist: a second cloud would only cost time."""
    for item in items:
        if {"e2e", "chaos"} & set(item.path.parts):
            item.add_marker(pytest.mark.cloud)
            item.add_marker(pytest.mark.xdist_group("cloud"))


@pytest.fixture(scope="session")
def settings() -> dict[str, str | int | float]:
    """The settings that the stacks are deployed with."""
    return SETTINGS


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """The running local cloud, the stacks deployed with SETTINGS, and the buckets that these name."""
    with LocalCloud(tmp_path_factory.mktemp("local") / "cloud", port=0, tied=True) as running:
        s3 = running.session().client("s3")
        for bucket in (OTHER_BUCKET, UPLOADS_BUCKET):
            s3.create_bucket(Bucket=bucket)
        running.deploy(SETTINGS)
        yield running
    running.wipe()


@pytest.fixture(scope="session")
def stacks(cloud: LocalCloud) -> Stacks:
    """What is deployed there."""
    return look_at(cloud)
