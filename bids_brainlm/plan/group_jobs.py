"""The jobs of the group level: ceilings, group maps, and what builds on them.

The same jobs are planned for the parcels of an atlas and for regions made of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bids_brainlm.bidsio import neighbours, spaces, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import OutputError
from bids_brainlm.steps import (
    across,
    alignment,
    attention,
    ceilings,
    comparison,
    correspondence,
    group,
    ladder_group,
    layers,
    regions,
    reliability,
    specialization,
    stories,
)
from bids_brainlm.steps.base import Job, Unit, canonical

LAYERED = ("Embeddings", "Transformations")
MIN_LAYERS = 3  # with layer 0, or two others; fewer have no profile
HEADS = "Heads"  # ends the desc of head-wise maps
LADDER = "Ladder"  # ends the desc of control ladders, which have no r
EACH = tuple(f"Each{ending}" for ending in ("", *across.ENDINGS.values()))
NOT_COMPARED = (HEADS, "Partial", *EACH)  # endings of descs whose columns are no choice of layer
NO_CEILING = "Partial"
MIN_HEADS, MIN_PARCELS = 4, 3  # fewer have no components
MIN_CEILING = 4  # participants
Person = tuple[str, str | None, str | None]  # participant, session, run


@dataclass(frozen=True)
class Place:
    """Where maps of a group belong: story, space and atlas, and regions made of its parcels."""

    story: str
    space: str
    atlas: str
    regions: tuple[Mapping[str, object], ...] = ()

    def unit(self, model: str | None = None, feature: str | None = None) -> Unit:
        """Return the unit of results at this place."""
        atlas = self.atlas + (regions.ENDING if self.regions else "")
        return Unit(story=self.story, space=self.space, atlas=atlas, model=model, feature=feature)

    @property
    def has_neighbours(self) -> bool:
        """Tell whether maps have values of voxels or vertices, whose neighbours are known."""
        if self.regions or not spaces.is_everywhere(self.atlas):
            return False
        return spaces.is_volume(self.space) or neighbours.are_known(self.space)

    def facts(self, more: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the facts of a job at this place."""
        own = {"regions": list(self.regions)} if self.regions else {}
        return {**own, **(more or {})}


def key_of(path: Path) -> str:
    """Return the key in a record."""
    key = write.read_json(path).get("Key")
    if not isinstance(key, str):
        raise OutputError(f"{path} has no key, expected a sidecar of bids_brainlm.")
    return key


def person_unit(place: Place, person: Person) -> Unit:
    """Return the unit of one run."""
    return Unit(
        story=place.story,
        space=place.space,
        atlas=place.atlas,
        participant=person[0],
        session=person[1],
        run=person[2],
    )


def labels_of(names: Names, place: Place, person: Person) -> dict[str, Path]:
    """Return the atlas on the grid of one run."""
    unit, labels = person_unit(place, person), {"stat": "label"}
    table, image, *_ = unit.map_extensions("label")
    return {
        "label_nii": unit.place(names, "boldmap", image, labels),
        "label_tsv": unit.place(names, "boldmap", table, labels),
    }


def ceiling_job(place: Place, people: Mapping[Person, Path], config: Config, names: Names) -> Job:
    """Plan the ceilings of one story; ``people`` are the records of the parcel series."""
    unit = place.unit()
    first = min(people, key=lambda p: tuple(str(x) for x in p))
    files = labels_of(names, place, first)
    for (participant, session, run), path in people.items():
        data = path.with_suffix(".tsv")
        data = data if data.is_file() else path.with_suffix(".nc")
        files[f"series:{participant}:{session}:{run}"] = data
        labels = labels_of(names, place, (participant, session, run))
        files[f"labels:{participant}:{session}:{run}"] = labels["label_tsv"]
    return Job(
        step=ceilings.NAME,
        version=ceilings.VERSION,
        unit=unit,
        record=ceilings.record(unit, names),
        outputs=ceilings.outputs(unit, names),
        files=files,
        settings=asdict(ceilings.params(config)),
        fingerprints={names.relative(p): key_of(p) for p in people.values()},
    )


def _tr_of(people: Mapping[Person, Path]) -> float:
    """Return the repetition time of a story's parcel series, s."""
    first = write.read_json(min(people.values()))
    return round(1 / float(first["SamplingFrequency"]), 6)


def reliability_jobs(
    ceiling: Job, people: Mapping[Person, Path], config: Config, names: Names
) -> list[Job]:
    """Plan further ceilings beside ``ceiling``, for parcels of enough participants."""
    n_people = len({p for p, _, _ in people})
    if config.ceiling.ceilings != "all" or ceiling.unit.is_everywhere or n_people < MIN_CEILING:
        return []
    return [
        Job(
            step=reliability.NAME,
            version=reliability.VERSION,
            unit=ceiling.unit,
            record=reliability.record(ceiling.unit, names),
            outputs=reliability.outputs(ceiling.unit, names, repeats=len(people) > n_people),
            files=ceiling.files,
            facts={"tr": _tr_of(people)},
            settings=asdict(reliability.params(config)),
            fingerprints=ceiling.fingerprints,
        )
    ]


def alignment_jobs(
    ceiling: Job, people: Mapping[Person, Path], config: Config, names: Names
) -> list[Job]:
    """Plan the check of timing, where the words of the story are at hand."""
    labels = {"recording": "words", "ext": "tsv.gz"}
    words = ceiling.unit.place(names, "stim", "tsv.gz", labels)
    if not words.is_file():
        return []
    sidecar = ceiling.unit.place(names, "words", "json")
    prints = dict(ceiling.fingerprints)
    if sidecar.is_file():
        prints[names.relative(sidecar)] = key_of(sidecar)
    return [
        Job(
            step=alignment.NAME,
            version=alignment.VERSION,
            unit=ceiling.unit,
            record=alignment.record(ceiling.unit, names),
            outputs=alignment.outputs(ceiling.unit, names),
            upstream=(ceiling,),
            files={**ceiling.files, "words": words},
            facts={"tr": _tr_of(people)},
            settings=asdict(alignment.params(config)),
            fingerprints=prints,
        )
    ]


def group_job(
    place: Place,
    desc: str,
    found: Mapping[Person, Path],
    ceiling: Job,
    config: Config,
    names: Names,
) -> Job:
    """Plan the group maps of one feature space; ``found`` are the records of the maps."""
    unit = place.unit(feature=desc)
    first = min(found, key=lambda p: tuple(str(x) for x in p))
    files = {**labels_of(names, place, first), "first": found[first]}
    available = []
    for stat in ("r", "r2") if desc == "nuisance" else ("r", "rjoint", "r2", "unique"):
        paths = {person: map_of(names, place, desc, stat, person) for person in found}
        if any(path.is_file() for path in paths.values()):  # one that lacks is an error later
            available.append(stat)
            files.update({f"{stat}:{p}:{s}:{r}": path for (p, s, r), path in paths.items()})
    clusters = config.stats.tfce and place.has_neighbours
    stats = group.statistics(
        available, has_ceiling=not desc.endswith(NO_CEILING), has_clusters=clusters
    )
    return Job(
        step=group.NAME,
        version=group.VERSION,
        unit=unit,
        record=group.record(unit, names),
        outputs=group.outputs(unit, names, stats),
        upstream=(ceiling,),
        files=files,
        facts=place.facts(),
        settings={**asdict(group.params(config)), "tfce": clusters},  # no other map depends on it
        fingerprints={names.relative(p): key_of(p) for p in found.values()},
    )


def ladder_job(
    place: Place, desc: str, found: Mapping[Person, Path], config: Config, names: Names
) -> Job:
    """Plan the group's control ladder of one model; ``found`` are the records of the maps."""
    unit = place.unit(feature=desc)
    first = min(found, key=lambda p: tuple(str(x) for x in p))
    files = {**labels_of(names, place, first), "first": found[first]}
    for stat in ladder_group.READ:
        for p, s, r in found:
            files[f"{stat}:{p}:{s}:{r}"] = map_of(names, place, desc, stat, (p, s, r))
    return Job(
        step=ladder_group.NAME,
        version=ladder_group.VERSION,
        unit=unit,
        record=ladder_group.record(unit, names),
        outputs=ladder_group.outputs(unit, names),
        files=files,
        facts=place.facts(),
        settings=asdict(ladder_group.params(config)),
        fingerprints={names.relative(p): key_of(p) for p in found.values()},
    )


def map_of(names: Names, place: Place, desc: str, stat: str, person: Person) -> Path:
    """Return the table of one statistic of one run."""
    labels = {"desc": desc, "stat": stat}
    return person_unit(place, person).place(names, "boldmap", "tsv", labels)


def profile_jobs(place: Place, jobs: Sequence[Job], config: Config, names: Names) -> list[Job]:
    """Plan layer profiles of every model: embeddings, transformations, or both."""
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        for ending in LAYERED:
            if str(job.unit.feature).endswith(ending):
                found[str(job.unit.feature).removesuffix(ending)].append(job)
    made = []
    for label, several in found.items():
        several.sort(key=lambda job: str(job.unit.feature))
        unit = place.unit(model=label)
        descs = [str(job.unit.feature) for job in several]
        if any(len(write.read_json(j.files["first"])["Columns"]) < MIN_LAYERS for j in several):
            continue
        made.append(
            Job(
                step=layers.NAME,
                version=layers.VERSION,
                unit=unit,
                record=layers.record(unit, names, descs),
                outputs=layers.outputs(unit, names, descs),
                upstream=tuple(several),
                files=_scores_of(several),
                facts=place.facts(),
                settings=asdict(layers.params(config)),
                fingerprints={names.relative(job.record): job.key for job in several},
            )
        )
    return made


def _scores_of(jobs: Sequence[Job]) -> dict[str, Path]:
    """Return the atlas, and participants' r of several spaces: ``<desc>:<person>``."""
    files = {k: jobs[0].files[k] for k in ("label_nii", "label_tsv")}
    for job in jobs:
        scores = {k: p for k, p in job.files.items() if k.startswith("r:")}
        files.update({f"{job.unit.feature}:{k[2:]}": p for k, p in scores.items()})
    return files


def comparison_jobs(place: Place, jobs: Sequence[Job], config: Config, names: Names) -> list[Job]:
    """Plan the comparison of all feature spaces that were fitted in the same way."""
    alike: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        desc = str(job.unit.feature)
        if desc != "nuisance" and not desc.endswith(NOT_COMPARED):
            alike[_fitted(job)].append(job)
    several = max(alike.values(), key=len, default=[])
    if len(several) < 2:
        return []
    several.sort(key=lambda job: str(job.unit.feature))
    unit = place.unit()
    return [
        Job(
            step=comparison.NAME,
            version=comparison.VERSION,
            unit=unit,
            record=comparison.record(unit, names),
            outputs=comparison.outputs(unit, names),
            upstream=tuple(several),
            files=_scores_of(several),
            facts=place.facts({"descs": [str(job.unit.feature) for job in several]}),
            settings=asdict(comparison.params(config)),
            fingerprints={names.relative(job.record): job.key for job in several},
        )
    ]


def _fitted(job: Job) -> str:
    """Return what must be equal in scores that are compared: bands, delays and folds."""
    first = write.read_json(job.files["first"])
    bands = [band.get("Name") for band in first.get("Bands") or ()]
    same = ("Delays", "Gap", "Trim", "Folds", "CrossValidation")
    return canonical([bands, *[first.get(k) for k in same]])


def correspondence_jobs(place: Place, job: Job, config: Config, names: Names) -> list[Job]:
    """Plan the correspondence of decoding and encoding, where heads were decoded."""
    if not str(job.unit.feature).endswith(HEADS):
        return []
    unit = place.unit(model=str(job.unit.feature).removesuffix(HEADS))
    table = unit.place(names, "decoding", "tsv")
    record = table.with_suffix(".json")
    if not table.is_file() or not record.is_file():
        return []
    return [
        Job(
            step=correspondence.NAME,
            version=correspondence.VERSION,
            unit=unit,
            record=correspondence.record(unit, names),
            outputs=correspondence.outputs(unit, names),
            upstream=(job,),
            files={
                **{k: p for k, p in job.files.items() if k.startswith(("r:", "label_"))},
                "decoding": table,
            },
            facts=place.facts(),
            settings=asdict(correspondence.params(config)),
            fingerprints={names.relative(record): key_of(record)},
        )
    ]


def without_excess(
    place: Place, desc: str, found: Mapping[Person, Path], names: Names
) -> list[str]:
    """Return the participants whose head-wise maps are of a version without the excess of norms."""
    if not desc.endswith(HEADS):
        return []
    stat = specialization.STAT
    return sorted({p[0] for p in found if not map_of(names, place, desc, stat, p).is_file()})


def specialization_jobs(
    place: Place, job: Job, found: Mapping[Person, Path], config: Config, names: Names
) -> list[Job]:
    """Plan the components of heads' weights, where there are maps of heads."""
    desc = str(job.unit.feature)
    if not desc.endswith(HEADS) or without_excess(place, desc, found, names):
        return []
    maps = {person: map_of(names, place, desc, specialization.STAT, person) for person in found}
    n_heads = len(write.read_json(job.files["first"])["Columns"])
    n_parcels = len(write.read_tsv(job.files["label_tsv"])["index"])
    if n_heads < MIN_HEADS or n_parcels < MIN_PARCELS:
        return []
    unit = place.unit(model=desc.removesuffix(HEADS))
    files = {k: job.files[k] for k in ("label_nii", "label_tsv")}
    stat = specialization.STAT
    files.update({f"{stat}:{p}:{s}:{r}": path for (p, s, r), path in maps.items()})
    prints = {names.relative(p): key_of(p) for p in found.values()}
    table = unit.place(names, "decoding", "tsv")
    lookback = stories.stim_places(unit, names, attention.recording(unit, "lookback"), "lookback")
    for name, path, record in (
        ("decoding", table, table.with_suffix(".json")),
        ("lookback", lookback["lookback"], attention.record(unit, names)),
    ):
        if path.is_file() and record.is_file():
            files[name] = path
            prints[names.relative(record)] = key_of(record)
    return [
        Job(
            step=specialization.NAME,
            version=specialization.VERSION,
            unit=unit,
            record=specialization.record(unit, names),
            outputs=specialization.outputs(unit, names),
            upstream=(job,),
            files=files,
            settings=asdict(specialization.params(config)),
            fingerprints=prints,
        )
    ]
