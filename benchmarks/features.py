"""Feature extraction against the procedure of the paper, side by side in one process.

The reference procedure reads one window at a time (batch of 1, eager attention, torch as it
comes), and computes the heads' outputs in a second pass through each block's self-attention
module. Both read the same windows: the TR's words and those of the 20 TRs before it. Times are
alternated and given as medians; the ratio is what counts. Where the app takes oneDNN's products
(see ``language.products``), it is timed with torch's own as well, and the peak rates of both
libraries are given.

    python -m benchmarks.features            MiniLM and a random model of bert-base size
    python -m benchmarks.features --quick    fewer windows
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.common import Peer, Result
from bids_brainlm.language import measures, models, products, timing, transcripts
from bids_brainlm.language.tokens import window_text
from bids_brainlm.records import TRGrid

HERE = Path(__file__).parent
ALICE = HERE.parent / "bids_brainlm" / "data" / "alice" / "stimuli" / "alice_audio.TextGrid"
CONTEXT_TRS = 20
BERT_BASE = {
    "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512,
}  # fmt: skip


def rows_of_story() -> tuple[str, list[str]]:
    """Return the words of each TR: ``black`` where the test data are at hand, else Alice."""
    data = Path(os.environ.get("BRAINLM_TEST_DATA", HERE.parent.parent / "shared" / "data"))
    path = data / "narratives" / "gentle" / "black" / "align.csv"
    name, tr, n_trs = ("black", 1.5, 534) if path.is_file() else ("alice", 2.0, 382)
    path = path if path.is_file() else ALICE
    words, _ = timing.fill_times(transcripts.parse(path.read_bytes(), path.name).words)
    rows = timing.place_words(words, TRGrid(0, n_trs, tr), "offset").rows
    texts: list[list[str]] = [[] for _ in range(n_trs)]
    for word, row in zip(words, rows, strict=True):
        if row >= 0:
            texts[row].append(word.text)
    return name, [" ".join(t) for t in texts]


def reference(model: models.LanguageModel, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Extract embeddings and head outputs one window at a time, with a second attention pass."""
    states, heads = [], []
    for row, own in enumerate(texts):
        if not own:
            continue
        text, _ = window_text(texts, row, CONTEXT_TRS)
        encoded = model.tokenizer(text, return_tensors="pt")
        n_own = len(model.tokenizer(own, add_special_tokens=False)["input_ids"])
        keep = slice(-(n_own + 1), -1)
        with torch.no_grad():
            hidden = model.model(**encoded, output_hidden_states=True).hidden_states
            states.append(np.stack([h[0, keep].mean(0).numpy() for h in hidden]))
            second = [
                block.attention.self(hidden[k])[0][0, keep].mean(0).numpy()
                for k, block in enumerate(model.model.encoder.layer)
            ]
        heads.append(np.stack(second))
    return np.stack(states), np.stack(heads)


def ours(model: models.LanguageModel, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Extract the same with the app's function."""
    found = measures.extract(model, texts, context_trs=CONTEXT_TRS)
    kept = found.n_tokens > 0
    heads = found.transformations[kept]
    return found.embeddings[kept], heads.reshape(*heads.shape[:2], -1)


def random_bert_base(tokenizer: object, attention: str) -> models.LanguageModel:
    """Return a random model of bert-base size that shares a tokenizer."""
    from bids_brainlm.language.architectures import find_heads

    config = transformers.AutoConfig.for_model(
        vocab_size=len(tokenizer), attn_implementation=attention, **BERT_BASE
    )
    torch.manual_seed(0)
    net = transformers.AutoModel.from_config(config).eval().requires_grad_(False)
    heads, _ = find_heads(net, "bert", 12, 12)
    tiny = models.load(models.resolve("random:tiny-bert", offline=True), seed=0)
    return replace(
        tiny, model=net, tokenizer=tokenizer, n_layers=12, n_heads=12, head_dim=64, n_dims=768,
        heads=heads, max_tokens=512, architecture="BertModel (random, bert-base size)",
    )  # fmt: skip


def gemm_peak(library: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the measured rate of a large float32 matrix product of a library, GFLOP/s."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    with torch.inference_mode(), products.multiplying(library):
        torch.nn.functional.linear(a, b)
        for _ in range(8):
            start = clock()
            torch.nn.functional.linear(a, b)
            best = max(best, 2 * 2048**3 / (clock() - start) / 1e9)
    return best


def flops(model: models.LanguageModel, texts: list[str]) -> float:
    """Return the floating-point operations of one pass over all windows."""
    config, total = model.model.config, 0.0
    width, inner = config.hidden_size, config.intermediate_size
    for row, own in enumerate(texts):
        if own:
            n = len(model.tokenizer(window_text(texts, row, CONTEXT_TRS)[0])["input_ids"])
            block = 8 * n * width**2 + 4 * n * width * inner + 4 * n * n * width
            total += config.num_hidden_layers * block
    return total


def compare(
    name: str,
    fast: models.LanguageModel,
    plain: models.LanguageModel,
    texts: list[str],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, object]:
    """Time both procedures alternately and compare what they give."""
    runs = {"reference": (reference, plain), "ours": (ours, fast)}
    if fast.products != products.TORCH:
        runs["torch"] = (ours, replace(fast, products=products.TORCH))
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    results = {}
    for _ in range(repeats):
        for who, (run, model) in runs.items():
            start = clock()
            results[who] = run(model, texts)
            seconds[who].append(clock() - start)
    peak, peak_torch = (gemm_peak(one, clock) for one in (fast.products, products.TORCH))
    median = {who: statistics.median(values) for who, values in seconds.items()}
    rate = flops(fast, texts) / median["ours"] / 1e9
    return {
        "model": name,
        "n_windows": sum(bool(t) for t in texts),
        "reference_s": round(median["reference"], 2),
        "ours_s": round(median["ours"], 2),
        "ratio": round(median["reference"] / median["ours"], 2),
        "ratios": [
            round(a / b, 2) for a, b in zip(seconds["reference"], seconds["ours"], strict=True)
        ],
        "products": fast.products,
        "torch_products_s": round(median.get("torch", median["ours"]), 2),
        "gflops": round(rate, 1),
        "gemm_gflops": round(peak, 1),
        "share_of_gemm": round(rate / peak, 2),
        "torch_gemm_gflops": round(peak_torch, 1),
        "share_of_torch_gemm": round(rate / peak_torch, 2),
        "max_difference_embeddings": float(
            np.abs(results["reference"][0] - results["ours"][0]).max()
        ),
        "max_difference_transformations": float(
            np.abs(results["reference"][1] - results["ours"][1]).max()
        ),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def bert_base(quick: bool) -> Result:
    """Extract features of one story with a random model of BERT-base size, one thread."""
    torch.set_num_threads(1)
    story, texts = rows_of_story()
    tokenizer = models.load(models.resolve("minilm", offline=True), seed=0).tokenizer
    large = [random_bert_base(tokenizer, kind) for kind in ("sdpa", "eager")]
    name = "BERT-base size (12 x 12 heads, 768), random weights"
    some, repeats = texts[: 40 if quick else len(texts)], 1 if quick else 3
    found = compare(name, *large, some, repeats, time.process_time)
    return Result(
        work=f"features of one story, {name}",
        shapes=f"{story}, {found['n_windows']} windows of 20 TRs",
        seconds=found["ours_s"],
        peers=(
            Peer(
                "one window at a time, second attention pass",
                found["reference_s"],
                found["ratio"],
                1.5,
            ),
            *_with_torch(found),
        ),
        same=f"embeddings to {found['max_difference_embeddings']:.0e}, heads to "
        f"{found['max_difference_transformations']:.0e}",
        floor=f"{found['share_of_gemm']:.0%} of GEMM ({found['products']}), "
        f"{found['share_of_torch_gemm']:.0%} of torch's",
        repeats=repeats,
        notes=found,
    )


def _with_torch(found: dict[str, object]) -> tuple[Peer, ...]:
    """Return the app's own time with torch's products, where it takes others."""
    if found["products"] == products.TORCH:
        return ()
    seconds = found["torch_products_s"]
    return (Peer("here, torch's products", seconds, round(seconds / found["ours_s"], 2)),)


def main() -> None:
    """Run the comparison and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    story, texts = rows_of_story()
    part = texts[: 60 if given.quick else len(texts)]
    source = models.resolve("minilm", offline=True)
    fast = models.load(source, seed=0)
    plain = models.load(source, seed=0, attention="eager")
    rows = [compare("MiniLM-L6 (6 x 12 heads, 384)", fast, plain, part, 3)]
    large = [random_bert_base(fast.tokenizer, kind) for kind in ("sdpa", "eager")]
    some = texts[: 40 if given.quick else len(texts)]
    rows.append(compare("random, bert-base size (12 x 12 heads, 768)", *large, some, 3))
    table = {
        "story": story,
        "threads": given.threads,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "processor": platform.processor() or platform.machine(),
        "rows": rows,
    }
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "features.json").write_text(json.dumps(table, indent=2) + "\n")
    (folder / "features.md").write_text(markdown(table))
    print(markdown(table))


def markdown(table: dict) -> str:
    """Return the table as Markdown."""
    lines = [
        f"Feature extraction, story {table['story']}, {table['threads']} threads, torch "
        f"{table['versions']['torch']}, transformers {table['versions']['transformers']}",
        "",
        "| model | windows | paper's way, s | here, s | ratio | here with torch's products, s "
        "| share of the matrix product's rate | largest difference (embeddings / heads) "
        "| peak memory, GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['n_windows']} | {r['reference_s']} | {r['ours_s']} | "
        f"**{r['ratio']}** | {r['torch_products_s']} | {r['share_of_gemm']} ({r['gflops']} of "
        f"{r['gemm_gflops']} GFLOP/s, {r['products']}; torch's {r['torch_gemm_gflops']}) | "
        f"{r['max_difference_embeddings']:.1e} / {r['max_difference_transformations']:.1e} | "
        f"{r['peak_memory_gib']} |"
        for r in table["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
