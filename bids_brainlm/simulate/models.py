"""Tiny language models with random weights and real tokenizers, for tests and trials."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError, OutputError
from bids_brainlm.language.libraries import quiet_transformers
from bids_brainlm.language.wordpieces import wordpiece_tokenizer

MAX_TOKENS = 512
WORD_PIECES = (
    *("bert", "distilbert", "albert", "electra", "mpnet", "ernie", "rembert", "roformer"),
    "nomic_bert",
)
BYTE_PAIRS_ENCODER = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "modernbert", "eurobert"),
    *("deberta", "deberta-v2", "modernbert-decoder"),  # the last has its encoder's tokenizer
)
BYTE_PAIRS = (
    *("openai-gpt", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "gpt_neox", "codegen"),
    *("opt", "biogpt", "xglm", "bloom", "falcon", "mpt", "phi", "phi3", "persimmon"),
    *("llama", "mistral", "ministral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "olmo3", "olmoe", "cohere", "cohere2"),
    *("granite", "stablelm", "starcoder2", "smollm3", "glm4", "helium", "nemotron", "apertus"),
    "exaone4",
)
MODEL_TYPES = (*WORD_PIECES, *BYTE_PAIRS_ENCODER, *BYTE_PAIRS)
N_BYTE_PAIRS = 400  # vocabulary of byte-level tokenizers: 256 bytes, special tokens and merges


def write_tiny_model(
    folder: Path,
    model_type: str,
    vocabulary_text: str,
    *,
    seed: int,
    n_layers: int = 2,
    n_heads: int = 2,
    n_dims: int = 16,
    head: bool = False,
) -> Path:
    """Write a tiny model with random weights, as ``--model FOLDER`` reads it.

    Parameters
    ----------
    folder : Path
        New or empty folder.
    model_type : str
        A family of `language.architectures`, e.g. ``bert`` or ``gpt2``.
    vocabulary_text : str
        The tokenizer is made from its words: WordPiece for BERT and kin, byte-level BPE for
        the others.
    seed : int
        For the weights.
    n_layers, n_heads, n_dims : int
        Blocks, heads of a block, units of an embedding.
    head : bool
        Whether to write a language-model head too, for surprisal; causal families only.

    Returns
    -------
    Path
        The folder. Everyone may read its files.

    Raises
    ------
    ConfigError
        The family is unknown, or ``n_dims`` is no multiple of ``n_heads``.
    OutputError
        The folder cannot be written.

    Notes
    -----
    Families with grouped keys and values get one group for all heads.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    if model_type not in MODEL_TYPES:
        raise ConfigError(
            f"model type: found {model_type!r}, expected one of {', '.join(MODEL_TYPES)}."
        )
    if n_dims % (2 * n_heads):
        raise ConfigError(
            f"found {n_dims} units for {n_heads} heads, expected a multiple of twice the heads."
        )
    tokenizer = _tokenizer(model_type, vocabulary_text)
    config = _config(model_type, tokenizer, (n_layers, n_heads, n_dims))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        kind = AutoModelForCausalLM if head else AutoModel
        model = kind.from_config(config, dtype=torch.float32).eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            tokenizer.save_pretrained(folder)
            model.save_pretrained(folder)
        for name in os.listdir(folder):
            (folder / name).chmod(0o644)
        folder.chmod(0o755)
    except OSError as error:
        raise OutputError(f"{folder}: the model cannot be written ({error}).") from error
    return folder


def _tokenizer(model_type: str, text: str) -> Any:
    """Make the tokenizer of a family."""
    if model_type in WORD_PIECES:
        return wordpiece_tokenizer(_word_pieces(text), MAX_TOKENS)
    return _byte_pair_tokenizer(text, is_encoder=model_type in BYTE_PAIRS_ENCODER)


def _word_pieces(text: str) -> list[str]:
    """Return every second word, the beginnings and ends of the others, and all characters."""
    words = sorted({word.strip(".,;:!?\"'()“”").lower() for word in text.split()} - {""})
    whole, split = words[::2], words[1::2]
    starts = [word[:3] for word in split]
    ends = [f"##{word[3:]}" for word in split if len(word) > 3]
    characters: Sequence[str] = sorted(set(text.lower()) - set(" \t\r\n"))
    return [*characters, *(f"##{character}" for character in characters), *starts, *ends, *whole]


def _byte_pair_tokenizer(text: str, *, is_encoder: bool) -> Any:
    """Train byte-level BPE; encoders get RoBERTa's special tokens around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if is_encoder else ["<|endoftext|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_BYTE_PAIRS,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([text], trainer)
    if not is_encoder:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
        end = special[0]
        return PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token=end, eos_token=end, model_max_length=MAX_TOKENS
        )
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    tokens = dict(zip(names, special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=MAX_TOKENS,
        **tokens,
    )


def _config(model_type: str, tokenizer: Any, sizes: tuple[int, int, int]) -> Any:
    """Make the configuration of a tiny model."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    n_layers, n_heads, n_dims = sizes
    pad = tokenizer.pad_token_id
    values: dict[str, object] = {
        "hidden_size": n_dims,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": 1,
        "head_dim": n_dims // n_heads,
        "intermediate_size": 2 * n_dims,
        "embedding_size": n_dims,
        "word_embed_proj_dim": n_dims,
        "ffn_dim": 2 * n_dims,
        "rotary_dim": n_dims // n_heads,
        "max_position_embeddings": MAX_TOKENS + (2 if model_type != "gpt2" else 0),
        "attention_types": [[["global"], n_layers]],
        "pad_token_id": pad,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "max_seq_len": MAX_TOKENS,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
        "moe_intermediate_size": 2 * n_dims,
        "shared_expert_intermediate_size": 2 * n_dims,
        "num_local_experts": 2,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "query_pre_attn_scalar": n_dims // n_heads,
    }
    if model_type == "openai-gpt":
        values["initializer_range"] = 0.1  # no norm before the first block; heads would be alike
    kind = CONFIG_MAPPING[model_type]
    aliases = dict(kind.attribute_map)
    known = set(vars(kind())) | set(getattr(kind, "__annotations__", {}))
    chosen = {aliases.get(name, name): value for name, value in values.items()}
    return AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        **{name: value for name, value in chosen.items() if name in known},
    )
