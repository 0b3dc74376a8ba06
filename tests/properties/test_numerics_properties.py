"""Properties that hold for any input."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import multiple, ridge
from bids_brainlm.numerics.fir import delay
from bids_brainlm.numerics.folds import contiguous_folds, ranges

few = settings(derandomize=True, max_examples=40, deadline=None)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)
row_sets = st.sets(st.integers(0, 120), min_size=12, max_size=100).map(sorted).map(np.array)


@few
@given(row_sets, st.integers(2, 5), st.integers(0, 12))
def test_folds_are_disjoint_cover_and_keep_the_gap(rows, n_folds, gap):
    try:
        folds = contiguous_folds(rows, n_folds, gap, min_rows=1)
    except NumericalError:
        return
    np.testing.assert_array_equal(np.concatenate([fold.test for fold in folds]), rows)
    for fold in folds:
        distance = np.abs(fold.train[:, None] - fold.test).min(axis=1)
        assert (distance > gap).all()
        near = np.setdiff1d(rows, np.union1d(fold.train, fold.test))
        assert (np.abs(near[:, None] - fold.test).min(axis=1, initial=999) <= gap).all()
        assert set(fold.train).isdisjoint(fold.test)


@few
@given(row_sets)
def test_ranges_give_the_rows_back(rows):
    rebuilt = np.concatenate([np.arange(a, b + 1) for a, b in ranges(rows)])
    np.testing.assert_array_equal(rebuilt, rows)


@few
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.integers(0, 6),
)
def test_delay_and_shift_commute(seed, delays, shift):
    x = np.random.default_rng(seed).standard_normal((25, 2))
    shifted = np.vstack([np.zeros((shift, 2)), x])
    expected = np.vstack([np.zeros((shift, 2 * len(delays))), delay(x, delays)])
    np.testing.assert_array_equal(delay(shifted, delays), expected)


@few
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(6, 12), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_nothing_crosses_a_run_border(seed, lengths, delays):
    rng = np.random.default_rng(seed)
    runs = [rng.standard_normal((length, 3)) for length in lengths]
    starts = np.r_[0, np.cumsum(lengths)[:-1]]
    together = delay(np.vstack(runs), delays, starts)
    np.testing.assert_array_equal(together, np.vstack([delay(run, delays) for run in runs]))


@few
@given(probabilities, st.integers(0, 2**31))
def test_fdr_is_monotone_and_order_free(p, seed):
    order = np.random.default_rng(seed).permutation(p.size)
    for function in (multiple.benjamini_hochberg, multiple.benjamini_yekutieli):
        q = function(p)
        assert (q >= p * (1 - 1e-12)).all()
        assert (q <= 1).all()
        assert (np.diff(q[np.argsort(p)]) >= 0).all()
        np.testing.assert_array_equal(function(p[order]), q[order])


@few
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**31))
def test_band_weights_lie_on_the_simplex(n_bands, n_iter, seed):
    gammas = ridge.sample_gammas(n_bands, n_iter, np.random.default_rng(seed))
    assert gammas.shape == (n_iter, n_bands)
    assert (gammas >= 0).all()
    np.testing.assert_allclose(gammas.sum(axis=1), 1.0)
    np.testing.assert_allclose(gammas[0], 1 / n_bands)
