"""Plots of costs, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from neve.domain.forecast import MIB, Target

if TYPE_CHECKING:
    from neve.domain.prices import PriceList

_ENDINGS = (".svg", ".png")
_COST, _RESTORE, _BEST = "#1f5fa8", "#b3541e", "#2e7d4f"
"""Told apart by the color-blind as well; the lines differ in their dashes besides."""


def draw_targets(path: Path, targets: Sequence[Target], best: Target, *, months: int, prices: PriceList) -> None:
    """Draw what each size of archives comes to, and what a restore of one file costs. Raises typer.BadParameter."""
    if path.suffix not in _ENDINGS:
        raise typer.BadParameter(f"{path}: a plot ends in {' or '.join(_ENDINGS)}", param_hint="--plot")
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    sizes = [each.target_bytes / MIB for each in targets]
    with rc_context({"svg.hashsalt": "neve", "font.size": 10}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        left = figure.add_subplot()
        # Without what all sizes cost alike, which would make a flat line of it.
        varying = [each.usd - each.alike_usd for each in targets]
        left.plot(sizes, varying, color=_COST, marker="o", label=f"{months} months, without what all sizes cost alike")
        left.set_xlabel("target size of an archive, MiB")
        left.set_ylabel("US dollars", color=_COST)
        left.set_ylim(bottom=0)
        left.grid(visible=True, alpha=0.3)
        left.axvline(
            best.target_bytes / MIB, color=_BEST, linestyle=":", label=f"best: {best.target_bytes / MIB:g} MiB"
        )
        right = left.twinx()
        right.plot(
            sizes,
            [each.restore_usd for each in targets],
            color=_RESTORE,
            linestyle="--",
            label="restore of one file",
        )
        right.set_ylabel("US dollars to restore one file", color=_RESTORE)
        right.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=3)
        figure.text(0.995, 0.005, f"prices of {prices.region}, {prices.checked}", ha="right", fontsize=7)
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise typer.BadParameter(f"{path}: {error}", param_hint="--plot") from error
