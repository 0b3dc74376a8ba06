"""Small tokenizers that need no files."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_tokenizer(pieces: Sequence[str], max_tokens: int) -> Any:
    """Make a fast WordPiece tokenizer in the manner of BERT uncased.

    Parameters
    ----------
    pieces : sequence of str
        Word pieces without the special tokens; those inside of words start with ``##``.
    max_tokens : int
        The model's limit.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys((*SPECIAL, *pieces)))}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_tokens,
    )


def character_pieces() -> list[str]:
    """Return word pieces of single characters: letters, digits, punctuation.

    Returns
    -------
    list of str
    """
    letters = [*string.ascii_lowercase, *string.digits]
    return [*letters, *(f"##{letter}" for letter in letters), *string.punctuation, "’", "“", "”"]
