"""Tests and intervals by resampling, written as matrix products.

Every p value is ``(k + 1) / (n + 1)`` where k of n resamples reach the observed statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core

_SHARED_TRAINING = 2.0**0.5


@dataclass(frozen=True)
class Resampled:
    """Result of a resampling test.

    Attributes
    ----------
    observed : array, shape (n_targets,)
        The statistic: r for the block permutation, mean over participants otherwise.
    p : array, shape (n_targets,)
        Uncorrected p values; NaN where there is nothing to test.
    p_fwe : array, shape (n_targets,)
        p values by the largest statistic over the targets of the call.
    n_permutations : int
        Number of resamples besides the data themselves.
    block_length_used : int or None
        Rows per block; None where no blocks are used.
    """

    observed: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    n_permutations: int
    block_length_used: int | None = None


def block_permutation_test(
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    block_length: int,
    n_permutations: int,
    rng: np.random.Generator,
    segments: Sequence[slice] | None = None,
    shared_training: bool = True,
    alternative: str = "greater",
) -> Resampled:
    """Test held-out predictions against permuted blocks of themselves.

    Parameters
    ----------
    prediction, target : array, shape (n_rows, n_targets)
        Held-out predictions and data, outer folds concatenated in time order.
    block_length : int
        Fewest rows (TRs) per block.
    n_permutations : int
        Number of permutations.
    rng : numpy.random.Generator
        Source of randomness.
    segments : sequence of slice, optional
        Rows of each outer fold, within which both series are z-scored. Default: one.
    shared_training : bool
        The model of each fold was trained on the other folds of the same target
        (cross-validation). False: the predictor never saw this target, as with another
        story or another participant.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is r over the fold-wise standardised series, which is the mean of the
        fold r values weighted by the folds' rows.

    Raises
    ------
    NumericalError
        Shapes differ, segments do not partition the rows, fewer than 5 blocks, or wrong
        settings.

    Notes
    -----
    Blocks of the prediction are permuted over the whole concatenation; each permutation is
    shared by all targets, which keeps their dependence and gives ``p_fwe``. The block length
    used is the one between ``block_length`` and 1.25 times it that leaves fewest rows over
    (the shortest of these); left-over rows, at the end, stay in place. A constant segment
    counts as 0. Targets with NaN, or constant in all segments, get NaN.

    With ``shared_training`` the permuted statistics are multiplied by sqrt(2). The score of
    fold f holds, for every other fold g, a term ``y_f' K_fg y_g``; the score of fold g holds
    the same term, so that without signal the fold scores vary together and their mean has up
    to twice the variance that permuted blocks have. In simulations of the whole pipeline
    without signal, 10 to 13 % of targets reach p <= 0.05 without this, whatever the block
    length, and 4 to 6 % with it (3 to 4 % where features drift over the story).

    Without ``shared_training`` the prediction is centred over all rows and not within
    segments before blocks move, since a block that changes its segment would otherwise lose
    the slow covariance that the observed series have (5 to 6 % instead of 5 to 7 %). With B
    blocks the permuted statistics are multiplied by sqrt(B / (B - 1)): shuffling B blocks takes
    off a mean over blocks at each place within a block, so that their variance is (B - 1) / B of
    that of B independent blocks. This counts where blocks are few (4 to 7 % instead of 5 to 8 %
    for one story of 150 to 240 rows).

    A ``block_length`` of 15 TRs is calibrated for 340 to 500 TRs of 1.5 to 2 s.

    References
    ----------
    .. [1] LeBel et al. (2023), doi:10.1038/s41597-023-02437-z
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    core.check_settings(n_permutations, alternative)
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise NumericalError(
            f"Predictions have shape {prediction.shape} and targets {target.shape}, expected "
            "(n_rows, n_targets) for both."
        )
    n_rows, n_targets = target.shape
    segments = [slice(0, n_rows)] if segments is None else list(segments)
    core.check_segments(segments, n_rows)
    length = choose_block_length(n_rows, block_length)
    n_blocks = n_rows // length
    widening = _SHARED_TRAINING if shared_training else (n_blocks / (n_blocks - 1)) ** 0.5
    orders = rng.permuted(np.tile(np.arange(n_blocks), (n_permutations, 1)), axis=1)
    observed = np.empty(n_targets)
    count = np.empty(n_targets)
    largest = np.full(n_permutations, -np.inf)
    width = core.targets_per_block(n_blocks)
    for start in range(0, n_targets, width):
        block = slice(start, start + width)
        a = core.standardise(prediction[:, block], segments, within=shared_training)
        b = core.standardise(target[:, block], segments)
        observed[block] = (a * b).sum(axis=0) / n_rows
        observed[block][~(a.any(axis=0) & b.any(axis=0))] = np.nan
        products, rest = core.block_products(a, b, length)
        products *= widening
        rest *= widening
        count[block] = core.count_permuted(
            products,
            rest,
            orders,
            core.directed(observed[block], alternative),
            largest,
            alternative,
        )
    return Resampled(
        observed=observed,
        p=core.p_value(count, n_permutations, observed),
        p_fwe=core.p_largest(core.directed(observed, alternative), largest),
        n_permutations=n_permutations,
        block_length_used=length,
    )


def choose_block_length(n_rows: int, block_length: int) -> int:
    """Find a block length that leaves few rows over.

    Parameters
    ----------
    n_rows : int
        Rows to divide.
    block_length : int
        Fewest rows per block.

    Returns
    -------
    int
        The shortest of the lengths from ``block_length`` to 1.25 times it for which the
        number of rows left over is smallest.

    Raises
    ------
    NumericalError
        There would be fewer than 5 blocks.
    """
    if block_length < 1 or n_rows // block_length < 5:
        raise NumericalError(
            f"{n_rows} rows hold fewer than 5 blocks of {block_length} rows.",
            hint="Use a longer story, or fewer rows per block in the settings.",
        )
    longest = min(block_length + block_length // 4, n_rows // 5)
    return min(range(block_length, longest + 1), key=lambda length: (n_rows % length, length))


def sign_flip_test(
    values: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    alternative: str = "greater",
) -> Resampled:
    """Test whether the mean over participants differs from 0.

    Parameters
    ----------
    values : array, shape (n_participants, n_targets)
        One value per participant, such as Fisher z. A NaN is a missing participant.
    n_permutations : int
        Number of random sign patterns; if ``2 ** n_participants`` is not more, all patterns
        are used instead.
    rng : numpy.random.Generator
        Source of randomness.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is the mean. ``n_permutations`` does not count the identity.

    Raises
    ------
    NumericalError
        Not two dimensions, or wrong settings.

    Notes
    -----
    ``p_fwe`` uses the largest t over targets (studentised, so that targets of large variance
    do not rule); p is the same for t and mean. Signs are shared by all targets. Targets with
    fewer than 2 participants get NaN. With all patterns the p value is exact and no smaller
    than ``2 ** -n_participants``.

    References
    ----------
    .. [1] Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060
    """
    values = core.as_table(values)
    core.check_settings(n_permutations, alternative)
    signs = core.signs_of(len(values), n_permutations, rng)
    present = ~np.isnan(values)
    enough = present.sum(axis=0) >= 2
    n = np.where(enough, present.sum(axis=0), 2)
    filled = np.where(present & enough, values, 0.0)
    squares = (filled**2).sum(axis=0)
    observed = np.where(enough, filled.sum(axis=0) / n, np.nan)
    if present.all() and len(values) >= 2:
        return _complete_sign_flips(values, signs, alternative)
    statistic = core.directed(core.studentise(filled.sum(axis=0), squares, n), alternative)
    statistic = np.where(enough, statistic, np.nan)
    count = np.zeros(values.shape[1])
    largest = np.full(len(signs), -np.inf)
    for start in range(0, values.shape[1], core.TARGETS_PER_BLOCK):
        block = slice(start, start + core.TARGETS_PER_BLOCK)
        for first in range(0, len(signs), core.RESAMPLES_PER_BLOCK):
            rows = slice(first, first + core.RESAMPLES_PER_BLOCK)
            t = core.studentise(signs[rows] @ filled[:, block], squares[block], n[block])
            t = np.where(enough[block], core.directed(t, alternative), -np.inf)
            largest[rows] = np.maximum(largest[rows], t.max(axis=1))
            count[block] += (t >= core.loosened(statistic[block])).sum(axis=0)
    return Resampled(
        observed=observed,
        p=core.p_value(count, len(signs), observed),
        p_fwe=core.p_largest(statistic, largest),
        n_permutations=len(signs),
    )


def _complete_sign_flips(values: np.ndarray, signs: np.ndarray, alternative: str) -> Resampled:
    """Without missing values t rises with ``u = sum / sqrt(n * sum of squares)``: one product."""
    size = np.sqrt(len(values) * (values**2).sum(axis=0))
    scaled = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
    statistic = core.directed(scaled.sum(axis=0), alternative)
    largest = np.full(len(signs), -np.inf)
    count = core.count_products(signs, scaled, statistic, largest, alternative)
    return Resampled(
        observed=values.mean(axis=0),
        p=core.p_value(count, len(signs), statistic),
        p_fwe=core.p_largest(statistic, largest),
        n_permutations=len(signs),
    )


def bootstrap_interval(
    values: np.ndarray, *, n_bootstraps: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over participants.

    Parameters
    ----------
    values : array, shape (n_participants, n_targets)
        One value per participant; NaN are missing participants.
    n_bootstraps : int
        Number of resamples of participants, shared by all targets.
    rng : numpy.random.Generator
        Source of randomness.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : array, shape (n_targets,)
        In the units of ``values``; NaN with fewer than 2 participants.

    Raises
    ------
    NumericalError
        Not two dimensions, or wrong settings.
    """
    values = core.as_table(values)
    if not 0.0 < level < 1.0:
        raise NumericalError(f"Found the level {level}, expected a number between 0 and 1.")
    counts = core.draw_counts(len(values), n_bootstraps, rng)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    bounds = np.full((2, values.shape[1]), np.nan)
    for start in range(0, values.shape[1], core.TARGETS_PER_BLOCK):
        block = slice(start, start + core.TARGETS_PER_BLOCK)
        means = core.resampled_means(counts, values[:, block])
        some = np.isnan(means).any(axis=0)
        bounds[:, block][:, ~some] = np.quantile(means[:, ~some], tails, axis=0)
        for column in np.flatnonzero(some & ((~np.isnan(values[:, block])).sum(axis=0) >= 2)):
            known = means[~np.isnan(means[:, column]), column]
            bounds[:, start + column] = np.quantile(known, tails)
    bounds[:, (~np.isnan(values)).sum(axis=0) < 2] = np.nan
    return bounds[0], bounds[1]


def bootstrap_test(
    values: np.ndarray,
    *,
    n_bootstraps: int,
    rng: np.random.Generator,
    alternative: str = "greater",
) -> Resampled:
    """Test the mean over participants by a bootstrap that is shifted to 0.

    Parameters
    ----------
    values : array, shape (n_participants, n_targets)
        One value per participant; NaN are missing participants.
    n_bootstraps : int
        Number of resamples of participants, shared by all targets.
    rng : numpy.random.Generator
        Source of randomness.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is the mean; the null is the same statistic of values whose mean was
        taken off.

    Raises
    ------
    NumericalError
        Not two dimensions, or wrong settings.

    Notes
    -----
    Not studentised, so ``p_fwe`` is ruled by targets of large variance, and p is somewhat
    too small with few participants; prefer `sign_flip_test`.

    References
    ----------
    .. [1] Chen et al. (2016), doi:10.1016/j.neuroimage.2016.05.023
    """
    values = core.as_table(values)
    core.check_settings(n_bootstraps, alternative)
    counts = core.draw_counts(len(values), n_bootstraps, rng)
    present = ~np.isnan(values)
    enough = present.sum(axis=0) >= 2
    mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    observed = np.where(enough, mean, np.nan)
    statistic = core.directed(observed, alternative)
    count = np.zeros(values.shape[1])
    largest = np.full(n_bootstraps, -np.inf)
    complete = present.all() and len(values) >= 2
    if complete:
        shares = (values - mean) / len(values)
        count = core.count_products(counts, shares, statistic, largest, alternative)
    for start in range(0, 0 if complete else values.shape[1], core.TARGETS_PER_BLOCK):
        block = slice(start, start + core.TARGETS_PER_BLOCK)
        null = core.directed(
            core.resampled_means(counts, values[:, block] - mean[block]), alternative
        )
        null = np.where(enough[block] & ~np.isnan(null), null, -np.inf)
        largest = np.maximum(largest, null.max(axis=1))
        count[block] = (null >= core.loosened(statistic[block])).sum(axis=0)
    return Resampled(
        observed=observed,
        p=core.p_value(count, n_bootstraps, observed),
        p_fwe=core.p_largest(statistic, largest),
        n_permutations=n_bootstraps,
    )
