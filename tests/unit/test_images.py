"""Parcel series against a plain reference; damaged images."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio.bold import derivative_roots, find_bold
from bids_brainlm.bidsio.confounds import select
from bids_brainlm.bidsio.images import load_run, orthonormal, paint, parcel_series, voxel_labels
from bids_brainlm.errors import ConfigError, DataError, MissingInputError, TimingError

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])
WINDOW = slice(5, 45)


def save(path, data, *, tr=1.5, unit="sec", scale=None):
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header.set_zooms((3.0, 3.0, 4.0, tr))
    if scale:
        image.header.set_data_dtype(np.int16)
        image.header.set_slope_inter(*scale)
    nib.save(image, path)
    return path


@pytest.fixture
def data(rng):
    return (100 + 10 * rng.normal(size=(5, 6, 7, 50))).astype(np.float32)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 6, size=(5, 6, 7))


def reference(data, labels, n_labels, window, confounds=None, scaling="zscore"):
    """Parcel by parcel in float64, as the definition reads."""
    columns = []
    for label in range(1, n_labels + 1):
        voxels = data[labels == label].astype(float).T
        if confounds is not None:
            design = np.column_stack([np.ones(len(confounds)), confounds])
            voxels = voxels - design @ np.linalg.lstsq(design, voxels, rcond=None)[0]
        voxels = voxels[window]
        if scaling == "zscore":
            voxels = (voxels - voxels.mean(0)) / voxels.std(0, ddof=1)
        mean = voxels.mean(axis=1)
        columns.append((mean - mean.mean()) / mean.std(ddof=1))
    return np.column_stack(columns)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("scaling", ["zscore", "none"])
@pytest.mark.parametrize("with_confounds", [True, False])
def test_parcels_equal_the_reference(tmp_path, data, labels, rng, suffix, scaling, with_confounds):
    path = save(tmp_path / f"x{suffix}", data)
    confounds = rng.normal(size=(50, 4)) * [1, 1e-3, 50, 1] + [0, 0, 1e4, 0]
    confounds = confounds if with_confounds else None
    result = parcel_series(path, labels, 5, WINDOW, confounds, voxel_scaling=scaling)
    expected = reference(data, labels, 5, WINDOW, confounds, scaling)
    np.testing.assert_allclose(result.series, expected, atol=1e-6)
    np.testing.assert_array_equal(result.n_voxels, np.bincount(labels.ravel())[1:])
    assert not result.n_dropped.any()
    assert not result.empty.any()
    assert result.warnings == ()
    np.testing.assert_allclose(result.series.std(axis=0, ddof=1), 1)


def test_chunks_change_nothing(tmp_path, data, labels, rng):
    path = save(tmp_path / "x.nii.gz", data)
    confounds = rng.normal(size=(50, 3))
    whole = parcel_series(path, labels, 5, WINDOW, confounds)
    for size in (1, 30, 70):
        pieces = parcel_series(path, labels, 5, WINDOW, confounds, chunk_voxels=size)
        np.testing.assert_allclose(pieces.series, whole.series, atol=1e-12)


def test_scaled_integers_and_big_endian(tmp_path, data, labels):
    path = save(tmp_path / "x.nii.gz", data, scale=(0.5, 3.0))
    stored = np.asarray(nib.load(path).dataobj)
    result = parcel_series(path, labels, 5, WINDOW)
    np.testing.assert_allclose(result.series, reference(stored, labels, 5, WINDOW), atol=1e-5)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.float32)
    nib.save(nib.Nifti1Image(data, AFFINE, header), tmp_path / "b.nii.gz")
    swapped = parcel_series(tmp_path / "b.nii.gz", labels, 5, WINDOW)
    np.testing.assert_allclose(swapped.series, reference(data, labels, 5, WINDOW), atol=1e-6)


def test_bad_voxels_are_left_out_and_counted(tmp_path, data, labels):
    spoiled = data.copy()
    first, second, third = np.argwhere(labels == 2)[:3]
    spoiled[tuple(first)] = 7.3
    spoiled[(*second, 4)] = np.nan
    spoiled[(*third, 48)] = np.inf
    spoiled[labels == 4] = 0
    path = save(tmp_path / "x.nii.gz", spoiled)
    good = labels.copy()
    for voxel in (first, second, third):
        good[tuple(voxel)] = 0
    result = parcel_series(path, labels, 6, WINDOW, np.arange(50.0)[:, None] ** 2)
    expected = reference(data, good, 5, WINDOW, np.arange(50.0)[:, None] ** 2)
    keep = [0, 1, 2, 4]
    np.testing.assert_allclose(result.series[:, keep], expected[:, keep], atol=1e-6)
    assert np.isnan(result.series[:, [3, 5]]).all()
    assert result.n_dropped[1] == 3
    assert result.n_voxels[3] == result.n_voxels[5] == 0
    assert result.empty.tolist() == [False, False, False, True, False, True]
    assert result.warnings[0] == "x.nii.gz: 2 voxels hold NaN or infinity and are left out"
    assert f"{1 + (labels == 4).sum()} voxels are constant" in result.warnings[1]
    assert result.warnings[2] == "x.nii.gz: 2 of 6 parcels are empty"


def test_confounds_are_removed_over_the_whole_run(tmp_path, data, labels, rng):
    drift = rng.normal(size=(50, 2))
    path = save(tmp_path / "x.nii.gz", data + 40 * (drift @ [1.0, -2.0]).astype(np.float32))
    result = parcel_series(path, labels, 5, slice(0, 50), drift)
    np.testing.assert_allclose(drift.T @ result.series, 0, atol=1e-3)


def test_orthonormal_drops_what_depends(rng):
    matrix = rng.normal(size=(40, 3))
    basis = orthonormal(np.column_stack([matrix, matrix[:, 0] * 2 + 5, np.full(40, 3.7)]))
    assert basis.shape == (40, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    assert orthonormal(np.empty((40, 0))).shape == (40, 1)


def test_voxelwise(tmp_path, data):
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1:3, 2, 1:4] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "mask.nii.gz")
    labels, affine, table = voxel_labels(tmp_path / "mask.nii.gz")
    assert table["name"][:2] == ["1_2_1", "1_2_2"]
    assert (table["x"][0], table["y"][0], table["z"][0]) == (3.0, 6.0, 4.0)
    assert table["index"] == list(range(1, 7))
    result = parcel_series(save(tmp_path / "x.nii.gz", data), labels, 6, WINDOW)
    voxel = data[1, 2, 2, WINDOW].astype(float)
    expected = (voxel - voxel.mean()) / voxel.std(ddof=1)
    np.testing.assert_allclose(result.series[:, 1], expected, atol=1e-6)
    np.testing.assert_array_equal(affine, AFFINE)
    nib.save(nib.Nifti1Image(mask * 0, AFFINE), tmp_path / "none.nii.gz")
    with pytest.raises(DataError, match="no voxel inside"):
        voxel_labels(tmp_path / "none.nii.gz")


def test_paint(labels):
    values = np.column_stack([np.arange(5.0), [np.nan, 2, 3, 4, 5]])
    image = paint(values, labels, AFFINE)
    painted = image.get_fdata()
    assert painted.shape == (5, 6, 7, 2)
    assert image.get_data_dtype() == np.float32
    assert (painted[labels == 3] == [2, 3]).all()
    assert (painted[labels == 0] == 0).all()
    assert np.isnan(painted[labels == 1][:, 1]).all()
    assert paint(values[:, 0], labels, AFFINE).shape == (5, 6, 7)
    with pytest.raises(DataError, match="found 4 values"):
        paint(values[:4], labels, AFFINE)


def test_headers(tmp_path, data):
    path = save(tmp_path / "x.nii.gz", data)
    image = load_run(path, 1.5)
    assert (image.shape, image.n_volumes, image.tr) == ((5, 6, 7), 50, 1.5)
    assert image.warnings == ()
    assert "1.5 s in the header and 1.52 s" in load_run(path, 1.52).warnings[0]
    assert load_run(path, 1.52).tr == 1.52
    assert load_run(save(tmp_path / "ms.nii.gz", data, tr=1500, unit="msec")).tr == 1.5
    with pytest.raises(TimingError, match="no repetition time"):
        load_run(save(tmp_path / "zero.nii.gz", data, tr=0))
    nib.save(nib.Nifti1Image(data[..., 0], AFFINE), tmp_path / "3d.nii.gz")
    with pytest.raises(DataError, match="found the shape"):
        load_run(tmp_path / "3d.nii.gz")


def test_damaged_files(tmp_path, data, labels):
    path = save(tmp_path / "x.nii.gz", data)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="damaged"):
        parcel_series(cut, labels, 5, WINDOW)
    short = tmp_path / "short.nii.gz"
    short.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    with pytest.raises(DataError, match=r"found 49 whole volumes, the header states 50"):
        parcel_series(short, labels, 5, WINDOW)
    noise = tmp_path / "noise.nii.gz"
    noise.write_bytes(b"no image" * 400)
    with pytest.raises(DataError):
        load_run(noise)
    link = tmp_path / "link.nii.gz"
    link.symlink_to("nowhere")
    with pytest.raises(MissingInputError) as caught:
        load_run(link)
    assert "datalad get" in caught.value.hint


def test_what_does_not_fit(tmp_path, data, labels):
    path = save(tmp_path / "x.nii.gz", data)
    with pytest.raises(DataError, match="grid"):
        parcel_series(path, labels[:-1], 5, WINDOW)
    with pytest.raises(DataError, match=r"50 volumes, the confounds have 49 rows"):
        parcel_series(path, labels, 5, WINDOW, np.ones((49, 1)))
    with pytest.raises(TimingError, match=r"found 50 volumes, the story needs volumes 8 to 59"):
        parcel_series(path, labels, 5, slice(8, 60))
    with pytest.raises(ConfigError, match="scaling"):
        parcel_series(path, labels, 5, WINDOW, voxel_scaling="psc")


def test_alice_equals_the_published_series(alice):
    found = find_bold(derivative_roots(alice))[0]
    image = load_run(found.path, found.tr)
    assert (image.n_volumes, image.tr) == (362, 2.0)
    confounds = select(found.confounds_tsv, found.confounds_json, "auto", 362, image.tr)
    atlas = nib.load(next((alice / "derivatives/atlas").glob("*.nii.gz")))
    labels = np.asarray(atlas.dataobj).astype(int)
    window = slice(0, 362)
    result = parcel_series(found.path, labels, 6, window, confounds.matrix)
    data = np.asarray(nib.load(found.path).dataobj)
    expected = reference(data, labels, 6, window, confounds.matrix)
    np.testing.assert_allclose(result.series, expected, atol=1e-6)
    assert result.n_voxels.tolist() == [1] * 6
