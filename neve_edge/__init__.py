"""What runs on the user's own hosts: it moves files to S3 behind the application's back.

An application may tell it of a file: `neve_edge.announce("/srv/www/uploads/a.jpg")`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["announce"]


def announce(*paths: str | os.PathLike[str], config: Path | None = None) -> int:
    """Announce files that are finished; how many of them were news.

    When it returns, they are announced for good: neither a crash nor being cut off from AWS loses them. `config` is
    the agent's edge.toml, by default NEVE_EDGE_CONFIG or /etc/neve/edge.toml. Raises ValueError, with the reasons, for
    files that cannot be announced (the others are), and neve.errors.NeveError if nothing can be.
    """
    from neve_edge.announcing import announce as announce_now  # noqa: PLC0415  # importing this package does nothing

    return announce_now(paths, config)
