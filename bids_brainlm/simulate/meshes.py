"""Parcels on the meshes of fsaverage, and pairs of GIFTI files whose parcels carry series."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import spaces, surface_atlas, surfaces
from bids_brainlm.errors import ConfigError
from bids_brainlm.simulate.images import Parcellation
from bids_brainlm.simulate.settings import SimulationSettings

MEDIAL_WALL = 3486 / 40962  # share of the vertices of fsaverage6 that Narratives has as NaN
_FEWEST = 8  # vertices of a generated parcel


def on_mesh(settings: SimulationSettings) -> Parcellation:
    """Return the parcels that the settings ask for, on the mesh of the images.

    Parameters
    ----------
    settings : SimulationSettings
        Of a space such as ``fsaverage6``.

    Returns
    -------
    Parcellation
        ``labels`` of both hemispheres, left first; 0 at the medial wall. Generated parcels are
        vertices with neighbouring numbers, which need not lie side by side.

    Raises
    ------
    ConfigError
        ``blocks:N`` does not fit, or the atlas is for another kind of image.
    MissingInputError
        The atlas is not there.
    """
    n_vertices = spaces.MESHES[settings.space]
    name = settings.atlas
    if not name.startswith("blocks:"):
        found = surface_atlas.find_atlas(
            name, Path("x.func.gii"), settings.space, home=settings.templateflow_home
        )
        rows = np.zeros(int(found.index.max()) + 1, np.int32)
        rows[found.index] = np.arange(1, found.n_parcels + 1)
        halves = np.split(rows[found.labels], [found.grid.n_left])
        if any(len(half) < n_vertices for half in halves):
            raise ConfigError(f"--atlas {name}: its mesh is coarser than --space {settings.space}.")
        return Parcellation(
            found.label,
            np.concatenate([half[:n_vertices] for half in halves]),
            None,
            tuple(int(i) for i in found.index),
            found.names,
            found.hemispheres,
            False,
        )
    number = name.removeprefix("blocks:")
    n_cortex = n_vertices - round(MEDIAL_WALL * n_vertices)
    if not number.isdigit() or not 2 <= int(number) <= 2 * n_cortex // _FEWEST:
        raise ConfigError(
            f"--atlas {name}: expected 2 to {2 * n_cortex // _FEWEST} blocks.",
            hint="Set --atlas blocks:24.",
        )
    n_left = (int(number) + 1) // 2
    labels, names, hemispheres = [], [], []
    for side, first, last in (("L", 0, n_left), ("R", n_left, int(number))):
        half = np.zeros(n_vertices, np.int32)
        half[:n_cortex] = 1 + first + np.arange(n_cortex) * (last - first) // n_cortex
        labels.append(half)
        names += [f"{side}Block{k + 1:02d}" for k in range(last - first)]
        hemispheres += [side] * (last - first)
    index = tuple(range(1, int(number) + 1))
    both = np.concatenate(labels)
    return Parcellation(
        f"Blocks{number}", both, None, index, tuple(names), tuple(hemispheres), True
    )


def map_bytes(data: np.ndarray, parcels: Parcellation, side: str) -> bytes:
    """Return the ``.func.gii`` of one hemisphere, one data array a volume.

    Parameters
    ----------
    data : array, shape (n_volumes, n_inside)
        Values of the vertices inside parcels, left hemisphere first.
    parcels : Parcellation
    side : {"L", "R"}

    Returns
    -------
    bytes
        NaN outside of parcels (the medial wall).
    """
    _, inside = _half(parcels, side)
    whole = np.full((inside.size, len(data)), np.nan, np.float32)
    first = 0 if side == "L" else data.shape[1] - int(inside.sum())
    whole[inside] = data[:, first : first + int(inside.sum())].T
    return surfaces.map_bytes(whole, side, [str(k) for k in range(len(data))])


def label_bytes(parcels: Parcellation, side: str) -> bytes:
    """Return the ``.label.gii`` of one hemisphere."""
    part, inside = _half(parcels, side)
    index = np.array([0, *parcels.index])
    here = sorted(set(parcels.labels[part][inside].tolist()))
    names = {int(index[k]): parcels.names[k - 1] for k in here}
    return surfaces.label_bytes(index[parcels.labels[part]], side, names)


def _half(parcels: Parcellation, side: str) -> tuple[slice, np.ndarray]:
    """Return where a hemisphere's vertices stand, and which of them are inside parcels."""
    n_vertices = len(parcels.labels) // 2
    part = slice(0, n_vertices) if side == "L" else slice(n_vertices, None)
    return part, parcels.labels[part] > 0
