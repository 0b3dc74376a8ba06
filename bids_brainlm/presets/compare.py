"""From the two output folders to the table and the page of their differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_brainlm import __version__, config
from bids_brainlm.bidsio import write
from bids_brainlm.presets import settings
from bids_brainlm.presets.settings import PRESETS
from bids_brainlm.presets.trees import Key, Map, Tree
from bids_brainlm.report import common, html
from bids_brainlm.report import presets as report
from bids_brainlm.report.presets_content import (
    MEASURES,
    Facts,
    Place,
    Row,
    Setting,
    SpaceScores,
)
from bids_brainlm.report.spaces import feature_order

# Names of files beside the two output folders; those inside come from data/outputs.json.
PAGE, TABLE, SIDECAR = "presets.html", "presets.tsv", "presets.json"
FIGURE = "figures/presets_{story}_{figure}.{ext}"
ORDER = list(MEASURES)


def write_comparison(out_dir: Path, calls: Sequence[Sequence[config.Config]]) -> Path:
    """Compare both folders and write page, table, sidecar and figures.

    Parameters
    ----------
    out_dir : Path
        Holds one output folder a preset.
    calls : sequence of sequence of Config
        Settings of the levels that were run, one sequence a preset.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        A map is damaged.
    ReadWriteError
        Reading or writing failed.

    Notes
    -----
    Files whose content is the same are left alone.
    """
    out_dir = out_dir.absolute()
    trees = [Tree(out_dir / name) for name in PRESETS]
    rows, places = collect(out_dir, trees)
    facts = _facts(out_dir, trees, calls)

    def naming(figure: str, ext: str, *, story: str) -> str:
        return FIGURE.format(figure=figure, ext=ext, story=story)

    page = report.page(rows, places, facts, naming)
    files = {p.path: p.data for p in page.pictures()}
    files[TABLE] = write.tsv_text(_table(rows)).encode()
    files[SIDECAR] = _json(_sidecar(facts))
    files[PAGE] = html.render(page).encode()
    for name, data in files.items():
        path = out_dir / name
        if not path.is_file() or path.read_bytes() != data:
            write.write_bytes(path, data)
    return out_dir / PAGE


def collect(out_dir: Path, trees: Sequence[Tree]) -> tuple[list[Row], list[Place]]:
    """Read all measures from two trees.

    Parameters
    ----------
    out_dir : Path
        Files are named relative to it.
    trees : sequence of Tree
        One for each of `PRESETS`.

    Returns
    -------
    rows : list of Row
        One a story, feature space and measure; NaN or None where a preset lacks it.
    places : list of Place
        What the figures show.
    """
    found = [tree.places() for tree in trees]
    rows: list[Row] = []
    places: list[Place] = []
    for key in sorted({*found[0], *found[1]}):
        descs = sorted({*found[0].get(key, ()), *found[1].get(key, ())}, key=feature_order)
        reader = _Reader(out_dir, trees, key)
        for desc in descs:
            rows += reader.rows(desc)
        isc, isc_files, isc_rows = reader.isc()
        rows += isc_rows
        spaces = [space for desc in descs if (space := reader.scores(desc)) is not None]
        n_people = tuple(max((t.n_people(key, d) for d in descs), default=0) for t in trees)
        places.append(Place(*key, n_people, tuple(spaces), isc, isc_files))
    totals = tuple(sum(tree.seconds_by_step().values()) for tree in trees)
    folders = tuple(_relative(out_dir, t.logs()[0].parent) if t.logs() else "" for t in trees)
    rows.append(Row(None, None, None, None, "runtime", totals, folders))
    return rows, places


class _Reader:
    """Reads one story, space and atlas from both trees."""

    def __init__(self, out_dir: Path, trees: Sequence[Tree], key: Key) -> None:
        self.out_dir, self.trees, self.key = out_dir, trees, key

    def _pair(self, stat: str, desc: str | None = None) -> tuple[Map | None, Map | None]:
        """Read a group map of both presets."""
        return tuple(tree.map(self.key, stat, desc) for tree in self.trees)

    def _row(self, desc: str | None, measure: str, values, files) -> Row:
        """Make a row; a missing file is an empty name."""
        names = tuple("" if f is None else _relative(self.out_dir, f) for f in files)
        return Row(*self.key, desc, measure, tuple(values), names)

    def rows(self, desc: str) -> list[Row]:
        """Return all measures of one feature space."""
        means = self._pair("mean", desc)
        best = [None if m is None else m.best for m in means]
        paths = [None if m is None else m.path for m in means]
        same = best[0] or best[1]
        found = {
            "mean_r": [_mean(m, c) for m, c in zip(means, best, strict=True)],
            "same_r": [_mean(m, same) for m in means],
            "highest_r": [_highest(m, c) for m, c in zip(means, best, strict=True)],
            "best": best,
        }
        rows = [self._row(desc, key, values, paths) for key, values in found.items()]
        q = self._pair("q", desc)
        fdr = [common.fdr_of(tree.meta(self.key, "mean", desc)) for tree in self.trees]
        counts = [_count(m, c, f) for m, c, f in zip(q, best, fdr, strict=True)]
        rows.append(self._row(desc, "n_significant", counts, [m and m.path for m in q]))
        for stat, measure in (("unique", "unique_r2"), ("normalized", "normalized")):
            pair = self._pair(stat, desc)
            values = [_mean(m, c) for m, c in zip(pair, best, strict=True)]
            rows.append(self._row(desc, measure, values, [m and m.path for m in pair]))
            if stat == "normalized":
                n = [_count(m, c, np.inf) for m, c in zip(pair, best, strict=True)]
                rows.append(self._row(desc, "n_normalized", n, [m and m.path for m in pair]))
        rows += self._sidecars(desc, best)
        seconds = [
            None if m is None else tree.seconds_of(self.key, desc)
            for m, tree in zip(means, self.trees, strict=True)
        ]
        logs = [tree.logs()[0].parent if tree.logs() else None for tree in self.trees]
        rows.append(self._row(desc, "runtime", seconds, logs))
        return sorted(rows, key=lambda row: ORDER.index(row.measure))

    def _sidecars(self, desc: str, best: Sequence[str | None]) -> list[Row]:
        """Return what the sidecars of participants state: leakage, and significant parcels."""
        values: dict[str, list] = {"n_significant_people": [], "leaks": [], "least_distance": []}
        files = []
        for tree, column in zip(self.trees, best, strict=True):
            paths = [path for _, path in tree.people(self.key, desc)]
            metas = [write.read_json(path) for path in paths]
            audits = [m["Leakage"] for m in metas if isinstance(m.get("Leakage"), Mapping)]
            distances = [a["LeastDistance"] for a in audits if a.get("LeastDistance") is not None]
            counts = [
                m["Inference"]["NumberOfSignificant"].get(column)
                for m in metas
                if isinstance(m.get("Inference"), Mapping)
            ]
            counts = [float(c) for c in counts if c is not None]
            values["n_significant_people"].append(float(np.mean(counts)) if counts else None)
            values["leaks"].append(any(a["Leaks"] for a in audits) if audits else None)
            values["least_distance"].append(float(min(distances)) if distances else None)
            files.append(paths[0] if paths else None)
        return [self._row(desc, measure, pair, files) for measure, pair in values.items()]

    def isc(self) -> tuple[np.ndarray, tuple[str, ...], list[Row]]:
        """Return intersubject correlations of both, (2, n_parcels), their files, and a row."""
        first, second = self._pair("isc")
        if first is None or second is None:
            return np.zeros((2, 0)), (), []
        values = np.stack([m.at(first.names, "value") for m in (first, second)])
        means = [_mean(m, "value") for m in (first, second)]
        row = self._row(None, "mean_isc", means, [first.path, second.path])
        return values, row.files, [row]

    def scores(self, desc: str) -> SpaceScores | None:
        """Return what the figures show of one feature space; None where a preset lacks it."""
        maps = self._pair("mean", desc)
        if maps[0] is None or maps[1] is None:
            return None
        column, names = maps[0].best, maps[0].names
        people = [t.scores(self.key, desc, m.best) for t, m in zip(self.trees, maps, strict=True)]
        both = sorted(people[0].keys() & people[1].keys())
        meta = self.trees[0].meta(self.key, "mean", desc)
        return SpaceScores(
            desc=desc,
            name=common.feature_words(desc, meta),
            column=column,
            r=np.stack([m.at(names, column) for m in maps]),
            people=np.array([[one[label] for label in both] for one in people], float),
            files=tuple(_relative(self.out_dir, m.path) for m in maps),
        )


def _mean(found: Map | None, column: str | None) -> float | None:
    """Mean over parcels of a column; None where there is no value."""
    if found is None or column is None:
        return None
    value = common.mean(found.column(column))
    return value if np.isfinite(value) else None


def _highest(found: Map | None, column: str | None) -> float | None:
    """Return the highest value of a column; None where there is no value."""
    values = np.array([]) if found is None or column is None else found.column(column)
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else None


def _count(found: Map | None, column: str | None, limit: float) -> float | None:
    """Count the parcels whose value is at most a limit; NaN never is."""
    if found is None or column is None:
        return None
    return float((found.column(column) <= limit).sum())


def _relative(out_dir: Path, path: Path) -> str:
    """Return a path below the folder, with forward slashes."""
    return path.relative_to(out_dir).as_posix()


def _table(rows: Sequence[Row]) -> dict[str, list[object]]:
    """Return the columns of the table."""
    return {
        "story": [r.story for r in rows],
        "space": [r.space for r in rows],
        "atlas": [r.atlas for r in rows],
        "desc": [r.desc for r in rows],
        "measure": [r.measure for r in rows],
        **{name: [_cell(r.values[k]) for r in rows] for k, name in enumerate(PRESETS)},
        "difference": [r.difference for r in rows],
        **{f"{name}_file": [r.files[k] for r in rows] for k, name in enumerate(PRESETS)},
    }


def _cell(value: object) -> object:
    """Write a truth value as a word."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _json(content: Mapping[str, object]) -> bytes:
    """Write JSON."""
    text = json.dumps(write.plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _sidecar(facts: Facts) -> dict[str, object]:
    """Describe the table, and the settings that differ."""
    first, second = PRESETS
    return {
        "Description": f"preset {second} against preset {first} on the same data",
        "story": {"Description": "story; n/a: all stories together"},
        "desc": {"Description": "feature space; n/a: a measure of the story"},
        "measure": {"Levels": {m.key: m.text for m in MEASURES.values()}},
        first: {"Description": f"value with --preset {first}"},
        second: {"Description": f"value with --preset {second}"},
        "difference": {"Description": f"{second} minus {first}; n/a where these are no numbers"},
        f"{first}_file": {"Description": "where the value comes from, or the first of such files"},
        f"{second}_file": {"Description": "where the value comes from, or the first of such files"},
        "Units": {m.key: m.unit for m in MEASURES.values() if m.unit},
        "Settings": [
            {
                "Flag": s.flag,
                first: s.values[0],
                second: s.values[1],
                "Reason": s.reason,
                "ActsOn": list(s.acts_on),
                "Unused": s.unused or None,
            }
            for s in facts.settings
        ],
        "Overridden": [
            {"Flag": flag, "Used": value, first: own[0], second: own[1]}
            for flag, value, own in facts.levelled
        ],
        "Commands": list(facts.commands),
        "GeneratedBy": {"Name": "bids_brainlm-presets", "Version": __version__},
    }


def _facts(out_dir: Path, trees: Sequence[Tree], calls: Sequence[Sequence[config.Config]]) -> Facts:
    """Collect how both presets were run."""
    times = [tree.seconds_by_step() for tree in trees]
    steps = list(dict.fromkeys([*times[0], *times[1]]))
    first, second = calls[0][0], calls[1][0]
    reports = [tree.names.path("group_report") for tree in trees]
    return Facts(
        presets=PRESETS,
        commands=tuple(config.command(one) for several in calls for one in several),
        steps=tuple((s, times[0].get(s, 0.0), times[1].get(s, 0.0)) for s in steps),
        settings=tuple(
            Setting(d.flag, d.values, d.reason, d.acts_on, d.unused)
            for d in settings.differences(first, second)
        ),
        levelled=tuple(
            (settings.flag(name), value, own)
            for name, value, own in settings.levelled(first, second)
        ),
        table=TABLE,
        reports=tuple(_relative(out_dir, path) for path in reports),
        logs=tuple(_relative(out_dir, path) for tree in trees for path in tree.logs()[:2]),
        version=__version__,
    )
