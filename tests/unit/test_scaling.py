"""Scaling: statistics from the training rows only, constant columns, rows without value."""

import numpy as np
import pytest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import scaling


def test_fit_on_training_rows_and_apply_to_test_rows(rng):
    x = rng.normal(3.0, 2.0, (50, 4))
    train, test = np.arange(30), np.arange(30, 50)
    scaler = scaling.fit(x, train)
    z = scaling.apply(x, scaler)
    np.testing.assert_allclose(z[train].mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(z[train].std(0), 1.0)
    np.testing.assert_allclose(z[test], (x[test] - x[train].mean(0)) / x[train].std(0))
    x[test] = 1e9
    np.testing.assert_array_equal(scaling.fit(x, train).mean, scaler.mean)


def test_ddof(rng):
    x = rng.standard_normal((20, 2))
    np.testing.assert_allclose(scaling.fit(x, np.arange(20), ddof=1).sd, x.std(0, ddof=1))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3])
def test_constant_columns_become_zero(value):
    x = np.full((37, 2), value)
    x[:, 1] = np.arange(37)
    z = scaling.apply(x, scaling.fit(x, np.arange(37)))
    np.testing.assert_allclose(z[:, 0], 0.0, atol=1e-6)
    assert z[:, 1].std() == pytest.approx(1.0)


def test_small_columns_are_not_constant(rng):
    x = 1e-9 * rng.standard_normal((30, 1))
    assert scaling.apply(x, scaling.fit(x, np.arange(30))).std() == pytest.approx(1.0)


def test_rows_without_value_are_left_out(rng):
    x = rng.standard_normal((20, 3)).astype(np.float32)
    valid = np.ones(20, dtype=bool)
    valid[[2, 5]] = False
    x[~valid] = np.nan
    scaler = scaling.fit(x, np.arange(15), valid)
    rows = np.setdiff1d(np.arange(15), [2, 5])
    np.testing.assert_allclose(scaler.mean, x[rows].astype(float).mean(0))
    assert scaler.mean.dtype == np.float64
    assert np.isnan(scaling.apply(x, scaler)[2]).all()


def test_messages(rng):
    x = rng.standard_normal((10, 2))
    with pytest.raises(NumericalError, match="0 training rows"):
        scaling.fit(x, np.arange(5), np.zeros(10, dtype=bool))
    x[3, 1] = np.nan
    with pytest.raises(NumericalError, match="1 of 2 columns"):
        scaling.fit(x, np.arange(5))
    scaler = scaling.fit(x, np.arange(3))
    with pytest.raises(NumericalError, match="expected 2"):
        scaling.apply(x[:, :1], scaler)
