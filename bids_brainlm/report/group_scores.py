"""Scores of a group: by layer, by parcel, on the brain, and their significance."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common, regions
from bids_brainlm.report.common import Naming, best_column, fdr_of, heads_of, layers_of, mean
from bids_brainlm.report.content import Column, GroupStory, ParcelMap, Picture, Section, Table
from bids_brainlm.report.figures_encoding import (
    FEW_PARCELS,
    Curve,
    CurvePanel,
    Dots,
)
from bids_brainlm.report.intervals import interval_over_people
from bids_brainlm.report.scores import N_ROWS, head_grid

SHOWN_BY_REGION = ("Each", "Partial", "Heads")
"""Endings of feature spaces that the part on regions shows better than a list of parcels."""


def column_of(item: ParcelMap) -> str:
    """Return the best score column, intervals left out."""
    columns = [c for c in item.columns if c not in ("ci_low", "ci_high")]
    values = np.column_stack([item.column(c) for c in columns])
    return best_column(values, columns)


def scored(story: GroupStory) -> list[str]:
    """Return the feature spaces whose values are scores, not partial correlations."""
    return [desc for desc in story.descs() if not desc.endswith("Partial")]


def shown_rows(values: np.ndarray) -> np.ndarray:
    """Return all rows of a small atlas, the highest rows of a large one."""
    if len(values) <= N_ROWS:
        return np.arange(len(values))
    return np.argsort(-np.where(np.isfinite(values), values, -9.0), kind="stable")[:N_ROWS]


def layer_panels(story: GroupStory, stat: str, ylabel: str) -> tuple[tuple[str, ...], list]:
    """Return layer names and one panel a kind of feature space, one line a model."""
    kinds: dict[str, list[Curve]] = {}
    longest: tuple[str, ...] = ()
    for desc in scored(story):
        item = story.maps[desc, "mean"]
        layers = layers_of(item.columns)
        values = story.scores.get((desc, stat))
        if len(layers) < 2 or values is None:
            continue
        longest = tuple(sorted({*longest, *layers}))
        found = interval_over_people(values, fisher=stat != "unique")
        keep = [item.columns.index(c) for c in layers]
        model = item.meta.get("Model")
        label = str(model.get("Label")) if isinstance(model, dict) else desc
        curve = Curve(label, *[f[keep] for f in found], layers=layers)
        kinds.setdefault(str(item.meta.get("FeatureSpace") or desc), []).append(curve)
    panels = [CurvePanel(k[:1].upper() + k[1:], ylabel, tuple(c)) for k, c in kinds.items()]
    return longest, panels


def layers_section(story: GroupStory, place: str, naming: Naming) -> Section:
    """Show group means by layer and what single parcels do."""
    from bids_brainlm.report import figures_encoding

    blocks: list[object] = [_glance(story)]
    files = tuple(story.maps[d, "mean"].path for d in story.descs())
    layers, panels = layer_panels(story, "r", "mean r")
    if panels:
        blocks.append(
            Picture(
                naming("layers", "svg", story=story.story),
                figures_encoding.layer_curves(layers, panels),
                "Group mean by layer",
                "Scores by layer",
                "Mean held-out r over parcels (own part of the model band) by layer; "
                "lines: mean over "
                f"n = {len(story.people)} participants, bands: 95 % t interval over "
                f"participants after "
                "Fisher's transformation. How to read it: where the band includes "
                "zero, the average "
                "parcel cannot be told from chance; overlapping bands do not show that "
                "layers differ.",
                files,
            )
        )
    small = [
        d
        for d in scored(story)
        if len(story.maps[d, "mean"].index) <= FEW_PARCELS
        and len(layers_of(story.maps[d, "mean"].columns)) > 1
    ]
    if small:
        lines, everywhere = [], ()
        for desc in small[:3]:
            item = story.maps[desc, "mean"]
            wanted = layers_of(item.columns)
            everywhere = tuple(sorted({*everywhere, *wanted}))
            grid = np.column_stack([item.column(c) for c in wanted])
            lines.append(
                CurvePanel(
                    common.feature_words(desc, item.meta),
                    "group mean r",
                    tuple(Curve(name, grid[k], layers=wanted) for k, name in enumerate(item.names)),
                )
            )
        blocks.append(
            Picture(
                naming("parcellayers", "svg", story=story.story),
                figures_encoding.layer_curves(everywhere, lines),
                "Group mean by layer and parcel",
                "Scores by layer and parcel",
                f"Group mean (Fisher) of r by layer, one line a parcel; n = {len(story.people)} "
                "participants. How to read it: compare the shapes, and judge single bumps "
                "against the intervals of the figure above.",
                files,
            )
        )
    blocks += [
        _heads(story, d, naming) for d in story.descs() if heads_of(story.maps[d, "mean"].columns)
    ]
    return Section(f"{place}-layers", "Scores", tuple(blocks))


def _heads(story: GroupStory, desc: str, naming: Naming) -> Picture:
    """Draw the group mean of every head."""
    from bids_brainlm.report import figures_encoding

    item = story.maps[desc, "mean"]
    means, first = head_grid(item)
    name = common.feature_words(desc, item.meta)
    return Picture(
        naming("heads", "svg", story=story.story, desc=desc),
        figures_encoding.heads(means, first_layer=first, label="group mean r"),
        f"Group mean by head of {name}",
        f"Scores by attention head, {name}",
        f"Group mean of held-out r, averaged over {len(item.index)} parcels, for every attention "
        f"head; n = {len(story.people)} participants. How to read it: look for layers (rows) that "
        "are red throughout; single heads are noisy.",
        (item.path,),
    )


def _glance(story: GroupStory) -> Table:
    """Make one row a feature space."""
    columns = (
        Column("Feature space"),
        Column("Layer or head"),
        Column("Mean r", number=True),
        Column("Highest r", number=True),
        Column("Joint r", number=True),
        Column("Normalised", number=True, help="mean of r / ISC where the ISC is large enough"),
        Column("Unique R²", number=True, digits=4),
        Column("Parcels, q < FDR", number=True),
    )
    rows = []
    for desc in scored(story):
        item = story.maps[desc, "mean"]
        column = column_of(item)
        values = item.column(column)
        q = story.maps.get((desc, "q"))
        rows.append(
            (
                common.feature_words(desc, item.meta),
                common.column_words(column),
                mean(values),
                float(np.nanmax(values)) if np.isfinite(values).any() else None,
                _mean_of(story, desc, "rjoint", column),
                _mean_of(story, desc, "normalized", column),
                _mean_of(story, desc, "unique", column),
                int((q.column(column) < fdr_of(q.meta)).sum()) if q is not None else None,
            )
        )
    return Table(
        "Results at a glance",
        columns,
        tuple(rows),
        f"Means over parcels and n = {len(story.people)} participants at the column (layer or "
        "head) with the highest mean r. The column was chosen on the same scores, so these "
        "numbers are somewhat optimistic. Normalised: r divided by the ISC.",
        tuple(story.maps[d, "mean"].path for d in story.descs()),
    )


def _mean_of(story: GroupStory, desc: str, stat: str, column: str) -> float | None:
    """Return the mean over parcels of a group statistic."""
    item = story.maps.get((desc, stat))
    return mean(item.column(column)) if item is not None else None


def significance_section(story: GroupStory, place: str) -> Section:
    """Count significant parcels for every test."""
    rows, files, tests = [], [], []
    for desc in story.descs():
        column = column_of(story.maps[desc, "mean"])
        for stat, what in (
            ("q", "r of the model band"),
            ("rjointq", "r of the whole prediction"),
            ("uniqueq", "unique R²"),
        ):
            q = story.maps.get((desc, stat))
            if q is None:
                continue
            below = q.values < fdr_of(q.meta)
            rows.append(
                (
                    common.feature_words(desc, q.meta),
                    what,
                    common.column_words(column),
                    int((q.column(column) < fdr_of(q.meta)).sum()),
                    int(below.any(axis=1).sum()),
                    int(np.isfinite(q.values).any(axis=1).sum()),
                )
            )
            files.append(q.path)
            tests.append(_test_words(q))
    columns = (
        Column("Feature space"),
        Column("Score"),
        Column("Layer or head"),
        Column("Significant there", number=True),
        Column(
            "Significant anywhere", number=True, help="at any column; not corrected over columns"
        ),
        Column("Parcels tested", number=True),
    )
    table = Table(
        "Significant parcels",
        columns,
        tuple(rows),
        f"Number of parcels over n = {len(story.people)} participants. "
        f"{' '.join(dict.fromkeys(tests))} "
        "There: at the layer or head with the highest mean r. Anywhere: at any layer or head, "
        "without correction for their number.",
        tuple(files),
    )
    return Section(f"{place}-significance", "Significance", (table,))


def _test_words(q: ParcelMap) -> str:
    """Say in a sentence how q-values were made."""
    found = q.meta.get("Inference")
    if not isinstance(found, dict):
        return ""
    draws = found.get("NumberOfPermutations") or found.get("NumberOfBootstraps")
    return (
        f"Test: {found.get('Test', 'not stated')}, {draws} draws, q < {fdr_of(q.meta):g} "
        f"({found.get('Correction', 'Benjamini-Hochberg')}; family: "
        f"{found.get('Family', 'parcels')})."
    )


def maps_section(story: GroupStory, place: str, naming: Naming) -> Section:
    """Show where the scores are, and the best parcels."""
    blocks: list[object] = []
    drawn = story.labels is not None and story.labels.is_anatomical
    by_region = not drawn and regions.regions_of(story) is not None
    for desc in story.descs():
        if by_region and desc.endswith(SHOWN_BY_REGION):
            continue
        blocks += [_map(story, desc, naming), _best_parcels(story, desc)]
    return Section(f"{place}-maps", "Where", tuple(blocks))


def _map(story: GroupStory, desc: str, naming: Naming) -> Picture:
    """Draw the group mean of the best column."""
    from bids_brainlm.report import figures_encoding

    item = story.maps[desc, "mean"]
    column = column_of(item)
    values = item.column(column)
    q = story.maps.get((desc, "q"))
    keep = q.column(column) < fdr_of(q.meta) if q is not None else None
    name, where = common.feature_words(desc, item.meta), common.column_words(column)
    n = len(story.people)
    found = (
        ""
        if keep is None
        else (f" {int(keep.sum())} of {len(item.index)} parcels reach q < {fdr_of(q.meta):g}.")
    )
    files = common.map_files(story.maps, desc, "mean", "q", "meanthresholded")
    if story.labels is not None and story.labels.is_anatomical:
        return Picture(
            naming("map", "png", story=story.story, desc=desc),
            common.brain_and_cortex_png(story.labels, item.index, values, keep, "mean r"),
            f"Group map of {name}, {where}",
            f"Group map, {name}, {where}",
            f"Mean held-out r over n = {n} participants, {where}. "
            f"{common.drawn_words(story.labels, cortex=True)}{found} How to read it: red "
            "parcels are predicted; predictions of blue ones run against the data.",
            files,
        )
    order = shown_rows(values)
    series = story.scores.get((desc, "r"))
    each = None
    if series is not None:
        each = series[:, order, item.columns.index(column)].T
    low, high = _limits(story, desc, column)
    dots = Dots(
        "mean r",
        values[order],
        low=None if low is None else low[order],
        high=None if high is None else high[order],
        significant=None if keep is None else keep[order],
        observations=each,
    )
    shown = f" (the best {N_ROWS} are shown)" if len(order) < len(values) else ""
    return Picture(
        naming("parcels", "svg", story=story.story, desc=desc),
        figures_encoding.parcel_dots([item.names[k] for k in order], [dots], xlabel="held-out r"),
        f"Group scores by parcel of {name}, {where}",
        f"Scores by parcel, {name}, {where}",
        f"Blue: mean over n = {n} participants{shown}"
        + (" with its 95 % interval" if low is not None else "")
        + f"; grey: each participant. Filled: significant.{found} How to read it: intervals that "
        "include zero are compatible with no prediction.",
        files,
    )


def _limits(story: GroupStory, desc: str, column: str) -> tuple[np.ndarray | None, ...]:
    """Return the interval of the group mean by parcel."""
    low, high = story.maps.get((desc, "cilow")), story.maps.get((desc, "cihigh"))
    if low is not None and high is not None:
        return low.column(column), high.column(column)
    item = story.maps[desc, "mean"]
    if column == "value" and "ci_low" in item.columns:
        return item.column("ci_low"), item.column("ci_high")
    return None, None


def _best_parcels(story: GroupStory, desc: str) -> Table:
    """Make the table of the group's best parcels."""
    item = story.maps[desc, "mean"]
    column = column_of(item)
    values = item.column(column)
    order = [
        k
        for k in np.argsort(-np.where(np.isfinite(values), values, -9.0), kind="stable")
        if np.isfinite(values[k])
    ][: common.N_BEST]
    places = common.place_columns(story.labels)
    low, high = _limits(story, desc, column)
    spans: list[str] = []
    extra: list[tuple[str, int, np.ndarray]] = []
    if low is not None and high is not None:
        ends = zip(low, high, strict=True)
        spans = [common.interval(a, b) for a, b in ends]
    for stat, label, digits in (
        ("q", "q", 4),
        ("normalized", "normalised", 2),
        ("rjoint", "joint r", 3),
        ("unique", "unique R²", 4),
        ("uniqueq", "unique q", 4),
    ):
        if (desc, stat) in story.maps:
            extra.append((label, digits, story.maps[desc, stat].column(column)))
    if ("", "isc") in story.maps:
        extra.append(("ISC", 3, story.maps["", "isc"].column("value")))
    rows = tuple(
        (
            item.names[k],
            *common.place_of(story.labels, item.index[k], places),
            float(values[k]),
            *spans[k : k + 1],
            *[float(v[k]) for _, _, v in extra],
        )
        for k in order
    )
    columns = (
        Column("Parcel"),
        *[Column(p.replace("_", " ").capitalize()) for p in places],
        Column("mean r", number=True),
        *([Column("95 % interval")] if spans else []),
        *[Column(label, number=True, digits=digits) for label, digits, _ in extra],
    )
    return Table(
        f"Best parcels, {common.feature_words(desc, item.meta)}, {common.column_words(column)}",
        columns,
        rows,
        f"The {len(rows)} of {len(item.index)} parcels with the highest group mean. Click a "
        "heading to sort.",
        common.map_files(story.maps, desc, "mean", "p", "q", "normalized"),
    )
