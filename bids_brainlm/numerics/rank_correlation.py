"""Spearman correlations, also of more pairs than fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from bids_brainlm.errors import NumericalError

_EXACT_PAIRS = 1 << 22
_N_BINS = 1 << 23
_ROWS_PER_BLOCK = 1024
_PAIRS_PER_BLOCK = 1 << 20

Dissimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class StreamedSpearman:
    """A Spearman correlation over all pairs of rows.

    Attributes
    ----------
    r : float
        The correlation; NaN where all dissimilarities of a space are equal or one is NaN.
    error : float
        Largest possible difference from the correlation of exact ranks; 0 where they are.
    n_pairs : int
        Pairs of rows.
    """

    r: float
    error: float
    n_pairs: int


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlate two vectors by ranks; ties share their mean rank.

    Parameters
    ----------
    a, b : array, shape (n,)
        As many values in both.

    Returns
    -------
    float
        NaN where one is constant or has NaN.

    Raises
    ------
    NumericalError
        The vectors differ in length, or have fewer than 2 values.
    """
    return float(spearman_matrix([a, b])[0, 1])


def spearman_matrix(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Correlate every pair of vectors by ranks.

    Parameters
    ----------
    vectors : sequence of arrays, each of shape (n,)
        Such as the condensed dissimilarities of the layers.

    Returns
    -------
    array, shape (n_vectors, n_vectors)
        1 on the diagonal; NaN for vectors that are constant or have NaN.

    Raises
    ------
    NumericalError
        The vectors differ in length, or have fewer than 2 values.

    Notes
    -----
    Ranks are kept in 4 bytes, which hold them exactly up to 8 million values.
    """
    shapes = {np.shape(vector) for vector in vectors}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or next(iter(shapes))[0] < 2:
        raise NumericalError(
            f"Vectors to correlate have shapes {sorted(shapes)}, expected one shape (n >= 2,)."
        )
    ranks = np.empty((len(vectors), len(vectors[0])), dtype=np.float32)
    for k, vector in enumerate(vectors):
        # NaN gives NaN throughout, without a warning
        ranks[k] = scipy.stats.rankdata(vector, nan_policy="propagate")
    n = ranks.shape[1]
    products = np.zeros((len(vectors), len(vectors)))
    for start in range(0, n, _PAIRS_PER_BLOCK):
        block = ranks[:, start : start + _PAIRS_PER_BLOCK].astype(np.float64) - (n + 1) / 2
        products += block @ block.T
    norms = np.sqrt(np.diag(products))
    norms = np.where(norms > 0, norms, np.nan)
    r = np.clip(products / np.outer(norms, norms), -1.0, 1.0)
    r[np.diag_indices(len(r))] = np.where(np.isfinite(norms), 1.0, np.nan)
    return r


def stream_spearman(
    a: np.ndarray, b: np.ndarray, dissimilarity: Dissimilarity, *, high: float
) -> StreamedSpearman:
    """Correlate the dissimilarities of two spaces over all pairs of rows, in blocks.

    Parameters
    ----------
    a, b : array, shape (n_rows, n_features)
        The same rows in two spaces.
    dissimilarity : callable
        Takes two blocks of rows, (n, n_features) and (m, n_features), and returns their
        dissimilarities, (n, m), from 0 to ``high``.
    high : float
        Largest possible dissimilarity.

    Returns
    -------
    StreamedSpearman

    Raises
    ------
    NumericalError
        The spaces have different rows, or fewer than 3.

    Notes
    -----
    Up to 4 million pairs are ranked as they are. More are counted, in two passes that make
    the blocks anew: first into 2**23 equal bins, which gives every bin the mean rank of what
    is in it; then the products of these ranks are summed. About 0.4 GiB are needed, whatever
    the number of pairs.

    This is the Spearman correlation of dissimilarities rounded to ``high / 2**23`` (2.4e-7
    for correlation distance). A bin's rank is the mean of the exact ranks in it, so that
    the centred vector of binned ranks is the projection of the exact one. Let W be
    ``sum(c**3 - c) / 12`` over the counts c of the bins, the most that the squares of exact
    ranks can add up to within bins, B the squares of the binned ranks, and
    ``e = W / (B + W)``. Then the unit vectors of exact and binned ranks are at most
    ``sqrt(2 - 2 sqrt(1 - e))`` apart, and the sum of this over the two spaces bounds the
    error of r.
    """
    if a.shape[0] != b.shape[0] or len(a) < 3:
        raise NumericalError(f"Found {len(a)} and {len(b)} rows, expected as many, at least 3.")
    n_pairs = len(a) * (len(a) - 1) // 2
    if n_pairs <= _EXACT_PAIRS:
        blocks = list(_blocks(a, b, dissimilarity))
        vectors = [np.concatenate([block[k] for block in blocks]) for k in range(2)]
        return StreamedSpearman(spearman(*vectors), 0.0, n_pairs)
    counts = np.zeros((2, _N_BINS + 1), dtype=np.int64)
    for pair in _blocks(a, b, dissimilarity):
        for k, values in enumerate(pair):
            if not np.isfinite(values).all():
                return StreamedSpearman(float("nan"), 0.0, n_pairs)
            counts[k] += np.bincount(_bins(values, high), minlength=_N_BINS + 1)
    ranks, squares, errors = [], [], []
    for count in counts:
        centred = np.cumsum(count) - (count - 1) / 2 - (n_pairs + 1) / 2
        ranks.append(centred)
        squares.append(float(count @ centred**2))
        errors.append(_error(count, squares[-1]))
    del counts
    total = 0.0
    for pair in _blocks(a, b, dissimilarity):
        x, y = (rank[_bins(values, high)] for rank, values in zip(ranks, pair, strict=True))
        total += float(x @ y)
    scale = np.sqrt(squares[0]) * np.sqrt(squares[1])
    r = float(np.clip(total / scale, -1.0, 1.0)) if scale > 0 else float("nan")
    return StreamedSpearman(r, float(sum(errors)), n_pairs)


def _blocks(
    a: np.ndarray, b: np.ndarray, dissimilarity: Dissimilarity
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the dissimilarities of every pair of rows once, in both spaces."""
    for first in range(0, len(a), _ROWS_PER_BLOCK):
        rows = slice(first, first + _ROWS_PER_BLOCK)
        for start in range(first, len(a), _ROWS_PER_BLOCK):
            columns = slice(start, start + _ROWS_PER_BLOCK)
            both = [dissimilarity(space[rows], space[columns]) for space in (a, b)]
            if start == first:
                upper = np.triu_indices(len(both[0]), 1)
                yield both[0][upper], both[1][upper]
            else:
                yield both[0].ravel(), both[1].ravel()


def _bins(values: np.ndarray, high: float) -> np.ndarray:
    """Return the bin of each value."""
    return np.rint(values * (_N_BINS / high)).astype(np.int32)


def _error(count: np.ndarray, between: float) -> float:
    """Distance of the unit vectors of exact and of binned ranks, at most."""
    c = count[count > 1].astype(np.float64)
    within = float((c**3 - c).sum()) / 12.0
    if between + within <= 0:
        return 0.0
    kept = np.sqrt(between / (between + within))
    lost = within / (between + within)
    return float(np.sqrt(2.0 * lost / (1.0 + kept)))  # 2 - 2 kept, without cancellation
