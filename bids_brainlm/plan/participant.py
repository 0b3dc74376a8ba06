"""Plan the stimulus and participant levels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial as bound
from pathlib import Path

from bids_brainlm.bidsio import atlas as atlases
from bids_brainlm.bidsio import bold, spaces, surface_atlas, write
from bids_brainlm.bidsio.describe import dataset_link
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import EACH, Config, base_space
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.plan.across import Heard, across_jobs
from bids_brainlm.plan.ladder import ladder_jobs
from bids_brainlm.plan.records import Plan
from bids_brainlm.plan.selection import Selection, select
from bids_brainlm.plan.stories import StoryJobs, plan_stories
from bids_brainlm.steps import across, encoding, encoding_columns, heads, ladder, parcels, partial
from bids_brainlm.steps.base import Job, Later, Unit, canonical, made_by

PAIR = encoding_columns.LAYERED


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
    story_jobs = plan_stories(chosen.stories, config, names)
    stages = list(story_jobs.stages)
    participants: tuple[str, ...] = ()
    links: dict[str, str] = {}
    if participant_level:
        stages += _participant_stages(chosen, story_jobs, config, names)
        participants = tuple(sorted({r.key[0] for s in chosen.stories for r in s.runs}))
        links = _links(chosen, config)
    return Plan(
        stages,
        participants,
        (*chosen.skipped, *story_jobs.skipped),
        (),
        links,
        chosen.sources,
        _descriptions(story_jobs, config, participant_level=participant_level),
    )


def _participant_stages(
    chosen: Selection,
    story_jobs: StoryJobs,
    config: Config,
    names: Names,
) -> list[tuple[str, Sequence[Job]]]:
    """Plan parcels and encoding of all selected runs."""
    known: dict[str | None, atlases.Atlas] = {}
    parcel_jobs, nuisance, fits, partials, ladders = [], [], [], [], []
    heard: list[Heard] = []
    for story in chosen.stories:
        for run in sorted(story.runs, key=lambda r: tuple(str(k) for k in r.key)):
            image = chosen.images[run.key]
            if config.inputs.voxelwise:
                surface_atlas.require_dense(image.path)
            elif image.space not in known:
                known[image.space] = surface_atlas.find_atlas(
                    config.inputs.atlas, image.path, image.space, offline=config.execution.offline
                )
            series = _parcels(story, run, image, known.get(image.space), config, names)
            parcel_jobs.append(series)
            words, spaces = story_jobs.words[story.name], story_jobs.of(story.name)
            one = Heard(words, series, spaces, *_nuisance(words, spaces, config))
            heard.append(one)
            base, own = _fits(one, config, names)
            nuisance.append(base)
            fits += own
            partials += _partials(own, config, names)
            every = story_jobs.for_ladder(story.name)
            ladders += ladder_jobs(words, series, every, config, names)
    stages: list[tuple[str, Sequence[Job]]] = [
        ("parcels", parcel_jobs),
        ("encoding", nuisance),
        ("encoding", [job for job in fits if job.step == encoding.NAME]),
        ("heads", [job for job in fits if job.step == heads.NAME]),
    ]
    across = [("across", jobs) for jobs in across_jobs(heard, config, names)]
    more = [("partial", partials), ("ladder", ladders), *across]
    return stages + [(step, jobs) for step, jobs in more if jobs]


def _parcels(story, run, image, atlas, config, names) -> Job:
    """Plan the series of one run."""
    unit = Unit(
        story=story.name,
        participant=run.run.participant,
        session=run.run.session,
        run=run.run.run,
        task=run.task,
        space=image.space or "func",
        atlas=spaces.everywhere(image.space) if atlas is None else atlas.label,
    )
    grid = story.timing.grid()
    own = type(grid)(round(run.story_onset // run.tr) if run.story_onset > 0 else 0, 1, run.tr)
    files = {"bold": image.path}
    optional = {
        "bold_right": image.right,
        "mask": image.mask if atlas is None else None,
        "confounds": image.confounds_tsv,
        "confounds_json": image.confounds_json,
    }
    files.update({k: v for k, v in optional.items() if v is not None and bold.is_present(v)})
    _check_confounds(image, files, config)
    atlas_files = {} if atlas is None else _atlas_files(atlas)
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
        outputs=Later(bound(parcels.outputs, unit, names, voxelwise=atlas is None)),
        files={**files, **_atlas_asked_for(atlas, config)},
        facts={
            "tr": run.tr,
            "first_volume": own.first_volume,
            "n_trs": grid.n_trs,
            "desc": image.desc,
            "atlas": None if atlas is None else atlas.label,
            "parcels": None if atlas is None else _parcel_table(atlas),
            "uris": uris,
        },
        settings=vars(parcels.params(config)),
        fingerprints={
            name: write.fingerprint(path)
            for name, path in {**{p.name: p for p in files.values()}, **atlas_files}.items()
        },
        group="parcels",
    )


def _atlas_files(atlas: atlases.Atlas) -> dict[str, Path]:
    """Return the files of an atlas by name, with their folders where names are equal."""
    names = [path.name for path in atlas.paths]
    alike = len(set(names)) < len(names)
    return {f"{p.parent.name}/{p.name}" if alike else p.name: p for p in atlas.paths}


def _atlas_asked_for(atlas: atlases.Atlas | None, config: Config) -> dict[str, Path]:
    """Return the atlas as it was asked for, and the image that brings its parcels, if one does."""
    if atlas is None:
        return {}
    own = {} if atlas.paths else {"parcels_of": atlas.path}
    return {"atlas": Path(config.inputs.atlas), **own}


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


def _nuisance(
    words: Job, known: Mapping[tuple[str | None, str], Job], config: Config
) -> tuple[list[str], dict[str, Job]]:
    """Return the nuisance bands of a story, and the jobs that make those that need one."""
    bands = [b for b in config.encoding.bands if b != "phonemes" or words.facts["has_phones"]]
    aids = {}
    for band in bands:
        makers = [job for (_, space), job in known.items() if space == band]
        if len(makers) > 1:
            raise ConfigError(
                f"--bands {band} can come from {len(makers)} models, expected one.",
                hint="Give one --model, or one file with --static-vectors.",
            )
        if makers:
            aids[band] = makers[0]
    return bands, aids


def _fits(heard: Heard, config: Config, names: Names) -> tuple[Job, list[Job]]:
    """Plan the maps of one run: the model of nuisance bands, and one of each feature space."""
    first = (heard.words, heard.series)
    base = _encoding("nuisance", None, first, heard.aids, heard.bands, config, names)
    fits = []
    for space in config.features.features:
        for (label, name), job in heard.known.items():
            if name == base_space(space):
                upstream = (*first, base, job)
                made = {**heard.aids, space: job}
                fits.append(_encoding(space, label, upstream, made, heard.bands, config, names))
    return base, fits


def _partials(fits: Sequence[Job], config: Config, names: Names) -> list[Job]:
    """Plan the partial correlations of one run, for models with both layered spaces."""
    made = []
    for first in fits if config.encoding.predictions else ():
        for second in fits:
            spaces = (first.unit.feature, second.unit.feature)
            if first.unit.model != second.unit.model or set(spaces) != set(PAIR):
                continue
            made.append(
                Job(
                    step=partial.NAME,
                    version=partial.VERSION,
                    unit=first.unit,
                    record=partial.record(first.unit, names),
                    outputs=Later(bound(partial.outputs, first.unit, names)),
                    upstream=(first, second, made_by(first, "parcels")),
                    facts={
                        "other": second.unit.feature,
                        "sources": sorted(names.uri(job.record) for job in (first, second)),
                    },
                    settings=vars(partial.params(config)),
                    group=(partial.NAME, first.unit.story, first.unit.space, first.unit.atlas),
                )
            )
    return made


def _encoding(
    feature: str,
    label: str | None,
    upstream: tuple[Job, ...],
    spaces: Mapping[str, Job],
    bands: Sequence[str],
    config: Config,
    names: Names,
) -> Job:
    """Plan the maps of one run and feature space; ``spaces`` are the jobs that make its bands."""
    word_job, series = upstream[:2]
    unit = replace(series.unit, model=label, feature=feature)
    step = heads if feature == "heads" else encoding
    predicts = config.encoding.predictions
    more = {} if feature == "heads" else {"bands": bands, "predictions": predicts}
    layers = list(config.features.layers) if feature in encoding_columns.LAYERED else []
    return Job(
        step=step.NAME,
        version=step.VERSION,
        unit=unit,
        record=step.record(unit, names),
        outputs=Later(bound(step.outputs, unit, names, **more)),
        upstream=tuple({job.record: job for job in (*upstream, *spaces.values())}.values()),
        facts={
            "tr": word_job.facts["tr"],
            "layers": layers,
            "spaces": {space: job.step for space, job in spaces.items()},
            "sources": sorted({names.uri(j.record) for j in (word_job, *spaces.values())}),
        },
        settings=vars(step.params(config)),
        group=(step.NAME, unit.story, unit.space, unit.atlas, label, feature),
    )


def _links(chosen: Selection, config: Config) -> dict[str, str]:
    """Return the DatasetLinks of the output: where its sources lie, relative to it."""
    out = config.output_dir
    roots = {image.dataset: image.root for image in chosen.images.values()}
    links = {"raw": dataset_link(config.bids_dir, out)}
    return links | {name: dataset_link(root, out) for name, root in roots.items()}


def _descriptions(
    story_jobs: StoryJobs, config: Config, *, participant_level: bool
) -> dict[str, str]:
    """Explain every ``desc`` label."""
    bands = ", ".join(config.encoding.bands)
    found = {}
    if participant_level:
        found = {
            "nuisance": f"encoding model of the nuisance bands ({bands}), as far as known",
            "participants": "one column a participant",
        }
    for (_, label, space), job in story_jobs.spaces.items():
        of = f" of {job.facts['model']} ({job.facts['kind']})" if "model" in job.facts else ""
        if label is not None and job.step != "static":
            found[label] = f"features{of}, in figures"
        if not participant_level and job.step != "static":
            continue
        desc = encoding.desc(Unit(model=label, feature=space))
        found[desc] = f"encoding model of {space}{of} with nuisance bands"
        if participant_level:
            found.update(_across_descriptions(desc, config))
        found.update(_more_descriptions(label, space, of, config))
        if config.encoding.ladder != "none" and participant_level and space == "embeddings":
            found[f"{label}{ladder.ENDING}"] = f"control ladder up to {space}{of}"
        if job.step == "static":
            found[desc] = f"static word vectors{of}, and the encoding model of them"
    return found


def _across_descriptions(desc: str, config: Config) -> dict[str, str]:
    """Explain the labels of models across stories and runs."""
    return {
        f"{desc}{across.ENDINGS[scheme]}": f"{desc}, fitted on other {scheme} than the tested one"
        for scheme in config.encoding.across
        if scheme in across.ENDINGS
    }


def _more_descriptions(label: str | None, space: str, of: str, config: Config) -> dict[str, str]:
    """Explain the labels of single features and of partial correlations."""
    found = {}
    if space + EACH in config.features.features:
        desc = encoding.desc(Unit(model=label, feature=space + EACH))
        found[desc] = f"encoding models of every single feature of {space}{of}"
    if config.encoding.predictions and space in PAIR:
        desc = partial.desc(Unit(model=label, feature=space))
        found[desc] = f"partial correlation with {space}{of}, given the other layered space"
    return found
