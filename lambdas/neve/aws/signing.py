"""URLs that are signed, by S3 and by CloudFront."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.signers import CloudFrontSigner

from neve.aws.faults import transient

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_ssm import SSMClient

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class S3Signer:
    """The port Signer on one bucket: presigned requests, made here without asking AWS.

    They are good for as long as the credentials that signed them are, if that is shorter. The client has to sign by
    version 4 and name the region in its host (clients.PROMPT_S3).
    """

    client: S3Client
    bucket: str

    def signed(self, key: str, *, head: bool, lifetime_s: int) -> str:
        """See neve.ports.Signer. The method is signed as well: HEAD takes another signature than GET."""
        return self.client.generate_presigned_url(
            "head_object" if head else "get_object",
            Params={"Bucket": self.bucket, "Key": key},
            ExpiresIn=lifetime_s,
        )


@dataclass(frozen=True)
class CdnSigner:
    """The port Signer on a CloudFront distribution. `url` is that of a key, `sign` puts the private key's signature.

    Source: CloudFront developer guide, "Create a signed URL using a canned policy".
    """

    url: Callable[[str], str]
    key_id: str
    sign: Callable[[], Sign]
    clock: Callable[[], datetime]

    def signed(self, key: str, *, head: bool, lifetime_s: int) -> str:  # noqa: ARG002  # it is the same for HEAD
        """See neve.ports.Signer."""
        signer: Any = CloudFrontSigner(self.key_id, self.sign())
        until = self.clock() + timedelta(seconds=lifetime_s)
        return str(signer.generate_presigned_url(self.url(key), date_less_than=until))


@cache
def signature_of(client: SSMClient, parameter: str) -> Sign:
    """Signs with the RSA key that a parameter of Systems Manager holds as PEM; it is read once in a process.

    The signature is RSA with SHA-1 and PKCS #1 v1.5, the one that CloudFront takes where a URL names no other. Raises
    ValueError if the parameter holds no such key.
    """
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415  # 20 ms that others need not take
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    with transient():
        answer = client.get_parameter(Name=parameter, WithDecryption=True)
    key = load_pem_private_key(answer["Parameter"]["Value"].encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"the parameter {parameter} holds no RSA key")
    return lambda message: key.sign(message, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303  # what CloudFront checks
