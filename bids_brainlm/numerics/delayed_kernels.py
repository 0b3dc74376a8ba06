"""Kernels of delayed features, without delayed columns.

Features at delay d in row t are those of row t - d. So the kernel of all delays is a sum of
shifted copies of one kernel of undelayed rows, and centring of delayed columns is a correction
of rows and columns of the sum: a story of 9216 columns at 4 delays takes the products of 9216
columns, and no array of 36,864.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import blas

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import design, scaling
from bids_brainlm.numerics.design import Band
from bids_brainlm.numerics.fir import check_delays
from bids_brainlm.numerics.folds import Fold

_COLUMNS_AT_ONCE = 256  # about 1 MiB for a story of 500 rows


@dataclass(frozen=True)
class FoldKernels:
    """Linear kernels of one band in one outer fold.

    Attributes
    ----------
    train : array, shape (n_train, n_train)
        Symmetric bit by bit.
    test : array, shape (n_test, n_train)
        Test rows by training rows.
    size : float
        What the features were divided by; see `design.fold_design`.
    scaler : Scaler or None
        Statistics of the training rows; None where the band is not standardised.
    """

    train: np.ndarray
    test: np.ndarray
    size: float
    scaler: scaling.Scaler | None


def fold_kernels(
    band: Band,
    fold: Fold,
    delays: Sequence[int],
    *,
    test_scaling: str = "train",
    centre: bool = True,
    common_scale: bool = True,
) -> FoldKernels:
    """Make the kernels of the rows that `design.fold_design` makes.

    Parameters
    ----------
    band : Band
        The features of the whole story.
    fold : Fold
        Rows of the story.
    delays : sequence of int
        FIR delays in TRs.
    test_scaling, centre, common_scale
        As in `design.fold_design`.

    Returns
    -------
    FoldKernels
        ``train @ train.T`` and ``test @ train.T`` of these rows, to rounding error.

    Raises
    ------
    NumericalError
        NaN, or delays that do not fit.

    Notes
    -----
    With rows ``x(t)`` and ``G[s, t] = x(s)' x(t)``, the kernel is
    ``sum over d of G[s - d, t - d]``; rows before the story are 0, as in `fir.delay`. With the
    mean m of the delayed training rows, ``(u - m)' (v - m)`` of rows u and v is
    ``u'v - m'u - m'v + m'm``, and m'u is the mean of a kernel over training rows. Columns that
    are not standardised lose their mean first, also in the rows of 0, so that no digits are
    lost in that difference.

    Columns are scaled in blocks that stay in the cache; beside these, a few arrays of rows x
    rows are kept.
    """
    check_delays(delays, len(band.features))
    n_rows = max(delays, default=0) + len(band.features)
    inner = np.zeros((n_rows, n_rows), order="F")
    across = np.zeros((n_rows, n_rows)) if test_scaling == "none" and band.scaled else None
    scalers = []
    for some in _blocks(band):
        scaler = design.scaler_of(some, fold)
        scalers.append(scaler)
        rows = _padded(design.prepared(some, scaler), n_rows)
        if centre and scaler is None:
            rows -= rows[fold.train + n_rows - len(band.features)].mean(axis=0)
        inner = blas.dsyrk(1.0, rows.T, 1.0, inner, trans=1, lower=1, overwrite_c=1)
        if across is not None:
            across += _padded(design.prepared(some, None), n_rows) @ rows.T
    inner += np.tril(inner, -1).T
    train = _summed(inner, fold.train, fold.train, delays)
    test = _summed(inner if across is None else across, fold.test, fold.train, delays)
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise NumericalError("Features have NaN or infinite values, expected finite values.")
    if centre:
        by_mean = train.mean(axis=0)
        squared = by_mean.mean()
        test -= test.mean(axis=1, keepdims=True)
        test -= by_mean - squared
        train -= (by_mean[:, None] + by_mean) - squared
    size = design.common_size(float(np.trace(train)), len(train)) if common_scale else 1.0
    if size != 1.0:
        train /= size**2
        test /= size**2
    return FoldKernels(train, test, size, _joined(scalers))


def _blocks(band: Band) -> Iterator[Band]:
    """Cut a band into bands of few columns."""
    for start in range(0, band.features.shape[1], _COLUMNS_AT_ONCE):
        yield replace(band, features=band.features[:, start : start + _COLUMNS_AT_ONCE])


def _padded(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Put rows of 0 before the story."""
    padded = np.zeros((n_rows, rows.shape[1]))
    padded[n_rows - len(rows) :] = rows
    return padded


def _summed(
    kernel: np.ndarray, rows: np.ndarray, others: np.ndarray, delays: Sequence[int]
) -> np.ndarray:
    """Add shifted copies of a kernel that begins as many rows early as the longest delay has."""
    total = np.zeros((len(rows), len(others)))
    for lag in delays:
        early = max(delays) - lag
        total += kernel[np.ix_(rows + early, others + early)]
    return total


def _joined(scalers: Sequence[scaling.Scaler | None]) -> scaling.Scaler | None:
    """Put the statistics of blocks of columns together."""
    found = [scaler for scaler in scalers if scaler is not None]
    if not found:
        return None
    return scaling.Scaler(
        np.concatenate([scaler.mean for scaler in found]),
        np.concatenate([scaler.sd for scaler in found]),
    )
