"""HTML pages from the jinja2 templates in `assets/`, all with the one stylesheet `assets/style.css`.

A page is one self-contained file: pictures, style and scripts are inlined. Its content security policy forbids all
requests, and allows only its own scripts, by their hashes. A page of `crystens.app` may send requests to its server and
to no other. Every value is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from crystens.errors import CrystensError

_ASSETS = Path(__file__).with_name("assets")


def render(template: str, scripts: Sequence[str] = (), served: bool = False, **values: Any) -> str:
    """Return a page.

    Args:
        template: file in `assets/` that extends `page.html.j2`.
        scripts: results of `script`, in the order in which they run at the end of the page.
        served: whether the page comes from `crystens.app`, and may send requests to its server.
        values: the variables of the template.

    Raises:
        CrystensError: if the package was installed without one of its templates.
    """
    safe = [Markup(text) for text in scripts]
    try:
        policy = content_policy(scripts, served)
        return _ENVIRONMENT.get_template(template).render(policy=policy, scripts=safe, **values)
    except TemplateNotFound as error:
        raise _missing(str(error.name)) from error


def script(name: str) -> str:
    """Return a script of `assets/`, safe inside a script element.

    Raises:
        CrystensError: if the package was installed without it.
    """
    try:
        text = (_ASSETS / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _missing(name) from error
    # Where they can stand in a script, in strings and regular expressions, the backslash changes nothing.
    return re.sub(r"<(/script|!--)", r"<\\\1", text, flags=re.IGNORECASE)


def content_policy(scripts: Sequence[str], served: bool = False) -> str:
    """Return the content security policy of a page that runs only these scripts and sends no requests.

    If the page is `served`, it may send requests and forms to its own server.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    requests = "connect-src 'self'; form-action 'self'" if served else "form-action 'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"{requests}"
    )


def _missing(name: str) -> CrystensError:
    """Return the error for a file that the package lacks."""
    return CrystensError(f"{_ASSETS / name} is not there: install the package again")


def _inlined(png: bytes) -> str:
    """Return a picture as a data URL, for an image element."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _breakable(name: str) -> Markup:
    """Return a name that a browser may break at its dots and underscores."""
    return escape(name).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>"))


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {"inlined": _inlined, "breakable": _breakable}
