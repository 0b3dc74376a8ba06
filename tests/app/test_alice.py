"""The main job on real data: 18 people, a real story, a real language model."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.confounds import cosine_basis
from bids_brainlm.bidsio.maps import read_map

SPACE = "space-MNI152NLin2009cAsym_atlas-Alice6"
PARCELS = ["LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"]


@pytest.fixture(scope="module")
def out(alice, minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alice") / "out"
    atlas = alice / "derivatives/atlas/tpl-MNI152NLin2009cAsym_atlas-Alice6_dseg.nii.gz"
    shared = [str(alice), str(folder)]
    fast = ["--n-iter", "10", "--alphas", "1", "10", "100", "10000", "--n-permutations", "1000"]
    code = cli.main(
        [*shared, "participant", "--model", "minilm", "--features", "embeddings", "--layers", "3",
         "4", "--atlas", str(atlas), "--offline", "--ladder", "none", *fast]
    )
    assert code == 0
    assert cli.main([*shared, "group"]) == 0
    return folder


def group_map(out, desc, stat):
    label = f"_desc-{desc}" if desc else ""
    return read_map(out / "group" / f"task-alice_{SPACE}{label}_stat-{stat}_boldmap.tsv")


def test_words_are_in_scan_time(out):
    meta = write.read_json(out / "stimuli/task-alice/task-alice_words.json")
    assert meta["AudioOnset"] == -20.0
    assert meta["FirstWordOnset"] == pytest.approx(0.0589, abs=1e-3)
    assert meta["FirstVolume"] == 0
    assert meta["NumberOfWords"] == meta["NumberOfWordsInStory"] == 2127


def test_everybody_has_maps_and_a_page(out):
    people = sorted(p.name for p in out.glob("sub-*") if p.is_dir())
    assert len(people) == 18
    for person in people:
        page = (out / f"{person}.html").read_text("utf-8")
        assert not re.search(r'(src|href)="https?://(?!doi\.org)', page)
        for stat in ("r", "rjoint", "r2", "unique", "p", "q", "rthresholded"):
            name = f"{person}_task-alice_{SPACE}_desc-minilmEmbeddings_stat-{stat}_boldmap"
            for ext in ("tsv", "nii.gz", "json"):
                assert (out / person / "func" / f"{name}.{ext}").is_file()


def test_isc_equals_an_independent_computation(out, alice):
    """From the raw images: motion and 128 s cosines removed, trimmed, each against the others."""
    import nibabel

    series = []
    for person in sorted(p.name for p in alice.glob("sub-*")):
        func = alice / "derivatives/fmriprep" / person / "func"
        (image,) = func.glob("*desc-preproc_bold.nii.gz")
        data = nibabel.load(image).get_fdata().reshape(-1, 362, order="C").T
        labels = nibabel.load(
            alice / "derivatives/atlas/tpl-MNI152NLin2009cAsym_atlas-Alice6_dseg.nii.gz"
        ).get_fdata().ravel().astype(int)
        (table,) = func.glob("*confounds_timeseries.tsv")
        motion = np.loadtxt(table, skiprows=1)
        design = np.column_stack([np.ones(362), motion, cosine_basis(362, 2.0, 128.0)])
        cleaned = data - design @ np.linalg.lstsq(design, data, rcond=None)[0]
        series.append(cleaned[:, [int(np.flatnonzero(labels == k)[0]) for k in range(1, 7)]])
    z = np.stack(series)
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, ddof=1, keepdims=True)
    z = z[:, 10:-10]
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    expected = np.array([
        [np.corrcoef(z[i, :, k], np.delete(z, i, 0)[:, :, k].mean(axis=0))[0, 1] for k in range(6)]
        for i in range(len(z))
    ])
    _, names, columns, stored = group_map(out, "participants", "isc")
    assert names == PARCELS
    assert len(columns) == 18
    np.testing.assert_allclose(stored.T, expected, atol=1e-6)
    mean = group_map(out, None, "isc")[3][:, 0]
    np.testing.assert_allclose(mean, np.tanh(np.arctanh(expected).mean(axis=0)), atol=1e-6)
    assert (mean > 0.08).all()
    assert mean.max() < 0.45


def test_the_joint_model_is_above_chance(out):
    p = group_map(out, "minilmEmbeddings", "rjointp")[3]
    assert (p[:, 1] < 0.05).sum() >= 4  # layer 4; six regions
    assert p[PARCELS.index("LPTL"), 1] < 0.01
    r = group_map(out, "minilmEmbeddings", "mean")[3]
    assert 0.03 < r[:, 1].mean() < 0.15


def test_normalised_scores_are_mean_over_ceiling(out):
    mean = group_map(out, "minilmEmbeddings", "mean")[3]
    isc = group_map(out, None, "isc")[3][:, :1]
    normalised = group_map(out, "minilmEmbeddings", "normalized")[3]
    np.testing.assert_allclose(normalised, mean / isc, rtol=1e-6)


def test_what_the_model_adds_is_the_mean_of_the_participants(out):
    maps = [
        read_map(path)[3]
        for path in sorted(out.glob("sub-*/func/*minilmEmbeddings_stat-unique_boldmap.tsv"))
    ]
    stored = group_map(out, "minilmEmbeddings", "unique")[3]
    np.testing.assert_allclose(stored, np.mean(maps, axis=0), atol=1e-8)
    page = (out / "group.html").read_text("utf-8")
    assert "What the features add" in page
    assert "R²" in page
