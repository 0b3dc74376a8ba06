"""The page of one participant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bids_brainlm.report import across, common, methods, scores, stimulus, validity
from bids_brainlm.report.common import Naming, anchor, number, plural
from bids_brainlm.report.content import (
    Card,
    Notice,
    Page,
    Pairs,
    Picture,
    Recording,
    RunFacts,
    Section,
    Text,
)


def participant_page(
    participant: str, recordings: Sequence[Recording], facts: RunFacts, naming: Naming
) -> Page:
    """Put the page of a participant together.

    Parameters
    ----------
    participant : str
        Label without prefix.
    recordings : sequence of Recording
        Every run with outputs, in order.
    facts : RunFacts
        Settings, version, and what was skipped or failed.
    naming : callable
        Gives a figure its path.

    Returns
    -------
    Page
        Equal inputs give equal bytes; there is no date on the page.
    """
    metas = list(_metas(recordings))
    told = stimulus.warnings_of([f for r in recordings for f in r.stimulus])
    text = methods.write(sidecars(recordings, facts.version))
    sections = [
        common.summary_section(facts, [*_warnings(metas), *told]),
        *[
            _recording(r, naming, m)
            for r, m in zip(recordings, common.marks_of(recordings), strict=True)
        ],
        common.settings_section(facts),
        common.methods_section(text),
        common.software_section(common.versions_of(metas, facts.version), metas),
    ]
    notices = []
    if facts.failed:
        notices.append(
            Notice(
                f"Incomplete: {plural(len(facts.failed), 'job')} of this participant failed. "
                "The first section says which and why.",
                "error",
            )
        )
    if not recordings:
        notices.append(Notice("There are no results of this participant.", "warning"))
    stories = list(dict.fromkeys(r.story for r in recordings))
    return Page(
        title=f"Participant sub-{participant}",
        lead="Encoding models of this participant's brain activity during spoken stories: "
        "timing, cross-validation, scores by layer and parcel, and what to check.",
        facts=(
            ("Stories", ", ".join(stories) or "–"),
            ("Language models", ", ".join(_models(metas)) or "–"),
            ("Space", ", ".join(dict.fromkeys(r.space for r in recordings)) or "–"),
            ("Atlas", ", ".join(dict.fromkeys(r.atlas for r in recordings)) or "–"),
        ),
        cards=_cards(recordings, facts, len({*_warnings(metas), *told})),
        sections=tuple(sections),
        version=facts.version,
        notices=tuple(notices),
    )


def sidecars(recordings: Sequence[Recording], version: str) -> methods.Sidecars:
    """Collect what the methods text of some recordings is made from."""
    words = {r.story: r.words.meta for r in recordings if r.words}
    return methods.Sidecars(
        words=tuple(words[k] for k in sorted(words)),
        series=tuple(r.series_meta for r in recordings if r.series_meta),
        maps=tuple(m.meta for r in recordings for (_, s), m in r.maps.items() if s in ("r", "p")),
        n_participants=len({r.participant for r in recordings}),
        version=version,
    )


def _metas(recordings: Sequence[Recording]) -> Iterable[dict]:
    """Yield every sidecar."""
    for recording in recordings:
        if recording.words:
            yield recording.words.meta
        yield recording.series_meta
        for item in recording.maps.values():
            yield item.meta


def _warnings(metas: Sequence[dict]) -> list[str]:
    """Return the warnings of all sidecars once."""
    return list(dict.fromkeys(str(w) for m in metas for w in m.get("Warnings") or ()))


def _models(metas: Sequence[dict]) -> list[str]:
    """Return the names of the language models."""
    found = [m["Model"] for m in metas if isinstance(m.get("Model"), dict)]
    return list(dict.fromkeys(str(m.get("Name") or m.get("Label")) for m in found))


def _cards(recordings: Sequence[Recording], facts: RunFacts, n_warnings: int) -> tuple[Card, ...]:
    """Return the numbers to see first."""
    if not recordings:
        return ()
    volumes = sum(int(r.series_meta.get("NumberOfVolumes") or 0) for r in recordings)
    first = recordings[0]
    n_parcels = max((len(m.index) for r in recordings for m in r.maps.values()), default=0)
    empty = sum(len(r.series_meta.get("EmptyParcels") or ()) for r in recordings)
    cards = [
        Card(
            str(len(recordings)),
            "run" if len(recordings) == 1 else "runs",
            f"{volumes} volumes in the story windows" if volumes else "",
        ),
        Card(
            str(n_parcels),
            "parcels",
            f"{empty} empty" if empty else "none empty",
            "warning" if empty else "",
        ),
    ]
    cards += _best_cards(recordings)
    motion = first.series_meta.get("MeanFramewiseDisplacement")
    if motion is not None:
        cards.append(
            Card(
                number(float(motion), 2, "mm"),
                "mean framewise displacement",
                first.title if len(recordings) > 1 else "",
            )
        )
    warned = n_warnings + len(facts.warnings)
    if facts.failed:
        cards.append(Card(str(len(facts.failed)), "failed", "see the first section", "error"))
    else:
        cards.append(
            Card(
                str(warned),
                "warning" if warned == 1 else "warnings",
                "",
                "warning" if warned else "good",
            )
        )
    return tuple(cards)


def _best_cards(recordings: Sequence[Recording]) -> list[Card]:
    """Return the highest score and how many parcels are significant there."""
    best = scores.best_of(recordings)
    if best is None:
        return []
    recording, desc, column, score = best
    where = f"{_feature(recording, desc)}, {common.column_words(column)}"
    cards = [Card(f"r = {number(score)}", "highest mean score", f"{where}, {recording.story}")]
    found = scores.n_significant(recording, desc, column)
    if found is not None:
        n, total, fdr = found
        cards.append(Card(f"{n} of {total}", f"parcels at q < {fdr:g}", where))
    return cards


def _feature(recording: Recording, desc: str) -> str:
    """Name a feature space of a recording."""
    return common.feature_words(desc, recording.maps[desc, "r"].meta)


def _recording(recording: Recording, naming: Naming, mark: str) -> Section:
    """Make the part of a page that belongs to one run."""
    naming = common.marked(naming, mark)
    place = anchor("run", recording.story, recording.session, recording.run, mark)
    parts = [_timing(recording, place, naming)]
    folds = _folds(recording, place, naming)
    if folds is not None:
        parts.append(folds)
    checked = _validity(recording)
    if checked:
        parts.append(Section(f"{place}-validity", "Leakage and model checks", tuple(checked)))
    for desc in recording.descs():
        parts.append(scores.feature_section(recording, desc, place, naming))
    elsewhere = across.run_section(recording, place)
    if elsewhere is not None:
        parts.append(elsewhere)
    blocks = []
    if recording.descs():
        blocks.append(scores.glance_table(recording))
    else:
        blocks.append(Notice("No encoding model of this run has been fitted.", "note"))
    title = recording.title + (f", {recording.atlas} in {recording.space}" if mark else "")
    return Section(place, title, tuple(blocks), tuple(parts))


def _validity(recording: Recording) -> list[object]:
    """Show the leakage audit, the lag of the run, and checks of the models."""
    maps = [
        (common.feature_words(d, recording.maps[d, "r"].meta), recording.maps[d, "r"])
        for d in recording.descs()
    ]
    base = recording.maps.get(("nuisance", "r"))
    lag = base.meta.get("Alignment") if base is not None else None
    return [
        *validity.leakage(maps),
        *validity.alignment(lag if isinstance(lag, dict) else {}),
        *validity.model_checks(recording),
    ]


def _timing(recording: Recording, place: str, naming: Naming) -> Section:
    """Show when the story was played and which volumes belong to it."""
    blocks: list[object] = []
    words, series = recording.words, recording.series_meta
    if words is not None:
        meta = words.meta
        blocks.append(Pairs(_timing_pairs(recording)))
        last, end = meta.get("LastWordOffset"), None
        if meta.get("StoryDuration") is not None and meta.get("StoryOnset") is not None:
            end = float(meta["StoryOnset"]) + float(meta["StoryDuration"])
        if last is not None and end is not None and float(last) > end + 1.0:
            blocks.append(
                Notice(
                    f"The last word ends at {number(last, 1, 's')}, after the end of the story at "
                    f"{number(end, 1, 's')}. Check --stimulus-onset.",
                    "warning",
                )
            )
        blocks.append(common.words_picture(words, naming))
    if recording.stimulus:
        blocks.append(stimulus.table(recording.stimulus))
    empty = series.get("EmptyParcels") or ()
    if empty:
        shown = ", ".join(str(i) for i in list(empty)[:40])
        blocks.append(
            Notice(
                f"{plural(len(empty), 'parcel')} without signal (n/a in all tables): {shown}"
                + (" …" if len(empty) > 40 else ""),
                "warning",
            )
        )
    if not blocks:
        blocks.append(Text("No timing information was found for this run."))
    return Section(f"{place}-timing", "Timing check", tuple(blocks))


def _timing_pairs(recording: Recording) -> tuple[tuple[str, str], ...]:
    """Return the facts of the timing check."""
    words, series = recording.words, recording.series_meta
    meta = words.meta
    end = None
    if meta.get("StoryOnset") is not None and meta.get("StoryDuration") is not None:
        end = float(meta["StoryOnset"]) + float(meta["StoryDuration"])
    denoising = series.get("Denoising") if isinstance(series.get("Denoising"), dict) else {}
    rows = [
        ("Stimulus file", str(meta.get("StimulusFile", "–"))),
        ("Audio file starts", number(meta.get("AudioOnset"), 2, "s")),
        ("Story window", f"{number(meta.get('StoryOnset'), 2)} to {number(end, 2, 's')}"),
        ("First word", f"“{words.first_word}” at {number(meta.get('FirstWordOnset'), 2, 's')}"),
        ("Last word", f"“{words.last_word}” to {number(meta.get('LastWordOffset'), 2, 's')}"),
        ("Repetition time", number(meta.get("RepetitionTime"), 3, "s")),
        ("Rows of the story grid", number(meta.get("NumberOfRows"))),
        ("First volume of the window", number(meta.get("FirstVolume"))),
        ("Volumes used", number(series.get("NumberOfVolumes"))),
        ("Words", number(meta.get("NumberOfWords"))),
        ("Words with interpolated times", number(meta.get("NumberInterpolated"))),
        (
            "Words before / after the window",
            f"{meta.get('NumberBefore', '–')} / {meta.get('NumberAfter', '–')}",
        ),
        ("TRs without a word", number(meta.get("NumberOfEmptyTRs"))),
        ("Phones", stimulus.phones_words(meta)),
        ("Confound regressors", number(len(denoising.get("Columns") or ()))),
        ("High-pass cut-off", number(denoising.get("HighPassCutoff"), 0, "s")),
        ("Mean motion (FD)", number(series.get("MeanFramewiseDisplacement"), 3, "mm")),
    ]
    return tuple((k, v) for k, v in rows if not v.startswith("–"))


def _folds(recording: Recording, place: str, naming: Naming) -> Section | None:
    """Show which rows train and test."""
    from bids_brainlm.report import figures_timing

    fitted = [m for m in recording.maps.values() if m.meta.get("Folds")]
    if not fitted:
        return None
    item, meta = fitted[0], fitted[0].meta
    trim = tuple(meta.get("Trim") or (0, 0))
    n_rows = int(
        recording.words.meta["NumberOfRows"]
        if recording.words
        else series_rows(recording) or meta.get("NumberOfRows") or 0
    )
    n_rows = max([n_rows, *[b + 1 for f in meta["Folds"] for _, b in f["Test"]]])
    sizes = [
        [sum(b - a + 1 for a, b in f[part]) for f in meta["Folds"]] for part in ("Train", "Test")
    ]
    gap = meta.get("Gap") or {}
    picture = Picture(
        path=naming(
            "folds", "svg", story=recording.story, session=recording.session, run=recording.run
        ),
        data=figures_timing.fold_map(meta["Folds"], n_rows, trim),
        alt="Training, test and left-out rows by fold",
        title="Outer folds",
        caption=(
            f"Rows of the story window by outer fold; n = {n_rows} TRs, "
            f"{_span(sizes[0])} for training and {_span(sizes[1])} for testing in each of "
            f"{len(meta['Folds'])} folds. Hatched: left out because they lie within "
            f"{number(gap.get('TRs'))} TRs ({number(gap.get('Seconds'), 1, 's')}) of a test block. "
            "How to read it: training and test rows must never touch, or the slow haemodynamic "
            "response leaks from one to the other."
        ),
        files=(item.path.removesuffix(".tsv") + ".json",),
    )
    return Section(f"{place}-folds", "Cross-validation", (picture,))


def series_rows(recording: Recording) -> int:
    """Return the number of volumes of the story window, 0 if unknown."""
    return int(recording.series_meta.get("NumberOfVolumes") or 0)


def _span(counts: Sequence[int]) -> str:
    """Write a range of counts."""
    low, high = int(np.min(counts)), int(np.max(counts))
    return str(low) if low == high else f"{low} to {high}"
