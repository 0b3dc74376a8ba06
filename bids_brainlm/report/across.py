"""What the pages say about models across stories or runs, beside those within a story."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bids_brainlm.report import common, validity
from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import (
    Column,
    GroupStory,
    ParcelMap,
    Picture,
    Recording,
    Section,
    Table,
    Text,
)
from bids_brainlm.report.intervals import interval_over_people
from bids_brainlm.report.spaces import within_of

N_PANELS = 6
TEXT = (
    "The same models, fitted on the other stories (or runs) that a participant heard and tested on "
    "this one, which they never saw. Within a story, training and test rows share speaker, "
    "topic and recording; what holds across stories rests on none of these. Fewer or more training "
    "rows, too, make the two differ."
)


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show group scores across stories beside those within this story.

    Parameters
    ----------
    story : GroupStory
    place : str
        Anchor of the story's part.
    naming : Naming

    Returns
    -------
    Section or None
        None where nobody heard several stories.
    """
    from bids_brainlm.report import figures_presets

    pairs = [(d, within_of(d)) for d in story.across() if _shared(story, d)]
    if not pairs:
        return None
    rows, panels = [], []
    for desc, within in pairs:
        item, own = story.maps[desc, "mean"], story.maps[within, "mean"]
        shared = _shared(story, desc)
        column = common.best_column(_columns(own, shared), shared)
        name = common.feature_words(desc, item.meta)
        rows.append(_group_row(story, desc, within, column, name))
        panels.append((_short(desc, own), own.column(column), item.column(column)))
    files = tuple(story.maps[d, "mean"].path for d, _ in pairs)
    n_people = int(max(rows, key=lambda row: row[2])[2])
    return Section(
        f"{place}-across",
        "Across stories",
        (
            Text(TEXT),
            Table(
                "Within and across stories",
                (
                    Column("Feature space"),
                    Column("Column"),
                    Column("n", number=True, digits=0),
                    Column("Mean r within", number=True),
                    Column("Mean r across", number=True),
                    Column("Difference", number=True),
                    Column("95 % low", number=True),
                    Column("95 % high", number=True),
                    Column("q ≤ FDR within", number=True, digits=0),
                    Column("q ≤ FDR across", number=True, digits=0),
                ),
                tuple(rows),
                "Mean over parcels at the column that is best within the story, which favours the "
                "score within where there are several. Difference: across minus within, mean over "
                "the participants who have both, with its t interval after Fisher's "
                "transformation. Last columns: significant parcels of the group.",
                files,
            ),
            Picture(
                naming("across", "svg", story=story.story),
                figures_presets.scatter(
                    panels[:N_PANELS], ("r within the story", "r across stories")
                ),
                "Scores across stories against scores within",
                "Parcel by parcel",
                f"Group mean r of every parcel within this story (horizontal) and across stories "
                f"(vertical), up to n = {n_people} participants. How to read it: parcels on the "
                "line hold what they show within the story; parcels far below it owe their score "
                "to what is particular to this story.",
                files,
            ),
        ),
    )


def _shared(story: GroupStory, desc: str) -> list[str]:
    """Return the columns of scores that a space has across and within stories."""
    own, item = story.maps.get((within_of(desc), "mean")), story.maps[desc, "mean"]
    columns = own.columns if own is not None else ()
    return [c for c in columns if c in item.columns and c not in ("ci_low", "ci_high")]


def _short(desc: str, own: ParcelMap) -> str:
    """Name a panel."""
    name = common.feature_words(within_of(desc), own.meta)
    return f"{name} (runs)" if desc.endswith("Runs") else name


def _columns(item: ParcelMap, columns: list[str]) -> np.ndarray:
    """Return some columns of a map."""
    return np.column_stack([item.column(c) for c in columns])


def _group_row(
    story: GroupStory, desc: str, within: str, column: str, name: str
) -> tuple[object, ...]:
    """Compare a feature space within and across stories, for participants who have both."""
    values = []
    for one in (within, desc):
        scores = story.scores[one, "r"]
        values.append(scores[:, :, story.maps[one, "mean"].columns.index(column)])
    z = [np.array([common.mean(np.arctanh(person)) for person in each]) for each in values]
    both = np.isfinite(z[0]) & np.isfinite(z[1])
    difference = (z[1] - z[0])[both]
    found: tuple[np.ndarray | None, ...] = (None, None, None)
    if both.any():
        found = interval_over_people(difference[:, None, None], fisher=False)
    tested = [_significant(story.maps.get((one, "q")), column) for one in (within, desc)]
    return (
        name,
        common.column_words(column),
        int(both.sum()),
        float(np.tanh(z[0][both].mean())) if both.any() else None,
        float(np.tanh(z[1][both].mean())) if both.any() else None,
        *[None if v is None else float(v.ravel()[0]) for v in found],
        *tested,
    )


def _significant(q: ParcelMap | None, column: str) -> int | None:
    """Count significant parcels."""
    if q is None or column not in q.columns:
        return None
    return int((q.column(column) <= common.fdr_of(q.meta)).sum())


def run_section(recording: Recording, place: str) -> Section | None:
    """Show a participant's scores across stories beside those within this run.

    Parameters
    ----------
    recording : Recording
    place : str
        Anchor of the run's part.

    Returns
    -------
    Section or None
        None where the participant heard one story only.
    """
    descs = recording.across()
    if not descs:
        return None
    rows = []
    for desc in descs:
        item, own = recording.maps[desc, "r"], recording.maps.get((within_of(desc), "r"))
        column = common.best_column(item.values, item.columns)
        if own is not None:
            column = common.best_column(own.values, own.columns)
        here = column in item.columns
        rows.append(
            (
                common.feature_words(desc, item.meta),
                _trained_on(item.meta),
                common.column_words(column),
                common.mean(own.column(column)) if own is not None else None,
                common.mean(item.column(column)) if here else None,
                _significant(recording.maps.get((desc, "q")), column),
            )
        )
    columns = (
        Column("Feature space"),
        Column("Trained on"),
        Column("Column"),
        Column("Mean r within", number=True),
        Column("Mean r across", number=True),
        Column("q ≤ FDR across", number=True, digits=0),
    )
    table = Table(
        "Within and across stories",
        columns,
        tuple(rows),
        "Mean over parcels at the column that is best within this run.",
        tuple(recording.maps[d, "r"].path for d in descs),
    )
    audited = [
        (common.feature_words(d, recording.maps[d, "r"].meta), recording.maps[d, "r"])
        for d in descs
    ]
    blocks = (Text(TEXT), table, *validity.leakage(audited))
    return Section(f"{place}-across", "Across stories", blocks)


def _trained_on(meta: Mapping[str, object]) -> str:
    """Name stories or runs that a model was fitted on."""
    split = meta.get("Split")
    train = split.get("Train", ()) if isinstance(split, Mapping) else ()
    names = []
    for one in train:
        run = [f"{k.lower()}-{one[k]}" for k in ("Session", "Run") if k in one]
        names.append(" ".join([str(one["Story"]), *run]))
    return ", ".join(names)
