"""(m) From a file in a host's folder to its pointer in the content bucket: `neve edge run` and the deployed stacks.

Files are moved into the folder one by one, at a steady rate. Each leaves times behind: the journal's of its
announcement and of its move to the attic, S3's of the upload and of the copy, and the pointer's.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.importing import cpu_seconds
from bench.report import Machine, Section, paragraphs, table
from bench.server import served
from neve.aws.pointers_table import DynamoPointers
from neve.domain.pointer import InContent
from neve_local.cloud import LocalCloud
from neve_local.demo_report import quantile
from neve_local.demo_restore import ASSUMED_BY_THE_ACCOUNT, COMMANDS, operator_environment
from neve_local.processes import processes_of

RATES = (10, 50)
"""Files a second."""
SECONDS = 60
SIZE_BYTES = 20_000
WARM_UP = 20
PATIENCE_S = 300
LOOK_S = 0.25
"""How often the journal is looked at for what was announced; a file's row stays for a second at least."""

STAGES = (
    ("dropped", "announced", "found by the agent: event, look, journal"),
    ("announced", "uploaded", "taken, hashed, PUT"),
    ("uploaded", "copied", "S3's event, the queue, CopyUpload's HEADs, CopyObject"),
    ("copied", "flipped", "pointer written"),
)
IN_ALL = ("dropped", "flipped", "**announce to pointer: all of these**")
AGENT, SERVER = "the agent", "the server of the local cloud"
AFTERWARDS = ("flipped", "let go", "afterwards: pointer seen by the agent, file moved to the attic")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One rate. `times` has for each file when it came so far, in seconds since 1970; `cpu_s` is by who took it."""

    rate: int
    times: Sequence[Mapping[str, float]]
    cpu_s: Mapping[str, float]


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud, tempfile.TemporaryDirectory(prefix="neve-bench-") as folder:
        outputs = cloud.deploy()
        host = Host(cloud, outputs, Path(folder))
        with host.agent() as agent:
            host.drop("warm", rate=10, count=WARM_UP)
            host.wait_until_let_go()
            runs = [_run(host, agent, rate) for rate in RATES]
    return Section(letter="m", machine=machine, text=text(runs))


def text(runs: Sequence[Run]) -> str:
    """The results in Markdown."""
    head = ["p50 / p99, in seconds", *(f"{run.rate} files/s" for run in runs)]
    rows = [
        [what, *(_spread(run, since, until) for run in runs)] for since, until, what in (*STAGES, IN_ALL, AFTERWARDS)
    ]
    users = sorted({user for run in runs for user in run.cpu_s}, key=lambda user: -runs[-1].cpu_s.get(user, 0.0))
    used = [[user, *(_for_each(run, run.cpu_s.get(user, 0.0)) for run in runs)] for user in users]
    in_all = ["**all**", *(f"**{_for_each(run, sum(run.cpu_s.values()))}**" for run in runs)]
    return paragraphs(
        table(head, rows),
        f"Files of {SIZE_BYTES // 1000} KB, `neve edge run` in a role with the policy NeveEdge alone, the stacks as "
        f"they are deployed by default, permissions enforced.",
        table(("processor time for each file, ms", *head[1:]), [*used, in_all]),
        " ".join(verdict(run) for run in runs),
    )


def verdict(run: Run) -> str:
    """Whether the thread keeps up with the rate."""
    last = max(each["flipped"] for each in run.times) - min(each["dropped"] for each in run.times)
    count = len(run.times)
    return f"{count:,} files at {run.rate}/s had their pointers after {last:.1f} s ({count / last:.1f}/s)."


def _for_each(run: Run, cpu_s: float) -> str:
    return f"{cpu_s / len(run.times) * 1000:.1f}"


def _spread(run: Run, since: str, until: str) -> str:
    seconds = [each[until] - each[since] for each in run.times]
    return f"{quantile(seconds, 0.5):.2f} / {quantile(seconds, 0.99):.2f}"


def _run(host: Host, agent: subprocess.Popen[bytes], rate: int) -> Run:
    prefix = f"r{rate}"
    before = _cpu(host.cloud, agent.pid)
    dropped = host.drop(prefix, rate=rate, count=rate * SECONDS)
    let_go = host.wait_until_let_go()
    taken: defaultdict[str, float] = defaultdict(float)
    for process, cpu_s in _cpu(host.cloud, agent.pid).items():
        taken[process[0]] += cpu_s - before.get(process, 0.0)
    uploaded, copied, flipped = host.uploaded(prefix), host.copied(prefix), host.flipped(list(dropped))
    return Run(
        rate=rate,
        times=[
            {
                "dropped": at,
                "announced": host.announced[key],
                "uploaded": uploaded[key],
                "copied": copied[key],
                "flipped": flipped[key],
                "let go": let_go[key],
            }
            for key, at in dropped.items()
        ],
        cpu_s=_named(taken),
    )


def _cpu(cloud: LocalCloud, agent: int) -> dict[tuple[str, int], float]:
    """User and system time so far, by name and process id, of the agent, the server and the functions that are warm."""
    found = {(AGENT, agent): cpu_seconds(agent), (SERVER, cloud.pid): cpu_seconds(cloud.pid)}
    for process in processes_of(cloud.layout.folder):
        with suppress(FileNotFoundError):  # it has ended
            if process.function_name:
                found[process.function_name, process.pid] = cpu_seconds(process.pid)
    return found


def function_of(name: str) -> str:
    """CopyUpload for neve-offload-CopyUpload1A2B3C4D-5E6F, as it is deployed; other names as they are."""
    found = re.match(r"neve-[a-z]+-([A-Z][A-Za-z]+?)(?=[0-9A-F]{8}-)", name)
    return found[1] if found else name


def _named(taken: Mapping[str, float]) -> dict[str, float]:
    """By the functions' own names; together what took less than a hundredth."""
    named: defaultdict[str, float] = defaultdict(float)
    for name, cpu_s in taken.items():
        named[function_of(name)] += cpu_s
    least = sum(named.values()) / 100
    others = sum(cpu_s for cpu_s in named.values() if cpu_s < least)
    return {name: cpu_s for name, cpu_s in named.items() if cpu_s >= least} | {"others": others}


class Host:
    """A folder, the agent that watches it, and what can be read of its files afterwards."""

    def __init__(self, cloud: LocalCloud, outputs: Mapping[str, str], folder: Path) -> None:
        self.cloud, self.outputs, self.folder = cloud, outputs, folder
        self.files, self.journal = folder / "files", folder / "edge.db"
        self.files.mkdir()
        self.announced: dict[str, float] = {}
        self._count = 0
        (folder / "edge.toml").write_text(
            f'journal = "{self.journal}"\n[[folder]]\npath = "{self.files}"\nattic = "{folder}/attic"\n'
        )

    @contextmanager
    def agent(self) -> Iterator[subprocess.Popen[bytes]]:
        """`neve edge run`, and somebody who looks into its journal."""
        with ExitStack() as undone:
            environment = undone.enter_context(_as_host(self.cloud, self.outputs))
            log = undone.enter_context((self.folder / "agent.log").open("wb"))
            agent = subprocess.Popen(
                [str(COMMANDS / "neve"), "edge", "run", "--config", str(self.folder / "edge.toml")],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            undone.callback(_end, agent)
            while not self.journal.exists():
                time.sleep(0.05)
            over = threading.Event()
            looking = threading.Thread(target=self._look, args=(over,), daemon=True)
            undone.callback(looking.join)
            undone.callback(over.set)
            looking.start()
            yield agent

    def drop(self, prefix: str, *, rate: int, count: int) -> dict[str, float]:
        """Move `count` files into the folder, `rate` a second; when, by their keys."""
        staged = self.folder / "staged"
        (self.files / prefix).mkdir()
        dropped: dict[str, float] = {}
        began = time.monotonic()
        for number in range(count):
            key = f"{prefix}/{number:06}.jpg"
            staged.write_bytes(random.Random(key).randbytes(SIZE_BYTES))
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            dropped[key] = time.time()
            staged.rename(self.files / key)
        self._count += count
        return dropped

    def wait_until_let_go(self) -> dict[str, float]:
        """When each file was moved to the attic, by key, once all are."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with closing(self._opened()) as database:
                rows = dict(database.execute("SELECT key, moved_at FROM attic").fetchall())
            if len(rows) >= self._count:
                return rows
            if time.monotonic() > deadline:
                log = (self.folder / "agent.log").read_text(errors="replace")[-2000:]
                raise TimeoutError(f"{len(rows)} of {self._count} files were let go within {PATIENCE_S} s; {log}")
            time.sleep(0.5)

    def uploaded(self, prefix: str) -> dict[str, float]:
        """When S3 had each upload; the first, if the agent made more."""
        return self._versions(self.outputs["UploadsBucket"], prefix)

    def copied(self, prefix: str) -> dict[str, float]:
        """When S3 had each copy."""
        return self._versions(self.outputs["ContentBucket"], prefix)

    def flipped(self, keys: Sequence[str]) -> dict[str, float]:
        """When CopyUpload wrote each pointer."""
        pointers = DynamoPointers(self.cloud.session().client("dynamodb"), self.outputs["PointersTable"])
        found = pointers.get_many(keys)
        return {key: each.since.timestamp() for key, each in found.items() if isinstance(each, InContent)}

    def _versions(self, bucket: str, prefix: str) -> dict[str, float]:
        pages = self.cloud.session().client("s3").get_paginator("list_object_versions")
        found: dict[str, float] = {}
        for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for each in page.get("Versions", []):
                at = each["LastModified"].timestamp()
                found[each["Key"]] = min(at, found.get(each["Key"], at))
        return found

    def _look(self, over: threading.Event) -> None:
        with closing(self._opened()) as database:
            while not over.wait(LOOK_S):
                for key, at in database.execute("SELECT key, announced_at FROM announced").fetchall():
                    self.announced.setdefault(key, at)

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=30)


@contextmanager
def _as_host(cloud: LocalCloud, outputs: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The variables by which a program acts in a role with the policy of hosts that run the agent, and nothing else."""
    session: Any = cloud.session()
    name = f"bench-host-{secrets.token_hex(4)}"
    role = session.client("iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps(ASSUMED_BY_THE_ACCOUNT)
    )["Role"]
    session.client("iam").attach_role_policy(RoleName=name, PolicyArn=outputs["NeveEdgePolicy"])
    given = session.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="bench")["Credentials"]
    yield operator_environment(cloud, given)


def _end(agent: subprocess.Popen[bytes]) -> None:
    agent.send_signal(signal.SIGTERM)
    try:
        agent.wait(30)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
