"""The bytes of an object in pieces, as they are: whoever reads them hashes them, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import FlexibleChecksumError

PIECE_BYTES = 1024 * 1024


def starting(first: int) -> Any:
    """The parameter of GetObject for the bytes from `first` on; none for all, since S3 refuses a range of no bytes."""
    return {"Range": f"bytes={first}-"} if first else {}


def pieces(answer: Mapping[str, Any]) -> Iterator[bytes]:
    """The body that came with S3's answer to GetObject.

    botocore compares it with the checksum that S3 states, and raises where they differ once the last piece has been
    handed out (httpchecksum.StreamingChecksumBody). A body that ends too soon is noticed before that, and raises.
    """
    body = answer["Body"]
    try:
        yield from body.iter_chunks(PIECE_BYTES)
    except FlexibleChecksumError:
        return
    finally:
        body.close()
