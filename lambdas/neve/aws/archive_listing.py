"""The archive bucket's listing: archives and manifests by serial."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neve.aws.faults import transient
from neve.ports import ListedObject

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_SERIAL = "([0-9]{10}|[1-9][0-9]{10,})"
_KEY = re.compile(rf"archives/{_SERIAL}\.(?:tar|object)|manifests/{_SERIAL}\.json")


@dataclass(frozen=True)
class S3ArchiveListing:
    """The port ArchiveListing on the archive bucket."""

    client: S3Client
    bucket: str

    def archives(self, start: int = 0) -> Iterator[ListedObject]:
        """See neve.ports.ArchiveListing."""
        return self._list("archives/", start)

    def manifests(self, start: int = 0) -> Iterator[ListedObject]:
        """See neve.ports.ArchiveListing."""
        return self._list("manifests/", start)

    def _list(self, prefix: str, start: int) -> Iterator[ListedObject]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket,
            Prefix=prefix,
            # A key begins with its serial and goes on: the serial alone sorts right before those of `start`.
            StartAfter=f"{prefix}{start:010d}" if start else prefix,
        )
        with transient():
            for page in pages:
                for listed in page.get("Contents", []):
                    yield ListedObject(
                        key=listed["Key"],
                        serial=_serial(listed["Key"]),
                        size_bytes=listed["Size"],
                        etag=listed["ETag"].strip('"'),
                        storage_class=listed.get("StorageClass", "STANDARD"),
                        modified=listed["LastModified"],
                    )


def _serial(key: str) -> int:
    found = _KEY.fullmatch(key)
    return int(found[1] or found[2]) if found else 0
