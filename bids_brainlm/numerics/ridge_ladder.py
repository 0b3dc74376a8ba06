"""A few matrices that nearly span all that predict in one inner fold, at every penalty.

From the largest penalty to the smallest, matrices need more and more combinations: four at the
largest, fifty at the smallest. The combinations of a large penalty serve all smaller ones, so
that one product for each combination stands for those of all pairs (gamma, alpha). What is left
of each matrix has a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.numerics.ridge_screens import Lean
from bids_brainlm.numerics.ridge_skeleton import largest_of_square

__all__ = ["Ladder", "Step", "Sums"]

_LEFT = 0.02  # root mean square of what is left (Frobenius norm), for R2
_LEFT_RELATIVE = {False: 0.02, True: 0.005}  # of the largest norm: for R2, for r
_FOLLOWS = 1e-3  # of the norm: what differs from a multiple of a larger penalty's matrix
_LEADING = 32  # directions of the data whose share of what is left is known
_LEAST_SHARE = 1e-3  # of the leading direction's share
_PAIRS_A_COMBINATION = 10  # fewest
_DEVIATIONS = 4.0  # of a sum of rounding errors (Higham and Mary 2019, doi:10.1137/18M1226312)
_UNIT = float(np.finfo(np.float32).eps) / 2.0


@dataclass(frozen=True)
class Step:
    """All gammas at one alpha, as combinations of the first few matrices.

    Attributes
    ----------
    unit : float
        Largest norm of the matrices; all else is in units of it.
    weights : array, shape (rank, n_gammas)
    squared : array, shape (rank * (rank + 1) / 2, n_gammas)
        Products of all pairs of weights.
    form : int
        Which norm of the data bounds what is left.
    rest : array, shape (2, n_gammas)
        What is left is at most the first times that norm, plus the second times the plain norm.
    """

    unit: float
    weights: np.ndarray
    squared: np.ndarray
    form: int
    rest: np.ndarray


@dataclass(frozen=True)
class Sums:
    """Sums of some targets over what the combinations predict; see `Ladder.sums`.

    Attributes
    ----------
    products : array, shape (n_targets, rank)
        Prediction x target.
    moments : array, shape (n_targets, rank * (rank + 1) / 2)
        Prediction x prediction, column after column of the upper triangle: the first few
        combinations are the first few columns.
    own : array, shape (n_targets, rank)
        Norms of predictions.
    forms : array, shape (n_targets, n_forms)
        Norms of the training data that suit what is left; the first is 0.
    norm : array, shape (n_targets, 1)
        Norm of the training data.
    """

    products: np.ndarray
    moments: np.ndarray
    own: np.ndarray
    forms: np.ndarray
    norm: np.ndarray

    def of(self, step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sum prediction x target and squared predictions at one alpha, nearly.

        Parameters
        ----------
        step : Step

        Returns
        -------
        product, squares : array, shape (n_targets, n_gammas)
            Of the combinations.
        rest : array, shape (n_targets, n_gammas)
            Bound of the norm of what a prediction differs from the combination.
        size : array, shape (n_targets, n_gammas)
            Bound of the norm of what was added up, for rounding errors.
        """
        rank = len(step.weights)
        product = self.products[:, :rank] @ step.weights
        squares = self.moments[:, : len(step.squared)] @ step.squared
        size = self.own[:, :rank] @ np.abs(step.weights)
        rest = self.forms[:, step.form, None] * step.rest[0]
        rest += self.norm * step.rest[1]
        return product, squares, rest, size


class Ladder:
    """Matrices as combinations of few, and a bound of the rest; see `ladder`.

    Parameters
    ----------
    screens : sequence of Lean
        By gamma.
    relative : bool
        See `ladder`.

    Attributes
    ----------
    steps : list of Step
        By alpha.
    error : float
        Rounding error of a prediction in units of `Sums.of`'s ``size``.
    """

    def __init__(self, screens: Sequence[Lean], *, relative: bool) -> None:
        shape = screens[0].across.shape
        self.n_validation, self.n_train = shape
        self.screens, self.relative = screens, relative
        self.pieces = [(screen.across, screen.basis) for screen in screens]
        self.norms = np.array([screen.norms for screen in screens])
        n_pairs = self.norms.size
        self.most = int(min(n_pairs / _PAIRS_A_COMBINATION, np.sqrt(np.prod(shape) / 2)))
        self.parts = np.empty((0, int(np.prod(shape))), dtype=np.float32)
        self.leading: list[np.ndarray] = []
        self.extra: list[np.ndarray] = []
        self.floors: list[float] = []
        found: dict[int, Step] = {}
        last = None
        for alpha in np.argsort(self.norms.max(axis=0), kind="stable").tolist():
            step = None if last is None else self._follow(last, found[last], alpha)
            if step is None:
                step, last = self._new(alpha), alpha
            found[alpha] = step
        self.steps = [found[alpha] for alpha in range(len(found))]
        self.rank = len(self.parts)
        self.error = _DEVIATIONS * np.sqrt(self.n_validation + self.rank**2) * _UNIT
        self.parts = self.parts.reshape(-1, self.n_train)
        self.all_leading = np.concatenate([*self.leading, np.empty((self.n_train, 0), "f4")], 1)
        n_each = self.all_leading.shape[1] // max(1, len(self.extra))
        self.all_extra = np.array(self.extra, dtype=np.float32).reshape(len(self.extra), n_each)
        row, column = _triangle(self.rank)
        self.triangle = row * self.rank + column
        del self.screens, self.pieces

    def sums(self, train: np.ndarray, observed: np.ndarray) -> Sums:
        """Multiply some targets by the combinations.

        Parameters
        ----------
        train : array, shape (n_targets, n_train)
        observed : array, shape (n_targets, n_validation)

        Returns
        -------
        Sums
        """
        n_targets = len(train)
        part = (train @ self.parts.T).reshape(n_targets, self.rank, -1)
        moments = (part @ part.transpose(0, 2, 1)).reshape(n_targets, -1)
        own = np.sqrt(moments[:, :: self.rank + 1].clip(min=0.0))
        products = (part @ observed[:, :, None])[:, :, 0]
        squared_norm = np.einsum("tn,tn->t", train, train)[:, None]
        along = (train @ self.all_leading).reshape(n_targets, *self.all_extra.shape)
        forms = np.einsum("tfj,fj->tf", along**2, self.all_extra)
        forms += squared_norm * np.array(self.floors, dtype=np.float32)
        forms = np.column_stack([np.zeros(n_targets, np.float32), np.sqrt(forms)])
        moments = moments.take(self.triangle, axis=1)
        return Sums(products, moments, own, forms, np.sqrt(squared_norm))

    def _explicit(self, alpha: int, unit: float) -> np.ndarray:
        """Put matrices of one alpha together, (n_gammas, n_validation * n_train)."""
        found = np.empty((len(self.screens), self.n_validation, self.n_train), dtype=np.float32)
        for screen, (across, basis), out in zip(self.screens, self.pieces, found, strict=True):
            weights = screen.weights[alpha] * np.float32(screen.scale[alpha, 0] / unit)
            np.matmul(across * weights, basis.T, out=out)
        return found.reshape(len(found), -1)

    def _new(self, alpha: int) -> Step:
        """Describe the matrices of an alpha; add combinations where too much is left."""
        unit = float(self.norms[:, alpha].max()) or 1.0
        left = self._explicit(alpha, unit)
        weights = left @ self.parts.T
        left -= weights @ self.parts
        values, vectors = np.linalg.eigh((left @ left.T).astype(np.float64))
        size = np.sqrt(np.cumsum(values.clip(min=0.0)) / len(left))  # of the smallest k + 1
        accepted = max(self._accepted(unit), 1e-4)
        n_new = len(left) - int(np.searchsorted(size, accepted, "right"))
        n_new = min(n_new, self.most - len(self.parts))
        if n_new > 0:
            new = vectors[:, ::-1][:, :n_new].T.astype(np.float32) @ left
            new /= np.sqrt(np.einsum("kj,kj->k", new, new))[:, None]
            more = left @ new.T
            left -= more @ new
            self.parts, weights = np.concatenate([self.parts, new]), np.hstack([weights, more])
        norm = np.sqrt(np.einsum("gj,gj->g", left, left))
        rest = np.stack([np.zeros(len(norm)), 1.01 * norm])
        form = 0
        if norm.max() > 0.1 * accepted:
            form = len(self.floors) + 1
            rest = np.stack([norm * self._bound(left, norm), np.zeros(len(norm))])
        return self._step(unit, weights, form, rest)

    def _accepted(self, unit: float) -> float:
        """What may be left, in units of the largest norm."""
        relative = _LEFT_RELATIVE[self.relative]
        return relative if self.relative else min(relative, _LEFT * max(1.0, unit / 3.0) / unit)

    def _bound(self, left: np.ndarray, norm: np.ndarray) -> np.ndarray:
        """Add a norm of the data that suits what is left, and bound the matrices in its units.

        The norm belongs to the sum of ``l' l`` over the matrices l, divided by their norms; in
        all but the leading directions it is that of the least leading one.
        """
        single = left.reshape(len(left), self.n_validation, -1)
        single = single / np.where(norm > 0, norm, 1.0)[:, None, None]
        rows = single.reshape(-1, self.n_train)
        values, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        values, vectors = values[::-1], vectors[:, ::-1].astype(np.float32)
        n_leading = min(_LEADING, self.n_train - 1)
        floor = float(max(values[n_leading], _LEAST_SHARE * values[0], np.finfo(np.float32).tiny))
        shares = np.maximum(values[:n_leading], floor)
        leading = np.ascontiguousarray(vectors[:, :n_leading])
        along = single @ leading
        square = single @ single.transpose(0, 2, 1)
        square *= np.float32(1.0 / floor)
        less = along * (1.0 / floor - 1.0 / shares).astype(np.float32)
        square -= less @ along.transpose(0, 2, 1)
        self.leading.append(leading)
        self.extra.append(shares - floor)
        self.floors.append(floor)
        return np.sqrt(largest_of_square(square) ** 2 + 1e-5 / floor)

    def _follow(self, last: int, step: Step, alpha: int) -> Step | None:
        """Take multiples of a larger alpha's matrices, if they differ by little."""
        unit = float(self.norms[:, alpha].max()) or 1.0
        factor = np.empty(len(self.screens))
        differs = np.empty_like(factor)
        for g, screen in enumerate(self.screens):
            one, other = (
                screen.weights[a].astype(np.float64) * screen.scale[a, 0] for a in (alpha, last)
            )
            own = np.einsum("n,n->", screen.columns, other**2)
            factor[g] = np.einsum("n,n,n->", screen.columns, one, other) / own if own else 0.0
            other = one - factor[g] * other
            differs[g] = np.sqrt(np.einsum("n,n->", screen.columns, other**2)) / unit
        if not (differs.max() <= min(_FOLLOWS, 0.1 * self._accepted(unit))):
            return None
        factor *= step.unit / unit
        weights = step.weights.T * factor[:, None].astype(np.float32)
        rest = np.abs(factor) * step.rest + np.stack([np.zeros_like(differs), 1.01 * differs])
        return self._step(unit, weights, step.form, rest)

    def _step(self, unit: float, weights: np.ndarray, form: int, rest: np.ndarray) -> Step:
        """Add rounding errors to the rest, and products of pairs of weights."""
        rank = weights.shape[1]
        size = np.sqrt(np.einsum("kj,kj->k", self.parts[:rank], self.parts[:rank]))
        n_terms = self.n_train + self.n_validation + rank
        rounding = _DEVIATIONS * np.sqrt(n_terms) * _UNIT * (np.abs(weights) @ size + 1e-30)
        rest = rest + np.stack([np.zeros(len(weights)), 2.0 * rounding])
        weights = np.ascontiguousarray(weights.T, dtype=np.float32)
        row, column = _triangle(rank)
        squared = weights[row] * weights[column]
        squared[row != column] *= 2.0
        return Step(unit, weights, squared, form, rest.astype(np.float32))


def _triangle(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of an upper triangle, column after column."""
    column, row = np.tril_indices(rank)
    return row, column


def ladder(screens: Sequence[Lean], *, relative: bool) -> Ladder | None:
    """Describe the matrices of an inner fold.

    Parameters
    ----------
    screens : sequence of Lean
        By gamma.
    relative : bool
        What is left has to be small beside each matrix (for r), not beside the data (for R2).

    Returns
    -------
    Ladder or None
        None where numbers are too large for float32, or all so small that nothing is predicted.
    """
    norms = np.array([screen.norms for screen in screens])
    if not (np.isfinite(norms).all() and norms.max() < np.finfo(np.float32).max ** 0.25):
        return None
    found = Ladder(screens, relative=relative)
    return found if found.rank else None
