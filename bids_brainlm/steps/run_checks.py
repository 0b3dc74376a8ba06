"""What sidecars say about the validity of a fit: leakage between folds, and timing of the run.

A helper of the encoding steps, not a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import audit, crossval
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, made_by

if TYPE_CHECKING:
    from bids_brainlm.numerics import alignment

SCALED = (
    "Parcel series are z-scored over the run, test rows included: one scale and one mean a "
    "parcel, which change no correlation; R2 leaves out the means of test blocks."
)


class Text(NamedTuple):
    """Words of every row, and the block of rows that it belongs to, shape (n_rows,)."""

    words: Sequence[Sequence[str]]
    blocks: np.ndarray


def leakage(
    job: Job, plan: crossval.Plan, source: Mapping[str, object], text: Text | None = None
) -> dict[str, object]:
    """Audit the folds of a fit.

    Parameters
    ----------
    job : Job
    plan : Plan
        Folds and delays.
    source : mapping
        Sidecar of the main band's features; empty for the model of nuisance bands.
    text : Text, optional
        Of fits to several stories; default the job's story.

    Returns
    -------
    dict
        Distances, n-gram overlap and findings, as sidecars hold them.
    """
    tr = float(job.facts["tr"])
    words = made_by(job, "words")
    n_trs = int(words.facts["n_trs"])
    if text is None:
        text = Text(stories.row_words(words.outputs["words"], n_trs), np.zeros(n_trs, int))
    found = audit.audit(
        plan.outer,
        plan.inner,
        delays=plan.delays,
        tr=tr,
        context_trs=_context(source, plan, n_trs),
        words=text.words,
        stories=text.blocks,
    )
    findings = [
        {"Severity": one.severity, "Check": one.check, "Text": one.text} for one in found.findings
    ]
    findings.append({"Severity": "note", "Check": "scaling", "Text": SCALED})
    return {
        "Leaks": found.leaks,
        "LeastDistance": found.outer_distance,
        "LeastDistanceInner": found.inner_distance,
        "NeededDistance": found.needed_distance,
        "DelaysCross": found.delays_cross,
        "ResponseCrosses": found.response_crosses,
        "ContextCrosses": found.context_crosses,
        "RepeatedNGrams": {str(n): share for n, share in found.overlap.items()},
        "Units": "TRs between a training and a test row; shares of test n-grams, by n",
        "Findings": findings,
    }


def _context(source: Mapping[str, object], plan: crossval.Plan, n_trs: int) -> int | None:
    """Return how many TRs of text the model saw; None where contexts begin anew at these folds."""
    model = source.get("Model")
    borders = list(source.get("ContextBorders") or ())
    if not isinstance(model, Mapping):
        return None
    if borders and borders == [int(fold.test[0]) for fold in plan.outer[1:]]:
        return None
    if model.get("Context") == "growing":
        return n_trs
    seen = model.get("ContextTRs")
    return int(seen) if isinstance(seen, (int, float)) else None


def leak_warnings(job: Job, found: Mapping[str, object]) -> list[str]:
    """Return leaks as warnings, with what to do about them."""
    return [
        f"{job.unit.story}: LEAK. {one['Text']} Scores are too high; a longer --gap avoids it."
        for one in found["Findings"]
        if one["Severity"] == "leak"
    ]


def run_lag(job: Job, series: np.ndarray) -> dict[str, object]:
    """Estimate by how much a run follows the words of its story too early or too late.

    Parameters
    ----------
    job : Job
        Its upstream ``words`` job has the words a TR.
    series : array, shape (n_trs, n_parcels)
        NaN columns are empty parcels.

    Returns
    -------
    dict
        Empty where the run is too short to tell.
    """
    from bids_brainlm.numerics import alignment

    response = word_response(job, len(series))
    try:
        found = alignment.run_alignment(
            response, alignment.driven_series(series), float(job.facts["tr"])
        )
    except NumericalError:
        return {}
    return lag_facts(found)


def word_response(job: Job, n_trs: int) -> np.ndarray:
    """Return words a TR, convolved with the canonical response, shape (n_trs,)."""
    from bids_brainlm.numerics import alignment

    words = made_by(job, "words")
    counts = write.read_stim_tsv_gz(words.outputs["stim_words"])[:n_trs, 0]
    return alignment.convolve_response(np.nan_to_num(counts), float(words.facts["tr"]))


def lag_facts(found: alignment.Alignment) -> dict[str, object]:
    """Return an alignment as sidecars hold it."""
    return {
        "Lag": found.lag,
        "LagLow": found.low if np.isfinite(found.low) else None,
        "LagHigh": found.high if np.isfinite(found.high) else None,
        "R": found.r,
        "Z": found.z,
        "P": found.p,
        "Unlikely": bool(found.unlikely),
        "Verdict": found.message,
        "Units": "s; positive where the brain is later than the words say",
    }
