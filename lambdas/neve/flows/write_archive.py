"""WriteArchive: make a tar of a bundle's versions.

The manifest object is the freeze point: it is written once, holds the list of members and the SHA-256 of the tar, and
whoever comes later builds exactly that. Then come the tar, the archive's row, the files' rows and the states; each step
can be repeated after a crash at any point.

A bundle that supersedes a damaged archive is a repair. Its members come from wherever they are intact
(neve.flows.rescue), and none of them is ever sent to Collect, which would find them in the index and drop them: what
cannot be read is waited for, and parked in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NoReturn

from neve.domain.bundle import Bundle, distinct, version_of
from neve.domain.events import announcements
from neve.domain.manifest import Manifest, Source, archive_key
from neve.domain.outcome import Outcome, Written
from neve.domain.parked import Parked, Reason, reason_for
from neve.domain.tar import Rope, build, check
from neve.domain.version import ObjectVersion
from neve.errors import SourceDamaged, SourceDenied, SourceFrozen, SourceUnavailable, Transient
from neve.flows.commit import Committer, claimed, disown, is_of, numbered
from neve.flows.rescue import Rescue, rescue_of, unrescued
from neve.ports import ArchiveReader, ArchiveStore, Bundles, Content, Files, ParkingLot, Queue

PATIENCE = 3
"""From this try on, members that cannot be read now no longer hold back those that can."""

FORBEARANCE = timedelta(days=1)
"""So long after its event a version that S3 still fails to hand out is parked; until then it is collected again.

A repair waits so long for all of its members, from the time when it should have been written.
"""

Fetched = tuple[Source, bytes]
Failure = SourceUnavailable | SourceDamaged | Transient


@dataclass(frozen=True, kw_only=True)
class ArchiveWriter:
    """WriteArchive's rules over its ports. `bucket` is the content bucket's name, `clock` tells the time in UTC."""

    content: Content
    store: ArchiveStore
    reader: ArchiveReader
    bundles: Bundles
    files: Files
    parking_lot: ParkingLot
    collect_queue: Queue
    committer: Committer
    bucket: str
    threads: int
    clock: Callable[[], datetime]

    def write(self, bundle_id: str, *, owner: str, until: datetime) -> Written:
        """Archive the bundle, whatever an earlier try has already done.

        `owner` names this invocation, which ends by `until`. Raises Transient if it is worth trying again, and Busy
        while another writes it.
        """
        with claimed(self.bundles, bundle_id, owner=owner, now=self.clock(), until=until) as bundle:
            if bundle is None:
                return Written(outcome=Outcome.FINISHED_BEFORE)
            announced = self.bundles.parts(bundle.id)
            manifest = self.store.manifest(bundle.serial) if bundle.serial else None
            if manifest is None:
                return self._write_new(bundle, announced)
            if not is_of(manifest, bundle, announced):
                disown(self.bundles, bundle.id, bundle.serial)
            return self._write_frozen(bundle, manifest, announced)

    def _write_new(self, bundle: Bundle, announced: Sequence[ObjectVersion]) -> Written:
        """Nothing is frozen yet: the members are those of the parts that can be read and are in no archive yet.

        The damaged archive that the bundle supersedes does not count.
        """
        missing = len(announced) < bundle.count
        if missing:
            detail = f"{bundle.count} versions were noted, {len(announced)} are left"
            self._park(bundle, Reason.PARTS_MISSING, detail=detail)
        versions = distinct(announced)
        holders = self.files.holders(versions)
        held = {identity for identity, serial in holders.items() if serial != bundle.supersedes}
        wanted = [version for version in versions if version.identity not in held]
        fetched, failed = self._fetch(bundle, wanted)
        gone = _pass_over(bundle, failed)
        again = self._put_off(bundle, fetched, failed)
        parked = len(failed) + missing
        if not fetched:
            self._void(bundle)
            return Written(
                outcome=Outcome.VOID, duplicates=len(held), parked=parked, gone=gone, collected_again=len(again)
            )
        bundle = numbered(self.bundles, bundle)
        serial = bundle.serial
        manifest, rope = build(
            serial,
            self.bucket,
            archive_key(serial, bundle.kind),
            [pair for _, pair in fetched],
            supersedes=bundle.supersedes or None,
        )
        check(rope, manifest)
        if not self.store.put_manifest(manifest):
            frozen = self.store.manifest(serial)
            if frozen is None:
                raise Transient(f"the manifest of archive {serial} is being written by another")
            if not is_of(frozen, bundle, announced):
                disown(self.bundles, bundle.id, serial)
            if frozen != manifest:
                return self._write_frozen(bundle, frozen, announced)
        written = self._send(bundle, manifest, rope)
        return replace(
            written,
            duplicates=written.duplicates + len(held),
            parked=written.parked + parked,
            gone=written.gone + gone,
            collected_again=written.collected_again + len(again),
        )

    def _write_frozen(self, bundle: Bundle, manifest: Manifest, announced: Sequence[ObjectVersion]) -> Written:
        """The list stands: exactly this archive is completed, or given up if it can never be built again; a repair then
        begins anew, under another serial.

        What the list leaves out is collected again, unless it is that of a repair. Mostly that is needless, since the
        try that froze the list has dealt with it. But after the counter went back the list may be that of another
        bundle, with none but this one's files.
        """
        members = {member.source.identity: member.source for member in manifest.members}
        left_out = [version for version in distinct(announced) if version.identity not in members]
        if not bundle.supersedes:
            held = self.files.holders(left_out)
            self._collect_again([version for version in left_out if version.identity not in held])
        if self.store.head(manifest.object_key):
            return self._send(bundle, manifest, None)
        fetched, failed = self._fetch(bundle, [version_of(source) for source in members.values()])
        gone = _pass_over(bundle, failed)
        again = self._put_off(bundle, fetched, failed)
        pairs = [(members[version.identity], body) for version, (_, body) in fetched]
        whole = not failed and not again and not gone
        if whole and all(found.sha256 == members[version.identity].sha256 for version, (found, _) in fetched):
            rebuilt, rope = build(
                manifest.archive, manifest.bucket, manifest.object_key, pairs, supersedes=manifest.supersedes
            )
            if rebuilt == manifest:
                check(rope, manifest)
                return self._send(bundle, manifest, rope)
        # Its manifest stays behind without an archive, or with one that no row names; reconcile lists it.
        if bundle.supersedes:
            self._begin_anew(bundle)
        self._collect_again([version for version, _ in fetched])
        self._void(bundle)
        return Written(
            outcome=Outcome.VOID,
            serial=bundle.serial,
            parked=len(failed),
            gone=gone,
            collected_again=len(fetched) + len(again),
        )

    def _put_off(
        self,
        bundle: Bundle,
        fetched: Sequence[tuple[ObjectVersion, Fetched]],
        failed: list[tuple[ObjectVersion, Failure]],
    ) -> list[ObjectVersion]:
        """Deal with what could not be read: park it, or send it to Collect again, where it holds back nobody.

        The versions that are collected again are returned, and taken out of `failed`; what is left there is parked.
        Raises Transient if the whole bundle is better tried again: at first, and as long as nothing at all can be read
        and the reason may pass - S3 fails, or a deployment took the permission away. A repair is tried again for as
        long as anything at all may yet be read, since nobody else will.
        """
        unread = [(version, error) for version, error in failed if isinstance(error, Transient)]
        recent = [version for version, _ in failed if version.event_at > self.clock() - FORBEARANCE]
        patient = bundle.tries < PATIENCE
        if bundle.supersedes:
            fresh = bundle.due_at > self.clock() - FORBEARANCE
            recent = [version for version, _ in failed if fresh]
            patient = patient or fresh
        denied = (
            len(failed) > 1
            and all(isinstance(error, SourceDenied) for _, error in failed)
            and not all(isinstance(error, SourceFrozen) for _, error in failed)
        )
        in_vain = not fetched and bool(recent) and (bool(unread) or denied)
        if failed and (in_vain or (unread and patient)):
            version, error = (unread or failed)[0]
            count = f"{len(unread or failed)} of {len(fetched) + len(failed)}"
            raise Transient(f"{count} members cannot be read now, {version.key!r}: {error}")
        again = [version for version, _ in unread if version in recent]
        self._collect_again(again)
        failed[:] = [(version, error) for version, error in failed if version not in again]
        for version, error in failed:
            reason = unrescued(error) if bundle.supersedes else reason_for(error)
            self._park(bundle, reason, detail=str(error), version=version)
        return again

    def _collect_again(self, versions: Sequence[ObjectVersion]) -> None:
        for message in announcements(self.bucket, versions):
            self.collect_queue.send(message)

    def _begin_anew(self, bundle: Bundle) -> NoReturn:
        """Give the serial of a repair back: its next try draws another, and lists what can be read then."""
        self.bundles.drop_serial(bundle.id, bundle.serial)
        raise Transient(f"archive {bundle.serial} cannot be completed; its bundle {bundle.id} gets another number")

    def _void(self, bundle: Bundle) -> None:
        if not self.bundles.void(bundle, self.clock()):
            raise Transient(f"bundle {bundle.id} has changed hands")

    def _send(self, bundle: Bundle, manifest: Manifest, rope: Rope | None) -> Written:
        """Put the tar unless it stands; index it once S3 states that it is what the manifest says."""
        stored = None if rope is None else self.store.put(manifest.object_key, rope, manifest.object_sha256)
        stored = stored or self.store.head(manifest.object_key)
        if stored is None:
            raise Transient(f"{manifest.object_key} is being written by another")
        if (stored.size_bytes, stored.sha256) != (manifest.object_size_bytes, manifest.object_sha256):
            detail = (
                f"{manifest.object_key} has {stored.size_bytes} bytes, SHA-256 {stored.sha256 or 'unknown'}; "
                f"its manifest says {manifest.object_size_bytes} and {manifest.object_sha256}"
            )
            self._park(bundle, Reason.ARCHIVE_CONFLICT, detail=detail)
            if bundle.supersedes:
                self._begin_anew(bundle)
            self._collect_again([version_of(member.source) for member in manifest.members])
            self._void(bundle)
            return Written(
                outcome=Outcome.CONFLICT,
                serial=manifest.archive,
                parked=1,
                collected_again=len(manifest.members),
            )
        return Written(
            outcome=Outcome.ARCHIVED,
            serial=manifest.archive,
            files=len(manifest.members),
            source_bytes=sum(member.source.size_bytes for member in manifest.members),
            duplicates=self.committer.commit(bundle, manifest, stored, self.clock),
            supersedes=bundle.supersedes,
            # How old the members of a repair are says nothing of how far behind archiving is.
            oldest_at=min(each.source.last_modified for each in manifest.members) if bundle.of_uploads else None,
        )

    def _fetch(
        self, bundle: Bundle, versions: Sequence[ObjectVersion]
    ) -> tuple[list[tuple[ObjectVersion, Fetched]], list[tuple[ObjectVersion, Failure]]]:
        """What could be read, and what could not and why; both in the order of `versions`."""
        fetched: list[tuple[ObjectVersion, Fetched]] = []
        failed: list[tuple[ObjectVersion, Failure]] = []
        fetch = self._rescue(bundle.supersedes, versions).fetch if bundle.supersedes else self.content.fetch

        def attempt(version: ObjectVersion) -> Fetched | Failure:
            try:
                return fetch(version)
            except (SourceUnavailable, SourceDamaged, Transient) as error:
                return error

        with ThreadPoolExecutor(self.threads) as pool:
            for version, result in zip(versions, pool.map(attempt, versions), strict=True):
                if isinstance(result, tuple):
                    fetched.append((version, result))
                else:
                    failed.append((version, result))
        return fetched, failed

    def _rescue(self, serial: int, versions: Sequence[ObjectVersion]) -> Rescue:
        return rescue_of(
            content=self.content,
            store=self.store,
            reader=self.reader,
            archives=self.committer.archives,
            files=self.files,
            serial=serial,
            versions=versions,
        )

    def _park(self, bundle: Bundle, reason: Reason, *, detail: str, version: ObjectVersion | None = None) -> None:
        self.parking_lot.park(
            Parked(reason=reason, bundle=bundle.id, detail=detail, version=version, parked_at=self.clock())
        )


def _pass_over(bundle: Bundle, failed: list[tuple[ObjectVersion, Failure]]) -> int:
    """Take out of `failed` what the bundle is done without; how many."""
    left = [(version, error) for version, error in failed if not bundle.done_without(error)]
    gone = len(failed) - len(left)
    failed[:] = left
    return gone
