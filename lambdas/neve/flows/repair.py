"""Order a repair: a superseding bundle, which WriteArchive or CopyLarge writes like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.bundle import Bundle, BundleState, total_bytes, write_request
from neve.domain.index import ArchiveRow
from neve.domain.version import ObjectVersion
from neve.ports import Bundles, Queue

WRITTEN_WITHIN = timedelta(minutes=15)
"""After that the sweep worries: nobody collects for such a bundle, so it should be written at once."""


def repair_id(archive: ArchiveRow) -> str:
    """The id of the bundle that repairs an archive: the same for whoever orders it, until an archive stands for it."""
    return f"repair-{archive.serial}-{archive.superseded_by}"


@dataclass(frozen=True, kw_only=True)
class Repairer:
    """How a repair is ordered, over its ports."""

    bundles: Bundles
    bundles_queue: Queue
    large_queue: Queue

    def order(self, archive: ArchiveRow, versions: Sequence[ObjectVersion], *, run: str, now: datetime) -> Bundle:
        """Have `versions` of the damaged `archive` archived anew; the bundle that does so, as it stands.

        `versions` are those that the archive's members came from, one for an archive of kind `object`; what another
        archive's row has is left out when the bundle is written. However many runs find the same damage, and however
        often one asks, it is ordered once: a bundle that is archived was done before, and one that is not finished is
        sent its message again. If nothing could be saved, which leaves it void, a later run tries again.

        The parts come before the bundle, and the bundle before its message: a death in between is mended by asking
        again, or by the sweep.
        """
        bundle_id = repair_id(archive)
        standing = self.bundles.get(bundle_id)
        if standing is not None and standing.state is BundleState.VOID:
            bundle_id = f"{bundle_id}-{run}"
            standing = self.bundles.get(bundle_id)
        if standing is None:
            standing = Bundle(
                id=bundle_id,
                kind=archive.kind,
                state=BundleState.SEALED,
                size_bytes=total_bytes(versions),
                count=len(versions),
                due_at=now + WRITTEN_WITHIN,
                supersedes=archive.serial,
            )
            self.bundles.put_part(bundle_id, "0", versions, now)
            self.bundles.create(standing)  # refused, if the same order was given twice at once: it is the same bundle
        if not standing.finished:
            queue = self.large_queue if archive.kind == "object" else self.bundles_queue
            queue.send(write_request(bundle_id))
        return standing
