"""The tables of the paper's code, from the same real alignments."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bids_brainlm.language import timing
from bids_brainlm.language.transcripts import parse
from bids_brainlm.records import TRGrid

TR = 1.5
# words, without time, first TR, last TR, rows, TRs with words, empty TRs, most words in a TR
TABLE = {
    "black": (1544, 5, 0, 533, 534, 481, 53, 9),
    "bronx": (1379, 23, 10, 366, 357, 351, 6, 9),
    "forgot": (2135, 16, 0, 549, 550, 527, 23, 9),
    "lucy": (1607, 22, 0, 349, 350, 340, 10, 13),
    "merlin": (2245, 111, 0, 609, 610, 571, 39, 12),
    "milkywayoriginal": (1059, 7, 14, 282, 269, 264, 5, 8),
    "milkywaysynonyms": (1066, 10, 3, 282, 280, 268, 12, 7),
    "milkywayvodka": (1058, 2, 14, 282, 269, 264, 5, 8),
    "notthefallintact": (1601, 40, 2, 380, 379, 334, 45, 12),
    "pieman": (957, 3, 10, 286, 277, 254, 23, 12),
    "piemanpni": (992, 7, 5, 272, 268, 262, 6, 10),
    "prettymouth": (1970, 7, 1, 464, 464, 448, 16, 9),
    "shapesphysical": (951, 9, 29, 299, 271, 234, 37, 7),
    "shapessocial": (910, 6, 29, 301, 273, 223, 50, 8),
    "sherlock": (2681, 171, 19, 720, 702, 689, 13, 10),
    "slumlordreach": (5344, 116, 16, 1192, 1177, 1088, 89, 14),
}
# Words without time in another TR than with back-fill change these entries.
INTERPOLATED = {
    "notthefallintact": (1601, 40, 2, 380, 379, 334, 45, 11),
    "sherlock": (2681, 171, 19, 720, 702, 691, 11, 10),
}


def words_of(shared_data, story):
    path = shared_data / "narratives" / "gentle" / story / "align.csv"
    return parse(path.read_bytes(), path.name).words


def summary(words, missing, audio_start):
    filled, n_missing = timing.fill_times(words, missing=missing)
    scan = timing.to_scan(filled, audio_start)
    grid = TRGrid(round(audio_start / TR), 1300, TR)
    placement = timing.place_words(scan, grid, "offset")
    assert (placement.n_before, placement.n_after) == (0, 0)
    counts = timing.word_counts(placement.rows, grid.n_trs)
    filled_rows = np.flatnonzero(counts)
    first, last = int(filled_rows[0]), int(filled_rows[-1])
    n_rows = last - first + 1
    n_full = len(filled_rows)
    return (
        len(words),
        n_missing,
        first,
        last,
        n_rows,
        n_full,
        n_rows - n_full,
        int(counts.max()),
    ), placement.rows


@pytest.mark.peer
@pytest.mark.parametrize("story", TABLE)
def test_table_of_all_stories(shared_data, story):
    words = words_of(shared_data, story)
    for missing, expected in (
        ("backfill", TABLE[story]),
        ("interpolate", INTERPOLATED.get(story, TABLE[story])),
    ):
        found, rows = summary(words, missing, 0.0)
        assert found == expected
        for audio_start in (3.0, 4.5, 12.0):  # lucy, slumlordreach, black
            assert summary(words, missing, audio_start)[1].tolist() == rows.tolist()
        if missing == "backfill":
            filled, _ = timing.fill_times(words, missing=missing)
            assert rows.tolist() == [int(word.offset / TR) for word in filled]


@pytest.mark.peer
def test_pieman_rows_of_the_reference(shared_data):
    folder = shared_data / "narratives" / "gentle" / "pieman"
    words, _ = timing.fill_times(words_of(shared_data, "pieman"), missing="backfill")
    rows = timing.place_words(words, TRGrid(0, 400, TR)).rows
    with (folder / "tr_tokens.csv").open(encoding="utf-8", newline="") as stream:
        expected = list(csv.reader(stream))[1:]
    assert len(expected) == 277
    for line in expected:
        own = [w for w, row in zip(words, rows, strict=True) if row == int(line[0])]
        assert " ".join(w.text for w in own) == line[4]
        if own:
            assert len(own) == float(line[5])
            assert min(w.onset for w in own) == pytest.approx(float(line[1]), abs=1e-9)
            assert max(w.offset for w in own) == pytest.approx(float(line[2]), abs=1e-9)
    assert set(rows.tolist()) <= {int(line[0]) for line in expected}


@pytest.mark.peer
def test_black_in_detail(shared_data):
    words, _ = timing.fill_times(words_of(shared_data, "black"), missing="backfill")
    rows = timing.place_words(words, TRGrid(0, 534, TR)).rows

    def text(row):
        return " ".join(w.text for w, r in zip(words, rows, strict=True) if r == row)

    assert (text(0), text(16), text(533)) == ("So I", "weekends was to", "you")
    counts = np.bincount(timing.word_counts(rows, 534))
    assert counts.tolist() == [53, 60, 111, 129, 89, 54, 23, 11, 2, 2]
