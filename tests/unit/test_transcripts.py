"""Alignments to words: every format as found in the wild, every mistake with its line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bids_brainlm.errors import TranscriptError
from bids_brainlm.language import transcripts
from bids_brainlm.language.transcripts import parse

CSV = 'So,so,0.24,0.63\nI’m,i\'m,0.68,1.26\nbuilding,,,\n"Hm, well",<unk>,1.96,2.3\n'
GENTLE = {
    "transcript": "So, I’m here.",
    "words": [
        {
            "word": "So",
            "alignedWord": "so",
            "case": "success",
            "start": 3.0,
            "end": 3.5,
            "phones": [{"phone": "s_B", "duration": 0.2}, {"phone": "ow_E", "duration": 0.3}],
        },
        {"word": "I’m", "case": "not-found-in-audio"},
        {"word": "here", "case": "success", "start": 4, "end": 4.5, "phones": []},
    ],
}
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "words"
        xmin = 0
        xmax = 4
        points: size = 1
        points [1]:
            number = 1
            mark = "click"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 4
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "sil"
        intervals [2]:
            xmin = 1
            xmax = 1.4
            text = "AH0"
        intervals [3]:
            xmin = 1.4
            xmax = 2
            text = "B"
        intervals [4]:
            xmin = 2
            xmax = 4
            text = "ay_S"
    item [3]:
        class = "IntervalTier"
        name = "Words"
        xmin = 0
        xmax = 4
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 1
            text = ""
        intervals [2]:
            xmin = 1
            xmax = 2
            text = "say @@ab@@"
        intervals [3]:
            xmin = 2
            xmax = 3.5
            text = "I’m"
        intervals [4]:
            xmin = 3.5
            xmax = 4
            text = "SIL"
""".replace("@@", '""')
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
4
<exists>
1
"IntervalTier"
"anything"
0
4
3
0
1
"<p>"
1 ! a comment 7 "x"
2.5e0
"Alice"
2.5
4
"was"
"""


def texts(transcript):
    return [word.text for word in transcript.words]


def test_gentle_csv():
    found = parse(CSV.encode(), "align.csv")
    assert texts(found) == ["So", "I’m", "building", "Hm, well"]
    first, _, lost, last = found.words
    assert (first.onset, first.offset, first.aligned) == (0.24, 0.63, "so")
    assert (lost.onset, lost.offset, lost.aligned) == (None, None, None)
    assert last.aligned == "<unk>"
    assert not found.has_phones
    assert found.text is None
    assert found.source == "align.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_and_line_ends(encoding):
    expected = parse(CSV.encode(), "a.csv").words
    assert parse(CSV.replace("\n", "\r\n").encode(encoding), "A.CSV").words == expected
    grid = parse(SHORT.encode(encoding), "a.TextGrid")
    assert texts(grid) == ["Alice", "was"]


def test_gentle_json():
    found = parse(json.dumps(GENTLE).encode(), "align.json")
    so, lost, here = found.words
    assert found.text == "So, I’m here."
    assert found.has_phones
    assert [(p.label, p.onset, p.offset) for p in so.phones] == [("s", 3.0, 3.2), ("ow", 3.2, 3.5)]
    assert (lost.onset, lost.phones) == (None, ())
    assert (here.onset, here.offset) == (4.0, 4.5)


def test_real_gentle_json_and_csv_agree(shared_data):
    folder = shared_data / "narratives" / "gentle" / "notthefallintact"
    rich = parse((folder / "align.json").read_bytes(), "align.json")
    plain = parse((folder / "align.csv").read_bytes(), "align.csv")
    strip = [(w.text, w.aligned, w.onset, w.offset) for w in rich.words]
    assert strip == [(w.text, w.aligned, w.onset, w.offset) for w in plain.words]
    assert len(strip) == 1601
    assert sum(w.onset is not None for w in rich.words) == 1561
    assert sum(len(w.phones) for w in rich.words) == 4758
    assert rich.text.startswith("So I’m, um, five thousand feet")


def test_long_textgrid_with_phones():
    found = parse(LONG.encode(), "a.TextGrid")
    assert texts(found) == ['say "ab"', "I’m"]
    first, second = found.words
    assert (first.onset, first.offset) == (1.0, 2.0)
    assert [p.label for p in first.phones] == ["ah", "b"]
    assert [p.label for p in second.phones] == ["ay"]  # midpoint 3 s, end after the word
    assert found.has_phones


def test_a_phone_with_its_midpoint_in_no_word_is_left_out():
    text = LONG.replace("xmin = 2\n            xmax = 4\n", "xmin = 3.2\n            xmax = 4\n")
    found = parse(text.encode(), "a.TextGrid")
    assert [len(word.phones) for word in found.words] == [2, 0]


def test_short_textgrid_and_first_interval_tier():
    found = parse(SHORT.encode(), "a.textgrid")
    assert [(w.text, w.onset, w.offset) for w in found.words] == [
        ("Alice", 1.0, 2.5),
        ("was", 2.5, 4.0),
    ]


def test_textgrid_like_praatio(alice, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    path = alice / "stimuli" / "alice_audio.TextGrid"
    found = parse(path.read_bytes(), path.name)
    tier = textgrid.openTextgrid(str(path), includeEmptyIntervals=False).getTier("word")
    expected = [(e.start, e.end, e.label) for e in tier.entries if e.label.lower() != "sp"]
    assert [(w.onset, w.offset, w.text) for w in found.words] == expected
    assert len(expected) == 2127
    short = tmp_path / "short.TextGrid"
    textgrid.openTextgrid(str(path), includeEmptyIntervals=False).save(
        str(short), format="short_textgrid", includeBlankSpaces=True
    )
    again = parse(short.read_bytes(), short.name)
    assert texts(again) == texts(found)
    np.testing.assert_allclose(
        [w.onset for w in again.words], [w.onset for w in found.words], atol=1e-6
    )


def test_words_tsv():
    table = 'word\tduration\tonset\tx\n"So\t0.5\t1\ta\nlost\tn/a\tn/a\tb\n\nI’m\t.25\t2e0\tc\n'
    found = parse(table.encode(), "black_words.tsv")
    assert [(w.text, w.onset, w.offset) for w in found.words] == [
        ('"So', 1.0, 1.5),
        ("lost", None, None),
        ("I’m", 2.0, 2.25),
    ]


BAD = [
    ("a.docx", "x", "found the ending '.docx', expected Gentle .csv"),
    ("a", "x", "found the ending ''"),
    ("a.csv", "", "found no words"),
    ("a.csv", "So,so,0.2\n", "line 1: found 3 columns, expected 4"),
    ("a.csv", "So,so,0.2,0.3\nI,i,zero,1\n", "line 2: found onset 'zero', expected a number"),
    ("a.csv", "So,so,0.2,1_0\n", "line 1: found offset '1_0'"),
    ("a.csv", "So,so,0.2,inf\n", "line 1: found offset 'inf'"),
    ("a.csv", "So,so,0.2,1e999\n", "line 1: found offset '1e999'"),
    ("a.csv", "So,so,0.2,\n", "has only an onset"),
    ("a.csv", "So,so,2,1\n", "ends at 1 s, expected an end at or after its start at 2 s"),
    ("a.csv", "So,so,2,3\nI,i,1,4\n", "line 2: the word 'I' starts at 1 s"),
    ("a.csv", " ,so,2,3\n", "line 1: the word is empty"),
    ("a.csv", 'So,so,2,3\n"I,i,4,5\n', "not valid CSV"),
    ("a.csv", "So,,,\n", "none of 1 words has times"),
    ("a.csv", "So,so,\0,3\n", "line 1: found a NUL character"),
    ("a.json", "{", "line 1: not valid JSON"),
    ("a.json", "[" * 100_000, "not usable JSON (RecursionError)"),
    ("a.json", "[]", "found no list 'words'"),
    ("a.json", '{"words": 3}', "found no list 'words'"),
    ("a.json", '{"words": [3]}', "word 1: expected an object with the key 'word'"),
    ("a.json", '{"words": [{"word": "a", "start": "1", "end": 2}]}', "word 1: found start '1'"),
    ("a.json", '{"words": [{"word": "a", "start": NaN, "end": 2}]}', "found start nan"),
    ("a.json", '{"words": [{"word": "a", "start": 1, "end": true}]}', "found end True"),
    ("a.json", '{"words": [{"word": "a", "start": 1, "end": 2, "phones": 1}]}', "list of phones"),
    (
        "a.json",
        '{"words": [{"word": "a", "start": 1, "end": 2, "phones": [{"phone": "x"}]}]}',
        "found duration of the phone 'x' None",
    ),
    ("a.TextGrid", "", "line 1: the file ends here, expected the file type"),
    ("a.TextGrid", "ooBinaryFile\x08TextGrid", "found a binary TextGrid"),
    ("a.TextGrid", '"ooTextFile" "Pitch"', 'expected the object class "TextGrid"'),
    ("a.TextGrid", '"ooTextFile" "TextGrid" 0 4 <absent>', "without tiers"),
    ("a.TextGrid", LONG[:600], "line 30: the file ends here, expected"),
    ("a.TextGrid", LONG.replace("size = 3", "size = 3.5"), "line 7: found '3.5', expected the num"),
    ("a.TextGrid", LONG.replace("xmax = 3.5", "xmax = 1e999"), "expected the end of an interval"),
    ("a.TextGrid", LONG.replace("xmax = 3.5", "xmax = 1.5"), "expected an end after its start"),
    ("a.TextGrid", LONG.replace('"SIL"', '"SIL'), "a quote that is never closed"),
    ("a.TextGrid", LONG.replace("IntervalTier", "TextGrid"), "expected an IntervalTier or a"),
    ("a.TextGrid", LONG.replace('"Words"', '"phone"'), "expected an interval tier called word"),
    ("a.tsv", "onset\tword\n", "line 1: no column duration"),
    ("a.tsv", "onset\tduration\tword\n1\t2\n", "line 2: found 2 columns, expected 3"),
    ("a.tsv", "onset\tduration\tword\n1\t-2\ta\n", "line 2: the word 'a' ends at -1 s"),
    ("a.tsv", "onset\tduration\tword\n٣\t2\ta\n", "found onset '٣'"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_mistakes_name_file_line_and_expectation(name, text, message):
    with pytest.raises(TranscriptError) as caught:
        parse(text.encode(), name)
    assert message in caught.value.message
    assert caught.value.message.startswith(name)
    assert caught.value.exit_code == 65
    assert "--transcripts" in caught.value.hint


def test_not_a_text():
    with pytest.raises(TranscriptError, match=r"line 2: byte 3 is not valid UTF-8"):
        parse(b"So\n\xff,so,1,2", "a.csv")


def test_too_large(monkeypatch):
    monkeypatch.setattr(transcripts, "MAX_BYTES", 100)
    with pytest.raises(TranscriptError, match="expected at most 0 MiB"):
        parse(b"x" * 101, "a.csv")


def test_a_huge_unclosed_quote_is_refused_quickly():
    text = SHORT + '"' + 'a""' * 200_000
    with pytest.raises(TranscriptError):
        parse(text.replace("\n3\n", "\n4\n", 1).encode() + b' 4 5 "', "a.TextGrid")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", CSV), ("a.json", json.dumps(GENTLE)), ("a.TextGrid", LONG), ("b.TextGrid", SHORT)],
)
def test_damaged_bytes_give_words_or_a_transcript_error(name, text, rng):
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    for _ in range(150):
        damaged = data.copy()
        places = rng.integers(0, len(data), size=4)
        damaged[places] = rng.integers(0, 256, size=4)
        damaged = damaged[: rng.integers(1, len(data) + 1)]
        try:
            found = parse(damaged.tobytes(), name)
        except TranscriptError:
            continue
        assert all(w.onset is None or w.offset - w.onset >= 0 for w in found.words)
