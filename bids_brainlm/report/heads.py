"""The group page's part on heads: decoding, and correspondence with brain scores."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common, correspondence, specialization
from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import (
    Column,
    GroupStory,
    HeadDecoding,
    Notice,
    Picture,
    Section,
    Table,
)

N_PARCELS = 30
"""Parcels that the matrix of correspondences shows."""


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show what heads decode and whether that goes with brain scores.

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
        None where no head was decoded and none was fitted.
    """
    blocks: list[object] = []
    for one in story.decoding:
        blocks += _decoding(one, story.story, naming)
        blocks += _correspondence(one, story, naming)
        blocks += correspondence.blocks(one, story, naming)
    for found in story.components:
        blocks += specialization.blocks(found, story, naming)
    return Section(f"{place}-heads", "What heads compute", tuple(blocks)) if blocks else None


def _decoding(one: HeadDecoding, story: str, naming: Naming) -> list[object]:
    """Show the accuracy of every head for every label."""
    from bids_brainlm.report import figures_heads

    known = [k for k in range(len(one.labels)) if np.isfinite(one.accuracy[:, k]).any()]
    if not known:
        return [Notice(f"No label could be decoded from {one.model}: all are too rare.", "warning")]
    labels = [one.labels[k] for k in known]
    accuracy, q = one.accuracy[:, known], one.q[:, known]
    n_rows = int(one.meta.get("NumberOfRows") or 0)
    picture = Picture(
        naming("decoding", "svg", story=story, desc=one.model),
        figures_heads.decoding(accuracy, labels, one.layers),
        f"Decoding of linguistic labels from the heads of {one.model}",
        f"What the heads of {one.model} decode",
        f"Balanced accuracy on held-out TRs (chance 0.5) of a logistic regression from each "
        f"head's transformation to the presence of each label; n = {n_rows} TRs with words, "
        f"{len(one.layers)} heads. {int((q <= 0.05).sum())} of {q.size} pairs reach q ≤ 0.05 "
        "(circular shifts; family: all heads and labels). How to read it: a bright column is a "
        "head that carries much grammar, a bright row a label that many heads carry.",
        (one.path, one.path.removesuffix(".tsv") + ".json"),
    )
    best = np.nanargmax(np.where(np.isfinite(accuracy), accuracy, -1), axis=0)
    rows = tuple(
        (
            label,
            common.column_words(one.heads[head]),
            float(accuracy[head, k]),
            float(q[head, k]),
            int((q[:, k] <= 0.05).sum()),
        )
        for k, (label, head) in enumerate(zip(labels, best, strict=True))
    )
    table = Table(
        "Best head of each label",
        (
            Column("Label"),
            Column("Head"),
            Column("Balanced accuracy", number=True),
            Column("q", number=True, digits=4),
            Column("Heads, q ≤ 0.05", number=True, digits=0),
        ),
        rows,
        "The best head was chosen on the same accuracies, so these are optimistic.",
        (one.path,),
    )
    return [picture, table]


def _correspondence(one: HeadDecoding, story: GroupStory, naming: Naming) -> list[object]:
    """Show rank correlations over heads of decoding and brain scores."""
    from bids_brainlm.report import figures_heads

    desc = f"{one.model}Correspondence"
    maps = {s: story.maps.get((desc, s)) for s in ("rho", "q", "rhowithin", "qwithin", "qboth")}
    if any(item is None for item in maps.values()):
        return []
    rho = maps["rho"]
    keep = np.isfinite(rho.values).any(axis=0)
    if not keep.any():
        return []
    strength = np.nanmax(np.abs(np.where(np.isfinite(rho.values), rho.values, 0)), axis=1)
    order = np.sort(np.argsort(-strength, kind="stable")[:N_PARCELS])
    parts = {s: item.values[np.ix_(order, np.flatnonzero(keep))] for s, item in maps.items()}
    labels = [c for c, kept in zip(rho.columns, keep, strict=True) if kept]
    panels = (
        ("over all heads", parts["rho"], parts["q"]),
        ("layer partialled out", parts["rhowithin"], parts["qboth"]),
    )
    n = {s: int(np.nansum(maps[s].values <= 0.05)) for s in ("q", "qwithin", "qboth")}
    total = int(np.isfinite(maps["q"].values).sum())
    text = (
        f"Of {total} pairs of label and parcel, {n['q']} reach q ≤ 0.05 over all heads and "
        f"{n['qwithin']} with layer partialled out, and {n['qboth']} where participants agree as "
        "well (larger of both p; the ones to report). Where the second number is much smaller, "
        "depth explains most of the agreement: deeper or shallower heads decode better and predict "
        "better, whatever the label."
    )
    picture = Picture(
        naming("correspondence", "svg", story=story.story, desc=one.model),
        figures_heads.correspondence(panels, labels, [rho.names[k] for k in order]),
        f"Correspondence of decoding and brain scores over the heads of {one.model}",
        f"Do heads of {one.model} that decode a label also predict a parcel?",
        f"Spearman correlation over {len(one.layers)} heads of decoding accuracy and group brain "
        f"score; dots: q ≤ 0.05 (two-tailed, permutation of heads; right: within layers, and "
        "sign flips over participants of their own correlations, the larger p; family: "
        f"all labels and parcels){_shown(len(order), len(rho.index))}. How to read it: red on the "
        "right is agreement between what heads compute and what they predict that depth alone "
        "does not explain.",
        common.map_files(story.maps, desc, "rho", "q", "rhowithin", "qwithin"),
    )
    return [picture, Notice(text, "note")]


def _shown(n_shown: int, n_parcels: int) -> str:
    """Say how many parcels are shown where it is not all."""
    return "" if n_shown == n_parcels else f"; {n_shown} of {n_parcels} parcels, the strongest"
