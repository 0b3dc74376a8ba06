"""Rotations and random phases of held-out predictions against plain computations."""

import numpy as np
import pytest
from scipy.signal import lfilter

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import nulls

SEGMENTS = [slice(0, 31), slice(31, 55), slice(55, 90)]


def _ar1(rng, n_trs, n_targets, rho):
    noise = rng.standard_normal((n_trs + 200, n_targets))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[200:]


def _pair(rng):
    prediction = _ar1(rng, 90, 4, 0.6)
    return prediction, 0.3 * prediction + _ar1(rng, 90, 4, 0.5)


def _z(series):
    out = np.empty_like(series)
    for rows in SEGMENTS:
        out[rows] = (series[rows] - series[rows].mean(axis=0)) / series[rows].std(axis=0)
    return out


def _check(found, null, observed, alternative):
    turn = {"greater": lambda x: x, "less": lambda x: -x, "two-sided": np.abs}[alternative]
    reached = turn(null) >= turn(observed) - 1e-10
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.p, (reached.sum(axis=0) + 1) / (len(null) + 1))
    largest = turn(null).max(axis=1)[:, None] >= turn(observed) - 1e-10
    np.testing.assert_allclose(found.p_fwe, (largest.sum(axis=0) + 1) / (len(null) + 1))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize(("shared", "minimum"), [(True, 10), (False, 1)])
def test_rotations_by_hand(rng, shared, minimum, alternative):
    prediction, target = _pair(rng)
    found = nulls.circular_shift_test(
        prediction, target, n_permutations=60, rng=np.random.default_rng(1), segments=SEGMENTS,
        shared_training=shared, alternative=alternative,
    )
    a, b = _z(prediction), _z(target)
    generator = np.random.default_rng(1)
    null = np.zeros((60, 4))
    for rows in SEGMENTS:
        length = rows.stop - rows.start
        allowed = range(minimum, length - minimum + 1)
        table = np.array([(np.roll(a[rows], s, axis=0) * b[rows]).sum(axis=0) for s in allowed])
        null += (table - table.mean(axis=0))[generator.integers(0, len(allowed), 60)]
    null *= (np.sqrt(2) if shared else 1.0) / 90
    _check(found, null, (a * b).mean(axis=0), alternative)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("shared", [True, False])
def test_random_phases_by_hand(rng, shared, alternative):
    prediction, target = _pair(rng)
    found = nulls.phase_randomisation_test(
        prediction, target, n_permutations=60, rng=np.random.default_rng(1), segments=SEGMENTS,
        shared_training=shared, alternative=alternative,
    )
    a, b = _z(prediction), _z(target)
    generator = np.random.default_rng(1)
    null = np.zeros((60, 4))
    for rows in SEGMENTS:
        length = rows.stop - rows.start
        phase = np.exp(2j * np.pi * generator.random((60, length // 2)))
        if length % 2 == 0:
            phase[:, -1] = generator.choice([-1.0, 1.0], 60)
        spectrum = np.fft.rfft(a[rows], axis=0)
        for draw in range(60):
            moved = spectrum.copy()
            moved[1:] *= phase[draw][:, None]
            copy = np.fft.irfft(moved, n=length, axis=0)
            np.testing.assert_allclose(copy.std(axis=0), 1.0)
            np.testing.assert_allclose(copy.T @ copy, a[rows].T @ a[rows], atol=1e-9)
            null[draw] += (copy * b[rows]).sum(axis=0)
    null *= (np.sqrt(2) if shared else 1.0) / 90
    _check(found, null, (a * b).mean(axis=0), alternative)


TESTS = [nulls.circular_shift_test, nulls.phase_randomisation_test]


@pytest.mark.parametrize("test", TESTS)
def test_targets_without_a_series_get_nan(rng, test):
    prediction, target = _pair(rng)
    prediction[:, 1] = 0.0
    target[3, 2] = np.nan
    found = test(
        prediction, target, n_permutations=20, rng=rng, segments=SEGMENTS, shared_training=False
    )
    for values in (found.observed, found.p, found.p_fwe):
        np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])
    assert found.block_length_used is None


@pytest.mark.parametrize("test", TESTS)
def test_one_target_has_the_same_p_in_any_company(rng, test):
    """More targets than fit into one block, and more draws."""
    prediction, target = (np.tile(x, (1, 200)) for x in _pair(rng))
    whole = test(prediction, target, n_permutations=1200, rng=np.random.default_rng(3))
    alone = test(prediction[:, :1], target[:, :1], n_permutations=1200,
                 rng=np.random.default_rng(3))
    np.testing.assert_allclose(whole.p[::4], alone.p[0])
    assert (whole.p_fwe >= whole.p).all()


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.9, 0.8), (0.7, 0.7), (0.95, 0.5)])
def test_block_length_of_autoregressive_noise(rho_a, rho_b):
    """Against the formula with the true autocorrelations."""
    rng = np.random.default_rng(5)
    n_trs = 5000
    found = nulls.estimate_block_length(
        _ar1(rng, n_trs, 60, rho_a), _ar1(rng, n_trs, 60, rho_b), quantile=0.5, shortest=1
    )
    rho = rho_a * rho_b
    g, slope = (1 + rho) / (1 - rho), 2 * rho / (1 - rho) ** 2
    expected = (2 * slope**2 / (4 / 3 * g**2) * n_trs) ** (1 / 3)
    assert np.median(found.of_target) == pytest.approx(expected, rel=0.15)
    assert found.used == np.ceil(np.median(found.of_target))


def test_block_length_limits(rng):
    slow, white = _ar1(rng, 90, 3, 0.97), rng.standard_normal((90, 3))
    assert nulls.estimate_block_length(white, white, shortest=4).used >= 4
    longest = nulls.estimate_block_length(slow, slow, segments=SEGMENTS, shortest=60)
    assert longest.used == longest.longest == 7
    white[:, 1] = 1.0
    found = nulls.estimate_block_length(white, slow)
    np.testing.assert_array_equal(np.isnan(found.of_target), [False, True, False])


@pytest.mark.parametrize("test", TESTS)
def test_wrong_input_is_refused(rng, test):
    with pytest.raises(NumericalError, match="Predictions have shape"):
        test(np.zeros((9, 2)), np.zeros((9, 3)), n_permutations=5, rng=rng)
    with pytest.raises(NumericalError, match="Segments"):
        test(np.zeros((9, 2)), np.zeros((9, 2)), n_permutations=5, rng=rng,
             segments=[slice(0, 4)])
    with pytest.raises(NumericalError, match="alternative 'up'"):
        test(np.zeros((9, 2)), np.zeros((9, 2)), n_permutations=5, rng=rng, alternative="up")


def test_segments_too_short_to_rotate_are_refused(rng):
    series = rng.standard_normal((90, 2))
    with pytest.raises(NumericalError, match="leaves 3 rotations of at least 11"):
        nulls.circular_shift_test(
            series, series, n_permutations=5, rng=rng, segments=SEGMENTS, minimum_shift=11
        )
    with pytest.raises(NumericalError, match="quantile 2"):
        nulls.estimate_block_length(series, series, quantile=2)
