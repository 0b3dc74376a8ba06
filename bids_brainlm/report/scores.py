"""Scores of one run: table at a glance, layer curves, maps, penalties, best parcels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.report import checks, common
from bids_brainlm.report.checks import figure_path, nuisance, single_bands, values_of
from bids_brainlm.report.common import Naming, best_column, fdr_of, heads_of, layers_of, mean
from bids_brainlm.report.content import (
    Column,
    ParcelMap,
    Picture,
    Recording,
    Section,
    Table,
)
from bids_brainlm.report.figures_encoding import (
    FEW_PARCELS,
    Curve,
    CurvePanel,
    Dots,
    column_mean,
)

N_ROWS = 20
"""Parcels of a dot plot where the atlas cannot be drawn."""

MANY_PARCELS = 20
"""From this many parcels on, the distribution of p-values is drawn."""


def best_of(recordings: Sequence[Recording]) -> tuple[Recording, str, str, float] | None:
    """Return the recording, feature space and column with the highest mean r."""
    found = []
    for recording in recordings:
        for desc in recording.descs():
            item = recording.maps[desc, "r"]
            column = best_column(item.values, item.columns)
            score = mean(item.column(column))
            if np.isfinite(score):
                found.append((score, recording, desc, column))
    if not found:
        return None
    score, recording, desc, column = max(found, key=lambda f: f[0])
    return recording, desc, column, score


def n_significant(recording: Recording, desc: str, column: str) -> tuple[int, int, float] | None:
    """Return significant parcels, tested parcels and the FDR; ``None`` without a test."""
    item = recording.maps.get((desc, "q"))
    if item is None:
        return None
    q = item.column(column)
    fdr = fdr_of(item.meta)
    return int((q < fdr).sum()), int(np.isfinite(q).sum()), fdr


def glance_table(recording: Recording) -> Table:
    """Make one row a feature space."""
    columns = (
        Column("Feature space"),
        Column("Layer or head"),
        Column("Mean r", number=True, help="own part of the model band, mean over parcels"),
        Column("Highest r", number=True),
        Column("Joint r", number=True, help="whole prediction"),
        Column("Nuisance r", number=True, help="silence, counts and phonemes alone"),
        Column("Unique R²", number=True, digits=4, help="joint R² minus nuisance R²"),
        Column("R² < 0", number=True, digits=0, help="% of parcels with a negative joint R²"),
        Column("Parcels, q < FDR", number=True, help="at the best column"),
    )
    rows = tuple(_glance_row(recording, desc) for desc in recording.descs())
    files = tuple(recording.maps[d, "r"].path for d in recording.descs())
    return Table(
        "Results at a glance",
        columns,
        rows,
        "Held-out scores; means over parcels at the layer or head with the highest mean r. "
        "The column was chosen on the same scores, so these numbers are somewhat optimistic; "
        "the curves below show all of them. R² < 0 in % of parcels.",
        files,
    )


def _glance_row(recording: Recording, desc: str) -> tuple[object, ...]:
    """Return the numbers of one feature space."""
    item = recording.maps[desc, "r"]
    column = best_column(item.values, item.columns)
    own = item.column(column)
    r2 = values_of(recording, desc, "r2", column)
    negative = 100 * float((r2 < 0).sum()) / max(int(np.isfinite(r2).sum()), 1)
    found = n_significant(recording, desc, column)
    return (
        common.feature_words(desc, item.meta),
        common.column_words(column),
        mean(own),
        float(np.nanmax(own)) if np.isfinite(own).any() else None,
        mean(values_of(recording, desc, "rjoint", column)),
        mean(nuisance(recording)),
        mean(values_of(recording, desc, "unique", column)),
        negative if np.isfinite(r2).any() else None,
        found[0] if found else None,
    )


def feature_section(recording: Recording, desc: str, place: str, naming: Naming) -> Section:
    """Make the part of one feature space."""
    item = recording.maps[desc, "r"]
    blocks: list[object] = []
    if len(layers_of(item.columns)) > 1:
        blocks.append(_layers(recording, desc, naming))
    if heads_of(item.columns):
        blocks.append(_heads(recording, desc, naming))
    blocks.append(_map(recording, desc, naming))
    if recording.labels is not None and recording.labels.is_anatomical:
        blocks.append(checks.bands(recording, desc, naming))
    blocks.append(best_parcels(recording, desc))
    if (desc, "p") in recording.maps and len(item.index) >= MANY_PARCELS:
        blocks.append(checks.p_values(recording, desc, naming))
    blocks += checks.penalties(recording, desc, naming)
    title = common.feature_words(desc, item.meta)
    return Section(f"{place}-{common.anchor(desc)}", title[:1].upper() + title[1:], tuple(blocks))


def _layers(recording: Recording, desc: str, naming: Naming) -> Picture:
    """Draw the scores by layer."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    layers = layers_of(item.columns)
    own = _curves(recording, desc, "r", layers)
    panels = [CurvePanel("Model band's own part", "held-out r", own)]
    if (desc, "rjoint") in recording.maps:
        base = nuisance(recording)
        panels.append(
            CurvePanel(
                "Whole prediction",
                "held-out joint r",
                _curves(recording, desc, "rjoint", layers),
                mean(base) if base is not None else None,
                "nuisance bands alone, mean over parcels",
            )
        )
    if (desc, "unique") in recording.maps:
        panels.append(
            CurvePanel(
                "Added to nuisance bands", "unique R²", _curves(recording, desc, "unique", layers)
            )
        )
    total = int(np.isfinite(item.values).any(axis=1).sum())
    lines = (
        "one line a parcel"
        if len(item.index) <= FEW_PARCELS
        else "lines: means over parcels, in grey the five best parcels"
    )
    return Picture(
        path=figure_path(recording, desc, "layers", "svg", naming),
        data=figures_encoding.layer_curves(layers, panels),
        alt=f"Scores by layer of {desc}",
        title="Scores by layer",
        caption=(
            f"Held-out scores of n = {total} parcels by layer ({lines}). Left: correlation of the "
            "model band's own part of the prediction with the data. Middle: the whole prediction; "
            "the dashed line is what silence, word rate and phonemes reach without the language "
            "model. Right: R² with the model minus R² without it. How to read it: a model that "
            "explains the brain beyond word rate lies above the dashed line and above zero on the "
            "right."
        ),
        files=common.map_files(recording.maps, desc, "r", "rjoint", "unique"),
    )


def _curves(
    recording: Recording, desc: str, stat: str, layers: tuple[str, ...]
) -> tuple[Curve, ...]:
    """Return the lines of one panel."""
    item = recording.maps[desc, stat]
    values = np.column_stack([item.column(layer) for layer in layers])
    if len(item.index) <= FEW_PARCELS:
        lines = [Curve(name, values[k]) for k, name in enumerate(item.names)]
        return (*lines, Curve("mean over parcels", column_mean(values)))
    reference = recording.maps[desc, "r"].values
    order = np.argsort(-np.nan_to_num(np.nanmax(_filled(reference), axis=1), nan=-9))[:5]
    lines = [Curve("five best parcels", values[k], is_background=True) for k in order]
    lines.append(Curve(f"mean over {len(item.index)} parcels", column_mean(values)))
    q = recording.maps.get((desc, "q"))
    if q is not None:
        keep = (np.column_stack([q.column(c) for c in layers]) < fdr_of(q.meta)).any(axis=1)
        if keep.any():
            lines.append(
                Curve(
                    f"mean over {int(keep.sum())} parcels with q < {fdr_of(q.meta):g} at any layer",
                    column_mean(values[keep]),
                )
            )
    return tuple(lines)


def _filled(values: np.ndarray) -> np.ndarray:
    """Replace NaN by a value below every correlation."""
    return np.where(np.isfinite(values), values, -9.0)


def _heads(recording: Recording, desc: str, naming: Naming) -> Picture:
    """Draw the mean score of every head."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    means, first = head_grid(item)
    total = int(np.isfinite(item.values).any(axis=1).sum())
    return Picture(
        path=figure_path(recording, desc, "heads", "svg", naming),
        data=figures_encoding.heads(means, first_layer=first),
        alt=f"Mean score by head of {desc}",
        title="Scores by attention head",
        caption=(
            f"Mean held-out r over n = {total} parcels for every attention head (own part of "
            "the model band). How to read it: red heads predict the data, predictions of blue "
            "heads run against the data; white is zero or not fitted."
        ),
        files=(item.path,),
    )


def head_grid(item: ParcelMap) -> tuple[np.ndarray, int]:
    """Return mean r by (layer, head) and the number of the first layer."""
    heads = heads_of(item.columns)
    pairs = [(int(h[1:].split("H")[0]), int(h.split("H")[1])) for h in heads]
    first = min(layer for layer, _ in pairs)
    grid = np.full((max(p[0] for p in pairs) - first + 1, max(p[1] for p in pairs)), np.nan)
    for head, (layer, place) in zip(heads, pairs, strict=True):
        grid[layer - first, place - 1] = mean(item.column(head))
    return grid, first


def _map(recording: Recording, desc: str, naming: Naming) -> Picture:
    """Draw the best column on a brain, or by parcel where the atlas has no anatomy."""
    item = recording.maps[desc, "r"]
    column = best_column(item.values, item.columns)
    values = item.column(column)
    q = recording.maps.get((desc, "q"))
    keep = q.column(column) < fdr_of(q.meta) if q is not None else None
    where = common.column_words(column)
    n = int(np.isfinite(values).sum())
    tail = _significance(keep, q)
    files = common.map_files(recording.maps, desc, "r", "q", "rthresholded")
    if recording.labels is not None and recording.labels.is_anatomical:
        return Picture(
            path=figure_path(recording, desc, "map", "png", naming),
            data=common.brain_png(recording.labels, item.index, values, keep, "r"),
            alt=f"Brain map of {desc}, {where}",
            title=f"Brain map, {where}",
            caption=(
                f"Held-out r (own part of the model band) of n = {n} parcels; "
                f"{common.chosen_words(item.columns, column)}. "
                f"{common.drawn_words(recording.labels)} {tail} How to read it: language areas "
                "of the temporal and frontal lobes should stand out; scattered colours of both "
                "signs are noise."
            ),
            files=files,
        )
    return _dots(recording, desc, column, keep, tail, naming)


def _significance(keep: np.ndarray | None, q: ParcelMap | None) -> str:
    """Say how many parcels are significant."""
    if keep is None or q is None:
        return "No test was run."
    found = q.meta.get("Inference")
    family = found.get("Family") if isinstance(found, dict) else None
    over = f" over {family}" if family else ""
    return (
        f"{int(keep.sum())} of {int(np.isfinite(q.values).any(axis=1).sum())} parcels reach "
        f"q < {fdr_of(q.meta):g} (false discovery rate{over})."
    )


def _dots(
    recording: Recording,
    desc: str,
    column: str,
    keep: np.ndarray | None,
    tail: str,
    naming: Naming,
) -> Picture:
    """Draw scores by parcel: model band, whole prediction, nuisance alone, other bands."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    values = item.column(column)
    order = np.argsort(-_filled(values), kind="stable")[:N_ROWS]
    if len(item.index) <= N_ROWS:
        order = np.arange(len(item.index))
    series = [Dots("model band", values[order], significant=None if keep is None else keep[order])]
    if (desc, "rjoint") in recording.maps:
        joint = values_of(recording, desc, "rjoint", column)
        series.append(Dots("whole prediction", joint[order]))
    base = nuisance(recording)
    if base is not None and len(base) == len(values):
        series.append(Dots("nuisance bands alone", base[order]))
    series += [
        Dots(label, values_of(recording, desc, stat, column)[order])
        for stat, label in single_bands(item)
        if (desc, stat) in recording.maps
    ]
    where = common.column_words(column)
    shown = "" if len(order) == len(item.index) else f" (the best {N_ROWS} are shown)"
    return Picture(
        path=figure_path(recording, desc, "parcels", "svg", naming),
        data=figures_encoding.parcel_dots(
            [item.names[k] for k in order], series, xlabel="held-out r"
        ),
        alt=f"Scores by parcel of {desc}, {where}",
        title=f"Scores by parcel, {where}",
        caption=(
            f"Held-out correlations of n = {int(np.isfinite(values).sum())} parcels{shown}; "
            f"{common.chosen_words(item.columns, column)}. Model band and single bands: their "
            "own part of the joint prediction. Filled circles of the model band are "
            f"significant. {tail} How to read it: the model band adds something where "
            "the whole prediction lies right of the nuisance bands alone."
        ),
        files=common.map_files(recording.maps, desc, "r", "rjoint", "q"),
    )


def best_parcels(recording: Recording, desc: str) -> Table:
    """Make the table of the best parcels at the best column."""
    item = recording.maps[desc, "r"]
    column = best_column(item.values, item.columns)
    values = item.column(column)
    order = [k for k in np.argsort(-_filled(values), kind="stable") if np.isfinite(values[k])]
    places = common.place_columns(recording.labels)
    stats = [
        (s, label, digits)
        for s, label, digits in (
            ("rjoint", "joint r", 3),
            ("r2", "R²", 4),
            ("unique", "unique R²", 4),
            ("p", "p", 4),
            ("q", "q", 4),
        )
        if (desc, s) in recording.maps
    ]
    many = len(item.columns) > 1
    rows = []
    for k in order[: common.N_BEST]:
        peak = [best_column(item.values[[k]], item.columns)] if many else []
        rows.append(
            (
                item.names[k],
                *common.place_of(recording.labels, item.index[k], places),
                float(values[k]),
                *[float(values_of(recording, desc, s, column)[k]) for s, _, _ in stats],
                *[common.column_words(p) for p in peak],
            )
        )
    columns = (
        Column("Parcel"),
        *[Column(p.replace("_", " ").capitalize()) for p in places],
        Column("r", number=True),
        *[Column(label, number=True, digits=digits) for _, label, digits in stats],
        *([Column("Own peak")] if many else []),
    )
    return Table(
        f"Best parcels, {common.column_words(column)}",
        columns,
        tuple(rows),
        f"The {len(rows)} of {len(item.index)} parcels with the highest r"
        + (
            f" at {common.column_words(column)}; own peak is the parcel's own best column"
            if many
            else ""
        )
        + ". Click a heading to sort.",
        common.map_files(recording.maps, desc, "r", "p", "q"),
    )
