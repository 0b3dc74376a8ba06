"""Tables of results of encoding models, for the steps that fit them: which there are, and tests.

A helper of the encoding steps, not a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainlm.numerics import blas, crossval, design, multiple, resampling
from bids_brainlm.steps import encoding_columns, encoding_runs, significance
from bids_brainlm.steps import predictions as kept
from bids_brainlm.steps.base import Resources, Unit, each

ACROSS = {"stories": "AcrossStories", "runs": "AcrossRuns"}
"""End the ``desc`` of models that are fitted on other stories or runs than the tested one."""
OWN, SEEN, BLOCK = "own", "seen", "block_length"


def desc(unit: Unit) -> str:
    """Return the ``desc`` label of a unit's maps, such as ``minilmEmbeddings``.

    Spaces of stories have none of a model before them: ``linguistic``, ``linguisticEach``,
    ``stimEnvelope``.
    """
    first, *rest = str(unit.feature).split("-")
    name = first + "".join(part[:1].upper() + part[1:] for part in rest)
    return name if unit.model is None else f"{unit.model}{name[0].upper()}{name[1:]}"


def statistics(unit: Unit, bands: Sequence[str]) -> list[str]:
    """Return the statistics that are written for a unit."""
    main = ["r", "rjoint", "r2", "p", "q", "rthresholded"]
    if not unit.is_everywhere:
        main.insert(4, "pfwe")
    if unit.feature != "nuisance":
        main.insert(3, "unique")
    return main + [band_stat(band) for band in bands if band != "model"]


def band_stat(band: str) -> str:
    """Return the statistic that holds a band's own r, such as ``rcounts``, ``rstimenvelope``."""
    return "r" + band.replace("-", "").lower()


@dataclass(frozen=True)
class Fitting:
    """How columns are fitted and tested.

    ``shared_training`` tells that folds were trained on each other's rows; ``fdr`` is the false
    discovery rate; ``tell`` is told of every column that is done.
    """

    plan: crossval.Plan
    null: significance.Null
    fdr: float
    by_voxel: bool
    shared_training: bool = True
    tell: Callable[[str], None] = lambda label: None


def fit_columns(
    columns: Sequence[encoding_columns.Column],
    nuisance: Sequence[design.Band],
    people: Sequence[encoding_runs.Person],
    fitting: Fitting,
    resources: Resources,
) -> list[list[dict[str, object]]]:
    """Fit one model a column for several runs that share rows and folds.

    Parameters
    ----------
    columns : sequence of (str, Band or None)
        Label and main band of every column.
    nuisance : sequence of Band
    people : sequence of Person
        The runs.
    fitting : Fitting
    resources : Resources

    Returns
    -------
    list of list of dict
        For each column, a table for each run; targets lie last.
    """
    main = None if columns[0][1] is None else "model"
    targets = [person.targets for person in people]
    n_trs = len(people[0].series)
    pieces = encoding_runs.pieces(
        [y.shape[1] for y in targets],
        n_trs,
        len(nuisance) + (main is not None),
        n_workers=min(resources.nprocs, len(columns)),
        mem_gb=resources.mem_gb,
    )

    def fit(column: encoding_columns.Column) -> list[dict[str, object]]:
        label, band = column
        bands = nuisance if band is None else [*nuisance, band]
        parts: list[list[dict[str, object]]] = [[] for _ in people]
        for piece in pieces:
            cut = [targets[k][:, some] for k, some in piece]
            results = crossval.crossvalidate(bands, cut, fitting.plan, main=main)
            for (k, _), result in zip(piece, results, strict=True):
                parts[k].append(_part(result, fitting))
                if kept.is_wanted(people[k]):
                    parts[k][-1][kept.STAT] = result.prediction.astype(np.float32)
        fitting.tell(label)
        return [_table(several, fitting) for several in parts]

    with blas.single_threaded():
        return each(fit, columns, resources.nprocs, writes=False)


def _part(result: crossval.Result, fitting: Fitting) -> dict[str, object]:
    """Return what is known of some targets of one column of one run; targets lie last.

    The parcels of a run are tested together, once all are there; voxels are tested here, since
    the predictions of all of them would not fit into memory.
    """
    found: dict[str, object] = {
        "r": result.r,
        "rjoint": result.rjoint,
        "r2": result.r2,
        **{band_stat(n): values for n, values in result.band_r.items() if n != "model"},
        "alpha_index": result.alpha_index,
        "gamma_index": result.gamma_index,
        "df": result.df,
    }
    if not fitting.by_voxel:
        return {**found, OWN: result.prediction, SEEN: result.observed}
    tested = _test(result.prediction, result.observed, fitting, fitting.null.without_estimate())
    return {**found, "p": tested.p, BLOCK: tested.block_length_used}


def _table(parts: Sequence[Mapping[str, object]], fitting: Fitting) -> dict[str, object]:
    """Put the pieces of one column of one run together and add what needs all targets."""
    table: dict[str, object] = {
        name: np.concatenate([part[name] for part in parts], axis=-1)
        for name in parts[0]
        if name != BLOCK
    }
    length = parts[0].get(BLOCK)
    if OWN in table:
        tested = _test(table.pop(OWN), table.pop(SEEN), fitting, fitting.null)
        table["p"], table["pfwe"], length = tested.p, tested.p_fwe, tested.block_length_used
    q = multiple.benjamini_hochberg(table["p"])
    plan = fitting.plan
    alpha_index, gamma_index = table.pop("alpha_index"), table.pop("gamma_index")
    gammas = np.stack([g[i] for g, i in zip(plan.gammas, gamma_index, strict=True)])
    return {
        **table,
        "q": q,
        "rthresholded": np.where(q <= fitting.fdr, table["r"], np.nan),
        "alphas": np.bincount(alpha_index.ravel(), minlength=len(plan.alphas)),
        "gammas": gammas.mean(axis=(0, 1)),
        "significant": int(np.nansum(q <= fitting.fdr)),
        "block_length": length,
    }


def _test(
    prediction: np.ndarray, observed: np.ndarray, fitting: Fitting, null: significance.Null
) -> resampling.Resampled:
    """Test held-out predictions."""
    return significance.test(
        prediction,
        observed,
        fitting.plan.segments,
        null,
        shared_training=fitting.shared_training,
    )


def corrected_together(tables: Sequence[dict[str, object]], fdr: float) -> list[dict[str, object]]:
    """Adjust p over the columns and parcels of a run together.

    Parameters
    ----------
    tables : sequence of dict
        One a column, of one run.
    fdr : float

    Returns
    -------
    list of dict
        The same with other ``q`` and what follows from it.
    """
    p = np.stack([np.asarray(table["p"]) for table in tables])
    q = multiple.benjamini_hochberg(p.ravel()).reshape(p.shape)
    return [
        {
            **table,
            "q": own,
            "rthresholded": np.where(own <= fdr, table["r"], np.nan),
            "significant": int(np.nansum(own <= fdr)),
        }
        for table, own in zip(tables, q, strict=True)
    ]


def spread(
    person: encoding_runs.Person,
    stats: Sequence[str],
    labels: Sequence[str],
    found: Sequence[Mapping[str, object]],
    base: np.ndarray | None,
) -> dict[str, tuple[Sequence[str], np.ndarray]]:
    """Return the maps of a run by statistic, as `run_maps.write_run_maps` takes them.

    Parameters
    ----------
    person : Person
    stats : sequence of str
        From `statistics`.
    labels : sequence of str
        Columns.
    found : sequence of mapping
        Tables, one a column.
    base : array, shape (n_parcels, 1), or None
        R2 of the model of nuisance bands only, for ``unique``.

    Returns
    -------
    dict of str to (labels, array of shape (n_parcels, n_columns))
    """
    values = {
        stat: person.spread(np.column_stack([table[stat] for table in found]))
        for stat in stats
        if stat != "unique"
    }
    if base is not None:
        values["unique"] = values["r2"] - base
    return {stat: (labels, table) for stat, table in values.items()}
