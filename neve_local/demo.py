"""`make demo`: from a folder on disk into Glacier archives and back, on the local cloud, with proof.

Started as `python -m neve_local.demo`. It uses the project's local cloud: each run has a key prefix of its own, and
looks at nothing that was there before. A cloud that was running already is left running.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.audits_table import DynamoAudits
from neve.aws.drills_table import DynamoDrills
from neve.aws.files_table import DynamoFiles
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.restores_table import DynamoRestores
from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.parked import REMEDIES, Parked
from neve.errors import NeveError
from neve_local.cdn import ContentCdn
from neve_local.cloud import DEFAULT_FOLDER, PROJECT, LocalCloud
from neve_local.damage import StoredVersion
from neve_local.demo_audit import Auditing, choose_trial
from neve_local.demo_files import USUAL_COUNT, Choice, Chosen, choose, standard_library
from neve_local.demo_logs import ARCHIVING, RESTORING, Requests, read_passed_over, read_requests, read_thaws
from neve_local.demo_offload import Offloaded, Offloading, offloading
from neve_local.demo_proof import Identity, Proof, Uploaded
from neve_local.demo_report import Outcome, Run, show, write
from neve_local.demo_restore import Restoration, Restored, choose_deletion, run_as_operator
from neve_local.demo_view import Flow, View, size

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

REPORT = PROJECT / ".neve" / "demo.json"
DROP_THREADS = 4
POLL_S = 0.5
LOGGED_S = 1
"""After a function's last write it takes less than this until its log is complete."""
QUIET_S = 10
"""An upload is in a queue or in a bundle sooner than this: when both have been empty for so long, nothing comes."""
TIMEOUTS = {
    "collect_timeout_s": 20,
    "write_timeout_s": 30,
    "copy_timeout_s": 60,
    "sweep_timeout_s": 20,
    "plan_timeout_s": 20,
    "extract_timeout_s": 60,
    "audit_timeout_s": 60,
    "drill_timeout_s": 60,
    "reconcile_timeout_s": 60,
    "uploads_timeout_s": 20,
    "release_timeout_s": 20,
    "relay_timeout_s": 20,
    # Uploads are let go while one looks on.
    "release_after_s": 5,
    "upload_url_s": 4,
}
"""Shorter than in an account: a function that is killed has its messages back after six of them, while one looks on."""
STALL_S = 400
"""Beyond a bundle's age: the demo gives up when nothing has moved for so long. Failed deliveries come again sooner."""
OFFLOAD_STALL_S = 200
"""The same for what the agent moves: a function that is killed has its messages back after six times its timeout."""


class DemoFailed(NeveError):
    """The demo cannot go on; the message says why."""


@dataclass
class Uploads:
    """What has come into the content bucket so far; files are dropped by several threads."""

    done: list[Uploaded] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, uploaded: Uploaded) -> None:
        """One more."""
        with self.lock:
            self.done.append(uploaded)

    def skip(self, sentence: str) -> None:
        """One that cannot be uploaded, and why."""
        with self.lock:
            self.skipped.append(sentence)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The deployed stacks as the demo sees them."""

    cloud: LocalCloud
    outputs: Mapping[str, str]
    s3: S3Client
    sqs: SQSClient
    dynamodb: DynamoDBClient
    archives: DynamoArchives
    bundles: DynamoBundles
    files: DynamoFiles
    restores: DynamoRestores
    audits: DynamoAudits
    drills: DynamoDrills
    parking_lot: DynamoParkingLot
    store: S3ArchiveStore

    def dead_letters(self) -> dict[str, int]:
        """How many messages each dead-letter queue holds."""
        counts = {}
        for name, url in self.outputs.items():
            if name.endswith("DeadLetterQueue"):
                answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
                counts[name] = int(answer["Attributes"]["ApproximateNumberOfMessages"])
        return counts

    def collecting(self) -> bool:
        """Whether Collect has uploads to note. Asked before the bundles are: what it has noted is in one of them."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.outputs["CollectQueue"],
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        return any(int(count) for count in answer["Attributes"].values())

    def parked(self) -> dict[str, Parked]:
        """All that is parked, by id."""
        return dict(self.parking_lot.all())


def connect(cloud: LocalCloud, outputs: Mapping[str, str]) -> Deployment:
    """Adapters for the stacks deployed in `cloud`."""
    session = cloud.session()
    config = Config(max_pool_connections=32, retries={"mode": "standard", "total_max_attempts": 5})
    s3 = session.client("s3", config=config)
    dynamodb = session.client("dynamodb", config=config)
    return Deployment(
        cloud=cloud,
        outputs=outputs,
        s3=s3,
        sqs=session.client("sqs", config=config),
        dynamodb=dynamodb,
        archives=DynamoArchives(dynamodb, outputs["ArchivesTable"]),
        bundles=DynamoBundles(dynamodb, outputs["ArchivesTable"]),
        files=DynamoFiles(dynamodb, outputs["FilesTable"]),
        restores=DynamoRestores(dynamodb, outputs["RestoresTable"]),
        audits=DynamoAudits(dynamodb, outputs["AuditsTable"]),
        drills=DynamoDrills(dynamodb, outputs["AuditsTable"]),
        parking_lot=DynamoParkingLot(dynamodb, outputs["ParkedTable"]),
        store=S3ArchiveStore(s3, outputs["ArchiveBucket"], outputs["ContentBucket"], outputs["StorageClass"]),
    )


@dataclass(frozen=True, kw_only=True)
class Before:
    """What the cloud held before this run, so that the run answers for nothing else."""

    at: float
    serial: int
    parked: frozenset[str]
    dead_letters: Mapping[str, int]


class Demo:
    """One run."""

    def __init__(self, deployment: Deployment, choice: Choice, cdn: ContentCdn, view: View) -> None:
        self._deployment = deployment
        self._choice = choice
        self._cdn = cdn
        self._view = view
        self._uploads = Uploads()
        self._before = Before(
            at=time.time(),
            serial=deployment.archives.drawn(),
            parked=frozenset(deployment.parked()),
            dead_letters=deployment.dead_letters(),
        )

    def run(self) -> Outcome:
        """Offload, wait, delete and restore some, prove; then damage an archive, and have that found and repaired."""
        with self._view.flowing(len(self._choice.files)):
            offloaded, upload_s = self._offload()
            found, problems = self._wait()
        self._view.flow(self._flow(), last=True)
        time.sleep(LOGGED_S)
        archiving = self._requests(ARCHIVING)  # before restored files make these functions run again
        restored = self._restore(found)
        outcome = self._prove(found, [*offloaded.problems, *problems], upload_s, archiving, restored)
        return self._audit(replace(outcome, offloaded=offloaded))

    def _offload(self) -> tuple[Offloaded, float]:
        """Drop the files into a folder and have the agent move them, their URLs being asked for all along.

        Also how many seconds it took until the last one was in the content bucket.
        """
        deployment = self._deployment
        with offloading(
            deployment.cloud,
            deployment.outputs,
            self._cdn,
            prefix=self._choice.prefix,
            s3=deployment.s3,
            dynamodb=deployment.dynamodb,
        ) as folder:
            began = time.monotonic()
            with folder.checked(), ThreadPoolExecutor(DROP_THREADS) as pool:
                dropping = [pool.submit(self._drop, folder, file) for file in self._choice.files]
                try:
                    self._move(folder, dropping)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                upload_s = time.monotonic() - began
                offloaded = folder.finish(self._view.say)
        lost = [f"never moved: {key!r}" for key in self._unmoved(offloaded)]
        return replace(offloaded, problems=[*offloaded.problems, *lost]), upload_s

    def _move(self, folder: Offloading, dropping: Sequence[Future[None]]) -> None:
        """Until every file has moved, is parked, or nothing has moved for long."""
        moved_at = time.monotonic()
        while True:
            dropped = all(each.done() for each in dropping)
            for file, pointer in folder.look():
                moved_at = time.monotonic()
                self._uploads.add(Uploaded(file=file, version_id=pointer.content_version, at=pointer.since.timestamp()))
            self._view.flow(self._flow())
            if folder.stopped or time.monotonic() - moved_at > OFFLOAD_STALL_S:
                break
            if dropped and folder.waiting <= len(self._parked_uploads()):
                break
            time.sleep(POLL_S)
        for each in dropping:
            each.result()

    def _drop(self, folder: Offloading, file: Chosen) -> None:
        try:
            folder.drop(file)
        except OSError as error:
            self._uploads.skip(f"{file.path}: {error.strerror}")

    def _parked_uploads(self) -> set[str]:
        """The keys of uploads that CopyUpload has given up."""
        uploads = self._deployment.outputs["UploadsBucket"]
        return {item.version.key for item in self._new_parked().values() if item.version and item.bucket == uploads}

    def _unmoved(self, offloaded: Offloaded) -> list[str]:
        skipped = {sentence.partition(": ")[0] for sentence in self._uploads.skipped}
        parked = self._parked_uploads()
        return [
            file.key
            for file in self._choice.files
            if file.key not in offloaded.moved and file.key not in parked and str(file.path) not in skipped
        ]

    def _new_archives(self) -> list[ArchiveRow]:
        """The archives written since this run began, newest first."""
        found = []
        for row in self._deployment.archives.all(newest_first=True):
            if row.serial <= self._before.serial:
                break
            found.append(row)
        return found

    def _new_parked(self) -> dict[str, Parked]:
        """What was parked since; an earlier run's versions may be among it and are not this one's."""
        return {
            parked_id: item
            for parked_id, item in self._deployment.parked().items()
            if parked_id not in self._before.parked
            and (item.version is None or item.version.key.startswith(self._choice.prefix))
        }

    def _flow(self) -> Flow:
        archives = [row for row in self._new_archives() if row.state is ArchiveState.ARCHIVED]
        return Flow(
            total=len(self._choice.files),
            uploaded=len(self._uploads.done),
            archived=sum(row.files - row.duplicates for row in archives),
            parked=len(self._new_parked()),
            archives=len(archives),
        )

    def _wait(self) -> tuple[dict[Identity, FileRow], list[str]]:
        """The rows of the uploaded versions, once all have one or are parked, or nothing has moved for long."""
        patience_s = STALL_S + int(self._deployment.outputs["MaxAgeSeconds"])
        proof = self._proof()
        last, moved_at = self._flow(), time.monotonic()
        while True:
            flow = self._flow()
            self._view.flow(flow)
            if (flow.archived, flow.parked) != (last.archived, last.parked):
                last, moved_at = flow, time.monotonic()
            stalled = time.monotonic() - moved_at > patience_s
            if not flow.waiting or stalled:
                found, problems = proof.indexed(self._uploads.done, self._choice.prefix)
                if stalled or not self._missing(found, self._new_parked()):
                    return found, problems
            time.sleep(POLL_S)

    def _proof(self) -> Proof:
        deployment = self._deployment
        return Proof(s3=deployment.s3, store=deployment.store, archives=deployment.archives, files=deployment.files)

    def _missing(self, found: Mapping[Identity, FileRow], parked: Mapping[str, Parked]) -> list[Uploaded]:
        """Versions uploaded that are neither in the index nor parked."""
        named = {(item.version.key, item.version.version_id) for item in parked.values() if item.version}
        return [each for each in self._uploads.done if each.identity not in found and each.identity not in named]

    def _restore(self, found: Mapping[Identity, FileRow]) -> Restored | None:
        """Delete some of the files and have the command restore them; None if nothing is archived."""
        archives = self._new_archives()
        large = frozenset(row.serial for row in archives if row.kind == "object")
        deletion = choose_deletion(self._uploads.done, found, large)
        if deletion is None:
            return None
        self._view.say(f"deleting {len(deletion.all):,} files from the content bucket, to restore them ...")
        self._restoration.delete(deletion)
        with tempfile.TemporaryDirectory(prefix="neve-demo-") as folder:
            restored = self._restoration.restore(deletion, reversed(archives), Path(folder))
        self._view.say(f"{restored.in_place:,} of them are back, byte for byte")
        return restored

    @cached_property
    def _command(self) -> Callable[[Sequence[str], Callable[[str], None]], int]:
        """Runs a command as an operator does."""
        return partial(run_as_operator, self._deployment.cloud, self._deployment.outputs)

    @cached_property
    def _restoration(self) -> Restoration:
        deployment = self._deployment
        return Restoration(
            command=self._command,
            s3=deployment.s3,
            bucket=deployment.outputs["ContentBucket"],
            files=deployment.files,
            store=deployment.store,
            restores=deployment.restores,
            tell=self._view.say,
            printed=self._view.printed,
        )

    def _prove(
        self,
        found: Mapping[Identity, FileRow],
        problems: list[str],
        upload_s: float,
        archiving: Requests,
        restored: Restored | None,
    ) -> Outcome:
        uploaded = list(self._uploads.done)
        parked = self._new_parked()
        missing = self._missing(found, parked)
        wanted = sorted({row.archive for row in found.values()})
        self._view.say(f"{len(found):,} of {len(uploaded):,} are in the index, each once, in {len(wanted):,} archives")
        self._view.say("downloading the archives, comparing each file byte for byte ...")

        def tell(done: int, total: int) -> None:
            if done == total or done % 10 == 0:
                self._view.say(f"compared {done:,} of {total:,} archives")

        verdict = self._proof().compare(uploaded, found, tell)
        problems = [*problems, *verdict.problems]
        problems += [f"lost: {each.file.key!r} version {each.version_id} is in no archive" for each in missing]
        problems += [f"parked: {item.reason}: {item.detail} {REMEDIES[item.reason]}" for item in parked.values()]
        passed_over, again = 0, []
        if restored:
            passed_over, unsettled = self._settle(restored)
            again = self._restoration.archived_again(restored, self._new_archives())
            problems += [*restored.problems, *unsettled, *again]
        thaws = read_thaws(self._deployment.cloud, self._deployment.outputs, since=self._before.at)
        if restored and thaws.asked > len(restored.thawed):
            problems.append(
                f"S3 was asked for {thaws.asked} thaws of {len(restored.thawed)} archives: one each is enough"
            )
        problems += self._failed_for_good()
        in_index = set(wanted)
        return Outcome(
            uploaded=uploaded,
            found=found,
            parked=parked,
            archives=[row for row in reversed(self._new_archives()) if row.serial in in_index],
            verified=verdict.verified,
            lost=len(missing),
            restored=restored,
            thaws=thaws,
            passed_over=passed_over,
            archived_again=len(again),
            archiving=archiving,
            restoring=self._requests(RESTORING),
            problems=problems,
            upload_s=upload_s,
        )

    def _failed_for_good(self) -> list[str]:
        return [
            f"{name} holds {count} messages that failed for good: `neve status`"
            for name, count in self._deployment.dead_letters().items()
            if count > self._before.dead_letters.get(name, 0)
        ]

    def _audit(self, outcome: Outcome) -> Outcome:
        """Have two of the archives audited, one of them after a bit of it was turned over, and repaired.

        Only if all is well so far: damage done on purpose must not stand in the way of whoever looks for another.
        """
        if outcome.problems:
            return replace(outcome, not_audited="nothing is damaged on purpose where something is wrong already")
        trial = choose_trial(outcome.archives, outcome.found, self._stands)
        if trial is None:
            return replace(outcome, not_audited="there is no tar archive with a file that has bytes")
        known = self._new_parked()
        audited = self._auditing.audit(
            trial,
            {each.file.key: each.file for each in outcome.uploaded},
            frozenset(row.serial for row in outcome.archives),
        )
        parked = [
            f"parked: {item.reason}: {item.detail}"
            for parked_id, item in self._new_parked().items()
            if parked_id not in known
        ]
        return replace(outcome, audited=audited, problems=[*audited.problems, *parked, *self._failed_for_good()])

    def _stands(self, row: FileRow) -> bool:
        """Whether the version is in the content bucket, hidden or not."""
        deployment = self._deployment
        try:
            deployment.s3.head_object(Bucket=deployment.outputs["ContentBucket"], Key=row.key, VersionId=row.version_id)
        except ClientError:
            return False
        return True

    @property
    def _auditing(self) -> Auditing:
        deployment = self._deployment

        def damage(archive: ArchiveRow, offset_bytes: int) -> None:
            StoredVersion(
                layout=deployment.cloud.layout,
                bucket=deployment.store.bucket,
                key=archive.object_key,
                version_id=archive.object_version_id,
            ).flip(offset_bytes)

        return Auditing(
            command=self._command,
            prefix=self._choice.prefix,
            archives=deployment.archives,
            files=deployment.files,
            audits=deployment.audits,
            drills=deployment.drills,
            store=deployment.store,
            damage=damage,
            compare=partial(self._proof().compare, tell=lambda *_: None),
            tell=self._view.say,
            printed=self._view.printed,
        )

    def _settle(self, restored: Restored) -> tuple[int, list[str]]:
        """Wait until neve has seen that what was restored is archived already.

        How many versions were passed over, and what is wrong if there is no end to it. A function that is killed takes
        its log with it, so the count alone cannot decide.
        """
        deployment, wanted = self._deployment, len(restored.versions)
        self._view.say(f"waiting until {wanted:,} events of restored files have been passed over ...")
        deadline = time.monotonic() + STALL_S + int(deployment.outputs["MaxAgeSeconds"])
        quiet_since = time.monotonic()
        while True:
            waiting = deployment.collecting() or bool(deployment.bundles.unfinished())
            passed = read_passed_over(deployment.cloud, deployment.outputs, since=restored.began)
            now = time.monotonic()
            quiet_since = now if waiting else quiet_since
            if not waiting and (passed >= wanted or now - quiet_since > QUIET_S):
                return passed, []
            if now > deadline:
                return passed, ["whether a restored file is archived again is not known: uploads still wait"]
            time.sleep(POLL_S)

    @property
    def skipped(self) -> list[str]:
        """Files left out, and why."""
        return [*self._choice.skipped, *self._uploads.skipped]

    def _requests(self, functions: Sequence[str]) -> Requests:
        """What functions have asked of AWS in this run, from their logs."""
        return read_requests(self._deployment.cloud, self._deployment.outputs, functions, since=self._before.at)


def setting(text: str) -> tuple[str, str]:
    """`key=value` as a pair."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value, such as max_age_s=5")
    return key, value


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make demo",
        description="Drops real files into a folder, from which they move to S3 on the local cloud while their URLs "
        "are asked for, waits until they are in Glacier archives, deletes and restores some, and proves that each of "
        "them comes back byte for byte. Then it damages an archive, and has that found and repaired.",
    )
    parser.add_argument("--files", type=Path, help="a folder of your own (default: Python's standard library)")
    parser.add_argument("--count", type=int, help=f"at most so many of them (default: {USUAL_COUNT} without --files)")
    parser.add_argument("--keep", action="store_true", help="leave the local cloud running")
    parser.add_argument(
        "-c",
        "--context",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the stacks; repeat for more",
    )
    parser.add_argument("--cloud", type=Path, default=DEFAULT_FOLDER, help="where the local cloud keeps its state")
    parser.add_argument("--port", type=int, help="where it listens (default: 4566, or any free one)")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the figures go as JSON")
    parsed = parser.parse_args(words)
    if parsed.files and not parsed.files.is_dir():
        parser.error(f"{parsed.files} is not a folder")
    if parsed.count is not None and parsed.count < 1:
        parser.error("--count must be at least 1")
    return parsed


def run(options: argparse.Namespace, view: View) -> int:
    """The whole demo; the exit status. Raises NeveError if it cannot be done at all."""
    options.report.unlink(missing_ok=True)
    began = datetime.now(UTC)
    folder = options.files or standard_library()
    count = options.count or (None if options.files else USUAL_COUNT)
    choice = choose(folder.resolve(), prefix=f"demo/{began:%Y%m%dT%H%M%SZ}/", at_most=count)
    if not choice.files:
        raise DemoFailed(f"There is no file to upload in {folder}. Name another folder: make demo FILES=...")
    view.say(f"{len(choice.files):,} files, {size(choice.size_bytes)}, of {folder}")
    view.skipped(choice.skipped)
    cloud = LocalCloud(options.cloud, port=options.port, say=view.say, tied=not options.keep)
    ran_before = cloud.running
    try:
        started = cloud.start()
        view.say(f"the local cloud {'runs already' if ran_before else 'has started'} at {started.endpoint_url}")
        with ContentCdn().running() as cdn:
            outputs = cloud.deploy(TIMEOUTS | {"cdn_urls": cdn.url} | dict(options.context))
            finished = _run_in(connect(cloud, outputs), choice, cdn, began, view)
    except BaseException:
        # Whatever went wrong, the cloud does not outlive a demo that it was started for.
        if not ran_before:
            view.say("stopping the local cloud ...")
            cloud.stop()
        raise
    if not (ran_before or options.keep):
        view.say("stopping the local cloud ...")
        cloud.stop()
    write(finished, options.report)
    show(finished, view.console)
    view.problems(finished.outcome.problems)
    view.console.print(Text(f"All figures as JSON: {options.report}", style="dim"))
    if ran_before or options.keep:
        view.console.print(_how_to_go_on(finished, options))
    return 1 if finished.outcome.problems else 0


def _run_in(deployment: Deployment, choice: Choice, cdn: ContentCdn, began: datetime, view: View) -> Run:
    outputs = deployment.outputs
    view.say(
        f"archives of {size(int(outputs['TargetBytes']))} or {outputs['MaxAgeSeconds']} s, whichever comes first, "
        f"in {outputs['StorageClass']}; dropping the files into a folder, from which the agent moves them ..."
    )
    demo = Demo(deployment, choice, cdn, view)
    outcome = demo.run()
    return Run(
        folder=str(choice.folder),
        prefix=choice.prefix,
        began=began,
        seconds=(datetime.now(UTC) - began).total_seconds(),
        settings={
            "storage_class": outputs["StorageClass"],
            "target_bytes": outputs["TargetBytes"],
            "max_age_s": outputs["MaxAgeSeconds"],
        },
        outcome=outcome,
        skipped=demo.skipped,
    )


def _how_to_go_on(finished: Run, options: argparse.Namespace) -> Text:
    where = "" if options.cloud == DEFAULT_FOLDER else f" --folder {shlex.quote(str(options.cloud))}"
    key = finished.outcome.uploaded[0].file.key if finished.outcome.uploaded else finished.prefix
    return Text(
        f"""
The local cloud is still running. To go on:

  . .venv/bin/activate
  eval "$(neve local env{where})"
  neve status
  neve ls {shlex.quote(finished.prefix)} | head
  neve find {shlex.quote(key)}
  neve archives
  neve restore {shlex.quote(key)} restored/ --wait
  neve jobs
  neve audit report
  neve local down{where}
"""
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status is not 0 unless every file came back, and the damage was found and repaired."""
    options = arguments(sys.argv[1:] if words is None else words)
    view = View(Console(highlight=False, soft_wrap=True))
    try:
        return run(options, view)
    except KeyboardInterrupt:
        view.say("interrupted")
        return 130
    except NeveError as error:
        view.problems([str(error)])
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
