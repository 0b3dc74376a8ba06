"""The dimensions on which heads differ, by what their weights say of the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, sparse

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.scores import pearson

MIN_HEADS = 4
_CONSTANT = 1e-12  # relative spread over heads that is rounding
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
        Correlation over heads of each parcel's profile with the scores, -1 to 1; NaN in parcels
        that were left out.
    share : array, shape (n_components,)
        Share of the variance of the group's standardised profiles.
    agreement : array, shape (n_components,)
        What is tested: the variance over heads, mean over parcels, that averaging over
        participants leaves along the component, where each participant has a variance of 1.
    null_95 : array, shape (n_components,)
        95th percentile of ``agreement`` where participants share nothing.
    p : array, shape (n_components,)
        By permutation of heads within participants; never smaller than that of an earlier
        component. NaN with one participant.
    reliability : array, shape (n_components,)
        Absolute correlation over heads of the scores of random halves of the participants, mean
        over splits. NaN with one participant.
    n_participants : array of int, shape (n_parcels,)
        Participants whose norms of a parcel are known and vary over heads.
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
    norms: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    n_components: int = 5,
    n_splits: int = 50,
) -> Specialization:
    """Find the dimensions on which heads differ in the same way in all participants.

    Parameters
    ----------
    norms : array, shape (n_participants, n_heads, n_parcels)
        L2 norms of each head's weights. A NaN in any head, or the same norm for all heads, makes
        a parcel unknown in that participant.
    n_permutations : int
        Permutations of heads, for each component.
    rng : numpy.random.Generator
        Source of randomness.
    n_components : int
        Components to keep; fewer where there are not as many heads less 1, or parcels.
    n_splits : int
        Random halvings of the participants for the reliability.

    Returns
    -------
    Specialization

    Raises
    ------
    NumericalError
        Not three dimensions, fewer than 4 heads, wrong settings, or no parcel that is known in
        half of the participants.

    Notes
    -----
    Norms are standardised over heads in each participant and parcel, so that neither the signal
    of a person nor that of a parcel counts; averaged over the participants who have them (at
    least half, otherwise the parcel is left out); standardised over heads again, so that all
    parcels count alike; and decomposed with heads as observations and parcels as variables.
    Signs are such that the loadings of a component have a sum of at least 0. Loadings are
    correlations, not the inverse transform of the paper's code, which is no map of anything.

    Null hypothesis: heads differ, but not the same heads in different participants. Whole rows
    of heads are permuted within each participant, which keeps how parcels vary together, and go
    through the same pipeline. The *share* of a component would not do as a statistic:
    participants who agree in everything have about the shares of participants who agree in
    nothing. ``agreement`` is 1 in total where they agree in everything, and about 1 over their
    number where they agree in nothing.

    For component k, what the components before it explain is taken out of every participant, and
    the remainder, in an orthonormal basis of what heads have left, is permuted; p is the largest
    of those so far, so that the components up to the first that is not significant can be
    reported without further correction. Component k against component k of one null for all is
    not enough: where one strong pattern is shared and another, stronger one is everyone's own,
    22 instead of 6 % of second components reach p <= 0.05. Where a shared and an own pattern
    are about as strong, components mix them, and the second may rightly share what the first
    has left. p is (k + 1) / (n + 1).

    For the reliability, components of both halves are matched to those of all participants by
    the absolute correlation of their scores. Components of nearly the same share may mix, which
    makes it small. Without any agreement it is about ``0.8 / sqrt(n_heads)``, not 0.

    References
    ----------
    .. [1] Kumar, Sumers et al. (2024), doi:10.1038/s41467-024-49173-5
    .. [2] Winkler et al. (2020), doi:10.1016/j.neuroimage.2020.117065
    """
    norms = _checked(norms, n_components, n_permutations, n_splits)
    profiles, known = _standardised(norms)
    n_known = known.sum(axis=0)
    kept = n_known >= max(1, len(norms) / 2)
    kept &= np.abs(profiles.sum(axis=0)).max(axis=0) > _CONSTANT * len(norms)
    if not kept.any():
        raise NumericalError(
            f"None of {norms.shape[2]} parcels has norms that are known and vary over heads in at "
            f"least half of {len(norms)} participants.",
            hint="Check the coverage of the atlas, or choose participants with "
            "--participant-label.",
        )
    profiles = profiles[:, :, kept]
    mean = profiles.sum(axis=0) / n_known[kept]
    n_components = min(n_components, norms.shape[1] - 1, int(kept.sum()))
    scores, share = _components(mean, n_components)
    loadings = np.full((n_components, norms.shape[2]), np.nan)
    loadings[:, kept] = pearson(scores[:, :, None], mean[:, None, :])
    signs = np.where(np.nansum(loadings, axis=1) < 0, -1.0, 1.0)
    directions = _unit(scores)
    agreement = ((directions.T @ mean) ** 2).sum(axis=1) / mean.size
    null_95, p = np.full((2, n_components), np.nan)
    reliability = np.full(n_components, np.nan)
    if len(norms) > 1:
        for k in range(n_components):
            null = _null(profiles, n_known[kept], directions[:, :k], n_permutations, rng)
            null_95[k] = np.quantile(null, 0.95)
            reached = (null >= agreement[k] * (1.0 - _TOLERANCE)).sum()
            p[k] = (reached + 1.0) / (n_permutations + 1.0)
        reliability = _reliability(profiles, known[:, kept], directions, n_splits, rng)
    return Specialization(
        scores * signs,
        loadings * signs[:, None],
        share,
        agreement,
        null_95,
        np.maximum.accumulate(p),
        reliability,
        n_known,
    )


def _checked(
    norms: np.ndarray, n_components: int, n_permutations: int, n_splits: int
) -> np.ndarray:
    """Float64 norms after checking shape and settings."""
    norms = np.asarray(norms, dtype=np.float64)
    if norms.ndim != 3 or 0 in norms.shape or norms.shape[1] < MIN_HEADS or np.isinf(norms).any():
        raise NumericalError(
            f"Found norms of shape {norms.shape}, expected finite values or NaN of participants by "
            f"at least {MIN_HEADS} heads by parcels.",
            hint="Choose a model with more heads with --model.",
        )
    if min(n_components, n_permutations, n_splits) < 1:
        raise NumericalError(
            f"Found {n_components} components, {n_permutations} permutations and {n_splits} "
            "splits, expected at least 1 of each.",
            hint="Set --n-permutations to at least 1.",
        )
    return norms


def _standardised(norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z-scores over heads, 0 where unknown, and what is known (n_participants, n_parcels)."""
    known = ~np.isnan(norms).any(axis=1)
    filled = np.where(known[:, None], norms, 0.0)
    centred = filled - filled.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1))
    known &= spread > _CONSTANT * np.sqrt((filled**2).mean(axis=1))
    return centred / np.where(known, spread, np.inf)[:, None], known


def _components(mean: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of heads and shares of variance, parcels standardised."""
    spread = np.sqrt((mean**2).mean(axis=0))
    left, values, _ = linalg.svd(mean / spread, full_matrices=False)
    share = values**2 / (values**2).sum()
    return (left * values)[:, :n_components], share[:n_components]


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns of length 1; 0 where they are nothing."""
    length = np.sqrt((columns**2).sum(axis=0))
    return columns / np.where(length > 0, length, np.inf)


def _null(
    profiles: np.ndarray,
    n_known: np.ndarray,
    before: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Agreement of the next component when heads are permuted in each participant."""
    n_participants, n_heads, n_parcels = profiles.shape
    fixed = ((before.T @ profiles.sum(axis=0) / n_known) ** 2).sum(axis=0)
    if before.shape[1]:
        taken = np.column_stack([np.ones(n_heads), before])
        basis = linalg.qr(taken)[0][:, taken.shape[1] :]
        profiles = basis.T @ profiles
    n_rows = profiles.shape[1]
    stacked = profiles.reshape(n_participants * n_rows, n_parcels) / n_known
    firsts = n_rows * np.arange(n_participants)
    at_once = int(np.clip(_LARGEST_TABLE // (n_rows * n_parcels), 1, n_permutations))
    null = []
    while len(null) < n_permutations:
        n_now = min(at_once, n_permutations - len(null))
        order = np.tile(np.arange(n_rows), (n_now, n_participants, 1))
        order = rng.permuted(order, axis=2) + firsts[:, None]
        columns = order.swapaxes(1, 2).ravel()  # one row: where the participants' rows come from
        pointers = np.arange(0, columns.size + 1, n_participants)
        pick = sparse.csr_array(
            (np.ones(columns.size), columns, pointers), shape=(n_now * n_rows, len(stacked))
        )
        means = (pick @ stacked).reshape(n_now, n_rows, n_parcels)
        null += [_top_agreement(mean, fixed, n_heads) for mean in means]
    return np.array(null)


def _top_agreement(mean: np.ndarray, fixed: np.ndarray, n_heads: int) -> float:
    """Agreement along the first component of means that are standardised with a fixed part."""
    squares = (mean**2).sum(axis=0) + fixed
    scaled = mean / np.sqrt(np.where(squares > 0, squares, np.inf))
    last = len(mean) - 1
    _, top = linalg.eigh(scaled @ scaled.T, subset_by_index=[last, last], check_finite=False)
    return float(((top[:, 0] @ mean) ** 2).sum() / (n_heads * mean.shape[1]))


def _reliability(
    profiles: np.ndarray,
    known: np.ndarray,
    directions: np.ndarray,
    n_splits: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean absolute correlation of the scores of random halves."""
    n_components = directions.shape[1]
    found = []
    for _ in range(n_splits):
        order = rng.permutation(len(profiles))
        halves = [order[: len(order) // 2], order[len(order) // 2 :]]
        means = [profiles[half].sum(axis=0) for half in halves]
        usable = np.all([known[half].any(axis=0) for half in halves], axis=0)
        usable &= np.all([np.abs(m).max(axis=0) > _CONSTANT * len(order) for m in means], axis=0)
        if usable.sum() < n_components:
            continue
        matched = []
        for mean in means:
            own = _unit(_components(mean[:, usable], n_components)[0])
            _, order_own = optimize.linear_sum_assignment(-np.abs(directions.T @ own))
            matched.append(own[:, order_own])
        found.append(np.abs((matched[0] * matched[1]).sum(axis=0)))
    return np.mean(found, axis=0) if found else np.full(n_components, np.nan)
