"""The miniature output folder with regions, a comparison, ceilings and components."""

from __future__ import annotations

import numpy as np
from report_outputs import LAYERS, SPACES, Fake

from bids_brainlm.bidsio import write

REGIONS = {"front": (0, 1, 2), "back": (5, 4)}  # rows of the parcels
COMPONENTS = ("PC01", "PC02")


class Richer(Fake):
    """Twelve anatomical parcels in two regions of interest."""

    def __init__(self, root, n_parcels: int = 12) -> None:
        super().__init__(root, n_parcels=n_parcels)

    @property
    def members(self) -> dict[str, list[str]]:
        """Parcels of each region."""
        return {name: [self.parcels[k] for k in rows] for name, rows in REGIONS.items()}

    def group(self) -> None:
        """Write the group's maps, then what the simple folder lacks."""
        super().group()
        self.ceilings()
        self.profiles()
        self.components()
        self.compared(self.atlas, self.parcels)
        whole = self.parcels, self.atlas
        facts = [{"Name": n, "Colour": "#0072B2", "Parcels": p} for n, p in self.members.items()]
        self.parcels, self.atlas = list(self.members), f"{self.atlas}Rois"
        for desc, columns in SPACES.items():
            values = self.rng.normal(0.1, 0.02, (len(facts), len(columns)))
            maps = {"mean": values, "cilow": values - 0.1, "cihigh": values + 0.1,
                    "q": np.full_like(values, 0.2)}
            for stat, found in maps.items():
                meta = {**self.meta(desc, columns), "Regions": facts}
                self.table("group_boldmap", self.place(desc=desc, stat=stat), columns, found, meta)
        self.compared(self.atlas, self.parcels)
        self.parcels, self.atlas = whole

    def ceilings(self) -> None:
        """Write a second ceiling and the test of the first."""
        n = len(self.parcels)
        both = np.linspace(0.6, 0.2, n)
        bounds = np.column_stack([both, both - 0.1, both + 0.1])
        self.table("group_boldmap", self.place(stat="splithalf"), ["value", "ci_low", "ci_high"],
                   bounds, self.meta("splithalf", ["value"]))
        q = np.linspace(0.001, 0.2, n)[:, None]
        self.table("group_boldmap", self.place(stat="iscq"), ["value"], q,
                   self.meta("iscq", ["value"]))

    def profiles(self) -> None:
        """Write layer profiles."""
        n = len(self.parcels)
        for stat, values in (("preferredlayer", np.arange(n) % 6 + 1.0),
                             ("layerentropy", np.full(n, 2.0)), ("specificity", np.full(n, 0.1))):
            self.table("group_boldmap", self.place(desc="fakeEmbeddings", stat=stat), ["value"],
                       values[:, None], self.meta("fakeEmbeddings", ["value"]))

    def components(self) -> None:
        """Write components of heads."""
        labels = {**self.place(desc="fakeSpecialization"), "ext": "tsv"}
        heads = [f"L{k + 1:02d}H{h + 1:02d}" for k in range(6) for h in range(12)]
        scores = self.rng.normal(size=(72, 2))
        write.write_tsv(self.names.path("head_scores", labels), {
            "head": heads, "layer": [int(h[1:3]) for h in heads],
            "lookback": np.linspace(1, 40, 72),
            **{c: scores[:, k] for k, c in enumerate(COMPONENTS)}})
        write.write_tsv(self.names.path("components", labels), {
            "component": list(COMPONENTS), "share": [0.6, 0.3], "agreement": [0.4, 0.1],
            "null_95": [0.05, 0.05], "p": [0.001, 0.2], "reliability": [0.9, 0.4]})
        covariates = ("layer", "lookback")
        pairs = [(c, v) for c in COMPONENTS for v in covariates]
        linked = {k: np.linspace(0.1, 0.4, 4) for k in
                  ("rho", "p", "q", "rhowithin", "pwithin", "qwithin")}
        write.write_tsv(self.names.path("associations", labels), {
            "component": [p[0] for p in pairs], "covariate": [p[1] for p in pairs], **linked})
        meta = self.meta("fakeSpecialization", list(COMPONENTS))
        self.table("group_boldmap", self.place(desc="fakeSpecialization", stat="loading"),
                   list(COMPONENTS), self.rng.normal(size=(len(self.parcels), 2)), meta)

    def compared(self, atlas: str, regions: list[str]) -> None:
        """Write a comparison of two feature spaces."""
        labels = {"story": "tea", "space": self.space, "atlas": atlas, "ext": "tsv"}
        pair, n = ("fakeEmbeddings", "fakeTransformations"), len(regions)
        write.write_tsv(self.names.path("comparison", labels), {
            "region": regions, "first": [pair[0]] * n, "second": [pair[1]] * n,
            "n_participants": [5] * n, "difference": np.linspace(-0.1, 0.1, n),
            "low": np.linspace(-0.2, 0, n), "high": np.linspace(0, 0.2, n),
            "effect": np.linspace(-1, 1, n), "p": np.linspace(0.01, 1, n),
            "q": np.linspace(0.02, 1, n), "p_fwe": np.linspace(0.03, 1, n)})
        write.write_json(self.names.path("comparison", {**labels, "ext": "json"}),
                         {"NumberOfParticipants": 5, "Columns": {"fakeEmbeddings": LAYERS}})
        rows = [(p, d, r) for d in pair for p in self.people for r in regions]
        write.write_tsv(self.names.path("scores", labels), {
            "participant": [f"sub-{p}" for p, _, _ in rows], "desc": [d for _, d, _ in rows],
            "region": [r for _, _, r in rows], "column": ["value"] * len(rows),
            "chosen": [1] * len(rows), "r": self.rng.normal(0.1, 0.05, len(rows))})
