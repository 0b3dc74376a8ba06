"""Read the sidecars that the methods text is made from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import DataError, MissingInputError
from bids_brainlm.report import methods

log = logging.getLogger(__name__)


def sidecars(names: Names, version: str, *, damaged: bool = False) -> methods.Sidecars:
    """Read the sidecars of all levels.

    Parameters
    ----------
    names : Names
        The output dataset.
    version : str
        Version of the app.
    damaged : bool
        Leave damaged ones out. Only for texts that every call writes anew: they may belong to
        another level or to participants that the call is not about.

    Returns
    -------
    methods.Sidecars

    Raises
    ------
    DataError
        A sidecar is damaged, unless these are left out.
    """
    maps = [p for stat in ("r", "p") for p in names.find("boldmap", {"stat": stat, "ext": "json"})]
    series = names.find("timeseries", {"ext": "json"})
    kinds = ("group_boldmap", "comparison")
    people = {names.parse(p)[1]["participant"] for p in [*maps, *series]}
    return methods.Sidecars(
        words=_contents(names.find("words", {"ext": "json"}), damaged),
        series=_contents(series, damaged),
        maps=_contents(maps, damaged),
        group=_contents([p for kind in kinds for p in names.find(kind, {"ext": "json"})], damaged),
        n_participants=len(people),
        version=version,
    )


def _contents(paths: Sequence[Path], damaged: bool) -> tuple[dict[str, object], ...]:
    """Read JSON files, without damaged ones where these may be left out."""
    found = []
    for path in paths:
        try:
            found.append(write.read_json(path))
        except (DataError, MissingInputError) as error:
            if not damaged:
                raise
            log.debug("left out of the methods: %s", error.message)
    return tuple(found)
