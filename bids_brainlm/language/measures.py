"""Run a language model over the words of a story and average its states within each TR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language.capture import capture_heads
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.tokens import Window, windows

MEASURES = ("embeddings", "transformations")


@dataclass(frozen=True, eq=False)
class Features:
    """What a model makes of a story, one row a TR.

    Rows without tokens are NaN.

    Attributes
    ----------
    embeddings : float32 array, shape (n_trs, n_layers + 1, n_dims), or None
        Mean over the TR's tokens of the states: 0 = input embeddings, then after each block.
    transformations : float32 array, shape (n_trs, n_layers, n_heads, head_dim), or None
        Mean over the TR's tokens of the head outputs. None where the heads cannot be read.
    magnitudes : float32 array, shape (n_trs, n_layers, n_heads), or None
        L2 norm of that mean (not the mean of norms).
    n_tokens, n_context_tokens : int array, shape (n_trs,)
        Tokens of the TR, and of its context; special tokens are not counted.
    n_truncated : int
        Windows whose oldest context tokens were cut to the model's limit.
    """

    embeddings: np.ndarray | None
    transformations: np.ndarray | None
    magnitudes: np.ndarray | None
    n_tokens: np.ndarray
    n_context_tokens: np.ndarray
    n_truncated: int


def extract(
    model: LanguageModel,
    row_texts: Sequence[str],
    *,
    context_trs: int = 20,
    batch_size: int = 8,
    want: Sequence[str] = MEASURES,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Extract embeddings and head transformations of a story.

    Parameters
    ----------
    model : LanguageModel
        From `models.load`.
    row_texts : sequence of str, length n_trs
        Words of each TR, joined by spaces; empty where silent.
    context_trs : int
        Previous TRs that the model sees, >= 0.
    batch_size : int
        Text windows a forward pass, >= 1.
    want : sequence of str
        Of ``embeddings`` and ``transformations`` (these with ``magnitudes``).
    progress : callable, optional
        Called with the windows done and their number after each forward pass.

    Returns
    -------
    Features

    Raises
    ------
    ConfigError
        ``want``, ``context_trs`` or ``batch_size`` is wrong.
    DataError
        A single TR has more tokens than the model takes, or the model's states are not
        finite.

    Notes
    -----
    The model reads one window a TR: its words and those of the previous ``context_trs`` TRs,
    with the tokenizer's special tokens. It never sees words after the TR. Within a TR a
    bidirectional model sees all words, a causal one those before each token.

    A forward pass holds windows of one length only, so nothing is padded, at the same speed.
    With padding the batch size changed results by 2e-6. Without it reruns and other batch
    sizes give the same bits (in several threads some tiny models with 16 units differed by
    1e-8). The number of threads can change the last bits: by 6e-7 with 768 units, not at all
    for MiniLM.

    ``embeddings`` are the hidden states as transformers gives them; in GPT-2 and kin the last
    one is behind the final layer norm.
    """
    wrong = [name for name in want if name not in MEASURES]
    if wrong or context_trs < 0 or batch_size < 1:
        raise ConfigError(
            f"found measures {wrong or list(want)}, {context_trs} context TRs and batches of "
            f"{batch_size}; expected {', '.join(MEASURES)}, 0 or more TRs, 1 or more windows."
        )
    found = windows(model.tokenizer, row_texts, context_trs, model.max_tokens)
    pools = _empty(model, len(row_texts), want)
    _check_ids(model, found)
    n_done = 0
    for batch in _batches(found, batch_size):
        _forward(model, batch, pools)
        n_done += len(batch)
        if progress is not None:
            progress(n_done, len(found))
    _check(model, pools, [window.row for window in found])
    n_tokens = np.zeros(len(row_texts), dtype=np.int64)
    n_context = np.zeros(len(row_texts), dtype=np.int64)
    for window in found:
        n_tokens[window.row] = window.own.sum()
        n_context[window.row] = window.n_context
    heads = pools.get("transformations")
    magnitudes = None if heads is None else np.linalg.norm(heads.astype(float), axis=-1)
    return Features(
        pools.get("embeddings"),
        heads,
        None if magnitudes is None else magnitudes.astype(np.float32),
        n_tokens,
        n_context,
        sum(window.is_truncated for window in found),
    )


def _empty(model: LanguageModel, n_trs: int, want: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays to fill, NaN for now."""
    pools: dict[str, tuple[int, ...]] = {}
    if "embeddings" in want:
        pools["embeddings"] = (n_trs, model.n_layers + 1, model.n_dims)
    if "transformations" in want and model.heads is not None:
        pools["transformations"] = (
            n_trs,
            model.n_layers,
            model.heads.n_heads,
            model.heads.head_dim,
        )
    return {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in pools.items()}


def _batches(found: Sequence[Window], batch_size: int) -> Iterator[list[Window]]:
    """Yield windows of equal length, the longest first."""
    by_length = sorted(found, key=lambda window: (-len(window.ids), window.row))
    for _, group in groupby(by_length, key=lambda window: len(window.ids)):
        same = list(group)
        for start in range(0, len(same), batch_size):
            yield same[start : start + batch_size]


def _forward(model: LanguageModel, batch: Sequence[Window], pools: dict[str, np.ndarray]) -> None:
    """Run one batch and write the means over each row's own tokens."""
    import torch

    rows = [window.row for window in batch]
    device = model.model.device
    ids = torch.from_numpy(np.stack([window.ids for window in batch])).to(device)
    own = np.stack([window.own for window in batch]).astype(float)
    exact = torch.float32 if device.type == "mps" else torch.float64
    weights = torch.from_numpy(own / own.sum(axis=1, keepdims=True)).to(exact).to(device)

    def mean(states: Any) -> np.ndarray:
        """Average (n_texts, n_tokens, ...) over the own tokens."""
        flat = states.reshape(*states.shape[:2], -1).to(exact)
        pooled = torch.bmm(weights[:, None, :], flat)[:, 0].to(torch.float32)
        return pooled.reshape(states.shape[0], *states.shape[2:]).cpu().numpy()

    def consume(layer: int, heads: Any) -> None:
        """Keep the mean of one block's heads."""
        pools["transformations"][rows, layer] = mean(heads)

    hooks: AbstractContextManager[None] = nullcontext()
    if model.heads is not None and "transformations" in pools:
        hooks = capture_heads(model.heads, consume)
    with torch.inference_mode(), hooks, _memory(model):
        output = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            output_hidden_states="embeddings" in pools,
            return_dict=True,
            **({"use_cache": False} if model.causal else {}),
        )
        if "embeddings" in pools:
            for layer, states in enumerate(output.hidden_states):
                pools["embeddings"][rows, layer] = mean(states)


@contextmanager
def _memory(model: LanguageModel) -> Iterator[None]:
    """Tell what to do when the accelerator's memory is full."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"model {model.source.name} does not fit into the memory of {model.model.device}.",
            hint="Set a smaller --batch-size, or --device cpu.",
        ) from error


def _check_ids(model: LanguageModel, found: Sequence[Window]) -> None:
    """Raise if the tokenizer knows more tokens than the model."""
    size = int(model.model.get_input_embeddings().weight.shape[0])
    largest = max((int(window.ids.max()) for window in found), default=0)
    if largest >= size:
        raise DataError(
            f"model {model.source.name}: the tokenizer gives token {largest}, expected numbers "
            f"below {size}, the model's vocabulary.",
            hint="The tokenizer belongs to another model; get the files of --model again.",
        )


def _check(model: LanguageModel, pools: dict[str, np.ndarray], rows: Sequence[int]) -> None:
    """Raise if a state is not finite."""
    for name, array in pools.items():
        bad = [row for row in rows if not np.isfinite(array[row]).all()]
        if bad:
            raise DataError(
                f"model {model.source.name}: {name} of {len(bad)} of {len(rows)} TRs are not "
                f"finite, first in row {bad[0]}.",
                hint="The weights are damaged or overflow; get them again or choose another "
                "--model.",
            )
