"""What fits into memory: a model of what jobs need, checked against measurements.

``benchmarks/scale.py`` measures; ``benchmarks/results/scale.json`` keeps what it found.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import nibabel

from bids_brainlm.bidsio import grids, spaces
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, ConfigError
from bids_brainlm.executors import memory
from bids_brainlm.executors.choose import memory_gb
from bids_brainlm.plan.sizes import n_states, n_targets_of, state_bytes, weight_bytes
from bids_brainlm.steps import encoding_runs, heads
from bids_brainlm.steps.base import Job, made_by

MODEL_STEPS = ("features", "attention", "surprisal", "representations", "decoding")
FITS = ("encoding", "heads", "partial", "ladder", "across")
GROUP_STEPS = (
    "ceilings",
    "reliability",
    "alignment",
    "group",
    "layers",
    "correspondence",
    "comparison",
    "specialization",
    "pooled",
    "ladder_group",
)

PROCESS = 0.12  # GB: Python, numpy, scipy, nibabel
WORDS = 0.13  # GB: xarray, transcripts, tokenizers
TORCH = 0.45  # GB: torch and transformers, which stay loaded
PARCELS = 0.1  # GB: buffers of one image
COPIES_OF_SERIES = 7  # float64, while voxelwise series are made and written
COPIES_OF_WEIGHTS = 1.6  # while a model is loaded
COPIES_OF_STATES = 5  # float32, while features are gathered, compressed and written
COPIES_OF_RUN = 2  # compressed, while a run is summarised
COPIES_OF_PEOPLE = 6  # float64, while a group is tested
SHARE_IN_ATLAS = 0.25  # of the grid's voxels, at most


def need_gb(jobs: Sequence[Job], config: Config) -> tuple[float, float]:
    """Return the memory of jobs that run in one call.

    Parameters
    ----------
    jobs : sequence of Job
        Of one step.
    config : Config

    Returns
    -------
    shared : float
        GB for the process and what its threads share.
    each : float
        GB for every thread, with the smallest pieces that targets are cut into.
    """
    step = jobs[0].step
    resident = PROCESS + (WORDS + TORCH if config.level != "group" else 0.0)
    if step == "parcels":
        return resident, PARCELS + max(_image_gb(job, config) for job in jobs)
    if step in FITS:
        return _fit_gb(jobs, config, resident)
    if step in MODEL_STEPS:
        return resident + max(_model_gb(job) for job in jobs), 0.0
    if step in GROUP_STEPS:
        return resident + max(_group_gb(job) for job in jobs), 0.0
    return resident + 0.1, 0.0


def largest_gb(jobs: Iterable[Job], config: Config) -> float:
    """Return the memory (GB) of the largest of some jobs with one thread; see `need_gb`."""
    return max((sum(need_gb([job], config)) for job in largest(jobs)), default=PROCESS)


def peak_gb(jobs: Sequence[Job], config: Config, n_workers: int) -> float:
    """Return the memory (GB) that some jobs will take with so many threads where there is room."""
    peaks = [0.0]
    for job in largest(jobs):
        shared, each = need_gb([job], config)
        threads = n_workers if job.step in ("parcels", "encoding") else 1
        peaks.append(shared + threads * each)
    return max(PROCESS, *peaks)


def refuse_what_cannot_fit(jobs: Sequence[Job], config: Config) -> None:
    """Refuse work for which there is not enough memory, before anything is written.

    Parameters
    ----------
    jobs : sequence of Job
        What is to be made.
    config : Config

    Raises
    ------
    ConfigError
        A job needs more than ``--mem-gb``, or, without it, more than this machine or the
        control group of this process could ever give.

    Notes
    -----
    With ``--executor dask`` or ``slurm`` only ``--mem-gb`` is heeded: the work runs elsewhere.
    """
    given = config.execution.mem_gb
    if not given and config.execution.executor != "local":
        return
    limit = given or memory.limit_gb()
    for job in largest(jobs):
        shared, each = need_gb([job], config)
        if shared + each <= limit:
            continue
        least = math.ceil(10 * (shared + each)) / 10
        what = "--mem-gb is" if given else "this machine or its control group has"
        raise ConfigError(
            f"{job.step} of {job.unit} needs at least {least:g} GB, {what} {limit:.1f} GB.",
            hint=f"{_smaller(job, config)} would fit; or give --mem-gb {least:g} or more on a "
            "machine that has it.",
        )


def _smaller(job: Job, config: Config) -> str:
    """Name a change that needs less memory."""
    if job.step in FITS and config.encoding.predictions:
        return "The same without --predictions"
    if config.inputs.voxelwise and job.step in ("parcels", *FITS):
        return "An atlas (--atlas in the place of --voxelwise), or a coarser --resolution or mesh,"
    if job.step in MODEL_STEPS:
        return "A smaller --model"
    return "Fewer participants in one call (--participant-label)"


def fitting_workers(jobs: Sequence[Job], config: Config, n_workers: int) -> int:
    """Return how many threads the memory allows for some jobs."""
    shared, each = need_gb(jobs, config)
    room = memory_gb(config) - shared
    return max(1, min(n_workers, int(room / each) if each > 0 else n_workers))


def largest(jobs: Iterable[Job]) -> list[Job]:
    """Return one job for each size that occurs.

    Parameters
    ----------
    jobs : iterable of Job

    Returns
    -------
    list of Job
        The one with the longest story for each step, space, atlas, model and feature space.
    """
    found: dict[tuple[object, ...], Job] = {}
    for job in jobs:
        unit = job.unit
        kind = (job.step, unit.space, unit.atlas, unit.model, unit.feature)
        if kind not in found or _length(job) > _length(found[kind]):
            found[kind] = job
    return list(found.values())


def _length(job: Job) -> float:
    """Return what the memory of jobs of one kind grows with."""
    if job.step == "parcels":
        return float(stat_size(job.files["bold"]))
    return float(n_trs_of(job)) if job.step not in GROUP_STEPS else float(len(job.files))


def stat_size(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def n_trs_of(job: Job) -> int:
    """Return the rows of a job's story."""
    for one in (job, *job.upstream):
        if "n_trs" in one.facts:
            return int(one.facts["n_trs"])
    return 0


@lru_cache(maxsize=4096)
def image_shape(path: Path) -> tuple[int, int, int, int]:
    """Return grid and volumes in an image's header; large ones where it cannot be read.

    Surfaces and CIFTI have their locations along the first axis.
    """
    if spaces.kind_of_file(path.name) != spaces.VOLUME:
        try:
            n_locations, n_volumes = grids.size_of(path)
        except BrainLMError:
            n_locations, n_volumes = 2 * 163842, 500
        return n_locations, 1, 1, n_volumes
    try:
        shape = _nifti_shape(path) or tuple(int(n) for n in nibabel.load(path).shape)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError):
        shape = (97, 115, 97, 500)
    x, y, z, n_volumes = (*shape, 1, 1, 1, 1)[:4]
    return x, y, z, n_volumes


def _nifti_shape(path: Path) -> tuple[int, ...]:
    """Read no more than the sizes of a NIfTI-1 file, ten times as fast as nibabel; else ()."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream:
        header = stream.read(348)
    if header[344:] not in (b"n+1\0", b"ni1\0"):
        return ()
    order = "<" if 1 <= header[40] <= 7 else ">"
    n_dimensions, *sizes = struct.unpack(f"{order}8h", header[40:56])
    shape = tuple(sizes[:n_dimensions])
    return shape if 1 <= n_dimensions <= 7 and min(shape) > 0 else ()


def n_voxels(job: Job, config: Config) -> float:
    """Return how many voxels of an image are read, at most; ``job`` is of the step parcels."""
    x, y, z, _ = image_shape(job.files["bold"])
    if not spaces.is_volume(job.unit.space):
        return float(x)
    return n_targets_of(job, config) if config.inputs.voxelwise else SHARE_IN_ATLAS * x * y * z


def _image_gb(job: Job, config: Config) -> float:
    """Return the memory of one image while its series are made, GB."""
    x, y, z, n_volumes = image_shape(job.files["bold"])
    n_targets = n_targets_of(job, config)
    series = COPIES_OF_SERIES * 8.0 * n_targets * n_trs_of(job)
    return (n_voxels(job, config) * n_volumes * 4.0 + 24.0 * x * y * z + series) / 1e9


def _fit_gb(jobs: Sequence[Job], config: Config, resident: float) -> tuple[float, float]:
    """Return the memory of encoding models, GB: series, then one piece of targets a thread."""
    job = max(jobs, key=n_trs_of)
    n_trs, n_targets = n_trs_of(job), n_targets_of(made_by(job, "parcels"), config)
    n_bands = len(config.encoding.bands) + 1
    if job.step == "ladder":
        n_bands = 2 * n_ladder_bands(job)
    if job.step == "heads":
        n_bands += config.encoding.cv + heads.MORE_COPIES
    series = 3 * 8.0 * n_trs * n_targets
    n_columns = n_states(job, config)
    if config.encoding.predictions and job.step in ("encoding", "partial"):
        series += 3 * 4.0 * n_trs * n_targets * n_columns
    tables = 8.0 * 2 * n_targets * n_columns * (6 + n_bands)
    piece = encoding_runs.thread_bytes(min(encoding_runs.FEWEST, n_targets), n_trs, n_bands)
    return resident + (series + tables) / 1e9, piece / 1e9


def n_ladder_bands(job: Job) -> int:
    """Return how many bands the whole model of a ladder has."""
    return sum(len(rung["Bands"]) for rung in job.facts["rungs"])


def _model_gb(job: Job) -> float:
    """Return the memory of a language model and of what it gives for one story, GB."""
    weights = weight_bytes(job)
    states = n_trs_of(job) * state_bytes(job)
    return (COPIES_OF_WEIGHTS * weights + COPIES_OF_STATES * states) / 1e9 + 0.2


def _group_gb(job: Job) -> float:
    """Return the memory of group statistics, GB: the tables of all people and their columns.

    Voxelwise series are read in pieces, or one run after the other.
    """
    sizes: dict[str, float] = {}
    for name, path in job.files.items():
        kind = name.partition(":")[0]
        if path.suffix == ".nc":
            sizes["run"] = max(sizes.get("run", 0.0), COPIES_OF_RUN * stat_size(path))
        else:
            sizes[kind] = sizes.get(kind, 0.0) + stat_size(path)
    largest = max(sizes.values(), default=0.0)
    return COPIES_OF_PEOPLE * largest / 1e9 + 0.1
