"""Figures of what heads decode against what they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style
from bids_brainlm.report.figures_heat import (
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

N_SCATTERS = 6

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean, lower and upper end, arrays of one shape."""


def matrix(
    rho: np.ndarray,
    q: np.ndarray,
    labels: Sequence[str],
    regions: Sequence[str],
    *,
    label_marginal: Interval,
    region_marginal: Interval,
    label: str = "Spearman ρ over heads",
) -> bytes:
    """Draw rank correlations, labels by regions, with their means along both sides.

    Parameters
    ----------
    rho, q : array, shape (n_labels, n_regions)
        NaN where a pair was not tested.
    labels, regions : sequence of str
    label_marginal : tuple of three arrays, shape (n_labels,)
        Mean over regions, and the ends of its interval (NaN: none is drawn).
    region_marginal : tuple of three arrays, shape (n_regions,)
        The same over labels.
    label : str
        Name of the colour bar.

    Returns
    -------
    bytes
        SVG.
    """
    limit = symmetric_limit(rho)
    with style.drawing():
        fig, slot = heat_figure(labels, regions, extra=1.3, column_width=0.46)
        fig.set_figheight(fig.get_figheight() + 1.0)
        tall = max(0.2 * len(labels), 0.4)
        wide = max(slot * len(regions), 0.5)
        grid = fig.subplots(2, 2, height_ratios=(0.8, tall), width_ratios=(wide, 1.0))
        axes = grid[1, 0]
        shown = draw_heat(axes, rho, q, scale=(-limit, limit))
        name_rows(axes, labels)
        name_columns(axes, regions, slot)
        grid[0, 1].set_axis_off()
        _marginal(grid[0, 0], region_marginal, axes.get_xlim(), upright=True)
        _marginal(grid[1, 1], label_marginal, axes.get_ylim(), upright=False)
        draw_bar(fig, shown, list(grid.ravel()), label)
        draw_key(fig, rho, q)
        return style.svg(fig)


def _marginal(axes: Axes, marginal: Interval, ends: tuple[float, float], *, upright: bool) -> None:
    """Draw bars with intervals along a side of a heat map."""
    mean, low, high = marginal
    places = np.arange(len(mean))
    reach = np.concatenate([mean, low, high, [0.0]])
    top, bottom = float(np.nanmax(reach)), float(np.nanmin(reach))
    spare = 0.06 * (top - bottom)
    values = (bottom - spare, top + spare) if bottom < 0 else (bottom, top + spare or 1.0)
    if upright:
        axes.bar(places, np.nan_to_num(mean), 0.7, color="#aab4c0", linewidth=0)
        axes.vlines(places, low, high, color=style.INK, linewidth=1.1)
        axes.axhline(0, color="#6b7280", linewidth=0.8)
        axes.set(xlim=ends, ylim=values, ylabel="mean")
        axes.set_xticks([])
        axes.locator_params(axis="y", nbins=3)
    else:
        axes.barh(places, np.nan_to_num(mean), 0.7, color="#aab4c0", linewidth=0)
        axes.hlines(places, low, high, color=style.INK, linewidth=1.1)
        axes.axvline(0, color="#6b7280", linewidth=0.8)
        axes.set(ylim=ends, xlim=values, xlabel="mean")
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=3)
    axes.spines["bottom" if upright else "left"].set_visible(False)
    axes.tick_params(labelsize=8)


@dataclass(frozen=True)
class Example:
    """One pair of label and region: values over heads, shape (n_heads,), and their relation."""

    label: str
    region: str
    decoded: np.ndarray
    score: np.ndarray
    rho: float
    q: float


def scatters(
    examples: Sequence[Example],
    layers: Sequence[int],
    *,
    xlabel: str = "balanced accuracy",
    ylabel: str = "brain score (r)",
) -> bytes:
    """Draw decoding against brain scores, one point a head, for up to six pairs.

    Parameters
    ----------
    examples : sequence of Example
        The first six are drawn.
    layers : sequence of int, length n_heads
        Layer of each head; the colour of its point.
    xlabel, ylabel : str
        What is decoded and predicted, with unit.

    Returns
    -------
    bytes
        SVG; the line is a least-squares fit to the values, a guide for the eye only: rho and q
        belong to ranks.
    """
    drawn = list(examples)[:N_SCATTERS]
    n_columns = len(drawn) if len(drawn) < 4 else -(-len(drawn) // 2)
    n_rows = -(-len(drawn) // n_columns)
    numbers = np.asarray(layers, float)
    with style.drawing():
        width = min(style.WIDTH, 1.2 + 2.6 * n_columns)
        fig = style.figure(0.35 + 2.25 * n_rows, width=width)
        grid = fig.subplots(n_rows, n_columns, squeeze=False)
        for axes, one in zip(grid.ravel(), drawn, strict=False):
            shown = _scatter(axes, one, numbers)
        for axes in grid.ravel()[len(drawn) :]:
            axes.set_axis_off()
        fig.supxlabel(xlabel, fontsize=9)
        fig.supylabel(ylabel, fontsize=9)
        bar = fig.colorbar(shown, ax=list(grid.ravel()), pad=0.015, aspect=30, fraction=0.03)
        bar.set_label("layer")
        known = np.unique(numbers)
        bar.set_ticks(known[:: -(-len(known) // 12)])
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        return style.svg(fig)


def layer_colours() -> object:
    """Return colours from early to late layers that stay dark enough on white paper."""
    import matplotlib as mpl

    found = mpl.colormaps[style.colours("viridis")]
    return mpl.colors.ListedColormap(found(np.linspace(0, 0.93, 256)))


def _scatter(axes: Axes, one: Example, layers: np.ndarray) -> object:
    """Draw one pair and return the points."""
    small = float(np.clip(260 / np.sqrt(len(layers)), 5, 26))
    shown = axes.scatter(
        one.decoded,
        one.score,
        c=layers,
        s=small,
        cmap=layer_colours(),
        vmin=layers.min(),
        vmax=max(layers.max(), layers.min() + 1),
        linewidths=0.3,
        edgecolors="white",
    )
    known = np.isfinite(one.decoded) & np.isfinite(one.score)
    x, y = one.decoded[known], one.score[known]
    if len(x) > 2 and np.ptp(x) > 0:
        slope, height = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, height + slope * ends, color=style.INK, linewidth=0.9)
    axes.set_title(f"{short_name(one.label, 18)} · {short_name(one.region, 18)}", pad=16)
    relation = f"ρ = {one.rho:.2f}, ".replace("-", "−") + _q_text(one.q)
    relation = relation if np.isfinite(one.rho) else "not tested"
    axes.text(0, 1.03, relation, transform=axes.transAxes, fontsize=8.5, va="bottom")
    axes.locator_params(nbins=5)
    axes.margins(0.06)
    return shown


def _q_text(q: float) -> str:
    """Write q with three digits."""
    if not np.isfinite(q):
        return "q not known"
    return "q < 0.001" if q < 0.001 else f"q = {q:.3f}"


def best_heads(
    labels: Sequence[str],
    heads: Sequence[str],
    decoded: np.ndarray,
    scores: np.ndarray,
    regions: Sequence[str],
    *,
    label: str = "brain score of the head (r)",
) -> bytes:
    """Draw, for each label, the brain scores of the head that decodes it best.

    Parameters
    ----------
    labels, heads : sequence of str, length n_labels
        Labels and the name of each one's best head.
    decoded : array, shape (n_labels,)
        Decoding accuracy of that head.
    scores : array, shape (n_labels, n_regions)
        Its brain score in each region.
    regions : sequence of str
    label : str
        Name of the colour bar.

    Returns
    -------
    bytes
        SVG.
    """
    limit = symmetric_limit(scores)
    with style.drawing():
        fig, slot = heat_figure(labels, regions, extra=1.5)
        axes = fig.subplots()
        shown = draw_heat(axes, scores, scale=(-limit, limit))
        name_rows(axes, labels)
        name_columns(axes, regions, slot)
        beside = axes.secondary_yaxis("right")
        texts = [
            f"{short_name(head, 12)}   {value:.2f}"
            for head, value in zip(heads, decoded, strict=True)
        ]
        beside.set_yticks(range(len(labels)), texts, fontsize=8)
        beside.tick_params(length=0)
        beside.spines["right"].set_visible(False)
        axes.set_title("best head, accuracy", fontsize=8, fontweight="normal", loc="right")
        draw_bar(fig, shown, axes, label)
        draw_key(fig, scores, None)
        return style.svg(fig)
