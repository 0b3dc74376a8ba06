"""Plan the group maps over all stories together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.steps import pooled
from bids_brainlm.steps.base import Job, Unit

MIN_STORIES = 2


def pooled_jobs(jobs: Sequence[Job], config: Config, names: Names) -> list[Job]:
    """Plan maps over stories for every space, atlas and feature space that several have.

    Parameters
    ----------
    jobs : sequence of Job
        The group jobs of all stories.
    config : Config
    names : Names

    Returns
    -------
    list of Job
        Stories whose maps have other columns are left out by the columns that most have.
    """
    found: dict[tuple[str, str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        place = (str(job.unit.space), str(job.unit.atlas), str(job.unit.feature))
        found[place].append(job)
    made = []
    for (space, atlas, feature), every in sorted(found.items()):
        several = _alike(every)
        if len({job.unit.story for job in several}) < MIN_STORIES:
            continue
        unit = Unit(story=pooled.STORY, space=space, atlas=atlas, feature=feature)
        files = {k: several[0].files[k] for k in ("label_nii", "label_tsv", "first")}
        for job in several:
            scores = {k: p for k, p in job.files.items() if k.startswith("r:")}
            files.update({f"{job.unit.story}:{k[2:]}": p for k, p in scores.items()})
        kept = {k: v for k, v in several[0].facts.items() if k == "regions"}
        made.append(
            Job(
                step=pooled.NAME,
                version=pooled.VERSION,
                unit=unit,
                record=pooled.record(unit, names),
                outputs=pooled.outputs(unit, names),
                upstream=tuple(several),
                files=files,
                facts={**kept, "stories": [str(job.unit.story) for job in several]},
                settings=asdict(pooled.params(config)),
                fingerprints={names.relative(job.record): job.key for job in several},
            )
        )
    return made


def _alike(jobs: Sequence[Job]) -> list[Job]:
    """Keep the stories whose maps have the columns that most stories have."""
    by_columns: dict[tuple[str, ...], list[Job]] = defaultdict(list)
    for job in jobs:
        by_columns[tuple(write.read_json(job.files["first"])["Columns"])].append(job)
    return sorted(max(by_columns.values(), key=len), key=lambda job: str(job.unit.story))
