"""The part of the methods section that says what was taken from the stories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

SILENCE = {
    "zero": "set to zero after standardisation",
    "ffill": "filled with the features of the last TR that had words",
    "zero-unscaled": "set to zero before standardisation",
}
OF_STORIES = {
    "acoustics": "Acoustics are loudness (root mean square, level) and a log-mel spectrum of the "
    "audio file, averaged within TRs.",
    "position": "Position is the share of the story that has passed, centred, and its square.",
    "oasm": "The orthogonal autocorrelated-stimulus matrix (an identity matrix blurred along "
    "time) served as a control without content.",
}


def phones_text(words: Sequence[Mapping]) -> str:
    """Say where phones come from.

    Parameters
    ----------
    words : sequence of mapping
        Sidecars of the aligned words, one a story.

    Returns
    -------
    str
        Empty where no phones are known.
    """
    found = [m["Phones"] for m in words if isinstance(m.get("Phones"), Mapping)]
    sources = {str(p.get("Source")) for p in found}
    estimated = [p for p in found if p.get("Source") == "estimated"]
    text = " Phones are those of the alignment." if "aligned" in sources else ""
    if estimated:
        names = sorted({str(p.get("Dictionary")) for p in estimated})
        share = min(float(p.get("ShareOfWordsCovered", 0)) for p in estimated)
        text += (
            f" {'Elsewhere p' if text else 'P'}hones were estimated from the pronouncing "
            f"dictionary {join(names)} (at least {100 * share:.1f} % of a story's words), each "
            "word's duration being shared out equally among its phones."
        )
    return text


def features_text(maps: Sequence[Mapping]) -> str:
    """Describe language models and feature spaces.

    Parameters
    ----------
    maps : sequence of mapping
        Sidecars of participants' maps.

    Returns
    -------
    str
    """
    used_as_bands = [b for m in maps for b in m.get("Bands") or ()]
    maps = [*maps, *({**b, "FeatureSpace": b["Name"]} for b in used_as_bands if "Model" in b)]
    sentences = [
        _vectors(model) if model.get("Kind") == "static vectors" else _model(label, model, maps)
        for label, model in models_of(maps).items()
    ]
    language = bool(sentences)
    sentences += _linguistic([*maps, *used_as_bands])
    used = dict.fromkeys(
        [str(m.get("FeatureSpace")) for m in maps]
        + [str(b["Name"]) for m in maps for b in m.get("Bands") or ()]
    )
    sentences += [text for space, text in OF_STORIES.items() if space in used]
    brought = sorted(s.removeprefix("stim-") for s in used if s.startswith("stim-"))
    if brought:
        sentences.append(
            f"The dataset's own recordings {join(brought)} were put on the volumes (averaged "
            "within TRs, copied or interpolated, as their sampling rate demands)."
        )
    if any(m.get("ContextBorders") for m in maps):
        sentences.append("A model's context started anew at the borders of the outer folds.")
    policies = [SILENCE.get(p, p) for p in names_of(maps, "SilencePolicy")]
    if language and policies:
        sentences.append(f"TRs without words were {join(policies)} in language features.")
    return " ".join(sentences)


def _model(label: str, model: Mapping, maps: Sequence[Mapping]) -> str:
    """Describe a language model, what was taken from it, and what it saw."""
    digest = str(model.get("Sha256") or "")[:12]
    detail = [
        "untrained, random weights" if model.get("Kind") == "random" else "",
        f"{model.get('NumberOfLayers')} layers" if model.get("NumberOfLayers") else "",
        f"{model.get('NumberOfHeads')} heads a layer" if model.get("NumberOfHeads") else "",
        f"revision {model['Revision']}" if model.get("Revision") else "",
        f"weights sha256 {digest}…" if digest else "",
    ]
    spaces = {
        str(m.get("FeatureSpace", "")).lower()
        for m in maps
        if isinstance(m.get("Model"), Mapping) and m["Model"].get("Label") == label
    }
    kinds = sorted({"layer 0" if s == "static" else s for s in spaces} - {""})
    text = (
        f"The features are the {join(kinds)} of {model.get('Name') or label} "
        f"({', '.join(d for d in detail if d)})"
    )
    tokens = model.get("ContextTokens")
    if isinstance(tokens, Mapping):
        text += (
            f", which saw all words before (a context that grew to {tokens.get('Limit')} tokens "
            f"and was then cut back to {tokens.get('Kept')})"
        )
    elif model.get("ContextTRs") is not None:
        text += f", which saw the words of the current TR and of {model['ContextTRs']} TRs before"
        text += " it"
    return text + "."


def _vectors(model: Mapping) -> str:
    """Describe static word vectors."""
    digest = str(model.get("Sha256") or "")[:12]
    return (
        f"Static embeddings are the vectors of {model.get('Name')} ({model.get('NumberOfUnits')} "
        f"dimensions, sha256 {digest}…), averaged over the known words of a TR."
    )


def _linguistic(maps: Sequence[Mapping]) -> list[str]:
    """Describe linguistic features by pipeline."""
    found = {
        f"{p.get('Name')} {p.get('Version')} (spaCy {p.get('spaCy')})"
        for m in maps
        if isinstance(p := m.get("Pipeline"), Mapping)
    }
    if not found:
        return []
    return [
        "Linguistic features are counts of 25 dependencies and 14 parts of speech in each TR, "
        f"from the spaCy pipeline {join(sorted(found))}."
    ]


def models_of(maps: Sequence[Mapping]) -> dict[str, Mapping]:
    """Return the language models and word vectors by label."""
    found = {}
    for meta in maps:
        model = meta.get("Model")
        if isinstance(model, Mapping) and model.get("Label"):
            found[str(model["Label"])] = model
    return dict(sorted(found.items()))


def names_of(metas: Iterable[Mapping], key: str) -> list[str]:
    """Return the distinct texts under a key, in order."""
    return list(dict.fromkeys(str(m[key]) for m in metas if m.get(key)))


def join(items: Sequence[str]) -> str:
    """Join with commas and 'and'."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
