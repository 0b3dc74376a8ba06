"""Where libraries keep their caches: settled before any of them is imported.

Nothing here imports a library that reads these variables, and nothing needs a home folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from bids_brainlm.errors import OutputError

# Variable, and the folder below the home that its library uses without it.
CACHES = {
    "HF_HOME": ".cache/huggingface",
    "MPLCONFIGDIR": ".config/matplotlib",
    "NLTK_DATA": "nltk_data",
    "NUMBA_CACHE_DIR": ".cache/numba",
    "TEMPLATEFLOW_HOME": ".cache/templateflow",
    "TORCHINDUCTOR_CACHE_DIR": ".cache/torchinductor",  # its default asks for the user's name
    "TORCH_HOME": ".cache/torch",
    "XDG_CACHE_HOME": ".cache",
}
READ_WHEN_THERE = ("NLTK_DATA", "TEMPLATEFLOW_HOME")  # only ever read here: may be read-only
OFFLINE = "HF_HUB_OFFLINE"
HUB_CACHE = "HF_HUB_CACHE"
_TRUE = ("1", "ON", "YES", "TRUE")  # as Hugging Face reads it


@contextmanager
def settled(work_dir: str, *, offline: bool) -> Iterator[bool]:
    """Run the body in the environment of `prepare`, and put back what it changed.

    Parameters
    ----------
    work_dir : str
        See `prepare`.
    offline : bool
        See `prepare`.

    Yields
    ------
    bool
        See `prepare`.

    Raises
    ------
    OutputError
        See `prepare`.
    """
    names = (*CACHES, OFFLINE, HUB_CACHE)
    before = {name: os.environ.get(name) for name in names}
    try:
        yield prepare(work_dir, offline=offline)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def prepare(
    work_dir: str, *, offline: bool, environ: MutableMapping[str, str] | None = None
) -> bool:
    """Point every library's cache to a folder that can be written; heed the offline switch.

    Parameters
    ----------
    work_dir : str
        Where caches go that have no place of their own; empty for a folder of this user
        among the temporary files.
    offline : bool
        Whether the network must not be touched.
    environ : mutable mapping of str to str, optional
        The environment that is changed; by default that of this process. Must be called
        before Hugging Face, Matplotlib, Numba, NLTK, PyTorch or TemplateFlow is imported.

    Returns
    -------
    bool
        Whether the network must not be touched: also where ``HF_HUB_OFFLINE`` says so, as in
        the images.

    Raises
    ------
    OutputError
        A cache is needed, and no folder for temporary files can be written.

    Notes
    -----
    A variable that names a folder which can be written, or made, stays as it is. So does the
    default below a home that can be written: then nothing is set. A folder that holds models
    or atlases and cannot be written is still read (``HF_HUB_CACHE``, ``TEMPLATEFLOW_HOME``).
    """
    environ = os.environ if environ is None else environ
    if offline:
        environ[OFFLINE] = "1"
    offline = environ.get(OFFLINE, "").upper() in _TRUE
    home = _home(environ)
    for variable, below in CACHES.items():
        given = environ.get(variable)
        if given is None and home is not None:
            continue
        known = Path(given) if given else _unwritable_home(environ, below)
        if known is not None and given and _writable(known):
            continue
        if known is not None and variable in READ_WHEN_THERE and _holds_something(known):
            continue
        if known is not None and variable == "HF_HOME" and (known / "hub").is_dir():
            environ.setdefault(HUB_CACHE, str(known / "hub"))
        environ[variable] = str(_folder(work_dir) / variable.lower())
    return offline


def _home(environ: MutableMapping[str, str]) -> Path | None:
    """Return the home folder if it can be written."""
    home = environ.get("HOME", "")
    return Path(home) if home and os.path.isdir(home) and os.access(home, os.W_OK) else None


def _unwritable_home(environ: MutableMapping[str, str], below: str) -> Path | None:
    """Return a library's default folder below a home that cannot be written."""
    home = environ.get("HOME", "")
    return Path(home) / below if home else None


def _writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made; makes none."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _holds_something(folder: Path) -> bool:
    """Tell whether a folder can be read and is not empty."""
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


def _folder(work_dir: str) -> Path:
    """Return the folder of this user's caches: in the work folder, else with temporary files."""
    if work_dir:
        return Path(work_dir).absolute() / "caches"
    try:
        return Path(tempfile.gettempdir()) / f"bids_brainlm-{os.getuid()}"
    except FileNotFoundError as error:
        raise OutputError(
            "Libraries need a folder for temporary files: found none that can be written "
            f"({error.strerror}).",
            hint="Give one with --work-dir, or set TMPDIR.",
        ) from error
