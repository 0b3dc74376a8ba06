"""Versions of the libraries that numbers come from."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from bids_brainlm import __version__

_ARRAYS = ("numpy", "scipy")
_MODELS = ("tokenizers", "torch", "transformers")
# Steps that use more than arrays and images.
_MORE = {
    "attention": _MODELS,
    "features": _MODELS,
    "surprisal": _MODELS,
    "linguistic": ("spacy",),
    "static": ("spacy",),
    "parcels": ("nibabel",),
    "controls": ("soundfile",),
}


@cache
def versions(step: str) -> dict[str, str]:
    """Return the versions of this package and of what a step computes with.

    Parameters
    ----------
    step : str
        Name of the step.

    Returns
    -------
    dict of str to str
        By name of the distribution; those that are not installed are left out.
    """
    found = {"bids_brainlm": __version__}
    for name in sorted((*_ARRAYS, *_MORE.get(step, ()))):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
