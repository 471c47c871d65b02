"""`crystals.csv`: one row for each sample, failed samples included.

A row is a dictionary by column. None is a value that does not exist (the formula of a sample that could not be decoded,
the shortest distance in a crystal of one site), and an empty cell of the file. Units: angstrom, degree, cubic angstrom,
g/cm^3; the units of the statistics are in `crystens.metrics.statistics`.

Samples from images have the `IMAGE_COLUMNS`; crystals from files have the `CRYSTAL_COLUMNS`, without image columns. The
stated space group (`generated_space_group`) has a column beside the groups found in the atoms
(`crystens.metrics.symmetries`). A finished file is sorted by `plausibility` (`crystens.metrics.plausibility`), the best
first, failed samples last.

Further columns are appended when used, in this order:

- `PROTOCOL_COLUMNS` of the CDVAE protocol (`crystens.protocol.cdvae_protocol`), and `ENERGY_COLUMNS` (eV/atom) if it
  compares energies (`crystens.protocol.energy_distance`); or `CSP_COLUMNS` of structure prediction
  (`crystens.protocol.csp_protocol`);
- CGCNN's properties (`crystens.properties.property_metrics`; units in `crystens.properties.cgcnn`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystens.chemistry.charge_neutrality import is_charge_neutral
from crystens.crystal import Crystal
from crystens.decoding import DecodedCrystal, ImageCopies, cell_means
from crystens.errors import CrystensError
from crystens.metrics.distributions import Reference
from crystens.metrics.plausibility import COLUMNS as PLAUSIBILITY_COLUMNS
from crystens.metrics.plausibility import distance_ratio, plausibility
from crystens.metrics.statistics import STATISTICS, copies_statistics
from crystens.metrics.symmetries import symmetry_of
from crystens.metrics.validity import MIN_DISTANCE, MIN_VOLUME, shortest_distance
from crystens.orbits.decoding import DecodedOrbits
from crystens.orbits.scaling import OrbitScaling
from crystens.processes.atomic_file import write_whole
from crystens.symmetry.projection import REPAIRS
from crystens.symmetry.space_groups import crystal_system

Row = dict[str, Any]

OK = "ok"
FAILED = "failed"

SYMMETRY_COLUMNS = ("space_group", "space_group_at_0.1", "crystal_system", "wyckoff_template")
CELL_COLUMNS = ("a", "b", "c", "alpha", "beta", "gamma")
IMAGE_COLUMNS = (
    "index",
    "file",
    "status",
    "reason",
    "formula",
    "num_sites",
    "generated_space_group",
    *SYMMETRY_COLUMNS,
    *CELL_COLUMNS,
    "volume",
    "density",
    "shortest_distance",
    "structurally_valid",
    *PLAUSIBILITY_COLUMNS,
    "merged_sites",
    "largest_move",  # of a site, or an orbit, onto its place in the stated space group, angstrom
    *STATISTICS,
)
# Appended for samples from images of orbits: number of orbits, and number of repairs of each kind in decoding
# (`crystens.symmetry.projection`).
ORBIT_COLUMNS = ("num_orbits", *(f"{kind}_orbits" for kind in REPAIRS))
# Appended for samples under conditions: each condition, and whether the crystal meets it.
ASKED = (
    *("formula", "chemical_system", "elements", "num_elements", "num_sites", "charge_neutral"),
    *("space_group", "crystal_system"),
)
MET_COLUMNS = ("asked", *(f"{name}_met" for name in ASKED))
CRYSTAL_COLUMNS = (
    "index",
    "file",
    "entry",
    *(name for name in IMAGE_COLUMNS[2:] if name not in ("merged_sites", "largest_move", *STATISTICS)),
)
PROTOCOL_COLUMNS = (
    "num_elements",
    "composition_verdict",
    "composition_valid",
    "fingerprint_reason",
    "valid",
    "structure_distance",
    "composition_distance",
    "covered",
    "covered_strict",
)
ENERGY_COLUMNS = ("energy_per_atom", "energy_reason")
# Samples that answer references: indices of these references, whether one matches, and its distance.
CSP_COLUMNS = ("reference", "matched", "rms_distance")

_TEXTS = {
    *("file", "entry", "status", "formula", "composition_verdict", "crystal_system", "wyckoff_template"),
    *("reason", "fingerprint_reason", "energy_reason", "cgcnn_reason", "asked", "reference"),
}
_INTEGERS = {
    *("index", "num_sites", "generated_space_group", "merged_sites", "num_elements"),
    *SYMMETRY_COLUMNS[:2],
    *ORBIT_COLUMNS,
}
_TRUTHS = {
    *("structurally_valid", "composition_valid", "valid", "covered", "covered_strict"),
    *("charge_neutral", "known_formula", "known_template", "matched"),
    *MET_COLUMNS[1:],
}


def image_rows(
    images: ImageCopies,
    decoded: Sequence[DecodedCrystal],
    distance: str = "fractional",
    start: int = 0,
    reference: Reference | None = None,
) -> list[Row]:
    """Return the rows of samples from images.

    Args:
        images: the copies of values in the images, as read for decoding.
        decoded: the results of decoding, one for each image.
        distance: kind of distance in the distance block, "fractional" or "cartesian".
        start: index of the first sample.
        reference: real crystals; their formulas and templates count as known.

    The statistics use the number of sites that decoding found. A failed sample has them too, with the cell that its
    image states, if the image holds a site.
    """
    columns = {name: values.tolist() for name, values in copies_statistics(images, distance).items()}
    stated = cell_means(images)[:, :6].tolist()
    rows = []
    for place, sample in enumerate(decoded):
        index = start + place
        row: Row = dict.fromkeys(IMAGE_COLUMNS)
        row.update(index=index, num_sites=sample.num_sites, generated_space_group=sample.generated_space_group)
        if sample.crystal is None:
            row.update(status=FAILED, reason=_one_line(sample.reason))
            if sample.num_sites > 0:
                row.update(zip(CELL_COLUMNS, stated[place], strict=True))
        else:
            row.update(status=OK, file=f"cifs/{index:06d}.cif", merged_sites=sample.merged_sites)
            row.update(_measured(sample.crystal, sample.merged_sites > 0, reference))
        if np.isfinite(sample.moved).any():
            row["largest_move"] = float(np.nanmax(sample.moved))
        row.update({name: values[place] for name, values in columns.items()})
        if isinstance(images.scaling, OrbitScaling):
            row.update(_orbit_columns(sample))
        rows.append({name: _finite_or_none(value) for name, value in row.items()})
    return rows


def _orbit_columns(sample: DecodedCrystal) -> Row:
    """Return the `ORBIT_COLUMNS` of a sample that came as an image of orbits."""
    row: Row = dict.fromkeys(ORBIT_COLUMNS)
    if isinstance(sample, DecodedOrbits):
        row.update({f"{kind}_orbits": count for kind, count in sample.repairs.items()})
        row["num_orbits"] = None if sample.orbits is None else len(sample.orbits)
    return row


def crystal_row(
    index: int,
    crystal: Crystal,
    file: str = "",
    entry: str = "",
    *,
    stated: int | None = None,
    merged: bool = False,
    reference: Reference | None = None,
) -> Row:
    """Return the row of a crystal from a file.

    Args:
        index: index of the sample.
        crystal: the crystal.
        file: the file that it was read from.
        entry: its name in that file.
        stated: its space group number in the file.
        merged: whether decoding merged sites of it. Such a crystal is structurally invalid, which its file cannot show.
        reference: real crystals; their formulas and templates count as known.
    """
    row: Row = dict.fromkeys(CRYSTAL_COLUMNS)
    row.update(index=index, file=_one_line(file), entry=_one_line(entry), status=OK, generated_space_group=stated)
    row.update(_measured(crystal, merged, reference))
    return {name: _finite_or_none(value) for name, value in row.items()}


def failed_row(index: int, reason: str, file: str = "", entry: str = "") -> Row:
    """Return the row of a file that could not be read as a crystal."""
    row: Row = dict.fromkeys(CRYSTAL_COLUMNS)
    row.update(index=index, file=_one_line(file), entry=_one_line(entry), status=FAILED, reason=_one_line(reason))
    return row


def _measured(crystal: Crystal, merged: bool, reference: Reference | None) -> Row:
    """Return the columns that follow from a crystal and the reference."""
    nearest = shortest_distance(crystal)
    volume = crystal.lattice.volume
    symmetry = symmetry_of(crystal, nearest)
    group, formula = symmetry.space_group, crystal.formula
    valid = bool(volume >= MIN_VOLUME and nearest >= MIN_DISTANCE and not merged)
    ratio, neutral = distance_ratio(crystal), is_charge_neutral(crystal.numbers)
    known = (
        (None, None)
        if reference is None
        else (reference.has_formula(formula), reference.has_template(symmetry.template))
    )
    return {
        "formula": formula,
        "num_sites": len(crystal),
        "space_group": group,
        "space_group_at_0.1": symmetry.loose_space_group,
        "crystal_system": None if group is None else crystal_system(group),
        "wyckoff_template": symmetry.template,
        **dict(zip(CELL_COLUMNS, [*crystal.lengths.tolist(), *crystal.angles.tolist()], strict=True)),
        "volume": volume,
        "density": float(crystal.to_structure().density),
        "shortest_distance": nearest,
        "structurally_valid": valid,
        "distance_ratio": ratio,
        "charge_neutral": neutral,
        "known_formula": known[0],
        "known_template": known[1],
        "plausibility": plausibility(valid, ratio, neutral, group, known),
    }


def _finite_or_none(value: Any) -> Any:
    """Return a value, or None for a float that is not finite: nothing was measured."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _one_line(text: str) -> str | None:
    """Return a text without line breaks, because a sample is one line of the file; None for an empty text."""
    return " ".join(text.split()) or None


class CrystalTable:
    """The file `crystals.csv`, written chunk by chunk; an existing file is continued after its last complete row.

    Args:
        path: the file; created with its header if it does not exist. An incomplete last line is dropped.
        columns: `IMAGE_COLUMNS` or `CRYSTAL_COLUMNS`, and the columns appended to them.

    Raises:
        CrystensError: if the file has other columns or cannot be written.
    """

    def __init__(self, path: str | Path, columns: Sequence[str] = IMAGE_COLUMNS) -> None:
        """Open or create the file."""
        self.path = Path(path)
        self.columns = tuple(columns)
        header = _text([self.columns]).encode()
        try:
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
            if not lines:
                lines = [header]
            if lines[0] != header:
                found = lines[0].decode(errors="replace").strip()
                raise CrystensError(f"{self.path} has other columns ({found[:80]}...); choose another folder")
            write_whole(self.path, b"".join(lines))
        except OSError as error:
            raise CrystensError(f"cannot write {self.path}: {error.strerror}; choose another folder") from error
        self._count = len(lines) - 1

    def __len__(self) -> int:
        """Return the number of complete rows in the file."""
        return self._count

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        rows = list(rows)
        with self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(_text([_cell(row[name]) for name in self.columns] for row in rows))
        self._count += len(rows)

    def keep(self, count: int) -> None:
        """Drop all rows after the first `count`."""
        lines = self.path.read_bytes().splitlines(keepends=True)[: count + 1]
        write_whole(self.path, b"".join(lines))
        self._count = len(lines) - 1

    def sort(self) -> None:
        """Sort the lines of the file by `by_plausibility`, atomically."""
        header, *lines = self.path.read_bytes().splitlines(keepends=True)
        found = read_rows(self.path, _TEXTS, _INTEGERS, _TRUTHS)
        line_of = {row["index"]: line for row, line in zip(found, lines, strict=True)}
        write_whole(self.path, b"".join([header, *(line_of[row["index"]] for row in by_plausibility(found))]))

    def rows(self) -> list[Row]:
        """Return all rows in the order of the samples, with the types that were written; floats have ten digits."""
        return sorted(read_rows(self.path, _TEXTS, _INTEGERS, _TRUTHS), key=lambda row: row["index"])


def by_plausibility(rows: Iterable[Row]) -> list[Row]:
    """Return rows sorted by plausibility, the best first; ties keep their order, failed samples come last."""
    return sorted(rows, key=lambda row: (row["status"] != OK, -(row["plausibility"] or 0.0), row["index"]))


def _text(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """Return the text of one value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def read_rows(path: Path, texts: Collection[str], integers: Collection[str], truths: Collection[str]) -> list[Row]:
    """Return the rows of a file that a `CrystalTable` wrote, typed by column; all other columns are floats."""

    def value(name: str, text: str) -> Any:
        if text == "":
            return None
        if name in texts:
            return text
        if name in truths:
            return text == "true"
        return int(text) if name in integers else float(text)

    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
