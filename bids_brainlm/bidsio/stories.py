"""From events to stories: which narrative was heard when in a run."""

from __future__ import annotations

import csv
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import PurePosixPath

from bids_brainlm.bidsio.dataset import Event, RawRun, RunKey, read_events, repetition_time
from bids_brainlm.bidsio.names import alphanumeric
from bids_brainlm.errors import BrainLMError, TimingError
from bids_brainlm.records import TRGrid

log = logging.getLogger(__name__)

MAX_PIECES = 20  # more story events of one file than this are words or sentences, not stories


@dataclass(frozen=True, slots=True)
class StoryRun:
    """A story as it was heard in one run.

    ``stimulus`` is the stem of the stimulus file without ``_audio``. Times in s from the run's
    first volume: ``audio_onset`` is when the audio file started (it may be negative and lie
    before the story, behind music), ``story_onset`` and ``story_duration`` are the story's
    own event. ``tr`` in s is that of the run.
    """

    run: RawRun
    story: str
    stimulus: str
    audio_onset: float
    story_onset: float
    story_duration: float
    tr: float

    @property
    def key(self) -> RunKey:
        """The run's key: participant, session, task, run."""
        return self.run.key

    @property
    def task(self) -> str:
        """The task label."""
        return self.run.task


@dataclass(frozen=True, slots=True)
class StoryTiming:
    """The timing of a story that all its runs are held against; times in s."""

    story: str
    stimulus: str
    tr: float
    audio_onset: float
    story_onset: float
    story_duration: float
    n_runs: int
    n_agreeing: int

    def grid(self) -> TRGrid:
        """Return the volumes of the story window."""
        return story_grid(self.tr, self.story_onset, self.story_duration)

    def with_audio_onset(self, seconds: float) -> StoryTiming:
        """Return the same timing with another start of the audio file."""
        return replace(self, audio_onset=float(seconds))


@lru_cache(maxsize=1)
def _piece_names() -> dict[tuple[str, int], str]:
    """Return the names of the stories that share one stimulus file, by stem and order."""
    text = resources.files("bids_brainlm").joinpath("data/stories.tsv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {(row["stimulus"], int(row["order"])): row["story"] for row in rows}


def stimulus_stem(stim_file: str) -> str:
    """Return the name of a stimulus file without folder, extension and ``_audio``.

    Examples
    --------
    >>> stimulus_stem("pieman_audio.wav")
    'pieman'
    """
    return PurePosixPath(stim_file).name.partition(".")[0].removesuffix("_audio")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A story event before it gets its name; ``order`` counts the events of one file."""

    stimulus: str
    order: int
    n_pieces: int
    audio_onset: float
    onset: float
    duration: float


def _pieces(run: RawRun) -> list[_Piece]:
    """Return the story events of a run.

    Raises
    ------
    TimingError
        The events cannot be read, or one file is played in too many pieces.
    """
    if run.events_path is None:
        return []
    events = read_events(run.events_path)
    typed = any(event.trial_type is not None for event in events)
    stories = [event for event in events if _is_story(event, typed)]
    pieces = []
    starts: dict[str, float] = {}
    for event in events:
        if event.stim_file is not None:
            starts.setdefault(stimulus_stem(event.stim_file), event.onset)
    counts = Counter(_stem(event, run) for event in stories)
    seen: Counter[str] = Counter()
    for event in stories:
        stem = _stem(event, run)
        seen[stem] += 1
        if counts[stem] > MAX_PIECES:
            raise TimingError(
                f"{run.events_path}: found {counts[stem]} story events of {event.stim_file}, "
                f"expected one a story (at most {MAX_PIECES}).",
                hint="Mark the story with one row of trial_type 'story' and the duration of "
                "the whole narrative.",
            )
        if not event.duration > 0:
            raise TimingError(
                f"{run.events_path}: the story event at {event.onset:g} s has a duration of "
                f"{event.duration:g} s, expected more than 0 s."
            )
        start = starts.get(stem, event.onset)
        pieces.append(_Piece(stem, seen[stem], counts[stem], start, event.onset, event.duration))
    return pieces


def _is_story(event: Event, typed: bool) -> bool:
    """Tell whether an event is a story; without any trial_type, whatever has a file is."""
    return event.trial_type == "story" if typed else event.stim_file is not None


def _stem(event: Event, run: RawRun) -> str:
    """Return the stimulus of an event; the task where the events name no file."""
    return run.task if event.stim_file is None else stimulus_stem(event.stim_file)


def _name(piece: _Piece, task: str, single_tasks: frozenset[str]) -> str:
    """Return the name of the story of a piece."""
    if task in single_tasks:
        return task
    stem = alphanumeric(piece.stimulus)
    if piece.n_pieces == 1:
        return stem
    return _piece_names().get((piece.stimulus, piece.order), f"{stem}{piece.order}")


def find_stories(
    runs: Sequence[RawRun], all_runs: Iterable[RawRun] | None = None
) -> list[StoryRun]:
    """Find the stories that were heard in runs.

    Parameters
    ----------
    runs : sequence of RawRun
        The runs of interest.
    all_runs : iterable of RawRun, optional
        All runs of the dataset, whatever was selected: the story of a task that plays only
        one in all its runs is called like the task, so a name must not depend on the
        filters. Runs in here whose events cannot be read are passed over.

    Returns
    -------
    list of StoryRun
        In the order of ``runs``; a run can hold several stories or none.

    Raises
    ------
    TimingError
        The events or the repetition time of one of ``runs`` cannot be used.

    Notes
    -----
    The audio file starts at the onset of the first event with that file, be it music or
    story. Events of other types (movie) are left out.
    """
    pieces = {run.key: _pieces(run) for run in runs}
    tasks = {run.task for run in runs}
    played: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    for run in [*runs, *(all_runs or ())]:
        if run.task not in tasks:
            continue
        try:
            here = pieces[run.key] if run.key in pieces else _pieces(run)
        except BrainLMError as error:
            log.debug("%s is passed over: %s", run.name, error.message)
            continue
        played[run.task].update((piece.stimulus, piece.order) for piece in here)
    single_tasks = frozenset(task for task, stories in played.items() if len(stories) == 1)
    found = []
    for run in runs:
        tr = repetition_time(run) if pieces[run.key] else math.nan
        for piece in pieces[run.key]:
            name = _name(piece, run.task, single_tasks)
            times = (piece.audio_onset, piece.onset, piece.duration)
            found.append(StoryRun(run, name, piece.stimulus, *times, tr))
    return found


def story_timing(story_runs: Sequence[StoryRun]) -> StoryTiming:
    """Return the most common timing of a story.

    Parameters
    ----------
    story_runs : sequence of StoryRun
        All of one story, at least one.

    Returns
    -------
    StoryTiming
        The most common (TR, start of the audio file, onset, duration); among equally common
        ones the smallest, so that the order of the runs does not matter.

    Raises
    ------
    TimingError
        No runs, or runs of several stories or stimuli.
    """
    names = sorted({(item.story, item.stimulus) for item in story_runs})
    if len(names) != 1:
        raise TimingError(
            f"expected runs of one story and one stimulus file, found {names}.",
            hint="Give stories that share a name different names with --task-label.",
        )
    counts = Counter(
        (item.tr, item.audio_onset, item.story_onset, item.story_duration) for item in story_runs
    )
    times, n_agreeing = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return StoryTiming(*names[0], *times, len(story_runs), n_agreeing)


def timing_difference(
    story_run: StoryRun, timing: StoryTiming, tolerance: float = 0.1
) -> str | None:
    """Tell how the timing of one run differs from that of the story.

    Parameters
    ----------
    story_run : StoryRun
        The run.
    timing : StoryTiming
        The timing of the story.
    tolerance : float
        Largest difference in s of onsets and duration. The TR must agree to 1 ms.

    Returns
    -------
    str or None
        None when they agree, else what differs, in words with units.

    Notes
    -----
    Times are compared as they are in the events: hold a run against the timing before
    `StoryTiming.with_audio_onset`, since an override holds for all runs alike.
    """
    pairs = (
        ("TR", story_run.tr, timing.tr, 1e-3),
        ("audio onset", story_run.audio_onset, timing.audio_onset, tolerance),
        ("story onset", story_run.story_onset, timing.story_onset, tolerance),
        ("story duration", story_run.story_duration, timing.story_duration, tolerance),
    )
    differences = [
        f"{name} is {found:g} s, expected {expected:g} s"
        for name, found, expected, allowed in pairs
        if abs(found - expected) > allowed + 1e-9
    ]
    return "; ".join(differences) or None


def story_grid(tr: float, story_onset: float, story_duration: float) -> TRGrid:
    """Return the volumes of a story window.

    Parameters
    ----------
    tr : float
        Repetition time in s.
    story_onset, story_duration : float
        The story's event in s from the first volume; the onset may be negative.

    Returns
    -------
    TRGrid
        From the volume that holds the onset (the first, if the story began before it) to
        the last that the story reaches. A story that starts or ends within a microsecond
        of a border counts as on the border.

    Raises
    ------
    TimingError
        The story ends before the first volume, or the TR is not positive.
    """
    if not tr > 0:
        raise TimingError(f"the repetition time is {tr:g} s, expected more than 0 s.")
    first = max(0, math.floor((story_onset + 1e-6) / tr))
    end = math.ceil((story_onset + story_duration - 1e-6) / tr)
    if end <= first:
        raise TimingError(
            f"the story lasts from {story_onset:g} s to {story_onset + story_duration:g} s, "
            "expected an end after the first volume (0 s)."
        )
    return TRGrid(first, end - first, tr)
