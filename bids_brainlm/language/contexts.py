"""Contexts: a sliding window of TRs, or a context that grows and is cut back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.tokens import Passage, clean, encode, too_long, windows

CONTEXTS = ("window", "growing")


@dataclass(frozen=True, eq=False)
class RowTokens:
    """The tokens of one row as they stand in the running text.

    Attributes
    ----------
    ids : int array, shape (n_tokens,)
        Token numbers, special tokens left out. A lone space before the row's first word is
        the row's.
    ends : int array, shape (n_tokens,)
        Where each token ends in the row's text, in characters; 0 for a space before it.
    blank : bool array, shape (n_tokens,)
        True for tokens that are nothing but space.
    """

    ids: np.ndarray
    ends: np.ndarray
    blank: np.ndarray


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows that share a forward pass: ``rows``, with ``n_context`` tokens before the first.

    ``n_cut`` more tokens of context would be there if the model took them.
    """

    rows: tuple[int, ...]
    n_context: int
    n_cut: int


def passages(
    model: LanguageModel,
    row_texts: Sequence[str],
    *,
    context: str = "window",
    context_trs: int = 20,
    limit_tokens: int = 512,
    reset_tokens: int = 256,
    borders: Sequence[int] = (),
) -> list[Passage]:
    """Tokenise the words of a story under a rule for the context.

    Parameters
    ----------
    model : LanguageModel
        Its tokenizer and its limit are used.
    row_texts : sequence of str, length n_trs
        Words of each row; empty where silent.
    context : str
        ``window``: see `tokens.windows`. ``growing``: see `growing`, causal models only.
    context_trs : int
        Window: previous rows that the model sees, >= 0.
    limit_tokens, reset_tokens : int
        Growing: the most tokens of a forward pass, and the tokens of context to which it is
        cut back.
    borders : sequence of int
        Rows at which the context starts anew, 0 to n_trs.

    Returns
    -------
    list of Passage
        Each row with tokens owns tokens in exactly one of them.

    Raises
    ------
    ConfigError
        A setting is wrong, or the context grows and the model is bidirectional.
    DataError
        A single row has more tokens than fit.
    """
    check(model, context, context_trs, limit_tokens, reset_tokens)
    check_borders(borders, len(row_texts))
    if context == "window":
        return windows(model.tokenizer, row_texts, context_trs, model.max_tokens, borders)
    return growing(
        model.tokenizer, row_texts, limit_tokens, reset_tokens, model.max_tokens, borders
    )


def check(
    model: LanguageModel, context: str, context_trs: int, limit_tokens: int, reset_tokens: int
) -> None:
    """Raise if the settings of a context are wrong.

    Parameters
    ----------
    model : LanguageModel
        Must be causal if the context grows.
    context : str
        ``window`` or ``growing``.
    context_trs : int
        In TRs.
    limit_tokens, reset_tokens : int
        In tokens.

    Raises
    ------
    ConfigError
        With the flag in its hint.
    """
    if context not in CONTEXTS:
        raise ConfigError(f"context: found {context!r}, expected one of {', '.join(CONTEXTS)}.")
    if context_trs < 0:
        raise ConfigError(
            f"found {context_trs} context TRs, expected 0 or more TRs.",
            hint="Set --context-trs to 0 or more.",
        )
    if limit_tokens < 1 or not 0 <= reset_tokens <= limit_tokens:
        raise ConfigError(
            f"a context of {limit_tokens} tokens that is cut back to {reset_tokens}: expected a "
            "limit of 1 or more tokens and 0 to that many.",
            hint="Set --context-tokens, the limit first, e.g. 512 256.",
        )
    if context == "growing" and not model.causal:
        raise ConfigError(
            f"model {model.source.name} is bidirectional: in a context that grows its states "
            "would depend on later words.",
            hint="Set --context window, or choose a causal --model, e.g. gpt2.",
        )


def check_borders(borders: Sequence[int], n_trs: int) -> None:
    """Raise if a border is no row.

    Parameters
    ----------
    borders : sequence of int
        Rows at which the context starts anew.
    n_trs : int
        Rows of the story.

    Raises
    ------
    ConfigError
        A border is below 0 or above ``n_trs``.
    """
    wrong = [border for border in borders if not 0 <= border <= n_trs]
    if wrong:
        raise ConfigError(
            f"borders of the context: found row {wrong[0]}, expected 0 to {n_trs}.",
            hint="Set --context-borders story, or check the folds with --cv.",
        )


def growing(
    tokenizer: Any,
    row_texts: Sequence[str],
    limit_tokens: int,
    reset_tokens: int,
    max_tokens: int | None,
    borders: Sequence[int] = (),
) -> list[Passage]:
    """Tokenise the running text of a story into stretches whose context grows.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one.
    row_texts : sequence of str, length n_trs
        Words of each row; empty where silent.
    limit_tokens : int
        The most tokens of a passage, special tokens included.
    reset_tokens : int
        Tokens of context that a new passage starts with, special tokens not counted.
    max_tokens : int or None
        The model's limit, special tokens included.
    borders : sequence of int
        Rows at which the text starts anew.

    Returns
    -------
    list of Passage
        In order of rows. Each row with tokens belongs to exactly one.

    Raises
    ------
    DataError
        The tokens of a single row are more than the limit.

    Notes
    -----
    For causal models only. Within a passage each token sees all tokens before it, so the
    context of a row grows from passage start to passage end. Where the next row would go
    beyond ``limit_tokens``, a new passage begins, with the last ``reset_tokens`` tokens as
    context (fewer where the row itself needs the room); they may begin within a word. A
    row's tokens are never split.

    The special tokens that the tokenizer puts before a text stand before every passage; those
    that it puts behind a text are left out.

    The pieces are those of the running text: each row is tokenised behind the row before it,
    so no token depends on later rows. Where a tokenizer would join two rows into one token,
    the row is tokenised alone, behind a space.

    If the model takes fewer tokens than the rule asks for, the passage is cut back earlier,
    to ``reset_tokens`` or to what fits, and ``n_cut`` tells how many tokens are missing.
    """
    running = running_tokens(tokenizer, row_texts, borders)
    owners = [
        np.where(tokens.blank, -1, row).astype(np.int64) for row, tokens in enumerate(running)
    ]
    lead = leading(tokenizer)
    return join(running, owners, lead, (limit_tokens, reset_tokens, max_tokens), borders, row_texts)


def join(
    running: Sequence[RowTokens],
    owners: Sequence[np.ndarray],
    lead: np.ndarray,
    limits: tuple[int, int, int | None],
    borders: Sequence[int],
    row_texts: Sequence[str],
) -> list[Passage]:
    """Join the tokens of rows to passages whose context grows.

    Parameters
    ----------
    running : sequence of RowTokens, length n_trs
        From `running_tokens`.
    owners : sequence of int array, shape (n_tokens,)
        For each row whose its tokens are, -1 for nobody's.
    lead : int array, shape (n_lead,)
        Special tokens before each passage.
    limits : tuple of int
        Limit and reset in tokens, and the model's limit or None.
    borders : sequence of int
        Rows at which the text starts anew.
    row_texts : sequence of str, length n_trs
        For messages.

    Returns
    -------
    list of Passage
        Those in which nobody owns a token are left out.

    Raises
    ------
    DataError
        The tokens of a single row are more than the limit.
    """
    sizes = [len(tokens.ids) for tokens in running]
    limit, reset, max_tokens = limits
    room = limit - len(lead)
    model_room = room if max_tokens is None else max_tokens - len(lead)
    for row, size in enumerate(sizes):
        if size and size > min(room, model_room):
            by_model = model_room <= room
            name = "the model takes" if by_model else "--context-tokens allows"
            most = min(room, model_room) + len(lead)
            raise too_long(row, size, most, clean(row_texts[row]), name)
    edges = sorted({0, len(sizes), *borders})
    found = []
    for first, last in pairwise(edges):
        ids = np.concatenate([tokens.ids for tokens in running[first:last]])
        own = np.concatenate([np.asarray(who) for who in owners[first:last]])
        starts = np.cumsum([0, *sizes[first:last]])
        for stretch in stretches(sizes[first:last], room, reset, model_room):
            begin, end = starts[stretch.rows[0]], starts[stretch.rows[-1] + 1]
            part = slice(begin - stretch.n_context, end)
            who = own[part].copy()
            who[: stretch.n_context] = -1
            if (who >= 0).any():
                found.append(_passage(ids[part], who, lead, stretch.n_cut))
    return found


def _passage(ids: np.ndarray, owners: np.ndarray, lead: np.ndarray, n_cut: int) -> Passage:
    """Put special tokens before a text."""
    return Passage(
        np.concatenate([lead, ids]),
        np.concatenate([np.full(len(lead), -1, dtype=np.int64), owners]),
        np.arange(len(lead) + len(ids)) < len(lead),
        n_cut,
    )


def stretches(sizes: Sequence[int], room: int, reset: int, model_room: int) -> list[Stretch]:
    """Divide the rows of a text into stretches.

    Parameters
    ----------
    sizes : sequence of int, length n_rows
        Tokens of each row, none more than ``room`` or ``model_room``.
    room : int
        Tokens of a stretch with its context.
    reset : int
        Tokens of context to which a stretch is cut back.
    model_room : int
        What the model takes.

    Returns
    -------
    list of Stretch
        Rows without tokens are in none.
    """
    found: list[Stretch] = []
    begin = wanted = 0  # first token in the model's view, and in that of the rule
    position = 0
    for row, size in enumerate(sizes):
        if not size:
            continue
        is_new = not found
        if position + size - wanted > room:
            wanted, is_new = position - min(reset, position, room - size), True
        if is_new or position + size - begin > model_room:
            begin = max(wanted, position - min(reset, model_room - size))
            found.append(Stretch((row,), position - begin, begin - wanted))
        else:
            last = found[-1]
            found[-1] = Stretch((*last.rows, row), last.n_context, last.n_cut)
        position += size
    return found


def running_tokens(
    tokenizer: Any, row_texts: Sequence[str], borders: Sequence[int] = ()
) -> list[RowTokens]:
    """Tokenise each row behind the one before it.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one.
    row_texts : sequence of str, length n_trs
        Words of each row; empty where silent.
    borders : sequence of int
        Rows at which the text starts anew.

    Returns
    -------
    list of RowTokens, length n_trs
        Joined, from border to border, they are the tokens of the running text.
    """
    found, before = [], ""
    anew = set(borders)
    for row, row_text in enumerate(row_texts):
        text = clean(row_text)
        if row in anew:
            before = ""
        found.append(_behind(tokenizer, before, text))
        before = text or before
    return found


def _behind(tokenizer: Any, before: str, text: str) -> RowTokens:
    """Tokenise a text behind another one."""
    if not text:
        return RowTokens(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, dtype=bool))
    joined = f"{before} {text}" if before else text
    start = len(before) + 1 if before else 0
    encoded = encode(tokenizer, joined)
    own = ~encoded.special & ((encoded.spans[:, 1] > start - 1) | (start == 0))
    if before and (encoded.spans[own, 0] < start - 1).any():
        encoded, start = encode(tokenizer, f" {text}"), 1
        own = ~encoded.special
    ends = np.maximum(encoded.spans[own, 1] - start, 0)
    return RowTokens(encoded.ids[own], ends, encoded.blank[own])


def leading(tokenizer: Any) -> np.ndarray:
    """Return the special tokens that a tokenizer puts before a text, int, shape (n_lead,)."""
    encoded = encode(tokenizer, "a")
    n_lead = 0 if encoded.special.all() else int(np.argmin(encoded.special))
    return encoded.ids[:n_lead]
