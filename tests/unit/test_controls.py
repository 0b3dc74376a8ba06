"""Features without content: what they hold, and that they find leaks and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import controls
from bids_brainlm.numerics.folds import contiguous_folds
from bids_brainlm.numerics.scores import pearson

few = settings(derandomize=True, max_examples=40, deadline=None)


def test_position_by_hand():
    expected = [[-0.5, 0.125], [-0.25, -0.0625], [0, -0.125], [0.25, -0.0625], [0.5, 0.125]]
    np.testing.assert_allclose(controls.position(5), expected, atol=1e-15)


@pytest.mark.parametrize("n_trs", [1, 2, 3, 200, 601])
def test_position_columns_are_centred_and_orthogonal_and_span_the_parabolas(n_trs):
    found = controls.position(n_trs)
    assert found.shape == (n_trs, len(controls.POSITION_COLUMNS))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-15)
    assert found[:, 0] @ found[:, 1] == pytest.approx(0, abs=1e-12)
    if n_trs > 2:
        t = np.linspace(0, 1, n_trs)
        design = np.column_stack([np.ones(n_trs), found])
        parabola = 3 - 2 * t + 5 * t**2
        weights = np.linalg.lstsq(design, parabola, rcond=None)[0]
        np.testing.assert_allclose(design @ weights, parabola, atol=1e-12)


@pytest.mark.parametrize(("n_trs", "sigma"), [(1, 1.0), (30, 0.0), (40, 0.3), (40, 2.0), (25, 9.5)])
def test_oasm_is_the_blurred_identity(n_trs, sigma):
    expected = np.identity(n_trs)
    if sigma:
        expected = gaussian_filter1d(expected, sigma, axis=0, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(controls.oasm(n_trs, sigma), expected, atol=1e-14)


def test_oasm_blocks_are_apart():
    found = controls.oasm(12, 1.5, borders=(0, 5, 7))
    block = np.repeat([0, 1, 2], [5, 2, 5])
    np.testing.assert_array_equal(found[block[:, None] != block], 0)
    for size, first in ((5, 0), (2, 5), (5, 7)):
        part = found[first : first + size, first : first + size]
        np.testing.assert_array_equal(part, controls.oasm(size, 1.5))
    np.testing.assert_array_equal(controls.oasm(12, 1.5, borders=(7, 5, 12, 5)), found)


@few
@given(st.integers(1, 60), st.floats(0, 1), st.sets(st.integers(0, 60), max_size=4))
def test_oasm_is_symmetric_and_sums_to_one(n_trs, share, borders):
    borders = [border for border in borders if border <= n_trs]
    found = controls.oasm(n_trs, share * n_trs, borders=borders)
    np.testing.assert_allclose(found, found.T, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-12)
    assert (found >= 0).all()


def test_oasm_rows_share_nothing_beyond_two_radii():
    found = controls.oasm(100, 2.0)
    shared = found @ found.T
    distance = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    assert (shared[distance > 16] == 0).all()
    assert (shared[distance <= 16] > 0).all()


def _slow_series(n_trs, n_targets, seed=0):
    """AR(1) noise with lag-1 correlation .95 after a burn-in."""
    noise = np.random.default_rng(seed).standard_normal((n_trs + 200, n_targets))
    return lfilter([1], [1, -0.95], noise, axis=0)[200:]


def _held_out(features, series, splits):
    """Mean over folds and targets of the held-out r; 0 where a prediction is constant."""
    scores = []
    for train, test in splits:
        ridge = Ridge(alpha=0.1).fit(features[train], series[train])
        prediction = ridge.predict(features[test])
        constant = np.ptp(prediction, axis=0) < 1e-9
        r = pearson(np.where(constant, 0.0, prediction), series[test])
        scores.append(np.where(constant, 0.0, r))
    return np.mean(scores)


def _contiguous(n_trs, gap):
    return [(fold.train, fold.test) for fold in contiguous_folds(np.arange(n_trs), 5, gap)]


def test_oasm_finds_the_leak_of_shuffled_splits_and_scores_zero_with_a_gap():
    n_trs = 400
    features, series = controls.oasm(n_trs, 2.0), _slow_series(n_trs, 100)
    shuffled = KFold(5, shuffle=True, random_state=1).split(series)
    assert _held_out(features, series, shuffled) > 0.9
    assert _held_out(features, series, _contiguous(n_trs, gap=16)) == 0
    leak = _held_out(features, series, _contiguous(n_trs, gap=0))
    assert abs(leak) > 1e-6  # rows beside a test block still tell something without a gap


def test_oasm_of_blocks_does_not_leak_across_their_borders():
    n_trs, border = 300, 150
    features = controls.oasm(n_trs, 3.0, borders=[border])
    rows = np.arange(n_trs)
    splits = [(rows[:border], rows[border:]), (rows[border:], rows[:border])]
    assert _held_out(features, _slow_series(n_trs, 20, seed=4), splits) == 0


@pytest.mark.parametrize("n_trs", [0, -3])
def test_no_rows(n_trs):
    with pytest.raises(NumericalError, match="expected at least 1"):
        controls.position(n_trs)
    with pytest.raises(NumericalError, match="expected at least 1"):
        controls.oasm(n_trs, 1.0)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), 11.0])
def test_wrong_widths(sigma):
    with pytest.raises(NumericalError, match="expected 0 to 10 TRs"):
        controls.oasm(10, sigma)


@pytest.mark.parametrize("borders", [(-1,), (11,), (2.5,)])
def test_wrong_borders(borders):
    with pytest.raises(NumericalError, match="Blocks begin"):
        controls.oasm(10, 1.0, borders=borders)
