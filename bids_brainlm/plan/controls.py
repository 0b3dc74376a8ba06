"""Plan static vectors and controls of the stories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bids_brainlm.bidsio import audio, stim_files, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import STIM, Config, base_space
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.language import pipelines, vector_sources
from bids_brainlm.plan.records import Skip
from bids_brainlm.plan.selection import Story
from bids_brainlm.steps import controls, static
from bids_brainlm.steps.base import Job, Unit

Spaces = dict[tuple[str, str | None, str], Job]


def plan_static(
    word_jobs: Mapping[str, Job],
    taken: Sequence[str],
    spaces: Spaces,
    config: Config,
    names: Names,
) -> list[Job]:
    """Plan static embeddings from files of word vectors.

    Parameters
    ----------
    word_jobs : mapping of str to Job
        By story.
    taken : sequence of str
        Labels of the models, which vectors may not have.
    spaces : dict
        Gets an entry for each story and file.
    config : Config
    names : Names

    Returns
    -------
    list of Job

    Raises
    ------
    ConfigError
        Two files, or a file and a model, have one label.
    MissingInputError
        A file is missing.
    """
    found = [vector_sources.resolve(given) for given in config.features.static_vectors]
    labels = [source.label for source in found]
    for label in labels:
        if labels.count(label) > 1 or label in taken:
            raise ConfigError(
                f"--static-vectors: the label {label!r} is used twice, expected a different one "
                "for each file and model.",
                hint="Set a label with --static-vectors LABEL=PATH.",
            )
    made = []
    for given, source in zip(config.features.static_vectors, found, strict=True):
        content = pipelines.fingerprint if source.is_pipeline else write.sha256_file
        digest = content(source.path)
        for story, word_job in word_jobs.items():
            unit = Unit(story=story, model=source.label)
            job = Job(
                step=static.NAME,
                version=static.VERSION,
                unit=unit,
                record=static.record(unit, names),
                outputs=static.outputs(unit, names),
                upstream=(word_job,),
                facts={"model": source.name, "kind": "static vectors", "label": source.label},
                files={"vectors": Path(given)},
                settings=asdict(static.params(config)),
                fingerprints={"vectors": digest},
                group=(static.NAME, source.label),
            )
            made.append(job)
            spaces[story, source.label, "static"] = job
    return made


def plan_controls(
    word_jobs: Mapping[str, Job],
    stories: Sequence[Story],
    spaces: Spaces,
    config: Config,
    names: Names,
) -> tuple[list[Job], list[Skip]]:
    """Plan position, OASM, acoustics and the dataset's own recordings, as far as asked for.

    Parameters
    ----------
    word_jobs : mapping of str to Job
        By story.
    stories : sequence of Story
    spaces : dict
        Gets an entry for each story and control.
    config : Config
    names : Names

    Returns
    -------
    jobs : list of Job
    skipped : list of Skip
        Spaces of ``--features`` in stories that lack their input, where others have it.

    Raises
    ------
    MissingInputError
        An audio file or a recording is missing.
    """
    asked = dict.fromkeys(map(base_space, (*config.features.features, *config.encoding.bands)))
    kinds = [s for s in asked if s in ("acoustics", "position", "oasm") or s.startswith(STIM)]
    made: list[Job] = []
    skipped: list[Skip] = []
    for kind in kinds:
        lacking = []
        for story in stories:
            try:
                job = control_job(story, kind, word_jobs[story.name], config, names)
            except MissingInputError as error:
                lacking.append((story, error))
                continue
            made.append(job)
            spaces[story.name, None, kind] = job
        skipped += _without(kind, lacking, stories, config)
    return made, skipped


def _without(
    kind: str,
    lacking: Sequence[tuple[Story, MissingInputError]],
    stories: Sequence[Story],
    config: Config,
) -> list[Skip]:
    """Go on without a feature space in stories that lack its input, where others have it."""
    if not lacking:
        return []
    named = {t.removeprefix("task-") for t in config.inputs.task_label}
    wanted = [(s, e) for s, e in lacking if s.name in named]
    if kind in config.encoding.bands or wanted or len(lacking) == len(stories):
        error = (wanted or lacking)[0][1]
        others = [s.name for s in stories if s.name not in {one.name for one, _ in lacking}]
        only = f" Or choose the stories that have it: --task-label {' '.join(others)}."
        raise MissingInputError(error.message, hint=f"{error.hint}{only if others else ''}")
    return [Skip(f"{kind} of story {story.name}", error.message) for story, error in lacking]


def control_job(story: Story, kind: str, word_job: Job, config: Config, names: Names) -> Job:
    """Plan one control of one story; settings of other controls do not count.

    Parameters
    ----------
    story : Story
    kind : str
        ``acoustics``, ``position``, ``oasm`` or ``stim-RECORDING``.
    word_job : Job
    config : Config
    names : Names

    Returns
    -------
    Job

    Raises
    ------
    MissingInputError
        An audio file or a recording is missing.
    """
    unit = Unit(story=story.name, feature=kind)
    files, facts = _inputs(story, kind, config)
    owner = {"mel_bands": "acoustics", "oasm_sigma": "oasm"}
    settings = asdict(controls.params(config))
    prints = {path.name: f"sha256:{write.sha256_file(path)}" for path in files.values()}
    for path in stim_files.sidecars_of(files["stim"]) if "stim" in files else ():
        prints[f"{path.parent.name}/{path.name}"] = write.fingerprint(path)
    return Job(
        step=controls.NAME,
        version=controls.VERSION,
        unit=unit,
        record=controls.record(unit, names),
        outputs=controls.outputs(unit, names),
        upstream=(word_job,),
        files=files,
        facts=facts,
        settings={k: v if owner[k] == kind else None for k, v in settings.items()},
        fingerprints=prints,
        group=controls.NAME,
    )


def _inputs(story: Story, kind: str, config: Config) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the input files of a control, and what its times count from."""
    if kind == "acoustics":
        return {"audio": _audio(story, config)}, {}
    if kind.startswith(STIM):
        found = _recording(story, kind.removeprefix(STIM), config)
        return {"stim": found.path}, {"clock": found.clock}
    return {}, {}


def _recording(story: Story, recording: str, config: Config) -> stim_files.StimFile:
    """Return the dataset's recording of a story that belongs to all participants."""
    tasks = sorted({run.task for run in story.runs})
    labels = tuple(dict.fromkeys([story.name, story.timing.stimulus, *tasks]))
    known = stim_files.find_stims(config.bids_dir, labels, recording, shared_only=True)
    found = stim_files.choose(known, recording, labels=labels)
    if found is None:
        raise MissingInputError(
            f"stim-{recording}: found no recording {recording!r} of story {story.name!r} for all "
            f"participants in {config.bids_dir} (a _stim.tsv.gz at its root or in stimuli).",
            hint="Check the name behind stim- in --features and --bands.",
        )
    if not found.present:
        raise MissingInputError(
            f"{found.path} is a link without content.", hint=f"Run: datalad get {found.path}"
        )
    return found


def _audio(story: Story, config: Config) -> Path:
    """Return the audio file of a story."""
    folder = Path(config.stimulus.audio or config.bids_dir)
    search = audio.find_audio(folder, story.timing.stimulus)
    if search.path is not None and search.present:
        return search.path
    if search.path is not None:
        raise MissingInputError(
            f"{search.path}: the audio file is a link without content.",
            hint=f"Run: datalad get {search.path}",
        )
    raise MissingInputError(
        f"Story {story.name!r}: found no audio file of {story.timing.stimulus!r} in {folder}; "
        f"looked for {', '.join(search.looked_for[:4])} ...",
        hint="Give the folder of the audio files with --audio, or leave acoustics out of "
        "--features and --bands.",
    )
