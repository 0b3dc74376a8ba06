"""Describe the output dataset: what BIDS wants at its root."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainlm.bidsio.names import Names
from bids_brainlm.bidsio.write import read_json, tsv_text, write_bytes, write_json
from bids_brainlm.errors import DataError, MissingInputError, OutputError, ReadWriteError

log = logging.getLogger(__name__)

TOOL = "bids_brainlm"
BIDS_VERSION = "1.10.1"
# What the images say about themselves; see `container`.
CONTAINER = {
    "Type": "BRAINLM_CONTAINER_TYPE",
    "Tag": "BRAINLM_CONTAINER_TAG",
    "URI": "BRAINLM_CONTAINER_URI",
}
DIGEST = "BRAINLM_CONTAINER_DIGEST"
DOI = re.compile(r"(?:doi:|https?://(?:dx\.)?doi\.org/)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_DESC = re.compile(r"desc-[A-Za-z0-9]+")
VERSION_IN_DOI = re.compile(r"\.v(\d+(?:\.\d+)+)$")
IGNORED = ("*.html", "*_boldmap.*", "*_timeseries.*", "figures", "group")

README = """# Language-model encoding of story listening

Made by bids_brainlm. The names follow BIDS Derivatives where BIDS has names; the files that
it does not know yet are listed in `.bidsignore`.

- `task-<story>_recording-<name>_stim.tsv.gz`: features of a story, one row a volume
- `stimuli/`: aligned words, and language-model features as netCDF
- `sub-<label>/func/`: parcel series (`_timeseries.tsv`) and scores (`_boldmap.tsv` and the same
  as images: `.nii.gz`, on surfaces `.func.gii` for each hemisphere, as CIFTI `.pscalar.nii` or
  `.dscalar.nii`)
- `group/`: ceilings and group statistics
- `sub-<label>.html`, `group.html`: reports
- `logs/`: settings, records and the methods section of every run (`CITATION.md`)
- `descriptions.tsv`: what the `desc-` labels mean

Every JSON file states the settings, the inputs and the software behind the file it describes.
"""


def dataset_link(path: Path, root: Path) -> str:
    """Return a dataset's place relative to the output, for ``DatasetLinks``.

    Relative links keep folder names of this machine out of the output.
    """
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def container(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the image that a process runs in, for ``GeneratedBy``.

    Parameters
    ----------
    environ : mapping of str to str
        The process's environment. The images set ``BRAINLM_CONTAINER_TYPE``, ``_TAG`` and,
        where it was known when they were built, ``_URI``. ``BRAINLM_CONTAINER_DIGEST``
        (``sha256:...``) may be set by who runs an image, since an image cannot know its own.

    Returns
    -------
    dict of str to str
        ``Type``, ``Tag`` and ``URI``, as far as known; empty outside an image.

    Notes
    -----
    BIDS has no key for the digest, so it is part of the URI, as registries write it:
    ``NAME@sha256:...``.
    """
    found = {key: environ.get(name, "") for key, name in CONTAINER.items()}
    if not found["Type"]:
        return {}
    digest = environ.get(DIGEST, "")
    if digest and "@" not in found["URI"]:
        name = found["URI"] or found["Tag"].partition(":")[0]
        found["URI"] = f"{name}@{digest}"
    return {key: value for key, value in found.items() if value}


def source_dataset(content: Mapping[str, object]) -> dict[str, str]:
    """Return the entry of ``SourceDatasets`` for a dataset with a DOI.

    Parameters
    ----------
    content : mapping
        Its ``dataset_description.json``; or an entry with ``URL`` or ``DOI`` alone.

    Returns
    -------
    dict of str to str
        ``URL``, ``DOI``, and ``Version`` where the DOI ends with one (OpenNeuro's do); what
        was given where it is no DOI; empty without any.
    """
    given = {
        key: str(content[name])
        for key, name in (("URL", "URL"), ("DOI", "DOI"), ("DOI", "DatasetDOI"))
        if content.get(name)
    }
    match = DOI.fullmatch(given.get("DOI", given.get("URL", "")).strip())
    if match is None:
        return given if "URL" in given else {}
    doi = match[1]
    version = VERSION_IN_DOI.search(doi)
    entry = {"URL": f"https://doi.org/{doi}", "DOI": f"doi:{doi}"}
    return entry | ({"Version": version[1]} if version else {})


def _linked_sources(links: Mapping[str, str], root: Path) -> list[dict[str, str]]:
    """Return the entries of linked datasets that tell their DOI."""
    found = []
    for _, place in sorted(links.items()):
        folder = os.path.normpath(root.resolve() / place)  # root may not be there yet
        path = Path(folder) / "dataset_description.json"
        try:
            content = read_json(path)
        except (DataError, MissingInputError, ReadWriteError):
            continue
        if content.get("DatasetDOI"):
            found.append(source_dataset(content))
    return found


def _description(
    version: str,
    sources: Sequence[Mapping[str, object]],
    links: Mapping[str, str],
    before: Mapping[str, object],
    image: Mapping[str, str],
) -> dict[str, object]:
    """Return dataset_description.json; keys that are not this program's stay as they are."""
    made = {
        "Name": "Language-model encoding of story listening",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": TOOL,
                "Version": version,
                "Description": "Encoding models of brain activity from language models.",
                **({"Container": dict(image)} if image else {}),
            }
        ],
        **({"SourceDatasets": [dict(source) for source in sources]} if sources else {}),
        **({"DatasetLinks": dict(links)} if links else {}),
    }
    own = {key: value for key, value in _sound(before, made).items() if key not in made}
    return made | {"Name": before.get("Name", made["Name"])} | own


def _sound(before: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out damaged names: one letter from a name that is to be there and is not.

    A changed bit can leave sound JSON, in which nothing but the name tells damage from what
    people add.
    """
    lost = made.keys() - before.keys()

    def is_damaged(name: str) -> bool:
        """Tell whether one letter makes it a lost name."""
        return any(
            len(name) == len(one) and sum(a != b for a, b in zip(name, one, strict=True)) == 1
            for one in lost
        )

    return {name: value for name, value in before.items() if not is_damaged(name)}


def _maker(content: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return name and version of the tool that made a dataset."""
    made = content.get("GeneratedBy")
    first = made[0] if isinstance(made, list) and made and isinstance(made[0], Mapping) else {}
    return first.get("Name"), first.get("Version")


def check_output(names: Names, version: str) -> None:
    """Refuse to write into a dataset that something else made.

    Raises
    ------
    OutputError
        The folder holds a dataset_description.json of another tool, or a raw dataset.

    Notes
    -----
    Where the file is damaged and the README is the one that this program writes, the folder is
    taken for its own; `describe_output` then writes the file anew.
    """
    path = names.path("dataset_description")
    if not path.is_file():
        return
    try:
        name, made_by = _maker(read_json(path))
    except DataError as error:
        if _has_our_readme(names):
            return
        raise OutputError(
            f"{path} cannot be read: {error.message}",
            hint="Remove it if this program wrote the folder, or choose another OUTPUT_DIR.",
        ) from error
    if name != TOOL and not _has_our_readme(names):
        raise OutputError(
            f"OUTPUT_DIR {names.root} holds a dataset made by {name or 'something else'}, "
            f"expected an empty folder or one made by {TOOL}.",
            hint="Choose another OUTPUT_DIR, such as BIDS_DIR/derivatives/bids_brainlm.",
        )
    if made_by != version:
        log.warning("OUTPUT_DIR was made by version %s, this is %s", made_by, version)


def _has_our_readme(names: Names) -> bool:
    """Tell whether the dataset has the README that this program writes."""
    try:
        return names.path("readme").read_bytes() == README.encode()
    except OSError:
        return False


def describe_output(
    names: Names,
    version: str,
    *,
    sources: Sequence[Mapping[str, object]] = (),
    links: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    image: Mapping[str, str] | None = None,
) -> None:
    """Write dataset_description.json, descriptions.tsv, .bidsignore and README.md.

    Parameters
    ----------
    names : Names
        The output dataset.
    version : str
        Of this program.
    sources : sequence of mapping
        ``SourceDatasets``: URL, DOI, Version.
    links : mapping of str to str
        ``DatasetLinks``: name used in BIDS URIs to a relative path or URL, see
        `dataset_link`. Names keep letters, digits, dashes and underscores only.
    descriptions : mapping of str to str
        What each ``desc-`` label means. Rows that are there already are kept, so that runs
        with other models add theirs.
    image : mapping of str to str, optional
        The container image that writes, see `container`.

    Raises
    ------
    OutputError
        The dataset was made by another tool, or cannot be created.
    ReadWriteError
        Writing failed midway.

    Notes
    -----
    A file that has the right content is not touched, so that parallel runs do not disturb
    each other. Links and sources of earlier runs are kept, and so is what people add to
    dataset_description.json: ``Authors``, ``License``, ``Funding`` ... This program writes no
    ``Authors``, since it does not know who curates the output; those of the source dataset
    are not its authors.
    """
    check_output(names, version)
    path = names.path("dataset_description")
    before = _before(names, path)
    old_links = before.get("DatasetLinks")
    old_sources = before.get("SourceDatasets")
    merged_links = _sound(old_links if isinstance(old_links, dict) else {}, links or {})
    merged_links |= dict(links or {})
    merged = list(old_sources) if isinstance(old_sources, list) else []
    found = [source_dataset(source) for source in sources]
    for source in (*found, *_linked_sources(merged_links, names.root)):
        if source and source not in merged:
            merged.append(source)
    ordered_links = dict(sorted(merged_links.items()))
    content = _description(version, merged, ordered_links, before, image or {})
    if content != before:
        write_json(path, content)
    table = names.path("descriptions")
    rows = _known_rows(table)
    rows |= {f"desc-{label}": text for label, text in (descriptions or {}).items()}
    ordered = sorted(rows)
    columns = {"desc_id": ordered, "description": [rows[key] for key in ordered]}
    _update(table, tsv_text(columns))
    _update(names.path("bidsignore"), "".join(f"{line}\n" for line in IGNORED))
    _update(names.path("readme"), README)


def _before(names: Names, path: Path) -> dict[str, Any]:
    """Return what the description says; a damaged one is kept among the logs, and is empty."""
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except DataError as error:
        kept = names.path("run_log", {"run_id": "damaged-dataset-description"})
        write_bytes(kept, path.read_bytes())
        log.warning(
            "%s It is written anew, with links and sources at the next participant level; the old "
            "text is in %s.",
            error.message,
            kept,
        )
        return {}


def _known_rows(table: Path) -> dict[str, str]:
    """Return the description of each label; lines that are damaged are left out."""
    try:
        text = table.read_bytes().decode("utf-8", "replace")
    except OSError:
        return {}
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    sound = [row for row in rows if len(row) == 2 and _DESC.fullmatch(row[0])]
    return {row[0]: row[1] for row in sound if "\ufffd" not in row[1]}


def _update(path: Path, text: str) -> None:
    """Write a text file unless it has this content."""
    try:
        if path.read_bytes() == text.encode():
            return
    except OSError:
        pass
    write_bytes(path, text.encode())
