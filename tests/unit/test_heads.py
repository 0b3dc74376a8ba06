"""Heads: against masked primal coefficients, and as parts that add up to their band."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, heads

N_TRS, N_HEADS, HEAD_DIM, DELAYS = 90, 6, 5, (1, 2, 3)
GROUPS = np.arange(N_HEADS * HEAD_DIM).reshape(N_HEADS, HEAD_DIM)


def _plan(**changes):
    settings = {
        "n_folds": 3, "n_inner": 3, "gap": 2, "n_bands": 2, "n_gammas": 5,
        "alphas": (0.1, 1.0, 10.0), "delays": DELAYS, "seed": 1,
    }  # fmt: skip
    return crossval.make_plan(np.arange(4, N_TRS - 3), **(settings | changes))


@pytest.fixture
def bands(rng):
    valid = rng.random(N_TRS) > 0.15
    features = rng.standard_normal((N_TRS, N_HEADS * HEAD_DIM)) * 3 + 1
    counts = rng.standard_normal((N_TRS, 2))
    return [design.Band("counts", counts, np.ones(N_TRS, bool)), _model(features, valid)]


def _model(features, valid):
    return design.Band("model", np.where(valid[:, None], features, 0.0), valid)


@pytest.fixture
def targets(rng, bands):
    signal = bands[1].features[:-2] @ rng.standard_normal((N_HEADS * HEAD_DIM, 9))
    return [5.0 + rng.standard_normal((N_TRS, 9)) + np.vstack([np.zeros((2, 9)), signal]) / 15]


def _by_hand(band, fold, delays):
    """Standardise on valid training rows, delay, centre, scale: written out."""
    good = [row for row in fold.train if band.valid[row]]
    z = (band.features - band.features[good].mean(0)) / band.features[good].std(0)
    z[~band.valid] = 0
    columns = []
    for lag in delays:
        columns.append(np.vstack([np.zeros((lag, z.shape[1])), z[: len(z) - lag]]))
    X = np.hstack(columns)
    train, test = X[fold.train], X[fold.test]
    train, test = train - train.mean(0), test - train.mean(0)
    size = np.sqrt(np.trace(train @ train.T) / len(train))
    return train / size, test / size


@pytest.mark.parametrize("delays", [DELAYS, (1, 2, 3, 4), (0, 1), (2, 5)], ids=str)
def test_equals_masked_primal_coefficients(bands, targets, delays):
    plan, y, n_delays = _plan(delays=delays), targets[0], len(delays)
    found = heads.headwise(bands, GROUPS, targets, plan, main="model", knockout=True)[0]
    for target in range(0, 9, 4):
        r, norms, sse, total = np.zeros((3, 6)), np.zeros((3, 6)), np.zeros(7), 0.0
        for number, fold in enumerate(plan.outer):
            gammas = plan.gammas[number][found.model.gamma_index[number, target]]
            alpha = plan.alphas[found.model.alpha_index[number, target]]
            pairs = [_by_hand(band, fold, delays) for band in bands]
            X = np.hstack([np.sqrt(g) * p[0] for g, p in zip(gammas, pairs, strict=True)])
            Z = np.hstack([np.sqrt(g) * p[1] for g, p in zip(gammas, pairs, strict=True)])
            mean = y[fold.train, target].mean()
            fitted = Ridge(alpha=alpha, fit_intercept=False).fit(X, y[fold.train, target] - mean)
            left = y[fold.test, target] - mean - Z @ fitted.coef_
            sse[6] += len(left) * np.var(left)  # the mean of a test block does not count
            total += len(left) * np.var(y[fold.test, target])
            for head in range(N_HEADS):
                # the layout of the whole matrix: columns of counts by delays, then 30 by delays
                own = [
                    2 * n_delays + d * 30 + head * 5 + i for d in range(n_delays) for i in range(5)
                ]
                masked = np.zeros_like(fitted.coef_)
                masked[own] = fitted.coef_[own]
                r[number, head] = pearsonr(Z @ masked, y[fold.test, target]).statistic
                norms[number, head] = np.sqrt(gammas[1]) * np.linalg.norm(masked)
                sse[head] += len(left) * np.var(left + Z @ masked)
        np.testing.assert_allclose(found.r[target], r.mean(0), atol=1e-9)
        np.testing.assert_allclose(found.norms[target], norms.mean(0), atol=1e-9)
        np.testing.assert_allclose(found.r2_loss[target], (sse[:6] - sse[6]) / total, atol=1e-9)
        assert found.model.r2[target] == pytest.approx(1 - sse[6] / total, abs=1e-9)


@pytest.mark.parametrize("delays", [DELAYS, (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("head_dim", [1, 5, 30], ids=["thin", "as-is", "wider-than-rows"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"test_scaling": "none", "centre": False, "common_scale": False}, {"score": "r"}],
    ids=["default", "as-in-the-paper", "score-r"],
)
def test_parts_add_up_to_the_band(rng, bands, targets, head_dim, changes, delays):
    plan = _plan(delays=delays, **changes)
    order = rng.permutation(N_HEADS * HEAD_DIM)  # any partition will do
    fit = heads.fit_heads(bands, targets, plan, main="model")
    parts = [heads.read_head(fit, columns)[0] for columns in order.reshape(-1, head_dim)]
    whole = crossval.crossvalidate(bands, targets, plan, main="model")[0]
    summed = np.sum([np.concatenate(part.prediction) for part in parts], axis=0)
    np.testing.assert_allclose(summed, whole.prediction, atol=1e-9 * np.abs(whole.prediction).max())
    assert np.abs(whole.prediction).max() > 0.1


def test_norms_agree_through_columns_and_through_kernels(bands, targets):
    """Norms of disjoint heads add up in squares, whichever product was cheaper."""
    fit = heads.fit_heads(bands, targets, _plan(n_folds=2), main="model")
    del fit.readers[1:]  # one fold: no mean over folds
    wide = heads.read_head(fit, np.arange(30))[0]
    narrow = [heads.read_head(fit, columns)[0] for columns in GROUPS]
    assert 30 * len(DELAYS) > len(fit.plan.outer[0].train) > 5 * len(DELAYS)
    squares = np.sum([part.norm**2 for part in narrow], axis=0)
    np.testing.assert_allclose(wide.norm**2, squares, rtol=1e-9)


def test_the_model_is_that_of_crossvalidate(bands, targets):
    plan = _plan()
    found = heads.headwise(bands, GROUPS, targets, plan, main="model")[0]
    expected = crossval.crossvalidate(bands, targets, plan, main="model")[0]
    for name in ("observed", "alpha_index", "gamma_index"):
        np.testing.assert_array_equal(getattr(found.model, name), getattr(expected, name))
    for name in ("prediction", "r", "rjoint", "r2", "df"):
        one, other = getattr(found.model, name), getattr(expected, name)
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert found.r2_loss is None
    assert found.p is None


def _same_bits(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("r", "norms", "r2_loss", "p"))


@pytest.mark.parametrize("delays", [DELAYS, (1, 2, 3, 4)], ids=str)
def test_same_bits_whoever_shares_the_call(rng, bands, targets, delays):
    test = heads.HeadTest(block_length=5, n_permutations=19, seed=3)
    others = [rng.standard_normal((N_TRS, size)) for size in (4, 130)]
    alone, shared, reverse = (
        heads.headwise(
            bands, GROUPS, people, _plan(delays=delays), main="model", knockout=True, test=test
        )
        for people in (targets, [*others, *targets], [*targets, others[0]])
    )
    assert _same_bits(alone[0], shared[2])
    assert _same_bits(alone[0], reverse[0])
    assert [result.r.shape for result in shared] == [(4, 6), (130, 6), (9, 6)]


def test_batches_of_heads_and_targets_change_nothing(bands, targets):
    whole = heads.headwise(bands, GROUPS, targets, _plan(), main="model", knockout=True)[0]
    some = heads.headwise(bands, GROUPS[[4, 1]], targets, _plan(), main="model", knockout=True)[0]
    np.testing.assert_array_equal(some.r, whole.r[:, [4, 1]])
    np.testing.assert_array_equal(some.norms, whole.norms[:, [4, 1]])
    pieces = [targets[0][:, :4], targets[0][:, 4:]]
    split = heads.headwise(bands, GROUPS, pieces, _plan(), main="model", knockout=True)
    for name in ("r", "norms", "r2_loss"):
        joined = np.vstack([getattr(piece, name) for piece in split])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=1e-10)


def test_slices_and_arrays_say_the_same(bands, targets):
    slices = [slice(5 * head, 5 * head + 5) for head in range(N_HEADS)]
    a, b = (heads.headwise(bands, g, targets, _plan(), main="model")[0] for g in (slices, GROUPS))
    np.testing.assert_array_equal(a.r, b.r)


def test_a_head_without_information_scores_zero(bands, targets):
    features = bands[1].features.copy()
    features[:, GROUPS[2]] = 4.0  # constant
    bands[1] = replace(bands[1], features=features)
    test = heads.HeadTest(block_length=5, n_permutations=19, seed=3)
    found = heads.headwise(bands, GROUPS, targets, _plan(), main="model", knockout=True, test=test)[
        0
    ]
    assert not found.r[:, 2].any()
    assert not found.norms[:, 2].any()
    assert not found.r2_loss[:, 2].any()
    assert np.isnan(found.p[:, 2]).all()
    others = np.delete(found.p, 2, axis=1)
    assert ((others > 0) & (others <= 1)).all()


def test_no_array_of_delayed_columns(rng):
    """Neither by targets nor by rows: 12,800 columns would take 10 MiB, the features are 2.4."""
    n_trs, n_heads, head_dim = 100, 200, 16
    features = rng.standard_normal((n_trs, n_heads * head_dim))
    bands = [design.Band("model", features, np.ones(n_trs, bool))]
    plan = crossval.make_plan(
        np.arange(n_trs), n_folds=2, n_inner=2, gap=2, n_bands=1, n_gammas=1, alphas=(10.0,),
        delays=(1, 2, 3, 4), seed=0,
    )  # fmt: skip
    targets = [rng.standard_normal((n_trs, 5))]
    tracemalloc.start()
    heads.headwise(bands, np.arange(3200).reshape(200, 16), targets, plan, main="model")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < features.nbytes


def test_no_array_of_columns_times_targets(rng):
    n_trs, n_heads, head_dim, n_targets = 80, 60, 25, 600
    features = rng.standard_normal((n_trs, n_heads * head_dim))
    bands = [design.Band("model", features, np.ones(n_trs, bool))]
    plan = crossval.make_plan(
        np.arange(n_trs), n_folds=2, n_inner=2, gap=2, n_bands=1, n_gammas=1, alphas=(10.0,),
        delays=(1, 2, 3, 4), seed=0,
    )  # fmt: skip
    targets = [rng.standard_normal((n_trs, n_targets))]
    groups = np.arange(n_heads * head_dim).reshape(n_heads, head_dim)
    tracemalloc.start()
    heads.headwise(bands, groups, targets, plan, main="model")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    primal = 4 * n_heads * head_dim * n_targets * 8
    assert peak < primal / 1.5


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "0 heads"),
        ([np.arange(0)], "Head 0 has columns"),
        ([np.array([0.0, 1.0])], "float64"),
        ([slice(0, 5), slice(4, 8)], "1 columns belong to more"),
        ([slice(25, 31)], "expected 0 to 29"),
        ([np.array([-1, 0])], "columns -1 to 0"),
    ],
)
def test_wrong_groups_are_named(bands, targets, groups, words):
    with pytest.raises(NumericalError, match=words):
        heads.headwise(bands, groups, targets, _plan(), main="model")


def test_an_unknown_band_is_named(bands, targets):
    with pytest.raises(NumericalError, match="one named heads"):
        heads.headwise(bands, GROUPS, targets, _plan(), main="heads")
