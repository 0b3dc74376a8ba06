"""Attention measures of every family of the table equal plain formulas on the model's output."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bids_brainlm.language import models
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.language.attention import MEASURES, extract_attention
from bids_brainlm.language.tokens import windows
from bids_brainlm.simulate.models import MODEL_TYPES, write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends"
ROWS = ["So I was a", "", "junior in high", "school and I’d been to the weekends", "So I was a"]
N_LAYERS, N_HEADS = 3, 4
pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a maker of tiny models with one group of keys and values; each is a new folder."""

    def get(model_type, **settings):
        folder = write_tiny_model(
            tmp_path_factory.mktemp(model_type),
            model_type,
            TEXT,
            seed=5,
            n_layers=N_LAYERS,
            n_heads=N_HEADS,
            n_dims=32,
        )
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")
        return folder

    return get


def load(folder):
    """Load a model and sharpen its heads: with small random weights attention is uniform."""
    model = models.load(models.resolve(folder, offline=True), seed=1, attention="eager")
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


def read(model, context_trs=4):
    return windows(model.tokenizer, ROWS, context_trs, model.max_tokens)


def weights_of(model, passage):
    """Run one text alone, (n_layers, n_heads, n_tokens, n_tokens)."""
    with torch.no_grad():
        output = model.model(torch.tensor(passage.ids[None]), output_attentions=True)
    return torch.stack(output.attentions)[:, 0].double()


def plain(maps, own, special):
    """Work with whole maps and torch's triangles; special tokens stand at the ends only."""
    n = maps.shape[-1]
    inner = slice(int(special[0]), n - int(special[-1]))
    assert not special[inner].any()
    words = maps[..., inner, inner]
    rows = torch.tensor(own[inner])
    place = torch.arange(words.shape[-1], dtype=torch.float64)
    distance = (place[:, None] - place[None, :]).abs()
    back, ahead = torch.tril(words, -1)[..., rows, :], torch.triu(words, 1)[..., rows, :]
    far = distance[rows]
    n_own = int(own.sum())
    both = (back + ahead).flatten(-2)
    whole = maps[..., torch.tensor(own), :]

    def total(values):
        return values.sum(dim=(-2, -1))

    return {
        "norm1": both.norm(p=1, dim=-1),
        "norm2": both.norm(p=2, dim=-1),
        "normInf": both.norm(p=torch.inf, dim=-1),
        "lookback": torch.nan_to_num(total(back * far) / total(back)),
        "lookbackRaw": total(back * far) / n_own,
        "lookahead": torch.nan_to_num(total(ahead * far) / total(ahead)),
        "lookaheadRaw": total(ahead * far) / n_own,
        "entropy": torch.special.entr(whole).sum(-1).mean(-1) / np.log(2),
        "special": whole[..., torch.tensor(special)].sum(-1).mean(-1),
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_measures_of_every_family(folder_of, model_type):
    model = load(folder_of(model_type))
    assert (model.n_layers, model.n_heads) == (N_LAYERS, N_HEADS)
    found = extract_attention(model, read(model), len(ROWS))
    for passage in read(model):
        row = passage.rows[0]
        expected = plain(weights_of(model, passage), passage.owners == row, passage.special)
        for name in MEASURES:
            values = found.measures[name]
            assert values.shape == (len(ROWS), N_LAYERS, N_HEADS)
            np.testing.assert_allclose(
                values[row], expected[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name
            )
    spoken = [0, 2, 3, 4]
    assert np.isnan(found.measures["norm1"][1]).all()
    ahead = np.stack([found.measures[name][spoken] for name in ("lookahead", "lookaheadRaw")])
    assert (ahead == 0).all() if FAMILIES[model_type].causal else (ahead[:, :3] > 0).all()
    assert (found.measures["lookback"][[2, 3, 4]] >= 1).all()
    assert (np.ptp(found.measures["lookback"][4], axis=-1) > 0.1).all()  # heads differ


LOCAL = {  # settings, which blocks are local, how far back a token may look
    "gpt_neo": (
        {
            "attention_types": [[["global", "local", "global"], 1]],
            "attention_layers": ["global", "local", "global"],
            "window_size": 3,
        },
        [1],
        2,
    ),
    "modernbert": (
        {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "global_attn_every_n_layers": 3,
            "local_attention": 4,
        },
        [1, 2],
        2,
    ),
    "mistral": ({"sliding_window": 3}, [0, 1, 2], 2),
}


@pytest.mark.parametrize("model_type", LOCAL)
def test_local_attention_looks_back_within_its_window(folder_of, model_type):
    """Blocks that see a few tokens only are known by their distance, so layers are in order."""
    changes, local, reach = LOCAL[model_type]
    model = load(folder_of(model_type, **changes))
    found = extract_attention(model, read(model), len(ROWS))
    lookback = found.measures["lookback"][3]
    for layer in range(N_LAYERS):
        if layer in local:
            assert (lookback[layer] >= 1).all()
            assert (lookback[layer] <= reach).all()
        else:
            assert (lookback[layer] > reach).all()
    entropy = found.measures["entropy"][3][local]
    assert (entropy <= np.log2(2 * reach + 1)).all()
