"""Find the transcript of a stimulus."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.bidsio.bold import is_present


@dataclass(frozen=True, slots=True)
class TranscriptSearch:
    """The transcript that was found, and every place that was looked at.

    ``looked_for`` holds paths relative to the folder of transcripts, in order; those that
    are links without content are marked with the command that gets them.
    """

    path: Path | None
    looked_for: tuple[str, ...]


def find_transcript(transcripts_dir: Path, stimulus: str, story: str) -> TranscriptSearch:
    """Find the best transcript of a stimulus.

    Parameters
    ----------
    transcripts_dir : Path
        The folder of ``--transcripts``.
    stimulus : str
        Stem of the stimulus file without ``_audio``.
    story : str
        Name of the story, tried last.

    Returns
    -------
    TranscriptSearch

    Notes
    -----
    For each name, in this order: Gentle's ``align.json`` with phones, ``align.csv``,
    ``align.json`` without phones, Praat TextGrid, ``_words.tsv``, ``.tsv``. Gentle files lie
    in ``gentle/<name>/`` or ``<name>/``, the others in the folder itself.
    """
    looked_for: list[str] = []
    plain = None
    for name in dict.fromkeys((stimulus, f"{stimulus}_audio", story)):
        for relative in _places(name):
            path = transcripts_dir / relative
            looked_for.append(relative)
            if not is_present(path):
                if os.path.lexists(path):
                    looked_for[-1] += f" (no content here: datalad get {path})"
                continue
            if path.suffix == ".json" and not _has_phones(path):
                plain = plain or path
                continue
            if plain is not None and path.name != "align.csv":
                break
            return TranscriptSearch(path, tuple(looked_for))
        if plain is not None:
            return TranscriptSearch(plain, tuple(looked_for))
    return TranscriptSearch(None, tuple(looked_for))


def _places(name: str) -> list[str]:
    """Return the relative paths to try for a name, best first."""
    gentle = [f"gentle/{name}", name]
    return [
        *(f"{folder}/align.json" for folder in gentle),
        *(f"{folder}/align.csv" for folder in gentle),
        f"{name}.TextGrid",
        f"{name}_words.tsv",
        f"{name}.tsv",
    ]


def _has_phones(path: Path) -> bool:
    """Tell whether Gentle's JSON states phones."""
    return '"phones"' in path.read_text("utf-8", errors="replace")
