"""Pieces of HTML that the page of runs is made of."""

from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from crystens.runs.run import Run


def inline_image(png: bytes, text: str) -> str:
    """Return an image element that holds its picture."""
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def named_run(run: Run, colour: str, out: Path) -> str:
    """Return the name of a run behind a dot of its model's colour, as a link to its report if it has one.

    Args:
        run: to name.
        colour: of its model.
        out: folder of the page; the link is relative to it.
    """
    name = escape(run.name)
    if run.report is not None:
        path = os.path.relpath(run.report.absolute(), out).replace(os.sep, "/")
        name = f'<a href="{escape(quote(path))}">{name}</a>'
    return f"{model_dot(colour)}{name}"


def model_dot(colour: str) -> str:
    """Return a dot in the colour of a model."""
    return f'<span class="model" style="background:{colour}"></span>'
