"""Partial correlations, single features, regions, comparisons and components through the app.

Every number is computed again here from the files that it is made of.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import shutil

import numpy as np
import pytest
import small_alice
import xarray
from scipy import stats

from bids_brainlm import cli
from bids_brainlm.bidsio import write

pytestmark = pytest.mark.thorough

MODEL = "randomTinyBert"
SPACES = ("embeddings", "transformations", "heads", "attention", "linguistic-each", "position",
          "stim-pulse", "stim-pulse-each")
ROIS = {"LATL": "AntTemp", "RATL": "AntTemp", "LPTL": "PostTemp", "LIFG": "IFG", "LPreM": "Motor"}
PLACE = "task-alice_space-MNI152NLin2009cAsym_atlas-Alice6"


def _table(path):
    """Read a map: parcels, columns, values."""
    table = write.read_tsv(path)
    columns = [c for c in table if c not in ("index", "name", "ci_low", "ci_high")]
    values = [[np.nan if v == "n/a" else float(v) for v in table[c]] for c in columns]
    return table["name"], columns, np.array(values).T


@pytest.fixture(scope="module")
def run(alice, shared_data, tmp_path_factory):
    """Run both levels with everything that heads and regions need."""
    folder = tmp_path_factory.mktemp("heads")
    bids = small_alice.copy(alice, folder / "bids")
    values = np.random.default_rng(5).normal(size=1000)
    with gzip.open(bids / "task-alice_recording-pulse_stim.tsv.gz", "wt") as stream:
        stream.write("".join(f"{v:.6f}\n" for v in np.repeat(values, 2)))
    meta = {"Columns": ["pulse"], "SamplingFrequency": 10, "StartTime": 0}
    (bids / "task-alice_recording-pulse_stim.json").write_text(json.dumps(meta))
    rois = folder / "rois.tsv"
    lines = [f"{parcel}\t{roi}" for parcel, roi in ROIS.items()]
    rois.write_text("\n".join(["name\troi", *lines]) + "\n")
    flags = ["--features", *SPACES, "--predictions", "--decoding", "--decoding-permutations", "20",
             "--spacy-pipeline", str(shared_data / "spacy" / "en_brainlm_test_sm"),
             "--bands", "silence", "counts", "--offline"]
    out = folder / "out"
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, out, *flags)) == 0
        assert cli.main([str(bids), str(out), "group", "--rois", "rois.tsv", "--n-permutations",
                         "200", "--n-bootstraps", "100"]) == 0
    return out, folder


@pytest.fixture(scope="module")
def out(run):
    return run[0]


def _map(out, desc, stat, participant=None, atlas=""):
    if participant is None:
        return _table(out / "group" / f"{PLACE}{atlas}_desc-{desc}_stat-{stat}_boldmap.tsv")
    func = out / f"sub-{participant}" / "func"
    return _table(func / f"sub-{participant}_{PLACE}_desc-{desc}_stat-{stat}_boldmap.tsv")


def _residual(series, control):
    """What ordinary least squares with an intercept leaves."""
    design = np.column_stack([np.ones(len(control)), control])
    return series - design @ np.linalg.lstsq(design, series, rcond=None)[0]


def test_partial_correlations_follow_from_predictions_and_series(out):
    func = out / "sub-18" / "func"
    stem = f"sub-18_{PLACE}"
    series = write.read_matrix_tsv(func / f"{stem}_stat-mean_timeseries.tsv")[1]
    predicted = {}
    for space in ("Embeddings", "Transformations"):
        path = func / f"{stem}_desc-{MODEL}{space}_stat-prediction_boldmap.nc"
        with xarray.open_dataset(path, engine="h5netcdf") as stored:
            predicted[space] = stored.load()
    one, other = predicted["Embeddings"], predicted["Transformations"]
    _, columns, found = _map(out, f"{MODEL}EmbeddingsPartial", "r", "18")
    assert columns == ["layer01", "layer02", "layer03", "layer04"]
    for place, column in enumerate(columns):
        folds = []
        for fold in np.unique(one["fold"]):
            rows = np.flatnonzero(one["fold"].to_numpy() == fold)
            trs = one["tr"].to_numpy()[rows]
            a = one["prediction"].sel(column=column).to_numpy()[rows, 2].astype(float)
            b = other["prediction"].sel(column=column).to_numpy()[rows, 2].astype(float)
            folds.append(stats.pearsonr(_residual(series[trs, 2], b), _residual(a, b))[0])
        assert found[2, place] == pytest.approx(np.mean(folds), abs=1e-5)


def test_predictions_give_back_the_scores(out):
    func = out / "sub-18" / "func"
    series = write.read_matrix_tsv(func / f"sub-18_{PLACE}_stat-mean_timeseries.tsv")[1]
    path = func / f"sub-18_{PLACE}_desc-{MODEL}Embeddings_stat-prediction_boldmap.nc"
    with xarray.open_dataset(path, engine="h5netcdf") as stored:
        rows, fold = stored["tr"].to_numpy(), stored["fold"].to_numpy()
        values = stored["prediction"].sel(column="layer02").to_numpy()[:, 0]
    r = [stats.pearsonr(series[rows[fold == k], 0], values[fold == k])[0] for k in np.unique(fold)]
    _, columns, scores = _map(out, f"{MODEL}Embeddings", "r", "18")
    assert scores[0, columns.index("layer02")] == pytest.approx(np.mean(r), abs=1e-5)


def test_a_model_of_each_feature_is_the_model_of_that_feature(out):
    _, columns, each = _map(out, "stimPulseEach", "r", "22")
    assert columns == ["pulse"]
    np.testing.assert_array_equal(each, _map(out, "stimPulse", "r", "22")[2])


def test_single_features_are_corrected_together(out):
    _, columns, q = _map(out, "linguisticEach", "q")
    p = _map(out, "linguisticEach", "p")[2]
    assert "nsubj" in columns
    known = np.isfinite(p)
    expected = stats.false_discovery_control(p[known])
    np.testing.assert_allclose(q[known], expected, rtol=1e-6)
    sidecar = out / "group" / f"{PLACE}_desc-linguisticEach_stat-mean_boldmap.json"
    assert write.read_json(sidecar)["Inference"]["Family"] == "all features and parcels"


def _roi_z(out, desc, participant):
    """Fisher means over parcels, (n_rois, n_columns), in the order of the package's table."""
    names, columns, r = _map(out, desc, "r", participant)
    rois = ["PostTemp", "AntTemp", "IFG", "Motor"]
    z = np.arctanh(r)
    return rois, columns, np.stack(
        [z[[n for n, name in enumerate(names) if ROIS.get(name) == roi]].mean(axis=0)
         for roi in rois]
    )


def test_scores_of_regions_are_fisher_means(out):
    z = [_roi_z(out, f"{MODEL}Embeddings", p) for p in small_alice.PARTICIPANTS]
    names, columns, mean = _map(out, f"{MODEL}Embeddings", "mean", atlas="Rois")
    assert names == z[0][0]
    assert columns == z[0][1]
    np.testing.assert_allclose(mean, np.tanh(np.mean([one[2] for one in z], axis=0)), atol=1e-8)
    sidecar = out / "group" / f"{PLACE}Rois_desc-{MODEL}Embeddings_stat-mean_boldmap.json"
    regions = {r["Name"]: r["Parcels"] for r in write.read_json(sidecar)["Regions"]}
    assert regions["AntTemp"] == ["LATL", "RATL"]


def test_regions_are_normalised_by_the_ceiling_of_their_parcels(out):
    names, _, isc = _table(out / "group" / f"{PLACE}_stat-isc_boldmap.tsv")
    rois, _, normalized = _map(out, f"{MODEL}Embeddings", "normalized", atlas="Rois")
    mean = _map(out, f"{MODEL}Embeddings", "mean", atlas="Rois")[2]
    for k, roi in enumerate(rois):
        own = [n for n, name in enumerate(names) if ROIS.get(name) == roi]
        ceiling = np.tanh(np.arctanh(isc[own, 0]).mean())
        expected = mean[k] / ceiling if ceiling >= 0.05 else np.full(mean.shape[1], np.nan)
        np.testing.assert_allclose(normalized[k], expected, atol=1e-7)


def test_spaces_are_compared_at_the_layer_of_the_other_half(out):
    """Three people: the first and third form one half, the second the other."""
    people = list(small_alice.PARTICIPANTS)
    z = {}
    for desc in (f"{MODEL}Embeddings", f"{MODEL}Transformations", f"{MODEL}Attention"):
        each = [_roi_z(out, desc, p) for p in people]
        kept = [k for k, c in enumerate(each[0][1]) if c != "layer00"]
        values = np.stack([one[2][:, kept] for one in each])
        picked = np.empty(values.shape[:2])
        for mine, others in [([0, 2], [1]), ([1], [0, 2])]:
            best = values[others].mean(axis=0).argmax(axis=1)
            picked[mine] = values[mine][:, np.arange(len(best)), best]
        z[desc] = picked
    table = write.read_tsv(out / "group" / f"{PLACE}Rois_comparison.tsv")
    rows = {(a, b, r): k for k, (a, b, r) in enumerate(
        zip(table["first"], table["second"], table["region"], strict=True))}
    rois = ["PostTemp", "AntTemp", "IFG", "Motor"]
    for first, second in itertools.permutations(z, 2):
        for n, roi in enumerate(rois):
            k = rows.get((first, second, roi))
            if k is None:
                continue
            gaps = z[first][:, n] - z[second][:, n]
            assert float(table["difference"][k]) == pytest.approx(gaps.mean(), abs=1e-7)
            signs = np.array(list(itertools.product([1, -1], repeat=3)))
            exact = (np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean()
            assert float(table["p"][k]) == pytest.approx(exact, abs=1e-9)
    compared = set(table["first"]) | set(table["second"])
    assert {*z, "position", "stimPulse"} == compared


def test_correspondence_and_best_heads_of_regions(out):
    decoding = write.read_tsv(
        out / "stimuli" / "task-alice" / f"task-alice_model-{MODEL}_decoding.tsv")
    accuracy = np.array([np.nan if v == "n/a" else float(v) for v in decoding["accuracy"]])
    labels = np.array(decoding["label"])
    names, heads, scores = _map(out, f"{MODEL}Heads", "mean", atlas="Rois")
    rois, columns, rho = _map(out, f"{MODEL}Correspondence", "rho", atlas="Rois")
    best, within, people, both = (
        _map(out, f"{MODEL}Correspondence", stat, atlas="Rois")[2]
        for stat in ("besthead", "pwithin", "ppeople", "pboth")
    )
    np.testing.assert_allclose(both, np.maximum(within, people))
    assert names == rois
    known = [c for c in columns if np.isfinite(accuracy[labels == c]).all()]
    assert known
    for label in known:
        own = accuracy[labels == label]
        k = columns.index(label)
        for n in range(len(rois)):
            expected = stats.spearmanr(own, scores[n])[0]
            assert rho[n, k] == pytest.approx(expected, abs=1e-7, nan_ok=True)
            assert best[n, k] == pytest.approx(scores[n, own.argmax()], abs=1e-8)
    assert len(heads) == len(own)


def test_components_of_heads_are_those_of_their_norms(out):
    patterns = np.stack(
        [_map(out, f"{MODEL}Heads", "normexcess", p)[2].T for p in small_alice.PARTICIPANTS]
    )
    patterns = patterns - patterns.mean(axis=1, keepdims=True)
    patterns = patterns - patterns.mean(axis=2, keepdims=True)
    patterns = patterns / patterns.std(axis=(1, 2), keepdims=True)
    mean = patterns.mean(axis=0)
    left, size, _ = np.linalg.svd(mean, full_matrices=False)
    table = write.read_tsv(
        out / "group" / f"{PLACE}_desc-{MODEL}Specialization_heads.tsv")
    loadings = _map(out, f"{MODEL}Specialization", "loading")[2]
    for k in range(2):
        own = np.array([float(v) for v in table[f"PC{k + 1:02d}"]])
        assert abs(stats.pearsonr(own, left[:, k])[0]) == pytest.approx(1, abs=1e-7)
        expected = [stats.pearsonr(own, mean[:, n])[0] for n in range(mean.shape[1])]
        np.testing.assert_allclose(loadings[:, k], expected, atol=1e-7)
    parts = write.read_tsv(out / "group" / f"{PLACE}_desc-{MODEL}Specialization_components.tsv")
    share = [float(v) for v in parts["share"]]
    np.testing.assert_allclose(share, (size**2 / (size**2).sum())[: len(share)], atol=1e-8)
    agreement = [float(v) for v in parts["agreement"]]
    np.testing.assert_allclose(agreement, (size**2 / mean.size)[: len(share)], atol=1e-8)
    signs = np.array(list(itertools.product([1, -1], repeat=len(patterns))))
    means = np.tensordot(signs, patterns, 1) / len(patterns)
    every = np.linalg.svd(means, compute_uv=False)[:, 0] ** 2 / mean.size
    exact = (every >= every[0] * (1 - 1e-9)).mean()
    assert float(parts["p"][0]) == pytest.approx(exact, abs=1e-9)
    meta = write.read_json(
        out / "group" / f"{PLACE}_desc-{MODEL}Specialization_stat-loading_boldmap.json")
    assert meta["Warnings"] == ["with 3 participants no p of a component can be below 0.25"]
    assert meta["Components"]["NumberOfPermutations"] == 7


def test_look_back_distance_is_a_covariate(out):
    table = write.read_tsv(out / "group" / f"{PLACE}_desc-{MODEL}Specialization_associations.tsv")
    heads = write.read_tsv(out / "group" / f"{PLACE}_desc-{MODEL}Specialization_heads.tsv")
    assert {"layer", "lookback"} <= set(table["covariate"])
    stored = write.read_stim_tsv_gz(
        out / f"task-alice_recording-{MODEL}AttentionLookback_stim.tsv.gz")
    expected = np.nanmean(stored, axis=0)
    np.testing.assert_allclose([float(v) for v in heads["lookback"]], expected, rtol=1e-6)
    k = next(n for n, c in enumerate(table["covariate"]) if c == "lookback")
    own = [float(v) for v in heads["PC01"]]
    assert float(table["rho"][k]) == pytest.approx(stats.spearmanr(own, expected)[0], abs=1e-7)


def test_the_page_shows_all_of_it(out):
    text = (out / "group.html").read_text("utf-8")
    for title in ("By region", "Regions of interest", "Feature spaces compared",
                  "Which heads predict which regions", "One model for each feature",
                  "What embeddings and transformations add to each other",
                  "Which labels go with which regions", "Examples of correspondence",
                  "Where the best head of each label predicts", "On how many dimensions",
                  "What the components of"):
        assert title in text, title


def test_a_second_call_makes_nothing(run, capsys):
    out, folder = run
    before = small_alice.stamps(out)
    with contextlib.chdir(folder):
        assert cli.main([str(folder / "bids"), str(out), "group", "--rois", "rois.tsv",
                         "--n-permutations", "200", "--n-bootstraps", "100"]) == 0
    assert small_alice.stamps(out) == before


def test_regions_of_another_atlas_are_refused(run, capsys):
    out, folder = run
    wrong = folder / "wrong.tsv"
    wrong.write_text("name\troi\n7Networks_LH_Vis_1\tV1\n7Networks_LH_Vis_2\tV1\n")
    before = small_alice.tree(out)
    assert cli.main([str(folder / "bids"), str(out), "group", "--rois", str(wrong)]) == 65
    said = capsys.readouterr().err
    assert "wrong.tsv" in said
    assert "--rois" in said
    assert small_alice.tree(out) == before


def test_maps_of_heads_of_an_earlier_version_have_no_components(run, tmp_path, capsys):
    """The plan says what to do, and everything else is planned."""
    out, folder = run
    old = tmp_path / "out"
    shutil.copytree(out, old)
    for path in old.glob(f"sub-18/func/*_desc-{MODEL}Heads_stat-normexcess_*"):
        path.unlink()
    with contextlib.chdir(folder):
        assert cli.main([str(folder / "bids"), str(old), "group", "--dry-run", "--n-permutations",
                         "200", "--n-bootstraps", "100"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"skipped specialization of {MODEL}Heads in story alice: the maps of 1 part" in said
    assert "first sub-18, have no stat-normexcess" in said
    assert "participant level again with --overwrite" in said
