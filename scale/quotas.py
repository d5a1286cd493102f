"""What AWS allows: every limit that neve can meet, with what can be done about it and where AWS states it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A limit of an account in a region unless `what` says otherwise. `remedy` says how it is raised, if it is."""

    what: str
    value: float
    unit: str
    remedy: str
    source: str


_LAMBDA = "Lambda developer guide"
_DYNAMODB = "DynamoDB developer guide"
_FIXED = "cannot be raised"

CONCURRENCY = Quota(
    what="executions of all functions at once",
    value=1_000,
    unit="at once",
    remedy='Service Quotas, Lambda, "Concurrent executions"',
    source=f'{_LAMBDA}, "Lambda quotas"',
)
MAPPING = Quota(
    what="batches of one mapping at once (its MaximumConcurrency)",
    value=1_000,
    unit="at once",
    remedy="cannot be raised; provisioned mode has others",
    source=f'{_LAMBDA}, "Configuring scaling behavior for SQS event source mappings"',
)
MAPPING_GROWTH = Quota(
    what="batches that a mapping adds, from 5 at once",
    value=300,
    unit="a minute",
    remedy="cannot be raised; provisioned mode adds 1,000",
    source=MAPPING.source,
)
FUNCTION_GROWTH = Quota(
    what="environments that a function adds",
    value=1_000,
    unit="in 10 s",
    remedy=_FIXED,
    source=f'{_LAMBDA}, "Lambda scaling behavior"',
)
TIMEOUT = Quota(
    what="an execution of a function", value=900, unit="s", remedy=_FIXED, source=f'{_LAMBDA}, "Lambda quotas"'
)
IN_FLIGHT = Quota(
    what="messages of a queue received and not deleted, about",
    value=120_000,
    unit="messages",
    remedy="AWS Support",
    source='SQS developer guide, "Amazon SQS standard queue quotas"',
)
PARTITION_WRITES = Quota(
    what="writing to one partition of a table or index, and so to one item",
    value=1_000,
    unit="units a second",
    remedy=_FIXED,
    source=f'{_DYNAMODB}, "Designing partition keys"',
)
PARTITION_READS = Quota(
    what="reading from one partition",
    value=3_000,
    unit="units a second",
    remedy=_FIXED,
    source=f'{_DYNAMODB}, "Designing partition keys"',
)
NEW_TABLE_WRITES = Quota(
    what="writing to a new table on demand; twice its highest rate so far later on",
    value=4_000,
    unit="units a second",
    remedy="`aws dynamodb update-table --warm-throughput`, or a rate that rises over an hour",
    source=f'{_DYNAMODB}, "On-demand capacity mode", initial throughput',
)
NEW_TABLE_READS = Quota(
    what="reading from a new table on demand; twice its highest rate so far later on",
    value=12_000,
    unit=NEW_TABLE_WRITES.unit,
    remedy=NEW_TABLE_WRITES.remedy,
    source=NEW_TABLE_WRITES.source,
)
TABLE_WRITES = Quota(
    what="writing to one table",
    value=40_000,
    unit="units a second",
    remedy='Service Quotas, DynamoDB, "Table-level write throughput limit"',
    source=f'{_DYNAMODB}, "Quotas", default throughput',
)
TABLE_READS = Quota(
    what="reading from one table",
    value=40_000,
    unit="units a second",
    remedy='Service Quotas, DynamoDB, "Table-level read throughput limit"',
    source=TABLE_WRITES.source,
)
PREFIX_WRITES = Quota(
    what="PUT, COPY, POST, DELETE below one prefix of a bucket",
    value=3_500,
    unit="a second",
    remedy="more prefixes: S3 splits them by itself under load that lasts (503 SlowDown meanwhile); AWS Support does "
    "so "
    "beforehand",
    source='S3 user guide, "Optimizing Amazon S3 performance"',
)
PREFIX_READS = Quota(
    what="GET, HEAD below one prefix of a bucket",
    value=5_500,
    unit="a second",
    remedy=PREFIX_WRITES.remedy,
    source=PREFIX_WRITES.source,
)
RESTORES = Quota(
    what="RestoreObject",
    value=1_000,
    unit="a second",
    remedy="AWS Support",
    source='S3 user guide, "Understanding archive retrieval options", large datasets',
)
RESTORED_BYTES = Quota(
    what="bytes thawed, at the least",
    value=1e15,
    unit="bytes a day",
    remedy="AWS Support, beforehand",
    source=RESTORES.source,
)
MAP_CHILDREN = Quota(
    what="children of a Distributed Map at once",
    value=10_000,
    unit="at once",
    remedy=_FIXED,
    source='Step Functions developer guide, "Service quotas"',
)
MAP_ITEMS = Quota(
    what="items of a Distributed Map; a backfill's items are shards, at most 10,000",
    value=100_000_000,
    unit="items",
    remedy=_FIXED,
    source=MAP_CHILDREN.source,
)

QUOTAS = (
    CONCURRENCY,
    MAPPING,
    MAPPING_GROWTH,
    FUNCTION_GROWTH,
    TIMEOUT,
    IN_FLIGHT,
    PARTITION_WRITES,
    PARTITION_READS,
    NEW_TABLE_WRITES,
    NEW_TABLE_READS,
    TABLE_WRITES,
    TABLE_READS,
    PREFIX_WRITES,
    PREFIX_READS,
    RESTORES,
    RESTORED_BYTES,
    MAP_CHILDREN,
    MAP_ITEMS,
)
