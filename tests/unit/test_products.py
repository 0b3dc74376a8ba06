"""oneDNN's products: where they are chosen, and that models give the same with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from bids_brainlm.language import attention, measures, models, products, surprisal, tokens
from bids_brainlm.simulate.models import write_tiny_model

TEXT = "So I was a junior in high school and I’d been to the weekends, wasn't it a café"
ROWS = ["So I was a", "", "junior in high", "school and I’d been", "weekends, wasn't it", "a"]
CPU = torch.device("cpu")


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Return a function that pretends another processor, with MKL in torch."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(products, "CPU_INFO", file)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)

    def pretend(vendor, capability):
        lines = "processor\t: 0\n{}cpu family\t: 26\nflags\t\t: fpu avx512f\n"
        file.write_text(lines.format(f"vendor_id\t: {vendor}\n" if vendor else ""))
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return pretend


@pytest.fixture
def handed(monkeypatch):
    """Return a list that grows by the shape of the weights of each product of oneDNN."""
    if not products.has_onednn():
        pytest.skip("torch without oneDNN")
    shapes, real = [], products._onednn()

    def count(x, weight, bias):
        shapes.append(tuple(weight.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(products, "_onednn", lambda: count)
    products._mode.cache_clear()
    yield shapes
    products._mode.cache_clear()


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", "oneDNN"),
        ("AuthenticAMD", "AVX2", "torch"),
        ("AuthenticAMD", "DEFAULT", "torch"),
        ("GenuineIntel", "AVX512", "torch"),
        ("GenuineIntel", "AVX2", "torch"),
        (None, "SVE256", "torch"),
        (None, "AVX512", "torch"),
    ],
)
def test_the_processor_decides(processor, vendor, capability, expected):
    processor(vendor, capability)
    assert products.choose(CPU) == expected
    assert products.choose(torch.device("cuda:1")) == "torch"
    assert products.choose(torch.device("mps")) == "torch"


def test_nothing_changes_without_what_it_needs(processor, monkeypatch, tmp_path):
    processor("AuthenticAMD", "AVX512")
    assert products.choose("cpu") == "oneDNN"
    with monkeypatch.context() as other:
        other.setattr(torch.backends.mkl, "is_available", lambda: False)
        assert products.choose(CPU) == "torch"
    with monkeypatch.context() as other:
        other.setattr(products, "has_onednn", lambda: False)
        assert products.choose(CPU) == "torch"
    monkeypatch.setattr(products, "CPU_INFO", tmp_path / "none")
    assert products.choose(CPU) == "torch"


def _missing():
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def _raising(error):
    def product(x, weight, bias):
        raise error

    return lambda: product


def _rounded(x, weight, bias):
    """Return the product of numbers that were rounded to bfloat16."""
    return torch.nn.functional.linear(x.bfloat16().float(), weight.bfloat16().float(), bias)


@pytest.mark.parametrize(
    "product",
    [
        _missing,
        _raising(RuntimeError("could not create a primitive")),
        _raising(NotImplementedError("no kernel")),
        _raising(TypeError("takes 7 arguments")),
        lambda: _rounded,
        lambda: lambda x, weight, bias: x @ weight.T,
        lambda: lambda x, weight, bias: torch.full((len(x), len(weight)), torch.nan),
    ],
    ids=["missing", "runtime", "not-implemented", "signature", "bfloat16", "no-bias", "nan"],
)
def test_a_product_that_is_not_float32_is_not_taken(monkeypatch, product):
    monkeypatch.setattr(products, "_onednn", product)
    assert not products.has_onednn()


def test_torchs_own_product_passes_the_check(monkeypatch):
    monkeypatch.setattr(products, "_onednn", lambda: torch.nn.functional.linear)
    assert products.has_onednn()


def draw(*shape):
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape)).float()


CASES = {
    "linear": (lambda x, w, b: torch.nn.functional.linear(x, w, b), (70, 48), (96, 48), True),
    "batch": (lambda x, w, b: torch.nn.functional.linear(x, w, b), (3, 5, 48), (96, 48), True),
    "no bias": (lambda x, w, b: torch.nn.functional.linear(x, w), (5, 48), (7, 48), False),
    "one row": (lambda x, w, b: torch.nn.functional.linear(x, w, b), (1, 48), (9, 48), True),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w.T), (70, 48), (96, 48), True),
    "addmm of Conv1D": (
        lambda x, w, b: torch.addmm(b, x, w.T.contiguous()),
        *((9, 48), (96, 48), True),
    ),
    "part": (lambda x, w, b: torch.nn.functional.linear(x, w[::2], b[::2]), (9, 8), (6, 8), True),
    "turned": (
        lambda x, w, b: torch.nn.functional.linear(x.transpose(0, 1), w, b),
        *((3, 5, 8), (6, 8), True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_products_are_right_and_handed_over(handed, case):
    run, shape, weights, has_bias = CASES[case]
    given = [draw(*shape), draw(*weights), draw(weights[0]) + 3]
    expected = run(*(one.double() for one in given)).numpy()
    with torch.inference_mode(), products.multiplying("oneDNN"):
        found = run(*given)
    assert len(handed) == 1
    assert found.dtype is torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert has_bias or not found.isnan().any()


@pytest.mark.parametrize(
    "run",
    [
        lambda x, w, b: torch.nn.functional.linear(x.double(), w.double(), b.double()),
        lambda x, w, b: torch.nn.functional.linear(x.bfloat16(), w.bfloat16(), b.bfloat16()),
        lambda x, w, b: torch.nn.functional.linear(x[0], w, b),
        lambda x, w, b: torch.nn.functional.linear(x[:0], w, b),
        lambda x, w, b: torch.nn.functional.linear(x, w, bias=b),
        lambda x, w, b: torch.addmm(b, x, w.T, alpha=0.5),
        lambda x, w, b: torch.addmm(draw(5, 7), x, w.T),
        lambda x, w, b: torch.matmul(x, w.T),
    ],
    ids=["float64", "bfloat16", "vector", "empty", "keyword", "alpha", "matrix", "matmul"],
)
def test_all_else_stays_with_torch(handed, run):
    given = draw(5, 8), draw(7, 8), draw(7)
    expected = run(*given)
    with torch.inference_mode(), products.multiplying("oneDNN"):
        found = run(*given)
    assert handed == []
    assert torch.equal(found, expected)


def test_gradients_stay_with_torch(handed):
    x, weight = draw(5, 8), draw(7, 8).requires_grad_()
    with products.multiplying("oneDNN"):
        torch.nn.functional.linear(x, weight).sum().backward()
    assert handed == []
    np.testing.assert_allclose(weight.grad.numpy(), np.tile(x.sum(0).numpy(), (7, 1)), rtol=1e-5)


def test_wrong_shapes_give_torchs_error_and_end_the_block(handed):
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        torch.inference_mode(),
        products.multiplying("oneDNN"),
    ):
        torch.nn.functional.linear(draw(5, 8), draw(7, 9))
    with torch.inference_mode():
        torch.nn.functional.linear(draw(5, 8), draw(7, 8))
    assert handed == []


def test_torch_hands_nothing_over(handed):
    with torch.inference_mode(), products.multiplying("torch"):
        torch.nn.functional.linear(draw(5, 8), draw(7, 8))
    assert handed == []


@pytest.fixture(scope="module")
def get(tmp_path_factory, request):
    """Return a maker of models, random small ones but for MiniLM."""
    made = {}

    def make(name, **how):
        key = (name, *how.items())
        if key not in made:
            if name == "minilm":
                folder = request.getfixturevalue("minilm")
            else:
                folder = tmp_path_factory.mktemp(name)
                head = name in ("gpt2", "llama")
                write_tiny_model(folder, name, TEXT, seed=3, n_heads=4, n_dims=64, head=head)
            made[key] = models.load(models.resolve(folder, offline=True), seed=1, **how)
        return made[key]

    return make


def both(model):
    return [replace(model, products=library) for library in ("torch", "oneDNN")]


def assert_close(found, expected):
    """Compare what float32 can compare: rounding of the largest value."""
    scale = max(1.0, float(np.nanmax(np.abs(expected))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "minilm"])
def test_features_are_the_same(get, handed, name):
    plain, fast = both(get(name))
    handed.clear()  # loading tries a product
    expected = measures.extract(plain, ROWS)
    assert handed == []
    n_calls = 0

    def count(module, inputs, output):
        nonlocal n_calls
        n_calls += 1

    layers = [m for m in fast.model.modules() if isinstance(m, (torch.nn.Linear, Conv1D))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    found = measures.extract(fast, ROWS)
    for hook in hooks:
        hook.remove()
    assert len(handed) == n_calls >= 4 * fast.n_layers
    assert_close(found.embeddings, expected.embeddings)
    assert_close(found.transformations, expected.transformations)
    assert_close(found.magnitudes, expected.magnitudes)
    np.testing.assert_array_equal(found.n_tokens, expected.n_tokens)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("context", ["window", "growing"])
def test_surprisal_is_the_same(get, handed, name, context):
    plain, fast = both(get(name, head=True))
    handed.clear()
    words = [row.split() for row in ROWS]
    expected = surprisal.extract_surprisal(plain, words, context=context)
    assert handed == []
    found = surprisal.extract_surprisal(fast, words, context=context)
    n_words = fast.predictor.get_output_embeddings().weight.shape[0]
    assert [shape[0] for shape in handed].count(n_words)  # the head goes this way too
    np.testing.assert_allclose(found.surprisal, expected.surprisal, rtol=1e-5)
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_attention_is_the_same(get, handed, name):
    plain, fast = both(get(name, attention="eager"))
    handed.clear()
    texts = tokens.windows(plain.tokenizer, ROWS, 2, plain.max_tokens)
    expected = attention.extract_attention(plain, texts, len(ROWS)).measures
    assert handed == []
    found = attention.extract_attention(fast, texts, len(ROWS)).measures
    assert handed
    for measure, values in expected.items():
        assert_close(found[measure], values)


def test_a_loaded_model_says_what_it_takes(get):
    model = get("bert")
    assert model.products == products.choose(CPU)
    assert model.products in ("torch", "oneDNN")
