"""A few matrices stand for all: the bounds hold, and no choice changes."""

import numpy as np
import pytest

from bids_brainlm.numerics import _ridge_factors as factors
from bids_brainlm.numerics import _ridge_host, folds, ridge, ridge_skeleton
from bids_brainlm.numerics._ridge_blocks import Block
from bids_brainlm.numerics._ridge_host import Host
from bids_brainlm.numerics._ridge_tiers import Tiers
from bids_brainlm.numerics.ridge_screens import Screen

N_ROWS, N_GAMMAS, ONE = 72, 60, np.array([1.0])


def _problem(seed, n_targets, size=1.0):
    """Kernels of trace ``size * N_ROWS``, noise with signal in some targets, and folds."""
    rng = np.random.default_rng(seed)
    bands = [rng.standard_normal((N_ROWS, n)) for n in (2, 30, 200)]
    kernels = np.stack([band @ band.T for band in bands])
    kernels *= size * N_ROWS / np.trace(kernels, axis1=1, axis2=2)[:, None, None]
    targets = rng.standard_normal((N_ROWS, n_targets))
    targets += bands[2] @ rng.standard_normal((200, n_targets)) * rng.uniform(0, 0.1, n_targets)
    gammas = ridge.sample_gammas(3, N_GAMMAS, rng)
    inner = folds.contiguous_folds(np.arange(N_ROWS), 3, 2)
    return kernels, targets - targets.mean(0), gammas, inner


def _scores(kernels, targets, gamma, alpha, fold, score):
    """Score of every target in one fold, by a plain solve."""
    kernel = np.tensordot(gamma, kernels, 1)
    inside = kernel[np.ix_(fold.train, fold.train)] + alpha * np.eye(len(fold.train))
    dual = np.linalg.solve(inside, targets[fold.train])
    p, y = kernel[np.ix_(fold.test, fold.train)] @ dual, targets[fold.test]
    centred = y - y.mean(0)
    if score == "r2":
        return 1 - ((y - p) ** 2).sum(0) / (centred**2).sum(0)
    p = p - p.mean(0)
    return (centred * p).sum(0) / np.sqrt((centred**2).sum(0) * (p**2).sum(0))


def _screens(kernels, gammas, alphas, inner, score):
    centred = score == "r"
    splits = [factors.Split(kernels, fold, alphas, centred=centred) for fold in inner]
    return [[Screen(split.hat(g), explicit=True) for split in splits] for g in gammas]


@pytest.fixture
def used(monkeypatch):
    """Ranks of the skeletons of a search; small calls have one as well."""
    ranks = []

    def noted(matrices):
        found = ridge_skeleton.skeleton(matrices)
        ranks.append(None if found is None else found.rank)
        return found

    monkeypatch.setattr(_ridge_host, "skeleton", noted)
    monkeypatch.setattr(_ridge_host, "_MANY_TARGETS", 500)
    return ranks


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("size", [0.3, 1.0, 20.0])
def test_bounds_hold(score, size):
    kernels, targets, gammas, inner = _problem(1, 300, size)
    screens = _screens(kernels, gammas, ONE, inner, score)
    host = Host()
    host.begin(screens, 10_000)
    assert len(host._skeletons) == 3
    assert all(each.rank < 0.4 * N_GAMMAS for each in host._skeletons)
    block = Block(targets, np.arange(300), inner, centred=score == "r")
    tiers = Tiers(block.singles, screens, host._skeletons, 0.0)
    for number, fold in enumerate(inner):
        true = [_scores(kernels, targets, gamma, 1.0, fold, score) for gamma in gammas]
        value, high = tiers.values[number].T, tiers.highs[number].T
        assert (high >= true).all()
        assert (2 * value - high <= true).all()
        assert np.median(high - value) < 0.15  # worth having


def test_what_is_left_is_not_above_its_bound():
    rng = np.random.default_rng(2)
    shapes = rng.standard_normal((6, 20, 50))
    matrices = np.tensordot(rng.standard_normal((40, 6)), shapes, 1)
    matrices = (matrices + 7e-4 * rng.standard_normal(matrices.shape)).astype(np.float32)
    found = ridge_skeleton.skeleton(matrices)
    assert found is not None
    assert 5 <= found.rank <= 8
    train = rng.standard_normal((30, 50)).astype(np.float32)
    observed = rng.standard_normal((30, 20)).astype(np.float32)
    product, squares, rest, size = found.sums(train, observed)
    parts = np.tensordot(found.weights.T.astype(float), found.parts.reshape(-1, 20, 50), 1)
    combined = np.einsum("gvn,tn->tgv", parts, train)
    np.testing.assert_allclose(product, np.einsum("tgv,tv->tg", combined, observed), atol=1e-2)
    np.testing.assert_allclose(squares, (combined**2).sum(2), rtol=1e-4)
    whole = np.einsum("gvn,tn->tgv", matrices.astype(float), train)
    left = np.linalg.norm(whole - combined, axis=2)
    assert (left <= rest).all()
    assert np.median(rest / left) < 5.0
    assert (size >= np.sqrt(squares)).all()
    assert ridge_skeleton.skeleton(np.float32(1e12) * matrices) is None  # too large for float32
    assert ridge_skeleton.skeleton(matrices[:6]) is None  # as many combinations as matrices


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_largest_singular_value_is_not_above_its_bound(rank):
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((4, 40, rank)), rng.standard_normal((4, rank, 60))
    matrices = (left @ right * 10.0 ** np.arange(-8, 8, 4)[:, None, None]).astype(np.float32)
    exact = np.linalg.norm(matrices.astype(float), 2, axis=(1, 2))
    bound = ridge_skeleton._largest(matrices)
    assert (bound >= exact).all()
    assert (bound <= 1.5 * exact).all()
    assert (ridge_skeleton._largest(np.zeros((2, 4, 5), np.float32)) < 1e-9).all()


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("alpha", [0.02, 1.0, 1e3])
def test_choices_are_those_of_plain_solves(score, alpha, used):
    kernels, targets, gammas, inner = _problem(4, 700)
    found = ridge.search(kernels, [targets], gammas, np.array([alpha]), inner, score=score)[0]
    assert len(used) == 3 or used == [None]
    table = np.zeros((N_GAMMAS, 700))
    for g, gamma in enumerate(gammas):
        for fold in inner:
            table[g] += _scores(kernels, targets, gamma, alpha, fold, score) / len(inner)
    np.testing.assert_array_equal(found.gamma_index, table.argmax(0))
    np.testing.assert_allclose(found.cv_score, table.max(0), atol=1e-9)  # the slope, rounding


def test_rank_follows_the_penalty(used):
    kernels, targets, gammas, inner = _problem(5, 600)
    for alpha in (1.0, 30.0):
        ridge.search(kernels, [targets], gammas, np.array([alpha]), inner)
    assert max(used[3:]) < min(used[:3])


@pytest.mark.parametrize("score", ["r2", "r"])
def test_targets_without_data_harm_no_other(score, used):
    kernels, targets, gammas, inner = _problem(6, 600)
    clean = ridge.search(kernels, [targets], gammas, ONE, inner, score=score)[0]
    spoilt = targets.copy()
    spoilt[:, 1], spoilt[:, 3], spoilt[10:20, 4], spoilt[:, 7] = 0.0, 1.5, np.nan, 1e30
    found = ridge.search(kernels, [spoilt], gammas, ONE, inner, score=score, check=False)[0]
    assert used
    assert None not in used
    assert np.isnan(found.cv_score[4])
    assert found.cv_score[[1, 3]] == pytest.approx(0.0, abs=1e-8)
    assert (found.gamma_index[[1, 4]] == 0).all()
    others = np.setdiff1d(np.arange(600), [1, 3, 4, 7])
    np.testing.assert_array_equal(found.gamma_index[others], clean.gamma_index[others])
    np.testing.assert_array_equal(found.cv_score[others], clean.cv_score[others])


def test_same_bits_with_and_without(used):
    kernels, targets, gammas, inner = _problem(7, 900)
    people = np.split(targets, [20, 420], axis=1)
    alone = [ridge.search(kernels, [each], gammas, ONE, inner)[0] for each in people]
    assert not used
    for one, other in zip(alone, ridge.search(kernels, people, gammas, ONE, inner), strict=True):
        np.testing.assert_array_equal(one.gamma_index, other.gamma_index)
        np.testing.assert_array_equal(one.cv_score, other.cv_score)
    assert len(used) == 3
