"""What the language model adds to word rate and silence, as it comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainlm.report import common
from bids_brainlm.report.common import Naming, best_column, fdr_of, mean, number
from bids_brainlm.report.content import Card, GroupStory, Notice, ParcelMap, Picture, Section, Text
from bids_brainlm.report.group_scores import layer_panels


def _bands(item: ParcelMap) -> str:
    """Name the nuisance bands of a map."""
    names = [str(b["Name"]) for b in item.meta.get("Bands") or () if b.get("Name") != "model"]
    words = {"counts": "word rate", "silence": "silence", "phonemes": "phonemes"}
    found = [words.get(n, n) for n in names] or ["silence", "word rate"]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def _counts(story: GroupStory, desc: str) -> tuple[int, int, float] | None:
    """Return parcels with a reliable gain at any column, parcels tested, and the FDR."""
    q = story.maps.get((desc, "uniqueq"))
    if q is None:
        return None
    gains = story.maps[desc, "unique"].values
    fdr = fdr_of(q.meta)
    found = ((q.values < fdr) & (gains[:, : q.values.shape[1]] > 0)).any(axis=1)
    return int(found.sum()), int(np.isfinite(q.values).any(axis=1).sum()), fdr


def cards(stories: Sequence[GroupStory]) -> list[Card]:
    """Return the card that sums up unique variance over stories and feature spaces."""
    counts = [
        found
        for story in stories
        for desc in story.descs()
        if (desc, "unique") in story.maps and (found := _counts(story, desc)) is not None
    ]
    if not counts:
        return []
    n, total, fdr = max(counts)
    return [
        Card(
            f"{n} of {total}",
            "parcels gain beyond the nuisance bands",
            f"unique R² at q < {fdr:g}, best feature space, any column",
        )
    ]


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Say in words and show what the model adds; ``None`` where it was not computed."""
    from bids_brainlm.report import figures_encoding

    descs = [d for d in story.descs() if (d, "unique") in story.maps]
    if not descs:
        return None
    bands = _bands(story.maps[descs[0], "unique"])
    blocks: list[object] = [
        Text(
            f"Unique R² is the held-out R² of the joint model minus that of a model refitted with "
            f"{bands} alone. It can be negative: then the added features cost more "
            f"than they bring. "
            "It is reported as it comes out."
        )
    ]
    blocks += [_statement(story, desc, bands) for desc in descs]
    layers, panels = layer_panels(story, "unique", "unique R²")
    if panels:
        blocks.append(
            Picture(
                naming("unique", "svg", story=story.story),
                figures_encoding.layer_curves(layers, panels),
                "Unique variance by layer",
                f"Added to {bands}, by layer",
                f"Unique R² of the language model, mean over parcels; lines: mean over n = "
                f"{len(story.people)} participants, bands: 95 % t interval over "
                f"participants. How to "
                "read it: only where the band lies above zero does the language model "
                "add something "
                f"to {bands} in the average parcel.",
                tuple(story.maps[d, "unique"].path for d in descs),
            )
        )
    return Section(f"{place}-unique", "What the features add", tuple(blocks))


def _what(item: ParcelMap) -> str:
    """Name what was added: a language model, or features of the story."""
    model = item.meta.get("Model")
    is_model = isinstance(model, Mapping) and model.get("Kind") != "static vectors"
    return "the language model" if is_model else "these features"


def _statement(story: GroupStory, desc: str, bands: str) -> Notice:
    """Say in plain words what one feature space adds."""
    item = story.maps[desc, "unique"]
    columns = [c for c in item.columns if c not in ("ci_low", "ci_high")]
    values = np.column_stack([item.column(c) for c in columns])
    best = best_column(values, columns)
    name = common.feature_words(desc, item.meta)
    gain = mean(item.column(best))
    where = "" if best == "value" else f", at its best ({common.column_words(best)})"
    what = _what(item)
    text = (
        f"{name[:1].upper()}{name[1:]}: adding {what} to {bands} changes the "
        f"held-out R² by {number(gain, 4)} on average over {len(item.index)} parcels{where}."
    )
    found = _counts(story, desc)
    if found is None:
        return Notice(text + " No test was run.", "note")
    n, total, fdr = found
    many = " at any column" if len(columns) > 1 else ""
    if n == 0:
        return Notice(
            f"{text} In none of {total} parcels is the gain reliable over participants{many} "
            f"(q < {fdr:g}). In these data {'it adds' if 'model' in what else 'they add'} "
            f"nothing that can be told from chance beyond {bands}.",
            "note",
        )
    note = " (not corrected over columns)" if many else ""
    return Notice(
        f"{text} The gain is reliable in {n} of {total} parcels{many}{note}, q < {fdr:g}.", "good"
    )
