"""What all forward passes share: checks before them, filled texts, full memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.products import multiplying
from bids_brainlm.language.tokens import Passage

FILLED = 2048  # tokens up to which texts are filled to the limit
N_PROBE = 16  # tokens of the text on which causality is tested
TOLERANCE = 1e-3  # of the largest state; later words may change the last bits


def filled(ids: np.ndarray, limit: int) -> np.ndarray:
    """Fill a text up behind its end, so that all texts have the same length.

    Parameters
    ----------
    ids : int array, shape (n_tokens,)
        Token numbers, ``limit`` at most.
    limit : int
        The longest text in tokens.

    Returns
    -------
    int array, shape (n_filled,)
        With the first token repeated at the end: up to ``limit``, or to the next power of two
        (at least 2048) if that is less.

    Notes
    -----
    For causal models only: nothing that stands behind a token changes its states. With one
    length the libraries below compute each token in the same way, and a story that goes on
    gives the same bits as one that ends.
    """
    length = min(limit, max(FILLED, 1 << (len(ids) - 1).bit_length()))
    return np.concatenate([ids, np.full(max(0, length - len(ids)), ids[0], dtype=ids.dtype)])


def check_causal(model: LanguageModel, passages: Sequence[Passage]) -> None:
    """Raise if the states of a model depend on later tokens.

    Parameters
    ----------
    model : LanguageModel
        Of which the configuration says that it is causal.
    passages : sequence of Passage
        The start of the longest is run twice, with two different last tokens.

    Raises
    ------
    ConfigError
        The states of the tokens before the last one differ.
    """
    import torch

    longest: Passage | None = max(passages, key=lambda passage: len(passage.ids), default=None)
    if longest is None or len(longest.ids) < 2:
        return
    ids = longest.ids[:N_PROBE].copy()
    ids = np.stack([ids, ids])
    ids[1, -1] = (ids[1, -1] + 1) % model.model.get_input_embeddings().weight.shape[0]
    states = []
    with torch.inference_mode(), memory(model), multiplying(model.products):
        for text in ids:
            batch = torch.from_numpy(text[None]).to(model.model.device)
            output: Any = model.model(
                input_ids=batch, attention_mask=torch.ones_like(batch), return_dict=True
            )
            states.append(output.last_hidden_state[0, :-1].float().cpu().numpy())
    change = float(np.abs(states[0] - states[1]).max())
    if change > TOLERANCE * float(np.abs(states[0]).max()):
        raise ConfigError(
            f"model {model.source.name} is not causal: another last token changes the states "
            f"before it by up to {change:.3g}, expected no change.",
            hint="Set --context window, or choose a causal --model, e.g. gpt2.",
        )


@contextmanager
def memory(model: LanguageModel) -> Iterator[None]:
    """Tell what to do when the accelerator's memory is full.

    Parameters
    ----------
    model : LanguageModel
        That runs inside.

    Yields
    ------
    None

    Raises
    ------
    ConfigError
        The memory was full.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"model {model.source.name} does not fit into the memory of {model.model.device}.",
            hint="Set a smaller --batch-size or --context-tokens, or --device cpu.",
        ) from error


def check_ids(model: LanguageModel, passages: Sequence[Passage]) -> None:
    """Raise if the tokenizer knows more tokens than the model.

    Parameters
    ----------
    model : LanguageModel
        Its vocabulary counts.
    passages : sequence of Passage
        All texts.

    Raises
    ------
    DataError
        A token number is too large.
    """
    size = int(model.model.get_input_embeddings().weight.shape[0])
    largest = max((int(passage.ids.max()) for passage in passages), default=0)
    if largest >= size:
        raise DataError(
            f"model {model.source.name}: the tokenizer gives token {largest}, expected numbers "
            f"below {size}, the model's vocabulary.",
            hint="The tokenizer belongs to another model; get the files of --model again.",
        )
