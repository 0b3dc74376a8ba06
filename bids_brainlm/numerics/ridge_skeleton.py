"""A few matrices that nearly span all that predict in one inner fold.

The matrices of a hundred band weightings differ little: twenty combinations of them leave less
than a hundredth of any. So every prediction is nearly a sum of twenty, and its sums with the
data come from twenty products in place of a hundred. What is left has a bound.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Skeleton"]

_LEFT = 0.03  # root mean square of what is left (Frobenius norm); half or twice costs as much
_LARGEST_SHARE = 0.4  # of the matrices; with more of them it does not pay
_LEADING = 16  # directions of the data in which what is left is known, not bounded
_SQUARINGS = 2  # of what is left, for its largest singular value
_DEVIATIONS = 4.0  # of a sum of rounding errors (Higham and Mary 2019, doi:10.1137/18M1226312)
_UNIT = float(np.finfo(np.float32).eps) / 2.0


class Skeleton:
    """Matrices as combinations of few, and a bound of the rest; see `skeleton`.

    Parameters
    ----------
    matrices : array, shape (n_matrices, n_validation, n_train)
        float32, what predicts validation rows from training targets.
    weights : array, shape (n_matrices, rank)
        Orthonormal columns.
    """

    def __init__(self, matrices: np.ndarray, weights: np.ndarray) -> None:
        n_matrices, self.n_validation, n_train = matrices.shape
        flat = matrices.reshape(n_matrices, -1)
        weights = weights.astype(np.float32)
        parts = weights.T @ flat
        left = (flat - weights @ parts).reshape(matrices.shape)
        self.rank = weights.shape[1]
        self.parts = np.ascontiguousarray(parts.reshape(-1, n_train))
        self.weights = np.ascontiguousarray(weights.T)
        self.squared = _outer(weights)
        self.leading, self.known, largest = _bounds(left)
        size = np.sqrt(np.einsum("kj,kj->k", parts, parts))
        n_terms = n_train + self.n_validation + self.rank
        rounding = _DEVIATIONS * np.sqrt(n_terms) * _UNIT * (np.abs(weights) @ size)
        self.rest = largest + 2.0 * rounding
        self.error = _DEVIATIONS * np.sqrt(self.n_validation + self.rank**2) * _UNIT

    def sums(
        self, train: np.ndarray, observed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sum prediction x target and squared predictions of all matrices, nearly.

        Parameters
        ----------
        train : array, shape (n_targets, n_train)
        observed : array, shape (n_targets, n_validation)

        Returns
        -------
        product, squares : array, shape (n_targets, n_matrices)
            Of the combinations.
        rest : array, shape (n_targets, n_matrices)
            Bound of the norm of what a prediction differs from the combination.
        size : array, shape (n_targets, n_matrices)
            Bound of the norm of what was added up, for rounding errors: ``error * size`` in
            units of the prediction.
        """
        part = (train @ self.parts.T).reshape(len(train), self.rank, -1)
        moment = part @ part.transpose(0, 2, 1)
        own = np.sqrt(np.einsum("tkk->tk", moment).clip(min=0.0))
        product = (part @ observed[:, :, None])[:, :, 0] @ self.weights
        squares = moment.reshape(len(train), -1) @ self.squared
        return product, squares, self._rest(train), own @ np.abs(self.weights)

    def _rest(self, train: np.ndarray) -> np.ndarray:
        """Bound the norm of what is left: known in some directions, the largest in the others."""
        along = train @ self.leading
        outer = (along[:, :, None] * along[:, None, :]).reshape(len(train), -1)
        known = np.sqrt((outer @ self.known).clip(min=0.0))
        across = np.einsum("tn,tn->t", train, train) - np.einsum("tj,tj->t", along, along)
        norm = np.sqrt(np.einsum("tn,tn->t", train, train))
        across = np.sqrt(across.clip(min=0.0)) + 1e-3 * norm  # more than rounding
        return known + across[:, None] * self.rest.astype(np.float32)


def skeleton(matrices: np.ndarray) -> Skeleton | None:
    """Find the fewest combinations that leave little.

    Parameters
    ----------
    matrices : array, shape (n_matrices, n_validation, n_train)
        float32.

    Returns
    -------
    Skeleton or None
        None where it would not pay, or where numbers are too large for float32.

    Notes
    -----
    The combinations are the leading left singular vectors of the matrices, written as rows.
    """
    flat = matrices.reshape(len(matrices), -1)
    values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    left = np.sqrt(np.cumsum(values.clip(min=0.0)) / len(matrices))  # of the smallest k + 1
    rank = len(matrices) - int(np.searchsorted(left, _LEFT, "right"))
    if rank < 1 or rank > _LARGEST_SHARE * len(matrices):
        return None
    found = Skeleton(matrices, vectors[:, ::-1][:, :rank])
    return found if np.isfinite(found.rest).all() else None


def _outer(weights: np.ndarray) -> np.ndarray:
    """Products of all pairs of weights, (rank * rank, n_matrices)."""
    outer = weights[:, :, None] * weights[:, None, :]
    return np.ascontiguousarray(outer.reshape(len(weights), -1).T)


def _bounds(left: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bound what is left of each matrix in two parts.

    Returns orthonormal ``leading`` (n_train, j), ``known`` (j * j, n_matrices) with the squared
    norm in their span as a quadratic form, and the largest singular value elsewhere.
    """
    n_train = left.shape[2]
    rows = left.reshape(-1, n_train)
    vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))[1]
    leading = np.ascontiguousarray(vectors[:, ::-1][:, :_LEADING], dtype=np.float32)
    along = left @ leading
    known = along.transpose(0, 2, 1) @ along
    trace = np.einsum("gjj->g", known)[:, None]
    np.einsum("gjj->gj", known)[...] += 1e-5 * trace  # more than rounding
    known = known.reshape(len(left), -1).T
    across = left - along @ leading.T
    return leading, np.ascontiguousarray(known), _largest(across)


def _largest(matrices: np.ndarray) -> np.ndarray:
    """Bound the largest singular value of each matrix from above, within a fifth or so."""
    return largest_of_square(matrices @ matrices.transpose(0, 2, 1))


def largest_of_square(power: np.ndarray) -> np.ndarray:
    """Bound the root of the largest eigenvalue of positive semi-definite matrices from above.

    Parameters
    ----------
    power : array, shape (n_matrices, n, n)
        float32.

    Returns
    -------
    array, shape (n_matrices,)
        Within a fifth or so.

    Notes
    -----
    The root of the Frobenius norm of powers, which is never below the largest eigenvalue.
    """
    exponent, logs = 2.0, np.zeros(len(power))
    for squaring in range(_SQUARINGS + 1):
        size = np.sqrt(np.einsum("gij,gij->g", power, power)).astype(np.float64)
        size = np.where(size > 0, size, np.finfo(np.float32).tiny)
        logs += np.log(size) / exponent
        if squaring < _SQUARINGS:
            power = power / size[:, None, None].astype(np.float32)
            power, exponent = power @ power, 2.0 * exponent
    return 1.01 * np.exp(logs)
