"""Models that are fitted on some stories or runs and tested on one that they never saw.

Blocks of rows (one a story of a run) are put on one axis, with so many empty rows between them
that neither delays nor gaps reach from one to the next. The first block is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, folds, ridge

_HINT = "Check the lengths of the runs, or leave this out with --across none."


def places(lengths: Sequence[int], apart: int) -> list[slice]:
    """Put blocks of rows on one axis.

    Parameters
    ----------
    lengths : sequence of int
        Rows of each block.
    apart : int
        Empty rows between blocks: at least the longest delay, and the gap.

    Returns
    -------
    list of slice
        Rows of each block on the common axis.
    """
    found, start = [], 0
    for length in lengths:
        found.append(slice(start, start + length))
        start += length + apart
    return found


def stack(parts: Sequence[np.ndarray], where: Sequence[slice]) -> np.ndarray:
    """Put series of blocks on their common axis.

    Parameters
    ----------
    parts : sequence of array, shape (n_trs of the block, n_columns)
    where : sequence of slice
        From `places`.

    Returns
    -------
    array, shape (n_rows, n_columns)
        0 (or False) between blocks.
    """
    first = np.asarray(parts[0])
    whole = np.zeros((where[-1].stop, *first.shape[1:]), first.dtype)
    for part, rows in zip(parts, where, strict=True):
        whole[rows] = part
    return whole


def stack_bands(
    blocks: Sequence[Sequence[design.Band]], where: Sequence[slice]
) -> list[design.Band]:
    """Put the bands of blocks on their common axis.

    Parameters
    ----------
    blocks : sequence of sequence of Band
        Bands of each block, the same names in the same order.
    where : sequence of slice
        From `places`.

    Returns
    -------
    list of Band
        Rows between blocks have no values.

    Raises
    ------
    NumericalError
        Blocks differ in their bands, or in the columns of a band.
    """
    described = [[(band.name, band.features.shape[1]) for band in block] for block in blocks]
    if any(one != described[0] for one in described):
        sets = [set(one) for one in described]
        unlike = sorted(set.union(*sets) - set.intersection(*sets))
        shown = ", ".join(f"{name} with {n} columns" for name, n in unlike)
        raise NumericalError(
            f"Stories differ in their bands: {shown}; expected the same in all.",
            hint="Leave the band out of --bands or --features, or use --across none.",
        )
    stacked = []
    for several in zip(*blocks, strict=True):
        one = several[0]
        features = stack([band.features for band in several], where)
        valid = stack([band.valid for band in several], where)
        stacked.append(design.Band(one.name, features, valid, one.scaled))
    return stacked


def make_plan(
    where: Sequence[slice],
    sources: Sequence[str],
    n_bands: int,
    settings: Mapping[str, object],
    texts: Sequence[str] | None = None,
) -> crossval.Plan:
    """Fix training and test rows, inner folds, band weights and penalties.

    Parameters
    ----------
    where : sequence of slice
        From `places`; the first block is tested, all others are trained on.
    sources : sequence of str
        What each block belongs to and is left out with: a story, or a run.
    n_bands : int
    settings : mapping
        ``inner_cv``, ``gap`` (TRs), ``trim`` (TRs, of every block), ``n_iter``, ``alphas``,
        ``delays``, ``seed``, ``selection_score``, ``test_scaling``, ``intercept``,
        ``kernel_scaling``; as in `crossval.make_plan`.
    texts : sequence of str, optional
        What was heard in each block; rows of one text are in step from its start. Default
        ``sources``.

    Returns
    -------
    Plan
        With one outer fold.

    Raises
    ------
    NumericalError
        Nothing to train on, blocks that lie too near to each other, or too few rows.

    Notes
    -----
    Inner folds obey the same rule as the outer one: with several training sources each inner
    fold leaves out whole sources, dealt to at most ``inner_cv`` folds of about equal length.
    With one, inner folds are contiguous parts of it with the gap; a text that was heard more
    than once is divided where its longest hearing is, so that the same words of all hearings
    are left out together.
    """
    first, last = settings["trim"]
    rows = [np.arange(place.start + first, place.stop - last) for place in where]
    gap, delays = int(settings["gap"]), tuple(settings["delays"])
    _check(where, rows, sources, max(gap, *delays))
    train = np.sort(np.concatenate(rows[1:]))
    held = _inner(
        list(zip(rows, where, texts or sources, strict=True))[1:],
        sources[1:],
        int(settings["inner_cv"]),
        gap,
    )
    inner = [folds.positions(fold, train) for fold in held]
    draws = np.random.default_rng([int(settings["seed"]), n_bands, 0])
    return crossval.Plan(
        [folds.Fold(train, rows[0])],
        [inner],
        [ridge.sample_gammas(n_bands, int(settings["n_iter"]), draws)],
        np.asarray(settings["alphas"], float),
        delays,
        str(settings["selection_score"]),
        str(settings["test_scaling"]),
        settings["intercept"] == "train",
        settings["kernel_scaling"] == "trace",
    )


def _check(
    where: Sequence[slice], rows: Sequence[np.ndarray], sources: Sequence[str], apart: int
) -> None:
    """Raise where blocks cannot be trained and tested on."""
    if len(where) < 2 or sources[0] in sources[1:]:
        raise NumericalError(
            f"Found {len(where) - 1} blocks to train on for {sources[0]}, of {sources[1:]}; "
            "expected at least one, and none of what is tested.",
            hint=_HINT,
        )
    if any(b.start - a.stop < apart for a, b in pairwise(where)):
        raise NumericalError(f"Blocks lie fewer than {apart} rows apart.")
    for block, source in zip(rows, sources, strict=True):
        if len(block) < 3:
            raise NumericalError(
                f"{source} has {len(block)} rows after trimming, expected at least 3.", hint=_HINT
            )


def _inner(
    blocks: Sequence[tuple[np.ndarray, slice, str]], sources: Sequence[str], n_inner: int, gap: int
) -> list[folds.Fold]:
    """Divide training rows as the whole was divided; a block is rows, place and text."""
    names = list(dict.fromkeys(sources))
    if len(names) == 1:
        return _together(blocks, n_inner, gap)
    length = {
        name: sum(len(rows) for (rows, _, _), s in zip(blocks, sources, strict=True) if s == name)
        for name in names
    }
    dealt: list[list[str]] = [[] for _ in range(min(n_inner, len(names)))]
    for name in sorted(names, key=lambda n: (-length[n], names.index(n))):
        min(dealt, key=lambda some: sum(length[n] for n in some)).append(name)
    found = []
    for some in dealt:
        tested = [b for (b, _, _), s in zip(blocks, sources, strict=True) if s in some]
        others = [b for (b, _, _), s in zip(blocks, sources, strict=True) if s not in some]
        found.append(folds.Fold(np.sort(np.concatenate(others)), np.sort(np.concatenate(tested))))
    return found


def _together(
    blocks: Sequence[tuple[np.ndarray, slice, str]], n_inner: int, gap: int
) -> list[folds.Fold]:
    """Divide each text of one source into contiguous parts, the same in all of its hearings."""
    longest: dict[str, np.ndarray] = {}
    for rows, place, text in blocks:
        own = rows - place.start
        longest[text] = np.union1d(longest.get(text, own), own)
    parts = {text: folds.contiguous_folds(own, n_inner, gap) for text, own in longest.items()}
    found = []
    for number in range(n_inner):
        train, test = [], []
        for rows, place, text in blocks:
            own = rows - place.start
            train.append(rows[np.isin(own, parts[text][number].train)])
            test.append(rows[np.isin(own, parts[text][number].test)])
        found.append(folds.Fold(np.concatenate(train), np.concatenate(test)))
    return found
