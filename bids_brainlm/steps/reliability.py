"""Further ceilings of a group beside leave-one-out ISC, and a test of ISC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import blas, ceilings, isc_tests, multiple
from bids_brainlm.steps import group_files
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, stamp
from bids_brainlm.steps.encoding_sidecar import gap_in_trs

NAME = "reliability"
VERSION = 2
MOST_DRAWS = 1000  # of resamples and permutations; each is a pass over all series
REPEATS = "repeat"
DESCRIPTIONS = {
    "splithalf": "correlation of the means of random halves of the participants, Spearman-Brown "
    "corrected to the whole group",
    "crosssubject": "r of each participant predicted from all parcels of all others by ridge, "
    "cross-validated in time, Fisher mean",
    REPEATS: "share of variance that comes back when a participant hears the story again, mean",
    "iscp": "one-sided p of the mean pairwise ISC, random phases of each participant's series",
    "iscq": "iscp adjusted for the false discovery rate over parcels",
    "iscpfwe": "p of the largest mean pairwise ISC over parcels (family-wise error)",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    n_bootstraps: int
    trim: tuple[int, int]
    cv: int
    inner_cv: int
    gap: float
    alphas: tuple[float, ...]
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    e, s = config.encoding, config.stats
    return Params(
        s.n_permutations, s.n_bootstraps, e.trim, e.cv, e.inner_cv, e.gap, e.alphas, e.seed
    )


def outputs(unit: Unit, names: Names, *, repeats: bool) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of splithalf)."""
    found = {}
    for stat in DESCRIPTIONS:
        if stat == REPEATS and not repeats:
            continue
        for ext in unit.map_extensions():
            if (stat, ext) != ("splithalf", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, {"stat": stat})
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"stat": "splithalf"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Compute the ceilings of several stories."""
    with blas.single_threaded():
        return each_job(jobs, lambda job: _write(job, settings), resources, "further ceilings")


def _write(job: Job, settings: Params) -> list[str]:
    """Write all maps of one story; return warnings."""
    found = group_files.find_runs(job)
    names, runs = found.names, found.all()
    people, series = group_files.stacked(runs, settings.trim)
    tables, warnings = _ceilings(job, series, settings)
    tables.update(_tests(series, settings))
    if f"{REPEATS}.tsv" in job.outputs:
        tables[REPEATS] = _repeats(runs, settings)
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"]).restrict(names)
    meta = {**_meta(job, settings, people, series), "Warnings": warnings}
    for stat, (values, more) in tables.items():
        paths = job.map_paths(stat)
        write_map(maps, paths, ["value"], values[:, None], more)
        if stat != "splithalf":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["splithalf"], "Statistic": "splithalf", **meta})
    return warnings


Table = tuple[np.ndarray, dict[str, np.ndarray] | None]


def _bounded(found: ceilings.Ceiling) -> Table:
    """Return a ceiling with its interval as a table's columns."""
    return found.value, {"ci_low": found.low, "ci_high": found.high}


def _ceilings(
    job: Job, series: np.ndarray, settings: Params
) -> tuple[dict[str, Table], list[str]]:
    """Return split-half and cross-subject ceilings, and warnings.

    A story that is too short for the folds has no cross-subject ceiling, and all else.
    """
    n_draws = min(settings.n_bootstraps, MOST_DRAWS)
    warnings: list[str] = []
    found = {
        "splithalf": _bounded(
            ceilings.split_half_ceiling(
                series, n_bootstraps=n_draws, rng=np.random.default_rng([settings.seed, 11])
            )
        )
    }
    try:
        across = ceilings.cross_subject_ceiling(
            series,
            n_folds=settings.cv,
            n_inner=settings.inner_cv,
            gap=gap_in_trs(settings.gap, float(job.facts["tr"])),
            alphas=settings.alphas,
        )
        found["crosssubject"] = _bounded(across)
    except NumericalError as error:
        none = np.full(series.shape[2], np.nan)
        found["crosssubject"] = (none, {"ci_low": none, "ci_high": none})
        warnings.append(f"{job.unit.story}: no cross-subject ceiling. {error.message}")
    return found, warnings


def _tests(series: np.ndarray, settings: Params) -> dict[str, Table]:
    """Test whether participants share anything, in every parcel."""
    found = isc_tests.isc_test(
        series,
        n_permutations=min(settings.n_permutations, MOST_DRAWS),
        rng=np.random.default_rng([settings.seed, 12]),
        statistic="pairwise",
    )
    return {
        "iscp": (found.p, None),
        "iscq": (multiple.benjamini_hochberg(found.p), None),
        "iscpfwe": (found.p_fwe, None),
    }


def _repeats(runs: dict[str, np.ndarray], settings: Params) -> Table:
    """Return explainable variance of participants who heard the story more than once."""
    of: dict[str, list[np.ndarray]] = {}
    for key, series in sorted(runs.items()):
        of.setdefault(key.split(":")[0], []).append(series)
    several = [own for own in of.values() if len(own) > 1]
    n_trs = min(len(one) for own in several for one in own)
    first, last = settings.trim[0], n_trs - settings.trim[1]
    found = ceilings.repeat_ceiling(
        [np.stack([one[first:last] for one in own]) for own in several],
        n_bootstraps=min(settings.n_bootstraps, MOST_DRAWS),
        rng=np.random.default_rng([settings.seed, 13]),
    )
    return _bounded(found)


def _meta(
    job: Job, settings: Params, people: Sequence[str], series: np.ndarray
) -> dict[str, object]:
    """Describe the ceilings."""
    return {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "FeatureSpace": "reliability",
        "Participants": list(people),
        "NumberOfParticipants": len(people),
        "NumberOfRows": int(series.shape[1]),
        "Trim": list(settings.trim),
        "Interval": "95 %, bootstrap over participants (of the whole statistic); crosssubject: "
        "jackknife over groups of participants; none for 5 participants or fewer",
        "Inference": {
            "Test": "phase randomisation of each participant's series, mean pairwise ISC",
            "NumberOfPermutations": min(settings.n_permutations, MOST_DRAWS),
            "Alternative": "greater",
            "Family": "parcels",
            "Correction": "Benjamini-Hochberg",
        },
        "Seed": settings.seed,
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
