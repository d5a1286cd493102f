"""What the stacks' outputs name, also for a host that is cut off."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from neve.aws.faults import code, passing, status
from neve.errors import SettingInvalid
from neve_edge.settings import Settings

if TYPE_CHECKING:
    import boto3
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

_LOG = logging.getLogger("neve.edge")

PARTS = ("storage", "offload")


@dataclass(frozen=True)
class Deployed:
    """The stacks that a host's settings name. Clients are made on first use, for `settings.parallel` threads."""

    settings: Settings

    @cached_property
    def session(self) -> boto3.Session:
        """The session: credentials are the environment's, the host's role, or those of ~/.aws."""
        import boto3  # noqa: PLC0415  # half a second that an application's announcement need not take

        region = self.settings.region or os.environ.get("AWS_REGION")
        return boto3.Session(region_name=region or None)

    @cached_property
    def s3(self) -> S3Client:
        """The S3 client."""
        return self.session.client("s3", config=self._config)

    @cached_property
    def sqs(self) -> SQSClient:
        """The SQS client."""
        return self.session.client("sqs", config=self.brief)

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """The DynamoDB client."""
        return self.session.client("dynamodb", config=self._config)

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """What the stacks name. If they cannot be asked now, it is what they named the last time.

        Raises SettingInvalid if there are no such stacks, and botocore's errors if they were never asked.
        """
        settings = self.settings
        kept = settings.journal.with_name(f"{settings.journal.name}-stack")
        try:
            outputs: dict[str, str] = {}
            for part in PARTS:
                outputs |= self._described(f"{settings.stack}-{part}")
        except (ClientError, BotoCoreError) as error:
            known = _read(kept)
            if known.get("stack") != settings.stack or not _passes(error):
                raise
            _LOG.warning("the stacks cannot be asked, going by what they said before why=%r", str(error))
            return known
        kept.parent.mkdir(parents=True, exist_ok=True)
        part_path = kept.with_name(f"{kept.name}-{os.getpid()}")
        part_path.write_text(json.dumps(outputs | {"stack": settings.stack}))
        part_path.replace(kept)
        return outputs

    def _described(self, name: str) -> dict[str, str]:
        client = self.session.client("cloudformation", config=self.brief)
        try:
            answer = client.describe_stacks(StackName=name)
        except ClientError as error:
            if "does not exist" in str(error):
                raise SettingInvalid(
                    f"stack: there is no stack {name} in {client.meta.region_name}: set `stack` and `region` in "
                    "edge.toml (or NEVE_STACK and AWS_REGION), or deploy it"
                ) from error
            raise
        return {each["OutputKey"]: each["OutputValue"] for each in answer["Stacks"][0].get("Outputs", [])}

    @property
    def brief(self) -> Any:
        """For what an application may wait for, and what need not succeed: seconds to connect, and two tries.

        What SQS does not take goes to the outbox; what the stacks' outputs are is known from the last time.
        """
        from botocore.config import Config  # noqa: PLC0415

        return self._config.merge(
            Config(connect_timeout=2, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 2})
        )

    @cached_property
    def _config(self) -> Any:
        from botocore.config import Config  # noqa: PLC0415

        return Config(
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=2 * self.settings.parallel + 16,
            retries={"mode": "standard", "total_max_attempts": 5},
            tcp_keepalive=True,
        )


def _passes(error: Exception) -> bool:
    return not isinstance(error, ClientError) or passing(code(error)) or status(error) >= 500


def _read(path: Path) -> Mapping[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
