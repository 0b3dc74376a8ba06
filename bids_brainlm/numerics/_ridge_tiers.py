"""Which band weightings can be ruled out with one penalty: nearly first, then in float32.

Of each target all weightings are scored nearly, from a `Skeleton`. The one that looks best is
predicted in float32; of the others, fold after fold, those that could still be better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.numerics.ridge_screens import Candidates, Screen, Singles, bounded
from bids_brainlm.numerics.ridge_skeleton import Skeleton

_ROUNDING = 16.0 * float(np.finfo(np.float32).eps)  # of a score that is put together in float32
_AT_ONCE = 250  # targets: their predictions stay in the cache
_ALL = slice(None)
_SMALLEST = 1e-30  # sum of squares that float32 holds with all its digits
_SURE = 0.5  # a rest of more than half the prediction says nothing about r


class Tiers:
    """Targets of a block, and what is known of all band weightings.

    Parameters
    ----------
    singles : Singles
    screens : sequence of sequence of Screen
        By gamma and inner fold; one alpha, no basis.
    skeletons : sequence of Skeleton
        One per inner fold.
    slope : float
        What is added to every score.
    """

    def __init__(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        skeletons: Sequence[Skeleton],
        slope: float,
    ) -> None:
        self.singles, self.screens, self.slope = singles, screens, slope
        self.train = [np.ascontiguousarray(singles.rows[f.train].T) for f in singles.folds]
        self.observed = [np.ascontiguousarray(rows.T) for rows in singles.validation]
        self.values, self.highs = [], []
        for number, each in enumerate(skeletons):
            value, slack = self._nearly(number, each)
            self.values.append(value)
            self.highs.append(value + slack)

    def candidates(self, best: np.ndarray) -> Candidates:
        """See `Screening.candidates`.

        Parameters
        ----------
        best : array, shape (n_targets,)

        Returns
        -------
        gamma, alpha, column : array of int, shape (n_candidates,)
        """
        n_folds = len(self.train)
        first = sum(self.values).argmax(axis=1)
        order = np.argsort(first, kind="stable")
        value, slack = self._scored(first[order], order)
        least = best.copy()
        least[order] = np.fmax(best[order], value - slack)
        high = sum(self.highs) / n_folds + self.slope
        column, gamma = np.nonzero(~(high < least[:, None]))
        order = np.argsort(gamma, kind="stable")
        gamma, column = gamma[order], column[order]
        gamma, column, value, slack = self._left(gamma, column, least)
        np.fmax.at(least, column, value - slack)
        kept = value + slack >= least[column]
        gamma, column = gamma[kept], column[kept]
        return gamma, np.zeros_like(gamma), column

    def _left(
        self, gamma: np.ndarray, column: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Score fold after fold what could reach ``least``: gamma, column, mean, slack."""
        n_folds = len(self.train)
        value, slack = np.zeros(len(gamma)), np.zeros(len(gamma))
        for number in range(n_folds):
            more, error = self._scored_in(number, gamma, column)
            value, slack = value + more, slack + error
            rest = value + slack
            for high in self.highs[number + 1 :]:
                rest = rest + high[column, gamma]
            kept = ~(rest / n_folds + self.slope < least[column])
            gamma, column, value, slack = gamma[kept], column[kept], value[kept], slack[kept]
        return gamma, column, value / n_folds + self.slope, slack / n_folds

    def _scored(self, gamma: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean score of pairs, sorted by gamma, and a bound of its error."""
        n_folds = len(self.train)
        pairs = [self._scored_in(number, gamma, column) for number in range(n_folds)]
        value, slack = (sum(each) / n_folds for each in zip(*pairs, strict=True))
        return value + self.slope, slack

    def _scored_in(
        self, number: int, gamma: np.ndarray, column: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score of pairs, sorted by gamma, in one fold, and a bound of its error."""
        train, observed = self.train[number], self.observed[number]
        product = np.empty(len(gamma), dtype=np.float32)
        squares = np.empty_like(product)
        borders = np.searchsorted(gamma, np.arange(len(self.screens) + 1))
        screens = [of_gamma[number] for of_gamma in self.screens]
        for screen, start, end in zip(screens, borders[:-1], borders[1:], strict=True):
            if end > start:
                some = column[start:end]
                prediction = train.take(some, axis=0) @ screen.stack[0].T
                seen = observed.take(some, axis=0)
                np.einsum("tv,tv->t", prediction, seen, out=product[start:end])
                np.einsum("tv,tv->t", prediction, prediction, out=squares[start:end])
        scale = np.array([screen.scale[0, 0] for screen in screens])[gamma]
        error = np.array([screen.error[0, 0] for screen in screens])[gamma]
        kept = self.singles.parts[number].of(column)
        with np.errstate(divide="ignore", invalid="ignore"):
            return bounded(
                np, (product, squares), scale, error, kept, centred=self.singles.centred
            )

    def _nearly(self, number: int, each: Skeleton) -> tuple[np.ndarray, np.ndarray]:
        """Score all weightings in one fold from few products, and bound the error."""
        shape = (len(self.train[number]), len(self.screens))
        value, slack = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        parts = [part.astype(np.float32)[:, None] for part in self.singles.parts[number].of(_ALL)]
        for start in range(0, shape[0], _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            sums = each.sums(self.train[number][some], self.observed[number][some])
            inverse, root, base, _ = (part[some] for part in parts)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                if self.singles.centred:
                    value[some], slack[some] = _nearly_r(*sums, each.error, inverse)
                else:
                    value[some], slack[some] = _nearly_r2(*sums, each.error, (inverse, root, base))
        return value, slack


def _nearly_r2(
    product: np.ndarray,
    squares: np.ndarray,
    rest: np.ndarray,
    size: np.ndarray,
    error: float,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """R2 and a bound of its error: the residual is known but for a vector not above ``rest``."""
    inverse, root, base = parts
    gain = 2.0 * product - squares
    noise = error * size * (2.0 * root + size)
    residual = np.sqrt((root**2 - gain).clip(min=0.0) + noise)
    value = base + gain * inverse
    slack = ((2.0 * residual + rest) * rest + noise) * inverse
    return value, slack + _ROUNDING * (1.0 + np.abs(value))


def _nearly_r(
    product: np.ndarray,
    squares: np.ndarray,
    rest: np.ndarray,
    size: np.ndarray,
    error: float,
    inverse: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and a bound of its error: the angle that ``rest`` can turn a prediction by."""
    norm = np.sqrt(squares)
    value = product * np.sqrt(inverse) / norm
    turned = rest / norm + error * (size / norm) * (1.0 + size / norm)
    slack = np.where(turned < _SURE, 1.2 * turned + _ROUNDING, np.inf)
    nothing = inverse == 0
    unknown = ~nothing & ~(np.isfinite(value) & (squares > _SMALLEST))
    value = np.where(nothing | unknown, 0.0, value)
    return value, np.where(nothing, _ROUNDING, np.where(unknown, np.inf, slack))
