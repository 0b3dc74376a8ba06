"""Read pairs of GIFTI files (one a hemisphere) array by array, and write maps as such pairs."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from nibabel.gifti.parse_gifti_fast import GiftiImageParser, GiftiParseError

from bids_brainlm.bidsio.bold import require_present
from bids_brainlm.errors import DataError, ReadWriteError

SIDES = ("L", "R")
STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
_HEAD = 1 << 18  # bytes read at once to find the first data array
_SIDES_IN_NAMES = (
    ("hemi-L", "hemi-R", r"(?<![A-Za-z])hemi-{}(?![A-Za-z0-9])"),
    ("lh.", "rh.", r"(?<![A-Za-z]){}h\."),
    (".L.", ".R.", r"\.{}\."),
    ("_L", "_R", r"_{}(?=[._])"),
)
_DAMAGED = (
    ExpatError,
    GiftiParseError,
    AssertionError,
    KeyError,
    TypeError,
    ValueError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
)


@dataclass(frozen=True, slots=True)
class Surfaces:
    """The vertices of both hemispheres, left first."""

    n_left: int
    n_right: int

    @property
    def shape(self) -> tuple[int]:
        """Shape of an array of all vertices."""
        return (self.n_left + self.n_right,)

    @property
    def sides(self) -> np.ndarray:
        """L or R of each vertex, shape (n_vertices,)."""
        return np.repeat(np.array(SIDES), (self.n_left, self.n_right))

    def part(self, side: str) -> slice:
        """Return where the vertices of a hemisphere stand."""
        return slice(0, self.n_left) if side == "L" else slice(self.n_left, None)

    def table(self) -> dict[str, list]:
        """Return one row a vertex: ``index``, ``name``, ``hemisphere``, ``vertex``."""
        sides = self.sides.tolist()
        numbers = [*range(self.n_left), *range(self.n_right)]
        return {
            "index": list(range(1, len(sides) + 1)),
            "name": [f"{side}_{k}" for side, k in zip(sides, numbers, strict=True)],
            "hemisphere": sides,
            "vertex": numbers,
        }


def right_of(left: Path) -> Path | None:
    """Return the name of the right hemisphere's file, None where the name tells no hemisphere.

    Examples
    --------
    >>> right_of(Path("lh.aparc.annot")).name
    'rh.aparc.annot'
    """
    return _other(left, "L")


def left_of(right: Path) -> Path | None:
    """Return the name of the left hemisphere's file, None where the name tells no hemisphere."""
    return _other(right, "R")


def _other(path: Path, side: str) -> Path | None:
    """Return the file of the other hemisphere, None where the name is not of this one."""
    for left, right, pattern in _SIDES_IN_NAMES:
        letter = side.lower() if "h" in left and "hemi" not in left else side
        name, n_found = re.subn(pattern.format(letter), right if side == "L" else left, path.name)
        if n_found:
            return path.with_name(name)
    return None


@contextmanager
def opened(path: Path):
    """Open a GIFTI file, decompressing ``.gii.gz``.

    Raises
    ------
    MissingInputError
        It is missing or has no content.
    DataError
        It is damaged or no GIFTI file.
    ReadWriteError
        It cannot be read.
    """
    require_present(path, "surface file")
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if magic == b"\x1f\x8b" else raw
    except _DAMAGED as error:
        raise DataError(
            f"{path} is no GIFTI file that can be read: {type(error).__name__}: {error}.",
            hint="Get the file again, then run the same command.",
        ) from error
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error}.") from error


def size_of(path: Path) -> tuple[int, int]:
    """Return the number of vertices and of time points that a GIFTI file states.

    Parameters
    ----------
    path : Path
        With one data array a time point, or one array (vertices, time points).

    Returns
    -------
    n_vertices, n_volumes : int

    Raises
    ------
    MissingInputError, ReadWriteError
        As for `opened`.
    DataError
        It is no GIFTI file with values of vertices.
    """
    with opened(path) as stream:
        head = ""
        while not re.search(r"<DataArray\b[^>]*>", head):  # a table of labels may come before
            part = stream.read(_HEAD).decode("utf-8", "replace")
            head += part
            if not part or "<GIFTI" not in head:
                break
    stated = re.search(r'NumberOfDataArrays\s*=\s*"(\d+)"', head)
    array = re.search(r"<DataArray\b[^>]*>", head)
    found = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', array.group(0))) if array else {}
    shape = [int(found[k]) for k in ("Dim0", "Dim1") if found.get(k, "").isdigit()]
    if stated is None or not shape or "POINTSET" in found.get("Intent", ""):
        raise DataError(
            f"{path}: found no values of vertices, expected a GIFTI file with one data array a "
            "volume.",
            hint="Give func.gii files; see the how-to page on surfaces.",
        )
    several = shape[1] if len(shape) > 1 else 1
    return shape[0], several * int(stated.group(1))


class _Arrays(GiftiImageParser):
    """A parser that hands over each data array when it is read, and keeps none."""

    def __init__(self, take: Callable[[np.ndarray], None]) -> None:
        """Keep what takes the arrays."""
        super().__init__(mmap=False)
        self._take = take

    def EndElementHandler(self, name: str) -> None:  # noqa: N802
        """Hand over the array that ends here."""
        super().EndElementHandler(name)
        if name == "DataArray":
            self._take(self.da.data)
            self.da.data = None


def read_vertices(
    path: Path, rows: np.ndarray, into: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Read some vertices of all time points, one data array at a time.

    Parameters
    ----------
    path : Path
        GIFTI, one data array a time point or one array (vertices, time points).
    rows : array of int, shape (n_rows,)
        Numbers of vertices.
    into : (array of float32, array of int), optional
        Where to write: an array (any number of rows, n_volumes), and which of its rows.

    Returns
    -------
    array of float32, shape (n_rows, n_volumes)
        Or the array of ``into``.

    Raises
    ------
    MissingInputError, ReadWriteError
        As for `opened`.
    DataError
        Arrays differ in length, or there are not as many as the file states.
    """
    n_vertices, n_volumes = size_of(path)
    data, places = into or (np.empty((rows.size, n_volumes), np.float32), np.arange(rows.size))
    block = np.empty((16, rows.size), np.float32)  # volumes a write, as for voxels
    done = 0

    def take(values: np.ndarray) -> None:
        nonlocal done
        for column in np.atleast_2d(np.asarray(values).T):
            if column.shape != (n_vertices,) or done == n_volumes:
                raise ValueError(f"found an array of the shape {values.shape} after {done} others")
            with np.errstate(over="ignore", invalid="ignore"):
                block[done % 16] = column[rows]
            done += 1
            if done % 16 == 0 or done == n_volumes:
                first = (done - 1) // 16 * 16
                data[places, first:done] = block[: done - first].T

    with opened(path) as stream:
        _Arrays(take).parse(fptr=stream)
    if done != n_volumes:
        raise DataError(f"{path}: found {done} volumes, the file states {n_volumes}.")
    return data


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh (``.surf.gii``).

    Returns
    -------
    points : array, shape (n_vertices, 3)
        mm.
    faces : array of int, shape (n_faces, 3)
        None at all where the file has positions only.

    Raises
    ------
    MissingInputError, ReadWriteError
        As for `opened`.
    DataError
        It holds no mesh.
    """
    with opened(path) as stream:
        parser = GiftiImageParser(mmap=False)
        parser.parse(fptr=stream)
        parts = [np.asarray(one.data) for one in parser.img.darrays]
    if not parts or any(part.ndim != 2 or part.shape[1] != 3 for part in parts):
        raise DataError(f"{path}: found no positions of vertices, expected a surf.gii file.")
    faces = parts[1].astype(int) if len(parts) > 1 else np.zeros((0, 3), int)
    return parts[0].astype(float), faces


def read_label_file(path: Path) -> tuple[np.ndarray, dict[int, str], dict[int, bytes]]:
    """Read a file with one label a vertex: GIFTI, or ``.annot`` of FreeSurfer.

    Returns
    -------
    labels : array of int32, shape (n_vertices,)
        0 where there is none.
    names : dict of int to str
        By label; empty where the file has no names.
    colours : dict of int to bytes
        Red, green and blue by label.

    Raises
    ------
    MissingInputError, ReadWriteError
        As for `opened`.
    DataError
        It has other content.
    """
    require_present(path, "surface atlas")
    if path.name.endswith(".annot"):
        return _annot(path)
    n_vertices, n_arrays = size_of(path)
    if n_arrays != 1:
        raise DataError(f"{path}: found {n_arrays} data arrays, expected one with labels.")
    with opened(path) as stream:
        parser = GiftiImageParser(mmap=False)
        parser.parse(fptr=stream)
        values = np.nan_to_num(np.asarray(parser.img.darrays[0].data).reshape(n_vertices))
        table = parser.img.labeltable.labels
    labels = np.rint(values).astype(np.int32)
    if not np.allclose(values, labels) or labels.min() < 0:
        raise DataError(f"{path}: found values that are no labels, expected integers, 0 outside.")
    colours = {one.key: bytes(int(255 * (c or 0)) for c in one.rgba[:3]) for one in table}
    return labels, {one.key: one.label or "" for one in table}, colours


def _annot(path: Path) -> tuple[np.ndarray, dict[int, str], dict[int, bytes]]:
    """Read a FreeSurfer annotation; labels are rows of its table plus 1."""
    try:
        rows, colours, names = nib.freesurfer.read_annot(path)
    except (*_DAMAGED, OSError, IndexError) as error:
        raise DataError(f"{path} is no annotation that can be read: {error}.") from error
    labels = np.asarray(rows, np.int32) + 1
    texts = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names]
    return (
        np.where(labels > 0, labels, 0),
        dict(enumerate(texts, start=1)),
        {k: bytes(int(v) & 255 for v in row[:3]) for k, row in enumerate(colours, start=1)},
    )


def map_bytes(values: np.ndarray, side: str, columns: Sequence[str]) -> bytes:
    """Return a map of one hemisphere as ``.func.gii``.

    Parameters
    ----------
    values : array, shape (n_vertices, n_columns)
        NaN where there is no value.
    side : {"L", "R"}
    columns : sequence of str
        Names of the data arrays.
    """
    arrays = [
        nib.gifti.GiftiDataArray(
            np.ascontiguousarray(values[:, k], np.float32),
            intent="NIFTI_INTENT_NONE",
            encoding="GIFTI_ENCODING_B64GZ",
            meta=nib.gifti.GiftiMetaData({"Name": str(name)}),
        )
        for k, name in enumerate(columns)
    ]
    return _bytes(arrays, side)


def label_bytes(labels: np.ndarray, side: str, names: dict[int, str]) -> bytes:
    """Return labels of one hemisphere as ``.label.gii``.

    Parameters
    ----------
    labels : array of int, shape (n_vertices,)
        0 outside.
    side : {"L", "R"}
    names : dict of int to str
        Of all labels; colours are made up, spread over the hues.
    """
    import colorsys

    table = nib.gifti.GiftiLabelTable()
    everything = {0: "???", **names}
    for place, (key, name) in enumerate(everything.items()):
        hue = place * 0.618034 % 1  # golden ratio: neighbours differ
        rgb = colorsys.hsv_to_rgb(hue, 0.65, 0.9) if key else (0.0, 0.0, 0.0)
        one = nib.gifti.GiftiLabel(int(key), *(round(c, 3) for c in rgb), float(key > 0))
        one.label = name
        table.labels.append(one)
    array = nib.gifti.GiftiDataArray(
        np.ascontiguousarray(labels, np.int32),
        intent="NIFTI_INTENT_LABEL",
        encoding="GIFTI_ENCODING_B64GZ",
        meta=nib.gifti.GiftiMetaData({"Name": "parcels"}),
    )
    return _bytes([array], side, table)


def _bytes(
    arrays: list[nib.gifti.GiftiDataArray],
    side: str,
    table: nib.gifti.GiftiLabelTable | None = None,
) -> bytes:
    """Return a GIFTI file that says which hemisphere it is."""
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": STRUCTURES[side]})
    image = nib.gifti.GiftiImage(meta=meta, labeltable=table, darrays=arrays)
    return image.to_bytes()


def read_values(path: Path) -> np.ndarray:
    """Read all values of a GIFTI map, shape (n_vertices, n_columns); errors as `read_vertices`."""
    n_vertices, _ = size_of(path)
    return read_vertices(path, np.arange(n_vertices))
