"""Read tables from Python as data frames: ceilings, comparisons, decoding, components."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainlm.api_maps import MapFile, list_maps
from bids_brainlm.bidsio import maps, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import MissingInputError
from bids_brainlm.steps import regions as roi

if TYPE_CHECKING:
    import pandas as pd

CEILINGS = ("isc", "splithalf", "crosssubject", "repeat")
CEILING_TESTS = {"iscp": "isc_p", "iscq": "isc_q", "iscpfwe": "isc_pfwe"}
TABLES = {
    "alignment": "alignment",
    "associations": "associations",
    "comparison": "comparison",
    "components": "components",
    "decoding": "decoding",
    "heads": "head_scores",
    "scores": "scores",
    "tokens": "tokens",
    "words": "words",
}
"""Output by the name of the table."""


def load_ceilings(
    out_dir: str | Path,
    story: str,
    *,
    regions: bool = False,
    atlas: str | None = None,
    space: str | None = None,
) -> pd.DataFrame:
    """Load all ceilings of a story side by side.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    story : str
        As in the file names.
    regions : bool
        Regions of interest in place of parcels; they have no ceilings unless these were made.
    atlas, space : str, optional
        May be left out where there is one.

    Returns
    -------
    pandas.DataFrame
        One row a parcel (index: its name). Columns: ``index`` (number in the atlas), and of
        ``isc`` (leave-one-out), ``splithalf``, ``crosssubject`` and ``repeat`` those that were
        made, each with ``_low`` and ``_high`` (95 % interval); ``isc_p``, ``isc_q``,
        ``isc_pfwe`` where ISC was tested. Correlations, but ``repeat`` is a share of variance.

    Raises
    ------
    MissingInputError
        The story has no ceilings, or those of several atlases.
    """
    import pandas as pd

    wanted = {**dict.fromkeys(CEILINGS), **CEILING_TESTS}
    known = list_maps(out_dir, story=story)
    found = [m for m in known if m.feature == "" and m.stat in wanted and m.regions == regions]
    found = [m for m in found if atlas in (None, m.atlas) and space in (None, m.space)]
    _check_place(out_dir, story, "ceilings", found)
    order = [*wanted]
    columns: dict[str, object] = {}
    parcels: list[str] = []
    for one in sorted(found, key=lambda m: order.index(m.stat)):
        index, parcels, names, values = maps.read_map(one.path)
        columns.setdefault("index", index)
        if one.stat in CEILING_TESTS:
            columns[CEILING_TESTS[one.stat]] = values[:, 0]
            continue
        for k, name in enumerate(names):
            ending = {"value": "", "ci_low": "_low", "ci_high": "_high"}.get(name, f"_{name}")
            columns[f"{one.stat}{ending}"] = values[:, k]
    made = pd.DataFrame(columns, index=pd.Index(parcels, name="parcel"))
    first = found[0]
    made.attrs = {"story": story, "atlas": first.atlas, "space": first.space}
    return made


def _check_place(out_dir: str | Path, story: str, what: str, found: Sequence[MapFile]) -> None:
    """Refuse nothing, and results of several atlases."""
    places = sorted({(m.atlas, m.space) for m in found})
    if len(places) == 1:
        return
    if places:
        raise MissingInputError(
            f"Story {story!r} has {what} for " + ", ".join(f"{a} in {s}" for a, s in places) + ".",
            hint="Name one: atlas=..., space=....",
        )
    stories = sorted({m.story for m in list_maps(out_dir)})
    raise MissingInputError(
        f"{out_dir} has no {what} of story {story!r}; found the stories "
        f"{', '.join(stories) or 'none'}.",
        hint="Run the group level; --ceilings names the ceilings to make.",
    )


def load_comparison(
    out_dir: str | Path,
    story: str,
    *,
    regions: bool = False,
    atlas: str | None = None,
    space: str | None = None,
) -> pd.DataFrame:
    """Load the paired comparisons of feature spaces.

    Parameters
    ----------
    out_dir, story, regions, atlas, space
        As for `load_ceilings`.

    Returns
    -------
    pandas.DataFrame
        One row a region and pair: ``region``, ``first``, ``second``, ``n_participants``,
        ``difference`` (mean of Fisher z, first less second), ``low`` and ``high`` (95 %
        interval), ``effect`` (Cohen's d), ``p``, ``q`` and ``p_fwe``.

    Raises
    ------
    MissingInputError
        Nothing was compared, or there are comparisons of several atlases.
    """
    return load_table(out_dir, story, "comparison", regions=regions, atlas=atlas, space=space)


def load_table(
    out_dir: str | Path,
    story: str,
    table: str,
    *,
    model: str | None = None,
    regions: bool = False,
    atlas: str | None = None,
    space: str | None = None,
) -> pd.DataFrame:
    """Load a table of a story.

    Parameters
    ----------
    out_dir, story, regions, atlas, space
        As for `load_ceilings`.
    table : str
        Of the group: ``comparison``, ``scores`` (participants' scores behind it),
        ``alignment`` (lags), ``heads``, ``components`` and ``associations`` (specialization).
        Of the story: ``decoding`` (of labels from heads), ``words``, ``tokens``.
    model : str, optional
        Label of the model; may be left out where there is one.

    Returns
    -------
    pandas.DataFrame
        As in the file; ``n/a`` is NaN, other texts stay. ``attrs`` has the sidecar where there
        is one, and the ``file``.

    Raises
    ------
    MissingInputError
        There is no such table, or several fit.
    ValueError
        The name of the table is unknown.
    """
    import pandas as pd

    if table not in TABLES:
        raise ValueError(f"table is {table!r}, expected one of {', '.join(TABLES)}")
    names = Names(out_dir)
    found = [
        (path, names.parse(path)[1])
        for path in names.find(TABLES[table], {"story": story, "ext": "tsv"})
    ]
    atlases = {labels["atlas"] for _, labels in found if "atlas" in labels}
    atlases |= {m.atlas for m in list_maps(out_dir, story=story)} if atlases else set()
    fits = [
        (path, labels)
        for path, labels in found
        if _fits_place(labels, {"atlas": atlas, "space": space})
        and model in (None, _model_of(labels))
        and ("atlas" not in labels or _is_of_regions(labels["atlas"], atlases) == regions)
    ]
    if len(fits) != 1:
        raise _not_one(names, story, table, [labels for _, labels in fits or found], fits)
    path = fits[0][0]
    made = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    sidecar = path.with_suffix(".json")
    made.attrs = write.read_json(sidecar) if sidecar.is_file() else {}
    made.attrs["file"] = names.relative(path)
    return made


def _fits_place(labels: dict[str, str], places: dict[str, str | None]) -> bool:
    """Tell whether a file belongs to an atlas and a space."""
    return all(value is None or labels.get(key) in (None, value) for key, value in places.items())


def _model_of(labels: dict[str, str]) -> str:
    """Return the label of the model in a file's name."""
    return labels.get("model") or labels.get("desc", "").removesuffix("Specialization")


def _is_of_regions(atlas: str, atlases: set[str]) -> bool:
    """Tell whether an atlas stands for the regions of interest of another one."""
    base = atlas.removesuffix(roi.ENDING)
    return base != atlas and base in atlases


def _not_one(
    names: Names,
    story: str,
    table: str,
    there: Sequence[dict[str, str]],
    fits: Sequence[object],
) -> MissingInputError:
    """Return the error for no or several tables."""
    words = [
        " ".join(f"{k}={v!r}" for k, v in labels.items() if k not in ("story", "ext"))
        for labels in there
    ]
    if words:
        what = f"is there {len(fits)} times" if fits else "is not there for these"
        return MissingInputError(
            f"Table {table} of story {story!r} {what}; found {'; '.join(words)}.",
            hint="Name one: load_table(..., model=..., regions=..., atlas=..., space=...).",
        )
    stories = {names.parse(p)[1]["story"] for p in names.find(TABLES[table], {"ext": "tsv"})}
    close = difflib.get_close_matches(story, sorted(stories), n=1)
    near = f" Did you mean {close[0]!r}?" if close else ""
    return MissingInputError(
        f"{names.root} has no table {table} of story {story!r}; it has it for the stories "
        f"{', '.join(sorted(stories)) or 'none'}.{near}",
        hint="Run the level that makes it: decoding with --decoding, the others at the group.",
    )
