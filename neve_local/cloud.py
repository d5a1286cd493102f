"""The local cloud: one ministack server with its state in one folder, and neve's stacks in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
import botocore.session
from botocore.config import Config

from neve.errors import NeveError
from neve_local import deployment
from neve_local.layout import Layout
from neve_local.processes import MARK, end_all, processes_of

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_FOLDER = PROJECT / ".neve" / "cloud"
USUAL_PORT = 4566
REGION = "us-east-1"
ACCOUNT = "000000000000"
# Not secrets: ministack takes the key "test" as the account's root, which is never denied.
ACCESS_KEY = "test"

_START_PATIENCE_S = 60
_STOP_PATIENCE_S = 120
_LOG_PAGE = 10_000
# Each is a process of a function, which a laptop has few of (MOST_ENVIRONMENTS in neve_local.app).
_SHARDS_AT_ONCE = 4


class LocalCloudError(NeveError):
    """The local cloud cannot do what was asked; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """How `LocalCloud.start` found things."""

    endpoint_url: str
    already_running: bool
    set_aside: Path | None
    """What a crash had left, moved there; None if the last stop was a clean one."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What `LocalCloud.stop` did. `state_saved` is False if nothing ran, or if what ran had to be killed."""

    was_running: bool
    state_saved: bool


def quiet(message: str) -> None:
    """Swallow progress messages."""


class _LoopbackSession(botocore.session.Session):
    """Sends every request to one address, without a proxy, and reads nothing of the user's AWS configuration."""

    def __init__(self, endpoint_url: str) -> None:
        super().__init__()
        self._endpoint_url = endpoint_url

    def get_scoped_config(self) -> dict[str, Any]:
        return {}

    def create_client(self, *words: Any, **options: Any) -> Any:
        direct = Config(proxies={})
        options["config"] = direct.merge(options["config"]) if options.get("config") else direct
        options["endpoint_url"] = self._endpoint_url
        return super().create_client(*words, **options)


class LocalCloud:
    """A local cloud in `folder`, running or not. As a context manager it is started and stopped; deploy it yourself.

    `port` is where it listens on 127.0.0.1: None for the port of the stored state, else 4566, else any free one;
    0 for any free one. `say` is told each step, a line at a time. A cloud that is `tied` stops when the process that
    started it has gone, however that ended. `server` is the module that serves; another one may look at what comes by.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        port: int | None = None,
        say: Callable[[str], None] = quiet,
        tied: bool = False,
        server: str = "neve_local.server",
    ) -> None:
        self.layout = Layout(folder.resolve())
        self._wanted_port = port
        self._say = say
        self._tied = tied
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- the server ------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a server has this folder, whoever started it."""
        try:
            with self.layout.lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def crashed(self) -> bool:
        """Whether the last server ended without having its state on disk, and nothing has been done about it yet."""
        return self.layout.running.exists() and not self.running

    @property
    def pid(self) -> int:
        """The server's process id. Raises LocalCloudError if it is not running."""
        return int(self._announced()["pid"])

    @property
    def endpoint_url(self) -> str:
        """Where every service listens. Raises LocalCloudError if the cloud is not running."""
        return f"http://127.0.0.1:{int(self._announced()['port'])}"

    def start(self) -> Started:
        """Start the server, or find it running, and return when it answers.

        What a crash left is set aside first and reported: objects are written as they come but tables, queues and
        stacks only at a clean stop, so the two no longer fit.

        Raises LocalCloudError if the port is taken or the server does not come up.
        """
        if self.running:
            self._wait_until_ready()
            return Started(endpoint_url=self.endpoint_url, already_running=True, set_aside=None)
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        end_all(self.layout.folder)
        set_aside = self._set_aside() if self.layout.running.exists() else None
        shutil.rmtree(self.layout.temporary, ignore_errors=True)
        for folder in (self.layout.temporary, self.layout.state, self.layout.objects):
            folder.mkdir(exist_ok=True)
        port = self._choose_port()
        with self.layout.server_log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this Python, and a module of this project
                [sys.executable, "-m", self._server],
                cwd=PROJECT,
                env=server_environment(self.layout, port=port, tied=self._tied),
                stdin=subprocess.PIPE if self._tied else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the caller
            )
        try:
            self._wait_until_ready()
        except BaseException:
            # Nobody has stored anything yet: killing it loses nothing, and it must not linger.
            self._process.kill()
            self._process.wait()
            end_all(self.layout.folder)
            self.layout.running.unlink(missing_ok=True)
            raise
        return Started(endpoint_url=self.endpoint_url, already_running=False, set_aside=set_aside)

    def stop(self) -> Stopped:
        """Stop the server and its functions; returns when its state is on disk and the last process is gone.

        Raises LocalCloudError if it had to be killed.
        """
        if not self.running:
            end_all(self.layout.folder)
            self._reap()
            return Stopped(was_running=False, state_saved=False)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_PATIENCE_S
        while self.running:
            if time.monotonic() > deadline:
                self.kill()
                raise LocalCloudError(
                    f"The local cloud did not stop within {_STOP_PATIENCE_S} s and was killed. Its state is lost: "
                    "`neve local up` sets the rest aside and starts an empty one."
                )
            time.sleep(0.05)
        self._reap()
        end_all(self.layout.folder)
        return Stopped(was_running=True, state_saved=not self.layout.running.exists())

    def kill(self) -> None:
        """End the server and its functions as a crash would, saving nothing."""
        end_all(self.layout.folder)
        self._reap()

    def wipe(self) -> None:
        """Remove all that the cloud holds. Raises LocalCloudError if it is running."""
        if self.running:
            raise LocalCloudError("The local cloud is running; stop it first: `neve local down`.")
        end_all(self.layout.folder)
        shutil.rmtree(self.layout.folder, ignore_errors=True)

    def worker_pids(self, function: str = "") -> list[int]:
        """The process ids of the warm function workers; of those whose function's name contains `function`."""
        processes = processes_of(self.layout.folder)
        return [process.pid for process in processes if process.function_name and function in process.function_name]

    # -- what is in it ---------------------------------------------------------------------------------------------

    def deploy(self, context: Mapping[str, str | int | float] | None = None) -> dict[str, str]:
        """Deploy the stacks with the real `cdk`, settings as in `context`; returns all stacks' outputs.

        Does nothing if the same code was deployed here with the same settings before.
        Raises LocalCloudError with the end of what `cdk` said if it fails.
        """
        settings = {"lambda_platform": "host", "backfill_shards_at_once": _SHARDS_AT_ONCE, **(context or {})}
        source = deployment.source_digest(PROJECT, settings)
        if (
            self._stack_is_complete("CDKToolkit")
            and _text(self.layout.deployed) == source
            and (known := self.outputs())
        ):
            self._say("the stacks are up to date")
            return known
        self.layout.deployed.unlink(missing_ok=True)
        try:
            deployment.deploy(
                project=PROJECT,
                layout=self.layout,
                environment=deployment.cdk_environment(self.environment(), os.environ, folder=self.layout.folder),
                place=f"aws://{ACCOUNT}/{REGION}",
                context=settings,
                bootstrapped=self._stack_is_complete("CDKToolkit"),
                say=self._say,
            )
        except deployment.DeploymentFailed as failed:
            raise LocalCloudError(str(failed)) from failed
        self.layout.deployed.write_text(source)
        return self.outputs()

    def outputs(self) -> dict[str, str]:
        """The outputs of all deployed stacks by logical id, such as ContentBucket; empty if nothing is deployed."""
        pages = self.session().client("cloudformation").get_paginator("describe_stacks").paginate()
        stacks = [stack for page in pages for stack in page["Stacks"] if stack["StackName"] != "CDKToolkit"]
        return {
            output["OutputKey"]: output["OutputValue"]
            for stack in stacks
            for output in stack.get("Outputs", [])
            if not output.get("ExportName")  # what CDK passes from one stack to the next
        }

    def function_logs(self, function_name: str, *, containing: str = "", since: float = 0) -> Iterator[str]:
        """The lines that a function logged, oldest first; nothing if it never ran.

        `containing` keeps the lines with that text, `since` (seconds since 1970) the younger ones.
        """
        session = self.session()
        function = session.client("lambda").get_function_configuration(FunctionName=function_name)
        group = function.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{function_name}"
        logs = session.client("logs")
        # The local cloud answers with 10,000 events at most and no token for more: go on at the last one's time,
        # past those of that time that were seen. Their order is the same each time.
        start_ms, skip = int(since * 1000), 0
        while True:
            try:
                events = logs.filter_log_events(logGroupName=group, startTime=start_ms, limit=_LOG_PAGE)["events"]
            except logs.exceptions.ResourceNotFoundException:
                return
            yield from (event["message"] for event in events[skip:] if containing in event["message"])
            if len(events) < _LOG_PAGE or len(events) == skip:
                return
            start_ms = events[-1]["timestamp"]
            skip = sum(event["timestamp"] == start_ms for event in events)

    def environment(self) -> dict[str, str]:
        """The variables that make `aws`, boto3, `cdk` and `neve` talk to this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def session(
        self, *, access_key: str = ACCESS_KEY, secret_key: str = ACCESS_KEY, token: str | None = None
    ) -> boto3.Session:
        """A session whose clients all talk to this cloud, as root unless other credentials are given."""
        return boto3.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
            region_name=REGION,
            botocore_session=_LoopbackSession(self.endpoint_url),
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _announced(self) -> dict[str, Any]:
        if not self.running:
            raise LocalCloudError("The local cloud is not running. Start it: `neve local up` (or `make cloud`).")
        deadline = time.monotonic() + _START_PATIENCE_S
        while True:  # the server locks its folder an instant before it says where it listens
            with contextlib.suppress(OSError, ValueError):
                announced: dict[str, Any] = json.loads(self.layout.running.read_text())
                return announced
            if time.monotonic() > deadline:
                raise LocalCloudError(f"The local cloud does not say where it listens; see {self.layout.server_log}.")
            time.sleep(0.02)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_PATIENCE_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() not in (None, 3):
                break
            if self.running and self.layout.running.exists() and self._answers():
                return
            time.sleep(0.05)
        raise LocalCloudError(
            f"The local cloud does not come up. The end of {self.layout.server_log}:\n{_tail(self.layout.server_log)}"
        )

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.endpoint_url}/_ministack/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _choose_port(self) -> int:
        if self.layout.port.exists():
            # Stored queues and event source mappings name each other by URL, port included.
            port = int(self.layout.port.read_text())
            if self._wanted_port in (None, 0, port) and _free(port):
                return port
            raise LocalCloudError(
                f"The stored state of the local cloud belongs to port {port}"
                + (", which another program uses" if not _free(port) else "")
                + f". Free that port, or start empty: `neve local down --wipe` ({self.layout.folder})."
            )
        if self._wanted_port:
            if not _free(self._wanted_port):
                raise LocalCloudError(f"Port {self._wanted_port} is taken. Leave --port out: a free one is found.")
            return self._wanted_port
        if self._wanted_port is None:
            if _free(USUAL_PORT):
                return USUAL_PORT
            self._say(f"port {USUAL_PORT} is taken by another program; taking a free one")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _set_aside(self) -> Path:
        """Move what a crash left out of the way; only the last crash is kept."""
        layout = self.layout
        shutil.rmtree(layout.crashed, ignore_errors=True)
        layout.crashed.mkdir()
        for part in (layout.state, layout.objects, layout.server_log, layout.port, layout.deployed, layout.running):
            if part.exists():
                part.rename(layout.crashed / part.name)
        self._say(
            "the local cloud had not been stopped properly: its tables, queues and stacks are as they were at the last "
            f"proper stop and no longer fit its objects. All of it now lies in {layout.crashed}; starting empty"
        )
        return layout.crashed

    def _stack_is_complete(self, name: str) -> bool:
        client = self.session().client("cloudformation")
        try:
            stacks = client.describe_stacks(StackName=name)["Stacks"]
        except client.exceptions.ClientError:
            return False
        return any(stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE") for stack in stacks)

    def _reap(self) -> None:
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(_STOP_PATIENCE_S)
            self._process = None


def server_environment(layout: Layout, *, port: int, tied: bool) -> dict[str, str]:
    """All variables of the server. Functions inherit them, so nothing of the host's goes in but its PATH and HOME."""
    variables = {
        MARK: str(layout.folder),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", str(layout.folder)),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(layout.temporary),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",  # INFO logs every event
        "AUTH": "true",  # a role may do what its policies allow, and nothing else
        "PERSIST_STATE": "1",
        "STATE_DIR": str(layout.state),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(layout.objects),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{layout.folder}/no-docker",  # a Docker daemon of the host's is none of its business
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_DEFAULT_REGION": REGION,
    }
    if tied:
        variables["NEVE_LOCAL_TIED"] = "1"
    return variables


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that just closed does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(f"    {line}" for line in _text(path).splitlines()[-lines:]) or "    (nothing)"
