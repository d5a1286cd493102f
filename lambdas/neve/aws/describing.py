"""What S3 is told of an object that is written anew: the headers, metadata and tags of its source."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from neve.domain.manifest import Source

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_CLASSES = ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY")
"""Storage classes that are set again. The others are STANDARD, belong to special buckets, or are asleep at once."""


def describing(source: Source) -> Any:
    """The parameters that give an object what is known of the source. The client has to be `sending_expires`."""
    encodings = [name.strip() for name in source.content_encoding.split(",")]
    tags = {name: value for name, value in source.tags.items() if not name.startswith("aws:")}  # only AWS sets those
    texts = {
        "ContentType": source.content_type,
        "ContentEncoding": ",".join(name for name in encodings if name != "aws-chunked"),  # of a transfer that is over
        "ContentLanguage": source.content_language,
        "ContentDisposition": source.content_disposition,
        "CacheControl": source.cache_control,
        "ExpiresText": source.expires,
        "WebsiteRedirectLocation": source.website_redirect,
        "StorageClass": storage_class(source),
        "Tagging": urlencode(tags, quote_via=quote),
    }
    described: dict[str, Any] = {name: _header(text) for name, text in texts.items() if text}
    return described | {"Metadata": {name: _header(text) for name, text in source.user_metadata.items()}}


def storage_class(source: Source) -> str:
    """The storage class to set again; "" for STANDARD."""
    return source.storage_class if source.storage_class in _CLASSES else ""


def sending_expires(client: S3Client) -> S3Client:
    """`client`, which sends Expires as the text that it was: boto3 takes a time only, and writes it anew."""
    client.meta.events.register("before-parameter-build.s3", _keep_expires, unique_id="neve-keep-expires")
    client.meta.events.register("before-call.s3", _send_expires, unique_id="neve-send-expires")
    return client


def _header(text: str) -> str:
    """The text as a header can carry it; S3 decodes what is encoded by RFC 2047 (user guide, "object metadata")."""
    if text.isascii() and text.isprintable():
        return text
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def _keep_expires(*, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if "ExpiresText" in params:
        context["neve_expires"] = params.pop("ExpiresText")


def _send_expires(*, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if "neve_expires" in context:
        params["headers"]["Expires"] = context["neve_expires"]
