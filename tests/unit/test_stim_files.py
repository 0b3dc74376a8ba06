"""Stimulus recordings of the dataset: names, inheritance, damage, and rows."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.bidsio import stim_files
from bids_brainlm.bidsio.dataset import Filters
from bids_brainlm.bidsio.stim_files import StimTable, choose, find_stims, read_stim
from bids_brainlm.bidsio.stim_rows import to_rows
from bids_brainlm.errors import ConfigError, DataError, MissingInputError
from bids_brainlm.records import TRGrid

few = settings(derandomize=True, max_examples=60, deadline=None)


def put(path, text="1\n", **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode() if isinstance(text, str) else text))
    if fields:
        (path.parent / path.name.replace(".tsv.gz", ".json")).write_text(json.dumps(fields))
    return path


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return tmp_path


def a_table(values, start=0.0, frequency=1.0, columns=None):
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    columns = columns or tuple(f"c{k}" for k in range(values.shape[1]))
    return StimTable(tuple(columns), values, start, frequency, Path("x_stim.tsv.gz"))


# Finding


def test_finds_all_places_by_equal_labels(dataset):
    names = [
        "task-black_recording-pitch_stim.tsv.gz",
        "task-blackout_recording-pitch_stim.tsv.gz",
        "stimuli/task-black_recording-loud_stim.tsv.gz",
        "stimuli/task-slumlord_stim.tsv.gz",
        "sub-01/func/sub-01_task-black_run-2_recording-pitch_stim.tsv.gz",
        "sub-02/ses-a/func/sub-02_ses-a_task-black_recording-pitch_stim.tsv.gz",
        "sub-02/ses-a/func/sub-03_ses-a_task-black_recording-pitch_stim.tsv.gz",
        "sub-01/func/sub-01_task-black_recording-pitch_stim.json",
        "sub-01/func/sub-01_task-black_recording-pitch_physio.tsv.gz",
    ]
    for name in names:
        put(dataset / name)
    found = find_stims(dataset, ["black", "task-slumlord"])
    assert [s.path.relative_to(dataset).as_posix() for s in found] == [
        names[i] for i in (0, 2, 3, 4, 5)
    ]
    assert [(s.label, s.recording, s.clock) for s in found] == [
        ("black", "pitch", "run"),
        ("black", "loud", "audio"),
        ("slumlord", "", "audio"),
        ("black", "pitch", "run"),
        ("black", "pitch", "run"),
    ]
    assert [(s.participant, s.session, s.run) for s in found[3:]] == [
        ("01", None, "2"),
        ("02", "a", None),
    ]
    assert [s.label for s in find_stims(dataset, ["black"], "loud")] == ["black"]
    only = find_stims(dataset, ["black"], "pitch", filters=Filters.of(participants=["02"]))
    assert [s.participant for s in only] == [None, "02"]
    none = find_stims(dataset, ["black"], "pitch", filters=Filters.of(runs=["1"]))
    assert [s.run for s in none] == [None, None]
    assert find_stims(dataset, []) == []
    shared = find_stims(dataset, ["black"], shared_only=True)
    assert [s.participant for s in shared] == [None, None]


def test_the_most_specific_file_applies(dataset):
    put(dataset / "task-black_recording-pitch_stim.tsv.gz")
    put(dataset / "sub-01/func/sub-01_task-black_recording-pitch_stim.tsv.gz")
    put(dataset / "sub-01/func/sub-01_task-black_run-2_recording-pitch_stim.tsv.gz")
    stims = find_stims(dataset, ["black"])

    def chosen(**key):
        return choose(stims, "pitch", **key).path.name

    assert chosen() == "task-black_recording-pitch_stim.tsv.gz"
    assert chosen(participant="02", run="2") == "task-black_recording-pitch_stim.tsv.gz"
    assert chosen(participant="01") == "sub-01_task-black_recording-pitch_stim.tsv.gz"
    assert chosen(participant="01", run="1") == "sub-01_task-black_recording-pitch_stim.tsv.gz"
    assert (
        chosen(participant="01", run="2") == "sub-01_task-black_run-2_recording-pitch_stim.tsv.gz"
    )
    assert choose(stims, "loud", participant="01") is None


def test_two_files_that_apply_equally_are_refused_unless_labels_rank_them(dataset):
    put(dataset / "task-reach_recording-pitch_stim.tsv.gz")
    put(dataset / "task-slumlordreach_recording-pitch_stim.tsv.gz")
    stims = find_stims(dataset, ["reach", "slumlordreach"])
    with pytest.raises(ConfigError, match="found 2 that apply"):
        choose(stims, "pitch")
    assert choose(stims, "pitch", labels=["reach", "slumlordreach"]).label == "reach"
    assert choose(stims, "pitch", labels=["slumlordreach", "reach"]).label == "slumlordreach"
    assert choose(stims, "pitch", labels=["black"]) is None


def test_links_without_content_are_found_and_say_how_to_get_them(dataset):
    path = dataset / "task-black_recording-pitch_stim.tsv.gz"
    path.symlink_to(".git/annex/objects/x.gz")
    (found,) = find_stims(dataset, ["black"])
    assert not found.present
    with pytest.raises(MissingInputError) as error:
        read_stim(path)
    assert f"datalad get {path}" in error.value.hint


# Reading


def test_reads_numbers_missing_cells_and_inherited_json(dataset):
    path = put(
        dataset / "sub-01/func/sub-01_task-black_run-1_recording-pitch_stim.tsv.gz",
        "1\t2.5\r\nn/a\t-3e2\r\n 7\tNaN",
        StartTime=-1.5,
    )
    (dataset / "task-black_recording-pitch_stim.json").write_text(
        json.dumps({"Columns": ["a", "b"], "SamplingFrequency": 10, "StartTime": 0})
    )
    (dataset / "task-blackout_stim.json").write_text(json.dumps({"StartTime": 99}))
    table = read_stim(path)
    assert (table.columns, table.start_time, table.sampling_frequency) == (("a", "b"), -1.5, 10.0)
    np.testing.assert_array_equal(table.values, [[1, 2.5], [np.nan, -300], [7, np.nan]])
    assert (table.empty, table.constant) == ((), ())


def test_reads_many_lines_across_chunks_and_members(dataset, rng, monkeypatch):
    values = rng.standard_normal((3000, 7))
    values[rng.random(values.shape) < 0.05] = np.nan
    lines = ["\t".join("n/a" if np.isnan(x) else repr(float(x)) for x in row) for row in values]
    path = put(
        dataset / "task-a_stim.tsv.gz", "\ufeff" + "\n".join(lines[:1000]) + "\n",
        Columns=list("abcdefg"), StartTime=0, SamplingFrequency=1,
    )  # fmt: skip
    with path.open("ab") as stream:
        stream.write(gzip.compress("\n".join(lines[1000:]).encode()))
    monkeypatch.setattr(stim_files, "_CHUNK", 1000)
    np.testing.assert_array_equal(read_stim(path).values, values)


def test_empty_and_constant_columns_are_reported(dataset, caplog):
    path = put(
        dataset / "task-a_stim.tsv.gz", "n/a\t5\t1\t1\nn/a\t5\t2\tn/a\n",
        Columns=["none", "same", "good", "once"], StartTime=0, SamplingFrequency=1,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        table = read_stim(path)
    assert (table.empty, table.constant) == (("none",), ("same", "once"))
    assert "no value at all: none" in caplog.text


GOOD = {"Columns": ["a", "b"], "StartTime": 0, "SamplingFrequency": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\n3\n", r"line 2: found 1 cells, expected 2"),
        ("1\t2\t3\n4\n", r"line 1: found 3 cells, expected 2"),
        ("1\t2\n\n3\t4\n", r"line 2: found 1 cells"),
        ("\n1\t2\n", r"line 1: found 1 cells"),
        ("1 2\n", r"line 1: found 1 cells"),
        ("a\tb\n1\t2\n", r"line 1: found 'a', expected a number or n/a \(the file must not"),
        ("1\t2\n1\tx\n", r"line 2: found 'x', expected a number or n/a\."),
        ("1\t2\n1\t\n", r"line 2: found ''"),
        ("1\t1_0\n", r"line 1: found '1_0'"),
        ("1\tinf\n", r"line 1: found 'inf'"),
        ("1\t1e999\n", r"line 1: found '1e999'"),
        ("1\t0x10\n", r"line 1: found '0x10'"),
        (b"\xff\xfe1\x00\t\x00\n", r"line 1: found"),
        ("   \n", r"line 1: found 1 cells"),
        ("", r"no samples"),
    ],
)
def test_wrong_tables(dataset, text, message):
    path = put(dataset / "task-a_stim.tsv.gz", text, **GOOD)
    with pytest.raises(DataError, match=message):
        read_stim(path)


def test_a_wrong_line_in_a_later_chunk_keeps_its_number(dataset, monkeypatch):
    monkeypatch.setattr(stim_files, "_CHUNK", 100)
    lines = ["1\t2"] * 500
    lines[431] = "1\t2\t3"
    path = put(dataset / "task-a_stim.tsv.gz", "\n".join(lines), **GOOD)
    with pytest.raises(DataError, match="line 432: found 3 cells"):
        read_stim(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Columns": None}, "expected Columns"),
        ({"Columns": []}, "expected Columns"),
        ({"Columns": ["a", "a"]}, "expected Columns"),
        ({"Columns": "ab"}, "expected Columns"),
        ({"Columns": ["a", 3]}, "expected Columns"),
        ({"StartTime": None}, "expected StartTime in s, found None"),
        ({"StartTime": "0"}, "expected StartTime in s, found '0'"),
        ({"SamplingFrequency": 0}, "expected SamplingFrequency in Hz, found 0"),
        ({"SamplingFrequency": True}, "expected SamplingFrequency"),
        ({"SamplingFrequency": float("nan")}, "expected SamplingFrequency"),
    ],
)
def test_wrong_metadata(dataset, change, message):
    path = put(dataset / "task-a_stim.tsv.gz", "1\t2\n", **GOOD | change)
    with pytest.raises(DataError, match=message):
        read_stim(path)


def test_no_json_at_all(tmp_path):
    path = put(tmp_path / "task-a_stim.tsv.gz", "1\n")
    with pytest.raises(DataError, match="no JSON file at all"):
        read_stim(path)


@pytest.mark.parametrize("damage", ["plain", "cut", "garbage"])
def test_damaged_files(dataset, damage, rng):
    path = put(dataset / "task-a_stim.tsv.gz", "1\t2\n", **GOOD)
    content = gzip.compress("\n".join(f"{x}\t1" for x in rng.random(2000)).encode())
    if damage == "plain":
        content = b"1\t2\n" * 500
    elif damage == "cut":
        content = content[: len(content) // 2]
    else:
        content = content[:100] + b"\x00" * 50 + content[150:]
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected a whole gzip file"):
        read_stim(path)


def test_decompression_is_bounded(dataset, monkeypatch):
    monkeypatch.setattr(stim_files, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(stim_files, "_CHUNK", 1 << 16)
    path = put(dataset / "task-a_stim.tsv.gz", b"1\t2\n" * (1 << 20), **GOOD)
    with pytest.raises(DataError, match="more than 1 MiB"):
        read_stim(path)
    path = put(dataset / "task-a_stim.tsv.gz", b"0" * (1 << 24), **GOOD)
    with pytest.raises(DataError, match="more than 1 MiB"):
        read_stim(path)
    monkeypatch.setattr(stim_files, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(stim_files, "_LONGEST_LINE", 1 << 20)
    with pytest.raises(DataError, match="in one line"):
        read_stim(path)


# Rows

GRID = TRGrid(first_volume=4, n_trs=5, tr=1.5)  # rows begin at 6, 7.5, 9, 10.5, 12 s


def test_the_same_grid_is_copied():
    values = np.arange(10.0).reshape(5, 2) ** 2
    found = to_rows(a_table(values, start=6.0, frequency=1 / 1.5), GRID)
    assert found.rule == "copy"
    np.testing.assert_array_equal(found.values, values)
    assert found.valid.all()


@pytest.mark.parametrize("shift", [-2, 1, 3])
def test_a_shifted_table_of_the_same_grid_is_copied_to_its_own_rows(shift):
    found = to_rows(a_table([10, 11, 12, 13, 14], 6.0 + 1.5 * shift, 1 / 1.5), GRID)
    expected = np.full(5, np.nan)
    for row in range(5):
        if 0 <= row - shift < 5:
            expected[row] = 10 + row - shift
    np.testing.assert_array_equal(found.values[:, 0], expected)
    np.testing.assert_array_equal(found.valid, np.isfinite(expected))


def test_a_whole_run_gives_the_rows_of_the_story():
    """One sample a volume from the first volume of the run, as BIDS has it."""
    found = to_rows(a_table(np.arange(50.0), 0.0, 1 / 1.5), GRID)
    np.testing.assert_array_equal(found.values[:, 0], [4, 5, 6, 7, 8])


def test_rounded_frequencies():
    grid = TRGrid(0, 600, 1.5)
    table = a_table(np.arange(600.0), 0.0, 0.66667)
    found = to_rows(table, grid)
    assert found.rule == "copy"
    np.testing.assert_array_equal(found.values[:, 0], np.arange(600))
    with pytest.raises(DataError, match=r"3\.0 TRs off after 597 rows; expected 0\.666666667 Hz"):
        to_rows(a_table(np.arange(600.0), 0.0, 0.67), grid)


def test_faster_tables_are_averaged_within_the_row():
    found = to_rows(a_table(np.arange(30.0), start=6.0, frequency=2.0), GRID)  # 3 samples a row
    assert found.rule == "average"
    np.testing.assert_allclose(found.values[:, 0], [1, 4, 7, 10, 13])
    later = to_rows(a_table(np.arange(30.0), start=6.5, frequency=2.0), GRID)
    np.testing.assert_allclose(later.values[:, 0], [0.5, 3, 6, 9, 12])


def test_averages_leave_out_missing_samples_and_rows_without_any():
    values = np.column_stack([np.arange(9.0), np.arange(9.0)])
    values[1, 0] = np.nan
    values[3:6, 0] = np.nan
    found = to_rows(a_table(values, start=6.0, frequency=2.0), GRID)
    np.testing.assert_allclose(found.values[:, 0], [1, np.nan, 7, np.nan, np.nan])
    np.testing.assert_allclose(found.values[:, 1], [1, 4, 7, np.nan, np.nan])
    assert found.valid.tolist() == [True, False, True, False, False]


@few
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.7, 1.5, 2.0, 0.8]),
    st.sampled_from([1.7, 10.0, 44.1, 100.0, 1000.0]),
    st.integers(-40, 40),
)
def test_averages_equal_loops_over_samples(seed, tr, frequency, start):
    """Also where samples lie on the borders of rows, whatever the rounding."""
    grid = TRGrid(3, 6, tr)
    values = np.random.default_rng(seed).standard_normal(int(9 * tr * frequency))
    try:
        found = to_rows(a_table(values, start / 10, frequency), grid).values[:, 0]
    except DataError:
        found = np.full(6, np.nan)
    expected = []
    for row in range(6):
        inside = [
            value for i, value in enumerate(values) if grid.bin(start / 10 + i / frequency) == row
        ]
        expected.append(np.mean(inside) if inside else np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_slower_tables_are_interpolated_at_the_start_of_the_row():
    found = to_rows(a_table([0.0, 10.0, 40.0], start=5.0, frequency=0.25), GRID)  # 5, 9, 13 s
    assert found.rule == "interpolation"
    np.testing.assert_allclose(found.values[:, 0], [2.5, 6.25, 10, 21.25, 32.5])
    outside = to_rows(a_table([0.0, 10.0], start=7.5, frequency=0.25), GRID)  # 7.5 to 11.5 s
    np.testing.assert_allclose(outside.values[:, 0], [np.nan, 0, 3.75, 7.5, np.nan])
    assert outside.valid.tolist() == [False, True, True, True, False]


def test_interpolation_makes_nothing_up_beside_missing_samples():
    found = to_rows(a_table([1.0, 2.0, np.nan, 5.0], start=6.0, frequency=1 / 3), GRID)
    np.testing.assert_allclose(found.values[:, 0], [1, 1.5, 2, np.nan, np.nan])


def test_once_a_tr_but_out_of_step_is_interpolated():
    found = to_rows(a_table(np.arange(8.0), start=5.25, frequency=1 / 1.5), GRID)
    assert found.rule == "interpolation"
    np.testing.assert_allclose(found.values[:, 0], [0.5, 1.5, 2.5, 3.5, 4.5])


@few
@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(0.05, 0.64), st.floats(-5, 5))
def test_straight_lines_are_kept_by_interpolation(slope, level, frequency, start):
    times = start + np.arange(40) / frequency
    found = to_rows(a_table(level + slope * times, start, frequency), TRGrid(4, 5, 1.5))
    rows = 6 + 1.5 * np.arange(5)
    np.testing.assert_allclose(found.values[:, 0], level + slope * rows, atol=1e-9)


def test_audio_clock_is_moved_to_the_run():
    """Audio that starts at 4.5 s: a sample at 1.5 s of it is in the first row, at 6 s."""
    table = a_table(np.arange(100.0), 0.0, 2.0)
    found = to_rows(table, GRID, audio_onset=4.5)
    np.testing.assert_allclose(found.values[:, 0], [4, 7, 10, 13, 16])
    negative = to_rows(table, GRID, audio_onset=-20.0)
    np.testing.assert_allclose(negative.values[:, 0], [53, 56, 59, 62, 65])


def test_columns_without_a_value_in_the_story_are_dropped(caplog):
    values = np.ones((20, 3))
    values[:, 1] = np.arange(20)
    values[4:, 2] = np.nan
    table = a_table(values, 0.0, 1 / 1.5, ("same", "good", "gone"))
    with caplog.at_level(logging.WARNING):
        found = to_rows(table, GRID)
    assert (found.columns, found.dropped, found.constant) == (
        ("same", "good"),
        ("gone",),
        ("same",),
    )
    assert found.values.shape == (5, 2)
    assert found.valid.all()
    assert "gone" in caplog.text


@pytest.mark.parametrize(("start", "frequency"), [(100.0, 10.0), (-50.0, 1 / 1.5), (30.0, 0.1)])
def test_a_table_beside_the_story_is_refused(start, frequency):
    with pytest.raises(DataError, match=r"expected values from 6\.000 to 13\.500 s"):
        to_rows(a_table(np.arange(10.0), start, frequency), GRID)


def test_reads_what_the_package_writes(dataset, rng):
    from bids_brainlm.bidsio.write import write_stim_tsv_gz

    values = rng.standard_normal((5, 3))
    values[2] = np.nan
    path = dataset / "task-a_recording-x_stim.tsv.gz"
    write_stim_tsv_gz(path, values)
    (dataset / "task-a_recording-x_stim.json").write_text(
        json.dumps({"Columns": ["a", "b", "c"], "StartTime": 6.0, "SamplingFrequency": 1 / 1.5})
    )
    found = to_rows(read_stim(path), GRID)
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    assert found.valid.tolist() == [True, True, False, True, True]
