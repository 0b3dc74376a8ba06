"""Noise ceilings side by side, with intervals over participants.

Leave-one-out and split-half correlations depend on participants only through the matrix of
their pairwise correlations. Intervals resample participants in that matrix: pairs of a
participant with a copy of itself, whose correlation is 1, never count, and formulas that
hold variances of averages use the mean pairwise correlation instead of the copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _ceilings as pairs_core
from bids_brainlm.numerics import ridge
from bids_brainlm.numerics.folds import Fold, contiguous_folds, positions
from bids_brainlm.numerics.isc import leave_one_out
from bids_brainlm.numerics.resampling import bootstrap_interval
from bids_brainlm.numerics.scores import fisher_mean

_LARGEST_R = 1.0 - 1e-12


@dataclass(frozen=True)
class Ceiling:
    """A ceiling and how sure it is.

    Attributes
    ----------
    value : array, shape (n_parcels,)
        Correlation (leave-one-out, split-half, cross-subject) or share of variance (repeats).
    low, high : array, shape (n_parcels,)
        Interval over participants; NaN where there are too few.
    own : array, shape (n_participants, n_parcels), or None
        Values of participants, where the ceiling has such.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own: np.ndarray | None = None

    @property
    def usable(self) -> np.ndarray:
        """Where scores may be divided by the ceiling: its interval lies above 0."""
        return np.nan_to_num(self.low, nan=-1.0) > 0


def leave_one_out_ceiling(
    series: np.ndarray, *, n_bootstraps: int, rng: np.random.Generator, level: float = 0.95
) -> Ceiling:
    """Correlate each participant with the mean of the others, with an interval.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid; constant series and those with NaN count as absent.
    n_bootstraps : int
        Number of resamples of participants.
    rng : numpy.random.Generator
        Source of randomness.
    level : float
        Coverage of the interval.

    Returns
    -------
    Ceiling
        ``value`` is the Fisher mean of ``own``, which `isc.leave_one_out` gives.

    Raises
    ------
    NumericalError
        Wrong shapes or settings, or fewer than 4 participants.

    Notes
    -----
    With unit series, the mean m of participant i's correlations with the N - 1 others, and
    the mean c of the correlations among these, leave-one-out r is
    ``m / sqrt((1 + (N - 2) c) / (N - 1))``. A resample is given by how often it holds each
    participant; m and c are then weighted means over pairs of *different* participants,
    which makes copies count as further people of the same kind, not as the same person.
    Without signal the interval is wider than it need be, which errs to the safe side. Resamples
    of fewer than 4 different people do not count, so that 5 or fewer people give no interval.

    References
    ----------
    .. [1] Chen et al. (2016), doi:10.1016/j.neuroimage.2016.05.023
    """
    series = pairs_core.checked(series)
    n = len(series)
    counts = pairs_core.draws(n, n_bootstraps, level, rng)

    def statistic(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        return pairs_core.mean_loo(weights, *pairs_core.apart(pairs))

    low, high = pairs_core.pair_interval(series, counts, level, statistic)
    own = leave_one_out(series)
    return Ceiling(fisher_mean(own), np.tanh(low), np.tanh(high), own)


def split_half_ceiling(
    series: np.ndarray,
    *,
    n_bootstraps: int,
    rng: np.random.Generator,
    n_splits: int = 100,
    n_splits_of_resample: int = 10,
    level: float = 0.95,
) -> Ceiling:
    """Correlate means of random halves of the participants, corrected to the whole group.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid; constant series and those with NaN count as absent.
    n_bootstraps : int
        Number of resamples of participants.
    rng : numpy.random.Generator
        Source of splits and resamples, the same for all parcels.
    n_splits : int
        Random splits for the value.
    n_splits_of_resample : int
        Of these, how many are used for each resample.
    level : float
        Coverage of the interval.

    Returns
    -------
    Ceiling
        Reliability of the mean over *all* participants: the mean over splits (Fisher) of the
        half's r, then Spearman-Brown, ``2 r / (1 + r)``.

    Raises
    ------
    NumericalError
        Wrong shapes or settings, or fewer than 4 participants.

    Notes
    -----
    Each series is z-scored first. It is the correlation of the group mean with that of as many
    other people; its square root is the highest correlation of a model with the group mean.
    It grows with the number of participants, so that it is no ceiling for single participants.
    With an odd number the halves differ by one. In resamples all copies of a participant go to
    the same half, and copies count as in `leave_one_out_ceiling`.

    References
    ----------
    .. [1] Spearman (1910), doi:10.1111/j.2044-8295.1910.tb00206.x
    .. [2] Lage-Castellanos et al. (2019), doi:10.1371/journal.pcbi.1006397
    """
    series = pairs_core.checked(series)
    n = len(series)
    if n_splits < 1 or n_splits_of_resample < 1:
        raise NumericalError(
            f"Found {n_splits} splits and {n_splits_of_resample} of a resample, expected at least "
            "1 of each."
        )
    splits = rng.permuted(np.tile(np.arange(n) < n // 2, (n_splits, 1)), axis=1)
    counts = pairs_core.draws(n, n_bootstraps, level, rng)

    def statistic(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        used = splits if len(weights) == 1 else splits[:n_splits_of_resample]
        return pairs_core.mean_halves(weights, *pairs_core.apart(pairs), used)

    low, high = pairs_core.pair_interval(series, counts, level, statistic)
    value = pairs_core.over_blocks(series, lambda pairs: statistic(np.ones((1, n)), pairs)[0])
    return Ceiling(*(pairs_core.spearman_brown(np.tanh(z)) for z in (value, low, high)))


def cross_subject_ceiling(
    series: np.ndarray,
    *,
    n_folds: int,
    n_inner: int,
    gap: int,
    alphas: Sequence[float],
    n_groups: int = 5,
    level: float = 0.95,
) -> Ceiling:
    """Predict each participant from all parcels of all others, cross-validated in time.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid; series with NaN or that are constant count as absent.
    n_folds, n_inner : int
        Contiguous outer and inner folds.
    gap : int
        TRs left out on both sides of a test block, outer and inner.
    alphas : sequence of float
        Penalties, in units of the mean diagonal of the kernel; chosen for each parcel.
    n_groups : int
        Groups of participants that are left out in turn for the interval; 0: no interval.
    level : float
        Coverage of the interval.

    Returns
    -------
    Ceiling
        ``own`` is the mean over folds of r; ``value`` its Fisher mean over participants.

    Raises
    ------
    NumericalError
        Wrong shapes or settings, or fewer than 3 participants.

    Notes
    -----
    Kernels of participants are added up, so that all parcels share one factorisation per
    participant and fold. Series are centred on training rows; the scale of each is that of the
    whole run. A linear map between participants allows for different topographies, which a
    parcel-by-parcel correlation does not, and has neither delays nor a stimulus.

    Every value depends on all participants through its training features, so that the values
    cannot be resampled alone: the interval is a jackknife that repeats everything without each
    group, on Fisher's z scale, with the t distribution of ``n_groups - 1`` degrees of freedom.

    References
    ----------
    .. [1] Caucheteux et al. (2023), doi:10.1038/s41562-022-01516-2
    .. [2] Efron and Stein (1981), doi:10.1214/aos/1176345462
    """
    series = pairs_core.checked(series, fewest=3)
    n, n_trs, n_parcels = series.shape
    filled, present = pairs_core.standardised(series)
    kernels = np.einsum("itv,isv->its", filled, filled, optimize=True)
    folds = contiguous_folds(np.arange(n_trs), n_folds, gap)
    inner = [
        [positions(f, fold.train) for f in contiguous_folds(fold.train, n_inner, gap)]
        for fold in folds
    ]
    penalties = np.asarray(alphas, dtype=np.float64)

    def scores_of(members: np.ndarray) -> np.ndarray:
        total = kernels[members].sum(axis=0)
        rows = [
            _from_others(total - kernels[i], filled[i], folds, inner, penalties) for i in members
        ]
        return np.where(present[members], rows, np.nan)

    own = scores_of(np.arange(n))
    value = fisher_mean(own)
    if n_groups < 2 or n < 4:
        missing = np.full(n_parcels, np.nan)
        return Ceiling(value, missing, missing, own)
    groups = np.array_split(np.arange(n), min(n_groups, n))
    left = np.stack(
        [fisher_mean(scores_of(np.setdiff1d(np.arange(n), group))) for group in groups]
    )
    z = np.arctanh(np.clip(left, -_LARGEST_R, _LARGEST_R))
    k = len(groups)
    spread = np.sqrt((k - 1) / k * ((z - z.mean(axis=0)) ** 2).sum(axis=0))
    half = scipy.stats.t.ppf((1.0 + level) / 2.0, k - 1) * spread
    centre = np.arctanh(np.clip(value, -_LARGEST_R, _LARGEST_R))
    return Ceiling(value, np.tanh(centre - half), np.tanh(centre + half), own)


def explainable_variance(repeats: np.ndarray, *, correct_bias: bool = True) -> np.ndarray:
    """Share of variance that comes back when a participant hears the story again.

    Parameters
    ----------
    repeats : array, shape (n_repeats, n_trs, n_parcels)
        Runs of one participant on the same story grid.
    correct_bias : bool
        Take off what the average of as many runs of noise would have.

    Returns
    -------
    array, shape (n_parcels,)
        NaN where a run is constant or has NaN. With two runs and the correction it is their
        correlation; it may be negative.

    Raises
    ------
    NumericalError
        Wrong shapes or fewer than 2 runs.

    Notes
    -----
    Runs are z-scored. With n runs, ``ev`` is the variance of the mean run (its share of the
    variance of a run), and the corrected value ``ev - (1 - ev) / (n - 1)``, which equals the
    signal power of [1]_ [2]_ on z-scored runs. Its square root is the highest r that a model
    of the stimulus can reach in a single run.

    References
    ----------
    .. [1] Hsu et al. (2004), doi:10.1088/0954-898X/15/2/002
    .. [2] Schoppe et al. (2016), doi:10.3389/fncom.2016.00010
    """
    repeats = np.asarray(repeats)
    if repeats.ndim != 3 or len(repeats) < 2:
        raise NumericalError(
            f"Repeats have shape {repeats.shape}, expected (n_repeats >= 2, n_trs, n_parcels).",
            hint="Explainable variance needs a participant who heard the story twice.",
        )
    filled, present = pairs_core.standardised(repeats)
    ev = (filled.mean(axis=0) ** 2).sum(axis=0)
    if correct_bias:
        ev = ev - (1.0 - ev) / (len(repeats) - 1)
    return np.where(present.all(axis=0), ev, np.nan)


def repeat_ceiling(
    repeats: Sequence[np.ndarray],
    *,
    n_bootstraps: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Ceiling:
    """Average explainable variance over participants, with an interval.

    Parameters
    ----------
    repeats : sequence of array, shape (n_repeats, n_trs, n_parcels)
        Runs of each participant on the same story grid; numbers of runs and TRs may differ.
    n_bootstraps : int
        Number of resamples of participants.
    rng : numpy.random.Generator
        Source of randomness.
    level : float
        Coverage of the interval.

    Returns
    -------
    Ceiling
        ``own`` is `explainable_variance` of each participant, ``value`` their mean.

    Raises
    ------
    NumericalError
        Wrong shapes or no participant.

    Notes
    -----
    These values of participants are independent, so that they can be resampled as they are.
    """
    if not len(repeats):
        raise NumericalError("Nobody heard the story twice, expected at least one participant.")
    own = np.stack([explainable_variance(one) for one in repeats])
    low, high = bootstrap_interval(own, n_bootstraps=n_bootstraps, rng=rng, level=level)
    n_known = (~np.isnan(own)).sum(axis=0)
    total = np.nansum(own, axis=0)
    return Ceiling(np.where(n_known > 0, total, np.nan) / np.maximum(n_known, 1), low, high, own)


def _from_others(
    kernel: np.ndarray,
    target: np.ndarray,
    folds: Sequence[Fold],
    inner: Sequence[Sequence[Fold]],
    alphas: np.ndarray,
) -> np.ndarray:
    """Mean over folds of r between a participant and its prediction, (n_parcels,)."""
    gammas = np.ones((1, 1))
    found = []
    for fold, parts in zip(folds, inner, strict=True):
        train = kernel[np.ix_(fold.train, fold.train)]
        test = kernel[np.ix_(fold.test, fold.train)]
        column = train.mean(axis=0)
        test = test - test.mean(axis=1, keepdims=True) - column + column.mean()
        train = train - column[:, None] - column + column.mean()
        size = np.trace(train) / len(train)
        if not size > 0:
            raise NumericalError("No other participant has a series, expected at least one.")
        own = target[fold.train] - target[fold.train].mean(axis=0)
        choice = ridge.search((train / size)[None], [own], gammas, alphas, parts)
        dual = ridge.refit((train / size)[None], [own], choice, gammas, alphas)[0]
        weights = gammas[choice[0].gamma_index]
        prediction = ridge.predict((test / size)[None], dual, weights).sum(axis=0)
        observed = target[fold.test]
        prediction = prediction - prediction.mean(axis=0)
        observed = observed - observed.mean(axis=0)
        norms = np.sqrt((prediction**2).sum(axis=0) * (observed**2).sum(axis=0))
        products = (prediction * observed).sum(axis=0)
        found.append(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 1e-150))
    return np.mean(found, axis=0)
