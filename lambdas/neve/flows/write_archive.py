"""WriteArchive: make a tar of a bundle's versions.

The manifest object is the freeze point: it is written once, holds the list of members and the SHA-256 of the tar, and
whoever comes later builds exactly that. Then come the tar, the archive's row, the files' rows and the states; each step
can be repeated after a crash at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from neve.domain.bundle import Bundle, distinct
from neve.domain.events import announcements
from neve.domain.manifest import Manifest, Source, archive_key
from neve.domain.outcome import Outcome, Written
from neve.domain.parked import Parked, Reason, reason_for
from neve.domain.tar import Rope, build, check
from neve.domain.version import ObjectVersion
from neve.errors import SourceDamaged, SourceUnavailable, Transient
from neve.flows.commit import Committer, claimed
from neve.ports import ArchiveStore, Bundles, Content, Files, ParkingLot, Queue

PATIENCE = 3
"""From this attempt on, members that fail while others can be read are parked, so that they hold back nobody."""

Fetched = tuple[Source, bytes]
Failure = SourceUnavailable | SourceDamaged | Transient


@dataclass(frozen=True, kw_only=True)
class ArchiveWriter:
    """WriteArchive's rules over its ports. `bucket` is the content bucket's name, `clock` tells the time in UTC."""

    content: Content
    store: ArchiveStore
    bundles: Bundles
    files: Files
    parking_lot: ParkingLot
    collect_queue: Queue
    committer: Committer
    bucket: str
    threads: int
    clock: Callable[[], datetime]

    def write(self, bundle_id: str, *, owner: str, attempt: int, until: datetime) -> Written:
        """Archive the bundle, whatever an earlier try has already done.

        `owner` names this try's message, `attempt` counts its deliveries from 1, `until` is when this process ends.
        Raises Transient if it is worth trying again, and Busy while another writes it.
        """
        with claimed(self.bundles, bundle_id, owner=owner, now=self.clock(), until=until) as bundle:
            if bundle is None:
                return Written(outcome=Outcome.FINISHED_BEFORE)
            manifest = self.store.manifest(bundle.serial) if bundle.serial else None
            if manifest is None:
                return self._write_new(bundle, attempt)
            return self._write_frozen(bundle, manifest)

    def _write_new(self, bundle: Bundle, attempt: int) -> Written:
        """Nothing is frozen yet: the members are those of the parts that can be read and are in no archive yet."""
        announced = distinct(self.bundles.parts(bundle.id))
        if bundle.count and not announced:
            self._park(bundle, Reason.PARTS_MISSING, detail=f"{bundle.count} versions were noted, no part is left")
        held = self.files.holders(announced)
        wanted = [version for version in announced if version.identity not in held]
        fetched, failed = self._fetch(wanted)
        unread = [(version, error) for version, error in failed if isinstance(error, Transient)]
        if unread and (attempt < PATIENCE or not fetched):
            version, error = unread[0]
            raise Transient(f"{len(unread)} of {len(wanted)} members cannot be read now, {version.key!r}: {error}")
        self._park_failed(bundle, failed)
        if not fetched:
            self.bundles.void(bundle, self.clock())
            return Written(outcome=Outcome.VOID, duplicates=len(held), parked=len(failed))
        serial = bundle.serial or self.bundles.assign_serial(bundle.id)
        manifest, rope = build(serial, self.bucket, archive_key(serial, bundle.kind), [pair for _, pair in fetched])
        check(rope, manifest)
        if not self.store.put_manifest(manifest):
            frozen = self.store.manifest(serial)
            if frozen is None:
                raise Transient(f"the manifest of archive {serial} is being written by another")
            if frozen != manifest:
                return self._write_frozen(bundle, frozen)
        return self._send(bundle, manifest, rope, parked=len(failed), dropped=len(held))

    def _write_frozen(self, bundle: Bundle, manifest: Manifest) -> Written:
        """The list stands: exactly this archive is completed, or given up if it can never be built again."""
        if self.store.head(manifest.object_key):
            return self._send(bundle, manifest, None)
        members = {_version(member.source).identity: member.source for member in manifest.members}
        fetched, failed = self._fetch([_version(source) for source in members.values()])
        for _, error in failed:
            if isinstance(error, Transient):
                raise error
        pairs = [(members[version.identity], body) for version, (_, body) in fetched]
        if not failed and all(found.sha256 == members[version.identity].sha256 for version, (found, _) in fetched):
            rebuilt, rope = build(manifest.archive, manifest.bucket, manifest.object_key, pairs)
            if rebuilt == manifest:
                check(rope, manifest)
                return self._send(bundle, manifest, rope)
        return self._give_up(bundle, [version for version, _ in fetched], failed)

    def _give_up(
        self, bundle: Bundle, readable: Sequence[ObjectVersion], failed: Sequence[tuple[ObjectVersion, Failure]]
    ) -> Written:
        """A member of the frozen list is gone: the others go to Collect again, and this bundle becomes void.

        Its manifest stays behind without an archive, or with one that no row names; reconcile lists it.
        """
        for message in announcements(self.bucket, readable):
            self.collect_queue.send(message)
        self._park_failed(bundle, failed)
        self.bundles.void(bundle, self.clock())
        return Written(outcome=Outcome.VOID, serial=bundle.serial, parked=len(failed), collected_again=len(readable))

    def _send(
        self, bundle: Bundle, manifest: Manifest, rope: Rope | None, *, parked: int = 0, dropped: int = 0
    ) -> Written:
        """Put the tar unless it stands; index it once S3 states that it is what the manifest says."""
        stored = None if rope is None else self.store.put(manifest.object_key, rope, manifest.object_sha256)
        stored = stored or self.store.head(manifest.object_key)
        if stored is None:
            raise Transient(f"{manifest.object_key} is being written by another")
        if (stored.size_bytes, stored.sha256) != (manifest.object_size_bytes, manifest.object_sha256):
            self._park(
                bundle,
                Reason.ARCHIVE_CONFLICT,
                detail=f"{manifest.object_key} has {stored.size_bytes} bytes, SHA-256 {stored.sha256 or 'unknown'}; "
                f"its manifest says {manifest.object_size_bytes} and {manifest.object_sha256}",
            )
            return Written(outcome=Outcome.CONFLICT, serial=manifest.archive, parked=1)
        duplicates = self.committer.commit(bundle, manifest, stored, self.clock())
        return Written(
            outcome=Outcome.ARCHIVED,
            serial=manifest.archive,
            files=len(manifest.members),
            source_bytes=sum(member.source.size_bytes for member in manifest.members),
            duplicates=duplicates + dropped,
            parked=parked,
            oldest_at=min(member.source.last_modified for member in manifest.members),
        )

    def _fetch(
        self, versions: Sequence[ObjectVersion]
    ) -> tuple[list[tuple[ObjectVersion, Fetched]], list[tuple[ObjectVersion, Failure]]]:
        """What could be read, and what could not and why; both in the order of `versions`."""
        fetched: list[tuple[ObjectVersion, Fetched]] = []
        failed: list[tuple[ObjectVersion, Failure]] = []
        with ThreadPoolExecutor(self.threads) as pool:
            for version, result in zip(versions, pool.map(self._fetch_one, versions), strict=True):
                if isinstance(result, tuple):
                    fetched.append((version, result))
                else:
                    failed.append((version, result))
        return fetched, failed

    def _fetch_one(self, version: ObjectVersion) -> Fetched | Failure:
        try:
            return self.content.fetch(version)
        except (SourceUnavailable, SourceDamaged, Transient) as error:
            return error

    def _park_failed(self, bundle: Bundle, failed: Sequence[tuple[ObjectVersion, Failure]]) -> None:
        for version, error in failed:
            self._park(bundle, reason_for(error), detail=str(error), version=version)

    def _park(self, bundle: Bundle, reason: Reason, *, detail: str, version: ObjectVersion | None = None) -> None:
        self.parking_lot.park(
            Parked(reason=reason, bundle=bundle.id, detail=detail, version=version, parked_at=self.clock())
        )


def _version(source: Source) -> ObjectVersion:
    """What to fetch to get the bytes of `source` again."""
    return ObjectVersion(
        key=source.key,
        version_id=source.version_id,
        size_bytes=source.size_bytes,
        etag=source.etag,
        sequencer="",
        event_at=source.last_modified,
    )
