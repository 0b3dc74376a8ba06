"""Plan the stimulus and participant levels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bids_brainlm.bidsio import atlas as atlases
from bids_brainlm.bidsio import bold, write
from bids_brainlm.bidsio.describe import dataset_link
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.language import sources, transcripts
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.plan.records import Plan
from bids_brainlm.plan.selection import Selection, Story, select
from bids_brainlm.steps import encoding, features, parcels, words
from bids_brainlm.steps.base import Job, Unit, canonical

MODEL_FILES = ("config.json", "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
HEAD_SPACES = ("transformations", "magnitudes")


def plan(config: Config) -> Plan:
    """Find out what a stimulus or participant call has to make.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Plan

    Raises
    ------
    BrainLMError
        Any input that is needed is missing or cannot be used; nothing has been written.
    """
    names = Names(config.output_dir)
    participant_level = config.level == "participant"
    chosen = select(config, need_images=participant_level)
    models = _models(config)
    word_jobs = {s.name: _words(s, config, names) for s in chosen.stories}
    feature_jobs = {
        (s.name, m.label): _features(word_jobs[s.name], m, given, config, names)
        for s in chosen.stories
        for given, m in models.items()
    }
    stages: list[tuple[str, Sequence[Job]]] = [
        ("words", list(word_jobs.values())),
        ("features", list(feature_jobs.values())),
    ]
    participants: tuple[str, ...] = ()
    links: dict[str, str] = {}
    if participant_level:
        stages += _participant_stages(chosen, word_jobs, feature_jobs, config, names)
        participants = tuple(sorted({r.key[0] for s in chosen.stories for r in s.runs}))
        links = _links(chosen, config)
    return Plan(
        stages,
        participants,
        chosen.skipped,
        (),
        links,
        chosen.sources,
        _descriptions(feature_jobs.values(), config),
    )


def _models(config: Config) -> dict[str, sources.ModelSource]:
    """Resolve the models; each must have its own label."""
    execution = config.execution
    found = {
        given: sources.resolve(given, execution.models_dir or None, execution.offline)
        for given in config.features.model
    }
    labels = [m.label for m in found.values()]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"--model: two models are called {label!r}, expected different labels.",
                hint="Set a label with --model LABEL=NAME_OR_PATH.",
            )
    return found


def _words(story: Story, config: Config, names: Names) -> Job:
    """Plan the words of a story."""
    unit = Unit(story=story.name)
    timing, grid = story.timing, story.timing.grid()
    parsed = transcripts.parse(story.transcript.read_bytes(), story.transcript.name)
    return Job(
        step=words.NAME,
        version=words.VERSION,
        unit=unit,
        record=words.record(unit, names),
        outputs=words.outputs(unit, names, has_phones=parsed.has_phones),
        files={"transcript": story.transcript},
        facts={
            "stimulus": timing.stimulus,
            "audio_onset": timing.audio_onset,
            "story_onset": timing.story_onset,
            "story_duration": timing.story_duration,
            "tr": timing.tr,
            "first_volume": grid.first_volume,
            "n_trs": grid.n_trs,
            "start_time": grid.onset,
            "has_music": story.has_music,
            "has_phones": parsed.has_phones,
        },
        settings=asdict(words.params(config)),
        fingerprints={story.transcript.name: write.fingerprint(story.transcript)},
    )


def _features(
    word_job: Job, model: sources.ModelSource, given: str, config: Config, names: Names
) -> Job:
    """Plan the features of a story."""
    unit = Unit(story=word_job.unit.story, model=model.label)
    heads = model.config.get("model_type") in FAMILIES
    wanted = [space for space in config.features.features if space in HEAD_SPACES]
    if wanted and model.config and not heads:
        raise ConfigError(
            f"Model {model.name}: the heads of its architecture "
            f"({model.config.get('model_type')}) cannot be read, so {' '.join(wanted)} cannot be "
            "had.",
            hint="Use --features embeddings for this model.",
        )
    return Job(
        step=features.NAME,
        version=features.VERSION,
        unit=unit,
        record=features.record(unit, names),
        outputs=features.outputs(unit, names, heads=heads or not model.config),
        upstream=(word_job,),
        facts={"model": model.name, "kind": model.kind, "label": model.label},
        files={"given": Path(given)},
        settings=asdict(features.params(config)),
        fingerprints=_model_prints(model),
        group=("features", model.label),
    )


def _model_prints(model: sources.ModelSource) -> dict[str, str]:
    """Fingerprint the files of a model that decide its features."""
    if model.path is None:
        return {}
    kept = [p for p in sorted(model.path.iterdir()) if p.suffix == ".safetensors"]
    kept += [model.path / name for name in MODEL_FILES]
    if model.kind == "random":
        kept = [p for p in kept if p.suffix != ".safetensors"]
    return {p.name: write.fingerprint(p) for p in kept if p.is_file()}


def _participant_stages(
    chosen: Selection,
    word_jobs: Mapping[str, Job],
    feature_jobs: Mapping[tuple[str, str], Job],
    config: Config,
    names: Names,
) -> list[tuple[str, Sequence[Job]]]:
    """Plan parcels and encoding of all selected runs."""
    known: dict[str | None, atlases.Atlas] = {}
    parcel_jobs, nuisance, fits = [], [], []
    for story in chosen.stories:
        for run in sorted(story.runs, key=lambda r: tuple(str(k) for k in r.key)):
            image = chosen.images[run.key]
            if not config.inputs.voxelwise and image.space not in known:
                known[image.space] = atlases.resolve_atlas(
                    config.inputs.atlas, image.space, offline=config.execution.offline
                )
            series = _parcels(story, run, image, known.get(image.space), config, names)
            word_job = word_jobs[story.name]
            base = _encoding("nuisance", (word_job, series), series.unit, config, names)
            parcel_jobs.append(series)
            nuisance.append(base)
            for (name, _), feature_job in feature_jobs.items():
                if name != story.name:
                    continue
                fits += [
                    _encoding(
                        space, (word_job, feature_job, series, base), series.unit, config, names
                    )
                    for space in config.features.features
                ]
    return [("parcels", parcel_jobs), ("encoding", nuisance), ("encoding", fits)]


def _parcels(story, run, image, atlas, config, names) -> Job:
    """Plan the series of one run."""
    unit = Unit(
        story=story.name,
        participant=run.run.participant,
        session=run.run.session,
        run=run.run.run,
        task=run.task,
        space=image.space or "func",
        atlas="voxels" if atlas is None else atlas.label,
    )
    grid = story.timing.grid()
    own = type(grid)(round(run.story_onset // run.tr) if run.story_onset > 0 else 0, 1, run.tr)
    files = {"bold": image.path}
    optional = {
        "mask": image.mask if atlas is None else None,
        "confounds": image.confounds_tsv,
        "confounds_json": image.confounds_json,
    }
    files.update({k: v for k, v in optional.items() if v is not None and bold.is_present(v)})
    _check_confounds(image, files, config)
    atlas_files = {} if atlas is None else {"atlas": atlas.path}
    uris = [
        f"bids:{image.dataset}:{path.relative_to(image.root).as_posix()}"
        for name, path in files.items()
        if path.is_relative_to(image.root) and name != "mask"
    ]
    return Job(
        step=parcels.NAME,
        version=parcels.VERSION,
        unit=unit,
        record=parcels.record(unit, names),
        outputs=parcels.outputs(unit, names, voxelwise=atlas is None),
        files=files if atlas is None else {**files, "atlas": Path(config.inputs.atlas)},
        facts={
            "tr": run.tr,
            "first_volume": own.first_volume,
            "n_trs": grid.n_trs,
            "desc": image.desc,
            "atlas": None if atlas is None else atlas.label,
            "parcels": None if atlas is None else _parcel_table(atlas),
            "uris": uris,
        },
        settings=asdict(parcels.params(config)),
        fingerprints={
            path.name: write.fingerprint(path) for path in {**files, **atlas_files}.values()
        },
        group="parcels",
    )


def _parcel_table(atlas: atlases.Atlas) -> str:
    """Hash the names of the parcels; where the files lie does not matter."""
    table = [atlas.index.tolist(), atlas.names, atlas.hemispheres, atlas.networks, atlas.anatomical]
    return hashlib.sha256(canonical(table).encode()).hexdigest()


def _check_confounds(image: bold.BoldRun, files: Mapping[str, Path], config: Config) -> None:
    """Refuse early when the confound table is needed and missing."""
    if image.desc == "clean" or config.inputs.denoise == "none" or "confounds" in files:
        return
    if image.confounds_tsv is not None:
        bold.require_present(image.confounds_tsv, "confounds table")
    raise MissingInputError(
        f"{image.path}: found no confounds table (*_desc-confounds_timeseries.tsv or "
        "_regressors.tsv) for this uncleaned image.",
        hint="Add the fMRIPrep folder to --derivatives, or use --denoise none.",
    )


def _encoding(
    feature: str, upstream: tuple[Job, ...], base: Unit, config: Config, names: Names
) -> Job:
    """Plan the maps of one run and feature space."""
    word_job = upstream[0]
    model = upstream[1].unit.model if feature != "nuisance" else None
    unit = Unit(**{**asdict(base), "model": model, "feature": feature})
    bands = ["silence", "counts"] + (["phonemes"] if word_job.facts["has_phones"] else [])
    layers = list(config.features.layers) if feature in ("embeddings", "transformations") else []
    return Job(
        step=encoding.NAME,
        version=encoding.VERSION,
        unit=unit,
        record=encoding.record(unit, names),
        outputs=encoding.outputs(unit, names, bands),
        upstream=upstream,
        facts={"tr": word_job.facts["tr"], "layers": layers},
        settings=asdict(encoding.params(config)),
        group=("encoding", unit.story, unit.space, unit.atlas, model, feature),
    )


def _links(chosen: Selection, config: Config) -> dict[str, str]:
    """Return the DatasetLinks of the output: where its sources lie, relative to it."""
    out = config.output_dir
    links = {"raw": dataset_link(config.bids_dir, out)}
    for image in chosen.images.values():
        links[image.dataset] = dataset_link(image.root, out)
    return links


def _descriptions(jobs, config: Config) -> dict[str, str]:
    """Explain every ``desc`` label."""
    found = {
        "nuisance": "encoding model of silence, word counts and, where known, phonemes",
        "participants": "one column a participant",
    }
    for job in jobs:
        for space in config.features.features:
            label = encoding.desc(Unit(model=job.unit.model, feature=space))
            found[label] = (
                f"encoding model of the {space} of {job.facts['model']} ({job.facts['kind']}) "
                "with nuisance bands"
            )
    return found
