"""Where a local cloud keeps its things, all in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The files of the local cloud in `folder`, which is absolute."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Locked by the server for as long as it lives."""
        return self.folder / "lock"

    @property
    def running(self) -> Path:
        """Process id and port as JSON; removed by the server once its state is on disk: a left-over means a crash."""
        return self.folder / "running.json"

    @property
    def port(self) -> Path:
        """The port that the stored queues' URLs name; a later start has to use it again."""
        return self.folder / "port"

    @property
    def state(self) -> Path:
        """Tables, queues, roles, stacks: written at a clean stop."""
        return self.folder / "state"

    @property
    def objects(self) -> Path:
        """The bytes of S3's objects, written as they come."""
        return self.folder / "objects"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the server and its functions; emptied at every start."""
        return self.folder / "tmp"

    @property
    def crashed(self) -> Path:
        """What the last crash left, set aside."""
        return self.folder / "crashed"

    @property
    def server_log(self) -> Path:
        """Warnings and errors of the server."""
        return self.folder / "server.log"

    @property
    def synth_log(self) -> Path:
        """All that the last `cdk synth` said."""
        return self.folder / "synth.log"

    @property
    def bootstrap_log(self) -> Path:
        """All that the last `cdk bootstrap` said."""
        return self.folder / "bootstrap.log"

    @property
    def deploy_log(self) -> Path:
        """All that the last `cdk deploy` said."""
        return self.folder / "deploy.log"

    @property
    def deployed(self) -> Path:
        """The digest of the source and settings that the deployed stacks were made from."""
        return self.folder / "deployed"

    @property
    def assembly(self) -> Path:
        """The synthesized stacks."""
        return self.folder / "cdk.out"
