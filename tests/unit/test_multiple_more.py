"""Holm and Benjamini-Yekutieli against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.multiple_more import benjamini_yekutieli, holm

METHODS = [(holm, "holm"), (benjamini_yekutieli, "fdr_by")]


@pytest.mark.parametrize(("adjust", "method"), METHODS)
@pytest.mark.parametrize("power", [1, 4, 20])
@pytest.mark.parametrize("n_tests", [1, 2, 17, 300])
def test_equals_statsmodels(adjust, method, n_tests, power, rng):
    p = rng.random(n_tests) ** power
    p[n_tests // 3 : n_tests // 2] = p[0]  # ties
    np.testing.assert_allclose(adjust(p), multipletests(p, method=method)[1], rtol=1e-12)


@pytest.mark.parametrize(("adjust", "method"), METHODS)
def test_zero_and_one(adjust, method):
    p = np.array([0.0, 1.0, 0.0, 0.5])
    np.testing.assert_allclose(adjust(p), multipletests(p, method=method)[1])


@pytest.mark.parametrize(("adjust", "method"), METHODS)
def test_nan_are_not_tests_and_columns_are_families(adjust, method, rng):
    p = rng.random((30, 3)) ** 3
    p[4:9, 1] = np.nan
    p[:, 2] = np.nan
    adjusted = adjust(p, axis=0)
    np.testing.assert_allclose(adjusted[:, 0], multipletests(p[:, 0], method=method)[1])
    known = ~np.isnan(p[:, 1])
    np.testing.assert_allclose(adjusted[known, 1], multipletests(p[known, 1], method=method)[1])
    assert np.isnan(adjusted[~known, 1]).all()
    assert np.isnan(adjusted[:, 2]).all()
    whole = adjust(p)
    known = ~np.isnan(p)
    np.testing.assert_allclose(whole[known], multipletests(p[known], method=method)[1])
    assert whole.shape == p.shape


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_wrong_values_are_refused():
    with pytest.raises(NumericalError, match="outside 0 to 1"):
        holm(np.array([0.5, 1.2]))
    with pytest.raises(NumericalError, match="axis 1"):
        holm(np.ones((2, 2)), axis=1)
