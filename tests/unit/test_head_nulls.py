"""Series with random phases, and norms against those of such series: by hand and in the limit."""

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.linear_model import Ridge

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, design, head_nulls, heads

N_TRS, N_HEADS, HEAD_DIM = 120, 5, 3
DELAYS = (1, 2)
GROUPS = np.arange(N_HEADS * HEAD_DIM).reshape(N_HEADS, HEAD_DIM)


def _slow(rng, n_trs, n_columns, rho):
    noise = rng.standard_normal((n_trs + 60, n_columns))
    return lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise, axis=0)[60:]


def _circular(first, second):
    """Circular cross-correlation at every lag, written out."""
    return np.array([first @ np.roll(second, lag) for lag in range(len(first))])


@pytest.mark.parametrize("n_rows", [60, 61])
def test_random_phases_keep_what_they_should(rng, n_rows):
    series = 5.0 + _slow(rng, n_rows, 3, 0.7)
    drawn = head_nulls.random_phases(series, rng)
    np.testing.assert_allclose(drawn.mean(axis=0), series.mean(axis=0))
    for a, b in ((0, 0), (1, 1), (0, 1), (2, 0)):
        np.testing.assert_allclose(
            _circular(drawn[:, a], drawn[:, b]), _circular(series[:, a], series[:, b])
        )
    many = [head_nulls.random_phases(series[:, :1], rng)[:, 0] for _ in range(2000)]
    left = np.array(many) - series[:, 0].mean()
    assert abs((left @ (series[:, 0] - series[:, 0].mean())).mean()) < 0.1 * n_rows


def _bands(rng, valid=None):
    valid = np.ones(N_TRS, bool) if valid is None else valid
    features = np.hstack([_slow(rng, N_TRS, HEAD_DIM, rho) for rho in (0, 0.3, 0.5, 0.8, 0.9)])
    counts = rng.standard_normal((N_TRS, 2))
    return [
        design.Band("counts", counts, np.ones(N_TRS, bool)),
        design.Band("model", np.where(valid[:, None], features, 0.0), valid),
    ]


def _plan(**changes):
    settings = {
        "n_folds": 3, "n_inner": 2, "gap": 2, "n_bands": 2, "n_gammas": 4,
        "alphas": (1.0, 10.0, 100.0), "delays": DELAYS, "seed": 1,
    }  # fmt: skip
    return crossval.make_plan(np.arange(4, N_TRS - 3), **(settings | changes))


def _null(n, *seeds):
    return head_nulls.HeadNull(n, list(seeds))


def _excess(bands, targets, plan, null):
    return heads.headwise(bands, GROUPS, targets, plan, main="model", null=null)


@pytest.mark.parametrize("centre", [True, False])
def test_equals_ridge_of_the_drawn_series(rng, centre):
    """Against scikit-learn, with the penalties and band weights that the model chose."""
    bands = _bands(rng, rng.random(N_TRS) > 0.1)
    y = 3.0 * centre + _slow(rng, N_TRS, 4, 0.6)
    plan = _plan(centre=centre)
    found = _excess(bands, [y], plan, _null(2, 7))[0]
    draws = np.random.default_rng(7)
    logs = []
    for _ in range(2):
        drawn = y.copy()
        drawn[plan.rows] = head_nulls.random_phases(y[plan.rows], draws)
        norms = np.zeros((4, N_HEADS))
        for k, fold in enumerate(plan.outer):
            parts = [design.fold_design(b, fold, DELAYS, centre=centre)[0] for b in bands]
            for target in range(4):
                gamma = plan.gammas[k][found.model.gamma_index[k, target]]
                X = np.hstack([np.sqrt(g) * part for g, part in zip(gamma, parts, strict=True)])
                alpha = plan.alphas[found.model.alpha_index[k, target]]
                ridge = Ridge(alpha, fit_intercept=centre).fit(X, drawn[fold.train, target])
                own = ridge.coef_[-parts[1].shape[1] :].reshape(len(DELAYS), N_HEADS, HEAD_DIM)
                # gamma X' dual, as in `heads.read_head`: sqrt(gamma) times the coefficient.
                norms[target] += np.sqrt(gamma[1] * (own**2).sum(axis=(0, 2))) / 3
        logs.append(np.log(norms))
    np.testing.assert_allclose(found.excess, np.log(found.norms) - np.mean(logs, axis=0), rtol=1e-6)


def test_what_follows_nothing_has_no_excess_and_what_follows_has(rng):
    """Parcels of all speeds; heads 0 and 4 are the fastest and the slowest. Nothing is chosen."""
    bands, plan = _bands(rng), _plan(n_gammas=1, alphas=(10.0,))
    speeds = np.repeat([0.0, 0.4, 0.9], 300)
    noise = np.stack([_slow(rng, N_TRS, 1, rho)[:, 0] for rho in speeds], axis=1)
    # One participant a target, so that no two share phases.
    targets = [noise[:, [k]] for k in range(noise.shape[1])]
    result = _excess(bands, targets, plan, _null(2, *range(len(targets))))
    excess = np.concatenate([one.excess for one in result])
    raw = np.log(np.concatenate([one.norms for one in result]))
    error = excess.std(axis=0) / np.sqrt(300)
    for speed in (0.0, 0.4, 0.9):
        assert (np.abs(excess[speeds == speed].mean(axis=0)) < 4 * error).all()
    unlike = raw[:, 4] - raw[:, 0]  # slow heads weigh more in slow parcels
    assert unlike[speeds == 0.9].mean() > unlike[speeds == 0.0].mean() + 0.5
    follow = noise[:, ::100] + 3 * np.roll(bands[1].features[:, [6]], 1, axis=0)
    signal = _excess(bands, [follow], plan, _null(4, 1))[0].excess
    assert (signal.mean(axis=0).argmax(), signal[:, 2].min() > 0.1) == (2, True)


def test_results_do_not_depend_on_who_is_in_the_call(rng):
    bands, plan = _bands(rng), _plan()
    first, second = _slow(rng, N_TRS, 8, 0.5), _slow(rng, N_TRS, 8, 0.5)
    both = _excess(bands, [first, second], plan, _null(2, 3, 4))
    alone = _excess(bands, [second], plan, _null(2, 4))[0]
    np.testing.assert_array_equal(both[1].excess, alone.excess)
    assert np.abs(alone.excess - _excess(bands, [second], plan, _null(2, 5))[0].excess).max() > 0.01


def test_heads_without_weight(rng):
    """A head that never varies weighs nothing, in noise too."""
    bands = _bands(rng)
    bands[1].features[:, GROUPS[2]] = 0.0
    found = _excess(bands, [_slow(rng, N_TRS, 3, 0.5)], _plan(), _null(1, 1))[0]
    np.testing.assert_array_equal(found.excess[:, 2], 0.0)
    assert np.isfinite(found.excess).all()
    assert np.abs(found.excess[:, [0, 1, 3, 4]]).min() > 0


def test_targets_are_left_as_they_are(rng):
    bands, y = _bands(rng), _slow(rng, N_TRS, 3, 0.5)
    before = y.copy()
    _excess(bands, [y], _plan(), _null(2, 1))
    np.testing.assert_array_equal(y, before)


def test_messages(rng):
    bands, y = _bands(rng), _slow(rng, N_TRS, 3, 0.5)
    with pytest.raises(NumericalError, match="2 seeds for 1 participants"):
        _excess(bands, [y], _plan(), _null(1, 1, 2))
    with pytest.raises(NumericalError, match="0 surrogates"):
        _excess(bands, [y], _plan(), _null(0, 1))
    with pytest.raises(NumericalError, match="at least 8 rows"):
        head_nulls.random_phases(np.ones((7, 2)), rng)
