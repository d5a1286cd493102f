"""The server process of the local cloud: ministack behind the bridges, and an account of how it ended.

Started by neve_local.cloud as `python -m neve_local.server`, with an environment made for it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn, TextIO

from neve_local import bridges
from neve_local.layout import Layout
from neve_local.processes import MARK, end_all

TIED = "NEVE_LOCAL_TIED"  # set: stop when standard input closes, that is when the starting process has gone


class SaveWatch(logging.Handler):
    """Remembers whether ministack failed to save a part of its state; it only logs that."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a failure to save; one to load is no loss of what is being saved."""
        self.failed = self.failed or "failed to save" in record.getMessage() or "error getting" in record.getMessage()


def stop_with_starter() -> None:
    """Wait for the end of standard input, then stop as if asked to."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def seize(lock: TextIO) -> bool:
    """Lock the open file for the life of this process; who only looks whether it is locked holds it for an instant."""
    for _ in range(40):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def main() -> int:
    """Serve until SIGTERM. 0: all state is on disk; 1: some of it is not; 3: another server has this folder."""
    layout = Layout(Path(os.environ[MARK]))
    lock = layout.lock.open("w")
    if not seize(lock):
        return 3
    from ministack import app  # noqa: PLC0415  # reads the environment on import

    bridges.build_all()
    watch = SaveWatch(level=logging.ERROR)
    logging.getLogger("persistence").addHandler(watch)
    if os.environ.pop(TIED, None):
        threading.Thread(target=stop_with_starter, daemon=True).start()
    port = int(os.environ["GATEWAY_PORT"])
    layout.port.write_text(f"{port}\n")
    layout.running.write_text(json.dumps({"pid": os.getpid(), "port": port, "started_at": time.time()}))
    sys.argv = ["ministack"]
    app.main()
    # Functions that are still at work would only talk to a server that has gone.
    end_all(layout.folder)
    shutil.rmtree(layout.temporary, ignore_errors=True)
    if not watch.failed:
        layout.running.unlink()
    return int(watch.failed)


def serve() -> NoReturn:
    """Serve, then end this process at once."""
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    # Threads that wait for a function would keep the process for as long as that function's timeout.
    os._exit(status)


if __name__ == "__main__":
    serve()
