"""What stands in moto at a moment, and how to have it stand there again: much quicker than to make it by requests."""

from __future__ import annotations

import copy
import copyreg
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import FakeKey, s3_backends
from moto.s3.utils import _VersionedKeyStore
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

_SERVICES: tuple[Any, ...] = (s3_backends, dynamodb_backends, sqs_backends, sns_backends)


def _objects(versions: dict[str, list[Any]]) -> _VersionedKeyStore:
    """A bucket's objects; as a dictionary it would give, and take, only each key's last version."""
    made = _VersionedKeyStore()
    for key, of_key in versions.items():
        made.setlist(key, of_key)
    return made


_COPIED: dict[type, Any] = {
    _VersionedKeyStore: lambda store: (_objects, (dict(store._iterlists()),)),
    # Who holds a lock is no part of what stands there.
    **{
        type(make()): lambda _, make=make: (make, ()) for make in (threading.Lock, threading.RLock, threading.Condition)
    },
}
"""How to copy what cannot copy itself."""


@dataclass(frozen=True)
class MotoState:
    """All buckets, objects, tables, items, queues, messages and topics of moto, copied.

    `bridges` are objects of ours that know some of moto's, which are copied together with those.
    """

    regions: tuple[tuple[Any, str], ...]
    """Of each service those that a request has gone to."""
    bridges: tuple[Any, ...]
    owners: tuple[Any, ...]
    fields: tuple[dict[str, Any], ...]
    """Of each owner."""

    @classmethod
    def now(cls, *bridges: Any) -> MotoState:
        """What stands there now."""
        regions = tuple((service, region) for service in _SERVICES for region in service[DEFAULT_ACCOUNT_ID])
        owners = _owners(regions, bridges)
        tracked: list[Any] = FakeKey.instances_tracked  # type: ignore[attr-defined]  # its metaclass puts it there
        known = len(tracked)
        fields = _copied([vars(owner) for owner in owners], owners, owners)
        for kept in tracked[known:]:
            kept.disposed = True  # it is collected with this copy, and needs no complaint
        del tracked[known:]  # moto takes away the bytes of all that it knows when it ends, and this outlives it
        return cls(regions, bridges, owners, fields)

    def again(self) -> None:
        """Have moto be as it was; what it has given out until now, such as an object's key, is part of it no more."""
        owners = _owners(self.regions, self.bridges)
        for owner, fields in zip(owners, _copied(self.fields, self.owners, owners), strict=True):
            vars(owner).clear()
            vars(owner).update(fields)


def _owners(regions: Sequence[tuple[Any, str]], bridges: Sequence[Any]) -> tuple[Any, ...]:
    """The bridges, and each service's backend in each region: every moto has new ones."""
    return (*(service[DEFAULT_ACCOUNT_ID][region] for service, region in regions), *bridges)


def _copied(
    fields: Sequence[dict[str, Any]], owners: Sequence[Any], others: Sequence[Any]
) -> tuple[dict[str, Any], ...]:
    """A copy of the fields, in which other owners stand for theirs."""
    with patch.dict(copyreg.dispatch_table, _COPIED):
        known = {id(owner): other for owner, other in zip(owners, others, strict=True)}
        return tuple(copy.deepcopy(list(fields), known))
