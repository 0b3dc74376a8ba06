"""Blocks that participant and group pages share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bids_brainlm.report.content import (
    Column,
    GroupStory,
    Labels,
    Notice,
    Pairs,
    ParcelMap,
    Picture,
    Recording,
    References,
    RunFacts,
    Section,
    Table,
    Text,
    Words,
)
from bids_brainlm.report.methods import Methods

Naming = Callable[..., str]
"""``naming(figure, ext, story=, session=, run=, desc=)`` returns a path below the output."""

EDGE_LIMIT = 0.05
"""Share of choices at an end of the penalty grid above which the page warns."""

N_BEST = 20
"""Rows of a table of best parcels."""


def anchor(*parts: str | None) -> str:
    """Return an id for a section that is safe in HTML and in links."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(p for p in parts if p)).strip("-").lower()


def marks_of(items: Sequence[Recording | GroupStory]) -> list[str]:
    """Return what tells apart items of several spaces or atlases; empty texts where it is one."""
    places = [(item.space, item.atlas) for item in items]
    several = len(set(places)) > 1
    return [f"{space}{atlas}" if several else "" for space, atlas in places]


def marked(naming: Naming, mark: str) -> Naming:
    """Return a naming that puts ``mark`` after the name of every figure."""

    def named(figure: str, ext: str, **labels: str | None) -> str:
        return naming(figure + mark, ext, **labels)

    return named


def layers_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are layers."""
    return tuple(c for c in columns if re.fullmatch(r"layer\d+", c))


def heads_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are attention heads."""
    return tuple(c for c in columns if re.fullmatch(r"L\d+H\d+", c))


def column_words(column: str) -> str:
    """Say in words what a column is: ``layer 3``, ``layer 1 head 2``, or the whole space."""
    if layers_of([column]):
        return f"layer {int(column[5:])}"
    head = re.fullmatch(r"L(\d+)H(\d+)", column)
    if head:
        return f"layer {int(head[1])} head {int(head[2])}"
    return "whole feature space" if column == "value" else column


def chosen_words(columns: Sequence[str], column: str) -> str:
    """Say which column is shown and that it was chosen, where there was a choice."""
    where = column_words(column)
    several = len([c for c in columns if c not in ("ci_low", "ci_high")]) > 1
    return f"{where}, which has the highest mean r" if several else where


_ACROSS = {"AcrossStories": " across stories", "AcrossRuns": " across runs"}


def feature_words(desc: str, meta: Mapping[str, object]) -> str:
    """Name a feature space for people: ``minilm embeddings``."""
    model = meta.get("Model")
    label = model.get("Label") if isinstance(model, Mapping) else None
    space = str(meta.get("FeatureSpace") or "")
    ending = next((words for end, words in _ACROSS.items() if desc.endswith(end)), "")
    if space.endswith("-each"):
        what = f"single features of {space.removesuffix('-each')}{ending}"
        return f"{label}, {what}" if label else what
    if label and space:
        return f"{label} {space.lower()}{ending}"
    return " ".join(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", desc)).lower() or desc


def best_column(values: np.ndarray, columns: Sequence[str]) -> str:
    """Return the column whose mean over parcels is highest; the first where all are NaN."""
    counts = np.isfinite(values).sum(axis=0)
    means = np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), -np.inf)
    return columns[int(np.argmax(means))]


def mean(values: np.ndarray | None) -> float:
    """Mean of what is not NaN, NaN if nothing is left."""
    if values is None or not np.isfinite(values).any():
        return float("nan")
    return float(values[np.isfinite(values)].mean())


def number(value: object, digits: int = 3, unit: str = "") -> str:
    """Write a number with a true minus sign and its unit; a dash where there is none.

    Powers of ten are for p-values and the like, which have four digits or more.
    """
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = str(int(value))
    elif isinstance(value, (float, np.floating)):
        tiny = digits > 3 and 0 < abs(value) < 0.5 * 10.0**-digits
        value = value if tiny else round(float(value), digits) + 0.0  # no minus before zero
        text = f"{value:.1e}" if tiny else f"{value:.{digits}f}"
    else:
        return str(value)
    text = text.replace("-", "−")
    return f"{text} {unit}" if unit else text


def interval(low: float, high: float, digits: int = 3) -> str:
    """Write an interval that is not broken over lines; a dash where there is none."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "–"
    return f"{number(float(low), digits)}\u00a0to\u00a0{number(float(high), digits)}"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def fdr_of(meta: Mapping[str, object]) -> float:
    """Return the false discovery rate of a map."""
    inference = meta.get("Inference")
    if isinstance(inference, Mapping) and isinstance(inference.get("FDR"), (int, float)):
        return float(inference["FDR"])
    return 0.05


def scale_limit(values: np.ndarray) -> float:
    """Return the end of a symmetric colour scale: the 99th percentile, rounded up."""
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size or not finite.max() > 0:
        return 0.1
    limit = float(np.percentile(finite, 99)) or float(finite.max())
    step = 10.0 ** np.floor(np.log10(limit)) / 2
    return float(np.ceil(limit / step - 1e-9) * step)


def brain_png(
    labels: Labels, index: tuple[int, ...], values: np.ndarray, keep: np.ndarray | None, label: str
) -> bytes:
    """Draw all parcels on slices; below, those of ``keep`` on a glass brain.

    Labels of surfaces are drawn on the cortex, twice.
    """
    from bids_brainlm.report import figures_brain, figures_surface

    limit = scale_limit(values)
    if labels.affine is None:
        shown = [] if keep is None or not keep.any() else [np.where(keep, values, np.nan)]
        return figures_brain.stack([
            figures_surface.surface(labels, index, some, label=label, limit=limit)
            for some in (values, *shown)
        ])
    parts = [figures_brain.slices(labels, index, values, label=label, limit=limit)]
    if keep is not None and keep.any():
        shown = np.where(keep, values, np.nan)
        parts.append(figures_brain.glass(labels, index, shown, label=label, limit=limit))
    return figures_brain.stack(parts)


def drawn_words(labels: Labels, *, cortex: bool = False) -> str:
    """Say what `brain_png` draws, or with ``cortex`` what `brain_and_cortex_png` draws."""
    on_cortex = "on the inflated cortex (fsaverage5), lateral and medial"
    if labels.affine is None:
        return f"Above: all parcels {on_cortex}. Below, where any: only significant parcels."
    if cortex:
        return (
            "Above: all parcels on axial slices (z in mm, MNI); then, where any, only significant "
            f"parcels, seen through a glass brain; last, all parcels {on_cortex}."
        )
    return (
        "Above: all parcels on axial slices (z in mm, MNI). Below, where any: only significant "
        "parcels, seen through a glass brain."
    )


def brain_and_cortex_png(
    labels: Labels, index: tuple[int, ...], values: np.ndarray, keep: np.ndarray | None, label: str
) -> bytes:
    """Draw what `brain_png` draws, and below all parcels on the cortical surface."""
    from bids_brainlm.report import figures_brain, figures_surface

    if labels.affine is None:
        return brain_png(labels, index, values, keep, label)
    cortex = figures_surface.surface(labels, index, values, label=label, limit=scale_limit(values))
    return figures_brain.stack([brain_png(labels, index, values, keep, label), cortex])


def words_picture(words: Words, naming: Naming) -> Picture:
    """Draw the words a TR of a story."""
    from bids_brainlm.report import figures_timing

    meta = words.meta
    n_rows = int(meta["NumberOfRows"])
    counts = np.bincount(words.rows[words.rows >= 0], minlength=n_rows)[:n_rows]
    tr = float(meta["RepetitionTime"])
    silent = int((counts == 0).sum())
    return Picture(
        path=naming("words", "svg", story=words.story),
        data=figures_timing.words_per_tr(
            counts,
            tr=tr,
            start=float(meta["StartTime"]),
            first_word=meta.get("FirstWordOnset"),
            last_word=meta.get("LastWordOffset"),
            audio_onset=meta.get("AudioOnset"),
        ),
        alt=f"Words per TR in story {words.story}",
        title="Words per TR",
        caption=(
            f"Number of words whose {meta.get('BinRule', 'offset')} falls into each of the "
            f"{n_rows} TRs of {number(tr, 2)} s; n = {int(counts.sum())} words, at most "
            f"{int(counts.max(initial=0))} in one TR. Orange: the {silent} TRs without a word "
            f"({100 * silent / max(n_rows, 1):.0f} %). How to read it: speech should fill the "
            "window between the two lines; a long silence at one end, or lines at unexpected "
            "times, point to a wrong start of the audio file (--stimulus-onset)."
        ),
        files=(words.path,),
    )


def summary_section(facts: RunFacts, warnings: Sequence[str]) -> Section:
    """Tell what was skipped, what failed and what to look at."""
    blocks: list[Notice | Table | Text] = []
    if facts.failed:
        blocks.append(_what_why("What failed and why", facts.failed))
    if facts.skipped:
        blocks.append(_what_why("What was skipped and why", facts.skipped))
    blocks += [Notice(text, "warning") for text in dict.fromkeys([*facts.warnings, *warnings])]
    if not blocks:
        blocks.append(Notice("Nothing failed, nothing was skipped, no warnings.", "good"))
    return Section("checks", "Warnings, skips and failures", tuple(blocks))


def _what_why(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Make a table of (what, why), and of what to do where the reason says it."""
    parts = [(what, *why.partition("\nWhat to do: ")[::2]) for what, why in rows]
    if not any(todo for *_, todo in parts):
        return Table(title, (Column("What"), Column("Why")), tuple(p[:2] for p in parts))
    return Table(title, (Column("What"), Column("Why"), Column("What to do")), tuple(parts))


def settings_section(facts: RunFacts) -> Section:
    """List the settings and the command."""
    from bids_brainlm.report.content import Code

    rows = tuple(
        (section, name, _plain(value)) for section, name, value in _flatten(facts.settings)
    )
    blocks: list[object] = []
    if facts.command:
        blocks.append(Code(facts.command))
    if rows:
        columns = (Column("Section"), Column("Setting"), Column("Value"))
        blocks.append(Table("Settings", columns, rows))
    return Section("settings", "Settings", tuple(blocks))


def _flatten(settings: Mapping[str, object]) -> list[tuple[str, str, object]]:
    """Return (section, name, value) of settings that may be nested one level."""
    found = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += [(name, inner, item) for inner, item in value.items()]
        else:
            found.append(("", name, value))
    return found


def _plain(value: object) -> str:
    """Write a setting's value as on the command line."""
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(v) for v in value) if value else "(default)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "(default)" if value in ("", None) else str(value)


def methods_section(methods: Methods) -> Section:
    """Show the methods text with its references."""
    blocks = [
        Text(
            "This text describes what is shown here and may be copied; logs/CITATION.md "
            "has the one for all participants and stories of this folder."
        )
    ]
    blocks += [Text(paragraph) for paragraph in methods.paragraphs]
    return Section("methods", "Methods", (*blocks, References(methods.references)))


def software_section(versions: Mapping[str, str], metas: Sequence[Mapping]) -> Section:
    """List software versions and model fingerprints."""
    rows = [(name, version) for name, version in sorted(versions.items())]
    models = {}
    for meta in metas:
        model = meta.get("Model")
        if isinstance(model, Mapping) and model.get("Label"):
            models[str(model["Label"])] = model
    blocks: list[object] = [Pairs(tuple(rows))]
    for label, model in sorted(models.items()):
        pairs = [(k, _plain(v)) for k, v in model.items() if v is not None]
        blocks += [Text(f"Language model {label}"), Pairs(tuple(pairs))]
    return Section("software", "Software and models", tuple(blocks))


def versions_of(metas: Sequence[Mapping], version: str) -> dict[str, str]:
    """Collect the software versions that sidecars name; several where they differ."""
    found: dict[str, set[str]] = {}
    for meta in metas:
        named = meta.get("SoftwareVersions")
        if isinstance(named, Mapping):
            for name, value in named.items():
                found.setdefault(str(name), set()).add(str(value))
    found["bids_brainlm"] = {version}
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def edge_shares(meta: Mapping[str, object]) -> tuple[float, float, tuple[float, float]] | None:
    """Return the shares of choices at the lowest and highest penalty, and these penalties.

    ``None`` where no grid was searched.
    """
    found = meta.get("Alphas")
    if not isinstance(found, Mapping):
        return None
    tried, chosen = list(found.get("Tried", ())), found.get("Chosen", {})
    if len(tried) < 2 or not chosen:
        return None
    counts = np.array([list(c) for c in chosen.values()], dtype=float).sum(axis=0)
    total = max(counts.sum(), 1)
    return counts[0] / total, counts[-1] / total, (tried[0], tried[-1])


def place_columns(labels: Labels | None) -> list[str]:
    """Return which of hemisphere and network the atlas knows and its names do not say."""
    if labels is None:
        return []

    def tells(column: str) -> bool:
        known = [r for r in labels.table.values() if r.get(column, "n/a") != "n/a"]
        return any(r[column] not in r.get("name", "") for r in known)

    return [w for w in ("hemisphere", "network", "network_label") if tells(w)]


def place_of(labels: Labels | None, index: int, columns: Sequence[str]) -> list[str | None]:
    """Return hemisphere and network of a parcel."""
    row = labels.table.get(index, {}) if labels else {}
    return [None if row.get(c, "n/a") == "n/a" else row[c] for c in columns]


def map_files(maps: Mapping[tuple[str, str], ParcelMap], desc: str, *stats: str) -> tuple[str, ...]:
    """Return the paths of the maps behind a block."""
    return tuple(maps[desc, s].path for s in stats if (desc, s) in maps)
