"""What is captured is attention times value, head after head, for every family of the table.

Where values do not depend on positions, equal tokens have equal values in the first block. So
the values that attention weights and captured heads imply must be equal for equal tokens, which
fails if the heads are cut apart in any other way.
"""

from __future__ import annotations

import re

import pytest
import torch

from bids_brainlm.language import models
from bids_brainlm.language.architectures import FAMILIES
from bids_brainlm.language.capture import capture_heads
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends"
IDS = torch.tensor([[5, 9, 5, 7, 9, 9, 5, 7, 11, 5]])
# both directions and absolute positions: all is told by the modules that compute the values
VALUE_MODULES = re.compile(r".*(attention\.self\.value|attention\.v_lin|\.attention\.value)")
BY_MODULE = (
    *("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "electra", "ernie"),
    *("rembert", "distilbert", "albert"),
)
POSITIONS = re.compile(r"wpe|positions_embed|embed_positions|position_embeddings")
ROTARY = ("gptj", "codegen", "roformer")  # their embed_positions turn queries and keys only
pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """Return a maker of tiny models in float64 whose heads differ."""

    def make(model_type):
        folder = tmp_path_factory.mktemp(model_type)
        write_tiny_model(folder, model_type, TEXT, seed=5, n_heads=4, n_dims=32)
        model = models.load(models.resolve(folder, offline=True), seed=1, attention="eager")
        model.model.config._experts_implementation = "eager"
        if model_type != "xglm":  # whose mask only float32 can hold
            model.model.double()
        for name, parameter in model.model.named_parameters():
            if parameter.ndim == 2 and "att" in name:
                parameter.mul_(8)
        return model

    return make


def first_block(model):
    """Return attention (n_heads, n_tokens, n_tokens) and heads (n_heads, n_tokens, head_dim)."""
    kept = {}
    with torch.no_grad(), capture_heads(model.heads, kept.setdefault):
        attention = model.model(IDS, output_attentions=True).attentions[0][0]
    return attention.double(), kept[0][0].transpose(0, 1).double()


def spread(attention, heads):
    """How far the implied values of equal tokens are apart, relative to the largest."""
    values = torch.linalg.solve(attention, heads)
    same = IDS[0][:, None] == IDS[0][None, :]
    apart = (values[:, :, None] - values[:, None, :]).abs().amax((0, 3))
    return float(apart[same].max() / values.abs().max())


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name not in BY_MODULE])
def test_equal_tokens_have_equal_values(get, model_type):
    model = get(model_type)
    if model_type not in ROTARY:
        with torch.no_grad():
            tensors = [*model.model.named_parameters(), *model.model.named_buffers()]
            for tensor in (t for name, t in tensors if POSITIONS.search(name)):
                tensor.zero_()
    attention, heads = first_block(model)
    assert heads.shape == (4, 10, 8)
    assert (attention[0] - attention[1]).abs().max() > 1e-4
    assert spread(attention, heads) < 1e-3
    joined = heads.transpose(0, 1).reshape(10, 32)
    other = joined.reshape(10, 8, 4).permute(2, 0, 1)
    assert spread(attention, other) > 1e-2


@pytest.mark.parametrize("model_type", BY_MODULE)
def test_values_of_the_value_module(get, model_type):
    model = get(model_type)
    kept = []
    module = next(m for name, m in model.model.named_modules() if VALUE_MODULES.fullmatch(name))
    handle = module.register_forward_hook(lambda _m, _args, output: kept.append(output[0]))
    attention, heads = first_block(model)
    handle.remove()
    values = kept[0].reshape(10, 4, 8).transpose(0, 1)
    torch.testing.assert_close(heads, attention @ values.double(), atol=1e-9, rtol=1e-9)
    assert (heads - attention.roll(1, 0) @ values).abs().max() > 1e-4
