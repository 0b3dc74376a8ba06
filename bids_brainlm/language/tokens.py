"""Text windows: which words a model sees for a TR, and which tokens are the TR's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_brainlm.errors import DataError


@dataclass(frozen=True)
class Window:
    """The tokens of one TR and its context.

    Attributes
    ----------
    row : int
        Row of the grid.
    ids : int array, shape (n_tokens,)
        Token numbers, with the special tokens that the tokenizer adds.
    own : bool array, shape (n_tokens,)
        True for the tokens of the row's own words; never for special tokens.
    n_context : int
        Tokens of the context, without special tokens.
    is_truncated : bool
        Whether the oldest tokens of the context were cut.
    """

    row: int
    ids: np.ndarray
    own: np.ndarray
    n_context: int
    is_truncated: bool


def window_text(row_texts: Sequence[str], row: int, context_trs: int) -> tuple[str, int]:
    """Return the text that the model sees for a row, and where the row's own part begins.

    Parameters
    ----------
    row_texts : sequence of str
        Words of each row; empty where silent.
    row : int
        The current row.
    context_trs : int
        How many rows before the current one belong to the window, silent ones included.

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
    """
    context = [_clean(text) for text in row_texts[max(0, row - context_trs) : row]]
    before = " ".join(text for text in context if text)
    own = _clean(row_texts[row])
    return (f"{before} {own}", len(before) + 1) if before and own else (before + own, len(before))


def windows(
    tokenizer: Any, row_texts: Sequence[str], context_trs: int, max_tokens: int | None
) -> list[Window]:
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

    Returns
    -------
    list of Window
        In order of rows; rows without tokens have none.

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
            window = _window(tokenizer, row, window_text(row_texts, row, context_trs), max_tokens)
            if window.own.any():
                found.append(window)
    return found


def _clean(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def _window(tokenizer: Any, row: int, text: tuple[str, int], max_tokens: int | None) -> Window:
    """Tokenise one window."""
    encoded = tokenizer(
        text[0],
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
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    spans = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    special = np.asarray(encoded["special_tokens_mask"], dtype=bool)
    inside = spans[:, 1] > text[1]
    is_word = np.array([bool(text[0][first:last].strip()) for first, last in spans], dtype=bool)
    own = ~special & inside & is_word
    context = np.flatnonzero(~special & ~inside)
    keep = np.ones(len(ids), dtype=bool)
    n_over = 0 if max_tokens is None else len(ids) - max_tokens
    if n_over > 0:
        if n_over > len(context):
            raise DataError(
                f"row {row} alone has {int(own.sum())} tokens, the model takes at most "
                f"{max_tokens} with special tokens; the text starts "
                f"{text[0][text[1] : text[1] + 40]!r}.",
                hint="Check the word times of the transcript, or choose a model for longer texts "
                "with --model.",
            )
        keep[context[:n_over]] = False
    return Window(row, ids[keep], own[keep], len(context) - max(n_over, 0), n_over > 0)
