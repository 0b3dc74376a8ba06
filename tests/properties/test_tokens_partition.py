"""Tokens partition the words of the rows: none dropped, none doubled, none of the context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_brainlm.language import models
from bids_brainlm.language.tokens import window_text, windows
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends, wasn't it a café"
WORDS = st.text("abcIsW’'-.,?éß漢😀[]<>", min_size=1, max_size=9) | st.sampled_from(
    ["[SEP]", "[UNK]", "<s>", "<|endoftext|>", *TEXT.split()]
)
ROWS = st.lists(st.lists(WORDS, max_size=4).map(" ".join), min_size=1, max_size=8)
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=["bert", "gpt2", "roberta"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_model(folder, request.param, TEXT, seed=1)
    return models.load(models.resolve(folder, offline=True), seed=1).tokenizer


def spans_of(tokenizer, text):
    """Return character spans and special flags, from the tokenizer's own answer."""
    encoded = tokenizer(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        split_special_tokens=True,
        truncation=False,
    )
    return encoded["offset_mapping"], encoded["special_tokens_mask"]


def own_ids(window):
    return window.ids[window.owners >= 0].tolist()


@QUICK
@given(rows=ROWS, context=st.integers(0, 9), borders=st.sets(st.integers(0, 8)))
def test_borders_are_where_the_context_starts_anew(tokenizer, rows, context, borders):
    """A window with borders is the window of the rows from the last border on."""
    found = {int(w.rows[0]): w for w in windows(tokenizer, rows, context, None, sorted(borders))}
    for row, window in found.items():
        start = max((border for border in borders if border <= row), default=0)
        alone = windows(tokenizer, rows[start : row + 1], context, None)[-1]
        assert window.ids.tolist() == alone.ids.tolist()
        assert own_ids(window) == own_ids(alone)


@QUICK
@given(rows=ROWS, context=st.integers(0, 9))
def test_own_tokens_cover_the_row_and_nothing_else(tokenizer, rows, context):
    found = {int(w.rows[0]): w for w in windows(tokenizer, rows, context, None)}
    assert set(found) == {row for row, text in enumerate(rows) if text.split()}
    for row, window in found.items():
        text, start = window_text(rows, row, context)
        assert text[start:] == " ".join(rows[row].split())
        spans, special = spans_of(tokenizer, text)
        assert window.special.tolist() == [bool(mask) for mask in special]
        assert set(window.owners.tolist()) <= {row, -1}
        own = window.owners == row
        assert not np.asarray(special)[own].any()
        assert window.n_own.tolist() == [own.sum()]
        assert window.n_context.tolist() == [
            sum(not mask and last <= start for (_, last), mask in zip(spans, special, strict=True))
        ]
        covered = {i for index in np.flatnonzero(own) for i in range(*spans[index])}
        wanted = {i for i in range(start, len(text)) if text[i] != " "}
        assert wanted <= covered
        assert not covered & {i for i in range(start) if text[i] != " "}


@QUICK
@given(rows=ROWS)
def test_with_the_whole_past_in_view_rows_add_up_to_the_whole_text(tokenizer, rows):
    """Each token of the whole text, but for lone spaces, is one row's own, in order."""
    whole = " ".join(" ".join(rows).split())
    encoded = tokenizer(
        whole, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    spans = encoded["offset_mapping"]
    words = [i for i, (first, last) in enumerate(spans) if whole[first:last].strip()]
    found = windows(tokenizer, rows, len(rows), None)
    joined = [token for window in found for token in own_ids(window)]
    assert joined == [encoded["input_ids"][i] for i in words]
    n_before = np.cumsum([0, *(len(own_ids(window)) for window in found)])[:-1]
    assert [int(window.n_context[0]) for window in found] == [words[n] for n in n_before]


@QUICK
@given(rows=ROWS, context=st.integers(0, 9), limit=st.integers(30, 60))
def test_truncation_cuts_the_oldest_context_only(tokenizer, rows, context, limit):
    full = windows(tokenizer, rows, context, None)
    n_special = sum(spans_of(tokenizer, "a")[1])
    if any(len(window.ids) - window.n_context[0] > limit for window in full):
        return
    cut = windows(tokenizer, rows, context, limit)
    for before, after in zip(full, cut, strict=True):
        assert len(after.ids) == min(len(before.ids), limit)
        assert after.n_cut == max(0, len(before.ids) - limit)
        assert own_ids(after) == own_ids(before)
        assert before.n_context[0] - after.n_context[0] == after.n_cut
        n_last = len(after.ids) - n_special
        body = before.ids[len(before.ids) - n_special // 2 - n_last :]
        assert after.ids[n_special - n_special // 2 :].tolist() == body.tolist()
