"""Cross-validated scores of one encoding model, for all participants of a story at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    screening : ridge.Screening, optional
        See `ridge.search`; changes no result.
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
    screening: ridge.Screening | None = None

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
        R2 of the whole, pooled over folds, less the means of the test blocks (`squares`).
    band_r : mapping of str to array, shape (n_targets,)
        Mean over folds of each band's own r.
    alpha_index, gamma_index : array of int, shape (n_folds, n_targets)
    df : array, shape (n_folds, n_targets)
        Effective degrees of freedom, estimated; see `ridge.encode`.
    """

    prediction: np.ndarray
    observed: np.ndarray
    r: np.ndarray
    rjoint: np.ndarray
    r2: np.ndarray
    band_r: Mapping[str, np.ndarray]
    alpha_index: np.ndarray
    gamma_index: np.ndarray
    df: np.ndarray


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
    gathered = Gathered.empty(len(targets))
    for fitted in fit_folds(bands, targets, plan):
        gathered.add(fitted)
    return gathered.results([band.name for band in bands], main)


@dataclass(frozen=True)
class FittedFold:
    """One outer fold, fitted for all participants.

    Attributes
    ----------
    found : sequence of ridge.FoldResult
        One per participant.
    observed : sequence of array, shape (n_test, n_targets of the participant)
        Targets of the test rows, less the means of the training rows.
    sizes : sequence of float
        What each band was divided by; see `design.fold_design`.
    """

    found: Sequence[ridge.FoldResult]
    observed: Sequence[np.ndarray]
    sizes: Sequence[float]


def fit_folds(
    bands: Sequence[design.Band], targets: Sequence[np.ndarray], plan: Plan
) -> Iterator[FittedFold]:
    """Fit the outer folds one after the other.

    Parameters
    ----------
    bands : sequence of Band
        Features of the whole story.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan

    Yields
    ------
    FittedFold
        In the order of ``plan.outer``. Design matrices are not kept.
    """
    for fold, inner, gammas in zip(plan.outer, plan.inner, plan.gammas, strict=True):
        yield _fit_fold(bands, targets, plan, (fold, inner, gammas))


def _fit_fold(
    bands: Sequence[design.Band],
    targets: Sequence[np.ndarray],
    plan: Plan,
    split: tuple[folds.Fold, Sequence[folds.Fold], np.ndarray],
) -> FittedFold:
    """Fit one outer fold, given with its inner folds and band weights."""
    fold, inner, gammas = split
    designs = [
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
        [train for train, _, _ in designs],
        [test for _, test, _ in designs],
        [y[fold.train] - m for y, m in zip(targets, means, strict=True)],
        gammas,
        plan.alphas,
        inner,
        score=plan.score,
        screening=plan.screening,
    )
    observed = [y[fold.test] - m for y, m in zip(targets, means, strict=True)]
    return FittedFold(found, observed, [size for _, _, size in designs])


@dataclass(frozen=True)
class Gathered:
    """Predictions and choices of the folds so far, in one list per participant.

    Attributes
    ----------
    parts : list of list of array, shape (n_bands, n_test, n_targets)
    observed : list of list of array, shape (n_test, n_targets)
    chosen : list of list of (array, array, array), each of shape (n_targets,)
        Indices of alpha and gamma, and effective degrees of freedom.
    """

    parts: list[list[np.ndarray]]
    observed: list[list[np.ndarray]]
    chosen: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]

    @classmethod
    def empty(cls, n_participants: int) -> Gathered:
        """Begin with no fold.

        Parameters
        ----------
        n_participants : int

        Returns
        -------
        Gathered
        """
        return cls(*[[[] for _ in range(n_participants)] for _ in range(3)])

    def add(self, fitted: FittedFold) -> None:
        """Take what is needed of the next fold.

        Parameters
        ----------
        fitted : FittedFold
        """
        for k, one in enumerate(fitted.found):
            self.parts[k].append(one.prediction_by_band)
            self.observed[k].append(fitted.observed[k])
            self.chosen[k].append((one.alpha_index, one.gamma_index, one.df))

    def results(self, names: Sequence[str], main: str | None) -> list[Result]:
        """Score all folds.

        Parameters
        ----------
        names : sequence of str
            Names of the bands.
        main : str or None
            The band that is scored; None scores the whole prediction.

        Returns
        -------
        list of Result
            One per participant.
        """
        gathered = zip(self.parts, self.observed, self.chosen, strict=True)
        return [_result(names, parts, seen, chosen, main) for parts, seen, chosen in gathered]


def _result(
    names: Sequence[str],
    parts: Sequence[np.ndarray],
    observed: Sequence[np.ndarray],
    chosen: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    main: str | None,
) -> Result:
    """Score the folds of one participant."""
    whole = [part.sum(axis=0) for part in parts]
    own = whole if main is None else [part[names.index(main)] for part in parts]
    left = [y - f for y, f in zip(observed, whole, strict=True)]
    error, total = squares(left), squares(observed)
    return Result(
        np.concatenate(own),
        np.concatenate(observed),
        mean_r(own, observed),
        mean_r(whole, observed),
        1 - error / total,
        {n: mean_r([part[b] for part in parts], observed) for b, n in enumerate(names)},
        *[np.stack(kind) for kind in zip(*chosen, strict=True)],
    )


def squares(folds_of: Sequence[np.ndarray]) -> np.ndarray:
    """Sum squares over test rows and folds, less the mean of each test block.

    Parameters
    ----------
    folds_of : sequence of array, shape (n_test, n_targets)
        One an outer fold.

    Returns
    -------
    array, shape (n_targets,)

    Notes
    -----
    In a run that is scaled as a whole, the mean of a test block is tied to that of the
    training rows: where these lie high, it lies low. A model without any content that predicts
    one constant for each block would then gain R2.
    """
    return sum(((part - part.mean(axis=0)) ** 2).sum(axis=0) for part in folds_of)


def mean_r(predictions: Sequence[np.ndarray], observed: Sequence[np.ndarray]) -> np.ndarray:
    """Average r over folds.

    Parameters
    ----------
    predictions, observed : sequence of array, shape (n_test, n_targets)
        One array per outer fold.

    Returns
    -------
    array, shape (n_targets,)
        Each fold counts once; a constant prediction counts as r = 0, as in the paper.
    """
    values = [scores.pearson(f, y) for f, y in zip(predictions, observed, strict=True)]
    return np.mean([np.nan_to_num(v, nan=0.0) for v in values], axis=0)
