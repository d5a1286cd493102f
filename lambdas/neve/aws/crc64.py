"""CRC64NVME, the checksum that S3 states of objects of any size."""

from __future__ import annotations

import base64

from awscrt import checksums


def crc64nvme(piece: bytes, so_far: int = 0) -> int:
    """The checksum of all bytes up to the end of `piece`, if `so_far` is that of the bytes before it."""
    return int(checksums.crc64nvme(piece, so_far))


def stated(checksum: int) -> str:
    """The checksum as S3 states it: its eight bytes, the highest first, in base64."""
    return base64.b64encode(checksum.to_bytes(8, "big")).decode()
