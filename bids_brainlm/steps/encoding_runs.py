"""Runs to encode: their parcel series, in batches of equal length, and the folds of a story."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.errors import BrainLMError, NumericalError
from bids_brainlm.numerics import crossval
from bids_brainlm.steps.base import Job, Outcome, made_by

TARGETS_AT_ONCE = 40_000  # bounds memory; never changes a result
BATCH_SHARE = 0.3  # of the memory, for the series of a batch
PANEL = 8  # pieces begin at its multiples: places within float64 products stay the same
FEWEST = 1000  # targets of a piece
_PER_THREAD = 2.5e8  # bytes: kernels, factors, blocks of the search
_WITH_LADDERS, _FROM = 5.5e8, 1250  # bytes at least, from so many targets; see `ridge.search`
_LOADED = 6e8  # bytes: the program and its libraries


@dataclass(frozen=True)
class Person:
    """One run's targets: ``series`` (n_trs, n_parcels); ``kept`` tells which have a series.

    Where several runs were put one after the other, ``lengths`` has the rows of each.
    """

    job: Job
    series: np.ndarray
    kept: np.ndarray
    lengths: tuple[int, ...] = ()

    @property
    def targets(self) -> np.ndarray:
        """The parcels that have a series, shape (n_trs, n_kept)."""
        return self.series[:, self.kept]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return values of the kept parcels, (n_kept, ...), for all parcels; else NaN."""
        whole = np.full((len(self.kept), *values.shape[1:]), np.nan)
        whole[self.kept] = values
        return whole


def each_batch(
    jobs: Sequence[Job],
    encode: Callable[[Sequence[Person]], list[Outcome]],
    mem_gb: float = math.inf,
    read: Callable[[Job], Person] | None = None,
) -> list[Outcome]:
    """Read the runs and encode them batch by batch; keep each one's error.

    Runs of a batch have the same length. Not more series are kept than the memory (GB) allows.
    """
    outcomes: list[Outcome] = []
    waiting: dict[tuple[int, ...], list[Person]] = defaultdict(list)

    def work(shape: tuple[int, ...]) -> None:
        batch = waiting.pop(shape)
        try:
            outcomes.extend(encode(batch))
        except BrainLMError as error:
            outcomes.extend(Outcome(person.job, error) for person in batch)

    for job in jobs:
        try:
            person = (read or read_person)(job)
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
            continue
        n_trs = len(person.series)
        shape = (n_trs, *person.lengths)
        if waiting[shape] and _size([*waiting[shape], person]) > batch_limit(n_trs, mem_gb):
            work(shape)
        waiting[shape].append(person)
        fullest = max(waiting, key=lambda s: s[0] * _size(waiting[s]))
        kept = sum(s[0] * _size(batch) for s, batch in waiting.items())
        if len(waiting) > 1 and kept > fullest[0] * batch_limit(fullest[0], mem_gb):
            work(fullest)
    for shape in list(waiting):
        work(shape)
    return outcomes


def _size(people: Sequence[Person]) -> int:
    """Count the targets of some runs."""
    return sum(int(person.kept.sum()) for person in people)


def batch_limit(n_trs: int, mem_gb: float) -> int:
    """Return how many targets of ``n_trs`` rows the series of a batch may have."""
    if math.isinf(mem_gb):
        return TARGETS_AT_ONCE
    return int(min(TARGETS_AT_ONCE, BATCH_SHARE * mem_gb * 1e9 / (16 * n_trs)))


def thread_bytes(n_targets: int, n_trs: int, n_bands: int) -> float:
    """Return the memory that fitting some targets at once takes, bytes.

    Predictions of the bands, targets of all and of the training rows, dual weights, and what
    scoring and the permutation test need, all float64. The search of many targets keeps more
    matrices.
    """
    n_bytes = _PER_THREAD + 8.0 * n_trs * (n_bands + 8) * n_targets
    return max(n_bytes, _WITH_LADDERS) if n_targets >= _FROM else n_bytes


def pieces(
    widths: Sequence[int], n_trs: int, n_bands: int, *, n_workers: int, mem_gb: float
) -> list[list[tuple[int, slice]]]:
    """Cut the targets of a batch into pieces that fit into memory.

    Parameters
    ----------
    widths : sequence of int
        Targets of each run.
    n_trs, n_bands : int
    n_workers : int
        Threads that each hold one piece.
    mem_gb : float
        Memory for all of them, GB.

    Returns
    -------
    list of list of (int, slice)
        For each piece, numbers of runs and which of their targets. One piece where all fit.

    Notes
    -----
    Matrices are factorised once a piece. Pieces never change a result.
    """
    series = 16.0 * n_trs * sum(widths)
    left = (mem_gb * 1e9 - _LOADED - series) / n_workers
    one = thread_bytes(1, n_trs, n_bands) - _PER_THREAD
    most = TARGETS_AT_ONCE if math.isinf(left) else (left - _PER_THREAD) / one
    if left < _WITH_LADDERS:
        most = min(most, _FROM - PANEL)
    at_once = int(max(FEWEST, most)) // PANEL * PANEL
    made: list[list[tuple[int, slice]]] = [[]]
    room = at_once
    for number, width in enumerate(widths):
        start = 0
        while start < width or width == 0:
            if room < min(PANEL, width - start):
                made.append([])
                room = at_once
            stop = width if width - start <= room else start + room // PANEL * PANEL
            made[-1].append((number, slice(start, stop)))
            room -= stop - start
            start = stop
            if stop == width:
                break
    return made


def read_person(job: Job) -> Person:
    """Read the parcel series of a run."""
    path = made_by(job, "parcels").outputs["series"]
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as stored:
            series = stored["series"].to_numpy().astype(np.float64)
    else:
        _, series = write.read_matrix_tsv(path)
    return Person(job, series, np.isfinite(series).all(axis=0))


def gap_in_trs(gap: float, tr: float) -> int:
    """Return a gap in s as whole TRs, rounded up."""
    return math.ceil(gap / tr - 1e-9)


def fold_plan(job: Job, n_trs: int, n_bands: int, settings: Mapping[str, object]) -> crossval.Plan:
    """Fix the folds of a story.

    Parameters
    ----------
    job : Job
        For messages and the repetition time.
    n_trs : int
        Rows of the run.
    n_bands : int
    settings : mapping
        Of the encoding steps: ``cv``, ``inner_cv``, ``gap`` (s), ``trim``, ``n_iter``,
        ``alphas``, ``delays``, ``seed``, ``selection_score``, ``test_scaling``, ``intercept``,
        ``kernel_scaling``.

    Returns
    -------
    Plan

    Raises
    ------
    NumericalError
        The rows are too few.
    """
    first, last = settings["trim"]
    rows = np.arange(first, n_trs - last)
    if len(rows) < 4 * settings["cv"]:
        raise NumericalError(
            f"{job.unit}: {n_trs} volumes less {first} + {last} trimmed are {max(len(rows), 0)} "
            f"rows, too few for {settings['cv']} folds.",
            hint="Use fewer folds with --cv or a shorter --trim.",
        )
    return crossval.make_plan(
        rows,
        n_folds=settings["cv"],
        n_inner=settings["inner_cv"],
        gap=gap_in_trs(float(settings["gap"]), float(job.facts["tr"])),
        n_bands=n_bands,
        n_gammas=settings["n_iter"],
        alphas=settings["alphas"],
        delays=settings["delays"],
        seed=settings["seed"],
        score=settings["selection_score"],
        test_scaling=settings["test_scaling"],
        centre=settings["intercept"] == "train",
        common_scale=settings["kernel_scaling"] == "trace",
    )
