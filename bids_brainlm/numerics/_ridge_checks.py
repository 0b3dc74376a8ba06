"""Checks of what the banded ridge is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.folds import Fold


def check_kernels(
    kernels: np.ndarray, targets: Sequence[np.ndarray], gammas: np.ndarray, alphas: np.ndarray
) -> None:
    """Raise if shapes do not fit together or values cannot be used.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels.
    targets : sequence of array, shape (n_rows, n_targets)
        One array per participant.
    gammas : array, shape (n_gammas, n_bands)
        Band weights.
    alphas : array, shape (n_alphas,)
        Penalties.

    Raises
    ------
    NumericalError
        Names the array, what was found and what was expected.
    """
    if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2] or not kernels.size:
        raise NumericalError(
            f"Kernels have shape {kernels.shape}, expected (n_bands, n_rows, n_rows)."
        )
    if gammas.ndim != 2 or gammas.shape[1] != len(kernels) or not len(gammas):
        raise NumericalError(
            f"Band weights have shape {gammas.shape}, expected (n_gammas, {len(kernels)})."
        )
    if alphas.ndim != 1 or not alphas.size or not (np.isfinite(alphas) & (alphas > 0)).all():
        raise NumericalError(
            f"Penalties are {alphas.tolist()}, expected a list of positive numbers.",
            hint="Set --alphas to one or more positive numbers.",
        )
    for name, array in (("Kernels", kernels), ("Band weights", gammas)):
        if not np.isfinite(array).all():
            raise NumericalError(f"{name} have NaN or infinite values, expected finite values.")
    for number, target in enumerate(targets):
        if target.ndim != 2 or len(target) != kernels.shape[1]:
            raise NumericalError(
                f"Targets of participant {number} have shape {target.shape}, expected "
                f"({kernels.shape[1]}, n_targets)."
            )
        bad = int((~np.isfinite(target)).any(axis=0).sum())
        if bad:
            raise NumericalError(
                f"{bad} of {target.shape[1]} targets of participant {number} have NaN or "
                "infinite values; empty parcels must be left out first."
            )


def check_folds(inner_folds: Sequence[Fold], n_rows: int) -> None:
    """Raise if there is no fold or a fold does not index the kernels."""
    if not len(inner_folds):
        raise NumericalError("Found 0 inner folds, expected at least 1.")
    for fold in inner_folds:
        for rows in (fold.train, fold.test):
            if not len(rows) or min(rows) < 0 or max(rows) >= n_rows:
                raise NumericalError(
                    f"An inner fold has no rows, or rows outside 0 to {n_rows - 1}; expected "
                    "positions within the outer training rows."
                )
