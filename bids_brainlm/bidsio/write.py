"""Write files whole or not at all, the same bytes for the same content; read them back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.bidsio.jsons import parse_object
from bids_brainlm.bidsio.netcdf import netcdf_bytes
from bids_brainlm.bidsio.temporary import temporary_name
from bids_brainlm.errors import DataError, MissingInputError, OutputError, ReadWriteError

if TYPE_CHECKING:
    import nibabel
    import xarray

_FULL_HASH_BELOW = 8 * 2**20
_END_BYTES, _ONE_READ = 2**20, 2**17


def _make_folder(folder: Path) -> None:
    """Create a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be created: {error.strerror}.",
            hint="Choose an OUTPUT_DIR (and --work-dir) that you may write to.",
        ) from error


def probe_write(folder: Path) -> None:
    """Fail early where a folder cannot be written.

    Raises
    ------
    OutputError
        The folder cannot be created, or a file in it cannot.
    """
    _make_folder(folder)
    probe = folder / temporary_name()
    try:
        probe.write_bytes(b"bids_brainlm")
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be written: {error.strerror}.",
            hint="Choose an OUTPUT_DIR that you may write to, or free disk space.",
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it.

    Raises
    ------
    OutputError
        The folder cannot be created.
    ReadWriteError
        Writing failed; nothing is left under either name.
    """
    _make_folder(path.parent)
    temporary = path.with_name(temporary_name())
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OutputError
        The folder cannot be created.
    ReadWriteError
        Writing failed midway.
    """
    _atomically(path, lambda temporary: _write(temporary, data))


def _write(path: Path, data: bytes) -> None:
    """Write bytes in pieces, so that a full disk is noticed."""
    with path.open("wb") as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with a final newline; errors as `write_bytes`."""
    write_bytes(path, (text if text.endswith("\n") or not text else text + "\n").encode())


def plain(value: object) -> object:
    """Return a value as JSON knows it: numpy types and paths unpacked, NaN as None.

    Notes
    -----
    Infinity has no place in JSON and becomes None too.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON with the keys in their order; NaN as null; errors as `write_bytes`."""
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False))


def format_number(value: float) -> str:
    """Return a number with nine significant digits, ``n/a`` for NaN.

    Notes
    -----
    Nine digits name every float32 uniquely and are the same on every platform where the
    value is the same to about 1e-9; minus zero is written as 0.
    """
    return "n/a" if value != value else f"{value + 0.0:.9g}"


def _cells(name: str, values: Sequence[object] | np.ndarray) -> list[str]:
    """Return a column as text."""
    array = values if isinstance(values, np.ndarray) else None
    if array is not None and array.dtype.kind == "f":
        if np.isinf(array).any():
            raise DataError(f"column {name}: found infinite values, expected numbers or NaN.")
        return [format_number(value) for value in array.tolist()]
    items = values.tolist() if array is not None else values
    return [_cell(name, item) for item in items]


def _cell(name: str, value: object) -> str:
    """Return a cell as text: booleans lower-case, None as n/a, no tabs and newlines."""
    if value is None:
        return "n/a"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        if math.isinf(value):
            raise DataError(f"column {name}: found an infinite value, expected a number or NaN.")
        return format_number(float(value))
    return " ".join(str(value).split()) or "n/a"


def tsv_text(columns: Mapping[str, Sequence[object] | np.ndarray]) -> str:
    """Return a table as tab-separated text with a header.

    Parameters
    ----------
    columns : mapping of str to sequence
        All of the same length. Numbers as in `format_number`, None and NaN as ``n/a``.

    Raises
    ------
    DataError
        Columns differ in length or hold infinite values.
    """
    cells = [_cells(name, values) for name, values in columns.items()]
    lengths = sorted({len(column) for column in cells})
    if len(lengths) > 1:
        raise DataError(f"found columns of {lengths} rows, expected equal lengths.")
    lines = ["\t".join(columns), *("\t".join(row) for row in zip(*cells, strict=True))]
    return "\n".join(lines) + "\n"


def write_tsv(path: Path, columns: Mapping[str, Sequence[object] | np.ndarray]) -> None:
    """Write a table, see `tsv_text`; errors as `write_bytes`."""
    write_bytes(path, tsv_text(columns).encode())


def compress(data: bytes) -> bytes:
    """Return data gzipped without time and name, so that the bytes depend on nothing else."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as inner:
        inner.write(data)
    return stream.getvalue()


def write_stim_tsv_gz(path: Path, matrix: np.ndarray) -> None:
    """Write a BIDS ``_stim.tsv.gz``: no header, one row a TR; errors as `write_bytes`.

    Parameters
    ----------
    path : Path
        Its JSON names the columns.
    matrix : array, shape (n_trs, n_columns)
        NaN becomes ``n/a``.
    """
    matrix = np.asarray(matrix, float)
    text = tsv_text({str(k): matrix[:, k] for k in range(matrix.shape[1])})
    write_bytes(path, compress(text.partition("\n")[2].encode()))


def write_nifti(path: Path, image: nibabel.Nifti1Image, tr: float | None = None) -> None:
    """Write an image as float32 ``.nii.gz``; errors as `write_bytes`.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    image : Nifti1Image
        3-D or 4-D.
    tr : float, optional
        Repetition time in s where the fourth dimension is time.
    """
    import nibabel

    data = np.asarray(image.dataobj, np.float32)
    clean = nibabel.Nifti1Image(data, image.affine)
    clean.header.set_xyzt_units("mm", "sec" if tr is not None else "unknown")
    clean.set_sform(image.affine, code=4)
    clean.set_qform(image.affine, code=4, strip_shears=True)
    if tr is not None:
        clean.header.set_zooms((*clean.header.get_zooms()[:3], float(tr)))
    write_bytes(path, compress(clean.to_bytes()))


def write_netcdf(path: Path, dataset: xarray.Dataset) -> None:
    """Write an xarray dataset, see `netcdf.netcdf_bytes`; errors as `write_bytes`."""
    write_bytes(path, netcdf_bytes(dataset))


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises
    ------
    MissingInputError
        There is no such file.
    ReadWriteError
        It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist or is a link without content.") from error
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror}.") from error


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; errors as for tables, see `read_tsv`."""
    return parse_object(path, _read_bytes(path))


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    try:
        return _read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, found: {error}.") from error


def read_tsv(path: Path) -> dict[str, list[str]]:
    """Read a table as text.

    Returns
    -------
    dict of str to list of str
        One entry a column.

    Raises
    ------
    DataError
        Rows differ in length.
    MissingInputError, ReadWriteError
        The file is missing, or cannot be read.
    """
    rows = [line.split("\t") for line in _lines(path) if line]
    if not rows:
        raise DataError(f"{path}: found an empty file, expected a table with a header.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}, line {number}: found {len(row)} cells, expected {len(rows[0])}."
            )
    return {name: [row[k] for row in rows[1:]] for k, name in enumerate(rows[0])}


def _numbers(path: Path, lines: Sequence[str], n_columns: int) -> np.ndarray:
    """Return lines as numbers, shape (n_rows, n_columns); ``n/a`` is NaN."""
    try:
        rows = [line.replace("n/a", "nan").split("\t") for line in lines if line]
        matrix = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: expected numbers, found: {error}.") from error
    if matrix.size != len(rows) * n_columns:
        raise DataError(f"{path}: found {len(rows[0])} cells in a row, expected {n_columns}.")
    return matrix.reshape(len(rows), n_columns)


def read_matrix_tsv(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Read a table of numbers.

    Returns
    -------
    columns : tuple of str
    matrix : array, shape (n_rows, n_columns)
        NaN for ``n/a``.

    Raises
    ------
    DataError
        A cell is no number, or rows differ in length.
    """
    lines = _lines(path)
    if not lines:
        raise DataError(f"{path}: found an empty file, expected a table with a header.")
    columns = tuple(lines[0].split("\t"))
    return columns, _numbers(path, lines[1:], len(columns))


def read_stim_tsv_gz(path: Path) -> np.ndarray:
    """Read a headerless ``_stim.tsv.gz``, shape (n_trs, n_columns); errors as `read_tsv`."""
    try:
        text = gzip.decompress(_read_bytes(path)).decode()
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    lines = [line for line in text.splitlines() if line]
    return _numbers(path, lines, len(lines[0].split("\t")) if lines else 0)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file; errors as `read_tsv`."""
    try:
        whole = hashlib.sha256()
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # a stream costs more
        try:
            while part := os.read(file, _ONE_READ):
                whole.update(part)
        finally:
            os.close(file)
        return whole.hexdigest()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist or is a link without content.") from error
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror}.") from error


def fingerprint(path: Path) -> str:
    """Return a fast fingerprint of a file's content for step keys; errors as `read_tsv`.

    Notes
    -----
    Below 8 MiB it is the sha256 of the whole file (``sha256:...``). Larger files give
    ``ends:...``, the sha256 of the size and of the first and the last MiB: a gzip file ends
    with the checksum of all its data, so that a change anywhere shows. A large uncompressed
    file that changes only in the middle, at the same size, keeps its fingerprint.
    """
    try:
        size = path.stat().st_size
        if size < _FULL_HASH_BELOW:
            return f"sha256:{sha256_file(path)}"
        with path.open("rb") as stream:
            digest = hashlib.sha256(f"{size}:".encode())
            digest.update(stream.read(_END_BYTES))
            stream.seek(-_END_BYTES, os.SEEK_END)
            digest.update(stream.read(_END_BYTES))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist or is a link without content.") from error
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror}.") from error
    return f"ends:{digest.hexdigest()}"
