"""Matrix products of a forward pass: torch's own, or those of oneDNN where they are faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

TORCH, ONEDNN = "torch", "oneDNN"
CPU_INFO = Path("/proc/cpuinfo")
SLOW_IN_MKL = "AuthenticAMD"
TOLERANCE = 1e-5  # of the largest result; float32 gives 1e-6, bfloat16 and tf32 1e-3
Product = Callable[[Any, Any, Any], Any]


def choose(device: Any) -> str:
    """Choose what multiplies the matrices of linear layers on a device.

    Parameters
    ----------
    device : torch.device
        Where the model is.

    Returns
    -------
    str
        ``oneDNN`` on processors of AMD with AVX-512, if torch was built with MKL and oneDNN and
        the latter's product is float32; ``torch`` everywhere else, which is what torch does of
        itself.

    Notes
    -----
    torch gives float32 products to MKL, which runs AVX2 kernels on all processors but Intel's.
    oneDNN, a part of torch as well, runs AVX-512 kernels on both. On an AMD EPYC (Zen 5) products
    of the shapes of BERT run at 180 to 230 in place of 85 to 105 GFLOP/s a core. Zen 4 has
    AVX-512 with units half as wide: with AVX2 kernels, which use that width too, oneDNN was
    faster by 1.1 on the same machine.

    The processor alone decides, no time is measured, so the same machine gives the same bits
    every time. Both sum in float32, in another order. For MiniLM and a model of BERT's size,
    with values up to 5, hidden states of the two differ by up to 4e-6; from float64 by up to
    3e-6 (torch) and 3e-6 (oneDNN), 2.4e-7 and 4.0e-7 on average (root mean square). With oneDNN
    neither the size of a batch nor the number of threads (1, 2, 4) changed a bit.

    ``ATEN_CPU_CAPABILITY=avx2`` in the environment, an option of torch, switches it off.
    """
    import torch

    is_better = (
        torch.device(device).type == "cpu"
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and _vendor() == SLOW_IN_MKL
        and torch.backends.mkl.is_available()
        and has_onednn()
    )
    return ONEDNN if is_better else TORCH


def has_onednn() -> bool:
    """Tell whether torch has oneDNN's product, and whether that is one of float32.

    Returns
    -------
    bool
        False too if a later torch gives the function another meaning: a small product is
        compared with the one in float64.
    """
    import torch

    x = torch.arange(24 * 256, dtype=torch.float64).reshape(24, 256).sin()
    weight = torch.arange(32 * 256, dtype=torch.float64).reshape(32, 256).cos()
    bias = torch.arange(32, dtype=torch.float64)
    expected = x.float().double() @ weight.float().double().T + bias
    try:
        with torch.inference_mode():
            found = _onednn()(x.float(), weight.float(), bias.float())
            return bool((found - expected).abs().max() < TOLERANCE * expected.abs().max())
    except (AttributeError, ImportError, TypeError, ValueError, RuntimeError):
        return False


@contextmanager
def multiplying(library: str) -> Iterator[None]:
    """Let a library multiply the matrices of linear layers within a block.

    Parameters
    ----------
    library : str
        ``torch``: nothing is changed. ``oneDNN``: for products of float32 on the CPU that need
        no gradient; all others are torch's.

    Yields
    ------
    None

    Notes
    -----
    Calls of ``torch.nn.functional.linear`` and ``torch.addmm`` (GPT-2's layers) are handed over;
    modules, their weights and hooks stay as they are. Weights are read where they lie: copies
    in oneDNN's own order would be 1.05 to 1.1 times as fast, and take the model's memory twice.
    """
    if library != ONEDNN:
        yield
        return
    with _mode()():
        yield


def _vendor() -> str | None:
    """Return the name of the processor's maker, None where the system does not tell."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "vendor_id":
            return value.strip()
    return None


def _onednn() -> Product:
    """Return oneDNN's product of inputs and transposed weights plus bias."""
    import torch

    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x, weight, bias: multiply(x, weight, bias, "none", [], "")


@cache
def _mode() -> Any:
    """Return the class of the context; it is made once, as torch is imported late."""
    import torch
    from torch.overrides import TorchFunctionMode

    linear, addmm, multiply = torch.nn.functional.linear, torch.addmm, _onednn()

    class HandingOver(TorchFunctionMode):
        """Hand linear layers over to oneDNN, and leave all else to torch."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            """Run one function of torch."""
            found = None
            if func is linear and not kwargs:
                found = (*args, None)[:3]
            elif func is addmm and len(args) == 3 and not kwargs:
                found = (args[1], args[2].t(), args[0])
            if found is not None and _fit(*found):
                return multiply(*found)
            return func(*args, **(kwargs or {}))

    return HandingOver


def _fit(x: Any, weight: Any, bias: Any) -> bool:
    """Tell whether these are tensors that oneDNN takes, of shapes that belong together."""
    import torch

    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        not torch.is_grad_enabled()
        and all(
            one.dtype is torch.float32 and one.device.type == "cpu" and one.layout is torch.strided
            for one in given
        )
        and (x.dim() >= 2 and weight.dim() == 2 and x.shape[-1] == weight.shape[1])
        and (bias is None or bias.shape == weight.shape[:1])
        and (x.numel() > 0 and weight.numel() > 0)
    )
