"""What was taken from the stories: a table of features, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bids_brainlm.report.common import Naming
from bids_brainlm.report.content import (
    Column,
    GroupStory,
    Picture,
    Representations,
    Section,
    StimulusFile,
    Table,
)


def phones_words(meta: Mapping[str, object]) -> str:
    """Say where the phones of a story come from; a dash where none are known."""
    phones = meta.get("Phones")
    if not isinstance(phones, Mapping):
        return "–"
    if phones.get("Source") == "aligned":
        return "from the alignment"
    share = phones.get("ShareOfWordsCovered")
    covered = f", {100 * float(share):.1f} % of the words" if share is not None else ""
    return f"estimated from the dictionary {phones.get('Dictionary', '')}{covered}"


def table(files: Sequence[StimulusFile]) -> Table:
    """List the stimulus features of a story.

    Parameters
    ----------
    files : sequence of StimulusFile

    Returns
    -------
    Table
        One row a file.
    """
    columns = (
        Column("Features"),
        Column("What"),
        Column("Columns", number=True, digits=0),
        Column("Empty TRs", number=True, digits=0),
    )
    rows = tuple((f.name, f.description, f.n_columns, f.n_empty) for f in files)
    return Table(
        "Stimulus features",
        columns,
        rows,
        caption="One row a file. Every file has one row a TR of the story window; its JSON says "
        "what each column is and how empty TRs are marked. They are kept as such in the files and "
        "filled when encoding models are fitted, as the settings say. Recordings are in "
        f"{_pattern(files)}; arrays and words in the folder stimuli.",
    )


def _pattern(files: Sequence[StimulusFile]) -> str:
    """Return the names of the recordings as a pattern."""
    for one in files:
        if one.path.endswith(".tsv.gz"):
            return one.path.replace(one.name, "*")
    return "the output folder"


def warnings_of(files: Sequence[StimulusFile]) -> list[str]:
    """Return what the features' sidecars warn of, once each."""
    return list(dict.fromkeys(text for one in files for text in one.warnings))


def section(story: GroupStory, place: str, naming: Naming) -> Section | None:
    """Show what was taken from a story; ``None`` where no file is there.

    Parameters
    ----------
    story : GroupStory
    place : str
        Anchor of the story's section.
    naming : callable
        Gives a figure its path.

    Returns
    -------
    Section or None
    """
    if not story.stimulus:
        return None
    blocks: list[object] = [table(story.stimulus)]
    for one in story.representations:
        blocks += _representations(one, story.story, naming)
    return Section(f"{place}-stimulus", "Stimulus features", tuple(blocks))


def _representations(one: Representations, story: str, naming: Naming) -> list[object]:
    """Show how embeddings and transformations of one model relate."""
    from bids_brainlm.report import figures_representations

    meta, files = one.meta, (one.path, one.path.removesuffix(".tsv") + ".json")
    n_rows = int(meta.get("NumberOfRows") or 0)
    blocks: list[object] = [_numbers(one)]
    if "rdm" in one.matrices:
        blocks.append(
            Picture(
                naming("rdm", "svg", story=story, desc=one.model),
                figures_representations.similarity(one.matrices["rdm"], one.layers),
                f"Similarity of embeddings and transformations of {one.model}",
                f"Representational similarity of {one.model}",
                "Spearman correlation between the representational dissimilarity matrices (1 − r "
                "between TRs) of embeddings after a layer and of the transformations in it; "
                f"n = {n_rows} TRs with words. How to read it: a bright diagonal means that heads "
                "carry what their layer's embeddings carry.",
                files,
            )
        )
    curves = {
        space: one.matrices[f"autocorrelation-{space}"]
        for space in ("embeddings", "transformations")
        if f"autocorrelation-{space}" in one.matrices
    }
    if curves:
        layers = {s: list(range(1, len(v) + 1)) for s, v in curves.items()}
        blocks.append(
            Picture(
                naming("autocorrelation", "svg", story=story, desc=one.model),
                figures_representations.autocorrelation(curves, layers),
                f"Autocorrelation of the features of {one.model}",
                f"Autocorrelation of {one.model}",
                "Autocorrelation of the features from TR to TR, mean over units, one line a layer; "
                f"pairs of TRs with words only, n = {n_rows} TRs. How to read it: where the line "
                "stays up, neighbouring TRs carry the same, and folds need a wide gap.",
                files,
            )
        )
    return blocks


def _numbers(one: Representations) -> Table:
    """Return the numbers that sum up a comparison."""
    meta = one.meta
    wise = meta.get("CorrelationByTR") or {}
    rows = (
        ("Spearman of RDMs, all layers as features", meta.get("SpearmanLayersAsFeatures"), None),
        ("Spearman of RDMs, layers as samples", meta.get("SpearmanLayersAsSamples"), None),
        ("Spearman of layer-by-layer RDMs (second order)", meta.get("SpearmanSecondOrder"), None),
        ("Pearson r within TRs, mean over TRs", wise.get("Mean"), wise.get("SD")),
    )
    return Table(
        f"Embeddings and transformations of {one.model}",
        (
            Column("Compared by"),
            Column("value", number=True),
            Column("SD", number=True),
        ),
        rows,
        caption=f"n = {meta.get('NumberOfRows')} TRs with words, layers 1 to {len(one.layers)}. "
        "RDM: representational dissimilarity matrix, 1 − r between TRs.",
        files=(one.path.removesuffix(".tsv") + ".json",),
        sortable=False,
    )
