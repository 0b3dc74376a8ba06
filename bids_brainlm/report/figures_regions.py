"""Figures of brain regions: layer curves, scores of heads, single features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style
from bids_brainlm.report.figures_heat import (
    LEVEL,
    draw_bar,
    draw_heat,
    draw_key,
    heat_figure,
    name_columns,
    name_rows,
    short_name,
    symmetric_limit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_MARKS = 300
"""With more marks than this, heads are counted beside the map instead."""

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean, lower and upper end, arrays of one shape."""

_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


def space_look(number: int) -> tuple[str, str]:
    """Return colour and marker of a feature space by its place."""
    return style.PALETTE[number % len(style.PALETTE)], style.MARKERS[number % len(style.MARKERS)]


def layer_curves(
    curves: Mapping[str, Interval],
    layers: Mapping[str, Sequence[int]],
    regions: Sequence[str],
    colours: Sequence[str] | None = None,
    *,
    ylabel: str,
    xlabel: str = "layer",
) -> bytes:
    """Draw scores by layer, one panel a region.

    Parameters
    ----------
    curves : mapping of str to tuple of three arrays, shape (n_regions, n_layers)
        Mean, lower and upper end of each feature space; NaN leaves a hole.
    layers : mapping of str to sequence of int, length n_layers
        Layers of each feature space, ascending; spaces may differ (transformations have no
        layer 0).
    regions : sequence of str
        Titles of the panels.
    colours : sequence of str, optional
        A colour for each region, shown as a square before its title.
    ylabel, xlabel : str
        Names of the axes, with unit.

    Returns
    -------
    bytes
        SVG; all panels share their axes.
    """
    count = len(regions)
    n_columns = count if count < 5 else (4 if count < 13 else 5)
    n_rows = -(-count // n_columns)
    with style.drawing():
        width = min(style.WIDTH, 1.0 + 2.5 * n_columns)
        fig = style.figure(0.75 + (1.9 if n_rows == 1 else 1.5) * n_rows, width=width)
        grid = fig.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.ravel()):
            if place >= count:
                axes.set_axis_off()
                continue
            handles = _draw_curves(axes, {s: _row(c, place) for s, c in curves.items()}, layers)
            colour = None if colours is None else colours[place]
            _panel_title(axes, regions[place], colour, 20 if n_columns < 5 else 17)
            axes.tick_params(labelbottom=place + n_columns >= count, labelsize=8)
        _layer_numbers(grid[0, 0], layers, 7)
        fig.supxlabel(xlabel, fontsize=9)
        fig.supylabel(ylabel, fontsize=9)
        name_spaces(fig, handles)
        return style.svg(fig)


def _row(curve: Interval, place: int) -> Interval:
    """Return one region of a curve."""
    mean, low, high = curve
    return mean[place], low[place], high[place]


def _draw_curves(
    axes: Axes, curves: Mapping[str, Interval], layers: Mapping[str, Sequence[int]]
) -> dict[str, object]:
    """Draw a line with a band for each space and return legend handles."""
    handles = {}
    axes.axhline(0.0, color="#8b929b", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for number, (space, (mean, low, high)) in enumerate(curves.items()):
        colour, marker = space_look(number)
        places = np.asarray(layers[space])
        axes.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
        (handles[space],) = axes.plot(
            places,
            mean,
            color=colour,
            marker=marker,
            markersize=4,
            markeredgewidth=0,
            markevery=slice(0, None, -(-len(places) // 13)),
            linestyle=_DASHES[number % len(_DASHES)],
            linewidth=1.4,
            zorder=3,
        )
    axes.locator_params(axis="y", nbins=5)
    return handles


def _panel_title(axes: Axes, name: str, colour: str | None, limit: int) -> None:
    """Name a panel, with a square in the region's colour before the name."""
    shift = 0.0
    if colour is not None:
        shift = 11.0
        axes.annotate(
            "■",
            (0, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    axes.annotate(
        short_name(name, limit),
        (0, 1),
        (shift, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        fontweight="bold",
    )


def _layer_numbers(axes: Axes, layers: Mapping[str, Sequence[int]], most: int) -> None:
    """Put whole numbers on the layer axis."""
    numbers = sorted({n for values in layers.values() for n in values})
    steps = (k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20) if len(numbers) <= k * most)
    axes.set_xticks(numbers[:: next(steps, len(numbers))])
    axes.set_xlim(numbers[0] - 0.4, numbers[-1] + 0.4)


def name_spaces(fig: Figure, handles: Mapping[str, object]) -> None:
    """Draw one legend above the figure, in as many columns as fit."""
    names = [short_name(name, 40) for name in handles]
    room = 72 * fig.get_figwidth() / (5.2 * max(map(len, names)) + 34)
    fig.legend(
        list(handles.values()),
        names,
        loc="outside upper left",
        ncols=int(np.clip(room, 1, len(names))),
    )


def partial(
    curves: Mapping[str, Interval],
    layers: Mapping[str, Sequence[int]],
    *,
    ylabel: str = "partial correlation, mean over regions",
    xlabel: str = "layer",
) -> bytes:
    """Draw partial correlations by layer, one line for each space given the other.

    Parameters
    ----------
    curves : mapping of str to tuple of three arrays, shape (n_layers,)
        Mean, lower and upper end, by a name such as ``embeddings given transformations``.
    layers : mapping of str to sequence of int, length n_layers
    ylabel, xlabel : str

    Returns
    -------
    bytes
        SVG. For single regions use `layer_curves`.
    """
    with style.drawing():
        fig = style.figure(3.1, width=0.72 * style.WIDTH)
        axes = fig.subplots()
        handles = _draw_curves(axes, curves, layers)
        _layer_numbers(axes, layers, 16)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        name_spaces(fig, handles)
        return style.svg(fig)


def head_matrix(
    values: np.ndarray,
    q: np.ndarray | None,
    regions: Sequence[str],
    layers: Sequence[int],
    *,
    label: str,
) -> bytes:
    """Draw a score of every head in every region.

    Parameters
    ----------
    values : array, shape (n_regions, n_heads)
        NaN is hatched.
    q : array, shape (n_regions, n_heads), or None
        At most 0.05 is marked where heads are wide enough and marks few; always counted at
        the right.
    regions : sequence of str
    layers : sequence of int, length n_heads
        Layer of each head, in order.
    label : str
        Name of the colour bar, with unit.

    Returns
    -------
    bytes
        SVG.
    """
    limit = symmetric_limit(values)
    n_heads = values.shape[1]
    with style.drawing():
        fig = style.figure(1.75 + 0.22 * max(len(regions), 3))
        axes = fig.subplots()
        marked = q is not None and n_heads <= 200 and int((q <= LEVEL).sum()) <= N_MARKS
        size = float(np.clip(0.45 * 430 / n_heads, 1.6, 4.0))
        shown = draw_heat(axes, values, q if marked else None, scale=(-limit, limit), size=size)
        name_rows(axes, regions)
        layer_axis(axes, layers)
        if q is not None:
            _count_heads(axes, q)
        draw_bar(fig, shown, axes, label)
        draw_key(fig, values, q if marked else None)
        return style.svg(fig)


def layer_axis(axes: Axes, layers: Sequence[int]) -> None:
    """Name the layers of heads along a heat map and draw a line between them."""
    numbers = np.asarray(layers)
    borders = np.flatnonzero(np.diff(numbers)) + 0.5
    edges = np.concatenate([[-0.5], borders, [len(numbers) - 0.5]])
    centres = (edges[1:] + edges[:-1]) / 2
    names = [str(numbers[int(edge + 0.5)]) for edge in edges[:-1]]
    step = -(-len(names) // 24)
    axes.set_xticks(centres[::step], names[::step])
    for border in borders:
        axes.axvline(border, color=style.INK, linewidth=0.5)
    axes.set_xlabel("heads, by layer")


def _count_heads(axes: Axes, q: np.ndarray) -> None:
    """Write how many heads of each row reach the level."""
    beside = axes.secondary_yaxis("right")
    counts = [str(int(n)) for n in (q <= LEVEL).sum(axis=1)]
    beside.set_yticks(range(len(q)), counts, fontsize=8)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    axes.set_title("heads with q ≤ 0.05", fontsize=8, fontweight="normal", loc="right", pad=3)


def single_features(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    q: np.ndarray,
    features: Sequence[str],
    regions: Sequence[str],
    *,
    label: str = "r",
) -> bytes:
    """Draw the score of encoding models with one feature each.

    Parameters
    ----------
    values, low, high, q : array, shape (n_features, n_regions)
        Scores, ends of their intervals, q-values; NaN where there is none.
    features, regions : sequence of str
    label : str
        Name of the scores, with unit.

    Returns
    -------
    bytes
        SVG: a heat map, and beside it the scores of all regions (grey) with the interval of
        each feature's highest one.

    Notes
    -----
    The highest region is chosen on the scores that are shown, so it is optimistic.
    """
    limit = symmetric_limit(values)
    with style.drawing():
        fig, slot = heat_figure(features, regions, extra=2.0, column_width=0.46)
        axes, beside = fig.subplots(1, 2, width_ratios=(max(slot * len(regions), 1.0), 1.7))
        shown = draw_heat(axes, values, q, scale=(-limit, limit))
        name_rows(axes, features)
        name_columns(axes, regions, slot)
        _strongest(beside, (values, low, high), axes.get_ylim(), label)
        draw_bar(fig, shown, [axes, beside], label)
        draw_key(fig, values, q)
        return style.svg(fig)


def _strongest(axes: Axes, scores: Interval, ends: tuple[float, float], label: str) -> None:
    """Draw all scores of each row as grey ticks and its highest one with an interval."""
    values, low, high = scores
    for row in np.flatnonzero(np.isfinite(values).any(axis=1)):
        best = int(np.nanargmax(values[row]))
        axes.plot(values[row], np.full(values.shape[1], row), "|", color="#9aa1aa", markersize=5)
        axes.hlines(row, low[row, best], high[row, best], color=style.BLUE, linewidth=1.6)
        axes.plot(values[row, best], row, "o", color=style.BLUE, markersize=4.5)
    axes.axvline(0, color="#8b929b", linewidth=0.8, zorder=0)
    axes.set(ylim=ends, xlabel=label)
    axes.set_title("highest region", fontsize=8, fontweight="normal", pad=3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=8)
