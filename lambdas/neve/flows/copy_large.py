"""CopyLarge: an object over the target size becomes an archive of its own, copied by S3 itself.

The copy is pinned to its version, so repeating it gives the same bytes. The manifest is written once the copy stands
and is proved, then the index as for any archive. A copy in parts goes on where an earlier try ended.

A bundle that supersedes a damaged archive is a repair: its source counts only if its copy is proved to be what was
archived before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from neve.domain.bundle import Bundle, distinct, write_request
from neve.domain.events import announcements
from neve.domain.large import SINGLE_COPY_BYTES, Range, in_waves, proof_algorithm, proven, ranges
from neve.domain.manifest import Manifest, Source, archive_key, parse_source, render_source, single
from neve.domain.outcome import Outcome, Written
from neve.domain.parked import Parked, Reason, reason_for
from neve.domain.version import ObjectVersion
from neve.errors import SourceLost, SourceUnavailable, Transient
from neve.flows.commit import Committer, claimed, disown, is_of, numbered
from neve.flows.rescue import Proof, damaged, proof_of, unrescued
from neve.ports import ArchiveStore, Bundles, Content, Files, ParkingLot, Queue, StoredArchive


@dataclass(frozen=True, kw_only=True)
class LargeCopier:
    """CopyLarge's rules over its ports. `bucket` is the content bucket's name, `clock` tells the time in UTC."""

    content: Content
    store: ArchiveStore
    bundles: Bundles
    files: Files
    parking_lot: ParkingLot
    collect_queue: Queue
    large_queue: Queue
    committer: Committer
    bucket: str
    clock: Callable[[], datetime]
    single_copy_bytes: int = SINGLE_COPY_BYTES
    cut: Callable[[int], list[Range]] = ranges

    def copy(self, bundle_id: str, *, owner: str, until: datetime) -> Written:
        """Archive the bundle's one version, whatever an earlier try has already done.

        Raises Transient if it is worth trying again, and Busy while another copies it.
        """
        with claimed(self.bundles, bundle_id, owner=owner, now=self.clock(), until=until) as bundle:
            if bundle is None:
                return Written(outcome=Outcome.FINISHED_BEFORE)
            versions = distinct(self.bundles.parts(bundle.id))
            frozen = self.store.manifest(bundle.serial) if bundle.serial else None
            if frozen and not is_of(frozen, bundle, versions):
                disown(self.bundles, bundle.id, bundle.serial)
            proved = self.store.head(frozen.object_key) if frozen else None
            if frozen and proved:
                return self._commit(bundle, frozen, proved)
            if not versions:
                return self._give_up(bundle, Reason.PARTS_MISSING, detail="its part is gone")
            return self._copy_new(bundle, versions[0], owner, until)

    def _copy_new(self, bundle: Bundle, version: ObjectVersion, owner: str, until: datetime) -> Written:
        """Nothing is frozen yet: the source is copied, or the copy that stands is proved.

        What S3 says of the source is recorded with the serial, before anything is copied: were the source deleted
        between the copy and its manifest, the copy would be all that is left of it.
        """
        holder = self.files.holders([version]).get(version.identity, bundle.serial)
        if holder not in (bundle.serial, bundle.supersedes):
            self._void(bundle)
            return Written(outcome=Outcome.VOID, duplicates=1)
        proof = self._proof(bundle, version)
        try:
            source = parse_source(bundle.source) if bundle.source else self.content.describe(version)
            if proof and proof.refutes(source):
                raise SourceLost(f"S3 states other checksums of {version.key!r} than its damaged archive had")
            bundle = numbered(self.bundles, bundle, source=render_source(source))
            key = archive_key(bundle.serial, bundle.kind)
            algorithm = proof_algorithm(source.size_bytes, proof.checksums if proof else source.checksums)
            stored = self.store.head(key) or self._copy(bundle, key, version, algorithm, until)
        except SourceUnavailable as error:
            if bundle.done_without(error):
                self._void(bundle)
                return Written(outcome=Outcome.VOID, gone=1)
            reason = unrescued(error) if bundle.supersedes else reason_for(error)
            return self._give_up(bundle, reason, detail=str(error), version=version)
        if stored is None:
            self.bundles.release(bundle.id, owner=owner)
            self.large_queue.send(write_request(bundle.id))
            return Written(outcome=Outcome.CONTINUED, serial=bundle.serial)
        return self._index(bundle, version, source, proof, stored)

    def _proof(self, bundle: Bundle, version: ObjectVersion) -> Proof | None:
        """What the copy has to be, if the bundle is a repair."""
        if not bundle.supersedes:
            return None
        archive = damaged(self.committer.archives, bundle.supersedes)
        return proof_of(self.files, self.store, archive, version)

    def _index(
        self, bundle: Bundle, version: ObjectVersion, source: Source, proof: Proof | None, stored: StoredArchive
    ) -> Written:
        """Bring the copy into the index, unless S3's checksums say that it differs from its source.

        If there is a `proof`, they have to say that it does not differ from what was archived before. A repair that is
        given up is not begun anew: every try may leave an object of terabytes behind, which nobody may delete.
        """
        key = archive_key(bundle.serial, bundle.kind)
        same = proven(source.checksums, source.etag, stored.checksums, stored.etag)
        found = f"{key} has {stored.size_bytes} bytes and {dict(stored.checksums)}"
        if same is False or stored.size_bytes != source.size_bytes:
            again = [] if proof else [version]
            for message in announcements(self.bucket, again):
                self.collect_queue.send(message)
            detail = f"{found}, its source {source}"
            given_up = self._give_up(bundle, Reason.ARCHIVE_CONFLICT, detail=detail, version=version)
            return replace(given_up, outcome=Outcome.CONFLICT, serial=bundle.serial, collected_again=len(again))
        if proof and not proof.proves(stored):
            detail = f"{found}, which does not prove that its source is what archive {bundle.supersedes} held"
            return self._give_up(bundle, Reason.LOST, detail=detail, version=version)
        manifest = single(
            archive=bundle.serial,
            bucket=self.bucket,
            object_key=key,
            source=replace(source, sha256=stored.sha256, checksums={**source.checksums, **stored.checksums}),
            supersedes=bundle.supersedes or None,
        )
        if not self.store.put_manifest(manifest):
            standing = self.store.manifest(bundle.serial)
            if standing is None:
                raise Transient(f"the manifest of archive {bundle.serial} is being written by another")
            if not is_of(standing, bundle, [version]):
                disown(self.bundles, bundle.id, bundle.serial)
            manifest = standing
        return self._commit(bundle, manifest, stored, unproven=int(same is None))

    def _commit(self, bundle: Bundle, manifest: Manifest, stored: StoredArchive, *, unproven: int = 0) -> Written:
        """The manifest stands, so the copy was proved: what is left needs the source no more."""
        source = manifest.members[0].source
        return Written(
            outcome=Outcome.ARCHIVED,
            serial=bundle.serial,
            files=1,
            source_bytes=source.size_bytes,
            duplicates=self.committer.commit(bundle, manifest, stored, self.clock),
            unproven=unproven,
            supersedes=bundle.supersedes,
            oldest_at=source.last_modified if bundle.of_uploads else None,
        )

    def _copy(
        self, bundle: Bundle, key: str, version: ObjectVersion, algorithm: str, until: datetime
    ) -> StoredArchive | None:
        """Copy the version to `key`; None if the time did not suffice for all of its parts."""
        if version.size_bytes <= self.single_copy_bytes:
            self.store.copy(key, version, algorithm)
        elif not self._copy_parts(bundle, key, version, algorithm, until):
            return None
        stored = self.store.head(key)
        if stored is None:
            raise Transient(f"{key} is being written by another")
        return stored

    def _copy_parts(self, bundle: Bundle, key: str, version: ObjectVersion, algorithm: str, until: datetime) -> bool:
        upload_id, etags = bundle.upload_id, None
        if upload_id:
            etags = self.store.uploaded(key, upload_id)
        if etags is None:
            started = self.store.start_upload(key, algorithm)
            upload_id = self.bundles.record_upload(bundle.id, previous=upload_id, upload_id=started)
            etags = self.store.uploaded(key, upload_id) or {}
        missing = [part for part in self.cut(version.size_bytes) if part.number not in etags]
        copied = in_waves(
            missing,
            lambda part: self.store.copy_part(key, upload_id, version, part),
            clock=self.clock,
            until=until,
        )
        if copied is None:
            return False
        self.store.complete_upload(key, upload_id, {**etags, **copied})
        return True

    def _give_up(self, bundle: Bundle, reason: Reason, *, detail: str, version: ObjectVersion | None = None) -> Written:
        self.parking_lot.park(
            Parked(reason=reason, bundle=bundle.id, detail=detail, version=version, parked_at=self.clock())
        )
        self._void(bundle)
        return Written(outcome=Outcome.VOID, parked=1)

    def _void(self, bundle: Bundle) -> None:
        if not self.bundles.void(bundle, self.clock()):
            raise Transient(f"bundle {bundle.id} has changed hands")
