"""FDR against scipy and statsmodels."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.multiple import benjamini_hochberg, benjamini_yekutieli


@pytest.mark.parametrize(
    ("function", "scipy_name", "statsmodels_name"),
    [(benjamini_hochberg, "bh", "fdr_bh"), (benjamini_yekutieli, "by", "fdr_by")],
)
def test_equals_peers(rng, function, scipy_name, statsmodels_name):
    p = rng.uniform(size=200) ** 2
    p[:20] = p[20:40]
    np.testing.assert_allclose(function(p), false_discovery_control(p, method=scipy_name))
    np.testing.assert_allclose(function(p), multipletests(p, method=statsmodels_name)[1])
    table = p.reshape(50, 4)
    expected = false_discovery_control(table, axis=0, method=scipy_name)
    np.testing.assert_allclose(function(table, axis=0), expected)
    np.testing.assert_allclose(function(table).ravel(), function(p))


@pytest.mark.parametrize("function", [benjamini_hochberg, benjamini_yekutieli])
def test_nan_are_not_tests(rng, function):
    p = rng.uniform(size=(30, 2))
    holes = p.copy()
    holes[[3, 7], 0] = np.nan
    holes[:, 1] = np.nan
    keep = ~np.isnan(holes[:, 0])
    q = function(holes, axis=0)
    np.testing.assert_allclose(q[keep, 0], function(p[keep, 0]))
    assert np.isnan(q[~keep, 0]).all()
    assert np.isnan(q[:, 1]).all()
    np.testing.assert_allclose(function(holes)[keep, 0], function(p[keep, 0]))


def test_messages():
    with pytest.raises(NumericalError, match="outside"):
        benjamini_hochberg(np.array([0.2, 1.2]))
    with pytest.raises(NumericalError, match="axis"):
        benjamini_hochberg(np.array([0.2, 0.3]), axis=1)
