"""Nothing is lost or half-written: kills, full and broken disks, damaged outputs."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import small_alice
from small_alice import arguments, leftovers, tree

from bids_brainlm import cli
from bids_brainlm.bidsio import write

pytestmark = pytest.mark.thorough

KILLING = Path(__file__).with_name("killing.py")


def _run(bids, out, *more, level="participant"):
    return cli.main(arguments(bids, out, *more, level=level))


# --- kills --------------------------------------------------------------------------------------


def _kill_many(small, out, reference, level, n_moments, seed):
    given = arguments(small, out, level=level)
    command = [sys.executable, str(KILLING), str(out), str(reference), str(n_moments), str(seed),
               *given]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=small.parent,
        env={**small_alice.environment(), "PYTHONPATH": str(KILLING.parent)},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"{n_moments} moments" in done.stdout
    assert int(done.stdout.split(" moments, ")[1].split(" killed")[0]) >= n_moments / 2
    return done.stdout


def _group(small, made, tmp_path):
    """Lay the participants' results out as what group runs begin with, and return the end."""
    shutil.copytree(made, tmp_path / "begin")
    both = shutil.copytree(made, tmp_path / "both")
    assert _run(small, both, level="group") == 0
    return both


def test_group_runs_killed_at_2_moments(small, made, tmp_path):
    both = _group(small, made, tmp_path)
    _kill_many(small, tmp_path / "out", both, "group", 2, 12)


@pytest.mark.slow
def test_participant_runs_killed_at_120_moments(small, made, tmp_path):
    _kill_many(small, tmp_path / "out", made, "participant", 120, 11)


@pytest.mark.slow
def test_group_runs_killed_at_80_moments(small, made, tmp_path):
    both = _group(small, made, tmp_path)
    _kill_many(small, tmp_path / "out", both, "group", 80, 12)


# --- full and broken disks ----------------------------------------------------------------------


class Broken:
    """Let the n-th operation on files, and all after it, fail; 0 only counts.

    Stands in for a full or broken disk anywhere: the functions below all of `bidsio.write`.
    """

    def __init__(self, number: int, code: int, *, once: bool) -> None:
        self.number, self.code, self.once, self.count = number, code, once, 0

    def fails(self) -> bool:
        self.count += 1
        return self.number > 0 and (
            self.count == self.number if self.once else self.count >= self.number
        )

    def error(self, path: object) -> OSError:
        return OSError(self.code, os.strerror(self.code), str(path))


@contextmanager
def _disk(broken: Broken, monkeypatch: pytest.MonkeyPatch):
    whole, sync, rename = write._write, os.fsync, os.replace

    def half(path: Path, data: bytes) -> None:
        if broken.fails():
            whole(path, data[: len(data) // 2])
            raise broken.error(path)
        whole(path, data)

    def synced(fd: int) -> None:
        if broken.fails():
            raise broken.error(fd)
        sync(fd)

    def renamed(old: Path, new: Path) -> None:
        if broken.fails():
            raise broken.error(new)
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write", half)
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "replace", renamed)
        yield


def _n_operations(small, out, monkeypatch, level) -> int:
    counter = Broken(0, 0, once=True)
    with _disk(counter, monkeypatch):
        assert _run(small, out, level=level) == 0
    return counter.count


def _fail_at(number, code, once, begin: Callable[[], None], check: tuple, monkeypatch, capsys):
    small, out, reference, level = check
    shutil.rmtree(out, ignore_errors=True)
    begin()
    before = tree(out) if out.exists() else {}
    capsys.readouterr()
    with _disk(Broken(number, code, once=once), monkeypatch):
        assert _run(small, out, level=level) == 74, (number, code, once)
    error = capsys.readouterr().err
    assert os.strerror(code) in error
    assert "cannot be written" in error
    assert "What to do: " in error
    assert "Traceback" not in error
    assert leftovers(out) == []
    grown = ("descriptions.tsv", "dataset_description.json")
    for name, stored in tree(out).items():
        if name not in grown and not name.endswith(".html"):
            assert stored in (reference.get(name), before.get(name)), (number, name)
    assert _run(small, out, level=level) == 0
    assert tree(out) == reference, number


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_broken_disk_at_some_writes(small, made, tmp_path, monkeypatch, capsys, level):
    _broken_disk(small, made, tmp_path, monkeypatch, capsys, level, 3)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_broken_disk_at_every_third_write(small, made, tmp_path, monkeypatch, capsys, level):
    _broken_disk(small, made, tmp_path, monkeypatch, capsys, level, 10_000)


def _broken_disk(small, made, tmp_path, monkeypatch, capsys, level, most):
    out = tmp_path / "out"

    def begin() -> None:
        """Start with the story's features, or with all participants, to be quick."""
        if level == "group":
            shutil.copytree(made, out)
            return
        out.mkdir()
        for name in ("stimuli", "logs"):
            shutil.copytree(made / name, out / name)
        for path in made.glob("task-*"):
            shutil.copy(path, out)

    begin()
    n_operations = _n_operations(small, out, monkeypatch, level)
    reference = tree(out)
    moments = random.Random(5)
    numbers = list(range(1, n_operations + 1, 3))
    for number in sorted(moments.sample(numbers, min(most, len(numbers)))):
        code = moments.choice([errno.ENOSPC, errno.EIO])
        place = number + moments.randrange(3)
        once = moments.random() < 0.5
        if place <= n_operations:
            check = (small, out, reference, level)
            _fail_at(place, code, once, begin, check, monkeypatch, capsys)


# --- damage -------------------------------------------------------------------------------------


def _damage(path: Path, moments: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = moments.choice(["cut", "flip", "flip", "zeros", "empty"])
    place = moments.randrange(len(data))
    if kind == "cut":
        data = data[:place]
    elif kind == "flip":
        data[place] ^= 1 << moments.randrange(8)
    elif kind == "zeros":
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    else:
        data = bytearray()
    path.write_bytes(bytes(data))
    return f"{kind} at {place}"


def _damaged(done, n_files, seed, level):
    bids, out = done
    if level == "group":
        assert _run(bids, out, level=level) == 0
    before = tree(out)
    moments = random.Random(seed)
    mine = [n for n in before if level == "participant" or n.startswith("group")]
    for _ in range(n_files):
        name = moments.choice(mine)
        how = _damage(out / name, moments)
        assert _run(bids, out, "--overwrite", level=level) == 0, (name, how)
        assert tree(out) == before, (name, how)


def test_damage_anywhere_is_noticed_and_mended(done):
    _damaged(done, 4, 21, "participant")


@pytest.mark.slow
@pytest.mark.parametrize("level", ["participant", "group"])
def test_damage_anywhere_60_times(done, level):
    _damaged(done, 60, 22, level)


# --- damage that a level meets which cannot mend it ---------------------------------------------


def _other_digit(path: Path) -> None:
    """Change one digit of a table's last number: still a table, with another value."""
    text = path.read_text("utf-8").rstrip()
    path.write_text(text[:-1] + ("1" if text[-1] != "1" else "2") + "\n", "utf-8")


def _refused(bids, out, name, capsys, *more, level):
    capsys.readouterr()
    assert _run(bids, out, *more, level=level) == 65
    said = capsys.readouterr().err
    assert f"{name} is damaged" in said
    assert "What to do: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("stat", ["stat-r_boldmap.tsv", "stat-mean_timeseries.tsv"])
def test_a_group_takes_no_damaged_results_of_participants(done, made, tmp_path, capsys, stat):
    """A digit that changed would go into the group's maps, under a key that says all is well."""
    bids, out = done
    wanted = tree(_group(bids, made, tmp_path))
    path = next(p for p in sorted(out.glob("sub-22/func/*")) if p.name.endswith(stat))
    _other_digit(path)
    _refused(bids, out, path.name, capsys, level="group")
    assert _run(bids, out) == 0
    assert _run(bids, out, level="group") == 0
    assert tree(out) == wanted


def test_pages_show_no_damaged_results(done, capsys):
    """Pages alone, of a participant and of the group, and the page as it was stays."""
    bids, out = done
    assert _run(bids, out, level="group") == 0
    before = tree(out)
    path = next(out.glob("sub-22/func/*Magnitudes_stat-r_boldmap.tsv"))
    whole = path.read_text("utf-8")
    path.write_text("".join(whole.splitlines(keepends=True)[:-2]), "utf-8")
    for level in ("participant", "group"):
        _refused(bids, out, path.name, capsys, "--reports-only", level=level)
    path.write_text(whole, "utf-8")
    assert tree(out) == before
    sidecar = path.with_suffix(".json")
    sidecar.write_text(sidecar.read_text("utf-8").replace("22", "23", 1), "utf-8")
    _refused(bids, out, sidecar.name, capsys, "--reports-only", level="participant")
