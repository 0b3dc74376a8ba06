"""Nulls of cross-validated predictions of autocorrelated noise are calibrated."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom, gamma, kstest

from bids_brainlm.numerics import fir, folds, nulls, resampling

DELAYS = (2, 3, 4, 5)


def _ar1(rng, n_trs, n_columns, rho):
    noise = rng.standard_normal((n_trs + 100, n_columns))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[100:]


def _hrf_filtered(rng, n_trs, n_columns, tr):
    t = np.arange(0, 32, tr)
    response = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    return lfilter(response, [1.0], rng.standard_normal((n_trs + 60, n_columns)), axis=0)[60:]


def _predicted(features, targets, n_folds, alphas, gap=10):
    """Held-out ridge predictions, the penalty chosen in inner folds for each target."""
    n_trs = len(targets)
    prediction, observed = np.empty((2, *targets.shape))
    segments = []
    for fold in folds.contiguous_folds(np.arange(n_trs), n_folds, gap):
        mean, scale = features[fold.train].mean(axis=0), features[fold.train].std(axis=0)
        x, y = (features - mean) / scale, targets - targets[fold.train].mean(axis=0)
        error = np.zeros((len(alphas), targets.shape[1]))
        if len(alphas) > 1:
            for part in folds.contiguous_folds(fold.train, 3, gap):
                guess = _ridge(x, y, part, alphas)
                error += ((y[part.test] - guess) ** 2).sum(axis=1)
        best = error.argmin(axis=0)
        guess = _ridge(x, y, fold, alphas)
        prediction[fold.test] = guess[best, :, np.arange(targets.shape[1])].T
        observed[fold.test] = y[fold.test]
        segments.append(slice(int(fold.test[0]), int(fold.test[-1]) + 1))
    return prediction, observed, segments


def _ridge(x, y, fold, alphas):
    values, basis = np.linalg.eigh(x[fold.train].T @ x[fold.train])
    own = basis.T @ (x[fold.train].T @ y[fold.train])
    test = x[fold.test] @ basis
    return np.stack([test @ (own / (values + alpha)[:, None]) for alpha in alphas])


def _block(prediction, observed, *, rng, segments, n_permutations, shared_training=True):
    length = nulls.estimate_block_length(prediction, observed, segments=segments).used
    return resampling.block_permutation_test(
        prediction, observed, block_length=length, n_permutations=n_permutations, rng=rng,
        segments=segments, shared_training=shared_training,
    )


TESTS = {
    "block": _block,
    "shift": nulls.circular_shift_test,
    "phase": nulls.phase_randomisation_test,
}


def _null_p(seed, n_sets, n_trs, n_folds, rho, *, alphas, n_targets=3, rho_features=0.5,
            n_features=12):
    """p of every test, with and without the widening, over independent datasets."""
    rng = np.random.default_rng(seed)
    p = {}
    for _ in range(n_sets):
        features = fir.delay(_ar1(rng, n_trs + 20, n_features, rho_features), DELAYS)[20:]
        targets = _ar1(rng, n_trs, n_targets, rho)
        prediction, observed, segments = _predicted(features, targets, n_folds, alphas)
        for name, test in TESTS.items():
            for shared in (True, False):
                found = test(prediction, observed, n_permutations=199, rng=rng,
                             segments=segments, shared_training=shared)
                p.setdefault((name, shared), []).append(found)
    return p


def _rate(results):
    return float((np.concatenate([one.p for one in results]) <= 0.05).mean())


@pytest.fixture(scope="module")
def null_results():
    return _null_p(1, 200, 400, 5, 0.6, alphas=[300.0])


@pytest.mark.parametrize("name", TESTS)
def test_shared_training_is_calibrated_on_200_null_sets(null_results, name):
    """Not above the nominal rate; the widening may be a little too careful."""
    p = np.concatenate([one.p for one in null_results[name, True]])
    low, high = binom.ppf([0.005, 0.995], p.size, [0.03, 0.05]) / p.size
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(p, "uniform").pvalue > 0.001
    assert _rate(null_results[name, False]) > high  # why the null is widened


@pytest.mark.parametrize("name", TESTS)
def test_family_error_with_shared_training(null_results, name):
    errors = sum(one.p_fwe.min() <= 0.05 for one in null_results[name, True])
    assert errors <= binom.ppf(0.995, 200, 0.05)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("rho", [0.3, 0.9])
@pytest.mark.parametrize(("n_trs", "n_folds"), [(300, 1), (500, 5)])
def test_independent_predictors_have_uniform_p(name, rho, n_trs, n_folds):
    """As another story or another participant gives them; every target is a dataset."""
    rng = np.random.default_rng([n_trs, int(10 * rho), n_folds, 1])
    borders = np.linspace(0, n_trs, n_folds + 1).astype(int)
    segments = [slice(a, b) for a, b in pairwise(borders)]
    found = TESTS[name](
        _hrf_filtered(rng, n_trs, 800, 1.5), _ar1(rng, n_trs, 800, rho), n_permutations=299,
        rng=rng, segments=segments, shared_training=False,
    )
    low, high = binom.ppf([0.005, 0.995], 800, 0.05) / 800
    assert low <= (found.p <= 0.05).mean() <= high
    assert kstest(found.p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", TESTS)
def test_power(name):
    rng = np.random.default_rng(12)
    features = fir.delay(_ar1(rng, 420, 4, 0.5), DELAYS)[20:]
    signal = features @ rng.standard_normal((16, 60))
    noise = _ar1(rng, 400, 60, 0.5)
    targets = 0.45 * signal / signal.std(axis=0) + noise / noise.std(axis=0)
    prediction, observed, segments = _predicted(features, targets, 5, [100.0])
    found = TESTS[name](prediction, observed, n_permutations=499, rng=rng, segments=segments)
    assert (found.p <= 0.05).mean() > 0.9
    assert (found.p_fwe <= 0.05).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("n_trs", "n_folds"), [(300, 5), (400, 3), (500, 5)])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("rho_features", "n_features"), [(0.5, 12), (0.8, 12), (0.5, 2)])
def test_rates_over_the_whole_grid(n_trs, n_folds, rho, rho_features, n_features):
    """400 null sets of 6 targets with 6 penalties to choose from."""
    results = _null_p(
        [n_trs, int(10 * rho)], 400, n_trs, n_folds, rho, alphas=np.logspace(0, 5, 6),
        n_targets=6, rho_features=rho_features, n_features=n_features,
    )
    for name in TESTS:
        rate = _rate(results[name, True])
        assert 0.015 <= rate <= 0.065
        assert _rate(results[name, False]) > 0.075
