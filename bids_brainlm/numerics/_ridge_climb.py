"""Which pairs of band weighting and penalty can be ruled out: nearly first, then in float32.

Of each target all pairs are scored nearly, from a `Ladder`. The one that looks best is predicted
in float32; of the others, fold after fold, those that could still be better.

Scores are kept without their part that all pairs share, so that penalties whose predictions are
nearly nothing can be told apart in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.numerics.ridge_ladder import Ladder
from bids_brainlm.numerics.ridge_screens import Candidates, Lean, Singles, bounded

_ROUNDING = 16.0 * float(np.finfo(np.float32).eps)  # of a score that is put together in float32
_AT_ONCE = 250  # targets: what is known of their pairs stays in the cache
_SMALLEST = 1e-30  # sum of squares that float32 holds with all its digits
_SURE = 0.5  # a rest of more than half the prediction says nothing about r


class Climb:
    """Targets of a block, and the pairs (gamma, alpha) that could be the best of each.

    Parameters
    ----------
    singles : Singles
    screens : sequence of sequence of Lean
        By gamma and inner fold.
    ladders : sequence of Ladder
        One per inner fold.
    slope : array, shape (n_alphas,)
        What is added to the score of each alpha.
    """

    def __init__(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Lean]],
        ladders: Sequence[Ladder],
        slope: np.ndarray,
    ) -> None:
        self.singles, self.screens, self.ladders, self.slope = singles, screens, ladders, slope
        self.train = [np.ascontiguousarray(singles.rows[f.train].T) for f in singles.folds]
        self.observed = [np.ascontiguousarray(rows.T) for rows in singles.validation]
        parts = np.array([each.base for each in singles.parts])
        self.bases = np.zeros_like(parts) if singles.centred else parts  # of each fold
        self.base = self.bases.mean(axis=0)

    def candidates(self, best: np.ndarray) -> Candidates:
        """See `Screening.candidates`.

        Parameters
        ----------
        best : array, shape (n_targets,)

        Returns
        -------
        gamma, alpha, column : array of int, shape (n_candidates,)
        """
        n_folds, n_gammas = len(self.train), len(self.screens)
        rows = sum(each.sum(axis=1) for each in (*self.train, *self.observed))
        usable = np.nonzero(~np.isnan(rows))[0]  # others have no score at any pair
        found = [
            self._nearly(usable[start : start + _AT_ONCE], best)
            for start in range(0, len(usable), _AT_ONCE)
        ]
        if not found:
            none = np.empty(0, dtype=np.intp)
            return none, none, none
        first, pair, column, highs = (
            np.concatenate(each, axis=-1) for each in zip(*found, strict=True)
        )
        least = best.copy()
        order = np.argsort(first % n_gammas, kind="stable")
        alpha, gamma = np.divmod(first[order], n_gammas)
        value, slack = self._left(gamma, alpha, usable[order])[3:]
        least[usable[order]] = np.fmax(best[usable[order]], value - slack)
        alpha, gamma = np.divmod(pair, n_gammas)
        high = highs.sum(axis=0, dtype=np.float64) / n_folds + self.base[column]
        kept = np.nonzero(~(high + self.slope[alpha] < least[column]))[0]
        order = kept[np.lexsort((column[kept], alpha[kept], gamma[kept]))]
        gamma, alpha, column, value, slack = self._left(
            gamma[order], alpha[order], column[order], highs[:, order], least
        )
        np.fmax.at(least, column, value - slack)
        kept = ~(value + slack < least[column])
        return gamma[kept], alpha[kept], column[kept]

    def _left(
        self,
        gamma: np.ndarray,
        alpha: np.ndarray,
        column: np.ndarray,
        highs: np.ndarray | None = None,
        least: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Score pairs, sorted by gamma, fold after fold: all, or what could reach ``least``."""
        n_folds = len(self.train)
        value, slack = np.zeros(len(gamma)), np.zeros(len(gamma))
        for number in range(n_folds):
            more, error = self._scored_in(number, gamma, alpha, column)
            value, slack = value + more, slack + error
            if highs is None or least is None:
                continue
            rest = value + slack + highs[number + 1 :].sum(axis=0, dtype=np.float64)
            rest += self.bases[number + 1 :].sum(axis=0)[column]
            kept = ~(rest / n_folds + self.slope[alpha] < least[column])
            gamma, alpha, column = gamma[kept], alpha[kept], column[kept]
            value, slack, highs = value[kept], slack[kept], highs[:, kept]
        return gamma, alpha, column, value / n_folds + self.slope[alpha], slack / n_folds

    def _scored_in(
        self, number: int, gamma: np.ndarray, alpha: np.ndarray, column: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score of pairs, sorted by gamma, in one fold, and a bound of its error."""
        train, observed = self.train[number], self.observed[number]
        product = np.empty(len(gamma), dtype=np.float32)
        squares = np.empty_like(product)
        scale, error = np.empty(len(gamma)), np.empty(len(gamma))
        place = np.empty(len(train), dtype=np.intp)
        borders = np.searchsorted(gamma, np.arange(len(self.screens) + 1))
        for of_gamma, start, end in zip(self.screens, borders[:-1], borders[1:], strict=True):
            if end == start:
                continue
            screen, some = of_gamma[number], slice(start, end)
            columns = np.unique(column[some])
            place[columns] = np.arange(len(columns))
            rotated = train.take(columns, axis=0) @ screen.basis
            rotated = rotated.take(place[column[some]], axis=0)
            rotated *= screen.weights.take(alpha[some], axis=0)
            prediction = rotated @ screen.across.T
            seen = observed.take(column[some], axis=0)
            np.einsum("tv,tv->t", prediction, seen, out=product[some])
            np.einsum("tv,tv->t", prediction, prediction, out=squares[some])
            scale[some], error[some] = screen.scale[alpha[some], 0], screen.error[alpha[some], 0]
        kept = self.singles.parts[number].of(column)
        with np.errstate(divide="ignore", invalid="ignore"):
            return bounded(np, (product, squares), scale, error, kept, centred=self.singles.centred)

    def _nearly(
        self, columns: np.ndarray, best: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Score all pairs of some targets nearly.

        Returns the pair that looks best of each (alpha * n_gammas + gamma), and what could be
        better: pair, column, and the bound in each fold, (n_folds, n_found).
        """
        shape = (len(columns), len(self.slope) * len(self.screens))
        total = np.zeros(shape, dtype=np.float32)
        highs = np.empty((len(self.train), *shape), dtype=np.float32)
        for number, each in enumerate(self.ladders):
            self._nearly_in(number, each, columns, total, highs[number])
        n_folds = len(self.train)
        slope = np.repeat(self.slope, len(self.screens)).astype(np.float32)
        high = highs.sum(axis=0)
        low = (2.0 * total - high) / n_folds + slope
        with np.errstate(invalid="ignore"):
            best = best[columns] - self.base[columns]
            least = np.fmax(np.fmax.reduce(low, axis=1), (best - 1e-6 * np.abs(best)))
            high = high / n_folds + slope
            row, pair = np.nonzero(~(high < least.astype(np.float32)[:, None]))
            first = np.where(np.isnan(total), -np.inf, total / n_folds + slope).argmax(axis=1)
        return first, pair, columns[row], highs[:, row, pair]

    def _nearly_in(
        self,
        number: int,
        each: Ladder,
        columns: np.ndarray,
        total: np.ndarray,
        highs: np.ndarray,
    ) -> None:
        """Score all pairs in one fold: add to ``total``, and fill ``highs``."""
        sums = each.sums(self.train[number][columns], self.observed[number][columns])
        parts = self.singles.parts[number].of(columns)
        parts = tuple(part.astype(np.float32)[:, None] for part in parts)
        n_gammas = len(self.screens)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for index, step in enumerate(each.steps):
                some = slice(index * n_gammas, (index + 1) * n_gammas)
                if self.singles.centred:
                    value, slack = _nearly_r(sums.of(step), each.error, parts[0])
                else:
                    value, slack = _nearly_r2(sums.of(step), step.unit, each.error, parts)
                total[:, some] += value
                np.add(value, slack, out=highs[:, some])


def _nearly_r2(
    sums: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    unit: float,
    error: float,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """What R2 gains over a prediction of 0, and a bound of its error; changes the sums.

    The residual is known but for a vector not above the rest.
    """
    product, squares, rest, size = sums
    inverse, root, _, rounding = parts
    unit, error = np.float32(unit), np.float32(error)
    product *= np.float32(2.0) * unit
    squares *= unit * unit
    product -= squares
    rest *= unit
    size *= unit
    noise = size + np.float32(2.0) * root
    noise *= size
    noise *= error
    residual = root * root - product
    np.maximum(residual, 0.0, out=residual)
    residual += noise
    np.sqrt(residual, out=residual)
    residual *= 2.0
    residual += rest
    residual *= rest
    residual += noise
    residual *= inverse
    product *= inverse
    residual += np.float32(_ROUNDING) * np.abs(product)
    residual += rounding
    return product, residual


def _nearly_r(
    sums: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], error: float, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and a bound of its error: the angle that the rest can turn a prediction by."""
    product, squares, rest, size = sums
    error = np.float32(error)
    norm = np.sqrt(squares)
    value = product * np.sqrt(inverse) / norm
    size /= norm
    turned = rest / norm + error * size * (np.float32(1.0) + size)
    slack = np.float32(1.2) * turned + np.float32(_ROUNDING)
    nothing = inverse == 0
    unknown = ~(turned < _SURE) | ~np.isfinite(value) | ~(squares > _SMALLEST)
    value = np.where(nothing | unknown, np.float32(0.0), value)
    slack = np.where(nothing, np.float32(_ROUNDING), np.where(unknown, np.float32(np.inf), slack))
    return value, slack
