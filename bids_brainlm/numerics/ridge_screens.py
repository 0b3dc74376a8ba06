"""What a search can rule out in float32, with a bound of its error.

A `Screening` says which pairs (gamma, alpha) could be the best of a target; these alone are
scored in float64. It may bound as it likes, with numpy or on a device with fast products, as
long as its bounds hold: then the choice is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bids_brainlm.numerics._ridge_factors import Hat
from bids_brainlm.numerics.folds import Fold

_DEVIATIONS = 4.0  # of a sum of rounding errors (Higham and Mary 2019, doi:10.1137/18M1226312)
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)  # of a score that is put together in float64
_RELATIVE_ZERO = 1e-24  # of sums of squares, as in `scores`
_UNIT = float(np.finfo(np.float32).eps) / 2.0

Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]


class Screen:
    """A `Hat` in float32, each alpha scaled so that no number exceeds 1.

    Parameters
    ----------
    hat : Hat
    explicit : bool
        Multiply the basis into the matrices: pays when there are more targets than rows of
        all matrices. Otherwise targets are rotated.
    """

    def __init__(self, hat: Hat, *, explicit: bool) -> None:
        n_validation, n_train = hat.across.shape
        size = max(hat.across.max(), -hat.across.min()) or 1.0
        self.across = (hat.across * (1.0 / size)).astype(np.float32)
        weights = np.ones((1, 1)) if hat.weights is None else hat.weights
        scale = size * weights.max(axis=1)
        if hat.left is not None and hat.right is not None:
            scale += np.abs(hat.left).max(axis=(1, 2)) * np.abs(hat.right).max(axis=(1, 2))
        self.scale = np.where(scale > 0, scale, 1.0)[:, None]
        self.weights = (weights * (size / self.scale)).astype(np.float32)
        if hat.weights is None:
            self.stack = self.across[None]
        else:
            self.stack = self.across * self.weights[:, None, :]
        self.left = self.right = None
        if hat.left is not None and hat.right is not None:
            largest = np.abs(hat.left).max(axis=(1, 2), keepdims=True)
            largest[largest == 0] = 1.0
            self.left = (hat.left / largest).astype(np.float32)
            self.right = (hat.right * (largest / self.scale[:, :, None])).astype(np.float32)
            self.stack += self.left @ self.right
        norms = _norms(self.stack)  # of both parts: they may cancel
        if self.left is not None and self.right is not None:
            norms = _norms(self.across * self.weights[:, None, :])
            norms += _norms(self.left) * _norms(self.right)
        self.basis = hat.single
        if self.basis is None and hat.basis is not None:
            self.basis = hat.basis.astype(np.float32)
        if explicit and self.basis is not None:
            product = self.stack.reshape(-1, n_train) @ self.basis.T
            self.stack, self.basis = product.reshape(self.stack.shape), None
        n_terms = n_train + n_validation
        self.error = _DEVIATIONS * np.sqrt(n_terms) * _UNIT * norms[:, None] * self.scale

    def products(self, rotated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Sum prediction x target for every alpha without the predictions.

        Parameters
        ----------
        rotated : array, shape (n_targets, n_train)
        observed : array, shape (n_targets, n_validation)

        Returns
        -------
        array, shape (n_alphas, n_targets)
        """
        product = self.weights @ ((observed @ self.across) * rotated).T
        if self.left is not None and self.right is not None:
            n_alphas, n_validation, rank = self.left.shape
            left = observed @ self.left.transpose(1, 0, 2).reshape(n_validation, -1)
            left *= rotated @ self.right.reshape(n_alphas * rank, -1).T
            product += left.reshape(-1, n_alphas, rank).sum(axis=2).T
        return product


class Lean(Screen):
    """A `Screen` that puts its matrices together when they are asked for.

    Attributes
    ----------
    columns : array, shape (n_train,)
        Squared norms of the columns of ``across``.
    norms : array, shape (n_alphas,)
        Frobenius norms of the matrices.
    """

    left = right = None

    def __init__(self, hat: Hat) -> None:
        if hat.weights is None or hat.basis is None or hat.left is not None:
            raise ValueError("Found a hat without a basis of its own, expected one with.")
        self._across, self._basis = hat.across, hat.basis
        self._size = size = max(hat.across.max(), -hat.across.min()) or 1.0
        scale = size * hat.weights.max(axis=1)
        self.scale = np.where(scale > 0, scale, 1.0)[:, None]
        self.weights = (hat.weights * (size / self.scale)).astype(np.float32)
        across = self.across
        self.columns = np.einsum("vn,vn->n", across, across, dtype=np.float64)
        squares = self.weights.astype(np.float64) ** 2 @ self.columns
        self.norms = np.sqrt(squares) * self.scale[:, 0]
        n_terms = sum(hat.across.shape)
        self.error = _DEVIATIONS * np.sqrt(n_terms) * _UNIT * self.norms[:, None]

    @property
    def across(self) -> np.ndarray:
        """Validation rows in the basis, (n_validation, n_train)."""
        return (self._across * (1.0 / self._size)).astype(np.float32)

    @property
    def stack(self) -> np.ndarray:
        """The scaled matrices, (n_alphas, n_validation, n_train)."""
        return self.across * self.weights[:, None, :]

    @property
    def basis(self) -> np.ndarray:
        """The basis in float32, (n_train, n_train)."""
        return self._basis.astype(np.float32)


def _norms(stack: np.ndarray) -> np.ndarray:
    """Frobenius norm of each matrix, float64."""
    flat = stack.reshape(len(stack), -1)
    return np.sqrt(np.einsum("aj,aj->a", flat, flat)).astype(np.float64)


def is_constant(deviation: np.ndarray, rows: np.ndarray, axis: int) -> np.ndarray:
    """Tell which targets do not vary, up to rounding.

    Parameters
    ----------
    deviation : array, shape (..., n_rows, ...)
        ``rows`` less their mean along the axis.
    rows : array, shape of ``deviation``
        Targets as they are.
    axis : int
        Where the rows are.

    Returns
    -------
    array of bool, shape of ``deviation`` without the axis

    Notes
    -----
    A series that was scaled over the whole run is constant in a part of it only up to the
    rounding of its mean: 1e-32 of its squares, and never exactly.
    """
    return (deviation**2).sum(axis=axis) <= _RELATIVE_ZERO * (rows**2).sum(axis=axis)


class Parts:
    """What scores of one fold share: R2 = base + (2 p'y - p'p) * inverse.

    Parameters
    ----------
    deviation : array, shape (n_validation, n_targets)
        Targets less their mean.
    kept : array, shape (n_validation, n_targets)
        What predictions are compared with.
    """

    def __init__(self, deviation: np.ndarray, kept: np.ndarray) -> None:
        total = np.einsum("vt,vt->t", deviation, deviation)
        own = np.einsum("vt,vt->t", kept, kept)
        with np.errstate(divide="ignore"):
            self.inverse = np.where(total == 0, 0.0, 1.0 / total)
            self.own_inverse = np.where(own == 0, 0.0, 1.0 / own)
        self.root = np.sqrt(own)
        self.base = np.where(total == 0, 0.0, 1.0 - own * self.inverse)
        self.rounding = np.where(total == 0, 0.0, _ROUNDING * (1.0 + own * self.inverse))

    def of(self, column: np.ndarray | slice) -> tuple[np.ndarray, ...]:
        """Return ``inverse``, ``root``, ``base`` and ``rounding`` of some targets.

        Parameters
        ----------
        column : array of int, or slice

        Returns
        -------
        tuple of array
        """
        return self.inverse[column], self.root[column], self.base[column], self.rounding[column]


@dataclass(frozen=True)
class Singles:
    """Targets of a block in float32, at norm 1.

    Attributes
    ----------
    rows : array, shape (n_rows, n_targets)
    validation : sequence of array, shape (n_validation, n_targets)
        One per inner fold; centred where the score is r.
    parts : sequence of Parts
    folds : sequence of Fold
        Inner folds.
    centred : bool
        The score is r.
    """

    rows: np.ndarray
    validation: Sequence[np.ndarray]
    parts: Sequence[Parts]
    folds: Sequence[Fold]
    centred: bool


class Screening(Protocol):
    """Something that rules out pairs of gamma and alpha."""

    def targets_per_block(self, n_alphas: int, n_targets: int) -> int:
        """Tell how many targets are best taken at once.

        Parameters
        ----------
        n_alphas : int
        n_targets : int
            How many there are.

        Returns
        -------
        int
        """
        ...

    def begin(self, screens: Sequence[Sequence[Screen]], n_targets: int) -> None:
        """Take note of the matrices that the next calls of `candidates` come with.

        Parameters
        ----------
        screens : sequence of sequence of Screen
            By gamma and inner fold.
        n_targets : int
            How many targets there are in all.
        """
        ...

    def candidates(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        best: np.ndarray,
    ) -> Candidates:
        """Find the pairs that could be better than all others, for each target.

        Parameters
        ----------
        singles : Singles
        screens : sequence of sequence of Screen
            By gamma and inner fold.
        slope : array, shape (n_alphas,)
            What is added to the score of each alpha.
        best : array, shape (n_targets,)
            The best score so far, exact.

        Returns
        -------
        gamma, alpha, column : array of int, shape (n_candidates,)
            Sorted by gamma, then alpha, then column.
        """
        ...


def bounded(
    arrays: Any,
    moments: tuple[Any, Any],
    scale: Any,
    error: Any,
    parts: tuple[Any, Any, Any, Any],
    *,
    centred: bool,
) -> tuple[Any, Any]:
    """Score of one fold and a bound of its error, from sums in float32.

    Parameters
    ----------
    arrays : module
        ``numpy`` or ``torch``: where the arrays live.
    moments : (array, array), shape (n_alphas, n_targets) or (n_pairs,)
        Sums of prediction x target and of squared predictions, in units of ``scale``.
    scale, error : array, shape (n_alphas, 1) or (n_pairs,)
        Of a `Screen`, float64.
    parts : tuple of array, shape (n_targets,) or (n_pairs,)
        See `Parts.of`.
    centred : bool
        The score is r.

    Returns
    -------
    value, slack : array, shape of the moments
        float64. In places where nothing is predicted, both are 0 for r.
    """
    inverse, root, base, rounding = parts
    squares = moments[1] * scale**2
    size = arrays.sqrt(squares)
    if not centred:
        value = (moments[0] * (2.0 * scale) - squares) * inverse + base
        slack = (size + (root + 0.5 * error)) * (2.0 * error)
        return value, slack * inverse + rounding + _ROUNDING * arrays.abs(value)
    nothing = (inverse == 0) | (error == 0)
    value = moments[0] * scale * arrays.sqrt(inverse) / size
    slack = arrays.where(size > 2.0 * error, 4.0 * error / size + _ROUNDING, arrays.inf)
    value = arrays.where(nothing | arrays.isinf(slack), 0.0, value)
    return value, arrays.where(nothing, 0.0, slack)
