"""Sizes that a plan's cost grows with: targets, layers, weights; read once a file."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np

from bids_brainlm.bidsio import grids, spaces
from bids_brainlm.config import Config, base_space
from bids_brainlm.errors import BrainLMError
from bids_brainlm.steps.base import Job

VOXELS = 80_000.0  # of a brain mask that cannot be read
PARCELS = 400.0
STATES = 13.0  # layers and input embeddings of a model that is not at hand
WEIGHT_BYTES = 4.4e8
HIDDEN = 768.0
LAYERED = ("embeddings", "transformations")
NAMES = {
    "blocks": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "dim", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
}


def n_targets_of(job: Job, config: Config) -> float:
    """Return the parcels or voxels of a parcels job.

    Parameters
    ----------
    job : Job
        Of the step parcels.
    config : Config

    Returns
    -------
    float
        A guess where the file cannot be read.
    """
    if config.inputs.voxelwise and not spaces.is_volume(job.unit.space):
        return _locations(job.files["bold"])
    if config.inputs.voxelwise:
        return _in_mask(job.files["mask"]) if "mask" in job.files else VOXELS
    return _rows(job.files["atlas"]) if "atlas" in job.files else PARCELS


@lru_cache(maxsize=64)
def _in_mask(path: Path) -> float:
    """Count the voxels of a mask."""
    try:
        return float((np.asanyarray(nibabel.load(path).dataobj) > 0.5).sum())
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError):
        return VOXELS


@lru_cache(maxsize=4096)
def _locations(path: Path) -> float:
    """Count the vertices or grayordinates of an image."""
    try:
        return float(grids.size_of(path)[0])
    except BrainLMError:
        return VOXELS


@lru_cache(maxsize=64)
def _rows(image: Path) -> float:
    """Count the rows of the table beside an atlas; its name tells where there is none."""
    table = image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    try:
        return max(1.0, table.read_bytes().count(b"\n") - 1.0)
    except OSError:
        digits = "".join(c if c.isdigit() else " " for c in image.name.rpartition("_")[2]).split()
        return float(digits[0]) if digits and int(digits[0]) > 0 else PARCELS


def n_states(job: Job, config: Config) -> float:
    """Return how many columns the maps of an encoding job have."""
    space = base_space(str(job.unit.feature))
    if space == "heads":
        return n_heads(job)
    if space not in LAYERED:
        return 1.0
    if config.features.layers:
        return float(len(config.features.layers))
    return _facts(job)["states"]


def n_heads(job: Job) -> float:
    """Return the number of a model's heads; a guess where it is not at hand."""
    return _facts(job)["heads"]


def weight_bytes(job: Job) -> float:
    """Return the size of a model's weights; a guess where they are not at hand."""
    return _facts(job)["weights"]


def block_weights(job: Job) -> float:
    """Return the number of weights in a model's blocks, without its vocabulary."""
    facts = _facts(job)
    return 12.0 * facts["hidden"] ** 2 * (facts["states"] - 1)


def state_bytes(job: Job) -> float:
    """Return the bytes of a model's states of one TR: residual streams and head outputs."""
    facts = _facts(job)
    return 4.0 * facts["hidden"] * (2 * facts["states"] - 1)


def _facts(job: Job) -> dict[str, float]:
    """Return what is known of the model behind a job."""
    for one in (job, *job.upstream):
        if "model" in one.files:
            return _model(one.files["model"])
    return _model(Path("random:unknown"))


@lru_cache(maxsize=64)
def _model(place: Path) -> dict[str, float]:
    """Read sizes from the folder of a model."""
    found = {"weights": WEIGHT_BYTES, "states": STATES, "heads": 144.0, "hidden": HIDDEN}
    if "tiny" in str(place):
        return {"weights": 1e6, "states": 5.0, "heads": 8.0, "hidden": 32.0}
    if not place.is_dir():
        return found
    files = [*place.glob("*.safetensors"), *place.glob("pytorch_model*.bin")]
    sizes = [p.stat().st_size for p in files if p.is_file()]
    found["weights"] = float(sum(sizes)) or found["weights"]
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return found
    given = {key: _first(config, names) for key, names in NAMES.items()}
    if given["blocks"]:
        found["states"] = given["blocks"] + 1
    if given["hidden"]:
        found["hidden"] = given["hidden"]
    if given["heads"]:
        found["heads"] = given["heads"] * (found["states"] - 1)
    return found


def _first(config: dict[str, object], names: tuple[str, ...]) -> float:
    """Return the first of some numbers that a model's configuration has, else 0."""
    numbers = (config[name] for name in names if isinstance(config.get(name), int))
    return float(next(numbers, 0))
