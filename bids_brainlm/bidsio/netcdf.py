"""NetCDF files as bytes, the same for the same content."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray

_MOST_TRIES = 20


def netcdf_bytes(dataset: xarray.Dataset) -> bytes:
    """Return an xarray dataset as a compressed netCDF-4 file.

    Parameters
    ----------
    dataset : xarray.Dataset

    Returns
    -------
    bytes

    Notes
    -----
    The file is made in memory: HDF5 crashes the process when the disk is full.

    HDF5 gives room to some parts of a file when an object is closed. A thread that looks at the
    frames of this one, as the profiler of Dask's workers, keeps objects alive a moment longer, and
    the same data get other bytes. With other threads the file is made until two in a row are equal.
    """
    encoding = {
        name: {"zlib": True, "complevel": 4, "shuffle": True}
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "fiu" and variable.ndim
    }

    def make() -> bytes:
        stream = io.BytesIO()
        dataset.to_netcdf(stream, engine="h5netcdf", encoding=encoding)
        return stream.getvalue()

    made = make()
    for _ in range(_MOST_TRIES if threading.active_count() > 1 else 0):
        before, made = made, make()
        if made == before:
            break
    return made
