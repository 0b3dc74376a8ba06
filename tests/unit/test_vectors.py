"""Static word vectors: every format, how words are looked up, and every way a file is wrong."""

from __future__ import annotations

import gzip
import hashlib
import re
import tracemalloc

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import ConfigError, DataError, MissingInputError
from bids_brainlm.language import pipelines, vectors
from bids_brainlm.language.vector_files import sniff

TABLE = {
    "the": [1.0, 0.0, -1.0],
    "dog": [0.5, 2.0, 0.25],
    "'s": [0.0, 1.0, 0.0],
    "n't": [0.0, 0.0, 4.0],
    "do": [2.0, 2.0, 2.0],
    "Bill": [3.0, 0.0, 0.0],
    "bill": [0.0, 3.0, 0.0],
    "it's": [7.0, 7.0, 7.0],
    "s": [9.0, 9.0, 9.0],
    "well": [1.0, 1.0, 0.0],
    "known": [0.0, 1.0, 1.0],
    "naïve": [0.125, 0.25, 0.5],
}


def text_of(table, header=False):
    lines = [" ".join([word, *(f"{x:g}" for x in row)]) for word, row in table.items()]
    sizes = [f"{len(table)} {len(next(iter(table.values())))}"] if header else []
    return ("\n".join(sizes + lines) + "\n").encode()


def binary_of(table, newline=b"\n"):
    sizes = f"{len(table)} {len(next(iter(table.values())))}\n".encode()
    rows = [
        word.encode() + b" " + np.asarray(row, "<f4").tobytes() + newline
        for word, row in table.items()
    ]
    return sizes + b"".join(rows)


FILES = {
    "glove.txt": ("glove", text_of(TABLE)),
    "w2v.txt": ("word2vec", text_of(TABLE, header=True)),
    "crawl.vec": ("word2vec", text_of(TABLE, header=True).replace(b"\n", b" \n")),
    "news.bin": ("word2vec-binary", binary_of(TABLE)),
    "gensim.bin": ("word2vec-binary", binary_of(TABLE, newline=b"")),
    "windows.txt": ("glove", text_of(TABLE).replace(b"\n", b"\r\n")),
    "marked.vec": ("word2vec", b"\xef\xbb\xbf" + text_of(TABLE, header=True)),
    "text": ("word2vec", text_of(TABLE, header=True)),
    "binary": ("word2vec-binary", binary_of(TABLE)),
    "no_end.txt": ("glove", text_of(TABLE).rstrip()),
    "blank.txt": ("glove", text_of(TABLE) + b"\n\n"),
}


@pytest.fixture
def file(tmp_path):
    """Return a maker of a file with vectors."""

    def make(data, name="made.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


@pytest.fixture
def known(file):
    def make(*words):
        return vectors.from_file(file(text_of(TABLE)), words)

    return make


@pytest.mark.parametrize("is_gzipped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same(name, is_gzipped, file):
    file_format, data = FILES[name]
    data = gzip.compress(data) if is_gzipped else data
    path = file(data, name + ".gz" if is_gzipped else name)
    assert sniff(path) == file_format
    words = [*TABLE, "the", "xyzzy"]
    found = vectors.from_file(path, words)
    assert (found.file_format, found.n_dims) == (file_format, 3)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.label == re.sub(r"\W|_", "", name.split(".")[0])
    for word, row in TABLE.items():
        assert found.table[word].dtype == np.float32
        np.testing.assert_array_equal(found.table[word], np.float32(row))
    assert found.out_of_vocabulary == {"xyzzy": 1}
    assert found.n_words == 14
    assert found.share_covered == pytest.approx(13 / 14)
    again = vectors.from_file(path, words, file_format=file_format, label="mine")
    assert again.label == "mine"
    np.testing.assert_array_equal(again.table["dog"], found.table["dog"])


def mean(*words):
    return np.mean([TABLE[word] for word in words], axis=0).astype(np.float32)


@pytest.mark.parametrize(
    ("word", "of"),
    [
        ("the", ["the"]),
        ("THE", ["the"]),
        ("“The,”", ["the"]),
        ("Bill", ["Bill"]),
        ("BILL", ["bill"]),
        ("bill", ["bill"]),
        ("‘Bill’", ["Bill"]),
        ("It’s", ["it's"]),
        ("(it’s)", ["it's"]),
        ("dog's", ["dog", "'s"]),
        ("Dog’s!", ["dog", "'s"]),
        ("don’t", ["do", "n't"]),
        ("the're", ["the"]),
        ("well-known", ["well", "known"]),
        ("Well — known", ["well", "known"]),
        ("well-xyzzy", ["well"]),
        ("dog's-well", None),
        ("naïve", ["naïve"]),
    ],
)
def test_how_words_are_looked_up(word, of, known):
    expected = mean(*of) if of else (mean("dog", "'s") + mean("well")) / 2
    np.testing.assert_allclose(known(word).table[word], expected, rtol=1e-6)


@pytest.mark.parametrize("word", ["", "...", "xyzzy", "xyzzy's", "can’t", "naive", "-", "'", "’d"])
def test_words_without_a_vector(word, known):
    found = known(word, word, "dog")
    assert set(found.table) == {"dog"}
    assert found.out_of_vocabulary == {word: 2}
    assert found.share_covered == pytest.approx(1 / 3)


def test_the_most_frequent_unknown_words_come_first_and_tables_are_frozen(known):
    found = known("b", "a", "c", "a", "c", "a", "the")
    assert list(found.out_of_vocabulary.items()) == [("a", 3), ("c", 2), ("b", 1)]
    with pytest.raises(TypeError):
        found.table["b"] = 0
    with pytest.raises(ValueError, match="read-only"):
        found.table["the"][0] = 0
    nothing = known()
    assert (nothing.n_words, nothing.share_covered) == (0, 0.0)


def test_the_first_of_two_counts(file):
    path = file(b"a 1 2\nb 3 4\na 5 6\n")
    np.testing.assert_array_equal(vectors.from_file(path, ["a"]).table["a"], [1, 2])


def test_words_with_spaces_as_in_glove_840b(file):
    path = file(b"the 1 2\n. . . 3 4\nat name@domain.com 5 6\nb 7 8\n")
    found = vectors.from_file(path, ["the", ". . .", "at name@domain.com", "b", "at"])
    np.testing.assert_array_equal(found.table[". . ."], [3, 4])
    np.testing.assert_array_equal(found.table["at name@domain.com"], [5, 6])
    assert found.out_of_vocabulary == {"at": 1}


def test_words_that_look_like_numbers_and_other_white_space(file):
    path = file("nan 1 2\n50 3 4\na\u00a0b 5 6\n\u0085 7 8\n 9 9\n".encode())
    found = vectors.from_file(path, ["nan", "50", "a\u00a0b", "\u0085"])
    assert found.share_covered == 1
    np.testing.assert_array_equal(found.table["a\u00a0b"], [5, 6])


# --- means of TRs ----------------------------------------------------------------------------


def test_means_by_hand(known):
    found = known("the", "dog", "Dog", "xyzzy")
    rows = [["the", "dog"], [], ["xyzzy"], ["xyzzy", "the"], ["dog", "Dog", "the"]]
    features = vectors.static_features(rows, found)
    assert features.dtype == np.float32
    the, dog = np.array(TABLE["the"]), np.array(TABLE["dog"])
    empty = np.full(3, np.nan)
    expected = [(the + dog) / 2, empty, empty, the, (2 * dog + the) / 3]
    np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_words_that_were_never_looked_up(known):
    with pytest.raises(DataError, match=r"row 1: .*'dog'"):
        vectors.static_features([["the"], ["dog"]], known("the"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*TABLE, "x", "y"]), max_size=5), max_size=6))
def test_unknown_words_change_nothing(rows):
    table = {word: np.float32(row) for word, row in TABLE.items()}
    found = vectors.Vectors("made", "glove", 3, table, "", 1, {"x": 1, "y": 1}, 0.5)
    kept = [[word for word in words if word in TABLE] for words in rows]
    with_unknown = vectors.static_features(rows, found)
    np.testing.assert_array_equal(with_unknown, vectors.static_features(kept, found))
    assert with_unknown.shape == (len(rows), 3)
    assert (np.isnan(with_unknown).all(axis=1) == [not words for words in kept]).all()


# --- files that are wrong --------------------------------------------------------------------

WRONG = {
    "short": (b"a 1 2 3\nb 1 2\n", "line 2: found 2 numbers after 'b', expected 3"),
    "long": (b"a 1 2 3\nb 1 2 3 4\n", "line 2: found 4 numbers after 'b', expected 3"),
    "no numbers": (b"a 1 2\nb\n", "line 2: found 0 numbers after 'b', expected 2"),
    "text": (b"Once upon a time\n", "line 1: found 3 fields .*'upon'; expected 3 numbers"),
    "one word": (b"word\n", "line 1: found 0 fields after the word; expected one or more"),
    "letters": (b"a 1 2\ndog 1 x\n", "line 2: found 2 fields .*'x'; expected 2 numbers"),
    "nan": (b"a 1 2\ndog 1 nan\n", "line 2: number 2 of the vector is nan, expected 2 finite"),
    "infinite": (b"dog -inf 2\n", "line 1: number 1 of the vector is -inf"),
    "overflow": (b"dog 1e39 2\n", "line 1: number 1 of the vector is 1e.39"),
    "nul": (b"a 1 2\nb 1 \x002\n", "line 2: found a NUL byte"),
    "empty": (b"", "no vectors"),
    "blank": (b"\n\n", "no vectors"),
    "too few": (b"3 2\na 1 2\ndog 3 4\n", "found 2 vectors, expected 3, which line 1 states"),
    "too many": (b"1 2\na 1 2\ndog 3 4\n", "found 2 vectors, expected 1, which line 1 states"),
    "sizes": (b"2 3\na 1 2\nb 1 2\n", "line 2: found 2 fields after the word; expected 3"),
    "no sizes": (b"0 0\n", "line 1: found 0 dimensions, expected 1 to"),
    "many sizes": (b"1 999999\na 1\n", "line 1: found 999999 dimensions"),
    "zip": (b"PK\x03\x04....", "zip archive"),
    "pickle": (b"\x80\x04\x95....", "pickle"),
    "fasttext": (b"\xba\x16\x4f\x2f\x0c....", "fastText model"),
    "cut gzip": (gzip.compress(text_of(TABLE) * 50)[:-20], "cannot be read"),
    "damaged gzip": (b"\x1f\x8b\x08\x00aaaaaaaaaaaaaaaaaaaaaaaa", "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text_files_are_named_with_their_line(name, file):
    data, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        vectors.from_file(file(data), ["dog"])
    assert "made.txt" in caught.value.message


def test_a_vector_that_no_one_needs_may_be_anything(file):
    assert vectors.from_file(file(b"a 1 2\nb nan x\n"), ["a"]).share_covered == 1


def test_a_line_without_end_is_not_read_whole(file):
    path = file(b"a 1 2\nb " + b"1" * (2**21))
    with pytest.raises(DataError, match="line 2: found more than 2097152 bytes"):
        vectors.from_file(path, ["dog"])


BINARY = binary_of({"a": [1.0, 2.0], "dog": [3.0, 4.0]}, newline=b"")
WRONG_BINARY = {
    "cut vector": (BINARY[:-3], "word 2 of 2: found 5 bytes of its vector, expected a word and 8"),
    "cut word": (BINARY[:-10], "word 2 of 2: found no end of the word"),
    "cut after one": (BINARY[:14], "word 2 of 2: found no end of the word"),
    "more": (BINARY + b"x", "more bytes behind word 2"),
    "nan": (binary_of({"dog": [1.0, np.nan]}), "word 1: number 2 of the vector is nan"),
    "no header": (b"a" * 80, "line 1: found 'a"),
    "endless word": (b"1 2\n" + b"a" * 2**17, "word 1 of 1: found no end of the word"),
    "nothing": (b"0 2\n", "no vectors"),
}


@pytest.mark.parametrize("name", WRONG_BINARY)
def test_wrong_binary_files_are_named_with_their_word(name, file):
    data, message = WRONG_BINARY[name]
    with pytest.raises(DataError, match=message):
        vectors.from_file(file(data), ["dog"], file_format="word2vec-binary")


def test_what_the_caller_gets_wrong(tmp_path, file):
    with pytest.raises(MissingInputError) as caught:
        vectors.from_file(tmp_path / "gone.txt", ["a"])
    assert caught.value.exit_code == 66
    with pytest.raises(ConfigError, match="'glov'"):
        vectors.from_file(file(b"a 1\n"), ["a"], file_format="glov")
    with pytest.raises(ConfigError, match="'a b'"):
        vectors.from_file(file(b"a 1\n"), ["a"], label="a b")


def test_records_across_chunks(file, rng, monkeypatch):
    """Words and vectors that are split by the size of a chunk are whole."""
    table = {f"w{i}" * (1 + i % 5): rng.normal(size=7).tolist() for i in range(60)}
    path = file(binary_of(table), "chunks.bin")
    for size in (1, 5, 64, 1000):
        monkeypatch.setattr("bids_brainlm.language.vector_files.CHUNK", size)
        found = vectors.from_file(path, list(table))
        assert found.share_covered == 1
        for word, row in table.items():
            np.testing.assert_array_equal(found.table[word], np.float32(row))


@pytest.mark.parametrize("name", ["big.txt", "big.bin", "big.txt.gz"])
def test_only_what_is_needed_is_held(name, file):
    """A file of 24 MB (all in memory: 40 MB or more) takes less than 6 MB."""
    row = np.linspace(-1, 1, 300)
    if name.endswith(".bin"):
        data = row.astype("<f4").tobytes()
        content = b"20000 300\n" + b"".join(b"w%d " % i + data for i in range(20_000))
    else:
        line = " ".join(f"{x:g}" for x in row[:250]).encode()
        content = b"".join(b"w%d " % i + line + b"\n" for i in range(12_000))
    path = file(gzip.compress(content, 1) if name.endswith(".gz") else content, name)
    n_bytes = len(content)
    del content
    tracemalloc.start()
    try:
        found = vectors.from_file(path, [f"w{i}" for i in range(0, 12_000, 100)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.share_covered == 1
    assert n_bytes > 20e6
    assert peak < 6e6


# --- spaCy -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Return a pipeline with vectors and nothing else, as ``spacy init vectors`` makes it."""
    nlp = spacy.blank("en")
    for word, row in TABLE.items():
        nlp.vocab.set_vector(word, np.float32(row))
    folder = tmp_path_factory.mktemp("en_made")
    nlp.meta["name"] = "made_md"
    nlp.to_disk(folder)
    return pipelines.load(folder, needs_parse=False)


def test_vectors_of_a_pipeline(pipeline, known):
    assert pipeline.has_vectors
    words = ["the", "Dog’s", "xyzzy", "well-known", "Bill", "BILL", "the"]
    found = vectors.from_pipeline(pipeline, words)
    assert (found.label, found.file_format, found.n_dims) == ("enmademd", "spacy", 3)
    assert found.sha256 == pipeline.sha256
    expected = known(*words)
    assert found.out_of_vocabulary == expected.out_of_vocabulary == {"xyzzy": 1}
    assert list(found.table) == list(expected.table)
    for word, row in expected.table.items():
        np.testing.assert_array_equal(found.table[word], row)


def test_means_are_those_of_spacy_where_all_words_are_known(pipeline):
    words = ["the", "dog", "bill", "well"]
    found = vectors.from_pipeline(pipeline, [*words, "xyzzy"])
    features = vectors.static_features([words, [*words, "xyzzy"]], found)
    np.testing.assert_allclose(features[0], pipeline.nlp(" ".join(words)).vector, rtol=1e-6)
    np.testing.assert_array_equal(features[0], features[1])  # spaCy would average a zero in
    with_unknown = pipeline.nlp(" ".join([*words, "xyzzy"])).vector
    np.testing.assert_allclose(with_unknown, features[0] * 4 / 5, rtol=1e-6)


def test_a_pipeline_with_bad_or_without_vectors(pipeline, shared_data):
    plain = pipelines.load(shared_data / "spacy" / "en_brainlm_test_sm", needs_parse=False)
    with pytest.raises(ConfigError, match="no word vectors"):
        vectors.from_pipeline(plain, ["the"])
    pipeline.nlp.vocab.set_vector("s", np.float32([1, np.nan, 1]))
    with pytest.raises(DataError, match="'s' is not finite"):
        vectors.from_pipeline(pipeline, ["s"])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("glove.840B.300d.txt", "glove840B300d"),
        ("GoogleNews-vectors-negative300.bin.gz", "GoogleNewsvectorsnegative300"),
        ("cc.en.300.VEC.GZ", "ccen300"),
        ("en_core_web_lg", "encoreweblg"),
        ("漢.txt", "vectors"),
    ],
)
def test_labels_from_names(name, label):
    assert vectors.label_of(None, name) == label
    assert vectors.label_of("mine1", name) == "mine1"
