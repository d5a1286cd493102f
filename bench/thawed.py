"""(i) From a thawed archive to the file in its place: one file at a time, through the stacks as they are deployed.

S3's event does not tell its moment to less than a second. So HEAD is asked every few milliseconds: of the archive,
until its copy is there, then of the place where the file is to be.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from bench import place
from bench.archives import Shelf, files
from bench.report import Machine, Section, paragraphs, table
from bench.server import served
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.aws.glacier import copy_status
from neve.domain.cost import Workload
from neve.domain.manifest import Manifest
from neve.domain.restore import Request, Wanted, render_request
from neve.domain.thaw import Need, Tier
from neve_local.cloud import LocalCloud
from neve_local.demo_report import quantile

AIM_S = 1.0
WARM_UP = 2
"""After the first one, which finds the functions cold."""
COUNT = 20
MEMBERS = Workload().members
FILE_BYTES = 10_000
LOOK_EVERY_S = 0.02
PATIENCE_S = 60


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        outputs = cloud.deploy()
        manifests = _archives(cloud, outputs)
        cold, *seconds = [_restored(cloud, outputs, manifest) for manifest in manifests]
    seconds = seconds[WARM_UP:]
    p50 = quantile(seconds, 0.5)
    return Section(
        letter="i",
        machine=machine,
        text=paragraphs(
            table(
                ("from thawed to in place", "p50", "p90", "least", "most", "the first, cold"),
                [
                    (
                        f"{COUNT} files, one after the other",
                        f"**{p50:.2f} s**",
                        f"{quantile(seconds, 0.9):.2f} s",
                        f"{min(seconds):.2f} s",
                        f"{max(seconds):.2f} s",
                        f"{cold:.2f} s",
                    )
                ],
            ),
            f"p50 **{p50:.2f} s**; the aim is {AIM_S:.0f} s ({'reached' if p50 <= AIM_S else 'missed'}). Each file is "
            f"one of {MEMBERS} of {FILE_BYTES // 1000} KB in an archive of its own, and goes to the content bucket. "
            "Permissions enforced.",
        ),
    )


def _archives(cloud: LocalCloud, outputs: Mapping[str, str]) -> list[Manifest]:
    """So many archives that each is thawed for one file only."""
    session = cloud.session()
    dynamodb = session.client("dynamodb")
    shelf = Shelf(
        store=S3ArchiveStore(session.client("s3"), outputs["ArchiveBucket"], outputs["ContentBucket"], "GLACIER"),
        archives=DynamoArchives(dynamodb, outputs["ArchivesTable"]),
        files=DynamoFiles(dynamodb, outputs["FilesTable"]),
    )
    chance = random.Random("thawed")
    return [
        shelf.put(serial, files(serial, [FILE_BYTES] * MEMBERS, chance)) for serial in range(1, 1 + WARM_UP + COUNT + 1)
    ]


def _restored(cloud: LocalCloud, outputs: Mapping[str, str], manifest: Manifest) -> float:
    """Have one file of the archive restored: the seconds from its copy to the file.

    Counted from the last look at which S3 still called the thaw running to the first at which the file was there.
    """
    s3: Any = cloud.session().client("s3")
    source = manifest.members[MEMBERS // 2].source
    content = outputs["ContentBucket"]
    request = Request(
        job=f"job-{manifest.archive}",
        chunk=1,
        chunks=1,
        created_at=place.now(),
        need=Need(tier=Tier.EXPEDITED, days=1),
        overwrite=False,
        estimate_usd=0.0,
        items=(Wanted(key=source.key, pin=source.pin, destination=f"s3://{content}/{source.key}"),),
    )

    def is_warm() -> bool:
        status = copy_status(s3.head_object(Bucket=outputs["ArchiveBucket"], Key=manifest.object_key))
        return status.warm_until is not None

    def is_there() -> bool:
        try:
            s3.head_object(Bucket=content, Key=source.key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return False
        return True

    if is_there():
        raise RuntimeError(f"{source.key} is there before it was asked for")
    cloud.session().client("sqs").send_message(
        QueueUrl=outputs["RestoreRequestsQueue"], MessageBody=render_request(request)
    )
    began, _ = _until(is_warm)
    _, ended = _until(is_there)
    body = s3.get_object(Bucket=content, Key=source.key)["Body"].read()
    if hashlib.sha256(body).hexdigest() != source.sha256:
        raise RuntimeError(f"{source.key} is not what was archived")
    return ended - began


def _until(there: Callable[[], bool]) -> tuple[float, float]:
    """When the last look began that found nothing, and when the first one ended that found it."""
    deadline = time.monotonic() + PATIENCE_S
    last = time.monotonic()
    while True:
        looked = time.monotonic()
        if there():
            return last, time.monotonic()
        last = looked
        if looked > deadline:
            raise TimeoutError(f"nothing came of a request within {PATIENCE_S} s")
        time.sleep(LOOK_EVERY_S)
