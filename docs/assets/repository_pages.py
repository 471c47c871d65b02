"""A hook of MkDocs: pages of the repository outside of docs/ and notebooks are pages of the site, and rooms are drawn.

Links lead out of docs/ as they do in the repository (`../experiments/judge/README.md`, `../crystens/encoding.py`). What
they lead to becomes a page: a page of an experiment as it stands, and a file of code or configs as its text. So each
text has one home, and its links hold in the repository and in the site.

Notebooks are kept without outputs. The variable CRYSTENS_NOTEBOOKS names a folder with executed copies, which the site
then shows in their place (`.ci/docs` makes them).
"""

from __future__ import annotations

import ast
import html
import os
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

REPOSITORY = Path(__file__).resolve().parents[2]
# An inline link or picture, and its target up to an anchor or a title.
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)")
_CODE = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".cff": "yaml"}
_ROOMS = "<!-- rooms -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks, all that pages link to, and all that those pages link to."""
    notebooks = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".ipynb")]
    waiting = [("docs/" + file.src_uri) for file in files.documentation_pages()]
    waiting += [*notebooks, "CONTRIBUTING.md", "CHANGELOG.md"]
    for place in notebooks:
        for file in _notebook(place, config):
            files.append(file)
    seen = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        path = REPOSITORY / place
        if not place.startswith("docs/"):
            files.append(_file(place, config))
        if path.suffix in (".md", ".ipynb"):
            waiting += [target for target in _targets(path.read_text(encoding="utf-8"), place) if target not in seen]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site, and draw the rooms."""
    uri = page.file.src_uri
    notebook = f"docs/{uri.removesuffix('.md')}.ipynb"
    if (REPOSITORY / notebook).is_file():
        kept = f"\n\n[This page as a notebook]({posixpath.basename(notebook)})"
        return _LINK.sub(lambda link: link[1] + _in_site(link[2], notebook), markdown) + kept
    place = f"docs/{uri}" if (REPOSITORY / "docs" / uri).is_file() else uri
    if not place.startswith("docs/"):
        page.meta.setdefault("search", {"boost": 0.5})  # the site's own pages come first
    if place.endswith(".md") and (REPOSITORY / place).is_file():
        markdown = _LINK.sub(lambda link: link[1] + _in_site(link[2], place), markdown)
    return markdown.replace(_ROOMS, _drawn_rooms())


def _targets(markdown: str, place: str) -> Iterator[str]:
    """Give the places in the repository that a page links to; what is not there is left for MkDocs to refuse."""
    for link in _LINK.finditer(markdown):
        target = _resolved(link[2], place)
        if (REPOSITORY / target).is_file():
            yield target


def _resolved(link: str, place: str) -> str:
    """Return the place in the repository of a link of a page; of a folder, that of its page."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    return f"{target}/README.md" if (REPOSITORY / target / "README.md").is_file() else target


def _site_uri(place: str) -> str:
    """Return where a file of the repository stands in the site, as the source of a page."""
    if place.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", place.removeprefix("docs/"))
    return f"code/{place}.md" if Path(place).suffix in _CODE else place


def _in_site(link: str, place: str) -> str:
    """Return a link of a page of the repository as one of the site."""
    target = _site_uri(_resolved(link, place))
    return posixpath.relpath(target, posixpath.dirname(_site_uri(place)) or ".")


def _file(place: str, config: MkDocsConfig) -> File:
    """Return a file of the repository as one of the site."""
    language = _CODE.get(Path(place).suffix)
    if language is None:
        return File.generated(config, place, abs_src_path=str(REPOSITORY / place))
    text = (REPOSITORY / place).read_text(encoding="utf-8")
    page = f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {place}\n\n~~~~~~{language}\n{text}\n~~~~~~\n"
    return File.generated(config, _site_uri(place), content=page)


def _notebook(place: str, config: MkDocsConfig) -> Iterator[File]:
    """Give the page of a notebook, and the pictures among its outputs."""
    notebook = REPOSITORY / place
    executed = Path(os.environ.get("CRYSTENS_NOTEBOOKS", notebook.parent)) / notebook.name
    text, resources = MarkdownExporter().from_filename(
        str(executed if executed.is_file() else notebook), {"unique_key": notebook.stem}
    )
    yield File.generated(config, _site_uri(place), content=text)
    for name, content in resources["outputs"].items():
        yield File.generated(config, posixpath.join(posixpath.dirname(_site_uri(place)), name), content=content)


def _drawn_rooms() -> str:
    """Return the rooms of the package, from the contract in pyproject.toml and the first lines of their docstrings."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "Rooms")
    rows = ("".join(map(_room, re.split(r"\s*\|\s*", layer))) for layer in layers)
    return '<div class="rooms">' + "".join(f"<div>{row}</div>" for row in rows) + "</div>"


def _room(name: str) -> str:
    """Return the box of a room: its name and the first sentence of its docstring."""
    module = REPOSITORY / "crystens" / f"{name}.py"
    path = module if module.is_file() else REPOSITORY / "crystens" / name / "__init__.py"
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return f"<div><b>{name}</b>{html.escape(first.replace('`', ''))}</div>"
