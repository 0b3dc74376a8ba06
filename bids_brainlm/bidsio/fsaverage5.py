"""Bring labels of surfaces and CIFTI to the mesh that pictures are drawn on: fsaverage5."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import spaces, surfaces
from bids_brainlm.bidsio.atlas import fslr_sphere, templateflow_home
from bids_brainlm.bidsio.grayordinates import Grayordinates
from bids_brainlm.bidsio.grids import Grid
from bids_brainlm.errors import BrainLMError

N_VERTICES = spaces.MESHES["fsaverage5"]
_PARTS = {"L": "left", "R": "right"}
_N_FSLR = 32492


def on_fsaverage5(values: np.ndarray, grid: Grid, *, home: Path | None = None) -> np.ndarray | None:
    """Return the label of each vertex of fsaverage5.

    Parameters
    ----------
    values : array of int, shape (n_locations,)
        0 outside.
    grid : Grid
    home : Path, optional
        The TemplateFlow folder; the default is ``$TEMPLATEFLOW_HOME``, else
        ``~/.cache/templateflow``.

    Returns
    -------
    array of int, shape (20484,), or None
        Left hemisphere first. None where the mesh is no fsaverage, or is fsLR without its sphere
        in fsaverage space.

    Notes
    -----
    The first 10,242 vertices of the finer meshes of fsaverage are those of fsaverage5. A vertex
    takes the label of the nearest vertex on the sphere of a coarser mesh, or of fsLR 32k, whose
    sphere in fsaverage space is ``tpl-fsLR_space-fsaverage_hemi-*_den-32k_sphere.surf.gii`` of
    TemplateFlow. Voxels of CIFTI are not drawn.
    """
    home = templateflow_home(home)
    halves = []
    for side in surfaces.SIDES:
        if isinstance(grid, Grayordinates):
            own = grid.cortex(values, side)
            rows = _rows_of_fslr(side, home) if len(own) == _N_FSLR else None
        else:
            own = values[grid.part(side)]
            rows = _rows_of_fsaverage(side, len(own))
        if rows is None:
            return None
        halves.append(own[rows])
    return np.concatenate(halves)


def _sphere(side: str) -> np.ndarray:
    """Return the sphere of fsaverage5 that nilearn ships, shape (10242, 3)."""
    from nilearn import datasets

    mesh = datasets.load_fsaverage("fsaverage5")["sphere"]
    return np.asarray(mesh.parts[_PARTS[side]].coordinates, float)


def _rows_of_fsaverage(side: str, n_vertices: int) -> np.ndarray | None:
    """Return the vertex of another mesh of fsaverage for each one of fsaverage5."""
    if n_vertices not in spaces.MESHES.values():
        return None
    if n_vertices >= N_VERTICES:
        return np.arange(N_VERTICES)
    sphere = _sphere(side)
    return _nearest(sphere, sphere[:n_vertices])


def _rows_of_fslr(side: str, home: Path) -> np.ndarray | None:
    """Return the vertex of fsLR 32k for each one of fsaverage5; None without its sphere."""
    try:
        points, _ = surfaces.read_mesh(fslr_sphere(home, side))
    except BrainLMError:
        return None
    return _nearest(_sphere(side), points) if len(points) == _N_FSLR else None


def _nearest(wanted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the nearest point of each wanted direction."""
    from scipy.spatial import cKDTree

    def unit(xyz: np.ndarray) -> np.ndarray:
        return xyz / np.linalg.norm(xyz, axis=1, keepdims=True)

    return cKDTree(unit(points)).query(unit(wanted))[1]
