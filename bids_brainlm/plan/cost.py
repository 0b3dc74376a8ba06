"""What a plan will cost: a model of time, memory and disk for ``--dry-run``.

Every estimate is a function of plain numbers (`Size`), so that stored measurements can be held
against it: ``benchmarks/results/scale.json``, made by ``benchmarks/scale.py``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainlm.config import Config, base_space
from bids_brainlm.executors.choose import memory_gb, n_cores
from bids_brainlm.plan import fit, sizes
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps import encoding_runs, heads
from bids_brainlm.steps.base import Job, made_by

# Measured on one core of an AMD EPYC (Zen 5) with OpenBLAS and MKL, see benchmarks/scale.py.
FLOPS = 9e10  # of a forward pass, float32
LOADING = 3.0  # s: torch, transformers and a model
EIGH_SECONDS = 3.5e-11  # times n**3, a factorisation and what hangs on it, float64
WIDE = 4.5  # times as much, where the weights of several wide bands are tried
THIN = ("silence", "counts", "position", "surprisal")  # bands of few columns
SEARCH_FLOPS = 1.6e11  # float32 products of the search
TEST_FLOPS = 4e9  # permutations
HEAD_COLUMNS = 256.0  # of a head of BERT at four delays
HEAD_FLOPS = 3.5e10  # float64 products that read heads
READ_BYTES = 2.5e8  # bytes of an image, decompressed
CLEAN_BYTES = 6e7  # bytes of the voxels that are cleaned
PARSER_WORDS = 400.0  # words a second
DECODING_SECONDS = 8e-5  # a head, label, fold, inner fold and penalty, with 400 TRs
LABELS = 39  # that are decoded
CEILING_BYTES = 1.3e6  # tables of series a second: 12 to 46 people x 534 rows x 400 parcels
PAGE_SECONDS = 4.0
PAGE_BYTES = 1e6
FILE_SECONDS = 0.008  # an output: compressed, written, synchronised, hashed
CELL_BYTES = 18.0  # one number in a table and its image
FILE_BYTES = 2500.0
SERIES_BYTES = {False: 12.5, True: 4.0}  # a number as text, or in netCDF
STATE_SHARE = 0.93  # of float32, compressed; so are predictions
TOKENS_A_WINDOW = 90
PASSES = ("features", "attention", "surprisal")  # these run a language model


@dataclass(frozen=True)
class Size:
    """What the cost of a call of a step grows with; see `size_of`.

    ``image`` are decompressed bytes of images, ``voxels`` the numbers that are cleaned,
    ``blocks`` weights of a model without its vocabulary, ``outputs`` files, ``n_targets``
    parcels or voxels of all runs together, ``states`` the bytes of a model's states of all TRs.
    ``n_trs`` of models across stories or runs are those that they are trained on. ``wide`` tells
    that more than one band has many columns, ``predictions`` that they are kept.
    """

    n_jobs: int
    n_trs: float = 0.0
    n_targets: float = 0.0
    n_columns: float = 1.0
    n_bands: float = 1.0
    n_folds: float = 1.0
    n_inner: float = 1.0
    n_gammas: float = 1.0
    n_alphas: float = 1.0
    n_permutations: float = 0.0
    blocks: float = 0.0
    states: float = 0.0
    image: float = 0.0
    voxels: float = 0.0
    words: float = 0.0
    inputs: float = 0.0
    outputs: float = 0.0
    voxelwise: bool = False
    n_pieces: float = 1.0
    wide: bool = False
    predictions: bool = False


@dataclass(frozen=True)
class Cost:
    """Core time (s) and disk (bytes) of a call of a step."""

    seconds: float
    disk: float


def size_of(jobs: Sequence[Job], config: Config) -> Size:
    """Gather what the cost of jobs grows with.

    Parameters
    ----------
    jobs : sequence of Job
        Of one step and group: they share work.
    config : Config

    Returns
    -------
    Size
    """
    job = jobs[0]
    common: dict[str, Any] = {
        "n_jobs": len(jobs),
        "n_trs": float(max(fit.n_trs_of(one) for one in jobs)),
        "outputs": float(n_files(jobs)),
        "voxelwise": config.inputs.voxelwise,
    }
    if job.step == "parcels":
        shapes = [fit.image_shape(one.files["bold"]) for one in jobs]
        return Size(
            **common,
            n_targets=sum(sizes.n_targets_of(one, config) for one in jobs),
            image=sum(x * y * z * t * 4.0 for x, y, z, t in shapes),
            voxels=sum(
                fit.n_voxels(one, config) * fit.image_shape(one.files["bold"])[3] for one in jobs
            ),
        )
    if job.step in PASSES:
        rows = float(sum(fit.n_trs_of(one) for one in jobs))
        states = rows * sizes.state_bytes(job) if job.step == "features" else 0.0
        return Size(**{**common, "n_trs": rows}, blocks=sizes.block_weights(job), states=states)
    if job.step in fit.FITS:
        return _size_of_fit(jobs, config, common)
    if job.step == "decoding":
        d = config.decoding
        common |= {"n_folds": d.decoding_cv, "n_inner": d.decoding_inner_cv}
        return Size(**common, n_columns=sizes.n_heads(job), n_alphas=len(d.decoding_c))
    files = sum(fit.stat_size(path) for one in jobs for path in one.files.values())
    return Size(**common, inputs=float(files), words=2.0 * common["n_trs"])


def _size_of_fit(jobs: Sequence[Job], config: Config, common: dict[str, Any]) -> Size:
    """Gather what the cost of encoding models grows with."""
    job, e = jobs[0], config.encoding
    targets = [sizes.n_targets_of(made_by(one, "parcels"), config) for one in jobs]
    bands, n_columns = _bands(job, config), 1.0
    n_bands = len(e.bands) + (job.unit.feature != "nuisance")
    if job.step == "ladder":
        n_bands, n_columns = fit.n_ladder_bands(job), 2.0 * len(job.facts["rungs"]) - 1
    elif job.step != "partial":
        n_columns = sizes.n_states(job, config)
    if job.step == "across":  # the tested run comes first
        common = {**common, "n_trs": common["n_trs"] - fit.n_trs_of(made_by(job, "parcels"))}
    return Size(
        **common,
        n_targets=sum(targets),
        n_columns=n_columns,
        n_bands=n_bands,
        n_folds=1 if job.step == "across" else e.cv,
        n_inner=e.inner_cv,
        n_gammas=e.n_iter,
        n_alphas=len(e.alphas),
        n_permutations=config.stats.n_permutations,
        n_pieces=max(1.0, sum(targets) / encoding_runs.TARGETS_AT_ONCE),
        wide=sum(band not in THIN for band in bands) > 1,
        predictions=e.predictions and job.step == "encoding",
    )


def _bands(job: Job, config: Config) -> list[str]:
    """Return the bands of a model, the main one among them."""
    if job.step == "ladder":
        return [band for rung in job.facts["rungs"] for band in rung["Bands"]]
    known = made_by(job, "words").facts["has_phones"] if job.step != "partial" else False
    bands = [str(b) for b in job.facts.get("bands") or config.encoding.bands]
    bands = [band for band in bands if known or band != "phonemes"]
    return bands + ([] if job.unit.feature == "nuisance" else [base_space(str(job.unit.feature))])


def n_files(jobs: Sequence[Job]) -> int:
    """Count outputs and records of jobs, without naming those of every participant.

    Parameters
    ----------
    jobs : sequence of Job
        Those of one step, group, story, space, atlas, model and feature differ in participant,
        session and run only, and make as many files.

    Returns
    -------
    int
    """
    known: dict[Hashable, int] = {}
    total = 0
    for job in jobs:
        kind: Hashable = job.record
        if job.group is not None:
            unit = job.unit
            kind = (job.group, unit.story, unit.space, unit.atlas, unit.model, unit.feature)
        if kind not in known:
            known[kind] = len(job.outputs) + 1
        total += known[kind]
    return total


def estimate(step: str, size: Size) -> Cost:
    """Estimate one call of a step.

    Parameters
    ----------
    step : str
    size : Size

    Returns
    -------
    Cost
    """
    files = FILE_SECONDS * size.outputs
    if step in PASSES:
        flops = 2 * size.blocks * TOKENS_A_WINDOW * size.n_trs
        disk = STATE_SHARE * size.states + FILE_BYTES * size.outputs
        return Cost(LOADING + files + flops / FLOPS + size.states / 2e7, disk)
    if step == "parcels":
        seconds = size.image / READ_BYTES + 4 * size.voxels / CLEAN_BYTES + files
        series = SERIES_BYTES[size.voxelwise] * size.n_trs * size.n_targets
        table = (60.0 if size.voxelwise else 30.0) * size.n_targets
        return Cost(seconds, series + table + FILE_BYTES * size.outputs)
    if step in ("encoding", "heads", "across", "ladder"):
        cells = size.n_targets * size.n_columns * (size.outputs / size.n_jobs) / 3
        disk = CELL_BYTES * cells + FILE_BYTES * size.outputs
        if size.predictions:
            disk += STATE_SHARE * 4 * size.n_trs * size.n_targets * size.n_columns
        return Cost(_fit_seconds(size, step) + files, disk)
    disk = FILE_BYTES * size.outputs + 100.0 * size.n_trs
    if step == "reliability":
        return Cost(0.2 + files + size.inputs / CEILING_BYTES, disk)
    if step == "linguistic":
        return Cost(5.0 + size.words / PARSER_WORDS + files, disk + 150.0 * size.words)
    if step == "decoding":
        fits = size.n_columns * LABELS * size.n_folds * size.n_inner * size.n_alphas
        seconds = DECODING_SECONDS * fits * size.n_trs / 400
        return Cost(1.0 + seconds + files, disk + 55.0 * size.n_columns * LABELS)
    if step == "representations":
        return Cost(1.0 + files, disk)
    return Cost(0.2 + files + size.inputs / 2e6, disk + 0.2 * size.inputs)


def _fit_seconds(size: Size, step: str) -> float:
    """Estimate the fit of all columns: factorisations, products of the search, permutations."""
    columns = 1.0 if step == "heads" else size.n_columns
    train = size.n_trs * (1 - 1 / size.n_folds) if size.n_folds > 1 else size.n_trs
    inner = train * (1 - 1 / size.n_inner)
    draws = size.n_gammas if size.n_bands > 1 else 1.0
    problems = columns * size.n_folds * size.n_inner * draws
    factors = problems * size.n_pieces * EIGH_SECONDS * inner**3 * (WIDE if size.wide else 1.0)
    products = problems * size.n_alphas * 2 * inner * (train / size.n_inner)
    n_permutations = 0.0 if step == "ladder" else size.n_permutations
    tests = (size.n_columns if step == "heads" else columns) * n_permutations * size.n_trs / 15
    more = columns * size.n_folds * size.n_bands * train**2 * 1e-9
    if step == "heads":  # weights of all heads, for the data and for series without link
        weights = size.n_columns * HEAD_COLUMNS * size.n_targets * train * size.n_folds
        more += (1 + heads.N_SURROGATES) * 2 * weights / HEAD_FLOPS
    return (
        factors
        + products * size.n_targets / SEARCH_FLOPS
        + tests * size.n_targets * 2 / TEST_FLOPS
        + more
    )


def calls_of(jobs: Sequence[Job]) -> list[list[Job]]:
    """Put jobs together that run in one call: the same step and group.

    Parameters
    ----------
    jobs : sequence of Job

    Returns
    -------
    list of list of Job
    """
    groups: dict[object, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.step, job.group if job.group is not None else job.record].append(job)
    return list(groups.values())


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
    counts = Counter(job.step for job in todo)
    done = Counter(job.step for job in plan.jobs if states[job.record] == "done")
    seconds, disk = Counter(), Counter()
    share: dict[Path, Cost] = {}
    for jobs in calls_of(todo):
        found = estimate(jobs[0].step, size_of(jobs, config))
        seconds[jobs[0].step] += found.seconds
        disk[jobs[0].step] += found.disk
        one = Cost(found.seconds / len(jobs), found.disk / len(jobs))
        share.update({job.record: one for job in jobs})
    lines = [f"{config.level} level, preset {config.preset}", ""]
    lines.append(f"{'step':<16} {'to make':>8} {'done':>6} {'core time':>10} {'disk':>10}")
    steps = list(dict.fromkeys(job.step for job in plan.jobs))
    if plan.participants:
        steps.append("reports")
        n_pages = len({j.unit.participant for j in todo} - {None})
        counts["reports"], done["reports"] = n_pages, len(plan.participants) - n_pages
        seconds["reports"], disk["reports"] = n_pages * PAGE_SECONDS, n_pages * PAGE_BYTES
    for step in steps:
        lines.append(
            f"{step:<16} {counts[step]:>8} {done[step]:>6} {_time(seconds[step]):>10} "
            f"{_bytes(disk[step]):>10}"
        )
    lines += ["", *_totals(todo, sum(seconds.values()), sum(disk.values()), config), ""]
    for job in todo[:40]:
        own = share[job.record]
        lines.append(
            f"  {states[job.record]:<8} {job.step:<16}{job.unit}  ({_time(own.seconds)}, "
            f"{_bytes(own.disk)})"
        )
    if len(todo) > 40:
        lines.append(f"  ... and {len(todo) - 40} more units")
    lines += [f"  skipped  {skip.what}: {skip.why}" for skip in plan.skipped[:40]]
    return "\n".join(lines)


def _totals(todo: Sequence[Job], seconds: float, disk: float, config: Config) -> list[str]:
    """Say what all of it takes with the cores and the memory that may be used."""
    cores = config.execution.nprocs or n_cores()
    large = fit.largest(todo)
    at_once = max((fit.fitting_workers([job], config, cores) for job in large), default=1)
    memory = min(memory_gb(config), fit.peak_gb(large, config, cores))
    return [
        f"about {_time(seconds / max(1, min(cores, at_once)))} on {cores} cores, memory up to "
        f"about {memory:.1f} GB (may use {memory_gb(config):.1f} GB), disk {_bytes(disk)}",
        f"largest unit: {fit.largest_gb(large, config):.1f} GB with one thread",
    ]


def _bytes(number: float) -> str:
    """Write a size for people."""
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"


def _time(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
