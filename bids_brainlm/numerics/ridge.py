"""Banded ridge regression in dual form, float64.

The model of a target is ridge regression on bands of features whose weights ``gamma`` (on
the simplex) and penalty ``alpha`` are chosen per target by inner cross-validation. With
``K = sum(gamma_b K_b)`` the dual weights are ``(K + alpha I)^-1 y`` and the part of band b in
the prediction is ``gamma_b K_b(test, train) @ dual``; the parts add up to the whole.

There is no intercept: centre features and targets on the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics._ridge_checks import check_kernels
from bids_brainlm.numerics._ridge_factors import cholesky, combine, spectral_weights
from bids_brainlm.numerics.folds import Fold
from bids_brainlm.numerics.ridge_search import Choice, Screening, search

__all__ = [
    "Choice",
    "FoldResult",
    "encode",
    "encode_kernels",
    "linear_kernels",
    "predict",
    "refit",
    "sample_gammas",
    "search",
]

_CONCENTRATIONS = (0.1, 1.0)
_N_PROBES = 8  # of the trace of a hat matrix


@dataclass(frozen=True)
class FoldResult:
    """Held-out predictions of one participant in one outer fold.

    Attributes
    ----------
    prediction_by_band : array, shape (n_bands, n_test, n_targets)
        Part of each band; the sum over bands is the whole prediction, in units of the
        centred targets.
    alpha_index, gamma_index : array of int, shape (n_targets,)
        What was chosen.
    cv_score : array, shape (n_targets,)
        Mean inner-fold score of the choice.
    dual : array, shape (n_rows, n_targets)
        ``(K + alpha I)^-1 y`` on the training rows; see `refit`.
    df : array, shape (n_targets,)
        Effective degrees of freedom, estimated; see `encode`.
    """

    prediction_by_band: np.ndarray
    alpha_index: np.ndarray
    gamma_index: np.ndarray
    cv_score: np.ndarray
    dual: np.ndarray
    df: np.ndarray


def sample_gammas(n_bands: int, n_iter: int, rng: np.random.Generator) -> np.ndarray:
    """Draw band weights on the simplex.

    Parameters
    ----------
    n_bands : int
        Number of bands.
    n_iter : int
        Number of draws.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_iter, n_bands)
        Rows sum to 1. Row 0 is equal weights; the others alternate between Dirichlet
        concentrations 0.1 (few bands matter) and 1.0 (uniform on the simplex).

    Raises
    ------
    NumericalError
        A count is below 1.

    Notes
    -----
    himalaya's law (its random numbers come from another generator). With one band every row
    is 1 and `search` tries it once.
    """
    if n_bands < 1 or n_iter < 1:
        raise NumericalError(
            f"Found {n_bands} bands and {n_iter} draws, expected at least 1 of each.",
            hint="Set --n-iter to at least 1.",
        )
    n_each = -(-n_iter // len(_CONCENTRATIONS))
    draws = [rng.dirichlet([value] * n_bands, n_each) for value in _CONCENTRATIONS]
    gammas = np.stack(draws, axis=1).reshape(-1, n_bands)[:n_iter]
    gammas[0] = 1.0 / n_bands
    if n_bands == 1:
        gammas[...] = 1.0  # the draws may miss it by rounding
    return gammas


def linear_kernels(
    bands: Sequence[np.ndarray], others: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Inner products between rows, band by band.

    Parameters
    ----------
    bands : sequence of array, shape (n_rows, n_features of the band)
        Scaled features.
    others : sequence of array, shape (n_others, n_features of the band), optional
        Rows on the other side; default ``bands`` itself.

    Returns
    -------
    array, shape (n_bands, n_rows, n_rows or n_others)
        In float64.

    Raises
    ------
    NumericalError
        No band, bands that differ in rows, or NaN.
    """
    if not len(bands) or len({len(band) for band in bands}) != 1:
        raise NumericalError(
            f"Bands have {[len(band) for band in bands]} rows, expected one or more bands with "
            "as many rows."
        )
    kernels = []
    for band, other in zip(bands, bands if others is None else others, strict=True):
        left = np.asarray(band, dtype=np.float64)
        right = left if other is band else np.asarray(other, dtype=np.float64)
        kernels.append(left @ right.T)
    stacked = np.stack(kernels)
    if not np.isfinite(stacked).all():
        raise NumericalError("Features have NaN or infinite values, expected finite values.")
    return stacked


def refit(
    kernels: np.ndarray,
    targets: Sequence[np.ndarray],
    choices: Sequence[Choice],
    gammas: np.ndarray,
    alphas: np.ndarray,
) -> list[np.ndarray]:
    """Solve for the dual weights on all training rows.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels of the training rows.
    targets : sequence of array, shape (n_rows, n_targets of the participant)
        One array per participant, centred.
    choices : sequence of Choice
        From `search`, one per participant.
    gammas : array, shape (n_gammas, n_bands)
        Band weights that were tried.
    alphas : array, shape (n_alphas,)
        Penalties that were tried.

    Returns
    -------
    list of array, shape (n_rows, n_targets of the participant)
        ``(K + alpha I)^-1 y`` for each target.

    Raises
    ------
    NumericalError
        As many choices as targets are needed.

    Notes
    -----
    One Cholesky factorisation per pair (gamma, alpha) that any target chose, shared by all
    participants; an eigendecomposition without the null directions where the penalty is lost
    in rounding error. Solves are per participant.
    """
    return _refit(kernels, targets, choices, gammas, alphas)[0]


def _refit(
    kernels: np.ndarray,
    targets: Sequence[np.ndarray],
    choices: Sequence[Choice],
    gammas: np.ndarray,
    alphas: np.ndarray,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the dual weights and the effective degrees of freedom of all targets."""
    if len(targets) != len(choices):
        raise NumericalError(f"Found {len(choices)} choices for {len(targets)} participants.")
    kernels = np.ascontiguousarray(kernels, dtype=np.float64)
    n_alphas = len(alphas)
    pairs = [choice.gamma_index * n_alphas + choice.alpha_index for choice in choices]
    dual = [np.empty(np.shape(target)) for target in targets]
    degrees = [np.empty(np.shape(target)[1]) for target in targets]
    n_rows = kernels.shape[1]
    probes = np.random.default_rng(n_rows).choice([-1.0, 1.0], (n_rows, _N_PROBES))
    members = [_members(pair) for pair in pairs]
    for pair in sorted(set().union(*members)):
        kernel = combine(kernels, np.asarray(gammas[pair // n_alphas], dtype=np.float64))
        solve = _solver(kernel, float(alphas[pair % n_alphas]))
        df = max(0.0, float((probes * (kernel @ solve(probes))).sum()) / _N_PROBES)
        for k, (target, member) in enumerate(zip(targets, members, strict=True)):
            columns = member.get(pair)
            if columns is not None:
                dual[k][:, columns] = solve(np.asarray(target, dtype=np.float64)[:, columns])
                degrees[k][columns] = df
    return dual, degrees


def predict(test_kernels: np.ndarray, dual: np.ndarray, gammas_of_target: np.ndarray) -> np.ndarray:
    """Predict held-out rows, band by band.

    Parameters
    ----------
    test_kernels : array, shape (n_bands, n_test, n_rows)
        Inner products of test rows with training rows.
    dual : array, shape (n_rows, n_targets)
        From `refit`, of one participant.
    gammas_of_target : array, shape (n_targets, n_bands)
        Band weights chosen for each target: ``gammas[choice.gamma_index]``.

    Returns
    -------
    array, shape (n_bands, n_test, n_targets)
        The sum over bands is the whole prediction.

    Raises
    ------
    NumericalError
        The shapes do not fit together.
    """
    n_bands, n_test, n_rows = test_kernels.shape
    if dual.shape[0] != n_rows or gammas_of_target.shape != (dual.shape[1], n_bands):
        raise NumericalError(
            f"Dual weights have shape {dual.shape} and band weights {gammas_of_target.shape}, "
            f"expected ({n_rows}, n_targets) and (n_targets, {n_bands})."
        )
    parts = (test_kernels.reshape(-1, n_rows) @ dual).reshape(n_bands, n_test, -1)
    parts *= gammas_of_target.T[:, None, :]
    return parts


def encode(
    bands_train: Sequence[np.ndarray],
    bands_test: Sequence[np.ndarray],
    targets_train: Sequence[np.ndarray],
    gammas: np.ndarray,
    alphas: np.ndarray,
    inner_folds: Sequence[Fold],
    *,
    score: str = "r2",
    screening: Screening | None = None,
) -> list[FoldResult]:
    """Search, refit and predict one outer fold for all participants.

    Parameters
    ----------
    bands_train, bands_test : sequence of array, shape (n_rows or n_test, n_features of band)
        Delayed features, both scaled with the statistics of the training rows.
    targets_train : sequence of array, shape (n_rows, n_targets of the participant)
        One array per participant, centred on the training rows, without empty parcels.
    gammas : array, shape (n_gammas, n_bands)
        Band weights to try; see `sample_gammas`.
    alphas : array, shape (n_alphas,)
        Penalties to try, each > 0.
    inner_folds : sequence of Fold
        *Positions* within the training rows; see `folds.positions`.
    score : {"r2", "r"}
        Inner validation score.
    screening : Screening, optional
        See `search`; changes no result.

    Returns
    -------
    list of FoldResult
        One per participant, the same bit by bit whichever participants share the call.

    Raises
    ------
    NumericalError
        Wrong shapes or values.

    Notes
    -----
    No intercept. Run inside `blas.single_threaded` and use processes for parallel work.

    The effective degrees of freedom are the trace of ``K (K + alpha I)^-1``, estimated with the
    same 8 vectors of random signs everywhere. The standard error for one choice is
    ``sqrt(df / 4)`` at most: 2.5 for 25, 5 for 100. Errors of one kernel at other penalties are
    alike (correlations of .9), so that a median over targets is hardly more exact; differences
    between targets are.

    References
    ----------
    .. [1] Hutchinson (1990), doi:10.1080/03610919008812866
    """
    test_kernels = linear_kernels(bands_test, bands_train)
    return encode_kernels(
        linear_kernels(bands_train),
        test_kernels,
        targets_train,
        gammas,
        alphas,
        inner_folds,
        score=score,
        screening=screening,
    )


def encode_kernels(
    kernels: np.ndarray,
    test_kernels: np.ndarray,
    targets_train: Sequence[np.ndarray],
    gammas: np.ndarray,
    alphas: np.ndarray,
    inner_folds: Sequence[Fold],
    *,
    score: str = "r2",
    screening: Screening | None = None,
) -> list[FoldResult]:
    """Search, refit and predict one outer fold, given the kernels of its bands.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Inner products of the training rows, band by band.
    test_kernels : array, shape (n_bands, n_test, n_rows)
        Inner products of test rows with training rows.
    targets_train, gammas, alphas, inner_folds, score, screening
        See `encode`.

    Returns
    -------
    list of FoldResult
        One per participant.

    Raises
    ------
    NumericalError
        Wrong shapes or values.
    """
    gammas, alphas = np.asarray(gammas, dtype=np.float64), np.asarray(alphas, dtype=np.float64)
    targets = [np.asarray(target, dtype=np.float64) for target in targets_train]
    check_kernels(kernels, targets, gammas, alphas)
    choices = search(
        kernels, targets, gammas, alphas, inner_folds, score=score, screening=screening
    )
    duals, degrees = _refit(kernels, targets, choices, gammas, alphas)
    return [
        FoldResult(
            prediction_by_band=predict(test_kernels, dual, gammas[choice.gamma_index]),
            alpha_index=choice.alpha_index,
            gamma_index=choice.gamma_index,
            cv_score=choice.cv_score,
            dual=dual,
            df=df,
        )
        for dual, df, choice in zip(duals, degrees, choices, strict=True)
    ]


def _members(pair: np.ndarray) -> dict[int, np.ndarray]:
    """Targets of each (gamma, alpha) pair of one participant."""
    return {int(value): np.flatnonzero(pair == value) for value in np.unique(pair)}


def _solver(kernel: np.ndarray, alpha: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that solves ``(kernel + alpha I) x = y``."""
    factor = cholesky(kernel, alpha)
    if factor is None:
        weights, basis = spectral_weights(kernel, np.array([alpha]))
        return lambda y: basis @ (weights[0][:, None] * (basis.T @ y))
    return lambda y: linalg.cho_solve(factor, y, check_finite=False)
