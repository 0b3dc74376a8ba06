"""The search takes the same choice as plain float64 solves of every candidate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.numerics import _ridge_factors as factors
from bids_brainlm.numerics import _ridge_host, folds, ridge, ridge_search
from bids_brainlm.numerics._ridge_blocks import Block
from bids_brainlm.numerics._ridge_host import Host
from bids_brainlm.numerics.ridge_screens import Screen

N_ROWS = 72
NINE = np.logspace(-2, 6, 9)
THIN, WIDE, BOTH_WIDE = (2, 3, 120), (1, 40, 120), (60, 120)


def _table(kernels, targets, gammas, alphas, inner, score):
    """Mean validation score of every candidate, (n_gammas, n_alphas, n_targets)."""
    table = np.zeros((len(gammas), len(alphas), targets.shape[1]))
    for g, gamma in enumerate(gammas):
        kernel = np.tensordot(gamma, kernels, 1)
        for a, alpha in enumerate(alphas):
            for fold in inner:
                inside = kernel[np.ix_(fold.train, fold.train)] + alpha * np.eye(len(fold.train))
                dual = np.linalg.solve(inside, targets[fold.train])
                prediction = kernel[np.ix_(fold.test, fold.train)] @ dual
                table[g, a] += _score(targets[fold.test], prediction, score) / len(inner)
    return table


def _score(y, prediction, score):
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = y - y.mean(0)
        total = (centred**2).sum(0)
        if score == "r2":
            return np.where(total == 0, 0.0, 1 - ((y - prediction) ** 2).sum(0) / total)
        p = prediction - prediction.mean(0)
        squares = (p**2).sum(0)
        r = (centred * p).sum(0) / np.sqrt(total * squares)
        return np.where((total == 0) | (squares == 0), 0.0, r)


def _by_himalayas_rule(table, alphas):
    """First gamma that beats all before it; alphas with a slope of 1e-10 in their logarithm."""
    n_targets = table.shape[2]
    best, chosen = np.full(n_targets, -np.inf), np.zeros((2, n_targets), int)
    for g, of_gamma in enumerate(table):
        with_slope = of_gamma + 1e-10 * np.log(alphas)[:, None]
        for t in range(n_targets):
            a = int(with_slope[:, t].argmax())
            if with_slope[a, t] > best[t] + np.finfo(float).eps:
                best[t], chosen[:, t] = with_slope[a, t], (g, a)
    return chosen, best


def _problem(seed, sizes, n_targets, n_gammas=12, n_rows=N_ROWS):
    rng = np.random.default_rng(seed)
    decay = [np.arange(1, size + 1) ** -0.4 for size in sizes]
    bands = [rng.standard_normal((n_rows, size)) * d for size, d in zip(sizes, decay, strict=True)]
    bands = [(band - band.mean(0)) / np.sqrt((band**2).sum() / n_rows) for band in bands]
    weights = [rng.standard_normal((size, n_targets)) for size in sizes]
    strength = rng.dirichlet([0.5] * len(sizes), n_targets).T * rng.uniform(0, 2, n_targets)
    targets = rng.standard_normal((n_rows, n_targets))
    for share, band, weight in zip(strength, bands, weights, strict=True):
        targets += share * (band @ weight)
    targets -= targets.mean(0)
    gammas = ridge.sample_gammas(len(sizes), n_gammas, rng)
    inner = folds.contiguous_folds(np.arange(n_rows), 3, 3)
    return ridge.linear_kernels(bands), targets, gammas, inner


def _assert_same(kernels, targets, gammas, alphas, inner, score="r2", atol=1e-10):
    found = ridge.search(kernels, [targets], gammas, alphas, inner, score=score)[0]
    table = _table(kernels, targets, gammas, alphas, inner, score)
    chosen, best = _by_himalayas_rule(table, alphas)
    np.testing.assert_array_equal(found.gamma_index, chosen[0])
    np.testing.assert_array_equal(found.alpha_index, chosen[1])
    np.testing.assert_allclose(found.cv_score, best, atol=atol)
    return found


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("n_targets", [9, 230], ids=["few", "many"])
@pytest.mark.parametrize("sizes", [THIN, WIDE, BOTH_WIDE], ids=["thin", "wide", "both-wide"])
@pytest.mark.parametrize("alphas", [np.array([1.0]), NINE], ids=["one", "nine"])
def test_same_choice_as_plain_solves(score, n_targets, sizes, alphas):
    kernels, targets, gammas, inner = _problem(1, sizes, n_targets)
    found = _assert_same(kernels, targets, gammas, alphas, inner, score)
    assert len(np.unique(found.gamma_index)) > 1


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([1, 2, 5, 30, 80]), min_size=1, max_size=4),
    st.integers(1, 20),
    st.integers(1, 4),
    st.sampled_from(["r2", "r"]),
)
def test_same_choice_for_any_bands(seed, sizes, n_targets, n_alphas, score):
    kernels, targets, gammas, inner = _problem(seed, sizes, n_targets, 6, 40)
    gammas = gammas if len(sizes) > 1 else gammas[:1]
    _assert_same(kernels, targets, gammas, np.logspace(-1, 3, n_alphas), inner, score, 1e-9)


def test_which_bands_are_thin():
    kernels, _, gammas, inner = _problem(2, THIN, 2)
    low = factors.find_low_rank(kernels, gammas, NINE, factors.fewest_train(inner))
    assert low.wide == 2
    assert low.factor.shape == (N_ROWS, 5)
    for band in (0, 1):
        factor = low.factor[:, low.band == band]
        np.testing.assert_allclose(factor @ factor.T, kernels[band], atol=1e-12)
    for sizes in (WIDE, BOTH_WIDE):
        kernels, _, gammas, inner = _problem(2, sizes, 2)
        assert factors.find_low_rank(kernels, gammas, NINE, 40) is None


@pytest.mark.parametrize("sizes", [THIN, WIDE], ids=["thin", "wide"])
@pytest.mark.parametrize("alphas", [np.array([0.5]), NINE], ids=["one", "nine"])
def test_matrices_of_a_fold_equal_plain_solves(sizes, alphas):
    kernels, _, gammas, inner = _problem(3, sizes, 2)
    low = factors.find_low_rank(kernels, gammas, alphas, factors.fewest_train(inner))
    assert (low is None) == (sizes == WIDE)
    fold = inner[1]
    split = factors.Split(kernels, fold, alphas, centred=False, low_rank=low)
    for gamma in (*gammas, np.array([1.0, 0.0, 0.0]), np.array([1e-30, 1e-12, 1.0])):
        kernel = np.tensordot(gamma, kernels, 1)
        hat = split.hat(gamma)
        basis = np.eye(len(fold.train)) if hat.basis is None else hat.basis
        for a, alpha in enumerate(alphas):
            inside = kernel[np.ix_(fold.train, fold.train)] + alpha * np.eye(len(fold.train))
            expected = np.linalg.solve(inside, kernel[np.ix_(fold.train, fold.test)]).T
            np.testing.assert_allclose(hat.matrix(a) @ basis.T, expected, atol=1e-11)


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("n_targets", [9, 230], ids=["few", "many"])
@pytest.mark.parametrize("sizes", [THIN, WIDE], ids=["thin", "wide"])
@pytest.mark.parametrize("explicit", [False, True], ids=["rotated", "explicit"])
def test_float32_bounds_hold(score, n_targets, sizes, explicit):
    kernels, targets, gammas, inner = _problem(4, sizes, n_targets)
    gammas = np.vstack([gammas, np.eye(3), [[1e-30, 1e-12, 1.0], [0.5, 0.5, 1e-30]]])
    table = _table(kernels, targets, gammas, NINE, inner, score)
    low = factors.find_low_rank(kernels, gammas, NINE, factors.fewest_train(inner))
    splits = [factors.Split(kernels, f, NINE, centred=score == "r", low_rank=low) for f in inner]
    block = Block(targets, np.arange(n_targets), inner, centred=score == "r")
    screens = [[Screen(s.hat(gamma), explicit=explicit) for s in splits] for gamma in gammas]
    below, above = Host().bounds(block.singles, screens, np.zeros((9, 1)), block.best)
    scored = np.isfinite(above)
    assert (below <= table)[scored].all()
    assert (above >= table)[scored].all()
    assert np.median(above[scored] - below[scored]) < 1e-3
    left_out = ~scored & (above < 0)
    best_so_far = np.maximum.accumulate(table.max(axis=1), axis=0)[:, None]
    assert (table < best_so_far)[left_out].all()
    if n_targets > 200 and score == "r2" and not explicit:
        assert left_out.mean() > 0.2  # the first bound spares work


def test_alphas_on_the_plateau_follow_the_slope():
    kernels, targets, gammas, inner = _problem(5, THIN, 12)
    noise = np.random.default_rng(0).standard_normal(targets.shape)
    alphas = np.logspace(0, 16, 9)
    for score in ("r2", "r"):
        found = _assert_same(kernels, noise, gammas[:4], alphas, inner, score)
    assert (found.alpha_index == 8).any()
    twice = ridge.search(kernels, [targets], gammas, np.array([3.0, 3.0]), inner)[0]
    assert not twice.alpha_index.any()  # equal alphas: the first


@pytest.mark.parametrize("alphas", [np.array([1e-4]), np.logspace(-6, 2, 5)], ids=["one", "five"])
@pytest.mark.parametrize("sizes", [THIN, WIDE], ids=["thin", "wide"])
def test_repeated_rows(alphas, sizes):
    kernels, targets, gammas, inner = _problem(6, sizes, 10)
    rows = np.repeat(np.arange(N_ROWS // 2), 2)
    kernels = kernels[:, rows][:, :, rows]
    targets = targets[rows] + 0.3 * np.random.default_rng(1).standard_normal(targets.shape)
    _assert_same(kernels, targets, gammas, alphas, inner, atol=1e-8)


def test_scale_of_targets_and_kernels_does_not_matter():
    kernels, targets, gammas, inner = _problem(7, WIDE, 200)
    plain = ridge.search(kernels, [targets], gammas, NINE, inner)[0]
    for factor, size in ((1e14, 1e-30), (1e-14, 1e30)):
        large = ridge.search(factor * kernels, [size * targets], gammas, factor * NINE, inner)[0]
        np.testing.assert_array_equal(large.gamma_index, plain.gamma_index)
        np.testing.assert_array_equal(large.alpha_index, plain.alpha_index)
        np.testing.assert_allclose(large.cv_score, plain.cv_score, atol=1e-7)  # the slope


@pytest.mark.parametrize("sizes", [THIN, WIDE], ids=["thin", "wide"])
@pytest.mark.parametrize("alphas", [np.array([1.0]), NINE], ids=["one", "nine"])
@pytest.mark.parametrize("score", ["r2", "r"])
def test_same_bits_in_any_company(sizes, alphas, score):
    kernels, targets, gammas, inner = _problem(8, sizes, 1900)
    people = np.split(targets, [6, 13, 300, 1500], axis=1)

    def run(some):
        each = ridge.search(kernels, [people[k] for k in some], gammas, alphas, inner, score=score)
        return dict(zip(some, each, strict=True))

    alone = {k: run([k])[k] for k in range(5)}
    for group in ([0, 1], [4, 1, 0], [3, 2, 4, 0, 1], [2, 3]):
        for k, choice in run(group).items():
            np.testing.assert_array_equal(choice.gamma_index, alone[k].gamma_index)
            np.testing.assert_array_equal(choice.alpha_index, alone[k].alpha_index)
            np.testing.assert_array_equal(choice.cv_score, alone[k].cv_score)


@pytest.mark.parametrize("n_targets", [9, 230], ids=["few", "many"])
@pytest.mark.parametrize("score", ["r2", "r"])
def test_empty_constant_and_missing_targets(n_targets, score):
    kernels, targets, gammas, inner = _problem(9, WIDE, n_targets)
    clean = ridge.search(kernels, [targets], gammas, NINE, inner, score=score)[0]
    spoilt = targets.copy()
    spoilt[:, 1], spoilt[:, 3], spoilt[10:20, 4] = 0.0, 1.5, np.nan
    spoilt[inner[0].test, 5] = 0.0  # constant in one fold only
    found = ridge.search(kernels, [spoilt], gammas, NINE, inner, score=score, check=False)[0]
    others = np.setdiff1d(np.arange(n_targets), [1, 3, 4, 5])
    np.testing.assert_array_equal(found.gamma_index[others], clean.gamma_index[others])
    np.testing.assert_array_equal(found.cv_score[others], clean.cv_score[others])
    assert np.isnan(found.cv_score[4])
    assert found.cv_score[[1, 3]] == pytest.approx(0.0, abs=1e-8)
    table = _table(kernels, spoilt[:, [5]], gammas, NINE, inner, score)
    chosen, best = _by_himalayas_rule(table, NINE)
    assert (found.gamma_index[5], found.alpha_index[5]) == tuple(chosen[:, 0])
    assert found.cv_score[5] == pytest.approx(best[0], abs=1e-10)


def test_bands_of_zeros_and_no_targets():
    kernels, targets, gammas, inner = _problem(10, THIN, 5)
    kernels[0] = kernels[1] = 0.0
    _assert_same(kernels, targets, gammas, NINE, inner)
    kernels[2] = 0.0
    found = ridge.search(kernels, [targets, targets[:, :0]], gammas, NINE, inner)
    assert not found[0].gamma_index.any()
    assert found[1].cv_score.shape == (0,)
    assert ridge.search(kernels, [targets[:, :0]], gammas, NINE, inner)[0].cv_score.shape == (0,)


def test_portions_of_gammas_do_not_change_a_bit(monkeypatch):
    kernels, targets, gammas, inner = _problem(11, WIDE, 300)
    whole = ridge.search(kernels, [targets], gammas, NINE, inner)[0]
    monkeypatch.setattr(ridge_search, "_BYTES_AT_ONCE", 1)
    monkeypatch.setattr(_ridge_host.Host, "targets_per_block", lambda *_: 170)
    pieces = ridge.search(kernels, [targets], gammas, NINE, inner)[0]
    np.testing.assert_array_equal(whole.gamma_index, pieces.gamma_index)
    np.testing.assert_array_equal(whole.cv_score, pieces.cv_score)


@pytest.mark.parametrize("n_targets", [9, 230], ids=["few", "many"])
def test_cholesky_and_decomposition_in_one_search(n_targets):
    kernels, targets, _, inner = _problem(12, BOTH_WIDE, n_targets)
    kernels[0] *= 1e14  # a penalty of 1e-3 is lost in it, but not in the other band
    gammas, alphas = np.array([[0.0, 1.0], [1.0, 0.0], [1e-14, 1.0]]), np.array([1e-3])
    together = ridge.search(kernels, [targets], gammas, alphas, inner)[0]
    each = [ridge.search(kernels, [targets], gamma[None], alphas, inner)[0] for gamma in gammas]
    scores = np.stack([one.cv_score for one in each])
    np.testing.assert_array_equal(together.cv_score, scores.max(axis=0))
    np.testing.assert_array_equal(together.gamma_index, scores.argmax(axis=0))


@pytest.mark.parametrize("alphas", [np.array([1.0]), NINE], ids=["one", "nine"])
@pytest.mark.parametrize("score", ["r2", "r"])
def test_a_fold_without_signal_has_no_say(score, alphas):
    """A series that was scaled over the run is constant in a part of it up to rounding only."""
    kernels, targets, gammas, inner = _problem(13, WIDE, 200)
    flat = targets.copy()
    flat[inner[1].test] = 0.7 * np.random.default_rng(0).standard_normal(200)
    flat = (flat - flat.mean(0)) / flat.std(0)
    flat -= flat.mean(0)
    assert (np.ptp(flat[inner[1].test], axis=0) < 1e-14).all()
    found = ridge.search(kernels, [flat], gammas, alphas, inner, score=score)[0]
    sound = [inner[0], inner[2]]
    others = ridge.search(kernels, [flat], gammas, alphas, sound, score=score)[0]
    np.testing.assert_array_equal(found.gamma_index, others.gamma_index)
    np.testing.assert_array_equal(found.alpha_index, others.alpha_index)
    np.testing.assert_allclose(found.cv_score, others.cv_score * 2 / 3, atol=1e-8)


@pytest.mark.parametrize("n_targets", [9, 230], ids=["few", "many"])
@pytest.mark.parametrize("alphas", [np.array([1.0]), NINE], ids=["one", "nine"])
def test_a_target_without_training_signal_scores_zero(n_targets, alphas):
    kernels, targets, gammas, inner = _problem(14, WIDE, n_targets)
    targets[np.setdiff1d(np.arange(N_ROWS), inner[0].test), 3] = 0.0
    found = ridge.search(kernels, [targets], gammas, alphas, inner, score="r")[0]
    assert np.isfinite(found.cv_score).all()
    table = _table(kernels, targets[:, [3]], gammas, alphas, inner, "r")
    assert found.cv_score[3] == pytest.approx(table.max(), abs=1e-8)


@pytest.mark.parametrize("score", ["r2", "r"])
def test_bounds_hold_where_the_parts_of_an_update_cancel(score):
    """A thin band that is the wide one's strongest direction, but 0 on validation rows."""
    rng = np.random.default_rng(15)
    n_rows = 160
    inner = folds.contiguous_folds(np.arange(n_rows), 4, 0)[:1]
    shape = rng.standard_normal(n_rows)
    wide = 1e-4 * rng.standard_normal((n_rows, n_rows))
    wide += np.outer(shape, rng.standard_normal(n_rows))
    thin = np.where(np.isin(np.arange(n_rows), inner[0].test), 0.0, shape)[:, None]
    kernels = ridge.linear_kernels([thin, wide])
    kernels *= n_rows / np.trace(kernels, axis1=1, axis2=2)[:, None, None]
    share = np.r_[0.5, 10.0 ** -np.arange(1, 7)]
    gammas = np.stack([1 - share, share], axis=1)
    noise = rng.standard_normal((n_rows, 300)) * np.logspace(-4, 1, 300)
    targets = shape[:, None] + noise
    targets -= targets.mean(0)
    alphas = np.logspace(-3.6, 3, 8)
    table = _table(kernels, targets, gammas, alphas, inner, score)
    low = factors.find_low_rank(kernels, gammas, alphas, factors.fewest_train(inner))
    assert low is not None
    centred = score == "r"
    splits = [factors.Split(kernels, f, alphas, centred=centred, low_rank=low) for f in inner]
    block = Block(targets, np.arange(300), inner, centred=centred)
    screens = [[Screen(s.hat(gamma), explicit=False) for s in splits] for gamma in gammas]
    below, above = Host().bounds(block.singles, screens, np.zeros((8, 1)), block.best)
    scored = np.isfinite(above) & np.isfinite(below)
    assert scored.mean() > 0.1
    assert (below <= table + 1e-8)[scored].all()
    assert (above >= table - 1e-8)[scored].all()
