"""Runs to encode: their parcel series, in batches of equal length, and the folds of a story."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.errors import BrainLMError, NumericalError
from bids_brainlm.numerics import crossval
from bids_brainlm.steps.base import Job, Outcome, made_by
from bids_brainlm.steps.encoding_sidecar import gap_in_trs

TARGETS_AT_ONCE = 40_000  # bounds memory; never changes a result


@dataclass(frozen=True)
class Person:
    """One run's targets: ``series`` (n_trs, n_parcels); ``kept`` tells which have a series."""

    job: Job
    series: np.ndarray
    kept: np.ndarray

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
    jobs: Sequence[Job], encode: Callable[[Sequence[Person]], list[Outcome]]
) -> list[Outcome]:
    """Read the runs and encode them batch by batch; keep each one's error."""
    outcomes, people = [], []
    for job in jobs:
        try:
            people.append(_read(job))
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
    for batch in _batches(people):
        try:
            outcomes += encode(batch)
        except BrainLMError as error:
            outcomes += [Outcome(person.job, error) for person in batch]
    return outcomes


def _read(job: Job) -> Person:
    """Read the parcel series of a run."""
    path = made_by(job, "parcels").outputs["series"]
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as stored:
            series = stored["series"].to_numpy().astype(np.float64)
    else:
        _, series = write.read_matrix_tsv(path)
    return Person(job, series, np.isfinite(series).all(axis=0))


def _batches(people: Sequence[Person]) -> Iterator[list[Person]]:
    """Group runs of equal length into batches that fit into memory."""
    by_length: dict[int, list[Person]] = defaultdict(list)
    for person in people:
        by_length[len(person.series)].append(person)
    for same in by_length.values():
        batch: list[Person] = []
        for person in same:
            n_targets = sum(int(p.kept.sum()) for p in batch) + int(person.kept.sum())
            if batch and n_targets > TARGETS_AT_ONCE:
                yield batch
                batch = []
            batch.append(person)
        yield batch


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
