"""The real ds002345 tree with simulated images, and whole runs of the app on it."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import cli as simulate
from bids_brainlm.simulate.features import FALLBACK_MODEL

ATLAS = "Schaefer2018_100Parcels17Networks"
ATLAS_LABEL = "Schaefer2018100Parcels17Networks"  # in file names
SPACE = "MNI152NLin2009cAsym"
BLACK = ("127", "265", "267", "272", "273")
SLUMLORD = ("016", "084", "106", "111", "139")
PIEMAN = ("016", "023", "034", "038", "052")  # 016 heard it in two runs
MILKYWAY = ("023", "034", "038", "052", "105", "106", "111", "127", "128")
DEVIATING = ("038", "105")  # their milkyway story begins 6 and 7.5 s early
CONDITIONS = {
    "milkywayoriginal": ("034", "106", "111"),
    "milkywayvodka": ("023", "052"),
    "milkywaysynonyms": ("127", "128"),
}
NO_CONTENT = "030"  # has a link without content instead of a pieman image
SHORT_RUN = 1188  # volumes of the real sub-139, fewer than the story needs
OTHERS = tuple(sorted({*SLUMLORD, *PIEMAN, *MILKYWAY}))
FAST_BLACK = (
    "--features", "embeddings", "--context-trs", "1", "--n-iter", "8",
    "--alphas", "1", "100", "10000", "--n-permutations", "500", "--n-bootstraps", "500",
    "--ladder", "none",
)
FAST_OTHERS = (
    "--features", "embeddings", "--layers", "3", "--context-trs", "0", "--n-iter", "2",
    "--alphas", "1", "1000", "--cv", "3", "--inner-cv", "2", "--n-permutations", "100",
    "--n-bootstraps", "100", "--ladder", "none",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What came of one call of the app."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Narratives:
    """The filled tree, what the app made of it, and what is planted for ``black``."""

    root: Path
    out: Path
    model: Path
    truth: dict[str, list[str]]
    calls: dict[str, Call] = field(default_factory=dict)

    def arguments(self, *more: str, out: Path | None = None) -> list[str]:
        """Return a participant call; later flags win."""
        model = f"minilm={self.model}"
        given = ["--model", model, "--atlas", ATLAS, "--offline", "--nprocs", "1"]
        return [str(self.root), str(out or self.out), "participant", *given, *more]

    def black(self, *more: str, out: Path | None = None) -> list[str]:
        return self.arguments("--task-label", "black", *FAST_BLACK, *more, out=out)

    def others(self, *more: str, out: Path | None = None) -> list[str]:
        tasks = ("--task-label", "slumlordreach", "pieman", "milkyway")
        return self.arguments(*tasks, *FAST_OTHERS, *more, out=out)

    def pieman(self, *more: str, out: Path) -> list[str]:
        return self.arguments("--task-label", "pieman", *FAST_OTHERS, *more, out=out)

    def group(self, *more: str, out: Path | None = None) -> list[str]:
        draws = ("--n-permutations", "500", "--n-bootstraps", "500", "--nprocs", "1")
        return [str(self.root), str(out or self.out), "group", *draws, *more]

    def of_kind(self, kind: str) -> np.ndarray:
        """Tell which parcels are planted with an ``embedding``, a ``head`` or ``noise``."""
        return np.array(self.truth["kind"]) == kind


def run(arguments: Sequence[str]) -> Call:
    """Call the app in this process."""
    out, err = io.StringIO(), io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(arguments))
    return Call(code, out.getvalue(), err.getvalue(), time.perf_counter() - began)


def unpack(shared_data: Path, folder: Path) -> Path:
    """Unpack the whole real tree: text files and links without content."""
    for name in ("skeleton_regular_files", "annex_symlinks_only"):
        archive = shared_data / "narratives" / f"ds002345_v1.1.4_{name}.tar.gz"
        with tarfile.open(archive) as stream:
            # git-annex links point out of the tree's folders, which the data filter allows
            stream.extractall(folder, filter="tar")
    return folder / "ds002345"


def fill(root: Path, shared_data: Path, participants: Sequence[str], *more: str) -> None:
    """Write simulated images of participants into the real tree."""
    given = ["--into", str(root), "--participants", *participants, "--atlas", ATLAS]
    given += ["--transcripts", str(shared_data / "narratives"), "--voxel-size", "8", *more]
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = simulate.main(given)
    assert code == 0, err.getvalue()


def fill_everything(root: Path, shared_data: Path, model: Path) -> dict[str, list[str]]:
    """Write all images of the tests, set the traps, and return what is planted for black."""
    rest = ("--stories", "slumlordreach", "pieman", "milkyway", "--flavour", "clean")
    fill(root, shared_data, OTHERS, *rest, "--model", FALLBACK_MODEL, "--context-trs", "0")
    black = ("--stories", "black", "--flavour", "preproc", "--context-trs", "1", "--overwrite")
    fill(root, shared_data, BLACK, *black, "--model", str(model))
    clean = root / "derivatives" / "afni-nosmooth"
    _shorten(next(clean.glob("sub-139/func/*slumlordreach*desc-clean_bold.nii.gz")))
    image = next(clean.glob("sub-023/func/*task-pieman_*desc-clean_bold.nii.gz"))
    link = clean / f"sub-{NO_CONTENT}" / "func" / image.name.replace("023", NO_CONTENT)
    link.parent.mkdir(parents=True)
    link.symlink_to("../../.git/annex/objects/no/content.nii.gz")
    # a task whose name begins like another one
    image = next(clean.glob("sub-127/func/*task-milkyway*desc-clean_bold.nii.gz"))
    for file in image.parent.glob(image.name.removesuffix(".nii.gz") + ".*"):
        shutil.copyfile(file, file.with_name(file.name.replace("milkyway", "piemanpni")))
    return write.read_tsv(root / "derivatives" / "simulation" / "truth.tsv")


def _shorten(path: Path) -> None:
    """Cut a run to the length of the real one."""
    image = nibabel.load(path)
    block = np.asanyarray(image.dataobj)[..., :SHORT_RUN]
    short = nibabel.Nifti1Image(block, image.affine, image.header)
    path.unlink()
    nibabel.save(short, path)


def table(path: Path) -> tuple[list[str], np.ndarray]:
    """Read columns and numbers of a map or of series, independently of the package."""
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    first = 2 if lines[0][:2] == ["index", "name"] else 0
    cells = [[np.nan if c == "n/a" else float(c) for c in line[first:]] for line in lines[1:]]
    return lines[0][first:], np.array(cells)


def person_file(
    out: Path, person: str, story: str, end: str, *, desc: str = "", run_label: str = ""
) -> Path:
    """Return the path of a participant's file, written out from the contract."""
    run_part = f"_run-{run_label}" if run_label else ""
    stem = f"sub-{person}_task-{story}{run_part}_space-{SPACE}_atlas-{ATLAS_LABEL}"
    desc_part = f"_desc-{desc}" if desc else ""
    return out / f"sub-{person}" / "func" / f"{stem}{desc_part}_{end}"


def group_file(out: Path, story: str, end: str, *, desc: str = "") -> Path:
    """Return the path of a group file, written out from the contract."""
    desc_part = f"_desc-{desc}" if desc else ""
    return out / "group" / f"task-{story}_space-{SPACE}_atlas-{ATLAS_LABEL}{desc_part}_{end}"


def series(out: Path, story: str, people: Sequence[str]) -> np.ndarray:
    """Return the stored series of people, runs averaged, cut to common rows and trimmed."""
    found = []
    for person in people:
        end = "stat-mean_timeseries.tsv"
        if story == "pieman" and person == "016":
            runs = [person_file(out, person, story, end, run_label=r) for r in "12"]
        else:
            runs = [person_file(out, person, story, end)]
        found.append(np.mean([table(path)[1] for path in runs], axis=0))
    rows = min(len(one) for one in found)
    return np.stack([one[10 : rows - 10] for one in found])


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """Return each person's correlation with the mean of the others; a plain loop."""
    z = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    found = np.empty((len(z), z.shape[2]))
    for person in range(len(z)):
        rest = np.delete(z, person, axis=0).mean(0)
        for parcel in range(z.shape[2]):
            found[person, parcel] = np.corrcoef(z[person, :, parcel], rest[:, parcel])[0, 1]
    return found


def files(folder: Path) -> Iterator[Path]:
    """Yield the files that must be the same whatever the order and the number of processes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.endswith((".tsv", ".nii.gz", ".json", ".tsv.gz")):
            yield path
