"""What stands in moto at a moment, and how to have it stand there again: much quicker than to make it by requests."""

from __future__ import annotations

import copy
import copyreg
import threading
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

_SERVICES: tuple[Any, ...] = (s3_backends, dynamodb_backends, sqs_backends, sns_backends)

_NEW_LOCKS: dict[type, Any] = {
    type(make()): lambda _, make=make: (make, ()) for make in (threading.Lock, threading.RLock, threading.Condition)
}
"""How locks are copied: who holds one is not part of what stands there."""


@dataclass(frozen=True)
class MotoState:
    """All buckets, objects, tables, items, queues, messages and topics of moto, copied."""

    _fields: tuple[tuple[Any, str, Any, dict[str, Any]], ...]
    """Of each service's backend in each region that a request has gone to."""

    @classmethod
    def now(cls) -> MotoState:
        """What stands in moto now."""
        return cls(
            tuple(
                (service, region, backend, _copied(vars(backend), backend, backend))
                for service in _SERVICES
                for region, backend in service[DEFAULT_ACCOUNT_ID].items()
            )
        )

    def again(self) -> None:
        """Have moto be as it was; what it has given out until now, such as keys of objects, is part of it no more."""
        for service, region, backend, fields in self._fields:
            found = service[DEFAULT_ACCOUNT_ID][region]
            vars(found).clear()
            vars(found).update(_copied(fields, backend, found))


def _copied(fields: dict[str, Any], backend: Any, other: Any) -> dict[str, Any]:
    """A copy, with another backend in the place of their own."""
    with patch.dict(copyreg.dispatch_table, _NEW_LOCKS):
        return copy.deepcopy(fields, {id(backend): other})
