"""Nulls of held-out predictions that keep their autocorrelation.

One interface with `resampling.block_permutation_test`: prediction, target and the rows of
the outer folds go in, r with its p values comes out. Every null moves the *prediction*
within each outer fold, the same way for all targets, so that the dependence between targets
stays and the largest statistic over targets gives family-wise p values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core
from bids_brainlm.numerics.resampling import Resampled

_SHARED_TRAINING = 2.0**0.5
_FEWEST_SHIFTS = 5
_SHIFT_SHARED = 10
_FEWEST_BLOCKS = 12

Null = Callable[[np.ndarray, np.ndarray, slice], np.ndarray]


def circular_shift_test(
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    segments: Sequence[slice] | None = None,
    minimum_shift: int | None = None,
    shared_training: bool = True,
    alternative: str = "greater",
) -> Resampled:
    """Test held-out predictions against themselves, rotated within every outer fold.

    Parameters
    ----------
    prediction, target : array, shape (n_rows, n_targets)
        Held-out predictions and data, outer folds concatenated in time order.
    n_permutations : int
        Number of draws; each draws one shift per segment, shared by all targets.
    rng : numpy.random.Generator
        Source of randomness.
    segments : sequence of slice, optional
        Rows of each outer fold, within which both series are z-scored and rotated.
        Default: one.
    minimum_shift : int, optional
        Fewest rows (TRs) that a segment is rotated, in either direction. Default: 10 with
        ``shared_training``, else 1.
    shared_training : bool
        The model of each fold was trained on the other folds of the same target; see
        `resampling.block_permutation_test`.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is r over the fold-wise standardised series.

    Raises
    ------
    NumericalError
        Shapes differ, segments do not partition the rows or are too short, or wrong settings.

    Notes
    -----
    Over all rotations of a centred segment the correlations add up to 0. Left out, those near
    0 (which are like the observed one where series are slow) would push the mean of the
    others to the other side of 0 and make the test too lenient; the mean over the rotations
    allowed is therefore taken off, segment by segment. The null is multiplied by sqrt(2) with
    ``shared_training``, as for permuted blocks. Simulated without signal (300 to 500 TRs,
    autoregressive noise of .3 to .9), 3 to 6 % of targets reach p <= 0.05 with the default
    shifts, with and without shared training; with 1 and shared training 2 to 5 %.
    """
    z = _prepare(prediction, target, segments, n_permutations, alternative)
    if minimum_shift is None:
        minimum_shift = _SHIFT_SHARED if shared_training else 1
    shifts = []
    for rows in z.segments:
        length = rows.stop - rows.start
        allowed = np.arange(minimum_shift, length - minimum_shift + 1)
        if minimum_shift < 1 or allowed.size < _FEWEST_SHIFTS:
            raise NumericalError(
                f"A segment of {length} rows leaves {max(allowed.size, 0)} rotations of at least "
                f"{minimum_shift} rows, expected at least {_FEWEST_SHIFTS} and 1 row.",
                hint="Use fewer folds with --cv, or a longer story.",
            )
        shifts.append((allowed, rng.integers(0, allowed.size, n_permutations)))

    def null(a: np.ndarray, b: np.ndarray, draws: slice) -> np.ndarray:
        total = 0.0
        for rows, (allowed, drawn) in zip(z.segments, shifts, strict=True):
            spectrum = np.conj(np.fft.rfft(a[rows], axis=0)) * np.fft.rfft(b[rows], axis=0)
            products = np.fft.irfft(spectrum, n=rows.stop - rows.start, axis=0)[allowed]
            total = total + (products - products.mean(axis=0))[drawn[draws]]
        return total

    return _test(z, null, shared_training)


def phase_randomisation_test(
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    segments: Sequence[slice] | None = None,
    shared_training: bool = True,
    alternative: str = "greater",
) -> Resampled:
    """Test held-out predictions against copies of the same spectrum with random phases.

    Parameters
    ----------
    prediction, target : array, shape (n_rows, n_targets)
        Held-out predictions and data, outer folds concatenated in time order.
    n_permutations : int
        Number of draws; the phases of a draw are shared by all targets.
    rng : numpy.random.Generator
        Source of randomness.
    segments : sequence of slice, optional
        Rows of each outer fold, within which both series are z-scored and the phases drawn.
        Default: one.
    shared_training : bool
        The model of each fold was trained on the other folds of the same target; see
        `resampling.block_permutation_test`.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is r over the fold-wise standardised series.

    Raises
    ------
    NumericalError
        Shapes differ, segments do not partition the rows, or wrong settings.

    Notes
    -----
    A random phase is added to every frequency of the prediction but 0 and, for even lengths,
    the highest, whose sign is drawn. Phases that all targets share keep the cross-spectra of
    the predictions. The correlation with the data is computed from the cross-spectrum, which
    gives the same numbers as going back to time. The null is multiplied by sqrt(2) with
    ``shared_training``, as for permuted blocks. Simulated without signal (300 to 500 TRs,
    autoregressive noise of .3 to .9), 4 to 6 % of targets reach p <= 0.05 without shared
    training, and 2 to 5 % with it, where permuted blocks have 4 to 6 %.

    References
    ----------
    .. [1] Prichard and Theiler (1994), doi:10.1103/PhysRevLett.73.951
    """
    z = _prepare(prediction, target, segments, n_permutations, alternative)
    phases = []
    for rows in z.segments:
        length = rows.stop - rows.start
        phase = np.exp(2j * np.pi * rng.random((n_permutations, length // 2)))
        if length % 2 == 0:
            phase[:, -1] = rng.choice([-1.0, 1.0], n_permutations)
        phases.append(phase)

    def null(a: np.ndarray, b: np.ndarray, draws: slice) -> np.ndarray:
        total = 0.0
        for rows, phase in zip(z.segments, phases, strict=True):
            length = rows.stop - rows.start
            cross = np.conj(np.fft.rfft(b[rows], axis=0)) * np.fft.rfft(a[rows], axis=0)
            cross = cross[1:] * (2.0 / length)
            if length % 2 == 0:
                cross[-1] *= 0.5
            picked = phase[draws]
            total = total + picked.real @ cross.real - picked.imag @ cross.imag
        return total

    return _test(z, null, shared_training)


@dataclass(frozen=True)
class BlockLength:
    """Estimated block lengths, in rows.

    Attributes
    ----------
    of_target : array, shape (n_targets,)
        Unrounded; NaN where a series is constant or has NaN.
    used : int
        The quantile over targets, rounded up and limited.
    longest : int
        The limit.
    """

    of_target: np.ndarray
    used: int
    longest: int


def estimate_block_length(
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    segments: Sequence[slice] | None = None,
    quantile: float = 0.9,
    shortest: int = 10,
) -> BlockLength:
    """Estimate how long blocks must be to hold the autocorrelation of both series.

    Parameters
    ----------
    prediction, target : array, shape (n_rows, n_targets)
        Held-out predictions and data, outer folds concatenated in time order.
    segments : sequence of slice, optional
        Rows of each outer fold; both series are z-scored and autocovariances summed within.
        Default: one.
    quantile : float
        Which quantile over targets is used for all.
    shortest : int
        Fewest rows per block.

    Returns
    -------
    BlockLength
        ``used`` is at least ``shortest`` and at most a twelfth of the rows.

    Raises
    ------
    NumericalError
        Shapes differ, segments do not partition the rows, or the quantile is not in 0 to 1.

    Notes
    -----
    The statistic is the mean of the product of the two series. Without a relation between
    them, the autocorrelation of the product is the product of the autocorrelations R(k), and
    the optimal length of circular blocks for the variance of a mean is
    ``(2 G^2 / D)^(1/3) n^(1/3)`` with ``G = sum w(k/M) |k| R(k)``, ``D = 4/3 g^2``,
    ``g = sum w(k/M) R(k)``, and w the flat-top window [1]_ [2]_. M is twice the lag after
    which ``K = max(5, log10 n)`` autocorrelations in a row lie below
    ``2 sqrt(log10 n / n)``, for each of the two series; the smaller of the two counts, since
    the product vanishes with either.

    The estimate is the best length for the variance and still leaves a little of it out: with
    4 to 6 rows, as it finds for noise of autocorrelation .3, up to 7 % of null targets reach
    p <= 0.05. Hence the 10 rows of ``shortest``, the usual length in such studies.

    References
    ----------
    .. [1] Politis and White (2004), doi:10.1081/ETC-120028836
    .. [2] Patton, Politis and White (2009), doi:10.1080/07474930802459016
    """
    z = _prepare(prediction, target, segments, 1, "greater")
    if not 0.0 <= quantile <= 1.0:
        raise NumericalError(f"Found the quantile {quantile}, expected a number from 0 to 1.")
    n_rows = len(z.target)
    n_lags = max(min(int(np.ceil(3 * np.sqrt(n_rows))), _shortest(z.segments) - 1), 1)
    own = _autocorrelation(z.prediction, z.segments, n_lags)
    other = _autocorrelation(z.target, z.segments, n_lags)
    width = 2 * np.minimum(_last_lag(own, n_rows), _last_lag(other, n_rows))
    lags = np.arange(n_lags + 1)[:, None]
    share = lags / np.maximum(width, 1)
    window = np.clip(2.0 * (1.0 - share), 0.0, 1.0)
    weighted = window * own * other
    g = weighted[0] + 2.0 * weighted[1:].sum(axis=0)
    slope = 2.0 * (lags * weighted).sum(axis=0)
    g = np.maximum(g, 0.1 * weighted[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = (1.5 * slope**2 / g**2 * n_rows) ** (1.0 / 3.0)
    lengths = np.where(z.usable, np.maximum(lengths, 1.0), np.nan)
    longest = max(n_rows // _FEWEST_BLOCKS, 1)
    known = lengths[~np.isnan(lengths)]
    chosen = np.quantile(known, quantile) if known.size else 1.0
    used = int(np.clip(np.ceil(chosen), min(shortest, longest), longest))
    return BlockLength(lengths, used, longest)


@dataclass(frozen=True)
class _Prepared:
    """Standardised series; ``usable`` has shape (n_targets,)."""

    prediction: np.ndarray
    target: np.ndarray
    usable: np.ndarray
    segments: list[slice]
    n_permutations: int
    alternative: str


def _prepare(
    prediction: np.ndarray,
    target: np.ndarray,
    segments: Sequence[slice] | None,
    n_permutations: int,
    alternative: str,
) -> _Prepared:
    """Check and standardise the input of a test."""
    prediction, target = np.asarray(prediction), np.asarray(target)
    core.check_settings(n_permutations, alternative)
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise NumericalError(
            f"Predictions have shape {prediction.shape} and targets {target.shape}, expected "
            "(n_rows, n_targets) for both."
        )
    n_rows = len(target)
    given = [slice(0, n_rows)] if segments is None else list(segments)
    core.check_segments(given, n_rows)
    rows = [slice(*one.indices(n_rows)[:2]) for one in given]
    a, b = core.standardise(prediction, rows), core.standardise(target, rows)
    usable = a.any(axis=0) & b.any(axis=0)
    return _Prepared(a, b, usable, rows, n_permutations, alternative)


def _test(z: _Prepared, null: Null, shared_training: bool) -> Resampled:
    """Compare the observed r with its null, in blocks of targets and draws."""
    n_rows, n_targets = z.target.shape
    observed = (z.prediction * z.target).sum(axis=0) / n_rows
    observed = np.where(z.usable, observed, np.nan)
    bar = core.directed(observed, z.alternative)
    count = np.zeros(n_targets)
    largest = np.full(z.n_permutations, -np.inf)
    widening = (_SHARED_TRAINING if shared_training else 1.0) / n_rows
    for start in range(0, n_targets, core.TARGETS_PER_BLOCK):
        block = slice(start, start + core.TARGETS_PER_BLOCK)
        for first in range(0, z.n_permutations, core.RESAMPLES_PER_BLOCK):
            draws = slice(first, min(first + core.RESAMPLES_PER_BLOCK, z.n_permutations))
            values = null(z.prediction[:, block], z.target[:, block], draws) * widening
            values = core.directed(values, z.alternative)
            values[:, ~z.usable[block]] = -np.inf
            np.maximum(largest[draws], values.max(axis=1), out=largest[draws])
            count[block] += (values >= core.loosened(bar[block])).sum(axis=0)
    return Resampled(
        observed=observed,
        p=core.p_value(count, z.n_permutations, observed),
        p_fwe=core.p_largest(bar, largest),
        n_permutations=z.n_permutations,
    )


def _shortest(segments: Sequence[slice]) -> int:
    """Rows of the shortest segment."""
    return min(rows.stop - rows.start for rows in segments)


def _autocorrelation(z: np.ndarray, segments: Sequence[slice], n_lags: int) -> np.ndarray:
    """Autocorrelation at lags 0 to n_lags, (n_lags + 1, n_targets), summed over segments."""
    total = np.zeros((n_lags + 1, z.shape[1]))
    for rows in segments:
        length = rows.stop - rows.start
        size = 2 ** int(np.ceil(np.log2(length + n_lags + 1)))
        power = np.abs(np.fft.rfft(z[rows], n=size, axis=0)) ** 2
        total += np.fft.irfft(power, n=size, axis=0)[: n_lags + 1]
    scale = np.where(total[0] > 0, total[0], 1.0)
    return total / scale


def _last_lag(autocorrelation: np.ndarray, n_rows: int) -> np.ndarray:
    """Lag after which several autocorrelations in a row are small, (n_targets,)."""
    n_small = max(5, int(np.ceil(np.log10(n_rows))))
    bar = 2.0 * np.sqrt(np.log10(n_rows) / n_rows)
    small = np.abs(autocorrelation[1:]) < bar
    padded = np.vstack([small, np.ones((n_small - 1, small.shape[1]), bool)])
    runs = np.lib.stride_tricks.sliding_window_view(padded, n_small, axis=0).all(axis=-1)
    found = runs.any(axis=0)
    return np.where(found, runs.argmax(axis=0), len(small)).clip(1)
