"""Planted heads are found, with wrong columns they are not, and noise has honest p values."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, kstest

from bids_brainlm.numerics import crossval, design, heads

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "heads.py"


@pytest.fixture(scope="module")
def bench():
    """Return the simulations, and the paper's index, that the table in docs comes from."""
    spec = importlib.util.spec_from_file_location("benchmark_of_heads", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_wrong_stride_keeps_what_was_counted(bench):
    """Counts of an independent analysis of the paper's script, for 144 heads of 64 columns."""
    kept = [bench.kept_by_wrong_stride(head, 144, 64) for head in range(144)]
    own = [
        np.concatenate([d * 9216 + 64 * head + np.arange(64) for d in range(4)])
        for head in range(144)
    ]
    shared = [np.intersect1d(a, b).size for a, b in zip(kept, own, strict=True)]
    assert (min(map(len, kept)), max(map(len, kept))) == (321, 385)
    assert shared[:2] == [149, 149]
    assert set(shared[3:]) == {85}
    always = set(kept[0]).intersection(*kept)
    assert len(always) == 3 * 43
    no_extra = bench.kept_by_wrong_stride(7, 144, 64, extra=0)
    np.testing.assert_array_equal(no_extra, own[7])


@pytest.fixture(scope="module")
def planted(bench):
    rows, _ = bench.compare(None, 3, 8, 16, seed=0, tr=1.5)
    return {row["share"]: row for row in rows}


def test_planted_heads_are_found(planted):
    assert planted[0.1]["right_found"] > 0.5  # chance is 1 of 24
    for share in (0.2, 0.3, 0.5):
        assert planted[share]["right_found"] > 0.85


def test_the_wrong_stride_misses_them(planted):
    for share in (0.2, 0.3, 0.5):
        assert planted[share]["wrong_found"] < 0.3
        assert planted[share]["wrong_r_planted"] < 0.8 * planted[share]["right_r_planted"]


@pytest.fixture(scope="module")
def noise(bench):
    """Scores and p of 480 targets without signal: 24 stories of 20 targets, 12 heads."""
    found = []
    for seed in range(24):
        rng = np.random.default_rng([99, seed])
        n_trs = 300
        features = bench.simulated_heads(rng, n_trs, 3, 4, 8)
        everywhere = np.ones(n_trs, bool)
        bands = [
            design.Band("counts", rng.poisson(4, (n_trs, 2)).astype(float), everywhere),
            design.Band("model", features, everywhere),
        ]
        plan = crossval.make_plan(
            np.arange(n_trs), n_folds=5, n_inner=3, gap=8, n_bands=2, n_gammas=4,
            alphas=(0.1, 1.0, 10.0, 100.0), delays=(2, 3, 4, 5), seed=seed,
        )  # fmt: skip
        found += heads.headwise(
            bands,
            np.arange(96).reshape(12, 8),
            [bench.autocorrelated(rng, n_trs, 20, 0.4)],
            plan,
            main="model",
            test=heads.HeadTest(block_length=15, n_permutations=399, seed=[seed, 1]),
        )
    return found


def test_r_of_noise_is_centred_on_zero(noise):
    of_story = np.array([result.r.mean() for result in noise])
    error = of_story.std(ddof=1) / np.sqrt(len(of_story))
    assert abs(of_story.mean()) < 3 * error
    assert error < 0.01


def test_p_of_noise_is_honest(noise):
    p = np.vstack([result.p for result in noise])
    one_each = p[np.arange(len(p)), np.arange(len(p)) % p.shape[1]]  # independent
    low, high = binom.ppf([0.005, 0.995], one_each.size, 0.05) / one_each.size
    assert low <= (one_each <= 0.05).mean() <= high
    assert low <= (p <= 0.05).mean() <= high
    assert kstest(one_each, "uniform").pvalue > 0.01
