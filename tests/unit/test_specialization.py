"""Principal components of heads: by hand and by scikit-learn, degenerate parcels, messages."""

import itertools

import numpy as np
import pytest
from sklearn.decomposition import PCA

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.specialization import specialize


def _specialize(excess, seed=0, **changes):
    settings = {"n_permutations": 64, "n_splits": 10, "n_components": 3}
    return specialize(excess, rng=np.random.default_rng(seed), **(settings | changes))


@pytest.fixture
def excess(rng):
    """Return values of 6 participants, 20 heads and 15 parcels that share two dimensions."""
    shared = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 15))
    return 0.4 * (shared + rng.standard_normal((6, 20, 15)))


def _pattern(one):
    """What a model of one term a head and one a parcel leaves, of variance 1."""
    n_heads, n_parcels = one.shape
    design = np.zeros((one.size, n_heads + n_parcels))
    for row, (head, parcel) in enumerate(np.ndindex(one.shape)):
        design[row, [head, n_heads + parcel]] = 1.0
    values = one.ravel()
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return left.reshape(one.shape) / left.std()


def _group(excess):
    return np.mean([_pattern(one) for one in excess], axis=0)


def test_equals_scikit_learn(excess):
    found = _specialize(excess)
    peer = PCA(3, svd_solver="full").fit(_group(excess))
    np.testing.assert_allclose(found.share, peer.explained_variance_ratio_)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(peer.transform(_group(excess))))
    # Divisors of variances: n_heads - 1 there, n_heads here; of agreement, parcels too.
    np.testing.assert_allclose(found.agreement, peer.explained_variance_ * 19 / 20 / 15)
    np.testing.assert_allclose((found.scores**2).mean(axis=0), found.agreement * 15)


def test_loadings_are_correlations_with_each_parcel(excess):
    found = _specialize(excess)
    group = _group(excess)
    for k, parcel in np.ndindex(3, 15):
        r = np.corrcoef(group[:, parcel], found.scores[:, k])[0, 1]
        assert found.loadings[k, parcel] == pytest.approx(r)
    assert (found.loadings.sum(axis=1) >= 0).all()
    np.testing.assert_allclose(found.scores.mean(axis=0), 0, atol=1e-12)


def test_all_components_hold_all_variance(excess):
    found = _specialize(excess, n_components=100, n_permutations=1, n_splits=1)
    assert found.scores.shape == (20, 14)  # the mean over parcels is taken out
    assert found.share.sum() == pytest.approx(1.0)
    assert found.agreement.sum() == pytest.approx(_group(excess).var())
    np.testing.assert_allclose((found.loadings**2).sum(axis=0), 1.0)
    few = _specialize(excess[:, :5], n_components=100, n_permutations=1, n_splits=1)
    assert few.scores.shape == (5, 4)


def _top(mean):
    return np.linalg.svd(mean, compute_uv=False)[0] ** 2 / mean.size


def test_p_of_the_first_component_equals_all_patterns_of_signs(excess):
    noisy = 0.3 * excess + np.random.default_rng(1).standard_normal(excess.shape)
    found = _specialize(noisy, n_components=1)
    patterns = np.stack([_pattern(one) for one in noisy])
    every = [
        _top(np.tensordot(signs, patterns, 1) / 6) for signs in itertools.product([1, -1], repeat=6)
    ]
    assert found.agreement[0] == pytest.approx(every[0])
    expected = np.mean(np.array(every) >= every[0] * (1 - 1e-9))
    assert 1 / 32 < expected < 1
    assert found.p[0] == pytest.approx(expected)
    assert found.null_95[0] == pytest.approx(np.quantile(every[1:], 0.95))
    drawn = _specialize(noisy, n_components=1, n_permutations=63)
    assert drawn.p[0] == pytest.approx(expected, abs=0.2)


def test_p_of_a_later_component_is_that_of_what_is_left(excess):
    found = _specialize(excess, n_components=2)
    patterns = np.stack([_pattern(one) for one in excess])
    u, _, v = np.linalg.svd(patterns.mean(axis=0))
    heads, parcels = (np.eye(len(a)) - np.outer(a, a) for a in (u[:, 0], v[0]))
    left = heads @ patterns @ parcels
    every = [
        _top(np.tensordot(signs, left, 1) / 6) for signs in itertools.product([1, -1], repeat=6)
    ]
    assert found.agreement[1] == pytest.approx(every[0])
    own = np.mean(np.array(every) >= every[0] * (1 - 1e-9))
    assert found.p[1] == pytest.approx(max(own, found.p[0]))
    assert found.null_95[1] == pytest.approx(np.quantile(every[1:], 0.95))


def test_participants_who_agree_in_everything(rng):
    """All dimensions are shared; the shares alone would not tell."""
    one = rng.random((20, 15))
    found = _specialize(np.stack([one + k for k in (1.0, 2.0, 5.0, 0.1, 3.0, 7.0)]))
    np.testing.assert_allclose(found.agreement, found.share)
    np.testing.assert_allclose(found.p, 1 / 32)
    np.testing.assert_allclose(found.reliability, 1.0)
    assert (found.null_95 < found.agreement).all()


def test_components_without_variance_are_nothing(rng):
    """All share one dimension exactly."""
    pattern = np.outer(rng.standard_normal(8), rng.standard_normal(5))
    found = _specialize(np.stack([pattern * k for k in (0.3, 1.0, 0.7, 2.0, 1.5, 0.2)]))
    assert found.share[0] == pytest.approx(1.0)
    np.testing.assert_array_equal(found.agreement[1:], 0.0)
    np.testing.assert_array_equal(found.p, [1 / 32, 1.0, 1.0])
    assert np.isnan(found.loadings[1:]).all()


def test_weights_of_heads_and_parcels_as_a_whole_do_not_matter(excess, rng):
    """Each participant has sizes of their own of heads and of parcels, and a noise level."""
    heads, parcels = rng.uniform(-2, 2, (6, 20, 1)), rng.uniform(-2, 2, (6, 1, 15))
    size = rng.uniform(0.5, 2, (6, 1, 1))
    first, second = _specialize(excess), _specialize(heads + parcels + excess * size)
    for name in ("scores", "loadings", "share", "agreement", "p", "reliability"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-9)


def test_p_never_falls(excess):
    for seed in range(5):
        found = _specialize(excess, seed, n_components=6, n_permutations=30)
        assert (np.diff(found.p) >= 0).all()


def test_parcels_that_are_not_known(excess):
    excess[:, 4, 0] = np.nan  # in all
    excess[:, :, 1] = 2.5  # constant
    excess[:4, 7, 2] = np.nan  # in 4 of 6
    excess[:3, 7, 5] = np.nan  # in 3 of 6
    excess[:, :, 6] = 0.0  # no weight at all, as in the null
    found = _specialize(excess)
    assert found.n_participants.tolist() == [0, 0, 2, 6, 6, 3, 0] + [6] * 8
    left_out = np.array([True] * 3 + [False] * 3 + [True] + [False] * 8)
    assert (np.isnan(found.loadings) == left_out).all()
    assert np.isfinite(found.scores).all()
    assert not np.isnan(found.p).any()
    total = np.zeros((20, 15))
    for person, one in enumerate(excess):
        known = ~left_out & ((np.arange(15) != 5) | (person >= 3))
        total[:, known] += _pattern(one[:, known])
    mean = (total / np.where(np.arange(15) == 5, 3, 6))[:, ~left_out]
    mean -= mean.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.share, PCA(3).fit(mean).explained_variance_ratio_)


def test_participants_with_too_few_parcels_do_not_count(excess):
    excess[0, 0, 2:] = np.nan  # two parcels are left
    found, without = _specialize(excess), _specialize(excess[1:])
    assert found.n_participants.tolist() == [5] * 15
    np.testing.assert_allclose(found.scores, without.scores)


def test_one_participant_has_no_null(excess):
    found = _specialize(excess[:1])
    for name in ("p", "null_95", "reliability"):
        assert np.isnan(getattr(found, name)).all()
    np.testing.assert_allclose(found.agreement, found.share)
    assert np.isfinite(found.loadings).all()


def test_two_participants_and_missing_halves(excess):
    pair = excess[:2].copy()
    found = _specialize(pair)
    assert np.isfinite(found.reliability).all()
    assert (found.p >= 0.5).all()
    pair[0, 0, :12] = np.nan
    assert np.isnan(_specialize(pair).reliability).all()  # 3 parcels in both, 3 components


def test_same_seed_same_bits(excess):
    first, second = (_specialize(excess, 3, n_permutations=30) for _ in range(2))
    for name in ("scores", "p", "null_95", "reliability"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_messages(excess):
    with pytest.raises(NumericalError, match="at least 4 heads"):
        _specialize(excess[:, :3])
    with pytest.raises(NumericalError, match=r"\(20, 15\)"):
        _specialize(excess[0])
    with pytest.raises(NumericalError, match="finite"):
        _specialize(np.where(excess > excess.max() - 1e-9, np.inf, excess))
    with pytest.raises(NumericalError, match="0 of 15 parcels"):
        _specialize(np.ones_like(excess))
    with pytest.raises(NumericalError, match="2 parcels, expected at least 3") as caught:
        _specialize(excess[:, :, :2])
    assert "--atlas" in caught.value.hint
    with pytest.raises(NumericalError, match="same relative weights"):
        _specialize(np.repeat(excess[:, :, :1], 4, axis=2))
    with pytest.raises(NumericalError, match="0 permutations"):
        _specialize(excess, n_permutations=0)
