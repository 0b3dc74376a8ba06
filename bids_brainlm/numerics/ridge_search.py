"""Search of the banded ridge: band weights and penalty of each target.

Nothing of the size gammas x targets is kept, and every matrix product has a shape that
depends on one participant only, so that a participant's result is the same bit by bit
whoever else is in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.folds import Fold

TARGETS_PER_BLOCK = 1000
_FEW_TARGETS = 128
_TIE_SLOPE = 1e-10
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Choice:
    """What the search chose for each target of one participant.

    Attributes
    ----------
    gamma_index : array of int, shape (n_targets,)
        Row of the gammas.
    alpha_index : array of int, shape (n_targets,)
        Index of the alphas.
    cv_score : array, shape (n_targets,)
        Mean inner-fold score of the choice; NaN for targets with NaN.
    """

    gamma_index: np.ndarray
    alpha_index: np.ndarray
    cv_score: np.ndarray


def search(
    kernels: np.ndarray,
    targets: Sequence[np.ndarray],
    gammas: np.ndarray,
    alphas: np.ndarray,
    inner_folds: Sequence[Fold],
    *,
    score: str = "r2",
    check: bool = True,
) -> list[Choice]:
    """Choose band weights and penalty of each target by inner cross-validation.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels of the outer training rows.
    targets : sequence of array, shape (n_rows, n_targets of the participant)
        One array per participant, centred on these rows.
    gammas : array, shape (n_gammas, n_bands)
        Band weights to try, on the simplex.
    alphas : array, shape (n_alphas,)
        Penalties to try, each > 0.
    inner_folds : sequence of Fold
        Positions (0 to n_rows - 1) of training and validation rows.
    score : {"r2", "r"}
        Validation score: R2 about the validation mean, or Pearson r.
    check : bool
        Look for wrong shapes and NaN first. Without, a target with NaN gets score NaN and
        harms no other target.

    Returns
    -------
    list of Choice
        One per participant.

    Raises
    ------
    NumericalError
        Wrong shapes, NaN, penalties that are not positive, or an unknown score.

    Notes
    -----
    The scores are averaged over folds. Alphas of equal score: a slope of 1e-10 per unit of
    log(alpha) favours the largest. A later gamma must beat the best by more than the float64
    epsilon. Both rules are himalaya's. There is no intercept: the caller centres features
    and targets on the outer training rows, and inner folds are not centred again. A constant
    target or prediction scores 0. One alpha is solved by Cholesky, several by one
    eigendecomposition per gamma and fold, shared by all targets of all participants.
    Memory: about ``n_inner_folds`` copies of the targets.

    References
    ----------
    .. [1] Dupré la Tour et al. (2022), doi:10.1016/j.neuroimage.2022.119728
    """
    kernels = np.ascontiguousarray(kernels, dtype=np.float64)
    targets = [np.asarray(target, dtype=np.float64) for target in targets]
    gammas, alphas = np.asarray(gammas, dtype=np.float64), np.asarray(alphas, dtype=np.float64)
    if score not in ("r2", "r"):
        raise NumericalError(f"Found the selection score '{score}', expected 'r2' or 'r'.")
    if check:
        check_kernels(kernels, targets, gammas, alphas)
        _check_folds(inner_folds, kernels.shape[1])
    centred = score == "r"
    blocks = [
        _Block(index, columns, target, inner_folds, centred)
        for index, target in enumerate(targets)
        for columns in _column_blocks(target.shape[1])
    ]
    slope = (_TIE_SLOPE * np.log(alphas))[:, None]
    seen: set[bytes] = set()
    for index, gamma in enumerate(gammas):
        if gamma.tobytes() in seen:  # can only tie with itself
            continue
        seen.add(gamma.tobytes())
        kernel = combine(kernels, gamma)
        solvers = [_Solver(kernel, fold, alphas, centred) for fold in inner_folds]
        for block in blocks:
            block.update(index, solvers, slope)
    return [_collect(blocks, index, target.shape[1]) for index, target in enumerate(targets)]


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


def cholesky(kernel: np.ndarray, alpha: float) -> tuple[np.ndarray, bool] | None:
    """Factorise ``kernel + alpha I``.

    Parameters
    ----------
    kernel : array, shape (n_rows, n_rows)
        Positive semi-definite.
    alpha : float
        Penalty.

    Returns
    -------
    (array, bool) or None
        For `scipy.linalg.cho_solve`; None where alpha is lost in the rounding error of the
        kernel, so that the factor would be noise.
    """
    regular = kernel.copy()
    regular.flat[:: len(kernel) + 1] += alpha
    if alpha <= _EPSILON * len(kernel) * np.trace(kernel):
        return None
    try:
        return linalg.cho_factor(regular, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None


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


def check_kernels(
    kernels: np.ndarray, targets: Sequence[np.ndarray], gammas: np.ndarray, alphas: np.ndarray
) -> None:
    """Raise if shapes do not fit together or values cannot be used.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels.
    targets : sequence of array, shape (n_rows, n_targets)
        One array per participant.
    gammas : array, shape (n_gammas, n_bands)
        Band weights.
    alphas : array, shape (n_alphas,)
        Penalties.

    Raises
    ------
    NumericalError
        Names the array, what was found and what was expected.
    """
    if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2] or not kernels.size:
        raise NumericalError(
            f"Kernels have shape {kernels.shape}, expected (n_bands, n_rows, n_rows)."
        )
    if gammas.ndim != 2 or gammas.shape[1] != len(kernels) or not len(gammas):
        raise NumericalError(
            f"Band weights have shape {gammas.shape}, expected (n_gammas, {len(kernels)})."
        )
    if alphas.ndim != 1 or not alphas.size or not (np.isfinite(alphas) & (alphas > 0)).all():
        raise NumericalError(
            f"Penalties are {alphas.tolist()}, expected a list of positive numbers.",
            hint="Set --alphas to one or more positive numbers.",
        )
    for name, array in (("Kernels", kernels), ("Band weights", gammas)):
        if not np.isfinite(array).all():
            raise NumericalError(f"{name} have NaN or infinite values, expected finite values.")
    for number, target in enumerate(targets):
        if target.ndim != 2 or len(target) != kernels.shape[1]:
            raise NumericalError(
                f"Targets of participant {number} have shape {target.shape}, expected "
                f"({kernels.shape[1]}, n_targets)."
            )
        bad = int((~np.isfinite(target)).any(axis=0).sum())
        if bad:
            raise NumericalError(
                f"{bad} of {target.shape[1]} targets of participant {number} have NaN or "
                "infinite values; empty parcels must be left out first."
            )


def _check_folds(inner_folds: Sequence[Fold], n_rows: int) -> None:
    """Raise if there is no fold or a fold does not index the kernels."""
    if not len(inner_folds):
        raise NumericalError("Found 0 inner folds, expected at least 1.")
    for fold in inner_folds:
        for rows in (fold.train, fold.test):
            if not len(rows) or min(rows) < 0 or max(rows) >= n_rows:
                raise NumericalError(
                    f"An inner fold has no rows, or rows outside 0 to {n_rows - 1}; expected "
                    "positions within the outer training rows."
                )


def _column_blocks(n_targets: int) -> list[slice]:
    """Blocks of targets; they depend on this participant's count only."""
    starts = range(0, n_targets, TARGETS_PER_BLOCK)
    return [slice(start, min(start + TARGETS_PER_BLOCK, n_targets)) for start in starts]


def _padded(target: np.ndarray, columns: slice) -> np.ndarray:
    """Columns of a block, filled up with zeros to a fixed width."""
    n_rows, n_targets = target.shape
    width = TARGETS_PER_BLOCK if n_targets > TARGETS_PER_BLOCK else -(-n_targets // 8) * 8
    block = np.zeros((n_rows, width))
    block[:, : columns.stop - columns.start] = target[:, columns]
    return block


class _Solver:
    """What one gamma and one inner fold need to predict any target at every alpha."""

    def __init__(self, kernel: np.ndarray, fold: Fold, alphas: np.ndarray, centred: bool) -> None:
        inside = kernel[np.ix_(fold.train, fold.train)]
        across = kernel[np.ix_(fold.test, fold.train)]
        self.basis: np.ndarray | None = None
        hats = _cholesky_hat(inside, across, alphas[0]) if len(alphas) == 1 else None
        if hats is None:
            weights, self.basis = spectral_weights(inside, alphas)
            hats = (across @ self.basis) * weights[:, None, :]
        if centred:
            hats -= hats.mean(axis=1, keepdims=True)
        self.hats = hats  # (n_alphas, n_validation, n_train)

    def moments(self, train: np.ndarray, validation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of prediction x target and of squared predictions, each (n_alphas, width)."""
        rotated = train if self.basis is None else self.basis.T @ train
        n_alphas, n_validation, n_train = self.hats.shape
        if train.shape[1] <= _FEW_TARGETS:
            prediction = self.hats.reshape(-1, n_train) @ rotated
            prediction = prediction.reshape(n_alphas, n_validation, -1)
            product = np.einsum("vt,avt->at", validation, prediction)
            return product, np.einsum("avt,avt->at", prediction, prediction)
        product = np.empty((n_alphas, train.shape[1]))
        squares = np.empty_like(product)
        for index, hat in enumerate(self.hats):
            prediction = hat @ rotated
            product[index] = np.einsum("vt,vt->t", validation, prediction)
            squares[index] = np.einsum("vt,vt->t", prediction, prediction)
        return product, squares


def _cholesky_hat(inside: np.ndarray, across: np.ndarray, alpha: float) -> np.ndarray | None:
    """Matrix from training targets to predictions, or None if not positive definite."""
    factor = cholesky(inside, alpha)
    if factor is None:
        return None
    return np.ascontiguousarray(linalg.cho_solve(factor, across.T, check_finite=False).T)[None]


class _Block:
    """Some targets of one participant, and the best that was found for them so far."""

    def __init__(
        self, owner: int, columns: slice, target: np.ndarray, folds: Sequence[Fold], centred: bool
    ) -> None:
        self.owner, self.columns, self.centred = owner, columns, centred
        padded = _padded(target, columns)
        self.train = [padded[fold.train] for fold in folds]
        self.validation = [padded[fold.test] for fold in folds]
        self.total = []  # sum of squares about the validation mean
        for rows in self.validation:
            deviation = rows - rows.mean(axis=0)
            self.total.append((deviation**2).sum(axis=0))
            if centred:
                rows[...] = deviation
        self.squares = [(rows**2).sum(axis=0) for rows in self.validation]
        self.best = np.full(padded.shape[1], -np.inf)
        self.gamma_index = np.zeros(padded.shape[1], dtype=np.intp)
        self.alpha_index = np.zeros(padded.shape[1], dtype=np.intp)

    def update(self, gamma_index: int, solvers: Sequence[_Solver], slope: np.ndarray) -> None:
        """Score one gamma at every alpha and keep it where it is better."""
        mean = self._score(0, solvers[0])
        for fold in range(1, len(solvers)):
            mean += self._score(fold, solvers[fold])
        mean /= len(solvers)
        mean += slope
        alpha_index = mean.argmax(axis=0)
        value = np.take_along_axis(mean, alpha_index[None], axis=0)[0]
        better = value > self.best + _EPSILON
        self.best[better] = value[better]
        self.gamma_index[better] = gamma_index
        self.alpha_index[better] = alpha_index[better]

    def _score(self, fold: int, solver: _Solver) -> np.ndarray:
        """Validation score, (n_alphas, width)."""
        product, squares = solver.moments(self.train[fold], self.validation[fold])
        total = self.total[fold]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.centred:
                value = product / np.sqrt(squares * total)
                return np.where((squares == 0) | (total == 0), 0.0, value)
            value = 1.0 - (self.squares[fold] - 2.0 * product + squares) / total
            return np.where(total == 0, 0.0, value)


def _collect(blocks: Sequence[_Block], owner: int, n_targets: int) -> Choice:
    """Put the blocks of one participant together."""
    gamma_index = np.zeros(n_targets, dtype=np.intp)
    alpha_index = np.zeros(n_targets, dtype=np.intp)
    cv_score = np.empty(n_targets)
    for block in blocks:
        if block.owner == owner:
            kept = slice(0, block.columns.stop - block.columns.start)
            gamma_index[block.columns] = block.gamma_index[kept]
            alpha_index[block.columns] = block.alpha_index[kept]
            cv_score[block.columns] = block.best[kept]
    cv_score[np.isneginf(cv_score)] = np.nan
    return Choice(gamma_index=gamma_index, alpha_index=alpha_index, cv_score=cv_score)
