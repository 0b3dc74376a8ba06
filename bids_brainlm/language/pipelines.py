"""spaCy pipelines: find them without spaCy, load only what a parse or static vectors need."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bids_brainlm.errors import ConfigError, DataError, ModelUnavailableError
from bids_brainlm.language.folders import file_sha256

log = logging.getLogger(__name__)

CONFIG = "config.cfg"
META = "meta.json"
PACKAGE_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
EXAMPLE = "en_core_web_lg"
NO_FACTORY = "[E002]"  # spaCy's number for a component that no installed package has
FACTORIES = (
    "tok2vec",
    "transformer",
    "curated_transformer",
    "tagger",
    "morphologizer",
    "parser",
    "senter",
    "sentencizer",
    "attribute_ruler",
    "lemmatizer",
    "trainable_lemmatizer",
)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A spaCy pipeline that is ready to run.

    Attributes
    ----------
    nlp : spacy.language.Language
        With the components that a parse needs, or none.
    name : str
        As in its ``meta.json`` with the language, e.g. ``en_core_web_lg``; never a path.
    version : str
        Of the pipeline, empty if it states none.
    spacy_version : str
        Of the library that runs it.
    sha256 : str
        See `fingerprint`.
    has_lemmas : bool
        Whether a component writes lemmas.
    has_vectors : bool
        Whether it holds static word vectors.
    labels : mapping of str to tuple of str
        Under ``dep``, ``pos`` and ``tag`` the sorted labels that it can give; empty without
        parser and tagger.
    """

    nlp: Any
    name: str
    version: str
    spacy_version: str
    sha256: str
    has_lemmas: bool
    has_vectors: bool
    labels: Mapping[str, tuple[str, ...]]


def find(name: str | Path) -> Path:
    """Find the files of a pipeline; imports neither spaCy nor the pipeline's package.

    Parameters
    ----------
    name : str or Path
        An installed package (``en_core_web_lg``), a folder that holds ``config.cfg``, or the
        folder of an unpacked package.

    Returns
    -------
    Path
        The folder that holds ``config.cfg`` and ``meta.json``, absolute.

    Raises
    ------
    ConfigError
        The name is empty.
    ModelUnavailableError
        There is no such package or folder, or it holds no pipeline.
    DataError
        ``meta.json`` cannot be read.

    Notes
    -----
    As in spaCy, an installed package comes before a folder of the same name.
    """
    given = str(name).strip()
    if not given:
        raise ConfigError(
            "found an empty name of a spaCy pipeline, expected a package or a folder.",
            hint=f"For example {EXAMPLE}; bids_brainlm-fetch --spacy {EXAMPLE} gets it.",
        )
    package = _package(given)
    places = [place for place in (package, Path(given).expanduser()) if place is not None]
    for place in places:
        folder = _data_folder(place)
        if folder is not None:
            return folder.resolve()
    wrong = next((place for place in places if place.is_dir()), None)
    if wrong is not None:
        raise ModelUnavailableError(
            f"{wrong}: found no {CONFIG} with {META}, expected the folder of a spaCy pipeline.",
            hint="Give the folder that spaCy's to_disk wrote, or the name of an installed "
            f"package; bids_brainlm-fetch --spacy {EXAMPLE} gets one.",
        )
    if not PACKAGE_NAME.fullmatch(given):
        raise ModelUnavailableError(
            f"spaCy pipeline {given!r}: there is no such folder.",
            hint="Check the path, or give the name of an installed package; "
            f"bids_brainlm-fetch --spacy {EXAMPLE} gets one.",
        )
    raise ModelUnavailableError(
        f"spaCy pipeline {given!r} is not installed, and there is no such folder.",
        hint=f"Get it where there is a network: bids_brainlm-fetch --spacy {given}, or python -m "
        f"spacy download {given}.",
    )


def fingerprint(folder: Path) -> str:
    """Return a checksum of all files of a pipeline; imports no spaCy.

    Parameters
    ----------
    folder : Path
        From `find`.

    Returns
    -------
    str
        SHA-256, hexadecimal, of the files' relative paths and SHA-256 sums, a line each, in
        order of the paths.

    Raises
    ------
    ModelUnavailableError
        A file is a link without content.
    """
    digest = hashlib.sha256()
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
    }
    for name, path in sorted(files.items()):
        if not path.is_file():
            raise ModelUnavailableError(
                f"{path}: found a link without content, expected a file of a spaCy pipeline.",
                hint=f"Get it, e.g. datalad get {path}",
            )
        digest.update(f"{name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def load(name: str | Path, *, needs_parse: bool = True) -> Pipeline:
    """Load a pipeline with the components that are needed.

    Parameters
    ----------
    name : str or Path
        See `find`.
    needs_parse : bool
        Whether text is to be parsed; without, only vocabulary and vectors are loaded.

    Returns
    -------
    Pipeline

    Raises
    ------
    ModelUnavailableError
        The pipeline, one of its files or a package that it needs is missing.
    ConfigError
        It cannot parse: no parser, or nothing that gives parts of speech.
    DataError
        A file is damaged, or does not fit this version of spaCy.

    Notes
    -----
    Named entities, text classes and the like are not loaded, nor what the pipeline itself has
    disabled; the rest keeps its order. It runs on the CPU. No code from a folder is run; an
    installed package is imported, as spaCy does.
    """
    folder = find(name)
    sha256 = fingerprint(folder)
    import spacy

    spacy.require_cpu()
    with _named(folder):
        if _package(str(name).strip()) is not None:
            importlib.import_module(str(name).strip())
        unneeded = _unneeded(folder, needs_parse)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            nlp = spacy.load(folder, exclude=unneeded)
    for text in sorted({str(item.message).splitlines()[0] for item in said}):
        log.warning("spaCy pipeline %s: %s", folder.name, text)
    if needs_parse:
        _check(nlp, folder)
    factories = {nlp.get_pipe_meta(pipe).factory for pipe in nlp.pipe_names}
    return Pipeline(
        nlp,
        "_".join(str(nlp.meta[key]) for key in ("lang", "name") if nlp.meta.get(key)),
        str(nlp.meta.get("version") or ""),
        spacy.__version__,
        sha256,
        bool(factories & {"lemmatizer", "trainable_lemmatizer"}),
        bool(nlp.vocab.vectors_length and len(nlp.vocab.vectors)),
        MappingProxyType(_labels(nlp) if needs_parse else {}),
    )


def _package(name: str) -> Path | None:
    """Return the folder of an importable package, without importing it."""
    if not PACKAGE_NAME.fullmatch(name):
        return None
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    places = [Path(place) for place in spec.submodule_search_locations]
    return next((place for place in places if (place / META).is_file()), None)


def _data_folder(place: Path) -> Path | None:
    """Return the folder with the data: the place itself, or the versioned one in a package."""
    if (place / CONFIG).is_file():
        return place
    if not (place / META).is_file():
        return None
    try:
        meta = json.loads((place / META).read_text("utf-8"))
        inner = place / f"{meta['lang']}_{meta['name']}-{meta['version']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place / META}: found no usable lang, name and version ({error!r:.200}), expected "
            "the description of a spaCy pipeline.",
            hint="Install the pipeline again, e.g. with bids_brainlm-fetch --spacy NAME.",
        ) from error
    return inner if (inner / CONFIG).is_file() else None


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turn whatever spaCy raises on damaged or foreign files into an error that names them."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, ImportError) or text.startswith(NO_FACTORY):
            raise ModelUnavailableError(
                f"{folder}: the spaCy pipeline needs a package that is missing ({text:.300}).",
                hint="Install that package, or choose a pipeline without it; bids_brainlm-fetch "
                f"--spacy {EXAMPLE} gets one.",
            ) from error
        raise DataError(
            f"{folder}: the spaCy pipeline cannot be loaded ({type(error).__name__}: {text:.300}).",
            hint="Get a pipeline for the installed spaCy, e.g. with bids_brainlm-fetch --spacy "
            f"{EXAMPLE}.",
        ) from error


def _unneeded(folder: Path, needs_parse: bool) -> list[str]:
    """Return the names of the components that are not loaded."""
    from spacy.util import load_config

    config = load_config(folder / CONFIG)
    disabled = config["nlp"].get("disabled") or ()
    return [
        name
        for name in config["nlp"]["pipeline"]
        if not needs_parse
        or name in disabled
        or config["components"][name].get("factory") not in FACTORIES
    ]


def _check(nlp: Any, folder: Path) -> None:
    """Raise if the pipeline gives no dependencies or no parts of speech."""
    found = {nlp.get_pipe_meta(pipe).factory for pipe in nlp.pipe_names}
    lacks = [] if "parser" in found else ["a parser (dependencies)"]
    if "tagger" not in found and "morphologizer" not in found:
        lacks.append("a tagger or morphologizer (parts of speech)")
    elif "morphologizer" not in found and "attribute_ruler" not in found:
        lacks.append("an attribute_ruler or morphologizer (universal parts of speech from tags)")
    if lacks:
        raise ConfigError(
            f"{folder}: the spaCy pipeline lacks {' and '.join(lacks)}; found "
            f"{', '.join(nlp.pipe_names) or 'no components'}.",
            hint=f"Choose a trained pipeline; bids_brainlm-fetch --spacy {EXAMPLE} gets one.",
        )


def _labels(nlp: Any) -> dict[str, tuple[str, ...]]:
    """Return the labels that the components can give."""
    pipes: dict[str, list[Any]] = {}
    for name in nlp.pipe_names:
        pipes.setdefault(nlp.get_pipe_meta(name).factory, []).append(nlp.get_pipe(name))
    rulers = pipes.get("attribute_ruler", ())
    given = [pattern["attrs"] for ruler in rulers for pattern in ruler.patterns]
    pos = _written(nlp, given, "POS")
    for pipe in pipes.get("morphologizer", ()):
        pos += [label.partition("POS=")[2].partition("|")[0] for label in pipe.labels]
    return {
        "dep": _sorted([*_of(pipes, "parser"), *_written(nlp, given, "DEP")]),
        "pos": _sorted(pos),
        "tag": _sorted([*_of(pipes, "tagger"), *_written(nlp, given, "TAG")]),
    }


def _written(nlp: Any, given: Sequence[Mapping[Any, Any]], attribute: str) -> list[str]:
    """Return what rules write into an attribute; old ones use numbers for names."""
    from spacy import symbols

    keys = (attribute, getattr(symbols, attribute))
    values = [value for rule in given for key, value in rule.items() if key in keys]
    return [nlp.vocab.strings[value] if isinstance(value, int) else str(value) for value in values]


def _of(pipes: Mapping[str, Sequence[Any]], factory: str) -> list[str]:
    """Return the labels of the components of one kind."""
    return [label for pipe in pipes.get(factory, ()) for label in pipe.labels]


def _sorted(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels once each, sorted, without the empty one."""
    return tuple(sorted({label for label in labels if label}))
