"""The group page's part on layer preference and specificity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import Naming, mean, number
from bids_brainlm.report.content import Column, GroupStory, Notice, Picture, Section, Table


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show which layers parcels prefer, and how sharply.

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
        None where no profile was made.
    """
    from bids_brainlm.report import figures_layers

    descs = [d for d in story.descs() if (d, "preferredlayer") in story.maps]
    if not descs:
        return None
    preferred = {d: story.maps[d, "preferredlayer"].column("value") for d in descs}
    names = {d: common.feature_words(d, story.maps[d, "preferredlayer"].meta) for d in descs}
    rows = tuple(
        (
            names[d],
            mean(preferred[d]),
            mean(story.maps[d, "layerentropy"].column("value")),
            mean(story.maps[d, "specificity"].column("value")),
            int(np.isfinite(preferred[d]).sum()),
        )
        for d in descs
    )
    files = common.map_files(story.maps, descs[0], "preferredlayer", "specificity")
    blocks: list[object] = [
        Picture(
            naming("preferredlayers", "svg", story=story.story),
            figures_layers.preferred({names[d]: preferred[d] for d in descs}),
            "Preferred layers by feature space",
            "Preferred layers",
            f"Parcels by the layer with the highest group mean of r (layer 0 left out); n = "
            f"{rows[0][4]} parcels, {len(story.people)} participants. How to read it: bars further "
            "left mean that earlier layers predict best.",
            files,
        ),
        Table(
            "Layer profiles",
            (
                Column("Feature space"),
                Column("Preferred layer", number=True, digits=2),
                Column("Entropy, bits", number=True, digits=2),
                Column("Specificity", number=True),
                Column("Parcels", number=True, digits=0),
            ),
            rows,
            "Means over parcels, of the group's mean r. Entropy: of the softmax over layers of "
            "100 r; low where one layer stands out. Specificity: L2 norm of the differences "
            "between neighbouring layers (z) that participants share; noise does not add to it, "
            "and it is negative where they share less than by chance.",
            files,
        ),
    ]
    if story.labels is not None and story.labels.is_anatomical:
        maps = [_map(story, desc, names[desc], naming) for desc in descs]
        blocks += [picture for picture in maps if picture is not None]
    blocks += [_statement(c) for c in _comparisons(story, descs)]
    return Section(f"{place}-preference", "Layer preference", tuple(blocks))


def _map(story: GroupStory, desc: str, name: str, naming: Naming) -> Picture | None:
    """Draw the preferred layer of every parcel that is predicted; None where no parcel is."""
    from bids_brainlm.report import figures_surface

    item, mean_map = story.maps[desc, "preferredlayer"], story.maps[desc, "mean"]
    layers = [int(c[5:]) for c in common.layers_of(mean_map.columns) if c != "layer00"]
    values = item.column("value")
    q = story.maps.get((desc, "q"))
    level = common.fdr_of(q.meta) if q is not None else 0.05
    predicted = np.ones(len(values), bool) if q is None else (q.values <= level).any(axis=1)
    if not predicted.any():
        return None
    shown = np.where(predicted, values, np.nan)
    return Picture(
        naming("preferredmap", "png", story=story.story, desc=desc),
        figures_surface.preferred(story.labels, item.index, shown, layers),
        f"Preferred layer of each parcel, {name}",
        f"Preferred layers on the cortex, {name}",
        f"Layer with the highest group mean of r, in the {int(predicted.sum())} of {len(values)} "
        f"parcels with q ≤ {level:g} in any layer; {len(story.people)} participants. Grey: not "
        "predicted. How to read it: neighbouring layers often predict alike, so look at gradients "
        "over the cortex, not at single parcels.",
        common.map_files(story.maps, desc, "preferredlayer", "q"),
    )


def _comparisons(story: GroupStory, descs: list[str]) -> list[Mapping]:
    """Return the comparisons of two spaces, once each."""
    found = [story.maps[d, "preferredlayer"].meta.get("Comparison") for d in descs]
    return list({str(c["First"]): c for c in found if isinstance(c, Mapping)}.values())


def _statement(found: Mapping) -> Notice:
    """Say what swapping the spaces within participants tells."""
    parts = []
    for key, what in (("preferred", "preferred layer"), ("specificity", "specificity")):
        one = found[key]
        parts.append(f"{what}: difference {number(one['Difference'])}, p = {number(one['P'], 4)}")
    n = found["preferred"]["NumberOfParticipants"]
    return Notice(
        f"{found['First']} less {found['Second']}, {n} participants, tested by swapping the two "
        "within participants (two-sided; specificity: also by flipping participants' profiles, "
        f"the larger p counts): {'; '.join(parts)}.",
        "note",
    )
