"""What an archive holds: by its manifest, and by the MANIFEST.json in the tar itself."""

from __future__ import annotations

from neve.domain.index import ArchiveRow
from neve.domain.manifest import BLOCK_BYTES, Contents, Manifest, parse_contents
from neve.domain.tar import contents_end
from neve.errors import ManifestInvalid
from neve.ports import ArchiveReader, ArchiveStore


def manifest_of(store: ArchiveStore, archive: ArchiveRow) -> Manifest | None:
    """The manifest of an archive; None if it is gone, cannot be read, or is another's."""
    try:
        manifest = store.manifest(archive.serial)
    except ManifestInvalid:
        return None
    of_archive = (archive.serial, archive.kind, archive.object_key)
    return manifest if manifest and (manifest.archive, manifest.kind, manifest.object_key) == of_archive else None


def contents_of(reader: ArchiveReader, archive: ArchiveRow) -> Contents:
    """What a tar says of itself: two reads of its beginning.

    Raises ManifestInvalid if it says nothing that can be read, Asleep, ArchiveUnreadable or Transient.
    """
    end = contents_end(reader.read(archive, 0, BLOCK_BYTES - 1))
    if not BLOCK_BYTES < end <= archive.size_bytes:
        raise ManifestInvalid(f"archive {archive.serial}: its list ends at {end}, of {archive.size_bytes} bytes in all")
    contents = parse_contents(reader.read(archive, BLOCK_BYTES, end - 1))
    if contents.archive != archive.serial:
        raise ManifestInvalid(f"archive {archive.serial}: its list is that of archive {contents.archive}")
    return contents
