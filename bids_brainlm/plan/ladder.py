"""Plan control ladders: which rungs can be had for a run and a model, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import NUISANCE_BANDS, STIM, Config, base_space
from bids_brainlm.errors import ConfigError
from bids_brainlm.plan.ladder_aids import AUTO, TOP
from bids_brainlm.steps import ladder
from bids_brainlm.steps.base import Job, Later

Known = Mapping[tuple[str | None, str], Job]  # label and space to the job that makes the space
EVERYWHERE = ("position", "acoustics", "static")  # asked for by `AUTO`
_NO_INPUT = {"acoustics": "no audio file of the story was found (--audio)"}
_NO_PHONES = "the phones of the story are not known"


def ladder_jobs(
    word_job: Job, series: Job, known: Known, config: Config, names: Names
) -> list[Job]:
    """Plan the ladders of one run: one for each trained model, else for each untrained one.

    Parameters
    ----------
    word_job, series : Job
        Words of the story and parcel series of the run.
    known : mapping of (str or None, str) to Job
        Feature spaces of the story by label and space, aids among them.
    config : Config
    names : Names

    Returns
    -------
    list of Job
        None with ``--ladder none``.

    Raises
    ------
    ConfigError
        Static embeddings can come from several files.
    """
    if config.encoding.ladder == "none" or TOP not in config.features.features:
        return []
    models = {str(label): job for (label, space), job in known.items() if space == TOP}
    random = {label: job for label, job in models.items() if job.facts["kind"] == "random"}
    tops = {label: job for label, job in models.items() if label not in random} or random
    return [_ladder(label, (word_job, series), known, config, names) for label in tops]


def _ladder(
    label: str, upstream: tuple[Job, Job], known: Known, config: Config, names: Names
) -> Job:
    """Plan the ladder of one run and model."""
    word_job, series = upstream
    main = known[label, TOP]
    spaces, rungs, missing = _controls(label, word_job, known, config)
    top = ladder.UNTRAINED if main.facts["kind"] == "random" else ladder.TRAINED
    twin = None if top == ladder.UNTRAINED else _twin(main, known)
    if twin is not None:
        rungs.append({"Name": ladder.UNTRAINED, "Bands": [ladder.UNTRAINED]})
    elif top == ladder.TRAINED:
        why = f"--model random:{main.facts['model']} was not asked for"
        if config.encoding.ladder == AUTO:
            why = "the model is large or not at hand; ask for it with --model random:..."
        missing.append({"Name": ladder.UNTRAINED, "Why": why})
    else:
        missing.append({"Name": ladder.TRAINED, "Why": "no model of --model is trained"})
    rungs.append({"Name": top, "Bands": [top]})
    unit = replace(series.unit, model=label, feature=ladder.NAME)
    makers = [main, *([twin] if twin is not None else []), *spaces.values()]
    return Job(
        step=ladder.NAME,
        version=ladder.VERSION,
        unit=unit,
        record=ladder.record(unit, names),
        outputs=Later(partial(ladder.outputs, unit, names)),
        upstream=tuple({job.record: job for job in (word_job, series, *makers)}.values()),
        facts={
            "tr": word_job.facts["tr"],
            "top": top,
            "untrained": None if twin is None else twin.unit.model,
            "rungs": rungs,
            "missing": missing,
            "unasked": _unasked(rungs, config),
            "spaces": {
                **{space: job.step for space, job in spaces.items()},
                ladder.NAME: main.step,
                top: main.step,
            },
            "sources": sorted({names.uri(job.record) for job in (word_job, *makers)}),
        },
        settings=vars(ladder.params(config)),
        group=(ladder.NAME, unit.story, unit.space, unit.atlas, label),
    )


def _unasked(rungs: Sequence[Mapping[str, object]], config: Config) -> list[str]:
    """Return the bands that nobody asked for: without values they are left out, no failure."""
    asked = {*config.encoding.bands, *map(base_space, config.features.features)}
    bands = [str(band) for rung in rungs for band in rung["Bands"]]
    return [band for band in bands if band in EVERYWHERE and band not in asked]


def _twin(main: Job, known: Known) -> Job | None:
    """Return the untrained model of the same architecture."""
    twins = [
        job
        for (_, space), job in known.items()
        if space == TOP and job.facts["kind"] == "random"
        if job.facts["model"] == main.facts["model"]
    ]
    return twins[0] if twins else None


def _controls(
    label: str, word_job: Job, known: Known, config: Config
) -> tuple[dict[str, Job], list[dict[str, object]], list[dict[str, str]]]:
    """Return the jobs of the controls' spaces, the rungs below the models, and what is missing."""
    bands = list(config.encoding.bands)
    asked = list(dict.fromkeys([*bands, *map(base_space, config.features.features)]))
    if config.encoding.ladder == AUTO:
        asked = list(dict.fromkeys([*NUISANCE_BANDS, *asked, *EVERYWHERE]))
    spaces: dict[str, Job] = {}
    rungs: list[dict[str, object]] = []
    missing: list[dict[str, str]] = []
    for name, members in ladder.RUNGS.items():
        if name in (ladder.UNTRAINED, ladder.TRAINED):
            continue
        own: list[str] = []
        lacking: list[str] = []
        for space in _of_rung(members, bands if name in ladder.ONLY_AS_BANDS else asked):
            maker = _maker(space, label, known)
            if maker is not None:
                spaces[space] = maker
            has_words = space in NUISANCE_BANDS and (
                space != "phonemes" or bool(word_job.facts["has_phones"])
            )
            (own if maker is not None or has_words else lacking).append(space)
        if own:
            rungs.append({"Name": name, "Bands": own})
        elif lacking:
            why = f"the story has no {' '.join(lacking)}"
            why = _NO_PHONES if name == "phonemes" else _NO_INPUT.get(name, why)
            missing.append({"Name": name, "Why": why})
        elif name not in ladder.ONLY_AS_BANDS:
            missing.append(
                {"Name": name, "Why": f"no {' or '.join(members)} in --features or --bands"}
            )
    return spaces, rungs, missing


def _of_rung(members: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the spaces that are asked for and belong to a rung, in the rung's order."""
    found = []
    for member in members:
        found += [s for s in asked if s == member or (member == STIM and s.startswith(STIM))]
    return found


def _maker(space: str, label: str, known: Known) -> Job | None:
    """Return the job that makes a control's space: layer 0 of the model itself, or one file."""
    if (label, space) in known:
        return known[label, space]
    makers = [job for (_, other), job in known.items() if other == space]
    if len(makers) > 1:
        raise ConfigError(
            f"--ladder: {space} can come from {len(makers)} files, expected one.",
            hint="Give one file with --static-vectors, or use --ladder none.",
        )
    return makers[0] if makers else None
