"""Null p values are uniform, FDR is kept, planted signals are found."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom, gamma, kstest

from bids_brainlm.numerics import resampling
from bids_brainlm.numerics.multiple import benjamini_hochberg

BLOCK_LENGTH = 15
N_NULLS = 800


def _ar1(rng, n_trs, n_targets, rho):
    noise = rng.standard_normal((n_trs + 100, n_targets))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[100:]


def _hrf_filtered(rng, n_trs, n_targets, tr):
    t = np.arange(0, 32, tr)
    response = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    return lfilter(response, [1.0], rng.standard_normal((n_trs + 60, n_targets)), axis=0)[60:]


def _high_passed_pink(rng, n_trs, n_targets, tr):
    frequencies = np.fft.rfftfreq(4096)
    frequencies[0] = frequencies[1]
    shape = (frequencies.size, n_targets)
    spectrum = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    series = np.fft.irfft(spectrum / np.sqrt(frequencies)[:, None], axis=0)[:n_trs]
    series = series / series.std(0) + 0.5 * rng.standard_normal(series.shape)
    order = np.arange(int(2 * n_trs * tr / 128) + 1)
    cosines = np.cos(np.pi * (np.arange(n_trs)[:, None] + 0.5) * order / n_trs)
    return series - cosines @ np.linalg.lstsq(cosines, series, rcond=None)[0]


def _segments(n_trs, n_folds):
    borders = np.linspace(0, n_trs, n_folds + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(borders)]


def _assert_uniform(p):
    low, high = binom.ppf([0.005, 0.995], p.size, 0.05) / p.size
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("target", ["ar-0.3", "ar-0.6", "pink"])
@pytest.mark.parametrize(("n_trs", "n_folds", "tr"), [(342, 5, 2.0), (500, 7, 1.5)])
def test_block_permutation_is_uniform_for_independent_predictors(target, n_trs, n_folds, tr):
    rng = np.random.default_rng([n_trs, len(target), int(10 * tr)])
    prediction = _hrf_filtered(rng, n_trs, N_NULLS, tr)
    if target == "pink":
        series = _high_passed_pink(rng, n_trs, N_NULLS, tr)
    else:
        series = _ar1(rng, n_trs, N_NULLS, float(target[3:]))
    result = resampling.block_permutation_test(
        prediction,
        series,
        block_length=BLOCK_LENGTH,
        n_permutations=499,
        rng=rng,
        segments=_segments(n_trs, n_folds),
        shared_training=False,
    )
    _assert_uniform(result.p)


def test_block_permutation_has_power():
    rng = np.random.default_rng(4)
    prediction = _hrf_filtered(rng, 342, 200, 2.0)
    noise = _ar1(rng, 342, 200, 0.4)
    target = 0.3 * prediction / prediction.std(0) + noise / noise.std(0)
    powers = []
    for shared in (False, True):
        result = resampling.block_permutation_test(
            prediction,
            target,
            block_length=BLOCK_LENGTH,
            n_permutations=999,
            rng=rng,
            segments=_segments(342, 5),
            shared_training=shared,
        )
        powers.append((result.p <= 0.05).mean())
    assert powers[0] > 0.9
    assert powers[1] > 0.7


def test_family_error_of_the_largest_statistic():
    rng = np.random.default_rng(6)
    errors = []
    for _ in range(100):
        shared = rng.standard_normal((150, 1))
        prediction = rng.standard_normal((150, 20)) + shared
        result = resampling.block_permutation_test(
            prediction,
            rng.standard_normal((150, 20)),
            block_length=5,
            n_permutations=199,
            rng=rng,
            shared_training=False,
        )
        errors.append(result.p_fwe.min() <= 0.05)
    assert np.sum(errors) <= binom.ppf(0.995, 100, 0.05)


@pytest.mark.parametrize("n_participants", [8, 18])
def test_sign_flip_is_uniform(n_participants):
    rng = np.random.default_rng(n_participants)
    scale = rng.uniform(0.5, 2.0, (n_participants, 1))
    values = rng.standard_normal((n_participants, 1000)) * scale
    result = resampling.sign_flip_test(values, n_permutations=999, rng=rng)
    _assert_uniform(result.p)


def test_bootstrap_interval_covers():
    rng = np.random.default_rng(9)
    low, high = resampling.bootstrap_interval(
        rng.standard_normal((30, 1000)), n_bootstraps=500, rng=rng
    )
    assert 0.91 < ((low <= 0) & (high >= 0)).mean() < 0.96


def test_false_discovery_rate_is_kept_over_200_null_sets():
    rng = np.random.default_rng(10)
    false_sets, shares = 0, []
    for _ in range(200):
        null = rng.standard_normal((12, 50))
        signal = null + np.where(np.arange(50) < 15, 1.2, 0.0)
        flips = {"n_permutations": 999, "rng": rng}
        false_sets += (benjamini_hochberg(resampling.sign_flip_test(null, **flips).p) <= 0.05).any()
        found = benjamini_hochberg(resampling.sign_flip_test(signal, **flips).p) <= 0.05
        shares.append(found[15:].sum() / max(found.sum(), 1))
    assert false_sets <= binom.ppf(0.995, 200, 0.05)
    assert np.mean(shares) < 0.05
