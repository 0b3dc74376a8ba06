"""Shift, phase and group tests of intersubject correlation against plain computations."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom, kstest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import isc, isc_tests


def _noise(rng, shape, rho=0.6):
    noise = rng.standard_normal((shape[0], shape[1] + 60, *shape[2:]))
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 60:]


def _assert_uniform(p):
    low, high = binom.ppf([0.005, 0.995], p.size, 0.05) / p.size
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n_trs", [61, 64])
def test_observed_is_the_mean_leave_one_out_isc(rng, n_trs):
    series = _noise(rng, (5, n_trs, 4)) + _noise(rng, (1, n_trs, 4))
    found = isc_tests.isc_test(series, n_permutations=1, rng=rng)
    expected = np.arctanh(isc.leave_one_out(series)).mean(axis=0)
    np.testing.assert_allclose(found.observed, expected, rtol=1e-10)


def _loo(series):
    return np.arctanh(isc.leave_one_out(series)).mean(axis=0)


def _pairs(series):
    above = np.triu_indices(len(series), 1)
    return np.array([np.corrcoef(x)[above].mean() for x in series.transpose(2, 0, 1)])


PLAIN = {"leave-one-out": _loo, "pairwise": _pairs}


def _brute(series, seed, n_permutations, statistic):
    generator = np.random.default_rng(seed)
    shifts = generator.integers(0, series.shape[1], (n_permutations, len(series), 1))[:, :, 0]
    null = []
    for one in shifts:
        moved = np.stack([np.roll(x, s, axis=0) for x, s in zip(series, one, strict=True)])
        null.append(PLAIN[statistic](moved))
    return np.array(null)


@pytest.mark.parametrize("statistic", PLAIN)
@pytest.mark.parametrize("n_trs", [41, 42])
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_rotations_equal_rolled_series(rng, n_trs, alternative, statistic):
    series = _noise(rng, (4, n_trs, 3)) + 0.4 * _noise(rng, (1, n_trs, 3))
    found = isc_tests.isc_test(
        series, n_permutations=70, rng=np.random.default_rng(5), method="shift",
        alternative=alternative, statistic=statistic,
    )
    np.testing.assert_allclose(found.observed, PLAIN[statistic](series))
    null = _brute(series, 5, 70, statistic)
    turn = {"greater": lambda x: x, "less": lambda x: -x, "two-sided": np.abs}[alternative]
    reached = turn(null) >= turn(found.observed) - 1e-12
    np.testing.assert_allclose(found.p, (reached.sum(axis=0) + 1) / 71)
    largest = turn(null).max(axis=1)[:, None] >= turn(found.observed) - 1e-12
    np.testing.assert_allclose(found.p_fwe, (largest.sum(axis=0) + 1) / 71)


def test_random_phases_keep_spectrum_and_dependence_between_parcels(rng):
    """Drawn phases, applied and taken back to time, are real series of the same spectrum."""
    n_trs = 30
    phases = isc_tests._phases(rng, "phase", (3, 2, n_trs))
    series = rng.standard_normal((2, n_trs, 4))
    spectra = np.fft.rfft(series - series.mean(axis=1, keepdims=True), axis=1)
    spectra[:, 1:] *= phases(1)[:, :, None]
    back = np.fft.irfft(spectra, n=n_trs, axis=1)
    again = np.fft.rfft(back, axis=1)
    np.testing.assert_allclose(again, spectra, atol=1e-5)
    for before, after in zip(series, back, strict=True):
        np.testing.assert_allclose(np.corrcoef(after.T), np.corrcoef(before.T), atol=1e-5)


def test_absent_series_do_not_count(rng):
    series = _noise(rng, (6, 50, 3))
    series[2, :, 1] = 3.0
    series[3, 4, 1] = np.nan
    series[:, :, 2] = 0.0
    found = isc_tests.isc_test(series, n_permutations=20, rng=rng)
    expected = np.arctanh(isc.leave_one_out(series[[0, 1, 4, 5]][:, :, 1:2])).mean()
    np.testing.assert_allclose(found.observed[1], expected)
    assert np.isnan(found.observed[2])
    assert np.isnan(found.p[2])
    pairs = isc_tests.isc_test(series, n_permutations=20, rng=rng, statistic="pairwise")
    np.testing.assert_allclose(pairs.observed[1], _pairs(series[[0, 1, 4, 5]][:, :, 1:2])[0])
    assert np.isnan(pairs.p[2])
    assert np.isfinite(found.p_fwe[:2]).all()


@pytest.mark.parametrize("statistic", PLAIN)
@pytest.mark.parametrize("method", ["shift", "phase"])
def test_null_p_values_are_uniform_on_400_null_sets(method, statistic):
    """Each parcel is a dataset of its own: 6 participants, 300 TRs, autocorrelation .6."""
    rng = np.random.default_rng(3)
    series = _noise(rng, (6, 300, 400))
    found = isc_tests.isc_test(
        series, n_permutations=199, rng=rng, method=method, statistic=statistic
    )
    _assert_uniform(found.p)


def test_moving_only_the_left_out_participant_is_too_lenient():
    """Why all participants are moved at once."""
    rng = np.random.default_rng(4)
    series = _noise(rng, (6, 200, 400))
    z = series - series.mean(axis=1, keepdims=True)
    z /= z.std(axis=1, keepdims=True)
    observed = np.arctanh(isc.leave_one_out(series)).mean(axis=0)
    others = (z.sum(axis=0) - z) / 5
    spectra = np.fft.rfft(others, axis=1)
    scale = 200 * others.std(axis=1)
    cross = np.fft.irfft(np.conj(np.fft.rfft(z, axis=1)) * spectra, n=200, axis=1)
    cross /= scale[:, None]
    shifts = rng.integers(0, 200, (199, 6))
    null = np.arctanh(cross[np.arange(6), shifts]).mean(axis=1)
    p = ((null >= observed).sum(axis=0) + 1) / 200
    assert (p <= 0.05).mean() > 0.09


@pytest.mark.parametrize("method", ["shift", "phase"])
def test_shared_signal_is_found(method):
    rng = np.random.default_rng(6)
    series = _noise(rng, (10, 200, 30))
    series[:, :, :10] += 0.6 * _noise(rng, (1, 200, 10))
    found = isc_tests.isc_test(series, n_permutations=199, rng=rng, method=method)
    assert (found.p_fwe[:10] <= 0.05).mean() >= 0.9
    assert (found.p[10:] <= 0.05).mean() <= 0.2


def test_family_error_over_100_null_sets():
    rng = np.random.default_rng(8)
    errors = 0
    for _ in range(100):
        series = _noise(rng, (5, 80, 8)) + _noise(rng, (5, 80, 1))
        found = isc_tests.isc_test(series, n_permutations=99, rng=rng, method="shift")
        errors += found.p_fwe.min() <= 0.05
    assert errors <= binom.ppf(0.995, 100, 0.05)


def test_pairwise_equals_numpy(rng):
    series = _noise(rng, (5, 40, 3))
    series[1, :, 2] = 1.0
    z = isc_tests.pairwise_z(series)
    expected = np.arctanh(np.corrcoef(series[:, :, 0]) - np.eye(5) * 0.5)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(z[:, :, 0][off], expected[off])
    assert np.isnan(z[np.arange(5), np.arange(5)]).all()
    assert np.isnan(z[1, :, 2]).all()


def test_group_difference_by_hand(rng):
    pairs = isc_tests.pairwise_z(_noise(rng, (7, 60, 4)))
    first = np.array([1, 0, 1, 1, 0, 0, 1], dtype=bool)
    found = isc_tests.group_difference_test(
        pairs, first, n_permutations=50, rng=np.random.default_rng(2)
    )

    def difference(who):
        values = []
        for group in (np.flatnonzero(who), np.flatnonzero(~who)):
            values.append(np.mean([pairs[i, j] for i in group for j in group if i < j], axis=0))
        return values[0] - values[1]

    np.testing.assert_allclose(found.observed, difference(first))
    generator = np.random.default_rng(2)
    null = np.array([difference(generator.permutation(first)) for _ in range(50)])
    reached = np.abs(null) >= np.abs(found.observed) - 1e-12
    np.testing.assert_allclose(found.p, (reached.sum(axis=0) + 1) / 51)


def test_group_difference_is_uniform_and_finds_a_difference():
    rng = np.random.default_rng(9)
    first = np.arange(16) < 8
    null = _noise(rng, (16, 60, 300)) + 0.5 * _noise(rng, (1, 60, 300))
    found = isc_tests.group_difference_test(
        isc_tests.pairwise_z(null), first, n_permutations=399, rng=rng
    )
    _assert_uniform(found.p)
    alike = np.where(first[:, None, None], 1.0, 0.3) * _noise(rng, (1, 60, 40))
    found = isc_tests.group_difference_test(
        isc_tests.pairwise_z(alike + _noise(rng, (16, 60, 40))), first, n_permutations=199, rng=rng
    )
    assert (found.p <= 0.05).mean() > 0.9


def test_wrong_input_is_refused(rng):
    with pytest.raises(NumericalError, match="Series have shape"):
        isc_tests.isc_test(np.zeros((1, 20, 2)), n_permutations=5, rng=rng)
    with pytest.raises(NumericalError, match="statistic 'best'"):
        isc_tests.isc_test(np.zeros((3, 20, 2)), n_permutations=5, rng=rng, statistic="best")
    with pytest.raises(NumericalError, match="method 'flip'"):
        isc_tests.isc_test(np.zeros((3, 20, 2)), n_permutations=5, rng=rng, method="flip")
    with pytest.raises(NumericalError, match="Pairs have shape"):
        isc_tests.group_difference_test(
            np.zeros((3, 4, 1)), np.ones(3, bool), n_permutations=5, rng=rng
        )
    with pytest.raises(NumericalError, match="at least 3 in each"):
        isc_tests.group_difference_test(
            np.zeros((4, 4, 1)), np.arange(4) < 2, n_permutations=5, rng=rng
        )
