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
from bids_brainlm.numerics.ridge_screens import Parts, Screen, Screening, Singles, is_constant

PANEL = 8
_EXACT_AT_ONCE = 500
_EPSILON = np.finfo(np.float64).eps


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
        self.singles = _singles(targets, folds, centred=centred)
        self.best = np.full(n_targets, -np.inf)
        self.gamma_index = np.zeros(n_targets, dtype=np.intp)
        self.alpha_index = np.zeros(n_targets, dtype=np.intp)

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of gamma and alpha, and the score, of each target."""
        return self.gamma_index, self.alpha_index, self.best

    def update(
        self,
        indices: Sequence[int],
        hats: Sequence[Sequence[Hat]],
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        screening: Screening,
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
        screening : Screening
            What rules out pairs.
        """
        gamma, alpha, column = screening.candidates(self.singles, screens, slope, self.best)
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


def _singles(targets: np.ndarray, folds: Sequence[Fold], *, centred: bool) -> Singles:
    """Divide targets by their norms and cut out the validation rows."""
    size = np.sqrt(np.einsum("rt,rt->t", targets, targets))
    size = np.where(size > 0, size, 1.0)
    validation, parts = [], []
    for fold in folds:
        rows = targets[fold.test] / size
        deviation = rows - rows.mean(axis=0)
        deviation[:, is_constant(deviation, rows, 0)] = 0.0
        kept = deviation if centred else rows
        parts.append(Parts(deviation, kept))
        validation.append(kept.astype(np.float32))
    single = np.ascontiguousarray(targets / size, dtype=np.float32)
    return Singles(single, validation, parts, folds, centred)


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


def _score(prediction: np.ndarray, observed: np.ndarray, centred: bool) -> np.ndarray:
    """Validation score in float64, from (n_panels, n_validation, PANEL) to (n_panels, PANEL)."""
    deviation = observed - observed.mean(axis=1, keepdims=True)
    nothing = is_constant(deviation, observed, 1)
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
            return np.where((squares == 0) | nothing, 0.0, value)
        value = 1.0 - (own - 2.0 * product + squares) / total
        return np.where(nothing, 0.0, value)
