"""The dimensions on which heads differ, by the parcels in which they have more of the weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core
from bids_brainlm.numerics.scores import pearson

MIN_HEADS = 4
MIN_PARCELS = 3
_CONSTANT = 1e-12  # spread of logarithms that is rounding
_LARGEST_TABLE = 2**22  # values, 32 MiB
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Specialization:
    """Principal components of heads.

    Attributes
    ----------
    scores : array, shape (n_heads, n_components)
        Scores of heads; their mean over heads is 0 and their variance that of the component.
    loadings : array, shape (n_components, n_parcels)
        Correlation over heads of each parcel's group profile with the scores, -1 to 1; NaN in
        parcels that were left out and along components without variance.
    share : array, shape (n_components,)
        Share of the variance of the group's patterns.
    agreement : array, shape (n_components,)
        What is tested: the variance that averaging over participants leaves along the component,
        where each participant's pattern has a variance of 1.
    null_95 : array, shape (n_components,)
        95th percentile of ``agreement`` over signs of participants. NaN with one participant.
    p : array, shape (n_components,)
        By signs of participants; never smaller than that of an earlier component. NaN with one
        participant.
    reliability : array, shape (n_components,)
        Absolute correlation over heads of the scores of random halves of the participants, mean
        over splits. NaN with one participant.
    n_participants : array of int, shape (n_parcels,)
        Participants whose excesses of a parcel are known and vary over heads.
    """

    scores: np.ndarray
    loadings: np.ndarray
    share: np.ndarray
    agreement: np.ndarray
    null_95: np.ndarray
    p: np.ndarray
    reliability: np.ndarray
    n_participants: np.ndarray


def specialize(
    excess: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    n_components: int = 5,
    n_splits: int = 50,
) -> Specialization:
    """Find the dimensions on which the parcels of all participants weigh heads differently.

    Parameters
    ----------
    excess : array, shape (n_participants, n_heads, n_parcels)
        Logarithm of the norm of each head's weights, less what a series that is as slow and
        follows nothing gives; see `head_nulls.norm_excess`. A NaN in any head, or the same
        value for all heads, makes a parcel unknown in that participant.
    n_permutations : int
        Random patterns of signs; all of them if ``2 ** n_participants`` is not more.
    rng : numpy.random.Generator
        Source of randomness.
    n_components : int
        Components to keep; fewer where there are not as many heads less 1, or parcels less 1.
    n_splits : int
        Random halvings of the participants for the reliability.

    Returns
    -------
    Specialization

    Raises
    ------
    NumericalError
        Not three dimensions, infinite values, fewer than 4 heads, wrong settings, fewer than 3
        parcels that are known in half of the participants, or the same profile of heads in all.

    Notes
    -----
    What is decomposed are head-by-parcel patterns: a participant's excesses, less each parcel's
    mean over heads and each head's mean over parcels. Neither the overall weight of a head nor
    that of a parcel counts, only in which parcels a head has relatively more of it. Parcels must
    be known in at least half of the participants; participants in at least 3 of these. Every
    pattern is scaled to a variance of 1, so that noisy people do not count more. The mean over
    participants is decomposed with heads as observations. Centring leaves one dimension less
    than there are parcels, and the means of a component's parcels balance: a loading says how a
    parcel differs from the others. Signs are such that the loadings of a component have a sum of
    at least 0. They are correlations, not the inverse transform of the paper's code, which is no
    map of anything.

    Why not the norms themselves: they are positive for noise too, larger for heads that change
    slowly or have large kernels, and more so in slow parcels, which is the same for everybody
    who heard the story. Where brains follow nothing, norms standardised over heads, with heads
    permuted within participants, gave p <= 0.05 for the first component in all groups with the
    heads of a real model. Patterns of logarithms of norms gave 4 %, but 13 % where lag-1
    autocorrelations of the parcels go from 0.3 to 0.5, and 100 % from 0.1 to 0.8. Those of
    excesses give 3 to 6 % whatever the autocorrelations.

    Null hypothesis: patterns are symmetric about 0 over participants. Whole patterns get random
    signs and go through the same average and decomposition. Signs of all participants together
    change nothing, so p is at least ``2 ** (1 - n_participants)``: fewer than 6 participants
    cannot reach 0.05. The *share* of a component would not do as a statistic: participants who
    agree in everything have about the shares of participants who agree in nothing.
    ``agreement`` is 1 in total where they agree in everything, and about 1 over their number
    where they agree in nothing.

    What the test does not know: why people agree. They also do where parcels follow the story
    to unlike degrees, and where parcels share a response to it that the model does not hold,
    which goes with some heads by chance.

    For component k, the components before it are taken out of every participant, of heads and of
    parcels; p is the largest of those so far, so that the components up to the first that is not
    significant can be reported without further correction. p is (k + 1) / (n + 1).

    For the reliability, components of both halves are matched to those of all participants by
    the absolute correlation of their scores. Components of nearly the same share may mix, which
    makes it small. Without any agreement it is about ``1 / sqrt(n_heads)``, not 0,
    and more where heads resemble each other (0.3 for the first component of 72 real heads).

    References
    ----------
    .. [1] Kumar, Sumers et al. (2024), doi:10.1038/s41467-024-49173-5
    .. [2] Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060
    .. [3] Winkler et al. (2020), doi:10.1016/j.neuroimage.2020.117065
    """
    excess = _checked(excess, n_components, n_permutations, n_splits)
    unknown = np.isnan(excess).any(axis=1)
    excess = np.where(unknown[:, None], 0.0, excess)
    known, kept = _usable(np.ptp(excess, axis=1) > _CONSTANT)
    n_known = known.sum(axis=0)
    patterns = _patterns(excess[:, :, kept], known[:, kept])
    if not patterns.any():
        raise NumericalError(
            f"All {int(kept.sum())} parcels have the same relative weights of heads, expected "
            "parcels that differ.",
            hint="Choose another atlas with --atlas, or regions with --rois.",
        )
    parts = _recentred(patterns / n_known[kept])
    n_components = min(n_components, excess.shape[1] - 1, int(kept.sum()) - 1)
    mean = parts.sum(axis=0)
    left, sizes, right = _components(mean, n_components)
    agreement = sizes**2 / mean.size
    loadings = np.full((n_components, excess.shape[2]), np.nan)
    loadings[:, kept] = pearson((left * sizes)[:, :, None], mean[:, None, :])
    signs = np.where(np.nansum(loadings, axis=1) < 0, -1.0, 1.0)
    null_95, p = np.full((2, n_components), np.nan)
    reliability = np.full(n_components, np.nan)
    if len(excess) > 1:
        flips = core.signs_of(len(excess), n_permutations, rng)
        for k in range(n_components):
            null = _null(parts, left[:, :k], right[:, :k], flips)
            null_95[k] = np.quantile(null, 0.95)
            reached = (null >= agreement[k] * (1.0 - _TOLERANCE)).sum()
            p[k] = (reached + 1.0) / (len(flips) + 1.0)
        reliability = _reliability(patterns, known[:, kept], left, n_splits, rng)
    return Specialization(
        left * sizes * signs,
        loadings * signs[:, None],
        sizes**2 / (mean**2).sum(),
        agreement,
        null_95,
        np.maximum.accumulate(p),
        reliability,
        n_known,
    )


def _checked(
    excess: np.ndarray, n_components: int, n_permutations: int, n_splits: int
) -> np.ndarray:
    """Float64 values after checking shape and settings."""
    excess = np.asarray(excess, dtype=np.float64)
    shape = excess.shape
    if excess.ndim != 3 or 0 in shape or shape[1] < MIN_HEADS or np.isinf(excess).any():
        raise NumericalError(
            f"Found excesses of norms of shape {shape}, expected finite values or NaN of "
            f"participants by at least {MIN_HEADS} heads by parcels.",
            hint="Choose a model with more heads with --model.",
        )
    if shape[2] < MIN_PARCELS:
        raise NumericalError(
            f"Found norms of {shape[2]} parcels, expected at least {MIN_PARCELS}, because "
            "patterns of heads are relative to their mean over parcels.",
            hint="Choose an atlas with more parcels with --atlas, or more regions with --rois.",
        )
    if min(n_components, n_permutations, n_splits) < 1:
        raise NumericalError(
            f"Found {n_components} components, {n_permutations} permutations and {n_splits} "
            "splits, expected at least 1 of each.",
            hint="Set --n-permutations to at least 1.",
        )
    return excess


def _usable(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is known of participants who have enough parcels, and parcels that enough have."""
    n_participants, n_parcels = known.shape
    while True:
        kept = known.sum(axis=0) >= max(1, n_participants / 2)
        few = known[:, kept].sum(axis=1) < MIN_PARCELS
        if not known[few].any():
            break
        known = known & ~few[:, None]
    if kept.sum() < MIN_PARCELS:
        raise NumericalError(
            f"{int(kept.sum())} of {n_parcels} parcels have norms that are known and vary over "
            f"heads in at least half of {n_participants} participants, expected at least "
            f"{MIN_PARCELS}.",
            hint="Check the coverage of the atlas, or choose one with more parcels with --atlas "
            "or regions with --rois.",
        )
    return known, kept


def _patterns(excess: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Patterns of variance 1 without means of heads and known parcels; 0 where unknown."""
    mask = known[:, None]
    n_known = np.maximum(known.sum(axis=1), 1)[:, None, None]
    values = np.where(mask, excess - excess.mean(axis=1, keepdims=True), 0.0)
    values = np.where(mask, values - values.sum(axis=2, keepdims=True) / n_known, 0.0)
    squares = (values**2).sum(axis=(1, 2)) / (n_known[:, 0, 0] * excess.shape[1])
    size = np.where(squares > _CONSTANT**2, np.sqrt(squares), np.inf)
    return values / size[:, None, None]


def _recentred(values: np.ndarray) -> np.ndarray:
    """Take out the mean over parcels, which is not 0 where participants have different ones."""
    return values - values.mean(axis=-1, keepdims=True)


def _components(mean: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of heads, sizes (0 for rounding) and directions of parcels."""
    left, sizes, right = linalg.svd(mean, full_matrices=False)
    sizes = np.where(sizes > _TOLERANCE * sizes[0], sizes, 0.0)
    return left[:, :n_components], sizes[:n_components], right[:n_components].T


def _null(parts: np.ndarray, left: np.ndarray, right: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Agreement of the next component for each pattern of signs."""
    parts = parts - left @ (left.T @ parts)
    parts = parts - (parts @ right) @ right.T
    if parts.shape[1] > parts.shape[2]:
        parts = parts.swapaxes(1, 2)
    _, n_rows, n_columns = parts.shape
    flat = parts.reshape(len(parts), -1)
    at_once = max(1, _LARGEST_TABLE // flat.shape[1])
    null = []
    for first in range(0, len(flips), at_once):
        means = (flips[first : first + at_once] @ flat).reshape(-1, n_rows, n_columns)
        null.append(np.linalg.eigvalsh(means @ means.swapaxes(1, 2))[:, -1])
    return np.concatenate(null) / flat.shape[1]


def _reliability(
    patterns: np.ndarray,
    known: np.ndarray,
    directions: np.ndarray,
    n_splits: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean absolute correlation of the scores of random halves."""
    n_components = directions.shape[1]
    found = []
    for _ in range(n_splits):
        order = rng.permutation(len(patterns))
        halves = [order[: len(order) // 2], order[len(order) // 2 :]]
        counts = [known[half].sum(axis=0) for half in halves]
        usable = np.all([count > 0 for count in counts], axis=0)
        if usable.sum() <= n_components:
            continue
        matched = []
        for half, count in zip(halves, counts, strict=True):
            mean = _recentred(patterns[half][:, :, usable].sum(axis=0) / count[usable])
            own = _components(mean, n_components)[0]
            _, order_own = optimize.linear_sum_assignment(-np.abs(directions.T @ own))
            matched.append(own[:, order_own])
        found.append(np.abs((matched[0] * matched[1]).sum(axis=0)))
    return np.mean(found, axis=0) if found else np.full(n_components, np.nan)
