"""The methods section: what was run, with its numbers, from the sidecars of the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bids_brainlm.report import references
from bids_brainlm.report.methods_features import features_text, join, names_of, phones_text
from bids_brainlm.report.methods_group import group_text

_BIN_RULES = {"offset": "its offset", "onset": "its onset", "midpoint": "its midpoint"}


@dataclass(frozen=True)
class Sidecars:
    """The JSON sidecars that a methods text is made from.

    ``words``, ``series`` and ``maps`` (participants' score maps) have one entry a file,
    ``group`` one a group map.
    """

    words: tuple[Mapping[str, object], ...] = ()
    series: tuple[Mapping[str, object], ...] = ()
    maps: tuple[Mapping[str, object], ...] = ()
    group: tuple[Mapping[str, object], ...] = ()
    n_participants: int = 0
    version: str = ""


@dataclass(frozen=True)
class Methods:
    """Paragraphs and references, each reference as (text, DOI)."""

    paragraphs: tuple[str, ...]
    references: tuple[tuple[str, str], ...]


def write(sidecars: Sidecars) -> Methods:
    """Put the methods section together.

    Parameters
    ----------
    sidecars : Sidecars
        What was run.

    Returns
    -------
    paragraphs and references : Methods
        Only what the sidecars state; a part that was not run is not mentioned.
    """
    parts = [
        _overview(sidecars),
        _stimulus(sidecars.words),
        _bold(sidecars.series, sidecars.maps),
        features_text(sidecars.maps),
        _encoding(sidecars.maps),
        _inference(sidecars.maps),
        _group(sidecars.group),
        group_text(sidecars.maps, sidecars.group),
    ]
    return Methods(tuple(p for p in parts if p), _references(sidecars))


def markdown(methods: Methods) -> str:
    """Return the methods section as Markdown text.

    Parameters
    ----------
    methods : Methods
        From `write`.

    Returns
    -------
    str
        Ends with a line break.
    """
    items = [f"- {text} <https://doi.org/{doi}>" for text, doi in methods.references]
    lines = ["# Methods", ""]
    for paragraph in methods.paragraphs:
        lines += [paragraph, ""]
    return "\n".join([*lines, "# References", "", *items]) + "\n"


def _overview(sidecars: Sidecars) -> str:
    """Say who heard what."""
    stories = names_of(sidecars.words, "Story")
    n = sidecars.n_participants
    who = f" of {n} participant{'s' if n != 1 else ''}" if n else ""
    what = f" who listened to {join(stories)}" if stories else ""
    return (
        f"Encoding models of the brain activity{who}{what} were fitted with bids_brainlm "
        f"{sidecars.version}, after the method of Kumar, Sumers et al. (2024)."
    )


def _stimulus(words: Sequence[Mapping]) -> str:
    """Describe transcripts and timing."""
    if not words:
        return ""
    total = sum(int(w.get("NumberOfWords", 0)) for w in words)
    missing = sum(int(w.get("NumberInterpolated", 0)) for w in words)
    dropped = sum(int(w.get("NumberBefore", 0)) + int(w.get("NumberAfter", 0)) for w in words)
    rules = [_BIN_RULES.get(r, r) for r in names_of(words, "BinRule")]
    trs = sum(int(w.get("NumberOfRows", 0)) for w in words)
    silent = sum(int(w.get("NumberOfEmptyTRs", 0)) for w in words)
    text = (
        f"The transcripts hold {total} time-aligned words. Word times were shifted by the start of "
        "the audio file in the run, taken from the events, and each word was given to the TR "
        f"(repetition time {_numbers(words, 'RepetitionTime')} s) that holds "
        f"{join(rules) or 'it'}; the story window has {trs} TRs, {silent} of them without a word."
    )
    if missing:
        text += f" Words that got a time from their neighbours for want of their own: {missing}."
    if dropped:
        text += f" Words outside the story window, left out: {dropped}."
    return text + phones_text(words)


def _bold(series: Sequence[Mapping], maps: Sequence[Mapping]) -> str:
    """Describe BOLD preprocessing and parcels."""
    if not series:
        return ""
    models = set()
    columns, cutoffs = [], set()
    for meta in series:
        denoising = meta.get("Denoising")
        if isinstance(denoising, Mapping):
            models.add(str(denoising.get("Model")))
            columns.append(len(denoising.get("Columns") or ()))
            if denoising.get("HighPassCutoff"):
                cutoffs.add(f"{denoising['HighPassCutoff']:g}")
    atlases = names_of([*series, *maps], "Atlas")
    spaces = names_of([*series, *maps], "Space")
    text = f"BOLD series ({join(spaces) or 'space not stated'}) were cut to the story window"
    if max(columns, default=0):
        low, high = min(columns), max(columns)
        span = str(high) if low == high else f"{low} to {high}"
        text += (
            f", cleaned of {span} confound regressors (model {join(sorted(models))}"
            + (f", high-pass cut-off {join(sorted(cutoffs))} s" if cutoffs else "")
            + ")"
        )
    elif series:
        text += " and used as they had been cleaned before"
    text += f", averaged in the parcels of the atlas {join(atlases)}" if atlases else ""
    signals = names_of(series, "ParcelSignal")
    return text + (f" ({signals[0]})." if signals else ".")


def _encoding(maps: Sequence[Mapping]) -> str:
    """Describe bands, delays, cross-validation and penalties."""
    fitted = [m for m in maps if m.get("Folds")]
    if not fitted:
        return ""
    first = fitted[0]
    bands = list(dict.fromkeys(str(b["Name"]) for m in fitted for b in m.get("Bands", ())))
    delays = join([f"{d:g}" for d in first.get("Delays", ())])
    gap = first.get("Gap") if isinstance(first.get("Gap"), Mapping) else {}
    trim = first.get("Trim") or (0, 0)
    text = (
        f"Banded ridge regression (Nunez-Elizalde et al., 2019; Dupré la Tour et al., 2022) with "
        f"the bands {join(bands)}, each at delays of {delays} TRs, predicted every parcel. "
        f"Models were trained and tested on {len(first['Folds'])} contiguous outer folds"
    )
    if gap:
        text += (
            f" with {gap.get('TRs', 0):g} TRs ({gap.get('Seconds', 0):g} s) left out on both sides "
            "of each test block"
        )
    text += f"; {trim[0]} TRs at the start and {trim[1]} at the end of a story were not used. "
    text += _penalties(first) + _scaling(fitted) + _across(maps)
    return text + (
        " The score r is the "
        "correlation of the model band's own part of the held-out prediction with the data, "
        "averaged over folds; the joint score is that of the whole prediction."
    )


def _across(maps: Sequence[Mapping]) -> str:
    """Describe models that were tested on a story or run that they never saw."""
    schemes = sorted({str(m["CrossValidation"]) for m in maps if m.get("CrossValidation")})
    if not schemes:
        return ""
    return (
        f" Where a participant heard several, the same models were also fitted across them "
        f"({join(schemes)}): penalties and band weights were chosen on training stories, inner "
        "folds left out whole stories where there were several, and the test of the held-out "
        "series permuted blocks of a prediction that never saw them."
    )


def _penalties(meta: Mapping) -> str:
    """Describe how penalties were chosen."""
    alphas = meta.get("Alphas") if isinstance(meta.get("Alphas"), Mapping) else {}
    gammas = meta.get("Gammas") if isinstance(meta.get("Gammas"), Mapping) else {}
    tried = list(alphas.get("Tried", ()))
    if not tried:
        return ""
    grid = (
        f"{len(tried)} penalties from {tried[0]:g} to {tried[-1]:g}"
        if len(tried) > 1
        else f"the penalty {tried[0]:g}"
    )
    draws = gammas.get("NumberOfDraws")
    text = f"For every parcel, {grid}"
    if draws:
        text += f" and {draws} random band weightings (Dirichlet, seed {gammas.get('Seed')})"
    score = {"r2": "R²", "r": "the correlation"}.get(str(meta.get("SelectionScore")), "the score")
    inner = parameters_of(meta).get("inner_cv")
    folds = f"{inner} inner contiguous folds" if inner else "inner contiguous folds"
    return text + f" were compared by {score} on {folds} of the training rows."


def _scaling(metas: Sequence[Mapping]) -> str:
    """Describe the scaling of features, as far as the sidecars state it."""
    found = parameters_of(metas[0])
    text = ""
    if "unscaled_bands" in found:
        raw = set(found["unscaled_bands"] or ())
        bands = [(m, str(b["Name"])) for m in metas for b in m.get("Bands", ())]
        names = list(dict.fromkeys(n for m, n in bands if _is_scaled(m, n, raw)))
        text += f" The bands {join(names)} were standardised on training rows"
        text += (
            "; the features of test rows kept their raw scale."
            if found.get("test_scaling") == "none"
            else ", test rows with the same mean and standard deviation."
        )
    if found.get("kernel_scaling") == "trace":
        text += " Band kernels were scaled to a common trace."
    if found.get("intercept") == "none":
        text += " No intercept was fitted."
    return text


def _is_scaled(meta: Mapping, band: str, unscaled: set[str]) -> bool:
    """Tell whether a band of a map was standardised; the main band may be named by its space."""
    own = str(meta.get("FeatureSpace")) if band == "model" else band
    return band not in unscaled and own not in unscaled


def _inference(maps: Sequence[Mapping]) -> str:
    """Describe the test within participants."""
    found = next((m["Inference"] for m in maps if isinstance(m.get("Inference"), Mapping)), None)
    if not found:
        return ""
    text = (
        f"Within participants, significance comes from {found.get('NumberOfPermutations')} "
        f"draws of a {_lower(found.get('Test', 'permutation test'))}"
    )
    if found.get("BlockLength"):
        text += f" (blocks of {found['BlockLength']} TRs of the held-out prediction)"
    return text + f", {_tail(found)}"


def _group(group: Sequence[Mapping]) -> str:
    """Describe ceilings and group inference."""
    text = ""
    if any(
        str(m.get("Statistic", "")).lower() == "isc" or m.get("FeatureSpace") == "isc"
        for m in group
    ):
        text = (
            f"Ceilings are intersubject correlations: each participant's parcel series correlated "
            f"with the average of {isc_reference(group)}. They measure agreement between people "
            "and are no upper bound for a model that is fitted within one person. "
        )
    tested = [m for m in group if m.get("Statistic") == "mean"] or group
    found = next((m["Inference"] for m in tested if isinstance(m.get("Inference"), Mapping)), None)
    if found:
        draws = found.get("NumberOfPermutations") or found.get("NumberOfBootstraps")
        text += (
            f"Over participants, Fisher-transformed scores were averaged and tested with {draws} "
            f"draws of a {_lower(found.get('Test', 'sign-flip test'))}, {_tail(found)}"
        )
    return text.strip()


def isc_reference(metas: Iterable[Mapping]) -> str:
    """Say with whose average a participant was correlated."""
    if any(parameters_of(m).get("isc_reference") == "all" for m in metas):
        return "all participants, the tested one among them (which inflates it)"
    return "the others"


def _tail(inference: Mapping) -> str:
    """Say how p-values were made and corrected."""
    return (
        f"alternative {inference.get('Alternative', 'not stated')}, p = (k + 1) / (n + 1) (Phipson "
        f"& Smyth, 2010), corrected with {inference.get('Correction', 'Benjamini-Hochberg')} at "
        f"q < {inference.get('FDR', 0.05):g} over {inference.get('Family', 'parcels')}."
    )


def _references(sidecars: Sidecars) -> tuple[tuple[str, str], ...]:
    """Choose the references that belong to what was run."""
    used = [references.KUMAR]
    if any(m.get("Folds") for m in sidecars.maps):
        used += [references.HIMALAYA, references.TIKHONOV]
    metas = [*sidecars.maps, *sidecars.group]
    tests = [m["Inference"] for m in metas if isinstance(m.get("Inference"), Mapping)]
    if tests:
        used += [references.FDR, references.PERMUTATION]
    if any("sign" in str(t.get("Test", "")).lower() for t in tests):
        used.append(references.SIGNS)
    atlases = names_of([*sidecars.series, *metas], "Atlas")
    if any(a.lower().startswith("schaefer") for a in atlases):
        used.append(references.SCHAEFER)
    if any(m.get("FeatureSpace") == "oasm" for m in metas):
        used.append(references.OASM)
    sources = [s for m in metas for s in m.get("Sources") or ()]
    if any("ds002345" in str(s) or "narratives" in str(s).lower() for s in sources):
        used.append(references.NARRATIVES)
    return tuple(sorted(used))


def parameters_of(meta: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of the step that made a file."""
    step = meta.get("Step")
    found = step.get("Parameters") if isinstance(step, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _numbers(metas: Iterable[Mapping], key: str) -> str:
    """Return the distinct numbers under a key."""
    return join([f"{v:g}" for v in sorted({float(m[key]) for m in metas if m.get(key)})])


def _lower(text: object) -> str:
    """Start with a small letter, as within a sentence."""
    words = str(text)
    return words[:1].lower() + words[1:]
