"""A bridge over moto's TransactWriteItems, which copies the table for each write and is lost among threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.exceptions import TransactionCanceledException
from moto.dynamodb.models import DynamoDBBackend

_CONDITION = {
    "condition_expression": "ConditionExpression",
    "expression_attribute_names": "ExpressionAttributeNames",
    "expression_attribute_values": "ExpressionAttributeValues",
}


@contextmanager
def one_write_at_a_time() -> Iterator[None]:
    """Writes to DynamoDB wait for each other, and a transaction looks at all of its conditions before it writes."""
    lock = threading.RLock()

    def locked(write: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return write(*args, **kwargs)

        return wait

    with ExitStack() as stack:
        for name in ("put_item", "update_item", "delete_item"):
            stack.enter_context(patch.object(DynamoDBBackend, name, locked(getattr(DynamoDBBackend, name))))
        stack.enter_context(patch.object(DynamoDBBackend, "transact_write_items", locked(_transact)))
        yield


def _transact(backend: DynamoDBBackend, transact_items: list[dict[str, dict[str, Any]]]) -> None:
    writes = [next(iter(item.items())) for item in transact_items]
    keys = [_key(backend, write) for _, write in writes]
    assert len({str(key) for key in keys}) == len(keys), "DynamoDB refuses two writes to one row"
    reasons = [
        (None, None, None) if _holds(backend, key, write) else ("ConditionalCheckFailed", "it did not hold", None)
        for key, (_, write) in zip(keys, writes, strict=True)
    ]
    if any(code for code, _, _ in reasons):
        raise TransactionCanceledException(reasons)
    for key, (kind, write) in zip(keys, writes, strict=True):
        names: dict[str, Any] = {argument: write.get(name) for argument, name in _CONDITION.items()}
        if kind == "Put":
            backend.put_item(write["TableName"], write["Item"], **names)
        elif kind == "Delete":
            backend.delete_item(write["TableName"], key, **names)
        elif kind == "Update":
            backend.update_item(write["TableName"], key, update_expression=write["UpdateExpression"], **names)


def _key(backend: DynamoDBBackend, write: dict[str, Any]) -> dict[str, Any]:
    if "Key" in write:
        return dict(write["Key"])
    table = backend.get_table(write["TableName"])
    return {name: write["Item"][name] for name in (table.hash_key_attr, table.range_key_attr) if name}


def _holds(backend: DynamoDBBackend, key: dict[str, Any], write: dict[str, Any]) -> bool:
    condition = get_filter_expression(*(write.get(name) for name in _CONDITION.values()))
    return bool(condition.expr(backend.get_item(write["TableName"], key)))
