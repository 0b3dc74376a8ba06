"""Scores of many predictions of the same held-out data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.numerics import crossval, scores

_SAFE_SHARE = 1e-3  # variance of a prediction as a share of its mean square


class SameData:
    """Held-out data of one participant, centred once for all predictions.

    Parameters
    ----------
    observed : sequence of array, shape (n_test, n_targets)
        One an outer fold.
    errors : sequence of array, shape (n_test, n_targets), optional
        What the joint prediction leaves of them; with them, `score` gives the loss as well.
    """

    def __init__(
        self, observed: Sequence[np.ndarray], errors: Sequence[np.ndarray] | None = None
    ) -> None:
        self.observed = observed
        self.errors = errors and [error - error.mean(axis=0) for error in errors]
        self.total = crossval.squares(observed)
        self.units = []
        for data in observed:
            unit = data - data.mean(axis=0)
            norm = np.sqrt(np.einsum("it,it->t", unit, unit))
            varies = np.isfinite(scores.pearson(data, data))
            unit *= np.divide(1.0, norm, out=np.zeros_like(norm), where=varies)
            self.units.append(unit)

    def score(self, predictions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Correlate a part with the data, and say what the joint prediction is without it.

        Parameters
        ----------
        predictions : sequence of array, shape (n_test, n_targets)
            The part, one array an outer fold.

        Returns
        -------
        r : array, shape (n_targets,)
            As `crossval.mean_r`.
        r2_loss : array, shape (n_targets,), or None
            See `heads.HeadResult`.

        Notes
        -----
        Sums of products with centred data need no centred prediction. Where a prediction hardly
        varies about its mean, it is centred first, so that no digits are lost.
        """
        r, more = 0.0, 0.0
        for fold, prediction in enumerate(predictions):
            squares = np.einsum("it,it->t", prediction, prediction)
            variance = squares - prediction.sum(axis=0) ** 2 / len(prediction)
            own = np.einsum("it,it->t", prediction, self.units[fold])
            flat = np.flatnonzero(~(variance > _SAFE_SHARE * squares))
            with np.errstate(divide="ignore", invalid="ignore"):
                own /= np.sqrt(variance)
            if flat.size:
                own[flat] = scores.pearson(prediction[:, flat], self.observed[fold][:, flat])
                variance[flat] = crossval.squares([prediction[:, flat]])
            r = r + np.nan_to_num(own, nan=0.0).clip(-1.0, 1.0)
            if self.errors is not None:
                product = np.einsum("it,it->t", prediction, self.errors[fold])
                centred = prediction[:, flat] - prediction[:, flat].mean(axis=0)
                product[flat] = np.einsum("it,it->t", centred, self.errors[fold][:, flat])
                more = more + variance + 2.0 * product
        if self.errors is None:
            return r / len(predictions), None
        return r / len(predictions), more / np.where(self.total > 0, self.total, np.nan)
