"""The control ladder through the app, on a small copy of Alice."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
import small_alice

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.simulate.models import write_tiny_model

PLACE = "task-alice_space-MNI152NLin2009cAsym_atlas-Alice6"
RUNGS = ["position", "wordrate", "static", "untrained", "trained"]
DELAYS, ALPHA, N_BANDS = (2, 4), 3.0, 6  # one draw of weights: all bands weigh the same
ARGUMENTS = (
    "--ladder", "asked", "--model", "minilm", "random:minilm", "--features", "embeddings", "static",
    "position", "--layers", "1", "--n-iter", "1", "--alphas", f"{ALPHA:g}", "--delays",
    *map(str, DELAYS), "--trim", "4", "4",
)  # fmt: skip


@pytest.fixture(scope="module")
def out(alice, minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    bids = small_alice.copy(alice, folder / "bids")
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, folder / "out", *ARGUMENTS)) == 0
        assert cli.main([str(bids), str(folder / "out"), "group", "--n-permutations", "200",
                         "--n-bootstraps", "100"]) == 0  # fmt: skip
    return folder / "out"


def _table(path):
    table = write.read_tsv(path)
    columns = [c for c in table if c not in ("index", "name")]
    return columns, np.array([[float(v) for v in table[c]] for c in columns]).T


def _map(out, stat, participant="18", desc="minilmLadder"):
    name = f"sub-{participant}_{PLACE}_desc-{desc}_stat-{stat}_boldmap.tsv"
    return _table(out / f"sub-{participant}" / "func" / name)


def _group(out, stat, desc="minilmLadder"):
    return _table(out / "group" / f"{PLACE}_desc-{desc}_stat-{stat}_boldmap.tsv")


def _meta(out, stat="gain"):
    name = f"sub-18_{PLACE}_desc-minilmLadder_stat-{stat}_boldmap.json"
    return write.read_json(out / "sub-18" / "func" / name)


def test_rungs_are_in_order_and_gains_are_differences(out):
    columns, gain = _map(out, "gain")
    assert columns == RUNGS
    r2 = _map(out, "r2")[1]
    np.testing.assert_allclose(gain[:, 1:], r2[:, 1:] - r2[:, :-1], atol=1e-6)
    np.testing.assert_allclose(gain[:, 0], r2[:, 0], atol=1e-9)


def test_products_and_unique_parts_add_up_to_the_whole_model(out):
    whole = _map(out, "r2")[1][:, -1]
    np.testing.assert_allclose(_map(out, "product")[1].sum(axis=1), whole, atol=1e-6)
    unique = _map(out, "unique")[1]
    shared = _map(out, "shared")[1][:, 0]
    np.testing.assert_allclose(unique.sum(axis=1) + shared, whole, atol=1e-6)
    np.testing.assert_allclose(unique[:, -1], _map(out, "gain")[1][:, -1], atol=1e-6)


def _stim(out, recording):
    path = next(out.glob(f"*recording-{recording}_stim.tsv.gz"))
    return write.read_stim_tsv_gz(path), write.read_json(path.with_name(path.name[:-6] + "json"))


def _rows(ranges):
    return np.concatenate([np.arange(a, b + 1) for a, b in ranges])


def _r2(bands, y, folds):
    """R2 of ridge on stacked bands with equal weights: one penalty, one draw of weights."""
    from sklearn.linear_model import Ridge

    left, total = 0.0, 0.0
    for fold in folds:
        train, test = _rows(fold["Train"]), _rows(fold["Test"])
        wide = []
        for x in bands:
            spread = x[train].std(axis=0)
            scaled = (x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
            own = np.hstack([np.vstack([np.zeros((d, x.shape[1])), scaled[:-d]]) for d in DELAYS])
            own = own - own[train].mean(axis=0)
            size = np.sqrt((own[train] ** 2).sum() / len(train))
            wide.append(own / (size or 1.0))
        model = Ridge(alpha=ALPHA * N_BANDS, fit_intercept=False)
        model.fit(np.hstack(wide)[train], y[train] - y[train].mean(axis=0))
        seen = y[test] - y[test].mean(axis=0)
        error = y[test] - model.predict(np.hstack(wide)[test])
        left = left + ((error - error.mean(axis=0)) ** 2).sum(axis=0)
        total = total + (seen**2).sum(axis=0)
    return 1 - left / total


def test_gains_of_the_first_rungs_are_those_of_scikit_learn(out):
    """From the files alone: features, series and folds."""
    folds = _meta(out)["Folds"]
    series = out / "sub-18" / "func" / f"sub-18_{PLACE}_stat-mean_timeseries.tsv"
    y = np.array([[float(v) for v in row] for row in write.read_tsv(series).values()]).T
    nuisance, described = _stim(out, "nuisance")
    members = [
        nuisance[:, [described["Columns"].index(c) for c in described["Bands"][band]]]
        for band in ("silence", "counts")
    ]
    position = _stim(out, "position")[0]
    first, second = _r2([position], y, folds), _r2([position, *members], y, folds)
    gain = _map(out, "gain")[1]
    np.testing.assert_allclose(gain[:, 0], first, atol=1e-6)
    np.testing.assert_allclose(gain[:, 1], second - first, atol=1e-6)


def test_the_sidecar_names_bands_layer_and_what_is_missing(out):
    meta = _meta(out)
    bands = {one["Name"]: one["Bands"] for one in meta["Rungs"]}
    assert bands == {
        "position": ["position"], "wordrate": ["silence", "counts"], "static": ["static"],
        "untrained": ["untrained"], "trained": ["trained"],
    }  # fmt: skip
    assert meta["Layer"]["Number"] == 4  # of 6
    missing = {one["Name"]: one["Why"] for one in meta["Missing"]}
    assert set(missing) == {"phonemes", "acoustics"}
    assert "not known" in missing["phonemes"]
    kinds = {b["Name"]: b["Model"]["Label"] for b in meta["Bands"] if "Model" in b}
    assert kinds["trained"] == "minilm"
    assert kinds["untrained"] == "randomMinilm"
    chosen = meta["Gammas"]["Mean"]
    assert chosen["position"]["trained"] == 0
    assert all(v > 0 for v in chosen["trained"].values())
    assert meta["Leakage"]["NeededDistance"] > 0


def test_an_untrained_model_beside_a_trained_one_has_no_ladder_of_its_own(out):
    assert not list(out.rglob("*randomMinilmLadder*"))


def test_group_gains_are_means_with_sign_flip_p(out):
    own = np.stack([_map(out, "gain", p)[1] for p in small_alice.PARTICIPANTS])
    columns, mean = _group(out, "gain")
    assert columns == RUNGS
    np.testing.assert_allclose(mean, own.mean(axis=0), atol=1e-6)
    low, high = _group(out, "gaincilow")[1], _group(out, "gaincihigh")[1]
    assert (low <= mean + 1e-9).all()
    assert (mean <= high + 1e-9).all()
    flips = np.array(list(itertools.product([1, -1], repeat=len(own))))
    def t(values):
        return values.mean(axis=0) / values.std(axis=0, ddof=1)
    null = np.array([t(own * f[:, None, None]) for f in flips])
    expected = (null >= t(own) - 1e-9).mean(axis=0)
    p = _group(out, "gainp")[1]
    np.testing.assert_allclose(p, expected, atol=1e-9)
    largest = np.array([(null.max(axis=(1, 2)) >= one - 1e-9).mean() for one in t(own).ravel()])
    np.testing.assert_allclose(_group(out, "gainpfwe")[1].ravel(), largest, atol=1e-9)


def test_better_is_the_worst_comparison_with_smaller_models(out):
    r2 = np.stack([_map(out, "r2", p)[1] for p in small_alice.PARTICIPANTS])
    padded = np.concatenate([np.zeros_like(r2[:, :, :1]), r2], axis=2)
    flips = np.array(list(itertools.product([1, -1], repeat=len(r2))))
    def p(values):
        sums = np.tensordot(flips, values, axes=1)
        return (sums >= values.sum(axis=0) - 1e-9).mean(axis=0)
    expected = [
        np.max([p(padded[:, :, k] - padded[:, :, j]) for j in range(k)], axis=0)
        for k in range(1, padded.shape[2])
    ]
    np.testing.assert_allclose(_group(out, "betterp")[1], np.array(expected).T, atol=1e-9)


def test_q_is_over_rungs_and_parcels_together(out):
    from scipy.stats import false_discovery_control

    p, q = _group(out, "gainp")[1], _group(out, "gainq")[1]
    np.testing.assert_allclose(q.ravel(), false_discovery_control(p.ravel()), rtol=1e-6)
    meta = write.read_json(out / "group" / f"{PLACE}_desc-minilmLadder_stat-gainq_boldmap.json")
    assert meta["Inference"]["Family"] == "all rungs and parcels"


def test_the_page_shows_the_ladder(out):
    page = (out / "group.html").read_text("utf-8")
    assert "Control ladder" in page
    assert "Not in this ladder" in page
    assert (out / "group" / "figures" / "group_task-alice_desc-minilmLadder_ladder.svg").is_file()
    labels = write.read_tsv(out / "descriptions.tsv")
    assert "desc-minilmLadder" in labels["desc_id"]


def test_a_ladder_needs_embeddings(small, capsys):
    arguments = small_alice.arguments(small, small.parent / "out", "--ladder", "asked", "--dry-run")
    assert cli.main(arguments) == 64
    assert "Add embeddings to --features" in capsys.readouterr().err


def test_auto_makes_what_the_rungs_need_and_no_more(small, tmp_path):
    text = "alice was beginning to get very tired"
    model = write_tiny_model(tmp_path / "tiny", "bert", text, seed=1)
    flags = ["--ladder", "auto", "--model", str(model), "--features", "embeddings", "--layers", "1",
             "--n-iter", "1", "--alphas", "3", "--trim", "4", "4", "--participant-label", "18"]
    with contextlib.chdir(tmp_path):
        assert cli.main(small_alice.arguments(small, tmp_path / "out", *flags)) == 0
    folder = tmp_path / "out" / "sub-18" / "func"
    descs = {p.name.split("_desc-")[1].split("_")[0] for p in folder.glob("*_desc-*.tsv")}
    assert descs == {"nuisance", "tinyEmbeddings", "tinyLadder"}
    meta = write.read_json(next(folder.glob("*_desc-tinyLadder_stat-gain_boldmap.json")))
    assert [one["Name"] for one in meta["Rungs"]] == RUNGS
    assert {one["Name"] for one in meta["Missing"]} == {"phonemes", "acoustics"}
    bands = {band["Name"]: band for band in meta["Bands"]}
    assert bands["untrained"]["Model"]["Kind"] == "random"
    assert bands["untrained"]["Model"]["Label"] == "randomTiny"
