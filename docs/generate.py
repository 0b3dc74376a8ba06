"""Write the reference pages from the package itself, so that they cannot drift.

``python docs/generate.py`` writes them to ``docs/reference/generated`` (not under version
control); the Sphinx configuration does so at the start of every build. Steps are read from
their source, without importing them.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from bids_brainlm import boutiques, config, errors

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "bids_brainlm"
TARGET = DOCS / "reference" / "generated"
TABLES_OF_STEPS = ("DESCRIPTIONS", "STATISTICS", "RECORDINGS", "COLUMNS", "PARTS", "ASSOCIATIONS")
PLANNING = ("plan", "runner.py", "pages.py")

# What outputs.json cannot say: one line for each output. A test asks for those that are missing.
OUTPUTS = {
    "dataset_description": "What BIDS wants at the root: name, version, sources, links.",
    "descriptions": "What each `desc-` label means.",
    "bidsignore": "Names that BIDS does not know yet.",
    "readme": "The folders in words.",
    "run_log": "Everything that a call said, with details.",
    "run_records": "One line for each step and unit: key, inputs, outputs, seconds.",
    "run_settings": "All settings of a call; `--config-file` reads it back.",
    "citation": "The methods section with references, from what was run.",
    "words": "Aligned words: onset, duration (s, scan time), word, TR.",
    "stim": "Features of a story, one row a TR (tab-separated, no header; columns in the JSON).",
    "attention": "Record of the attention measures of a model.",
    "surprisal": "Surprisal and entropy of each word, bits.",
    "representations": "RDMs, correlation within TRs and autocorrelation, by layer.",
    "decoding": "One row a head and label: balanced accuracy, p, q.",
    "tokens": "Each token of the spaCy pipeline: part of speech, dependency, TR.",
    "story_features": "Large arrays of a story, such as static word vectors.",
    "features": "Large arrays of a language model: embeddings, transformations.",
    "timeseries": "Cleaned parcel series over the story window, one row a TR.",
    "boldmap": "A statistic of one participant: table, images, sidecar.",
    "group_boldmap": "A statistic of the group: table, images, sidecar.",
    "comparison": "Feature spaces compared within participants.",
    "scores": "Scores of participants by region, long form.",
    "head_scores": "Scores of heads in regions.",
    "components": "Principal components of heads over regions.",
    "associations": "How properties of heads go with their brain scores.",
    "alignment": "Lag of each run behind the stimulus, and a verdict.",
    "participant_report": "The report of a participant.",
    "participant_figure": "A figure of a participant's report.",
    "group_report": "The report of the group.",
    "group_figure": "A figure of the group's report.",
}


def settings() -> str:
    """Return the page of all settings.

    Returns
    -------
    str
        MyST; each setting is an ``option`` of the program.
    """
    described = {one["id"]: one for one in boutiques.descriptor()["inputs"]}
    paper = config.read_preset("paper")
    readers = readers_of_settings()
    parts = ["```{program} bids_brainlm", "```", "", "## General", ""]
    for one in described.values():
        if "command-line-flag" in one and one["id"] not in readers:
            values = f" {{{','.join(one['value-choices'])}}}" if "value-choices" in one else ""
            values = " FILE.toml" if one["type"] == "File" else values
            flag = one["command-line-flag"] + values
            parts += [f"::::{{option}} {flag}", one["description"], "::::", ""]
    for section, kind in config.SECTIONS.items():
        parts += [f"## {section.capitalize()}", "", kind.__doc__ or "", ""]
        for item in fields(kind):
            facts = [
                _type(described[item.name], item.metadata),
                f"default {_value(item.default, item.metadata)}",
            ]
            if item.name in paper and paper[item.name] != item.default:
                facts.append(f"`--preset paper`: {_value(paper[item.name], item.metadata)}")
            facts.append(f"in a file `[{section}] {item.name}`")
            facts.append(f"read by {', '.join(readers[item.name]) or 'the command line'}")
            parts += [
                f"::::{{option}} {_signature(item)}",
                _sentence(item.metadata["help"]),
                "",
                "{.facts}\n" + " · ".join(facts),
                "::::",
                "",
            ]
    return "\n".join(parts)


def paper_differences() -> str:
    """Return the table of settings that ``--preset paper`` changes.

    Returns
    -------
    str
    """
    known = config.declared()
    rows = ["| setting | default | paper |", "|---|---|---|"]
    for name, value in config.read_preset("paper").items():
        item = known[name][1]
        if value != item.default:
            shown = [_value(one, item.metadata) for one in (item.default, value)]
            rows.append(f"| `{_flag(name)}` | {shown[0]} | {shown[1]} |")
    return "\n".join(rows) + "\n"


def _flag(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def _signature(item: Any) -> str:
    """Return flags and values of a setting, as an option directive wants them."""
    meta = item.metadata
    flags = [_flag(item.name), *meta["flags"]]
    if isinstance(item.default, bool):
        return ", ".join(flags)
    value = meta["metavar"] or ("{" + ",".join(meta["choices"]) + "}" if meta["choices"] else "")
    value = value or item.name.split("_")[-1].upper()
    value += " ..." if meta["many"] else ""
    return ", ".join(f"{flag} {value}" for flag in flags)


def _type(described: dict[str, Any], meta: Any) -> str:
    """Say what a setting takes."""
    kind = described["type"]
    if kind == "Flag":
        return "switch"
    if meta["choices"]:
        text = "one of " + ", ".join(f"`{one}`" for one in meta["choices"])
    elif kind == "Number":
        text = "whole number" if described.get("integer") else "number"
        low, strict = described.get("minimum"), described.get("exclusive-minimum")
        text += f" {'>' if strict else '≥'} {low}" if low is not None else ""
        text += f" and < {described['maximum']}" if "maximum" in described else ""
    else:
        text = {"File": "existing path", "String": "text"}[kind]
    if meta["known"]:
        text += " (" + ", ".join(f"`{one}`" for one in meta["known"]) + ")"
    text += ", one or several" if meta["many"] else ""
    return text + (f"; unit {meta['unit']}" if meta["unit"] else "")


def _value(value: Any, meta: Any) -> str:
    """Show a value as one would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("", ()):
        return "none"
    values = value if isinstance(value, tuple) else (value,)
    text = " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)
    return f"`{text}`" + (f" {meta['unit']}" if meta["unit"] else "")


def _markup(text: str) -> str:
    """Set flags as code and keep accidental markup out."""
    return re.sub(r"(?<![\w`])(--[a-z][a-z-]+)", r"`\1`", text.replace("<", "&lt;"))


def _sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    text = _markup(text)
    first = text if re.match(r"[A-Z`]|bids_|desc-|r\b", text) else text[0].upper() + text[1:]
    return first if first.endswith((".", "?")) else first + "."


def readers_of_settings() -> dict[str, list[str]]:
    """Tell which steps read each setting, and which settings planning reads.

    Returns
    -------
    dict of str to list of str
        Names of steps, from the fields of their ``Params``; ``planning`` for what turns
        settings into jobs, ``execution`` for where and how they run.
    """
    found: dict[str, list[str]] = {name: [] for name in config.declared()}
    for path in sorted((PACKAGE / "steps").glob("*.py")):
        for name in _fields_of(path, "Params"):
            if name in found:
                found[name].append(f"`{_name_of_step(path)}`")
    planned = set(_settings_in(PLANNING))
    for name, (section, _) in config.declared().items():
        if section == "execution":
            found[name].append("no step: never changes results")
        elif name in planned:
            found[name].append("planning")
    return found


def _fields_of(path: Path, name: str) -> list[str]:
    """Return the annotated names of a class in a module."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]
    return []


def _name_of_step(path: Path) -> str:
    """Return what a step calls itself."""
    return str(_constants(path).get("NAME", path.stem))


def _settings_in(places: tuple[str, ...]) -> Iterator[str]:
    """Yield settings that modules outside the steps read as ``<section>.<name>``."""
    for place in places:
        where = PACKAGE / place
        for path in sorted(where.glob("*.py")) if where.is_dir() else [where]:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in config.declared():
                    yield node.attr


class _Named(ast.NodeTransformer):
    """Puts literal constants in the place of their names."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name whose value is known."""
        return ast.Constant(self.known[node.id]) if node.id in self.known else node


def _constants(path: Path) -> dict[str, Any]:
    """Return the module's literal constants."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                value = ast.literal_eval(_Named(found).visit(node.value))
            except ValueError:
                continue
            found[node.targets[0].id] = value
    return found


def outputs() -> str:
    """Return the page of all outputs: names, makers, statistics.

    Returns
    -------
    str
    """
    templates = json.loads((PACKAGE / "data" / "outputs.json").read_text("utf-8"))
    makers = _makers(templates)
    parts = ["## Files", ""]
    for logical, template in templates.items():
        made = f" Made by {', '.join(makers[logical])}." if makers[logical] else ""
        parts += [f"`{template}`", f": {OUTPUTS.get(logical, logical)}{made}", ""]
    parts += ["## Statistics and columns", ""]
    for step, texts in statistics().items():
        parts += [f"### Step `{step}`", ""]
        for name, text in texts.items():
            parts += [f"`{name}`", f": {_markup(text)}", ""]
    return "\n".join(parts)


def statistics() -> dict[str, dict[str, str]]:
    """Collect what the steps say about what they write.

    Returns
    -------
    dict of str to (dict of str to str)
        For each step that has such a table: statistic, recording or array, and its description.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted((PACKAGE / "steps").glob("*.py")):
        constants = _constants(path)
        name = str(constants.get("NAME", path.stem.partition("_")[0]))
        for table in TABLES_OF_STEPS:
            texts = constants.get(table)
            if isinstance(texts, dict) and all(isinstance(t, str) for t in texts.values()):
                found.setdefault(name, {}).update(texts)
    return dict(sorted(found.items()))


def _makers(templates: dict[str, str]) -> dict[str, list[str]]:
    """Tell which steps name an output."""
    found: dict[str, list[str]] = {logical: [] for logical in templates}
    for path in sorted((PACKAGE / "steps").glob("*.py")):
        name = str(_constants(path).get("NAME", ""))
        if not name:
            continue
        for logical in _placed(path) & found.keys():
            found[logical].append(f"`{name}`")
    return found


def _placed(path: Path) -> set[str]:
    """Return the logical outputs that a step declares: ``place(names, "words", ...)``."""
    found: set[str] = set()
    for one in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(one, ast.FunctionDef) or one.name not in ("outputs", "record"):
            continue
        nodes = list(ast.walk(one))
        called = [n for n in nodes if isinstance(n, ast.Call)]
        found |= {"stim"} if any("stim_places" in ast.unparse(n.func) for n in called) else set()
        second = [n.args[1] for n in called if ast.unparse(n.func).endswith("place")]
        if any(isinstance(n, ast.Name) for n in second):  # one of a tuple of names
            second += [e for n in nodes if isinstance(n, ast.For) for e in ast.walk(n.iter)]
        found |= {str(n.value) for n in second if isinstance(n, ast.Constant)}
    return found


def exit_codes() -> str:
    """Return the table of all error classes with code, meaning and default next action.

    Returns
    -------
    str
    """
    rows = ["| code | class | meaning | default next action |", "|---|---|---|---|"]
    for kind in sorted(_errors(), key=lambda k: (k.exit_code, k.__name__)):
        meaning = (kind.__doc__ or "").strip()
        cells = [str(kind.exit_code), f"`{kind.__name__}`", meaning, _sentence(kind.hint)]
        rows.append("| " + " | ".join(cells) + " |")
    known = {kind.exit_code for kind in _errors()}
    for code, text in boutiques.ERROR_CODES.items():
        if code not in known:
            rows.append(f"| {code} | | {text}. | |")
    return "\n".join(rows) + "\n"


def _errors() -> list[type[errors.BrainLMError]]:
    """Return all classes of errors."""
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.BrainLMError)
        and kind is not errors.BrainLMError
    ]


def glossary() -> str:
    """Return the glossary.

    Returns
    -------
    str
    """
    words = yaml.safe_load((DOCS / "reference" / "glossary.yml").read_text("utf-8"))
    parts = ["```{glossary}", ":sorted:", ""]
    for word, entry in words.items():
        instead = ", ".join(entry["not"])
        parts += [word, f"  {_sentence(entry['means'])} Not: {instead}.", ""]
    return "\n".join([*parts, "```", ""])


def commands() -> str:
    """Return the ``--help`` of every console script.

    Returns
    -------
    str
    """
    setup = configparser.ConfigParser()
    setup.read(DOCS.parent / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    parts = []
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "88"  # argparse wraps at this width
    try:
        for script in filter(None, (line.strip() for line in scripts)):
            name, _, place = script.partition("=")
            module = importlib.import_module(place.strip().partition(":")[0])
            text = module.parser().format_help().rstrip()
            parts += [f"## {name.strip()}", "", "```text", text, "```", ""]
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(parts)


def api_pages() -> dict[str, str]:
    """Return one page for each documented module.

    Returns
    -------
    dict of str to str
        File name below the target to text.
    """
    names = ("api", "api_maps", "api_tables", "api_run", "figures", "brain")
    modules = [f"bids_brainlm.{name}" for name in names]
    modules += ["bids_brainlm.errors"]
    modules += [
        f"bids_brainlm.numerics.{path.stem}"
        for path in sorted((PACKAGE / "numerics").glob("*.py"))
        if not path.stem.startswith("_")
    ]
    pages = {}
    for module in modules:
        short = module.removeprefix("bids_brainlm.")
        title = short.rpartition(".")[2].replace("_", r"\_")
        lines = [f".. automodule:: {module}", "   :members:", "   :ignore-module-all:"]
        body = "\n".join(["```{eval-rst}", *lines, "```"])
        pages[f"api/{short}.md"] = f"# {title}\n\n{body}\n"
    return pages


def pages() -> dict[str, str]:
    """Return all generated pages.

    Returns
    -------
    dict of str to str
        File name below the target to text.
    """
    return {
        "settings.md": settings(),
        "paper.md": paper_differences(),
        "outputs.md": outputs(),
        "errors.md": exit_codes(),
        "glossary.md": glossary(),
        "commands.md": commands(),
        **api_pages(),
    }


def write(target: Path = TARGET) -> list[Path]:
    """Write the pages; files that have the right text stay as they are, others go.

    Parameters
    ----------
    target : Path
        Folder of the pages.

    Returns
    -------
    list of Path
    """
    wanted = {target / name: text for name, text in pages().items()}
    for path in target.rglob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    return sorted(wanted)


if __name__ == "__main__":
    write()
