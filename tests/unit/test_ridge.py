"""Banded ridge: against explicit formulas, and the same bits whoever shares the run."""

import numpy as np
import pytest

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _ridge_host, folds, ridge

ALPHAS = np.logspace(0, 4, 5)


@pytest.fixture
def case(rng):
    bands = [rng.standard_normal((60, size)) for size in (3, 30)]
    bands = [band - band[:45].mean(0) for band in bands]
    targets = rng.standard_normal((45, 7)) + bands[1][:45, :7]
    targets -= targets.mean(0)
    return {
        "train": [band[:45] for band in bands],
        "test": [band[45:] for band in bands],
        "targets": targets,
        "gammas": ridge.sample_gammas(2, 6, rng),
        "inner": folds.contiguous_folds(np.arange(45), 3, 2),
    }


def _encode(case, targets, **changes):
    case = case | changes
    return ridge.encode(
        case["train"],
        case["test"],
        targets,
        case["gammas"],
        changes.get("alphas", ALPHAS),
        case["inner"],
        score=changes.get("score", "r2"),
    )


def _same_bits(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("prediction_by_band", "alpha_index", "gamma_index", "cv_score", "df")
    )


def test_equals_primal_ridge_on_scaled_bands(case):
    result = _encode(case, [case["targets"]])[0]
    for target in range(7):
        root = np.sqrt(case["gammas"][result.gamma_index[target]])
        X = np.hstack([r * band for r, band in zip(root, case["train"], strict=True)])
        penalty = ALPHAS[result.alpha_index[target]] * np.eye(X.shape[1])
        weights = np.linalg.solve(X.T @ X + penalty, X.T @ case["targets"][:, target])
        parts = np.split(weights, [3])
        for band in range(2):
            expected = root[band] * case["test"][band] @ parts[band]
            np.testing.assert_allclose(
                result.prediction_by_band[band, :, target], expected, atol=1e-10
            )


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("alphas", [ALPHAS, np.array([10.0])], ids=["grid", "one-alpha"])
def test_same_bits_whoever_shares_the_run(case, rng, score, alphas):
    others = [rng.standard_normal((45, size)) for size in (3, 19, 7)]
    alone = _encode(case, [case["targets"]], score=score, alphas=alphas)[0]
    shared = _encode(case, [*others, case["targets"]], score=score, alphas=alphas)
    first = _encode(case, [case["targets"], others[0]], score=score, alphas=alphas)[0]
    assert _same_bits(alone, shared[-1])
    assert _same_bits(alone, first)


def test_blocks_of_targets_do_not_change_the_result(case, rng, monkeypatch):
    targets = rng.standard_normal((45, 70))
    whole = _encode(case, [targets])[0]
    monkeypatch.setattr(_ridge_host.Host, "targets_per_block", lambda *_: 16)
    pieces = _encode(case, [targets])[0]
    np.testing.assert_array_equal(whole.gamma_index, pieces.gamma_index)
    np.testing.assert_allclose(whole.prediction_by_band, pieces.prediction_by_band, atol=1e-10)


def test_many_targets_take_the_same_choice_as_few(case, rng):
    targets = rng.standard_normal((45, 200))
    many = _encode(case, [targets])[0]
    few = _encode(case, [targets[:, :8]])[0]
    np.testing.assert_array_equal(many.gamma_index[:8], few.gamma_index)
    np.testing.assert_allclose(many.cv_score[:8], few.cv_score, atol=1e-12)


def test_cholesky_equals_eigendecomposition(case):
    kernels = ridge.linear_kernels(case["train"])
    arguments = (kernels, [case["targets"]], case["gammas"])
    one = ridge.search(*arguments, np.array([10.0]), case["inner"])[0]
    two = ridge.search(*arguments, np.array([10.0, 10.0]), case["inner"])[0]
    np.testing.assert_array_equal(one.gamma_index, two.gamma_index)
    np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-9)


def test_singular_kernels_with_a_tiny_penalty_fall_back(case):
    narrow = {"train": case["train"][:1], "test": case["test"][:1], "gammas": np.ones((1, 1))}
    result = _encode(case, [case["targets"]], alphas=np.array([1e-18]), **narrow)[0]
    beta, *_ = np.linalg.lstsq(case["train"][0], case["targets"], rcond=None)
    assert np.isfinite(result.prediction_by_band).all()
    np.testing.assert_allclose(result.prediction_by_band[0], case["test"][0] @ beta, atol=1e-8)


def test_constant_and_nan_targets_do_not_poison_others(case):
    targets = case["targets"].copy()
    targets[:, 2] = 0.0
    clean = _encode(case, [targets])[0]
    assert clean.cv_score[2] == pytest.approx(0.0, abs=1e-8)
    kernels = ridge.linear_kernels(case["train"])
    dirty = targets.copy()
    dirty[5, 2] = np.nan
    choice = ridge.search(kernels, [dirty], case["gammas"], ALPHAS, case["inner"], check=False)[0]
    keep = np.arange(7) != 2
    assert np.isnan(choice.cv_score[2])
    np.testing.assert_array_equal(choice.cv_score[keep], clean.cv_score[keep])


def test_repeated_gammas_are_tried_once(case):
    case["gammas"] = np.repeat(case["gammas"], 2, axis=0)
    result = _encode(case, [case["targets"]])[0]
    assert not (result.gamma_index % 2).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alphas": np.array([1.0, 0.0])}, "positive"),
        ({"alphas": np.array([])}, "positive"),
        ({"gammas": np.ones((3, 5)) / 5}, "Band weights"),
        ({"score": "accuracy"}, "selection score"),
        ({"inner": []}, "inner folds"),
        ({"inner": [folds.Fold(np.arange(10), np.arange(40, 50))]}, "outside"),
    ],
)
def test_wrong_settings_are_named(case, change, words):
    with pytest.raises(NumericalError, match=words):
        _encode(case, [case["targets"]], **change)


def test_wrong_arrays_are_named(case):
    with pytest.raises(NumericalError, match="participant 1"):
        _encode(case, [case["targets"], case["targets"][:-1]])
    dirty = case["targets"].copy()
    dirty[0, 0] = np.nan
    with pytest.raises(NumericalError, match="1 of 7 targets"):
        _encode(case, [dirty])
    case["train"][0][0, 0] = np.nan
    with pytest.raises(NumericalError, match="NaN"):
        _encode(case, [case["targets"]])
    with pytest.raises(NumericalError, match="as many rows"):
        ridge.linear_kernels([np.ones((3, 1)), np.ones((4, 1))])
    with pytest.raises(NumericalError, match="at least 1"):
        ridge.sample_gammas(2, 0, np.random.default_rng(0))
    with pytest.raises(NumericalError, match="Dual weights"):
        ridge.predict(np.ones((2, 3, 4)), np.ones((5, 6)), np.ones((6, 2)))


def test_gammas_repeat_with_the_seed():
    draws = [ridge.sample_gammas(4, 11, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert draws[0].shape == (11, 4)
    np.testing.assert_array_equal(ridge.sample_gammas(1, 3, np.random.default_rng(0)), 1.0)


def _degrees(kernel, alpha, n_targets=1):
    """Estimated and exact trace of the hat matrix of one band."""
    values, vectors = np.linalg.eigh(kernel)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    n_rows = len(kernel)
    found = ridge.encode(
        [root], [root[:3]], [np.ones((n_rows, n_targets))], np.ones((1, 1)), np.array([alpha]),
        folds.contiguous_folds(np.arange(n_rows), 2, 0),
    )[0].df  # fmt: skip
    values = np.maximum(values, 0.0)
    return found, (values / (values + alpha)).sum()


def test_degrees_of_freedom_equal_the_trace_within_their_error(rng):
    """The stated standard error, sqrt(df / 4), is an upper bound."""
    off = []
    for _ in range(60):
        n_rows = int(rng.integers(20, 90))
        basis, _ = np.linalg.qr(rng.standard_normal((n_rows, n_rows)))
        rank = int(rng.integers(1, n_rows + 1))
        values = np.zeros(n_rows)
        values[:rank] = 10.0 ** rng.uniform(-2, 3, rank)
        found, exact = _degrees((basis * values) @ basis.T, 10.0 ** rng.uniform(-2, 4))
        off.append((found[0] - exact) / np.sqrt(exact / 4))
    assert np.abs(off).max() < 3.9  # of 60, by chance in less than one of 100
    assert 0.2 < np.sqrt(np.mean(np.square(off))) <= 1.05


def test_degrees_of_freedom_of_many_targets_follow_their_choices(case):
    result = _encode(case, [case["targets"]])[0]
    assert len(set(result.alpha_index)) > 1
    assert result.df.shape == (7,)
    kernels = ridge.linear_kernels(case["train"])
    for target in range(7):
        kernel = np.tensordot(case["gammas"][result.gamma_index[target]], kernels, 1)
        values = np.linalg.eigvalsh(kernel).clip(0)
        exact = (values / (values + ALPHAS[result.alpha_index[target]])).sum()
        assert abs(result.df[target] - exact) < 3.9 * np.sqrt(exact / 4)


@pytest.mark.parametrize("rank", [7, 30])
def test_limits_of_the_degrees_of_freedom(rng, rank):
    """Nothing is learned from an infinite penalty; without any all rows, or the rank."""
    root = rng.standard_normal((30, rank))
    nothing, _ = _degrees(root @ root.T, 1e15)
    np.testing.assert_allclose(nothing, 0.0, atol=1e-10)
    everything, _ = _degrees(root @ root.T, 1e-8, n_targets=2)
    if rank == 30:
        np.testing.assert_allclose(everything, 30, rtol=1e-6)
    assert np.abs(everything - rank).max() < 3.9 * np.sqrt(rank / 4)
    assert (everything <= 30 + 1e-6).all()


def test_degrees_of_freedom_of_a_band_without_content():
    found, exact = _degrees(np.zeros((20, 20)), 1.0)
    assert found[0] == exact == 0.0
