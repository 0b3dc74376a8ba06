"""Design matrices by hand: silent rows, scaling on training rows, delays, common scale."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import design
from bids_brainlm.numerics.folds import Fold

NAN = np.nan
FEATURES = np.array([[NAN], [2.0], [4.0], [NAN], [NAN], [9.0]])
SILENT = np.array([True, False, False, True, False, False])  # row 4: words, but no phone begins


def test_zero_keeps_silent_rows_apart():
    band = design.silence_policy(FEATURES, SILENT, "zero")
    assert band.features[:, 0].tolist() == [0, 2, 4, 0, 0, 9]
    assert band.valid.tolist() == [False, True, True, False, False, True]


def test_ffill_repeats_the_last_row_with_words():
    band = design.silence_policy(FEATURES, SILENT, "ffill")
    assert band.features[:, 0].tolist() == [0, 2, 4, 4, 4, 9]
    assert band.valid.all()


def test_zero_unscaled_fills_then_zeroes_silent_rows_as_the_paper_does():
    band = design.silence_policy(FEATURES, SILENT, "zero-unscaled")
    assert band.features[:, 0].tolist() == [0, 2, 4, 0, 4, 9]
    assert band.valid.all()


def test_unknown_policies_and_empty_features_are_refused():
    with pytest.raises(NumericalError, match="expected zero, ffill"):
        design.silence_policy(FEATURES, SILENT, "nought")
    with pytest.raises(NumericalError, match="no row with words"):
        design.silence_policy(np.full((3, 2), NAN), np.ones(3, bool), "zero")


FOLD = Fold(test=np.array([4, 5]), train=np.array([0, 1, 2]))


def test_scaling_is_learned_on_valid_training_rows_only():
    """Training rows 1 and 2 (2 and 4): mean 3, sd 1. Row 3 (gap) and rows 4, 5 do not count."""
    band = design.silence_policy(FEATURES, SILENT, "zero")
    train, test = design.fold_design(band, FOLD, [0], centre=False, common_scale=False)[:2]
    assert train[:, 0].tolist() == [0, -1, 1]
    assert test[:, 0].tolist() == [0, 6]


def test_delays_reach_back_over_the_border_of_the_fold():
    """At a delay of 1 TR, row 4 holds row 3, and row 0 nothing."""
    values = np.arange(6.0)[:, None]
    band = design.Band("counts", values, np.ones(6, bool), scaled=False)
    train, test = design.fold_design(band, FOLD, [1, 2], centre=False, common_scale=False)[:2]
    assert train.tolist() == [[0, 0], [0, 0], [1, 0]]
    assert test.tolist() == [[3, 2], [4, 3]]


def test_the_papers_test_rows_keep_their_raw_scale():
    values = np.array([[0.0], [2.0], [4.0], [5.0], [7.0], [9.0]])
    band = design.Band("model", values, np.ones(6, bool))
    options = {"test_scaling": "none", "centre": False, "common_scale": False}
    train, test = design.fold_design(band, FOLD, [0], **options)[:2]
    np.testing.assert_allclose(train[:, 0], np.array([-2, 0, 2]) / np.std([0, 2, 4]))
    assert test[:, 0].tolist() == [7, 9]


def test_centre_and_common_scale(rng):
    values = rng.normal(3, 2, (40, 5))
    fold = Fold(test=np.arange(30, 40), train=np.arange(25))
    band = design.Band("model", values, np.ones(40, bool))
    train, test = design.fold_design(band, fold, [0, 1])[:2]
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-12)
    assert np.trace(train @ train.T) / len(train) == pytest.approx(1)
    assert np.abs(test.mean(axis=0)).max() > 1e-3  # the test rows' own mean is never used
