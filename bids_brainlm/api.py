"""Read results from Python: every feature space of a story as a labelled array."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import MissingInputError

if TYPE_CHECKING:
    import xarray

ARRAYS = ("embeddings", "transformations")
HEAD = re.compile(r"L(\d+)H(\d+)")
OF_MODELS = {"features": "magnitudes", "attention": "attention", "surprisal": "surprisal"}


@dataclass(frozen=True, order=True)
class FeatureSpace:
    """A feature space that can be loaded: what to give to `load_features`."""

    story: str
    feature: str
    model: str | None


def list_features(out_dir: str | Path, story: str | None = None) -> list[FeatureSpace]:
    """List the feature spaces in an output folder.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    story : str, optional
        Only this one.

    Returns
    -------
    list of FeatureSpace
        Sorted.
    """
    names = Names(out_dir)
    return sorted({space for space, _ in _everything(names) if story in (None, space.story)})


def load_features(
    out_dir: str | Path, story: str, feature: str = "embeddings", *, model: str | None = None
) -> xarray.DataArray:
    """Load a feature space of a story.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    story : str
        As in the file names.
    feature : str
        ``embeddings``, ``transformations``, ``magnitudes``, ``attention``, ``surprisal``,
        ``static`` (word vectors, or a model's layer 0), ``linguistic``, ``phonemes``,
        ``words``, ``nuisance``, ``position``, ``acoustics``, ``oasm``, or any other recording;
        `list_features` tells which are there.
    model : str, optional
        Label of the model or of the vectors; may be left out where there is one.

    Returns
    -------
    xarray.DataArray
        First dimension ``tr``, with the coordinate ``time`` (s from the run's first volume).
        ``embeddings`` (tr, layer, unit), ``transformations`` (tr, layer, head, dim; layer 1 is
        the first block), ``magnitudes`` (tr, layer, head), ``attention`` (tr, measure, layer,
        head), ``static`` (tr, unit), others (tr, column). TRs without values are NaN.
        ``attrs`` say where it comes from (``files``, ``key``), what it is and how empty TRs
        are marked (``EmptyTRs``).

    Raises
    ------
    MissingInputError
        There is no such feature space, or several models have it.

    Examples
    --------
    >>> bids_brainlm.load_features("out", "black", "transformations")  # doctest: +SKIP
    <xarray.DataArray 'transformations' (tr: 534, layer: 12, head: 12, dim: 64)>
    """
    names = Names(out_dir)
    known = dict(_everything(names))
    if feature.startswith("stim-"):  # as --features has it
        feature = "stim" + feature[5:6].upper() + feature[6:]
    matches = [s for s in known if (s.story, s.feature) == (story, feature)]
    wanted = [s for s in matches if model in (None, s.model)]
    if len(wanted) != 1:
        raise _not_one(out_dir, story, feature, matches, known)
    paths = known[wanted[0]]
    if feature in ARRAYS or feature == "static":
        return _from_netcdf(names, wanted[0], paths[0])
    tables = [_from_stim(names, path) for path in paths]
    made = _by_head(feature, tables)
    return _finished(names, made, wanted[0], paths)


def _not_one(out_dir, story: str, feature: str, matches, known) -> MissingInputError:
    """Return the error for no or several matches, with what there is."""
    if matches:
        labels = sorted(str(s.model) for s in matches)
        return MissingInputError(
            f"{feature} of story {story!r} is there for the models {', '.join(labels)}.",
            hint=f"Name one: load_features(..., model={labels[0]!r}).",
        )
    there = sorted({s.feature for s in known if s.story == story})
    others = sorted({s.story for s in known})
    what = f"features {', '.join(there)}" if there else f"stories {', '.join(others) or 'none'}"
    return MissingInputError(
        f"{out_dir} has no {feature} of story {story!r}; found the {what}.",
        hint="Run the stimulus level with --features "
        f"{feature}, or choose one of list_features(out_dir).",
    )


def _everything(names: Names) -> Iterator[tuple[FeatureSpace, list[Path]]]:
    """Yield every feature space with its files; attention has one a measure.

    Files without a sidecar (of a run that was killed) are left out.
    """
    for path in names.find("features", {"ext": "nc"}):
        if not _sidecar_path(path).is_file():
            continue
        labels = names.parse(path)[1]
        heads = write.read_json(_sidecar_path(path)).get("Model", {}).get("HeadsReadable", True)
        for space in ARRAYS if heads else ARRAYS[:1]:
            yield FeatureSpace(labels["story"], space, labels["model"]), [path]
        yield FeatureSpace(labels["story"], "static", labels["model"]), [path]  # layer 0
    for path in names.find("story_features", {"ext": "nc"}):
        if _sidecar_path(path).is_file():
            labels = names.parse(path)[1]
            label = labels["desc"].removesuffix("Static")
            yield FeatureSpace(labels["story"], "static", label), [path]
    several: dict[FeatureSpace, list[Path]] = {}
    for path in names.find("stim", {"ext": "tsv.gz"}):
        if _sidecar_path(path).is_file():
            several.setdefault(_space_of(names, path), []).append(path)
    yield from several.items()


def _space_of(names: Names, path: Path) -> FeatureSpace:
    """Tell from its sidecar which feature space a recording belongs to."""
    labels, step = names.parse(path)[1], write.read_json(_sidecar_path(path)).get("Step", {})
    space = OF_MODELS.get(str(step.get("Name")))
    if space is None:
        return FeatureSpace(labels["story"], labels["recording"], None)
    return FeatureSpace(labels["story"], space, str(step.get("Facts", {}).get("label")))


def _from_netcdf(names: Names, space: FeatureSpace, path: Path) -> xarray.DataArray:
    """Load an array of a netCDF file."""
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf") as stored:
        if space.feature not in stored and space.feature != "static":
            raise MissingInputError(
                f"{path.name} has no {space.feature}: the heads of this model cannot be read.",
                hint="Choose a model whose architecture is known with --model.",
            )
        if space.feature == "static" and "static" not in stored:
            made = stored["embeddings"].sel(layer=0, drop=True).load()
        else:
            made = stored[space.feature].load()
    if "block" in made.dims:
        made = made.rename(block="layer")
    return _finished(names, made, space, [path])


def _sidecar_path(path: Path) -> Path:
    """Return the sidecar of a stim file or of a netCDF file."""
    stem = path.name.removesuffix(".tsv.gz").removesuffix(".nc")
    return path.with_name(f"{stem}.json")


def _sidecar(path: Path) -> Mapping[str, object]:
    """Read the sidecar of a stim file or of a netCDF file."""
    return write.read_json(_sidecar_path(path))


def _from_stim(names: Names, path: Path) -> xarray.DataArray:
    """Load a stim file as (tr, column)."""
    import xarray

    values, meta = write.read_stim_tsv_gz(path), _sidecar(path)
    n_trs = len(values)
    time = float(meta["StartTime"]) + np.arange(n_trs) / float(meta["SamplingFrequency"])
    coords = {"tr": np.arange(n_trs), "time": ("tr", time), "column": list(meta["Columns"])}
    made = xarray.DataArray(values, dims=("tr", "column"), coords=coords)
    made.attrs["measure"] = str(meta.get("Measure", ""))
    return made


def _by_head(feature: str, tables: list[xarray.DataArray]) -> xarray.DataArray:
    """Fold columns of heads into (layer, head), and files of measures into one array."""
    import xarray

    columns = [str(c) for c in tables[0]["column"].values]
    places = [HEAD.fullmatch(c) for c in columns]
    if not all(places):
        return tables[0]
    layers, heads = (sorted({int(p[k]) for p in places}) for k in (1, 2))
    folded = []
    for table in tables:
        values = table.to_numpy().reshape(len(table), len(layers), len(heads))
        coords = {"tr": table["tr"], "time": table["time"], "layer": layers, "head": heads}
        folded.append(xarray.DataArray(values, dims=("tr", "layer", "head"), coords=coords))
    if feature != "attention":
        return folded[0]
    measures = [t.attrs["measure"] for t in tables]
    joined = xarray.concat(folded, dim="measure").assign_coords(measure=measures)
    return joined.transpose("tr", "measure", "layer", "head")


def _finished(
    names: Names, made: xarray.DataArray, space: FeatureSpace, paths: list[Path]
) -> xarray.DataArray:
    """Name an array and say where it comes from."""
    meta = _sidecar(paths[0])
    made.name = space.feature
    made.attrs = {
        "story": space.story,
        "model": space.model or "",
        "files": [names.relative(path) for path in paths],
        "key": str(meta.get("Key", "")),
        "description": str(meta.get("Description", made.attrs.get("long_name", ""))),
        "EmptyTRs": str(meta.get("EmptyTRs", "0 where there is nothing")),
    }
    return made
