"""Load language models: safetensors only, no foreign code, never by surprise from the network."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainlm.errors import BrainLMError, ConfigError, DataError, ModelUnavailableError
from bids_brainlm.language.architectures import FAMILIES, Heads, find_heads
from bids_brainlm.language.folders import file_sha256, weight_files
from bids_brainlm.language.libraries import quiet_transformers
from bids_brainlm.language.sources import ModelSource, from_folder, resolve
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


def load(
    source: ModelSource, *, seed: int, device: str = "cpu", attention: str = "sdpa"
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

    Returns
    -------
    LanguageModel

    Raises
    ------
    ConfigError
        The device is not there, or the model is no text encoder or decoder.
    ModelUnavailableError
        A file is missing, cannot be downloaded, or there is no fast tokenizer.
    DataError
        A file is damaged, or weights are missing in it.

    Notes
    -----
    Only safetensors are read, and no code from the model's folder is run. Weights that are
    missing in the file are an error, never drawn at random; only the pooler on top, which is
    not used, may be absent.
    """
    if attention not in ATTENTION:
        raise ConfigError(f"attention: found {attention!r}, expected one of {ATTENTION}.")
    target = _device(device)
    if source.needs_download:
        with_weights = source.kind == "pretrained"
        source = from_folder(source, download(source.name, source.cache, weights=with_weights))
    with quiet_transformers():
        tokenizer = _tokenizer(source)
        model = _model(source, seed, attention)
    config = model.config
    n_layers, n_heads, n_dims = _sizes(source, config)
    heads, reason = find_heads(model, config.model_type, n_layers, n_heads)
    if reason is not None:
        log.warning("Model %s: %s; only embeddings are extracted.", source.name, reason)
    model.requires_grad_(False)
    return LanguageModel(
        model.to(target).eval(),
        tokenizer,
        source,
        n_layers,
        n_heads,
        0 if heads is None else heads.head_dim,
        n_dims,
        _is_causal(config),
        _weights_sha256(source, model),
        _tokenizer_sha256(source, tokenizer),
        source.revision,
        type(model).__name__,
        _max_tokens(model, tokenizer),
        heads,
        reason,
    )


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
            f"model {name!r} could not be downloaded ({type(error).__name__}: {_first(error)}).",
            hint=f"Check the name and the network, run bids_brainlm-fetch --model {name} where "
            "there is one, or give a local folder with --model or --models-dir.",
        ) from error
    return Path(found)


def _first(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def _device(device: str) -> Any:
    """Return a torch device that can be used."""
    import torch

    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {device!r} cannot be used ({_first(error)}).",
            hint="Use --device cpu, or a device that torch finds here.",
        ) from error
    return target


@contextmanager
def _named(source: ModelSource, what: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged files into an error that names them."""
    try:
        yield
    except BrainLMError:
        raise
    except Exception as error:
        raise DataError(
            f"{source.path or source.name}: the {what} cannot be loaded "
            f"({type(error).__name__}: {_first(error)}).",
            hint="Get the files again, or choose another --model.",
        ) from error


def _tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer, which must be a fast one."""
    from transformers import AutoTokenizer

    if source.is_built_in:
        return wordpiece_tokenizer(
            character_pieces(), int(str(source.config["max_position_embeddings"]))
        )
    with _named(source, "tokenizer"):
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


def _config(source: ModelSource) -> Any:
    """Return the configuration as transformers has it."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(source.config["model_type"])
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"model {source.name}: the architecture {model_type!r} is not in this version of "
            "transformers, and code from model folders is never run.",
            hint="Choose another --model, e.g. google-bert/bert-base-uncased or gpt2.",
        )
    with _named(source, "configuration"):
        if source.is_built_in:
            rest = {key: value for key, value in source.config.items() if key != "model_type"}
            size = len(_tokenizer(source))
            return AutoConfig.for_model(model_type, vocab_size=size, **rest)
        return AutoConfig.from_pretrained(
            str(source.path), local_files_only=True, trust_remote_code=False
        )


def _model(source: ModelSource, seed: int, attention: str) -> Any:
    """Load or draw the weights."""
    config = _config(source)
    try:
        return _weights(source, config, seed, attention)
    except DataError as error:
        cause = error.__cause__
        if attention == "sdpa" and "scaled_dot_product_attention" in str(cause):
            log.info("Model %s has no sdpa attention; eager is used.", source.name)
            return _weights(source, config, seed, "eager")
        raise


def _weights(source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load or draw the weights with one way of attention."""
    import torch
    from transformers import AutoModel

    with _named(source, "weights"):
        if source.kind == "random":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                return AutoModel.from_config(
                    config,
                    dtype=torch.float32,
                    attn_implementation=attention,
                    trust_remote_code=False,
                )
        model, report = AutoModel.from_pretrained(
            str(source.path),
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(
            f"{source.path}: {len(missing)} weights are missing, first {missing[0]!r}; expected "
            f"all of {type(model).__name__}.",
            hint="Get the files again, or choose another --model.",
        )
    return model


def _is_causal(config: Any) -> bool:
    """Tell whether tokens see only what comes before them."""
    family = FAMILIES.get(config.model_type)
    if family is not None:
        return family.causal or bool(getattr(config, "is_decoder", False))
    names = getattr(config, "architectures", None) or [""]
    return bool(getattr(config, "is_decoder", False)) or names[0].endswith("ForCausalLM")


def _max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Return the longest text; RoBERTa and kin start counting behind the padding's number."""
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int):
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
