"""Folds: sizes, gaps over holes, positions, ranges, messages."""

import numpy as np
import pytest
from sklearn.model_selection import KFold

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.folds import Fold, contiguous_folds, positions, ranges


def test_without_gap_equals_sklearn():
    rows = np.arange(100, 171)
    for ours, (train, test) in zip(contiguous_folds(rows, 3, 0), KFold(3).split(rows), strict=True):
        np.testing.assert_array_equal(ours.train, rows[train])
        np.testing.assert_array_equal(ours.test, rows[test])


def test_gap_on_both_sides():
    fold = contiguous_folds(np.arange(30), 3, 2)[1]
    assert ranges(fold.test) == [(10, 19)]
    assert ranges(fold.train) == [(0, 7), (22, 29)]


def test_distance_counts_trs_over_holes():
    rows = np.r_[0:10, 15:30]
    first, second = contiguous_folds(rows, 2, 5)
    assert ranges(first.test) == [(0, 9), (15, 17)]
    assert ranges(first.train) == [(23, 29)]
    assert ranges(second.train) == [(0, 9), (15, 17)][:1]
    assert contiguous_folds(np.r_[0:10, 15:25], 2, 5)[0].train[0] == 15


def test_positions_index_the_outer_training_rows():
    outer = contiguous_folds(np.arange(60), 3, 4)[1]
    for inner in contiguous_folds(outer.train, 3, 4):
        at = positions(inner, outer.train)
        np.testing.assert_array_equal(outer.train[at.train], inner.train)
        np.testing.assert_array_equal(outer.train[at.test], inner.test)
    with pytest.raises(NumericalError, match="does not have"):
        positions(Fold(np.array([3]), np.array([30])), outer.train)
    with pytest.raises(NumericalError, match="does not have"):
        positions(Fold(np.array([3]), np.array([99])), outer.train)


def test_ranges():
    assert ranges(np.array([], dtype=int)) == []
    assert ranges(np.array([4])) == [(4, 4)]
    assert ranges(np.array([1, 2, 5, 7, 8])) == [(1, 2), (5, 5), (7, 8)]


@pytest.mark.parametrize(
    ("rows", "n_folds", "gap", "words"),
    [
        (np.arange(20), 2, 10, "training"),
        (np.arange(4), 3, 0, "test rows"),
        (np.arange(2), 5, 0, "test rows"),
        (np.arange(20), 1, 0, "at least 2 folds"),
        (np.arange(20), 3, -1, "at least 0 TRs"),
        (np.array([1, 1, 2]), 2, 0, "increasing"),
        (np.arange(20.0), 2, 0, "integers"),
    ],
)
def test_impossible_folds(rows, n_folds, gap, words):
    with pytest.raises(NumericalError, match=words) as raised:
        contiguous_folds(rows, n_folds, gap)
    assert "--" in raised.value.hint
