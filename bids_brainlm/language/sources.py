"""What ``--model`` means: a name or folder becomes a model source, without loading anything."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError, ModelUnavailableError
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.language.folders import (
    WEIGHTS,
    file_sha256,
    missing_files,
    read_config,
    require_files,
    revision,
)

RANDOM = "random:"
HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes
    ----------
    label : str
        Name in files: camelCase letters and digits.
    name : str
        Hub name, or the name of a local folder.
    path : Path or None
        Folder with configuration, tokenizer and weights; None if it has to be downloaded,
        or is built in.
    kind : str
        ``pretrained``, or ``random`` for weights drawn anew.
    config : dict
        Content of ``config.json``; empty if it has to be downloaded.
    revision : str or None
        Commit on the hub, where the folder tells it.
    cache : Path or None
        Where a download goes; None for the cache of Hugging Face.
    """

    label: str
    name: str
    path: Path | None
    kind: str
    config: Mapping[str, object] = field(hash=False)
    revision: str | None = None
    cache: Path | None = None

    @property
    def is_built_in(self) -> bool:
        """Whether the model needs no files (``random:tiny-bert``)."""
        return self.path is None and bool(self.config)

    @property
    def needs_download(self) -> bool:
        """Whether the files are still on the hub."""
        return self.path is None and not self.config


def resolve(
    name_or_path: str | Path, models_dir: str | Path | None = None, offline: bool = False
) -> ModelSource:
    """Find out what a model name or path means; loads neither torch nor transformers.

    Parameters
    ----------
    name_or_path : str or Path
        ``minilm`` and other short names of ``data/models.json``, a local folder, or a
        Hugging Face name; ``random:`` before any of these draws new weights for the same
        configuration and tokenizer; ``LABEL=`` before everything sets the label.
    models_dir : str or Path, optional
        Folder in which hub names are looked up, as ``org--name``, ``org/name``, ``name`` or
        in the layout of the Hugging Face cache. That cache itself comes after it.
    offline : bool
        Whether a model that is not at hand is an error.

    Returns
    -------
    ModelSource

    Raises
    ------
    ConfigError
        The name cannot be a model, or is no text encoder or decoder.
    ModelUnavailableError
        The folder or one of its files is missing, or the model is not at hand offline.
    DataError
        ``config.json`` cannot be read.

    Notes
    -----
    Short names win over folders of the same name (write ``./gpt2`` for the folder). Weights
    with the checksum of a known model get its label wherever they lie.
    """
    given = str(name_or_path).strip()
    label, name = _split_label(given)
    kind = "random" if name.startswith(RANDOM) else "pretrained"
    name = name.removeprefix(RANDOM).strip()
    entry = _known_models().get(name, {})
    cache = None if models_dir is None or models_dir == "" else Path(models_dir).expanduser()
    path = _find(name, entry, kind, cache, offline)
    if path is None and "config" in entry:
        config, shown, own = dict(entry["config"]), name, camel_case(name)
    else:
        config = {} if path is None else read_config(path)
        known = _known(path, str(entry.get("hub", name)))
        shown = _shown_name(path, str(entry.get("hub", name)), known)
        own = camel_case(name if entry else known or shown)
    if label is None:
        label = own if kind == "pretrained" else f"random{own[0].upper()}{own[1:]}"
    return ModelSource(label, shown, path, kind, config, revision(path), cache)


def from_folder(source: ModelSource, folder: Path) -> ModelSource:
    """Return a source whose files have been downloaded.

    Parameters
    ----------
    source : ModelSource
        One that needs a download.
    folder : Path
        Where its files are now.

    Returns
    -------
    ModelSource

    Raises
    ------
    ModelUnavailableError
        A file is missing.
    DataError
        ``config.json`` cannot be read.
    """
    require_files(folder, source.kind)
    config = read_config(folder)
    return ModelSource(source.label, source.name, folder, source.kind, config, revision(folder))


def camel_case(name: str) -> str:
    """Return the last part of a name as camelCase letters and digits.

    Parameters
    ----------
    name : str
        A hub name or the name of a folder.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        There are no letters or digits in it.

    Examples
    --------
    >>> camel_case("google-bert/bert-base-uncased")
    'bertBaseUncased'
    """
    words = re.findall(r"[A-Za-z0-9]+", name.rstrip("/").rpartition("/")[2])
    if not words:
        raise ConfigError(
            f"model {name!r}: found no letters or digits to make a label of.",
            hint="Give a label: --model LABEL=NAME_OR_PATH.",
        )
    first, *rest = words
    return first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in rest)


@lru_cache(maxsize=1)
def _known_models() -> dict[str, dict[str, Any]]:
    """Return the short names."""
    text = resources.files("bids_brainlm").joinpath("data", "models.json").read_text("utf-8")
    return json.loads(text)


def _split_label(given: str) -> tuple[str | None, str]:
    """Split ``LABEL=NAME``."""
    label, sign, name = given.partition("=")
    if not sign or Path(given).exists() or not re.fullmatch(r"[\w.-]*", label):
        label, name = "", given
        sign = ""
    if sign and not re.fullmatch(r"[A-Za-z0-9]+", label):
        raise ConfigError(
            f"--model {given!r}: found the label {label!r}, expected letters and digits only."
        )
    if not name.removeprefix(RANDOM).strip():
        raise ConfigError(f"--model {given!r}: found no name, expected a model name or a folder.")
    return label or None, name


def _find(
    name: str, entry: Mapping[str, Any], kind: str, models_dir: Path | None, offline: bool
) -> Path | None:
    """Return the folder of a model; None if it has to be downloaded or is built in."""
    hub = str(entry.get("hub", name))
    folder = None if entry else _local_folder(name, kind)
    if folder is not None:
        return folder
    if not HUB_NAME.fullmatch(hub):
        raise ConfigError(
            f"--model {name!r}: found neither a folder nor a Hugging Face name, expected e.g. "
            "google-bert/bert-base-uncased."
        )
    candidates = [place for place in _candidates(hub, models_dir) if place.is_dir()]
    for place in candidates:
        if not missing_files(place, kind):
            return place.resolve()
    if "config" in entry:
        if kind == "random":
            return None
        raise ModelUnavailableError(
            f"model {name!r} has no trained weights.", hint=f"Use --model {RANDOM}{name}."
        )
    if hub in FAMILIES and not candidates:
        raise _bare_architecture(name)
    if not offline:
        return None
    if candidates:
        require_files(candidates[0], kind)
    places = "the Hugging Face cache" if models_dir is None else f"{models_dir} and the cache"
    raise ModelUnavailableError(
        f"model {name!r} is not at hand: {hub} was not found in {places}, and --offline is set.",
        hint=f"Run bids_brainlm-fetch --model {name} where there is a network, or give a local "
        "folder with --model or --models-dir.",
    )


def _local_folder(name: str, kind: str) -> Path | None:
    """Return a local folder; None where the name may be one of the hub."""
    local = Path(name).expanduser()
    if local.is_dir():
        require_files(local, kind)
        return local.resolve()
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        raise ModelUnavailableError(f"model {name!r}: there is no such folder.")
    return None


def _bare_architecture(name: str) -> ModelUnavailableError:
    """Return the error for an architecture without tokenizer."""
    return ModelUnavailableError(
        f"model {name!r} is an architecture without a tokenizer of its own.",
        hint=f"Name a model of that architecture or its folder: --model {RANDOM}NAME_OR_PATH; "
        f"{RANDOM}tiny-bert needs no files.",
    )


def _candidates(hub: str, models_dir: Path | None) -> Iterator[Path]:
    """Yield the folders where a hub model may lie, best first."""
    if models_dir is not None:
        yield models_dir / hub.replace("/", "--")
        yield models_dir / hub
        yield models_dir / hub.rpartition("/")[2]
        yield from _snapshots(models_dir, hub)
        yield from _snapshots(models_dir / "hub", hub)
    for entry in _known_models().values():
        if entry.get("hub") == hub and "package" in entry:
            spec = importlib.util.find_spec(entry["package"])
            if spec is not None and spec.origin is not None:
                yield Path(spec.origin).parent / entry["folder"]
    from huggingface_hub.constants import HF_HUB_CACHE

    yield from _snapshots(Path(HF_HUB_CACHE), hub)


def _snapshots(cache: Path, hub: str) -> Iterator[Path]:
    """Yield the snapshots of a model in a Hugging Face cache, the main one first."""
    repository = cache / f"models--{hub.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        yield repository / "snapshots" / main.read_text("utf-8", errors="replace").strip()
    if repository.is_dir():
        yield from sorted(repository.glob("snapshots/*"))


def _shown_name(path: Path | None, hub: str, known: str | None) -> str:
    """Return the name that is written down: never a path of this machine."""
    if known is not None:
        return str(_known_models()[known]["hub"])
    if path is None:
        return hub
    if path.parent.name == "snapshots":
        return path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return hub if HUB_NAME.fullmatch(hub) and not Path(hub).is_dir() else path.name


def _known(path: Path | None, hub: str) -> str | None:
    """Return the short name of a model by its checksum; by its hub name without weights."""
    checked = {name: entry for name, entry in _known_models().items() if "sha256" in entry}
    weights = None if path is None else path / WEIGHTS
    if weights is None or not weights.is_file():
        return next((name for name, entry in checked.items() if entry["hub"] == hub), None)
    for name, entry in checked.items():
        if entry["bytes"] == weights.stat().st_size and entry["sha256"] == file_sha256(weights):
            return name
    return None
