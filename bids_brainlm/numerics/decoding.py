"""Decode labels of TRs, such as dependencies, from each attention head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _decoding_null as null
from bids_brainlm.numerics import _logistic_nested as nested
from bids_brainlm.numerics import folds, logistic, scaling
from bids_brainlm.numerics.blas import single_threaded
from bids_brainlm.numerics.decoding_plan import FEWEST_ROWS, Plan, Usable, make_plan, usable_folds

__all__ = [
    "C_GRID",
    "Decoding",
    "Plan",
    "Usable",
    "balanced_accuracy",
    "decode",
    "make_plan",
    "usable_folds",
]

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)


@dataclass(frozen=True)
class Decoding:
    """Held-out decoding of each label from each head.

    Attributes
    ----------
    accuracy : array, shape (n_heads, n_labels)
        Balanced accuracy, mean over the folds that were scored; chance is 0.5. NaN where
        the label is not decoded.
    accuracy_by_fold : array, shape (n_heads, n_folds, n_labels)
        NaN in folds that were not scored.
    p, p_fwe : array, shape (n_heads, n_labels)
        Permutation p values, and those by the largest accuracy over the heads of the call,
        for each label. NaN without permutations.
    null_mean : array, shape (n_heads, n_labels)
        Mean accuracy over permutations: above 0.5 where folds leak.
    C_index : array of int, shape (n_heads, n_folds, n_labels)
        Which C was chosen; -1 in folds that were not scored.
    n_positive : array of int, shape (n_labels,)
        Rows that have the label.
    n_scored : array of int, shape (n_labels,)
        Outer folds that were scored.
    reasons : tuple of str
        Why a label is not decoded; empty where it is.
    n_permutations : int
        Number of permutations.
    n_not_converged : int
        Models of outer folds whose search ended at the largest number of steps.
    decision : array, shape (n_heads, n_rows, n_labels), or None
        Held-out decision values, the label is predicted where they are above 0; NaN in
        folds that were not scored. None unless asked for.
    """

    accuracy: np.ndarray
    accuracy_by_fold: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    null_mean: np.ndarray
    C_index: np.ndarray
    n_positive: np.ndarray
    n_scored: np.ndarray
    reasons: tuple[str, ...]
    n_permutations: int
    n_not_converged: int
    decision: np.ndarray | None = None


@dataclass(frozen=True)
class _Setting:
    """What all heads share."""

    labels: np.ndarray
    plan: Plan
    usable: Usable
    C: np.ndarray
    standardise: bool
    penalise_intercept: bool


def decode(
    X: np.ndarray,
    labels: np.ndarray,
    plan: Plan,
    *,
    C: Sequence[float] = C_GRID,
    standardise: bool = True,
    penalise_intercept: bool = False,
    fewest_rows: int = FEWEST_ROWS,
    n_permutations: int = 1000,
    min_shift: int = 10,
    rng: np.random.Generator | None = None,
    keep_decisions: bool = False,
) -> Decoding:
    """Decode every label from every head by nested cross-validated logistic regression.

    Parameters
    ----------
    X : array, shape (n_heads, n_rows, head_dim)
        Head outputs, one row for each of the plan's rows.
    labels : array of bool, shape (n_rows, n_labels)
        Whether the label occurs in the TR.
    plan : Plan
        Folds, from `make_plan`.
    C : sequence of float
        Inverse penalties to choose from, in increasing order.
    standardise : bool
        Z-score features with mean and standard deviation of the rows that are fitted, anew
        in each outer and inner fold. False: as they come (the paper).
    penalise_intercept : bool
        As in liblinear (the paper); see `logistic.fit`.
    fewest_rows : int
        See `usable_folds`.
    n_permutations : int
        0: no test.
    min_shift : int
        Fewest rows by which a permutation shifts the labels within a segment.
    rng : numpy.random.Generator, optional
        Source of the permutations; needed unless ``n_permutations`` is 0.
    keep_decisions : bool
        Return held-out decision values, too.

    Returns
    -------
    Decoding

    Raises
    ------
    NumericalError
        Shapes differ, values are not finite, C is not increasing, no ``rng`` for the
        permutations, or segments too short for ``min_shift``.

    Notes
    -----
    Rows weigh inversely to the frequency of their class among the rows that are fitted. C
    is the one with the highest balanced accuracy, mean over inner folds, the smallest (the
    strongest penalty) of equals; the model is then fitted on all outer training rows.

    Permutations shift labels against heads: each half of the story's rows is turned around
    by an amount of its own, the same for all heads and labels, so that autocorrelation and
    drift stay. One turn of the whole story would allow too few different permutations;
    turning each test block is too lenient with slow drifts, as it breaks them between test
    and training rows.

    For each permutation all folds are *fitted again*. Permuting only the held-out decisions
    would be too lenient (11 to 16 % of p values at or below 0.05 without any link), since
    each fold is tested on labels that the others were trained on, and would be blind to
    leaks between folds. The refit is a single Newton step from 0 with equal row weights in
    the Hessian, at the C that the data chose in that fold: the direction
    ``(Z'Z + 4 / C)^-1 (m1 - m0)`` between the class means, cut midway. On shifted labels the
    accuracies of full fits have the same mean, and a standard deviation within about 3 %; for
    labels in less than a fifth of the rows and C >= 1 that of the single step is up to 10 %
    larger, which is on the safe side. p is ``(k + 1) / (n + 1)``.

    In simulations of the whole procedure without a link 5 to 6 % of p values are at or below
    0.05 with blocked folds, also with strong autocorrelation (0.95 for heads) and 1 / f
    drifts. With shuffled folds it is 5 to 6 % for labels of real stories and 7 to 9 % for
    labels with an autocorrelation of 0.7: there C fits the leak of the data, not the shift's.

    References
    ----------
    .. [1] Phipson and Smyth (2010), doi:10.2202/1544-6115.1585
    """
    X, labels, C = np.asarray(X), np.asarray(labels, dtype=bool), np.asarray(C, dtype=float)
    _check(X, labels, plan, C)
    if n_permutations and rng is None:
        raise NumericalError("Permutations need a source of randomness, found none.")
    usable = usable_folds(labels, plan, fewest_rows=fewest_rows)
    setting = _Setting(labels, plan, usable, C, standardise, penalise_intercept)
    shape = (len(X), len(plan.outer), labels.shape[1])
    by_fold, chosen = np.full(shape, np.nan), np.full(shape, -1)
    decision = np.full((len(X), *labels.shape), np.nan) if keep_decisions else None
    n_failed = 0
    with single_threaded():
        for head, features in enumerate(X):
            kept = None if decision is None else decision[head]
            n_failed += _decode_head(features, setting, by_fold[head], chosen[head], kept)
        accuracy = null.mean_over_folds(by_fold, axis=1)
        p, p_fwe, null_mean = null.test(
            X,
            labels,
            plan.outer,
            accuracy,
            chosen,
            null.Settings(C, standardise, penalise_intercept, n_permutations, min_shift),
            rng,
        )
    return Decoding(
        accuracy=accuracy,
        accuracy_by_fold=by_fold,
        p=p,
        p_fwe=p_fwe,
        null_mean=null_mean,
        C_index=chosen,
        n_positive=labels.sum(axis=0),
        n_scored=usable.outer.sum(axis=0),
        reasons=usable.reasons,
        n_permutations=n_permutations,
        n_not_converged=n_failed,
        decision=decision,
    )


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Average the shares of positives and of negatives that are predicted right.

    Parameters
    ----------
    labels : array of bool, shape (n_rows, n_labels)
        What is so.
    predicted : array of bool, shape (n_rows, n_labels)
        What was predicted.

    Returns
    -------
    array, shape (n_labels,)
        0.5 is chance; NaN where the rows have one class only.
    """
    n_positive = labels.sum(axis=0)
    n_negative = len(labels) - n_positive
    hits = (predicted & labels).sum(axis=0)
    rejections = (~(predicted | labels)).sum(axis=0)
    single = (n_positive == 0) | (n_negative == 0)
    share = hits / np.maximum(n_positive, 1) + rejections / np.maximum(n_negative, 1)
    return np.where(single, np.nan, 0.5 * share)


def _check(X: np.ndarray, labels: np.ndarray, plan: Plan, C: np.ndarray) -> None:
    """Raise on shapes, values and settings that make no sense."""
    n_rows = plan.rows.size
    if X.ndim != 3 or labels.ndim != 2 or X.shape[1] != n_rows or len(labels) != n_rows:
        raise NumericalError(
            f"Heads have shape {X.shape} and labels {labels.shape}, expected (n_heads, {n_rows}, "
            f"head_dim) and ({n_rows}, n_labels) for the plan's {n_rows} rows."
        )
    if not np.isfinite(X).all():
        raise NumericalError("Heads hold NaN or infinite values, expected TRs with words only.")
    if C.ndim != 1 or not C.size or (np.diff(C) <= 0).any() or not (C > 0).all():
        raise NumericalError(f"Found C = {C.tolist()}, expected increasing numbers above 0.")


def _decode_head(
    features: np.ndarray,
    setting: _Setting,
    by_fold: np.ndarray,
    chosen: np.ndarray,
    decision: np.ndarray | None,
) -> int:
    """Fill the scores of one head; count the models that did not converge."""
    n_failed = 0
    for k, fold in enumerate(setting.plan.outer):
        which = np.flatnonzero(setting.usable.outer[k])
        if not which.size:
            continue
        labels = setting.labels[:, which]
        best, start = _choose(features[fold.train], labels[fold.train], setting, k)
        train, test = _scaled(features, fold, setting.standardise)
        model = logistic.fit(
            train,
            labels[fold.train],
            setting.C[best],
            penalise_intercept=setting.penalise_intercept,
            start=start,
        )
        values = logistic.decide(test, model)
        by_fold[k, which] = balanced_accuracy(labels[fold.test], values > 0)
        chosen[k, which] = best
        n_failed += int((~model.converged).sum())
        if decision is not None:
            decision[np.ix_(fold.test, which)] = values
    return n_failed


def _choose(
    features: np.ndarray, labels: np.ndarray, setting: _Setting, k: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Index of the best C on the inner folds of outer fold k, for each label, and a start."""
    inner = setting.plan.inner[k]
    usable = setting.usable.inner[k][:, setting.usable.outer[k]]
    how = {
        "standardise": setting.standardise,
        "penalise_intercept": setting.penalise_intercept,
    }
    found = None
    if nested.can_solve(features, inner, setting.C, **how):
        found = nested.classes(features, labels, inner, usable, setting.C, only_best=True, **how)
    total = np.zeros((setting.C.size, labels.shape[1]))
    for number, fold in enumerate(inner):
        which = np.flatnonzero(usable[number])
        if not which.size:
            continue
        truth = labels[np.ix_(fold.test, which)]
        if found is None:
            predicted = _fitted_classes(features, labels[:, which], fold, setting)
        else:
            predicted = found.inner[:, number, which][:, :, fold.test].transpose(0, 2, 1)
        for index, one in enumerate(predicted):
            total[index, which] += balanced_accuracy(truth, one)
    if found is not None:
        total[~found.contenders] = -np.inf
    # Sums of equal scores can differ in the last digit.
    best = np.argmax(np.round(total, 10), axis=0)
    if found is None:
        return best, None
    everyone = np.arange(best.size)
    return best, (found.coef[best, everyone], found.intercept[best, everyone])


def _fitted_classes(
    features: np.ndarray, labels: np.ndarray, fold: folds.Fold, setting: _Setting
) -> list[np.ndarray]:
    """Classes of the rows that a fold leaves out, one array (n_rows, n_labels) for each C."""
    train, test = _scaled(features, fold, setting.standardise)
    path = logistic.fit_path(
        train, labels[fold.train], setting.C, penalise_intercept=setting.penalise_intercept
    )
    return [logistic.decide(test, model) > 0 for model in path]


def _scaled(
    features: np.ndarray, fold: folds.Fold, standardise: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows, z-scored by the training rows if asked for."""
    if not standardise:
        return features[fold.train], features[fold.test]
    scaler = scaling.fit(features, fold.train)
    return scaling.apply(features[fold.train], scaler), scaling.apply(features[fold.test], scaler)
