"""What heads differ in: principal components of where in the brain they have more weight.

Heads are placed along a few dimensions by the parcels in which they have relatively more weight;
the dimensions are correlated with layer, look-back distance and what heads decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import correspondence, multiple, specialization
from bids_brainlm.steps import group_files
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, made_by

NAME = "specialization"
VERSION = 3
STAT = "normexcess"  # of the maps that are read
N_COMPONENTS = 5
MOST_PERMUTATIONS = 1000  # of a component: each is an eigendecomposition
FEWEST_PARTICIPANTS = 6  # fewer have too few patterns of signs for p <= 0.05
MIN_LAYERS = 4  # fewer cannot be correlated
LAYER, LOOKBACK = "layer", "lookback"
ASSOCIATIONS = {
    "component": "PC01 ...",
    "covariate": "layer, look-back distance (tokens), or a decoded label",
    "rho": "Spearman correlation over heads with the component's scores; of layer: over layers, "
    "with mean scores",
    "p": "two-tailed, permutation of heads (too small where heads of a layer resemble each other; "
    "see pwithin); of layer: of layers; (k + 1) / (n + 1)",
    "q": "p adjusted over all tests of the table",
    "rhowithin": "the same with layer partialled out",
    "pwithin": "two-tailed, permutation of heads within layers",
    "qwithin": "pwithin adjusted over all tests of the table",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.stats.n_permutations, config.encoding.seed)


def desc(unit: Unit) -> str:
    """Return the ``desc`` label, such as ``minilmSpecialization``."""
    return f"{unit.model}Specialization"


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of loading)."""
    own = {"desc": desc(unit)}
    found = {
        f"loading.{ext}": unit.place(names, "group_boldmap", ext, {**own, "stat": "loading"})
        for ext in unit.map_extensions()[:-1]  # the sidecar is the record
    }
    for key in ("head_scores", "components", "associations"):
        found[key] = unit.place(names, key, "tsv", own)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": desc(unit), "stat": "loading"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Find the components of several stories and models."""
    return each_job(jobs, lambda job: _specialize(job, settings), resources, "specialization")


def _specialize(job: Job, settings: Params) -> None:
    """Write components, scores and associations of one story and model."""
    people = group_files.read_people(job, STAT, correlations=False)
    found = specialization.specialize(
        people.values.transpose(0, 2, 1),
        n_components=N_COMPONENTS,
        n_permutations=min(settings.n_permutations, MOST_PERMUTATIONS),
        rng=np.random.default_rng([settings.seed, 9]),
    )
    labels = [f"PC{k + 1:02d}" for k in range(found.scores.shape[1])]
    names, covariates = _covariates(job, people.columns)
    layers = _layers(people.columns)
    linked = _associate(covariates, found.scores, layers, settings)
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"]).restrict(people.names)
    paths = job.map_paths("loading")
    write_map(maps, paths, labels, found.loadings.T)
    heads: dict[str, object] = {"head": people.columns, LAYER: layers.tolist()}
    if LOOKBACK in names:
        heads[LOOKBACK] = covariates[:, names.index(LOOKBACK)]
    heads.update({label: found.scores[:, k] for k, label in enumerate(labels)})
    write.write_tsv(job.outputs["head_scores"], heads)
    _write_components(job.outputs["components"], labels, found)
    n_significant = _write_associations(job.outputs["associations"], labels, names, linked)
    finish(job, _meta(job, settings, people, labels, names, n_significant))


def _associate(
    covariates: np.ndarray, scores: np.ndarray, layers: np.ndarray, settings: Params
) -> correspondence.Correspondence:
    """Correlate components with covariates, of which the first is layer.

    Heads of a layer resemble each other, so that permuting heads would make too much of a
    correlation with layer (18 to 45 % of p below .05 by chance): its row is one over the means
    of layers.
    """

    def draws(number: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, 10, number])

    n = settings.n_permutations
    linked = correspondence.correspond(covariates, scores, layers, n_permutations=n, rng=draws(0))
    known = np.unique(layers)
    linked.rho[0], linked.p[0] = np.nan, np.nan
    if len(known) >= MIN_LAYERS:
        means = np.stack([scores[layers == one].mean(axis=0) for one in known])
        by_layer = correspondence.correspond(
            known[:, None].astype(float), means, known, n_permutations=n, rng=draws(1)
        )
        linked.rho[0], linked.p[0] = by_layer.rho[0], by_layer.p[0]
    return linked


def _layers(heads: Sequence[str]) -> np.ndarray:
    """Return the layer of each head from its name, ``L01H01``."""
    return np.array([int(name[1 : name.index("H")]) for name in heads])


def _covariates(job: Job, heads: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return what components are correlated with, shape (n_heads, n_covariates)."""
    names, columns = [LAYER], [_layers(heads).astype(float)]
    if "lookback" in job.files:
        values = write.read_stim_tsv_gz(job.files["lookback"])
        with_words = values[np.isfinite(values).all(axis=1)]
        names.append(LOOKBACK)
        columns.append(with_words.mean(axis=0))
    if "decoding" in job.files:
        accuracy, labels = group_files.read_accuracy(job.files["decoding"], heads)
        known = np.isfinite(accuracy).all(axis=0)
        names += [label for label, keep in zip(labels, known, strict=True) if keep]
        columns += list(accuracy[:, known].T)
    return names, np.column_stack(columns)


def _write_components(path: Path, labels: Sequence[str], found) -> None:
    """Write one row a component."""
    write.write_tsv(
        path,
        {
            "component": list(labels),
            "share": found.share,
            "agreement": found.agreement,
            "null_95": found.null_95,
            "p": found.p,
            "reliability": found.reliability,
        },
    )


def _write_associations(
    path: Path,
    labels: Sequence[str],
    names: Sequence[str],
    linked: correspondence.Correspondence,
) -> dict[str, int]:
    """Write one row a component and covariate; return how many are significant."""
    q, within = (
        multiple.benjamini_hochberg(p.ravel()).reshape(p.shape) for p in (linked.p, linked.p_within)
    )
    cells = [(c, k) for k in range(len(labels)) for c in range(len(names))]
    parts = (linked.rho, linked.p, q, linked.rho_within, linked.p_within, within)
    table: dict[str, object] = {
        "component": [labels[k] for _, k in cells],
        "covariate": [names[c] for c, _ in cells],
    }
    for name, values in zip(list(ASSOCIATIONS)[2:], parts, strict=True):
        table[name] = [float(values[cell]) for cell in cells]
    write.write_tsv(path, table)
    return {"q": int((q <= 0.05).sum()), "qwithin": int((within <= 0.05).sum())}


def _meta(
    job: Job,
    settings: Params,
    people: group_files.People,
    labels: Sequence[str],
    covariates: Sequence[str],
    n_significant: dict[str, int],
) -> dict[str, object]:
    """Describe the components."""
    first = write.read_json(made_by(job, "group").record)
    n = len(people.participants)
    n_signs = min(settings.n_permutations, MOST_PERMUTATIONS)
    n_signs = 2**n - 1 if n < 20 and 2**n <= n_signs else n_signs
    few = f"with {n} participants no p of a component can be below {2.0 ** (1 - n):g}"
    return {
        "Description": "correlation over heads of a parcel's relative weights with a component's "
        "scores",
        "Statistic": "loading",
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "FeatureSpace": "specialization",
        "Model": first["Model"],
        "Columns": list(labels),
        "NumberOfHeads": len(people.columns),
        "Participants": people.participants,
        "NumberOfParticipants": len(people.participants),
        "Input": "logarithms of L2 norms of each head's weights less those of series with the same "
        "autocorrelation and random phases (stat-normexcess), less means of parcels over heads and "
        "of heads over parcels, scaled to variance 1 in every participant, averaged over "
        "participants",
        "Components": {
            "share": "of the variance of the group's patterns",
            "agreement": "variance that averaging over participants leaves along the component; 1 "
            "in total where they agree in everything",
            "null_95": "95th percentile of agreement with random signs of participants",
            "p": "share of such signs with as much agreement, (k + 1) / (n + 1), not below that of "
            "an earlier component",
            "NumberOfPermutations": n_signs,
            "Limit": "participants also agree where parcels follow the story to unlike degrees, "
            "or share a response to it that the model does not hold",
            "reliability": "correlation of scores between halves of the participants",
        },
        "Associations": ASSOCIATIONS,
        "Covariates": list(covariates),
        "Inference": {
            "Test": "permutation of heads (within layers for rhowithin)",
            "NumberOfPermutations": settings.n_permutations,
            "Alternative": "two-sided",
            "Family": "all components and covariates",
            "Correction": "Benjamini-Hochberg",
            "NumberOfSignificant": n_significant,
        },
        "Seed": settings.seed,
        "Warnings": [few] if 1 < n < FEWEST_PARTICIPANTS else [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
