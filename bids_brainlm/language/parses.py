"""Parse a story with spaCy and tell which tokens belong to which word."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_brainlm.errors import TranscriptError
from bids_brainlm.language.pipelines import Pipeline
from bids_brainlm.language.spans import FoundWords, Span, find_words
from bids_brainlm.records import Word

log = logging.getLogger(__name__)

MIN_SHARE = 0.5  # of the words that a transcript must hold to be the text of these words
LONG_SENTENCE = 100  # tokens; when the mean is longer, sentence borders were not found
LONE_I = re.compile(r"(?<!\w)i(?!\w)")


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token as spaCy sees it.

    Attributes
    ----------
    text : str
        As in the text.
    lemma : str or None
        None where the pipeline gives none.
    pos, tag, dep : str
        Universal part of speech, fine tag (may be empty), dependency to the head.
    head : int
        Number of the head in the list of tokens; a root is its own head.
    distance : int
        Tokens from here to the head, punctuation counted; 0 for a root.
    distance_without_punctuation : int
        The same without the punctuation in between; 0 for a root.
    sentence : int
        Number of the sentence, from 0.
    word : int or None
        The word that it belongs to; None for punctuation between words and for text that is
        nobody's.
    is_punctuation : bool
        Whether the part of speech is PUNCT.
    """

    text: str
    lemma: str | None
    pos: str
    tag: str
    dep: str
    head: int
    distance: int
    distance_without_punctuation: int
    sentence: int
    word: int | None
    is_punctuation: bool


@dataclass(frozen=True)
class Parse:
    """The parse of a story.

    Attributes
    ----------
    tokens : tuple of ParsedToken
        In order of the text, punctuation included.
    text_source : str
        ``transcript``, or ``words`` where these, joined by spaces, were parsed.
    n_sentences : int
        Sentences of the text.
    n_words_missing : int
        Words that are not in the transcript; they have no tokens.
    n_words_different : int
        Words that the transcript spells differently.
    n_words_merged : int
        Words without a token of their own, since theirs ends in the next word (``U S`` in
        ``U.S.``).
    n_extra : int
        Runs of letters and digits in the transcript that belong to no word.
    """

    tokens: tuple[ParsedToken, ...]
    text_source: str
    n_sentences: int
    n_words_missing: int
    n_words_different: int
    n_words_merged: int
    n_extra: int


def parse(pipeline: Pipeline, words: Sequence[Word], text: str | None = None) -> Parse:
    """Parse a story and tell which tokens belong to which word.

    Parameters
    ----------
    pipeline : Pipeline
        From `pipelines.load`.
    words : sequence of Word
        In the order in which they were spoken.
    text : str, optional
        The punctuated transcript, where there is one.

    Returns
    -------
    Parse

    Raises
    ------
    TranscriptError
        The text is longer than the pipeline takes.

    Notes
    -----
    The transcript is parsed as one document, white space being single spaces, since without
    punctuation sentences run together and parses suffer. Words are found in it by `spans.
    find_words`. Where it is empty, or holds less than half of the words, the words joined by
    spaces are parsed instead. Text without a single small letter is parsed in small letters,
    with ``I``, since taggers take capitals for names.

    A token belongs to the last word of which it has a character: then all of it was heard.
    Distances are counted in spaCy's tokens, as in the paper.
    """
    given = [" ".join(word.text.split()) for word in words]
    clean = " ".join((text or "").split())
    found, source = None, "transcript"
    if clean and given:
        found = find_words(given, clean)
        n_found = len(given) - found.n_missing
        if n_found < MIN_SHARE * len(given):
            log.warning(
                "The transcript's text holds %d of %d words, so the words are parsed without it.",
                n_found,
                len(given),
            )
            found = None
    if found is None:
        clean, found, source = *_joined(given), "words"
    limit = int(pipeline.nlp.max_length)
    if len(clean) > limit:
        raise TranscriptError(
            f"the text has {len(clean)} characters, expected at most {limit}, which the spaCy "
            f"pipeline {pipeline.name} takes.",
            hint="Cut the audio and its transcript into parts with --transcripts.",
        )
    document = pipeline.nlp(_small_letters(clean))
    owners, n_merged = _owners(document, found.spans)
    tokens = _tokens(document, clean, owners, pipeline.has_lemmas)
    n_sentences = tokens[-1].sentence + 1 if tokens else 0
    if len(tokens) > LONG_SENTENCE * n_sentences:
        log.warning(
            "spaCy pipeline %s: sentences found: %d in %d tokens, so long distances mean little.",
            pipeline.name,
            n_sentences,
            len(tokens),
        )
    return Parse(
        tokens,
        source,
        n_sentences,
        found.n_missing,
        found.n_different,
        n_merged,
        found.n_extra,
    )


def _joined(words: Sequence[str]) -> tuple[str, FoundWords]:
    """Join words by spaces and return where each of them is."""
    spans: list[Span | None] = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)) if word else None)
        start += len(word) + 1
    return " ".join(words), FoundWords(tuple(spans), spans.count(None), 0, 0)


def _small_letters(text: str) -> str:
    """Return text in capitals in small letters of the same length, other text as it is."""
    if not text.isupper():
        return text
    small = "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)
    return LONE_I.sub("I", small)


def _owners(document: Any, spans: Sequence[Span | None]) -> tuple[list[int | None], int]:
    """Return the word of each token, and how many words have no token of their own."""
    placed = [(span, word) for word, span in enumerate(spans) if span is not None]
    starts = [span[0] for span, _ in placed]
    owners: list[int | None] = []
    for token in document:
        k = bisect_left(starts, token.idx + len(token.text)) - 1
        is_inside = k >= 0 and placed[k][0][1] > token.idx
        owners.append(placed[k][1] if is_inside else None)
    return owners, len(placed) - len({word for word in owners if word is not None})


def _tokens(
    document: Any, text: str, owners: Sequence[int | None], has_lemmas: bool
) -> tuple[ParsedToken, ...]:
    """Turn a spaCy document into records."""
    is_punctuation = [token.pos_ == "PUNCT" for token in document]
    n_before = np.concatenate([[0], np.cumsum(np.logical_not(is_punctuation))])
    sentences = {
        token.i: number for number, sentence in enumerate(document.sents) for token in sentence
    }
    found = []
    for token in document:
        head = token.head.i
        low, high = min(token.i, head), max(token.i, head)
        n_between = int(n_before[high] - n_before[low + 1]) if low < high else -1
        found.append(
            ParsedToken(
                text[token.idx : token.idx + len(token.text)],
                token.lemma_ if has_lemmas else None,
                token.pos_,
                token.tag_,
                token.dep_,
                head,
                high - low,
                n_between + 1,
                sentences[token.i],
                owners[token.i],
                is_punctuation[token.i],
            )
        )
    return tuple(found)
