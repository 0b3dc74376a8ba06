"""Windows and measures: the batched extraction equals the plain procedure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language import measures, models
from bids_brainlm.language.timing import place_words
from bids_brainlm.language.tokens import window_text, windows
from bids_brainlm.language.transcripts import parse
from bids_brainlm.records import TRGrid
from bids_brainlm.simulate.models import write_tiny_model

ROWS = [
    "",
    "So I was",
    "a junior in high",
    "",
    "",
    "school and I’d been",
    "to the",
    "weekends",
    "so",
    "I was to",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a maker of tiny models."""
    made = {}

    def get(model_type):
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type)
            write_tiny_model(folder, model_type, " ".join(ROWS), seed=3, n_layers=3)
            made[model_type] = models.load(models.resolve(folder, offline=True), seed=1)
        return made[model_type]

    return get


@pytest.fixture(scope="module")
def real(minilm):
    return models.load(models.resolve(minilm, offline=True), seed=1)


@pytest.fixture(scope="module")
def alice_rows(alice):
    path = alice / "stimuli" / "alice_audio.TextGrid"
    words = parse(path.read_bytes(), path.name).words
    rows = place_words(words, TRGrid(13, 40, 1.5)).rows
    return [
        " ".join(w.text for w, own in zip(words, rows, strict=True) if own == row)
        for row in range(40)
    ]


def states_and_heads(model, ids):
    """Run one text with hooks by hand."""
    kept = []
    handles = [
        module.register_forward_hook(lambda _m, args, _o: kept.append(args[0]))
        for module in model.heads.projections
    ]
    with torch.no_grad():
        states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    return states, kept


def plain(model, rows, context):
    """One window at a time, as one would first write it down."""
    embeddings, heads = {}, {}
    for row, text in enumerate(rows):
        if not text:
            continue
        past = [r for r in rows[max(0, row - context) : row] if r]
        ids = model.tokenizer(" ".join([*past, text]))["input_ids"]
        lead = " " if past and model.causal else ""
        n_own = len(model.tokenizer(lead + text, add_special_tokens=False)["input_ids"])
        own = slice(-n_own, None) if model.causal else slice(-(n_own + 1), -1)
        states, kept = states_and_heads(model, ids)
        embeddings[row] = np.stack([s[0, own].mean(0).numpy() for s in states])
        heads[row] = np.stack(
            [k[0, own].mean(0).reshape(model.n_heads, model.head_dim).numpy() for k in kept]
        )
    return embeddings, heads


def check_against_plain(model, rows, context):
    found = measures.extract(model, rows, context_trs=context, batch_size=4)
    embeddings, heads = plain(model, rows, context)
    n_trs = len(rows)
    assert found.embeddings.shape == (n_trs, model.n_layers + 1, model.n_dims)
    assert found.transformations.shape == (n_trs, model.n_layers, model.n_heads, model.head_dim)
    assert found.embeddings.dtype == found.transformations.dtype == np.float32
    for row in range(n_trs):
        if row in embeddings:
            np.testing.assert_allclose(found.embeddings[row], embeddings[row], atol=1e-4)
            np.testing.assert_allclose(found.transformations[row], heads[row], atol=1e-4)
            norms = np.linalg.norm(heads[row], axis=-1)
            np.testing.assert_allclose(found.magnitudes[row], norms, atol=1e-4)
            assert found.n_tokens[row] > 0
        else:
            for array in (found.embeddings, found.transformations, found.magnitudes):
                assert np.isnan(array[row]).all()
            assert found.n_tokens[row] == found.n_context_tokens[row] == 0


def test_minilm_equals_the_plain_procedure(real, alice_rows):
    check_against_plain(real, alice_rows, 20)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
@pytest.mark.parametrize("context", [0, 3])
def test_tiny_models_equal_the_plain_procedure(tiny, model_type, context):
    check_against_plain(tiny(model_type), ROWS, context)


def test_bits_do_not_depend_on_batch_size_or_repetition(real, alice_rows):
    first = measures.extract(real, alice_rows, batch_size=1)
    for batch_size in (3, 8, 8, 64):
        again = measures.extract(real, alice_rows, batch_size=batch_size)
        np.testing.assert_array_equal(again.embeddings, first.embeddings)
        np.testing.assert_array_equal(again.transformations, first.transformations)
        np.testing.assert_array_equal(again.magnitudes, first.magnitudes)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_the_future_is_never_seen(tiny, model_type):
    model = tiny(model_type)
    changed = [*ROWS[:6], "weekends high", "", "junior I was a so", "school"]
    before = measures.extract(model, ROWS, context_trs=4)
    after = measures.extract(model, changed, context_trs=4)
    np.testing.assert_allclose(after.embeddings[:6], before.embeddings[:6], atol=1e-6)
    np.testing.assert_allclose(after.transformations[:6], before.transformations[:6], atol=1e-6)
    assert np.abs(after.embeddings[6] - before.embeddings[6]).max() > 1e-3


def test_context_is_seen_as_far_as_it_is_set(tiny):
    model = tiny("bert")
    changed = ["", "weekends", *ROWS[2:]]
    before = measures.extract(model, ROWS, context_trs=4)
    after = measures.extract(model, changed, context_trs=4)
    assert np.abs(after.embeddings[5, -1] - before.embeddings[5, -1]).max() > 1e-4
    np.testing.assert_allclose(after.embeddings[6:], before.embeddings[6:], atol=1e-6)
    assert before.n_context_tokens[6] > 0


def test_counts_progress_and_want(tiny):
    model = tiny("gpt2")
    calls = []
    found = measures.extract(
        model,
        ROWS,
        context_trs=2,
        batch_size=2,
        want=("embeddings",),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (7, 7)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert found.transformations is None
    assert found.magnitudes is None
    heads = measures.extract(model, ROWS, context_trs=2, want=("transformations",))
    assert heads.embeddings is None
    assert heads.magnitudes.shape == (10, 3, 2)
    assert (found.n_tokens > 0).tolist() == [bool(text) for text in ROWS]
    own = {int(w.rows[0]): w for w in windows(model.tokenizer, ROWS, 2, None)}
    assert found.n_tokens.tolist() == [
        int((own[row].owners == row).sum()) if row in own else 0 for row in range(10)
    ]
    with pytest.raises(ConfigError, match="expected embeddings, transformations"):
        measures.extract(model, ROWS, want=("attention",))
    with pytest.raises(ConfigError, match="0 context TRs and batches of 0"):
        measures.extract(model, ROWS, context_trs=0, batch_size=0)


def test_only_silence(tiny):
    found = measures.extract(tiny("bert"), ["", " ", ""])
    assert np.isnan(found.embeddings).all()
    assert found.n_tokens.tolist() == [0, 0, 0]
    assert found.n_truncated == 0


def test_long_windows_lose_their_oldest_context(tiny):
    model = tiny("gpt2")
    rows = ["junior in high school " * 120, "weekends " * 60, "so I was"]
    sizes = [len(model.tokenizer(text.strip())["input_ids"]) for text in rows]
    assert sizes[0] < model.max_tokens == 512 < sizes[0] + sizes[1]
    found = measures.extract(model, rows)
    assert found.n_truncated == 2
    assert found.n_context_tokens.tolist() == [0, *(512 - found.n_tokens[1:])]
    with pytest.raises(DataError, match=r"row 0 alone has \d+ tokens, the model takes at most 512"):
        measures.extract(model, ["weekends " * 601])


def test_window_text():
    assert window_text([" So  I", "", "was a"], 2, 1) == ("was a", 0)
    assert window_text([" So  I", "", "was a"], 2, 2) == ("So I was a", 5)
    assert window_text(["So I", ""], 1, 2) == ("So I", 4)


def test_a_foreign_tokenizer_and_broken_weights_are_named(tiny, tmp_path):
    write_tiny_model(tmp_path, "bert", " ".join(ROWS), seed=3)
    model = models.load(models.resolve(tmp_path, offline=True), seed=1)
    with torch.no_grad():
        model.model.encoder.layer[1].attention.output.dense.weight[0, 0] = np.nan
    with pytest.raises(DataError, match="embeddings of 7 of 7 TRs are not finite, first in row 1"):
        measures.extract(model, ROWS)
    model.model.set_input_embeddings(torch.nn.Embedding(5, 16))
    with pytest.raises(DataError, match="expected numbers below 5"):
        measures.extract(model, ROWS)
