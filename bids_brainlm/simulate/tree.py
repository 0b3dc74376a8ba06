"""The raw part of a made-up dataset, shaped like Narratives."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

import numpy as np

from bids_brainlm import __version__
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import images
from bids_brainlm.simulate.narratives import run_length
from bids_brainlm.simulate.seeds import generator
from bids_brainlm.simulate.settings import SimulationSettings
from bids_brainlm.simulate.stories import MadeStory

README = """\
A simulated dataset in the shape of Narratives (OpenNeuro ds002345).

The BOLD signal under derivatives/ is made from features of a language model; what is planted
in which parcel is told in derivatives/simulation/. No one was scanned.
"""
STIMULI_README = """\
Unless alignments were given, the stories are pieces of chapter one of Alice's Adventures in
Wonderland (Lewis Carroll, public domain). Their word times come from the reading used by
Brennan et al. (2016), Brain and Language 157-158, doi:10.1016/j.bandl.2016.04.008 (CC BY 4.0).
The audio files are empty.
"""


def write_raw(out_dir: Path, stories: Sequence[MadeStory], settings: SimulationSettings) -> None:
    """Write the raw tree: descriptions, participants, alignments, events and sidecars.

    Parameters
    ----------
    out_dir : Path
        The dataset.
    stories : sequence of MadeStory
        One task each.
    settings : SimulationSettings
        Participants, TR, seed, and what stands for raw images.
    """
    write.write_json(
        out_dir / "dataset_description.json",
        {
            "Name": "Simulated stories",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["bids_brainlm-simulate", "Lewis Carroll"],
            "GeneratedBy": [{"Name": "bids_brainlm-simulate", "Version": __version__}],
        },
    )
    write.write_text(out_dir / "README", README)
    _write_participants(out_dir, stories, settings)
    write.write_text(out_dir / "stimuli" / "README", STIMULI_README)
    for story in stories:
        write.write_bytes(out_dir / "stimuli" / f"{story.name}_audio.wav", _silence())
        if settings.transcripts is None:
            path = out_dir / "stimuli" / "gentle" / story.name / "align.csv"
            write.write_text(path, story.gentle_csv())
    for participant in settings.participants:
        for story in stories:
            _write_run(out_dir, participant, story, settings)


def _write_participants(
    out_dir: Path, stories: Sequence[MadeStory], settings: SimulationSettings
) -> None:
    """Write participants.tsv with lists, one element a task (age and sex stay valid BIDS)."""
    rng = generator(settings.seed, "participants")
    ages = rng.integers(18, 40, len(settings.participants))
    n = len(stories)
    write.write_tsv(
        out_dir / "participants.tsv",
        {
            "participant_id": [f"sub-{label}" for label in settings.participants],
            "age": ages,
            "sex": ["FM"[i % 2] for i in range(len(ages))],
            "task": [",".join(story.name for story in stories)] * len(ages),
            "condition": [",".join(["n/a"] * n)] * len(ages),
            "comprehension": [",".join(["n/a"] * n)] * len(ages),
        },
    )
    lists = "comma-separated, one element a task"
    write.write_json(
        out_dir / "participants.json",
        {
            "age": {"Description": "age", "Units": "year"},
            "sex": {"Description": "sex", "Levels": {"F": "female", "M": "male"}},
            "task": {"Description": f"story, {lists}"},
            "condition": {"Description": f"condition, {lists}"},
            "comprehension": {"Description": f"comprehension score, {lists}"},
        },
    )


def _write_run(
    out_dir: Path, participant: str, story: MadeStory, settings: SimulationSettings
) -> None:
    """Write events, sidecar and what stands for the raw image of a run."""
    folder = out_dir / f"sub-{participant}" / "func"
    stem = f"sub-{participant}_task-{story.name}"
    write.write_tsv(folder / f"{stem}_events.tsv", story.events())
    write.write_json(folder / f"{stem}_bold.json", _sidecar(story.name, settings.tr))
    if settings.raw_bold == "none":
        return
    path = folder / f"{stem}_bold.nii.gz"
    n_volumes = run_length(
        story.name, participant, story.onset + story.duration, settings.tr, real=False
    )
    if settings.raw_bold == "tiny":
        block = np.full((2, 2, 2, n_volumes), 1000, dtype=np.int16)
        affine = np.diag([settings.voxel_size] * 3 + [1.0])
        write.write_bytes(path, images.nifti_bytes(block, affine, settings.tr))
        return
    digest = md5(stem.encode(), usedforsecurity=False).hexdigest()
    key = f"MD5E-s{1000000 + n_volumes}--{digest}.nii.gz"
    path.unlink(missing_ok=True)
    path.symlink_to(f"../../.git/annex/objects/{digest[:2]}/{digest[2:4]}/{key}/{key}")


def _sidecar(task: str, tr: float) -> dict[str, object]:
    """Return the sidecar of a raw image."""
    return {
        "TaskName": task,
        "TaskDescription": "Passively listened to an audio story",
        "RepetitionTime": tr,
        "EchoTime": 0.028,
        "FlipAngle": 64,
        "PhaseEncodingDirection": "j-",
        "MagneticFieldStrength": 3,
        "Manufacturer": "Simulated",
    }


def _silence() -> bytes:
    """Return a tenth of a second of silence as WAV."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return stream.getvalue()
