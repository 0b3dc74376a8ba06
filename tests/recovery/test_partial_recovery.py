"""What one prediction adds to another is found, and where it adds nothing p is honest."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from bids_brainlm.numerics import crossval, design, partial, resampling

N_TRS = 342
N_STORIES = 11
N_TARGETS = 20


def _autocorrelated(rng, n_columns, rho):
    series = lfilter([1.0], [1.0, -rho], rng.standard_normal((N_TRS + 100, n_columns)), axis=0)
    return series[100:] / series[100:].std(axis=0)


def _share(p):
    """Share of p <= .05 and its binomial 99 % interval."""
    return (p <= 0.05).mean(), binom.ppf([0.005, 0.995], p.size, 0.05) / p.size


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothness", [0.5, 0.8])
def test_given_predictions_have_honest_p(strength, smoothness):
    """400 null data sets that depend on nothing or on the other prediction; the two resemble."""
    rng = np.random.default_rng([int(strength * 2), int(smoothness * 10)])
    other, own = (_autocorrelated(rng, 400, smoothness) for _ in range(2))
    prediction = 0.8 * other + 0.6 * own
    data = strength * other + _autocorrelated(rng, 400, 0.4)
    segments = [slice(a, b) for a, b in pairwise(np.linspace(0, N_TRS, 6).astype(int))]
    cut = [[series[s] for s in segments] for series in (data, prediction, other)]
    settings = {"block_length": 15, "n_permutations": 299, "rng": rng, "segments": segments}
    settings["shared_training"] = False
    tested = resampling.block_permutation_test(*partial.residuals(*cut), **settings)
    share, (low, high) = _share(tested.p)
    assert low <= share <= high
    if strength:
        plain = resampling.block_permutation_test(prediction, data, **settings)
        assert (plain.p <= 0.05).mean() > 0.9


def _story(seed, first, second):
    """Encode one story with two correlated feature spaces; strengths of what data take of each."""
    rng = np.random.default_rng([31, seed])
    transformations = _autocorrelated(rng, 8, 0.4)
    turned = transformations @ np.linalg.qr(rng.standard_normal((8, 8)))[0]
    embeddings = 0.8 * turned + 0.6 * _autocorrelated(rng, 8, 0.4)
    data = _autocorrelated(rng, N_TARGETS, 0.4)
    for strength, features in ((first, embeddings), (second, transformations)):
        delayed = np.hstack([np.roll(features, k, axis=0) for k in (2, 3, 4)])
        signal = delayed @ rng.standard_normal((24, N_TARGETS))
        data += strength * signal / signal.std(axis=0)
    everywhere = np.ones(N_TRS, bool)
    nuisance = design.Band("counts", _autocorrelated(rng, 2, 0.3), everywhere)
    plan = crossval.make_plan(
        np.arange(N_TRS), n_folds=5, n_inner=3, gap=8, n_bands=2, n_gammas=4,
        alphas=(1.0, 10.0, 100.0, 1000.0, 1e4), delays=(2, 3, 4), seed=seed,
    )  # fmt: skip
    fitted = [
        crossval.crossvalidate(
            [nuisance, design.Band("model", features, everywhere)], [data], plan, main="model"
        )[0]
        for features in (embeddings, transformations)
    ]
    cut = [
        [series[rows] for rows in plan.segments]
        for series in (fitted[0].observed, fitted[0].prediction, fitted[1].prediction)
    ]
    tests = [
        resampling.block_permutation_test(
            *partial.residuals(cut[0], *pair),
            block_length=15,
            n_permutations=199,
            rng=np.random.default_rng([seed, 1]),
            segments=plan.segments,
        ).p
        for pair in ((cut[1], cut[2]), (cut[2], cut[1]))
    ]
    return *tests, partial.mean_partial_r(*cut)


def _stories(first, second):
    return [np.concatenate(part) for part in zip(
        *(_story(seed, first, second) for seed in range(N_STORIES)), strict=True
    )]  # fmt: skip


def test_encoding_of_noise_has_honest_p():
    """220 null data sets through the whole pipeline, both ways round."""
    for p in _stories(0.0, 0.0)[:2]:
        share, (low, high) = _share(p)
        assert low <= share <= high


def test_data_of_the_other_space_leave_nothing():
    """Without control the embeddings predict these data, as the spaces resemble each other."""
    p, p_other, r = _stories(0.0, 0.7)
    share, (_, high) = _share(p)
    assert share <= high
    assert (p_other <= 0.05).mean() > 0.9
    assert abs(r.mean()) < 0.02


def test_what_a_space_adds_is_found():
    p, p_other, r = _stories(0.7, 0.7)
    assert (p <= 0.05).mean() > 0.8
    assert (p_other <= 0.05).mean() > 0.8
    assert r.mean() > 0.15
