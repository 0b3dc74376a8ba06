"""Surprisal and entropy equal plain loops over prefixes with the raw transformers model."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language import measures, models, surprisal
from bids_brainlm.language.surprisal import extract_surprisal
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends, wasn't it a café"
ROWS = [
    *([], ["So", "I", "was"], ["a", "junior,"], [], ["in", "high", "school", "(and"]),
    *(["I’d", "been"], ["漢字", "to", "the", "😀"], [], ["weekends"], ["so", "high"]),
]
WORDS = [word for row in ROWS for word in row]
FAMILIES = ["gpt2", "llama", "opt", "gpt_neox"]


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """Return a maker of tiny models with a head, whose predictions are not flat."""
    made = {}

    def make(model_type):
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type)
            write_tiny_model(folder, model_type, TEXT, seed=3, n_dims=32, head=True)
            model = models.load(models.resolve(folder, offline=True), seed=1, head=True)
            with torch.no_grad():
                for parameter in model.predictor.parameters():
                    if parameter.ndim == 2:
                        parameter.mul_(6)
            made[model_type] = model
        return made[model_type]

    return make


def prediction(model, ids):
    """Return the probabilities of the token behind a text."""
    with torch.no_grad():
        logits = model.predictor(torch.tensor([ids])).logits[0, -1].double().numpy()
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()


def loop(model, text, n_context_words, keep=None):
    """Predict each token of the last words of a text from its prefix, one run a token.

    Returns ``{word: (surprisal, entropy)}`` in bits, words counted from the text's start.
    """
    encoded = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    found = {}
    for i, (token, end) in enumerate(zip(ids, ends, strict=True)):
        word = text[:end].count(" ")
        if word < n_context_words:
            continue
        prefix = [model.tokenizer.bos_token_id, *ids[:i]] if keep is None else keep(ids[:i])
        p = prediction(model, prefix)
        bits = -math.log2(p[token])
        entropy = -float((p * np.log2(p)).sum())
        before = found.get(word)
        found[word] = (bits, entropy) if before is None else (before[0] + bits, before[1])
    return found


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("context_trs", [0, 3])
def test_windows_equal_the_plain_loop(get, model_type, context_trs):
    model = get(model_type)
    found = extract_surprisal(model, ROWS, context_trs=context_trs)
    assert found.surprisal.shape == found.entropy.shape == found.n_tokens.shape == (len(WORDS),)
    expected = []
    for row, words in enumerate(ROWS):
        context = [word for r in ROWS[max(0, row - context_trs) : row] for word in r]
        if words:
            told = loop(model, " ".join([*context, *words]), len(context))
            values = [told[len(context) + i] for i in range(len(words))]
            expected += values
            np.testing.assert_allclose(found.row_surprisal[row], sum(v[0] for v in values))
            np.testing.assert_allclose(found.row_entropy[row], sum(v[1] for v in values))
        else:
            assert np.isnan(found.row_surprisal[row])
            assert np.isnan(found.row_entropy[row])
    np.testing.assert_allclose(found.surprisal, [v[0] for v in expected], rtol=1e-5)
    np.testing.assert_allclose(found.entropy, [v[1] for v in expected], rtol=1e-5)
    assert found.rows.tolist() == [row for row, words in enumerate(ROWS) for _ in words]
    assert (found.n_unpredicted, found.n_truncated) == (0, 0)
    assert found.surprisal.min() >= 0
    assert np.ptp(found.surprisal / found.n_tokens) > 0.5  # the predictions are not flat
    assert 0 < found.entropy.min() < found.entropy.max() < math.log2(len(model.tokenizer))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_growing_without_reset_adds_up_to_the_models_loss(get, model_type):
    model = get(model_type)
    found = extract_surprisal(model, ROWS, context="growing")
    ids = [model.tokenizer.bos_token_id]
    ids += model.tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    batch = torch.tensor([ids])
    with torch.no_grad():
        loss = float(model.predictor(batch, labels=batch).loss)
    total = loss * (len(ids) - 1) / math.log(2)
    np.testing.assert_allclose(found.surprisal.sum(), total, rtol=1e-5)
    np.testing.assert_allclose(np.nansum(found.row_surprisal), total, rtol=1e-5)
    assert found.n_tokens.sum() == len(ids) - 1
    told = loop(model, " ".join(WORDS), 0)
    np.testing.assert_allclose(found.surprisal, [told[i][0] for i in range(len(WORDS))], rtol=1e-5)
    np.testing.assert_allclose(found.entropy, [told[i][1] for i in range(len(WORDS))], rtol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_growing_with_reset_equals_the_plain_loop(get, model_type):
    """The rule by hand: a pass holds at most 20 tokens with BOS, and starts again with 4."""
    model, limit, reset = get(model_type), 20, 4
    text = " ".join(WORDS)
    encoded = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    words = np.array([text[:end].count(" ") for _, end in encoded["offset_mapping"]])
    row_of = np.array([row for row, own in enumerate(ROWS) for _ in own])[words]
    starts, start = np.zeros(len(words), dtype=int), 0
    for row in np.unique(row_of):
        first, last = np.flatnonzero(row_of == row)[[0, -1]]
        if 1 + last + 1 - start > limit:
            start = first - reset
        starts[first : last + 1] = start
    assert len(set(starts)) > 2
    bos = model.tokenizer.bos_token_id
    told = loop(model, text, 0, lambda past: [bos, *past[starts[len(past)] :]])
    found = extract_surprisal(
        model, ROWS, context="growing", limit_tokens=limit, reset_tokens=reset
    )
    np.testing.assert_allclose(found.surprisal, [told[i][0] for i in range(len(WORDS))], rtol=1e-5)
    np.testing.assert_allclose(found.entropy, [told[i][1] for i in range(len(WORDS))], rtol=1e-5)


def test_borders(get):
    model = get("gpt2")
    for context in ("window", "growing"):
        whole = extract_surprisal(model, ROWS, context=context, borders=[5])
        parts = [extract_surprisal(model, part, context=context) for part in (ROWS[:5], ROWS[5:])]
        for name in ("surprisal", "entropy", "row_surprisal", "row_entropy"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_allclose(getattr(whole, name), joined, rtol=1e-6)


def test_without_a_token_before_the_text_the_first_word_has_no_value(get):
    model = get("gpt_neox")
    with_bos = extract_surprisal(model, ROWS, context="growing", borders=[4])
    model = replace(model, tokenizer=copy.deepcopy(model.tokenizer))
    model.tokenizer.bos_token = None
    assert model.tokenizer.bos_token_id is None
    found = extract_surprisal(model, ROWS, context="growing", borders=[4])
    missing = [0, WORDS.index("in")]  # the first words of both parts
    assert np.flatnonzero(np.isnan(found.surprisal)).tolist() == missing
    assert np.flatnonzero(np.isnan(found.entropy)).tolist() == missing
    assert found.n_unpredicted == 2
    assert found.n_tokens.tolist() == with_bos.n_tokens.tolist()
    np.testing.assert_allclose(found.row_surprisal[1], found.surprisal[1:3].sum())
    alone = extract_surprisal(model, [["So"], [], ["I"]], context_trs=0)
    assert np.isnan(alone.row_surprisal).all()
    assert alone.n_unpredicted == 2
    none = extract_surprisal(model, ROWS, context="growing", limit_tokens=20, reset_tokens=0)
    assert none.n_unpredicted == 2  # two stretches, both begin with nothing


def test_odd_words(get):
    """A word may hold spaces or be empty, and is one word."""
    model = get("gpt2")
    odd = extract_surprisal(model, [["So", "", "I  was"], [" "], ["a"]])
    plain = extract_surprisal(model, [["So", "I", "was"], [], ["a"]])
    assert odd.n_unpredicted == 2
    np.testing.assert_array_equal(np.isnan(odd.surprisal), [False, True, False, True, False])
    np.testing.assert_allclose(odd.surprisal[2], plain.surprisal[1:3].sum(), rtol=1e-6)
    np.testing.assert_allclose(odd.entropy[[0, 2, 4]], plain.entropy[[0, 1, 3]], rtol=1e-6)
    np.testing.assert_allclose(odd.surprisal[[0, 4]], plain.surprisal[[0, 3]], rtol=1e-6)
    assert np.isnan(odd.row_surprisal[1])
    assert odd.n_tokens.tolist() == [
        plain.n_tokens[0],
        0,
        plain.n_tokens[1:3].sum(),
        0,
        plain.n_tokens[3],
    ]
    nothing = extract_surprisal(model, [[], []])
    assert nothing.surprisal.shape == (0,)
    assert np.isnan(nothing.row_surprisal).all()


@pytest.mark.parametrize("context", ["window", "growing"])
def test_blocks_and_models_that_give_all_predictions(get, monkeypatch, context):
    model = get("llama")
    plain = extract_surprisal(model, ROWS, context=context)
    monkeypatch.setattr(surprisal, "LARGEST_BLOCK", 700)
    np.testing.assert_array_equal(
        extract_surprisal(model, ROWS, context=context).surprisal, plain.surprisal
    )
    whole = model.predictor.forward

    def forward(input_ids, attention_mask, use_cache, return_dict):
        return whole(input_ids, attention_mask, use_cache=use_cache, return_dict=return_dict)

    monkeypatch.setattr(model.predictor, "forward", forward)
    found = extract_surprisal(model, ROWS, context=context)
    np.testing.assert_allclose(found.surprisal, plain.surprisal, rtol=1e-6)
    np.testing.assert_allclose(found.entropy, plain.entropy, rtol=1e-6)


def test_too_long_contexts_are_cut_and_counted(get):
    model = replace(get("gpt2"), max_tokens=20)
    calls = []
    window = extract_surprisal(
        model, ROWS, context_trs=9, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(i, 7) for i in range(1, 8)]
    assert window.n_truncated > 0
    assert window.n_unpredicted == 0
    growing = extract_surprisal(model, ROWS, context="growing", limit_tokens=64, reset_tokens=10)
    assert 0 < growing.n_truncated < len(ROWS)
    assert growing.n_unpredicted == 0
    # the last row of the cut window: BOS, and the last 19 tokens
    ids = model.tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    n_last = int(window.n_tokens[-2:].sum())
    p = prediction(model, [model.tokenizer.bos_token_id, *ids[-19:-n_last]])
    np.testing.assert_allclose(window.entropy[-2], -(p * np.log2(p)).sum(), rtol=1e-5)
    for context in ("window", "growing"):
        with pytest.raises(DataError, match="row 0 alone has"):
            extract_surprisal(model, [["weekends"] * 30], context=context)


def test_predictions_that_are_not_finite(get, tmp_path):
    write_tiny_model(tmp_path, "gpt2", TEXT, seed=1, head=True)
    model = models.load(models.resolve(tmp_path, offline=True), seed=1, head=True)
    with torch.no_grad():
        model.model.h[1].attn.c_proj.bias[0] = np.nan
    with pytest.raises(DataError, match="predictions of 18 of 18 words are not finite, first in"):
        extract_surprisal(model, ROWS)


def test_which_models_predict(tmp_path):
    bert = write_tiny_model(tmp_path / "bert", "bert", TEXT, seed=1)
    with pytest.raises(ConfigError, match="surprisal needs a causal model") as caught:
        models.load(models.resolve(bert, offline=True), seed=1, head=True)
    assert "gpt2" in caught.value.hint
    with pytest.raises(ConfigError, match="surprisal needs a causal model"):
        models.load(models.resolve("random:tiny-bert", offline=True), seed=1, head=True)
    gpt2 = write_tiny_model(tmp_path / "gpt2", "gpt2", TEXT, seed=1)
    plain = models.load(models.resolve(gpt2, offline=True), seed=1)
    with pytest.raises(ConfigError, match="loaded with its head, found none"):
        extract_surprisal(plain, ROWS)


def test_weights_of_the_head(tmp_path):
    """A head that is tied to the embeddings may be missing, any other may not."""
    gpt2 = write_tiny_model(tmp_path / "gpt2", "gpt2", TEXT, seed=1)
    tied = models.load(models.resolve(gpt2, offline=True), seed=1, head=True)
    assert tied.architecture == "GPT2LMHeadModel"
    assert tied.predictor.lm_head.weight is tied.model.wte.weight
    assert not tied.predictor.training
    llama = write_tiny_model(tmp_path / "llama", "llama", TEXT, seed=1)
    with pytest.raises(DataError, match=r"1 weights are missing, first 'lm_head\.weight'"):
        models.load(models.resolve(llama, offline=True), seed=1, head=True)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_features_of_a_model_with_head_are_the_same(tmp_path, model_type):
    folder = write_tiny_model(tmp_path, model_type, TEXT, seed=1, head=True)
    texts = [" ".join(row) for row in ROWS]
    for name in (folder, f"random:{folder}"):
        source = models.resolve(name, offline=True)
        plain, full = models.load(source, seed=4), models.load(source, seed=4, head=True)
        assert plain.predictor is None
        assert full.model is full.predictor.base_model
        assert len(full.heads.projections) == plain.n_layers
        before, after = measures.extract(plain, texts), measures.extract(full, texts)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        np.testing.assert_array_equal(after.transformations, before.transformations)
    again = models.load(source, seed=4, head=True)
    assert again.sha256 == full.sha256
    np.testing.assert_array_equal(
        extract_surprisal(again, ROWS).surprisal, extract_surprisal(full, ROWS).surprisal
    )
