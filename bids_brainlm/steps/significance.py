"""Tests of held-out predictions within a participant, as the settings ask for them.

A helper of the encoding steps, not a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.numerics import nulls, resampling

FIXED_BLOCK = 15  # TRs, where the length is not estimated
LONGER = 1.5  # times the estimate, where folds share no training rows
NAMES = {
    "block": "block permutation of held-out predictions",
    "shift": "circular shift of held-out predictions within folds",
    "phase": "phase randomisation of held-out predictions within folds",
}


@dataclass(frozen=True)
class Null:
    """How significance within a participant is tested.

    ``kind`` is one of `NAMES`; ``block_length`` is in TRs, 0 to estimate it from data and
    predictions.
    """

    kind: str
    block_length: int
    n_permutations: int
    seed: tuple[int, int]

    def without_estimate(self) -> Null:
        """Return the same test with a length that no data decide."""
        return Null(self.kind, self.block_length or FIXED_BLOCK, self.n_permutations, self.seed)

    @property
    def name(self) -> str:
        """The test in words."""
        return NAMES[self.kind]


def test(
    prediction: np.ndarray,
    observed: np.ndarray,
    segments: Sequence[slice],
    null: Null,
    *,
    shared_training: bool,
) -> resampling.Resampled:
    """Test predictions of all targets of a run.

    Parameters
    ----------
    prediction, observed : array, shape (n_rows, n_targets)
        Held-out rows, outer folds in time order.
    segments : sequence of slice
        Rows of each outer fold.
    null : Null
    shared_training : bool
        Folds were trained on each other's rows; False where what is tested was never trained on.

    Returns
    -------
    Resampled
        With ``block_length_used`` where blocks were permuted.

    Notes
    -----
    The estimated length is the best for the variance, which it makes a little too small. Where
    folds share training rows the widening by sqrt(2) covers that; elsewhere blocks are 1.5 times
    as long. For stories of 110 to 410 TRs with features that drift, 3 to 5 % of null targets of
    autocorrelation .4 then reach p <= 0.05 and 4 to 7 % of those of .8; with the estimate itself
    4 to 6 % and 5 to 7 %.
    """
    shared = {
        "n_permutations": null.n_permutations,
        "rng": np.random.default_rng(null.seed),
        "segments": segments,
        "shared_training": shared_training,
    }
    if null.kind == "shift":
        return nulls.circular_shift_test(prediction, observed, **shared)
    if null.kind == "phase":
        return nulls.phase_randomisation_test(prediction, observed, **shared)
    length = null.block_length
    if not length:
        length = nulls.estimate_block_length(prediction, observed, segments=segments).used
        length = length if shared_training else math.ceil(LONGER * length)
    length = max(1, min(length, len(prediction) // 6))
    return resampling.block_permutation_test(prediction, observed, block_length=length, **shared)
