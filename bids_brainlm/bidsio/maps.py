"""Maps of parcels: a table in atlas order and the same numbers painted on the atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import grids, images, write
from bids_brainlm.errors import DataError


@dataclass(frozen=True)
class MapSet:
    """The parcels that maps are painted on.

    Attributes
    ----------
    index : tuple of int
        Label numbers of the atlas.
    names : tuple of str
    labels : array of int, shape (x, y, z) or (n_locations,)
        Row of the table plus 1; 0 outside.
    affine : array, shape (4, 4), or None
        Of a volume.
    grid : Grid or None
        What the locations of surfaces and CIFTI are.
    """

    index: tuple[int, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    affine: np.ndarray | None
    grid: grids.Grid | None = None

    @classmethod
    def read(cls, image: Path, table: Path) -> MapSet:
        """Read the ``stat-label`` map of a run: ``image`` is that of the left hemisphere, if any.

        Raises
        ------
        DataError
            The image has labels that the table does not list.
        """
        columns = write.read_tsv(table)
        index = tuple(int(v) for v in columns["index"])
        values, affine, grid = grids.read_labels(image)
        rows = np.zeros(max(int(values.max()), *index) + 1, np.int32)
        rows[list(index)] = np.arange(1, len(index) + 1)
        labels = rows[values]
        if (labels == 0).sum() != (values == 0).sum():
            raise DataError(f"{image} has labels that {table.name} does not list.")
        return cls(index, tuple(columns["name"]), labels, affine, grid)

    def restrict(self, names: Sequence[str]) -> MapSet:
        """Keep the parcels of these names, in their order."""
        if tuple(names) == self.names:
            return self
        place = {name: k for k, name in enumerate(self.names)}
        kept = [place[name] for name in names]
        rows = np.zeros(len(self.names) + 1, np.int32)
        rows[np.asarray(kept, int) + 1] = np.arange(1, len(kept) + 1)
        index = tuple(self.index[k] for k in kept)
        return MapSet(index, tuple(names), rows[self.labels], self.affine, self.grid)

    def merge(self, names: Sequence[str], members: Sequence[Sequence[str]]) -> MapSet:
        """Make one parcel of the members of each region; members that are not here count not.

        The new parcels are numbered from 1 in the order of ``names``.
        """
        rows = np.zeros(len(self.names) + 1, np.int32)
        place = {name: k for k, name in enumerate(self.names)}
        for number, own in enumerate(members, start=1):
            rows[[place[name] + 1 for name in own if name in place]] = number
        index = tuple(range(1, len(names) + 1))
        return MapSet(index, tuple(names), rows[self.labels], self.affine, self.grid)


def shared_names(several: Sequence[Sequence[str]], what: str, *, voxelwise: bool) -> list[str]:
    """Return the parcels that all participants have.

    Parameters
    ----------
    several : sequence of sequence of str
        Names of each participant's parcels.
    what : str
        For the message.
    voxelwise : bool
        Brain masks differ between participants: the voxels in all of them are taken. The
        parcels of an atlas must be the same.

    Raises
    ------
    DataError
        Atlases differ, or no voxel is in all masks.
    """
    first = list(several[0])
    if all(list(names) == first for names in several):
        return first
    if not voxelwise:
        raise DataError(
            f"{what}: participants have {min(map(len, several))} to {max(map(len, several))} "
            "parcels with different names, expected the same atlas for all.",
            hint="Run the participant level with one --atlas for all, with --overwrite.",
        )
    everywhere = set(first).intersection(*several[1:])
    if not everywhere:
        raise DataError(
            f"{what}: no voxel lies in the brain masks of all {len(several)} participants.",
            hint="Check that all images are on one grid (--space, --resolution).",
        )
    return [name for name in first if name in everywhere]


def rows_of(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return where the wanted parcels stand among ``names``."""
    place = {name: k for k, name in enumerate(names)}
    return np.array([place[name] for name in wanted], int)


def write_map(
    maps: MapSet,
    paths: Mapping[str, Path],
    labels: Sequence[str],
    values: np.ndarray,
    more: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a map as table and as image.

    Parameters
    ----------
    maps : MapSet
        The parcels.
    paths : mapping of str to Path
        ``tsv`` and, by extension, the images; see `spaces.image_extensions`.
    labels : sequence of str
        Names of the columns.
    values : array, shape (n_parcels, n_columns)
        NaN where there is no value.
    more : mapping of str to array, shape (n_parcels,), optional
        Further columns of the table, such as ``ci_low``; they are not painted.

    Notes
    -----
    Outside of all parcels volumes hold 0, surfaces and CIFTI NaN (as the medial wall of their
    series does).
    """
    table: dict[str, object] = {"index": list(maps.index), "name": list(maps.names)}
    table.update({label: values[:, k] for k, label in enumerate(labels)})
    table.update(more or {})
    write.write_tsv(paths["tsv"], table)
    painted_on = {extension: path for extension, path in paths.items() if extension != "tsv"}
    if maps.grid is not None:
        outside = np.full((1, values.shape[1]), np.nan)
        whole = np.concatenate([outside, values])[maps.labels]
        grids.write_images(maps.grid, painted_on, whole, labels)
        return
    columns = values[:, 0] if values.shape[1] == 1 else values
    painted = images.paint(columns, maps.labels, maps.affine)
    write.write_nifti(paths["nii.gz"], painted)


def read_map(path: Path) -> tuple[list[int], list[str], list[str], np.ndarray]:
    """Read a map's table.

    Returns
    -------
    index : list of int
    names : list of str
    columns : list of str
    values : array, shape (n_parcels, n_columns)

    Raises
    ------
    DataError
        The table is damaged.
    """
    table = write.read_tsv(path)
    columns = [name for name in table if name not in ("index", "name")]
    try:
        index = [int(v) for v in table["index"]]
        values = np.array(
            [[np.nan if v == "n/a" else float(v) for v in table[c]] for c in columns], float
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: expected the columns index and name and numbers, found {error}.",
            hint="Remake it: run the participant level again with --overwrite.",
        ) from None
    return index, table["name"], columns, values.T.reshape(len(index), len(columns))
