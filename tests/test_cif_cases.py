"""CIFs of the kinds that public bug reports tell of: the right crystal, or a refusal that says what is wrong.

The folder shared/data/cases holds such files, with what is right in expect.json; the same kinds stand here as small
texts, so that they are tried without that folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import gemmi
import pytest

from crystens.cif.read import read_cif
from crystens.cif.write import write_cif
from crystens.formats.cif_folder import CifFolder
from crystens.formats.poscar import PoscarFolder
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.symmetry.space_groups import symmetrised

CASES = {
    # file: formula, sites and space group of each crystal; or what the reason must say
    "01-magcif-operations/mno.cif": [("MnO", 8, 225)],
    "03-coordinate-system-code/diamond.cif": [("C", 8, 227)],
    "03-coordinate-system-code/control_colon2.cif": [("C", 8, 227)],
    "03-coordinate-system-code/control_monoclinic_full_name.cif": [("ZrO2", 12, 14)],
    "04-operations-no-group/control_complete.cif": [("NaCl", 8, 225)],
    "04-operations-no-group/nacl_centring_twice.cif": [("NaCl", 8, 225)],
    "04-operations-no-group/no_identity.cif": [("NaCl", 4, 2)],
    "05-operations-against-cell/corundum_r_operations.cif": "operation does not fit the cell: y,z,x.*4.76.*12.99",
    "05-operations-against-cell/quartz_gamma_90.cif": "does not fit the cell.*P 32 2 1.*-y,x-y,z",
    "06-type-symbol-not-an-element/control_fe3.cif": [("FeO", 2, 221)],
    "06-type-symbol-not-an-element/control_oh2.cif": "OH2 is a group",
    "06-type-symbol-not-an-element/mixed_digits.cif": "mixed site: 'Al0.5Si0.5'",
    "06-type-symbol-not-an-element/nh4.cif": r"NH4\+ is a group",
    "06-type-symbol-not-an-element/no3.cif": "group of atoms as one site: 'NO3'",
    "06-type-symbol-not-an-element/type_unknown.cif": [("NaCl", 2, 221)],
    "07-one-element-two-rows/feo.cif": [("FeO", 8, 225)],
    "08-hydrogens-not-listed/attached.cif": "hydrogens without a place: O1 has 2",
    "09-disorder-groups/groups.cif": "disordered.*O1 and O2 are in groups 1, 2",
    "10-repeated-block-name/control_names.cif": [("CsCl", 2, 221)] * 2,
    "10-repeated-block-name/generated.cif": [("CsCl", 2, 221)] * 3,
    "11-carriage-returns/control_cr.cif": [("NaCl", 8, 225)],
    "11-carriage-returns/cr_comment.cif": [("NaCl", 8, 225)],
    "25-groups-with-hydrogens/brucite_oh.cif": "OH is a group: an O with 1 hydrogen that has no place",
    "25-groups-with-hydrogens/control_o.cif": [("MgO2", 3, 164)],
    "26-torn-loop-that-is-not-needed/nacl_authors.cif": [("NaCl", 8, 225)],
    "27-formula-sum-disagrees/csbr_row_lost.cif": "disagree with _chemical_formula_sum: read are Cs1.*'Br1 Cs1'",
}
CUBE = "\n".join(
    ["data_x"]
    + [f"_cell_length_{axis} 5.64" for axis in "abc"]
    + [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
)
LOOP = "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
SALT = LOOP + "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
GROUP = "_space_group_name_H-M_alt 'F m -3 m'\n"
ROCK_SALT = [operation.triplet() for operation in gemmi.find_spacegroup_by_name("F m -3 m").operations()]


def _read(text: str | bytes, **limits: object) -> Entry | Reject:
    (item,) = read_cif(text, "file.cif", Limits(**limits))
    return item


def _sites(text: str, **limits: object) -> tuple[str, int]:
    item = _read(text, **limits)
    assert isinstance(item, Entry), item
    return item.crystal.formula, len(item.crystal)


def _reason(text: str, **limits: object) -> str:
    item = _read(text, **limits)
    assert isinstance(item, Reject), item.crystal
    assert item.advice
    return item.reason


def _listed(triplets: list[str], tag: str = "_space_group_symop_operation_xyz") -> str:
    return f"loop_\n{tag}\n" + "".join(f"'{triplet}'\n" for triplet in triplets)


@pytest.mark.parametrize("file", CASES)
def test_case_is_read_as_its_expectation_says(file: str, shared_data: Path) -> None:
    path = shared_data / "cases" / file
    if not path.exists():
        pytest.skip("the shared data have no cases")
    items = read_cif(path.read_bytes(), path.name, Limits())
    expected = CASES[file]
    if isinstance(expected, str):
        assert [type(item) for item in items] == [Reject]
        assert re.search(expected, items[0].reason)
        return
    assert [(i.crystal.formula, len(i.crystal), i.crystal.space_group) for i in items] == expected


# Symmetry


def test_operations_that_the_cell_cannot_have_are_refused_by_name() -> None:
    listed = CUBE.replace("_b 5.64", "_b 6") + "\n" + _listed(["x,y,z", "y,z,x", "z,x,y"]) + SALT
    assert "does not fit the cell: y,z,x" in _reason(listed)
    assert "does not fit the cell" in _reason(CUBE.replace(" 90", " 60") + "\n" + GROUP + SALT)
    nearly = CUBE.replace("_b 5.64", "_b 5.645") + "\n" + GROUP + SALT
    assert _sites(nearly) == ("NaCl", 8)


@pytest.mark.parametrize("lost", [1, 48, 95])
def test_list_that_lost_lines_is_completed_where_its_group_is_certain(lost: int) -> None:
    assert _sites(f"{CUBE}\n{_listed(ROCK_SALT[:-lost])}{SALT}") == ("NaCl", 8)
    assert _sites(f"{CUBE}\n{_listed(ROCK_SALT[1:])}{SALT}") == ("NaCl", 8)


def test_list_that_is_no_group_is_refused_with_the_product_that_is_missing() -> None:
    reason = _reason(f"{CUBE}\n{_listed(['x,y,z', 'x+1/3,y,z', '-x,-y,z'])}{SALT}")
    assert reason.startswith("listed operations are no group: ")
    assert " after " in reason
    assert " is " in reason


def test_list_without_the_centring_of_the_named_group_is_read_only_with_the_formula() -> None:
    text = f"{CUBE}\n{GROUP}{_listed(ROCK_SALT[:48])}{SALT}"
    assert "48 are listed, F m -3 m has 192" in _reason(text)
    formula = "_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z "
    assert _sites(text + formula + "4\n") == ("NaCl", 8)
    assert _sites(text + formula + "1\n") == ("NaCl", 2)


def test_identity_alone_wins_over_a_name_unless_the_number_of_atoms_is_that_of_the_name() -> None:
    text = f"{CUBE}\n{GROUP}{_listed(['x,y,z'])}{SALT}_chemical_formula_sum 'Cl Na'\n"
    assert _sites(text) == ("NaCl", 2)
    assert _sites(text + "_cell_formula_units_Z 1\n") == ("NaCl", 2)
    assert "listed is x,y,z alone" in _reason(text + "_cell_formula_units_Z 4\n")


def test_without_a_distance_images_of_the_same_place_alone_are_one_site() -> None:
    text = f"{CUBE}\n_space_group_name_H-M_alt 'F m -3 m'\n{SALT}"
    assert _sites(text, merge_distance=0.0) == ("NaCl", 8)
    off = text.replace("0.5 0.5 0.5", "0.5 0.5 0.503")
    assert _sites(off)[1] == 8
    assert _sites(off, merge_distance=0.0, min_distance=0.0)[1] == 28
    shared = text.replace("'F m -3 m'", "'P 1'").replace("_z\n", "_z\n_atom_site_occupancy\n")
    rows = "Na1 Na 0 0 0 0.9\nK1 K 0 0 0 0.1\nCl1 Cl 0.5 0.5 0.5 1\n"
    shared = shared[: shared.index("Na1")] + rows
    assert _sites(shared, merge_distance=0.0, occupancy="majority") == ("NaCl", 2)


@pytest.mark.parametrize(
    ("items", "sites"),
    [
        ("_space_group_IT_number 227\n_space_group_IT_coordinate_system_code 2", 8),
        ("_space_group_IT_number 227\n_space_group_IT_coordinate_system_code 1", 16),
        ("_space_group_name_H-M_alt 'F d -3 m'\n_space_group.IT_coordinate_system_code 2", 8),
        ("_space_group_name_H-M_full 'F 41/d -3 2/m (origin choice 2)'", 8),
        ("_space_group_name_H-M_alt 'F d -3 m Z'", 8),
        ("_space_group_name_H-M_ref 'F d -3 m'\n_space_group_IT_coordinate_system_code 2", 8),
        ("_space_group_name_Schoenflies 'Oh^7'\n_space_group_IT_coordinate_system_code 2", 8),
        ("_space_group_name_Hall '-F 4vw 2vw 3'", 8),
        ("_space_group_name_H-M_alt 'F d -3 m'\n_chemical_formula_sum C\n_cell_formula_units_Z 8", 8),
    ],
)
def test_origin_is_that_of_the_code_the_symbol_or_the_formula(items: str, sites: int) -> None:
    assert _sites(f"{CUBE}\n{items}\n{LOOP}C1 C 0.125 0.125 0.125\n") == ("C", sites)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ("_space_group_name_H-M_alt 'F d -3 m'", "setting of the space group in doubt.*F d -3 m:1 or F d -3 m:2"),
        ("_space_group_name_H-M_alt 'F d -3 m:1'\n_space_group_IT_coordinate_system_code 2", "setting .* not known"),
        ("_space_group_name_H-M_alt 'F d -3 m:1'\n_space_group_IT_number 225", "contradict each other"),
        ("_space_group_name_Schoenflies 'Xh^7'", "space group not known: 'Xh"),
        ("_space_group_name_H-M_alt 'B 7/q'\n_space_group_IT_number 15", "space group not known: 'B 7/q'"),
        ("_space_group_magn.number_BNS 15.90", "a form that crystens cannot read: _space_group_magn_number_bns"),
        ("_space_group_symop_R '1 0 0'", "given in a form that crystens cannot read"),
        ("_cell_modulation_dimension 1", "modulated structure"),
        ("loop_\n_space_group_symop_magn_ssg_operation.algebraic\nx1,x2,x3,x4,+1", "modulated structure"),
    ],
)
def test_symmetry_that_is_not_certain_is_refused_and_never_taken_for_p1(items: str, reason: str) -> None:
    assert re.search(reason, _reason(f"{CUBE}\n{items}\n{LOOP}C1 C 0.125 0.125 0.125\n"))


def test_magnetic_operations_and_centrings_make_the_sites() -> None:
    magnetic = _listed(["x,y,z,+1", "-x,-y,-z,-1"], "_space_group_symop_magn_operation.xyz")
    centring = _listed(["x,y,z,+1", "x+1/2,y+1/2,z+1/2,-1"], "_space_group_symop_magn_centering.xyz")
    assert _sites(f"{CUBE}\n{magnetic}{centring}{LOOP}Mn1 Mn 0 0 0\nO1 O 0.5 0 0\n") == ("MnO", 4)


def test_generators_make_the_group() -> None:
    listed = _listed(["-x,y,z", "x,-y,z"], "_space_group_symop_generator_xyz")
    assert _sites(f"{CUBE}\n{listed}{LOOP}C1 C 0.2 0.3 0\n") == ("C", 4)


def test_every_setting_is_read_alike_by_list_symbol_hall_symbol_and_code() -> None:
    for number in (5, 14, 15, 48, 50, 62, 146, 166, 222, 227):
        for group in (g for g in gemmi.spacegroup_table() if g.number == number):
            code = (group.ext.strip("\0").lower() + group.qualifier) or "abc"
            cell = CUBE.replace("5.64", "12")
            if group.ext == "H":
                cell = cell.replace("gamma 90", "gamma 120")
            ways = (
                f"_space_group_IT_number {number}\n"
                + _listed([operation.triplet() for operation in group.operations()]),
                f"_space_group_name_H-M_alt '{group.xhm()}'\n",
                f"_space_group_name_Hall '{group.hall}'\n",
                f"_space_group_IT_number {number}\n_space_group_IT_coordinate_system_code {code}\n",
            )
            text = f"{LOOP}Na1 Na 0.07 0.11 0.19\n"
            read = [_read(f"{cell}\n{way}{text}", min_distance=0.0) for way in ways]
            places = [{tuple(place) for place in item.crystal.coordinates.round(6)} for item in read]
            assert len(places[0]) == len(group.operations())
            assert places[1:] == [places[0]] * 3, group.xhm()


def test_written_symmetric_cif_is_never_refused(nacl, copper_primitive, sites_52, single_atom) -> None:
    for crystal in (nacl, copper_primitive, sites_52, single_atom):
        assert len(_read(write_cif(symmetrised(crystal, 0.01))).crystal) == len(crystal)


# Elements and sites


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        ("NH4", "NH4 is a group: an N with 4 hydrogens"),
        ("CO3", "'CO3' stands for several atoms"),
        ("H2O", "H2O is a group: an O with 2 hydrogens"),
        ("'Nb,Zr'", "mixed site: 'Nb,Zr'"),
        ("'0.8Nb + 0.2Zr'", "mixed site"),
        ("Fe3", "unknown element: 'Fe3' has a number without a sign"),
        ("CO", "element in doubt: 'CO' may be Co, or C with O"),
        ("cL", "unknown element: 'cL'"),
    ],
)
def test_type_symbol_that_is_no_element_and_charge_is_refused_as_it_stands(symbol: str, reason: str) -> None:
    assert reason in _reason(f"{CUBE}\n{LOOP}A1 {symbol} 0 0 0\nNa1 Na 0.5 0.5 0.5\n")


@pytest.mark.parametrize(
    ("symbol", "number"), [("Fe+3", 26), ("FE3+", 26), ("Fe2.5+", 26), ("'Fe3+,spin=5'", 26), ("H(SDS)", 1), ("co", 27)]
)
def test_element_and_charge_are_read_in_the_notations_of_programs(symbol: str, number: int) -> None:
    assert number in _read(f"{CUBE}\n{LOOP}A1 {symbol} 0 0 0\nNa1 Na 0.5 0.5 0.5\n").crystal.numbers


def test_unknown_type_symbol_falls_back_to_a_label_that_names_one_element() -> None:
    assert _sites(f"{CUBE}\n{LOOP}Na1 ? 0 0 0\nCl1 . 0.5 0.5 0.5\n") == ("NaCl", 2)
    assert "label 'T1' names no element" in _reason(f"{CUBE}\n{LOOP}T1 ? 0 0 0\n")
    water = f"{CUBE}\n{LOOP}OW1 ? 0 0 0\nNa1 ? 0.5 0.5 0.5\n"
    assert "label 'OW1'" in _reason(water)
    assert _sites(f"{water}_chemical_formula_sum 'Na O'\n") == ("Na2O2", 2)


def test_hydrogens_without_a_place_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    hydroxide = f"{CUBE}\n{GROUP}{LOOP}Na1 Na 0 0 0\nO1 OH 0.5 0.5 0.5\n_chemical_formula_sum 'H Na O'\n"
    assert "data.limits.groups=heavy_atom" in _read(hydroxide).advice
    entry = _read(hydroxide, groups="heavy_atom")
    assert (entry.crystal.formula, len(entry.crystal), entry.hydrogens_left_out) == ("Na2O2", 8, 4)
    attached = SALT.replace("_fract_z\n", "_fract_z\n_atom_site_attached_hydrogens\n").replace("0.5\n", "0.5 2\n")
    attached = f"{CUBE}\n{attached.replace('0 0 0', '0 0 0 0')}"
    assert "Cl1 has 2" in _reason(attached)
    assert _read(attached, groups="heavy_atom").hydrogens_left_out == 2
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.cif").write_text(hydroxide)
    (tmp_path / "in" / "b.cif").write_text(attached)
    options = IngestOptions(workers=0, cache=tmp_path / "cache")
    store = open_store(CifFolder(tmp_path / "in"), Limits(groups="heavy_atom"), options)
    assert store.hydrogens_left_out == (2, 6)


def test_attached_hydrogens_that_are_listed_as_well_are_no_loss() -> None:
    rows = "O1 O 0.5 0.5 0.5 2\nH1 H 0.5 0.5 0.33 0\nH2 H 0.5 0.33 0.5 0\n"
    loop = LOOP.replace("_fract_z\n", "_fract_z\n_atom_site_attached_hydrogens\n")
    assert _sites(f"{CUBE}\n{loop}{rows}_chemical_formula_sum 'H2 O'\n") == ("H2O", 3)
    assert "without a place" in _reason(f"{CUBE}\n{loop}{rows}")


def test_rows_of_one_element_on_one_site_and_ghost_rows_are_no_disorder() -> None:
    loop = LOOP.replace("_fract_z\n", "_fract_z\n_atom_site_occupancy\n")
    iron = "Fe1 Fe2+ 0 0 0 0.6\nFe2 Fe3+ 0 0 0 0.4\nO1 O 0.5 0.5 0.5 1\n"
    assert _sites(f"{CUBE}\n{GROUP}{loop}{iron}") == ("FeO", 8)
    assert _sites(f"{CUBE}\n{GROUP}{loop}{iron}Cu1 Cu 0.25 0.25 0.25 0\n") == ("FeO", 8)
    assert "Fe has 0.6 and Ni has 0.4" in _reason(f"{CUBE}\n{loop}{iron.replace('Fe2 Fe3+', 'Ni1 Ni')}")


def test_alternatives_are_disorder_and_dummy_sites_are_no_atoms() -> None:
    loop = LOOP.replace("_fract_z\n", "_fract_z\n_atom_site_disorder_assembly\n_atom_site_disorder_group\n")
    rows = "Si1 Si 0 0 0 . .\nO1 O 0.3 0 0 A 1\nO2 O 0.3 0.1 0 A 2\n"
    assert "exclude each other" in _reason(f"{CUBE}\n{loop}{rows}")
    assert _sites(f"{CUBE}\n{loop}{rows}", occupancy="majority") == ("SiO", 2)
    assert "about a special position" in _reason(f"{CUBE}\n{loop}{rows.replace('A 2', 'A -1')}")
    assert _sites(f"{CUBE}\n{loop}{rows.replace('A 2', 'A 1')}") == ("SiO2", 3)
    loop = LOOP.replace("_fract_z\n", "_fract_z\n_atom_site_calc_flag\n")
    assert _sites(f"{CUBE}\n{loop}Si1 Si 0 0 0 d\nDU1 Q 0.3 0.3 0.3 dum\n") == ("Si", 1)
    assert "no atoms in the cell" in _reason(f"{CUBE}\n{GROUP}{loop}DU1 Q 0.3 0.3 0.3 dum\n")


# Composition


@pytest.mark.parametrize(
    "formula", ["Na1 Cl1", "Cl Na", "NaCl", "Cl4 Na4", "Cl1.00 Na1.00", "?", "X2 Y", "Na Cl n", "Na0.98 Cl"]
)
def test_formula_that_agrees_or_says_nothing_is_no_ground_to_refuse(formula: str) -> None:
    assert _sites(f"{CUBE}\n{GROUP}{SALT}_chemical_formula_sum '{formula}'\n") == ("NaCl", 8)


@pytest.mark.parametrize("formula", ["Na2 Cl", "Na Cl O", "Na", "Na Br", "H Na Cl", "Na0.7 Cl"])
def test_formula_that_disagrees_is_a_refusal_that_quotes_it(formula: str) -> None:
    assert f"the file says '{formula}'" in _reason(f"{CUBE}\n{GROUP}{SALT}_chemical_formula_sum '{formula}'\n")


def test_one_atom_of_fifty_two_that_is_lost_is_noticed(sites_52) -> None:
    text = write_cif(sites_52).rstrip("\n")
    assert isinstance(_read(text), Entry)
    formula = re.search(r"_chemical_formula_sum '(.*)'", text)[1]
    lost = _read(text.rpartition("\n")[0] + "\n")
    assert isinstance(lost, Reject) == (len(formula.split()) > 1)


# Text


def test_torn_part_that_no_crystal_is_made_of_costs_nothing() -> None:
    whole = f"{CUBE}\n{GROUP}{SALT}"
    for torn in (
        "loop_\n_publ_author_name\n_publ_author_address\n'A.' 'B'\n'C.'\n",
        "_journal_name 'Acta\n",
        "_journal_name Acta Cryst\n",
        "_journal_year\n",
        "_journal_year 1\n_journal_year 2\n",
    ):
        assert _sites(whole.replace("data_x\n", f"data_x\n{torn}")) == ("NaCl", 8), torn
        assert _sites(whole + torn) == ("NaCl", 8), torn


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Cl1 Cl 0.5 0.5 0.5", "Cl1 Cl 0.5 0.5", r"loop is truncated.*line 16: 'Cl1 Cl 0\.5 0\.5'"),
        ("'F m -3 m'", "F m -3 m", "more than one value, line 8: .*F m -3 m"),
        ("_cell_length_a 5.64", "_cell_length_a", "_cell_length_a has no value, line 2"),
        ("_cell_length_a 5.64", "_cell_length_a '5.64", "a quote does not end, line 2"),
        ("_cell_length_a 5.64", "_x\n;\n_cell_length_a 5.64", "does not end, line 3"),
        ("_cell_length_a 5.64", "_cell_length_a 5.64\n_cell_length_a 4", "item given twice.*'5.64' and '4'"),
    ],
)
def test_torn_part_of_the_crystal_is_refused_with_its_line(old: str, new: str, reason: str) -> None:
    text = f"{CUBE}\n{GROUP}{SALT}"
    assert old in text
    assert re.search(reason, _reason(text.replace(old, new)))


def test_torn_block_costs_no_other_block_and_repeated_names_are_numbered() -> None:
    block = f"{CUBE}\n{GROUP}{SALT}"
    items = read_cif(block + block.replace("Cl1 Cl 0.5 0.5 0.5", "Cl1 Cl") + block, "f", Limits())
    assert [(item.entry, type(item).__name__) for item in items] == [
        ("x", "Entry"),
        ("x (2)", "Reject"),
        ("x (3)", "Entry"),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n\f", "\f"])
def test_every_end_of_line_is_read_and_ctrl_z_ends_a_file(end: str, tmp_path: Path) -> None:
    text = f"# made by a diffractometer\n{CUBE}\n{GROUP}{SALT}\x1a".replace("\n", end)
    assert _read(text.encode()).crystal.formula == "NaCl"
    assert len(_read(text).crystal) == 8
    if "\f" not in end:
        (tmp_path / "a.vasp").write_text(
            "x\n1\n4 0 0\n0 4 0\n0 0 4\nCs Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n", newline=end
        )
        (entry,) = PoscarFolder(tmp_path / "a.vasp").read(Limits())
        assert isinstance(entry, Entry)
