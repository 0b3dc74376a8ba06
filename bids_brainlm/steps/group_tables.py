"""Tables of the group level, as the pages show them.

A helper of the reports, not a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.report.content import Comparison, GroupStory, HeadComponents, ParcelMap
from bids_brainlm.steps import regions

NUMBERS = ("n_participants", "difference", "low", "high", "effect", "p", "q", "p_fwe")


def comparison_of(names: Names, place: Mapping[str, str]) -> Comparison | None:
    """Read the comparison of feature spaces of one story and atlas.

    Parameters
    ----------
    names : Names
    place : mapping of str to str
        ``story``, ``space`` and ``atlas``.

    Returns
    -------
    Comparison or None
        None where nothing was compared.
    """
    path = names.path("comparison", {**place, "ext": "tsv"})
    if not path.is_file():
        return None
    table = write.read_tsv(path)
    regions = list(dict.fromkeys(table["region"]))
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    shape = (len(pairs), len(regions))
    values = {name: _numbers(table[name]).reshape(shape) for name in NUMBERS}
    scores = names.path("scores", {**place, "ext": "tsv"})
    return Comparison(
        path=names.relative(path),
        scores_path=names.relative(scores),
        regions=tuple(regions),
        pairs=tuple(pairs),
        values=values,
        scores=_chosen(scores, regions),
        meta=write.read_json(path.with_suffix(".json")),
    )


def _chosen(path: Path, regions: list[str]) -> dict[str, np.ndarray]:
    """Return participants' r at the chosen column of each space, (n_people, n_regions)."""
    table = write.read_tsv(path)
    r = _numbers(table["r"])
    people = sorted(set(table["participant"]))
    person = {name: k for k, name in enumerate(people)}
    place = {name: k for k, name in enumerate(regions)}
    found: dict[str, np.ndarray] = {}
    keys = zip(table["desc"], table["participant"], table["region"], table["chosen"], strict=True)
    for k, (desc, participant, region, chosen) in enumerate(keys):
        if chosen != "1" or region not in place:
            continue
        whole = found.setdefault(desc, np.full((len(people), len(regions)), np.nan))
        whole[person[participant], place[region]] = r[k]
    return found


def components_of(names: Names, place: Mapping[str, str]) -> tuple[HeadComponents, ...]:
    """Read the components of heads of one story and atlas, one record a model.

    Parameters
    ----------
    names : Names
    place : mapping of str to str
        ``story``, ``space`` and ``atlas``.

    Returns
    -------
    tuple of HeadComponents
    """
    found = []
    for path in names.find("head_scores", {**place, "ext": "tsv"}):
        desc = names.parse(path)[1]["desc"]
        labels = {**place, "desc": desc, "ext": "tsv"}
        heads = write.read_tsv(path)
        parts = write.read_tsv(names.path("components", labels))
        linked_path = names.path("associations", labels)
        linked = write.read_tsv(linked_path)
        components = parts["component"]
        covariates = list(dict.fromkeys(linked["covariate"]))
        shape = (len(components), len(covariates))
        record = names.path("group_boldmap", {**labels, "stat": "loading", "ext": "json"})
        found.append(
            HeadComponents(
                desc=desc,
                path=names.relative(path),
                associations_path=names.relative(linked_path),
                heads=tuple(heads["head"]),
                layers=tuple(int(v) for v in heads["layer"]),
                lookback=_numbers(heads["lookback"]) if "lookback" in heads else None,
                scores=np.column_stack([_numbers(heads[c]) for c in components]),
                share=_numbers(parts["share"]),
                agreement=_numbers(parts["agreement"]),
                null_95=_numbers(parts["null_95"]),
                p=_numbers(parts["p"]),
                reliability=_numbers(parts["reliability"]),
                covariates=tuple(covariates),
                associations={
                    k: _numbers(linked[k]).reshape(shape)
                    for k in ("rho", "p", "q", "rhowithin", "pwithin", "qwithin")
                },
                meta=write.read_json(record),
            )
        )
    return tuple(found)


def with_regions(stories: Sequence[GroupStory]) -> list[GroupStory]:
    """Put results for regions of interest beside those of the parcels that they are made of.

    Parameters
    ----------
    stories : sequence of GroupStory

    Returns
    -------
    list of GroupStory
        Those of atlases, each with its regions where there are any.
    """
    places = {(s.story, s.space, s.atlas): s for s in stories}
    found = []
    for one in stories:
        base = one.atlas.removesuffix(regions.ENDING)
        if base != one.atlas and (one.story, one.space, base) in places:
            continue
        own = places.get((one.story, one.space, one.atlas + regions.ENDING))
        found.append(replace(one, regions=own))
    return found


def stack_people(template: ParcelMap, maps: Sequence[Sequence[ParcelMap]]) -> np.ndarray | None:
    """Put participants' maps beside each other.

    Parameters
    ----------
    template : ParcelMap
        The group's map, whose parcels and columns count.
    maps : sequence of sequence of ParcelMap
        Runs of each participant, which are averaged.

    Returns
    -------
    array, shape (n_people, n_parcels, n_columns), or None
        None where nobody has a map.
    """
    if not any(maps):
        return None
    whole = np.full((len(maps), *template.values.shape), np.nan)
    for number, runs in enumerate(maps):
        layers = [
            np.column_stack([run.column(c) for c in template.columns])
            for run in runs
            if run.index == template.index
        ]
        if layers:
            whole[number] = _mean_runs(np.stack(layers))
    return whole


def _mean_runs(values: np.ndarray) -> np.ndarray:
    """Mean over runs of one participant; NaN only where every run is NaN."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _numbers(texts: list[str]) -> np.ndarray:
    """Read numbers; ``n/a`` is NaN."""
    return np.array([np.nan if t == "n/a" else float(t) for t in texts], float)
