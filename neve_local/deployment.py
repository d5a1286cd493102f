"""Deploys the stacks with the project's own `cdk` command: synthesize, bootstrap once, deploy."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from neve.errors import NeveError
from neve_local.layout import Layout

_TAIL_LINES = 30
# "neve-archive: deploying... [2/3]", once for each stack
_STACK_BEGINS = re.compile(r"^(?P<stack>[\w-]+): deploying\.\.\.")
# The end of a stack; its outputs follow.
_STACK_DONE = re.compile(r"^\s*✅\s+(?P<stack>[\w-]+)(?P<unchanged>\s+\(no changes\))?\s*$")


class DeploymentFailed(NeveError):
    """`cdk` failed; the message has the end of what it said."""


def progress_of(line: str) -> str | None:
    """What a person wants to know of a line that `cdk deploy` printed; None for most."""
    if done := _STACK_DONE.match(line):
        return f"{done['stack']}: {'unchanged' if done['unchanged'] else 'deployed'}"
    if begins := _STACK_BEGINS.match(line):
        return f"{begins['stack']} ..."
    return None


def cdk_environment(cloud: Mapping[str, str], host: Mapping[str, str], *, folder: Path) -> dict[str, str]:
    """The variables for `cdk`: the host's without its AWS settings, and `cloud`'s.

    pip and npm need what the host says about proxies and certificates; 127.0.0.1 is never behind a proxy. The user's
    own AWS configuration is not read, so nothing can reach a real account.
    """
    kept = {name: value for name, value in host.items() if not name.startswith(("AWS_", "CDK_"))}
    exempt = ",".join(filter(None, (host.get("NO_PROXY") or host.get("no_proxy"), "127.0.0.1,localhost")))
    commands = str(Path(sys.executable).parent)  # Node.js may have been installed beside Python
    return {
        **kept,
        **cloud,
        "PATH": f"{commands}:{host.get('PATH', '')}",
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_HOME": str(folder / "cdk-home"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DISABLE_VERSION_CHECK": "true",
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",  # the oldest that neve_local.prepare accepts
        "NO_COLOR": "1",
    }


def source_digest(project: Path, context: Mapping[str, str | int | float]) -> str:
    """SHA-256 of all that decides what is deployed: the stacks, the functions, the versions of packages, `context`."""
    files = [project / name for name in ("app.py", "cdk.json", "constraints.txt", "neve_local/app.py")]
    for folder in ("stacks", "lambdas"):
        files += (path for path in (project / folder).rglob("*") if "__pycache__" not in path.parts)
    digest = hashlib.sha256(json.dumps(dict(context), sort_keys=True).encode())
    digest.update(f"{sys.version} {sys.prefix}".encode())
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(project)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def deploy(
    *,
    project: Path,
    layout: Layout,
    environment: Mapping[str, str],
    place: str,
    context: Mapping[str, str | int | float],
    bootstrapped: bool,
    say: Callable[[str], None],
) -> None:
    """Synthesize the local app and deploy all of its stacks to `place` (aws://account/region).

    All that `cdk` prints goes to a log for each step, one line a stack to `say`. Raises DeploymentFailed.
    """
    command = project / "node_modules" / ".bin" / "cdk"
    if not command.exists():
        raise DeploymentFailed(f"{command} is missing. Run `make setup` in {project}.")
    app = shlex.join([sys.executable, "-m", "neve_local.app"])
    settings = [word for key, value in context.items() for word in ("-c", f"{key}={value}")]
    # An assembly of other settings would be taken for these if synthesis failed half way.
    shutil.rmtree(layout.assembly, ignore_errors=True)

    def cdk(*words: str, log: Path, folder: Path = project, tell: Callable[[str], str | None] = lambda _: None) -> None:
        options = ["--no-notices", "--no-version-reporting", "--ci"]
        run_logged([str(command), *words, *options], folder, environment, log, tell=tell, say=say)

    began = time.monotonic()
    say("synthesizing the stacks ..." if bootstrapped else "synthesizing the stacks, bootstrapping the cloud ...")
    with ThreadPoolExecutor() as together:  # neither needs the other, and both mostly wait for Node.js to start
        synth = ("synth", "--quiet", "--app", app, "--output", str(layout.assembly), *settings)
        steps = [together.submit(cdk, *synth, log=layout.synth_log)]
        if not bootstrapped:
            # In a folder without cdk.json there is no app that it could want to synthesize.
            bootstrap = ("bootstrap", place, "--output", str(layout.temporary / "bootstrap"))
            steps.append(together.submit(cdk, *bootstrap, log=layout.bootstrap_log, folder=layout.temporary))
        for step in steps:
            step.result()
    deploying = ["deploy", "--all", "--app", str(layout.assembly), "--method", "direct", "--require-approval", "never"]
    cdk(*deploying, "--progress", "events", log=layout.deploy_log, tell=progress_of)
    say(f"deployed in {time.monotonic() - began:.0f} s")


def run_logged(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log_path: Path,
    *,
    tell: Callable[[str], str | None],
    say: Callable[[str], None],
) -> None:
    """Run `command` in `folder`, all it prints into the log, what `tell` makes of a line to `say`.

    Raises DeploymentFailed with the last lines.
    """
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with (
        log_path.open("w") as log,
        subprocess.Popen(  # noqa: S603
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            last.append(line.rstrip())
            if told := tell(line):
                say(told)
    if process.returncode:
        tail = "\n".join(f"    {line}" for line in last)
        raise DeploymentFailed(f"`cdk {command[1]}` failed. The end of {log_path}:\n{tail}")
