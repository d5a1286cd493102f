"""What an application calls to announce files: made once for each process, whatever it forks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from neve.errors import SettingInvalid, Transient
from neve_edge.agent import Agent
from neve_edge.announcement import Found
from neve_edge.settings import default_file, load
from neve_edge.tell import found


def announce(paths: Iterable[str | os.PathLike[str]], config: Path | None) -> int:
    """See neve_edge.announce."""
    agent = _agent(config or default_file(os.environ), os.getpid())
    files: list[Found] = []
    refused: list[str] = []
    for path in paths:
        try:
            files.append(found(agent.settings, Path(path).absolute()))
        except ValueError as error:
            refused.append(f"{os.fspath(path)!r}: {error}")
    try:
        news = agent.announcements.put(files) if files else 0
    except (OSError, sqlite3.Error, BotoCoreError, ClientError) as error:  # whatever it is, the caller has one to catch
        raise Transient(f"not announced: {type(error).__name__}: {error}") from error
    if refused:
        raise ValueError("not announced: " + "; ".join(refused))
    return news


@lru_cache(maxsize=8)
def _agent(file: Path | None, process: int) -> Agent:
    """The agent's settings as they were when this process first announced something.

    SQLite's connections must not be used by both sides of a fork, so `process` is part of what it is known by.
    """
    del process
    if file is None:
        raise SettingInvalid("no folder is known: write /etc/neve/edge.toml, or name it in NEVE_EDGE_CONFIG")
    return Agent(load(file))
