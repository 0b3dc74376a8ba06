"""Read what one preset made: group maps, sidecars of participants, and times from the logs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import OutputError
from bids_brainlm.report import common
from bids_brainlm.steps import regions

INTERVAL = ("ci_low", "ci_high")
Key = tuple[str, str, str]
"""Story, space and atlas."""


@dataclass(frozen=True)
class Map:
    """A group map; ``values`` has shape (n_parcels, n_columns), intervals left out."""

    path: Path
    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray

    @property
    def best(self) -> str:
        """Return the column whose mean over parcels is highest."""
        return common.best_column(self.values, self.columns)

    def column(self, name: str) -> np.ndarray:
        """Return one column, shape (n_parcels,); NaN where the map lacks it."""
        if name not in self.columns:
            return np.full(len(self.names), np.nan)
        return self.values[:, self.columns.index(name)]

    def at(self, names: tuple[str, ...], column: str) -> np.ndarray:
        """Return one column for the named parcels, NaN where there is none."""
        known = dict(zip(self.names, self.column(column), strict=True))
        return np.array([known.get(name, np.nan) for name in names], float)


class Tree:
    """The output folder of one preset.

    Parameters
    ----------
    root : Path
        An output dataset of the app.
    """

    def __init__(self, root: Path) -> None:
        self.names = Names(root)

    def places(self) -> dict[Key, set[str]]:
        """Return the feature spaces with group means, by story, space and atlas.

        Nuisance bands and partial correlations are no scores of a feature space.
        """
        found: dict[Key, set[str]] = {}
        for path in self.names.find("group_boldmap", {"stat": "mean", "ext": "tsv"}):
            entities = self.names.parse(path)[1]
            desc = entities.get("desc", "")
            if desc and desc != "nuisance" and not desc.endswith("Partial"):
                key = entities["story"], entities["space"], entities["atlas"]
                found.setdefault(key, set()).add(desc)
        return found

    def map(self, key: Key, stat: str, desc: str | None = None) -> Map | None:
        """Read a group map; None where there is none."""
        path = self._group(key, stat, desc, "tsv")
        if not path.is_file():
            return None
        _, names, columns, values = read_map(path)
        keep = [k for k, name in enumerate(columns) if name not in INTERVAL]
        return Map(path, tuple(names), tuple(columns[k] for k in keep), values[:, keep])

    def meta(self, key: Key, stat: str, desc: str | None = None) -> Mapping[str, object]:
        """Read the sidecar of a group map; empty where there is none."""
        path = self._group(key, stat, desc, "json")
        return write.read_json(path) if path.is_file() else {}

    def _group(self, key: Key, stat: str, desc: str | None, ext: str) -> Path:
        """Return the path of a group map."""
        place = dict(zip(("story", "space", "atlas"), key, strict=True))
        return self.names.path("group_boldmap", {**place, "desc": desc, "stat": stat, "ext": ext})

    def people(self, key: Key, desc: str) -> list[tuple[str, Path]]:
        """Return label and sidecar of r of every run that the group map is made of."""
        wanted = set(self.meta(key, "mean", desc).get("Participants") or ())
        place = dict(zip(("story", "space", "atlas"), key, strict=True))
        place["atlas"] = place["atlas"].removesuffix(regions.ENDING)
        labels = {**place, "desc": desc, "stat": "r", "ext": "json"}
        found = [
            (self.names.parse(p)[1]["participant"], p) for p in self.names.find("boldmap", labels)
        ]
        return [(label, path) for label, path in found if label in wanted]

    def n_people(self, key: Key, desc: str) -> int:
        """Return the number of participants of a group map, 0 where there is none."""
        return int(self.meta(key, "mean", desc).get("NumberOfParticipants") or 0)

    def scores(self, key: Key, desc: str, column: str) -> dict[str, float]:
        """Return each participant's mean r over parcels in a column; runs are averaged."""
        runs: dict[str, list[float]] = defaultdict(list)
        for label, path in self.people(key, desc):
            _, _, columns, values = read_map(path.with_suffix(".tsv"))
            if column in columns:
                runs[label].append(common.mean(values[:, columns.index(column)]))
        return {label: float(np.mean(several)) for label, several in runs.items()}

    @cached_property
    def jobs(self) -> list[tuple[str, list[str], float]]:
        """Return step, outputs and time in s of every job, the last making of each.

        Failed jobs and jobs that a call found done are left out; so are lines that a killed
        call left unfinished.
        """
        last: dict[tuple[str, ...], tuple[str, list[str], float]] = {}
        for path in self.logs():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry.get("skipped") or entry.get("error") is not None:
                    continue
                outputs = [str(name) for name in entry["outputs"]]
                key = (entry["step"], entry["unit"], *outputs)
                last[key] = (str(entry["step"]), outputs, float(entry["seconds"]))
        return list(last.values())

    def logs(self) -> list[Path]:
        """Return the logs of jobs, oldest first."""
        return self.names.find("run_records")

    def seconds_by_step(self) -> dict[str, float]:
        """Return the time of each step in s, in the order of first use."""
        found: dict[str, float] = {}
        for step, _, seconds in self.jobs:
            found[step] = found.get(step, 0.0) + seconds
        return found

    def seconds_of(self, key: Key, desc: str) -> float:
        """Return the time in s of the jobs that write maps of one feature space.

        Those of the participants' maps and of the group's.
        """
        base = (key[0], key[1], key[2].removesuffix(regions.ENDING))
        return sum(
            s for _, outputs, s in self.jobs if any(self._is(o, base, desc) for o in outputs)
        )

    def _is(self, output: str, key: Key, desc: str) -> bool:
        """Tell whether an output is a map of a feature space."""
        try:
            logical, entities = self.names.parse(output)
        except OutputError:
            return False
        place = (entities.get("story"), entities.get("space"), entities.get("atlas"))
        return (
            logical in ("boldmap", "group_boldmap")
            and place == key
            and entities.get("desc") == desc
        )
