"""Intersubject correlation of the stored parcel series, once per story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
VERSION = 3
JACKKNIFE_GROUPS = 20
MOST_BYTES, SHARE = 4e9, 0.2  # of all series of a piece; they are there twice for a moment


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
    n_bytes = min(MOST_BYTES, SHARE * 1e9 * resources.mem_gb)
    return each_job(jobs, lambda job: _ceiling(job, settings, n_bytes), resources, "ceilings")


@dataclass(frozen=True)
class _Found:
    """ISC of some parcels: shapes (n_participants, n_parcels), and (n_parcels,) thrice."""

    participants: list[str]
    n_trs: int
    own: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _correlate(runs: group_files.Runs, settings: Params, n_bytes: float) -> _Found:
    """Correlate piece after piece, since voxels of all participants need not fit into memory."""
    flags = {
        "include_self": settings.isc_reference == "all",
        "n_segments": settings.isc_segments,
    }
    parts = []
    for some in runs.pieces(n_bytes):
        participants, series = group_files.stacked(runs.all(some), settings.trim)
        own = isc.leave_one_out(series, **flags)
        mean = scores.fisher_mean(own, axis=0)
        parts.append((own, mean, *_jackknife(series, mean, flags)))
    joined = [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]
    return _Found(participants, series.shape[1], *joined)


def _ceiling(job: Job, settings: Params, n_bytes: float) -> list[str]:
    """Write the ISC maps of one story."""
    runs = group_files.find_runs(job)
    found = _correlate(runs, settings, n_bytes)
    participants = found.participants
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"]).restrict(runs.names)
    meta = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "Participants": participants,
        "NumberOfParticipants": len(participants),
        "NumberOfRows": found.n_trs,
        "Trim": list(settings.trim),
        "Reference": "mean of the z-scored series of "
        + ("the other participants" if settings.isc_reference == "others" else "all participants"),
        "Segments": settings.isc_segments,
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    paths = job.map_paths("participants")
    write_map(maps, paths, [f"sub-{p}" for p in participants], found.own.T)
    described = {
        "Description": "intersubject correlation of each participant",
        "Statistic": "isc",
        "Columns": [f"sub-{p}" for p in participants],
        **meta,
    }
    write.write_json(job.outputs["participants.json"], {**described, **stamp(job)})
    paths = job.map_paths("isc")
    more = {"ci_low": found.low, "ci_high": found.high}
    write_map(maps, paths, ["value"], found.mean[:, None], more)
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


def _jackknife(
    series: np.ndarray, mean: np.ndarray, flags: Mapping[str, object]
) -> tuple[np.ndarray, np.ndarray]:
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
    whole = group_files.fisher_z(mean)
    left = group_files.fisher_z(isc.leave_groups_out(series, groups, **flags))
    spread = np.sqrt((n_groups - 1) / n_groups * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    return np.tanh(whole - 1.96 * spread), np.tanh(whole + 1.96 * spread)
