"""Work on a Dask cluster: one that runs already, or one on this machine.

The scheduler gives the tasks of a worker that died to another one; a task whose worker died
four times is given up. All imports of Dask are inside functions: it is an optional dependency.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from itertools import count
from types import ModuleType
from typing import Any

from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, MissingInputError, ReadWriteError
from bids_brainlm.executors import work
from bids_brainlm.executors.work import Done, Task
from bids_brainlm.steps.base import Outcome

log = logging.getLogger(__name__)

DEATHS = 3  # of workers on one task, after which it is given up
CONNECT_SECONDS = 20
WAIT_SECONDS = 60.0
LEAVE_SECONDS = 3.0
AHEAD = 2  # tasks a worker that are handed over before they can begin
SETTINGS = {
    "distributed.scheduler.allowed-failures": DEATHS,
    "distributed.worker.memory.pause": False,  # nothing would wake a worker that keeps memory
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
    "distributed.admin.log-format": "%(message)s",
}
QUIET = ("distributed", "distributed.scheduler", "distributed.nanny", "distributed.worker")


class Cluster:
    """Work on the workers of a Dask scheduler.

    Parameters
    ----------
    client : distributed.Client
    say : callable
        Tells people something.
    mem_gb : float
        Memory of one task; lowered to what the smallest worker has.
    cluster : optional
        Closed at the end.
    """

    distributed = True

    def __init__(
        self, client: Any, say: Callable[[str], None], mem_gb: float, cluster: Any = None
    ) -> None:
        self._client, self._cluster, self._say = client, cluster, say
        self._numbers = count(1)
        workers = self._workers()
        self.n_workers = max(1, sum(int(w["nthreads"]) for w in workers.values()))
        shares = [
            w["memory_limit"] / w["nthreads"] / 1e9 for w in workers.values() if w["memory_limit"]
        ]
        self.mem_gb = min([mem_gb, *shares])

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the scheduler says about its workers."""
        try:
            return self._client.scheduler_info(n_workers=-1)["workers"]
        except TypeError:  # before Dask 2025.3 all workers are told without asking
            return self._client.scheduler_info()["workers"]

    def shape(self, need_gb: tuple[float, float]) -> tuple[int, float]:
        """Return one thread and a worker's memory, see `Executor`."""
        return 1, self.mem_gb

    def perform(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Keep all workers busy and yield tasks as they end, see `Executor`."""
        coming, running = iter(tasks), {}
        try:
            while True:
                for task in coming:
                    running[self._submit(task)] = (task, time.monotonic())
                    if len(running) >= AHEAD * self.n_workers:
                        break
                if not running:
                    return
                for future in self._ended(list(running)):
                    task, begun = running.pop(future)
                    yield self._done(future, task, time.monotonic() - begun)
        finally:
            if running and self._client.status == "running":
                self._quietly(lambda: self._client.cancel(list(running), force=True))

    def _submit(self, task: Task) -> Any:
        """Hand a task to the scheduler, with the resources that its workers declare."""
        declared = {name for w in self._workers().values() for name in w.get("resources") or ()}
        wanted = {"MEMORY": task.mem_gb * 1e9}
        if task.config.execution.device != "cpu":
            wanted["GPU"] = 1
        return self._client.submit(
            _in_worker,
            task,
            key=f"{task.step}-{next(self._numbers)}-{task}".replace(" ", "-"),
            pure=False,
            resources={name: value for name, value in wanted.items() if name in declared} or None,
        )

    def _ended(self, futures: list[Any]) -> list[Any]:
        """Wait until some have ended; say so when there is nobody to work."""
        from distributed import wait
        from distributed.utils import TimeoutError as Late

        while True:
            try:
                with self._client.as_current():
                    ended = wait(futures, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED")
                return list(ended.done)
            except Late:
                if self._client.status != "running":
                    raise ReadWriteError(
                        "The Dask scheduler does not answer any more.",
                        hint="Start it again, then run the same command again: finished results "
                        "are kept.",
                    ) from None
                if not self._workers():
                    self._say("  Waiting: the scheduler has no worker at present.")

    def _done(self, future: Any, task: Task, seconds: float) -> Done:
        """Return what became of a task; a task that cost several workers is an error."""
        from distributed.scheduler import KilledWorker

        try:
            found, used, peak_gb = future.result()
        except KilledWorker:
            error = ReadWriteError(
                f"{task}: the worker died {DEATHS + 1} times while it was at work on this, most "
                "often for want of memory.",
                hint="Give workers more memory with --mem-gb, or use fewer with --nprocs.",
            )
            return Done(task, [Outcome(job, error) for job in task.jobs], seconds, 0.0, 0.0)
        except BrainLMError as error:
            return Done(task, [Outcome(job, error) for job in task.jobs], seconds, 0.0, 0.0)
        except CancelledError as error:
            raise ReadWriteError(
                f"{task}: the Dask scheduler gave it up or went away.",
                hint="Start it again, then run the same command again: finished results are kept.",
            ) from error
        except ModuleNotFoundError as error:
            raise MissingInputError(
                f"The workers cannot import {error.name}.",
                hint="Install the same bids_brainlm for the workers, or use --executor local.",
            ) from error
        outcomes = [Outcome(task.jobs[k], error, notes) for k, error, notes in found]
        return Done(task, outcomes, seconds, used, peak_gb)

    def close(self) -> None:
        """Give back what was started; a scheduler that ran before goes on."""
        self._quietly(lambda: self._client.close(timeout=LEAVE_SECONDS))
        if self._cluster is not None:
            self._quietly(lambda: self._cluster.close(timeout=LEAVE_SECONDS))

    def _quietly(self, leave: Callable[[], object]) -> None:
        """Let a worker that does not answer in time be: it ends by itself."""
        try:
            leave()
        except (OSError, RuntimeError) as error:
            log.debug("while leaving: %s", error)


def _in_worker(task: Task) -> object:
    """Do a task in a worker; xarray would lock its files through the scheduler there."""
    import dask

    with dask.config.set(scheduler="threads"):
        return work.call_away(task)


def extra(module: str, extra: str, executor: str) -> ModuleType:
    """Import an optional dependency, or name the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingInputError(
            f"--executor {executor} needs the Python package {error.name or module}, which is not "
            "installed here.",
            hint=f"Install it with: pip install 'bids_brainlm[{extra}]', or use --executor local.",
        ) from error


def import_dask(executor: str) -> tuple[ModuleType, ModuleType]:
    """Return dask and distributed, which say nothing on stderr."""
    dask, distributed = extra("dask", "dask", executor), extra("distributed", "dask", executor)
    dask.config.set(SETTINGS)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return dask, distributed


def connect(config: Config, mem_gb: float, say: Callable[[str], None]) -> Cluster:
    """Use the scheduler that ``--dask-scheduler`` names.

    Parameters
    ----------
    config : Config
    mem_gb : float
        Memory for one task.
    say : callable

    Returns
    -------
    Cluster

    Raises
    ------
    MissingInputError
        Dask is not installed, nobody answers, or there are no workers.
    """
    client = _client(config.execution.dask_scheduler)
    return made(Cluster(client, say, mem_gb), client.dashboard_link, say)


def check(config: Config) -> None:
    """Make sure that Dask is here, and that the scheduler answers and has workers.

    Parameters
    ----------
    config : Config

    Raises
    ------
    MissingInputError
        As `connect`; nothing has been written by then.
    """
    import_dask("dask")
    if config.execution.dask_scheduler:
        _client(config.execution.dask_scheduler).close(timeout=LEAVE_SECONDS)


def _client(address: str) -> Any:
    """Connect to a scheduler that has workers."""
    _, distributed = import_dask("dask")
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MissingInputError(
            f"No Dask scheduler answers at {address} within {CONNECT_SECONDS} s.",
            hint="Start one with: dask scheduler, and give its address with --dask-scheduler, "
            "such as tcp://node1:8786.",
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except OSError as error:
        client.close()
        raise MissingInputError(
            f"The Dask scheduler at {address} has no workers.",
            hint=f"Start some with: dask worker {address} --nthreads 1.",
        ) from error
    return client


def local_cluster(
    config: Config, need_gb: float, mem_gb: float, say: Callable[[str], None]
) -> Cluster:
    """Start worker processes on this machine.

    Parameters
    ----------
    config : Config
        ``nprocs`` is the number of workers.
    need_gb : float
        Memory of the largest task: there are not more workers than it allows.
    mem_gb : float
        Memory of all workers together.
    say : callable

    Returns
    -------
    Cluster

    Raises
    ------
    MissingInputError
        Dask is not installed.
    """
    _, distributed = import_dask("dask")
    n_workers = max(1, min(config.execution.nprocs, int(mem_gb / max(need_gb, 0.1))))
    each = mem_gb / n_workers
    cluster = distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=int(each * 1e9),
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        local_directory=config.execution.work_dir or None,
    )
    client = distributed.Client(cluster, set_as_default=False)
    return made(Cluster(client, say, each, cluster), cluster.dashboard_link, say)


def made(cluster: Cluster, link: str | None, say: Callable[[str], None]) -> Cluster:
    """Say how many workers there are and where they can be watched."""
    say(
        f"Dask: {cluster.n_workers} workers, {cluster.mem_gb:.1f} GB a task; dashboard: "
        f"{link or 'none'}"
    )
    return cluster
