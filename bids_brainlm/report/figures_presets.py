"""Figures that set two presets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_ROW = 3
_SIDE = 2.7  # inches of a square panel


def scatter(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
    labels: tuple[str, str],
    *,
    raster: bool = False,
) -> bytes:
    """Draw values of the second preset against those of the first, one panel a feature space.

    Parameters
    ----------
    panels : sequence of (str, array, array)
        Title, and values of each parcel with the first and the second preset, both of shape
        (n_parcels,); NaN is not drawn.
    labels : tuple of str
        Of the horizontal and the vertical axis, with unit.
    raster : bool
        PNG instead of SVG.

    Returns
    -------
    bytes
        The panels share their limits, which are the same on both axes.
    """
    known = np.concatenate([np.concatenate([a, b]) for _, a, b in panels])
    known = known[np.isfinite(known)]
    low, high = min(known.min(initial=0.0), 0.0), max(known.max(initial=0.0), 0.01)
    edge = 0.05 * (high - low)
    n_columns = min(len(panels), PER_ROW)
    n_rows = -(-len(panels) // n_columns)
    with style.drawing():
        width = min(_SIDE * n_columns + 0.6, style.WIDTH)
        fig = style.figure(0.3 + n_rows * (_SIDE + 0.3), width=max(width, 3.4))
        grid = fig.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for number, (axes, (title, first, second)) in enumerate(
            zip(grid.flat, panels, strict=False)
        ):
            axes.plot([low - edge, high + edge], [low - edge, high + edge], color=style.GREY, lw=1)
            size = 5 if len(first) > 500 else 14 if len(first) > 50 else 30
            axes.scatter(first, second, s=size, color=style.BLUE, alpha=0.7, linewidths=0)
            axes.set(xlim=(low - edge, high + edge), ylim=(low - edge, high + edge), title=title)
            axes.set_aspect("equal")
            axes.set_xlabel(labels[0])
            if number % n_columns == 0:
                axes.set_ylabel(labels[1])
        return style.png(fig) if raster else style.svg(fig)


def paired(
    names: Sequence[str], people: Sequence[np.ndarray], labels: tuple[str, str], *, ylabel: str
) -> bytes:
    """Draw each participant's score with both presets, feature spaces side by side.

    Parameters
    ----------
    names : sequence of str
        Feature spaces.
    people : sequence of array, each shape (2, n_people)
        Scores with the first and the second preset.
    labels : tuple of str
        Names of the presets.
    ylabel : str
        What the scores are, with unit.

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        fig = style.figure(2.9, width=float(np.clip(1.6 + 1.5 * len(names), 3.6, style.WIDTH)))
        axes: Axes = fig.subplots()
        style.zero_line(axes)
        for place, values in enumerate(people):
            x = (place - 0.2, place + 0.2)
            both = np.isfinite(values).all(axis=0)
            axes.plot(x, values[:, both], color=style.GREY, alpha=0.45, lw=0.9, zorder=1)
            axes.plot(x, values[:, both].mean(axis=1), color=style.INK, lw=1.4, zorder=2)
            for k, (colour, marker) in enumerate(
                zip((style.BLUE, style.ORANGE), style.MARKERS, strict=False)
            ):
                axes.plot(
                    [x[k]],
                    [values[k, both].mean()],
                    marker=marker,
                    color=colour,
                    ms=7,
                    ls="",
                    zorder=3,
                    label=labels[k] if place == 0 else None,
                )
        axes.set_xticks(range(len(names)), [_wrapped(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel(ylabel)
        fig.legend(loc="outside upper right", ncols=2)
        return style.svg(fig)


def _wrapped(name: str) -> str:
    """Break a name into lines that fit beside others."""
    return name.replace(" ", "\n", 1) if len(name) > 14 else name
