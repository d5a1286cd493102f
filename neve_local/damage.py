"""Damages objects of the local cloud where they are stored, as a failing disk would: S3 itself notices nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neve.errors import NeveError
from neve_local.cloud import ACCOUNT
from neve_local.layout import Layout


class NotStored(NeveError):
    """There is no file that holds the version; the message says where it was looked for."""


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """An object's version whose key is a plain path, as all keys of archives and manifests are."""

    layout: Layout
    bucket: str
    key: str
    version_id: str

    @property
    def path(self) -> Path:
        """The file of its bytes: a current version has the object's own place. Raises NotStored."""
        objects = self.layout.objects
        older = objects / ".versions" / ACCOUNT / self.bucket / self.version_id / self.key
        current = objects / ACCOUNT / self.bucket / self.key
        found = next((path for path in (older, current) if path.is_file()), None)
        if found is None:
            raise NotStored(f"{self.key!r} version {self.version_id} is neither at {older} nor at {current}")
        return found

    def flip(self, offset_bytes: int, bit: int = 0) -> None:
        """Turn over one bit of the byte at `offset_bytes`."""
        with self.path.open("r+b") as file:
            file.seek(offset_bytes)
            found = file.read(1)
            file.seek(offset_bytes)
            file.write(bytes([found[0] ^ (1 << bit)]))

    def truncate(self, size_bytes: int) -> None:
        """Lose everything behind the first `size_bytes`."""
        with self.path.open("r+b") as file:
            file.truncate(size_bytes)
