"""(l) What Resolve takes: processor time for each request, and how many it answers in a second.

The function is called in a process of its own, composed as it is deployed, one request after the other; then the
deployed function is asked over its function URL, by several at once. The events are those of a function URL.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws.ledger import LEDGER
from neve.aws.pointers_table import DynamoPointers
from neve.config import ResolveConfig, environment
from neve.domain.pointer import InContent, OnHost
from neve_local.cloud import LocalCloud
from neve_local.demo_report import quantile
from stacks.settings import Settings
from tests.url_events import url_event

WARM_UP = 20
COUNT = 300
OVER_HTTP = 400
CLIENTS = 4
NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
DEFAULTS = Settings()
POWERTOOLS = {"POWERTOOLS_SERVICE_NAME": "Resolve", "POWERTOOLS_METRICS_NAMESPACE": "bench"}

PATHS: Mapping[str, tuple[str, str]] = {
    "pointed to the content bucket": ("/pointed.jpg", "to_cdn"),
    "private, signed by S3": ("/private/pointed.jpg", "to_signed"),
    "pointed to a host": ("/host.jpg", "to_host"),
    "an upload without a pointer": ("/upload.jpg", "to_upload"),
    "in the content bucket without a pointer": ("/content.jpg", "to_cdn"),
    "nowhere": ("/none.jpg", "unknown"),
}
"""What is asked for, and the kind of its answer."""


# -- In the process that is measured ---------------------------------------------------------------------------------


def main() -> None:
    """Ask for each path, with the settings that standard input has as JSON; print what it took as JSON."""
    os.environ.update(json.load(sys.stdin))
    out = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):  # metrics are lines of the log
        found = {title: asked(path, kind) for title, (path, kind) in PATHS.items()}
    json.dump(found, out)


def asked(path: str, kind: str) -> dict[str, Any]:
    """Seconds and requests to AWS for one request to the function, on the average."""
    import resolve  # noqa: PLC0415  # it lies at the top of what is deployed

    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 10_000)
    event = url_event(path)
    for _ in range(WARM_UP):
        resolve.handler(event, context)
    LEDGER.settle()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(COUNT):
        answer = resolve.handler(event, context)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    wanted = {"to_cdn": 302, "to_signed": 302, "to_host": 302, "to_upload": 302, "unknown": 404}[kind]
    if answer["statusCode"] != wanted:
        raise RuntimeError(f"{path} was to be answered {wanted}: {answer}")
    requests = LEDGER.settle().requests
    return {"cpu_s": cpu / COUNT, "wall_s": wall / COUNT, "requests": sum(requests.values()) / COUNT}


# -- In the process that runs the bench ------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        outputs = cloud.deploy()
        _fill(cloud, outputs)
        found = run(cloud, "resolving", stdin=json.dumps(environment(_config(outputs)) | POWERTOOLS))
        seconds, wall_s = _over_http(outputs["ResolverUrl"])
    return Section(
        letter="l",
        machine=machine,
        text=paragraphs(
            table(
                ("the file is", "requests to AWS", "CPU", "time", "answered, one after the other"),
                [
                    (
                        title,
                        f"{each['requests']:.0f}",
                        f"**{each['cpu_s'] * 1000:.2f} ms**",
                        f"{each['wall_s'] * 1000:.1f} ms",
                        f"{1 / each['wall_s']:,.0f}/s",
                    )
                    for title, each in found.items()
                ],
            ),
            f"CPU is user and system time of the process that answers, {COUNT:,} requests of each kind.",
            f"Over its function URL, {CLIENTS} clients at once, a file that is pointed to: "
            f"**{OVER_HTTP / wall_s:,.0f} requests/s**, p50 {quantile(seconds, 0.5) * 1000:.0f} ms, "
            f"p99 {quantile(seconds, 0.99) * 1000:.0f} ms. Permissions enforced.",
        ),
    )


def _config(outputs: Mapping[str, str]) -> ResolveConfig:
    return ResolveConfig(
        uploads_bucket=outputs["UploadsBucket"],
        content_bucket=outputs["ContentBucket"],
        pointers_table=outputs["PointersTable"],
        files_table=outputs["FilesTable"],
        archives_table=outputs["ArchivesTable"],
        restores_table=outputs["RestoresTable"],
        outbox_table=outputs["OutboxTable"],
        requests_queue_url=outputs["RestoreRequestsQueue"],
        key_layout=DEFAULTS.key_layout,
        cdn_urls="https://img1.example.com https://img2.example.com",
        cdn_choice=DEFAULTS.cdn_choice,
        private_prefixes="private/",
        signing=DEFAULTS.signing,
        cdn_key_id="",
        cdn_key_parameter="",
        archived_answer=DEFAULTS.archived_answer,
        redirect_max_age_s=DEFAULTS.redirect_max_age_s,
        upload_url_s=DEFAULTS.upload_url_s,
        signed_url_s=DEFAULTS.signed_url_s,
    )


def _fill(cloud: LocalCloud, outputs: Mapping[str, str]) -> None:
    """Have each file be where PATHS say. CopyUpload is told of no upload: so it stays without a pointer."""
    session = cloud.session()
    pointers = DynamoPointers(session.client("dynamodb"), outputs["PointersTable"])
    for key in ("pointed.jpg", "private/pointed.jpg"):
        pointers.move(
            None,
            InContent(
                key=key,
                content_key=key,
                content_version="v1",
                upload_version="u1",
                sequencer="1",
                size_bytes=1,
                etag="e",
                since=NOW,
            ),
        )
    pointers.claim_host(OnHost(key="host.jpg", url="https://www1.example.com/host.jpg", since=NOW))
    s3 = session.client("s3")
    s3.put_object(Bucket=outputs["ContentBucket"], Key="content.jpg", Body=b"x")
    s3.put_bucket_notification_configuration(Bucket=outputs["UploadsBucket"], NotificationConfiguration={})
    s3.put_object(Bucket=outputs["UploadsBucket"], Key="upload.jpg", Body=b"x")


def _over_http(url: str) -> tuple[list[float], float]:
    """Seconds of each request over the function URL, and of all together."""
    where = urlsplit(url)

    def ask(count: int) -> list[float]:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        took: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            connection.request("GET", f"{where.path}pointed.jpg")
            answer = connection.getresponse()
            answer.read()
            took.append(time.perf_counter() - began)
            if answer.status != 302:
                raise RuntimeError(f"the function URL answered {answer.status}")
        return took

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, [WARM_UP // CLIENTS] * CLIENTS))
        began = time.perf_counter()
        portions: Sequence[list[float]] = list(pool.map(ask, [OVER_HTTP // CLIENTS] * CLIENTS))
        wall_s = time.perf_counter() - began
    return [each for portion in portions for each in portion], wall_s


if __name__ == "__main__":
    main()
