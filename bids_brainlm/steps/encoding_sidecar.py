"""The sidecars of encoding maps: what was fitted, how, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.numerics import controls, crossval, design, folds
from bids_brainlm.steps import encoding_columns, run_checks, significance
from bids_brainlm.steps.base import Job, made_by
from bids_brainlm.steps.encoding_runs import gap_in_trs

STATISTICS = {
    "r": "Pearson r of the main band's own prediction with the data, mean over folds",
    "rjoint": "Pearson r of the whole prediction with the data, mean over folds",
    "r2": "R2 of the whole prediction, pooled over folds; the mean of each test block is left out, "
    "since scaling over the run ties it to the training mean",
    "unique": "R2 of the joint model minus R2 of the refitted nuisance-only model",
    "p": "one-sided p of r, (k + 1) / (n + 1); Inference names the test",
    "pfwe": "p of the largest statistic over the parcels of a column (family-wise error)",
    "q": "p adjusted for the false discovery rate over the parcels of a column",
    "rthresholded": "r where q is at most the false discovery rate, else n/a",
}


def description(stat: str) -> str:
    """Say what a statistic is."""
    return STATISTICS.get(stat) or f"Pearson r of the band {stat[1:]} alone, mean over folds"


def describe(
    job: Job,
    labels: Sequence[str],
    tables: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
    leaks: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the part of the sidecars that all statistics of a run share.

    Parameters
    ----------
    job : Job
    labels : sequence of str
        Columns of the maps.
    tables : sequence of mapping
        Results of each column, see `encoding.run`.
    plan : Plan
        Folds, penalties and delays.
    bands : sequence of Band
        Nuisance bands and, where there is one, the model band of any column.
    leaks : mapping, optional
        The leakage audit, where the folds are not those of one story.

    Returns
    -------
    dict
    """
    unit = job.unit
    known = write.read_json(made_by(job, "parcels").record)
    source: dict[str, object] = {}
    if unit.feature != "nuisance":
        source = write.read_json(encoding_columns.source_of(job, str(unit.feature)).record)
    gap = float(job.settings["gap"])
    within = leaks is None
    leaks = run_checks.leakage(job, plan, source) if within else leaks
    return {
        "Story": unit.story,
        "Task": unit.task,
        "Participant": unit.participant,
        "Session": unit.session,
        "Run": unit.run,
        "Space": unit.space,
        "Atlas": unit.atlas,
        "FeatureSpace": unit.feature,
        "Columns": list(labels),
        "Model": source.get("Model"),
        "Pipeline": source.get("Pipeline"),
        "Bands": [_band(job, band) for band in bands],
        "Delays": list(plan.delays),
        "RepetitionTime": job.facts["tr"],
        "StartTime": known["StartTime"],
        "Folds": [
            {"Test": folds.ranges(fold.test), "Train": folds.ranges(fold.train)}
            for fold in plan.outer
        ],
        "Gap": {"Seconds": gap, "TRs": gap_in_trs(gap, float(job.facts["tr"]))},
        "Trim": list(job.settings["trim"]),
        "NumberOfRows": int(known["NumberOfVolumes"]),
        **_choices(job, labels, tables, plan, [band.name for band in bands]),
        "SilencePolicy": job.settings["silence"],
        "SelectionScore": job.settings["selection_score"],
        "Seed": job.settings["seed"],
        "Inference": _inference(job, labels, tables),
        "EmptyParcels": known["EmptyParcels"],
        "ContextBorders": source.get("ContextBorders"),
        "Leakage": leaks,
        "Warnings": [
            *known["Warnings"],
            *run_checks.leak_warnings(job, leaks),
            *(_warnings(job, source, plan) if within else ()),
        ],
        "Sources": [*known["Sources"], *job.facts["sources"]],
    }


def _warnings(job: Job, source: Mapping[str, object], plan: crossval.Plan) -> list[str]:
    """Return where context or autocorrelation can reach from training to test rows."""
    found = []
    borders = source.get("ContextBorders")
    starts = [int(fold.test[0]) for fold in plan.outer[1:]]
    if borders and list(borders) != starts:
        found.append(
            f"{job.unit.story}: the run is shorter than the story, so its folds begin at rows "
            f"{starts}, not at {borders}, where the model's context starts anew; text crosses "
            "from training to test rows."
        )
    if "oasm" in job.facts["spaces"]:
        made = write.read_json(encoding_columns.source_of(job, "oasm").record)
        needed = controls.oasm_gap(float(made["Sigma"]), plan.delays)
        tr = float(job.facts["tr"])
        gap = gap_in_trs(float(job.settings["gap"]), tr)
        if gap < needed:
            found.append(
                f"{job.unit.story}: the gap of {gap} TRs lets oasm reach from training to test "
                f"rows; a gap of {needed} TRs (--gap {needed * tr:g}) does not."
            )
    return found


def _band(job: Job, band: design.Band) -> dict[str, object]:
    """Describe a band; phones from a dictionary are marked."""
    found: dict[str, object] = {
        "Name": band.name,
        "NumberOfFeatures": int(band.features.shape[1]),
        "NumberOfRowsWithValues": int(band.valid.sum()),
    }
    if band.name in ("counts", "phonemes") and made_by(job, "words").facts["phones"] == "estimated":
        found["PhonesEstimated"] = True
    if band.name in job.facts["spaces"]:
        source = write.read_json(encoding_columns.source_of(job, band.name).record)
        kept = ("Model", "Pipeline", "Audio", "Sigma", "Recording", "Resampling")
        found.update({key: source[key] for key in kept if source.get(key) is not None})
    return found


def _choices(
    job: Job,
    labels: Sequence[str],
    tables: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    bands: Sequence[str],
) -> dict[str, object]:
    """Tell which penalties and band weights were tried and chosen."""
    chosen = {label: np.asarray(t["alphas"]) for label, t in zip(labels, tables, strict=True)}
    return {
        "Alphas": {
            "Tried": plan.alphas.tolist(),
            "Chosen": {label: counts.tolist() for label, counts in chosen.items()},
            "EdgeShare": {
                label: float((counts[0] + counts[-1]) / counts.sum()) if len(counts) > 1 else None
                for label, counts in chosen.items()
            },
        },
        **_degrees(labels, tables),
        "Gammas": {
            "NumberOfDraws": job.settings["n_iter"],
            "Seed": job.settings["seed"],
            "Mean": {
                label: dict(zip(bands, np.asarray(t["gammas"]).round(6).tolist(), strict=True))
                for label, t in zip(labels, tables, strict=True)
            },
        },
    }


def _degrees(
    labels: Sequence[str], tables: Sequence[Mapping[str, object]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Summarise the effective degrees of freedom over parcels and folds."""
    known = {label: t["df"] for label, t in zip(labels, tables, strict=True) if "df" in t}
    if not known:
        return {}
    names, shares = ("Median", "Low", "High"), (0.5, 0.05, 0.95)
    return {
        "EffectiveDegreesOfFreedom": {
            label: {
                name: round(float(np.quantile(df, share)), 2)
                for name, share in zip(names, shares, strict=True)
            }
            for label, df in known.items()
        }
    }


def _inference(
    job: Job, labels: Sequence[str], tables: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """Describe the test."""
    main = job.unit.feature != "nuisance"
    return {
        "Test": significance.NAMES[str(job.settings.get("null", "block"))],
        "Scored": "the model band's own prediction" if main else "the whole prediction",
        "BlockLength": tables[0]["block_length"],
        "NumberOfPermutations": job.settings["n_permutations"],
        "Alternative": "greater",
        "Family": "all features and parcels"
        if encoding_columns.is_each(job)
        else "parcels of one column",
        "Correction": "Benjamini-Hochberg",
        "FDR": job.settings["fdr"],
        "NumberOfSignificant": {
            label: t["significant"] for label, t in zip(labels, tables, strict=True)
        },
    }
