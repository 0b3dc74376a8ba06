"""Folds for decoding, and which labels are frequent enough for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.numerics import folds

FEWEST_ROWS = 10
_FEWEST_TRAINING = 5
_FEWEST_INNER = 2


@dataclass(frozen=True)
class Plan:
    """Outer and inner folds, fixed before any data are seen.

    Attributes
    ----------
    rows : array of int, shape (n_rows,)
        Rows of the story grid that take part, such as the TRs with words.
    outer : tuple of Fold
        Positions within ``rows``.
    inner : tuple of tuple of Fold
        Positions within the training rows, for each outer fold.
    shuffled : bool
        Whether rows were dealt to folds at random.
    """

    rows: np.ndarray
    outer: tuple[folds.Fold, ...]
    inner: tuple[tuple[folds.Fold, ...], ...]
    shuffled: bool


@dataclass(frozen=True)
class Usable:
    """Which labels can be decoded in which folds.

    Attributes
    ----------
    outer : array of bool, shape (n_folds, n_labels)
        Outer folds that are scored; none where the label is not decoded.
    inner : array of bool, shape (n_folds, n_inner, n_labels)
        Inner folds that take part in the choice of C.
    reasons : tuple of str
        Why a label is not decoded, with the counts; empty where it is.
    """

    outer: np.ndarray
    inner: np.ndarray
    reasons: tuple[str, ...]


def make_plan(
    rows: np.ndarray,
    n_folds: int,
    n_inner: int,
    gap: int,
    *,
    shuffled: bool = False,
    seed: int = 0,
) -> Plan:
    """Fix the folds of nested cross-validation.

    Parameters
    ----------
    rows : array of int, shape (n_rows,)
        Sorted rows of the story grid that take part; holes are silent TRs.
    n_folds, n_inner : int
        Number of outer and inner folds.
    gap : int
        TRs of the grid left out on both sides of a test block, outer and inner. Silent TRs
        count. Unused with ``shuffled``.
    shuffled : bool
        Deal rows to folds at random (the paper) instead of in contiguous blocks.
        Neighbours of test rows are then in the training rows.
    seed : int
        For ``shuffled``. One deal serves all heads, labels and values of C.

    Returns
    -------
    Plan

    Raises
    ------
    NumericalError
        The rows are not increasing integers, or a fold is left with too few rows.
    """
    rows = np.asarray(rows)
    rng = np.random.default_rng([seed, 0xDEC0DE])

    def split(some: np.ndarray, n: int) -> tuple[folds.Fold, ...]:
        """Positions within the rows given."""
        blocks = folds.contiguous_folds(some, n, 0 if shuffled else gap)
        if not shuffled:
            return tuple(folds.positions(block, some) for block in blocks)
        order = rng.permutation(some.size)
        tests = [np.sort(test) for test in np.array_split(order, n)]
        return tuple(
            folds.Fold(train=np.setdiff1d(order, test, assume_unique=True), test=test)
            for test in tests
        )

    outer = split(rows, n_folds)
    inner = tuple(split(rows[np.sort(fold.train)], n_inner) for fold in outer)
    return Plan(rows=rows, outer=outer, inner=inner, shuffled=shuffled)


def usable_folds(labels: np.ndarray, plan: Plan, *, fewest_rows: int = FEWEST_ROWS) -> Usable:
    """Find out which labels are frequent enough, and in which folds.

    Parameters
    ----------
    labels : array of bool, shape (n_rows, n_labels)
        Labels of the plan's rows.
    plan : Plan
        Folds.
    fewest_rows : int
        Fewest rows with, and fewest rows without the label.

    Returns
    -------
    Usable

    Notes
    -----
    A label is decoded if at least ``fewest_rows`` rows have it, as many lack it, and more
    than half of the outer folds can be scored. An outer fold can be scored if its test rows
    have both classes, its training rows at least 5 of each, and if C can be chosen: at least
    one inner fold has both classes in the rows that it predicts and 2 rows of each class in
    those it is fitted on. Other folds are left out of the mean.
    """
    labels = np.asarray(labels, dtype=bool)
    n_labels = labels.shape[1]
    outer = np.zeros((len(plan.outer), n_labels), dtype=bool)
    inner = np.zeros((len(plan.outer), max(map(len, plan.inner)), n_labels), dtype=bool)
    for k, fold in enumerate(plan.outer):
        train = labels[fold.train]
        for j, part in enumerate(plan.inner[k]):
            inner[k, j] = _rarer(train[part.test]) >= 1
            inner[k, j] &= _rarer(train[part.train]) >= _FEWEST_INNER
        outer[k] = (_rarer(labels[fold.test]) >= 1) & (_rarer(train) >= _FEWEST_TRAINING)
        outer[k] &= inner[k].any(axis=0)
    reasons = []
    for label in range(n_labels):
        reason = _reason(labels[:, label], int(outer[:, label].sum()), len(outer), fewest_rows)
        outer[:, label] &= not reason
        reasons.append(reason)
    inner &= outer[:, None]
    return Usable(outer=outer, inner=inner, reasons=tuple(reasons))


def _rarer(labels: np.ndarray) -> np.ndarray:
    """Rows of the rarer class, for each label."""
    n_positive = labels.sum(axis=0)
    return np.minimum(n_positive, len(labels) - n_positive)


def _reason(label: np.ndarray, n_scored: int, n_folds: int, fewest_rows: int) -> str:
    """Say why a label is not decoded; empty where it is."""
    n_positive, n_rows = int(label.sum()), label.size
    if n_positive < fewest_rows:
        return f"{n_positive} of {n_rows} rows have it, expected at least {fewest_rows}"
    if n_rows - n_positive < fewest_rows:
        return (
            f"{n_rows - n_positive} of {n_rows} rows are without it, expected at least "
            f"{fewest_rows}"
        )
    if 2 * n_scored <= n_folds:
        return (
            f"{n_scored} of {n_folds} folds have enough rows with and without it, expected more "
            f"than half ({n_positive} of {n_rows} rows have it)"
        )
    return ""
