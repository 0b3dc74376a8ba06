"""Arithmetic behind `alignment`: curves over lags, their peaks and their null."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy
from scipy.interpolate import CubicSpline

from bids_brainlm.errors import NumericalError

_LARGEST_R = 1.0 - 1e-12
_FINE = 40  # steps per TR in which the highest value is sought


def prepared(
    response: np.ndarray, series: np.ndarray, tr: float, high_pass: float, n_lags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Check one run and take slow changes out of response and series."""
    x = np.asarray(response, dtype=np.float64)
    y = np.asarray(series, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise NumericalError(
            f"The response has shape {x.shape} and the series {y.shape}, expected finite values "
            "of shape (n_trs,) for both."
        )
    if n_lags < 1 or len(x) < 6 * n_lags + 3:
        raise NumericalError(
            f"A run of {len(x)} TRs is too short for lags of up to {n_lags} TRs, expected at "
            f"least {6 * max(n_lags, 1) + 3}.",
        )
    n_slow = int(2 * len(x) * tr / high_pass)
    phase = np.pi * (np.arange(len(x))[:, None] + 0.5) * np.arange(n_slow + 1) / len(x)
    basis = np.linalg.qr(np.cos(phase))[0]
    kept = []
    for one in (x, y):
        rest = one - basis @ (basis.T @ one)
        size = np.linalg.norm(rest)
        if size <= 1e-9 * np.linalg.norm(one):
            raise NumericalError("A response or series is constant, expected one that varies.")
        kept.append(rest / size)
    return kept[0], kept[1]


def curve(x: np.ndarray, y: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Fisher z of the correlation of x with y that comes lag rows later, (n_lags,)."""
    values = []
    for lag in lags:
        first, last = max(lag, 0), len(x) + min(lag, 0)
        late, early = y[first:last], x[first - lag : last - lag]
        late, early = late - late.mean(), early - early.mean()
        r = late @ early / np.sqrt((late @ late) * (early @ early))
        values.append(np.arctanh(np.clip(r, -_LARGEST_R, _LARGEST_R)))
    return np.array(values)


def middle(curves: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the runs (axis 0); the median of up to 4."""
    ordered = np.sort(curves, axis=0)
    cut = len(curves) // 4 if len(curves) > 4 else (len(curves) - 1) // 2
    return ordered[cut : len(curves) - cut].mean(axis=0)


def peaks(curves: np.ndarray, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lag in rows and height (r) of the highest value of each curve of Fisher z, by a spline.

    On the scale of r: z has a sharp tip near r = 1, which pulls lags to whole TRs.
    """
    fine = np.linspace(lags[0], lags[-1], _FINE * (len(lags) - 1) + 1)
    values = CubicSpline(lags, np.tanh(np.atleast_2d(curves)), axis=1)(fine)
    top = values.argmax(axis=1)
    return fine[top], values[np.arange(len(values)), top]


def rotated(pairs: Sequence[tuple[np.ndarray, np.ndarray]], n_lags: int) -> np.ndarray:
    """Middle over runs of Fisher z after rotations that are further than any lag tried."""
    shortest = min(len(x) for x, _ in pairs)
    curves = []
    for x, y in pairs:
        r = np.fft.irfft(np.conj(np.fft.rfft(x)) * np.fft.rfft(y), n=len(x))
        shifts = np.linspace(0, len(x), shortest, endpoint=False).astype(int)
        curves.append(np.arctanh(np.clip(r[shifts], -_LARGEST_R, _LARGEST_R)))
    return middle(np.array(curves))[n_lags + 1 : shortest - n_lags]


def significance(height: float, null: np.ndarray, n_tried: int) -> tuple[float, float]:
    """Standard score of the highest value, and p by Sidak over the lags tried."""
    spread = float(np.std(null, ddof=1))
    if not spread > 0:
        return math.nan, 1.0
    z = (height - float(np.mean(null))) / spread
    return z, float(-np.expm1(n_tried * scipy.stats.norm.logcdf(z)))


def interval(
    curves: np.ndarray, lags: np.ndarray, n_bootstraps: int, seed: int
) -> tuple[float, float]:
    """95 % interval of the lag of the middle curve in rows, by resampling runs."""
    if len(curves) < 5:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(curves), (n_bootstraps, len(curves)))
    found, _ = peaks(np.stack([middle(curves[rows]) for rows in drawn]), lags)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
