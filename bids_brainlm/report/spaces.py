"""Which feature spaces have maps, and the order in which pages show them."""

from __future__ import annotations

from collections.abc import Iterable

ACROSS = ("AcrossStories", "AcrossRuns")
"""Endings of labels of models that were tested on a story or run that they never saw."""
_ORDER = ("Embeddings", "Transformations", "Magnitudes", "Attention")


def feature_order(desc: str) -> tuple[int, str]:
    """Sort key: embeddings, transformations, magnitudes, then the rest."""
    name = within_of(desc)
    place = next((i for i, ending in enumerate(_ORDER) if name.endswith(ending)), len(_ORDER))
    return place, desc


def within_of(desc: str) -> str:
    """Return the label of the same feature space within a story.

    Parameters
    ----------
    desc : str
        Such as ``minilmEmbeddingsAcrossStories``.

    Returns
    -------
    str
    """
    for ending in ACROSS:
        desc = desc.removesuffix(ending)
    return desc


def within(keys: Iterable[tuple[str, str]], stat: str) -> tuple[str, ...]:
    """Return the feature spaces with a statistic within a story, nuisance left out.

    Parameters
    ----------
    keys : iterable of (str, str)
        Feature space and statistic of every map.
    stat : str

    Returns
    -------
    tuple of str
        In the order of pages.
    """
    return tuple(d for d in _spaces(keys, stat) if not d.endswith(ACROSS))


def across(keys: Iterable[tuple[str, str]], stat: str) -> tuple[str, ...]:
    """Return the feature spaces with a statistic across stories or runs, nuisance left out.

    Parameters
    ----------
    keys : iterable of (str, str)
        Feature space and statistic of every map.
    stat : str

    Returns
    -------
    tuple of str
        In the order of pages.
    """
    return tuple(d for d in _spaces(keys, stat) if d.endswith(ACROSS))


def _spaces(keys: Iterable[tuple[str, str]], stat: str) -> list[str]:
    """Return the feature spaces that have a statistic, nuisance left out."""
    found = {d for d, s in keys if s == stat and d and within_of(d) != "nuisance"}
    return sorted(found, key=feature_order)
