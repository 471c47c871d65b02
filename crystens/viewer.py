"""The 3D view of the crystals in a report: 3Dmol.js, a short script of ours and the crystals as JSON, all in the page.

The page needs no network: a content security policy forbids every request, and every script but the two by their
hashes. 3Dmol.js makes a page half a megabyte larger, once, however many crystals it shows. Without JavaScript, or
without WebGL, the pictures of the report stay and this view does not appear, or says why.

Shown are the cell, the atoms with their images on its borders, in the colours, radii and from the side of the
pictures; by choice bonds (atoms nearer than 1.15 times the sum of their covalent radii, no chemistry) and supercells.

Sources: Rego and Koes, "3Dmol.js: molecular visualization with WebGL", Bioinformatics 2015, 31, 1322; the file and its
licence are in `crystens/assets`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from ase.data import chemical_symbols
from pymatgen.symmetry.groups import sg_symbol_from_int_number

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.pictures import borders, element_colour, element_radius, view_vectors

VIEWER_STYLE = """
#viewer { border: 1px solid #d9dee4; border-radius: 6px; padding: 0.6rem; margin-bottom: 0.8rem; }
#viewer[hidden] { display: none; }
#viewer [data-part="stage"] { position: relative; width: 100%; height: 440px; }
#viewer [data-part="label"] { font-weight: 600; }
#viewer .controls, #viewer [data-part="legend"] { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem;
  align-items: center; font-size: 0.9rem; }
#viewer i { display: inline-block; width: 0.9em; height: 0.9em; border-radius: 50%; border: 1px solid #52606d;
  margin-right: 0.35em; vertical-align: -0.1em; }
figure[role="button"] { cursor: pointer; }
figure[aria-pressed="true"] { border-color: #c2410c; box-shadow: 0 0 0 1px #c2410c; }
""".strip()

# Hidden until the script has something to show.
VIEWER_PANEL = """
<div id="viewer" hidden>
<div data-part="label"></div>
<div data-part="legend"></div>
<div data-part="stage"></div>
<div class="controls">
<label><input type="checkbox" data-part="spin"> spin</label>
<label><input type="checkbox" data-part="bonds"> bonds, by radii</label>
<label>cells <select data-part="cells"><option value="1">1 × 1 × 1</option><option value="2">2 × 2 × 2</option>
<option value="3">3 × 3 × 3</option></select></label>
<button type="button" data-part="reset">reset view</button>
<span class="note">Click a picture to see its crystal here. Drag turns, Ctrl and wheel zooms.</span>
</div>
</div>
""".strip()

_SCRIPTS = ("3Dmol-min.js", "viewer.js")
_DIGITS = 5  # of coordinates and lengths


def viewer_scripts() -> list[str]:
    """Return the scripts of the view, in the order in which they have to run, safe inside a script element.

    Raises:
        CrystensError: if the package was installed without one of them.
    """
    scripts = []
    for name in _SCRIPTS:
        try:
            text = files("crystens").joinpath("assets", name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CrystensError(f"crystens/assets/{name} is not there: install the package again") from error
        # Where they can stand in a script, in strings and regular expressions, the backslash changes nothing.
        scripts.append(re.sub(r"<(/script|!--)", r"<\\\1", text, flags=re.IGNORECASE))
    return scripts


def viewer_elements(crystals: Mapping[int, Crystal], labels: Mapping[int, str], scripts: Iterable[str]) -> str:
    """Return the script elements for the end of the page: the crystals, then the scripts.

    Args:
        crystals: by the number that stands in `data-crystal` of a figure.
        labels: what stands above each of them, plain text.
        scripts: of `viewer_scripts`.
    """
    data = viewer_data(crystals, labels)
    return "\n".join(
        [
            f'<script type="application/json" id="crystals">{data}</script>',
            *(f"<script>{script}</script>" for script in scripts),
        ]
    )


def content_policy(scripts: Iterable[str]) -> str:
    """Return the content security policy of a page that requests nothing and runs these scripts only."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def viewer_data(crystals: Mapping[int, Crystal], labels: Mapping[int, str]) -> str:
    """Return crystals as JSON that can stand in a script element."""
    described = {str(index): _described(crystal, labels[index]) for index, crystal in crystals.items()}
    text = json.dumps(described, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def space_group_name(number: int) -> str:
    """Return a space group as symbol and number, such as "Fm-3m (225)"."""
    return f"{sg_symbol_from_int_number(number)} ({number})"


def _described(crystal: Crystal, label: str) -> dict[str, Any]:
    """Return what the script needs of a crystal.

    Keys: `label`; `vectors` (3, 3) as rows, angstrom, and `borders` (3,), fractional, see `crystens.pictures`;
    `elements`, each with symbol, colour and radius (angstrom); `sites`, each the place of its element in that list,
    x, y and z (fractional).
    """
    numbers = sorted(set(crystal.numbers.tolist()))
    return {
        "label": label,
        "vectors": view_vectors(crystal).round(_DIGITS).tolist(),
        "borders": borders(crystal).round(_DIGITS).tolist(),
        "elements": [
            {
                "symbol": chemical_symbols[number],
                "colour": element_colour(number),
                "radius": round(element_radius(number), _DIGITS),
            }
            for number in numbers
        ],
        "sites": [
            [numbers.index(number), *place]
            for number, place in zip(crystal.numbers.tolist(), crystal.coordinates.round(_DIGITS).tolist(), strict=True)
        ],
    }
