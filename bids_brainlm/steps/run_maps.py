"""Maps of one run, one a statistic, with their sidecars.

A helper of the steps that make maps, not a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.steps.base import Job, finish, made_by, stamp


def write_run_maps(
    job: Job,
    values: Mapping[str, tuple[Sequence[str], np.ndarray]],
    meta: Mapping[str, object],
    description: Callable[[str], str],
    first: str,
) -> None:
    """Write all maps of a run and their sidecars, the record last.

    Parameters
    ----------
    job : Job
        Its outputs are ``<stat>.tsv``, ``<stat>.json`` and the images, see `Job.map_paths`.
    values : mapping of str to (labels, array of shape (n_parcels, n_columns))
        By statistic; NaN in empty parcels.
    meta : mapping
        What the sidecars share.
    description : callable
        Says what a statistic is.
    first : str
        The statistic whose sidecar is the record.
    """
    parcels = made_by(job, "parcels")
    maps = MapSet.read(parcels.outputs["label_nii"], parcels.outputs["label_tsv"])
    for stat, (labels, table) in values.items():
        paths = job.map_paths(stat)
        write_map(maps, paths, labels, table)
        if stat != first:
            shared = {**meta, "Columns": list(labels)}
            described = {"Description": description(stat), "Statistic": stat, **shared}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": description(first), "Statistic": first, **meta})
