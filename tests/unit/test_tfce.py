"""Cluster enhancement against brute force on small volumes, and its family error."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import binom, ttest_1samp

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import tfce


def _cluster(above, start, connectivity):
    """Voxels of the cluster of a voxel, by a flood."""
    farthest = {6: 1, 18: 2, 26: 3}[connectivity]
    steps = [s for s in np.ndindex(3, 3, 3) if 0 < sum(abs(v - 1) for v in s) <= farthest]
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for step in steps:
            there = tuple(h + s - 1 for h, s in zip(here, step, strict=True))
            if there not in seen and all(
                0 <= t < n for t, n in zip(there, above.shape, strict=True)
            ) and above[there]:
                seen.add(there)
                todo.append(there)
    return seen


def _brute(volume, connectivity, e=0.5, h=2.0):
    """Exact integral: extents change only at the values that occur."""
    heights = np.unique(np.r_[0.0, volume[volume > 0]])
    found = np.zeros(volume.shape)
    for low, high in pairwise(heights):
        above = volume >= high
        rest = set(zip(*np.nonzero(above), strict=True))
        while rest:
            cluster = _cluster(above, next(iter(rest)), connectivity)
            rest -= cluster
            for voxel in cluster:
                found[voxel] += len(cluster)**e * (high ** (h + 1) - low ** (h + 1)) / (h + 1)
    return found


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_is_exact_for_values_on_the_steps(connectivity, seed):
    rng = np.random.default_rng(seed)
    volume = rng.integers(-4, 6, (4, 3, 5)) / 2.0
    mask = rng.random(volume.shape) < 0.8
    mask[0, 0, 0] = True
    volume[~mask] = 0.0
    found = tfce.enhance(volume[mask], mask, connectivity=connectivity, step=0.5)
    expected = _brute(np.maximum(volume, 0), connectivity) - _brute(
        np.maximum(-volume, 0), connectivity
    )
    np.testing.assert_allclose(found, expected[mask], rtol=1e-12)


def test_small_steps_come_close_to_the_integral(rng):
    volume = np.abs(rng.standard_normal((4, 4, 4)))
    mask = np.ones(volume.shape, bool)
    exact = _brute(volume, 26)[mask]
    found = tfce.enhance(volume[mask], mask, step=0.01)
    np.testing.assert_allclose(found, exact, rtol=0.03, atol=0.03)


def test_powers_and_position_of_the_mask(rng):
    small = np.abs(rng.standard_normal((3, 3, 3))).round(1)
    mask = np.zeros((9, 8, 7), bool)
    mask[4:7, 2:5, 1:4] = True
    found = tfce.enhance(
        small.ravel(), mask, extent_power=1.0, height_power=1.0, step=0.1, connectivity=6
    )
    np.testing.assert_allclose(found, _brute(small, 6, 1.0, 1.0).ravel(), rtol=1e-9, atol=1e-12)


def test_constant_cluster_by_hand():
    mask = np.zeros((4, 1, 1), bool)
    mask[[0, 1, 3]] = True
    found = tfce.enhance(np.array([2.0, 2.0, 1.0]), mask)
    np.testing.assert_allclose(found, [np.sqrt(2) * 8 / 3, np.sqrt(2) * 8 / 3, 1 / 3])
    found = tfce.enhance(np.array([np.nan, -1.0, 1.0]), mask)
    np.testing.assert_allclose(found, [0, -1 / 3, 1 / 3])


def test_flips_by_hand(rng):
    """All 2^5 sign patterns, each enhanced on its own."""
    mask = np.ones((3, 3, 2), bool)
    values = rng.standard_normal((5, 18)) + 0.5
    values[2, 4] = np.nan
    found = tfce.tfce_sign_flip_test(values, mask, n_permutations=32, rng=rng)
    t = ttest_1samp(values, 0, nan_policy="omit").statistic
    np.testing.assert_allclose(found.t, t)
    np.testing.assert_allclose(found.tfce, np.maximum(tfce.enhance(np.maximum(t, 0), mask), 0))
    null = []
    for number in range(32):
        signs = np.array([1 - 2 * (number >> k & 1) for k in range(5)])
        flipped = ttest_1samp(values * signs[:, None], 0, nan_policy="omit").statistic
        null.append(tfce.enhance(np.maximum(flipped, 0), mask))
    null = np.array(null)
    np.testing.assert_allclose(found.p, (null >= found.tfce - 1e-9).mean(axis=0))
    np.testing.assert_allclose(
        found.p_fwe, (null.max(axis=1)[:, None] >= found.tfce - 1e-9).mean(axis=0)
    )
    assert found.n_permutations == 31


@pytest.mark.parametrize("alternative", ["less", "two-sided"])
def test_other_directions_turn_with_the_data(rng, alternative):
    mask = np.ones((3, 3, 3), bool)
    values = rng.standard_normal((6, 27)) - 0.8
    given_, turned = (
        tfce.tfce_sign_flip_test(x, mask, n_permutations=64, rng=rng, alternative=a)
        for x, a in ((values, alternative),
                     (-values, "greater" if alternative == "less" else alternative))
    )
    np.testing.assert_allclose(given_.p_fwe, turned.p_fwe)
    np.testing.assert_allclose(given_.tfce, -turned.tfce)


def test_missing_voxels_get_nan(rng):
    mask = np.ones((2, 2, 1), bool)
    values = rng.standard_normal((5, 4))
    values[1:, 2] = np.nan
    found = tfce.tfce_sign_flip_test(values, mask, n_permutations=20, rng=rng)
    assert np.isnan([found.t[2], found.p[2], found.p_fwe[2]]).all()
    assert np.isfinite(np.delete(found.p_fwe, 2)).all()


def test_family_error_and_power_on_200_null_volumes():
    rng = np.random.default_rng(17)
    shape = (7, 7, 6)
    mask = np.ones(shape, bool)
    noise = gaussian_filter(rng.standard_normal((200, 12, *shape)), (0, 0, 1, 1, 1))
    noise = noise.reshape(200, 12, -1)
    noise /= noise.std()
    errors, found = 0, []
    for number, values in enumerate(noise):
        null = tfce.tfce_sign_flip_test(values, mask, n_permutations=59, rng=rng, step=0.5)
        errors += null.p_fwe.min() <= 0.05
        if number < 10:
            planted = values.reshape(12, *shape).copy()
            planted[:, 1:4, 1:4, 1:4] += 1.3
            signal = tfce.tfce_sign_flip_test(
                planted.reshape(12, -1), mask, n_permutations=59, rng=rng, step=0.5
            )
            found.append((signal.p_fwe.reshape(shape)[1:4, 1:4, 1:4] <= 0.05).mean())
    low, high = binom.ppf([0.005, 0.995], 200, 0.05)
    assert low <= errors <= high
    assert np.mean(found) > 0.8


def test_wrong_input_is_refused(rng):
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(NumericalError, match="Values have shape"):
        tfce.enhance(np.zeros(7), mask)
    with pytest.raises(NumericalError, match="7 neighbours"):
        tfce.enhance(np.zeros(8), mask, connectivity=7)
    with pytest.raises(NumericalError, match="0 voxels"):
        tfce.enhance(np.zeros(0), np.zeros((2, 2, 2), bool))
    with pytest.raises(NumericalError, match="more than 10000 steps"):
        tfce.enhance(np.full(8, 1e6), mask)
    with pytest.raises(NumericalError, match="expected 8"):
        tfce.tfce_sign_flip_test(np.zeros((4, 9)), mask, n_permutations=5, rng=rng)


def test_too_few_participants_are_refused_with_what_to_do():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(NumericalError, match="at least 4") as refused:
        tfce.tfce_sign_flip_test(
            np.ones((2, 27)), mask, n_permutations=10, rng=np.random.default_rng(1)
        )
    assert "--tfce" in str(refused.value.hint)
