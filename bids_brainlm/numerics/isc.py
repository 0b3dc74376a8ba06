"""Intersubject correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.blas import single_threaded
from bids_brainlm.numerics.scores import fisher_mean

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
        left = _in_blocks(series, lambda x, enough: _block(x, include_self, enough), isc)
    for start in range(0, left.size, _PARCELS_PER_BLOCK):
        block = left[start : start + _PARCELS_PER_BLOCK]
        z, present = _standardise(series[:, :, block])
        pieces = np.array_split(np.arange(n_trs), n_segments)
        r = [_with_reference(z[:, piece[0] : piece[-1] + 1], include_self) for piece in pieces]
        isc[:, block] = np.where(present, np.mean(r, axis=0), np.nan)
    return isc


def leave_groups_out(
    series: np.ndarray,
    groups: Sequence[np.ndarray],
    *,
    include_self: bool = False,
    n_segments: int = 1,
) -> np.ndarray:
    """Mean intersubject correlation without each of some groups of participants.

    Parameters
    ----------
    series : array, shape (n_participants, n_trs, n_parcels)
        As in `leave_one_out`.
    groups : sequence of array of int
        Numbers of the participants that are left out together.
    include_self, n_segments
        As in `leave_one_out`.

    Returns
    -------
    array, shape (n_groups, n_parcels)
        Fisher mean of `leave_one_out` over those who are left.

    Raises
    ------
    NumericalError
        As `leave_one_out`, also where fewer than 2 participants are left.

    Notes
    -----
    Without segments the sums over those who are left come from one product for all groups, with
    the digits of `leave_one_out`.
    """
    series = np.asarray(series)
    keep = np.ones((len(groups), len(series)), dtype=bool)
    for row, group in zip(keep, groups, strict=True):
        row[group] = False
    found = np.full((len(groups), series.shape[-1]), np.nan)
    left = np.arange(series.shape[-1])
    if n_segments == 1 and series.ndim == 3 and (keep.sum(axis=1) > 1).all():

        def of_block(x: np.ndarray, enough: float) -> tuple[np.ndarray, np.ndarray]:
            return _block_of_groups(x, keep, include_self, enough)

        left = _in_blocks(series, of_block, found)
    for start in range(0, left.size, _PARCELS_PER_BLOCK):
        block = left[start : start + _PARCELS_PER_BLOCK]
        some = series[..., block]
        for number, kept in enumerate(keep):
            own = leave_one_out(some[kept], include_self=include_self, n_segments=n_segments)
            found[number, block] = fisher_mean(own, axis=0)
    return found


def _in_blocks(
    series: np.ndarray,
    of_block: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]],
    found: np.ndarray,
) -> np.ndarray:
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
            found[:, some], good[some] = of_block(block, _LEFT_OVER[dtype])
    return np.flatnonzero(~good)


def _scales(x: np.ndarray, enough: float) -> tuple[np.ndarray, np.ndarray]:
    """What makes norms sqrt(n_trs), and whether it has the digits, (n_participants, n_parcels)."""
    n = x.shape[2]
    raw = np.vecdot(x, x).astype(np.float64)
    mean = np.matmul(x, np.ones((n, 1), x.dtype))[:, :, 0].astype(np.float64) / n
    squares = raw - n * mean**2
    return np.sqrt(n / squares), squares > enough * raw


def _block(x: np.ndarray, include_self: bool, enough: float) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and whether they can be trusted; x is (n_participants, n_parcels, n_trs)."""
    n = x.shape[2]
    scale, varies = _scales(x, enough)
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
    good = varies & (reference > enough * n)
    return np.clip(product / np.sqrt(n * reference), -1.0, 1.0), good.all(axis=0)


def _block_of_groups(
    x: np.ndarray, keep: np.ndarray, include_self: bool, enough: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means without each group, (n_groups, n_parcels), and whether they can be trusted.

    ``x`` as in `_block`; ``keep`` tells who is left, (n_groups, n_participants).
    """
    n = x.shape[2]
    scale, varies = _scales(x, enough)
    by_parcel = x.transpose(1, 0, 2)
    weights = (keep * scale.T[:, None, :]).astype(x.dtype)  # (n_parcels, n_groups, n_participants)
    totals = np.matmul(weights, by_parcel)
    totals -= totals.mean(axis=2, keepdims=True)
    with_total = np.matmul(totals, by_parcel.transpose(0, 2, 1)) * scale.T[:, None, :]
    squares = np.vecdot(totals, totals).astype(np.float64)[:, :, None]
    product, reference = with_total, np.broadcast_to(squares, with_total.shape)
    if not include_self:
        product, reference = with_total - n, squares - 2.0 * with_total + n
    good = varies.T.all(axis=1) & ((reference > enough * n) | ~keep).all(axis=(1, 2))
    r = np.where(keep, product / np.sqrt(n * reference), np.nan)
    return fisher_mean(r, axis=2).T, good


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
