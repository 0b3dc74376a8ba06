"""CIFTI: dense and parcellated series, atlases, maps; files made with nibabel."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import (
    BrainModelAxis,
    Cifti2Image,
    LabelAxis,
    ParcelsAxis,
    ScalarAxis,
    SeriesAxis,
)

from bids_brainlm.bidsio import fsaverage5, grayordinates, grids, surface_atlas
from bids_brainlm.bidsio.bold import find_bold
from bids_brainlm.bidsio.grayordinates import Grayordinates
from bids_brainlm.bidsio.images import load_run, parcel_series
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.bidsio.placing import place_atlas
from bids_brainlm.errors import ConfigError, DataError, MissingInputError

T, TR = 30, 1.5
INTENTS = {
    "dtseries": "NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES",
    "ptseries": "NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SERIES",
    "dlabel": "NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS",
    "dscalar": "NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS",
}


def save(path, values, first, second):
    image = Cifti2Image(np.asarray(values, np.float32), header=(first, second))
    kind = path.name.split(".")[-2]
    image.nifti_header.set_intent(INTENTS[kind])
    image.to_filename(path)
    return path


@pytest.fixture
def axis():
    """Return 90 + 80 vertices of meshes of 100, and 8 voxels."""
    volume = np.zeros((4, 5, 6), bool)
    volume[1:3, 2:4, 3:5] = True
    parts = [
        BrainModelAxis.from_mask(np.arange(100) >= 10, name="cortex_left"),
        BrainModelAxis.from_mask(np.arange(100) % 5 > 0, name="cortex_right"),
        BrainModelAxis.from_mask(volume, affine=np.diag([-2.0, 2, 2, 1]), name="thalamus_left"),
    ]
    return parts[0] + parts[1] + parts[2]


@pytest.fixture
def series(tmp_path, axis, rng):
    """Return a dense series, its values (n_trs, n_grayordinates), and the path."""
    values = (100 + rng.standard_normal((T, len(axis)))).astype(np.float32)
    path = tmp_path / "sub-1_task-a_space-fsLR_den-91k_bold.dtseries.nii"
    return save(path, values, SeriesAxis(0, TR, T), axis), values


def plain_means(values, labels, n_labels):
    """Return z-scored means of z-scored members, label by label."""
    found = []
    for label in range(1, n_labels + 1):
        own = values[:, labels == label].astype(float)
        mean = ((own - own.mean(0)) / own.std(0, ddof=1)).mean(axis=1)
        found.append((mean - mean.mean()) / mean.std(ddof=1))
    return np.column_stack(found)


def test_dense_parcel_means_equal_numpy(series, rng):
    path, values = series
    image = load_run(path)
    assert (image.n_volumes, image.tr, image.shape) == (T, TR, (values.shape[1],))
    labels = rng.integers(0, 5, values.shape[1])
    found = parcel_series(image, labels, 4, slice(0, T))
    np.testing.assert_allclose(found.series, plain_means(values, labels, 4), atol=1e-6)


def test_rows_come_in_the_order_asked_for_over_blocks(tmp_path, rng):
    """Two blocks of 4096, rows out of order."""
    wide = BrainModelAxis.from_mask(np.ones(5000, bool), name="cortex_left")
    values = rng.standard_normal((3, 5000)).astype(np.float32)
    path = save(tmp_path / "x.dtseries.nii", values, SeriesAxis(0, 1, 3), wide)
    rows = np.array([4999, 0, 4096, 4095, 7])
    np.testing.assert_array_equal(grayordinates.read_rows(path, rows), values.T[rows])


def test_sidecar_wins_over_the_header(series):
    image = load_run(series[0], 2.0)
    assert image.tr == 2.0
    assert "1.5 s in the header and 2 s" in image.warnings[0]


def test_dlabel_is_matched_by_vertex_and_voxel(tmp_path, axis, series, rng):
    """The atlas lists other grayordinates in another order; an unlabelled one is outside."""
    volume = np.zeros((4, 5, 6), bool)
    volume[1:3, 2:3, 3:5] = True
    voxels = BrainModelAxis.from_mask(volume, affine=np.diag([-2.0, 2, 2, 1]), name="thalamus_left")
    left = BrainModelAxis.from_mask(np.arange(100) >= 0, name="cortex_left")
    right = BrainModelAxis.from_mask(np.arange(100) < 60, name="cortex_right")
    other = right + voxels + left
    labels = rng.integers(0, 4, len(other))
    names = {0: ("???", (0, 0, 0, 0)), **{k: (f"p{k}", (1, 0, 0, 1)) for k in (1, 2, 3)}}
    path = tmp_path / "tpl-fsLR_atlas-Toy_den-91k_dseg.dlabel.nii"
    save(path, labels[None], LabelAxis(["a"], [names]), other)
    found = surface_atlas.find_atlas(str(path), series[0], "fsLR")
    assert (found.label, found.names) == ("Toy", ("p1", "p2", "p3"))
    placed = place_atlas(found, load_run(series[0])).labels
    by_place = {}
    for k in range(len(other)):
        by_place[other.name[k], int(other.vertex[k]), tuple(other.voxel[k])] = labels[k]
    expected = [by_place.get((axis.name[k], int(axis.vertex[k]), tuple(axis.voxel[k])), 0)
                for k in range(len(axis))]  # fmt: skip
    np.testing.assert_array_equal(placed, expected)


def test_label_gifti_on_grayordinates(tmp_path, axis, series):
    for k, side in enumerate("LR"):
        array = nib.gifti.GiftiDataArray(
            (1 + np.arange(100) // 50 + 2 * k).astype(np.int32), intent="NIFTI_INTENT_LABEL"
        )
        nib.save(nib.gifti.GiftiImage(darrays=[array]), tmp_path / f"a.{side}.label.gii")
    found = surface_atlas.find_atlas(str(tmp_path / "a.L.label.gii"), series[0], "fsLR")
    placed = place_atlas(found, load_run(series[0])).labels
    expected = 1 + axis.vertex // 50 + 2 * (axis.name == "CIFTI_STRUCTURE_CORTEX_RIGHT")
    np.testing.assert_array_equal(placed, np.where(axis.vertex >= 0, expected, 0))


def test_another_mesh_is_refused(tmp_path, series):
    labels = BrainModelAxis.from_mask(np.ones(120, bool), name="cortex_left")
    names = {0: ("???", (0, 0, 0, 0)), 1: ("p", (1, 0, 0, 1))}
    path = tmp_path / "a.dlabel.nii"
    save(path, np.ones((1, 120)), LabelAxis(["a"], [names]), labels)
    found, image = surface_atlas.find_atlas(str(path), series[0], "fsLR"), load_run(series[0])
    with pytest.raises(DataError, match=r"found 120 vertices .* has 100"):
        place_atlas(found, image)


@pytest.fixture
def parcellated(tmp_path, axis, rng):
    """Return a parcellated series and its values; the third parcel is subcortical."""
    parts = [("a", axis[:40]), ("b", axis[90:120]), ("th", axis[170:])]
    values = rng.standard_normal((T, 3)).astype(np.float32)
    path = tmp_path / "sub-1_task-a_space-fsLR_seg-Toy_stat-mean_timeseries.ptseries.nii"
    parcels = ParcelsAxis.from_brain_models(parts)
    return save(path, values, SeriesAxis(0, TR, T), parcels), values


def test_parcellated_series_are_their_own_atlas(parcellated):
    path, values = parcellated
    found = surface_atlas.find_atlas("Schaefer2018_400Parcels17Networks", path, "fsLR")
    assert (found.label, found.names, found.hemispheres) == (
        "Toy",
        ("a", "b", "th"),
        ("L", "R", ""),
    )
    image = load_run(path)
    series = parcel_series(image, place_atlas(found, image).labels, 3, slice(0, T)).series
    np.testing.assert_allclose(series, (values - values.mean(0)) / values.std(0, ddof=1), atol=1e-5)
    with pytest.raises(ConfigError, match="--voxelwise"):
        surface_atlas.require_dense(path)


def test_other_parcels_in_another_run_are_refused(tmp_path, axis, parcellated):
    parcels = ParcelsAxis.from_brain_models([("a", axis[:40]), ("c", axis[90:120])])
    other = save(tmp_path / "b.ptseries.nii", np.ones((T, 2)), SeriesAxis(0, TR, T), parcels)
    atlas = surface_atlas.find_atlas("", parcellated[0], "fsLR")
    with pytest.raises(DataError, match="found 2 parcels, the first run"):
        place_atlas(atlas, load_run(other))


def test_maps_of_parcels_and_of_grayordinates(tmp_path, axis, rng):
    grid = Grayordinates(axis)
    labels = rng.integers(0, 4, len(axis))
    labels[labels == 2] = 0  # the second parcel has no grayordinate
    table = {"index": [5, 6, 9], "name": ["a", "b", "c"]}
    (tmp_path / "x.tsv").write_text("index\tname\n5\ta\n6\tb\n9\tc\n")
    path = tmp_path / "x_stat-label_boldmap.pscalar.nii"
    grids.write_labels(grid, {"pscalar.nii": path}, labels, table)
    maps = MapSet.read(path, tmp_path / "x.tsv")
    values = np.array([[1.0], [np.nan], [3.0]])
    write_map(maps, {"tsv": tmp_path / "m.tsv", "pscalar.nii": tmp_path / "m.pscalar.nii"},
              ["value"], values)  # fmt: skip
    image = nib.load(tmp_path / "m.pscalar.nii")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[0], values[:, 0])
    parcels = image.header.get_axis(1)
    assert list(parcels.name) == ["a", "b", "c"]
    for k, name in enumerate(("CORTEX_LEFT", "CORTEX_RIGHT")):
        here = (labels == 3) & (axis.name == f"CIFTI_STRUCTURE_{name}")
        found = parcels.vertices[2].get(f"CIFTI_STRUCTURE_{name}", [])
        np.testing.assert_array_equal(np.sort(found), axis.vertex[here])
        assert k < 2
    dense = tmp_path / "x_stat-label_boldmap.dscalar.nii"
    everything = {name: list(column) for name, column in grid.table().items()}
    assert everything["name"][0] == "L_10"
    assert everything["name"][-1] == "thalamusleft_2_3_4"
    assert (everything["x"][0], everything["x"][-1]) == (None, -4.0)
    grids.write_labels(grid, {"dscalar.nii": dense}, np.arange(1, len(axis) + 1), everything)
    rows = "\n".join(
        f"{i}\t{n}" for i, n in zip(everything["index"], everything["name"], strict=True)
    )
    (tmp_path / "d.tsv").write_text(f"index\tname\n{rows}\n")
    read = MapSet.read(dense, tmp_path / "d.tsv")
    np.testing.assert_array_equal(read.labels, np.arange(1, len(axis) + 1))


def test_sides_of_grayordinates(axis):
    sides = Grayordinates(axis).sides
    assert set(sides[:90]) == {"L"}
    assert set(sides[90:170]) == {"R"}
    assert set(sides[170:]) == {"L"}  # the left thalamus


def test_fslr_is_drawn_by_its_sphere_in_fsaverage_space(tmp_path, rng):
    """The points of fsaverage5 several times, shuffled: every vertex finds its own number."""
    n_vertices, n_drawn = 32492, 10242
    full = [
        BrainModelAxis.from_mask(np.ones(n_vertices, bool), name=f"cortex_{side}")
        for side in ("left", "right")
    ]
    grid = Grayordinates(full[0] + full[1])
    source = [rng.permutation(n_vertices) % n_drawn for _ in "LR"]
    values = np.concatenate([source[0], source[1] + n_drawn])
    assert fsaverage5.on_fsaverage5(values, grid, home=tmp_path) is None
    (tmp_path / "tpl-fsLR").mkdir()
    for side, rows in zip("LR", source, strict=True):
        name = f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii"
        points = fsaverage5._sphere(side)[rows].astype(np.float32)
        array = nib.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET")
        nib.save(nib.gifti.GiftiImage(darrays=[array]), tmp_path / "tpl-fsLR" / name)
    found = fsaverage5.on_fsaverage5(values, grid, home=tmp_path)
    np.testing.assert_array_equal(found, np.arange(2 * n_drawn))


def test_files_that_are_no_series(tmp_path, axis, series):
    for content in (b"", b"nothing", b"\x1f\x8b" + b"0" * 4000):
        path = tmp_path / "bad.dtseries.nii"
        path.write_bytes(content)
        with pytest.raises((DataError, MissingInputError)):
            load_run(path)
    whole = series[0].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    image = load_run(path)
    with pytest.raises(DataError, match="damaged"):
        parcel_series(image, np.ones(image.shape, int), 1, slice(0, T))
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 4), np.float32), np.eye(4)), path)
    with pytest.raises(DataError, match="CIFTI"):
        load_run(path)
    one = save(tmp_path / "one.dtseries.nii", np.ones((1, len(axis))), SeriesAxis(0, TR, 1), axis)
    with pytest.raises(DataError, match="1 time point"):
        load_run(one)
    scalars = save(
        tmp_path / "s.dscalar.nii", np.ones((2, len(axis))), ScalarAxis(["a", "b"]), axis
    )
    with pytest.raises(DataError, match="found no labels of grayordinates"):
        grayordinates.read_dlabel(scalars)


def test_names_of_cifti_series(tmp_path):
    func = tmp_path / "fmriprep" / "sub-1" / "func"
    func.mkdir(parents=True)

    def names(*given):
        for old in func.iterdir():
            old.unlink()
        for name in given:
            (func / name).write_bytes(b"x" * 2000)
        return lambda **more: [r.path.name for r in find_bold([tmp_path / "fmriprep"], **more)]

    dense = "sub-1_task-a_space-fsLR_den-91k_bold.dtseries.nii"
    denoised = "sub-1_task-a_space-fsLR_den-91k_desc-denoised_bold.dtseries.nii"
    first = "sub-1_task-a_space-fsLR_seg-Gordon_stat-mean_timeseries.ptseries.nii"
    second = "sub-1_task-a_space-fsLR_atlas-4S156Parcels_stat-mean_timeseries.ptseries.nii"
    smoothed = "sub-1_task-a_space-fsLR_den-91k_desc-denoisedSmoothed_bold.dtseries.nii"
    find = names(dense, denoised, smoothed)
    assert find(space="fsLR") == [denoised]
    assert find(space="fsLR", denoise="narratives") == [dense]
    find = names(dense, first, second)
    assert find() == [dense]
    assert find(atlas="gordon") == [first]
    assert find(atlas="4S156Parcels") == [second]
    assert find(resolution="91k") == [dense]
    find = names(first, second)
    with pytest.raises(ConfigError, match="found 2") as caught:
        find()
    assert "--atlas" in caught.value.hint
