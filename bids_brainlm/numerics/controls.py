"""Features without content: position in the story, and the autocorrelated-stimulus matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bids_brainlm.errors import NumericalError

POSITION_COLUMNS = ("linear", "quadratic")
_RADIUS_IN_SIGMAS = 4.0


def position(n_trs: int) -> np.ndarray:
    """Tell where in the story each TR is.

    Parameters
    ----------
    n_trs : int
        Rows of the story grid.

    Returns
    -------
    array, shape (n_trs, 2)
        Columns as in `POSITION_COLUMNS`: the share of the story that has passed, from -1/2
        at row 0 to 1/2 at the last row, and its square minus the mean over the story.

    Raises
    ------
    NumericalError
        There are no rows.

    Notes
    -----
    The share runs over 1, as it would from 0 to 1, but is centred on the middle of the story
    *before* it is squared. The square of a share from 0 to 1 correlates with it at .97: a
    ridge would then shrink the bend, which only their small difference holds, much more than
    the trend. Centred, the two columns are orthogonal, and both have mean 0.
    """
    _require_rows(n_trs)
    share = (np.arange(n_trs) - (n_trs - 1) / 2) / max(n_trs - 1, 1)
    square = share**2
    return np.column_stack([share, square - square.mean()])


def oasm(n_trs: int, sigma: float, *, borders: Sequence[int] = ()) -> np.ndarray:
    """Make the orthogonal autocorrelated-stimulus matrix.

    Parameters
    ----------
    n_trs : int
        Rows of the story grid.
    sigma : float
        Standard deviation of the Gaussian in TRs; 0 gives the identity.
    borders : sequence of int
        Rows where another block begins; 0 and ``n_trs`` may be among them. Without any, the
        story is one block.

    Returns
    -------
    array, shape (n_trs, n_trs)
        One feature for each TR. Symmetric; rows and columns sum to 1; 0 between blocks.

    Raises
    ------
    NumericalError
        There are no rows, the width is not from 0 to ``n_trs``, or a border is no row.

    Notes
    -----
    The identity matrix, blurred along time within each block [1]_. The columns say *when* and
    nothing about *what*, so what they predict is a leak through autocorrelation: training
    rows that lie next to test rows [2]_. It must score 0 with contiguous test blocks and a
    gap, whatever the data; with shuffled splits it predicts any slow series.

    The Gaussian ends at 4 sigma (``radius = floor(4 * sigma + 0.5)`` TRs) and is reflected at
    the ends of a block. Rows that are more than ``2 * radius`` TRs apart therefore share no
    feature at all: with such a gap, a ridge predicts the same value for the whole test block.
    Delays add to this: features at delays from a to b need a gap that is ``b - a`` longer.

    References
    ----------
    .. [1] Feghhi et al. (2024), doi:10.48550/arXiv.2406.01538
    .. [2] Hadidi et al. (2026), doi:10.1038/s41467-026-72253-7
    """
    _require_rows(n_trs)
    if not 0 <= sigma <= n_trs:
        raise NumericalError(
            f"The width of the autocorrelated-stimulus matrix is {sigma} TRs, expected 0 to "
            f"{n_trs} TRs.",
            hint="Check --oasm-sigma (in TRs).",
        )
    wrong = [border for border in borders if border != int(border) or not 0 <= border <= n_trs]
    if wrong:
        raise NumericalError(f"Blocks begin at rows {wrong}, expected rows from 0 to {n_trs}.")
    matrix = np.zeros((n_trs, n_trs))
    for first, end in pairwise(sorted({0, n_trs, *(int(border) for border in borders)})):
        matrix[first:end, first:end] = _blurred_identity(end - first, sigma)
    return matrix


def oasm_gap(sigma: float, delays: Sequence[int]) -> int:
    """Return the gap in TRs from which on training and test rows share no column of `oasm`.

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian in TRs.
    delays : sequence of int
        FIR delays in TRs.

    Returns
    -------
    int

    Examples
    --------
    >>> oasm_gap(2.0, [2, 3, 4, 5])
    19
    """
    radius = math.floor(_RADIUS_IN_SIGMAS * sigma + 0.5)
    return 2 * radius + max(delays) - min(delays)


def _blurred_identity(n: int, sigma: float) -> np.ndarray:
    """Blur the identity matrix along the rows, reflecting at both ends."""
    radius = math.floor(_RADIUS_IN_SIGMAS * sigma + 0.5)
    if radius == 0:
        return np.identity(n)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((n, n))
    rows = np.arange(n)
    for step, weight in zip(steps, weights, strict=True):
        places = (rows + step) % (2 * n)  # ... c b a | a b c ... c b a | a ...
        matrix[np.minimum(places, 2 * n - 1 - places), rows] += weight
    return matrix


def _require_rows(n_trs: int) -> None:
    """Raise an error where there is nothing to describe."""
    if n_trs < 1:
        raise NumericalError(f"The story has {n_trs} TRs, expected at least 1.")
