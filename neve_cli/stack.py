"""Finds the deployed stacks by their outputs, and talks to what they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from neve.errors import NeveError

if TYPE_CHECKING:
    import boto3
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient
    from types_boto3_stepfunctions import SFNClient

    from neve.aws.archive_listing import S3ArchiveListing
    from neve.aws.archive_store import S3ArchiveStore
    from neve.aws.archives_table import DynamoArchives, DynamoBundles
    from neve.aws.audits_table import DynamoAudits
    from neve.aws.backfills_table import DynamoBackfills
    from neve.aws.drills_table import DynamoDrills
    from neve.aws.executions import StateMachine
    from neve.aws.files_table import DynamoFiles
    from neve.aws.glacier import S3ArchiveReader, S3Glacier
    from neve.aws.outbox_table import DynamoOutbox
    from neve.aws.parked_table import DynamoParkingLot
    from neve.aws.queue import SqsQueue
    from neve.aws.reconciles_table import DynamoReconciles
    from neve.aws.restores_table import DynamoRestores
    from neve.aws.thaws_table import DynamoThaws
    from neve.aws.topic import SnsTopic
    from neve.domain.selection import Places

STACKS = ("storage", "archive", "restore", "audit", "offload", "serve")
"""Those whose outputs the command needs; `operations` has none of them."""

CONNECTIONS = 40
"""As many as the threads that look up what is to be restored."""


class StackNotFound(NeveError):
    """There is no such stack where these credentials lead; the message names the remedy."""


class StackOutdated(NeveError):
    """The stacks lack what the command needs: an older neve deployed them. The message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The deployed stacks called `name`. Clients are made on first use."""

    name: str
    region: str
    session: boto3.Session
    outputs: Mapping[str, str]

    @cached_property
    def s3(self) -> S3Client:
        """The S3 client."""
        return self.session.client("s3", config=_config())

    @cached_property
    def sqs(self) -> SQSClient:
        """The SQS client."""
        return self.session.client("sqs", config=_config())

    @cached_property
    def sns(self) -> SNSClient:
        """The SNS client."""
        return self.session.client("sns", config=_config())

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """The DynamoDB client."""
        return self.session.client("dynamodb", config=_config())

    @cached_property
    def stepfunctions(self) -> SFNClient:
        """The client of Step Functions."""
        return self.session.client("stepfunctions", config=_config())

    @cached_property
    def files(self) -> DynamoFiles:
        """The index of files."""
        from neve.aws.files_table import DynamoFiles  # noqa: PLC0415  # --help must not wait for botocore

        return DynamoFiles(self.dynamodb, self.outputs["FilesTable"])

    @property
    def archives(self) -> DynamoArchives:
        """The rows of archives."""
        from neve.aws.archives_table import DynamoArchives  # noqa: PLC0415

        return DynamoArchives(self.dynamodb, self.outputs["ArchivesTable"])

    @property
    def bundles(self) -> DynamoBundles:
        """What is not archived yet."""
        from neve.aws.archives_table import DynamoBundles  # noqa: PLC0415

        return DynamoBundles(self.dynamodb, self.outputs["ArchivesTable"])

    @property
    def parking_lot(self) -> DynamoParkingLot:
        """What is parked."""
        from neve.aws.parked_table import DynamoParkingLot  # noqa: PLC0415

        return DynamoParkingLot(self.dynamodb, self.outputs["ParkedTable"])

    @property
    def outbox(self) -> DynamoOutbox:
        """What waits to be sent."""
        from neve.aws.outbox_table import DynamoOutbox  # noqa: PLC0415

        return DynamoOutbox(self.dynamodb, self.outputs["OutboxTable"])

    @property
    def store(self) -> S3ArchiveStore:
        """The archive bucket."""
        from neve.aws.archive_store import S3ArchiveStore  # noqa: PLC0415

        outputs = self.outputs
        return S3ArchiveStore(self.s3, outputs["ArchiveBucket"], outputs["ContentBucket"], outputs["StorageClass"])

    @property
    def listing(self) -> S3ArchiveListing:
        """What stands in the archive bucket."""
        from neve.aws.archive_listing import S3ArchiveListing  # noqa: PLC0415

        return S3ArchiveListing(self.s3, self.outputs["ArchiveBucket"])

    @property
    def glacier(self) -> S3Glacier:
        """S3's thaws."""
        from neve.aws.glacier import S3Glacier  # noqa: PLC0415

        return S3Glacier(self.s3, self.outputs["ArchiveBucket"])

    @property
    def reader(self) -> S3ArchiveReader:
        """The bytes of archives that are thawed."""
        from neve.aws.glacier import S3ArchiveReader  # noqa: PLC0415

        return S3ArchiveReader(self.s3, self.outputs["ArchiveBucket"])

    @cached_property
    def thaws(self) -> DynamoThaws:
        """The thaws of archives."""
        from neve.aws.thaws_table import DynamoThaws  # noqa: PLC0415

        return DynamoThaws(self.dynamodb, self.outputs["RestoresTable"])

    @cached_property
    def restores(self) -> DynamoRestores:
        """Jobs, and what waits for archives."""
        from neve.aws.restores_table import DynamoRestores  # noqa: PLC0415

        return DynamoRestores(self.dynamodb, self.outputs["RestoresTable"])

    @cached_property
    def requests_queue(self) -> SqsQueue:
        """The queue of PlanRestore."""
        from neve.aws.queue import SqsQueue  # noqa: PLC0415

        return SqsQueue(self.sqs, self.outputs["RestoreRequestsQueue"])

    @cached_property
    def audits(self) -> DynamoAudits:
        """Runs of audits, and how they ended."""
        from neve.aws.audits_table import DynamoAudits  # noqa: PLC0415

        return DynamoAudits(self.dynamodb, self.outputs["AuditsTable"])

    @property
    def audits_queue(self) -> SqsQueue:
        """The queue of StartAudit."""
        from neve.aws.queue import SqsQueue  # noqa: PLC0415

        return SqsQueue(self.sqs, self.outputs["AuditsQueue"])

    @cached_property
    def drills(self) -> DynamoDrills:
        """Drills, and what came of them."""
        from neve.aws.drills_table import DynamoDrills  # noqa: PLC0415

        return DynamoDrills(self.dynamodb, self.outputs["AuditsTable"])

    @property
    def drills_queue(self) -> SqsQueue:
        """The queue of Drill."""
        from neve.aws.queue import SqsQueue  # noqa: PLC0415

        return SqsQueue(self.sqs, self.outputs["DrillsQueue"])

    @cached_property
    def reconciles(self) -> DynamoReconciles:
        """Passes of reconcile, and what they found."""
        from neve.aws.reconciles_table import DynamoReconciles  # noqa: PLC0415

        return DynamoReconciles(self.dynamodb, self.outputs["AuditsTable"])

    @property
    def reconciles_queue(self) -> SqsQueue:
        """The queue of Reconcile."""
        from neve.aws.queue import SqsQueue  # noqa: PLC0415

        return SqsQueue(self.sqs, self.outputs["ReconcilesQueue"])

    @cached_property
    def backfills(self) -> DynamoBackfills:
        """Backfills, and how far they are."""
        from neve.aws.backfills_table import DynamoBackfills  # noqa: PLC0415

        return DynamoBackfills(self.dynamodb, self.outputs["BackfillsTable"])

    @cached_property
    def backfill_machine(self) -> StateMachine:
        """The state machine that works on backfills."""
        from neve.aws.executions import StateMachine  # noqa: PLC0415

        return StateMachine(self.stepfunctions, self.outputs["BackfillStateMachine"])

    @property
    def restored_topic(self) -> SnsTopic:
        """The topic that is told of finished jobs."""
        from neve.aws.topic import SnsTopic  # noqa: PLC0415

        return SnsTopic(self.sns, self.outputs["RestoredTopic"])

    @property
    def places(self) -> Places:
        """Where restores may come from and go."""
        from neve.domain.layout import Layout  # noqa: PLC0415
        from neve.domain.selection import Places, parse_site_urls  # noqa: PLC0415

        return Places(
            content_bucket=self.outputs["ContentBucket"],
            destination_buckets=frozenset(self.outputs["DestinationBuckets"].split()),
            uploads_bucket=self.outputs["UploadsBucket"],
            site_urls=parse_site_urls(self.outputs["SiteUrls"]),
            layout=Layout(self.outputs.get("KeyLayout", Layout.AS_IS)),
        )

    @property
    def usd_per_day(self) -> float:
        """What thaws may cost in a day; 0 is no cap."""
        return float(self.outputs["UsdPerDay"])


def watched_session() -> boto3.Session:
    """The session that the environment leads to; the ledger counts what its clients send (`neve --requests`)."""
    import boto3  # noqa: PLC0415  # half a second that --help need not take

    from neve.aws.ledger import LEDGER  # noqa: PLC0415

    session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
    LEDGER.watch_all(session)
    return session


def find(name: str) -> Stack:
    """The stacks called `name` in the account and region that the environment leads to.

    Raises StackNotFound, and botocore's errors, which neve_cli.failures explains.
    """
    session = watched_session()
    cloudformation = session.client("cloudformation", config=_config())
    outputs: dict[str, str] = {}
    for part in STACKS:
        outputs |= _outputs(cloudformation, f"{name}-{part}", session.region_name)
    return Stack(name=name, region=session.region_name, session=session, outputs=outputs)


def _outputs(cloudformation: Any, stack_name: str, region: str) -> dict[str, str]:
    try:
        answer = cloudformation.describe_stacks(StackName=stack_name)
    except cloudformation.exceptions.ClientError as error:
        if "does not exist" in str(error):
            raise _not_found(stack_name, region) from error
        raise
    outputs = {each["OutputKey"]: each["OutputValue"] for each in answer["Stacks"][0].get("Outputs", [])}
    if not outputs:
        raise StackNotFound(
            f"The stack {stack_name} in {region} is {answer['Stacks'][0]['StackStatus']} and has no outputs yet. "
            "Wait for `cdk deploy` to end, or run it again."
        )
    return outputs


def _not_found(stack_name: str, region: str) -> StackNotFound:
    local = os.environ.get("AWS_ENDPOINT_URL")
    where = f"{region} at {local}" if local else region
    remedy = (
        "Deploy into the local cloud: `neve local up`."
        if local
        else "Is it in another region (AWS_REGION) or account (AWS_PROFILE)? If it is deployed nowhere: "
        '`cdk deploy --all`. For the local cloud: `neve local up`, then eval "$(neve local env)".'
    )
    return StackNotFound(
        f"No stack {stack_name} in {where}. {remedy} If it was deployed under another name: --stack NAME or NEVE_STACK."
    )


def _config() -> Any:
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
