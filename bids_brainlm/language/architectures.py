"""Where transformers keep their heads: a table of families, no code per family."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
_GPT_J = Family("h.*.attn.out_proj", causal=True)
_LLAMA = Family("layers.*.self_attn.o_proj", causal=True)
_LLAMA_ENCODER = Family("layers.*.self_attn.o_proj", causal=False)
_PHI = Family("layers.*.self_attn.dense", causal=True)
_BIOGPT = Family("layers.*.self_attn.out_proj", causal=True)
_BLOOM = Family("h.*.self_attention.dense", causal=True)

FAMILIES = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": _BERT,
        "xlm-roberta": _BERT,
        "xlm-roberta-xl": _BERT,
        "camembert": _BERT,
        "electra": _BERT,
        "ernie": _BERT,
        "rembert": _BERT,
        "roformer": _BERT,
        "deberta": _BERT,
        "deberta-v2": _BERT,
        "distilbert": Family("transformer.layer.*.attention.out_lin", causal=False),
        "albert": Family("encoder.albert_layer_groups.*.albert_layers.*.attention.dense", False),
        "mpnet": Family("encoder.layer.*.attention.attn.o", causal=False),
        "modernbert": Family("layers.*.attn.Wo", causal=False),
        "eurobert": _LLAMA_ENCODER,
        "nomic_bert": _LLAMA_ENCODER,
        "modernbert-decoder": Family("layers.*.attn.Wo", causal=True),
        "openai-gpt": _GPT,
        "gpt2": _GPT,
        "gpt_bigcode": _GPT,
        "gpt_neo": Family("h.*.attn.attention.out_proj", causal=True),
        "gptj": _GPT_J,
        "codegen": _GPT_J,
        "gpt_neox": Family("layers.*.attention.dense", causal=True),
        "opt": Family("decoder.layers.*.self_attn.out_proj", causal=True),
        "biogpt": _BIOGPT,
        "xglm": _BIOGPT,
        "bloom": _BLOOM,
        "falcon": _BLOOM,
        "mpt": Family("blocks.*.attn.out_proj", causal=True),
        "phi": _PHI,
        "persimmon": _PHI,
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "ministral": _LLAMA,
        "mixtral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen2_moe": _LLAMA,
        "qwen3": _LLAMA,
        "qwen3_moe": _LLAMA,
        "gemma": _LLAMA,
        "gemma2": _LLAMA,
        "gemma3_text": _LLAMA,
        "phi3": _LLAMA,
        "olmo": _LLAMA,
        "olmo2": _LLAMA,
        "olmo3": _LLAMA,
        "olmoe": _LLAMA,
        "cohere": _LLAMA,
        "cohere2": _LLAMA,
        "granite": _LLAMA,
        "stablelm": _LLAMA,
        "starcoder2": _LLAMA,
        "smollm3": _LLAMA,
        "glm4": _LLAMA,
        "helium": _LLAMA,
        "nemotron": _LLAMA,
        "apertus": _LLAMA,
        "exaone4": _LLAMA,
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


def is_causal(config: Mapping[str, Any]) -> bool:
    """Tell whether tokens see only what comes before them.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.

    Returns
    -------
    bool
        By the table; for other architectures, whether the model was saved as ``...ForCausalLM``
        or states ``is_decoder``.
    """
    if config.get("use_bidirectional_attention"):
        return False  # EmbeddingGemma and kin
    family = FAMILIES.get(str(config.get("model_type")))
    if config.get("is_decoder") or (family is not None and family.causal):
        return True
    names = config.get("architectures") or [""]
    return family is None and str(names[0]).endswith("ForCausalLM")


def _input_size(module: Any) -> int:
    """Return the number of inputs of a projection (linear, or GPT-2's transposed one)."""
    size = getattr(module, "in_features", None)
    return int(module.weight.shape[0] if size is None else size)
