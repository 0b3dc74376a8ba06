"""A miniature output folder with invented numbers, true to the schema; for report tests only."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names

TRIED = [10.0**e for e in range(-2, 7)]
LAYERS = [f"layer{k:02d}" for k in range(7)]
HEADS = [f"L{layer:02d}H{head:02d}" for layer in range(1, 7) for head in range(1, 13)]
SPACES = {"fakeEmbeddings": LAYERS, "fakeTransformations": HEADS, "fakeMagnitudes": ["value"]}
N_TRS, TR, START = 120, 2.0, 12.0
ALICE = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")


class Fake:
    """Writes the files; ``n_parcels`` over 6 gives an anatomical atlas on a coarse MNI grid."""

    def __init__(self, root: Path, n_people: int = 5, n_parcels: int = 6, seed: int = 7) -> None:
        self.names = Names(root)
        self.rng = np.random.default_rng(seed)
        self.people = [f"{k + 1:02d}" for k in range(n_people)]
        self.anatomical = n_parcels > 6
        self.parcels = (
            [f"17Networks_LH_TempPar_{k + 1}" for k in range(n_parcels)]
            if self.anatomical
            else list(ALICE)
        )
        self.space = "MNI152NLin2009cAsym"
        self.atlas = "Schaefer2018Fake" if self.anatomical else "Alice6"
        self.signal = np.linspace(0.12, 0.0, len(self.parcels))

    def place(self, participant: str | None = None, **more: str | None) -> dict[str, str | None]:
        """Return entities of a file."""
        base = {"story": "tea", "space": self.space, "atlas": self.atlas, **more}
        return {**base, "participant": participant} if participant else base

    def write(self) -> Path:
        """Write everything and return the folder."""
        self.words()
        for person in self.people:
            self.series(person)
            self.label(person)
            self.fits(person)
        self.group()
        return self.names.root

    def words(self) -> None:
        """Write words, one of them hostile."""
        onsets = np.sort(self.rng.uniform(4, N_TRS * TR - 6, 400))
        onsets = onsets[(onsets < 90) | (onsets > 104)]
        text = ["word"] * len(onsets)
        text[0] = "<script>alert('x')</script>"
        rows = np.floor((onsets + 0.25) / TR).astype(int)
        entities = {"story": "tea", "ext": "tsv"}
        write.write_tsv(
            self.names.path("words", entities),
            {"onset": onsets + START, "duration": np.full(len(onsets), 0.25), "word": text,
             "aligned": text, "row": rows, "tr": rows + 6,
             "interpolated": np.zeros(len(onsets), int)},
        )
        counts = np.bincount(rows, minlength=N_TRS)
        write.write_json(self.names.path("words", {**entities, "ext": "json"}), {
            "Story": "tea", "StimulusFile": "tea_audio.wav", "AudioOnset": 9.0, "StoryOnset": START,
            "StoryDuration": N_TRS * TR, "RepetitionTime": TR, "StartTime": START,
            "NumberOfRows": N_TRS, "FirstVolume": 6, "BinRule": "offset",
            "NumberOfWords": len(onsets), "NumberInterpolated": 3, "NumberBefore": 1,
            "NumberAfter": 0, "NumberOfEmptyTRs": int((counts == 0).sum()),
            "FirstWordOnset": float(onsets[0] + START),
            "LastWordOffset": float(onsets[-1] + START + 0.25), "HasPhones": False, "Warnings": [],
            "Key": "0", "Step": {"Name": "words", "Version": 1, "Parameters": {}},
        })

    def series(self, person: str) -> None:
        """Write the sidecar of the parcel series."""
        write.write_json(self.names.path("timeseries", {**self.place(person), "ext": "json"}), {
            "StartTime": START, "SamplingFrequency": 1 / TR, "NumberOfVolumes": N_TRS,
            "Story": "tea", "Participant": person, "Space": self.space, "Atlas": self.atlas,
            "Denoising": {"Model": "narratives", "Columns": ["trans_x"] * 9,
                          "HighPassCutoff": 128.0},
            "ParcelSignal": "voxels z-scored over the window, mean over voxels, z-scored",
            "EmptyParcels": [3] if person == "01" else [], "MeanFramewiseDisplacement": 0.137,
            "Sources": ["bids:raw:sub-01/func/x_bold.nii.gz"], "Warnings": [],
        })

    def label(self, person: str) -> None:
        """Write the atlas on the grid of the run."""
        entities = self.place(person, stat="label")
        if self.anatomical:
            affine = np.diag([5.0, 5.0, 5.0, 1.0])
            affine[:3, 3] = (-70, -105, -60)
            grid = np.indices((29, 36, 30)).reshape(3, -1)
            mm = affine[:3, :3] @ grid + affine[:3, 3:]
            radius = np.sqrt(((mm - [[0], [-18], [8]]) ** 2 / [[64**2], [82**2], [58**2]]).sum(0))
            angle = np.arctan2(mm[1] + 18, mm[0])
            part = ((angle + np.pi) / (2 * np.pi) * len(self.parcels)).astype(int)
            part = np.clip(part, 0, len(self.parcels) - 1)
            image = np.where((radius < 1) & (radius > 0.75), part + 1, 0).reshape(29, 36, 30)
        else:
            affine = np.eye(4)
            image = np.arange(1, 7).reshape(3, 2, 1)
        n = len(self.parcels)
        write.write_nifti(
            self.names.path("boldmap", {**entities, "ext": "nii.gz"}),
            nibabel.Nifti1Image(image.astype(np.int32), affine),
        )
        write.write_tsv(self.names.path("boldmap", {**entities, "ext": "tsv"}), {
            "index": np.arange(1, n + 1), "name": self.parcels,
            "hemisphere": ["L" if k % 2 else "R" for k in range(n)],
            "network": ["TempPar" if self.anatomical else "n/a"] * n, "n_voxels": [9] * n,
        })
        write.write_json(self.names.path("boldmap", {**entities, "ext": "json"}),
                         {"Statistic": "label", "Anatomical": self.anatomical})

    def meta(self, desc: str, columns: list[str]) -> dict[str, object]:
        """Return a map's sidecar."""
        kinds = ("Embeddings", "Transformations", "Magnitudes")
        space = next((kind for kind in kinds if kind in desc), None)
        counts = {c: [1, 0, 2, 4, 8, 6, 4, 2, 3] for c in columns}
        return {
            "Story": "tea", "Space": self.space, "Atlas": self.atlas,
            "FeatureSpace": space.lower() if space else "nuisance", "Columns": columns,
            "Model": {"Label": "fake", "Name": "fake/language-model", "NumberOfLayers": 6,
                      "NumberOfHeads": 12, "ContextTRs": 20, "Revision": "abc",
                      "Sha256": "0123456789abcdef"} if space else None,
            "Bands": [{"Name": "silence", "NumberOfFeatures": 1},
                      {"Name": "counts", "NumberOfFeatures": 1},
                      {"Name": "model", "NumberOfFeatures": 384}],
            "Delays": [2, 3, 4, 5], "RepetitionTime": TR, "StartTime": START,
            "Folds": [{"Test": [[10 + 20 * k, 29 + 20 * k]],
                       "Train": [t for t in ([10, 20 * k + 1], [38 + 20 * k, 109]) if t[0] < t[1]]}
                      for k in range(5)],
            "Gap": {"Seconds": 15.0, "TRs": 8}, "Trim": [10, 10], "NumberOfRows": 100,
            "Alphas": {"Tried": TRIED, "Chosen": counts,
                       "EdgeShare": dict.fromkeys(columns, 0.13)},
            "Gammas": {"NumberOfDraws": 100, "Seed": 1, "Mean": {}}, "SilencePolicy": "zero",
            "SelectionScore": "r2",
            "Inference": {"Test": "Block permutation", "BlockLength": 15,
                          "NumberOfPermutations": 10000, "Alternative": "greater",
                          "Family": "parcels of one column", "Correction": "Benjamini-Hochberg",
                          "FDR": 0.05},
            "Warnings": [], "Sources": ["bids:ds002345:sub-01"], "SoftwareVersions":
            {"bids_brainlm": "0.1.0", "numpy": "2.4.6"}, "Key": "0",
        }

    def table(self, logical: str, entities: dict, columns: list[str], values: np.ndarray,
              meta: dict) -> None:
        """Write a parcel table and its sidecar."""
        found = {"index": np.arange(1, len(self.parcels) + 1), "name": self.parcels}
        found |= {c: values[:, k] for k, c in enumerate(columns)}
        write.write_tsv(self.names.path(logical, {**entities, "ext": "tsv"}), found)
        write.write_json(self.names.path(logical, {**entities, "ext": "json"}), meta)

    def fits(self, person: str) -> None:
        """Write the maps of one participant."""
        for desc, columns in {**SPACES, "nuisance": ["value"]}.items():
            for stat, values in self.stats(person, columns).items():
                if desc == "nuisance" and stat not in ("r", "rjoint", "r2"):
                    continue
                self.table("boldmap", self.place(person, desc=desc, stat=stat), columns, values,
                           self.meta(desc, columns))

    def stats(self, person: str, columns: list[str]) -> dict[str, np.ndarray]:
        """Return invented statistics by name, each (n_parcels, n_columns)."""
        shape = (len(self.parcels), len(columns))
        bump = 1 + 0.5 * np.sin(np.linspace(0, 3, len(columns)))
        r = self.signal[:, None] * bump + self.rng.normal(0, 0.04, shape)
        p = np.clip(np.exp(-40 * np.clip(r, 0, None)), 1e-4, 1)
        found = {
            "r": r, "rjoint": r + 0.03, "r2": r**2 - 0.002, "unique": r**2 - 0.004,
            "rsilence": r * 0.3, "rcounts": r * 0.5, "p": p, "q": np.minimum(p * 3, 1),
        }
        if person == "01":
            for values in found.values():
                values[2] = np.nan
        return found

    def group(self) -> None:
        """Write the group's maps."""
        n = len(self.parcels)
        isc = np.linspace(0.35, 0.1, n)
        place = self.place()
        meta = {**self.meta("isc", ["value"]), "Statistic": "isc", "Folds": []}
        bounds = np.column_stack([isc, isc - 0.05, isc + 0.05])
        self.table("group_boldmap", {**place, "stat": "isc"}, ["value", "ci_low", "ci_high"],
                   bounds, meta)
        each = isc[:, None] + self.rng.normal(0, 0.06, (n, len(self.people)))
        self.table("group_boldmap", {**place, "desc": "participants", "stat": "isc"},
                   [f"sub-{p}" for p in self.people], each, meta)
        for desc, columns in SPACES.items():
            found = self.stats("group", columns)
            meta = self.meta(desc, columns)
            meta["Inference"] = {**meta["Inference"], "Test": "sign flip", "BlockLength": None}
            maps = {
                "mean": found["r"], "p": found["p"], "q": found["q"],
                "normalized": found["r"] / isc[:, None], "cilow": found["r"] - 0.03,
                "cihigh": found["r"] + 0.03, "unique": found["unique"],
                "uniqueq": np.full_like(found["q"], 0.6), "rjoint": found["rjoint"],
                "rjointq": found["q"],
            }
            for stat, values in maps.items():
                self.table("group_boldmap", {**place, "desc": desc, "stat": stat}, columns, values,
                           meta)
