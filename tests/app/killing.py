"""Kill runs at many moments and compare with an undisturbed one; a process of its own.

    python killing.py BIDS OUT REFERENCE LEVEL N SEED ARGUMENTS...

Everything is imported once; each run is a fork. Half of the kills come at a random time, half
at a random operation on files (before a write, in the middle of one, before the rename).
Prints one line a moment that ended in another tree, and the number of moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import h5netcdf
import torch
import transformers
import xarray
from small_alice import leftovers, tree

import bids_brainlm.runner
from bids_brainlm import cli
from bids_brainlm.bidsio import write

LOADED = (bids_brainlm.runner, h5netcdf, torch, transformers, xarray)


def _silent() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _die_at(number: int) -> None:
    """Kill this process at the n-th operation on files."""
    left = [number]
    whole, sync, rename = write._write, os.fsync, os.replace

    def count() -> bool:
        left[0] -= 1
        return left[0] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(path: Path, data: bytes) -> None:
        if count():
            path.write_bytes(data[: len(data) // 2])
            die()
        whole(path, data)

    def synced(fd: int) -> None:
        if count():
            die()
        sync(fd)

    def renamed(old: Path, new: Path) -> None:
        if count():
            die()
        rename(old, new)

    write._write, os.fsync, os.replace = half, synced, renamed


def _fork(arguments: list[str], number: int = 0) -> int:
    child = os.fork()
    if child:
        return child
    _silent()
    if number:
        _die_at(number)
    code = 1
    try:
        code = cli.main(arguments)
    finally:
        os._exit(code)


def main(bids: Path, out: Path, reference: Path, level: str, n: int, seed: int) -> int:
    arguments = sys.argv[7:]
    begin = out.with_name("begin")
    wanted = tree(reference)
    moments = random.Random(seed)
    begun = time.monotonic()
    if begin.exists():
        shutil.copytree(begin, out)
    _, status = os.waitpid(_fork(arguments), 0)
    whole = time.monotonic() - begun
    n_operations = 3 * len(wanted)
    assert status == 0, status
    killed = bad = 0
    for number in range(n):
        shutil.rmtree(out)
        if begin.exists():
            shutil.copytree(begin, out)
        by_time = number % 2 == 0
        where = moments.uniform(0.02, 0.98) * whole if by_time else moments.randint(1, n_operations)
        child = _fork(arguments, 0 if by_time else int(where))
        if by_time:
            time.sleep(where)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        _, status = os.waitpid(_fork(arguments), 0)
        if status or tree(out) != wanted or leftovers(out):
            bad += 1
            found = tree(out)
            differing = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
            sys.stdout.write(json.dumps([by_time, where, status, differing, leftovers(out)]) + "\n")
    sys.stdout.write(f"{n} moments, {killed} killed, {bad} bad\n")
    return bad


if __name__ == "__main__":
    given = sys.argv
    places = [Path(p) for p in given[1:4]]
    sys.exit(min(100, main(*places, given[4], int(given[5]), int(given[6]))))
