"""Which bytes of an archive are read for the members that are wanted: neighbours in one request, nothing in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from neve.domain.manifest import Member

READ_BYTES = 8 * 1024 * 1024
"""A read takes in neighbours up to this size; a larger member is read alone."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """One ranged GET: `first` to `last`, both inclusive, as in the header Range; and the members that lie there."""

    first: int
    last: int
    members: tuple[Member, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes are read."""
        return self.last - self.first + 1

    def slice(self, body: bytes, member: Member) -> bytes:
        """The bytes of `member` in the bytes of this read."""
        start = member.offset_bytes - self.first
        return body[start : start + member.source.size_bytes]


def reads(wanted: Iterable[Member], *, limit_bytes: int = READ_BYTES) -> list[Read]:
    """The reads for `wanted`, in the archive's order. Members of no bytes need none and are left out.

    Only members that stand next to each other share a read: what is read in vain is a header between two of them.
    """
    runs: list[list[Member]] = []
    for member in sorted({each.number: each for each in wanted if each.source.size_bytes}.values(), key=_number):
        if runs and member.number == runs[-1][-1].number + 1 and _end(member) - runs[-1][0].offset_bytes <= limit_bytes:
            runs[-1].append(member)
        else:
            runs.append([member])
    return [Read(first=run[0].offset_bytes, last=_end(run[-1]) - 1, members=tuple(run)) for run in runs]


def _number(member: Member) -> int:
    return member.number


def _end(member: Member) -> int:
    return member.offset_bytes + member.source.size_bytes
