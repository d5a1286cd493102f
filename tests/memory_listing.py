"""The archive bucket's listing in memory: what the adapter on AWS is held against, and what unit tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from neve.domain.manifest import manifest_key
from neve.domain.thaw import archive_of
from neve.ports import ListedObject
from tests.memory import START, MemoryArchiveStore


@dataclass
class MemoryListing:
    """What stands in `store`, last modified at `modified`; and `foreign` keys, which neve has not given."""

    store: MemoryArchiveStore
    modified: datetime = START
    foreign: list[str] = field(default_factory=list)

    def archives(self, start: int = 0) -> Iterator[ListedObject]:
        objects = {key: archive_of(key) or 0 for key in self.store.stated}
        return self._listed("archives/", objects, start)

    def manifests(self, start: int = 0) -> Iterator[ListedObject]:
        objects = {manifest_key(serial): serial for serial in self.store.manifests}
        return self._listed("manifests/", objects, start)

    def _listed(self, prefix: str, objects: dict[str, int], start: int) -> Iterator[ListedObject]:
        listed = objects | dict.fromkeys(self.foreign, 0)
        after = f"{prefix}{start:010d}" if start else prefix
        for key in sorted(key for key in listed if key.startswith(prefix) and key > after):
            stated = self.store.stated.get(key)
            yield ListedObject(
                key=key,
                serial=listed[key],
                size_bytes=stated.size_bytes if stated else 1,
                etag=stated.etag if stated else "0",
                storage_class=stated.storage_class if stated else "STANDARD",
                modified=self.modified,
            )
