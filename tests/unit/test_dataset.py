"""Runs, stories, derivative images and transcripts: on Alice, Narratives and made-up trees."""

from __future__ import annotations

import gzip
import json
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from bids_brainlm.bidsio.bold import derivative_roots, find_bold, is_present, require_present
from bids_brainlm.bidsio.dataset import (
    Filters,
    check_dataset,
    find_events,
    read_participants,
    repetition_time,
)
from bids_brainlm.bidsio.stories import (
    find_stories,
    story_grid,
    story_timing,
    timing_difference,
)
from bids_brainlm.bidsio.transcript_files import find_transcript
from bids_brainlm.errors import (
    ConfigError,
    DataError,
    DatasetError,
    MissingInputError,
    TimingError,
)


@pytest.fixture(scope="session")
def narratives(shared_data, tmp_path_factory) -> Path:
    """Return the real ds002345 tree: text files and dangling annex links."""
    folder = tmp_path_factory.mktemp("narratives")
    for kind in ("skeleton_regular_files", "annex_symlinks_only"):
        with tarfile.open(shared_data / "narratives" / f"ds002345_v1.1.4_{kind}.tar.gz") as tar:
            tar.extractall(folder, filter="fully_trusted")
    return folder / "ds002345"


@pytest.fixture(scope="session")
def narratives_runs(narratives):
    return find_events(narratives)


def make_run(root, name="sub-1_task-a", events="", sidecar=None, folder="sub-1/func"):
    func = root / folder
    func.mkdir(parents=True, exist_ok=True)
    (func / f"{name}_events.tsv").write_text(events)
    (func / f"{name}_bold.json").write_text(json.dumps(sidecar or {"RepetitionTime": 2.0}))
    (func / f"{name}_bold.nii.gz").touch()
    return func


HEADER = "onset\tduration\ttrial_type\tstim_file\n"


# --- the dataset -----------------------------------------------------------------------------


def test_check_dataset(alice, tmp_path):
    assert check_dataset(alice)["BIDSVersion"] == "1.8.0"
    with pytest.raises(DatasetError, match="no such folder"):
        check_dataset(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="found none"):
        check_dataset(tmp_path)
    for text, message in (
        ("{", "JSON"),
        ("[]", "object"),
        ('{"Name": "x"}', "no BIDSVersion"),
        ("{}", "no Name and no BIDSVersion"),
    ):
        (tmp_path / "dataset_description.json").write_text(text)
        with pytest.raises(DatasetError, match=message):
            check_dataset(tmp_path)


def test_alice(alice):
    runs = find_events(alice)
    assert len(runs) == 18
    assert runs[0].key == ("18", None, "alice", None)
    assert runs[0].name == "sub-18_task-alice"
    stories = find_stories(runs)
    first = stories[0]
    assert (first.story, first.stimulus, first.audio_onset) == ("alice", "alice", -20.0)
    assert (first.story_onset, first.story_duration, first.tr) == (-20.0, 763.6, 2.0)
    timing = story_timing(stories)
    assert (timing.n_runs, timing.n_agreeing) == (18, 18)
    assert (timing.grid().first_volume, timing.grid().n_trs) == (0, 372)
    participants = read_participants(alice / "participants.tsv")
    assert set(participants) == {run.participant for run in runs}


def test_narratives_is_planned_in_two_seconds(narratives):
    started = time.perf_counter()
    runs = find_events(narratives)
    stories = find_stories(runs)
    assert time.perf_counter() - started < 2
    assert len(runs) == 873
    assert len({run.participant for run in runs}) == 345
    assert all(run.bold_path is not None and not is_present(run.bold_path) for run in runs)
    assert len(stories) == 873 + 18 + 124  # slumlordreach and schema play two stories a run


def test_narratives_stories_and_timings(narratives_runs):
    stories = find_stories(narratives_runs)
    by_name = {}
    for item in stories:
        by_name.setdefault(item.story, []).append(item)
    assert len(by_name) == 29
    timing = {name: story_timing(items) for name, items in by_name.items()}
    slumlord, reach = timing["slumlord"], timing["reach"]
    assert (slumlord.audio_onset, reach.audio_onset) == (4.5, 4.5)
    assert (reach.story_onset, reach.stimulus) == (969.5, "slumlordreach")
    assert reach.grid().first_volume == 646
    assert timing["pieman"].audio_onset == 0.0
    assert timing["pieman"].story_onset == 15.0
    assert timing["black"].grid().first_volume == 8
    assert timing["black"].grid().n_trs == 534
    assert timing["lucy"].audio_onset == 3.0
    assert timing["milkywaysynonyms"].tr == 1.52
    assert {item.task for item in by_name["milkywayvodka"]} == {"milkyway"}
    assert len(by_name["pieman"]) == 96
    assert Counter(timing_difference(x, timing["prettymouth"]) for x in by_name["prettymouth"]) == {
        None: 38,
        "story onset is 15 s, expected 21 s": 1,
        "story onset is 13.5 s, expected 21 s": 1,
    }
    assert {item.task for item in by_name["friends"]} == {"schema"}


def test_names_do_not_depend_on_the_selection(narratives, narratives_runs):
    filters = Filters.of(participants=["sub-038"], tasks=["task-milkyway"])
    selected = find_events(narratives, filters)
    assert [run.key for run in selected] == [("038", None, "milkyway", None)]
    assert find_stories(selected)[0].story == "milkyway"
    assert find_stories(selected, narratives_runs)[0].story == "milkywayvodka"


def test_filters_match_exactly(narratives_runs):
    def count(**labels):
        filters = Filters.of(**labels)
        return sum(filters.match(*run.key) for run in narratives_runs)

    assert count(tasks=["pieman"]) == 96
    assert count(tasks=["piemanpni"]) == 46
    assert count(tasks=["pieman"], runs=["run-2"]) == 14
    assert count(participants=["278"], tasks=["black", "forgot"]) == 0
    assert count(participants=["sub-00"]) == 0


def test_participants_with_lists(narratives):
    table = read_participants(narratives / "participants.tsv")
    assert len(table) == 345
    assert table["300"]["task"] == "piemanpni,bronx,forgot,black"
    assert read_participants(narratives / "nothing.tsv") == {}


def test_inheritance_sessions_and_junk(tmp_path):
    func = make_run(tmp_path, "sub-1_ses-2_task-a", "", {"EchoTime": 1}, "sub-1/ses-2/func")
    (func / "sub-1_ses-2_task-a_events.tsv").unlink()
    (tmp_path / "task-a_bold.json").write_text('{"RepetitionTime": 1.5}')
    (tmp_path / "task-b_bold.json").write_text('{"RepetitionTime": 9}')
    (tmp_path / "task-a_events.tsv").write_text(HEADER + "3\t30\tstory\tx_audio.wav\n")
    (func / "._sub-1_ses-2_task-b_bold.nii.gz").touch()
    (func / "notes.txt").touch()
    (tmp_path / "sub-1" / "._.DS_Store").symlink_to("nowhere")
    (tmp_path / "sub-9").touch()
    runs = find_events(tmp_path)
    assert [run.key for run in runs] == [("1", "2", "a", None)]
    assert repetition_time(runs[0]) == 1.5
    story = find_stories(runs)[0]
    assert (story.story, story.stimulus, story.audio_onset) == ("a", "x", 3.0)
    assert find_events(tmp_path, Filters.of(sessions=["1"])) == []


def test_stories_without_types_and_with_pieces(tmp_path):
    make_run(tmp_path, "sub-1_task-a", "onset\tduration\tstim_file\n3\t30\tx.wav\n40\t9\ty.wav\n")
    pieces = "0\t4\tmusic\tz_audio.wav\n5\t9\tstory\tz_audio.wav\n20\t9\tstory\tz_audio.wav\n"
    make_run(tmp_path, "sub-1_task-b", HEADER + pieces)
    make_run(tmp_path, "sub-1_task-rest", "onset\tduration\n")
    found = {item.story: item for item in find_stories(find_events(tmp_path))}
    assert sorted(found) == ["x", "y", "z1", "z2"]
    assert (found["z2"].audio_onset, found["z2"].story_onset) == (0.0, 20.0)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("time\tduration\n1\t2\n", "columns onset and duration"),
        ("", "empty file"),
        (HEADER + "n/a\t3\tstory\tx.wav\n", "line 2: expected onset in s, found 'n/a'"),
        (HEADER + "1\tlong\tstory\tx.wav\n", "expected duration in s, found 'long'"),
        (HEADER + "1\t0\tstory\tx.wav\n", "duration of 0 s"),
        ("onset\tduration\tstim_file\n" + "1\t2\tx.wav\n" * 30, "found 30 story events"),
    ],
)
def test_bad_events_matter_only_when_selected(tmp_path, events, message):
    make_run(tmp_path, "sub-1_task-a", events)
    make_run(tmp_path, "sub-2_task-a", HEADER + "1\t9\tstory\tx.wav\n", folder="sub-2/func")
    runs = find_events(tmp_path)
    with pytest.raises(TimingError, match=message):
        find_stories(runs)
    assert [item.story for item in find_stories(runs[1:], runs)] == ["a"]


def test_missing_repetition_time(tmp_path):
    make_run(tmp_path, events=HEADER + "1\t9\tstory\tx.wav\n", sidecar={"RepetitionTime": "2"})
    with pytest.raises(TimingError, match="found '2'"):
        find_stories(find_events(tmp_path))
    (tmp_path / "sub-1/func/sub-1_task-a_bold.json").write_text("{")
    with pytest.raises(DataError, match="JSON"):
        find_stories(find_events(tmp_path))


def test_timing_ties_and_mixtures(tmp_path):
    for number, onset in ((1, 3), (2, 1.5)):
        events = HEADER + f"{onset}\t9\tstory\tx.wav\n"
        make_run(tmp_path, f"sub-{number}_task-a", events, folder=f"sub-{number}/func")
    stories = find_stories(find_events(tmp_path))
    assert story_timing(stories) == story_timing(stories[::-1])
    assert story_timing(stories).story_onset == 1.5
    assert story_timing(stories).with_audio_onset(-3).audio_onset == -3.0
    with pytest.raises(TimingError, match="found \\[\\]"):
        story_timing([])


def test_grid_borders():
    assert story_grid(1.5, 12.0, 800.0).n_trs == 534
    assert story_grid(1.5, 3.0000000000000004, 3.0).first_volume == 2
    assert story_grid(0.1, 0.3, 0.3).n_trs == 3
    assert story_grid(2.0, -20.0, 763.6).first_volume == 0
    with pytest.raises(TimingError):
        story_grid(2.0, -20.0, 10.0)
    with pytest.raises(TimingError):
        story_grid(0.0, 1.0, 10.0)


# --- derivatives -----------------------------------------------------------------------------


def test_bold_of_alice(alice):
    roots = derivative_roots(alice)
    assert [root.name for root in roots] == ["atlas", "fmriprep"]
    found = find_bold(roots)
    assert len(found) == 18
    first = found[0]
    assert first.present
    assert first.key == ("18", None, "alice", None)
    assert (first.desc, first.space, first.resolution) == ("preproc", "MNI152NLin2009cAsym", None)
    assert (first.tr, first.dataset) == (2.0, "fmriprep")
    assert first.mask.name.endswith("space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz")
    assert first.confounds_tsv.name == "sub-18_task-alice_desc-confounds_timeseries.tsv"
    assert first.confounds_json is not None
    assert find_bold(roots, space="T1w") == []
    assert len(find_bold(roots, filters=Filters.of(participants=["18", "sub-22"]))) == 2


@pytest.fixture(scope="session")
def narratives_derivatives(shared_data, tmp_path_factory) -> Path:
    """Return the real derivative names as dangling links, with clean images beside sm6."""
    root = tmp_path_factory.mktemp("derivatives")
    table = shared_data / "narratives" / "derivative_filenames.tsv.gz"
    for row in gzip.decompress(table.read_bytes()).decode().splitlines()[1:]:
        path = root / row.split("\t")[-1].removeprefix("derivatives/")
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [path.name]
        if "desc-sm6_bold" in path.name:
            names.append(path.name.replace("desc-sm6", "desc-clean"))
        for name in names:
            path.with_name(name).symlink_to("../.git/annex/objects/x")
    return root


def test_bold_of_narratives(narratives, narratives_derivatives, narratives_runs):
    roots = derivative_roots(narratives, [narratives_derivatives])
    assert [root.name for root in roots] == ["afni-smooth", "fmriprep"]
    started = time.perf_counter()
    clean = find_bold(roots)
    assert time.perf_counter() - started < 4
    assert {item.desc for item in clean} == {"clean"}
    assert {item.key for item in clean} == {run.key for run in narratives_runs}
    first = clean[0]
    assert not first.present
    assert first.fetch_command == f"datalad get {first.path}"
    assert (first.resolution, first.dataset) == ("native", "afni-smooth")
    assert first.confounds_tsv.name == "sub-001_task-pieman_run-1_desc-confounds_regressors.tsv"
    model = find_bold(roots, denoise="narratives", filters=Filters.of(tasks=["pieman"]))
    assert {item.desc for item in model} == {"preproc"}
    assert len(model) == 96
    assert [item.run for item in model if item.participant == "001"] == ["1", "2"]
    assert derivative_roots(narratives, [narratives_derivatives / "fmriprep"])[0].name == "fmriprep"


def make_bold(root, name, folder="sub-1/func"):
    path = root / folder / f"sub-1_task-a_{name}_bold.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 2000)
    return path


def test_ambiguous_images_are_an_error_that_names_the_flags(tmp_path):
    for space in ("A", "B"):
        make_bold(tmp_path / "d" / "one", f"space-{space}_desc-preproc")
    roots = derivative_roots(tmp_path, [tmp_path / "d"])
    with pytest.raises(ConfigError, match=r"found 2:\n.*space-A.*\n.*space-B") as caught:
        find_bold(roots)
    assert "--space" in caught.value.hint
    assert "--derivatives" in caught.value.hint
    assert find_bold(roots, space="A")[0].space == "A"
    make_bold(tmp_path / "d" / "two", "space-A_res-2_desc-preproc")
    roots = derivative_roots(tmp_path, [tmp_path / "d"])
    with pytest.raises(ConfigError, match="found 2"):
        find_bold(roots, space="A")
    assert find_bold(roots, space="A", resolution="2")[0].dataset == "two"
    make_bold(tmp_path / "d" / "two", "echo-1_space-A_desc-clean")
    make_bold(tmp_path / "d" / "two", "acq-x_space-A_desc-clean")
    assert find_bold(roots, space="A")[0].desc == "clean"


def test_several_spaces_over_participants_are_an_error(tmp_path):
    make_bold(tmp_path, "space-A_desc-preproc")
    other = tmp_path / "sub-2/func/sub-2_task-a_space-B_desc-preproc_bold.nii.gz"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(ConfigError, match="several spaces"):
        find_bold([tmp_path])


def test_mask_and_confounds_from_other_datasets(tmp_path):
    make_bold(tmp_path / "clean", "space-A_res-native_desc-clean")
    mask = tmp_path / "clean/tpl-A/tpl-A_res-a_desc-brain_mask.nii.gz"
    mask.parent.mkdir()
    mask.touch()
    func = tmp_path / "prep/sub-1/func"
    func.mkdir(parents=True)
    for name in ("desc-confounds_timeseries.tsv", "space-A_res-native_desc-brain_mask.nii.gz"):
        (func / f"sub-1_task-a_{name}").touch()
    (func / "sub-1_task-a_run-2_desc-confounds_timeseries.tsv").touch()
    roots = derivative_roots(tmp_path, [tmp_path / "clean", tmp_path / "prep"])
    found = find_bold(roots)[0]
    assert found.mask == mask
    assert found.confounds_tsv.name == "sub-1_task-a_desc-confounds_timeseries.tsv"
    assert found.confounds_json is None
    mask.unlink()
    assert find_bold(roots)[0].mask.parent == func


def test_derivatives_that_are_not_there(tmp_path):
    with pytest.raises(MissingInputError, match="does not exist"):
        derivative_roots(tmp_path)
    (tmp_path / "derivatives" / "x").mkdir(parents=True)
    with pytest.raises(MissingInputError, match="found x"):
        derivative_roots(tmp_path)


def test_presence(tmp_path):
    link, pointer, empty = (tmp_path / name for name in ("link", "pointer", "empty"))
    link.symlink_to("nowhere")
    pointer.write_text("/annex/objects/MD5E-s1--0.nii.gz\n")
    empty.touch()
    for path in (link, pointer, empty):
        assert not is_present(path)
        with pytest.raises(MissingInputError, match="no content here") as caught:
            require_present(path, "image")
        assert f"datalad get {path}" in caught.value.hint
    with pytest.raises(MissingInputError, match="does not exist"):
        require_present(tmp_path / "nothing", "image")
    assert not is_present(tmp_path)


# --- transcripts -----------------------------------------------------------------------------


def test_transcripts_of_real_data(alice, shared_data):
    assert find_transcript(alice / "stimuli", "alice", "alice").path.name == "alice_audio.TextGrid"
    folder = shared_data / "narratives"
    assert find_transcript(folder, "pieman", "pieman").path.name == "align.csv"
    assert find_transcript(folder, "slumlordreach", "reach").path.parent.name == "slumlordreach"
    intact = find_transcript(folder, "notthefallintact", "notthefallintact")
    assert intact.path.name == "align.json"
    missing = find_transcript(folder, "tunnel", "tunnel")
    assert missing.path is None
    assert "gentle/tunnel/align.csv" in missing.looked_for


def test_transcript_order(tmp_path):
    def touch(name, text="x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def found():
        path = find_transcript(tmp_path, "x", "story").path
        return path and path.relative_to(tmp_path).as_posix()

    touch("story.tsv")
    assert found() == "story.tsv"
    touch("x_audio.TextGrid")
    assert found() == "x_audio.TextGrid"
    touch("x_words.tsv")
    assert found() == "x_words.tsv"
    touch("x/align.json", '{"words": []}')
    assert found() == "x/align.json"
    touch("x/align.csv")
    assert found() == "x/align.csv"
    touch("gentle/x/align.json", '{"words": [{"phones": []}]}')
    assert found() == "gentle/x/align.json"
    (tmp_path / "gentle/x/align.json").unlink()
    (tmp_path / "gentle/x/align.json").symlink_to("nowhere")
    search = find_transcript(tmp_path, "x", "story")
    assert search.path.name == "align.csv"
    assert "datalad get" in search.looked_for[0]
