"""The voxelwise search with many penalties, with and without a GPU: wall time, equal choices."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np

from benchmarks import encoding
from benchmarks.common import Peer, Result, peak_mib
from bids_brainlm import devices
from bids_brainlm.numerics import blas, ridge
from bids_brainlm.numerics.ridge_search import Choice

DEVICE = "cuda"
N_TARGETS, N_GAMMAS = 80_000, 20
QUICK = 4_000, 4


def voxels_many_alphas(quick: bool) -> Result:
    """80,000 targets, 20 penalties: the processor with one BLAS thread, and the device."""
    return measure(DEVICE, *(QUICK if quick else (N_TARGETS, N_GAMMAS)), repeats=1 if quick else 3)


def measure(device: str, n_targets: int, n_gammas: int, *, repeats: int) -> Result:
    """Search with numpy and on a device, in turn; leave with a message where there is none."""
    screening = devices.TorchScreening("cpu") if device == "cpu" else devices.screening(device)
    row = replace(encoding.ROWS["alphas20"], n_targets=n_targets)
    problem = encoding.simulate(row).some(n_gammas)
    kernels = ridge.linear_kernels(problem.train)

    def search(chosen: object) -> list[Choice]:
        return ridge.search(
            kernels, problem.targets, problem.gammas, problem.alphas, problem.inner,
            score=row.score, screening=chosen,
        )  # fmt: skip

    found: dict[str, list[Choice]] = {}
    times: dict[str, list[float]] = {"host": [], "device": []}
    with blas.single_threaded():
        ridge_of = {"host": None, "device": screening}
        for _ in range(repeats):
            for name, chosen in ridge_of.items():
                start = time.perf_counter()
                found[name] = search(chosen)
                times[name].append(time.perf_counter() - start)
        peak = peak_mib(lambda: search(screening))
    host, ours = (statistics.median(times[name]) for name in ("host", "device"))
    same = all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for one, other in zip(found["host"], found["device"], strict=True)
        for key in ("gamma_index", "alpha_index", "cv_score")
    )
    return Result(
        work=f"search of one outer fold on {device}, wall time",
        shapes=f"{len(kernels[0])} rows, {n_targets} targets, {len(problem.alphas)} alphas, "
        f"{n_gammas} gammas",
        seconds=ours,
        peers=(Peer("the same with numpy, one BLAS thread", host, host / ours),),
        same="choices and scores equal to the last bit" if same else "choices differ",
        peak_mib=peak,
        repeats=repeats,
        notes={"device": _name(device)},
    )


def _name(device: str) -> str:
    """Name the device as its driver does."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
