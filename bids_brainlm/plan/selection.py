"""Which stories, runs and images a call is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bids_brainlm.bidsio import bold, dataset, stories, transcript_files
from bids_brainlm.config import Config, suggest
from bids_brainlm.errors import BrainLMError, MissingInputError, SelectionError, TimingError
from bids_brainlm.plan.records import Skip

PHASE_TOLERANCE = 0.1  # s between word times and volumes, beyond which runs need own features


@dataclass(frozen=True)
class Story:
    """A story with its transcript and its timing."""

    name: str
    timing: stories.StoryTiming
    transcript: Path
    has_music: bool
    runs: tuple[stories.StoryRun, ...]


@dataclass(frozen=True)
class Selection:
    """The stories of a call, and the images of the selected runs."""

    stories: tuple[Story, ...]
    images: Mapping[dataset.RunKey, bold.BoldRun]
    skipped: tuple[Skip, ...]
    sources: tuple[Mapping[str, object], ...]


def select(config: Config, *, need_images: bool) -> Selection:
    """Find out what the filters select.

    Parameters
    ----------
    config : Config
    need_images : bool
        False at the stimulus level, where no participant is read.

    Returns
    -------
    Selection

    Raises
    ------
    DatasetError
        BIDS_DIR is not usable.
    SelectionError
        The filters select nothing.
    MissingInputError
        Images or transcripts that were asked for are missing.
    TimingError
        A run that was asked for has other times than its story.
    """
    description = dataset.check_dataset(config.bids_dir)
    everything = dataset.find_events(config.bids_dir)
    filters = dataset.Filters.of(
        participants=config.inputs.participant_label,
        sessions=config.inputs.session_label,
        runs=config.inputs.run_label,
    )
    _check_participants(everything, filters, config.bids_dir)
    readable, unreadable = _readable(everything)
    skipped = _unreadable_skips(unreadable, filters, config)
    if unreadable and not readable:
        raise unreadable[0][1]
    heard = stories.find_stories(readable, readable)
    lacking = _listed_without_run(everything, heard, filters, config)
    wanted = _wanted(heard, filters, config)
    skipped = [*lacking, *skipped]
    found, more = _stories(heard, wanted, config)
    skipped += more
    images: dict[dataset.RunKey, bold.BoldRun] = {}
    if need_images:
        images, more = _images(found, filters, config)
        skipped += more
        found = [replace(s, runs=tuple(r for r in s.runs if r.key in images)) for s in found]
        found = [story for story in found if story.runs]
    source = {"URL": str(description.get("DatasetDOI", "") or "")} if need_images else {}
    sources = [{k: v for k, v in source.items() if v}]
    return Selection(tuple(found), images, tuple(skipped), tuple(s for s in sources if s))


def _check_participants(
    runs: Sequence[dataset.RawRun], filters: dataset.Filters, bids_dir: Path
) -> None:
    """Refuse participants that are not in the dataset."""
    known = {run.participant for run in runs}
    unknown = sorted(filters.participants - known)
    if unknown:
        close = suggest(unknown[0], sorted(known))
        raise SelectionError(
            f"--participant-label {' '.join(unknown)}: found no functional runs of "
            f"{'them' if len(unknown) > 1 else 'this participant'} in {bids_dir}, which has "
            f"{len(known)} participants.{close}"
        )


def _readable(
    runs: Sequence[dataset.RawRun],
) -> tuple[list[dataset.RawRun], list[tuple[dataset.RawRun, BrainLMError]]]:
    """Separate runs whose events can be read."""
    good, bad = [], []
    for run in runs:
        if run.events_path is None:
            continue
        try:
            dataset.read_events(run.events_path)
            dataset.repetition_time(run)
            good.append(run)
        except BrainLMError as error:
            bad.append((run, error))
    return good, bad


def _unreadable_skips(
    unreadable: Sequence[tuple[dataset.RawRun, BrainLMError]],
    filters: dataset.Filters,
    config: Config,
) -> list[Skip]:
    """Pass over runs with bad events; those that were asked for by name are errors."""
    tasks = {t.removeprefix("task-") for t in config.inputs.task_label}
    found = []
    for run, error in unreadable:
        if not filters.match(run.participant, run.session, run.task, run.run):
            continue
        if tasks and run.task not in tasks:
            continue
        if filters.participants:
            raise error
        found.append(Skip(run.name, error.message, run.participant))
    return found


def _listed_without_run(
    everything: Sequence[dataset.RawRun],
    heard: Sequence[stories.StoryRun],
    filters: dataset.Filters,
    config: Config,
) -> list[Skip]:
    """Pass over runs that participants.tsv lists (column ``task``) and the tree does not hold.

    An error where the participant was asked for by name and has no other selected run.
    """
    names = {t.removeprefix("task-") for t in config.inputs.task_label}
    chosen = [s for s in heard if not names or s.task in names or s.story in names]
    tasks = {s.task for s in chosen}
    have = {(run.participant, run.task) for run in everything}
    busy = {s.run.participant for s in chosen}
    table = dataset.read_participants(config.bids_dir / "participants.tsv")
    found = []
    for participant, cells in sorted(table.items()):
        if filters.participants and participant not in filters.participants:
            continue
        listed = {task.strip() for task in cells.get("task", "").split(",")}
        for task in sorted(tasks & listed):
            if (participant, task) in have:
                continue
            name = dataset.run_name((participant, None, task, None))
            why = "participants.tsv lists it, but the dataset holds no such run"
            if filters.participants and participant not in busy:
                raise MissingInputError(
                    f"{name}: {why}.",
                    hint=f"Leave {participant} out of --participant-label, or get its image "
                    "and events.tsv.",
                )
            found.append(Skip(name, why, participant))
    return found


def _wanted(
    heard: Sequence[stories.StoryRun], filters: dataset.Filters, config: Config
) -> list[stories.StoryRun]:
    """Return the story runs that the filters select; a task or a story may be named."""
    names = {t.removeprefix("task-") for t in config.inputs.task_label}
    known = {s.task for s in heard} | {s.story for s in heard}
    unknown = sorted(names - known)
    if unknown:
        raise SelectionError(
            f"--task-label {' '.join(unknown)}: found no such task or story; there are "
            f"{', '.join(sorted(known)) or 'none with events'}.{suggest(unknown[0], sorted(known))}"
        )
    chosen = [
        s
        for s in heard
        if filters.match(*s.key) and (not names or s.task in names or s.story in names)
    ]
    if not chosen:
        raise SelectionError(
            f"The filters select no run with a story, out of {len(heard)} story runs in "
            f"{config.bids_dir}."
        )
    return chosen


def _stories(
    heard: Sequence[stories.StoryRun], wanted: Sequence[stories.StoryRun], config: Config
) -> tuple[list[Story], list[Skip]]:
    """Give each story its timing, its transcript and its runs."""
    by_name: dict[str, list[stories.StoryRun]] = defaultdict(list)
    for run in heard:
        by_name[run.story].append(run)
    onsets, trs = dict(config.inputs.stimulus_onset), dict(config.inputs.repetition_time)
    for flag, given in (("--stimulus-onset", onsets), ("--repetition-time", trs)):
        unknown = sorted(set(given) - set(by_name))
        if unknown:
            raise SelectionError(
                f"{flag} names the story {unknown[0]!r}, expected one of "
                f"{', '.join(sorted(by_name))}.{suggest(unknown[0], sorted(by_name))}"
            )
    found, skipped = [], []
    folder = Path(config.inputs.transcripts or config.bids_dir / "stimuli")
    for name in dict.fromkeys(run.story for run in wanted):
        timing = stories.story_timing(by_name[name])
        search = transcript_files.find_transcript(folder, timing.stimulus, name)
        if search.path is None:
            skipped.append(_no_transcript(name, folder, search.looked_for, config))
            continue
        runs, more = _agreeing([r for r in wanted if r.story == name], timing, config)
        skipped += more
        if name in onsets:
            timing = timing.with_audio_onset(onsets[name])
        timing = replace(timing, tr=trs.get(name, timing.tr))
        runs = [replace(r, tr=trs.get(name, r.tr)) for r in runs]
        music = by_name[name][0].audio_onset < timing.story_onset - 1e-6
        found.append(Story(name, timing, search.path, music or name in onsets, tuple(runs)))
    if not found:
        raise MissingInputError(
            "; ".join(f"{s.what}: {s.why}" for s in skipped[:3]) or "No story can be used.",
            hint="Give the folder with the aligned transcripts with --transcripts.",
        )
    return found, skipped


def _no_transcript(name: str, folder: Path, looked_for: Sequence[str], config: Config) -> Skip:
    """Pass over a story without transcript; one that was asked for by name is an error."""
    absent = [place for place in looked_for if "datalad get" in place]
    shown = absent or [*looked_for[:4], "..."]
    why = f"found no transcript in {folder}; looked for {', '.join(shown)}"
    if name in {t.removeprefix("task-") for t in config.inputs.task_label}:
        raise MissingInputError(
            f"Story {name!r}: {why}",
            hint="Give the folder with the aligned transcripts with --transcripts.",
        )
    return Skip(name, why)


def _agreeing(
    runs: Sequence[stories.StoryRun], timing: stories.StoryTiming, config: Config
) -> tuple[list[stories.StoryRun], list[Skip]]:
    """Keep runs in which words fall on volumes as in the story's features.

    A run may begin later by whole volumes; its own window is then cut.
    """
    kept, skipped = [], []
    phase = timing.grid().onset - timing.audio_onset
    for run in runs:
        own = stories.story_grid(run.tr, run.story_onset, run.story_duration)
        off = own.onset - run.audio_onset - phase
        if abs(run.tr - timing.tr) < 1e-3 and abs(off) <= PHASE_TOLERANCE:
            kept.append(run)
            continue
        why = stories.timing_difference(run, timing) or f"words are off by {off:.2f} s"
        why += f" (as in {timing.n_agreeing} of {timing.n_runs} runs of {timing.story!r})"
        if config.inputs.participant_label:
            raise TimingError(f"{run.run.name}: {why}.")
        skipped.append(Skip(f"{run.run.name} {run.story}", why, run.run.participant))
    return kept, skipped


def _images(
    found: Sequence[Story], filters: dataset.Filters, config: Config
) -> tuple[dict[dataset.RunKey, bold.BoldRun], list[Skip]]:
    """Find the image of every selected run."""
    given = [Path(p) for p in config.inputs.derivatives]
    roots = bold.derivative_roots(config.bids_dir, given)
    tasks = frozenset(run.task for story in found for run in story.runs)
    known = {
        one.key: one
        for one in bold.find_bold(
            roots,
            filters=replace(filters, tasks=tasks),
            space=config.inputs.space or None,
            resolution=config.inputs.resolution or None,
            denoise=config.inputs.denoise,
            atlas=config.inputs.atlas,
        )
    }
    images, skipped = {}, []
    for run in {r.key: r for story in found for r in story.runs}.values():
        image = known.get(run.key)
        if image is None:
            where = f"in space {config.inputs.space} " if config.inputs.space else ""
            why = f"no desc-clean or desc-preproc image {where}in "
            why += ", ".join(root.name for root in roots)
            skipped.append(Skip(run.run.name, why, run.run.participant))
        elif not image.present:
            why = image.why_absent
            skipped.append(Skip(run.run.name, why, run.run.participant))
        else:
            images[run.key] = image
    if config.inputs.participant_label and skipped:
        have = {key[0] for key in images}
        lacking = [s for s in skipped if s.participant not in have]
        if lacking:
            raise _no_image(lacking[0].what, lacking[0].why)
    if not images:
        first = skipped[0] if skipped else Skip("The dataset", "no images")
        raise _no_image(first.what, first.why)
    return images, skipped


def _no_image(what: str, why: str) -> MissingInputError:
    """Say that no image can be used, and the command that gets it."""
    _, _, command = why.partition("run: ")
    hint = f"Run: {command}" if command else "Give the preprocessed images with --derivatives."
    return MissingInputError(f"{what}: {why}.", hint=hint)
