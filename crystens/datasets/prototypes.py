"""The crystal structures in pymatgen: 288 prototypes of the AFLOW library, with 1 to some 400 sites.

Source: Mehl et al., The AFLOW Library of Crystallographic Prototypes: Part 1, Comput. Mater. Sci. 2017, 136, S1.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from crystens.errors import CrystensError
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Unusable
from crystens.sources.source import Source
from crystens.sources.structures import crystal_of_sites


class Prototypes(Source):
    """Source of pymatgen's AFLOW prototypes, in pymatgen's order.

    Args:
        path: must be None, so that a path given with this source is an error.

    Raises:
        CrystensError: if there is a path.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Check that no path was given."""
        if path is not None:
            raise CrystensError(
                f"data=prototypes reads no path, but data.path={path} is given; add the kind of data at that path, "
                "such as data=cif_folder"
            )

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return "AFLOW prototypes of pymatgen"

    def contents(self) -> dict[str, str | Path]:
        """Return no files: the data are part of pymatgen, whose version is the `variant`."""
        return {}

    def variant(self) -> str:
        """Return pymatgen's version."""
        return f"pymatgen {version('pymatgen')}"

    def records(self) -> Iterator[Record]:
        """Yield each prototype under its AFLOW label."""
        # Takes seconds to import, and only this source needs it.
        from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

        for prototype in AFLOW_PROTOTYPE_LIBRARY:
            yield Record(str(self), prototype["tags"]["aflow"], prototype["snl"].structure)

    def parse(self, record: Record, limits: Limits) -> list[Entry]:
        """Return the crystal of one prototype."""
        structure = record.content
        if not structure.is_ordered:
            raise Unusable("partial occupancy (disordered structure)", "none: this prototype cannot be encoded")
        numbers = np.array([site.specie.Z for site in structure])
        crystal = crystal_of_sites(limits, structure.lattice.matrix, numbers, structure.frac_coords)
        return [Entry(record.file, record.entry, crystal)]
