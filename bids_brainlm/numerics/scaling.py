"""Standardise features with the statistics of the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError

_RELATIVE_ZERO = 1e-12


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each column.

    Attributes
    ----------
    mean : array, shape (n_features,)
        Mean over the rows that were fitted.
    sd : array, shape (n_features,)
        Standard deviation over the same rows; 1 for constant columns.
    """

    mean: np.ndarray
    sd: np.ndarray


def fit(
    features: np.ndarray, rows: np.ndarray, valid: np.ndarray | None = None, ddof: int = 0
) -> Scaler:
    """Take mean and standard deviation over training rows.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        Features or targets.
    rows : array of int, shape (n_rows,)
        Training rows.
    valid : array of bool, shape (n_trs,), optional
        Rows that have a value at all, such as TRs with words. Others are left out.
    ddof : int
        The divisor of the variance is ``n - ddof``.

    Returns
    -------
    Scaler
        In float64.

    Raises
    ------
    NumericalError
        No more than ``ddof`` rows are left, or they hold NaN or infinite values.

    Notes
    -----
    A column counts as constant when its standard deviation is at most 1e-12 of its largest
    absolute value; it gets sd 1, so that `apply` makes it 0.
    """
    rows = np.asarray(rows)
    if valid is not None:
        rows = rows[np.asarray(valid, dtype=bool)[rows]]
    if rows.size <= max(ddof, 0):
        raise NumericalError(
            f"{rows.size} training rows have values, expected more than {max(ddof, 0)}."
        )
    chosen = np.asarray(features)[rows].astype(np.float64, copy=False)  # a copy, as rows are
    mean = chosen.mean(axis=0)
    if not np.isfinite(mean).all():
        raise NumericalError(
            f"{int((~np.isfinite(mean)).sum())} of {mean.size} columns have NaN or infinite "
            "values in the training rows, expected finite values."
        )
    largest = np.maximum(chosen.max(axis=0), -chosen.min(axis=0))
    chosen -= mean
    chosen *= chosen
    sd = np.sqrt(chosen.sum(axis=0) / (len(chosen) - ddof))
    sd[sd <= _RELATIVE_ZERO * largest] = 1.0
    return Scaler(mean=mean, sd=sd)


def apply(features: np.ndarray, scaler: Scaler) -> np.ndarray:
    """Centre and scale columns.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        Any rows: training, test or all. NaN stays NaN.
    scaler : Scaler
        From `fit`, on training rows only.

    Returns
    -------
    array, shape (n_trs, n_features)
        ``(features - mean) / sd`` in float64.

    Raises
    ------
    NumericalError
        The number of columns differs from the scaler's.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.shape[-1] != scaler.mean.size:
        raise NumericalError(
            f"Found {features.shape[-1]} columns, expected {scaler.mean.size} as in the "
            "training rows."
        )
    return (features - scaler.mean) / scaler.sd
