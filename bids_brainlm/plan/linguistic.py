"""Plan parts of speech and dependencies of the stories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bids_brainlm.bidsio import bold, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.language import pipelines
from bids_brainlm.plan.selection import Story
from bids_brainlm.steps import linguistic
from bids_brainlm.steps.base import Job, Unit

TRANSCRIPT = "transcript.txt"


def plan_linguistic(
    words: Mapping[str, Job], stories: Sequence[Story], config: Config, names: Names
) -> dict[str, Job]:
    """Plan parts of speech and dependencies.

    Parameters
    ----------
    words : mapping of str to Job
        By story.
    stories : sequence of Story
    config : Config
    names : Names

    Returns
    -------
    dict of str to Job
        By story.

    Raises
    ------
    MissingInputError
        The pipeline is not installed.
    """
    folder = pipelines.find(config.features.spacy_pipeline)
    pipeline = pipelines.fingerprint(folder)
    made = {}
    for story in stories:
        word_job = words[story.name]
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
        made[story.name] = job
    return made
