"""The cost model agrees with stored measurements within a factor of 2; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_brainlm import cli
from bids_brainlm.plan import cost, fit, participant

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "scale.json"
STORED = json.loads(RESULTS.read_text("utf-8"))
CASES = STORED["units"]
ROWS = [(name, row) for name, case in CASES.items() for row in case["rows"]]
SMALL_SECONDS, SMALL_BYTES = 1.0, 100_000  # below these a factor means nothing


def _near(said: float, found: float, small: float) -> bool:
    return max(said, found) < small or 0.5 <= (said + small / 4) / (found + small / 4) <= 2


@pytest.mark.parametrize(
    ("name", "row"), ROWS, ids=[f"{n}-{r['step']}-{k}" for k, (n, r) in enumerate(ROWS)]
)
def test_time_and_disk_of_every_measured_call(name, row):
    said = cost.estimate(row["step"], cost.Size(**row["size"]))
    assert _near(said.seconds, row["core_seconds"], SMALL_SECONDS), said
    assert _near(said.disk, row["disk"], SMALL_BYTES), said


@pytest.mark.parametrize("name", CASES)
def test_memory_of_every_measured_process(name):
    case = CASES[name]
    assert 0.5 <= case["need_gb"] / case["peak_gb"] <= 2, case


def test_the_plan_gives_the_sizes_that_were_measured(alice, minilm, tmp_path):
    """Planning the measured call again gives what was stored, so that both are about the same."""
    atlas = next(alice.glob("derivatives/atlas/*dseg.nii.gz"))
    given = [
        str(alice),
        str(tmp_path / "out"),
        "participant",
        "--atlas",
        str(atlas),
        "--model",
        f"minilm={minilm}",
        "--offline",
        "--participant-label",
        "18",
        "22",
        "23",
    ]
    settings = cli.parse(given)
    jobs = participant.plan(settings).jobs
    stored = {
        row["unit"]: row["size"] for row in CASES["alice"]["rows"] if row["step"] == "encoding"
    }
    for several in cost.calls_of(jobs):
        if several[0].step == "encoding":
            size = cost.size_of(several, settings)
            old = cost.Size(**stored[str(several[0].unit)])
            for name in ("n_jobs", "n_trs", "n_targets", "n_columns", "n_gammas", "n_alphas"):
                assert getattr(size, name) == getattr(old, name), name
    assert 0.5 <= fit.peak_gb(jobs, settings, 1) / CASES["alice"]["peak_gb"] <= 2


def test_80_000_voxels_fit_into_8_gb():
    found = STORED["voxelwise"]
    assert (found["n_voxels"], found["mem_gb"]) == (80_000, 8.0)
    assert found["peak_gb"] < 8


def test_group_statistics_fit_into_24_gb():
    found = STORED["group"]
    assert (found["n_participants"], found["n_voxels"]) == (345, 80_000)
    assert found["peak_gb"] < 24
