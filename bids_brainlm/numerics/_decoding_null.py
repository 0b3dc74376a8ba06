"""Accuracies of decoding on labels that are shifted against the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core
from bids_brainlm.numerics import folds, scaling

_N_SEGMENTS = 2
_PERMUTATIONS_PER_BLOCK = 500
_LARGEST_TABLE = 2**25  # values of float32, 128 MiB


@dataclass(frozen=True)
class Settings:
    """How heads were decoded, and how many permutations to make.

    Attributes
    ----------
    C : array, shape (n_C,)
        The grid.
    standardise, penalise_intercept : bool
        See `decoding.decode`.
    n_permutations : int
        0: no test.
    min_shift : int
        Rows.
    """

    C: np.ndarray
    standardise: bool
    penalise_intercept: bool
    n_permutations: int
    min_shift: int


@dataclass(frozen=True)
class _Shifted:
    """Some permutations of all labels, as float32."""

    labels: np.ndarray  # (n_labels, n_permutations, n_rows)
    n_train: np.ndarray  # positives among training rows, (n_folds, n_labels, n_permutations)
    n_test: np.ndarray


@dataclass(frozen=True)
class _Basis:
    """Rows of one head in the eigenbasis of its training rows, float32."""

    values: np.ndarray  # eigenvalues, (n_terms,)
    train: np.ndarray  # (n_rows, n_terms), 0 outside the training rows
    test: np.ndarray  # (n_test, n_terms)


def mean_over_folds(by_fold: np.ndarray, axis: int) -> np.ndarray:
    """Average over the folds that are not NaN; NaN where all are.

    Parameters
    ----------
    by_fold : array, any shape
        Scores.
    axis : int
        Axis of the folds.

    Returns
    -------
    array, shape of the input without the axis
    """
    present = ~np.isnan(by_fold)
    n_present = present.sum(axis=axis)
    total = np.where(present, by_fold, 0.0).sum(axis=axis)
    return np.where(n_present > 0, total / np.maximum(n_present, 1), np.nan)


def shifts(
    n_rows: int, n_segments: int, min_shift: int, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw permutations that turn each of several contiguous segments around.

    Parameters
    ----------
    n_rows, n_segments : int
        Segments are as equal as possible, as `folds.contiguous_folds` makes blocks.
    min_shift : int
        Rows move by at least as much, seen in a circle.
    n_permutations : int
        Number of permutations.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array of int, shape (n_permutations, n_rows)
        Indices into the rows.

    Raises
    ------
    NumericalError
        A segment allows fewer than 2 shifts.
    """
    segments = np.array_split(np.arange(n_rows), n_segments)
    shortest = min(map(len, segments))
    if min_shift < 1 or shortest < 2 * min_shift + 1:
        raise NumericalError(
            f"Segments of {shortest} rows cannot be shifted by {min_shift} rows or more either "
            "way, expected a shift of at least 1 and at least twice as many rows.",
            hint="Use fewer folds for decoding, or a longer story.",
        )
    order = np.empty((n_permutations, n_rows), dtype=int)
    for segment in segments:
        amount = rng.integers(min_shift, len(segment) - min_shift + 1, size=(n_permutations, 1))
        order[:, segment] = segment[0] + (np.arange(len(segment)) - amount) % len(segment)
    return order


def test(
    X: np.ndarray,
    labels: np.ndarray,
    outer: Sequence[folds.Fold],
    accuracy: np.ndarray,
    chosen: np.ndarray,
    settings: Settings,
    rng: np.random.Generator | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare accuracies with those of single-step refits on shifted labels.

    Parameters
    ----------
    X : array, shape (n_heads, n_rows, head_dim)
        Head outputs.
    labels : array of bool, shape (n_rows, n_labels)
        Labels.
    outer : sequence of Fold
        Positions of the outer folds.
    accuracy : array, shape (n_heads, n_labels)
        Observed; NaN is not tested.
    chosen : array of int, shape (n_heads, n_folds, n_labels)
        Index of C, -1 in folds that do not count.
    settings : Settings
        As the heads were decoded.
    rng : numpy.random.Generator or None
        Source of randomness; None without permutations.

    Returns
    -------
    p, p_fwe, null_mean : array, shape (n_heads, n_labels)
        See `decoding.Decoding`.
    """
    if rng is None or not settings.n_permutations:
        return tuple(np.full(accuracy.shape, np.nan) for _ in range(3))
    orders = shifts(len(labels), _N_SEGMENTS, settings.min_shift, settings.n_permutations, rng)
    tested = np.flatnonzero(~np.isnan(accuracy).all(axis=0))
    observed, chosen = accuracy[:, tested], chosen[:, :, tested]
    bar = core.loosened(observed)
    count, total = np.zeros(observed.shape), np.zeros(observed.shape)
    largest = np.full((settings.n_permutations, tested.size), -np.inf)
    room = _LARGEST_TABLE // max(labels.shape[0] * tested.size, 1)
    width = int(np.clip(room, 1, _PERMUTATIONS_PER_BLOCK))
    for start in range(0, settings.n_permutations if tested.size else 0, width):
        part = slice(start, start + width)
        shifted = _shift(labels[:, tested], orders[part], outer)
        for head, features in enumerate(X):
            null = _accuracies(features, shifted, outer, chosen[head], settings)
            count[head] += (null >= bar[head][:, None]).sum(axis=1)
            total[head] += null.sum(axis=1)
            np.maximum(largest[part], null.T, out=largest[part])
    results = np.full((3, *accuracy.shape), np.nan)
    results[0][:, tested] = core.p_value(count, settings.n_permutations, observed)
    for column, label in enumerate(tested):
        results[1][:, label] = core.p_largest(observed[:, column], largest[:, column])
    results[2][:, tested] = total / settings.n_permutations
    return results[0], results[1], results[2]


def _shift(labels: np.ndarray, orders: np.ndarray, outer: Sequence[folds.Fold]) -> _Shifted:
    """Permuted labels and their counts in each fold."""
    table = labels.T.astype(np.float32)[:, orders]
    masks = np.zeros((2 * len(outer), labels.shape[0]), dtype=np.float32)
    for k, fold in enumerate(outer):
        masks[k, fold.train] = 1.0
        masks[len(outer) + k, fold.test] = 1.0
    counts = np.moveaxis(table @ masks.T, -1, 0).astype(np.float64)
    return _Shifted(table, counts[: len(outer)], counts[len(outer) :])


def _accuracies(
    features: np.ndarray,
    shifted: _Shifted,
    outer: Sequence[folds.Fold],
    chosen: np.ndarray,
    settings: Settings,
) -> np.ndarray:
    """Balanced accuracy on shifted labels, mean over folds, (n_labels, n_permutations)."""
    n_labels, n_permutations, _ = shifted.labels.shape
    by_fold = np.full((len(outer), n_labels, n_permutations), np.nan)
    for k, fold in enumerate(outer):
        basis = _basis(features, fold, settings)
        for index in np.unique(chosen[k][chosen[k] >= 0]):
            least = np.finfo(np.float32).eps * basis.values.max()
            root = np.sqrt(np.maximum(basis.values + 4.0 / settings.C[index], least))
            scale = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
            scale = scale.astype(np.float32)
            train, test = basis.train * scale, basis.test * scale
            for label in np.flatnonzero(chosen[k] == index):
                by_fold[k, label] = _one_label(
                    train,
                    test,
                    shifted.labels[label],
                    shifted.labels[label][:, fold.test],
                    shifted.n_train[k, label],
                    shifted.n_test[k, label],
                    (fold.train.size, settings.penalise_intercept),
                )
    with_any = mean_over_folds(by_fold, axis=0)
    return np.where(np.isnan(with_any), 0.5, with_any)


def _basis(features: np.ndarray, fold: folds.Fold, settings: Settings) -> _Basis:
    """Rotate all rows of a head so that its training rows are uncorrelated."""
    features = np.asarray(features, dtype=np.float64)
    scaler = scaling.fit(features, fold.train)
    if settings.standardise:
        features = scaling.apply(features, scaler)
    elif not settings.penalise_intercept:
        features = features - scaler.mean
    if settings.penalise_intercept:
        features = np.column_stack([features, np.ones(len(features))])
    train = features[fold.train]
    values, vectors = np.linalg.eigh(train.T @ train)
    rotated = np.zeros((len(features), values.size), dtype=np.float32)
    rotated[fold.train] = train @ vectors
    test = (features[fold.test] @ vectors).astype(np.float32)
    return _Basis(np.maximum(values, 0.0), rotated, test)


def _one_label(
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    test_labels: np.ndarray,
    n_train: np.ndarray,
    n_test: np.ndarray,
    fold: tuple[int, bool],
) -> np.ndarray:
    """Balanced accuracy of one label in one fold, for all permutations; NaN where undefined."""
    n_rows, penalise_intercept = fold
    positive = labels @ train
    negative = train.sum(axis=0) - positive
    counts = np.maximum(n_train, 1), np.maximum(n_rows - n_train, 1)
    positive /= counts[0].astype(np.float32)[:, None]
    negative /= counts[1].astype(np.float32)[:, None]
    values = (positive - negative) @ test.T
    if not penalise_intercept:
        middle = np.einsum("ij,ij->i", positive + negative, positive - negative)
        values -= 0.5 * middle[:, None]
    predicted = (values > 0).astype(np.float32)
    hits = np.einsum("ij,ij->i", predicted, test_labels)
    alarms = predicted.sum(axis=1) - hits
    n_negative = test_labels.shape[1] - n_test
    defined = (n_test > 0) & (n_negative > 0) & (n_train > 0) & (n_train < n_rows)
    share = hits / np.maximum(n_test, 1) + 1.0 - alarms / np.maximum(n_negative, 1)
    return np.where(defined, 0.5 * share, np.nan)
