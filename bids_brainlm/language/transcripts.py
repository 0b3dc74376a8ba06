"""Alignments as bytes to a transcript: Gentle CSV and JSON, Praat TextGrid, words in TSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import PurePath

from bids_brainlm.errors import TranscriptError
from bids_brainlm.language import textgrid
from bids_brainlm.language.checks import (
    check_number,
    make_transcript,
    make_word,
    phone_class,
    read_time,
)
from bids_brainlm.records import Phone, Transcript, Word

MAX_BYTES = 64 * 2**20  # a 24 h story is below 10 MiB
FORMATS = "Gentle .csv or .json, Praat .TextGrid, or .tsv with onset, duration and word"


def parse(data: bytes, source: str) -> Transcript:
    """Read a transcript; the ending of its file name tells the format.

    Parameters
    ----------
    data : bytes
        Content of the file, at most 64 MiB; UTF-8 or UTF-16.
    source : str
        Name of the file: ``.csv`` and ``.json`` (Gentle), ``.TextGrid`` (Praat) or ``.tsv``.

    Returns
    -------
    Transcript
        Times in s from the start of the audio file.

    Raises
    ------
    TranscriptError
        The format is unknown, the content is malformed, or no word has a time.
    """
    parsers = {
        ".csv": parse_gentle_csv,
        ".json": parse_gentle_json,
        ".textgrid": parse_textgrid,
        ".tsv": parse_words_tsv,
    }
    suffix = PurePath(source).suffix.lower()
    if suffix not in parsers:
        raise TranscriptError(f"{source}: found the ending {suffix!r}, expected {FORMATS}.")
    return parsers[suffix](decode(data, source), source)


def decode(data: bytes, source: str) -> str:
    """Turn the bytes of a transcript into text.

    Parameters
    ----------
    data : bytes
        UTF-8 with or without byte order mark, or UTF-16 (with mark, or plain ASCII words).
    source : str
        Name for messages.

    Returns
    -------
    str
        Without byte order mark; line ends are as in the file.

    Raises
    ------
    TranscriptError
        More than 64 MiB, or neither UTF-8 nor UTF-16.
    """
    if len(data) > MAX_BYTES:
        raise TranscriptError(
            f"{source}: found {len(data) / 2**20:.0f} MiB, expected at most "
            f"{MAX_BYTES // 2**20} MiB of text."
        )
    head = data[:64]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif head[1::2].count(0) > len(head) // 4:
        encoding = "utf-16-le"
    elif head[0::2].count(0) > len(head) // 4:
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TranscriptError(
            f"{source}, line {line}: byte {error.start} is not valid {encoding.upper()}; expected "
            "text in UTF-8 or UTF-16.",
            hint="Save the file as UTF-8, or give another folder with --transcripts.",
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TranscriptError(f"{source}, line {line}: found a NUL character, expected text.")
    return text


def parse_gentle_csv(text: str, source: str) -> Transcript:
    """Read Gentle's ``align.csv``.

    Parameters
    ----------
    text : str
        No header; columns word, aligned word (``<unk>`` where out of vocabulary), onset and
        offset in s. The last three are empty where the aligner did not find the word.
    source : str
        Name for messages.

    Returns
    -------
    Transcript
        Without phones and text.

    Raises
    ------
    TranscriptError
        Wrong number of columns, wrong numbers, or times that go backwards.
    """
    words: list[Word] = []
    lines: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{source}, line {reader.line_num}"
            if len(row) != 4:
                raise TranscriptError(
                    f"{where}: found {len(row)} columns, expected 4: word, aligned word, onset "
                    "in s, offset in s."
                )
            onset, offset = read_time(row[2], where, "onset"), read_time(row[3], where, "offset")
            words.append(make_word(row[0], onset, offset, where, aligned=row[1]))
            lines.append(where)
    except csv.Error as error:
        raise TranscriptError(
            f"{source}, line {reader.line_num}: not valid CSV ({error}); expected 4 columns."
        ) from error
    return make_transcript(words, lines, source, text=None, has_phones=False)


def parse_gentle_json(text: str, source: str) -> Transcript:
    """Read Gentle's ``align.json``.

    Parameters
    ----------
    text : str
        An object with ``words`` and, mostly, ``transcript``. A word has ``word`` and, where
        it was found, ``alignedWord``, ``start``, ``end`` and ``phones``.
    source : str
        Name for messages.

    Returns
    -------
    Transcript
        With the punctuated text, and with phones where the file has them.

    Raises
    ------
    TranscriptError
        Not JSON, not in this form, wrong numbers, or times that go backwards.

    Notes
    -----
    A phone begins at the word's start plus the durations of the phones before it. Labels
    lose their position tag (``ay_B`` is ``ay``). Words whose ``case`` starts with
    ``not-found-in-audio`` have no times, whatever else is stated.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise TranscriptError(
            f"{source}, line {error.lineno}: not valid JSON ({error.msg}); expected Gentle's "
            "align.json."
        ) from error
    except (RecursionError, ValueError) as error:
        raise TranscriptError(f"{source}: not usable JSON ({type(error).__name__}).") from error
    items = content.get("words") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise TranscriptError(f"{source}: found no list 'words', expected Gentle's align.json.")
    lines = [f"{source}, word {number}" for number in range(1, len(items) + 1)]
    words = [_gentle_word(item, where) for item, where in zip(items, lines, strict=True)]
    full = content.get("transcript")
    has_phones = any(word.phones for word in words)
    return make_transcript(
        words, lines, source, text=full if isinstance(full, str) else None, has_phones=has_phones
    )


def parse_textgrid(text: str, source: str) -> Transcript:
    """Read a Praat TextGrid in the long or the short text format.

    Parameters
    ----------
    text : str
        The whole file.
    source : str
        Name for messages.

    Returns
    -------
    Transcript
        The intervals of the word tier without silences, with phones where there is a phone
        tier.

    Raises
    ------
    TranscriptError
        Not a TextGrid, cut short, without word tier, or wrong numbers.

    Notes
    -----
    The word tier is the first interval tier that is called word or words (in any case, also
    behind a speaker's name as in ``A - words``), else the first interval tier that is not a
    phone tier. The phone tier is called phone, phones, phoneme or phonemes. A phone belongs
    to the word that holds its midpoint. Silences (empty, ``sp``, ``sil``, ``spn``, ``<p>``
    and the like) are left out of both.
    """
    tiers = textgrid.read_tiers(text, source)
    word_tier = textgrid.word_tier(tiers, source)
    phone_tier = textgrid.phone_tier(tiers)
    phones = [] if phone_tier is None else textgrid.speech(phone_tier)
    sounds = [Phone(phone_class(p.text), p.onset, p.offset) for p in phones]
    intervals = textgrid.speech(word_tier)
    lines = [f"{source}, line {item.line}" for item in intervals]
    words, first = [], 0
    for item, where in zip(intervals, lines, strict=True):
        while first < len(sounds) and _middle(sounds[first]) < item.onset:
            first += 1
        last = first
        while last < len(sounds) and _middle(sounds[last]) < item.offset:
            last += 1
        own = tuple(sounds[first:last])
        words.append(make_word(item.text, item.onset, item.offset, where, phones=own))
        first = last
    return make_transcript(words, lines, source, text=None, has_phones=any(w.phones for w in words))


def parse_words_tsv(text: str, source: str) -> Transcript:
    """Read words from a tab-separated table in the manner of BIDS events.

    Parameters
    ----------
    text : str
        Header with at least ``onset``, ``duration`` (s) and ``word``; times ``n/a`` where
        they are not known. Quotes mean nothing.
    source : str
        Name for messages.

    Returns
    -------
    Transcript
        Without phones and text.

    Raises
    ------
    TranscriptError
        A column is missing, wrong numbers, or times that go backwards.
    """
    rows = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = [name.strip() for name in rows[0].split("\t")]
    missing = [name for name in ("onset", "duration", "word") if name not in header]
    if missing:
        raise TranscriptError(
            f"{source}, line 1: no column {', '.join(missing)}; found {', '.join(header[:12])!r}, "
            "expected onset, duration and word, separated by tabs."
        )
    places = [header.index(name) for name in ("onset", "duration", "word")]
    words, lines = [], []
    for number, row in enumerate(rows[1:], start=2):
        if not row.strip():
            continue
        cells = row.split("\t")
        where = f"{source}, line {number}"
        if len(cells) != len(header):
            raise TranscriptError(
                f"{where}: found {len(cells)} columns, expected {len(header)} as in the header."
            )
        onset, duration = (read_time(cells[place], where, header[place]) for place in places[:2])
        offset = None if onset is None or duration is None else onset + duration
        words.append(make_word(cells[places[2]], None if offset is None else onset, offset, where))
        lines.append(where)
    return make_transcript(words, lines, source, text=None, has_phones=False)


def _middle(phone: Phone) -> float:
    """Return the midpoint of a phone, s."""
    return (phone.onset + phone.offset) / 2


def _gentle_word(item: object, where: str) -> Word:
    """Read one entry of Gentle's list of words."""
    if not isinstance(item, dict) or not isinstance(item.get("word"), str):
        raise TranscriptError(f"{where}: expected an object with the key 'word'.")
    aligned = item.get("alignedWord")
    aligned = aligned if isinstance(aligned, str) else None
    if str(item.get("case", "")).startswith("not-found-in-audio"):
        return make_word(item["word"], None, None, where, aligned=aligned)
    onset, offset = (
        None if item.get(key) is None else check_number(item[key], where, key)
        for key in ("start", "end")
    )
    phones: tuple[Phone, ...] = ()
    if onset is not None and item.get("phones"):
        phones = _gentle_phones(item["phones"], onset, where)
    return make_word(item["word"], onset, offset, where, aligned=aligned, phones=phones)


def _gentle_phones(items: object, onset: float, where: str) -> tuple[Phone, ...]:
    """Lay phones one after the other from the start of their word."""
    if not isinstance(items, list):
        raise TranscriptError(f"{where}: expected a list of phones.")
    phones = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("phone"), str):
            raise TranscriptError(f"{where}: expected phones with 'phone' and 'duration'.")
        duration = check_number(
            item.get("duration"), where, f"duration of the phone {item['phone']!r}"
        )
        if duration < 0:
            raise TranscriptError(f"{where}: a phone lasts {duration:g} s, expected 0 s or more.")
        phones.append(Phone(phone_class(item["phone"]), onset, onset + duration))
        onset += duration
    return tuple(phones)
