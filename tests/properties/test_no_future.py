"""No row sees later words, words behind its context, or words from before a border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_brainlm.language import contexts, measures, models
from bids_brainlm.language.surprisal import extract_surprisal
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends, wasn't it a café"
WORDS = st.sampled_from([*TEXT.split(), "(to", "[SEP]", "<|endoftext|>", "漢字", "'s"])
ROW = st.lists(WORDS, max_size=4).map(" ".join)
ROWS = st.lists(ROW, min_size=2, max_size=9)
QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BIDIRECTIONAL = ("bert", "roberta", "distilbert")
GROWING = {"context": "growing", "limit_tokens": 48, "reset_tokens": 8}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Bits are promised for one number of threads; tiny models need one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[*BIDIRECTIONAL, "gpt2", "llama"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    head = request.param not in BIDIRECTIONAL
    write_tiny_model(folder, request.param, TEXT, seed=1, n_heads=2, n_dims=16, head=head)
    made = models.load(models.resolve(folder, offline=True), seed=1, head=head)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return made


def rules(model, context_trs):
    """The rules that a model can follow."""
    window = {"context": "window", "context_trs": context_trs}
    return [window, GROWING] if model.causal else [window]


def same_bits(before, after, rows):
    for name in ("embeddings", "transformations", "magnitudes", "n_tokens", "n_context_tokens"):
        np.testing.assert_array_equal(getattr(after, name)[rows], getattr(before, name)[rows])


@QUICK
@given(data=st.data())
def test_the_future_changes_no_bit(model, data):
    """Later rows are changed, added, deleted, silenced: earlier rows stay as they are."""
    rows = data.draw(ROWS)
    now = data.draw(st.integers(1, len(rows)))
    future = data.draw(st.lists(ROW, max_size=12))
    borders = data.draw(st.sets(st.integers(0, len(rows))))
    for rule in rules(model, data.draw(st.integers(0, 9))):
        before = measures.extract(model, rows, borders=sorted(borders), **rule)
        other = [*rows[:now], *future]
        kept = [border for border in borders if border <= len(other)]
        after = measures.extract(model, other, borders=sorted(kept), **rule)
        same_bits(before, after, slice(0, now))


@QUICK
@given(data=st.data())
def test_the_past_before_a_border_changes_no_bit(model, data):
    rows, past = data.draw(ROWS), data.draw(st.lists(ROW, max_size=9))
    border = data.draw(st.integers(0, len(rows) - 1))
    for rule in rules(model, 20):
        before = measures.extract(model, rows, borders=[border], **rule)
        other = [*past, *rows[border:]]
        after = measures.extract(model, other, borders=[len(past)], **rule)
        for name in ("embeddings", "transformations", "n_context_tokens"):
            np.testing.assert_array_equal(
                getattr(after, name)[len(past) :], getattr(before, name)[border:]
            )


@QUICK
@given(data=st.data())
def test_the_past_beyond_a_window_changes_no_bit(model, data):
    rows, context_trs = data.draw(ROWS), data.draw(st.integers(0, 3))
    now = data.draw(st.integers(0, len(rows) - 1))
    n_past = max(0, now - context_trs)
    past = data.draw(st.lists(ROW, min_size=n_past, max_size=n_past))
    before = measures.extract(model, rows, context_trs=context_trs)
    after = measures.extract(model, [*past, *rows[n_past:]], context_trs=context_trs)
    same_bits(before, after, now)


@QUICK
@given(data=st.data())
def test_the_past_beyond_a_growing_context_changes_no_bit(model, data):
    """Words of rows that are in no pass of the row change, and keep their number of tokens."""
    if not model.causal:
        return
    rows = data.draw(st.lists(ROW, min_size=12, max_size=16))
    passages = contexts.passages(model, rows, **GROWING)
    if len(passages) < 3:
        return
    sizes = [len(r.ids) for r in contexts.running_tokens(model.tokenizer, rows)]
    last = passages[-1]
    first_seen = int(last.rows[0])
    n_context = int(last.n_context[0])
    while n_context > 0:
        first_seen -= 1
        n_context -= sizes[first_seen]
    if first_seen < 2:
        return
    swapped = [" ".join(reversed(row.split())) for row in rows[: first_seen - 1]]
    swapped += rows[first_seen - 1 :]
    same = [len(r.ids) for r in contexts.running_tokens(model.tokenizer, swapped)] == sizes
    before = measures.extract(model, rows, **GROWING)
    after = measures.extract(model, swapped, **GROWING)
    if same:
        same_bits(before, after, last.rows)


@QUICK
@given(data=st.data())
def test_surprisal_knows_no_future(model, data):
    if not model.causal:
        return
    rows = [row.split() for row in data.draw(ROWS)]
    now = data.draw(st.integers(1, len(rows)))
    future = [row.split() for row in data.draw(st.lists(ROW, max_size=12))]
    n_words = sum(len(row) for row in rows[:now])
    for rule in rules(model, 3):
        before = extract_surprisal(model, rows, **rule)
        after = extract_surprisal(model, [*rows[:now], *future], **rule)
        for name, n in (("surprisal", n_words), ("entropy", n_words), ("row_surprisal", now)):
            np.testing.assert_allclose(
                getattr(after, name)[:n], getattr(before, name)[:n], atol=1e-5, rtol=1e-5
            )


def test_the_property_can_fail(model):
    """The same comparison sees a change that is in view."""
    rows = ["So I was", "a junior", "in high school"]
    for rule in rules(model, 20):
        before = measures.extract(model, rows, **rule)
        after = measures.extract(model, ["been to the", *rows[1:]], **rule)
        assert np.abs(after.embeddings[2] - before.embeddings[2]).max() > 1e-3
