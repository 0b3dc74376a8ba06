"""Regions of interest at the group level: parcels of a region are averaged as they are read.

A job that has ``facts["regions"]`` is about regions, not parcels. This is a helper of the group
steps, not a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.bidsio.maps import MapSet
from bids_brainlm.steps.base import Job

ENDING = "Rois"
"""Behind an atlas in names of files that are about regions made of its parcels."""


def facts_of(
    names: Sequence[str], colours: Sequence[str], members: Sequence[Sequence[str]]
) -> list[dict[str, object]]:
    """Return regions as a job's facts keep them: name, colour and parcels of each."""
    triples = zip(names, colours, members, strict=True)
    return [{"Name": n, "Colour": c, "Parcels": list(m)} for n, c, m in triples]


def average(job: Job, parcels: Sequence[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Average the parcels of each region, if the job is about regions.

    Parameters
    ----------
    job : Job
    parcels : sequence of str
    values : array, shape (n_parcels, n_columns)
        Fisher z for correlations, so that means are Fisher means.

    Returns
    -------
    names : list of str
        Of the regions, or of the parcels where there are no regions.
    values : array, shape (n_regions, n_columns)
        Mean over the region's parcels that have a value; NaN where none has.
    """
    found = job.facts.get("regions")
    if found is None:
        return list(parcels), values
    place = {name: k for k, name in enumerate(parcels)}
    means = []
    for region in found:
        rows = [place[name] for name in region["Parcels"] if name in place]
        own = values[rows]
        count = np.isfinite(own).sum(axis=0)
        total = np.where(np.isfinite(own), own, 0.0).sum(axis=0)
        means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return [str(region["Name"]) for region in found], np.stack(means)


def map_set(job: Job, names: Sequence[str]) -> MapSet:
    """Return what maps are painted on: the named parcels, or the regions.

    Parameters
    ----------
    job : Job
        Its files hold the atlas on the grid: ``label_nii`` and ``label_tsv``.
    names : sequence of str
        Of the parcels, or of the regions.

    Returns
    -------
    MapSet
    """
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"])
    found = job.facts.get("regions")
    if found is None:
        return maps.restrict(names)
    return maps.merge([str(region["Name"]) for region in found], [r["Parcels"] for r in found])


def describe(job: Job) -> dict[str, object]:
    """Return the part of a sidecar that names the regions; empty where there are none."""
    found = job.facts.get("regions")
    return {} if found is None else {"Regions": found}
