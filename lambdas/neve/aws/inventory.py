"""S3 Inventory: the daily or weekly list of a bucket's versions, as S3 puts it into another bucket.

Source: S3 user guide, "Cataloging and analyzing your data with S3 Inventory" and "Locating your inventory list".

    <prefix>/<time>/manifest.json       what the report consists of
    <prefix>/<time>/manifest.checksum   its MD5; it is there once the report is complete
    <prefix>/data/<id>.csv.gz           its files: no header, keys URL-encoded, in no order
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError

from neve.aws.faults import status, transient
from neve.domain.backfill import StoredVersion
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import InventoryInvalid, Transient
from neve.ports import InventoryReport

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

NEEDED = ("Key", "VersionId", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag")
"""Columns. VersionId and IsDeleteMarker are there if the inventory lists all versions."""
CLASS = "StorageClass"
"""A column that only a backfill needs."""

_FOLDER = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z/")
_HOW = "Configure the inventory with all versions, as CSV, and with Size, LastModifiedDate, ETag and StorageClass."


@dataclass(frozen=True)
class S3Inventory:
    """The ports Inventory and VersionInventory on the reports in `place`, s3://bucket/prefix/, about the bucket
    `source`.
    """

    client: S3Client
    place: str
    source: str

    def newest(self) -> InventoryReport:
        """See neve.ports.Inventory. A report without its checksum is still being written: the one before it counts."""
        bucket, prefix = self._bucket_and_prefix()
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        with transient():
            folders = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]
        for folder in sorted(folders, reverse=True):
            if _FOLDER.fullmatch(folder.removeprefix(prefix)) and self._read(f"{folder}manifest.checksum") is not None:
                manifest = f"{folder}manifest.json"
                return InventoryReport(manifest=manifest, files=len(self._manifest(manifest)["files"]))
        raise InventoryInvalid(
            f"there is no complete report under {self.place}. The prefix has to be that of one inventory's reports, "
            "<prefix>/<source bucket>/<name of the inventory>/, and S3 writes the first one within 48 hours."
        )

    def versions(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, ObjectVersion | None]]:
        """See neve.ports.Inventory."""
        for number, stored in self._stored(self._manifest(manifest), manifest, file, after):
            yield number, stored.version if stored else None

    def stored(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, StoredVersion | None]]:
        """See neve.ports.VersionInventory."""
        report = self._manifest(manifest)
        if CLASS not in _columns(report):
            raise InventoryInvalid(f"{manifest}: its files lack {CLASS}, by which is known what is frozen. {_HOW}")
        return self._stored(report, manifest, file, after)

    def _stored(
        self, report: Mapping[str, Any], manifest: str, file: int, after: int
    ) -> Iterator[tuple[int, StoredVersion | None]]:
        """The lines up to `after` are read over; the file's MD5 is compared at its end."""
        try:
            stated = report["files"][file]
            key, md5 = str(stated["key"]), str(stated["MD5checksum"])
        except (KeyError, IndexError, TypeError) as error:
            raise InventoryInvalid(f"{manifest} lists no file {file} with a key and an MD5checksum") from error
        columns = _columns(report)
        with _reading(key):
            stream = self._open(key)
            if stream is None:
                raise InventoryInvalid(f"{key} is not there any more")
            body = _Hashing(stream)
            with gzip.GzipFile(fileobj=body, mode="rb") as unpacked:
                lines = csv.reader(io.TextIOWrapper(unpacked, encoding="utf-8", newline=""))
                for number, fields in enumerate(lines, start=1):
                    if number > after:
                        yield number, _version(fields, columns)
            if (found := body.md5()) != md5:
                raise InventoryInvalid(f"{key} has the MD5 {found}, its manifest states {md5}")

    def _bucket_and_prefix(self) -> tuple[str, str]:
        bucket, _, prefix = self.place.removeprefix("s3://").partition("/")
        return bucket, f"{prefix.rstrip('/')}/" if prefix else ""

    def _manifest(self, key: str) -> Mapping[str, Any]:
        """The manifest.json, checked for what is needed of it."""
        body, checksum = self._read(key), self._read(f"{key.removesuffix('json')}checksum")
        if body is None or checksum is None:
            raise InventoryInvalid(f"{key} or its checksum is not there any more")
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if md5 != checksum.decode(errors="replace").strip():
            raise InventoryInvalid(f"{key} has the MD5 {md5}, manifest.checksum states another")
        try:
            report = json.loads(body)
            files, source, kind = report["files"], report["sourceBucket"], report["fileFormat"]
            columns = _columns(report)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InventoryInvalid(f"{key} is no manifest of an inventory: {error!r}") from error
        if not isinstance(files, list):
            raise InventoryInvalid(f"{key} is no manifest of an inventory: it lists no files")
        if source != self.source:
            raise InventoryInvalid(f"{key} is about the bucket {source!r}, not {self.source!r}")
        if kind != "CSV":
            raise InventoryInvalid(f"{key}: its files are {kind!r}, and only CSV is read. {_HOW}")
        if lacking := [name for name in NEEDED if name not in columns]:
            raise InventoryInvalid(f"{key}: its files lack {', '.join(lacking)}. {_HOW}")
        return dict(report)

    def _read(self, key: str) -> bytes | None:
        with _reading(key):
            stream = self._open(key)
            return stream.read() if stream is not None else None

    def _open(self, key: str) -> Any:
        """The bytes of an object, to be read; None if there is none."""
        try:
            return self.client.get_object(Bucket=self._bucket_and_prefix()[0], Key=key)["Body"]
        except ClientError as error:
            if status(error) == 404:
                return None
            raise


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """Turn what goes wrong while an object of the inventory is read into neve's errors."""
    try:
        with transient():
            yield
    except HTTPError as error:
        raise Transient(f"{key}: {error}") from error
    except (EOFError, ValueError, csv.Error, gzip.BadGzipFile, zlib.error) as error:
        raise InventoryInvalid(f"{key} cannot be read: {error!r}") from error


class _Hashing(io.RawIOBase):
    """What a body hands out, and the MD5 of it."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._md5 = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece: bytes = self._body.read(len(buffer))
        self._md5.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def md5(self) -> str:
        """In hex, of the whole body: what nobody asked for is read now."""
        while self.read(1 << 20):
            pass
        return self._md5.hexdigest()


def _columns(report: Mapping[str, Any]) -> list[str]:
    return [name.strip() for name in report["fileSchema"].split(",")]


def _version(fields: Sequence[str], columns: Sequence[str]) -> StoredVersion | None:
    """The version on a line; None for a delete marker. Raises ValueError if it is no such line."""
    line = dict(zip(columns, fields, strict=True))
    if line["IsDeleteMarker"] == "true":
        return None
    version = ObjectVersion(
        key=unquote_plus(line["Key"], errors="strict"),
        version_id=line["VersionId"] or NULL_VERSION,
        size_bytes=int(line["Size"]),
        etag=line["ETag"].strip('"'),
        sequencer="",
        event_at=datetime.fromisoformat(line["LastModifiedDate"]),
    )
    return StoredVersion(version=version, storage_class=line.get(CLASS, ""))
