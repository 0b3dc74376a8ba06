"""Participant pages, the group page and the methods section, from the output folder alone.

The functions return what is to be written, by relative path; the caller writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import fsaverage5, grids, spaces, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import BrainLMError, DataError, ReadWriteError
from bids_brainlm.report import common, group, html, methods, participant
from bids_brainlm.report.content import (
    GroupStory,
    Labels,
    ParcelMap,
    Person,
    Recording,
    RunFacts,
    Words,
)
from bids_brainlm.steps import group_tables, intact
from bids_brainlm.steps.report_sidecars import sidecars
from bids_brainlm.steps.stimulus_files import decoding_of, representations_of, stimulus_files

NAME = "reports"
VERSION = 3

SCORE_STATS = ("unique", "p", "q")
"""Statistics of participants that a page shows, besides all that begin with r (scores)."""


def participant_report(
    out_dir: Path,
    participant_label: str,
    *,
    warnings: Sequence[str] = (),
    skipped: Sequence[tuple[str, str]] = (),
    failed: Sequence[tuple[str, str]] = (),
    settings: Mapping[str, object],
    command: str,
    version: str,
) -> dict[str, bytes | str]:
    """Make the page of one participant and its figure files.

    Parameters
    ----------
    out_dir : Path
        The output dataset.
    participant_label : str
        Label without prefix.
    warnings : sequence of str
        Shown in the first section, with those of the sidecars.
    skipped, failed : sequence of (str, str)
        What and why.
    settings : mapping
        Settings by name, or by section and name.
    command : str
        The command line.
    version : str
        Version of the app.

    Returns
    -------
    dict
        Content by path relative to ``out_dir``: ``sub-<id>.html`` and figures.

    Raises
    ------
    ReadWriteError
        An output cannot be read back.

    Notes
    -----
    Equal files and arguments give equal bytes: there is no date on the page.
    """
    names = Names(out_dir)
    facts = RunFacts(settings, command, version, tuple(warnings), tuple(skipped), tuple(failed))

    def naming(figure: str, ext: str, **more: str | None) -> str:
        labels = {"participant": participant_label, "figure": figure, "ext": ext, **more}
        return _relative(names, "participant_figure", labels)

    path = _relative(names, "participant_report", {"participant": participant_label})
    intact.check_folder((out_dir / path).with_suffix(""))  # other stories' too: no job saw them
    page = participant.participant_page(
        participant_label, recordings(names, participant_label), facts, naming
    )
    return {path: html.render(page), **{p.path: p.data for p in page.pictures()}}


def group_report(
    out_dir: Path,
    *,
    warnings: Sequence[str] = (),
    skipped: Sequence[tuple[str, str]] = (),
    failed: Sequence[tuple[str, str]] = (),
    settings: Mapping[str, object],
    command: str,
    version: str,
) -> dict[str, bytes | str]:
    """Make the group's page and its figure files.

    Parameters
    ----------
    out_dir, warnings, skipped, failed, settings, command, version
        As for `participant_report`.

    Returns
    -------
    dict
        Content by path relative to ``out_dir``: ``group.html`` and figures.

    Raises
    ------
    ReadWriteError
        An output cannot be read back.
    """
    names = Names(out_dir)
    facts = RunFacts(settings, command, version, tuple(warnings), tuple(skipped), tuple(failed))

    def naming(figure: str, ext: str, **more: str | None) -> str:
        return _relative(names, "group_figure", {"figure": figure, "ext": ext, **more})

    text = methods.write(sidecars(names, version))
    page = group.group_page(group_stories(names), facts, naming, text)
    path = _relative(names, "group_report", {})
    return {path: html.render(page), **{p.path: p.data for p in page.pictures()}}


def citation(out_dir: Path, *, version: str) -> dict[str, str]:
    """Write the methods section from the sidecars of all outputs.

    Parameters
    ----------
    out_dir : Path
        The output dataset.
    version : str
        Version of the app.

    Returns
    -------
    dict
        Markdown by relative path (``logs/CITATION.md``).

    Raises
    ------
    ReadWriteError
        A sidecar cannot be read.
    """
    names = Names(out_dir)
    text = methods.markdown(methods.write(sidecars(names, version, damaged=True)))
    return {_relative(names, "citation", {}): text}


def _relative(names: Names, logical: str, labels: Mapping[str, str | None]) -> str:
    """Return the relative path of an output."""
    return names.relative(names.path(logical, labels))


def _json(path: Path) -> dict[str, object]:
    """Read a sidecar; an absent one is empty."""
    return write.read_json(path) if path.is_file() else {}


def _damaged(path: Path, why: object) -> ReadWriteError:
    """Return the error for an output that cannot be read back."""
    return ReadWriteError(
        f"{path.name} cannot be read for the report: {why}.",
        hint="Remove the file and run again, or make the results anew with --overwrite.",
    )


def _value(text: str) -> float:
    """Read a number; ``n/a`` is NaN."""
    return float("nan") if text in ("n/a", "") else float(text)


def _map(names: Names, path: Path, entities: Mapping[str, str]) -> ParcelMap:
    """Read a parcel table with its sidecar."""
    table = write.read_tsv(path)
    columns = tuple(c for c in table if c not in ("index", "name"))
    try:
        index, labels = tuple(int(k) for k in table["index"]), tuple(table["name"])
        values = np.array([[_value(v) for v in table[c]] for c in columns], dtype=float)
    except (KeyError, ValueError) as error:
        raise _damaged(path, error) from None
    return ParcelMap(
        path=names.relative(path),
        desc=entities.get("desc", ""),
        stat=entities["stat"],
        index=index,
        names=labels,
        columns=columns,
        values=values.reshape(len(columns), len(index)).T,
        meta=_json(path.with_suffix(".json")),
    )


def _words(names: Names, story: str) -> Words | None:
    """Read the aligned words of a story."""
    path = names.path("words", {"story": story, "ext": "tsv"})
    meta = _json(path.with_suffix(".json"))
    if not path.is_file() or "NumberOfRows" not in meta:
        return None
    table = write.read_tsv(path)
    numbers = np.array([-1 if k == "n/a" else int(float(k)) for k in table["row"]], dtype=int)
    inside = [word for word, k in zip(table["word"], numbers, strict=True) if k >= 0]
    first, last = (inside[0], inside[-1]) if inside else ("–", "–")
    return Words(story, names.relative(path), numbers, first, last, meta)


def _labels(names: Names, entities: Mapping[str, str | None]) -> Labels | None:
    """Read the atlas on the grid of a run."""
    wanted = {k: v for k, v in entities.items() if v is not None}
    side, ext = spaces.split_side(
        spaces.image_extensions(wanted.get("space"), wanted.get("atlas"), "label")[0]
    )
    place = {**wanted, "desc": None, "stat": "label", "hemi": side, "ext": ext}
    path = next(iter(names.find("boldmap", place)), None)
    if path is None:
        return None
    own = {**names.parse(path)[1], "hemi": None}
    sidecar = names.path("boldmap", {**own, "ext": "json"})
    anatomical = _json(sidecar).get("Anatomical") is not False
    table = sidecar.with_suffix(".tsv")
    columns = write.read_tsv(table) if table.is_file() else {"index": []}
    by_number = {
        int(number): {c: columns[c][k] for c in columns}
        for k, number in enumerate(columns["index"])
    }
    try:
        values, affine, grid = grids.read_labels(path)
    except BrainLMError as error:
        raise _damaged(path, error.message) from None
    values = values.astype(np.int32)
    drawn = values if grid is None else fsaverage5.on_fsaverage5(values, grid)
    space = own["space"] if anatomical and drawn is not None else ""
    image = values.ravel() if drawn is None else drawn
    return Labels(names.relative(path), space, image, affine, by_number)


def recordings(names: Names, label: str, *, story: str | None = None) -> list[Recording]:
    """Read everything about a participant, one record a run.

    Parameters
    ----------
    names : Names
    label : str
        Of the participant, without prefix.
    story : str, optional
        Only this one.

    Returns
    -------
    list of Recording
    """
    labels = {"participant": label, **({} if story is None else {"story": story})}
    keys = ("story", "session", "run", "space", "atlas")
    groups: dict[tuple[str | None, ...], dict[tuple[str, str], Path]] = {}
    for path in names.find("timeseries", {**labels, "ext": "json"}):
        entities = names.parse(path)[1]
        groups.setdefault(tuple(entities.get(k) for k in keys), {})
    for path in names.find("boldmap", {**labels, "ext": "tsv"}):
        entities = names.parse(path)[1]
        maps = groups.setdefault(tuple(entities.get(k) for k in keys), {})
        if entities["stat"] in SCORE_STATS or entities["stat"].startswith("r"):
            maps[entities.get("desc", ""), entities["stat"]] = path
    ordered = sorted(groups, key=lambda key: tuple(k or "" for k in key))
    return [_recording(names, label, dict(zip(keys, k, strict=True)), groups[k]) for k in ordered]


def _recording(
    names: Names, label: str, place: dict[str, str | None], paths: Mapping[tuple[str, str], Path]
) -> Recording:
    """Read one run."""
    series = names.path("timeseries", {"participant": label, **place, "ext": "json"})
    maps = {k: _map(names, p, names.parse(p)[1]) for k, p in sorted(paths.items())}
    return Recording(
        participant=label,
        **place,
        words=_words(names, place["story"]),
        series_path=names.relative(series) if series.is_file() else None,
        series_meta=_json(series),
        labels=_labels(names, {"participant": label, **place}),
        maps=maps,
        stimulus=stimulus_files(names, str(place["story"])),
    )


def group_stories(names: Names, *, story: str | None = None) -> list[GroupStory]:
    """Read the group's maps, one record a story.

    Parameters
    ----------
    names : Names
    story : str, optional
        Only this one.

    Returns
    -------
    list of GroupStory
    """
    labels = {} if story is None else {"story": story}
    keys = ("story", "space", "atlas")
    groups: dict[tuple[str, ...], dict[tuple[str, str], ParcelMap]] = {}
    for path in names.find("group_boldmap", {**labels, "ext": "tsv"}):
        entities = names.parse(path)[1]
        maps = groups.setdefault(tuple(entities[k] for k in keys), {})
        maps[entities.get("desc", ""), entities["stat"]] = _map(names, path, entities)
    places = {key: dict(zip(keys, key, strict=True)) for key in sorted(groups)}
    found = [_group_story(names, place, groups[key]) for key, place in places.items()]
    return group_tables.with_regions(found)


def _own_map(names: Names, path: Path, entities: Mapping[str, str]) -> ParcelMap:
    """Read a participant's table; one that is damaged is an error as in `intact.check`."""
    try:
        return _map(names, path, entities)
    except (DataError, ReadWriteError) as error:
        raise DataError(error.message, hint=intact.HINT) from None


def _group_story(
    names: Names, place: dict[str, str], maps: Mapping[tuple[str, str], ParcelMap]
) -> GroupStory:
    """Add what participants contributed to the group's maps."""
    people: dict[str, dict[tuple[str, str], list[ParcelMap]]] = {}
    read: list[Path] = []
    for stat in ("r", "unique"):
        for path in names.find("boldmap", {**place, "stat": stat, "ext": "tsv"}):
            entities = names.parse(path)[1]
            mine = people.setdefault(entities["participant"], {})
            key = (entities.get("desc", ""), stat)
            mine.setdefault(key, []).append(_own_map(names, path, entities))
            read.append(path)
    metas = [m.meta for mine in people.values() for several in mine.values() for m in several]
    intact.check(read, intact.sums_of(metas))  # a job that is done did not look at them again
    for path in names.find("timeseries", {**place, "ext": "json"}):
        people.setdefault(names.parse(path)[1]["participant"], {})
    ordered = sorted(people)
    scores = {}
    for desc in {d for d, stat in maps if stat == "mean"}:
        for stat in ("r", "unique"):
            runs = [people[p].get((desc, stat), []) for p in ordered]
            found = group_tables.stack_people(maps[desc, "mean"], runs)
            if found is not None:
                scores[desc, stat] = found
    return GroupStory(
        **place,
        labels=_labels(names, place) or _labels(names, {**place, "story": None}),
        maps=maps,
        people=tuple(_person(names, place, p, people[p]) for p in ordered),
        scores=scores,
        stimulus=stimulus_files(names, place["story"]),
        representations=representations_of(names, place["story"]),
        decoding=decoding_of(names, place["story"]),
        comparison=group_tables.comparison_of(names, place),
        components=group_tables.components_of(names, place),
        alignment=_json(names.path("alignment", {**place, "ext": "json"})),
    )


def _person(
    names: Names,
    place: Mapping[str, str],
    label: str,
    maps: Mapping[tuple[str, str], Sequence[ParcelMap]],
) -> Person:
    """Collect what the table of participants shows."""
    metas = [
        _json(p) for p in names.find("timeseries", {"participant": label, **place, "ext": "json"})
    ]
    edges = [
        edge[0] + edge[1]
        for items in maps.values()
        for item in items
        if item.stat == "r" and (edge := common.edge_shares(item.meta)) is not None
    ]
    motion = [
        float(m["MeanFramewiseDisplacement"])
        for m in metas
        if m.get("MeanFramewiseDisplacement") is not None
    ]
    return Person(
        participant=label,
        n_runs=len(metas),
        n_volumes=sum(int(m.get("NumberOfVolumes") or 0) for m in metas),
        edge_share=float(np.mean(edges)) if edges else None,
        motion=float(np.mean(motion)) if motion else None,
    )
