"""Intersubject correlation."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.blas import single_threaded

_PARCELS_PER_BLOCK = 256
_PARCELS_IN_CACHE = 64
_RELATIVE_ZERO = 1e-20
# Smallest shares that may be left where sums of products are subtracted from each other.
_LEFT_OVER = {np.dtype(np.float32): 0.5, np.dtype(np.float64): 1e-3}


def leave_one_out(
    series: np.ndarray, *, include_self: bool = False, n_segments: int = 1
) -> np.ndarray:
    """Correlate each participant with the average of the others.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        Parcel series on one story grid.
    include_self : bool
        Average over everyone, the participant included. This is the paper's reference; it
        is about ``1 / sqrt(n_participants)`` where there is no shared signal.
    n_segments : int
        Correlate within contiguous segments of the series and take the plain mean of the
        r values (the paper: 3). 1: the whole series.

    Returns
    -------
    array, shape (n_participants, n_parcels)
        Pearson r; NaN where the participant has no series or nobody else has one.

    Raises
    ------
    NumericalError
        Not three dimensions, fewer than 2 participants, or segments of fewer than 3 TRs.

    Notes
    -----
    Every series is z-scored over all TRs before averaging, so that no participant weighs
    more for a larger signal; within segments the average is centred again, not rescaled.
    A series that is constant or has any NaN counts as absent for that parcel.

    Without segments r comes from sums of products of the raw series, in float32 for float32
    (r is right to about 1e-6) and in float64 otherwise. Parcels with absent series, or whose
    means are large beside their variation, are centred first, in float64. Fastest where time
    is contiguous in memory, as in ``x.transpose(0, 2, 1)`` of participants x parcels x TRs.

    References
    ----------
    .. [1] Nastase et al. (2019), doi:10.1093/scan/nsz037
    """
    series = np.asarray(series)
    if series.ndim != 3 or series.shape[0] < 2:
        raise NumericalError(
            f"Series have shape {series.shape}, expected (n_participants >= 2, n_trs, n_parcels).",
            hint="Intersubject correlation needs at least 2 participants of one story.",
        )
    n_participants, n_trs, n_parcels = series.shape
    if n_segments < 1 or n_trs // n_segments < 3:
        raise NumericalError(f"Found {n_trs} TRs in {n_segments} segments, expected 3 TRs or more.")
    isc = np.full((n_participants, n_parcels), np.nan)
    left = np.arange(n_parcels)
    if n_segments == 1:
        left = _from_sums(series, include_self, isc)
    for start in range(0, left.size, _PARCELS_PER_BLOCK):
        block = left[start : start + _PARCELS_PER_BLOCK]
        z, present = _standardise(series[:, :, block])
        pieces = np.array_split(np.arange(n_trs), n_segments)
        r = [_with_reference(z[:, piece[0] : piece[-1] + 1], include_self) for piece in pieces]
        isc[:, block] = np.where(present, np.mean(r, axis=0), np.nan)
    return isc


def _from_sums(series: np.ndarray, include_self: bool, isc: np.ndarray) -> np.ndarray:
    """Fill in parcels whose sums of products have the digits; returns the others."""
    n_participants, n_trs, n_parcels = series.shape
    dtype = series.dtype if series.dtype in _LEFT_OVER else np.dtype(np.float64)
    by_time = series.dtype == dtype and series.strides[1] == series.itemsize
    series = series.transpose(0, 2, 1)
    buffer = np.empty((n_participants, _PARCELS_IN_CACHE, n_trs), dtype)
    good = np.zeros(n_parcels, dtype=bool)
    with np.errstate(all="ignore"), single_threaded():
        for start in range(0, n_parcels, _PARCELS_IN_CACHE):
            some = slice(start, start + _PARCELS_IN_CACHE)
            block = series[:, some]
            if not by_time:
                copy = buffer[:, : block.shape[1]]
                np.copyto(copy, block)
                block = copy
            isc[:, some], good[some] = _block(block, include_self, _LEFT_OVER[dtype])
    return np.flatnonzero(~good)


def _block(x: np.ndarray, include_self: bool, enough: float) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and whether they can be trusted; x is (n_participants, n_parcels, n_trs)."""
    n = x.shape[2]
    raw = np.vecdot(x, x).astype(np.float64)
    mean = np.matmul(x, np.ones((n, 1), x.dtype))[:, :, 0].astype(np.float64) / n
    squares = raw - n * mean**2
    scale = np.sqrt(n / squares)
    by_parcel = x.transpose(1, 0, 2)
    weights = scale.T[:, None, :].astype(x.dtype)
    total = np.matmul(weights, by_parcel)[:, 0]  # (n_parcels, n_trs)
    total -= total.mean(axis=1, keepdims=True)
    with_total = np.matmul(by_parcel, total[:, :, None])[:, :, 0].T * scale
    total_squares = np.vecdot(total, total).astype(np.float64)
    product, reference = with_total, np.broadcast_to(total_squares, scale.shape)
    if not include_self:
        product = with_total - n
        reference = total_squares - 2.0 * with_total + n
    good = (squares > enough * raw) & (reference > enough * n)
    return np.clip(product / np.sqrt(n * reference), -1.0, 1.0), good.all(axis=0)


def _standardise(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z-scored series (0 where absent) and which are present."""
    series = series.astype(np.float64)
    raw = np.einsum("itv,itv->iv", series, series)
    series -= series.mean(axis=1, keepdims=True)
    squares = np.einsum("itv,itv->iv", series, series)
    present = squares > _RELATIVE_ZERO * raw  # False for NaN
    scale = np.sqrt(np.where(present, squares, 1.0) / series.shape[1])
    return np.where(present[:, None], series / scale[:, None], 0.0), present


def _with_reference(z: np.ndarray, include_self: bool) -> np.ndarray:
    """Correlation of each series with the sum of the others, from sums of products."""
    z = z - z.mean(axis=1, keepdims=True)
    total = z.sum(axis=0)
    own = np.einsum("itv,itv->iv", z, z)
    with_total = np.einsum("itv,tv->iv", z, total)
    total_squares = np.einsum("tv,tv->v", total, total)
    if include_self:
        product, reference = with_total, np.broadcast_to(total_squares, own.shape)
    else:
        product = with_total - own
        reference = total_squares - 2.0 * with_total + own
    scale = total_squares + own
    reference = np.where(reference > 1e-12 * scale, reference, np.nan)
    own = np.where(own > 0, own, np.nan)
    return np.clip(product / np.sqrt(own * reference), -1.0, 1.0)
