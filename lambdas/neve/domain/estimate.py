"""What a restore will cost and when its archives are thawed, as far as that is known before it begins."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from neve.domain.index import ArchiveRow
from neve.domain.large import SINGLE_COPY_BYTES, ranges
from neve.domain.prices import US_EAST_1, Bill, Charge, Use
from neve.domain.ranges import READ_BYTES
from neve.domain.restore import Kind
from neve.domain.thaw import (
    Need,
    Step,
    Thaw,
    decide,
    offered,
    promise,
    read_uses,
    thaw_micro_usd,
    thaw_uses,
)

PARTS = ("retrieval", "retrieval requests", "temporary copies", "reading archives", "writing files")
"""The purposes of a restore's bill, in the order in which they are told."""


@dataclass
class Reads:
    """Counts the ranged GETs for the members of one share, which are added in the order of their numbers.

    As neve.domain.ranges.reads, without the members themselves in memory.
    """

    count: int = 0
    _number: int = -2
    _first: int = 0

    def add(self, number: int, offset_bytes: int, size_bytes: int) -> None:
        """Count a member in. One that was the last already, or has no bytes, needs no read of its own."""
        if not size_bytes or number == self._number:
            return
        if number != self._number + 1 or offset_bytes + size_bytes - self._first > READ_BYTES:
            self.count += 1
            self._first = offset_bytes
        self._number = number


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What a job wants of one archive: so many files by kind, and so many ranged GETs for `size_bytes` of them."""

    files: Mapping[Kind, int]
    reads: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job will take. `steps` counts archives by what will be done about them.

    `thaw_bytes` and `thaw_micro_usd` are of the thaws that it begins: the spend cap counts those. `ready_at` is when
    the last archive is promised to be thawed. `not_offered` are archives, the first few, that have no such tier.
    """

    bill: Bill
    steps: Mapping[Step, int]
    thaw_bytes: int
    thaw_micro_usd: int
    ready_at: datetime
    not_offered: tuple[ArchiveRow, ...] = ()

    @property
    def asked(self) -> int:
        """How many thaws the job asks for."""
        return self._archives(Step.REQUEST, Step.UPGRADE)

    @property
    def running(self) -> int:
        """How many archives are thawing for others already."""
        return self._archives(Step.JOIN, Step.WAIT)

    @property
    def readable(self) -> int:
        """How many archives can be read at once: warm ones, and those of a class that needs no thaw."""
        return self._archives(Step.READ, Step.EXTEND)

    def _archives(self, *steps: Step) -> int:
        return sum(self.steps.get(step, 0) for step in steps)

    @property
    def usd(self) -> float:
        """All of it."""
        return self.bill.usd

    @property
    def usd_by_part(self) -> dict[str, float]:
        """What each of PARTS costs, and what else is in the bill."""
        sums = dict.fromkeys(PARTS, 0.0)
        for use in self.bill.uses:
            sums[use.purpose] = sums.get(use.purpose, 0.0) + self.bill.usd_of(use)
        return sums


SHOWN = 5
"""So many archives that cannot be thawed this fast are named."""


@dataclass
class Estimator:
    """Adds up what a job takes, archive by archive. `owner` is the job's id."""

    need: Need
    owner: str
    now: datetime
    _quantities: dict[tuple[str, Charge], float] = field(default_factory=lambda: defaultdict(float))
    _steps: Counter[Step] = field(default_factory=Counter)
    _thaw_bytes: int = 0
    _thaw_micro_usd: int = 0
    _ready_at: datetime | None = None
    _not_offered: list[ArchiveRow] = field(default_factory=list)

    def add(self, archive: ArchiveRow, thaw: Thaw | None, portion: Portion) -> None:
        """Count an archive in, given its thaw as it stands."""
        if not offered(archive.storage_class, self.need.tier):
            if len(self._not_offered) < SHOWN:
                self._not_offered.append(archive)
            return
        step = decide(thaw, archive.storage_class, self.need, owner=self.owner, now=self.now)
        self._steps[step] += 1
        self._count(self._thawing(step, archive, thaw))
        self._count(_fetching(archive, portion))
        self._ready_at = max(self._ready_at or self.now, self._ready(step, archive, thaw))

    def _thawing(self, step: Step, archive: ArchiveRow, thaw: Thaw | None) -> list[Use]:
        """What is asked of S3 for this job. A longer stay retrieves nothing; whoever joins asks for nothing."""
        if step not in (Step.REQUEST, Step.UPGRADE, Step.EXTEND):
            return []
        days = thaw.days if thaw and step is Step.UPGRADE else self.need.days
        storage_class, size_bytes = archive.storage_class, archive.size_bytes
        uses = thaw_uses(storage_class, self.need.tier, days=days, archives=1, size_bytes=size_bytes)
        if step is Step.EXTEND:
            return [use for use in uses if use.purpose != "retrieval"]
        self._thaw_bytes += size_bytes
        self._thaw_micro_usd += thaw_micro_usd(storage_class, self.need.tier, days=days, size_bytes=size_bytes)
        return uses

    def _ready(self, step: Step, archive: ArchiveRow, thaw: Thaw | None) -> datetime:
        if step in (Step.READ, Step.EXTEND):
            return self.now
        if thaw is not None and step in (Step.JOIN, Step.WAIT):
            return max(thaw.ready_at, self.now)
        return self.now + promise(archive.storage_class, self.need.tier)

    def _count(self, uses: list[Use]) -> None:
        for use in uses:
            self._quantities[use.purpose, use.charge] += use.quantity

    def estimate(self) -> Estimate:
        """The sums so far."""
        uses = (
            Use(purpose=purpose, charge=charge, quantity=quantity)
            for (purpose, charge), quantity in self._quantities.items()
        )
        return Estimate(
            bill=Bill(prices=US_EAST_1, uses=tuple(uses)),
            steps=dict(self._steps),
            thaw_bytes=self._thaw_bytes,
            thaw_micro_usd=self._thaw_micro_usd,
            ready_at=self._ready_at or self.now,
            not_offered=tuple(self._not_offered),
        )


def _fetching(archive: ArchiveRow, portion: Portion) -> list[Use]:
    """Reading members, and writing objects.

    A large object goes to a bucket by a copy that S3 makes, in parts if need be; to a folder it is read once.
    """
    placed, local = portion.files.get(Kind.S3, 0), portion.files.get(Kind.LOCAL, 0)
    reads, writes = portion.reads, placed
    if archive.kind == "object":
        reads = local
        if archive.size_bytes > SINGLE_COPY_BYTES:
            writes = placed * (len(ranges(archive.size_bytes)) + 2)  # it is opened and completed besides
    return read_uses(archive.storage_class, reads=reads, writes=writes, size_bytes=portion.size_bytes)
