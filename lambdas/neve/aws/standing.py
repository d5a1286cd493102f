"""What stands in a bucket now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from neve.aws.faults import status, transient

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3Standing:
    """The port Standing on one bucket.

    Who may not list the bucket is answered 403 where nothing stands: that comes out as an error, as any other 403 does.
    """

    client: S3Client
    bucket: str

    def holds(self, key: str) -> bool:
        """See neve.ports.Standing. One HEAD request; a delete marker is answered 404."""
        with transient():
            try:
                self.client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if status(error) == 404:
                    return False
                raise
        return True
