"""Find the runs of a raw BIDS dataset, quickly and without a data base."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.bidsio.jsons import parse_object
from bids_brainlm.bidsio.names import ParsedName, parse_entities
from bids_brainlm.errors import DataError, DatasetError, MissingInputError, TimingError

log = logging.getLogger(__name__)

RunKey = tuple[str, str | None, str, str | None]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which labels to take; labels without prefix, empty means all.

    A label matches when it is equal, never when it is a part: ``pieman`` does not select
    ``piemanpni``, ``1`` does not select ``01``.
    """

    participants: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        participants: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        runs: Iterable[str] | None = None,
    ) -> Filters:
        """Make filters from labels with or without prefix (``sub-01`` or ``01``)."""
        given = (("sub-", participants), ("ses-", sessions), ("task-", tasks), ("run-", runs))
        return cls(*(frozenset(x.removeprefix(p) for x in (labels or ())) for p, labels in given))

    def match(self, participant: str, session: str | None, task: str, run: str | None) -> bool:
        """Tell whether a run is selected."""
        pairs = (
            (self.participants, participant),
            (self.sessions, session),
            (self.tasks, task),
            (self.runs, run),
        )
        return all(not wanted or label in wanted for wanted, label in pairs)


@dataclass(frozen=True, slots=True)
class RawRun:
    """A run of the raw dataset; its files are not read yet.

    ``sidecar_paths`` are the JSON files that apply to the BOLD image, the most specific last.
    ``bold_path`` may be a link without content, or None.
    """

    participant: str
    session: str | None
    task: str
    run: str | None
    events_path: Path | None
    sidecar_paths: tuple[Path, ...]
    bold_path: Path | None

    @property
    def key(self) -> RunKey:
        """What identifies the run: participant, session, task, run."""
        return self.participant, self.session, self.task, self.run

    @property
    def name(self) -> str:
        """The run in words, as in its file names."""
        return run_name(self.key)


@dataclass(frozen=True, slots=True)
class Event:
    """A row of events.tsv; times in s from the first volume, None where the cell is n/a."""

    onset: float
    duration: float
    trial_type: str | None
    stim_file: str | None


def run_name(key: RunKey) -> str:
    """Return ``sub-.._ses-.._task-.._run-..`` for a run key."""
    parts = zip(("sub", "ses", "task", "run"), key, strict=True)
    return "_".join(f"{prefix}-{label}" for prefix, label in parts if label is not None)


def check_dataset(bids_dir: Path) -> dict[str, object]:
    """Return the dataset description after checking that the folder is a BIDS dataset.

    Raises
    ------
    DatasetError
        The folder or its dataset_description.json is missing, is not JSON, or lacks
        ``Name`` or ``BIDSVersion``.
    """
    path = bids_dir / "dataset_description.json"
    if not bids_dir.is_dir():
        raise DatasetError(f"BIDS_DIR {bids_dir}: found no such folder, expected a BIDS dataset.")
    if not path.is_file():
        raise DatasetError(f"{bids_dir} is not a BIDS dataset: expected {path.name}, found none.")
    try:
        content = parse_object(path, path.read_bytes())
    except DataError as error:
        raise DatasetError(error.message) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    missing = [key for key in ("Name", "BIDSVersion") if not content.get(key)]
    if missing:
        raise DatasetError(
            f"{path}: expected the fields Name and BIDSVersion, "
            f"found no {' and no '.join(missing)}.",
            hint=f"Add {' and '.join(missing)} to dataset_description.json.",
        )
    return content


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder sorted by name, without hidden and junk files."""
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise MissingInputError(
            f"{folder} cannot be read: {error.strerror}.",
            hint="Change the permissions of the folder, or run as a user who may read it.",
        ) from error
    return sorted(kept, key=lambda entry: entry.name)


def subfolders(folder: Path, prefix: str, wanted: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Yield label and path of the folders ``<prefix><label>`` whose label is wanted."""
    for entry in scan(folder):
        label = entry.name.removeprefix(prefix)
        if (
            entry.name.startswith(prefix)
            and label
            and (not wanted or label in wanted)
            and entry.is_dir()
        ):
            yield label, Path(entry.path)


def func_folders(root: Path, filters: Filters) -> Iterator[tuple[str, str | None, list[Path]]]:
    """Yield participant, session, and the folders from the root down to ``func``."""
    for participant, folder in subfolders(root, "sub-", filters.participants):
        if not filters.sessions and (folder / "func").is_dir():
            yield participant, None, [root, folder, folder / "func"]
        for session, inner in subfolders(folder, "ses-", filters.sessions):
            if (inner / "func").is_dir():
                yield participant, session, [root, folder, inner, inner / "func"]


Listing = tuple[tuple[ParsedName, Path], ...]


def listing(folder: Path) -> Listing:
    """Return the parsed names and the paths of the files of a folder, sorted by name."""
    return tuple((parse_entities(entry.name), Path(entry.path)) for entry in scan(folder))


def find_events(bids_dir: Path, filters: Filters | None = None) -> list[RawRun]:
    """Find the runs of a raw dataset.

    Parameters
    ----------
    bids_dir : Path
        The raw dataset.
    filters : Filters, optional
        Labels to take; the default is everything.

    Returns
    -------
    list of RawRun
        Sorted by participant, session, task and run. Runs that have an events file or an
        image. Events files are found by the inheritance principle and are not opened.
    """
    filters = filters or Filters()
    runs = []
    root_files = _only(listing(bids_dir))
    for participant, session, folders in func_folders(bids_dir, filters):
        levels = [root_files, *(_only(listing(folder)) for folder in folders[1:])]
        runs.extend(_runs_of_folder(participant, session, levels, filters))
    return sorted(runs, key=lambda run: tuple(label or "" for label in run.key))


def _only(files: Listing) -> Listing:
    """Keep what can describe or be a BOLD run."""
    return tuple(item for item in files if item[0].suffix in ("bold", "events"))


def _runs_of_folder(
    participant: str, session: str | None, levels: Sequence[Listing], filters: Filters
) -> Iterator[RawRun]:
    """Yield the runs whose files lie in the last level (one func folder)."""
    found: dict[RunKey, dict[str, str]] = {}
    images: dict[RunKey, Path] = {}
    for parsed, path in levels[-1]:
        labels = parsed.entities
        if labels.get("sub") != participant or labels.get("ses") != session or "task" not in labels:
            continue
        key = (participant, session, labels["task"], labels.get("run"))
        if not filters.match(*key):
            continue
        found.setdefault(key, labels)
        if parsed.extension in (".nii.gz", ".nii"):
            images.setdefault(key, path)
    for key, labels in found.items():
        events = applicable(levels, labels, "events", ".tsv")
        sidecars = applicable(levels, labels, "bold", ".json")
        yield RawRun(*key, events[-1] if events else None, sidecars, images.get(key))


def applicable(
    levels: Sequence[Listing], labels: dict[str, str], suffix: str, extension: str
) -> tuple[Path, ...]:
    """Return the files that apply to a run by the inheritance principle, most specific last.

    A file applies when its suffix and extension fit and all its entities are those of the run.
    """
    paths: list[Path] = []
    for files in levels:
        fitting = [
            (len(parsed.entities), path)
            for parsed, path in files
            if parsed.suffix == suffix
            and parsed.extension == extension
            and all(labels.get(key) == value for key, value in parsed.entities.items())
        ]
        paths.extend(path for _, path in sorted(fitting))
    return tuple(paths)


def read_sidecars(paths: Iterable[Path]) -> dict[str, object]:
    """Return the merged content of JSON sidecars; later files win.

    Raises
    ------
    DataError
        A file is not a JSON object.
    """
    merged: dict[str, object] = {}
    for path in paths:
        try:
            merged |= parse_object(path, path.read_bytes())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return merged


def repetition_time(run: RawRun) -> float:
    """Return the TR of a run in s, from its sidecars.

    Raises
    ------
    TimingError
        No sidecar states a positive ``RepetitionTime``.
    """
    value = read_sidecars(run.sidecar_paths).get("RepetitionTime")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value < 60:
        where = ", ".join(path.name for path in run.sidecar_paths) or "no sidecar at all"
        raise TimingError(
            f"{run.name}: expected RepetitionTime in s in {run.name}_bold.json or a file it "
            f"inherits from, found {value!r} ({where}).",
            hint="Add RepetitionTime to the sidecar, or leave the run out with --run-label.",
        )
    return float(value)


def read_events(path: Path) -> tuple[Event, ...]:
    """Read an events.tsv.

    Returns
    -------
    tuple of Event
        In the order of the file.

    Raises
    ------
    TimingError
        The file lacks the columns onset and duration, or a time is not a number.
    MissingInputError
        The file cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MissingInputError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = text.splitlines()[0].split("\t") if text.strip() else []
    missing = [column for column in ("onset", "duration") if column not in header]
    if missing:
        found = f"{header!s:.200}" if header else "an empty file"
        raise TimingError(
            f"{path}: expected the columns onset and duration (tab separated), found {found}."
        )
    return tuple(_event(path, number, row) for number, row in enumerate(rows, start=2))


def _event(path: Path, number: int, row: dict[str, str | None]) -> Event:
    """Make an event from a row; ``number`` is the line in the file."""
    times = []
    for column in ("onset", "duration"):
        cell = row.get(column)
        try:
            times.append(float(cell or ""))
        except ValueError:
            times.append(math.nan)
        is_story = row.get("trial_type") in (None, "story", "music")
        if not math.isfinite(times[-1]) and (is_story or column == "onset"):
            raise TimingError(f"{path}, line {number}: expected {column} in s, found {cell!r}.")
    return Event(times[0], times[1], _cell(row.get("trial_type")), _cell(row.get("stim_file")))


def _cell(text: str | None) -> str | None:
    """Return a cell, or None for n/a and empty."""
    text = (text or "").strip()
    return None if text in ("", "n/a") else text


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Read participants.tsv as it is written.

    Parameters
    ----------
    path : Path
        May be missing: the result is then empty.

    Returns
    -------
    dict
        Label without ``sub-`` to column to text. Cells are never interpreted: Narratives
        writes comma-joined lists, one element a task.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    header = lines[0].split("\t") if lines else []
    if "participant_id" not in header:
        return {}
    table = {}
    for line in lines[1:]:
        cells = dict(zip(header, line.split("\t"), strict=False))
        label = cells.pop("participant_id", "").strip().removeprefix("sub-")
        if label:
            table[label] = cells
    return table
