"""Tests of intersubject correlation that keep what makes its values dependent.

Leave-one-out values share data: every pair of participants counts in both, so a sign flip or
a bootstrap of the values is not valid. Here series are moved in time, or participants change
groups.
"""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core
from bids_brainlm.numerics.resampling import Resampled

_PARCELS_PER_BLOCK = 128
_DRAWS_PER_BLOCK = 50
_RELATIVE_ZERO = 1e-20
_LARGEST_R = 1.0 - 1e-12
METHODS = ("shift", "phase")


def isc_test(
    series: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    method: str = "phase",
    statistic: str = "leave-one-out",
    alternative: str = "greater",
) -> Resampled:
    """Test whether participants share anything over time.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid. Constant series and those with NaN count as absent.
    n_permutations : int
        Number of draws.
    rng : numpy.random.Generator
        Source of randomness.
    method : {"shift", "phase"}
        Every participant's series is rotated by its own random number of rows, or gets its own
        random phases; the same for all parcels of the participant.
    statistic : {"leave-one-out", "pairwise"}
        Mean over participants of the leave-one-out correlation on Fisher's z scale, or mean
        correlation over pairs of participants, which is several times as fast.
    alternative : {"greater", "less", "two-sided"}
        Direction.

    Returns
    -------
    Resampled
        ``observed`` is the statistic; ``p_fwe`` by the largest over parcels.

    Raises
    ------
    NumericalError
        Wrong shapes or settings.

    Notes
    -----
    Both keep the spectrum of each series and the dependence between parcels. All participants
    are moved at once and all leave-one-out values computed anew, since these values share
    their pairs. Moving only the participant that is left out gives each value the right null
    but their mean one with half the variance: every pair would be drawn twice.

    A rotation is a random phase that grows linearly with frequency, so that both are computed
    from one transform, without going back to time. The null is that *no* two participants
    share anything. Rotations join the ends of the series: take slow drifts out before.

    References
    ----------
    .. [1] Lerner et al. (2011), doi:10.1523/JNEUROSCI.3684-10.2011
    .. [2] Chen et al. (2016), doi:10.1016/j.neuroimage.2016.05.023
    """
    series = _checked(series)
    core.check_settings(n_permutations, alternative)
    if method not in METHODS or statistic not in STATISTICS:
        raise NumericalError(
            f"Found the method '{method}' and statistic '{statistic}', expected one of {METHODS} "
            f"and one of {tuple(STATISTICS)}."
        )
    n_participants, n_trs, n_parcels = series.shape
    phases = _phases(rng, method, (n_permutations, n_participants, n_trs))
    still = np.ones((1, n_participants, n_trs // 2), dtype=complex)
    measure = STATISTICS[statistic]
    observed = np.empty(n_parcels)
    count = np.zeros(n_parcels)
    largest = np.full(n_permutations, -np.inf)
    for start in range(0, n_parcels, _PARCELS_PER_BLOCK):
        block = slice(start, start + _PARCELS_PER_BLOCK)
        spectra, present = _spectra(series[:, :, block])
        observed[block] = measure(spectra, present, still)[0]
        bar = core.loosened(core.directed(observed[block], alternative))
        known = ~np.isnan(observed[block])
        for first in range(0, n_permutations, _DRAWS_PER_BLOCK):
            draws = range(first, min(first + _DRAWS_PER_BLOCK, n_permutations))
            drawn = np.stack([phases(draw) for draw in draws])
            value = core.directed(measure(spectra, present, drawn), alternative)
            value = np.where(known, value, -np.inf)
            rows = slice(draws.start, draws.stop)
            np.maximum(largest[rows], value.max(axis=1), out=largest[rows])
            count[block] += (value >= bar).sum(axis=0)
    return Resampled(
        observed=observed,
        p=core.p_value(count, n_permutations, observed),
        p_fwe=core.p_largest(core.directed(observed, alternative), largest),
        n_permutations=n_permutations,
    )


def pairwise_z(series: np.ndarray) -> np.ndarray:
    """Correlate every pair of participants.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid.

    Returns
    -------
    array, shape (n_participants, n_participants, n_parcels)
        Fisher z; NaN on the diagonal and where a series is constant or has NaN.

    Raises
    ------
    NumericalError
        Wrong shapes.
    """
    series = _checked(series)
    n_participants, _, n_parcels = series.shape
    z = np.empty((n_participants, n_participants, n_parcels))
    for start in range(0, n_parcels, _PARCELS_PER_BLOCK):
        block = slice(start, start + _PARCELS_PER_BLOCK)
        unit, present = _unit(series[:, :, block])
        r = np.einsum("itv,jtv->ijv", unit, unit, optimize=True)
        both = present[:, None] & present[None]
        limited = np.clip(r, -_LARGEST_R, _LARGEST_R)
        z[:, :, block] = np.where(both, np.arctanh(limited), np.nan)
    z[np.arange(n_participants), np.arange(n_participants)] = np.nan
    return z


def group_difference_test(
    pairs: np.ndarray,
    first_group: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    alternative: str = "two-sided",
) -> Resampled:
    """Test whether two groups differ in how alike their members are.

    Parameters
    ----------
    pairs : array, shape (n_participants, n_participants, n_parcels)
        Symmetric, on Fisher's z scale; see `pairwise_z`.
    first_group : array of bool, shape (n_participants,)
        Who is in the first group; all others are in the second.
    n_permutations : int
        Number of permutations of participants.
    rng : numpy.random.Generator
        Source of randomness.
    alternative : {"greater", "less", "two-sided"}
        Direction; "greater": the first group is more alike.

    Returns
    -------
    Resampled
        ``observed`` is the mean over pairs within the first group less that within the second.

    Raises
    ------
    NumericalError
        Wrong shapes or settings, or a group of fewer than 3 participants.

    Notes
    -----
    Participants, not pairs, change groups: the pairs of a participant depend on each other.
    Pairs between groups count in neither mean.

    References
    ----------
    .. [1] Chen et al. (2016), doi:10.1016/j.neuroimage.2016.05.023
    """
    pairs = np.asarray(pairs, dtype=np.float64)
    first_group = np.asarray(first_group, dtype=bool)
    core.check_settings(n_permutations, alternative)
    n = len(first_group)
    if pairs.ndim != 3 or pairs.shape[:2] != (n, n):
        raise NumericalError(
            f"Pairs have shape {pairs.shape}, expected ({n}, {n}, n_parcels) for {n} participants."
        )
    if min(first_group.sum(), n - first_group.sum()) < 3:
        raise NumericalError(
            f"Groups have {first_group.sum()} and {n - first_group.sum()} participants, expected "
            "at least 3 in each.",
        )
    above = np.triu_indices(n, 1)
    values = pairs[above]
    orders = [first_group, *(rng.permutation(first_group) for _ in range(n_permutations))]
    member = np.array(orders, dtype=np.float64)
    first = member[:, above[0]] * member[:, above[1]]
    second = (1.0 - member[:, above[0]]) * (1.0 - member[:, above[1]])
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    means = []
    for chosen in (first, second):
        n_pairs = chosen @ known
        some = n_pairs > 0
        means.append(np.where(some, chosen @ filled, np.nan) / np.where(some, n_pairs, 1.0))
    difference = means[0] - means[1]
    observed = difference[0]
    null = core.directed(difference[1:], alternative)
    null = np.where(np.isnan(observed) | np.isnan(null), -np.inf, null)
    bar = core.directed(observed, alternative)
    return Resampled(
        observed=observed,
        p=core.p_value((null >= core.loosened(bar)).sum(axis=0), n_permutations, observed),
        p_fwe=core.p_largest(bar, null.max(axis=1)),
        n_permutations=n_permutations,
    )


def _checked(series: np.ndarray) -> np.ndarray:
    """Return series after checking their shape."""
    series = np.asarray(series)
    if series.ndim != 3 or series.shape[0] < 2 or series.shape[1] < 8:
        raise NumericalError(
            f"Series have shape {series.shape}, expected (n_participants >= 2, n_trs >= 8, "
            "n_parcels).",
            hint="Intersubject correlation needs at least 2 participants of one story.",
        )
    return series


def _unit(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred series of norm 1 (0 where absent), and which are present."""
    series = series.astype(np.float64)
    raw = np.einsum("itv,itv->iv", series, series)
    series -= series.mean(axis=1, keepdims=True)
    squares = np.einsum("itv,itv->iv", series, series)
    present = squares > _RELATIVE_ZERO * raw  # False for NaN
    scale = np.sqrt(np.where(present, squares, 1.0))
    return np.where(present[:, None], series / scale[:, None], 0.0), present


def _spectra(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectra without frequency 0, so weighted that real products sum to correlations."""
    unit, present = _unit(series)
    n_trs = unit.shape[1]
    weight = np.full(n_trs // 2, 2.0 / n_trs)
    if n_trs % 2 == 0:
        weight[-1] = 1.0 / n_trs
    spectra = np.fft.rfft(unit, axis=1)[:, 1:]
    return spectra * np.sqrt(weight)[:, None], present


def _phases(rng: np.random.Generator, method: str, shape: tuple[int, int, int]):
    """Return a function that gives the phases of a draw, (n_participants, n_frequencies)."""
    n_draws, n_participants, n_trs = shape
    frequencies = np.arange(1, n_trs // 2 + 1)
    if method == "shift":
        shifts = rng.integers(0, n_trs, (n_draws, n_participants, 1))
        return lambda draw: np.exp(-2j * np.pi * ((shifts[draw] * frequencies) % n_trs) / n_trs)
    seed = int(rng.integers(2**62))  # drawn anew for each block of parcels, not kept

    def phase(draw: int) -> np.ndarray:
        own = np.random.default_rng([seed, draw])
        angles = own.random((n_participants, frequencies.size))
        if n_trs % 2 == 0:
            angles[:, -1] = np.round(angles[:, -1]) / 2.0
        return np.exp(2j * np.pi * angles)

    return phase


def _leave_one_out(
    spectra: np.ndarray, present: np.ndarray, phases: np.ndarray
) -> np.ndarray:
    """Mean over participants of Fisher z with the sum of the others, (n_draws, n_parcels)."""
    own = present.astype(np.float64)  # squared norms
    shape = (*spectra.shape, 2)
    found = []
    for phase in phases:
        moved = spectra * phase[:, :, None]
        parts = moved.view(np.float64).reshape(shape)
        whole = moved.sum(axis=0).view(np.float64).reshape(shape[1:])
        with_total = np.einsum("ifvc,fvc->iv", parts, whole)
        squares = np.einsum("fvc,fvc->v", whole, whole)
        reference = squares - 2.0 * with_total + own
        usable = present & (reference > 1e-12 * (squares + own))
        r = (with_total - own) / np.sqrt(np.where(usable, reference, 1.0))
        z = np.where(usable, np.arctanh(np.clip(r, -_LARGEST_R, _LARGEST_R)), 0.0)
        n_usable = usable.sum(axis=0)
        found.append(np.where(n_usable > 1, z.sum(axis=0), np.nan) / np.maximum(n_usable, 1))
    return np.stack(found)


def _pairwise(spectra: np.ndarray, present: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Mean correlation over pairs, from the squares of the sum, (n_draws, n_parcels)."""
    by_frequency = np.ascontiguousarray(spectra.transpose(1, 0, 2))
    total = np.matmul(np.ascontiguousarray(phases.transpose(2, 0, 1)), by_frequency)
    parts = total.view(np.float64).reshape(*total.shape, 2)
    squares = np.einsum("fdvc,fdvc->dv", parts, parts)
    n = present.sum(axis=0)
    n_pairs = np.where(n > 1, n * (n - 1.0), np.nan)
    return (squares - n) / n_pairs


STATISTICS = {"leave-one-out": _leave_one_out, "pairwise": _pairwise}
