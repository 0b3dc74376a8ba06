"""The Boutiques descriptor, made from the one declaration of the settings.

``python -m bids_brainlm.boutiques > boutiques.json``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from bids_brainlm import __version__, config
from bids_brainlm.cli import LEVELS

SCHEMA_VERSION = "0.5"
PATH = "PATH"
NOT_YET_THERE = ("work_dir",)  # made by the app: must not be declared as an existing file

ERROR_CODES = {
    1: "Unexpected error",
    16: "The input is not usable BIDS",
    17: "Unknown analysis level",
    18: "The filters select nothing",
    32: "Some participants failed, the others are done",
    64: "Wrong usage or setting",
    65: "The data are wrong: lengths, times, NaN, grids",
    66: "An input, atlas or model is missing",
    73: "An output cannot be created, or was made with other settings",
    74: "Reading or writing failed midway",
    130: "Interrupted",
}

OUTPUTS = (
    ("dataset_description", "Description of the derivatives", "dataset_description.json", False),
    ("words", "Aligned words", "stimuli/task-*/task-*_words.tsv", True),
    ("features", "Features of language models", "stimuli/task-*/task-*_features.nc", True),
    ("participant_maps", "Encoding maps of participants", "sub-*/**/*_boldmap.nii.gz", True),
    ("participant_tables", "Encoding scores of participants", "sub-*/**/*_boldmap.tsv", True),
    ("participant_reports", "Reports of participants", "sub-*.html", True),
    ("group_maps", "Maps of the group", "group/*_boldmap.nii.gz", True),
    ("group_tables", "Scores of the group", "group/*_boldmap.tsv", True),
    ("surface_maps", "Maps on surfaces, one file a hemisphere", "**/*_boldmap.func.gii", True),
    ("cifti_maps", "Maps as CIFTI", "**/*_boldmap.?scalar.nii", True),
    ("group_report", "Report of the group", "group.html", True),
    ("citation", "Methods section of what was run", "logs/CITATION.md", True),
)


def descriptor() -> dict[str, Any]:
    """Make the descriptor of this version.

    Returns
    -------
    dict
        Follows Boutiques schema 0.5, with the input names of the BIDS execution draft.
    """
    settings = [_setting(item) for kind in config.SECTIONS.values() for item in fields(kind)]
    inputs = [*_positional(), *_general(), *settings]
    return {
        "name": "bids_brainlm",
        "description": "Model brain activity during stories with language models, as a BIDS-App.",
        "tool-version": __version__,
        "schema-version": SCHEMA_VERSION,
        "command-line": " ".join(["bids_brainlm", *(item["value-key"] for item in inputs)]),
        "container-image": {"type": "docker", "image": f"bids_brainlm:{__version__}"},
        "tags": {"domain": ["neuroinformatics", "fmri"], "standard": ["bids", "bids-app"]},
        "inputs": inputs,
        "output-files": [
            {
                "id": f"output_{key}",
                "name": name,
                "path-template": f"[OUTPUT_DIR]/{path}",
                "list": "*" in path,
                "optional": optional,
            }
            for key, name, path, optional in OUTPUTS
        ],
        "error-codes": [{"code": c, "description": text} for c, text in ERROR_CODES.items()],
    }


def _positional() -> list[dict[str, Any]]:
    """Return the three arguments that every BIDS-App has."""
    return [
        {
            "id": "InputDataset",
            "name": "BIDS dataset",
            "description": "The BIDS dataset.",
            "type": "File",
            "value-key": "[BIDS_DIR]",
        },
        {
            "id": "OutputLocation",
            "name": "Output folder",
            "description": "Results; also the cache.",
            "type": "String",
            "value-key": "[OUTPUT_DIR]",
        },
        {
            "id": "AnalysisLevel",
            "name": "Analysis level",
            "description": "What to compute.",
            "type": "String",
            "value-key": "[LEVEL]",
            "value-choices": list(LEVELS),
        },
    ]


def _general() -> list[dict[str, Any]]:
    """Return the flags that are no settings."""
    preset = _flag("preset", "--preset", "Named set of settings.", type="String")
    return [
        _flag("Help", "--help", "Show all flags.", type="Flag"),
        _flag("ToolVersion", "--version", "Show the version.", type="Flag"),
        _flag("verbose", "--verbose", "Also show details.", type="Flag"),
        preset | {"value-choices": config.presets()},
        _flag("config_file", "--config-file", "Settings in TOML.", type="File"),
    ]


def _flag(name: str, flag: str, text: str, **kind: Any) -> dict[str, Any]:
    """Return one optional input."""
    return {
        "id": name,
        "name": flag.removeprefix("--").replace("-", " "),
        "description": text,
        "value-key": f"[{name.upper()}]",
        "command-line-flag": flag,
        "optional": True,
        **kind,
    }


def _setting(item: Any) -> dict[str, Any]:
    """Return the input of one declared setting."""
    meta = item.metadata
    text = meta["help"] + (f" ({meta['unit']})" if meta["unit"] else "")
    made = _flag(item.name, "--" + item.name.replace("_", "-"), text)
    if isinstance(item.default, bool):
        return made | {"type": "Flag"}
    if meta["metavar"] == PATH and item.name not in NOT_YET_THERE:
        made["type"] = "File"
    else:
        made |= _kind(meta["parse"])
    if meta["choices"]:
        made["value-choices"] = list(meta["choices"])
    if meta["many"]:
        made |= {"list": True, "min-list-entries": 1}
    return made


def _kind(parse: Callable[[object], Any]) -> dict[str, Any]:
    """Find out by trial what a setting's parser takes: text, whole numbers or numbers."""
    accepted = {text: value for text in ("0", "0.5", "1", "2") if (value := _try(parse, text))}
    values = [value[0] for value in accepted.values()]
    if not values or not all(isinstance(value, (int, float)) for value in values):
        return {"type": "String"}
    if "0.5" not in accepted:
        return {"type": "Number", "integer": True, "minimum": 0 if "0" in accepted else 1}
    limits: dict[str, Any] = {"minimum": 0}
    if "0" not in accepted:
        limits["exclusive-minimum"] = True
    if "2" not in accepted:
        limits |= {"maximum": 1, "exclusive-maximum": "1" not in accepted}
    return {"type": "Number", **limits}


def _try(parse: Callable[[object], Any], text: str) -> tuple[Any] | None:
    """Return what a parser makes of a text; None if it refuses."""
    try:
        return (parse(text),)
    except ValueError:
        return None


def text() -> str:
    """Return the descriptor as the file has it.

    Returns
    -------
    str
        JSON with a final newline.
    """
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
