"""Parsers end in a value or in this package's errors, whatever they read.

Everyday: a few hundred inputs each. ``BRAINLM_FUZZ_SECONDS=600 pytest tests/fuzz -m slow`` goes
on for so long with each parser and writes what breaks one to ``corpus/<parser>-<sum>``; all
files there are read again every day. With ``-s`` each parser says how much it has read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_brainlm import config
from bids_brainlm.bidsio import atlas, confounds, dataset, images, stim_files, write
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import pronunciations, transcripts, vector_files

CORPUS = Path(__file__).with_name("corpus")
ALICE = Path(__file__).parents[2] / "bids_brainlm" / "data" / "alice"


def _file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    def call(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return call


def _voxels(path: Path) -> object:
    image = images.load_run(path, 2.0)
    if np.prod(image.shape) * image.n_volumes > 1e6:
        return None
    labels = np.ones(image.shape, np.int32)
    return images.parcel_series(path, labels, 1, slice(0, min(image.n_volumes, 20)))


def _stim(path: Path) -> object:
    given = {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["a", "b"]}
    sidecar = path.with_name(path.name.replace(".tsv.gz", ".json"))
    sidecar.write_text(json.dumps(given))
    return stim_files.read_stim(path)


def _vectors(path: Path) -> object:
    return vector_files.read_vectors(path, {"a", "the"}, vector_files.sniff(path))


PARSERS: dict[str, Callable[[bytes, Path], object]] = {
    "textgrid": lambda data, folder: transcripts.parse(data, "story.TextGrid"),
    "gentlejson": lambda data, folder: transcripts.parse(data, "align.json"),
    "gentlecsv": lambda data, folder: transcripts.parse(data, "align.csv"),
    "words": lambda data, folder: transcripts.parse(data, "story.tsv"),
    "dictionary": lambda data, folder: pronunciations.parse_dictionary(data, "dictionary"),
    "toml": _file(config.read_file, "settings.toml"),
    "json": _file(write.read_json, "x.json"),
    "tsv": _file(write.read_tsv, "x.tsv"),
    "matrix": _file(write.read_matrix_tsv, "x.tsv"),
    "stimgz": _file(write.read_stim_tsv_gz, "x.tsv.gz"),
    "recording": _file(_stim, "task-a_stim.tsv.gz"),
    "events": _file(dataset.read_events, "x_events.tsv"),
    "participants": _file(dataset.read_participants, "participants.tsv"),
    "sidecar": _file(lambda path: dataset.read_sidecars([path]), "x.json"),
    "confounds": _file(
        lambda path: confounds.select(path, None, "auto", 20, 2.0), "x_timeseries.tsv"
    ),
    "nifti": _file(_voxels, "x_bold.nii"),
    "niftigz": _file(_voxels, "x_bold.nii.gz"),
    "atlas": _file(lambda path: atlas.resolve_atlas(str(path), None), "atlas-X_dseg.nii.gz"),
    "vectors": _file(_vectors, "vectors.txt"),
    "vectorsbin": _file(_vectors, "vectors.bin"),
}


def _seeds() -> dict[str, list[bytes]]:
    """Return good files of each parser, from which bad ones are made."""
    grid = np.arange(3 * 2 * 2 * 20, dtype=np.int16).reshape(3, 2, 2, 20)
    image = nibabel.Nifti1Image(grid, np.diag([3.0, 3, 3, 1])).to_bytes()
    labels = nibabel.Nifti1Image((grid[..., 0] // 20 % 5).astype(np.int16), np.eye(4)).to_bytes()
    words = "onset\tduration\tword\n" + "".join(f"{k}\t0.5\tw{k}\n" for k in range(20))
    gentle = {
        "transcript": "a b",
        "words": [
            {
                "word": "a",
                "alignedWord": "a",
                "case": "success",
                "start": 1.0,
                "end": 1.2,
                "startOffset": 0,
                "endOffset": 1,
                "phones": [{"phone": "ah_S", "duration": 0.2}],
            },
            {"word": "b", "case": "not-found-in-audio", "startOffset": 2, "endOffset": 3},
        ],
    }
    motion = "trans_x\ttrans_y\ttrans_z\trot_x\trot_y\trot_z\n" + "0.1\t0\t0.2\t0\t-1\t2\n" * 20
    textgrid = (ALICE / "stimuli" / "alice_audio.TextGrid").read_bytes()
    numbers = b"1\t2\n3\tn/a\n" * 10
    return {
        "words": [words.encode()],
        "gentlejson": [json.dumps(gentle).encode()],
        "textgrid": [textgrid],
        "gentlecsv": [b"a,a,1.0,1.2\nb,b,1.3,1.4\n"],
        "dictionary": [b";;; c\nHELLO  HH AH0 L OW1\nA(1)  AH0\n"],
        "toml": [b'[encoding]\ncv = 3\ndelays = [1, 2]\nalphas = [1.0]\n[inputs]\natlas = "x"\n'],
        "json": [b'{"Key": "x", "Outputs": {"a": "b"}}'],
        "tsv": [words.encode()],
        "matrix": [b"a\tb\n" + numbers],
        "stimgz": [gzip.compress(numbers)],
        "recording": [gzip.compress(numbers)],
        "events": [
            b"onset\tduration\ttrial_type\tstim_file\n0\t10\tstory\ta.wav\n9\tn/a\tx\tn/a\n"
        ],
        "participants": [b"participant_id\tage\nsub-01\t3\nsub-02\tn/a\n"],
        "sidecar": [b'{"RepetitionTime": 2, "TaskName": "a"}'],
        "confounds": [motion.encode()],
        "nifti": [image],
        "niftigz": [gzip.compress(image)],
        "atlas": [gzip.compress(labels)],
        "vectorsbin": [b"1 2\nthe " + struct.pack("<2f", 1, 2) + b"\n"],
        "vectors": [
            b"2 3\nthe 1 2 3\na 4 5 6\n",
            b"the 1 2 3\na 4 5 6\n",
        ],
    }


SEEDS = _seeds()
TOKENS = (
    b"\0",
    b"\t",
    b"\n",
    b"\r\n",
    b",",
    b'"',
    b"n/a",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{",
    b"[",
    b"]" * 9,
    b"null",
    b"true",
    b"9" * 400,
    b"\xe2\x80\xa8",
    b"#",
    b"\x1b",
    b"\xed\xa0\x80",
    b"item [1]:",
    b"xmin = ",
    b"0x10",
    b"1_000",
    b"\x85",
    b"\x0b",
    b"\x1c",
)


def mutate(data: bytes, moments: random.Random) -> bytes:
    """Change a file a little, a few times."""
    packed = data[:2] == b"\x1f\x8b" and moments.random() < 0.7
    made = bytearray(gzip.decompress(data) if packed else data)
    for _ in range(moments.choice((1, 1, 2, 3, 8))):
        place = moments.randrange(len(made) + 1)
        kind = moments.randrange(7)
        if kind == 0 and made:
            made[place % len(made)] = moments.randrange(256)
        elif kind == 1:
            made[place:place] = moments.choice(TOKENS)
        elif kind == 2:
            del made[place : place + moments.choice((1, 4, 50))]
        elif kind == 3:
            made[place:place] = made[place : place + moments.choice((1, 10, 200))]
        elif kind == 4:
            token = moments.choice(TOKENS)
            made[place : place + len(token)] = token
        elif kind == 5:
            made = made[:place]
        elif len(made) > 4:
            where = min(place, len(made) - 4)
            value = moments.choice((0, 1, 255, 2**31 - 1, 2**32 - 1, 0x7FC00000, 0x7F800000))
            made[where : where + 4] = struct.pack("<I", value)
    return gzip.compress(bytes(made), 1) if packed else bytes(made)


def check(name: str, data: bytes, folder: Path) -> None:
    """Parse; only this package's errors may come, with words and a next action."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Extension size is not a multiple of 16")  # nibabel's
        try:
            PARSERS[name](data, folder)
        except BrainLMError as error:
            said = error
        else:
            return
    text = str(said)
    assert len(text) < 4000, text[:300]
    assert "NoneType" not in text
    assert said.hint


def _keep(name: str, data: bytes) -> None:
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)


@pytest.mark.parametrize("name", PARSERS)
def test_good_files_are_read(name, tmp_path):
    for data in SEEDS[name]:
        PARSERS[name](data, tmp_path)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*-*")), ids=lambda p: p.name)
def test_what_was_found_before(path, tmp_path):
    check(path.name.rpartition("-")[0], path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_files(name, tmp_path):
    moments = random.Random(name)
    for _ in range(60):
        data = mutate(moments.choice(SEEDS[name]), moments)
        check(name, data, tmp_path)


TEXT = st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
ROWS = st.lists(
    st.lists(st.one_of(st.floats().map(repr), st.text(max_size=8)), max_size=5).map("\t".join),
    max_size=8,
).map(lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["words", "word", "start", "end", "phones", "case", "x"]), inner
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("name", PARSERS)
def test_made_up_files(name, tmp_path):
    @given(st.one_of(st.binary(max_size=400), TEXT, ROWS, VALUES))
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def each(data: bytes) -> None:
        check(name, data, tmp_path)

    each()


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_for_a_long_time(name, tmp_path):
    seconds = float(os.environ.get("BRAINLM_FUZZ_SECONDS", "5"))
    seed = int(os.environ.get("BRAINLM_FUZZ_SEED", "1"))
    moments = random.Random(f"{name}{seed}")
    end, used, found, n = time.monotonic() + seconds, time.process_time(), {}, 0
    pool = [*SEEDS[name], *(p.read_bytes() for p in CORPUS.glob(f"{name}-*"))]
    while time.monotonic() < end:
        n += 1
        data = mutate(moments.choice(pool), moments)
        try:
            check(name, data, tmp_path)
        except Exception as error:  # noqa: BLE001  anything that is not ours is a find
            kind = f"{type(error).__name__}: {str(error)[:80]}"
            if type(error).__name__ not in {k.partition(":")[0] for k in found}:
                _keep(name, data)
                found[kind] = data[:200]
    print(f"\n{name}: {n} inputs in {seconds:g} s, {time.process_time() - used:.0f} s of a core")
    assert found == {}, f"{n} inputs"
