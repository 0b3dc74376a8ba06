"""Words on the TR grid to language-model features, once per story and model."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import measures, models
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, plain, stamp

NAME = "features"
VERSION = 1
# The number of threads can change the last bits of a forward pass, so it is no setting.
TORCH_THREADS = 2


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    context_trs: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.features.context_trs, config.encoding.seed)


def outputs(unit: Unit, names: Names, *, heads: bool) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"features": unit.place(names, "features", "nc")}
    if heads:
        labels = {"recording": f"{unit.model}Magnitudes"}
        found["magnitudes"] = unit.place(names, "stim", "tsv.gz", labels)
        found["magnitudes_json"] = unit.place(names, "stim", "json", labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "features", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Extract the features of several stories with one model."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(TORCH_THREADS)
    try:
        return _run(jobs, settings, resources)
    finally:
        torch.set_num_threads(before)


def _run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Load the model and work through the stories."""
    try:
        model = models.load(
            models.resolve(
                str(jobs[0].files["given"]),
                models_dir=resources.models_dir,
                offline=resources.offline,
            ),
            seed=settings.seed,
            device=resources.device,
        )
    except BrainLMError as error:
        return [Outcome(job, error) for job in jobs]
    return [_guarded(job, settings, model, resources) for job in jobs]


def _guarded(job: Job, settings: Params, model: models.LanguageModel, resources) -> Outcome:
    """Run one story and keep its error."""
    try:
        return Outcome(job, warnings=tuple(_story(job, settings, model, resources)))
    except BrainLMError as error:
        return Outcome(job, error)


def _story(job: Job, settings: Params, model: models.LanguageModel, resources) -> list[str]:
    """Write the features of one story."""
    words = job.upstream[0]
    texts = row_texts(words.outputs["words"], int(words.facts["n_trs"]))
    found = measures.extract(
        model,
        texts,
        context_trs=settings.context_trs,
        progress=lambda done, total: resources.progress(f"{job.unit}: {done}/{total} TRs"),
    )
    grid = {"StartTime": words.facts["start_time"], "RepetitionTime": words.facts["tr"]}
    warnings = []
    if found.n_truncated:
        warnings.append(
            f"{job.unit}: {found.n_truncated} text windows were longer than the model's "
            f"{model.max_tokens} tokens; their oldest words were cut."
        )
    write.write_netcdf(job.outputs["features"], _dataset(found, grid))
    if "magnitudes" in job.outputs:
        _write_magnitudes(job, found, grid)
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": describe(model, settings.context_trs),
            "Pooling": "mean over the tokens of a TR",
            "EmptyTRs": "NaN; filled in the encoding step (setting silence)",
            "NumberOfTokens": int(found.n_tokens.sum()),
            "NumberOfEmptyTRs": int((found.n_tokens == 0).sum()),
            "NumberTruncated": int(found.n_truncated),
            **grid,
            "Warnings": warnings,
        },
    )
    return warnings


def row_texts(path: Path, n_trs: int) -> list[str]:
    """Read words.tsv and return the text of every row (empty for silent TRs)."""
    rows: list[list[str]] = [[] for _ in range(n_trs)]
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            if line["row"] != "n/a":
                rows[int(line["row"])].append(line["word"])
    return [" ".join(words) for words in rows]


def describe(model: models.LanguageModel, context_trs: int) -> dict[str, object]:
    """Describe a model for sidecars."""
    return {
        "Label": model.source.label,
        "Name": model.source.name,
        "Kind": model.source.kind,
        "Architecture": model.architecture,
        "Revision": model.revision,
        "Sha256": model.sha256,
        "TokenizerSha256": model.tokenizer_sha256,
        "NumberOfLayers": model.n_layers,
        "NumberOfHeads": model.n_heads,
        "NumberOfUnits": model.n_dims,
        "Causal": model.causal,
        "ContextTRs": context_trs,
    }


def head_names(n_layers: int, n_heads: int) -> list[str]:
    """Return the column names of heads, ``L01H01`` first."""
    return [
        f"L{layer:02d}H{head:02d}"
        for layer in range(1, n_layers + 1)
        for head in range(1, n_heads + 1)
    ]


def _dataset(found: measures.Features, grid: Mapping[str, object]):
    """Put the arrays into a labelled dataset."""
    import xarray

    n_trs, n_states, _ = found.embeddings.shape
    time = float(grid["StartTime"]) + np.arange(n_trs) * float(grid["RepetitionTime"])
    arrays = {
        "embeddings": (("tr", "layer", "unit"), found.embeddings),
        "n_tokens": (("tr",), found.n_tokens.astype("int32")),
        "n_context_tokens": (("tr",), found.n_context_tokens.astype("int32")),
    }
    coords = {
        "tr": np.arange(n_trs, dtype="int32"),
        "layer": np.arange(n_states, dtype="int32"),
        "time": (("tr",), time),
    }
    if found.transformations is not None:
        n_blocks = found.transformations.shape[1]
        arrays["transformations"] = (("tr", "block", "head", "dim"), found.transformations)
        coords["block"] = np.arange(1, n_blocks + 1, dtype="int32")
    made = xarray.Dataset(arrays, coords=coords)
    made.attrs.update(plain(dict(grid)))
    return made


def _write_magnitudes(job: Job, found: measures.Features, grid: Mapping[str, object]) -> None:
    """Write one column a head: the L2 norm of the TR's mean transformation."""
    n_trs, n_layers, n_heads = found.magnitudes.shape
    write.write_stim_tsv_gz(job.outputs["magnitudes"], found.magnitudes.reshape(n_trs, -1))
    write.write_json(
        job.outputs["magnitudes_json"],
        {
            "Columns": head_names(n_layers, n_heads),
            "StartTime": grid["StartTime"],
            "SamplingFrequency": 1 / float(grid["RepetitionTime"]),
            "Story": job.unit.story,
            "Description": "L2 norm of the token-mean transformation of each attention head",
            "Settings": plain(asdict(Params(**job.settings))),
            **stamp(job),
        },
    )
