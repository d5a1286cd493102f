"""A real browser without a window."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WITHOUT_CHROMIUM = "there is no Chromium here (on Debian: apt-get install chromium)"


def browse(url: str, folder: Path, *, width: int, patience_ms: int = 0) -> Any:
    """Open a page; what its script left as JSON in the element `measured`. It must not have complained.

    A picture of it is in `folder` as page.png. `patience_ms` is how much of the page's own time may pass meanwhile.
    """
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},1000",
            *([f"--virtual-time-budget={patience_ms}"] if patience_ms else []),
            "--dump-dom",
            f"--screenshot={folder / 'page.png'}",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(folder), "TZ": "UTC"},
    )
    measured = re.search(r'<pre id="measured">(.+?)</pre>', done.stdout, re.DOTALL)
    assert measured, done.stderr[-3000:]
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(unescape(measured[1]))
