"""The page that sets two presets side by side: what they give, and why they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import anchor, mean, number, plural
from bids_brainlm.report.content import (
    Card,
    Code,
    Column,
    Notice,
    Page,
    Picture,
    Section,
    Table,
    Text,
)
from bids_brainlm.report.presets_content import MEASURES, Facts, Measure, Place, Row, Value

Naming = Callable[..., str]
"""``naming(figure, ext, story=)`` returns a path below the output folder."""

MAX_SVG = 4000
"""Points above which a scatter plot is a PNG."""


def page(rows: Sequence[Row], places: Sequence[Place], facts: Facts, naming: Naming) -> Page:
    """Put the page together.

    Parameters
    ----------
    rows : sequence of Row
        All measures.
    places : sequence of Place
        Stories with group maps.
    facts : Facts
    naming : callable
        Gives a figure its path.

    Returns
    -------
    Page
        Equal inputs give equal bytes.
    """
    first, second = facts.presets
    marks = common.marks_of(places)
    notices = _leaks(rows, facts)
    if not places:
        notices.append(Notice("There are no group results to compare.", "warning"))
    people = sorted({n for place in places for n in place.n_people})
    return Page(
        title=f"Preset {second} against {first}",
        lead="The same data with both sets of settings: what each gives, by how much they differ, "
        "and which settings can make the difference.",
        facts=(
            ("Participants", " to ".join(map(str, dict.fromkeys([*people[:1], *people[-1:]])))),
            ("Stories", ", ".join(dict.fromkeys(p.story for p in places)) or "–"),
            ("Space", ", ".join(dict.fromkeys(p.space for p in places)) or "–"),
            ("Atlas", ", ".join(dict.fromkeys(p.atlas for p in places)) or "–"),
        ),
        cards=_cards(rows, facts),
        sections=(
            *[_place(p, rows, facts, naming, m) for p, m in zip(places, marks, strict=True)],
            _settings(facts),
            _runtime(rows, facts),
            _made(facts),
        ),
        version=facts.version,
        notices=tuple(notices),
    )


def _leaks(rows: Sequence[Row], facts: Facts) -> list[Notice]:
    """Say of each preset whether its folds leak."""
    found = []
    for k, name in enumerate(facts.presets):
        known = [r.values[k] for r in rows if r.measure == "leaks" and r.values[k] is not None]
        distances = [
            r.values[k] for r in rows if r.measure == "least_distance" and r.values[k] is not None
        ]
        if any(known):
            found.append(
                Notice(
                    f"LEAK: in the folds of preset {name}, training and test rows lie "
                    f"{number(min(distances), 0)} TR apart, so that information leaks from test to "
                    "training rows. This pushes its scores and its numbers of significant parcels "
                    "up; they must not be reported as prediction of unseen data, and a higher "
                    "score here is not a better model.",
                    "error",
                )
            )
        elif known:
            found.append(
                Notice(
                    f"Preset {name}: nothing leaks from test to training rows (least distance "
                    f"{number(min(distances), 0)} TR).",
                    "good",
                )
            )
    return found


def _cards(rows: Sequence[Row], facts: Facts) -> tuple[Card, ...]:
    """Return the numbers to see first."""
    cards = []
    for key, label in (
        ("mean_r", "mean r, feature space with the highest"),
        ("n_significant", "significant parcels there"),
        ("mean_isc", "mean intersubject correlation"),
        ("runtime", "runtime in s"),
    ):
        chosen = [r for r in rows if r.measure == key and (key != "runtime" or r.story is None)]
        if key == "n_significant":
            top = _top(rows)
            chosen = [r for r in chosen if top is not None and _where(r) == _where(top)]
        if key == "mean_r":
            top = _top(rows)
            chosen = [] if top is None else [top]
        if chosen:
            one, measure = chosen[0], MEASURES[key]
            values = " | ".join(number(v, measure.digits) for v in one.values)
            cards.append(Card(values, label, f"{facts.presets[0]} | {facts.presets[1]}"))
    return tuple(cards)


def _top(rows: Sequence[Row]) -> Row | None:
    """Return the feature space with the highest mean r of the first preset."""
    known = [r for r in rows if r.measure == "mean_r" and _is_number(r.values[0])]
    return max(known, key=lambda r: r.values[0], default=None)


def _is_number(value: Value) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, float) and bool(np.isfinite(value))


def _where(row: Row) -> tuple[str | None, ...]:
    """Return what a row is about."""
    return row.story, row.space, row.atlas, row.desc


def _place(place: Place, rows: Sequence[Row], facts: Facts, naming: Naming, mark: str) -> Section:
    """Show one story."""
    own = [
        r for r in rows if (r.story, r.space, r.atlas) == (place.story, place.space, place.atlas)
    ]
    blocks: list[object] = [_values(own, place, facts), _why(own, facts)]
    blocks += _spaces(place, facts, naming, mark)
    if place.isc.size:
        blocks.append(_isc(place, facts, naming, mark))
    title = f"Story {place.story}" + (f", {place.space} {place.atlas}" if mark else "")
    return Section(anchor("story", place.story, mark), title, tuple(blocks))


def _values(rows: Sequence[Row], place: Place, facts: Facts) -> Table:
    """Make the table of all measures of a story."""
    names = {one.desc: one.name for one in place.spaces}
    shown = tuple(
        (
            "–" if row.desc is None else names.get(row.desc, row.desc),
            MEASURES[row.measure].title,
            *[_shown(v, MEASURES[row.measure]) for v in row.values],
            number(row.difference, MEASURES[row.measure].digits),
        )
        for row in rows
    )
    first, second = facts.presets
    columns = (
        Column("Feature space"),
        Column("Measure"),
        Column(first),
        Column(second),
        Column(f"{second} − {first}"),
    )
    caption = (
        "The file has more digits, and names the map or sidecar behind every number. How to read "
        "it: several settings act at once and in both directions (a leak pushes scores up, a "
        "single penalty and raw test features push them down), so a difference has no one cause, "
        "and its sign shows nothing about which preset is better. The next table says what acts on "
        "what."
    )
    return Table("Both presets side by side", columns, shown, caption, (facts.table,))


def _why(rows: Sequence[Row], facts: Facts) -> Table:
    """Say of each measure what it is and which settings act on it."""
    shown = {row.measure for row in rows}
    columns = (Column("Measure"), Column("What it is"), Column("Settings that act on it"))
    return Table(
        "Why they differ",
        columns,
        tuple((m.title, m.text, _acting(m, facts)) for m in MEASURES.values() if m.key in shown),
        "Settings that differ in this call and can change the measure; the section on settings "
        "gives their values and the reason for each.",
    )


def _acting(measure: Measure, facts: Facts) -> str:
    """Name the settings that act on a measure."""
    keys = {measure.key, measure.follows}
    found = [s.flag for s in facts.settings if keys & {*s.acts_on} and not s.unused]
    return ", ".join(found) or "none"


def _shown(value: Value, measure: Measure) -> str:
    """Write a value of a table of mixed measures."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return common.column_words(value)
    return number(value, measure.digits, measure.unit)


def _spaces(place: Place, facts: Facts, naming: Naming, mark: str) -> list[Picture]:
    """Draw scores by parcel and by person."""
    from bids_brainlm.report import figures_presets

    shown = [s for s in place.spaces if np.isfinite(s.r).all(axis=0).any()]
    if not shown:
        return []
    first, second = facts.presets
    panels = [(f"{s.name}\n{common.column_words(s.column)}", s.r[0], s.r[1]) for s in shown]
    ext = "png" if sum(s.r.shape[1] for s in shown) > MAX_SVG else "svg"
    files = tuple(f for s in shown for f in s.files)
    unequal = "" if place.n_people[0] == place.n_people[1] else " (participants differ!)"
    pictures = [
        Picture(
            naming("parcels" + mark, ext, story=place.story),
            figures_presets.scatter(panels, (f"r, {first}", f"r, {second}"), raster=ext == "png"),
            f"Group mean r by parcel, {second} against {first}",
            "Scores by parcel",
            f"Group mean r of each parcel (dot), {second} against {first}, both at the column "
            f"that is best in {first}; n = {place.n_people[0]} participants{unequal}. Line: equal "
            "scores. How to read it: dots above the line have a higher score with "
            f"{second}. Where folds touch, part of that height is information that leaked and no "
            "prediction; dots below it show what its other settings cost. Files: of "
            f"{first}, then of {second}.",
            files,
        )
    ]
    with_people = [s for s in shown if s.people.size]
    if with_people:
        pictures.append(
            Picture(
                naming("people" + mark, "svg", story=place.story),
                figures_presets.paired(
                    [s.name for s in with_people],
                    [s.people for s in with_people],
                    (first, second),
                    ylabel="mean r over parcels",
                ),
                f"Mean r of each participant, {first} and {second}",
                "Scores by participant",
                "Mean r over parcels of each participant (thin lines; n = "
                f"{with_people[0].people.shape[1]}) and their mean (large dots) with {first} and "
                f"{second}, each at its own best column. How to read it: parallel lines mean that "
                "the presets rank people alike; a shift of all is an effect of settings. Where "
                "folds touch it contains leaked information.",
                files,
            )
        )
    return pictures


def _isc(place: Place, facts: Facts, naming: Naming, mark: str) -> Picture:
    """Draw intersubject correlations."""
    from bids_brainlm.report import figures_presets

    first, second = facts.presets
    ext = "png" if place.isc.shape[1] > MAX_SVG else "svg"
    n = place.n_people[1]
    included = " How to read it: dots on the line have the same ceiling with both."
    if any(s.flag == "--isc-reference" for s in facts.settings):
        included = (
            " How to read it: an average that includes the tested participant correlates with "
            f"that participant by about 1/√{n} = {number(1 / np.sqrt(max(n, 1)), 2)} where people "
            f"share nothing, so dots on the left that lie as high as this with {second} are "
            "parcels without shared signal."
        )
    return Picture(
        naming("isc" + mark, ext, story=place.story),
        figures_presets.scatter(
            [("", place.isc[0], place.isc[1])],
            (f"ISC, {first}", f"ISC, {second}"),
            raster=ext == "png",
        ),
        f"Intersubject correlation by parcel, {second} against {first}",
        "Intersubject correlation",
        f"Intersubject correlation of each parcel (dot), {second} against {first}; n = "
        f"{n} participants; means {number(mean(place.isc[1]))} and "
        f"{number(mean(place.isc[0]))}. Line: equal values."
        f"{included} Files: of {first}, then of {second}.",
        place.isc_files,
    )


def _settings(facts: Facts) -> Section:
    """List the settings that differ, with reasons."""
    first, second = facts.presets
    rows = tuple(
        (
            s.flag,
            *s.values,
            s.reason,
            f"nothing: {s.unused}" if s.unused else _acted_on(s.acts_on),
        )
        for s in facts.settings
    )
    columns = (
        Column("Setting"),
        Column(first),
        Column(second),
        Column(f"Why {first} differs"),
        Column("Acts here on"),
    )
    blocks: list[object] = [
        Table(
            "Settings that differ",
            columns,
            rows,
            "Every setting that differs between the two calls. To see what one of them does, run "
            "this command again into another folder with its value given for both, for example "
            "with --gap 15: it then no longer differs, and what is left is due to the others.",
        )
    ]
    if facts.levelled:
        rows = tuple((name, value, *own) for name, value, own in facts.levelled)
        columns = (Column("Setting"), Column("Used for both"), Column(first), Column(second))
        blocks.append(
            Table(
                "Settings of the presets that this call overrides",
                columns,
                rows,
                "Given on the command line, so that both presets use the same value; the last two "
                "columns are the presets' own. The comparison says nothing about these.",
            )
        )
    return Section("settings", "Settings and reasons", tuple(blocks))


def _acted_on(keys: Sequence[str]) -> str:
    """Name the measures that a setting acts on; the scores together."""
    scores = ["all scores"] if "mean_r" in keys else []
    return ", ".join([*scores, *[MEASURES[k].title for k in keys if k != "mean_r"]])


def _runtime(rows: Sequence[Row], facts: Facts) -> Section:
    """Show the time of each step."""
    first, second = facts.presets
    columns = (
        Column("Step"),
        Column(f"{first}, s", number=True, digits=2),
        Column(f"{second}, s", number=True, digits=2),
        Column("Difference, s", number=True, digits=2),
    )
    table = tuple((step, a, b, b - a) for step, a, b in facts.steps)
    acting = _acting(MEASURES["runtime"], facts)
    caption = (
        "Time of the jobs of each step, added up, from the logs of the calls that made them; jobs "
        "that were made together share their time equally, jobs on several processes add up, and "
        "reports are not counted. "
        f"Settings that act on it: {acting}. How to read it: {first} ran first and on the same "
        "machine, so it paid for loading libraries and for cold caches; small differences mean "
        "nothing."
    )
    blocks = (Table("Runtime by step", columns, table, caption, facts.logs),)
    return Section("runtime", "Runtime", blocks if rows else ())


def _made(facts: Facts) -> Section:
    """Say how to get these results."""
    blocks = [
        Text("Both folders were made by these commands, and have reports of their own."),
        *[Code(command) for command in facts.commands],
        Table(
            "Reports",
            (Column("Preset"), Column("Page")),
            tuple(zip(facts.presets, facts.reports, strict=True)),
            f"{plural(len(facts.reports), 'page')}: of {facts.presets[0]}, then of "
            f"{facts.presets[1]}.",
            (*facts.reports, facts.table),
        ),
    ]
    return Section("made", "How this was made", tuple(blocks))
