"""The group page's part on control ladders."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common, figures_ladder
from bids_brainlm.report.common import Naming, fdr_of, mean, number
from bids_brainlm.report.content import (
    Column,
    GroupStory,
    Notice,
    ParcelMap,
    Picture,
    Section,
    Table,
    Text,
)
from bids_brainlm.report.figures_ladder import Panel
from bids_brainlm.report.regions import regions_of

N_PARCELS = 11
"""Parcels that get a panel where there are no regions, besides their mean."""

WORDS = {
    "position": "position",
    "wordrate": "word rate, silence",
    "phonemes": "phonemes",
    "acoustics": "acoustics",
    "recordings": "recordings",
    "linguistic": "linguistic",
    "static": "static vectors",
    "untrained": "untrained model",
    "trained": "trained model",
}


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show the control ladders of a story.

    Parameters
    ----------
    story : GroupStory
    place : str
        Anchor of the story's section.
    naming : callable
        Gives a figure its path.

    Returns
    -------
    Section or None
        None where there is no ladder.
    """
    descs = sorted(desc for desc, stat in story.maps if stat == "gainq")
    if not descs:
        return None
    blocks: list[object] = [
        Text(
            "Nested models are refitted from the simplest features to the language model. The "
            "gain of a rung is the held-out R² of the model with it less that of the model "
            "without it; it depends on the order, since what a rung shares with earlier ones "
            "went to these. Unique R² is lost when the rung alone is left out of the whole "
            "model. Product measure: the rung's share in the whole model's R². All may be "
            "negative and are reported as they come out."
        )
    ]
    for desc in descs:
        blocks += _ladder(story, desc, naming)
    return Section(f"{place}-ladder", "Control ladder", tuple(blocks))


def _ladder(story: GroupStory, desc: str, naming: Naming) -> list[object]:
    """Show one ladder: verdict, panels, table, maps."""
    gain = story.maps[desc, "gain"]
    rungs = [WORDS.get(name, name) for name in gain.columns]
    model = gain.meta.get("Model") or {}
    label = f"ladder of {model.get('Label', desc)}"
    files = common.map_files(story.maps, desc, "gain", "gainq", "r2")
    regions = regions_of(story)
    by_region = regions is not None and (desc, "gainq") in regions.maps
    shown = regions if by_region else story
    what = "regions" if by_region else f"the {N_PARCELS} parcels with the highest R²"
    test = gain.meta.get("Inference") or {}
    blocks: list[object] = [
        _verdict(story, desc, label, rungs),
        Picture(
            naming("ladder", "svg", story=story.story, desc=desc),
            figures_ladder.ladder(
                [_whole(story, desc), *_panels(shown, desc, None if by_region else N_PARCELS)],
                rungs,
                xlabel="held-out R²",
            ),
            f"Control {label}",
            f"Control {label}",
            f"Mean over n = {gain.meta.get('NumberOfParticipants')} participants; all parcels "
            f"together and {what}. Each bar goes from R² before a rung to R² with it; lines: 95 % "
            f"interval of the gain. Blue: gain with q ≤ {fdr_of(gain.meta):g} "
            f"({test.get('Test')}, {test.get('Family')}; the mean is not tested); dark blue: the "
            "model is also better than every smaller one and than none (q again), so that it "
            "does not only mend what an earlier rung overfitted. How to read it: "
            "a language model explains more than its controls only where its own bar, the last "
            "one, goes to the right.",
            files + (common.map_files(shown.maps, desc, "gain", "gainq") if by_region else ()),
        ),
        _table(story, desc, rungs),
    ]
    if story.labels is not None and story.labels.is_anatomical:
        blocks += [_map(story, desc, k, naming) for k in range(len(rungs))]
    return blocks


def _verdict(story: GroupStory, desc: str, label: str, rungs: list[str]) -> Notice:
    """Say in words what the last rung adds, and which rungs are missing."""
    gain, q = story.maps[desc, "gain"], story.maps[desc, "gainq"]
    fdr = fdr_of(q.meta)
    sure = story.maps[desc, "betterq"].values[:, -1] <= fdr
    n = int((q.values[:, -1] <= fdr).sum())
    n_better = int((sure & (q.values[:, -1] <= fdr)).sum())
    below = ", ".join(rungs[:-1]) or "nothing"
    missing = [
        f"{WORDS.get(str(one['Name']))} ({one['Why']})" for one in gain.meta.get("Missing") or ()
    ]
    layer = gain.meta.get("Layer") or {}
    text = (
        f"{label[:1].upper()}{label[1:]}, layer {layer.get('Number', '–')} (two thirds of the "
        f"depth, fixed beforehand): the {rungs[-1]} adds {number(mean(gain.values[:, -1]), 4)} R² "
        f"on average to {below}; the gain is reliable in {n} of {len(gain.index)} parcels "
        f"(q ≤ {fdr:g}), and in {n_better} of these the model is better than every smaller one."
    )
    if missing:
        text += f" Not in this ladder: {'; '.join(missing)}."
    return Notice(text, "good" if n_better else "note")


def _whole(story: GroupStory, desc: str) -> Panel:
    """Return the mean over parcels, without a test."""
    r2, gain = story.maps[desc, "r2"].values, story.maps[desc, "gain"].values
    empty = np.full(gain.shape[1], np.nan)
    means = [np.array([mean(column) for column in values.T]) for values in (r2, gain)]
    no = np.zeros(len(empty), bool)
    return Panel("All parcels (mean)", *means, empty, empty, no, no)


def _panels(story: GroupStory, desc: str, most: int | None) -> list[Panel]:
    """Return all regions, or the parcels with the highest R2."""
    drawn = ("r2", "gain", "gaincilow", "gaincihigh")
    maps = {s: story.maps[desc, s] for s in (*drawn, "gainq", "betterq")}
    level = fdr_of(maps["gainq"].meta)
    last = maps["r2"].values[:, -1]
    order = range(len(last))
    if most is not None:
        order = np.argsort(-np.nan_to_num(last, nan=-np.inf), kind="stable")[:most]
    return [
        Panel(
            maps["r2"].names[k],
            *(maps[s].values[k] for s in drawn),
            maps["gainq"].values[k] <= level,
            maps["betterq"].values[k] <= level,
        )
        for k in order
    ]


def _table(story: GroupStory, desc: str, rungs: list[str]) -> Table:
    """Make one row a rung, means over parcels."""
    maps = {
        s: story.maps[desc, s]
        for s in ("r2", "gain", "unique", "product", "gainq", "betterq", "uniqueq")
    }
    bands = {
        str(one["Name"]): ", ".join(one["Bands"]) for one in maps["gain"].meta.get("Rungs") or ()
    }
    level = fdr_of(maps["gainq"].meta)
    rows = tuple(
        (
            rung,
            bands.get(maps["gain"].columns[k], ""),
            *(mean(maps[s].values[:, k]) for s in ("r2", "gain")),
            int((maps["gainq"].values[:, k] <= level).sum()),
            int((maps["betterq"].values[:, k] <= level).sum()),
            mean(maps["unique"].values[:, k]),
            int((maps["uniqueq"].values[:, k] <= level).sum()),
            mean(maps["product"].values[:, k]),
        )
        for k, rung in enumerate(rungs)
    )
    shared = mean(story.maps[desc, "shared"].values) if (desc, "shared") in story.maps else None
    return Table(
        "Control ladder",
        (
            Column("Rung"),
            Column("Bands"),
            Column("R² up to here", number=True, digits=4),
            Column("Gain", number=True, digits=4),
            Column(f"Parcels, gain q ≤ {level:g}", number=True, digits=0),
            Column("Parcels, better than all before", number=True, digits=0),
            Column("Unique R²", number=True, digits=4),
            Column(f"Parcels, unique q ≤ {level:g}", number=True, digits=0),
            Column("Product measure", number=True, digits=4),
        ),
        rows,
        f"Means over {len(maps['gain'].index)} parcels. R² that rungs share (whole model less all "
        f"unique R²): {number(shared, 4)}.",
        common.map_files(story.maps, desc, *maps, "shared"),
        sortable=False,
    )


def _map(story: GroupStory, desc: str, rung: int, naming: Naming) -> Picture:
    """Draw what one rung adds on the brain."""
    item: ParcelMap = story.maps[desc, "gain"]
    q = story.maps[desc, "gainq"]
    name = WORDS.get(item.columns[rung], item.columns[rung])
    keep = q.values[:, rung] <= fdr_of(q.meta)
    return Picture(
        naming(f"ladder{item.columns[rung]}", "png", story=story.story, desc=desc),
        common.brain_png(story.labels, item.index, item.values[:, rung], keep, "gain in R²"),
        f"Brain map of what {name} adds",
        f"Ladder, {name}",
        f"Gain in held-out R² of {name} over the rungs before it; below, parcels with "
        f"q ≤ {fdr_of(q.meta):g}.",
        common.map_files(story.maps, desc, "gain", "gainq"),
    )
