"""Text windows: which words a model sees for a TR, and which tokens are the TR's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_brainlm.errors import DataError


@dataclass(frozen=True, eq=False)
class Passage:
    """Tokens of one forward pass and whose they are.

    Attributes
    ----------
    ids : int array, shape (n_tokens,)
        Token numbers, special tokens included.
    owners : int array, shape (n_tokens,)
        Row (TR) whose own token it is; -1 for context, special tokens, and tokens that are
        nothing but space.
    special : bool array, shape (n_tokens,)
        True for special tokens.
    n_cut : int
        Tokens of the context that were cut to the model's limit, the oldest ones.
    """

    ids: np.ndarray
    owners: np.ndarray
    special: np.ndarray
    n_cut: int

    @property
    def rows(self) -> np.ndarray:
        """Rows that own tokens here, int, shape (n_rows,), ascending."""
        return np.unique(self.owners[self.owners >= 0])

    @property
    def n_own(self) -> np.ndarray:
        """Own tokens of each of `rows`, int, shape (n_rows,)."""
        return np.unique(self.owners[self.owners >= 0], return_counts=True)[1]

    @property
    def n_context(self) -> np.ndarray:
        """Tokens before the first own one of each of `rows`, special ones not counted."""
        own = np.flatnonzero(self.owners >= 0)
        first = own[np.unique(self.owners[own], return_index=True)[1]]
        return (np.cumsum(~self.special) - ~self.special)[first]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tokenised text.

    Attributes
    ----------
    ids : int array, shape (n_tokens,)
        Token numbers, with the special tokens that the tokenizer adds.
    special : bool array, shape (n_tokens,)
        True for special tokens.
    spans : int array, shape (n_tokens, 2)
        First character of each token, and the one after its last.
    blank : bool array, shape (n_tokens,)
        True for tokens that are nothing but space, and for special ones.
    """

    ids: np.ndarray
    special: np.ndarray
    spans: np.ndarray
    blank: np.ndarray


def window_text(
    row_texts: Sequence[str], row: int, context_trs: int, borders: Sequence[int] = ()
) -> tuple[str, int]:
    """Return the text that the model sees for a row, and where the row's own part begins.

    Parameters
    ----------
    row_texts : sequence of str
        Words of each row; empty where silent.
    row : int
        The current row.
    context_trs : int
        How many rows before the current one belong to the window, silent ones included.
    borders : sequence of int
        Rows at which the context starts anew.

    Returns
    -------
    text : str
        Non-empty texts of the rows joined by single spaces.
    start : int
        First character of the row's own text.

    Examples
    --------
    >>> window_text(["So I", "", "was a"], 2, 20)
    ('So I was a', 5)
    >>> window_text(["So I", "", "was a"], 2, 20, borders=[1])
    ('was a', 0)
    """
    first = max(0, row - context_trs, *(border for border in borders if border <= row))
    before = " ".join(text for text in map(clean, row_texts[first:row]) if text)
    own = clean(row_texts[row])
    return (f"{before} {own}", len(before) + 1) if before and own else (before + own, len(before))


def windows(
    tokenizer: Any,
    row_texts: Sequence[str],
    context_trs: int,
    max_tokens: int | None,
    borders: Sequence[int] = (),
) -> list[Passage]:
    """Tokenise the window of every row that has words.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one (it knows the characters of each token).
    row_texts : sequence of str, length n_trs
        Words of each row; empty where silent.
    context_trs : int
        Previous rows in a window.
    max_tokens : int or None
        The model's limit, special tokens included.
    borders : sequence of int
        Rows at which the context starts anew: a row sees no text from before the last border
        at or before it.

    Returns
    -------
    list of Passage
        One a row, in order of rows; rows without tokens have none.

    Raises
    ------
    DataError
        The tokens of a single row are more than the model takes.

    Notes
    -----
    A token is the row's own if its last character is. So a leading space that a token takes
    in (byte-level BPE) does no harm, no token is counted for two rows, and none is dropped.
    Tokens that are nothing but space are seen by the model and are nobody's own.
    Text that looks like a special token (``[SEP]``) is tokenised as plain text. Too long
    windows lose the oldest tokens of the context.
    """
    found = []
    for row, row_text in enumerate(row_texts):
        if row_text.split():
            text, start = window_text(row_texts, row, context_trs, borders)
            passage = _window(tokenizer, row, (text, start), max_tokens)
            if (passage.owners >= 0).any():
                found.append(passage)
    return found


def clean(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def encode(tokenizer: Any, text: str) -> Encoded:
    """Tokenise a text as it stands, without truncation.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one.
    text : str
        With single spaces, see `clean`.

    Returns
    -------
    Encoded
    """
    encoded = tokenizer(
        text,
        add_special_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    spans = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    return Encoded(
        np.asarray(encoded["input_ids"], dtype=np.int64),
        np.asarray(encoded["special_tokens_mask"], dtype=bool),
        spans,
        np.array([not text[first:last].strip() for first, last in spans], dtype=bool),
    )


def too_long(
    row: int, n_tokens: int, limit: int, text: str, whose: str = "the model takes"
) -> DataError:
    """Return the error for a row that is longer than a model or a setting allows.

    Parameters
    ----------
    row : int
        Row of the grid.
    n_tokens : int
        Its own tokens.
    limit : int
        Tokens of a forward pass, special ones included.
    text : str
        The row's own text.
    whose : str
        Who sets the limit.

    Returns
    -------
    DataError
    """
    return DataError(
        f"row {row} alone has {n_tokens} tokens, {whose} at most {limit} with special "
        f"tokens; the text starts {text[:40]!r}.",
        hint="Check the word times of the transcript, or choose a model for longer texts with "
        "--model.",
    )


def _window(tokenizer: Any, row: int, text: tuple[str, int], max_tokens: int | None) -> Passage:
    """Tokenise one window."""
    encoded = encode(tokenizer, text[0])
    inside = encoded.spans[:, 1] > text[1]
    own = ~encoded.special & inside & ~encoded.blank
    context = np.flatnonzero(~encoded.special & ~inside)
    keep = np.ones(len(own), dtype=bool)
    n_over = 0 if max_tokens is None else max(0, len(own) - max_tokens)
    if max_tokens is not None and n_over > len(context):
        raise too_long(row, int(own.sum()), max_tokens, text[0][text[1] :])
    keep[context[:n_over]] = False
    owners = np.where(own, row, -1)
    return Passage(encoded.ids[keep], owners[keep], encoded.special[keep], n_over)
