"""Two stories heard by overlapping groups, and their group maps together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import small_alice
from scipy import stats

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import cli as simulate

pytestmark = pytest.mark.thorough

PEOPLE = {"one": ("01", "02", "03", "04"), "two": ("03", "04", "05")}
FAST = ("--model", "random:tiny-bert", "--features", "magnitudes", "--n-iter", "2", "--alphas",
        "1", "100", "--n-permutations", "500", "--n-bootstraps", "100", "--context-trs", "0",
        "--nprocs", "1", "--cv", "3", "--inner-cv", "2", "--bands", "silence", "counts",
        "--offline")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Simulate two stories and leave some people out of each."""
    folder = tmp_path_factory.mktemp("pooled")
    bids, out = folder / "bids", folder / "out"
    assert simulate.main([str(bids), "--participants", "01", "02", "03", "04", "05", "--stories",
                          "one", "two", "--run-seconds", "150", "--model", "random:tiny-bert",
                          "--seed", "3"]) == 0
    atlas = next(bids.rglob("*dseg.nii.gz"))
    for story, people in PEOPLE.items():
        assert cli.main([str(bids), str(out), "participant", "--task-label", story,
                         "--participant-label", *people, "--atlas", str(atlas), *FAST]) == 0
    assert cli.main([str(bids), str(out), "group", "--n-permutations", "500",
                     "--n-bootstraps", "100"]) == 0
    return out


def _column(path):
    return np.array([np.nan if v == "n/a" else float(v) for v in write.read_tsv(path)["value"]])


def _z(out, story, person):
    path = next(out.glob(f"sub-{person}/func/*task-{story}_*Magnitudes_stat-r_boldmap.tsv"))
    return np.arctanh(_column(path))


def test_every_story_counts_the_same(out):
    means = [np.mean([_z(out, s, p) for p in people], axis=0) for s, people in PEOPLE.items()]
    found = next(out.glob("group/task-pooled_*Magnitudes_stat-mean_boldmap.tsv"))
    np.testing.assert_allclose(_column(found), np.tanh(np.mean(means, axis=0)), atol=1e-7)


def test_people_count_once_in_the_null(out):
    """All 32 sign patterns of five people, whatever number of stories they heard."""
    everyone = sorted({p for people in PEOPLE.values() for p in people})
    share = {s: 1 / (2 * len(people)) for s, people in PEOPLE.items()}
    each = np.array([
        sum(share[s] * _z(out, s, p) for s in PEOPLE if p in PEOPLE[s]) for p in everyone
    ])
    signs = np.array(list(itertools.product([1, -1], repeat=len(everyone))))
    null = signs @ each
    expected = (null >= each.sum(axis=0) - 1e-12).mean(axis=0)
    p = _column(next(out.glob("group/task-pooled_*Magnitudes_stat-p_boldmap.tsv")))
    np.testing.assert_allclose(p, expected, atol=1e-9)
    q = _column(next(out.glob("group/task-pooled_*Magnitudes_stat-q_boldmap.tsv")))
    np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-6)


def test_the_page_has_all_stories(out):
    text = (out / "group.html").read_text("utf-8")
    assert "All stories together" in text
    assert "Story one" in text
    assert "Story pooled" not in text


def test_a_second_call_makes_nothing(out):
    before = small_alice.stamps(out)
    assert cli.main([str(out.parent / "bids"), str(out), "group", "--n-permutations", "500",
                     "--n-bootstraps", "100"]) == 0
    assert small_alice.stamps(out) == before
