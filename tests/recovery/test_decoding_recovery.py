"""Planted links of heads and labels are found, and nothing is found where nothing is planted."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from bids_brainlm.numerics import _decoding_null as null
from bids_brainlm.numerics import decoding, logistic, scaling
from bids_brainlm.numerics.multiple import benjamini_hochberg

N_DATASETS = 220
N_LABELS = 3
ROWS = np.flatnonzero(np.arange(209) % 25 != 7)  # 200 rows and 9 silent TRs


def ar1(rng, shape, rho):
    noise = rng.standard_normal((shape[0] + 100, *shape[1:]))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[100:]


def drifting(rng, shape):
    """Noise of 1 / f, half as much white noise."""
    frequencies = np.fft.rfftfreq(1024)
    frequencies[0] = frequencies[1]
    size = (frequencies.size, *shape[1:])
    spectrum = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    series = np.fft.irfft(spectrum / np.sqrt(frequencies)[:, None], axis=0)[: shape[0]]
    return series / series.std(axis=0) + 0.5 * rng.standard_normal(shape)


def labels_of(values, rates):
    return values > [np.quantile(v, 1 - rate) for v, rate in zip(values.T, rates, strict=True)]


MAKERS = {
    "mild": lambda rng, k: (ar1(rng, (k, 8), 0.6), ar1(rng, (k, N_LABELS), 0.3)),
    "strong": lambda rng, k: (ar1(rng, (k, 8), 0.9), ar1(rng, (k, N_LABELS), 0.8)),
    "drift": lambda rng, k: (drifting(rng, (k, 8)), drifting(rng, (k, N_LABELS))),
}


@pytest.mark.parametrize(
    "kind", [
        pytest.param("mild", marks=pytest.mark.slow),
        "strong",  # the hardest
        pytest.param("drift", marks=pytest.mark.slow),
    ],
)
def test_p_is_uniform_without_a_link(kind):
    """Autocorrelated heads and labels that know nothing of each other, C chosen inside."""
    plan = decoding.make_plan(ROWS, 4, 3, 3)
    p = []
    for dataset in range(N_DATASETS):
        rng = np.random.default_rng([dataset, len(kind)])
        X, values = MAKERS[kind](rng, ROWS.size)
        labels = labels_of(values, [0.15, 0.3, 0.5])
        found = decoding.decode(
            X[None], labels, plan, C=(1e-3, 1e-1, 1e1), n_permutations=99, rng=rng
        )
        p.extend(found.p[0][~np.isnan(found.p[0])])
    p = np.array(p)
    assert p.size >= 2.9 * N_DATASETS
    for level in (0.05, 0.2, 0.5):  # p are multiples of 0.01 and accuracies have ties: no K-S test
        low, high = binom.ppf([0.005, 0.995], p.size, level)
        assert low <= (p <= level).sum() <= high


def test_single_step_refits_spread_as_full_refits():
    """What stands in for a full fit on shifted labels has the same mean and deviation."""
    rng = np.random.default_rng(9)
    X = ar1(rng, (200, 16), 0.7)
    labels = labels_of(ar1(rng, (200, 4), 0.5), [0.15, 0.25, 0.4, 0.5])
    plan = decoding.make_plan(ROWS, 4, 3, 3)
    orders = null.shifts(200, 2, 10, 300, rng)
    shifted = null._shift(labels, orders, plan.outer)
    for C in (1e-3, 1e-1, 1e1):
        chosen = np.zeros((4, 4), dtype=int)
        settings = null.Settings(np.array([C]), True, False, 300, 10)
        quick = null._accuracies(X, shifted, plan.outer, chosen, settings)
        full = np.array([full_refit(X, labels[order], plan.outer, C) for order in orders]).T
        np.testing.assert_allclose(quick.mean(axis=1), full.mean(axis=1), atol=0.006)
        np.testing.assert_allclose(quick.std(axis=1), full.std(axis=1), rtol=0.12)


def full_refit(X, labels, outer, C):
    shares = []
    for fold in outer:
        scaler = scaling.fit(X, fold.train)
        model = logistic.fit(scaling.apply(X[fold.train], scaler), labels[fold.train], C)
        values = logistic.decide(scaling.apply(X[fold.test], scaler), model)
        shares.append(decoding.balanced_accuracy(labels[fold.test], values > 0))
    return np.nanmean(shares, axis=0)


def test_permuting_only_the_decisions_would_be_too_lenient():
    """The reason for refits: held-out decisions of all folds depend on the same labels."""
    p = []
    plan = decoding.make_plan(ROWS, 4, 3, 3)
    for dataset in range(N_DATASETS):
        rng = np.random.default_rng([dataset, 77])
        X, values = MAKERS["mild"](rng, ROWS.size)
        labels = labels_of(values, [0.3, 0.4, 0.5])
        found = decoding.decode(
            X[None], labels, plan, C=(1e-2,), n_permutations=0, keep_decisions=True
        )
        predicted = found.decision[0] > 0
        shares = np.array([
            np.mean([
                decoding.balanced_accuracy(labels[order][fold.test], predicted[fold.test])
                for fold in plan.outer
            ], axis=0)
            for order in null.shifts(ROWS.size, 2, 10, 99, rng)
        ])
        p.extend(((shares >= found.accuracy[0] - 1e-9).sum(axis=0) + 1) / 100)
    p = np.array(p)
    assert (p[~np.isnan(p)] <= 0.05).mean() > 0.08


def test_a_planted_link_is_found_and_no_other():
    rng = np.random.default_rng(21)
    n_heads, n_labels = 6, 5
    X = np.stack([ar1(rng, (200, 12), 0.6) for _ in range(n_heads)])
    values = ar1(rng, (200, n_labels), 0.3)
    values /= values.std(axis=0)
    links = {(3, 2): 1.0, (0, 4): 0.7}
    for (head, label), size in links.items():
        signal = X[head] @ rng.standard_normal(12)
        values[:, label] = size * 2 * signal / signal.std() + values[:, label]
    labels = labels_of(values, [0.2, 0.4, 0.3, 0.5, 0.25])
    plan = decoding.make_plan(ROWS, 5, 4, 3)
    found = decoding.decode(X, labels, plan, n_permutations=499, rng=rng)
    planted = np.zeros((n_heads, n_labels), dtype=bool)
    planted[tuple(np.array(list(links)).T)] = True
    assert (found.accuracy[planted] > 0.7).all()
    assert found.accuracy[~planted].max() < 0.65
    assert abs(found.accuracy[~planted].mean() - 0.5) < 0.02
    assert (found.p[planted] == 1 / 500).all()
    assert (found.p_fwe[planted] <= 0.01).all()
    q = benjamini_hochberg(found.p)
    assert (q[planted] <= 0.05).all()
    assert (q[~planted] <= 0.05).sum() <= 1  # the rate allows for one in twenty of what is found
    np.testing.assert_allclose(found.null_mean, 0.5, atol=0.02)


def test_shuffled_folds_leak_and_the_null_shows_it():
    """Neighbours among the training rows: without any link, accuracy is far above 0.5."""
    rng = np.random.default_rng(3)
    X = np.stack([ar1(rng, (200, 12), 0.9) for _ in range(8)])
    labels = labels_of(ar1(rng, (200, 4), 0.8), [0.3, 0.4, 0.5, 0.5])
    blocked = decoding.make_plan(ROWS, 5, 4, 5)
    shuffled = decoding.make_plan(ROWS, 5, 4, 0, shuffled=True, seed=1)
    scores = {}
    for name, plan in {"blocked": blocked, "shuffled": shuffled}.items():
        scores[name] = decoding.decode(X, labels, plan, n_permutations=99, rng=rng)
    assert abs(scores["blocked"].accuracy.mean() - 0.5) < 0.03
    assert scores["shuffled"].accuracy.mean() > 0.58
    assert scores["shuffled"].null_mean.mean() == pytest.approx(
        scores["shuffled"].accuracy.mean(), abs=0.02
    )
