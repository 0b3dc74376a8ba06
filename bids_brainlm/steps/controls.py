"""Control features of a story: position, autocorrelation (OASM), acoustics, the dataset's stims.

The unit's ``feature`` tells which; each is a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import audio, stim_files, stim_rows, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import acoustics, controls
from bids_brainlm.records import TRGrid
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by

NAME = "controls"
VERSION = 1


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    mel_bands: int
    oasm_sigma: float


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.features.mel_bands, config.features.oasm_sigma)


def recording(feature: str) -> str:
    """Return the recording of a control, such as ``acoustics`` or ``stimEnvelope``.

    Examples
    --------
    >>> recording("stim-envelope")
    'stimEnvelope'
    """
    first, _, name = feature.partition("-")
    return first + name[:1].upper() + name[1:]


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar)."""
    return {"control": unit.place(names, "stim", "tsv.gz", {"recording": recording(unit.feature)})}


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "stim", "json", {"recording": recording(unit.feature)})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Make the controls of several stories."""
    return stories.each_story(jobs, lambda job: _control(job, settings))


def _control(job: Job, settings: Params) -> list[str]:
    """Write one control of one story."""
    words = made_by(job, "words")
    grid = TRGrid(
        int(words.facts["first_volume"]), int(words.facts["n_trs"]), float(words.facts["tr"])
    )
    if job.unit.feature == "position":
        values, columns, more = _position(grid)
    elif job.unit.feature == "oasm":
        values, columns, more = _oasm(grid, settings.oasm_sigma)
    elif job.unit.feature == "acoustics":
        values, columns, more = _acoustics(job, grid, settings.mel_bands)
    else:
        values, columns, more = _stim(job, grid)
    write.write_stim_tsv_gz(job.outputs["control"], values)
    n_empty = int(np.isnan(values).any(axis=1).sum())
    warnings = []
    if n_empty:
        warnings.append(
            f"{job.unit}: {n_empty} of {grid.n_trs} TRs have no values; they count as 0 after "
            "standardisation."
        )
    bands = more.get("NumberOfMelBands")
    if isinstance(bands, Mapping) and bands["Kept"] < bands["Asked"]:
        warnings.append(
            f"{job.unit}: {bands['Asked'] - bands['Kept']} of {bands['Asked']} mel bands lie above "
            "half the sampling rate of the audio file and are left out."
        )
    finish(
        job,
        {
            "Columns": list(columns),
            "StartTime": grid.onset,
            "SamplingFrequency": 1 / grid.tr,
            "Story": job.unit.story,
            "NumberOfEmptyTRs": n_empty,
            "EmptyTRs": "n/a: not covered; 0 after standardisation in the encoding step",
            **more,
            **{name: dict(text) for name, text in columns.items()},
            "Warnings": warnings,
        },
    )
    return warnings


Found = tuple[np.ndarray, Mapping[str, Mapping[str, str]], dict[str, object]]


def _position(grid: TRGrid) -> Found:
    """Return how far the story has come."""
    columns = {
        "linear": {"Description": "position in the story"},
        "quadratic": {"Description": "its square, less the mean"},
    }
    return controls.position(grid.n_trs), columns, {"Description": "position in the story"}


def _oasm(grid: TRGrid, sigma: float) -> Found:
    """Return the content-free matrix that only autocorrelation can use."""
    values = controls.oasm(grid.n_trs, sigma)
    columns = {
        f"tr{row:04d}": {"Description": f"row {row}, blurred over neighbours"}
        for row in range(grid.n_trs)
    }
    more = {"Description": "orthogonal autocorrelated-stimulus matrix", "Sigma": sigma}
    return values, columns, more


def _acoustics(job: Job, grid: TRGrid, n_bands: int) -> Found:
    """Return loudness and spectrum of the audio file."""
    path = job.files["audio"]
    info = audio.audio_info(path)
    onset = float(made_by(job, "words").facts["audio_onset"])
    found = acoustics.acoustics(
        audio.audio_blocks(path),
        info.rate,
        tr=grid.tr,
        n_trs=grid.n_trs,
        first_time=grid.onset - onset,
        bands=acoustics.MelBands(n_bands),
    )
    columns = {
        "rms": {"Description": "root mean square of the waveform, 1 is full scale"},
        "log_rms": {"Description": "the same as a level", "Units": "dB"},
    }
    for k, centre in enumerate(found.centres, start=1):
        text = f"mean log power in the mel band around {centre:.0f} Hz"
        columns[f"mel{k:02d}"] = {"Description": text, "Units": "dB"}
    values = np.column_stack([found.rms, found.log_rms, found.log_mel])
    more = {
        "Description": "low-level acoustics: loudness and mel spectrum",
        "Audio": {"File": path.name, "SamplingRate": info.rate, "Channels": info.n_channels},
        "NumberOfMelBands": {"Asked": n_bands, "Kept": len(found.centres)},
        "AudioSha256": write.sha256_file(path),
        "NumberOfRowsCoveredInPart": int(((found.covered > 0) & (found.covered < 1)).sum()),
    }
    return values, columns, more


def _stim(job: Job, grid: TRGrid) -> Found:
    """Return a recording of the dataset on the story grid."""
    path = job.files["stim"]
    onset = float(made_by(job, "words").facts["audio_onset"])
    shift = onset if job.facts["clock"] == "audio" else 0.0
    placed = stim_rows.to_rows(stim_files.read_stim(path), grid, shift)
    columns = {name: {"Description": f"{name} of {path.name}"} for name in placed.columns}
    more = {
        "Description": f"recording of the dataset, put on the volumes by {placed.rule}",
        "Recording": path.name,
        "Resampling": placed.rule,
        "Clock": job.facts["clock"],
        "DroppedColumns": list(placed.dropped),
        "ConstantColumns": list(placed.constant),
    }
    return placed.values, columns, more
