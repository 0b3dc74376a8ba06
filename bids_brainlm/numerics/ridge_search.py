"""Search of the banded ridge: band weights and penalty of each target.

Nothing of the size gammas x targets is kept. Choices and scores come from float64 products
whose shape does not depend on who else is in the run, so that a participant's result is the
same bit by bit in any company.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _ridge_factors as factors
from bids_brainlm.numerics._ridge_blocks import Block
from bids_brainlm.numerics._ridge_checks import check_folds, check_kernels
from bids_brainlm.numerics._ridge_host import Host, climbs
from bids_brainlm.numerics.folds import Fold
from bids_brainlm.numerics.ridge_screens import Lean, Screen, Screening

__all__ = ["Choice", "Screening", "search"]

_TIE_SLOPE = 1e-10
_BYTES_AT_ONCE = 2**26  # of the matrices that are kept while blocks of targets pass
_BYTES_OF_ONE_ALPHA = 2**27  # all of them together have one skeleton
_BYTES_OF_LADDERS = 3 * 2**27  # several alphas: all gammas have ladders together
_MOST_GAMMAS = 50
_MOST_OF_ONE_ALPHA = 128


@dataclass(frozen=True)
class Choice:
    """What the search chose for each target of one participant.

    Attributes
    ----------
    gamma_index : array of int, shape (n_targets,)
        Row of the gammas.
    alpha_index : array of int, shape (n_targets,)
        Index of the alphas.
    cv_score : array, shape (n_targets,)
        Mean inner-fold score of the choice; NaN for targets with NaN.
    """

    gamma_index: np.ndarray
    alpha_index: np.ndarray
    cv_score: np.ndarray


def search(
    kernels: np.ndarray,
    targets: Sequence[np.ndarray],
    gammas: np.ndarray,
    alphas: np.ndarray,
    inner_folds: Sequence[Fold],
    *,
    score: str = "r2",
    check: bool = True,
    screening: Screening | None = None,
) -> list[Choice]:
    """Choose band weights and penalty of each target by inner cross-validation.

    Parameters
    ----------
    kernels : array, shape (n_bands, n_rows, n_rows)
        Linear kernels of the outer training rows.
    targets : sequence of array, shape (n_rows, n_targets of the participant)
        One array per participant, centred on these rows.
    gammas : array, shape (n_gammas, n_bands)
        Band weights to try, on the simplex.
    alphas : array, shape (n_alphas,)
        Penalties to try, each > 0.
    inner_folds : sequence of Fold
        Positions (0 to n_rows - 1) of training and validation rows.
    score : {"r2", "r"}
        Validation score: R2 about the validation mean, or Pearson r.
    check : bool
        Look for wrong shapes and NaN first. Without, a target with NaN gets score NaN and
        harms no other target.
    screening : Screening, optional
        What rules out pairs; default numpy. Changes no result.

    Returns
    -------
    list of Choice
        One per participant.

    Raises
    ------
    NumericalError
        Wrong shapes, NaN, penalties that are not positive, or an unknown score.

    Notes
    -----
    The scores are averaged over folds. Alphas of equal score: a slope of 1e-10 per unit of
    log(alpha) favours the largest. A later gamma must beat the best by more than the float64
    epsilon. Both rules are himalaya's. There is no intercept: the caller centres features
    and targets on the outer training rows, and inner folds are not centred again. A constant
    target or prediction scores 0.

    Matrices are factorised in float64. All pairs (gamma, alpha) are scored in float32 with a
    bound of the error, and those that could be the best once more in float64, so that
    choices and scores are those of float64 throughout. One alpha takes a Cholesky factor per
    gamma and fold, several an eigendecomposition; where all bands but one have low rank
    (together an eighth of the rows), one decomposition per fold serves all gammas. Memory
    beside the data: the targets in float32 (twice; one alpha: of 5000 targets), all targets in
    one row where there are several participants, and about 0.2 GiB; 0.5 GiB with several
    alphas and thousands of targets.

    References
    ----------
    .. [1] Dupré la Tour et al. (2022), doi:10.1016/j.neuroimage.2022.119728
    """
    kernels = np.ascontiguousarray(kernels, dtype=np.float64)
    targets = [np.asarray(target, dtype=np.float64) for target in targets]
    gammas, alphas = np.asarray(gammas, dtype=np.float64), np.asarray(alphas, dtype=np.float64)
    if score not in ("r2", "r"):
        raise NumericalError(f"Found the selection score '{score}', expected 'r2' or 'r'.")
    if check:
        check_kernels(kernels, targets, gammas, alphas)
        check_folds(inner_folds, kernels.shape[1])
    centred = score == "r"
    kept = _first_of_each(gammas)
    low = factors.find_low_rank(kernels, gammas[kept], alphas, factors.fewest_train(inner_folds))
    splits = [
        factors.Split(kernels, fold, alphas, centred=centred, low_rank=low) for fold in inner_folds
    ]
    n_targets = sum(target.shape[1] for target in targets)
    portions = _portions(kept, inner_folds, len(alphas))
    lean = False
    if screening is None:
        screening = Host(relative=centred)
        together = low is None and _fit_together(len(kept), inner_folds)
        lean = together and climbs(len(kept), len(alphas), n_targets, relative=centred)
        portions = [kept] if lean else portions
    explicit = centred and n_targets > len(alphas) * max(len(fold.test) for fold in inner_folds)
    blocks: Iterable[Block] = _blocks(
        targets, inner_folds, centred, screening.targets_per_block(len(alphas), n_targets)
    )
    if len(portions) > 1:
        blocks = list(blocks)
    found = []
    for some in portions:
        hats = [[split.hat(gammas[index]) for split in splits] for index in some]
        screens = [
            [Lean(hat) if lean else Screen(hat, explicit=explicit) for hat in each] for each in hats
        ]
        screening.begin(screens, n_targets)
        for block in blocks:
            block.update(some, hats, screens, _TIE_SLOPE * np.log(alphas), screening)
            if some is portions[-1]:
                found.append(block.found)
        del hats, screens  # before the next ones are made
    return _choices(found, [target.shape[1] for target in targets])


def _first_of_each(gammas: np.ndarray) -> list[int]:
    """Rows that do not repeat an earlier one, which could only tie with it."""
    first: dict[bytes, int] = {}
    for index, gamma in enumerate(gammas):
        first.setdefault(gamma.tobytes(), index)
    return list(first.values())


def _portions(kept: list[int], inner_folds: Sequence[Fold], n_alphas: int) -> list[list[int]]:
    """Divide gammas so that the matrices of a portion fit into memory."""
    n_bytes = 0
    for fold in inner_folds:
        n_train, n_validation = len(fold.train), len(fold.test)
        n_bytes += (4 * n_alphas + 8) * n_train * n_validation
        n_bytes += 12 * n_train**2 if n_alphas > 1 else 0
    most, room = _MOST_GAMMAS, _BYTES_AT_ONCE
    if n_alphas == 1:
        most, room = _MOST_OF_ONE_ALPHA, _BYTES_OF_ONE_ALPHA
    n_at_once = min(most, max(1, room // n_bytes))
    return [kept[start : start + n_at_once] for start in range(0, len(kept), n_at_once)]


def _fit_together(n_gammas: int, inner_folds: Sequence[Fold]) -> bool:
    """Tell whether the bases of all gammas fit into memory."""
    rows = [(len(fold.train), len(fold.test)) for fold in inner_folds]
    n_bytes = sum(8 * n_train * (n_train + n_validation) for n_train, n_validation in rows)
    return n_gammas * n_bytes <= _BYTES_OF_LADDERS


def _blocks(
    targets: Sequence[np.ndarray], inner_folds: Sequence[Fold], centred: bool, n_at_once: int
) -> Iterator[Block]:
    """Put the targets of all participants in a row and cut it into blocks, one at a time."""
    every = targets[0] if len(targets) == 1 else np.concatenate(targets, axis=1)
    numbers = np.concatenate([np.arange(target.shape[1]) for target in targets])
    for start in range(0, len(numbers), n_at_once):
        some = slice(start, start + n_at_once)
        yield Block(every[:, some], numbers[some], inner_folds, centred=centred)


def _choices(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], sizes: Sequence[int]
) -> list[Choice]:
    """Give each participant its part of the row of targets."""
    borders = np.cumsum(sizes)[:-1]
    empty = [np.empty(0, dtype=np.intp)]
    gamma_index = np.concatenate([*empty, *(each[0] for each in found)])
    alpha_index = np.concatenate([*empty, *(each[1] for each in found)])
    score = np.concatenate([np.empty(0), *(each[2] for each in found)])
    score[np.isneginf(score)] = np.nan
    parts = (np.split(values, borders) for values in (gamma_index, alpha_index, score))
    return [Choice(*each) for each in zip(*parts, strict=True)]
