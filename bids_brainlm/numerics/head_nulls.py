"""What the weights of heads are in a parcel that follows nothing but is as slow.

Norms of weights are positive for noise, and larger for slow heads in slow series. Series with
random phases have a parcel's own autocorrelation and no link with the story; the model that was
chosen for the parcel is fitted to them, and the parcel's norms are compared with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, head_fit, ridge

_LARGEST = float(np.log(1000.0))  # excess that counts; a norm of 0 has none that is finite
_FEWEST_ROWS = 8


@dataclass(frozen=True)
class HeadNull:
    """Settings of the series without link.

    Attributes
    ----------
    n_surrogates : int
        Series with random phases, for each target.
    seeds : sequence of (int or sequence of int)
        One per participant. The phases depend on it and on the number of rows only; no two
        participants should share one.
    """

    n_surrogates: int
    seeds: Sequence[int | Sequence[int]]


def random_phases(series: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give series random phases and leave their amplitudes.

    Parameters
    ----------
    series : array, shape (n_rows, n_targets)
        Contiguous TRs of one participant.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_rows, n_targets)
        Of the same mean, variance, circular autocorrelation and circular cross-correlations.

    Raises
    ------
    NumericalError
        Fewer than 8 rows, or not two dimensions.

    Notes
    -----
    The same phases are added to all targets, so that parcels stay as alike as they were. The
    autocorrelation at lag k is (1 - k / n_rows) times that of a stationary series, because the
    end is taken to be followed by the start.

    References
    ----------
    .. [1] Prichard and Theiler (1994), doi:10.1103/PhysRevLett.73.951
    """
    if series.ndim != 2 or len(series) < _FEWEST_ROWS:
        raise NumericalError(
            f"Found series of shape {series.shape}, expected at least {_FEWEST_ROWS} rows (TRs) "
            "by targets."
        )
    amplitudes = np.fft.rfft(series, axis=0)
    turns = np.exp(2j * np.pi * rng.random(len(amplitudes)))
    turns[0] = 1.0
    if len(series) % 2 == 0:
        turns[-1] = np.sign(turns[-1].real)
    return np.fft.irfft(amplitudes * turns[:, None], n=len(series), axis=0)


def norm_excess(
    bands: Sequence[design.Band],
    columns: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    plan: crossval.Plan,
    *,
    main: str,
    norms: Sequence[np.ndarray],
    models: Sequence[crossval.Result],
    null: HeadNull,
) -> list[np.ndarray]:
    """Compare norms of heads with those of series that are as slow and follow nothing.

    Parameters
    ----------
    bands : sequence of Band
        Features of the whole story; one of them holds all heads.
    columns : sequence of array of int, shape (head_dim,)
        For each head its columns of the main band before delays.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan
        Its tested rows are contiguous.
    main : str
        Name of the band of all heads.
    norms : sequence of array, shape (n_targets of the participant, n_heads_total)
        Of the fitted models.
    models : sequence of crossval.Result
        Of these targets; their band weights and penalties are used.
    null : HeadNull

    Returns
    -------
    list of array, shape (n_targets of the participant, n_heads_total)
        Natural logarithm of each norm less that of a series with random phases, mean over such
        series. Limited to +- 6.9 (a factor of 1000); 0 where both norms are 0.

    Raises
    ------
    NumericalError
        Settings make no sense, or not one seed per participant.

    Notes
    -----
    Under the null hypothesis that a participant follows nothing, the series and those with
    random phases are exchangeable but for the choice of band weights and penalty, and the mean
    excess of every head is 0 whatever the autocorrelation. The choice is not made anew, which
    would cost as much as the fit. In simulations with chosen and with reused settings the group
    test held its level alike. With few surrogates the excess has more variance than the
    logarithms of norms: a factor of 1 + 1 / n_surrogates.

    Where a series follows the model, its autocorrelation is partly that of the model's part.
    Results are the same bit by bit whichever participants share the call.
    """
    if null.n_surrogates < 1 or len(null.seeds) != len(targets):
        raise NumericalError(
            f"Found {null.n_surrogates} surrogates and {len(null.seeds)} seeds for "
            f"{len(targets)} participants, expected at least 1 and one seed each."
        )
    n, rows = null.n_surrogates, np.sort(plan.rows)
    drawn = [
        random_phases(series[rows], rng)
        for series, seed in zip(targets, null.seeds, strict=True)
        for rng in [np.random.default_rng(seed)]
        for _ in range(n)
    ]
    found = [np.zeros((n, *one.shape)) for one in norms]
    names = [band.name for band in bands]
    band = bands[names.index(main)]
    for number in range(len(plan.outer)):
        reader, duals = _fit(bands, drawn, plan, number, (models, n, names.index(main)))
        for head, own in enumerate(columns):
            part = reader.part(band, own)
            for k, dual in enumerate(duals):
                squares = reader.products.squares(part, dual)
                found[k // n][k % n, :, head] += np.sqrt(squares)
    n_folds = len(plan.outer)
    return [_log_ratio(one, of / n_folds) for one, of in zip(norms, found, strict=True)]


def _fit(
    bands: Sequence[design.Band],
    drawn: Sequence[np.ndarray],
    plan: crossval.Plan,
    number: int,
    chosen: tuple[Sequence[crossval.Result], int, int],
) -> tuple[head_fit.FoldReader, list[np.ndarray]]:
    """Return what reads heads in a fold, and dual weights times the main band's gamma."""
    models, n, main = chosen
    fold, gammas = plan.outer[number], plan.gammas[number]
    kernels = head_fit.kernels_of(bands, plan, number)
    reader = head_fit.reader_of(kernels[main], plan, number, len(bands[main].features))
    inside = np.searchsorted(np.sort(plan.rows), fold.train)
    targets = [series[inside] for series in drawn]
    if plan.centre:
        for series in targets:
            series -= series.mean(axis=0)
    choices = [
        ridge.Choice(model.gamma_index[number], model.alpha_index[number], np.empty(0))
        for model in models
        for _ in range(n)
    ]
    inner = np.stack([each.train for each in kernels])
    duals = ridge.refit(inner, targets, choices, gammas, plan.alphas)
    for k, choice in enumerate(choices):
        duals[k] = reader.products.dual(duals[k] * gammas[choice.gamma_index, main])
    return reader, duals


def _log_ratio(norms: np.ndarray, of_null: np.ndarray) -> np.ndarray:
    """Logarithm of norms over those of several series, mean over these."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(norms) - np.log(of_null)
    ratio[:, norms == 0.0] = -_LARGEST
    ratio[(norms == 0.0) & (of_null == 0.0)] = 0.0
    return np.clip(ratio, -_LARGEST, _LARGEST).mean(axis=0)
