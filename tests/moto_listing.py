"""A bridge over moto's ListObjectVersions: the key marker is exclusive, whether or not there is such a key, and keys
come encoded, since XML has no letters for some.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import quote
from xml.sax.saxutils import escape

from moto.s3.models import FakeKey
from moto.s3.responses import S3Response


@contextmanager
def listing_as_on_aws() -> Iterator[None]:
    """moto with this bridge, for as long as the context lasts."""
    with patch.object(S3Response, "list_object_versions", _listed):
        yield


def _listed(response: S3Response) -> Any:
    asked = {name: values[0] for name, values in response._get_querystring(response.request, response.uri).items()}
    assert not asked.get("delimiter"), "nothing asks for it"
    key_marker, version_marker = asked.get("key-marker", ""), asked.get("version-id-marker", "")
    bucket = response.backend.get_bucket(response.bucket_name)
    found = [
        (key, version)
        for key, versions in sorted(bucket.keys.iterlists())
        for version in reversed(versions)
        if key.startswith(asked.get("prefix", "")) and key >= key_marker
    ]
    start = sum(key == key_marker for key, _ in found)
    if version_marker:
        of_marker = [_version_id(version) for key, version in found if key == key_marker]
        start = of_marker.index(version_marker) + 1
    page = found[start : start + int(asked.get("max-keys", "1000"))]
    cut = start + len(page) < len(found)
    body = "".join(_entry(key, version, found) for key, version in page)
    if cut:
        body += f"<NextKeyMarker>{quote(page[-1][0])}</NextKeyMarker>"
        body += f"<NextVersionIdMarker>{_version_id(page[-1][1])}</NextVersionIdMarker>"
    return (
        200,
        {},
        (
            '<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
            f"<IsTruncated>{str(cut).lower()}</IsTruncated>{body}</ListVersionsResult>"
        ),
    )


def _version_id(version: Any) -> str:
    return version.version_id or "null"


def _entry(key: str, version: Any, found: list[tuple[str, Any]]) -> str:
    latest = version is next(each for of, each in found if of == key)
    head = (
        f"<Key>{quote(key)}</Key><VersionId>{_version_id(version)}</VersionId><IsLatest>{str(latest).lower()}</IsLatest>"
        f"<LastModified>{version.last_modified_ISO8601}</LastModified>"
    )
    if not isinstance(version, FakeKey):
        return f"<DeleteMarker>{head}</DeleteMarker>"
    stated = f"<ETag>{escape(version.etag)}</ETag><Size>{version.size}</Size>"
    return f"<Version>{head}{stated}<StorageClass>{version.storage_class}</StorageClass></Version>"
