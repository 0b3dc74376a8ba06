"""Group statistics over participants who heard one or several of the stories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core
from bids_brainlm.numerics.resampling import sign_flip_test

_SMALL_STRATUM = 5
_TARGETS_PER_BLOCK = 256
WEIGHTS = ("stories", "participants")


@dataclass(frozen=True)
class Stratified:
    """Group statistics of each target, all arrays of shape (n_targets,).

    Attributes
    ----------
    mean, low, high : array
        Mean over stories and participants with its interval, in the units of the values.
    d, d_low, d_high : array
        Mean in units of the standard deviation over participants within stories (Hedges' g).
    p, p_fwe : array
        By sign flips of participants; ``p_fwe`` by the largest t over targets.
    n_participants : array of int
        Participants with any value.
    n_permutations : int
        Sign patterns besides the data themselves.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    d: np.ndarray
    d_low: np.ndarray
    d_high: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    n_participants: np.ndarray
    n_permutations: int


def stratified_test(
    values: np.ndarray,
    *,
    n_permutations: int,
    n_bootstraps: int,
    rng: np.random.Generator,
    weights: str = "stories",
    alternative: str = "greater",
    level: float = 0.95,
) -> Stratified:
    """Test and describe the mean over participants, stratified by story.

    Parameters
    ----------
    values : array, shape (n_participants, n_stories, n_targets)
        Such as Fisher z; NaN where a participant did not hear a story.
    n_permutations : int
        Number of sign patterns; all of them where there are no more.
    n_bootstraps : int
        Number of resamples of participants.
    rng : numpy.random.Generator
        Source of randomness.
    weights : {"stories", "participants"}
        Every story counts the same, or every value does.
    alternative : {"greater", "less", "two-sided"}
        Direction of the test.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Stratified
        NaN where there are fewer than 2 participants, and for d where no story has 2.

    Raises
    ------
    NumericalError
        Wrong shapes or settings.

    Notes
    -----
    The mean is a sum of one contribution per participant, over all stories that this
    participant heard. A flip changes the sign of the whole contribution, so that a person
    who heard three stories counts once in the null and not as three.

    Resamples draw participants with all their stories, within strata of people who heard the
    same stories, so that stories keep their numbers; strata of fewer than 5 people are put
    together. Since a resample of n people has a variance that is too small by
    ``(n - n_strata) / n``, and tails as of the normal and not the t distribution, percentiles
    further out are taken [1]_; without this intervals of 18 participants cover 92 %, not 95 %.

    ``d`` is the mean over the pooled standard deviation within stories, with the correction of
    [2]_ for few participants, ``1 - 3 / (4 df - 1)``. p values are those of
    `resampling.sign_flip_test` [3]_.

    References
    ----------
    .. [1] Hesterberg (2015), doi:10.1080/00031305.2015.1089789
    .. [2] Hedges (1981), doi:10.3102/10769986006002107
    .. [3] Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060
    """
    values = np.asarray(values, dtype=np.float64)
    _check(values, weights, level)
    tested = sign_flip_test(
        _contributions(values, weights),
        n_permutations=n_permutations,
        rng=rng,
        alternative=alternative,
    )
    heard = ~np.isnan(values).all(axis=2)
    strata = _strata(heard)
    counts = _draw(strata, n_bootstraps, rng)
    tails = _tails(level, strata)
    n_targets = values.shape[2]
    bounds = np.full((4, n_targets), np.nan)
    mean, d = np.full(n_targets, np.nan), np.full(n_targets, np.nan)
    whole = np.ones((1, len(values)))
    for block in _blocks(n_targets):
        mean[block], d[block] = (x[0] for x in _describe(whole, values[:, :, block], weights))
        drawn = _describe(counts, values[:, :, block], weights)
        bounds[:2, block], bounds[2:, block] = (_quantiles(x, tails) for x in drawn)
    none = np.isnan(tested.observed)
    bounds[:, none] = np.nan
    bounds[2:, np.isnan(d)] = np.nan
    return Stratified(
        mean=np.where(none, np.nan, mean),
        low=bounds[0],
        high=bounds[1],
        d=np.where(none, np.nan, d),
        d_low=bounds[2],
        d_high=bounds[3],
        p=tested.p,
        p_fwe=tested.p_fwe,
        n_participants=(~np.isnan(values)).any(axis=1).sum(axis=0),
        n_permutations=tested.n_permutations,
    )


def _check(values: np.ndarray, weights: str, level: float) -> None:
    """Raise if the input makes no sense."""
    if values.ndim != 3 or not values.shape[0] or not values.shape[1]:
        raise NumericalError(
            f"Values have shape {values.shape}, expected (n_participants, n_stories, n_targets)."
        )
    if weights not in WEIGHTS or not 0.0 < level < 1.0:
        raise NumericalError(
            f"Found weights '{weights}' and level {level}, expected one of {WEIGHTS} and a number "
            "between 0 and 1."
        )


def _contributions(values: np.ndarray, weights: str) -> np.ndarray:
    """Values per participant whose mean is the stratified mean, (n_participants, n_targets)."""
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    n_each = present.sum(axis=0)
    if weights == "stories":
        n_stories = np.maximum((n_each > 0).sum(axis=0), 1)
        share = 1.0 / (np.maximum(n_each, 1) * n_stories)
    else:
        share = np.broadcast_to(1.0 / np.maximum(n_each.sum(axis=0), 1), n_each.shape)
    anywhere = present.any(axis=1)
    total = np.einsum("ist,st->it", filled, share) * anywhere.sum(axis=0)
    return np.where(anywhere, total, np.nan)


def _strata(heard: np.ndarray) -> np.ndarray:
    """Number of the stratum of each participant; those who heard nothing get -1."""
    _, number, size = np.unique(heard, axis=0, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    number = np.where(size[number] < _SMALL_STRATUM, len(size), number)
    return np.where(heard.any(axis=1), number, -1)


def _draw(strata: np.ndarray, n_bootstraps: int, rng: np.random.Generator) -> np.ndarray:
    """How often each resample holds each participant, (n_bootstraps, n_participants)."""
    core.check_settings(n_bootstraps)
    counts = np.zeros((n_bootstraps, len(strata)))
    for stratum in np.unique(strata[strata >= 0]):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = core.draw_counts(members.size, n_bootstraps, rng)
    return counts


def _tails(level: float, strata: np.ndarray) -> np.ndarray:
    """Percentiles to take, further out than the level says."""
    n = int((strata >= 0).sum())
    free = max(n - len(np.unique(strata[strata >= 0])), 1)
    far = scipy.stats.t.ppf((1.0 + level) / 2.0, free) * np.sqrt(n / free)
    return np.array([scipy.stats.norm.cdf(-far), scipy.stats.norm.cdf(far)])


def _blocks(n_targets: int) -> Iterator[slice]:
    """Slices of targets."""
    return (
        slice(start, min(start + _TARGETS_PER_BLOCK, n_targets))
        for start in range(0, n_targets, _TARGETS_PER_BLOCK)
    )


def _describe(
    counts: np.ndarray, values: np.ndarray, weights: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and d of every resample, (n_draws, n_targets) each."""
    shape = (len(counts), values.shape[2])
    total, weight, scatter, free = (np.zeros(shape) for _ in range(4))
    for story in range(values.shape[1]):
        own = values[:, story]
        present = ~np.isnan(own)
        centre = np.where(present, own, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        filled = np.where(present, own - centre, 0.0)  # centred for precision
        n = counts @ present
        sums, squares = counts @ filled, counts @ filled**2
        some = np.maximum(n, 1.0)
        share = (n > 0) if weights == "stories" else n
        total += share * (sums / some + centre)
        weight += share
        scatter += squares - sums**2 / some
        free += np.maximum(n - 1.0, 0.0)
    mean = np.where(weight > 0, total, np.nan) / np.maximum(weight, 1.0)
    variance = np.where(free > 0, scatter, np.nan) / np.maximum(free, 1.0)
    floor = 1e-24 * mean**2
    correction = 1.0 - 3.0 / np.maximum(4.0 * free - 1.0, 3.0 + 1e-9)
    return mean, correction * mean / np.sqrt(np.where(variance > floor, variance, np.nan))


def _quantiles(drawn: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Percentiles over resamples, (2, n_targets), of those that have a value."""
    found = np.full((2, drawn.shape[1]), np.nan)
    known = ~np.isnan(drawn)
    whole = known.all(axis=0)
    found[:, whole] = np.quantile(drawn[:, whole], tails, axis=0)
    for column in np.flatnonzero(~whole & known.any(axis=0)):
        found[:, column] = np.quantile(drawn[known[:, column], column], tails)
    return found
