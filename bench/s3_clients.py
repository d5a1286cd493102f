"""(d) CPU time of reading members, by S3 client.

Each client reads the same objects of the same server, pinned to their versions, in a fresh process, with at most
CONNECTIONS requests at once. Whatever it verifies by itself comes on top of what neve needs in any case: the size, the
SHA-256, and the MD5, which has to be the ETag.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import awscrt.auth
import awscrt.http
import awscrt.io
import awscrt.s3
import boto3
import botocore.session
import s3transfer.crt

from bench import packages, place
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws import clients
from neve.aws.content import S3Content
from neve.domain.version import ObjectVersion, from_fields, to_fields

COUNT = 1_000
SIZE_BYTES = 100_000
WARM = 50
CONNECTIONS = 32
ROUNDS = 3


# -- In the process that is measured -------------------------------------------------------------------------------

Read = Callable[[Sequence[ObjectVersion]], int]
"""Reads versions; the number whose bytes the client itself compared with S3's checksum."""


def proved(version: ObjectVersion, body: bytes | memoryview) -> None:
    """What every client's bytes go through. Raises RuntimeError unless they are those of `version`."""
    hashlib.sha256(body).hexdigest()
    if len(body) != version.size_bytes or hashlib.md5(body, usedforsecurity=False).hexdigest() != version.etag:
        raise RuntimeError(f"other bytes than those of {version.key!r} were read")


def boto3_threads() -> Read:
    """As WriteArchive reads: get_object in threads, by neve's own adapter."""
    content = S3Content(clients.s3(), place.CONTENT)

    def read(versions: Sequence[ObjectVersion]) -> int:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            sources = pool.map(content.fetch, versions)
            return sum("CRC64NVME" in source.checksums for source, _ in sources)

    return read


def s3transfer_crt() -> Read:
    """What boto3's transfers do when awscrt is preferred: s3transfer over the client of awscrt."""
    session = botocore.session.Session()
    crt = s3transfer.crt
    client = crt.create_s3_crt_client(
        region=os.environ["AWS_REGION"],
        crt_credentials_provider=crt.BotocoreCRTCredentialsWrapper(
            boto3.Session().get_credentials()
        ).to_crt_credentials_provider(),
        use_ssl=False,
    )
    serializer = crt.BotocoreCRTRequestSerializer(
        session, {"region_name": os.environ["AWS_REGION"], "endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    )

    def read(versions: Sequence[ObjectVersion]) -> int:
        with crt.CRTTransferManager(client, serializer) as manager:
            started = []
            for version in versions:
                body = io.BytesIO()
                future = manager.download(
                    place.CONTENT, version.key, body, {"VersionId": version.version_id, "ChecksumMode": "ENABLED"}
                )
                started.append((version, body, future))
            for version, body, future in started:
                future.result()
                proved(version, body.getbuffer())
        return len(versions)

    return read


def awscrt_client() -> Read:
    """The client of awscrt by itself: one plain GetObject for each version, headers seen."""
    crt = awscrt.s3
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
    provider = awscrt.auth.AwsCredentialsProvider.new_static(
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    )
    client = crt.S3Client(
        region=os.environ["AWS_REGION"],
        tls_mode=crt.S3RequestTlsMode.DISABLED,
        signing_config=crt.create_default_s3_signing_config(
            region=os.environ["AWS_REGION"], credential_provider=provider
        ),
        max_active_connections_override=CONNECTIONS,
    )

    def start(version: ObjectVersion, answer: dict[str, Any]) -> Future[None]:
        path = f"/{place.CONTENT}/{quote(version.key)}?versionId={quote(version.version_id)}"
        headers = awscrt.http.HttpHeaders([("host", endpoint)])
        # Called from its threads as the answer comes in.
        request = client.make_request(
            type=crt.S3RequestType.DEFAULT,
            operation_name="GetObject",
            request=awscrt.http.HttpRequest("GET", path, headers),
            checksum_config=crt.S3ChecksumConfig(validate_response=True),
            on_headers=lambda headers, **_: answer.update(headers=headers),
            on_body=lambda chunk, **_: answer["chunks"].append(chunk),
            on_done=lambda did_validate_checksum, **_: answer.update(validated=did_validate_checksum),
        )
        answer["request"] = request
        future: Future[None] = request.finished_future
        return future

    def read(versions: Sequence[ObjectVersion]) -> int:
        started = []
        for version in versions:
            answer: dict[str, Any] = {"chunks": []}
            started.append((version, answer, start(version, answer)))
        for version, answer, future in started:
            future.result()
            proved(version, b"".join(answer["chunks"]))
        return sum(bool(answer.get("validated")) for _, answer, _ in started)

    return read


def obstore_threads() -> Read:
    """Rust's object_store in Python threads; a call holds no lock while it waits."""
    obstore, stores = importlib.import_module("obstore"), importlib.import_module("obstore.store")
    store = stores.S3Store(
        place.CONTENT,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        region=os.environ["AWS_REGION"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def read_one(version: ObjectVersion) -> None:
        answer = obstore.get(store, version.key, options={"version": version.version_id})
        proved(version, memoryview(answer.bytes()))

    def read(versions: Sequence[ObjectVersion]) -> int:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(read_one, versions))
        return 0

    return read


CLIENTS: Mapping[str, Callable[[], Read]] = {
    "boto3, threads": boto3_threads,
    "s3transfer over awscrt": s3transfer_crt,
    "awscrt's own client": awscrt_client,
    "obstore, threads": obstore_threads,
}


def main() -> None:
    """Store the objects, or read them by the client that the first word names; print what it took as JSON."""
    if len(sys.argv) == 1:
        place.prepare()
        versions = place.upload("clients", count=COUNT, size_bytes=SIZE_BYTES)
        json.dump([to_fields(version) for version in versions], sys.stdout)
        return
    versions = [from_fields(fields) for fields in json.loads(sys.stdin.read())]
    read = CLIENTS[sys.argv[1]]()
    read(versions[:WARM])
    began, cpu_began = time.perf_counter(), time.process_time()
    validated = read(versions)
    json.dump(
        {
            "cpu_seconds": time.process_time() - cpu_began,
            "seconds": time.perf_counter() - began,
            "validated": validated,
        },
        sys.stdout,
    )


# -- In the process that runs the bench ----------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    folder = packages.installed()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    with served() as cloud:
        versions = run(cloud, "s3_clients")
        for _ in range(ROUNDS):
            for name, taken in found.items():
                taken.append(run(cloud, "s3_clients", name, packages=folder, stdin=json.dumps(versions)))
    return Section(
        letter="d",
        machine=machine,
        text=paragraphs(
            table(
                (
                    f"{COUNT:,} GETs of {SIZE_BYTES // 1000} KB",
                    "CPU, user and system",
                    "lowest to highest",
                    "GETs a second",
                    "checksum of S3 compared",
                ),
                [_row(name, taken) for name, taken in found.items()],
            ),
            f"Median of {ROUNDS} rounds, all clients in each, each in a fresh process after {WARM} GETs to warm "
            f"up, at most {CONNECTIONS} at once (s3transfer chooses for itself). SHA-256 and MD5 of each object "
            "are in the figures.",
        ),
    )


def _row(name: str, taken: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    cpu = [each["cpu_seconds"] for each in taken]
    seconds = statistics.median(each["seconds"] for each in taken)
    return (
        name,
        f"**{statistics.median(cpu):.2f} s**",
        f"{min(cpu):.2f} to {max(cpu):.2f} s",
        f"{COUNT / seconds:,.0f}",
        f"{min(each['validated'] for each in taken):,.0f}",
    )


if __name__ == "__main__":
    main()
