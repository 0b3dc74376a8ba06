"""The group page's part on regions: curves by layer, comparison of spaces, heads, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import (
    Column,
    Comparison,
    GroupStory,
    Notice,
    ParcelMap,
    Picture,
    Section,
    Table,
)
from bids_brainlm.report.intervals import interval_over_people

MOST = 24
"""Parcels up to which an atlas is a set of regions itself."""

N_PAIRS = 30
"""Rows of the table of comparisons."""

CURVES = ("Embeddings", "Transformations")


def regions_of(story: GroupStory) -> GroupStory | None:
    """Return the maps of regions of interest, or those of an atlas with few parcels.

    Parameters
    ----------
    story : GroupStory

    Returns
    -------
    GroupStory or None
        None where the atlas has many parcels and no regions were given.
    """
    if story.regions is not None:
        return story.regions
    n_parcels = max((len(m.index) for m in story.maps.values()), default=0)
    return story if 0 < n_parcels <= MOST else None


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show everything by region.

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
        None where nothing can be shown by region.
    """
    shown = regions_of(story)
    blocks: list[object] = []
    if shown is not None:
        n = len(story.people)
        blocks += _members(shown, story, naming)
        blocks += _curves(shown, naming, n)
        blocks += _compared(shown, naming)
        for desc in shown.descs():
            if desc.endswith("Heads"):
                blocks.append(_heads(shown, desc, naming, n))
            if desc.endswith("Each"):
                blocks.append(_features(shown, desc, naming, n))
    blocks += _partial(story, naming)
    return Section(f"{place}-regions", "By region", tuple(blocks)) if blocks else None


def _members(shown: GroupStory, story: GroupStory, naming: Naming) -> list[object]:
    """List the regions of interest, and show where they lie."""
    means = (m for (_, stat), m in shown.maps.items() if stat == "mean")
    item = next(means, next(iter(shown.maps.values())))
    found = item.meta.get("Regions")
    if not isinstance(found, Sequence):
        return []
    rows = tuple((str(r["Name"]), len(r["Parcels"])) for r in found)
    caption = (
        "Regions given with --rois. Scores of a region are Fisher means over its parcels, in each "
        "participant first. The sidecars of the maps list the parcels."
    )
    columns = (Column("Region"), Column("Parcels", number=True, digits=0))
    blocks: list[object] = [Table("Regions of interest", columns, rows, caption, (item.path,))]
    if story.labels is not None and story.labels.is_anatomical:
        blocks.insert(0, _where(found, item.path, story, naming))
    return blocks


def _where(found: Sequence[Mapping], path: str, story: GroupStory, naming: Naming) -> Picture:
    """Draw the regions on the cortex."""
    from bids_brainlm.report import figures_surface

    parcels = next(iter(story.maps.values()))
    owner = {name: k for k, region in enumerate(found) for name in region["Parcels"]}
    members = np.array([owner.get(name, -1) for name in parcels.names])
    return Picture(
        naming("regions", "png", story=story.story),
        figures_surface.regions(
            story.labels,
            parcels.index,
            members,
            [str(region["Name"]) for region in found],
            [str(region["Colour"]) for region in found],
        ),
        "Regions of interest on the cortex",
        "Where the regions lie",
        f"The {len(found)} regions of interest on the inflated cortex (fsaverage), made of "
        f"{int((members >= 0).sum())} of {len(members)} parcels. How to read it: check that they "
        "lie where their names say before reading anything below.",
        (path,),
    )


def _interval(shown: GroupStory, desc: str, columns: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Return group mean and interval of some columns, arrays (n_regions, n_columns)."""
    return tuple(
        np.column_stack([shown.maps[desc, stat].column(c) for c in columns])
        for stat in ("mean", "cilow", "cihigh")
    )


def _curves(shown: GroupStory, naming: Naming, n_people: int) -> list[object]:
    """Draw scores by layer, one panel a region."""
    from bids_brainlm.report import figures_regions

    pictures: list[object] = []
    by_model: dict[str, list[str]] = {}
    for desc in shown.descs():
        for ending in CURVES:
            item = shown.maps[desc, "mean"]
            if desc.endswith(ending) and len(common.layers_of(item.columns)) > 1:
                by_model.setdefault(desc.removesuffix(ending), []).append(desc)
    for model, descs in by_model.items():
        curves, layers = {}, {}
        for desc in descs:
            item = shown.maps[desc, "mean"]
            columns = common.layers_of(item.columns)
            name = str(item.meta.get("FeatureSpace"))
            curves[name] = _interval(shown, desc, columns)
            layers[name] = [int(c[5:]) for c in columns]
        regions = item.names
        pictures.append(
            Picture(
                naming("regionlayers", "svg", story=shown.story, desc=model),
                figures_regions.layer_curves(curves, layers, regions, ylabel="group mean r"),
                f"Scores by layer and region, {model}",
                f"Scores by layer in every region, {model}",
                f"Group mean of held-out r by layer, one panel a region; n = {n_people} "
                "participants; bands: 95 % bootstrap interval over participants. Layer 0 is the "
                "input embedding. How to read it: where the band includes zero, the score cannot "
                "be told from chance; the table of comparisons says which spaces differ.",
                common.map_files(shown.maps, descs[0], "mean", "cilow", "cihigh"),
            )
        )
    return pictures


def _compared(shown: GroupStory, naming: Naming) -> list[object]:
    """Show feature spaces side by side, and the tests of all pairs."""
    from bids_brainlm.report import figures_comparison

    found = shown.comparison
    if found is None:
        return []
    spaces = list(found.scores)
    words = {d: common.feature_words(d, shown.maps[d, "mean"].meta) for d in spaces}
    mean, low, high = _over_people(found)
    q = found.values["q"]
    pairs = [
        (region, spaces.index(first), spaces.index(second))
        for k, (first, second) in enumerate(found.pairs)
        for region in np.flatnonzero(q[k] <= 0.05)
    ]
    n = int(found.meta.get("NumberOfParticipants") or 0)
    files = (found.path, found.scores_path)
    shared = (
        f"n = {n} participants. Spaces with layers enter with the layer that scores best in the "
        "other half of the participants, chosen in each region, so that no choice is made on the "
        "data that it scores."
    )
    picture = Picture(
        naming("comparison", "svg", story=shown.story),
        figures_comparison.comparison(
            [words[d] for d in spaces], found.regions, mean, low, high, pairs, ylabel="mean r"
        ),
        "Feature spaces compared by region",
        "Feature spaces compared",
        f"Mean held-out r of each feature space by region; bars: 95 % t interval over participants "
        f"after Fisher's transformation; marked pairs: q ≤ 0.05 (sign flips over participants, "
        f"two-sided; family: all {q.size} pairs and regions). {shared} How to read it: compare "
        "spaces by the marked pairs, not by overlap of the bars, since the same people are in "
        "both.",
        files,
    )
    names = [(words[first], words[second]) for first, second in found.pairs]
    heat = Picture(
        naming("paired", "svg", story=shown.story),
        figures_comparison.paired(
            names,
            found.regions,
            found.values["difference"],
            q,
            label="mean difference of z",
        ),
        "Paired differences of feature spaces",
        "Which spaces differ where",
        f"Mean difference (Fisher z) of the first space less the second; dots: q ≤ 0.05. {shared} "
        "How to read it: red means that the first one predicts better.",
        files,
    )
    return [picture, heat, _pairs_table(found, names)]


def _over_people(found: Comparison) -> tuple[np.ndarray, ...]:
    """Return mean and t interval over participants, arrays (n_spaces, n_regions)."""
    parts = [
        interval_over_people(values[:, None, :], fisher=True) for values in found.scores.values()
    ]
    return tuple(np.stack(one) for one in zip(*parts, strict=True))


def _pairs_table(found: Comparison, names: Sequence[tuple[str, str]]) -> Table:
    """List the strongest comparisons."""
    v = found.values
    cells = [(k, r) for k in range(len(found.pairs)) for r in range(len(found.regions))]
    cells.sort(key=lambda c: (np.nan_to_num(v["p"][c], nan=2), -abs(np.nan_to_num(v["effect"][c]))))
    rows = tuple(
        (
            found.regions[c[1]],
            names[c[0]][0],
            names[c[0]][1],
            float(v["difference"][c]),
            common.interval(v["low"][c], v["high"][c]),
            float(v["effect"][c]),
            float(v["p"][c]),
            float(v["q"][c]),
            float(v["p_fwe"][c]),
        )
        for c in cells[:N_PAIRS]
    )
    columns = (
        Column("Region"),
        Column("First"),
        Column("Second"),
        Column("Difference, z", number=True),
        Column("95 % interval"),
        Column("d", number=True, digits=2),
        Column("p", number=True, digits=4),
        Column("q", number=True, digits=4),
        Column("p, max", number=True, digits=4),
    )
    n = int((v["q"] <= 0.05).sum())
    caption = (
        f"{n} of {len(cells)} pairs and regions reach q ≤ 0.05 (Benjamini-Hochberg over all of "
        f"them); the {len(rows)} with the smallest p are listed. p, max: against the largest "
        "statistic of each set of sign flips. d: mean over standard deviation of the differences."
    )
    return Table("Paired comparisons", columns, rows, caption, (found.path,))


def _heads(shown: GroupStory, desc: str, naming: Naming, n_people: int) -> Picture:
    """Draw every head's score in every region."""
    from bids_brainlm.report import figures_regions

    item, q = shown.maps[desc, "mean"], shown.maps[desc, "q"]
    layers = [int(name[1 : name.index("H")]) for name in item.columns]
    name = common.feature_words(desc, item.meta)
    return Picture(
        naming("regionheads", "svg", story=shown.story, desc=desc),
        figures_regions.head_matrix(
            item.values, q.values, item.names, layers, label="group mean r"
        ),
        f"Scores of heads by region, {name}",
        f"Which heads predict which regions, {name}",
        f"Group mean of held-out r of each head's own part of one joint prediction; "
        f"n = {n_people} participants, {len(layers)} heads; {_marked(q)} How to read it: a red "
        "column is a head that predicts many regions, a red row a region that many heads predict.",
        common.map_files(shown.maps, desc, "mean", "q"),
    )


def _features(shown: GroupStory, desc: str, naming: Naming, n_people: int) -> Picture:
    """Draw the scores of models with one feature each."""
    from bids_brainlm.report import figures_regions

    item, q = shown.maps[desc, "mean"], shown.maps[desc, "q"]
    mean, low, high = _interval(shown, desc, item.columns)
    name = common.feature_words(desc, item.meta)
    return Picture(
        naming("singlefeatures", "svg", story=shown.story, desc=desc),
        figures_regions.single_features(
            mean.T, low.T, high.T, q.values.T, item.columns, item.names, label="group mean r"
        ),
        f"Scores of single features, {name}",
        f"One model for each feature, {name}",
        f"Group mean of held-out r of encoding models with the nuisance bands and one feature "
        f"each; n = {n_people} participants, {len(item.columns)} features; {_marked(q)} How to "
        "read it: a feature that occurs rarely cannot be learned and stays at zero; the highest "
        "region (right) was chosen on the scores that are shown, so it is optimistic.",
        common.map_files(shown.maps, desc, "mean", "cilow", "cihigh", "q"),
    )


def _marked(q: ParcelMap) -> str:
    """Say how many q-values are small, and of which family they are."""
    n = int((q.values <= 0.05).sum())
    inference = q.meta.get("Inference")
    family = inference.get("Family") if isinstance(inference, Mapping) else None
    where = f"; family: {family}" if family else ""
    return f"{n} of {q.values.size} reach q ≤ 0.05 (one-sided{where})."


def _partial(story: GroupStory, naming: Naming) -> list[object]:
    """Draw partial correlations of embeddings and transformations, each given the other."""
    from bids_brainlm.report import figures_regions

    by_model: dict[str, list[str]] = {}
    for desc in story.descs():
        if desc.endswith("Partial") and (desc, "r") in story.scores:
            item = story.maps[desc, "mean"]
            model = item.meta.get("Model")
            label = str(model.get("Label")) if isinstance(model, Mapping) else ""
            by_model.setdefault(label, []).append(desc)
    blocks: list[object] = []
    for label, descs in by_model.items():
        curves, layers, told = {}, {}, []
        for desc in descs:
            item = story.maps[desc, "mean"]
            name = str(item.meta.get("FeatureSpace"))
            curves[name] = interval_over_people(story.scores[desc, "r"], fisher=True)
            layers[name] = [int(c[5:]) for c in item.columns]
            q = story.maps[desc, "q"]
            told.append(f"{name}: {int((q.values <= 0.05).sum())} of {q.values.size}")
        blocks.append(
            Picture(
                naming("partial", "svg", story=story.story, desc=label or None),
                figures_regions.partial(curves, layers, ylabel="partial r, mean over parcels"),
                f"Partial correlations by layer, {label}",
                f"What embeddings and transformations add to each other, {label}",
                "Partial correlation of held-out data with the prediction from one feature space, "
                f"given the prediction from the other at the same layer; n = {len(story.people)} "
                "participants, mean over parcels, bands: 95 % t interval over participants. How to "
                "read it: above zero, the space predicts something that the other does not; both "
                "predictions are estimates, so some of what is shared can remain in either.",
                common.map_files(story.maps, descs[0], "mean", "q"),
            )
        )
        text = "; ".join(told)
        blocks.append(Notice(f"Parcels and layers with q ≤ 0.05 in the group: {text}.", "note"))
    return blocks
