"""What a prediction knows of the data that another prediction does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.errors import NumericalError

_SMALLEST = 1e-12  # relative length at which a series counts as nothing but rounding
_MIN_ROWS = 4


def partial_r(observed: np.ndarray, prediction: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlate data with a prediction, controlling for another prediction.

    Parameters
    ----------
    observed, prediction, other : array, shape (n_rows, n_targets)
        Data and two predictions of it in the rows of one test block.

    Returns
    -------
    array, shape (n_targets,)
        Pearson r of what is left of the data and of the prediction after a regression on the
        other one with an intercept. Plain r where the other is constant; 0 where nothing is
        left of the prediction or of the data; NaN where a series has NaN.

    Raises
    ------
    NumericalError
        The shapes differ, or there are fewer than 4 rows.

    Notes
    -----
    What is controlled for is the other *prediction*, which is a noisy and shrunken estimate of
    what its features know. Whatever it misses is left in the data, and a prediction from
    correlated features may pick it up: a partial r above 0 says that the prediction adds to the
    other prediction, not that its features hold what the other features lack [2]_.

    A series counts as nothing when its sum of squares is at most 1e-24 of the raw one, or what
    rounding leaves in single precision.

    References
    ----------
    .. [1] Kumar, Sumers et al. (2024), doi:10.1038/s41467-024-49173-5
    .. [2] Westfall and Yarkoni (2016), doi:10.1371/journal.pone.0152719
    """
    left, seen, _ = _left_over(observed, prediction, other)
    lengths = np.sqrt((left**2).sum(axis=0) * (seen**2).sum(axis=0))
    products = (left * seen).sum(axis=0)
    r = np.divide(products, lengths, out=np.zeros_like(products), where=lengths != 0)
    return np.clip(r, -1.0, 1.0)


def mean_partial_r(
    observed: Sequence[np.ndarray], predictions: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> np.ndarray:
    """Average the partial r over folds.

    Parameters
    ----------
    observed, predictions, others : sequence of array, shape (n_test, n_targets)
        One array per outer fold; see `partial_r`.

    Returns
    -------
    array, shape (n_targets,)
        Each fold counts once, as in `crossval.mean_r`.

    Raises
    ------
    NumericalError
        The numbers of folds or the shapes differ, or there are fewer than 4 rows in a fold.
    """
    folds = _folds(observed, predictions, others)
    return np.mean([partial_r(*fold) for fold in folds], axis=0)


def residuals(
    observed: Sequence[np.ndarray], predictions: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Take another prediction out of data and predictions, for a test of the partial r.

    Parameters
    ----------
    observed, predictions, others : sequence of array, shape (n_test, n_targets)
        One array per outer fold, in time order.

    Returns
    -------
    predictions, observed : array, shape (n_rows, n_targets)
        What is left after a regression on the other prediction with an intercept in each fold,
        folds concatenated: the first two arguments of `resampling.block_permutation_test`, with
        the rows of the folds as its segments. Constant in folds where nothing is left.

    Raises
    ------
    NumericalError
        The numbers of folds or the shapes differ, or there are fewer than 4 rows in a fold.

    Notes
    -----
    The regression is made in each fold since `mean_partial_r` is one of folds, whose predictions
    come from different models. The prediction keeps its intercept: this changes no correlation
    within folds, but blocks that move to another fold then carry their slow part along (with
    ``shared_training=False``, 5 to 6 % instead of 6 to 7 % of null targets reach p <= 0.05).

    In simulations of the whole pipeline with correlated features (r of the predictions 0.1 to
    0.9), 4 to 5 % of targets reach p <= 0.05 where the data depend on nothing, 4 % where they
    depend weakly and 2 % where they depend strongly on the other features only.
    """
    folds = [_left_over(*fold) for fold in _folds(observed, predictions, others)]
    own = np.concatenate([left + intercept for left, _, intercept in folds])
    return own, np.concatenate([seen for _, seen, _ in folds])


def _folds(
    observed: Sequence[np.ndarray], predictions: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pair the folds."""
    n_folds = {len(observed), len(predictions), len(others)}
    if len(n_folds) > 1 or n_folds == {0}:
        raise NumericalError(
            f"Found data of {len(observed)} folds and predictions of {len(predictions)} and "
            f"{len(others)}, expected the same number, at least 1.",
            hint="Fit both feature spaces with the same --cv.",
        )
    return list(zip(observed, predictions, others, strict=True))


def _left_over(
    observed: np.ndarray, prediction: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals of prediction and data, and the prediction's intercept; NaN where any has NaN."""
    given = [np.asarray(series) for series in (observed, prediction, other)]
    shapes = [series.shape for series in given]
    if given[0].ndim != 2 or len(set(shapes)) > 1 or len(given[0]) < _MIN_ROWS:
        raise NumericalError(
            f"Found data of shape {shapes[0]} and predictions of {shapes[1]} and {shapes[2]}, "
            f"expected (n_rows, n_targets) for all, at least {_MIN_ROWS} rows.",
            hint="Fit both feature spaces with the same --cv, --gap and --trim.",
        )
    unknown = np.any([np.isnan(series).any(axis=0) for series in given], axis=0)
    rounding = [_rounding(series) for series in given]
    full = [np.where(unknown, 0.0, series).astype(np.float64) for series in given]
    data, own, control = (_centred(*pair) for pair in zip(full, rounding, strict=True))
    squares = (control**2).sum(axis=0)
    seen, _ = _without(data, control, squares, max(rounding))
    left, slope = _without(own, control, squares, max(rounding))
    seen[:, unknown] = left[:, unknown] = np.nan
    return left, seen, full[1].mean(axis=0) - slope * full[2].mean(axis=0)


def _rounding(series: np.ndarray) -> float:
    """Relative length of rounding error in the precision of a series."""
    single = series.dtype.kind == "f" and series.dtype.itemsize <= 4
    return 16.0 * float(np.finfo(series.dtype).eps) if single else _SMALLEST


def _centred(series: np.ndarray, rounding: float) -> np.ndarray:
    """Series about their means; exactly 0 where constant."""
    centred = series - series.mean(axis=0)
    varies = (centred**2).sum(axis=0) > rounding**2 * (series**2).sum(axis=0)
    return np.where(varies, centred, 0.0)


def _without(
    series: np.ndarray, control: np.ndarray, squares: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centred series less their regression on a control, exactly 0 where collinear; slopes."""
    products = (series * control).sum(axis=0)
    slope = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    left = series - slope * control
    some = (left**2).sum(axis=0) > rounding**2 * (series**2).sum(axis=0)
    return np.where(some, left, 0.0), slope
