"""Stream voxels out of a compressed image, decompressing it once."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np

from bids_brainlm.bidsio.bold import require_present
from bids_brainlm.errors import DataError, ReadWriteError

_MOST_COMPRESSED = 1040  # times smaller than its data is the smallest file that gzip makes
_HEADER = 100_000
_CHUNK = 1 << 15  # deflate may make a thousand times as much of it
_GZIP = 31  # window bits: expect the header and checksum of gzip
_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    TypeError,
    zlib.error,
)


def load_image(path: Path) -> nib.spatialimages.SpatialImage:
    """Open an image; its data stay on disk.

    Raises
    ------
    MissingInputError
        The file is missing or has no content.
    DataError
        It is not an image, or its header cannot be true.
    """
    require_present(path, "image")
    try:
        with np.errstate(all="ignore"):  # what is no number in a header is refused below
            image = nib.load(path)
    except _UNREADABLE as error:
        raise DataError(f"{path} is not an image that can be read: {error}.") from error
    if isinstance(image, nib.spatialimages.SpatialImage):  # surfaces have neither grid nor affine
        _check_header(image, path)
    return image


def _check_header(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """Refuse sizes, kinds of numbers and places that cannot be true."""
    if not image.shape or min(image.shape) < 1:
        raise DataError(f"{path}: found the shape {image.shape} in the header, expected sizes > 0.")
    kind = np.dtype(image.get_data_dtype())
    n_bytes = math.prod(image.shape) * kind.itemsize
    if n_bytes > _MOST_COMPRESSED * path.stat().st_size + _HEADER:
        raise DataError(
            f"{path}: found {n_bytes / 1e9:.3g} GB of data in the header and a file of "
            f"{path.stat().st_size} bytes, which cannot hold them."
        )
    if kind.kind not in "iuf":
        raise DataError(f"{path}: found data of the type {kind.name}, expected real numbers.")
    with np.errstate(all="ignore"):
        place = None if image.affine is None else image.affine[:3, :3]
        good = place is None or (
            np.isfinite(image.affine).all() and 1e-9 < abs(np.linalg.det(place)) < 1e12
        )
    if not good:
        raise DataError(
            f"{path}: found an affine that puts no voxel into space (sform, qform), expected "
            "sizes in mm."
        )


def read_data(image: nib.spatialimages.SpatialImage, path: Path) -> np.ndarray:
    """Return all data of an image.

    Parameters
    ----------
    image : SpatialImage
        From `load_image`.
    path : Path
        For messages.

    Returns
    -------
    array
        As in the file, scaled by slope and intercept.

    Raises
    ------
    DataError
        The file ends early or is damaged.
    """
    try:
        with np.errstate(all="ignore"):
            return np.asanyarray(image.dataobj)
    except (*_UNREADABLE, zlib.error) as error:
        raise DataError(
            f"{path} is damaged: {error}.", hint="Get the file again, then run the same command."
        ) from error


class _Inflated:
    """Read a gzip file piece by piece; damage shows at the latest at its end."""

    def __init__(self, raw: io.BufferedIOBase) -> None:
        self.raw, self.engine = raw, _engine()
        self.inner = self.engine.decompressobj(_GZIP)
        self.begun = False
        self.ready = memoryview(b"")

    def read(self, n_bytes: int) -> bytes:
        """Return as many bytes, fewer at the end of the file."""
        parts = []
        while n_bytes > 0 and (self.ready or self._fill()):
            parts.append(self.ready[:n_bytes])
            self.ready = self.ready[n_bytes:]
            n_bytes -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fill(self) -> bool:
        """Decompress more; False at the end."""
        while not self.ready:
            chunk = self.raw.read(_CHUNK)
            if not chunk:
                if self.begun:
                    raise EOFError("the file ends before the end of its data")
                return False
            while chunk:
                if not self.begun and not chunk.strip(b"\0"):  # padding after the end
                    break
                self.begun = True
                self.ready = memoryview(bytes(self.ready) + self.inner.decompress(chunk))
                chunk = self.inner.unused_data
                if self.inner.eof:
                    self.inner, self.begun = self.engine.decompressobj(_GZIP), False
        return True


def _engine() -> ModuleType:
    """Return the faster of the libraries that are installed; both give the same bytes."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase | _Inflated]:
    """Open a file, decompressing by its content; turn damage into an error of ours."""
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            yield _Inflated(raw) if magic == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, _engine().error) as error:
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
            with np.errstate(over="ignore", invalid="ignore"):  # infinite voxels are left out
                if (proxy.slope, proxy.inter) != (1, 0):
                    values = values.astype(np.float64) * proxy.slope + proxy.inter
                buffer[volume % block] = values
            if volume % block == block - 1 or volume == n_volumes - 1:
                first = volume - volume % block
                data[:, first : volume + 1] = buffer[: volume + 1 - first].T
        while stream.read(_CHUNK):  # the checksum is at the end
            pass
    return data


def _skip(stream: io.BufferedIOBase, n_bytes: int) -> None:
    """Read over the header, in pieces: a damaged one may claim to be larger than any memory."""
    left = n_bytes
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        left -= len(chunk)
