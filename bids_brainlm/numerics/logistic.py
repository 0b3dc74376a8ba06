"""L2-penalised logistic regression of many labels on the same features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import expit

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics._logistic_newton import shorten

_LARGE_STEP = 0.1  # slope at the end of a step, as a share of the slope at its start
_SMALL_GRADIENT = 1e-3
_FORCING = 0.2
_MAX_CG = 200
_FEW = 0.7  # finished labels leave the batch when fewer than this share are left


@dataclass(frozen=True)
class Fit:
    """Fitted models of all labels.

    Attributes
    ----------
    coef : array, shape (n_labels, n_features)
        Weights; the decision value of a row is ``row @ coef + intercept``.
    intercept : array, shape (n_labels,)
        Intercepts.
    converged : array of bool, shape (n_labels,)
        Whether the gradient met the stopping rule.
    n_iterations : int
        Newton steps, the most over labels.
    """

    coef: np.ndarray
    intercept: np.ndarray
    converged: np.ndarray
    n_iterations: int


@dataclass(frozen=True)
class _Problem:
    """Features in a basis that makes them uncorrelated, and what all fits share."""

    design: np.ndarray  # (n_rows, n_terms), last column ones unless rotated with the rest
    squares: np.ndarray
    target: np.ndarray  # (n_labels, n_rows), 0 or 1
    weight: np.ndarray  # (n_labels, n_rows)
    basis: np.ndarray
    mean: np.ndarray
    ridge: np.ndarray  # curvature of the penalty, 1 / C, (n_labels, n_terms)
    free_intercept: bool
    at_zero: np.ndarray  # norm of the gradient where all weights are 0
    rounding: float  # smallest gradient that is told from 0


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Weigh rows so that both classes of each label count as much.

    Parameters
    ----------
    labels : array of bool, shape (n_rows, n_labels)
        Labels; each has to have both classes.

    Returns
    -------
    array, shape (n_rows, n_labels)
        ``n_rows / (2 * n_class)`` of the row's class, as in scikit-learn.
    """
    labels = np.asarray(labels, dtype=bool)
    n_positive = labels.sum(axis=0)
    n_rows = len(labels)
    return np.where(labels, n_rows / (2.0 * n_positive), n_rows / (2.0 * (n_rows - n_positive)))


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    C: np.ndarray | float,
    *,
    balanced: bool = True,
    penalise_intercept: bool = False,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Fit:
    """Fit one model per label.

    Parameters
    ----------
    features : array, shape (n_rows, n_features)
        Training rows.
    labels : array of bool, shape (n_rows, n_labels)
        Labels of the same rows, each with both classes.
    C : array, shape (n_labels,), or float
        Inverse strength of the penalty.
    balanced : bool
        Weigh rows by `balanced_weights`; False: all rows by 1.
    penalise_intercept : bool
        The intercept is the weight of a further feature that is always 1, as in liblinear
        (the paper). False: it is not penalised, as in scikit-learn's other solvers.
    tolerance : float
        See Notes.
    max_iterations : int
        Most Newton steps.
    start : tuple of array, optional
        Weights and intercepts, as those of a `Fit`, to begin with; default: 0.

    Returns
    -------
    Fit
        Labels that did not meet the stopping rule are marked, not refused.

    Raises
    ------
    NumericalError
        Shapes differ, a label has one class, values are not finite, or C is not positive.

    Notes
    -----
    Minimises ``|w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i f_i))`` with y = -1 or 1 and f the
    decision value, the objective of scikit-learn's ``LogisticRegression``. Truncated Newton
    steps: conjugate gradients in the eigenbasis of the features' scatter matrix, where the
    diagonal is a good preconditioner, for all labels at once as matrix products.

    Divided by C, the gradient ends no larger than ``tolerance`` times the larger of
    ``|w| / C`` and a thousandth of the gradient at 0. Where the first rules, the relative
    error of the weights is at most ``tolerance``, as the penalty's curvature is 1 / C. The
    gradient of an unpenalised intercept has to be so small that the intercept is right to
    ``tolerance`` of the decision values. With data that a plane separates the minimum is
    finite thanks to the penalty; with a very large C it is far away, and the second rule, or
    ``max_iterations``, ends the search.

    References
    ----------
    .. [1] Lin, Weng and Keerthi (2008), Journal of Machine Learning Research 9:627-650
    """
    return fit_path(
        features,
        labels,
        [C],
        balanced=balanced,
        penalise_intercept=penalise_intercept,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=start,
    )[0]


def fit_path(
    features: np.ndarray,
    labels: np.ndarray,
    C: Sequence[np.ndarray | float],
    *,
    balanced: bool = True,
    penalise_intercept: bool = False,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Fit]:
    """Fit one model per label and value of C, each from where the last one ended.

    Parameters
    ----------
    features : array, shape (n_rows, n_features)
        Training rows.
    labels : array of bool, shape (n_rows, n_labels)
        Labels of the same rows, each with both classes.
    C : sequence of float or of arrays, shape (n_labels,)
        Best in increasing order.
    balanced, penalise_intercept, tolerance, max_iterations, start
        As in `fit`.

    Returns
    -------
    list of Fit
        One for each value of C, in the order given.

    Raises
    ------
    NumericalError
        As in `fit`.
    """
    features = np.asarray(features, dtype=np.float64)
    labels = np.asarray(labels, dtype=bool)
    _check(features, labels)
    problem = _prepare(features, labels, balanced, penalise_intercept)
    weights = np.zeros((labels.shape[1], problem.design.shape[1]))
    if start is not None:
        weights = _rotated(problem, *start)
    fits = []
    for value in C:
        strength = np.broadcast_to(np.asarray(value, dtype=np.float64), (labels.shape[1],))
        if not ((strength > 0) & np.isfinite(strength)).all():
            raise NumericalError(f"Found C = {value}, expected finite numbers above 0.")
        ridge = np.repeat(1.0 / strength[:, None], weights.shape[1], axis=1)
        if problem.free_intercept:
            ridge[:, -1] = 0.0
        problem = replace(problem, ridge=ridge)
        weights, converged, n = _newton(problem, weights, tolerance, max_iterations)
        fits.append(Fit(*_original(problem, weights), converged=converged, n_iterations=n))
    return fits


def decide(features: np.ndarray, model: Fit) -> np.ndarray:
    """Compute decision values; a label is predicted where they are above 0.

    Parameters
    ----------
    features : array, shape (n_rows, n_features)
        Rows, scaled as the training rows were.
    model : Fit
        From `fit`.

    Returns
    -------
    array, shape (n_rows, n_labels)
        Log odds.
    """
    return np.asarray(features, dtype=np.float64) @ model.coef.T + model.intercept


def _check(features: np.ndarray, labels: np.ndarray) -> None:
    """Raise on input that has no solution."""
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise NumericalError(
            f"Features have shape {features.shape} and labels {labels.shape}, expected "
            "(n_rows, n_features) and (n_rows, n_labels)."
        )
    if not np.isfinite(features).all():
        raise NumericalError("Features for logistic regression hold NaN or infinite values.")
    n_positive = labels.sum(axis=0)
    single = (n_positive == 0) | (n_positive == len(labels))
    if single.any():
        raise NumericalError(
            f"{int(single.sum())} of {single.size} labels have one class in the training rows, "
            "expected two."
        )


def _prepare(
    features: np.ndarray, labels: np.ndarray, balanced: bool, penalise_intercept: bool
) -> _Problem:
    """Rotate the features; an unpenalised intercept takes up their means, too."""
    n_rows, n_features = features.shape
    if penalise_intercept:
        mean = np.zeros(n_features)
        columns = np.column_stack([features, np.ones(n_rows)])
    else:
        mean = features.mean(axis=0)
        columns = features - mean
    basis = np.linalg.eigh(columns.T @ columns)[1]
    design = columns @ basis
    if not penalise_intercept:
        design = np.column_stack([design, np.ones(n_rows)])
    target = np.ascontiguousarray(labels.T, dtype=np.float64)
    weight = np.ascontiguousarray(balanced_weights(labels).T) if balanced else np.ones_like(target)
    at_zero = np.linalg.norm((weight * (0.5 - target)) @ design, axis=1)
    return _Problem(
        design=design,
        squares=design**2,
        target=target,
        weight=weight,
        basis=basis,
        mean=mean,
        ridge=np.ones((target.shape[0], design.shape[1])),
        free_intercept=not penalise_intercept,
        at_zero=at_zero,
        rounding=float(np.finfo(float).eps * np.sqrt(n_rows) * np.linalg.norm(design)),
    )


def _original(problem: _Problem, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercepts of the features as they came."""
    if problem.free_intercept:
        coef = weights[:, :-1] @ problem.basis.T
        return coef, weights[:, -1] - coef @ problem.mean
    rotated = weights @ problem.basis.T
    return rotated[:, :-1], rotated[:, -1]


def _rotated(problem: _Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Weights in the eigenbasis; the inverse of `_original`."""
    if problem.free_intercept:
        return np.column_stack([coef @ problem.basis, intercept + coef @ problem.mean])
    return np.column_stack([coef, intercept]) @ problem.basis


def _newton(
    problem: _Problem, start: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Truncated Newton steps for all labels; finished labels leave the batch."""
    weights = start.copy()
    converged = np.zeros(len(start), dtype=bool)
    left = np.arange(len(start))
    w, eta = start, start @ problem.design.T
    probability, gradient = _gradient(problem, w, eta)
    n_iterations = 0
    while True:
        done = _is_done(problem, w, eta, gradient, tolerance)
        if done.any():
            weights[left[done]], converged[left[done]] = w[done], True
            problem, left, w, eta = _pick(problem, ~done), left[~done], w[~done], eta[~done]
            probability, gradient = probability[~done], gradient[~done]
        if not left.size or n_iterations == max_iterations:
            break
        n_iterations += 1
        step = _solve(problem, probability, gradient)
        change = step @ problem.design.T
        new, new_eta = w + step, eta + change
        slope = (gradient * step).sum(axis=1)
        probability, gradient = _gradient(problem, new, new_eta)
        far = np.flatnonzero((gradient * step).sum(axis=1) > -_LARGE_STEP * slope)
        if far.size:
            some = _pick(problem, far)
            line = w[far], eta[far], step[far], change[far]
            length = shorten(partial(_after, some, line), slope[far])
            new[far] = w[far] + length * step[far]
            new_eta[far] = eta[far] + length * change[far]
            probability[far], gradient[far] = _gradient(some, new[far], new_eta[far])
        w, eta = new, new_eta
    weights[left] = w
    return weights, converged, n_iterations


def _pick(problem: _Problem, which: np.ndarray) -> _Problem:
    """The problems of some labels."""
    return replace(
        problem,
        target=problem.target[which],
        weight=problem.weight[which],
        at_zero=problem.at_zero[which],
        ridge=problem.ridge[which],
    )


def _is_done(
    problem: _Problem, w: np.ndarray, eta: np.ndarray, gradient: np.ndarray, tolerance: float
) -> np.ndarray:
    """Whether each label meets the stopping rule."""
    bound = np.linalg.norm(problem.ridge * w, axis=1)
    bound = tolerance * np.maximum(bound, _SMALL_GRADIENT * problem.at_zero)
    done = np.linalg.norm(gradient, axis=1) <= bound + problem.rounding
    if problem.free_intercept:
        bound = tolerance * 0.25 * np.sqrt(eta.shape[1]) * np.linalg.norm(eta, axis=1)
        done &= np.abs(gradient[:, -1]) <= bound + problem.rounding
    return done


def _gradient(problem: _Problem, w: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and the gradient of the objective divided by C."""
    probability = expit(eta)
    residual = problem.weight * (probability - problem.target)
    return probability, residual @ problem.design + problem.ridge * w


def _solve(problem: _Problem, probability: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton step by preconditioned conjugate gradients, more exact near the minimum."""
    design, ridge = problem.design, problem.ridge
    curvature = problem.weight * probability * (1.0 - probability)
    inverse = 1.0 / np.maximum(curvature @ problem.squares + ridge, np.finfo(float).tiny)
    steps, step, left = np.empty_like(gradient), np.zeros_like(gradient), np.arange(len(gradient))
    residual, direction = -gradient, -inverse * gradient
    product = np.einsum("ij,ij->i", residual, direction)
    size = np.linalg.norm(gradient, axis=1)
    goal = np.minimum(_FORCING**2, size / np.maximum(problem.at_zero, size)) * product
    for _ in range(min(_MAX_CG, 4 * design.shape[1])):
        image = ((direction @ design.T) * curvature) @ design
        image += ridge * direction
        bent = np.einsum("ij,ij->i", direction, image)
        moving = (product > goal) & (bent > 0)
        if np.count_nonzero(moving) < _FEW * moving.size:
            steps[left] = step
            vectors = left, step, residual, direction, image, product, bent, goal, inverse, ridge
            left, step, residual, direction, image, product, bent, goal, inverse, ridge = (
                part[moving] for part in vectors
            )
            curvature, moving = curvature[moving], moving[moving]
        if not left.size:
            break
        rate = np.where(moving, product / np.where(moving, bent, 1.0), 0.0)[:, None]
        step += rate * direction
        residual -= rate * image
        z = inverse * residual
        latest = np.einsum("ij,ij->i", residual, z)
        share = np.where(moving, latest / np.where(moving, product, 1.0), 0.0)[:, None]
        direction = z + share * direction
        product = np.where(moving, latest, 0.0)
    steps[left] = step
    return steps


def _after(problem: _Problem, line: tuple[np.ndarray, ...], length: np.ndarray) -> np.ndarray:
    """Objective divided by C, (n_labels,), after a part of a step."""
    w, eta = line[0] + length * line[2], line[1] + length * line[3]
    loss = np.logaddexp(0.0, eta) - problem.target * eta
    return (problem.weight * loss).sum(axis=1) + 0.5 * (problem.ridge * w**2).sum(axis=1)
