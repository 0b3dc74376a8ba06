"""A table of bad inputs: what is spoiled, how, and which exit codes are right."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import small_alice

from bids_brainlm import config

PERSON = "18"
DATA = (16, 18, 65, 66)  # codes of wrong or missing data
EVENTS = (".tsv", "sub-18", "alice", "run with a story", "transcript")


@dataclass(frozen=True)
class Case:
    """``spoil`` gets the dataset and a folder for more files, and returns more arguments.

    ``names`` are texts of which the message must have one. ``codes`` with 0 may also be fine.
    ``late``: other results of the participant may be finished before it is found.
    """

    name: str
    spoil: Callable[[Path, Path], list[str]]
    codes: tuple[int, ...]
    names: tuple[str, ...] = ()
    level: str = "participant"
    late: bool = False


# --- text and tables ----------------------------------------------------------------------------


def _lines(data: bytes) -> list[list[str]]:
    return [line.split("\t") for line in data.decode().splitlines()]


def _table(rows: list[list[str]]) -> bytes:
    return ("\n".join("\t".join(r) for r in rows) + "\n").encode()


def _cell(row: int, column: int, value: str) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        rows = _lines(data)
        rows[row][column] = value
        return _table(rows)

    return spoil


def _column(number: int, name: str | None) -> Callable[[bytes], bytes]:
    """Rename a column, or take it away."""

    def spoil(data: bytes) -> bytes:
        rows = _lines(data)
        if name is None:
            return _table([[c for k, c in enumerate(r) if k != number] for r in rows])
        rows[0][number] = name
        return _table(rows)

    return spoil


ANY_FILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda d: b"",
    "blank": lambda d: b"\n \n\n",
    "binary": lambda d: bytes(range(256)) * 8,
    "zeros": lambda d: bytes(2000),
    "utf-16": lambda d: d.decode("utf-8", "replace").encode("utf-16"),
    "latin-1": lambda d: "stra\xdfe\tb\xe4r\n".encode("latin-1") + d,
    "html": lambda d: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "a git-annex pointer": lambda d: b"/annex/objects/MD5E-s123--0123456789abcdef.tsv\n",
    "half": lambda d: d[: len(d) // 2],
    "twice": lambda d: d + d,
}
ANY_TABLE: dict[str, Callable[[bytes], bytes]] = {
    "header only": lambda d: d.split(b"\n")[0] + b"\n",
    "no header": lambda d: b"\n".join(d.split(b"\n")[1:]),
    "commas": lambda d: d.replace(b"\t", b","),
    "a short row": lambda d: d.rstrip(b"\n").rpartition(b"\t")[0] + b"\n",
    "a long row": lambda d: d.rstrip(b"\n") + b"\t1\t2\n",
    "doubled column": lambda d: _table([[*r, r[0]] for r in _lines(d)]),
    "reversed": lambda d: _table([_lines(d)[0], *_lines(d)[:0:-1]]),
}
NUMBERS = ("", "n/a", "nan", "inf", "-inf", "1e400", "1,5", "abc", "0x1F", "--3", "None")
ANY_JSON: dict[str, Callable[[bytes], bytes]] = {
    "a list": lambda d: b"[1, 2]",
    "a number": lambda d: b"3",
    "null": lambda d: b"null",
    "text": lambda d: b'"x"',
    "no object": lambda d: b"{",
    "open text": lambda d: b'{"RepetitionTime": "2',
    "python": lambda d: b"{'RepetitionTime': 2}",
    "deep": lambda d: b"[" * 100_000,
    "deep object": lambda d: b'{"a":' * 100_000,
    "nothing inside": lambda d: b"{}",
}


def _spoiled(find: Callable[[Path], Path], how: Callable[[bytes], bytes]):
    def spoil(bids: Path, more: Path) -> list[str]:
        path = find(bids)
        path.write_bytes(how(path.read_bytes()))
        return []

    return spoil


def _events(bids: Path) -> Path:
    return small_alice.events(bids, PERSON)


def _confounds(bids: Path) -> Path:
    return small_alice.confounds(bids, PERSON)


def _confounds_json(bids: Path) -> Path:
    return _confounds(bids).with_suffix(".json")


def _sidecar(bids: Path) -> Path:
    return bids / f"sub-{PERSON}" / "func" / f"sub-{PERSON}_task-alice_bold.json"


def _image_sidecar(bids: Path) -> Path:
    path = small_alice.bold(bids, PERSON)
    return path.with_name(path.name.replace(".nii.gz", ".json"))


def _atlas_table(bids: Path) -> Path:
    path = small_alice.atlas(bids)
    return path.with_name(path.name.replace(".nii.gz", ".tsv"))


def _bold(bids: Path) -> Path:
    return small_alice.bold(bids, PERSON)


def _textgrid(bids: Path) -> Path:
    return bids / "stimuli" / "alice_audio.TextGrid"


def _description(bids: Path) -> Path:
    return bids / "dataset_description.json"


def _derivative(bids: Path) -> Path:
    return bids / "derivatives" / "fmriprep" / "dataset_description.json"


def tables() -> Iterator[Case]:
    for what, find, codes in (
        ("events", _events, (0, *DATA)),
        ("confounds", _confounds, (0, *DATA)),
        ("atlas table", _atlas_table, (0, *DATA)),
    ):
        for how, change in {**ANY_FILE, **ANY_TABLE}.items():
            yield Case(f"{what}: {how}", _spoiled(find, change), codes, EVENTS)
        for value in NUMBERS:
            change = _cell(1, 0, value)
            yield Case(f"{what}: {value!r}", _spoiled(find, change), (0, *DATA), EVENTS)
    for number, column in enumerate(("onset", "duration", "trial_type", "stim_file")):
        for name in (None, column.upper(), column + " ", ""):
            change = _column(number, name)
            yield Case(
                f"events: {column} {name!r}",
                _spoiled(_events, change),
                (0, *DATA),
                EVENTS,
            )
    for value in ("-20000", "1e9", "-1e-400", "0", "5000"):
        yield Case(
            f"events: onset {value}",
            _spoiled(_events, _cell(1, 0, value)),
            (0, *DATA),
            EVENTS,
        )
        yield Case(
            f"events: duration {value}",
            _spoiled(_events, _cell(1, 1, value)),
            (0, *DATA),
            EVENTS,
        )
    for value in ("../../../../etc/passwd", "/etc/passwd", "alice_audio.wav\x00", "a" * 5000, "~"):
        change = lambda d, v=value: d.replace(b"alice_audio", v.encode())  # noqa: E731
        yield Case(
            f"events: stim_file {value[:20]!r}",
            _spoiled(_events, change),
            (0, *DATA),
            EVENTS,
        )


def sidecars() -> Iterator[Case]:
    places = (
        ("sidecar", _sidecar, (0, *DATA)),
        ("description", _description, (16,)),
        ("derivative's description", _derivative, (0, *DATA)),
        ("confounds.json", _confounds_json, (0, *DATA)),
        ("image's sidecar", _image_sidecar, (0, *DATA)),
    )
    for what, find, codes in places:
        for how, change in {**ANY_FILE, **ANY_JSON}.items():
            if what == "description" and how in ("nothing inside",):
                codes = (16,)
            yield Case(f"{what}: {how}", _existing(find, change), codes, (".json", "sub-18"))
    for value in (
        "0",
        "-2",
        '"2"',
        "null",
        "[2]",
        "1e400",
        "NaN",
        "1e-300",
        "1000",
        "true",
        '{"a": 1}',
    ):
        change = lambda d, v=value: ('{"RepetitionTime": %s, "TaskName": "alice"}' % v).encode()  # noqa: E731, UP031
        yield Case(
            f"RepetitionTime {value}",
            _spoiled(_sidecar, change),
            (0, *DATA),
            ("RepetitionTime", "TR", ".json"),
        )
    for value in ('"x"', "7", "null", '["a"]', "{}"):
        change = lambda d, v=value: ('{"Name": "x", "BIDSVersion": %s}' % v).encode()  # noqa: E731, UP031
        yield Case(
            f"BIDSVersion {value}", _spoiled(_description, change), (0, 16), ("BIDSVersion",)
        )


def _existing(find, change):
    def spoil(bids: Path, more: Path) -> list[str]:
        path = find(bids)
        path.write_bytes(change(path.read_bytes() if path.is_file() else b"{}"))
        return []

    return spoil


# --- images -------------------------------------------------------------------------------------


def _raw(path: Path) -> bytearray:
    import gzip

    return bytearray(gzip.decompress(path.read_bytes()))


FIELDS: dict[str, tuple[int, str, tuple]] = {
    "sizeof_hdr": (0, "<i", (0, 347, -1)),
    "dim[0]": (40, "<h", (0, 3, 5, 7, 8, -1, 32767)),
    "dim[1]": (42, "<h", (0, -3, 32767)),
    "dim[4]": (48, "<h", (0, 1, -1, 2, 361, 363, 32767)),
    "dim[5]": (50, "<h", (2, -1)),
    "datatype": (70, "<h", (0, 1, 3, 128, 1792, 999, -1)),
    "bitpix": (72, "<h", (0, 8, 99)),
    "pixdim[1]": (80, "<f", (0.0, -3.0, float("nan"), float("inf"))),
    "pixdim[4]": (92, "<f", (0.0, -2.0, float("nan"), 1e30)),
    "vox_offset": (108, "<f", (0.0, -1.0, 1e9, float("nan"), 353.5)),
    "scl_slope": (112, "<f", (float("nan"), float("inf"), 1e38)),
    "scl_inter": (116, "<f", (float("nan"), float("inf"))),
    "xyzt_units": (123, "<b", (0, 127)),
    "sform_code": (254, "<h", (0, -1, 99)),
    "srow_x": (280, "<f", (float("nan"), 0.0, 1e30)),
    "magic": (344, "4s", (b"\0\0\0\0", b"ni1\0", b"n+2\0", b"abcd")),
}


def _field(find, offset: int, kind: str, value: object):
    def spoil(bids: Path, more: Path) -> list[str]:
        import gzip

        data = _raw(find(bids))
        struct.pack_into(kind, data, offset, value)
        find(bids).write_bytes(gzip.compress(bytes(data), 1))
        return []

    return spoil


def images() -> Iterator[Case]:
    for what, find in (("image", _bold), ("atlas", small_alice.atlas)):
        for name, (offset, kind, values) in FIELDS.items():
            for value in values:
                yield Case(
                    f"{what}: {name} {value!r}",
                    _field(find, offset, kind, value),
                    (0, *DATA),
                    (".nii.gz", "confounds"),
                )
        for how in ("empty", "binary", "zeros", "html", "a git-annex pointer", "half", "twice"):
            yield Case(
                f"{what}: {how}",
                _spoiled(find, ANY_FILE[how]),
                (0, *DATA) if how == "twice" else DATA,
                (".nii.gz", "confounds"),
            )
        for share in (0.02, 0.1, 0.9, 0.999):
            change = lambda d, s=share: d[: int(len(d) * s)]  # noqa: E731
            yield Case(
                f"{what}: first {share:.1%}", _spoiled(find, change), DATA, (".nii.gz", "confounds")
            )
    yield Case("image: a zip bomb", _bomb, DATA, (".nii.gz", "confounds"))
    yield Case("image: a folder", _folder(_bold), DATA, (".nii.gz", "confounds"))
    yield Case("image: a loop of links", _loop(_bold), DATA, (".nii.gz", "confounds"))
    yield Case("events: a folder", _folder(_events), (*DATA, 74), EVENTS)
    yield Case("transcript: a folder", _folder(_textgrid), (*DATA, 74), ("alice", "TextGrid"))


def _bomb(bids: Path, more: Path) -> list[str]:
    """A header that is true to its file is kept, then 300 MB of zeros follow."""
    import gzip

    data = _raw(_bold(bids))
    struct.pack_into("<h", data, 48, 32767)
    head = bytes(data)
    with gzip.open(_bold(bids), "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(30):
            stream.write(bytes(10_000_000))
    return []


def _folder(find):
    def spoil(bids: Path, more: Path) -> list[str]:
        find(bids).unlink()
        find(bids).mkdir()
        return []

    return spoil


def _loop(find):
    def spoil(bids: Path, more: Path) -> list[str]:
        find(bids).unlink()
        find(bids).symlink_to(find(bids).name)
        return []

    return spoil


# --- transcripts --------------------------------------------------------------------------------


def _instead(name: str, content: bytes):
    """Put another file in the place of the transcript."""

    def spoil(bids: Path, more: Path) -> list[str]:
        _textgrid(bids).unlink()
        path = bids / "stimuli" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return []

    return spoil


def _words(rows: object) -> bytes:
    text = "onset\tduration\tword\n"
    return (text + "".join("\t".join(map(str, r)) + "\n" for r in rows)).encode()


GOOD = [(k * 0.5, 0.3, f"w{k}") for k in range(300)]
GENTLE_WORD = {"word": "a", "alignedWord": "a", "case": "success", "start": 1.0, "end": 1.2}


OF_TRANSCRIPTS = ("alice", "TextGrid", ".tsv", "align")


def _transcript(name: str, spoil: Callable[[Path, Path], list[str]]) -> Case:
    return Case(name, spoil, (0, *DATA), OF_TRANSCRIPTS)


def transcripts() -> Iterator[Case]:
    yield from textgrids()
    yield from word_tables()
    yield from gentle_json()
    yield from gentle_csv()


def textgrids() -> Iterator[Case]:
    for how, change in ANY_FILE.items():
        yield _transcript(f"TextGrid: {how}", _spoiled(_textgrid, change))
    for old, new in (
        (b"xmin", b"xmim"),
        (b"IntervalTier", b"Tier"),
        (b"size = ", b"size = 9"),
        (b'"IntervalTier"', b'"TextTier"'),
        (b"intervals", b"points"),
        (b'text = "', b"text = "),
        (b"xmax = ", b"xmax = nan"),
        (b"xmin = ", b"xmin = 9"),
        (b"xmin = ", b"xmin = -"),
        (b"ooTextFile", b"ooBinaryFile"),
        (b" ", b""),
        (b"\n", b" "),
        (b'"', b"'"),
    ):
        change = lambda d, o=old, n=new: d.replace(o, n)  # noqa: E731
        yield _transcript(f"TextGrid: {old!r} to {new!r}", _spoiled(_textgrid, change))


def word_tables() -> Iterator[Case]:
    bad = {
        "no rows": [],
        "one word": GOOD[:1],
        "text for a time": [("x", 1, "a"), *GOOD],
        "negative time": [(-5, 1, "a"), *GOOD],
        "NaN": [("nan", 1, "a"), *GOOD],
        "infinite": [("inf", 1, "a"), *GOOD],
        "overflow": [("1e999", 1, "a"), *GOOD],
        "negative duration": [(1, -2, "a"), *GOOD],
        "backwards": GOOD[::-1],
        "all at once": [(1, 0, f"w{k}") for k in range(300)],
        "too few cells": [(1, 2), *GOOD],
        "too many cells": [(1, 2, "a", "b"), *GOOD],
        "empty words": [(a, b, "") for a, b, _ in GOOD],
        "markup": [(a, b, "<script>alert(1)</script>") for a, b, _ in GOOD],
        "control characters": [(a, b, "a\x00b\x1b[31m") for a, b, _ in GOOD],
        "a very long word": [(1, 0.5, "a" * 1_000_000), *GOOD],
        "beyond the end": [(9000 + a, b, w) for a, b, w in GOOD],
        "no numbers at all": [("a", "b", "c")] * 50,
        "n/a": [("n/a", "n/a", w) for _, _, w in GOOD],
    }
    for how, rows in bad.items():
        content = _words(rows)
        yield _transcript(f"words: {how}", _instead("alice_audio.tsv", content))
    for how, change in {**ANY_FILE, **ANY_TABLE}.items():
        content = change(_words(GOOD))
        yield _transcript(f"words: {how}", _instead("alice_audio.tsv", content))


def gentle_json() -> Iterator[Case]:
    gentle = {
        "no words": {"words": []},
        "words: text": {"words": "abc"},
        "words: null": {"words": None},
        "other keys": {"x": 1},
        "start: text": {"words": [{**GENTLE_WORD, "start": "x"}] * 5},
        "start: null": {"words": [{**GENTLE_WORD, "start": None}] * 5},
        "start: list": {"words": [{**GENTLE_WORD, "start": [1]}] * 5},
        "no start": {"words": [{"word": "a", "case": "success"}] * 5},
        "word: number": {"words": [{**GENTLE_WORD, "word": 3}] * 5},
        "word: null": {"words": [{**GENTLE_WORD, "word": None, "alignedWord": None}] * 5},
        "no word": {"words": [{"start": 1, "end": 2, "case": "success"}] * 5},
        "end before start": {"words": [{**GENTLE_WORD, "end": 0.1}] * 5},
        "phones: text": {"words": [{**GENTLE_WORD, "phones": "abc"}] * 5},
        "phones: odd": {"words": [{**GENTLE_WORD, "phones": [{"phone": 3, "duration": "x"}]}] * 5},
        "case: unknown": {"words": [{**GENTLE_WORD, "case": "maybe"}] * 5},
        "words: lists": {"words": [[1, 2, 3]] * 5},
        "words: numbers": {"words": [1, 2]},
        "nothing aligned": {"words": [{"word": "a", "case": "not-found-in-audio"}] * 50},
        "transcript: list": {"transcript": [1], "words": [GENTLE_WORD] * 5},
        "startOffset: text": {"transcript": "a b", "words": [{**GENTLE_WORD, "startOffset": "x"}]},
        "startOffset: far": {
            "transcript": "a b",
            "words": [{**GENTLE_WORD, "startOffset": 10**9, "endOffset": 10**9 + 5}],
        },
    }
    for how, content in gentle.items():
        spoil = _instead("gentle/alice/align.json", json.dumps(content).encode())
        yield _transcript(f"Gentle: {how}", spoil)
    for how, change in {**ANY_JSON, "empty": ANY_FILE["empty"]}.items():
        spoil = _instead("gentle/alice/align.json", change(b""))
        yield _transcript(f"Gentle JSON: {how}", spoil)


def gentle_csv() -> Iterator[Case]:
    for how, text in {
        "one column": "a\nb\nc\n",
        "text for times": "a,a,x,y\n" * 20,
        "NaN": "a,a,nan,nan\n" * 20,
        "quotes": '"a,b,c\n' * 20,
        "five columns": "a,b,1,2,3\n" * 20,
        "semicolons": "a;a;1;2\n" * 9,
        "backwards": "a,a,9,8\n" * 20,
        "overflow": "a,a,1e999,1e999\n" * 20,
        "NUL": "a,\0,1,2\n" * 9,
    }.items():
        spoil = _instead("gentle/alice/align.csv", text.encode())
        yield _transcript(f"Gentle CSV: {how}", spoil)


# --- the tree -----------------------------------------------------------------------------------


def _tree(change: Callable[[Path], object], *flags: str):
    def spoil(bids: Path, more: Path) -> list[str]:
        change(bids)
        return list(flags)

    return spoil


def _rename(find, name: str):
    return _tree(lambda bids: find(bids).rename(find(bids).with_name(name)))


def trees() -> Iterator[Case]:
    import shutil

    names = ("alice", "sub-", "bids", "task", ".json", "derivatives")
    for name, change in {
        "no participants": lambda b: [shutil.rmtree(p) for p in b.glob("sub-*")],
        "no derivatives": lambda b: shutil.rmtree(b / "derivatives"),
        "empty derivatives": lambda b: (
            shutil.rmtree(b / "derivatives"),
            (b / "derivatives").mkdir(),
        ),
        "no stimuli": lambda b: shutil.rmtree(b / "stimuli"),
        "no events": lambda b: [p.unlink() for p in b.rglob("*_events.tsv")],
        "no sidecars": lambda b: [p.unlink() for p in b.rglob("*_bold.json")],
        "no masks and confounds": lambda b: [p.unlink() for p in b.rglob("*timeseries.tsv")],
        "no images": lambda b: [p.unlink() for p in b.rglob("*_bold.nii.gz")],
        "a file for stimuli": lambda b: (
            shutil.rmtree(b / "stimuli"),
            (b / "stimuli").write_text("x"),
        ),
        "a file for derivatives": lambda b: (
            shutil.rmtree(b / "derivatives"),
            (b / "derivatives").write_text("x"),
        ),
        "a file for a participant": lambda b: (
            shutil.rmtree(b / "sub-18"),
            (b / "sub-18").write_text("x"),
        ),
        "no description of derivatives": lambda b: _derivative(b).unlink(),
        "a derivative in itself": lambda b: (b / "derivatives" / "fmriprep" / "loop").symlink_to(
            b / "derivatives"
        ),
    }.items():
        yield Case(
            f"tree: {name}", _tree(change, "--participant-label", PERSON), (0, *DATA, 64), names
        )
    for new in (
        "sub-18_task-_bold.json",
        "sub-19_task-alice_bold.json",
        "sub-18_task-alice_run-x y_bold.json",
        "sub-18-task-alice_bold.json",
        "SUB-18_TASK-alice_bold.json",
        "sub-18_task-ali_ce_bold.json",
    ):
        yield Case(f"sidecar called {new}", _rename(_sidecar, new), (0, *DATA), names)
    for new in (
        "sub-18_task-alice_desc-preproc_bold.nii.gz",
        "sub-18_task-alice_space-_bold.nii.gz",
        "sub-22_task-alice_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz",
        "sub-18_task-alice_space-MNI152NLin2009cAsym_desc-preproc_bold.nii",
        "sub-18_task-alice_space-a;rm -rf_desc-preproc_bold.nii.gz",
        "bold.nii.gz",
    ):
        yield Case(f"image called {new}", _rename(_bold, new), (0, 64, *DATA), (*names, ".nii"))


# --- settings -----------------------------------------------------------------------------------

VALUES = ("", "nan", "-1", "\x00", "x y")


def flags() -> Iterator[Case]:
    """Every flag with odd values; what a setting takes is not refused here."""
    for name, (section, item) in config.declared().items():
        flag = "--" + name.replace("_", "-")
        if section == "execution" and name not in (
            "nprocs",
            "omp_nthreads",
            "mem_gb",
            "executor",
            "on_error",
        ):
            continue
        if isinstance(config.default_of(item), bool):
            yield Case(f"{flag}=yes", _flags(f"{flag}=yes"), (64,), (flag,))
            continue
        yield Case(f"{flag} alone", _flags(flag), (0, 64), (flag,))
        for value in VALUES:
            try:
                config.check(name, [value] if item.metadata["many"] else value, flag)
            except config.ConfigError:
                yield Case(f"{flag}={value!r}", _flags(f"{flag}={value}"), (64,), (flag, name))


def asked() -> Iterator[Case]:
    """Models across stories and ladders that cannot be, or that the data do not allow."""
    for given in (
        ("none", "stories"),
        ("storys",),
        ("stories,runs",),
        ("",),
        ("0",),
        ("runs", "x"),
    ):
        yield Case(f"across: {given}", _flags("--across", *given), (64,), ("--across",))
    for given in (("runs",), ("stories",), ("stories", "runs", "stories"), ("none",)):
        yield Case(f"across: {given}", _flags("--across", *given), (0, 64), ("--across",))
    for value in ("", "all", "None", "auto,none", "1"):
        yield Case(f"ladder: {value!r}", _flags("--ladder", value), (64,), ("--ladder",))
    for more in (
        ("--features", "position"),
        ("--features", "acoustics"),
        ("--features", "static"),
        ("--bands", "counts"),
        ("--layers", "99"),
    ):
        flags = ("--ladder", "asked", "--model", "random:tiny-bert", *more)
        codes = (0, 64, *DATA)
        yield Case(f"ladder: asked, {more}", _flags(*flags), codes, ("alice", "--", "static"))
    for kind, spaces in (("auto", ["embeddings"]), ("asked", ["embeddings", "acoustics"])):
        for how, content in {
            "an empty sound": b"",
            "no sound": b"RIFF\0\0\0\0WAVE",
            **SOUNDS,
        }.items():
            spoil = _sound(content, "--ladder", kind, "--layers", "1", "--features", *spaces)
            name, codes = f"ladder: {kind}, {how}", (0, *DATA)
            yield Case(name, spoil, codes, ("alice", "acoustics"), late=True)


def _riff(rate: int, n_samples: int, stated: int) -> bytes:
    """Return a sound file of silence, whose header may state another length."""
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    data = b"data" + struct.pack("<I", 2 * stated) + bytes(2 * n_samples)
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(data)) + b"WAVE" + head + data


SOUNDS = {
    "a short sound": _riff(8000, 800, 800),
    "a cut sound": _riff(8000, 800, 8_000_000),
    "a rate of 0": _riff(0, 800, 800),
    "a rate of 1": _riff(1, 800, 800),
}


def _sound(content: bytes, *flags: str):
    def spoil(bids: Path, more: Path) -> list[str]:
        (bids / "stimuli" / "alice_audio.wav").write_bytes(content)
        return ["--model", "random:tiny-bert", *flags]

    return spoil


def _flags(*given: str):
    return lambda bids, more: list(given)


def files_of_settings() -> Iterator[Case]:
    texts = {
        "empty section": "[]",
        "unknown": "[x]\ny = 1",
        "no section": "cv = 3",
        "twice": "[encoding]\ncv = 3\ncv = 4",
        "section twice": "[encoding]\n[encoding]",
        "a list": "encoding = [1]",
        "a number": "encoding = 1",
        "cv: text": '[encoding]\ncv = "x"',
        "cv: list": "[encoding]\ncv = [3]",
        "cv: table": "[encoding.cv]\na = 1",
        "cv: date": "[encoding]\ncv = 2020-01-01",
        "cv: bool": "[encoding]\ncv = true",
        "gap: nan": "[encoding]\ngap = nan",
        "gap: inf": "[encoding]\ngap = inf",
        "delays: nested": "[encoding]\ndelays = [[1]]",
        "delays: text": '[encoding]\ndelays = "a"',
        "delays: empty": "[encoding]\ndelays = []",
        "model: number": "[features]\nmodel = 3",
        "model: empty": '[features]\nmodel = [""]',
        "binary": "\x01\x02",
        "open": '[encoding]\na = "',
        "atlas: list": '[inputs]\natlas = ["a"]',
        "deep": "[encoding]\ndelays = " + "[" * 5000,
        "huge": "[encoding]\ncv = " + "9" * 5000,
        "huge hexadecimal": "[encoding]\nseed = 0x" + "f" * 5000,
        "beyond floats": "[encoding]\nalphas = " + "9" * 400,
        "a long text": '[encoding]\ncv = "' + "x" * 5000 + '"',
        "offline: 1": "[execution]\noffline = 1",
        "json": '{"encoding": {"cv": 3}}',
        "yaml": "encoding:\n  cv: 3",
        "escape": '[encoding]\nalphas = ["\\u0000"]',
    }
    for how, text in texts.items():

        def spoil(bids: Path, more: Path, text: str = text) -> list[str]:
            (more / "s.toml").write_text(text, "utf-8")
            return ["--config-file", str(more / "s.toml")]

        yield Case(f"TOML: {how}", spoil, (64,), ("s.toml", "--delays", "model"))
    yield Case(
        "TOML: a folder",
        lambda b, m: ["--config-file", str(m)],
        (64, 66),
        (),
    )
    yield Case("TOML: latin-1", _toml_bytes(b'[inputs]\natlas = "\xe4"'), (64,), ("s.toml",))


def _toml_bytes(content: bytes):
    def spoil(bids: Path, more: Path) -> list[str]:
        (more / "s.toml").write_bytes(content)
        return ["--config-file", str(more / "s.toml")]

    return spoil


# --- models -------------------------------------------------------------------------------------


TINY = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 30,
    "max_position_embeddings": 32,
}
CONFIG = json.dumps(TINY).encode()
VOCABULARY = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nthe\n"
NO_TENSORS = struct.pack("<Q", 2) + b"{}"
BAD_CONFIGS: dict[str, dict[str, bytes]] = {
    "empty folder": {},
    "config only": {"config.json": CONFIG},
    "config: broken": {"config.json": b"{", "model.safetensors": b"x"},
    "config: list": {"config.json": b"[]", "model.safetensors": b"x"},
    "config: no type": {"config.json": b"{}", "model.safetensors": b"x"},
    "config: unknown type": {
        "config.json": b'{"model_type": "zzz"}',
        "model.safetensors": b"x",
    },
    "config: type is a number": {
        "config.json": b'{"model_type": 3}',
        "model.safetensors": b"x",
    },
    "config: own code": {
        "config.json": json.dumps({**TINY, "auto_map": {"AutoModel": "evil.Evil"}}).encode(),
        "evil.py": b"raise SystemExit('evil')",
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"x",
    },
    "config: layers is text": {
        "config.json": json.dumps({**TINY, "num_hidden_layers": "x"}).encode(),
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"x",
    },
    "config: heads do not divide": {
        "config.json": json.dumps({**TINY, "num_attention_heads": 3}).encode(),
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"x",
    },
}
BAD_WEIGHTS: dict[str, dict[str, bytes]] = {
    "weights: empty": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"",
    },
    "weights: text": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"not weights at all, but long enough",
    },
    "weights: huge header": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "model.safetensors": struct.pack("<Q", 2**62) + b"{}",
    },
    "weights: header only": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "model.safetensors": NO_TENSORS,
    },
    "weights: a pickle": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "pytorch_model.bin": b"cos\nsystem\n(S'touch evil'\ntR.",
    },
    "weights: a pointer": {
        "config.json": CONFIG,
        "vocab.txt": VOCABULARY,
        "model.safetensors": b"version https://git-lfs.github.com/spec/v1\n",
    },
    "no tokenizer": {"config.json": CONFIG, "model.safetensors": NO_TENSORS},
    "tokenizer: broken": {
        "config.json": CONFIG,
        "tokenizer.json": b"{",
        "model.safetensors": NO_TENSORS,
    },
    "tokenizer: list": {
        "config.json": CONFIG,
        "tokenizer.json": b"[]",
        "model.safetensors": NO_TENSORS,
    },
}


def _model_folder(files: dict[str, bytes]):
    def spoil(bids: Path, more: Path) -> list[str]:
        place = more / "model"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        return ["--features", "magnitudes", "--model", str(place)]

    return spoil


def models() -> Iterator[Case]:
    for how, files in {**BAD_CONFIGS, **BAD_WEIGHTS}.items():
        yield Case(f"model: {how}", _model_folder(files), (64, 65, 66), ("model",))
    for name in (
        "random:",
        "random:zzz",
        "random:tiny-zzz",
        "a b",
        "x=y=z",
        "/",
        ".",
        "a/b/c",
        "-",
        "http://example.com/x",
        "\x00",
    ):
        given = _flags("--features=magnitudes", f"--model={name}")
        yield Case(f"model: {name!r}", given, (64, 65, 66), ("model", name))


def rois() -> Iterator[Case]:
    texts = {
        "empty": "",
        "header": "name\troi\n",
        "no roi": "name\tx\na\tb\n",
        "no name": "roi\na\n",
        "unknown parcels": "name\troi\nzzz\tA\n",
        "twice": "name\troi\nA\tx\nA\ty\n",
        "index: text": "index\troi\nx\tA\n",
        "index: nan": "index\troi\nnan\tA\n",
        "index: negative": "index\troi\n-1\tA\n",
        "index: large": "index\troi\n99999999999\tA\n",
        "short row": "index\troi\n1\n",
        "binary": "\x00\x01\x02",
        "no names": "index\troi\n1\t\n2\t\n",
        "slashes": "index\troi\n1\t../../x\n2\ta/b\n",
        "markup": "index\troi\n1\t<b>\n2\t<script>\n",
    }
    for how, text in texts.items():

        def spoil(bids: Path, more: Path, text: str = text) -> list[str]:
            (more / "rois.tsv").write_text(text, "utf-8")
            return ["--rois", str(more / "rois.tsv")]

        yield Case(f"rois: {how}", spoil, (0, 64, 65, 66), ("rois.tsv",), level="group")
    yield Case(
        "rois: missing", lambda b, m: ["--rois", str(m / "no.tsv")], (66,), ("no.tsv",), "group"
    )
    yield Case("rois: a folder", lambda b, m: ["--rois", str(m)], (64, 65, 66, 74), (), "group")


def cases() -> list[Case]:
    found = [
        *tables(),
        *sidecars(),
        *images(),
        *transcripts(),
        *trees(),
        *flags(),
        *asked(),
        *files_of_settings(),
        *models(),
        *rois(),
    ]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
    return found
