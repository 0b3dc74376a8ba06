"""Files of word vectors as streams: GloVe and word2vec text, word2vec binary, gzipped or not."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from bids_brainlm.errors import ConfigError, DataError

FORMATS = ("glove", "word2vec", "word2vec-binary")
HEADER = re.compile(rb"\d{1,12} \d{1,6}")
MAX_DIMS = 100_000
MAX_LINE = 2**21  # bytes; 100,000 numbers take less
MAX_WORD = 2**16  # bytes of a word in a binary file
BOM = b"\xef\xbb\xbf"
CHUNK = 2**20  # bytes
TEXT_BYTES = frozenset(range(32, 127)) | frozenset(b"\t\r\n")
FOREIGN = {
    b"PK\x03\x04": ("a zip archive", "Unzip it and give the text file that it holds."),
    b"\xba\x16\x4f\x2f": ("a fastText model", "Give fastText's .vec file instead of the .bin."),
    b"\x80": ("a Python pickle", "Save it with gensim's save_word2vec_format."),
}
Found = dict[str, np.ndarray]


def sniff(path: Path) -> str:
    """Tell the format of a file of word vectors.

    Parameters
    ----------
    path : Path
        The file, gzipped or not.

    Returns
    -------
    str
        ``glove``, ``word2vec`` or ``word2vec-binary``.

    Raises
    ------
    DataError
        The file is empty, damaged, or of another kind.

    Notes
    -----
    A first line of two whole numbers means word2vec, else the file is GloVe text. word2vec is
    binary if the name ends with ``.bin``, text if it ends with ``.txt`` or ``.vec`` (before
    ``.gz``); with other endings it is binary if the first vector holds bytes that no text has.
    """
    with _named(path), _open(path) as stream:
        first = stream.readline(MAX_LINE).removeprefix(BOM)
        sample = stream.read(4096)
    for magic, (kind, hint) in FOREIGN.items():
        if first.startswith(magic):
            raise DataError(f"{path}: found {kind}, expected word vectors.", hint=hint)
    if not first.strip():
        raise DataError(f"{path}: found no vectors in the first line, expected some.")
    if not HEADER.fullmatch(first.strip()):
        return "glove"
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".bin"):
        return "word2vec-binary"
    if name.endswith((".txt", ".vec")):
        return "word2vec"
    n_dims = int(first.split()[1])
    numbers = sample.partition(b" ")[2][: 4 * n_dims]
    return "word2vec" if TEXT_BYTES.issuperset(numbers) else "word2vec-binary"


def read_vectors(path: Path, needed: Set[str], file_format: str) -> tuple[int, Found]:
    """Read the vectors of some words; the rest of the file is only checked.

    Parameters
    ----------
    path : Path
        The file, gzipped or not.
    needed : set of str
        Words, spelled as in the file.
    file_format : str
        ``glove``, ``word2vec`` or ``word2vec-binary``.

    Returns
    -------
    n_dims : int
        Numbers of a vector.
    found : dict of str to float32 array, shape (n_dims,)
        The first vector of each needed word that the file has.

    Raises
    ------
    ConfigError
        The format is unknown.
    DataError
        The file is malformed, cut short, or a needed vector is not finite.

    Notes
    -----
    A word in a text file may hold spaces (GloVe 840B has such): then a line has more fields
    than numbers, and those in excess are no numbers. Blank lines are skipped.
    """
    if file_format not in FORMATS:
        raise ConfigError(
            f"word vectors: found the format {file_format!r}, expected auto, {', '.join(FORMATS)}."
        )
    wanted = {word.encode("utf-8", "replace"): word for word in needed}
    with _named(path), _open(path) as stream:
        if file_format == "word2vec-binary":
            return _read_binary(path, stream, wanted)
        return _read_text(path, stream, wanted, has_sizes=file_format == "word2vec")


def _open(path: Path) -> BinaryIO:
    """Open a file, gzipped or not."""
    with path.open("rb") as stream:
        is_gzipped = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzipped else path.open("rb")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn errors of reading into one that names the file."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: the file of word vectors cannot be read ({error}), expected a whole file.",
            hint="Get the file again.",
        ) from error


def _sizes(path: Path, line: bytes) -> tuple[int, int]:
    """Read the first line of word2vec files: number of words and of dimensions."""
    if not HEADER.fullmatch(line.strip()):
        raise DataError(
            f"{path}, line 1: found {_shown(line)}, expected the number of words and of "
            "dimensions.",
            hint="The format may be another; check how the vectors were saved.",
        )
    n_words, n_dims = (int(part) for part in line.split())
    if not 1 <= n_dims <= MAX_DIMS:
        raise DataError(f"{path}, line 1: found {n_dims} dimensions, expected 1 to {MAX_DIMS}.")
    return n_words, n_dims


def _shown(data: bytes) -> str:
    """Return the start of some bytes for a message."""
    return repr(data[:40].decode("utf-8", "replace"))


def _lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and the content of lines that are not blank."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(
                f"{path}, line {number}: found more than {MAX_LINE} bytes, expected a word and "
                f"at most {MAX_DIMS} numbers."
            )
        if b"\0" in line:
            raise DataError(f"{path}, line {number}: found a NUL byte, expected text.")
        clean = line.rstrip(b" \r\n")
        if clean:
            yield number, clean.removeprefix(BOM) if number == 1 else clean


def _read_text(
    path: Path, stream: BinaryIO, wanted: dict[bytes, str], *, has_sizes: bool
) -> tuple[int, Found]:
    """Read a text file line by line."""
    lines = _lines(path, stream)
    n_words, n_dims = _sizes(path, next(lines, (1, b""))[1]) if has_sizes else (None, 0)
    found: Found = {}
    n_found = 0
    for number, line in lines:
        if n_found == 0:
            n_dims = n_dims or line.count(b" ")
            _numbers(path, number, line, n_dims)
        n_found += 1
        if line.count(b" ") == n_dims:
            word = line[: line.index(b" ")]
        else:
            word = _spaced_word(path, number, line, n_dims)
        if word in wanted and wanted[word] not in found:
            found[wanted[word]] = _numbers(path, number, line, n_dims)
    if n_words is not None and n_found != n_words:
        raise DataError(
            f"{path}: found {n_found} vectors, expected {n_words}, which line 1 states.",
            hint="The file may have been cut short; get it again.",
        )
    if n_found == 0:
        raise DataError(f"{path}: found no vectors, expected some.")
    return n_dims, found


def _spaced_word(path: Path, number: int, line: bytes, n_dims: int) -> bytes:
    """Return a word with spaces in it; raise if the line has not the right amount of numbers."""
    fields = line.split(b" ")
    excess = fields[1 : len(fields) - n_dims]
    if len(fields) > n_dims and not any(_is_number(field) for field in excess):
        return b" ".join(fields[: len(fields) - n_dims])
    raise DataError(
        f"{path}, line {number}: found {len(fields) - 1} numbers after {_shown(fields[0])}, "
        f"expected {n_dims}.",
        hint="Get the file again, or check how it was saved.",
    )


def _is_number(field: bytes) -> bool:
    """Tell whether a field is a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(path: Path, number: int, line: bytes, n_dims: int) -> np.ndarray:
    """Return the vector of a line."""
    fields = line.rsplit(b" ", n_dims)[1:]
    wrong = next((field for field in fields if not _is_number(field)), None)
    if wrong is not None or not 1 <= len(fields) == n_dims <= MAX_DIMS:
        raise DataError(
            f"{path}, line {number}: found {len(fields)} fields after the word"
            f"{'' if wrong is None else f', among them {_shown(wrong)}'}; expected "
            f"{n_dims or 'one or more'} numbers.",
            hint="Give GloVe or word2vec vectors as text or word2vec binary.",
        )
    return _finite(np.array([float(field) for field in fields]), f"{path}, line {number}")


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    """Return numbers as float32; raise if one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        vector = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise DataError(
            f"{where}: number {bad[0] + 1} of the vector is {values[bad[0]]}, expected "
            f"{len(vector)} finite numbers.",
            hint="Get the file again, or check how it was made.",
        )
    return vector


class _Reader:
    """Takes pieces from a stream without reading it byte by byte."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.data = b""
        self.start = 0

    def _more(self) -> bool:
        """Read another chunk; tell whether there was one."""
        chunk = self.stream.read(CHUNK)
        self.data, self.start = self.data[self.start :] + chunk, 0
        return bool(chunk)

    def until_space(self) -> bytes | None:
        """Take what stands before the next space, and the space; None if there is none."""
        while (at := self.data.find(b" ", self.start, self.start + MAX_WORD)) < 0:
            if len(self.data) - self.start >= MAX_WORD or not self._more():
                return None
        piece, self.start = self.data[self.start : at], at + 1
        return piece

    def take(self, n_bytes: int) -> bytes:
        """Take some bytes; fewer at the end."""
        while len(self.data) - self.start < n_bytes and self._more():
            pass
        piece = self.data[self.start : self.start + n_bytes]
        self.start += len(piece)
        return piece


def _read_binary(path: Path, stream: BinaryIO, wanted: dict[bytes, str]) -> tuple[int, Found]:
    """Read a binary file record by record: a word, a space, little-endian float32 numbers."""
    n_words, n_dims = _sizes(path, stream.readline(64))
    reader = _Reader(stream)
    found: Found = {}
    for number in range(1, n_words + 1):
        word = reader.until_space()
        data = b"" if word is None else reader.take(4 * n_dims)
        if word is None or len(data) < 4 * n_dims:
            raise DataError(
                f"{path}, word {number} of {n_words}: found "
                f"{'no end of the word' if word is None else f'{len(data)} bytes of its vector'}, "
                f"expected a word and {4 * n_dims} bytes for {n_dims} numbers.",
                hint="The file was cut short or is no word2vec binary; get it again.",
            )
        key = wanted.get(word.lstrip(b"\n"))
        if key is not None and key not in found:
            found[key] = _finite(np.frombuffer(data, "<f4"), f"{path}, word {number}")
    if reader.take(64).strip():
        raise DataError(
            f"{path}: found more bytes behind word {n_words}, expected {n_words} words of "
            f"{n_dims} numbers, which line 1 states.",
            hint="The file is damaged or no word2vec binary; get it again.",
        )
    if n_words == 0:
        raise DataError(f"{path}: found no vectors, expected some.")
    return n_dims, found
