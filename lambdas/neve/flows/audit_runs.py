"""The life of a run of audits beside its audits: it ends, and whoever has to know is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.audit import Run, discrepancies, mail, subject
from neve.ports import Audits, Topic

LOOK = timedelta(hours=3)
"""How often an audit that waits is looked after: its thaw's event may have been lost."""
LEFT_UNTOLD = timedelta(minutes=10)
"""Who ended a run and has not told of it by then has died."""


@dataclass(frozen=True, kw_only=True)
class RunEnder:
    """Ends runs and mails what they found: first that it ended, then the mail, then that it was sent.

    Who dies before the mail leaves it to the sweep; who dies after it has it sent twice. Never is it not sent.
    """

    audits: Audits
    alerts: Topic
    clock: Callable[[], datetime]

    def end(self, run_id: str) -> bool:
        """End the run if all of its audits have ended; whether this call did."""
        run = self.audits.run(run_id)
        if run is None or run.finished_at is not None or not run.complete:
            return False
        if not self.audits.end_run(run_id, self.clock()):
            return False
        self._tell(run)
        return True

    def see_to(self, run: Run) -> bool:
        """What the sweep does about a run that is not told: end it, or tell of it; whether it did either."""
        if run.finished_at is None:
            return self.end(run.id)
        if run.finished_at + LEFT_UNTOLD > self.clock():
            return False
        self._tell(run)
        return True

    def _tell(self, run: Run) -> None:
        if discrepancies(run):
            self.alerts.publish(mail(run, self.audits.reports(run.id)), subject=subject(run))
        self.audits.told(run.id)
