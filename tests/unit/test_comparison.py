"""Comparison of feature spaces: scipy's paired tests, plain loops, NaN, messages."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.comparison import choose_layers, chosen, compare

NAMES = ("embeddings", "transformations", "static")


def _compare(values, n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return compare(values, n_permutations=n, n_bootstraps=500, rng=rng)


@pytest.fixture
def spaces(rng):
    """Return 3 spaces of 9 participants and 4 regions."""
    common = rng.standard_normal((9, 4))
    return {n: common + 0.5 * rng.standard_normal((9, 4)) + 0.3 * k for k, n in enumerate(NAMES)}


def test_pairs_stand_in_the_order_of_the_mapping(spaces):
    found = _compare(spaces)
    assert found.pairs == tuple((NAMES[a], NAMES[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    for (first, second), row in zip(found.pairs, found.difference, strict=True):
        np.testing.assert_allclose(row, (spaces[first] - spaces[second]).mean(axis=0))
    assert found.p.shape == (3, 4)
    assert (found.n_participants == 9).all()
    assert found.n_permutations == 2**9 - 1


def test_exact_p_equals_scipy(spaces):
    found = _compare(spaces)
    for k, (first, second) in enumerate(found.pairs):
        for region in range(4):
            peer = stats.permutation_test(
                (spaces[first][:, region], spaces[second][:, region]),
                lambda a, b: (a - b).mean(),
                permutation_type="samples",
                n_resamples=np.inf,
            )
            assert found.p[k, region] == pytest.approx(peer.pvalue)


def test_random_flips_agree_with_the_paired_t_test(rng):
    first, second = rng.standard_normal((2, 40, 6)) + 1.0
    first[:, 3:] += 0.5
    found = _compare({"a": first, "b": second}, n=9999)
    peer = stats.ttest_rel(first, second)
    np.testing.assert_allclose(found.p[0], peer.pvalue, atol=0.02)
    np.testing.assert_allclose(found.effect[0], peer.statistic / np.sqrt(40))
    assert found.n_permutations == 9999
    interval = peer.confidence_interval()
    np.testing.assert_allclose(found.low[0], interval.low, atol=0.08)
    np.testing.assert_allclose(found.high[0], interval.high, atol=0.08)


def test_family_is_all_pairs_and_regions(spaces):
    """Every one of the 2**9 patterns flips all cells at once."""
    found = _compare(spaces)
    gaps = np.stack([spaces[a] - spaces[b] for a, b in found.pairs], axis=1).reshape(9, -1)

    def t(values):
        return np.abs(stats.ttest_1samp(values, 0.0).statistic)

    patterns = np.array(list(product((1.0, -1.0), repeat=9)))
    largest = np.array([t(gaps * signs[:, None]).max() for signs in patterns])
    expected = [(largest >= one - 1e-9).mean() for one in t(gaps)]
    np.testing.assert_allclose(found.p_fwe.ravel(), expected)
    np.testing.assert_allclose(found.q.ravel(), stats.false_discovery_control(found.p.ravel()))


def test_missing_participants_leave_their_cell_only(spaces):
    whole = _compare(spaces)
    spaces["static"][2, 1] = np.nan
    spaces["embeddings"][1:, 3] = np.nan
    found = _compare(spaces)
    assert found.n_participants.tolist() == [[9, 9, 9, 1], [9, 8, 9, 1], [9, 8, 9, 9]]
    kept = np.delete(spaces["embeddings"] - spaces["static"], 2, axis=0)[:, 1]
    assert found.difference[1, 1] == pytest.approx(kept.mean())
    assert found.effect[1, 1] == pytest.approx(kept.mean() / kept.std(ddof=1))
    peer = stats.permutation_test((kept,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.p[1, 1] == pytest.approx(peer.pvalue)
    for name in ("difference", "low", "high", "effect", "p", "q", "p_fwe"):
        unknown = np.isnan(getattr(found, name))
        assert unknown.sum() == 2
        assert unknown[:2, 3].all()
    np.testing.assert_array_equal(found.p[:, 0], whole.p[:, 0])


def test_swapping_the_spaces_turns_the_sign_only(spaces):
    there = _compare({n: spaces[n] for n in NAMES[:2]})
    back = _compare({n: spaces[n] for n in NAMES[1::-1]})
    np.testing.assert_allclose(back.difference, -there.difference)
    np.testing.assert_allclose(back.effect, -there.effect)
    np.testing.assert_allclose((back.low, back.high), (-there.high, -there.low))
    np.testing.assert_array_equal(back.p, there.p)


def test_equal_spaces(spaces):
    one = spaces["static"]
    found = _compare({"a": one, "b": one.copy(), "c": one + 0.25})
    np.testing.assert_array_equal(found.p[0], 1.0)
    np.testing.assert_array_equal(found.difference[0], 0.0)
    assert np.isnan(found.effect).all()
    np.testing.assert_allclose(found.p[1], 2 / 2**9)


def test_same_seed_same_bits(spaces):
    for name in ("p", "low", "p_fwe"):
        first, second = (getattr(_compare(spaces, n=200, seed=4), name) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_layers_are_those_of_the_other_half(rng):
    z = rng.standard_normal((7, 5, 6))
    z[3, 2, 1] = np.nan
    choice = choose_layers(z)
    for person, region in np.ndindex(7, 5):
        others = [k for k in range(7) if k % 2 != person % 2]
        best = int(np.argmax(np.nanmean(z[others, region], axis=0)))
        assert choice[person, region] == best
        np.testing.assert_equal(chosen(z)[person, region], z[person, region, best])


def test_own_data_do_not_choose(rng):
    z = rng.standard_normal((6, 2, 4))
    changed = z.copy()
    changed[4] = 10.0 * rng.standard_normal((2, 4))
    for half in (0, 2, 4):
        np.testing.assert_array_equal(choose_layers(changed)[half], choose_layers(z)[half])


def test_layers_that_are_missing(rng):
    z = rng.standard_normal((4, 3, 3))
    z[:, 0] = np.nan
    z[1::2, 1, 2] = np.nan
    z[0, 2, 0] = np.nan
    z[1::2, 2, 0] = 9.0
    choice, values = choose_layers(z), chosen(z)
    assert (choice[:, 0] == -1).all()
    assert np.isnan(values[:, 0]).all()
    assert (choice[::2, 1] != 2).all()
    assert choice[0, 2] == 0
    assert np.isnan(values[0, 2])
    assert (choose_layers(np.zeros((4, 2, 3))) == 0).all()
    assert (choose_layers(z[:1]) == -1).all()
    single = np.abs(z[:, 2:, 1:2])
    np.testing.assert_array_equal(chosen(single), single[..., 0])


def test_messages(spaces, rng):
    with pytest.raises(NumericalError, match=r"static of shapes .* at least 2"):
        _compare({"static": spaces["static"]})
    with pytest.raises(NumericalError, match="none"):
        _compare({})
    with pytest.raises(NumericalError, match=r"\(9, 3\), \(9, 4\)"):
        _compare(spaces | {"static": spaces["static"][:, 1:]})
    with pytest.raises(NumericalError, match="participants by regions"):
        _compare({n: np.ones(4) for n in NAMES})
    with pytest.raises(NumericalError, match="finite"):
        _compare(spaces | {"static": np.full((9, 4), np.inf)})
    with pytest.raises(NumericalError, match="0 resamples"):
        _compare(spaces, n=0)
    for wrong in (np.ones((4, 3)), np.ones((4, 3, 0)), np.full((4, 3, 2), np.inf)):
        with pytest.raises(NumericalError, match="regions by layers"):
            choose_layers(wrong)
