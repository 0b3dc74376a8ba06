"""Classes of the rows that inner folds leave out: many labels and values of C at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bids_brainlm.numerics import _logistic_newton as newton
from bids_brainlm.numerics import logistic, scaling
from bids_brainlm.numerics.folds import Fold

_SINGLE = 6e-6  # error of decision values in float32, as a share of the largest
_DOUBLE = 1e-9
_FIRST_STEPS = 6
_MOST_STEPS = 100
_ERROR_OF_ALL = 3e-3  # of decision values of fits to all rows
_C_RANGE = (1e-8, 1e4)
_SCALE_RANGE = (1e-6, 1e6)
_RATIO_RANGE = (1e-2, 1e2)


@dataclass(frozen=True)
class Classes:
    """Result of `classes`.

    Attributes
    ----------
    inner : array of bool, shape (n_C, n_folds, n_labels, n_rows)
        Whether the label is predicted, in the rows that a fold leaves out.
    coef : array, shape (n_C, n_labels, n_features)
        Weights of fits to all rows, roughly: where an exact fit can start.
    intercept : array, shape (n_C, n_labels)
        Their intercepts.
    """

    inner: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


def can_solve(
    features: np.ndarray,
    inner: Sequence[Fold],
    C: np.ndarray,
    *,
    standardise: bool,
    penalise_intercept: bool,
) -> bool:
    """Tell whether `classes` can solve a problem.

    Parameters
    ----------
    features, inner, C, standardise, penalise_intercept
        As in `classes`.

    Returns
    -------
    bool
        False where the penalty of a fold is not diagonal in the coordinates of all rows, or
        numbers are so large or small that float32 may have too few digits.
    """
    if (standardise and penalise_intercept) or C.min() < _C_RANGE[0] or C.max() > _C_RANGE[1]:
        return False
    sd = scaling.fit(features, np.arange(len(features))).sd
    if standardise:
        ratios = np.array([scaling.fit(features, fold.train).sd for fold in inner]) / sd
        return bool((ratios >= _RATIO_RANGE[0]).all() and (ratios <= _RATIO_RANGE[1]).all())
    low, high = _SCALE_RANGE
    return bool((sd >= low).all() and (sd <= high).all() and np.abs(features).max() <= high)


def classes(
    features: np.ndarray,
    labels: np.ndarray,
    inner: Sequence[Fold],
    usable: np.ndarray,
    C: np.ndarray,
    *,
    standardise: bool,
    penalise_intercept: bool,
) -> Classes:
    """Predict the classes that inner folds leave out, for every label and value of C.

    Parameters
    ----------
    features : array, shape (n_rows, n_features)
        Training rows of an outer fold, as they come.
    labels : array of bool, shape (n_rows, n_labels)
        Labels of the same rows.
    inner : sequence of Fold
        Positions within the rows.
    usable : array of bool, shape (n_folds, n_labels)
        Which folds a label takes part in; others stay False.
    C : array, shape (n_C,)
        Inverse penalties, increasing.
    standardise, penalise_intercept : bool
        See `decoding.decode`.

    Returns
    -------
    Classes
        Weights are those of features that are scaled by all rows, if ``standardise``.

    Notes
    -----
    The classes are those of the minima that `logistic.fit` finds on each inner fold's own
    scaled features. All fits are solved in the same coordinates, so that one matrix product
    serves them all: where a fold scales a feature by another standard deviation, its weight
    has another penalty, and the free intercept takes up the means.

    Newton steps by conjugate gradients, from the minimum at the last C, moved as the fit to
    all rows moved. If a step that leaves a share f of its residual changes decision values by
    d at most, their error after it is about ``d (d / 2 + f)``, plus that of the digits. A fit
    ends when every decision value that is asked for is 10 times as far from 0. In 9000 fits of
    simulated heads and of heads of MiniLM the largest error was 3.3 times the estimate, and
    every class was that of a fit to a tolerance of 1e-10.
    Steps are made in float32. A fit that comes to the end of its digits, or takes many steps,
    is finished with gradients in float64.
    """
    rows, ridge, scaler = _coordinates(features, inner, standardise, penalise_intercept)
    full, nested = _batches(rows, labels, inner, usable)
    found = np.zeros((C.size, len(inner), labels.shape[1], len(labels)), dtype=bool)
    weights = np.zeros((C.size, labels.shape[1], rows.exact.shape[1]))
    fold, label = nested.fold, nested.label
    unsure = []
    with np.errstate(all="ignore"):
        for index, value in enumerate(C):
            full.ridge[:] = ridge[0] / value
            nested.ridge[:] = (ridge[1:] / value)[fold]
            before = full.w
            left = _first(rows, full)
            full.w[left], full.eta[left] = _last(rows, full.some(left))
            nested.w = nested.w + (full.w - before)[label]
            nested.eta = nested.w @ rows.exact_t
            left = _first(rows, nested)
            found[index, fold, label] = nested.eta > 0
            weights[index] = full.w
            unsure.append((left, nested.some(left)))
        _, eta = _last(rows, _joined([batch for _, batch in unsure]))
    index = np.repeat(np.arange(C.size), [left.size for left, _ in unsure])
    left = np.concatenate([left for left, _ in unsure])
    found[index, fold[left], label[left]] = eta > 0
    coef, intercept = weights[..., :-1], weights[..., -1]
    if not standardise:
        coef = coef / scaler.sd
        intercept = intercept - coef @ scaler.mean
    return Classes(found, coef, intercept)


def _coordinates(
    features: np.ndarray, inner: Sequence[Fold], standardise: bool, penalise_intercept: bool
) -> tuple[newton.Rows, np.ndarray, scaling.Scaler]:
    """Scale by all rows; the penalty's curvature at C = 1 for all rows and for each fold."""
    n_rows, n_features = features.shape
    scaler = scaling.fit(features, np.arange(n_rows))
    if penalise_intercept:
        scaler = replace(scaler, mean=np.zeros(n_features))
    scaled = scaling.apply(features, scaler)
    ridge = np.ones((1 + len(inner), n_features + 1))
    if standardise:
        ridge[1:, :-1] = [scaling.fit(scaled, fold.train).sd ** 2 for fold in inner]
    else:
        ridge[:, :-1] = 1.0 / scaler.sd**2
    if not penalise_intercept:
        ridge[:, -1] = 0.0
    return newton.make_rows(np.column_stack([scaled, np.ones(n_rows)])), ridge, scaler


def _batches(
    rows: newton.Rows, labels: np.ndarray, inner: Sequence[Fold], usable: np.ndarray
) -> tuple[newton.Batch, newton.Batch]:
    """Fits to all rows, one a label, and those of inner folds, before the first step."""
    n_rows, n_terms = rows.exact.shape
    target = np.ascontiguousarray(labels.T, dtype=np.float64)
    fold, label = np.nonzero(usable)
    weight = np.zeros((fold.size, n_rows))
    beyond = np.full((fold.size, n_rows), np.inf)
    for number, part in enumerate(inner):
        own = np.flatnonzero(fold == number)
        some = labels[np.ix_(part.train, label[own])]
        weight[np.ix_(own, part.train)] = logistic.balanced_weights(some).T
        beyond[np.ix_(own, part.test)] = 0.0

    def start(n: int) -> list[np.ndarray]:
        """Weights of 0 and their decision values."""
        return [np.zeros((n, n_terms)), np.zeros((n, n_rows))]

    everyone = np.arange(len(target))
    weight_of_all = np.ascontiguousarray(logistic.balanced_weights(labels).T)
    full = newton.Batch(
        *start(len(target)), target, weight_of_all, np.zeros((len(target), n_terms)),
        np.full(target.shape, newton.MARGIN * _ERROR_OF_ALL), everyone, 0 * everyone,
    )  # fmt: skip
    nested = newton.Batch(
        *start(fold.size), target[label], weight, np.zeros((fold.size, n_terms)), beyond, label,
        fold,
    )  # fmt: skip
    return full, nested


def _first(rows: newton.Rows, batch: newton.Batch) -> np.ndarray:
    """Make steps in float32; returns the fits whose classes are not certain."""
    some = batch.some(slice(None), np.float32)
    batch.w, batch.eta, certain = (
        part.astype(np.float64) if part.dtype == np.float32 else part
        for part in newton.descend(rows, some, _SINGLE, _FIRST_STEPS)
    )
    return np.flatnonzero(~certain)


def _last(rows: newton.Rows, batch: newton.Batch) -> tuple[np.ndarray, np.ndarray]:
    """Make steps with gradients in float64; weights and decision values."""
    batch.eta = batch.w @ rows.exact_t
    w, eta, _ = newton.descend(rows, batch, _DOUBLE, _MOST_STEPS)
    return w, eta


def _joined(batches: Sequence[newton.Batch]) -> newton.Batch:
    """Put batches into one."""
    names = vars(batches[0])
    return newton.Batch(**{n: np.concatenate([vars(b)[n] for b in batches]) for n in names})
