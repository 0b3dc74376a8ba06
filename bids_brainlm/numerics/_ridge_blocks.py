"""Scores of many candidates for a block of targets: all in float32, the best in float64.

Every pair (gamma, alpha) is scored in float32 with a bound of its error. Pairs that could be
the best are scored again in float64; choices and scores come from these alone. float64
products are taken in panels of `PANEL` columns in which the place of a target depends on its
own number within its participant, so that no bit depends on which targets share a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from bids_brainlm.numerics._ridge_factors import Hat
from bids_brainlm.numerics.folds import Fold

PANEL = 8
_EXACT_AT_ONCE = 500
_FEW_TARGETS = 160
_SEVERAL_ALPHAS = 3  # from here on a first bound pays, and all hats have a basis
_EPSILON = np.finfo(np.float64).eps
_DEVIATIONS = 4.0  # of a sum of rounding errors (Higham and Mary 2019, doi:10.1137/18M1226312)
_ROUNDING = 16.0 * _EPSILON  # of a score that is put together in float64
_UNIT = float(np.finfo(np.float32).eps) / 2.0


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
        flat = self.stack.reshape(len(self.stack), -1)
        norms = np.sqrt(np.einsum("aj,aj->a", flat, flat))[:, None].astype(np.float64)
        self.basis = hat.single
        if explicit and self.basis is not None:
            product = self.stack.reshape(-1, n_train) @ self.basis.T
            self.stack, self.basis = product.reshape(self.stack.shape), None
        n_terms = n_train + n_validation
        self.error = _DEVIATIONS * np.sqrt(n_terms) * _UNIT * norms * self.scale

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


class Block:
    """Some targets and the best that was found for them so far.

    Parameters
    ----------
    targets : array, shape (n_rows, n_targets)
        float64, columns of any participants.
    numbers : array of int, shape (n_targets,)
        Number of each target within its participant.
    folds : sequence of Fold
        Inner folds.
    centred : bool
        The score is r.
    """

    def __init__(
        self, targets: np.ndarray, numbers: np.ndarray, folds: Sequence[Fold], *, centred: bool
    ) -> None:
        self.targets, self.slots = targets, numbers % PANEL
        self.folds, self.centred = folds, centred
        n_targets = targets.shape[1]
        size = np.sqrt(np.einsum("rt,rt->t", targets, targets))
        self.size = np.where(size > 0, size, 1.0)
        self.rows = np.ascontiguousarray(targets / self.size, dtype=np.float32)
        self.validation, self.parts = [], []
        for fold in folds:
            rows = targets[fold.test] / self.size
            deviation = rows - rows.mean(axis=0)
            kept = deviation if centred else rows
            self.parts.append(_Parts(deviation, kept))
            self.validation.append(kept.astype(np.float32))
        self.best = np.full(n_targets, -np.inf)
        self.gamma_index = np.zeros(n_targets, dtype=np.intp)
        self.alpha_index = np.zeros(n_targets, dtype=np.intp)

    def update(
        self,
        indices: Sequence[int],
        hats: Sequence[Sequence[Hat]],
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
    ) -> None:
        """Score some gammas at every alpha and keep what is better.

        Parameters
        ----------
        indices : sequence of int
            Numbers of the gammas, increasing.
        hats, screens : sequence of sequence
            By gamma and inner fold.
        slope : array, shape (n_alphas,)
            What is added to the score of each alpha.
        """
        low, high = self._bounds(screens, slope[:, None])
        least = np.fmax(self.best, low.max(axis=(0, 1)))
        gamma, alpha, column = np.nonzero(high >= least)
        value = slope[alpha] + self._exact(hats, gamma, alpha, column)
        borders = np.searchsorted(gamma, np.arange(len(hats) + 1))
        for g, (start, end) in enumerate(itertools.pairwise(borders)):
            if end > start:
                self._keep(indices[g], alpha[start:end], column[start:end], value[start:end])

    def _keep(self, index: int, alpha: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        """Compare exact values of one gamma with the best so far."""
        columns, place = np.unique(column, return_inverse=True)
        table = np.full((alpha.max() + 1, len(columns)), -np.inf)
        table[alpha, place] = value
        alpha_index = table.argmax(axis=0)
        value = table.max(axis=0)
        better = value > self.best[columns] + _EPSILON
        columns = columns[better]
        self.best[columns] = value[better]
        self.gamma_index[columns] = index
        self.alpha_index[columns] = alpha_index[better]

    def _bounds(
        self, screens: Sequence[Sequence[Screen]], slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bound the mean score of each (gamma, alpha, target) from below and above."""
        shape = (len(screens), len(slope), len(self.best))
        pays = shape[1] >= _SEVERAL_ALPHAS and shape[2] > _FEW_TARGETS
        if pays and not self.centred and screens[0][0].basis is not None:
            return self._pruned(screens, slope)
        mean, slack = np.zeros(shape), np.zeros(shape)
        for number, fold in enumerate(self.folds):
            train = self.rows[fold.train]
            rotated, basis = train, None
            for g, of_gamma in enumerate(screens):
                screen = of_gamma[number]
                if screen.basis is not basis:
                    basis = screen.basis
                    rotated = train if basis is None else basis.T @ train
                moments = _moments(screen.stack, rotated, self.validation[number])
                value, error = self._bounded(number, screen, moments)
                mean[g] += value
                slack[g] += error
        mean = mean / len(self.folds) + slope
        slack /= len(self.folds)
        return mean - slack, mean + slack

    def _pruned(
        self, screens: Sequence[Sequence[Screen]], slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bound the mean score; predict only where a first bound reaches the best so far."""
        low = np.full((len(screens), len(slope), len(self.best)), -np.inf)
        high = low.copy()
        observed = [np.ascontiguousarray(rows.T) for rows in self.validation]
        train = [self.rows[fold.train].T for fold in self.folds]
        rotated, bases = list(train), [None] * len(train)
        least = self.best.copy()
        for g, of_gamma in enumerate(screens):
            upper = np.zeros(low.shape[1:])
            for number, screen in enumerate(of_gamma):
                if screen.basis is not bases[number]:
                    bases[number] = screen.basis
                    rotated[number] = train[number] @ screen.basis
                product = screen.products(rotated[number], observed[number])
                upper += self._most(number, screen, product)
            upper = upper / len(self.folds) + slope
            for a, reached in enumerate(upper >= least):
                some = np.flatnonzero(reached)
                if not some.size:
                    continue
                mean, slack = np.zeros(len(some)), np.zeros(len(some))
                for number, screen in enumerate(of_gamma):
                    prediction = rotated[number][some] @ screen.stack[a].T
                    moments = (
                        np.einsum("tv,tv->t", prediction, observed[number][some])[None],
                        np.einsum("tv,tv->t", prediction, prediction)[None],
                    )
                    value, error = self._bounded(number, screen, moments, a, some)
                    mean += value[0]
                    slack += error[0]
                mean = mean / len(self.folds) + slope[a]
                slack /= len(self.folds)
                low[g, a, some], high[g, a, some] = mean - slack, mean + slack
            least = np.fmax(least, low[g].max(axis=0))
        return low, high

    def _most(self, number: int, screen: Screen, product: np.ndarray) -> np.ndarray:
        """Bound R2 of one fold from above: (p'p)(y'y) is at least (p'y)^2."""
        parts = self.parts[number]
        product = product * screen.scale
        error = screen.error * parts.root
        share = product * parts.own_inverse
        gain = (2.0 - share) * product + error * (2.0 + 2.0 * np.abs(share))
        gain += error**2 * parts.own_inverse
        return parts.base + parts.rounding + gain * parts.inverse

    def _bounded(
        self,
        number: int,
        screen: Screen,
        moments: tuple[np.ndarray, np.ndarray],
        alphas: int | slice = slice(None),
        columns: np.ndarray | slice = slice(None),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score of one fold and a bound of its error, from float32 sums."""
        scale, error = screen.scale[alphas], screen.error[alphas]
        parts = self.parts[number]
        inverse, root = parts.inverse[columns], parts.root[columns]
        squares = moments[1] * scale**2
        size = np.sqrt(squares)
        if not self.centred:
            value = (moments[0] * (2.0 * scale) - squares) * inverse + parts.base[columns]
            slack = (size + (root + 0.5 * error)) * (2.0 * error)
            return value, slack * inverse + parts.rounding[columns]
        nothing = (inverse == 0) | (error == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = moments[0] * scale * np.sqrt(inverse) / size
            error = np.where(size > 2.0 * error, 4.0 * error / size + _ROUNDING, np.inf)
        return np.where(nothing, 0.0, value), np.where(nothing, 0.0, error)

    def _exact(
        self,
        hats: Sequence[Sequence[Hat]],
        gamma: np.ndarray,
        alpha: np.ndarray,
        column: np.ndarray,
    ) -> np.ndarray:
        """Score triples (gamma, alpha, target), sorted, in float64."""
        value = np.zeros(len(column))
        group = np.cumsum(np.r_[True, (np.diff(gamma) != 0) | (np.diff(alpha) != 0)])[: len(gamma)]
        start = 0
        while start < len(column):  # whole groups of one gamma and alpha at a time
            last = group[min(start + _EXACT_AT_ONCE, len(group)) - 1]
            end = int(np.searchsorted(group, last, "right"))
            some = slice(start, end)
            panel, owner = _places(group[some], self.slots[column[some]])
            order = np.full(len(owner) * PANEL, -1)
            place = panel * PANEL + self.slots[column[some]]
            order[place] = column[some]
            rows = self.targets[:, order.clip(min=0)]
            rows[:, order < 0] = 0.0
            first = np.searchsorted(group, owner)
            for number, fold in enumerate(self.folds):
                train, observed = _panels(rows[fold.train]), _panels(rows[fold.test])
                prediction = np.empty_like(observed)
                for of_group in np.unique(owner):
                    panels = slice(*np.searchsorted(owner, [of_group, of_group + 1]))
                    triple = first[panels.start]
                    hat = hats[gamma[triple]][number]
                    rotated = train[panels]
                    if hat.basis is not None:
                        rotated = hat.basis.T @ rotated
                    np.matmul(hat.matrix(alpha[triple]), rotated, out=prediction[panels])
                value[some] += _score(prediction, observed, self.centred).ravel()[place]
            start = end
        return value / len(self.folds)


class _Parts:
    """What scores of one fold share: R2 = base + (2 p'y - p'p) * inverse."""

    def __init__(self, deviation: np.ndarray, kept: np.ndarray) -> None:
        total = np.einsum("vt,vt->t", deviation, deviation)
        own = np.einsum("vt,vt->t", kept, kept)
        with np.errstate(divide="ignore"):
            self.inverse = np.where(total == 0, 0.0, 1.0 / total)
            self.own_inverse = np.where(own == 0, 0.0, 1.0 / own)
        self.root = np.sqrt(own)
        self.base = np.where(total == 0, 0.0, 1.0 - own * self.inverse)
        self.rounding = np.where(total == 0, 0.0, _ROUNDING * (1.0 + own * self.inverse))


def _places(group: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Panel of each target, as few as the fullest slot of its group needs; group of each panel."""
    key = group * PANEL + slots
    order = np.argsort(key, kind="stable")
    rank = np.empty_like(key)
    rank[order] = np.arange(len(key)) - np.searchsorted(key[order], key[order])
    names, number = np.unique(group, return_inverse=True)
    n_panels = np.zeros(len(names), dtype=np.intp)
    np.maximum.at(n_panels, number, rank + 1)
    return (np.cumsum(n_panels) - n_panels)[number] + rank, np.repeat(names, n_panels)


def _panels(rows: np.ndarray) -> np.ndarray:
    """Cut columns into panels, (n_panels, n_rows, PANEL)."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1, PANEL).transpose(1, 0, 2))


def _moments(
    stack: np.ndarray, rotated: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of prediction x target and of squared predictions, each (n_alphas, n_targets)."""
    n_alphas, n_validation, n_train = stack.shape
    if rotated.shape[1] <= _FEW_TARGETS:
        prediction = (stack.reshape(-1, n_train) @ rotated).reshape(n_alphas, n_validation, -1)
        product = np.einsum("vt,avt->at", validation, prediction)
        return product, np.einsum("avt,avt->at", prediction, prediction)
    product = np.empty((n_alphas, rotated.shape[1]), dtype=np.float32)
    squares = np.empty_like(product)
    for index, hat in enumerate(stack):
        prediction = hat @ rotated
        product[index] = np.einsum("vt,vt->t", validation, prediction)
        squares[index] = np.einsum("vt,vt->t", prediction, prediction)
    return product, squares


def _score(prediction: np.ndarray, observed: np.ndarray, centred: bool) -> np.ndarray:
    """Validation score in float64, from (n_panels, n_validation, PANEL) to (n_panels, PANEL)."""
    deviation = observed - observed.mean(axis=1, keepdims=True)
    if centred:
        observed = deviation
    total, own, product, squares = (
        np.einsum("pvt,pvt->pt", one, other)
        for one, other in (
            (deviation, deviation),
            (observed, observed),
            (prediction, observed),
            (prediction, prediction),
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        if centred:
            value = product / np.sqrt(squares * total)
            return np.where((squares == 0) | (total == 0), 0.0, value)
        value = 1.0 - (own - 2.0 * product + squares) / total
        return np.where(total == 0, 0.0, value)
