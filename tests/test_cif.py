"""CIF text: what is written is read back by every reader, and what is read agrees with the corpus and with pymatgen."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import warnings
from pathlib import Path

import ase.io
import gemmi
import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser

from crystens.cif.read import read_cif
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.symmetry.space_groups import symmetrised

STRICT = StructureMatcher(primitive_cell=False, scale=False, ltol=0.01, stol=0.01, angle_tol=0.1)

CORPUS = {
    # The lines of bad_cifs/MANIFEST.json; for a reject, what its reason must say.
    "ok_control.cif": None,
    "empty.cif": "empty file",
    "binary_garbage.cif": "not a CIF: binary data",
    "truncated_loop.cif": "loop is truncated.*_atom_site",
    "missing_cell_length.cif": "_cell_length_b missing",
    "two_data_blocks.cif": None,
    "zero_cell_length.cif": "cell length must be > 0: _cell_length_a is 0",
    "angle_0.cif": "cell angle must lie strictly between 0 and 180 degrees: _cell_angle_gamma is 0",
    "angle_impossible_triple.cif": "three cell angles cannot form a cell",
    "huge_cell_1e6.cif": "cell length out of range",
    "nan_coordinate.cif": "coordinate is not a finite number: Cl1",
    "coord_uncertainty.cif": None,
    "coord_outside_unit_cell.cif": None,
    "duplicate_atoms.cif": "two atoms at the same position",
    "near_duplicate_atoms.cif": "two atoms closer than any bond.*0.082 angstrom",
    "occupancy_half.cif": "partial occupancy.*0.5",
    "occupancy_over_1.cif": "occupancy above 1.*1.5",
    "deuterium.cif": None,
    "unknown_element.cif": "unknown element: 'Xx'",
    "atoms_52.cif": None,
    "atoms_53.cif": "more than 52 atoms in the cell: 53",
    "utf8_bom.cif": None,
    "crlf.cif": None,
    "gzip_compressed.cif.gz": None,
    "symops_expansion.cif": None,
    "coord_thirds_rounded.cif": None,
    "missing_symmetry.cif": None,
    "wrong_space_group_tag.cif": None,
}

CSCL = """data_CsCl
_cell_length_a 4.123
_cell_length_b 4.123
_cell_length_c 4.123
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Cs 0 0 0
Cl 0.5 0.5 0.5
"""


def _only(items: list[Entry | Reject]) -> Entry | Reject:
    """Return the one item of a list of one."""
    assert len(items) == 1
    return items[0]


def _read(text: str | bytes) -> Entry | Reject:
    """Return the one entry or reject of a text."""
    return _only(read_cif(text, "file.cif", Limits()))


def _real_texts(shared_data: Path, step: int) -> list[tuple[str, str]]:
    """Return file name and text of every `step`-th file of mp_3dsc."""
    with tarfile.open(shared_data / "mp_3dsc" / "cifs.tar.gz") as archive:
        members = [member for member in archive if member.isfile()][::step]
        return [(member.name, archive.extractfile(member).read().decode()) for member in members]


# Reading: the corpus


def test_corpus_table_names_every_line_of_the_manifest(shared_data):
    manifest = json.loads((shared_data / "bad_cifs" / "MANIFEST.json").read_text())
    assert {line["file"] for line in manifest["files"]} == set(CORPUS)


@pytest.mark.parametrize("file", CORPUS)
def test_reader_agrees_with_the_manifest_on(file, shared_data):
    folder = shared_data / "bad_cifs"
    lines = {line["file"]: line for line in json.loads((folder / "MANIFEST.json").read_text())["files"]}
    line = lines[file]
    items = read_cif((folder / file).read_bytes(), file, Limits(max_sites=52))
    if line["expect"] != "accept":
        reject = _only(items)
        assert isinstance(reject, Reject)
        assert re.search(CORPUS[file], reject.reason)
        assert reject.advice
        return
    expected = line.get("structures", [line])
    assert len(items) == len(expected)
    for item, wanted in zip(items, expected, strict=True):
        assert isinstance(item, Entry)
        assert len(item.crystal) == wanted["n_atoms"]
        assert item.crystal.formula == wanted["reduced_formula"]
        assert item.crystal.space_group == wanted.get("detected_spacegroup", item.crystal.space_group)
        assert sorted(set(item.crystal.numbers.tolist())) == wanted.get(
            "atomic_numbers", sorted(set(item.crystal.numbers.tolist()))
        )
        assert item.crystal.lengths[0] == pytest.approx(wanted.get("a", item.crystal.lengths[0]))


def test_reader_agrees_with_pymatgen_on_real_files(shared_data):
    for file, text in _real_texts(shared_data, 80):
        entry = _only(read_cif(text, file, Limits()))
        other = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
        mine = entry.crystal.to_structure()
        assert np.allclose(mine.lattice.parameters, other.lattice.parameters)
        # pymatgen sorts by electronegativity: compare each site with the nearest one.
        distances = other.lattice.get_all_distances(mine.frac_coords, other.frac_coords)
        nearest = distances.argmin(axis=1)
        assert sorted(nearest) == list(range(len(other)))
        assert distances.min(axis=1).max() < 1e-5
        assert [site.specie.Z for site in mine] == [other[int(k)].specie.Z for k in nearest]


# Reading: details


def test_listed_operations_take_decimals_coefficients_and_any_denominator():
    # A cell of five sites in a row, and one whose operation has a coefficient of 2.
    text = CSCL.replace("_a 4.123", "_a 20.615").replace("Cl 0.5 0.5 0.5\n", "") + "loop_\n_symmetry_equiv_pos_as_xyz\n"
    entry = _read(text + "".join(f"'x+{k}/5, Y, +z'\n" for k in range(5)))
    assert np.allclose(np.sort(entry.crystal.coordinates[:, 0]), [0, 0.2, 0.4, 0.6, 0.8])
    entry = _read(text + "x,y,z\nx+0.25,y,z\nx+.5,y,z\n3/4+x,y,z\n")
    assert np.allclose(np.sort(entry.crystal.coordinates[:, 0]), [0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize("triplet", ["x,y", "x,y,w", "x,x,z", "x+1/0,y,z", "x,y,z,"])
def test_operation_that_makes_no_sense_is_a_reject(triplet):
    reject = _read(CSCL + f"_symmetry_equiv_pos_as_xyz '{triplet}'\n")
    assert reject.reason.startswith("symmetry operation not understood")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("_symmetry_space_group_name_H-M", "F m -3 m"),
        ("_space_group_name_H-M_alt", "Fm-3m"),
        ("_symmetry_Int_Tables_number", "225"),
        ("_space_group_name_Hall", "-F 4 2 3"),
        ("_space_group_IT_number", "225"),
    ],
)
def test_named_group_makes_the_sites_where_no_operations_are_listed(tag, value):
    entry = _read(CSCL.replace("4.123", "5.64") + f"{tag} '{value}'\n")
    assert len(entry.crystal) == 8
    assert entry.crystal.space_group == 225


def test_rhombohedral_group_is_read_in_the_setting_that_the_cell_has():
    text = CSCL.replace("4.123", "4.7").replace(" 90", " 57").replace("Cl 0.5 0.5 0.5", "Cl 0.234 0.234 0.234")
    entry = _read(text.replace("57\n", "57.2\n") + "_symmetry_space_group_name_H-M 'R -3 m'\n")
    assert len(entry.crystal) == 3
    assert entry.crystal.space_group == 166


def test_unknown_group_is_a_reject():
    assert _read(CSCL + "_symmetry_space_group_name_H-M 'Q 7'\n").reason == "space group not known: 'Q 7'"


def test_second_block_survives_a_bad_first_one():
    items = read_cif(CSCL.replace("Cs 0 0 0", "Cs ? 0 0") + CSCL.replace("data_CsCl", "data_two"), "f", Limits())
    assert [type(item).__name__ for item in items] == ["Reject", "Entry"]
    assert [item.entry for item in items] == ["CsCl", "two"]


def test_block_of_text_without_a_crystal_is_passed_over():
    assert _read("data_global\n_journal_year 2024\n" + CSCL).entry == "CsCl"
    assert _read("data_global\n_journal_year 2024\n").reason.startswith("no crystal in the file")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Cs 0 0 0", "Cs 1/3 0 0", "coordinate is not a finite number"),
        ("_cell_length_a 4.123", "_cell_length_a long", "cell is not a number"),
        ("_cell_length_a 4.123", "_cell_length_a -4.123", "cell length must be > 0"),
        ("_cell_length_a 4.123", "_cell_length_a 0.3", "two atoms closer than any bond"),
        ("_atom_site_fract_z", "_atom_site_other", "atoms incomplete"),
        ("4.123", "400", "volume per atom out of range"),
        ("Cs 0 0 0", "Cs 0 0 0 0", "loop is truncated"),
        ("data_CsCl", "", "not a CIF"),
        ("4.123", "'4.123", "CIF syntax error"),
    ],
)
def test_defect_is_rejected_with_its_reason(old, new, reason):
    assert _read(CSCL.replace(old, new)).category == reason


@pytest.mark.parametrize(
    ("symbol", "number"), [("Fe3+", 26), ("O2-", 8), ("CL", 17), ("D", 1), ("T", 1), ("'Cl1-'", 17), ("U", 92)]
)
def test_type_symbol_is_understood(symbol, number):
    assert number in _read(CSCL.replace("Cl 0.5", f"{symbol} 0.5")).crystal.numbers


@pytest.mark.parametrize("label", ["Cl1", "CL2A", "Cl", "Cl_a"])
def test_label_is_used_where_there_is_no_type_symbol(label):
    text = CSCL.replace("_type_symbol", "_label").replace("Cl 0.5", f"{label} 0.5")
    assert _read(text).crystal.numbers.tolist() == [17, 55]


def test_label_that_names_no_element_is_a_reject_and_not_a_guess():
    text = CSCL.replace("_type_symbol", "_label").replace("Cl 0.5", "Wat1 0.5")
    assert _read(text).reason == "unknown element: label 'Wat1' names no element for certain"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_text_is_read_in_any_usual_encoding(encoding):
    assert _read(("# 90\u00b0 angles\n" + CSCL).encode(encoding)).crystal.formula == "CsCl"


def test_gzipped_text_that_ends_early_is_a_reject():
    packed = gzip.compress(CSCL.encode())
    assert _read(packed).crystal.formula == "CsCl"
    assert _read(packed[:-20]).reason.startswith("damaged gzip file")


def test_gzip_bomb_is_a_reject():
    assert _read(gzip.compress(bytes(80 * 2**20))).reason.startswith("file too large")


def test_distance_limit_sees_images_in_a_skewed_cell():
    # Two sites 0.3 angstrom apart only across a lattice vector that rounding fractional differences does not find.
    cell = Lattice.from_parameters(6, 6, 6, 8, 8, 8)
    near = np.array([0.2, 0.3, 0.4]) + cell.get_fractional_coords([0.0, 0.28, 0.1]) + [2, -1, -1]
    limits = Limits(max_volume_per_site=1e9)
    text = CSCL.replace("4.123", "6").replace(" 90", " 8").replace("Cs 0 0 0", "Cs 0.2 0.3 0.4")
    text = text.replace("0.5 0.5 0.5", " ".join(f"{x:.9f}" for x in near - np.floor(near)))
    assert _only(read_cif(text, "f", limits)).category == "two atoms closer than any bond"


def test_images_of_a_site_near_a_centre_of_inversion_are_one_site_in_a_skewed_cell():
    # A cubic lattice of 4 angstrom, its b by 22 a further. The images of a site at (0, 0.018, 0) angstrom are 0.036
    # angstrom apart by a lattice vector that rounding fractional differences does not find.
    cell = Lattice([[4.0, 0, 0], [4 * 60.0, 4, 0], [0, 0, 4]])
    lengths, angles = cell.lengths, cell.angles
    site = cell.get_fractional_coords([0.0, 0.018, 0.0]) % 1
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = [f"_cell_{name} {value:.9f}" for name, value in zip(names, [*lengths, *angles], strict=True)]
    text = "\n".join(
        [
            "data_Po",
            *lines,
            "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n'-x, -y, -z'",
            "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z",
            "Po " + " ".join(f"{x:.9f}" for x in site),
            "",
        ]
    )
    assert len(_only(read_cif(text, "f", Limits())).crystal) == 1


# Writing


def _rhombohedral() -> Crystal:
    """Bi2Te3 in its primitive rhombohedral cell."""
    places = [[x] * 3 for x in (0.4, 0.6, 0.0, 0.21, 0.79)]
    return Crystal([10.47] * 3, [24.17] * 3, 166, [83, 83, 52, 52, 52], np.array(places))


def _hexagonal() -> Crystal:
    """Magnesium, hcp, origin on an atom."""
    return Crystal([3.2, 3.2, 5.2], [90, 90, 120], 194, [12, 12], np.array([[0, 0, 0], [1 / 3, 2 / 3, 0.5]]))


def _rocksalt() -> Crystal:
    """NaCl in its primitive cell, with the origin on no symmetry element."""
    return Crystal([3.99] * 3, [60] * 3, 225, [11, 17], np.array([[0.123, 0.2, 0.31], [0.623, 0.7, 0.81]]))


def _supercell() -> Crystal:
    """Five cubic cells in a row."""
    return Crystal([14.5, 2.9, 2.9], [90] * 3, 221, [26] * 5, np.array([[k / 5, 0, 0] for k in range(5)]))


def _by_pymatgen(text: str) -> Structure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CifParser.from_str(text).parse_structures(primitive=False)[0]


def _by_ase(text: str) -> Structure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = ase.io.read(io.StringIO(text), format="cif")
    return Structure(atoms.cell[:], atoms.get_chemical_symbols(), atoms.get_scaled_positions())


def _by_gemmi(text: str) -> Structure:
    block = gemmi.cif.read_string(text).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    cell = Lattice.from_parameters(*small.cell.parameters)
    symbols, places = [], []
    for site in small.sites:
        images: list[np.ndarray] = []
        for triplet in block.find_loop("_space_group_symop_operation_xyz"):
            image = np.array(gemmi.Op(gemmi.cif.as_string(triplet)).apply_to_xyz(site.fract.tolist()))
            if not images or cell.get_all_distances(images, image).min() > 0.1:
                images.append(image)
        symbols += [site.element.name] * len(images)
        places += images
    return Structure(cell, symbols, places)


def _by_us(text: str) -> Structure:
    return _read(text).crystal.to_structure()


@pytest.mark.parametrize("operations", [True, False], ids=["operations", "all_sites"])
@pytest.mark.parametrize("reader", [_by_pymatgen, _by_ase, _by_gemmi, _by_us])
@pytest.mark.parametrize(
    "make",
    ["nacl", "copper_primitive", "triclinic", "sites_52", _rhombohedral, _hexagonal, _rocksalt, _supercell],
)
def test_written_cif_is_read_back_as_the_same_crystal(make, reader, operations, request):
    crystal = make() if callable(make) else request.getfixturevalue(make)
    back = reader(write_cif(symmetrised(crystal, 0.01), operations=operations))
    assert len(back) == len(crystal)
    assert STRICT.fit(back, crystal.to_structure())


def test_written_operations_of_real_crystals_are_read_back(shared_data):
    written = 0
    for file, text in _real_texts(shared_data, 117):
        result = symmetrised(_only(read_cif(text, file, Limits())).crystal, 0.01)
        if len(result.crystal) > 60:
            continue
        text = write_cif(result)
        written += f"_space_group_IT_number {result.crystal.space_group}\n" in text
        for reader in (_by_pymatgen, _by_ase, _by_gemmi, _by_us):
            back = reader(text)
            assert len(back) == len(result.crystal), (file, reader)
            assert STRICT.fit(back, result.crystal.to_structure()), (file, reader)
    assert written >= 30


def test_operations_are_written_where_every_reader_understands_them():
    text = write_cif(symmetrised(_rocksalt(), 0.01))
    assert text.startswith("data_NaCl\n")
    assert "_space_group_IT_number 225\n" in text
    assert "P 1" not in text
    assert len(re.findall(r"^'.*'$", text, flags=re.M)) == 48
    assert len(re.findall(r"^(Na|Cl)1 ", text, flags=re.M)) == 2


def test_all_sites_are_written_where_a_reader_would_misread_the_operations():
    text = write_cif(symmetrised(_supercell(), 0.01))
    assert "_symmetry_space_group_name_H-M 'P 1'" in text
    assert "_space_group_IT_number 1\n" in text
    assert "_crystens_space_group_IT_number 221\n" in text
    assert len(re.findall(r"^Fe\d ", text, flags=re.M)) == 5


def test_crystal_without_operations_is_written_with_all_sites_and_its_group(nacl):
    text = write_cif(nacl, name="my salt", extra={"_crystens_note": "it's salt", "_crystens_loss": 0.5})
    assert text.startswith("data_my_salt\n")
    block = gemmi.cif.read_string(text).sole_block()
    assert block.find_value("_crystens_space_group_IT_number") == "225"
    assert gemmi.cif.as_string(block.find_value("_crystens_note")) == "it`s salt"
    assert gemmi.cif.as_string(block.find_value("_chemical_formula_sum")) == "Na1 Cl1"
    assert block.find_value("_cell_formula_units_Z") == "4"
    assert np.allclose(_by_us(text).frac_coords, nacl.in_canonical_order().coordinates)


@pytest.mark.parametrize(
    ("items", "stated"),
    [
        ("_space_group_IT_number 225", 225),
        ("_symmetry_Int_Tables_number 225\n_symmetry_space_group_name_H-M 'F m -3 m'", 225),
        ("_symmetry_space_group_name_H-M 'P 1'\n_symmetry_Int_Tables_number 1", None),
        ("_symmetry_space_group_name_H-M 'P m -3 m'", 221),
        ("_crystens_generated_space_group_IT_number 1\n_space_group_IT_number 225", 1),
        ("_crystens_generated_space_group_IT_number 0", None),
        ("_space_group_IT_number 225\n_space_group.IT_number 221", None),
        ("", None),
    ],
)
def test_entry_keeps_the_group_that_the_file_states(items, stated):
    text = f"""data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{items}
loop_
_space_group_symop_operation_xyz
'x,y,z'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na 0 0 0
Cl 0.5 0.5 0.5
"""
    (entry,) = read_cif(text, "salt.cif", Limits())
    assert entry.stated_space_group == stated
