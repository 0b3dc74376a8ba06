"""The page of the group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bids_brainlm.report import (
    across,
    brainview,
    ceilings,
    common,
    heads,
    ladder,
    layers,
    methods,
    pooled,
    regions,
    stimulus,
    unique,
    validity,
)
from bids_brainlm.report.common import Naming, anchor, fdr_of, mean, number, plural
from bids_brainlm.report.content import (
    Card,
    Column,
    GroupStory,
    Notice,
    Page,
    Picture,
    RunFacts,
    Section,
    Table,
    Text,
)
from bids_brainlm.report.figures_encoding import Dots
from bids_brainlm.report.group_scores import (
    column_of,
    layers_section,
    maps_section,
    scored,
    shown_rows,
    significance_section,
)
from bids_brainlm.report.scores import N_ROWS

N_SPACES = 5
"""Feature spaces that the table of participants has columns for."""


def group_page(
    stories: Sequence[GroupStory], facts: RunFacts, naming: Naming, text: methods.Methods
) -> Page:
    """Put the group's page together.

    Parameters
    ----------
    stories : sequence of GroupStory
        Every story with group maps, in order.
    facts : RunFacts
        Settings, version, and what was skipped or failed.
    naming : callable
        Gives a figure its path.
    text : Methods
        The methods section.

    Returns
    -------
    Page
        Equal inputs give equal bytes; there is no date on the page.
    """
    metas = [m.meta for s in stories for m in s.maps.values()]
    over_all = pooled.section([s for s in stories if s.story == pooled.STORY])
    stories = [s for s in stories if s.story != pooled.STORY]
    told = stimulus.warnings_of([f for s in stories for f in s.stimulus])
    warnings = [str(w) for m in metas for w in m.get("Warnings") or ()]
    warnings = list(dict.fromkeys([*warnings, *told]))
    people = sorted({p.participant for s in stories for p in s.people})
    notices = []
    if facts.failed:
        notices.append(
            Notice(
                f"Incomplete: {plural(len(facts.failed), 'job')} failed. The first "
                f"section says which "
                f"and why; results are from the {plural(len(people), 'participant')} that remain.",
                "error",
            )
        )
    if not stories:
        notices.append(Notice("There are no group results.", "warning"))
    sections = (
        common.summary_section(facts, warnings),
        *([] if over_all is None else [over_all]),
        *[_story(s, naming, m) for s, m in zip(stories, common.marks_of(stories), strict=True)],
        common.settings_section(facts),
        common.methods_section(text),
        common.software_section(common.versions_of(metas, facts.version), metas),
    )
    return Page(
        title="Group results",
        lead="How well language models predict brain activity during spoken stories, over "
        "participants: ceilings, scores by layer, significance, and what the language model adds "
        "to word rate and silence.",
        facts=(
            ("Participants", str(len(people))),
            ("Stories", ", ".join(s.story for s in stories) or "–"),
            ("Space", ", ".join(dict.fromkeys(s.space for s in stories)) or "–"),
            ("Atlas", ", ".join(dict.fromkeys(s.atlas for s in stories)) or "–"),
        ),
        cards=_cards(stories, facts, len(people), len(warnings)),
        sections=sections,
        version=facts.version,
        notices=tuple(notices),
    )


def _cards(
    stories: Sequence[GroupStory], facts: RunFacts, n_people: int, n_warnings: int
) -> tuple[Card, ...]:
    """Return the numbers to see first."""
    cards = [Card(str(n_people), "participants", plural(len(stories), "story", "stories"))]
    ceilings = [s.maps["", "isc"].column("value") for s in stories if ("", "isc") in s.maps]
    if ceilings:
        values = np.concatenate(ceilings)
        cards.append(
            Card(
                f"r = {number(mean(values))}",
                "mean ceiling (ISC)",
                f"highest parcel {number(float(np.nanmax(values)))}",
            )
        )
    best = _best(stories)
    if best is not None:
        story, desc, column, score = best
        item = story.maps[desc, "mean"]
        where = (
            f"{common.feature_words(desc, item.meta)}, {common.column_words(column)}, {story.story}"
        )
        cards.append(Card(f"r = {number(score)}", "highest mean score", where))
        q = story.maps.get((desc, "q"))
        if q is not None:
            cards.append(
                Card(
                    f"{int((q.column(column) < fdr_of(q.meta)).sum())} of {len(q.index)}",
                    f"parcels at q < {fdr_of(q.meta):g}",
                    where,
                )
            )
    if stories:
        cards += unique.cards(stories)
    if facts.failed:
        cards.append(Card(str(len(facts.failed)), "failed", "see the first section", "error"))
    else:
        warned = len(facts.warnings) + n_warnings
        cards.append(
            Card(
                str(warned),
                "warning" if warned == 1 else "warnings",
                "",
                "warning" if warned else "good",
            )
        )
    return tuple(cards)


def _best(stories: Sequence[GroupStory]) -> tuple[GroupStory, str, str, float] | None:
    """Return the story, feature space and column with the highest mean."""
    found = []
    for story in stories:
        for desc in scored(story):
            item = story.maps[desc, "mean"]
            column = column_of(item)
            found.append((mean(item.column(column)), story, desc, column))
    found = [f for f in found if np.isfinite(f[0])]
    if not found:
        return None
    score, story, desc, column = max(found, key=lambda f: f[0])
    return story, desc, column, score


def _story(story: GroupStory, naming: Naming, mark: str) -> Section:
    """Make the part of one story."""
    naming = common.marked(naming, mark)
    place = anchor("story", story.story, mark)
    parts: list[Section | None] = []
    if ("", "isc") in story.maps:
        parts.append(_ceilings(story, place, naming))
    checked = _validity(story)
    if checked:
        parts.append(Section(f"{place}-validity", "Leakage and timing", tuple(checked)))
    if story.descs():
        parts.append(layers_section(story, place, naming))
        parts.append(significance_section(story, place))
        parts.append(unique.section(story, place, naming))
        parts += _where(story, place, naming)
        parts.append(across.section(story, place, naming))
    parts += [
        part.section(story, place, naming) for part in (ladder, regions, layers, heads, stimulus)
    ]
    people = (_people(story), *validity.motion(story))
    parts.append(Section(f"{place}-participants", "Participants", people))
    where = f", {story.atlas} in {story.space}" if mark else ""
    title = f"Story {story.story}{where} (n = {len(story.people)})"
    return Section(place, title, (), tuple(part for part in parts if part is not None))


def _where(story: GroupStory, place: str, naming: Naming) -> list[Section]:
    """Show maps: the view to turn, then the figures; or say why there is no brain."""
    view, figures = brainview.block(story, f"{place}-brainview"), maps_section(story, place, naming)
    if isinstance(view, Text):
        return [replace(figures, blocks=(view, *figures.blocks))]
    return [Section(f"{place}-brain", "Brain view", (view,)), figures]


def _validity(story: GroupStory) -> list[object]:
    """Show the leakage audit and the lag of the group."""
    maps = [
        (common.feature_words(d, story.maps[d, "mean"].meta), story.maps[d, "mean"])
        for d in story.descs()
    ]
    return [*validity.leakage(maps), *validity.alignment(story.alignment)]


def _ceilings(story: GroupStory, place: str, naming: Naming) -> Section:
    """Show intersubject correlations."""
    from bids_brainlm.report import figures_encoding

    item = story.maps["", "isc"]
    each = story.maps.get(("participants", "isc"))
    values = item.column("value")
    order = shown_rows(values)
    dots = Dots(
        "ISC",
        values[order],
        low=item.column("ci_low")[order] if "ci_low" in item.columns else None,
        high=item.column("ci_high")[order] if "ci_high" in item.columns else None,
        observations=each.values[order] if each is not None else None,
    )
    n = len(each.columns) if each is not None else len(story.people)
    text = (
        "Intersubject correlation (ISC): each participant's parcel series with the average of "
        f"{methods.isc_reference([item.meta])}; n = {n} participants, "
        f"{int(np.isfinite(values).sum())} parcels"
        + (f" (the highest {N_ROWS} are shown)" if len(order) < len(values) else "")
        + ". Blue: group mean with its 95 % interval; grey: each participant. How to read it: the "
        "ISC says how much of a parcel's signal people share. It is context for the scores below, "
        "not an upper bound for a model that is fitted within one person; a parcel whose interval "
        "includes zero cannot be normalised sensibly."
    )
    files = common.map_files(story.maps, "", "isc") + common.map_files(
        story.maps, "participants", "isc"
    )
    blocks = []
    if story.labels is not None and story.labels.is_anatomical:
        is_volume = story.labels.affine is not None
        blocks.append(
            Picture(
                naming("iscmap", "png", story=story.story),
                common.brain_png(story.labels, item.index, values, None, "ISC (r)"),
                "Brain map of intersubject correlation",
                "Ceilings on the brain",
                f"Mean ISC (r) of n = {n} participants on "
                f"{'axial slices (z in mm, MNI)' if is_volume else 'the inflated cortex'}. "
                "How to read it: auditory and temporal cortex should be highest during speech.",
                files,
            )
        )
    blocks.append(
        Picture(
            naming("isc", "svg", story=story.story),
            figures_encoding.parcel_dots(
                [item.names[k] for k in order], [dots], xlabel="intersubject correlation (r)"
            ),
            "Intersubject correlation by parcel",
            "Ceilings by parcel",
            text,
            files,
        )
    )
    blocks += ceilings.blocks(story, naming)
    return Section(f"{place}-ceilings", "Ceilings", tuple(blocks))


def _people(story: GroupStory) -> Table:
    """Make one row a participant."""
    each = story.maps.get(("participants", "isc"))
    shown = [
        (d, column_of(story.maps[d, "mean"])) for d in scored(story) if (d, "r") in story.scores
    ][:N_SPACES]
    rows = []
    for k, person in enumerate(story.people):
        row: list[object] = [f"sub-{person.participant}", person.n_runs, person.n_volumes]
        for desc, column in shown:
            place = story.maps[desc, "mean"].columns.index(column)
            row.append(mean(story.scores[desc, "r"][k, :, place]))
        if each is not None:
            names = [c.removeprefix("sub-") for c in each.columns]
            found = person.participant in names
            row.append(mean(each.values[:, names.index(person.participant)]) if found else None)
        edge = None if person.edge_share is None else 100 * person.edge_share
        rows.append((*row, edge, person.motion))
    columns = (
        Column("Participant"),
        Column("Runs", number=True),
        Column("Volumes", number=True),
        *[
            Column(f"r, {common.feature_words(d, story.maps[d, 'mean'].meta)}", number=True)
            for d, _ in shown
        ],
        *([Column("ISC", number=True)] if each is not None else []),
        Column("Edge of grid, %", number=True, digits=1),
        Column("Mean FD, mm", number=True),
    )
    return Table(
        "Participants",
        columns,
        tuple(rows),
        "r: mean over parcels at the group's best column"
        + (f", first {N_SPACES} feature spaces" if len(scored(story)) > N_SPACES else "")
        + ". Edge of grid: penalties chosen at either "
        "end of the grid, mean over feature spaces. FD: framewise displacement. How to read it: "
        "participants who move much or have a low ISC are the first to look at when results are "
        "weak.",
        (),
    )
