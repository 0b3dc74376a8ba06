"""Logical output names to paths and back; BIDS file names to entities.

Every output name comes from ``data/outputs.json``: a template a logical name, where parts in
square brackets are dropped when their entity is not given.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from bids_brainlm.errors import ConfigError, OutputError

_FIELD = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_LABEL = re.compile(r"[A-Za-z0-9]+")
_PATTERNS = {
    "ext": r"[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*",
    "run_id": r"[A-Za-z0-9](?:[A-Za-z0-9_+-]*[A-Za-z0-9])?",
}


@dataclass(frozen=True, slots=True)
class ParsedName:
    """A BIDS file name taken apart.

    ``entities`` has the short keys of the name (``sub``, ``task``, ``space`` ...) in the order
    of the name, ``suffix`` the last part without a dash, ``extension`` all from the first dot.
    """

    entities: dict[str, str]
    suffix: str | None
    extension: str


def parse_entities(filename: str | Path) -> ParsedName:
    """Take a raw or derivative BIDS file name apart.

    Parameters
    ----------
    filename : str or Path
        Only the last part of the path is read.

    Returns
    -------
    ParsedName

    Notes
    -----
    Lenient: names without a suffix (the Narratives ``..._desc-sm6.func.gii``) and unknown
    entities are taken as they are. A key that occurs twice keeps its first value.
    """
    name = os.path.basename(os.fspath(filename))
    stem, dot, extension = name.partition(".")
    entities: dict[str, str] = {}
    suffix = None
    for part in stem.split("_"):
        key, dash, value = part.partition("-")
        if dash and key and value:
            entities.setdefault(key, value)
        elif part:
            suffix = part
    return ParsedName(entities, suffix, dot + extension)


def alphanumeric(text: str) -> str:
    """Return ``text`` without the characters that a BIDS label cannot hold.

    Examples
    --------
    >>> alphanumeric("bert-base_uncased")
    'bertbaseuncased'
    """
    return re.sub(r"[^A-Za-z0-9]", "", text)


@lru_cache(maxsize=1)
def templates() -> Mapping[str, str]:
    """Return the templates of ``data/outputs.json`` by logical name."""
    text = resources.files("bids_brainlm").joinpath("data/outputs.json").read_text("utf-8")
    return json.loads(text)


def _fields(template: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return all and the required entities of a template."""
    everything = frozenset(_FIELD.findall(template))
    return everything, frozenset(_FIELD.findall(_OPTIONAL.sub("", template)))


def _label_pattern(name: str) -> str:
    """Return the regular expression for the values of an entity."""
    return _PATTERNS.get(name, _LABEL.pattern)


@lru_cache(maxsize=1)
def _compiled() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return one regular expression a logical name."""
    return tuple((logical, _expression(text)) for logical, text in templates().items())


def _expression(template: str) -> re.Pattern[str]:
    """Turn a template into a regular expression with one named group an entity."""
    seen: set[str] = set()
    pattern = ""
    for token in re.split(r"(\{\w+\}|\[|\])", template):
        if token == "[":
            pattern += "(?:"
        elif token == "]":
            pattern += ")?"
        elif _FIELD.fullmatch(token):
            name = token[1:-1]
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{_label_pattern(name)})"
            seen.add(name)
        else:
            pattern += re.escape(token)
    return re.compile(pattern)


def _check(
    logical: str, entities: Mapping[str, str | None]
) -> tuple[Mapping[str, str], tuple[str, str, list[str]]]:
    """Return the given entities after checking their names and labels, and the `_shape`."""
    given = entities
    if None in entities.values():
        given = {name: value for name, value in entities.items() if value is not None}
    shape = _shape(logical, tuple(entities), tuple(given))
    for name, value in given.items():
        if not isinstance(value, str) or not _fits(name, value):
            raise ConfigError(
                f"The label {value!r} for '{name}' cannot stand in a file name: "
                "found characters other than A-Z, a-z, 0-9, expected letters and digits only.",
                hint="Give labels without prefix, dashes and underscores "
                "(--participant-label, --task-label, --model, --atlas).",
            )
    return given, shape


@lru_cache(maxsize=65_536)
def _fits(name: str, value: str) -> bool:
    """Tell whether a label may stand in a name."""
    return re.fullmatch(_label_pattern(name), value) is not None


@lru_cache(maxsize=4096)
def _shape(
    logical: str, named: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, str, list[str]]:
    """Return folder and name with the parts whose entities are given, and what is missing."""
    template = templates().get(logical)
    if template is None:
        raise ValueError(f"unknown output {logical!r}; known: {', '.join(templates())}")
    everything, required = _fields(template)
    unknown = sorted(set(named) - everything)
    if unknown:
        raise ValueError(f"output {logical!r} has no entity {unknown}; it has {sorted(everything)}")
    folder, _, name = _without_gaps(template, given).rpartition("/")
    return folder, name, sorted(required - set(given))


def _without_gaps(template: str, given: Collection[str]) -> str:
    """Return a template with the optional parts whose entities are given."""

    def keep(match: re.Match[str]) -> str:
        part = match.group(1)
        return part if all(name in given for name in _FIELD.findall(part)) else ""

    return _OPTIONAL.sub(keep, template)


class Names:
    """The names of all outputs below one folder.

    Parameters
    ----------
    out_dir : path-like
        The output dataset; it need not exist.
    """

    def __init__(self, out_dir: str | os.PathLike[str]) -> None:
        self.root = Path(out_dir).absolute()
        self._start = f"{self.root}{os.sep}"
        self._folders: dict[str, Path] = {}

    def path(self, logical: str, entities: Mapping[str, str | None] | None = None) -> Path:
        """Return the path of an output.

        Parameters
        ----------
        logical : str
            A name of ``data/outputs.json``, such as ``boldmap``.
        entities : mapping of str to str or None
            Labels without prefix. ``None`` and missing are the same.

        Raises
        ------
        ConfigError
            A label holds anything but letters and digits.
        ValueError
            The logical name or an entity is unknown, or a required entity is missing.
        """
        given, (folder, name, missing) = _check(logical, entities or {})
        if missing:
            raise ValueError(f"output {logical!r} needs {missing}")
        folder = folder.format_map(given)
        parent = self._folders.get(folder)
        if parent is None:
            parent = self._folders[folder] = self.root / folder
        return parent / name.format_map(given)

    def parse(self, path: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
        """Return the logical name and the entities of an output; the inverse of `path`.

        Parameters
        ----------
        path : path-like
            Below the root, or relative to it.

        Raises
        ------
        OutputError
            No template gives this name.
        """
        relative = self.relative(path)
        for logical, expression in _compiled():
            match = expression.fullmatch(relative)
            if match is None:
                continue
            entities = {k: v for k, v in match.groupdict().items() if v is not None}
            if self.relative(self.path(logical, entities)) == relative:
                return logical, entities
        raise OutputError(
            f"{relative} is not a name that bids_brainlm writes.",
            hint="Keep other files out of OUTPUT_DIR, or choose another OUTPUT_DIR.",
        )

    def relative(self, path: str | os.PathLike[str]) -> str:
        """Return a path relative to the root, with forward slashes."""
        if isinstance(path, Path) and (text := str(path)).startswith(self._start):
            return text[len(self._start) :].replace(os.sep, "/")
        path = Path(path)
        return (path.relative_to(self.root) if path.is_absolute() else path).as_posix()

    def uri(self, path: str | os.PathLike[str], dataset: str = "") -> str:
        """Return the BIDS URI ``bids:<dataset>:<relative path>``; no dataset is this one.

        Parameters
        ----------
        path : path-like
            A file below the root, or a path relative to the root of ``dataset``.
        dataset : str
            A key of ``DatasetLinks``.
        """
        return f"bids:{dataset}:{self.relative(path)}"

    def find(self, logical: str, entities: Mapping[str, str | None] | None = None) -> list[Path]:
        """Return the existing files of an output whose entities agree with those given.

        Parameters
        ----------
        logical : str
            A name of ``data/outputs.json``.
        entities : mapping of str to str or None
            A string must be equal, ``None`` must be absent, an entity not named may be
            anything.

        Returns
        -------
        list of Path
            Sorted by name.
        """
        wanted = dict(entities or {})
        given, _ = _check(logical, wanted)
        found = []
        for pattern in _globs(templates()[logical], given):
            for path in self.root.glob(pattern):
                try:
                    name, labels = self.parse(self.relative(path.relative_to(self.root)))
                except OutputError:
                    continue
                agrees = all(labels.get(key) == value for key, value in wanted.items())
                if name == logical and agrees:
                    found.append(path)
        return sorted(set(found))


def _globs(template: str, given: Mapping[str, str]) -> set[str]:
    """Return glob patterns that cover every name of a template."""

    def fill(text: str) -> str:
        return _FIELD.sub(lambda match: given.get(match.group(1), "*"), text)

    folder, _, name = template.rpartition("/")
    names = re.sub(r"\*+", "*", fill(_OPTIONAL.sub("*", name)))
    folders = {fill(_OPTIONAL.sub("", folder)), fill(_OPTIONAL.sub(r"\1", folder))}
    return {f"{part}/{names}" if part else names for part in folders}
