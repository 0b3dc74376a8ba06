"""gensim reads and writes the same files with the same numbers."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest

from bids_brainlm.language import vectors

models = pytest.importorskip(
    "gensim.models", reason="gensim is not installed; the peer of the readers of word vectors"
)
pytestmark = pytest.mark.peer

N_DIMS = 11
WORDS = [
    "the",
    "The",
    "naïve",
    "漢字",
    "can't",
    "it’s",
    "e-mail",
    "3",
    ".",
    "New_York",
    "a\u00a0b",
    *(f"word{i}" for i in range(60)),
]


@pytest.fixture
def theirs(rng):
    """Return vectors as gensim holds them, very small and large numbers among them."""
    made = models.KeyedVectors(vector_size=N_DIMS)
    scale = 10.0 ** rng.integers(-12, 6, size=(len(WORDS), 1))
    made.add_vectors(WORDS, (rng.normal(size=(len(WORDS), N_DIMS)) * scale).astype(np.float32))
    return made


def gensim_reads(path, *, binary=False, no_header=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # gensim leaves files without header open
        return models.KeyedVectors.load_word2vec_format(
            str(path), binary=binary, no_header=no_header
        )


def check(path, file_format, expected, words=tuple(WORDS)):
    found = vectors.from_file(path, words)
    assert (found.file_format, found.n_dims) == (file_format, N_DIMS)
    assert found.share_covered == 1
    for word in words:
        np.testing.assert_array_equal(found.table[word], expected[word])


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "file_format", "is_binary", "has_header"),
    [
        ("w2v.bin", "word2vec-binary", True, True),
        ("w2v.txt", "word2vec", False, True),
        ("glove.txt", "glove", False, False),
        ("any", "word2vec-binary", True, True),
        ("other", "word2vec", False, True),
    ],
)
def test_files_that_gensim_writes(
    name, file_format, is_binary, has_header, ending, theirs, tmp_path
):
    path = tmp_path / (name + ending)
    theirs.save_word2vec_format(str(path), binary=is_binary, write_header=has_header)
    again = gensim_reads(path, binary=is_binary, no_header=not has_header)
    check(path, file_format, again)


def lines_of(theirs, end):
    return [
        f"{word} {' '.join(repr(float(x)) for x in theirs[word])}{end}"
        for word in theirs.key_to_index
    ]


def test_files_as_their_tools_write_them(theirs, tmp_path):
    """Trailing spaces of fastText, and the line ends of word2vec's own program."""
    sizes = f"{len(WORDS)} {N_DIMS}\n"
    crawl = tmp_path / "crawl.vec"
    crawl.write_text(sizes + "".join(lines_of(theirs, " \n")), "utf-8", newline="\n")
    check(crawl, "word2vec", gensim_reads(crawl))
    news = tmp_path / "news.bin.gz"
    rows = [w.encode() + b" " + theirs[w].astype("<f4").tobytes() + b"\n" for w in WORDS]
    with gzip.open(news, "wb") as stream:
        stream.write(sizes.encode() + b"".join(rows))
    check(news, "word2vec-binary", gensim_reads(news, binary=True))
    glove = tmp_path / "glove.6B.txt"
    glove.write_text("".join(lines_of(theirs, "\n")), "utf-8", newline="\n")
    check(glove, "glove", gensim_reads(glove, no_header=True))


def test_means_of_trs(theirs, tmp_path):
    path = tmp_path / "w2v.bin"
    theirs.save_word2vec_format(str(path), binary=True)
    rows = [["the", "The", "naïve"], [], ["word7", "xyzzy"], ["word1"] * 3]
    found = vectors.from_file(path, [word for row in rows for word in row])
    features = vectors.static_features(rows, found)
    for i in (0, 3):
        expected = theirs.get_mean_vector(rows[i], pre_normalize=False)
        np.testing.assert_allclose(features[i], expected, rtol=1e-5)
    assert np.isnan(features[1]).all()
    np.testing.assert_array_equal(features[2], theirs["word7"])
    assert found.out_of_vocabulary == {"xyzzy": 1}
