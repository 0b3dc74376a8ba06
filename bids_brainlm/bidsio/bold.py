"""Find cleaned or preprocessed BOLD images with their masks, confounds and sidecars.

Volumes, pairs of surfaces and CIFTI series; what counts as such is said in `candidates`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.bidsio.candidates import candidate_state, hemispheres, of_atlas
from bids_brainlm.bidsio.dataset import (
    Filters,
    Listing,
    RunKey,
    applicable,
    func_folders,
    listing,
    read_sidecars,
    run_name,
    scan,
)
from bids_brainlm.bidsio.names import ParsedName
from bids_brainlm.errors import ConfigError, MissingInputError

_IMAGES = (".nii.gz", ".nii")
_NOT_OF_RUN = frozenset(
    {"space", "res", "den", "hemi", "desc", "label", "atlas", "seg", "scale", "stat", "cohort"}
)
_CONFOUNDS = (("confounds", "timeseries"), ("confounds", "regressors"))
_GRIDS = ("res", "den")  # entities
_ANNEX_POINTER = b"/annex/objects/"


@dataclass(frozen=True, slots=True)
class BoldRun:
    """A derivative BOLD image and what belongs to it.

    ``present`` is False where the content is absent (a dangling git-annex link) or a hemisphere
    is missing; ``path`` is that of the left hemisphere and ``right`` of the other, if there are
    two. ``desc`` is ``clean``, ``preproc`` or ``smoothed`` (uncleaned as well); ``dataset`` is
    the name of the folder ``root`` that the image comes from; ``tr`` in s is that of the
    derivative's sidecar, None without one.
    """

    participant: str
    session: str | None
    task: str
    run: str | None
    path: Path
    present: bool
    desc: str
    space: str | None
    resolution: str | None
    dataset: str
    root: Path
    mask: Path | None
    confounds_tsv: Path | None
    confounds_json: Path | None
    sidecar: dict[str, object]
    tr: float | None
    right: Path | None = None

    @property
    def key(self) -> RunKey:
        """What identifies the run, as in `RawRun`: participant, session, task, run."""
        return self.participant, self.session, self.task, self.run

    @property
    def name(self) -> str:
        """The run in words, as in its file names."""
        return run_name(self.key)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the image, one a hemisphere."""
        return (self.path,) if self.right is None else (self.path, self.right)

    @property
    def fetch_command(self) -> str:
        """The command that gets the content of an absent image."""
        return f"datalad get {' '.join(map(str, self.files))}"

    @property
    def why_absent(self) -> str:
        """Say why an image that is not present cannot be read."""
        missing = [path.name for path in self.files if not os.path.lexists(path)]
        if missing:
            return f"one hemisphere is missing: found no {missing[0]}"
        return f"the image has no content here; run: {self.fetch_command}"


def is_present(path: Path) -> bool:
    """Tell whether a file has its content: not a dangling link, not an annex pointer."""
    try:
        size = path.stat().st_size
        if not 0 < size < 1024:
            return size > 0 and path.is_file()
        return not path.read_bytes().startswith(_ANNEX_POINTER)
    except OSError:
        return False


def require_present(path: Path, what: str) -> None:
    """Raise an error that tells how to get a file whose content is absent.

    Raises
    ------
    MissingInputError
        There is no such file, or it is a git-annex link or pointer without content.
    """
    if is_present(path):
        return
    if os.path.lexists(path):
        raise MissingInputError(
            f"The {what} {path} has no content here, expected the file itself (found an empty "
            "file or a git-annex link).",
            hint=f"Run: datalad get {path}",
        )
    raise MissingInputError(f"The {what} {path} does not exist.")


def derivative_roots(bids_dir: Path, given: Sequence[Path] = ()) -> list[Path]:
    """Return the derivative datasets to search.

    Parameters
    ----------
    bids_dir : Path
        The raw dataset.
    given : sequence of Path
        Dataset roots or folders of several datasets; the default is every dataset below
        ``bids_dir/derivatives``.

    Returns
    -------
    list of Path
        Folders with ``sub-*`` folders or with a dataset_description.json (the AFNI trees of
        Narratives have none), in the order given, sorted within a folder.

    Raises
    ------
    MissingInputError
        A given folder does not exist, or nothing is found.
    """
    roots: list[Path] = []
    for folder in given or [bids_dir / "derivatives"]:
        if not folder.is_dir():
            raise MissingInputError(
                f"The derivatives folder {folder} does not exist.",
                hint="Give the fMRIPrep or the cleaned dataset with --derivatives PATH.",
            )
        inner = [Path(entry.path) for entry in scan(folder) if entry.is_dir()]
        datasets = [folder] if _has_participants(folder) else [x for x in inner if _is_dataset(x)]
        if not datasets:
            raise MissingInputError(
                f"{folder}: expected sub-* folders or datasets with sub-* folders, found "
                f"{', '.join(path.name for path in inner[:8]) or 'no folders'}.",
                hint="Give the fMRIPrep or the cleaned dataset with --derivatives PATH.",
            )
        roots.extend(path for path in datasets if path not in roots)
    return roots


def _has_participants(folder: Path) -> bool:
    """Tell whether a folder holds participant folders."""
    return any(entry.name.startswith("sub-") and entry.is_dir() for entry in scan(folder))


def _is_dataset(folder: Path) -> bool:
    """Tell whether a folder is a derivative dataset."""
    return (folder / "dataset_description.json").is_file() or _has_participants(folder)


_Signature = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A candidate image; ``levels`` are the listings from the dataset root to its folder."""

    parsed: ParsedName
    path: Path
    root: Path
    levels: tuple[Listing, ...]
    desc: str
    right: Path | None = None

    @property
    def signature(self) -> _Signature:
        return _signature(self.parsed)


def _signature(parsed: ParsedName) -> _Signature:
    """Return the entities that say which run a file belongs to."""
    return tuple((k, v) for k, v in sorted(parsed.entities.items()) if k not in _NOT_OF_RUN)


@dataclass(frozen=True, slots=True)
class _Helpers:
    """Masks and confounds of all datasets by the run they belong to, in search order."""

    masks: dict[_Signature, list[tuple[Path, ParsedName, Path]]]
    confounds: dict[_Signature, list[tuple[Path, Path]]]


def find_bold(
    roots: Sequence[Path],
    *,
    filters: Filters | None = None,
    space: str | None = None,
    resolution: str | None = None,
    denoise: str = "auto",
    atlas: str = "",
) -> list[BoldRun]:
    """Find one BOLD image for each run.

    Parameters
    ----------
    roots : sequence of Path
        Derivative datasets, see `derivative_roots`.
    filters : Filters, optional
        Labels to take.
    space, resolution : str, optional
        Values of the entities ``space`` and ``res`` (or ``den``). Without a space, surfaces and
        CIFTI count only for runs that have no volume.
    denoise : str
        With ``auto`` and ``none`` a ``desc-clean`` image is preferred over ``desc-preproc``;
        a named confound model needs ``desc-preproc``.
    atlas : str
        Which parcellated series is meant, where a run has several, or dense ones as well.

    Returns
    -------
    list of BoldRun
        Sorted by participant, session, task and run; runs without an image are not listed.

    Raises
    ------
    ConfigError
        Several images fit one run, or the images lie in several spaces.
    """
    filters = filters or Filters()
    candidates: defaultdict[RunKey, list[_Found]] = defaultdict(list)
    helpers = _Helpers(defaultdict(list), defaultdict(list))
    for root in roots:
        _search(root, filters, candidates, helpers)
    found = []
    for key in sorted(candidates, key=lambda key: tuple(label or "" for label in key)):
        wanted = _Wanted(space, resolution, denoise, atlas)
        chosen = _choose(key, candidates[key], wanted)
        if chosen is not None:
            found.append(_bold_run(key, chosen, helpers))
    spaces = {item.space for item in found}
    if len(spaces) > 1:
        examples = [next(item.path.name for item in found if item.space == s) for s in spaces]
        raise ConfigError(
            f"The images lie in several spaces, expected one: {', '.join(sorted(examples))}.",
            hint=f"Choose one with --space: {', '.join(sorted(map(str, spaces)))}.",
        )
    return found


def _search(
    root: Path,
    filters: Filters,
    candidates: defaultdict[RunKey, list[_Found]],
    helpers: _Helpers,
) -> None:
    """Add the images, masks and confounds of one dataset."""
    root_files = listing(root)
    for participant, session, folders in func_folders(root, filters):
        levels = (root_files, *(listing(folder) for folder in folders[1:]))
        for parsed, path in levels[-1]:
            labels = parsed.entities
            if labels.get("sub") != participant or "task" not in labels or "echo" in labels:
                continue
            key = (participant, session, labels["task"], labels.get("run"))
            if labels.get("ses") != session or not filters.match(*key):
                continue
            desc = labels.get("desc", "")
            state = candidate_state(parsed)
            files = hemispheres(parsed, path) if state is not None else None
            if files is not None:
                found = _Found(parsed, files[0], root, levels, state, files[1])
                candidates[key].append(found)
            elif parsed.extension in _IMAGES and (desc, parsed.suffix) == ("brain", "mask"):
                helpers.masks[_signature(parsed)].append((root, parsed, path))
            elif parsed.extension == ".tsv" and (desc, parsed.suffix) in _CONFOUNDS:
                helpers.confounds[_signature(parsed)].append((root, path))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which image of a run is asked for, see `find_bold`."""

    space: str | None
    resolution: str | None
    denoise: str
    atlas: str


def _choose(key: RunKey, candidates: Sequence[_Found], wanted: _Wanted) -> _Found | None:
    """Return the one image of a run that the settings ask for."""
    resolution = wanted.resolution
    kept = [
        item
        for item in candidates
        if (wanted.space is None or item.parsed.entities.get("space") == wanted.space)
        and (resolution is None or resolution in (item.parsed.entities.get(k) for k in _GRIDS))
    ]
    if wanted.space is None:
        volumes = [item for item in kept if item.parsed.extension in _IMAGES]
        kept = volumes or kept
    automatic = wanted.denoise in ("auto", "none")
    for desc in ("clean", "preproc", "smoothed") if automatic else ("preproc", "smoothed"):
        fitting = of_atlas([item for item in kept if item.desc == desc], wanted.atlas)
        if len(fitting) > 1:
            names = "\n".join(f"  {item.path}" for item in fitting)
            raise ConfigError(
                f"{run_name(key)}: expected one BOLD image, found {len(fitting)}:\n{names}",
                hint="Choose with --derivatives (one dataset), --space or --resolution; "
                "parcellated series with --atlas.",
            )
        if fitting:
            return fitting[0]
    return None


def _bold_run(key: RunKey, chosen: _Found, helpers: _Helpers) -> BoldRun:
    """Gather what belongs to an image."""
    labels = chosen.parsed.entities
    sidecar = read_sidecars(applicable(chosen.levels, labels, "bold", ".json"))
    tr = sidecar.get("RepetitionTime")
    tables = helpers.confounds.get(chosen.signature, [])
    table = next(iter(sorted(tables, key=lambda item: item[0] != chosen.root)), (None, None))[1]
    table_json = table.with_suffix(".json") if table is not None else None
    return BoldRun(
        *key,
        path=chosen.path,
        present=all(is_present(p) for p in (chosen.path, chosen.right) if p is not None),
        desc=chosen.desc,
        space=labels.get("space"),
        resolution=labels.get("res"),
        dataset=dataset_name(chosen.root),
        root=chosen.root,
        mask=_mask(chosen, helpers),
        confounds_tsv=table,
        confounds_json=table_json if table_json and os.path.lexists(table_json) else None,
        sidecar=sidecar,
        tr=float(tr) if isinstance(tr, int | float) and tr > 0 else None,
        right=chosen.right,
    )


def _mask(chosen: _Found, helpers: _Helpers) -> Path | None:
    """Return the brain mask on the grid of an image: same dataset first, then templates."""
    labels = chosen.parsed.entities
    if chosen.parsed.extension not in _IMAGES:
        return None
    masks = [
        (root, path)
        for root, parsed, path in helpers.masks.get(chosen.signature, [])
        if all(parsed.entities.get(key) == labels.get(key) for key in ("space", "res"))
    ]
    same = [path for root, path in masks if root == chosen.root]
    if same or "space" not in labels:
        return next(iter(same), masks[0][1] if masks else None)
    template = f"tpl-{labels['space']}"
    name = f"{template}_res-{labels['task']}_desc-brain_mask.nii.gz"
    path = chosen.root / template / name
    if os.path.lexists(path):
        return path
    return masks[0][1] if masks else None


def dataset_name(root: Path) -> str:
    """Return the key of a dataset for BIDS URIs and ``DatasetLinks``: its folder's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", root.resolve().name).strip("-") or "derivatives"
