"""What each attention head contributes to the prediction of one encoding model.

One model is fitted on all heads' transformations (one band). With the dual weights of a
target, the part of head h is ``gamma K_h(test, train) @ dual``, where K_h is the kernel of
the columns of that head alone, at all delays and with the scaling of the whole band. The
parts of all heads add up to the part of the band. A part is read out of the fitted model;
nothing is fitted again, and the language model is never run without a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, head_nulls, resampling
from bids_brainlm.numerics._same_data import SameData
from bids_brainlm.numerics.head_fit import HeadFit, HeadPart, band_of, fit_heads, read_head

__all__ = [
    "HeadFit",
    "HeadPart",
    "HeadResult",
    "HeadTest",
    "columns_of_heads",
    "fit_heads",
    "headwise",
    "read_head",
]


@dataclass(frozen=True)
class HeadTest:
    """Settings of the block permutation of each head's prediction.

    Attributes
    ----------
    block_length : int
        Fewest TRs per block.
    n_permutations : int
        Number of permutations, the same ones for all heads, targets and participants.
    seed : int or sequence of int
        The permutations depend on it, on the number of rows and on nothing else.
    """

    block_length: int
    n_permutations: int
    seed: int | Sequence[int]


@dataclass(frozen=True)
class HeadResult:
    """Heads of one participant.

    Attributes
    ----------
    r : array, shape (n_targets, n_heads_total)
        Mean over outer folds of Pearson r between the head's own part of the prediction and
        the held-out target; a fold with a constant part counts as 0.
    norms : array, shape (n_targets, n_heads_total)
        See `HeadPart`. In units of the target per unit of the scaled feature: comparable
        between heads, and between targets of equal variance.
    model : crossval.Result
        The whole model, as from `crossval.crossvalidate`: ``model.r`` is the r of the band
        of all heads, ``model.rjoint`` and ``model.r2`` are those of all bands together;
        chosen penalties and band weights.
    r2_loss : array, shape (n_targets, n_heads_total), or None
        R2 of the joint prediction minus R2 of the joint prediction without the head's part:
        a *read-out knock-out*. It is neither a refit (the other heads' weights stay as they
        are, though they could take over what heads share) nor an ablation of the language
        model (later layers still see the head's output). Positive where the part helps.
    p : array, shape (n_targets, n_heads_total), or None
        Uncorrected p of the head's part, by permutation of blocks.
    excess : array, shape (n_targets, n_heads_total), or None
        Logarithm of ``norms`` less that of series that are as slow and follow nothing; see
        `head_nulls.norm_excess`.
    """

    r: np.ndarray
    norms: np.ndarray
    model: crossval.Result
    r2_loss: np.ndarray | None = None
    p: np.ndarray | None = None
    excess: np.ndarray | None = None


def headwise(
    bands: Sequence[design.Band],
    groups: np.ndarray | Sequence[slice | np.ndarray],
    targets: Sequence[np.ndarray],
    plan: crossval.Plan,
    *,
    main: str,
    knockout: bool = False,
    test: HeadTest | None = None,
    null: head_nulls.HeadNull | None = None,
) -> list[HeadResult]:
    """Fit one model and score every head's own part of its prediction.

    Parameters
    ----------
    bands : sequence of Band
        Features of the whole story; one of them holds all heads.
    groups : array of int, shape (n_heads_total, head_dim), or sequence of slice or array
        For each head its columns of the main band *before* delays. For features of shape
        (n_trs, n_layers, n_heads, head_dim), flattened in that order, it is
        ``np.arange(n_layers * n_heads * head_dim).reshape(-1, head_dim)``.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan
    main : str
        Name of the band of all heads.
    knockout : bool
        Also give ``r2_loss``.
    test : HeadTest, optional
        Also give ``p``.
    null : HeadNull, optional
        Also give ``excess``.

    Returns
    -------
    list of HeadResult
        One per participant, the same bit by bit whichever participants share the call. Heads
        are in the order of ``groups``.

    Raises
    ------
    NumericalError
        Wrong groups, an unknown band, NaN, shapes that do not fit, or too few seeds.

    Notes
    -----
    float64 throughout: a head's part is a small difference of large terms, and float32 costs
    up to 4e-4 in r. Groups need not cover the band; the r of a head does not depend on the
    other groups. Heads that share information share its weights, so that the r of a head is
    not what the head would reach alone.
    """
    found = columns_of_heads(groups, band_of(bands, main).features.shape[1])
    fit = fit_heads(bands, targets, plan, main=main)
    data = [
        SameData(observed, errors if knockout else None)
        for observed, errors in zip(fit.observed, fit.errors, strict=True)
    ]
    results = []
    for k, model in enumerate(fit.models):
        shape = (fit.observed[k][0].shape[1], len(found))
        results.append(
            HeadResult(
                np.empty(shape),
                np.empty(shape),
                model,
                np.empty(shape) if knockout else None,
                np.empty(shape) if test is not None else None,
            )
        )
    for head, columns in enumerate(found):
        for k, part in enumerate(read_head(fit, columns)):
            result = results[k]
            result.r[:, head], loss = data[k].score(part.prediction)
            result.norms[:, head] = part.norm
            if result.r2_loss is not None:
                result.r2_loss[:, head] = loss
            if result.p is not None and test is not None:
                result.p[:, head] = _p(part, result.model, plan, test)
    if null is None:
        return results
    del fit, data
    excess = head_nulls.norm_excess(
        bands,
        found,
        targets,
        plan,
        main=main,
        norms=[result.norms for result in results],
        models=[result.model for result in results],
        null=null,
    )
    return [replace(one, excess=own) for one, own in zip(results, excess, strict=True)]


def columns_of_heads(
    groups: np.ndarray | Sequence[slice | np.ndarray], n_features: int
) -> list[np.ndarray]:
    """Check which columns belong to which head.

    Parameters
    ----------
    groups : array of int, shape (n_heads_total, head_dim), or sequence of slice or array
        Columns of each head before delays.
    n_features : int
        Columns of the band before delays.

    Returns
    -------
    list of array of int, shape (head_dim,)
        One per head.

    Raises
    ------
    NumericalError
        No head, a head without columns, columns outside the band, or a column in two heads.
    """
    found = []
    for group in groups:
        if isinstance(group, slice):
            group = np.arange(group.start or 0, _end(group, n_features), group.step or 1)
        columns = np.asarray(group)
        if columns.ndim != 1 or not columns.size or not np.issubdtype(columns.dtype, np.integer):
            raise NumericalError(
                f"Head {len(found)} has columns of shape {columns.shape} and type "
                f"{columns.dtype}, expected one or more integers."
            )
        found.append(columns)
    if not found:
        raise NumericalError("Found 0 heads, expected at least 1.")
    every = np.concatenate(found)
    if every.min() < 0 or every.max() >= n_features:
        raise NumericalError(
            f"Heads have columns {every.min()} to {every.max()}, expected 0 to {n_features - 1}."
        )
    n_twice = every.size - np.unique(every).size
    if n_twice:
        raise NumericalError(
            f"{n_twice} columns belong to more than one head, expected each column once."
        )
    return found


def _end(group: slice, n_features: int) -> int:
    """End of a slice, not clipped to the band."""
    return n_features if group.stop is None else group.stop


def _p(part: HeadPart, model: crossval.Result, plan: crossval.Plan, test: HeadTest) -> np.ndarray:
    """Uncorrected p of a head, with the same permutations for each."""
    return resampling.block_permutation_test(
        np.concatenate(part.prediction),
        model.observed,
        block_length=test.block_length,
        n_permutations=test.n_permutations,
        rng=np.random.default_rng(test.seed),
        segments=plan.segments,
    ).p
