"""Data are data: nothing in them runs, escapes its folder, or fills the memory."""

from __future__ import annotations

import ast
import gzip
import json
import os
import resource
import time
from pathlib import Path

import pytest
import small_alice
from small_alice import arguments, tree

from bids_brainlm import cli
from bids_brainlm.bidsio import stim_files, stream, write
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import transcripts

PACKAGE = Path(cli.__file__).parent
LIGHT = ("--features", "position", "--offline")
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "joblib.load", "dill.loads",
    "tempfile.mktemp", "torch.load", "numpy.load", "np.load", "xml.etree.ElementTree.parse",
    "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip


def _calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_nothing_in_the_package_runs_data():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node, name in _calls(path):
            if name in FORBIDDEN:
                found.append(f"{path.name}:{node.lineno} {name}")
            for keyword in node.keywords:
                text = f"{keyword.arg}={ast.unparse(keyword.value)}"
                if text in (
                    "shell=True",
                    "allow_pickle=True",
                    "trust_remote_code=True",
                    "weights_only=False",
                    "autoescape=False",
                ):
                    found.append(f"{path.name}:{node.lineno} {text}")
                if name.startswith("subprocess.") and keyword.arg == "shell":
                    found.append(f"{path.name}:{node.lineno} {text}")
    assert found == []


def test_models_never_bring_code():
    """Every load of transformers says so in its own words."""
    found = []
    for path in (PACKAGE / "language").glob("*.py"):
        for node, name in _calls(path):
            if name.endswith("from_pretrained"):
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                tunnel = None in given
                if given.get("trust_remote_code") != "False" and not tunnel:
                    found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []


def _peak_gb(function, *given) -> tuple[float, float, str]:
    """Return the growth of memory (GB), the time (s), and the error in a forked process."""
    read, put = os.pipe()
    child = os.fork()
    if child == 0:
        before, begun, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time(), ""
        try:
            function(*given)
        except BrainLMError as error:
            said = type(error).__name__
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9
        os.write(put, json.dumps([grown, time.time() - begun, said]).encode())
        os._exit(0)
    os.close(put)
    with os.fdopen(read) as stream_:
        text = stream_.read()
    os.waitpid(child, 0)
    return tuple(json.loads(text or '[99, 99, "killed"]'))


BOMBS = {
    "a tier of a milliard intervals": (
        b'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1\n'
        b"tiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n        class = \"IntervalTier\"\n"
        b'        name = "words"\n        xmin = 0\n        xmax = 1\n'
        b"        intervals: size = 1000000000\n", "x.TextGrid"),
    "a milliard tiers": (
        b'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n1000000000\n',
        "x.TextGrid"),
    "open quotes": (
        b'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n1\n"'
        + b'"a' * 10**6,
        "x.TextGrid"),
    "entities": (
        b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa">'
        + b"".join(b'<!ENTITY %c "&%c;&%c;&%c;">' % (k + 1, k, k, k) for k in range(97, 120))
        + b"]><l>&x;</l>", "x.TextGrid"),
    "deep JSON": (b'{"words": ' + b"[" * 10**6, "align.json"),
    "a million digits": (b'{"words": [{"start": ' + b"9" * 10**6 + b"}]}", "align.json"),
    "one line of 20 MB": (b"onset\tduration\tword\n" + b"a" * 20_000_000, "x.tsv"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_in_transcripts_are_bounded(name):
    content, source = BOMBS[name]
    grown, seconds, said = _peak_gb(transcripts.parse, content, source)
    assert said in ("TranscriptError", "DataError")
    assert grown < 0.5
    assert seconds < 20


def _zeros(path: Path, head: bytes, n_megabytes: int) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(head)
        for _ in range(n_megabytes):
            packed.write(bytes(1_000_000))
    return path


def test_zip_bombs_are_bounded(tmp_path):
    """400 MB of zeros in 2 MB: as a recording, and as an image that is longer than it says."""
    recording = _zeros(tmp_path / "task-a_recording-x_stim.tsv.gz", b"1\t2\n", 400)
    side = {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["a", "b"]}
    (tmp_path / "task-a_recording-x_stim.json").write_text(json.dumps(side))
    grown, _, said = _peak_gb(stim_files.read_stim, recording)
    assert said
    assert grown < 0.3
    import nibabel
    import numpy as np

    head = nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)).to_bytes()
    image = _zeros(tmp_path / "x_bold.nii.gz", head, 400)
    grown, _, said = _peak_gb(stream.read_voxels, image, np.arange(8))
    assert grown < 0.1
    assert said == ""
    lying = bytearray(head)
    lying[42:50] = np.array([32767] * 4, "<i2").tobytes()
    (tmp_path / "lying.nii.gz").write_bytes(gzip.compress(bytes(lying)))
    grown, _, said = _peak_gb(stream.load_image, tmp_path / "lying.nii.gz")
    assert (said, grown < 0.1) == ("DataError", True)


def test_names_in_tables_cannot_leave_the_dataset(small, tmp_path, capsys):
    """``stim_file`` with dots and slashes reads no transcript outside ``stimuli``."""
    secret = tmp_path / "secret.tsv"
    secret.write_text("onset\tduration\tword\n" + "".join(f"{k}\t.5\tSECRET\n" for k in range(99)))
    for name in ("../../secret.wav", str(secret.with_suffix(".wav")), "..", "../secret.tsv"):
        for path in small.glob("sub-*/func/*_events.tsv"):
            text = path.read_text()
            path.write_text(text.replace(text.splitlines()[1].split("\t")[3], name))
        assert cli.main(arguments(small, tmp_path / "out", *LIGHT)) in (18, 65, 66)
        assert "Traceback" not in capsys.readouterr().err
    assert not any(
        "SECRET" in p.read_text(errors="replace") for p in tmp_path.rglob("out/**/*") if p.is_file()
    )


def test_a_record_cannot_make_files_outside_go(done, tmp_path):
    """The list of outputs in a stored record is not trusted."""
    bids, out = done
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    record = next(out.glob("sub-18/func/*timeseries.json"))
    stored = json.loads(record.read_text())
    stored["Key"] = "0"
    stored["Outputs"] = {"../../../victim.txt": "0", str(victim): "0"}
    record.write_text(json.dumps(stored))
    assert cli.main(arguments(bids, out, "--overwrite")) == 0
    assert victim.read_text() == "mine"


def test_words_stay_text_in_reports(small, tmp_path, capsys):
    """Markup in words, labels and names is shown, never obeyed."""
    evil = "<script>alert(1)</script>"
    (small / "stimuli" / "alice_audio.TextGrid").unlink()
    rows = "".join(f"{k * 0.7:.1f}\t0.5\t{evil}\n" for k in range(300))
    (small / "stimuli" / "alice_audio.tsv").write_text("onset\tduration\tword\n" + rows)
    description = json.loads((small / "dataset_description.json").read_text())
    (small / "dataset_description.json").write_text(
        json.dumps({**description, "Name": f'{evil}"><img src=x onerror=alert(1)>'})
    )
    table = Path(str(small_alice.atlas(small)).replace(".nii.gz", ".tsv"))
    lines = table.read_text().splitlines()
    cells = lines[1].split("\t")
    cells[lines[0].split("\t").index("name")] = f"LH_{evil}"
    table.write_text("\n".join([lines[0], "\t".join(cells), *lines[2:]]) + "\n")
    out = tmp_path / "out"
    assert cli.main(arguments(small, out, *LIGHT)) == 0, capsys.readouterr().err
    assert cli.main(arguments(small, out, level="group")) == 0
    pages = [p for p in out.rglob("*") if p.suffix in (".html", ".svg")]
    assert len(pages) > 5
    for page in pages:
        text = page.read_text("utf-8")
        assert evil not in text, page
        assert "<img src=x" not in text, page
    assert any("&lt;script&gt;" in p.read_text("utf-8") for p in pages)


def test_labels_cannot_become_paths_or_commands(small, tmp_path, capsys):
    before = tree(small)
    for label in ("../x", "$(touch evil)", "a/b", "a;b", "a b", "-rf"):
        for flag in ("--participant-label=", "--task-label=", "--space="):
            assert cli.main(arguments(small, tmp_path / "out", flag + label)) in (18, 64, 65, 66)
    assert "Traceback" not in capsys.readouterr().err
    assert tree(small) == before
    assert not list(tmp_path.rglob("evil"))


def test_links_in_the_output_are_not_followed_out(done, tmp_path):
    """A link in the place of an output is replaced; what it points to stays."""
    bids, out = done
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    target = next(out.glob("sub-18/func/*timeseries.tsv"))
    target.unlink()
    target.symlink_to(victim)
    assert cli.main(arguments(bids, out)) == 0
    assert victim.read_text() == "mine"
    assert not target.is_symlink()
    assert write.read_tsv(target)
