"""Planted truth through delays, folds, scaling, banded ridge and the block permutation."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom, kstest

from bids_brainlm.numerics import fir, folds, resampling, ridge, scaling
from bids_brainlm.numerics.scores import pearson

N_TRS, N_FOLDS, GAP = 342, 5, 5
DELAYS = (1, 2, 3, 4)


def _ar1(rng, n_columns, rho):
    noise = rng.standard_normal((N_TRS + 100, n_columns))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[100:]


def _cross_validated(bands, targets, gammas):
    """Held-out parts of the prediction, (n_bands, n_trs, n_targets), and the folds' rows."""
    parts = np.empty((len(bands), *targets.shape))
    segments = []
    for fold in folds.contiguous_folds(np.arange(N_TRS), N_FOLDS, GAP):
        scaled = [scaling.apply(band, scaling.fit(band, fold.train)) for band in bands]
        inner = folds.contiguous_folds(fold.train, 3, GAP)
        result = ridge.encode(
            [band[fold.train] for band in scaled],
            [band[fold.test] for band in scaled],
            [targets[fold.train] - targets[fold.train].mean(0)],
            gammas,
            np.logspace(0, 5, 6),
            [folds.positions(each, fold.train) for each in inner],
        )[0]
        parts[:, fold.test] = result.prediction_by_band
        segments.append(slice(int(fold.test[0]), int(fold.test[-1]) + 1))
    return parts, segments


@pytest.fixture(scope="module")
def recovered():
    rng = np.random.default_rng(12)
    bands = [fir.delay(_ar1(rng, size, 0.4), DELAYS) for size in (2, 6, 20)]
    signals = []
    for band in bands:
        signal = band @ rng.standard_normal((band.shape[1], 40))
        signals.append(signal / signal.std(0))
    noise = _ar1(rng, 120, 0.4)
    targets = np.hstack(signals) + noise / noise.std(0)
    parts, _ = _cross_validated(bands, targets, ridge.sample_gammas(3, 12, rng))
    return parts, targets


def test_the_right_band_wins_at_snr_one(recovered):
    parts, targets = recovered
    r = np.array([pearson(part, targets) for part in parts])
    winner = np.nan_to_num(r).argmax(0)
    planted = np.repeat([0, 1, 2], 40)
    for band in range(3):
        assert (winner == planted)[planted == band].mean() > 0.95
    assert pearson(parts.sum(0), targets).mean() > 0.5


def test_noise_targets_have_honest_p_values():
    rng = np.random.default_rng(13)
    p, unwidened = [], []
    for _ in range(12):
        bands = [fir.delay(_ar1(rng, size, 0.4), DELAYS) for size in (2, 30)]
        targets = _ar1(rng, 150, 0.4)
        parts, segments = _cross_validated(bands, targets, ridge.sample_gammas(2, 6, rng))
        for shared, where in ((True, p), (False, unwidened)):
            result = resampling.block_permutation_test(
                parts[1],
                targets,
                block_length=15,
                n_permutations=399,
                rng=rng,
                segments=segments,
                shared_training=shared,
            )
            where.append(result.p)
    p, unwidened = np.concatenate(p), np.concatenate(unwidened)
    low, high = binom.ppf([0.005, 0.995], p.size, 0.05) / p.size
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(p, "uniform").pvalue > 0.01
    assert (unwidened <= 0.05).mean() > high  # why the null is widened
