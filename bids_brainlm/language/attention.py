"""How the attention heads of a language model spread their attention, per TR and head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.products import multiplying
from bids_brainlm.language.tokens import Passage

MEASURES = MappingProxyType(  # name: what it is, unit
    {
        "norm1": ("sum of the attention from the TR's tokens to other words", "1"),
        "norm2": ("L2 norm of the attention from the TR's tokens to other words", "1"),
        "normInf": ("largest attention from a token of the TR to another word", "1"),
        "lookback": ("mean distance of the attention to earlier tokens", "tokens"),
        "lookbackRaw": ("attention times distance to earlier tokens, per token", "tokens"),
        "lookahead": ("mean distance of the attention to later tokens", "tokens"),
        "lookaheadRaw": ("attention times distance to later tokens, per token", "tokens"),
        "entropy": ("mean entropy of the attention of a token", "bit"),
        "special": ("mean attention of a token to special tokens", "1"),
    }
)
TOLERANCE = 1e-3  # rows of float32 weights sum to 1 within about 1e-6
LARGEST_PASS = 2**30  # bytes of weights in a forward pass; a single passage may take more


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of a model's heads over a story, one row a TR.

    Attributes
    ----------
    measures : dict of str to float32 array, shape (n_trs, n_layers, n_heads)
        By the names in ``MEASURES``, see `attention_measures`. Layer 0 is the first block.
        Rows without tokens are NaN, all others are finite.
    n_tokens : int array, shape (n_trs,)
        Tokens of the TR; special tokens are not counted.
    """

    measures: dict[str, np.ndarray]
    n_tokens: np.ndarray


def attention_measures(
    weights: np.ndarray, own: np.ndarray, special: np.ndarray
) -> dict[str, np.ndarray]:
    """Measure how heads attend from the tokens of one TR.

    Parameters
    ----------
    weights : array, shape (n_heads, n_tokens, n_tokens)
        Attention weights after the softmax: from the token of the row to that of the column.
        Every row sums to 1.
    own : bool array, shape (n_tokens,)
        True for the TR's own tokens, at least one.
    special : bool array, shape (n_tokens,)
        True for the tokens that the tokenizer adds, such as ``[CLS]`` and ``[SEP]``.

    Returns
    -------
    dict of str to float64 array, shape (n_heads,)
        ``norm1``, ``norm2``, ``normInf``
            Entrywise norms of the attention from own tokens to all other tokens of the text.
        ``lookback``, ``lookahead``
            Mean distance in tokens to the earlier (later) tokens that are attended,
            weighted with the attention that each gets; 0 where none gets any.
        ``lookbackRaw``, ``lookaheadRaw``
            The same sum of attention times distance per own token, not divided by the
            attention that goes back (ahead).
        ``entropy``
            Mean over own tokens of the row's entropy in bits.
        ``special``
            Mean over own tokens of the attention to special tokens, 0 to 1.

    Raises
    ------
    DataError
        The shapes do not fit, there is no own token or one that is special, or the rows are
        no shares of 1.

    Notes
    -----
    Only rows of own tokens count. With ``A[i, j]`` the attention from token i to token j and
    sums over own i and earlier j (j < i, the lower triangle):
    ``lookback = sum(A[i, j] * (i - j)) / sum(A[i, j])`` and
    ``lookbackRaw = sum(A[i, j] * (i - j)) / n_own``. It is one ratio of sums over the TR,
    as in [1]_, not a mean of the tokens' ratios: a token that hardly looks back then says
    little about how far the head looks. The upper triangle gives ``lookahead``.

    Look-back and look-ahead are never NaN. The first token of a text has nothing to look
    back to, and causal models give later tokens no attention: the sums are 0, and so is the
    distance. Where any attention goes back, ``lookback`` is at least 1.

    Norms and distances leave out special tokens and the diagonal (a token to itself).
    Positions are counted without special tokens, so one between two words adds no distance.
    Entropy is over the whole row, with special tokens and diagonal. It is not divided by
    ``log2(n_tokens)``: it is 0 for attention to a single token and ``log2(n)`` where n
    tokens get equal shares, so it can grow with the text. The norms grow with the number of
    own tokens, ``norm1`` in proportion; it is ``n_own`` times the share of attention to
    other words.

    Columns are all tokens of the text, later ones included, where it goes on behind the TR.
    Causal models give these no attention, and a window ends with its TR. Models that read
    no special token in front often rest their attention on the first word, which shows up
    as far look-back.

    Kumar et al. [2]_ describe look-back too. Their published code keeps the upper triangle:
    those numbers are how far earlier tokens look ahead to the TR.

    References
    ----------
    .. [1] Vig & Belinkov (2019), doi:10.18653/v1/W19-4808
    .. [2] Kumar, Sumers et al. (2024), doi:10.1038/s41467-024-49173-5

    Examples
    --------
    >>> third = np.array([[[1, 0, 0], [1, 0, 0], [0.5, 0.25, 0.25]]])
    >>> found = attention_measures(third, np.array([0, 0, 1], bool), np.zeros(3, bool))
    >>> float(found["lookbackRaw"][0]), float(found["entropy"][0])
    (1.25, 1.5)
    """
    weights, own, special = np.asarray(weights), np.asarray(own), np.asarray(special)
    if weights.ndim != 3 or weights.shape[1:] != (*own.shape, *special.shape):
        raise DataError(
            f"Attention weights have shape {weights.shape}, expected (n_heads, {own.size}, "
            f"{own.size}) for {own.size} tokens, {special.size} of them marked special or not."
        )
    if own.dtype != bool or special.dtype != bool or not own.any() or (own & special).any():
        raise DataError(
            f"Found {int(np.count_nonzero(own))} own tokens of type {own.dtype}, "
            f"{int(np.count_nonzero(np.logical_and(own, special)))} of them special; expected at "
            "least one in a bool array, and none special."
        )
    tokens = np.flatnonzero(own)
    rows = weights[:, tokens].astype(np.float64)
    if not _are_shares(rows):
        raise DataError("Attention weights: expected rows of finite shares >= 0 that sum to 1.")
    return _measure(rows, tokens, special)


def extract_attention(
    model: LanguageModel,
    passages: Sequence[Passage],
    n_trs: int,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Attention:
    """Measure the attention of all heads of a model for every TR of a story.

    Parameters
    ----------
    model : LanguageModel
        From ``models.load(..., attention="eager")``: only then there are weights to read.
    passages : sequence of Passage
        The texts to read, and whose the tokens are. Every row belongs to one passage at most.
    n_trs : int
        Rows of the story.
    batch_size : int
        Passages a forward pass, >= 1.
    progress : callable, optional
        Called with the passages done and their number after each forward pass.

    Returns
    -------
    Attention

    Raises
    ------
    ConfigError
        ``batch_size`` is wrong, the model gives no attention weights, or they do not fit into
        the memory of an accelerator.
    DataError
        Owners are no rows of the story, a row is in two passages, the tokenizer belongs to
        another model, or weights are no shares of 1.

    Notes
    -----
    As in `measures.extract` a forward pass holds passages of one length, so nothing is
    padded. Weights are float32, as the model gives them, sums are float64. The weights of a
    forward pass are dropped once they are measured. They take ``4 * n_layers * n_heads *
    n_tokens**2`` bytes a passage; passes are smaller than ``batch_size`` where they would
    take more than 1 GiB.
    """
    if batch_size < 1:
        raise ConfigError(f"found batches of {batch_size} passages, expected 1 or more.")
    n_tokens = _count(passages, n_trs)
    _check_ids(model, passages)
    shape = (n_trs, model.n_layers, model.n_heads)
    measures = {name: np.full(shape, np.nan, dtype=np.float32) for name in MEASURES}
    n_done = 0
    for batch in _batches(model, passages, batch_size):
        _measure_batch(model, batch, measures)
        n_done += len(batch)
        if progress is not None:
            progress(n_done, len(passages))
    return Attention(measures, n_tokens)


def _are_shares(rows: np.ndarray) -> bool:
    """Tell whether rows (last axis) are finite, not negative and sum to 1."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=-1) - 1) <= TOLERANCE).all())


def _measure(rows: np.ndarray, tokens: np.ndarray, special: np.ndarray) -> dict[str, np.ndarray]:
    """Measure float64 rows, shape (n_heads, n_own, n_tokens), of the own tokens' numbers."""
    n_heads, n_own, _ = rows.shape
    positions = np.cumsum(~special)
    back = np.where(special, 0, positions[tokens, None] - positions)  # < 0 ahead, 0 left out
    factors = np.stack(
        [
            back > 0,
            np.maximum(back, 0),
            back < 0,
            np.maximum(-back, 0),
            np.broadcast_to(special, back.shape),
        ]
    ).astype(np.float64)
    sums = rows.reshape(n_heads, -1) @ factors.reshape(len(factors), -1).T
    back_mass, back_sum, ahead_mass, ahead_sum, special_mass = sums.T
    others = rows * (back != 0)
    bits = (rows * np.log2(np.where(rows > 0, rows, 1.0))).sum(axis=(1, 2))
    return {
        "norm1": back_mass + ahead_mass,
        "norm2": np.sqrt(np.einsum("hij,hij->h", others, others)),
        "normInf": others.max(axis=(1, 2)),
        "lookback": back_sum / np.where(back_mass > 0, back_mass, 1.0),
        "lookbackRaw": back_sum / n_own,
        "lookahead": ahead_sum / np.where(ahead_mass > 0, ahead_mass, 1.0),
        "lookaheadRaw": ahead_sum / n_own,
        "entropy": 0.0 - bits / n_own,
        "special": special_mass / n_own,
    }


def _count(passages: Sequence[Passage], n_trs: int) -> np.ndarray:
    """Return the tokens of each row, which is in one passage and of the story."""
    n_tokens = np.zeros(n_trs, dtype=np.int64)
    for passage in passages:
        rows = passage.rows
        if rows.size and rows[-1] >= n_trs:
            raise DataError(f"a passage has tokens of row {rows[-1]}, expected rows below {n_trs}.")
        if n_tokens[rows].any():
            twice = rows[n_tokens[rows] > 0][0]
            raise DataError(f"row {twice} has tokens in two passages, expected one.")
        if passage.special[passage.owners >= 0].any():
            raise DataError(f"rows {rows.tolist()} own special tokens, expected none.")
        n_tokens[rows] = passage.n_own
    return n_tokens


def _check_ids(model: LanguageModel, passages: Sequence[Passage]) -> None:
    """Raise if the tokenizer knows more tokens than the model."""
    size = int(model.model.get_input_embeddings().weight.shape[0])
    largest = max((int(passage.ids.max()) for passage in passages), default=0)
    if largest >= size:
        raise DataError(
            f"model {model.source.name}: the tokenizer gives token {largest}, expected numbers "
            f"below {size}, the model's vocabulary.",
            hint="The tokenizer belongs to another model; get the files of --model again.",
        )


def _batches(
    model: LanguageModel, passages: Sequence[Passage], batch_size: int
) -> Iterator[list[Passage]]:
    """Yield passages of equal length, the longest first, not too many for the memory."""
    by_length = sorted(passages, key=lambda passage: -len(passage.ids))
    for n_tokens, group in groupby(by_length, key=lambda passage: len(passage.ids)):
        n_bytes = 4 * model.n_layers * model.n_heads * n_tokens**2
        at_once = max(1, min(batch_size, LARGEST_PASS // max(n_bytes, 1)))
        same = list(group)
        for start in range(0, len(same), at_once):
            yield same[start : start + at_once]


def _measure_batch(
    model: LanguageModel, batch: Sequence[Passage], measures: dict[str, np.ndarray]
) -> None:
    """Run one batch, write its measures and drop its weights."""
    layers = _forward(model, batch)
    for index, passage in enumerate(batch):
        _write(model, passage, [layer[index] for layer in layers], measures)


def _forward(model: LanguageModel, batch: Sequence[Passage]) -> Sequence[Any]:
    """Return the weights of each block, tensors of (n_texts, n_heads, n_tokens, n_tokens)."""
    import torch

    ids = torch.from_numpy(np.stack([passage.ids for passage in batch]).astype(np.int64))
    ids = ids.to(model.model.device)
    with torch.inference_mode(), _memory(model), multiplying(model.products):
        output = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            output_attentions=True,
            return_dict=True,
            **({"use_cache": False} if model.causal else {}),
        )
    layers = getattr(output, "attentions", None) or ()
    shapes = [None if layer is None else tuple(layer.shape) for layer in layers]
    expected = (len(batch), model.n_heads, ids.shape[1], ids.shape[1])
    if shapes != [expected] * model.n_layers:
        kind = getattr(model.model.config, "_attn_implementation", None)
        raise ConfigError(
            f"model {model.source.name} ({model.architecture} with {kind} attention): found "
            f"attention weights of shape {sorted({str(shape) for shape in shapes})} in "
            f"{len(shapes)} blocks, expected {expected} (texts, heads, tokens, tokens) in "
            f"{model.n_layers} blocks of eager attention.",
            hint="Leave attention out of --features, or choose another --model, e.g. "
            "google-bert/bert-base-uncased or gpt2.",
        )
    return layers


@contextmanager
def _memory(model: LanguageModel) -> Iterator[None]:
    """Tell what to do when the accelerator's memory is full."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"model {model.source.name} and its attention weights do not fit into the memory of "
            f"{model.model.device}.",
            hint="Set --device cpu, or a smaller --context-trs or --context-tokens.",
        ) from error


def _write(
    model: LanguageModel,
    passage: Passage,
    layers: Sequence[Any],
    measures: dict[str, np.ndarray],
) -> None:
    """Measure all heads at once for each row of a passage."""
    import torch

    for row in passage.rows:
        tokens = np.flatnonzero(passage.owners == row)
        index = torch.from_numpy(tokens).to(layers[0].device)
        own = torch.stack([layer.index_select(1, index) for layer in layers]).cpu().numpy()
        own = own.reshape(-1, *own.shape[2:]).astype(np.float64)
        if not _are_shares(own):
            raise DataError(
                f"model {model.source.name}: attention weights in row {row} are not finite or do "
                "not sum to 1, expected shares of 1.",
                hint="The weights are damaged or overflow; get them again or choose another "
                "--model.",
            )
        for name, values in _measure(own, tokens, passage.special).items():
            measures[name][row] = values.reshape(model.n_layers, model.n_heads)
