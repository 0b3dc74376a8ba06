"""Figure of a control ladder: what every rung adds, region by region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_ROW = 4
_ROW_INCHES = 0.2  # of one rung
_NOT = "#a9b0ba"  # of gains that can be chance
_PANEL_INCHES = 0.75  # of a panel beside its rungs


@dataclass(frozen=True)
class Panel:
    """One region.

    ``r2`` and ``gain`` have shape (n_rungs,), and so have the ends of the interval of ``gain``
    (``low``, ``high``; NaN is not drawn), ``significant`` (the gain) and ``better`` (than every
    smaller model).
    """

    title: str
    r2: np.ndarray
    gain: np.ndarray
    low: np.ndarray
    high: np.ndarray
    significant: np.ndarray
    better: np.ndarray


def ladder(panels: Sequence[Panel], rungs: Sequence[str], *, xlabel: str = "R²") -> bytes:
    """Draw one ladder a region: each bar goes from R2 before the rung to R2 with it.

    Parameters
    ----------
    panels : sequence of Panel
    rungs : sequence of str
        Names of the rungs, the first at the top.
    xlabel : str
        What is drawn, with unit.

    Returns
    -------
    bytes
        SVG. All panels have the same scale.
    """
    n_columns = max(1, min(PER_ROW, len(panels)))
    n_rows = -(-len(panels) // n_columns)
    height = n_rows * (_PANEL_INCHES + _ROW_INCHES * len(rungs)) + 0.2
    with style.drawing():
        fig = style.figure(height, width=min(style.WIDTH, 1.6 + 2.2 * n_columns))
        grid = fig.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for number, axes in enumerate(grid.ravel()):
            if number >= len(panels):
                axes.set_visible(False)
                continue
            _draw(axes, panels[number])
            if number + n_columns >= len(panels):
                axes.set_xlabel(xlabel)
                axes.tick_params(axis="x", labelbottom=True)
        grid[0, 0].set_yticks(range(len(rungs)), list(rungs))
        grid[0, 0].set_ylim(len(rungs) - 0.4, -0.6)
        grid[0, 0].locator_params(axis="x", nbins=4)
        return style.svg(fig)


def _draw(axes: Axes, panel: Panel) -> None:
    """Draw the ladder of one region."""
    places = np.arange(len(panel.gain))
    before = panel.r2 - panel.gain
    known = np.isfinite(panel.gain)
    marks = zip(panel.significant, panel.better, strict=True)
    colours = [style.BLUE if g and b else style.SKY if g else _NOT for g, b in marks]
    axes.barh(
        places[known],
        panel.gain[known],
        left=before[known],
        color=[c for c, k in zip(colours, known, strict=True) if k],
        height=0.62,
    )
    drawn = known & np.isfinite(panel.low) & np.isfinite(panel.high)
    axes.hlines(
        places[drawn],
        (before + panel.low)[drawn],
        (before + panel.high)[drawn],
        color=style.INK,
        linewidth=1.1,
        zorder=3,
    )
    for place in places[:-1][known[:-1]]:
        axes.vlines(panel.r2[place], place, place + 1, color="#8b929b", linewidth=0.7, zorder=0)
    axes.axvline(0.0, color="#8b929b", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_title(panel.title.replace("$", r"\$"), fontsize=8.5)
    axes.tick_params(axis="y", length=0)
