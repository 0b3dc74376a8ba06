"""Figures of head specialization: principal components over heads, and what they go with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style
from bids_brainlm.report.figures_correspondence import layer_colours
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

N_COMPONENTS = 20
"""A scree plot shows at most this many components."""

_TEXT = (4.6, 8.0)  # points: width of a character and height of a line of a head's name


def scree(
    share: np.ndarray,
    null95: np.ndarray | None,
    p: np.ndarray | None,
    *,
    label: str = "variance (%)",
) -> bytes:
    """Draw the share of variance of each component.

    Parameters
    ----------
    share : array, shape (n_components,)
        Share of the variance, 0 to 1, descending; the first 20 are drawn.
    null95 : array, shape (n_components,), or None
        95th percentile of the share where heads were permuted.
    p : array, shape (n_components,), or None
        Bars are filled where it is at most 0.05.
    label : str
        What the shares are of, with unit.

    Returns
    -------
    bytes
        SVG.
    """
    values = 100 * np.asarray(share, float)[:N_COMPONENTS]
    numbers = np.arange(1, len(values) + 1)
    above = np.zeros(len(values), bool) if p is None else p[:N_COMPONENTS] <= LEVEL
    if p is None:
        above = np.ones(len(values), bool)
    with style.drawing():
        fig = style.figure(2.7, width=float(np.clip(2.2 + 0.24 * len(values), 3.8, 6.4)))
        axes = fig.subplots()
        for chosen, fill, name in (
            (above, style.BLUE, "p ≤ 0.05"),
            (~above, "white", "p > 0.05"),
        ):
            if chosen.any():
                axes.bar(
                    numbers[chosen],
                    np.nan_to_num(values[chosen]),
                    0.7,
                    color=fill,
                    edgecolor=style.BLUE,
                    linewidth=1.0,
                    label=name if p is not None else "_",
                )
        if null95 is not None:
            axes.plot(
                numbers,
                100 * null95[:N_COMPONENTS],
                "_-",
                color=style.ORANGE,
                markersize=9,
                linewidth=0.8,
                label="95 % of sign flips",
            )
        axes.set_xticks(numbers[:: -(-len(numbers) // 12)])
        axes.set(xlabel="component", ylabel=label, xlim=(0.4, len(values) + 0.6))
        if null95 is not None or p is not None:
            axes.legend(loc="upper right")
        return style.svg(fig)


def scatter(
    scores: np.ndarray,
    layers: Sequence[int],
    distances: np.ndarray | None,
    names: Sequence[str],
    annotate: Sequence[int] = (),
    components: tuple[int, int] = (0, 1),
    *,
    share: np.ndarray | None = None,
    distance_label: str = "look-back distance (tokens)",
) -> bytes:
    """Draw heads by two components, coloured by layer and by look-back distance.

    Parameters
    ----------
    scores : array, shape (n_heads, n_components)
        Component scores; heads with NaN are left out.
    layers : sequence of int, length n_heads
    distances : array, shape (n_heads,), or None
        Positive look-back distance, drawn on a logarithmic scale; heads without one are grey.
        None leaves the second panel out.
    names : sequence of str, length n_heads
    annotate : sequence of int
        Heads that get their name; one that finds no free place stays without.
    components : tuple of int
        Places of the two components.
    share : array, shape (n_components,), optional
        Share of variance, for the names of the axes.
    distance_label : str

    Returns
    -------
    bytes
        SVG.
    """
    points = np.asarray(scores, float)[:, list(components)]
    n_panels = 1 if distances is None else 2
    with style.drawing():
        fig = style.figure(3.75, width=style.WIDTH if n_panels == 2 else 4.6)
        grid = fig.subplots(1, n_panels, squeeze=False, sharex=True, sharey=True)[0]
        _cloud(fig, grid[0], points, np.asarray(layers, float), "layer", log=False)
        if distances is not None:
            _cloud(fig, grid[1], points, np.asarray(distances, float), distance_label, log=True)
        for axes in grid:
            axes.set_xlabel(_component_name(components[0], share))
            axes.margins(0.1)
            for line in (axes.axhline, axes.axvline):
                line(0, color="#c3c8cf", linewidth=0.7, zorder=0)
        grid[0].set_ylabel(_component_name(components[1], share))
        _name_points(fig, list(grid), points, names, annotate)
        return style.svg(fig)


def _component_name(place: int, share: np.ndarray | None) -> str:
    """Name a component with its share of the variance."""
    known = share is not None and np.isfinite(share[place])
    return f"component {place + 1}" + (
        f" ({100 * share[place]:.0f} % of variance)" if known else ""
    )


def _cloud(
    fig: Figure, axes: Axes, points: np.ndarray, values: np.ndarray, label: str, *, log: bool
) -> None:
    """Draw heads as points with a colour bar."""
    import matplotlib as mpl

    known = np.isfinite(values) & ((values > 0) | (not log))
    low = float(values[known].min()) if known.any() else 1.0
    high = float(values[known].max()) if known.any() else 2.0
    high = high if high > low else low + 1.0
    norm = mpl.colors.LogNorm(low, high) if log else mpl.colors.Normalize(low, high)
    small = _size(points)
    axes.scatter(*points[~known].T, s=small, color="#c3c8cf", linewidths=0)
    shown = axes.scatter(
        *points[known].T,
        c=values[known],
        s=small,
        norm=norm,
        cmap=layer_colours(),
        linewidths=0.4,
        edgecolors="white",
    )
    bar = fig.colorbar(shown, ax=axes, pad=0.02, fraction=0.05, aspect=28)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if log:
        ticks = _log_ticks(low, high)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    else:
        numbers = np.unique(values[known])
        bar.set_ticks(numbers[:: -(-len(numbers) // 12)])
    bar.ax.minorticks_off()


def _size(points: np.ndarray) -> float:
    """Return the area of a head's point, smaller where there are many."""
    return float(np.clip(380 / np.sqrt(len(points)), 9, 42))


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers within a range of positive numbers, from three to about eight."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [d * 10.0**k for k in powers for d in digits if low <= d * 10.0**k <= high]
        if len(ticks) >= 3:
            return ticks
    return [float(f"{value:.3g}") for value in np.linspace(low, high, 5)[1:4]]


def _name_points(
    fig: Figure,
    panels: list[Axes],
    points: np.ndarray,
    names: Sequence[str],
    annotate: Sequence[int],
) -> None:
    """Name points where their names cover neither points nor each other."""
    known = np.isfinite(points).all(axis=1)
    chosen = [k for k in annotate if known[k]]
    if not chosen:
        return
    fig.draw_without_rendering()
    scale = 72 / fig.dpi
    places = panels[0].transData.transform(np.where(known[:, None], points, 0.0)) * scale
    box = panels[0].get_window_extent().extents * scale
    offsets = free_places(places[known], places[chosen], [names[k] for k in chosen], box)
    for axes in panels:
        for k, offset in zip(chosen, offsets, strict=True):
            if offset is None:
                continue
            far = np.hypot(*offset) > 12
            axes.plot(
                *points[k],
                "o",
                markersize=np.sqrt(_size(points)) + 1,
                markerfacecolor="none",
                markeredgecolor=style.INK,
                markeredgewidth=0.9,
                zorder=5,
            )
            axes.annotate(
                short_name(names[k], 16),
                points[k],
                offset,
                textcoords="offset points",
                fontsize=7.5,
                ha="center",
                va="center",
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#6b7280"}
                if far
                else None,
                zorder=6,
            )


def free_places(
    points: np.ndarray, targets: np.ndarray, names: Sequence[str], box: np.ndarray
) -> list[tuple[float, float] | None]:
    """Find places for names beside their points, near ones first.

    Parameters
    ----------
    points : array, shape (n_points, 2)
        Everything that must not be covered, points (1/72 inch).
    targets : array, shape (n_names, 2)
        Where the named points are.
    names : sequence of str, length n_names
    box : array, shape (4,)
        Left, bottom, right and top of the panel.

    Returns
    -------
    list of tuple of two float, or None
        Centre of each name relative to its point; None where all places near it
        are taken.
    """
    taken: list[np.ndarray] = []
    found: list[tuple[float, float] | None] = []
    for target, name in zip(targets, names, strict=True):
        half = np.array([_TEXT[0] * min(len(name), 16) / 2, _TEXT[1] / 2])
        choice = None
        for dx, dy in _candidates(half):
            middle = target + np.array([dx, dy])
            area = np.concatenate([middle - half, middle + half])
            inside = (area[:2] >= box[:2]).all() and (area[2:] <= box[2:]).all()
            free = not any((area[:2] < t[2:]).all() and (t[:2] < area[2:]).all() for t in taken)
            near = (np.abs(points - middle) < half + 2.0).all(axis=1)
            if inside and free and not near.any():
                choice = (float(dx), float(dy))
                taken.append(area)
                break
        found.append(choice)
    return found


def _candidates(half: np.ndarray) -> list[tuple[float, float]]:
    """Return places around a point, nearest ring first, sides before corners."""
    ring = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
    return [
        (x * (half[0] + gap), y * (half[1] + gap))
        for gap in (6.0, 11.0, 17.0, 25.0, 34.0)
        for x, y in ring
    ]


def loadings(values: np.ndarray, parcels: Sequence[str], components: Sequence[str]) -> bytes:
    """Draw loadings as a matrix, for atlases that cannot be drawn on a brain.

    Parameters
    ----------
    values : array, shape (n_parcels, n_components)
        Correlations, -1 to 1.
    parcels, components : sequence of str

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        fig, slot = heat_figure(parcels, components, extra=1.2)
        axes = fig.subplots()
        shown = draw_heat(axes, values, scale=(-1.0, 1.0))
        name_rows(axes, parcels)
        name_columns(axes, components, slot)
        draw_bar(fig, shown, axes, "loading (r)")
        draw_key(fig, values, None)
        return style.svg(fig)


def associations(
    rho: np.ndarray,
    q: np.ndarray,
    covariates: Sequence[str],
    *,
    share: np.ndarray | None = None,
    label: str = "Spearman ρ over heads",
) -> bytes:
    """Draw how components go with properties of heads.

    Parameters
    ----------
    rho, q : array, shape (n_components, n_covariates)
        NaN where a pair was not tested.
    covariates : sequence of str
        Layer, look-back distance, labels that heads decode.
    share : array, shape (n_components,), optional
        Share of variance, for the names of components.
    label : str
        Name of the colour bar.

    Returns
    -------
    bytes
        SVG, covariates in rows.
    """
    limit = symmetric_limit(rho)
    names = [f"PC{k + 1:02d}" for k in range(len(rho))]
    if share is not None:
        names = [f"{n} ({100 * s:.0f} %)" for n, s in zip(names, share, strict=False)]
    with style.drawing():
        fig, slot = heat_figure(covariates, names, column_width=0.55)
        axes = fig.subplots()
        shown = draw_heat(axes, rho.T, q.T, scale=(-limit, limit))
        name_rows(axes, covariates)
        name_columns(axes, names, slot)
        draw_bar(fig, shown, axes, label)
        draw_key(fig, rho, q)
        return style.svg(fig)
