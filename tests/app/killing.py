"""Kill runs at many moments and compare with an undisturbed one; a process of its own.

    python killing.py OUT REFERENCE N SEED ARGUMENTS...

Everything is imported once; each run is a fork. Half of the kills come at a random time, half
at a random operation on files (before a write, in the middle of one, before the rename). At
every fifth moment the reruns are killed as well, twice. A folder ``begin`` beside OUT is what
every run begins with, as hard links: its files are checked at the end, since nothing may be
changed in place. Prints one line a moment that ended in another tree, and the numbers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5netcdf
import torch
import transformers
import xarray
from small_alice import leftovers, tree

from bids_brainlm import cli, pages, runner
from bids_brainlm.bidsio import write
from bids_brainlm.plan import group, participant

LOADED = (runner, pages, group, participant, h5netcdf, torch, transformers, xarray)


def _silent() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _at_operations(do: Callable[[], bool], die: Callable[[], None]) -> None:
    """Call ``do`` at each operation on files, and ``die`` in its midst where that is true."""
    whole, sync, rename = write._write, os.fsync, os.replace

    def half(path: Path, data: bytes) -> None:
        if do():
            path.write_bytes(data[: len(data) // 2])
            die()
        whole(path, data)

    def synced(fd: int) -> None:
        if do():
            die()
        sync(fd)

    def renamed(old: Path, new: Path) -> None:
        if do():
            die()
        rename(old, new)

    write._write, os.fsync, os.replace = half, synced, renamed


def _die_at(number: int) -> None:
    """Kill this process at the n-th operation on files."""
    left = [number]

    def count() -> bool:
        left[0] -= 1
        return left[0] == 0

    _at_operations(count, lambda: os.kill(os.getpid(), signal.SIGKILL))


def _fork(arguments: list[str], prepare: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    _silent()
    prepare()
    code = 1
    try:
        code = cli.main(arguments)
    finally:
        os._exit(code)


def _nothing() -> None:
    pass


def _run(arguments: list[str]) -> int:
    return os.waitpid(_fork(arguments, _nothing), 0)[1]


def _measured(arguments: list[str]) -> tuple[float, int]:
    """Return the seconds of an undisturbed run and the number of its operations on files."""
    reading, writing = os.pipe()

    def note() -> bool:
        os.write(writing, b".")
        return False

    begun = time.monotonic()
    child = _fork(arguments, lambda: _at_operations(note, _nothing))
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        n_operations = len(stream.read())
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return time.monotonic() - begun, n_operations


def _kill(arguments: list[str], seconds: float, operation: int) -> bool:
    """Kill a run after some time, or at an operation if there is one; tell whether it was alive."""
    child = _fork(arguments, lambda: _die_at(operation) if operation else None)
    if not operation:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _begin(out: Path) -> None:
    """Begin with an empty folder, or with hard links to what is in ``begin``."""
    shutil.rmtree(out, ignore_errors=True)
    begin = out.with_name("begin")
    if begin.exists():
        shutil.copytree(begin, out, copy_function=os.link)


def main(out: Path, reference: Path, n: int, seed: int, arguments: list[str]) -> int:
    wanted, begin = tree(reference), tree(out.with_name("begin"))
    moments = random.Random(seed)
    _begin(out)
    whole, n_operations = _measured(arguments)
    killed = kills = bad = 0
    for number in range(n):
        _begin(out)
        before = kills
        for _ in range(3 if number % 5 == 0 else 1):
            by_time = moments.random() < 0.5
            seconds = moments.uniform(0.02, 0.98) * whole
            operation = 0 if by_time else moments.randint(1, n_operations)
            kills += _kill(arguments, seconds, operation)
        killed += kills > before
        status = _run(arguments)
        if status or tree(out) != wanted or leftovers(out):
            bad += 1
            found = tree(out)
            differing = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
            last = [number, seconds, operation, status]
            sys.stdout.write(json.dumps([*last, differing, leftovers(out)]) + "\n")
    if tree(out.with_name("begin")) != begin:
        bad += 1
        sys.stdout.write("files of the beginning were changed in place\n")
    sys.stdout.write(
        f"{n} moments, {killed} killed, {bad} bad; {kills} kills, "
        f"{n_operations} operations, {whole:.1f} s\n"
    )
    return bad


if __name__ == "__main__":
    given = sys.argv
    out, reference = Path(given[1]), Path(given[2])
    sys.exit(min(100, main(out, reference, int(given[3]), int(given[4]), given[5:])))
