"""Surface and CIFTI datasets for tests: simulated on fsaverage, and rewritten as CIFTI."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.cifti2 import (
    BrainModelAxis,
    Cifti2Image,
    LabelAxis,
    ParcelsAxis,
    SeriesAxis,
)

from bids_brainlm import cli
from bids_brainlm.simulate import cli as simulate

STORY = "rabbithole"
FAST = (
    "--model", "random:tiny-bert", "--features", "embeddings", "--n-iter", "4",
    "--alphas", "1", "100", "10000", "--n-permutations", "100", "--n-bootstraps", "100",
    "--nprocs", "1", "--cv", "3", "--inner-cv", "2", "--gap", "3", "--ladder", "none",
    "--offline",
)  # fmt: skip
FSLR = 32492
WALL = {"L": 2796, "R": 2776}  # vertices of fsLR 32k that a 91k file does not have


def make(out: Path, *more: str, participants: int = 2, seconds: int = 130) -> Path:
    """Simulate a dataset."""
    given = [str(out), "--participants", str(participants), "--stories", STORY]
    given += ["--run-seconds", str(seconds), "--snr", "high", "--model", "random:tiny-bert"]
    assert simulate.main([*given, *more]) == 0
    return out


def run(bids: Path, out: Path, level: str, *more: str) -> int:
    """Call the app quickly."""
    return cli.main([str(bids), str(out), level, *FAST, *more])


def blocks(bids: Path, space: str, count: int) -> Path:
    """Return the atlas that the simulation made, left hemisphere."""
    folder = bids / "derivatives" / "atlas"
    return folder / f"tpl-{space}_hemi-L_atlas-Blocks{count}_dseg.label.gii"


def bold(bids: Path, person: str, side: str, space: str) -> Path:
    name = f"sub-{person}_task-{STORY}_hemi-{side}_space-{space}_bold.func.gii"
    return bids / "derivatives" / "fmriprep" / f"sub-{person}" / "func" / name


def maps(out: Path, pattern: str) -> Path:
    """Return the one file of a pattern."""
    found = list(out.rglob(pattern))
    assert len(found) == 1, found
    return found[0]


def values_of(path: Path) -> np.ndarray:
    """Return all values of a GIFTI file, shape (n_arrays, n_vertices)."""
    return np.stack([array.data for array in nibabel.load(path).darrays])


def workbench(*arguments: str | Path) -> str:
    """Return what Connectome Workbench says; skip where it is not installed."""
    if shutil.which("wb_command") is None:
        pytest.skip("wb_command (Connectome Workbench) is not installed")
    done = subprocess.run(
        ["wb_command", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def axis_91k() -> tuple[BrainModelAxis, dict[str, np.ndarray]]:
    """Return grayordinates as fMRIPrep has them: cortex without its medial wall, and voxels."""
    inside = {s: np.arange(FSLR) < FSLR - n for s, n in WALL.items()}
    volume = np.zeros((10, 12, 9), bool)
    volume[2:5, 3:9, 4:6] = True
    affine = np.diag([-2.0, 2, 2, 1])
    parts = [
        BrainModelAxis.from_mask(inside["L"], name="cortex_left"),
        BrainModelAxis.from_mask(inside["R"], name="cortex_right"),
        BrainModelAxis.from_mask(volume, affine=affine, name="thalamus_left"),
    ]
    return parts[0] + parts[1] + parts[2], inside


def rewrite_as_cifti(
    bids: Path, space: str, tr: float, people: Sequence[str], *, parcellated: bool = False
) -> Path:
    """Replace the surfaces of a dataset by CIFTI series; return the atlas.

    A vertex of fsLR takes the vertex of fsaverage with the same relative number, cortex only.
    """
    axis, inside = axis_91k()
    n_cortex = {
        s: int(np.isfinite(values_of(bold(bids, people[0], s, space))[0]).sum()) for s in "LR"
    }
    rows = {s: np.arange(inside[s].sum()) * n_cortex[s] // inside[s].sum() for s in "LR"}
    labels, names = [], {0: ("???", (0.0, 0.0, 0.0, 0.0))}
    for side in "LR":
        path = next((bids / "derivatives" / "atlas").glob(f"*hemi-{side}*.label.gii"))
        image = nibabel.load(path)
        labels.append(image.darrays[0].data[rows[side]])
        names.update({one.key: (one.label, one.rgba) for one in image.labeltable.labels if one.key})
    n_voxels = len(axis) - sum(map(len, labels))
    both = np.concatenate([*labels, np.zeros(n_voxels, np.int32)])
    parcels = ParcelsAxis.from_brain_models(
        [(names[k][0], axis[both == k]) for k in np.unique(both[both > 0])]
    )
    rng = np.random.default_rng(1)
    for person in people:
        halves = {s: values_of(bold(bids, person, s, space))[:, rows[s]] for s in "LR"}
        n_volumes = len(halves["L"])
        noise = 500 + rng.standard_normal((n_volumes, n_voxels))
        series = np.hstack([halves["L"], halves["R"], noise]).astype(np.float32)
        time = SeriesAxis(0.0, tr, n_volumes)
        folder = bold(bids, person, "L", space).parent
        stem = f"sub-{person}_task-{STORY}_space-fsLR"
        if parcellated:
            means = np.stack([series[:, both == k].mean(axis=1) for k in np.unique(both[both > 0])])
            image = Cifti2Image(means.T.astype(np.float32), header=(time, parcels))
            image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SERIES")
            image.to_filename(folder / f"{stem}_seg-Blocks_stat-mean_timeseries.ptseries.nii")
        else:
            image = Cifti2Image(series, header=(time, axis))
            image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
            image.to_filename(folder / f"{stem}_den-91k_bold.dtseries.nii")
        for old in folder.glob("*.func.gii"):
            old.unlink()
            old.with_name(re.sub(r"\.func\.gii$", ".json", old.name)).unlink(missing_ok=True)
    image = Cifti2Image(
        both[None].astype(np.float32), header=(LabelAxis(["parcels"], [names]), axis)
    )
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS")
    place = bids / "derivatives" / "atlas" / "tpl-fsLR_atlas-Blocks_den-91k_dseg.dlabel.nii"
    image.to_filename(place)
    return place
