"""One family of errors: each class has an exit code and a next action.

The codes follow the draft BIDS execution specification; ``cli`` is the only place that
turns an error into a number.
"""

from __future__ import annotations

import re

_LONG_WORD = re.compile(r"\S{401,}")


class BrainLMError(Exception):
    """Base of every error that a user can cause and mend.

    Parameters
    ----------
    message : str
        What (file or unit), and what was found versus expected, with units. Words of more than
        400 characters, such as names made of noise, are cut.
    hint : str, optional
        The next action, naming a flag. Falls back to the hint of the class.
    """

    exit_code = 1
    hint = "Report this with the log file named above."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = _LONG_WORD.sub(_cut, message)
        super().__init__(self.message)
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nWhat to do: {self.hint}"

    def __reduce__(self):
        """Keep the hint when the error crosses a process border."""
        return _rebuild, (type(self), self.message, self.hint)


def _cut(word: re.Match[str]) -> str:
    """Keep both ends of a long word."""
    return f"{word[0][:200]}...{word[0][-50:]}"


def _rebuild(kind: type[BrainLMError], message: str, hint: str) -> BrainLMError:
    """Recreate an error that was sent from a worker process."""
    return kind(message, hint=hint)


class DatasetError(BrainLMError):
    """The input is not a usable BIDS dataset."""

    exit_code = 16
    hint = "Give the folder that holds dataset_description.json as BIDS_DIR."


class AnalysisLevelError(BrainLMError):
    """The analysis level is unknown."""

    exit_code = 17
    hint = "Use one of: stimulus, participant, group."


class SelectionError(BrainLMError):
    """The filters select nothing."""

    exit_code = 18
    hint = "Check --participant-label, --session-label, --task-label and --run-label."


class PartialFailureError(BrainLMError):
    """Some participants failed, the others are done."""

    exit_code = 32
    hint = "Read the messages above, mend the input and run the same command again."


class ConfigError(BrainLMError):
    """A flag or a setting is wrong."""

    exit_code = 64
    hint = "See bids_brainlm --help."


class DataError(BrainLMError):
    """The data are wrong: lengths, NaN, grids."""

    exit_code = 65
    hint = "Check the file that is named, or leave the participant out with --participant-label."


class TimingError(DataError):
    """Times of stimulus, words and volumes do not fit together."""

    hint = "Check the events.tsv, or set --stimulus-onset STORY=SECONDS."


class TranscriptError(DataError):
    """A transcript cannot be read or has no usable words."""

    hint = "Check the transcript, or give another folder with --transcripts."


class NumericalError(DataError):
    """An array has the wrong shape or values that cannot be used."""

    hint = "Check the input for NaN and for too few volumes; see --cv and --gap."


class MissingInputError(BrainLMError):
    """A file, atlas or model is missing."""

    exit_code = 66
    hint = "Get the file (for DataLad datasets: datalad get FILE) and run again."


class ModelUnavailableError(MissingInputError):
    """The weights or the tokenizer of a language model are missing."""

    hint = "Give a local folder with --model or --models-dir, or run once without --offline."


class OutputError(BrainLMError):
    """An output cannot be created, or was made with other settings."""

    exit_code = 73
    hint = "Choose another OUTPUT_DIR, or replace the old results with --overwrite."


class ReadWriteError(BrainLMError):
    """Reading or writing failed midway."""

    exit_code = 74
    hint = "Check free disk space and permissions, then run the same command again."
