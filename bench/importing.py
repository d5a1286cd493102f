"""(n) A tree of small files into a bucket: `neve edge import` against `aws s3 cp --recursive` and `rclone copy`.

Each client verifies as it does by default. They take turns on one server, each with a bucket of its own that is plain
and versioned. No stacks: so what is run of neve is the command from its finder to its verification, and what would wait
for a pointer ends there, as files do that are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import packages
from bench.report import Machine, Section, paragraphs, table
from bench.server import served
from neve.errors import NeveError
from neve_cli.edge_import import Order, import_by
from neve_edge.agent import Agent
from neve_edge.settings import load
from neve_edge.stack import Deployed
from neve_local.cloud import PROJECT, REGION, LocalCloud

FILES = 10_000
SIZE_BYTES = 4_000
IN_A_FOLDER = 1_000
ROUNDS = 3
AT_ONCE = 8
"""Uploads at a time: neve's default. rclone has 4 by default and is given as many; aws has 10 and keeps them."""

NEVE, AWS, RCLONE = "neve edge import --keep", "aws s3 cp --recursive", "rclone copy"
VERIFIES = {
    NEVE: "S3 compares the SHA-256 of each PUT; then a listing has to state each version with its size and MD5",
    AWS: "S3 compares the CRC32 of each PUT; nothing is asked for afterwards",
    RCLONE: "S3 compares the MD5 of each PUT; then a HEAD of each object has to state its size and MD5",
}


class ClientFailed(NeveError):
    """A client did not do what is measured; the message has what it said last."""


# -- In the process that is measured ---------------------------------------------------------------------------------


class _NoStacks(Deployed):
    """A bucket and nothing else."""

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        return {"UploadsBucket": os.environ["BENCH_BUCKET"]}


class _Copying(Agent):
    """The agent without stacks: there are no pointers to wait for."""

    @cached_property
    def deployed(self) -> Deployed:
        return _NoStacks(self.settings)

    @cached_property
    def pointers(self) -> None:
        return None


def main() -> None:
    """`python -m bench.importing FOLDER EDGE.TOML`: as `neve edge import --keep --json FOLDER --config EDGE.TOML`."""
    folder, config = map(Path, sys.argv[1:])
    settings = load(config, (), given=None)
    place = settings.tree(folder)
    if place is None:
        raise ClientFailed(f"{folder} is in no folder of {config}")
    import_by(_Copying(settings), *place, Order(keep=True, dry_run=False, as_json=True))


# -- In the process that runs the bench ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Took:
    """What one client took for all files, and the server for it."""

    files: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    server_cpu_seconds: float

    @property
    def files_per_s(self) -> float:
        """Files a second."""
        return self.files / self.seconds


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files below `folder`. `digest` is of all their names and contents."""

    folder: Path
    count: int
    digest: str


def measure(machine: Machine, *, files: int = FILES, rounds: int = ROUNDS) -> Section:
    """The section for docs/benchmarks.md."""
    found: dict[str, list[Took]] = {NEVE: [], AWS: [], RCLONE: []}
    versions = {NEVE: "this neve", AWS: _version_of_aws(), RCLONE: _version_of_rclone()}
    with served() as cloud, tempfile.TemporaryDirectory(prefix="neve-bench-") as work:
        tree = make_tree(Path(work) / "files", files)
        for number in range(rounds):
            clients = list(found)
            for client in clients[number % 3 :] + clients[: number % 3]:  # whoever comes later finds a fuller server
                took = _run(cloud, client, tree, Path(work))
                print(f"[bench] {client}: {took.files_per_s:,.0f} files/s", file=sys.stderr, flush=True)
                found[client].append(took)
    return Section(letter="n", machine=machine, text=text(found, versions, files))


def text(found: Mapping[str, Sequence[Took]], versions: Mapping[str, str], files: int) -> str:
    """The results in Markdown. `found` has for each client as many runs, in the order of the rounds."""
    rounds = len(found[NEVE])
    return paragraphs(
        table(
            (
                f"{files:,} files of {SIZE_BYTES // 1000} KB",
                "files/s",
                "slowest to fastest",
                "neve to it, pair by pair",
                "CPU",
                "peak memory",
                "CPU of the server",
            ),
            [_row(client, took, found[NEVE]) for client, took in found.items()],
        ),
        f"Median of {rounds} {'round' if rounds == 1 else 'rounds'}, all clients in each, in turns. CPU is user and "
        "system time of the client with its start, for 1,000 files; that of the server is what it took meanwhile.",
        "\n".join(f"- {client} ({versions[client]}): {VERIFIES[client]}" for client in found),
        verdict(found),
    )


def verdict(found: Mapping[str, Sequence[Took]]) -> str:
    """Whether neve was faster than both, in each pair."""
    said = []
    for client in (AWS, RCLONE):
        ratios = ratios_to(found[NEVE], found[client])
        ahead = sum(ratio > 1 for ratio in ratios)
        said.append(f"{statistics.median(ratios):.2f} times {client} (faster in {ahead} of {len(ratios)} pairs)")
    return f"neve makes {' and '.join(said)}."


def ratios_to(neve: Sequence[Took], other: Sequence[Took]) -> list[float]:
    """neve's files a second for one of the other's, in each round."""
    return [mine.files_per_s / its.files_per_s for mine, its in zip(neve, other, strict=True)]


def _row(client: str, took: Sequence[Took], neve: Sequence[Took]) -> tuple[str, ...]:
    rates = [each.files_per_s for each in took]
    ratios = ratios_to(neve, took)
    compared = "" if client == NEVE else f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"

    def for_1_000(seconds: Sequence[float]) -> str:
        return f"{statistics.median(seconds) / took[0].files * 1000:.2f} s"

    return (
        client,
        f"**{statistics.median(rates):,.0f}**",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        compared,
        for_1_000([each.cpu_seconds for each in took]),
        f"{max(each.peak_bytes for each in took) / 2**20:.0f} MiB",
        for_1_000([each.server_cpu_seconds for each in took]),
    )


def make_tree(folder: Path, count: int) -> Tree:
    """`count` files of random bytes."""
    digest = hashlib.sha256()
    for number in range(count):
        path = folder / f"{number // IN_A_FOLDER:04}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = random.Random(number).randbytes(SIZE_BYTES)
        path.write_bytes(body)
        digest.update(_line(path.relative_to(folder).as_posix(), len(body), hashlib.md5(body).hexdigest()))
    return Tree(folder=folder, count=count, digest=digest.hexdigest())


def _line(key: str, size_bytes: int, md5: str) -> bytes:
    return f"{key} {size_bytes} {md5}\n".encode()


def _run(cloud: LocalCloud, client: str, tree: Tree, work: Path) -> Took:
    """One client's upload of the tree. Raises ClientFailed unless the bucket then has all of it."""
    with _bucket(cloud) as bucket, tempfile.TemporaryDirectory(dir=work) as folder:
        command, variables = _command(client, tree, bucket, Path(folder), cloud.endpoint_url)
        environment = {
            **cloud.environment(),
            **variables,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "LANG": "C.UTF-8",
            "NO_PROXY": "*",
        }
        said, before = Path(folder) / "said", cpu_seconds(cloud.pid)
        timed = [sys.executable, "-S", str(Path(__file__).with_name("timed.py")), str(said)]
        done = subprocess.run(
            [*timed, *command], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, check=True, text=True
        )
        server_cpu_seconds = cpu_seconds(cloud.pid) - before
        took: dict[str, Any] = json.loads(done.stdout)
        if took.pop("status"):
            raise ClientFailed(f"{client} failed: {said.read_text(errors='replace')[-2000:]}")
        if _digest(cloud, bucket) != tree.digest:
            raise ClientFailed(f"{client} has not uploaded the tree")
    return Took(files=tree.count, server_cpu_seconds=server_cpu_seconds, **took)


def _command(client: str, tree: Tree, bucket: str, folder: Path, endpoint: str) -> tuple[list[str], Mapping[str, str]]:
    """The client's command, and what it needs in its environment."""
    if client == NEVE:
        config = folder / "edge.toml"
        config.write_text(
            f'journal = "{folder}/edge.db"\nparallel = {AT_ONCE}\n[[folder]]\npath = "{tree.folder}"\n'
            f'attic = "{folder}/attic"\n'
        )
        return [sys.executable, "-m", "bench.importing", str(tree.folder), str(config)], {"BENCH_BUCKET": bucket}
    if client == AWS:
        words = ["s3", "cp", "--recursive", "--only-show-errors", str(tree.folder), f"s3://{bucket}/"]
        return [sys.executable, "-m", "awscli", *words], {"PYTHONPATH": str(packages.installed(packages.AWS_CLI))}
    return ["rclone", "copy", "--transfers", str(AT_ONCE), str(tree.folder), f"neve:{bucket}/"], {
        "RCLONE_CONFIG": f"{folder}/rclone.conf",
        "RCLONE_CONFIG_NEVE_TYPE": "s3",
        # As AWS, but for the bucket in the path: rclone would look for bucket.127.0.0.1.
        "RCLONE_CONFIG_NEVE_PROVIDER": "Minio",
        "RCLONE_CONFIG_NEVE_ENDPOINT": endpoint,
        "RCLONE_CONFIG_NEVE_ENV_AUTH": "true",
        "RCLONE_CONFIG_NEVE_REGION": REGION,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _bucket(cloud: LocalCloud) -> Iterator[str]:
    """A plain versioned bucket, gone with all it held in the end."""
    name, s3 = f"bench-{secrets.token_hex(4)}", cloud.session().client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    yield name
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        versions: Any = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in page.get("Versions", [])]
        if versions:
            s3.delete_objects(Bucket=name, Delete={"Objects": versions, "Quiet": True})
    s3.delete_bucket(Bucket=name)


def _digest(cloud: LocalCloud, bucket: str) -> str:
    """As Tree.digest, of what the bucket has."""
    digest = hashlib.sha256()
    for page in cloud.session().client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in page.get("Versions", []):
            digest.update(_line(each["Key"], each["Size"], each["ETag"].strip('"')))
    return digest.hexdigest()


def _version_of_rclone() -> str:
    """Raises ClientFailed if it is not there."""
    try:
        said = subprocess.run(["rclone", "version"], stdout=subprocess.PIPE, check=True, text=True).stdout
    except OSError as error:
        raise ClientFailed("rclone is not there: apt-get install rclone") from error
    return said.partition("\n")[0].removeprefix("rclone ")


def _version_of_aws() -> str:
    pinned = (PROJECT / "bench" / f"{packages.AWS_CLI}.txt").read_text()
    return next(line for line in pinned.splitlines() if line.startswith("awscli==")).removeprefix("awscli==")


if __name__ == "__main__":
    main()
