"""What a plan will cost: a coarse model of time, memory and disk for ``--dry-run``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from bids_brainlm.config import Config
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps.base import Job

# Measured on one core of an AMD EPYC (Zen 3) with OpenBLAS and MKL.
FLOPS = 4e10  # useful rate of a transformer forward pass, float32
EIGH_SECONDS = 9e-10  # times n**3, eigendecomposition and what hangs on it, float64
GEMM_FLOPS = 2e10  # float64 products of the search
READ_BYTES = 4e7  # compressed image bytes a second, with cleaning
PAGE_SECONDS = 6.0
TOKENS_A_WINDOW = 90
MAP_BYTES = 40_000
MODEL_STEPS = ("features", "attention", "surprisal")
WHOLE = ("nuisance", "magnitudes", "surprisal", "linguistic", "static", "acoustics", "position")


def text(plan: Plan, states: Mapping[Path, str], config: Config) -> str:
    """Return the plan with estimates, for people.

    Parameters
    ----------
    plan : Plan
    states : mapping of Path to str
        State of each job by its record.
    config : Config

    Returns
    -------
    str
    """
    todo = [job for job in plan.jobs if states[job.record] != "done"]
    counts, seconds, disk = Counter(), defaultdict(float), defaultdict(float)
    done = Counter(job.step for job in plan.jobs if states[job.record] == "done")
    shared: set[object] = set()
    for job in todo:
        counts[job.step] += 1
        first = job.group not in shared
        shared.add(job.group)
        seconds[job.step] += _seconds(job, config, first=first)
        disk[job.step] += _disk(job)
    n_cores = config.execution.nprocs or 2
    lines = [f"{config.level} level, preset {config.preset}", ""]
    lines.append(f"{'step':<16} {'to make':>8} {'done':>6} {'core time':>10} {'disk':>9}")
    for step in dict.fromkeys(job.step for job in plan.jobs):
        lines.append(
            f"{step:<16} {counts[step]:>8} {done[step]:>6} {_time(seconds[step]):>10} "
            f"{disk[step] / 1e6:>6.1f} MB"
        )
    if plan.participants:
        n_pages = len({j.unit.participant for j in todo} - {None})
        seconds["reports"] = n_pages * PAGE_SECONDS
        lines.append(
            f"{'reports':<16} {n_pages:>8} {len(plan.participants) - n_pages:>6} "
            f"{_time(seconds['reports']):>10} {0.5 * n_pages:>6.1f} MB"
        )
    total = sum(seconds.values())
    lines += [
        "",
        f"about {_time(total / n_cores)} on {n_cores} cores, memory up to about "
        f"{_memory(todo, config):.1f} GB",
        "",
    ]
    for job in todo[:40]:
        lines.append(f"  {states[job.record]:<8} {job.step:<16}{job.unit}")
    if len(todo) > 40:
        lines.append(f"  ... and {len(todo) - 40} more units")
    lines += [f"  skipped  {skip.what}: {skip.why}" for skip in plan.skipped[:40]]
    return "\n".join(lines)


def _seconds(job: Job, config: Config, *, first: bool) -> float:
    """Estimate the core time of one job, s; what a group shares is counted once."""
    if job.step in MODEL_STEPS:
        n_trs = float(job.upstream[0].facts["n_trs"])
        size = sum(p.stat().st_size for p in _weights(job, config)) or 4.4e8
        return 10 + 2 * (size / 4) * TOKENS_A_WINDOW * n_trs / FLOPS
    if job.step == "linguistic":
        return 10.0
    if job.step == "parcels":
        return 1 + job.files["bold"].stat().st_size / READ_BYTES
    if job.step == "encoding":
        return _encoding_seconds(job, config, first=first)
    if job.step == "group":
        return 3.0
    return 1.0


def _encoding_seconds(job: Job, config: Config, *, first: bool) -> float:
    """Estimate one encoding job: factorisations once a group, products for every run."""
    e = config.encoding
    n_rows = float(job.upstream[0].facts["n_trs"])
    inner = n_rows * (1 - 1 / e.cv) * (1 - 1 / e.inner_cv)
    columns = 1 if job.unit.feature in WHOLE else 10
    problems = e.n_iter * e.cv * e.inner_cv * columns
    factors = problems * EIGH_SECONDS * inner**3 if first else 0.0
    n_targets = 400 if not config.inputs.voxelwise else 60_000
    products = problems * 2 * inner**2 / e.inner_cv * n_targets * len(e.alphas) / GEMM_FLOPS / 4
    return factors + products + 0.5 * columns


def _weights(job: Job, config: Config) -> list[Path]:
    """Return the weight files of a model that is at hand."""
    folder = job.files["model"]
    return sorted(folder.glob("*.safetensors")) if folder.is_dir() else []


def _disk(job: Job) -> float:
    """Estimate the bytes that a job writes."""
    if job.step == "features":
        return float(job.upstream[0].facts["n_trs"]) * 60_000
    return len(job.outputs) * MAP_BYTES


def _memory(todo: list[Job], config: Config) -> float:
    """Estimate the peak memory, GB."""
    images = [j.files["bold"].stat().st_size * 4e-9 for j in todo if j.step == "parcels"]
    at_once = config.execution.nprocs or 2
    models = 1.5 if any(j.step in MODEL_STEPS for j in todo) else 0.0
    return max(1.0, models, 0.5 + at_once * max(images, default=0.0))


def _time(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
