"""What heat maps of the report share: sizes, names, marks, colour bars and keys.

Notes
-----
Heat maps of signed numbers are blue and red around a white zero, which look alike in grey
print; so marks of q <= 0.05 are filled above zero and open below it. Cells without a value
are hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LEVEL = 0.05
"""Marks stand where q is at most this."""

SIGNED = "RdBu_r"
_CHARACTER = 0.072  # inches of a character of a tick label
_HATCH = "#8b929b"


def short_name(name: str, limit: int = 24) -> str:
    """Shorten a long name in its middle and take away mathematics markup."""
    if len(name) > limit:
        name = f"{name[: limit // 2]}…{name[len(name) - limit // 2 + 1 :]}"
    return name.replace("$", r"\$")


def symmetric_limit(values: np.ndarray) -> float:
    """Return the largest finite size of the values; 1 where there is none or all are 0."""
    sizes = np.abs(values[np.isfinite(values)])
    top = float(sizes.max(initial=0.0))
    return style.scale_end(top if top > 0 else 1.0)


def heat_figure(
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    extra: float = 0.0,
    column_width: float = 0.5,
    row_limit: int = 24,
) -> tuple[Figure, float]:
    """Return an empty figure that fits a heat map, and the width of a column.

    Parameters
    ----------
    rows, columns : sequence of str
        Names along the sides.
    extra : float
        Further width, inches, for what stands beside the map.
    column_width : float
        Widest useful column, inches.
    row_limit : int
        Longest row name, characters.

    Returns
    -------
    tuple of (Figure, float)
        The figure and the width of a column, inches.
    """
    longest = max(len(short_name(name, row_limit)) for name in rows) * _CHARACTER
    beside = longest + (0.3 if _is_flat(len(rows)) else 1.1) + extra
    width = float(np.clip(beside + column_width * len(columns), 4.6, style.WIDTH))
    slot = (width - beside) / len(columns)
    names = max(len(short_name(name)) for name in columns) * _CHARACTER
    below = 0.25 if names < slot else (0.75 * names + 0.15 if slot > 0.24 else names)
    bar = 0.75 if _is_flat(len(rows)) else 0.0
    return style.figure(0.75 + below + bar + 0.2 * max(len(rows), 2), width=width), slot


def _is_flat(n_rows: int) -> bool:
    """Tell whether a colour bar and its name find no room beside so few rows."""
    return n_rows < 10


def draw_heat(
    axes: Axes,
    values: np.ndarray,
    q: np.ndarray | None = None,
    *,
    scale: tuple[float, float],
    cmap: str = SIGNED,
    size: float = 4.0,
) -> AxesImage:
    """Draw values as colours with marks where q is small; cells without a value are hatched.

    Parameters
    ----------
    axes : Axes
    values : array, shape (n_rows, n_columns)
    q : array, shape (n_rows, n_columns), or None
        Marks stand where it is at most 0.05; NaN is not marked.
    scale : tuple of float
        Ends of the colours.
    cmap : str
        Name of the colours.
    size : float
        Size of a mark, points.

    Returns
    -------
    AxesImage
        What the colour bar needs.
    """
    axes.patch.set(hatch="/////", edgecolor=_HATCH, facecolor="white", linewidth=0)
    shown = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=style.colours(cmap),
        vmin=scale[0],
        vmax=scale[1],
        aspect="auto",
        interpolation="none",
    )
    if q is not None:
        dark = shown.to_rgba(np.nan_to_num(values))[..., :3] @ (0.299, 0.587, 0.114) < 0.5
        for row, column in np.argwhere((q <= LEVEL) & np.isfinite(values)):
            colour = "white" if dark[row, column] else style.INK
            fill = colour if values[row, column] >= 0 else "none"
            axes.plot(
                column,
                row,
                "o",
                markersize=size,
                markerfacecolor=fill,
                markeredgecolor=colour,
                markeredgewidth=min(0.9, 0.25 * size),
            )
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return shown


def name_rows(axes: Axes, names: Sequence[str], limit: int = 24) -> None:
    """Write the names of rows, top to bottom, each of at most ``limit`` characters."""
    axes.set_yticks(range(len(names)), [short_name(name, limit) for name in names], fontsize=8)


def name_columns(axes: Axes, names: Sequence[str], slot: float) -> None:
    """Write the names of columns, level, slanted or upright as the slot (inches) allows."""
    short = [short_name(name) for name in names]
    fits = max(map(len, short)) * _CHARACTER < slot
    angle = 0 if fits else (40 if slot > 0.24 else 90)
    axes.set_xticks(
        range(len(names)),
        short,
        fontsize=8,
        rotation=angle,
        ha="center" if angle in (0, 90) else "right",
        va="center" if angle == 90 else "top",
        rotation_mode="anchor" if angle == 40 else "default",
    )
    if angle == 90:
        for text in axes.get_xticklabels():
            text.set_verticalalignment("top")


def draw_bar(fig: Figure, shown: AxesImage, axes: Axes | list[Axes], label: str) -> None:
    """Draw a colour bar beside the map, or under it where there are few rows."""
    flat = _is_flat(shown.get_array().shape[0])
    where = {"location": "bottom", "aspect": 32, "shrink": 0.7} if flat else {"aspect": 28}
    bar = fig.colorbar(shown, ax=axes, pad=0.015, fraction=0.08 if flat else 0.04, **where)
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.locator = _few_ticks(3 if flat else 6)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _few_ticks(n_steps: int) -> object:
    """Return a locator that leaves room between numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=n_steps, symmetric=True)


def draw_key(fig: Figure, values: np.ndarray, q: np.ndarray | None) -> None:
    """Explain marks and hatches above the figure, where there are any."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    mark = {"linestyle": "none", "marker": "o", "markeredgecolor": style.INK, "markersize": 4.5}
    seen = np.zeros(values.shape, bool) if q is None else (q <= LEVEL) & np.isfinite(values)
    handles: list[object] = []
    if (seen & (values >= 0)).any():
        both = bool((values < 0).any())
        text = "q ≤ 0.05, above 0" if both else "q ≤ 0.05"
        handles.append(Line2D([], [], markerfacecolor=style.INK, label=text, **mark))
    if (seen & (values < 0)).any():
        handles.append(Line2D([], [], markerfacecolor="none", label="q ≤ 0.05, below 0", **mark))
    if not np.isfinite(values).all():
        handles.append(
            Patch(hatch="/////", edgecolor=_HATCH, facecolor="white", linewidth=0, label="no value")
        )
    if handles:
        fig.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8)
