"""What is trained on and left out together when models are tested on other stories or runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.plan.across import Heard, across_jobs
from bids_brainlm.steps.base import Job, Unit


def heard(story, task, run=None, tr=1.5):
    words = Job("words", 1, Unit(story=story), Path(f"out/{story}_words.json"), {},
                facts={"tr": tr, "n_trs": 100})  # fmt: skip
    unit = Unit(story=story, participant="1", task=task, run=run, space="S", atlas="A")
    series = Job("parcels", 1, unit, Path(f"out/{story}_{task}_{run}.json"), {})
    return Heard(words, series, {}, ("silence", "counts"), {})


def plan(own, *schemes):
    base = Config(Path("in"), Path("out"), "participant")
    config = replace(base, encoding=replace(base.encoding, across=schemes))
    jobs = [job for several in across_jobs(own, config, Names(Path("out"))) for job in several]
    return {
        (job.facts["scheme"], job.facts["blocks"][0]["Story"], job.facts["blocks"][0]["Run"]): [
            (block["Story"], block["Run"], block["Source"]) for block in job.facts["blocks"][1:]
        ]
        for job in jobs
    }


def test_stories_of_one_scan_are_left_out_together():
    """a and b share a scan: neither is trained on for the other, nor apart in inner folds."""
    found = plan([heard("a", "x"), heard("b", "x"), heard("c", "y"), heard("d", "z")], "stories")
    assert [one[0] for one in found["stories", "a", None]] == ["c", "d"]
    sources = {story: source for story, _, source in found["stories", "c", None]}
    assert sources == {"a": "a", "b": "a", "d": "d"}


def test_scans_that_share_a_story_are_one_source():
    own = [heard("b", "x"), heard("c", "x"), heard("a", "y"), heard("b", "y"), heard("d", "z"),
           heard("e", "w")]  # fmt: skip
    found = plan(own, "stories")
    sources = {story: source for story, _, source in found["stories", "e", None]}
    assert sources["a"] == sources["b"] == sources["c"] != sources["d"]


def test_all_hearings_of_a_story_are_left_out_but_runs_are_single():
    own = [heard("a", "x", "1"), heard("a", "x", "2"), heard("b", "y")]
    found = plan(own, "stories", "runs")
    assert [one[0] for one in found["stories", "a", "1"]] == ["b"]
    assert [one[:2] for one in found["runs", "a", "1"]] == [("a", "2"), ("b", None)]
    assert len({source for _, _, source in found["runs", "a", "1"]}) == 2
    assert len({source for _, _, source in found["stories", "b", None]}) == 1


@pytest.mark.parametrize("own", [
    [heard("a", "x")],
    [heard("a", "x"), heard("b", "x")],  # one scan
    [heard("a", "x"), heard("b", "y", tr=2.0)],  # other repetition time
])  # fmt: skip
def test_nothing_to_train_on_is_no_unit(own):
    assert plan(own, "stories", "runs") == {}
