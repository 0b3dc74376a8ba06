"""What training rows could know about test rows: a leakage audit of a plan of folds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.folds import Fold, ranges

SEVERITIES = ("leak", "warning", "note", "fine")
_N_GRAMS = range(1, 9)
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Finding:
    """One check of the audit.

    Attributes
    ----------
    severity : {"leak", "warning", "note", "fine"}
        A leak makes scores invalid; a warning may raise them; a note tells what was found.
    check : {"features", "response", "inner folds", "context", "learned", "text"}
        What was looked at.
    text : str
        The finding in plain English, with numbers and units.
    """

    severity: str
    check: str
    text: str


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes
    ----------
    outer_distance, inner_distance : int or None
        Least distance in TRs between a training and a test row of any fold (1: neighbours; 0:
        the same row is in both); None where they never lie in the same story.
    needed_distance : int
        Distance from which the delayed response to a TR reaches only one of the two.
    delays_cross, response_crosses, context_crosses : bool
        Whether training and test rows have a TR of the stimulus in common among their delayed
        features; among what the BOLD signal still holds; in the language model's context.
    learned_on_all_rows : tuple of str
        What was learned on training and test rows together.
    overlap : dict of int to float
        Share of n-grams of the test rows that also occur in the training rows, by n; empty
        without words.
    findings : tuple of Finding
        The worst first.
    """

    outer_distance: int | None
    inner_distance: int | None
    needed_distance: int
    delays_cross: bool
    response_crosses: bool
    context_crosses: bool
    learned_on_all_rows: tuple[str, ...]
    overlap: Mapping[int, float]
    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> bool:
        """Whether any finding is a leak."""
        return any(one.severity == "leak" for one in self.findings)


@dataclass(frozen=True)
class _Facts:
    """Distances and settings, as the single checks need them."""

    outer: int | None
    inner: int | None
    delays: tuple[int, ...]
    tr: float
    tail: int
    context_trs: int | None

    @property
    def spread(self) -> int:
        return max(self.delays) - min(self.delays)

    @property
    def needed(self) -> int:
        return max(self.delays) + self.tail


def audit(
    outer: Sequence[Fold],
    inner: Sequence[Sequence[Fold]],
    *,
    delays: Sequence[int],
    tr: float,
    response_tail: float = 5.0,
    context_trs: int | None = None,
    learned_on_all_rows: Sequence[str] = (),
    words: Sequence[Sequence[str]] | None = None,
    stories: np.ndarray | None = None,
    many_repeats: float = 0.05,
) -> Audit:
    """Check folds for what crosses from training to test rows.

    Parameters
    ----------
    outer : sequence of Fold
        Row numbers, as `folds.contiguous_folds` and `crossval.Plan` have them.
    inner : sequence of sequence of Fold
        Positions within the training rows of each outer fold; may be empty.
    delays : sequence of int
        FIR delays in TRs.
    tr : float
        Repetition time, s.
    response_tail : float
        How long the response goes on after the longest delay, s.
    context_trs : int, optional
        How many previous TRs of text the language model sees; None: no language model.
    learned_on_all_rows : sequence of str
        What was learned before rows were divided, such as "standardisation" or "PCA".
    words : sequence of sequence of str, optional
        Words of each row.
    stories : array of int, shape (n_rows,), optional
        Which story (or run) each row belongs to; distances count within stories only.
    many_repeats : float
        Share of repeated 8-grams from which a warning is given.

    Returns
    -------
    Audit

    Raises
    ------
    NumericalError
        No folds, no delays, a TR that is not positive, or rows outside of words or stories.

    Notes
    -----
    A row at time t holds features of the TRs ``t - max(delays)`` to ``t - min(delays)``. Two
    rows share a feature when they are no more than ``max - min`` TRs apart: that is a leak,
    and so are a row in both parts and anything learned on all rows. They share part of the
    response when they are fewer than ``max + response_tail`` TRs apart: a warning, or a leak
    where features cross too. The canonical response is over after about 12 s but for a small
    undershoot; with delays up to 7.5 s the tail is 5 s.

    The context of a test row reaches back into training rows unless the gap is as long; the
    words are no targets, so this is a warning: it lets scores profit from text that the model
    was fitted on, which is why contexts are best begun anew at the border of a fold.

    n-grams never span rows that do not follow each other. Words are compared without case and
    punctuation.

    References
    ----------
    .. [1] Hadidi et al. (2026), doi:10.1038/s41467-026-72253-7
    """
    _check(outer, inner, delays, tr)
    n_rows = 1 + max(int(max(f.train.max(), f.test.max())) for f in outer)
    for name, given in (("words", words), ("stories", stories)):
        if given is not None and len(given) < n_rows:
            raise NumericalError(f"There are {len(given)} rows of {name}, expected {n_rows}.")
    nested = [
        Fold(fold.train[part.train], fold.train[part.test])
        for fold, parts in zip(outer, inner, strict=False)
        for part in parts
    ]
    facts = _Facts(
        _least(outer, stories),
        _least(nested, stories),
        tuple(int(delay) for delay in delays),
        tr,
        math.ceil(response_tail / tr - 1e-9),
        context_trs,
    )
    overlap = {} if words is None else n_gram_overlap(outer, words, stories=stories)
    findings = [
        *_row_findings(facts),
        *_context_findings(facts),
        *_learned_findings(learned_on_all_rows),
        *_text_findings(overlap, many_repeats),
    ]
    return Audit(
        outer_distance=facts.outer,
        inner_distance=facts.inner,
        needed_distance=facts.needed,
        delays_cross=_within(facts.outer, facts.spread + 1),
        response_crosses=_within(facts.outer, facts.needed),
        context_crosses=_context_crosses(facts),
        learned_on_all_rows=tuple(learned_on_all_rows),
        overlap=overlap,
        findings=tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))),
    )


def n_gram_overlap(
    folds: Sequence[Fold],
    words: Sequence[Sequence[str]],
    *,
    lengths: Sequence[int] = _N_GRAMS,
    stories: np.ndarray | None = None,
) -> dict[int, float]:
    """Share of n-grams of test rows that also occur in training rows.

    Parameters
    ----------
    folds : sequence of Fold
        Row numbers.
    words : sequence of sequence of str
        Words of each row.
    lengths : sequence of int
        The n.
    stories : array of int, shape (n_rows,), optional
        Story of each row; n-grams do not span stories.

    Returns
    -------
    dict of int to float
        Over all folds together, every occurrence in test rows counted; NaN where test rows
        have no n-gram.
    """
    found = {}
    tokens = [[t for t in map(_plain, row) if t] for row in words]
    for n in lengths:
        n_known, n_all = 0, 0
        for fold in folds:
            known = set(_n_grams(fold.train, tokens, n, stories))
            tested = list(_n_grams(fold.test, tokens, n, stories))
            n_known += sum(one in known for one in tested)
            n_all += len(tested)
        found[n] = n_known / n_all if n_all else math.nan
    return found


def _check(
    outer: Sequence[Fold], inner: Sequence[Sequence[Fold]], delays: Sequence[int], tr: float
) -> None:
    """Raise if there is nothing to audit."""
    if not len(outer) or any(not f.train.size or not f.test.size for f in outer):
        raise NumericalError("A plan without folds, or with empty folds, cannot be audited.")
    if len(inner) not in (0, len(outer)):
        raise NumericalError(f"Found inner folds of {len(inner)} outer folds, not {len(outer)}.")
    if not len(delays) or not tr > 0:
        raise NumericalError(
            f"Found the delays {list(delays)} and a TR of {tr} s, expected at least one delay and "
            "a positive TR."
        )


def _least(folds: Sequence[Fold], stories: np.ndarray | None) -> int | None:
    """Least distance in TRs between training and test rows of one story."""
    least = _FAR
    for fold in folds:
        train, test = np.unique(fold.train), np.unique(fold.test)
        groups = [(train, test)]
        if stories is not None:
            of = np.asarray(stories)
            shared = np.intersect1d(of[train], of[test])
            groups = [(train[of[train] == s], test[of[test] == s]) for s in shared]
        for a, b in groups:
            after = np.searchsorted(a, b).clip(0, a.size - 1)
            nearest = np.minimum(np.abs(a[after] - b), np.abs(a[(after - 1).clip(0)] - b))
            least = min(least, int(nearest.min()))
    return None if least == _FAR else least


def _within(distance: int | None, bound: int) -> bool:
    """Whether rows lie closer than a bound."""
    return distance is not None and distance < bound


def _context_crosses(facts: _Facts) -> bool:
    """Whether the text that test features rest on was heard in training rows."""
    if facts.context_trs is None:
        return False
    return _within(facts.outer, facts.context_trs + facts.spread + 1)


def _row_findings(facts: _Facts) -> Iterator[Finding]:
    """Report distances of outer and inner folds."""
    for name, distance in (("outer", facts.outer), ("inner", facts.inner)):
        first, second = ("features", "response") if name == "outer" else ("inner folds",) * 2
        where = f"Training and test rows of the {name} folds"
        if distance is None:
            if name == "outer":
                yield Finding("fine", first, f"{where} never lie in the same story.")
            continue
        near = f"{where} are {distance} TRs ({distance * facts.tr:g} s) apart"
        if distance == 0:
            yield Finding("leak", first, f"{where} overlap: the same row is in both.")
        elif distance <= facts.spread:
            yield Finding(
                "leak",
                first,
                f"{near}; delays of {min(facts.delays)} to {max(facts.delays)} TRs bring the same "
                f"stimulus into both. Expected more than {facts.spread} TRs.",
            )
        elif distance < facts.needed:
            yield Finding(
                "warning",
                second,
                f"{near}; the response to a TR lasts for {facts.needed} TRs "
                f"({facts.needed * facts.tr:g} s) and reaches both.",
            )
        else:
            yield Finding(
                "fine", first, f"{near}; at least {facts.needed} TRs are needed."
            )


def _context_findings(facts: _Facts) -> Iterator[Finding]:
    """Report whether the language model's context crosses the border."""
    if facts.context_trs is None:
        return
    context = f"The language model sees {facts.context_trs} TRs of text before the current one"
    if _context_crosses(facts):
        yield Finding(
            "warning",
            "context",
            f"{context}; test rows lie {facts.outer} TRs from training rows, so that features of "
            "test rows rest on words that were heard in training rows.",
        )
    else:
        yield Finding("fine", "context", f"{context}; none of it was heard in training rows.")


def _learned_findings(learned: Sequence[str]) -> Iterator[Finding]:
    """Report what was learned on all rows."""
    if learned:
        yield Finding(
            "leak",
            "learned",
            f"Learned on training and test rows together: {', '.join(learned)}. Expected: on "
            "training rows only.",
        )
    else:
        yield Finding("fine", "learned", "Everything that is learned is learned on training rows.")


def _text_findings(overlap: Mapping[int, float], many: float) -> Iterator[Finding]:
    """Report how much of the text of test rows also occurs in training rows."""
    known = {n: share for n, share in overlap.items() if not math.isnan(share)}
    if not known:
        return
    longest = max(known)
    shares = ", ".join(f"{n}: {share:.0%}" for n, share in known.items())
    text = f"Share of test n-grams that also occur in training rows, by n: {shares}."
    if longest > 1 and known[longest] > many:
        yield Finding("warning", "text", f"{text} Parts of the text were heard twice.")
    else:
        yield Finding("note", "text", text)


def _plain(word: str) -> str:
    """Lower case, letters and digits only."""
    return "".join(c for c in word.casefold() if c.isalnum())


def _n_grams(
    rows: np.ndarray, tokens: Sequence[Sequence[str]], n: int, stories: np.ndarray | None
) -> Iterator[tuple[str, ...]]:
    """n-grams within runs of rows that follow each other in a story."""
    rows = np.unique(rows)
    of = np.zeros(len(tokens), int) if stories is None else np.asarray(stories)
    for story in np.unique(of[rows]):
        for first, last in ranges(rows[of[rows] == story]):
            text = [token for row in range(first, last + 1) for token in tokens[row]]
            for start in range(len(text) - n + 1):
                yield tuple(text[start : start + n])
