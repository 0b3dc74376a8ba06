"""Where transformers keep their heads: a table of families, no code per family."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """A family of language models.

    ``projection`` is the path of the attention output projection of each block, ``*`` stands
    for a number. Its input is the concatenation of the heads' outputs, head after head.
    ``causal`` tells whether tokens see only what comes before them.
    """

    projection: str
    causal: bool


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a model: modules whose inputs hold them, in order of the blocks."""

    projections: tuple[Any, ...]
    n_heads: int
    head_dim: int


_BERT = Family("encoder.layer.*.attention.output.dense", causal=False)
_GPT = Family("h.*.attn.c_proj", causal=True)
_LLAMA = Family("layers.*.self_attn.o_proj", causal=True)

FAMILIES = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": _BERT,
        "xlm-roberta": _BERT,
        "camembert": _BERT,
        "electra": _BERT,
        "distilbert": Family("transformer.layer.*.attention.out_lin", causal=False),
        "albert": Family("encoder.albert_layer_groups.*.albert_layers.*.attention.dense", False),
        "mpnet": Family("encoder.layer.*.attention.attn.o", causal=False),
        "modernbert": Family("layers.*.attn.Wo", causal=False),
        "gpt2": _GPT,
        "gpt_neo": Family("h.*.attn.attention.out_proj", causal=True),
        "gptj": Family("h.*.attn.out_proj", causal=True),
        "gpt_neox": Family("layers.*.attention.dense", causal=True),
        "opt": Family("decoder.layers.*.self_attn.out_proj", causal=True),
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma": _LLAMA,
    }
)


def find_heads(
    model: Any, model_type: str, n_layers: int, n_heads: int
) -> tuple[Heads | None, str | None]:
    """Find the attention output projections of a model.

    Parameters
    ----------
    model : torch.nn.Module
        The base model, without a task head.
    model_type : str
        As in ``config.json``, e.g. ``bert``.
    n_layers, n_heads : int
        Blocks, and attention heads of a block.

    Returns
    -------
    heads : Heads or None
        None where they cannot be read.
    reason : str or None
        Why not.

    Notes
    -----
    Modules that several blocks share (ALBERT) are listed once. The size of a head is taken
    from the projection itself, so grouped keys and values make no difference.
    """
    family = FAMILIES.get(model_type)
    if family is None:
        return None, f"the attention heads of the architecture {model_type!r} are not known"
    pattern = re.compile(re.escape(family.projection).replace(r"\*", r"\d+"))
    found = tuple(module for name, module in model.named_modules() if pattern.fullmatch(name))
    if not found or n_layers % len(found):
        return None, (
            f"found {len(found)} modules {family.projection} in {type(model).__name__}, expected "
            f"{n_layers}"
        )
    sizes = {_input_size(module) for module in found}
    size = sizes.pop()
    if sizes or n_heads < 1 or size % n_heads:
        return None, f"the heads of {type(model).__name__} differ in size between blocks"
    return Heads(found, n_heads, size // n_heads), None


def _input_size(module: Any) -> int:
    """Return the number of inputs of a projection (linear, or GPT-2's transposed one)."""
    size = getattr(module, "in_features", None)
    return int(module.weight.shape[0] if size is None else size)
