"""The 3D view of the crystals in a report: 3Dmol.js, a short script and the crystals as JSON, all in the page.

The page needs no network: its content security policy forbids all requests, and allows only the two scripts, by their
hashes. 3Dmol.js adds half a megabyte to a page, however many crystals it shows. Without JavaScript the pictures of the
report stay and this view does not appear; without WebGL it says so.

The view shows the cell, and the atoms with their images on its faces, in the colours, radii and orientation of the
pictures. Bonds (atoms nearer than 1.15 times the sum of their covalent radii, no chemistry) and supercells can be
switched on.

Sources: Rego and Koes, "3Dmol.js: molecular visualization with WebGL", Bioinformatics 2015, 31, 1322; the file and its
licence are in `crystens/assets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase.data import chemical_symbols
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from pymatgen.symmetry.groups import sg_symbol_from_int_number

from crystens.crystal import Crystal
from crystens.report.pictures import borders, element_colour, element_radius, view_vectors
from crystens.report.templates import script

_SCRIPTS = ("3Dmol-min.js", "viewer.js")
_DIGITS = 5  # of coordinates and lengths


def viewer_scripts() -> list[str]:
    """Return the scripts of the view, in the order in which they have to run.

    Raises:
        CrystensError: if the package was installed without one of them.
    """
    return [script(name) for name in _SCRIPTS]


def viewer_data(crystals: Mapping[int, Crystal], labels: Mapping[int, str]) -> Markup:
    """Return crystals as JSON that can stand in a script element.

    Args:
        crystals: crystals by the number in `data-crystal` of their figure.
        labels: text above each crystal, plain, in lines.
    """
    described = {str(index): _described(crystal, labels[index]) for index, crystal in crystals.items()}
    return htmlsafe_json_dumps(described, allow_nan=False)


def space_group_name(number: int) -> str:
    """Return a space group as symbol and number, such as "Fm-3m (225)"."""
    return f"{sg_symbol_from_int_number(number)} ({number})"


def _described(crystal: Crystal, label: str) -> dict[str, Any]:
    """Return the data of a crystal for the script.

    Keys: `label`; `vectors` (3, 3) as rows, angstrom, and `borders` (3,), fractional, see `crystens.report.pictures`;
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
