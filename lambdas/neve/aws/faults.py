"""Which failures of AWS are worth another try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NoConnection

from neve.errors import Transient

_PASSING = frozenset(
    {
        "ConditionalRequestConflict",
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "LimitExceededException",
        "OperationAborted",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestExpired",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingError",
        "ThrottlingException",
        "TokenRefreshRequired",
        "TooManyRequestsException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Codes of S3, SQS and DynamoDB, and of the statements in a DynamoDB batch, that say: later.

Credentials that have just expired and clocks that differ are among them: they say nothing about the object asked for.
"""


ASLEEP = ("InvalidObjectState", "ObjectNotInActiveTierError")
"""403: the object lies in a Glacier class and is not thawed; the second is what a copy says."""


def code(error: ClientError) -> str:
    """The error code, such as NoSuchKey; for answers without a body it is the status, such as 404."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passing(error_code: str) -> bool:
    """Whether this error code says that the same request may succeed later."""
    return error_code in _PASSING


@contextmanager
def transient() -> Iterator[None]:
    """Turn failures that pass by themselves into Transient; all others come out as they are."""
    try:
        yield
    except ClientError as error:
        if passing(code(error)) or status(error) >= 500:
            raise Transient(f"{error.operation_name}: {code(error) or status(error)}") from error
        raise
    except (NoConnection, HTTPClientError, IncompleteReadError) as error:
        raise Transient(f"{type(error).__name__}: {error}") from error
