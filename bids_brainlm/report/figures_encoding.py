"""Figures of encoding models: penalties, layers, heads, parcels, bands."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_PARCELS = 6
"""Up to this many parcels, each one gets its own line and name."""


@dataclass(frozen=True)
class Curve:
    """Values by layer, shape (n_layers,), with an interval where there is one.

    ``layers`` names the layers of the values where they are not those of the whole figure
    (transformations have no layer 0).
    """

    label: str
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    is_background: bool = False
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurvePanel:
    """One panel of a figure of layer curves; ``reference`` is a horizontal line."""

    title: str
    ylabel: str
    curves: tuple[Curve, ...]
    reference: float | None = None
    reference_label: str = ""


def column_mean(values: np.ndarray) -> np.ndarray:
    """Mean over parcels that have a value, shape (n_columns,); NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0)


def alphas(tried: Sequence[float], chosen: Mapping[str, Sequence[int]]) -> bytes:
    """Draw how often each penalty was chosen, by layer.

    Parameters
    ----------
    tried : sequence of float, shape (n_alphas,)
        Penalties of the grid, ascending.
    chosen : mapping of str to sequence of int
        Counts over parcels and folds per tried penalty, one entry a layer.

    Returns
    -------
    bytes
        SVG: a heat map of shares; one bar chart where there is only one column.
    """
    counts = np.array([list(chosen[name]) for name in chosen], dtype=float).T
    shares = 100 * counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    labels = [_power(a) for a in tried]
    with style.drawing():
        if shares.shape[1] == 1:
            return _alpha_bars(labels, shares[:, 0])
        fig = style.figure(0.9 + 0.24 * len(tried))
        axes = fig.subplots()
        mesh = axes.pcolormesh(
            np.arange(shares.shape[1] + 1) - 0.5,
            np.arange(len(tried) + 1) - 0.5,
            shares,
            cmap=style.colours("Blues"),
            vmin=0,
            vmax=max(shares.max(), 1),
            edgecolors="white",
            linewidth=0.6,
        )
        if shares.size <= 200:
            _annotate(axes, shares)
        axes.set_yticks(range(len(tried)), labels)
        style.layer_ticks(axes, tuple(chosen))
        axes.set_xlim(-0.5, shares.shape[1] - 0.5)
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel("layer (0 = input embeddings)")
        axes.set_ylabel("penalty alpha")
        bar = fig.colorbar(mesh, ax=axes, pad=0.015, fraction=0.03)
        bar.set_label("chosen (% of parcels × folds)")
        bar.outline.set_visible(False)
        return style.svg(fig)


def _alpha_bars(labels: list[str], shares: np.ndarray) -> bytes:
    """Draw the shares of one column as bars."""
    fig = style.figure(2.2)
    axes = fig.subplots()
    axes.bar(range(len(labels)), shares, width=0.75, color=style.BLUE)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("penalty alpha")
    axes.set_ylabel("chosen (%)")
    return style.svg(fig)


def _annotate(axes: Axes, shares: np.ndarray) -> None:
    """Write each share into its cell."""
    for row, column in np.ndindex(shares.shape):
        value = shares[row, column]
        if value >= 0.5:
            colour = "white" if value > 0.6 * shares.max() else style.INK
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7.5
            )


def _power(value: float) -> str:
    """Write a penalty as a power of ten where it is one."""
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) < 1e-9:
        return f"$10^{{{round(exponent)}}}$"
    return f"{value:.3g}"


def layer_curves(columns: tuple[str, ...], panels: Sequence[CurvePanel]) -> bytes:
    """Draw scores by layer, one panel a score.

    Parameters
    ----------
    columns : tuple of str, length n_layers
        Layer names (``layer00`` ...).
    panels : sequence of CurvePanel
        Panels from left to right; a shared legend stands above them.

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        names = _labels(panels)
        width = style.WIDTH if len(panels) > 1 else 0.68 * style.WIDTH
        fig = style.figure(2.7 + 0.2 * (-(-(len(names) + 1) // 3)), width=width)
        grid = fig.subplots(1, len(panels), squeeze=False)[0]
        handles: dict[str, object] = {}
        for axes, panel in zip(grid, panels, strict=True):
            _curve_panel(axes, panel, handles, names, columns)
            style.layer_ticks(axes, columns)
            axes.set_xlabel("layer (0 = input embeddings)" if len(panels) < 3 else "layer")
        fig.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper left",
            ncols=min(4 if max(map(len, handles)) < 26 else 2, len(handles)),
        )
        return style.svg(fig)


def _labels(panels: Sequence[CurvePanel]) -> list[str]:
    """Return the distinct names of foreground curves in order of appearance."""
    curves = [c for panel in panels for c in panel.curves if not c.is_background]
    return list(dict.fromkeys(c.label for c in curves))


def _curve_panel(
    axes: Axes,
    panel: CurvePanel,
    handles: dict[str, object],
    names: list[str],
    columns: tuple[str, ...],
) -> None:
    """Draw one panel and collect legend handles."""
    for curve in panel.curves:
        places = style.layer_numbers(curve.layers or columns)
        if curve.is_background:
            (line,) = axes.plot(places, curve.values, color="#b3bac3", linewidth=0.9, zorder=1)
            handles.setdefault(curve.label, line)
            continue
        number = names.index(curve.label)
        colour = style.PALETTE[number % len(style.PALETTE)]
        if curve.low is not None and curve.high is not None:
            axes.fill_between(places, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        (line,) = axes.plot(
            places,
            curve.values,
            color=colour,
            zorder=3,
            markeredgewidth=0,
            marker=style.MARKERS[number % len(style.MARKERS)],
        )
        handles.setdefault(curve.label, line)
    if panel.reference is not None and np.isfinite(panel.reference):
        line = axes.axhline(panel.reference, color=style.INK, linestyle=(0, (4, 3)), linewidth=1.1)
        handles.setdefault(panel.reference_label, line)
    style.zero_line(axes)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.ylabel)
    axes.locator_params(axis="y", nbins=6)


def heads(means: np.ndarray, *, first_layer: int = 1, label: str = "mean r") -> bytes:
    """Draw a score for every head, shape (n_layers, n_heads); NaN stays white.

    Returns
    -------
    bytes
        SVG with a colour scale that is symmetric around zero.
    """
    with style.drawing():
        fig = style.figure(0.9 + 0.25 * means.shape[0])
        axes = fig.subplots()
        limit = style.scale_end(float(np.nanmax(np.abs(means), initial=1e-6)))
        mesh = axes.pcolormesh(
            np.arange(means.shape[1] + 1) + 0.5,
            np.arange(means.shape[0] + 1) + first_layer - 0.5,
            means,
            cmap=style.colours("RdBu_r"),
            vmin=-limit,
            vmax=limit,
            edgecolors="white",
            linewidth=0.6,
        )
        axes.set_xticks(range(1, means.shape[1] + 1))
        axes.set_yticks(range(first_layer, first_layer + means.shape[0]))
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel("attention head")
        axes.set_ylabel("layer")
        bar = fig.colorbar(mesh, ax=axes, pad=0.015, fraction=0.03)
        bar.set_label(label)
        bar.outline.set_visible(False)
        return style.svg(fig)


@dataclass(frozen=True)
class Dots:
    """Values by parcel, shape (n_parcels,), with intervals or single observations.

    ``observations`` has shape (n_parcels, n_observations); ``significant`` fills the marker.
    """

    label: str
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    significant: np.ndarray | None = None
    observations: np.ndarray | None = None


def parcel_dots(names: Sequence[str], series: Sequence[Dots], *, xlabel: str) -> bytes:
    """Draw values by parcel as dots in rows.

    Parameters
    ----------
    names : sequence of str, length n_parcels
        Row labels, top to bottom.
    series : sequence of Dots
        Kinds of values, drawn side by side within a row.
    xlabel : str
        What the values are, with unit.

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        height = 0.25 if len(series) == 1 else 0.16 + 0.085 * len(series)
        fig = style.figure(0.95 + height * max(len(names), 2))
        axes = fig.subplots()
        handles = {}
        for number, dots in enumerate(series):
            shift = 0.0 if len(series) == 1 else (number / (len(series) - 1) - 0.5) * 0.6
            handles[dots.label] = _dot_rows(axes, dots, shift, number)
        axes.axvline(0.0, color="#9aa1aa", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), [_clip(n) for n in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        for row in range(0, len(names), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#f6f7f9", zorder=-5, linewidth=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(xlabel)
        if len(series) > 1:
            fig.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5)
        return style.svg(fig)


def _dot_rows(axes: Axes, dots: Dots, shift: float, number: int) -> object:
    """Draw one kind of value and return its legend handle."""
    colour = style.PALETTE[number % len(style.PALETTE)]
    rows = np.arange(len(dots.values)) + shift
    if dots.observations is not None:
        count = dots.observations.shape[1]
        spread = 0.22 * (np.arange(count) / max(count - 1, 1) - 0.5)
        axes.scatter(
            dots.observations,
            rows[:, None] + spread[None, :],
            s=8,
            color="#5b636d",
            alpha=0.8,
            linewidths=0,
            zorder=5,
        )
    if dots.low is not None and dots.high is not None:
        axes.hlines(rows, dots.low, dots.high, color=colour, linewidth=2.0, zorder=3)
    filled = np.ones(len(rows), bool) if dots.significant is None else dots.significant
    marker = style.MARKERS[number % len(style.MARKERS)]
    handle = axes.scatter(
        dots.values[filled],
        rows[filled],
        s=34,
        color=colour,
        marker=marker,
        zorder=4,
        linewidths=1.2,
    )
    axes.scatter(
        dots.values[~filled],
        rows[~filled],
        s=34,
        facecolors="white",
        edgecolors=colour,
        marker=marker,
        zorder=4,
        linewidths=1.2,
    )
    return handle


def _clip(name: str, limit: int = 34) -> str:
    """Shorten a long name in its middle and take away mathematics markup."""
    safe = name.replace("$", r"\$")
    return safe if len(safe) <= limit else f"{safe[: limit // 2]}…{safe[-limit // 2 + 1 :]}"


def p_values(p: np.ndarray, label: str) -> bytes:
    """Draw observed against expected p-values, both as -log10.

    Parameters
    ----------
    p : array, shape (n_parcels,)
        Uncorrected p-values; NaN is left out.
    label : str
        What the p-values belong to.

    Returns
    -------
    bytes
        SVG.
    """
    seen = np.sort(p[np.isfinite(p)])
    expected = (np.arange(len(seen)) + 0.5) / max(len(seen), 1)
    with style.drawing():
        fig = style.figure(2.7, width=3.8)
        axes = fig.subplots()
        limit = max(-np.log10(expected).min(initial=1), -np.log10(expected).max(initial=1))
        axes.plot([0, limit], [0, limit], color="#9aa1aa", linewidth=0.9)
        axes.scatter(-np.log10(expected), -np.log10(seen), s=14, color=style.BLUE, linewidths=0)
        axes.set_xlabel("expected $-\\log_{10}$ p")
        axes.set_ylabel("observed $-\\log_{10}$ p")
        axes.set_title(label)
        return style.svg(fig)
