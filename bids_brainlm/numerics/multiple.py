"""Corrections for many tests."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError


def benjamini_hochberg(p: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Adjust p values for the false discovery rate (independent or positively dependent).

    Parameters
    ----------
    p : array, shape (n_tests, ...)
        Uncorrected p values; NaN are not tests and stay NaN.
    axis : {None, 0}
        None: all values are one family. 0: each column is a family of its own.

    Returns
    -------
    array, shape of the input
        q values in the shape of ``p``.

    Raises
    ------
    NumericalError
        A p value lies outside 0 to 1, or the axis is not None or 0.

    References
    ----------
    .. [1] Benjamini and Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    return _adjust(p, axis, arbitrary_dependence=False)


def benjamini_yekutieli(p: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Adjust p values for the false discovery rate under any dependence.

    Parameters
    ----------
    p : array, shape (n_tests, ...)
        Uncorrected p values; NaN are not tests and stay NaN.
    axis : {None, 0}
        None: all values are one family. 0: each column is a family of its own.

    Returns
    -------
    array, shape of the input
        q values in the shape of ``p``.

    Raises
    ------
    NumericalError
        A p value lies outside 0 to 1, or the axis is not None or 0.

    References
    ----------
    .. [1] Benjamini and Yekutieli (2001), doi:10.1214/aos/1013699998
    """
    return _adjust(p, axis, arbitrary_dependence=True)


def _adjust(p: np.ndarray, axis: int | None, *, arbitrary_dependence: bool) -> np.ndarray:
    """Step-up adjustment of each family."""
    p = np.asarray(p, dtype=np.float64)
    if axis not in (None, 0):
        raise NumericalError(f"Found axis {axis}, expected None or 0.")
    if ((p < 0) | (p > 1)).any():
        raise NumericalError("Found p values outside 0 to 1.")
    families = p.reshape(-1, 1) if axis is None else p.reshape(p.shape[0], -1)
    n_tests = (~np.isnan(families)).sum(axis=0)
    order = np.argsort(families, axis=0, kind="stable")  # NaN last
    rank = np.arange(1, families.shape[0] + 1)[:, None]
    ordered = np.take_along_axis(families, order, axis=0) * n_tests / rank
    if arbitrary_dependence:
        harmonic = np.r_[0.0, np.cumsum(1.0 / rank[:, 0])]
        ordered = ordered * harmonic[n_tests]
    ordered = np.fmin.accumulate(ordered[::-1], axis=0)[::-1]
    ordered = np.where(rank <= n_tests, np.minimum(ordered, 1.0), np.nan)
    q = np.empty_like(ordered)
    np.put_along_axis(q, order, ordered, axis=0)
    return q.reshape(p.shape)
