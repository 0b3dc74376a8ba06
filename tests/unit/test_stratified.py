"""Statistics over participants of several stories, by hand and on null data."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import resampling, stratified


def _assert_uniform(p):
    low, high = binom.ppf([0.005, 0.995], p.size, 0.05) / p.size
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(p, "uniform").pvalue > 0.01


def _with_holes(rng, n_participants, n_targets, own=0.5):
    """Three stories; people heard one, two or all of them; a part of their own in each."""
    people = rng.standard_normal((n_participants, 1, n_targets)) * own
    values = people + rng.standard_normal((n_participants, 3, n_targets))
    heard = np.zeros((n_participants, 3), bool)
    third = n_participants // 3
    heard[:third, 0] = True
    heard[third:2 * third, 1:] = True
    heard[2 * third:] = True
    values[~heard] = np.nan
    return values


@pytest.mark.parametrize("weights", ["stories", "participants"])
def test_mean_and_d_by_hand(rng, weights):
    values = _with_holes(rng, 9, 4)
    values[1, 0, 2] = np.nan
    found = stratified.stratified_test(
        values, n_permutations=20, n_bootstraps=20, rng=rng, weights=weights
    )
    stories = np.nanmean(values, axis=0)
    mean = stories.mean(axis=0) if weights == "stories" else np.nanmean(values, axis=(0, 1))
    n = (~np.isnan(values)).sum(axis=0)
    scatter = np.nansum((values - stories) ** 2, axis=(0, 1))
    np.testing.assert_allclose(found.mean, mean)
    free = (n - 1).sum(axis=0)
    np.testing.assert_allclose(
        found.d, (1 - 3 / (4 * free - 1)) * mean / np.sqrt(scatter / free)
    )
    np.testing.assert_array_equal(found.n_participants, [9, 9, 8, 9])


def test_one_story_is_the_plain_sign_flip(rng):
    values = rng.standard_normal((12, 1, 5)) + 0.3
    values[3, 0, 1] = np.nan
    found = stratified.stratified_test(
        values, n_permutations=200, n_bootstraps=50, rng=np.random.default_rng(1)
    )
    plain = resampling.sign_flip_test(
        values[:, 0], n_permutations=200, rng=np.random.default_rng(1)
    )
    np.testing.assert_allclose(found.mean, plain.observed)
    np.testing.assert_allclose(found.p, plain.p)
    np.testing.assert_allclose(found.p_fwe, plain.p_fwe)


def test_all_flips_of_participants_by_hand(rng):
    values = _with_holes(rng, 6, 2) + 0.4
    found = stratified.stratified_test(values, n_permutations=64, n_bootstraps=9, rng=rng)
    null = []
    for number in range(64):
        signs = np.array([1 - 2 * (number >> k & 1) for k in range(6)])
        null.append(np.nanmean(values * signs[:, None, None], axis=0).mean(axis=0))
    np.testing.assert_allclose(found.p, (np.array(null) >= found.mean - 1e-12).mean(axis=0))


@pytest.mark.parametrize("weights", ["stories", "participants"])
def test_null_p_are_uniform_and_intervals_cover(weights):
    """Each target is a dataset: 18 people, stories that share participants."""
    rng = np.random.default_rng(len(weights))
    values = _with_holes(rng, 18, 1000)
    found = stratified.stratified_test(
        values, n_permutations=499, n_bootstraps=499, rng=rng, weights=weights
    )
    _assert_uniform(found.p)
    covered = (found.low <= 0) & (found.high >= 0)
    assert 0.93 <= covered.mean() <= 0.975
    covered = (found.d_low <= 0) & (found.d_high >= 0)
    assert 0.92 <= covered.mean() <= 0.98


def test_d_is_unbiased_and_its_interval_covers():
    values = np.random.default_rng(7).standard_normal((18, 1, 2000)) + 0.8
    found = stratified.stratified_test(
        values, n_permutations=9, n_bootstraps=499, rng=np.random.default_rng(8)
    )
    assert found.d.mean() == pytest.approx(0.8, abs=0.02)
    assert 0.91 <= ((found.d_low <= 0.8) & (found.d_high >= 0.8)).mean() <= 0.97


def test_flipping_values_instead_of_people_would_be_too_lenient():
    """Why signs belong to participants: the same people in all stories."""
    rng = np.random.default_rng(5)
    values = rng.standard_normal((15, 1, 800)) + 0.5 * rng.standard_normal((15, 3, 800))
    honest = stratified.stratified_test(values, n_permutations=299, n_bootstraps=9, rng=rng)
    _assert_uniform(honest.p)
    naive = resampling.sign_flip_test(values.reshape(45, 800), n_permutations=299, rng=rng)
    assert (naive.p <= 0.05).mean() > 0.1


def test_family_error_and_power():
    rng = np.random.default_rng(6)
    errors = 0
    for _ in range(200):
        found = stratified.stratified_test(
            _with_holes(rng, 12, 10), n_permutations=99, n_bootstraps=1, rng=rng
        )
        errors += found.p_fwe.min() <= 0.05
    assert errors <= binom.ppf(0.995, 200, 0.05)
    found = stratified.stratified_test(
        _with_holes(rng, 30, 50) + 0.8, n_permutations=499, n_bootstraps=99, rng=rng
    )
    assert (found.p_fwe <= 0.05).mean() > 0.9
    assert (found.low > 0).mean() > 0.9


def test_strata_keep_the_numbers_of_stories(rng):
    heard = np.zeros((17, 2), bool)
    heard[:7, 0] = heard[7:15, 1] = heard[15] = True
    strata = stratified._strata(heard)
    assert strata[16] == -1
    assert len(set(strata[:7])) == 1
    assert len(set(strata[7:15])) == 1
    counts = stratified._draw(strata, 30, rng)
    np.testing.assert_array_equal(counts[:, :7].sum(axis=1), 7)
    np.testing.assert_array_equal(counts[:, 7:15].sum(axis=1), 8)
    np.testing.assert_array_equal(counts[:, 15:], [[1, 0]] * 30)


def test_too_few_participants_give_nan(rng):
    values = rng.standard_normal((5, 2, 3))
    values[1:, :, 1] = np.nan
    found = stratified.stratified_test(values, n_permutations=20, n_bootstraps=20, rng=rng)
    for array in (found.mean, found.low, found.high, found.d, found.d_low, found.p, found.p_fwe):
        np.testing.assert_array_equal(np.isnan(array), [False, True, False])


def test_wrong_input_is_refused(rng):
    settings = {"n_permutations": 5, "n_bootstraps": 5, "rng": rng}
    with pytest.raises(NumericalError, match="Values have shape"):
        stratified.stratified_test(np.zeros((4, 3)), **settings)
    with pytest.raises(NumericalError, match="weights 'runs'"):
        stratified.stratified_test(np.zeros((4, 1, 3)), weights="runs", **settings)
