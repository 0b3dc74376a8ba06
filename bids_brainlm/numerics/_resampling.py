"""Arithmetic behind `resampling`: batches, counts and p values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from bids_brainlm.errors import NumericalError

TARGETS_PER_BLOCK = 512
RESAMPLES_PER_BLOCK = 1000
_ROWS_PER_COUNT = 250  # ones in a column of so many rows fit into a byte
_LARGEST_TABLE = 2**24  # values, 128 MiB
_TOLERANCE = 1e-10
_ALTERNATIVES = ("greater", "less", "two-sided")


def check_settings(n_resamples: int, alternative: str = "greater") -> None:
    """Raise if the settings of a test make no sense."""
    if n_resamples < 1:
        raise NumericalError(
            f"Found {n_resamples} resamples, expected at least 1.",
            hint="Set --n-permutations and --n-bootstraps to at least 1.",
        )
    if alternative not in _ALTERNATIVES:
        raise NumericalError(f"Found alternative '{alternative}', expected one of {_ALTERNATIVES}.")


def check_segments(segments: Sequence[slice], n_rows: int) -> None:
    """Raise if segments do not partition the rows in order."""
    borders = [0]
    for segment in segments:
        first, end, step = segment.indices(n_rows)
        if first != borders[-1] or end <= first or step != 1:
            break
        borders.append(end)
    if len(borders) != len(segments) + 1 or borders[-1] != n_rows:
        raise NumericalError(
            f"Segments {list(segments)} do not divide {n_rows} rows in order without holes."
        )


def as_table(values: np.ndarray) -> np.ndarray:
    """Return values as float64, (n_participants, n_targets)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise NumericalError(
            f"Values have shape {values.shape}, expected (n_participants, n_targets)."
        )
    return values


def standardise(
    series: np.ndarray, segments: Sequence[slice], *, within: bool = True
) -> np.ndarray:
    """Z-score columns within segments; 0 where constant, and throughout where NaN.

    Without ``within``, segments are scaled by their own standard deviation but centred
    together.
    """
    z = np.array(series, dtype=np.float64)
    z[:, np.isnan(z).any(axis=0)] = 0.0
    for segment in segments:
        raw = (z[segment] ** 2).mean(axis=0)
        centred = z[segment] - z[segment].mean(axis=0)
        variance = (centred**2).mean(axis=0)
        varies = variance > 1e-24 * raw
        scale = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        z[segment] = (centred if within else z[segment]) * scale
    return z if within else z - z.mean(axis=0)


def targets_per_block(n_blocks: int) -> int:
    """How many targets at once keep the table of block products within memory."""
    return int(np.clip(_LARGEST_TABLE // n_blocks**2, 1, TARGETS_PER_BLOCK))


def block_products(a: np.ndarray, b: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of every block of a with every block of b, and of the rows left over.

    Both are divided by the number of rows, so that sums of them are correlations. Row
    ``i * n_blocks + j`` of the first is block i of ``a`` with block j of ``b``.
    """
    n_rows, n_targets = a.shape
    n_blocks = n_rows // length
    inside = n_blocks * length
    blocks = b[:inside].reshape(n_blocks, length, n_targets)
    products = np.empty((n_blocks, n_blocks, n_targets))
    for index in range(n_blocks):
        rows = a[index * length : (index + 1) * length]
        np.einsum("it,bit->bt", rows, blocks, out=products[index])
    products /= n_rows
    rest = (a[inside:] * b[inside:]).sum(axis=0) / n_rows
    return products.reshape(-1, n_targets), rest


def count_permuted(
    products: np.ndarray,
    rest: np.ndarray,
    orders: np.ndarray,
    observed: np.ndarray,
    largest: np.ndarray,
    alternative: str,
) -> np.ndarray:
    """Count permutations that reach ``observed``; raises ``largest`` in place.

    Each permuted statistic is a sum of one product per block: a sparse matrix of ones times
    the table of products.
    """
    n_blocks = orders.shape[1]
    present = ~np.isnan(observed)
    count = np.zeros(products.shape[1])
    for first in range(0, len(orders), RESAMPLES_PER_BLOCK):
        order = orders[first : first + RESAMPLES_PER_BLOCK]
        columns = (order * n_blocks + np.arange(n_blocks)).ravel()
        pointers = np.arange(0, columns.size + 1, n_blocks)
        picked = sparse.csr_array(
            (np.ones(columns.size), columns, pointers), shape=(len(order), n_blocks**2)
        )
        statistic = directed(picked @ products + rest, alternative)
        statistic[:, ~present] = -np.inf
        rows = slice(first, first + len(order))
        np.maximum(largest[rows], statistic.max(axis=1), out=largest[rows])
        count += (statistic >= loosened(observed)).sum(axis=0)
    return count


def directed(statistic: np.ndarray, alternative: str) -> np.ndarray:
    """Turn a statistic so that large values speak against the null."""
    if alternative == "two-sided":
        return np.abs(statistic)
    return -statistic if alternative == "less" else statistic


def loosened(observed: np.ndarray) -> np.ndarray:
    """Lower the bar by rounding error, so that ties count as reached."""
    return observed - _TOLERANCE * np.maximum(np.abs(observed), 1e-3)


def p_value(count: np.ndarray, n_resamples: int, observed: np.ndarray) -> np.ndarray:
    """``(k + 1) / (n + 1)``, NaN where nothing was observed."""
    return np.where(np.isnan(observed), np.nan, (count + 1.0) / (n_resamples + 1.0))


def p_largest(observed: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """P values from the largest statistic over targets."""
    below = np.searchsorted(np.sort(largest), loosened(observed), side="left")
    return p_value(len(largest) - below, len(largest), observed)


def count_products(
    weights: np.ndarray,
    values: np.ndarray,
    observed: np.ndarray,
    largest: np.ndarray,
    alternative: str,
) -> np.ndarray:
    """Count the rows of ``weights @ values`` that reach ``observed``; raises ``largest``.

    ``observed`` is directed already, ``values`` are not.
    """
    if alternative == "less":
        values = -values
    count = np.zeros(values.shape[1])
    for start in range(0, values.shape[1], TARGETS_PER_BLOCK):
        block = slice(start, start + TARGETS_PER_BLOCK)
        some = np.ascontiguousarray(values[:, block])
        bar = loosened(observed[block])
        for first in range(0, len(weights), _ROWS_PER_COUNT):
            rows = slice(first, first + _ROWS_PER_COUNT)
            statistic = weights[rows] @ some
            if alternative == "two-sided":
                np.abs(statistic, out=statistic)
            np.maximum(largest[rows], statistic.max(axis=1), out=largest[rows])
            reached = (statistic >= bar).view(np.uint8)
            count[block] += reached.sum(axis=0, dtype=np.uint8)
    return count


def signs_of(n_participants: int, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Sign patterns without the identity, (n_patterns, n_participants)."""
    if n_participants < 40 and 2**n_participants <= n_permutations:
        patterns = np.arange(1, 2**n_participants)[:, None]
        return 1.0 - 2.0 * ((patterns >> np.arange(n_participants)) & 1)
    return rng.integers(0, 2, size=(n_permutations, n_participants)) * 2.0 - 1.0


def studentise(total: np.ndarray, squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """One-sample t from sums and sums of squares; 0 where all values are 0."""
    mean = total / n
    variance = (squares / n - mean**2) / (n - 1)
    variance = np.maximum(variance, 1e-15 * squares)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)


def draw_counts(n_participants: int, n_bootstraps: int, rng: np.random.Generator) -> np.ndarray:
    """How often each resample draws each participant, (n_bootstraps, n_participants)."""
    check_settings(n_bootstraps)
    drawn = rng.integers(0, n_participants, (n_bootstraps, n_participants), dtype=np.uint32)
    places = drawn + np.arange(n_bootstraps)[:, None] * n_participants  # one row a resample
    counts = np.bincount(places.ravel(), minlength=drawn.size)
    return counts.reshape(drawn.shape).astype(np.float64)


def resampled_means(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of the participants drawn; NaN where none of them has a value."""
    present = ~np.isnan(values)
    total = counts @ np.where(present, values, 0.0)
    n = counts @ present if not present.all() else counts.sum(axis=1, keepdims=True)
    return np.where(n > 0, total, np.nan) / np.maximum(n, 1.0)
