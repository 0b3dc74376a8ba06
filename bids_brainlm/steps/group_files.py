"""Maps of all participants of a group, as the group steps read them.

A helper of the group steps, not a step. Keys of ``job.files`` are
``<prefix>:<participant>:<session>:<run>``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map, rows_of, shared_names
from bids_brainlm.errors import DataError
from bids_brainlm.steps import regions
from bids_brainlm.steps.base import Job


@dataclass(frozen=True)
class People:
    """One statistic of all participants.

    ``values`` has shape (n_participants, n_parcels or n_regions, n_columns), Fisher z for
    correlations; runs of one participant are averaged.
    """

    participants: list[str]
    names: list[str]
    columns: list[str]
    values: np.ndarray

    def of(self, participants: list[str]) -> np.ndarray:
        """Return the values of some participants, in their order."""
        return self.values[[self.participants.index(one) for one in participants]]


def read_people(job: Job, prefix: str, *, correlations: bool) -> People:
    """Read one statistic of all participants.

    Parameters
    ----------
    job : Job
    prefix : str
        Before the first colon of the keys of its files.
    correlations : bool
        Whether the values are correlations, which become Fisher z.

    Returns
    -------
    People
        Averaged over the parcels of each region where the job is about regions.

    Raises
    ------
    DataError
        Columns or atlases differ.
    """
    found = {
        key.removeprefix(f"{prefix}:"): (path, *read_map(path)[1:])
        for key, path in job.files.items()
        if key.startswith(f"{prefix}:")
    }
    columns = next(iter(found.values()))[2]
    for path, _, own, _ in found.values():
        if own != columns:
            raise DataError(
                f"{path} has the columns {' '.join(own)}, the others have {' '.join(columns)}; "
                "expected the same.",
                hint="Run the participant level with the same --layers for all (--overwrite).",
            )
    names = shared_names(
        [entry[1] for entry in found.values()], str(job.unit), voxelwise=job.unit.is_everywhere
    )
    runs: dict[str, list[np.ndarray]] = defaultdict(list)
    for key, (_, own, _, values) in found.items():
        kept = values if own == names else values[rows_of(own, names)]
        own_names, averaged = regions.average(job, names, fisher_z(kept) if correlations else kept)
        runs[key.split(":")[0]].append(averaged)
    people = sorted(runs)
    return People(people, own_names, columns, np.stack([np.mean(runs[p], axis=0) for p in people]))


def read_runs(job: Job) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read the parcel series of all runs, cut to the parcels that all have.

    Parameters
    ----------
    job : Job
        Its files are ``series:<person>`` and ``labels:<person>``.

    Returns
    -------
    names : list of str
        Of the parcels; voxelwise those in all brain masks.
    series : dict of str to array, shape (n_trs of the run, n_parcels)
        By ``<participant>:<session>:<run>``.
    """
    keys = [name.removeprefix("series:") for name in job.files if name.startswith("series:")]
    labels = {k: write.read_tsv(job.files[f"labels:{k}"])["name"] for k in keys}
    names = shared_names(list(labels.values()), str(job.unit), voxelwise=job.unit.is_everywhere)
    found = {}
    for key in keys:
        series = _read_series(job.files[f"series:{key}"])
        found[key] = series if labels[key] == names else series[:, rows_of(labels[key], names)]
    return names, found


def stacked(runs: dict[str, np.ndarray], trim: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Put the series of all participants together, cut to common rows.

    Parameters
    ----------
    runs : dict of str to array, shape (n_trs of the run, n_parcels)
        From `read_runs`.
    trim : tuple of int
        Rows left out at start and end.

    Returns
    -------
    participants : list of str
    series : array, shape (n_participants, n_trs, n_parcels)
        Runs of one participant are averaged; trimmed as in the encoding models.
    """
    of: dict[str, list[np.ndarray]] = defaultdict(list)
    for key, series in runs.items():
        of[key.split(":")[0]].append(series)
    n_trs = min(len(one) for several in of.values() for one in several)
    participants = sorted(of)
    means = np.stack([np.mean([one[:n_trs] for one in of[p]], axis=0) for p in participants])
    return participants, means[:, trim[0] : n_trs - trim[1]]


def _read_series(path: Path) -> np.ndarray:
    """Read one series, shape (n_trs, n_parcels)."""
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as stored:
            return stored["series"].to_numpy()
    return write.read_matrix_tsv(path)[1]


def fisher_z(values: np.ndarray) -> np.ndarray:
    """Return Fisher z of correlations, any shape; those near 1 are limited."""
    return np.arctanh(np.clip(values, -0.999999, 0.999999))


def read_accuracy(path: Path, heads: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Read what heads decode.

    Parameters
    ----------
    path : Path
        Table of the decoding step.
    heads : sequence of str
        Names of the heads, such as ``L01H01``.

    Returns
    -------
    values : array, shape (n_heads, n_labels)
        Balanced accuracies in the order of the heads; NaN where a label was not decoded.
    labels : list of str

    Raises
    ------
    DataError
        The table has a head that is not among ``heads``.
    """
    table = write.read_tsv(path)
    labels = list(dict.fromkeys(table["label"]))
    place = {head: k for k, head in enumerate(heads)}
    values = np.full((len(heads), len(labels)), np.nan)
    rows = zip(table["layer"], table["head"], table["label"], table["accuracy"], strict=True)
    for layer, head, label, accuracy in rows:
        name = f"L{int(layer):02d}H{int(head):02d}"
        if name not in place:
            raise DataError(
                f"{path.name} has the head {name}, which the maps do not have; expected the heads "
                "of one model.",
                hint="Make both anew with the same --model (--overwrite).",
            )
        if accuracy != "n/a":
            values[place[name], labels.index(label)] = float(accuracy)
    return values, labels
