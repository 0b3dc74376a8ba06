"""Figures of the design: words a TR, and which rows train and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.report import style


def words_per_tr(
    counts: np.ndarray,
    *,
    tr: float,
    start: float,
    first_word: float | None = None,
    last_word: float | None = None,
    audio_onset: float | None = None,
) -> bytes:
    """Draw the number of words in each TR of the story window.

    Parameters
    ----------
    counts : array of int, shape (n_trs,)
        Words whose time falls into each TR.
    tr : float
        Repetition time, s.
    start : float
        Time of row 0 from the run's first volume, s.
    first_word, last_word : float, optional
        Onset of the first and offset of the last word, scan time, s.
    audio_onset : float, optional
        Start of the audio file, scan time, s; may be negative.

    Returns
    -------
    bytes
        SVG.
    """
    from matplotlib.ticker import MaxNLocator

    with style.drawing():
        fig = style.figure(2.5)
        axes = fig.subplots()
        edges = start + tr * np.arange(len(counts) + 1)
        top = max(int(counts.max(initial=0)), 1)
        axes.stairs(counts, edges, fill=True, color=style.BLUE, label="words in the TR")
        silent = [(edges[a], edges[b + 1] - edges[a]) for a, b in _runs(counts == 0)]
        axes.broken_barh(
            silent,
            (-0.11 * top, 0.075 * top),
            color=style.ORANGE,
            label="TR without a word",
            linewidth=0,
        )
        marks = [(first_word, "first word starts", "-"), (last_word, "last word ends", "--")]
        for time, label, line in marks:
            if time is not None:
                axes.axvline(time, color=style.INK, linewidth=1.1, linestyle=line, label=label)
        if audio_onset is not None and edges[0] <= audio_onset <= edges[-1]:
            axes.axvline(
                audio_onset, color=style.GREEN, linewidth=1.1, linestyle=":", label="audio starts"
            )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(-0.14 * top, top * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("time from the run's first volume (s)")
        axes.set_ylabel("words per TR")
        fig.legend(loc="outside upper left", ncols=5)
        return style.svg(fig)


def fold_map(
    folds: Sequence[Mapping[str, Sequence[Sequence[int]]]], n_rows: int, trim: Sequence[int]
) -> bytes:
    """Draw which rows of the story train, test or are left out in each outer fold.

    Parameters
    ----------
    folds : sequence of mapping
        ``Train`` and ``Test``: inclusive (first, last) rows of the story grid.
    n_rows : int
        TRs of the story window.
    trim : sequence of int
        TRs left out at the start and at the end.

    Returns
    -------
    bytes
        SVG.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    with style.drawing():
        fig = style.figure(0.9 + 0.27 * max(len(folds), 2))
        axes = fig.subplots()
        for number, fold in enumerate(folds):
            axes.broken_barh(
                [(0, n_rows)],
                (number - 0.36, 0.72),
                facecolor="#f1f2f4",
                edgecolor="#9aa1aa",
                hatch="////",
                linewidth=0.5,
            )
            trimmed = [(0, trim[0]), (n_rows - trim[1], trim[1])]
            axes.broken_barh(
                [bar for bar in trimmed if bar[1]],
                (number - 0.36, 0.72),
                color=style.PALE,
                linewidth=0,
            )
            for part, colour in (("Train", style.SKY), ("Test", style.ORANGE)):
                bars = [(a, b - a + 1) for a, b in fold.get(part, ())]
                axes.broken_barh(bars, (number - 0.36, 0.72), color=colour, linewidth=0)
        axes.set_yticks(range(len(folds)), [str(k + 1) for k in range(len(folds))])
        axes.invert_yaxis()
        axes.set_xlim(0, n_rows)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
        axes.set_ylabel("outer fold")
        axes.set_xlabel("row of the story window (TR)")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        gap = Patch(facecolor="#f1f2f4", edgecolor="#9aa1aa", hatch="////")
        keys = [Patch(color=style.SKY), Patch(color=style.ORANGE), gap, Patch(color=style.PALE)]
        names = ["training", "test", "gap, left out", "trimmed"]
        fig.legend(keys, names, loc="outside upper left", ncols=4)
        return style.svg(fig)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return inclusive (first, last) of each run of true values."""
    padded = np.diff(np.concatenate([[0], mask.astype(int), [0]]))
    return list(zip(np.flatnonzero(padded == 1), np.flatnonzero(padded == -1) - 1, strict=True))
