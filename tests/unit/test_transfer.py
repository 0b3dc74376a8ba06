"""Blocks of rows on one axis: nothing reaches over a border, and whole sources are left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import design, fir, folds, transfer

SETTINGS = {
    "inner_cv": 3, "gap": 2, "trim": (1, 2), "n_iter": 4, "alphas": (1.0, 100.0),
    "delays": (2, 3, 5), "seed": 7, "selection_score": "r2", "test_scaling": "train",
    "intercept": "train", "kernel_scaling": "trace",
}  # fmt: skip
APART = 6
LENGTHS = st.lists(st.integers(25, 60), min_size=2, max_size=7)


def _plan(lengths, sources, texts=None, **changes):
    where = transfer.places(lengths, APART)
    return where, transfer.make_plan(where, sources, 2, {**SETTINGS, **changes}, texts)


def _block_of(rows, where):
    """Number of the block that each row lies in; every row must lie in one."""
    inside = np.array([(rows >= w.start) & (rows < w.stop) for w in where])
    assert (inside.sum(axis=0) == 1).all()
    return inside.argmax(axis=0)


def _used(where):
    """Rows of every block without the trimmed ones."""
    first, last = SETTINGS["trim"]
    return [np.arange(w.start + first, w.stop - last) for w in where]


@given(LENGTHS, st.integers(0, 9))
def test_places_keep_lengths_and_order_and_lie_apart(lengths, apart):
    where = transfer.places(lengths, apart)
    assert [w.stop - w.start for w in where] == lengths
    assert where[0].start == 0
    assert all(b.start - a.stop == apart for a, b in pairwise(where))


@given(LENGTHS)
def test_stacked_series_are_the_blocks_and_nothing_between(lengths):
    rng = np.random.default_rng(len(lengths))
    parts = [rng.standard_normal((n, 2)) + 9 for n in lengths]
    where = transfer.places(lengths, APART)
    whole = transfer.stack(parts, where)
    assert len(whole) == sum(lengths) + APART * (len(lengths) - 1)
    for part, rows in zip(parts, where, strict=True):
        np.testing.assert_array_equal(whole[rows], part)
    between = np.setdiff1d(np.arange(len(whole)), np.concatenate([np.r_[w] for w in where]))
    assert not whole[between].any()


def _bands(rng, lengths, *, scaled=True, width=3):
    made = []
    for n in lengths:
        valid = rng.random(n) > 0.2
        features = np.where(valid[:, None], rng.standard_normal((n, width)) + 50, 0.0)
        made.append([design.Band("model", features, valid, scaled)])
    return made


@settings(max_examples=30, deadline=None)
@given(
    LENGTHS,
    st.lists(st.integers(0, APART - 1), min_size=1, max_size=4, unique=True),
    st.booleans(),
    st.sampled_from(["train", "none"]),
)
def test_delays_never_reach_over_a_border(lengths, delays, scaled, test_scaling):
    """Rows of a block in the stacked design are those of the block alone, scaled alike."""
    rng = np.random.default_rng(sum(lengths))
    blocks = _bands(rng, lengths, scaled=scaled)
    where = transfer.places(lengths, APART)
    (band,) = transfer.stack_bands(blocks, where)
    assert not band.valid.all()
    rows = _used(where)
    train = np.concatenate(rows[1:])
    made = design.fold_design(
        band, folds.Fold(train, rows[0]), delays, test_scaling=test_scaling, common_scale=False
    )
    known = np.concatenate(
        [one.features[1:-2][one.valid[1:-2]] for (one,) in blocks[1:]]
    )  # training rows with words; 1 and 2 rows are trimmed
    mean, scale = (known.mean(axis=0), known.std(axis=0)) if scaled else (0.0, 1.0)
    alone = []
    for number, (one,) in enumerate(blocks):
        raw = number == 0 and test_scaling == "none"
        values = one.features if raw else (one.features - mean) / scale
        alone.append(fir.delay(np.where(one.valid[:, None], values, 0.0), delays)[1:-2])
    expected = np.concatenate(alone[1:])
    centre = expected.mean(axis=0)
    np.testing.assert_allclose(made[0], expected - centre, atol=1e-9)
    np.testing.assert_allclose(made[1], alone[0] - centre, atol=1e-9)


@pytest.mark.parametrize("width", [2, 4])
def test_bands_with_unlike_columns_are_refused(rng, width):
    blocks = [*_bands(rng, [30]), *_bands(rng, [30], width=width)]
    with pytest.raises(NumericalError, match=f"model with {width} columns") as raised:
        transfer.stack_bands(blocks, transfer.places([30, 30], APART))
    assert "--across none" in raised.value.hint


def test_other_bands_are_refused(rng):
    (one,), (model,) = _bands(rng, [30, 30])
    other = design.Band("counts", model.features, model.valid)
    where = transfer.places([30, 30], APART)
    with pytest.raises(NumericalError, match="counts with 3 columns, model with 3 columns"):
        transfer.stack_bands([[one], [other]], where)
    with pytest.raises(NumericalError, match="bands: counts with 3 columns; expected"):
        transfer.stack_bands([[one, other], [model]], where)


SOURCES = st.lists(
    st.tuples(st.integers(25, 60), st.sampled_from("bcdefg")), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.integers(25, 60), st.integers(2, 4))
def test_folds_of_any_stories(trained, tested, inner_cv):
    """The tested story is never trained on; inner folds are whole stories, each left out once."""
    lengths = [tested, *[n for n, _ in trained]]
    sources = ["a", *[s for _, s in trained]]
    where, plan = _plan(lengths, sources, inner_cv=inner_cv, gap=1)
    used = _used(where)
    (outer,), (inner,) = plan.outer, plan.inner
    np.testing.assert_array_equal(outer.test, used[0])
    np.testing.assert_array_equal(outer.train, np.concatenate(used[1:]))
    owner = np.array(sources)[_block_of(outer.train, where)]
    assert "a" not in owner
    tests = np.concatenate([fold.test for fold in inner])
    np.testing.assert_array_equal(np.sort(tests), np.arange(len(outer.train)))
    n_sources = len(set(owner))
    assert len(inner) == (inner_cv if n_sources == 1 else min(inner_cv, n_sources))
    for fold in inner:
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.test) > 0).all()
        assert not set(fold.train) & set(fold.test)
        if n_sources > 1:
            assert not set(owner[fold.train]) & set(owner[fold.test])
            assert len(fold.train) + len(fold.test) == len(outer.train)
    assert plan.rows.tolist() == used[0].tolist()
    assert plan.segments == [slice(0, len(used[0]))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(25, 200), min_size=3, max_size=9), st.integers(2, 4))
def test_inner_folds_are_balanced(lengths, inner_cv):
    """No fold could give away its smallest story and stay longer than the other was."""
    _, plan = _plan([30, *lengths], ["a", *map(str, range(len(lengths)))], inner_cv=inner_cv)
    used = [n - 3 for n in lengths]
    sizes = [len(fold.test) for fold in plan.inner[0]]
    assert sum(sizes) == sum(used)
    assert max(sizes) - min(sizes) <= max(used)
    assert max(sizes) <= max(max(used), 4 / 3 * sum(used) / len(sizes) + max(used) / 3)


def test_five_like_stories_leave_out_one_each():
    where, plan = _plan([40] * 6, list("abcdef"), inner_cv=5)
    blocks = [_block_of(plan.outer[0].train[f.test], where) for f in plan.inner[0]]
    assert sorted(set(b).pop() for b in blocks if len(set(b)) == 1) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("gap", [0, 2, 5])
def test_one_training_story_is_divided_with_the_gap(gap):
    where, plan = _plan([40, 60], ["a", "b"], gap=gap)
    train = plan.outer[0].train
    expected = folds.contiguous_folds(np.arange(where[1].start + 1, where[1].stop - 2), 3, gap)
    for fold, wanted in zip(plan.inner[0], expected, strict=True):
        np.testing.assert_array_equal(train[fold.test], wanted.test)
        np.testing.assert_array_equal(train[fold.train], wanted.train)
        apart = np.abs(np.subtract.outer(train[fold.train], train[fold.test])).min()
        assert apart == gap + 1


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 60), st.integers(15, 60), st.integers(2, 4), st.integers(0, 3))
def test_the_same_words_of_all_hearings_are_left_out_together(long, short, inner_cv, gap):
    """Also where one run ended early: rows count from the start of the story."""
    where, plan = _plan([40, long, short, long], ["a", "b", "b", "b"], inner_cv=inner_cv, gap=gap)
    train = plan.outer[0].train
    starts = np.array([w.start for w in where])
    heard = train - starts[_block_of(train, where)]
    tested = []
    for fold in plan.inner[0]:
        apart = np.abs(np.subtract.outer(heard[fold.train], heard[fold.test])).min()
        assert apart > gap
        tested.append(fold.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(train)))


def test_stories_of_one_training_run_are_divided_each_for_itself():
    where, plan = _plan([40, 60, 20], ["run-1", "run-2", "run-2"], ["a", "b", "c"], gap=1)
    train = plan.outer[0].train
    of = _block_of(train, where)
    sizes = [[int((of[f.test] == b).sum()) for b in (1, 2)] for f in plan.inner[0]]
    assert sizes == [[19, 6], [19, 6], [19, 5]]


def test_settings_reach_the_plan():
    _, plan = _plan([40, 50, 50], list("abc"))
    assert plan.delays == (2, 3, 5)
    np.testing.assert_array_equal(plan.alphas, [1.0, 100.0])
    assert plan.gammas[0].shape == (4, 2)
    assert (plan.score, plan.test_scaling, plan.centre, plan.common_scale) == (
        "r2", "train", True, True,
    )  # fmt: skip
    _, other = _plan([40, 50, 50], list("abc"), seed=8, intercept="none", kernel_scaling="none")
    assert not np.array_equal(plan.gammas[0][1:], other.gammas[0][1:])
    assert (other.centre, other.common_scale) == (False, False)


@pytest.mark.parametrize(
    ("lengths", "sources", "words"),
    [
        ([40], ["a"], "0 blocks to train on for a"),
        ([40, 40], ["a", "a"], "none of what is tested"),
        ([40, 40, 40], ["a", "b", "a"], "none of what is tested"),
        ([40, 5, 40], ["a", "b", "c"], "b has 2 rows after trimming"),
        ([2, 40, 40], ["a", "b", "c"], "a has 0 rows after trimming"),
        ([40, 8], ["a", "b"], "Fold 1 of 3"),
    ],
)
def test_wrong_blocks_are_named(lengths, sources, words):
    with pytest.raises(NumericalError, match=words):
        _plan(lengths, sources)


@pytest.mark.parametrize("change", [{"delays": (2, APART)}, {"gap": APART}])
def test_blocks_must_lie_as_far_apart_as_delays_and_gaps_reach(change):
    lengths = [40, 40, 40]
    where = transfer.places(lengths, APART - 1)
    with pytest.raises(NumericalError, match=f"fewer than {APART} rows apart"):
        transfer.make_plan(where, list("abc"), 2, {**SETTINGS, **change})
    _plan(lengths, list("abc"), **change)
