"""The deployed stacks, as tests look at them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from typer.testing import CliRunner, Result

from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.files_table import DynamoFiles
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.restores_table import DynamoRestores
from neve.aws.thaws_table import DynamoThaws
from neve.domain.index import FileRow
from neve.domain.restore import Job, JobState, Request, Wanted, chunks, render_request
from neve.domain.thaw import Need, Tier
from neve_cli.main import app
from neve_local.cloud import LocalCloud

OTHER_BUCKET, UPLOADS_BUCKET = "not-of-neve", "uploads-of-neve"
"""Buckets that restores may write to (tests/conftest.py)."""

PATIENCE_S = 150
"""A function that is killed leaves its messages hidden for 60 s (tests/conftest.py)."""


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """The deployed stacks, and what the tests look at in them."""

    cloud: LocalCloud
    s3: Any
    sqs: Any
    outputs: dict[str, str]
    files: DynamoFiles
    bundles: DynamoBundles
    archives: DynamoArchives
    parking_lot: DynamoParkingLot
    restores: DynamoRestores
    thaws: DynamoThaws
    store: S3ArchiveStore

    def upload(self, bodies: dict[str, bytes], **extra: Any) -> dict[tuple[str, str], bytes]:
        """Put objects into the content bucket; their bytes by (key, version id)."""

        def put(item: tuple[str, bytes]) -> tuple[tuple[str, str], bytes]:
            key, body = item
            answer = self.s3.put_object(Bucket=self.outputs["ContentBucket"], Key=key, Body=body, **extra)
            return (key, answer["VersionId"]), body

        with ThreadPoolExecutor(8) as pool:
            return dict(pool.map(put, bodies.items()))

    def wait_for(self, what: str, ready: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Poll until `ready`, and say what was missing if it never is."""
        deadline = time.monotonic() + patience_s
        while not ready():
            assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
            time.sleep(0.5)

    def rows(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], FileRow]:
        """The rows of these versions, as far as they are there. None of them is `null`."""
        return dict(self.files.get(wanted))

    def wait_until_archived(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], FileRow]:
        self.wait_for(f"{len(wanted)} versions in the index", lambda: len(self.rows(wanted)) == len(wanted))
        self.wait_for("every bundle finished", lambda: not self.bundles.unfinished())
        return self.rows(wanted)

    def ask_for(self, wanted: Sequence[Wanted], *, overwrite: bool = False) -> str:
        """Send a job to PlanRestore as the command would, without its checks; the job's id."""
        now = datetime.now(UTC)
        job, portions = f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}", list(chunks(wanted))
        for number, portion in enumerate(portions, start=1):
            request = Request(
                job=job,
                chunk=number,
                chunks=len(portions),
                created_at=now,
                need=Need(tier=Tier.BULK, days=1),
                overwrite=overwrite,
                estimate_usd=0,
                items=tuple(portion),
            )
            self.sqs.send_message(QueueUrl=self.outputs["RestoreRequestsQueue"], MessageBody=render_request(request))
        return job

    def ended(self, job_id: str) -> Job:
        """The job once it has ended."""
        found: list[Job] = []

        def finished() -> bool:
            job = self.restores.job(job_id)
            found[:] = [job] if job is not None and job.state is JobState.FINISHED else []
            return bool(found)

        self.wait_for(f"job {job_id} ended", finished)
        return found[0]

    def requests(self, function: str, *, since: float) -> Counter[str]:
        """What a function (its output's name) has asked of AWS since a time, as it logs itself."""
        asked: Counter[str] = Counter()
        for line in self.cloud.function_logs(self.outputs[function], containing='"service":"Ledger"', since=since):
            asked.update(json.loads(line)["requests"])
        return asked

    def thawed(self, serial: int) -> bytes:
        """The bytes of an archive, which is thawed first."""
        archive = self.archives.get(serial)
        assert archive is not None
        place = {"Bucket": self.outputs["ArchiveBucket"], "Key": archive.object_key}
        assert self.s3.head_object(**place)["StorageClass"] == "GLACIER"
        if "Restore" not in self.s3.head_object(**place):
            self.s3.restore_object(**place, RestoreRequest={"Days": 1, "GlacierJobParameters": {"Tier": "Bulk"}})
        self.wait_for(
            f"archive {serial} thawed",
            lambda: 'ongoing-request="false"' in self.s3.head_object(**place).get("Restore", ""),
        )
        return bytes(self.s3.get_object(**place, VersionId=archive.object_version_id)["Body"].read())

    def verify(self, stored: dict[tuple[str, str], bytes]) -> None:
        """Every version's bytes, read from its archive by tarfile and by offset, are those that were uploaded."""
        rows = self.wait_until_archived(list(stored))
        for serial in {row.archive for row in rows.values()}:
            whole = self.thawed(serial)
            manifest = self.store.manifest(serial)
            assert manifest is not None
            assert hashlib.sha256(whole).hexdigest() == manifest.object_sha256
            names: dict[str, bytes] = {}
            if manifest.kind == "tar":
                with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
                    for entry in tar:
                        content = tar.extractfile(entry)
                        assert content is not None
                        names[entry.name] = content.read()
            for member in manifest.members:
                identity = (member.source.key, member.source.version_id)
                if identity not in stored:
                    continue
                row = rows[identity]
                assert (row.archive, row.number, row.offset_bytes) == (serial, member.number, member.offset_bytes)
                assert whole[row.offset_bytes : row.offset_bytes + row.size_bytes] == stored[identity]
                assert hashlib.sha256(stored[identity]).hexdigest() == row.sha256
                if manifest.kind == "tar":
                    assert names[member.name] == stored[identity]


def look_at(cloud: LocalCloud) -> Stacks:
    """The stacks deployed into `cloud`."""
    outputs = cloud.outputs()
    session = cloud.session()
    dynamodb, s3 = session.client("dynamodb"), session.client("s3")
    return Stacks(
        cloud=cloud,
        s3=s3,
        sqs=session.client("sqs"),
        outputs=outputs,
        files=DynamoFiles(dynamodb, outputs["FilesTable"]),
        bundles=DynamoBundles(dynamodb, outputs["ArchivesTable"]),
        archives=DynamoArchives(dynamodb, outputs["ArchivesTable"]),
        parking_lot=DynamoParkingLot(dynamodb, outputs["ParkedTable"]),
        restores=DynamoRestores(dynamodb, outputs["RestoresTable"]),
        thaws=DynamoThaws(dynamodb, outputs["RestoresTable"]),
        store=S3ArchiveStore(s3, outputs["ArchiveBucket"], outputs["ContentBucket"], "GLACIER"),
    )


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def neve(operator: dict[str, str], *words: str) -> Result:
    """What the command says to somebody with the environment `operator`."""
    return CliRunner().invoke(app, list(words), env=operator)
