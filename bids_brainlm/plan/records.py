"""What a plan consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bids_brainlm.steps.base import Job


@dataclass(frozen=True)
class Skip:
    """Something that the data hold and the plan leaves out, with the reason."""

    what: str
    why: str
    participant: str | None = None


@dataclass(frozen=True)
class Plan:
    """Jobs in order of work, stage by stage.

    ``stages`` are (step name, jobs); a stage reads only what earlier stages write.
    ``people`` maps each participant to their jobs' runs in words. ``links`` and ``sources`` go
    into dataset_description.json, ``descriptions`` into descriptions.tsv.
    """

    stages: Sequence[tuple[str, Sequence[Job]]]
    participants: tuple[str, ...] = ()
    skipped: tuple[Skip, ...] = ()
    warnings: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[Mapping[str, object]] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Job]:
        """All jobs in order of work."""
        return [job for _, jobs in self.stages for job in jobs]
