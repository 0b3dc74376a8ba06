"""What a careful reader checks of a feature space: bands, p-values, penalties."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import Naming, best_column
from bids_brainlm.report.content import Notice, ParcelMap, Picture, Recording
from bids_brainlm.report.figures_encoding import Dots

MANY_COLUMNS = 60
"""More columns than this (heads) are summed in the figure of penalties."""


def single_bands(item: ParcelMap) -> list[tuple[str, str]]:
    """Return the statistics with the scores of single bands, and what the bands are called."""
    names = [str(b["Name"]) for b in item.meta.get("Bands") or ()]
    return [("r" + n.replace("-", "").lower(), n) for n in names if n != "model"]


def values_of(recording: Recording, desc: str, stat: str, column: str) -> np.ndarray:
    """Return a column of a statistic, NaN where it was not computed."""
    item = recording.maps.get((desc, stat))
    if item is None:
        return np.full(len(recording.maps[desc, "r"].index), np.nan)
    return item.column(column)


def nuisance(recording: Recording) -> np.ndarray | None:
    """Return r of the nuisance bands alone by parcel, or ``None``."""
    for stat in ("rjoint", "r"):
        item = recording.maps.get(("nuisance", stat))
        if item is not None:
            return item.values[:, 0]
    return None


def figure_path(recording: Recording, desc: str, figure: str, ext: str, naming: Naming) -> str:
    """Return the path of a figure of a feature space."""
    return naming(
        figure, ext, story=recording.story, session=recording.session, run=recording.run, desc=desc
    )


def bands(recording: Recording, desc: str, naming: Naming) -> Picture:
    """Draw the spread over parcels of each band's own score."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    column = best_column(item.values, item.columns)
    base = nuisance(recording)
    rows = [
        ("model band", item.column(column)),
        *[
            (label, values_of(recording, desc, stat, column))
            for stat, label in single_bands(item)
            if (desc, stat) in recording.maps
        ],
        ("whole prediction", values_of(recording, desc, "rjoint", column)),
        *([("nuisance bands alone", base)] if base is not None else []),
    ]
    rows = [(label, values[np.isfinite(values)]) for label, values in rows]
    rows = [(label, values) for label, values in rows if len(values)]
    low, middle, high = (np.array([np.percentile(v, q) for _, v in rows]) for q in (25, 50, 75))
    where = common.column_words(column)
    return Picture(
        path=figure_path(recording, desc, "bands", "svg", naming),
        data=figures_encoding.parcel_dots(
            [label for label, _ in rows], [Dots("r", middle, low, high)], xlabel="held-out r"
        ),
        alt=f"Scores of single bands of {desc}, {where}",
        title=f"Scores of single bands, {where}",
        caption=(
            f"Each band's own part of the joint prediction, the whole prediction, and a model "
            f"without the language model; dots: median of n = {len(rows[0][1])} parcels, "
            "lines: middle half. How to read it: compare the model band with the counts: a "
            "language model can owe much of its score to word rate."
        ),
        files=common.map_files(
            recording.maps, desc, "r", *[s for s, _ in single_bands(item)], "rjoint"
        ),
    )


def p_values(recording: Recording, desc: str, naming: Naming) -> Picture:
    """Draw the distribution of p-values at the best column."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    column = best_column(item.values, item.columns)
    p = values_of(recording, desc, "p", column)
    where = common.column_words(column)
    return Picture(
        path=figure_path(recording, desc, "pvalues", "svg", naming),
        data=figures_encoding.p_values(p, where),
        alt=f"Distribution of p-values of {desc}, {where}",
        title=f"Distribution of p-values, {where}",
        caption=(
            f"Sorted p-values of n = {int(np.isfinite(p).sum())} parcels against those "
            "expected without any signal. How to read it: on the line: as without signal; "
            "above it: p-values are smaller than by chance; below it throughout: the test is "
            "too strict or does not fit the data."
        ),
        files=common.map_files(recording.maps, desc, "p"),
    )


def penalties(recording: Recording, desc: str, naming: Naming) -> list[object]:
    """Draw the penalties that were chosen and warn of the ends of the grid."""
    from bids_brainlm.report import figures_encoding

    item = recording.maps[desc, "r"]
    edges = common.edge_shares(item.meta)
    if edges is None:
        return []
    low, high, (first, last) = edges
    found = item.meta["Alphas"]
    chosen = dict(found["Chosen"])
    if len(chosen) > MANY_COLUMNS:
        chosen = {"all": np.array([list(c) for c in chosen.values()]).sum(axis=0)}
    blocks: list[object] = [
        Picture(
            path=figure_path(recording, desc, "alphas", "svg", naming),
            data=figures_encoding.alphas(found["Tried"], chosen),
            alt=f"Penalties chosen for {desc}",
            title="Penalties chosen",
            caption=(
                f"Share of choices (parcels × outer folds, in %) for each of "
                f"{len(found['Tried'])} penalties. {100 * low:.1f} % chose the weakest "
                f"({first:g}), {100 * high:.1f} % the strongest ({last:g}). How to read it: "
                "choices inside the grid are healthy; parcels without signal rightly choose "
                "the strongest penalty."
            ),
            files=(item.path.removesuffix(".tsv") + ".json",),
        )
    ]
    if max(low, high) > common.EDGE_LIMIT:
        side = "weakest" if low >= high else "strongest"
        blocks.append(
            Notice(
                f"{100 * max(low, high):.1f} % of choices sit at the {side} penalty of "
                f"the grid (more "
                f"than {100 * common.EDGE_LIMIT:.0f} %). Where those parcels are "
                f"significant, widen "
                "the grid with --alphas.",
                "note" if side == "strongest" else "warning",
            )
        )
    return blocks
