"""The group page's part on specialization: the few dimensions on which heads differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bids_brainlm.report.common import Naming, number
from bids_brainlm.report.content import (
    Column,
    GroupStory,
    HeadComponents,
    Notice,
    ParcelMap,
    Picture,
    Table,
)

N_NAMED = 6
"""Heads that are named in the scatter: the outermost."""

N_MAPS = 2
"""Components that get a brain map."""

N_ROWS = 25
"""Rows of the table of associations."""


def blocks(found: HeadComponents, story: GroupStory, naming: Naming) -> list[object]:
    """Show components of the heads' weights and what they go with.

    Parameters
    ----------
    found : HeadComponents
    story : GroupStory
    naming : callable
        Gives a figure its path.

    Returns
    -------
    list of blocks
    """
    model = found.meta.get("Model")
    label = str(model.get("Label")) if isinstance(model, dict) else found.desc
    made: list[object] = [
        _scree(found, label, story.story, naming),
        _scatter(found, label, story.story, naming),
        _associations(found, label, story.story, naming),
        _table(found),
        _statement(found),
    ]
    return [*made[:2], *_maps(found, story, naming), *made[2:]]


def _people(found: HeadComponents) -> str:
    """Say how many heads and participants there are."""
    n = int(found.meta.get("NumberOfParticipants") or 0)
    return f"{len(found.heads)} heads, n = {n} participants"


def _scree(found: HeadComponents, label: str, story: str, naming: Naming) -> Picture:
    """Draw how much of heads' profiles participants share along each component."""
    from bids_brainlm.report import figures_specialization

    tested = np.isfinite(found.p).any()
    n = int((found.p <= 0.05).sum())
    share = ", ".join(f"{100 * s:.0f} %" for s in found.share)
    return Picture(
        naming("specializationscree", "svg", story=story, desc=found.desc),
        figures_specialization.scree(
            found.agreement,
            found.null_95 if tested else None,
            found.p if tested else None,
            label="variance shared by participants (%)",
        ),
        f"Components of the heads of {label}",
        f"On how many dimensions do the heads of {label} differ?",
        "Principal components of heads' weights by parcels (logarithms of norms less those of "
        "series that are as slow but have random phases, less each head's mean over parcels and "
        "each parcel's over heads, scaled in each participant); "
        f"{_people(found)}. Bars: variance that averaging over participants leaves along each "
        "component (1 in total where they agree in everything); line: 95th percentile with random "
        f"signs of participants; filled: p ≤ 0.05 ({n} of {len(found.p)}). Shares of the group's "
        f"variance: {share}. How to read it: only filled components are shared by people; the "
        "others are not to be interpreted. How slow parcels are does not make people agree; that "
        "some parcels follow the model more than others does, and so does a response to the story "
        "that the model does not hold.",
        (found.path.replace("_heads.tsv", "_components.tsv"),),
    )


def _scatter(found: HeadComponents, label: str, story: str, naming: Naming) -> Picture:
    """Draw heads along the first two components."""
    from bids_brainlm.report import figures_specialization

    far = np.argsort(-(found.scores[:, :2] ** 2).sum(axis=1), kind="stable")[:N_NAMED]
    colours = "layer" if found.lookback is None else "layer (left) and look-back distance (right)"
    return Picture(
        naming("specialization", "svg", story=story, desc=found.desc),
        figures_specialization.scatter(
            found.scores, found.layers, found.lookback, found.heads, far, share=found.share
        ),
        f"Heads of {label} along two components",
        f"Where the heads of {label} lie",
        f"Scores of heads on the first two components, coloured by {colours}; {_people(found)}; "
        "the outermost heads are named. How to read it: heads that lie close have relatively more "
        "weight in the same parcels; a gradient of colour is tested in the matrix below.",
        (found.path,),
    )


def _maps(found: HeadComponents, story: GroupStory, naming: Naming) -> list[Picture]:
    """Draw loadings on the brain, or as a matrix where there is no anatomy."""
    from bids_brainlm.report import figures_surface

    item = story.maps.get((found.desc, "loading"))
    if item is None:
        return []
    if story.labels is None or not story.labels.is_anatomical:
        return [_loadings(found, item, story, naming)] if len(item.index) <= 60 else []
    pictures = []
    for column in item.columns[:N_MAPS]:
        pictures.append(
            Picture(
                naming(f"loadings{column}", "png", story=story.story, desc=found.desc),
                figures_surface.surface(
                    story.labels,
                    item.index,
                    item.column(column),
                    label=f"loading on {column} (r)",
                    limit=1.0,
                ),
                f"Loadings of parcels on {column}",
                f"Which parcels make {column}",
                f"Correlation over heads of each parcel's relative weights with the scores of "
                f"{column}; {_people(found)}. How to read it: parcels of one colour weigh the same "
                "heads more than other parcels do; there are always parcels of both colours.",
                (item.path,),
            )
        )
    return pictures


def _loadings(found: HeadComponents, item: ParcelMap, story: GroupStory, naming: Naming) -> Picture:
    """Draw loadings as a matrix of parcels and components."""
    from bids_brainlm.report import figures_specialization

    return Picture(
        naming("loadings", "svg", story=story.story, desc=found.desc),
        figures_specialization.loadings(item.values, item.names, item.columns),
        "Loadings of parcels on components",
        "Which parcels make the components",
        f"Correlation over heads of each parcel's relative weights with a component's scores; "
        f"{_people(found)}. How to read it: parcels of one colour weigh the same heads more than "
        "other parcels do; with few parcels, a component is often one of them.",
        (item.path,),
    )


def _associations(found: HeadComponents, label: str, story: str, naming: Naming) -> Picture:
    """Draw how components go with layer, distance and decoding."""
    from bids_brainlm.report import figures_specialization

    rho, q = (_lead(found.associations, key) for key in ("rho", "q"))
    free = int((found.associations["q"][:, 1:] <= 0.05).sum())
    return Picture(
        naming("specializationlinks", "svg", story=story, desc=found.desc),
        figures_specialization.associations(rho, q, found.covariates, share=found.share),
        f"What the components of {label} go with",
        f"What the components of {label} go with",
        "Spearman correlation of component scores with layer (over layers, mean scores), and with "
        "look-back distance and decoding accuracy, as far as known (over "
        f"{len(found.heads)} heads, layer partialled out); dots: q ≤ 0.05 (two-tailed, permutation "
        f"of layers, and of heads within layers): {int((q <= 0.05).sum())} of "
        f"{int(np.isfinite(q).sum())}. Without layer partialled out {free} reach it, but that test "
        "takes heads of one layer as independent, which they are not. How to read it: look at "
        "components that participants share (filled above) only.",
        (found.associations_path,),
    )


def _lead(found: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """Return values with layer partialled out, and those of layer in the first column."""
    return np.column_stack([found[key][:, 0], found[key + "within"][:, 1:]])


def _table(found: HeadComponents) -> Table:
    """List the strongest associations."""
    a = found.associations
    cells = [tuple(c) for c in np.argwhere(np.isfinite(a["rho"]))]
    lead = _lead(a, "p")
    cells.sort(key=lambda c: (np.nan_to_num(lead[c], nan=2.0), -abs(a["rho"][c])))
    rows = tuple(
        (
            f"PC{c[0] + 1:02d}",
            found.covariates[c[1]],
            *[float(a[k][c]) for k in ("rho", "p", "q", "rhowithin", "pwithin", "qwithin")],
        )
        for c in cells[:N_ROWS]
    )
    columns = (
        Column("Component"),
        Column("With"),
        Column("ρ", number=True, digits=2),
        Column("p", number=True, digits=4),
        Column("q", number=True, digits=4),
        Column("ρ within layers", number=True, digits=2),
        Column("p within", number=True, digits=4),
        Column("q within", number=True, digits=4),
    )
    caption = (
        f"The {len(rows)} of {len(cells)} with the smallest p (within layers, of layer: over "
        "layers); the file has all."
    )
    return Table("Associations", columns, rows, caption, (found.associations_path,))


def _statement(found: HeadComponents) -> Notice:
    """Say how far the components can be trusted."""
    n = int((found.p <= 0.05).sum())
    halves = ", ".join(number(float(v), 2) for v in found.reliability)
    return Notice(
        f"{n} of {len(found.p)} components are shared by participants (p ≤ 0.05). Correlation of "
        f"scores between random halves of the participants: {halves}; about 0.1 to 0.4 is what "
        "chance gives, more with fewer heads.",
        "note" if n else "warning",
    )
