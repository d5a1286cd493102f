"""The beginning of the demo: files are dropped into a folder, the edge agent moves them, their URLs are asked for."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neve.aws.pointers_table import DynamoPointers
from neve.domain.pointer import InContent
from neve_edge.webserver.site import site
from neve_local.cdn import ContentCdn
from neve_local.cloud import LocalCloud
from neve_local.demo_files import Chosen
from neve_local.demo_restore import ASSUMED_BY_THE_ACCOUNT, COMMANDS, operator_environment
from neve_local.demo_web import WebServer, serving

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CHECKERS = 2
CHECK_PAUSE_S = 0.02
CHECKED_BYTES = 4 * 1024 * 1024
"""Larger files are asked for by HEAD only: comparing them over and over would be the demo's main work."""
LAST_CHECKS = 200
"""So many files are asked for once more when all have moved; all of them, if they are fewer."""
TIMEOUT_S = 30
TRIES = 4
LONGEST_WAIT_S = 5
LET_GO_WITHIN_S = 180
FEW = 20
"""When so few uploads are left, it is asked whether they wait, or are kept for a reason."""
STOPS_WITHIN_S = 30
URL_PATH = "/files/"


@dataclass(frozen=True, kw_only=True)
class Offloaded:
    """What moving the files came to. `moved` maps their keys to their pointers, `flipped_s` to seconds from the drop.

    `urls_checked` counts requests for URLs while the files moved, `redirected` those that were answered from elsewhere
    than the folder. `asked_again` counts those that were told to come back, and did: Resolve says 503 with Retry-After
    when a look-up takes longer than a second. `problems` is empty if no request failed, and every file has left the
    folder.
    """

    moved: Mapping[str, InContent]
    flipped_s: Mapping[str, float]
    urls_checked: int
    url_failures: int
    redirected: int
    asked_again: int
    released: int
    web_server: str
    problems: Sequence[str]


@dataclass
class _Checks:
    """What the checkers have seen so far; several threads fill it in."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def come_back(self) -> None:
        """One more was told to come back."""
        with self.lock:
            self.counts["asked again"] += 1

    def add(self, *, redirected: bool, failure: str) -> None:
        with self.lock:
            self.counts["checked"] += 1
            self.counts["redirected"] += redirected
            if failure:
                self.failures.append(failure)


class Offloading:
    """A folder that the edge agent watches, and a web server for it; made by `offloading`."""

    def __init__(
        self,
        *,
        folder: Path,
        prefix: str,
        pointers: DynamoPointers,
        s3: S3Client,
        uploads_bucket: str,
        content_bucket: str,
        web: WebServer,
        agent: subprocess.Popen[bytes],
        log: Path,
    ) -> None:
        self._folder, self._prefix = folder, prefix
        self._pointers, self._s3 = pointers, s3
        self._uploads_bucket, self._content_bucket = uploads_bucket, content_bucket
        self._web, self._agent, self._log = web, agent, log
        self._dropped: dict[str, tuple[Chosen, float]] = {}
        self._moved: dict[str, InContent] = {}
        self._flipped_s: dict[str, float] = {}
        self._checks = _Checks()
        self._stop = threading.Event()

    def drop(self, file: Chosen) -> None:
        """Move a copy of the file into the folder, as an application that has written it elsewhere. Raises OSError."""
        place = self._folder / file.key.removeprefix(self._prefix)
        staged = self._folder.parent / "staged" / secrets.token_hex(8)
        staged.parent.mkdir(exist_ok=True)
        shutil.copyfile(file.path, staged)
        place.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(place)
        self._dropped[file.key] = (file, time.time())

    def look(self) -> list[tuple[Chosen, InContent]]:
        """The files whose pointers have flipped since the last look."""
        waiting = [key for key in list(self._dropped) if key not in self._moved]
        found = []
        for key, pointer in self._pointers.get_many(waiting).items():
            if isinstance(pointer, InContent):
                file, dropped_at = self._dropped[key]
                self._moved[key] = pointer
                self._flipped_s[key] = max(0.0, pointer.since.timestamp() - dropped_at)
                found.append((file, pointer))
        return found

    @property
    def waiting(self) -> int:
        """Files dropped whose pointers have not flipped yet."""
        return len(self._dropped) - len(self._moved)

    @property
    def stopped(self) -> str:
        """What the agent said last if it has ended by itself; "" while it runs."""
        return "" if self._agent.poll() is None else self._log.read_text(errors="replace")[-1000:] or "nothing"

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Ask for URLs of dropped files, one after the other, until the end of the context."""
        threads = [threading.Thread(target=self._check_on, args=(number,), daemon=True) for number in range(CHECKERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(TIMEOUT_S)

    def _check_on(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # which URLs are asked for is no secret
        while not self._stop.is_set():
            dropped = list(self._dropped.values())
            if dropped:
                self._check(chance.choice(dropped)[0])
            self._stop.wait(CHECK_PAUSE_S)

    def _check(self, file: Chosen) -> None:
        """Ask for the file. Who is told to come back, because a look-up took too long, does so: a few times."""
        url = self._web.url_of(file.key.removeprefix(self._prefix))
        whole = file.size_bytes <= CHECKED_BYTES
        redirected, failure = False, ""
        for tries_left in reversed(range(TRIES)):
            try:
                request = urllib.request.Request(url, method="GET" if whole else "HEAD")  # noqa: S310  # on 127.0.0.1
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                    redirected = answer.url != url
                    body = answer.read()
                    if whole and file.unchanged and not file.has([body]):
                        failure = f"{len(body)} bytes that are not the file's"
            except urllib.error.HTTPError as error:
                after = error.headers.get("Retry-After", "")
                if error.code == HTTPStatus.SERVICE_UNAVAILABLE and after.isdecimal() and tries_left:
                    self._checks.come_back()
                    time.sleep(min(int(after), LONGEST_WAIT_S))
                    continue
                failure = str(error)
            except (urllib.error.URLError, OSError) as error:
                failure = str(error)
            break
        self._checks.add(redirected=redirected, failure=f"{file.key!r}: {failure}" if failure else "")

    def finish(self, tell: Callable[[str], None]) -> Offloaded:
        """Wait until the folder is empty and the uploads are let go; then ask for many URLs once more."""
        tell("waiting until the agent has let every file go ...")
        left, uploads = self._left(), self._uploads()
        deadline = time.monotonic() + LET_GO_WITHIN_S
        while (left or uploads) and time.monotonic() < deadline and not self.stopped:
            time.sleep(0.5)
            left, uploads = self._left(), self._uploads()
        moved = [file for file, _ in self._dropped.values() if file.key in self._moved]
        for file in random.Random(0).sample(moved, min(LAST_CHECKS, len(moved))):  # noqa: S311
            self._check(file)
        problems = [f"its URL failed: {failure}" for failure in self._checks.failures]
        problems += [f"still in the folder: {path}" for path in left]
        problems += [f"still the current upload: {key!r}" for key in uploads]
        problems += [f"the agent has ended: {self.stopped}"] if self.stopped else []
        return Offloaded(
            moved=dict(self._moved),
            flipped_s=dict(self._flipped_s),
            urls_checked=self._checks.counts["checked"],
            url_failures=len(self._checks.failures),
            redirected=self._checks.counts["redirected"],
            asked_again=self._checks.counts["asked again"],
            released=len(self._moved) - len(uploads),
            web_server=self._web.name,
            problems=problems,
        )

    def _left(self) -> list[Path]:
        """Files whose pointers have flipped, and that still are in the folder."""
        places = (self._folder / key.removeprefix(self._prefix) for key in self._moved)
        return [place for place in places if place.exists()]

    def _uploads(self) -> list[str]:
        """The keys of uploads that are not let go yet, and have no reason to stay."""
        keys = self._keys(self._uploads_bucket)
        if not 0 < len(keys) <= FEW:
            return keys
        copied = frozenset(self._keys(self._content_bucket))
        return [key for key in keys if key in copied]  # rightly kept where somebody has deleted the copy

    def _keys(self, bucket: str) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=self._prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]


@contextmanager
def offloading(
    cloud: LocalCloud, outputs: Mapping[str, str], cdn: ContentCdn, *, prefix: str, s3: S3Client, dynamodb: Any
) -> Iterator[Offloading]:
    """A new folder, its web server, and an agent in a role with the policy NeveEdge and nothing else."""
    run = cloud.layout.folder / "demo" / prefix.strip("/").replace("/", "-")
    folder = run / "files"
    folder.mkdir(parents=True)
    (run / "edge.toml").write_text(
        f'journal = "{run}/edge.db"\nquiet_s = 1\nscan_every_s = 5\nparallel = 4\n'
        f'[[folder]]\npath = "{folder}"\nkey_prefix = "{prefix}"\nignore = []\n'
    )
    cdn.serve(s3, (outputs["ContentBucket"], outputs["UploadsBucket"]))
    served = site(root=str(folder), url=URL_PATH, to=outputs["ResolverUrl"], key_prefix=prefix)
    log = run / "agent.log"
    with ExitStack() as undone:
        undone.callback(shutil.rmtree, run, ignore_errors=True)
        web = undone.enter_context(serving(served, run / "web"))
        environment = undone.enter_context(_as_host(cloud, outputs))
        with log.open("wb") as output:
            agent = subprocess.Popen(  # noqa: S603
                [str(COMMANDS / "neve"), "edge", "run", "--config", str(run / "edge.toml")],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        undone.callback(_end, agent)
        yield Offloading(
            folder=folder,
            prefix=prefix,
            pointers=DynamoPointers(dynamodb, outputs["PointersTable"]),
            s3=s3,
            uploads_bucket=outputs["UploadsBucket"],
            content_bucket=outputs["ContentBucket"],
            web=web,
            agent=agent,
            log=log,
        )


@contextmanager
def _as_host(cloud: LocalCloud, outputs: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The variables by which a program acts in the role of a host that runs the agent."""
    iam: Any = cloud.session().client("iam")
    name = f"neve-demo-host-{secrets.token_hex(4)}"
    with ExitStack() as undone:
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(ASSUMED_BY_THE_ACCOUNT))["Role"]
        undone.callback(iam.delete_role, RoleName=name)
        policy = outputs["NeveEdgePolicy"]
        iam.attach_role_policy(RoleName=name, PolicyArn=policy)
        undone.callback(iam.detach_role_policy, RoleName=name, PolicyArn=policy)
        sts = cloud.session().client("sts")
        yield operator_environment(cloud, sts.assume_role(RoleArn=role["Arn"], RoleSessionName="demo")["Credentials"])


def _end(agent: subprocess.Popen[bytes]) -> None:
    agent.send_signal(signal.SIGTERM)
    try:
        agent.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
