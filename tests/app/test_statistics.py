"""Leakage audit, timing check, ceilings and corrected group maps through the app."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import small_alice
from scipy import stats

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import cli as simulate

pytestmark = pytest.mark.thorough

PEOPLE = ("18", "22", "23", "24", "26", "28")
PLACE = "task-alice_space-MNI152NLin2009cAsym_atlas-Alice6"


def _column(path, name="value"):
    return np.array([np.nan if v == "n/a" else float(v) for v in write.read_tsv(path)[name]])


def _run(folder, bids, out, *more):
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, out, *more)) == 0
        assert cli.main([str(bids), str(out), "group", "--n-permutations", "100",
                         "--n-bootstraps", "100", *(["--tfce"] if "--voxelwise" in more else [])]
                        ) == 0


@pytest.fixture(scope="module")
def bids(alice, tmp_path_factory):
    return small_alice.copy(alice, tmp_path_factory.mktemp("statistics") / "bids", PEOPLE)


@pytest.fixture(scope="module")
def out(bids):
    """Six people whose folds lie far enough apart."""
    folder = bids.parent
    _run(folder, bids, folder / "out", "--gap", "16")
    return folder / "out"


@pytest.fixture(scope="module")
def late(bids):
    """The same people with words that come 6 s too late and folds that touch."""
    folder = bids.parent
    _run(folder, bids, folder / "late", "--gap", "0", "--stimulus-onset", "alice=-14")
    return folder / "late"


def _sidecar(out, participant, desc="nuisance"):
    func = out / f"sub-{participant}" / "func"
    return write.read_json(func / f"sub-{participant}_{PLACE}_desc-{desc}_stat-r_boldmap.json")


def test_folds_that_lie_apart_do_not_leak(out):
    audit = _sidecar(out, "18")["Leakage"]
    assert not audit["Leaks"]
    assert audit["LeastDistance"] == 9  # 16 s are 8 TRs left out
    assert audit["NeededDistance"] == 5 + 3  # longest delay, and 5 s of response
    assert not audit["DelaysCross"]
    assert not audit["ResponseCrosses"]
    assert "LEAK" not in (out / "sub-18.html").read_text("utf-8")


def test_folds_that_touch_leak_and_say_so_in_red(late):
    meta = _sidecar(late, "18")
    assert meta["Leakage"]["Leaks"]
    assert meta["Leakage"]["LeastDistance"] == 1
    assert any("LEAK" in text and "--gap" in text for text in meta["Warnings"])
    for page in ("sub-18.html", "group.html"):
        text = (late / page).read_text("utf-8")
        assert 'class="notice error"' in text
        assert "LEAK" in text


def test_repeated_words_are_counted(out):
    shares = _sidecar(out, "18")["Leakage"]["RepeatedNGrams"]
    assert shares["1"] > 0.5  # function words
    assert shares["8"] < 0.01
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def _lag(out):
    return write.read_json(out / "group" / f"{PLACE}_alignment.json")


def test_the_known_onset_is_found(out):
    found = _lag(out)
    assert abs(found["Lag"]) <= 2.0
    assert not found["Unlikely"]
    assert len(write.read_tsv(out / "group" / f"{PLACE}_alignment.tsv")["lag"]) == len(PEOPLE)


def test_a_wrong_onset_is_caught(late):
    found = _lag(late)
    assert -8.0 <= found["Lag"] <= -4.0
    assert found["Unlikely"]
    assert found["Warnings"]
    text = (late / "group.html").read_text("utf-8").replace("&#39;", "'")
    assert found["Verdict"].rstrip(".") in text


def test_ceilings_stand_side_by_side(out):
    group = out / "group"
    isc = _column(group / f"{PLACE}_stat-isc_boldmap.tsv")
    half = _column(group / f"{PLACE}_stat-splithalf_boldmap.tsv")
    assert stats.spearmanr(isc, half)[0] > 0.5
    p, q = (_column(group / f"{PLACE}_stat-isc{k}_boldmap.tsv") for k in ("p", "q"))
    np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-6)
    assert (_column(group / f"{PLACE}_stat-iscpfwe_boldmap.tsv") >= p - 1e-9).all()
    assert "Ceilings side by side" in (out / "group.html").read_text("utf-8")


def test_nothing_is_divided_by_a_ceiling_whose_interval_holds_zero(out):
    group = out / "group"
    low = _column(group / f"{PLACE}_stat-isc_boldmap.tsv", "ci_low")
    isc = _column(group / f"{PLACE}_stat-isc_boldmap.tsv")
    found = _column(group / f"{PLACE}_desc-randomTinyBertMagnitudes_stat-normalized_boldmap.tsv")
    mean = _column(group / f"{PLACE}_desc-randomTinyBertMagnitudes_stat-mean_boldmap.tsv")
    usable = (low > 0) & (isc >= 0.05)
    assert 0 < usable.sum() < len(usable)
    np.testing.assert_allclose(found[usable], mean[usable] / isc[usable], rtol=1e-6)
    assert np.isnan(found[~usable]).all()


def test_group_maps_have_effects_and_family_wise_p(out):
    group = out / "group"
    stem = f"{PLACE}_desc-randomTinyBertMagnitudes"
    z = np.arctanh([
        _column(out / f"sub-{p}" / "func" / f"sub-{p}_{stem}_stat-r_boldmap.tsv") for p in PEOPLE
    ])
    effect = _column(group / f"{stem}_stat-effect_boldmap.tsv")
    np.testing.assert_allclose(effect, z.mean(axis=0) / z.std(axis=0, ddof=1), rtol=1e-6)
    p, largest = (_column(group / f"{stem}_stat-{k}_boldmap.tsv") for k in ("p", "pfwe"))
    assert (largest >= p - 1e-9).all()
    signs = np.array(np.meshgrid(*[[1, -1]] * len(PEOPLE))).reshape(len(PEOPLE), -1).T
    def t(values):
        return values.mean(axis=0) / values.std(axis=0, ddof=1)
    null = np.array([t(z * s[:, None]).max() for s in signs])
    expected = [(null >= one - 1e-9).mean() for one in t(z)]
    np.testing.assert_allclose(largest, expected, atol=1e-9)


@pytest.mark.parametrize("null", ["shift", "phase"])
def test_other_nulls_keep_scores_and_say_their_name(bids, out, null, tmp_path):
    with contextlib.chdir(bids.parent):
        assert cli.main(small_alice.arguments(
            bids, tmp_path / "out", "--gap", "16", "--null", null, "--participant-label", "18"
        )) == 0
    func = tmp_path / "out" / "sub-18" / "func"
    stem = f"sub-18_{PLACE}_desc-randomTinyBertMagnitudes"
    same = out / "sub-18" / "func" / f"{stem}_stat-r_boldmap.tsv"
    assert (func / f"{stem}_stat-r_boldmap.tsv").read_bytes() == same.read_bytes()
    sidecar = write.read_json(func / f"{stem}_stat-p_boldmap.json")
    assert sidecar["Inference"]["Test"].startswith({"shift": "circular", "phase": "phase"}[null])
    p = _column(func / f"{stem}_stat-p_boldmap.tsv")
    assert ((p > 0) & (p <= 1)).all()
    assert (_column(func / f"{stem}_stat-pfwe_boldmap.tsv") >= p - 1e-9).all()


def test_voxels_can_have_clusters(bids, tmp_path):
    folder = bids.parent
    with contextlib.chdir(folder):
        arguments = small_alice.arguments(bids, tmp_path / "out", "--gap", "16", "--voxelwise")
        assert cli.main([a for k, a in enumerate(arguments) if a != "--atlas"
                         and arguments[k - 1] != "--atlas"]) == 0
        assert cli.main([str(bids), str(tmp_path / "out"), "group", "--tfce", "--n-permutations",
                         "100", "--n-bootstraps", "100"]) == 0
    found = next((tmp_path / "out" / "group").glob("*Magnitudes_stat-ptfce_boldmap.tsv"))
    p = _column(found)
    assert ((p > 0) & (p <= 1)).all()
    maps = {p.name.split("_stat-")[1] for p in (tmp_path / "out").glob("sub-18/func/*Magnitudes*")}
    assert "p_boldmap.tsv" in maps
    assert "pfwe_boldmap.tsv" not in maps  # voxels are tested in pieces


def test_a_short_story_has_a_group_without_what_needs_more(tmp_path, capsys):
    """75 s: no audio values, too few rows for the group's folds and for lags."""
    bids, out = tmp_path / "bids", tmp_path / "out"
    assert simulate.main([str(bids), "--participants", "4", "--stories", "one", "--run-seconds",
                          "75", "--model", "random:tiny-bert", "--seed", "3"]) == 0  # fmt: skip
    atlas = next(bids.rglob("*_dseg.nii.gz"))
    flags = ["--atlas", str(atlas), "--model", "random:tiny-bert", "--features", "embeddings",
             "--layers", "1", "--n-iter", "1", "--alphas", "100", "--n-permutations", "100",
             "--context-trs", "0", "--cv", "3", "--inner-cv", "2", "--gap", "4", "--trim", "4", "4",
             "--bands", "silence", "counts", "--offline"]  # fmt: skip
    assert cli.main([str(bids), str(out), "participant", *flags]) == 0
    gain = write.read_json(next(out.glob("sub-01/func/*Ladder_stat-gain_boldmap.json")))
    missing = {one["Name"]: one["Why"] for one in gain["Missing"]}
    assert "0 of" in missing["acoustics"]
    assert "acoustics" not in [one["Name"] for one in gain["Rungs"]]
    assert cli.main([str(bids), str(out), "group", "--n-permutations", "100", "--n-bootstraps",
                     "100"]) == 0  # fmt: skip
    assert "no cross-subject ceiling" in capsys.readouterr().err
    ceiling = next(out.glob("group/*stat-crosssubject_boldmap.tsv"))
    assert set(write.read_tsv(ceiling)["value"]) == {"n/a"}
    halves = write.read_tsv(next(out.glob("group/*stat-splithalf_boldmap.tsv")))["value"]
    assert any(value != "n/a" for value in halves)
    (lags,) = [write.read_json(p) for p in out.glob("group/*alignment.json")]
    assert lags["Lag"] is None
    assert "too short" in lags["Verdict"]
