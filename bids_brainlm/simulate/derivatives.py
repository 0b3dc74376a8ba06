"""The derivatives of a simulated dataset: images, confounds, masks, atlas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_brainlm import __version__
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.dataset import RawRun
from bids_brainlm.simulate import confounds, images, meshes
from bids_brainlm.simulate.images import SPACE, Parcellation
from bids_brainlm.simulate.seeds import generator
from bids_brainlm.simulate.settings import SimulationSettings

TRUTH_COLUMNS = {
    "index": {"Description": "value of the parcel in the atlas"},
    "name": {"Description": "name of the parcel"},
    "kind": {
        "Description": "what is planted",
        "Levels": {
            "embedding": "a readout of one layer of the residual stream",
            "head": "a readout of the output of one attention head",
            "noise": "nothing; the parcel knows nothing of the story",
        },
    },
    "column": {"Description": "column of the encoding map that should win"},
    "layer": {"Description": "0 = input embeddings, 1 = output of the first block"},
    "head": {"Description": "1 = first head"},
    "signal": {"Description": "share of variance of the planted feature, at gain 1"},
    "words": {"Description": "share of variance of the word-rate response"},
    "shared": {"Description": "share of variance that is locked to the story, but not modelled"},
    "snr": {"Description": "variance locked to the story over private variance"},
    "n_voxels": {"Description": "voxels of the parcel on the grid of the images"},
}
CLEAN_DATASET = "afni-nosmooth"
PREPROC_DATASET = "fmriprep"


class Writer:
    """Writes the derivatives of runs into a dataset.

    Parameters
    ----------
    root : Path
        The dataset.
    parcels : Parcellation
        Parcels on the grid of the images.
    settings : SimulationSettings
        Flavour, noise and seed.
    """

    def __init__(self, root: Path, parcels: Parcellation, settings: SimulationSettings) -> None:
        self._derivatives = root / "derivatives"
        self._parcels = parcels
        self._settings = settings
        # The Narratives release is fMRIPrep 20.0.5 at native resolution.
        narratives = settings.into is not None
        self._res = "_res-native" if narratives else ""
        self._confounds = "regressors" if narratives else "timeseries"
        self._preproc = settings.flavour in ("preproc", "both")
        self._clean = settings.flavour in ("clean", "both")
        self._mask_of_task: set[str] = set()
        self._baseline = images.baselines(parcels, generator(settings.seed, "baseline"))

    def describe(self) -> None:
        """Write the descriptions of the derivative datasets, and the atlas if it is made here."""
        datasets = {"simulation": "Truth of the simulation"}
        if self._preproc:
            datasets[PREPROC_DATASET] = "Simulated images in the style of fMRIPrep"
        if self._clean:
            datasets[CLEAN_DATASET] = "Simulated images, confounds regressed out, not smoothed"
        if self._parcels.generated:
            datasets["atlas"] = "Generated atlas of blocks"
            self._write_atlas()
        for folder, name in datasets.items():
            write.write_json(
                self._derivatives / folder / "dataset_description.json",
                {
                    "Name": name,
                    "BIDSVersion": "1.10.0",
                    "DatasetType": "derivative",
                    "License": "CC0",
                    "GeneratedBy": [{"Name": "bids_brainlm-simulate", "Version": __version__}],
                },
            )

    def _write_atlas(self) -> None:
        """Write the label image and its table."""
        parcels = self._parcels
        space = self._settings.space
        stem = self._derivatives / "atlas" / f"tpl-{space}_atlas-{parcels.label}_dseg"
        what = "Cubes of eight voxels"
        if self._settings.is_surface:
            what = "Vertices with neighbouring numbers"
            for side in "LR":
                name = f"tpl-{space}_hemi-{side}_atlas-{parcels.label}_dseg.label.gii"
                write.write_bytes(stem.with_name(name), meshes.label_bytes(parcels, side))
        else:
            labels = parcels.labels.astype(np.int16)
            write.write_bytes(
                stem.with_name(f"{stem.name}.nii.gz"), images.nifti_bytes(labels, parcels.affine)
            )
        write.write_tsv(
            stem.with_name(f"{stem.name}.tsv"),
            {
                "index": list(parcels.index),
                "name": list(parcels.names),
                "hemisphere": list(parcels.hemispheres),
            },
        )
        write.write_json(
            stem.with_name(f"{stem.name}.json"),
            {
                "Description": f"{what} without anatomical meaning",
                "Anatomical": False,
            },
        )

    def run(self, run: RawRun, series: np.ndarray, tr: float) -> None:
        """Write the derivatives of a run.

        Parameters
        ----------
        run : RawRun
            The run.
        series : array, shape (n_volumes, n_parcels)
            Core series of its parcels.
        tr : float
            Repetition time, s.
        """
        settings, noise = self._settings, self._settings.noise
        rng = generator(settings.seed, "voxels", run.name)
        found = confounds.draw(len(series), tr, rng)
        scales = (noise.motion, noise.physiology, noise.drift)
        voxels = images.voxel_series(series, self._parcels, noise.voxel, rng)
        inside = self._parcels.labels[self._parcels.labels > 0] - 1
        disturbed = confounds.disturbance(found, series.shape[1], scales, rng)
        data = self._baseline * (1 + images.PERCENT * (voxels + disturbed[:, inside]))
        stem = f"{run.name}_space-{SPACE}{self._res}"
        if self._preproc:
            folder = self._folder(PREPROC_DATASET, run)
            if settings.is_surface:
                self._write_surfaces(folder, "", data, tr, run)
            else:
                self._write_image(folder / f"{stem}_desc-preproc_bold", data, tr, run, np.int16)
                self._write_mask(folder / f"{stem}_desc-brain_mask.nii.gz")
            name = folder / f"{run.name}_desc-confounds_{self._confounds}"
            write.write_tsv(name.with_name(f"{name.name}.tsv"), found.table())
            write.write_json(name.with_name(f"{name.name}.json"), found.sidecar())
        if self._clean:
            folder = self._folder(CLEAN_DATASET, run)
            cleaned = images.clean(data, found.design())
            if settings.is_surface:
                self._write_surfaces(folder, "_desc-clean", cleaned, tr, run)
                return
            self._write_image(folder / f"{stem}_desc-clean_bold", cleaned, tr, run, np.float32)
            if run.task not in self._mask_of_task:
                self._mask_of_task.add(run.task)
                template = self._derivatives / CLEAN_DATASET / f"tpl-{SPACE}"
                self._write_mask(template / f"tpl-{SPACE}_res-{run.task}_desc-brain_mask.nii.gz")

    def _folder(self, dataset: str, run: RawRun) -> Path:
        """Return the func folder of a run in a derivative dataset."""
        folder = self._derivatives / dataset / f"sub-{run.participant}"
        return (folder / f"ses-{run.session}" if run.session else folder) / "func"

    def _write_image(
        self, stem: Path, data: np.ndarray, tr: float, run: RawRun, dtype: type[np.generic]
    ) -> None:
        """Write an image and its sidecar."""
        write.write_bytes(
            stem.with_name(f"{stem.name}.nii.gz"),
            images.image_bytes(data, self._parcels, tr, dtype),
        )
        write.write_json(
            stem.with_name(f"{stem.name}.json"),
            {"RepetitionTime": tr, "TaskName": run.task, "SkullStripped": False},
        )

    def _write_surfaces(
        self, folder: Path, desc: str, data: np.ndarray, tr: float, run: RawRun
    ) -> None:
        """Write both hemispheres; in the Narratives tree with the names of its release."""
        narratives = self._settings.into is not None
        for side in "LR":
            place = f"hemi-{side}_space-{self._settings.space}"
            place = "_".join(reversed(place.split("_"))) if narratives else place
            name = f"{run.name}_{place}{desc}" + ("" if narratives else "_bold")
            content = meshes.map_bytes(data, self._parcels, side)
            write.write_bytes(folder / f"{name}.func.gii", content)
            write.write_json(folder / f"{name}.json", {"RepetitionTime": tr, "TaskName": run.task})

    def _write_mask(self, path: Path) -> None:
        """Write the voxels inside parcels."""
        inside = (self._parcels.labels > 0).astype(np.uint8)
        write.write_bytes(path, images.nifti_bytes(inside, self._parcels.affine))
