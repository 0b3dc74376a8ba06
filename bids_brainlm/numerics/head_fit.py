"""One encoding model of all heads, and any head's own part of its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import (
    _lag_products,
    _plain_products,
    crossval,
    delayed_kernels,
    design,
    ridge,
    scaling,
)
from bids_brainlm.numerics._lag_products import LagProducts
from bids_brainlm.numerics._plain_products import PlainProducts


@dataclass(frozen=True)
class HeadPart:
    """One head in the model of one participant.

    Attributes
    ----------
    prediction : sequence of array, shape (n_test, n_targets)
        The head's own part in each outer fold, in units of the centred targets.
    norm : array, shape (n_targets,)
        L2 norm of the head's weights over its columns and delays, mean over outer folds.
    """

    prediction: Sequence[np.ndarray]
    norm: np.ndarray


@dataclass(frozen=True)
class FoldReader:
    """What heads of one outer fold are read with.

    Attributes
    ----------
    scaler : Scaler or None
        Of the band, from training rows; None where it is not standardised.
    size : float
        What the band was divided by.
    products : LagProducts or PlainProducts
    """

    scaler: scaling.Scaler | None
    size: float
    products: LagProducts | PlainProducts

    def part(
        self, band: design.Band, columns: np.ndarray, *, raw_test: bool = False
    ) -> _lag_products.Part | _plain_products.Part:
        """Scale some columns of the band as the whole, and prepare them for the products.

        Parameters
        ----------
        band : Band
            The whole band, before delays.
        columns : array of int, shape (n_columns,)
        raw_test : bool
            Test rows stay raw.

        Returns
        -------
        Part
            For ``products.read``.
        """
        some = replace(band, features=band.features[:, columns])
        scaler = self.scaler
        if scaler is not None:
            scaler = scaling.Scaler(scaler.mean[columns], scaler.sd[columns])
        of_test = design.prepared(some, None) / self.size if raw_test else None
        return self.products.part(design.prepared(some, scaler) / self.size, of_test)


@dataclass(frozen=True)
class HeadFit:
    """A model that was fitted once, from which any head is read.

    Attributes
    ----------
    band : design.Band
        The band of all heads, before delays.
    plan : crossval.Plan
    readers : list of FoldReader
        One per outer fold.
    weights : list of list of array
        Dual weights times the band's gamma, by participant and outer fold, as the reader's
        ``products.dual`` gives them.
    observed, errors : list of list of array, shape (n_test, n_targets)
        Centred targets, and what the joint prediction leaves of them, by participant and
        outer fold.
    models : list of crossval.Result
        One per participant.
    """

    band: design.Band
    plan: crossval.Plan
    readers: list[FoldReader]
    weights: list[list[np.ndarray]]
    observed: list[list[np.ndarray]]
    errors: list[list[np.ndarray]]
    models: list[crossval.Result]


def fit_heads(
    bands: Sequence[design.Band],
    targets: Sequence[np.ndarray],
    plan: crossval.Plan,
    *,
    main: str,
) -> HeadFit:
    """Fit the model whose heads are read afterwards.

    Parameters
    ----------
    bands : sequence of Band
        Features of the whole story.
    targets : sequence of array, shape (n_trs, n_targets of the participant)
        One array per participant, finite.
    plan : Plan
    main : str
        Name of the band of all heads.

    Returns
    -------
    HeadFit

    Raises
    ------
    NumericalError
        No band has that name, NaN, or shapes that do not fit.

    Notes
    -----
    The model is that of `crossval.crossvalidate`, to rounding error: kernels are made without
    delayed columns, see `delayed_kernels`. Keeps 9 / 4 copies of the training rows of the targets
    a fold and 4 of the targets, and no primal weights.
    """
    band = band_of(bands, main)
    names = [each.name for each in bands]
    index = names.index(main)
    gathered = crossval.Gathered.empty(len(targets))
    readers: list[FoldReader] = []
    weights: list[list[np.ndarray]] = [[] for _ in targets]
    for number in range(len(plan.outer)):
        kernels = kernels_of(bands, plan, number)
        fitted = _fit_fold(kernels, targets, plan, number)
        gathered.add(fitted)
        for own, one in zip(weights, fitted.found, strict=True):
            own.append(one.dual * plan.gammas[number][one.gamma_index, index])
        readers.append(reader_of(kernels[index], plan, number, len(band.features)))
    errors = [
        [y - part.sum(axis=0) for y, part in zip(observed, parts, strict=True)]
        for observed, parts in zip(gathered.observed, gathered.parts, strict=True)
    ]
    models, observed = gathered.results(names, main), gathered.observed
    del gathered, fitted  # what follows is larger than the dual weights
    for own in weights:
        for number, reader in enumerate(readers):
            own[number] = reader.products.dual(own[number])
    return HeadFit(band, plan, readers, weights, observed, errors, models)


def read_head(fit: HeadFit, columns: np.ndarray) -> list[HeadPart]:
    """Read some columns' own part out of a fitted model.

    Parameters
    ----------
    fit : HeadFit
        From `fit_heads`.
    columns : array of int, shape (n_columns,)
        Columns of the main band before delays, each once.

    Returns
    -------
    list of HeadPart
        One per participant.

    Notes
    -----
    The columns are scaled, delayed and centred as in the band and divided by the size of the
    *band*. ``X_test X_train' dual`` is taken through the columns: at 4 delays in 9 products for
    16 (see `_lag_products`), else in full, or through the head's kernel where that is smaller.
    No array is larger than rows x targets. The norm is that of ``gamma X_train' dual``.
    """
    raw_test = fit.plan.test_scaling == "none"
    predictions: list[list[np.ndarray]] = [[] for _ in fit.weights]
    norms: list[list[np.ndarray]] = [[] for _ in fit.weights]
    for number, reader in enumerate(fit.readers):
        part = reader.part(fit.band, columns, raw_test=raw_test)
        for k, of_folds in enumerate(fit.weights):
            prediction, squares = reader.products.read(part, of_folds[number])
            predictions[k].append(prediction)
            norms[k].append(np.sqrt(squares))
    return [
        HeadPart(own, np.mean(norm, axis=0)) for own, norm in zip(predictions, norms, strict=True)
    ]


def band_of(bands: Sequence[design.Band], main: str) -> design.Band:
    """Return the band of that name.

    Parameters
    ----------
    bands : sequence of Band
    main : str

    Returns
    -------
    Band

    Raises
    ------
    NumericalError
        There is none.
    """
    for band in bands:
        if band.name == main:
            return band
    raise NumericalError(f"Found bands {[band.name for band in bands]}, expected one named {main}.")


def kernels_of(
    bands: Sequence[design.Band], plan: crossval.Plan, number: int
) -> list[delayed_kernels.FoldKernels]:
    """Make the kernels of all bands in an outer fold.

    Parameters
    ----------
    bands : sequence of Band
    plan : Plan
    number : int
        Number of the outer fold.

    Returns
    -------
    list of FoldKernels
    """
    return [
        delayed_kernels.fold_kernels(
            band,
            plan.outer[number],
            plan.delays,
            test_scaling=plan.test_scaling,
            centre=plan.centre,
            common_scale=plan.common_scale,
        )
        for band in bands
    ]


def reader_of(
    kernels: delayed_kernels.FoldKernels, plan: crossval.Plan, number: int, n_trs: int
) -> FoldReader:
    """Choose how the heads of an outer fold are read.

    Parameters
    ----------
    kernels : FoldKernels
        Of the band of all heads.
    plan : Plan
    number : int
        Number of the outer fold.
    n_trs : int
        Rows of the story.

    Returns
    -------
    FoldReader
    """
    fold = plan.outer[number]
    products: LagProducts | PlainProducts
    if _lag_products.usable(plan.delays):
        products = LagProducts(fold, plan.delays, n_trs, centre=plan.centre)
    else:
        products = PlainProducts(fold, plan.delays, centre=plan.centre)
    return FoldReader(kernels.scaler, kernels.size, products)


def _fit_fold(
    kernels: Sequence[delayed_kernels.FoldKernels],
    targets: Sequence[np.ndarray],
    plan: crossval.Plan,
    number: int,
) -> crossval.FittedFold:
    """Fit an outer fold from the kernels of its bands."""
    fold, gammas = plan.outer[number], plan.gammas[number]
    inside, across = np.stack([k.train for k in kernels]), np.stack([k.test for k in kernels])
    means = [y[fold.train].mean(axis=0) if plan.centre else 0.0 for y in targets]
    centred = [y[fold.train] - m for y, m in zip(targets, means, strict=True)]
    found = ridge.encode_kernels(
        inside,
        across,
        centred,
        gammas,
        plan.alphas,
        plan.inner[number],
        score=plan.score,
        screening=plan.screening,
    )
    observed = [y[fold.test] - m for y, m in zip(targets, means, strict=True)]
    return crossval.FittedFold(found, observed, [each.size for each in kernels])
