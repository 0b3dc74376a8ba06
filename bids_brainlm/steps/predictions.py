"""Held-out predictions of encoding models: written by one step, read by others.

A helper of the encoding steps, not a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.numerics import crossval
from bids_brainlm.steps.base import stamp
from bids_brainlm.steps.encoding_runs import Person

STAT = "prediction"
DESCRIPTION = (
    "held-out prediction of the main band's own part, in units of the z-scored series; rows are "
    "the test rows of all folds in order"
)


def is_wanted(person: Person) -> bool:
    """Tell whether a run's predictions are to be kept."""
    return f"{STAT}.nc" in person.job.outputs


def save(
    person: Person,
    labels: Sequence[str],
    predicted: Sequence[np.ndarray],
    plan: crossval.Plan,
    meta: Mapping[str, object],
) -> None:
    """Write the predictions of one run, float32.

    Parameters
    ----------
    person : Person
    labels : sequence of str
        Columns of the maps.
    predicted : sequence of array, shape (n_test, n_kept_parcels)
        One a column; the test rows of the folds, in order.
    plan : Plan
    meta : mapping
        What the sidecars of the run share.
    """
    import xarray

    job = person.job
    rows = np.concatenate([fold.test for fold in plan.outer])
    folds = np.concatenate([np.full(len(f.test), k) for k, f in enumerate(plan.outer)])
    values = np.stack([person.spread(p.T).T for p in predicted]).astype(np.float32)
    made = xarray.Dataset(
        {STAT: (("column", "row", "parcel"), values)},
        coords={
            "column": list(labels),
            "tr": ("row", rows.astype(np.int32)),
            "fold": ("row", folds.astype(np.int32)),
        },
    )
    write.write_netcdf(job.outputs[f"{STAT}.nc"], made)
    described = {"Description": DESCRIPTION, "Statistic": STAT, **meta}
    write.write_json(job.outputs[f"{STAT}.json"], {**described, **stamp(job)})


def load(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Read predictions.

    Parameters
    ----------
    path : Path

    Returns
    -------
    columns : list of str
    rows : array of int, shape (n_rows,)
        TR of each row.
    fold : array of int, shape (n_rows,)
        Outer fold of each row.
    values : array, shape (n_columns, n_rows, n_parcels)
        NaN for parcels without a series.
    """
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf") as stored:
        values = stored[STAT].to_numpy().astype(np.float64)
        columns = [str(c) for c in stored["column"].to_numpy()]
        return columns, stored["tr"].to_numpy(), stored["fold"].to_numpy(), values
