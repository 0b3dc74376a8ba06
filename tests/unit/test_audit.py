"""Leakage audit of plans: hand-made folds, brute-force distances, known texts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import audit, crossval, folds

DELAYS = (2, 3, 4, 5)


def _plan(gap, n_rows=200, n_folds=4, n_inner=3):
    return crossval.make_plan(
        np.arange(10, n_rows - 10), n_folds=n_folds, n_inner=n_inner, gap=gap, n_bands=1,
        n_gammas=1, alphas=[1.0], delays=DELAYS, seed=1,
    )


def _audit(plan, **more):
    return audit.audit(plan.outer, plan.inner, delays=DELAYS, tr=1.5, **more)


def _found(result, check):
    return [one.severity for one in result.findings if one.check == check]


@pytest.mark.parametrize("gap", [0, 1, 3, 8, 10])
def test_distances_of_real_plans(gap):
    result = _audit(_plan(gap))
    assert result.outer_distance == gap + 1
    assert result.inner_distance == gap + 1
    assert result.needed_distance == 5 + 4  # 5 s are 4 TRs of 1.5 s
    assert result.delays_cross == (gap + 1 <= 3)
    assert result.response_crosses == (gap + 1 < 9)
    severity = "leak" if gap + 1 <= 3 else "warning" if gap + 1 < 9 else "fine"
    assert _found(result, "inner folds") == [severity]
    assert _found(result, "features") + _found(result, "response") == [severity]
    assert result.leaks == (severity == "leak")


def test_delays_cross_exactly_when_rows_share_a_delayed_feature():
    """Against the rows that `delay` copies: which TR is a feature of which row."""
    for gap in range(6):
        plan = _plan(gap)
        shared = any(
            {t - d for t in fold.train for d in DELAYS} & {t - d for t in fold.test for d in DELAYS}
            for fold in plan.outer
        )
        assert _audit(plan).delays_cross == shared


@given(seed=st.integers(0, 1000))
def test_distance_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    part = rng.integers(0, 3, 40)
    part[:2] = [0, 1]
    stories = np.sort(rng.integers(0, 3, 40))
    fold = folds.Fold(np.flatnonzero(part == 0), rng.permutation(np.flatnonzero(part == 1)))
    for of in (None, stories):
        apart = [abs(int(a) - int(b)) for a in fold.train for b in fold.test
                 if of is None or of[a] == of[b]]
        result = audit.audit([fold], [], delays=[1], tr=2.0, stories=of)
        assert result.outer_distance == (min(apart) if apart else None)
        assert result.inner_distance is None


def test_shuffled_folds_leak_and_so_does_a_row_in_both():
    rows = np.random.default_rng(1).permutation(60)
    shuffled = folds.Fold(np.sort(rows[:40]), np.sort(rows[40:]))
    result = audit.audit([shuffled], [], delays=DELAYS, tr=2.0)
    assert result.outer_distance == 1
    assert result.leaks
    both = folds.Fold(np.arange(10), np.arange(9, 20))
    result = audit.audit([both], [], delays=[2], tr=2.0)
    assert result.outer_distance == 0
    assert result.findings[0].severity == "leak"
    assert "same row" in result.findings[0].text


def test_other_stories_are_far_away():
    stories = np.repeat([0, 1, 2], 20)
    outer = [folds.Fold(np.flatnonzero(stories != s), np.flatnonzero(stories == s))
             for s in range(3)]
    result = audit.audit(outer, [], delays=DELAYS, tr=1.5, stories=stories, context_trs=20)
    assert result.outer_distance is None
    assert not any([result.delays_cross, result.response_crosses, result.context_crosses])
    assert {one.severity for one in result.findings} == {"fine"}


@pytest.mark.parametrize(
    ("context_trs", "crosses"), [(0, False), (7, False), (8, True), (20, True)]
)
def test_context_reaches_back_into_training_rows(context_trs, crosses):
    """Features of a test row rest on its TRs, by delays, and on the context of these."""
    plan = _plan(10)  # 11 TRs apart
    reached = any(
        {t - d for t in fold.train for d in DELAYS}
        & {t - d - c for t in fold.test for d in DELAYS for c in range(context_trs + 1)}
        for fold in plan.outer
    )
    result = _audit(plan, context_trs=context_trs)
    assert result.context_crosses == crosses == reached
    assert _found(result, "context") == ["warning" if crosses else "fine"]
    assert not result.leaks


def test_what_is_learned_on_all_rows_leaks():
    result = _audit(_plan(10), learned_on_all_rows=["standardisation", "PCA"])
    assert result.leaks
    assert result.learned_on_all_rows == ("standardisation", "PCA")
    assert result.findings[0].check == "learned"
    assert "standardisation, PCA" in result.findings[0].text


def test_n_grams_by_hand():
    words = [["The", "cat"], ["sat,"], [], ["the", "cat"], ["sat"], ["down", "—"]]
    fold = folds.Fold(np.array([0, 1]), np.array([3, 4, 5]))
    found = audit.n_gram_overlap([fold], words, lengths=[1, 2, 3, 4, 5])
    assert found[1] == 3 / 4
    assert found[2] == 2 / 3
    assert found[3] == 1 / 2
    assert found[4] == 0
    assert np.isnan(found[5])


def test_n_grams_do_not_span_gaps_or_stories():
    words = [["a"], ["b"], ["c"], ["d"], ["a"], ["b"], ["c"], ["d"]]
    apart = folds.Fold(np.array([0, 1, 3]), np.array([4, 5, 6, 7]))
    assert audit.n_gram_overlap([apart], words, lengths=[2])[2] == 1 / 3  # a b, not b c nor c d
    whole = folds.Fold(np.arange(4), np.arange(4, 8))
    two = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    assert audit.n_gram_overlap([whole], words, lengths=[2], stories=two)[2] == 2 / 3


def test_a_text_heard_twice_is_a_warning(rng):
    once = [[f"w{int(k)}" for k in rng.integers(0, 500, 3)] for _ in range(40)]
    fold = folds.Fold(np.arange(40), np.arange(40, 80))
    twice = audit.audit([fold], [], delays=[2], tr=2.0, words=once + once)
    assert twice.overlap[8] == 1.0
    assert _found(twice, "text") == ["warning"]
    other = [[f"v{int(k)}" for k in rng.integers(0, 500, 3)] for _ in range(40)]
    assert _found(audit.audit([fold], [], delays=[2], tr=2.0, words=once + other), "text") == [
        "note"
    ]


def test_wrong_input_is_refused():
    fold = folds.Fold(np.arange(5), np.arange(8, 12))
    with pytest.raises(NumericalError, match="without folds"):
        audit.audit([], [], delays=[1], tr=1.0)
    with pytest.raises(NumericalError, match="at least one delay"):
        audit.audit([fold], [], delays=[], tr=1.0)
    with pytest.raises(NumericalError, match="inner folds of 2"):
        audit.audit([fold], [[], []], delays=[1], tr=1.0)
    with pytest.raises(NumericalError, match="3 rows of words, expected 12"):
        audit.audit([fold], [], delays=[1], tr=1.0, words=[[], [], []])
