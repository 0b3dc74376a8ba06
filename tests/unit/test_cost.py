"""The cost model agrees with stored measurements within a factor of 2; nothing is timed here."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from bids_brainlm import cli
from bids_brainlm.plan import cost, fit, participant
from bids_brainlm.steps.base import Later

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


def _alice(alice, minilm, tmp_path):
    """Return the call of three participants that was measured."""
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
    return cli.parse(given)


def test_the_plan_gives_the_sizes_that_were_measured(alice, minilm, tmp_path):
    """Planning the measured call again gives what was stored, so that both are about the same."""
    settings = _alice(alice, minilm, tmp_path)
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


def test_files_are_counted_without_naming_those_of_everybody(alice, minilm, tmp_path):
    settings = _alice(alice, minilm, tmp_path)
    jobs = participant.plan(settings).jobs
    for several in cost.calls_of(jobs):
        found = cost.n_files(several)
        if several[0].step == "encoding":
            named = [isinstance(job.outputs, Later) and "_named" in vars(job.outputs)
                     for job in several]  # fmt: skip
            assert named == [True, False, False]
        assert found == sum(len(job.outputs) + 1 for job in several)


def test_outputs_that_are_named_later_are_pickled_as_a_dict():
    calls = []

    def name():
        calls.append(1)
        return {"r.tsv": Path("r.tsv"), "p.tsv": Path("p.tsv")}

    later = Later(name)
    assert calls == []
    sent = pickle.loads(pickle.dumps(later))
    assert type(sent) is dict
    assert sent == later == name()
    assert list(later.values()) == [Path("r.tsv"), Path("p.tsv")]
    assert len(calls) == 2  # once for all, once here


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 8), (300, 2, 3, 4, 1)])
def test_sizes_of_images_are_those_that_nibabel_reads(name, kind, shape, tmp_path):
    path = tmp_path / name
    nibabel.save(kind(np.zeros(shape, np.uint8), np.eye(4)), path)
    assert fit.image_shape(path) == (*shape, 1)[:4] == (*nibabel.load(path).shape, 1)[:4]


def test_sizes_of_big_endian_images(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_shape((5, 6, 7, 8))
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.zeros((5, 6, 7, 8)), np.eye(4), header).to_filename(path)
    assert path.read_bytes()[:4] == b"\0\0\1\x5c"
    assert fit.image_shape(path) == (5, 6, 7, 8)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 99]
)
def test_an_image_that_cannot_be_read_counts_as_a_large_one(content, tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert fit.image_shape(path) == (97, 115, 97, 500)


def test_80_000_voxels_fit_into_8_gb():
    found = STORED["voxelwise"]
    assert (found["n_voxels"], found["mem_gb"]) == (80_000, 8.0)
    assert found["peak_gb"] < 8


def test_group_statistics_fit_into_24_gb():
    found = STORED["group"]
    assert (found["n_participants"], found["n_voxels"]) == (345, 80_000)
    assert found["peak_gb"] < 24


@pytest.mark.parametrize(("level", "mem_gb"), [("participant", 8), ("group", 24)])
def test_a_voxelwise_study_stayed_within_its_memory(level, mem_gb):
    """Whole commands, `benchmarks/large.py`."""
    found = STORED["large"][level]
    assert (found["n_voxels"], found["mem_gb"]) == (80_000, mem_gb)
    assert found["peak_gb"] < mem_gb
    assert found.get("n_participants", 345) == 345
