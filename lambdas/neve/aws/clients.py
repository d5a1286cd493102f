"""The clients of this process: each made once, on first use, and watched by the ledger."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from neve.aws.ledger import LEDGER

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient
    from types_boto3_ssm import SSMClient

CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=64,  # WriteArchive's threads, none of which should wait for a connection
    retries={"mode": "standard", "total_max_attempts": 5},
    tcp_keepalive=True,
)


PATIENT = CONFIG.merge(Config(read_timeout=600, retries={"mode": "standard", "total_max_attempts": 2}))
"""For copies of gigabytes, whose answer comes when S3 has made them."""

PROMPT = CONFIG.merge(
    Config(
        connect_timeout=1,
        read_timeout=1,
        max_pool_connections=10,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
)
"""For who answers a visitor: better no answer within 4 seconds than one after 30."""

PROMPT_S3 = PROMPT.merge(
    Config(signature_version="s3v4", s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"})
)
"""The same for S3. URLs that are signed name the bucket's own region: who is led there from another host name (307)
comes with a signature for the wrong host.
"""


IMPATIENT = CONFIG.merge(
    Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
)
"""For SQS: what it does not take within seconds goes to the outbox. Its 99.9th percentile is well below one."""


@cache
def s3(config: Config = CONFIG) -> S3Client:
    """The S3 client."""
    client = boto3.client("s3", config=config)
    LEDGER.watch(client)
    return client


@cache
def dynamodb(config: Config = CONFIG) -> DynamoDBClient:
    """The DynamoDB client."""
    client = boto3.client("dynamodb", config=config)
    LEDGER.watch(client)
    return client


@cache
def sqs(config: Config = IMPATIENT) -> SQSClient:
    """The SQS client."""
    client = boto3.client("sqs", config=config)
    LEDGER.watch(client)
    return client


@cache
def sns() -> SNSClient:
    """The SNS client."""
    client = boto3.client("sns", config=CONFIG)
    LEDGER.watch(client)
    return client


@cache
def ssm(config: Config = CONFIG) -> SSMClient:
    """The client of Systems Manager."""
    client = boto3.client("ssm", config=config)
    LEDGER.watch(client)
    return client
