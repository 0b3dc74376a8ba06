"""Plan what belongs to the stories: words, language models, linguistics, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import MODEL_SPACES, NUISANCE_BANDS, Config, asked_spaces
from bids_brainlm.errors import ConfigError
from bids_brainlm.language import sources, transcripts
from bids_brainlm.language.architectures import FAMILIES, is_causal
from bids_brainlm.numerics import folds
from bids_brainlm.plan.controls import plan_controls, plan_static
from bids_brainlm.plan.ladder_aids import GROWING, plan_aids, plan_twins
from bids_brainlm.plan.linguistic import plan_linguistic
from bids_brainlm.plan.records import Skip
from bids_brainlm.plan.selection import Story
from bids_brainlm.steps import (
    attention,
    decoding,
    features,
    representations,
    surprisal,
    words,
)
from bids_brainlm.steps.base import Job, Unit

MODEL_FILES = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
STATES = ("embeddings", "transformations", "magnitudes", "heads")  # of one forward pass
HEAD_SPACES = ("transformations", "magnitudes", "heads")


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
    skipped : list of Skip
        What is asked for and cannot be made for a story or a model.
    aids : dict of (story, label, space) to Job
        What only control ladders need.
    """

    words: dict[str, Job]
    stages: list[tuple[str, Sequence[Job]]] = field(default_factory=list)
    spaces: dict[tuple[str, str | None, str], Job] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    aids: dict[tuple[str, str | None, str], Job] = field(default_factory=dict)

    def add(self, step: str, jobs: Sequence[Job]) -> None:
        """Add a stage, unless it is empty."""
        if jobs:
            self.stages.append((step, list(jobs)))

    def of(self, story: str) -> dict[tuple[str | None, str], Job]:
        """Return the jobs of one story by label and space."""
        return {key[1:]: job for key, job in self.spaces.items() if key[0] == story}

    def for_ladder(self, story: str) -> dict[tuple[str | None, str], Job]:
        """Return the same with what only control ladders need."""
        both = {**self.spaces, **self.aids}
        return {key[1:]: job for key, job in both.items() if key[0] == story}


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
    wanted = {*asked_spaces(config), *config.encoding.bands} - set(NUISANCE_BANDS)
    models = _models(config) if _needs_models(config) else []
    _plan_models(jobs, models, config, names)
    if "linguistic" in wanted or config.decoding.decoding:
        parsed = plan_linguistic(jobs.words, stories, config, names)
        jobs.add("linguistic", list(parsed.values()))
        jobs.spaces.update({(name, None, "linguistic"): job for name, job in parsed.items()})
    if config.decoding.decoding:
        jobs.add("decoding", _plan_decoding(jobs, config, names))
    if "static" in wanted and config.features.static_vectors:
        taken = [m.label for m in models]
        jobs.add("static", plan_static(jobs.words, taken, jobs.spaces, config, names))
    made, left_out = plan_controls(jobs.words, stories, jobs.spaces, config, names)
    jobs.add("controls", made)
    jobs.skipped += left_out
    jobs.aids = plan_aids(jobs.words, stories, jobs.spaces, config, names)
    jobs.aids |= plan_twins(jobs.words, jobs.spaces, config, partial(_twin, config, names))
    for step in ("controls", "features"):
        own = {job.record: job for job in jobs.aids.values() if job.step == step}
        jobs.add(step, [job for job in own.values() if job not in jobs.spaces.values()])
    return jobs


def _twin(config: Config, names: Names, word_job: Job, given: str, ending: str) -> Job:
    """Plan the features of an untrained model."""
    execution = config.execution
    source = sources.resolve(given, execution.models_dir or None, execution.offline)
    return _features(word_job, _Model(given, source, source.label + ending), config, names)


def _needs_models(config: Config) -> bool:
    """Tell whether any feature space or band comes from language models."""
    wanted = {*asked_spaces(config), *config.encoding.bands}
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
    return is_causal(model.source.config) if model.source.config else None


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
    asked = asked_spaces(config)
    own = STATES if config.features.static_vectors else (*STATES, "static")
    states = [space for space in (*asked, *config.encoding.bands) if space in own]
    pairs = [(m, word_job) for m in models for word_job in jobs.words.values()]
    made = []
    headless = [m for m in models if m.source.config and not _has_heads(m)]
    _skip_heads(jobs, headless, models, states)
    for model, word_job in pairs if states else []:
        own = [space for space in states if model not in headless or space not in HEAD_SPACES]
        if own:
            job = _features(word_job, model, config, names)
            made.append(job)
            jobs.spaces.update({(job.unit.story, model.label, space): job for space in own})
    jobs.add("features", made)
    for step, module in (("attention", attention), ("surprisal", surprisal)):
        if step in asked:
            jobs.add(step, _plan_others(jobs, module, pairs, config, names))
    if {"embeddings", "transformations"} <= set(asked):
        heads = [job for job in made if "magnitudes" in job.outputs]
        jobs.add("representations", [_representations(job, names) for job in heads])


def _has_heads(model: _Model) -> bool:
    """Tell whether the table knows where a model keeps its heads."""
    return model.source.config.get("model_type") in FAMILIES


def _skip_heads(
    jobs: StoryJobs, headless: Sequence[_Model], models: Sequence[_Model], states: Sequence[str]
) -> None:
    """Go on without the heads of models that are not in the table, if anything is left."""
    wanted = [space for space in states if space in HEAD_SPACES]
    for model in headless if wanted else []:
        why = (
            f"the heads of the architecture {model.source.config.get('model_type')} cannot be "
            "read; it works for embeddings"
        )
        if len(models) == len(headless) and wanted == list(states):
            raise ConfigError(
                f"Model {model.source.name}: {why}, so {' '.join(wanted)} cannot be had.",
                hint="Use --features embeddings for this model.",
            )
        jobs.skipped.append(Skip(f"{model.label} {' '.join(wanted)}", why))


def _plan_others(jobs: StoryJobs, module, pairs, config: Config, names: Names) -> list[Job]:
    """Plan attention or surprisal; surprisal of the causal models, of which there must be one."""
    made = []
    for model, word_job in pairs:
        if module.NAME == "surprisal" and _causal(model) is False:
            why = f"{model.source.name} is bidirectional; surprisal needs a causal model"
            jobs.skipped.append(Skip(f"{model.label} surprisal of {word_job.unit.story}", why))
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
    outputs = features.outputs(unit, names, heads=_has_heads(model) or not model.source.config)
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
        files={"given": Path(model.given), "model": model.source.path or Path(model.given)},
        settings=_model_settings(module, model, config),
        fingerprints=_model_prints(model.source),
        group=(module.NAME, model.label),
    )


def _model_settings(module, model: _Model, config: Config) -> dict[str, object]:
    """Return the settings that matter: others must not make features look stale."""
    found = asdict(module.params(config))
    found["context_tokens" if found["context"] == "window" else "context_trs"] = None
    if model.source.kind == "pretrained":
        found["seed"] = None
    return found


def _model_prints(model: sources.ModelSource) -> dict[str, str]:
    """Fingerprint the files of a model that decide its features."""
    if model.path is None:
        return {}
    patterns = (*MODEL_FILES, *(["*.safetensors"] if model.kind == "pretrained" else []))
    kept = {path for pattern in patterns for path in model.path.glob(pattern) if path.is_file()}
    return {path.name: write.fingerprint(path) for path in sorted(kept)}


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


def _plan_decoding(jobs: StoryJobs, config: Config, names: Names) -> list[Job]:
    """Plan the decoding of labels from every model whose heads are extracted."""
    sources = {job.record: job for job in jobs.spaces.values() if job.step == features.NAME}
    readable = [job for job in sources.values() if "magnitudes" in job.outputs]
    if not readable:
        raise ConfigError(
            "--decoding needs the heads of a model, and no feature space asks for one.",
            hint="Add transformations or heads to --features.",
        )
    made = []
    for job in readable:
        parsed = jobs.spaces[str(job.unit.story), None, "linguistic"]
        made.append(
            Job(
                step=decoding.NAME,
                version=decoding.VERSION,
                unit=job.unit,
                record=decoding.record(job.unit, names),
                outputs=decoding.outputs(job.unit, names),
                upstream=(job.upstream[0], job, parsed),
                settings=asdict(decoding.params(config)),
                group=decoding.NAME,
            )
        )
    return made
