"""Words in texts, tokens of words, and counts for each TR, checked by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from bids_brainlm.errors import DataError, TranscriptError
from bids_brainlm.language import linguistic
from bids_brainlm.language.pipelines import Pipeline
from bids_brainlm.language.spans import find_words
from bids_brainlm.records import Word

ENGLISH = spacy.blank("en")
QUICK = settings(max_examples=150, deadline=None)
TEXT = "The dog’s owner didn't run, so we left.  She (too) cried!"
WORDS = ["The", "dog's", "owner", "didn’t", "run", "so", "we", "left", "She", "too", "cried"]
# token, head, dep, pos, word
PARSED = [
    ("The", 1, "det", "DET", 0),
    ("dog", 3, "poss", "NOUN", 1),
    ("’s", 1, "case", "PART", 1),
    ("owner", 6, "nsubj", "NOUN", 2),
    ("did", 6, "aux", "AUX", 3),
    ("n't", 6, "neg", "PART", 3),
    ("run", 10, "ccomp", "VERB", 4),
    (",", 10, "punct", "PUNCT", None),
    ("so", 10, "advmod", "ADV", 5),
    ("we", 10, "nsubj", "PRON", 6),
    ("left", 10, "ROOT", "VERB", 7),
    (".", 10, "punct", "PUNCT", None),
    ("She", 16, "nsubj", "PRON", 8),
    ("(", 14, "punct", "PUNCT", None),
    ("too", 16, "advmod", "ADV", 9),
    (")", 14, "punct", "PUNCT", None),
    ("cried", 16, "ROOT", "VERB", 10),
    ("!", 16, "punct", "PUNCT", None),
]


class Annotator:
    """English tokens with annotation by hand; by default all hang on the first one."""

    max_length = 1000

    def __init__(self, heads=None, deps=None, pos=None):
        self.heads, self.deps, self.pos = heads, deps, pos

    def __call__(self, text):
        plain = ENGLISH.make_doc(text)
        n_tokens = len(plain)
        if n_tokens == 0:
            return plain
        return Doc(
            ENGLISH.vocab,
            words=[token.text for token in plain],
            spaces=[bool(token.whitespace_) for token in plain],
            heads=self.heads or [0] * n_tokens,
            deps=self.deps or ["ROOT"] + ["dep"] * (n_tokens - 1),
            pos=self.pos or ["PUNCT" if token.is_punct else "NOUN" for token in plain],
        )


def pipeline_of(annotator, **changes):
    made = Pipeline(
        annotator, "en_by_hand", "1", spacy.__version__, "", False, False, MappingProxyType({})
    )
    return replace(made, **changes)


def words_of(*texts):
    return [Word(text, float(i), i + 0.5) for i, text in enumerate(texts)]


BY_HAND = pipeline_of(
    Annotator([p[1] for p in PARSED], [p[2] for p in PARSED], [p[3] for p in PARSED])
)
PLAIN = pipeline_of(Annotator())


def parsed_by_hand():
    return linguistic.parse(BY_HAND, words_of(*WORDS), TEXT)


# --- the lists -------------------------------------------------------------------------------


def test_the_labels_are_those_of_the_paper_in_order():
    deps = (
        "nsubj ROOT advmod prep det pobj aux dobj cc ccomp amod compound acomp poss xcomp conj "
        "relcl attr mark npadvmod advcl neg prt nummod intj"
    )
    pos = "PRON VERB NOUN DET AUX ADP ADV CCONJ ADJ PART PROPN SCONJ NUM INTJ"
    assert list(linguistic.labels()) == (deps + " " + pos).split()
    assert len(set(linguistic.labels())) == 39
    assert linguistic.labels()[:25] == linguistic.dependency_labels()
    assert linguistic.labels()[25:] == linguistic.pos_labels()


# --- tokens of words -------------------------------------------------------------------------


def test_a_parse_by_hand():
    found = parsed_by_hand()
    assert [(t.text, t.head, t.dep, t.pos, t.word) for t in found.tokens] == PARSED
    assert [t.sentence for t in found.tokens] == [0] * 12 + [1] * 6
    assert [t.distance for t in found.tokens] == [
        1, 2, 1, 3, 2, 1, 4, 3, 2, 1, 0, 1, 4, 1, 2, 1, 0, 1,
    ]  # fmt: skip
    by_text = {t.text: t for t in found.tokens}
    assert by_text["run"].distance_without_punctuation == 3  # so, we, left
    assert by_text["She"].distance_without_punctuation == 2  # too, cried
    assert by_text["too"].distance_without_punctuation == 1
    assert by_text["left"].distance_without_punctuation == 0
    assert by_text["owner"].distance_without_punctuation == 3
    assert found.text_source == "transcript"
    assert found.n_sentences == 2
    counts = found.n_words_missing, found.n_words_different, found.n_words_merged, found.n_extra
    assert counts == (0, 0, 0, 0)
    assert {t.lemma for t in found.tokens} == {None}


def test_lemmas_are_kept_where_there_are_any():
    found = linguistic.parse(replace(BY_HAND, has_lemmas=True), words_of(*WORDS), TEXT)
    assert {t.lemma for t in found.tokens} == {""}  # what the hand-made document holds


def test_without_text_the_words_are_parsed():
    for text in (None, "", " \n"):
        found = linguistic.parse(PLAIN, words_of("Hm,", "don’t", "50%"), text)
        assert found.text_source == "words"
        assert [(t.text, t.word) for t in found.tokens] == [
            ("Hm", 0), (",", 0), ("do", 1), ("n’t", 1), ("50", 2), ("%", 2),
        ]  # fmt: skip


def test_another_text_is_not_taken(caplog):
    found = linguistic.parse(PLAIN, words_of("we", "left", "them"), "Nobody was at home.")
    assert found.text_source == "words"
    assert found.n_words_missing == 0
    assert "0 of 3 words" in caplog.text


def test_capitals_are_parsed_in_small_letters_but_shown_as_they_are():
    seen = []

    def annotate(text):
        seen.append(text)
        return Annotator()(text)

    annotate.max_length = 100
    found = linguistic.parse(pipeline_of(annotate), words_of("I", "SAID", "I'M", "İN", "I"))
    assert seen == ["I said I'm İn I"]  # the small İ would be two letters long
    assert [t.text for t in found.tokens] == ["I", "SAID", "I", "'M", "İN", "I"]
    linguistic.parse(pipeline_of(annotate), words_of("NASA", "rose"))
    assert seen[1] == "NASA rose"


def test_words_that_share_a_token():
    found = linguistic.parse(PLAIN, words_of("the", "U", "S", "mail"), "the U.S. mail")
    assert [(t.text, t.word) for t in found.tokens] == [("the", 0), ("U.S.", 2), ("mail", 3)]
    assert (found.n_words_merged, found.n_words_missing) == (1, 0)


def test_no_words_and_too_long_a_text():
    assert linguistic.parse(PLAIN, []).tokens == ()
    assert linguistic.parse(PLAIN, [], "Some text.").tokens == ()
    with pytest.raises(TranscriptError, match="1010 characters, expected at most 1000"):
        linguistic.parse(PLAIN, words_of("we"), ("we " * 337)[:1010])


def test_long_transcripts():
    """10,000 words with repeats, some lost and some added, within seconds."""
    rng = np.random.default_rng(4)
    spoken = rng.choice(
        ["the", "a", "dog", "cat", *(f"w{i}" for i in range(600))],
        10_000,
        p=[0.05, 0.05, 0.05, 0.05, *[0.8 / 600] * 600],
    ).tolist()
    text = ". ".join(f"{word}, um" if i % 50 == 0 else word for i, word in enumerate(spoken))
    asked = [word for i, word in enumerate(spoken) if i % 70]
    found = find_words(asked, text)
    assert found.n_missing == 0
    assert found.n_extra == 200 + len(spoken) - len(asked)
    assert all(text[a:b] == w for w, (a, b) in zip(asked, found.spans, strict=True))


# --- words in texts --------------------------------------------------------------------------


def strings_of(words, text):
    found = find_words(words, text)
    return [None if span is None else text[span[0] : span[1]] for span in found.spans], found


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["I'm", "5", "Don't"], "“I’m—5!” Don‘t", ["I’m", "5", "Don‘t"]),
        (["wait", "wait", "wait"], "Wait... wait—WAIT", ["Wait", "wait", "WAIT"]),
        (["email", "me"], "E-mail me", ["E-mail", "me"]),
        (["e", "mail", "me"], "Email me", ["E", "mail", "me"]),
        (["gon", "na", "go"], "(gonna) go", ["gon", "na", "go"]),
        (["all", "right", "so"], "alright, so", [None, None, "so"]),
        (["five", "men"], "5 men", ["5", "men"]),
        (["café", "re\u0301sume\u0301"], "Cafe\u0301, résumé", ["Cafe", "résumé"]),
        (["$5", "50%", "goin'", "x"], "$5? 50% goin’ x", ["$5", "50%", "goin’", "x"]),
        (["R", "&", "B"], "R & B", ["R", "&", "B"]),
        (["R", "&", "B"], "R and B", ["R", None, "B"]),
        (["...", "so"], "so", [None, "so"]),
        (["a", "b"], "", [None, None]),
        ([], "a b", []),
        (["ice", "cream"], "ice\u00adcream \n", ["ice", "cream"]),
        (["straße", "ΣΑΣ"], "STRASSE σας", ["STRASSE", "σας"]),
        (["well,", "(yes)"], "Well — yes)", ["Well", "yes)"]),
    ],
)
def test_words_are_found_in_texts(words, text, expected):
    found, record = strings_of(words, text)
    assert found == expected
    assert record.n_missing == expected.count(None)


def test_counts_of_what_does_not_fit():
    words = ["so", "um", "five", "of", "us", "really", "left"]
    found, record = strings_of(words, "So 5 of us, the men, left. Applause")
    assert found == ["So", None, None, "of", "us", None, "left"]
    assert (record.n_missing, record.n_different, record.n_extra) == (3, 0, 4)
    found, record = strings_of(["a", "five", "b"], "a 5 b")
    assert (found, record.n_different, record.n_extra) == (["a", "5", "b"], 1, 0)


CORE = st.text("abAB1éZ’'", min_size=1, max_size=4).filter(lambda w: any(c.isalnum() for c in w))
BEFORE = st.sampled_from(["", "“", "(", "‘", "¿", "- ", "[", "«"])
AFTER = st.sampled_from(
    [" ", ", ", ". ", "” ", "...", "—", "! ", "’ ", " - ", "\n\n", "…", ") ", "%/"]
)


@QUICK
@given(st.lists(st.tuples(BEFORE, CORE, AFTER), max_size=12), st.data())
def test_punctuation_quotes_and_case_make_no_difference(pieces, data):
    """Exactly the characters of each word are found, however often words are repeated."""
    text, words, expected = "", [], []
    for before, word, after in pieces:
        shown = re.sub("[’']", lambda _: data.draw(st.sampled_from("’'‘")), word)
        shown = shown.swapcase() if data.draw(st.booleans()) else shown
        text += before
        expected.append((len(text), len(text) + len(shown)))
        text += shown + after
        words.append(word)
    found = find_words(words, text)
    assert found.spans == tuple(expected)
    assert (found.n_missing, found.n_different, found.n_extra) == (0, 0, 0)


@QUICK
@given(st.lists(st.sampled_from(["both", "word", "text"]), max_size=25))
def test_lost_and_added_words_do_not_move_the_others(kinds):
    """With words of which no two are equal, all that stand in both are found where they are."""
    words, text, expected = [], "", {}
    for i, kind in enumerate(kinds):
        if kind != "text":
            words.append(f"w{i}")
        if kind != "word":
            if kind == "both":
                expected[len(words) - 1] = (len(text), len(text) + len(f"w{i}"))
            text += f"w{i}, "
    found = find_words(words, text)
    assert {i: found.spans[i] for i in expected} == expected
    others = [span for i, span in enumerate(found.spans) if i not in expected]
    assert found.n_different == sum(span is not None for span in others)
    assert found.n_missing == others.count(None)
    assert found.n_extra == kinds.count("text") - found.n_different


@QUICK
@given(
    st.lists(st.text("abcA’'-—.,%$é1ßﬁ漢", min_size=1, max_size=6), max_size=10),
    st.text("abcA’'-—.,%$é1ßﬁ漢 \n", max_size=60),
)
def test_spans_are_in_order_whatever_the_text(words, text):
    found = find_words(words, text)
    spans = [span for span in found.spans if span is not None]
    ends = [0] + [end for _, end in spans]
    assert all(last <= start < end for last, (start, end) in zip(ends, spans, strict=False))
    assert ends[-1] <= len(text)
    assert found.n_missing == found.spans.count(None)


@QUICK
@given(st.lists(st.text("abcA’'-—.,%$é1I ", min_size=1, max_size=8), max_size=12))
def test_joined_words_have_tokens_of_their_own(texts):
    """Without a text, every word has a token and every token is one word's."""
    words = [Word(" ".join(text.split()), 0.0, 1.0) for text in texts if text.split()]
    found = linguistic.parse(pipeline_of(Annotator()), words)
    owners = [token.word for token in found.tokens]
    assert owners == sorted(owners)
    assert set(owners) == set(range(len(words)))
    assert found.n_words_merged == 0
    for i, word in enumerate(words):
        own = "".join(token.text for token in found.tokens if token.word == i)
        assert own == word.text.replace(" ", "")


@QUICK
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "don’t",
                    "U",
                    "S",
                    "dog's",
                    "we",
                    "e",
                    "mail",
                    "a-a",
                    "Mr",
                    "o'clock",
                    "3",
                    "goin’",
                ]
            ),
            st.sampled_from([" ", ". ", ".", "-", "—", ", ", "’ ", "…"]),
        ),
        max_size=12,
    )
)
def test_words_of_a_text_have_tokens_or_share_one(pieces):
    words = words_of(*(word for word, _ in pieces))
    text = "".join(word + after for word, after in pieces)
    found = linguistic.parse(pipeline_of(Annotator()), words, text)
    owners = [token.word for token in found.tokens if token.word is not None]
    assert owners == sorted(owners)
    assert len(set(owners)) + found.n_words_merged + found.n_words_missing == len(words)
    if found.text_source == "transcript":
        nobodys = "".join(token.text for token in found.tokens if token.word is None)
        assert not any(sign.isalnum() for sign in nobodys) or found.n_extra


# --- rows ------------------------------------------------------------------------------------

ROWS = np.array([0, 0, 0, 2, 2, 2, 2, 3, -1, 3, 3])  # of WORDS; row 1 is silent


def column(found, label):
    return found.counts[:, found.labels.index(label)].tolist()


def test_counts_by_hand():
    tokens = parsed_by_hand().tokens
    found = linguistic.features(tokens, ROWS, 5, possible={"dep": ("det",), "pos": ("DET",)})
    assert found.counts.shape == found.indicators.shape == (5, 39)
    expected = {
        "det": [1, 0, 0, 0, 0],
        "poss": [1, 0, 0, 0, 0],
        "nsubj": [1, 0, 1, 0, 0],
        "aux": [0, 0, 1, 0, 0],
        "neg": [0, 0, 1, 0, 0],
        "ccomp": [0, 0, 1, 0, 0],
        "advmod": [0, 0, 1, 1, 0],
        "ROOT": [0, 0, 0, 2, 0],
        "DET": [1, 0, 0, 0, 0],
        "NOUN": [2, 0, 0, 0, 0],
        "PART": [1, 0, 1, 0, 0],
        "AUX": [0, 0, 1, 0, 0],
        "VERB": [0, 0, 1, 2, 0],
        "ADV": [0, 0, 1, 1, 0],
        "PRON": [0, 0, 1, 0, 0],
    }
    for label in found.labels:
        assert column(found, label) == expected.get(label, [0] * 5), label
    assert (found.indicators == (found.counts > 0)).all()
    assert found.n_tokens.tolist() == [4, 0, 5, 3, 0]
    assert (found.n_outside, found.n_wordless) == (1, 5)
    assert found.other_dependencies == {"case": 1}
    assert found.other_pos == {}
    assert len(found.impossible) == 39 - 3  # ROOT is always possible
    assert not {"det", "DET", "ROOT"} & set(found.impossible)


def test_distances_by_hand():
    found = linguistic.features(parsed_by_hand().tokens, ROWS, 5)
    # row 0: The 1, dog 2, 's 1, owner 3; row 2: did 2, n't 1, run 4, so 2, we 1; row 3: too 2
    np.testing.assert_allclose(found.distances, [7 / 4, np.nan, 10 / 5, 2, np.nan])
    assert found.label_distances.shape == (5, 25)
    nsubj = found.label_distances[:, found.labels.index("nsubj")]
    np.testing.assert_array_equal(nsubj, [3, np.nan, 1, np.nan, np.nan])
    root = found.label_distances[:, found.labels.index("ROOT")]
    np.testing.assert_array_equal(root, [np.nan, np.nan, np.nan, 0, np.nan])
    table = {item.label: item for item in found.by_label}
    assert tuple(table) == linguistic.dependency_labels()
    assert (table["nsubj"].n_tokens, table["nsubj"].mean) == (2, 2.0)
    assert (table["ccomp"].mean, table["ccomp"].mean_without_punctuation) == (4.0, 3.0)
    assert (table["advmod"].mean, table["advmod"].mean_without_punctuation) == (2.0, 1.5)
    assert table["pobj"].n_tokens == 0
    assert math.isnan(table["pobj"].mean)
    assert math.isnan(table["pobj"].mean_without_punctuation)


def test_labels_that_are_no_columns_are_told():
    deps, pos = ["nsubjpass", "ROOT", "dobj"], ["SYM", "VERB", "NOUN"]
    pipeline = pipeline_of(Annotator([1, 1, 1], deps, pos))
    tokens = linguistic.parse(pipeline, words_of("x", "is", "y")).tokens
    found = linguistic.features(tokens, np.array([0, 0, 1]), 2)
    assert found.other_dependencies == {"nsubjpass": 1}
    assert found.other_pos == {"SYM": 1}
    assert found.counts[:, :25].sum() == 2
    assert found.counts[:, 25:].sum() == 2
    assert found.distances.tolist() == [1, 1]


@QUICK
@given(st.lists(st.integers(-1, 6), min_size=11, max_size=11))
def test_every_token_counts_once(rows):
    tokens = parsed_by_hand().tokens
    found = linguistic.features(tokens, np.array(rows), 7)
    assert found.n_tokens.sum() + found.n_outside + found.n_wordless == len(tokens)
    n_others = sum(found.other_dependencies.values())
    assert found.counts[:, :25].sum() + n_others == found.n_tokens.sum()
    assert found.counts[:, 25:].sum() + sum(found.other_pos.values()) == found.n_tokens.sum()
    n_heads = [
        sum(p[2] != "ROOT" and p[4] is not None and rows[p[4]] == row for p in PARSED)
        for row in range(7)
    ]
    assert (np.isnan(found.distances) == (np.array(n_heads) == 0)).all()


def test_rows_that_do_not_fit():
    tokens = parsed_by_hand().tokens
    with pytest.raises(DataError, match="11 words"):
        linguistic.features(tokens, ROWS[:10], 5)
    with pytest.raises(DataError, match="expected -1 to 2 for 3 TRs"):
        linguistic.features(tokens, ROWS, 3)
    with pytest.raises(DataError, match="found -2"):
        linguistic.features(tokens, np.where(ROWS < 0, -2, ROWS), 5)
    nothing = linguistic.features((), np.array([], dtype=int), 3)
    assert nothing.counts.sum() == 0
    assert np.isnan(nothing.distances).all()
