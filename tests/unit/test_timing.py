"""Words in time: missing times, scan time, rows, phones."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainlm.errors import ConfigError, TimingError
from bids_brainlm.language import timing
from bids_brainlm.records import Phone, TRGrid, Word

GRID = TRGrid(first_volume=2, n_trs=4, tr=1.5)  # 3 to 9 s


def word(onset, offset, text="w", phones=()):
    return Word(text, onset, offset, None, phones)


def times(words):
    return [(w.onset, w.offset, w.interpolated) for w in words]


def test_missing_times_are_shared_between_neighbours():
    words = [word(0.0, 1.0), word(None, None), word(None, None), word(2.0, 2.5)]
    filled, n_missing = timing.fill_times(words)
    assert n_missing == 2
    assert times(filled) == [
        (0.0, 1.0, False),
        (1.0, 1.5, True),
        (1.5, 2.0, True),
        (2.0, 2.5, False),
    ]


def test_leading_and_trailing_words_stay_at_the_edge():
    words = [word(None, None), word(3.0, 4.0), word(None, None), word(None, None)]
    filled, n_missing = timing.fill_times(words)
    assert n_missing == 3
    assert times(filled) == [
        (3.0, 3.0, True),
        (3.0, 4.0, False),
        (4.0, 4.0, True),
        (4.0, 4.0, True),
    ]


def test_overlapping_neighbours():
    filled, _ = timing.fill_times([word(0.0, 2.0), word(None, None), word(1.5, 3.0)])
    assert times(filled)[1] == (2.0, 2.0, True)


def test_backfill_as_in_the_paper():
    words = [word(None, None), word(3.0, 4.0), word(None, None), word(5.0, 6.0), word(None, None)]
    filled, n_missing = timing.fill_times(words, missing="backfill")
    assert n_missing == 3
    assert times(filled) == [
        (3.0, 4.0, True),
        (3.0, 4.0, False),
        (5.0, 6.0, True),
        (5.0, 6.0, False),
    ]


def test_without_any_time():
    with pytest.raises(TimingError, match="none of 1 words"):
        timing.fill_times([word(None, None)])
    with pytest.raises(ConfigError, match="expected one of interpolate, backfill"):
        timing.fill_times([word(1.0, 2.0)], missing="drop")


def test_to_scan_moves_words_and_phones():
    words = [word(1.0, 2.0, phones=(Phone("ay", 1.0, 1.5),)), word(None, None)]
    moved = timing.to_scan(words, -0.5)
    assert times(moved) == [(0.5, 1.5, False), (None, None, False)]
    assert moved[0].phones == (Phone("ay", 0.5, 1.0),)


@pytest.mark.parametrize(
    ("rule", "rows", "before", "after"),
    [
        ("offset", [-1, 0, 1, 3, -1], 1, 1),
        ("onset", [-1, -1, 0, 3, 3], 2, 0),
        ("midpoint", [-1, 0, 0, 3, 3], 1, 0),
    ],
)
def test_bin_rules(rule, rows, before, after):
    words = [
        word(1.0, 2.9),
        word(2.9, 3.2),
        word(3.0, 4.5),  # ends on a border: counts for the next volume
        word(7.6, 8.9),
        word(8.8, 9.0),
    ]
    found = timing.place_words(words, GRID, rule)
    assert found.rows.tolist() == rows
    assert (found.n_before, found.n_after) == (before, after)


def test_sums_just_below_a_border_do_not_slip():
    scan = timing.to_scan([word(0.1, 2.9999999999999996)], 12.0)
    assert timing.place_words(scan, TRGrid(8, 4, 1.5)).rows.tolist() == [2]


def test_a_microsecond_below_a_border_stays_below_it():
    """Gentle cuts some times to 230.999999 and the like."""
    grid = TRGrid(0, 200, 1.5)
    assert timing.place_words([word(230.0, 230.999999)], grid).rows.tolist() == [153]
    scan = timing.to_scan([word(14.0, 14.999998999999999)], 12.0)
    assert timing.place_words(scan, TRGrid(8, 200, 1.5)).rows.tolist() == [9]


def test_place_words_errors():
    with pytest.raises(ConfigError, match="expected one of offset, onset, midpoint"):
        timing.place_words([word(1.0, 2.0)], GRID, "middle")
    with pytest.raises(TimingError, match="'w' has no times"):
        timing.place_words([word(None, None)], GRID)


def test_word_counts():
    assert timing.word_counts(np.array([-1, 0, 0, 2]), 4).tolist() == [2, 0, 1, 0]
    assert timing.word_counts(np.array([], dtype=int), 2).tolist() == [0, 0]


def test_phone_labels_are_frozen():
    labels = timing.phone_labels()
    assert len(labels) == len(set(labels)) == 40
    assert labels[:4] == ("ao", "iy", "m", "dh")
    assert labels[27:29] == ("z", "zh")
    assert labels[-2:] == ("t", "eh")
    assert "oov" in labels


def test_phone_features_by_phone_onset(caplog):
    labels = timing.phone_labels()
    words = [
        word(4.0, 5.0, phones=(Phone("ay_B", 4.0, 4.4), Phone("s", 4.5, 5.0))),
        word(8.0, 9.5, phones=(Phone("ɛ", 8.0, 8.5), Phone("s", 9.0, 9.5))),
        word(5.0, 5.5),
    ]
    presence, counts = timing.phone_features(words, GRID, labels)
    assert presence.shape == (4, 40)
    assert counts.tolist() == [1, 1, 0, 1]  # the last phone begins after the grid
    rows, columns = np.nonzero(presence)
    assert rows.tolist() == [0, 1, 3]
    assert [labels[c] for c in columns] == ["ay", "s", "oov"]
    assert "1 phone labels are unknown" in caplog.text
