"""How unexpected words are to a causal language model, and how open its predictions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language import contexts
from bids_brainlm.language.models import LanguageModel
from bids_brainlm.language.passes import check_causal, check_ids, filled, memory
from bids_brainlm.language.products import multiplying
from bids_brainlm.language.tokens import Passage, clean, encode, too_long, window_text
from bids_brainlm.language.weights import HEAD_HINT

LARGEST_BLOCK = 2**22  # numbers of a block of predictions in float64, 32 MiB


@dataclass(frozen=True, eq=False)
class Surprisal:
    """What a causal model makes of the words of a story, one value a word and a TR.

    Attributes
    ----------
    surprisal : float64 array, shape (n_words,)
        In bits: -log2 of the probability of the word's tokens, each given all tokens before
        it. NaN where the model predicts nothing, see ``n_unpredicted``.
    entropy : float64 array, shape (n_words,)
        In bits: of the prediction of the word's first token, over the model's vocabulary. NaN
        as above.
    n_tokens : int array, shape (n_words,)
        Tokens of the word, those for the space before it included.
    rows : int array, shape (n_words,)
        Row of the word.
    row_surprisal, row_entropy : float64 array, shape (n_trs,)
        Sums over the words of a TR that have a value, in bits. NaN where none has: silent TRs.
    n_unpredicted : int
        Words without a value: the first word of a text that begins without any token before
        it, and words without tokens.
    n_truncated : int
        TRs of whose context the oldest tokens were cut to the model's limit.
    """

    surprisal: np.ndarray
    entropy: np.ndarray
    n_tokens: np.ndarray
    rows: np.ndarray
    row_surprisal: np.ndarray
    row_entropy: np.ndarray
    n_unpredicted: int
    n_truncated: int


def extract_surprisal(
    model: LanguageModel,
    row_words: Sequence[Sequence[str]],
    *,
    context: str = "window",
    context_trs: int = 20,
    limit_tokens: int = 512,
    reset_tokens: int = 256,
    borders: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Surprisal:
    """Compute surprisal and entropy of the words of a story.

    Parameters
    ----------
    model : LanguageModel
        From `models.load` with ``head=True``.
    row_words : sequence of sequence of str, length n_trs
        Words of each TR; empty where silent.
    context : str
        ``window``: a word is predicted from the ``context_trs`` TRs before its own, and from
        the words of its own TR before it. ``growing``: from the running text, see
        `contexts.growing`.
    context_trs : int
        Window: previous TRs that the model sees, >= 0.
    limit_tokens, reset_tokens : int
        Growing: the most tokens of a forward pass, and the tokens of context to which it is
        cut back.
    borders : sequence of int
        Rows at which the context starts anew.
    progress : callable, optional
        Called with the texts done and their number after each forward pass.

    Returns
    -------
    Surprisal

    Raises
    ------
    ConfigError
        The model is not causal or was loaded without its head, or a setting is wrong.
    DataError
        A single TR has more tokens than the model takes, or its predictions are not finite.

    Notes
    -----
    A token belongs to the word of its last character, and a token for the space between two
    words to the second one, so that the values of all words add up to the surprisal of the
    text. Nothing is corrected for words whose end only the next token reveals.

    The special tokens that the tokenizer puts before a text stand before every text here;
    where it puts none, its beginning-of-text token does, if it has one (GPT-2:
    ``<|endoftext|>``), so that the first word has a prediction too.

    Softmax and sums are computed in float64, over the model's whole vocabulary.

    References
    ----------
    Hale (2001). A probabilistic Earley parser as a psycholinguistic model. NAACL.
    doi:10.3115/1073336.1073357
    """
    contexts.check(model, context, context_trs, limit_tokens, reset_tokens)
    contexts.check_borders(borders, len(row_words))
    if model.predictor is None:
        raise ConfigError(
            f"model {model.source.name}: surprisal needs a causal model that is loaded with its "
            "head, found none.",
            hint=HEAD_HINT,
        )
    words = _Words(row_words)
    lead = _lead(model.tokenizer)
    limits = (limit_tokens, reset_tokens, model.max_tokens)
    if context == "window":
        texts = _windows(model, words, lead, context_trs, borders)
    else:
        running = contexts.running_tokens(model.tokenizer, words.texts, borders)
        owners = [words.owners(row, tokens.ends) for row, tokens in enumerate(running)]
        texts = contexts.join(running, owners, lead, limits, borders, words.texts)
    check_ids(model, texts)
    check_causal(model, texts)
    length = min(limit_tokens, model.max_tokens or limit_tokens) if context == "growing" else 0
    values = np.full((2, len(words.rows)), np.nan)
    for n_done, text in enumerate(texts, start=1):
        _predict(model, text, values, length)
        if progress is not None:
            progress(n_done, len(texts))
    return _collect(model, words, texts, values)


class _Words:
    """Words, numbered through all rows."""

    def __init__(self, row_words: Sequence[Sequence[str]]) -> None:
        self.words = [[clean(word) for word in words] for words in row_words]
        self.texts = [" ".join(word for word in words if word) for words in self.words]
        self.rows = np.repeat(np.arange(len(self.words)), [len(words) for words in self.words])

    def owners(self, row: int, ends: np.ndarray) -> np.ndarray:
        """Return the words whose tokens end at characters ``ends`` of the row's text."""
        first = int(np.searchsorted(self.rows, row))
        numbers = [first + i for i, word in enumerate(self.words[row]) if word]
        sizes = [len(word) + 1 for word in self.words[row] if word]
        return np.array(numbers, dtype=np.int64)[np.searchsorted(np.cumsum(sizes) - 1, ends)]


def _lead(tokenizer: Any) -> np.ndarray:
    """Return the special tokens before each text."""
    lead = contexts.leading(tokenizer)
    if not len(lead) and tokenizer.bos_token_id is not None:
        return np.array([tokenizer.bos_token_id], dtype=np.int64)
    return lead


def _windows(
    model: LanguageModel,
    words: _Words,
    lead: np.ndarray,
    context_trs: int,
    borders: Sequence[int],
) -> list[Passage]:
    """Tokenise the window of each row; tokens are owned by words."""
    found = []
    for row, row_text in enumerate(words.texts):
        if not row_text:
            continue
        text, start = window_text(words.texts, row, context_trs, borders)
        encoded = encode(model.tokenizer, text)
        ids, ends = encoded.ids[~encoded.special], encoded.spans[~encoded.special, 1]
        inside = (ends > start - 1) | (start == 0)
        owners = np.full(len(ids), -1, dtype=np.int64)
        owners[inside] = words.owners(row, np.maximum(ends[inside] - start, 0))
        n_context = int((~inside).sum())
        n_over = max(0, len(lead) + len(ids) - (model.max_tokens or len(lead) + len(ids)))
        if n_over > n_context:
            raise too_long(row, int(inside.sum()), int(model.max_tokens or 0), row_text)
        whole = np.concatenate([lead, ids[n_over:]])
        who = np.concatenate([np.full(len(lead), -1, dtype=np.int64), owners[n_over:]])
        found.append(Passage(whole, who, np.arange(len(whole)) < len(lead), n_over))
    return found


def _predict(model: LanguageModel, text: Passage, values: np.ndarray, length: int) -> None:
    """Run a text and add up the surprisal of its words."""
    import torch

    own = np.flatnonzero(text.owners >= 0)
    predicted = own[own > 0]  # a token without any before it has no prediction
    if not len(predicted):
        return
    n_first = len(own) - len(predicted)
    ids = torch.from_numpy(filled(text.ids, length) if length else text.ids)
    with torch.inference_mode(), memory(model), multiplying(model.products):
        logits = _logits(model, ids.to(model.model.device), predicted - 1)
        surprisal, entropy = _bits(logits, text.ids[predicted])
    words, first = np.unique(text.owners[own], return_index=True)
    words, first = words[first >= n_first], first[first >= n_first] - n_first
    sums = np.bincount(text.owners[predicted], surprisal, minlength=values.shape[1])
    values[0, words], values[1, words] = sums[words], entropy[first]


def _logits(model: LanguageModel, ids: Any, positions: np.ndarray) -> Any:
    """Return the predictions at some positions of a text, (n_positions, n_vocabulary)."""
    import torch

    chosen = torch.from_numpy(positions).to(ids.device)
    predictor: Any = model.predictor
    has_choice = "logits_to_keep" in inspect.signature(predictor.forward).parameters
    output = predictor(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        use_cache=False,
        return_dict=True,
        **({"logits_to_keep": chosen} if has_choice else {}),
    )
    return output.logits[0] if has_choice else output.logits[0, chosen]


def _bits(logits: Any, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return surprisal of the targets and entropy of the predictions in bits, in blocks."""
    import torch

    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    size = max(1, LARGEST_BLOCK // logits.shape[-1])
    surprisal, entropy = np.zeros(len(targets)), np.zeros(len(targets))
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        chosen = torch.from_numpy(targets[part]).to(logits.device)
        log_p = torch.log_softmax(logits[part].to(exact), dim=-1)
        surprisal[part] = -log_p.gather(1, chosen[:, None])[:, 0].cpu().numpy()
        entropy[part] = torch.special.entr(log_p.exp()).sum(-1).cpu().numpy()
    return surprisal / math.log(2), entropy / math.log(2)


def _collect(
    model: LanguageModel, words: _Words, texts: Sequence[Passage], values: np.ndarray
) -> Surprisal:
    """Count and sum up; NaN stays where nothing was predicted."""
    n_trs, n_words = len(words.texts), len(words.rows)
    n_tokens = np.zeros(n_words, dtype=np.int64)
    n_truncated = 0
    predicted = np.zeros(n_words, dtype=bool)
    for text in texts:
        own = text.rows  # here numbers of words
        n_tokens[own] = text.n_own
        predicted[own] = True
        if text.owners[0] >= 0:
            predicted[text.owners[0]] = False
        n_truncated += len(np.unique(words.rows[own])) if text.n_cut else 0
    bad = predicted & ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise DataError(
            f"model {model.source.name}: the predictions of {int(bad.sum())} of {n_words} words "
            f"are not finite, first in row {words.rows[bad][0]}.",
            hint="The weights are damaged or overflow; get them again or choose another --model.",
        )
    has = ~np.isnan(values[0])
    n_known = np.bincount(words.rows[has], minlength=n_trs)
    sums = [
        np.where(n_known > 0, np.bincount(words.rows[has], row[has], minlength=n_trs), np.nan)
        for row in values
    ]
    return Surprisal(
        values[0], values[1], n_tokens, words.rows, *sums, int((~has).sum()), n_truncated
    )
