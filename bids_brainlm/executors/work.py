"""One piece of work for one process, and how it is done there."""

from __future__ import annotations

import importlib
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from bids_brainlm import __version__, caches
from bids_brainlm.config import Config
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.steps import base, intact
from bids_brainlm.steps.base import Job, Outcome, Resources

_PACKAGE = "bids_brainlm.steps."


@dataclass(frozen=True)
class Task:
    """Jobs of one step that run in one call of it.

    ``n_workers`` threads may work at once, ``mem_gb`` is for all of them; neither changes a
    result. ``folder`` is the working directory that relative paths of the settings refer to.
    """

    step: str
    jobs: tuple[Job, ...]
    config: Config
    n_workers: int
    mem_gb: float
    folder: Path
    version: str = __version__

    def __str__(self) -> str:
        """Name the task for people and dashboards."""
        unit = str(self.jobs[0].unit)
        return f"{self.step} {unit}" + (f" +{len(self.jobs) - 1}" if len(self.jobs) > 1 else "")


@dataclass(frozen=True)
class Done:
    """What became of a task.

    ``seconds`` is the time that passed, ``core_seconds`` that of all cores, ``peak_gb`` the
    largest memory of its process until then.
    """

    task: Task
    outcomes: Sequence[Outcome]
    seconds: float
    core_seconds: float
    peak_gb: float


Reply = tuple[list[tuple[int, Exception | None, tuple[str, ...]]], float, float]


class Executor(Protocol):
    """Something that works on tasks."""

    distributed: bool
    n_workers: int

    def shape(self, need_gb: tuple[float, float]) -> tuple[int, float]:
        """Return threads and memory (GB) for a task.

        Parameters
        ----------
        need_gb : tuple of float
            Memory of a step, and of each of its threads.

        Returns
        -------
        n_workers : int
        mem_gb : float
        """
        ...

    def perform(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yield tasks as they end; takes the next one from ``tasks`` when it can begin.

        Parameters
        ----------
        tasks : iterable of Task

        Yields
        ------
        Done
        """
        ...

    def close(self) -> None:
        """Leave: stop what runs, and give back workers that were started."""
        ...


def step_module(step: str) -> ModuleType:
    """Return the module of a step by its name."""
    return importlib.import_module(_PACKAGE + step)


def call(task: Task, progress: Callable[[str], None]) -> list[Outcome]:
    """Do a task in this process.

    Parameters
    ----------
    task : Task
    progress : callable
        Told about progress within the task.

    Returns
    -------
    list of Outcome
    """
    module, execution = step_module(task.step), task.config.execution
    resources = Resources(
        out_dir=task.config.output_dir,
        bids_dir=task.config.bids_dir,
        nprocs=task.n_workers,
        mem_gb=task.mem_gb,
        device=execution.device,
        offline=execution.offline,
        models_dir=Path(execution.models_dir) if execution.models_dir else None,
        progress=progress,
    )
    if task.config.level != "group":
        return module.run(task.jobs, module.params(task.config), resources)
    # What participants' results are was not looked at so far.
    damage = {job.record: intact.damage(job, resources.out_dir) for job in task.jobs}
    sound = [job for job in task.jobs if damage[job.record] is None]
    left_out = [Outcome(job, damage[job.record]) for job in task.jobs if damage[job.record]]
    made = module.run(sound, module.params(task.config), resources) if sound else []
    return [*left_out, *made]


def call_away(task: Task) -> Reply:
    """Do a task in a worker process of a cluster.

    Parameters
    ----------
    task : Task

    Returns
    -------
    outcomes : list of (int, Exception or None, tuple of str)
        Number of the job within the task, its error, its warnings.
    core_seconds : float
        Time of all cores.
    peak_gb : float
        Largest memory of the worker process.

    Raises
    ------
    ConfigError
        The worker runs another version of this package.
    MissingInputError
        The worker does not see the folders of the call.

    Notes
    -----
    A task may come again after the worker that had it died: jobs that are done by then are
    not made again.
    """
    if task.version != __version__:
        raise ConfigError(
            f"Worker {os.uname().nodename} runs bids_brainlm {__version__}, this call "
            f"{task.version}.",
            hint="Install the same version for the workers, or use --executor local.",
        )
    for folder in (task.folder, task.config.output_dir):
        if not folder.is_dir():
            raise MissingInputError(
                f"Worker {os.uname().nodename} does not see the folder {folder}.",
                hint="Start the workers where the file system of OUTPUT_DIR is mounted, or use "
                "--executor local.",
            )
    begun = time.process_time()
    os.chdir(task.folder)
    execution = task.config.execution
    caches.prepare(execution.work_dir, offline=execution.offline)
    numbers = [k for k, job in enumerate(task.jobs) if base.state(job) != "done"]
    found: list[tuple[int, Exception | None, tuple[str, ...]]] = [
        (k, None, ()) for k in range(len(task.jobs)) if k not in numbers
    ]
    if numbers:
        jobs = tuple(task.jobs[k] for k in numbers)
        left = Task(task.step, jobs, task.config, task.n_workers, task.mem_gb, task.folder)
        places = {task.jobs[k].record: k for k in numbers}
        for outcome in call(left, _quiet):
            found.append((places[outcome.job.record], outcome.error, outcome.warnings))
    return found, time.process_time() - begun, peak_gb()


def _quiet(text: str) -> None:
    """Tell nobody: progress of a worker is seen on the dashboard."""


def peak_gb() -> float:
    """Return the largest memory that this process has had so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Local:
    """Work in this process, in as many threads as the memory allows, one task at a time.

    Parameters
    ----------
    n_workers : int
        Threads within a step.
    mem_gb : float
        Memory for all of them.
    progress : callable
        Told about progress.
    """

    distributed = False

    def __init__(self, n_workers: int, mem_gb: float, progress: Callable[[str], None]) -> None:
        self.n_workers, self.mem_gb, self._progress = n_workers, mem_gb, progress

    def shape(self, need_gb: tuple[float, float]) -> tuple[int, float]:
        """Return threads and memory of a task, see `Executor`."""
        shared, each = need_gb
        fitting = int((self.mem_gb - shared) / each) if each > 0 else self.n_workers
        return max(1, min(self.n_workers, fitting)), self.mem_gb

    def perform(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Do one task after the other, see `Executor`."""
        for task in tasks:
            begun, used = time.monotonic(), time.process_time()
            outcomes = call(task, self._progress)
            seconds, used = time.monotonic() - begun, time.process_time() - used
            yield Done(task, outcomes, seconds, used, peak_gb())

    def close(self) -> None:
        """Nothing was started."""
