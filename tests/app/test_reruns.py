"""Reruns change nothing, damage is noticed, killed and parallel runs end in the same tree."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
import small_alice
from small_alice import arguments, leftovers, stamps, start, tree

from bids_brainlm import cli
from bids_brainlm.bidsio import temporary


def _make(bids, out, *more, level="participant"):
    return cli.main(arguments(bids, out, *more, level=level))


@pytest.mark.parametrize("level", ["stimulus", "participant", "group"])
def test_the_same_call_makes_nothing_and_changes_no_byte(done, capsys, level):
    bids, out = done
    assert _make(bids, out, level="group") == 0
    before = stamps(out)
    capsys.readouterr()
    assert _make(bids, out, level=level) == 0
    assert "] " + f"{level} level: 0 of " in capsys.readouterr().err
    assert stamps(out) == before


def test_order_processes_and_place_do_not_matter(small, made, tmp_path):
    """Other folders, one participant after the other in another order: the same bytes."""
    moved = shutil.copytree(small, tmp_path / "elsewhere" / "raw")
    out = tmp_path / "elsewhere" / "results"
    for participant in ("23", "18"):
        assert _make(moved, out, "--participant-label", participant, "--nprocs", "3") == 0
    assert _make(moved, out, "--participant-label", "sub-22") == 0
    reference, found = tree(made), tree(out)
    differing = sorted(n for n in {*reference, *found} if reference.get(n) != found.get(n))
    assert [n for n in differing if not n.endswith(".html")] == ["dataset_description.json"]


def _truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "truncated TSV": ("sub-22/func/*stat-r_boldmap.tsv", _truncated),
    "changed text in a record": (
        "sub-22/func/*desc-nuisance_stat-r_boldmap.json",
        lambda path: path.write_text(path.read_text().replace("Pearson", "Qearson", 1)),
    ),
    "flipped byte in a NIfTI": ("sub-22/func/*stat-rjoint_boldmap.nii.gz", _flipped),
    "deleted record": ("sub-22/func/*desc-nuisance_stat-r_boldmap.json", lambda p: p.unlink()),
    "deleted sidecar": ("sub-22/func/*stat-q_boldmap.json", lambda p: p.unlink()),
    "empty record": ("sub-22/func/*timeseries.json", lambda p: p.write_text("")),
    "record that is no object": ("stimuli/*/*words.json", lambda p: p.write_text("[1]")),
    "truncated features": ("stimuli/*/*features.nc", _truncated),
    "truncated stimulus": ("task-alice_recording-nuisance_stim.tsv.gz", _truncated),
    "deleted series": ("sub-18/func/*timeseries.tsv", lambda p: p.unlink()),
    "truncated page": ("sub-18.html", _truncated),
    "deleted page": ("sub-23.html", lambda p: p.unlink()),
    "truncated description": ("descriptions.tsv", lambda p: p.unlink()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_noticed_and_mended(done, name):
    bids, out = done
    before = tree(out)
    pattern, damage = DAMAGE[name]
    for path in list(out.glob(pattern)):
        damage(path)
    assert tree(out) != before
    assert _make(bids, out) == 0
    assert tree(out) == before


def test_damage_of_group_outputs_is_mended(done):
    bids, out = done
    assert _make(bids, out, level="group") == 0
    before = tree(out)
    _truncated(next(out.glob("group/*stat-isc_boldmap.tsv")))
    _flipped(next(out.glob("group/*stat-meanthresholded_boldmap.nii.gz")))
    next(out.glob("group/*desc-nuisance_stat-mean_boldmap.json")).unlink()
    (out / "group.html").unlink()
    assert _make(bids, out, level="group") == 0
    assert tree(out) == before


def _seconds_of_a_run(bids, out):
    begun = time.monotonic()
    run = start(*arguments(bids, out))
    run.communicate(timeout=120)  # also closes the pipes: left open, they fail the test later
    assert run.returncode == 0
    return time.monotonic() - begun


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_in_the_same_tree(small, made, tmp_path):
    """One output folder is killed again and again, as early and as late as it gets."""
    reference = tree(made)
    whole = _seconds_of_a_run(small, tmp_path / "timed")
    moments = random.Random(7)
    for number in range(10):
        out = tmp_path / f"out{number}"
        if number >= 5:  # what needs torch is there: the kill falls among parcels, maps, pages
            shutil.copytree(made, out)
            for folder in ("sub-18", "sub-22", "sub-23"):
                shutil.rmtree(out / folder)
        run = start(*arguments(small, out))
        time.sleep(whole * moments.uniform(0.1, 0.95) if number < 5 else moments.uniform(0.3, 1.6))
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=30)
        assert _make(small, out) == 0
        assert tree(out) == reference, number
        assert leftovers(out) == []


@pytest.mark.slow
def test_two_processes_at_once(small, made, tmp_path):
    reference = tree(made)
    same = [start(*arguments(small, tmp_path / "same")) for _ in range(2)]
    for run in same:
        _, text = run.communicate(timeout=120)
        assert run.returncode == 0, text
    assert tree(tmp_path / "same") == reference
    parts = (("18", "22"), ("22", "23"))
    out = tmp_path / "parts"
    runs = [start(*arguments(small, out, "--participant-label", *p)) for p in parts]
    for run in runs:
        _, text = run.communicate(timeout=120)
        assert run.returncode == 0, text
    assert tree(out) == reference


def test_a_second_process_takes_what_the_first_has_made(small, made, tmp_path, monkeypatch, capsys):
    """What another process finished after this one planned is neither remade nor removed."""
    from bids_brainlm import runner

    out = tmp_path / "out"
    planned = runner._states

    def plan_then_let_another_finish(plan, settings):
        states = planned(plan, settings)
        shutil.copytree(made, out, dirs_exist_ok=True)
        return states

    monkeypatch.setattr(runner, "_states", plan_then_let_another_finish)
    assert _make(small, out) == 0
    assert "[1/11]" not in capsys.readouterr().err
    assert tree(out) == tree(made)


def test_other_settings_are_refused_then_replaced(done, tmp_path, capsys):
    bids, out = done
    before = stamps(out)
    assert _make(bids, out, "--gap", "6") == 73
    text = capsys.readouterr().err
    assert "gap was 4.0, now 6.0" in text
    assert "--overwrite" in text
    assert stamps(out) == before
    assert _make(bids, out, "--bin-rule", "midpoint") == 73
    assert "bin_rule" in capsys.readouterr().err
    assert _make(bids, out, "--gap", "6", "--overwrite") == 0
    fresh = tmp_path / "fresh"
    assert _make(bids, fresh, "--gap", "6") == 0
    assert tree(out) == tree(fresh)
    assert _make(bids, out, "--gap", "6") == 0


def test_changed_inputs_are_refused_then_replaced(done, tmp_path, capsys):
    bids, out = done
    shutil.copy(small_alice.bold(bids, "18"), small_alice.bold(bids, "22"))
    assert _make(bids, out) == 73
    assert "desc-preproc_bold.nii.gz was" in capsys.readouterr().err
    assert _make(bids, out, "--overwrite") == 0
    fresh = tmp_path / "fresh"
    assert _make(bids, fresh) == 0
    assert tree(out) == tree(fresh)


def test_more_of_the_same_needs_no_overwrite(done):
    """Another feature space or model adds to what is there."""
    bids, out = done
    before = tree(out)
    assert _make(bids, out, "--features", "magnitudes", "embeddings", "--layers", "1") == 0
    after = tree(out)
    kept = [n for n in before if n.endswith((".tsv", ".nii.gz", ".json", ".nc", ".gz"))
            and n not in ("descriptions.tsv",)]
    assert {n: after[n] for n in kept} == {n: before[n] for n in kept}
    assert any("randomTinyBertEmbeddings" in n for n in after)


def test_execution_settings_change_nothing(done, tmp_path):
    bids, out = done
    before = stamps(out)
    assert _make(bids, out, "--nprocs", "2", "--omp-nthreads", "2", "-w", str(tmp_path / "w"),
                 "--offline", "--on-error", "continue", "--mem-gb", "3") == 0
    assert stamps(out) == before


def test_dry_run_writes_nothing_and_names_the_units(small, made, tmp_path, capsys):
    assert _make(small, tmp_path / "out", "--dry-run") == 0
    text = capsys.readouterr().out
    for part in ("words", "features", "parcels", "encoding", "sub-18 alice", "sub-23 alice",
                 "core time", "memory", "MB"):
        assert part in text
    assert not (tmp_path / "out").exists()
    before = stamps(made)
    n_logs = len(list((made / "logs").iterdir()))
    assert _make(small, made, "--dry-run") == 0
    assert "missing" not in capsys.readouterr().out
    assert _make(small, made, "--dry-run", level="group") == 0
    assert "ceilings" in capsys.readouterr().out
    assert (stamps(made), len(list((made / "logs").iterdir()))) == (before, n_logs)


def test_reports_only_remakes_pages_from_the_outputs(done):
    bids, out = done
    before = tree(out)
    for page in out.glob("*.html"):
        page.unlink()
    shutil.rmtree(out / "sub-22" / "figures")
    assert _make(bids, out, "--reports-only") == 0
    assert tree(out) == before
    assert _make(bids, out, level="group") == 0
    before = tree(out)
    (out / "group.html").write_text("old")
    shutil.rmtree(out / "group" / "figures")
    assert _make(bids, out, "--reports-only", level="group") == 0
    assert tree(out) == before


@pytest.mark.parametrize("level", ["participant", "group"])
def test_reports_of_unfinished_results_are_remade(done, level):
    """Reports alone of a folder that lacks results must not pass for those of a whole one."""
    bids, out = done
    assert _make(bids, out, level="group") == 0
    before = tree(out)
    pattern = "sub-22/func/*stat-r_*" if level == "participant" else "group/*stat-mean_*"
    lost = list(out.glob(pattern))
    assert lost
    for path in lost:
        path.unlink()
    assert _make(bids, out, "--reports-only", level=level) == 0
    assert tree(out) != before
    assert _make(bids, out, level=level) == 0
    assert tree(out) == before


def test_a_damaged_group_sidecar_does_not_stop_participants(done):
    """The methods text reads sidecars of all levels; the group level mends its own."""
    bids, out = done
    assert _make(bids, out, level="group") == 0
    before = tree(out)
    for path in out.glob("group/*stat-mean_boldmap.json"):
        _truncated(path)
    assert _make(bids, out) == 0
    assert _make(bids, out, "--reports-only") == 0
    assert _make(bids, out, level="group") == 0
    assert tree(out) == before


@pytest.mark.parametrize("damage", ["cut", "renamed"])
def test_damaged_descriptions_of_the_dataset_are_written_anew(done, damage):
    """The README tells whose folder it is; the old text stays among the logs."""
    bids, out = done
    before = tree(out)
    path, table = out / "dataset_description.json", out / "descriptions.tsv"
    text = path.read_text()
    path.write_text(text[:100] if damage == "cut" else text.replace("bids_brainlm", "bids_braiolm"))
    lines = table.read_text().replace("\n", "\t", 1)
    table.write_text(lines.replace("\n", "", 1) + "desc-x\n")
    assert _make(bids, out) == 0
    assert tree(out) == before
    bits = text.replace("DatasetType", "DatasedType").replace("DatasetLinks", "DatbsetLinks")
    path.write_text(bits)  # sound JSON
    assert _make(bids, out) == 0
    assert tree(out) == before
    if damage == "cut":
        assert (out / "logs" / "damaged-dataset-description.log").read_text() == text[:100]
    (out / "README.md").unlink()
    path.write_text(text[:100])
    assert _make(bids, out) == 73


def test_a_group_page_refuses_a_damaged_table_of_a_participant(done, capsys):
    bids, out = done
    assert _make(bids, out, level="group") == 0
    for path in out.glob("sub-22/func/*Magnitudes_stat-unique_boldmap.tsv"):
        path.write_bytes(path.read_bytes()[:3])
    capsys.readouterr()
    assert _make(bids, out, "--reports-only", level="group") == 65
    error = capsys.readouterr().err
    assert "stat-unique_boldmap.tsv" in error
    assert "is damaged" in error
    assert _make(bids, out) == 0


def test_damage_outside_of_a_call_is_told_with_what_mends_it(done, capsys):
    """A page shows results that a call of one participant's pages does not make."""
    bids, out = done
    for path in out.glob("sub-22/func/*Magnitudes_stat-r_boldmap.tsv"):
        path.write_bytes(path.read_bytes().rpartition(b"\t")[0])
    capsys.readouterr()
    assert _make(bids, out, "--reports-only") == 65
    error = capsys.readouterr().err
    assert "stat-r_boldmap.tsv" in error
    assert "result of an earlier call is damaged. Run that call again" in error
    assert _make(bids, out) == 0


def test_group_reads_the_output_alone(small, made, tmp_path):
    one = shutil.copytree(made, tmp_path / "one")
    two = shutil.copytree(made, tmp_path / "two")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _make(small, one, level="group") == 0
    assert _make(empty, two, level="group") == 0
    assert tree(one) == tree(two)


def test_stimulus_level_then_participants(small, made, tmp_path, capsys):
    out = tmp_path / "out"
    assert _make(small, out, level="stimulus") == 0
    assert not list(out.glob("sub-*"))
    capsys.readouterr()
    assert _make(small, out) == 0
    assert "9 of 11 units to make" in capsys.readouterr().err
    assert tree(out) == tree(made)


def test_rests_of_killed_runs_are_swept_and_those_of_living_ones_kept(tmp_path):
    dead = start("--version")
    dead.communicate()
    name = temporary.temporary_name()
    host, number = name.removeprefix(".tmp-").split("-")[:2]
    gone = tmp_path / "a" / f".tmp-{host}-{dead.pid}-00"
    mine = tmp_path / "a" / name
    other = tmp_path / f".tmp-another{host}-{number}-00"
    gone.parent.mkdir()
    for path in (gone, mine, other):
        path.write_text("x")
    assert temporary.sweep(tmp_path) == 1
    assert not gone.exists()
    assert mine.exists()
    assert other.exists()
