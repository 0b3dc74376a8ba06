"""What the pages say about validity: leakage between folds, timing, and the models themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import number
from bids_brainlm.report.content import Column, GroupStory, Notice, ParcelMap, Recording, Table

LEVELS = {"leak": "error", "warning": "warning"}
LONGEST = "8"
"""Length of the n-grams whose repeats are shown, as sidecars spell it."""


def leakage(maps: Sequence[tuple[str, ParcelMap]]) -> list[object]:
    """Show the leakage audit of several feature spaces.

    Parameters
    ----------
    maps : sequence of (str, ParcelMap)
        Name and map of scores; those whose sidecar has no audit are left out.

    Returns
    -------
    list of blocks
        Leaks first, in red; empty where no sidecar has an audit.
    """
    audits = [(name, item, item.meta["Leakage"]) for name, item in maps if _has_audit(item)]
    if not audits:
        return []
    told: dict[tuple[str, str], list[str]] = {}
    for name, _, audit in audits:
        for one in audit["Findings"]:
            if one["Severity"] in LEVELS:
                told.setdefault((one["Severity"], str(one["Text"])), []).append(name)
    ordered = sorted(told.items(), key=lambda entry: list(LEVELS).index(entry[0][0]))
    notices: list[object] = [
        Notice(_finding(severity, text, names, len(audits)), LEVELS[severity])
        for (severity, text), names in ordered
    ]
    if not any(severity == "leak" for severity, _ in told):
        notices.insert(
            0, Notice("Leakage audit: nothing leaks from test to training rows.", "good")
        )
    return [*notices, _table(audits)]


def _has_audit(item: ParcelMap) -> bool:
    """Tell whether a sidecar has a leakage audit."""
    return isinstance(item.meta.get("Leakage"), Mapping)


def _finding(severity: str, text: str, names: Sequence[str], n_all: int) -> str:
    """Say what was found and where."""
    where = "all feature spaces" if len(names) == n_all else ", ".join(names)
    begin = "LEAK: scores are too high and must not be reported. " if severity == "leak" else ""
    return f"{begin}{text} ({where})"


def _table(audits: Sequence[tuple[str, ParcelMap, Mapping]]) -> Table:
    """Make one row a feature space."""
    rows = tuple(
        (
            name,
            audit.get("LeastDistance"),
            audit.get("NeededDistance"),
            _yes(audit.get("DelaysCross")),
            _yes(audit.get("ResponseCrosses")),
            _yes(audit.get("ContextCrosses")),
            _percent((audit.get("RepeatedNGrams") or {}).get(LONGEST)),
        )
        for name, _, audit in audits
    )
    columns = (
        Column("Feature space"),
        Column("Least distance, TR", number=True, digits=0),
        Column("needed", number=True, digits=0),
        Column("Features cross"),
        Column("Response crosses"),
        Column("Context crosses"),
        Column(f"Repeated {LONGEST}-grams, %", number=True, digits=1),
    )
    return Table(
        "Leakage audit",
        columns,
        rows,
        "Least distance between a training and a test row of any outer fold, and the distance from "
        "which the delayed response to a TR reaches only one of them. Features cross: both hold "
        "the same TR of the stimulus (a leak). Context crosses: the language model read words of "
        "training rows for features of test rows. Repeated: share of the test text's sequences of "
        f"{LONGEST} words that also occur in the training text.",
        tuple(dict.fromkeys(item.path.removesuffix(".tsv") + ".json" for _, item, _ in audits))[:3],
    )


def _yes(value: object) -> str:
    """Write a truth value."""
    return "–" if value is None else "yes" if value else "no"


def _percent(value: object) -> float | None:
    """Return a share in percent."""
    return 100 * float(value) if isinstance(value, (int, float)) else None


def alignment(meta: Mapping[str, object]) -> list[object]:
    """Say at what lag the brain follows the words.

    Parameters
    ----------
    meta : mapping
        Sidecar with ``Lag``, ``Verdict`` ...; empty where it was not estimated.

    Returns
    -------
    list of blocks
    """
    if meta.get("Lag") is None:
        return []
    interval = ""
    if meta.get("LagLow") is not None and meta.get("LagHigh") is not None:
        low, high = number(float(meta["LagLow"]), 1), number(float(meta["LagHigh"]), 1, "s")
        interval = f" (95 % interval {low} to {high})"
    r, z = number(float(meta["R"]), 2), number(float(meta["Z"]), 1)
    verdict = str(meta["Verdict"]).rstrip(".")
    text = f"Timing: {verdict}{interval}. Best r = {r}, z = {z} against rotated series."
    return [Notice(text, "error" if meta.get("Unlikely") else "note")]


def model_checks(recording: Recording) -> list[object]:
    """Show what to check of the fits of a run: penalties at the grid's ends, negative R2.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    list of blocks
    """
    rows = []
    for desc in recording.descs():
        item = recording.maps[desc, "r"]
        column = common.best_column(item.values, item.columns)
        edges = common.edge_shares(item.meta)
        r2 = recording.maps.get((desc, "r2"))
        degrees = (item.meta.get("EffectiveDegreesOfFreedom") or {}).get(column) or {}
        values = r2.column(column) if r2 is not None else np.array([])
        known = values[np.isfinite(values)]
        if edges is None and not len(known):
            continue
        rows.append(
            (
                common.feature_words(desc, item.meta),
                common.column_words(column),
                None if edges is None else 100 * edges[0],
                None if edges is None else 100 * edges[1],
                100 * float((known < 0).mean()) if len(known) else None,
                degrees.get("Median"),
                degrees.get("Low"),
                degrees.get("High"),
            )
        )
    if not rows:
        return []
    columns = (
        Column("Feature space"),
        Column("Best column"),
        Column("Lowest penalty, %", number=True, digits=1),
        Column("Highest penalty, %", number=True, digits=1),
        Column("R² < 0, %", number=True, digits=1),
        Column("Effective df", number=True, digits=1),
        Column("5 %", number=True, digits=1),
        Column("95 %", number=True, digits=1),
    )
    caption = (
        "Share of choices at either end of the penalty grid (all columns; many at the lowest end "
        "call for a wider grid, many at the highest end say that there is little to learn), and "
        "share of parcels whose whole prediction is worse than the mean. Effective df: effective "
        "degrees of freedom of the fits (trace of the hat matrix), median and 5 to 95 % over "
        "parcels and folds; near 0 where nothing was learned, near the training rows where nothing "
        "was shrunk."
    )
    return [Table("Model checks", columns, tuple(rows), caption)]


def motion(story: GroupStory) -> list[object]:
    """Correlate participants' scores with their head motion.

    Parameters
    ----------
    story : GroupStory

    Returns
    -------
    list of blocks
        Empty where motion is known for fewer than five participants.
    """
    from scipy import stats

    moved = np.array([np.nan if p.motion is None else p.motion for p in story.people], float)
    rows = []
    for desc in story.descs():
        values = story.scores.get((desc, "r"))
        if values is None:
            continue
        item = story.maps[desc, "mean"]
        best = common.best_column(item.values, item.columns)
        score = np.array([common.mean(v) for v in values[:, :, item.columns.index(best)]])
        known = np.isfinite(score) & np.isfinite(moved)
        if known.sum() < 5 or np.ptp(moved[known]) == 0:
            continue
        found = stats.spearmanr(score[known], moved[known])
        name = common.feature_words(desc, item.meta)
        where = common.column_words(best)
        rows.append((name, where, int(known.sum()), float(found.statistic), float(found.pvalue)))
    if not rows:
        return []
    columns = (
        Column("Feature space"),
        Column("Column"),
        Column("n", number=True, digits=0),
        Column("ρ with FD", number=True, digits=2),
        Column("p", number=True, digits=4),
    )
    caption = (
        "Spearman correlation over participants of the mean r over parcels with mean framewise "
        "displacement; p uncorrected, t approximation. How to read it: a strong negative one says "
        "that people who moved less are predicted better, and that motion is part of the story."
    )
    return [Table("Scores and head motion", columns, tuple(rows), caption)]
