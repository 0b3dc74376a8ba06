"""Weights and predictions of delayed features in fewer products.

With features Z (rows at the shortest delay), the weights of delay k are the sum over t of
``Z[t - k]' g[t]``, and predictions the sum over k of ``Z[t - k] w[k]``. For two delays and
pairs of rows both are products with ``[[T0, T1], [T-1, T0]]``, which is constant along its
diagonals, so that three products do the work of four:

    T0 a + T1 b = T0 (a + b) + (T1 - T0) b
    T-1 a + T0 b = T0 (a + b) + (T-1 - T0) a

Four delays and blocks of four rows are two levels of this: 9 products for 16. Factors are 1
and -1 only, so that hardly a digit is lost.

References
----------
.. [1] Winograd (1980), Arithmetic Complexity of Computations, doi:10.1137/1.9781611970364
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bids_brainlm.numerics.folds import Fold, ranges

_TARGETS_AT_ONCE = 176  # products of so many targets stay in the cache
_STEP = 8  # whole vector registers
_ALL, _REST, _FIRST = slice(None), slice(1, None), slice(0, 1)
_REVERSED = slice(None, None, -1)


class Part(NamedTuple):
    """Some features, ready for `LagProducts.read`.

    Attributes
    ----------
    train : array, shape (3, ..., n_features, n_train_blocks)
        One axis of 3 a level.
    test : array, shape (3, ..., n_test_blocks, n_features)
    mean : array, shape (2, ..., 1, n_features), or None
        Means of training rows at each delay; None where they are not taken off.
    """

    train: np.ndarray
    test: np.ndarray
    mean: np.ndarray | None


class LagProducts:
    """Rows of one outer fold, in blocks of as many rows as there are delays.

    Parameters
    ----------
    fold : Fold
        Rows of the story, increasing.
    delays : sequence of int
        See `usable`.
    n_trs : int
        Rows of the story.
    centre : bool
        The means of the training rows are taken off delayed features.
    """

    def __init__(self, fold: Fold, delays: Sequence[int], n_trs: int, *, centre: bool) -> None:
        self.n_delays, self.longest = len(delays), delays[-1]
        self.n_levels = self.n_delays.bit_length() - 1
        self.twos, self.threes = (2,) * self.n_levels, (3,) * self.n_levels
        shifts = np.zeros(1, dtype=np.intp)
        for _ in range(self.n_levels):
            shifts = np.add.outer(2 * shifts, [0, 1, -1]).reshape(-1)
        starts, self.train_places = _cut(fold.train, self.n_delays)
        self.train_rows = shifts[:, None] + (starts + self.n_delays - 1)
        starts, self.test_places = _cut(fold.test, self.n_delays)
        self.test_rows = shifts[:, None] + (starts + self.n_delays - 1)
        self.mean: np.ndarray | None = None
        if centre:
            self.average = np.zeros(n_trs)
            self.average[fold.train] = 1.0 / len(fold.train)
            self.mean = np.zeros((self.n_delays, self._n_padded(n_trs)))
            for row, lag in zip(self.mean, delays, strict=True):
                row[fold.train + self.longest - lag] = 1.0 / len(fold.train)

    def part(self, features: np.ndarray, of_test: np.ndarray | None = None) -> Part:
        """Prepare some features.

        Parameters
        ----------
        features : array, shape (n_trs, n_features)
            Scaled, of the whole story, not delayed.
        of_test : array, shape (n_trs, n_features), optional
            The same where test rows are scaled in another way.

        Returns
        -------
        Part
        """
        n_trs, n_features = features.shape
        middle = 0.0  # taken off all rows where means are taken off, so that no digits are lost
        if self.mean is not None:
            middle = self.average @ features
        padded = np.empty((self._n_padded(n_trs), n_features))
        padded[: self.longest] = padded[self.longest + n_trs :] = -middle
        np.subtract(features, middle, out=padded[self.longest : self.longest + n_trs])
        mean = None
        if self.mean is not None:
            mean = (self.mean @ padded).reshape(*self.twos, 1, n_features)
        sides = [padded[self.train_rows]]
        if of_test is not None:
            np.subtract(of_test, middle, out=padded[self.longest : self.longest + n_trs])
        sides.append(padded[self.test_rows])
        for number, side in enumerate(sides):
            sides[number] = side.reshape(*self.threes, -1, n_features)
            for level in range(self.n_levels):
                before = (_ALL,) * level
                sides[number][*before, _REST] -= sides[number][*before, _FIRST]
        return Part(sides[0].swapaxes(-1, -2), sides[1], mean)

    def dual(self, weights: np.ndarray) -> np.ndarray:
        """Prepare dual weights.

        Parameters
        ----------
        weights : array, shape (n_train, n_targets)

        Returns
        -------
        array, shape (3, ..., n_train_blocks, n_targets)
            9 / 4 of the size at 4 delays.
        """
        if self.mean is not None:  # centred features do not see the mean of the weights
            weights = weights - weights.mean(axis=0)
        n_blocks, n_targets = self.train_rows.shape[1], weights.shape[1]
        rows = np.zeros((n_blocks * self.n_delays, n_targets))
        rows[self.train_places] = weights
        made = np.empty((*self.threes, n_blocks, n_targets))
        made[(_REST,) * self.n_levels] = self._blocks(rows)
        self._add_up(made)
        return made

    def read(self, part: Part, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict test rows.

        Parameters
        ----------
        part : Part
        dual : array, shape (3, ..., n_train_blocks, n_targets)
            From `dual`.

        Returns
        -------
        prediction : array, shape (n_test, n_targets)
            ``X_test X_train' dual`` of the delayed features X.
        squares : array, shape (n_targets,)
            Sum of squares of the weights ``X_train' dual``.
        """
        n_targets = dual.shape[-1]
        outer = np.empty((*part.test.shape[:-1], min(n_targets, _TARGETS_AT_ONCE)))
        rows = np.empty((self.test_rows.shape[1] * self.n_delays, n_targets))
        squares = np.empty(n_targets)
        for some, weights in self._weights(part, dual):
            found = outer[..., : some.stop - some.start]
            own = weights[(_REST,) * self.n_levels]
            squares[some] = self._squares(own)
            offset = None if part.mean is None else self._offset(part.mean, own)
            self._add_up(weights)
            np.matmul(part.test, weights, out=found)
            if offset is not None:
                found[(0,) * self.n_levels] -= offset
            self._share(found, 1)
            after = (_REST,) * (self.n_levels - 1)
            np.add(found[_REST, *after], found[_FIRST, *after], out=self._blocks(rows[:, some]))
        if len(self.test_places) == self.test_places[-1] + 1:
            return rows[: len(self.test_places)], squares
        return rows[self.test_places], squares

    def squares(self, part: Part, dual: np.ndarray) -> np.ndarray:
        """Sum squares of weights, without predictions.

        Parameters
        ----------
        part : Part
        dual : array, shape (3, ..., n_train_blocks, n_targets)
            From `dual`.

        Returns
        -------
        array, shape (n_targets,)
            As from `read`.
        """
        squares = np.empty(dual.shape[-1])
        for some, weights in self._weights(part, dual):
            squares[some] = self._squares(weights[(_REST,) * self.n_levels])
        return squares

    def _weights(self, part: Part, dual: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Give the weights of some targets at a time, the first of three left free."""
        n_targets = dual.shape[-1]
        size = -(-n_targets // max(1, -(-n_targets // _TARGETS_AT_ONCE)))
        size = min(n_targets, -(-size // _STEP) * _STEP)
        inner = np.empty((*part.train.shape[:-1], size))
        for start in range(0, n_targets, max(size, 1)):
            some = slice(start, min(start + size, n_targets))
            weights = inner[..., : some.stop - start]
            np.matmul(part.train, dual[..., some], out=weights)
            self._share(weights, 0)
            yield some, weights

    def _squares(self, weights: np.ndarray) -> np.ndarray:
        """Sum squares over delays and features."""
        each = np.einsum("...it,...it->...t", weights, weights)
        return each.reshape(self.n_delays, -1).sum(axis=0)

    def _n_padded(self, n_trs: int) -> int:
        """Rows of a story with those before and after it that blocks reach."""
        return self.longest + n_trs + self.n_delays

    def _blocks(self, rows: np.ndarray) -> np.ndarray:
        """View rows by their place in a block, the last first, (2, ..., n_blocks, n_targets)."""
        split = rows.reshape(len(rows) // self.n_delays, *self.twos, rows.shape[-1])
        axes = (*range(1, self.n_levels + 1), 0, self.n_levels + 1)
        return split.transpose(axes)[(_REVERSED,) * self.n_levels]

    def _add_up(self, array: np.ndarray) -> None:
        """Set the first of three to the sum of the other two, at each level."""
        for level in reversed(range(self.n_levels)):
            before = (_REST,) * level
            np.add(array[*before, 1], array[*before, 2], out=array[*before, 0])

    def _share(self, array: np.ndarray, last_level: int) -> None:
        """Add the first of three to the other two, at each level down to the last."""
        for level in reversed(range(last_level, self.n_levels)):
            before, after = (_ALL,) * level, (_REST,) * (self.n_levels - 1 - level)
            array[*before, _REST, *after] += array[*before, _FIRST, *after]

    def _offset(self, mean: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Predict the mean of the training rows, (1, n_targets)."""
        return (mean @ weights).reshape(self.n_delays, 1, -1).sum(axis=0)


def usable(delays: Sequence[int]) -> bool:
    """Tell whether `LagProducts` takes these delays.

    Parameters
    ----------
    delays : sequence of int
        TRs.

    Returns
    -------
    bool
        2, 4, 8 ... delays that follow each other.
    """
    n_delays = len(delays)
    if n_delays < 2 or n_delays & (n_delays - 1):
        return False
    return all(lag == delays[0] + k for k, lag in enumerate(delays))


def _cut(rows: np.ndarray, n_each: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut runs of rows into blocks: first row of each block, place of each row in the blocks."""
    starts, places, n_blocks = [], [], 0
    for first, last in ranges(rows):
        own = np.arange(first, last + 1, n_each)
        places.append(np.arange(last + 1 - first) + n_blocks * n_each)
        starts.append(own)
        n_blocks += len(own)
    return np.concatenate(starts), np.concatenate(places)
