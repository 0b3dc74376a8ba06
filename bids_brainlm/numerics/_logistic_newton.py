"""Newton steps of many logistic regressions on the same columns, until classes are certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

_MOST_CG = 6  # steps before a fit may get a preconditioner of its own
_SLOW = 0.2  # it gets one if they leave more than this share of the residual
_FEW = 0.7  # finished fits leave the batch when fewer than this share are left
_FORCING = 3.0  # share of the residual that is left, in units of the step
_EXACT = 1e-4
_PEAK = 4.0  # largest change of a decision value, about, in units of the usual change
_ENOUGH = 0.7
_ROUGH = 0.1
_QUADRATIC = 0.5  # largest change of a decision value where Newton's error is known
_LARGE_STEP = 0.1
_SUFFICIENT = 1e-4
_SHORTEST_STEP = 2.0**-30
_ROUNDING = 8.0
_TINY = np.finfo(np.float32).tiny

MARGIN = 10.0  # how far from 0 decision values have to be, in units of their error


@dataclass(frozen=True)
class Rows:
    """Columns that all fits share, the intercept's last, and products of any two of them."""

    exact: np.ndarray  # (n_rows, n_terms) float64
    single: np.ndarray  # the same in float32
    exact_t: np.ndarray
    single_t: np.ndarray
    pairs: np.ndarray  # (n_terms (n_terms + 1) / 2, n_rows), in the order of LAPACK's RFP format
    square: np.ndarray  # where each element of a full matrix is in that order
    diagonal: np.ndarray
    basis: np.ndarray  # eigenvectors of the columns' scatter matrix, float32
    basis_t: np.ndarray
    basis_squares: np.ndarray
    squares: np.ndarray  # of the columns in that basis


@dataclass
class Batch:
    """Fits under way; all arrays have one row for each fit."""

    w: np.ndarray
    eta: np.ndarray  # decision values of all rows
    target: np.ndarray
    weight: np.ndarray  # of rows; 0 in rows that are not fitted
    ridge: np.ndarray
    beyond: np.ndarray  # added to distances from 0; infinite in rows that are not asked for
    label: np.ndarray
    fold: np.ndarray

    def some(self, which: np.ndarray, dtype: type | None = None) -> Batch:
        """Keep some fits, and change the type of floats."""
        kept = {name: value[which] for name, value in vars(self).items()}
        if dtype is not None:
            kept.update({n: v.astype(dtype) for n, v in kept.items() if v.dtype.kind == "f"})
        return Batch(**kept)


@dataclass(frozen=True)
class Found:
    """Result of `descend`; all arrays have one row for each fit."""

    w: np.ndarray
    eta: np.ndarray
    margin: np.ndarray  # classes of rows this far from 0 are certain; infinite: too few steps
    hard: np.ndarray  # whether the fit has got an inverse Hessian of its own


@dataclass(frozen=True)
class _Step:
    """What a Newton step was."""

    step: np.ndarray
    change: np.ndarray  # of decision values
    slope: np.ndarray

    def some(self, which: np.ndarray) -> _Step:
        """Keep some fits."""
        return _Step(self.step[which], self.change[which], self.slope[which])


def make_rows(columns: np.ndarray) -> Rows:
    """Prepare columns, (n_rows, n_terms)."""
    n = columns.shape[1]
    single = columns.astype(np.float32)
    single_t = np.ascontiguousarray(single.T)
    basis = np.linalg.eigh(columns.T @ columns)[1]
    number = np.asfortranarray(np.arange(n * n, dtype=np.float64).reshape(n, n))
    place = lapack.dtrttf(number)[0].astype(int)  # element of the full matrix at each place
    square = np.empty(n * n, dtype=int)
    square[place] = square[place % n * n + place // n] = np.arange(place.size)
    return Rows(
        exact=columns,
        single=single,
        exact_t=np.ascontiguousarray(columns.T),
        single_t=single_t,
        pairs=single_t[place // n] * single_t[place % n],
        square=square,
        diagonal=square[:: n + 1].copy(),
        basis=basis.astype(np.float32),
        basis_t=np.ascontiguousarray(basis.T, np.float32),
        basis_squares=(basis**2).astype(np.float32),
        squares=((columns @ basis) ** 2).astype(np.float32),
    )


class _Preconditioner:
    """Inverse Hessians: of their diagonals in the eigenbasis, or, for some fits, in full."""

    def __init__(self, rows: Rows, n_fits: int) -> None:
        self.rows = rows
        self.scale = np.empty((0, 0), np.float32)
        self.mine = np.zeros(n_fits, dtype=bool)
        self.full = np.empty((0, *rows.basis.shape), np.float32)

    def renew(self, curvature: np.ndarray, ridge: np.ndarray, slow: np.ndarray) -> None:
        """Take the diagonals of all fits, and the inverses of slow ones."""
        diagonal = curvature @ self.rows.squares
        diagonal += ridge @ self.rows.basis_squares
        self.scale = 1 / np.maximum(diagonal, _TINY)
        if slow.any():
            both = self.mine | slow
            full = np.empty((np.count_nonzero(both), *self.full.shape[1:]), np.float32)
            full[self.mine[both]] = self.full
            full[slow[both]] = _inverses(self.rows, curvature[slow], ridge[slow])
            self.full, self.mine = full, both

    def apply(self, residual: np.ndarray) -> np.ndarray:
        """Multiply each fit's vector with its matrix."""
        product = residual @ self.rows.basis
        product *= self.scale
        product = product @ self.rows.basis_t
        if self.full.size:
            some = residual[self.mine][:, :, None]
            product[self.mine] = np.matmul(self.full, some)[:, :, 0]
        return product

    def some(self, which: np.ndarray) -> _Preconditioner:
        """Keep some fits."""
        part = _Preconditioner(self.rows, 0)
        part.scale, part.mine = self.scale[which], self.mine[which]
        part.full = self.full[which[self.mine]]
        return part


def _inverses(rows: Rows, curvature: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Invert Hessians, (n_fits, n_terms, n_terms); only the diagonal of one that is singular."""
    n_terms = rows.exact.shape[1]
    packed = np.ascontiguousarray((rows.pairs @ curvature.T).T)
    packed[:, rows.diagonal] += ridge
    for row in packed:
        factor, failed = lapack.spftrf(n_terms, row)
        if not failed:
            inverse, failed = lapack.spftri(n_terms, factor, overwrite_a=1)
        if failed:
            inverse = np.zeros_like(row)
            inverse[rows.diagonal] = 1 / np.maximum(row[rows.diagonal], _TINY)
        row[:] = inverse
    return packed[:, rows.square].reshape(len(packed), n_terms, n_terms)


def descend(
    rows: Rows,
    batch: Batch,
    digits: float,
    n_steps: int,
    *,
    loose: float = 0.0,
    hard: np.ndarray | None = None,
) -> Found:
    """Make Newton steps until classes are certain.

    ``digits`` is the error that arithmetic leaves in decision values, as a share of the
    largest; that of probabilities comes on top. A fit may end before all its classes are
    certain, where its margin falls below the share ``loose`` of its largest decision value.
    ``hard`` fits get inverse Hessians at once: a few steps with a diagonal would change little
    where most of their error is, and so tell too little about it.
    """
    w, eta, margin = batch.w, batch.eta, np.full(len(batch.w), np.inf)
    columns_t = rows.single_t if w.dtype == np.float32 else rows.exact_t
    left, last = np.arange(len(w)), None
    slow = np.zeros(len(w), bool) if hard is None else hard
    own = np.zeros(len(w), bool)
    inverses = _Preconditioner(rows, len(w))
    rest = _ROUNDING * float(np.finfo(w.dtype).eps)  # a probability of a half has no more digits
    wanted = _wanted(np.abs(eta), batch.beyond, loose)
    for number in range(n_steps):
        gradient, curvature = _look(rows, batch, last)
        ridge = batch.ridge.astype(np.float32, copy=False)
        inverses.renew(curvature, ridge, slow)
        step, share, slow = _solve(rows, curvature, ridge, gradient, inverses, wanted)
        change = step.astype(w.dtype) @ columns_t
        batch.w, batch.eta = batch.w + step, batch.eta + change
        size, largest = np.abs(batch.eta), np.abs(change).max(axis=1)
        error = largest * (0.5 * largest + share)
        floor = digits * size.max(axis=1) + rest
        wanted = _wanted(size, batch.beyond, loose)
        bound = np.where(largest < _QUADRATIC, MARGIN * (error + floor), np.inf)
        done = (bound < wanted) | (bound < 2 * MARGIN * floor) | (number == n_steps - 1)
        last = _Step(step, change, np.einsum("ij,ij->i", gradient, step))
        if done.any():
            w[left[done]], eta[left[done]] = batch.w[done], batch.eta[done]
            margin[left[done]], own[left[done]] = bound[done], inverses.mine[done]
            left, batch, slow, last = left[~done], batch.some(~done), slow[~done], last.some(~done)
            inverses, wanted = inverses.some(~done), wanted[~done]
        if not left.size:
            break
    return Found(w, eta, margin, own)


def _wanted(size: np.ndarray, beyond: np.ndarray, loose: float) -> np.ndarray:
    """Margin that a fit may end with; changes ``size``, the size of decision values."""
    top = size.max(axis=1)
    size += beyond
    return np.maximum(size.min(axis=1), loose * top)


def _look(rows: Rows, batch: Batch, last: _Step | None) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and curvature; the last step is shortened where it went too far."""
    gradient, curvature = _derivatives(rows, batch)
    if last is None:
        return gradient, curvature
    end = np.einsum("ij,ij->i", gradient, last.step)
    far = np.flatnonzero(end > -_LARGE_STEP * last.slope)
    if far.size:
        back = _too_far(batch.some(far, np.float64), last.some(far)).astype(batch.w.dtype)
        batch.w[far] -= back * last.step[far]
        batch.eta[far] -= back * last.change[far]
        gradient[far], curvature[far] = _derivatives(rows, batch.some(far))
    return gradient, curvature


def _derivatives(rows: Rows, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the objective divided by C, and the curvature of each row's loss."""
    probability = np.exp(-batch.eta)
    probability += 1
    np.divide(1, probability, out=probability)  # where the exponential overflows, 0
    residual = probability - batch.target
    residual *= batch.weight
    gradient = residual @ (rows.single if residual.dtype == np.float32 else rows.exact)
    gradient += batch.ridge * batch.w
    np.multiply(probability, 1 - probability, out=residual)
    residual *= batch.weight
    return gradient, residual.astype(np.float32, copy=False)


def _too_far(batch: Batch, last: _Step) -> np.ndarray:
    """What share of a step to take back so that the objective falls enough, (n_fits, 1)."""

    def objective(back: np.ndarray) -> np.ndarray:
        """Objective divided by C."""
        w, eta = batch.w - back * last.step, batch.eta - back * last.change
        loss = np.log(1.0 + np.exp(-np.abs(eta)))
        loss += np.maximum(eta, 0.0)
        loss -= batch.target * eta
        loss *= batch.weight
        return loss.sum(axis=1) + 0.5 * (batch.ridge * w**2).sum(axis=1)

    return 1.0 - shorten(lambda length: objective(1.0 - length), last.slope)


def shorten(objective: Callable[[np.ndarray], np.ndarray], slope: np.ndarray) -> np.ndarray:
    """Halve steps until the objective falls enough.

    Parameters
    ----------
    objective : callable
        Gives the objective, (n_fits,), after parts of the steps, (n_fits, 1).
    slope : array, shape (n_fits,)
        Of the objective along the steps, at their start.

    Returns
    -------
    array, shape (n_fits, 1)
        What part of each step to make.
    """
    length = np.ones((len(slope), 1))
    start = objective(0.0 * length)
    while True:
        bar = start + _SUFFICIENT * length[:, 0] * slope + 1e-14 * np.abs(start)
        short = (objective(length) > bar) & (length[:, 0] > _SHORTEST_STEP)
        if not short.any():
            return length
        length[short] *= 0.5


def _solve(
    rows: Rows,
    curvature: np.ndarray,
    ridge: np.ndarray,
    gradient: np.ndarray,
    inverses: _Preconditioner,
    wanted: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton step by conjugate gradients, what share of the residual it leaves, who is slow."""
    residual = -gradient.astype(np.float32, copy=False)
    z = inverses.apply(residual)
    direction, product = z.copy(), np.einsum("ij,ij->i", residual, z)
    first = np.maximum(product, _TINY)
    change = np.sqrt(product / curvature.sum(axis=1))
    largest = _PEAK * change
    enough = _ENOUGH * (wanted / (MARGIN * largest) - 0.5 * largest)  # see `descend`
    shares = np.clip(np.maximum(_FORCING * change, enough), _EXACT, _ROUGH)
    goal = shares**2 * product
    steps, step, left = np.empty_like(residual), np.zeros_like(residual), np.arange(len(residual))
    for _ in range(_MOST_CG):
        image = direction @ rows.single_t
        image *= curvature
        image = image @ rows.single
        image += ridge * direction
        bent = np.einsum("ij,ij->i", direction, image)
        rate = np.where(bent > 0, product / bent, 0)[:, None]
        step += rate * direction
        residual -= rate * image
        z = inverses.apply(residual)
        latest = np.einsum("ij,ij->i", residual, z)
        moving = (latest > goal) & (bent > 0)
        direction *= np.where(moving, latest / product, 0)[:, None]
        direction += z
        product = latest
        if np.count_nonzero(moving) < _FEW * moving.size:
            steps[left], shares[left] = step, np.sqrt(np.abs(product) / first)
            vectors = left, step, residual, direction, product, first, goal, curvature, ridge
            left, step, residual, direction, product, first, goal, curvature, ridge = (
                part[moving] for part in vectors
            )
            inverses, moving = inverses.some(moving), moving[moving]
            if not left.size:
                break
    steps[left], shares[left] = step, np.sqrt(np.abs(product) / first)
    slow = np.zeros(len(steps), bool)
    slow[left[moving]] = shares[left[moving]] > _SLOW
    return steps, np.maximum(shares, _EXACT), slow
