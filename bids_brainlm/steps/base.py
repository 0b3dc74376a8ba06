"""What all steps share: units, jobs, keys, records, resources.

A job is one call's worth of work with declared inputs and outputs. Its key is a hash of the
step, its version, its settings, facts from planning, the content of its inputs and the keys of
the jobs it builds on. The job's record (a JSON sidecar, written last) holds the key and the
sha256 of every output. Same key and intact files: the job is skipped. Outputs are the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, ValuesView
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

from bids_brainlm import software
from bids_brainlm.bidsio import spaces, write
from bids_brainlm.bidsio.names import Names, templates
from bids_brainlm.errors import BrainLMError, MissingInputError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Unit:
    """What a job is about; ``None`` where an entity does not apply."""

    story: str | None = None
    participant: str | None = None
    session: str | None = None
    run: str | None = None
    task: str | None = None
    space: str | None = None
    atlas: str | None = None
    model: str | None = None
    feature: str | None = None

    def place(
        self, names: Names, logical: str, ext: str, labels: Mapping[str, str | None] | None = None
    ) -> Path:
        """Return the path of an output of this unit; ``labels`` are laid over its own.

        ``L.func.gii`` is the extension ``func.gii`` with the entity ``hemi-L``.
        """
        known, own = _entities(logical)
        side, ext = spaces.split_side(ext)
        mine = vars(self)
        given = {k: mine[k] for k in own if mine[k] is not None}
        if side is not None:
            labels = {**(labels or {}), "hemi": side}
        given.update({k: v for k, v in labels.items() if k in known} if labels else {})
        if "ext" in known:
            given["ext"] = ext
        return names.path(logical, given)

    def map_extensions(self, stat: str | None = None) -> list[str]:
        """Return the extensions of a map of this unit: table, images, sidecar."""
        return ["tsv", *spaces.image_extensions(self.space, self.atlas, stat), "json"]

    @property
    def is_everywhere(self) -> bool:
        """Tell whether maps have a value for every voxel, vertex or grayordinate."""
        return spaces.is_everywhere(self.atlas)

    def __str__(self) -> str:
        """Name the unit for people: ``sub-001 ses-1 run-1 black minilm embeddings``."""
        parts = [
            self.participant and f"sub-{self.participant}",
            self.session and f"ses-{self.session}",
            self.run and f"run-{self.run}",
            self.story,
            self.model,
            self.feature,
        ]
        return " ".join(p for p in parts if p)


_OWN = frozenset(entity.name for entity in fields(Unit))


@lru_cache(maxsize=256)
def _entities(logical: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the entities in the name of an output, and those of them that a unit has."""
    known = frozenset(re.findall(r"{(\w+)}", templates()[logical]))
    return known, tuple(sorted(known & _OWN))


class Later(Mapping[str, Path]):
    """Outputs that are named when somebody first asks for them.

    A study has a hundred thousand of them, and a dry run of it asks for none.

    Parameters
    ----------
    name : callable
        Returns the outputs. They are named at once where they are pickled.
    """

    def __init__(self, name: Callable[[], Mapping[str, Path]]) -> None:
        self._name = name

    @cached_property
    def _named(self) -> Mapping[str, Path]:
        """The outputs."""
        return self._name()

    def __getitem__(self, key: str) -> Path:
        """Return the path of an output."""
        return self._named[key]

    def __iter__(self) -> Iterator[str]:
        """Yield the keys."""
        return iter(self._named)

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(self._named)

    def values(self) -> ValuesView[Path]:
        """Return the paths."""
        return self._named.values()

    def __reduce__(self) -> tuple[type, tuple[Mapping[str, Path]]]:
        """Pickle the outputs, not how they are named."""
        return dict, (self._named,)


@dataclass(frozen=True)
class Job:
    """One piece of work with declared inputs and outputs.

    ``record`` is the JSON sidecar that is written last. ``outputs`` are all other files.
    ``sources`` are external inputs (hashed by content), ``upstream`` jobs whose outputs are
    read (their keys enter this key). ``facts`` are plain values found while planning. Jobs with
    the same ``group`` run in one call and share work.
    """

    step: str
    version: int
    unit: Unit
    record: Path
    outputs: Mapping[str, Path]
    sources: Mapping[str, Path] = field(default_factory=dict)
    upstream: tuple[Job, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    group: Hashable = None

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the content of the outputs."""
        return hashlib.sha256(canonical(self.ingredients()).encode()).hexdigest()

    def map_paths(self, key: str) -> dict[str, Path]:
        """Return table and images of a map by extension; its outputs are ``<key>.<ext>``."""
        start = f"{key}."
        found = {k[len(start) :]: p for k, p in self.outputs.items() if k.startswith(start)}
        return {extension: path for extension, path in found.items() if extension != "json"}

    def ingredients(self) -> dict[str, object]:
        """Return what the key is made of, as plain data."""
        return {
            "Name": self.step,
            "Version": self.version,
            "Unit": {k: v for k, v in vars(self.unit).items() if v is not None},
            "Parameters": plain(self.settings),
            "Facts": plain(self.facts),
            "Inputs": dict(sorted(self.fingerprints.items())),
            "Upstream": sorted(job.key for job in self.upstream),
        }


@dataclass(frozen=True)
class Resources:
    """What a step may use; never changes results."""

    out_dir: Path
    bids_dir: Path
    nprocs: int = 1
    mem_gb: float = 4.0
    device: str = "cpu"
    offline: bool = False
    models_dir: Path | None = None
    progress: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Outcome:
    """What became of a job: an error, or warnings."""

    job: Job
    error: Exception | None = None
    warnings: tuple[str, ...] = ()


def each(
    function: Callable[[T], R], items: Sequence[T], n_workers: int, *, writes: bool
) -> list[R]:
    """Call a function for each item in threads, in order of the items.

    Parameters
    ----------
    function : callable
    items : sequence
    n_workers : int
        Threads.
    writes : bool
        Whether the function writes files: an interruption then waits for calls that have begun
        (never for others), so that they take their temporary files away.
    """
    pool = ThreadPoolExecutor(max(1, n_workers))
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(wait=writes, cancel_futures=True)


def each_job(
    jobs: Sequence[Job],
    make: Callable[[Job], Sequence[str] | None],
    resources: Resources,
    what: str,
) -> list[Outcome]:
    """Make one job after the other and keep each one's error.

    Parameters
    ----------
    jobs : sequence of Job
    make : callable
        Makes a job; returns warnings, or nothing.
    resources : Resources
        Is told of every job.
    what : str
        What is made, for people.

    Returns
    -------
    list of Outcome
        In the order of the jobs.
    """
    outcomes = []
    for job in jobs:
        try:
            outcomes.append(Outcome(job, warnings=tuple(make(job) or ())))
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
        resources.progress(f"{job.unit}: {what}")
    return outcomes


def made_by(job: Job, step: str) -> Job:
    """Return the upstream job of a step."""
    return next(one for one in job.upstream if one.step == step)


def plain(value: object) -> object:
    """Return the value as JSON would give it back (tuples become lists, keys text)."""
    return json.loads(json.dumps(value, default=str))


def canonical(value: object) -> str:
    """Return JSON text that is equal for equal data."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def finish(job: Job, meta: Mapping[str, object]) -> None:
    """Write the job's record: description, key, ingredients and the sha256 of every output.

    Called last, so that a killed job leaves no record and is made again. ``Checksum`` is that
    of all its other entries, whatever their order: a record that changed is no record.
    """
    sums = {name: write.sha256_file(path) for name, path in sorted(_root_and_names(job)[1].items())}
    content = write.plain({**meta, **stamp(job), "Outputs": sums})
    write.write_json(job.record, {**content, "Checksum": _checksum(content)})


def _checksum(content: Mapping[str, object]) -> str:
    """Return the sha256 of a record's entries as JSON gives them back."""
    entries = {name: value for name, value in content.items() if name != "Checksum"}
    return hashlib.sha256(canonical(entries).encode()).hexdigest()


def is_whole(record: Mapping[str, object]) -> bool:
    """Tell whether the entries of a record are those that were written, if that can be told."""
    return "Checksum" not in record or record["Checksum"] == _checksum(record)


def stamp(job: Job) -> dict[str, object]:
    """Return the part of a sidecar that says how the file was made."""
    ingredients = job.ingredients()
    return {
        "SoftwareVersions": software.versions(job.step),
        "Key": job.key,
        "Step": {k: ingredients[k] for k in ("Name", "Version", "Parameters", "Facts", "Inputs")},
    }


def _root(job: Job) -> Path:
    """Return the deepest folder that holds the record and all outputs."""
    return Path(_root_and_names(job)[0])


def _root_and_names(job: Job) -> tuple[str, dict[str, Path]]:
    """Return the deepest folder of record and outputs, and the outputs' names below it.

    Text in place of paths: a resumed study has a hundred thousand of them.
    """
    folder = str(job.record.parent)
    paths = {str(path): path for path in job.outputs.values()}
    while not all(path.startswith(folder.rstrip(os.sep) + os.sep) for path in paths):
        folder = os.path.dirname(folder)
    start = len(folder.rstrip(os.sep)) + 1
    return folder, {text[start:].replace(os.sep, "/"): path for text, path in paths.items()}


def state(job: Job) -> str:
    """Tell whether a job is ``done``, ``missing`` (or damaged), or ``other`` (other key)."""
    try:
        stored = json.loads(job.record.read_bytes())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return "missing"
    if not isinstance(stored, dict) or "Key" not in stored:
        return "missing"
    if "Checksum" in stored and stored["Checksum"] != _checksum(stored):
        return "missing"
    if stored["Key"] != job.key:
        return "other"
    if "Checksum" not in stored:
        return "missing"
    sums = stored.get("Outputs", {})
    try:
        for name, path in _root_and_names(job)[1].items():
            if write.sha256_file(path) != sums.get(name):
                return "missing"
    except MissingInputError:
        return "missing"
    return "done"


def outputs_of_record(job: Job) -> set[Path]:
    """Return the files that the stored record of a job lists; empty if it cannot be read."""
    try:
        stored = json.loads(job.record.read_text(encoding="utf-8"))
        listed = stored.get("Outputs", {})
        names = [name for name in listed if isinstance(name, str)]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        return set()
    root = _root(job).resolve()
    paths = {root / name for name in names}
    return {path for path in paths if path.resolve().is_relative_to(root)}


def difference(job: Job) -> str:
    """Say in words in what a stored result differs from what is asked for."""
    stored = json.loads(job.record.read_text(encoding="utf-8"))
    step = stored.get("Step", {})
    wanted = job.ingredients()
    found = []
    for part in ("Version", "Parameters", "Facts", "Inputs"):
        old, new = step.get(part), wanted[part]
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            found += [f"{n} was {_short(old.get(n))}, now {_short(new.get(n))}" for n in names]
        else:
            found.append(f"{part} was {_short(old)}, now {_short(new)}")
    return "; ".join(found[:4]) or "an earlier step was made with other settings or inputs"


def _short(value: object) -> str:
    """Shorten a value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
