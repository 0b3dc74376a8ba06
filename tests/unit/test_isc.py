"""Intersubject correlation: edge cases and what is left where there is no signal."""

import numpy as np
import pytest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import isc
from bids_brainlm.numerics.isc import leave_groups_out, leave_one_out


def test_two_participants_are_a_plain_correlation(rng):
    series = rng.standard_normal((2, 50, 4)) + rng.standard_normal((50, 4))
    expected = [np.corrcoef(series[0, :, v], series[1, :, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(leave_one_out(series), [expected, expected], atol=1e-12)


def test_noise_is_zero_without_oneself_and_one_over_root_n_with_oneself(rng):
    series = rng.standard_normal((25, 200, 300))
    assert abs(leave_one_out(series).mean()) < 0.005
    assert leave_one_out(series, include_self=True).mean() == pytest.approx(0.2, abs=0.005)


def test_scale_of_a_participant_does_not_matter(rng):
    series = rng.standard_normal((5, 60, 3)) + rng.standard_normal((60, 3))
    scaled = series * np.array([1, 10, 100, 1, 0.01])[:, None, None] + 7.0
    np.testing.assert_allclose(leave_one_out(scaled), leave_one_out(series), atol=1e-9)


def test_blocks_of_parcels_do_not_change_the_result(rng, monkeypatch):
    series = rng.standard_normal((4, 40, 11))
    whole = leave_one_out(series, n_segments=3)
    monkeypatch.setattr(isc, "_PARCELS_PER_BLOCK", 4)
    np.testing.assert_allclose(leave_one_out(series, n_segments=3), whole, atol=1e-12)


def test_absent_series_are_left_out(rng):
    series = rng.standard_normal((4, 40, 3)) + rng.standard_normal((40, 3))
    expected = leave_one_out(series[1:])
    series[0, :, 0] = 5.0
    series[0, 3, 1] = np.nan
    series[1:, :, 2] = np.nan
    result = leave_one_out(series)
    assert np.isnan(result[0]).all()
    np.testing.assert_allclose(result[1:, :2], expected[:, :2], atol=1e-12)
    assert np.isnan(result[:, 2]).all()


def test_messages(rng):
    with pytest.raises(NumericalError, match="n_participants"):
        leave_one_out(rng.standard_normal((1, 20, 3)))
    with pytest.raises(NumericalError, match="segments"):
        leave_one_out(rng.standard_normal((3, 8, 3)), n_segments=3)


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_sums_are_as_exact_as_centred_series(rng, dtype, bound, include_self, by_time):
    """70 parcels are more than a block; loops in float64 are the reference."""
    series = rng.standard_normal((6, 90, 70)) + rng.standard_normal((90, 70))
    series *= rng.uniform(0.01, 100, (6, 1, 70))
    series[2] += 0.1
    series = series.astype(dtype)
    expected = np.empty((6, 70))
    z = series.astype(float) - series.astype(float).mean(1, keepdims=True)
    z /= z.std(1, keepdims=True)
    for one in range(6):
        others = z.sum(0) - (0 if include_self else z[one])
        for parcel in range(70):
            expected[one, parcel] = np.corrcoef(z[one, :, parcel], others[:, parcel])[0, 1]
    if by_time:
        series = np.ascontiguousarray(series.transpose(0, 2, 1)).transpose(0, 2, 1)
    before = series.copy()
    found = leave_one_out(series, include_self=include_self)
    np.testing.assert_allclose(found, expected, atol=bound)
    np.testing.assert_array_equal(series, before)


def test_where_digits_are_lost_series_are_centred_first(rng):
    """A large mean beside little variation, opposite participants, whole numbers."""
    series = rng.standard_normal((2, 60, 4)).astype(np.float32)
    series[:, :, 0] += 3000.0
    series[1, :, 1] = -series[0, :, 1] + 1e-3 * series[1, :, 1]
    series[:, :, 3] = rng.integers(0, 5, (2, 60))
    exact = series.astype(np.float64)
    expected = [np.corrcoef(exact[0, :, v], exact[1, :, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(leave_one_out(series), [expected, expected], atol=2e-6)
    whole = rng.integers(-9, 9, (5, 40, 3))
    np.testing.assert_allclose(leave_one_out(whole), leave_one_out(whole * 1.0), atol=1e-12)


def _mean_of(series, include_self, n_segments):
    """Fisher mean over participants by loops, for one parcel: shape (n_participants, n_trs)."""
    z = [(x - x.mean()) / x.std() for x in series if np.isfinite(x).all() and np.ptp(x) > 0]
    pieces = np.array_split(np.arange(series.shape[1]), n_segments)
    values = []
    for number, own in enumerate(z):
        others = z if include_self else z[:number] + z[number + 1 :]
        reference = np.mean(others, axis=0)
        values.append(np.mean([np.corrcoef(own[k], reference[k])[0, 1] for k in pieces]))
    return np.tanh(np.arctanh(values).mean())


@pytest.mark.parametrize("n_segments", [1, 3])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_groups_are_left_out_as_by_loops(rng, dtype, bound, include_self, n_segments):
    """70 parcels are more than a block; in some a series is absent or loses digits."""
    series = rng.standard_normal((7, 60, 70)) + rng.standard_normal((60, 70))
    series *= rng.uniform(0.1, 10, (7, 1, 70))
    series[3, :, 5] = 2.0
    series[4, 10, 66] = np.nan
    series[:, :, 7] += 3000.0
    series = series.astype(dtype)
    before, groups = series.copy(), [np.array([0, 1]), np.array([3]), np.array([4, 5, 6])]
    found = leave_groups_out(series, groups, include_self=include_self, n_segments=n_segments)
    assert found.shape == (3, 70)
    np.testing.assert_array_equal(series, before)
    for number, group in enumerate(groups):
        kept = np.delete(series.astype(np.float64), group, axis=0)
        wanted = [_mean_of(kept[:, :, v], include_self, n_segments) for v in range(70)]
        np.testing.assert_allclose(found[number], wanted, atol=bound)


def test_two_must_be_left_of_a_group(rng):
    series = rng.standard_normal((3, 20, 2))
    with pytest.raises(NumericalError, match="n_participants"):
        leave_groups_out(series, [np.array([0, 1])])
    with pytest.raises(NumericalError, match="n_participants"):
        leave_groups_out(series[:, :, 0], [np.array([0])])
