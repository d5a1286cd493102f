"""Synthesizes the stacks once for all tests here, with cdk-nag's checks and without packing the asset."""

from __future__ import annotations

import functools
from collections.abc import Callable

import aws_cdk as cdk
import pytest
from aws_cdk import aws_sqs as sqs
from cdk_nag import AwsSolutionsChecks

import app as neve_app
from tests.infra.templates import BAIT, Templates, read_templates


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "package_index: needs the package index, unless .neve/asset-cache is warm")


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Templates]:
    """Templates for the given settings, as in `synthesized(max_age_s="30")`; each set is synthesized once."""

    @functools.cache
    def synthesize(**settings: str) -> Templates:
        folder = tmp_path_factory.mktemp("assembly")
        context = {**neve_app.context_for_templates(), "aws:cdk:enable-path-metadata": True, **settings}
        app = cdk.App(context=context, outdir=str(folder))
        neve_app.build(app)
        sqs.Queue(cdk.Stack(app, BAIT), "QueueWithFaults")
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
        # The templates are written before the findings are told; those are in the report, and have a test of their own.
        with pytest.raises(RuntimeError, match="ValidationFailed"):
            app.synth()
        return read_templates(folder)

    return synthesize


@pytest.fixture(scope="session")
def templates(synthesized: Callable[..., Templates]) -> Templates:
    """The templates for the default settings."""
    return synthesized()
