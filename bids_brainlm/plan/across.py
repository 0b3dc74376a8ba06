"""Plan models across stories and runs: what is left out, and what is trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config, base_space
from bids_brainlm.steps import across, encoding_columns
from bids_brainlm.steps.base import Job, Later

Known = Mapping[tuple[str | None, str], Job]  # label and space to the job that makes the space


@dataclass(frozen=True)
class Heard:
    """A story as a participant heard it in a run.

    ``words`` and ``series`` make its words and parcel series, ``known`` its feature spaces;
    ``bands`` are its nuisance bands, ``aids`` the jobs that make those that need one.
    """

    words: Job
    series: Job
    known: Known
    bands: Sequence[str]
    aids: Mapping[str, Job]

    @property
    def story(self) -> str:
        """The story."""
        return str(self.words.unit.story)

    @property
    def scan(self) -> str:
        """The run of the scanner; a run may hold several stories."""
        unit = self.series.unit
        parts = (("ses", unit.session), ("task", unit.task), ("run", unit.run))
        return "_".join(f"{name}-{label}" for name, label in parts if label is not None)


def across_jobs(heard: Sequence[Heard], config: Config, names: Names) -> list[list[Job]]:
    """Plan all models across stories or runs of a call.

    Parameters
    ----------
    heard : sequence of Heard
        Of all participants.
    config : Config
    names : Names

    Returns
    -------
    list of list of Job
        Models of nuisance bands, then models of feature spaces; empty where nobody heard
        several.
    """
    people: dict[tuple[object, ...], list[Heard]] = defaultdict(list)
    for one in heard:
        unit = one.series.unit
        people[unit.participant, unit.space, unit.atlas].append(one)
    bases: list[Job] = []
    fits: list[Job] = []
    for own in people.values():
        for tested in own:
            done: set[tuple[int, ...]] = set()
            for scheme in config.encoding.across:
                blocks = _blocks(scheme, tested, own)
                sources = tuple(id(one) for one in blocks)
                if len(blocks) < 2 or (sources in done and _once(own)):
                    continue
                done.add(sources)
                base, more = _of_one(scheme, blocks, config, names)
                bases.append(base)
                fits += more
    return [jobs for jobs in (bases, fits) if jobs]


def _blocks(scheme: str, tested: Heard, own: Sequence[Heard]) -> list[Heard]:
    """Return what is tested and what is trained on, never of the same run of the scanner."""
    if scheme not in across.ENDINGS:
        return []
    tr = tested.words.facts["tr"]
    return [
        tested,
        *[
            one
            for one in own
            if one.scan != tested.scan
            and (scheme == "runs" or one.story != tested.story)
            and one.words.facts["tr"] == tr
        ],
    ]


def _once(own: Sequence[Heard]) -> bool:
    """Tell whether runs are stories: each was heard once, in a run of its own."""
    return len({one.story for one in own}) == len({one.scan for one in own}) == len(own)


def _of_one(
    scheme: str, blocks: Sequence[Heard], config: Config, names: Names
) -> tuple[Job, list[Job]]:
    """Plan all feature spaces of one tested run."""
    base = _job(scheme, "nuisance", None, blocks, (), config, names)
    fits = []
    for space in config.features.features:
        name = base_space(space)
        for label, known in blocks[0].known:
            everywhere = all((label, known) in one.known for one in blocks)
            if known == name and name not in (*across.ONLY_WITHIN, "heads") and everywhere:
                fits.append(_job(scheme, space, label, blocks, (base,), config, names))
    return base, fits


def _job(
    scheme: str,
    feature: str,
    label: str | None,
    blocks: Sequence[Heard],
    base: tuple[Job, ...],
    config: Config,
    names: Names,
) -> Job:
    """Plan one feature space of one tested run."""
    tested = blocks[0]
    unit = replace(tested.series.unit, model=label, feature=feature)
    bands = [
        band
        for band in tested.bands
        if band not in across.ONLY_WITHIN and all(band in one.bands for one in blocks)
    ]
    made: list[Job] = []
    for one in blocks:
        aids = [job for band, job in one.aids.items() if band in bands]
        main = [one.known[label, base_space(feature)]] if feature != "nuisance" else []
        made += [one.words, *aids, *main]
    spaces = {band: job.step for band, job in tested.aids.items() if band in bands}
    if feature != "nuisance":
        spaces[feature] = tested.known[label, base_space(feature)].step
    series = [one.series for one in blocks]
    sources = [tested.story if scheme == "stories" else tested.scan, *_sources(scheme, blocks[1:])]
    described = [_block(one, source) for one, source in zip(blocks, sources, strict=True)]
    shared = [
        (b["Story"], b["Source"], one.words.facts["n_trs"])
        for b, one in zip(described, blocks, strict=True)
    ]
    return Job(
        step=across.NAME,
        version=across.VERSION,
        unit=unit,
        record=across.record(unit, names, scheme),
        outputs=Later(partial(across.outputs, unit, names, bands, scheme)),
        upstream=tuple({job.record: job for job in (*series, *made, *base)}.values()),
        facts={
            "scheme": scheme,
            "blocks": described,
            "bands": bands,
            "tr": tested.words.facts["tr"],
            "n_trs": sum(int(one.words.facts["n_trs"]) for one in blocks),
            "layers": list(config.features.layers) if feature in encoding_columns.LAYERED else [],
            "spaces": spaces,
            "sources": sorted({names.uri(job.record) for job in (*series[1:], *made)}),
        },
        settings=vars(across.params(config)),
        group=(across.NAME, scheme, unit.space, unit.atlas, label, feature, *shared),
    )


def _sources(scheme: str, blocks: Sequence[Heard]) -> list[str]:
    """Return what each training block is left out with in inner folds.

    Stories of one run of the scanner are left out together, and so are all hearings of a story.
    """
    if scheme == "runs":
        return [one.scan for one in blocks]
    found = [one.story for one in blocks]
    for scan in dict.fromkeys(one.scan for one in blocks):
        joined = [name for name, one in zip(found, blocks, strict=True) if one.scan == scan]
        found = [min(joined) if name in joined else name for name in found]
    return found


def _block(one: Heard, source: str) -> dict[str, object]:
    """Describe a block, as the step reads it."""
    unit = one.series.unit
    return {
        "Story": one.story,
        "Task": unit.task,
        "Session": unit.session,
        "Run": unit.run,
        "Source": source,
    }
