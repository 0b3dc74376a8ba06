"""Figures of how embeddings and transformations relate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "viridis"


def similarity(matrix: np.ndarray, layers: Sequence[int]) -> bytes:
    """Draw the rank correlation of RDMs, embeddings by transformations.

    Parameters
    ----------
    matrix : array, shape (n_layers, n_layers)
        Rows: embeddings, columns: transformations.
    layers : sequence of int
        Numbers of both.

    Returns
    -------
    bytes
        SVG.
    """
    with style.drawing():
        fig = style.figure(4.4, 5.6)
        axes = fig.subplots()
        limit = style.scale_end(max(float(np.nanmax(np.abs(matrix))), 0.1))
        cmap = style.colours("RdBu_r")
        shown = axes.imshow(matrix, cmap=cmap, vmin=-limit, vmax=limit, origin="lower")
        ticks = np.arange(0, len(layers), -(-len(layers) // 13))
        axes.set_xticks(ticks, [str(layers[k]) for k in ticks])
        axes.set_yticks(ticks, [str(layers[k]) for k in ticks])
        axes.set_xlabel("transformations, layer")
        axes.set_ylabel("embeddings, layer")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        if matrix.size <= 200:
            for row, column in np.ndindex(matrix.shape):
                value = matrix[row, column]
                colour = "white" if abs(value) > 0.7 * limit else style.INK
                axes.text(
                    column, row, f"{value:.2f}".replace("-", "−"), ha="center", va="center",
                    fontsize=7, color=colour,
                )  # fmt: skip
        bar = fig.colorbar(shown, ax=axes, pad=0.02, fraction=0.045)
        bar.set_label("Spearman ρ of RDMs")
        bar.outline.set_visible(False)
        return style.svg(fig)


def autocorrelation(curves: Mapping[str, np.ndarray], layers: Mapping[str, Sequence[int]]) -> bytes:
    """Draw the autocorrelation of features by layer, one panel a space.

    Parameters
    ----------
    curves : mapping of str to array, shape (n_layers, n_lags + 1)
        By the space's name.
    layers : mapping of str to sequence of int
        Numbers of the layers.

    Returns
    -------
    bytes
        SVG.
    """
    import matplotlib as mpl

    with style.drawing():
        fig = style.figure(3.0)
        panels = np.atleast_1d(fig.subplots(1, len(curves), sharey=True))
        numbers = sorted({n for several in layers.values() for n in several})
        norm = mpl.colors.Normalize(min(numbers), max(max(numbers), min(numbers) + 1))
        mapper = mpl.cm.ScalarMappable(norm, style.colours(COLOURS))
        for axes, (space, values) in zip(panels, curves.items(), strict=True):
            _curves(axes, values, layers[space], mapper)
            axes.set_title(space)
            axes.set_xlabel("lag (TRs)")
        panels[0].set_ylabel("autocorrelation, mean over units")
        bar = fig.colorbar(mapper, ax=list(panels), pad=0.015, fraction=0.03)
        bar.set_label("layer")
        bar.locator = mpl.ticker.MaxNLocator(8, integer=True)
        bar.update_ticks()
        bar.outline.set_visible(False)
        return style.svg(fig)


def _curves(axes: Axes, values: np.ndarray, layers: Sequence[int], mapper) -> None:
    """Draw one line a layer."""
    style.zero_line(axes)
    for layer, curve in zip(layers, values, strict=True):
        axes.plot(np.arange(len(curve)), curve, color=mapper.to_rgba(layer), linewidth=1.2)
    axes.set_xlim(0, values.shape[1] - 1)
