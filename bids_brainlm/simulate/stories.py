"""Stories for a made-up dataset: pieces of a public-domain text, or given alignments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bids_brainlm.bidsio.transcript_files import find_transcript
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.language import transcripts
from bids_brainlm.records import Word

DEFAULT_NAMES = ("rabbithole", "goldenkey", "drinkme", "eatme")
MUSIC = 6.0  # s of music at the start of every other audio file
PAUSE = 3.0  # s between music and story
WAIT = 12.0  # s of scan before an audio file that starts with the story
LOST_WORD = 97  # every so many words has no time, as where Gentle finds none
LONGEST = 360.0  # s, of a piece by default


@dataclass(frozen=True)
class MadeStory:
    """A story with its place in the run; times in s.

    ``words`` are relative to the audio file, which starts at ``audio_onset`` of the run;
    ``music`` is the duration of music at its start, 0 for none.
    """

    name: str
    words: tuple[Word, ...]
    audio_onset: float
    onset: float
    duration: float
    music: float

    def events(self) -> dict[str, list[object]]:
        """Return the columns of events.tsv, as Narratives writes them."""
        file = f"{self.name}_audio.wav"
        rows: list[tuple[object, ...]] = [(self.onset, self.duration, "story", file)]
        if self.music:
            rows.insert(0, (self.audio_onset, self.music, "music", file))
        header = ("onset", "duration", "trial_type", "stim_file")
        return {name: [row[i] for row in rows] for i, name in enumerate(header)}

    def gentle_csv(self) -> str:
        """Return the alignment as Gentle's align.csv."""
        return "".join(
            f"{word.text},,,\n"
            if word.onset is None or word.offset is None
            else f"{word.text},{word.text.lower()},{word.onset:.2f},{word.offset:.2f}\n"
            for word in self.words
        )


def made_stories(
    names: Sequence[str], *, seconds: float | None = None, n_words: int | None = None
) -> list[MadeStory]:
    """Cut chapter one of *Alice in Wonderland*, as it was read aloud, into stories.

    Parameters
    ----------
    names : sequence of str
        Names of the stories.
    seconds : float, optional
        Length of each; by default the text is shared out, at most 360 s each.
    n_words : int, optional
        Words of each; wins over ``seconds``.

    Returns
    -------
    list of MadeStory
        Pieces follow one another; they overlap where the text is too short for all. Every
        other story has music before it in the same audio file, the others start the file.

    Raises
    ------
    ConfigError
        A piece would be longer than the text.
    """
    words = _alice()
    total = words[-1].offset - words[0].onset
    if n_words is None:
        length = seconds or min(LONGEST, total / len(names))
        if not 0 < length <= total + 1e-6:
            raise ConfigError(
                f"--run-seconds {length:g}: the text lasts {total:.0f} s.",
                hint="Make the stories shorter, or give alignments with --transcripts.",
            )
        step = min(length, (total - length) / max(len(names) - 1, 1))
        starts = [words[0].onset + i * step for i in range(len(names))]
        pieces = [
            [w for w in words if start <= w.onset and w.offset <= start + length]
            for start in starts
        ]
    else:
        if n_words > len(words):
            raise ConfigError(
                f"--n-words {n_words}: the text has {len(words)} words.",
                hint="Make the stories shorter, or give alignments with --transcripts.",
            )
        step = min(n_words, (len(words) - n_words) // max(len(names) - 1, 1))
        pieces = [words[i * step : i * step + n_words] for i in range(len(names))]
    return [
        _made(name, piece, i) for i, (name, piece) in enumerate(zip(names, pieces, strict=True))
    ]


def given_stories(
    names: Sequence[str], folder: Path, *, seconds: float | None = None
) -> list[MadeStory]:
    """Make stories from alignments.

    Parameters
    ----------
    names : sequence of str
        Names of the stories, as in the folder.
    folder : Path
        Where the alignments are, as for ``--transcripts``.
    seconds : float, optional
        Longest story; what comes later in the audio is not heard.

    Returns
    -------
    list of MadeStory
        The audio file starts after a wait; what comes before the first word counts as music.

    Raises
    ------
    MissingInputError
        A story has no alignment.
    """
    made = []
    for name in names:
        found = find_transcript(folder, name, name)
        if found.path is None:
            raise MissingInputError(
                f"Story {name!r} has no transcript in {folder}; looked for "
                f"{', '.join(found.looked_for)}.",
                hint="Change --stories or --transcripts.",
            )
        words = transcripts.parse(found.path.read_bytes(), found.path.name).words
        timed = [w for w in words if w.onset is not None and w.offset is not None]
        music = max(math.floor(timed[0].onset) - 1.0, 0.0)
        end = math.ceil(max(w.offset for w in timed)) + 1.0
        duration = min(end - music, seconds or math.inf)
        made.append(MadeStory(name, tuple(words), WAIT, WAIT + music, duration, music))
    return made


def _alice() -> list[Word]:
    """Return the words of the reading that ships with the package."""
    source = resources.files("bids_brainlm").joinpath(
        "data", "alice", "stimuli", "alice_audio.TextGrid"
    )
    words = transcripts.parse(source.read_bytes(), "alice_audio.TextGrid").words
    return [w for w in words if w.onset is not None and w.offset is not None]


def _made(name: str, piece: Sequence[Word], number: int) -> MadeStory:
    """Move a piece to the start of its audio file and lose a few times."""
    if not piece:
        raise ConfigError(
            f"Story {name!r} has no words.", hint="Make it longer with --run-seconds or --n-words."
        )
    lead = MUSIC + PAUSE if number % 2 == 0 else 0.0
    shift = lead + 0.24 - piece[0].onset
    words = tuple(
        Word(word.text, None, None)
        if i % LOST_WORD == LOST_WORD - 1
        else Word(word.text, round(word.onset + shift, 2), round(word.offset + shift, 2))
        for i, word in enumerate(piece)
    )
    duration = math.ceil(piece[-1].offset + shift - lead) + 1.0
    audio_onset = 0.0 if lead else WAIT
    music = MUSIC if lead else 0.0
    return MadeStory(name, words, audio_onset, audio_onset + lead, duration, music)
