"""Deletes files from the content bucket, has `neve restore` bring them back, and looks at each one."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neve.aws.archive_store import S3ArchiveStore
from neve.aws.files_table import DynamoFiles
from neve.aws.restores_table import DynamoRestores
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.prices import US_EAST_1, Bill
from neve.domain.restore import Ending, Job
from neve.domain.selection import CONTENT, folder_path
from neve.domain.thaw import Need, Tier, needs_thaw, read_uses, thaw_uses
from neve_local.cloud import ACCOUNT, LocalCloud
from neve_local.demo_files import Chosen
from neve_local.demo_proof import CHUNK_BYTES, Identity, Uploaded, pieces
from neve_local.deployment import cdk_environment

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_sts.type_defs import CredentialsTypeDef

COMMANDS = Path(sys.executable).parent
BATCH_FILES = 220
"""A batch has so many files or up to twice as many, where there are as many."""
LOCAL_SHARE = 8
"""Every so many-th file of the batch goes to a local folder."""
PATIENCE_S = 900
"""A command that takes longer is ended. A function that is killed costs it 360 s at most (demo.TIMEOUTS)."""
THREADS = 8

_PATTERN = frozenset("*?[")
ASSUMED_BY_THE_ACCOUNT = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    ],
}


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """A file that is deleted from the content bucket, and where its archived version lies. `local`: it is to go to a
    folder, not back to its place.
    """

    file: Chosen
    row: FileRow
    local: bool = False

    @property
    def source(self) -> str:
        """Its key as an operator types it: one that looks like a pattern says that it is none."""
        return f"key:{self.file.key}" if _PATTERN & set(self.file.key) else self.file.key


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What is deleted: one file to be restored by itself, the others in a batch."""

    single: Deleted
    batch: tuple[Deleted, ...]

    @property
    def all(self) -> tuple[Deleted, ...]:
        """The one and the others."""
        return (self.single, *self.batch)

    def lines(self, folder: Path) -> str:
        """The batch as `neve restore --batch` reads it. As JSON, since a key may have tabs and line ends."""
        return "".join(
            json.dumps({"source": each.source, "destination": f"{folder}/" if each.local else CONTENT}) + "\n"
            for each in self.batch
        )


def choose_deletion(
    uploaded: Iterable[Uploaded], found: Mapping[Identity, FileRow], large: frozenset[int]
) -> Deletion | None:
    """Every n-th of the archived files, and one of the archives `large` if there are any; None if nothing is archived.

    To a local folder goes what has a path like its key there: so no two of them can be in each other's way.
    """
    archived = sorted((each for each in uploaded if each.identity in found), key=lambda each: each.file.key)
    if not archived:
        return None
    single = archived[len(archived) // 2]
    others = [each for each in archived if each is not single]
    step = max(1, len(archived) // BATCH_FILES)
    batch = others[::step]
    if not any(found[each.identity].archive in large for each in batch):
        batch += [each for each in others if found[each.identity].archive in large][:1]
    return Deletion(
        single=Deleted(file=single.file, row=found[single.identity]),
        batch=tuple(
            Deleted(
                file=each.file,
                row=found[each.identity],
                local=not number % LOCAL_SHARE and folder_path(each.file.key) == each.file.key,
            )
            for number, each in enumerate(batch)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Commanded:
    """One `neve restore` that has ended. `status` is its exit status, `job` what the table says, if there is one."""

    words: tuple[str, ...]
    status: int
    job: Job | None

    @property
    def seconds(self) -> float | None:
        """From the request until all files had ended; None if they have not."""
        finished_at = self.job.finished_at if self.job else None
        return (finished_at - self.job.created_at).total_seconds() if self.job and finished_at else None

    def problems(self, files: int) -> list[str]:
        """What went otherwise than that all of so many files were restored."""
        line = f"`{shlex.join(self.words)}`"
        found = [f"{line} ended with status {self.status}"] if self.status else []
        ended = {ending.value: count for ending, count in self.job.ended.items() if count} if self.job else {}
        if ended != {Ending.RESTORED.value: files}:
            found.append(f"{line}: {files} files were to be restored, the job says {ended}")
        return found


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What became of the files deleted. `began` is when they were asked for, in seconds since 1970.

    `versions` is what they have become in the content bucket, `archives` where they came from.
    """

    deletion: Deletion
    began: float
    commands: tuple[Commanded, ...]
    in_place: int
    versions: tuple[Identity, ...]
    archives: tuple[ArchiveRow, ...]
    problems: tuple[str, ...]

    @property
    def mismatches(self) -> int:
        """Files that are not in their places as they are on disk."""
        return len(self.deletion.all) - self.in_place

    @property
    def local(self) -> tuple[Deleted, ...]:
        """The files that went to a local folder."""
        return tuple(each for each in self.deletion.all if each.local)

    @property
    def thawed(self) -> tuple[ArchiveRow, ...]:
        """Those of the archives that have to be thawed, once each."""
        return tuple(row for row in self.archives if needs_thaw(row.storage_class))

    @property
    def need(self) -> Need:
        """What the commands asked for, for as many days as the longest-lived of them."""
        needs = [each.job.need for each in self.commands if each.job]
        return max(needs, key=lambda need: need.days, default=Need(tier=Tier.STANDARD, days=1))

    def bill(self, tier: Tier, *, reads: int) -> Bill:
        """What thaws of this tier, `reads` and writes cost. Raises KeyError if the archives' class has no such tier."""
        storage_class = self.archives[0].storage_class
        size_bytes = sum(row.size_bytes for row in self.archives)
        read_bytes = sum(each.row.size_bytes for each in self.deletion.all)
        return Bill(
            prices=US_EAST_1,
            uses=(
                *thaw_uses(
                    storage_class, tier, days=self.need.days, archives=len(self.archives), size_bytes=size_bytes
                ),
                *read_uses(storage_class, reads=reads, writes=len(self.versions), size_bytes=read_bytes),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """Deletes and restores in one deployment.

    `command` runs a command, tells each line that it prints to its second argument, and returns its exit status. The
    words of each go to `tell`, the lines to `printed`.
    """

    command: Callable[[Sequence[str], Callable[[str], None]], int]
    s3: S3Client
    bucket: str
    files: DynamoFiles
    store: S3ArchiveStore
    restores: DynamoRestores
    tell: Callable[[str], None]
    printed: Callable[[str], None]

    def delete(self, deletion: Deletion) -> None:
        """Delete as anybody does, without a version: S3 hides the file behind a marker."""

        def delete(each: Deleted) -> None:
            self.s3.delete_object(Bucket=self.bucket, Key=each.file.key)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(delete, deletion.all))

    def restore(self, deletion: Deletion, archives: Iterable[ArchiveRow], folder: Path) -> Restored:
        """Restore what was deleted, some of it to the empty `folder`, and compare each file with the disk."""
        began = time.time()
        commands = [self._restore([deletion.single.source])]
        problems = commands[0].problems(1)
        if deletion.batch:
            lines, local = folder / "batch.jsonl", folder / "restored"
            lines.write_text(deletion.lines(local))
            commands.append(self._restore(["--batch", str(lines)]))
            problems += commands[1].problems(len(deletion.batch))
        with ThreadPoolExecutor(THREADS) as pool:
            seen = list(pool.map(lambda each: self._look(each, folder / "restored"), deletion.all))
        versions = {
            (each.file.key, version_id): each.row
            for each, (_, version_id) in zip(deletion.all, seen, strict=True)
            if version_id
        }
        needed = {each.row.archive for each in deletion.all}
        different = [problem for problem, _ in seen if problem]
        return Restored(
            deletion=deletion,
            began=began,
            commands=tuple(commands),
            in_place=len(seen) - len(different),
            versions=tuple(versions),
            archives=tuple(row for row in archives if row.serial in needed),
            problems=(*problems, *different, *self._strangers(versions)),
        )

    def _restore(self, what: Sequence[str]) -> Commanded:
        words = ("neve", "restore", *what, "--wait")
        self.tell(f"$ {shlex.join(words)}")
        printed: list[str] = []

        def note(line: str) -> None:
            printed.append(line)
            self.printed(line)

        status = self.command(words, note)
        named = [line.removeprefix("job ") for line in printed if line.startswith("job ")]
        return Commanded(words=words, status=status, job=self.restores.job(named[0]) if named else None)

    def _look(self, each: Deleted, folder: Path) -> tuple[str, str]:
        """What is wrong with a restored file, "" for nothing; and which version of the content bucket it is, or ""."""
        try:
            if each.local:
                with (folder / folder_path(each.file.key)).open("rb") as file:
                    return "" if each.file.has(pieces(file)) else each.file.differs(), ""
            answer = self.s3.get_object(Bucket=self.bucket, Key=each.file.key)
        except (OSError, ClientError) as error:
            return f"{each.file.key!r} is not where it was to be restored to: {error}", ""
        version_id = answer["VersionId"]
        if not each.file.has(answer["Body"].iter_chunks(CHUNK_BYTES)):
            return each.file.differs(), version_id
        if answer["ContentType"] != each.file.content_type:
            return f"{each.file.key!r} came back as {answer['ContentType']}, not {each.file.content_type}", version_id
        return "", version_id

    def _strangers(self, versions: Mapping[Identity, FileRow]) -> list[str]:
        """Restored versions that the index does not know as the archive member that they came from."""
        rows = self.files.get(list(versions))
        return [
            f"the index does not say that the restored {key!r} version {version_id} is member {was.number} of archive "
            f"{was.archive}"
            for (key, version_id), was in versions.items()
            if (key, version_id) not in rows
            or (rows[key, version_id].archive, rows[key, version_id].number) != (was.archive, was.number)
        ]

    def archived_again(self, restored: Restored, archives: Iterable[ArchiveRow]) -> list[str]:
        """Restored versions that lie in one of `archives`, those written since."""
        versions = set(restored.versions)
        problems = []
        for row in archives:
            manifest = self.store.manifest(row.serial)
            members = manifest.members if manifest else ()
            problems += [
                f"the restored {each.source.key!r} was archived again, in archive {row.serial}"
                for each in members
                if (each.source.key, each.source.version_id) in versions
            ]
        return problems


def run_as_operator(
    cloud: LocalCloud, outputs: Mapping[str, str], words: Sequence[str], printed: Callable[[str], None]
) -> int:
    """As run_command, in the role of somebody who has the policies NeveObserver and NeveOperator, and nothing else."""
    iam: Any = cloud.session().client("iam")
    name = f"neve-demo-operator-{secrets.token_hex(4)}"
    with ExitStack() as undone:  # a policy that a role has could not be replaced by the next deployment
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(ASSUMED_BY_THE_ACCOUNT))["Role"]
        undone.callback(iam.delete_role, RoleName=name)
        for policy in (outputs["NeveObserverPolicy"], outputs["NeveOperatorPolicy"]):
            iam.attach_role_policy(RoleName=name, PolicyArn=policy)
            undone.callback(iam.detach_role_policy, RoleName=name, PolicyArn=policy)
        sts = cloud.session().client("sts")
        given = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="demo")["Credentials"]
        return run_command(operator_environment(cloud, given), words, printed)


def operator_environment(cloud: LocalCloud, given: CredentialsTypeDef) -> dict[str, str]:
    """The variables under which a command finds the cloud, as `given`: those of `cdk`, for the same reasons."""
    variables = cdk_environment(cloud.environment(), os.environ, folder=cloud.layout.folder)
    credentials = {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }
    return {name: value for name, value in {**variables, **credentials}.items() if name != "NEVE_STACK"}


def run_command(environment: Mapping[str, str], words: Sequence[str], printed: Callable[[str], None]) -> int:
    """Run a command as an operator does; its exit status. `printed` is told each line as it comes."""
    with (
        subprocess.Popen(  # noqa: S603
            [str(COMMANDS / words[0]), *words[1:]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process
    ):
        ending = threading.Timer(PATIENCE_S, process.kill)
        ending.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                printed(line.rstrip())
            return process.wait()
        finally:
            ending.cancel()
            process.kill()  # it has ended, unless this was interrupted
