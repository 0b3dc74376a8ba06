"""The group page's part on all stories together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.report import brainview, common
from bids_brainlm.report.content import BrainView, Column, GroupStory, Section, Table, Text

STORY = "pooled"
"""What stands for a story in results over all of them."""


def section(stories: Sequence[GroupStory]) -> Section | None:
    """Show group results over all stories, one table an atlas.

    Parameters
    ----------
    stories : sequence of GroupStory
        Those over all stories.

    Returns
    -------
    Section or None
        None where there are none.
    """
    if not stories:
        return None
    blocks: list[object] = [
        Text(
            "Every story counts the same; a participant who heard several stories counts once: "
            "their contribution is flipped as a whole in the null distribution, and resamples "
            "draw people with all their stories."
        )
    ]
    blocks += [_table(story) for story in stories]
    views = [
        brainview.block(story, f"all-stories-brainview{common.anchor(mark)}")
        for story, mark in zip(stories, common.marks_of(stories), strict=True)
    ]
    blocks += [view for view in views if isinstance(view, BrainView)]
    return Section("all-stories", "All stories together", tuple(blocks))


def _table(story: GroupStory) -> Table:
    """Make one row a feature space."""
    rows = []
    for desc in (*story.descs(), *story.across()):
        item, q, largest = (story.maps[desc, stat] for stat in ("mean", "q", "pfwe"))
        column = common.best_column(item.values, item.columns)
        effect = story.maps[desc, "effect"].column(column)
        values = item.column(column)
        rows.append(
            (
                common.feature_words(desc, item.meta),
                common.column_words(column),
                int(item.meta.get("NumberOfParticipants") or 0),
                len(item.meta.get("Stories") or ()),
                common.mean(values),
                float(np.nanmax(values)) if np.isfinite(values).any() else None,
                common.mean(effect),
                int((q.column(column) <= common.fdr_of(q.meta)).sum()),
                int((largest.column(column) <= 0.05).sum()),
            )
        )
    columns = (
        Column("Feature space"),
        Column("Layer or head"),
        Column("n", number=True, digits=0),
        Column("Stories", number=True, digits=0),
        Column("Mean r", number=True),
        Column("Highest r", number=True),
        Column("Mean d", number=True, digits=2),
        Column("q ≤ FDR", number=True, digits=0),
        Column("p max ≤ .05", number=True, digits=0),
    )
    caption = (
        f"{story.atlas} in {story.space}, {len(next(iter(story.maps.values())).index)} parcels or "
        "regions, at the column with the highest mean (chosen on the same scores). d: Hedges' g. "
        "Last columns: how many are significant after FDR correction, and by the largest "
        "statistic."
    )
    files = tuple(story.maps[d, "mean"].path for d in story.descs())[:6]
    return Table(f"All stories, {story.atlas}", columns, tuple(rows), caption, files)
