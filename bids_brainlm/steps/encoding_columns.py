"""Stored features to the bands of encoding models: nuisance bands, and the main band's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.errors import ConfigError, NumericalError
from bids_brainlm.numerics import design
from bids_brainlm.steps.base import Job, made_by

WORD_BANDS = ("silence", "counts", "phonemes")
MIN_COVERED = 0.5  # share of TRs that a control must cover
LAYERED = ("embeddings", "transformations")
EACH = "-each"
TAKEN = ("index", "name", "value", "ci_low", "ci_high")  # columns that tables of maps have
Column = tuple[str, design.Band | None]


@dataclass(frozen=True)
class Scaling:
    """How bands are made of features.

    ``silence`` is the policy for silent TRs; bands named in ``unscaled`` keep their scale.
    """

    silence: str
    unscaled: tuple[str, ...]

    def is_scaled(self, name: str) -> bool:
        """Tell whether a band is standardised on training rows."""
        return name not in self.unscaled


def source_of(job: Job, feature: str) -> Job:
    """Return the upstream job that makes a feature space.

    ``job.facts["spaces"]`` maps each space that the model uses to the step that makes it.
    """
    step = job.facts["spaces"][feature]
    several = [one for one in job.upstream if one.step == step]
    base = feature.removesuffix(EACH)
    return next((one for one in several if one.unit.feature == base), several[0])


def is_each(job: Job) -> bool:
    """Tell whether each column is a model of one feature; these are corrected together."""
    return str(job.unit.feature).endswith(EACH)


def nuisance_bands(
    job: Job, wanted: Sequence[str], scaling: Scaling, n_trs: int
) -> list[design.Band]:
    """Read the nuisance bands of a story.

    Parameters
    ----------
    job : Job
        An encoding job.
    wanted : sequence of str
        Bands in the order of the settings; phonemes are left out where no phones are known.
    scaling : Scaling
    n_trs : int
        Rows of the run; the story may have more.

    Returns
    -------
    list of Band
    """
    words = made_by(job, "words")
    values = write.read_stim_tsv_gz(words.outputs["stim_nuisance"])[:n_trs]
    sidecar = write.read_json(words.outputs["stim_nuisance_json"])
    header = list(sidecar["Columns"])
    found = []
    for name in wanted:
        if name in WORD_BANDS:
            members = sidecar["Bands"].get(name)
            if members:
                own = values[:, [header.index(c) for c in members]]
                found.append(_control(job.unit.story, name, own, scaling))
            continue
        (_, own), *_ = _read(job, name).items()
        own = own[:n_trs].astype(np.float64)
        if name == "static":
            found.append(_language(name, own, _silent(job, n_trs), scaling))
        else:
            found.append(_control(job.unit.story, name, own, scaling))
    return found


def main_columns(job: Job, scaling: Scaling, n_trs: int) -> list[Column]:
    """Return the label and the main band of every column of the maps.

    Parameters
    ----------
    job : Job
        An encoding job.
    scaling : Scaling
    n_trs : int
        Rows of the run.

    Returns
    -------
    list of (str, Band or None)
        One a layer, a measure, or ``value``; no band for the model of nuisance bands only.

    Raises
    ------
    ConfigError
        ``--layers`` names layers that the space does not have.
    NumericalError
        A space has no usable row.
    """
    feature = str(job.unit.feature)
    if feature == "nuisance":
        return [("value", None)]
    silent = _silent(job, n_trs)
    found: list[Column] = []
    for label, values in _read(job, feature).items():
        own = values[:n_trs].astype(np.float64)
        if job.facts["spaces"][feature] == "controls":
            base = feature.removesuffix(EACH)
            band = _control(job.unit.story, "model", own, scaling, as_name=base)
        else:
            band = _language("model", own, silent, scaling)
        found.append((label, band))
    return found


def heads_band(job: Job, scaling: Scaling, n_trs: int) -> tuple[design.Band, list[str], int]:
    """Return the band of all heads' transformations, the heads' names, and units of a head.

    Parameters
    ----------
    job : Job
        Its upstream ``features`` job holds the transformations.
    scaling : Scaling
    n_trs : int
        Rows of the run.

    Returns
    -------
    band : Band
        Named ``model``; columns head after head, those of the first layer first.
    labels : list of str
        ``L01H01`` ...
    head_dim : int
    """
    import xarray

    made = made_by(job, "features")
    with xarray.open_dataset(made.outputs["features"], engine="h5netcdf") as stored:
        values = stored["transformations"].to_numpy()[:n_trs].astype(np.float64)
    n_rows, n_layers, n_heads, head_dim = values.shape
    labels = [
        f"L{layer:02d}H{head:02d}"
        for layer in range(1, n_layers + 1)
        for head in range(1, n_heads + 1)
    ]
    band = _language("model", values.reshape(n_rows, -1), _silent(job, n_trs), scaling)
    return band, labels, head_dim


def state_at(
    job: Job, made: Job, share: float, scaling: Scaling, *, n_trs: int, name: str
) -> tuple[design.Band, int]:
    """Return the embeddings of one layer, at a share of the depth of any model of the story.

    Parameters
    ----------
    job : Job
        Its upstream ``words`` job tells silent rows.
    made : Job
        The ``features`` job of the model.
    share : float
        0 is the input, 1 the last layer; rounded to the nearest layer, at least the first.
    scaling : Scaling
        Treats the band as it treats the main one, whatever its name.
    n_trs : int
        Rows of the run.
    name : str
        Of the band.

    Returns
    -------
    band : Band
    layer : int
    """
    import xarray

    with xarray.open_dataset(made.outputs["features"], engine="h5netcdf") as stored:
        states = stored["embeddings"]
        layer = max(1, round(share * (states.shape[1] - 1)))
        values = states[:n_trs, layer].to_numpy().astype(np.float64)
    band = _language("model", values.reshape(len(values), -1), _silent(job, n_trs), scaling)
    return design.Band(name, band.features, band.valid, band.scaled), layer


def _silent(job: Job, n_trs: int) -> np.ndarray:
    """Return which rows are silent."""
    words = made_by(job, "words")
    values = write.read_stim_tsv_gz(words.outputs["stim_nuisance"])[:n_trs]
    header = list(write.read_json(words.outputs["stim_nuisance_json"])["Columns"])
    return values[:, header.index("silence")] > 0


def _language(name: str, values: np.ndarray, silent: np.ndarray, scaling: Scaling) -> design.Band:
    """Make a band of features that only rows with words have."""
    band = design.silence_policy(values, silent, scaling.silence)
    return design.Band(name, band.features, band.valid, scaling.is_scaled(name))


def _control(
    story: str | None, name: str, values: np.ndarray, scaling: Scaling, as_name: str | None = None
) -> design.Band:
    """Make a band of features that silence does not touch; rows without values count as 0."""
    known = np.isfinite(values).all(axis=1)
    if known.mean() < MIN_COVERED:
        raise NumericalError(
            f"{story}, {as_name or name}: {int(known.sum())} of {len(values)} TRs have values, "
            f"expected at least {MIN_COVERED:.0%}.",
            hint="Check that the file covers the story (--stimulus-onset), or leave it out of "
            "--bands and --features.",
        )
    filled = np.where(known[:, None], values, 0.0)
    return design.Band(name, filled, known, scaling.is_scaled(as_name or name))


def _read(job: Job, feature: str) -> dict[str, np.ndarray]:
    """Read a feature space, one array (n_trs, n_features) a column of the maps."""
    made = source_of(job, feature)
    if feature.endswith(EACH):
        return _single_features(made, feature.removesuffix(EACH))
    if made.step == "attention":
        measures = [k for k in made.outputs if not k.endswith("_json")]
        found = {m: write.read_stim_tsv_gz(made.outputs[m]) for m in measures}
        return {m: values for m, values in found.items() if _varies(values)}
    if made.step == "features" and feature != "magnitudes":
        return _layers(job, made, feature)
    if made.step == "static":
        import xarray

        with xarray.open_dataset(made.outputs["static"], engine="h5netcdf") as stored:
            return {"value": stored["static"].to_numpy()}
    key = "control" if made.step == "controls" else feature
    return {"value": write.read_stim_tsv_gz(made.outputs[key])}


def _single_features(made: Job, space: str) -> dict[str, np.ndarray]:
    """Read every feature of a space as a space of its own; those that never vary are left out."""
    key = "control" if made.step == "controls" else space
    values = write.read_stim_tsv_gz(made.outputs[key])
    names = write.read_json(made.outputs.get(f"{key}_json", made.record))["Columns"]
    own = [f"{name}_" if name in TAKEN else str(name) for name in names]
    found = {name: values[:, [k]] for k, name in enumerate(own)}
    return {name: column for name, column in found.items() if _varies(column)}


def _varies(values: np.ndarray) -> bool:
    """Tell whether a measure says anything (causal models never look ahead)."""
    known = values[np.isfinite(values).all(axis=1)]
    return len(known) > 0 and bool((known != known[0]).any())


def _layers(job: Job, made: Job, feature: str) -> dict[str, np.ndarray]:
    """Read embeddings or transformations by layer; ``static`` is layer 0."""
    import xarray

    space = "embeddings" if feature == "static" else feature
    with xarray.open_dataset(made.outputs["features"], engine="h5netcdf") as stored:
        values = stored[space].to_numpy()
    if feature == "static":
        return {"value": values[:, 0]}
    first = 0 if feature == "embeddings" else 1
    last = first + values.shape[1] - 1
    asked = list(job.facts["layers"]) or list(range(first, last + 1))
    wanted = [n for n in asked if n >= first]  # blocks have no layer 0
    if not wanted or max(wanted) > last:
        raise ConfigError(
            f"{job.unit}: --layers {' '.join(map(str, asked))} names layers that the "
            f"{feature} do not have, expected numbers from {first} to {last}.",
            hint="Change --layers, or leave it out for all.",
        )
    return {f"layer{n:02d}": values[:, n - first].reshape(len(values), -1) for n in wanted}
