"""Growing contexts: rows, tokens and limits by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language import contexts, measures, models
from bids_brainlm.language.contexts import Stretch, growing, running_tokens, stretches
from bids_brainlm.language.tokens import windows
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends, wasn't it a café"
ROWS = [
    "",
    "So I was",
    "a junior, in high",
    "",
    "school (and I’d been",
    "to the",
    "漢字 😀 weekends",
]


def load(folder, model_type, **options):
    head = options.pop("head", False)
    write_tiny_model(folder, model_type, TEXT, seed=3, head=head, **options)
    return models.load(models.resolve(folder, offline=True), seed=1)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return load(tmp_path_factory.mktemp("gpt2"), "gpt2")


def sentence_pieces():
    """Make a tokenizer as Llama 2 has it: no split at spaces, ``▁`` in front, bytes, BOS."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = sorted({f"▁{word}" for word in TEXT.split()})
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    made.normalizer, kept = normalizers.Sequence([]), made.normalizer
    made.train_from_iterator(words * 3, trainer)
    made.normalizer = kept
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def across_words():
    """Make a byte-level tokenizer whose tokens may reach across words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["to the school and to the high school"] * 4, trainer)
    from tokenizers import decoders

    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def whole_ids(tokenizer, text):
    encoded = tokenizer(text, return_special_tokens_mask=True, split_special_tokens=True)
    mask = np.array(encoded["special_tokens_mask"], dtype=bool)
    return np.array(encoded["input_ids"])[~mask].tolist()


def test_stretches_by_hand():
    assert stretches([4, 0, 3, 3, 5, 2], 10, 4, 99) == [
        Stretch((0, 2, 3), 0, 0),  # 4 + 3 + 3 tokens
        Stretch((4,), 4, 0),  # the last 4 of 10, and 5
        Stretch((5,), 4, 0),  # 4 + 5 + 2 would be 11
    ]
    assert stretches([4, 3, 3], 99, 4, 8) == [
        Stretch((0, 1), 0, 0),
        Stretch((2,), 4, 3),  # the rule has 7 tokens of context, the model takes 8
    ]
    assert stretches([6, 9], 10, 4, 99) == [Stretch((0,), 0, 0), Stretch((1,), 1, 0)]
    assert stretches([3, 3], 5, 0, 99) == [Stretch((0,), 0, 0), Stretch((1,), 0, 0)]
    assert stretches([0, 0], 5, 2, 99) == []


@given(
    sizes=st.lists(st.integers(0, 9), max_size=25),
    room=st.integers(9, 30),
    reset=st.integers(0, 30),
    model_room=st.integers(9, 40),
)
def test_stretches_by_brute_force(sizes, room, reset, model_room):
    """The rule with real lists of tokens: it grows, is cut back, and is cut to the model."""
    reset = min(reset, room)
    found = stretches(sizes, room, reset, model_room)
    where = {row: stretch for stretch in found for row in stretch.rows}
    assert [row for stretch in found for row in stretch.rows] == sorted(where)
    assert set(where) == {row for row, size in enumerate(sizes) if size}
    context, n_text = [], 0
    for row, size in enumerate(sizes):
        if not size:
            continue
        own = list(range(n_text, n_text + size))
        if len(context) + size > room:
            n_kept = min(reset, room - size)
            context = context[len(context) - n_kept :]
        stretch = where[row]
        n_before = stretch.n_context + sum(sizes[r] for r in stretch.rows if r < row)
        assert n_before + size <= min(room, model_room)
        assert len(context) - n_before == stretch.n_cut
        if stretch.n_cut:
            assert len(context) + size > model_room or row > stretch.rows[0]
            assert stretch.n_context <= reset
        if model_room >= room:
            assert stretch.n_cut == 0
        context = context + own
        n_text += size


@pytest.mark.parametrize("make", [sentence_pieces, None])
def test_pieces_are_those_of_the_running_text(gpt2, make):
    tokenizer = gpt2.tokenizer if make is None else make()
    tokens = running_tokens(tokenizer, ROWS)
    joined = [int(token) for row in tokens for token in row.ids]
    assert joined == whole_ids(tokenizer, " ".join(row for row in ROWS if row))
    assert [len(row.ids) > 0 for row in tokens] == [bool(row) for row in ROWS]
    for row, text in zip(tokens, ROWS, strict=True):
        assert not len(row.ids) or row.ends[-1] == len(text)
        assert (np.diff(row.ends) >= 0).all()


def test_pieces_after_a_border_are_those_of_a_new_text(gpt2):
    for tokenizer in (gpt2.tokenizer, sentence_pieces()):
        tokens = running_tokens(tokenizer, ROWS, [4])
        first = [int(token) for row in tokens[:4] for token in row.ids]
        last = [int(token) for row in tokens[4:] for token in row.ids]
        assert first == whole_ids(tokenizer, " ".join(row for row in ROWS[:4] if row))
        assert last == whole_ids(tokenizer, " ".join(row for row in ROWS[4:] if row))


def test_tokens_across_rows_are_taken_apart():
    tokenizer = across_words()
    rows = ["and to", "the", "school", "", "to the high", "school"]
    assert "oĠtheĠ" in tokenizer.tokenize(" ".join(row for row in rows if row))
    tokens = running_tokens(tokenizer, rows)
    parts = [tokenizer.decode(row.ids) for row in tokens]
    assert parts == ["and to", " the", " school", "", " to the high", " school"]
    for row, text in zip(tokens, rows, strict=True):
        assert not text or row.ends[-1] == len(text)
    passage = growing(tokenizer, rows, 512, 256, None)[0]
    assert tokenizer.decode(passage.ids) == "and to the school to the high school"
    assert passage.rows.tolist() == [0, 1, 2, 4, 5]


def test_special_tokens_stand_before_every_stretch_and_never_behind():
    tokenizer = sentence_pieces()
    found = growing(tokenizer, ROWS * 3, 30, 10, None)
    assert len(found) > 2
    for passage in found:
        assert passage.ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in passage.ids
        assert passage.special.tolist() == [True] + [False] * (len(passage.ids) - 1)
        assert len(passage.ids) <= 30
    for passage in found[1:]:  # a lone space before the first own token belongs to the row
        assert passage.n_context[0] in (10, 11)
    assert sorted(row for p in found for row in p.rows.tolist()) == [
        row + more for more in (0, 7, 14) for row in (1, 2, 4, 5, 6)
    ]


def test_borders_are_where_the_context_starts_anew(gpt2):
    rows = ROWS * 4
    borders = [0, 9, 10, 17, 28]
    found = growing(gpt2.tokenizer, rows, 40, 20, 512, borders)
    alone = []
    for first, last in ((0, 9), (9, 10), (10, 17), (17, 28)):
        for passage in growing(gpt2.tokenizer, rows[first:last], 40, 20, 512):
            moved = np.where(passage.owners >= 0, passage.owners + first, -1)
            alone.append((passage.ids.tolist(), moved.tolist()))
    assert [(p.ids.tolist(), p.owners.tolist()) for p in found] == alone
    assert len(alone) > 5


def test_the_models_limit_cuts_and_counts(gpt2):
    rows = ["junior in high school"] * 250
    short = measures.extract(gpt2, rows, context="growing", want=["embeddings"])
    assert short.n_truncated == 0
    assert (short.n_tokens + short.n_context_tokens).max() <= 512
    found = contexts.passages(gpt2, rows, context="growing", limit_tokens=700, reset_tokens=300)
    n_first, n_next = found[0].n_own[:2]
    cut = [passage for passage in found if passage.n_cut]
    # the rule goes on to 700 tokens, the model takes 512 and starts again with 300
    n_full = n_first + (512 - n_first) // n_next * n_next
    assert [int(p.n_context[0]) + p.n_cut for p in cut] == [n_full, 300 + 212 // n_next * n_next]
    assert all(p.n_context[0] == 300 for p in cut)
    long = measures.extract(
        gpt2, rows, context="growing", limit_tokens=700, reset_tokens=300, want=["embeddings"]
    )
    assert long.n_truncated == sum(len(p.rows) for p in cut) > 0
    assert np.isfinite(long.embeddings).all()


def test_windows_and_growing_give_the_same_first_stretch(gpt2):
    """As long as nothing is cut, both show a row the same text."""
    grown = measures.extract(gpt2, ROWS, context="growing")
    windowed = measures.extract(gpt2, ROWS, context_trs=len(ROWS))
    np.testing.assert_allclose(grown.embeddings, windowed.embeddings, atol=1e-5)
    np.testing.assert_allclose(grown.transformations, windowed.transformations, atol=1e-5)
    np.testing.assert_array_equal(grown.n_tokens, windowed.n_tokens)
    np.testing.assert_array_equal(grown.n_context_tokens, windowed.n_context_tokens)


def test_window_passages_and_progress(gpt2):
    found = contexts.passages(gpt2, ROWS, context_trs=2, borders=[5])
    plain = windows(gpt2.tokenizer, ROWS, 2, 512, [5])
    assert [p.ids.tolist() for p in found] == [p.ids.tolist() for p in plain]
    calls = []
    measures.extract(
        gpt2,
        ROWS,
        context="growing",
        limit_tokens=20,
        reset_tokens=5,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert len(calls) > 1
    assert calls[-1] == (5, 5)


def test_only_silence(gpt2):
    found = measures.extract(gpt2, ["", " "], context="growing", borders=[1])
    assert np.isnan(found.embeddings).all()
    assert found.n_tokens.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"context": "all"}, "found 'all', expected one of window, growing", "--help"),
        ({"context": "growing", "limit_tokens": 0}, "limit of 1 or more", "--context-tokens"),
        ({"context": "growing", "reset_tokens": 513}, "cut back to 513", "--context-tokens"),
        ({"context": "growing", "reset_tokens": -1}, "cut back to -1", "--context-tokens"),
        ({"context_trs": -1}, "found -1 context TRs", "--context-trs"),
        ({"borders": [3, 8]}, "found row 8, expected 0 to 7", "--context-borders"),
        ({"borders": [-1]}, "found row -1, expected 0 to 7", "--context-borders"),
    ],
)
def test_wrong_settings(gpt2, settings, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        contexts.passages(gpt2, ROWS, **settings)
    assert hint in caught.value.hint


def test_rows_that_are_too_long(gpt2):
    rows = ["so", "weekends " * 50]
    with pytest.raises(DataError, match=r"row 1 alone has \d+ tokens, --context-tokens allows at"):
        growing(gpt2.tokenizer, rows, 30, 10, 512)
    with pytest.raises(DataError, match=r"row 1 alone has \d+ tokens, the model takes at most 30"):
        growing(gpt2.tokenizer, rows, 512, 10, 30)
    with pytest.raises(DataError, match=r"the model takes at most 30"):
        growing(gpt2.tokenizer, rows, 30, 10, 30)


def test_a_causal_family_that_is_not_in_the_table(gpt2, tmp_path, caplog):
    from transformers import ArceeConfig, ArceeForCausalLM

    write_tiny_model(tmp_path, "gpt2", TEXT, seed=1)
    config = ArceeConfig(
        vocab_size=len(gpt2.tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    ArceeForCausalLM(config).save_pretrained(tmp_path)
    model = models.load(models.resolve(tmp_path, offline=True), seed=1)
    assert model.causal
    assert model.max_tokens == 256
    assert model.heads is None
    assert "'arcee'" in model.no_heads_reason
    assert "only embeddings are extracted" in caplog.text
    grown = measures.extract(model, ROWS, context="growing")
    windowed = measures.extract(model, ROWS, context_trs=len(ROWS))
    assert grown.transformations is None
    np.testing.assert_allclose(grown.embeddings, windowed.embeddings, atol=1e-5)
