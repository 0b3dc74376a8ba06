"""Plan what belongs to the stories: words, language models, linguistics, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import bold, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import MODEL_SPACES, NUISANCE_BANDS, Config
from bids_brainlm.errors import ConfigError
from bids_brainlm.language import pipelines, sources, transcripts
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.numerics import folds
from bids_brainlm.plan.controls import plan_controls, plan_static
from bids_brainlm.plan.selection import Story
from bids_brainlm.steps import (
    attention,
    features,
    linguistic,
    representations,
    surprisal,
    words,
)
from bids_brainlm.steps.base import Job, Unit

MODEL_FILES = ("config.json", "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
HEAD_SPACES = ("transformations", "magnitudes")
TRANSCRIPT = "transcript.txt"
GROWING = "Growing"  # behind a model's label: the two contexts never share a name


@dataclass
class StoryJobs:
    """The jobs of all stories.

    Attributes
    ----------
    words : dict of str to Job
        By story.
    stages : list of (step, jobs)
        In order of work.
    spaces : dict of (story, label, space) to Job
        The job that makes a feature space; the label is that of the model or of the vectors,
        None for what has neither.
    """

    words: dict[str, Job]
    stages: list[tuple[str, Sequence[Job]]] = field(default_factory=list)
    spaces: dict[tuple[str, str | None, str], Job] = field(default_factory=dict)

    def add(self, step: str, jobs: Sequence[Job]) -> None:
        """Add a stage, unless it is empty."""
        if jobs:
            self.stages.append((step, list(jobs)))

    def of(self, story: str) -> dict[tuple[str | None, str], Job]:
        """Return the jobs of one story by label and space."""
        return {key[1:]: job for key, job in self.spaces.items() if key[0] == story}


@dataclass(frozen=True)
class _Model:
    """A model as the user gave it, and what it is."""

    given: str
    source: sources.ModelSource
    label: str


def plan_stories(stories: Sequence[Story], config: Config, names: Names) -> StoryJobs:
    """Plan everything that belongs to the stories.

    Parameters
    ----------
    stories : sequence of Story
    config : Config
    names : Names

    Returns
    -------
    StoryJobs

    Raises
    ------
    BrainLMError
        A model, pipeline, vector file, audio file or recording that is asked for is missing or
        cannot be used.
    """
    jobs = StoryJobs({s.name: _words(s, config, names) for s in stories})
    jobs.add("words", list(jobs.words.values()))
    asked = config.features.features
    wanted = {*asked, *config.encoding.bands} - set(NUISANCE_BANDS)
    models = _models(config) if _needs_models(config) else []
    _plan_models(jobs, models, config, names)
    if "linguistic" in wanted:
        _plan_linguistic(jobs, stories, config, names)
    if "static" in wanted and config.features.static_vectors:
        taken = [m.label for m in models]
        jobs.add("static", plan_static(jobs.words, taken, jobs.spaces, config, names))
    jobs.add("controls", plan_controls(jobs.words, stories, jobs.spaces, config, names))
    return jobs


def _needs_models(config: Config) -> bool:
    """Tell whether any feature space or band comes from language models."""
    wanted = {*config.features.features, *config.encoding.bands}
    return bool(wanted & set(MODEL_SPACES)) or (
        "static" in wanted and not config.features.static_vectors
    )


def _models(config: Config) -> list[_Model]:
    """Resolve the models; each must have its own label."""
    execution, growing = config.execution, config.features.context == "growing"
    found = []
    for given in config.features.model:
        source = sources.resolve(given, execution.models_dir or None, execution.offline)
        found.append(_Model(given, source, source.label + (GROWING if growing else "")))
    labels = [m.label for m in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"--model: two models are called {label!r}, expected different labels.",
                hint="Set a label with --model LABEL=NAME_OR_PATH.",
            )
    if growing:
        for model in found:
            _require_causal(model, "--context growing")
    return found


def _causal(model: _Model) -> bool | None:
    """Tell whether a model is causal; None where its files are not at hand yet."""
    family = FAMILIES.get(str(model.source.config.get("model_type", "")))
    if family is None:
        return None
    return family.causal or bool(model.source.config.get("is_decoder", False))


def _require_causal(model: _Model, what: str) -> None:
    """Refuse a bidirectional model."""
    if _causal(model) is False:
        raise ConfigError(
            f"{what} needs a causal model, found {model.source.name} "
            f"({model.source.config.get('model_type')}), which is bidirectional.",
            hint="Choose a causal model with --model, e.g. gpt2.",
        )


def _words(story: Story, config: Config, names: Names) -> Job:
    """Plan the words of a story."""
    unit = Unit(story=story.name)
    timing, grid = story.timing, story.timing.grid()
    parsed = transcripts.parse(story.transcript.read_bytes(), story.transcript.name)
    files = {"transcript": story.transcript}
    prints = {story.transcript.name: write.fingerprint(story.transcript)}
    given = config.stimulus.pronunciations
    if given:
        words.pronunciations_path(given)  # missing: said even where the phones are known
    estimated = bool(given) and not parsed.has_phones
    if estimated:
        files["pronunciations"] = Path(given)
        prints["pronunciations"] = write.fingerprint(words.pronunciations_path(given))
    return Job(
        step=words.NAME,
        version=words.VERSION,
        unit=unit,
        record=words.record(unit, names),
        outputs=words.outputs(unit, names, has_phones=parsed.has_phones or estimated),
        files=files,
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
            "has_phones": parsed.has_phones or estimated,
            "phones": "estimated" if estimated else "aligned" if parsed.has_phones else "none",
        },
        settings=asdict(words.params(config)),
        fingerprints=prints,
    )


def _borders(n_trs: int, config: Config) -> list[int]:
    """Return the rows at which the context starts anew: none, or the outer folds' first rows."""
    if config.features.context_borders == "story":
        return []
    first, last = config.encoding.trim
    outer = folds.contiguous_folds(np.arange(first, n_trs - last), config.encoding.cv, 0)
    return [int(fold.test[0]) for fold in outer[1:]]


def _plan_models(jobs: StoryJobs, models: Sequence[_Model], config: Config, names: Names) -> None:
    """Plan what comes from language models."""
    asked = config.features.features
    own = MODEL_SPACES[:3] if config.features.static_vectors else (*MODEL_SPACES[:3], "static")
    states = [space for space in (*asked, *config.encoding.bands) if space in own]
    pairs = [(m, word_job) for m in models for word_job in jobs.words.values()]
    made = []
    for model, word_job in pairs if states else []:
        job = _features(word_job, model, config, names)
        made.append(job)
        jobs.spaces.update({(job.unit.story, model.label, space): job for space in states})
    jobs.add("features", made)
    for step, module in (("attention", attention), ("surprisal", surprisal)):
        if step in asked:
            jobs.add(step, _plan_others(jobs, module, pairs, config, names))
    if {"embeddings", "transformations"} <= set(asked):
        heads = [job for job in made if "magnitudes" in job.outputs]
        jobs.add("representations", [_representations(job, names) for job in heads])


def _plan_others(jobs: StoryJobs, module, pairs, config: Config, names: Names) -> list[Job]:
    """Plan attention or surprisal; surprisal of the causal models, of which there must be one."""
    made = []
    for model, word_job in pairs:
        if module.NAME == "surprisal" and _causal(model) is False:
            continue
        unit = Unit(story=word_job.unit.story, model=model.label)
        outputs = module.outputs(unit, names)
        job = _model_job(module, unit, outputs, word_job, model, config, names)
        made.append(job)
        jobs.spaces[unit.story, model.label, module.NAME] = job
    if pairs and not made:
        _require_causal(pairs[0][0], "--features surprisal")
    return made


def _features(word_job: Job, model: _Model, config: Config, names: Names) -> Job:
    """Plan the features of a story."""
    unit = Unit(story=word_job.unit.story, model=model.label)
    source = model.source
    heads = source.config.get("model_type") in FAMILIES
    wanted = [space for space in config.features.features if space in HEAD_SPACES]
    if wanted and source.config and not heads:
        raise ConfigError(
            f"Model {source.name}: the heads of its architecture "
            f"({source.config.get('model_type')}) cannot be read, so {' '.join(wanted)} cannot be "
            "had.",
            hint="Use --features embeddings for this model.",
        )
    outputs = features.outputs(unit, names, heads=heads or not source.config)
    return _model_job(features, unit, outputs, word_job, model, config, names)


def _model_job(module, unit, outputs, word_job, model, config, names) -> Job:
    """Make the job of one story and model."""
    return Job(
        step=module.NAME,
        version=module.VERSION,
        unit=unit,
        record=module.record(unit, names),
        outputs=outputs,
        upstream=(word_job,),
        facts={
            "model": model.source.name,
            "kind": model.source.kind,
            "label": model.label,
            "borders": _borders(int(word_job.facts["n_trs"]), config),
        },
        files={"given": Path(model.given)},
        settings=asdict(module.params(config)),
        fingerprints=_model_prints(model.source),
        group=(module.NAME, model.label),
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


def _representations(job: Job, names: Names) -> Job:
    """Plan the comparison of embeddings and transformations."""
    return Job(
        step=representations.NAME,
        version=representations.VERSION,
        unit=job.unit,
        record=representations.record(job.unit, names),
        outputs=representations.outputs(job.unit, names),
        upstream=(job,),
        group=representations.NAME,
    )


def _plan_linguistic(
    jobs: StoryJobs, stories: Sequence[Story], config: Config, names: Names
) -> None:
    """Plan parts of speech and dependencies."""
    folder = pipelines.find(config.features.spacy_pipeline)
    pipeline = pipelines.fingerprint(folder)
    made = []
    for story in stories:
        word_job = jobs.words[story.name]
        unit = Unit(story=story.name)
        files = {"pipeline": folder, "transcript": story.transcript}
        text = story.transcript.with_name(TRANSCRIPT)
        prints = {"pipeline": pipeline}
        if story.transcript.suffix != ".json" and bold.is_present(text):
            files["text"] = text
            prints[TRANSCRIPT] = write.fingerprint(text)
        job = Job(
            step=linguistic.NAME,
            version=linguistic.VERSION,
            unit=unit,
            record=linguistic.record(unit, names),
            outputs=linguistic.outputs(unit, names),
            upstream=(word_job,),
            files=files,
            fingerprints=prints,
            settings=asdict(linguistic.params(config)),
            group=linguistic.NAME,
        )
        made.append(job)
        jobs.spaces[story.name, None, "linguistic"] = job
    jobs.add("linguistic", made)
