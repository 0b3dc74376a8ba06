"""Whether earlier results that are read are still what was written: their sums are in a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bids_brainlm.bidsio import write
from bids_brainlm.errors import BrainLMError, DataError, MissingInputError
from bids_brainlm.steps import base
from bids_brainlm.steps.base import Job

HINT = (
    "Run the participant level again without --participant-label and --task-label: it makes anew "
    "whatever is damaged."
)


def sums_of(records: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Return the sha256 of files that records list.

    Parameters
    ----------
    records : iterable of mapping
        Sidecars; those that are no records are passed over.

    Returns
    -------
    dict of str to str
        By file name without folder: names in an output dataset differ.
    """
    found: dict[str, str] = {}
    for record in records:
        listed = record.get("Outputs")
        if isinstance(listed, Mapping):
            found.update({str(n).rpartition("/")[2]: str(total) for n, total in listed.items()})
    return found


def check(paths: Iterable[Path], sums: Mapping[str, str]) -> None:
    """Refuse files that are not those that were written.

    Parameters
    ----------
    paths : iterable of Path
        Those that are not there, and those without a sum, are passed over.
    sums : mapping of str to str
        From `sums_of`.

    Raises
    ------
    DataError
        The content of a file has changed.
    """
    for path in paths:
        wanted = sums.get(path.name)
        if wanted is None or not path.is_file():
            continue
        status = path.stat()
        found = _sum(path, status.st_ino, status.st_size, status.st_mtime_ns)
        if found != wanted:
            raise DataError(
                f"{path} is damaged or was changed: found the sha256 {found[:12]}, its record says "
                f"{wanted[:12]}.",
                hint=HINT,
            )


def damage(job: Job, out_dir: Path) -> BrainLMError | None:
    """Return what is wrong with the results that a job of the group level reads, if anything.

    Parameters
    ----------
    job : Job
        Its fingerprints are keys of records in the output dataset.
    out_dir : Path
        The output dataset.

    Returns
    -------
    BrainLMError or None
    """
    try:
        records = [read_record(out_dir / name) for name in job.fingerprints]
        check(dict.fromkeys(job.files.values()), sums_of(records))
    except BrainLMError as error:
        return error
    return None


def read_record(path: Path) -> dict[str, object]:
    """Return a sidecar.

    Raises
    ------
    DataError
        It is damaged; other errors as `write.read_json`.
    """
    record = write.read_json(path)
    if not base.is_whole(record):
        raise DataError(
            f"{path} is damaged or was changed: its checksum is that of other entries.", hint=HINT
        )
    return record


def check_folder(folder: Path) -> None:
    """Refuse tables and sidecars below a folder that are not those that were written.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    DataError
        A file is damaged. Those without a record, as a killed call leaves them, are passed over.
    """
    found = [p for end in ("json", "tsv") for p in sorted(folder.rglob(f"[!.]*.{end}"))]
    records = []
    for path in found:
        if path.suffix == ".json":
            with suppress(MissingInputError):  # another call took it away
                records.append(read_record(path))
    check(found, sums_of(records))


@lru_cache(maxsize=65536)
def _sum(path: Path, inode: int, size: int, changed: int) -> str:
    """Return the sha256 of a file; several jobs read the same files."""
    return write.sha256_file(path)
