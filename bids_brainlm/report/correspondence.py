"""The group page's part on correspondence by region: margins, examples, and best heads."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common, regions
from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import GroupStory, HeadDecoding, ParcelMap, Picture

N_EXAMPLES = 6


def blocks(one: HeadDecoding, story: GroupStory, naming: Naming) -> list[Picture]:
    """Show how decoding and encoding agree over heads, region by region.

    Parameters
    ----------
    one : HeadDecoding
        What the heads of one model decode.
    story : GroupStory
    naming : callable
        Gives a figure its path.

    Returns
    -------
    list of Picture
        Empty where heads were not fitted, or the atlas has many parcels and no regions.
    """
    shown = regions.regions_of(story)
    if shown is None:
        return []
    desc = f"{one.model}Correspondence"
    rho, q = shown.maps.get((desc, "rho")), shown.maps.get((desc, "q"))
    scores = shown.maps.get((f"{one.model}Heads", "mean"))
    if rho is None or q is None or scores is None or scores.columns != one.heads:
        return []
    keep = np.flatnonzero(np.isfinite(rho.values).any(axis=0))
    if not len(keep):
        return []
    files = (*common.map_files(shown.maps, desc, "rho", "q"), scores.path, one.path)
    return [
        _matrix(one, (rho, q), keep, shown, naming, files),
        _examples(one, (rho, q), scores, naming, shown.story, files),
        _best(one, scores, naming, shown.story, files),
    ]


def _matrix(
    one: HeadDecoding,
    maps: tuple[ParcelMap, ParcelMap],
    keep: np.ndarray,
    shown: GroupStory,
    naming: Naming,
    files: tuple[str, ...],
) -> Picture:
    """Draw labels by regions with their means along both sides."""
    from bids_brainlm.report import figures_correspondence

    rho, q = (item.values[:, keep].T for item in maps)
    labels = [maps[0].columns[k] for k in keep]
    by_label, by_region = _mean(rho, 1), _mean(rho, 0)
    none = [np.full(len(by_label), np.nan)] * 2, [np.full(len(by_region), np.nan)] * 2
    return Picture(
        naming("correspondenceregions", "svg", story=shown.story, desc=one.model),
        figures_correspondence.matrix(
            rho,
            q,
            labels,
            maps[0].names,
            label_marginal=(by_label, *none[0]),
            region_marginal=(by_region, *none[1]),
        ),
        f"Correspondence of decoding and brain scores by region, {one.model}",
        f"Which labels go with which regions, {one.model}",
        f"Spearman correlation over {len(one.heads)} heads of decoding accuracy and group brain "
        f"score; dots: q ≤ 0.05 (two-tailed, permutation of heads; family: all labels and "
        f"regions); n = {len(labels)} labels, {len(maps[0].names)} regions. Bars: means over "
        "regions and over labels, without intervals, since regions are not independent samples. "
        "How to read it: depth alone can make all of it red or blue; the matrix with layer "
        "partialled out says what is left.",
        files,
    )


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is finite; NaN of nothing."""
    count = np.isfinite(values).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def _examples(
    one: HeadDecoding,
    maps: tuple[ParcelMap, ParcelMap],
    scores: ParcelMap,
    naming: Naming,
    story: str,
    files: tuple[str, ...],
) -> Picture:
    """Draw the strongest pairs of label and region, and the weakest one."""
    from bids_brainlm.report import figures_correspondence

    rho, q = maps
    strength = np.abs(np.where(np.isfinite(rho.values), rho.values, np.nan))
    cells = [tuple(c) for c in np.argwhere(np.isfinite(strength))]
    cells.sort(key=lambda c: -strength[c])
    chosen = cells if len(cells) <= N_EXAMPLES else [*cells[: N_EXAMPLES - 1], cells[-1]]
    examples = [
        figures_correspondence.Example(
            rho.columns[label],
            rho.names[region],
            one.accuracy[:, one.labels.index(rho.columns[label])],
            scores.values[region],
            float(rho.values[region, label]),
            float(q.values[region, label]),
        )
        for region, label in chosen
    ]
    return Picture(
        naming("correspondenceexamples", "svg", story=story, desc=one.model),
        figures_correspondence.scatters(examples, one.layers),
        f"Examples of correspondence, {one.model}",
        f"Examples of correspondence, {one.model}",
        f"One point a head: its decoding accuracy of a label, and its group brain score in a "
        f"region; colour: layer. Shown are the pairs with the highest |ρ| and, last, the one "
        f"with the lowest; n = {len(one.heads)} heads. The line is a least-squares fit for the "
        "eye. How to read it: these pairs were chosen for their ρ, so they are optimistic; where "
        "colours are sorted along the line, depth makes the correlation.",
        files,
    )


def _best(
    one: HeadDecoding,
    scores: ParcelMap,
    naming: Naming,
    story: str,
    files: tuple[str, ...],
) -> Picture:
    """Draw, for each label, where the head that decodes it best predicts."""
    from bids_brainlm.report import figures_correspondence

    labels = [label for k, label in enumerate(one.labels) if np.isfinite(one.accuracy[:, k]).any()]
    columns = [one.labels.index(label) for label in labels]
    accuracy = np.where(np.isfinite(one.accuracy), one.accuracy, -1.0)[:, columns]
    best = accuracy.argmax(axis=0)
    return Picture(
        naming("bestheads", "svg", story=story, desc=one.model),
        figures_correspondence.best_heads(
            labels,
            [one.heads[k] for k in best],
            accuracy.max(axis=0),
            scores.values[:, best].T,
            scores.names,
        ),
        f"Brain scores of the best head of each label, {one.model}",
        f"Where the best head of each label predicts, {one.model}",
        "For each label the head that decodes it best (right: its name and balanced accuracy) and "
        f"that head's group mean of held-out r in every region; n = {len(one.heads)} heads, "
        f"{len(labels)} labels. How to read it: the head was chosen by decoding, not by brain "
        "data, so its scores are not optimistic. Brain maps: the column of that head in the map "
        "of heads.",
        files,
    )
