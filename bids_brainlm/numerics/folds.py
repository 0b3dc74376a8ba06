"""Contiguous cross-validation folds with a gap between training and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError

_HINT = "Use fewer folds with --cv or a shorter --gap, or check the length of the story."


@dataclass(frozen=True)
class Fold:
    """One split.

    Attributes
    ----------
    train : array of int, shape (n_train,)
        Sorted rows to fit on.
    test : array of int, shape (n_test,)
        Sorted rows to predict.
    """

    train: np.ndarray
    test: np.ndarray


def contiguous_folds(rows: np.ndarray, n_folds: int, gap: int, *, min_rows: int = 3) -> list[Fold]:
    """Split rows into contiguous test blocks and the training rows that are far enough.

    Parameters
    ----------
    rows : array of int, shape (n_rows,)
        Sorted row numbers (TRs of the story grid); may have holes, as the training rows of
        an outer fold have.
    n_folds : int
        Number of test blocks, at least 2.
    gap : int
        Training rows are more than ``gap`` TRs away from every test row, on both sides.
        0 keeps every row that is not tested.
    min_rows : int
        Fewest training rows, and fewest test rows, of a fold.

    Returns
    -------
    list of Fold
        In order of the test blocks. ``train`` and ``test`` hold row *numbers*, that is,
        values of ``rows``; see `positions` for indices into an array that holds ``rows``.

    Raises
    ------
    NumericalError
        The rows are not increasing integers, the settings make no sense, or a fold is left
        with fewer than ``min_rows`` training or test rows.

    Notes
    -----
    Test blocks partition ``rows`` in order; the first ``n_rows % n_folds`` blocks have one
    row more. Distance is counted in TRs (row numbers), not in positions, so that a hole
    between two rows counts as time.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or (np.diff(rows) <= 0).any():
        raise NumericalError("Rows for folds are not increasing integers.", hint=_HINT)
    if n_folds < 2 or gap < 0:
        raise NumericalError(
            f"Found {n_folds} folds and a gap of {gap} TRs, expected at least 2 folds and a gap "
            "of at least 0 TRs.",
            hint=_HINT,
        )
    folds = []
    for number, test in enumerate(np.array_split(rows, n_folds), start=1):
        train = rows[_distance(rows, test) > gap] if test.size else rows
        if min(train.size, test.size) < min_rows:
            raise NumericalError(
                f"Fold {number} of {n_folds} over {rows.size} rows with a gap of {gap} TRs has "
                f"{train.size} training and {test.size} test rows, expected at least "
                f"{min_rows} of each.",
                hint=_HINT,
            )
        folds.append(Fold(train=train, test=test))
    return folds


def positions(fold: Fold, rows: np.ndarray) -> Fold:
    """Translate row numbers into indices of an array whose rows are ``rows``.

    Parameters
    ----------
    fold : Fold
        Row numbers, as `contiguous_folds` gives them.
    rows : array of int, shape (n_rows,)
        Sorted row numbers of the array, such as the outer training rows.

    Returns
    -------
    Fold
        Indices into ``rows``.

    Raises
    ------
    NumericalError
        The fold has a row that is not among ``rows``.
    """
    rows = np.asarray(rows)
    parts = []
    for part in (fold.train, fold.test):
        index = np.searchsorted(rows, part)
        if part.size and (index[-1] >= rows.size or (rows[index] != part).any()):
            raise NumericalError("A fold has rows that the array does not have.", hint=_HINT)
        parts.append(index)
    return Fold(*parts)


def ranges(rows: np.ndarray) -> list[tuple[int, int]]:
    """Describe rows by their runs of consecutive numbers.

    Parameters
    ----------
    rows : array of int, shape (n_rows,)
        Sorted row numbers.

    Returns
    -------
    list of (int, int)
        First and last row of each run, both inclusive.
    """
    rows = np.asarray(rows)
    if rows.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts = rows[np.r_[0, breaks + 1]]
    lasts = rows[np.r_[breaks, rows.size - 1]]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


def _distance(rows: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Distance in TRs from each row to the nearest test row."""
    after = np.searchsorted(test, rows).clip(0, test.size - 1)
    before = (after - 1).clip(0)
    return np.minimum(np.abs(rows - test[after]), np.abs(rows - test[before]))
