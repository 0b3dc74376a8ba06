"""Matrices that predict validation rows from training targets, for one band weighting.

A `Hat` is exact (float64). Three ways lead to it: a Cholesky factor (one alpha), an
eigendecomposition (several), or, where all bands but one have low rank, an update of that
band's own eigendecomposition, which is then shared by all band weightings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from bids_brainlm.numerics.folds import Fold

_EPSILON = np.finfo(np.float64).eps
_LARGEST_RANK_SHARE = 8  # low-rank bands together have at most 1/8 of the training rows
_SAFE_PENALTY = 1e-6  # smallest alpha of an update, as a share of the largest trace


@dataclass(frozen=True)
class Hat:
    """One band weighting in one inner fold, at every alpha.

    The prediction at alpha number a is ``matrix(a) @ (basis.T @ y_train)``, where the matrix
    is ``across * weights[a] + left[a] @ right[a]``.

    Attributes
    ----------
    across : array, shape (n_validation, n_train)
    weights : array, shape (n_alphas, n_train), or None
        Positive or 0; None stands for ones and one alpha.
    basis : array, shape (n_train, n_train), or None
        Orthogonal; None stands for the identity.
    left : array, shape (n_alphas, n_validation, rank), or None
        None stands for rank 0.
    right : array, shape (n_alphas, rank, n_train), or None
    single : array, shape (n_train, n_train), or None
        The basis in float32, the same object wherever the basis is shared; None where it is not.
    """

    across: np.ndarray
    weights: np.ndarray | None = None
    basis: np.ndarray | None = None
    left: np.ndarray | None = None
    right: np.ndarray | None = None
    single: np.ndarray | None = None

    def matrix(self, alpha_index: int) -> np.ndarray:
        """Put the matrix of one alpha together, (n_validation, n_train)."""
        if self.weights is None:
            return self.across
        matrix = self.across * self.weights[alpha_index]
        if self.left is not None and self.right is not None:
            matrix += self.left[alpha_index] @ self.right[alpha_index]
        return matrix


class Split:
    """Kernels of one inner fold, cut once and weighed many times.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels of the outer training rows.
    fold : Fold
        Positions of inner training and validation rows.
    alphas : array, shape (n_alphas,)
        Penalties.
    centred : bool
        Predictions are centred over validation rows.
    low_rank : LowRank, optional
        Factors of the bands of low rank.
    """

    def __init__(
        self,
        kernels: np.ndarray,
        fold: Fold,
        alphas: np.ndarray,
        *,
        centred: bool,
        low_rank: LowRank | None = None,
    ) -> None:
        self.alphas, self.centred = alphas, centred
        self.update: _Update | None = None
        if low_rank is not None:
            self.update = _Update(kernels[low_rank.wide], low_rank, fold, alphas, centred)
            return
        self.inside = np.ascontiguousarray(kernels[:, fold.train[:, None], fold.train])
        self.across = np.ascontiguousarray(kernels[:, fold.test[:, None], fold.train])

    def hat(self, gamma: np.ndarray) -> Hat:
        """Solve for one band weighting.

        Parameters
        ----------
        gamma : array, shape (n_bands,)
            Band weights.

        Returns
        -------
        Hat
        """
        if self.update is not None:
            return self.update.hat(gamma)
        inside, across = combine(self.inside, gamma), combine(self.across, gamma)
        if self.centred:
            across -= across.mean(axis=0)
        if len(self.alphas) == 1:
            factor = cholesky(inside, float(self.alphas[0]), overwrite=True)
            if factor is not None:
                return Hat(_solved(factor[0], across))
            inside = combine(self.inside, gamma)
        weights, basis = spectral_weights(inside, self.alphas)
        return Hat(across @ basis, weights, basis)


@dataclass(frozen=True)
class LowRank:
    """Bands of low rank beside one wide band.

    Attributes
    ----------
    wide : int
        The other band.
    factor : array, shape (n_rows, rank)
        ``factor[:, band == b] @ factor[:, band == b].T`` is the kernel of band b.
    band : array of int, shape (rank,)
        The band of each column.
    """

    wide: int
    factor: np.ndarray
    band: np.ndarray


def find_low_rank(
    kernels: np.ndarray, gammas: np.ndarray, alphas: np.ndarray, n_train: int
) -> LowRank | None:
    """Factorise all bands but one, where these have a low rank.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels.
    gammas : array, shape (n_gammas, n_bands)
        Band weights that will be tried.
    alphas : array, shape (n_alphas,)
        Penalties that will be tried.
    n_train : int
        Fewest training rows of an inner fold.

    Returns
    -------
    LowRank or None
        None where it would not pay (few band weightings, more than one wide band, ranks of
        more than an eighth of the rows) or where the smallest penalty is so small beside the
        kernels that an update would lose digits.
    """
    largest = n_train // _LARGEST_RANK_SHARE
    trace = np.einsum("bii->b", kernels).max() * gammas.max()
    if len(kernels) < 2 or len(gammas) < 4 or alphas.min() < _SAFE_PENALTY * trace:
        return None
    factors, wide = [], []
    for band, kernel in enumerate(kernels):
        factor = _thin_factor(kernel, largest)
        if factor is None:
            wide.append(band)
        else:
            factors.append((band, factor))
    if not wide:  # every band is thin: the thickest takes the place of the wide one
        wide = [max(factors, key=lambda each: each[1].shape[1])[0]]
        factors = [each for each in factors if each[0] != wide[0]]
    if len(wide) > 1 or sum(factor.shape[1] for _, factor in factors) > largest:
        return None
    of_column = np.concatenate([np.full(f.shape[1], band) for band, f in factors])
    return LowRank(wide[0], np.hstack([f for _, f in factors]), of_column)


def combine(kernels: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Weigh kernels and add them.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_columns)
        Contiguous, float64.
    gamma : array, shape (n_bands,)
        Band weights.

    Returns
    -------
    array, shape (n_rows, n_columns)
        The weighted sum.
    """
    return (gamma @ kernels.reshape(len(kernels), -1)).reshape(kernels.shape[1:])


def cholesky(
    kernel: np.ndarray, alpha: float, *, overwrite: bool = False
) -> tuple[np.ndarray, bool] | None:
    """Factorise ``kernel + alpha I``.

    Parameters
    ----------
    kernel : array, shape (n_rows, n_rows)
        Positive semi-definite.
    alpha : float
        Penalty.
    overwrite : bool
        The factor may take the place of the kernel.

    Returns
    -------
    (array, bool) or None
        For `scipy.linalg.cho_solve`; None where alpha is lost in the rounding error of the
        kernel, so that the factor would be noise.
    """
    if alpha <= _EPSILON * len(kernel) * np.trace(kernel):
        return None
    regular = kernel if overwrite else kernel.copy()
    regular.flat[:: len(kernel) + 1] += alpha
    factor, failed = lapack.dpotrf(regular.T, lower=1, clean=0, overwrite_a=1)
    return None if failed else (factor, True)


def spectral_weights(kernel: np.ndarray, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decompose a kernel and invert ``eigenvalue + alpha``.

    Parameters
    ----------
    kernel : array, shape (n_rows, n_rows)
        Positive semi-definite.
    alphas : array, shape (n_alphas,)
        Penalties.

    Returns
    -------
    weights : array, shape (n_alphas, n_rows)
        ``1 / (eigenvalue + alpha)``; 0 for eigenvalues that are rounding error. No
        prediction of a linear kernel reaches those directions.
    basis : array, shape (n_rows, n_rows)
        Eigenvectors in columns.
    """
    values, basis = linalg.eigh(kernel, driver="evd", check_finite=False)
    real = values > _EPSILON * len(values) * values[-1]
    weights = 1.0 / (values.clip(min=0.0) + np.asarray(alphas)[:, None])
    return np.where(real, weights, 0.0), basis


def _solved(factor: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return ``across @ inv(factor @ factor.T)``; faster than `cho_solve`, rows being columns."""
    rows = np.asfortranarray(across)
    half = blas.dtrsm(1.0, factor, rows, side=1, lower=1, trans_a=1)
    return np.ascontiguousarray(blas.dtrsm(1.0, factor, half, side=1, lower=1, overwrite_b=1))


class _Update:
    """Hats of a wide band plus low-rank bands, by the Woodbury identity."""

    def __init__(
        self, wide: np.ndarray, low: LowRank, fold: Fold, alphas: np.ndarray, centred: bool
    ) -> None:
        self.low, self.alphas = low, alphas
        values, self.basis = linalg.eigh(
            wide[fold.train[:, None], fold.train], driver="evd", check_finite=False
        )
        self.single = self.basis.astype(np.float32)
        self.values = values.clip(min=0.0)
        self.across = wide[fold.test[:, None], fold.train] @ self.basis
        inside = self.basis.T @ low.factor[fold.train]
        self.inside, self.across_low = np.ascontiguousarray(inside.T), low.factor[fold.test]
        if centred:
            self.across = self.across - self.across.mean(axis=0)
            self.across_low = self.across_low - self.across_low.mean(axis=0)
        n_train = len(self.values)  # products that meet the weights of every gamma
        self.with_across = (self.across.T[:, :, None] * inside[:, None, :]).reshape(n_train, -1)
        self.with_inside = (inside[:, :, None] * inside[:, None, :]).reshape(n_train, -1)

    def hat(self, gamma: np.ndarray) -> Hat:
        """Solve for one band weighting."""
        own = gamma[self.low.wide]
        root = np.sqrt(gamma[self.low.band])
        n_alphas, rank = len(self.alphas), len(root)
        inverse = 1.0 / (own * self.values + self.alphas[:, None])  # (n_alphas, n_train)
        if not rank:
            return Hat(self.across, own * inverse, self.basis, single=self.single)
        small = (inverse @ self.with_inside).reshape(n_alphas, rank, rank)
        small = small * (root[:, None] * root)
        small[:, np.arange(rank), np.arange(rank)] += 1.0
        solved = np.linalg.inv(small) @ (self.inside * root[:, None])
        reached = (inverse @ self.with_across).reshape(n_alphas, -1, rank)
        left = (self.across_low - own * reached) * root
        right = solved * inverse[:, None, :]
        return Hat(self.across, own * inverse, self.basis, left, right, self.single)


def _thin_factor(kernel: np.ndarray, largest: int) -> np.ndarray | None:
    """Return F with F F' = kernel and at most ``largest`` columns, or None."""
    if largest < 1:
        return None
    n_rows = len(kernel)
    some = np.unique(np.linspace(0, n_rows - 1, min(n_rows, 3 * largest)).astype(int))
    for rows in (some, np.arange(n_rows)):  # few rows are enough to see a wide band
        part = np.asfortranarray(kernel[rows[:, None], rows])
        factor, pivots, rank, _ = lapack.dpstrf(part, lower=1)
        if rank > largest:
            return None
    thin = np.empty((n_rows, rank))
    thin[pivots - 1] = np.tril(factor)[:, :rank]
    return thin


def fewest_train(inner_folds: Sequence[Fold]) -> int:
    """Count the training rows of the smallest inner fold.

    Parameters
    ----------
    inner_folds : sequence of Fold

    Returns
    -------
    int
    """
    return min(len(fold.train) for fold in inner_folds)
