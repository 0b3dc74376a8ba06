"""How much memory this process may use: free memory, and the limits of its control groups."""

from __future__ import annotations

import re
from pathlib import Path

GB = 1e9
SHARE = 0.9  # of what is free: the system needs some as well
_NO_LIMIT = 2**60  # cgroup v1 writes its largest number where there is no limit


def free_gb(root: Path = Path("/")) -> float:
    """Return the memory that can be had now, GB.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` lie.

    Returns
    -------
    float
        The least of the system's available memory and, of every control group that this
        process is in (v1 and v2, parents too), the limit less what cannot be given back;
        4 where the system tells nothing. A tenth is left for others.
    """
    found = [available - used for available, used in _groups(root)]
    found.append(_meminfo(root, "MemAvailable"))
    known = [value for value in found if value is not None]
    return SHARE * max(0.0, min(known)) / GB if known else 4.0


def limit_gb(root: Path = Path("/")) -> float:
    """Return the most memory that this process could ever have, GB; arguments as `free_gb`."""
    found = [limit for limit, _ in _groups(root)] + [_meminfo(root, "MemTotal")]
    known = [value for value in found if value is not None]
    return min(known) / GB if known else float("inf")


def _meminfo(root: Path, name: str) -> float | None:
    """Return a line of /proc/meminfo, bytes."""
    text = _read(root / "proc" / "meminfo")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    return None if found is None else float(found[1]) * 1024


def _groups(root: Path) -> list[tuple[float, float]]:
    """Return limit and use, bytes, of each control group with a limit."""
    found = []
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        mount = root / "sys" / "fs" / "cgroup"
        if number == "0" and not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            folders = _with_parents(mount, path) + _with_parents(mount / "unified", path)
        elif "memory" in controllers.split(","):
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
            folders = _with_parents(mount / "memory", path)
        else:
            continue
        found += [group for folder in folders if (group := _group(folder, names)) is not None]
    return found


def _with_parents(mount: Path, path: str) -> list[Path]:
    """Return a group's folder and those above it; in a container only the mount may be there."""
    folder = mount / path.strip("/")
    steps = [folder, *folder.parents]
    return steps[: steps.index(mount) + 1] if mount in steps else [mount]


def _group(folder: Path, names: tuple[str, str, str]) -> tuple[float, float] | None:
    """Return limit and use of one group; file pages that can be given back are not used."""
    limit, used = _read(folder / names[0]).strip(), _read(folder / names[1]).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) >= _NO_LIMIT:
        return None
    idle = re.search(rf"^{names[2]} (\d+)", _read(folder / "memory.stat"), re.M)
    return float(limit), max(0.0, float(used) - (float(idle[1]) if idle else 0.0))


def _read(path: Path) -> str:
    """Return a small file's text; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
