"""Which candidates of a search can be ruled out: bounds from numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainlm.numerics._ridge_climb import Climb
from bids_brainlm.numerics._ridge_tiers import Tiers
from bids_brainlm.numerics.ridge_ladder import Ladder, ladder
from bids_brainlm.numerics.ridge_screens import Candidates, Lean, Parts, Screen, Singles, bounded
from bids_brainlm.numerics.ridge_skeleton import Skeleton, skeleton

_FEW_TARGETS = 160
_MANY_TARGETS = 2500  # from here on a skeleton pays
_MANY_FOR_LADDERS = {False: 2500, True: 1250}  # targets: for R2, for r
_MANY_GAMMAS, _MANY_OF_LADDERS = 30, 45
_SEVERAL_ALPHAS = 3  # from here on a first bound pays, and all hats have a basis
_BLOCK, _LARGE_BLOCK, _LARGEST_BLOCK = 1000, 2500, 5000  # targets: cache against fewer calls


def climbs(n_gammas: int, n_alphas: int, n_targets: int, *, relative: bool) -> bool:
    """Tell whether ladders pay."""
    many = n_gammas >= _MANY_OF_LADDERS and n_targets >= _MANY_FOR_LADDERS[relative]
    return many and n_alphas >= _SEVERAL_ALPHAS


class Host:
    """Bounds from numpy.

    Parameters
    ----------
    relative : bool
        The score is r.
    """

    def __init__(self, *, relative: bool = False) -> None:
        self.relative = relative
        self._skeletons: list[Skeleton] = []
        self._ladders: list[Ladder] = []

    def targets_per_block(self, n_alphas: int, n_targets: int) -> int:
        """See `Screening`; predictions of one alpha stay in the cache, or are few."""
        if n_alphas == 1 and n_targets >= _MANY_TARGETS:
            return _LARGEST_BLOCK
        return _BLOCK if n_alphas < _SEVERAL_ALPHAS else _LARGE_BLOCK

    def begin(self, screens: Sequence[Sequence[Screen]], n_targets: int) -> None:
        """See `Screening`: find skeletons or ladders, where they pay."""
        self._skeletons, self._ladders = [], []
        if screens and isinstance(screens[0][0], Lean):
            self._ladders = _all_ladders(screens, relative=self.relative)
            return
        plain = all(len(s.stack) == 1 and s.basis is None for each in screens for s in each)
        if not plain or n_targets < _MANY_TARGETS or len(screens) < _MANY_GAMMAS:
            return
        found = []
        for of_fold in zip(*screens, strict=True):
            scales = np.array([screen.scale[0, 0] for screen in of_fold], dtype=np.float32)
            stack = np.stack([screen.stack[0] for screen in of_fold])
            one = skeleton(stack * scales[:, None, None])
            if one is None:
                return
            found.append(one)
        self._skeletons = found

    def candidates(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        best: np.ndarray,
    ) -> Candidates:
        """See `Screening`."""
        if self._skeletons:
            return Tiers(singles, screens, self._skeletons, float(slope[0])).candidates(best)
        if self._ladders:
            return Climb(singles, screens, self._ladders, slope).candidates(best)
        low, high = self.bounds(singles, screens, slope[:, None], best)
        least = np.fmax(best, low.max(axis=(0, 1)))
        return np.nonzero(high >= least)

    def bounds(
        self,
        singles: Singles,
        screens: Sequence[Sequence[Screen]],
        slope: np.ndarray,
        best: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bound the mean score from below and above.

        Parameters
        ----------
        singles, screens, best
            See `Screening.candidates`.
        slope : array, shape (n_alphas, 1)

        Returns
        -------
        low, high : array, shape (n_gammas, n_alphas, n_targets)
            Minus infinity for what was ruled out on the way.
        """
        n_alphas, n_targets = len(slope), len(best)
        pays = n_alphas >= _SEVERAL_ALPHAS and n_targets > _FEW_TARGETS
        if pays and not singles.centred and screens[0][0].basis is not None:
            return _pruned(singles, screens, slope, best)
        mean = np.zeros((len(screens), n_alphas, n_targets))
        slack = np.zeros_like(mean)
        for number, fold in enumerate(singles.folds):
            train = singles.rows[fold.train]
            rotated, basis = train, None
            for g, of_gamma in enumerate(screens):
                screen = of_gamma[number]
                if screen.basis is not basis:
                    basis = screen.basis
                    rotated = train if basis is None else basis.T @ train
                moments = _moments(screen.stack, rotated, singles.validation[number])
                value, error = _scored(singles, number, screen, moments)
                mean[g] += value
                slack[g] += error
        mean = mean / len(singles.folds) + slope
        slack /= len(singles.folds)
        return mean - slack, mean + slack


def _all_ladders(screens: Sequence[Sequence[Lean]], *, relative: bool) -> list[Ladder]:
    """Describe the matrices of every inner fold, or none."""
    every = []
    for of_fold in zip(*screens, strict=True):
        found = ladder(of_fold, relative=relative)
        if found is None:
            return []
        every.append(found)
    return every


def _pruned(
    singles: Singles, screens: Sequence[Sequence[Screen]], slope: np.ndarray, best: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the mean score; predict a fold only where the bound still reaches the best."""
    low = np.full((len(screens), len(slope), len(best)), -np.inf)
    high = low.copy()
    observed = [np.ascontiguousarray(rows.T) for rows in singles.validation]
    train = [singles.rows[fold.train].T for fold in singles.folds]
    rotated, bases = list(train), [None] * len(train)
    least = best.copy()
    for g, of_gamma in enumerate(screens):
        most = []
        for number, screen in enumerate(of_gamma):
            if screen.basis is not bases[number]:
                bases[number] = screen.basis
                rotated[number] = train[number] @ screen.basis
            product = screen.products(rotated[number], observed[number])
            most.append(_most(singles.parts[number], screen, product))
        mean, slack, some = _predicted(singles, of_gamma, (rotated, observed), most, slope, least)
        low[g][some], high[g][some] = mean - slack, mean + slack
        least = np.fmax(least, low[g].max(axis=0))
    return low, high


def _predicted(
    singles: Singles,
    of_gamma: Sequence[Screen],
    rows: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    most: Sequence[np.ndarray],
    slope: np.ndarray,
    least: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Score fold after fold what could reach ``least``: mean, slack, and (alpha, column)."""
    n_folds = len(of_gamma)
    reached = sum(most) / n_folds + slope >= least
    alpha, column = np.nonzero(reached)
    value, slack = np.zeros(len(alpha)), np.zeros(len(alpha))
    for number, screen in enumerate(of_gamma):
        moments = _moments_of(screen, rows[0][number], rows[1][number], alpha, column)
        more, error = _scored(singles, number, screen, moments, alpha, column)
        value, slack = value + more, slack + error
        rest = sum((part[alpha, column] for part in most[number + 1 :]), value + slack)
        kept = rest / n_folds + slope[alpha, 0] >= least[column]
        alpha, column, value, slack = alpha[kept], column[kept], value[kept], slack[kept]
    return value / n_folds + slope[alpha, 0], slack / n_folds, (alpha, column)


def _moments_of(
    screen: Screen, rotated: np.ndarray, observed: np.ndarray, alpha: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of prediction x target and of squared predictions of some pairs, sorted by alpha."""
    product = np.empty(len(alpha), dtype=np.float32)
    squares = np.empty_like(product)
    borders = np.searchsorted(alpha, np.arange(len(screen.stack) + 1))
    for hat, start, end in zip(screen.stack, borders[:-1], borders[1:], strict=True):
        if end > start:
            some = column[start:end]
            prediction = rotated.take(some, axis=0) @ hat.T
            np.einsum("tv,tv->t", prediction, observed.take(some, axis=0), out=product[start:end])
            np.einsum("tv,tv->t", prediction, prediction, out=squares[start:end])
    return product, squares


def _most(parts: Parts, screen: Screen, product: np.ndarray) -> np.ndarray:
    """Bound R2 of one fold from above: (p'p)(y'y) is at least (p'y)^2."""
    product = product * screen.scale
    error = screen.error * parts.root
    share = product * parts.own_inverse
    gain = (2.0 - share) * product + error * (2.0 + 2.0 * np.abs(share))
    gain += error**2 * parts.own_inverse
    return parts.base + parts.rounding + gain * parts.inverse


def _scored(
    singles: Singles,
    number: int,
    screen: Screen,
    moments: tuple[np.ndarray, np.ndarray],
    alpha: np.ndarray | None = None,
    column: np.ndarray | slice = slice(None),
) -> tuple[np.ndarray, np.ndarray]:
    """Score of one fold and a bound of its error, of all pairs or of some."""
    scale, error = screen.scale, screen.error
    if alpha is not None:
        scale, error = scale[alpha, 0], error[alpha, 0]
    kept = singles.parts[number].of(column)
    with np.errstate(divide="ignore", invalid="ignore"):
        return bounded(np, moments, scale, error, kept, centred=singles.centred)


def _moments(
    stack: np.ndarray, rotated: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of prediction x target and of squared predictions, each (n_alphas, n_targets)."""
    n_alphas, n_validation, n_train = stack.shape
    if rotated.shape[1] <= _FEW_TARGETS:
        prediction = (stack.reshape(-1, n_train) @ rotated).reshape(n_alphas, n_validation, -1)
        product = np.einsum("vt,avt->at", validation, prediction)
        return product, np.einsum("avt,avt->at", prediction, prediction)
    product = np.empty((n_alphas, rotated.shape[1]), dtype=np.float32)
    squares = np.empty_like(product)
    for index, hat in enumerate(stack):
        prediction = hat @ rotated
        product[index] = np.einsum("vt,vt->t", validation, prediction)
        squares[index] = np.einsum("vt,vt->t", prediction, prediction)
    return product, squares
