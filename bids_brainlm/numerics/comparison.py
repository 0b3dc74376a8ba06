"""Feature spaces compared within participants, with layers chosen on other people's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import resampling
from bids_brainlm.numerics.multiple import benjamini_hochberg

NO_LAYER = -1
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """All pairs of feature spaces in all regions.

    Attributes
    ----------
    pairs : tuple of (str, str)
        First and second space of each pair, in the order of the mapping.
    difference : array, shape (n_pairs, n_regions)
        Mean over participants of first minus second, Fisher z.
    low, high : array, shape (n_pairs, n_regions)
        Bootstrap 95 % interval of the difference over participants, Fisher z.
    effect : array, shape (n_pairs, n_regions)
        Cohen's d_z: the mean over the standard deviation of the differences (divisor n - 1).
    p : array, shape (n_pairs, n_regions)
        Two-sided, by flipping the sign of participants' differences.
    q : array, shape (n_pairs, n_regions)
        p adjusted for the false discovery rate over all pairs and regions.
    p_fwe : array, shape (n_pairs, n_regions)
        By the largest absolute t over all pairs and regions, same flips for all.
    n_participants : array of int, shape (n_pairs, n_regions)
        Participants with a value in both spaces.
    n_permutations : int
        Sign patterns besides the data themselves.
    """

    pairs: tuple[tuple[str, str], ...]
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    effect: np.ndarray
    p: np.ndarray
    q: np.ndarray
    p_fwe: np.ndarray
    n_participants: np.ndarray
    n_permutations: int


def choose_layers(fisher_z: np.ndarray) -> np.ndarray:
    """Choose a layer for each participant and region on the data of other participants.

    Parameters
    ----------
    fisher_z : array, shape (n_participants, n_regions, n_layers)
        Scores, Fisher z; NaN are missing. Participants in the same order for all spaces.

    Returns
    -------
    array of int, shape (n_participants, n_regions)
        Position of the layer with the highest mean (the first of equals); -1 where the others
        have no value.

    Raises
    ------
    NumericalError
        Not three dimensions, no layer, or infinite values.

    Notes
    -----
    Participants at even and at odd positions form two halves; each half takes the layer whose
    mean is highest in the other one. Choice and score then share no data, so that a space with
    many layers is not favoured.

    Leaving out one participant at a time also keeps the mean score unbiased but not the test
    over participants: what is chosen for one rests on nearly all the others, so that their
    values are not independent. In simulations where two spaces of 12 layers are equally good,
    12 to 27 % of tests reach p <= 0.05 (9 to 63 participants, r = 0.7 between layers; up to 41 %
    with unrelated layers), and 10 to 20 % against a space of one layer. With halves it is 6 %
    (7 to 8 % with unrelated layers). With the best layer of all participants the space with 12
    layers wins against one layer in 9 to 11 % (13 to 16 %) instead of 2.5 %.
    """
    fisher_z = np.asarray(fisher_z, dtype=np.float64)
    if fisher_z.ndim != 3 or 0 in fisher_z.shape or np.isinf(fisher_z).any():
        raise NumericalError(
            f"Found scores of shape {fisher_z.shape}, expected finite Fisher z of participants by "
            "regions by layers, NaN where missing.",
            hint="Fit more layers with --layers.",
        )
    choice = np.full(fisher_z.shape[:2], NO_LAYER)
    for half in (0, 1):
        others = fisher_z[1 - half :: 2]
        n = (~np.isnan(others)).sum(axis=0)
        mean = np.where(n > 0, np.nansum(others, axis=0), -np.inf) / np.maximum(n, 1)
        choice[half::2] = np.where((n > 0).any(axis=1), mean.argmax(axis=1), NO_LAYER)
    return choice


def chosen(fisher_z: np.ndarray) -> np.ndarray:
    """Take the scores of the layers that `choose_layers` chooses.

    Parameters
    ----------
    fisher_z : array, shape (n_participants, n_regions, n_layers)
        Scores, Fisher z; NaN are missing.

    Returns
    -------
    array, shape (n_participants, n_regions)
        NaN where no layer can be chosen or the participant has no score in it.

    Notes
    -----
    With one layer this is that layer, provided that someone in the other half has it.
    """
    choice = choose_layers(fisher_z)
    fisher_z = np.asarray(fisher_z, dtype=np.float64)
    taken = np.take_along_axis(fisher_z, np.maximum(choice, 0)[..., None], axis=2)[..., 0]
    return np.where(choice == NO_LAYER, np.nan, taken)


def compare(
    values: Mapping[str, np.ndarray],
    *,
    n_permutations: int,
    n_bootstraps: int,
    rng: np.random.Generator,
) -> Comparison:
    """Test the differences of all pairs of feature spaces over participants.

    Parameters
    ----------
    values : mapping of str to array, shape (n_participants, n_regions)
        Scores of each space, Fisher z, the same participants and regions; NaN are missing. Of a
        space with layers, those of `chosen`.
    n_permutations : int
        Random sign patterns; if ``2 ** n_participants`` is not more, all patterns are used.
    n_bootstraps : int
        Resamples of participants, shared by all pairs and regions.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Comparison
        NaN in cells with fewer than 2 participants; ``effect`` is NaN as well where all
        differences are the same.

    Raises
    ------
    NumericalError
        Fewer than 2 spaces, shapes differ, infinite values, or wrong settings.

    Notes
    -----
    A participant without a value in one space is left out of that pair and region. Without a
    difference, the sign of a participant's difference is as likely one as the other, whatever
    the variances; the distribution must be symmetric. See `resampling.sign_flip_test`.

    References
    ----------
    .. [1] Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060
    .. [2] Lakens (2013), doi:10.3389/fpsyg.2013.00863
    """
    tables = {name: np.asarray(table, dtype=np.float64) for name, table in values.items()}
    shapes = {table.shape for table in tables.values()}
    finite = not any(np.isinf(table).any() for table in tables.values())
    if len(tables) < 2 or len(shapes) > 1 or len(next(iter(shapes))) != 2 or not finite:
        raise NumericalError(
            f"Found spaces {', '.join(tables) or 'none'} of shapes {sorted(shapes)}, expected at "
            "least 2 of the same participants by regions, finite or NaN.",
            hint="Fit at least two feature spaces with --features for all participants.",
        )
    pairs = tuple(combinations(tables, 2))
    n_regions = next(iter(shapes))[1]
    gaps = np.hstack([tables[first] - tables[second] for first, second in pairs])
    tested = resampling.sign_flip_test(
        gaps, n_permutations=n_permutations, rng=rng, alternative="two-sided"
    )
    low, high = resampling.bootstrap_interval(gaps, n_bootstraps=n_bootstraps, rng=rng)
    present = ~np.isnan(gaps)
    n = present.sum(axis=0)
    centred = np.where(present, gaps - tested.observed, 0.0)
    sd = np.sqrt(np.nansum(centred**2, axis=0) / np.maximum(n - 1, 1))
    spread = np.where(sd > _ROUNDING * np.abs(tested.observed), sd, np.nan)
    cells = (
        tested.observed,
        low,
        high,
        tested.observed / spread,
        tested.p,
        benjamini_hochberg(tested.p),
        tested.p_fwe,
        n,
    )
    return Comparison(
        pairs, *(cell.reshape(len(pairs), n_regions) for cell in cells), tested.n_permutations
    )
