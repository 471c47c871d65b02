"""An HTML page as a tree of elements, for tests that state facts about a page and not its markup."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from xml.etree.ElementTree import Element, TreeBuilder

_VOID = ("meta", "img", "br", "wbr", "input", "link")
_LOADING = ("src", "srcset", "data", "poster", "action", "background")
PNG = b"\x89PNG"


def parse(text: str) -> Element:
    """Return the root of a page in which every element is closed where it has to be."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.tree.close()


def text_of(element: Element) -> str:
    """Return the text that a reader sees, without scripts and styles, with single spaces."""
    return " ".join(_visible(element).split())


def with_class(element: Element, name: str) -> list[Element]:
    """Return the elements that have a class."""
    return [found for found in element.iter() if name in found.get("class", "").split()]


def cells(element: Element, table: str) -> list[list[str]]:
    """Return the text of the cells of the body of a table, by the id of the table."""
    (found,) = element.findall(f".//table[@id='{table}']/tbody")
    return [[text_of(cell) for cell in row] for row in found]


def scripts(element: Element) -> list[str]:
    """Return the scripts of a page that a browser runs."""
    return [found.text or "" for found in element.iter("script") if "type" not in found.attrib]


def assert_self_contained(page: Element) -> None:
    """Assert that a page loads nothing, and that its policy allows its own scripts and no others."""
    (policy,) = (
        found.get("content", "") for found in page.iter("meta") if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts(page)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    assert f"script-src {allowed};" in policy  # or the browser would not run them
    for element in page.iter():
        assert element.tag not in ("link", "iframe", "object", "embed", "base")
        for name in _LOADING:
            if name in element.attrib:
                head, _, data = element.attrib[name].partition(",")
                assert (element.tag, head) == ("img", "data:image/png;base64")
                assert base64.b64decode(data).startswith(PNG)
    for style in [*(found.text or "" for found in page.iter("style")), *(e.get("style", "") for e in page.iter())]:
        assert "url(" not in style
        assert "@import" not in style


def _visible(element: Element) -> str:
    if element.tag in ("script", "style", "title"):
        return ""
    inside = [element.text or ""]
    for child in element:
        between = " " if child.tag not in ("wbr", "a", "b", "i", "span") else ""
        inside += [between, _visible(child), between, child.tail or ""]
    return "".join(inside)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tree = TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tree.start(tag, {name: value or "" for name, value in attrs})
        if tag in _VOID:
            self.tree.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.tree.end(tag)

    def handle_data(self, data: str) -> None:
        self.tree.data(data)
