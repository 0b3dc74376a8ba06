"""Read the outputs of attention heads while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bids_brainlm.language.architectures import Heads


@contextmanager
def capture_heads(heads: Heads, consume: Callable[[int, Any], None]) -> Iterator[None]:
    """Hand the head outputs of each block to a function during one forward pass.

    Parameters
    ----------
    heads : Heads
        From `architectures.find_heads`.
    consume : callable
        Called with the block (0 is the first) and a tensor of shape (n_texts, n_tokens,
        n_heads, head_dim), in the order in which the blocks run.

    Yields
    ------
    None

    Notes
    -----
    What is read is the input of the attention output projection: softmax(QK')V of all heads
    side by side, before they are mixed. The hooks are removed whatever happens. Blocks are
    told apart by the order of the calls, so use it around a single forward pass.
    """
    n_calls = 0

    def read(module: Any, inputs: tuple[Any, ...]) -> None:
        nonlocal n_calls
        joined = inputs[0]
        consume(n_calls, joined.reshape(*joined.shape[:2], heads.n_heads, heads.head_dim))
        n_calls += 1

    handles = []
    try:
        for module in heads.projections:
            handles.append(module.register_forward_pre_hook(read))
        yield
    finally:
        for handle in handles:
            handle.remove()
