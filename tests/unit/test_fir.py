"""Delays: order, zeros without history, run borders, messages."""

import numpy as np
import pytest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.fir import delay


def test_delay_major_order_and_zeros():
    x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    expected = [[0, 0, 1, 10], [1, 10, 2, 20], [2, 20, 3, 30]]
    np.testing.assert_array_equal(delay(x, (1, 0)), expected)


def test_an_impulse_comes_out_once_per_delay(rng):
    x = np.zeros((20, 3))
    x[7, 1] = 1.0
    rows, columns = np.nonzero(delay(x, (2, 3, 4, 5)))
    np.testing.assert_array_equal(rows, [9, 10, 11, 12])
    np.testing.assert_array_equal(columns, [1, 4, 7, 10])


def test_nothing_crosses_a_run_border():
    x = np.arange(1.0, 9.0)[:, None]
    np.testing.assert_array_equal(delay(x, (2,), (0, 4))[:, 0], [0, 0, 1, 2, 0, 0, 5, 6])


def test_dtype_and_input_are_kept():
    x = np.ones((5, 1), dtype=np.float32)
    assert delay(x, (1,)).dtype == np.float32
    assert x.all()


@pytest.mark.parametrize("bad", [-1, 4, 100])
def test_impossible_delays(bad):
    with pytest.raises(NumericalError, match="shortest run has 4 TRs"):
        delay(np.ones((10, 1)), (1, bad), (0, 6))


@pytest.mark.parametrize("starts", [(1,), (0, 5, 5), (0, 10), ()])
def test_impossible_run_starts(starts):
    with pytest.raises(NumericalError, match="Runs start"):
        delay(np.ones((10, 1)), (1,), starts)


def test_one_dimension_is_refused():
    with pytest.raises(NumericalError, match="1 dimensions"):
        delay(np.ones(10), (1,))
