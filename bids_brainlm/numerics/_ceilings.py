"""Arithmetic behind `ceilings`: statistics of the matrix of pairwise correlations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core

_PARCELS_PER_BLOCK = 32
_RESAMPLES_PER_BLOCK = 250
_ENOUGH = 0.5  # share of resamples that must have a value
_FEWEST = 4  # different participants in a resample; with fewer the formulas break down
_RELATIVE_ZERO = 1e-20
_LARGEST_R = 1.0 - 1e-12

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def checked(series: np.ndarray, fewest: int = 4) -> np.ndarray:
    """Return series after checking their shape."""
    series = np.asarray(series)
    if series.ndim != 3 or len(series) < fewest:
        raise NumericalError(
            f"Series have shape {series.shape}, expected (n_participants >= {fewest}, n_trs, "
            "n_parcels).",
            hint="Leave this ceiling out for stories with so few participants.",
        )
    return series


def draws(n: int, n_bootstraps: int, level: float, rng: np.random.Generator) -> np.ndarray:
    """How often each resample holds each participant."""
    if not 0.0 < level < 1.0:
        raise NumericalError(f"Found the level {level}, expected a number between 0 and 1.")
    return core.draw_counts(n, n_bootstraps, rng)


def standardised(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred series of norm 1 (0 where absent), and which are present."""
    series = series.astype(np.float64)
    raw = np.einsum("itv,itv->iv", series, series)
    series -= series.mean(axis=1, keepdims=True)
    squares = np.einsum("itv,itv->iv", series, series)
    present = squares > _RELATIVE_ZERO * raw  # False for NaN
    scale = np.sqrt(np.where(present, squares, 1.0))
    return np.where(present[:, None], series / scale[:, None], 0.0), present


def over_blocks(series: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a function of the pairs, (n_parcels, n, n), to blocks of parcels."""
    found = []
    for start in range(0, series.shape[2], _PARCELS_PER_BLOCK):
        unit, present = standardised(series[:, :, start : start + _PARCELS_PER_BLOCK])
        pairs = np.einsum("itv,jtv->vij", unit, unit, optimize=True)
        both = present.T[:, :, None] & present.T[:, None]
        found.append(function(np.where(both, pairs, np.nan)))
    return np.concatenate(found, axis=-1)


def pair_interval(
    series: np.ndarray, counts: np.ndarray, level: float, statistic: Statistic
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic of the pairs; NaN where too many resamples have none."""
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]

    def bounds(pairs: np.ndarray) -> np.ndarray:
        drawn = [
            statistic(counts[first : first + _RESAMPLES_PER_BLOCK], pairs)
            for first in range(0, len(counts), _RESAMPLES_PER_BLOCK)
        ]
        drawn = np.concatenate(drawn)
        known = np.isfinite(drawn)
        found = np.full((2, drawn.shape[1]), np.nan)
        whole = known.all(axis=0)
        found[:, whole] = np.quantile(drawn[:, whole], tails, axis=0)
        for column in np.flatnonzero(~whole & (known.mean(axis=0) >= _ENOUGH)):
            found[:, column] = np.quantile(drawn[known[:, column], column], tails)
        return found

    low, high = over_blocks(series, bounds)
    return low, high


def apart(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of different participants (0 elsewhere), and who is present, (v, n)."""
    present = ~np.isnan(np.einsum("vii->vi", pairs))
    apart = np.nan_to_num(pairs, nan=0.0)
    np.einsum("vii->vi", apart)[...] = 0.0
    return apart, present


def mean_loo(weights: np.ndarray, apart: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean Fisher z of leave-one-out r for weights of participants, (n_draws, n_parcels)."""
    w = weights[None] * present[:, None]  # v, draws, n
    n = w.sum(axis=2, keepdims=True)
    own = np.matmul(w, apart)
    total = (w * own).sum(axis=2, keepdims=True)
    squares = (w**2).sum(axis=2, keepdims=True)
    others = n - w
    n_pairs = others**2 - (squares - w**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        m = own / others
        c = (total - 2.0 * w * own) / n_pairs
        r = m / np.sqrt((1.0 + (n - 2.0) * c) / (n - 1.0))
        z = np.arctanh(np.clip(r, -_LARGEST_R, _LARGEST_R))
        mean = np.where(w > 0, w * z, 0.0).sum(axis=2) / n[:, :, 0]
    return np.where(_enough(w), mean, np.nan).T


def mean_halves(
    weights: np.ndarray, apart: np.ndarray, present: np.ndarray, splits: np.ndarray
) -> np.ndarray:
    """Mean Fisher z over splits of r between halves, (n_draws, n_parcels)."""
    w = weights[None] * present[:, None]
    own = np.matmul(w, apart)
    sums, n_known = 0.0, 0.0
    for split in splits:
        a, b = w * split, w * ~split
        own_a = np.matmul(a, apart)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (own_a * b).sum(axis=2) / (a.sum(axis=2) * b.sum(axis=2))
            r = between
            for half, mine, chosen in ((a, own_a, split), (b, own - own_a, ~split)):
                n_pairs = half.sum(axis=2) ** 2 - (half**2).sum(axis=2)
                c = (mine * half).sum(axis=2) / n_pairs
                size = (present & chosen).sum(axis=1)[:, None]
                c = np.where(size > 1, c, 0.0)
                r = r / np.sqrt((1.0 + (size - 1.0) * c) / size)
            z = np.arctanh(np.clip(r, -_LARGEST_R, _LARGEST_R))
        known = np.isfinite(z)
        sums = sums + np.where(known, z, 0.0)
        n_known = n_known + known
    enough = _enough(w) & (n_known > 0)
    return np.where(enough, sums / np.maximum(n_known, 1), np.nan).T


def _enough(w: np.ndarray) -> np.ndarray:
    """Whether a resample has enough different participants, (n_parcels, n_draws)."""
    return (w > 0).sum(axis=2) >= _FEWEST


def spearman_brown(r: np.ndarray) -> np.ndarray:
    """Reliability of the whole from that of halves; r below 0 is kept as it is."""
    return np.where(r > 0, 2.0 * r / (1.0 + np.maximum(r, 0.0)), r)
