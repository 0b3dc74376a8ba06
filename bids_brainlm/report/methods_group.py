"""Methods text on what the group level adds: regions, comparisons, heads, partial correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def group_text(maps: Sequence[Mapping], group: Sequence[Mapping]) -> str:
    """Describe the further analyses of a group.

    Parameters
    ----------
    maps : sequence of mapping
        Sidecars of participants' maps.
    group : sequence of mapping
        Sidecars of the group's maps and tables.

    Returns
    -------
    str
        Empty where none was made.
    """
    spaces = {str(m.get("FeatureSpace") or "") for m in (*maps, *group)}
    parts = [
        _regions(group),
        _partial(spaces),
        _single(spaces),
        _comparison(group),
        _correspondence(group),
        _components(group),
        _ladder(group),
    ]
    return " ".join(part for part in parts if part)


def _regions(group: Sequence[Mapping]) -> str:
    """Describe regions of interest."""
    found = next((m["Regions"] for m in group if isinstance(m.get("Regions"), Sequence)), None)
    if not found:
        return ""
    names = ", ".join(f"{r['Name']} ({len(r['Parcels'])})" for r in found)
    return (
        f"Scores of {len(found)} regions of interest are Fisher means over their parcels in each "
        f"participant (number of parcels): {names}."
    )


def _partial(spaces: set[str]) -> str:
    """Describe partial correlations."""
    if not any(" given " in space for space in spaces):
        return ""
    return (
        "What embeddings and transformations predict beyond each other was measured by the partial "
        "correlation of the data with the held-out prediction from one space, given that from the "
        "other at the same layer, within each test block, mean over folds; residuals were tested "
        "by the same permutation of blocks."
    )


def _single(spaces: set[str]) -> str:
    """Describe models of single features."""
    found = sorted(s.removesuffix("-each") for s in spaces if s.endswith("-each"))
    if not found:
        return ""
    return (
        f"Every single feature of {', '.join(found)} had a model of its own beside the nuisance "
        "bands; p-values were corrected over all features and parcels together."
    )


def _comparison(group: Sequence[Mapping]) -> str:
    """Describe paired comparisons."""
    found = next((m for m in group if m.get("LayerChoice")), None)
    if found is None:
        return ""
    inference = found.get("Inference")
    n = inference.get("NumberOfPermutations") if isinstance(inference, Mapping) else None
    return (
        "Feature spaces were compared in pairs over participants on Fisher z (sign flips"
        + (f", {n} draws" if n else "")
        + ", two-sided, Benjamini-Hochberg over all pairs and regions). Spaces with layers entered "
        "with the layer that was best in the other half of the participants."
    )


def _correspondence(group: Sequence[Mapping]) -> str:
    """Describe the correspondence of decoding and encoding."""
    if not any(m.get("FeatureSpace") == "correspondence" for m in group):
        return ""
    return (
        "Correspondence is the Spearman correlation over attention heads of decoding accuracy and "
        "group brain score, tested by permutation of heads (two-tailed), and once more with layer "
        "partialled out, heads permuted within layers; links are reported where participants agree "
        "as well (sign flips of participants' own correlations, larger of both p)."
    )


def _components(group: Sequence[Mapping]) -> str:
    """Describe the components of heads."""
    if not any(m.get("FeatureSpace") == "specialization" for m in group):
        return ""
    return (
        "Logarithms of the norms of heads' weights, less those of phase-randomised series fitted "
        "with the same penalties, and less each head's mean over parcels and each parcel's mean "
        "over heads, scaled to unit variance in each participant and averaged over "
        "participants, were decomposed into principal components over heads; a component counts "
        "where participants agree along it more than with random signs of whole participants. "
        "Component scores were correlated with layer (over layers) and, with layer "
        "partialled out, with look-back distance and decoding accuracy."
    )


def _ladder(group: Sequence[Mapping]) -> str:
    """Describe the control ladder."""
    if not any(m.get("FeatureSpace") == "ladder" for m in group):
        return ""
    return (
        "A ladder of nested models (position, word rate, phonemes, acoustics, static vectors, "
        "untrained and trained model, as far as they were fitted) was refitted rung by rung; the "
        "gain of a rung is the held-out R² of the model with it less that of the model without, "
        "tested by sign flips over participants."
    )
