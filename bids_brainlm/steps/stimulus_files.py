"""Read back for the reports what was made from the stories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import ReadWriteError
from bids_brainlm.report.content import HeadDecoding, Representations, StimulusFile

FOLDER = (
    ("words", ".tsv", "aligned words"),
    ("tokens", ".tsv", "parsed tokens"),
    ("features", ".nc", "embeddings and transformations of MODEL"),
    ("attention", "", "attention of MODEL, see its recordings"),
    ("surprisal", ".tsv", "surprisal of each word under MODEL"),
    ("story_features", ".nc", "static vectors of MODEL"),
)


def stimulus_files(names: Names, story: str) -> tuple[StimulusFile, ...]:
    """List the stimulus features of a story.

    Parameters
    ----------
    names : Names
    story : str

    Returns
    -------
    tuple of StimulusFile
        Words, tokens and arrays first, then recordings, sorted by name.
    """
    return (*_in_folder(names, story), *_recordings(names, story))


def _recordings(names: Names, story: str) -> Iterator[StimulusFile]:
    """Yield the stim files."""
    for path in names.find("stim", {"story": story, "ext": "json"}):
        meta = write.read_json(path)
        recording = names.parse(path)[1]["recording"]
        what = str(meta.get("Description", ""))
        data = path.with_name(path.name.replace(".json", ".tsv.gz"))
        yield _file(names, data, recording, what, meta)


def _in_folder(names: Names, story: str) -> Iterator[StimulusFile]:
    """Yield what lies in the folder of the story."""
    for logical, ext, what in FOLDER:
        for path in names.find(logical, {"story": story, "ext": "json"}):
            meta, labels = write.read_json(path), names.parse(path)[1]
            model = meta.get("Model") if isinstance(meta.get("Model"), Mapping) else {}
            shown = what.replace("MODEL", str(model.get("Name", "")))
            if logical == "features" and not model.get("HeadsReadable", True):
                shown = shown.replace("embeddings and transformations", "embeddings")
            data = path.with_suffix(ext) if ext else path
            label = labels.get("model") or labels.get("desc") or logical
            yield _file(names, data, label, shown, meta)


def _file(
    names: Names, data: Path, name: str, what: str, meta: Mapping[str, object]
) -> StimulusFile:
    """Make the record of one file."""
    columns = meta.get("Columns") if data.name.endswith(".tsv.gz") else None
    return StimulusFile(
        names.relative(data),
        name,
        what,
        len(columns) if columns else None,
        _count(meta, "NumberOfEmptyTRs"),
        tuple(str(w) for w in meta.get("Warnings") or ()),
    )


def _count(meta: Mapping[str, object], key: str) -> int | None:
    """Return a count that the sidecar may state."""
    value = meta.get(key)
    return None if value is None else int(value)


def representations_of(names: Names, story: str) -> tuple[Representations, ...]:
    """Read the comparisons of embeddings and transformations of a story, by model.

    Raises
    ------
    ReadWriteError
        A table cannot be read back.
    """
    return tuple(
        _representations(names, path)
        for path in names.find("representations", {"story": story, "ext": "tsv"})
    )


def _representations(names: Names, path: Path) -> Representations:
    """Read one table; its rows are (part, row, column, value)."""
    table = write.read_tsv(path)
    try:
        rows, columns = (np.array([int(v) for v in table[k]]) for k in ("row", "column"))
        values = np.array([np.nan if v == "n/a" else float(v) for v in table["value"]])
        parts = np.array(table["part"])
    except (KeyError, ValueError) as error:
        raise _damaged(path, error) from None
    matrices: dict[str, np.ndarray] = {}
    for part in dict.fromkeys(table["part"]):
        mine = parts == part
        first, second = rows[mine] - rows[mine].min(), columns[mine] - columns[mine].min()
        matrix = np.full((first.max() + 1, second.max() + 1), np.nan)
        matrix[first, second] = values[mine]
        matrices[str(part)] = matrix
    layers = tuple(range(1, len(matrices.get("rdm", ())) + 1))
    meta = write.read_json(path.with_suffix(".json"))
    model = names.parse(path)[1]["model"]
    return Representations(model, names.relative(path), layers, matrices, meta)


def decoding_of(names: Names, story: str) -> tuple[HeadDecoding, ...]:
    """Read what the heads of each model decode in a story.

    Raises
    ------
    ReadWriteError
        A table cannot be read back.
    """
    return tuple(
        _decoding(names, path) for path in names.find("decoding", {"story": story, "ext": "tsv"})
    )


def _decoding(names: Names, path: Path) -> HeadDecoding:
    """Read one table; its rows are heads, and within them labels."""
    table = write.read_tsv(path)
    try:
        labels = tuple(dict.fromkeys(table["label"]))
        pairs = [(int(a), int(b)) for a, b in zip(table["layer"], table["head"], strict=True)]
        heads = tuple(dict.fromkeys(pairs))
        accuracy, q = (
            np.array([np.nan if v == "n/a" else float(v) for v in table[key]]).reshape(
                len(heads), len(labels)
            )
            for key in ("accuracy", "q")
        )
    except (KeyError, ValueError) as error:
        raise _damaged(path, error) from None
    return HeadDecoding(
        names.parse(path)[1]["model"],
        names.relative(path),
        tuple(f"L{layer:02d}H{head:02d}" for layer, head in heads),
        tuple(layer for layer, _ in heads),
        labels,
        accuracy,
        q,
        write.read_json(path.with_suffix(".json")),
    )


def _damaged(path: Path, error: Exception) -> ReadWriteError:
    """Return the error for a table that cannot be read back."""
    return ReadWriteError(
        f"{path.name} cannot be read for the report: {error}.",
        hint="Remove the file and run again, or make the results anew with --overwrite.",
    )
