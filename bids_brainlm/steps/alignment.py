"""Whether the brains of a group follow the words of a story when the events say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import alignment
from bids_brainlm.steps import group_files, run_checks
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, made_by

NAME = "alignment"
VERSION = 1


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.encoding.seed)


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    return {"table": unit.place(names, "alignment", "tsv")}


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "alignment", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Estimate the lags of several stories."""
    return each_job(jobs, lambda job: _align(job, settings), resources, "alignment")


def _align(job: Job, settings: Params) -> list[str]:
    """Write the lags of all runs of one story and return a warning if the group is off."""
    runs = group_files.find_runs(job)
    tr = float(job.facts["tr"])
    drive = _drive(job, runs.names)
    counts = np.nan_to_num(write.read_stim_tsv_gz(job.files["words"])[:, 0])
    keys = sorted(runs.paths)
    series = [alignment.driven_series(runs.read(key), drive) for key in keys]
    responses = [alignment.convolve_response(counts[: len(one)], tr) for one in series]
    try:
        found = alignment.group_alignment(responses, series, tr, seed=settings.seed)
    except NumericalError as error:  # too short a story is no reason to have no group
        return _write(job, keys, settings, None, error.message)
    return _write(job, keys, settings, found, "")


def _write(
    job: Job,
    keys: Sequence[str],
    settings: Params,
    found: alignment.Alignment | None,
    why: str,
) -> list[str]:
    """Write what was found, or why nothing was."""
    persons = [key.split(":") for key in keys]
    write.write_tsv(
        job.outputs["table"],
        {
            "participant": [f"sub-{p}" for p, _, _ in persons],
            "session": [None if s == "None" else s for _, s, _ in persons],
            "run": [None if r == "None" else r for _, _, r in persons],
            "lag": [None] * len(keys) if found is None else found.of_run,
        },
    )
    facts: dict[str, object] = {"Lag": None, "Verdict": f"Not estimated: {why}"}
    if found is not None:
        curve = {"Lags": found.lags.tolist(), "Curve": found.curve.tolist()}
        facts = {**run_checks.lag_facts(found), **curve}
    warnings = [f"{job.unit.story}: {facts['Verdict']}"] if facts.get("Unlikely") else []
    finish(
        job,
        {
            "Description": "lag of the best correlation between words (convolved with a canonical "
            "response) and the parcels with the highest intersubject correlation",
            "Story": job.unit.story,
            "Space": job.unit.space,
            "Atlas": job.unit.atlas,
            "NumberOfRuns": len(keys),
            **facts,
            "Columns": {"lag": "lag of the run on its own, s; noisy where the run is"},
            "Seed": settings.seed,
            "Warnings": warnings,
            "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
        },
    )
    return warnings


def _drive(job: Job, names: Sequence[str]) -> np.ndarray:
    """Return the intersubject correlation of the parcels, which knows of no stimulus."""
    _, known, _, values = read_map(made_by(job, "ceilings").outputs["isc.tsv"])
    place = {name: k for k, name in enumerate(known)}
    return np.array([values[place[n], 0] if n in place else np.nan for n in names])
