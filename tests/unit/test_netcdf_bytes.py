"""The bytes of netCDF files do not depend on threads that look at this one's frames."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import xarray

from bids_brainlm.bidsio import write


def _dataset(rng) -> xarray.Dataset:
    """Return features of a story in small."""
    return xarray.Dataset(
        {
            "embeddings": (("tr", "layer", "unit"), rng.random((82, 5, 32), dtype=np.float32)),
            "n_tokens": (("tr",), np.arange(82, dtype=np.int32)),
            "n_context_tokens": (("tr",), np.arange(82, dtype=np.int32)),
        },
        coords={"tr": np.arange(82, dtype=np.int32), "layer": np.arange(5, dtype=np.int32)},
        attrs={"model": "tiny"},
    )


def _look(stop: threading.Event) -> None:
    """Hold the frames of all threads for a moment, again and again, as a profiler does."""
    while not stop.is_set():
        held = []
        for frame in sys._current_frames().values():
            while frame is not None:
                held.append(frame)
                frame = frame.f_back
        time.sleep(0.003)
        held.clear()
        time.sleep(0.0005)


def test_a_profiler_changes_no_byte(rng, tmp_path, monkeypatch):
    """It looks at the first making of each file; the next ones are made in peace."""
    made, plain = _dataset(rng), tmp_path / "plain.nc"
    write.write_netcdf(plain, made)
    to_netcdf = xarray.Dataset.to_netcdf
    for number in range(5):
        stop, living = threading.Event(), threading.Event()
        looking = threading.Thread(target=_look, args=(stop,))
        other = threading.Thread(target=living.wait)  # so that there are several to the end
        looking.start()
        other.start()

        def watched(*given, _stop=stop, _looking=looking, **more):
            result = to_netcdf(*given, **more)
            _stop.set()
            _looking.join()
            return result

        monkeypatch.setattr(xarray.Dataset, "to_netcdf", watched)
        path = tmp_path / f"{number}.nc"
        write.write_netcdf(path, made)
        living.set()
        other.join()
        assert path.read_bytes() == plain.read_bytes()
    with xarray.open_dataset(plain, engine="h5netcdf") as stored:
        assert stored.load().identical(made)
