"""Large objects: how S3 copies them, in which parts, and what proves that source and copy are the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

MIB = 1024 * 1024
SINGLE_COPY_BYTES = 5 * 1024 * MIB
"""CopyObject takes objects of up to 5 GB; beyond, the copy is made in parts (S3 user guide, "Copying objects")."""
PART_BYTES = 512 * MIB
MAX_PART_BYTES = 5 * 1024 * MIB
MAX_PARTS = 10_000
"""A part copied has 5 MiB to 5 GiB, and an upload at most 10,000 (S3 user guide, "Multipart upload limits")."""

WAVE = 16
MARGIN = timedelta(seconds=60)
"""What a wave of 16 parts of 512 MiB may take; another one is begun only if so much time is left. The first one always
is: whatever the timeout, every try makes some headway."""

SHA256 = "SHA256"
CRC64NVME = "CRC64NVME"
"""Of these S3 computes the first over the bytes of a single copy, and the second over a whole object in parts, too."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes `first` to `last`, inclusive, of the source, copied as part `number` (from 1)."""

    number: int
    first: int
    last: int


def ranges(size_bytes: int) -> list[Range]:
    """The parts in which an object of `size_bytes` is copied: 512 MiB each, more only if 10,000 would not do.

    Raises ValueError above the 48.8 TiB that 10,000 parts of 5 GiB can hold.
    """
    fewest = -(-size_bytes // MAX_PARTS)
    part_bytes = max(PART_BYTES, -(-fewest // MIB) * MIB)
    if part_bytes > MAX_PART_BYTES:
        raise ValueError(f"{size_bytes} bytes do not fit in {MAX_PARTS} parts of 5 GiB")
    return parts_of(size_bytes, part_bytes)


def parts_of(size_bytes: int, part_bytes: int) -> list[Range]:
    """An object of `size_bytes` in parts of `part_bytes`, the last of which may be smaller."""
    return [
        Range(number=number, first=first, last=min(first + part_bytes, size_bytes) - 1)
        for number, first in enumerate(range(0, size_bytes, part_bytes), start=1)
    ]


def in_waves(
    parts: Sequence[Range], copy: Callable[[Range], str], *, clock: Callable[[], datetime], until: datetime
) -> dict[int, str] | None:
    """Have `copy` make the parts, a wave of them at once; the ETags by their numbers, None if the time did not suffice.

    Raises what `copy` raises, once its wave is over.
    """
    etags: dict[int, str] = {}
    with ThreadPoolExecutor(WAVE) as pool:
        for start in range(0, len(parts), WAVE):
            if start and clock() + MARGIN > until:
                return None
            wave = parts[start : start + WAVE]
            etags.update(zip((part.number for part in wave), pool.map(copy, wave), strict=True))
    return etags


def proof_algorithm(size_bytes: int, source: Mapping[str, str]) -> str:
    """The checksum to ask of the copy: one that S3 states of the whole source, too, so that the two can be compared.

    `source` maps algorithms to the source's full-object checksums. Where none fits, a single copy gets a SHA-256: it is
    a hash to audit by, and such a copy's ETag can often be compared.
    """
    if size_bytes > SINGLE_COPY_BYTES:
        return CRC64NVME
    return CRC64NVME if CRC64NVME in source and SHA256 not in source else SHA256


def proven(source: Mapping[str, str], source_etag: str, copy: Mapping[str, str], copy_etag: str) -> bool | None:
    """Whether S3 states the same checksum of source and copy; None if it states none that they share.

    An ETag without a dash is the MD5 of the bytes, unless KMS or a customer's key encrypts them: so equal ETags prove
    that the bytes are the same, and different ones prove nothing.
    """
    shared = [algorithm for algorithm in copy if algorithm in source]
    if shared:
        return all(copy[algorithm] == source[algorithm] for algorithm in shared)
    if "-" not in source_etag and source_etag == copy_etag:
        return True
    return None
