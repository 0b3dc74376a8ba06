"""Bring the parcels of an atlas to the locations of an image of any kind."""

from __future__ import annotations

import numpy as np

from bids_brainlm.bidsio import atlas as volumes
from bids_brainlm.bidsio import grayordinates, spaces, surfaces
from bids_brainlm.bidsio.atlas import Atlas, GridAtlas
from bids_brainlm.bidsio.grayordinates import Grayordinates
from bids_brainlm.bidsio.images import BoldImage
from bids_brainlm.bidsio.surface_atlas import HINT
from bids_brainlm.bidsio.surfaces import Surfaces
from bids_brainlm.errors import DataError


def place_atlas(atlas: Atlas, image: BoldImage) -> GridAtlas:
    """Bring an atlas to the locations of an image of any kind.

    Parameters
    ----------
    atlas : Atlas
    image : BoldImage

    Returns
    -------
    GridAtlas
        Parcels without a location are kept in the table with 0 of them.

    Raises
    ------
    DataError
        Meshes differ, or no parcel lies on the image.

    Notes
    -----
    Surfaces: vertices have the same number in atlas and image; an atlas on a finer mesh of the
    fsaverage family is cut to the first vertices, which are those of the coarser mesh. CIFTI:
    by structure and vertex, voxels by their indices. Parcellated series must have the atlas's
    parcels, in its order.
    """
    if image.grid is None:
        return volumes.to_grid(atlas, image.shape, image.affine)
    rows = np.zeros(int(max(atlas.index.max(), atlas.labels.max())) + 1, np.int32)
    rows[atlas.index] = np.arange(1, atlas.n_parcels + 1)
    labels = rows[atlas.labels]
    if isinstance(image.grid, Surfaces):
        placed = np.concatenate([_on_mesh(atlas, labels, image, side) for side in surfaces.SIDES])
    elif not image.grid.is_dense:
        placed = _same_parcels(atlas, image)
    else:
        placed = _on_grayordinates(atlas, labels, image)
    n_locations = np.bincount(placed, minlength=atlas.n_parcels + 1)[1:]
    if not n_locations.any():
        raise DataError(
            f"The atlas {atlas.name} ({atlas.path}) and {image.path} do not overlap: found 0 "
            "labelled locations.",
            hint=HINT,
        )
    return GridAtlas(placed, None, n_locations)


def _on_mesh(atlas: Atlas, labels: np.ndarray, image: BoldImage, side: str) -> np.ndarray:
    """Return labels of a hemisphere's vertices."""
    if not isinstance(atlas.grid, Surfaces):
        raise DataError(f"{atlas.path}: expected labels of surfaces, found CIFTI.", hint=HINT)
    own = labels[atlas.grid.part(side)]
    wanted = image.grid.n_left if side == "L" else image.grid.n_right
    finer = len(own) > wanted and {len(own), wanted} <= set(spaces.MESHES.values())
    if len(own) != wanted and not finer:
        raise DataError(
            f"{atlas.path}: found {len(own)} vertices in hemisphere {side}, {image.path.name} has "
            f"{wanted}; expected the same mesh or a finer one of the fsaverage family.",
            hint=HINT,
        )
    return own[:wanted]


def _same_parcels(atlas: Atlas, image: BoldImage) -> np.ndarray:
    """Check that a parcellated series has the parcels of the first run."""
    found = [str(name) for name in image.grid.axis.name]
    if found != list(atlas.names):
        raise DataError(
            f"{image.path}: found {len(found)} parcels, the first run ({atlas.path.name}) has "
            f"{atlas.n_parcels}, or other names; expected the same parcels in all runs.",
            hint="Choose the runs with --derivatives, or parcellate all with one atlas.",
        )
    return np.arange(1, len(found) + 1)


def _on_grayordinates(atlas: Atlas, labels: np.ndarray, image: BoldImage) -> np.ndarray:
    """Return labels of grayordinates, by structure and vertex or voxel."""
    axis = image.grid.axis
    placed = np.zeros(len(axis), np.int32)
    n_matched = 0
    for side, name in grayordinates.CORTEX.items():
        here = axis.name == name
        n_vertices = int(axis.nvertices.get(name, 0))
        if isinstance(atlas.grid, Surfaces):
            own = labels[atlas.grid.part(side)]
        else:
            own = atlas.grid.cortex(labels, side, n_vertices)
        if here.any() and len(own) != n_vertices:
            raise DataError(
                f"{atlas.path}: found {len(own)} vertices in hemisphere {side}, {image.path.name} "
                f"has {n_vertices}; expected the same mesh.",
                hint=HINT,
            )
        placed[here] = own[axis.vertex[here]]
        n_matched += int(here.sum())
    if isinstance(atlas.grid, Grayordinates) and n_matched < len(axis):
        placed += _in_volume(atlas, labels, image)
    return placed


def _in_volume(atlas: Atlas, labels: np.ndarray, image: BoldImage) -> np.ndarray:
    """Return labels of the voxels of a dense file, 0 at vertices."""
    mine, theirs = image.grid.axis, atlas.grid.axis
    placed = np.zeros(len(mine), np.int32)
    inside = theirs.vertex < 0
    if not inside.any():
        return placed
    if tuple(mine.volume_shape) != tuple(theirs.volume_shape) or not np.allclose(
        mine.affine, theirs.affine, atol=1e-3
    ):
        raise DataError(
            f"{atlas.path}: the grid of its voxels is not that of {image.path.name}.", hint=HINT
        )
    volume = np.zeros(theirs.volume_shape, np.int32)
    volume[tuple(theirs.voxel[inside].T)] = labels[inside]
    own = mine.vertex < 0
    placed[own] = volume[tuple(mine.voxel[own].T)]
    return placed
