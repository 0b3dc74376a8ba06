"""Weights and predictions of delayed features at any delays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bids_brainlm.numerics.fir import delay
from bids_brainlm.numerics.folds import Fold


class Part(NamedTuple):
    """Delayed features of a fold.

    Attributes
    ----------
    train : array, shape (n_train, n_delays * n_features)
    test : array, shape (n_test, n_delays * n_features)
    """

    train: np.ndarray
    test: np.ndarray


class PlainProducts:
    """What `_lag_products.LagProducts` does, without its conditions.

    Parameters
    ----------
    fold : Fold
        Rows of the story.
    delays : sequence of int
        FIR delays in TRs.
    centre : bool
        The means of the training rows are taken off delayed features.
    """

    def __init__(self, fold: Fold, delays: Sequence[int], *, centre: bool) -> None:
        self.fold, self.delays, self.centre = fold, delays, centre

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
        delayed = delay(features, self.delays)
        train = delayed[self.fold.train]
        if of_test is not None:
            delayed = delay(of_test, self.delays)
        test = delayed[self.fold.test]
        if self.centre:
            mean = train.mean(axis=0)
            train -= mean
            test -= mean
        return Part(train, test)

    def dual(self, weights: np.ndarray) -> np.ndarray:
        """Prepare dual weights: nothing to do.

        Parameters
        ----------
        weights : array, shape (n_train, n_targets)

        Returns
        -------
        array, shape (n_train, n_targets)
        """
        return weights

    def read(self, part: Part, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict test rows, through columns or through kernels, whichever is cheaper.

        Parameters
        ----------
        part : Part
        dual : array, shape (n_train, n_targets)

        Returns
        -------
        prediction : array, shape (n_test, n_targets)
            ``X_test X_train' dual`` of the delayed features X.
        squares : array, shape (n_targets,)
            Sum of squares of the weights ``X_train' dual``.
        """
        train, test = part
        wide = train.shape[1] > train.shape[0]
        inside, across = (train @ train.T, test @ train.T) if wide else (train.T, test)
        product = inside @ dual
        squares = np.einsum("it,it->t", dual if wide else product, product)
        return across @ (dual if wide else product), squares.clip(min=0.0)

    def squares(self, part: Part, dual: np.ndarray) -> np.ndarray:
        """Sum squares of weights, without predictions.

        Parameters
        ----------
        part : Part
        dual : array, shape (n_train, n_targets)

        Returns
        -------
        array, shape (n_targets,)
            As from `read`.
        """
        return self.read(part._replace(test=part.test[:0]), dual)[1]
