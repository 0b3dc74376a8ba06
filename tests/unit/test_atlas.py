"""Atlases: real Schaefer files, Alice's six regions, and what goes wrong."""

from __future__ import annotations

import json
import sys
import types

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio.atlas import resolve_atlas, to_grid
from bids_brainlm.errors import DataError, MissingInputError

SPACE = "MNI152NLin2009cAsym"


@pytest.fixture
def home(shared_data):
    return shared_data / "templateflow"


@pytest.fixture
def schaefer(home):
    return resolve_atlas("Schaefer2018_100Parcels17Networks", SPACE, home=home)


@pytest.mark.parametrize(
    "name", ["Schaefer2018_100Parcels17Networks", "Schaefer2018100Parcels17Networks"]
)
def test_templateflow_names(home, name):
    atlas = resolve_atlas(name, SPACE, home=home)
    assert atlas.label == "Schaefer2018100Parcels17Networks"
    assert (atlas.n_parcels, atlas.space, atlas.anatomical) == (100, SPACE, True)
    assert atlas.names[0] == "17Networks_LH_VisCent_ExStr_1"
    assert (atlas.hemispheres[0], atlas.networks[0]) == ("L", "VisCent")
    assert atlas.hemispheres.count("R") == 50
    assert atlas.warnings == ()


def test_home_from_the_environment(home, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    assert resolve_atlas("Schaefer2018_400Parcels7Networks", SPACE).n_parcels == 400


def test_missing_and_empty_files_name_the_command(home, tmp_path):
    with pytest.raises(MissingInputError, match="found no file") as caught:
        resolve_atlas("Schaefer2018_1000Parcels17Networks", SPACE, home=home)
    assert (
        f"bids_brainlm-fetch --atlas Schaefer2018_1000Parcels17Networks --space {SPACE}"
        in caught.value.hint
    )
    folder = tmp_path / f"tpl-{SPACE}"
    folder.mkdir()
    (folder / f"tpl-{SPACE}_res-01_atlas-Toy_dseg.nii.gz").touch()
    with pytest.raises(MissingInputError, match="only an empty file"):
        resolve_atlas("Toy", SPACE, home=tmp_path)
    with pytest.raises(MissingInputError):
        resolve_atlas("Schaefer2018_100Parcels17Networks", "MNI152Lin", home=home)


def test_online_asks_templateflow_for_image_and_table(tmp_path, monkeypatch):
    stem = tmp_path / f"tpl-{SPACE}" / f"tpl-{SPACE}_res-02_atlas-Toy_dseg"
    image, table = stem.with_suffix(".nii.gz"), stem.with_name(stem.name.replace("_res-02", ""))
    table = table.with_suffix(".tsv")
    image.parent.mkdir()
    image.touch()
    table.touch()
    asked = []

    def get(space, **query):
        asked.append((space, query["extension"], query["resolution"], query["atlas"]))
        if query["extension"] == ".tsv":
            table.write_text("index\tname\n1\ta\n")
        else:
            save(image, np.ones((2, 2, 2)))

    def fail(space, **query):
        raise ConnectionError("no network")

    conf = types.SimpleNamespace(TF_HOME=tmp_path)
    fake = types.SimpleNamespace(api=types.SimpleNamespace(get=fail), conf=conf)
    monkeypatch.setitem(sys.modules, "templateflow", fake)
    with pytest.raises(MissingInputError, match="ConnectionError: no network"):
        resolve_atlas("Toy", SPACE, home=tmp_path, offline=False)
    fake.api.get = get
    with pytest.raises(MissingInputError, match="only an empty file"):
        resolve_atlas("Toy", SPACE, home=tmp_path)
    assert asked == []
    assert resolve_atlas("Toy", SPACE, home=tmp_path, offline=False).names == ("a",)
    assert asked == [(SPACE, ".nii.gz", "02", "Toy"), (SPACE, ".tsv", None, "Toy")]
    table.write_text("")
    assert "no table of names" in resolve_atlas("Toy", SPACE, home=tmp_path).warnings[0]


def test_alice(alice):
    path = next((alice / "derivatives/atlas").glob("*.nii.gz"))
    atlas = resolve_atlas(str(path), SPACE)
    assert atlas.label == "Alice6"
    assert atlas.names == ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
    assert atlas.hemispheres == ("L", "R", "L", "L", "L", "L")
    assert not atlas.anatomical
    grid = to_grid(atlas, atlas.labels.shape, atlas.affine)
    np.testing.assert_array_equal(grid.labels, atlas.labels)
    assert grid.n_voxels.tolist() == [1] * 6


def save(path, labels, table=None, affine=None):
    affine = np.eye(4) if affine is None else affine
    nib.save(nib.Nifti1Image(np.asarray(labels, np.int16), affine), path)
    if table is not None:
        path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text(table)
    return str(path)


def test_labels_with_holes_keep_their_numbers(shared_data):
    atlas = resolve_atlas(str(shared_data / "atlases/evlab_langParcels_symmetrical.nii.gz"), SPACE)
    assert atlas.index.tolist() == [*range(1, 14), *range(19, 32)]
    assert atlas.names[-1] == "parcel31"
    assert atlas.label == "evlablangParcelssymmetrical"
    assert atlas.anatomical
    grid = to_grid(atlas, atlas.labels.shape, atlas.affine)
    assert grid.labels.max() == 26
    np.testing.assert_array_equal(grid.labels == 14, atlas.labels == 19)


def test_another_space_is_a_warning(shared_data, tmp_path):
    path = save(tmp_path / "tpl-MNI152NLin6Asym_atlas-Toy_dseg.nii.gz", np.ones((12, 12, 12)))
    atlas = resolve_atlas(path, SPACE)
    assert "MNI152NLin6Asym" in atlas.warnings[0]
    assert (atlas.label, atlas.anatomical) == ("Toy", True)


def test_json_may_deny_anatomy(tmp_path):
    path = save(tmp_path / "toy.nii.gz", np.ones((12, 12, 12)))
    (tmp_path / "toy.json").write_text(json.dumps({"Anatomical": False}))
    assert not resolve_atlas(path, None).anatomical


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("number\tname\n1\ta\n", "columns index and name"),
        ("index\tname\n1\ta\n", "found 1 labels"),
        ("index\tname\n1\ta\n2\tb\n2\tc\n", "lists twice"),
        ("index\tname\none\ta\n", "integers"),
        ("index\tname\n1\n", "found 1 cells"),
    ],
)
def test_bad_tables(tmp_path, table, message):
    path = save(tmp_path / "toy.nii.gz", np.arange(27).reshape(3, 3, 3) % 3, table)
    with pytest.raises(DataError, match=message):
        resolve_atlas(path, None)


def test_bad_images(tmp_path):
    with pytest.raises(DataError, match="no labelled voxel"):
        resolve_atlas(save(tmp_path / "zero.nii.gz", np.zeros((3, 3, 3))), None)
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.3), np.eye(4)), tmp_path / "map.nii.gz")
    with pytest.raises(DataError, match="expected a 3-D image of integers"):
        resolve_atlas(str(tmp_path / "map.nii.gz"), None)
    with pytest.raises(MissingInputError, match="does not exist"):
        resolve_atlas(str(tmp_path / "nothing.nii.gz"), None)


def test_table_rows_without_voxels_are_empty_parcels(tmp_path):
    labels = np.zeros((3, 3, 3))
    labels[1] = 5
    path = save(tmp_path / "toy.nii.gz", labels, "index\tname\n0\tnone\n7\tb\n5\ta\n")
    atlas = resolve_atlas(path, None)
    assert atlas.names == ("a", "b")
    grid = to_grid(atlas, (3, 3, 3), np.eye(4))
    assert grid.empty.tolist() == [False, True]


def test_no_overlap_is_an_error(schaefer):
    far = np.diag([3.0, 3.0, 3.0, 1.0])
    far[:3, 3] = 500
    with pytest.raises(DataError, match="do not overlap"):
        to_grid(schaefer, (20, 20, 20), far)


@pytest.mark.peer
def test_nearest_agrees_with_nilearn(schaefer):
    image = pytest.importorskip("nilearn.image")
    affine = np.array(
        [[3.0, 0, 0, -95.37], [0, 3.0, 0.0937, -131.23], [0, -0.0937, 4.0, -77.91], [0, 0, 0, 1]]
    )  # no voxel centre lies halfway between two of the atlas
    shape = (65, 77, 49)
    grid = to_grid(schaefer, shape, affine)
    expected = image.resample_img(
        nib.Nifti1Image(schaefer.labels, schaefer.affine),
        affine,
        shape,
        interpolation="nearest",
        force_resample=True,
        copy_header=True,
    ).get_fdata()
    np.testing.assert_array_equal(grid.labels, expected)
    assert not grid.empty.any()
    assert grid.n_voxels.sum() == (grid.labels > 0).sum()


def test_ties_go_one_way(tmp_path):
    labels = np.arange(1, 9).reshape(8, 1, 1) * np.ones((1, 2, 2))
    atlas = resolve_atlas(save(tmp_path / "toy.nii.gz", labels), None)
    affine = np.diag([2.0, 1, 1, 1])
    affine[0, 3] = 0.5
    grid = to_grid(atlas, (4, 2, 2), affine)
    assert grid.labels[:, 0, 0].tolist() == [2, 4, 6, 8]
