"""The group page's part on further ceilings: side by side with leave-one-out ISC."""

from __future__ import annotations

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import Column, GroupStory, Table

KINDS = {
    "isc": "leave-one-out ISC",
    "splithalf": "split-half",
    "crosssubject": "cross-subject",
    "repeat": "repeats (share of variance)",
}
N_ROWS = 40


def blocks(story: GroupStory, naming: Naming) -> list[object]:
    """Show all ceilings of a story.

    Parameters
    ----------
    story : GroupStory
    naming : callable
        Gives a figure its path.

    Returns
    -------
    list of blocks
        Empty where there is only leave-one-out ISC.
    """
    found = [kind for kind in KINDS if ("", kind) in story.maps]
    if len(found) < 2:
        return []
    item = story.maps["", "isc"]
    values = item.column("value")
    order = np.argsort(-np.where(np.isfinite(values), values, -9.0), kind="stable")[:N_ROWS]
    order = np.sort(order) if len(order) == len(values) else order
    q = story.maps.get(("", "iscq"))
    bounded = [k for k in found if np.isfinite(story.maps["", k].column("ci_low")).any()]
    rows = []
    for k in order:
        row: list[object] = [item.names[k]]
        for kind in found:
            row.append(float(story.maps["", kind].column("value")[k]))
            row += [_interval(story, kind, int(k))] if kind in bounded else []
        row.append(None if q is None else float(q.column("value")[k]))
        rows.append(tuple(row))
    columns = [Column("Parcel")]
    for kind in found:
        columns.append(Column(KINDS[kind], number=True))
        columns += [Column("95 %")] if kind in bounded else []
    columns.append(Column("q of ISC", number=True, digits=4))
    significant = "" if q is None else f" {int((q.values <= 0.05).sum())} of {len(values)} parcels "
    significant += "share more than chance (q ≤ 0.05)." if significant else ""
    shown = "" if len(order) == len(values) else f" The {len(order)} with the highest ISC."
    caption = (
        f"n = {len(story.people)} participants.{shown} Split-half: correlation of means of random "
        "halves, Spearman-Brown corrected; it is higher than leave-one-out ISC, since both sides "
        "are averages. Cross-subject: each participant predicted from the parcels of the others. "
        "q: phase randomisation of each participant's series, mean pairwise ISC (leave-one-out "
        f"values are not independent and are never bootstrapped).{significant} How to read it: "
        "scores are divided by leave-one-out ISC, and only where its interval excludes zero."
    )
    files = common.map_files(story.maps, "", *found, "iscp", "iscq", "iscpfwe")
    return [Table("Ceilings side by side", tuple(columns), tuple(rows), caption, files)]


def _interval(story: GroupStory, kind: str, place: int) -> str:
    """Write the interval of one parcel."""
    item = story.maps["", kind]
    low, high = (float(item.column(c)[place]) for c in ("ci_low", "ci_high"))
    return common.interval(low, high, 2)
