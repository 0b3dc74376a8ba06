"""Cross-validated scores of one encoding model, for all participants of a story at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.numerics import design, folds, ridge, scores


@dataclass(frozen=True)
class Plan:
    """What is fixed before any data are seen.

    Attributes
    ----------
    outer : sequence of Fold
        Rows of the story.
    inner : sequence of sequence of Fold
        Positions within the training rows, for each outer fold.
    gammas : sequence of array, shape (n_gammas, n_bands)
        One an outer fold, equal for all participants.
    alphas : array, shape (n_alphas,)
    delays : tuple of int
        TRs.
    """

    outer: Sequence[folds.Fold]
    inner: Sequence[Sequence[folds.Fold]]
    gammas: Sequence[np.ndarray]
    alphas: np.ndarray
    delays: tuple[int, ...]
    score: str = "r2"
    test_scaling: str = "train"
    centre: bool = True
    common_scale: bool = True

    @property
    def rows(self) -> np.ndarray:
        """Tested rows of the story, in time order."""
        return np.concatenate([fold.test for fold in self.outer])

    @property
    def segments(self) -> list[slice]:
        """Where each outer fold lies within `rows`."""
        ends = np.cumsum([len(fold.test) for fold in self.outer])
        return [
            slice(int(end) - len(f.test), int(end)) for end, f in zip(ends, self.outer, strict=True)
        ]


@dataclass(frozen=True)
class Result:
    """Held-out results of one participant.

    Attributes
    ----------
    prediction : array, shape (n_rows, n_targets)
        The main band's own part (or the whole), outer folds in time order.
    observed : array, shape (n_rows, n_targets)
        The targets in the same rows.
    r, rjoint, r2 : array, shape (n_targets,)
        Mean over folds of Pearson r of the main band's part and of the whole prediction;
        R2 of the whole, pooled over folds, against the training mean.
    band_r : mapping of str to array, shape (n_targets,)
        Mean over folds of each band's own r.
    alpha_index, gamma_index : array of int, shape (n_folds, n_targets)
    """

    prediction: np.ndarray
    observed: np.ndarray
    r: np.ndarray
    rjoint: np.ndarray
    r2: np.ndarray
    band_r: Mapping[str, np.ndarray]
    alpha_index: np.ndarray
    gamma_index: np.ndarray


def make_plan(
    rows: np.ndarray,
    *,
    n_folds: int,
    n_inner: int,
    gap: int,
    n_bands: int,
    n_gammas: int,
    alphas: Sequence[float],
    delays: Sequence[int],
    seed: int,
    score: str = "r2",
    test_scaling: str = "train",
    centre: bool = True,
    common_scale: bool = True,
) -> Plan:
    """Fix folds, band weights and penalties of a story.

    Parameters
    ----------
    rows : array of int, shape (n_rows,)
        Rows of the story that take part.
    n_folds, n_inner : int
        Outer and inner contiguous folds.
    gap : int
        TRs left out on both sides of a test block, outer and inner.
    n_bands, n_gammas : int
        Number of bands; draws of band weights.
    alphas, delays : sequence
        Penalties; FIR delays in TRs.
    seed : int
        The draws depend on it, on the number of bands and on the fold, on nothing else.
    score, test_scaling, centre, common_scale
        See `ridge.encode` and `design.fold_design`.

    Returns
    -------
    Plan

    Raises
    ------
    NumericalError
        The rows are too few for the folds.
    """
    outer = folds.contiguous_folds(rows, n_folds, gap)
    inner = [
        [folds.positions(f, o.train) for f in folds.contiguous_folds(o.train, n_inner, gap)]
        for o in outer
    ]
    gammas = [
        ridge.sample_gammas(n_bands, n_gammas, np.random.default_rng([seed, n_bands, number]))
        for number in range(n_folds)
    ]
    return Plan(
        outer,
        inner,
        gammas,
        np.asarray(alphas, float),
        tuple(delays),
        score,
        test_scaling,
        centre,
        common_scale,
    )


def crossvalidate(
    bands: Sequence[design.Band],
    targets: Sequence[np.ndarray],
    plan: Plan,
    *,
    main: str | None,
) -> list[Result]:
    """Fit and score one encoding model.

    Parameters
    ----------
    bands : sequence of Band
        Features of the whole story.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan
    main : str or None
        The band whose own part of the prediction is scored; None scores the whole.

    Returns
    -------
    list of Result
        One per participant, the same whichever participants share the call.

    Raises
    ------
    NumericalError
        NaN, or shapes that do not fit.
    """
    parts: list[list[np.ndarray]] = [[] for _ in targets]
    observed: list[list[np.ndarray]] = [[] for _ in targets]
    chosen: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in targets]
    for fold, inner, gammas in zip(plan.outer, plan.inner, plan.gammas, strict=True):
        pairs = [
            design.fold_design(
                band,
                fold,
                plan.delays,
                test_scaling=plan.test_scaling,
                centre=plan.centre,
                common_scale=plan.common_scale,
            )
            for band in bands
        ]
        means = [y[fold.train].mean(axis=0) if plan.centre else 0.0 for y in targets]
        found = ridge.encode(
            [train for train, _ in pairs],
            [test for _, test in pairs],
            [y[fold.train] - m for y, m in zip(targets, means, strict=True)],
            gammas,
            plan.alphas,
            inner,
            score=plan.score,
        )
        for k, one in enumerate(found):
            parts[k].append(one.prediction_by_band)
            observed[k].append(targets[k][fold.test] - means[k])
            chosen[k].append((one.alpha_index, one.gamma_index))
    names = [band.name for band in bands]
    return [_result(names, p, o, c, main) for p, o, c in zip(parts, observed, chosen, strict=True)]


def _result(
    names: Sequence[str],
    parts: Sequence[np.ndarray],
    observed: Sequence[np.ndarray],
    chosen: Sequence[tuple[np.ndarray, np.ndarray]],
    main: str | None,
) -> Result:
    """Score the folds of one participant."""
    whole = [part.sum(axis=0) for part in parts]
    own = whole if main is None else [part[names.index(main)] for part in parts]
    error = sum(((y - f) ** 2).sum(axis=0) for y, f in zip(observed, whole, strict=True))
    total = sum((y**2).sum(axis=0) for y in observed)
    return Result(
        np.concatenate(own),
        np.concatenate(observed),
        _mean_r(own, observed),
        _mean_r(whole, observed),
        1 - error / total,
        {n: _mean_r([part[b] for part in parts], observed) for b, n in enumerate(names)},
        np.stack([alpha for alpha, _ in chosen]),
        np.stack([gamma for _, gamma in chosen]),
    )


def _mean_r(predictions: Sequence[np.ndarray], observed: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over folds of r; a constant prediction counts as r = 0, as in the paper."""
    values = [scores.pearson(f, y) for f, y in zip(predictions, observed, strict=True)]
    return np.mean([np.nan_to_num(v, nan=0.0) for v in values], axis=0)
