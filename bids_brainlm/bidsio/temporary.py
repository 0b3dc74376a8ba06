"""Temporary files beside the final ones: their names, and what killed runs leave behind."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = ".tmp-"
_DAY = 86_400.0  # s


def temporary_name() -> str:
    """Return a file name that no other process uses and that says whose it is."""
    return f"{_PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def _host() -> str:
    """Return this machine's name as letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", os.uname().nodename) or "host"


def sweep(folder: Path) -> int:
    """Remove temporary files that killed processes left below a folder.

    Parameters
    ----------
    folder : Path
        An output dataset.

    Returns
    -------
    int
        How many were removed.

    Notes
    -----
    Whatever is older than a day goes. Younger files stay where their process may live: it does
    on this machine, or it ran on another machine, which cannot be asked.
    """
    n_removed = 0
    for path in sorted(folder.rglob(f"{_PREFIX}*")):
        try:
            if time.time() - path.stat().st_mtime > _DAY or not _may_live(path.name):
                path.unlink()
                n_removed += 1
        except OSError as error:
            log.debug("%s stays: %s", path, error)
    return n_removed


def _may_live(name: str) -> bool:
    """Tell whether the process that made a temporary file may still be at work."""
    parts = name.removeprefix(_PREFIX).split("-")
    if len(parts) != 3 or parts[0] != _host():
        return True
    try:
        os.kill(int(parts[1]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
