"""Plan the group level from the output folder alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import DataError, MissingInputError, OutputError, SelectionError
from bids_brainlm.plan.records import Plan, Skip
from bids_brainlm.steps import ceilings, correspondence, group, layers
from bids_brainlm.steps.base import Job, Unit, canonical

MIN_PARTICIPANTS = 2
LAYERED = ("Embeddings", "Transformations")
MIN_LAYERS = 3  # with layer 0, or two others; fewer have no profile
HEADS = "Heads"  # ends the desc of head-wise maps
Place = tuple[str, str, str]  # story, space, atlas
Person = tuple[str, str | None, str | None]  # participant, session, run


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
    skipped: list[Skip] = []
    first, second, third = [], [], []
    for place, people in sorted(series.items()):
        participants = {p for p, _, _ in people}
        if len(participants) < MIN_PARTICIPANTS:
            only = f"only {len(participants)} participant, a group needs {MIN_PARTICIPANTS}"
            skipped.append(Skip(f"story {place[0]}", only))
            continue
        ceiling = _ceiling(place, people, config, names)
        first.append(ceiling)
        for desc, found in sorted(maps.get(place, {}).items()):
            missing = sorted({p for p, _, _ in people} - {p for p, _, _ in found})
            skipped += _missing(place, desc, missing, config)
            found, more = _alike(place, desc, found, config)
            skipped += more
            if len({p for p, _, _ in found}) >= MIN_PARTICIPANTS:
                second.append(_group(place, desc, found, ceiling, config, names))
                third += _correspondence(second[-1], config, names)
    if not first:
        raise MissingInputError(
            "; ".join(f"{s.what}: {s.why}" for s in skipped) or "There are no parcel series.",
            hint="Run the participant level for more participants.",
        )
    stages = [("ceilings", first), ("group", second)]
    profiles = _profiles(second, config, names)
    stages += [("layers", profiles)] if profiles else []
    stages += [("correspondence", third)] if third else []
    labels = {job.unit.model for job in [*profiles, *third]}
    descriptions = {
        desc: text
        for label in sorted(str(one) for one in labels)
        for desc, text in (
            (f"{label}Correspondence", "decoding against brain scores over the model's heads"),
            (f"{label}Layers", "layer profiles of embeddings and transformations compared"),
        )
    }
    return Plan(stages, skipped=tuple(skipped), descriptions=descriptions)


def _wanted(config: Config) -> tuple[set[str], set[str]]:
    """Return the participants and tasks of the filters, without prefixes."""
    participants = {p.removeprefix("sub-") for p in config.inputs.participant_label}
    return participants, {t.removeprefix("task-") for t in config.inputs.task_label}


def _series(names: Names, config: Config) -> dict[Place, dict[Person, Path]]:
    """Find the records of all parcel series by story, space and atlas."""
    participants, tasks = _wanted(config)
    found: dict[Place, dict[Person, Path]] = defaultdict(dict)
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
    names: Names, series: Mapping[Place, Mapping[Person, Path]]
) -> dict[Place, dict[str, dict[Person, Path]]]:
    """Find the records of all maps by place and ``desc``."""
    found: dict[Place, dict[str, dict[Person, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in names.find("boldmap", {"ext": "json", "stat": "r"}):
        labels = names.parse(path)[1]
        place = (labels["story"], labels["space"], labels["atlas"])
        person = (labels["participant"], labels.get("session"), labels.get("run"))
        if person in series.get(place, {}):
            found[place][labels["desc"]][person] = path
    return found


def _missing(place: Place, desc: str, missing: list[str], config: Config) -> list[Skip]:
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
    place: Place, desc: str, found: Mapping[Person, Path], config: Config
) -> tuple[dict[Person, Path], list[Skip]]:
    """Keep maps that were made with the settings that most participants have.

    Scores against different nuisance bands, delays or folds must not be averaged.
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
    if config.execution.on_error == "stop":
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


def _key(path: Path) -> str:
    """Return the key in a record."""
    key = write.read_json(path).get("Key")
    if not isinstance(key, str):
        raise OutputError(f"{path} has no key, expected a sidecar of bids_brainlm.")
    return key


def _labels(names: Names, place: Place, person: Person) -> dict[str, Path]:
    """Return the atlas on the grid of one run."""
    story, space, atlas = place
    participant, session, run = person
    unit = Unit(
        story=story, space=space, atlas=atlas, participant=participant, session=session, run=run
    )
    return {
        "label_nii": unit.place(names, "boldmap", "nii.gz", {"stat": "label"}),
        "label_tsv": unit.place(names, "boldmap", "tsv", {"stat": "label"}),
    }


def _ceiling(place: Place, people: Mapping[Person, Path], config: Config, names: Names) -> Job:
    """Plan the ceilings of one story."""
    unit = Unit(story=place[0], space=place[1], atlas=place[2])
    first = min(people, key=lambda p: tuple(str(x) for x in p))
    files = _labels(names, place, first)
    for (participant, session, run), path in people.items():
        data = path.with_suffix(".tsv")
        data = data if data.is_file() else path.with_suffix(".nc")
        files[f"series:{participant}:{session}:{run}"] = data
        labels = _labels(names, place, (participant, session, run))
        files[f"labels:{participant}:{session}:{run}"] = labels["label_tsv"]
    return Job(
        step=ceilings.NAME,
        version=ceilings.VERSION,
        unit=unit,
        record=ceilings.record(unit, names),
        outputs=ceilings.outputs(unit, names),
        files=files,
        settings=asdict(ceilings.params(config)),
        fingerprints={names.relative(p): _key(p) for p in people.values()},
    )


def _profiles(jobs: list[Job], config: Config, names: Names) -> list[Job]:
    """Plan layer profiles of every model and place: embeddings, transformations, or both."""
    found: dict[tuple[Place, str], list[Job]] = defaultdict(list)
    for job in jobs:
        for ending in LAYERED:
            if str(job.unit.feature).endswith(ending):
                place = (str(job.unit.story), str(job.unit.space), str(job.unit.atlas))
                found[place, str(job.unit.feature).removesuffix(ending)].append(job)
    made = []
    for (place, label), several in found.items():
        several.sort(key=lambda job: str(job.unit.feature))
        unit = Unit(story=place[0], space=place[1], atlas=place[2], model=label)
        descs = [str(job.unit.feature) for job in several]
        if any(len(write.read_json(j.files["first"])["Columns"]) < MIN_LAYERS for j in several):
            continue
        files = {k: several[0].files[k] for k in ("label_nii", "label_tsv")}
        for job in several:
            scores = {k: p for k, p in job.files.items() if k.startswith("r:")}
            files.update({f"{job.unit.feature}:{k[2:]}": p for k, p in scores.items()})
        made.append(
            Job(
                step=layers.NAME,
                version=layers.VERSION,
                unit=unit,
                record=layers.record(unit, names, descs),
                outputs=layers.outputs(unit, names, descs),
                upstream=tuple(several),
                files=files,
                settings=asdict(layers.params(config)),
                fingerprints={names.relative(job.record): job.key for job in several},
            )
        )
    return made


def _correspondence(job: Job, config: Config, names: Names) -> list[Job]:
    """Plan the correspondence of decoding and encoding, where heads were decoded."""
    label = str(job.unit.feature).removesuffix(HEADS)
    if not str(job.unit.feature).endswith(HEADS):
        return []
    unit = Unit(story=job.unit.story, space=job.unit.space, atlas=job.unit.atlas, model=label)
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
                "decoding": table,
                "label_nii": job.files["label_nii"],
                "label_tsv": job.files["label_tsv"],
            },
            settings=asdict(correspondence.params(config)),
            fingerprints={names.relative(record): _key(record)},
        )
    ]


def _map(names: Names, place: Place, desc: str, stat: str, person: Person) -> Path:
    """Return the table of one statistic of one run."""
    unit = Unit(
        story=place[0],
        space=place[1],
        atlas=place[2],
        participant=person[0],
        session=person[1],
        run=person[2],
    )
    return unit.place(names, "boldmap", "tsv", {"desc": desc, "stat": stat})


def _group(
    place: Place,
    desc: str,
    found: Mapping[Person, Path],
    ceiling: Job,
    config: Config,
    names: Names,
) -> Job:
    """Plan the group maps of one feature space."""
    unit = Unit(story=place[0], space=place[1], atlas=place[2], feature=desc)
    first = min(found, key=lambda p: tuple(str(x) for x in p))
    files = {**_labels(names, place, first), "first": found[first]}
    available = []
    for stat in ("r", "r2") if desc == "nuisance" else ("r", "rjoint", "r2", "unique"):
        paths = {person: _map(names, place, desc, stat, person) for person in found}
        if any(path.is_file() for path in paths.values()):  # one that lacks is an error later
            available.append(stat)
            files.update({f"{stat}:{p}:{s}:{r}": path for (p, s, r), path in paths.items()})
    stats = group.statistics(available)
    return Job(
        step=group.NAME,
        version=group.VERSION,
        unit=unit,
        record=group.record(unit, names),
        outputs=group.outputs(unit, names, stats),
        upstream=(ceiling,),
        files=files,
        settings=asdict(group.params(config)),
        fingerprints={names.relative(p): _key(p) for p in found.values()},
    )
