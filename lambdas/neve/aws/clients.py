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

CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=64,  # WriteArchive's threads, none of which should wait for a connection
    retries={"mode": "standard", "total_max_attempts": 5},
    tcp_keepalive=True,
)


PATIENT = CONFIG.merge(Config(read_timeout=600, retries={"mode": "standard", "total_max_attempts": 2}))
"""For copies of gigabytes, whose answer comes when S3 has made them."""


@cache
def s3(config: Config = CONFIG) -> S3Client:
    """The S3 client."""
    client = boto3.client("s3", config=config)
    LEDGER.watch(client)
    return client


@cache
def dynamodb() -> DynamoDBClient:
    """The DynamoDB client."""
    client = boto3.client("dynamodb", config=CONFIG)
    LEDGER.watch(client)
    return client


@cache
def sqs() -> SQSClient:
    """The SQS client."""
    client = boto3.client("sqs", config=CONFIG)
    LEDGER.watch(client)
    return client


@cache
def sns() -> SNSClient:
    """The SNS client."""
    client = boto3.client("sns", config=CONFIG)
    LEDGER.watch(client)
    return client
