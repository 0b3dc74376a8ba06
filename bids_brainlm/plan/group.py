"""Plan the group level from the output folder alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from bids_brainlm.bidsio import rois, spaces, write
from bids_brainlm.bidsio.maps import MapSet
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import DataError, MissingInputError, SelectionError
from bids_brainlm.plan.group_jobs import (
    LADDER,
    Person,
    Place,
    alignment_jobs,
    ceiling_job,
    comparison_jobs,
    correspondence_jobs,
    group_job,
    labels_of,
    ladder_job,
    profile_jobs,
    reliability_jobs,
    specialization_jobs,
    without_excess,
)
from bids_brainlm.plan.pooling import pooled_jobs
from bids_brainlm.plan.records import Plan, Skip
from bids_brainlm.steps import across, regions
from bids_brainlm.steps.base import Job, canonical

MIN_PARTICIPANTS = 2
ACROSS = tuple(across.ENDINGS.values())
OF_STORIES = {"bands", "columns"}  # what the other stories that people heard decide
_Place = tuple[str, str, str]  # story, space, atlas
STAGES = (
    "ceilings",
    "reliability",
    "alignment",
    "group",
    "ladder_group",
    "layers",
    "correspondence",
    "comparison",
    "specialization",
    "pooled",
)


def plan(config: Config) -> Plan:
    """Find out what a group call has to make.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Plan

    Raises
    ------
    MissingInputError
        There are no participant results, or some participants lack maps that others have
        (without ``--on-error continue``).
    SelectionError
        The filters select nothing.
    """
    names = Names(config.output_dir)
    if not names.path("dataset_description").is_file():
        raise MissingInputError(
            f"OUTPUT_DIR {config.output_dir} has no results of participants.",
            hint="Run the participant level first, with the same OUTPUT_DIR.",
        )
    series = _series(names, config)
    maps = _maps(names, series)
    by_region, skipped = _regions(series, config, names)
    stages: dict[str, list[Job]] = {step: [] for step in STAGES}
    for place, people in sorted(series.items()):
        participants = {p for p, _, _ in people}
        if len(participants) < MIN_PARTICIPANTS:
            only = f"only {len(participants)} participant, a group needs {MIN_PARTICIPANTS}"
            skipped.append(Skip(f"story {place[0]}", only))
            continue
        where = Place(*place)
        ceiling = ceiling_job(where, people, config, names)
        stages["ceilings"].append(ceiling)
        stages["reliability"] += reliability_jobs(ceiling, people, config, names)
        stages["alignment"] += alignment_jobs(ceiling, people, config, names)
        found = {}
        for desc, records in sorted(maps.get(place, {}).items()):
            elsewhere = desc.endswith(ACROSS)  # not all heard several
            missing = [] if elsewhere else sorted(participants - {p for p, _, _ in records})
            skipped += _missing(place, desc, missing, config)
            kept, more = _alike(place, desc, records, config)
            skipped += more
            skipped += _without_excess(where, desc, kept, names)
            if len({p for p, _, _ in kept}) >= MIN_PARTICIPANTS:
                found[desc] = kept
        for one in [where, *([by_region[place]] if place in by_region else [])]:
            _plan_place(one, found, stages, config, names)
    if not stages["ceilings"]:
        raise MissingInputError(
            "; ".join(f"{s.what}: {s.why}" for s in skipped) or "There are no parcel series.",
            hint="Run the participant level for more participants.",
        )
    skipped += _without_clusters(series, config)
    stages["pooled"] += pooled_jobs(stages["group"], config, names)
    kept_stages = [(step, jobs) for step, jobs in stages.items() if jobs]
    return Plan(kept_stages, skipped=tuple(skipped), descriptions=_descriptions(stages))


def _without_clusters(places: Collection[_Place], config: Config) -> list[Skip]:
    """Say why there are no clusters where they were asked for."""
    if not config.stats.tfce or any(Place(*place).has_neighbours for place in places):
        return []
    others = sorted({atlas for _, _, atlas in places if spaces.is_everywhere(atlas)})
    why = "there are no voxelwise maps; parcels form no clusters"
    if others:
        why = f"clusters need neighbours; those of {others[0]} are not known here (a mesh of "
        why += "this space in TEMPLATEFLOW_HOME tells those of vertices)"
    return [Skip("--tfce", why)]


def _without_excess(
    place: Place, desc: str, found: Mapping[Person, Path], names: Names
) -> list[Skip]:
    """Say why heads have no components where their maps are of an earlier version."""
    lacking = without_excess(place, desc, found, names)
    if not lacking:
        return []
    why = (
        f"the maps of {len(lacking)} participants, first sub-{lacking[0]}, have no "
        "stat-normexcess, as they are of an earlier version. Run the participant level again with "
        "--overwrite (it makes the maps of heads anew), then the group level"
    )
    return [Skip(f"specialization of {desc} in story {place.story}", why)]


def _plan_place(
    place: Place,
    found: Mapping[str, Mapping[Person, Path]],
    stages: Mapping[str, list[Job]],
    config: Config,
    names: Names,
) -> None:
    """Plan everything of one story and atlas, or of the regions made of its parcels."""
    ceiling = stages["ceilings"][-1]
    made = []
    for desc, kept in found.items():
        if desc.endswith(LADDER):
            stages["ladder_group"].append(ladder_job(place, desc, kept, config, names))
            continue
        job = group_job(place, desc, kept, ceiling, config, names)
        made.append(job)
        stages["correspondence"] += correspondence_jobs(place, job, config, names)
        if not place.regions:
            more = specialization_jobs(place, job, kept, config, names)
            stages["specialization"] += more
    stages["group"] += made
    stages["layers"] += profile_jobs(place, made, config, names)
    if not spaces.is_everywhere(place.atlas) or place.regions:
        stages["comparison"] += comparison_jobs(place, made, config, names)


def _regions(
    series: Mapping[_Place, Mapping[Person, Path]], config: Config, names: Names
) -> tuple[dict[_Place, Place], list[Skip]]:
    """Return the regions that are asked for, by the place of their parcels.

    Of several atlases in one folder, those that the file was not made for are left out.
    """
    found: dict[_Place, Place] = {}
    skipped: list[Skip] = []
    errors: list[DataError] = []
    for place, people in sorted(series.items()) if config.regions.rois else ():
        where = Place(*place)
        files = labels_of(names, where, min(people, key=lambda p: tuple(str(x) for x in p)))
        maps = MapSet.read(files["label_nii"], files["label_tsv"])
        try:
            read = rois.read_rois(
                Path(config.regions.rois),
                maps,
                hemispheres=config.regions.roi_hemispheres,
                overlap=config.regions.roi_overlap,
            )
        except DataError as error:
            errors.append(error)
            skipped.append(Skip(f"regions of {place[0]} in {place[2]}", error.message))
            continue
        facts = regions.facts_of(read.names, read.colours, read.members)
        found[place] = replace(where, regions=tuple(facts))
        skipped += [Skip(f"regions of {place[0]}", text) for text in read.warnings]
    if errors and not found:
        raise errors[0]
    return found, skipped


def _descriptions(stages: Mapping[str, list[Job]]) -> dict[str, str]:
    """Explain the labels of what the group level adds."""
    texts = {
        "correspondence": (
            "Correspondence",
            "decoding against brain scores over the model's heads",
        ),
        "layers": ("Layers", "layer profiles of embeddings and transformations compared"),
        "specialization": ("Specialization", "principal components of the heads' weights"),
    }
    found = {}
    for step, (ending, text) in texts.items():
        for job in stages[step]:
            found[f"{job.unit.model}{ending}"] = text
    return dict(sorted(found.items()))


def _wanted(config: Config) -> tuple[set[str], set[str]]:
    """Return the participants and tasks of the filters, without prefixes."""
    participants = {p.removeprefix("sub-") for p in config.inputs.participant_label}
    return participants, {t.removeprefix("task-") for t in config.inputs.task_label}


def _series(names: Names, config: Config) -> dict[_Place, dict[Person, Path]]:
    """Find the records of all parcel series by story, space and atlas."""
    participants, tasks = _wanted(config)
    found: dict[_Place, dict[Person, Path]] = defaultdict(dict)
    everything = names.find("timeseries", {"ext": "json"})
    for path in everything:
        labels = names.parse(path)[1]
        if participants and labels["participant"] not in participants:
            continue
        if tasks and labels["story"] not in tasks:
            record = write.read_json(path)
            if record.get("Task") not in tasks:
                continue
        place = (labels["story"], labels["space"], labels["atlas"])
        found[place][(labels["participant"], labels.get("session"), labels.get("run"))] = path
    if not everything:
        raise MissingInputError(
            f"OUTPUT_DIR {config.output_dir} has no results of participants.",
            hint="Run the participant level first, with the same OUTPUT_DIR.",
        )
    if not found:
        raise SelectionError(
            f"The filters select none of {len(everything)} parcel series in {config.output_dir}."
        )
    return found


def _maps(
    names: Names, series: Mapping[_Place, Mapping[Person, Path]]
) -> dict[_Place, dict[str, dict[Person, Path]]]:
    """Find the records of all maps by place and ``desc``; those of ladders hold gains."""
    found: dict[_Place, dict[str, dict[Person, Path]]] = defaultdict(lambda: defaultdict(dict))
    records = [p for s in ("r", "gain") for p in names.find("boldmap", {"ext": "json", "stat": s})]
    for path in records:
        labels = names.parse(path)[1]
        place = (labels["story"], labels["space"], labels["atlas"])
        person = (labels["participant"], labels.get("session"), labels.get("run"))
        if person in series.get(place, {}):
            found[place][labels["desc"]][person] = path
    return found


def _missing(place: _Place, desc: str, missing: list[str], config: Config) -> list[Skip]:
    """Refuse to go on without participants, unless told so."""
    if not missing:
        return []
    listed = " ".join(missing)
    if config.execution.on_error == "stop":
        raise MissingInputError(
            f"Story {place[0]}, {desc}: {len(missing)} participants have parcel series but no "
            f"maps: {listed}.",
            hint="Run the participant level for them, or go on without with --on-error continue.",
        )
    return [Skip(f"sub-{p} {place[0]} {desc}", "no maps", p) for p in missing]


def _alike(
    place: _Place, desc: str, found: Mapping[Person, Path], config: Config
) -> tuple[dict[Person, Path], list[Skip]]:
    """Keep maps that were made with the settings that most participants have.

    Scores against different nuisance bands, delays or folds must not be averaged. People who heard
    other stories may have other bands across them, which no other call would change.
    """
    made: dict[str, list[Person]] = defaultdict(list)
    steps = {person: _settings_of(path) for person, path in found.items()}
    for person, step in steps.items():
        made[canonical(step)].append(person)
    if len(made) < 2:
        return dict(found), []
    most = max(made.values(), key=len)
    others = [person for several in made.values() if several is not most for person in several]
    what = _differences(steps[most[0]], steps[others[0]])
    why = f"made with other settings than those of {len(most)} others ({what})"
    one, other = steps[most[0]], [steps[person] for person in others]
    unlike = {name for name in one if any(step.get(name) != one[name] for step in other)}
    by_stories = desc.endswith(ACROSS) and unlike <= OF_STORIES
    if config.execution.on_error == "stop" and not by_stories:
        raise DataError(
            f"Story {place[0]}, {desc}: the maps of {len(others)} participants, first "
            f"sub-{others[0][0]}, were {why}.",
            hint="Run the participant level for all with the same settings (--overwrite), or "
            "leave them out with --on-error continue.",
        )
    kept = {person: path for person, path in found.items() if person not in others}
    return kept, [Skip(f"sub-{p[0]} {place[0]} {desc}", why, p[0]) for p in others]


def _settings_of(path: Path) -> dict[str, object]:
    """Return what must be equal in maps that are averaged."""
    stored = write.read_json(path)
    step = stored.get("Step") if isinstance(stored.get("Step"), Mapping) else {}
    model = stored.get("Model") if isinstance(stored.get("Model"), Mapping) else {}
    found = dict(step.get("Parameters") or {})
    found["bands"] = [band.get("Name") for band in stored.get("Bands") or ()]
    found["columns"] = stored.get("Columns")
    return {**found, **{f"model {k}": model.get(k) for k in ("Sha256", "Context", "ContextTRs")}}


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    """Say in what two settings differ."""
    names = [name for name in one if one.get(name) != other.get(name)]
    return "; ".join(f"{n}: {other.get(n)}, not {one.get(n)}" for n in names[:3])
