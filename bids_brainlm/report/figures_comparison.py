"""Figures that compare feature spaces in brain regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from bids_brainlm.report.figures_regions import Interval, name_spaces, space_look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BRIDGES = 4
"""With more significant pairs than this in a region, pairs get rows of their own."""

_BESIDE = 1.0  # inches of a figure beside its axes
_GAP = 0.16  # inches between the feature spaces of neighbouring regions
_MARKER = 0.1  # inches of a feature space within a region


def comparison(
    spaces: Sequence[str],
    regions: Sequence[str],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    significant: Sequence[tuple[int, int, int]] = (),
    *,
    ylabel: str,
) -> bytes:
    """Draw scores of feature spaces side by side in each region.

    Parameters
    ----------
    spaces, regions : sequence of str
    mean, low, high : array, shape (n_spaces, n_regions)
        Scores and the ends of their intervals; NaN is not drawn.
    significant : sequence of tuple of three int
        Places of region, first and second space of each pair with q <= 0.05.
    ylabel : str
        What the scores are, with unit.

    Returns
    -------
    bytes
        SVG; regions run on in further tiers where they do not fit into one.

    Notes
    -----
    Significant pairs are bridges above the points where no region has more than four of
    them. Otherwise every pair that differs anywhere has a row under the points, with the
    symbol of the higher space in each region where the two differ.
    """
    pairs: dict[int, list[tuple[int, int]]] = {}
    for region, first, second in significant:
        pairs.setdefault(region, []).append((min(first, second), max(first, second)))
    most = len(max(pairs.values(), key=len, default=[]))
    rows = sorted({p for some in pairs.values() for p in some}) if most > MAX_BRIDGES else []
    tiers = _tiers(len(spaces), len(regions))
    with style.drawing():
        slot = max(_GAP + _MARKER * len(spaces), 0.8)
        width = float(np.clip(_BESIDE + slot * len(tiers[0]), 4.4, style.WIDTH))
        slot = (width - _BESIDE) / len(tiers[0])
        ratios = (2.1, 0.17 * len(rows)) if rows else (2.1,)
        fig = style.figure(0.5 + len(tiers) * (0.45 + sum(ratios)), width=width)
        parts = len(ratios)
        grid = fig.subplots(len(tiers) * parts, squeeze=False, height_ratios=ratios * len(tiers))
        limits = _limits(np.stack([mean, low, high]), 0 if rows else most)
        for number, tier in enumerate(tiers):
            axes, last = grid[number * parts, 0], grid[number * parts + parts - 1, 0]
            handles = _dots(axes, spaces, (mean, low, high), tier)
            axes.set(ylim=limits, ylabel=ylabel)
            axes.set_xticks([])
            _stripes(axes, len(tiers[0]))
            if rows:
                _pair_rows(last, rows, pairs, mean, tier)
                _stripes(last, len(tiers[0]))
            else:
                _bridges(axes, pairs, np.fmax(mean, high), tier)
            name_columns(last, [regions[k] for k in tier], slot)
        if rows:
            _small_title(grid[1, 0], "the higher of each pair, where q ≤ 0.05")
        elif pairs:
            handles["bridge: q ≤ 0.05"] = _line()
        name_spaces(fig, handles)
        return style.svg(fig)


def _tiers(n_spaces: int, n_regions: int) -> list[range]:
    """Share regions out among tiers of equal length that are wide enough for all markers."""
    most = int(max((style.WIDTH - _BESIDE) // (_GAP + _MARKER * n_spaces), 1))
    length = -(-n_regions // -(-n_regions // most))
    return [range(k, min(k + length, n_regions)) for k in range(0, n_regions, length)]


def _limits(values: np.ndarray, n_levels: int) -> tuple[float, float]:
    """Return the ends of the score axis with room for bridges above."""
    known = values[np.isfinite(values)]
    low, high = min(known.min(initial=0.0), 0.0), max(known.max(initial=0.0), 0.0)
    reach = high - low or 1.0
    return low - 0.05 * reach, high + (0.06 + 0.075 * n_levels) * reach


def _shift(number: int, n_spaces: int) -> float:
    """Place a space within its region, whose slot is 1 wide."""
    return 0.0 if n_spaces == 1 else (number / (n_spaces - 1) - 0.5) * min(0.2 * n_spaces, 0.7)


def _dots(axes: Axes, spaces: Sequence[str], scores: Interval, tier: range) -> dict[str, object]:
    """Draw points with intervals and return legend handles."""
    handles: dict[str, object] = {}
    mean, low, high = (part[:, list(tier)] for part in scores)
    for number, space in enumerate(spaces):
        colour, marker = space_look(number)
        places = np.arange(len(tier)) + _shift(number, len(spaces))
        axes.vlines(places, low[number], high[number], color=colour, linewidth=1.5, zorder=3)
        (handles[space],) = axes.plot(
            places, mean[number], marker, color=colour, markersize=5, zorder=4, markeredgewidth=0
        )
    axes.axhline(0.0, color="#8b929b", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.locator_params(axis="y", nbins=6)
    return handles


def _stripes(axes: Axes, length: int) -> None:
    """Shade every second region."""
    axes.set_xlim(-0.5, length - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)
    for place in range(0, length, 2):
        axes.axvspan(place - 0.5, place + 0.5, color="#f3f4f6", linewidth=0, zorder=-5)


def _bridges(
    axes: Axes, pairs: Mapping[int, list[tuple[int, int]]], tops: np.ndarray, tier: range
) -> None:
    """Draw a bridge over each significant pair, short ones lowest."""
    bottom, top = axes.get_ylim()
    step = 0.062 * (top - bottom)
    for place, region in enumerate(tier):
        level = np.nan_to_num(tops[:, region], nan=bottom).max() + 0.6 * step
        for first, second in sorted(pairs.get(region, []), key=lambda p: (p[1] - p[0], p)):
            ends = [place + _shift(k, len(tops)) for k in (first, second)]
            axes.plot(
                [ends[0], ends[0], ends[1], ends[1]],
                [level - 0.35 * step, level, level, level - 0.35 * step],
                color=style.INK,
                linewidth=0.9,
                solid_joinstyle="miter",
            )
            level += step


def _pair_rows(
    axes: Axes,
    rows: Sequence[tuple[int, int]],
    pairs: Mapping[int, list[tuple[int, int]]],
    mean: np.ndarray,
    tier: range,
) -> None:
    """Draw a row for each pair with the symbol of the higher space where the two differ."""
    from matplotlib.transforms import blended_transform_factory

    left = blended_transform_factory(axes.transAxes, axes.transData)
    inch = 1 / (axes.figure.get_figwidth() - _BESIDE)
    for row, pair in enumerate(rows):
        for side, number in enumerate(pair):
            colour, marker = space_look(number)
            place = (side - 1) * 0.24 * inch - 0.12 * inch
            axes.plot(
                place,
                row,
                marker,
                color=colour,
                markersize=5,
                transform=left,
                clip_on=False,
                markeredgewidth=0,
            )
        axes.text(-0.24 * inch, row, "–", transform=left, ha="center", va="center", fontsize=8)
        axes.axhline(row, color="#d7dbe0", linewidth=0.6, zorder=0)
        for place, region in enumerate(tier):
            if pair in pairs.get(region, []):
                higher = max(pair, key=lambda number: np.nan_to_num(mean[number, region]))
                colour, marker = space_look(higher)
                axes.plot(place, row, marker, color=colour, markersize=5, markeredgewidth=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _small_title(axes: Axes, text: str) -> None:
    """Write a plain line above axes."""
    axes.set_title(text, fontsize=8, fontweight="normal", pad=2)


def _line() -> object:
    """Return the legend's picture of a bridge."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.INK, linewidth=0.9)


def paired(
    pairs: Sequence[tuple[str, str]],
    regions: Sequence[str],
    difference: np.ndarray,
    q: np.ndarray,
    *,
    label: str = "mean difference of r",
) -> bytes:
    """Draw mean differences of feature spaces, pairs by regions.

    Parameters
    ----------
    pairs : sequence of tuple of two str
        First less second space.
    regions : sequence of str
    difference, q : array, shape (n_pairs, n_regions)
        NaN where a pair was not tested.
    label : str
        Name of the colour bar, with unit.

    Returns
    -------
    bytes
        SVG.
    """
    names = [f"{short_name(a, 22)} − {short_name(b, 22)}" for a, b in pairs]
    limit = symmetric_limit(difference)
    with style.drawing():
        fig, slot = heat_figure(names, regions, row_limit=50)
        axes = fig.subplots()
        shown = draw_heat(axes, difference, q, scale=(-limit, limit))
        name_rows(axes, names, 50)
        name_columns(axes, regions, slot)
        draw_bar(fig, shown, axes, label)
        draw_key(fig, difference, q)
        return style.svg(fig)
