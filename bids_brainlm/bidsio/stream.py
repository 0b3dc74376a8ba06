"""Stream voxels out of a compressed image, decompressing it once."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainlm.bidsio.bold import require_present
from bids_brainlm.errors import DataError, ReadWriteError


def load_image(path: Path) -> nib.spatialimages.SpatialImage:
    """Open an image; its data stay on disk.

    Raises
    ------
    MissingInputError
        The file is missing or has no content.
    DataError
        It is not an image.
    """
    require_present(path, "image")
    try:
        return nib.load(path)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not an image that can be read: {error}.") from error


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, decompressing by its content; turn damage into an error of ours."""
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as inner:
                    yield io.BufferedReader(inner, 1 << 20)
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is damaged: {error}.", hint="Get the file again, then run the same command."
        ) from error
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error}.") from error


def read_voxels(path: Path, flat: np.ndarray) -> np.ndarray:
    """Read some voxels of all volumes in one pass over the file.

    Parameters
    ----------
    path : Path
        A 4-D NIfTI image.
    flat : array of int, shape (n_voxels,)
        Indices into a volume in Fortran order.

    Returns
    -------
    array of float32, shape (n_voxels, n_volumes)
        Scaled by the header's slope and intercept.

    Raises
    ------
    DataError
        The file ends early.
    """
    image = load_image(path)
    proxy = image.dataobj
    n_volumes = image.shape[3]
    data = np.empty((flat.size, n_volumes), np.float32)
    block = 16  # volumes a write: fills cache lines of the (voxel, volume) layout
    buffer = np.empty((block, flat.size), np.float32)
    n_bytes = int(np.prod(image.shape[:3])) * proxy.dtype.itemsize
    with _opened(path) as stream:
        _skip(stream, proxy.offset)
        for volume in range(n_volumes):
            raw = stream.read(n_bytes)
            if len(raw) != n_bytes:
                raise DataError(
                    f"{path}: found {volume} whole volumes, the header states {n_volumes}.",
                    hint="Get the file again, then run the same command.",
                )
            values = np.frombuffer(raw, proxy.dtype)[flat]
            if (proxy.slope, proxy.inter) != (1, 0):
                values = values.astype(np.float64) * proxy.slope + proxy.inter
            buffer[volume % block] = values
            if volume % block == block - 1 or volume == n_volumes - 1:
                first = volume - volume % block
                data[:, first : volume + 1] = buffer[: volume + 1 - first].T
    return data


def _skip(stream: io.BufferedIOBase, n_bytes: int) -> None:
    """Read over the header."""
    left = n_bytes
    while left > 0 and (chunk := stream.read(left)):
        left -= len(chunk)
