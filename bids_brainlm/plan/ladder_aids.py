"""Plan what only control ladders need: controls and an untrained twin of every trained model.

With ``--ladder auto`` a ladder has every rung whose input exists, whether or not ``--features``
and ``--bands`` ask for it. What is made for it gets no encoding maps of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bids_brainlm.bidsio import audio
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config, asked_spaces
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import sources
from bids_brainlm.plan.controls import control_job
from bids_brainlm.plan.selection import Story
from bids_brainlm.plan.sizes import weight_bytes
from bids_brainlm.steps.base import Job

TOP, AUTO = "embeddings", "auto"
GROWING = "Growing"  # behind a model's label: the two contexts never share a name
LARGEST_WEIGHTS = 2e9  # bytes: larger models get no twin unless --model asks for it
Spaces = dict[tuple[str, str | None, str], Job]


def plan_aids(
    words: Mapping[str, Job],
    stories: Sequence[Story],
    spaces: Mapping[tuple[str, str | None, str], Job],
    config: Config,
    names: Names,
) -> Spaces:
    """Plan position, acoustics where there is audio, and static embeddings.

    Parameters
    ----------
    words : mapping of str to Job
        By story.
    stories : sequence of Story
    spaces : mapping
        What is planned already, by story, label and space.
    config : Config
    names : Names

    Returns
    -------
    dict
        By story, label and space; nothing that ``spaces`` has.
    """
    if not is_wanted(config):
        return {}
    aids: Spaces = {}
    for story in stories:
        for kind in ("position", "acoustics"):
            key = (story.name, None, kind)
            if key in spaces:
                continue
            try:
                job = control_job(story, kind, words[story.name], config, names)
                if "audio" in job.files:
                    audio.audio_info(job.files["audio"])
                aids[key] = job
            except BrainLMError:  # the ladder says that the rung is missing
                continue
    has_vectors = any(space == "static" for _, _, space in spaces)
    for (story_name, label, space), job in spaces.items():
        if space == TOP and not has_vectors:
            aids[story_name, label, "static"] = job
    return aids


def plan_twins(
    words: Mapping[str, Job],
    spaces: Mapping[tuple[str, str | None, str], Job],
    config: Config,
    make: Callable[[Job, str, str], Job],
) -> Spaces:
    """Plan the embeddings of the untrained model of each trained model's architecture.

    Parameters
    ----------
    words : mapping of str to Job
        By story.
    spaces : mapping
        What is planned already, by story, label and space.
    config : Config
    make : callable
        Plans the features of a story: words job, model as a user would give it, what its label
        ends with.

    Returns
    -------
    dict
        By story, label and space. Without models that are not at hand, that are large, or whose
        twin is among ``--model``.
    """
    tops = {str(label): job for (_, label, space), job in spaces.items() if space == TOP}
    known = {job.facts["model"] for job in tops.values() if job.facts["kind"] == "random"}
    aids: Spaces = {}
    for label, job in tops.items() if is_wanted(config) else ():
        trained = job.facts["kind"] != "random" and job.facts["model"] not in known
        if not trained or weight_bytes(job) > LARGEST_WEIGHTS:
            continue
        given, ending = _untrained(label, str(job.files["given"]))
        for story, word_job in words.items():
            try:
                twin = make(word_job, given, ending)
            except BrainLMError:  # the ladder says that the rung is missing
                continue
            aids[story, twin.unit.model, TOP] = twin
    return aids


def is_wanted(config: Config) -> bool:
    """Tell whether ladders take all that exists."""
    return config.encoding.ladder == AUTO and TOP in asked_spaces(config)


def _untrained(label: str, given: str) -> tuple[str, str]:
    """Return how a user would ask for the twin of a model, and what its label ends with."""
    ending = GROWING if label.endswith(GROWING) else ""
    own = label.removesuffix(GROWING)
    name = given.removeprefix(f"{own}=")
    return f"random{own[0].upper()}{own[1:]}={sources.RANDOM}{name}", ending
