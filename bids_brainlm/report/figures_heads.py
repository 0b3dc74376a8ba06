"""Figures of attention heads: what they decode, and whether that goes with brain scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 0.5


def decoding(values: np.ndarray, labels: Sequence[str], layers: Sequence[int]) -> bytes:
    """Draw the accuracy of every head for every label.

    Parameters
    ----------
    values : array, shape (n_heads, n_labels)
        Balanced accuracy; chance is 0.5.
    labels : sequence of str
    layers : sequence of int, length n_heads
        Layer of each head, in order.

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        fig = style.figure(1.0 + 0.19 * len(labels))
        axes = fig.subplots()
        top = max(float(np.nanmax(values)), CHANCE + 0.05)
        cmap = style.colours("viridis")
        shown = axes.imshow(
            values.T, cmap=cmap, vmin=CHANCE, vmax=top, aspect="auto", interpolation="none"
        )
        axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
        _layer_axis(axes, layers)
        bar = fig.colorbar(shown, ax=axes, pad=0.015, fraction=0.03, extend="min")
        bar.set_label("balanced accuracy")
        bar.outline.set_visible(False)
        return style.svg(fig)


def _layer_axis(axes: Axes, layers: Sequence[int]) -> None:
    """Name the layers and draw a line between them."""
    numbers = np.asarray(layers)
    known = sorted(set(numbers.tolist()))
    centres = [np.flatnonzero(numbers == layer).mean() for layer in known]
    step = -(-len(known) // 16)
    axes.set_xticks(centres[::step], [str(layer) for layer in known[::step]])
    for border in np.flatnonzero(np.diff(numbers)):
        axes.axvline(border + 0.5, color="white", linewidth=0.8)
    axes.set_xlabel("heads, by layer")
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def correspondence(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
    labels: Sequence[str],
    parcels: Sequence[str],
) -> bytes:
    """Draw rank correlations of decoding and brain scores, labels by parcels.

    Parameters
    ----------
    panels : sequence of (str, array, array)
        Title, rho and q, both of shape (n_parcels, n_labels).
    labels, parcels : sequence of str

    Returns
    -------
    bytes
        SVG; a dot marks q of at most 0.05.
    """
    with style.drawing():
        fig = style.figure(1.4 + 0.19 * len(labels))
        axes = np.atleast_1d(fig.subplots(1, len(panels), sharey=True))
        limit = max(float(np.nanmax(np.abs(rho))) for _, rho, _ in panels)
        limit, cmap = style.scale_end(limit), style.colours("RdBu_r")
        for axis, (title, rho, q) in zip(axes, panels, strict=True):
            shown = axis.imshow(
                rho.T, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto", interpolation="none"
            )
            column, row = np.nonzero(q <= 0.05)
            axis.plot(column, row, ".", color=style.INK, markersize=4)
            axis.set_title(title)
            axis.set_xticks(range(len(parcels)), parcels, rotation=90, fontsize=7.5)
            axis.set_yticks(range(len(labels)), labels, fontsize=7.5)
            axis.tick_params(length=0)
            for side in ("left", "bottom"):
                axis.spines[side].set_visible(False)
        bar = fig.colorbar(shown, ax=list(axes), pad=0.015, fraction=0.03)
        bar.set_label("Spearman ρ over heads")
        bar.outline.set_visible(False)
        return style.svg(fig)
