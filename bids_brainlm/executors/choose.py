"""From ``--executor`` to an executor."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from bids_brainlm.config import Config
from bids_brainlm.executors import clusters, memory, slurm
from bids_brainlm.executors.work import Executor, Local


def n_cores() -> int:
    """Return how many cores this process may use (a job of a queue has fewer than the node)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb(config: Config) -> float:
    """Return the memory that may be used, GB: ``--mem-gb``, by default what is free."""
    return config.execution.mem_gb or memory.free_gb()


def check(config: Config, need_gb: float) -> None:
    """Make sure that the executor can be had, before anything is written.

    Parameters
    ----------
    config : Config
    need_gb : float
        Memory of the largest task with one thread.

    Raises
    ------
    BrainLMError
        Something that the executor needs is missing, or nobody answers.
    """
    if config.execution.executor == "slurm":
        slurm.check(config, need_gb)
    elif config.execution.executor == "dask":
        clusters.check(config)


def choose(
    config: Config,
    need_gb: float,
    say: Callable[[str], None],
    progress: Callable[[str], None],
) -> Executor:
    """Make the executor that the settings ask for.

    Parameters
    ----------
    config : Config
    need_gb : float
        Memory of the largest task with one thread.
    say, progress : callable
        Tell people something; progress within a task.

    Returns
    -------
    Executor
        To be closed.

    Raises
    ------
    BrainLMError
        Something that the executor needs is missing.
    """
    execution = config.execution
    n_workers = execution.nprocs or n_cores()
    if execution.executor == "local":
        return Local(n_workers, memory_gb(config), progress)
    if execution.executor == "slurm":
        return slurm.slurm_cluster(config, need_gb, say)
    if execution.dask_scheduler:
        return clusters.connect(config, execution.mem_gb or float("inf"), say)
    counted = replace(config, execution=replace(execution, nprocs=n_workers))
    return clusters.local_cluster(counted, need_gb, memory_gb(config), say)
