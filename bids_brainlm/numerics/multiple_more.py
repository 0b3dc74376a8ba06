"""Family-wise corrections from p values; the false discovery rate is in `multiple`."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.multiple import benjamini_yekutieli

__all__ = ["benjamini_yekutieli", "holm"]


def holm(p: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Adjust p values for the family-wise error under any dependence, step by step.

    Parameters
    ----------
    p : array, shape (n_tests, ...)
        Uncorrected p values; NaN are not tests and stay NaN.
    axis : {None, 0}
        None: all values are one family. 0: each column is a family of its own.

    Returns
    -------
    array, shape of the input
        Adjusted p values, at most 1.

    Raises
    ------
    NumericalError
        A p value lies outside 0 to 1, or the axis is not None or 0.

    Notes
    -----
    The i-th smallest of m p values is multiplied by m - i + 1; an adjusted value is never
    below that of a smaller p. Never less powerful than Bonferroni.

    References
    ----------
    .. [1] Holm (1979), Scandinavian Journal of Statistics 6, 65-70,
       https://www.jstor.org/stable/4615733
    """
    p = np.asarray(p, dtype=np.float64)
    if axis not in (None, 0):
        raise NumericalError(f"Found axis {axis}, expected None or 0.")
    if ((p < 0) | (p > 1)).any():
        raise NumericalError("Found p values outside 0 to 1.")
    families = p.reshape(-1, 1) if axis is None else p.reshape(p.shape[0], -1)
    n_tests = (~np.isnan(families)).sum(axis=0)
    order = np.argsort(families, axis=0, kind="stable")  # NaN last
    rank = np.arange(1, families.shape[0] + 1)[:, None]
    ordered = np.take_along_axis(families, order, axis=0) * np.maximum(n_tests - rank + 1, 1)
    ordered = np.minimum(np.fmax.accumulate(ordered, axis=0), 1.0)
    ordered = np.where(rank <= n_tests, ordered, np.nan)
    adjusted = np.empty_like(ordered)
    np.put_along_axis(adjusted, order, ordered, axis=0)
    return adjusted.reshape(p.shape)
