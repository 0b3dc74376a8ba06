"""Read CIFTI series in blocks of grayordinates or parcels, and write maps as CIFTI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, ParcelsAxis, ScalarAxis, SeriesAxis

from bids_brainlm.bidsio.bold import require_present
from bids_brainlm.errors import DataError

CORTEX = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
_INTENTS = {
    "dscalar": "NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS",
    "pscalar": "NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SCALAR",
}
_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.cifti2.Cifti2HeaderError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    SyntaxError,  # of XML
)
_BLOCK = 4096  # grayordinates read at once


@dataclass(frozen=True)
class Grayordinates:
    """The locations of a CIFTI file: vertices and voxels, or parcels made of them."""

    axis: BrainModelAxis | ParcelsAxis

    @property
    def shape(self) -> tuple[int]:
        """Shape of an array of all locations."""
        return (len(self.axis),)

    @property
    def is_dense(self) -> bool:
        """Tell whether locations are vertices and voxels, not parcels."""
        return isinstance(self.axis, BrainModelAxis)

    @property
    def sides(self) -> np.ndarray:
        """L or R of each location, empty where it is on neither or both sides."""
        if self.is_dense:
            structures = [{str(name)} for name in self.axis.name]
        else:
            structures = [set(map(str, one)) for one in self.axis.vertices]
        ends = [{s.rpartition("_")[2] for s in several} for several in structures]
        return np.array(
            [
                {"LEFT": "L", "RIGHT": "R"}.get(next(iter(e)), "") if len(e) == 1 else ""
                for e in ends
            ]
        )

    def table(self) -> dict[str, list]:
        """Return one row a grayordinate: ``index``, ``name``, ``structure``, place.

        Names are ``L_<vertex>``, ``R_<vertex>`` or ``<structure>_<i>_<j>_<k>``; ``x``, ``y``
        and ``z`` (mm) of voxels are None for vertices.
        """
        axis = self.axis
        short = {name: side for side, name in CORTEX.items()}
        names, places = [], []
        for name, vertex, voxel in zip(axis.name, axis.vertex, axis.voxel, strict=True):
            own = short.get(str(name)) or _short(str(name))
            is_vertex = vertex >= 0
            names.append(f"{own}_{vertex}" if is_vertex else "_".join(map(str, [own, *voxel])))
            places.append(
                [None] * 3 if is_vertex else nib.affines.apply_affine(axis.affine, voxel).tolist()
            )
        return {
            "index": list(range(1, len(names) + 1)),
            "name": names,
            "structure": [_short(str(name)) for name in axis.name],
            **{column: [place[k] for place in places] for k, column in enumerate("xyz")},
        }

    def cortex(self, values: np.ndarray, side: str, n_vertices: int = 0) -> np.ndarray:
        """Return values of a hemisphere's vertices, 0 where the file has no value.

        Parameters
        ----------
        values : array of numbers, shape (n_locations,)
        side : {"L", "R"}
        n_vertices : int
            Length where the file has no such hemisphere.

        Returns
        -------
        array, shape (n_vertices,)
        """
        name = CORTEX[side]
        whole = np.zeros(int(self.axis.nvertices.get(name, n_vertices)), values.dtype)
        if self.is_dense:
            here = self.axis.name == name
            whole[self.axis.vertex[here]] = values[here]
            return whole
        for value, vertices in zip(values, self.axis.vertices, strict=True):
            whole[np.asarray(vertices.get(name, []), int)] = value
        return whole

    def parcels(self, labels: np.ndarray, names: Sequence[str]) -> Grayordinates:
        """Return parcels made of grayordinates.

        Parameters
        ----------
        labels : array of int, shape (n_grayordinates,)
            1 to ``n_parcels``, 0 outside.
        names : sequence of str, length n_parcels
        """
        axis = self.axis
        is_vertex = axis.vertex >= 0
        voxels, vertices = [], []
        for label in range(1, len(names) + 1):
            own = labels == label
            mine = own & is_vertex
            vertices.append(
                {
                    str(s): axis.vertex[mine & (axis.name == s)]
                    for s in dict.fromkeys(axis.name[mine])
                }
            )
            voxels.append(axis.voxel[own & ~is_vertex])
        filled = np.empty(len(names), object)
        filled[:] = voxels
        return Grayordinates(
            ParcelsAxis(
                np.array(names),
                filled,
                np.array(vertices, object),
                affine=axis.affine,
                volume_shape=axis.volume_shape,
                nvertices=axis.nvertices,
            )
        )


def _short(structure: str) -> str:
    """Return the name of a structure without prefix and dashes, lower-case."""
    return structure.removeprefix("CIFTI_STRUCTURE_").replace("_", "").lower()


def load(path: Path) -> nib.Cifti2Image:
    """Open a CIFTI file; its data stay on disk.

    Raises
    ------
    MissingInputError
        It is missing or has no content.
    DataError
        It is no CIFTI file, or not one of series, scalars or labels of brain locations.
    """
    require_present(path, "CIFTI file")
    try:
        image = nib.load(path)
        axis = image.header.get_axis(image.ndim - 1) if image.ndim == 2 else None
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is no CIFTI file that can be read: {type(error).__name__}: {error}.",
            hint="Get the file again, then run the same command.",
        ) from error
    if not isinstance(image, nib.Cifti2Image) or not isinstance(axis, BrainModelAxis | ParcelsAxis):
        raise DataError(
            f"{path}: expected a CIFTI file of grayordinates or parcels (rows are time points or "
            "maps), found another kind of file."
        )
    return image


def grid_of(image: nib.Cifti2Image) -> Grayordinates:
    """Return the locations of a file."""
    return Grayordinates(image.header.get_axis(1))


def step_of(image: nib.Cifti2Image) -> float | None:
    """Return the repetition time of a series in s, None where the file states none."""
    axis = image.header.get_axis(0)
    if not isinstance(axis, SeriesAxis) or str(axis.unit).upper() != "SECOND":
        return None
    return float(axis.step) if axis.step > 0 else None


def read_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    """Read some locations of all time points, block by block.

    Parameters
    ----------
    path : Path
        A CIFTI series.
    rows : array of int, shape (n_rows,)
        Numbers of locations.

    Returns
    -------
    array of float32, shape (n_rows, n_volumes)

    Raises
    ------
    MissingInputError, DataError
        As for `load`; also where the file ends early.
    """
    image = load(path)
    n_volumes, n_locations = image.shape
    data = np.empty((rows.size, n_volumes), np.float32)
    order = np.argsort(rows, kind="stable")
    borders = np.searchsorted(rows[order], np.arange(0, n_locations + _BLOCK, _BLOCK))
    try:
        for k, (first, last) in enumerate(pairwise(borders)):
            if first == last:
                continue
            block = np.asarray(image.dataobj[:, k * _BLOCK : (k + 1) * _BLOCK])
            own = order[first:last]
            with np.errstate(over="ignore", invalid="ignore"):
                data[own] = block[:, rows[own] - k * _BLOCK].T
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is damaged: {error}.", hint="Get the file again, then run the same command."
        ) from error
    return data


def map_bytes(values: np.ndarray, grid: Grayordinates, columns: Sequence[str]) -> bytes:
    """Return a map as ``.dscalar.nii`` or, of parcels, ``.pscalar.nii``.

    Parameters
    ----------
    values : array, shape (n_locations, n_columns)
        NaN where there is no value.
    grid : Grayordinates
    columns : sequence of str
    """
    kind = "dscalar" if grid.is_dense else "pscalar"
    header = (ScalarAxis([str(c) for c in columns]), grid.axis)
    image = nib.Cifti2Image(np.ascontiguousarray(values.T, np.float32), header=header)
    image.nifti_header.set_intent(_INTENTS[kind])
    return image.to_bytes()


def read_dlabel(path: Path) -> tuple[np.ndarray, Grayordinates, Mapping[int, str]]:
    """Read the first map of a ``.dlabel.nii``.

    Returns
    -------
    labels : array of int32, shape (n_grayordinates,)
    grid : Grayordinates
    names : mapping of int to str

    Raises
    ------
    MissingInputError, DataError
        As for `load`; also where it holds no labels of grayordinates.
    """
    image = load(path)
    axis, grid = image.header.get_axis(0), grid_of(image)
    if not isinstance(axis, nib.cifti2.LabelAxis) or not grid.is_dense:
        raise DataError(f"{path}: found no labels of grayordinates, expected a .dlabel.nii.")
    labels = read_rows(path, np.arange(grid.shape[0]))[:, 0]
    names = {int(key): str(name) for key, (name, _) in axis.label[0].items()}
    return np.rint(np.nan_to_num(labels)).astype(np.int32), grid, names
