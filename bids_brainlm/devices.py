"""The search of the banded ridge on a device with fast products, such as a GPU.

Only what the search does in float32 runs there: it rules out pairs of gamma and alpha by
bounds. What is left is scored in float64 on the processor, as without a device, so that a
device changes no bit of any result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bids_brainlm.errors import ConfigError
from bids_brainlm.numerics.ridge import Screening
from bids_brainlm.numerics.ridge_screens import Candidates, Screen, Singles, bounded

__all__ = ["TorchScreening", "screening"]

_TARGETS = 10_000  # at once: few and large calls
_BYTES = 2**29  # of the predictions of one gamma on the device
_COPIES = 4  # of predictions: themselves, two products, what the library needs
_ONE_AT_A_TIME = threading.Lock()  # threads of a step share a device and torch's settings


class TorchScreening:
    """Bounds from torch, on any of its devices that has float64.

    Parameters
    ----------
    device : str
        As ``--device``: ``cuda``, ``cuda:1``; ``cpu`` works as well and is slower than numpy.
    n_bytes : int
        Memory of the device for predictions. Changes no result.

    Notes
    -----
    Products are made in float32 proper: TF32, which rounds to 10 bits, is switched off, since
    the bounds count on float32. See `numerics.ridge.search`.
    """

    def __init__(self, device: str, n_bytes: int = _BYTES) -> None:
        self.device, self.n_bytes = device, n_bytes

    def targets_per_block(self, n_alphas: int, n_targets: int) -> int:
        """Tell how many targets are best taken at once.

        Parameters
        ----------
        n_alphas : int
        n_targets : int
            How many there are.

        Returns
        -------
        int
        """
        return _TARGETS

    def begin(self, screens: Sequence[Sequence[Screen]], n_targets: int) -> None:
        """Do nothing: matrices are sent when they are needed.

        Parameters
        ----------
        screens : sequence of sequence of Screen
        n_targets : int
        """

    def candidates(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        best: np.ndarray,
    ) -> Candidates:
        """Find the pairs that could be better than all others, for each target.

        Parameters
        ----------
        singles : Singles
        screens : sequence of sequence of Screen
            By gamma and inner fold.
        slope : array, shape (n_alphas,)
            What is added to the score of each alpha.
        best : array, shape (n_targets,)
            The best score so far, exact.

        Returns
        -------
        gamma, alpha, column : array of int, shape (n_candidates,)
            Sorted by gamma, then alpha, then column.

        Raises
        ------
        ConfigError
            The device's memory is full.
        """
        widest = max(len(rows) for rows in singles.validation)
        step = max(1, self.n_bytes // (4 * _COPIES * widest * len(slope)))
        found = []
        with _ONE_AT_A_TIME, _full_precision(), _memory_told(self.device):
            for start in range(0, len(best), step):
                some = slice(start, start + step)
                gamma, alpha, column = self._some(singles, screens, slope, best[some], some)
                found.append((gamma, alpha, column + start))
        gamma, alpha, column = (np.concatenate(each) for each in zip(*found, strict=True))
        order = np.lexsort((column, alpha, gamma))
        return gamma[order], alpha[order], column[order]

    def _some(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        best: np.ndarray,
        some: slice,
    ) -> Candidates:
        """Find the candidates of some targets; columns count from their first one."""
        import torch

        shape = (len(screens), len(slope), len(best))
        mean = torch.zeros(shape, dtype=torch.float64, device=self.device)
        slack = torch.zeros_like(mean)
        for number, fold in enumerate(singles.folds):
            train = self._sent(singles.rows[fold.train, some])
            seen = self._sent(singles.validation[number][:, some])
            parts = tuple(self._sent(part) for part in singles.parts[number].of(some))
            rotated, basis = train, None
            for g, of_gamma in enumerate(screens):
                screen = of_gamma[number]
                if screen.basis is not basis:
                    basis = screen.basis
                    rotated = train if basis is None else self._sent(basis).T @ train
                stack = self._sent(screen.stack)
                flat = stack.reshape(-1, stack.shape[2]) @ rotated
                prediction = flat.reshape(*stack.shape[:2], -1)
                moments = (prediction * seen).sum(dim=1), (prediction * prediction).sum(dim=1)
                own = self._sent(screen.scale), self._sent(screen.error)
                value, error = bounded(torch, moments, *own, parts, centred=singles.centred)
                mean[g] += value
                slack[g] += error
        n_folds = len(singles.folds)
        mean = mean / n_folds + self._sent(slope)[:, None]
        slack /= n_folds
        least = torch.fmax(self._sent(best), (mean - slack).amax(dim=(0, 1)))
        kept = torch.nonzero(mean + slack >= least).cpu().numpy()
        return kept[:, 0], kept[:, 1], kept[:, 2]

    def _sent(self, values: np.ndarray) -> Any:
        """Copy an array to the device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def screening(device: str) -> Screening | None:
    """Return what rules out pairs in the search on a device.

    Parameters
    ----------
    device : str
        As ``--device``.

    Returns
    -------
    Screening or None
        None: numpy, for ``cpu``, where it is the fastest, and for devices without float64
        (``mps``).

    Raises
    ------
    ConfigError
        torch does not know the device, or cannot use it here.
    """
    if device == "cpu":
        return None
    import torch

    try:
        pair = torch.ones((2, 2), device=device)
        (pair @ pair).double().cpu()  # some devices hold arrays and cannot compute
    except TypeError:  # what torch raises for a type that a device lacks
        return None
    except (ImportError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {device!r} cannot be used ({str(error).splitlines()[0]}).",
            hint="Use --device cpu, or a device that torch finds here.",
        ) from error
    return None if torch.device(device).type == "cpu" else TorchScreening(device)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Let float32 products of torch be float32 for a while."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _memory_told(device: str) -> Iterator[None]:
    """Turn a full device into an error that names the flag."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"The search of the banded ridge does not fit into the memory of {device}.",
            hint="Set --device cpu, or run fewer processes on the device with --nprocs.",
        ) from error
