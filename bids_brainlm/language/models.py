"""Load language models: safetensors only, no foreign code, never by surprise from the network."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError, ModelUnavailableError
from bids_brainlm.language.architectures import Heads, find_heads, is_causal
from bids_brainlm.language.folders import file_sha256, weight_files
from bids_brainlm.language.libraries import quiet_transformers
from bids_brainlm.language.products import TORCH, choose
from bids_brainlm.language.sources import ModelSource, from_folder, resolve
from bids_brainlm.language.weights import (
    HEAD_HINT,
    first_line,
    load_config,
    load_head,
    load_weights,
    named,
)
from bids_brainlm.language.wordpieces import character_pieces, wordpiece_tokenizer

__all__ = ["LanguageModel", "ModelSource", "download", "load", "resolve"]

log = logging.getLogger(__name__)

ATTENTION = ("sdpa", "eager")
NO_LIMIT = 10**6  # tokenizers state absurd numbers where they know no limit
FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A language model that is ready to run.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        The base model in evaluation mode, float32.
    tokenizer : transformers tokenizer
        A fast one.
    source : ModelSource
        Where it comes from.
    n_layers, n_heads, head_dim, n_dims : int
        Blocks, heads of a block, units of a head (0 if the heads cannot be read), units of
        an embedding.
    causal : bool
        Whether tokens see only what comes before them.
    sha256 : str
        Of the weights: of ``model.safetensors``; of the parts' hexadecimal sums in order of
        their names, where there are several; of the parameters, for random weights.
    tokenizer_sha256 : str
        Of ``tokenizer.json``; of its content as the library writes it, where there is none.
    revision : str or None
        Commit on the hub, where known.
    architecture : str
        Name of the class, e.g. ``BertModel``.
    max_tokens : int or None
        The longest text, special tokens included.
    heads : Heads or None
        None where they cannot be read; ``no_heads_reason`` tells why.
    predictor : transformers.PreTrainedModel or None
        The model with its language-model head, around the same ``model``; None unless loaded
        with ``head=True``.
    products : str
        What multiplies the matrices of linear layers, see `products.choose`.
    """

    model: Any
    tokenizer: Any
    source: ModelSource
    n_layers: int
    n_heads: int
    head_dim: int
    n_dims: int
    causal: bool
    sha256: str
    tokenizer_sha256: str
    revision: str | None
    architecture: str
    max_tokens: int | None
    heads: Heads | None
    no_heads_reason: str | None
    predictor: Any | None = None
    products: str = TORCH


def load(
    source: ModelSource,
    *,
    seed: int,
    device: str = "cpu",
    attention: str = "sdpa",
    head: bool = False,
) -> LanguageModel:
    """Load a model and its tokenizer, and download them first if the source says so.

    Parameters
    ----------
    source : ModelSource
        From `resolve`.
    seed : int
        For the weights of ``random`` models; the same seed gives the same weights.
    device : str
        As torch writes it: ``cpu``, ``cuda``, ``cuda:1``.
    attention : str
        ``sdpa`` (fast) or ``eager`` (the plain formula).
    head : bool
        Whether the language-model head is needed, which predicts the next token.

    Returns
    -------
    LanguageModel

    Raises
    ------
    ConfigError
        The device is not there, the model is no text encoder or decoder, or a head is needed
        and the model is not causal.
    ModelUnavailableError
        A file is missing, cannot be downloaded, or there is no fast tokenizer.
    DataError
        A file is damaged, or weights are missing in it.

    Notes
    -----
    Only safetensors are read, and no code from the model's folder is run. Weights that are
    missing in the file are an error, never drawn at random; only the pooler on top, which is
    not used, may be absent, and a head that shares its weights with the input embeddings.
    """
    if attention not in ATTENTION:
        raise ConfigError(f"attention: found {attention!r}, expected one of {ATTENTION}.")
    target = _device(device)
    if source.needs_download:
        with_weights = source.kind == "pretrained"
        source = from_folder(source, download(source.name, source.cache, weights=with_weights))
    with quiet_transformers():
        tokenizer = _tokenizer(source)
        config = load_config(source, len(tokenizer))
        predictor = _predictor(source, config, seed, attention) if head else None
        model = (
            load_weights(source, config, seed, attention)
            if predictor is None
            else (predictor.base_model)
        )
    config = model.config
    n_layers, n_heads, n_dims = _sizes(source, config)
    heads, reason = find_heads(model, config.model_type, n_layers, n_heads)
    if reason is not None:
        log.warning("Model %s: %s; only embeddings are extracted.", source.name, reason)
    whole = model if predictor is None else predictor
    whole.requires_grad_(False).to(target).eval()
    return LanguageModel(
        model,
        tokenizer,
        source,
        n_layers,
        n_heads,
        0 if heads is None else heads.head_dim,
        n_dims,
        is_causal(config.to_dict()),
        _weights_sha256(source, whole),
        _tokenizer_sha256(source, tokenizer),
        source.revision,
        type(whole).__name__,
        _max_tokens(model, tokenizer),
        heads,
        reason,
        predictor,
        choose(target),
    )


def _predictor(source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load a causal model with its head."""
    if not is_causal(config.to_dict()):
        raise ConfigError(
            f"model {source.name} is bidirectional, surprisal needs a causal model.",
            hint=HEAD_HINT,
        )
    return load_head(source, config, seed, attention)


def _sizes(source: ModelSource, config: Any) -> tuple[int, int, int]:
    """Return the numbers of blocks, heads and units."""
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    n_layers, n_heads, n_dims = (getattr(config, name, None) for name in names)
    if isinstance(n_layers, int) and isinstance(n_heads, int) and isinstance(n_dims, int):
        return n_layers, n_heads, n_dims
    raise ConfigError(
        f"model {source.name}: the configuration does not state {', '.join(names)}, expected "
        "a text model.",
        hint="Choose another --model, e.g. google-bert/bert-base-uncased or gpt2.",
    )


def download(
    name: str,
    models_dir: str | Path | None = None,
    *,
    revision: str | None = None,
    weights: bool = True,
) -> Path:
    """Download a model from the hub into a Hugging Face cache.

    Parameters
    ----------
    name : str
        Hub name, ``org/name``.
    models_dir : str or Path, optional
        The cache; by default that of Hugging Face. `resolve` finds the model there.
    revision : str, optional
        Commit, branch or tag.
    weights : bool
        Whether the weights are needed, not just configuration and tokenizer.

    Returns
    -------
    Path
        The snapshot's folder.

    Raises
    ------
    ModelUnavailableError
        No network, no such model, or no permission.
    """
    from huggingface_hub import snapshot_download

    files = [pattern for pattern in FILES if weights or "safetensors" not in pattern]
    try:
        found = snapshot_download(
            name, revision=revision, cache_dir=models_dir or None, allow_patterns=files
        )
    except Exception as error:
        raise ModelUnavailableError(
            f"model {name!r} could not be downloaded "
            f"({type(error).__name__}: {first_line(error)}).",
            hint=f"Check the name and the network, run bids_brainlm-fetch --model {name} where "
            "there is one, or give a local folder with --model or --models-dir.",
        ) from error
    return Path(found)


def _device(device: str) -> Any:
    """Return a torch device that can be used."""
    import torch

    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (ImportError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {device!r} cannot be used ({first_line(error)}).",
            hint="Use --device cpu, or a device that torch finds here.",
        ) from error
    return target


def _tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer, which must be a fast one."""
    from transformers import AutoTokenizer

    if source.is_built_in:
        return wordpiece_tokenizer(
            character_pieces(), int(str(source.config["max_position_embeddings"]))
        )
    with named(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            str(source.path), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelUnavailableError(
            f"{source.path}: found a slow tokenizer, expected a fast one, which knows the "
            "characters of each token.",
            hint="Save the tokenizer again with tokenizer.json, or choose another --model.",
        )
    return tokenizer


def _max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Return the longest text; RoBERTa and kin start counting behind the padding's number."""
    limits = [int(tokenizer.model_max_length)]
    for name in ("max_position_embeddings", "max_seq_len"):
        positions = getattr(model.config, name, None)
        if not isinstance(positions, int):
            continue
        shift = getattr(getattr(model, "embeddings", None), "padding_idx", None)
        limits.append(positions - (0 if shift is None else shift + 1))
    found = [limit for limit in limits if 0 < limit < NO_LIMIT]
    return min(found) if found else None


def _weights_sha256(source: ModelSource, model: Any) -> str:
    """Return the checksum of the weights."""
    if source.kind == "pretrained":
        sums = [file_sha256(file) for file in weight_files(Path(str(source.path)))]
        if len(sums) == 1:
            return sums[0]
        return hashlib.sha256("".join(sums).encode()).hexdigest()
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tokenizer_sha256(source: ModelSource, tokenizer: Any) -> str:
    """Return the checksum of the tokenizer."""
    file = None if source.path is None else source.path / "tokenizer.json"
    if file is not None and file.is_file():
        return file_sha256(file)
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
