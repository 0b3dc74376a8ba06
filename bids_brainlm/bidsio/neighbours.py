"""Which vertices are neighbours on the meshes of fsaverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import spaces, surfaces
from bids_brainlm.bidsio.atlas import fsaverage_meshes, templateflow_home
from bids_brainlm.errors import BrainLMError

_SHIPPED = "fsaverage5"
_PARTS = {"L": "left", "R": "right"}


def are_known(space: str | None, *, home: Path | None = None) -> bool:
    """Tell whether `mesh_edges` gives the edges of a space.

    Parameters
    ----------
    space : str or None
        Such as ``fsaverage6``.
    home : Path, optional
        The TemplateFlow folder; see `atlas.templateflow_home`.

    Returns
    -------
    bool
        True for fsaverage5, which nilearn ships, and where TemplateFlow has a mesh of both
        hemispheres.
    """
    if space == _SHIPPED:
        return True
    return space in spaces.MESHES and all(_files(space, side, home) for side in surfaces.SIDES)


def mesh_edges(space: str, *, home: Path | None = None) -> np.ndarray | None:
    """Return the pairs of vertices that share an edge.

    Parameters
    ----------
    space : str
    home : Path, optional
        As for `are_known`.

    Returns
    -------
    array of int, shape (n_edges, 2), or None
        Vertices of both hemispheres, left first. None where no mesh of the space is here.
    """
    found = []
    for k, side in enumerate(surfaces.SIDES):
        faces = _faces(space, side, home)
        if faces is None:
            return None
        pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        found.append(np.unique(pairs, axis=0) + k * spaces.MESHES[space])
    return np.concatenate(found)


def _files(space: str, side: str, home: Path | None) -> list[Path]:
    """Return the meshes of a hemisphere that TemplateFlow has."""
    return fsaverage_meshes(templateflow_home(home), side, spaces.MESHES[space])


def _faces(space: str, side: str, home: Path | None) -> np.ndarray | None:
    """Return the triangles of a hemisphere, shape (n_faces, 3)."""
    if space == _SHIPPED:
        from nilearn import datasets

        return np.asarray(datasets.load_fsaverage(space)["sphere"].parts[_PARTS[side]].faces, int)
    for path in _files(space, side, home):
        try:
            points, faces = surfaces.read_mesh(path)
        except BrainLMError:
            continue
        if len(points) == spaces.MESHES[space]:
            return faces
    return None
