"""How a request to write a bundle ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How a request to write a bundle ended."""

    ARCHIVED = "archived"
    VOID = "void"
    FINISHED_BEFORE = "finished before"
    CONFLICT = "conflict"
    CONTINUED = "continued"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a bundle: `files` and their `source_bytes` are those in the archive `serial` (0: there is none).

    `gone` counts versions of a backfill that were deleted or overwritten before their turn.
    `supersedes` is the damaged archive that a repair stands for.
    `unproven` counts copies of which S3 states no checksum that their source has, too.
    `oldest_at` is when the oldest of them was last modified: how far behind archiving is; None unless of uploads.
    """

    outcome: Outcome
    serial: int = 0
    files: int = 0
    source_bytes: int = 0
    duplicates: int = 0
    parked: int = 0
    gone: int = 0
    unproven: int = 0
    collected_again: int = 0
    supersedes: int = 0
    oldest_at: datetime | None = None
