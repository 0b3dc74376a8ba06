"""Principal components of heads: by hand and by scikit-learn, degenerate parcels, messages."""

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.specialization import specialize


def _specialize(norms, seed=0, **changes):
    settings = {"n_permutations": 49, "n_splits": 10, "n_components": 3}
    return specialize(norms, rng=np.random.default_rng(seed), **(settings | changes))


@pytest.fixture
def norms(rng):
    """Return norms of 6 participants, 20 heads and 15 parcels that share two dimensions."""
    shared = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 15))
    return np.exp(0.4 * (shared + rng.standard_normal((6, 20, 15))))


def _group(norms):
    """Mean over participants of z-scores over heads, z-scored again."""
    return stats.zscore(stats.zscore(norms, axis=1).mean(axis=0), axis=0)


def test_equals_scikit_learn(norms):
    found = _specialize(norms)
    peer = PCA(3, svd_solver="full").fit(_group(norms))
    np.testing.assert_allclose(found.share, peer.explained_variance_ratio_)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(peer.transform(_group(norms))))
    # A loading is the eigenvector times the root of its eigenvalue (divisor n_heads).
    scaled = peer.components_ * np.sqrt(peer.explained_variance_ * 19 / 20)[:, None]
    np.testing.assert_allclose(np.abs(found.loadings), np.abs(scaled))


def test_loadings_are_correlations_with_each_parcel(norms):
    found = _specialize(norms)
    group = _group(norms)
    for k, parcel in np.ndindex(3, 15):
        r = stats.pearsonr(group[:, parcel], found.scores[:, k]).statistic
        assert found.loadings[k, parcel] == pytest.approx(r)
    assert (found.loadings.sum(axis=1) >= 0).all()
    np.testing.assert_allclose((found.loadings**2).mean(axis=1), found.share)
    np.testing.assert_allclose(found.scores.mean(axis=0), 0, atol=1e-12)


def test_all_components_hold_all_variance(norms):
    found = _specialize(norms, n_components=100, n_permutations=1, n_splits=1)
    assert found.scores.shape == (20, 15)
    assert found.share.sum() == pytest.approx(1.0)
    size = np.sqrt((found.scores**2).mean(axis=0))
    np.testing.assert_allclose(found.scores / size @ found.loadings, _group(norms), atol=1e-10)
    few = _specialize(norms[:, :5], n_components=100, n_permutations=1, n_splits=1)
    assert few.scores.shape == (5, 4)


def test_agreement_is_variance_of_the_mean_along_the_component(norms):
    found = _specialize(norms)
    mean = stats.zscore(norms, axis=1).mean(axis=0)
    for k in range(3):
        fits = [stats.pearsonr(mean[:, v], found.scores[:, k]).statistic ** 2 for v in range(15)]
        expected = np.mean(fits * mean.var(axis=0))
        assert found.agreement[k] == pytest.approx(expected)


def test_p_of_the_first_component_equals_a_plain_loop(norms):
    """The same pipeline on heads permuted in each participant, by numpy's own functions."""
    noisy = norms * np.exp(1.5 * np.random.default_rng(1).standard_normal(norms.shape))
    found = _specialize(noisy, n_components=1, n_permutations=999)

    def agreement(values):
        mean = stats.zscore(values, axis=1).mean(axis=0)
        left = np.linalg.svd(stats.zscore(mean, axis=0))[0][:, 0]
        return ((left @ mean) ** 2).sum() / mean.size

    rng = np.random.default_rng(5)
    assert found.agreement[0] == pytest.approx(agreement(noisy))
    null = np.array(
        [agreement(np.stack([one[rng.permutation(20)] for one in noisy])) for _ in range(999)]
    )
    expected = (1 + (null >= found.agreement[0]).sum()) / 1000
    assert found.p[0] == pytest.approx(expected, abs=0.05)
    assert found.null_95[0] == pytest.approx(np.quantile(null, 0.95), rel=0.05)


def test_participants_who_agree_in_everything(rng):
    """All dimensions are shared; the shares alone would not tell."""
    one = rng.random((20, 15))
    found = _specialize(np.stack([one * k + k for k in (1.0, 2.0, 5.0, 0.1)]), n_components=4)
    np.testing.assert_allclose(found.agreement, found.share)
    np.testing.assert_allclose(found.p, 1 / 50)
    np.testing.assert_allclose(found.reliability, 1.0)
    assert (found.null_95 < found.agreement).all()


def test_scale_of_participants_and_parcels_does_not_matter(norms, rng):
    scale, shift = rng.uniform(0.1, 10, (2, 6, 1, 15))
    first, second = _specialize(norms), _specialize(norms * scale + shift)
    for name in ("scores", "loadings", "share", "agreement", "p", "reliability"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-9)


def test_p_never_falls(norms):
    for seed in range(5):
        assert (np.diff(_specialize(norms, seed, n_components=6).p) >= 0).all()


def test_parcels_that_are_not_known(norms):
    norms[:, 4, 0] = np.nan  # in all
    norms[:, :, 1] = 2.5  # constant
    norms[:4, 7, 2] = np.nan  # in 4 of 6
    norms[:3, 7, 5] = np.nan  # in 3 of 6
    found = _specialize(norms)
    assert found.n_participants.tolist() == [0, 0, 2, 6, 6, 3] + [6] * 9
    assert np.isnan(found.loadings).tolist() == [[True] * 3 + [False] * 12] * 3
    assert np.isfinite(found.scores).all()
    assert not np.isnan(found.p).any()
    z = stats.zscore(norms[:, :, 3:], axis=1)
    z[:3, :, 2] = np.nan
    mean = stats.zscore(np.nanmean(z, axis=0), axis=0)
    np.testing.assert_allclose(found.share, PCA(3).fit(mean).explained_variance_ratio_)


def test_one_participant_has_no_null(norms):
    found = _specialize(norms[:1])
    for name in ("p", "null_95", "reliability"):
        assert np.isnan(getattr(found, name)).all()
    np.testing.assert_allclose(found.agreement, found.share)
    assert np.isfinite(found.loadings).all()


def test_two_participants_and_missing_halves(norms):
    pair = norms[:2].copy()
    assert np.isfinite(_specialize(pair).reliability).all()
    pair[0, 0, :13] = np.nan
    assert np.isnan(_specialize(pair).reliability).all()  # 2 parcels in both, 3 components


def test_same_seed_same_bits(norms):
    first, second = _specialize(norms, 3), _specialize(norms, 3)
    for name in ("scores", "p", "null_95", "reliability"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_messages(norms):
    with pytest.raises(NumericalError, match="at least 4 heads"):
        _specialize(norms[:, :3])
    with pytest.raises(NumericalError, match=r"\(20, 15\)"):
        _specialize(norms[0])
    with pytest.raises(NumericalError, match="finite"):
        _specialize(np.where(norms > norms.max() - 1e-9, np.inf, norms))
    with pytest.raises(NumericalError, match="None of 15 parcels"):
        _specialize(np.ones_like(norms))
    with pytest.raises(NumericalError, match="0 permutations"):
        _specialize(norms, n_permutations=0)
