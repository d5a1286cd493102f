"""Rebuilding the index from manifests: what proves an archive, and whose row counts where several hold one version.

An archive's *line* is its serial behind those of the archives it stands for, the oldest first: (5, 9, 12) is a repair
of 9, which is a repair of 5; (7,) is no repair.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import inf

from neve.domain.large import CRC64NVME, SHA256
from neve.domain.manifest import Manifest

REBUILT = "rebuilt"
"""What stands for the bundle in the row of a rebuilt archive: a manifest does not name it."""

MARGIN = 1_000
"""So far above the largest serial that is seen the counter is set. A writer that was under way when the table was lost
holds a number that no object shows yet; as many may be under way as an account runs functions, 1,000 by default."""

Line = tuple[int, ...]


def precedes(line: Line, other: Line) -> bool:
    """Whether the row of an archive with `line` counts, and not that of the archive with `other`.

    A repair takes the place of what it repairs, against everybody: a superseding archive wins over the one that it
    stands for, the latest of a chain over the others, and apart from that the lowest serial. Of two repairs of one
    archive the first wins: by then the row named the damaged one no more. It is a total order, so whoever compares in
    whatever order ends at the same archive.
    """
    return (*line, inf) < (*other, inf)


def stands_for(line: Line, other: Line) -> bool:
    """Whether the archive with `line` is that with `other`, or a repair of it, at however many removes."""
    return line[: len(other)] == other


def unproven(manifest: Manifest, *, size_bytes: int, checksums: Mapping[str, str]) -> str:
    """Why an object is not proved to be the archive that its manifest states; "" if it is.

    `size_bytes` and `checksums` are what S3 states of the object, the latter over the whole of it, in base64.
    """
    if size_bytes != manifest.object_size_bytes:
        return f"it has {size_bytes:,} bytes, its manifest says {manifest.object_size_bytes:,}"
    if manifest.object_sha256:
        algorithm = SHA256
        expected = base64.b64encode(bytes.fromhex(manifest.object_sha256)).decode()
    else:
        algorithm, expected = CRC64NVME, manifest.object_crc64nvme
    stated = checksums.get(algorithm)
    if stated is None:
        return f"S3 states no {algorithm} over the whole of it"
    if stated != expected:
        return f"its {algorithm} is {stated}, its manifest says {expected}"
    return ""
