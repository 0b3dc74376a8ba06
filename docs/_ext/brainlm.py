"""What this site adds to Sphinx: generated pages, flags that link to their setting, a link list."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import generate
from docutils import nodes
from sphinx import addnodes

from bids_brainlm import config, errors

FOOTNOTE = re.compile(r"^(\s*)\.\. (\[\d+\]) ")
CITED = re.compile(r"(\[\d+\])_")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)")
DOI = re.compile(r"(?<![/\w])doi:(10\.\d{4,9}/[^\s,;]*[^\s,;.])")
PROGRAM = "bids_brainlm"
GENERAL = ("preset", "config_file", "verbose", "version", "help")
LINKS = "external-links.txt"


def _write_pages(app: Any) -> None:
    """Write the reference pages before the sources are read."""
    generate.write()


def _leave_the_site(app: Any, docname: str, source: list[str]) -> None:
    """Show links to files of the repository that are no pages as names; they work on disk only."""
    here, top = Path(app.srcdir, docname).parent, Path(app.srcdir)

    def named(found: re.Match[str]) -> str:
        target = (here / found[2]).resolve()
        if target.is_relative_to(top) or not target.is_relative_to(top.parent):
            return found[0]
        return f"{found[1]} (`{target.relative_to(top.parent).as_posix()}`)"

    source[0] = LINK.sub(named, source[0])


def _references(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn numbered references of docstrings into lists (numbers clash on a page) with links."""
    if what == "property" and lines:  # napoleon takes what is before a colon for a type
        lines[0] = lines[0].replace(": ", "; ", 1)
    for number, line in enumerate(lines):
        kept = CITED.sub(r"\1", FOOTNOTE.sub(r"\1* \2 ", line))
        lines[number] = DOI.sub(r"`doi:\1 <https://doi.org/\1>`__", kept)


def _link_errors(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Link errors that docstrings raise; those of Python itself stay text."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if hasattr(errors, name):
        target = f"{errors.__name__}.{name}"
        found = env.get_domain("py").resolve_xref(
            env, node["refdoc"], app.builder, "exc", target, node, text
        )
        return found
    return text if hasattr(builtins, name) else None


def _link_flags(app: Any, tree: nodes.document) -> None:
    """Let every flag of the app that stands as code in the text link to its setting."""
    if app.env.docname == "reference/settings":
        return
    known = {"--" + name.replace("_", "-") for name in (*config.declared(), *GENERAL)}
    for node in list(tree.findall(nodes.literal)):
        flag = node.astext().split(" ")[0].split("=")[0]
        if flag not in known or isinstance(node.parent, (nodes.reference, addnodes.pending_xref)):
            continue
        link = addnodes.pending_xref(
            "",
            refdomain="std",
            reftype="option",
            reftarget=flag,
            refdoc=app.env.docname,
            refexplicit=True,
        )
        link["std:program"] = PROGRAM
        node.replace_self(link)
        link += node


def _collect_links(app: Any, tree: nodes.document, docname: str) -> None:
    """Remember the links of a page that leave the site."""
    found = app.env.__dict__.setdefault("brainlm_links", {})
    targets = {node["refuri"] for node in tree.findall(nodes.reference) if "refuri" in node}
    found[docname] = sorted(uri for uri in targets if uri.startswith(("http://", "https://")))


def _write_links(app: Any, error: Exception | None) -> None:
    """Write the list of links that leave the site, with the pages that have them."""
    pages: dict[str, list[str]] = {}
    for docname, links in getattr(app.env, "brainlm_links", {}).items():
        for link in links:
            pages.setdefault(link, []).append(docname)
    text = "".join(f"{link}\t{' '.join(sorted(names))}\n" for link, names in sorted(pages.items()))
    Path(app.outdir).parent.joinpath(LINKS).write_text(text, "utf-8")


def setup(app: Any) -> dict[str, object]:
    """Register everything.

    Parameters
    ----------
    app : sphinx.application.Sphinx

    Returns
    -------
    dict
    """
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _leave_the_site)
    app.connect("autodoc-process-docstring", _references, priority=100)
    app.connect("missing-reference", _link_errors)
    app.connect("doctree-read", _link_flags)
    app.connect("doctree-resolved", _collect_links)
    app.connect("build-finished", _write_links)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
