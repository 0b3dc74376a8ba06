"""Attention measures: worked by hand, by plain loops, and on real and tiny models."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bids_brainlm.errors import ConfigError, DataError
from bids_brainlm.language import attention, models
from bids_brainlm.language.attention import MEASURES, attention_measures, extract_attention
from bids_brainlm.language.timing import place_words
from bids_brainlm.language.tokens import Passage, windows
from bids_brainlm.language.transcripts import parse
from bids_brainlm.records import TRGrid
from bids_brainlm.simulate.models import write_tiny_model

ROWS = ["", "So I was", "a junior in high", "", "school and I’d been", "to", "the weekends", ""]
SPOKEN = [1, 2, 4, 5, 6]


def mask(n, *chosen):
    found = np.zeros(n, dtype=bool)
    found[list(chosen)] = True
    return found


def one_hot(*columns):
    return np.eye(len(columns))[list(columns)]


def measured(weights, own, special=()):
    """Measure one head of nested lists; own and special are numbers of tokens."""
    weights = np.array(weights, dtype=float)[None]
    n = weights.shape[1]
    found = attention_measures(weights, mask(n, *own), mask(n, *special))
    assert all(values.shape == (1,) for values in found.values())
    return {name: float(values[0]) for name, values in found.items()}


def check(found, expected):
    assert list(found) == list(MEASURES)
    assert found == pytest.approx(dict(zip(MEASURES, expected, strict=True)), abs=1e-12)


# Expected: norm1, norm2, normInf, lookback, lookbackRaw, lookahead, lookaheadRaw, entropy, special


def test_uniform_attention():
    """Each of 4 tokens gets 1/4, tokens 2 and 3 are the TR's own.

    Others: 3 a row, 6 in all: 6/4; sqrt(6/16); 1/4.
    Back: token 2 by 2 and 1, token 3 by 3, 2 and 1: (3 + 6)/4 = 2.25 of a mass of 5/4: 1.8
    (the mean of the two tokens' ratios would be (1.5 + 2) / 2 = 1.75); per token 1.125.
    Ahead: token 2 to 3: 1/4 of a mass of 1/4: 1; per token 1/8. Entropy log2(4).
    """
    found = measured(np.full((4, 4), 0.25), own=[2, 3])
    check(found, [1.5, math.sqrt(0.375), 0.25, 1.8, 1.125, 1.0, 0.125, 2.0, 0.0])


def test_attention_to_the_previous_token():
    """Two own tokens with all attention one token back."""
    found = measured(one_hot(0, 0, 1, 2, 3), own=[3, 4])
    check(found, [2.0, math.sqrt(2), 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def test_attention_to_the_first_token():
    """Tokens 3 and 4 look back by 3 and 4: 7/2."""
    found = measured(one_hot(0, 0, 0, 0, 0), own=[3, 4])
    check(found, [2.0, math.sqrt(2), 1.0, 3.5, 3.5, 0.0, 0.0, 0.0, 0.0])


def test_special_tokens_at_both_ends():
    """[CLS] a b c d [SEP], c and d are own.

    Others: c to a 1/4, c to d 1/8, d to a 1/2, d to b 1/4: 1.125; the squares are 4/64, 1/64,
    16/64, 4/64, together 25/64, root 5/8; largest 1/2.
    Back: c to a 2/4; d to a 3/2 and to b 2/4: 2.5 of a mass of 1/4 + 3/4; per token 1.25.
    Ahead: c to d 1/8 of 1/8; per token 1/16.
    Entropy: c 3 * 1/4 * 2 + 2 * 1/8 * 3 = 2.25, d 1/2 * 1 + 2 * 1/4 * 2 = 1.5.
    Special: c 1/2, d 0.
    """
    weights = np.full((6, 6), 1 / 6)
    weights[3] = [0.25, 0.25, 0, 0.125, 0.125, 0.25]
    weights[4] = [0, 0.5, 0.25, 0, 0.25, 0]
    found = measured(weights, own=[3, 4], special=[0, 5])
    check(found, [1.125, 0.625, 0.5, 2.5, 1.25, 1.0, 0.0625, 1.875, 0.25])


@pytest.mark.parametrize("others", [one_hot(5, 4, 3, 2, 1, 0), np.full((6, 6), 1 / 6)])
def test_own_tokens_in_the_middle_of_a_growing_context(others):
    """[BOS] a b c d e of a causal model, b and c are own; what other tokens do is no matter.

    Others: b to a 1/4, c to a 1/2, c to b 1/4: 1; sqrt(6/16); 1/2.
    Back: b to a 1/4; c to a 2/2 and to b 1/4: 1.5 of a mass of 1/4 + 3/4; per token 0.75.
    Entropy: both rows have 1/2, 1/4 and 1/4: 1.5. Special: 1/2 and 0.
    """
    weights = others.copy()
    weights[2] = [0.5, 0.25, 0.25, 0, 0, 0]
    weights[3] = [0, 0.5, 0.25, 0.25, 0, 0]
    found = measured(weights, own=[2, 3], special=[0])
    check(found, [1.0, math.sqrt(0.375), 0.5, 1.5, 0.75, 0.0, 0.0, 1.5, 0.25])


def test_tokens_after_the_row_are_looked_ahead_to():
    """Token 1 of 4, uniform: back 1/4 * 1 of 1/4; ahead 1/4 * (1 + 2) of 1/2."""
    found = measured(np.full((4, 4), 0.25), own=[1])
    check(found, [0.75, math.sqrt(3) / 4, 0.25, 1.0, 0.25, 1.5, 0.75, 2.0, 0.0])


def test_a_special_token_in_between_adds_no_distance():
    """Own b in "a [SEP] b" is one token from a; so is own a from b."""
    weights = [[0.25, 0.25, 0.5], [0, 1, 0], [0.5, 0.25, 0.25]]
    expected = [0.5, 0.5, 0.5, 1.0, 0.5, 0.0, 0.0, 1.5, 0.25]
    check(measured(weights, own=[2], special=[1]), expected)
    expected[3:7] = [0.0, 0.0, 1.0, 0.5]
    check(measured(weights, own=[0], special=[1]), expected)


@pytest.mark.parametrize(
    ("weights", "own", "special"), [([[1.0]], [0], []), (one_hot(0, 1, 2), [1], [0, 2])]
)
def test_a_token_that_attends_itself_alone_gives_zeros(weights, own, special):
    found = measured(weights, own, special)
    check(found, [0.0] * 9)
    assert math.copysign(1, found["entropy"]) == 1


def test_the_triangle_is_the_lower_one():
    """Back is from the own token to earlier ones: not to later ones, not from earlier ones."""
    back, ahead = one_hot(2, 2, 0, 2, 2), one_hot(2, 2, 4, 2, 2)
    found = measured(back, own=[2])
    assert (found["lookback"], found["lookahead"]) == (2.0, 0.0)
    found = measured(ahead, own=[2])
    assert (found["lookback"], found["lookahead"]) == (0.0, 2.0)
    assert (found["lookbackRaw"], found["lookaheadRaw"]) == (0.0, 2.0)


def test_heads_are_kept_apart():
    weights = np.stack([one_hot(0, 0, 1, 2), one_hot(0, 0, 0, 0), np.full((4, 4), 0.25)])
    found = attention_measures(weights, mask(4, 3), mask(4))
    np.testing.assert_allclose(found["lookback"], [1.0, 3.0, 2.0])
    np.testing.assert_allclose(found["lookbackRaw"], [1.0, 3.0, 1.5])
    np.testing.assert_allclose(found["entropy"], [0.0, 0.0, 2.0])


@st.composite
def cases(draw):
    """Weights with many zeros, and any disjoint own and special tokens."""
    n_heads, n = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    counts = draw(arrays.arrays(np.int64, (n_heads, n, n), elements=st.integers(0, 4)))
    weights = counts + np.eye(n) * (counts.sum(axis=-1, keepdims=True) == 0)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    kinds = np.array(draw(st.lists(st.sampled_from("ocs"), min_size=n, max_size=n)))
    kinds[draw(st.integers(0, n - 1))] = "o"
    return weights, kinds == "o", kinds == "s"


def by_loops(weights, own, special):
    """Work out one head the long way."""
    n = len(weights)
    others, bits, to_special = [], 0.0, 0.0
    sums = {"back": 0.0, "ahead": 0.0}
    masses = {"back": 0.0, "ahead": 0.0}
    for i in range(n):
        if not own[i]:
            continue
        for j in range(n):
            a = float(weights[i, j])
            bits -= a * math.log2(a) if a else 0.0
            if special[j]:
                to_special += a
            elif i != j:
                others.append(a)
                where, first, last = ("back", j, i) if j < i else ("ahead", i, j)
                words_between = sum(not special[k] for k in range(first + 1, last))
                sums[where] += a * (words_between + 1)
                masses[where] += a
    n_own = int(own.sum())
    far = {where: sums[where] / masses[where] if masses[where] else 0.0 for where in sums}
    return {
        "norm1": sum(others),
        "norm2": math.sqrt(sum(a * a for a in others)),
        "normInf": max(others, default=0.0),
        "lookback": far["back"],
        "lookbackRaw": sums["back"] / n_own,
        "lookahead": far["ahead"],
        "lookaheadRaw": sums["ahead"] / n_own,
        "entropy": bits / n_own,
        "special": to_special / n_own,
    }


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_measures_equal_plain_loops(case):
    weights, own, special = case
    found = attention_measures(weights, own, special)
    for head, one in enumerate(weights):
        expected = by_loops(one, own, special)
        here = {name: float(values[head]) for name, values in found.items()}
        assert here == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_reading_backwards_swaps_back_and_ahead(case):
    weights, own, special = case
    found = attention_measures(weights, own, special)
    turned = attention_measures(weights[:, ::-1, ::-1], own[::-1], special[::-1])
    swap = {"lookback": "lookahead", "lookbackRaw": "lookaheadRaw"}
    swap |= {b: a for a, b in swap.items()}
    for name, values in found.items():
        np.testing.assert_allclose(turned[swap.get(name, name)], values, atol=1e-12)


HALVES = np.full((1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("weights", "own", "special", "message"),
    [
        (HALVES[0], mask(2, 1), mask(2), r"shape \(2, 2\), expected \(n_heads, 2, 2\)"),
        (HALVES, mask(3, 1), mask(3), r"shape \(1, 2, 2\), expected \(n_heads, 3, 3\)"),
        (HALVES, mask(2, 1), mask(3), "3 of them marked"),
        (HALVES, mask(2), mask(2), "Found 0 own tokens"),
        (HALVES, np.array([0, 1]), mask(2), "of type int64"),
        (HALVES, mask(2, 1), mask(2, 1), "1 of them special"),
        (HALVES * np.nan, mask(2, 1), mask(2), "shares"),
        (HALVES * 2, mask(2, 1), mask(2), "sum to 1"),
        (np.array([[[0.5, 0.5], [1.5, -0.5]]]), mask(2, 1), mask(2), "shares"),
        (np.array([[[1.0, 0.0], [0.5, 0.5]]]).mT, mask(2, 1), mask(2), "sum to 1"),
    ],
)
def test_wrong_input_is_refused(weights, own, special, message):
    with pytest.raises(DataError, match=message):
        attention_measures(weights, own, special)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a maker of tiny models."""
    made = {}

    def get(model_type):
        if model_type not in made:
            made[model_type] = write_tiny_model(
                tmp_path_factory.mktemp(model_type), model_type, " ".join(ROWS), seed=3, n_layers=3
            )
        return made[model_type]

    return get


def load(folder, how="eager"):
    return models.load(models.resolve(folder, offline=True), seed=1, attention=how)


def read(model, rows=ROWS, context_trs=3):
    return windows(model.tokenizer, rows, context_trs, model.max_tokens)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_rows_shapes_and_types(folder_of, model_type):
    model = load(folder_of(model_type))
    calls = []
    passages = read(model)
    found = extract_attention(
        model, passages, len(ROWS), batch_size=1, progress=lambda *call: calls.append(call)
    )
    assert list(found.measures) == list(MEASURES)
    assert calls == [(done, 5) for done in range(1, 6)]
    assert [row for row in range(len(ROWS)) if found.n_tokens[row]] == SPOKEN
    for passage in passages:
        assert found.n_tokens[passage.rows[0]] == (passage.owners >= 0).sum()
    for values in found.measures.values():
        assert values.shape == (len(ROWS), 3, 2)
        assert values.dtype == np.float32
        assert np.isfinite(values[SPOKEN]).all()
        assert np.isnan(np.delete(values, SPOKEN, axis=0)).all()


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_the_batch_size_changes_nothing(folder_of, model_type):
    """Texts of one length that differ: each row gets its own measures."""
    rows = [*ROWS, "So I was to", "to So I was", "was to So I", "I was to So", "the the the the"]
    model = load(folder_of(model_type))
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    passages = read(model, rows, context_trs=0)
    calls = []
    one = extract_attention(model, passages, len(rows), batch_size=1)
    many = extract_attention(
        model, passages[::-1], len(rows), batch_size=4, progress=lambda *call: calls.append(call)
    )
    assert len(calls) < len(passages) - 2
    for name in MEASURES:
        np.testing.assert_allclose(many.measures[name], one.measures[name], rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(many.n_tokens, one.n_tokens)
    looks = one.measures["lookback"][len(ROWS) :].reshape(5, -1)
    assert np.ptp(looks, axis=0).max() > 0.1


def test_passes_shrink_to_fit_the_memory(folder_of, monkeypatch):
    model = load(folder_of("bert"))
    twice = [replace(p, owners=np.full_like(p.owners, -1)) for p in read(model)]
    passages = read(model) + twice
    seen = []
    for limit in (2**30, 4 * 3 * 2 * len(passages[-1].ids) ** 2, 1):
        monkeypatch.setattr(attention, "LARGEST_PASS", limit)
        calls = []
        extract_attention(model, passages, len(ROWS), progress=lambda *c, k=calls: k.append(c))
        seen.append(len(calls))
        assert calls[-1] == (10, 10)
    assert seen[0] == len({len(p.ids) for p in passages})
    assert seen[0] < seen[1] <= seen[2] == 10


def joined(passages):
    """Return one growing passage of a causal model from windows that hold all text before."""
    last = passages[-1]
    owners = np.full(len(last.ids), -1)
    for passage in passages:
        np.testing.assert_array_equal(passage.ids, last.ids[: len(passage.ids)])
        owners[: len(passage.ids)][passage.owners >= 0] = passage.rows[0]
    return Passage(last.ids, owners, last.special, 0)


def test_a_growing_context_equals_the_windows_of_a_causal_model(folder_of):
    """Later text must not change a row; nothing is looked ahead to."""
    model = load(folder_of("gpt2"))
    passages = read(model, context_trs=len(ROWS))
    growing = extract_attention(model, [joined(passages)], len(ROWS))
    apart = extract_attention(model, passages, len(ROWS))
    for name in MEASURES:
        np.testing.assert_allclose(
            growing.measures[name], apart.measures[name], rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(growing.n_tokens, apart.n_tokens)
    for name in ("lookahead", "lookaheadRaw"):
        assert (growing.measures[name][SPOKEN] == 0).all()
    assert (growing.measures["lookback"][SPOKEN] >= 1).all()
    assert (apart.measures["lookback"][SPOKEN] >= 1).all()


def test_a_bidirectional_model_looks_ahead_within_its_row(folder_of):
    model = load(folder_of("bert"))
    found = extract_attention(model, read(model), len(ROWS))
    n_tokens = found.n_tokens[SPOKEN]
    ahead = found.measures["lookahead"][SPOKEN].max(axis=(1, 2))
    assert (n_tokens > 1).any()
    assert (ahead[n_tokens > 1] >= 1).all()
    assert (ahead <= np.maximum(n_tokens - 1, 0)).all()
    assert (found.measures["special"][SPOKEN] > 0).all()


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_a_model_without_weights_to_read_is_refused(folder_of, model_type):
    model = load(folder_of(model_type), "sdpa")
    with pytest.raises(ConfigError, match=r"sdpa attention\): found .* in 0 blocks") as caught:
        extract_attention(model, read(model), len(ROWS))
    assert "--features" in caught.value.hint


def test_passages_that_contradict_each_other_are_refused(folder_of):
    model = load(folder_of("bert"))
    passages = read(model)
    with pytest.raises(DataError, match="row 6, expected rows below 6"):
        extract_attention(model, passages, 6)
    with pytest.raises(DataError, match="row 2 has tokens in two passages"):
        extract_attention(model, [*passages, passages[1]], len(ROWS))
    wrong = replace(passages[0], owners=np.full_like(passages[0].owners, 1))
    with pytest.raises(DataError, match=r"rows \[1\] own special tokens"):
        extract_attention(model, [wrong], len(ROWS))
    with pytest.raises(ConfigError, match="batches of 0"):
        extract_attention(model, passages, len(ROWS), batch_size=0)
    wrong = replace(passages[0], ids=passages[0].ids + 10**6)
    with pytest.raises(DataError, match="vocabulary"):
        extract_attention(model, [wrong], len(ROWS))


def test_damaged_weights_are_an_error(folder_of):
    model = load(folder_of("bert"))
    with torch.no_grad():
        model.model.encoder.layer[1].attention.self.query.bias[0] = torch.nan
    with pytest.raises(DataError, match="row 6 are not finite"):
        extract_attention(model, read(model)[-1:], len(ROWS))


def test_a_full_accelerator_is_explained(folder_of):
    model = load(folder_of("bert"))

    class Full(SimpleNamespace):
        def __call__(self, *, input_ids, **more):
            raise torch.OutOfMemoryError("on purpose")

    inner = Full(device=model.model.device, get_input_embeddings=model.model.get_input_embeddings)
    with pytest.raises(ConfigError, match="memory of cpu") as caught:
        extract_attention(replace(model, model=inner), read(model), len(ROWS))
    assert "--device" in caught.value.hint


def test_a_story_without_words(folder_of):
    found = extract_attention(load(folder_of("bert")), [], 4)
    assert (found.n_tokens == 0).all()
    assert all(np.isnan(values).all() for values in found.measures.values())


def test_real_heads_of_minilm(minilm, alice):
    """Heads that put their attention on the previous token look back by one, others far."""
    path = alice / "stimuli" / "alice_audio.TextGrid"
    words = parse(path.read_bytes(), path.name).words
    rows = place_words(words, TRGrid(13, 40, 1.5)).rows
    texts = [
        " ".join(w.text for w, own in zip(words, rows, strict=True) if own == row)
        for row in range(40)
    ]
    model = load(minilm)
    passages = [p for p in windows(model.tokenizer, texts, 20, 512) if p.rows[0] in range(30, 38)]
    found = extract_attention(model, passages, 40)
    shares = np.zeros((6, 12))  # attention to the previous token, from the model's own output
    with torch.no_grad():
        for passage in passages:
            output = model.model(torch.tensor(passage.ids[None]), output_attentions=True)
            own = np.flatnonzero(passage.owners >= 0)
            maps = torch.stack(output.attentions)[:, 0].numpy()
            shares += maps[:, :, own, own - 1].mean(axis=-1) / len(passages)
    mean = {name: values[30:38].mean(axis=0) for name, values in found.measures.items()}
    assert np.argwhere(shares > 0.9).tolist() == [[0, 2]]
    assert mean["lookback"][0, 2] < 1.05
    assert mean["entropy"][0, 2] < 0.2
    assert mean["normInf"][0, 2] > 0.95
    rest = np.delete(mean["lookback"].ravel(), 2)
    assert rest.min() > 2
    assert np.median(rest) > 20
    assert rest.max() < max(len(p.ids) for p in passages)
    assert np.ptp(mean["entropy"]) > 4
    assert (found.n_tokens[30:38] > 0).all()
    assert np.isnan(found.measures["norm1"][:30]).all()
