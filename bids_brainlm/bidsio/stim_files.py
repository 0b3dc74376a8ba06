"""Continuous recordings of the stimulus that a dataset brings: find and read them."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio.bold import is_present, require_present
from bids_brainlm.bidsio.dataset import (
    Filters,
    Listing,
    applicable,
    func_folders,
    listing,
    read_sidecars,
)
from bids_brainlm.bidsio.names import Names, ParsedName, parse_entities
from bids_brainlm.errors import ConfigError, DataError

log = logging.getLogger(__name__)

MAX_BYTES = 512 << 20  # of decompressed text
MAX_COLUMNS = 20_000
_CHUNK = 1 << 20
_LONGEST_LINE = 4 << 20  # bytes
_HINT = "Mend the file, or leave stim-RECORDING out of --features and --bands."


@dataclass(frozen=True, slots=True)
class StimFile:
    """A stimulus recording of the dataset.

    ``label`` is the value of the entity ``task``: a task or a story. ``recording`` is empty
    where the name has none. ``participant``, ``session`` and ``run`` are None where the file
    belongs to all. ``clock`` is ``run`` where its times count from the first volume of the
    run, ``audio`` where they count from the start of the stimulus file (``stimuli/``).
    """

    path: Path
    present: bool
    label: str
    recording: str
    participant: str | None
    session: str | None
    run: str | None
    clock: str


@dataclass(frozen=True, slots=True)
class StimTable:
    """A recording as it is written.

    ``values`` is float64 of shape (n_samples, n_columns), NaN for ``n/a``; ``start_time`` in s
    of the first sample, ``sampling_frequency`` in Hz. ``empty`` are columns without any value,
    ``constant`` those with one value only.
    """

    columns: tuple[str, ...]
    values: np.ndarray
    start_time: float
    sampling_frequency: float
    path: Path
    empty: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()


def find_stims(
    bids_dir: Path,
    labels: Iterable[str],
    recording: str | None = None,
    *,
    filters: Filters | None = None,
    shared_only: bool = False,
) -> list[StimFile]:
    """Find stimulus recordings.

    Parameters
    ----------
    bids_dir : Path
        The raw dataset.
    labels : iterable of str
        Tasks and stories to take, without ``task-``; a label matches when it is equal.
    recording : str, optional
        Name of the recording; the default is every one.
    filters : Filters, optional
        Participants and sessions whose ``func`` folders are read.
    shared_only : bool
        Read no ``func`` folder: only files that belong to all participants.

    Returns
    -------
    list of StimFile
        From the dataset's root, ``stimuli/`` and the ``func`` folders, in this order, sorted
        by name within a folder.
    """
    filters = filters or Filters()
    wanted = frozenset(label.removeprefix("task-") for label in labels)
    places = [(bids_dir, "run", None, None), (bids_dir / "stimuli", "audio", None, None)]
    for participant, session, folders in [] if shared_only else func_folders(bids_dir, filters):
        places.append((folders[-1], "run", participant, session))
    found = []
    for folder, clock, participant, session in places:
        for parsed, path in listing(folder):
            names = parsed.entities
            if (
                _is_stim(parsed)
                and names["task"] in wanted
                and (recording is None or names.get("recording", "") == recording)
                and (names.get("sub"), names.get("ses")) == (participant, session)
                and (not filters.runs or names.get("run") in (None, *filters.runs))
            ):
                found.append(_stim_file(parsed, path, clock))
    return found


def _is_stim(parsed: ParsedName) -> bool:
    """Tell whether a name is that of a stimulus recording."""
    return parsed.suffix == "stim" and parsed.extension == ".tsv.gz" and "task" in parsed.entities


def _stim_file(parsed: ParsedName, path: Path, clock: str) -> StimFile:
    """Make the record of a file."""
    names = parsed.entities
    return StimFile(
        path,
        is_present(path),
        names["task"],
        names.get("recording", ""),
        names.get("sub"),
        names.get("ses"),
        names.get("run"),
        clock,
    )


def choose(
    stims: Sequence[StimFile],
    recording: str,
    *,
    labels: Sequence[str] = (),
    participant: str | None = None,
    session: str | None = None,
    run: str | None = None,
) -> StimFile | None:
    """Return the file of a recording that applies to a run, the most specific one.

    Parameters
    ----------
    stims : sequence of StimFile
        From `find_stims`.
    recording : str
        Name of the recording.
    labels : sequence of str
        Tasks and stories, the best first: a file of a later one is taken only where no file
        of an earlier one applies. Without any, all files count alike.
    participant, session, run : str, optional
        The run. Without a participant only files that belong to all apply.

    Returns
    -------
    StimFile or None
        None where no file applies.

    Raises
    ------
    ConfigError
        Several files apply that are equally specific.
    """
    key = (participant, session, run)
    fitting: dict[tuple[int, int], list[StimFile]] = {}
    for stim in stims:
        own = (stim.participant, stim.session, stim.run)
        applies = all(a is None or a == b for a, b in zip(own, key, strict=True))
        if stim.recording != recording or not applies or (labels and stim.label not in labels):
            continue
        place = labels.index(stim.label) if labels else 0
        fitting.setdefault((-place, sum(a is not None for a in own)), []).append(stim)
    if not fitting:
        return None
    best = fitting[max(fitting)]
    if len(best) > 1:
        names = "\n".join(f"  {stim.path}" for stim in best)
        raise ConfigError(
            f"The recording {recording!r}: expected one file, found {len(best)} that apply "
            f"equally:\n{names}",
            hint="Keep one of them, or give them different recording names.",
        )
    return best[0]


def read_stim(path: Path) -> StimTable:
    """Read a stimulus recording and the JSON files that apply to it.

    Parameters
    ----------
    path : Path
        A compressed table without a header.

    Returns
    -------
    StimTable

    Raises
    ------
    MissingInputError
        The file is missing, or a git-annex link without content.
    DataError
        The JSON lacks ``Columns``, ``StartTime`` or ``SamplingFrequency``, or the table is
        damaged, too large, empty, or has other cells than ``Columns`` many numbers in a line.

    Notes
    -----
    JSON files are taken from the dataset's root down to the file's folder (inheritance
    principle); in one folder the more specific name wins.
    """
    require_present(path, "stimulus recording")
    sidecars = sidecars_of(path)
    columns, start, frequency = _metadata(path, sidecars)
    parts = [_numbers(path, first, text, len(columns)) for first, text in _text(path)]
    values = np.concatenate(parts) if parts else np.empty((0, len(columns)))
    if not len(values):
        raise DataError(f"{path}: found no samples, expected some.", hint=_HINT)
    empty, constant = without_content(columns, values)
    for names, what in ((empty, "no value at all"), (constant, "one value only")):
        if names:
            log.warning("%s: %d columns have %s: %s", path, len(names), what, ", ".join(names[:10]))
    return StimTable(columns, values, start, frequency, path, empty, constant)


def without_content(
    columns: Sequence[str], values: np.ndarray
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the columns without a value, and of those with one value only.

    Parameters
    ----------
    columns : sequence of str
        Names.
    values : array, shape (n_samples, n_columns)
        NaN where there is no value.

    Returns
    -------
    empty, constant : tuple of str
    """
    present = np.isfinite(values)
    high = np.where(present, values, -np.inf).max(axis=0)
    low = np.where(present, values, np.inf).min(axis=0)
    some = present.any(axis=0)
    pick = (~some, some & (high == low))
    return tuple(tuple(columns[k] for k in np.flatnonzero(mask)) for mask in pick)


def sidecars_of(path: Path) -> tuple[Path, ...]:
    """Return the JSON files that apply, the most specific last."""
    folders = [path.parent]
    while not _is_root(folders[0]) and len(folders) < 4:
        folders.insert(0, folders[0].parent)
    if not _is_root(folders[0]):
        folders = [path.parent]
    levels: list[Listing] = [listing(folder) for folder in folders]
    return applicable(levels, parse_entities(path).entities, "stim", ".json")


def _is_root(folder: Path) -> bool:
    """Tell whether a folder is the root of a dataset."""
    return Names(folder).path("dataset_description").is_file()


def _metadata(path: Path, sidecars: Sequence[Path]) -> tuple[tuple[str, ...], float, float]:
    """Return columns, start in s and sampling frequency in Hz."""
    content = read_sidecars(sidecars)
    where = ", ".join(os.fspath(file) for file in sidecars) or "no JSON file at all"
    columns = content.get("Columns")
    if (
        not isinstance(columns, list)
        or not columns
        or not all(isinstance(name, str) and name.strip() for name in columns)
        or len(set(columns)) != len(columns)
        or len(columns) > MAX_COLUMNS
    ):
        raise DataError(
            f"{path}: expected Columns, a list of 1 to {MAX_COLUMNS} different names, found "
            f"{str(columns)[:200]} ({where}).",
            hint=f"Add Columns to the JSON file beside {path.name}.",
        )
    numbers = []
    for name, unit, lowest in (("StartTime", "s", -1e6), ("SamplingFrequency", "Hz", 1e-6)):
        value = content.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not lowest <= value <= 1e6:
            raise DataError(
                f"{path}: expected {name} in {unit}, found {value!r} ({where}).",
                hint=f"Add {name} to the JSON file beside {path.name}.",
            )
        numbers.append(float(value))
    return tuple(columns), *numbers


def _text(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines of a compressed table in pieces, and the number of their first line."""
    rest, line, total = b"", 1, 0
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                chunk = chunk.removeprefix(b"\xef\xbb\xbf") if total == 0 else chunk
                total += len(chunk)
                if total > MAX_BYTES:
                    raise DataError(
                        f"{path}: found more than {MAX_BYTES >> 20} MiB of text when "
                        "decompressed, expected less.",
                        hint="Write the recording at a lower sampling frequency.",
                    )
                whole, newline, tail = chunk.rpartition(b"\n")
                if not newline:
                    rest += chunk
                    _require_short(path, line, rest)
                    continue
                piece, rest = rest + whole + newline, tail
                yield line, piece
                line += piece.count(b"\n")
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: expected a whole gzip file, found: {error}.",
            hint="Get or compress the file again, then run the same command.",
        ) from error
    if rest:
        yield line, rest + b"\n"


def _require_short(path: Path, number: int, line: bytes) -> None:
    """Raise an error where a line is longer than any table's."""
    if len(line) > _LONGEST_LINE:
        raise DataError(
            f"{path}, line {number}: found more than {_LONGEST_LINE >> 20} MiB in one line, "
            "expected less.",
            hint=_HINT,
        )


def _numbers(path: Path, first: int, text: bytes, n_columns: int) -> np.ndarray:
    """Return the numbers of some lines, shape (n_lines, n_columns)."""
    text = text.replace(b"\r\n", b"\n")
    n_lines = text.count(b"\n")
    # Blank lines would be skipped and shift the samples behind them.
    if not text.startswith((b"\n", b" ")) and b"\n\n" not in text:
        try:
            values = np.loadtxt(
                io.BytesIO(text.replace(b"n/a", b"nan")), delimiter="\t", comments=None, ndmin=2
            )
            if values.shape == (n_lines, n_columns) and not np.isinf(values).any():
                return values
        except ValueError as error:
            log.debug("%s: %s", path, error)
    return _by_line(path, first, text, n_columns)


def _by_line(path: Path, first: int, text: bytes, n_columns: int) -> np.ndarray:
    """Read lines one by one, to name the one that is wrong."""
    rows = []
    for number, line in enumerate(text.decode("utf-8", "replace").split("\n")[:-1], start=first):
        cells = line.split("\t")
        if len(cells) != n_columns:
            raise DataError(
                f"{path}, line {number}: found {len(cells)} cells, expected {n_columns} as in "
                "Columns (tab separated).",
                hint=_HINT,
            )
        row = [_cell(cell) for cell in cells]
        if None in row:
            header = " (the file must not have a header)" if number == 1 else ""
            raise DataError(
                f"{path}, line {number}: found {cells[row.index(None)][:40]!r}, expected a "
                f"number or n/a{header}.",
                hint=_HINT,
            )
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, n_columns)


def _cell(text: str) -> float | None:
    """Return a cell as a number, NaN for n/a, None for what is neither."""
    if text.strip().lower() in ("n/a", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isinf(value) or "_" in text else value
