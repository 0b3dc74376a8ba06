"""The files of a model in a folder: which there must be, and what they state."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from bids_brainlm.errors import ConfigError, DataError, ModelUnavailableError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    str
        Hexadecimal.

    Notes
    -----
    Once in a process for a file of the same size and time.
    """
    stat = path.stat()
    return _sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, time: int) -> str:
    """Return the SHA-256 of a file as it is at a time."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_config(folder: Path) -> dict[str, object]:
    """Read the configuration of a model.

    Parameters
    ----------
    folder : Path
        Holds ``config.json``.

    Returns
    -------
    dict

    Raises
    ------
    DataError
        Not JSON, or without ``model_type``.
    ConfigError
        An encoder-decoder model.
    """
    config = _read_json(folder / CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise DataError(
            f"{folder / CONFIG}: found no 'model_type', expected the configuration of a "
            "transformers model.",
            hint="Give the folder of a transformers model with --model.",
        )
    if config.get("is_encoder_decoder"):
        raise ConfigError(
            f"{folder / CONFIG}: {config['model_type']!r} is an encoder-decoder model, expected "
            "an encoder or a decoder.",
            hint="Choose another --model, e.g. google-bert/bert-base-uncased or gpt2.",
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or an index and several parts.

    Returns
    -------
    list of Path
        Sorted; they need not exist. Empty without both.

    Raises
    ------
    DataError
        The index cannot be read.
    """
    if not (folder / INDEX).is_file() or (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS] if _exists(folder / WEIGHTS) else []
    parts = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(parts, dict) or not all(
        isinstance(part, str) and Path(part).name == part for part in parts.values()
    ):
        raise DataError(
            f"{folder / INDEX}: found no usable 'weight_map', expected names of files.",
            hint="Get the file again.",
        )
    return [folder / part for part in sorted(set(parts.values()))]


def missing_files(folder: Path, kind: str) -> list[Path]:
    """Return the files that a model folder lacks.

    Parameters
    ----------
    folder : Path
        Any folder.
    kind : str
        ``pretrained``, or ``random``, which needs no weights.

    Returns
    -------
    list of Path
        Empty if all are there.

    Raises
    ------
    DataError
        The index of the weights cannot be read.
    """
    missing = [] if (folder / CONFIG).is_file() else [folder / CONFIG]
    if not any((folder / name).is_file() for name in TOKENIZERS):
        missing.append(folder / TOKENIZERS[0])
    if kind == "pretrained":
        files = weight_files(folder) or [folder / WEIGHTS]
        missing += [file for file in files if not file.is_file()]
    return missing


def require_files(folder: Path, kind: str) -> None:
    """Raise if a model folder lacks a file.

    Parameters
    ----------
    folder : Path
        Any folder.
    kind : str
        ``pretrained``, or ``random``, which needs no weights.

    Raises
    ------
    ModelUnavailableError
        A file is missing; names it.
    DataError
        The index of the weights cannot be read.
    """
    missing = missing_files(folder, kind)
    if not missing:
        return
    first = missing[0]
    hint = None
    if first.is_symlink():
        hint = f"The file is a link without content: datalad get {first}"
    elif first.name == WEIGHTS and sorted(folder.glob("*.bin")):
        hint = "Only safetensors are read; save the model again with safetensors."
    raise ModelUnavailableError(
        f"{folder}: missing {', '.join(file.name for file in missing)}; expected {CONFIG}, a "
        f"tokenizer{' and ' + WEIGHTS if kind == 'pretrained' else ''}.",
        hint=hint,
    )


def revision(path: Path | None) -> str | None:
    """Return the commit of a model in a Hugging Face cache.

    Parameters
    ----------
    path : Path or None
        Folder of the model.

    Returns
    -------
    str or None
        None outside a cache.
    """
    if path is not None and path.parent.name == "snapshots":
        return path.name
    return None


def _read_json(path: Path) -> dict[str, object]:
    """Read a JSON object."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}).", hint="Get the file again.") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: found a JSON {type(content).__name__}, expected an object.",
            hint="Get the file again.",
        )
    return content


def _exists(path: Path) -> bool:
    """Tell whether there is a file, or a link without content."""
    return path.is_file() or path.is_symlink()
