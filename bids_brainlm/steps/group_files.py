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

PIECE = 256  # parcels, a multiple of what `numerics.isc` takes at once
EVERYTHING = slice(None)


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
    found: dict[str, tuple[Path, list[str], list[str], np.ndarray]] = {}
    several: list[list[str]] = []
    for key, path in job.files.items():
        if key.startswith(f"{prefix}:"):
            _, own, labels, values = read_map(path)
            several.append(_same(own, several))
            found[key.removeprefix(f"{prefix}:")] = (path, several[-1], labels, values)
    columns = next(iter(found.values()))[2]
    for path, _, own, _ in found.values():
        if own != columns:
            raise DataError(
                f"{path} has the columns {' '.join(own)}, the others have {' '.join(columns)}; "
                "expected the same.",
                hint="Run the participant level with the same --layers for all (--overwrite).",
            )
    names = shared_names(several, str(job.unit), voxelwise=job.unit.is_everywhere)
    runs: dict[str, list[np.ndarray]] = defaultdict(list)
    for key, (_, own, _, values) in found.items():
        kept = values if own == names else values[rows_of(own, names)]
        own_names, averaged = regions.average(job, names, fisher_z(kept) if correlations else kept)
        runs[key.split(":")[0]].append(averaged)
    people = sorted(runs)
    return People(people, own_names, columns, np.stack([np.mean(runs[p], axis=0) for p in people]))


@dataclass(frozen=True)
class Runs:
    """Where the series of all runs of a story are; they are read when asked for.

    Attributes
    ----------
    names : list of str
        Of the parcels that all have; voxelwise those in all brain masks.
    paths : dict of str to Path
        By ``<participant>:<session>:<run>``.
    rows : dict of str to array of int, shape (n_parcels,), or None
        Columns of each run's file that hold the named parcels; None: all as they are.
    """

    names: list[str]
    paths: dict[str, Path]
    rows: dict[str, np.ndarray | None]

    def read(self, key: str, some: slice = EVERYTHING) -> np.ndarray:
        """Read some parcels of one run, shape (n_trs of the run, n_parcels)."""
        if self.rows[key] is None:
            return _read_series(self.paths[key], some)
        rows = self.rows[key][some]
        first = int(rows.min())  # a span and then a choice: HDF5 is slow with many single columns
        return _read_series(self.paths[key], slice(first, int(rows.max()) + 1))[:, rows - first]

    def all(self, some: slice = EVERYTHING) -> dict[str, np.ndarray]:
        """Read some parcels of all runs, each as `read` does."""
        return {key: self.read(key, some) for key in self.paths}

    def pieces(self, n_bytes: float) -> list[slice]:
        """Cut the parcels into pieces whose series take so many bytes together, or little more.

        Only voxelwise series, which can be read in part, are cut. The size of a piece is a
        multiple of the parcels that are correlated at once, so that pieces change no bit of a
        result.
        """
        n_parcels, first = len(self.names), next(iter(self.paths.values()))
        if first.suffix != ".nc":
            return [slice(0, n_parcels)]
        of_one = _read_series(first, slice(0, 1)).nbytes * len(self.paths)
        at_once = max(1, int(n_bytes / of_one) // PIECE) * PIECE
        starts = range(0, n_parcels, at_once)
        return [slice(start, min(start + at_once, n_parcels)) for start in starts]


def find_runs(job: Job) -> Runs:
    """Find the parcel series of all runs, cut to the parcels that all have.

    Parameters
    ----------
    job : Job
        Its files are ``series:<person>`` and ``labels:<person>``.

    Returns
    -------
    Runs

    Raises
    ------
    DataError
        Atlases differ, or no voxel is in all brain masks.
    """
    keys = [name.removeprefix("series:") for name in job.files if name.startswith("series:")]
    several: list[list[str]] = []
    known: dict[str, list[str]] = {}  # most have the same table
    for key in keys:
        table = job.files[f"labels:{key}"]
        content = write.sha256_file(table)
        if content not in known:
            known[content] = _same(write.read_tsv(table)["name"], several)
        several.append(known[content])
    names = shared_names(several, str(job.unit), voxelwise=job.unit.is_everywhere)
    rows = [None if own == names else rows_of(own, names) for own in several]
    paths = {key: job.files[f"series:{key}"] for key in keys}
    return Runs(names, paths, dict(zip(keys, rows, strict=True)))


def _same(names: list[str], several: Sequence[list[str]]) -> list[str]:
    """Return an equal list that is there already, so that a study holds each only once."""
    return next((known for known in several[:1] + several[-1:] if known == names), names)


def stacked(runs: dict[str, np.ndarray], trim: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Put the series of all participants together, cut to common rows.

    Parameters
    ----------
    runs : dict of str to array, shape (n_trs of the run, n_parcels)
        From `Runs.all`.
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
    means = np.stack([_average([one[:n_trs] for one in of[p]]) for p in participants])
    return participants, means[:, trim[0] : n_trs - trim[1]]


def _average(runs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of some runs; of one run nothing is copied."""
    return np.mean(runs, axis=0) if len(runs) > 1 else runs[0]


def _read_series(path: Path, some: slice) -> np.ndarray:
    """Read some parcels of one series, shape (n_trs, n_parcels)."""
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as stored:
            return stored["series"][:, some].to_numpy()
    return write.read_matrix_tsv(path)[1][:, some]


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
