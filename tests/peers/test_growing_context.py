"""A growing context in one forward pass equals the model run on each row's text alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_brainlm.errors import ConfigError
from bids_brainlm.language import contexts, measures, models, passes
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends"
ROWS = [
    *("", "So I was a", "junior in high", "", "school and I’d been to the weekends", "so", ""),
    *("high school weekends was", "I’d been (to the weekends),", "a junior was so high", "in to"),
]
ROWS = ROWS * 3
LIMIT, RESET = 48, 20
CAUSAL = [name for name, family in FAMILIES.items() if family.causal]
pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """Return a maker of tiny models whose heads differ."""

    def make(model_type, **settings):
        folder = tmp_path_factory.mktemp(model_type)
        write_tiny_model(folder, model_type, TEXT, seed=5, n_heads=4, n_dims=32)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")
        model = models.load(models.resolve(folder, offline=True), seed=1)
        with torch.no_grad():
            for parameter in model.model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)
        return model

    return make


def by_rows(model, rows, limit, reset):
    """Tell the text of each row by the rule alone: (row, ids, which of the last are its own).

    A lone space is read by the model, but is nobody's own.
    """
    whole = " ".join(row for row in rows if row)
    encoded = model.tokenizer(whole, return_offsets_mapping=True, return_special_tokens_mask=True)
    special = np.array(encoded["special_tokens_mask"], dtype=bool)
    ids = np.array(encoded["input_ids"])
    lead = ids[: np.argmin(special)].tolist()
    ids, spans = ids[~special], np.array(encoded["offset_mapping"])[~special]
    is_word = np.array([whole[first:last] not in ("", " ") for first, last in spans])
    found, context, position = [], [], 0
    for row, text in enumerate(rows):
        if not text:
            continue
        end = position + len(text)
        here = (spans[:, 1] > position - 1) & (spans[:, 1] <= end)
        own = ids[here].tolist()
        position = end + 1
        if len(lead) + len(context) + len(own) > limit:
            n_kept = min(reset, limit - len(lead) - len(own))
            context = context[-n_kept:] if n_kept else []
        found.append((row, lead + context + own, is_word[here]))
        context = context + own
    assert sum(len(own) for _, _, own in found) == len(ids)
    return found


def alone(model, ids, own):
    """Run one text and average over the own tokens at its end."""
    kept = []
    own = np.arange(len(ids) - len(own), len(ids))[own]
    handles = [
        module.register_forward_pre_hook(lambda _m, args: kept.append(args[0][0, own]))
        for module in model.heads.projections
    ]
    with torch.no_grad():
        states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    heads = [k.double().mean(0).reshape(model.n_heads, -1).numpy() for k in kept]
    return np.stack([s[0, own].double().mean(0).numpy() for s in states]), np.stack(heads)


def check(model, limit=LIMIT, reset=RESET):
    found = measures.extract(model, ROWS, context="growing", limit_tokens=limit, reset_tokens=reset)
    expected = by_rows(model, ROWS, limit, reset)
    spoken = [row for row, _, _ in expected]
    n_lead = len(contexts.leading(model.tokenizer))
    for row, ids, own in expected:
        embeddings, heads = alone(model, ids, own)
        np.testing.assert_allclose(found.embeddings[row], embeddings, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found.transformations[row], heads, atol=1e-5, rtol=1e-5)
        assert found.n_tokens[row] == own.sum()
        assert found.n_context_tokens[row] == len(ids) - len(own) + np.argmax(own) - n_lead
    silent = [row for row in range(len(ROWS)) if row not in spoken]
    assert np.isnan(found.embeddings[silent]).all()
    assert np.isnan(found.transformations[silent]).all()
    assert found.n_truncated == 0
    lengths = [len(ids) for _, ids, _ in expected]
    assert max(lengths) <= limit
    assert sum(len(own) for _, _, own in expected) > limit  # it was cut back at least once


@pytest.mark.parametrize("model_type", CAUSAL)
def test_one_pass_equals_row_by_row(get, model_type):
    model = get(model_type)
    assert model.causal
    check(model)


@pytest.mark.parametrize(("limit", "reset"), [(33, 0), (33, 33), (40, 1), (64, 63)])
def test_other_limits(get, limit, reset):
    check(get("gpt2"), limit, reset)


def test_a_decoder_with_tokens_before_and_behind_a_text(get):
    """BERT as a decoder: [CLS] stands before every stretch, [SEP] behind none."""
    model = get("bert", is_decoder=True)
    assert model.causal
    cls, sep = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    for passage in contexts.growing(model.tokenizer, ROWS, LIMIT, RESET, 512):
        assert passage.ids[0] == cls
        assert sep not in passage.ids
        assert passage.special.tolist() == [True] + [False] * (len(passage.ids) - 1)
    check(model)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3", "opt", "gpt_neox", "gemma3_text"])
def test_one_pass_equals_cached_keys_token_by_token(get, model_type):
    model = get(model_type)
    found = measures.extract(model, ROWS, context="growing", limit_tokens=LIMIT, reset_tokens=RESET)
    passages = contexts.growing(model.tokenizer, ROWS, LIMIT, RESET, 512)
    assert len(passages) > 2
    for passage in passages:
        states, past = [], None
        for token in passage.ids:
            with torch.no_grad():
                output = model.model(
                    torch.tensor([[token]]),
                    past_key_values=past,
                    use_cache=True,
                    output_hidden_states=True,
                )
            past = output.past_key_values
            states.append(torch.stack(output.hidden_states)[:, 0, 0].numpy())
        states = np.stack(states, axis=1)
        for row in passage.rows:
            mean = states[:, passage.owners == row].mean(1)
            np.testing.assert_allclose(found.embeddings[row], mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "modernbert", "deberta-v2"])
def test_bidirectional_models_are_refused(get, model_type):
    model = get(model_type)
    with pytest.raises(ConfigError, match="is bidirectional") as caught:
        measures.extract(model, ROWS, context="growing")
    assert "--context window" in caught.value.hint
    claims = replace(model, causal=True)  # a configuration that is wrong about itself
    with pytest.raises(ConfigError, match="is not causal") as caught:
        measures.extract(claims, ROWS, context="growing")
    assert "--context window" in caught.value.hint


def test_a_decoder_that_is_set_to_see_the_future(get):
    model = get("gemma3_text", use_bidirectional_attention=True)
    assert not model.causal
    with pytest.raises(ConfigError, match="is bidirectional"):
        measures.extract(model, ROWS, context="growing")


@pytest.mark.thorough
def test_the_longest_text_fits_every_family(get):
    """The limit that is read from the configuration is one that the model takes."""
    rows = ["junior in high school weekends " * 4] * 60
    for model_type in FAMILIES:
        model = get(model_type)
        assert model.max_tokens == 512
        context = {"context": "growing"} if model.causal else {"context_trs": 60}
        passages = contexts.passages(model, rows, limit_tokens=9999, reset_tokens=9999, **context)
        longest = max(passages, key=lambda passage: len(passage.ids))
        assert longest.n_cut > 0
        with torch.no_grad():
            states = model.model(torch.tensor(longest.ids[None])).last_hidden_state
        assert states.isfinite().all()
        assert states.shape[1] > 480


def test_filling_behind_the_end_changes_nothing(get):
    """The filled pass gives what the pass of the text alone gives."""
    model = get("llama")
    text = contexts.growing(model.tokenizer, ROWS, 512, 256, 512)[0]
    longer = passes.filled(text.ids, 200)
    assert len(longer) == 200
    assert longer[: len(text.ids)].tolist() == text.ids.tolist()
    with torch.no_grad():
        plain = model.model(torch.tensor(text.ids[None])).last_hidden_state
        more = model.model(torch.tensor(longer[None])).last_hidden_state
    torch.testing.assert_close(more[:, : len(text.ids)], plain, atol=1e-6, rtol=1e-5)
