"""The entry point: reckons and simulates, and writes docs/scale.md, or prints it for other files and settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from neve.domain.prices import US_EAST_1
from scale.capacity import Model
from scale.figures import FigureMissing, local_run, measured
from scale.report import paper, simulated
from stacks.settings import SettingsInvalid, read_settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "scale.md"
FILE_BYTES = 100_000


def main(words: Sequence[str] | None = None) -> int:
    """Write the page, or print it for other files or settings; 1 if a figure is missing, 2 if a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m scale",
        description="Says what neve takes at any size and rate, and which limit is met first. Writes docs/scale.md; "
        "with "
        "a size or a setting it prints instead.",
    )
    parser.add_argument("--file-bytes", type=int, metavar="N", help=f"files of this size instead of {FILE_BYTES:,}")
    parser.add_argument(
        "-c", "--context", action="append", default=[], metavar="KEY=VALUE", help="a setting of the stacks"
    )
    parser.add_argument("--no-simulation", action="store_true", help="print what is reckoned, and simulate nothing")
    options = parser.parse_args(words)
    try:
        settings = read_settings(dict(pair.partition("=")[::2] for pair in options.context))
        model = Model(
            settings=settings,
            figures=measured(),
            file_bytes=FILE_BYTES if options.file_bytes is None else options.file_bytes,
        )
        text = paper(model, US_EAST_1)
        if not options.no_simulation:
            text += "\n\n" + simulated(model, local_run(), US_EAST_1)
    except FigureMissing as error:
        print(f"[scale] {error}", file=sys.stderr)
        return 1
    except (SettingsInvalid, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.file_bytes is None and not options.context and not options.no_simulation:
        DOCUMENT.write_text(text + "\n")
        print(f"[scale] written to {DOCUMENT}")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
