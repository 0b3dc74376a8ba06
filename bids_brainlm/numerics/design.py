"""Design matrices of one outer fold: silence, scaling, delays, centring, common scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import scaling
from bids_brainlm.numerics.fir import delay
from bids_brainlm.numerics.folds import Fold


@dataclass(frozen=True)
class Band:
    """A named group of features.

    Attributes
    ----------
    name : str
        ``silence``, ``counts``, ``phonemes`` or ``model``.
    features : array, shape (n_trs, n_features)
        Finite; rows without information hold 0.
    valid : array of bool, shape (n_trs,)
        Rows with information; the scaling is fitted on these, the others are set to 0 after
        standardisation.
    scaled : bool
        Whether the band is standardised on training rows.
    """

    name: str
    features: np.ndarray
    valid: np.ndarray
    scaled: bool = True


def silence_policy(features: np.ndarray, silent: np.ndarray, policy: str) -> Band:
    """Decide what language-model features are in silent TRs.

    Parameters
    ----------
    features : array, shape (n_trs, n_features)
        NaN in rows without a word.
    silent : array of bool, shape (n_trs,)
        Silent rows (without speech sounds, where these are known).
    policy : {"zero", "ffill", "zero-unscaled"}
        ``zero``: 0 after standardisation, with the scaling fitted on rows with words.
        ``ffill``: the features of the last TR with words (0 before the first).
        ``zero-unscaled``: as in the paper, 0 before standardisation.

    Returns
    -------
    Band
        Named ``model``.

    Raises
    ------
    NumericalError
        The policy is unknown, or no row has features.
    """
    empty = np.isnan(features).any(axis=1)
    if empty.all():
        raise NumericalError("The features have no row with words, expected at least one.")
    if policy == "zero":
        return Band("model", np.where(empty[:, None], 0.0, features), ~empty)
    last = np.maximum.accumulate(np.where(empty, -1, np.arange(len(features))))
    filled = np.where((last < 0)[:, None], 0.0, features[last])
    everywhere = np.ones(len(features), bool)
    if policy == "ffill":
        return Band("model", filled, everywhere)
    if policy == "zero-unscaled":
        return Band("model", np.where(silent[:, None], 0.0, filled), everywhere)
    raise NumericalError(
        f"Silence policy is {policy!r}, expected zero, ffill or zero-unscaled.",
        hint="Use one of these with --silence.",
    )


def fold_design(
    band: Band,
    fold: Fold,
    delays: Sequence[int],
    *,
    test_scaling: str = "train",
    centre: bool = True,
    common_scale: bool = True,
    size: float | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Make the training and test rows of one band.

    Parameters
    ----------
    band : Band
        The features of the whole story.
    fold : Fold
        Rows of the story.
    delays : sequence of int
        FIR delays in TRs.
    test_scaling : {"train", "none"}
        Test rows get the scaling of the training rows, or stay raw (a defect of the paper's
        code that its preset reproduces).
    centre : bool
        Subtract the mean of the training rows from every delayed column; with centred
        targets this is an unpenalised intercept.
    common_scale : bool
        Divide the band so that its kernel has a mean diagonal of 1 over the training rows;
        band weights then compare bands whatever their number of features.
    size : float, optional
        Divide by this instead, whatever ``common_scale`` says: some columns of a band that
        was divided as a whole.

    Returns
    -------
    train : array, shape (n_train, n_delays * n_features)
    test : array, shape (n_test, n_delays * n_features)
    size : float
        What the band was divided by; 1 where it was not.

    Notes
    -----
    Everything that is learned is learned on training rows. Features are standardised before
    they are delayed, so that a delayed copy has the same scale.
    """
    delayed = delay(prepared(band, scaler_of(band, fold)), delays)
    train, test = delayed[fold.train], delayed[fold.test]
    if test_scaling == "none" and band.scaled:
        test = delay(prepared(band, None), delays)[fold.test]
    if centre:
        mean = train.mean(axis=0)
        train -= mean
        test -= mean
    if size is None:
        trace = float(np.einsum("ij,ij->", train, train))
        size = common_size(trace, len(train)) if common_scale else 1.0
    if size != 1.0:
        train /= size
        test /= size
    return train, test, size


def scaler_of(band: Band, fold: Fold) -> scaling.Scaler | None:
    """Learn the scaling of a band on the training rows of a fold.

    Parameters
    ----------
    band : Band
    fold : Fold
        Rows of the story.

    Returns
    -------
    Scaler or None
        None where the band is not standardised.
    """
    return scaling.fit(band.features, fold.train, band.valid) if band.scaled else None


def prepared(band: Band, scaler: scaling.Scaler | None) -> np.ndarray:
    """Scale features before they are delayed, and set rows without information to 0.

    Parameters
    ----------
    band : Band
        The features of the whole story.
    scaler : Scaler or None
        None leaves them as they are.

    Returns
    -------
    array, shape (n_trs, n_features)
        A copy in float64.
    """
    if scaler is None:
        values = np.array(band.features, dtype=np.float64)
    else:
        values = scaling.apply(band.features, scaler)
    values[~band.valid] = 0.0
    return values


def common_size(trace: float, n_rows: int) -> float:
    """Say what a band is divided by, so that its kernel has a mean diagonal of 1.

    Parameters
    ----------
    trace : float
        Of the kernel of the training rows.
    n_rows : int
        Training rows.

    Returns
    -------
    float
        1 where the trace is 0.
    """
    size = float(np.sqrt(max(trace, 0.0) / n_rows))
    return size if size > 0 else 1.0
