"""The sidecars of encoding maps: what was fitted, how, and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.numerics import crossval, design, folds
from bids_brainlm.steps import encoding_columns
from bids_brainlm.steps.base import Job, made_by

STATISTICS = {
    "r": "Pearson r of the main band's own prediction with the data, mean over folds",
    "rjoint": "Pearson r of the whole prediction with the data, mean over folds",
    "r2": "R2 of the whole prediction against the training mean, pooled over folds",
    "unique": "R2 of the joint model minus R2 of the refitted nuisance-only model",
    "p": "one-sided p of r, block permutation of held-out predictions, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over the parcels of a column",
    "rthresholded": "r where q is at most the false discovery rate, else n/a",
}


def description(stat: str) -> str:
    """Say what a statistic is."""
    return STATISTICS.get(stat) or f"Pearson r of the band {stat[1:]} alone, mean over folds"


def gap_in_trs(gap: float, tr: float) -> int:
    """Return a gap in s as whole TRs, rounded up."""
    return math.ceil(gap / tr - 1e-9)


def describe(
    job: Job,
    labels: Sequence[str],
    tables: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
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
        "Warnings": known["Warnings"],
        "Sources": known["Sources"],
    }


def _band(job: Job, band: design.Band) -> dict[str, object]:
    """Describe a band; phones from a dictionary are marked."""
    found: dict[str, object] = {
        "Name": band.name,
        "NumberOfFeatures": int(band.features.shape[1]),
        "NumberOfRowsWithValues": int(band.valid.sum()),
    }
    if band.name in ("counts", "phonemes") and made_by(job, "words").facts["phones"] == "estimated":
        found["PhonesEstimated"] = True
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
        "Gammas": {
            "NumberOfDraws": job.settings["n_iter"],
            "Seed": job.settings["seed"],
            "Mean": {
                label: dict(zip(bands, np.asarray(t["gammas"]).round(6).tolist(), strict=True))
                for label, t in zip(labels, tables, strict=True)
            },
        },
    }


def _inference(
    job: Job, labels: Sequence[str], tables: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """Describe the test."""
    main = job.unit.feature != "nuisance"
    return {
        "Test": "block permutation of held-out predictions",
        "Scored": "the model band's own prediction" if main else "the whole prediction",
        "BlockLength": tables[0]["block_length"],
        "NumberOfPermutations": job.settings["n_permutations"],
        "Alternative": "greater",
        "Family": "parcels of one column",
        "Correction": "Benjamini-Hochberg",
        "FDR": job.settings["fdr"],
        "NumberOfSignificant": {
            label: t["significant"] for label, t in zip(labels, tables, strict=True)
        },
    }
