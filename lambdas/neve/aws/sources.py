"""The content bucket, read for a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from neve.aws.content import described, pinned, reading
from neve.aws.faults import status
from neve.aws.pieces import pieces, starting
from neve.domain.manifest import Source
from neve.domain.version import ObjectVersion

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3Sources:
    """The port Sources on the content bucket.

    Unlike S3Content it takes the bytes as they are: not even their number is held against what was announced.
    """

    client: S3Client
    bucket: str

    def stream(self, version: ObjectVersion, *, first: int = 0) -> Iterator[bytes]:
        """See neve.ports.Sources."""
        with reading(version):
            try:
                answer = self.client.get_object(**pinned(self.bucket, version), **starting(first))
            except ClientError as error:
                if status(error) == 416:  # nothing lies behind the last byte
                    return
                raise
            yield from pieces(answer)

    def describe(self, version: ObjectVersion) -> Source:
        """See neve.ports.Sources."""
        with reading(version):
            answer = self.client.head_object(**pinned(self.bucket, version))
            return described(self.client, self.bucket, version, answer)
