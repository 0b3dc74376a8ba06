"""The confound models on real fMRIPrep tables and on spoiled ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bids_brainlm.bidsio.confounds import (
    MOTION,
    cosine_basis,
    denoise_models,
    framewise_displacement,
    polynomials,
    select,
)
from bids_brainlm.errors import ConfigError, DataError, MissingInputError


@pytest.fixture
def old(shared_data):
    stem = shared_data / "confounds" / "test_desc-confounds_regressors"
    return stem.with_suffix(".tsv"), stem.with_suffix(".json")


@pytest.fixture
def new(shared_data):
    stem = shared_data / "confounds" / "test-v21_desc-confounds_timeseries"
    return stem.with_suffix(".tsv"), stem.with_suffix(".json")


def write_table(path, columns):
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def motion(rng):
    return {name: rng.normal(size=40).round(4).tolist() for name in MOTION}


def test_old_style_takes_five_of_each_mask(old):
    tsv, sidecar = old
    chosen = select(tsv, sidecar, "auto", 30, 2.0)
    described = json.loads(sidecar.read_text())
    parts = [name for name in chosen.columns if name.startswith("a_comp_cor")]
    assert [described[name]["Mask"] for name in parts] == ["CSF"] * 5 + ["WM"] * 5
    assert all(described[name]["Retained"] for name in parts)
    for mask, names in (("CSF", parts[:5]), ("WM", parts[5:])):
        retained = [k for k, v in described.items() if v.get("Mask") == mask and v["Retained"]]
        numbers = sorted(int(name.rsplit("_", 1)[1]) for name in retained)
        assert [int(name.rsplit("_", 1)[1]) for name in names] == numbers[:5]
    assert chosen.columns[:6] == MOTION
    assert chosen.matrix.shape == (30, len(chosen.columns))
    assert np.isfinite(chosen.matrix).all()


def test_new_style(new):
    chosen = select(*new, "auto", 30, 2.0)
    assert chosen.columns == (
        *MOTION,
        "cosine00",
        *(f"c_comp_cor_0{k}" for k in range(3)),
        *(f"w_comp_cor_0{k}" for k in range(4)),
    )
    assert chosen.high_pass is None
    assert len(chosen.notes) == 2
    without = select(new[0], None, "auto", 30, 2.0)
    assert without.columns == chosen.columns
    np.testing.assert_array_equal(without.matrix, chosen.matrix)


def test_narratives_adds_polynomials(new):
    auto, narratives = (select(*new, model, 30, 2.0) for model in ("auto", "narratives"))
    assert narratives.columns == (*auto.columns, "polynomial1", "polynomial2")
    added = np.column_stack([np.ones(30), narratives.matrix[:, -2:]])
    time = np.arange(30.0)
    expected = np.column_stack([time**0, time, time**2])
    fitted = added @ np.linalg.lstsq(added, expected, rcond=None)[0]
    np.testing.assert_allclose(fitted, expected, atol=1e-9)


def test_real_narratives_columns_give_the_published_number(shared_data, tmp_path, rng):
    path = shared_data / "narratives" / "fmriprep20.0.5_sub-001_confound_columns.json"
    columns = json.loads(path.read_text())["sub-001_task-pieman_run-1"]
    table = {name: rng.normal(size=300).round(5).tolist() for name in columns}
    parts = [name for name in columns if name.startswith("a_comp_cor")]
    masks = {name: ("CSF", "WM", "combined")[k % 3] for k, name in enumerate(parts)}
    sidecar = tmp_path / "x.json"
    entries = {n: {"Method": "aCompCor", "Mask": m, "Retained": True} for n, m in masks.items()}
    sidecar.write_text(json.dumps(entries))
    chosen = select(write_table(tmp_path / "x.tsv", table), sidecar, "narratives", 300, 1.5)
    assert len(chosen.columns) == 6 + 6 + 10 + 2  # motion, cosine00-05, aCompCor, polynomials


def test_none_reads_nothing(tmp_path):
    chosen = select(tmp_path / "nothing.tsv", None, "none", 12, 2.0)
    assert chosen.matrix.shape == (12, 0)
    assert chosen.columns == ()


def test_alice_gets_a_generated_basis(alice):
    folder = alice / "derivatives/fmriprep/sub-18/func"
    stem = folder / "sub-18_task-alice_desc-confounds_timeseries"
    tsv, sidecar = stem.with_suffix(".tsv"), stem.with_suffix(".json")
    chosen = select(tsv, sidecar, "auto", 362, 2.0)
    assert chosen.high_pass == 128.0
    assert chosen.columns[:6] == MOTION
    assert len(chosen.columns) == 6 + int(2 * 362 * 2 / 128)
    assert any("generated" in note for note in chosen.notes)


@pytest.mark.peer
def test_cosines_are_those_of_nilearn():
    module = pytest.importorskip("nilearn.glm.first_level.design_matrix")
    expected = module.create_cosine_drift(1 / 128, np.arange(300) * 1.5)[:, :-1]
    ours = cosine_basis(300, 1.5, 128.0)
    np.testing.assert_allclose(ours * np.sqrt(2 / 300), expected, atol=1e-12)
    assert cosine_basis(10, 1.0, 128.0).shape == (10, 0)


def test_polynomials_of_order_zero():
    assert polynomials(5, 0).shape == (5, 0)


def test_wrong_number_of_rows(old):
    with pytest.raises(DataError, match=r"found 30 rows, expected .* 31 volumes"):
        select(*old, "auto", 31, 2.0)


def test_missing_motion(tmp_path, motion):
    del motion["rot_y"]
    table = write_table(tmp_path / "c.tsv", motion)
    with pytest.raises(DataError, match="found no rot_y"):
        select(table, None, "auto", 40, 2.0)


@pytest.mark.parametrize("cell", ["n/a", "nan", "inf", "", "text"])
def test_unusable_cells(tmp_path, motion, cell):
    motion["trans_z"][3] = cell
    table = write_table(tmp_path / "c.tsv", motion)
    with pytest.raises(DataError, match=r"column trans_z: found 1 of 40 .* line 5"):
        select(table, None, "auto", 40, 2.0)


def test_old_components_need_their_json(tmp_path, motion):
    table = write_table(tmp_path / "c.tsv", motion | {"a_comp_cor_00": [0.5] * 40})
    with pytest.raises(MissingInputError, match="masks"):
        select(table, None, "auto", 40, 2.0)


def test_missing_table_and_unknown_model(tmp_path):
    with pytest.raises(MissingInputError, match="needs a confounds table"):
        select(None, None, "auto", 40, 2.0)
    (tmp_path / "c.tsv").symlink_to("nowhere")
    with pytest.raises(MissingInputError, match="no content"):
        select(tmp_path / "c.tsv", None, "auto", 40, 2.0)
    with pytest.raises(ConfigError, match="unknown") as caught:
        select(None, None, "best", 40, 2.0)
    assert all(name in caught.value.hint for name in denoise_models())


def test_framewise_displacement(old, tmp_path, motion):
    lines = [line.split("\t") for line in old[0].read_text().splitlines()]
    k = lines[0].index("framewise_displacement")
    expected = np.mean([float(line[k]) for line in lines[2:]])
    assert framewise_displacement(old[0]) == pytest.approx(expected)
    values = np.column_stack([motion[name] for name in MOTION])
    table = write_table(tmp_path / "c.tsv", motion)
    steps = np.abs(np.diff(values, axis=0))
    by_hand = (steps[:, :3].sum(axis=1) + 50 * steps[:, 3:].sum(axis=1)).mean()
    assert framewise_displacement(table) == pytest.approx(by_hand)
    assert framewise_displacement(write_table(tmp_path / "d.tsv", {"csf": [1, 2]})) is None


def test_computed_displacement_agrees_with_fmriprep(old, tmp_path):
    lines = [line.split("\t") for line in old[0].read_text().splitlines()]
    where = [lines[0].index(name) for name in (*MOTION, "framewise_displacement")]
    rows = np.array(
        [[line[k] for k in where] for line in lines[2:12]], float
    )  # volume 0 is shifted
    table = {name: rows[:, k].tolist() for k, name in enumerate(MOTION)}
    computed = framewise_displacement(write_table(tmp_path / "m.tsv", table))
    assert computed == pytest.approx(rows[1:, -1].mean(), rel=1e-6)
