"""What the page on two presets is made from: plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Value = float | str | bool | None


@dataclass(frozen=True)
class Measure:
    """A number that is compared.

    ``text`` says what it is, ``digits`` how it is shown. What acts on the measure named by
    ``follows`` acts on it too.
    """

    key: str
    title: str
    text: str
    unit: str = ""
    digits: int = 3
    follows: str = ""


MEASURES: Mapping[str, Measure] = {
    one.key: one
    for one in (
        Measure("mean_r", "Mean r", "group mean r, mean over parcels, at the preset's best column"),
        Measure(
            "same_r",
            "Mean r, same column",
            "the same, both at the first preset's best column",
            follows="mean_r",
        ),
        Measure(
            "highest_r", "Highest r", "group mean r of the best parcel there", follows="mean_r"
        ),
        Measure(
            "best",
            "Best column",
            "layer or head with the highest mean r over parcels, chosen on these data",
            follows="mean_r",
        ),
        Measure(
            "n_significant",
            "Significant parcels, group",
            "parcels whose q over participants is at most the false discovery rate, at the best "
            "column",
            "parcels",
            0,
            "mean_r",
        ),
        Measure(
            "n_significant_people",
            "Significant parcels, person",
            "the same within participants, mean over runs",
            "parcels",
            1,
            "mean_r",
        ),
        Measure(
            "unique_r2",
            "Unique R²",
            "what the model adds to R² of the nuisance bands, mean over parcels, best column",
            digits=4,
            follows="mean_r",
        ),
        Measure(
            "normalized",
            "Normalised score",
            "mean r / ISC, mean over the parcels that have one, which differ between presets",
            follows="mean_r",
        ),
        Measure("n_normalized", "Parcels normalised", "parcels that have one", "parcels", 0),
        Measure("leaks", "Folds leak", "whether information leaks from test to training rows"),
        Measure(
            "least_distance",
            "Train-test distance",
            "least distance between a training and a test row of any outer fold",
            "TR",
            0,
        ),
        Measure("mean_isc", "Mean ISC", "intersubject correlation, mean over parcels"),
        Measure(
            "runtime", "Runtime", "time of the jobs, added up; reports are not counted", "s", 1
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """One measure with both presets; ``files`` are where the numbers come from."""

    story: str | None
    space: str | None
    atlas: str | None
    desc: str | None
    measure: str
    values: tuple[Value, Value]
    files: tuple[str, str] = ("", "")

    @property
    def difference(self) -> float | None:
        """Return second minus first, None where one is no number."""
        a, b = self.values
        if isinstance(a, bool | str) or isinstance(b, bool | str) or a is None or b is None:
            return None
        return float(b) - float(a)


@dataclass(frozen=True)
class SpaceScores:
    """Scores of one feature space.

    ``column`` is the first preset's best; ``r`` (2, n_parcels) are both presets' group means
    there, ``people`` (2, n_people) each person's mean over parcels at each preset's best.
    """

    desc: str
    name: str
    column: str
    r: np.ndarray
    people: np.ndarray
    files: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """One story, space and atlas; ``isc`` (2, n_parcels) may be empty."""

    story: str
    space: str
    atlas: str
    n_people: tuple[int, int]
    spaces: tuple[SpaceScores, ...]
    isc: np.ndarray
    isc_files: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A setting that differs: flag, both values, reason, keys of measures, why it is unused."""

    flag: str
    values: tuple[str, str]
    reason: str
    acts_on: tuple[str, ...]
    unused: str = ""


@dataclass(frozen=True)
class Facts:
    """How both presets were run.

    ``steps`` has (step, s of the first, s of the second), ``levelled`` (flag, value,
    both presets' own values), ``reports`` links to the pages of both.
    """

    presets: tuple[str, str]
    commands: tuple[str, ...]
    steps: tuple[tuple[str, float, float], ...]
    settings: tuple[Setting, ...]
    levelled: tuple[tuple[str, str, tuple[str, str]], ...]
    table: str
    reports: tuple[str, ...]
    logs: tuple[str, ...]
    version: str
