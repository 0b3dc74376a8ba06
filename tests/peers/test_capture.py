"""Captured heads equal attention @ value, for every family of the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_brainlm.language import measures, models
from bids_brainlm.language.architectures import FAMILIES, find_heads
from bids_brainlm.language.capture import capture_heads
from bids_brainlm.simulate.models import MODEL_TYPES, write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends"
ROWS = ["So I was a", "", "junior in high", "school and I’d been to the weekends"]
pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a maker of tiny models with four heads, one group of keys and values."""
    made = {}

    def get(model_type):
        if model_type not in made:
            made[model_type] = write_tiny_model(
                tmp_path_factory.mktemp(model_type), model_type, TEXT, seed=5, n_heads=4, n_dims=32
            )
        return made[model_type]

    return get


def load(folder, attention="sdpa"):
    return models.load(models.resolve(folder, offline=True), seed=1, attention=attention)


def ids_of(model):
    return torch.tensor([model.tokenizer(TEXT)["input_ids"], model.tokenizer(TEXT)["input_ids"]])


def captured(model, ids):
    """Return the heads of every block, (n_layers, n_texts, n_tokens, n_heads, head_dim)."""
    kept = []
    with torch.no_grad(), capture_heads(model.heads, lambda layer, z: kept.append((layer, z))):
        model.model(ids)
    assert [layer for layer, _ in kept] == list(range(model.n_layers))
    return torch.stack([z for _, z in kept])


def bert_values(model, layer, state):
    return model.encoder.layer[layer].attention.self.value(state)


def gpt2_values(model, layer, state):
    block = model.h[layer]
    return block.attn.c_attn(block.ln_1(state)).split(state.shape[-1], dim=-1)[2]


def llama_values(model, layer, state):
    block = model.layers[layer]
    return block.self_attn.v_proj(block.input_layernorm(state))


def gpt_neox_values(model, layer, state):
    block = model.layers[layer]
    n_heads = model.config.num_attention_heads
    joined = block.attention.query_key_value(block.input_layernorm(state))
    return joined.reshape(*state.shape[:2], n_heads, 3, -1)[..., 2, :]


def opt_values(model, layer, state):
    block = model.decoder.layers[layer]
    return block.self_attn.v_proj(block.self_attn_layer_norm(state))


VALUES = {
    "bert": bert_values,
    "roberta": bert_values,
    "electra": bert_values,
    "gpt2": gpt2_values,
    "gpt_neox": gpt_neox_values,
    "opt": opt_values,
    "llama": llama_values,
    "mistral": llama_values,
    "qwen2": llama_values,
}


@pytest.mark.parametrize("model_type", VALUES)
def test_heads_are_attention_times_value(folder_of, model_type):
    model = load(folder_of(model_type))
    eager = load(folder_of(model_type), "eager")
    ids = ids_of(model)
    found = captured(model, ids)
    with torch.no_grad():
        output = eager.model(ids, output_attentions=True, output_hidden_states=True)
        for layer in range(model.n_layers):
            value = VALUES[model_type](eager.model, layer, output.hidden_states[layer])
            value = value.reshape(*ids.shape, -1, model.head_dim)
            value = value.repeat_interleave(model.n_heads // value.shape[2], dim=2)
            expected = torch.einsum("bhij,bjhd->bihd", output.attentions[layer], value)
            torch.testing.assert_close(found[layer], expected, atol=1e-5, rtol=0)
    if model_type == "llama":
        assert eager.model.config.num_key_value_heads == 1 < model.n_heads


def project(module, heads):
    """Mix heads by hand: the sum of each head times its own columns."""
    n_heads, head_dim = heads.shape[-2:]
    weight = module.weight.T if hasattr(module, "in_features") else module.weight
    parts = weight.reshape(n_heads, head_dim, -1)
    mixed = torch.einsum("bthd,hdo->bto", heads, parts)
    return mixed if module.bias is None else mixed + module.bias


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_projected_heads_are_the_attention_output(folder_of, model_type):
    model = load(folder_of(model_type))
    assert model.no_heads_reason is None
    assert (model.n_layers, model.n_heads, model.head_dim, model.n_dims) == (2, 4, 8, 32)
    assert model.causal == FAMILIES[model_type].causal
    outputs = []
    handles = [
        module.register_forward_hook(lambda _m, _i, out: outputs.append(out))
        for module in model.heads.projections
    ]
    ids = ids_of(model)
    found = captured(model, ids)
    for handle in handles:
        handle.remove()
    shared = len(model.heads.projections) == 1
    for layer, (heads, output) in enumerate(zip(found, outputs, strict=True)):
        module = model.heads.projections[0 if shared else layer]
        with torch.no_grad():
            torch.testing.assert_close(project(module, heads), output, atol=1e-5, rtol=0)
    features = measures.extract(model, ROWS, context_trs=2)
    assert np.isfinite(features.transformations[[0, 2, 3]]).all()
    assert np.isfinite(features.embeddings[[0, 2, 3]]).all()
    assert np.isnan(features.embeddings[1]).all()


def test_the_table_and_the_tiny_models_agree():
    assert set(MODEL_TYPES) == set(FAMILIES)


def test_minilm(minilm):
    model = load(minilm)
    eager = load(minilm, "eager")
    ids = ids_of(model)
    found = captured(model, ids)
    with torch.no_grad():
        output = eager.model(ids, output_attentions=True, output_hidden_states=True)
        for layer in range(6):
            value = bert_values(eager.model, layer, output.hidden_states[layer])
            value = value.reshape(*ids.shape, 12, 32)
            expected = torch.einsum("bhij,bjhd->bihd", output.attentions[layer], value)
            torch.testing.assert_close(found[layer], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("where", ["consumer", "model"])
def test_hooks_are_removed_after_an_exception(folder_of, where):
    model = load(folder_of("bert"))

    def consume(layer, heads):
        if where == "consumer" and layer == 1:
            raise ValueError("on purpose")

    ids = ids_of(model) if where == "consumer" else torch.tensor([[10**6]])
    with pytest.raises((ValueError, IndexError)), capture_heads(model.heads, consume):
        model.model(ids)
    assert not any(module._forward_pre_hooks for module in model.model.modules())


def test_unknown_family_gives_embeddings_only(folder_of):
    model = load(folder_of("bert"))
    heads, reason = find_heads(model.model, "newbert", 2, 4)
    assert heads is None
    assert "'newbert'" in reason
    heads, reason = find_heads(model.model, "gpt2", 2, 4)
    assert heads is None
    assert "found 0 modules h.*.attn.c_proj in BertModel, expected 2" in reason


def test_unknown_family_end_to_end(tmp_path, caplog):
    from transformers import AutoModel, XLNetConfig

    folder = write_tiny_model(tmp_path, "bert", TEXT, seed=1)
    size = load(folder).model.config.vocab_size
    config = XLNetConfig(vocab_size=size, d_model=16, n_layer=2, n_head=2, d_inner=32)
    AutoModel.from_config(config).save_pretrained(folder)
    model = load(folder)
    assert model.heads is None
    assert model.head_dim == 0
    assert "'xlnet'" in model.no_heads_reason
    assert "only embeddings are extracted" in caplog.text
    found = measures.extract(model, ROWS)
    assert found.transformations is None
    assert found.magnitudes is None
    assert np.isfinite(found.embeddings[0]).all()
