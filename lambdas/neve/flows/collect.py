"""Collect: put references to announced versions into the open bundle.

A version that ends in two bundles is harmless: the first row wins. One that ends in none would be lost. So a bundle's
timer is sent before the bundle exists, a part is written before the counters say so, and the messages are acknowledged
only when collect() has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from neve.domain.bundle import (
    Bundle,
    BundleState,
    Lane,
    Limits,
    by_size,
    distinct,
    fill,
    large_id,
    total_bytes,
    write_request,
)
from neve.domain.manifest import Kind
from neve.domain.version import ObjectVersion
from neve.errors import Transient
from neve.ports import Bundles, Queue

MAX_TRIES = 60
"""How often one batch looks for room before it goes back to the queue; each try lost means that others filled one."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of a batch: distinct versions noted, and bundles on their way to be written."""

    versions: int
    size_bytes: int
    large: int
    full: int


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collect's rules over its ports, in one lane, whose queues these are.

    `new_id` gives a random id, never the same twice.
    """

    lane: Lane
    bundles: Bundles
    bundles_queue: Queue
    large_queue: Queue
    limits: Limits
    new_id: Callable[[], str]

    def collect(self, versions: Sequence[ObjectVersion], now: datetime, *, waited_s: float = 0.0) -> Collected:
        """Note every version in a bundle. When this returns, none of them can be lost any more.

        The first of them was announced `waited_s` ago: the timer of a bundle that is opened for them is so much
        shorter. Raises Transient if AWS fails; versions noted until then are noted twice at the next try, which is
        harmless.
        """
        wanted = distinct(versions)
        small, large = by_size(wanted, self.limits)
        for version in large:
            self._collect_large(version, now)
        full = 0
        tries = 0
        while small:
            taken = small[: fill(small, self.limits)]
            if self.limits.full(size_bytes=total_bytes(taken), count=len(taken)):
                self._seal_whole(taken, now)
                full += 1
            else:
                bundle = self._open_bundle(now, waited_s)
                taken = small[: fill(small, self.limits, size_bytes=bundle.size_bytes, count=bundle.count)]
                grown = self._add(bundle.id, taken, now)
                if grown is None:
                    tries += 1
                    if tries == MAX_TRIES:
                        raise Transient(f"no room found for {len(small)} versions in {MAX_TRIES} tries")
                    continue
                if self.limits.full(size_bytes=grown.size_bytes, count=grown.count):
                    self.bundles_queue.send(write_request(bundle.id))
                    full += 1
            small = small[len(taken) :]
        return Collected(versions=len(wanted), size_bytes=total_bytes(wanted), large=len(large), full=full)

    def _add(self, bundle_id: str, versions: Sequence[ObjectVersion], now: datetime) -> Bundle | None:
        """Note `versions` in an open bundle; None, and no trace, if it has no room for them any more."""
        part_id = self.new_id()
        self.bundles.put_part(bundle_id, part_id, versions, now)
        grown = self.bundles.grow(bundle_id, size_bytes=total_bytes(versions), count=len(versions), limits=self.limits)
        if grown is None:
            self.bundles.delete_part(bundle_id, part_id, versions)
        return grown

    def _seal_whole(self, versions: Sequence[ObjectVersion], now: datetime) -> None:
        """A batch that fills bundles by itself passes the lane by."""
        bundle_id = self.new_id()
        self.bundles.put_part(bundle_id, self.new_id(), versions, now)
        self.bundles.create(self._sealed(bundle_id, "tar", versions, now))
        self.bundles_queue.send(write_request(bundle_id))

    def _collect_large(self, version: ObjectVersion, now: datetime) -> None:
        """However often it is announced it has one bundle, unless that one was given up: then it gets another try."""
        bundle_id = large_id(version)
        if not self._create_large(bundle_id, version, now):
            standing = self.bundles.get(bundle_id)
            if standing is None or standing.state is BundleState.VOID:
                bundle_id = self.new_id()
                self._create_large(bundle_id, version, now)
        self.large_queue.send(write_request(bundle_id))

    def _create_large(self, bundle_id: str, version: ObjectVersion, now: datetime) -> bool:
        self.bundles.put_part(bundle_id, "0", [version], now)
        return self.bundles.create(self._sealed(bundle_id, "object", [version], now))

    def _sealed(self, bundle_id: str, kind: Kind, versions: Sequence[ObjectVersion], now: datetime) -> Bundle:
        return Bundle(
            id=bundle_id,
            kind=kind,
            state=BundleState.SEALED,
            size_bytes=total_bytes(versions),
            count=len(versions),
            due_at=self.limits.due_at(now, self.lane),
            lane=self.lane,
        )

    def _open_bundle(self, now: datetime, waited_s: float) -> Bundle:
        """The bundle that the lane names, or a new one that it names from now on."""
        for _ in range(MAX_TRIES):
            previous = self.bundles.lane(self.lane)
            current = self.bundles.get(previous) if previous else None
            if current and current.state is BundleState.OPEN and not self._is_full(current):
                return current
            opened = Bundle(
                id=self.new_id(),
                kind="tar",
                state=BundleState.OPEN,
                size_bytes=0,
                count=0,
                due_at=self.limits.due_at(now, self.lane),
                lane=self.lane,
            )
            self.bundles_queue.send(write_request(opened.id), delay_s=self.limits.timer_s(waited_s))
            if not self.bundles.create(opened):
                continue  # the timer was here first and has made it void
            if self.bundles.move_lane(self.lane, previous=previous, to=opened.id):
                return opened
            self.bundles.void(opened, now)
        raise Transient(f"no bundle could be opened in {MAX_TRIES} tries")

    def _is_full(self, bundle: Bundle) -> bool:
        return self.limits.full(size_bytes=bundle.size_bytes, count=bundle.count)
