"""The search on a device takes the same choice to the last bit; torch's CPU stands for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_brainlm import devices
from bids_brainlm.errors import ConfigError
from bids_brainlm.numerics import crossval, design, folds, ridge

NINE = np.logspace(-2, 6, 9)


def _problem(seed: int, sizes: tuple[int, ...], n_targets: int):
    """Bands of falling variance, targets that follow some of them, and inner folds."""
    rng = np.random.default_rng(seed)
    bands = [rng.standard_normal((80, n)) * np.arange(1, n + 1) ** -0.4 for n in sizes]
    bands = [(band - band.mean(0)) / np.sqrt((band**2).sum() / 80) for band in bands]
    targets = rng.standard_normal((80, n_targets))
    for band in bands:
        strength = rng.uniform(0, 1, n_targets)
        targets += strength * (band @ rng.standard_normal((band.shape[1], n_targets)))
    targets -= targets.mean(0)
    gammas = ridge.sample_gammas(len(sizes), 12, rng)
    inner = folds.contiguous_folds(np.arange(80), 3, 3)
    return ridge.linear_kernels(bands), targets, gammas, inner


def _assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.gamma_index, other.gamma_index)
        np.testing.assert_array_equal(one.alpha_index, other.alpha_index)
        np.testing.assert_array_equal(one.cv_score, other.cv_score)


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("alphas", [np.array([1.0]), NINE], ids=["one", "nine"])
@pytest.mark.parametrize("sizes", [(2, 3, 120), (1, 40, 120)], ids=["thin", "wide"])
@pytest.mark.parametrize("n_targets", [7, 300])
def test_same_bits_as_without_a_device(score, alphas, sizes, n_targets):
    kernels, targets, gammas, inner = _problem(1, sizes, n_targets)
    people = [targets[:, :5], targets[:, 5:]]
    expected = ridge.search(kernels, people, gammas, alphas, inner, score=score)
    assert len(np.unique(np.concatenate([each.gamma_index for each in expected]))) > 1
    for n_bytes in (2**29, 2**12):  # all at once, and few targets at a time
        screening = devices.TorchScreening("cpu", n_bytes)
        found = ridge.search(
            kernels, people, gammas, alphas, inner, score=score, screening=screening
        )
        _assert_equal(found, expected)


def test_bounds_hold_and_rule_out_most():
    """Count what comes back: the exact search must still see few pairs of many."""
    kernels, targets, gammas, inner = _problem(2, (1, 40, 120), 300)
    seen = []

    class Counting(devices.TorchScreening):
        """Keeps the number of candidates."""

        def candidates(self, *given):
            found = super().candidates(*given)
            seen.append(len(found[0]))
            return found

    ridge.search(kernels, [targets], gammas, NINE, inner, screening=Counting("cpu"))
    assert 300 <= sum(seen) < 0.1 * 300 * len(gammas) * len(NINE)


def test_missing_and_constant_targets():
    kernels, targets, gammas, inner = _problem(3, (1, 40, 120), 20)
    targets[:, 3] = 0.0
    targets[5, 7] = np.nan
    for score in ("r2", "r"):
        expected = ridge.search(kernels, [targets], gammas, NINE, inner, score=score, check=False)
        found = ridge.search(
            kernels, [targets], gammas, NINE, inner, score=score, check=False,
            screening=devices.TorchScreening("cpu"),
        )  # fmt: skip
        assert np.isnan(found[0].cv_score[7])
        _assert_equal(found, expected)


def test_a_whole_model_is_the_same():
    rng = np.random.default_rng(4)
    words, layer = rng.standard_normal((160, 2)), rng.standard_normal((160, 30))
    rows = np.ones(160, dtype=bool)
    bands = [design.Band("words", words, rows), design.Band("layer", layer, rows)]
    targets = [layer @ rng.standard_normal((30, 8)) + 3 * rng.standard_normal((160, 8))]
    plans = [
        crossval.make_plan(
            np.arange(160), n_folds=3, n_inner=3, gap=4, n_bands=2, n_gammas=8,
            alphas=(0.1, 1.0, 10.0, 100.0), delays=(1, 2), seed=1,
        )
        for _ in range(2)
    ]  # fmt: skip
    plans[1] = replace(plans[1], screening=devices.TorchScreening("cpu"))
    one, other = (crossval.crossvalidate(bands, targets, p, main="layer")[0] for p in plans)
    np.testing.assert_array_equal(one.prediction, other.prediction)
    np.testing.assert_array_equal(one.r2, other.r2)


def test_torch_settings_come_back():
    kernels, targets, gammas, inner = _problem(5, (1, 40), 6)
    torch.set_float32_matmul_precision("medium")
    try:
        ridge.search(
            kernels, [targets], gammas, NINE, inner, screening=devices.TorchScreening("cpu")
        )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_which_devices_are_used():
    assert devices.screening("cpu") is None
    assert devices.screening("cpu:0") is None
    for name in ("nonsense", "cuda:99", "meta", "hpu", "privateuseone"):
        with pytest.raises(ConfigError, match=r"cannot be used[\s\S]*--device cpu"):
            devices.screening(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_on_a_gpu():
    kernels, targets, gammas, inner = _problem(6, (1, 40, 120), 3000)
    for score in ("r2", "r"):
        expected = ridge.search(kernels, [targets], gammas, NINE, inner, score=score)
        found = ridge.search(
            kernels, [targets], gammas, NINE, inner, score=score,
            screening=devices.screening("cuda"),
        )  # fmt: skip
        _assert_equal(found, expected)
