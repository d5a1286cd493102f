"""Fetches files to local folders: for these the command does what the function Extract does for buckets."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neve.domain.restore import Kind, Result
from neve.flows.extract import Extractor
from neve.flows.jobs import JobEnder
from neve_cli import clock
from neve_cli.local_files import LocalFiles
from neve_cli.watching import Sight

if TYPE_CHECKING:
    from neve_cli.stack import Stack

THREADS = 8
LEASE = timedelta(minutes=15)
SLOWEST_BYTES_PER_S = 500_000
"""The lease of a share is long enough for its bytes at this pace; who is killed keeps others from it for so long."""


class _NoQueue:
    """What is left is fetched by the next round of the command itself, not by Extract."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """Nothing."""


@dataclass
class Fetcher:
    """Fetches one job's files to local folders. `on_result` is told of each file as it ends.

    `busy` has the archives whose files another process fetches, and until when it may.
    """

    deployed: Stack
    job_id: str
    on_result: Callable[[Result], None] = lambda _: None
    busy: dict[int, datetime] = field(default_factory=dict)
    _owner: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")

    def fetch(self, sight: Sight) -> bool:
        """Fetch what can be read; whether anything was.

        Raises FolderMissing, and Transient, also for a disk that is full.
        """
        fetched = False
        for waiting in sight.waiting:
            if waiting.readable and waiting.files.get(Kind.LOCAL):
                needed = timedelta(seconds=waiting.size_bytes / SLOWEST_BYTES_PER_S)
                until = clock.now() + max(LEASE, needed)
                extracted = self._extractor.extract(waiting.archive, owner=self._owner, until=until)
                fetched = fetched or bool(extracted.shares)
                if not extracted.shares:
                    self._note_busy(waiting.archive)
        return fetched

    def let_go(self) -> None:
        """End this process's leases, after it was interrupted: whoever goes on need not wait for their end."""
        for share in self.deployed.restores.waiting_of(self.job_id):
            if share.kind is Kind.LOCAL:
                self.deployed.restores.release(share, owner=self._owner)

    def _note_busy(self, archive: int) -> None:
        for share in self.deployed.restores.waiting(archive):
            leased = share.leased_until is not None and share.leased_until >= clock.now()
            if share.job == self.job_id and share.kind is Kind.LOCAL and leased and share.leased_until:
                self.busy[archive] = share.leased_until

    @property
    def _extractor(self) -> Extractor:
        deployed = self.deployed
        return Extractor(
            archives=deployed.archives,
            store=deployed.store,
            files=deployed.files,
            restores=deployed.restores,
            thaws=deployed.thaws,
            reader=deployed.reader,
            destination=LocalFiles(reader=deployed.reader, manifest=deployed.store.manifest),
            kind=Kind.LOCAL,
            parking_lot=deployed.parking_lot,
            requests_queue=deployed.requests_queue,
            extract_queue=_NoQueue(),
            ender=JobEnder(restores=deployed.restores, topic=deployed.restored_topic, clock=clock.now),
            bucket=deployed.outputs["ContentBucket"],
            threads=THREADS,
            clock=clock.now,
            on_result=self.on_result,
            job=self.job_id,  # files of other jobs go to folders on other machines
        )
