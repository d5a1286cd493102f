"""`neve where`: everywhere a file is now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM, remedy
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import iso, moment, safe, size

if TYPE_CHECKING:
    from neve.domain.index import FileRow


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """The file, or one version of it, in one place. `since` is when it came there, None if that is not known."""

    place: str
    since: datetime | None
    what: str
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A place that could not be looked at."""

    place: str
    why: str


Look = Callable[[], Iterator[Sighting]]


@dataclass(frozen=True)
class Where:
    """Looks for one file in every place. `key` is the application's, `content_key` that in the content bucket."""

    deployed: stack.Stack
    key: str
    content_key: str
    now: datetime

    def look(self) -> tuple[list[Sighting], list[Unknown]]:
        """All places, in the order in which a file passes them; and those that could not be looked at."""
        places: Sequence[tuple[str, Look]] = (
            ("pointer", self._pointer),
            ("this host", self._host),
            ("uploads", self._uploads),
            ("content", self._content),
            ("archives", self._archives),
        )
        found: list[Sighting] = []
        unknown: list[Unknown] = []
        for place, look in places:
            try:
                found += look()
            except Exception as error:
                why = str(error) if isinstance(error, OSError) else remedy(error)
                if why is None:
                    raise
                unknown.append(Unknown(place=place, why=why))
        return found, unknown

    def _pointer(self) -> Iterator[Sighting]:
        from neve.aws.pointers_table import DynamoPointers  # noqa: PLC0415
        from neve.domain.pointer import OnHost  # noqa: PLC0415

        pointer = DynamoPointers(self.deployed.dynamodb, self.deployed.outputs["PointersTable"]).get(self.key)
        if isinstance(pointer, OnHost):
            yield Sighting(place="pointer", since=pointer.since, what=f"to a host: {pointer.url}")
        elif pointer:
            yield Sighting(
                place="pointer",
                since=pointer.since,
                what=f"to the content bucket: version {pointer.content_version} of {pointer.content_key}",
                size_bytes=pointer.size_bytes,
            )

    def _host(self) -> Iterator[Sighting]:
        """What the edge agent of this host knows, if there is one."""
        from neve_edge.journal import Journal  # noqa: PLC0415
        from neve_edge.settings import default_file, load  # noqa: PLC0415

        file = default_file(os.environ)
        if file is None:
            return
        settings = load(file)
        for folder in settings.folders:
            path = self.key.removeprefix(folder.key_prefix)
            if not self.key.startswith(folder.key_prefix):
                continue
            local = folder.path / path
            if local.is_file():
                stat = local.stat()
                changed = datetime.fromtimestamp(stat.st_mtime, self.now.tzinfo)
                yield Sighting(place="this host", since=changed, what=f"{local}", size_bytes=stat.st_size)
            if not settings.journal.exists():
                continue
            with closing(Journal(settings.journal, host=settings.host, clock=clock.now, read_only=True)) as journal:
                standing = journal.standing(folder.name, path)
            if standing.state:
                why = f": {standing.why}" if standing.why else ""
                yield Sighting(place="this host", since=None, what=f"announced, {standing.state}{why}")
            for remains in standing.attic:
                until = remains.moved_at + timedelta(days=folder.keep_days)
                yield Sighting(
                    place="this host",
                    since=remains.moved_at,
                    what=f"in the attic until {moment(until)}: {folder.attic / remains.place}",
                    size_bytes=remains.size_bytes,
                )

    def _uploads(self) -> Iterator[Sighting]:
        bucket = self.deployed.outputs["UploadsBucket"]
        for each in self._versions(bucket, self.key):
            what = "the current version" if each["IsLatest"] else "in the attic"
            yield self._version("uploads", bucket, each, what)

    def _content(self) -> Iterator[Sighting]:
        bucket = self.deployed.outputs["ContentBucket"]
        for each in self._versions(bucket, self.content_key):
            what = "the current version" if each["IsLatest"] else "an earlier version"
            yield self._version("content", bucket, each, what)

    def _versions(self, bucket: str, key: str) -> Iterator[Any]:
        """The versions of one key, the newest first; delete markers are none."""
        pages = self.deployed.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
        for page in pages:
            for each in page.get("Versions", []):
                if each["Key"] != key:
                    return  # keys come in order, and this one is the first that begins so
                yield each

    @staticmethod
    def _version(place: str, bucket: str, each: Any, what: str) -> Sighting:
        return Sighting(
            place=place,
            since=each["LastModified"],
            what=f"{what} in {bucket}: {each['VersionId']}",
            size_bytes=each["Size"],
        )

    def _archives(self) -> Iterator[Sighting]:
        for row in self.deployed.files.versions(self.content_key):
            yield self._archived(row)

    def _archived(self, row: FileRow) -> Sighting:
        from neve.domain.thaw import needs_thaw  # noqa: PLC0415

        archive = self.deployed.archives.get(row.archive)
        if archive is None:
            return Sighting(place="archives", since=None, what=f"{row.id}, an archive without a row: `neve reconcile`")
        what = f"{row.id} in {archive.object_key}, {archive.storage_class}, of version {row.version_id}"
        if needs_thaw(archive.storage_class):
            thaw = self.deployed.thaws.get(row.archive)
            if thaw and thaw.is_warm(self.now):
                what += f"; a thawed copy is there until {moment(thaw.warm_until)}"
            elif thaw and not thaw.is_cold(self.now):
                what += f"; it is being thawed, by {moment(thaw.ready_at)}"
        return Sighting(place="archives", since=archive.archived_at, what=what, size_bytes=row.size_bytes)


def where(
    key: Annotated[str, typer.Argument(help="The key that the application knows the file by.")],
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Tell everywhere a file is now: pointer, this host, uploads, content, archives, thawed copies. Times are UTC.

    A place that cannot be looked at is named with the reason. Exit status 1 if the file is nowhere, or if that is not
    known.
    """
    from neve.domain.layout import content_key  # noqa: PLC0415

    deployed = stack.find(stack_name)
    try:
        stored = content_key(key, deployed.places.layout)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    found, unknown = Where(deployed, key, stored, clock.now()).look()
    if as_json:
        output.document(
            {
                "key": key,
                "content_key": stored,
                "places": [
                    {"place": each.place, "since": iso(each.since), "what": each.what, "size_bytes": each.size_bytes}
                    for each in found
                ],
                "unknown": [{"place": each.place, "why": each.why} for each in unknown],
            }
        )
    else:
        output.table(
            ("place", "since", "size", ""),
            [
                (
                    each.place,
                    moment(each.since),
                    "" if each.size_bytes is None else size(each.size_bytes),
                    safe(each.what),
                )
                for each in found
            ],
            right=frozenset({2}),
        )
        for place in unknown:
            typer.echo(f"neve: {place.place}: not known: {place.why}", err=True)
    if not found and not unknown:
        typer.echo(f"neve: {safe(key)!r} is nowhere. Keys are compared character by character.", err=True)
    if not found or unknown:
        raise typer.Exit(PROBLEM)
