"""One look for all figures, and bytes that depend on nothing but the data.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers and in grey
print. Figures are drawn without pyplot state.

References
----------
.. [1] Wong (2011), Points of view: Color blindness, doi:10.1038/nmeth.1618
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#E69F00"
INK = "#1b1f24"
GREY = "#6b7280"
PALE = "#d7dbe0"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, INK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

WIDTH = 8.4
"""Width of a figure across the page, inches."""

_RC = {
    "svg.hashsalt": "bids_brainlm",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8b929b",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": INK,
    "path.simplify": True,
    "hatch.linewidth": 0.6,
}


@dataclass
class Remake:
    """A figure that is drawn again, in other looks, and kept as an object.

    Attributes
    ----------
    width, height : float or None
        Inches; None is the size of the report.
    cmap : str or None
        Name of a matplotlib colour map.
    limit : float or None
        End of colour scales that are symmetric around zero.
    is_wanted : bool
        Figures begun while this is false are not drawn; who names the figures sets it.
    figures : list of matplotlib.figure.Figure
        What was drawn; a picture of several parts leaves several.
    used : set of str
        Which of ``cmap`` and ``limit`` a drawing asked for.
    """

    width: float | None = None
    height: float | None = None
    cmap: str | None = None
    limit: float | None = None
    is_wanted: bool = True
    figures: list[Figure] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


_REMAKE: ContextVar[Remake | None] = ContextVar("_REMAKE", default=None)


class _NotWantedError(Exception):
    """Leaves the drawing of a figure that nobody asked for."""


@contextmanager
def remaking(asked: Remake) -> Iterator[Remake]:
    """Let `svg` and `png` keep figures in ``asked`` inside this context and return no bytes.

    Parameters
    ----------
    asked : Remake
        Its looks are those of figures begun inside.

    Yields
    ------
    Remake
        The same.
    """
    token = _REMAKE.set(asked)
    try:
        yield asked
    finally:
        _REMAKE.reset(token)


def colours(name: str) -> str:
    """Return the colour map that was asked for, or the one of the report."""
    asked = _REMAKE.get()
    if asked is None or not asked.is_wanted:
        return name
    asked.used.add("cmap")
    return asked.cmap or name


def scale_end(limit: float) -> float:
    """Return the end of a symmetric colour scale that was asked for, or the one of the report."""
    asked = _REMAKE.get()
    if asked is None or not asked.is_wanted:
        return limit
    asked.used.add("limit")
    return asked.limit or limit


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save inside this context: default matplotlib settings plus the house style.

    A figure that is not wanted (see `Remake`) leaves the context as soon as it is begun.
    """
    try:
        with _house_style():
            yield
    except _NotWantedError:
        return


@contextmanager
def _house_style() -> Iterator[None]:
    """Set matplotlib's defaults and the house style, and bring back what was set before."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcParams.update(
            {
                k: v
                for k, v in mpl.rcParamsDefault.items()
                if k not in ("backend", "interactive", "backend_fallback", "toolbar")
                and not k.startswith("webagg")
            }
        )
        mpl.rcParams.update(_RC)
        yield


def figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, size in inches, that lays itself out."""
    from matplotlib.figure import Figure

    asked = _wanted()
    if asked is not None:
        width, height = asked.width or width, asked.height or height
    return Figure(figsize=(width, height), layout="constrained")


def canvas(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, size in inches, whose axes are put in place by hand.

    Where another width is asked for and no height, the height follows.
    """
    from matplotlib.figure import Figure

    asked = _wanted()
    if asked is not None:
        wide = asked.width or width
        width, height = wide, asked.height or height * wide / width
    return Figure(figsize=(width, height))


def _wanted() -> Remake | None:
    """Return what is asked of the figure that begins; leave its drawing if nobody wants it."""
    asked = _REMAKE.get()
    if asked is not None and not asked.is_wanted:
        raise _NotWantedError
    return asked


def _kept(fig: Figure) -> bool:
    """Keep a figure that is remade; tell whether that is so."""
    asked = _REMAKE.get()
    if asked is None:
        return False
    if asked.width:
        fig.set_figwidth(asked.width)
    if asked.height:
        fig.set_figheight(asked.height)
    asked.figures.append(fig)
    return True


def svg(fig: Figure) -> bytes:
    """Return the figure as SVG without dates, so that equal data give equal bytes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if _kept(fig):
        return b""
    FigureCanvasSVG(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "bids_brainlm"})
    return buffer.getvalue()


def png(fig: Figure, dpi: int = 160) -> bytes:
    """Return the figure as PNG without version stamps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if _kept(fig):
        return b""
    FigureCanvasAgg(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def pdf(fig: Figure, dpi: int = 300) -> bytes:
    """Return the figure as PDF without dates; text stays text (TrueType)."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    FigureCanvasPdf(fig)
    buffer = io.BytesIO()
    stamps = {"CreationDate": None, "Creator": "bids_brainlm", "Producer": None}
    with mpl.rc_context({"pdf.fonttype": 42}):
        fig.savefig(buffer, format="pdf", dpi=dpi, metadata=stamps)
    return buffer.getvalue()


def zero_line(axes: Axes) -> None:
    """Mark zero on the y axis."""
    axes.axhline(0.0, color="#9aa1aa", linewidth=0.8, zorder=0)


def layer_numbers(columns: tuple[str, ...]) -> list[int]:
    """Return the numbers of layer columns (``layer03`` is 3); other columns are counted."""
    known = all(name.startswith("layer") and name[5:].isdigit() for name in columns)
    return [int(name[5:]) for name in columns] if known else list(range(len(columns)))


def layer_ticks(axes: Axes, columns: tuple[str, ...]) -> None:
    """Put a tick at every layer, or at every few when there are many."""
    numbers = layer_numbers(columns)
    step = -(-len(columns) // 13)
    labels = [short_column(name) for name in columns]
    axes.set_xticks(numbers[::step], labels[::step])
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)


def short_column(name: str) -> str:
    """Shorten ``layer03`` to ``3``; other names stay."""
    return str(int(name[5:])) if name.startswith("layer") and name[5:].isdigit() else name
