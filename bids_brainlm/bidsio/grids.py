"""One way to read and write volumes, pairs of surfaces and CIFTI.

Locations (voxels, vertices, grayordinates) are places in an array of labels: three dimensions
for a volume, one for the others. `Grid` says what the places of the others are; a volume has an
affine and no `Grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import grayordinates, spaces, surfaces, write
from bids_brainlm.bidsio.grayordinates import Grayordinates
from bids_brainlm.bidsio.names import parse_entities
from bids_brainlm.bidsio.stream import load_image, read_data, read_voxels
from bids_brainlm.bidsio.surfaces import Surfaces
from bids_brainlm.errors import DataError, MissingInputError

Grid = Surfaces | Grayordinates


def open_series(path: Path, right: Path | None) -> tuple[Grid, int, float | None]:
    """Check the headers of a pair of GIFTI files or of a CIFTI series.

    Parameters
    ----------
    path : Path
        Of the left hemisphere, or CIFTI.
    right : Path or None
        Of the right hemisphere.

    Returns
    -------
    grid : Grid
    n_volumes : int
    tr : float or None
        Repetition time of the header in s; GIFTI has none.

    Raises
    ------
    MissingInputError
        A file is missing or has no content.
    DataError
        It is no such file, hemispheres differ in time points, or vertices are not those of the
        mesh that the name states.
    """
    if spaces.kind_of_file(path.name) == spaces.CIFTI:
        image = grayordinates.load(path)
        return grayordinates.grid_of(image), int(image.shape[0]), grayordinates.step_of(image)
    if right is None:
        raise MissingInputError(
            f"{path}: found the left hemisphere only, expected a file of the right one beside it."
        )
    sizes = [surfaces.size_of(one) for one in (path, right)]
    for one, (n_vertices, _) in zip((path, right), sizes, strict=True):
        space = parse_entities(one).entities.get("space", "")
        wanted = spaces.MESHES.get(space, n_vertices)
        if n_vertices != wanted:
            raise DataError(
                f"{one}: found {n_vertices} vertices, {space} has {wanted} a hemisphere.",
                hint="The file is on another mesh than its name says; project it anew.",
            )
    (n_left, n_volumes), (n_right, other) = sizes
    if n_volumes != other:
        raise DataError(
            f"{path}: found {n_volumes} time points, the other hemisphere ({right.name}) has "
            f"{other}; expected the same.",
            hint="Get both files again, or leave the participant out with --participant-label.",
        )
    return Surfaces(n_left, n_right), n_volumes, None


def size_of(path: Path) -> tuple[int, int]:
    """Return the locations and time points of surfaces or CIFTI, for estimates.

    Both hemispheres are counted as large as the one of ``path``. Errors as for `open_series`.
    """
    if spaces.kind_of_file(path.name) == spaces.CIFTI:
        n_volumes, n_locations = grayordinates.load(path).shape
        return int(n_locations), int(n_volumes)
    n_vertices, n_volumes = surfaces.size_of(path)
    return 2 * n_vertices, n_volumes


def read_locations(
    path: Path, right: Path | None, grid: Grid | None, places: np.ndarray
) -> np.ndarray:
    """Read some locations of all volumes in one pass over the files.

    Parameters
    ----------
    path : Path
    right : Path or None
        The right hemisphere of surfaces.
    grid : Grid or None
        None for a volume.
    places : array of int, shape (n_places,)
        Indices into the array of locations; of volumes in Fortran order.

    Returns
    -------
    array of float32, shape (n_places, n_volumes)

    Raises
    ------
    DataError
        A file is damaged.
    """
    if grid is None:
        return read_voxels(path, places)
    if isinstance(grid, Grayordinates):
        return grayordinates.read_rows(path, places)
    left, other = np.flatnonzero(places < grid.n_left), np.flatnonzero(places >= grid.n_left)
    data = np.empty((places.size, surfaces.size_of(path)[1]), np.float32)
    surfaces.read_vertices(path, places[left], (data, left))
    return surfaces.read_vertices(right, places[other] - grid.n_left, (data, other))


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None, Grid | None]:
    """Read the ``stat-label`` map of a run: of volumes, left hemispheres, or CIFTI.

    Returns
    -------
    values : array of int64, shape (x, y, z) or (n_locations,)
        Labels, 0 outside.
    affine : array, shape (4, 4), or None
        Of a volume.
    grid : Grid or None
        Of the others.

    Raises
    ------
    MissingInputError, DataError
        A file is missing or damaged.
    """
    kind = spaces.kind_of_file(path.name)
    if kind == spaces.VOLUME:
        image = load_image(path)
        return _integers(read_data(image, path)), image.affine, None
    if kind == spaces.CIFTI:
        grid = grayordinates.grid_of(grayordinates.load(path))
        values = grayordinates.read_rows(path, np.arange(grid.shape[0]))[:, 0]
        return _integers(values), None, grid
    right = surfaces.right_of(path)
    halves = [surfaces.read_values(one)[:, 0] for one in (path, right)]
    return _integers(np.concatenate(halves)), None, Surfaces(*map(len, halves))


def _integers(values: np.ndarray) -> np.ndarray:
    """Return labels as whole numbers, 0 for NaN."""
    return np.rint(np.nan_to_num(values)).astype(np.int64)


def write_images(
    grid: Grid, paths: Mapping[str, Path], values: np.ndarray, columns: Sequence[str]
) -> None:
    """Write a map on surfaces or as CIFTI.

    Parameters
    ----------
    grid : Grid
    paths : mapping of str to Path
        By extension, as `spaces.image_extensions` gives them.
    values : array, shape (n_locations, n_columns)
        NaN where there is no value.
    columns : sequence of str

    Raises
    ------
    OutputError, ReadWriteError
        A file cannot be written.
    """
    for extension, path in paths.items():
        side, _ = spaces.split_side(extension)
        if isinstance(grid, Surfaces):
            data = surfaces.map_bytes(values[grid.part(str(side))], str(side), columns)
        else:
            data = grayordinates.map_bytes(values, grid, columns)
        write.write_bytes(path, data)


def write_labels(
    grid: Grid, paths: Mapping[str, Path], labels: np.ndarray, table: Mapping[str, Sequence[object]]
) -> None:
    """Write the parcels of surfaces or CIFTI, so that `read_labels` gives them back.

    Parameters
    ----------
    grid : Grid
        Of the run.
    paths : mapping of str to Path
        By extension.
    labels : array of int, shape (n_locations,)
        Row of the table plus 1; 0 outside.
    table : mapping of str to sequence
        ``index`` and ``name`` of the parcels.

    Raises
    ------
    OutputError, ReadWriteError
        A file cannot be written.

    Notes
    -----
    CIFTI has a file type for parcels, which names them and lists their grayordinates
    (``pscalar``); maps of parcels are written as such. Label files of surfaces (``label.gii``)
    name them as well.
    """
    numbers = np.concatenate([[0], np.asarray(table["index"], np.int64)])
    names = [str(name) for name in table["name"]]
    if any(extension.endswith("label.gii") for extension in paths):
        keys = dict(zip(numbers[1:].tolist(), names, strict=True))
        for extension, path in paths.items():
            side = str(spaces.split_side(extension)[0])
            own = numbers[labels[grid.part(side)]]
            here = {k: keys[k] for k in np.unique(own[own > 0]).tolist()}
            write.write_bytes(path, surfaces.label_bytes(own, side, here))
        return
    if "pscalar.nii" in paths:
        if grid.is_dense:
            grid, labels = grid.parcels(labels, names), np.arange(1, len(names) + 1)
        values = numbers[labels].astype(float)
    else:
        values = np.where(labels > 0, numbers[labels], np.nan)
    write_images(grid, paths, values[:, None], ["index"])
