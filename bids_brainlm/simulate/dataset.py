"""Write a simulated dataset: raw tree, alignments, derivatives and the truth."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import stories as story_names
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.dataset import Filters, RawRun, check_dataset, find_events
from bids_brainlm.bidsio.stories import StoryRun
from bids_brainlm.errors import MissingInputError, OutputError, SelectionError
from bids_brainlm.simulate import bold, derivatives, features, images, meshes, stories, tree
from bids_brainlm.simulate.narratives import run_length
from bids_brainlm.simulate.seeds import generator
from bids_brainlm.simulate.settings import SimulationSettings

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Simulation:
    """What was written.

    Attributes
    ----------
    root : Path
        The dataset.
    truth_tsv, truth_json : Path
        What is planted, one row a parcel, and all settings.
    n_runs : int
        Runs with derivatives.
    """

    root: Path
    truth_tsv: Path
    truth_json: Path
    n_runs: int


def write_dataset(
    out_dir: Path, settings: SimulationSettings, progress: Progress | None = None
) -> Simulation:
    """Write a dataset with a planted, known signal.

    Parameters
    ----------
    out_dir : Path
        Where to write. With ``settings.into`` it must be that tree: only ``derivatives/`` and
        ``stimuli/gentle/`` are written there.
    settings : SimulationSettings
        Everything that decides the result; same settings, same bytes.
    progress : callable, optional
        Is told one line per story and run.

    Returns
    -------
    Simulation

    Raises
    ------
    OutputError
        The folder is not empty, or has a simulation already.
    SelectionError
        No run of the tree is selected.
    MissingInputError
        A story has no transcript; an atlas or a model is missing.
    """
    tell = progress or log.info
    out_dir = Path(settings.into or out_dir)
    in_place = _check_output(out_dir, settings)
    if in_place:
        return _write_all(out_dir, settings, tell)
    staged = out_dir.with_name(f".{out_dir.name}.tmp-{secrets.token_hex(4)}")
    try:
        made = _write_all(staged, settings, tell)
        os.replace(staged, out_dir)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    places = (made.truth_tsv, made.truth_json)
    return Simulation(out_dir, *(out_dir / p.relative_to(staged) for p in places), made.n_runs)


def _write_all(out_dir: Path, settings: SimulationSettings, tell: Progress) -> Simulation:
    """Write everything into a folder."""
    parcels = meshes.on_mesh(settings) if settings.is_surface else images.parcellate(settings)
    model = features.load_model(settings)
    if settings.into is None:
        _write_own_tree(out_dir, settings)
    runs = _runs(out_dir, settings)
    transcripts_dir = _transcripts(out_dir, runs, settings)
    truth = bold.plant(
        parcels.n_parcels,
        model.n_layers,
        model.n_heads or 0,
        generator(settings.seed, "truth"),
        noise_share=1.0 if settings.noise.signal == 0 else settings.noise_share,
        head_share=settings.head_share,
        word_share=settings.word_share,
    )
    responses = _Responses(model, truth, transcripts_dir, settings, tell)
    writer = derivatives.Writer(out_dir, parcels, settings)
    writer.describe()
    for number, (run, heard) in enumerate(runs, start=1):
        series = _core_series(run, heard, responses, settings)
        writer.run(run, series, heard[0].tr)
        tell(f"[{number}/{len(runs)}] {run.name}: {len(series)} volumes")
    return _write_truth(out_dir, truth, parcels, responses, (settings, runs))


def _core_series(
    run: RawRun, heard: Sequence[StoryRun], responses: _Responses, settings: SimulationSettings
) -> np.ndarray:
    """Return the core series of a run, shape (n_volumes, n_parcels)."""
    end = max(story.story_onset + story.story_duration for story in heard)
    real = settings.into is not None
    n_volumes = run_length(run.task, run.participant, end, heard[0].tr, real=real)
    rng = generator(settings.seed, "private", run.name)
    series = bold.private(n_volumes, responses.truth, settings.noise, rng)
    gain = _gain(run.participant, settings)
    for story in heard:
        first, locked = responses.of(story)
        part = bold.mix(locked, responses.truth, settings.noise, gain)
        stop = min(first + len(part), n_volumes)
        series[first:stop] += part[: stop - first]
    return series


def _check_output(out_dir: Path, settings: SimulationSettings) -> bool:
    """Refuse to write over what is there; tell whether to write in place."""
    if settings.into is not None:
        check_dataset(out_dir)
        occupied = (out_dir / "derivatives" / "simulation").exists()
    else:
        occupied = out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir()))
    if occupied and not settings.overwrite:
        raise OutputError(
            f"{out_dir} already holds files or a simulation, expected an empty folder.",
            hint="Choose another OUT, or write over it with --overwrite.",
        )
    in_place = occupied or settings.into is not None
    write.probe_write(out_dir if in_place else out_dir.parent)
    return in_place


def _write_own_tree(out_dir: Path, settings: SimulationSettings) -> None:
    """Write the raw tree of a made-up dataset."""
    names = settings.stories or stories.DEFAULT_NAMES[:2]
    if settings.transcripts is None:
        made = stories.made_stories(names, seconds=settings.story_seconds, n_words=settings.n_words)
    else:
        made = stories.given_stories(names, settings.transcripts, seconds=settings.story_seconds)
    tree.write_raw(out_dir, made, settings)


def _runs(out_dir: Path, settings: SimulationSettings) -> list[tuple[RawRun, list[StoryRun]]]:
    """Return the runs to fill, each with the stories that are heard in it."""
    filters = Filters.of(participants=settings.participants, tasks=settings.stories)
    found = find_events(out_dir, filters)
    everyone = find_events(out_dir, Filters.of(tasks=settings.stories))
    if settings.into is not None:
        absent = [run.name for run in found if run.bold_path is None]
        if absent:
            log.warning(
                "%d runs have no BOLD in the tree and are left out: %s.",
                len(absent),
                ", ".join(absent),
            )
        found = [run for run in found if run.bold_path is not None]
    heard: dict[str, list[StoryRun]] = {run.name: [] for run in found}
    for story in story_names.find_stories(found, everyone):
        heard[story.run.name].append(story)
    kept = [(run, heard[run.name]) for run in found if heard[run.name]]
    if not kept:
        raise SelectionError(
            f"{out_dir}: no run with a story for participants "
            f"{' '.join(settings.participants) or '(all)'} and tasks "
            f"{' '.join(settings.stories) or '(all)'}.",
            hint="Check --participants and --stories.",
        )
    return kept


def _transcripts(
    out_dir: Path, runs: Sequence[tuple[RawRun, list[StoryRun]]], settings: SimulationSettings
) -> Path:
    """Copy the alignments that are heard into the tree and return their folder."""
    folder = out_dir / "stimuli"
    if settings.transcripts is None:
        return folder
    stems = sorted({story.stimulus for _, heard in runs for story in heard})
    for stem in stems:
        places = (settings.transcripts / "gentle" / stem, settings.transcripts / stem)
        files = [
            place / name
            for place in places
            for name in ("align.csv", "align.json")
            if (place / name).is_file()
        ]
        if not files:
            raise MissingInputError(
                f"Story {stem!r} has no align.csv or align.json in {settings.transcripts}/{stem}.",
                hint="Change --transcripts or --stories.",
            )
        for file in files:
            target = folder / "gentle" / stem / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or not target.samefile(file):
                shutil.copyfile(file, target)
    return folder


def _gain(participant: str, settings: SimulationSettings) -> float:
    """Draw the gain of a participant."""
    return float(bold.gains(1, settings.noise, generator(settings.seed, "gain", participant))[0])


class _Responses:
    """Stimulus-locked parts of stories, computed once per story and timing."""

    def __init__(self, model, truth, transcripts_dir, settings, tell) -> None:
        self.model, self.truth, self._settings = model, truth, settings
        self._transcripts_dir, self._tell = transcripts_dir, tell
        self._made: dict[tuple[object, ...], tuple[int, bold.StoryResponse]] = {}
        self.facts: dict[str, dict[str, object]] = {}

    def of(self, story: StoryRun) -> tuple[int, bold.StoryResponse]:
        """Return the first volume of a story and its responses."""
        times = (story.audio_onset, story.story_onset, story.story_duration)
        key = (story.stimulus, story.story, story.tr, *times)
        if key not in self._made:
            texts, grid = features.row_texts(story, self._transcripts_dir)
            self._tell(
                f"{story.story}: features of {grid.n_trs} TRs with {self.model.source.label}"
            )
            found = features.story_features(self.model, texts, self._settings)
            response = bold.story_response(
                found.embeddings,
                found.transformations,
                found.n_words,
                self.truth,
                tr=story.tr,
                autocorrelation=self._settings.noise.autocorrelation,
                rng=generator(self._settings.seed, "story", story.story),
            )
            self._made[key] = (grid.first_volume, response)
            self.facts.setdefault(
                story.story,
                {
                    "StimulusFile": story.stimulus,
                    "AudioOnset": story.audio_onset,
                    "StoryOnset": story.story_onset,
                    "StoryDuration": story.story_duration,
                    "RepetitionTime": story.tr,
                    "FirstVolume": grid.first_volume,
                    "NumberOfRows": grid.n_trs,
                    "NumberOfWords": int(found.n_words.sum()),
                },
            )
        return self._made[key]


def _write_truth(out_dir, truth, parcels, responses, context) -> Simulation:
    """Write what is planted and with which settings."""
    settings, runs = context
    model = responses.model
    gains = {run.participant: _gain(run.participant, settings) for run, _ in runs}
    noise, folder = settings.noise, out_dir / "derivatives" / "simulation"
    signal = truth.is_signal
    shares = {
        "signal": noise.signal * signal,
        "words": noise.words * truth.has_words,
        "shared": noise.shared * signal,
    }
    locked = np.sum(list(shares.values()), axis=0)
    columns = {
        "index": list(parcels.index),
        "name": list(parcels.names),
        "kind": list(truth.kind),
        "column": truth.columns(),
        "layer": [int(v) if v >= 0 else None for v in truth.layer],
        "head": [int(v) + 1 if v >= 0 else None for v in truth.head],
        **shares,
        "snr": locked / (1 - locked),
        "n_voxels": parcels.n_voxels(),
    }
    write.write_tsv(folder / "truth.tsv", columns)
    content = {
        "Description": "What is planted in each parcel: see truth.tsv, one row a parcel.",
        "Columns": derivatives.TRUTH_COLUMNS,
        "Seed": settings.seed,
        "Snr": settings.snr,
        "Noise": asdict(noise),
        "Shares": {k: getattr(settings, f"{k}_share") for k in ("noise", "head", "word")},
        "Model": {
            "Label": model.source.label,
            "Name": model.source.name,
            "Sha256": model.sha256,
            "NumberOfLayers": model.n_layers,
            "NumberOfHeads": model.n_heads,
            "ContextTRs": settings.context_trs,
        },
        "Atlas": parcels.label,
        "Space": settings.space,
        "VoxelSize": settings.voxel_size,
        "HemodynamicResponse": "double gamma, peak 5 s, undershoot 15 s, ratio 1/6",
        "BinRule": features.BIN_RULE,
        "Stories": responses.facts,
        "Gains": gains,
        "Runs": [run.name for run, _ in runs],
    }
    write.write_json(folder / "simulation.json", content)
    return Simulation(out_dir, folder / "truth.tsv", folder / "simulation.json", len(runs))
