"""Maps and tables from Python, against the files read by pandas."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from report_outputs import HEADS, LAYERS
from richer_outputs import Richer

import bids_brainlm
from bids_brainlm.errors import AnalysisLevelError, ConfigError, MissingInputError

STEM = "task-tea_space-MNI152NLin2009cAsym_atlas-Schaefer2018Fake"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return Richer(tmp_path_factory.mktemp("richer")).write()


def table(path):
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


def test_a_group_map(out):
    found = bids_brainlm.load_maps(out, "tea", "embeddings")
    stored = table(out / "group" / f"{STEM}_desc-fakeEmbeddings_stat-mean_boldmap.tsv")
    assert found.dims == ("parcel", "column")
    assert found.name == "mean"
    np.testing.assert_array_equal(found, stored[LAYERS])
    assert found["parcel"].values.tolist() == stored["name"].tolist()
    assert found["index"].values.tolist() == stored["index"].tolist()
    assert found["column"].values.tolist() == LAYERS
    assert found["layer"].values.tolist() == list(range(7))
    assert "head" not in found.coords
    assert found.attrs["model"] == "fake/language-model"
    assert found.attrs["feature"] == "fakeEmbeddings"
    assert found.attrs["files"] == [
        f"group/{STEM}_desc-fakeEmbeddings_stat-mean_boldmap.tsv"
    ]
    assert found.attrs["fdr"] == 0.05


def test_heads_have_layer_and_head(out):
    found = bids_brainlm.load_maps(out, "tea", "fakeTransformations", "q")
    assert found["column"].values.tolist() == HEADS
    one = found.sel(column="L03H07")
    assert (int(one["layer"]), int(one["head"])) == (3, 7)


def test_all_participants(out):
    found = bids_brainlm.load_maps(out, "tea", "embeddings", level="participant")
    assert found.dims == ("participant", "parcel", "column")
    assert found["participant"].values.tolist() == ["01", "02", "03", "04", "05"]
    for person in ("01", "04"):
        name = f"sub-{person}_{STEM}_desc-fakeEmbeddings_stat-r_boldmap.tsv"
        stored = table(out / f"sub-{person}" / "func" / name)[LAYERS]
        np.testing.assert_array_equal(found.sel(participant=person), stored)
        one = bids_brainlm.load_maps(out, "tea", "embeddings", participant=person)
        assert one.dims == ("parcel", "column")
        np.testing.assert_array_equal(one, stored)
        assert one.attrs["participant"] == person
    assert np.isnan(found.sel(participant="01")[2]).all()  # written n/a


def test_participants_with_other_parcels_are_aligned_by_name(tmp_path):
    fake = Richer(tmp_path)
    out = fake.write()
    path = out / "sub-03" / "func" / f"sub-03_{STEM}_desc-fakeEmbeddings_stat-r_boldmap.tsv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[4], lines[2]]))  # rows 4 and 2 of 12, turned
    found = bids_brainlm.load_maps(out, "tea", "embeddings", level="participant")
    assert found.shape == (5, 12, 7)
    assert found["index"].values.tolist() == list(range(1, 13))
    mine = found.sel(participant="03")
    assert np.isfinite(mine).all("column").values.nonzero()[0].tolist() == [1, 3]
    assert float(mine[3, 0]) == float(lines[4].split("\t")[2])


def test_regions_and_parcels_do_not_mix(out):
    parcels = bids_brainlm.load_maps(out, "tea", "embeddings")
    regions = bids_brainlm.load_maps(out, "tea", "embeddings", regions=True)
    assert parcels.shape == (12, 7)
    assert regions["parcel"].values.tolist() == ["front", "back"]


def test_list_maps(out):
    found = bids_brainlm.list_maps(out)
    files = [p for p in (out / "group").glob("*_boldmap.tsv") if p.with_suffix(".json").exists()]
    assert {m.path for m in found} == set(files)
    assert {m.regions for m in found if m.atlas.endswith("Rois")} == {True}
    mine = bids_brainlm.list_maps(out, participant="02", stat="r")
    assert {m.feature for m in mine} == {
        "fakeEmbeddings", "fakeTransformations", "fakeMagnitudes", "nuisance",
    }  # fmt: skip
    assert not [m for m in bids_brainlm.list_maps(out, level="participant") if m.stat == "label"]
    with pytest.raises(ValueError, match="group, participant"):
        bids_brainlm.list_maps(out, level="story")


def test_ceilings(out):
    found = bids_brainlm.load_ceilings(out, "tea")
    assert list(found.columns) == [
        "index", "isc", "isc_low", "isc_high", "splithalf", "splithalf_low", "splithalf_high",
        "isc_q",
    ]  # fmt: skip
    stored = table(out / "group" / f"{STEM}_stat-isc_boldmap.tsv")
    np.testing.assert_array_equal(found["isc_low"], stored["ci_low"])
    assert found.index.tolist() == stored["name"].tolist()
    with pytest.raises(MissingInputError, match="stories tea"):
        bids_brainlm.load_ceilings(out, "coffee")


def test_tables(out):
    found = bids_brainlm.load_comparison(out, "tea", regions=True)
    assert found["region"].tolist() == ["front", "back"]
    assert len(bids_brainlm.load_comparison(out, "tea")) == 12
    assert found.attrs["NumberOfParticipants"] == 5
    heads = bids_brainlm.load_table(out, "tea", "heads")
    assert list(heads.columns) == ["head", "layer", "lookback", "PC01", "PC02"]
    assert len(heads) == 72
    assert len(bids_brainlm.load_table(out, "tea", "components", model="fake")) == 2
    words = bids_brainlm.load_table(out, "tea", "words")
    assert words["word"][0] == "<script>alert('x')</script>"
    with pytest.raises(ValueError, match="decoding, heads"):
        bids_brainlm.load_table(out, "tea", "chairs")
    with pytest.raises(MissingInputError, match="no table decoding"):
        bids_brainlm.load_table(out, "tea", "decoding")
    with pytest.raises(MissingInputError, match="is not there for these"):
        bids_brainlm.load_table(out, "tea", "components", model="other")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"feature": "embedings"}, "did you mean 'fakeEmbeddings'"),
        ({"feature": "embeddings", "stat": "meen"}, "did you mean 'mean'"),
        ({"story": "coffee"}, "found the stories tea"),
        ({"participant": "99"}, "of participant '99'"),
        ({"model": "other"}, "no mean of 'embeddings'"),
    ],
)
def test_errors_say_what_is_there(out, wanted, said):
    given = {"story": "tea", "feature": "embeddings", **wanted}
    story, feature = given.pop("story"), given.pop("feature")
    with pytest.raises(MissingInputError, match=said):
        bids_brainlm.load_maps(out, story, feature, given.pop("stat", None), **given)


def test_several_runs_and_atlases_are_never_mixed(tmp_path):
    fake = Richer(tmp_path)
    fake.write()
    values = np.zeros((12, 7))
    for run in ("1", "2"):
        place = fake.place("02", run=run, desc="fakeEmbeddings", stat="r")
        fake.table("boldmap", place, LAYERS, values + int(run), fake.meta("fakeEmbeddings", LAYERS))
    with pytest.raises(MissingInputError, match="run '1'"):
        bids_brainlm.load_maps(tmp_path, "tea", "embeddings", level="participant")
    one = bids_brainlm.load_maps(tmp_path, "tea", "embeddings", participant="02", run="2")
    assert (one == 2).all()
    fake.atlas = "Other"
    fake.table("group_boldmap", fake.place(desc="fakeEmbeddings", stat="mean"), LAYERS, values,
               fake.meta("fakeEmbeddings", LAYERS))
    with pytest.raises(MissingInputError, match="with Other in"):
        bids_brainlm.load_maps(tmp_path, "tea", "embeddings")
    assert (bids_brainlm.load_maps(tmp_path, "tea", "embeddings", atlas="Other") == 0).all()


def test_run_has_the_commands_errors_as_exceptions(tmp_path, out):
    with pytest.raises(AnalysisLevelError, match="grup"):
        bids_brainlm.run(tmp_path, out, "grup")
    with pytest.raises(ConfigError, match=r"no setting 'n_bootstrap'.* 'n_bootstraps'"):
        bids_brainlm.run(tmp_path, out, "group", {"n_bootstrap": 3})
    with pytest.raises(ConfigError, match="n_bootstraps is 'many'"):
        bids_brainlm.run(tmp_path, out, "group", {"--n-bootstraps": "many"})


def test_run_runs(tmp_path, alice, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    settings = {"dry-run": True, "model": ["random:tiny-bert"], "work_dir": tmp_path / "work"}
    assert bids_brainlm.run(alice, tmp_path / "o", "stimulus", settings) == 0
    assert "alice" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_the_api_is_where_dir_says(out):
    for name in ("list_maps", "load_maps", "load_ceilings", "load_comparison", "load_table",
                 "run", "plot", "list_figures", "load_features", "list_features"):
        assert name in dir(bids_brainlm)
        assert callable(getattr(bids_brainlm, name))
    with pytest.raises(AttributeError):
        bids_brainlm.no_such_thing  # noqa: B018


def test_sidecar_numbers_survive(out):
    """Attributes are plain, so that arrays can be written to netCDF."""
    found = bids_brainlm.load_maps(out, "tea", "embeddings")
    assert json.loads(json.dumps(found.attrs)) == found.attrs
