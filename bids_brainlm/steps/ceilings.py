"""Intersubject correlation of the stored parcel series, once per story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import isc, scores
from bids_brainlm.steps import group_files
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, stamp

NAME = "ceilings"
VERSION = 2
JACKKNIFE_GROUPS = 20


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    isc_reference: str
    isc_segments: int
    trim: tuple[int, int]


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.ceiling.isc_reference, config.ceiling.isc_segments, config.encoding.trim)


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {}
    for ext in unit.map_extensions()[:-1]:  # the sidecar is the record
        found[f"isc.{ext}"] = unit.place(names, "group_boldmap", ext, {"stat": "isc"})
    for ext in unit.map_extensions():
        labels = {"stat": "isc", "desc": "participants"}
        found[f"participants.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"stat": "isc"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Compute the ceilings of several stories."""
    return each_job(jobs, lambda job: _ceiling(job, settings), resources, "ceilings")


def _ceiling(job: Job, settings: Params) -> list[str]:
    """Write the ISC maps of one story."""
    names, runs = group_files.read_runs(job)
    participants, series = group_files.stacked(runs, settings.trim)
    own = isc.leave_one_out(
        series,
        include_self=settings.isc_reference == "all",
        n_segments=settings.isc_segments,
    )
    mean = scores.fisher_mean(own, axis=0)
    low, high = _jackknife(series, settings)
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"]).restrict(names)
    meta = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "Participants": participants,
        "NumberOfParticipants": len(participants),
        "NumberOfRows": int(series.shape[1]),
        "Trim": list(settings.trim),
        "Reference": "mean of the z-scored series of "
        + ("the other participants" if settings.isc_reference == "others" else "all participants"),
        "Segments": settings.isc_segments,
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    paths = job.map_paths("participants")
    write_map(maps, paths, [f"sub-{p}" for p in participants], own.T)
    described = {
        "Description": "intersubject correlation of each participant",
        "Statistic": "isc",
        "Columns": [f"sub-{p}" for p in participants],
        **meta,
    }
    write.write_json(job.outputs["participants.json"], {**described, **stamp(job)})
    paths = job.map_paths("isc")
    write_map(maps, paths, ["value"], mean[:, None], {"ci_low": low, "ci_high": high})
    finish(
        job,
        {
            "Description": "intersubject correlation, Fisher mean over participants",
            "Statistic": "isc",
            "Columns": ["value", "ci_low", "ci_high"],
            "Interval": "95 %, jackknife over participants on Fisher z",
            "Inference": {
                "isc_reference": settings.isc_reference,
                "Test": "none: leave-one-out values are not independent over participants",
            },
            **meta,
        },
    )
    return []


def _jackknife(series: np.ndarray, settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """Return a 95 % interval of the mean ISC from leaving out (groups of) participants.

    Leave-one-out values share data, so neither their standard error nor a bootstrap of them
    is valid; recomputing the whole statistic without some participants is.
    """
    n = len(series)
    n_groups = min(n, JACKKNIFE_GROUPS)
    if n < 4:
        missing = np.full(series.shape[2], np.nan)
        return missing, missing
    groups = np.array_split(np.arange(n), n_groups)

    def statistic(rows: np.ndarray) -> np.ndarray:
        own = isc.leave_one_out(
            series[rows],
            include_self=settings.isc_reference == "all",
            n_segments=settings.isc_segments,
        )
        return np.arctanh(np.clip(scores.fisher_mean(own, axis=0), -0.999999, 0.999999))

    whole = statistic(np.arange(n))
    left = np.stack([statistic(np.setdiff1d(np.arange(n), g)) for g in groups])
    spread = np.sqrt((n_groups - 1) / n_groups * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    return np.tanh(whole - 1.96 * spread), np.tanh(whole + 1.96 * spread)
