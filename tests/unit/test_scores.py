"""Scores against scipy and scikit-learn, with their edge cases."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.scores import fisher_mean, pearson, r2


def test_pearson_equals_scipy(rng):
    a, b = rng.standard_normal((2, 40, 5)) + 100.0
    expected = [pearsonr(a[:, i], b[:, i]).statistic for i in range(5)]
    np.testing.assert_allclose(pearson(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(pearson(a[:, 0], b[:, 0]), expected[0])
    assert pearson(a, a).max() <= 1.0


def test_pearson_over_more_dimensions(rng):
    parts, target = rng.standard_normal((4, 40, 5)), rng.standard_normal((40, 5))
    r = pearson(parts.swapaxes(0, 1), target[:, None])
    assert r.shape == (4, 5)
    np.testing.assert_allclose(r[2], pearson(parts[2], target))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3])
def test_constant_and_nan_series_have_no_correlation(rng, value):
    a, b = rng.standard_normal((2, 33, 3))
    a[:, 1] = value
    b[4, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(pearson(a, b)), [False, True, True])


def test_r2_uses_the_training_mean(rng):
    target, prediction = rng.standard_normal((2, 30, 3))
    np.testing.assert_allclose(
        r2(target, prediction, target.mean(0)),
        r2_score(target, prediction, multioutput="raw_values"),
    )
    np.testing.assert_allclose(r2(target, np.full((30, 3), 0.5), 0.5), 0.0, atol=1e-12)
    assert (r2(target, 5 * prediction, 0.0) < -1).all()
    assert np.isnan(r2(np.full((9, 1), 2.0), np.zeros((9, 1)), 2.0)).all()


def test_fisher_mean():
    values = np.array([[0.2, np.nan, 1.0], [0.6, np.nan, np.nan]])
    mean = fisher_mean(values)
    assert mean[0] == pytest.approx(np.tanh((np.arctanh(0.2) + np.arctanh(0.6)) / 2))
    assert np.isnan(mean[1])
    assert mean[2] == pytest.approx(1.0)
    assert fisher_mean(values, axis=(0, 1)).shape == ()


def test_messages():
    with pytest.raises(NumericalError, match="3 and 4 rows"):
        pearson(np.ones(3), np.ones(4))
    with pytest.raises(NumericalError, match="shape"):
        r2(np.ones((3, 1)), np.ones((3, 2)), 0.0)
