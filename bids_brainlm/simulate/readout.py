"""Readouts of a feature space that other feature spaces cannot imitate.

Neighbouring layers of a transformer are nearly linear functions of each other, so a random
readout of a layer is predicted about as well from the next one, and a "planted layer" would be
an empty word. A readout is therefore sought among the main directions of its own space such
that held-out prediction from that space is much better than from the competing ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_DIRECTIONS = 5  # directions that are mixed at random into readouts
N_CANDIDATES = 30  # random mixtures of which the most specific one is taken
PENALTY = 30.0  # ridge penalty; features have unit power, so about 30 TRs' worth of noise
MAIN_PART = 0.003  # shrinks directions whose share of the variance is below about this
NEIGHBOUR_WEIGHT = 0.8  # weight of the closest competitors against the mean over all
N_FOLDS = 6
GAP = 10


@dataclass(frozen=True)
class Contest:
    """A space and those it must beat; held-out prediction operators, each (n_trs, n_trs)."""

    own: np.ndarray
    others: tuple[np.ndarray, ...]
    near: tuple[np.ndarray, ...]


def prediction_operator(features: np.ndarray) -> np.ndarray:
    """Return the operator that predicts a series from features, out of sample.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        Centred responses to the features.

    Returns
    -------
    array, shape (n_trs, n_trs)
        ``operator @ series`` is the series predicted by ridge regression in contiguous folds
        with a gap; scaled so that features have unit power.
    """
    n_trs = len(features)
    gram = features @ features.T
    total = np.trace(gram)
    operator = np.zeros((n_trs, n_trs))
    if total <= 0:
        return operator
    gram *= n_trs / total
    gap = min(GAP, n_trs // (3 * N_FOLDS))
    rows = np.arange(n_trs)
    for test in np.array_split(rows, N_FOLDS):
        train = rows[(rows < test[0] - gap) | (rows > test[-1] + gap)]
        inside = gram[np.ix_(train, train)] + PENALTY * np.eye(len(train))
        operator[np.ix_(test, train)] = np.linalg.solve(inside, gram[np.ix_(train, test)]).T
    return operator


def specific_directions(
    features: np.ndarray, contests: Sequence[Contest], nuisance: np.ndarray
) -> np.ndarray:
    """Return series that a space predicts and its competitors do not.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        Centred responses to the features of the space.
    contests : sequence of Contest
        Who must beat whom.
    nuisance : array, shape (n_trs, n_nuisance)
        Centred responses that must not explain the readout (silence, word rate).

    Returns
    -------
    array, shape (n_trs, n_directions)
        Unit-variance linear readouts of ``features``, best first: the leading eigenvectors of
        own minus competing prediction operators (mean of all and of the nearest, 1:4), within
        the main directions of the space.
    """
    n_trs = len(features)
    values, vectors = np.linalg.eigh(features @ features.T * (n_trs / np.sum(features**2)))
    kept = values > 1e-6 * values[-1]
    basis = vectors[:, kept] * np.sqrt(values[kept] / (values[kept] + MAIN_PART * n_trs))
    margin = np.zeros((n_trs, n_trs))
    for contest in contests:
        margin += contest.own
        if contest.others:
            margin -= (1 - NEIGHBOUR_WEIGHT) * np.mean(contest.others, axis=0)
            margin -= NEIGHBOUR_WEIGHT * np.mean(contest.near, axis=0)
    margin = (margin + margin.T) / 2 - len(contests) * nuisance @ np.linalg.pinv(nuisance)
    _, mixed = np.linalg.eigh(basis.T @ margin @ basis)
    series = basis @ mixed[:, : -N_DIRECTIONS - 1 : -1]
    return series / series.std(axis=0)


def draw_readout(
    directions: np.ndarray, contests: Sequence[Contest], rng: np.random.Generator
) -> np.ndarray:
    """Draw a random readout and keep the most specific of several.

    Parameters
    ----------
    directions : array, shape (n_trs, n_directions)
        From :func:`specific_directions`.
    contests : sequence of Contest
        Who must beat whom.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_trs,)
        Unit variance. Of the random mixtures of the directions, the one with the largest
        margin: held-out r of the own space minus that of the best competitor, in the worst
        contest.
    """
    mixtures = directions @ rng.standard_normal((directions.shape[1], N_CANDIDATES))
    mixtures /= mixtures.std(axis=0)
    worst = np.full(N_CANDIDATES, np.inf)
    for contest in contests:
        own = _agreement(contest.own, mixtures)
        if contest.others:
            own = own - np.max([_agreement(o, mixtures) for o in contest.others], axis=0)
        worst = np.minimum(worst, own)
    return mixtures[:, int(np.argmax(worst))]


def _agreement(operator: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Return the correlation of each series with its held-out prediction."""
    predicted = operator @ series
    predicted -= predicted.mean(axis=0)
    centred = series - series.mean(axis=0)
    scale = np.linalg.norm(predicted, axis=0) * np.linalg.norm(centred, axis=0)
    return (predicted * centred).sum(axis=0) / np.maximum(scale, 1e-12)


def extend(features: np.ndarray, rows: slice, series: np.ndarray) -> np.ndarray:
    """Carry a readout from some rows to all rows of the same space.

    Parameters
    ----------
    features : array, shape (n_all, n_features)
        Responses on all rows.
    rows : slice
        Rows on which the readout was found.
    series : array, shape (n_trs, n_series)
        Readouts on those rows, linear in the centred features.

    Returns
    -------
    array, shape (n_all, n_series)
        The same readouts (smallest weights) on all rows; equal to ``series`` on ``rows``.
    """
    mean = features[rows].mean(axis=0)
    inner = features[rows] - mean
    values, vectors = np.linalg.eigh(inner @ inner.T)
    kept = values > 1e-9 * values[-1]
    inverse = vectors[:, kept] / values[kept]
    weights = inner.T @ (inverse @ (vectors[:, kept].T @ (series - series.mean(axis=0))))
    return (features - mean) @ weights
