"""Write the reports: pages are remade when something that they show has changed."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bids_brainlm import __version__, config, logs
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import DataError
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps import base, reports
from bids_brainlm.steps.base import Job, Unit

GROUP_SECTIONS = ("ceiling", "regions", "stats")
GROUP_ENCODING = ("seed", "trim", "cv", "inner_cv", "gap", "alphas")  # of ceilings and draws
DAMAGED = (
    "This result of an earlier call is damaged. Run that call again: without --participant-label "
    "and --task-label it makes anew whatever is damaged."
)
MANY = 3  # pages from which on worker processes pay off


def write_pages(
    settings: Config,
    plan: Plan,
    failed: Sequence[tuple[Unit, str]],
    names: Names,
    log: logs.RunLog,
) -> None:
    """Write the pages of a level and ``logs/CITATION.md``.

    Parameters
    ----------
    settings : Config
    plan : Plan
    failed : sequence of (Unit, str)
        What failed and why.
    names : Names
    log : RunLog
    """
    if settings.level == "stimulus":
        return
    shared = {
        "settings": _shown(settings),
        "command": config.command(settings),
        "version": __version__,
    }
    marks = {job.record: _mark(job, settings) for job in plan.jobs}
    write_level = _group if settings.level == "group" else _participants
    try:
        write_level(settings, plan, failed, shared, marks, names, log)
    except DataError as error:  # pages read nothing but results
        raise DataError(error.message, hint=DAMAGED) from error
    for name, text in reports.citation(settings.output_dir, version=__version__).items():
        _update(settings.output_dir / name, text.encode())


def _mark(job: Job, settings: Config) -> str:
    """Stand for a job in a page's key; reports alone may show what is not finished yet."""
    unfinished = settings.execution.reports_only and base.state(job) != "done"
    return "unfinished" if unfinished else job.key


def _shown(settings: Config) -> dict[str, object]:
    """Return the settings for the pages; which labels a call was about changes no result."""
    shown = config.digest(settings)
    if settings.level == "group":
        # What belongs to participants is in their sidecars; here it would show mere defaults.
        kept = {k: v for k, v in shown["encoding"].items() if k in GROUP_ENCODING}
        sections = {k: v for k, v in shown.items() if k in GROUP_SECTIONS}
        return {**sections, "encoding": kept}
    shown["inputs"] = {k: v for k, v in shown["inputs"].items() if not k.endswith("_label")}
    return shown


def _participants(settings, plan, failed, shared, marks, names, log) -> None:
    """Remake the pages of participants whose results changed."""
    wanted = []
    for participant in plan.participants:
        mine = [job for job in plan.jobs if job.unit.participant in (participant, None)]
        own = {
            "skipped": [(s.what, s.why) for s in plan.skipped if s.participant == participant],
            "failed": [(str(u), why) for u, why in failed if u.participant in (participant, None)],
        }
        key = _key([*(marks[job.record] for job in mine), own, shared])
        path = names.path("participant_report", {"participant": participant})
        if settings.execution.reports_only or _stored(path) != key:
            wanted.append((settings.output_dir, participant, own, shared, key))
    if not wanted:
        return
    log.say(f"reports: {len(wanted)} participants")
    n_workers = min(settings.execution.nprocs or 2, len(wanted))
    if n_workers > 1 and len(wanted) >= MANY:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(n_workers, mp_context=spawn, initializer=_be_quiet) as pool:
            for done, _ in enumerate(pool.map(_participant, wanted), start=1):
                log.tick(f"reports: {done}/{len(wanted)}")
        return
    for one in wanted:
        _participant(one)


def _be_quiet() -> None:
    """Leave Ctrl-C to the main process; a worker finishes the page it has begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _participant(task: tuple[Path, str, Mapping, Mapping, str]) -> None:
    """Write the page of one participant (also in a worker process)."""
    out_dir, participant, own, shared, key = task
    files = reports.participant_report(out_dir, participant, **own, **shared)
    _write(out_dir, files, key)


def _group(settings, plan, failed, shared, marks, names, log) -> None:
    """Remake the group's page if results changed."""
    own = {
        "skipped": [(s.what, s.why) for s in plan.skipped],
        "failed": [(str(u), why) for u, why in failed],
    }
    key = _key([*marks.values(), own, shared])
    path = names.path("group_report")
    if settings.execution.reports_only or _stored(path) != key:
        log.say("report: group")
        _write(settings.output_dir, reports.group_report(settings.output_dir, **own, **shared), key)


def _write(out_dir: Path, files: Mapping[str, bytes | str], key: str) -> None:
    """Write figures first and the page last, which carries the key and the sums of all files."""
    order = sorted(files, key=lambda name: (name.endswith(".html"), name))
    sums = []
    for name in order:
        content = files[name]
        data = content.encode() if isinstance(content, str) else content
        if name.endswith(".html"):
            data = data.rstrip() + b"\n"
            made = " ".join([f"page:{_sum(data)}", *sums])
            data += f"<!-- key {key} {made} -->\n".encode()
        else:
            sums.append(f"{name}:{_sum(data)}")
        _update(out_dir / name, data)


def _sum(data: bytes) -> str:
    """Return a checksum of a file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


def _update(path: Path, data: bytes) -> None:
    """Write a file unless it has this content."""
    if not path.is_file() or path.read_bytes() != data:
        write.write_bytes(path, data)


def _key(parts: Sequence[object]) -> str:
    """Hash what a page shows."""
    return hashlib.sha256(base.canonical([reports.VERSION, *parts]).encode()).hexdigest()


def _stored(path: Path) -> str | None:
    """Return the key of a page; None where it or one of its figures is missing or damaged."""
    if not path.is_file():
        return None
    page, mark, last = path.read_bytes().rstrip().rpartition(b"<!-- key ")
    if not mark:
        return None
    key, *sums = last.decode(errors="replace").removesuffix("-->").split() or [""]
    for given in sums:
        name, _, stored = given.rpartition(":")
        file = path.parent / name
        content = page if name == "page" else file.read_bytes() if file.is_file() else None
        if content is None or _sum(content) != stored:
            return None
    return key if sums else None
