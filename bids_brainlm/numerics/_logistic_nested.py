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
_STEPS_OF_ALL = 12  # of fits to all rows
_MOST_STEPS = 100
_ERROR_OF_ALL = 3e-3  # of decision values of fits to all rows
_LOOSE = 0.03  # margins of fits that only have to tell which C may be the best
_LESS_LOOSE = 0.006
_AHEAD = 0.6  # share of its last move that the fit to all rows starts with
_SAME = 1e-12  # sums of scores that differ by less are equal
_OTHER = 1e-9  # that differ by more are not
_C_RANGE = (1e-8, 1e4)
_SCALE_RANGE = (1e-6, 1e6)
_RATIO_RANGE = (1e-2, 1e2)


@dataclass(frozen=True)
class Classes:
    """Result of `classes`.

    Attributes
    ----------
    inner : array of bool, shape (n_C, n_folds, n_labels, n_rows)
        Whether the label is predicted, in the rows that a fold leaves out; roughly where C is
        no contender.
    coef : array, shape (n_C, n_labels, n_features)
        Weights of fits to all rows, roughly: where an exact fit can start.
    intercept : array, shape (n_C, n_labels)
        Their intercepts.
    contenders : array of bool, shape (n_C, n_labels)
        Which values of C can have the best score; all without ``only_best``.
    """

    inner: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    contenders: np.ndarray


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
    only_best: bool = False,
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
    only_best : bool
        Leave values of C as soon as their score cannot be the best; see Notes.

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
    all rows moved and once more as the fold's own steps moved it at the last C. If a step that
    leaves a share f of its residual changes decision values by d at most, their error after it
    is about ``d (d / 2 + f)``, plus that of the digits. The margin is 10 times the error:
    classes of rows that are farther from 0 are certain. A fit ends when this holds for every
    row that is asked for. In 40,000 fits of simulated heads (scaled, as they come, with a
    penalised intercept, with shuffled folds) the largest error in rows that are asked for was
    3.6 times the estimate, and no class that was held to be certain was that of the other
    side of a fit to the end of float64's digits.
    Steps are made in float32. A fit that comes to the end of its digits, or takes many steps,
    is finished with gradients in float64.

    With ``only_best`` fits end early, where the margin is 3 % of the largest decision value.
    The classes that are certain bound the balanced accuracy of each C from below and above.
    A C is ruled out if another's lower bound is above its upper bound, or a smaller one's is
    equal to it, as the smallest of the best is chosen. Fits that are not certain go on for the
    other values of C only, to 0.6 % and then to the end. So the choice is that of all classes.
    """
    rows, ridge, scaler = _coordinates(features, inner, standardise, penalise_intercept)
    full, nested = _batches(rows, labels, inner, usable)
    weights = np.zeros((C.size, labels.shape[1], rows.exact.shape[1]))
    path = _Path(rows, nested, ridge[1:], C, labels.shape[1], only_best)
    fold, label = nested.fold, nested.label
    w, own = nested.w, 0.0 * nested.w
    with np.errstate(all="ignore"):
        for index, value in enumerate(C):
            full.ridge[:] = ridge[0] / value
            before = full.w
            if index > 1:
                full.w = full.w + _AHEAD * (full.w - weights[index - 2])
                full.eta = full.w @ rows.exact_t
            _all_rows(rows, full)
            weights[index] = full.w
            start = w + (full.w - before)[label] + own
            path.advance(index, start)
            w = path.w[index]
            own = w - start if index else own
        path.finish()
    found = np.zeros((C.size, len(inner), labels.shape[1], len(labels)), dtype=bool)
    found[:, fold, label] = path.positive
    coef, intercept = weights[..., :-1], weights[..., -1]
    if not standardise:
        coef = coef / scaler.sd
        intercept = intercept - coef @ scaler.mean
    return Classes(found, coef, intercept, path.contenders())


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


class _Path:
    """Inner fits of all values of C: weights, classes, and between what bounds scores are."""

    def __init__(
        self,
        rows: newton.Rows,
        batch: newton.Batch,
        ridge: np.ndarray,
        C: np.ndarray,
        n_labels: int,
        only_best: bool,
    ) -> None:
        n_fits, n_rows = batch.target.shape
        self.rows, self.exact = rows, batch
        self.n_labels, self.only_best = n_labels, only_best
        self.single = batch.some(slice(None), np.float32)
        self.ridge = ridge[batch.fold] / C[:, None, None]
        self.w = np.zeros_like(self.ridge)
        self.positive = np.zeros((C.size, n_fits, n_rows), dtype=bool)
        self.open = np.zeros((C.size, n_fits), dtype=bool)
        self.hard = np.zeros_like(self.open)
        self.score = np.zeros((2, C.size, n_fits))  # lowest and highest
        self.asked, target = batch.beyond == 0, batch.target > 0
        n_asked = [(self.asked & part).sum(axis=1, keepdims=True) for part in (target, ~target)]
        share = np.where(target, *(0.5 / np.maximum(n, 1) for n in n_asked))
        self.share = np.where(self.asked, share, 0.0)  # float64: equal sums have to look equal
        self.sign = np.where(target, 1, -1).astype(np.float32)

    def advance(self, index: int, start: np.ndarray) -> None:
        """Make steps for one value of C, from weights (n_fits, n_terms)."""
        self._descend(index, slice(None), start, _LOOSE if self.only_best else 0.0)

    def finish(self) -> None:
        """Go on with fits whose classes matter and are not certain, in float64 in the end."""
        for loose in (_LESS_LOOSE, 0.0, None):
            index, fit = np.nonzero(self.open & self.contenders()[:, self.exact.label])
            if index.size and (self.only_best or loose is None):
                self._descend(index, fit, self.w[index, fit], loose)

    def _descend(
        self,
        index: int | np.ndarray,
        fit: slice | np.ndarray,
        w: np.ndarray,
        loose: float | None,
    ) -> None:
        """Make steps in float32, or, without ``loose``, in float64."""
        batch = (self.exact if loose is None else self.single).some(fit)
        dtype = batch.w.dtype
        batch.w, batch.eta = w.astype(dtype), (w @ self.rows.exact_t).astype(dtype)
        batch.ridge = self.ridge[index, fit].astype(dtype)
        digits, n_steps = (_DOUBLE, _MOST_STEPS) if loose is None else (_SINGLE, _FIRST_STEPS)
        found = newton.descend(
            self.rows, batch, digits, n_steps, loose=loose or 0.0, hard=self.hard[index, fit]
        )
        self._keep(index, fit, found, loose is None)

    def _keep(
        self,
        index: int | np.ndarray,
        fit: slice | np.ndarray,
        found: newton.Found,
        is_last: bool,
    ) -> None:
        """Take weights and classes, and bound the scores."""
        eta, asked, share = found.eta, self.asked[fit], self.share[fit]
        margin = np.zeros_like(found.margin) if is_last else found.margin
        margin = margin[:, None].astype(eta.dtype)
        self.w[index, fit] = found.w
        self.positive[index, fit] = eta > 0
        self.open[index, fit] = (~(np.abs(eta) >= margin) & asked).any(axis=1)
        self.hard[index, fit] = found.hard | np.isinf(found.margin)
        right = eta * self.sign[fit]
        for place, is_right in enumerate((right > margin, ~(right < -margin))):
            self.score[place, index, fit] = np.einsum("ij,ij->i", share, is_right)

    def contenders(self) -> np.ndarray:
        """Tell which values of C can still have the best score, (n_C, n_labels)."""
        total = np.zeros((*self.score.shape[:2], self.n_labels))
        np.add.at(total, (..., self.exact.label), self.score)
        low, high = total
        if not self.only_best:
            return np.ones(low.shape, dtype=bool)
        before = np.full_like(low, -np.inf)
        before[1:] = np.maximum.accumulate(low, axis=0)[:-1]
        return (high > before + _SAME) & (high >= low.max(axis=0) - _OTHER)


def _all_rows(rows: newton.Rows, batch: newton.Batch) -> None:
    """Make steps in float32 with the fits to all rows."""
    found = newton.descend(rows, batch.some(slice(None), np.float32), _SINGLE, _STEPS_OF_ALL)
    batch.w, batch.eta = found.w.astype(np.float64), found.eta.astype(np.float64)
