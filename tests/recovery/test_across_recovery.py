"""A story that was left out: p is calibrated on noise, and a planted signal is found."""

from __future__ import annotations

import numpy as np
import pytest
import simulated_chain as chain
from scipy.stats import binom, kstest

from bids_brainlm.numerics import blas, crossval, design, fir, transfer
from bids_brainlm.steps import significance

LENGTHS = (160, 200, 250)  # TRs; the first is tested
GAP = 9
SETTINGS = {
    "inner_cv": 5, "gap": GAP, "trim": (5, 5), "n_iter": 2, "alphas": chain.ALPHAS,
    "delays": chain.DELAYS, "seed": 1, "selection_score": "r2", "test_scaling": "train",
    "intercept": "train", "kernel_scaling": "trace",
}  # fmt: skip
NOISE = (0.4, 0.8)  # lag-1 autocorrelation of the targets


def _drifting(rng, n_trs, n_columns):
    """Features that change slowly and drift over the story."""
    slope = rng.standard_normal(n_columns)
    return chain.ar1(rng, n_trs, n_columns, 0.8) + np.linspace(-1, 1, n_trs)[:, None] * slope


def _scaled(series):
    return (series - series.mean(axis=0)) / series.std(axis=0, ddof=1)


def _held_out(rng, *, share=0.0, lengths=LENGTHS, texts=None):
    """Fit on all stories but the first: held-out prediction and data, one target for `NOISE`."""
    where = transfer.places(lengths, GAP + 1)
    weights = rng.standard_normal((12 * len(chain.DELAYS), len(NOISE)))
    blocks, series = [], []
    for n_trs in lengths:
        wide = _drifting(rng, n_trs, 12)
        counts, everywhere = rng.poisson(4, (n_trs, 2)) * 1.0, np.ones(n_trs, bool)
        blocks.append(
            [design.Band("counts", counts, everywhere), design.Band("model", wide, everywhere)]
        )
        noise = np.hstack([chain.ar1(rng, n_trs, 1, rho) for rho in NOISE])
        signal = _scaled(fir.delay(wide, chain.DELAYS) @ weights)
        series.append(_scaled(np.sqrt(share) * signal + np.sqrt(1 - share) * noise))
    plan = transfer.make_plan(where, texts or [str(k) for k in range(len(lengths))], 2, SETTINGS)
    bands, targets = transfer.stack_bands(blocks, where), transfer.stack(series, where)
    with blas.single_threaded():
        found = crossval.crossvalidate(bands, [targets], plan, main="model")[0]
    return found, plan


def _tested(rng, n_permutations, **more):
    """p of each target, tested as the step does."""
    found, plan = _held_out(rng, **more)
    null = significance.Null("block", 0, n_permutations, (1, 1))
    return significance.test(
        found.prediction, found.observed, plan.segments, null, shared_training=False
    ).p


def _assert_calibrated(p):
    """One p a data set: the rate at .05 lies in its binomial 99 % interval."""
    low, high = binom.ppf([0.005, 0.995], len(p), 0.05) / len(p)
    for column in p.T:
        assert low <= (column <= 0.05).mean() <= high
        assert kstest(column, "uniform").pvalue > 0.005


def test_p_of_a_left_out_story_is_uniform():
    rng = np.random.default_rng(31)
    _assert_calibrated(np.array([_tested(rng, 99) for _ in range(200)]))


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(160, 200, 250), (250, 160, 200), (200, 200)], ids=str)
def test_p_of_a_left_out_story_is_uniform_in_many_data_sets(lengths):
    rng = np.random.default_rng([32, *lengths])
    _assert_calibrated(np.array([_tested(rng, 299, lengths=lengths) for _ in range(600)]))


@pytest.mark.slow
def test_p_is_uniform_after_one_story_that_was_heard_twice():
    rng = np.random.default_rng(33)
    lengths, texts = (200, 160, 160), ["a", "b", "b"]
    p = [_tested(rng, 299, lengths=lengths, texts=texts) for _ in range(400)]
    _assert_calibrated(np.array(p))


def test_a_planted_signal_is_found():
    """Three tenths of the variance, from features of all stories with the same weights."""
    rng = np.random.default_rng(34)
    p = np.array([_tested(rng, 99, share=0.3) for _ in range(40)])
    found = (p <= 0.05).mean(axis=0)
    assert found[0] >= 0.8
    assert found[1] >= 0.4
