"""Folds, rare labels and shifts of decoding, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _decoding_null as null
from bids_brainlm.numerics import decoding


def story(n_rows=120, n_heads=2, n_labels=4, head_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_heads, n_rows, head_dim))
    return X, rng.random((n_rows, n_labels)) < 0.4


def test_the_gap_is_counted_in_trs_of_the_grid():
    """Silent TRs 60 to 69 are no rows; they still lie between row 59 and row 70."""
    rows = np.r_[0:60, 70:130]
    plan = decoding.make_plan(rows, 2, 2, 5)
    np.testing.assert_array_equal(rows[plan.outer[0].test], np.arange(60))
    np.testing.assert_array_equal(rows[plan.outer[0].train], np.arange(70, 130))
    plan = decoding.make_plan(rows, 2, 2, 15)
    np.testing.assert_array_equal(rows[plan.outer[0].train], np.arange(75, 130))
    np.testing.assert_array_equal(rows[plan.outer[1].train], np.arange(55))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_folds=st.integers(2, 5),
    n_inner=st.integers(2, 4),
    gap=st.integers(0, 8),
)
def test_no_fitted_row_is_near_a_predicted_row(seed, n_folds, n_inner, gap):
    rows = np.flatnonzero(np.random.default_rng(seed).random(260) < 0.8)
    plan = decoding.make_plan(rows, n_folds, n_inner, gap)
    tested = np.concatenate([fold.test for fold in plan.outer])
    np.testing.assert_array_equal(tested, np.arange(rows.size))
    for outer, inner in zip(plan.outer, plan.inner, strict=True):
        distance = np.abs(rows[outer.train][:, None] - rows[outer.test])
        assert distance.min() > gap
        predicted = np.concatenate([fold.test for fold in inner])
        np.testing.assert_array_equal(np.sort(predicted), np.arange(outer.train.size))
        train = rows[outer.train]
        for fold in inner:
            assert np.abs(train[fold.train][:, None] - train[fold.test]).min() > gap


def test_shuffled_folds_partition_and_depend_on_the_seed():
    rows = np.arange(10, 111)
    plans = [decoding.make_plan(rows, 5, 4, 0, shuffled=True, seed=seed) for seed in (1, 1, 2)]
    for outer, inner in zip(plans[0].outer, plans[0].inner, strict=True):
        np.testing.assert_array_equal(np.sort(np.r_[outer.train, outer.test]), np.arange(101))
        for fold in inner:
            together = np.sort(np.r_[fold.train, fold.test])
            np.testing.assert_array_equal(together, np.arange(outer.train.size))
        assert (np.diff(outer.test) > 1).any()
    same = [(a.test == b.test).all() for a, b in zip(plans[0].outer, plans[1].outer, strict=True)]
    assert all(same)
    assert not np.array_equal(plans[0].outer[0].test, plans[2].outer[0].test)


def test_balanced_accuracy_by_hand():
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    predicted = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=bool)
    found = decoding.balanced_accuracy(labels, predicted)
    np.testing.assert_allclose(found, [(1 + 2 / 3) / 2, np.nan, np.nan])


def test_rare_labels_have_reasons_and_counts():
    X, labels = story(n_labels=6)
    labels[:, 0] = False
    labels[:, 1] = True
    labels[:, 2] = False
    labels[[3, 30, 60, 90, 110, 11, 12, 13, 14], 2] = True  # 9 rows
    labels[:, 3] = False
    labels[:15, 3] = True  # the first of 5 blocks only
    labels[:, 4] = False
    labels[4::6, 4] = True  # 4 in each block of 24
    labels[48:72, 4] = False  # none in the middle block
    plan = decoding.make_plan(np.arange(120), 5, 4, 2)
    found = decoding.decode(X, labels, plan, n_permutations=19, rng=np.random.default_rng(1))
    assert found.reasons[0] == "0 of 120 rows have it, expected at least 10"
    assert found.reasons[1] == "0 of 120 rows are without it, expected at least 10"
    assert found.reasons[2] == "9 of 120 rows have it, expected at least 10"
    assert found.reasons[3].startswith("0 of 5 folds have enough rows with and without it")
    assert found.reasons[4:] == ("", "")
    np.testing.assert_array_equal(found.n_positive[:5], [0, 120, 9, 15, 16])
    np.testing.assert_array_equal(found.n_scored[:5], [0, 0, 0, 0, 4])
    for values in (found.accuracy, found.p, found.p_fwe, found.null_mean):
        assert np.isnan(values[:, :4]).all()
        assert np.isfinite(values[:, 4:]).all()
    assert np.isnan(found.accuracy_by_fold[:, 2, 4]).all()
    assert (found.C_index[:, 2, 4] == -1).all()
    mean = np.nanmean(found.accuracy_by_fold[:, :, 4], axis=1)
    np.testing.assert_allclose(found.accuracy[:, 4], mean)


def test_nothing_to_decode():
    X, labels = story()
    plan = decoding.make_plan(np.arange(120), 4, 3, 0)
    found = decoding.decode(X, labels & False, plan, rng=np.random.default_rng(0))
    assert np.isnan(found.accuracy).all()
    assert np.isnan(found.p).all()
    assert all(found.reasons)


def test_decisions_and_scores_agree():
    X, labels = story()
    plan = decoding.make_plan(np.arange(120), 4, 3, 3)
    found = decoding.decode(X, labels, plan, n_permutations=0, keep_decisions=True)
    assert np.isnan(found.p).all()
    for k, fold in enumerate(plan.outer):
        for head in range(2):
            share = decoding.balanced_accuracy(
                labels[fold.test], found.decision[head][fold.test] > 0
            )
            np.testing.assert_allclose(found.accuracy_by_fold[head, k], share)


def test_held_out_rows_do_not_matter_for_the_fit():
    """Nonsense in the test rows, their labels too, leaves the chosen C of that fold as it is."""
    X, labels = story(seed=3)
    plan = decoding.make_plan(np.arange(120), 4, 3, 3)
    other, changed = X.copy(), labels.copy()
    other[:, plan.outer[1].test] *= -50.0
    changed[plan.outer[1].test] = ~changed[plan.outer[1].test]
    found = [
        decoding.decode(*pair, plan, n_permutations=0, keep_decisions=True)
        for pair in ((X, labels), (X, changed), (other, labels))
    ]
    for again in found[1:]:
        np.testing.assert_array_equal(again.C_index[:, 1], found[0].C_index[:, 1])
    rows = plan.outer[1].test
    np.testing.assert_array_equal(found[1].decision[:, rows], found[0].decision[:, rows])


def test_heads_are_decoded_one_by_one():
    X, labels = story(n_heads=3)
    plan = decoding.make_plan(np.arange(120), 4, 3, 3)
    whole = decoding.decode(X, labels, plan, n_permutations=29, rng=np.random.default_rng(5))
    part = decoding.decode(X[1:2], labels, plan, n_permutations=29, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(whole.accuracy[1:2], part.accuracy)
    np.testing.assert_array_equal(whole.p[1:2], part.p)
    assert (whole.p_fwe >= whole.p).all()
    np.testing.assert_array_equal(part.p_fwe, part.p)


def test_equal_scores_take_the_strongest_penalty():
    X, labels = story()
    plan = decoding.make_plan(np.arange(120), 4, 3, 3)
    found = decoding.decode(X * 0, labels, plan, n_permutations=0)
    assert (found.C_index == 0).all()
    np.testing.assert_allclose(found.accuracy, 0.5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_rows=st.integers(90, 130),
    n_segments=st.integers(1, 4),
    min_shift=st.integers(1, 10),
)
def test_shifts_turn_segments_around(seed, n_rows, n_segments, min_shift):
    rng = np.random.default_rng(seed)
    orders = null.shifts(n_rows, n_segments, min_shift, 20, rng)
    assert orders.shape == (20, n_rows)
    for order in orders:
        for segment in np.array_split(np.arange(n_rows), n_segments):
            moved = order[segment]
            amount = (segment[0] - moved[0]) % len(segment)
            assert min_shift <= amount <= len(segment) - min_shift
            np.testing.assert_array_equal(moved, np.roll(segment, amount))


def test_every_shift_occurs():
    orders = null.shifts(30, 2, 5, 500, np.random.default_rng(0))
    assert set((0 - orders[:, 0]) % 15) == set(range(5, 11))
    assert len(np.unique(orders[:, [0, 15]], axis=0)) == 36


@pytest.mark.parametrize("penalise_intercept", [False, True])
def test_single_step_refits_by_the_textbook(penalise_intercept):
    """One Newton step from 0 with rows that weigh 1 in the Hessian, by linear algebra."""
    rng = np.random.default_rng(2)
    X, labels = rng.standard_normal((60, 4)) + 0.5, rng.random((60, 2)) < 0.3
    plan = decoding.make_plan(np.arange(60), 3, 2, 1)
    orders = null.shifts(60, 3, 4, 5, rng)
    C = 0.3
    chosen = np.zeros((3, 2), dtype=int)
    settings_ = null.Settings(np.array([C]), True, penalise_intercept, 5, 4)
    shifted = null._shift(labels, orders, plan.outer)
    found = null._accuracies(X, shifted, plan.outer, chosen, settings_)
    for i, order in enumerate(orders):
        by_fold = []
        for fold in plan.outer:
            x, y = X[fold.train], labels[order][fold.train]
            mean, sd = x.mean(0), x.std(0)
            z = np.column_stack([(x - mean) / sd, np.ones(len(x))])
            test = np.column_stack([(X[fold.test] - mean) / sd, np.ones(len(fold.test))])
            weight = np.where(y, len(y) / (2 * y.sum(0)), len(y) / (2 * (~y).sum(0)))
            penalty = np.eye(5) / C
            penalty[-1, -1] *= penalise_intercept
            step = np.linalg.solve(0.25 * z.T @ z + penalty, z.T @ (weight * (y - 0.5)))
            if not penalise_intercept:  # the intercept centres the weighted rows
                step[-1] = -((weight / len(y)).T @ z[:, :-1] * step[:-1].T).sum(axis=1)
            by_fold.append(decoding.balanced_accuracy(labels[order][fold.test], test @ step > 0))
        np.testing.assert_allclose(found[:, i], np.mean(by_fold, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((2, 5, 3))}, "for the plan's 120 rows"),
        ({"X": np.full((2, 120, 3), np.nan)}, "NaN or infinite"),
        ({"C": (1.0, 0.1)}, "increasing numbers above 0"),
        ({"rng": None}, "source of randomness"),
        ({"min_shift": 30}, "cannot be shifted by 30 rows"),
    ],
)
def test_refusals(change, message):
    X, labels = story()
    plan = decoding.make_plan(np.arange(120), 4, 3, 0)
    arguments = {"X": X, "labels": labels, "plan": plan, "n_permutations": 5,
                 "rng": np.random.default_rng(0)} | change
    with pytest.raises(NumericalError, match=message):
        decoding.decode(**arguments)


def test_too_few_rows_for_the_folds():
    with pytest.raises(NumericalError, match="expected at least 3 of each"):
        decoding.make_plan(np.arange(20), 5, 5, 6)
