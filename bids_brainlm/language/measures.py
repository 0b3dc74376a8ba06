"""Run a language model over the words of a story and average its states within each TR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language.capture import capture_heads
from bids_brainlm.language.contexts import passages
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.passes import check_causal, check_ids, filled, memory
from bids_brainlm.language.products import multiplying
from bids_brainlm.language.tokens import Passage

MEASURES = ("embeddings", "transformations")
SHORT = 8  # tokens; the libraries below multiply matrices of few rows in another way
Batch = tuple[np.ndarray, list[int], Callable[[Any], Any]]  # texts, their rows, the mean


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
        TRs of whose context the oldest tokens were cut to the model's limit.
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
    context: str = "window",
    limit_tokens: int = 512,
    reset_tokens: int = 256,
    borders: Sequence[int] = (),
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
        Window: previous TRs that the model sees, >= 0.
    context : str
        ``window``: a text of its own for each TR. ``growing``, for causal models: the running
        text, with a context that grows up to a limit and is then cut back.
    limit_tokens, reset_tokens : int
        Growing: the most tokens of a forward pass, and the tokens of context to which it is
        cut back, see `contexts.growing`.
    borders : sequence of int
        Rows at which the context starts anew: no text from before is seen from there on.
    batch_size : int
        Text windows a forward pass, >= 1. Growing contexts are run one by one.
    want : sequence of str
        Of ``embeddings`` and ``transformations`` (these with ``magnitudes``).
    progress : callable, optional
        Called with the TRs done and their number after each forward pass.

    Returns
    -------
    Features

    Raises
    ------
    ConfigError
        A setting is wrong, or the context is to grow and the model is bidirectional.
    DataError
        A single TR has more tokens than the model takes, or the model's states are not
        finite.

    Notes
    -----
    With windows the model reads one text a TR: its words and those of the previous
    ``context_trs`` TRs, with the tokenizer's special tokens. It never sees words after the TR.
    Within a TR a bidirectional model sees all words, a causal one those before each token.

    With a growing context many TRs share a forward pass, and causal attention keeps later
    words from earlier tokens; the states equal those of a pass that ends at the token. That
    is tested on the model itself before the first pass. Texts are filled up behind their end
    to ``limit_tokens`` (above 2048, to a power of two), so that even the last bits do not
    depend on what is said later.

    With windows a forward pass holds windows of one length only, so nothing is padded, at the
    same speed. With padding the batch size changed results by 2e-6. Without it reruns and
    other batch sizes give the same bits (in several threads some tiny models with 16 units
    differed by 1e-8; DeBERTa, MPNet, RemBERT and RoFormer, which have no sdpa attention, by
    5e-7). For texts of 2 or 3 tokens other texts of a batch changed the last bits, so texts of
    less than 8 tokens are run alone. The number of threads can change the last bits of torch's
    products, by up to 2e-6, and none of oneDNN's (see `products.choose`).

    ``embeddings`` are the hidden states as transformers gives them; in GPT-2 and kin the last
    one is behind the final layer norm.
    """
    wrong = [name for name in want if name not in MEASURES]
    if wrong or context_trs < 0 or batch_size < 1:
        raise ConfigError(
            f"found measures {wrong or list(want)}, {context_trs} context TRs and batches of "
            f"{batch_size}; expected {', '.join(MEASURES)}, 0 or more TRs, 1 or more windows."
        )
    found = passages(
        model,
        row_texts,
        context=context,
        context_trs=context_trs,
        limit_tokens=limit_tokens,
        reset_tokens=reset_tokens,
        borders=borders,
    )
    pools = _empty(model, len(row_texts), want)
    check_ids(model, found)
    if context == "growing":
        check_causal(model, found)
        length = min(limit_tokens, model.max_tokens or limit_tokens)
        batches = ((len(one.rows), *_long(model, one, length)) for one in found)
    else:
        batches = ((len(some), *_short(model, some)) for some in _batches(found, batch_size))
    _fill(model, batches, pools, sum(len(one.rows) for one in found), progress)
    rows = np.concatenate([np.zeros(0, np.int64), *(one.rows for one in found)])
    _check(model, pools, rows.tolist())
    n_tokens = np.zeros(len(row_texts), dtype=np.int64)
    n_context = np.zeros(len(row_texts), dtype=np.int64)
    for passage in found:
        n_tokens[passage.rows] = passage.n_own
        n_context[passage.rows] = passage.n_context
    heads = pools.get("transformations")
    magnitudes = None if heads is None else np.linalg.norm(heads.astype(float), axis=-1)
    return Features(
        pools.get("embeddings"),
        heads,
        None if magnitudes is None else magnitudes.astype(np.float32),
        n_tokens,
        n_context,
        sum(len(one.rows) for one in found if one.n_cut),
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


def _batches(found: Sequence[Passage], batch_size: int) -> Iterator[list[Passage]]:
    """Yield windows of equal length, the longest first; very short ones alone."""
    by_length = sorted(found, key=lambda window: -len(window.ids))  # stable: rows in order
    for length, group in groupby(by_length, key=lambda window: len(window.ids)):
        same = list(group)
        size = batch_size if length >= SHORT else 1
        for start in range(0, len(same), size):
            yield same[start : start + size]


def _exact(device: Any) -> Any:
    """Return the number type in which states are averaged."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def _short(model: LanguageModel, batch: Sequence[Passage]) -> Batch:
    """Prepare windows of equal length, each the text of one row."""
    import torch

    device = model.model.device
    own = np.stack([window.owners >= 0 for window in batch]).astype(float)
    exact = _exact(device)
    weights = torch.from_numpy(own / own.sum(axis=1, keepdims=True)).to(exact).to(device)

    def mean(states: Any) -> Any:
        """Average (n_texts, n_tokens, ...) over the own tokens."""
        flat = states.reshape(*states.shape[:2], -1).to(exact)
        return torch.bmm(weights[:, None, :], flat)[:, 0]

    ids = np.stack([window.ids for window in batch])
    return ids, [int(window.rows[0]) for window in batch], mean


def _long(model: LanguageModel, passage: Passage, length: int) -> Batch:
    """Prepare a text of many rows, filled up behind its end."""
    import torch

    device, exact = model.model.device, _exact(model.model.device)
    tokens = np.flatnonzero(passage.owners >= 0)
    rows, members = np.unique(passage.owners[tokens], return_inverse=True)
    index = torch.from_numpy(members.astype(np.int64)).to(device)
    own = torch.from_numpy(tokens).to(device)
    counts = torch.from_numpy(passage.n_own).to(exact).to(device)

    def mean(states: Any) -> Any:
        """Average (1, n_tokens, ...) over the own tokens of each row, in their order."""
        flat = states[0].reshape(states.shape[1], -1)[own].to(exact)
        sums = torch.zeros(len(rows), flat.shape[1], dtype=exact, device=device)
        return sums.index_add_(0, index, flat) / counts[:, None]

    return filled(passage.ids, length)[None], rows.tolist(), mean


def _fill(
    model: LanguageModel,
    batches: Iterable[tuple[int, np.ndarray, list[int], Callable[[Any], Any]]],
    pools: dict[str, np.ndarray],
    n_rows: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run all texts and write the means over each row's own tokens."""
    n_done = 0
    for n_new, *batch in batches:
        _forward(model, batch, pools)
        n_done += n_new
        if progress is not None:
            progress(n_done, n_rows)


def _forward(model: LanguageModel, batch: Batch, pools: dict[str, np.ndarray]) -> None:
    """Run one batch."""
    import torch

    texts, rows, mean = batch
    ids = torch.from_numpy(texts).to(model.model.device)

    def write(name: str, layer: int, states: Any) -> None:
        """Keep the means of one layer."""
        pooled = mean(states).to(torch.float32).cpu().numpy()
        pools[name][rows, layer] = pooled.reshape(len(rows), *pools[name].shape[2:])

    hooks: AbstractContextManager[None] = nullcontext()
    if model.heads is not None and "transformations" in pools:
        hooks = capture_heads(model.heads, partial(write, "transformations"))
    with torch.inference_mode(), hooks, memory(model), multiplying(model.products):
        output = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            output_hidden_states="embeddings" in pools,
            return_dict=True,
            **({"use_cache": False} if model.causal else {}),
        )
        if "embeddings" in pools:
            for layer, states in enumerate(output.hidden_states):
                write("embeddings", layer, states)


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
