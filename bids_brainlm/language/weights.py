"""Configurations and weights: safetensors only, no foreign code, nothing missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bids_brainlm.errors import BrainLMError, ConfigError, DataError
from bids_brainlm.language.sources import ModelSource

log = logging.getLogger(__name__)

HEAD_HINT = "Choose a causal --model, e.g. gpt2, or leave surprisal out of --features."


def first_line(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).strip().splitlines() or [""])[0][:300]


@contextmanager
def named(source: ModelSource, what: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged files into an error that names them.

    Parameters
    ----------
    source : ModelSource
        Whose files are read.
    what : str
        What is read, for messages.

    Yields
    ------
    None

    Raises
    ------
    DataError
        The library raised.
    """
    try:
        yield
    except BrainLMError:
        raise
    except Exception as error:
        raise DataError(
            f"{source.path or source.name}: the {what} cannot be loaded "
            f"({type(error).__name__}: {first_line(error)}).",
            hint="Get the files again, or choose another --model.",
        ) from error


def load_config(source: ModelSource, n_tokens: int) -> Any:
    """Return the configuration as transformers has it.

    Parameters
    ----------
    source : ModelSource
        From `sources.resolve`.
    n_tokens : int
        Size of the vocabulary of built-in models.

    Returns
    -------
    transformers.PreTrainedConfig

    Raises
    ------
    ConfigError
        The architecture is not in transformers.
    DataError
        The file is damaged.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(source.config["model_type"])
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"model {source.name}: the architecture {model_type!r} is not in this version of "
            "transformers, and code from model folders is never run.",
            hint="Choose another --model, e.g. google-bert/bert-base-uncased or gpt2.",
        )
    with named(source, "configuration"):
        if source.is_built_in:
            rest = {key: value for key, value in source.config.items() if key != "model_type"}
            return AutoConfig.for_model(model_type, vocab_size=n_tokens, **rest)
        return AutoConfig.from_pretrained(
            str(source.path), local_files_only=True, trust_remote_code=False
        )


def load_weights(source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load or draw the weights of a base model.

    Parameters
    ----------
    source : ModelSource
        From `sources.resolve`.
    config : transformers.PreTrainedConfig
        From `load_config`.
    seed : int
        For random weights.
    attention : str
        ``sdpa``, with ``eager`` where the model has none, or ``eager``.

    Returns
    -------
    transformers.PreTrainedModel
        Without a task head, float32.

    Raises
    ------
    DataError
        A file is damaged, or weights are missing in it.
    """
    from transformers import AutoModel

    return _with_attention(AutoModel, source, config, seed, attention)


def load_head(source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load or draw the weights of a causal model with its language-model head.

    Parameters
    ----------
    source : ModelSource
        From `sources.resolve`.
    config : transformers.PreTrainedConfig
        Of a causal model.
    seed : int
        For random weights; those below the head are the same as without it.
    attention : str
        As in `load_weights`.

    Returns
    -------
    transformers.PreTrainedModel
        Its ``base_model`` is what `load_weights` gives.

    Raises
    ------
    ConfigError
        The architecture has no language-model head.
    DataError
        A file is damaged, or weights are missing in it.

    Notes
    -----
    A head that shares its weights with the input embeddings may be absent in the file.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            f"model {source.name}: surprisal needs a causal model, and {config.model_type!r} "
            "predicts no next word.",
            hint=HEAD_HINT,
        )
    full = _with_attention(AutoModelForCausalLM, source, config, seed, attention)
    if source.kind == "random":
        base = load_weights(source, config, seed, attention)
        full.base_model.load_state_dict(base.state_dict())
        full.tie_weights()
    return full


def _with_attention(kind: Any, source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load or draw the weights, with plain attention where the model has no fast one."""
    try:
        return _weights(kind, source, config, seed, attention)
    except DataError as error:
        cause = error.__cause__
        if attention == "sdpa" and "scaled_dot_product_attention" in str(cause):
            log.info("Model %s has no sdpa attention; eager is used.", source.name)
            return _weights(kind, source, config, seed, "eager")
        raise


def _weights(kind: Any, source: ModelSource, config: Any, seed: int, attention: str) -> Any:
    """Load or draw the weights with one way of attention."""
    import torch

    with named(source, "weights"):
        if source.kind == "random":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                return kind.from_config(
                    config,
                    dtype=torch.float32,
                    attn_implementation=attention,
                    trust_remote_code=False,
                )
        model, report = kind.from_pretrained(
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
