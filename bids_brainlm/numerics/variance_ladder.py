"""What each step of a ladder of models adds, and what models share.

Every model is fitted anew (adding a band changes the weights of the others); what is
compared are held-out predictions of the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling as core

_RELATIVE_ZERO = 1e-24


@dataclass(frozen=True)
class Ladder:
    """R2 of nested models.

    Attributes
    ----------
    r2 : array, shape (n_models, n_targets)
        Held-out R2 of each model, not clipped.
    gain : array, shape (n_models, n_targets)
        What each model adds to the one before; the first row is the first model's R2.
    """

    r2: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True)
class Commonality:
    """R2 of two sets of features, in parts; arrays of shape (n_targets,).

    Attributes
    ----------
    unique_first, unique_second : array
        What a set adds to the other.
    shared : array
        What either explains without the other; negative where the sets help each other
        (suppression), or where a model overfits.
    joint : array
        R2 of both together: the sum of the three.
    """

    unique_first: np.ndarray
    unique_second: np.ndarray
    shared: np.ndarray
    joint: np.ndarray


def ladder(
    predictions: Sequence[np.ndarray],
    observed: np.ndarray,
    *,
    segments: Sequence[slice] | None = None,
) -> Ladder:
    """Score nested models on the same held-out rows.

    Parameters
    ----------
    predictions : sequence of array, shape (n_rows, n_targets)
        Held-out predictions of each refitted model, the smallest first.
    observed : array, shape (n_rows, n_targets)
        The data in the same rows.
    segments : sequence of slice, optional
        Rows of each outer fold. Default: one.

    Returns
    -------
    Ladder

    Raises
    ------
    NumericalError
        No model, or shapes that differ.

    Notes
    -----
    R2 is ``1 - squares(observed - prediction) / squares(observed)``, squares summed over rows
    and folds less the mean of each fold, as in `crossval.squares`. The gains add up to R2 of the
    last model. A gain depends on the order of the ladder; it is a lower bound of what the step
    explains alone, since what it shares with earlier steps went to these.
    """
    if not len(predictions):
        raise NumericalError("The ladder has no models, expected at least one.")
    r2 = np.stack([r2_within(one, observed, segments=segments) for one in predictions])
    return Ladder(r2, np.diff(r2, axis=0, prepend=0.0))


def r2_within(
    prediction: np.ndarray, observed: np.ndarray, *, segments: Sequence[slice] | None = None
) -> np.ndarray:
    """Share of the held-out variance within folds that a prediction explains.

    Parameters
    ----------
    prediction, observed : array, shape (n_rows, n_targets)
        Outer folds concatenated.
    segments : sequence of slice, optional
        Rows of each outer fold. Default: one.

    Returns
    -------
    array, shape (n_targets,)
        Not clipped; NaN where the data are constant or have NaN.

    Raises
    ------
    NumericalError
        Shapes differ or segments do not partition the rows.
    """
    seen, total = _centred(observed, segments)
    guess, _ = _centred(prediction, segments)
    if guess.shape != seen.shape:
        raise NumericalError(
            f"Predictions have shape {guess.shape} and data {seen.shape}, expected the same."
        )
    return 1.0 - ((seen - guess) ** 2).sum(axis=0) / total


def commonality(first: np.ndarray, second: np.ndarray, joint: np.ndarray) -> Commonality:
    """Divide R2 of two sets of features into unique and shared parts.

    Parameters
    ----------
    first, second, joint : array, shape (n_targets,)
        R2 of models fitted on the first set, the second set, and both.

    Returns
    -------
    Commonality

    References
    ----------
    .. [1] Nimon et al. (2008), doi:10.3758/BRM.40.2.457
    """
    first, second, joint = (np.asarray(x, dtype=np.float64) for x in (first, second, joint))
    return Commonality(joint - second, joint - first, first + second - joint, joint)


def product_measure(
    parts: np.ndarray, observed: np.ndarray, *, segments: Sequence[slice] | None = None
) -> np.ndarray:
    """Divide R2 of one model among its bands.

    Parameters
    ----------
    parts : array, shape (n_bands, n_rows, n_targets)
        Each band's part of the held-out prediction; they add up to the whole.
    observed : array, shape (n_rows, n_targets)
        The data in the same rows.
    segments : sequence of slice, optional
        Rows of each outer fold. Default: one.

    Returns
    -------
    array, shape (n_bands, n_targets)
        They add up to R2 of the whole and may be negative.

    Raises
    ------
    NumericalError
        Shapes differ or segments do not partition the rows.

    Notes
    -----
    ``sum(part * (2 y - whole)) / sum(y^2)`` with data and parts less the means of the fold.
    Unlike a gain it does not depend on an order, and needs no refitting; a band of no use that
    follows a useful one gets a share of its credit.

    References
    ----------
    .. [1] Pratt (1987), Proceedings of the Second International Conference in Statistics,
       Tampere, 245-260
    .. [2] Dupré la Tour et al. (2022), doi:10.1016/j.neuroimage.2022.119728
    """
    parts = np.asarray(parts, dtype=np.float64)
    seen, total = _centred(observed, segments)
    if parts.ndim != 3 or parts.shape[1:] != seen.shape:
        raise NumericalError(
            f"Parts have shape {parts.shape}, expected (n_bands, {seen.shape[0]}, "
            f"{seen.shape[1]})."
        )
    own = np.stack([_centred(part, segments)[0] for part in parts])
    rest = 2.0 * seen - own.sum(axis=0)
    return np.einsum("brt,rt->bt", own, rest) / total


def _centred(
    series: np.ndarray, segments: Sequence[slice] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Series less the means of folds, and their sums of squares (NaN where constant)."""
    series = np.array(series, dtype=np.float64)
    if series.ndim != 2:
        raise NumericalError(f"Found the shape {series.shape}, expected (n_rows, n_targets).")
    raw = (series**2).sum(axis=0)
    rows = [slice(0, len(series))] if segments is None else list(segments)
    core.check_segments(rows, len(series))
    for one in rows:
        series[one] -= series[one].mean(axis=0)
    squares = (series**2).sum(axis=0)
    return series, np.where(squares > _RELATIVE_ZERO * raw, squares, np.nan)
