"""Models across stories and runs, through the command line, against a fit written down here."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import small_alice
import xarray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map
from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.plan import group, participant
from bids_brainlm.simulate import cli as simulate

STORIES = ("one", "two", "three")
DELAYS, ALPHA, TRIM = (2, 4), 30.0, (3, 5)
FAST = (
    "--model", "random:tiny-bert", "--features", "embeddings", "position-each",
    "--layers", "1", "--bands", "silence", "counts", "--n-iter", "1", "--alphas",
    f"{ALPHA:g}", "--delays", *map(str, DELAYS), "--trim", *map(str, TRIM), "--cv", "3",
    "--inner-cv", "2", "--gap", "6", "--n-permutations", "200", "--n-bootstraps", "100",
    "--context-trs", "0", "--nprocs", "1", "--offline", "--ladder", "none",
)  # fmt: skip
GROUP = ("--n-permutations", "200", "--n-bootstraps", "100", "--ceilings", "isc")
MODEL = "randomTinyBert"


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """01 and 02 heard three stories, 03 one; 04 heard one of two stories twice."""
    bids = tmp_path_factory.mktemp("across") / "bids"
    assert simulate.main([str(bids), "--participants", "01", "02", "03", "04", "--stories",
                          *STORIES, "--run-seconds", "130", "--model", "random:tiny-bert",
                          "--seed", "3", "--n-parcels", "8"]) == 0  # fmt: skip
    for path in sorted(bids.rglob("sub-03_*")):
        if "task-one" not in path.name:
            path.unlink()
    for path in sorted(bids.rglob("sub-04_*")):
        if "task-one" in path.name:
            again = str(path).replace("task-one", "task-one_run-2")
            shutil.copyfile(str(path).replace("sub-04", "sub-02"), again)
            path.rename(str(path).replace("task-one", "task-one_run-1"))
        elif "task-three" in path.name:
            path.unlink()
    table = bids / "participants.tsv"
    text = table.read_text("utf-8").splitlines()
    heard = {"sub-03": "one", "sub-04": "one,two"}
    rows = [line.split("\t") for line in text[1:]]
    at = text[0].split("\t").index("task")
    for row in rows:
        row[at] = heard.get(row[0], row[at])
    table.write_text("\n".join([text[0], *map("\t".join, rows)]) + "\n", "utf-8")
    return bids


def _call(bids, out, *more):
    atlas = next(bids.rglob("*dseg.nii.gz"))
    return [str(bids), str(out), "participant", "--atlas", str(atlas), *FAST, *more]


@pytest.fixture(scope="module")
def out(bids):
    out = bids.parent / "out"
    assert cli.main(_call(bids, out, "--across", "stories", "runs")) == 0
    assert cli.main([str(bids), str(out), "group", *GROUP]) == 0
    return out


def _maps(out, ending, stat="r", ext="tsv", folder="sub-*/func"):
    return sorted(p.name for p in out.glob(f"{folder}/*{ending}_stat-{stat}_boldmap.{ext}"))


def _one(out, person, story, desc, stat, ext="tsv", run=""):
    found = list(out.glob(
        f"sub-{person}/func/sub-{person}_task-{story}{run}_space-*_desc-{desc}_stat-{stat}"
        f"_boldmap.{ext}"
    ))  # fmt: skip
    assert len(found) == 1
    return found[0]


def _values(path):
    return read_map(path)[3]


# An encoding model across stories, written down with scikit-learn.


def _delayed(values):
    return np.hstack([
        np.vstack([np.zeros((d, values.shape[1])), values[:-d]]) for d in DELAYS
    ])  # fmt: skip


def _features(out, story, layer):
    """Return silence, counts and embeddings of a story, NaN in rows without words."""
    nuisance = out / f"task-{story}_recording-nuisance_stim.tsv.gz"
    table = np.genfromtxt(nuisance)
    meta = write.read_json(nuisance.with_name(nuisance.name.replace(".tsv.gz", ".json")))
    bands = [table[:, [meta["Columns"].index(c) for c in meta["Bands"][b]]]
             for b in ("silence", "counts")]  # fmt: skip
    with xarray.open_dataset(next(out.glob(f"stimuli/*/task-{story}_model-{MODEL}_features.nc")),
                             engine="h5netcdf") as stored:  # fmt: skip
        return [*bands, stored["embeddings"].to_numpy()[:, layer].astype(float)]


def _expected(out, person, tested, layer):
    """Fit on the other stories, test on this one: r, rjoint, r2 and r2 of nuisance bands."""
    trained = [story for story in STORIES if story != tested]
    first, last = TRIM
    series = {
        s: np.genfromtxt(next(out.glob(f"sub-{person}/func/*task-{s}_*timeseries.tsv")),
                         skip_header=1)
        for s in STORIES
    }  # fmt: skip
    blocks = {s: _features(out, s, layer) for s in STORIES}
    rows = {s: slice(first, len(series[s]) - last) for s in STORIES}
    train, test = [], []
    for band in range(3):
        known = [blocks[s][band][rows[s]] for s in trained]
        scaler = StandardScaler().fit(np.vstack([k[np.isfinite(k).all(axis=1)] for k in known]))
        made = {}
        for story in STORIES:
            values = blocks[story][band][: len(series[story])]
            scaled = np.nan_to_num(scaler.transform(values))  # silent rows are 0
            made[story] = _delayed(scaled)[rows[story]]
        x = np.vstack([made[s] for s in trained])
        size = np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
        train.append((x - x.mean(axis=0)) / size)
        test.append((made[tested] - x.mean(axis=0)) / size)
    y = np.vstack([series[s][rows[s]] for s in trained])
    observed = series[tested][rows[tested]] - y.mean(axis=0)
    parts = _ridge(train, test, y - y.mean(axis=0))
    base = sum(_ridge(train[:2], test[:2], y - y.mean(axis=0)))
    whole = sum(parts)
    return {
        "r": _r(parts[2], observed),
        "rjoint": _r(whole, observed),
        "rcounts": _r(parts[1], observed),
        "r2": _r2(whole, observed),
        "unique": _r2(whole, observed) - _r2(base, observed),
        "nuisance": _r2(base, observed),
    }


def _ridge(train, test, y):
    """Return what each band predicts; bands weigh the same."""
    share = np.sqrt(1 / len(train))
    model = Ridge(alpha=ALPHA, fit_intercept=False).fit(share * np.hstack(train), y)
    weights = np.split(model.coef_.T, np.cumsum([x.shape[1] for x in train])[:-1])
    return [share * x @ w for x, w in zip(test, weights, strict=True)]


def _r(f, y):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(f.T, y.T, strict=True)])


def _r2(f, y):
    return 1 - (y - f).var(axis=0) / y.var(axis=0)


@pytest.mark.parametrize(("person", "tested"), [("01", "one"), ("02", "two"), ("01", "three")])
def test_maps_equal_a_fit_that_leaves_the_story_out(out, person, tested):
    for column, layer in enumerate((1,)):
        expected = _expected(out, person, tested, layer)
        for stat, wanted in expected.items():
            desc = f"{MODEL}EmbeddingsAcrossStories"
            if stat == "nuisance":
                path = _one(out, person, tested, "nuisanceAcrossStories", "r2")
                found = _values(path)[:, 0]
            else:
                found = _values(_one(out, person, tested, desc, stat))[:, column]
            np.testing.assert_allclose(found, wanted, atol=2e-6, err_msg=stat)


def test_who_gets_which_maps(out):
    made = _maps(out, f"{MODEL}EmbeddingsAcrossStories")
    assert [name.partition("_space")[0] for name in made] == [
        *[f"sub-{p}_task-{s}" for p in ("01", "02") for s in ("one", "three", "two")],
        "sub-04_task-one_run-1", "sub-04_task-one_run-2", "sub-04_task-two",
    ]  # fmt: skip
    runs = _maps(out, f"{MODEL}EmbeddingsAcrossRuns")
    assert [name.partition("_space")[0] for name in runs] == [
        "sub-04_task-one_run-1", "sub-04_task-one_run-2", "sub-04_task-two",
    ]  # fmt: skip
    assert len(_maps(out, "positionEachAcrossStories")) == 9


def _split(out, *place, **more):
    return write.read_json(_one(out, *place, "r", "json", **more))["Split"]


def _named(blocks):
    return [f"{one['Story']}{one.get('Run', '')}" for one in blocks]


def test_sidecars_name_what_was_left_out(out):
    desc = f"{MODEL}EmbeddingsAcrossStories"
    meta = write.read_json(_one(out, "01", "two", desc, "r", "json"))
    split = meta["Split"]
    assert meta["CrossValidation"] == "leave one story out"
    assert _named(split["Test"]) == ["two"]
    assert sorted(_named(split["Train"])) == ["one", "three"]
    assert sorted(map(_named, split["Inner"])) == [["one"], ["three"]]
    n_trs = {s: len(np.genfromtxt(next(out.glob(f"sub-01/func/*task-{s}_*timeseries.tsv")))) - 1
             for s in STORIES}  # fmt: skip
    for block in [*split["Test"], *split["Train"]]:
        assert block["Rows"] == [[TRIM[0], n_trs[block["Story"]] - TRIM[1] - 1]]
    assert "Folds" not in meta
    assert not meta["Leakage"]["Leaks"]
    assert meta["Leakage"]["LeastDistance"] is None
    assert meta["Leakage"]["RepeatedNGrams"]["8"] == 0
    assert not any("mean over folds" in meta["Description"] for _ in meta)
    degrees = meta["EffectiveDegreesOfFreedom"]
    assert set(degrees) == {"layer01"}
    assert all(0 < d["Low"] <= d["Median"] <= d["High"] for d in degrees.values())
    within = write.read_json(_one(out, "01", "two", f"{MODEL}Embeddings", "r", "json"))
    assert set(within["EffectiveDegreesOfFreedom"]) == {"layer01"}


def test_a_story_heard_twice_is_never_trained_on_itself(out):
    desc = f"{MODEL}EmbeddingsAcrossStories"
    assert _named(_split(out, "04", "one", desc, run="_run-1")["Train"]) == ["two"]
    both = _split(out, "04", "two", desc)
    assert _named(both["Train"]) == ["one1", "one2"]
    assert [_named(part) for part in both["Inner"]] == [["one1", "one2"]] * 2
    for part in both["Inner"]:
        assert part[0]["Rows"] == part[1]["Rows"]


def test_runs_with_the_same_text_are_marked(out):
    desc = f"{MODEL}EmbeddingsAcrossRuns"
    meta = write.read_json(_one(out, "04", "one", desc, "r", "json", run="_run-1"))
    assert meta["CrossValidation"] == "leave one run out"
    assert _named(meta["Split"]["Train"]) == ["one2", "two"]
    assert meta["Leakage"]["RepeatedNGrams"]["8"] > 0.9
    assert {"warning"} == {f["Severity"] for f in meta["Leakage"]["Findings"]
                           if f["Check"] == "text"}  # fmt: skip
    other = write.read_json(_one(out, "04", "two", desc, "r", "json"))
    assert other["Leakage"]["RepeatedNGrams"]["8"] == 0


def test_group_maps_hold_those_who_heard_several(out):
    folder = out / "group"
    read = write.read_json
    for story, people in {"one": ["01", "02", "04"], "two": ["01", "02", "04"],
                          "three": ["01", "02"]}.items():  # fmt: skip
        (path,) = folder.glob(f"task-{story}_*EmbeddingsAcrossStories_stat-mean_boldmap.json")
        assert read(path)["Participants"] == people
    (path,) = folder.glob("task-one_*EmbeddingsAcrossStories_stat-mean_boldmap.tsv")
    desc = f"{MODEL}EmbeddingsAcrossStories"
    z = {p: np.arctanh(_values(_one(out, p, "one", desc, "r"))) for p in ("01", "02")}
    both = [np.arctanh(_values(_one(out, "04", "one", desc, "r", run=f"_run-{k}")))
            for k in (1, 2)]  # fmt: skip
    z["04"] = np.mean(both, axis=0)
    found = _values(path)[:, :1]  # behind it its interval
    np.testing.assert_allclose(found, np.tanh(np.mean(list(z.values()), axis=0)), atol=2e-6)
    assert not list(folder.glob("*AcrossRuns*"))  # one participant only
    (path,) = folder.glob("task-one_*_desc-*EmbeddingsAcrossStories_stat-q_boldmap.json")
    assert read(path)["Inference"]["Family"] == "parcels of one column"


def test_stories_are_pooled(out):
    (path,) = out.glob("group/task-pooled_*EmbeddingsAcrossStories_stat-mean_boldmap.json")
    meta = write.read_json(path)
    assert meta["Stories"] == ["one", "three", "two"]
    assert meta["Participants"] == ["01", "02", "04"]


def test_single_features_stay_one_family_and_are_not_compared(out):
    for name in ("task-one", "task-pooled"):
        (path,) = out.glob(f"group/{name}_*_desc-positionEachAcrossStories_stat-q_boldmap.json")
        assert write.read_json(path)["Inference"]["Family"].startswith("all ")
    assert not list(out.glob("group/*comparison.tsv"))  # one space that has layers


def test_pages_show_both(out):
    page = (out / "group.html").read_text("utf-8")
    assert "Within and across stories" in page
    assert "leave one story out" in page
    assert "across runs" not in page
    page = (out / "sub-04.html").read_text("utf-8")
    assert "across runs" in page
    assert "one run-2" in page
    assert "Within and across stories" not in (out / "sub-03.html").read_text("utf-8")


def test_a_second_call_makes_nothing(bids, out):
    before = small_alice.stamps(out)
    assert cli.main(_call(bids, out, "--across", "stories", "runs")) == 0
    assert small_alice.stamps(out) == before


def _planned(bids, *more):
    jobs = participant.plan(cli.parse(_call(bids, bids.parent / "none", *more))).jobs
    return [job for job in jobs if job.step == "across"]


def test_nothing_is_planned_where_it_is_not_wanted(bids):
    assert _planned(bids, "--across", "none") == []
    assert _planned(bids, "--preset", "paper") == []
    assert _planned(bids, "--participant-label", "03") == []
    assert _planned(bids, "--task-label", "one") == []  # 04 heard it twice: one story
    assert {job.facts["scheme"] for job in _planned(bids)} == {"stories"}


def test_runs_of_one_story_are_left_out_where_asked_for(bids):
    made = _planned(bids, "--task-label", "one", "--across", "runs")
    assert {job.unit.participant for job in made} == {"04"}
    assert [b["Run"] for b in made[0].facts["blocks"]] == ["1", "2"]
    everyone = _planned(bids, "--across", "runs")
    assert {job.unit.participant for job in everyone} == {"01", "02", "04"}


def test_people_share_a_call_where_they_heard_alike(bids):
    made = [j for j in _planned(bids) if j.unit.feature == "nuisance" and j.unit.story == "one"]
    groups = [job.group for job in made]
    assert [j.unit.participant for j in made] == ["01", "02", "04", "04"]
    assert groups[0] == groups[1]
    assert groups[2] == groups[3] != groups[0]


@pytest.mark.parametrize(("changed", "refused"), [("Bands", False), ("Delays", True)])
def test_people_with_other_bands_are_left_out_of_the_group(bids, tmp_path, changed, refused):
    """Which bands all stories have depends on the stories that somebody heard."""
    sidecars = {}
    for person in ("01", "02", "03"):
        odd = person == "03"
        write.write_json(tmp_path / f"{person}.json", {
            "Step": {"Parameters": {"delays": [2, 3] if odd and changed == "Delays" else [2]}},
            "Bands": [{"Name": n} for n in ("silence", "phonemes")[: 1 if odd else 2]],
            "Columns": ["layer01"],
        })
        sidecars[person, None, None] = tmp_path / f"{person}.json"
    settings = cli.parse(_call(bids, tmp_path / "none"))
    place = ("one", "S", "A")
    if refused:
        with pytest.raises(DataError, match="sub-03"):
            group._alike(place, "mEmbeddingsAcrossStories", sidecars, settings)
        return
    kept, skipped = group._alike(place, "mEmbeddingsAcrossStories", sidecars, settings)
    assert [person for person, _, _ in kept] == ["01", "02"]
    assert [one.participant for one in skipped] == ["03"]
    assert "phonemes" in skipped[0].why
    with pytest.raises(DataError, match="sub-03"):
        group._alike(place, "mEmbeddings", sidecars, settings)


def test_none_with_others_is_refused(bids):
    with pytest.raises(ConfigError, match="--across none stories"):
        cli.parse(_call(bids, bids.parent / "none", "--across", "none", "stories"))
