"""Cluster enhancement on meshes: against volumes, brute force, and Connectome Workbench."""

from __future__ import annotations

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio import neighbours, spaces
from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import tfce
from bids_brainlm.plan.group_jobs import Place


def grid_edges(shape):
    """Return the pairs of voxels of a box that share a face."""
    number = np.arange(np.prod(shape)).reshape(shape)
    pairs = []
    for axis in range(3):
        first = np.take(number, range(shape[axis] - 1), axis).ravel()
        second = np.take(number, range(1, shape[axis]), axis).ravel()
        pairs.append(np.column_stack([first, second]))
    return np.concatenate(pairs)


def test_a_box_as_mesh_is_a_box(rng):
    shape = (4, 5, 6)
    values = np.round(rng.normal(size=120), 1) * 1.0
    mask = np.ones(shape, bool)
    by_volume = tfce.enhance(values, mask, connectivity=6)
    by_mesh = tfce.enhance(values, edges=grid_edges(shape)[::-1])
    np.testing.assert_allclose(by_mesh, by_volume, rtol=1e-12)
    people = rng.normal(0.4, 1, size=(7, 120))
    several = {
        "mask": tfce.tfce_sign_flip_test(
            people, mask, connectivity=6, n_permutations=60, rng=np.random.default_rng(1)
        ),
        "edges": tfce.tfce_sign_flip_test(
            people, edges=grid_edges(shape), n_permutations=60, rng=np.random.default_rng(1)
        ),
    }
    for name in ("t", "tfce", "p", "p_fwe"):
        one, other = (getattr(found, name) for found in several.values())
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_two_triangles_by_hand():
    """Vertices 0-1-2 and 3-4-5 are joined within; at height 2 only vertex 1 and 3-4 are left."""
    edges = np.array([[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3], [1, 0]])
    values = np.array([1.0, 2.0, 1.0, 2.0, 2.0, 1.0])
    found = tfce.enhance(values, edges=edges, extent_power=1.0, height_power=2.0)
    low, high = 3 * 1 / 3, (8 - 1) / 3
    expected = [low, low + high, low, low + 2 * high, low + 2 * high, low]
    np.testing.assert_allclose(found, expected)


def test_edges_that_do_not_fit_are_refused():
    with pytest.raises(NumericalError, match="expected pairs of 3 vertices"):
        tfce.enhance(np.ones(3), edges=np.array([[0, 3]]))
    with pytest.raises(NumericalError, match="pairs"):
        tfce.enhance(np.ones(3), edges=np.zeros((2, 3), int))


def surf(path, points, faces):
    arrays = [
        nib.gifti.GiftiDataArray(points.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    arrays[0].coordsys = nib.gifti.GiftiCoordSystem(3, 3)
    arrays[0].meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": "CortexLeft"})
    nib.save(nib.gifti.GiftiImage(darrays=arrays), path)
    return path


def metric(path, values):
    array = nib.gifti.GiftiDataArray(values.astype(np.float32), intent="NIFTI_INTENT_NONE")
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": "CortexLeft"})
    nib.save(nib.gifti.GiftiImage(darrays=[array], meta=meta), path)
    return path


def test_workbench_enhances_alike_on_fsaverage5(tmp_path, rng):
    """Workbench with an area of 1 for every vertex; it integrates without steps."""
    if shutil.which("wb_command") is None:
        pytest.skip("wb_command (Connectome Workbench) is not installed")
    from nilearn import datasets

    mesh = datasets.load_fsaverage("fsaverage5")["sphere"].parts["left"]
    n_vertices = len(mesh.coordinates)
    edges = neighbours.mesh_edges("fsaverage5")
    left = edges[(edges < n_vertices).all(axis=1)]
    assert len(left) == 3 * len(mesh.faces) // 2  # a closed mesh
    values = rng.normal(size=n_vertices)
    for _ in range(4):  # smooth
        total = np.bincount(left.ravel(), values[left[:, ::-1].ravel()], n_vertices)
        values = (values + total) / (1 + np.bincount(left.ravel(), minlength=n_vertices))
    values *= 2 / values.std()
    paths = [
        surf(tmp_path / "s.surf.gii", mesh.coordinates, mesh.faces),
        metric(tmp_path / "in.func.gii", values),
        tmp_path / "out.func.gii",
    ]
    ones = metric(tmp_path / "ones.func.gii", np.ones(n_vertices))
    command = ["wb_command", "-metric-tfce", *map(str, paths), "-parameters", "1", "2"]
    subprocess.run([*command, "-corrected-areas", str(ones)], check=True, capture_output=True)
    expected = nib.load(paths[2]).darrays[0].data
    found = tfce.enhance(values, edges=left, extent_power=1.0, height_power=2.0, step=0.02)
    assert np.corrcoef(found, expected)[0, 1] > 0.9999
    large = np.abs(expected) > 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(found[large], expected[large], rtol=0.03)


def test_edges_of_other_meshes_come_from_templateflow(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    assert neighbours.are_known("fsaverage5")
    assert not neighbours.are_known("fsaverage4")
    assert not neighbours.are_known("fsLR")
    assert neighbours.mesh_edges("fsaverage4") is None
    assert not Place("a", "fsaverage4", "vertices").has_neighbours
    (tmp_path / "tpl-fsaverage").mkdir()
    n_vertices = spaces.MESHES["fsaverage4"]
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    for side in "LR":
        name = f"tpl-fsaverage_hemi-{side}_den-3k_sphere.surf.gii"
        surf(tmp_path / "tpl-fsaverage" / name, np.ones((n_vertices, 3)), faces)
    assert Place("a", "fsaverage4", "vertices").has_neighbours
    assert not Place("a", "fsaverage4", "Schaefer").has_neighbours
    found = neighbours.mesh_edges("fsaverage4")
    own = [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    np.testing.assert_array_equal(found, [*own, *(np.array(own) + n_vertices)])
