"""Stories of several runs as blocks of one fit; the first one is tested.

A helper of the step ``across``, not a step. ``job.facts["blocks"]`` lists the blocks; the job's
upstream holds words, feature spaces and parcel series of all of them, the tested run's first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bids_brainlm.numerics import crossval, folds, transfer
from bids_brainlm.steps import encoding_columns, encoding_runs, run_checks, stories
from bids_brainlm.steps.base import Job, Unit, made_by


def views(job: Job) -> list[Job]:
    """Return one job for each block, which knows of this block's story and run only."""
    found = []
    for block in job.facts["blocks"]:
        unit = replace(
            job.unit,
            story=block["Story"],
            task=block["Task"],
            session=block["Session"],
            run=block["Run"],
        )
        own = tuple(
            one
            for one in job.upstream
            if one.unit.story == unit.story
            and (one.unit.participant is None or _scan(one.unit) == _scan(unit))
        )
        found.append(replace(job, unit=unit, upstream=own))
    return found


def _scan(unit: Unit) -> tuple[str | None, ...]:
    """Return what names a run of the scanner."""
    return unit.session, unit.task, unit.run


def names(job: Job) -> list[str]:
    """Return what each block is left out with: its story, or its run."""
    return [str(block["Source"]) for block in job.facts["blocks"]]


def texts(job: Job) -> list[str]:
    """Return the story of each block."""
    return [str(block["Story"]) for block in job.facts["blocks"]]


def apart(settings: Mapping[str, object], tr: float) -> int:
    """Return how many rows lie between blocks: as many as delays and gaps could reach over."""
    gap = encoding_runs.gap_in_trs(float(settings["gap"]), tr)
    return max(gap, *settings["delays"]) + 1


def read(job: Job) -> encoding_runs.Person:
    """Read the series of all blocks of a participant; parcels have one in every block."""
    parts = [encoding_runs.read_person(view) for view in views(job)]
    lengths = tuple(len(part.series) for part in parts)
    where = transfer.places(lengths, apart(job.settings, float(job.facts["tr"])))
    series = transfer.stack([part.series for part in parts], where)
    return encoding_runs.Person(job, series, np.isfinite(series).all(axis=0), lengths)


def bands_of(
    job: Job,
    wanted: Sequence[str],
    scaling: encoding_columns.Scaling,
    lengths: Sequence[int],
    where: Sequence[slice],
) -> tuple[list, list[encoding_columns.Column]]:
    """Read the nuisance bands and the columns of all blocks.

    Parameters
    ----------
    job : Job
    wanted : sequence of str
        Nuisance bands that every story has.
    scaling : Scaling
    lengths : sequence of int
        Rows of each block.
    where : sequence of slice
        Rows of each block on the common axis.

    Returns
    -------
    nuisance : list of Band
    columns : list of (str, Band or None)
        Those that all blocks have.
    """
    own = list(zip(views(job), lengths, strict=True))
    nuisance = transfer.stack_bands(
        [encoding_columns.nuisance_bands(view, wanted, scaling, n) for view, n in own], where
    )
    found = [dict(encoding_columns.main_columns(view, scaling, n)) for view, n in own]
    shared = [label for label in found[0] if all(label in one for one in found)]
    columns: list[encoding_columns.Column] = []
    for label in shared:
        if found[0][label] is None:
            columns.append((label, None))
        else:
            columns.append((label, transfer.stack_bands([[f[label]] for f in found], where)[0]))
    return nuisance, columns


def leakage(
    job: Job, plan: crossval.Plan, source: Mapping[str, object], where: Sequence[slice]
) -> dict[str, object]:
    """Audit a fit on several blocks; distances count within blocks."""
    n_rows = where[-1].stop
    words: list[list[str]] = [[] for _ in range(n_rows)]
    of = np.full(n_rows, -1)
    for number, (view, rows) in enumerate(zip(views(job), where, strict=True)):
        heard = stories.row_words(
            made_by(view, "words").outputs["words"], int(made_by(view, "words").facts["n_trs"])
        )
        words[rows] = heard[: rows.stop - rows.start]
        of[rows] = number
    return run_checks.leakage(job, plan, source, run_checks.Text(words, of))


def rows_of(job: Job, rows: np.ndarray, where: Sequence[slice]) -> list[dict[str, object]]:
    """Describe rows of the common axis as rows of each block's story."""
    found = []
    for block, place in zip(job.facts["blocks"], where, strict=True):
        own = rows[(rows >= place.start) & (rows < place.stop)] - place.start
        if len(own):
            entities = {k: block[k] for k in ("Story", "Session", "Run") if block[k] is not None}
            found.append({**entities, "Rows": folds.ranges(own)})
    return found
