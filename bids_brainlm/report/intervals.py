"""Intervals of means over participants."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report.figures_encoding import column_mean


def interval_over_people(values: np.ndarray, *, fisher: bool) -> tuple[np.ndarray, ...]:
    """Return mean and 95 % t interval over participants of the mean over parcels.

    Parameters
    ----------
    values : array, shape (n_people, n_parcels, n_columns)
        Scores.
    fisher : bool
        Whether the values are correlations, averaged after Fisher's transformation.

    Returns
    -------
    tuple of array, each shape (n_columns,)
        Mean, low, high; the limits are NaN for fewer than three participants.
    """
    from scipy import stats

    people = np.stack([column_mean(one) for one in values])
    scale = np.arctanh(np.clip(people, -0.999999, 0.999999)) if fisher else people
    count = np.isfinite(scale).sum(axis=0)
    centre = column_mean(scale)
    spread = np.nansum((scale - centre) ** 2, axis=0) / np.maximum(count - 1, 1)
    half = stats.t.ppf(0.975, np.maximum(count - 1, 1)) * np.sqrt(spread / np.maximum(count, 1))
    half = np.where(count >= 3, half, np.nan)
    back = np.tanh if fisher else np.asarray
    return back(centre), back(centre - half), back(centre + half)
