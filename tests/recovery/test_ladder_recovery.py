"""Control ladders of simulated groups: rungs gain where the signal is, and nowhere else."""

from __future__ import annotations

from functools import cache

import numpy as np
from simulated_chain import DELAYS, GAP, ar1, bounds, brains, flip_test, response

from bids_brainlm.numerics import blas, crossval, design, nested

N_TRS = 150
N_PEOPLE = 12
N_PARCELS = 3
RUNGS = ("position", "wordrate", "static", "trained")
WIDTHS = {"static": 8, "trained": 16}


def make_bands(rng):
    """Draw a story; static features follow the trained ones in part."""
    whole = np.ones(N_TRS, bool)
    trained = ar1(rng, N_TRS, WIDTHS["trained"], 0.5)
    own = ar1(rng, N_TRS, WIDTHS["static"], 0.5)
    features = {
        "position": np.linspace(-1, 1, N_TRS)[:, None] ** [1, 2],
        "wordrate": rng.poisson(4, (N_TRS, 2)) * 1.0,
        "static": own + trained[:, : WIDTHS["static"]],
        "trained": trained,
    }
    return [design.Band(name, features[name], whole) for name in RUNGS]


def make_plan(n_bands):
    return crossval.make_plan(
        np.arange(5, N_TRS - 5), n_folds=3, n_inner=2, gap=GAP, n_bands=n_bands, n_gammas=6,
        alphas=(1.0, 10.0, 100.0, 1000.0, 1e5), delays=DELAYS, seed=1,
    )  # fmt: skip


@cache
def groups(source, n_stories=4, n_groups=5):
    """Return gains of groups, (n_stories, n_groups, n_people, n_parcels, n_rungs)."""
    found = []
    plan = make_plan(len(RUNGS))
    for number in range(n_stories):
        rng = np.random.default_rng([83, len(source or ""), number])
        bands = make_bands(rng)
        n_people = n_groups * N_PEOPLE
        signal, share = None, 0.0
        if source is not None:
            wide = bands[RUNGS.index(source)].features
            weights = rng.standard_normal((wide.shape[1], N_PARCELS))
            signal = np.tile(response(wide @ weights), (1, n_people))
            share = 0.3 if source == "wordrate" else 0.6
        y = brains(rng, n_people, N_TRS, N_PARCELS, signal, share)
        with blas.single_threaded():
            fits = {
                model: nested.fit(bands, range(len(RUNGS)), model, [y], plan)[0]
                for model in nested.models_of(len(RUNGS))
            }
        gain = nested.shares(fits).gain.reshape(len(RUNGS), n_groups, N_PEOPLE, N_PARCELS)
        found.append(np.moveaxis(gain, 0, -1))
    return np.stack(found)


def p_of(gains):
    """Test the groups of all stories, (n_stories * n_groups, n_parcels, n_rungs)."""
    return np.stack([flip_test(one, 199) for story in gains for one in story])


def better_of(gains):
    """Compare with every smaller model; shape as `p_of`."""
    r2 = np.moveaxis(gains, -1, -2).cumsum(axis=3)
    return np.stack([
        nested.better_test(one, n_permutations=199, rng=np.random.default_rng([1, 3])).T
        for story in r2 for one in story
    ])  # fmt: skip


def test_models_of_noise_explain_nothing():
    """240 participants without signal: held-out R2 is below 0 at every rung."""
    r2 = groups(None).mean(axis=3).reshape(-1, len(RUNGS)).cumsum(axis=1)
    assert len(r2) >= 100
    assert (r2.mean(axis=0) < 0).all()
    assert ((r2 > 0).mean(axis=0) < 0.3).all()


def test_group_tests_keep_their_level_on_noise():
    gains = groups(None)
    p = p_of(gains)
    assert (p <= 0.05).mean() <= 0.05
    for rung in range(len(RUNGS)):
        assert keeps_at_most(p[:, :, rung])
    assert (better_of(gains) <= 0.05).mean() <= 0.01  # no model is better than none


def keeps_at_most(p):
    one_each = p[np.arange(len(p)), np.arange(len(p)) % N_PARCELS]
    return (one_each <= 0.05).sum() <= bounds(len(one_each))[1]


def test_signal_of_word_rate_is_gained_there_and_not_later():
    gains = groups("wordrate")
    place = RUNGS.index("wordrate")
    p = p_of(gains)
    assert (p[:, :, place] <= 0.05).mean() > 0.9
    assert (better_of(gains)[:, :, place] <= 0.05).mean() > 0.5
    assert gains[..., place].mean() > 0.05
    assert (gains[..., place + 1 :].mean(axis=(0, 1, 2, 3)) < 0).all()
    assert (p[:, :, place + 1 :] <= 0.05).mean() <= 0.05
    assert (better_of(gains)[:, :, place + 1 :] <= 0.05).mean() <= 0.05


def test_signal_of_the_trained_model_is_gained_at_the_top():
    gains = groups("trained")
    p = p_of(gains)
    assert (p[:, :, -1] <= 0.05).mean() > 0.8
    assert (better_of(gains)[:, :, -1] <= 0.05).mean() > 0.5
    assert gains[..., RUNGS.index("wordrate")].mean() < 0.02


def test_a_rung_that_mends_an_overfit_is_not_better(rng):
    """R2 falls by 0.2 and comes back by 0.1: a gain, but no better than no model."""
    steps = np.array([-0.2, 0.1, 0.3])
    r2 = (steps + 0.02 * rng.standard_normal((20, 3))).cumsum(axis=1)[:, :, None]
    gain = np.diff(r2, axis=1, prepend=0)
    naive = flip_test(np.moveaxis(gain, 1, 2), 499)[0]
    better = nested.better_test(r2, n_permutations=499, rng=rng)[:, 0]
    assert naive[1] < 0.01 < 0.9 < better[1]
    assert better[2] < 0.01
