"""The tools that neve is compared with: their commands, as a person would type them, and what they do and do not do."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import packages
from bench.timed import PIPE
from neve_local.cloud import PROJECT, REGION

AT_ONCE = 8
"""Uploads at a time: neve's default. rclone has 4 by default and is given as many; the others keep what they have."""
MOST_PATTERNS = 100
"""aws holds each name of a bucket against each pattern, one after the other: 1,000 of them and 100,000 files were not
done in ten minutes. And a command line has an end."""
TARBALL = "files.tar"


class ToolMissing(Exception):
    """A tool is not on this machine; the message names it, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a tool works: `files` is the folder to store, `home` one of its own, a new one for each restore."""

    files: Path
    home: Path
    bucket: str
    endpoint_url: str

    @property
    def variables(self) -> Mapping[str, str]:
        """What the tools need in their environment, beside AWS's variables."""
        return {
            "PYTHONPATH": str(PROJECT / ".neve" / f"bench-{packages.AWS_CLI}"),
            "RESTIC_REPOSITORY": f"s3:{self.endpoint_url}/{self.bucket}/",
            "RESTIC_PASSWORD": "of a repository that is gone in a minute",
            "RCLONE_CONFIG": f"{self.home}/rclone.conf",
            "RCLONE_CONFIG_NEVE_TYPE": "s3",
            # As AWS, but for the bucket in the path: rclone would look for bucket.127.0.0.1.
            "RCLONE_CONFIG_NEVE_PROVIDER": "Minio",
            "RCLONE_CONFIG_NEVE_ENDPOINT": self.endpoint_url,
            "RCLONE_CONFIG_NEVE_ENV_AUTH": "true",
            "RCLONE_CONFIG_NEVE_REGION": REGION,
        }

    def listed(self, names: Sequence[str]) -> str:
        """A file with these names, a line each."""
        path = self.home / "names"
        path.write_text("".join(f"{name}\n" for name in names))
        return str(path)


Words = list[str]
"""A command; PIPE stands between two that are one."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool. `prepare` comes before the clock starts; `restore` takes names and the folder that they go to.

    `glacier` says whether what it stores may lie there. More names than `most_names` it is not asked for.
    """

    name: str
    does: str
    version: Callable[[], str]
    store: Callable[[Site], Words]
    restore: Callable[[Site, Sequence[str], Path], list[Words]]
    prepare: Callable[[Site], Words] | None = None
    glacier: bool = True
    most_names: float = math.inf


# -- restic ----------------------------------------------------------------------------------------------------------


def _restic_store(site: Site) -> Words:
    return ["restic", "backup", "--quiet", str(site.files)]


def _restic_restore(site: Site, names: Sequence[str], target: Path) -> list[Words]:
    included = [word for name in names for word in ("--include", f"{site.files}/{name}")]
    return [["restic", "restore", "latest", "--quiet", "--target", str(target), *included]]


RESTIC = Tool(
    name="restic backup",
    does="encrypts, compresses, and stores equal pieces once; files share packs of some 16 MiB. Beside the data it has "
    "snapshots, and it prunes. It has to read what it stores, so a repository cannot lie in GLACIER. A restore "
    "begins with an empty cache here, as on a new machine",
    version=lambda: _said("restic", "restic", "version").split()[1],
    prepare=lambda _: ["restic", "init", "--quiet"],
    store=_restic_store,
    restore=_restic_restore,
    glacier=False,
)

# -- aws -------------------------------------------------------------------------------------------------------------


def _aws(*words: str) -> Words:
    return [sys.executable, "-m", "awscli", "s3", *words]


def _sync_store(site: Site) -> Words:
    return _aws("sync", "--only-show-errors", str(site.files), f"s3://{site.bucket}/")


def _sync_restore(site: Site, names: Sequence[str], target: Path) -> list[Words]:
    if len(names) == 1:
        return [_aws("cp", "--only-show-errors", f"s3://{site.bucket}/{names[0]}", f"{target}/{names[0]}")]
    patterns = [word for name in names for word in ("--include", name)]
    everything = f"s3://{site.bucket}/"
    return [_aws("cp", "--recursive", "--only-show-errors", everything, str(target), "--exclude", "*", *patterns)]


def _aws_version() -> str:
    try:
        packages.installed(packages.AWS_CLI)
    except subprocess.CalledProcessError as error:
        raise ToolMissing("aws cannot be installed: pip failed, see above") from error
    pinned = (PROJECT / "bench" / f"{packages.AWS_CLI}.txt").read_text()
    return next(line for line in pinned.splitlines() if line.startswith("awscli==")).removeprefix("awscli==")


SYNC = Tool(
    name="aws s3 sync",
    does="a copy of each file under its own name, no archive: each object has its own request, and in GLACIER its own "
    "40 KB. S3 compares the CRC32 of each PUT; nothing is asked for afterwards. For a list of files there is no "
    f"option: they are patterns, each held against each name in the bucket; it is not asked for more than "
    f"{MOST_PATTERNS}",
    version=_aws_version,
    store=_sync_store,
    restore=_sync_restore,
    most_names=MOST_PATTERNS,
)

# -- tar -------------------------------------------------------------------------------------------------------------


def _tar_store(site: Site) -> Words:
    sent = _aws("cp", "--only-show-errors", "-", f"s3://{site.bucket}/{TARBALL}")
    return ["tar", "-C", str(site.files), "-cf", "-", ".", PIPE, *sent]


def _tar_restore(site: Site, names: Sequence[str], target: Path) -> list[Words]:
    listed = site.listed([f"./{name}" for name in names])
    read = _aws("cp", "--only-show-errors", f"s3://{site.bucket}/{TARBALL}", "-")
    return [[*read, PIPE, "tar", "-xf", "-", "-C", str(target), "--occurrence=1", "-T", listed]]


def _tar_version() -> str:
    return f"{_said('tar', 'tar', '--version').splitlines()[0].split()[-1]}, aws {_aws_version()}"


TAR = Tool(
    name="tar into aws s3 cp",
    does="one archive for all, in one stream; no index: whoever wants a file reads the archive up to it, and one bit "
    "that cannot be read may end it. In GLACIER all of it has to be thawed",
    version=_tar_version,
    store=_tar_store,
    restore=_tar_restore,
)

# -- rclone ----------------------------------------------------------------------------------------------------------


def _rclone_store(site: Site) -> Words:
    return ["rclone", "copy", "--transfers", str(AT_ONCE), str(site.files), f"neve:{site.bucket}/"]


def _rclone_restore(site: Site, names: Sequence[str], target: Path) -> list[Words]:
    listed = ["--files-from-raw", site.listed(names)]
    return [["rclone", "copy", "--transfers", str(AT_ONCE), *listed, f"neve:{site.bucket}/", str(target)]]


RCLONE = Tool(
    name="rclone copy",
    does="a copy of each file under its own name, no archive, as aws s3 sync; S3 compares the MD5 of each PUT, then a "
    "HEAD of each object has to state its size and MD5",
    version=lambda: _said("rclone", "rclone", "version").split()[1],
    store=_rclone_store,
    restore=_rclone_restore,
)

TOOLS = (RESTIC, SYNC, TAR, RCLONE)

NEVE_DOES = (
    "archives of some 25 MiB in GLACIER, a manifest for each with SHA-256, MD5 and metadata of every file, and a row "
    "in an index for every file. Before an archive is sent it is read once more and compared; S3 compares the SHA-256 "
    "of each PUT. Nothing is encrypted but by S3, nothing is compressed, and equal files are stored as often as they "
    "are there. The files stay in the content bucket: archives are a second copy, where the others make the first one"
)


def available(tools: Sequence[Tool]) -> tuple[dict[str, str], list[str]]:
    """(the versions of those that are here, why others are not)."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    for tool in tools:
        try:
            versions[tool.name] = tool.version()
        except ToolMissing as error:
            missing.append(f"{tool.name}: {error}")
    return versions, missing


def _said(package: str, *words: str) -> str:
    if shutil.which(words[0]) is None:
        raise ToolMissing(f"{words[0]} is not there: apt-get install {package}")
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
