"""How well a prediction fits, and means over scores."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError

_RELATIVE_ZERO = 1e-24
_LARGEST_R = 1.0 - 1e-12


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate columns.

    Parameters
    ----------
    a, b : array, shape (n_trs, ...)
        Series along the first axis; the shapes must broadcast.

    Returns
    -------
    array, shape (...)
        Pearson r; NaN where a series is constant or has NaN.

    Raises
    ------
    NumericalError
        The series differ in length.

    Notes
    -----
    A series counts as constant when its sum of squares about the mean is at most 1e-24 of
    its raw sum of squares, which is rounding error.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape[0] != b.shape[0]:
        raise NumericalError(f"Series have {a.shape[0]} and {b.shape[0]} rows, expected as many.")
    a, a_norm = _centre(a)
    b, b_norm = _centre(b)
    return np.clip((a * b).sum(axis=0) / (a_norm * b_norm), -1.0, 1.0)


def r2(target: np.ndarray, prediction: np.ndarray, baseline: np.ndarray | float) -> np.ndarray:
    """Share of the held-out sum of squares that a prediction explains.

    Parameters
    ----------
    target, prediction : array, shape (n_trs, n_targets)
        Held-out data and its prediction, in the same units.
    baseline : array, shape (n_targets,), or float
        Mean of the *training* rows: what one predicts without a model.

    Returns
    -------
    array, shape (n_targets,)
        ``1 - SSE / SSE(baseline)``. Not clipped: negative values tell of a model that is
        worse than the training mean. NaN where the target equals the baseline throughout.

    Raises
    ------
    NumericalError
        The shapes differ.
    """
    target = np.asarray(target, dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    if target.shape != prediction.shape:
        raise NumericalError(
            f"The prediction has shape {prediction.shape}, expected {target.shape} as the target."
        )
    error = ((target - prediction) ** 2).sum(axis=0)
    total = ((target - baseline) ** 2).sum(axis=0)
    total = np.where(total > _RELATIVE_ZERO * (target**2).sum(axis=0), total, np.nan)
    return 1.0 - error / total


def fisher_mean(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Average correlations on Fisher's z scale.

    Parameters
    ----------
    values : array, any shape
        Correlations; NaN are left out.
    axis : int or tuple of int
        Axis or axes to average over.

    Returns
    -------
    array, shape of the input without the axis
        ``tanh(mean(arctanh(r)))``; NaN where every value is NaN.

    Notes
    -----
    Correlations are clipped to +-(1 - 1e-12) before the transform.
    """
    z = np.arctanh(np.clip(np.asarray(values, dtype=np.float64), -_LARGEST_R, _LARGEST_R))
    present = ~np.isnan(z)
    count = present.sum(axis=axis)
    total = np.where(present, z, 0.0).sum(axis=axis)
    return np.tanh(np.where(count > 0, total, np.nan) / np.maximum(count, 1))


def _centre(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred series and their norms, NaN where constant."""
    raw = (series**2).sum(axis=0)
    series = series - series.mean(axis=0)
    squares = (series**2).sum(axis=0)
    return series, np.sqrt(np.where(squares > _RELATIVE_ZERO * raw, squares, np.nan))
