"""Refits of a ladder of models: every rung adds bands to those of the rungs before it.

Besides the nested models, the whole model is fitted without each single rung: what a rung adds
in its place (`gain`) and what nothing else can replace (`unique`) are different things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, resampling, variance_ladder


@dataclass(frozen=True)
class Fit:
    """Held-out scores of one model of one participant.

    Attributes
    ----------
    r2 : array, shape (n_targets,)
    product : array, shape (n_rungs of the model, n_targets)
        Product measure of each rung in this model; adds up to ``r2``.
    alpha_index, gamma_index : array of int, shape (n_folds, n_targets)
    """

    r2: np.ndarray
    product: np.ndarray
    alpha_index: np.ndarray
    gamma_index: np.ndarray


@dataclass(frozen=True)
class Shares:
    """R2 of the whole model, divided among the rungs in three ways.

    Attributes
    ----------
    r2 : array, shape (n_rungs, n_targets)
        Of the model of each rung and all before it.
    gain : array, shape (n_rungs, n_targets)
        What each rung adds to those before it; adds up to R2 of the whole model.
    unique : array, shape (n_rungs, n_targets)
        R2 of the whole model less that of the model refitted without the rung.
    product : array, shape (n_rungs, n_targets)
        Product measure in the whole model; adds up to its R2.
    shared : array, shape (n_targets,)
        R2 of the whole model less the sum of ``unique``.
    """

    r2: np.ndarray
    gain: np.ndarray
    unique: np.ndarray
    product: np.ndarray
    shared: np.ndarray


def models_of(n_rungs: int) -> list[tuple[int, ...]]:
    """List the models of a ladder, each as the numbers of its rungs.

    Parameters
    ----------
    n_rungs : int

    Returns
    -------
    list of tuple of int
        The nested models, smallest first, then the whole model without each rung but the last
        (which is a nested model): ``2 n_rungs - 1`` models.

    Raises
    ------
    NumericalError
        There is no rung.
    """
    if n_rungs < 1:
        raise NumericalError(f"The ladder has {n_rungs} rungs, expected at least one.")
    every = tuple(range(n_rungs))
    nested = [every[: k + 1] for k in every]
    return nested + [every[:k] + every[k + 1 :] for k in every[:-1]]


def fit(
    bands: Sequence[design.Band],
    rung_of: Sequence[int],
    model: Sequence[int],
    targets: Sequence[np.ndarray],
    plan: crossval.Plan,
) -> list[Fit]:
    """Refit one model of a ladder.

    Parameters
    ----------
    bands : sequence of Band
        Of the whole model.
    rung_of : sequence of int
        Rung of each band.
    model : sequence of int
        Rungs of this model.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan
        Of the whole model: its band weights have one column for each of ``bands``.

    Returns
    -------
    list of Fit
        One per participant.

    Raises
    ------
    NumericalError
        The plan is that of another number of bands.

    Notes
    -----
    A smaller model tries the band weights of the whole model without the columns of the bands
    that it lacks; penalties are the same. It is the whole model with these kernels set to 0.
    Draws of its own would bias gains: penalties lie on a coarse grid, and a further band,
    even one of noise, makes the grid of *effective* penalties (alpha / gamma) of the others
    finer. The weights of a model, rescaled to sum to 1, follow the law of `sample_gammas` for
    its number of bands, since parts of a Dirichlet draw are Dirichlet.
    """
    if any(gammas.shape[1] != len(bands) for gammas in plan.gammas):
        raise NumericalError(
            f"The plan has weights for {plan.gammas[0].shape[1]} bands, expected {len(bands)}."
        )
    kept = [k for k, rung in enumerate(rung_of) if rung in model]
    own = replace(plan, gammas=[gammas[:, kept] for gammas in plan.gammas])
    gathered = crossval.Gathered.empty(len(targets))
    for fitted in crossval.fit_folds([bands[k] for k in kept], targets, own):
        gathered.add(fitted)
    members = [[i for i, k in enumerate(kept) if rung_of[k] == rung] for rung in model]
    found = []
    for parts, seen, chosen in zip(gathered.parts, gathered.observed, gathered.chosen, strict=True):
        by_rung = np.concatenate(
            [np.stack([part[some].sum(axis=0) for some in members]) for part in parts], axis=1
        )
        observed = np.concatenate(seen)
        segments = plan.segments
        r2 = variance_ladder.r2_within(by_rung.sum(axis=0), observed, segments=segments)
        product = variance_ladder.product_measure(by_rung, observed, segments=segments)
        alpha, gamma, _ = (np.stack(one) for one in zip(*chosen, strict=True))
        found.append(Fit(r2, product, alpha, gamma))
    return found


def shares(fits: Mapping[tuple[int, ...], Fit]) -> Shares:
    """Divide R2 of the whole model among its rungs.

    Parameters
    ----------
    fits : mapping of tuple of int to Fit
        One participant's fits of all `models_of` a ladder.

    Returns
    -------
    Shares

    References
    ----------
    .. [1] Dupré la Tour et al. (2022), doi:10.1016/j.neuroimage.2022.119728
    .. [2] Lescroart et al. (2015), doi:10.3389/fncom.2015.00135
    """
    every = max(fits, key=len)
    r2 = np.stack([fits[every[: k + 1]].r2 for k in every])
    whole = r2[-1]
    without = [every[:k] + every[k + 1 :] for k in every]
    unique = np.stack([whole - fits[m].r2 if m else whole for m in without])
    return Shares(
        r2=r2,
        gain=np.diff(r2, axis=0, prepend=0.0),
        unique=unique,
        product=fits[every].product,
        shared=whole - unique.sum(axis=0),
    )


def better_test(r2: np.ndarray, *, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Test whether each rung makes the model better than every smaller one of the ladder.

    Parameters
    ----------
    r2 : array, shape (n_participants, n_rungs, n_targets)
        R2 of the nested models; a NaN is a missing participant.
    n_permutations : int
        Sign flips over participants.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_rungs, n_targets)
        One-sided p.

    Notes
    -----
    The p of a rung is the largest of the p of its comparisons: with each smaller model, and
    with no model at all (R2 = 0); an intersection-union test [1]_, which needs no correction
    for the number of comparisons. The gain alone says less: where a rung overfits, R2 falls,
    and the next rung, even one of noise, takes weight from it and so mends part of the loss.

    References
    ----------
    .. [1] Berger (1982), doi:10.1080/00401706.1982.10487790
    """
    n_people, n_rungs, n_targets = r2.shape
    padded = np.concatenate([np.zeros_like(r2[:, :1]), r2], axis=1)
    largest = np.zeros((n_rungs, n_targets))
    for smaller in range(n_rungs):
        differences = padded[:, smaller + 1 :] - padded[:, [smaller]]
        found = resampling.sign_flip_test(
            differences.reshape(n_people, -1), n_permutations=n_permutations, rng=rng
        )
        p = found.p.reshape(-1, n_targets)
        largest[smaller:] = np.maximum(largest[smaller:], p)
    return largest
