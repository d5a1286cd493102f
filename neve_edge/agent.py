"""Puts the agent together from its settings, and keeps its parts running."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from neve.errors import NeveError
from neve_edge.announcements import Announcements
from neve_edge.journal import Journal
from neve_edge.outbox import SqliteOutbox
from neve_edge.settings import Settings
from neve_edge.stack import Deployed

if TYPE_CHECKING:
    from neve_edge.pointing import HostPointers
    from neve_edge.queued import QueuedAnnouncements
    from neve_edge.relaying import Relaying
    from neve_edge.watch import Watch
    from neve_edge.work import Worker

_LOG = logging.getLogger("neve.edge")


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


class Stopped(NeveError):
    """A part of the agent has ended by itself; the message says why."""


@dataclass(frozen=True)
class Agent:
    """The agent of this host. Its parts are made on first use; close it."""

    settings: Settings

    @cached_property
    def deployed(self) -> Deployed:
        """What the stacks name."""
        return Deployed(self.settings)

    @cached_property
    def journal(self) -> Journal:
        """The journal."""
        return Journal(self.settings.journal, host=self.settings.host, clock=now)

    @cached_property
    def outbox(self) -> SqliteOutbox:
        """What could not be sent. It lies in the journal's file, and survives what that survives."""
        self.settings.journal.parent.mkdir(parents=True, exist_ok=True)
        return SqliteOutbox(self.settings.journal)

    @cached_property
    def announcements(self) -> Announcements:
        """Where announcements wait: in the journal, or in the queue that hosts share."""
        return self._queued() if self.settings.queue else self.journal

    def _queued(self) -> QueuedAnnouncements:
        from neve.aws.queue import SqsQueue  # noqa: PLC0415  # botocore, which a journal does not need
        from neve.flows.fallback_queue import FallbackQueue  # noqa: PLC0415
        from neve_edge.queued import QueuedAnnouncements, Sent  # noqa: PLC0415
        from neve_edge.relaying import told_of_kept  # noqa: PLC0415

        url = self.deployed.outputs["AnnouncementsQueue"]
        return QueuedAnnouncements(
            queue=FallbackQueue(
                queue=SqsQueue(self.deployed.sqs, url),
                outbox=self.outbox,
                url=url,
                sender=uuid.uuid4().hex,
                clock=now,
                kept=told_of_kept,
                asks_always=True,
            ),
            client=self.deployed.sqs,
            url=url,
            sent=Sent(self.settings.journal.with_name(f"{self.settings.journal.name}-sent"), clock=now),
            host=self.settings.host,
        )

    @cached_property
    def pointers(self) -> HostPointers | None:
        """What a file's pointer is read from; None only where there are no stacks, see neve_edge.work.Ports."""
        from neve.aws.pointers_table import DynamoPointers  # noqa: PLC0415
        from neve_edge.pointing import PatientPointers  # noqa: PLC0415

        return PatientPointers(DynamoPointers(self.deployed.dynamodb, self.deployed.outputs["PointersTable"]))

    def watch(self) -> Watch:
        """What finds files and announces them."""
        from neve_edge.watch import Watch  # noqa: PLC0415

        return Watch(self.settings, self.announcements)

    def worker(self, sleep: Callable[[float], object] = time.sleep) -> Worker:
        """What uploads announced files and lets them go. One thread uses it, and closes it.

        `sleep` is how it waits where the bandwidth has a limit.
        """
        from neve_edge.uploading import S3Uploads, Throttle  # noqa: PLC0415
        from neve_edge.work import Ports, Worker  # noqa: PLC0415

        settings, outputs = self.settings, self.deployed.outputs
        throttle = Throttle(settings.bandwidth_mb_s * 1e6, time.monotonic, sleep)
        ports = Ports(
            announcements=self.announcements,
            journal=self.journal,
            uploads=S3Uploads(
                self.deployed.s3,
                outputs["UploadsBucket"],
                throttle,
                credentials=self.deployed.session.get_credentials(),
                threads=settings.parallel,
            ),
            pointers=self.pointers,
            clock=now,
            monotonic=time.monotonic,
            chance=random.random,
        )
        return Worker(ports, settings.folders, settings.parallel)

    def work(self, stop: threading.Event) -> None:
        """Work on announced files until `stop`."""
        with closing(self.worker(stop.wait)) as worker:
            worker.run(stop.is_set)

    def relaying(self) -> Relaying:
        """What sends that which could not be sent."""
        from neve.aws.queue import SqsQueue  # noqa: PLC0415
        from neve_edge.relaying import Relaying  # noqa: PLC0415

        return Relaying(self.outbox, lambda url: SqsQueue(self.deployed.sqs, url), now)

    def close(self) -> None:
        """Give back what this process has in hand."""
        for part in ("outbox", "journal"):
            if part in self.__dict__:
                getattr(self, part).close()


def keep_running(parts: Mapping[str, Callable[[threading.Event], None]], stop: threading.Event) -> None:
    """Run each part in a thread until `stop`, then until all have ended.

    If one ends before, or raises, the others are stopped as well: half an agent would seem to be one. Raises Stopped.
    """
    failed: list[str] = []

    def run(name: str, part: Callable[[threading.Event], None]) -> None:
        try:
            part(stop)
            if not stop.is_set():
                failed.append(f"{name} has ended by itself")
        except Exception as error:  # noqa: BLE001  # whatever it is, the process ends, and says so
            _LOG.critical("stopped part=%s why=%r", name, f"{type(error).__name__}: {error}", exc_info=True)
            failed.append(f"{name}: {type(error).__name__}: {error}")
        stop.set()

    threads = [threading.Thread(target=run, args=each, name=each[0]) for each in parts.items()]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    if failed:
        raise Stopped(f"the agent has stopped: {'; '.join(failed)}")
