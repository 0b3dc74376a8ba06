"""Finite impulse response designs: features at several delays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bids_brainlm.errors import NumericalError

_HINT = "Check --delays (in TRs) and the number of volumes of the story."


def delay(
    features: np.ndarray, delays: Sequence[int], run_starts: Sequence[int] = (0,)
) -> np.ndarray:
    """Copy features at several delays, never across a run border.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        One row per volume, runs concatenated.
    delays : sequence of int
        Lags in TRs, each >= 0.
    run_starts : sequence of int
        Row where each run begins; the first is 0.

    Returns
    -------
    array, shape (n_trs, n_delays * n_features)
        Delay-major: all features at ``delays[0]``, then at ``delays[1]``, ...
        Rows without history are 0.

    Raises
    ------
    NumericalError
        A delay is negative or as long as the shortest run, or the run starts are not
        increasing rows that begin with 0.

    References
    ----------
    .. [1] Huth et al. (2016), doi:10.1038/nature17637
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise NumericalError(
            f"Features have {features.ndim} dimensions, expected 2 (n_trs, n_features).",
            hint=_HINT,
        )
    n_trs, n_features = features.shape
    borders = _borders(run_starts, n_trs)
    check_delays(delays, int(np.diff(borders).min()))
    delayed = np.zeros((n_trs, len(delays) * n_features), dtype=features.dtype)
    for index, lag in enumerate(delays):
        columns = slice(index * n_features, (index + 1) * n_features)
        for first, end in pairwise(borders):
            delayed[first + lag : end, columns] = features[first : end - lag]
    return delayed


def check_delays(delays: Sequence[int], shortest: int) -> None:
    """Raise if a delay leaves nothing of a run.

    Parameters
    ----------
    delays : sequence of int
        Lags in TRs.
    shortest : int
        TRs of the shortest run.

    Raises
    ------
    NumericalError
        A delay is negative or as long as the shortest run.
    """
    for lag in delays:
        if not 0 <= lag < shortest:
            raise NumericalError(
                f"A delay of {lag} TRs does not fit: expected 0 to {shortest - 1} TRs, as the "
                f"shortest run has {shortest} TRs.",
                hint=_HINT,
            )


def _borders(run_starts: Sequence[int], n_trs: int) -> np.ndarray:
    """Row where each run begins, and the end of the last one."""
    borders = np.append(np.asarray(run_starts, dtype=np.intp), n_trs)
    if borders.size < 2 or borders[0] != 0 or (np.diff(borders) <= 0).any():
        raise NumericalError(
            f"Runs start at rows {list(run_starts)}, expected increasing rows from 0 to "
            f"{n_trs - 1}.",
            hint=_HINT,
        )
    return borders
