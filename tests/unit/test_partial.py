"""Partial correlation: statsmodels, the textbook formula, degenerate series, messages."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, resampling
from bids_brainlm.numerics.partial import mean_partial_r, partial_r, residuals


@pytest.fixture
def series(rng):
    """Return data, prediction and other: correlated, with offsets, (60 rows, 5 targets)."""
    latent = rng.standard_normal((60, 5))
    return [latent * w + rng.standard_normal((60, 5)) + 3.0 * w for w in (0.5, 1.0, -2.0)]


def _ols(data, control):
    return sm.OLS(data, sm.add_constant(control)).fit().resid


def test_equals_correlated_residuals_of_statsmodels(series):
    data, prediction, other = series
    expected = [
        stats.pearsonr(_ols(data[:, k], other[:, k]), _ols(prediction[:, k], other[:, k])).statistic
        for k in range(5)
    ]
    np.testing.assert_allclose(partial_r(*series), expected, atol=1e-12)


def test_equals_the_formula_of_three_correlations_and_the_precision_matrix(series):
    for k, found in enumerate(partial_r(*series)):
        r = np.corrcoef([s[:, k] for s in series])
        formula = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
        inverse = np.linalg.inv(r)
        assert found == pytest.approx(formula, abs=1e-12)
        assert found == pytest.approx(
            -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]), abs=1e-12
        )


def test_constant_other_gives_plain_r(series):
    data, prediction, other = series
    plain = [stats.pearsonr(data[:, k], prediction[:, k]).statistic for k in range(5)]
    np.testing.assert_allclose(partial_r(data, prediction, np.full_like(other, 0.1)), plain)
    np.testing.assert_allclose(partial_r(data, prediction, np.zeros_like(other)), plain)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_of_its_own_gives_exactly_0(series, dtype):
    data, _, other = (s.astype(dtype) for s in series)
    for prediction in (np.full_like(data, 0.3), other, dtype(-0.3) * other + dtype(0.7)):
        assert (partial_r(data, prediction, other) == 0).all()
        assert (partial_r(prediction, data, other) == 0).all()


def test_a_small_part_of_its_own_still_counts(series):
    """Nearly collinear is not collinear."""
    data, _, other = series
    own = np.random.default_rng(0).standard_normal(other.shape)
    found = partial_r(data, other + 1e-6 * own, other)
    np.testing.assert_allclose(found, partial_r(data, own, other), atol=1e-6)


def test_nan_stays_in_its_target(series):
    whole = partial_r(*series)
    for k in range(3):
        series[k][7, k] = np.nan
    found = partial_r(*series)
    assert np.isnan(found).tolist() == [True, True, True, False, False]
    np.testing.assert_array_equal(found[3:], whole[3:])
    left, seen = residuals(*[[s] for s in series])
    assert np.isnan(left).all(axis=0).tolist() == np.isnan(seen).all(axis=0).tolist()
    assert np.isnan(left).any(axis=0).tolist() == [True, True, True, False, False]


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(float, (3, 12, 2), elements=st.floats(-5, 5).map(lambda x: round(x, 2))),
    st.floats(0.1, 10),
    st.floats(-3, 3),
)
def test_scale_and_shares_of_the_other_do_not_matter(values, scale, share):
    data, prediction, other = values
    found = partial_r(data, prediction, other)
    assert (np.abs(found) <= 1).all()
    np.testing.assert_allclose(found, partial_r(prediction, data, other), atol=1e-12)
    left, _ = residuals([data], [prediction], [other])
    clear = left.std(axis=0) > 1e-3
    moved = partial_r(data, scale * prediction + share * other + 2.0, other)
    np.testing.assert_allclose(moved[clear], found[clear], atol=1e-6)


def test_each_fold_counts_once(rng):
    folds = [rng.standard_normal((3, n, 4)) for n in (20, 20, 90)]
    folds[1][1, :, 0] = 2.0
    data, predictions, others = ([fold[k] for fold in folds] for k in range(3))
    found = mean_partial_r(data, predictions, others)
    np.testing.assert_allclose(found, sum(partial_r(*fold) for fold in folds) / 3)
    flat = [np.ones_like(other) for other in others]
    np.testing.assert_allclose(
        mean_partial_r(data, predictions, flat), crossval.mean_r(predictions, data)
    )


def test_residuals_are_those_of_each_fold_but_for_the_intercept(rng):
    folds = [rng.standard_normal((3, n, 2)) + 4.0 for n in (30, 41)]
    data, predictions, others = ([fold[k] for fold in folds] for k in range(3))
    left, seen = residuals(data, predictions, others)
    assert left.shape == seen.shape == (71, 2)
    for rows, fold in zip((slice(0, 30), slice(30, 71)), folds, strict=True):
        for k in range(2):
            fit = sm.OLS(fold[1][:, k], sm.add_constant(fold[2][:, k])).fit()
            np.testing.assert_allclose(left[rows, k], fit.resid + fit.params[0], atol=1e-10)
            expected = _ols(fold[0][:, k], fold[2][:, k])
            np.testing.assert_allclose(seen[rows, k], expected, atol=1e-10)


def test_residuals_fit_the_block_permutation(rng):
    folds = [rng.standard_normal((3, 40, 3)) for _ in range(4)]
    for fold in folds:
        fold[1][:, 2] = 2.0 * fold[2][:, 2] + 1.0  # nothing of its own
    data, predictions, others = ([fold[k] for fold in folds] for k in range(3))
    segments = [slice(40 * k, 40 * k + 40) for k in range(4)]
    result = resampling.block_permutation_test(
        *residuals(data, predictions, others),
        block_length=5,
        n_permutations=99,
        rng=rng,
        segments=segments,
    )
    expected = mean_partial_r(data, predictions, others)
    np.testing.assert_allclose(result.observed[:2], expected[:2], atol=1e-12)
    assert np.isnan(result.p).tolist() == [False, False, True]


def test_messages(rng):
    with pytest.raises(NumericalError, match=r"\(10, 2\).*\(10, 3\)"):
        partial_r(*(rng.standard_normal((10, n)) for n in (2, 3, 2)))
    with pytest.raises(NumericalError, match="at least 4 rows"):
        partial_r(*rng.standard_normal((3, 3, 2)))
    one = [rng.standard_normal((10, 2))]
    with pytest.raises(NumericalError, match="data of 1 folds and predictions of 2 and 1"):
        mean_partial_r(one, one * 2, one)
    with pytest.raises(NumericalError, match="at least 1"):
        residuals([], [], [])
