"""Intersubject correlation."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError

_PARCELS_PER_BLOCK = 256
_RELATIVE_ZERO = 1e-20


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
    isc = np.empty((n_participants, n_parcels))
    for start in range(0, n_parcels, _PARCELS_PER_BLOCK):
        block = slice(start, start + _PARCELS_PER_BLOCK)
        z, present = _standardise(series[:, :, block])
        pieces = np.array_split(np.arange(n_trs), n_segments)
        r = [_with_reference(z[:, piece[0] : piece[-1] + 1], include_self) for piece in pieces]
        isc[:, block] = np.where(present, np.mean(r, axis=0), np.nan)
    return isc


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
