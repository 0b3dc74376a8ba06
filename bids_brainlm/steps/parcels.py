"""BOLD to cleaned parcel (or voxel) series over the story window, once per run and story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import (
    bold,
    confounds,
    grids,
    images,
    placing,
    spaces,
    surface_atlas,
    write,
)
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, DataError, MissingInputError, TimingError
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each, finish, stamp

NAME = "parcels"
VERSION = 1


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    denoise: str
    voxel_scaling: str
    voxelwise: bool


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.inputs.denoise, config.inputs.voxel_scaling, config.inputs.voxelwise)


def outputs(unit: Unit, names: Names, *, voxelwise: bool) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"series": unit.place(names, "timeseries", "nc" if voxelwise else "tsv")}
    table, first, *others = unit.map_extensions("label")
    keys = {table: "label_tsv", first: "label_nii", "json": "label_json"}
    for extension in (table, first, *others):
        key = keys.get(extension, "label_right")
        found[key] = unit.place(names, "boldmap", extension, {"stat": "label"})
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "timeseries", "json")


@dataclass(frozen=True)
class _Targets:
    """Parcels or voxels on the grid of a run; ``labels`` holds the row of ``table`` plus 1.

    ``only_with_data``: rows without a series are left out (there is no mask of vertices).
    """

    labels: np.ndarray
    affine: np.ndarray | None
    table: Mapping[str, Sequence[object]]
    anatomical: bool
    warnings: tuple[str, ...]
    grid: grids.Grid | None = None
    only_with_data: bool = False


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Make the series of several runs, a few at a time."""

    def one(job: Job) -> Outcome:
        try:
            found = Outcome(job, warnings=tuple(_series(job, settings)))
        except BrainLMError as error:
            found = Outcome(job, error)
        resources.progress(f"{job.unit}: parcel series")
        return found

    return each(one, jobs, resources.nprocs, writes=True)


def _series(job: Job, settings: Params) -> list[str]:
    """Write the series of one run and return warnings."""
    facts, files = job.facts, job.files
    tr, first, wanted = float(facts["tr"]), int(facts["first_volume"]), int(facts["n_trs"])
    bold.require_present(files["bold"], "image")
    image = images.load_run(files["bold"], tr, files.get("bold_right"))
    n_trs = _length(image, first, wanted, tr)
    warnings = list(image.warnings)
    if n_trs < wanted:
        warnings.append(
            f"{job.unit}: the run ends {(wanted - n_trs) * tr:g} s before the story window; "
            f"{n_trs} of {wanted} rows are used."
        )
    chosen = _confounds(job, settings, image.n_volumes)
    targets = _targets(job, settings, image)
    found = images.parcel_series(
        image,
        targets.labels,
        len(targets.table["index"]),
        slice(first, first + n_trs),
        chosen.matrix if chosen.columns else None,
        voxel_scaling="none" if settings.voxelwise else settings.voxel_scaling,
    )
    if targets.only_with_data:
        targets, found = _with_data(targets, found)
    warnings += [*targets.warnings, *found.warnings]
    empty = [int(i) for i, bad in zip(targets.table["index"], found.empty, strict=True) if bad]
    if len(empty) == len(found.empty):
        raise DataError(
            f"{files['bold']}: all {len(empty)} parcels are empty, expected at least one with "
            "a signal.",
            hint="Check --space, and that --atlas is in the space of the images.",
        )
    _write(job, found, targets)
    what = spaces.EVERYWHERE[spaces.kind_of_space(job.unit.space)]
    scaling = f"{what} z-scored over the window (ddof 1), " * (settings.voxel_scaling == "zscore")
    meta = {
        "StartTime": first * tr,
        "SamplingFrequency": 1 / tr,
        "NumberOfVolumes": n_trs,
        "NumberOfVolumesInRun": image.n_volumes,
        **_entities(job),
        "Anatomical": targets.anatomical,
        "Image": files["bold"].name,
        "Denoising": {
            "Model": "none" if facts["desc"] == "clean" else settings.denoise,
            "ImageDescription": facts["desc"],
            "Columns": list(chosen.columns),
            "HighPassCutoff": chosen.high_pass,
            "Notes": list(chosen.notes),
        },
        "ParcelSignal": f"{scaling}mean over {what}, z-scored (ddof 1)",
        "MeanFramewiseDisplacement": _motion(job),
        "EmptyParcels": empty,
        "Sources": facts["uris"],
        "Warnings": warnings,
    }
    finish(job, meta)
    return warnings


def _length(image: images.BoldImage, first: int, wanted: int, tr: float) -> int:
    """Return how many rows of the story window the run covers."""
    n_trs = min(wanted, image.n_volumes - first)
    if n_trs < 2:
        raise TimingError(
            f"{image.path}: {image.n_volumes} volumes x {tr:g} s = {image.n_volumes * tr:g} s, "
            f"but the story begins at volume {first} ({first * tr:g} s)."
        )
    return n_trs


def _entities(job: Job) -> dict[str, object]:
    """Return what the series belongs to."""
    unit = job.unit
    return {
        "Story": unit.story,
        "Task": unit.task,
        "Participant": unit.participant,
        "Session": unit.session,
        "Run": unit.run,
        "Space": unit.space,
        "Atlas": unit.atlas,
    }


def _confounds(job: Job, settings: Params, n_volumes: int) -> confounds.Confounds:
    """Return the regressors; images that are clean already have none."""
    clean = job.facts["desc"] == "clean"
    return confounds.select(
        job.files.get("confounds"),
        job.files.get("confounds_json"),
        "none" if clean else settings.denoise,
        n_volumes,
        float(job.facts["tr"]),
    )


def _motion(job: Job) -> float | None:
    """Return the mean framewise displacement (mm) where there is a table of confounds."""
    table = job.files.get("confounds")
    if table is None or not bold.is_present(table):
        return None
    return confounds.framewise_displacement(table)


def _targets(job: Job, settings: Params, image: images.BoldImage) -> _Targets:
    """Return the atlas on the run's grid, or one label a voxel."""
    if settings.voxelwise and image.grid is not None:
        labels = np.arange(1, image.shape[0] + 1, dtype=np.int32)
        table = image.grid.table()
        return _Targets(labels, None, table, True, (), image.grid, only_with_data=True)
    if settings.voxelwise:
        mask = job.files.get("mask")
        if mask is None:
            raise MissingInputError(
                f"{image.path}: found no brain mask (*_desc-brain_mask.nii.gz) beside it.",
                hint="Add the dataset with the mask to --derivatives, or use --atlas.",
            )
        bold.require_present(mask, "brain mask")
        labels, affine, table = images.voxel_labels(mask)
        if labels.shape != image.shape:
            raise DataError(f"{mask}: found the grid {labels.shape}, the image has {image.shape}.")
        return _Targets(labels, affine, table, True, ())
    like = job.files.get("parcels_of", image.path)
    known = surface_atlas.find_atlas(str(job.files["atlas"]), like, job.unit.space)
    placed = placing.place_atlas(known, image)
    table = {
        "index": known.index.tolist(),
        "name": list(known.names),
        "hemisphere": [h or None for h in known.hemispheres],
        "network": [n or None for n in known.networks],
    }
    found = (placed.labels, placed.affine, table, known.anatomical, known.warnings)
    return _Targets(*found, image.grid)


def _with_data(
    targets: _Targets, found: images.ParcelSeries
) -> tuple[_Targets, images.ParcelSeries]:
    """Leave out vertices without a series: the medial wall, and those that are constant."""
    kept = np.flatnonzero(~found.empty)
    rows = np.zeros(len(found.empty) + 1, np.int32)
    rows[kept + 1] = np.arange(1, len(kept) + 1)
    table = {name: [values[k] for k in kept] for name, values in targets.table.items()}
    n_left = len(found.empty) - len(kept)
    warnings = [f"{n_left} of {len(found.empty)} vertices have no data and are left out"]
    less = replace(targets, labels=rows[targets.labels], table=table)
    series = images.ParcelSeries(
        found.series[:, kept], found.n_voxels[kept], found.n_dropped[kept], tuple(warnings)
    )
    return (less, series) if n_left else (targets, found)


def _write(job: Job, found: images.ParcelSeries, targets: _Targets) -> None:
    """Write the series, the atlas on the run's grid, and the table of parcels."""
    if job.outputs["series"].suffix == ".nc":
        import xarray

        made = xarray.Dataset(
            {"series": (("tr", "index"), found.series.astype("float32"))},
            coords={"index": np.asarray(targets.table["index"])},
        )
        write.write_netcdf(job.outputs["series"], made)
    else:
        columns = {str(n): found.series[:, k] for k, n in enumerate(targets.table["name"])}
        write.write_tsv(job.outputs["series"], columns)
    if targets.grid is None:
        index = np.asarray(targets.table["index"], float)
        painted = images.paint(index, targets.labels, targets.affine)
        write.write_nifti(job.outputs["label_nii"], painted)
    else:
        _, *extensions, _ = job.unit.map_extensions("label")
        kept = [job.outputs[k] for k in ("label_nii", "label_right") if k in job.outputs]
        paths = dict(zip(extensions, kept, strict=True))
        grids.write_labels(targets.grid, paths, targets.labels, targets.table)
    write.write_tsv(job.outputs["label_tsv"], {**targets.table, "n_voxels": found.n_voxels})
    write.write_json(
        job.outputs["label_json"],
        {
            "Description": "parcels on the grid of the run",
            "Statistic": "label",
            **_entities(job),
            "Anatomical": targets.anatomical,
            **stamp(job),
        },
    )
