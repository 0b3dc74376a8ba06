"""Ceilings against brute force and planted truth; coverage of their intervals."""

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.linear_model import Ridge

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _ceilings, ceilings, folds, isc


def _noise(rng, shape, rho=0.5):
    noise = rng.standard_normal((shape[0], shape[1] + 60, *shape[2:]))
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 60:] * np.sqrt(1 - rho**2)


def _shared(rng, n_participants, n_trs, n_parcels, share):
    """Series of variance 1 of which ``share`` is the same for all."""
    signal = _noise(rng, (1, n_trs, n_parcels))
    noise = _noise(rng, (n_participants, n_trs, n_parcels))
    return np.sqrt(share) * signal + np.sqrt(1 - share) * noise


def test_leave_one_out_value_is_isc(rng):
    series = _shared(rng, 9, 80, 4, 0.2)
    series[2, :, 1] = 0.0
    found = ceilings.leave_one_out_ceiling(series, n_bootstraps=50, rng=rng)
    own = isc.leave_one_out(series)
    np.testing.assert_allclose(found.own, own)
    np.testing.assert_allclose(found.value, np.tanh(np.nanmean(np.arctanh(own), axis=0)))
    assert (found.low < found.high).all()


def test_pair_formula_is_exact_for_the_sample_and_counts_copies_as_people(rng):
    """The formula on the sample equals isc; with copies, a plain loop over pairs."""
    series = _shared(rng, 7, 60, 3, 0.3)
    pairs = np.stack([np.corrcoef(series[:, :, v]) for v in range(3)])
    apart, present = _ceilings.apart(pairs)
    whole = _ceilings.mean_loo(np.ones((1, 7)), apart, present)[0]
    np.testing.assert_allclose(whole, np.arctanh(isc.leave_one_out(series)).mean(axis=0))
    drawn = [0, 0, 2, 3, 3, 3, 6]
    counts = np.bincount(drawn, minlength=7).astype(float)[None]
    found = _ceilings.mean_loo(counts, apart, present)[0]
    for v in range(3):
        z = []
        for i in drawn:
            others = [j for j in drawn if j != i]
            m = np.mean([pairs[v, i, j] for j in others])
            c = np.mean([pairs[v, j, k] for a, j in enumerate(others) for k in others[a + 1:]
                         if j != k])
            z.append(np.arctanh(m / np.sqrt((1 + 5 * c) / 6)))
        assert found[v] == pytest.approx(np.mean(z))


def test_resampled_leave_one_out_is_centred_on_the_value(rng):
    """Copies neither raise it (self-pairs) nor lower it (a noisier reference)."""
    series = _shared(rng, 20, 300, 20, 0.2)
    pairs = np.stack([np.corrcoef(series[:, :, v]) for v in range(20)])
    counts = rng.multinomial(20, np.full(20, 0.05), 400).astype(float)
    drawn = np.tanh(_ceilings.mean_loo(counts, *_ceilings.apart(pairs))).mean()
    value = np.tanh(np.arctanh(isc.leave_one_out(series)).mean(axis=0)).mean()
    assert drawn == pytest.approx(value, abs=0.01)


def test_split_half_by_hand(rng):
    series = _shared(rng, 7, 90, 3, 0.2)
    found = ceilings.split_half_ceiling(
        series, n_bootstraps=20, n_splits=8, rng=np.random.default_rng(3)
    )
    splits = np.random.default_rng(3).permuted(np.tile(np.arange(7) < 3, (8, 1)), axis=1)
    z = (series - series.mean(axis=1, keepdims=True)) / series.std(axis=1, keepdims=True)
    r = np.array([
        [np.corrcoef(z[s, :, v].mean(0), z[~s, :, v].mean(0))[0, 1] for v in range(3)]
        for s in splits
    ])
    half = np.tanh(np.arctanh(r).mean(axis=0))
    np.testing.assert_allclose(found.value, np.where(half > 0, 2 * half / (1 + half), half))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_split_half_finds_the_planted_reliability(share):
    rng = np.random.default_rng(int(10 * share))
    n = 20
    series = _shared(rng, n, 2000, 10, share)
    found = ceilings.split_half_ceiling(series, n_bootstraps=50, n_splits=20, rng=rng)
    expected = n * share / (1 + (n - 1) * share)
    assert found.value.mean() == pytest.approx(expected, abs=0.02)
    loo = ceilings.leave_one_out_ceiling(series, n_bootstraps=50, rng=rng)
    planted = share / np.sqrt((share * (n - 1) + 1 - share) / (n - 1))
    assert loo.value.mean() == pytest.approx(planted, abs=0.02)


def test_few_people_give_no_interval(rng):
    found = ceilings.leave_one_out_ceiling(_shared(rng, 5, 60, 3, 0.3), n_bootstraps=99, rng=rng)
    assert np.isfinite(found.value).all()
    assert np.isnan(found.low).all()
    assert not found.usable.any()


def test_intervals_cover_and_noise_is_not_usable():
    """Participants differ in signal; the truth is that of the mean participant."""
    rng = np.random.default_rng(11)
    signal = _noise(rng, (1, 4000, 1))
    n = 16

    def sample(n_people, n_parcels, n_trs=300):
        gain = rng.uniform(0.1, 0.7, (n_people, 1, n_parcels))
        return gain * signal[:, :n_trs] + _noise(rng, (n_people, n_trs, n_parcels))

    many = sample(400, 1)
    crowd = many[:, :, 0]
    truth = np.mean([
        np.arctanh(isc.leave_one_out(crowd[start:start + n, :, None])).mean()
        for start in range(0, 400, n)
    ])
    series = sample(n, 150)
    loo = ceilings.leave_one_out_ceiling(series, n_bootstraps=200, rng=rng)
    covered = (loo.low <= np.tanh(truth)) & (np.tanh(truth) <= loo.high)
    assert covered.mean() > 0.87
    assert loo.usable.mean() > 0.95
    noise = _noise(rng, (n, 300, 200))
    for found in (
        ceilings.leave_one_out_ceiling(noise, n_bootstraps=200, rng=rng),
        ceilings.split_half_ceiling(noise, n_bootstraps=200, n_splits=20, rng=rng),
    ):
        assert found.usable.mean() <= 0.05


def _sklearn_cross(series, outer, alpha):
    """Plain loops, one penalty, features of the others side by side."""
    n, _, n_parcels = series.shape
    z = series - series.mean(axis=1, keepdims=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    own = np.empty((n, n_parcels))
    for i in range(n):
        others = np.concatenate([z[j] for j in range(n) if j != i], axis=1)
        r = []
        for fold in outer:
            x = others[fold.train]
            size = ((x - x.mean(axis=0)) ** 2).sum() / len(x)
            model = Ridge(alpha=alpha * size).fit(x, z[i][fold.train])
            guess = model.predict(others[fold.test])
            r.append([np.corrcoef(guess[:, v], z[i][fold.test, v])[0, 1] for v in range(n_parcels)])
        own[i] = np.mean(r, axis=0)
    return own


def test_cross_subject_equals_sklearn(rng):
    series = _shared(rng, 4, 90, 5, 0.3)
    found = ceilings.cross_subject_ceiling(
        series, n_folds=3, n_inner=2, gap=4, alphas=[0.5], n_groups=0
    )
    outer = folds.contiguous_folds(np.arange(90), 3, 4)
    np.testing.assert_allclose(found.own, _sklearn_cross(series, outer, 0.5), atol=1e-8)
    assert np.isnan(found.low).all()
    assert not found.usable.any()


def test_cross_subject_sees_through_other_topographies():
    """Every participant has the shared sources in other parcels: ISC is blind, ridge is not."""
    rng = np.random.default_rng(21)
    sources = _noise(rng, (1, 240, 3))[0]
    series = np.stack([
        sources @ rng.standard_normal((3, 12)) + _noise(rng, (1, 240, 12))[0] for _ in range(6)
    ])
    setting = {"n_folds": 3, "n_inner": 2, "gap": 8, "alphas": np.logspace(-2, 2, 3)}
    ridge = ceilings.cross_subject_ceiling(series, n_groups=3, **setting)
    assert ridge.value.mean() > 0.55
    assert ridge.usable.mean() > 0.9
    assert isc.leave_one_out(series).mean() < 0.3
    noise = ceilings.cross_subject_ceiling(_noise(rng, (6, 240, 40)), n_groups=3, **setting)
    assert abs(noise.value.mean()) < 0.05
    assert noise.usable.mean() <= 0.1


def test_explainable_variance_of_two_runs_is_their_correlation(rng):
    repeats = _shared(rng, 2, 200, 5, 0.4)
    repeats[1, :, 4] = 2.0
    found = ceilings.explainable_variance(repeats)
    expected = [np.corrcoef(*repeats[:, :, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(found[:4], expected)
    assert np.isnan(found[4])
    raw = ceilings.explainable_variance(repeats, correct_bias=False)
    np.testing.assert_allclose(raw[:4], (1 + np.array(expected)) / 2)


@pytest.mark.parametrize("n_repeats", [2, 3, 5])
def test_explainable_variance_is_unbiased(n_repeats):
    rng = np.random.default_rng(n_repeats)
    for share in (0.0, 0.3):
        found = ceilings.explainable_variance(_shared(rng, n_repeats, 400, 200, share))
        assert found.mean() == pytest.approx(share, abs=0.015)


def test_signal_power_of_schoppe(rng):
    """On z-scored runs the corrected value is their signal power over the mean variance."""
    repeats = _shared(rng, 4, 100, 3, 0.3)
    z = (repeats - repeats.mean(1, keepdims=True)) / repeats.std(1, ddof=1, keepdims=True)
    n = 4
    power = (z.sum(0).var(0, ddof=1) - z.var(1, ddof=1).sum(0)) / (n * (n - 1))
    np.testing.assert_allclose(ceilings.explainable_variance(repeats), power)


def test_repeat_ceiling(rng):
    people = [_shared(rng, 2, n_trs, 6, 0.3) for n_trs in (300, 310, 290, 300, 280, 300, 300, 300)]
    people += [_shared(rng, 3, 300, 6, 0.3)]
    found = ceilings.repeat_ceiling(people, n_bootstraps=200, rng=rng)
    np.testing.assert_allclose(found.value, found.own.mean(axis=0))
    assert found.usable.all()
    assert ((found.low < found.value) & (found.value < found.high)).all()


def test_wrong_input_is_refused(rng):
    with pytest.raises(NumericalError, match="n_participants >= 4"):
        ceilings.leave_one_out_ceiling(np.zeros((3, 20, 2)), n_bootstraps=5, rng=rng)
    with pytest.raises(NumericalError, match="level 2"):
        ceilings.leave_one_out_ceiling(np.zeros((5, 20, 2)), n_bootstraps=5, rng=rng, level=2)
    with pytest.raises(NumericalError, match="Found 0 splits"):
        ceilings.split_half_ceiling(np.zeros((5, 20, 2)), n_bootstraps=5, rng=rng, n_splits=0)
    with pytest.raises(NumericalError, match="n_repeats >= 2"):
        ceilings.explainable_variance(np.zeros((1, 20, 2)))
    with pytest.raises(NumericalError, match="Nobody heard"):
        ceilings.repeat_ceiling([], n_bootstraps=5, rng=rng)
    with pytest.raises(NumericalError, match="No other participant"):
        ceilings.cross_subject_ceiling(
            np.zeros((4, 60, 2)), n_folds=2, n_inner=2, gap=2, alphas=[1.0]
        )
